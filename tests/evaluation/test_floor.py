"""Who holds the floor, by hand, by a scan of milliseconds, and what has to hold on any timeline."""

import random
from dataclasses import replace

import numpy as np
import pytest

from nemo_duplex.evaluation.confidence import wilson
from nemo_duplex.evaluation.floor import RATIOS, FloorRules, Stretch, Transfer, estimate_floor, measure_floor, pool_floor
from nemo_duplex.inputs import InputError
from tests.evaluation.mask_scan import closed, mask, runs


def told(found):
    """Stretches as (start, end, speaker), to the millisecond."""
    return [(round(s.start, 3), round(s.end, 3), s.speaker) for s in found]


DIALOGUE = measure_floor(
    # two units, a pause, is interrupted at 9.5, goes on to 10; starts at 13 while the agent speaks, which gives up at 13.4
    user=[(1.0, 2.0), (2.15, 3.0), (3.5, 4.0), (8.0, 10.0), (13.0, 15.0)],
    # answers, goes on after a pause; breaks in; answers; "mhm" within the last turn of the user
    agent=[(4.6, 6.0), (6.3, 7.0), (9.5, 12.0), (12.1, 13.4), (14.0, 14.3)],
    duration=20.0,
)


def test_a_dialogue_by_hand():
    assert told(DIALOGUE.pauses) == [(3.0, 3.5, "user"), (6.0, 6.3, "agent")]
    assert told(DIALOGUE.gaps) == [(4.0, 4.6, "agent"), (7.0, 8.0, "user")]
    assert told(DIALOGUE.overlaps) == [(9.5, 10.0, "agent"), (13.0, 13.4, "user"), (14.0, 14.3, "agent")]
    assert [(t.time, t.to, round(t.offset, 3)) for t in DIALOGUE.transfers] == [
        (4.6, "agent", 0.6),
        (8.0, "user", 1.0),
        (9.5, "agent", -0.5),
        (13.0, "user", -0.4),
    ], "within an overlap the floor stays where it is"
    assert DIALOGUE.user_units == ((1.0, 3.0), (3.5, 4.0), (8.0, 10.0), (13.0, 15.0))
    assert DIALOGUE.agent_units == ((4.6, 6.0), (6.3, 7.0), (9.5, 13.4), (14.0, 14.3))
    assert DIALOGUE.user_turns == ((1.0, 4.0), (8.0, 10.0), (13.0, 15.0))
    assert DIALOGUE.agent_turns == ((4.6, 7.0), (9.5, 13.4), (14.0, 14.3))
    assert DIALOGUE.runaways == ()


def test_every_rate_by_hand():
    """With a second conversation of 10 s in which nobody speaks."""
    got = pool_floor([DIALOGUE, measure_floor([], [], 10.0)])
    minutes = 0.5
    expected = {
        "ipus": (8, 4, 4),
        "ipu_seconds": (6.5 + 6.3, 6.5, 1.4 + 0.7 + 3.9 + 0.3),
        "pauses": (2, 1, 1),
        "pause_seconds": (0.8, 0.5, 0.3),
        "gaps": (2, 1, 1),
        "gap_seconds": (1.6, 1.0, 0.6),
        "overlaps": (3, 1, 2),
        "overlap_seconds": (1.2, 0.4, 0.8),
    }
    for name, values in expected.items():
        for prefix, value in zip(("", "user_", "agent_"), values, strict=True):
            assert got[f"{prefix}{name}_per_minute"] == pytest.approx(value / minutes), prefix + name
    rest = {
        "user_talk_ratio": 6.5 / 30,
        "agent_talk_ratio": 6.3 / 30,
        "overlap_ratio": 1.2 / 30,
        "silence_ratio": (30 - 6.5 - 6.3 + 1.2) / 30,
        "floor_transfer_offset": (0.6 + 1.0 - 0.5 - 0.4) / 4,
        "user_floor_transfer_offset": (1.0 - 0.4) / 2,
        "agent_floor_transfer_offset": (0.6 - 0.5) / 2,
        "overlapped_transfer_rate": 2 / 4,
        "user_longest_monologue": 3.0 / 2,
        "agent_longest_monologue": 3.9 / 2,
        "runaway_rate": 0.0,
        "n_conversations": 2,
        "n_transfers": 4,
        "n_runaways": 0,
        "median_floor_transfer_offset": 0.1,
        "median_user_floor_transfer_offset": 0.3,
        "median_agent_floor_transfer_offset": 0.05,
        "user_longest_monologue_of_all": 3.0,
        "agent_longest_monologue_of_all": 3.9,
    }
    assert {name: got[name] for name in rest} == pytest.approx(rest)
    assert len(got) == len(rest) + 3 * len(expected), "and no other"


