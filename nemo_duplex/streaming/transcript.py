"""The agent's turns, put together from the text channel while it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.streaming.turn_text import TurnText

if TYPE_CHECKING:
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel


class Transcript:
    """Takes the text channel token by token; says what each token adds, and what was said in which turn.

    It is all that remains of what the model has forgotten, and all of a session that grows: text alone.
    """

    def __init__(self, model: DuplexS2SModel) -> None:
        self._model = model
        self._turns: list[Turn] = []
        self._text: TurnText | None = None  # of the turn that is being written
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
        if token == layout.text_pad:
            return ""
        text = self._text or self._begin_turn(index)  # text without a BOS before it is still text
        return text.add(token)

    def conversation(self, frames: int) -> Conversation:
        """What was said in the first `frames` frames, a turn that goes on included."""
        turns = list(self._turns)
        if self._text is not None:
            turns.append(self._turn(frames, self._text))
        rate = self._model.perception.frame_rate
        return Conversation("session", max([rate.time(frames), *(t.end for t in turns)]), tuple(turns))

    def _begin_turn(self, index: int) -> TurnText:
        self._text, self._start = TurnText(self._model.tokenizer), index
        return self._text

    def _end_turn(self, index: int) -> str:
        """Returns what was held back of its text: half a character that nothing completes any more."""
        if self._text is None:
            return ""
        text, self._text = self._text, None
        self._turns.append(self._turn(index, text))
        return text.rest()

    def _turn(self, index: int, text: TurnText) -> Turn:
        """The turn that started at `_start` and has its EOS at `index`, at the time at which it is heard."""
        rate, layout = self._model.perception.frame_rate, self._model.layout
        start, end = self._start + layout.text_lead, index + layout.text_tail
        return Turn("agent", rate.time(start), rate.time(max(start, end)), str(text))
