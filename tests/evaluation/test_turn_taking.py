"""The golden timelines, and what has to hold on any timeline."""

import json
import math
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from nemo_duplex.evaluation.confidence import wilson
from nemo_duplex.evaluation.turn_taking import Rules, estimates, measure, pool
from nemo_duplex.inputs import InputError
from tests.evaluation.mask_scan import scan

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "turn_taking.json").read_text())


def same(got, expected):
    """Equality as the golden file defines it: floats to 5e-4, only the keys that it names."""
    if isinstance(expected, dict):
        return all(same(got[key], value) for key, value in expected.items())
    if isinstance(expected, list):
        return len(got) == len(expected) and all(map(same, got, expected))
    if isinstance(expected, float) and got is not None:
        return got == pytest.approx(expected, abs=5e-4)
    return got == expected and type(got) is type(expected)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["id"])
def test_golden_timeline(case):
    got = measure(case["user"], case["agent"], case["duration"], Rules(**case.get("params", {}))).as_dict()
    wrong = {key: (got[key], value) for key, value in case["expected"].items() if not same(got[key], value)}
    assert not wrong, f"{case['why']}: (got, expected) {wrong}"


def test_defaults_are_the_golden_ones():
    assert vars(Rules()) == GOLDEN["defaults"]


CONVERSATIONS = [
    measure([(1, 3), (6, 9)], [(3.64, 6.64), (9.64, 13)], 16),  # 1 of 1, 0.64 s
    measure([(1, 3), (6, 9)], [(3.5, 8), (9.5, 12)], 16),  # 0 of 1, 2.0 s
    measure([(1, 3), (6, 8), (12, 14), (18, 20)], [(3.5, 6.4), (8.5, 12.8), (14.5, 18.6), (20.5, 25)], 30),  # 3 of 3: .4 .8 .6
    measure([(1, 3), (6, 9)], [(3.5, 12)], 12),  # 0 of 1, never stops
    measure([(1, 3), (11, 12)], [(3.5, 12)], 12),  # censored
    measure([(1, 3)], [], 10),  # silent agent
]


def test_events_are_pooled_and_never_averaged_per_conversation():
    pooled = pool(CONVERSATIONS)
    assert (pooled["n_success"], pooled["n_observable"], pooled["n_censored"]) == (4, 6, 1)
    assert pooled["success_rate"] == pytest.approx(4 / 6)  # the mean of the four rates would be 0.5
    assert pooled["mean_stop_latency"] == pytest.approx((0.64 + 0.4 + 0.8 + 0.6) / 4)
    assert pooled["restricted_mean_stop_latency"] == pytest.approx((0.64 + 0.4 + 0.8 + 0.6 + 1.5 + 1.5) / 6)
    assert pooled["median_stop_latency"] == pytest.approx(0.62)
    assert pooled["p90_stop_latency"] == pytest.approx(0.8)
    assert pooled["no_response_rate"] == pytest.approx(1 / 6)
    assert pooled["interruption_rate"] == pytest.approx(7 / 7)


def test_order_of_conversations_and_spans_is_nothing():
    shuffled = [measure(m.user[::-1], m.agent[::-1], m.duration) for m in reversed(CONVERSATIONS)]
    assert pool(shuffled) == pytest.approx(pool(CONVERSATIONS), nan_ok=True)


def test_a_shift_in_time_changes_no_event():
    later = [
        measure([(a + 7.3, b + 7.3) for a, b in m.user], [(a + 7.3, b + 7.3) for a, b in m.agent], m.duration + 7.3)
        for m in CONVERSATIONS
    ]
    assert pool(later) == pytest.approx(pool(CONVERSATIONS))


def test_undefined_is_none():
    nothing = pool([])
    assert {value for name, value in nothing.items() if not name.startswith("n_")} == {None}
    assert all(e.value is None and e.ci95 is None for e in estimates([]).values())


RICH = [
    # u1: false alarm at 2.5, early by 1.5 s; u2: barge-in, stops after 0.5 s, starts again at 8 (false alarm, early by 2 s)
    # and at 9.95 (excused); u3: starts together with the agent, is answered after 0.6 s
    measure([(1, 4), (6, 10), (12, 14)], [(2.5, 6.5), (8, 9), (9.95, 11), (12, 12.5), (14.6, 16)], 20),
    # a greeting that the user breaks into, stops after 0.4 s; no response
    measure([(1, 3)], [(0.2, 1.4)], 10),
    # answers after 0.5 s and never stops, for two turns
    measure([(1, 3), (6, 9), (10, 11)], [(3.5, 12)], 12),
    # answers after 0.4 s, goes on after a pause, answers after 0.5 s
    measure([(1, 3), (6, 7)], [(3.4, 5), (5.5, 5.8), (7.5, 8)], 10),
]


