"""The tokenizer of a Hugging Face language model, as one file and three special tokens, without NeMo or transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.files.hub import local_folder, reading
from nemo_duplex.inputs import InputError, existing_file


class HFTokenizer:
    """A `tokenizer.json`, with the methods and names that NeMo's tokenizers have.

    What is written in a text is never a special token, even where it reads `</s>`: it is taken apart like any other word.

    Args:
        path: `tokenizer.json` of the `tokenizers` library.
        pad, bos, eos: tokens of its vocabulary, all different. The attributes of these names are their ids, as in NeMo.

    Raises:
        InputError: if the file is missing or no tokenizer, or a special token is not in it or used twice.
    """

    def __init__(self, path: str | Path, pad: str, bos: str, eos: str) -> None:
        self.path = existing_file(path, "tokenizer")
        try:
            tokenizer = Tokenizer.from_file(str(self.path))
        except Exception as error:  # the library raises a bare Exception
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"tokenizer: {path} is no tokenizer.json ({reason}). Save or download it again.") from error
        self.special_tokens = (pad, bos, eos)
        self._set_up(tokenizer)

    def _set_up(self, tokenizer: Tokenizer) -> None:
        for token in self.special_tokens:
            if token is None or tokenizer.token_to_id(token) is None:
                raise InputError(f"tokenizer: {self.path} has no token {token!r}. Name its pad, bos and eos.")
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in self.special_tokens])
        tokenizer.encode_special_tokens = True  # which means: as the text that they are
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.pad, self.bos, self.eos = self.tokens_to_ids(list(self.special_tokens))
        if len({self.pad, self.bos, self.eos}) != 3:
            raise InputError(f"tokenizer: pad, bos and eos must be three different tokens, got {self.special_tokens}.")
        self._unwritten = {self.pad, self.bos, self.eos}
        #: Ids that there are, added tokens and gaps included.
        self.vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @classmethod
    def from_pretrained(cls, source: str, folder: str | Path) -> HFTokenizer:
        """The tokenizer of a hub id or a local folder, written as one file into `folder`.

        EOS is its eos, BOS its bos, pad its pad or else its unk (as in NeMo). Where two of them are one token (TinyLlama-chat:
        pad and eos; GPT-NeoX: all three), EOS keeps it, or else BOS; who goes without gets a new token at the end.

        Raises:
            InputError: if there is none, it cannot be reached, or it is not of the `tokenizers` library.
        """
        from transformers import AutoTokenizer

        place = local_folder(source, "pretrained_llm") or source
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
        """What stands for a character that the vocabulary cannot write; None where it can write all."""
        if isinstance(self._tokenizer.model, models.Unigram):  # which tells nobody else
            return json.loads(self._tokenizer.to_str())["model"]["unk_id"]
        token = getattr(self._tokenizer.model, "unk_token", None)
        return None if token is None else self._tokenizer.token_to_id(token)

    def text_to_ids(self, text: str) -> list[int]:
        """The ids of `text`, no special token among them."""
        return [token for token, _ in self.text_offsets(text)]

    def text_offsets(self, text: str) -> list[tuple[int, int]]:
        """Each id of `text` with the character at which it ends: of `text[:end]`, it and those before it are made.

        Where the vocabulary takes a stretch of text for a special token all the same (unigram models do; so does every
        character that cannot be written, where pad is unk), its characters are looked up one by one, and those that there
        are not left out.
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

    # ------------------------------------------------------------------ to the workers of a data loader

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "special_tokens": self.special_tokens, "json": self._tokenizer.to_str()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.special_tokens = state["path"], state["special_tokens"]
        self._set_up(Tokenizer.from_str(state["json"]))


def _distinct(tokenizer: Tokenizer, wanted: dict[str, str | None]) -> dict[str, str]:
    """Three different tokens, by name, the first of `wanted` served first; new ones are added to `tokenizer`."""
    chosen: dict[str, str] = {}
    for name, token in wanted.items():
        if token is None or tokenizer.token_to_id(token) is None or token in chosen.values():
            token = f"<|duplex_{name}|>"
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        chosen[name] = token
    return chosen
