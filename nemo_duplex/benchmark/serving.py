"""How many callers a server answers in time: real sockets, real time, real protocols, caller and server on this machine.

More and more callers talk to a server, each from a place of its own in the audio and from a moment of its own, until 99 of 100
frames are no longer late by less than 80 ms (`paced_callers.py` says what late is), or until a call drops. `minutes` then holds
half of the most that were in time, and reports every minute, for what grows.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import soxr

from nemo_duplex.benchmark.machine import check_device, describe_machine
from nemo_duplex.benchmark.measured_models import MeasuredAgent
from nemo_duplex.benchmark.paced_callers import FRAME, RATE, WIRES, ChunkNeeds, Heard, call
from nemo_duplex.benchmark.table import Table, measured_on, milliseconds
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, existing_file, existing_folder

#: Numbers of callers that are tried.
CALLER_COUNTS = (1, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 192, 256, 384, 512)


@dataclass(frozen=True)
class ServingSetting:
    """What is measured; the keys of `conf/benchmark.yaml` that say "serve" or nothing.

    Args:
        model: agent, a `.nemo`; None: random weights in the geometry of `make demo`.
        data: corpus whose dev set's users are played; None: noise.
        wires: protocols, of `paced_callers.WIRES`.
        talk_seconds: length of each call.
        least, most: numbers of callers that are tried.
        hold_minutes: how long half of the most callers in time talk then (half of the last ones tried, if none were in time);
            0: not at all.
        device, precision, threads, int8: of the model.
    """

    model: str | None = None
    data: str | None = None
    wires: list[str] = field(default_factory=lambda: ["talk", "moshi"])
    talk_seconds: Seconds = 20.0
    least: int = 1
    most: int = 256
    hold_minutes: float = 0.0
    device: str = "cpu"
    precision: str = "32"
    threads: int = 1
    int8: bool = False

    def check(self) -> None:
        """Refuses what cannot be measured, before anything is.

        Raises:
            InputError: naming the key.
        """
        check_device(self.device)
        if not self.wires or not set(self.wires) <= set(WIRES):
            raise InputError(f"wires=[{','.join(map(str, self.wires))}]: expected some of {', '.join(WIRES)}.")
        if self.talk_seconds < 2:
            raise InputError(f"talk_seconds={self.talk_seconds:g}: expected 2 or more.")
        if not any(self.least <= count <= self.most for count in CALLER_COUNTS):
            raise InputError(f"least={self.least} most={self.most}: no number of callers is between them, see CALLER_COUNTS.")
        if self.model is not None:
            existing_file(self.model, "model")
        if self.data is not None:
            existing_folder(self.data, "data")


@dataclass(frozen=True)
class Load:
    """A number of callers who talked for a while.

    Args:
        callers: at once.
        p50, p99: lateness of their frames, Seconds; of the server's own histogram where a protocol does not send every frame.
        underruns: how often a caller's player was dry.
        dropped: calls that ended before their time.
        skipped: Seconds of callers' audio that the server skipped, all callers together.
        server_cpu, callers_cpu: share of one core.
        memory: of the server at the end, MB.
        in_time: whether p99 was below 80 ms and no call dropped.
    """

    callers: int
    p50: Seconds
    p99: Seconds
    underruns: int
    dropped: int
    skipped: Seconds
    server_cpu: float
    callers_cpu: float
    memory: float
    in_time: bool


class RunningServer:
    """A server of the measured agent, in a process of its own.

    Args:
        setting: the agent, and how it computes.
        callers: its seats.
    """

    def __init__(self, setting: ServingSetting, callers: int) -> None:
        keys = ("model", "device", "precision", "threads", "int8")
        given = {key: getattr(setting, key) for key in keys} | {"callers": callers}
        command = [sys.executable, "-m", "nemo_duplex.benchmark.served", json.dumps(given)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip().isdigit():
                self.address = f"127.0.0.1:{line.strip()}"
                return
        raise InputError("The server of the benchmark did not start; run examples/serve.py with the same model to see why.")

    def metrics(self) -> dict[str, float]:
        """Its counters, by their full names."""
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def close(self) -> None:
        """Ends the process."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


@contextmanager
def _server(setting: ServingSetting, callers: int) -> Iterator[RunningServer]:
    server = RunningServer(setting, callers)
    try:
        yield server
    finally:
        server.close()


