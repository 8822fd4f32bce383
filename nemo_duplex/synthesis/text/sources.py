"""Where dialogues come from: what every source of them does, and what it gives.

A source is a `TextSource`. It gives text only: exchanges of one user turn and one agent turn, in order. In some the user says
nothing: the agent speaks unasked, because a text tells it to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.frames import Seconds

Split = Literal["train", "dev"]


@dataclass(frozen=True)
class UserRecording:
    """What a person said before a question was asked about it.

    Args:
        id: names it in its manifest.
        path: of the file.
        start, duration: of the part of the file.
        text: that is said.
        words: (word, start, end) with times from `start`, where the recording is aligned.
        channel: of the file, from 0; None: it has one.
        tar: (first byte, bytes) of it in `path`, a tar archive; None: `path` is the audio.
        size: bytes of the file when it was imported.
        gap: of silence between it and the question.
    """

    id: str
    path: str
    start: Seconds
    duration: Seconds
    text: str
    words: tuple[tuple[str, Seconds, Seconds], ...] = ()
    channel: int | None = None
    tar: tuple[int, int] | None = None
    size: int | None = None
    gap: Seconds = 0.5


@dataclass(frozen=True)
class Exchange:
    """A user turn and the agent's answer to it.

    Args:
        user: what the user says; "" where the agent speaks unasked.
        agent: what the agent says.
        answer: the part of the agent's text that must be right (`Paris`).
        family: the kind of question, for results per kind.
        seen: whether this user text occurs in the train split.
        pauses: offsets in `user` before which the speaker may pause, because no complete question ends there.
        given: whether the agent's words come from a text that it is given, not from what the user says: it reads aloud, or an
            instruction by text makes it speak (`Session.say`).
        recording: that the user's turn begins with; `user` is its text, a blank, and the question.

    Examples:
        >>> Exchange("What is the capital of France?", "The capital of France is Paris.", answer="Paris", family="capital").seen
        True
    """

    user: str
    agent: str
    answer: str
    family: str
    seen: bool = True
    pauses: tuple[int, ...] = ()
    given: bool = False
    recording: UserRecording | None = None

    @property
    def spoken(self) -> str:
        """What a voice says of the user's turn: without the words that are recorded."""
        return self.user if self.recording is None else self.user.removeprefix(f"{self.recording.text} ")


@dataclass(frozen=True)
class Dialogue:
    """Exchanges in order.

    Args:
        id: names the dialogue in its source, in cuts and in errors.
        exchanges: of the dialogue.
        language: that both speak, a tag such as `de` or its English name; None: the one of the script, as for texts in a script
            that the language does not have.

    Examples:
        >>> exchange = Exchange("How are you?", "Very well.", answer="Very well.", family="small talk")
        >>> len(Dialogue("greeting", (exchange,)).exchanges)
        1
    """

    id: str
    exchanges: tuple[Exchange, ...]
    language: str | None = None


class TextSource(Protocol):
    """What a source of dialogues does. Its methods are pure functions, so that any worker can make any dialogue."""

    def dialogue(self, split: Split, index: int, rng: np.random.Generator) -> Dialogue:
        """Dialogue `index` of a split; what is random in it is drawn from `rng`."""
        ...

    def agent_texts(self, count: int) -> list[str]:
        """Distinct sentences of the agent, from which a codec learns its voice; nothing that only dev has.

        Built-in dialogues: all answers of train and `count` sentences more. Files: at most `count` of their answers.
        """
        ...

    def language_of(self, agent_text: str) -> str | None:
        """The language of one of the `agent_texts`; None: the one of its script."""
        ...

    def describe(self) -> dict[str, Any]:
        """What `corpus.json` says about the source; `sha256` changes with its content."""
        ...


#: The longest turn (paper, section 4.1). It is measured when the turn is spoken (`cuts.py`).
LONGEST_TURN: Seconds = 25.0


def too_long(longest: Seconds, detail: str) -> OddRow:
    """Why a dialogue with a turn of more than `longest` of speech is left out."""
    return OddRow(f"a turn of over {longest:g} s of speech", detail, "Split such turns into shorter ones.")
