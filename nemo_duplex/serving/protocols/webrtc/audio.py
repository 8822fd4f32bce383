"""The two audio tracks of a WebRTC call: the caller's into a `Call`, the agent's into Opus packets on the wall clock.

caller's packets -> PacketOrder (no added delay) -> decoder of aiortc -> `hear` -> Call.push
CallFrame.audio -> TurnQueue.play -> AgentTrack.recv: a packet every 20 ms -> the caller;   TurnQueue.clear at a barge-in
"""

from __future__ import annotations

import asyncio
import fractions
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
from aiortc import RTCRtpReceiver
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtp import RtpPacket

from nemo_duplex.frames import Seconds
from nemo_duplex.serving.call import Call
from nemo_duplex.serving.wire_audio import AgentAudio

#: Of both tracks, in Hz: the clock of Opus in RTP (RFC 7587).
SAMPLE_RATE = 48000
#: Samples of a packet: 20 ms.
PACKET = 960

# Silence takes the place of lost packets up to so many samples; what is longer is a pause, which `CallerAudio` fills.
_MOST_LOST = SAMPLE_RATE // 2
# A caller may send so many samples ahead of the clock; more is dropped.
_MOST_AHEAD = 2 * SAMPLE_RATE
# A missing packet is waited for until so many later ones are there: 80 ms.
_REORDERED = 4
# Packets further away than this begin a new stream.
_FAR = 1000
_TIME_BASE = fractions.Fraction(1, SAMPLE_RATE)
# The encoder's bit rate (wideband speech, mono) and its complexity of 10: a quarter less work than the most.
_BIT_RATE, _COMPLEXITY = 32000, 5
# After so many silent packets in a row the last one is sent again, without being encoded.
_SILENT_ENCODED = 5
_SILENCE = np.zeros(PACKET, np.int16)
# A track that is later than this skips packets instead of sending them in a burst.
_MOST_LATE: Seconds = 0.2
# Packets for which a turn waits after its first frame, so that a late one leaves no gap: at first, and at most.
_LEAD, _MOST_LEAD = 2, 10
# The most that is kept of a turn, in samples; the agent makes 80 ms every 80 ms, so no turn comes near it.
_MOST_QUEUED = 20 * SAMPLE_RATE


class PacketOrder:
    """Hands out RTP packets in the order of their sequence numbers, each as soon as it can be.

    A missing packet is waited for until four later ones are there, then it is lost; one that comes after that is dropped.
    (The buffer of aiortc 1.16 holds four packets back always, and sixteen from the first loss on: 80 and 300 ms.)

    Examples:
        >>> order = PacketOrder()
        >>> [[p.sequence_number for p in order.add(packet(n))] for n in (7, 9, 8)]
        [[7], [], [8, 9]]
    """

    def __init__(self) -> None:
        self._next: int | None = None  # the sequence number that is due
        self._early: dict[int, RtpPacket] = {}

    def add(self, packet: RtpPacket) -> list[RtpPacket]:
        """Takes a packet from the network, returns those that are due now."""
        number = packet.sequence_number
        ahead = 0 if self._next is None else (number - self._next) % 65536
        if self._next is None or _FAR <= ahead < 65536 - _FAR:
            self._next, self._early = number, {}
        elif ahead >= _FAR:  # behind: a copy, or too late
            return []
        self._early[number] = packet
        if len(self._early) >= _REORDERED:
            due = self._next
            self._next = min(self._early, key=lambda early: (early - due) % 65536)
        ready = []
        while self._next in self._early:
            ready.append(self._early.pop(self._next))
            self._next = (self._next + 1) % 65536
        return ready


class _NoBuffer:
    """Stands in for the jitter buffer of a receiver whose packets come in order."""

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        data = packet._data  # type: ignore[attr-defined]  # the payload, set by the receiver
        return False, JitterFrame(data, packet.timestamp) if data else None


