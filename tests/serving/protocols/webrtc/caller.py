"""A caller by aiortc: a microphone that plays samples, what it hears, and its data channel."""

from __future__ import annotations

import asyncio
import fractions
import json
from contextlib import asynccontextmanager

import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

RATE, PACKET = 48000, 960
_SILENCE = np.zeros(0, np.float32)


class Microphone(MediaStreamTrack):
    """Plays (S,) float32 at 48 kHz in real time, then silence. Where the machine stood still, it goes on later, not faster."""

    kind = "audio"

    def __init__(self, samples=_SILENCE):
        super().__init__()
        self.samples, self.start, self.number = samples, None, 0

    async def recv(self):
        loop = asyncio.get_running_loop()
        self.start = self.start if self.start is not None else loop.time()
        early = self.start + self.number * PACKET / RATE - loop.time()
        if early < -0.2:
            self.start -= early
        await asyncio.sleep(max(0.0, early))
        part = self.samples[self.number * PACKET :][:PACKET]
        whole = np.rint(np.pad(part, (0, PACKET - len(part))) * 32767).astype(np.int16)
        whole = np.repeat(whole, 2)  # stereo: aiortc 1.16 sends a mono frame 3 dB quieter
        frame = av.AudioFrame.from_ndarray(whole[None], format="s16", layout="stereo")
        frame.sample_rate, frame.time_base = RATE, fractions.Fraction(1, RATE)
        frame.pts = self.number * PACKET
        self.number += 1
        return frame


class Caller:
    """One caller.

    Attributes:
        events: that came on the data channel.
        heard: frames of the agent's track: (time of the loop, pts, (960,) float32 of the left channel).
        states: of the connection.
    """

    def __init__(self, samples=_SILENCE, channel="oai-events", microphone=True):
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.events, self.heard, self.states = [], [], []
        self.news = asyncio.Event()
        self.microphone = Microphone(samples)
        self._reading = None
        if microphone:
            self.connection.addTrack(self.microphone)
        else:
            self.connection.addTransceiver("audio", "recvonly")
        self.channel = self.connection.createDataChannel(channel) if channel else None
        if self.channel is not None:
            self.channel.on("message", self._came)
        self.connection.on("track", self._track)
        self.connection.on("connectionstatechange", self._state)

    def _state(self):
        self.states.append(self.connection.connectionState)
        self.news.set()

    def _came(self, message):
        self.events.append(json.loads(message))
        self.news.set()

    def _track(self, track):
        self._reading = asyncio.ensure_future(self._read(track))

    async def _read(self, track):
        try:
            while True:
                frame = await track.recv()
                left = frame.to_ndarray().reshape(-1, 2)[:, 0] / np.float32(32768)
                self.heard.append((asyncio.get_running_loop().time(), frame.pts, left))
                self.news.set()
        except MediaStreamError:
            pass

    async def offer(self):
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def take(self, answer):
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def until(self, happened, seconds=60.0):
        """Waits until `happened()`, which is asked when anything came."""

        async def wait():
            while not happened():
                self.news.clear()
                await self.news.wait()

        await asyncio.wait_for(wait(), seconds)

    async def has(self, kind, count=1):
        """Waits for the n-th event of a type, and returns it."""
        await self.until(lambda: len([e for e in self.events if e["type"] == kind]) >= count)
        return [e for e in self.events if e["type"] == kind][count - 1]

    def send(self, event):
        self.channel.send(json.dumps(event))

    def loud(self):
        """Of every packet that was heard, whether there is sound in it."""
        return [bool(np.abs(part).max() > 0.01) for *_, part in self.heard]

    @property
    def sound(self):
        """All that was heard, (S,) float32."""
        return np.concatenate([part for _, _, part in self.heard])


@asynccontextmanager
async def calling(*args, **options):
    """A caller that is closed at the end."""
    caller = Caller(*args, **options)
    try:
        yield caller
    finally:
        await caller.connection.close()


def chirp(seconds, low=300.0, high=3000.0, level=0.3):
    """(S,) float32 whose frequency rises, so that every moment of it differs."""
    t = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * (low * t + (high - low) * t**2 / (2 * seconds)))).astype(np.float32)


def place(signal, sound):
    """(sample of `sound` at which `signal` begins, correlation there, level there relative to the signal's)."""
    size = len(signal) + len(sound)
    products = np.fft.irfft(np.fft.rfft(sound, size) * np.conj(np.fft.rfft(signal, size)), size)[: len(sound)]
    start = int(np.argmax(products))
    found = sound[start : start + len(signal)]
    signal = signal[: len(found)]
    level = np.linalg.norm(found) / np.linalg.norm(signal)
    return start, float(found @ signal / np.linalg.norm(found) / np.linalg.norm(signal)), float(level)
