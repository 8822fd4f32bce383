"""What a corpus says about the user beside the turns: pauses inside them, and sounds that are no turns.

`examples/synthesize.py` writes both (docs/how-to/duplex-timing.md): pauses as `custom["pauses"]` of a turn, a list of
[start, end]; sounds as `custom["events"]` of the conversation, a list of {kind, speaker, start, end}. All times are Seconds
from the start of the conversation. Other corpora may have neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemo_duplex.conversation import Conversation, Turn, is_time
from nemo_duplex.evaluation.spans import in_seconds, length_ms, normalise, without
from nemo_duplex.frames import Seconds, Span
from nemo_duplex.inputs import InputError

#: Sounds of the user that are speech, though no turn.
SPEECH_BESIDE_TURNS = ("backchannel", "side_talk")


@dataclass(frozen=True)
class LabelledEvent:
    """A sound that is no turn: `kind` ("backchannel", "cough", "leak" ...), whose, and when (Seconds)."""

    kind: str
    speaker: str
    start: Seconds
    end: Seconds


def labelled_events(conversation: Conversation) -> tuple[LabelledEvent, ...]:
    """The events of a conversation in order of their start; () where the corpus names none.

    Raises:
        InputError: naming the conversation and the event, if one lacks a kind or its times, or runs backwards.
    """
    listed = conversation.custom.get("events") or []
    if not isinstance(listed, list | tuple):
        raise InputError(f"Conversation {conversation.id}: its events are {listed!r:.40}, expected a list. Correct its custom.")
    events = [_event(conversation.id, number, entry) for number, entry in enumerate(listed)]
    return tuple(sorted(events, key=lambda event: (event.start, event.kind)))


def user_pauses(conversation: Conversation) -> tuple[Span, ...]:
    """The user's pauses inside turns, in order; of a turn that the recording cuts, what is left of them.

    Raises:
        InputError: naming the conversation and the turn, if a pause is no pair of times within its turn.
    """
    found: list[Span] = []
    for turn in conversation.user:
        for pause in turn.custom.get("pauses") or ():
            found += _pause(conversation.id, turn, pause)
    return tuple(sorted(found))


def user_speech(conversation: Conversation) -> tuple[Span, ...]:
    """When the user speaks: the turns without the pauses inside them, and what is said that is no turn."""
    end = length_ms(conversation.duration)
    turns, _ = normalise(((turn.start, turn.end) for turn in conversation.user), end)
    pauses, _ = normalise(user_pauses(conversation), end)
    said = [e for e in labelled_events(conversation) if e.speaker == "user" and e.kind in SPEECH_BESIDE_TURNS]
    spans = [*in_seconds(without(turns, pauses)), *((e.start, e.end) for e in said)]
    return in_seconds(normalise(spans, end)[0])


def _event(conversation: str, number: int, entry: Any) -> LabelledEvent:
    given: Mapping[str, Any] = entry if isinstance(entry, Mapping) else {}
    kind, start, end = given.get("kind"), given.get("start"), given.get("end")
    if isinstance(kind, str) and is_time(start) and is_time(end) and start <= end:
        return LabelledEvent(kind, str(given.get("speaker")), start, end)
    raise InputError(
        f"Conversation {conversation}: event {number} is {entry!r:.80}, expected a kind and a start no later than its end, "
        "in seconds. Correct it in the `events` of its custom."
    )


def _pause(conversation: str, turn: Turn, pause: Any) -> list[Span]:
    times = tuple(pause) if isinstance(pause, list | tuple) else ()
    cut = turn.custom.get("unfinished") or turn.custom.get("begun_before")
    if len(times) == 2 and all(map(is_time, times)) and times[0] <= times[1]:
        within = max(times[0], turn.start), min(times[1], turn.end)
        if cut or _near(within, times):
            return [within] if within[0] < within[1] else []
    raise InputError(
        f"Conversation {conversation}: the user's turn of {turn.start:.3f} to {turn.end:.3f} s has the pause {pause!r:.40}, "
        "expected [start, end] in seconds within the turn. Correct the `pauses` of its custom."
    )


def _near(within: Span, times: tuple[Any, ...]) -> bool:
    """Whether clipping a pause to its turn moved no time by more than rounding does."""
    return all(abs(a - b) <= 1e-3 for a, b in zip(within, times, strict=True))
