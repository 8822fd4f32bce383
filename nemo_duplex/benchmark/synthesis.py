"""What an hour of a corpus costs, by stage; and how much faster several processes are, local ones and Ray's.

Stages are measured in one process, in seconds of its CPU, each without the stages inside it. Ways to spread the work are
measured by the clock, from the call to corpus.json, the start of their processes included.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nemo_duplex.benchmark.machine import cpu_threads, describe_machine
from nemo_duplex.benchmark.table import Table, measured_on
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis import cuts, pipeline, shards
from nemo_duplex.synthesis.corpus_spec import CorpusSpec
from nemo_duplex.synthesis.opened_corpus import OpenedCorpus
from nemo_duplex.synthesis.pipeline import synthesize
from nemo_duplex.synthesis.ray_executor import RayCluster
from nemo_duplex.synthesis.text.grammar import Grammar
from nemo_duplex.synthesis.tts.cast import Cast
from nemo_duplex.synthesis.tts.engines import CastSpec

#: What is called where, and the stage that it is.
_STAGES: tuple[tuple[Any, str, str], ...] = (
    (Grammar, "dialogue", "text"),
    (Cast, "speak", "speech"),
    (cuts, "schedule", "times"),
    (cuts, "user_channel", "mixing"),
    (cuts.SpokenConversation, "audio", "mixing"),
    (shards.Shard, "_write", "FLAC and tar"),
    (cuts.DialogueCuts, "cut", "other"),
    (shards, "sha256", "hashes and disk"),
    (shards, "flush_to_disk", "hashes and disk"),
)


@dataclass(frozen=True)
class SynthesisSetting:
    """What is measured; the keys of `conf/benchmark.yaml` that say "synthesis" or nothing.

    Args:
        hours: of audio that each measurement makes.
        agents: engines that answer; users are of eSpeak.
        workers: processes that are compared with one, local and on Ray; None: none are.
        threads: of the CPU.
    """

    hours: float = 1.0
    agents: Sequence[str] = ("espeak", "hibari")
    workers: int | None = 2
    threads: int = 1


class Stopwatch:
    """CPU seconds by stage; a stage stands still while one inside it runs.

    Examples:
        >>> watch = Stopwatch()
        >>> outer = watch.timed("outer", lambda: inner() + 1)
        >>> inner = watch.timed("inner", lambda: 1)
        >>> outer(), sorted(watch.seconds)
        (2, ['inner', 'outer'])
    """

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self.seconds: dict[str, float] = {}
        self._clock, self._running, self._since = clock, list[str](), 0.0

    def timed(self, stage: str, function: Callable) -> Callable:
        """The function, measured."""

        def measured(*given, **named):
            self._switch()
            self._running.append(stage)
            try:
                return function(*given, **named)
            finally:
                self._switch()
                self._running.pop()

        return measured

    def _switch(self) -> None:
        now = self._clock()
        if self._running:
            self.seconds[self._running[-1]] = self.seconds.get(self._running[-1], 0.0) + now - self._since
        self._since = now


def benchmark_synthesis(setting: SynthesisSetting) -> dict[str, Any]:
    """Figures of `synthesis_tables`.

    Raises:
        InputError: if an engine is not installed or not known.
    """
    result: dict[str, Any] = {"setting": asdict(setting), "machine": describe_machine("cpu"), "date": time.strftime("%Y-%m-%d")}
    with cpu_threads(setting.threads):
        result["stages"] = {agent: _stages(_spec(setting, agent)) for agent in setting.agents}
        result["ways"] = _ways(_spec(setting, setting.agents[0]), setting.workers) if setting.workers else {}
    return result


def synthesis_tables(result: Mapping[str, Any]) -> list[Table]:
    """A table of stages, and one of ways to spread the work."""
    stages = list(dict.fromkeys(stage for figures in result["stages"].values() for stage in figures["seconds"]))
    rows = []
    for agent, figures in result["stages"].items():
        total = sum(figures["seconds"].values())
        per_hour = [f"{figures['seconds'].get(stage, 0.0) / figures['hours']:.2f} s" for stage in stages]
        rate, size = 60 * figures["hours"] / total, figures["bytes"] / figures["hours"] / 1e6
        rows.append([agent, *per_hour, f"{total / figures['hours']:.2f} s", f"{rate:.2f} h", f"{size:.0f} MB"])
    columns = ["agent's voice", *stages, "an hour", "a core-minute", "disk an hour"]
    tables = [Table("Synthesis: CPU seconds of an hour of audio", [measured_on(result)], columns, rows)]
    if ways := result["ways"]:
        one = ways["1 process"]
        cells = [[way, f"{seconds:.1f} s", f"{one / seconds:.2f} x"] for way, seconds in ways.items()]
        about = [measured_on(result), f"{result['setting']['hours']:g} h, by the clock, start included"]
        tables.append(Table("Synthesis: ways to spread the work", about, ["", "time", "faster"], cells))
    return tables


def _spec(setting: SynthesisSetting, agent: str) -> CorpusSpec:
    users = (("espeak", 1.0),)
    spec = CorpusSpec(hours=setting.hours, dev=0, agent_utterances=0, cast=CastSpec(agent, users, users))
    if missing := OpenedCorpus(spec).missing_voices:
        raise InputError(f"agents: {missing[0]}")
    return spec


def _stages(spec: CorpusSpec) -> dict[str, Any]:
    """One process, whose engine is warm."""
    with tempfile.TemporaryDirectory() as folder:
        synthesize(replace(spec, hours=0.01), Path(folder, "warm"), ["train"])
        with _measured() as watch:
            facts = synthesize(spec, Path(folder, "corpus"), ["train"])
        assert facts is not None, "one job makes all"
        size = sum(path.stat().st_size for path in Path(folder, "corpus").rglob("*") if path.is_file())
        return {"seconds": watch.seconds, "hours": facts["sets"]["train"]["hours"], "bytes": size}


@contextmanager
def _measured() -> Iterator[Stopwatch]:
    watch = Stopwatch()
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in _STAGES]
    try:
        for owner, name, stage in _STAGES:
            setattr(owner, name, watch.timed(stage, getattr(owner, name)))
        yield watch
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def _ways(spec: CorpusSpec, workers: int) -> dict[str, float]:
    """Seconds of each way to make the same corpus."""
    many = f"{workers} processes"
    ways: dict[str, tuple[int, RayCluster | None]] = {"1 process": (1, None), many: (workers, None)}
    ways["Ray, " + many] = (workers, RayCluster(address="local"))
    seconds = {}
    for way, (processes, cluster) in ways.items():
        pipeline._maker.cache_clear()
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            synthesize(spec, Path(folder), ["train"], processes, cluster=cluster)
            seconds[way] = time.perf_counter() - begin
    return seconds
