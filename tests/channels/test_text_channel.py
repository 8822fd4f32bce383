"""Exact token rows: what is written where, in turns that fit, overflow, are cut off, or run over the end."""

import pytest

from nemo_duplex.channels.text_channel import overflowing_frames, text_channel
from nemo_duplex.conversation import Turn, Word
from nemo_duplex.inputs import InputError

PAD, BOS, EOS = 0, 1, 2


class Words:
    """One id per word: w3 is 13."""

    def text_to_ids(self, text):
        return [10 + int(word[1:].strip(".,")) for word in text.split()]

    def ids_to_text(self, ids):
        return " ".join(f"w{i - 10}" for i in ids)

    def text_offsets(self, text):
        ends = [i for i, c in enumerate(text + " ") if c == " "]
        return list(zip(self.text_to_ids(text), ends))


def row(*turns, frames=12):
    return text_channel(turns, frames, Words(), bos=BOS, eos=EOS, pad=PAD).tolist()


def test_a_turn_that_fits():
    assert row(Turn("agent", 0.16, 0.64, "w1 w2 w3")) == [0, 0, BOS, 11, 12, 13, 0, 0, EOS, 0, 0, 0]


def test_text_that_overflows_ends_at_eos():
    """NeMo's own dataset writes EOS into the middle of the text and goes on writing after it (issue notes, data 2.3)."""
    turn = Turn("agent", 0.16, 0.4, "w1 w2 w3 w4 w5")
    assert row(turn) == [0, 0, BOS, 11, 12, EOS, 0, 0, 0, 0, 0, 0]
    assert overflowing_frames(turn, Words()) == 3
    assert overflowing_frames(Turn("agent", 0.16, 0.8, "w1"), Words()) == 0


def test_a_turn_that_was_cut_off_holds_what_had_been_written_by_then():
    """The text leads: w3 was written before the cut that kept it from being said."""
    words = (Word("w1", 0, 0.2, 0.4), Word("w2,", 3, 0.4, 0.6), Word("w3", 7, 0.6, 0.8), Word("w4", 10, 0.8, 1.0))
    turn = Turn("agent", 0.16, 1.0, "w1 w2, w3 w4", words=words)
    cut = turn.cut_at(0.56)
    assert cut.text == "w1 w2," and cut.full_text == "w1 w2, w3 w4"
    assert row(cut) == [0, 0, BOS, 11, 12, 13, 14, EOS, 0, 0, 0, 0]
    assert row(turn.cut_at(0.4)) == [0, 0, BOS, 11, 12, EOS, 0, 0, 0, 0, 0, 0]


def test_a_turn_that_ends_with_the_cut_or_is_unfinished_has_no_eos():
    assert row(Turn("agent", 0.72, 0.96, "w1")) == [0] * 9 + [BOS, 11, 0]
    assert row(Turn("agent", 0.16, 0.4, "w1", custom={"unfinished": True}))[5] == PAD


def test_turns_that_touch():
    assert row(Turn("agent", 0, 0.32, "w1"), Turn("agent", 0.32, 0.64, "w2"))[:9] == [BOS, 11, 0, 0, BOS, 12, 0, 0, EOS]


@pytest.mark.parametrize("start", [0.161, 0.199, 0.121])
def test_times_off_the_grid_go_to_the_nearest_frame(start):
    assert row(Turn("agent", start, 0.64, "w1")).index(BOS) == 2


def test_words_stand_where_they_begin():
    """Word-level alignment (paper, section 3.1): as turn-level, but a token waits for its word."""
    words = (Word("w1", 0, 0.16, 0.3), Word("w2,", 3, 0.4, 0.6), Word("w3", 7, 0.64, 0.7))
    turn = Turn("agent", 0.16, 0.8, "w1 w2, w3", words=words)
    got = text_channel([turn], 12, Words(), bos=BOS, eos=EOS, pad=PAD, alignment="word").tolist()
    assert got == [0, 0, BOS, 11, 0, 12, 0, 0, 13, 0, EOS, 0]


def test_words_closer_than_frames_queue_and_end_with_their_turn():
    words = tuple(Word(f"w{i}", 3 * (i - 1), 0.16 + 0.01 * i, 0.5) for i in range(1, 6))
    turn = Turn("agent", 0.16, 0.4, "w1 w2 w3 w4 w5", words=words)
    got = text_channel([turn], 8, Words(), bos=BOS, eos=EOS, pad=PAD, alignment="word").tolist()
    assert got == [0, 0, BOS, 11, 12, EOS, 0, 0]


def test_word_alignment_needs_word_times():
    with pytest.raises(InputError, match="'w1 w2' at 0.16 s has no word times"):
        text_channel([Turn("agent", 0.16, 0.8, "w1 w2")], 12, Words(), bos=BOS, eos=EOS, pad=PAD, alignment="word")
