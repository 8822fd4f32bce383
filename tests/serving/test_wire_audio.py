"""Audio as bytes: PCM, and G.711 by the values of the recommendation."""

import numpy as np
import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.serving.wire_audio import AgentAudio, WireFormat, WireReader

#: Codes and their samples of 16 bits: largest, smallest steps, zeros, one in the middle (ITU-T G.711, tables 1 and 2, shifted).
KNOWN = {
    "ulaw": {0x00: -32124, 0x80: 32124, 0x0F: -16764, 0x7E: -8, 0xFE: 8, 0x7F: 0, 0xFF: 0, 0xF0: 120, 0xEF: 132, 0x9B: 10364},
    "alaw": {0xD5: 8, 0x55: -8, 0xAA: 32256, 0x2A: -32256, 0xD4: 24, 0xC5: 264, 0xC4: 280, 0x95: 2112, 0x80: 5504},
}


@pytest.mark.parametrize("encoding", KNOWN)
def test_codes_mean_what_the_recommendation_says(encoding):
    wire = WireFormat(encoding, 8000)
    decoded = wire.decode(bytes(KNOWN[encoding])) * 32768
    assert decoded.tolist() == list(KNOWN[encoding].values())


@pytest.mark.parametrize("encoding", KNOWN)
def test_every_sample_becomes_the_nearest_code(encoding):
    wire = WireFormat(encoding, 8000)
    samples = np.arange(-32768, 32768, 7, dtype=np.float32) / 32768
    values = np.unique(wire.decode(bytes(range(256))))
    nearest = np.abs(values[None] - samples[:, None]).min(axis=1)
    assert np.allclose(np.abs(wire.decode(wire.encode(samples)) - samples), nearest, atol=1e-9)


@pytest.mark.parametrize("encoding", KNOWN)
def test_codes_survive_a_round_trip(encoding):
    wire = WireFormat(encoding, 8000)
    values = wire.decode(bytes(range(256)))
    assert np.array_equal(wire.decode(wire.encode(values)), values)


def test_pcm_is_little_endian_and_clipped():
    wire = WireFormat("pcm16", 24000)
    assert (
        wire.encode(np.array([0.0, 1 / 32768, -1.0, 1.0, 7.0, -7.0], np.float32)).hex(" ", 2) == "0000 0100 0080 ff7f ff7f 0080"
    )
    assert wire.decode(bytes.fromhex("00400080")).tolist() == [0.5, -1.0]
    assert wire.decode(b"").tolist() == [] and wire.decode(b"\x01").tolist() == []


@pytest.mark.parametrize("sizes", [[1], [3], [2, 5], [7]])
def test_a_stream_may_be_cut_within_a_sample(sizes):
    data = np.arange(-50, 50, dtype="<i2").tobytes()
    reader, samples, at, turn = WireReader(WireFormat("pcm16", 24000)), [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        samples.append(reader.push(data[at : at + size]))
        at, turn = at + size, turn + 1
    assert (np.concatenate(samples) * 32768).tolist() == list(range(-50, 50))


def test_a_stream_of_the_telephone_is_a_byte_a_sample():
    reader = WireReader(WireFormat("ulaw", 8000))
    assert len(reader.push(b"\xff")) == 1 and len(reader.push(b"\xff" * 3)) == 3


def test_the_agents_frames_come_at_the_callers_rate():
    """Late by the filter's reach, and complete but for it."""
    sound = AgentAudio(22050, 24000)
    lengths = [len(sound.frame(np.zeros(1764, np.float32))) for _ in range(10)]
    assert lengths[1:] == [1920] * 9 and 1920 - 64 < lengths[0] < 1920
    same = np.ones(1764, np.float32)
    assert AgentAudio(22050, 22050).frame(same) is same


def test_a_rate_that_nobody_sends_is_refused():
    with pytest.raises(
        InputError, match="Audio of 11025 Hz is not supported, expected one of 8000, 16000, 24000, 44100, 48000 Hz."
    ):
        WireFormat("pcm16", 11025)
