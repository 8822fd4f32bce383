"""Text and speech as a model is trained on them, frame by frame, as drawn in channels/layout.py."""

from dataclasses import replace

import pytest
import torch

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.targets import lay_out

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