def test_every_rate_by_hand():
    got = pool(RICH)
    assert {name: got[name] for name in got if name.startswith("n_")} == {
        "n_conversations": 4,
        "n_user_turns": 9,
        "n_agent_turns": 10,
        "n_short_user": 0,
        "n_barge_in": 4,
        "n_observable": 4,
        "n_censored": 0,
        "n_success": 2,
        "n_resumed": 1,
        "n_false_alarms": 2,
        "n_false_alarms_excused": 1,
        "n_collisions": 1,
        "n_user_turns_with_false_alarm": 2,
    }
    assert {name: got[name] for name in got if not name.startswith("n_")} == pytest.approx(
        {
            "success_rate": 2 / 4,
            "sustained_success_rate": 1 / 4,
            "mean_stop_latency": (0.5 + 0.4) / 2,
            "false_alarm_rate": 2 / 9,
            "false_alarms_per_agent_turn": 2 / 10,
            "false_alarms_per_minute": 2 / (20 / 60),  # 9, 2, 6 and 3 s of user speech
            "interruption_rate": 3 / 5,  # of the turns after a first one
            "first_response_latency": (0.5 + 0.4) / 2,  # one is early and one missing
            "early_rate": 1 / 4,
            "no_response_rate": 1 / 4,
            "response_latency": (0.6 + 0.5 + 0.4 + 0.5) / 4,
            "response_rate": 6 / 9,
            "response_early_rate": 2 / 9,
            "response_missing_rate": 3 / 9,
            "median_stop_latency": 0.45,
            "p90_stop_latency": 0.5,
            "restricted_mean_stop_latency": (0.5 + 0.4 + 1.5 + 1.5) / 4,
        }
    )
    assert [(r.status, r.latency) for r in RICH[0].responses] == [("early", -1.5), ("early", -2.0), ("ok", pytest.approx(0.6))]


def test_an_onset_just_within_the_grace_is_excused_early_and_resumes_nothing():
    """0.1 s before the user's end, and a millisecond earlier."""
    excused, alarm = (measure([(1, 3), (6, 10)], [(3.5, 6.5), (onset, 12)], 14) for onset in (9.9, 9.899))
    assert (excused.false_alarms, excused.false_alarms_excused, excused.barge_ins[0].resumed) == ((), (9.9,), False)
    assert (alarm.false_alarms, alarm.false_alarms_excused, alarm.barge_ins[0].resumed) == ((9.899,), (), True)
    assert [m.responses[1].status for m in (excused, alarm)] == ["ok", "early"]
    assert excused.responses[1].latency == pytest.approx(-0.1)


def test_a_resumed_failure_is_counted_as_resumed_too():
    failed = measure([(1, 3), (6, 10)], [(3.5, 8), (9, 9.5)], 12)
    assert pool([failed])["n_resumed"] == 1 and pool([failed])["success_rate"] == 0


def test_the_p90_is_the_smallest_value_that_nine_in_ten_do_not_exceed():
    latencies = [0.7, 0.1, 1.0, 0.4, 0.9, 0.2, 0.8, 0.3, 0.6, 0.5]
    rows = [measure([(1, 3), (6, 9)], [(3.5, 6 + latency)], 12) for latency in latencies]
    assert pool(rows)["p90_stop_latency"] == pytest.approx(0.9)
    assert pool(rows)["median_stop_latency"] == pytest.approx(0.55)


def test_estimates_are_the_pool_with_intervals():
    pooled = pool(RICH)
    found = estimates(RICH)
    assert {name: e.value for name, e in found.items()} == {name: pytest.approx(pooled[name]) for name in found}
    assert {name: e.n for name, e in found.items() if name.startswith(("success", "false_alarm", "inter"))} == {
        "success_rate": 4,
        "false_alarm_rate": 9,
        "false_alarms_per_agent_turn": 10,
        "false_alarms_per_minute": pytest.approx(20 / 60),
        "interruption_rate": 5,
    }
    for name, counts in {"success_rate": (2, 4), "false_alarm_rate": (2, 9), "early_rate": (1, 4)}.items():
        assert found[name].ci95 == wilson(*counts), name
    for name in ("mean_stop_latency", "false_alarms_per_agent_turn", "response_latency"):
        assert found[name].ci95 == found[name].bootstrap95, "no share of countable things"


