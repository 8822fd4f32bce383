"""Speech is found where it is, by its sound."""

import numpy as np
import pytest
import soxr

from nemo_duplex.evaluation.activity import SileroVad, energy_vad, voice_activity
from nemo_duplex.evaluation.turn_taking import Rules, measure
from nemo_duplex.inputs import InputError

RATE = 22050
PAUSES = Rules(agent_merge_gap=0.5)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def syllables(seconds, rng, rate=RATE):
    """Speech in outline: vowels of 150 ms with a 4 Hz rhythm, a weak fricative (30 dB down) at either edge."""
    t = np.arange(round(seconds * rate)) / rate
    voiced = 0.3 * np.sin(2 * np.pi * 150 * t) * (0.3 + 0.7 * np.abs(np.sin(2 * np.pi * 2 * t)))
    edge = (t < 0.08) | (t > seconds - 0.08)
    return np.where(edge, 0.3 * 10 ** (-30 / 20) * rng.standard_normal(len(t)), voiced)


def recording(spans, seconds, rng, noise_db=None):
    audio = np.zeros(round(seconds * RATE))
    for start, end in spans:
        speech = syllables(end - start, rng)
        audio[round(start * RATE) :][: len(speech)] += speech
    return audio if noise_db is None else audio + 10 ** (noise_db / 20) * rng.standard_normal(len(audio))


@pytest.mark.parametrize("noise_db", [None, -75, -62])
@pytest.mark.parametrize("loudness", [1.0, 0.2])
def test_energy_finds_edges_within_20_ms(noise_db, loudness, rng):
    spans = [(0.735, 2.2), (3.04, 3.58), (5.0, 9.013)]
    noise_db = None if noise_db is None else noise_db - (0 if loudness == 1 else 14)
    found = energy_vad(loudness * recording(spans, 10, rng) + recording([], 10, rng, noise_db), RATE)
    assert np.asarray(found) == pytest.approx(np.asarray(spans), abs=0.02)


def test_a_last_window_that_is_short_counts_by_its_own_length():
    """20 samples of 220, 30 dB below the vowels as a consonant is."""
    audio = tones((1, None), (1, -10), (2120 / RATE, -40))
    assert len(audio) % 220 == 20
    ((start, end),) = energy_vad(audio, RATE)
    assert (start, end) == (pytest.approx(1, abs=0.01), pytest.approx(len(audio) / RATE, abs=1e-9))


def test_energy_hears_nothing_in_silence_or_faint_noise(rng):
    assert energy_vad(np.zeros(RATE * 5), RATE) == []
    assert energy_vad(np.zeros(0), RATE) == []
    for level in (-90, -60, -48):
        assert energy_vad(recording([], 20, rng, level), RATE) == [], level


def tones(*parts, rate=RATE):
    """Stretches of (seconds, dB re full scale) one after the other; None is digital silence."""
    made = []
    for seconds, db in parts:
        wave = np.sin(2 * np.pi * 1000 * np.arange(round(seconds * rate)) / rate) * 2**0.5
        made.append(wave * (0 if db is None else 10 ** (db / 20)))
    return np.concatenate(made)


@pytest.mark.parametrize(("db", "found"), [(-30, [(1, 2), (4, 5)]), (-33, [(1, 2), (4, 5)]), (-36, [(1, 2)]), (-41, [(1, 2)])])
def test_speech_starts_within_24_db_of_the_loud_windows(db, found):
    audio = tones((1, None), (1, -10), (2, None), (1, db), (5, None))
    assert np.asarray(energy_vad(audio, RATE)) == pytest.approx(np.asarray(found), abs=0.011)


@pytest.mark.parametrize(("db", "end"), [(-40, 2.5), (-45, 2.5), (-48, 2.0)])
def test_speech_that_has_started_goes_on_within_36_db(db, end):
    audio = tones((1, None), (1, -10), (0.5, db), (5, None))
    assert np.asarray(energy_vad(audio, RATE)) == pytest.approx(np.asarray([(1, end)]), abs=0.011)


@pytest.mark.parametrize(("db", "spoken"), [(-41, True), (-43, False)])
def test_nothing_quieter_than_42_db_below_full_scale_starts_speech(db, spoken):
    assert bool(energy_vad(tones((1, None), (1, db), (5, None)), RATE)) is spoken


@pytest.mark.parametrize(("pause", "turns"), [(0.08, 1), (0.1, 1), (0.13, 2)])
def test_a_pause_of_a_tenth_of_a_second_lies_inside_speech(pause, turns):
    assert len(energy_vad(tones((1, None), (1, -10), (pause, None), (1, -10), (5, None), rate=16000), 16000)) == turns