def talk_at_once(
    server: RunningServer, wire: str, audio: np.ndarray, callers: int, seconds: Seconds, needs: ChunkNeeds
) -> Load:
    """`callers` talk for `seconds` at the same time, each from a place and a moment of its own."""

    async def all_of_them() -> list[Heard]:
        places = [np.roll(audio, -i * round(_PLACES_APART * RATE)) for i in range(callers)]
        calls = [call(server.address, WIRES[wire](), own, seconds, needs, i * _APART) for i, own in enumerate(places)]
        return list(await asyncio.gather(*calls))

    before, cpu, began = server.metrics(), time.process_time(), time.monotonic()
    heard = asyncio.run(all_of_them())
    took, cpu, after = time.monotonic() - began, time.process_time() - cpu, server.metrics()
    late = np.array([late for one in heard for late in one.late])
    if len(late):
        p50, p99 = np.percentile(late, [50, 99]).tolist()
    else:
        p50, p99 = (_quantile(before, after, share) for share in (0.5, 0.99))
    dropped = sum(bool(one.dropped) for one in heard)
    return Load(
        callers=callers,
        p50=p50,
        p99=p99,
        underruns=sum(one.underruns for one in heard),
        dropped=dropped,
        skipped=_grown("nemo_duplex_skipped_seconds_total", before, after),
        server_cpu=_grown("process_cpu_seconds_total", before, after) / took,
        callers_cpu=cpu / took,
        memory=after.get("process_resident_memory_bytes", 0.0) / 1e6,
        in_time=dropped == 0 and p99 < FRAME,
    )


# Between two callers' beginnings, so that they are in different phases of a frame; and between their places in the audio.
_APART: Seconds = 0.1 + FRAME / 13
_PLACES_APART: Seconds = 7.76


def _grown(name: str, before: Mapping[str, float], after: Mapping[str, float]) -> float:
    return after.get(name, 0.0) - before.get(name, 0.0)


def _quantile(before: Mapping[str, float], after: Mapping[str, float], share: float) -> Seconds:
    """Upper edge of the server's lateness bucket with that share of the frames between two readings; inf if there was none."""
    name = "nemo_duplex_lateness_seconds_bucket"
    edges = sorted(
        (float(key.split('le="')[1].split('"')[0]), _grown(key, before, after)) for key in after if key.startswith(name)
    )
    if not edges or not edges[-1][1]:
        return float("inf")
    return next(edge for edge, count in edges if count >= share * edges[-1][1])


def benchmark_serving(setting: ServingSetting) -> dict[str, Any]:
    """Measures each protocol, one after the other, each with a server of its own.

    Returns:
        `machine`, `date`, `setting`, `about`, and by protocol `loads` and `held`: lists of `Load`; plain data.

    Raises:
        InputError: for a setting that is not possible.
    """
    setting.check()
    agent = MeasuredAgent(setting.model, setting.data, setting.device, setting.precision)
    perception, rate = agent.model.perception, agent.model.user_sample_rate
    needs = ChunkNeeds(perception.chunk_frames, -perception.lead_samples / rate)
    audio = soxr.resample(agent.users, rate, RATE).astype(np.float32)
    result: dict[str, Any] = {
        "machine": describe_machine(setting.device),
        "date": time.strftime("%Y-%m-%d"),
        "setting": asdict(setting),
        "about": agent.about,
    }
    for wire in setting.wires:
        print(f"{wire} ...", file=sys.stderr, flush=True)
        counts = [count for count in CALLER_COUNTS if setting.least <= count <= setting.most]
        loads: list[Load] = []
        with _server(setting, max(counts)) as server:
            talk_at_once(server, wire, audio, 1, 2.0, needs)  # the first call touches memory
            for count in counts:
                loads.append(talk_at_once(server, wire, audio, count, setting.talk_seconds, needs))
                if not loads[-1].in_time:
                    break
            in_time = max((load.callers for load in loads if load.in_time), default=0)
            half = max(1, (in_time or loads[-1].callers) // 2)
            held = [talk_at_once(server, wire, audio, half, 60.0, needs) for _ in range(round(setting.hold_minutes))]
        result[wire] = {"most": in_time, "loads": list(map(asdict, loads)), "held": list(map(asdict, held))}
    return result


def serving_tables(result: Mapping[str, Any]) -> list[Table]:
    """What was measured, a table for each protocol, and one for each that was held."""
    columns = (
        "callers",
        "late p50",
        "late p99",
        "underruns",
        "dropped",
        "skipped",
        "server CPU",
        "callers CPU",
        "memory",
        "in time",
    )
    tables = []
    for wire in result["setting"]["wires"]:
        part = result[wire]
        about = [
            *result["about"],
            measured_on(result),
            f"{part['most']} callers in time, each for {result['setting']['talk_seconds']:g} s",
        ]
        tables.append(Table(f"Callers by {wire}", about, columns, [_row(load) for load in part["loads"]]))
        if part["held"]:
            rows = [(f"minute {i + 1}", *_row(load)[1:]) for i, load in enumerate(part["held"])]
            about = [f"{part['held'][0]['callers']} callers, a minute each, one after the other"]
            tables.append(Table(f"Held by {wire}", about, columns, rows))
    return tables


def _row(load: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(load["callers"]),
        milliseconds(load["p50"]),
        milliseconds(load["p99"]),
        str(load["underruns"]),
        str(load["dropped"]),
        f"{load['skipped']:.1f} s",
        f"{load['server_cpu']:.0%}",
        f"{load['callers_cpu']:.0%}",
        f"{load['memory']:.0f} MB",
        "yes" if load["in_time"] else "no",
    )
