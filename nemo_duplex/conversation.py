"""Turns: who speaks when, and what. On disk a conversation is a Lhotse cut; only this file knows both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError

if TYPE_CHECKING:
    from lhotse import SupervisionSegment
    from lhotse.cut import Cut

Speaker = Literal["user", "agent"]
SPEAKERS: tuple[Speaker, Speaker] = ("user", "agent")


@dataclass(frozen=True)
class Word:
    """A spoken word, with its place in the turn's text (characters) and in the conversation (Seconds).

    Examples:
        >>> Word("day", offset=5, start=0.5, end=0.75).shifted(1.0).start
        1.5
    """

    text: str
    offset: int
    start: Seconds
    end: Seconds

    def shifted(self, by: Seconds) -> Word:
        return replace(self, start=self.start + by, end=self.end + by)


@dataclass(frozen=True)
class Turn:
    """One speaker's turn.

    Args:
        speaker: `user` or `agent`.
        start, end: Seconds from the start of the conversation.
        text: what is said; of a turn that was cut off, what was begun before the cut.
        full_text: what would have been said without the cut; None for a turn that was not cut off.
        words: word times where the synthesiser knows them.
        custom: anything else that belongs to the turn and can be written as JSON (answer, family, voice, events).

    Examples:
        >>> turn = Turn("agent", 1.0, 3.0, "The capital of France is Paris.")
        >>> cut = turn.cut_at(2.0)
        >>> cut.text, cut.was_cut
        ('The capital of', True)
    """

    speaker: Speaker
    start: Seconds
    end: Seconds
    text: str = ""
    full_text: str | None = None
    words: tuple[Word, ...] = ()
    custom: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.speaker not in SPEAKERS:
            raise InputError(f"A turn is spoken by 'user' or 'agent', got {self.speaker!r}.")
        if not self.end >= self.start >= 0:
            raise InputError(f"A turn must run forwards from 0 s on, got {self.start} to {self.end} s.")

    @property
    def duration(self) -> Seconds:
        return self.end - self.start

    @property
    def was_cut(self) -> bool:
        return self.full_text is not None

    def shifted(self, by: Seconds) -> Turn:
        """The same turn, `by` Seconds later."""
        return replace(self, start=self.start + by, end=self.end + by, words=tuple(w.shifted(by) for w in self.words))

    def cut_at(self, time: Seconds) -> Turn:
        """The turn as it is when its speaker falls silent at `time` (the barge-in of the paper, section 4.2).

        The text keeps the words begun before the cut, with their punctuation. Without word times it is cut in proportion
        to the duration, at a word's edge. A cut outside the turn is an error: there is nothing to cut off.
        """
        if not self.start < time < self.end:
            raise InputError(f"Cannot cut a turn of {self.start:.3f} to {self.end:.3f} s at {time:.3f} s.")
        kept = tuple(w for w in self.words if w.start < time)
        if self.words:
            text = self.text[: kept[-1].offset + len(kept[-1].text)] if kept else ""
        else:
            spoken = self.text[: round(len(self.text) * (time - self.start) / self.duration)]
            text = spoken if spoken == self.text else spoken[: spoken.rfind(" ") + 1].rstrip()
        kept = tuple(replace(w, end=min(w.end, time)) for w in kept)
        return replace(self, end=time, text=text, full_text=self.full_text or self.text, words=kept)


@dataclass(frozen=True)
class Conversation:
    """Turns of a user and an agent, in order of their start.

    Args:
        id: names the conversation in files, reports and errors.
        duration: Seconds; no turn ends later.
        turns: any order; they are sorted.
        custom: what belongs to the whole conversation and can be written as JSON.

    Examples:
        >>> turns = (Turn("agent", 1.6, 2.4, "At nine."), Turn("user", 0.0, 1.0, "When do you open?"))
        >>> [turn.speaker for turn in Conversation("opening", 4.0, turns).turns]
        ['user', 'agent']
    """

    id: str
    duration: Seconds
    turns: tuple[Turn, ...] = ()
    custom: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "turns", tuple(sorted(self.turns, key=lambda t: (t.start, t.speaker))))
        late = [t for t in self.turns if t.end > self.duration + 1e-3]
        if late:
            raise InputError(
                f"Conversation {self.id} lasts {self.duration:.3f} s, but a turn of it ends at {late[0].end:.3f} s."
            )

    def of(self, speaker: Speaker) -> tuple[Turn, ...]:
        """The turns of one speaker."""
        return tuple(t for t in self.turns if t.speaker == speaker)

    @property
    def user(self) -> tuple[Turn, ...]:
        return self.of("user")

    @property
    def agent(self) -> tuple[Turn, ...]:
        return self.of("agent")

    def to_supervisions(self) -> list[SupervisionSegment]:
        """Lhotse supervisions of the turns; `full_text` and events are in their `custom`, word times in `alignment`."""
        from lhotse import SupervisionSegment
        from lhotse.supervision import AlignmentItem

        supervisions = []
        for i, turn in enumerate(self.turns):
            custom = dict(turn.custom)
            if turn.full_text is not None:
                custom["full_text"] = turn.full_text
            words = [AlignmentItem(w.text, round(w.start, 6), round(w.end - w.start, 6)) for w in turn.words]
            supervisions.append(
                SupervisionSegment(
                    id=f"{self.id}-{i:02d}",
                    recording_id=self.id,
                    start=round(turn.start, 6),
                    duration=round(turn.duration, 6),
                    text=turn.text,
                    speaker=turn.speaker,
                    language="en",
                    custom=custom or None,
                    alignment={"word": words} if words else None,
                )
            )
        return supervisions

    @classmethod
    def from_cut(cls, cut: Cut, speakers: Mapping[str, Speaker] | None = None) -> Conversation:
        """The conversation that a cut holds.

        Args:
            speakers: which of the two each speaker of the supervisions is; None takes them to be called `user` and `agent`.

        Raises:
            InputError: with the cut's id, if a supervision has another speaker.
        """
        turns = []
        speakers = speakers or dict(zip(SPEAKERS, SPEAKERS))
        for s in cut.supervisions:
            if s.speaker not in speakers:
                raise InputError(
                    f"Cut {cut.id}: supervision {s.id} has speaker {s.speaker!r}, expected one of "
                    f"{', '.join(map(repr, speakers))}. Rename the speakers of the corpus."
                )
            custom = dict(s.custom or {})
            full_text = custom.pop("full_text", None)
            text = _spoken(s.text or "")
            turns.append(Turn(speakers[s.speaker], max(0.0, s.start), s.end, text, full_text, _words(s, text), custom))
        own = {k: v for k, v in (cut.custom or {}).items() if isinstance(v, (str, int, float, bool, list, dict))}
        return cls(cut.id, cut.duration, tuple(turns), own)


def _spoken(text: str) -> str:
    """Text without the time marks that some NeMo corpora carry in it: `<|0|> Hey <|3|>`."""
    return " ".join(re.sub(r"<\|\d+\|>", "", text).split()) if "<|" in text else text


def _words(supervision: SupervisionSegment, text: str) -> tuple[Word, ...]:
    """Word times of a supervision, each word found again in the text from the end of the one before it."""
    words, position = [], 0
    for item in (supervision.alignment or {}).get("word", []):
        offset = text.find(item.symbol, position)
        if offset < 0:  # an aligner's own spelling: keep the time, stay where we are
            offset = position
        position = offset + len(item.symbol)
        words.append(Word(item.symbol, offset, item.start, item.end))
    return tuple(words)
