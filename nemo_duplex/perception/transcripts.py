"""Texts for recordings that nobody transcribed: what Whisper hears, where it is sure of it, kept by content.

Whisper writes numbers in figures, which may be said in several ways ("1984"), and an ear learns words: these are left out too.
Ruled out while it writes, figures are replaced by anything: tiny.en then writes "built in I-D-NA before" of that year.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import InputError
from nemo_duplex.perception.ctc_data import FULL_SCALE
from nemo_duplex.perception.whisper_model import OpenedWhisper, digest, segments
from nemo_duplex.words import words

#: Less sure than that, a transcript is left out: mean log-probability of its tokens.
LEAST_LOG_PROB = -0.7
#: Bytes against compressed bytes; a model that repeats itself has more.
MOST_COMPRESSION = 2.4
#: Probability that there is no speech.
MOST_SILENCE = 0.6
_CURE = "Write down what is said."
_IN_FIGURES = set("0123456789$£€¥%°")


class Transcripts:
    """Whisper's texts of recordings, in `<folder>/transcripts.jsonl`, a line each. Threads may ask at the same time.

    Args:
        whisper: writes those that are not there yet.
        folder: is made if it is missing.

    Attributes:
        taken: how many recordings have been given a text.

    Raises:
        InputError: if the file cannot be read.

    Examples:
        >>> Transcripts(OpenedWhisper(None, "tiny", "00"), Path("kept")).taken
        0
    """

    def __init__(self, whisper: OpenedWhisper, folder: Path) -> None:
        self._model, self.taken = whisper.model, 0
        self._file, self._lock = folder / "transcripts.jsonl", threading.Lock()
        self._known = _lines(self._file)

    def text(self, samples: np.ndarray, language: str = "en") -> str:
        """What is said in a recording.

        Args:
            samples: (S,) int16 at 16 kHz, at most 30 s.
            language: which Whisper writes, if it knows it.

        Raises:
            OddRow: if Whisper hears no words, is not sure of them, or does not know the language.
        """
        code = language.lower().replace("_", "-").split("-")[0]
        if code not in self._languages():
            raise OddRow("no words in its text, and a language that Whisper does not know", language, _CURE)
        name = f"{digest(samples)} {code}"
        found = self._known.get(name)
        if found is None:
            found = self._heard(samples.astype(np.float32) / FULL_SCALE, code)
            with self._lock:
                self._known[name] = found
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"recording": name, **found}, ensure_ascii=False) + "\n")
        _check(found)
        with self._lock:
            self.taken += 1
        return found["text"]

    def _languages(self) -> set[str]:
        return {*self._model.supported_languages} if self._model.model.is_multilingual else {"en"}

    def _heard(self, samples: np.ndarray, code: str) -> dict[str, Any]:
        heard = list(segments(self._model, samples, code))
        return {
            "text": " ".join(segment.text.strip() for segment in heard),
            "log_prob": round(min((float(segment.avg_logprob) for segment in heard), default=0.0), 3),
            "compression": round(max((float(segment.compression_ratio) for segment in heard), default=0.0), 3),
            "silence": round(max((float(segment.no_speech_prob) for segment in heard), default=1.0), 3),
        }


def _check(found: dict[str, Any]) -> None:
    """Raises an OddRow for a transcript that nobody should learn from."""
    if not words(found["text"]) or found["silence"] > MOST_SILENCE:
        raise OddRow("no words in its text, and Whisper hears none", cure=_CURE)
    if found["compression"] > MOST_COMPRESSION:
        raise OddRow("no words in its text, and Whisper repeats itself", found["text"][:60], _CURE)
    if _IN_FIGURES & set(found["text"]):
        raise OddRow("no words in its text, and Whisper writes numbers in figures", found["text"][:60], _CURE)
    if found["log_prob"] < LEAST_LOG_PROB:
        raise OddRow("no words in its text, and Whisper is not sure of them", found["text"][:60], _CURE)


def _lines(path: Path) -> dict[str, dict[str, Any]]:
    """What a file holds by recording. A line that was cut off is removed, its recording is heard again."""
    if not path.is_file():
        return {}
    whole, _, cut_off = path.read_bytes().rpartition(b"\n")
    if cut_off:
        with whole_file(path) as file:
            file.write_bytes(whole + b"\n" if whole else b"")
    try:
        return {(row := json.loads(line)).pop("recording"): row for line in whole.splitlines()}
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"teacher.folder: {path} cannot be read ({error}). Remove it: it is written again.") from error
