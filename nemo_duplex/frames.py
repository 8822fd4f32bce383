"""Time: seconds, samples and frames, and the only place that rounds between them.

Axis legend, used in every docstring of the package:

    B batch    T frames    S samples    K codebooks    D features    V vocabulary    H hidden

A *frame* is one step of the model (80 ms in the paper). Times are `Seconds` unless a name says frames or samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from nemo_duplex.inputs import InputError

Seconds = float
#: (start, end) of a stretch of time.
Span = tuple[Seconds, Seconds]

# Times come from decimal text and float arithmetic (0.64 + 1.28 is 1.9200000000000002), so a time this close to a frame
# edge is taken to be on it. A tenth of a millisecond is far below a frame and far above rounding errors.
_EDGE: Seconds = 1e-4


@dataclass(frozen=True)
class FrameRate:
    """Frames per second of a model or codec, kept exact.

    Args:
        hz: frames per second, for example `12.5` or `Fraction(22050, 1024)`.

    Raises:
        InputError: if `hz` is not positive.

    Examples:
        >>> rate = FrameRate(12.5)
        >>> rate.seconds, rate.samples_per_frame(16000)
        (0.08, 1280)
        >>> rate.count(1.0), rate.frame_at(1.0), rate.nearest(1.0)          # ceiling, floor, nearest edge
        (13, 12, 13)
    """

    hz: Fraction

    def __init__(self, hz: float | Fraction) -> None:
        exact = Fraction(hz).limit_denominator(1 << 16)
        if exact <= 0:
            raise InputError(f"A frame rate must be positive, got {hz} Hz.")
        object.__setattr__(self, "hz", exact)

    @property
    def seconds(self) -> Seconds:
        """Duration of one frame."""
        return float(1 / self.hz)

    def samples_per_frame(self, sample_rate: int) -> int:
        """Samples in one frame at `sample_rate`; raises InputError where that is not a whole number."""
        samples = sample_rate / self.hz
        if samples.denominator != 1:
            raise InputError(
                f"{sample_rate} Hz holds {float(samples):.3f} samples per frame of {float(self.hz):g} Hz, which is not whole: "
                "choose a sample rate that is a multiple of the frame rate."
            )
        return int(samples)

    def samples(self, frames: int, sample_rate: int) -> int:
        """Samples in `frames` whole frames."""
        return frames * self.samples_per_frame(sample_rate)

    def frame_at(self, time: Seconds) -> int:
        """Index of the frame that holds `time` (floor): frame k covers [k, k + 1) frame durations."""
        return math.floor((time + _EDGE) * self.hz)

    def nearest(self, time: Seconds) -> int:
        """Index of the frame edge nearest to `time`; halves go up, so that equal spans stay equal."""
        return math.floor((time + _EDGE) * self.hz + Fraction(1, 2))

    def count(self, duration: Seconds) -> int:
        """Frames that it takes to cover `duration` (ceiling)."""
        return math.ceil((duration - _EDGE) * self.hz)

    def count_samples(self, samples: int, sample_rate: int) -> int:
        """Frames that it takes to cover `samples` at `sample_rate` (ceiling, exact)."""
        return -(-samples // self.samples_per_frame(sample_rate))

    def time(self, frame: int) -> Seconds:
        """Start of frame `frame`."""
        return float(frame / self.hz)


#: The paper's frame: 80 ms (section 5.1).
FRAME_RATE = FrameRate(12.5)
#: What the user encoder hears and the synthesiser writes.
USER_SAMPLE_RATE = 16000
#: What NanoCodec speaks: 1764 samples per frame.
AGENT_SAMPLE_RATE = 22050
