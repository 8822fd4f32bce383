"""The formulas of Full-Duplex-Bench v3 (arXiv 2604.04847, and its scripts of May 2026): were the right tools called, and when.

Without a language model that judges, arguments are compared as texts: that is what the official scripts do without `--use-llm`.
The published figures are gpt-4o's, which is kinder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from nemo_duplex.evaluation.full_duplex_bench.transcript import TimedWord
from nemo_duplex.frames import Seconds

#: A longer pause ends the user's first turn.
_TURN_GAP: Seconds = 2.0
_FROM_A_RESULT = "$"  # begins an argument that comes from what an earlier call returned


class Call(NamedTuple):
    """A call of a tool; `start` is when, in Seconds of the recording, where that is known."""

    function: str
    arguments: dict[str, Any]
    start: Seconds | None = None


class ToolScores(NamedTuple):
    """Of one scenario.

    Args:
        selection: F1 of the tools that were called.
        arguments: share of the expected calls that were made with the right arguments.
        passed: whether the right tools and no others were called, all with the right arguments.
    """

    selection: float
    arguments: float
    passed: bool


def tool_scores(expected: Sequence[Call], made: Sequence[Call]) -> ToolScores:
    """Compares calls, each expected one with the first of its tool that is left.

    Examples:
        >>> calls = [Call("track_order", {"order_id": "a7 "}), Call("add_to_cart", {})]
        >>> tool_scores([Call("track_order", {"order_id": "A7"})], calls)
        ToolScores(selection=0.6666666666666666, arguments=1.0, passed=False)
    """
    pairs = list(_paired(expected, made))
    both = sum(call is not None for _, call in pairs)
    recall = both / len(expected) if expected else 1.0
    precision = both / len(made) if made else 1.0
    right = [call is not None and same_arguments(wanted.arguments, call.arguments) for wanted, call in pairs]
    return ToolScores(
        2 * recall * precision / (recall + precision) if recall + precision else 0.0,
        sum(right) / len(right) if right else 1.0,
        both == len(made) and all(right),
    )


def _paired(expected: Sequence[Call], made: Sequence[Call]) -> Iterator[tuple[Call, Call | None]]:
    left = list(made)
    for wanted in expected:
        call = next((call for call in left if call.function == wanted.function), None)
        if call is not None:
            left.remove(call)
        yield wanted, call


def same_arguments(expected: dict[str, Any], given: dict[str, Any]) -> bool:
    """Whether all expected arguments are there and the same, but for capitals, blanks around them and underscores.

    Those that come from an earlier call (`$RESULT_0.flight_id`) must be there; more arguments than expected do no harm.
    """
    return all(
        name in given and (_is_from_a_result(value) or _plain(value) == _plain(given[name])) for name, value in expected.items()
    )


def end_of_first_turn(words: Sequence[TimedWord]) -> Seconds | None:
    """When the user's first turn ends: before the first pause of more than 2 s; None without words."""
    for word, following in zip(words, words[1:]):
        if following.start - word.last > _TURN_GAP:
            return word.last
    return words[-1].last if words else None


def _is_from_a_result(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(_FROM_A_RESULT)


def _plain(value: Any) -> Any:
    return value.lower().strip().replace("_", " ") if isinstance(value, str) else value
