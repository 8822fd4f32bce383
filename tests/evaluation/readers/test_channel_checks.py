"""Two channels that are not what they should be are found, and those that only look like it are not."""

import numpy as np
import pytest
import soxr

from nemo_duplex.evaluation.readers.channel_checks import (
    Channel,
    Turns,
    channel_facts,
    check_lengths,
    check_order,
    check_samples,
    clipped_share,
    leak,
)
from nemo_duplex.files.odd_rows import OddRow
from tests.evaluation.readers.voices import later, voice

USER, AGENT = [(1.0, 3.0), (7.0, 9.0), (13.0, 15.5)], [(3.5, 6.0), (9.5, 12.0)]
OVERLAPPING = [(1.5, 2.5), (3.5, 7.8), (9.5, 12.0), (13.1, 15.2)]
SECONDS, USER_RATE, AGENT_RATE = 18.0, 16000, 22050


@pytest.fixture(scope="module")
def user():
    return Channel(voice(USER, SECONDS, USER_RATE, 1), USER_RATE)


def agent(spans=AGENT, leaked=None, noise_db=None):
    samples = voice(spans, SECONDS, AGENT_RATE, 2)
    if leaked is not None:
        samples = samples + leaked
    if noise_db is not None:
        samples = samples + 10 ** (noise_db / 20) * np.random.default_rng(3).standard_normal(len(samples))
    return Channel(samples.astype(np.float32), AGENT_RATE)


def in_agent_channel(user, seconds, db):
    return later(soxr.resample(user.samples, USER_RATE, AGENT_RATE), seconds, AGENT_RATE, db)


@pytest.mark.parametrize("spans", [AGENT, OVERLAPPING])
@pytest.mark.parametrize(("db", "delay"), [(-6, 0.0), (-20, 0.12), (-35, 0.4)])
def test_a_leak_is_measured_whether_or_not_the_agent_speaks_too(db, delay, spans, user):
    found = leak(user, agent(spans, in_agent_channel(user, delay, db), noise_db=-70), USER)
    assert found.db == pytest.approx(db, abs=1.0)
    assert found.delay == pytest.approx(delay, abs=0.001)


def test_leaks_that_may_be_taken_for_speech_are_warned_of(user):
    loud = channel_facts(user, agent(leaked=in_agent_channel(user, 0.08, -35)), USER)
    assert loud.warnings == ("The user is heard in the agent's channel, at -35 dB and 80 ms later.",)
    faint = channel_facts(user, agent(leaked=in_agent_channel(user, 0.08, -45)), USER)
    assert faint.user_leak_db == pytest.approx(-45, abs=1) and faint.warnings == ()
    assert loud.as_dict()["user_leak_db"] == pytest.approx(-35, abs=1) and loud.as_dict()["leak_delay"] == 0.08


@pytest.mark.parametrize("spans", [AGENT, OVERLAPPING, [(0.0, 18.0)], USER, []])
@pytest.mark.parametrize("noise_db", [None, -50])
def test_an_agent_that_overlaps_is_no_leak(spans, noise_db, user):
    assert leak(user, agent(spans, noise_db=noise_db), USER) is None


@pytest.mark.parametrize("seed", range(8))
def test_an_answer_to_a_short_word_is_no_leak(seed):
    """A third of a second correlates with anything a little, and there is nothing before it to compare with."""
    user = Channel(voice([(1.0, 1.3)], 6.0, USER_RATE, 10 + seed), USER_RATE)
    answer = voice([(1.5, 3.0)], 6.0, AGENT_RATE, 50 + seed)
    assert leak(user, Channel(answer, AGENT_RATE), [(1.0, 1.3)]) is None
    echoed = later(soxr.resample(user.samples, USER_RATE, AGENT_RATE), 0.1, AGENT_RATE, -20)
    assert leak(user, Channel(answer + echoed, AGENT_RATE), [(1.0, 1.3)]).db == pytest.approx(-20, abs=1)


def test_what_the_user_says_later_is_no_leak_of_what_it_said_before(user):
    """An agent's sound a second early is no echo."""
    early = np.concatenate([in_agent_channel(user, 0, 0)[round(0.6 * AGENT_RATE) :], np.zeros(round(0.6 * AGENT_RATE))])
    assert leak(user, Channel(early.astype(np.float32), AGENT_RATE), USER) is None


def test_swapped_channels_are_refused(user):
    with pytest.raises(OddRow, match="swapped channels .the user's turns fit the other channel") as error:
        check_order(agent(), user, Turns(USER))
    assert "swap=true" in error.value.cure
    with pytest.raises(OddRow, match="swapped channels .the agent's turns fit the other channel"):
        check_order(agent(), user, Turns((), AGENT))


