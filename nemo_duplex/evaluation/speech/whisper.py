"""Whisper through faster-whisper as a recogniser: tiny.en of a wheel (extra `eval`), the default, or any model in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.speech.normalized_text import is_english
from nemo_duplex.evaluation.speech.recogniser import Piece, pieces
from nemo_duplex.frames import Seconds
from nemo_duplex.perception.whisper_model import open_whisper, segments


class Whisper:
    """Whisper in 8 bits on the CPU, greedy: the same audio gives the same words.

    Args:
        folder: of a model in CTranslate2's format; None: tiny.en.
        workers: threads that transcribe at the same time, one core each.

    Raises:
        NotInstalled: if faster-whisper or the wheel with the model is missing.
        InputError: if the wheel holds another model, or the folder none that can be used.

    Examples:
        >>> Whisper().transcribe(np.zeros(16000, np.float32), 16000)
        ''
    """

    def __init__(self, folder: str | Path | None = None, workers: int = 1) -> None:
        self._model, name, digest = open_whisper(folder, workers)
        self._languages = {*self._model.supported_languages} if self._model.model.is_multilingual else {"en"}
        self.scorer = Scorer(
            name,
            f"faster-whisper {version('faster-whisper')}, CTranslate2 {version('ctranslate2')}, int8, greedy",
            digest,
            about="Whisper; hears open language, no grammar",
        )

    def understands(self, language: str) -> bool:
        """Whether it was trained on the language."""
        return self._code(language) in self._languages

    def transcribe(self, audio: np.ndarray, sample_rate: int, language: str = "en") -> str:
        """The words in (S,) audio of full scale 1."""
        heard = (s.text.strip() for piece in pieces(audio, sample_rate) for s in self._segments(piece, language))
        return " ".join(filter(None, heard))

    def timed_words(self, audio: np.ndarray, sample_rate: int) -> list[tuple[str, Seconds, Seconds]]:
        """Each English word of (S,) audio with its start and end.

        They come from the network's attention: a word beside silence may reach seconds into it, so give stretches of speech,
        and trust no time that is outside of them.
        """
        return [
            (w.word.strip(), piece.start + float(w.start), piece.start + float(w.end))
            for piece in pieces(audio, sample_rate)
            for segment in self._segments(piece, "en", word_timestamps=True)
            for w in segment.words or ()
        ]

    def _segments(self, piece: Piece, language: str, **options: Any) -> Iterator[Any]:
        return segments(self._model, piece.samples, self._code(language), **options)

    def _code(self, language: str) -> str:
        return "en" if is_english(language) else language.lower().replace("_", "-").split("-")[0]
