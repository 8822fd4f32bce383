"""Turns: who speaks when, and what. On disk a conversation is a Lhotse cut; only this file knows both.

The times of a corpus need not fit its audio: annotations are not exact, and Lhotse keeps turns whole when it cuts audio.
`Conversation.from_cut` is the one place with a rule for that; what it returns fits.

    a turn that ...                        becomes
    ends up to 0.5 s after the audio       a turn that ends with the audio, without words whose times are after it
    ends later than that                   the same with `unfinished` in its `custom`, and the text as far as it was begun
    begins before the audio                a turn that begins with the audio, without the words said before it;
                                           by more than 0.5 s: with `begun_before` in its `custom`
    is then shorter than a frame           left out
    lies outside of the audio              left out
    has times that are not numbers         left out

What is left out, unfinished or begun before is said in the log, each kind once per run, for the first cut that has it.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import regex

from nemo_duplex.frames import FRAME_RATE, FrameRate, Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.words import WITHOUT_BLANKS

if TYPE_CHECKING:
    from lhotse import SupervisionSegment
    from lhotse.cut import Cut

_log = logging.getLogger(__name__)

#: By as much a turn may begin before the audio, or end after it, and still be a whole turn.
TOLERANCE: Seconds = 0.5
# What a text without word times is cut into: words, and characters of scripts without blanks.
_PIECE = regex.compile(rf"(?V1)[[\p{{L}}\p{{N}}]&&[{WITHOUT_BLANKS}]]\p{{M}}*|[\S--[{WITHOUT_BLANKS}]]+")
_INSTANT: Seconds = 1e-6  # times are written with as many digits

# What can be wrong with the times of turns, as the log says it. The flags are shared with processes that are forked later,
# such as the workers of a data loader, so that each is said once per run.
_UNFINISHED = f"end more than {TOLERANCE} s after the audio: taken as unfinished"
_BEGUN_BEFORE = f"begin more than {TOLERANCE} s before the audio: taken without the words said before it"
_SHORT = "are shorter than a frame: left out"
_OUTSIDE = "lie outside of the audio: left out"
_NO_TIMES = "have times that are not numbers or run backwards: left out"
_said = {odd: multiprocessing.Value("b", False) for odd in (_UNFINISHED, _BEGUN_BEFORE, _SHORT, _OUTSIDE, _NO_TIMES)}

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
        language: of the speech, a tag such as `en`; None: not known.

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
    language: str | None = field(default=None, repr=False)

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
        to the duration, at a word's edge; where a script has no blanks, at a character's. A cut outside the turn is an error:
        there is nothing to cut off.
        """
        if not self.start < time < self.end:
            raise InputError(f"Cannot cut a turn of {self.start:.3f} to {self.end:.3f} s at {time:.3f} s.")
        kept = tuple(w for w in self.words if w.start < time)
        if self.words:
            text = self.text[: kept[-1].offset + len(kept[-1].text)] if kept else ""
            text = self.text if len(kept) == len(self.words) else text
        else:
            said = round(len(self.text) * (time - self.start) / self.duration)
            ends = (match.end() for match in _PIECE.finditer(self.text))
            whole = (end for end in ends if end < said or (end == said and not self.text[end : end + 1].isspace()))
            text = self.text[: max(whole, default=0)]
        kept = tuple(replace(w, end=min(w.end, time)) for w in kept)
        return replace(self, end=time, text=text, full_text=self.full_text or self.text, words=kept)

    def cut_before(self, time: Seconds) -> Turn:
        """The turn as it is heard by someone who listens from `time` on, within the turn: it starts then.

        The text keeps the words of which the larger part is said after `time`; without word times, in proportion to the
        duration.
        """
        assert self.start <= time < self.end, f"A turn of {self.start} to {self.end} s cannot start at {time} s."
        if self.words:
            kept = [w for w in self.words if (w.start + w.end) / 2 >= time]
            first = kept[0].offset if kept else len(self.text)
        else:
            kept, said = [], len(self.text) * (time - self.start) / self.duration
            places = (match.span() for match in _PIECE.finditer(self.text))
            first = next((begin for begin, end in places if (begin + end) / 2 >= said), len(self.text))
        text, full = self.text[first:], self.full_text
        if full is not None:
            full = full[first:] if full.startswith(self.text) else text
        words = tuple(replace(w, offset=max(0, w.offset - first), start=max(w.start, time)) for w in kept)
        return replace(self, start=time, text=text, full_text=full, words=words)


