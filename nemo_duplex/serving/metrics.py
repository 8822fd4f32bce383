"""What a server counts, for Prometheus and for the page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from nemo_duplex.frames import Seconds

_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """The counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Gauge("nemo_duplex_calls", "Calls that are open.", ["protocol"], registry=self.registry)
        self.step = Histogram("nemo_duplex_step_seconds", "Engine steps.", buckets=_BUCKETS, registry=self.registry)
        self.lateness = Histogram(
            "nemo_duplex_lateness_seconds",
            "From the audio that a frame needs to the frame.",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.frames = Counter("nemo_duplex_frames", "Frames that were made.", registry=self.registry)

    def stepped(self, step: Seconds, lateness: list[Seconds]) -> None:
        """An engine step took `step` and made frames of such lateness."""
        self.step.observe(step)
        self.frames.inc(len(lateness))
        for late in lateness:
            self.lateness.observe(late)

    def text(self) -> bytes:
        """Everything, in the text format of Prometheus."""
        return generate_latest(self.registry)
