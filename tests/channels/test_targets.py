"""Text and speech as a model is trained on them, frame by frame, as drawn in channels/layout.py."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.targets import lay_out
from nemo_duplex.channels.text_channel import text_channel
from nemo_duplex.channels.transcript import read_channel
from nemo_duplex.conversation import Turn, Word
from nemo_duplex.frames import FRAME_RATE
from tests.dummies import Letters

BESIDE = ChannelLayout(text_vocab_size=40, text_pad=0, text_bos=1, text_eos=2, num_codebooks=3, codebook_size=50)
IN_PLACE = replace(BESIDE, turn_marks="in_place")
PAD, BOS, EOS = BESIDE.speech_pad, BESIDE.speech_bos, BESIDE.speech_eos


def laid_out(tokens, layout=BESIDE, valid=None):
    """Text, speech, speaking and valid of one row, whose code in frame t is t in the first codebook, 10 more in the next."""
    tokens = torch.tensor([tokens])
    codes = torch.arange(tokens.shape[1]) + 10 * torch.arange(3)[None, :, None]
    valid = tokens >= 0 if valid is None else torch.tensor([valid])
    text, speech, speaking, valid = lay_out(tokens, codes, valid, layout)
    special = speech >= layout.codebook_size
    assert torch.equal(special, special[:, :1].expand_as(special)), "A special is in all codebooks or in none."
    assert torch.equal(speech[:, 1:].where(~special[:, 1:], 0), (speech[:, :1] + codes[:, 1:, :1]).where(~special[:, 1:], 0))
    return text[0].tolist(), speech[0, 0].tolist(), speaking[0].int().tolist(), valid[0].int().tolist()


def test_a_turn_leads_and_its_marks_stand_beside_its_codes():
    """Heard in frames 4 to 7 of 11."""
    text, speech, speaking, valid = laid_out([0, 0, 0, 0, 1, 21, 22, 0, 2, 0, 0])
    assert text == [0, 0, 1, 21, 22, 0, 2, 0, 0, 0, 0]
    assert speech == [PAD, PAD, PAD, BOS, 4, 5, 6, 7, EOS, PAD, PAD]
    assert speaking == [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0]
    assert valid == [1] * 11


def test_a_turn_at_the_very_start_and_one_without_end():
    text, speech, speaking, _ = laid_out([1, 21, 0, 2, 0, 0, 1, 22, 23, 0])
    assert text == [1, 2, 0, 0, 1, 22, 23, 0, 0, 0], "There is no room for a lead, so BOS stands in the first frame."
    assert speech == [0, 1, 2, EOS, PAD, BOS, 6, 7, 8, 9], "An unfinished turn has no EOS."
    assert speaking == [1, 1, 1, 1, 0, 1, 1, 1, 1, 1]


def test_a_turn_in_the_second_frame_has_its_bos_in_the_first():
    assert laid_out([0, 1, 21, 22, 0, 2])[0] == [1, 22, 0, 2, 0, 0]
    assert laid_out([0, 0, 1, 21, 0, 2])[0] == [1, 21, 0, 2, 0, 0]


def test_turns_that_touch():
    """A turn that begins where the one before it ends keeps the last code of that one; there is no room for marks."""
    text, speech, *_ = laid_out([0, 0, 1, 21, 0, 1, 22, 0, 2, 0])
    assert text == [1, 21, 0, 1, 22, 0, 2, 0, 0, 0]
    assert speech == [PAD, BOS, 2, 3, 4, 5, 6, 7, EOS, PAD]


def test_one_frame_between_turns_holds_the_bos_of_the_second():
    text, speech, speaking, _ = laid_out([0, 0, 1, 21, 2, 1, 22, 0, 2, 0])
    assert text == [1, 21, 2, 1, 22, 0, 2, 0, 0, 0]
    assert speech == [PAD, BOS, 2, 3, BOS, 5, 6, 7, EOS, PAD]
    assert speaking == [0, 1, 1, 1, 1, 1, 1, 1, 1, 0]


def test_a_turn_that_is_over_before_its_text_begins_is_not_written():
    """Its text would be BOS alone, and everything after it part of the turn."""
    for tokens in ([1, 2, 0, 0, 0, 0], [1, 21, 2, 0, 0, 0], [0, 1, 2, 0, 0, 0]):
        text, speech, *_ = laid_out(tokens)
        assert text == [0] * 6 and speech.count(EOS) == 1
    assert laid_out([1, 2, 1, 21, 2, 0])[0] == [1, 21, 2, 0, 0, 0]
    assert laid_out([1, 2, 0, 0], IN_PLACE)[0] == [0, 0, 0, 0]
    assert laid_out([1, 21, 2, 0], IN_PLACE)[0] == [1, 2, 0, 0]


@pytest.mark.parametrize(("delay", "text"), [(0, [0, 0, 1, 21, 0, 2, 0, 0]), (3, [1, 0, 2, 0, 0, 0, 0, 0])])
def test_a_delay_moves_the_text_and_no_sound(delay, text):
    got, speech, *_ = laid_out([0, 0, 0, 1, 21, 0, 2, 0], replace(BESIDE, speech_delay=delay))
    assert got == text
    assert speech == [PAD, PAD, BOS, 3, 4, 5, EOS, PAD]


def test_in_place_is_what_nemo_trains_on():
    """One frame of speech delay, marks over codes, silence as codes."""
    text, speech, speaking, valid = laid_out([0, 0, 0, 0, 1, 21, 22, 0, 2, 0, 0], IN_PLACE)
    assert text == [0, 0, 0, 1, 21, 22, 0, 2, 0, 0, 0]
    assert speech == [0, 1, 2, 3, BOS, 5, 6, 7, EOS, 9, 10]
    assert speaking == [0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0]
    assert valid == [1] * 10 + [0], "What follows the last frame is unknown."


@pytest.mark.parametrize(
    ("delay", "speech", "speaking"),
    [
        (0, [BOS, 2, 3, EOS, 5, 6, 7, 7], [1, 1, 1, 1, 0, 0, 0, 0]),
        (2, [0, 0, BOS, 2, 3, EOS, 5, 6], [0, 0, 1, 1, 1, 1, 0, 0]),
        (3, [0, 0, 0, BOS, 2, 3, EOS, 5], [0, 0, 0, 1, 1, 1, 1, 0]),
    ],
)
def test_in_place_a_delay_moves_the_sound(delay, speech, speaking):
    text, *others, _ = laid_out([0, 1, 21, 0, 2, 0, 0, 0], replace(IN_PLACE, speech_delay=delay))
    assert text == [1, 21, 0, 2, 0, 0, 0, 0]
    assert others == [speech, speaking]


def test_text_never_moves_out_of_padding_into_a_conversation():
    text, speech, speaking, valid = laid_out([0, 0, 1, 21, 2, 9, 1, 9], valid=[True] * 5 + [False] * 3)
    assert text == [1, 21, 2, 0, 0, 0, 0, 0]
    assert speech == [PAD, BOS, 2, 3, EOS, PAD, PAD, PAD]
    assert speaking == [0, 1, 1, 1, 1, 0, 0, 0] and valid == [1] * 5 + [0] * 3


def test_codes_that_do_not_lie_on_the_grid_are_refused():
    with pytest.raises(AssertionError, match=r"Codes \(1, 3, 4\) .* \(1, 5\)"):
        lay_out(torch.zeros(1, 5, dtype=torch.long), torch.zeros(1, 3, 4), torch.ones(1, 5, dtype=torch.bool), BESIDE)


# ---- any turns, from times to targets


class Spelled(Letters):
    def text_offsets(self, text):
        return [(ord(character), i + 1) for i, character in enumerate(text)]


def random_turns(random, duration):
    """Turns of one speaker that overlap, touch, begin together, or are shorter than a frame; the last may be unfinished."""
    turns = []
    for start in sorted(random.uniform(0, duration, random.integers(0, 7))):
        start = random.choice([start, round(start / 0.08) * 0.08, *(t.end for t in turns), *(t.start for t in turns)])
        end = min(duration, start + random.choice([0, 0.03, 0.05, 0.08, 0.16, random.uniform(0, 1.5)]))
        if start < duration:
            words = (Word("ab", 0, start, (start + end) / 2), Word("cd", 3, (start + end) / 2, end))
            turns.append(Turn("agent", start, end, "ab cd", words=words, custom={"unfinished": bool(random.random() < 0.2)}))
    return turns


def heard_frames(turns, frames):
    """(T,) bool: the frames of the turns, on the nearest edges."""
    heard, nearest = torch.zeros(frames, dtype=torch.bool), FRAME_RATE.nearest
    for turn in turns:
        heard[nearest(turn.start) : nearest(turn.end)] = True
    over = max((nearest(t.end) for t in turns if nearest(t.start) < nearest(t.end)), default=0)
    if over == frames - 1 and {t.custom["unfinished"] for t in turns if nearest(t.end) == over} == {True}:
        heard[over] = True
    return heard


@pytest.mark.parametrize("alignment", ["turn", "word"])
@pytest.mark.parametrize("marks", ["beside", "in_place"])
def test_the_agent_speaks_in_the_frames_of_its_turns_and_in_no_other(marks, alignment):
    random = np.random.default_rng(0)
    layouts = [replace(BESIDE, text_vocab_size=200, turn_marks=marks, speech_delay=delay) for delay in range(4)]
    pad, bos, eos = BESIDE.text_pad, BESIDE.text_bos, BESIDE.text_eos
    for _ in range(300):
        duration = random.uniform(0.3, 4.0)
        frames = math.ceil(duration / 0.08)
        turns = random_turns(random, duration)
        at_end = {t.custom["unfinished"] for t in turns if FRAME_RATE.nearest(t.end) == frames - 1}
        if len(at_end) == 2:
            continue  # one has ended with the audio, another one has not
        heard = heard_frames(turns, frames)
        tokens = text_channel(turns, frames, Spelled(), bos=bos, eos=eos, pad=pad, alignment=alignment)

        read = read_channel(tokens, layouts[0])
        again = torch.zeros(frames, dtype=torch.bool)
        for turn in read.turns:
            again[turn.start : turn.end] = True
            assert turn.has_eos or turn.end == frames or tokens[turn.end] == bos
        assert torch.equal(again, heard) and read.orphan_eos == 0
        first_frames = {FRAME_RATE.nearest(t.start) for t in turns if FRAME_RATE.nearest(t.start) < FRAME_RATE.nearest(t.end)}
        assert {turn.start for turn in read.turns} == {frame for frame in first_frames if frame < frames}

        codes = torch.arange(frames).expand(1, 3, frames)
        before, after = heard.roll(-1), heard.roll(1)
        before[-1] = after[0] = False
        for layout in layouts:
            text, speech, speaking, valid = lay_out(tokens[None], codes, torch.ones(1, frames, dtype=torch.bool), layout)
            if marks == "beside":
                assert torch.equal(speaking[0], heard | before | after)
                assert torch.equal(speech[0, 0] < layout.codebook_size, heard)
                assert torch.equal(speech[0, 0][heard], codes[0, 0][heard])
            else:
                lag, spoken = layout.speech_lag, heard | after
                moved = [frame - lag for frame in range(frames)]
                assert speaking[0].tolist() == [0 <= at < frames and bool(spoken[at]) for at in moved]
            written = read_channel(text[0], layout)
            assert written.orphan_eos == 0
            moved = [(t.start - layout.text_shift, t.ids) for t in read.turns if t.start > layout.text_shift]
            assert [(t.start, t.ids) for t in written.turns if t.start > 0] == moved
