"""What an agent makes of pauses, sounds and its own echo: every verdict by hand, and what has to hold on any timeline."""

import random
from dataclasses import replace

import pytest

from nemo_duplex.evaluation.behaviour import (
    DISTRACTIONS,
    RATIOS,
    BehaviourRules,
    Unprompted,
    estimate_behaviour,
    measure_behaviour,
    pool_behaviour,
)
from nemo_duplex.evaluation.confidence import wilson
from nemo_duplex.evaluation.labels import LabelledEvent
from nemo_duplex.inputs import InputError

ASKED = [(1.0, 3.0)]
EXACT = BehaviourRules(agent_merge_gap=0.0)


def sound(kind, start, end=None):
    return LabelledEvent(kind, "other" if kind == "background_voice" else "user", start, start + 0.3 if end is None else end)


def measured(agent, events=(), user=ASKED, pauses=(), duration=20.0, **given):
    return measure_behaviour(user, pauses, events, agent, duration, **given)


@pytest.mark.parametrize(
    ("agent", "status"),
    [
        ([], "waited"),
        ([(3.6, 6.0)], "waited"),
        ([(1.5, 2.5)], "took_over"),
        ([(1.5, 2.499)], "spoke"),
        ([(1.999, 5.0)], "took_over"),
        ([(2.0, 5.0)], "waited"),  # the user speaks again: a false alarm
        ([(1.499, 5.0)], "speaking"),
        ([(0.0, 1.5)], "waited"),
        ([(1.6, 1.7), (1.95, 4.0)], "took_over"),  # one turn by the merge gap
    ],
)
def test_a_pause_by_hand(agent, status):
    [pause] = measured(agent, pauses=[(1.5, 2.0)]).pauses
    assert (pause.start, pause.end, pause.status) == (1.5, 2.0, status)


def test_what_takes_the_floor_is_a_rule():
    agent = [(1.6, 1.7)]
    statuses = [
        measured(agent, pauses=[(1.5, 2.0)], rules=BehaviourRules(takeover=t)).pauses[0].status for t in (0.0, 0.1, 0.2)
    ]
    assert statuses == ["took_over", "took_over", "spoke"]


def test_a_pause_at_the_end_of_the_recording_tells_nothing_yet():
    [pause] = measured([(2.6, 3.0)], user=[(1.0, 3.0)], pauses=[(2.5, 2.8)], duration=3.0).pauses
    assert pause.status == "unknown"
    [pause] = measured([(1.9, 3.0)], user=[(1.0, 3.0)], pauses=[(1.5, 2.8)], duration=3.0).pauses
    assert pause.status == "took_over", "long enough all the same"


def test_a_turn_with_a_pause_is_taken_over_until_it_ends():
    def taken(agent):
        return measured(agent, pauses=[(1.5, 2.0)]).paused_turns

    assert [taken(agent) for agent in ([], [(2.3, 4.0)], [(2.3, 2.6)], [(2.899, 4.0)], [(2.9, 4.0)])] == [
        (False,),
        (True,),
        (False,),
        (True,),
        (False,),
    ], "an onset within the grace of 0.1 s answers"
    assert taken([(0.5, 1.6)]) == (), "the agent speaks already"
    assert measured([(1.2, 5.0)], pauses=[]).paused_turns == ()
    two = measured([(6.6, 8.0)], user=[(1.0, 3.0), (5.0, 8.0)], pauses=[(1.5, 2.0), (6.0, 6.3)])
    assert two.paused_turns == (False, True)


