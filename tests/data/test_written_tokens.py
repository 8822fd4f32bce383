"""A text is written whole or refused in one line, whatever kind of tokenizer it is."""

import pytest
from nemo.collections.common.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
from tokenizers import Tokenizer, models, pre_tokenizers

from nemo_duplex.data.text_tokenizer import HFTokenizer, train_tokenizer, written_tokens
from nemo_duplex.inputs import InputError


@pytest.fixture
def sentencepiece(tmp_path):
    (tmp_path / "texts.txt").write_text("What is the day?\nIt is two.\nIt is six.\n")
    return SentencePieceTokenizer(str(train_tokenizer(tmp_path / "texts.txt", tmp_path / "t.model", 40)))


@pytest.fixture
def letters(tmp_path):
    """A tokenizer that leaves out what it cannot write: its pad is its unk."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return HFTokenizer(tmp_path / "tokenizer.json", "<unk>", "<s>", "</s>")


def test_a_text_is_what_the_tokenizer_makes_of_it(sentencepiece, letters):
    assert sentencepiece.ids_to_text(written_tokens("It  is\ntwo.", sentencepiece, "say")) == "It is two."
    assert written_tokens("ab", letters, "say") == [3, 4]


def test_characters_that_it_does_not_know_are_named(sentencepiece, letters):
    with pytest.raises(InputError, match=r"say: the model's tokenizer cannot write é 日 of 'It is é 日é'\. Say it in"):
        written_tokens("It is é 日é", sentencepiece, "say")
    with pytest.raises(InputError, match="cannot write c of 'abc'"):
        written_tokens("abc", letters, "say")


@pytest.mark.parametrize("text", ["", "  \n", None, 5, b"two", ["two"]], ids=repr)
def test_what_is_no_text_is_refused(sentencepiece, text):
    with pytest.raises(InputError, match="has no word" if isinstance(text, str) else "expected a text") as refusal:
        written_tokens(text, sentencepiece, "system_prompt")
    assert str(refusal.value).startswith("system_prompt: ") and "\n" not in str(refusal.value)
