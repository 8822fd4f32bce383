"""Conversations as a judge reads them: what the user said, what is right, and what the agent said to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.outcome import Outcome, Question
from nemo_duplex.frames import FRAME_RATE


@dataclass(frozen=True)
class JudgedTurn:
    """A turn of the user and the agent's answer to it.

    Args:
        user: what the user said.
        references: right answers, each complete, the usual one first; at least one.
        hypothesis: what the agent said; "" if it said nothing.
        cut_off: whether the user, or the end of the recording, cut the hypothesis off.
        answer: the part of the references that must be right ("Paris"); "" where the corpus does not say.
        language: of the references, a tag such as `en`.

    Examples:
        >>> JudgedTurn("What is the capital of France?", ("Paris.",), "it is paris").reference
        'Paris.'
    """

    user: str
    references: tuple[str, ...]
    hypothesis: str
    cut_off: bool = False
    answer: str = ""
    language: str = "en"

    def __post_init__(self) -> None:
        assert self.references, f"A turn without a reference cannot be judged: {self.user!r}."

    @property
    def reference(self) -> str:
        """The usual right answer."""
        return self.references[0]


@dataclass(frozen=True)
class JudgedConversation:
    """The turns of one conversation.

    Args:
        id: of the conversation, unique in its set.
        set: the test set that it belongs to.
        turns: those that have a reference, in order.

    Examples:
        >>> turn = JudgedTurn("Hello!", ("Hi!",), "hi")
        >>> JudgedConversation("talk-1", "dev", (turn,)).turns[0].hypothesis
        'hi'
    """

    id: str
    set: str
    turns: tuple[JudgedTurn, ...]


def judged_conversations(
    set_name: str, outcomes: Iterable[Outcome], transcripts: Mapping[str, Sequence[Turn]]
) -> list[JudgedConversation]:
    """The conversations of a set, with what a recogniser heard the agent say.

    The hypothesis of a turn is all that the agent begins to say between the start of the user's turn and the next one's.
    What it says before the first user turn answers nothing, and turns without a reference (unfinished ones, and those that
    want no answer) have nothing to be compared with: both are left out.

    Args:
        transcripts: of a conversation's id, the agent's turns as they were recognised (`Heard.turns`; paper, section 5.2), in
            order. With `outcome.agent` for each, the agent is judged by its text channel instead. Conversations that nobody
            listened to are left out.
    """
    return [
        JudgedConversation(o.id, set_name, tuple(_turns(o.questions, transcripts[o.id], o.speech, o.duration)))
        for o in outcomes
        if o.id in transcripts
    ]


def _turns(
    questions: Iterable[Question], heard: Sequence[Turn], speech: Sequence[tuple[float, float]], duration: float
) -> Iterable[JudgedTurn]:
    for q in questions:
        if q.reference is None or not q.reference.texts[0].strip():
            continue
        said = " ".join(turn.text.strip() for turn in heard if q.turn.start <= turn.start < q.next_start)
        # At the end of the recording there is no sound behind the last sample: what ends with it was not finished.
        until = q.next_start if q.next_start < duration else duration - FRAME_RATE.seconds
        cut_off = bool(said) and any(start < q.next_start and end > until for start, end in speech)
        yield JudgedTurn(q.turn.text, q.reference.texts, said, cut_off, q.reference.answer, q.turn.language or "en")
