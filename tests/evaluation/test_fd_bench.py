"""FD-Bench: every count by a timeline that has it, the table, and its lines."""

import pytest

from nemo_duplex.evaluation.fd_bench import Counts, Line, count, fd_bench_results, fd_bench_table, read_lines, write_lines
from nemo_duplex.files.odd_rows import OddRows

USER = [(0.0, 2.0), (6.0, 8.0)]


def counted(agent, user=USER, **options):
    """What differs from nothing at all."""
    found, nothing = count(user, agent, **options), Counts(rounds=len(user), gaps=len(user) - 1)
    return {name: value for name, value in vars(found).items() if value != getattr(nothing, name)}


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ([], {}),
        ([(2.5, 5.0)], {"replies": 1, "reply_delays": [0.5]}),
        ([(2.5, 3.0), (3.5, 5.0)], {"replies": 1, "reply_delays": [0.5], "noise": 1}),  # 3 s before the next turn
        ([(2.5, 3.5)], {"replies": 1, "reply_delays": [0.5], "noise": 1}),
        ([(2.5, 3.51)], {"replies": 1, "reply_delays": [0.5]}),
        ([(1.5, 4.0)], {"replies": 1, "early_replies": [0.5]}),  # within the grace
        ([(1.0, 4.0)], {"early_onsets": 1, "early_leads": [1.0]}),
        # gives way again before the user ends: counted as an interruption that succeeded
        (
            [(0.5, 1.0)],
            {"early_onsets": 1, "early_leads": [1.5], "interruptions": 1, "stopped": 1, "stop_delays": [0.5]},
        ),
        # interrupted, stops, answers
        (
            [(2.5, 6.5), (8.25, 9.0)],
            {
                "replies": 1,
                "reply_delays": [0.5, 0.25],
                "interruptions": 1,
                "stopped": 1,
                "stop_delays": [0.5],
                "answered": 1,
            },
        ),
        ([(2.5, 9.0)], {"replies": 1, "reply_delays": [0.5], "interruptions": 1, "stopped": 1, "stop_delays": [3.0]}),
        ([(6.0, 7.0)], {}),  # at the same moment: neither
    ],
)
def test_events(agent, expected):
    assert counted(agent) == expected


def test_an_agent_that_outlasts_the_user_has_stopped_only_if_it_answers():
    user = [(0.0, 2.0), (4.0, 5.0), (9.0, 10.0)]
    outlasting = [(2.5, 5.25)]
    assert counted(outlasting, user) == {"replies": 1, "reply_delays": [0.5], "interruptions": 1, "noise": 1}
    answered = counted([*outlasting, (6.0, 8.0)], user)
    assert answered["stopped"] == answered["answered"] == 1
    assert answered["stop_delays"] == [1.25], "until the interrupted turn ends, not the answer"


def test_the_grace_is_a_parameter():
    assert counted([(1.5, 4.0)], grace=0.1) == {"early_onsets": 1, "early_leads": [0.5]}


def test_the_table_pools_and_takes_medians_in_ms():
    first = count(USER, [(2.5, 6.5), (8.25, 9.0)])
    second = count(USER, [(2.75, 3.0), (5.0, 6.25)])
    table = fd_bench_table([first, second, count([(0.0, 1.0)], [])])
    assert {name: entry["value"] for name, entry in table.items()} == {
        "SRR": 2 / 5,
        "SIR": 1.0,
        "SRIR": 1 / 2,
        "EIR": 0.0,
        "NIR": 1 / 2,
        "FSED": 500.0,
        "ERT": None,
        "EIT": None,
        "IRD": 375.0,
    }
    assert table["FSED"]["n"] == 3 and table["FSED"]["unit"] == "ms" and table["SIR"]["better"] == "higher"
    assert table["IRD"]["ci95"] == (250.0, 500.0)
    assert table["SIR"]["scorer"] == "fd_bench"


class Heard:
    """As much of an outcome as the table reads."""

    user, speech = USER, ((0.1, 0.2), (2.5, 3.0), (3.5, 6.5))


def test_outcomes():
    found = fd_bench_results([Heard()], drop_first=True)
    assert found["metrics"]["IRD"]["value"] == 500.0, "pauses of 0.5 s do not end a turn"
    assert found["metrics"]["EIR"]["value"] == 0.0, "the first turn was left out"
    assert fd_bench_results([Heard()])["metrics"]["EIR"]["value"] == 1 / 2
    assert fd_bench_results([Heard()], agent_gap=0.4, drop_first=True)["metrics"]["FSED"]["n"] == 1


def test_lines_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "lines.txt"
    lines = [
        Line("conversation_1.wav", ((0.0, 2.0),), ((2.5, 3.0), (4.0, 5.0)), (" Hello", "a|b", "'"), (3, 0, 5287)),
        Line("conversation_2.wav", (), ()),
    ]
    write_lines(path, lines)
    assert path.read_text().splitlines()[1] == "conversation_2.wav || [] || [] || [] || []"
    assert "[{'start': 40000, 'end': 48000}, {'start': 64000, 'end': 80000}]" in path.read_text().splitlines()[0]
    assert read_lines(path, OddRows()) == lines
    assert str(Line("a.wav", (), (), ("a||b",))) == "a.wav || [] || ['a| |b'] || [] || []"


def test_odd_lines_are_counted(tmp_path):
    path = tmp_path / "lines.txt"
    good = "a.wav || [1] || ['x'] || [{'start': 0, 'end': 16000}] || []"
    path.write_text("\n".join([good, "", "b.wav || []", good.replace("16000", "-1"), good.replace("[1]", "[1"), good]))
    odd = OddRows()
    assert [line.user for line in read_lines(path, odd)] == [((0.0, 1.0),)] * 2
    found = odd.describe()
    assert {reason: entry["count"] for reason, entry in found.items()} == {
        "not five parts": 1,
        "a span without start and end": 1,
        "a part that is no list": 1,
    }
    assert found["not five parts"]["first"] == [f"{path}:3: 2 parts"]
