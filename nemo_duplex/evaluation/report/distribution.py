"""How latencies are distributed, as an SVG: a histogram, and over it the share of all that are at most so long."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from html import escape

from nemo_duplex.frames import Seconds

_WIDTH, _HEIGHT = 600, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 58, 14, 28
_BINS = 30


def distribution_svg(values: Sequence[Seconds], low: Seconds, high: Seconds, line: Seconds, label: str) -> str:
    """The distribution as an SVG element; colours come from the page (classes of report.css).

    Args:
        values: latencies; those outside of `low` to `high` are counted in the first and last bar.
        line: where a threshold is drawn.
        label: what it shows, for those who hear the page.
    """
    width = (high - low) / _BINS
    counts = [0] * _BINS
    for value in values:
        after = round((value - low) * 1000) // round(width * 1000)  # in whole milliseconds: 1.0 s is not below 1.0 s
        counts[min(max(after, 0), _BINS - 1)] += 1
    most = max(counts)
    median = statistics.median(values)
    said = f"{label}: {len(values)}, median {median:.2f} s"
    parts = [f'<svg class="distribution" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(said, quote=True)}">']
    parts += _axes(low, high, most)
    for i, count in enumerate(counts):
        if count:
            start = low + i * width
            top = _y(count / most)
            title = f"{count} of {len(values)} from {start:.2f} to {start + width:.2f} s"
            parts.append(
                f'<rect class="bin" x="{_x(start, low, high) + 0.5:.1f}" y="{top:.1f}" '
                f'width="{_x(low + width, low, high) - _LEFT - 1:.1f}" height="{_y(0) - top:.1f}"><title>{title}</title></rect>'
            )
    parts.append(f'<polyline class="share" points="{" ".join(_share(counts, low, high))}"/>')
    parts.append(_mark("threshold", line, low, high))
    parts.append(_mark("median", median, low, high))
    return "\n".join([*parts, "</svg>"])


def _x(value: Seconds, low: Seconds, high: Seconds) -> float:
    share = (min(max(value, low), high) - low) / (high - low)
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _axes(low: Seconds, high: Seconds, most: int) -> Iterator[str]:
    """Times below, counts at the left, shares at the right."""
    for half in range(math.ceil(2 * low), math.floor(2 * high) + 1):
        x = f"{_x(half / 2, low, high):.1f}"
        yield f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{_y(0):.1f}"/>'
        if half % 2 == 0:
            yield f'<text class="tick" x="{x}" y="{_HEIGHT - 8}" text-anchor="middle">{half // 2} s</text>'
    yield f'<text class="tick" x="{_LEFT - 6}" y="{_y(1) + 8:.1f}" text-anchor="end">{most}</text>'
    yield f'<text class="tick" x="{_LEFT - 6}" y="{_y(0):.1f}" text-anchor="end">0</text>'
    for share in (0, 0.5, 1):
        yield f'<text class="tick percent" x="{_WIDTH - _RIGHT + 4}" y="{_y(share) + 4:.1f}">{100 * share:.0f} %</text>'


def _share(counts: Sequence[int], low: Seconds, high: Seconds) -> Iterator[str]:
    """Points of the line: at each bin's end, the share of all values that are at most that long."""
    total, below = sum(counts), 0
    yield f"{_x(low, low, high):.1f},{_y(0):.1f}"
    for i, count in enumerate(counts):
        below += count
        yield f"{_x(low + (i + 1) * (high - low) / len(counts), low, high):.1f},{_y(below / total):.1f}"


def _mark(kind: str, value: Seconds, low: Seconds, high: Seconds) -> str:
    x = f"{_x(value, low, high):.1f}"
    return f'<line class="{kind}" x1="{x}" x2="{x}" y1="{_TOP - 6}" y2="{_y(0):.1f}"><title>{kind} {value:.2f} s</title></line>'
