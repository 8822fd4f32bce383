"""Two evaluations of the same conversations, rate by rate: how far apart they are, and whether chance explains it.

Conversations are paired by set and id, and resampled with both of their sides (`confidence.paired_difference`): what the two
sides have in common cancels out, so differences show that two separate intervals would hide.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nemo_duplex.evaluation.confidence import Estimate, paired_difference
from nemo_duplex.evaluation.report.number import SCHEMA_VERSION, better, interval, number, numbers, unit_of, written
from nemo_duplex.inputs import InputError, one_line

#: With fewer conversations no change can be shown at 95 %, even if all change the same way: 2 * 0.5 ** 5 is 0.0625 (sign test).
FEWEST = 6
_MOST_DRAWN = 20_000_000  # conversations drawn for one interval, as in `confidence`
#: Groups that do not depend on how the agent's speech was found in its sound.
_WITHOUT_VAD = {"answers", "judge", "gt_llm", "token_channel", "speech"}

Verdict = Literal["better", "worse", "changed", "no change can be shown", "too few conversations", "not comparable"]
Parts = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """One rate of one set on both sides.

    Args:
        key: of the rate in report.json.
        first, second: its values over the conversations that both sides have, and where somebody judged, that were judged on
            both; None where undefined.
        difference: second minus first, with the interval of 95 %; value None where it is undefined.
        conversations: how many of them count for this rate, on either side.
        verdict: what can be said; a change is better or worse where the rate has a good direction.
        why_not: why nothing can be said; "" where something can.
    """

    set_name: str
    key: str
    first: float | None
    second: float | None
    difference: Estimate
    conversations: int
    verdict: Verdict
    why_not: str = ""


@dataclass(frozen=True)
class Pairs:
    """The conversations of one set that are paired, and the ids of those that are not.

    Args:
        both: (first's, second's) entry of `conversations` of report.json.
        only_first, only_second: conversations of one side.
        different: of both sides, but with other user turns: not the same conversation.
    """

    both: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
    only_first: Sequence[str]
    only_second: Sequence[str]
    different: Sequence[str]


def read_report(path: str | Path, what: str) -> dict[str, Any]:
    """report.json of an evaluation's folder, or that file.

    Args:
        what: name of the argument, for errors.

    Raises:
        InputError: if it is missing, no report, or of another schema.
    """
    path = Path(path)
    file = path / "report.json" if path.is_dir() else path
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{what}: there is no {file}. Give the folder that examples/evaluate.py wrote.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{what}: {file} cannot be read as JSON ({one_line(error)}). Evaluate again.") from None
    if not isinstance(report, dict) or "schema_version" not in report:
        raise InputError(f"{what}: {file} has no schema_version: it is not the report.json of examples/evaluate.py.")
    if (found := report["schema_version"]) != SCHEMA_VERSION:
        cure = "Evaluate again." if found == 1 else "Read it with the nemo_duplex that wrote it."
        raise InputError(f"{what}: {file} has schema {found}, expected {SCHEMA_VERSION}. {cure}")
    for key in ("sets", "conversations"):
        if not isinstance(report.get(key), dict):
            raise InputError(f"{what}: {file} has no {key!r}: a part of it is missing. Evaluate again.")
    return report


def pair(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> Pairs:
    """Pairs conversations by their ids; of an id that occurs several times, the first with the first, and so on."""
    ours, theirs = dict(_by_id(first)), dict(_by_id(second))
    same: list[tuple[str, int]] = []
    different: list[tuple[str, int]] = []
    for key, one in ours.items():
        if key in theirs:
            (same if _same(one, theirs[key]) else different).append(key)
    return Pairs(
        [(ours[key], theirs[key]) for key in same],
        [name for name, count in ours if (name, count) not in theirs],
        [name for name, count in theirs if (name, count) not in ours],
        [name for name, _ in different],
    )


def _by_id(conversations: Sequence[Mapping[str, Any]]) -> Iterator[tuple[tuple[str, int], Mapping[str, Any]]]:
    seen: dict[str, int] = {}
    for one in conversations:
        seen[one["id"]] = seen.get(one["id"], 0) + 1
        yield (one["id"], seen[one["id"]]), one


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the user says the same at the same times, to a millisecond."""
    sides = [[(t["start"], t["end"], t.get("text", "")) for t in side.get("user", [])] for side in (one, other)]
    if len(sides[0]) != len(sides[1]) or abs(one["duration"] - other["duration"]) > 1e-3:
        return False
    return all(a[2] == b[2] and max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= 1e-3 for a, b in zip(*sides))


