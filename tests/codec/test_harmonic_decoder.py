"""The decoder with a source of pulses and noise: the source, its pitch, and that parts equal the whole."""

from __future__ import annotations

import math

import pytest
import torch

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.harmonic_decoder import HarmonicDecoder, pulses
from nemo_duplex.codec.pitch import fundamental_phase, pitch_track
from nemo_duplex.inputs import InputError
from tests.codec.codecs import voice_config
from tests.codec.test_pitch import tone

RATE, FRAME, COLUMNS, HOP, WINDOW = 22050, 1764, 7, 252, 1008


def decoder(**changes) -> HarmonicDecoder:
    torch.manual_seed(0)
    sizes = dict(input_dim=4, samples_per_frame=FRAME, columns_per_frame=COLUMNS, sample_rate=RATE, frame_channels=8)
    return HarmonicDecoder(**(sizes | dict(channels=8, blocks=2, pitch_channels=8) | changes)).eval()


@torch.no_grad()
def plain_source(network: HarmonicDecoder, level: float, noise: float, frequency: float | None = None) -> HarmonicDecoder:
    """Makes it play its source as it is, at these levels (logarithms), and at one pitch if one is given."""
    network.head.weight.zero_()
    network.head.bias.view(3, -1).copy_(torch.tensor([level, 0.0, noise])[:, None])
    if frequency is not None:
        network.pitch_head.weight.zero_()
        network.pitch_head.bias.fill_(math.log2(frequency) - 0.5 * math.log2(55.0 * 550.0))
    return network


def test_pulses_are_a_sum_of_harmonics():
    cycles = torch.tensor([0.0, 1e-6, 0.1, 0.25, 0.5, 0.999, 7.3])
    expected = sum(torch.cos(2 * torch.pi * k * cycles.double()) for k in range(1, 21)).float()
    torch.testing.assert_close(pulses(cycles, torch.tensor([20.0])), expected, atol=2e-4, rtol=1e-4)


# ---------------------------------------------------------------------- parts and the whole


@pytest.mark.parametrize("sizes", [[1] * 40, [3, 1, 20, 16]], ids=["frame by frame", "uneven parts"])
@torch.no_grad()
def test_parts_equal_the_whole(sizes):
    network, codes = decoder(), torch.randn(2, 4, 40)
    whole, _ = network(codes, torch.tensor([40, 40]))
    buffers, parts = network.initial_buffers(2), []
    for part in codes.split(sizes, dim=2):
        audio, buffers = network.step(part, buffers)
        parts.append(audio)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_parts_equal_the_whole_after_two_minutes():
    """A phase that is summed in single precision, or a pitch that is computed in it, is another one by then."""
    network, codes = plain_source(decoder(), level=-3.0, noise=-20.0), torch.randn(1, 4, 1500)
    whole, _ = network(codes, torch.tensor([1500]))
    buffers = network.initial_buffers(1)
    for frame in codes.split(1, dim=2):
        audio, buffers = network.step(frame, buffers)
    assert audio.abs().max() > 0.05
    torch.testing.assert_close(audio, whole[:, -FRAME:], atol=1e-5, rtol=0)


@torch.no_grad()
def test_rows_of_any_age_stream_together():
    codec = FSQCodec(voice_config())
    codes = torch.randint(1000, (2, 4, 30))
    stream = codec.streaming_decoder()
    state = stream.init_state(2)
    for frame in codes[..., :7].split(1, dim=2):
        _, state = stream.step(frame, state)
    state.reset(torch.tensor([False, True]))
    rows = torch.stack([codes[0, :, 7:], codes[1, :, :23]])
    audio = torch.cat([(heard := stream.step(frame, state), state := heard[1])[0][0] for frame in rows.split(1, dim=2)], 1)
    whole, _ = codec.decode(codes, torch.tensor([30, 30]))
    torch.testing.assert_close(audio[0], whole[0, 7 * FRAME :], atol=1e-5, rtol=0)
    torch.testing.assert_close(audio[1], whole[1, : 23 * FRAME], atol=1e-5, rtol=0)


# ---------------------------------------------------------------------- the source


@torch.no_grad()
def test_a_constant_pitch_gives_whole_pulses():
    """Windows of neighbours agree: together they are the harmonics of one pitch, all of one level up to half the rate."""
    network = plain_source(decoder(), level=-4.0, noise=-30.0, frequency=210.0)
    audio, _ = network(torch.randn(1, 4, 12), torch.tensor([12]))
    middle = audio[0, 4 * FRAME : 10 * FRAME]
    count = math.floor(RATE / 2 / 210.0)
    time = torch.arange(len(middle), dtype=torch.float64)
    angles = 2 * torch.pi * 210.0 / RATE * time[:, None] * torch.arange(1, count + 1)
    basis = torch.cat([angles.cos(), angles.sin()], 1).float()
    weights = torch.linalg.lstsq(basis, middle[:, None]).solution[:, 0]
    levels = weights.view(2, -1).norm(dim=0)
    torch.testing.assert_close(levels[:-1], torch.full((count - 1,), 2 * math.exp(-4.0)), rtol=0.02, atol=0)
    assert (basis @ weights - middle).norm() < 0.02 * middle.norm()


