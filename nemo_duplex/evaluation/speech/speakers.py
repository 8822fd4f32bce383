"""Whose voice it is: embeddings of speakers, and SECS, the cosine similarity of two of them.

Numbers of different encoders are on different scales: Resemblyzer gives 0.9 for one voice and about 0.6 for another,
ECAPA2, which the paper takes, 0.5 to 0.9 and about 0. So they stand under different names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.speech.network_file import open_network
from nemo_duplex.evaluation.speech.sound_scorer import RATE, Answer, SoundScorer
from nemo_duplex.files.atomic import sha256
from nemo_duplex.files.wheels import Wheel
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, existing_file

if TYPE_CHECKING:
    from torch import Tensor

_WEIGHTS = "resemblyzer/pretrained.pt"
_SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
_RESEMBLYZER = Wheel("resemblyzer", "0.1.4", {_WEIGHTS: _SHA256}, "--no-deps resemblyzer==0.1.4")
# ---- Resemblyzer's front end, in samples and frames
_WINDOW, _HOP, _MELS = 400, 160, 40
_PART = 160  # frames that the network hears at a time, 1.6 s
_STEP = 77  # frames between the starts of two: 1.3 a second
_LEAST_OF_A_PART = 0.75  # of it must be there, or the last part is left out
_LOUDNESS = 10 ** (-30 / 20)  # root mean square that quieter sounds are raised to
_LONGEST: Seconds = 20.0  # that ECAPA2 hears at a time


class SpeakerEncoder(SoundScorer):
    """A network whose `answer` is `embedding`, a list of numbers of length 1 in all."""

    def embed(self, audio: np.ndarray, sample_rate: int) -> np.ndarray | None:
        """(D,) float32 of length 1 for (S,) audio; None where it is refused, for which `answer` has the reason."""
        found = self.answer(audio, sample_rate).get("embedding")
        return None if found is None else np.array(found, np.float32)


class Resemblyzer(SpeakerEncoder):
    """The speaker encoder of Resemblyzer 0.1.4 (Apache-2.0; GE2E, Wan et al., arXiv:1710.10467), from its wheel, on the CPU.

    Only the wheel's weights are used: its code needs webrtcvad and pkg_resources. Silence, which it trims, is removed before.
    Else the embedding is that of its own `VoiceEncoder().embed_utterance(preprocess_wav(audio))`.

    Raises:
        NotInstalled: if resemblyzer is missing.
        InputError: if it holds other weights.

    Examples:
        >>> encoder = Resemblyzer()                                                   # doctest: +SKIP
        >>> secs(encoder.embed(agent, 22050), encoder.embed(reference, 22050))         # doctest: +SKIP
        0.91
    """

    scorer = Scorer("resemblyzer", "0.1.4", _SHA256, about="Resemblyzer, cosine of embeddings: 0.9 for one voice, 0.6 for two")

    def __init__(self) -> None:
        import torch
        from torch import nn

        weights = torch.load(_RESEMBLYZER.path(_WEIGHTS), map_location="cpu", weights_only=True)["model_state"]
        self._lstm, self._linear = nn.LSTM(_MELS, 256, 3, batch_first=True), nn.Linear(256, 256)
        for name, part in (("lstm.", self._lstm), ("linear.", self._linear)):
            part.load_state_dict({k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)})

    def __reduce__(self):
        return type(self), ()

    def _judge(self, sound: np.ndarray) -> Answer:
        import torch

        loudness = float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
        if loudness < _LOUDNESS:
            sound = sound * np.float32(_LOUDNESS / loudness)
        with torch.inference_mode():
            embedded = self._embed(torch.from_numpy(_parts_of_mel(sound)))
        return {"embedding": _unit(embedded.numpy().mean(axis=0))}

    def _embed(self, mels: Tensor) -> Tensor:
        """(N, 160, 40) mel powers -> (N, 256) of length 1, none negative."""
        _, (hidden, _) = self._lstm(mels)
        raw = self._linear(hidden[-1]).relu()
        return raw / raw.norm(dim=1, keepdim=True)


class ECAPA2(SpeakerEncoder):
    """The paper's speaker encoder (Thienpondt and Demuynck, arXiv:2401.08342; CC BY-NC 4.0), from a file that the user has.

    A sound longer than 20 s is embedded in equal pieces, whose directions are averaged.

    Args:
        path: `ecapa2.pt` of huggingface.co/Jenthe/ECAPA2, or another TorchScript or ONNX: (1, S) float32 at 16 kHz to (1, D).

    Raises:
        InputError: if the file is missing, or its network does not give an embedding.

    Examples:
        >>> ECAPA2("ecapa2.pt").embed(agent_speech, 22050).shape                       # doctest: +SKIP
        (192,)
    """

    def __init__(self, path: str | Path) -> None:
        file = existing_file(path, "ecapa2")
        self._path = path
        self.scorer = Scorer(
            "ecapa2", "given as a network", sha256(file), True, f"ECAPA2, cosine of embeddings, by {file.name}"
        )
        self._network = open_network(file, "ecapa2")
        size = self._network(0.01 * np.ones((1, 2 * RATE), np.float32)).size
        if size < 2:
            raise InputError(f"ecapa2: {file} gives {size} number for a sound, expected an embedding (1, D).")

    def __reduce__(self):
        return type(self), (self._path,)

    def _judge(self, sound: np.ndarray) -> Answer:
        pieces = np.array_split(sound, -(-len(sound) // round(_LONGEST * RATE)))
        return {"embedding": _unit(np.mean([_unit(self._network(piece[None]).ravel()) for piece in pieces], axis=0))}


def secs(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """The cosine of two embeddings of one encoder, -1 to 1."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _unit(vector: np.ndarray) -> list[float]:
    return (vector / np.linalg.norm(vector)).astype(np.float64).tolist()


def _parts_of_mel(sound: np.ndarray) -> np.ndarray:
    """(N, 160, 40) float32: mel powers of parts of 1.6 s, 0.77 s apart; the last one is filled up with zeros or left out."""
    from librosa.feature import melspectrogram

    frames = -(-(len(sound) + 1) // _HOP)
    starts = list(range(0, max(1, frames - _PART + _STEP + 1), _STEP))
    if len(starts) > 1 and (len(sound) - starts[-1] * _HOP) / (_PART * _HOP) < _LEAST_OF_A_PART:
        starts.pop()
    padded = np.pad(sound, (0, max(0, (starts[-1] + _PART) * _HOP - len(sound))))
    mel = melspectrogram(y=padded, sr=RATE, n_fft=_WINDOW, hop_length=_HOP, n_mels=_MELS).astype(np.float32).T
    return np.stack([mel[start : start + _PART] for start in starts])