def test_intervals_follow_the_seed():
    rows = [measure([(1, 3), (6, 9)], [(3.3 + i % 7 / 10, 6.1 + i * 37 % 29 / 20)], 12) for i in range(30)]
    first, second = (estimates(rows, seed)["mean_stop_latency"].ci95 for seed in (0, 3))
    assert first != second and first == pytest.approx(second, abs=0.02)


def test_times_are_rounded_to_milliseconds():
    """0.57 * 1000 is 569.99..."""
    m = measure([(0.57, 1.0014)], [], 5.0006)
    assert (m.user, m.duration) == (((0.57, 1.001),), 5.001)


def test_spans_are_clipped_at_both_ends_and_a_longer_one_holds_a_shorter():
    m = measure([(-1.0, 2.0), (0.5, 1.0), (4.0, 9.0)], [], 5)
    assert m.user == ((0.0, 2.0), (4.0, 5.0))


def test_merging_and_shortness_at_their_boundaries():
    """A pause of just the gap lies inside a turn; speech of just the least duration is a turn. Each side has its own rules."""
    user, agent = [(0, 1), (1.5, 2), (2.501, 3)], [(4, 4.5), (4.7, 5), (6, 6.3), (7, 7.299)]
    m = measure(user, agent, 10, Rules(user_merge_gap=0.5, agent_merge_gap=0.2, min_user_dur=0.499, min_agent_dur=0.3))
    assert m.user == ((0.0, 2.0), (2.501, 3.0)) and m.n_short_user == 0
    assert m.agent == ((4.0, 5.0), (6.0, 6.3))
    assert measure(user, [], 10, Rules(min_user_dur=0.5)).n_short_user == 1


def test_every_turn_has_a_response_and_its_room():
    first, second = CONVERSATIONS[0].responses
    assert (first.status, first.latency, first.time_to_answer) == ("ok", pytest.approx(0.64), pytest.approx(3.0))
    assert (second.latency, second.time_to_answer) == (pytest.approx(0.64), pytest.approx(7.0))


def test_an_agent_that_speaks_only_in_the_next_turn_has_not_answered_this_one():
    responses = measure([(1, 3), (5, 7)], [(5.5, 6), (7.4, 9)], 10).responses
    assert [(r.status, r.latency) for r in responses] == [("no_response", None), ("early", -1.5)]


def test_a_collision_is_neither_barge_in_nor_false_alarm():
    m = measure([(1, 3)], [(1, 2)], 5)
    assert (m.collisions, m.barge_ins, m.false_alarms) == ((1.0,), (), ())
    assert m.first_response.status == "no_response"


def test_tiny_overlaps_are_no_barge_in_where_the_rules_say_so():
    assert len(measure([(1, 2)], [(0.5, 1.05)], 5).barge_ins) == 1
    assert len(measure([(1, 2)], [(0.5, 1.05)], 5, Rules(min_overlap=0.1)).barge_ins) == 0
    assert len(measure([(1, 2)], [(0.5, 1.05)], 5, Rules(min_overlap=0.05)).barge_ins) == 0, "not longer than it"
    assert len(measure([(1, 2)], [(0.5, 1.05)], 5, Rules(min_overlap=0.049)).barge_ins) == 1


def test_a_span_that_runs_backwards_is_refused():
    with pytest.raises(ValueError, match="3 to 2 s"):
        measure([(3, 2)], [], 5)


LENGTHS = [0, 1, 49, 50, 50, 99, 100, 101, 200, 500, 501, 700, 1499, 1500, 1501, 2500]


