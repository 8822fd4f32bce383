"""Cuts become batches; a cut that cannot is named."""

import numpy as np
import pytest
import torch
from lhotse import CutSet, MonoCut, Recording
from lhotse.audio import AudioSource

from nemo_duplex.conversation import Conversation, Turn, Word
from nemo_duplex.data.dataset import DuplexS2SDataset
from nemo_duplex.inputs import InputError
from tests.dummies import Letters, wav_bytes

USER, AGENT = 0.25, 0.5  # levels by which the channels are told apart


class OtherPad(Letters):
    pad = 3


def recording(name, seconds, rate, level):
    samples = np.full(round(seconds * rate), level, np.float32)
    source = AudioSource("memory", [0], wav_bytes(samples, rate))
    return Recording(name, [source], rate, round(seconds * rate), seconds)


TURNS = (Turn("agent", 0.4, 0.8, "ab"), Turn("user", 0.1, 0.3, "q"), Turn("agent", 1.2, 1.4, "c"))


def cut(name="a", seconds=1.6, rate=16000, agent=True, turns=TURNS):
    supervisions = Conversation(name, seconds, turns).to_supervisions()
    user = recording(name, seconds, rate, USER)
    made = MonoCut(name, 0, seconds, 0, recording=user, supervisions=supervisions)
    if agent:
        made.target_audio = recording(name + "-agent", seconds, 22050, AGENT)
    return made


def batch_of(*cuts, tokenizer=None, **options):
    return DuplexS2SDataset(tokenizer or Letters(), **options)[CutSet.from_cuts(cuts)]


def test_two_conversations_and_their_padding():
    batch = batch_of(cut("a"), cut("b", seconds=0.87, turns=()), tokenizer=OtherPad())
    assert batch.ids == ["a", "b"]
    assert batch.user_audio_lens.tolist() == [25600, 13920]
    assert batch.num_frames.tolist() == [20, 11], "0.87 s are 10.9 frames, which take 11"
    assert batch.agent_audio_lens.tolist() == [35280, round(0.87 * 22050)]
    for audio, lens, level in (
        (batch.user_audio, batch.user_audio_lens, USER),
        (batch.agent_audio, batch.agent_audio_lens, AGENT),
    ):
        assert audio.dtype == torch.float32 and audio.shape == (2, lens[0])
        assert audio[0] == pytest.approx(level) and audio[1, : lens[1]] == pytest.approx(level)
        assert not audio[1, lens[1] :].any()
    bos, eos, pad = 1, 2, 3
    # The agent from frame 5 to 10, again from 15 to 18 (1.4 s, rounded up); the user from frame 1 to 4.
    a, b, c, q = map(ord, "abcq")
    agent = [pad] * 5 + [bos, a, b, pad, pad, eos, *[pad] * 4, bos, c, pad, eos, pad]
    assert batch.agent_tokens.tolist() == [agent, [pad] * 20]
    assert batch.user_tokens.tolist() == [[pad, bos, q, pad, eos, *[pad] * 15], [pad] * 20]
    assert batch.agent_texts == ["ab c", ""]
    assert batch.valid.sum(dim=1).tolist() == [20, 11]
    assert batch.agent_codes is None


def test_other_rates_are_resampled():
    batch = batch_of(cut(rate=8000), source_sample_rate=16000, target_sample_rate=11025)
    assert batch.user_audio.shape == (1, 25600) and batch.user_audio_lens.tolist() == [25600]
    assert batch.agent_audio.shape == (1, 17640) and batch.agent_audio_lens.tolist() == [17640]
    assert batch.num_frames.tolist() == [20]
    assert batch_of(cut(), source_sample_rate=8000).user_audio.shape == (1, 12800)


def test_another_frame_length():
    batch = batch_of(cut(), frame_length=0.16)
    assert batch.num_frames.tolist() == [10]
    assert batch.agent_tokens[0].tolist() == [0, 0, 0, 1, 97, 2, 0, 0, 1, 2]  # 2.5 and 7.5 frames are rounded up


