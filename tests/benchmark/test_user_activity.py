"""Onsets and false activations are counted by the rule; the conditions are what they say; the benchmark runs as a whole."""

import numpy as np
import pytest
import soundfile

from nemo_duplex.benchmark.noisy_callers import CONDITIONS, QUIET, Condition, noisy_caller
from nemo_duplex.benchmark.user_activity import (
    ActivitySetting,
    Heard,
    benchmark_user_activity,
    judge,
    user_activity_tables,
    wav_voices,
)
from nemo_duplex.inputs import InputError
from tests.dummies import voice_like


def active(*frames: int, of: int = 50) -> np.ndarray:
    found = np.zeros(of, bool)
    found[list(frames)] = True
    return found


def test_a_turn_is_noticed_at_the_end_of_its_first_active_frame():
    heard = judge(active(*range(13, 26)), [(1.03, 2.0)])
    assert heard.delays == pytest.approx([14 * 0.08 - 1.03]) and heard.in_time == 1 and heard.false == 0
    assert (heard.right, heard.frames) == (48, 50)  # 12 to 24 are speech; 12 is missed, 25 is too long
    assert judge(active(*range(14, 26)), [(1.05, 2.0)]).in_time == 1  # 150 ms
    assert judge(active(*range(14, 26)), [(1.04, 2.0)]).in_time == 0


def test_who_was_active_before_has_not_noticed_and_was_wrong():
    heard = judge(active(*range(5, 30)), [(1.0, 2.0)])
    assert heard.delays == (np.inf,) and heard.false == 1 and heard.in_time == 0


def test_pauses_within_a_turn_and_the_third_of_a_second_after_it_are_forgiven():
    spans = [(1.0, 1.3), (1.7, 2.0)]  # one turn
    assert judge(active(13, 14, 22, 23, 28), spans) == Heard((pytest.approx(0.12),), 0, 44, 50)
    assert judge(active(13, 14, 22, 23, 28, 30), spans).false == 1
    assert len(judge(active(), [(1.0, 1.3), (1.91, 2.0)]).delays) == 2


def test_scenes_add_up():
    one = Heard((0.1, np.inf), 2, 3, 4)
    assert one + Heard((0.15,), 1, 1, 1) == Heard((0.1, np.inf, 0.15), 3, 4, 5)
    assert (one + Heard((0.15,), 1, 1, 1)).in_time == 2


VOICES = {f"voice {i}": [voice_like(1.5, 10 * i + k).numpy() for k in range(2)] for i in range(4)}


@pytest.mark.parametrize("name", CONDITIONS)
def test_every_condition_is_a_caller_of_the_right_length_and_the_same_every_time(name):
    one, two = (noisy_caller(VOICES, CONDITIONS[name], 20.0, np.random.default_rng(3)) for _ in range(2))
    assert one.audio.shape == (320000,) and one.audio.dtype == np.float32 and np.abs(one.audio).max() <= 1
    assert np.array_equal(one.audio, two.audio) and one.spans == two.spans
    assert len(one.spans) >= 4 if CONDITIONS[name].speaks else one.spans == []


def level(samples: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(samples - samples.mean())))


def test_levels_are_those_of_the_condition():
    def parts(condition: Condition) -> tuple[float, float]:
        scene = noisy_caller(VOICES, condition, 60.0, np.random.default_rng(0))
        speech = np.zeros(len(scene.audio), bool)
        for start, end in scene.spans:
            speech[round(start * 16000) : round(end * 16000)] = True
        return level(scene.audio[speech]), level(scene.audio[~speech])

    clean = parts(Condition())
    assert clean[0] == pytest.approx(-26, abs=1.5) and clean[1] < -60
    assert parts(CONDITIONS["white"])[1] == pytest.approx(-36, abs=0.5)
    assert parts(CONDITIONS["white at 5 dB"])[1] == pytest.approx(-31, abs=0.5)
    assert parts(Condition(babble=3))[1] == pytest.approx(-36, abs=2)
    quiet = parts(Condition(gain=QUIET))
    assert quiet[0] == pytest.approx(clean[0] + 20 * np.log10(QUIET), abs=0.1)
    scene = noisy_caller(VOICES, Condition(offset=0.05), 5.0, np.random.default_rng(0))
    assert scene.audio[:16000].mean() == pytest.approx(0.05, abs=1e-3)


