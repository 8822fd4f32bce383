"""Scores of a sound beside its original, sample by sample or frame by frame: STOI, PESQ, SI-SDR and the mel distance.

They mean something only of sounds that are aligned: a delay of 20 ms makes any of them worthless. All four hear 16 kHz, so
codecs of any rate are on one scale, and one that has nothing above 4 kHz is told so.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import soxr

from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.speech.sound_scorer import MOST_SCALE, RATE, Answer, Refused
from nemo_duplex.inputs import NotInstalled

_INAUDIBLE = 1e-4  # peak, -80 dB re full scale
_MOST_DECIBEL = 100.0  # of SI-SDR: two equal sounds would have infinitely many


class FullReferenceScorer(ABC):
    """Judges a sound beside its original; `answer` gives one number, `score`.

    It can be sent to another process, where it is built anew.

    Attributes:
        scorer: what it is, for the report.
    """

    scorer: Scorer

    def __reduce__(self):
        return type(self), ()

    def answer(self, audio: np.ndarray, sample_rate: int) -> Answer:
        """Judges (2, S) audio, float of full scale 1: the original, and the sound that is judged, aligned.

        Returns:
            `score`, or `{"refused": why}` where one of them is silent or no sound, or too short for the scorer.
        """
        try:
            original, decoded = (_heard(one, sample_rate, name) for one, name in zip(audio, ("original", "decoded sound")))
            score = self._judge(original, decoded)
        except Refused as why:
            return {"refused": str(why)}
        return {"score": score} if np.isfinite(score) else {"refused": "the scorer's answer is not a number"}

    @abstractmethod
    def _judge(self, original: np.ndarray, decoded: np.ndarray) -> float:
        """The score of two (S,) float32 at `RATE`."""


class STOI(FullReferenceScorer):
    """Short-time objective intelligibility, 0 to 1 (Taal et al., ICASSP 2010), by pystoi (MIT), which hears 10 kHz.

    Raises:
        NotInstalled: if pystoi is missing.

    Examples:
        >>> sound = np.random.default_rng(0).standard_normal(16000).astype(np.float32) / 8
        >>> round(STOI().answer(np.stack([sound, sound]), 16000)["score"], 6)
        1.0
    """

    def __init__(self) -> None:
        self.scorer = Scorer("stoi", f"pystoi {_version('pystoi')}", about="short-time objective intelligibility, 0 to 1")

    def _judge(self, original: np.ndarray, decoded: np.ndarray) -> float:
        from pystoi import stoi

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            score = float(stoi(original, decoded, RATE))
        if any("Not enough STFT frames" in str(one.message) for one in caught):  # its answer is 0.00001 then
            raise Refused("less than 0.4 s of speech")
        return score


class PESQ(FullReferenceScorer):
    """Perceptual evaluation of speech quality, wide band (ITU-T P.862.2), 1 to 4.64, by the package pesq.

    Its native code can end the process: give it to `score_sounds`, with workers.

    Raises:
        NotInstalled: if pesq is missing.

    Examples:
        >>> PESQ().answer(np.stack([speech, speech]), 16000)                               # doctest: +SKIP
        {'score': 4.64}
    """

    def __init__(self) -> None:
        self.scorer = Scorer("pesq", f"pesq {_version('pesq', '0.0.4')}", about="PESQ, wide band, 1 to 4.64 (ITU-T P.862.2)")

    def _judge(self, original: np.ndarray, decoded: np.ndarray) -> float:
        from pesq import BufferTooShortError, NoUtterancesError, pesq

        try:
            return float(pesq(RATE, original, decoded, "wb"))
        except BufferTooShortError:
            raise Refused("less than 0.25 s of sound") from None
        except NoUtterancesError:
            raise Refused("PESQ finds no speech in it") from None


class SISDR(FullReferenceScorer):
    """Scale-invariant signal-to-distortion ratio in decibel (Le Roux et al., ICASSP 2019), of sounds without their means.

    With s the original, y the decoded sound and a = <y, s> / <s, s>: 10 log10(|a s|^2 / |a s - y|^2), within 100 dB. It asks
    for the same waveform: a codec that sounds right with other phases has a negative one.

    Examples:
        >>> sound = np.sin(np.arange(16000) / 9).astype(np.float32)
        >>> noise = 0.1 * np.cos(np.arange(16000) / 9).astype(np.float32)                  # a tenth, and orthogonal
        >>> round(SISDR().answer(np.stack([sound, 0.5 * (sound + noise)]), 16000)["score"], 2)
        20.0
    """

    scorer = Scorer("si_sdr", "1", about="scale-invariant signal-to-distortion ratio, dB, at 16 kHz")

    def _judge(self, original: np.ndarray, decoded: np.ndarray) -> float:
        s, y = (one.astype(np.float64) - one.mean(dtype=np.float64) for one in (original, decoded))
        with np.errstate(divide="ignore", invalid="ignore"):  # of equal sounds, and of a constant one
            target = s * ((y @ s) / (s @ s))
            error = target - y
            ratio = 10 * (np.log10(target @ target) - np.log10(error @ error))
        return float(np.clip(ratio, -_MOST_DECIBEL, _MOST_DECIBEL))


class MelDistance(FullReferenceScorer):
    """Mean absolute difference of natural log-mel magnitudes at 16 kHz: window 1024, hop 256, 80 bins, floor -80 dB.

    `train_codec.py` prints the same at the codec's own rate.

    Examples:
        >>> sound = np.random.default_rng(0).standard_normal(16000).astype(np.float32) / 8
        >>> round(MelDistance().answer(np.stack([sound, 0.5 * sound]), 16000)["score"], 4)  # log 2
        0.6931
    """

    scorer = Scorer("mel_distance", "1", about="mean absolute difference of natural log-mel magnitudes, at 16 kHz")

    def _judge(self, original: np.ndarray, decoded: np.ndarray) -> float:
        import torch

        from nemo_duplex.codec.reconstruction import mel_distance

        return mel_distance(torch.from_numpy(original), torch.from_numpy(decoded), RATE)


#: By the names of their numbers.
FULL_REFERENCE: dict[str, type[FullReferenceScorer]] = {
    "stoi": STOI,
    "pesq": PESQ,
    "si_sdr": SISDR,
    "mel_distance": MelDistance,
}


def open_full_reference() -> tuple[dict[str, FullReferenceScorer], dict[str, str]]:
    """The scorers that are installed, and of the others, why they are not there."""
    found: dict[str, FullReferenceScorer] = {}
    missing: dict[str, str] = {}
    for name, kind in FULL_REFERENCE.items():
        try:
            found[name] = kind()
        except NotInstalled as why:
            missing[name] = str(why)
    return found, missing


def _version(package: str, tested: str | None = None) -> str:
    """Raises NotInstalled, with what to type: `tested` is named where only one version is known to work."""
    try:
        return version(package)
    except PackageNotFoundError:
        wanted = f"{package}=={tested}" if tested else package
        raise NotInstalled(f"{package} is not installed: pip install {wanted}") from None


def _heard(audio: np.ndarray, sample_rate: int, name: str) -> np.ndarray:
    """(S,) float32 at `RATE`.

    Raises:
        Refused: if it is no sound, or silence.
    """
    sound = np.asarray(audio, np.float32)
    assert sound.ndim == 1, f"a sound has one channel, got {sound.shape}"
    if not np.isfinite(sound).all():
        raise Refused(f"the {name} has samples that are not finite")
    peak = float(np.abs(sound).max(initial=0.0))
    if peak > MOST_SCALE:
        raise Refused(f"the {name} is far beyond full scale")
    if peak < _INAUDIBLE:
        raise Refused(f"the {name} is silent")
    return np.ascontiguousarray(soxr.resample(sound, sample_rate, RATE), np.float32)