def test_silence_of_just_the_gap_is_inside_a_unit():
    for gap, units in ((0.2, 1), (0.201, 2)):
        m = measure_floor([(1.0, 2.0), (2.0 + gap, 4.0)], [], 5.0)
        assert (len(m.user_units), len(m.pauses)) == (units, units - 1)
    assert len(measure_floor([(1.0, 2.0), (2.2, 4.0)], [], 5.0, FloorRules(unit_gap=0.1)).user_units) == 2


def test_a_pause_in_which_the_other_speaks_is_no_pause():
    m = measure_floor([(1.0, 2.0), (4.0, 5.0)], [(2.5, 3.5)], 6.0)
    assert (told(m.pauses), told(m.gaps)) == ([], [(2.0, 2.5, "agent"), (3.5, 4.0, "user")])
    assert m.user_turns == ((1.0, 2.0), (4.0, 5.0))


def test_what_happens_in_one_millisecond_belongs_to_neither():
    both_start = measure_floor([(1.0, 2.0)], [(1.0, 3.0)], 5.0)
    assert told(both_start.overlaps) == [(1.0, 2.0, None)] and both_start.transfers == ()
    touching = measure_floor([(1.0, 2.0)], [(2.0, 3.0)], 5.0)
    assert touching.transfers == (Transfer(2.0, "agent", 0.0),) and touching.gaps == touching.overlaps == ()
    assert pool_floor([touching])["overlapped_transfer_rate"] == 0.0
    both_go_on = measure_floor([(1.0, 2.0), (3.0, 4.0)], [(1.0, 2.0), (3.0, 4.0)], 5.0)
    assert told(both_go_on.pauses) == [(2.0, 3.0, None)] and both_go_on.user_turns == ((1.0, 4.0),)
    pooled = pool_floor([both_go_on])
    assert (pooled["pauses_per_minute"], pooled["user_pauses_per_minute"]) == (12.0, 0.0)


def test_silence_at_the_edges_is_neither_pause_nor_gap():
    m = measure_floor([(1.0, 2.0)], [], 5.0)
    assert m.pauses == m.gaps == () and m.overlaps == ()
    assert RATIOS["silence_ratio"](m) == (4.0, 5.0)


def test_an_agent_runs_away_by_length_or_over_the_user():
    long = measure_floor([], [(1.0, 15.0), (16.0, 31.001)], 40.0)
    assert long.runaways == ((1.0, 31.001),), "a pause is inside its turn"
    assert measure_floor([], [(1.0, 31.0)], 40.0).runaways == ()
    assert measure_floor([(5.0, 6.0)], [(1.0, 5.0), (7.0, 33.0)], 40.0).runaways == ()
    over = measure_floor([(2.0, 9.0)], [(1.0, 4.0), (4.5, 5.501)], 12.0)
    assert over.runaways == ((1.0, 5.501),), "pauses of up to 0.5 s are no stop"
    assert measure_floor([(2.0, 9.0)], [(1.0, 5.0)], 12.0).runaways == ()
    assert measure_floor([(2.0, 9.0)], [(1.0, 4.0), (4.501, 5.6)], 12.0).runaways == (), "it stopped in between"
    ignored = measure_floor([(2.0, 3.5), (6.0, 7.6)], [(1.0, 5.0), (5.9, 9.0)], 12.0)
    assert ignored.runaways == ((1.0, 9.0),), "what the user says is added up"
    twice = measure_floor([(40.0, 41.0)], [(1.0, 32.0), (42.0, 73.0)], 80.0)
    assert (pool_floor([twice, DIALOGUE])["runaway_rate"], pool_floor([twice])["n_runaways"]) == (0.5, 2)
    assert pool_floor([over, DIALOGUE])["runaway_rate"] == 0.5 and pool_floor([over])["n_runaways"] == 1


def test_undefined_is_none_and_zero_is_zero():
    nothing = pool_floor([])
    assert {value for name, value in nothing.items() if not name.startswith("n_")} == {None}
    silent = pool_floor([measure_floor([], [], 10.0)])
    assert silent["floor_transfer_offset"] is None and silent["median_floor_transfer_offset"] is None
    assert (silent["gaps_per_minute"], silent["agent_longest_monologue"], silent["silence_ratio"]) == (0.0, 0.0, 1.0)


def test_estimates_are_the_pool_with_intervals():
    rows = [DIALOGUE, measure_floor([(1, 2)], [(2.5, 7)], 8.0), measure_floor([(1, 2)], [(1.8, 4)], 8.0)]
    found, pooled = estimate_floor(rows), pool_floor(rows)
    assert {name: e.value for name, e in found.items()} == {name: pytest.approx(pooled[name]) for name in RATIOS}
    assert found["overlapped_transfer_rate"].ci95 == wilson(3, 6) and found["overlapped_transfer_rate"].n == 6
    assert found["gaps_per_minute"].n == pytest.approx(36 / 60)
    assert found["gaps_per_minute"].ci95 == found["gaps_per_minute"].bootstrap95


