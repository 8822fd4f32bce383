"""TurnBench's protocol, by hand and against its rules told another way."""

import random
import statistics

import pytest

from nemo_duplex.evaluation.confidence import wilson
from nemo_duplex.evaluation.labels import LabelledEvent
from nemo_duplex.evaluation.turn_ends import (
    Commit,
    Detection,
    DetectionRules,
    Sought,
    best_operating_point,
    best_threshold,
    best_wait,
    detect,
    estimate_detections,
    interruptions_of,
    onsets_and_stops,
    pool_detections,
    turn_ends_of,
)
from nemo_duplex.inputs import InputError


@pytest.mark.parametrize(
    ("commits", "found"),
    [
        ([], None),
        ([4.749], None),
        ([4.75], -0.25),  # as exact as people mark it
        ([5.0], 0.0),
        ([8.0], 3.0),
        ([8.001], None),  # too late
        ([4.0, 5.5, 6.0], 0.5),  # the first in the window
    ],
)
def test_an_event_is_found_in_its_window(commits, found):
    [latency] = detect(commits, Sought((5.0,), (), 20.0)).found
    assert latency == (None if found is None else pytest.approx(found))


@pytest.mark.parametrize(
    ("commits", "fired"),
    [([], False), ([9.749], False), ([9.75], True), ([10.3], True), ([10.6], True), ([10.601], False), ([9.9, 10.2], True)],
)
def test_a_commit_in_a_span_or_just_before_it_is_false(commits, fired):
    assert detect(commits, Sought((5.0,), ((10.0, 10.6),), 20.0)).fired == (fired,)


def test_one_commit_finds_one_event_and_a_window_ends_with_the_next_event():
    sought = Sought((5.0, 6.0), (), 20.0)
    assert detect([6.1], sought).found == (None, pytest.approx(0.1)), "it came after the second one"
    assert detect([6.0], sought).found == (1.0, None), "to the first one in time"
    assert detect([5.9], sought).found == (pytest.approx(0.9), None), "each is used once"
    assert detect([5.9, 6.5], sought).found == (pytest.approx(0.9), 0.5)
    assert detect([5.2, 5.8], sought).found == (pytest.approx(0.2), pytest.approx(-0.2))
    assert detect([5.8, 6.5], Sought((6.0, 5.0), (), 20.0)).found == (pytest.approx(0.8), 0.5), "in order of time"


def test_a_commit_in_the_window_of_an_event_is_never_false():
    sought = Sought((5.0,), ((5.4, 5.8), (8.2, 9.0)), 20.0)
    assert detect([5.1, 5.5, 7.99], sought) == Detection((pytest.approx(0.1),), (False, False))
    assert detect([5.1, 8.1], sought).fired == (False, True), "the second span is charged from 7.95 s on"


def test_windows_are_rules():
    sought = Sought((5.0,), ((10.0, 10.6),), 20.0)
    rules = DetectionRules(early=0.0, late=1.0)
    assert detect([4.9, 9.9], sought, rules) == Detection((None,), (False,))
    assert detect([6.0], sought, rules).found == (1.0,) and detect([6.001], sought, rules).found == (None,)


@pytest.mark.parametrize(
    ("commits", "what"),
    [
        ([2.0, 1.0], "got 1 s after 2 s"),
        ([1.0, 1.0001], "got 1.0001 s after 1 s"),
        ([20.001], "within the recording of 20 s: got 20.001 s"),
        ([-0.1], "got -0.1 s"),
        ([float("nan")], "commit's time must be a finite number"),
    ],
)
def test_commits_in_disorder_are_refused(commits, what):
    with pytest.raises(InputError, match=what):
        detect(commits, Sought((5.0,), (), 20.0))


