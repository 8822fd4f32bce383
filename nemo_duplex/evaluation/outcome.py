"""One evaluated conversation: what the user said, what the agent should have said, and what it did.

Metrics, report and pictures read outcomes; they never ask the model again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import soxr
from lhotse.cut import Cut

from nemo_duplex.conversation import Conversation, Turn, holds
from nemo_duplex.frames import FRAME_RATE, Seconds, Span
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
        cut: the corpus' cut: user audio, and the reference agent where there is one.
        questions: the user turns, from the manifest.
        agent: the agent's turns on its text channel, at the times at which they are heard; a turn that no EOS ended has
            `unfinished` in its custom.
        speech: when the agent's sound is speech, by voice activity; pauses not merged.
        audio: (S,) int16, the agent's channel, as long as the cut.
        sample_rate: of `audio`, in Hz.
        unterminated, orphan_eos: broken grammar of the text channel.
        text_entries: the text channel frame by frame, pads left out.

    Examples:
        >>> from nemo_duplex.evaluation.activity import energy_vad
        >>> from nemo_duplex.evaluation.generation import run_conversations
        >>> from nemo_duplex.evaluation.run import read_sets
        >>> [outcome] = run_conversations(model, read_sets(corpus, ["dev"], limit=1)["dev"], energy_vad)
        >>> len(outcome.audio) == round(outcome.duration * outcome.sample_rate)
        True
    """

    cut: Cut
    questions: tuple[Question, ...]
    agent: tuple[Turn, ...]
    speech: tuple[Span, ...]
    audio: np.ndarray
    sample_rate: int
    unterminated: int = 0
    orphan_eos: int = 0
    text_entries: tuple[TextEntry, ...] = ()

    @property
    def id(self) -> str:
        return self.cut.id

    @property
    def duration(self) -> Seconds:
        return self.cut.duration

    @property
    def user(self) -> list[Span]:
        return [(q.turn.start, q.turn.end) for q in self.questions]

    @property
    def user_audio(self) -> np.ndarray:
        """(S,) float32 at the cut's sampling rate; read each time, because a test set may be long."""
        return self.cut.load_audio()[0]

    def stereo(self, sample_rate: int) -> np.ndarray:
        """(S, 2) float32 at `sample_rate`: the user on the left, the agent on the right."""
        left = soxr.resample(self.user_audio, self.cut.sampling_rate, sample_rate)
        right = soxr.resample(self.audio / np.float32(32768), self.sample_rate, sample_rate)
        samples = round(self.duration * sample_rate)
        return np.stack([np.pad(side[:samples], (0, max(0, samples - len(side)))) for side in (left, right)], axis=1)


def check(cut: Cut, sample_rate: int) -> None:
    """Checks that a cut can be evaluated.

    Args:
        sample_rate: of the model's user audio, in Hz.

    Raises:
        InputError: naming the cut, for another sample rate, several channels, no supervisions, or an agent channel of
            another length than the user's.
    """
    if not holds(cut, "recording"):
        raise InputError(
            f"Cut {cut.id} has no user channel: its recording is missing. Copy the recording.*.tar of its shard too."
        )
    if cut.num_channels != 1:
        raise InputError(f"Cut {cut.id}: the user channel has {cut.num_channels} channels, expected one. Split the recording.")
    if cut.sampling_rate != sample_rate:
        raise InputError(
            f"Cut {cut.id}: the user channel has {cut.sampling_rate} Hz, the model hears {sample_rate} Hz. Resample the corpus."
        )
    if not Conversation.from_cut(cut).user:
        raise InputError(
            f"Cut {cut.id} has no supervisions of the user within its audio, so it is unknown when the user speaks. Write the "
            "corpus with examples/synthesize.py, or add supervisions with speaker 'user'."
        )
    agent = cut.target_audio.duration if holds(cut, "target_audio") else cut.duration
    if abs(agent - cut.duration) > FRAME_RATE.seconds:
        raise InputError(
            f"Cut {cut.id}: the user channel lasts {cut.duration:.2f} s and the agent channel {agent:.2f} s, "
            "expected the same. Pad or cut one of them."
        )


def questions(cut: Cut) -> tuple[Question, ...]:
    """The user turns of a cut with their references.

    The reference answer is the agent turn between a user turn's start and the next one's; where the corpus has no agent
    (the Impatient form), it is the turn's entry in the cut's custom field `references`.

    Raises:
        InputError: naming the cut, if `references` does not have an entry for each user turn.
    """
    conversation = Conversation.from_cut(cut)
    users = conversation.user
    nexts = [*(t.start for t in users[1:]), cut.duration]
    listed = conversation.custom.get("references")
    if listed is not None and len(listed) != len(users):
        raise InputError(
            f"Cut {cut.id} has {len(users)} user turns and {len(listed)} references, expected as many. "
            "Complete its list `references`."
        )
    found = []
    for i, (user, following) in enumerate(zip(users, nexts, strict=True)):
        answers = [t for t in conversation.agent if user.start < t.start < following]
        if user.custom.get("unfinished") or user.custom.get("begun_before"):
            reference = None  # the recording ends or begins within the question
        elif listed is not None:
            reference = _reference(listed[i], user.custom)
        else:
            reference = _reference(answers[0].full_text or answers[0].text, answers[0].custom) if answers else None
        found.append(Question(user, following, reference))
    return tuple(found)


def _reference(texts: str | list[str], custom: Mapping[str, Any]) -> Reference:
    right = (texts,) if isinstance(texts, str) else tuple(texts)
    return Reference(right, custom.get("answer", ""), custom.get("family", ""), custom.get("seen"))
