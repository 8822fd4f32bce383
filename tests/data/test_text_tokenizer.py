"""The tokenizer of a Hugging Face model: one file, three special tokens, and text that comes back as it was."""

import pickle
import subprocess
import sys
from unittest import mock

import pytest
from nemo.collections.common.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
from sentencepiece import SentencePieceTrainer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from nemo_duplex.conversation import Turn, Word
from nemo_duplex.data.text_tokenizer import HFTokenizer, corpus_tokenizer, train_tokenizer, written_tokens
from nemo_duplex.inputs import InputError
from nemo_duplex.perception.ctc_data import token_times
from tests.hf_families import byte_level, save_tokenizer, sentencepiece_like

KINDS = {"byte level": byte_level, "sentencepiece": sentencepiece_like}
TEXTS = [
    "What is the sum of six?",
    "Ein schöner Gruß: 你好 😀!",
    " a  b ",
    "the day </s> is <|endoftext|> red <s>",
    "it's\nnew",
]


def opened(folder, kind, **tokens):
    return HFTokenizer.from_pretrained(str(save_tokenizer(folder / "published", kind(), **tokens)), folder / "ours")


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def tokenizer(request, tmp_path):
    eos = "<|endoftext|>" if request.param is byte_level else "</s>"
    return opened(tmp_path, request.param, eos_token=eos)


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_as_it_was(tokenizer, text):
    ids = tokenizer.text_to_ids(text)
    assert tokenizer.ids_to_text(ids) == text
    assert not {tokenizer.pad, tokenizer.bos, tokenizer.eos} & set(ids), "What is written is no special token."
    assert tokenizer.tokens_to_ids(tokenizer.text_to_tokens(text)) == ids
    assert all(0 <= i < tokenizer.vocab_size for i in ids)


@pytest.mark.parametrize("text", TEXTS)
def test_offsets_end_where_the_text_ends(tokenizer, text):
    offsets = tokenizer.text_offsets(text)
    assert [token for token, _ in offsets] == tokenizer.text_to_ids(text)
    ends = [end for _, end in offsets]
    assert ends == sorted(ends) and ends[-1] == len(text)
    for i, end in enumerate(ends):
        if i + 1 == len(ends) or ends[i + 1] > end:  # no character is split between this token and the next one
            assert tokenizer.ids_to_text([token for token, _ in offsets[: i + 1]]) == text[:end]


def test_no_text_is_no_token(tokenizer):
    assert tokenizer.text_to_ids("") == [] and tokenizer.ids_to_text([]) == ""


def test_special_tokens_are_left_out_of_the_text(tokenizer):
    ids = tokenizer.text_to_ids("It is one.")
    assert tokenizer.ids_to_text([tokenizer.bos, *ids, tokenizer.pad, tokenizer.eos]) == "It is one."


