"""events.csv: everything that happened, one row per event; and which of it is a fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from nemo_duplex.evaluation.conduct import Conduct
from nemo_duplex.evaluation.scores import Scored
from nemo_duplex.frames import Seconds

#: Columns of events.csv.
COLUMNS = ("set", "conversation", "time", "event", "verdict", "latency", "detail")
_SOUNDS = {
    "backchannel": "a backchannel",
    "cough": "a cough",
    "side_talk": "side talk",
    "background_voice": "a background voice",
}
#: (event, verdict) of what an agent should not do -> how it is called.
FAULTS = {
    ("barge_in", "failure"): "talked on",
    ("false_alarm", "failure"): "false alarm",
    ("response", "no_response"): "no response",
    ("answer", "wrong"): "wrong answer",
    ("pause", "took_over"): "took over in a pause",
    **{(kind, "broke_off"): f"stopped at {words}" for kind, words in _SOUNDS.items()},
    **{(kind, "spoke"): f"answered {words}" for kind, words in _SOUNDS.items()},
    ("echo", "interrupted"): "stopped at its echo",
    ("unprompted", "after leak"): "answered its echo",
    ("unprompted", "unasked"): "spoke unasked",
    ("runaway", "failure"): "ran away",
}


class Event(NamedTuple):
    """Something that happened at a time (Seconds), with its verdict; `latency` is None where it has none."""

    time: Seconds
    event: str
    verdict: str = ""
    latency: Seconds | None = None
    detail: str = ""

    @property
    def fault(self) -> str:
        """What the agent did wrong; "" if nothing."""
        return FAULTS.get((self.event, self.verdict), "")


def events_of(one: Scored) -> list[Event]:
    """The events of a conversation in order of time: turns, answers, and what the agent made of pauses and other sounds."""
    taken = one.turn_taking
    found = [
        *(Event(b.user_onset, "barge_in", b.status, b.stop_latency, "resumed" if b.resumed else "") for b in taken.barge_ins),
        *(Event(t, "false_alarm", "failure") for t in taken.false_alarms),
        *(Event(t, "false_alarm", "excused") for t in taken.false_alarms_excused),
        *(Event(t, "collision") for t in taken.collisions),
        *(Event(end, "response", r.status, r.latency) for (_, end), r in zip(taken.user, taken.responses, strict=True)),
        *(Event(a.question.turn.end, "answer", a.verdict, None, a.text) for a in one.answers),
        *_conduct(one.conduct),
    ]
    return sorted(found, key=lambda event: round(event.time, 3))


def _conduct(conduct: Conduct) -> Iterator[Event]:
    found = conduct.behaviour
    for pause in found.pauses:
        yield Event(pause.start, "pause", pause.status, None, _lasts(pause.start, pause.end))
    for sound in found.reactions:
        yield Event(sound.start, sound.kind, sound.status, sound.resume_time, _lasts(sound.start, sound.end))
    for echo in found.echoes:
        yield Event(echo.start, "echo", echo.status, None, _lasts(echo.start, echo.end))
    for turn in found.unprompted:
        after = f"after {turn.after}" if turn.after else "unasked"
        yield Event(turn.onset, "unprompted", "greeting" if turn.greeting else after)
    for start, end in conduct.floor.runaways:
        yield Event(start, "runaway", "failure", None, _lasts(start, end))


def _lasts(start: Seconds, end: Seconds) -> str:
    return f"{end - start:.2f} s"


def faults_of(one: Scored) -> list[str]:
    """What the agent of a conversation did wrong, counted: "2 × talked on"."""
    counts = Counter(event.fault for event in events_of(one) if event.fault)
    kinds = [kind for kind in FAULTS.values() if kind in counts]
    return [f"{counts[kind]} × {kind}" if counts[kind] > 1 else kind for kind in kinds]


def events(name: str, scored: Sequence[Scored]) -> Iterator[dict[str, Any]]:
    """Every event of a set as a row of events.csv, conversation by conversation in order of time."""
    for one in scored:
        for event in events_of(one):
            yield {
                "set": name,
                "conversation": one.outcome.id,
                "time": round(event.time, 3),
                "event": event.event,
                "verdict": event.verdict,
                "latency": "" if event.latency is None else round(event.latency, 3),
                "detail": event.detail,
            }
