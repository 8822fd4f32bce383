"""What a line does to audio: its band, its steps, its losses, and that no sample moves."""

from __future__ import annotations

import numpy as np
import pytest

from nemo_duplex.synthesis.transmission import Transmission, by_telephone, transmitted

RATE = 16000


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)


def db(signal: np.ndarray, against: np.ndarray) -> float:
    return 10 * np.log10(np.square(signal).mean() / np.square(against).mean())


def way(audio: np.ndarray, seed: int = 0, **spec) -> tuple:
    return transmitted(audio, RATE, Transmission(**spec), np.random.default_rng(seed))


def test_where_nothing_is_asked_for_nothing_is_done():
    audio, done, lost = way(tone(440))
    assert np.array_equal(audio, tone(440)) and done == {} and lost == []


ON = {"tilt": 1.0, "telephone": 1.0, "clipping": 1.0, "packet_loss": 1.0}


@pytest.mark.parametrize("kind", ON)
@pytest.mark.parametrize("at", [0, 1, 4001, 15998])
def test_an_impulse_stays_where_it_was_to_the_sample(kind, at):
    audio = np.zeros(RATE)
    audio[at] = 0.5
    heard, done, _ = way(audio, **{kind: 1.0})
    assert len(heard) == RATE and done
    # A telephone has half of the samples: an impulse between two of them lies on the odd ones' neighbours.
    assert abs(int(np.argmax(np.abs(heard))) - at) <= (1 if kind == "telephone" else 0)


@pytest.mark.parametrize("at", [4000, 4002, 9998])
def test_an_impulse_on_the_telephones_own_samples_stays_exactly(at):
    audio = np.zeros(RATE)
    audio[at] = 0.5
    for law in ("mu-law", "A-law"):
        assert np.argmax(np.abs(by_telephone(audio, RATE, law))) == at


def test_a_telephone_passes_300_to_3400_hz():
    levels = {
        hz: db(by_telephone(tone(hz), RATE, "mu-law")[800:-800], tone(hz)[800:-800]) for hz in (60, 1000, 3000, 3900, 5000)
    }
    assert levels[1000] == pytest.approx(0, abs=0.3) and levels[3000] == pytest.approx(0, abs=0.5)
    assert max(levels[60], levels[3900], levels[5000]) < -20


def test_g711_rounds_to_8_bits_with_38_db_of_signal_to_noise():
    for law in ("mu-law", "A-law"):
        for level in (1.0, 0.05):
            clear = level * tone(1000)
            noise = by_telephone(clear, RATE, law)[800:-800] - clear[800:-800]
            assert 30 < db(clear[800:-800], noise) < 42
    assert not np.array_equal(by_telephone(tone(1000), RATE, "mu-law"), by_telephone(tone(1000), RATE, "A-law"))


def test_a_tilt_is_so_many_db_per_octave():
    for slope in (-3.0, 2.0):
        levels = [
            db(way(tone(hz), tilt=1.0, tilt_db=(slope, slope))[0][800:-800], tone(hz)[800:-800]) for hz in (500, 1000, 2000)
        ]
        assert levels[1] == pytest.approx(0, abs=0.3)
        assert np.diff(levels) == pytest.approx([slope, slope], abs=0.3)


def test_clipping_takes_off_what_passes_the_limit():
    heard, done, _ = way(tone(440), clipping=1.0, clipping_db=(6.0, 6.0))
    assert done == {"clipping_db": 6.0}
    assert np.abs(heard).max() == pytest.approx(0.5 * 10 ** (-6 / 20), rel=1e-6)
    low = np.abs(tone(440)) < 0.2
    assert np.array_equal(heard[low], tone(440)[low])


def test_packets_are_lost_as_often_as_asked_for_and_hidden():
    audio = tone(440, seconds=100)
    heard, done, lost = way(audio, packet_loss=1.0, packets_lost=(0.1, 0.1))
    assert done == {"packets_lost": 0.1}
    assert sum(end - start for start, end in lost) / 100 == pytest.approx(0.1, abs=0.015)
    assert max(end - start for start, end in lost) > 0.05, "Losses come in bursts."
    for start, end in lost:
        assert start / 0.02 == pytest.approx(round(start / 0.02)) and end / 0.02 == pytest.approx(round(end / 0.02))
    gone = np.zeros(len(audio), dtype=bool)
    for start, end in lost:
        gone[round(start * RATE) : round(end * RATE)] = True
    assert np.array_equal(heard[~gone], audio[~gone])
    first = next(round(start * RATE) for start, _ in lost if start > 0)
    assert np.allclose(heard[first : first + 320], 0.5 * audio[first - 320 : first])


def test_each_comes_as_often_as_asked_for():
    drawn = [way(tone(440, 0.1), seed, tilt=0.2, clipping=0.4, telephone=0.6, packet_loss=0.8)[1] for seed in range(300)]
    shares = [sum(key in done for done in drawn) / 300 for key in ("tilt_db", "clipping_db", "telephone", "packets_lost")]
    assert shares == pytest.approx([0.2, 0.4, 0.6, 0.8], abs=0.07)
    assert {done["telephone"] for done in drawn if "telephone" in done} == {"mu-law", "A-law"}
