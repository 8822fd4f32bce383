"""What `conf/serve.yaml` says, typed: a server's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_duplex.frames import Seconds
from nemo_duplex.serving.caller_audio import AudioRules


@dataclass(frozen=True)
class Limits:
    """How much one caller may take.

    Args:
        call_seconds: longest duration of a call; None: no limit.
        idle_seconds: a call is ended if its caller sent nothing for so long.
        message_bytes: longest message.
        unsent_seconds: of the agent's audio that may wait for a caller who does not take it; then the model waits.
        send_seconds: a caller who takes nothing for so long is disconnected.
        calls_per_key, calls_per_address: open at once; None: no limit.
        waiting: callers that may wait for a slot; the next one is refused.
    """

    call_seconds: Seconds | None = None
    idle_seconds: Seconds = 60.0
    message_bytes: int = 1_000_000
    unsent_seconds: Seconds = 10.0
    send_seconds: Seconds = 10.0
    calls_per_key: int | None = None
    calls_per_address: int | None = None
    waiting: int = 0


@dataclass(frozen=True)
class ServerConfig:
    """A server's settings, as `conf/serve.yaml` explains them.

    Args:
        callers: calls at once.
        host, port: to listen on.
        prompt_tokens: longest system prompt; 0: instructions are accepted, and the agent does not read them.
        int8: whether the model computes in 8 bits.
        sampling: of the agent, as `AgentSampling.of`.
        api_keys: accepted keys; empty: everybody may call.
        origins: of web pages on other hosts that may call; "*" for all.
        tls_certificate, tls_key: files in PEM; None: no TLS.
        recordings: folder for the calls whose callers ask for a recording; None: nothing is ever recorded.
        drain_seconds: after SIGTERM, open calls may go on for so long.
        audio: rules for a caller's audio.
        limits: of one caller.
    """

    callers: int = 16
    host: str = "127.0.0.1"
    port: int = 8998
    prompt_tokens: int = 0
    int8: bool = False
    sampling: Mapping[str, Any] | None = None
    api_keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    recordings: Path | None = None
    drain_seconds: Seconds = 30.0
    audio: AudioRules = field(default_factory=AudioRules)
    limits: Limits = field(default_factory=Limits)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can call."""
        return self.host in ("127.0.0.1", "::1", "localhost")
