"""The agent's turns as they are heard: where they begin and end, frame by frame."""

import pytest

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.serving.agent_turns import AgentTurns


def drawn(text, **layout):
    """(frames that start a turn, that end one, that belong to one) of a text channel: . pad, [ BOS, ] EOS, else words."""
    ids = {".": 0, "[": 1, "]": 2}
    turns = AgentTurns(ChannelLayout(60, 0, 1, 2, 2, 36, **layout))
    edges = [turns.add(ids.get(letter, 7)) for letter in text]
    lines = [[edge.started for edge in edges], [edge.ended for edge in edges], [edge.speaking for edge in edges]]
    return ["".join("*" if mark else " " for mark in line).rstrip() for line in lines]


CASES = {
    "nothing": ("....", "", "", ""),
    "a turn": (".[ab]....", " *", "     *", " *****"),
    "a turn that goes on": (".[abcdef", " *", "", " *******"),
    "two turns": (".[a]..[b]..", " *    *", "    *    *", " **** ****"),
    "an end without a beginning": ("..]...", "", "", ""),
    "a turn without words": (".[]...", " *", "   *", " ***"),
    "a turn while the one before is still heard": (".[a][b]..", " *  *", "    *  *", " *******"),
    "a turn within a turn": (".[ab[c]..", " *  *", "    *  *", " *******"),
}


@pytest.mark.parametrize("text, started, ended, speaking", CASES.values(), ids=CASES)
def test_turns_begin_with_their_text_and_end_with_their_sound(text, started, ended, speaking):
    assert drawn(text) == [started, ended, speaking]


@pytest.mark.parametrize("delay, last", [(0, 4), (1, 5), (3, 7)])
def test_a_turn_ends_when_its_sound_has_come(delay, last):
    assert drawn(".[ab].......", speech_delay=delay)[1] == " " * last + "*"