def compare(first: Mapping[str, Any], second: Mapping[str, Any], seed: int = 0) -> tuple[dict[str, Pairs], list[Comparison]]:
    """Compares the sets that both evaluations have.

    Args:
        first, second: as `read_report` returns them; the difference is second minus first.

    Returns:
        What was paired in each set, and each rate that a set has on both sides, in the order of report.json.

    Raises:
        InputError: if they have no set, or no conversation, in common.
    """
    shared = [name for name in first["conversations"] if name in second["conversations"]]
    if not shared:
        names = [", ".join(side["conversations"]) or "none" for side in (first, second)]
        raise InputError(f"The evaluations have no set in common: {names[0]}, and {names[1]}. Evaluate the same sets.")
    pairs = {name: pair(first["conversations"][name], second["conversations"][name]) for name in shared}
    if not any(one.both for one in pairs.values()):
        why = "the same ids, but other user turns" if any(one.different for one in pairs.values()) else "other ids"
        raise InputError(
            f"The evaluations have no conversation in common: {why} in {', '.join(shared)}. Evaluate the same sets."
        )
    found = []
    for name in shared:
        sides = [_parts(report, name, [one[i] for one in pairs[name].both]) for i, report in enumerate((first, second))]
        for key in [key for key in numbers(first["sets"][name]) if any(key in part for side in sides for part in side)]:
            scored = [(a[key], b[key]) for a, b in zip(*sides, strict=True) if key in a and key in b]
            parts = [[pair[i] for pair in scored] for i in (0, 1)]
            found.append(_comparison(name, key, parts[0], parts[1], _not_comparable((first, second), name, key), seed))
    return pairs, found


def _parts(report: Mapping[str, Any], name: str, kept: Sequence[Mapping[str, Any]]) -> list[dict[str, Parts]]:
    """What each of the `kept` conversations adds to each number: its `parts`, and what entries say of it."""
    everything = report["conversations"][name]
    scores: dict[int, dict[str, Parts]] = {id(one): {} for one in everything}
    for key, rated in _rated(report["sets"][name], ""):
        in_order = [rated.get(one["id"]) for one in everything] if isinstance(rated, Mapping) else rated
        assert len(in_order) == len(everything), f"{key}: {len(in_order)} scores of {len(everything)} conversations"
        for one, score in zip(everything, in_order, strict=True):
            if score is not None:
                scores[id(one)][key] = (score[0], score[1]) if isinstance(score, list | tuple) else (score, 1)
    return [{key: (a, b) for key, (a, b) in (scores[id(one)] | one.get("parts", {})).items()} for one in kept]


