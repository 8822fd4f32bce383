from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nemo_duplex.conversation import Turn
from nemo_duplex.synthesis.mix import CUT_FADE, Acoustics, HeardWith, noise, place, resample, user_channel
from nemo_duplex.synthesis.transmission import Transmission
from nemo_duplex.synthesis.tts.utterance import Utterance

DRY = Acoustics(noise=0.0, room=0.0, leak=0.0)


def tone(seconds: float, rate: int, hz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def silence(samples: int):
    return lambda: np.zeros(samples, dtype=np.float32)


def db(power: float) -> float:
    return 10 * np.log10(power)


def test_resampling_keeps_a_tone_in_place():
    made, expected = resample(tone(1.0, 22050), 22050, 16000), tone(1.0, 16000)
    assert made.dtype == np.float32 and len(made) == 16000
    assert np.abs(made - expected)[200:-200].max() < 1e-3
    assert db(np.square(resample(tone(1.0, 22050, hz=10000.0), 22050, 16000)).mean()) < -40  # above 8 kHz: gone, not folded


def test_utterances_lie_at_their_turns():
    utterance = Utterance("a", tone(0.5, 22050), 22050)
    channel = place([(Turn("agent", 0.8, 1.3, "a"), utterance)], 22050 * 2, 22050)
    assert np.array_equal(channel[17640 : 17640 + 11025], utterance.audio)
    assert not channel[:17640].any() and not channel[17640 + 11025 :].any()
    short = place([(Turn("agent", 0.8, 1.3, "a"), utterance)], 22050, 22050)
    assert np.array_equal(short, channel[:22050]), "What is beyond the channel is left out."


def test_a_turn_that_was_cut_stops_at_its_end_and_fades_before_it():
    utterance = Utterance("a b", np.ones(22050, dtype=np.float32), 22050)
    channel = place([(Turn("agent", 0.0, 0.4, "a", full_text="a b"), utterance)], 22050, 22050)
    end, fade = round(0.4 * 22050), round(CUT_FADE * 22050)
    assert not channel[end:].any()
    assert (channel[: end - fade] == 1).all()
    assert (np.diff(channel[end - fade : end]) < 0).all() and channel[end - 1] == 0


def test_a_room_without_a_decay_is_none():
    speech = tone(1.0, 16000)
    dry, _ = user_channel(speech, silence(16000), 16000, DRY, np.random.default_rng(0))
    no_room = replace(DRY, room=1.0, room_decay=(0.0, 0.004))
    channel, done = user_channel(speech, silence(16000), 16000, no_room, np.random.default_rng(0))
    assert np.array_equal(channel, dry) and done["room_decay"] == 0.0


def test_speech_gets_the_level_that_is_written_down():
    speech = np.concatenate([np.zeros(8000, np.float32), tone(1.0, 16000)])
    channel, done = user_channel(speech, silence(24000), 16000, DRY, np.random.default_rng(0))
    assert set(done) == {"level_db"}
    assert db(np.square(channel[8000:]).mean()) == pytest.approx(done["level_db"], abs=0.1)
    assert not channel[:8000].any()


def test_noise_covers_the_whole_channel_at_the_ratio_that_is_written_down():
    speech = np.concatenate([np.zeros(32000, np.float32), tone(1.0, 16000)])
    acoustics = Acoustics(noise=1.0, room=0.0, leak=0.0)
    for seed in range(6):
        channel, done = user_channel(speech, silence(48000), 16000, acoustics, np.random.default_rng(seed))
        in_gap = db(np.square(channel[:32000]).mean())
        assert done["level_db"] - in_gap == pytest.approx(done["noise_snr_db"], abs=2.0)
        assert 8 <= done["noise_snr_db"] <= 35


@pytest.mark.parametrize(("color", "slope"), [("white", 0), ("pink", -3), ("brown", -6)])
def test_noise_falls_by_its_colour(color, slope):
    audio = noise(160000, 16000, color, np.random.default_rng(0))
    assert np.square(audio).mean() == pytest.approx(1.0, rel=1e-3)
    power = np.square(np.abs(np.fft.rfft(audio)))
    octaves = [db(power[10 * low : 20 * low].mean()) for low in (250, 500, 1000, 2000)]
    assert np.diff(octaves) == pytest.approx([slope] * 3, abs=0.6)


def test_where_nobody_speaks_there_is_noise_alone():
    channel, done = user_channel(np.zeros(16000, np.float32), silence(16000), 16000, Acoustics(), np.random.default_rng(0))
    assert set(done) == {"noise_level_db", "noise"}
    assert db(np.square(channel).mean()) == pytest.approx(done["noise_level_db"], abs=0.1)


def test_a_room_adds_an_echo_and_shifts_nothing():
    speech = np.concatenate([np.zeros(4000, np.float32), tone(0.5, 16000), np.zeros(8000, np.float32)])
    channel, done = user_channel(
        speech, silence(20000), 16000, Acoustics(noise=0.0, room=1.0, leak=0.0), np.random.default_rng(1)
    )
    assert "room_decay" in done
    assert np.abs(channel[:4000]).max() < 1e-6 < np.square(channel[12000:12800]).mean()
    lag = np.argmax(np.correlate(channel[4000:5000], speech[4000:4600], "valid"))
    assert lag == 0


def test_a_room_falls_by_60_db_over_its_decay():
    speech = np.zeros(16000, np.float32)
    speech[1000] = 1.0
    channel, done = user_channel(
        speech, silence(16000), 16000, Acoustics(noise=0.0, room=1.0, leak=0.0, room_decay=(0.4, 0.4)), np.random.default_rng(1)
    )
    assert done["room_decay"] == 0.4 and np.abs(channel[1000 + 6400 :]).max() < 1e-7
    echo = channel[1001 : 1000 + 6400].reshape(-1, 79)  # 81 pieces
    first, last = (np.square(piece).mean() for piece in (echo[:8], echo[-8:]))
    assert db(first / last) == pytest.approx(60 * 73 / 81, abs=2)


def test_noise_rooms_and_leaks_come_as_often_as_asked_for():
    speech = tone(0.05, 16000)
    drawn = [user_channel(speech, silence(800), 16000, Acoustics(), np.random.default_rng(seed))[1] for seed in range(400)]
    shares = [sum(key in done for done in drawn) / 400 for key in ("noise", "room_decay", "leak_db")]
    assert shares == pytest.approx([0.6, 0.25, 0.1], abs=0.06)
    assert all(-34 <= done["level_db"] <= -18 for done in drawn)


def test_the_agent_leaks_late_and_faintly():
    agent = tone(1.0, 16000, hz=1000.0)
    speech = np.concatenate([np.zeros(24000, np.float32), tone(0.5, 16000)])
    heard = np.concatenate([agent, np.zeros(16000, np.float32)])
    channel, done = user_channel(
        speech, lambda: heard, 16000, Acoustics(noise=0.0, room=0.0, leak=1.0), np.random.default_rng(0)
    )
    assert not channel[: round(0.02 * 16000)].any()
    assert db(np.square(channel[4000:14000]).mean() / np.square(agent).mean()) == pytest.approx(done["leak_db"], abs=0.2)
    assert -35 <= done["leak_db"] <= -25


def test_nothing_clips():
    speech = np.zeros(16000, np.float32)
    speech[::400] = 1.0  # peaks 26 dB over their mean
    loud = Acoustics(level_db=(-1.0, -1.0), noise=1.0, noise_snr_db=(0.0, 0.0))
    channel, _ = user_channel(speech, silence(16000), 16000, loud, np.random.default_rng(0))
    assert np.abs(channel).max() <= 0.99 + 1e-6


def heard_with(near=None, far=None, seed: int = 0) -> HeardWith:
    return HeardWith(near, far, np.random.default_rng(seed))


def test_other_sounds_are_as_loud_as_they_say_against_the_turns():
    speech = np.concatenate([np.zeros(16000, np.float32), tone(1.0, 16000)])
    near, far = np.zeros(32000, np.float32), np.zeros(32000, np.float32)
    near[2000:6000], far[8000:14000] = np.sqrt(2) * 2 * tone(0.25, 16000), np.sqrt(2) * 2 * tone(0.375, 16000)
    loud = replace(DRY, level_db=(-20.0, -20.0))
    channel, _ = user_channel(speech, silence(32000), 16000, loud, np.random.default_rng(0), heard_with(near, far))
    assert db(np.square(channel[2000:6000]).mean()) == pytest.approx(-20, abs=0.1)
    assert np.abs(channel[:1999]).max() < 1e-6 and np.abs(channel[6001:7900]).max() < 1e-6
    assert db(np.square(channel[8000:14000]).mean()) == pytest.approx(-17, abs=3), "The echo is about as loud as the voice."
    assert np.abs(channel[7000 : 8000 - 40]).max() < 1e-6 < 1e-4 < np.abs(channel[14500:15500]).max()
    alone, _ = user_channel(speech, silence(32000), 16000, loud, np.random.default_rng(0), heard_with())
    assert np.allclose(channel[20800:], alone[20800:], atol=1e-9)


@pytest.mark.parametrize("at", [1000, 4321, 9999])
def test_an_impulse_stays_in_place_through_everything(at):
    """Near, far and by the loudspeaker, through rooms and a microphone's balance."""
    impulse = np.zeros(16000, np.float32)
    impulse[at] = 1.0
    everything = Acoustics(
        noise=0.0, room=1.0, leak=0.0, transmission=Transmission(tilt=1.0, packet_loss=1.0, packets_lost=(0, 0))
    )
    for given, near, far in ((impulse, None, None), (0 * impulse, impulse, None), (0 * impulse, None, impulse)):
        speech = given if given.any() else np.pad(np.full(10, 1e-2, np.float32), (15990, 0))
        channel, _ = user_channel(speech, silence(16000), 16000, everything, np.random.default_rng(1), heard_with(near, far))
        assert np.argmax(np.abs(channel[:15900])) == at


def test_the_loudspeaker_distorts_and_echoes_as_loud_as_before():
    agent = np.concatenate([tone(0.5, 16000, hz=500.0), np.zeros(15000, np.float32)])
    speech = np.pad(tone(0.02, 16000), (22680, 0))
    leaking = Acoustics(noise=0.0, room=0.0, leak=1.0, leak_db=(-20.0, -20.0), leak_delay=(0.05, 0.05))

    def leak(**spec) -> tuple[np.ndarray, dict]:
        acoustics = replace(leaking, **spec)
        return user_channel(speech, lambda: agent, 16000, acoustics, np.random.default_rng(0), heard_with())

    clean, done = leak()
    assert done["leak_delay"] == 0.05 and "leak_drive" not in done and "leak_decay" not in done
    assert not clean[:800].any() and np.allclose(clean[800:8800], 0.1 * agent[:8000], atol=1e-6)
    driven, done = leak(leak_drive=(3.0, 3.0))
    assert done["leak_drive"] == 3.0
    assert db(np.square(driven[800:8800]).mean() / np.square(clean[800:8800]).mean()) == pytest.approx(0, abs=0.05)
    spectra = [np.abs(np.fft.rfft(audio[800:8800])) for audio in (clean, driven)]
    third = 1500 * 8000 // 16000
    assert spectra[0][third] < 1e-3 * spectra[0].max() and spectra[1][third] > 0.05 * spectra[1].max()
    echoing, done = leak(leak_decay=(0.3, 0.3))
    assert done["leak_decay"] == 0.3 and not clean[9000:12000].any() and np.abs(echoing[9000:12000]).max() > 1e-4
    assert not echoing[: 800 - 1].any() or np.abs(echoing[:799]).max() < 1e-6


def test_what_is_drawn_for_one_effect_does_not_depend_on_the_others():
    speech, agent = tone(0.5, 16000), tone(0.5, 16000)
    far = np.ones(8000, np.float32)
    spec = Acoustics(leak=1.0, leak_drive=(0.0, 3.0), transmission=Transmission(telephone=0.5, tilt=0.5, clipping=0.5))
    for seed in range(5):
        drawn = [
            user_channel(speech, lambda: agent, 16000, spec, np.random.default_rng(seed), heard_with(None, sound, seed))[1]
            for sound in (None, far)
        ]
        assert drawn[0] == drawn[1]
    without = user_channel(
        speech, lambda: agent, 16000, replace(spec, leak_drive=(0.0, 0.0)), np.random.default_rng(4), heard_with(None, None, 4)
    )[1]
    assert {k: v for k, v in drawn[0].items() if k != "leak_drive"} == without
