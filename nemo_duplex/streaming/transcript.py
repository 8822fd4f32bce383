"""The agent's turns, put together from the text channel while it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemo_duplex.conversation import Conversation, Turn

if TYPE_CHECKING:
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel

#: As which a tokenizer of bytes writes a character of which it has not all bytes yet.
_HALF_A_CHARACTER = "\N{REPLACEMENT CHARACTER}"


class Transcript:
    """Takes the text channel token by token; says what each token adds, and what was said in which turn."""

    def __init__(self, model: DuplexS2SModel) -> None:
        self._model = model
        self._turns: list[Turn] = []
        self._tokens: list[int] | None = None  # of the turn that is being written
        self._text = ""
        self._shown = ""  # of that text, what frames have returned
        self._start = 0

    def add(self, index: int, token: int) -> str:
        """Takes the token of frame `index`; returns the text that it adds."""
        layout = self._model.layout
        if token == layout.text_bos:
            rest = self._end_turn(index)
            self._begin_turn(index)
            return rest
        if token == layout.text_eos:
            return self._end_turn(index)
        return self._write(index, token) if token != layout.text_pad else ""

    def conversation(self, frames: int) -> Conversation:
        """What was said in the first `frames` frames, a turn that goes on included."""
        turns = list(self._turns)
        if self._tokens is not None:
            turns.append(self._turn(frames))
        rate = self._model.perception.frame_rate
        return Conversation("session", max([rate.time(frames), *(t.end for t in turns)]), tuple(turns))

    def _write(self, index: int, token: int) -> str:
        if self._tokens is None:  # text without a BOS before it is still text
            self._begin_turn(index)
        self._tokens = [*(self._tokens or ()), token]
        self._text = self._model.tokenizer.ids_to_text(self._tokens)
        return self._show(self._text.rstrip(_HALF_A_CHARACTER))

    def _show(self, text: str) -> str:
        """What `text` adds to that which was shown of this turn."""
        shown, self._shown = self._shown, text
        return text[len(shown) :] if text.startswith(shown) else text

    def _begin_turn(self, index: int) -> None:
        self._tokens, self._text, self._shown, self._start = [], "", "", index

    def _end_turn(self, index: int) -> str:
        """Returns what was held back of its text: half a character that nothing completes any more."""
        if self._tokens is None:
            return ""
        self._turns.append(self._turn(index))
        self._tokens = None
        return self._show(self._text)

    def _turn(self, index: int) -> Turn:
        """The turn that started at `_start` and has its EOS at `index`, at the time at which it is heard."""
        rate, layout = self._model.perception.frame_rate, self._model.layout
        start, end = self._start + layout.text_lead, index + layout.text_tail
        return Turn("agent", rate.time(start), rate.time(max(start, end)), self._text)