def with_codes(monkeypatch, codes):
    """A cut with `target_codes`; how they are stored does not matter here."""
    made = cut(f"with {len(codes)}")
    made.target_codes = made.target_audio
    known = {**getattr(MonoCut, "_codes", {}), made.id: codes}
    monkeypatch.setattr(MonoCut, "_codes", known, raising=False)
    monkeypatch.setattr(MonoCut, "load_target_codes", lambda self: self._codes[self.id].numpy(), raising=False)
    return made


def test_codes_that_lie_with_the_cut_are_taken(monkeypatch):
    given = torch.arange(60).reshape(20, 3)
    batch = batch_of(with_codes(monkeypatch, given))
    assert torch.equal(batch.agent_codes, given.T[None]), "(B, K, T) of (T, K)"
    assert batch.agent_codes.dtype == torch.long and batch.agent_audio is None and batch.agent_audio_lens is None


def test_codes_of_a_part_of_the_batch_are_made_again(monkeypatch):
    batch = batch_of(with_codes(monkeypatch, torch.zeros(20, 3)), cut("without"))
    assert batch.agent_codes is None and batch.agent_audio.shape == (2, 35280)


@pytest.mark.parametrize("frames", [19, 21])
def test_codes_of_another_length_are_refused(monkeypatch, frames):
    with pytest.raises(InputError, match=f"Cut with {frames} has {frames} frames of codes for 20"):
        batch_of(with_codes(monkeypatch, torch.zeros(frames, 3)))


def test_a_cut_with_codes_alone_needs_no_agent_audio(monkeypatch):
    made = with_codes(monkeypatch, torch.zeros(20, 3))
    del made.custom["target_audio"]
    assert batch_of(made).agent_codes.shape == (1, 3, 20)


def test_speakers_of_other_corpora_get_their_roles():
    made = cut()
    for supervision in made.supervisions:
        supervision.speaker = {"user": "Bob", "agent": "assistant"}[supervision.speaker]
    batch = batch_of(made, input_roles=["Bob", "Eve"], output_roles=["assistant"])
    assert batch.agent_texts == ["ab c"]
    assert torch.equal(batch.agent_tokens, batch_of(cut()).agent_tokens)
    assert torch.equal(batch.user_tokens, batch_of(cut()).user_tokens)


def test_words_stand_where_they_are_said():
    class Spelled(Letters):
        def text_offsets(self, text):
            return [(ord(c), i + 1) for i, c in enumerate(text)]

    words = (Word("a", 0, 0.4, 0.6), Word("b", 1, 0.72, 0.8))
    made = cut(turns=(Turn("agent", 0.4, 1.2, "ab", words=words), Turn("user", 0.1, 0.3, "q")))
    tokens = batch_of(made, tokenizer=Spelled(), text_alignment="word").agent_tokens[0]
    assert tokens[5:16].tolist() == [1, 97, 0, 0, 98, 0, 0, 0, 0, 0, 2]
    assert batch_of(made, tokenizer=Spelled()).agent_tokens[0, 5:9].tolist() == [1, 97, 98, 0]
    with pytest.raises(InputError, match="text_alignment is 'words', expected one of turn, word"):
        batch_of(made, text_alignment="words")


def test_bad_cuts_are_named():
    with pytest.raises(InputError, match="Cut x has no agent channel"):
        batch_of(cut("x", agent=False))
    stranger = cut("y")
    stranger.supervisions[0].speaker = "assistant"
    with pytest.raises(InputError, match="Cut y.*'assistant'"):
        batch_of(stranger)
    stereo = Recording.from_bytes(wav_bytes(np.zeros((1600, 2), np.float32), 16000), "s").to_cut().with_id("z")
    stereo.target_audio = recording("s-agent", 0.1, 22050, AGENT)
    with pytest.raises(InputError, match="Cut z: the user channel has 2 channels, expected one"):
        batch_of(stereo)
