"""One speaker's utterances, in memory, and the random crops of them that a codec is trained on."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soxr
import torch
from torch.utils.data import IterableDataset
from tqdm import tqdm

from nemo_duplex.codec.mel import FLOOR
from nemo_duplex.codec.recording_sources import Block, Recorded, Source, open_source
from nemo_duplex.files.odd_rows import OddRow, OddRows

# Full scale of the 16-bit samples in memory (an hour at 22.05 kHz takes 160 MB).
_FULL_SCALE = 32767
# A longer recording counts as several utterances, each of at most this many seconds: one file can be trained and measured on.
_LONGEST_SECONDS = 20
# A shorter one is no speech, and what is measured on it means nothing.
_SHORTEST_SECONDS = 0.01
# Samples beyond 1 are clipped; beyond this they were never on a scale of 1.
_MOST_SCALE = 4.0
# Channels that differ by less than this share of their peak hold the same voice.
_SAME_CHANNELS = 0.01

# A recording of which a larger share of samples is at full scale counts as clipped.
_CLIPPED = 1e-3
# Threads that read; libsndfile and soxr let others run meanwhile.
_MOST_READERS = 8

# 16-bit samples (S,), the rate that they had, and whether they are clipped.
_Read = tuple[torch.Tensor, int, bool]


class Recordings:
    """The utterances of one speaker in memory, 16 bits each sample: 160 MB an hour at 22.05 kHz.

    Audio of another rate is resampled. What cannot be used is left out and counted. Hidden files and those whose names are not
    of audio (`.txt`) are not looked at.

    Args:
        data: folder, Shar, cuts or manifest; see `open_source`.
        sample_rate: of the samples in memory.
        channel: which one to take where there are several; None takes such recordings only if their channels hold the same.
        max_odd_rows: largest share of recordings that may be left out, 0 to 1.
        what: names the data in an error.

    Attributes:
        samples: of each utterance, 16-bit integers (S,).
        ids: cut ids, paths, or rows of a manifest; with " part N" where a long recording became several utterances.
        texts: what is said in each; "" where nobody wrote it down, and in the parts of a long recording.
        left_out: the files, cuts or rows that cannot be used, by reason.

    Raises:
        InputError: if none can be used, more than the allowed share cannot, or a Shar or a file of rows is broken.

    Examples:
        >>> import soundfile
        >>> Path("voice").mkdir()
        >>> soundfile.write("voice/1.wav", np.full(48000, 0.5), 48000)
        >>> recordings = Recordings("voice", 22050)
        >>> len(recordings), recordings.ids, recordings.audio(0).shape
        (1, ['voice/1.wav'], torch.Size([22050]))
    """

    def __init__(
        self,
        data: str | Path,
        sample_rate: int,
        channel: int | None = None,
        max_odd_rows: float = 0.5,
        what: str = "training data",
    ) -> None:
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.samples: list[torch.Tensor] = []
        self.sample_rate = sample_rate
        self.channel = channel
        self.left_out = OddRows()
        self.what = what
        self._resampled: Counter[int] = Counter()
        self._clipped: list[str] = []
        source, num_usable = open_source(data, what), 0
        for (name, text, _), found in tqdm(self._read(source), desc="Reading recordings", unit="", leave=False, delay=5):
            try:
                samples, rate, clips = found.result()
            except OddRow as odd:
                self.left_out.add(odd, name)
                continue
            num_usable += 1
            self._clipped += [name] if clips else []
            self._resampled.update([rate] if rate != sample_rate else [])
            parts = samples.tensor_split(-(-len(samples) // (_LONGEST_SECONDS * sample_rate)))
            self.ids += [name] if len(parts) == 1 else [f"{name} part {number}" for number in range(1, len(parts) + 1)]
            self.texts += [text] if len(parts) == 1 else [""] * len(parts)
            self.samples += parts
        self.left_out.update(source.left_out)
        self.left_out.check(what, num_usable, max_odd_rows, "max_odd_rows", source.kind)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def seconds(self) -> float:
        return sum(map(len, self.samples)) / self.sample_rate

    def summary(self) -> list[str]:
        """What was read and what was left out, as lines to print."""
        lines = [f"{self.what}: {len(self)} utterances, {self.seconds / 60:.1f} minutes, {len(self.left_out)} left out"]
        lines += [f"  {found['count']} x {reason}: {found['first'][0]}" for reason, found in self.left_out.describe().items()]
        for rate, count in sorted(self._resampled.items()):
            lost = f"; they hold nothing above {rate // 2} Hz" if rate < self.sample_rate else ""
            lines.append(f"  resampled from {rate} to {self.sample_rate} Hz: {count}{lost}")
        if self._clipped:
            lines.append(f"  {len(self._clipped)} x clipped at full scale, and taken as they are: {self._clipped[0]}")
        return lines

    def audio(self, index: int) -> torch.Tensor:
        """Utterance `index`, (S,) float32 of full scale 1."""
        return self.samples[index].float() / _FULL_SCALE

    def split(self, count: int) -> tuple[list[int], list[int]]:
        """Indices to train on, and `count` evenly spread ones to measure on (at most a tenth of all, at least one).

        Of a single utterance both are the same: it is measured on what it was trained on.
        """
        count = max(1, min(count, len(self) // 10))
        held_out = [i * len(self) // count for i in range(count)]
        kept = set(held_out)
        return [i for i in range(len(self)) if i not in kept] or held_out, held_out

    def _read(self, source: Source) -> Iterator[tuple[Recorded, Future[_Read]]]:
        """Each recording and its samples, in order; a few are read at once, and no more wait to be taken."""
        readers = min(_MOST_READERS, os.cpu_count() or 1)
        waiting: deque[tuple[Recorded, Future[_Read]]] = deque()
        with ThreadPoolExecutor(readers) as pool:
            for recorded in source.recordings:
                waiting.append((recorded, pool.submit(self._samples, recorded.read)))
                if len(waiting) > 2 * readers:
                    yield waiting.popleft()
            yield from waiting

    def _samples(self, read: Callable[[], Iterator[Block]]) -> _Read:
        """A recording as it is kept.

        Raises:
            OddRow: if it cannot be used.
        """
        parts, peak, given = [np.zeros(0, np.int16)], 0.0, self.sample_rate
        for audio, given in read():
            if not np.isfinite(audio).all():
                raise OddRow("samples that are no numbers", cure="Write it again.")
            if audio.size == 0:
                continue
            mono = self._one_channel(audio)
            if given != self.sample_rate:
                mono = soxr.resample(mono, given, self.sample_rate)
            peak = max(peak, float(np.abs(mono).max(initial=0.0)))
            parts.append((mono.clip(-1, 1) * _FULL_SCALE).round().astype(np.int16))
        if len(parts) == 1:
            raise OddRow("no samples", cure="Remove it.")
        samples = torch.from_numpy(np.concatenate(parts))
        if peak < FLOOR:
            raise OddRow("silence alone", f"{len(samples)} samples at {self.sample_rate} Hz", "Remove it.")
        if len(samples) < _SHORTEST_SECONDS * self.sample_rate:
            raise OddRow("too short to be speech", f"{len(samples)} samples at {self.sample_rate} Hz", "Remove it.")
        if peak > _MOST_SCALE:
            raise OddRow("samples far beyond full scale", f"up to {peak:.4g}", "Scale them to -1 ... 1.")
        return samples, given, bool((samples.abs() >= _FULL_SCALE - 1).float().mean() > _CLIPPED)

    def _one_channel(self, audio: np.ndarray) -> np.ndarray:
        """The speaker's samples (S,) of a recording (C, S)."""
        count = len(audio)
        if count > 1 and self.channel is not None:
            if self.channel >= count:
                cure = f"Give a channel= from 0 to {count - 1}."
                raise OddRow("fewer channels than channel= asks for", f"{count}, asked for {self.channel}", cure)
            return audio[self.channel]
        sounding = audio[np.abs(audio).max(axis=1) >= FLOOR] if count > 1 else audio
        if len(sounding) <= 1:
            return (sounding if len(sounding) else audio)[0]
        mean = sounding.mean(axis=0)
        if np.abs(sounding - mean).max() > _SAME_CHANNELS * np.abs(sounding).max():
            cure = "Give channel=0 for the first of them, or the number of the speaker's."
            raise OddRow("channels that differ", f"{len(sounding)} channels", cure)
        return mean


class Crops(IterableDataset):
    """Endless random crops of equal length; the same seed gives the same crops.

    A crop may begin before its utterance or end behind it, so that onsets, endings and silence are learnt too.

    Args:
        recordings: what to draw from.
        indices: which of them.
        samples: length of a crop.
        margin: samples by which a crop may stick out.
        seed: of the draws.
    """

    def __init__(self, recordings: Recordings, indices: list[int], samples: int, margin: int, seed: tuple[int, ...]) -> None:
        self.recordings = recordings
        self.indices = indices
        self.samples = samples
        self.margin = margin
        self.seed = seed
        lengths = np.array([len(recordings.samples[i]) for i in indices], dtype=np.float64)
        self._weights = lengths / lengths.sum()  # every second of speech is drawn as often as any other

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Crops (samples,), float32."""
        rng = np.random.default_rng(self.seed)
        while True:
            audio = self.recordings.audio(self.indices[rng.choice(len(self.indices), p=self._weights)])
            start = int(rng.integers(-self.margin, max(1, len(audio) - self.samples + self.margin)))
            piece = audio[max(start, 0) : start + self.samples]
            before = max(-start, 0)
            yield torch.nn.functional.pad(piece, (before, self.samples - before - len(piece)))