@pytest.mark.parametrize(("seconds", "spoken"), [(0.05, False), (0.06, True)])
def test_speech_is_longer_than_a_click(seconds, spoken):
    assert bool(energy_vad(tones((1, None), (seconds, -10), (5, None), rate=16000), 16000)) is spoken


def test_windows_of_a_broken_number_of_samples_do_not_drift():
    """220 samples at 22050 Hz are 9.977 ms: 45 ms are lost in 20 s if they are taken for 10."""
    audio = tones((19, None), (1, -10), (1, None))
    assert np.asarray(energy_vad(audio, RATE)) == pytest.approx(np.asarray([(19, 20)]), abs=0.011)


def test_the_last_window_may_be_short():
    audio = np.concatenate([tones((1, None), (1, -10)), tones((0.004, -10))])
    assert energy_vad(audio, RATE)[-1][1] == len(audio) / RATE
    faint = np.concatenate([tones((3, None), (0.5, -10)), np.full(10, 10 ** (-44 / 20))])
    assert energy_vad(faint, RATE)[-1][1] == len(faint) / RATE, "its level is that of its own samples"


def test_energy_ignores_a_click_and_spans_a_closure(rng):
    audio = recording([(2.0, 4.0)], 6, rng)
    audio[RATE : RATE + 200] = 0.5
    audio[round(2.9 * RATE) : round(2.97 * RATE)] = 0
    assert np.asarray(energy_vad(audio, RATE)) == pytest.approx(np.asarray([(2.0, 4.0)]), abs=0.02)


def test_energy_follows_an_agent_that_never_pauses(rng):
    # without a pause there is no noise to know, so its faint edges (80 ms here) may be taken for it; nothing else may
    assert np.asarray(energy_vad(syllables(8, rng), RATE)) == pytest.approx(np.asarray([(0, 8)]), abs=0.1)


@pytest.fixture(scope="module")
def spoken():
    """eSpeak's agent voice saying three answers, 1 s apart: (S,) audio, and where each is louder than a whisper."""
    from nemo_duplex.synthesis.tts.espeak import EspeakEngine
    from nemo_duplex.synthesis.tts.voices import AGENT_VOICE, voice_data

    engine, parts, spans, at = EspeakEngine(voice_data()), [np.zeros(RATE)], [], RATE
    for text in ("The capital of France is Paris.", "It is six.", "You said: the quiet teacher waits."):
        utterance = engine.speak(text, AGENT_VOICE)
        assert utterance.sample_rate == RATE
        heard = np.flatnonzero(np.abs(utterance.audio) > 0.004 * np.abs(utterance.audio).max())
        spans.append(((at + heard[0]) / RATE, (at + heard[-1]) / RATE))
        parts += [utterance.audio, np.zeros(RATE)]
        at += len(utterance.audio) + RATE
    return np.concatenate(parts), spans


@pytest.mark.parametrize("noise_db", [None, -65])
def test_energy_on_the_agent_voice(spoken, noise_db, rng):
    audio, spans = spoken
    noise = 0 if noise_db is None else recording([], len(audio) / RATE, rng, noise_db)
    turns = measure([], energy_vad(audio + noise, RATE), 30, PAUSES)
    assert np.asarray(turns.agent) == pytest.approx(np.asarray(spans), abs=0.03)


def test_silero_on_the_agent_voice(spoken):
    audio, spans = spoken
    turns = measure([], voice_activity("silero")(audio, RATE), 30, PAUSES)
    assert np.asarray(turns.agent) == pytest.approx(np.asarray(spans), abs=0.15)


@pytest.mark.parametrize("durations", [(0.25, 0.1, 0.03), (0.06, 0.1, 0.0), (0.25, 0.5, 0.6)])
def test_silero_gives_the_spans_of_its_own_package(spoken, durations, rng):
    import torch
    from silero_vad import get_speech_timestamps, load_silero_vad

    audio = (spoken[0][: int(6.2 * RATE)] + 0.002 * rng.standard_normal(int(6.2 * RATE))).astype(np.float32)
    audio = soxr.resample(audio, RATE, 16000)
    speech, silence, pad = (round(1000 * seconds) for seconds in durations)
    theirs = get_speech_timestamps(
        torch.from_numpy(audio),
        load_silero_vad(),
        min_speech_duration_ms=speech,
        min_silence_duration_ms=silence,
        speech_pad_ms=pad,
    )
    assert theirs and SileroVad(*durations)(audio, 16000) == [(s["start"] / 16000, s["end"] / 16000) for s in theirs]


def test_silero_hears_nothing_in_silence(rng):
    vad = voice_activity("silero")
    assert isinstance(vad, SileroVad)
    assert vad(np.zeros(RATE * 3), RATE) == []
    assert vad(recording([], 5, rng, -60), RATE) == []


def test_unknown_detector_is_named():
    with pytest.raises(InputError, match="vad=energi.*energy, silero"):
        voice_activity("energi")
