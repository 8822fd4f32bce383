"""The tracks of a WebRTC call without a network: packets in order, the agent's turns in packets of 20 ms."""

import fractions

import av
import numpy as np
import pytest
import scipy.signal
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtpPacket
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_duplex.serving.protocols.webrtc.audio import PACKET, SAMPLE_RATE, AgentTrack, PacketOrder, TurnQueue, hear, mono
from tests.serving.protocols.webrtc.caller import chirp, place
from tests.virtual_time import run

FRAME = 4 * PACKET


def arrive(*numbers, order=None):
    """What each packet makes the order hand out, by number."""
    order = order or PacketOrder()
    return [[packet.sequence_number for packet in order.add(RtpPacket(sequence_number=number))] for number in numbers]


def test_packets_in_order_are_not_held_back():
    assert arrive(65534, 65535, 0, 1) == [[65534], [65535], [0], [1]]


def test_a_packet_that_is_overtaken_is_waited_for():
    assert arrive(7, 9, 10, 8, 11) == [[7], [], [], [8, 9, 10], [11]]


def test_a_lost_packet_is_waited_for_until_four_later_ones_are_there():
    assert arrive(65533, 65535, 0, 1, 2, 65534, 3) == [[65533], [], [], [], [65535, 0, 1, 2], [], [3]]


def test_after_two_losses_only_what_follows_the_first_is_handed_out():
    assert arrive(1, 3, 4, 6, 7, 8, 9) == [[1], [], [], [], [3, 4], [], [6, 7, 8, 9]]


def test_a_copy_is_dropped():
    assert arrive(1, 1, 3, 3, 2, 2) == [[1], [], [], [], [2, 3], []]


@pytest.mark.parametrize("number", [1101, 64636], ids=["ahead", "behind"])
def test_a_sender_that_begins_again_is_followed(number):
    assert arrive(100, 102, number, number + 1) == [[100], [], [number], [number + 1]]


@given(
    st.permutations(range(3)).flatmap(lambda _: st.lists(st.permutations(range(3)), min_size=1, max_size=30)),
    st.integers(0, 65535),
)
@settings(max_examples=60, deadline=None)
def test_packets_that_are_mixed_up_a_little_come_out_complete(groups, first):
    mixed = [first] + [(first + 1 + 3 * n + shift) % 65536 for n, group in enumerate(groups) for shift in group]
    handed = [number for ready in arrive(*mixed) for number in ready]
    assert handed == [(first + n) % 65536 for n in range(len(mixed))]


def frame_of(samples, pts=0, layout="stereo"):
    channels = 2 if layout == "stereo" else 1
    whole = np.repeat(np.rint(samples * 32768).astype(np.int16), channels)
    frame = av.AudioFrame.from_ndarray(whole[None], format="s16", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, pts, fractions.Fraction(1, SAMPLE_RATE)
    return frame


def test_the_callers_channels_become_one_at_the_same_level():
    whole = np.stack([np.full(PACKET, 16384, np.int16), np.full(PACKET, -8192, np.int16)], 1).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="stereo")
    assert mono(frame).dtype == np.float32 and np.array_equal(mono(frame), np.full(PACKET, 0.125, np.float32))
    assert np.array_equal(mono(frame_of(np.full(PACKET, 0.5), layout="mono")), np.full(PACKET, 0.5, np.float32))


class Track:
    """A track of given frames."""

    def __init__(self, frames):
        self.frames = list(frames)

    async def recv(self):
        if not self.frames:
            raise MediaStreamError
        return self.frames.pop(0)


class Heard:
    """Stands in for a call: what was pushed."""

    def __init__(self):
        self.parts = []

    async def push(self, samples):
        assert samples.dtype == np.float32
        self.parts.append(samples)


def pushed(frames):
    call = Heard()
    run(hear(Track(frames), call))
    return np.concatenate(call.parts)


def test_silence_takes_the_place_of_lost_packets():
    sound = pushed([frame_of(np.full(PACKET, 0.25), pts) for pts in (0, PACKET, 4 * PACKET)])
    levels = [0.25, 0.25, 0.0, 0.0, 0.25]
    assert np.array_equal(sound, np.repeat(np.float32(levels), PACKET))


def test_a_pause_of_more_than_half_a_second_is_not_filled_here():
    assert len(pushed([frame_of(np.zeros(PACKET), pts) for pts in (0, 27 * PACKET)])) == 2 * PACKET
    assert len(pushed([frame_of(np.zeros(PACKET), pts) for pts in (0, 26 * PACKET)])) == 27 * PACKET


def test_audio_that_is_sent_faster_than_it_is_spoken_is_dropped_after_two_seconds():
    sound = pushed(frame_of(np.zeros(PACKET), number * PACKET) for number in range(500))
    assert len(sound) == 2 * SAMPLE_RATE + PACKET


def ramp(frames, start=0):
    """Frames of 80 ms at 48 kHz whose samples tell where they are: 1, 2, 3 ... in 16 bits."""
    return np.arange(start * FRAME + 1, (start + frames) * FRAME + 1, dtype=np.float32) / 32768


class Queue(TurnQueue):
    """Keeps what happened."""

    def __init__(self):
        self.told = []
        super().__init__(SAMPLE_RATE, self.told.append)

    def packet(self):
        samples = super().packet()
        assert samples.shape == (PACKET,) and samples.dtype == np.int16
        return samples / np.float32(32768)

    def packets(self, count):
        return np.concatenate([self.packet() for _ in range(count)])


def test_a_turn_is_played_whole_in_packets_and_its_end_is_padded():
    queue = Queue()
    assert not queue.packets(2).any() and not queue.told
    queue.play("a", ramp(1))
    queue.play("a", ramp(1, 1)[:1000])
    queue.finish()
    sound = queue.packets(7)
    assert np.array_equal(sound[: FRAME + 1000], ramp(2)[: FRAME + 1000]) and not sound[FRAME + 1000 :].any()
    assert queue.told == ["a"] and queue.gaps == 0