def test_turn_ends_and_interruptions_of_a_conversation():
    user, agent = [(1.0, 3.0), (5.0, 7.0), (8.0, 12.0)], [(3.6, 5.8), (7.5, 7.9), (8.2, 9.0), (9.4, 11.0)]
    assert turn_ends_of(user, [(1.5, 2.0), (9.0, 9.5)], 12.0) == Sought((3.0, 7.0), ((1.5, 2.0), (9.0, 9.5)), 12.0)
    events = [
        LabelledEvent("backchannel", "user", 4.0, 4.3),
        LabelledEvent("cough", "user", 4.6, 4.9),
        LabelledEvent("backchannel", "user", 7.2, 7.4),  # the agent is silent
        LabelledEvent("backchannel", "user", 4.95, 5.2),  # becomes a turn
        LabelledEvent("side_talk", "user", 4.4, 4.5),
        LabelledEvent("leak", "agent", 3.7, 5.9),
        LabelledEvent("backchannel", "agent", 3.8, 3.9),
    ]
    assert interruptions_of(user, events, agent, 12.0) == Sought((5.0, 8.0), ((4.0, 4.3), (4.6, 4.9)), 12.0)
    assert interruptions_of(user, events, agent, 12.0, agent_merge_gap=0.0).events == (5.0,)
    assert interruptions_of(user, events, agent, 12.0, kinds=("side_talk",)).spans == ((4.4, 4.5),)
    assert onsets_and_stops(agent, 12.0) == ((3.6, 7.5), (5.8, 11.0))
    assert onsets_and_stops([(3.6, 12.5)], 12.0) == ((3.6,), ()), "its stop is not seen"
    assert onsets_and_stops(agent, 12.0, agent_merge_gap=0.3) == ((3.6, 7.5, 9.4), (5.8, 9.0, 11.0))


def test_an_agent_that_answers_every_turn_and_stops_at_every_interruption_finds_all():
    user, pauses = [(1.0, 3.0), (5.0, 7.0)], [(1.5, 2.0)]
    onsets, stops = onsets_and_stops([(3.6, 5.6), (7.6, 9.0)], 12.0)
    ends = pool_detections([detect(onsets, turn_ends_of(user, pauses, 12.0))])
    breaks = pool_detections([detect(stops, interruptions_of(user, [], [(3.6, 5.6), (7.6, 9.0)], 12.0))])
    assert ends == {
        "n_conversations": 1,
        "n_events": 2,
        "n_spans": 1,
        "recall": 1.0,
        "fp_rate": 0.0,
        "mean_latency": pytest.approx(0.6),
        "median_latency": pytest.approx(0.6),
        "within_budget": True,
    }
    assert (breaks["recall"], breaks["median_latency"]) == (1.0, pytest.approx(0.6))
    assert (breaks["fp_rate"], breaks["within_budget"]) == (None, None), "without a span nothing tells"


def test_rates_are_pooled_with_intervals():
    rows = [Detection((0.4, None, -0.2), (True, False)), Detection((1.0,), ()), Detection((), (False,) * 8)]
    pooled, found = pool_detections(rows), estimate_detections(rows)
    assert (pooled["recall"], pooled["fp_rate"], pooled["median_latency"]) == (0.75, 0.1, 0.4)
    assert pooled["mean_latency"] == pytest.approx(0.4) and pooled["within_budget"] is True, "the budget itself is within"
    assert pool_detections(rows, DetectionRules(budget=0.09))["within_budget"] is False
    assert found["recall"].ci95 == wilson(3, 4) and found["fp_rate"].ci95 == wilson(1, 10)
    assert found["mean_latency"].ci95 == found["mean_latency"].bootstrap95
    nothing = pool_detections([])
    assert {value for name, value in nothing.items() if not name.startswith("n_")} == {None}


SOUGHT = [Sought((5.0, 9.0), ((2.0, 2.6), (7.0, 7.5)), 20.0), Sought((4.0,), ((1.0, 1.5), (2.0, 2.4)), 20.0)]


def test_the_best_threshold_finds_most_within_the_budget():
    commits = [
        [Commit(2.3, 0.5), Commit(5.4, 0.9), Commit(9.6, 0.4)],
        [Commit(1.2, 0.2), Commit(4.8, 0.6)],
    ]
    strict, loose, looser = (best_threshold(SOUGHT, commits, DetectionRules(budget=b)) for b in (0.1, 0.25, 0.5))
    assert (strict.threshold, pool_detections(strict.detections)["recall"]) == (0.6, pytest.approx(2 / 3))
    assert (loose.threshold, pool_detections(loose.detections)["recall"]) == (0.4, 1.0)
    assert (looser.threshold, pool_detections(looser.detections)["fp_rate"]) == (0.4, 0.25), "no more false ones than it takes"