@torch.no_grad()
def test_the_pitch_that_is_heard_is_the_one_of_the_codes():
    network = plain_source(decoder(), level=-3.0, noise=-30.0)
    network.pitch_head.weight.copy_(20 * network.pitch_head.weight[:1])  # one pitch for all columns of a frame
    network.pitch_head.bias.zero_()
    codes = torch.randn(1, 4, 6).repeat_interleave(6, dim=2)  # steps of 42 columns
    said = network.frequency(torch.cat([codes.new_zeros(1, 4, 2), codes], -1))[0]
    audio, _ = network(codes, torch.tensor([36]))
    heard, voiced = pitch_track(audio, RATE, HOP, WINDOW)
    steady = [j for j in range(7, 252) if 22 <= j % 42 <= 34]  # windows in which one pitch is said
    assert len(said[steady].round().unique()) >= 5 and voiced[0, steady].all()
    assert (heard[0, steady] / said[steady] - 1).abs().max() < 0.01


@torch.no_grad()
def test_noise_has_its_level_and_does_not_repeat_soon():
    network = plain_source(decoder(), level=-30.0, noise=-5.0)
    audio, _ = network(torch.randn(1, 4, 40), torch.tensor([40]))
    sound = audio[0, 2 * FRAME :]
    spectra = torch.stft(sound, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)[:, 4:-4]
    flat = spectra.abs().square().mean(1).sqrt()
    assert flat[5:-5].std() / flat.mean() < 0.15
    quarter = sound[: 4 * FRAME]
    similar = torch.nn.functional.conv1d(sound[None, None], quarter[None, None])[0, 0]
    assert similar[1:].abs().max() < 0.2 * similar[0]
    louder, _ = plain_source(network, level=-30.0, noise=-4.0)(torch.randn(1, 4, 40), torch.tensor([40]))
    torch.testing.assert_close(louder[0, 2 * FRAME :], math.e * sound, rtol=1e-3, atol=1e-5)


# ---------------------------------------------------------------------- training


@torch.no_grad()
def test_in_training_pulses_beat_with_the_recording():
    """Flat pulses through the phases of a recording are that recording, if it is one of flat pulses: whatever the codes say."""
    network = plain_source(decoder(), level=math.log(0.01), noise=-30.0, frequency=100.0)
    recording = pulses(200.0 / RATE * torch.arange(12 * FRAME) + 0.3, torch.tensor([55.0]))[None] * 0.02
    codes = torch.randn(1, 4, 12)
    followed, _ = network.follow(codes, recording)
    alone, _ = network(codes, torch.tensor([12]))
    inside = slice(2 * FRAME, 10 * FRAME)
    assert (followed - recording)[0, inside].norm() < 0.2 * recording[0, inside].norm()
    assert (alone - recording)[0, inside].norm() > recording[0, inside].norm()


@pytest.mark.parametrize("said, octaves", [(200.0, 0.0), (400.0, 1.0), (100.0, 1.0)])
def test_the_error_of_the_pitch_is_in_octaves_of_voiced_columns(said, octaves):
    network = plain_source(decoder(), 0.0, 0.0, said)
    recording = torch.cat([tone(200.0)[:, : 8 * FRAME], torch.zeros(1, 4 * FRAME)], 1)
    _, error = network.follow(torch.randn(1, 4, 12), recording)
    assert error.item() == pytest.approx(octaves, abs=0.02)
    _, error = network.follow(torch.randn(1, 4, 12), torch.zeros(1, 12 * FRAME))
    assert error.item() == 0.0


def test_codes_learn_the_pitch_from_its_error_alone_and_the_rest_from_the_sound():
    network, codes = decoder(), torch.randn(1, 4, 8, requires_grad=True)
    sound, error = network.follow(codes, tone(200.0)[:, : 8 * FRAME])
    sound.square().sum().backward()
    pitch = [*network.pitch.parameters(), *network.pitch_head.parameters()]
    assert all(p.grad is None for p in pitch) and network.head.weight.grad.abs().sum() > 0
    codes.grad = None
    network.follow(codes, tone(200.0)[:, : 8 * FRAME])[1].backward()
    assert all(p.grad.abs().sum() > 0 for p in pitch) and codes.grad.abs().sum() > 0


@torch.no_grad()
def test_a_pitch_stays_in_the_range_of_voices():
    network = decoder()
    network.pitch_head.bias.fill_(100.0)
    assert network.frequency(torch.zeros(1, 4, 3)).max() == pytest.approx(550.0)
    network.pitch_head.bias.fill_(-100.0)
    assert network.frequency(torch.zeros(1, 4, 3)).min() == pytest.approx(55.0)