RULES = {
    "all there": ({"eos_token": "</s>", "bos_token": "<s>", "pad_token": "<pad>"}, ("<pad>", "<s>", "</s>")),
    "TinyLlama-chat: pad is eos": (
        {"eos_token": "</s>", "bos_token": "<s>", "pad_token": "</s>"},
        ("<|duplex_pad|>", "<s>", "</s>"),
    ),
    "TinyLlama: no pad, but unk": ({"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}, ("<unk>", "<s>", "</s>")),
    "GPT-NeoX: one for all": (
        {"eos_token": "</s>", "bos_token": "</s>", "pad_token": "</s>"},
        ("<|duplex_pad|>", "<|duplex_bos|>", "</s>"),
    ),
    "Qwen2: no bos": ({"eos_token": "</s>", "pad_token": "<pad>"}, ("<pad>", "<|duplex_bos|>", "</s>")),
    "nothing": ({}, ("<|duplex_pad|>", "<|duplex_bos|>", "<|duplex_eos|>")),
    "pad is bos": ({"bos_token": "<s>", "pad_token": "<s>"}, ("<|duplex_pad|>", "<s>", "<|duplex_eos|>")),
}


@pytest.mark.parametrize(("tokens", "expected"), RULES.values(), ids=RULES)
def test_pad_bos_and_eos_are_three_tokens(tmp_path, tokens, expected):
    plain = sentencepiece_like(("<unk>", "<s>", "</s>", "<pad>"))
    published = save_tokenizer(tmp_path, plain, **tokens)
    tokenizer = HFTokenizer.from_pretrained(str(published), tmp_path / "ours")
    assert tokenizer.special_tokens == expected
    ids = (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id)
    assert ids == (tokenizer.pad, tokenizer.bos, tokenizer.eos) and len(set(ids)) == 3
    known = plain.get_vocab()
    for token, i in zip(expected, ids):
        assert i == known.get(token, i), "A token of the model keeps its id."
        assert token in known or i >= len(known), "A new one comes behind all others."
    assert tokenizer.vocab_size == len(known) + sum(token not in known for token in expected)


def test_one_file_and_three_strings_are_enough(tmp_path):
    first = opened(tmp_path, byte_level, eos_token="<|endoftext|>")
    (tmp_path / "elsewhere").mkdir()
    path = first.path.rename(tmp_path / "elsewhere" / "0123_tokenizer.json")
    again = HFTokenizer(path, *first.special_tokens)
    packed = pickle.dumps(again)  # to the workers of a data loader
    path.unlink()
    copy = pickle.loads(packed)
    for other in (again, copy):
        assert (other.pad, other.bos, other.eos, other.vocab_size) == (first.pad, first.bos, first.eos, first.vocab_size)
        assert [other.text_to_ids(t) for t in TEXTS] == [first.text_to_ids(t) for t in TEXTS]


def test_a_vocabulary_that_holds_its_special_tokens_as_words_is_outwitted(tmp_path):
    """A unigram model finds `</s>` in the text by itself, and calls everything unknown pad."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", -1.0), *((c, -3.0) for c in "▁ab</s>")]
    plain = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    plain.pre_tokenizer = pre_tokenizers.Metaspace()
    plain.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    published = save_tokenizer(tmp_path, plain, eos_token="</s>", bos_token="<s>", unk_token="<unk>")
    tokenizer = HFTokenizer.from_pretrained(str(published), tmp_path / "ours")
    assert tokenizer.special_tokens == ("<unk>", "<s>", "</s>") and tokenizer.unk_id == tokenizer.pad
    assert tokenizer.text_to_tokens("a </s>b") == ["▁", "a", "▁", "<", "/", "s", ">", "b"]
    assert [end for _, end in tokenizer.text_offsets("a </s>b")[-5:]] == [3, 4, 5, 6, 7]
    assert tokenizer.text_offsets("a é b")[-1][1] == 5 and tokenizer.pad not in tokenizer.text_to_ids("a é b")


def letter_tokenizer(folder, **vocabulary):
    """One token per letter, saved with whatever its publisher left switched on: BOS, a length, padding."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4} | vocabulary
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8, pad_id=0, pad_token="<unk>")
    tokenizer.save(str(folder / "tokenizer.json"))
    return HFTokenizer(folder / "tokenizer.json", "<unk>", "<s>", "</s>")


def test_a_text_is_its_tokens_and_nothing_that_the_file_adds(tmp_path):
    letters = letter_tokenizer(tmp_path)
    assert letters.text_to_ids("abbab") == [3, 4, 4, 3, 4]
    assert letters.text_offsets("aab") == [(3, 1), (3, 2), (4, 3)]
    assert letters.ids_to_text([1, 3, 4, 0, 2]) == "ab", "its special tokens were ordinary ones in the file"
    assert letters.unk_id == letters.pad == 0


def test_ids_may_have_gaps(tmp_path):
    assert letter_tokenizer(tmp_path, c=9).vocab_size == 10


def test_tokens_have_the_times_of_their_words(tmp_path):
    tokenizer = opened(tmp_path, byte_level, eos_token="<|endoftext|>")
    turn = Turn("agent", 1.0, 2.4, "It is é.", words=(Word("It", 0, 1.0, 1.4), Word("is", 3, 1.4, 1.6), Word("é", 6, 2.0, 2.4)))
    times = token_times(turn, tokenizer)
    assert [token for token, _ in times] == tokenizer.text_to_ids(turn.text)
    spoken = {piece: time for piece, (_, time) in zip(tokenizer.text_to_tokens(turn.text), times)}
    assert spoken["Ġis"] == pytest.approx(1.6) and spoken["."] == pytest.approx(2.4)
    assert [t for _, t in times] == sorted(t for _, t in times)


def test_what_is_no_tokenizer_is_said_in_one_line(tmp_path):
    tokenizer = opened(tmp_path, byte_level, eos_token="<|endoftext|>")
    with pytest.raises(InputError, match="has no token '<pad>'. Name its pad, bos and eos"):
        HFTokenizer(tokenizer.path, "<pad>", "<|duplex_bos|>", "<|endoftext|>")
    with pytest.raises(InputError, match="three different tokens"):
        HFTokenizer(tokenizer.path, "<|endoftext|>", "<|duplex_bos|>", "<|endoftext|>")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(InputError, match="broken.json is not a tokenizer.json"):
        HFTokenizer(tmp_path / "broken.json", "a", "b", "c")
    with pytest.raises(InputError, match="there is no file"):
        HFTokenizer(tmp_path / "none.json", "a", "b", "c")
    with pytest.raises(InputError, match="there is no folder"):
        HFTokenizer.from_pretrained(str(tmp_path / "none"), tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme").write_text("nothing")
    with pytest.raises(InputError, match=r"^pretrained_llm: the tokenizer: \S+empty cannot be read \([^\n]+$"):
        HFTokenizer.from_pretrained(str(tmp_path / "empty"), tmp_path)
    with pytest.raises(InputError, match=r"no-one/has-this on the Hugging Face Hub: it cannot be reached[^\n]+$"):
        HFTokenizer.from_pretrained("no-one/has-this", tmp_path)


def test_it_needs_neither_nemo_nor_torch_nor_transformers():
    code = (
        "import sys; import nemo_duplex.data.text_tokenizer; "
        "assert not {'nemo', 'torch', 'transformers'} & set(sys.modules), sorted(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


# ---------------------------------------------------------------------- texts written whole, whatever the tokenizer


@pytest.fixture
def sentencepiece(tmp_path):
    (tmp_path / "texts.txt").write_text("What is the day?\nIt is two.\nIt is six.\n")
    return SentencePieceTokenizer(str(train_tokenizer(tmp_path / "texts.txt", tmp_path / "t.model", 40)))


@pytest.fixture
def letters(tmp_path):
    """A tokenizer that leaves out what it cannot write: its pad is its unk."""
    return letter_tokenizer(tmp_path)


def test_a_text_is_what_the_tokenizer_makes_of_it(sentencepiece, letters):
    assert sentencepiece.ids_to_text(written_tokens("It  is\ntwo.", sentencepiece, "say")) == "It is two."
    assert written_tokens("ab", letters, "say") == [3, 4]


def test_characters_that_it_does_not_know_are_named(sentencepiece, letters):
    with pytest.raises(InputError, match=r"say: the model's tokenizer cannot write é 日 of 'It is é 日é'\. Say it in"):
        written_tokens("It is é 日é", sentencepiece, "say")
    with pytest.raises(InputError, match="cannot write é of"):
        written_tokens("It is e\u0301", sentencepiece, "say")  # e and an accent of its own are one character
    with pytest.raises(InputError, match="cannot write c of 'abc'"):
        written_tokens("abc", letters, "say")


@pytest.mark.parametrize("text", ["", "  \n", None, 5, b"two", ["two"]], ids=repr)
def test_what_is_no_text_is_refused(sentencepiece, text):
    with pytest.raises(InputError, match="has no word" if isinstance(text, str) else "expected a text") as refusal:
        written_tokens(text, sentencepiece, "system_prompt")
    assert str(refusal.value).startswith("system_prompt: ") and "\n" not in str(refusal.value)


# ---------------------------------------------------------------------- a tokenizer of one's own


def test_a_trained_tokenizer_has_its_special_ids_and_every_character(tmp_path):
    """Even one that occurs once in ten thousand."""
    (tmp_path / "texts.txt").write_text("It is one.\n" * 2000 + "It is ñ.\n")
    made = SentencePieceTokenizer(str(train_tokenizer(tmp_path / "texts.txt", tmp_path / "t.model", 30)))
    assert (made.tokenizer.pad_id(), made.bos_id, made.eos_id, made.tokenizer.unk_id()) == (0, 1, 2, 3)
    assert made.ids_to_text(made.text_to_ids("It is ñ.")) == "It is ñ."
    assert made.text_to_tokens("It is one.") == ["▁It", "▁is", "▁one", "."], "what is said often is whole"


def test_a_corpus_that_is_too_small_or_missing_is_named(tmp_path):
    (tmp_path / "texts.txt").write_text("\n \n")
    with pytest.raises(InputError, match=r"^No tokenizer of 30 pieces can be trained on \S+texts.txt \(0 lines\)"):
        train_tokenizer(tmp_path / "texts.txt", tmp_path / "t.model", 30)
    with pytest.raises(InputError, match="texts of the corpus: there is no file"):
        train_tokenizer(tmp_path / "none.txt", tmp_path / "t.model", 30)
    with pytest.raises(InputError, match=r"^data.train: there is no folder \S+none"):
        corpus_tokenizer(tmp_path / "none", tmp_path / "t.model", 30)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("It is one.")
    with pytest.raises(InputError, match="has no texts.txt to train a tokenizer on"):
        corpus_tokenizer(tmp_path / "other", tmp_path / "t.model", 30)
    for corpus, size in ((None, 30), (tmp_path, None)):
        with pytest.raises(InputError, match="^There is no tokenizer: a language model with random weights"):
            corpus_tokenizer(corpus, tmp_path / "t.model", size)
    assert not (tmp_path / "t.model").exists()


def test_a_text_ends_with_its_line_and_nowhere_else(tmp_path):
    """Not at U+2028 either, which may stand in a text; whoever wrote the file, and whatever this machine's encoding is."""
    text = "It is\u2028one.\x0cIt is\x85two."
    (tmp_path / "texts.txt").write_bytes(f"{text}\n".encode() * 50)
    given = []
    train = SentencePieceTrainer.train

    def spy(sentence_iterator, **settings):
        given.extend(sentence_iterator)
        train(sentence_iterator=iter(given), **settings)

    with mock.patch.object(SentencePieceTrainer, "train", spy):
        train_tokenizer(tmp_path / "texts.txt", tmp_path / "t.model", 30)
        assert given == [text] * 50
        given.clear()
        (tmp_path / "texts.txt").write_bytes(b"\xef\xbb\xbfIt is one.\r\n\r\nIt is two.\r\n")
        train_tokenizer(tmp_path / "texts.txt", tmp_path / "t.model", 20)
        assert given == ["It is one.", "It is two."]
    (tmp_path / "texts.txt").write_bytes("It is ñ.".encode("latin-1"))
    with pytest.raises(InputError, match="texts of the corpus: .*texts.txt is not UTF-8 text. Save it as UTF-8."):
        train_tokenizer(tmp_path / "texts.txt", tmp_path / "t.model", 30)


def test_a_tokenizer_of_a_corpus_is_trained_once(tmp_path):
    (tmp_path / "texts.txt").write_text("It is one.\nIt is two.\n")
    first = corpus_tokenizer(tmp_path, tmp_path / "t.model", 20).read_bytes()
    (tmp_path / "texts.txt").write_text("Something else is said now.\n")
    assert corpus_tokenizer(tmp_path, tmp_path / "t.model", 20).read_bytes() == first
    assert corpus_tokenizer(tmp_path, tmp_path / "other.model", 20).read_bytes() != first