@dataclass(frozen=True)
class Conversation:
    """Turns of a user and an agent, in order of their start.

    Args:
        id: names the conversation in files, reports and errors.
        duration: Seconds; no turn ends later. (Of a cut, `from_cut` sees to it.)
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
                    language=turn.language,
                    custom=custom or None,
                    alignment={"word": words} if words else None,
                )
            )
        return supervisions

    @classmethod
    def from_cut(
        cls, cut: Cut, speakers: Mapping[str, Speaker] | None = None, frame_rate: FrameRate = FRAME_RATE
    ) -> Conversation:
        """The conversation that a cut holds, its turns fitted to its audio by the rule at the top of this file.

        Args:
            speakers: which of the two each speaker of the supervisions is; None takes them to be called `user` and `agent`.
            frame_rate: a turn shorter than one of its frames is left out.

        Raises:
            InputError: with the cut's id, if a supervision has another speaker, or what it says is no text.
        """
        turns, odd = [], Counter[str]()
        speakers = speakers or dict(zip(SPEAKERS, SPEAKERS))
        for part, offset in conversation_parts(cut):  # a turn ends with the audio of its part, also where padding follows
            for s in part.supervisions:
                if not isinstance(s.speaker, str) or s.speaker not in speakers:
                    raise InputError(
                        f"Cut {cut.id}: supervision {s.id} has speaker {s.speaker!r}, expected one of "
                        f"{', '.join(map(repr, speakers))}. Rename the speakers of the corpus; a "
                        "DuplexS2SDataset takes other names in input_roles and output_roles."
                    )
                _check_text(cut.id, s)
                turn = _turn(s, speakers[s.speaker], part, frame_rate.seconds, odd)
                turns += [turn.shifted(offset) if offset else turn] if turn else []
        _say_once(cut.id, odd)
        own = {k: v for k, v in (cut.custom or {}).items() if isinstance(v, (str, int, float, bool, list, dict))}
        return cls(cut.id, cut.duration, tuple(turns), own)


def conversation_parts(cut: Cut) -> list[tuple[Any, Seconds]]:
    """The parts of a cut that are a conversation, each with its start in the cut (Seconds): the cut itself, one after padding,
    several that were joined. What is mixed with them, such as noise, has no agent channel."""
    if not hasattr(cut, "tracks"):
        return [(cut, 0.0)]
    from lhotse.cut import PaddingCut

    parts = [(track.cut, float(track.offset)) for track in cut.tracks if not isinstance(track.cut, PaddingCut)]
    whole = [part for part in parts if {"target_audio", "target_codes"} & set(part[0].custom or {})]
    return whole or parts


def holds(cut: Cut, field: str) -> bool:
    """Whether a cut has a `recording`, or a custom field (`target_audio`, `target_codes`), that can be loaded.

    Lhotse's `has_custom` says yes for a field of a Shar corpus whose shards are missing.
    """
    values = (
        getattr(part, "recording", None) if field == "recording" else (part.custom or {}).get(field)
        for part, _ in conversation_parts(cut)
    )
    return all(value is not None and not getattr(value, "is_placeholder", False) for value in values)


def _check_text(cut_id: str, s: SupervisionSegment) -> None:
    for text in (s.text, (s.custom or {}).get("full_text")):
        if not isinstance(text, str | None):
            raise InputError(f"Cut {cut_id}: supervision {s.id} says {text!r:.40}, expected a text. Write what is said.")


def _turn(s: SupervisionSegment, speaker: Speaker, part: Any, shortest: Seconds, odd: Counter[str]) -> Turn | None:
    """The turn of a supervision within the audio of its part, in the part's time, or None; counts in `odd` what is wrong."""
    duration = part.duration
    if not (is_time(s.start) and is_time(s.duration) and s.duration >= 0):
        odd[_NO_TIMES] += 1
        return None
    start, end = s.start, s.end
    if end < _INSTANT or start > duration - _INSTANT:
        odd[_OUTSIDE] += 1
        return None
    custom = dict(s.custom or {})
    full_text = custom.pop("full_text", None)
    text = _spoken(s.text or "")
    before = max(0.0, -start)  # a turn has no negative times: one that began before the audio is moved while it is cut
    words = tuple(w.shifted(before) for w in _in_time(_words(s, text), s, part.start))
    turn = Turn(speaker, start + before, end + before, text, full_text, words, custom, s.language)
    if before:
        turn = turn.cut_before(before).shifted(-before)
    if before > TOLERANCE:
        odd[_BEGUN_BEFORE] += 1
        turn = replace(turn, custom=custom | {"begun_before": True})
    if end > duration + TOLERANCE:
        odd[_UNFINISHED] += 1
        turn = replace(turn.cut_at(duration), custom={**turn.custom, "unfinished": True})
    elif end > duration:
        said = turn.cut_at(duration)  # words known to come after the audio are not said; of others the times are not exact
        text = said.text if turn.words else turn.text
        turn = replace(said, text=text, full_text=turn.full_text)
    if turn.duration < shortest - _INSTANT:
        odd[_SHORT] += 1
        return None
    return turn


