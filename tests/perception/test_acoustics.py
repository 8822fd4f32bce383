import math

import numpy as np
import pytest
import soundfile

from nemo_duplex.inputs import InputError
from nemo_duplex.perception.acoustics import AcousticChain, Augmentation, in_room, room_response, stretch
from nemo_duplex.synthesis.transmission import by_telephone

EVERYTHING = {
    "speed": (0.85, 1.15), "room": 1.0, "babble": 1.0, "noise": 1.0, "lowpass": 1.0, "tilt": 1.0, "clipping": 1.0,
    "telephone": 1.0, "packet_loss": 1.0, "gain_db": (-10.0, 6.0),
}  # fmt: skip


def talk(rng):
    return (0.1 * rng.standard_normal(5000)).astype(np.float32)


def chain(**keys):
    return AcousticChain(Augmentation(**keys), talk)


def applied(audio, speech=None, seed=0, **keys):
    """What is heard of `audio`, which is speech throughout unless said otherwise."""
    heard = chain(**keys).apply(audio, speech or [(0, len(audio))], np.random.default_rng(seed))
    assert heard.audio.dtype == np.float32
    return heard


def voice(samples=16000, level=0.02, seed=7):
    return (level * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def db(power):
    return 10 * math.log10(power)


def power(audio, *spans):
    parts = np.concatenate([np.float64(audio[a:b]) for a, b in spans or [(0, len(audio))]])
    return float(np.mean(np.square(parts)))


def band_db(before, after, low, high):
    """Gain in dB between two frequencies."""
    inside = slice(round(low * len(before) / 16000), round(high * len(before) / 16000))
    return db(*(power(abs(np.fft.rfft(after))[inside]) / power(abs(np.fft.rfft(before))[inside]),))


def test_by_default_nothing_happens():
    heard = applied(voice())
    assert np.array_equal(heard.audio, voice()) and heard.speed == 1.0


# --- speed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [0.85, 1.0, 1.15])
def test_speed_moves_times_and_pitch_by_the_factor_that_is_returned(speed):
    time = np.arange(32000) / 16000
    tone = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    heard = applied(tone, speed=(speed, speed))
    assert heard.speed == speed and len(heard.audio) == math.ceil(32000 / speed)
    spectrum = abs(np.fft.rfft(heard.audio * np.hanning(len(heard.audio))))
    assert spectrum.argmax() * 16000 / len(heard.audio) == pytest.approx(440 * speed, abs=1.0)
    click = np.zeros(32000, np.float32)
    click[20000] = 0.5
    assert abs(applied(click, speed=(speed, speed)).audio).argmax() == pytest.approx(20000 / speed, abs=1)


def test_speeds_fill_their_range_and_do_not_leave_it():
    own = chain(speed=(0.9, 1.1))
    speeds = {own.apply(voice(10), [(0, 10)], np.random.default_rng(seed)).speed for seed in range(300)}
    assert speeds == {hundredths / 100 for hundredths in range(90, 111)}


# --- one generator ----------------------------------------------------------------------------------------------------


def test_the_same_generator_gives_the_same_samples_whatever_was_heard_before():
    first, second = chain(**EVERYTHING), chain(**EVERYTHING)
    second.apply(voice(3000), [(0, 3000)], np.random.default_rng(1))
    one, two, other = (
        c.apply(voice(), [(0, 16000)], np.random.default_rng(seed)) for c, seed in [(first, 5), (second, 5), (first, 6)]
    )
    assert np.array_equal(one.audio, two.audio) and one.speed == two.speed
    assert len(one.audio) != len(other.audio) or not np.allclose(one.audio, other.audio)


def test_an_effect_happens_as_often_as_its_share():
    for effect in ("room", "babble", "noise", "lowpass", "telephone"):
        own = chain(**{effect: 0.3})
        changed = sum(
            not np.array_equal(own.apply(voice(400), [(0, 400)], np.random.default_rng(seed)).audio, voice(400))
            for seed in range(200)
        )
        assert 40 <= changed <= 80, effect


# --- rooms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("decay", "direct"), [(0.15, 10.0), (0.4, 0.0), (0.8, -3.0)])
def test_a_room_decays_as_asked_after_the_direct_sound(decay, direct):
    for seed in range(5):
        response = room_response(decay, direct, np.random.default_rng(seed)).astype(np.float64)
        assert response[0] == 1.0
        assert -db(power(response[1:]) * (len(response) - 1)) == pytest.approx(direct, abs=0.05)
        left = 10 * np.log10(np.cumsum(np.square(response[:0:-1]))[::-1])  # Schroeder's integral
        left -= left[0]
        within = (left < -5) & (left > -35)
        slope = np.polyfit(np.arange(len(left))[within] / 16000, left[within], 1)[0]
        assert -60 / slope == pytest.approx(decay, rel=0.1)


def test_early_echoes_are_few():
    response = room_response(0.5, 0.0, np.random.default_rng(0))
    assert 1 <= np.count_nonzero(response[1:320]) <= 8 and np.count_nonzero(response[320:]) > 7000


def test_a_room_leaves_the_direct_sound_where_it_was():
    click = np.zeros(8000, np.float32)
    click[3000] = 0.25
    heard = in_room(click, 0.3, 5.0, np.random.default_rng(0))
    assert len(heard) == 8000 and abs(heard[:3000]).max() < 1e-6
    assert heard[3000] == pytest.approx(0.25, abs=1e-6) and power(heard, (3001, 8000)) > 0
    assert abs(applied(click, room=1.0, room_decay=(0.3, 0.3), room_direct_db=(20.0, 20.0)).audio).argmax() == 3000


# --- levels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["noise", "babble"])
@pytest.mark.parametrize("speech", [[(8000, 24000)], [(4000, 9000), (30000, 39000)]])
def test_noise_and_babble_are_softer_than_the_speech_by_what_is_asked(kind, speech):
    audio = np.zeros(48000, np.float32)
    for first, end in speech:
        audio[first:end] = voice(end - first)
    for seed in range(6):
        added = applied(audio, speech, seed, **{kind: 1.0, f"{kind}_snr_db": (12.0, 12.0)}).audio - audio
        # Noise that is rare may miss the speech, and counts with a tenth of its power then.
        during = max(power(added, *speech), power(added) / 10 if kind == "noise" else 0.0)
        assert db(power(audio, *speech) / during) == pytest.approx(12.0, abs=0.1)
        assert power(added, (0, 4000)) > 0  # around the speech, too


def test_the_speech_counts_as_it_is_after_speed_and_room():
    audio = np.zeros(48000, np.float32)
    audio[8000:40000] = voice(32000)
    audio[32000:40000] *= 4  # what is said last counts
    keys = {"speed": (0.8, 0.8), "room": 1.0, "room_decay": (0.3, 0.3), "room_direct_db": (0.0, 0.0)}
    dry = applied(audio, [(8000, 40000)], **keys).audio
    wet = applied(audio, [(8000, 40000)], **keys, babble=1.0, babble_snr_db=(10.0, 10.0)).audio
    assert db(power(dry, (10000, 50000)) / power(wet - dry, (10000, 50000))) == pytest.approx(10.0, abs=0.1)


def test_speech_that_began_before_the_audio_counts_from_its_start():
    own = chain(babble=1.0)
    heard = [own.apply(voice(), [(first, 9000)], np.random.default_rng(0)).audio for first in (-500, 0)]
    assert np.array_equal(*heard) and not np.allclose(heard[0], voice())


def test_a_babble_has_as_many_voices_as_asked():
    asked = []

    def others(rng):
        asked.append(1)
        return talk(rng)

    own, counts = AcousticChain(Augmentation(babble=1.0, babble_voices=(3, 5)), others), set()
    for seed in range(30):
        asked.clear()
        own.apply(voice(2000), [(0, 2000)], np.random.default_rng(seed))
        counts.add(len(asked))
    assert counts == {6, 8, 10}  # two utterances of each


def test_recordings_of_a_folder_are_half_of_the_noise(tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(44100) / 44100)
    soundfile.write(tmp_path / "tone.wav", np.stack([tone, 0 * tone], axis=1), 44100)
    own, tones = chain(noise=1.0, noise_snr_db=(0.0, 0.0), noise_folder=str(tmp_path)), 0
    for seed in range(40):
        added = own.apply(voice(), [(0, 16000)], np.random.default_rng(seed)).audio - voice()
        spectrum = np.square(abs(np.fft.rfft(added * np.hanning(16000))))
        tones += spectrum[980:1021].sum() > 0.8 * spectrum.sum()
    assert 10 <= tones <= 30


def test_a_recording_is_heard_on_without_a_seam(tmp_path):
    """Whatever its rate, as long as it lasts: only a ramp's end jumps back to its start."""
    soundfile.write(tmp_path / "ramp.wav", np.linspace(0.1, 0.9, 5 * 32000), 32000, subtype="FLOAT")
    for seed in range(5):
        heard = stretch(tmp_path / "ramp.wav", 16000, np.random.default_rng(seed))
        falls = np.flatnonzero(np.diff(heard[100:-100]) < -0.05)
        start = np.random.default_rng(seed).integers(5 * 32000)
        assert len(heard) == 16000 and (len(falls) > 0) == (start > 4 * 32000), (seed, start)


def test_gain_is_in_decibels_and_full_scale_is_not_passed():
    assert db(power(applied(voice(), gain_db=(-6.0, -6.0)).audio) / power(voice())) == pytest.approx(-6.0, abs=0.01)
    assert abs(applied(voice(level=0.5), gain_db=(20.0, 20.0)).audio).max() == pytest.approx(0.99, abs=1e-6)


# --- bands ------------------------------------------------------------------------------------------------------------


def test_a_lowpass_leaves_what_is_low_and_takes_what_is_high():
    audio = voice(32000)
    heard = applied(audio, lowpass=1.0, lowpass_hz=(3000.0, 3000.0)).audio
    assert len(heard) == 32000
    assert band_db(audio, heard, 100, 2700) == pytest.approx(0.0, abs=0.3) and band_db(audio, heard, 3400, 7900) < -40
    click = np.zeros(4000, np.float32)
    click[1500] = 0.5
    assert abs(applied(click, lowpass=1.0).audio).argmax() == 1500


def test_a_telephone_has_its_band():
    audio = voice(32000, level=0.1)
    heard = applied(audio, telephone=1.0).audio
    assert band_db(audio, heard, 500, 3200) == pytest.approx(0.0, abs=0.5)
    assert band_db(audio, heard, 20, 150) < -20 and band_db(audio, heard, 4000, 7900) < -25


def test_a_telephones_eight_bits_are_those_of_g711():
    """ITU-T G.711, table 2a: 8 segments of 16 levels, a step twice as large in each; of a full scale of 8192."""
    segment, step = np.divmod(np.arange(128), 16)
    levels = (((2 * step + 33) << segment) - 33) / 8192
    kept = np.abs(by_telephone(voice(32000, level=0.2).astype(np.float64), 16000, "mu-law"))[::2]  # the telephone's own samples
    nearest = np.abs(kept[:, None] - levels).argmin(axis=1)
    assert np.abs(kept - levels[nearest]).max() < 2e-3 * levels.max() and len(set(nearest)) > 100
    sound = nearest > 0
    assert np.median(np.abs(kept[sound] / levels[nearest[sound]] - 1)) < 2e-3  # levels are 0.03 apart or more


# --- odd input --------------------------------------------------------------------------------------------------------


def test_silence_stays_silent():
    for seed in range(5):
        heard = applied(np.zeros(4000, np.float32), seed=seed, **EVERYTHING).audio
        assert len(heard) and np.abs(heard).max() < 3e-4  # A-law has no level of 0
        assert not applied(np.zeros(4000, np.float32), seed=seed, **EVERYTHING | {"telephone": 0.0}).audio.any()


@pytest.mark.parametrize("samples", [1, 2, 100])
def test_the_shortest_utterances(samples):
    for seed in range(5):
        heard = applied(np.full(samples, 0.1, np.float32), seed=seed, **EVERYTHING)
        assert len(heard.audio) == math.ceil(samples / heard.speed) and np.isfinite(heard.audio).all()


def test_babble_of_silent_people_is_silent():
    own = AcousticChain(Augmentation(babble=1.0), lambda rng: np.zeros(50, np.float32))
    assert np.array_equal(own.apply(voice(), [(0, 16000)], np.random.default_rng(0)).audio, voice())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"room": 1.5}, r"augmentation.room=1.5: expected a share from 0 to 1"),
        ({"telephone": "often"}, r"augmentation.telephone=often: expected a share"),
        ({"speed": [1.1, 0.9]}, r"augmentation.speed=\[1.1, 0.9\]: expected two numbers from 0.5 to 2, the lower one first"),
        ({"speed": 1.0}, r"augmentation.speed=1.0: expected two numbers"),
        ({"babble_voices": [2.5, 3]}, r"augmentation.babble_voices=\[2.5, 3\]: expected two whole numbers from 1 to 100"),
        ({"noise_snr_db": [0.0, math.nan]}, r"augmentation.noise_snr_db=.*expected two numbers"),
        ({"lowpass_hz": [100, 9000]}, r"augmentation.lowpass_hz=\[100, 9000\]: expected two numbers from 300 to 7900"),
        ({"packets_lost": (0.1, 1.0)}, r"augmentation.packets_lost=.*from 0 to 0.99"),
    ],
)
def test_values_out_of_range(keys, message):
    with pytest.raises(InputError, match=message):
        Augmentation(**keys)


def test_noise_folders_that_cannot_be_used(tmp_path):
    (tmp_path / "notes.txt").write_text("no audio")
    with pytest.raises(InputError, match=r"augmentation.noise_folder: .* holds no WAV or FLAC files"):
        chain(noise=1.0, noise_folder=str(tmp_path))
    (tmp_path / "a.wav").write_text("no audio")
    broken = chain(noise=1.0, noise_folder=str(tmp_path))
    with pytest.raises(InputError, match=r"augmentation.noise_folder: .*a.wav cannot be read as audio"):
        for seed in range(20):
            broken.apply(voice(), [(0, 16000)], np.random.default_rng(seed))
