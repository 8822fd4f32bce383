"""The best published figures of Full-Duplex-Bench: shown in grey beside measured ones, never mixed.

Version 1 is as its README of February 2026 says, version 3 as its page of April 2026. They are of the systems of that time,
with words by parakeet-tdt-0.6b-v2 and ratings by OpenAI's models.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Shares are 0 to 1, latencies Seconds, frequency per Second, ratings 0 to 5.
Row = Mapping[str, float]

_V1_SYSTEMS = ("PersonaPlex", "dGSLM", "Moshi", "Freeze-Omni", "Gemini Live 2.0", "GPT-Realtime")


def _rows(**metrics: tuple[float, ...]) -> dict[str, Row]:
    """One row for each system, from one column for each metric."""
    return {system: {name: column[i] for name, column in metrics.items()} for i, system in enumerate(_V1_SYSTEMS)}


#: Task -> data set -> system -> row.
V1: Mapping[str, Mapping[str, Mapping[str, Row]]] = {
    "pause_handling": {
        "synthetic": _rows(takeover_rate=(0.584, 0.934, 0.985, 0.642, 0.255, 0.010)),
        "candor": _rows(takeover_rate=(0.662, 0.935, 0.980, 0.481, 0.310, 0.120)),
    },
    "backchannel": {
        "icc": _rows(
            takeover_rate=(0.327, 0.691, 1.000, 0.636, 0.091, 0.000),
            frequency=(0.025, 0.015, 0.001, 0.001, 0.012, 0.007),
            divergence=(0.649, 0.934, 0.957, 0.997, 0.896, 0.980),
        )
    },
    "smooth_turn_taking": {
        "candor": _rows(
            takeover_rate=(0.992, 0.975, 0.941, 0.336, 0.655, 1.000), latency=(0.070, 0.352, 0.265, 0.953, 1.301, 1.470)
        )
    },
    "user_interruption": {
        "synthetic": _rows(
            takeover_rate=(1.000, 0.917, 1.000, 0.867, 0.891, 0.970),
            latency=(0.400, 2.531, 0.257, 1.409, 1.183, 1.500),
            rating=(4.210, 0.201, 0.765, 3.615, 3.376, 3.850),
        )
    },
}


def _v3_row(*values: float) -> Row:
    names = "tool_selection", "arguments", "response_quality", "pass_at_1", "turn_take_rate", "task_latency"
    return dict(zip((*names, "interruption_rate", "filler_rate"), values, strict=True))


V3: Mapping[str, Row] = {
    "GPT-Realtime": _v3_row(0.876, 0.680, 0.792, 0.600, 0.960, 6.89, 0.135, 0.169),
    "Gemini 2.5 Live": _v3_row(0.786, 0.593, 0.554, 0.490, 0.920, 7.26, 0.141, 0.089),
    "Gemini 3.1 Live": _v3_row(0.817, 0.588, 0.718, 0.540, 0.780, 4.25, 0.192, 0.317),
    "Grok": _v3_row(0.797, 0.542, 0.617, 0.430, 0.940, 6.65, 0.255, 0.443),
    "Ultravox": _v3_row(0.794, 0.513, 0.510, 0.410, 0.960, 8.40, 0.479, 0.880),
    "Cascaded": _v3_row(0.803, 0.562, 0.655, 0.450, 1.000, 10.12, 0.330, 0.269),
}


def published(version: str, task: str, folder: str) -> dict[str, Row]:
    """The rows of a task; where its folder's name says no data set (candor, synthetic), those of all, each with its name."""
    if version == "v3":
        return dict(V3)
    sets = V1.get(task, {}) if version == "v1" else {}
    named = {name: rows for name, rows in sets.items() if name in folder.lower()} or sets
    if len(named) == 1:
        return dict(next(iter(named.values())))
    return {f"{system} ({name})": row for name, rows in named.items() for system, row in rows.items()}
