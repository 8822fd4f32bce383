"""One caller's WebRTC connection: the offer answered, two audio tracks, a data channel for events, and its end.

A connection ends when either side closes it, when the data channel is closed, when the network is lost (no packet for
`SILENT_SECONDS`), or when it was never made (`CONNECT_SECONDS`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription

from nemo_duplex.frames import Seconds
from nemo_duplex.serving.admission import RefusedError
from nemo_duplex.serving.call import HUNG_UP, SLOW, Call
from nemo_duplex.serving.metrics import Traffic
from nemo_duplex.serving.protocols.webrtc.audio import AgentTrack, TurnQueue, hear, in_order

#: A caller that has not connected for so long after its offer was answered is gone.
CONNECT_SECONDS: Seconds = 20.0
#: A caller that sent no packet for so long is gone: a live one sends 50 a second, or a report every few seconds if muted.
SILENT_SECONDS: Seconds = 10.0

# Messages of the caller that wait to be read, and events that wait for the data channel to open.
_MOST_MESSAGES, _MOST_EVENTS = 256, 1024
# The most that may wait in the data channel, in bytes; a caller that takes less is gone.
_MOST_UNSENT = 4_000_000
# An offer may have so many media sections.
_MOST_SECTIONS = 8
# Names of local addresses that only a browser's own network can resolve, and the mark that no other address will come: the
# caller's checks show where it is.
_NOT_NEEDED = re.compile(r"^a=(candidate:.*\.local .*|end-of-candidates)\r?\n", re.MULTILINE)

_log = logging.getLogger(__name__)


class Peer:
    """One connection.

    Args:
        agent_rate: of the agent's frames, in Hz.
        message_bytes: longest message of the caller.
        traffic: counts the bytes of both ways.

    Attributes:
        gone: set when the connection is over.
        reason: why: HUNG_UP, or SLOW where the caller does not take its events.
        turns: what the agent says to the caller.
        played: the turns that were played to their end.

    Examples:
        >>> peer = Peer(22050)
        >>> answer = await peer.answer(offer)
        >>> await peer.connected()
        True
    """

    def __init__(self, agent_rate: int, message_bytes: int = 4_000_000, traffic: Traffic | None = None) -> None:
        self.gone, self.reason = asyncio.Event(), HUNG_UP
        self.played: asyncio.Queue[str] = asyncio.Queue()
        self.turns = TurnQueue(agent_rate, self.played.put_nowait)
        self._message_bytes, self._traffic = message_bytes, traffic
        self._bytes = 0, 0  # received and sent, as far as they are counted
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._track = AgentTrack(self.turns)
        self._connected = asyncio.Event()
        self._channel: RTCDataChannel | None = None
        self._messages: asyncio.Queue[str] = asyncio.Queue(_MOST_MESSAGES)
        self._unsent: deque[str] = deque(maxlen=_MOST_EVENTS)
        self._connection.on("connectionstatechange", self._state_changed)
        self._connection.on("datachannel", self._channel_opened)

    async def answer(self, offer: str) -> str:
        """The SDP answer to an offer, with all addresses of this server in it.

        Raises:
            RefusedError: with status 400, for an offer that cannot be used.
        """
        if not offer.lstrip().startswith("v=0") or "\nm=audio" not in offer:
            raise RefusedError("The body is no SDP offer with an audio section (v=0, m=audio).", 400)
        if offer.count("\nm=") > _MOST_SECTIONS or "\na=fingerprint:" not in offer:
            raise RefusedError(f"The SDP offer needs a fingerprint, and at most {_MOST_SECTIONS} media sections.", 400)
        connection = self._connection
        connection.addTrack(self._track)
        [audio] = connection.getTransceivers()
        capabilities = RTCRtpReceiver.getCapabilities("audio")
        assert capabilities is not None
        audio.setCodecPreferences([codec for codec in capabilities.codecs if codec.name == "opus"])
        in_order(audio.receiver)
        try:
            await connection.setRemoteDescription(RTCSessionDescription(_NOT_NEEDED.sub("", offer), "offer"))
        except Exception as error:  # aiortc raises what its parser happens to: ValueError, IndexError, AssertionError
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RefusedError(f"The SDP offer cannot be used ({reason}). It must offer Opus and rtcp-mux.", 400) from error
        for other in connection.getTransceivers():
            if other is not audio:
                other.direction = "inactive"  # video, and further tracks
        await connection.setLocalDescription(await connection.createAnswer())
        return connection.localDescription.sdp

    async def connected(self) -> bool:
        """Waits until the caller is connected; False if it does not connect in time."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._connected, self.gone)]
        await asyncio.wait(waits, timeout=CONNECT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return self._connected.is_set() and not self.gone.is_set()

    async def hear(self, call: Call) -> None:
        """Pushes the caller's audio into a call of `SAMPLE_RATE`; does not end, a caller may stop its track and stay."""
        track = self._connection.getTransceivers()[0].receiver.track
        if track is not None:
            await hear(track, call)
        await self.gone.wait()

    async def watch(self) -> None:
        """Returns when the connection is over."""
        received, silent = -1, 0.0
        while not self.gone.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.gone.wait(), 1.0)
            now = await self._count()
            received, silent = now, silent + 1.0 if now == received else 0.0
            if silent >= SILENT_SECONDS:
                _log.info("a WebRTC caller sent nothing for %.0f s", silent)
                self.gone.set()

    async def messages(self) -> AsyncIterator[str]:
        """The text messages of the data channel; does not end."""
        while True:
            yield await self._messages.get()

    def send(self, event: dict[str, Any]) -> None:
        """Sends an event on the data channel, or keeps it until the channel is open."""
        text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        if self._channel is None:
            self._unsent.append(text)
        elif self._channel.readyState == "open":
            self._send(self._channel, text)

    async def flushed(self) -> None:
        """Waits a little until the caller has taken its last events."""
        for _ in range(20):
            if self._channel is None or self._channel.bufferedAmount == 0 or self.gone.is_set():
                break
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Ends the connection and frees its ports; safe to call again."""
        self.gone.set()
        self._track.stop()
        await self._connection.close()

    # ------------------------------------------------------------------ called by aiortc

    def _state_changed(self) -> None:
        state = self._connection.connectionState
        if state == "connected":
            self._connected.set()
        elif state in ("failed", "closed"):
            self.gone.set()

    def _channel_opened(self, channel: RTCDataChannel) -> None:
        if self._channel is not None:
            return
        self._channel = channel
        channel.on("message", self._message_came)
        channel.on("close", self.gone.set)
        while self._unsent:
            self._send(channel, self._unsent.popleft())

    def _message_came(self, message: str | bytes) -> None:
        try:
            text = message if isinstance(message, str) else message.decode()
            if len(text) > self._message_bytes:
                raise ValueError(f"a message of {len(text)} characters")
            self._messages.put_nowait(text)
        except (ValueError, asyncio.QueueFull) as error:
            _log.warning("a WebRTC caller was disconnected: %s", str(error) or "it sends faster than it is read")
            self.gone.set()

    def _send(self, channel: RTCDataChannel, text: str) -> None:
        if channel.bufferedAmount > _MOST_UNSENT:
            self.reason = SLOW
            self.gone.set()
            return
        try:
            channel.send(text)
        except ValueError as error:  # longer than what the caller says it can take
            _log.warning("an event was not sent: %s", error)

    async def _count(self) -> int:
        """Counts the bytes since the last time; returns the number of packets received."""
        [transceiver, *_] = self._connection.getTransceivers()
        stats = await transceiver.receiver.getStats()
        [transport] = [entry for entry in stats.values() if entry.type == "transport"]
        counted, self._bytes = self._bytes, (transport.bytesReceived, transport.bytesSent)
        if self._traffic is not None:
            self._traffic.received.inc(self._bytes[0] - counted[0])
            self._traffic.sent.inc(self._bytes[1] - counted[1])
        return transport.packetsReceived
