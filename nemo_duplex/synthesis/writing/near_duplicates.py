"""Dialogues that are too like ones before them: found by MinHash, so that a million of them fit in memory."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from nemo_duplex.synthesis.writing.rules import words

SAME_QUESTION = "begins with a question that was asked before"
NEAR_DUPLICATE = "near duplicate of a dialogue before it"
SAME_OPENING = "begins with the same four words as too many others"

_NUM_BANDS, _ROWS = 16, 4  # finds 64 % of what shares half of its runs of words, 99 % of what shares 70 %
_RUN = 3
_OPENING = 4
_FREE_OPENINGS, _OPENING_SHARE = 5, 0.02
_MULTIPLIERS, _ADDENDS = np.random.default_rng(0).integers(1, 2**63, (2, _NUM_BANDS * _ROWS, 1), dtype=np.uint64)


class AcceptedSoFar:
    """The dialogues that were accepted. What it refuses depends on them and their order, on nothing else.

    Examples:
        >>> accepted = AcceptedSoFar()
        >>> accepted.refuses(["What is dew?", "Dew is water that cool air leaves on the grass."]) is None
        True
        >>> accepted.refuses(["What is dew?", "Small drops on leaves in the morning."])
        'begins with a question that was asked before'
    """

    def __init__(self) -> None:
        self._questions: set[tuple[str, ...]] = set()
        self._openings: Counter[tuple[str, ...]] = Counter()
        self._bands: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._questions)

    def refuses(self, turns: Sequence[str]) -> str | None:
        """Why a dialogue is refused; None if it is accepted, and remembered."""
        question = tuple(words(turns[0]))
        if question in self._questions:
            return SAME_QUESTION
        opening = question[:_OPENING]
        if self._openings[opening] >= _FREE_OPENINGS + _OPENING_SHARE * len(self):
            return SAME_OPENING
        bands = _bands(turns)
        if not bands.isdisjoint(self._bands):
            return NEAR_DUPLICATE
        self._questions.add(question)
        self._openings[opening] += 1
        self._bands |= bands
        return None


def _bands(turns: Sequence[str]) -> set[bytes]:
    """What two dialogues share if they are alike: a digest of each band of their MinHash."""
    said = [word for text in turns for word in words(text)]
    runs = {" ".join(said[i : i + _RUN]) for i in range(max(1, len(said) - _RUN + 1))}
    hashes = np.array([int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest(), "big") for run in runs], np.uint64)
    lowest = ((hashes * (_MULTIPLIERS | np.uint64(1)) + _ADDENDS) >> np.uint64(20)).min(1)  # wraps at 2^64; low bits are poor
    return {bytes([band]) + lowest[band * _ROWS : (band + 1) * _ROWS].tobytes() for band in range(_NUM_BANDS)}
