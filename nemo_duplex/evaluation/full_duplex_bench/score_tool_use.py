"""Version 3: tools, arguments, and when the agent answers, from `result_{provider}.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nemo_duplex.evaluation.full_duplex_bench.metric import Metric, mean, share
from nemo_duplex.evaluation.full_duplex_bench.samples import Sample
from nemo_duplex.evaluation.full_duplex_bench.tool_use import Call, tool_scores
from nemo_duplex.evaluation.full_duplex_bench.transcript import chunk_words, is_time, read_json
from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import InputError

TOOLS = Scorer(
    "full_duplex_bench_v3",
    "2026-05",
    about="tools by name, arguments as texts (the official scripts without --use-llm); the published figures are gpt-4o's",
)
_NEEDS_JUDGE = "needs a judge (gpt-4o): run the scripts of the benchmark with --use-llm"


def score_tool_use(samples: Sequence[Sample], provider: str | None, odd: OddRows) -> dict[str, Any]:
    """The metrics of one provider's results. Raises InputError if there are several and none is chosen."""
    name = f"result_{_provider(samples, provider)}.json"
    rows: list[dict[str, Any]] = []
    for sample in samples:
        try:
            rows.append({"sample": sample.name} | _row(sample.annotation(), read_json(sample.folder / name), name))
        except OddRow as unusable:
            odd.add(unusable, sample.name)
    taken = [row for row in rows if row["turn_taken"]]
    latencies = [row["latency"] for row in taken if row["latency"] is not None]
    calls = [row["tool_latency"] for row in taken if row["tool_latency"] is not None]
    metrics = {
        metric.name: metric.entry(TOOLS, estimate)
        for metric, estimate in (
            (Metric("pass_at_1", "higher"), share([row["passed"] for row in rows])),
            (Metric("tool_selection", "higher"), mean([row["selection"] for row in taken])),
            (Metric("arguments", "higher"), mean([row["arguments"] for row in taken])),
            (Metric("tool_selection_all", "higher"), mean([row["selection"] for row in rows])),
            (Metric("arguments_all", "higher"), mean([row["arguments"] for row in rows])),
            (Metric("turn_take_rate", "higher"), share([row["turn_taken"] for row in rows])),
            (Metric("first_response_latency", "lower", "s"), mean([latency for latency in latencies if latency >= 0])),
            (Metric("interruption_rate", "lower"), share([latency < 0 for latency in latencies])),
            (Metric("tool_call_latency", "lower", "s"), mean(calls)),
        )
    }
    for metric in (Metric("response_quality", "higher"), Metric("task_latency", "lower", "s"), Metric("filler_rate", "lower")):
        metrics[metric.name] = metric.missing(_NEEDS_JUDGE)
    groups = {key: _passed_by(rows, key) for key in ("domain", "difficulty", "disfluency", "self_correction")}
    return {"rows": rows, "metrics": metrics, "pass_at_1_by": groups, "scorer": TOOLS.as_dict()}


def _provider(samples: Sequence[Sample], given: str | None) -> str:
    there = {path.name[len("result_") : -len(".json")] for sample in samples for path in sample.folder.glob("result_*.json")}
    if given is not None and given in there:
        return given
    listed = ", ".join(sorted(there)) or "nobody"
    if given is not None or len(there) != 1:
        asked = f"provider={given}: there are no results of it" if given is not None else "provider: not given"
        raise InputError(f"{asked}; there are results of {listed}. Choose one, or write them first (what=write).")
    return there.pop()


def _row(scenario: Any, result: Any, name: str) -> dict[str, Any]:
    if not isinstance(scenario, dict) or not isinstance(scenario.get("expected_tool_calls"), list):
        raise OddRow("metadata.json has no list of expected_tool_calls", cure="Copy the released metadata.json again.")
    if not isinstance(result, dict):
        raise OddRow(f"{name} is no object", cure="Write the results of the sample again.")
    made = _calls(result.get("actual_tool_calls") or [], name)
    scores = tool_scores(_calls(scenario["expected_tool_calls"], "metadata.json"), made)
    end, start = result.get("user_speech_end_rel"), result.get("audio_agent_speech_start")
    words = chunk_words(result.get("asr_chunks") or [], name)
    first_call = min((call.start for call in made if call.start is not None), default=None)
    return {
        **scores._asdict(),
        "turn_taken": bool(str(result.get("transcript") or "").strip()) or bool(words),
        "latency": round(start - end, 3) if is_time(start) and is_time(end) else None,
        "tool_latency": round(first_call - end, 3) if first_call is not None and is_time(end) else None,
        "domain": str(scenario.get("domain", "")),
        "difficulty": str(scenario.get("difficulty", "")),
        "disfluency": [str(feature) for feature in scenario.get("disfluency_features") or []],
        "self_correction": bool(scenario.get("state_rollback_test", False)),
    }


def _calls(listed: Any, name: str) -> list[Call]:
    calls = []
    for call in listed if isinstance(listed, list) else [None]:
        arguments = call.get("args", {}) if isinstance(call, dict) else None
        if not isinstance(call, dict) or not isinstance(call.get("function"), str) or not isinstance(arguments, dict):
            raise OddRow(f"{name} has a call without function and args", str(call)[:80], "Write them as objects.")
        start = call.get("timestamp_start", call.get("timestamp"))
        calls.append(Call(call["function"], arguments, float(start) if is_time(start) else None))
    return calls


def _passed_by(rows: Sequence[dict[str, Any]], key: str) -> dict[str, dict[str, Any]]:
    """Pass@1 of the scenarios with each value of a property; a scenario may have several disfluencies."""
    groups: dict[str, list[bool]] = {}
    for row in rows:
        for value in row[key] if isinstance(row[key], list) else [row[key]]:
            groups.setdefault(str(value), []).append(row["passed"])
    return {value: share(passed).as_dict() for value, passed in sorted(groups.items())}
