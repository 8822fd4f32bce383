"""Whether the text of the agent's turns fits their frames, one token a frame, under a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import sentencepiece
from lhotse import SupervisionSegment
from lhotse.cut import Cut
from tokenizers import Tokenizer

from nemo_duplex.frames import FRAME_RATE
from nemo_duplex.inputs import InputError, existing_file, one_line
from nemo_duplex.synthesis.inspection.findings import Findings
from nemo_duplex.synthesis.inspection.turn_checks import place

#: Number of tokens of a text, BOS and EOS not among them.
TokenCount = Callable[[str], int]


def token_count(path: str | Path) -> TokenCount:
    """How a tokenizer counts.

    Args:
        path: a SentencePiece model (`tokenizer.model`), a `tokenizer.json`, or a folder with one of them, as language models
            of Hugging Face have.

    Raises:
        InputError: if there is none, or it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        names = ("tokenizer.json", "tokenizer.model")
        inside = [path / name for name in names if (path / name).is_file()]
        if not inside:
            raise InputError(f"tokenizer: {path} holds no {' and no '.join(names)}. Give the folder of a language model.")
        path = inside[0]
    existing_file(path, "tokenizer")
    try:
        if path.suffix == ".json":
            tokenizer = Tokenizer.from_file(str(path))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except Exception as error:  # both libraries raise bare ones
        raise InputError(
            f"tokenizer: {path} is neither a tokenizer.json nor a SentencePiece model ({one_line(error)}). "
            "Give the tokenizer of the language model."
        ) from error
    return lambda text: len(pieces.encode(text))


def check_text(cut: Cut, agent: Sequence[SupervisionSegment], tokens: TokenCount, found: Findings) -> None:
    """Finds agent turns whose text ends at EOS before it is written.

    A turn has BOS in its first frame and EOS in the frame where it ends, or the BOS of the next one comes before; between them
    are the frames of its text (`channels/text_channel.py`). Of a turn that was cut, what was said of it must fit.
    """
    starts = [FRAME_RATE.nearest(s.start) for s in agent]
    for s, start, following in zip(agent, starts, [*starts[1:], FRAME_RATE.count(cut.duration)]):
        free = min(FRAME_RATE.nearest(s.end), following) - start - 1
        count = tokens(s.text or "")
        if count > free:
            found.error("text that does not fit its frames", f"{place(cut, s)}: {count} tokens for {max(free, 0)} frames")
