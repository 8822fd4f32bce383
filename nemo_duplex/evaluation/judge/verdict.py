"""The scores out of a judge's reply: exactly what was asked for, or the reason why there are none. Never a guess, never 0."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.synthesis.writing.replies import NOT_JSON, without_thoughts

LOWEST, HIGHEST = 0, 10

NO_SCORE = "a reply without a score"
NO_NUMBER = "a score that is no number"
OUT_OF_RANGE = "a score out of its range"
OTHER_TURNS = "scores for another number of turns"
_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Verdict:
    """What a judge gave a conversation.

    Args:
        score: of the conversation, 0 to 10.
        per_turn: of each turn, 0 to 10; None where the judge gave none.
        reason: in the judge's words; "" where it gave none.

    Examples:
        >>> read_verdict('{"per_turn": [9, 4], "score": 6, "reason": "One answer is wrong."}', num_turns=2).score
        6.0
    """

    score: float
    per_turn: tuple[float, ...] | None = None
    reason: str = ""


def read_verdict(reply: str, num_turns: int, highest: float = HIGHEST) -> Verdict:
    """The verdict in a reply that is one JSON object, alone or fenced, maybe after thoughts in `<think>`.

    No other text is searched for numbers: "8/10" in a sentence may be a quotation. The judge is not asked to mend its reply:
    that conversation would be judged by another prompt than the others.

    Args:
        num_turns: of which `per_turn` has scores, if it is there.
        highest: score; the lowest is 0.

    Raises:
        OddRow: if the reply is something else, a score is no number or out of its range, or `per_turn` has another length.
    """
    text = without_thoughts(reply).strip()
    if fenced := _FENCED.fullmatch(text):
        text = fenced[1]
    try:
        value = json.loads(text, strict=False, object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError):
        raise OddRow(NOT_JSON, repr(reply[:80])) from None
    if not isinstance(value, dict):
        raise OddRow(NOT_JSON, repr(reply[:80]))
    if value.get("score") is None:
        raise OddRow(NO_SCORE, repr(reply[:80]))
    score, per_turn = _number(value["score"], highest), value.get("per_turn")
    if per_turn is not None:
        if not isinstance(per_turn, list) or len(per_turn) != num_turns:
            raise OddRow(OTHER_TURNS, f"expected {num_turns}, got {per_turn!r:.80}")
        per_turn = tuple(_number(given, highest) for given in per_turn)
    reason = value.get("reason")
    return Verdict(score, per_turn, reason if isinstance(reason, str) else "")


def _number(value: Any, highest: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value if isinstance(value, float) else 0):
        raise OddRow(NO_NUMBER, f"{value!r:.80}")
    if not LOWEST <= value <= highest:
        raise OddRow(OUT_OF_RANGE, f"{value!r:.80}")
    return float(value)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)
