"""The channels of a cut as they are on disk, and how loud they are over time."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import soundfile
from lhotse import Recording
from lhotse.cut import Cut
from scipy.signal import butter, sosfilt

from nemo_duplex.conversation import Speaker, holds
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.frames import Seconds, Span
from nemo_duplex.inputs import one_line
from nemo_duplex.synthesis.inspection.sets import AGENT_AUDIO

#: Levels are of stretches of this length.
STEP: Seconds = 0.08
_HIGH_PASS = 150.0  # Hz: what hums below carries no speech
FLOOR_DB = -120.0  # the level of silence


@dataclass(frozen=True)
class Channel:
    """One channel.

    Args:
        samples: (S,) float32 of full scale 1, as they are stored.
        sample_rate: Hz, of the file; the manifest may say something else.
        num_tracks: of the file; more than one is not used.
    """

    samples: np.ndarray
    sample_rate: int
    num_tracks: int = 1

    @property
    def duration(self) -> Seconds:
        return len(self.samples) / self.sample_rate

    @cached_property
    def levels(self) -> np.ndarray:
        """(N,) dB against full scale, RMS of each `STEP`, without what is below the voice."""
        step = round(STEP * self.sample_rate)
        sections = butter(2, _HIGH_PASS, "highpass", fs=self.sample_rate, output="sos")
        heard = sosfilt(sections, np.nan_to_num(self.samples.astype(np.float64)))
        heard = heard[: len(heard) // step * step].reshape(-1, step)
        return 10 * np.log10(np.maximum(np.square(heard).mean(axis=1), 10 ** (FLOOR_DB / 10)))

    def within(self, start: Seconds, end: Seconds) -> np.ndarray:
        """The levels of the steps that lie within a stretch, at least one where there are any."""
        first = max(0, int(np.ceil(start / STEP - 1e-6)))
        return self.levels[first : max(first + 1, int(end / STEP + 1e-6))]

    def outside(self, spans: Iterable[Span], before: Seconds, after: Seconds) -> np.ndarray:
        """(N,) bool: the steps outside of all stretches, which are widened by `before` and `after`."""
        free = np.ones(len(self.levels), bool)
        for start, end in spans:
            free[max(0, int((start - before) / STEP)) : max(0, int(np.ceil((end + after) / STEP)))] = False
        return free


def channel(cut: Cut, speaker: Speaker) -> Channel | None:
    """A channel of a cut; None if it has none.

    Raises:
        OddRow: if it cannot be decoded.
    """
    field = "recording" if speaker == "user" else AGENT_AUDIO
    if not holds(cut, field) or (speaker == "agent" and AGENT_AUDIO not in (cut.custom or {})):
        return None
    recording = getattr(cut, field)
    try:
        samples, rate = _decoded(cut, recording, field)
    except Exception as error:  # lhotse and libsndfile raise different ones
        raise OddRow("audio that cannot be decoded", f"{cut.id}: {field}: {one_line(error)}") from error
    return Channel(samples[0], rate, len(samples))


def _decoded(cut: Cut, recording: Recording, field: str) -> tuple[np.ndarray, int]:
    """(channels, S) and the rate of the file: Lhotse would pad or cut what differs a little from the manifest."""
    sources = recording.sources
    if len(sources) == 1 and sources[0].type == "memory" and not recording.transforms:
        samples, rate = soundfile.read(io.BytesIO(sources[0].source), dtype="float32", always_2d=True)
        return samples.T, rate
    return (cut.load_audio() if field == "recording" else cut.load_custom(field)), recording.sampling_rate