@pytest.mark.parametrize(
    ("agent", "status", "resume_time"),
    [
        ([(3.6, 9.0)], "went_on", None),
        ([(3.6, 6.501)], "went_on", None),  # a reaction comes within 1.5 s of the onset
        ([(3.6, 6.5)], "fell_silent", None),
        ([(3.6, 5.6), (6.4, 9.0)], "resumed", 0.8),
        ([(3.6, 5.6), (7.6, 9.0)], "resumed", 2.0),
        ([(3.6, 5.6), (7.601, 9.0)], "fell_silent", None),
        ([(3.6, 5.6), (6.1, 9.0)], "went_on", None),  # a pause within the agent's turn
        ([(3.6, 5.0), (6.4, 7.0)], "spoke", None),  # it was silent when the sound began
        ([(3.6, 4.2)], "silent", None),
        ([(3.6, 4.2), (6.8, 9.0)], "spoke", None),  # 1.5 s after the sound's end, as after a turn
        ([(3.6, 4.2), (6.801, 9.0)], "silent", None),
        ([(3.6, 4.2), (5.0, 9.0)], "unknown", None),  # it starts in the same millisecond
        ([(7.0, 9.0)], "unknown", None),  # an answer is due: what it starts for cannot be told
        ([], "unknown", None),
    ],
)
def test_a_sound_by_hand(agent, status, resume_time):
    """At 5.0 s, for each kind alike."""
    for kind in DISTRACTIONS:
        [found] = measured(agent, [sound(kind, 5.0)]).reactions
        assert (found.kind, found.status) == (kind, status)
        assert found.resume_time == (None if resume_time is None else pytest.approx(resume_time))
        assert found.speaking == (agent != [] and agent[0][0] < 5.0 < agent[0][1])


def test_a_long_sound_is_reacted_to_until_it_ends():
    [found] = measured([(3.6, 8.0)], [sound("side_talk", 5.0, 8.0)]).reactions
    assert found.status == "fell_silent"
    [found] = measured([(3.6, 8.0)], [sound("side_talk", 5.0, 7.9)]).reactions
    assert found.status == "went_on"
    for onset, status in ((7.0, "spoke"), (9.0, "spoke"), (9.001, "silent")):
        [found] = measured([(3.6, 4.0), (onset, 12.0)], [sound("side_talk", 4.5, 7.5)]).reactions
        assert found.status == status


@pytest.mark.parametrize(
    ("following", "agents"),
    [
        ((5.2, 7.0), [[(3.6, 9.0)], [(3.6, 5.1)], [(3.6, 4.0)], [(3.6, 4.0), (5.1, 9.0)]]),
        ((4.0, 5.001), [[(3.6, 9.0)], [(3.6, 5.1)], [(3.6, 3.9)]]),
        ((6.499, 8.0), [[(3.6, 9.0)], [(3.6, 5.1)]]),
        ((6.299, 8.0), [[(3.6, 4.0)], [(3.6, 4.0), (5.1, 9.0)]]),
    ],
)
def test_a_user_turn_nearby_makes_it_unknown_whatever_the_agent_does(following, agents):
    for agent in agents:
        [found] = measured(agent, [sound("backchannel", 5.0)], user=[*ASKED, following]).reactions
        assert found.status == "unknown"


def test_a_silent_agent_is_watched_until_the_user_goes_on():
    """From 5.3 s on, for at least a second."""

    def status(onset, following):
        agent = [(3.6, 4.0), (onset, onset + 2)]
        return measured(agent, [sound("side_talk", 5.0)], user=[*ASKED, following]).reactions[0].status

    assert status(6.2, (6.3, 8.0)) == "spoke"
    assert [status(onset, (6.3, 8.0)) for onset in (6.3, 6.4)] == ["silent"] * 2, "a collision, a false alarm"
    assert [status(onset, (9.0, 9.5)) for onset in (6.8, 6.801)] == ["spoke", "silent"]


def test_a_user_turn_after_the_window_leaves_it_known():
    [found] = measured([(3.6, 6.0)], [sound("backchannel", 5.0)], user=[*ASKED, (6.5, 8.0)]).reactions
    assert found.status == "fell_silent"
    [found] = measured([(3.6, 6.0), (6.9, 9.0)], [sound("backchannel", 5.0)], user=[*ASKED, (6.5, 8.0)]).reactions
    assert found.status == "fell_silent", "what it says after the next question is no resuming"


def test_an_answer_that_is_said_to_its_end_goes_on():
    def status(stop, own):
        """Of an answer with a sound at 5.0 s."""
        found = measured([(3.6, stop)], [sound("backchannel", 5.0)], own_end=lambda turn: own)
        return found.reactions[0].status

    assert [status(6.2, own) for own in (None, 6.2, 6.35, 6.36, 9.0)] == [
        "fell_silent",
        "went_on",
        "went_on",
        "broke_off",
        "broke_off",
    ]
    assert [status(stop, 6.0) for stop in (5.2, 6.0, 9.0)] == ["ending"] * 3, "with a second to go, nothing tells"
    assert status(5.2, 6.001) == "broke_off"
    turns = []
    measured([(3.6, 4.6), (5.0, 5.6)], [sound("cough", 5.2)], own_end=turns.append)
    assert set(turns) == {(3.6, 5.6)}, "it is asked about the turn as merged"


