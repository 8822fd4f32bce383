"""Text that comes token by token is the text of all tokens, and an hour of it costs no more per token than a minute."""

import random

import pytest

from nemo_duplex.channels.transcript import TurnText
from nemo_duplex.data.text_tokenizer import HFTokenizer, train_tokenizer
from tests.hf_families import SENTENCES, byte_level, sentencepiece_like

OTHERS = ["né 😀!", "日本語", "  two spaces ", "a", "👩‍👩‍👧 x", "don't."]


class Counted:
    """A tokenizer, and how many tokens it was asked to decode."""

    def __init__(self, tokenizer):
        self._tokenizer, self.decoded = tokenizer, 0

    def ids_to_text(self, ids):
        self.decoded += len(ids)
        return self._tokenizer.ids_to_text(ids)


@pytest.fixture(scope="module", params=["byte level", "byte fallback", "sentencepiece"])
def tokenizer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    if request.param == "sentencepiece":
        from nemo.collections.common.tokenizers import SentencePieceTokenizer

        (folder / "texts.txt").write_text("\n".join(SENTENCES))
        return SentencePieceTokenizer(str(train_tokenizer(folder / "texts.txt", folder / "tokenizer.model", 60)))
    specials = ("<pad>", "<bos>", "<eos>")
    made = byte_level(specials) if request.param == "byte level" else sentencepiece_like(("<unk>", *specials))
    made.save(str(folder / "tokenizer.json"))
    return HFTokenizer(folder / "tokenizer.json", *specials)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_shown_is_the_text_of_all_tokens(tokenizer, seed):
    rng = random.Random(seed)
    words = " ".join(rng.choices([*SENTENCES, *OTHERS], k=120))
    tokens = tokenizer.text_to_ids(words)
    text = TurnText(tokenizer)
    shown = "".join([*(text.add(token) for token in tokens), text.rest()])
    assert len(tokens) > 500
    assert shown == str(text) == tokenizer.ids_to_text(tokens)


def test_a_turn_without_end_costs_the_same_per_token(tokenizer):
    counted = Counted(tokenizer)
    text, tokens = TurnText(counted), tokenizer.text_to_ids(" ".join(SENTENCES * 100))[:4000]
    costs = []
    for token in tokens:
        text.add(token)
        costs.append(counted.decoded)
    assert costs[-1] - costs[2999] < 1.1 * (costs[1999] - costs[999])
    assert costs[-1] < 64 * len(tokens)


def test_bytes_that_never_make_a_character_cost_no_more(tokenizer):
    """What no trained model writes, and a random one does."""
    counted, rng = Counted(tokenizer), random.Random(0)
    half = [t for t in range(tokenizer.vocab_size) if "\ufffd" in tokenizer.ids_to_text([t])] or list(range(4, 50))
    text = TurnText(counted)
    for _ in range(1000):
        text.add(rng.choice(half))
    assert counted.decoded < 100 * 1000
    assert len(str(text)) > 100