def in_order(receiver: RTCRtpReceiver) -> None:
    """Replaces the jitter buffer of a receiver by a `PacketOrder`, before it starts."""
    order, handle = PacketOrder(), receiver._handle_rtp_packet
    receiver._RTCRtpReceiver__jitter_buffer = _NoBuffer()  # type: ignore[attr-defined]

    async def handle_in_order(packet: RtpPacket, arrival_time_ms: int) -> None:
        for ready in order.add(packet):
            await handle(ready, arrival_time_ms=arrival_time_ms)

    receiver._handle_rtp_packet = handle_in_order  # type: ignore[method-assign]


async def hear(track: MediaStreamTrack, call: Call) -> None:
    """Pushes what a caller's track brings into a call of `SAMPLE_RATE`, until the track ends."""
    loop, start, received = asyncio.get_running_loop(), None, 0
    expected: int | None = None
    while True:
        try:
            frame: Any = await track.recv()
        except MediaStreamError:
            return
        samples = mono(frame)
        if expected is not None and 0 < frame.pts - expected <= _MOST_LOST:
            samples = np.concatenate([np.zeros(frame.pts - expected, np.float32), samples])
        expected = frame.pts + frame.samples
        start = loop.time() if start is None else start
        if received - (loop.time() - start) * SAMPLE_RATE <= _MOST_AHEAD:
            received += len(samples)
            await call.push(samples)


def mono(frame: av.AudioFrame) -> np.ndarray:
    """The samples (S,) float32 of a decoded frame of 16-bit interleaved channels: their mean."""
    channels = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    return channels.mean(axis=1, dtype=np.float32) / 32768


@dataclass
class _Turn:
    """A turn of the agent on its way to the caller."""

    name: str
    parts: deque[np.ndarray] = field(default_factory=deque)
    queued: int = 0  # samples in the parts
    sent: int = 0  # samples that were sent
    waited: int = 0  # packets since its first frame came
    complete: bool = False  # whether no more will be queued

    def take(self, most: int) -> np.ndarray:
        """The next samples, at most `most`."""
        taken, count = [], 0
        while self.parts and count < most:
            part = self.parts.popleft()
            if len(part) > most - count:
                self.parts.appendleft(part[most - count :])
                part = part[: most - count]
            taken.append(part)
            count += len(part)
        self.queued -= count
        self.sent += count
        return np.concatenate(taken) if taken else _SILENCE[:0]


class TurnQueue:
    """The agent's turns (responses) as packets of 20 ms: one is taken every 20 ms, silent when nothing is due.

    A turn begins after a short lead, so that a frame that is a little late leaves no gap. A turn with gaps makes the lead of
    later turns longer, one without shorter.

    Args:
        agent_rate: of the frames, in Hz.
        played: called with the turn when its last packet was taken; not if it was cleared.

    Attributes:
        gaps: packets within turns that were silent because the audio was late.

    Examples:
        >>> queue = TurnQueue(48000)
        >>> queue.play("answer", np.ones(3840, np.float32))                 # 80 ms
        >>> [int(queue.packet().max()) for _ in range(5)], queue.clear()
        ([0, 0, 32767, 32767, 32767], {'answer': 0.06})
        >>> int(queue.packet().max())
        0
    """

    def __init__(self, agent_rate: int, played: Callable[[str], None] = lambda turn: None) -> None:
        self.gaps = 0
        self._agent_rate, self._played = agent_rate, played
        self._turns: deque[_Turn] = deque()
        self._sound: AgentAudio | None = None  # of the last turn
        self._last: str | None = None  # the turn that was queued last, cleared or not
        self._lead, self._gaps_before = _LEAD, 0

    def play(self, response: str, audio: np.ndarray) -> None:
        """Queues (S,) float32 at the agent's rate. Audio of a turn that was finished or cleared is dropped."""
        if response != self._last:
            self.finish()
            self._turns.append(_Turn(response))
            self._last, self._sound = response, AgentAudio(self._agent_rate, SAMPLE_RATE)
        if not self._turns or self._turns[-1].complete or self._turns[-1].queued > _MOST_QUEUED:
            return
        assert self._sound is not None
        samples = np.clip(np.rint(self._sound.frame(audio) * 32768), -32768, 32767).astype(np.int16)
        self._turns[-1].parts.append(samples)
        self._turns[-1].queued += len(samples)

    def finish(self) -> None:
        """The turn that was played last is complete."""
        if self._turns:
            self._turns[-1].complete = True

    def clear(self) -> dict[str, Seconds]:
        """Drops everything that was not taken; returns how much of each turn was."""
        heard = {turn.name: turn.sent / SAMPLE_RATE for turn in self._turns}
        self._turns.clear()
        return heard

    def packet(self) -> np.ndarray:
        """The next 20 ms: (960,) int16."""
        turn = self._turns[0] if self._turns else None
        if turn is None:
            return _SILENCE
        if turn.waited < self._lead and not turn.complete:
            turn.waited += 1
            return _SILENCE
        if not turn.sent:
            self._gaps_before = self.gaps
        if turn.queued < PACKET and not turn.complete:
            self.gaps += 1
            return _SILENCE
        samples = turn.take(PACKET)
        if turn.complete and not turn.queued:
            self._turns.popleft()
            longer = 1 if self.gaps > self._gaps_before else -1
            self._lead = min(max(self._lead + longer, 0), _MOST_LEAD)
            self._played(turn.name)
        return samples if len(samples) == PACKET else np.concatenate([samples, _SILENCE[len(samples) :]])


