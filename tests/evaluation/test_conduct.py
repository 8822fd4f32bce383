"""All metrics beyond the paper's together: what of a conversation reaches which of them, and under which name."""

import pytest

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation import behaviour, floor, turn_ends
from nemo_duplex.evaluation.conduct import measure_conduct, parts, summary
from nemo_duplex.evaluation.confidence import estimate_quantile, estimate_ratio
from nemo_duplex.inputs import InputError

TALK = Conversation(
    "d7",
    20.0,
    (
        Turn("user", 1.0, 3.0, "What is the capital?", custom={"pauses": [[1.5, 2.0]]}),
        Turn("agent", 3.64, 7.0, "Paris."),
        Turn("user", 6.4, 8.0, "And of Spain?"),
    ),
    {"events": [{"kind": "backchannel", "speaker": "user", "start": 4.0, "end": 4.4}]},
)
SPEECH = [(3.7, 5.0), (5.3, 6.9), (8.5, 12.0)]  # the answers, with a pause in the first
FOUND = measure_conduct(TALK, SPEECH)
MUTE = measure_conduct(TALK, [])


def test_each_metric_hears_of_the_conversation_what_it_needs():
    assert FOUND.user_speech == ((1.0, 1.5), (2.0, 3.0), (4.0, 4.4), (6.4, 8.0)), (
        "without pauses, with what is said beside turns"
    )
    assert FOUND.floor.user_units == FOUND.user_speech
    assert FOUND.floor.agent_units == ((3.7, 5.0), (5.3, 6.9), (8.5, 12.0))
    assert [p.status for p in FOUND.behaviour.pauses] == ["waited"]
    assert [(r.kind, r.status) for r in FOUND.behaviour.reactions] == [("backchannel", "went_on")]
    assert FOUND.ends.found == (pytest.approx(0.7), pytest.approx(0.5)) and FOUND.ends.fired == (False,)
    assert FOUND.interruptions.found == (pytest.approx(0.5),) and FOUND.interruptions.fired == (False,)


def test_the_groups_of_a_set():
    got = summary([FOUND, MUTE], seed=3)
    assert set(got) == {"floor", "behaviour", "turn_ends"}
    assert got["floor"]["gaps_per_minute"] == floor.estimate_floor([FOUND.floor, MUTE.floor], 3)["gaps_per_minute"].as_dict()
    assert got["floor"]["agent_longest_monologue_of_all"] == 3.5 and got["floor"]["n_transfers"] == 3
    assert got["behaviour"]["backchannel_ignored_rate"]["value"] == 1.0
    offsets = summary([MUTE, FOUND])["floor"]
    medians = {name: offsets[f"median_{name}floor_transfer_offset"] for name in ("", "user_", "agent_")}
    assert {name: (entry["value"], entry["n"]) for name, entry in medians.items()} == {
        "": (pytest.approx(0.5), 3),  # of 0.7, -0.5 and 0.5 s
        "user_": (pytest.approx(-0.5), 1),
        "agent_": (pytest.approx(0.6), 2),
    }
    assert (got["behaviour"]["n_backchannel"], got["behaviour"]["n_backchannel_unknown"]) == (2, 1)
    ends = got["turn_ends"]
    assert ends["end_recall"] == estimate_ratio([(2, 2), (0, 2)], True, 3).as_dict()
    assert ends["end_median_latency"] == estimate_quantile([FOUND.ends.latencies, ()], 0.5, 3).as_dict()
    assert (ends["end_within_budget"], ends["interruption_recall"]["value"]) == (True, 1.0)


def test_a_timer_is_given_beside_it():
    """The shortest silence that is longer than the pause of 0.5 s."""
    ends = summary([FOUND])["turn_ends"]
    assert (ends["timer_wait"], ends["timer_recall"]["value"]) == (0.5, 1.0)
    assert ends["timer_median_latency"]["value"] == pytest.approx(0.5)
    plain = measure_conduct(Conversation("d8", 9.0, (Turn("user", 1.0, 3.0),)), [(3.7, 5.0)])
    without = summary([plain])["turn_ends"]
    assert (without["timer_wait"], without["timer_recall"]["value"], without["end_within_budget"]) == (None, None, None)
    assert without["end_recall"]["value"] == 1.0


def test_what_a_conversation_adds_is_what_the_set_is_made_of():
    got, rows = summary([FOUND, MUTE]), [parts(FOUND), parts(MUTE)]
    for place in rows[0]:
        group, name = place.split(".")
        assert estimate_ratio([row[place] for row in rows], False).value == got[group][name]["value"], place
    assert len(rows[0]) == len(floor.RATIOS) + len(behaviour.RATIOS) + 2 * len(turn_ends.RATIOS)


def test_nothing_measured_is_none():
    for group in summary([]).values():
        assert {entry["value"] for entry in group.values() if isinstance(entry, dict)} == {None}


def test_when_answers_would_have_ended_is_asked():
    asked = []
    measure_conduct(TALK, [(3.7, 4.9), (8.5, 12.0)], own_end=lambda turn: asked.append(turn) or 4.9)
    assert set(asked) == {(3.7, 4.9)}


def test_a_conversation_for_the_report_holds_events_by_group():
    row = FOUND.as_dict()
    assert row["turn_ends"]["ends"] == {"found": (pytest.approx(0.7), pytest.approx(0.5)), "fired": (False,)}
    assert row["floor"]["n_transfers"] == 3 and row["behaviour"]["pauses"][0]["status"] == "waited"


def test_a_pause_that_cannot_be_names_the_conversation():
    odd = Conversation("d9", 9.0, (Turn("user", 1.0, 3.0, custom={"pauses": [[5.0, 6.0]]}),))
    with pytest.raises(InputError, match="Conversation d9"):
        measure_conduct(odd, [])
