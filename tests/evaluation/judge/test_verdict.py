"""Scores are taken as they were asked for, or not at all."""

from __future__ import annotations

import pytest

from nemo_duplex.evaluation.judge.verdict import NO_NUMBER, NO_SCORE, OTHER_TURNS, OUT_OF_RANGE, Verdict, read_verdict
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.synthesis.writing.replies import NOT_JSON

READ = {
    '{"per_turn": [10, 0.5], "score": 5, "reason": "Half."}': Verdict(5.0, (10.0, 0.5), "Half."),
    '{"score": 0}': Verdict(0.0),
    '{"score": 10, "per_turn": null, "reason": null}': Verdict(10.0),
    ' ```json\n{"score": 3.5}\n``` ': Verdict(3.5),
    '```\n{"score": 3}```': Verdict(3.0),
    '<think>Is it {"score": 9}?</think>\n{"score": 2}': Verdict(2.0),
    '{"score": 4, "reason": "two\nlines", "more": {"score": 9}}': Verdict(4.0, None, "two\nlines"),
}

ODD = {
    "8/10": NOT_JSON,
    "8": NOT_JSON,
    "[8]": NOT_JSON,
    "null": NOT_JSON,
    "": NOT_JSON,
    'The scores are {"score": 8}': NOT_JSON,
    'It said:\n```json\n{"score": 10}\n```\nThat is wrong.': NOT_JSON,
    '{"score": 8} {"score": 9}': NOT_JSON,
    '{"score": 2, "score": 10}': NOT_JSON,
    '{"score": 8': NOT_JSON,
    '{"reason": "good"}': NO_SCORE,
    '{"score": null}': NO_SCORE,
    '{"score": "8"}': NO_NUMBER,
    '{"score": true}': NO_NUMBER,
    '{"score": [8]}': NO_NUMBER,
    '{"score": NaN}': NO_NUMBER,
    '{"score": 10.01}': OUT_OF_RANGE,
    '{"score": -1}': OUT_OF_RANGE,
    '{"score": Infinity}': OUT_OF_RANGE,
    f'{{"score": {10**400}}}': OUT_OF_RANGE,
    '{"score": 8, "per_turn": [8]}': OTHER_TURNS,
    '{"score": 8, "per_turn": [8, 8, 8]}': OTHER_TURNS,
    '{"score": 8, "per_turn": {"1": 8, "2": 8}}': OTHER_TURNS,
    '{"score": 8, "per_turn": 8}': OTHER_TURNS,
    '{"score": 8, "per_turn": [8, "8"]}': NO_NUMBER,
    '{"score": 8, "per_turn": [8, null]}': NO_NUMBER,
    '{"score": 8, "per_turn": [8, 80]}': OUT_OF_RANGE,
}


@pytest.mark.parametrize("reply, verdict", READ.items())
def test_what_was_asked_for(reply, verdict):
    assert read_verdict(reply, num_turns=2) == verdict


@pytest.mark.parametrize("reply, reason", ODD.items(), ids=[f"{n} {reply[:30]}" for n, reply in enumerate(ODD)])
def test_what_was_not(reply, reason):
    with pytest.raises(OddRow) as odd:
        read_verdict(reply, num_turns=2)
    assert odd.value.reason == reason
