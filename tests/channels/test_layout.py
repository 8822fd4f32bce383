"""The special ids of the text and speech channels: all different, all where the paper has them."""

from __future__ import annotations

import pytest

from nemo_duplex.channels.layout import ChannelLayout

PAPER = dict(text_vocab_size=32003, text_pad=32000, text_bos=32001, text_eos=32002, num_codebooks=4, codebook_size=4032)


def test_the_papers_vocabulary():
    layout = ChannelLayout(**PAPER)
    assert layout.speech_vocab_size == 4037
    assert layout.speech_delay == 1
    assert layout.text_lead == 2, "text BOS stands beside the frame before speech BOS, two before the first heard code"


@pytest.mark.parametrize(
    ("marks", "delay", "shift", "lag", "lead", "tail"),
    [("beside", 0, 1, 0, 1, 1), ("beside", 1, 2, 0, 2, 2), ("beside", 3, 4, 0, 4, 4),
     ("in_place", 0, 1, -1, 1, 0), ("in_place", 1, 1, 0, 2, 1), ("in_place", 3, 1, 2, 4, 3)],
)  # fmt: skip
def test_how_far_the_channels_are_moved(marks, delay, shift, lag, lead, tail):
    """In place, what is heard is late instead of what is written being early."""
    layout = ChannelLayout(**PAPER, speech_delay=delay, turn_marks=marks)
    assert (layout.text_shift, layout.speech_lag, layout.text_lead, layout.text_tail) == (shift, lag, lead, tail)


def test_speech_specials_are_five_different_ids_above_the_codes():
    layout = ChannelLayout(**PAPER)
    specials = [layout.speech_bos, layout.speech_eos, layout.speech_start, layout.speech_pad, layout.speech_spare]
    assert specials == [4032, 4033, 4034, 4035, 4036], "The order stands in the weights of trained agents."


@pytest.mark.parametrize("shared", [dict(text_pad=32002), dict(text_bos=32000), dict(text_eos=32001)])
def test_shared_text_ids_are_refused(shared):
    """TinyLlama-chat pads with EOS: then the model could never tell silence from the end of a turn."""
    with pytest.raises(ValueError, match="three different ids, .* Take a tokenizer with a pad, bos and eos of its own.$"):
        ChannelLayout(**{**PAPER, **shared})


@pytest.mark.parametrize(
    "wrong, message",
    [
        (
            dict(text_eos=32003),
            "eos id 32003 is outside the vocabulary of 32003. Take a tokenizer with a pad, bos and eos of its own.$",
        ),
        (dict(text_pad=-1), "pad id -1 is outside"),
        (dict(num_codebooks=0), "needs codebooks"),
        (dict(codebook_size=0), "needs codebooks"),
        (dict(text_bos=32003), "bos id 32003 is outside"),
        (dict(speech_delay=-1), "Speech cannot lead text"),
        (dict(turn_marks="inside"), "turn_marks is 'inside', expected one of beside, in_place"),
    ],
)
def test_a_layout_out_of_range_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ChannelLayout(**{**PAPER, **wrong})
