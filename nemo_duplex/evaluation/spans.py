"""Time as the turn-taking metrics count it: whole milliseconds, in half-open spans that are sorted and apart.

No metric compares floats: 0.1 + 0.2 is 300 ms, as 0.3 is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from nemo_duplex.frames import Seconds, Span
from nemo_duplex.inputs import InputError

#: (start, end) in milliseconds; the end is not part of it.
MsSpan = tuple[int, int]


def to_ms(time: Seconds, what: str = "time") -> int:
    """The nearest millisecond; `what` names the time in the error.

    Raises:
        InputError: if it is no finite number.
    """
    try:
        finite = math.isfinite(time)
    except TypeError:
        finite = False
    if not finite:
        raise InputError(f"A {what} must be a finite number of seconds, got {time!r:.40}. Correct it in the input.")
    return round(time * 1000)


def to_seconds(time: int) -> Seconds:
    """Milliseconds in Seconds."""
    return time / 1000


def length_ms(duration: Seconds) -> int:
    """A recording's length in milliseconds.

    Raises:
        InputError: if it is negative or no finite number.
    """
    length = to_ms(duration, "duration")
    if length < 0:
        raise InputError(f"A duration must not be negative, got {duration} s. Correct it in the input.")
    return length


def normalise(spans: Iterable[Span], end: int, merge_gap: int = 0, min_duration: int = 0) -> tuple[list[MsSpan], int]:
    """Spans as turns: clipped to the recording, sorted, merged where no more than a gap is between them.

    Args:
        spans: (start, end) in Seconds, in any order; they may overlap.
        end: of the recording, milliseconds.
        merge_gap: milliseconds; spans this far apart are one. 0: spans that touch are one.
        min_duration: milliseconds; what is shorter after merging is left out.

    Returns:
        The spans, and how many were too short.

    Raises:
        InputError: if a span ends before it starts, or a time is no finite number.
    """
    clipped = []
    for start, stop in spans:
        first, last = to_ms(start, "span's start"), to_ms(stop, "span's end")
        if stop < start:
            raise InputError(f"A span must run forwards, got {start} to {stop} s. Swap its times in the input.")
        a, b = max(0, first), min(end, last)
        if a < b:  # a half-open span of no length holds nothing
            clipped.append((a, b))
    merged: list[MsSpan] = []
    for a, b in sorted(clipped):
        if merged and a - merged[-1][1] <= merge_gap:
            merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
        else:
            merged.append((a, b))
    kept = [(a, b) for a, b in merged if b - a >= min_duration]
    return kept, len(merged) - len(kept)


def without(spans: Sequence[MsSpan], holes: Sequence[MsSpan]) -> list[MsSpan]:
    """What is left of spans outside of holes; both sorted and apart."""
    left: list[MsSpan] = []
    for start, end in spans:
        for a, b in holes:
            if start < b and a < end:
                if start < a:
                    left.append((start, a))
                start = b
        if start < end:
            left.append((start, end))
    return left


def in_seconds(spans: Iterable[MsSpan]) -> tuple[Span, ...]:
    """Spans in milliseconds as spans in Seconds."""
    return tuple((to_seconds(a), to_seconds(b)) for a, b in spans)
