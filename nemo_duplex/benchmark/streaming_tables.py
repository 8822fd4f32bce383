"""The figures of `benchmark_streaming` as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nemo_duplex.benchmark.concurrency import BUDGET
from nemo_duplex.benchmark.stages import STAGES, Work
from nemo_duplex.benchmark.table import Table, milliseconds

_MODES = {
    "spread": "came at different times",
    "together": "came in one frame",
    "at_once": "an encoder chunk's frames at once",
}


def tables(result: Mapping[str, Any]) -> list[Table]:
    """What was measured, in the order of the parts."""
    makers = {"sessions": _sessions, "stages": _stages, "in_tree": _in_tree, "age": _age}
    return [table for part, make in makers.items() if part in result for table in make(result)]


def _sessions(result: Mapping[str, Any]) -> Iterator[Table]:
    part, setting = result["sessions"], result["setting"]
    alone, most = part["alone"], part["most"]
    about = [
        *part["about"],
        _where(result),
        f"one caller in pushes of 80 ms, answered at once: real-time factor {alone['mean'] / BUDGET:.3f}; pushes that bring "
        f"two frames take {milliseconds(alone['p95'])} (p95) to {milliseconds(alone['p99'])} (p99)",
        f"{most['spread']} sessions have 99 of 100 ticks within 80 ms ({most['together']} if all came in one frame, "
        f"{most['at_once']} if both frames of an encoder chunk are made at once); {setting['ticks']} ticks each",
    ]
    rows: list[tuple[str, ...]] = [
        (words, str(seen["sessions"]), *_quantiles(seen), "yes" if seen["in_time"] else "no")
        for mode, words in _MODES.items()
        for seen in part[mode]
    ]
    yield Table("Sessions in time", about, ("callers", "sessions", "p50", "p95", "p99", "in time"), rows)
    for sessions in sorted({1, most["spread"]} - {0}):
        seen = next(t["stages"] for t in part["spread"] if t["sessions"] == sessions)
        rows = [(stage, *_quantiles(times), f"{times['p50'] / BUDGET:.1%}") for stage, times in seen.items()]
        columns = ("stage", "p50", "p95", "p99", "p50 of 80 ms")
        yield Table(f"Stages with {_callers(sessions)}", [], columns, rows)


def _stages(result: Mapping[str, Any]) -> Iterator[Table]:
    part, setting = result["stages"], result["setting"]
    copied, rate = part["copy_bandwidth"], part["matmul_rate"]
    work = {stage: Work(**part["work"][stage]) for stage in STAGES}
    options = [name for name in ("int8", "compile", "cuda_graphs") if setting[name]]
    about = [
        ", ".join([part["what"], f"precision {setting['precision']}", *options]),
        _where(result),
        f"floor: the stage's weights over the bandwidth of a copy, {copied / 1e9:,.1f} GB/s of bytes read and written "
        f"(reading alone: {part['read_bandwidth'] / 1e9:,.1f} GB/s)",
        "with callers: the same with what callers remember; arithmetic: operations of all callers over the rate of a large "
        f"product of matrices, {rate / 1e9:,.0f} GFLOP/s",
    ]
    rows: list[tuple[str, ...]] = []
    ticks: list[tuple[str, ...]] = []
    for batch in part["batches"]:
        seen, callers = batch["ticks"], batch["ticks"]["sessions"]
        for stage in STAGES:
            times, floor = seen["stages"][stage], work[stage].reading(0, copied)
            least = (floor, work[stage].reading(callers, copied), work[stage].computing(callers, rate))
            took = map(milliseconds, (times["p50"], times["p99"]))
            weights, ratio = f"{work[stage].weights / 1e6:,.1f} MB", f"{times['p50'] / floor:.1f} x"
            rows.append((f"{stage}, {_callers(callers)}", *took, weights, *map(milliseconds, least), ratio))
        runs = {stage: seen["stages"][stage]["count"] / seen["count"] for stage in STAGES}
        floor = sum(work[stage].reading(callers, copied) * runs[stage] for stage in STAGES)
        ticks.append((str(callers), *_quantiles(seen), milliseconds(floor), f"{batch['peak_bytes'] / 1e9:.2f} GB"))
    columns: tuple[str, ...] = ("stage", "p50", "p99", "weights", "floor", "with callers", "arithmetic", "p50 to floor")
    yield Table(f"Stages at full size ({setting['size'] or 'paper'})", about, columns, rows)
    columns = ("callers", "p50", "p95", "p99", "mean floor, with callers", f"memory, {setting['device']}")
    yield Table("Ticks at full size", [], columns, ticks)


def _in_tree(result: Mapping[str, Any]) -> Iterator[Table]:
    part = result["in_tree"]
    theirs, ours = part["in_tree"], part["ours"]
    length = max(result["setting"]["histories"])
    about = [
        f"{part['what']}; the same random weights: {part['same_frames']} of {part['frames']} frames are the same on both sides",
        _where(result),
    ]
    row = (f"{length:g} s, heard whole", "", "", "", f"{theirs['seconds']:.1f} s", f"{ours['seconds']:.1f} s")
    rows: list[tuple[str, ...]] = [(*row, f"{theirs['seconds'] / ours['seconds']:.2f} x")]
    for history in theirs["histories"]:
        steps = [history[name] for name in ("encode", "llm", "decode")]
        cells = (*map(milliseconds, steps), milliseconds(sum(steps)), milliseconds(ours["frame"]))
        rows.append((f"a frame after {history['history']:g} s", *cells, f"{sum(steps) / ours['frame']:.1f} x"))
    columns = ("", "encode", "llm", "decode", "NeMo in-tree", "nemo_duplex, streaming", "ratio")
    yield Table("Beside NeMo's in-tree model", about, columns, rows)


def _age(result: Mapping[str, Any]) -> Iterator[Table]:
    part = result["age"]
    young, old = (f"{part[name] / 60:g}" for name in ("young", "old"))
    about = [*part["about"], _where(result), f"two sessions in turns, {part['pairs']} of each"]
    row = (milliseconds(part["young_frame"]), milliseconds(part["old_frame"]), f"{part['ratio']:.3f}")
    rows = [("a frame", *row), ("the process grew by", "", f"{part['grown_bytes'] / 1e6:.1f} MB", "")]
    yield Table("Age of a conversation", about, ("", f"minute {young}", f"minute {old}", "old to young"), rows)


def _where(result: Mapping[str, Any]) -> str:
    return f"{result['date']}, {result['machine']}"


def _quantiles(times: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(milliseconds(times[name]) for name in ("p50", "p95", "p99"))


def _callers(number: int) -> str:
    return f"{number} caller{'s' * (number > 1)}"