def test_what_broke_off_for_certain_bounds_the_rate_from_above():
    mhm, agent = [sound("backchannel", 5.0)], [(3.6, 5.6)]
    rows = [measured(agent, mhm), measured(agent, mhm, own_end=lambda turn: 9.0), measured([(3.6, 9.0)], mhm)]
    pooled = pool_behaviour(rows)
    assert (pooled["backchannel_resume_rate"], pooled["backchannel_resume_at_most_rate"]) == (1 / 3, 1 / 2)
    assert (pooled["n_backchannel_fell_silent"], pooled["n_backchannel_broke_off"]) == (1, 1)


def test_a_sound_near_the_end_of_the_recording_tells_nothing_yet():
    near = [sound("cough", 19.0)]
    assert measured([(3.6, 20.0)], near).reactions[0].status == "unknown"
    assert measured([(3.6, 19.2)], near).reactions[0].status == "unknown", "it may resume"
    assert measured([(3.6, 7.0)], near).reactions[0].status == "unknown"
    assert measured([(3.6, 7.0), (19.3, 20.0)], near).reactions[0].status == "spoke"


def test_noise_and_what_is_in_a_turn_are_no_distractions():
    events = [sound(kind, 5.0, 9.0) for kind in ("noise", "babble", "packet_loss", "hesitation")]
    assert measured([(3.6, 6.0)], events).reactions == ()


@pytest.mark.parametrize(
    ("agent", "own_end", "status"),
    [
        ([(3.6, 8.0)], None, "kept"),
        ([(3.6, 8.5)], None, "kept"),
        ([(3.6, 5.0)], None, "unknown"),  # the echo is of another, longer answer, or it broke off
        ([(3.6, 5.0)], 5.1, "kept"),
        ([(3.6, 5.0)], 8.0, "interrupted"),
        ([(3.6, 5.0), (5.6, 9.0)], None, "interrupted"),  # stops and resumes, with nobody near
        ([(3.6, 5.0), (7.1, 9.0)], None, "unknown"),
        ([(9.0, 10.0)], None, "silent"),
        ([], None, "silent"),
    ],
)
def test_an_echo_by_hand(agent, own_end, status):
    """From 3.7 to 8.0 s."""
    [echo] = measured(agent, [sound("leak", 3.7, 8.0)], own_end=lambda turn: own_end).echoes
    assert (echo.start, echo.end, echo.status) == (3.7, 8.0, status)


def test_a_stop_near_another_sound_or_a_user_turn_is_not_put_down_to_the_echo():
    leak, agent = sound("leak", 3.7, 8.0), [(3.6, 5.0), (5.6, 9.0)]
    assert measured(agent, [leak, sound("cough", 3.4, 3.501)]).echoes[0].status == "unknown"
    assert measured(agent, [leak, sound("cough", 3.2, 3.5)]).echoes[0].status == "interrupted"
    assert measured(agent, [leak], user=[(1.0, 3.0), (4.4, 4.9)]).echoes[0].status == "unknown"
    assert measured([(3.6, 7.0)], [sound("leak", 3.7, 8.0)], duration=7.0).echoes[0].status == "unknown"


def test_what_nobody_asked_for():
    def unprompted(agent, user=ASKED, events=()):
        return measured(agent, events, user).unprompted

    assert unprompted([(3.6, 5.0)]) == ()
    assert unprompted([(3.6, 5.0), (7.0, 8.0)]) == (), "it goes on after a pause"
    assert unprompted([(3.6, 5.0), (7.001, 8.0)]) == (Unprompted(7.001, None, False),)
    assert unprompted([(3.6, 5.0), (9.0, 10.0)], user=[*ASKED, (4.0, 4.5)]) == (), "asked within the turn before"
    assert unprompted([(3.6, 5.0), (9.0, 10.0)], user=[*ASKED, (8.9, 9.5)]) == (), "a false alarm"
    assert unprompted([(3.6, 5.0), (9.0, 10.0)], user=[*ASKED, (9.0, 9.5)]) == (), "a collision"
    assert unprompted([(0.2, 0.9), (3.6, 5.0)]) == (Unprompted(0.2, None, True),), "a greeting"
    assert unprompted([(0.2, 0.9)], user=[]) == (Unprompted(0.2, None, False),), "nobody is there to greet"


