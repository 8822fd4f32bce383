"""Whether a caller speaks: from log-odds to activity exactly; from sound to log-odds the same in any company and any pieces."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nemo_duplex.user_activity import detector
from nemo_duplex.user_activity.detector import HANGOVER, WEIGHTS, UserActivity, bundled_network, listen
from nemo_duplex.user_activity.features import FEATURES
from nemo_duplex.user_activity.training import ActivityModel
from tests.dummies import voice_like

RATE, HOP = 16000, 256
YES, MAYBE, NO = 9.0, 0.0, -9.0


def decided(*odds: float) -> UserActivity:
    user = UserActivity(RATE)
    for log_odds in odds:
        user.decide(log_odds)
    return user


def states(*odds: float) -> list[bool]:
    user, found = UserActivity(RATE), []
    for log_odds in odds:
        user.decide(log_odds)
        found.append(user.active)
    return found


# ---------------------------------------------------------------------- decisions


def test_speech_starts_where_it_is_probable_goes_on_where_it_may_be_and_ends_a_fifth_of_a_second_later():
    assert states(NO, MAYBE, MAYBE) == [False] * 3
    assert states(NO, YES, MAYBE, MAYBE) == [False, True, True, True]
    assert round(HANGOVER / 0.016) == 12
    assert states(YES, *[NO] * 13) == [True] * 12 + [False] * 2
    assert states(YES, *[NO] * 11, MAYBE, *[NO] * 12) == [True] * 24 + [False]


def test_the_thresholds():
    start, stay = (float(np.log(p / (1 - p))) for p in (detector.START, detector.CONTINUE))
    assert states(start + 2.99) == [False] and states(start + 3.01) == [True], "A new caller is in doubt."
    assert states(*[NO] * 1500, start - 0.01)[-1] is False and states(*[NO] * 1500, start + 0.02)[-1] is True
    assert states(YES, *[stay + 0.01] * 20)[-1] and not states(YES, *[stay - 0.01] * 20)[-1]


def test_where_the_network_is_in_doubt_it_must_be_surer():
    """The mean probability d of silent hops raises the log-odds of a start by 20 d, up to 5."""
    start, doubt = float(np.log(0.7 / 0.3)), 0.15
    for _ in range(30):
        doubt += (0.1 - doubt) / 120
    seldom = [float(np.log(0.1 / 0.9))] * 30
    assert states(*seldom, start + 20 * doubt - 0.01)[-1] is False
    assert states(*seldom, start + 20 * doubt + 0.01)[-1] is True
    assert states(*[MAYBE] * 900, 4.99)[-1] is False and states(*[MAYBE] * 900, 5.01)[-1] is True
    said = [YES, *[NO] * 12] * 40
    assert states(*said, start + 2.99)[-1] is False, "What a caller says changes no doubt."
    assert states(*said, start + 3.01)[-1] is True


def test_since_when():
    assert decided(NO, NO).since == 0.0
    assert decided(NO, NO, YES).since == pytest.approx(0.048)
    assert decided(NO, NO, YES, YES, MAYBE).since == pytest.approx(0.048)
    assert decided(YES, *[NO] * 20).since == pytest.approx(13 * 0.016)


def test_spoke_is_about_the_time_since_it_was_asked_last():
    """Hop n ends at sample (n + 1) * 256."""
    user = decided(NO, NO, YES, *[NO] * 20)  # active in hops 2 to 13
    assert user.spoke(2 * HOP) is False
    assert user.spoke(3 * HOP - 1) is False, "Hop 2 is not over."
    assert user.spoke(3 * HOP) is True
    assert user.spoke(3 * HOP) is True, "No hop more: as at the last one."
    assert user.spoke(15 * HOP) is True, "Hops 3 to 14, of which the last one is silent."
    assert user.spoke(15 * HOP) is False and user.spoke(100 * HOP) is False


def test_a_short_sound_is_not_lost_between_two_questions():
    user = decided(NO, YES, *[NO] * 40)
    assert user.spoke(HOP) is False and user.spoke(40 * HOP) is True and user.spoke(42 * HOP) is False


@pytest.mark.parametrize("chunk", [1280, 2560])
def test_the_flag_of_a_frame_never_flickers(chunk):
    """Whatever the network says, speech lasts for three frames (0.24 s) or more: started and stopped are never closer.

    Two grids: frames of 80 ms, and pairs of frames of which the encoder hears the second 200 samples after the first one.
    """
    ends = [
        end for start in range(chunk - 1080, 500 * HOP, chunk) for end in ([start] if chunk == 1280 else [start, start + 200])
    ]
    shortest = []
    for seed in range(20):
        user = decided(*np.random.default_rng(seed).normal(-4, 4, 500))
        flags = np.array([user.spoke(end) for end in ends], np.int8)
        runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], flags, [0]]))))[::2]
        shortest.append(runs[:-1].min())  # the last one may be cut off
    assert min(shortest) == 3


# ---------------------------------------------------------------------- windows


def test_windows_overlap_by_half_and_begin_with_silence():
    stream, user = np.arange(1, 2000, dtype=np.float32), UserActivity(RATE)
    user.push(stream)
    padded = np.concatenate([np.zeros(HOP, np.float32), stream])
    assert np.allclose(user.windows(5000), [padded[i * HOP : i * HOP + 512] for i in range(7)], atol=1e-3)
    assert user.windows(5000).shape == (0, 512)
    user.push(np.full(1, 7, np.float32))
    assert user.windows(5000).shape == (0, 512)
    user.push(np.full(48, 8, np.float32))
    assert np.allclose(user.windows(5000)[0], [*stream[6 * HOP :], 7, *[8] * 48], atol=1e-3)


def test_no_more_is_taken_at_once_than_allowed_and_nothing_is_lost():
    stream, user, taken = np.arange(10000, dtype=np.float32), UserActivity(RATE), []
    user.push(stream[:7000])
    user.push(stream[7000:])
    while len(windows := user.windows(700)):
        assert len(windows) <= 3
        taken.append(windows[:, HOP:].reshape(-1))
    assert np.allclose(np.concatenate(taken), stream[: 39 * HOP], atol=1e-3)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100, 48000])
def test_any_rate(rate):
    user = UserActivity(rate)
    user.push(np.zeros(rate, np.float32))
    listen([user])
    assert not user.active and not user.spoke(rate)


# ---------------------------------------------------------------------- the network


class Noted(UserActivity):
    """A user whose log-odds are kept."""

    def __init__(self) -> None:
        super().__init__(RATE)
        self.odds: list[float] = []

    def decide(self, log_odds: float) -> None:
        self.odds.append(log_odds)
        super().decide(log_odds)


def callers(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        (10 ** rng.uniform(-3, 0) * (voice_like(1.2, i).numpy() + 0.01 * rng.standard_normal(19200))).astype(np.float32)
        for i in range(count)
    ]


def test_no_bit_depends_on_other_callers_or_on_the_pushes():
    signals = callers(9)
    alone = []
    for signal in signals:
        user = Noted()
        user.push(signal)
        listen([user])
        alone.append(user.odds)
    for count, longest, seed in ((9, 3000, 1), (5, 400, 2), (2, 20000, 3)):
        rng, users, at = np.random.default_rng(seed), [Noted() for _ in range(count)], [0] * count
        while min(len(user.odds) for user in users) < 75:
            for number, user in enumerate(users):
                end = at[number] + int(rng.integers(0, longest))
                user.push(signals[number][at[number] : end])
                at[number] = end
            listen(users, most=int(rng.integers(300, 4000)))
        assert [user.odds for user in users] == alone[:count]


def test_it_computes_what_was_trained():
    network, rng = bundled_network(), np.random.default_rng(0)
    model = ActivityModel(network.width)
    model.load_state_dict(load_file(WEIGHTS))
    features = rng.uniform(-1, 1, (3, 60, FEATURES)).astype(np.float32)
    hidden = np.zeros((3, network.width), np.float32)
    streamed = np.stack([network.step(features[:, hop], hidden) for hop in range(60)], axis=1)
    with torch.inference_mode():
        assert np.allclose(streamed, model(torch.from_numpy(features)).numpy(), atol=1e-4)


def test_nobody_listens_to_nobody():
    listen([])
    user = UserActivity(RATE)
    listen([user])
    user.push(np.zeros(0, np.float32))
    listen([user])
    assert user.active is False and user.spoke(0) is False


def test_memory_does_not_grow():
    user, silence = UserActivity(RATE), np.zeros(1280, np.float32)
    for frame in range(300):
        user.push(silence)
        listen([user])
        user.spoke((frame + 1) * 1280)
        assert len(user._states) == 0 == len(user._pushed) and len(user._kept) == HOP


# ---------------------------------------------------------------------- sounds


def heard(samples: np.ndarray) -> np.ndarray:
    """(T,) activity in frames of 80 ms."""
    user = UserActivity(RATE)
    user.push(samples.astype(np.float32))
    listen([user])
    return np.array([user.spoke(end) for end in range(1280, len(samples) + 1, 1280)])


def noise(seconds: float, decibel: float) -> np.ndarray:
    return 10 ** (decibel / 20) * np.random.default_rng(0).standard_normal(round(seconds * RATE))


@pytest.mark.parametrize("gain", [1.0, 0.1, 0.03])
def test_a_voice_is_heard_in_time_at_any_level(gain):
    for seed in range(3):
        samples = noise(5.0, -75)
        samples[2 * RATE : 4 * RATE] += voice_like(2.0, seed).numpy()
        active = np.flatnonzero(heard(gain * samples))
        assert active[0] in (25, 26) and 49 <= active[-1] <= 53, (seed, active)  # 2.0 to 2.16, 4.0 to 4.3 s


@pytest.mark.parametrize("gain", [1.0, 0.03])
def test_who_speaks_from_the_first_sample_is_heard_at_once(gain):
    for seed in range(4):
        assert heard(gain * voice_like(1.0, seed).numpy())[2:].all(), seed


def test_what_is_no_voice():
    time = np.arange(6 * RATE) / RATE
    clicks = noise(6.0, -70)
    clicks[RATE // 2 :: RATE // 2] = 0.5
    sounds = {
        "silence": np.zeros(6 * RATE),
        "an offset": np.full(6 * RATE, 0.1),
        "noise that is switched on": np.concatenate([np.zeros(1080), noise(6.0, -45)]),
        "noise": noise(6.0, -70),
        "louder noise": noise(6.0, -35),
        "hum": 0.1 * np.sin(2 * np.pi * 50 * time) + 0.05 * np.sin(2 * np.pi * 150 * time) + noise(6.0, -60),
        "clicks": clicks,
    }
    for name, samples in sounds.items():
        assert not heard(samples).any(), name
