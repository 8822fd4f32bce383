"""Rows of MS MARCO v2.1: a query, passages, and answers that people wrote.

Nguyen et al., "MS MARCO: A Human Generated MAchine Reading COmprehension Dataset", 2016. `wellFormedAnswers` are whole
sentences; most rows have none, written as `[]` or, in the original files, as the text "[]".
"""

from __future__ import annotations

from typing import Any

from nemo_duplex.files.odd_rows import OddRow

_NO_ANSWER = "No Answer Present."
_MEANS_NONE = ("", "[]")


def is_marco(row: dict[str, Any]) -> bool:
    """Whether a row has the keys of MS MARCO; rows of its test split have no answers."""
    return "query" in row and ("passages" in row or "answers" in row)


def marco_question(row: dict[str, Any], context: bool) -> Any:
    """What the user says: the query, after the selected passage if it is asked for.

    Raises:
        OddRow: if no passage is selected.
    """
    return [_selected_passage(row), row["query"]] if context else row["query"]


def marco_answer(row: dict[str, Any]) -> str:
    """What the agent says: the first well-formed answer, else the first answer.

    Raises:
        OddRow: if nobody found an answer, or the row is of the test split.
    """
    if "answers" not in row or row["answers"] is None:
        raise OddRow("a question without answers", cure="Take the train or dev split of MS MARCO: test has no answers.")
    answers = [*_texts(row.get("wellFormedAnswers")), *_texts(row["answers"])]
    found = next((text for text in answers if text != _NO_ANSWER), None)
    if found is None:
        raise OddRow("no answer is present in the passages", cure="Nothing is wrong with these rows: people found no answer.")
    return found


def _texts(value: Any) -> list[str]:
    """The texts of a list, or of a text that stands for it."""
    values = value if isinstance(value, list) else [value]
    return [text.strip() for text in values if isinstance(text, str) and text.strip() not in _MEANS_NONE]


def _selected_passage(row: dict[str, Any]) -> str:
    """The first passage that the answer was taken from; they are lists by key, or objects."""
    passages = row.get("passages")
    if isinstance(passages, dict):
        selected, texts = passages.get("is_selected"), passages.get("passage_text")
        pairs = list(zip(selected, texts)) if isinstance(selected, list) and isinstance(texts, list) else []
    else:
        rows = passages if isinstance(passages, list) else []
        pairs = [(row.get("is_selected"), row.get("passage_text")) for row in rows if isinstance(row, dict)]
    found = next((text for is_selected, text in pairs if is_selected and isinstance(text, str)), None)
    if found is None:
        raise OddRow("a question without a selected passage", cure="Set text.context=false to ask it without one.")
    return found
