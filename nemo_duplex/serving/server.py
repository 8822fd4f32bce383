"""What all protocols share: the model worker, who may call, the open calls, the counters."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from nemo_duplex.frames import Seconds
from nemo_duplex.models.agent import DuplexAgent
from nemo_duplex.serving.admission import Admission
from nemo_duplex.serving.call import DRAINED, FAILED, IDLE, TOO_LONG, Call, Gone
from nemo_duplex.serving.caller import CALLER
from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.serving.metrics import Metrics
from nemo_duplex.serving.recordings import Recordings
from nemo_duplex.serving.worker import ModelWorker

_log = logging.getLogger(__name__)

# After so many failures of the engine in a row, the server asks to be replaced.
_MOST_FAILURES = 3
# Seconds between two looks at the recordings.
_TIDY_EVERY = 60
# Time for the protocols to say goodbye, when the calls of a server that shuts down are ended.
_GOODBYE: Seconds = 5.0


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
        self.recordings = Recordings(config.recordings)
        self.calls: dict[str, Call] = {}
        self.draining = False
        self._watch: asyncio.Task[None] | None = None
        self.metrics.watch("seats", "Calls that are possible at once.", lambda: config.callers)
        self.metrics.watch("seats_taken", "Callers that have a seat.", lambda: self.admission.taken)
        self.metrics.watch("waiting", "Callers in the queue.", lambda: self.admission.waiting)
        self.metrics.watch("draining", "1 while the server takes no new calls.", lambda: self.draining)

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
    def is_healthy(self) -> bool:
        """Whether the model makes progress; if not, only another process helps."""
        return self.worker.is_alive and self.worker.failures < _MOST_FAILURES

    @property
    def is_ready(self) -> bool:
        """Whether new calls should come here."""
        return self.is_healthy and not self.draining

    async def drain(self) -> None:
        """Takes no new calls, waits for the open ones for `drain_seconds` at most, then ends those that are left."""
        self.draining = True
        self.admission.close()
        _log.info("draining", extra={"calls": len(self.calls), "most_seconds": self.config.drain_seconds})
        await self._until_empty(self.config.drain_seconds)
        for call in list(self.calls.values()):
            call.end(DRAINED)
        await self._until_empty(_GOODBYE)

    async def _until_empty(self, most: Seconds) -> None:
        until = time.monotonic() + most
        while self.calls and time.monotonic() < until:
            await asyncio.sleep(0.05)

    @asynccontextmanager
    async def call(self, protocol: str, sample_rate: int) -> AsyncIterator[Call]:
        """A call that is not yet begun (`Call.begin`); it ends with the block, whatever happens in it.

        The caller holds a seat of `admission` already.

        Args:
            protocol: its name, for the counters.
            sample_rate: of the caller's audio, in Hz.
        """
        call = Call(self.worker, sample_rate, self.config.audio, self.config.limits.unsent_seconds)
        caller = CALLER.get()
        if caller.record:
            call.recording = self.recordings.place(call.id)
        whose = {"id": call.id, "protocol": protocol, "address": caller.shortened, "key": caller.key or "-"}
        whose["recorded"] = call.recording is not None
        self.calls[call.id] = call
        self.metrics.calls.labels(protocol).inc()
        _log.info("call began", extra=whose)
        try:
            yield call
        except Gone as error:
            call.end(error.reason)
            raise
        except Exception as error:
            call.error = error
            call.end(FAILED)
            raise
        finally:
            call.end()
            del self.calls[call.id]
            self.metrics.calls.labels(protocol).dec()
            self.metrics.ended.labels(protocol, call.ended).inc()
            told = {"reason": call.ended, "seconds": round(time.monotonic() - call.opened, 1), **call.summary()}
            _log.info("call ended", extra=whose | told)

    async def _watch_calls(self) -> None:
        """Ends calls that are too long, or whose callers send nothing; deletes what is kept no longer."""
        limits = self.config.limits
        for second in itertools.count():
            if second % _TIDY_EVERY == 0:
                await asyncio.to_thread(self.recordings.tidy, time.time())
            await asyncio.sleep(1.0)
            now = time.monotonic()
            for call in list(self.calls.values()):
                if limits.call_seconds is not None and now - call.opened > limits.call_seconds:
                    call.end(TOO_LONG)
                elif call.idle(now) > limits.idle_seconds:
                    call.end(IDLE)
