"""What Whisper knows, for an ear to learn: features of its encoder as targets of the ear's, of the utterances of manifests.

Whisper hears the clean utterance, the ear hears it amid silence, faster or slower, in rooms and noise. Each target is the mean
of Whisper's features over just those samples of the clean utterance that the ear's frame is about:

    Whisper, every 20 ms    |0|1|2|3|4|5|6|7|8|9|...
    the ear, speed 1.0   |---0---|---1---|---2---|      frames that are not wholly within the utterance have no target
    the ear, speed 1.1   |---0----|---1----|---2----|

Features are kept by content, of samples and of the model: they are computed once, whatever manifest an utterance is in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor
from tqdm import tqdm

from nemo_duplex.conversation import is_time
from nemo_duplex.files.atomic import whole_file
from nemo_duplex.frames import FRAME_RATE, USER_SAMPLE_RATE
from nemo_duplex.inputs import InputError
from nemo_duplex.perception.acoustics import Augmented
from nemo_duplex.perception.ctc_data import FULL_SCALE, Utterance
from nemo_duplex.perception.manifest_utterances import READERS, Spliced
from nemo_duplex.perception.transcripts import Transcripts
from nemo_duplex.perception.whisper_model import FEATURE_SAMPLES, OpenedWhisper, digest, encoder_features, open_whisper

_RECORDINGS_PER_FILE = 500
_NORMALISED_BY = 500  # recordings from which mean and deviation are computed
_LEAST_DEVIATION = 1e-3
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Teacher:
    """What Whisper teaches: the section `teacher` of `conf/train_encoder.yaml`.

    Args:
        features: share of the utterances whose features are targets; 0: none.
        weight: of the loss of features, beside that of tokens.
        whole: weight of the loss by which each feature of 20 ms of an ear that began as Whisper (`init=whisper`) becomes what
            Whisper hears there in the whole recording; 0: none.
        transcripts: whether recordings without a text get what Whisper hears.
        model: folder of a Whisper model for faster-whisper; None: tiny.en.
        folder: keeps what Whisper made of recordings; None: `teacher` in the folder of the training.

    Raises:
        InputError: for a value out of range.

    Examples:
        >>> Teacher(features=0.5).weight
        1.0
    """

    features: float = 0.0
    weight: float = 1.0
    whole: float = 0.0
    transcripts: bool = False
    model: str | None = None
    folder: str | None = None

    def __post_init__(self) -> None:
        if not is_time(self.features) or not 0 <= self.features <= 1:
            raise InputError(f"teacher.features={self.features}: expected a share from 0 to 1.")
        if not is_time(self.weight) or not self.weight > 0:
            raise InputError(f"teacher.weight={self.weight}: expected a number above 0. For no teacher: teacher.features=0.")
        if not is_time(self.whole) or self.whole < 0:
            raise InputError(f"teacher.whole={self.whole}: expected a weight, such as 3, or 0 for none.")

    def transcriber(self, out: Path) -> Transcripts | None:
        """What gives recordings their texts in the training in `out`; None: nothing."""
        if not self.transcripts:
            return None
        whisper = self._opened()
        return Transcripts(whisper, self._kept(whisper, out))

    def features_of(self, turns: Sequence[Utterance], out: Path) -> TeacherFeatures | None:
        """The targets of utterances of manifests in the training in `out`; None: there are none."""
        if not self.features:
            return None
        recordings = [samples for turn in turns if isinstance(turn.audio, Spliced) for _, samples in turn.audio.parts]
        whisper = self._opened()
        return kept_features(recordings, self.features, whisper, self._kept(whisper, out))

    def _opened(self) -> OpenedWhisper:
        return open_whisper(self.model, workers=READERS, what="teacher.model")

    def _kept(self, whisper: OpenedWhisper, out: Path) -> Path:
        return Path(self.folder or out / "teacher") / f"{whisper.name}-{whisper.sha256[:12]}"


class TeacherFeatures:
    """Features of Whisper's encoder, of some recordings; targets of an ear's.

    Args:
        files: that hold them, by `digest`.
        recordings: (S,) int16 each; those whose features are taken, of which the first ones decide the scale.

    Attributes:
        width: of a feature.

    Raises:
        InputError: for a file that cannot be read.
    """

    def __init__(self, files: Sequence[Path], recordings: Sequence[np.ndarray]) -> None:
        self._files = {name: file for file in map(_opened, files) for name in file.keys()}
        self._known = {digest(samples) for samples in recordings}
        some = np.concatenate([self._of(digest(samples)) for samples in recordings[:_NORMALISED_BY]])
        self._mean, self._deviation = some.mean(0), some.std(0).clip(_LEAST_DEVIATION)
        self.width: int = some.shape[1]

    def __len__(self) -> int:
        return len(self._known)

    def targets(self, utterance: Utterance, start: int, heard: Augmented) -> Tensor:
        """(T, width) float32 for the frames of what is heard from sample `start` of the utterance's audio on.

        Each dimension has mean 0 and deviation 1. NaN where a frame is not wholly within a recording that is taught.
        """
        frames = FRAME_RATE.count_samples(len(heard.audio), USER_SAMPLE_RATE)
        edges = start + np.arange(frames + 1) * FRAME_RATE.samples_per_frame(USER_SAMPLE_RATE) * heard.speed
        found = np.full((frames, self.width), np.nan, np.float32)
        for first, samples in utterance.audio.parts if isinstance(utterance.audio, Spliced) else ():
            within = np.flatnonzero((edges[:-1] >= first) & (edges[1:] <= first + len(samples)))
            if len(within) and (name := digest(samples)) in self._known:
                features = (self._of(name) - self._mean) / self._deviation
                found[within] = _means(features, edges[within] - first, edges[within + 1] - first)
        return torch.from_numpy(found)

    def _of(self, name: str) -> np.ndarray:
        return self._files[name].get_tensor(name).astype(np.float32)


def kept_features(recordings: Sequence[np.ndarray], share: float, whisper: OpenedWhisper, folder: Path) -> TeacherFeatures:
    """Whisper's features of a share of the recordings, spread evenly over them.

    Those that are not in `folder` yet are computed, 500 to a file. Interrupted, it goes on after the last file.

    Args:
        recordings: (S,) int16 at 16 kHz each.
        share: above 0.
        folder: holds features of this model alone, in float16 (140 MB an hour of audio where it has 384 of them).

    Raises:
        InputError: for a file in it that cannot be read.
    """
    chosen = [samples for i, samples in enumerate(recordings) if (i * _GOLDEN) % 1.0 < share]
    known = {name for path in _files(folder) for name in _opened(path).keys()}
    missing = [(name, samples) for name, samples in {digest(s): s for s in chosen}.items() if name not in known]
    with tqdm(total=len(missing), desc="Whisper's features", unit=" utterances", delay=2, leave=False) as bar:
        for i in range(0, len(missing), _RECORDINGS_PER_FILE):
            features = {}
            for name, samples in missing[i : i + _RECORDINGS_PER_FILE]:
                features[name] = encoder_features(whisper.model, samples.astype(np.float32) / FULL_SCALE).astype(np.float16)
                bar.update()
            with whole_file(folder / f"{hashlib.sha256(''.join(features).encode()).hexdigest()[:16]}.safetensors") as path:
                save_file(features, path)
    return TeacherFeatures(_files(folder), chosen)


def _means(features: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Means (T, W) of features (J, W) over stretches from sample `starts` (T,) to `ends`, each feature for its 20 ms."""
    edges = FEATURE_SAMPLES * (np.arange(len(features) + 1) - 0.5)
    overlaps = np.minimum(ends[:, None], edges[1:]) - np.maximum(starts[:, None], edges[:-1])  # (T, J)
    shares = overlaps.clip(0)
    return (shares / shares.sum(1, keepdims=True)).astype(np.float32) @ features


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("."))


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "numpy")
    except (SafetensorError, OSError) as error:
        raise InputError(f"teacher.folder: {path} cannot be read ({error}). Remove it: it is computed again.") from error
