"""One conversation on a time axis, as an SVG for the report; `picture.py` draws the same with matplotlib.

user    What is the capital of France?      And of Spain?
        ~~~~~~~~~~~~~~~~~~~~                ~~~~~~~~~~~
                        |- 0.66 s -|        |- 0.64 s: it stops
agent                              ~~~~~~~~~~~~~~            ~~~~~~
                                   The capital of France is   The capital of Spain ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.scores import Scored
from nemo_duplex.frames import Seconds, Span

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
    return sorted(found, key=lambda note: note.start)


def envelope(audio: np.ndarray, columns: int) -> np.ndarray:
    """(columns,) peak of each stretch of (S,) audio, relative to the loudest, so that both voices are drawn equally large."""
    edges = np.linspace(0, len(audio), columns + 1).astype(int)[:-1]
    peaks = np.maximum.reduceat(np.abs(audio.astype(np.float32)), edges) if len(audio) else np.zeros(columns, np.float32)
    return peaks / max(float(peaks.max(initial=0)), 1e-3)


def wrapped(text: str, width: int, lines: int) -> list[str]:
    """`text` in at most so many lines of about `width` characters; text that does not fit ends in an ellipsis."""
    rows: list[str] = []
    row, rest = "", text.split()
    while rest and len(rows) < lines:
        if row and len(row) + 1 + len(rest[0]) > width:
            rows.append(row)
            row = ""
            continue
        row = f"{row} {rest.pop(0)}".strip()
    if len(rows) < lines and row:
        rows.append(row)
        row = ""
    if rest or row:
        rows[-1] = rows[-1][: max(1, width - 1)].rstrip() + "…"
    return rows


# ---- SVG: sizes in pixels; colours are the report's own, by class
_PER_SECOND = 84
_LEFT, _TEXT, _WAVE, _BETWEEN, _AXIS = 52, 48, 46, 34, 22
_USER = _TEXT + _WAVE // 2  # y of the middle of a waveform
_AGENT = _TEXT + _WAVE + _BETWEEN + _WAVE // 2
_HEIGHT = 2 * _TEXT + 2 * _WAVE + _BETWEEN + _AXIS
_CHARACTER, _LINE = 6.6, 14


def timeline_svg(scored: Scored) -> str:
    """The conversation as an SVG element, drawn to scale. Its colours come from the page (classes of report.css)."""
    outcome = scored.outcome
    width = _LEFT + round(outcome.duration * _PER_SECOND) + 12
    parts = [
        f'<svg class="timeline" width="{width}" height="{_HEIGHT}" viewBox="0 0 {width} {_HEIGHT}" role="img" '
        f'data-left="{_LEFT}" data-scale="{_PER_SECOND}" aria-label="Timeline of {escape(outcome.id, quote=True)}">',
        *_axis(outcome.duration),
    ]
    asked = [q.turn for q in outcome.questions]
    for name, turns, spans, audio, y in (
        ("user", asked, scored.turn_taking.user, outcome.user_audio, _USER),
        ("agent", outcome.agent, scored.turn_taking.agent, outcome.audio, _AGENT),
    ):
        parts.append(f'<text class="lane {name}" x="0" y="{y + 4}">{name}</text>')
        parts += _channel(name, spans, audio, y, outcome.duration)
        parts += _texts(name, turns, outcome.duration)
    parts += [_token_bar(turn) for turn in outcome.agent]
    parts += [line for note in annotations_of(scored) for line in _annotation(note)]
    parts.append(f'<line class="playhead" x1="{_LEFT}" x2="{_LEFT}" y1="0" y2="{_HEIGHT - _AXIS}"/></svg>')
    return "\n".join(parts)


def _x(time: Seconds) -> float:
    return round(_LEFT + time * _PER_SECOND, 1)


def _axis(duration: Seconds) -> Iterator[str]:
    bottom = _HEIGHT - _AXIS
    for second in range(int(duration) + 1):
        yield f'<line class="grid" x1="{_x(second)}" x2="{_x(second)}" y1="{_TEXT - 6}" y2="{bottom}"/>'
        yield f'<text class="tick" x="{_x(second)}" y="{_HEIGHT - 6}">{second} s</text>'


def _channel(name: str, spans: Sequence[Span], audio: np.ndarray, y: int, duration: Seconds) -> Iterator[str]:
    for start, end in spans:
        yield (
            f'<rect class="span {name}" x="{_x(start)}" y="{y - _WAVE // 2}" width="{(end - start) * _PER_SECOND:.1f}" '
            f'height="{_WAVE}" rx="6"/>'
        )
    levels = envelope(audio, max(2, round(duration * _PER_SECOND / 2)))
    heights = 0.5 + levels * (_WAVE / 2 - 3)
    upper = [f"{_LEFT + 2 * i},{y - h:.1f}" for i, h in enumerate(heights)]
    lower = [f"{_LEFT + 2 * i},{y + h:.1f}" for i, h in enumerate(heights)]
    yield f'<polygon class="wave {name}" points="{" ".join(upper + lower[::-1])}"/>'


def _texts(name: str, turns: Sequence[Turn], duration: Seconds) -> Iterator[str]:
    """What is said: the user's text is above its waveform, the agent's below."""
    for i, turn in enumerate(turns):
        end = turns[i + 1].start if i + 1 < len(turns) else duration
        width = max(6, int((max(end, turn.end) - turn.start) * _PER_SECOND / _CHARACTER) - 1)
        rows = wrapped(turn.text, width, 3)
        y = _TEXT - 7 - _LINE * (len(rows) - 1) if name == "user" else _AGENT + _WAVE // 2 + 20
        spans = (f'<tspan x="{_x(turn.start)}" y="{y + _LINE * n}">{escape(row)}</tspan>' for n, row in enumerate(rows))
        yield f'<text class="said {name}">{"".join(spans)}<title>{escape(turn.text)}</title></text>'


def _token_bar(turn: Turn) -> str:
    """A thin line under the agent's waveform: the turn on its text channel."""
    y = _AGENT + _WAVE // 2 + 3
    return f'<rect class="tokens" x="{_x(turn.start)}" y="{y}" width="{turn.duration * _PER_SECOND:.1f}" height="3" rx="1.5"/>'


def _annotation(note: Annotation) -> Iterator[str]:
    top, bottom = _TEXT + _WAVE, _TEXT + _WAVE + _BETWEEN
    middle = (top + bottom) / 2
    if note.kind == "response":
        yield f'<line class="mark response" x1="{_x(note.start)}" x2="{_x(note.end)}" y1="{middle}" y2="{middle}"/>'
        yield f'<text class="label response" x="{_x((note.start + note.end) / 2)}" y="{middle - 4}">{note.label}</text>'
        return
    edge = top - _WAVE if note.kind != "alarm" else bottom + _WAVE
    yield f'<line class="mark {note.kind}" x1="{_x(note.start)}" x2="{_x(note.start)}" y1="{edge}" y2="{middle}"/>'
    width = max((note.end - note.start) * _PER_SECOND, len(note.label) * 6.4 + 10)
    yield f'<rect class="pill {note.kind}" x="{_x(note.start)}" y="{middle - 9}" width="{width:.1f}" height="18" rx="4"/>'
    if note.end > note.start:
        yield f'<line class="mark {note.kind}" x1="{_x(note.end)}" x2="{_x(note.end)}" y1="{middle}" y2="{bottom + _WAVE}"/>'
    yield f'<text class="verdict" x="{_x(note.start) + 5}" y="{middle + 4}">{note.label}</text>'
