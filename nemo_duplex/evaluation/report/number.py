"""One number of report.json, found by its key and written for people.

Keys are the places of the numbers in a set, joined by dots: `barge_in.success_rate`. Whatever a group of the report holds is
found: a new group needs no change here. A number that is missing is one that was not measured; it is never 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: Increased when a key of report.json changes its place or meaning.
SCHEMA_VERSION = 2

Unit = Literal["%", "s", ""]

_SHARES = ("rate", "wer", "wer_gap", "cer", "ratio", "recall", "exact_match", "contains_answer")
_SHARE_GROUPS = {"answers", "answers_by_ear"}
_TIMES = (
    "latency",
    "resume_time",
    "offset",
    "monologue",
    "monologue_of_all",
    "onset_difference",
    "offset_difference",
    "lead",
    "timer_wait",
)
#: Numbers that are told apart by their third digit.
_FINE = ("stoi", "mel_distance")
#: Numbers that are better when they are larger, and when they are smaller, by the end of their key or by their group.
_LARGER = (
    *("success_rate", "yield_rate", "recall", "resume_rate", "went_on_rate", "ignored_rate"),
    *("utmos", "distillmos", "dnsmos", "squim", "secs", "stoi", "pesq", "si_sdr"),
)
_LARGER_GROUPS = {"answers", "answers_by_ear", "judge", "gt_llm"}
_SMALLER = (
    *("latency", "missing_rate", "early_rate", "takeover_rate", "onset_rate", "answered_rate", "echo_interruption_rate"),
    *("unprompted_rate", "runaway_rate", "fp_rate", "wer", "wer_gap", "cer", "mel_distance"),
)
_SMALLER_GROUPS = {"false_alarm"}
#: What describes the test set, not the agent.
_DESCRIPTIVE = {"never_listens", "telling", "counts", "reference_wer"}


@dataclass(frozen=True)
class Number:
    """An entry of report.json.

    Args:
        key: `barge_in.success_rate`.
        value: None where it is undefined or was not measured.
        n: what it was counted over; None for a plain count.
        ci95: interval of 95 %.
        scorer: name of what made it, where somebody judged; described in `scorers` of report.json.
        why_not: the reason why it was not measured; None where it was.
        not_trusted: why it should not be believed (a judge that fails its calibration).

    Examples:
        >>> found = numbers({"barge_in": {"success_rate": {"value": 0.945, "n": 200, "ci95": (0.904, 0.969)}}})
        >>> found["barge_in.success_rate"].text, found["barge_in.success_rate"].interval
        ('94.5 %', '90.4 to 96.9 %')
    """

    key: str
    value: float | None = None
    n: float | None = None
    ci95: tuple[float, float] | None = None
    scorer: str | None = None
    why_not: str | None = None
    not_trusted: str | None = None

    @property
    def unit(self) -> Unit:
        """How it is written: a share in percent, a time in Seconds, or as it is."""
        return unit_of(self.key)

    @property
    def text(self) -> str:
        """ "94.5 %"; a dash where it is undefined."""
        return written(self.value, self.unit, digits_of(self.key))

    @property
    def interval(self) -> str:
        """ "90.4 to 96.9 %"; "" where there is none."""
        return interval({"ci95": self.ci95}, self.unit, digits_of(self.key))


def numbers(groups: Mapping[str, Any]) -> dict[str, Number]:
    """All numbers of a set of report.json by their keys, in its order. Lists and texts are no numbers."""
    return {number.key: number for number in _walk(groups, "")}


def number(groups: Mapping[str, Any], key: str) -> Number:
    """The number at a key; one that is not there was not measured, for the reason that its group names."""
    found = numbers(groups)
    if key in found:
        return found[key]
    above = [group for group in found.values() if group.why_not and key.startswith(f"{group.key}.")]
    return Number(key, why_not=above[0].why_not if above else "not measured")


def _walk(tree: Mapping[str, Any], path: str, inside: bool = False) -> Iterator[Number]:
    """`inside`: of an entry, beside whose own keys there may be other entries (its `reference`) and nothing else."""
    for name, entry in tree.items():
        key = f"{path}{name}"
        if isinstance(entry, Mapping) and ("value" in entry or "not_run" in entry):
            yield _number(key, entry)
            yield from _walk(entry, f"{key}.", inside=True)
        elif inside:
            continue
        elif isinstance(entry, Mapping):
            yield from _walk(entry, f"{key}.")
        elif entry is None or isinstance(entry, int | float) and not isinstance(entry, bool):
            yield Number(key, entry)


def _number(key: str, entry: Mapping[str, Any]) -> Number:
    ci95 = entry.get("ci95")
    return Number(
        key,
        entry.get("value"),
        entry.get("n", 0),
        (ci95[0], ci95[1]) if ci95 else None,
        entry.get("scorer"),
        entry.get("not_run"),
        entry.get("not_trusted"),
    )


def unit_of(key: str) -> Unit:
    """The unit of a number, told by its key: the last part of it, or its group, if all in it are shares."""
    parts = key.split(".")
    last = parts[-1]
    if last.endswith(_TIMES):
        return "s"
    if any(part.startswith("rate") for part in parts) or last.endswith(_SHARES) or _SHARE_GROUPS & {*parts}:
        return "%"
    return ""


def digits_of(key: str) -> int:
    """Digits after the point of a number that is neither a share nor a time."""
    return 3 if key.endswith(_FINE) else 2


def better(key: str) -> Literal["larger", "smaller"] | None:
    """Which way a number improves; None where it only describes (overlaps per minute)."""
    parts = key.split(".")
    if _DESCRIPTIVE & {*parts}:
        return None
    if parts[-1].endswith(_LARGER) or "bleu" in parts[-1] or key == "response.rate" or _LARGER_GROUPS & {*parts}:
        return "larger"
    return "smaller" if parts[-1].endswith(_SMALLER) or _SMALLER_GROUPS & {*parts} else None


def written(value: float | None, unit: Unit, digits: int = 2) -> str:
    """A number with its unit; a dash where it is undefined."""
    if unit == "%":
        return percent(value)
    if unit == "s":
        return seconds(value)
    if value is None:
        return "–"
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as "94.5 %"; a dash where it is undefined."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def seconds(value: float | None) -> str:
    """A time as "0.69 s"; a dash where it is undefined."""
    return "–" if value is None else f"{value:.2f} s"


def interval(estimate: Mapping[str, Any], unit: str, digits: int = 2) -> str:
    """A 95 % interval as "94.1 to 99.8 %"; empty where there is none."""
    if not estimate["ci95"]:
        return ""
    low, high = estimate["ci95"]
    if unit == "%":
        return f"{100 * low:.1f} to {100 * high:.1f} %"
    digits = 2 if unit == "s" else digits
    return f"{low:.{digits}f} to {high:.{digits}f}" + (" s" if unit == "s" else "")
