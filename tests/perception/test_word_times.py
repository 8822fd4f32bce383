"""Tokens at the time at which they are spoken."""

import pytest

from nemo_duplex.conversation import Turn, Word
from nemo_duplex.perception.ctc_data import token_path, token_times

TURN = Turn(
    "user", 1.0, 2.4, "What is up?", words=(Word("What", 0, 1.0, 1.4), Word("is", 5, 1.4, 1.6), Word("up", 8, 2.0, 2.4))
)


class Pieces:
    """Cuts `What is up?` as SentencePiece would."""

    pieces = ["▁Wh", "at", "▁is", "▁up", "?"]

    def text_to_tokens(self, text):
        assert "".join(self.pieces).replace("▁", " ").strip() == text
        return self.pieces

    def tokens_to_ids(self, tokens):
        return [10 + self.pieces.index(t) for t in tokens]


def test_a_token_is_there_when_its_last_character_is():
    tokens, times = zip(*token_times(TURN, Pieces()))
    assert tokens == (10, 11, 12, 13, 14)
    assert times == pytest.approx((1.2, 1.4, 1.6, 2.4, 2.4))


def test_the_path_has_one_token_per_frame():
    path = token_path([TURN], 40, Pieces(), blank=0).tolist()
    assert {i: t for i, t in enumerate(path) if t} == {15: 10, 17: 11, 20: 12, 30: 13, 31: 14}
    assert token_path([TURN], 31, Pieces(), blank=0).tolist()[30] == 13, "What comes after the last frame is dropped."


def test_without_word_times_there_is_no_path():
    assert token_times(Turn("user", 0, 1, "What is up?"), Pieces()) == []
