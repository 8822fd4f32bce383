"""The golden timelines, and what has to hold on any timeline."""

import json
import random
from pathlib import Path

import pytest

from nemo_duplex.evaluation.turn_taking import Rules, estimates, measure, pool

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


def test_estimates_agree_with_the_pool_and_bracket_it():
    pooled = pool(CONVERSATIONS)
    for name, estimate in estimates(CONVERSATIONS, seed=3).items():
        assert estimate.value == pytest.approx(pooled[name]), name
        if estimate.ci95:
            assert estimate.ci95[0] - 1e-9 <= estimate.value <= estimate.ci95[1] + 1e-9, name
    assert estimates(CONVERSATIONS, seed=3) == estimates(CONVERSATIONS, seed=3)


def test_every_turn_has_a_response_and_its_room():
    first, second = CONVERSATIONS[0].responses
    assert (first.status, first.latency, first.room) == ("ok", pytest.approx(0.64), pytest.approx(3.0))
    assert (second.latency, second.room) == (pytest.approx(0.64), pytest.approx(7.0))


def test_a_collision_is_neither_barge_in_nor_false_alarm():
    m = measure([(1, 3)], [(1, 2)], 5)
    assert (m.collisions, m.barge_ins, m.false_alarms) == ((1.0,), (), ())
    assert m.first_response.status == "no_response"


def test_tiny_overlaps_are_no_barge_in_where_the_rules_say_so():
    assert len(measure([(1, 2)], [(0.5, 1.05)], 5).barge_ins) == 1
    assert len(measure([(1, 2)], [(0.5, 1.05)], 5, Rules(min_overlap=0.1)).barge_ins) == 0


def test_a_span_that_runs_backwards_is_refused():
    with pytest.raises(ValueError, match="3 to 2 s"):
        measure([(3, 2)], [], 5)


def by_milliseconds(users, agents, end):
    """The same definitions told one millisecond at a time, which no off-by-one survives in both."""
    user = [any(a <= t < b for a, b in users) for t in range(end)]
    agent = [any(a <= t < b for a, b in agents) for t in range(end)]
    outcome, alarms = [], 0
    for t in range(end):
        if user[t] and (t == 0 or not user[t - 1]):
            stop = next((s for s in range(t, end) if not user[s]), end)
            if agent[t] and t > 0 and agent[t - 1]:
                quiet = next((s for s in range(t, end) if not agent[s]), None)
                seen = (quiet or end) - t
                outcome.append("censored" if quiet is None and seen <= 1500 else "success" if seen <= 1500 else "failure")
            alarms += any(agent[s] and not agent[s - 1] and stop - s > 100 for s in range(t + 1, stop))
    return outcome, alarms


@pytest.mark.parametrize("seed", range(40))
def test_agrees_with_counting_milliseconds(seed):
    rng = random.Random(seed)

    def timeline():
        starts = [rng.randrange(0, 8000) for _ in range(rng.randrange(0, 5))]
        return [(s, s + rng.choice([50, 100, 101, 700, 1500, 1501, 2500])) for s in starts]

    users, agents = timeline(), timeline()
    got = measure([(a / 1000, b / 1000) for a, b in users], [(a / 1000, b / 1000) for a, b in agents], 8.0)
    assert ([b.status for b in got.barge_ins], got.n_user_turns_with_false_alarm) == by_milliseconds(users, agents, 8000)
