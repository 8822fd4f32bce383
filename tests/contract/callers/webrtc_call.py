"""aiortc as a WebRTC caller of /v1/realtime/calls; the offer goes out as a browser, or the openai package, sends it.

Job: base_url, key, audio (pcm16 at 48 kHz), offer ("openai": the package's `realtime.calls.create`, a form with a session;
"sdp": application/sdp alone), steps (`call.follow`; events go over the data channel).
Reports: status (of the answer), location, events, heard (seconds of each stretch of sound), heard_s (their sum), failed.
"""

from __future__ import annotations

import array
import asyncio
import fractions
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import openai
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame
from call import PATIENCE, Seen, follow, job, report

RATE, SAMPLES = 48000, 960


class Microphone(MediaStreamTrack):
    """20 ms at a time, in real time; silence where nothing is said."""

    kind = "audio"

    def __init__(self, question: bytes) -> None:
        super().__init__()
        self._question, self._place, self._begun, self._count = question, len(question), 0.0, 0
        self.muted = False  # as `call.follow` sets it; a WebRTC caller sends silence then

    def speak(self) -> None:
        self._place = 0

    async def recv(self) -> AudioFrame:
        self._begun = self._begun or time.monotonic()
        await asyncio.sleep(max(0.0, self._begun + self._count * SAMPLES / RATE - time.monotonic()))
        sound = b"" if self.muted else self._question[self._place : self._place + 2 * SAMPLES]
        self._place += len(sound)
        frame = AudioFrame(format="s16", layout="mono", samples=SAMPLES)
        frame.planes[0].update(sound + bytes(2 * SAMPLES - len(sound)))
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._count * SAMPLES, fractions.Fraction(1, RATE)
        self._count += 1
        return frame


async def send_offer(task: dict[str, Any], sdp: str) -> tuple[int, str | None, str]:
    """Status, Location and body of the answer."""
    if task["offer"] == "openai":
        client = openai.AsyncOpenAI(base_url=task["base_url"], api_key=task["key"])
        answer = await client.realtime.calls.with_raw_response.create(sdp=sdp, session=task["session"])
        return answer.status_code, answer.headers.get("location"), answer.text
    headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {task['key']}"}
    request = urllib.request.Request(task["base_url"] + "/realtime/calls?model=duplex", sdp.encode(), headers)

    def post() -> tuple[int, str | None, str]:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.headers.get("Location"), answer.read().decode()

    return await asyncio.to_thread(post)


async def main() -> None:
    task, seen = job(), Seen()
    microphone, peer, opened = Microphone(Path(task["audio"]).read_bytes()), RTCPeerConnection(), asyncio.Event()
    peer.addTrack(microphone)
    channel = peer.createDataChannel("oai-events")
    channel.on("open", opened.set)
    channel.on("message", lambda text: asyncio.ensure_future(seen.add(json.loads(text))))
    stretches, listening = [0.0], []

    @peer.on("track")
    def agent(track: MediaStreamTrack) -> None:
        async def listen() -> None:
            quiet = 0
            while True:
                try:
                    frame = await track.recv()
                except MediaStreamError:
                    return
                samples = array.array("h", bytes(frame.planes[0])[: 4 * frame.samples])
                if max(max(samples), -min(samples)) > 8:
                    stretches[-1] += frame.samples / frame.sample_rate
                    quiet = 0
                elif (quiet := quiet + 1) == 25 and stretches[-1]:
                    stretches.append(0.0)

        listening.append(asyncio.ensure_future(listen()))

    await peer.setLocalDescription(await peer.createOffer())
    status, location, answer = await send_offer(task, peer.localDescription.sdp)
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await asyncio.wait_for(opened.wait(), PATIENCE)

    async def send(event: dict[str, Any]) -> None:
        channel.send(json.dumps(event))

    failed = await follow(task["steps"], seen, microphone, send)
    await peer.close()
    await asyncio.gather(*listening)
    heard = [round(stretch, 2) for stretch in stretches if stretch]
    report(status=status, location=location, events=seen.events, heard_s=sum(heard), heard=heard, failed=failed)


asyncio.run(main())