def random_spans(rng):
    """Up to nine spans in milliseconds on a coarse grid, so that they often touch."""
    return [
        (a, a + rng.choice([50, 100, 200, 201, 1500, 3050]))
        for a in (rng.randrange(0, 160) * 50 for _ in range(rng.randrange(9)))
    ]


def seconds(spans, later=0):
    return [((a + later) / 1000, (b + later) / 1000) for a, b in spans]


def scanned(user, agent, end):
    """Counts and milliseconds of pauses, gaps and overlaps, a millisecond at a time."""
    users, agents = (closed(mask(spans, end), 200) for spans in (user, agent))
    speaks = users + 2 * agents  # (end,): who
    found = {"pause": [0, 0], "gap": [0, 0], "overlap": [0, 0]}
    edges = [0, *(np.flatnonzero(np.diff(speaks)) + 1), end]
    states = [(int(speaks[a]), b - a) for a, b in zip(edges, edges[1:])]
    for i, (who, length) in enumerate(states):
        kind = "overlap" if who == 3 else None
        if who == 0 and 0 < i < len(states) - 1:
            kind = "pause" if states[i - 1][0] & states[i + 1][0] else "gap"
        if kind:
            found[kind] = [found[kind][0] + 1, found[kind][1] + length]
    return found | {"ipu": [len(runs(users)[0]) + len(runs(agents)[0]), int(users.sum() + agents.sum())]}


def test_agrees_with_a_scan_of_milliseconds_on_500_timelines():
    rng = random.Random(0)
    for _ in range(500):
        user, agent = random_spans(rng), random_spans(rng)
        pooled = pool_floor([measure_floor(seconds(user), seconds(agent), 8.0)])
        for kind, (count, length) in scanned(user, agent, 8000).items():
            got = pooled[f"{kind}s_per_minute"], pooled[f"{kind}_seconds_per_minute"]
            assert got == pytest.approx((count * 7.5, length / 1000 * 7.5)), (kind, user, agent)


def swapped(found):
    other = {"user": "agent", "agent": "user", None: None}
    if isinstance(found, Stretch):
        return replace(found, speaker=other[found.speaker])
    return replace(found, to=other[found.to])


def test_whose_channel_is_first_changes_nothing_and_neither_does_the_order_of_spans():
    rng = random.Random(1)
    for _ in range(200):
        user, agent = seconds(random_spans(rng)), seconds(random_spans(rng))
        one, other = measure_floor(user, agent, 8.0), measure_floor(agent[::-1], user[::-1], 8.0)
        assert (one.user_units, one.agent_turns) == (other.agent_units, other.user_turns)
        for name in ("pauses", "gaps", "overlaps", "transfers"):
            assert getattr(one, name) == tuple(map(swapped, getattr(other, name))), name


def test_a_shift_in_time_and_batches_change_no_rate():
    rng = random.Random(2)
    given = [(random_spans(rng), random_spans(rng), rng.randrange(1, 10**6)) for _ in range(60)]
    rows = [measure_floor(seconds(u), seconds(a), 12.0) for u, a, _ in given]
    later = [measure_floor(seconds(u, by), seconds(a, by), 12.0 + by / 1000) for u, a, by in given]
    for one, other in zip(rows, later, strict=True):
        assert [round(t.offset, 3) for t in one.transfers] == [round(t.offset, 3) for t in other.transfers]
        assert [len(getattr(one, k)) for k in ("pauses", "gaps", "overlaps", "runaways")] == [
            len(getattr(other, k)) for k in ("pauses", "gaps", "overlaps", "runaways")
        ]
    order = rng.sample(rows, len(rows))
    assert pool_floor(order) == pytest.approx(pool_floor(rows))
    halves = [[RATIOS["gaps_per_minute"](m) for m in half] for half in (rows[:13], rows[13:])]
    above, below = (sum(part[i] for half in halves for part in half) for i in (0, 1))
    assert above / below == pytest.approx(pool_floor(rows)["gaps_per_minute"])


def test_a_conversation_for_the_report_holds_events_and_rates():
    row = DIALOGUE.as_dict()
    assert row["gaps"][0] == {"start": 4.0, "end": 4.6, "speaker": "agent"} and row["n_transfers"] == 4
    assert "rules" not in row


def test_times_that_are_none_are_refused():
    with pytest.raises(InputError, match="finite number"):
        measure_floor([(0.0, float("nan"))], [], 1.0)