def _rated(tree: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """(key, what is said of each conversation) of the entries with `by_conversation`.

    That is a list in the order of the conversations, or a mapping by id; of each a score, or what is counted over what.
    """
    for name, entry in tree.items():
        if isinstance(entry, Mapping):
            if "by_conversation" in entry:
                yield f"{path}{name}", entry["by_conversation"]
            yield from _rated(entry, f"{path}{name}.")


def _comparison(name: str, key: str, first: list[Parts], second: list[Parts], why: str, seed: int) -> Comparison:
    before, after = _ratio(first), _ratio(second)
    counted = sum(a[1] > 0 or b[1] > 0 for a, b in zip(first, second, strict=True))

    def found(difference: Estimate, verdict: Verdict, why_not: str = "") -> Comparison:
        return Comparison(name, key, before, after, difference, counted, verdict, why_not)

    if before is None or after is None:
        missing = " and ".join(side for side, value in (("A", before), ("B", after)) if value is None)
        why = why or f"undefined in {missing}: nothing to count"
    if why:
        return found(Estimate(None, 0, None), "not comparable", why)
    resamples = min(10_000, max(1000, _MOST_DRAWN // max(1, len(first))))
    difference = paired_difference(first, second, resamples=resamples, seed=seed)
    if counted < FEWEST:
        return found(replace(difference, ci95=None), "too few conversations", f"{counted} of at least {FEWEST}")
    return found(difference, _verdict(key, difference))


def _ratio(parts: Sequence[Parts]) -> float | None:
    below = sum(b for _, b in parts)
    return sum(a for a, _ in parts) / below if below else None


def _verdict(key: str, difference: Estimate) -> Verdict:
    assert difference.ci95 is not None and difference.value is not None
    low, high = difference.ci95
    if low <= 0 <= high:
        return "no change can be shown"
    direction = better(key)
    if direction is None:
        return "changed"
    return "better" if (difference.value > 0) == (direction == "larger") else "worse"


def _not_comparable(sides: tuple[Mapping[str, Any], Mapping[str, Any]], name: str, key: str) -> str:
    """Why a number of the two sides was not made in the same way; "" if it was."""
    here = [number(side["sets"][name], key) for side in sides]
    for letter, one in zip("AB", here):
        if one.why_not:
            return f"{letter} was not measured: {one.why_not}"
    scorers = [_scorer(side, one.scorer) for side, one in zip(sides, here)]
    if scorers[0] != scorers[1]:
        return f"A is by {scorers[0] or 'no scorer'}, B by {scorers[1] or 'no scorer'}"
    if key.split(".")[0] in _WITHOUT_VAD:
        return ""
    vads = [_vad(side) for side in sides]
    if vads[0] != vads[1]:
        return f"the agent's speech was found by {vads[0]} in A, by {vads[1]} in B"
    rules = [side["provenance"].get("rules") for side in sides]
    return "" if rules[0] == rules[1] else "the rules of turn-taking differ"


def _scorer(report: Mapping[str, Any], name: str | None) -> str:
    """Name, version and weights of a scorer; "" for none."""
    if name is None:
        return ""
    about = report.get("scorers", {}).get(name, {})
    weights = about.get("sha256")
    return " ".join(filter(None, [name, about.get("version"), f"({weights[:8]})" if weights else ""]))


def _vad(report: Mapping[str, Any]) -> str:
    about = report["provenance"]
    vad = str(about.get("vad"))
    return " ".join(filter(None, [vad, about.get("versions", {}).get(f"{vad}-vad")]))


def comparison_table(pairs: Mapping[str, Pairs], found: Sequence[Comparison]) -> str:
    """The comparison as text: a row for each rate, and before them what was paired."""
    lines = [line for name, one in pairs.items() for line in paired_lines(name, one)]
    for name in pairs:
        rows = [("", "A", "B", "B - A", "95 %", "conversations", "")]
        rows += [(c.key, *cells_of(c)) for c in found if c.set_name == name]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines += ["", name]
        lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", note(found)])


def paired_lines(name: str, one: Pairs) -> list[str]:
    """How many conversations of a set are compared, and which are not."""
    lines = [f"{name}: {len(one.both)} conversations on both sides"]
    for ids, what in (
        (one.only_first, "in A alone"),
        (one.only_second, "in B alone"),
        (one.different, "with other user turns"),
    ):
        if ids:
            more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
            lines.append(f"{name}: left out, {len(ids)} {what}: {', '.join(ids[:5])}{more}")
    return lines


def cells_of(c: Comparison) -> tuple[str, str, str, str, str, str]:
    """A, B, the difference (of shares in points), its interval, conversations, and what can be said."""
    unit = unit_of(c.key)
    said = f"{c.verdict}: {c.why_not}" if c.why_not else c.verdict
    points = interval({"ci95": c.difference.ci95}, unit).replace("%", "points")
    return written(c.first, unit), written(c.second, unit), _difference(c), points, str(c.conversations), said


def _difference(c: Comparison) -> str:
    value, unit = c.difference.value, unit_of(c.key)
    if value is None:
        return "–"
    return f"{100 * value:+.1f} points" if unit == "%" else f"{value:+.2f}" + (" s" if unit else "")


def note(found: Sequence[Comparison]) -> str:
    """What to bear in mind: among many rates, some differ by chance."""
    compared = sum(c.difference.ci95 is not None for c in found)
    return (
        f"{compared} rates were compared at 95 %: if nothing had changed, about {compared / 20:.0f} of them would differ by "
        "chance. Conversations are resampled with both sides."
    )
