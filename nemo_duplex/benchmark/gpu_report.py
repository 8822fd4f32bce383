"""What a GPU check found, beside what is expected of it: reached, missed, or not run and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from nemo_duplex.benchmark.gpu_check import tick_floors
from nemo_duplex.benchmark.table import Table, callers_in_words, measured_on, milliseconds
from nemo_duplex.benchmark.utilisation import published_peak, utilisation
from nemo_duplex.frames import Seconds

#: Our training step in both ways, and NeMo's: parts, and the names of their columns.
_OURS = {"training": "nemo_duplex, activations recomputed", "training_kept": "nemo_duplex, activations kept"}
_STEPS = {"in_tree": "NeMo in-tree", **_OURS}
#: A row of ticks without figures: its key, and the word for it.
_WITHOUT = {"out_of_memory": "out of memory", "error": "failed", "not_run": "not run"}


class NotRun(Exception):
    """A figure that there is not, and why."""


class Expected(NamedTuple):
    """A figure of the check, and what is expected of it.

    Args:
        what, limit: in words.
        reached: whether a figure is as expected.
        figure: result -> the figure, and how it is written.
        full_size: whether it is expected of the paper's size in bf16 alone.
    """

    what: str
    limit: str
    reached: Callable[[float], bool]
    figure: Callable[[Mapping[str, Any]], tuple[float, str]]
    full_size: bool = True


def _p99(callers: int) -> Callable[[Mapping[str, Any]], tuple[float, str]]:
    def figure(result: Mapping[str, Any]) -> tuple[float, str]:
        part = _part(result, "ticks")
        row = next((row for row in part.get("rows", ()) if row["callers"] == callers), None)
        if row is None:
            raise NotRun(part.get("error", f"callers={result['setting']['callers']} has no {callers}"))
        if "out_of_memory" in row:
            return math.inf, "out of memory"
        if "p99" not in row:
            raise NotRun(row.get("error") or row["not_run"])
        return row["p99"], milliseconds(row["p99"])

    return figure


def _best_mfu(result: Mapping[str, Any]) -> tuple[float, str]:
    found, why = [], []
    for name, words in _OURS.items():
        try:
            found.append((*_mfu(result, name), words))
        except NotRun as error:
            why.append(f"{name}: {error}")
    if not found:
        raise NotRun("; ".join(why))
    share, of, words = max(found)
    return share, f"{share:.1%} of {of} ({words.split(', ')[1]})"


def _mfu(result: Mapping[str, Any], name: str) -> tuple[float, str]:
    """MFU of a training step, 0 to 1, and of which rate: the published peak or, where it is not known, the measured one."""
    part = _part(result, name)
    if "frames_per_second" not in part:
        raise NotRun(part.get("error", "it has no figures"))
    peaks = _peaks(result)
    if not peaks or (counted := _operations(result)) is None:
        raise NotRun(_why_uncounted(result))
    of, peak = next(iter(peaks.items()))
    return utilisation(part["frames_per_second"], counted, peak), of


def _failed_tests(result: Mapping[str, Any]) -> tuple[float, str]:
    part = _part(result, "tests")
    if "failed" not in part:
        raise NotRun(part.get("error", "it has no figures"))
    if not part["passed"] + part["failed"]:
        raise NotRun(f"all {part['skipped']} were skipped")
    return part["failed"], f"{part['failed']} of {part['passed'] + part['failed']}"


#: The issue's figures. Of one caller p99 too, the stricter reading.
EXPECTED = (
    Expected("256 callers, p99 of a tick", "< 40 ms", lambda seconds: seconds < 0.040, _p99(256)),
    Expected("one caller, p99 of a tick", "<= 5 ms", lambda seconds: seconds <= 0.005, _p99(1)),
    Expected("MFU of our training step, the better way", ">= 39 %", lambda share: share >= 0.39, _best_mfu),
    Expected("GPU tests that fail", "0", lambda failed: failed == 0, _failed_tests, full_size=False),
)


def verdicts(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """Of each expected figure `what`, `expected`, `measured`, `verdict` (reached, missed, not run) and, if not run, `why`.

    Args:
        result: as `gpu_check.check_gpu` returns it, or what there is of it.
    """
    return [{"what": one.what, "expected": one.limit, **_verdict(result, one)} for one in EXPECTED]


def _verdict(result: Mapping[str, Any], expected: Expected) -> dict[str, str]:
    setting = result["setting"]
    try:
        figure, words = expected.figure(result)
    except NotRun as error:
        return {"measured": "", "verdict": "not run", "why": str(error)}
    given = (setting["device"], setting["size"], setting["precision"])
    if given[0] != "cuda" or expected.full_size and given != ("cuda", "paper", "bf16"):
        why = "expected of device=cuda" + " size=paper precision=bf16" * expected.full_size
        return {"measured": words, "verdict": "not run", "why": why}
    return {"measured": words, "verdict": "reached" if expected.reached(figure) else "missed"}


def _part(result: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part that has run, whether all of it could be had or not."""
    if name not in result["parts"]:
        asked = name in result["setting"]["parts"]
        raise NotRun(f"the part {name} has not run yet" if asked else f"parts= is without {name}")
    part = result["parts"][name]
    if part["state"] == "not run":
        raise NotRun(part["why"])
    return part