def test_a_turn_begins_40_ms_after_its_first_frame_or_when_it_is_complete():
    queue = Queue()
    queue.play("a", ramp(1)[:100])
    assert not queue.packets(2).any()
    queue.play("a", ramp(1)[100:])
    assert np.array_equal(queue.packets(4), ramp(1))
    short = Queue()
    short.play("a", ramp(1)[:10])
    short.finish()
    assert np.array_equal(short.packet(), np.pad(ramp(1)[:10], (0, PACKET - 10))) and short.told == ["a"]


def test_the_next_turn_follows_the_one_before():
    queue = Queue()
    queue.play("a", ramp(1))
    queue.play("b", ramp(1, 1))
    queue.finish()
    assert np.array_equal(queue.packets(8), ramp(2))
    assert queue.told == ["a", "b"]


def test_what_is_cleared_is_not_played_and_how_much_was_heard_is_told():
    queue = Queue()
    queue.play("a", ramp(2))
    queue.packets(5)
    queue.play("b", ramp(1))
    assert queue.clear() == {"a": 0.06, "b": 0.0}
    queue.play("b", ramp(1))  # of the turn that was cut
    assert not queue.packets(3).any() and queue.told == [] and queue.clear() == {}
    queue.play("c", ramp(1))
    assert np.array_equal(queue.packets(3)[2 * PACKET :], ramp(1)[:PACKET])


def turn(queue, name, late=0):
    """Plays a turn of two frames, the second so many packets too late; returns after how many packets it began."""
    queue.play(name, ramp(1))
    packets = [queue.packet()]
    while not packets[-1].any():
        packets.append(queue.packet())
    lead = len(packets) - 1
    packets += [queue.packet() for _ in range(3 + late)]
    queue.play(name, ramp(1, 1))
    queue.finish()
    packets += [queue.packet() for _ in range(5)]
    heard = [packet for packet in packets if packet.any()]
    assert np.array_equal(np.concatenate(heard), ramp(2))
    return lead


def test_a_late_frame_leaves_a_gap_loses_nothing_and_makes_the_next_turn_wait_longer():
    queue = Queue()
    assert turn(queue, "a", late=2) == 2 and queue.gaps == 2
    assert turn(queue, "b") == 3 and queue.gaps == 2
    assert turn(queue, "c") == 2


def test_the_lead_stays_between_nothing_and_200_ms():
    queue = Queue()
    assert [turn(queue, str(number)) for number in range(4)] == [2, 1, 0, 0]
    assert [turn(queue, f"late {number}", late=1) for number in range(12)] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10]


def test_the_rate_is_changed_once_per_turn():
    queue = TurnQueue(22050)
    signal = chirp(0.8)

    agent = scipy.signal.resample_poly(signal, 147, 320).astype(np.float32)
    for start in range(0, len(agent), 1764):
        queue.play("a", agent[start : start + 1764])
    queue.finish()
    sound = np.concatenate([queue.packet() for _ in range(44)]) / np.float32(32768)
    start, alike, level = place(signal[:-480], sound)
    assert start in (0, 1) and alike > 0.999 and level == pytest.approx(1, abs=0.01)


def received(track, count):
    """So many packets of a track, and their sound as a caller decodes it."""

    async def take():
        return [await track.recv() for _ in range(count)]

    packets = run(take())
    decoder = av.CodecContext.create("libopus", "r")
    decoder.format, decoder.layout, decoder.sample_rate = "s16", "stereo", SAMPLE_RATE
    sound = [mono(frame) for packet in packets for frame in decoder.decode(av.Packet(bytes(packet)))]
    return packets, np.concatenate(sound)


def test_the_agents_track_is_opus_with_a_time_for_every_20_ms():
    queue, signal = TurnQueue(SAMPLE_RATE), chirp(0.4)
    queue.play("a", signal)
    packets, sound = received(AgentTrack(queue), 25)
    assert len(sound) == 25 * PACKET and [packet.pts for packet in packets] == [number * PACKET for number in range(25)]
    assert {packet.time_base for packet in packets} == {fractions.Fraction(1, SAMPLE_RATE)}
    start, alike, level = place(signal, sound)
    assert 0 <= start - 2 * PACKET < 400 and alike > 0.95 and level == pytest.approx(1, abs=0.1)  # the codec's delay is 6.5 ms


def test_silence_is_encoded_a_few_times_and_sound_after_it_is_whole():
    queue, signal = TurnQueue(SAMPLE_RATE), chirp(0.2)
    track = AgentTrack(queue)
    before, silence = received(track, 12)
    assert len({bytes(packet) for packet in before[5:]}) == 1 and np.abs(silence).max() < 7e-5  # two steps of 16 bits
    queue.play("a", signal)
    _, sound = received(track, 15)
    start, alike, _ = place(signal, sound)
    assert 0 <= start - 2 * PACKET < 400 and alike > 0.95


def test_a_track_that_is_late_skips_time_instead_of_hurrying():
    track = AgentTrack(TurnQueue(SAMPLE_RATE))

    async def stalled():
        first = await track.recv()
        track._start -= 1.0  # the event loop stood still for a second
        return first, await track.recv(), await track.recv()

    first, second, third = run(stalled())
    assert (first.pts, second.pts, third.pts) == (0, 50 * PACKET, 51 * PACKET) and track.skipped == 49


def test_a_track_that_was_stopped_ends():
    track = AgentTrack(TurnQueue(SAMPLE_RATE))
    track.stop()
    with pytest.raises(MediaStreamError):
        run(track.recv())
