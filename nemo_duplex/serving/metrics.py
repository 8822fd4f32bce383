"""What a server counts, for Prometheus and for the page. Counting a step takes some microseconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from nemo_duplex.frames import Seconds
from nemo_duplex.serving.caller_audio import Gaps
from nemo_duplex.version import __version__

# Around the 80 ms of a frame, in which a step must be done.
_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.16, 0.24, 0.4, 0.8, 2.0, 5.0)
_QUANTILES = (0.5, 0.99)


class LastMinute:
    """The values of the last minute, the newest ones where there are very many.

    Args:
        most: values that are kept.

    Examples:
        >>> minute = LastMinute(most=4)
        >>> minute.add([1.0, 2.0, 3.0], now=100.0)
        >>> minute.quantiles((0.5,), now=101.0), minute.quantiles((0.5,), now=161.0)
        ([2.0], [nan])
    """

    def __init__(self, most: int) -> None:
        self._values, self._times = np.zeros(most), np.full(most, -np.inf)
        self._next = 0
        self._lock = Lock()

    def add(self, values: Sequence[float], now: float) -> None:
        """Takes values of now."""
        with self._lock:
            for value in values:
                self._values[self._next], self._times[self._next] = value, now
                self._next = (self._next + 1) % len(self._values)

    def quantiles(self, shares: Sequence[float], now: float) -> list[float]:
        """The values that these shares of all do not exceed; nan where there is none."""
        with self._lock:
            recent = self._values[self._times > now - 60]
        if not len(recent):
            return [float("nan")] * len(shares)
        return np.quantile(recent, shares, method="inverted_cdf").tolist()


class _Quantiles(Collector):
    """Gauges of the last minute's quantiles, computed when somebody looks."""

    def __init__(self, name: str, of: str, minute: LastMinute) -> None:
        self._name, self._of, self._minute = name, of, minute

    def collect(self):
        """The gauges."""
        gauge = GaugeMetricFamily(self._name, f"{self._of}, in the last minute.", labels=["quantile"])
        for share, value in zip(_QUANTILES, self._minute.quantiles(_QUANTILES, time.monotonic())):
            gauge.add_metric([str(share)], value)
        yield gauge


class Traffic:
    """Bytes of one protocol's messages, both ways. Made by `Metrics.traffic`.

    Attributes:
        received, sent: count bytes by their method `inc`.
    """

    def __init__(self, bytes_: Counter, protocol: str) -> None:
        self.received, self.sent = bytes_.labels(protocol, "received"), bytes_.labels(protocol, "sent")


class Metrics:
    """The counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.calls = Gauge("nemo_duplex_calls", "Calls that are open.", ["protocol"], registry=registry)
        self.ended = Counter(
            "nemo_duplex_calls_ended", "Calls that ended, by the reason.", ["protocol", "reason"], registry=registry
        )
        self.refusals = Counter("nemo_duplex_refusals", "Callers that were refused.", ["reason"], registry=registry)
        self.step = Histogram("nemo_duplex_step_seconds", "Engine steps.", buckets=_BUCKETS, registry=registry)
        self.lateness = Histogram(
            "nemo_duplex_lateness_seconds",
            "From the audio that a frame needs to the frame.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self.frames = Counter("nemo_duplex_frames", "Frames that were made.", registry=registry)
        self.underruns = Counter("nemo_duplex_underruns", "Gaps in callers' audio that silence filled.", registry=registry)
        self.filled = Counter("nemo_duplex_filled_seconds", "Silence in place of missing audio.", registry=registry)
        self.skipped = Counter("nemo_duplex_skipped_seconds", "Audio of callers that was skipped.", registry=registry)
        self.failures = Counter("nemo_duplex_engine_failures", "Engine steps that raised an error.", registry=registry)
        self.bytes = Counter(
            "nemo_duplex_bytes", "Bytes of messages, by protocol and way.", ["protocol", "way"], registry=registry
        )
        Gauge("nemo_duplex_info", "The version.", ["version"], registry=registry).labels(__version__).set(1)
        self._steps, self._late = LastMinute(2048), LastMinute(65536)
        registry.register(_Quantiles("nemo_duplex_step_seconds_last_minute", "Engine steps", self._steps))
        registry.register(_Quantiles("nemo_duplex_lateness_seconds_last_minute", "Lateness", self._late))

    def watch(self, name: str, of: str, value: Callable[[], float]) -> None:
        """A gauge nemo_duplex_NAME whose value is asked for when somebody looks."""
        Gauge(f"nemo_duplex_{name}", of, registry=self.registry).set_function(value)

    def stepped(self, step: Seconds, lateness: list[Seconds]) -> None:
        """An engine step took `step` and made frames of such lateness."""
        now = time.monotonic()
        self.step.observe(step)
        self._steps.add([step], now)
        self.frames.inc(len(lateness))
        for late in lateness:
            self.lateness.observe(late)
        self._late.add(lateness, now)

    def heard(self, gaps: list[Gaps]) -> None:
        """What was missing, late or too much in the callers' audio since the last step."""
        for counter, new in zip((self.underruns, self.filled, self.skipped), map(sum, zip(*gaps))):
            if new:
                counter.inc(new)

    def refused(self, status: int) -> None:
        """A caller was refused by this HTTP status."""
        words = {401: "key", 403: "origin", 408: "slow", 413: "size", 429: "limit", 503: "busy"}
        self.refusals.labels(words.get(status, "other")).inc()

    def traffic(self, protocol: str) -> Traffic:
        """The counters of a protocol's bytes."""
        return Traffic(self.bytes, protocol)

    def text(self) -> bytes:
        """Everything, in the text format of Prometheus."""
        return generate_latest(self.registry)
