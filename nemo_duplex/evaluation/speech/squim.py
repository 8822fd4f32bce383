"""Torchaudio-Squim's subjective score, what the paper's Table 4 rates codecs with, from a file that the user has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soxr

from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.speech.network_file import open_network
from nemo_duplex.evaluation.speech.sound_scorer import RATE, Answer, QualityScorer
from nemo_duplex.files.atomic import sha256
from nemo_duplex.inputs import InputError, existing_file


class Squim(QualityScorer):
    """SQUIM_SUBJECTIVE (Kumar et al., ICASSP 2023): an estimated opinion (1 to 5) beside clean speech of any words.

    Args:
        path: TorchScript or ONNX: two sounds (1, S) float32 at 16 kHz, that which is judged and clean speech, to one number.
            With torchaudio: `torch.jit.script(torchaudio.pipelines.SQUIM_SUBJECTIVE.get_model()).save("squim.pt")`.
        clean: (S,) clean speech, by anybody.
        sample_rate: of `clean`, in Hz.

    Raises:
        InputError: if the file is missing, or its network does not give one number for two sounds.

    Examples:
        >>> Squim("squim.pt", original, 22050).score(reconstruction, 22050)             # doctest: +SKIP
        4.6
    """

    def __init__(self, path: str | Path, clean: np.ndarray, sample_rate: int) -> None:
        file = existing_file(path, "squim")
        self._given = (path, clean, sample_rate)
        self._clean = np.ascontiguousarray(soxr.resample(np.asarray(clean, np.float32), sample_rate, RATE), np.float32)
        self._network = open_network(file, "squim", sounds=2)
        size = self._judged(0.01 * np.ones(2 * RATE, np.float32)).size
        if size != 1:
            raise InputError(f"squim: {file} gives {size} numbers for a sound, expected one. Give the subjective model.")
        self.scorer = Scorer("squim", "subjective", sha256(file), True, f"Torchaudio-Squim, estimated opinion, by {file.name}")

    def __reduce__(self):
        return type(self), self._given

    def _judge(self, sound: np.ndarray) -> Answer:
        return {"score": float(self._judged(sound).item())}

    def _judged(self, sound: np.ndarray) -> np.ndarray:
        return self._network(sound[None], self._clean[None])
