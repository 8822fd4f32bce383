"""Phonemes of a frame: where they are, at any speed, and how they are learnt."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nemo_duplex.conversation import Turn, Word
from nemo_duplex.inputs import InputError
from nemo_duplex.perception.acoustics import Augmentation
from nemo_duplex.perception.ctc_data import UNKNOWN, Utterance, UtteranceBatches
from nemo_duplex.perception.phonemes import PhonemeTargets, phoneme_loss

#: "ab" from 0.16 to 0.32 s, "c" from 0.48 to 0.56 s.
TURN = Turn("user", 0.16, 0.56, "ab c", words=(Word("ab", 0, 0.16, 0.32), Word("c", 3, 0.48, 0.56)))
A, B, C, X = 1, 2, 3, UNKNOWN


def utterance(*turns: Turn) -> Utterance:
    return Utterance("one", np.zeros(16000, np.int16), " ".join(t.text for t in turns), 0, 16000, 0, 16000, turns)


def letters(text: str) -> list[str]:
    """Stands for a reader: letters are phonemes, and it cannot read a q."""
    if "q" in text:
        raise InputError("q")
    return list(text)


def targets(*turns: Turn, frames: int = 8, since: float = 0.0, speed: float = 1.0) -> list[int]:
    """Those of each half frame, 40 ms."""
    return PhonemeTargets([utterance(*turns)], letters).of(turns, frames, since, speed).flatten().tolist()


def test_the_phonemes_of_a_word_share_its_time():
    assert targets(TURN) == [0, 0, 0, 0, A, A, B, B, 0, 0, 0, 0, C, C, 0, 0]


def test_a_half_of_a_frame_is_what_is_said_in_its_middle():
    """Frames that begin less than half of a half later have the same middles within the same phonemes."""
    later = [0, 0, 0, A, A, B, B, 0, 0, 0, 0, C, C, 0, 0, 0]
    assert targets(TURN, since=0.035) == targets(TURN, since=0.045) == later
    assert targets(TURN, since=0.015) == targets(TURN)


def test_what_is_heard_at_double_speed_comes_in_half_the_time():
    assert targets(TURN, frames=4, speed=2.0) == [0, 0, A, B, 0, 0, C, 0]


def test_frames_end_and_begin_within_a_word():
    assert targets(TURN, frames=3) == [0, 0, 0, 0, A, A]
    assert targets(TURN, frames=3, since=0.2) == [A, B, B, 0, 0, 0]


def test_what_nobody_knows():
    untimed = Turn("user", 0.0, 0.16, "ab")
    assert targets(untimed, TURN, frames=4) == [X, X, X, X, A, A, B, B]
    unread = Turn("user", 0.0, 0.16, "a q", words=(Word("a", 0, 0.0, 0.08), Word("q", 2, 0.08, 0.16)))
    assert targets(unread, frames=3) == [A, A, X, X, 0, 0]


def test_each_word_is_read_once():
    read = []
    known = PhonemeTargets([utterance(TURN), utterance(TURN)], lambda text: read.append(text) or list(text))
    assert read == ["ab", "c"] and known.count == 4


def test_the_loss_is_the_mean_over_what_is_known():
    told = torch.randn(1, 3, 2 * 4)
    known = torch.tensor([[[A, UNKNOWN], [0, C]]])
    log_probs = told.view(1, 3, 2, 4).log_softmax(-1)[0]
    expected = -(log_probs[0, 0, A] + log_probs[1, 0, 0] + log_probs[1, 1, C]) / 3
    torch.testing.assert_close(phoneme_loss(told, known), expected)
    assert phoneme_loss(told, torch.full((1, 2, 2), UNKNOWN)).item() == 0.0


class Pieces:
    vocab_size = 5

    def text_to_ids(self, text: str) -> list[int]:
        return [1]

    def ids_to_pieces(self, ids):
        return ["x" for _ in ids]


@pytest.mark.parametrize("speed", [1.0, 1.25])
def test_batches_have_them_where_they_are_heard(monkeypatch, speed):
    """As loud words are: the targets of frames with sound are phonemes, those of others are silence."""
    monkeypatch.setattr(
        UtteranceBatches, "_path", lambda self, utterance, start, heard: torch.zeros(-(-len(heard.audio) // 1280))
    )
    audio = np.zeros(32000, np.int16)
    audio[9600:16000] = 8000
    turn = Turn("user", 0.6, 1.0, "ab", words=(Word("ab", 0, 0.6, 1.0),))
    one = Utterance("one", audio, "ab", 9600, 16000, 0, 32000, (turn,))
    chain = Augmentation(
        speed=(speed, speed),
        gain_db=(0.0, 0.0),
        room=0,
        babble=0,
        noise=0,
        lowpass=0,
        tilt=0,
        clipping=0,
        telephone=0,
        packet_loss=0,
    )
    batch = UtteranceBatches([one], Pieces(), 10.0, 0, chain, phonemes=PhonemeTargets([one], letters)).batch(3)
    halves = batch.phonemes[0].flatten()
    assert halves.shape == (2 * -(-int(batch.audio_lens[0]) // 1280),)
    loud = (
        torch.nn.functional.pad(batch.audio[0].abs(), (0, len(halves) * 640 - batch.audio.shape[1])).view(-1, 640).mean(1)
        > 0.12
    )
    assert (halves.ne(0) == loud).float().mean() > 0.93 and loud.sum() > 6
    assert halves[halves > 0].unique_consecutive().tolist() == [A, B]