def test_there_may_be_no_operating_point():
    always = [[Commit(2.3, 1.0)], [Commit(1.2, 1.0)]]
    assert best_threshold(SOUGHT, always) is None, "half of the spans"
    assert best_threshold([Sought((5.0,), (), 20.0)], [[Commit(5.1, 1.0)]]) is None, "nothing to be false in"
    assert best_threshold(SOUGHT, [[], []]) is None, "no commit, no threshold"
    assert best_threshold(SOUGHT, [[Commit(15.0, 0.5)], []]).threshold == 0.5, "found nothing, and nothing false"


def test_of_equals_the_sooner_is_taken():
    at = {0.3: [[5.6, 9.6], [4.6]], 0.1: [[5.2, 9.2], [4.2]], 0.2: [[5.2, 9.2], [4.2]]}
    assert best_operating_point(SOUGHT, at.__getitem__, at).threshold == 0.2
    fewer = {0.1: [[5.2], []], 0.2: [[2.1, 5.2], []]}
    assert best_operating_point(SOUGHT, fewer.__getitem__, fewer, DetectionRules(budget=0.5)).threshold == 0.1


def test_a_timer_is_the_baseline():
    """Pauses of 0.6 and 0.5 s, 0.5 and 0.4 s: with a wait of 0.6 s it is never wrong, with less it is."""
    speech = [[(1.0, 2.0), (2.6, 5.0), (6.5, 7.0), (7.5, 9.0)], [(0.5, 1.0), (1.5, 2.0), (2.4, 4.0)]]
    waits = [0.3, 0.45, 0.55, 0.6, 0.7]
    best = best_wait(SOUGHT, speech, waits)
    pooled = pool_detections(best.detections)
    assert (best.threshold, pooled["recall"], pooled["median_latency"]) == (0.6, 1.0, pytest.approx(0.6))
    looser = best_wait(SOUGHT, speech, waits, DetectionRules(budget=0.25))
    assert looser.threshold == 0.55 and pool_detections(looser.detections)["fp_rate"] == 0.25
    assert best_wait([turn_ends_of([], [], 5.0)], [[]], [0.5]) is None
    late = best_wait([Sought((4.0,), ((1.0, 1.5),), 5.0)], [[(0.5, 1.0), (1.5, 4.0)]], [1.0, 1.001])
    assert late.threshold == 1.0, "the recording ends"


def by_definition(commits, events, spans, early=250, late=3000):
    """TurnBench's matching told on sets, in milliseconds."""
    used, found = set(), []
    bounds = {e: min([e + late, *(x for x in events if x > e)]) for e in events}
    for e in sorted(events):
        mine = sorted(c for c in commits if e - early <= c <= bounds[e] and c not in used)
        used |= set(mine[:1])
        found.append(mine[0] - e if mine else None)
    outside = {c for c in commits if c not in used and all(not e - early <= c <= bounds[e] for e in events)}
    return found, [bool(outside & set(range(a - early, b + 1))) for a, b in spans]


def test_agrees_with_the_definition_and_a_shift_changes_nothing():
    rng, seen = random.Random(0), []
    for _ in range(500):
        commits, events = (sorted({rng.randrange(0, 400) * 50 for _ in range(rng.randrange(9))}) for _ in range(2))
        spans = [(a, a + rng.choice([200, 500, 1000])) for a in (rng.randrange(0, 380) * 50 for _ in range(rng.randrange(5)))]
        found, fired = by_definition(commits, events, spans)
        for later in (0, rng.randrange(1, 10**6)):
            s = lambda t, later=later: (t + later) / 1000  # noqa: E731
            sought = Sought(tuple(map(s, events)), tuple((s(a), s(b)) for a, b in spans), 20.0 + later / 1000)
            got = detect(map(s, commits), sought)
            assert got.fired == tuple(fired) and got.found == tuple(None if t is None else t / 1000 for t in found)
        seen.append(got)
    pooled = pool_detections(rng.sample(seen, len(seen)))
    assert pooled["median_latency"] == statistics.median(t for one in seen for t in one.latencies)
    assert 0 < pooled["fp_rate"] < 1 and 0 < pooled["recall"] < 1
