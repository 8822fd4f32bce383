"""One speaker's utterances, in memory, and the random crops of them that a codec is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from lhotse import CutSet
from torch.utils.data import IterableDataset
from tqdm import tqdm

from nemo_duplex.inputs import InputError, existing_folder, one_line

# Full scale of the 16-bit samples in memory (an hour at 22.05 kHz takes 160 MB).
_FULL_SCALE = 32767


class Recordings:
    """The utterances of a folder: a corpus of `synthesize.py` (its set `agent`), a Lhotse Shar folder, or a tree of wav files.

    Args:
        data: the folder.
        sample_rate: what each must have.

    Attributes:
        samples: of each utterance, 16-bit integers (S,).
        ids: cut ids, or paths.

    Raises:
        InputError: naming the file or cut, if one is unreadable, empty, not mono, or has another rate; or if there is none.
    """

    def __init__(self, data: str | Path, sample_rate: int) -> None:
        folder = existing_folder(data, "training data")
        self.ids: list[str] = []
        self.samples: list[torch.Tensor] = []
        self.sample_rate = sample_rate
        shar = folder / "agent" / "shar"
        if not shar.is_dir():
            shar = folder
        cuts = sorted(shar.glob("cuts.*.jsonl*"))
        files = [] if cuts else sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".wav", ".flac"))
        if not cuts and not files:
            raise InputError(
                f"training data: {folder} holds no agent/shar (a corpus of synthesize.py), no Shar (cuts.000000.jsonl.gz) "
                "and no wav or flac files."
            )
        reader = _read_shar(shar) if cuts else _read_files(files)
        for name, audio, rate in tqdm(reader, desc="Reading utterances", unit="", leave=False, delay=5):
            self._add(name, audio, rate)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def seconds(self) -> float:
        return sum(map(len, self.samples)) / self.sample_rate

    def audio(self, index: int) -> torch.Tensor:
        """Utterance `index`, (S,) float32 of full scale 1."""
        return self.samples[index].float() / _FULL_SCALE

    def split(self, count: int) -> tuple[list[int], list[int]]:
        """Indices to train on, and `count` evenly spread ones to measure on (at most a tenth of all, at least one)."""
        count = max(1, min(count, len(self) // 10))
        held_out = [i * len(self) // count for i in range(count)]
        kept = set(held_out)
        return [i for i in range(len(self)) if i not in kept] or held_out, held_out

    def _add(self, name: str, audio: np.ndarray, rate: int) -> None:
        channels, samples = audio.shape
        if rate != self.sample_rate:
            raise InputError(f"training data: {name} has {rate} Hz, expected {self.sample_rate} Hz. Resample it.")
        if channels != 1:
            raise InputError(f"training data: {name} has {channels} channels, expected one. Keep the speaker's own.")
        if samples == 0 or not np.isfinite(audio).all():
            raise InputError(f"training data: {name} is {'empty' if samples == 0 else 'not a number in places'}. Remove it.")
        self.ids.append(name)
        self.samples.append(torch.from_numpy((audio[0].clip(-1, 1) * _FULL_SCALE).round().astype(np.int16)))


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


def _read_shar(folder: Path) -> Iterator[tuple[str, np.ndarray, int]]:
    try:
        for cut in CutSet.from_shar(in_dir=str(folder)):
            yield f"cut {cut.id}", cut.load_audio(), cut.sampling_rate
    except Exception as error:
        raise InputError(
            f"training data: {folder} is not a readable Shar folder ({one_line(error)}). Synthesise it again."
        ) from error


def _read_files(paths: list[Path]) -> Iterator[tuple[str, np.ndarray, int]]:
    for path in paths:
        try:
            audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, OSError) as error:
            raise InputError(f"training data: {path} is unreadable ({error}). Remove it or write it again.") from error
        yield str(path), audio.T, rate
