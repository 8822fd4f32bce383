"""Exact token rows: what is written where, in turns that fit, overflow, are cut off, or run over the end."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from nemo_duplex.channels.text_channel import pad_of, text_channel, token_offsets
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


def test_a_turn_that_was_cut_off_holds_what_had_been_written_by_then():
    """The text leads: w3 was written before the cut that kept it from being said."""
    words = (Word("w1", 0, 0.2, 0.4), Word("w2,", 3, 0.4, 0.6), Word("w3", 7, 0.6, 0.8), Word("w4", 10, 0.8, 1.0))
    turn = Turn("agent", 0.16, 1.0, "w1 w2, w3 w4", words=words)
    cut = turn.cut_at(0.56)
    assert cut.text == "w1 w2," and cut.full_text == "w1 w2, w3 w4"
    assert row(cut) == [0, 0, BOS, 11, 12, 13, 14, EOS, 0, 0, 0, 0]
    assert row(turn.cut_at(0.4)) == [0, 0, BOS, 11, 12, EOS, 0, 0, 0, 0, 0, 0]


def test_a_turn_that_ends_with_the_conversation_has_no_eos():
    assert row(Turn("agent", 0.72, 0.96, "w1")) == [0] * 9 + [BOS, 11, 0]
    assert row(Turn("agent", 0.88, 0.96, "w1")) == [0] * 11 + [BOS], "A turn of the last frame."
    assert row(Turn("agent", 0.72, 2.0, "w1 w2 w3 w4 w5")) == [0] * 9 + [BOS, 11, 12]


def test_an_unfinished_turn_goes_on_to_the_end_of_the_audio():
    """0.9 s are 11.25 frames: the turn ends with the audio, within the last of 12 frames. Another turn there has ended."""
    turn = Turn("agent", 0.72, 0.9, "w1", custom={"unfinished": True})
    assert row(turn) == [0] * 9 + [BOS, 11, PAD]
    assert row(replace(turn, custom={})) == [0] * 9 + [BOS, 11, EOS]


def test_an_unfinished_turn_in_the_middle_ends_where_it_is_cut():
    """In padded audio silence follows it, and in joined audio another turn."""
    turn = Turn("agent", 0.16, 0.4, "w1 w2 w3 w4 w5", custom={"unfinished": True})
    assert row(turn) == [0, 0, BOS, 11, 12, EOS] + [0] * 6
    assert row(turn, Turn("agent", 0.56, 0.72, "w7")) == [0, 0, BOS, 11, 12, EOS, 0, BOS, 17, EOS, 0, 0]


@pytest.mark.parametrize(("start", "end"), [(0.16, 0.17), (0.25, 0.27), (0.95, 0.96), (0.2, 0.2)])
def test_a_turn_within_one_frame_is_left_out(start, end):
    """A BOS without EOS would make everything that follows speech."""
    assert row(Turn("agent", start, end, "w1")) == [0] * 12
    later = Turn("agent", 0.4, 0.56, "w2")
    assert row(Turn("agent", start, end, "w1"), later) == row(later)


def test_a_short_turn_over_a_frame_edge_has_that_frame():
    assert row(Turn("agent", 0.19, 0.21, "w1"))[:4] == [0, 0, BOS, EOS]


def test_turns_that_touch():
    assert row(Turn("agent", 0, 0.32, "w1"), Turn("agent", 0.32, 0.64, "w2"))[:9] == [BOS, 11, 0, 0, BOS, 12, 0, 0, EOS]


@pytest.mark.parametrize("start", [0.161, 0.199, 0.121])
def test_times_off_the_grid_go_to_the_nearest_frame(start):
    assert row(Turn("agent", start, 0.64, "w1")).index(BOS) == 2
    assert row(Turn("agent", 0.08, 0.48 + start, "w1")).index(EOS) == 8


def test_overlapping_turns_end_where_the_last_of_them_ends():
    """The speaker is heard until then; the text of a turn ends at the next BOS."""
    long, inside, after = Turn("agent", 0, 0.8, "w1 w2 w3 w4 w5 w6"), Turn("agent", 0.32, 0.64, "w7"), Turn("agent", 0.72, 0.88)
    assert row(long, inside) == [BOS, 11, 12, 13, BOS, 17, 0, 0, 0, 0, EOS, 0]
    assert row(long, inside, after) == [BOS, 11, 12, 13, BOS, 17, 0, 0, 0, BOS, 0, EOS]
    assert row(inside, long) == row(long, inside)


def test_of_turns_that_start_together_the_longest_is_written():
    assert row(Turn("agent", 0.16, 0.48, "w1"), Turn("agent", 0.18, 0.32, "w2 w3"))[:7] == [0, 0, BOS, 11, 0, 0, EOS]
    assert row(Turn("agent", 0.16, 0.24, "w1"), Turn("agent", 0.18, 0.24, "w2")).count(BOS) == 1


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


def test_a_word_stands_in_the_frame_in_which_it_begins_not_the_nearest():
    turn = Turn("agent", 0.16, 0.8, "w1 w2", words=(Word("w1", 0, 0.16, 0.3), Word("w2", 3, 0.47, 0.6)))
    got = text_channel([turn], 12, Words(), bos=BOS, eos=EOS, pad=PAD, alignment="word").tolist()
    assert got == [0, 0, BOS, 11, 0, 12, 0, 0, 0, 0, EOS, 0]


def test_a_token_belongs_to_the_word_in_which_it_ends():
    """Words that touch, as in Chinese: the first token ends where the second word begins."""
    letters = SimpleNamespace(text_offsets=lambda text: [(10 + i, i + 1) for i in range(len(text))])
    turn = Turn("agent", 0.0, 0.8, "AB", words=(Word("A", 0, 0.0, 0.3), Word("B", 1, 0.4, 0.6)))
    got = text_channel([turn], 12, letters, bos=BOS, eos=EOS, pad=PAD, alignment="word").tolist()
    assert got == [BOS, 10, 0, 0, 0, 11, 0, 0, 0, 0, EOS, 0]


def test_a_turn_that_was_cut_off_has_the_words_begun_when_aligned_by_word():
    words = (Word("w1", 0, 0.16, 0.3), Word("w2", 3, 0.4, 0.6), Word("w3", 6, 0.6, 0.7))
    cut = Turn("agent", 0.16, 0.8, "w1 w2 w3", words=words).cut_at(0.56)
    got = text_channel([cut], 12, Words(), bos=BOS, eos=EOS, pad=PAD, alignment="word").tolist()
    assert got == [0, 0, BOS, 11, 0, 12, 0, EOS, 0, 0, 0, 0]


def test_a_turn_without_text_needs_no_word_times():
    turns = [Turn("agent", 0.16, 0.4)]
    assert text_channel(turns, 6, Words(), bos=BOS, eos=EOS, pad=PAD, alignment="word").tolist() == [0, 0, BOS, 0, 0, EOS]


@pytest.mark.parametrize(
    ("names", "pad"),
    [({"pad": 0, "pad_id": 5, "unk_id": 7}, 0), ({"pad_id": 5, "unk_id": 7}, 5), ({"pad": -1, "unk_id": 7}, 7)],
)
def test_the_pad_of_a_tokenizer_is_its_pad_or_else_its_unk(names, pad):
    assert pad_of(SimpleNamespace(**names)) == pad


def test_a_tokenizer_without_pad_and_unk_is_refused():
    with pytest.raises(InputError, match="neither pad nor unk"):
        pad_of(SimpleNamespace(pad=-1, unk_id=None))


@pytest.mark.parametrize(
    ("pieces", "ends"),
    [(["▁It", "▁is", "▁so", "."], [2, 5, 8, 9]), (["It", "▁is"], [2, 5])],
    ids=["space before the first word", "none"],
)
def test_pieces_end_where_they_end_in_the_text(pieces, ends):
    """SentencePiece writes a space before the first word that the text does not have."""
    tokenizer = SimpleNamespace(text_to_tokens=lambda text: pieces, tokens_to_ids=lambda names: [len(n) for n in names])
    assert token_offsets("It is so.", tokenizer) == [(len(piece), end) for piece, end in zip(pieces, ends)]


def test_word_alignment_needs_word_times():
    with pytest.raises(InputError, match="'w1 w2' at 0.16 s has no word times.* or take model.text_alignment=turn.$"):
        text_channel([Turn("agent", 0.16, 0.8, "w1 w2")], 12, Words(), bos=BOS, eos=EOS, pad=PAD, alignment="word")
