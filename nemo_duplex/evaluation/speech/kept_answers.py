"""Answers of scorers and recognisers on disk (`quality.jsonl`, `transcripts.jsonl`).

What was judged or heard once is not judged or heard again, also after a run that was killed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.speech.sound_scorer import Answer

# Increased when a scorer here cuts or prepares a sound in another way.
_METHOD = 1


class KeptAnswers:
    """Answers by what was judged and by whom: other samples, another rate or other weights have another key.

    A row is written as soon as there is an answer. A last row that a killed run left half-written is passed over.

    Args:
        path: of the JSON lines file, made when the first answer is kept; None keeps them in memory alone.

    Examples:
        >>> kept = KeptAnswers("quality.jsonl")
        >>> kept.add("3f5a", "distillmos", "dialogue-7", {"score": 4.2})
        >>> KeptAnswers("quality.jsonl").get("3f5a")
        {'score': 4.2}
    """

    def __init__(self, path: str | Path | None) -> None:
        self._path = None if path is None else Path(path)
        self._answers: dict[str, Answer] = {}
        self._whole = True  # whether the file ends with the end of a row
        if self._path is not None and self._path.is_file():
            text = self._path.read_text(encoding="utf-8", errors="replace")
            self._whole = not text or text.endswith("\n")
            for line in text.split("\n"):
                self._read(line)

    @staticmethod
    def key(scorer: Scorer, audio: np.ndarray, sample_rate: int) -> str:
        """64 hexadecimal digits of a scorer and the sound that it judges."""
        digest = hashlib.sha256(
            f"{_METHOD} {scorer.name} {scorer.version} {scorer.sha256} {sample_rate} {audio.dtype}".encode()
        )
        digest.update(audio.tobytes())
        return digest.hexdigest()

    def get(self, key: str) -> Answer | None:
        """The answer of before, if there is one."""
        return self._answers.get(key)

    def add(self, key: str, scorer: str, of: str, answer: Answer) -> None:
        """Keeps an answer; `of` says for people what was judged."""
        self._answers[key] = answer
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a", encoding="utf-8", errors="replace") as file:
            row = json.dumps({"key": key, "scorer": scorer, "of": of, "answer": answer}, ensure_ascii=False)
            file.write(f"{'' if self._whole else chr(10)}{row}\n")
        self._whole = True

    def _read(self, line: str) -> None:
        try:
            row = json.loads(line)
            self._answers[row["key"]] = dict(row["answer"])
        except (ValueError, KeyError, TypeError):
            return  # half a row: its sound is judged again