def test_a_telephone_has_no_high_tones():
    scene = noisy_caller(VOICES, Condition(CONDITIONS["white"].noise, telephone=True), 10.0, np.random.default_rng(0))
    power = np.square(np.abs(np.fft.rfft(scene.audio)))
    frequency = np.fft.rfftfreq(len(scene.audio), 1 / 16000)
    assert power[frequency > 4300].sum() < 1e-3 * power[frequency < 3900].sum()


def test_voices_of_a_folder(tmp_path):
    for voice, rate in (("a", 16000), ("b", 24000)):
        (tmp_path / voice).mkdir()
        soundfile.write(tmp_path / voice / "1.wav", np.zeros(rate), rate)
    voices = wav_voices(str(tmp_path))
    assert {name: [len(u) for u in utterances] for name, utterances in voices.items()} == {"a": [16000], "b": [16000]}
    (tmp_path / "b" / "1.wav").write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"voices: .*b/1.wav is not a WAV file"):
        wav_voices(str(tmp_path))
    (tmp_path / "b" / "1.wav").unlink()
    with pytest.raises(InputError, match="1 folders with WAV files, expected 2 voices"):
        wav_voices(str(tmp_path))


def test_a_detector_that_there_is_not():
    with pytest.raises(InputError, match=r"detectors=\[theirs\]: expected some of ours, silero"):
        benchmark_user_activity(ActivitySetting(detectors=["theirs"]))


# Of eSpeak's speakers of dev, two minutes of each condition: turns, those noticed in time, false activations; as measured on
# 2026-11-29. The same on every run; another build of eSpeak or numpy may move a sound across a threshold or two.
MEASURED = {
    "clean": (38, 38, 0),
    "quiet": (39, 39, 0),
    "quiet, digital silence": (34, 34, 0),
    "offset of 0.05": (35, 35, 0),
    "telephone": (39, 37, 2),
    "white": (30, 27, 0),
    "white at 5 dB": (33, 32, 0),
    "fan": (39, 39, 0),
    "fan, quiet": (39, 39, 0),
    "street": (34, 33, 3),
    "hum": (37, 37, 0),
    "clicks": (30, 29, 0),
    "keyboard": (36, 36, 0),
    "babble of 4": (35, 23, 2),
    "babble of 6": (36, 33, 2),
    "babble of 6, quiet": (34, 26, 0),
    "babble of 6, telephone": (32, 23, 2),
    "babble of 4 alone": (0, 0, 6),
    "babble of 6 alone": (0, 0, 5),
    "street alone": (0, 0, 6),
    "keyboard alone": (0, 0, 0),
}
OTHERWISE = 2  # turns, and false activations, of a condition; of all of them together twice as many


@pytest.mark.slow
def test_it_is_noticed_in_time_on_voices_that_were_not_trained_on():
    """No condition is worse than measured, and without babble the aim is held: 95 % in time, two false a minute."""
    result = benchmark_user_activity(ActivitySetting(detectors=["ours"], per_condition=2))
    figures = {name: of["ours"] for name, of in result["conditions"].items()}
    found = {name: (one["turns"], one["in_time"], one["false"]) for name, one in figures.items()}
    assert found.keys() == MEASURED.keys() and all(one["minutes"] == 2 for one in figures.values())
    for name, (turns, in_time, false) in MEASURED.items():
        assert abs(found[name][0] - turns) <= OTHERWISE, (name, found[name])
        assert found[name][1] >= in_time - OTHERWISE and found[name][2] <= false + OTHERWISE, (name, found[name])
    missed = sum(turns - in_time for turns, in_time, _ in found.values())
    assert missed <= sum(turns - in_time for turns, in_time, _ in MEASURED.values()) + 2 * OTHERWISE, missed
    assert sum(of[2] for of in found.values()) <= sum(of[2] for of in MEASURED.values()) + 2 * OTHERWISE, found
    turns, in_time, false = np.sum([of for name, of in found.items() if "babble" not in name and "alone" not in name], axis=0)
    assert in_time >= 0.95 * turns and false <= 2 * 2 * 13, (turns, in_time, false)
    pages = [table.text() for table in user_activity_tables(result)]
    assert len(pages) == 2 and "babble of 6, telephone" in pages[0] and "16 callers" in pages[1]