class AgentTrack(MediaStreamTrack):
    """A `TurnQueue` as the track that aiortc sends: a packet of Opus every 20 ms.

    Packets are encoded here, in mono, and have their own times: aiortc 1.16 would encode stereo at 96 kbit/s, and gives all
    packets of an 80 ms frame one timestamp.

    Args:
        turns: what is played.

    Attributes:
        skipped: packets that were not sent because the event loop was late.
    """

    kind = "audio"

    def __init__(self, turns: TurnQueue) -> None:
        super().__init__()
        self.skipped = 0
        self._turns = turns
        self._encoder = av.CodecContext.create("libopus", "w")
        self._encoder.bit_rate, self._encoder.sample_rate = _BIT_RATE, SAMPLE_RATE
        self._encoder.format, self._encoder.layout, self._encoder.time_base = "s16", "mono", _TIME_BASE
        self._encoder.options = {"application": "voip", "compression_level": str(_COMPLEXITY)}
        self._silent, self._silence = 0, b""  # silent packets in a row, and the last one that was encoded
        self._start: float | None = None  # of the clock, when the first packet was sent
        self._number = 0  # of the next packet

    async def recv(self) -> av.Packet:
        """The next packet, when it is due."""
        if self.readyState != "live":
            raise MediaStreamError
        loop = asyncio.get_running_loop()
        if self._start is None:
            self._start = loop.time()
        early = self._start + self._number * PACKET / SAMPLE_RATE - loop.time()
        if early > 0:
            await asyncio.sleep(early)
        elif -early > _MOST_LATE:
            late = int(-early * SAMPLE_RATE / PACKET)
            self._number += late
            self.skipped += late
        packet = av.Packet(self._encoded(self._turns.packet()))
        packet.pts, packet.time_base = self._number * PACKET, _TIME_BASE
        self._number += 1
        return packet

    def _encoded(self, samples: np.ndarray) -> bytes:
        self._silent = 0 if samples.any() else self._silent + 1
        if self._silent > _SILENT_ENCODED:
            return self._silence
        frame = av.AudioFrame(format="s16", layout="mono", samples=PACKET)
        frame.planes[0].update(samples.tobytes())
        frame.sample_rate, frame.time_base = SAMPLE_RATE, _TIME_BASE
        [packet] = self._encoder.encode(frame)
        self._silence = bytes(packet)
        return self._silence