def test_what_was_heard_just_before_it():
    events = [sound("side_talk", 7.0, 7.5), sound("leak", 3.7, 5.2), sound("noise", 0.0, 20.0)]
    twice = measured([(3.6, 5.0), (9.0, 10.0), (12.5, 13.0)], events).unprompted
    assert [u.after for u in twice] == ["side_talk", None]
    assert measured([(3.6, 4.0), (6.7, 8.0)], events).unprompted[0].after == "leak"
    assert measured([(3.6, 4.0), (6.701, 8.0)], events).unprompted[0].after is None


LABELLED = [
    # pauses: waited, spoke, took over; the backchannel: resumed after 0.8 s; the cough: went on
    measured(
        [(2.1, 2.4), (3.6, 5.6), (6.4, 9.0), (12.2, 14.0)],
        [sound("backchannel", 5.0), sound("cough", 7.0)],
        user=[(1.0, 3.0), (11.0, 13.0)],
        pauses=[(1.3, 1.6), (2.0, 2.5), (12.0, 12.5)],
    ),
    # the backchannel: stopped; side talk: silent, spoke; an answer that nobody asked for, and one to the echo
    measured(
        [(3.6, 5.5), (10.2, 11.0), (15.0, 16.0)],
        [sound("backchannel", 5.0), sound("side_talk", 7.6), sound("side_talk", 10.0), sound("leak", 14.0, 14.8)],
    ),
    # the backchannel: went on; the echo: kept
    measured([(3.6, 9.0)], [sound("backchannel", 5.0), sound("leak", 3.7, 8.9)]),
    # nothing labelled
    measured([(3.6, 9.0)]),
]


def test_every_rate_by_hand():
    got = pool_behaviour(LABELLED)
    expected = {
        "n_conversations": 4,
        "n_pauses": 3,
        "n_backchannel": 3,
        "n_cough": 1,
        "n_side_talk": 2,
        "n_background_voice": 0,
        "n_echo": 2,
        "n_unprompted": 2,
        "n_greetings": 0,
        "n_pause_waited": 1,
        "n_pause_spoke": 1,
        "n_pause_took_over": 1,
        "n_backchannel_resumed": 1,
        "n_backchannel_fell_silent": 1,
        "n_backchannel_went_on": 1,
        "n_cough_went_on": 1,
        "n_side_talk_silent": 1,
        "n_side_talk_spoke": 1,
        "n_echo_kept": 1,
        "n_echo_silent": 1,
        "pause_takeover_rate": 1 / 3,
        "pause_onset_rate": 2 / 3,
        "paused_turn_takeover_rate": 1 / 2,
        "backchannel_ignored_rate": 1 / 3,
        "backchannel_went_on_rate": 1 / 3,
        "backchannel_resume_rate": 2 / 3,
        "backchannel_resume_at_most_rate": 1.0,  # where the answer may have been over
        "backchannel_answered_rate": None,
        "backchannel_resume_time": pytest.approx(0.8),
        "cough_ignored_rate": 1.0,
        "cough_went_on_rate": 1.0,
        "cough_resume_rate": 1.0,
        "cough_resume_at_most_rate": 1.0,
        "cough_answered_rate": None,
        "cough_resume_time": None,
        "side_talk_ignored_rate": 1 / 2,
        "side_talk_went_on_rate": None,
        "side_talk_resume_rate": None,
        "side_talk_resume_at_most_rate": None,
        "side_talk_answered_rate": 1 / 2,
        "side_talk_resume_time": None,
        **{f"background_voice_{name}_rate": None for name in ("ignored", "went_on", "resume", "resume_at_most", "answered")},
        "background_voice_resume_time": None,
        "echo_interruption_rate": 0.0,
        "echo_answers_per_minute": 1 / (80 / 60),
        "unprompted_rate": 2 / 9,
        "unprompted_per_minute": 2 / (80 / 60),
    }
    assert got == expected


def test_undefined_is_none():
    nothing = pool_behaviour([])
    assert {value for name, value in nothing.items() if not name.startswith("n_")} == {None}


def test_estimates_are_the_pool_with_intervals():
    found, pooled = estimate_behaviour(LABELLED), pool_behaviour(LABELLED)
    assert {name: e.value for name, e in found.items()} == {name: pooled[name] for name in RATIOS}
    assert found["backchannel_resume_rate"].ci95 == wilson(2, 3) and found["backchannel_resume_rate"].n == 3
    assert found["unprompted_per_minute"].ci95 == found["unprompted_per_minute"].bootstrap95


