"""Judges behind the stub endpoint, and conversations for them."""

from __future__ import annotations

import json
import re
from typing import Any

from nemo_duplex.evaluation.judge.conversations import JudgedConversation, JudgedTurn
from tests.synthesis.writing.stub_endpoint import Reply, saying

#: The place of the data in what is asked; the rest stands before and behind it.
PLACE = re.compile(r"BEGIN conversation ([0-9a-f]{16})\n(.*)\nEND conversation \1\n", re.DOTALL)


def data(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The turns that a judge is asked about."""
    place = PLACE.search(body["messages"][-1]["content"])
    assert place is not None
    return json.loads(place[2])


def verdict(score: Any, per_turn: Any = None, **more: Any) -> Reply:
    """A reply with these scores."""
    return saying(json.dumps({"per_turn": per_turn, "score": score, "reason": "so it is"} | more))


def honest(body: dict[str, Any], before: int = 0) -> Reply:
    """Gives a turn 10 if it says the reference, 0 for no response, else 2; and the conversation their mean."""
    scores = [10 if t["hypothesis"] == t["reference"] else 0 if t["hypothesis"] == "(no response)" else 2 for t in data(body)]
    return verdict(sum(scores) / len(scores), scores)


def talk(name: str, *said: str, set: str = "dev") -> JudgedConversation:
    """A conversation in which the agent says `said`; each reference is `right NAME TURN`."""
    turns = [JudgedTurn(f"question {name} {k}", (f"right {name} {k}",), text) for k, text in enumerate(said, 1)]
    return JudgedConversation(name, set, tuple(turns))
