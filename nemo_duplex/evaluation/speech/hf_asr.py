"""A speech recognition model in the format of Hugging Face, from its folder: Whisper and the like, or CTC (wav2vec 2.0).

Only the folder is read, no code in it is run, and nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.speech.normalized_text import is_english
from nemo_duplex.evaluation.speech.recogniser import RATE, pieces
from nemo_duplex.files.atomic import sha256
from nemo_duplex.inputs import InputError, one_line

_WEIGHTS = ("*.safetensors", "*.bin")
_TOKENS_PER_SECOND, _TOKENS = 12, 8  # as many as the fastest speech has, and no endless repetition


class HfRecogniser:
    """Hears with a model of transformers, greedy, on a GPU if there is one.

    Args:
        folder: with config.json, weights, tokenizer and feature extractor.

    Raises:
        InputError: if something is missing, or the model is no recogniser.

    Examples:
        >>> HfRecogniser("/models/wav2vec2-base-960h").transcribe(audio, 16000)      # doctest: +SKIP
        'HELLO'
    """

    def __init__(self, folder: str | Path) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForCTC, AutoModelForSpeechSeq2Seq, AutoProcessor

        folder = Path(folder)
        here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            config = AutoConfig.from_pretrained(folder, **here)
            name = (config.architectures or [""])[0]
            self._is_ctc = name.endswith("ForCTC")
            model = AutoModelForCTC if self._is_ctc else AutoModelForSpeechSeq2Seq
            self._processor = AutoProcessor.from_pretrained(folder, **here)
            self._device = "cuda" if torch.cuda.is_available() else "cpu"
            self._model = model.from_pretrained(folder, dtype=torch.float32, **here).eval().to(self._device)
            self._rate = int(self._processor.feature_extractor.sampling_rate)
            self._lock = threading.Lock()
            self._heard(np.zeros(self._rate, np.float32), "en")
        except Exception as error:  # whatever transformers raises for a folder that is no recogniser's
            raise InputError(
                f"recogniser: {folder} is not a whole speech recognition model of Hugging Face ({one_line(error)}). It needs "
                "config.json, weights, a tokenizer and preprocessor_config.json."
            ) from error
        self.scorer = Scorer(
            folder.resolve().name,
            f"transformers {version('transformers')}, {name}, greedy",
            _digest(folder),
            about="a speech recognition model of Hugging Face",
        )

    def understands(self, language: str) -> bool:
        """Whether Whisper was trained on it; others do not tell their language, so who chose the model knows it."""
        return self._code(language) in self._languages if self._languages else True

    def transcribe(self, audio: np.ndarray, sample_rate: int, language: str = "en") -> str:
        """The words in (S,) audio of full scale 1."""
        heard = (self._heard(soxr.resample(p.samples, RATE, self._rate), language) for p in pieces(audio, sample_rate))
        return " ".join(filter(None, heard))

    @property
    def _languages(self) -> set[str]:
        """Of a Whisper model; empty for others."""
        settings = getattr(self._model, "generation_config", None)
        if self._model.config.model_type != "whisper":
            return set()
        known = getattr(settings, "lang_to_id", None) if getattr(settings, "is_multilingual", False) else None
        return {token.strip("<|>") for token in known} if known else {"en"}

    def _heard(self, samples: np.ndarray, language: str) -> str:
        import torch

        with self._lock, torch.inference_mode():
            given = self._processor(samples, sampling_rate=self._rate, return_tensors="pt").to(self._device)
            if self._is_ctc:
                ids = self._model(**given).logits.argmax(-1)
                return self._processor.batch_decode(ids)[0].strip()
            options: dict[str, Any] = {"do_sample": False, "num_beams": 1}
            options["max_new_tokens"] = _TOKENS + round(_TOKENS_PER_SECOND * len(samples) / self._rate)
            if len(self._languages) > 1:
                options |= {"language": self._code(language), "task": "transcribe"}
            ids = self._model.generate(**given, **options)
            return self._processor.batch_decode(ids, skip_special_tokens=True)[0].strip()

    def _code(self, language: str) -> str:
        return "en" if is_english(language) else language.lower().replace("_", "-").split("-")[0]


def _digest(folder: Path) -> str:
    """SHA-256 of the weights; of those of several files, SHA-256 of theirs."""
    kind = next((pattern for pattern in _WEIGHTS if list(folder.glob(pattern))), _WEIGHTS[0])
    digests = [sha256(file) for file in sorted(folder.glob(kind))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
