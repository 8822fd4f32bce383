"""A speech recognition model of NeMo, from its `.nemo` file: CTC, RNNT, TDT or a hybrid of them, by its own decoding.

`parakeet-tdt_ctc-110m` is the paper's (section 5.2): numbers by it, and by no other, are marked as comparable.
"""

from __future__ import annotations

import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.speech.recogniser import RATE, pieces
from nemo_duplex.files.atomic import sha256
from nemo_duplex.files.nemo_file import read_nemo_config
from nemo_duplex.inputs import InputError, one_line

PARAKEET = "parakeet-tdt_ctc-110m"
_PARAKEET_CLASS = "EncDecHybridRNNTCTCBPEModel"
_PARAKEET_PARAMETERS = (100e6, 130e6)
_WHAT = "recogniser"


class NemoRecogniser:
    """Hears with a NeMo model, on a GPU if there is one.

    Args:
        path: of its `.nemo` file.

    Raises:
        InputError: if the file is missing or broken, or its model transcribes nothing.

    Examples:
        >>> NemoRecogniser("/models/parakeet-tdt_ctc-110m.nemo").scorer.comparable      # doctest: +SKIP
        True
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        config = read_nemo_config(path, _WHAT)
        import torch
        from nemo.collections.asr.models import ASRModel
        from nemo.utils import logging

        # As the class says it, without importing it from the file's own word.
        name = str(config.get("target", "")).rsplit(".", 1)[-1]
        before = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)
        try:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self._model = ASRModel.restore_from(str(path), map_location=device).eval()
            self._rate = int(self._model.cfg.get("sample_rate") or RATE)
            self._lock = threading.Lock()  # `transcribe` changes the model while it runs
            self._heard(np.zeros(self._rate, np.float32))
        except Exception as error:  # whatever a model of another kind raises when it is built or asked
            raise InputError(
                f"{_WHAT}: {path} holds a {name or 'model without a class'} that cannot transcribe ({one_line(error)}). "
                "Give a speech recognition model of NeMo (CTC, RNNT, TDT or hybrid)."
            ) from error
        finally:
            logging.set_verbosity(before)
        size = sum(weight.numel() for weight in self._model.parameters())
        low, high = _PARAKEET_PARAMETERS
        is_parakeet = path.stem == PARAKEET and name == _PARAKEET_CLASS and low < size < high
        self.scorer = Scorer(
            path.stem,
            f"nemo_toolkit {version('nemo_toolkit')}, {name}",
            sha256(path),
            comparable=is_parakeet,
            about="the paper's recogniser" if is_parakeet else "a speech recognition model of NeMo",
        )

    def understands(self, language: str) -> bool:
        """True: NeMo's files do not tell their language; who chose the model knows it."""
        return True

    def transcribe(self, audio: np.ndarray, sample_rate: int, language: str = "en") -> str:
        """The words in (S,) audio of full scale 1."""
        heard = (self._heard(soxr.resample(piece.samples, RATE, self._rate)) for piece in pieces(audio, sample_rate))
        return " ".join(filter(None, heard))

    def _heard(self, samples: np.ndarray) -> str:
        with self._lock:
            return _text(self._model.transcribe([samples], batch_size=1, num_workers=0, verbose=False))


def _text(found: Any) -> str:
    """The text of the only utterance: models give a list, or a tuple of the best and all of a beam; of texts or hypotheses."""
    while isinstance(found, (list, tuple)):
        found = found[0] if found else ""
    return (found if isinstance(found, str) else found.text).strip()