def is_time(value: Any) -> TypeGuard[float]:
    """Whether a value can be a time or a duration: a finite number."""
    return isinstance(value, Real) and math.isfinite(value)


def _say_once(cut_id: str, odd: Counter[str]) -> None:
    for what, count in odd.items():
        with _said[what]:
            first, _said[what].value = not _said[what].value, True
        if first:
            _log.warning("Cut %s has turns (%d) that %s. Further cuts with such turns are not named.", cut_id, count, what)


def _spoken(text: str) -> str:
    """Text without the time marks that some NeMo corpora carry in it: `<|0|> Hey <|3|>`."""
    return " ".join(re.sub(r"<\|\d+\|>", "", text).split()) if "<|" in text else text


def _words(supervision: SupervisionSegment, text: str) -> tuple[Word, ...]:
    """Word times of a supervision, each word found again in the text from the end of the one before it."""
    words, position = [], 0
    lowered = text.lower() if len(text.lower()) == len(text) else text  # aligners often write words in lower case
    for item in (supervision.alignment or {}).get("word") or []:
        symbol = item.symbol.strip() if isinstance(item.symbol, str) else ""
        offset = lowered.find(symbol.lower(), position)
        if offset < 0 and not symbol.startswith(("<", "[")):  # an aligner's own spelling: keep the time, stay where we are
            offset = position
        elif offset >= 0:
            position = offset + len(symbol)
        # Without text, or with a mark such as <eps>, it is a pause.
        if symbol and offset >= 0 and is_time(item.start) and is_time(item.duration):
            words.append(Word(symbol, offset, item.start, item.end))
    return tuple(words)


def _in_time(words: tuple[Word, ...], s: SupervisionSegment, late: Seconds) -> tuple[Word, ...]:
    """The words, `late` Seconds earlier if they fit their supervision better then; if they fit neither way, from its start.

    Lhotse 1.33 moves supervisions and leaves their word times where they were in the recording when it cuts audio.
    """
    if not words:
        return words
    first, last = words[0].start, words[-1].end
    over = {by: max(0.0, s.start - first + by) + max(0.0, last - by - s.end) for by in (late, 0.0)}
    by = min(over, key=over.__getitem__)
    by = first - s.start if over[by] > TOLERANCE else by
    return tuple(w.shifted(-by) for w in words) if by else words
