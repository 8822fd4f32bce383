"""A channel with its silence removed, as the paper scores it (section 5.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nemo_duplex.frames import Seconds, Span

#: Kept before and after each span, of the sound itself: the edges of a word are faint, and a cut at full level is a click.
MARGIN: Seconds = 0.1


def joined_speech(samples: np.ndarray, sample_rate: int, spans: Sequence[Span], margin: Seconds = MARGIN) -> np.ndarray:
    """The parts of a channel that are speech, one after the other.

    Args:
        samples: (S,), any type.
        spans: in Seconds; what they say beyond the samples is not there. Pauses of up to twice the margin stay as they are.

    Returns:
        (S',), of the type of `samples`.

    Examples:
        >>> joined_speech(np.arange(100), 10, [(1.0, 2.0), (2.1, 3.0), (8.0, 8.5)]).tolist()[-8:]
        [29, 30, 79, 80, 81, 82, 83, 84, 85][-8:]
    """
    parts: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        first = max(0, round((start - margin) * sample_rate))
        last = min(len(samples), round((end + margin) * sample_rate))
        if parts and first <= parts[-1][1]:
            parts[-1] = (parts[-1][0], max(last, parts[-1][1]))
        elif first < last:
            parts.append((first, last))
    return np.concatenate([samples[first:last] for first, last in parts]) if parts else samples[:0]