@torch.no_grad()
def test_loud_spectra_stay_finite():
    network = decoder()
    network.head.bias.fill_(100.0)
    audio, _ = network(torch.randn(1, 4, 3), torch.tensor([3]))
    assert audio.isfinite().all()


def test_the_phase_of_what_is_decoded_goes_on():
    """From frame to frame too: the phase of the fundamental advances by the pitch."""
    network = plain_source(decoder(), level=-3.0, noise=-30.0, frequency=150.0)
    with torch.no_grad():
        audio, _ = network(torch.randn(1, 4, 20), torch.tensor([20]))
    phase = fundamental_phase(audio, torch.full((1, 140), 150.0), RATE, HOP, WINDOW)[0, 8:-8]
    steps = phase.diff() - 150.0 * HOP / RATE
    assert (steps - steps.round()).abs().max() < 1e-3


@torch.no_grad()
def test_weights_may_have_sixteen_bits():
    """Of an agent in bfloat16. The phase stays as exact: it is the pitch that may be another one."""
    network = decoder().to(torch.bfloat16)
    codes = torch.randn(1, 4, 30, dtype=torch.bfloat16)
    whole, _ = network(codes, torch.tensor([30]))
    buffers, parts = network.initial_buffers(1), []
    for frame in codes.split(1, dim=2):
        audio, buffers = network.step(frame, buffers)
        parts.append(audio)
    assert whole.isfinite().all() and whole.abs().max() > 0
    apart = (torch.cat(parts, 1) - whole).float().abs().max() / whole.float().abs().max()
    assert apart < 0.05  # products of bfloat16 have 8 bits


@torch.no_grad()
def test_sharpened_spectra_keep_their_shape_and_have_more_detail():
    """Of a smooth spectrum with a formant 200 Hz wide the formant rises by the share, and the rest stays; phases do too."""
    network = decoder()
    bins = WINDOW // 2 + 1
    places = torch.arange(bins) * RATE / WINDOW
    smooth, peak = -3.0 - places / 4000, torch.exp(-0.5 * ((places - 3000) / 85) ** 2)
    for part in (0, 2):
        network.head.bias.view(3, -1)[part] = smooth + peak
    before = network.head.bias.clone().view(3, -1)
    weight = network.head.weight.clone().view(3, bins, -1)
    network.sharpen(0.5)
    after = network.head.bias.view(3, -1)
    for part in (0, 2):
        change = after[part] - before[part] + (0.5 if part == 2 else 0.0)  # noise falls by as much
        assert change[places.sub(3000).abs().argmin()].item() == pytest.approx(0.5, abs=0.08)
        far = (places.sub(3000).abs() > 4000) & (places > 2000) & (places < 9000)
        assert change[far].abs().max() < 0.01
    assert torch.equal(after[1], before[1]) and torch.equal(network.head.weight.view(3, bins, -1)[1], weight[1])
    column = torch.randn(8)
    told = network.head(column).view(3, -1)
    expected = weight[0] @ column + before[0]
    near = torch.exp(-0.5 * ((places[:, None] - places) / 650.0) ** 2)
    expected = expected + 0.5 * (expected - near @ expected / near.sum(1))
    torch.testing.assert_close(told[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "changes, words",
    [(dict(columns_per_frame=4), "a hop of 441 samples is odd"), (dict(overlap=2), "overlap=2: squared windows")],
)
def test_geometries_that_cannot_be(changes, words):
    with pytest.raises(AssertionError, match=words):
        decoder(**changes)
    with pytest.raises(InputError, match=f"This codec config does not build: .*{words}"):
        FSQCodec(voice_config(**changes))


def test_nothing_is_sharpened_by_no_share():
    network = decoder()
    before = network.head.weight.clone()
    network.sharpen(0.0)
    assert torch.equal(network.head.weight, before)


@torch.no_grad()
def test_the_phase_is_the_sum_of_the_pitch_between_the_middles_of_windows(monkeypatch):
    """Half of what it is in the one window and half of what it is in the next, within a frame and from frame to frame."""
    network = decoder()
    network.pitch_head.bias.copy_(torch.linspace(-1.0, 1.0, COLUMNS))  # 87 to 348 Hz in each frame
    phases, frequencies = [], []
    sound = HarmonicDecoder._sound

    def heard(self, x, frequency, phase, columns):
        frequencies.append(frequency)
        phases.append(phase)
        return sound(self, x, frequency, phase, columns)

    monkeypatch.setattr(HarmonicDecoder, "_sound", heard)
    buffers = network.initial_buffers(2)
    for frame in torch.randn(2, 4, 5).split(1, dim=2):
        _, buffers = network.step(frame, buffers)
    phase, frequency = torch.cat(phases, 1), torch.cat(frequencies, 1)
    apart = phase.diff() - HOP / RATE * (frequency[:, 1:] + frequency[:, :-1]) / 2
    assert frequency.max() > 2 * frequency.min() and (apart - apart.round()).abs().max() < 1e-9
