"""One evaluated conversation: what the user said, what the agent should have said, and what it did.

Metrics, report and pictures read outcomes; they never ask the model again. Nothing here needs torch or lhotse, so what any
model did can be scored anywhere: `generation.py` makes outcomes of an agent, `readers/` of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import soxr

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.sound import Sound
from nemo_duplex.frames import Seconds, Span
from nemo_duplex.inputs import InputError


@dataclass(frozen=True)
class Reference:
    """What the agent should say after a user turn.

    Args:
        texts: the right answers, each of them complete; the first one is the usual one.
        answer: the part that must be right ("Paris"); "" where the corpus does not say.
        family: kind of question; "" where the corpus does not say.
        seen: whether the question's text occurs in the training set; None where the corpus does not say.
    """

    texts: tuple[str, ...]
    answer: str = ""
    family: str = ""
    seen: bool | None = None


class TextEntry(NamedTuple):
    """One entry of the agent's text channel, and when it was written; it is heard `ChannelLayout.text_lead` frames later."""

    time: Seconds
    kind: Literal["bos", "word", "eos"]


@dataclass(frozen=True)
class Question:
    """A user turn, when the next one starts (Seconds), and the reference answer; None where there is none to compare with."""

    turn: Turn
    next_start: Seconds
    reference: Reference | None


@dataclass(frozen=True)
class Outcome:
    """What happened in one conversation.

    Args:
        conversation: the user's turns; the turns of the corpus' own agent, where there are any; in its custom what happened
            beside them (`events`) and, where there is no such agent, the right answers (`references`).
        questions: the user's turns with their references (`questions`).
        agent: the agent's turns on its text channel, at the times at which they are heard; a turn that no EOS ended has
            `unfinished` in its custom.
        speech: when the agent's sound is speech, by voice activity; pauses not merged.
        agent_sound, user_sound, reference_sound: what the agent says, what it hears, and the corpus' own agent; None where
            there is none. The agent's is as long as the conversation; a shorter one is silent at its end.
        unterminated, orphan_eos: broken grammar of the text channel.
        text_entries: the text channel frame by frame, pads left out.
        writes: whether the model has a text channel; without one, `agent` is empty.

    Examples:
        >>> from nemo_duplex.evaluation.activity import energy_vad
        >>> from nemo_duplex.evaluation.generation import run_conversations
        >>> from nemo_duplex.evaluation.sets import read_sets
        >>> [outcome] = run_conversations(model, read_sets(corpus, ["dev"], limit=1)["dev"], energy_vad)
        >>> len(outcome.agent_sound.samples()) == round(outcome.duration * outcome.agent_sound.sample_rate)
        True
    """

    conversation: Conversation
    questions: tuple[Question, ...]
    agent: tuple[Turn, ...]
    speech: tuple[Span, ...] = ()
    agent_sound: Sound | None = None
    user_sound: Sound | None = None
    reference_sound: Sound | None = None
    unterminated: int = 0
    orphan_eos: int = 0
    text_entries: tuple[TextEntry, ...] = ()
    writes: bool = True

    @property
    def id(self) -> str:
        return self.conversation.id

    @property
    def duration(self) -> Seconds:
        return self.conversation.duration

    @property
    def user(self) -> list[Span]:
        return [(q.turn.start, q.turn.end) for q in self.questions]

    def stereo(self, sample_rate: int) -> np.ndarray:
        """(S, 2) float32 at `sample_rate`: the user on the left, the agent on the right."""
        samples = round(self.duration * sample_rate)
        sides = []
        for sound in (self.user_sound, self.agent_sound):
            side = np.zeros(0, np.float32) if sound is None else soxr.resample(sound.samples(), sound.sample_rate, sample_rate)
            sides.append(np.pad(side[:samples], (0, max(0, samples - len(side)))))
        return np.stack(sides, axis=1)


def questions(conversation: Conversation) -> tuple[Question, ...]:
    """The user's turns with their references.

    The reference answer is the agent turn between a user turn's start and the next one's; where the corpus has no agent
    (the Impatient form), it is the turn's entry in the conversation's custom field `references`.

    Raises:
        InputError: naming the conversation, if `references` does not have an entry for each user turn.
    """
    users = conversation.user
    nexts = [*(t.start for t in users[1:]), conversation.duration][: len(users)]
    listed = conversation.custom.get("references")
    if listed is not None and len(listed) != len(users):
        raise InputError(
            f"Conversation {conversation.id} has {len(users)} user turns and {len(listed)} references, expected as many. "
            "Complete its list `references`."
        )
    found = []
    for i, (user, following) in enumerate(zip(users, nexts, strict=True)):
        answers = [t for t in conversation.agent if user.start < t.start < following]
        if user.custom.get("unfinished") or user.custom.get("begun_before"):
            reference = None  # the recording ends or begins within the question
        elif listed is not None:
            reference = None if listed[i] is None else _reference(listed[i], user.custom)
        else:
            reference = _reference(answers[0].full_text or answers[0].text, answers[0].custom) if answers else None
        found.append(Question(user, following, reference))
    return tuple(found)


def _reference(texts: str | list[str], custom: Mapping[str, Any]) -> Reference:
    right = (texts,) if isinstance(texts, str) else tuple(texts)
    return Reference(right, custom.get("answer", ""), custom.get("family", ""), custom.get("seen"))
