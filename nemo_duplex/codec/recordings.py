"""One speaker's utterances, in memory, and the random crops of them that a codec is trained on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch.utils.data import IterableDataset
from tqdm import tqdm

from nemo_duplex.codec.mel import FLOOR
from nemo_duplex.conversation import holds
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import InputError, existing_folder, one_line

# Full scale of the 16-bit samples in memory (an hour at 22.05 kHz takes 160 MB).
_FULL_SCALE = 32767
# Names of audio. Those of the second line libsndfile cannot read; they are counted as unreadable, not passed over.
_SUFFIXES = frozenset(
    ".wav .wave .rf64 .w64 .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .snd .caf .sph "
    ".m4a .m4b .mp4 .aac .wma .webm .amr .3gp .mov .mkv .wv .ape".split()
)
# A longer recording counts as several utterances, each of at most this many seconds: one file can be trained and measured on.
_LONGEST_SECONDS = 20
# Samples beyond 1 are clipped; beyond this they were never on a scale of 1.
_MOST_SCALE = 4.0
# Channels that differ by less than this share of their peak hold the same voice.
_SAME_CHANNELS = 0.01

# Name, samples (C, S) and sample rate of an utterance; the function raises an OddRow if it cannot be read.
_Readable = tuple[str, Callable[[], tuple[np.ndarray, int]]]


class Recordings:
    """The utterances of a folder: a corpus of `synthesize.py` (its set `agent`), a Lhotse Shar folder, or audio files.

    Audio of another rate is resampled. Files and cuts that cannot be used are left out and counted. Hidden files and those
    whose names are not of audio (`.txt`) are not looked at.

    Args:
        data: the folder.
        sample_rate: of the samples in memory.
        channel: which one to take where there are several; None takes such recordings only if their channels hold the same.
        max_odd_rows: largest share of files or cuts that may be left out, 0 to 1.

    Attributes:
        samples: of each utterance, 16-bit integers (S,).
        ids: cut ids, or paths; with " part N" where a long recording became several utterances.
        left_out: the files or cuts that cannot be used, by reason.

    Raises:
        InputError: if no file or cut can be used, more than the allowed share cannot, or a Shar is broken.
    """

    def __init__(self, data: str | Path, sample_rate: int, channel: int | None = None, max_odd_rows: float = 0.5) -> None:
        folder = existing_folder(data, "training data")
        self.ids: list[str] = []
        self.samples: list[torch.Tensor] = []
        self.sample_rate = sample_rate
        self.channel = channel
        self.left_out = OddRows()
        self._resampled: Counter[int] = Counter()
        shar = folder / "agent" / "shar"
        if not shar.is_dir():
            shar = folder
        cuts = sorted(shar.glob("cuts.*.jsonl*"))
        files = [] if cuts else sorted(filter(_is_audio(folder), folder.rglob("*")))
        if not cuts and not files:
            raise InputError(
                f"training data: {folder} holds no agent/shar (a corpus of synthesize.py), no Shar (cuts.000000.jsonl.gz) "
                "and no audio files (wav, flac, ogg, mp3)."
            )
        reader, num_usable = _read_shar(shar) if cuts else _read_files(files), 0
        for name, read in tqdm(reader, desc="Reading utterances", unit="", leave=False, delay=5):
            try:
                self._add(name, *read())
                num_usable += 1
            except OddRow as odd:
                self.left_out.add(odd, name)
        self.left_out.check("training data", num_usable, max_odd_rows, "max_odd_rows", "cuts" if cuts else "files")

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def seconds(self) -> float:
        return sum(map(len, self.samples)) / self.sample_rate

    def summary(self) -> list[str]:
        """What was read and what was left out, as lines to print."""
        lines = [f"training data: {len(self)} utterances, {self.seconds / 60:.1f} minutes, {len(self.left_out)} left out"]
        lines += [f"  {found['count']} x {reason}: {found['first'][0]}" for reason, found in self.left_out.describe().items()]
        for rate, count in sorted(self._resampled.items()):
            lost = f"; they hold nothing above {rate // 2} Hz" if rate < self.sample_rate else ""
            lines.append(f"  resampled from {rate} to {self.sample_rate} Hz: {count}{lost}")
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

    def _add(self, name: str, audio: np.ndarray, rate: int) -> None:
        """Adds samples (C, S) as one utterance or several.

        Raises:
            OddRow: if they cannot be used.
        """
        if audio.size == 0:
            raise OddRow("no samples", cure="Remove it.")
        if not np.isfinite(audio).all():
            raise OddRow("samples that are no numbers", cure="Write it again.")
        mono = self._one_channel(audio)
        if rate != self.sample_rate:
            mono = soxr.resample(mono, rate, self.sample_rate)
        peak = float(np.abs(mono).max(initial=0.0))
        if peak < FLOOR:
            raise OddRow("silence alone", f"{len(mono)} samples at {self.sample_rate} Hz", "Remove it.")
        if peak > _MOST_SCALE:
            raise OddRow("samples far beyond full scale", f"up to {peak:.4g}", "Scale them to -1 ... 1.")
        self._resampled.update([rate] if rate != self.sample_rate else [])
        samples = torch.from_numpy((mono.clip(-1, 1) * _FULL_SCALE).round().astype(np.int16))
        parts = samples.tensor_split(-(-len(samples) // (_LONGEST_SECONDS * self.sample_rate)))
        self.ids += [name] if len(parts) == 1 else [f"{name} part {number}" for number in range(1, len(parts) + 1)]
        self.samples += parts

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


def _is_audio(folder: Path) -> Callable[[Path], bool]:
    def is_audio(path: Path) -> bool:
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)  # macOS leaves a ._1.wav beside each 1.wav
        return path.suffix.lower() in _SUFFIXES and not hidden and path.is_file()

    return is_audio


def _read_shar(folder: Path) -> Iterator[_Readable]:
    def read(cut: Cut) -> tuple[np.ndarray, int]:
        if not holds(cut, "recording"):
            raise OddRow("no recording")
        try:
            audio = cut.load_audio()
        except Exception as error:  # lhotse and its backends raise different ones
            raise OddRow("not readable as audio", one_line(error)) from error
        return audio, cut.sampling_rate

    try:
        for cut in CutSet.from_shar(in_dir=str(folder)):
            yield f"cut {cut.id}", partial(read, cut)
    except Exception as error:
        raise InputError(
            f"training data: {folder} is not a readable Shar folder ({one_line(error)}). Copy or write it again."
        ) from error


def _read_files(paths: list[Path]) -> Iterator[_Readable]:
    def read(path: Path) -> tuple[np.ndarray, int]:
        cure = "Convert it to wav or flac, or remove it."
        try:
            with path.open("rb") as file:  # libsndfile cannot open every name itself
                if not file.seek(0, os.SEEK_END):
                    raise OddRow("no samples", "0 bytes", "Remove it.")
                file.seek(0)
                audio, rate = soundfile.read(file, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise OddRow("not readable as audio", error.error_string.rstrip("."), cure) from error
        except (soundfile.SoundFileError, OSError) as error:
            raise OddRow("not readable as audio", one_line(error), cure) from error
        return audio.T, rate

    for path in paths:
        yield os.fsencode(path).decode(errors="replace"), partial(read, path)
