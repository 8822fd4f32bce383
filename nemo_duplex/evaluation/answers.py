"""Whether the agent answers right, by its own text channel or by ear: exact match with the reference, word for word.

The text may run ahead of the voice, so an answer that the user cuts off may be written in full or in part. Such answers are
counted separately: right as far as they go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.confidence import Estimate, estimate_ratio
from nemo_duplex.evaluation.outcome import Outcome, Question, Reference
from nemo_duplex.words import words

Verdict = Literal["right", "wrong", "missing"]


@dataclass(frozen=True)
class Answer:
    """What the agent said to one question.

    `verdict`: `missing` if it said nothing before the user's next turn. `cut_off`: the user's next turn, or the end of the
    recording, came before the agent's end; then `right` means right so far. `has_answer`: the reference's `answer` is in it.
    """

    question: Question
    reference: Reference
    said: Turn | None
    verdict: Verdict
    cut_off: bool
    has_answer: bool

    @property
    def text(self) -> str:
        return self.said.text if self.said else ""


def answers(outcome: Outcome, agent: Sequence[Turn] | None = None, split: Callable[[str], list[str]] = words) -> list[Answer]:
    """The answer to every question that has a reference: the first agent turn between its start and the next question's.

    Args:
        agent: the agent's turns; None: those of its text channel.
        split: a text's words, as they are compared.
    """
    turns = outcome.agent if agent is None else agent
    return [_answer(q, q.reference, turns, split) for q in outcome.questions if q.reference is not None]


def _answer(question: Question, reference: Reference, agent: Sequence[Turn], split: Callable[[str], list[str]]) -> Answer:
    said = next((t for t in agent if question.turn.start < t.start < question.next_start), None)
    if said is None:
        return Answer(question, reference, None, "missing", False, False)
    said_words = split(said.text)
    cut_off = said.end > question.next_start or bool(said.custom.get("unfinished"))
    matches = begins if cut_off else _equals
    right = any(matches(said_words, split(text)) for text in reference.texts)
    has_answer = bool(reference.answer) and contains(said_words, split(reference.answer))
    return Answer(question, reference, said, "right" if right else "wrong", cut_off, has_answer)


def _equals(said: list[str], reference: list[str]) -> bool:
    return said == reference


def begins(said: list[str], reference: list[str]) -> bool:
    """Whether `said` is how `reference` begins; its last word may be half of one. Nothing said begins nothing."""
    *whole, last = said or [""]
    return bool(last) and whole == reference[: len(whole)] and "".join(reference[len(whole) : len(said)]).startswith(last)


def contains(said: list[str], part: list[str]) -> bool:
    """Whether the words of `part` are said one after the other; no words are never said."""
    return bool(part) and any(said[i : i + len(part)] == part for i in range(len(said) - len(part) + 1))


def exact_match(marked: Sequence[Sequence[Answer]], seed: int = 0) -> dict[str, Any]:
    """Shares of right answers, with intervals, over the answers of many conversations (one list each).

    Returns:
        `all`, `seen`, `unseen` and `families`: whole answers, a missing one being wrong. `cut_off`: answers that were cut
        off, right so far. `contains_answer`: whole answers that hold the reference's `answer`, where the corpus names one.
    """

    def share(counts: Callable[[Answer], bool], right: Callable[[Answer], bool] = _is_right) -> Estimate:
        parts = [(sum(map(right, counted)), len(counted)) for counted in ([a for a in row if counts(a)] for row in marked)]
        return estimate_ratio(parts, proportion=True, seed=seed)

    def of_family(family: str, seen: bool) -> Estimate:
        return share(lambda a: not a.cut_off and a.reference.family == family and a.reference.seen is seen)

    families = sorted({a.reference.family for row in marked for a in row} - {""})
    return {
        "all": share(lambda a: not a.cut_off),
        "seen": share(lambda a: not a.cut_off and a.reference.seen is True),
        "unseen": share(lambda a: not a.cut_off and a.reference.seen is False),
        "cut_off": share(lambda a: a.cut_off),
        "contains_answer": share(lambda a: not a.cut_off and bool(a.reference.answer), lambda a: a.has_answer),
        "families": {f: {"seen": of_family(f, True), "unseen": of_family(f, False)} for f in families},
    }


def _is_right(answer: Answer) -> bool:
    return answer.verdict == "right"


def reference_texts(outcomes: Iterable[Outcome]) -> list[str]:
    """Every reference answer of the outcomes, in order, repeated as often as it is asked for."""
    return [text for outcome in outcomes for q in outcome.questions if q.reference for text in q.reference.texts]
