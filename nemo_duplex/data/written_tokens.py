"""The tokens of a text that somebody gives an agent, all of it or an error."""

from __future__ import annotations

import unicodedata
from typing import Any

from nemo_duplex.channels.text_channel import TextTokenizer
from nemo_duplex.inputs import InputError


def written_tokens(text: Any, tokenizer: TextTokenizer, what: str) -> list[int]:
    """The ids of `text`; `what` names it in the error ("say").

    Raises:
        InputError: if it is no text, has no word, or has characters that the vocabulary cannot write: they would be left out,
            or become a token of which the model knows nothing.
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