def timeline(rng):
    """User turns with pauses, sounds, and an agent, in milliseconds on a grid of 50."""

    def spans(n, lengths):
        starts = [rng.randrange(0, 300) * 50 for _ in range(rng.randrange(n))]
        return [(start, start + rng.choice(lengths)) for start in starts]

    user = spans(4, [500, 2000])
    pauses = [(a + 100, a + 300) for a, b in user if rng.random() < 0.7]
    events = [(rng.choice([*DISTRACTIONS, "leak", "noise"]), a, b) for a, b in spans(6, [300, 1500, 4000])]
    return user, pauses, events, spans(6, [50, 1000, 1500, 4000])


def at(given, later=0):
    user, pauses, events, agent = given
    moved = [[((a + later) / 1000, (b + later) / 1000) for a, b in spans] for spans in (user, pauses, agent)]
    sounds = [LabelledEvent(kind, "user", (a + later) / 1000, (b + later) / 1000) for kind, a, b in events]
    return measure_behaviour(moved[0], moved[1], sounds, moved[2], 20.0 + later / 1000)


def verdicts(m):
    return (
        [p.status for p in m.pauses],
        m.paused_turns,
        sorted((r.kind, r.status, round(r.resume_time or 0, 3)) for r in m.reactions),
        sorted(e.status for e in m.echoes),
        sorted((u.after or "", u.greeting) for u in m.unprompted),
    )


def test_order_shift_and_batches_change_no_verdict():
    rng = random.Random(0)
    rows, seen = [], set()
    for _ in range(1500):
        given = timeline(rng)
        rows.append(at(given))
        seen |= {r.status for r in rows[-1].reactions} | {e.status for e in rows[-1].echoes}
        assert verdicts(at([spans[::-1] for spans in given])) == verdicts(rows[-1])
        assert verdicts(at(given, later=rng.randrange(1, 10**6))) == verdicts(rows[-1])
    assert seen == {"went_on", "resumed", "fell_silent", "silent", "spoke", "unknown", "kept", "interrupted"}
    assert pool_behaviour(rng.sample(rows, len(rows))) == pytest.approx(pool_behaviour(rows))
    parts = [[RATIOS["cough_ignored_rate"](m) for m in half] for half in (rows[:50], rows[50:])]
    above, below = (sum(part[i] for half in parts for part in half) for i in (0, 1))
    assert above / below == pytest.approx(pool_behaviour(rows)["cough_ignored_rate"])


def test_a_silent_agent_and_one_that_never_stops_bracket_every_rate():
    rng = random.Random(1)
    scenes = [timeline(rng) for _ in range(100)]
    silent = pool_behaviour([at((*given[:3], [])) for given in scenes])
    assert (silent["pause_takeover_rate"], silent["unprompted_per_minute"]) == (0.0, 0.0)
    assert (silent["cough_answered_rate"], silent["cough_went_on_rate"]) == (0.0, None)
    talking = pool_behaviour([at((*given[:3], [(0, 19_900)])) for given in scenes])
    assert talking["pause_takeover_rate"] is None, "it speaks already"
    assert (talking["cough_resume_rate"], talking["echo_interruption_rate"]) == (1.0, 0.0)


def test_pauses_of_the_agent_are_a_rule():
    agent, mhm = [(3.6, 5.4), (5.8, 9.0)], [sound("backchannel", 5.0)]
    assert measured(agent, mhm).reactions[0].status == "went_on"
    assert measured(agent, mhm, rules=EXACT).reactions[0].status == "resumed"
    slower = replace(EXACT, resume_within=0.3)
    assert measured(agent, mhm, rules=slower).reactions[0].status == "fell_silent"


def test_a_conversation_for_the_report_holds_events_and_rates():
    row = LABELLED[0].as_dict()
    assert row["pauses"][0] == {"start": 1.3, "end": 1.6, "status": "waited"} and row["n_pauses"] == 3
    assert row["reactions"][0]["resume_time"] == pytest.approx(0.8) and "rules" not in row


def test_times_that_are_none_are_refused():
    with pytest.raises(InputError, match="finite number"):
        measured([(float("nan"), 1.0)])