def _counted(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Our steps that were counted: their operations are those of NeMo's model too, which has the same size."""
    return [part for name in _OURS if "matmul_rate" in (part := result["parts"].get(name, {}))]


def _operations(result: Mapping[str, Any]) -> float | None:
    return next((part["operations_per_frame"] for part in _counted(result) if "operations_per_frame" in part), None)


def _why_uncounted(result: Mapping[str, Any]) -> str:
    reasons = [part["operations_error"] for part in _counted(result) if "operations_error" in part]
    return (
        f"operations could not be counted: {reasons[0]}"
        if reasons
        else "operations are counted with our step, which has not run"
    )


def _peaks(result: Mapping[str, Any]) -> dict[str, float]:
    """Rates that a step is held against, by name; the one that counts is the first."""
    published = published_peak(result["device_name"], result["setting"]["precision"])
    measured = max((part["matmul_rate"] for part in _counted(result)), default=None)
    found = {"the published peak": published, "a large product's rate": measured}
    return {name: rate for name, rate in found.items() if rate}


# --- tables -------------------------------------------------------------------------------------------------------------


def gpu_tables(result: Mapping[str, Any]) -> list[Table]:
    """The verdicts, what became of each part, and the figures of those that have some."""
    setting, parts = result["setting"], result["parts"]
    found = verdicts(result)
    about = [measured_on(result), f"size {setting['size']}, precision {setting['precision']}, device {setting['device']}"]
    why = [f"{one['what']}: not run: {one['why']}" for one in found if "why" in one]
    rows = [(f"{one['what']} {one['expected']}", one["measured"], one["verdict"]) for one in found]
    tables = [
        Table("What is expected", [*about, *why], ("expected", "measured", "verdict"), rows),
        Table("Parts", [], ("part", "took"), [_line(name, parts[name]) for name in parts]),
    ]
    if "rows" in parts.get("ticks", {}):
        tables.append(_ticks_table(result))
    if any("step_seconds" in parts.get(name, {}) for name in _STEPS):
        tables.append(_training_table(result))
    if "failed" in parts.get("tests", {}):
        tests = parts["tests"]
        counts = tuple(str(tests[kind]) for kind in ("passed", "failed", "skipped"))
        tables.append(Table("GPU tests", tests["failures"], ("passed", "failed", "skipped"), [counts]))
    return tables


def _line(name: str, part: Mapping[str, Any]) -> tuple[str, str]:
    """What became of a part, in one line."""
    why = part.get("why") or part.get("error")
    return f"{name}: {part['state']}" + f": {why}" * bool(why), f"{part['took']:.0f} s" if "took" in part else ""


def _ticks_table(result: Mapping[str, Any]) -> Table:
    part, setting = result["parts"]["ticks"], result["setting"]
    graphs = "with CUDA graphs, which are captured while the engine opens" * (setting["device"] == "cuda")
    about = [text for text in (part.get("what"), f"{setting['ticks']} ticks each", graphs) if text]
    if "work" in part:
        about.append(
            "floor: the mean tick's weights and what callers remember over the bandwidth of a copy, "
            f"{part['copy_bandwidth'] / 1e9:,.0f} GB/s; arithmetic: over a large product's rate, "
            f"{part['matmul_rate'] / 1e12:,.3g} TFLOP/s"
        )
    elif "work_error" in part:
        about.append(f"floor: not known: {part['work_error']}")
    about += [
        f"{callers_in_words(row['callers'])}: {word}: {row[key]}"
        for row in part["rows"]
        for key, word in _WITHOUT.items()
        if key in row
    ]
    rows = [tuple(_ticks_row(part, row)) for row in part["rows"]]
    columns = ("callers", "p50", "p99", "floor", "arithmetic", "p50 to floor", f"memory, {setting['device']}", "engine opened")
    return Table("Ticks", about, columns, rows)


def _ticks_row(part: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[str]:
    yield str(row["callers"])
    if "p50" not in row:
        yield next(word for key, word in _WITHOUT.items() if key in row)
        yield from [""] * 6
        return
    yield from map(milliseconds, (row["p50"], row["p99"]))
    if "work" in part:
        floors = tick_floors(part, row)
        yield from map(milliseconds, floors)
        yield f"{row['p50'] / max(floors):.1f} x"
    else:
        yield from [""] * 3
    yield f"{row['peak_bytes'] / 1e9:.2f} GB"
    yield f"{row['opened']:.1f} s"


def _training_table(result: Mapping[str, Any]) -> Table:
    setting, parts = result["setting"], result["parts"]
    steps = {name: parts[name] for name in _STEPS if "step_seconds" in parts.get(name, {})}
    about = [
        f"{setting['batch']} conversations of {setting['seconds']:g} s, median of {setting['steps']} steps; random weights, "
        "the same sizes and audio",
    ]
    if (operations := _operations(result)) is not None:
        parameters = next(part["product_parameters"] for part in _counted(result))
        about.append(
            f"MFU: {operations / 1e9:,.3g} GFLOP a frame, counted without what runs again (6 N alone: "
            f"{6 * parameters / 1e9:,.3g}), "
            + " and ".join(f"over {name}, {rate / 1e12:,.3g} TFLOP/s" for name, rate in _peaks(result).items())
        )
    elif steps.keys() & _OURS.keys():
        about.append(f"MFU: {_why_uncounted(result)}")
    forms: list[tuple[str, str, Callable[[float], str]]] = [
        ("step", "step_seconds", "{:.3f} s".format),
        ("frames per second", "frames_per_second", "{:,.0f}".format),
        ("peak memory", "peak_bytes", lambda size: f"{size / 1e9:.2f} GB"),
        ("of it in a step", "step_bytes", lambda size: f"{size / 1e9:.2f} GB"),
    ]
    rows = [(words, *(form(step[key]) for step in steps.values())) for words, key, form in forms]
    if operations is not None:
        for name, rate in _peaks(result).items():
            shares = (utilisation(step["frames_per_second"], operations, rate) for step in steps.values())
            rows.append((f"MFU, of {name}", *(f"{share:.1%}" for share in shares)))
    return Table("A training step", about, ("", *(_STEPS[name] for name in steps)), rows)


def failed(result: Mapping[str, Any]) -> bool:
    """Whether a part failed; one that was not run, or a figure that was missed, is none."""
    return any(part["state"] == "failed" for part in result["parts"].values())


def seconds_taken(result: Mapping[str, Any]) -> Seconds:
    """What all parts took together."""
    return sum(part.get("took", 0.0) for part in result["parts"].values())
