"""How rows of people's files become dialogues, and which rows are left out: every setting of an import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, refuse_unknown
from nemo_duplex.synthesis.text.sources import LONGEST_TURN

#: What `leave_out` may name: what nobody says aloud.
NOT_SPEECH = ("code", "tables", "urls")


@dataclass(frozen=True)
class TextSpec:
    """How rows become dialogues. The same files and the same spec give the same dialogues.

    Args:
        form: the key of a row that holds its turns (`messages`), or the keys of a question and its answer
            (`prompt/response`); `sentences`: files are plain text, of which two sentences at a time are a dialogue; None: found
            by the rows.
        language: of rows that do not name theirs; None: the one of their script.
        max_odd_rows: largest share of all rows that may be left out, 0 to 1.
        max_words: of a turn, in words as they are spoken; None: any number.
        longest_turn: of a turn, as it is spoken (paper, section 4.1: 25 s).
        min_turns, max_turns: of a dialogue, user's and agent's together; None: any number.
        leave_out: of `NOT_SPEECH`: rows with these in a turn are left out; others are spoken as they are written.
        keep_duplicates: whether dialogues with the same words as an earlier one are used too.
        keep_greetings: whether a first pair that only greets ("Hi", "Hello! How can I help you?") is used.
        context: whether a user of MS MARCO reads out the passage with the answer before the question.
        normalize: whether digits and symbols of English texts are written out in words.
        recording_gap: of silence between a recording and the question about it.
        recordings: NeMo manifests, Lhotse cuts or Shar folders, with the recordings that rows of questions ask about.

    Raises:
        InputError: for a value out of its range.

    Examples:
        >>> TextSpec(max_words=30).leave_out
        ('code', 'tables', 'urls')
    """

    form: str | None = None
    language: str | None = None
    max_odd_rows: float = 0.5
    max_words: int | None = None
    longest_turn: Seconds = LONGEST_TURN
    min_turns: int = 2
    max_turns: int | None = None
    leave_out: tuple[str, ...] = NOT_SPEECH
    keep_duplicates: bool = False
    keep_greetings: bool = True
    context: bool = False
    normalize: bool = True
    recording_gap: Seconds = 0.5
    recordings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.max_odd_rows <= 1:
            raise InputError(f"max_odd_rows={self.max_odd_rows}: expected a share from 0 to 1.")
        for name in ("max_words", "min_turns", "max_turns"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"text.{name}={value}: expected 1 or more.")
        if not 0 < self.longest_turn <= 600:
            raise InputError(f"text.longest_turn={self.longest_turn:g}: expected seconds, more than 0 and up to 600.")
        if not 0 <= self.recording_gap <= 10:
            raise InputError(f"text.recording_gap={self.recording_gap:g}: expected seconds from 0 to 10.")
        if self.max_turns is not None and self.max_turns < max(self.min_turns, 2):
            raise InputError(f"text.max_turns={self.max_turns}: expected {max(self.min_turns, 2)} or more (text.min_turns).")
        for kind in self.leave_out:
            if kind not in NOT_SPEECH:
                raise InputError(f"text.leave_out: {kind!r} is none of {', '.join(NOT_SPEECH)}.")
        if self.form is not None and not all(self.form.split("/", 1)):
            raise InputError(f"text.form={self.form}: expected a key of the rows (messages), or two (prompt/response).")

    @classmethod
    def of(cls, keys: Mapping[str, Any], **others: Any) -> TextSpec:
        """The spec of the section `text` of a configuration; `others` are arguments that stand elsewhere in it.

        Raises:
            InputError: for an unknown key, or a value out of its range.
        """
        refuse_unknown(keys, [field.name for field in fields(cls) if field.name not in others], "text")
        values: dict[str, Any] = {
            name: tuple(value) if name in ("leave_out", "recordings") else value for name, value in keys.items()
        }
        return cls(**values, **others)
