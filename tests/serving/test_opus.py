"""Opus in Ogg: complete from the first sample on, whatever happens to the bytes."""

import io

import numpy as np
import pytest
import soundfile
import sphn
from scipy.signal import resample_poly

from nemo_duplex.serving.opus import OggReader, OpusReader, OpusWriter, sealed

#: What an encoder is late by, at 24 kHz.
DELAY = 156


def noise(samples, seed=0, rate=24000):
    """Noise up to 7 kHz: every shift by a sample shows."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    spectrum[int(len(spectrum) * 14000 / rate) :] = 0
    sound = np.fft.irfft(spectrum, samples)
    return (0.2 * sound / sound.std()).astype(np.float32)


def lateness(heard, said):
    """By how many samples `heard` is behind `said`."""
    size = 1 << (len(heard) + len(said)).bit_length()
    match = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(said, size)))
    best = int(np.argmax(match))
    return best if best < size // 2 else best - size


def pages(data):
    """Whole Ogg pages."""
    cut = []
    while data:
        segments = data[26]
        size = 27 + segments + sum(data[27 : 27 + segments])
        cut.append(data[:size])
        data = data[size:]
    return cut


def page(packets, flags=0, serial=7, number=0, last_is_open=False):
    """A page of packets."""
    table = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    table = table[:-1] if last_is_open else table  # its last packet, of a multiple of 255 bytes, goes on in the next page
    header = b"OggS\x00" + bytes([flags]) + bytes(8) + serial.to_bytes(4, "little") + number.to_bytes(4, "little")
    return sealed(header + bytes(4) + bytes([len(table)]) + table + b"".join(packets))


def encoded(samples, rate=24000):
    writer = sphn.OpusStreamWriter(rate)
    return b"".join(writer.append_pcm(samples[start : start + 1920]) for start in range(0, len(samples), 1920))


def decoded(data, cut=4096):
    """The samples of a stream that comes in pieces, and how many pieces of it were passed over."""
    reader = OpusReader(24000)
    parts = [part for start in range(0, len(data), cut) for part in reader.push(data[start : start + cut])]
    return np.concatenate(parts or [np.zeros(0, np.float32)]), reader.broken


def test_players_that_skip_what_the_header_says_lose_nothing_and_others_hear_it_6_5_ms_late():
    said, lead = noise(48000), 48
    writer = OpusWriter(24000, lead)
    first = writer.push(np.concatenate([np.zeros(lead, np.float32), said[: 1920 - lead]]))
    data = first + b"".join(writer.push(said[start : start + 1920]) for start in range(1920 - lead, 48000, 1920))
    player, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == 48000 and abs(lateness(player, resample_poly(said, 2, 1))) <= 1
    assert np.corrcoef(player[:1920], resample_poly(said, 2, 1)[:1920])[0, 1] > 0.5  # the first 40 ms are there
    client = sphn.OpusStreamReader(24000).append_bytes(data)
    assert abs(lateness(client, said) - lead - DELAY) <= 1 and len(client) == 48000
    assert [len(samples) for samples in OpusReader(24000).push(first)] == [960, 960]


def test_the_reader_gives_every_sample_however_the_bytes_are_cut():
    said = noise(24000 * 8)
    data = encoded(said)
    whole, broken = decoded(data, len(data))  # sphn alone would fail after 5 s of sound at once
    assert len(whole) == len(said) and broken == 0
    assert abs(lateness(whole, said) - DELAY) <= 1
    for cut in (1, 2, 27, 100, 4096):
        assert np.array_equal(decoded(data[:20000], cut)[0], whole[: len(decoded(data[:20000])[0])])


@pytest.mark.parametrize(("rate", "channels"), [(48000, 1), (48000, 2), (16000, 1)])
def test_streams_of_other_encoders_are_read_from_their_first_sample(rate, channels):
    said = noise(rate * 2, rate=rate)
    file = io.BytesIO()
    soundfile.write(file, np.stack([said] * channels, 1), rate, "OPUS", format="OGG")
    heard, broken = decoded(file.getvalue())
    assert broken == 0 and len(heard) >= 48000
    same = resample_poly(said, 24000 // 8000, rate // 8000)
    # what its header says to skip is kept: 6.5 ms of an encoder
    assert abs(lateness(heard, same) - DELAY) <= 1


def test_a_broken_page_costs_its_own_40_ms():
    said = noise(48000)
    parts = pages(encoded(said))
    spoiled = bytearray(parts[20])
    spoiled[60] ^= 1
    heard, broken = decoded(b"".join([*parts[:20], bytes(spoiled), *parts[21:]]))
    whole, _ = decoded(b"".join(parts))
    assert broken == 1 and len(heard) == len(whole) - 960
    assert np.array_equal(heard[: 18 * 960], whole[: 18 * 960])  # two pages are headers
    assert abs(lateness(heard[18 * 960 :], said[19 * 960 :]) - DELAY) <= 1


@pytest.mark.parametrize("rubbish", [b"no Ogg at all", b"OggS", b"OggS\x00" + b"\xff" * 400, bytes(3000)])
def test_bytes_that_are_no_page_are_passed_over_and_the_next_page_is_read_at_once(rubbish):
    parts = pages(encoded(noise(9600)))
    reader = OpusReader(24000)
    counts = [sum(map(len, reader.push(piece))) for piece in [*parts[:4], rubbish, *parts[4:]]]
    assert counts == [0, 0, 960, 960, 0] + [960] * (len(parts) - 4)
    assert reader.broken >= 1


def test_the_end_of_a_page_that_never_comes_does_not_hold_up_the_next_one():
    parts = pages(encoded(noise(9600)))
    reader = OpusReader(24000)
    counts = [sum(map(len, reader.push(piece))) for piece in [*parts[:3], parts[3][:-30], *parts[4:]]]
    assert counts == [0, 0, 960, 0] + [960] * (len(parts) - 4)


def test_a_stream_that_begins_in_the_middle_is_read_and_a_new_one_begins_afresh():
    one, two = encoded(noise(9600, 1)), encoded(noise(9600, 2))
    middle, broken = decoded(b"".join(pages(one)[5:]))
    assert len(middle) == 7 * 960 and broken == 0
    both, broken = decoded(one + two)
    assert broken == 0 and np.array_equal(both, np.concatenate([decoded(one)[0], decoded(two)[0]]))


def test_other_streams_in_the_same_ogg_are_left_out():
    data = encoded(noise(1920))
    vorbis = page([b"\x01vorbis" + bytes(22)], flags=2) + page([b"\x03vorbis" + bytes(40), bytes(900)], number=1)
    heard, broken = decoded(vorbis + data + page([bytes(100)], number=2))
    assert broken == 0 and np.array_equal(heard, decoded(data)[0])


def test_packets_run_over_pages_and_empty_ones_are_left_out():
    reader = OggReader()
    long, other = bytes(range(255)) * 2, b"after"
    one = page([b"before", long], number=3, last_is_open=True)
    two = page([b"tail", b"", other], flags=1, number=4)
    assert list(reader.push(one)) == [b"before"]
    assert list(reader.push(two)) == [long + b"tail", other]
    # without its beginning, the rest of a packet is none
    assert list(OggReader().push(two)) == [other]
    assert list(OggReader().push(one + page([b"tail", other], flags=1, number=5))) == [b"before", other]
    assert list(OggReader().push(one + page([other], number=4))) == [b"before", other]
    assert list(OggReader().push(one + page([b"tail", other], flags=1, serial=8, number=4))) == [b"before", other]


def test_packets_that_are_no_opus_are_passed_over():
    parts = pages(encoded(noise(9600)))
    reader = OpusReader(24000)
    strange = page([b"\xff\xff\xff no Opus packet"], number=99)
    counts = [sum(map(len, reader.push(piece))) for piece in [*parts[:4], strange, *parts[4:]]]
    assert counts == [0, 0, 960, 960, 0] + [960] * (len(parts) - 4) and reader.broken == 1


def test_bytes_that_only_look_like_pages_cost_little():
    reader = OggReader()
    begins = b"OggS\x00\x00" + bytes(20) + b"\x02\xff\xff"
    for _ in range(60):
        assert list(reader.push(begins * 140)) == []
        assert len(reader._bytes) <= 65536
    assert list(reader.push(bytes(70000) + page([b"packet"]))) == [b"packet"]


def test_a_packet_that_holds_the_sign_of_a_page_is_read_however_it_is_cut():
    data = page([b"before" + b"OggS" * 20 + b"after"]) + page([b"next"], number=1)
    reader = OggReader()
    packets = [packet for place in range(len(data)) for packet in reader.push(data[place : place + 1])]
    assert packets == [b"before" + b"OggS" * 20 + b"after", b"next"] and reader.broken == 0