def random_spans(rng, end):
    """Up to eleven spans in milliseconds: many touch, overlap, or reach over the recording's edges."""
    spans, last = [], 0
    for _ in range(rng.randrange(12)):
        start = last + rng.choice([0, 1, 50, 100, 500]) if rng.random() < 0.4 else rng.randrange(-20, end // 50 + 20) * 50
        last = start + rng.choice(LENGTHS)
        spans.append((start, last))
    rng.shuffle(spans)
    return spans


def random_rules(rng):
    """In milliseconds."""
    return {
        "barge_in_window": rng.choice([1500, 1500, 1000, 0]),
        "fa_grace": rng.choice([100, 100, 0, 500]),
        "user_merge_gap": rng.choice([0, 0, 50, 500]),
        "agent_merge_gap": rng.choice([0, 50, 500, 1500]),
        "min_user_dur": rng.choice([0, 0, 50, 101]),
        "min_agent_dur": rng.choice([0, 0, 50, 101]),
        "min_overlap": rng.choice([0, 0, 50, 100]),
    }


def measured_as_scanned(user, agent, end, rules, later=0):
    """`measure`'s events in milliseconds; the times given to it are sums of floats, as they are in files."""
    given = [[(a / 1000 + later / 1000, a / 1000 + later / 1000 + (b - a) / 1000) for a, b in spans] for spans in (user, agent)]
    m = measure(*given, (end + later) / 1000, Rules(**{name: value / 1000 for name, value in rules.items()}))
    ms = lambda time: None if time is None else round(time * 1000)  # noqa: E731
    at = lambda time: ms(time) - later  # noqa: E731
    return {
        "user": [(at(a), at(b)) for a, b in m.user],
        "agent": [(at(a), at(b)) for a, b in m.agent],
        "barge_ins": [(at(b.user_onset), b.status, ms(b.stop_latency), b.resumed) for b in m.barge_ins],
        "false_alarms": list(map(at, m.false_alarms)),
        "false_alarms_excused": list(map(at, m.false_alarms_excused)),
        "collisions": list(map(at, m.collisions)),
        "responses": [(r.status, ms(r.latency), ms(r.time_to_answer)) for r in m.responses],
        "n_short_user": m.n_short_user,
        "n_user_turns_with_false_alarm": m.n_user_turns_with_false_alarm,
    }


def test_agrees_with_a_scan_of_milliseconds_on_2000_timelines():
    """Another implementation, without spans, which no off-by-one survives in both."""
    rng, seen = random.Random(0), Counter()
    for case in range(2000):
        end = rng.choice([0, 50, 3950, 6000, 7950, 8000, 8000])
        user, agent, rules = random_spans(rng, end), random_spans(rng, end), random_rules(rng)
        expected = scan(user, agent, end, rules)
        assert measured_as_scanned(user, agent, end, rules) == expected, (case, user, agent, end, rules)
        seen.update(status for _, status, *_ in expected["barge_ins"])
        seen.update(status for status, *_ in expected["responses"])
        seen.update(name for name in ("false_alarms", "false_alarms_excused", "collisions", "n_short_user") if expected[name])
        seen["resumed"] += sum(again for *_, again in expected["barge_ins"])
    assert min(seen.values()) > 50, f"every kind of event is met: {seen}"


def test_a_shift_by_any_milliseconds_moves_every_event_by_as_much():
    """Where no span is cut at the recording's start."""
    rng = random.Random(1)
    for _ in range(300):
        rules = random_rules(rng)
        user, agent = ([(a, b) for a, b in random_spans(rng, 6000) if a >= 0] for _ in range(2))
        later = rng.randrange(1, 5_000_000)
        assert measured_as_scanned(user, agent, 6000, rules, later) == measured_as_scanned(user, agent, 6000, rules)


@pytest.mark.parametrize(
    ("user", "duration", "what"),
    [
        ([(math.nan, 2.0)], 5.0, "span's start must be a finite number of seconds, got nan"),
        ([(1.0, math.inf)], 5.0, "span's end must be a finite number of seconds, got inf"),
        ([(None, 2.0)], 5.0, "span's start must be a finite number of seconds, got None"),
        ([("1.0", 2.0)], 5.0, "span's start must be a finite number of seconds, got '1.0'"),
        ([(1.0, 2.0)], math.nan, "duration must be a finite number of seconds, got nan"),
        ([(1.0, 2.0)], -1.0, "duration must not be negative, got -1.0 s"),
        ([(2.0, 1.9999)], 5.0, "must run forwards, got 2.0 to 1.9999 s"),
    ],
)
def test_times_that_are_none_are_refused(user, duration, what):
    with pytest.raises(InputError, match=re.escape(what)):
        measure(user, [], duration)
