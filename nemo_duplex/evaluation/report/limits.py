"""Limits that numbers of an evaluation must keep, for CI: an agent that got worse fails the build.

A limit is a key of report.json and a number: `barge_in.success_rate: 0.9` for every set, `dev.barge_in.success_rate: 0.9` for
one. A number that is undefined, or that was not measured, does not keep its limit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from nemo_duplex.evaluation.report.number import Number, number, numbers, unit_of, written
from nemo_duplex.inputs import InputError, did_you_mean

#: What is compared with a limit: the number itself, or the end of its interval that is nearer to the limit.
Bound = Literal["value", "interval"]


def known_limits(limits: Mapping[str, Any], name: str, sets: Collection[str], known: Collection[str]) -> dict[str, float]:
    """The limits by key, as far as they can be checked before anything runs.

    Args:
        limits: as given; a key may be written in parts: {"barge_in": {"success_rate": 0.9}}.
        name: of the key that holds them ("fail_under").
        sets: names of the sets that are evaluated.
        known: keys of the numbers that an evaluation can have; `judge.*` for all keys of a group, or of a part of it.

    Raises:
        InputError: for a key that no set has, with the nearest one; for a limit that is no number, or a share above 1.
    """
    found = dict(_flat(limits, ""))
    for key, limit in found.items():
        _places(key, name, sets, known)
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not math.isfinite(limit):
            raise InputError(f"{name}: {key}={limit!r}: expected a number, such as 0.9.")
        if unit_of(key) == "%" and abs(limit) > 1 and not key.endswith(("wer", "cer")):
            raise InputError(f"{name}: {key}={limit:g}: expected a share from 0 to 1. {limit:g} % is {limit / 100:g}.")
    return {key: float(limit) for key, limit in found.items()}


def check_limits(
    report: Mapping[str, Any],
    fail_under: Mapping[str, Any] | None = None,
    fail_over: Mapping[str, Any] | None = None,
    bound: Bound = "value",
) -> list[str]:
    """What does not keep its limit, one line each; empty if all do.

    Args:
        report: as `evaluate` returns it.
        fail_under, fail_over: the smallest and the largest number that pass; the limit itself passes.
        bound: `value`: the number as printed; `interval`: the lower end of its 95 % interval for `fail_under`, the upper for
            `fail_over`, so that it passes only if it is known to keep its limit.

    Raises:
        InputError: as `known_limits`.

    Examples:
        >>> rate = {"value": 0.85, "n": 20, "ci95": [0.64, 0.95]}
        >>> check_limits({"sets": {"dev": {"barge_in": {"success_rate": rate}}}}, {"barge_in.success_rate": 0.9})
        ['dev: barge_in.success_rate is 85.0 % (n 20), under 90.0 %']
    """
    sets = report["sets"]
    known = list(dict.fromkeys(key for groups in sets.values() for one in numbers(groups).values() for key in _keys(one)))
    failures = []
    for name, limits in (("fail_under", fail_under or {}), ("fail_over", fail_over or {})):
        for key, limit in known_limits(limits, name, sets, known).items():
            for set_name, rest in _places(key, name, sets, known):
                if why := _failure(number(sets[set_name], rest), limit, name == "fail_under", bound):
                    failures.append(f"{set_name}: {rest} {why}")
    return failures


def _keys(one: Number) -> list[str]:
    """The key of a number; a group that was not measured as a whole has any keys."""
    return [one.key, f"{one.key}.*"] if one.why_not and "." not in one.key else [one.key]


def _flat(limits: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, limit in limits.items():
        if isinstance(limit, Mapping):
            yield from _flat(limit, f"{path}{key}.")
        else:
            yield f"{path}{key}", limit


def _places(key: str, name: str, sets: Collection[str], known: Collection[str]) -> list[tuple[str, str]]:
    """(set, key of its number) of what a limit is for."""
    if _is_known(key, known):
        return [(one, key) for one in sets]
    for one in sets:
        rest = key.removeprefix(f"{one}.")
        if rest != key and _is_known(rest, known):
            return [(one, rest)]
    own = next((one for one in sets if key.startswith(f"{one}.")), None)
    advice = did_you_mean(key.removeprefix(f"{own}.") if own else key, known)
    sets_there = f" The sets are {', '.join(sets)}."
    raise InputError(f"{name}: no number is called {key!r}.{advice or ' report.json lists them, in sets.'}{sets_there}")


def _is_known(key: str, known: Collection[str]) -> bool:
    return key in known or any(f"{group}.*" in known for group in _above(key))


def _above(key: str) -> Iterator[str]:
    """The groups that a key is in: of `answers.families.echo.seen`, first `answers`."""
    parts = key.split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts)))


def _failure(found: Number, limit: float, under: bool, bound: Bound) -> str | None:
    """Why a number does not keep its limit; None if it does."""
    if found.why_not:
        return f"was not measured: {found.why_not}"
    if found.value is None:
        return "is undefined: nothing was counted (n 0)"
    compared, text = found.value, found.text
    if bound == "interval":
        if found.ci95 is None:
            return f"is {text}, with no interval: too few conversations, or a plain count"
        compared = found.ci95[0] if under else found.ci95[1]
        text = f"{text} (95 %: {found.interval})"
    if compared >= limit if under else compared <= limit:
        return None
    counted = "" if found.n is None else f" (n {found.n:g})"
    asked = written(limit, found.unit)
    if text == asked:  # they differ in digits that are not written
        text, asked = f"{compared:.6g}", f"{limit:.6g}"
    return f"is {text}{counted}, {'under' if under else 'over'} {asked}"
