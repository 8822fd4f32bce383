"""How far two rows of a table are apart: utterances are drawn with what both made of them, so what they share cancels out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nemo_duplex.evaluation.codecs.trial import ORIGINAL
from nemo_duplex.evaluation.confidence import paired_difference
from nemo_duplex.evaluation.report.compare import FEWEST
from nemo_duplex.evaluation.report.number import better

#: What can be said of a second row: its interval holds 0 (unclear), or there are fewer than `FEWEST` utterances.
BETTER, WORSE, UNCLEAR, TOO_FEW = "better", "worse", "unclear", "too few"


def differences(rows: Mapping[str, Mapping[str, Any]], codecs: Sequence[str], seed: int = 0) -> list[dict[str, Any]]:
    """Each codec compared with the originals, and each but the first with the first codec.

    Args:
        rows: of a codec table, whose entries have `each`.

    Returns:
        `first` and `second` of each pair, and `scores` {number: `value` (second minus first), `ci95`, `n` (utterances that both
        have), `verdict` on the second}; numbers that one of them lacks are left out.
    """
    pairs = [(codecs[0], other) for other in codecs[1:]] + [(ORIGINAL, name) for name in codecs]
    return [{"first": first, "second": second, "scores": _scores(rows[first], rows[second], seed)} for first, second in pairs]


def _scores(first: Mapping[str, Any], second: Mapping[str, Any], seed: int) -> dict[str, Any]:
    found = {}
    for key, entry in second.items():
        other = first.get(key)
        if not isinstance(entry, Mapping) or not isinstance(other, Mapping) or "each" not in entry or "each" not in other:
            continue
        both = [
            (_part(a), _part(b)) for a, b in zip(other["each"], entry["each"], strict=True) if a is not None and b is not None
        ]
        if both:
            found[key] = _difference(key, [a for a, _ in both], [b for _, b in both], seed)
    return found


def _part(one: float | tuple[float, float]) -> tuple[float, float]:
    return (one[0], one[1]) if isinstance(one, tuple | list) else (one, 1)


def _difference(
    key: str, first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]], seed: int
) -> dict[str, Any]:
    found = paired_difference(first, second, seed=seed)
    value, ci95 = found.value, found.ci95 if len(first) >= FEWEST else None
    if value is None or ci95 is None:
        verdict = TOO_FEW
    elif ci95[0] <= 0 <= ci95[1]:
        verdict = UNCLEAR
    else:
        verdict = BETTER if (value > 0) == (better(key) == "larger") else WORSE
    return {"value": value, "ci95": ci95, "n": len(first), "verdict": verdict}
