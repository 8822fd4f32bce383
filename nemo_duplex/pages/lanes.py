"""A conversation as two lanes on a time axis, as SVG: texts, stretches of speech and sound of each speaker, to scale.

user    What is the capital of France?      And of Spain?
        ~~~~~~~~~~~~~~~~~~~~                ~~~~~~~~~~~
                        what a page marks between the lanes
agent                              ~~~~~~~~~~~~~~            ~~~~~~
                                   The capital of France is   The capital of Spain ...

Colours come from the page, by class (`page.css`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from nemo_duplex.conversation import Speaker, Turn
from nemo_duplex.frames import Seconds, Span

# Sizes in pixels.
PER_SECOND = 84
_LEFT, _TEXT, _AXIS = 52, 48, 22
WAVE, BETWEEN = 46, 34
#: The lower edge of the user's waveforms and the upper edge of the agent's; marks have the place between them.
TOP, BOTTOM = _TEXT + WAVE, _TEXT + WAVE + BETWEEN
_MIDDLE: dict[Speaker, int] = {"user": TOP - WAVE // 2, "agent": BOTTOM + WAVE // 2}
HEIGHT = 2 * _TEXT + 2 * WAVE + BETWEEN + _AXIS
_CHARACTER, _LINE = 6.6, 14


@dataclass(frozen=True)
class Lane:
    """One speaker.

    Args:
        speaker: `user` or `agent`.
        turns: whose texts are written.
        spans: stretches of speech, which are shaded.
        audio: (S,) of the whole conversation, of any scale and rate.
    """

    speaker: Speaker
    turns: Sequence[Turn]
    spans: Sequence[Span]
    audio: np.ndarray


def lanes_svg(name: str, duration: Seconds, lanes: Iterable[Lane], marks: Iterable[str] = ()) -> str:
    """The conversation as an SVG element.

    Args:
        name: of the conversation, for those who hear the page.
        duration: Seconds.
        lanes: of the user and the agent.
        marks: more SVG elements, drawn over the lanes.
    """
    width = _LEFT + round(duration * PER_SECOND) + 12
    parts = [
        f'<svg class="timeline" width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}" role="img" '
        f'data-left="{_LEFT}" data-scale="{PER_SECOND}" aria-label="Timeline of {escape(name, quote=True)}">',
        *_axis(duration),
    ]
    for lane in lanes:
        parts.append(f'<text class="lane {lane.speaker}" x="0" y="{_MIDDLE[lane.speaker] + 4}">{lane.speaker}</text>')
        parts += _channel(lane, duration)
        parts += _texts(lane, duration)
    parts += marks
    parts.append(f'<line class="playhead" x1="{_LEFT}" x2="{_LEFT}" y1="0" y2="{HEIGHT - _AXIS}"/></svg>')
    return "\n".join(parts)


def x(time: Seconds) -> float:
    """Where a time is in the picture."""
    return round(_LEFT + time * PER_SECOND, 1)


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


def _axis(duration: Seconds) -> Iterator[str]:
    bottom = HEIGHT - _AXIS
    for second in range(int(duration) + 1):
        yield f'<line class="grid" x1="{x(second)}" x2="{x(second)}" y1="{_TEXT - 6}" y2="{bottom}"/>'
        yield f'<text class="tick" x="{x(second)}" y="{HEIGHT - 6}">{second} s</text>'


def _channel(lane: Lane, duration: Seconds) -> Iterator[str]:
    y = _MIDDLE[lane.speaker]
    for start, end in lane.spans:
        yield (
            f'<rect class="span {lane.speaker}" x="{x(start)}" y="{y - WAVE // 2}" '
            f'width="{(end - start) * PER_SECOND:.1f}" height="{WAVE}" rx="6"/>'
        )
    levels = envelope(lane.audio, max(2, round(duration * PER_SECOND / 2)))
    heights = 0.5 + levels * (WAVE / 2 - 3)
    upper = [f"{_LEFT + 2 * i},{y - h:.1f}" for i, h in enumerate(heights)]
    lower = [f"{_LEFT + 2 * i},{y + h:.1f}" for i, h in enumerate(heights)]
    yield f'<polygon class="wave {lane.speaker}" points="{" ".join(upper + lower[::-1])}"/>'


def _texts(lane: Lane, duration: Seconds) -> Iterator[str]:
    """What is said: the user's text is above its waveform, the agent's below."""
    for i, turn in enumerate(lane.turns):
        end = lane.turns[i + 1].start if i + 1 < len(lane.turns) else duration
        width = max(6, int((max(end, turn.end) - turn.start) * PER_SECOND / _CHARACTER) - 1)
        rows = wrapped(turn.text, width, 3)
        y = _TEXT - 7 - _LINE * (len(rows) - 1) if lane.speaker == "user" else BOTTOM + WAVE + 20
        spans = (f'<tspan x="{x(turn.start)}" y="{y + _LINE * n}">{escape(row)}</tspan>' for n, row in enumerate(rows))
        yield f'<text class="said {lane.speaker}">{"".join(spans)}<title>{escape(turn.text)}</title></text>'
