"""`/api/chat` over a real socket, as Moshi's clients speak it."""

import asyncio

import numpy as np
import sphn
import websockets

from tests.serving.answering import ANSWER

#: 0.5 s of silence, 1.2 s of "speech", 3 s of silence, at 24 kHz.
QUESTION = np.concatenate(
    [np.zeros(12000), 0.3 * np.sin(np.arange(28800) * 0.2) * (np.arange(28800) % 6000 < 4500), np.zeros(72000)]
).astype(np.float32)


async def converse(address, samples, frames, query=""):
    """Sends all at once, without waiting for the handshake, as Moshi's command-line client: the messages of so many frames."""
    writer, messages, heard = sphn.OpusStreamWriter(24000), [], 0
    async with websockets.connect(f"ws://{address}/api/chat?{query}", max_size=None) as socket:
        for start in range(0, len(samples), 1920):
            await socket.send(b"\x01" + writer.append_pcm(samples[start : start + 1920]))
        while heard < frames:
            message = await asyncio.wait_for(socket.recv(), 10)
            messages.append(message)
            heard += message[0] == 1
    return messages


def test_the_handshake_comes_first_then_sound_of_every_frame_and_the_words_with_their_blanks(server):
    messages = asyncio.run(converse(server, QUESTION, 60))
    assert messages[0] == b"\x00" and {message[0] for message in messages[1:]} == {1, 2}
    reader = sphn.OpusStreamReader(24000)
    assert [len(reader.append_bytes(message[1:])) for message in messages if message[0] == 1] == [1920] * 60
    assert b"".join(message[1:] for message in messages if message[0] == 2).decode() == " " + ANSWER
