"""Whisper's encoder on windows shorter than 30 s."""

import numpy as np
import pytest

from nemo_duplex.perception.whisper_model import encoder_features, open_whisper


@pytest.fixture(scope="module")
def tiny():
    return open_whisper().model


def test_there_is_a_feature_every_20_ms_and_none_of_the_silence_after(tiny):
    noise = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    for samples, count in ((1, 1), (320, 1), (321, 2), (16000, 50)):
        assert encoder_features(tiny, noise[:samples]).shape == (count, 384)


@pytest.mark.slow
def test_sound_beyond_30_s_is_left_out(tiny):
    assert encoder_features(tiny, np.full(481000, 0.1, np.float32)).shape == (1500, 384)


def test_a_feature_is_about_the_sound_at_its_time(tiny):
    """A click changes, in the mean over some of them, the feature of its sample most; and both neighbours alike."""
    sound = 0.01 * np.random.default_rng(0).standard_normal(32000).astype(np.float32)
    before, changed = encoder_features(tiny, sound), np.zeros(7)
    for j in range(20, 80, 4):
        clicked = sound.copy()
        clicked[320 * j - 20 : 320 * j + 20] += 0.5
        changed += np.linalg.norm(encoder_features(tiny, clicked) - before, axis=1)[j - 3 : j + 4]
    assert changed.argmax() == 3 and changed[2] == pytest.approx(changed[4], rel=0.1)


def test_a_short_window_gives_what_a_whole_one_gives(tiny):
    import soxr

    from nemo_duplex.synthesis.tts.espeak import EspeakEngine
    from nemo_duplex.synthesis.tts.utterance import Voice

    spoken = EspeakEngine().speak("Thank you very much for your help.", Voice("agent", "en-us", rate=150))
    sound = soxr.resample(spoken.audio, spoken.sample_rate, 16000).astype(np.float32)
    short = encoder_features(tiny, sound)
    whole = np.asarray(tiny.encode(tiny.feature_extractor(np.pad(sound, (0, 480000 - len(sound))), padding=0)))[0]
    a, b = (x[: len(short)] - whole[: len(short)].mean(0) for x in (short, whole))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert whole.shape == (1500, 384) and cosine.mean() > 0.95
