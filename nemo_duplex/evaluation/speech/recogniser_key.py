"""The key `recogniser`: a name or a path, and the recogniser that it stands for."""

from __future__ import annotations

from pathlib import Path

from nemo_duplex.evaluation.speech.recogniser import Recogniser
from nemo_duplex.evaluation.speech.whisper import Whisper
from nemo_duplex.inputs import InputError, at_home, did_you_mean, existing_file, existing_folder
from nemo_duplex.perception.whisper_model import TINY_EN

_EXPECTED = (
    f"Expected {TINY_EN} (it comes with the extra eval), or the path of a speech recognition model: a .nemo file, a folder of "
    "Whisper for faster-whisper, or a folder of Hugging Face (Whisper, wav2vec 2.0 and other CTC)"
)


def check_recogniser(key: str) -> None:
    """Refuses, with an InputError, a key that names nothing that is there; nothing is loaded."""
    if key != TINY_EN and not Path(at_home(key, "recogniser")).exists():
        raise InputError(f"recogniser={key}: there is no such file or folder.{did_you_mean(key, [TINY_EN])} {_EXPECTED}.")


def open_recogniser(key: str, workers: int = 1) -> Recogniser:
    """The recogniser of a key; what a path is, its files tell. Nothing is downloaded.

    Args:
        key: `whisper-tiny.en`, or a path.
        workers: threads that will transcribe at the same time.

    Raises:
        NotInstalled: if a package is missing.
        InputError: if there is no such file or folder, or it is no speech recognition model.

    Examples:
        >>> open_recogniser("whisper-tiny.en").scorer.name
        'whisper-tiny.en'
    """
    if key == TINY_EN:
        return Whisper(workers=workers)
    path = Path(at_home(key, "recogniser"))
    check_recogniser(key)
    if path.is_file() and path.suffix == ".nemo":
        from nemo_duplex.evaluation.speech.nemo_asr import NemoRecogniser

        return NemoRecogniser(existing_file(path, "recogniser"))
    if path.is_dir() and (existing_folder(path, "recogniser") / "model.bin").exists():
        return Whisper(path, workers)
    if (path / "config.json").is_file():
        from nemo_duplex.evaluation.speech.hf_asr import HfRecogniser

        return HfRecogniser(path)
    kind = "folder without config.json" if path.is_dir() else "file whose name does not end in .nemo"
    raise InputError(f"recogniser={key} is a {kind}. {_EXPECTED}.")
