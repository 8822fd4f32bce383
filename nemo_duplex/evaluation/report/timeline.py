"""One conversation on a time axis, as an SVG for the report; `picture.py` draws the same with matplotlib.

user    What is the capital of France?      And of Spain?
        ~~~~~~~~~~~~~~~~~~~~                ~~~~~~~~~~~
                        |- 0.66 s -|        |- 0.64 s: it stops
agent                              ~~~~~~~~~~~~~~            ~~~~~~
                                   The capital of France is   The capital of Spain ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Literal, NamedTuple

import numpy as np

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.behaviour import Echo, Pause, Reaction
from nemo_duplex.evaluation.report.events import FAULTS
from nemo_duplex.evaluation.scores import Scored
from nemo_duplex.evaluation.sound import Sound
from nemo_duplex.frames import Seconds, Span
from nemo_duplex.pages.lanes import BOTTOM, PER_SECOND, TOP, WAVE, Lane, lanes_svg, x

Kind = Literal["response", "success", "failure", "censored", "alarm"]


@dataclass(frozen=True)
class Annotation:
    """Something to point at between the two channels, from `start` to `end` (Seconds; equal: a moment)."""

    kind: Kind
    start: Seconds
    end: Seconds
    label: str


def annotations_of(scored: Scored) -> list[Annotation]:
    """Gaps before responses, barge-ins with their verdict, and false alarms, in order of time."""
    taken, found = scored.turn_taking, []
    for (_, end), response in zip(taken.user, taken.responses, strict=True):
        if response.status == "ok" and response.latency is not None and response.latency > 0:
            found.append(Annotation("response", end, end + response.latency, f"{response.latency:.2f} s"))
    for b in taken.barge_ins:
        seen = b.stop_latency if b.stop_latency is not None else min(1.5, taken.duration - b.user_onset)
        label = {"success": "stops", "failure": "goes on", "censored": "cut off"}[b.status]
        latency = "" if b.stop_latency is None else f" {b.stop_latency:.2f} s"
        found.append(Annotation(b.status, b.user_onset, b.user_onset + seen, label + latency))
    found += [Annotation("alarm", t, t, "false alarm") for t in taken.false_alarms]
    found += [Annotation("alarm", label.start, label.start, label.fault) for label in _labels(scored) if label.fault]
    return sorted(found, key=lambda note: note.start)


class _Label(NamedTuple):
    """A pause, or a sound that is no turn: what the corpus says, the verdict, and the fault ("" if it is none)."""

    start: Seconds
    end: Seconds
    said: str
    fault: str


def _labels(scored: Scored) -> list[_Label]:
    found = scored.conduct.behaviour
    sounds: list[tuple[str, Pause | Reaction | Echo]] = [
        *(("pause", pause) for pause in found.pauses),
        *((sound.kind, sound) for sound in found.reactions),
        *(("echo", echo) for echo in found.echoes),
    ]
    return [
        _Label(one.start, one.end, f"{kind}: {one.status}".replace("_", " "), FAULTS.get((kind, one.status), ""))
        for kind, one in sounds
    ]


def timeline_svg(scored: Scored, until: Seconds | None = None) -> str:
    """The conversation as an SVG element, drawn to scale. Its colours come from the page (classes of report.css).

    Args:
        until: Seconds; what comes later is left out. None: all is drawn.
    """
    outcome, taken = scored.outcome, scored.turn_taking
    end = outcome.duration if until is None else min(until, outcome.duration)
    user, agent = _turns_until([q.turn for q in outcome.questions], end), _turns_until(outcome.agent, end)
    lanes = (
        Lane("user", user, _spans_until(taken.user, end), _samples(outcome.user_sound, end)),
        Lane("agent", agent, _spans_until(taken.agent, end), _samples(outcome.agent_sound, end)),
    )
    marks = [_token_bar(turn) for turn in agent]
    marks += [_label_bar(label, end) for label in _labels(scored) if label.start < end]
    marks += [line for note in annotations_of(scored) if note.start < end for line in _annotation(note)]
    return lanes_svg(outcome.id, end, lanes, marks)


def _turns_until(turns: Sequence[Turn], end: Seconds) -> list[Turn]:
    return [replace(turn, end=min(turn.end, end)) for turn in turns if turn.start < end]


def _spans_until(spans: Sequence[Span], end: Seconds) -> list[Span]:
    return [(start, min(stop, end)) for start, stop in spans if start < end]


def _samples(sound: Sound | None, end: Seconds) -> np.ndarray:
    """The sound until then, silent where it is shorter: it is drawn over the whole width."""
    if sound is None:
        return np.zeros(0, np.float32)
    length = round(end * sound.sample_rate)
    samples = sound.samples()[:length]
    return np.pad(samples, (0, length - len(samples)))


def _token_bar(turn: Turn) -> str:
    """A thin line under the agent's waveform: the turn on its text channel."""
    y = BOTTOM + WAVE + 3
    return f'<rect class="tokens" x="{x(turn.start)}" y="{y}" width="{turn.duration * PER_SECOND:.1f}" height="3" rx="1.5"/>'


def _label_bar(label: _Label, until: Seconds) -> str:
    """A line over the user's waveform where there is a pause or another sound; the pointer on it tells the verdict."""
    width = max((min(label.end, until) - label.start) * PER_SECOND, 3)
    kind = "bad" if label.fault else "good"
    return (
        f'<rect class="sound {kind}" x="{x(label.start)}" y="{TOP - WAVE - 6}" width="{width:.1f}" height="4" rx="2">'
        f"<title>{escape(label.said)}</title></rect>"
    )


def _annotation(note: Annotation) -> Iterator[str]:
    middle = (TOP + BOTTOM) / 2
    if note.kind == "response":
        yield f'<line class="mark response" x1="{x(note.start)}" x2="{x(note.end)}" y1="{middle}" y2="{middle}"/>'
        yield f'<text class="label response" x="{x((note.start + note.end) / 2)}" y="{middle - 4}">{note.label}</text>'
        return
    edge = TOP - WAVE if note.kind != "alarm" else BOTTOM + WAVE
    yield f'<line class="mark {note.kind}" x1="{x(note.start)}" x2="{x(note.start)}" y1="{edge}" y2="{middle}"/>'
    width = max((note.end - note.start) * PER_SECOND, len(note.label) * 6.4 + 10)
    yield f'<rect class="pill {note.kind}" x="{x(note.start)}" y="{middle - 9}" width="{width:.1f}" height="18" rx="4"/>'
    if note.end > note.start:
        yield f'<line class="mark {note.kind}" x1="{x(note.end)}" x2="{x(note.end)}" y1="{middle}" y2="{BOTTOM + WAVE}"/>'
    yield f'<text class="verdict" x="{x(note.start) + 5}" y="{middle + 4}">{note.label}</text>'
