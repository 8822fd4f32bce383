"""What all protocols share: the model worker, who may call, the open calls, the counters."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from nemo_duplex.models.agent import DuplexAgent
from nemo_duplex.serving.admission import Admission
from nemo_duplex.serving.call import IDLE, TOO_LONG, Call
from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.serving.metrics import Metrics
from nemo_duplex.serving.worker import ModelWorker

_log = logging.getLogger(__name__)


class CallServer:
    """One agent and its calls.

    Args:
        model: the agent.
        config: the settings.

    Attributes:
        draining: no new calls are taken.
    """

    def __init__(self, model: DuplexAgent, config: ServerConfig) -> None:
        self.model, self.config, self.metrics = model, config, Metrics()
        self.worker = ModelWorker(model, config.callers, self.metrics, prompt_tokens=config.prompt_tokens, int8=config.int8)
        self.admission = Admission(config.callers, config.limits)
        self.calls: dict[str, Call] = {}
        self.draining = False
        self._watch: asyncio.Task[None] | None = None

    def run_in_background(self) -> None:
        """Starts the model's thread and the watch over the calls, in the running event loop."""
        self.worker.run_in_background()
        self._watch = asyncio.create_task(self._watch_calls())

    async def close(self) -> None:
        """Ends what `run_in_background` started."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        await self.worker.close()

    @property
    def is_ready(self) -> bool:
        """Whether a new call would be answered."""
        return self.worker.is_alive and not self.draining

    @asynccontextmanager
    async def call(self, protocol: str, sample_rate: int) -> AsyncIterator[Call]:
        """A call that is not yet begun (`Call.begin`); it ends with the block, whatever happens in it.

        The caller holds a seat of `admission` already.

        Args:
            protocol: its name, for the counters.
            sample_rate: of the caller's audio, in Hz.
        """
        call = Call(self.worker, sample_rate, self.config.audio, self.config.limits.unsent_seconds)
        self.calls[call.id] = call
        self.metrics.calls.labels(protocol).inc()
        _log.info("call %s began (%s)", call.id, protocol)
        try:
            yield call
        finally:
            call.end()
            del self.calls[call.id]
            self.metrics.calls.labels(protocol).dec()
            _log.info("call %s ended: %s, %.1f s", call.id, call.ended, time.monotonic() - call.opened)

    async def _watch_calls(self) -> None:
        """Ends calls that are too long, or whose callers send nothing."""
        limits = self.config.limits
        while True:
            await asyncio.sleep(0.5)
            now = time.monotonic()
            for call in list(self.calls.values()):
                if limits.call_seconds is not None and now - call.opened > limits.call_seconds:
                    call.end(TOO_LONG)
                elif now - call.last_push > limits.idle_seconds:
                    call.end(IDLE)
