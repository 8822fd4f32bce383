from __future__ import annotations

import pytest

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.synthesis.text.dialogue_rows import dialogue_id, rows_inside, spoken_turns

ROW = {
    "query": "what is a foot", "query_id": 7, "query_type": "DESCRIPTION", "answers": ["Twelve inches.", "x"],
    "wellFormedAnswers": [],
    "passages": {"is_selected": [0, 1, 1], "passage_text": ["no", "A foot is twelve inches.", "z"], "url": ["u", "v", "w"]},
}  # fmt: skip
AS_OBJECTS = [{"is_selected": s, "passage_text": t} for s, t in zip([0, 1, 1], ["no", "A foot is twelve inches.", "z"])]


def said(row, **keys):
    return [(user.text, agent.text) for user, agent in spoken_turns(row, **keys)]


@pytest.mark.parametrize("passages", [ROW["passages"], AS_OBJECTS])
def test_a_query_and_its_first_answer(passages):
    row = ROW | {"passages": passages}
    assert said(row) == [("what is a foot", "Twelve inches.")] and dialogue_id(row) == "7"
    assert said(row, context=True) == [("A foot is twelve inches. what is a foot", "Twelve inches.")]
    assert rows_inside({"train": [row, row]}) == [row, row] and rows_inside(row) == [row]


@pytest.mark.parametrize("well_formed", [["A foot has twelve inches."], "A foot has twelve inches."])
def test_a_whole_sentence_is_preferred(well_formed):
    assert said(ROW | {"wellFormedAnswers": well_formed}) == [("what is a foot", "A foot has twelve inches.")]


@pytest.mark.parametrize("well_formed", ["[]", "", None, [""]])
def test_no_well_formed_answer(well_formed):
    assert said(ROW | {"wellFormedAnswers": well_formed}) == [("what is a foot", "Twelve inches.")]
    assert said(ROW | {"answers": ["No Answer Present.", "Twelve."], "wellFormedAnswers": well_formed})[0][1] == "Twelve."


@pytest.mark.parametrize(
    ("row", "context", "reason"),
    [
        (ROW | {"answers": ["No Answer Present."]}, False, "no answer is present in the passages"),
        (ROW | {"answers": []}, False, "no answer is present in the passages"),
        ({key: ROW[key] for key in ("query", "passages", "query_id")}, False, "a question without answers"),
        (ROW | {"passages": {"is_selected": [0], "passage_text": ["a"]}}, True, "a question without a selected passage"),
        (ROW | {"passages": None}, True, "a question without a selected passage"),
        (ROW | {"query": ")"}, False, "nothing to say"),
    ],
)
def test_why_a_row_is_none(row, context, reason):
    with pytest.raises(OddRow) as error:
        said(row, context=context)
    assert error.value.reason == reason
