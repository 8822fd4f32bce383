"""What `conf/serve.yaml` says, typed and checked: a server's settings."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, existing_file
from nemo_duplex.serving.caller_audio import AudioRules

#: Further API keys, apart by blanks or commas.
KEYS_VARIABLE = "NEMO_DUPLEX_API_KEYS"
_ORIGIN = re.compile(r"https?://[^/\s]+")


@dataclass(frozen=True)
class Limits:
    """How much one caller may take.

    Args:
        call_seconds: longest duration of a call; None: no limit.
        idle_seconds: a call is ended if its caller sent nothing for so long.
        message_bytes: longest message, and longest body of a request; the default is a minute of audio in base64.
        unsent_seconds: of the agent's audio that may wait for a caller who does not take it; then the model waits.
        send_seconds: a caller who takes nothing for so long is disconnected.
        handshake_seconds: a connection must bring its request, and a request its body, within so long.
        connections: open at once, of calls and all else.
        calls_per_key, calls_per_address: open at once; None: no limit.
        waiting: callers that may wait for a slot; the next one is refused.
    """

    call_seconds: Seconds | None = 7200.0
    idle_seconds: Seconds = 60.0
    message_bytes: int = 4_000_000
    unsent_seconds: Seconds = 10.0
    send_seconds: Seconds = 10.0
    handshake_seconds: Seconds = 10.0
    connections: int = 1000
    calls_per_key: int | None = None
    calls_per_address: int | None = None
    waiting: int = 0


@dataclass(frozen=True)
class RecordingRules:
    """Where calls are recorded whose callers ask for it, and what is kept.

    Args:
        folder: of the recordings; None: nothing is ever recorded.
        gigabytes: of all recordings; the oldest are deleted first.
        days: a recording is deleted after so long.
    """

    folder: Path | None = None
    gigabytes: float = 10.0
    days: float = 30.0


@dataclass(frozen=True)
class ServerConfig:
    """A server's settings, as `conf/serve.yaml` explains them.

    Args:
        callers: calls at once.
        host, port: to listen on.
        prompt_tokens: longest system prompt; 0: instructions are accepted, and the agent does not read them.
        int8: whether the model computes in 8 bits.
        sampling: of the agent, as `AgentSampling.of`.
        api_keys: accepted keys; empty: everybody may call, from this machine only.
        origins: of web pages on other hosts that may call, such as https://example.com; "*" for all.
        trusted_proxies: addresses and networks whose X-Forwarded-For is believed.
        tls_certificate, tls_key: files in PEM; None: no TLS.
        open_metrics: whether /metrics needs no key; it needs none on a server for this machine only.
        log: how lines of the log are written.
        drain_seconds: after SIGTERM, open calls may go on for so long.
        audio: rules for a caller's audio.
        limits: of one caller.
        recordings: of calls whose callers ask for it.

    Raises:
        InputError: for settings that would be open to everybody, or that contradict each other.
    """

    callers: int = 16
    host: str = "127.0.0.1"
    port: int = 8998
    prompt_tokens: int = 0
    int8: bool = False
    sampling: Mapping[str, Any] | None = None
    api_keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    open_metrics: bool = False
    log: Literal["text", "json"] = "text"
    drain_seconds: Seconds = 30.0
    audio: AudioRules = field(default_factory=AudioRules)
    limits: Limits = field(default_factory=Limits)
    recordings: RecordingRules = field(default_factory=RecordingRules)

    def __post_init__(self) -> None:
        if not self.is_local and not self.api_keys:
            raise InputError(
                f"host={self.host}: a server that other machines can reach needs API keys. Write keys to a file, one a line, "
                f"and add api_keys=FILE (or set {KEYS_VARIABLE}), or listen on this machine only: host=127.0.0.1"
            )
        if (self.tls_certificate is None) != (self.tls_key is None):
            missing = "tls.key" if self.tls_key is None else "tls.certificate"
            raise InputError(
                f"TLS needs a certificate and its key, {missing} is not given: add {missing}=FILE, or give neither."
            )
        if not 0 <= self.port <= 65535:
            raise InputError(f"port={self.port}: expected 0 to 65535; 0 takes a free one.")
        for key in self.api_keys:
            if not re.fullmatch(r"[!-~]+", key):
                raise InputError("api_keys: a key has characters that no header can carry. Use letters, digits and -_.~ only.")
        for origin in self.origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise InputError(f"origins: {origin!r} is no origin, expected such as https://example.com (no path), or '*'.")
        for proxy in self.trusted_proxies:
            if proxy != "*" and not _is_network(proxy):
                raise InputError(f"trusted_proxies: {proxy!r} is no address or network, expected such as 10.0.0.0/8, or '*'.")
        if self.log not in ("text", "json"):
            raise InputError(f"log={self.log}: expected text or json.")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> ServerConfig:
        """The settings of the keys of `conf/serve.yaml`, without those of the model; reads the file of the keys.

        Raises:
            InputError: for what cannot be served, or a file that cannot be read.
        """
        limits, audio, recordings, tls = (dict(given[name]) for name in ("limits", "audio", "recordings", "tls"))
        names = ("callers", "host", "port", "prompt_tokens", "int8", "sampling", "open_metrics", "log", "drain_seconds")
        folder = recordings.pop("folder")
        return cls(
            **{name: given[name] for name in names},
            api_keys=read_keys(given["api_keys"]),
            origins=tuple(given["origins"]),
            trusted_proxies=tuple(given["trusted_proxies"]),
            tls_certificate=_file(tls["certificate"], "tls.certificate"),
            tls_key=_file(tls["key"], "tls.key"),
            audio=AudioRules(**audio),
            limits=Limits(**limits),
            recordings=RecordingRules(None if folder is None else Path(folder), **recordings),
        )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can call."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def read_keys(path: str | Path | None) -> tuple[str, ...]:
    """The API keys of a file, one a line (empty lines and those that begin with # are left out), then those of the environment.

    Raises:
        InputError: if the file is not there, or holds no key.
    """
    keys = re.split(r"[\s,]+", os.environ.get(KEYS_VARIABLE, "").strip())
    if path is not None:
        lines = existing_file(path, "api_keys").read_text(encoding="utf-8", errors="replace").splitlines()
        found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not found:
            raise InputError(f"api_keys: {path} holds no key. Write one a line, such as the output of: openssl rand -hex 24")
        keys = found + keys
    return tuple(dict.fromkeys(key for key in keys if key))


def _file(path: str | None, what: str) -> Path | None:
    return None if path is None else existing_file(path, what)


def _is_network(text: str) -> bool:
    try:
        return bool(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return False