@pytest.mark.parametrize("spans", [AGENT, OVERLAPPING, [(0.0, 18.0)], []])
@pytest.mark.parametrize("noise_db", [None, -24])
def test_agents_that_behave_badly_are_not_taken_for_swapped_channels(spans, noise_db, user):
    heard = user.samples
    if noise_db is not None:
        heard = heard + (10 ** (noise_db / 20) * np.random.default_rng(4).standard_normal(len(heard))).astype(np.float32)
    check_order(Channel(heard, USER_RATE), agent(spans), Turns(USER, AGENT))


def test_a_silent_user_and_an_agent_that_speaks_over_two_turns_are_not_swapped():
    silence = Channel(np.zeros(round(SECONDS * USER_RATE), np.float32), USER_RATE)
    check_order(silence, agent([(1.0, 3.0), (4.0, 6.0), (7.0, 9.0)]), Turns(USER))
    with pytest.raises(OddRow, match="swapped channels"):
        check_order(silence, agent(USER), Turns(USER))


def test_windows_of_a_broken_number_of_samples_do_not_drift():
    """At 11025 Hz, 20 ms are 220.5 samples: 0.7 s are lost in five minutes if windows are taken for 20 ms."""
    spans = [(t, t + 0.3) for t in np.arange(300.0, 600.0, 0.7)]
    swapped = Channel(voice(spans, 601.0, 11025, 1), 11025)
    with pytest.raises(OddRow, match=r"correlation 0\.[6-9]\d"):
        check_order(Channel(np.zeros(10, np.float32), 8000), swapped, Turns(spans))


def test_an_agent_that_echoes_the_user_is_not_swapped(user):
    check_order(user, Channel(later(user.samples, 0.2, USER_RATE), USER_RATE), Turns(USER))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([0.5, np.nan], "samples that are not finite (in the agent's channel)"),
        ([np.inf, 0.5], "samples that are not finite (in the agent's channel)"),
        ([0.5, -1.25], "samples above full scale (up to 1.25 in the agent's channel)"),
        ([12000.0, 0.0], "samples above full scale (up to 1.2e+04 in the agent's channel)"),
    ],
)
def test_samples_that_are_no_sound_are_refused(samples, message):
    with pytest.raises(OddRow) as error:
        check_samples(Channel(np.asarray(samples, np.float32), 8000), "agent")
    assert str(error.value) == message


def test_full_scale_itself_is_sound():
    check_samples(Channel(np.asarray([-1.0, 1.0], np.float32), 8000), "agent")
    check_samples(Channel(np.zeros(0, np.float32), 8000), "agent")


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((10.0, 10.0, 10.09), "channels of different lengths (the user's lasts 10.00 s, the agent's 10.09 s)"),
        ((10.0, 10.0, 9.9), "channels of different lengths (the user's lasts 10.00 s, the agent's 9.90 s)"),
        (
            (12.0, 10.0, 10.0),
            "another length than the conversation (the conversation lasts 12.00 s, the user's channel 10.00 s)",
        ),
        (
            (12.0, None, 10.0),
            "another length than the conversation (the conversation lasts 12.00 s, the agent's channel 10.00 s)",
        ),
    ],
)
def test_lengths_that_differ_by_over_a_frame_are_refused(lengths, message):
    with pytest.raises(OddRow) as error:
        check_lengths(*lengths)
    assert str(error.value) == message
    assert "pad=true" in error.value.cure


def test_a_frame_of_difference_is_none():
    check_lengths(10.0, 10.0, 10.08)
    check_lengths(10.0, 10.08, 10.0)
    check_lengths(10.0, None, 9.92)


def test_clipping_is_runs_at_full_scale(user):
    samples = user.samples.copy()
    assert clipped_share(samples) == 0
    samples[100:103] = 1
    assert clipped_share(samples) == 0, "three samples may be a peak"
    samples[200:240] = -1
    assert clipped_share(samples) == pytest.approx(40 / len(samples))
    facts = channel_facts(Channel(samples, USER_RATE), agent(), USER)
    assert facts.warnings == ("The user's channel is clipped (0.01 % of its samples).",)


def test_silent_channels_are_said(user):
    silence = Channel(np.zeros(1000, np.float32), 8000)
    assert channel_facts(user, silence, USER).warnings == ("The agent's channel is silent.",)
    assert channel_facts(silence, agent(), USER).warnings == ("The user's channel is silent.",)
    assert channel_facts(None, agent(), USER).warnings == ()
