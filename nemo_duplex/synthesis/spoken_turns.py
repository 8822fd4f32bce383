"""The turns of a dialogue, spoken: each an utterance with what is known about it, by one rule of what a turn may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np

from nemo_duplex.conversation import Speaker, Turn
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.frames import AGENT_SAMPLE_RATE, Seconds
from nemo_duplex.inputs import InputError, one_line
from nemo_duplex.synthesis.delivery import Delivery, deliver
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec
from nemo_duplex.synthesis.mix import resample
from nemo_duplex.synthesis.recorded_speech import with_question
from nemo_duplex.synthesis.text.sources import LONGEST_TURN, Exchange, too_long
from nemo_duplex.synthesis.tts.cast import Speakers
from nemo_duplex.synthesis.tts.utterance import Utterance, Voice

Said = TypeVar("Said")

#: Reason of a dialogue that an engine refuses while it speaks.
UNSPOKEN = "a text that the engine does not speak"
_ANSWERS_KEPT = 512  # in memory: answers of the built-in dialogues come often, and are of one voice


@dataclass(frozen=True)
class SpokenTurn:
    """A turn with times from its own start, and how it sounds."""

    speaker: Speaker
    utterance: Utterance
    custom: dict[str, Any]

    @property
    def turn(self) -> Turn:
        spoken = self.utterance
        return Turn(
            self.speaker, 0.0, spoken.duration, spoken.text, words=spoken.words, custom=self.custom, language=spoken.language
        )


class SpokenTurns:
    """Speaks exchanges.

    Args:
        spec: which pauses users make.
        speakers: who speak.
    """

    def __init__(self, spec: DialogueSpec, speakers: Speakers) -> None:
        self._spec, self._speakers = spec, speakers
        self._answer = lru_cache(maxsize=_ANSWERS_KEPT)(speakers.speak)
        self._said = partial(spoken_turn, longest=spec.longest_turn)

    def exchange(
        self,
        exchange: Exchange,
        language: str | None,
        user: Voice,
        rng: np.random.Generator,
        delivery_rng: np.random.Generator | None = None,
    ) -> tuple[SpokenTurn | None, SpokenTurn]:
        """The user's turn, None where the agent speaks unasked, and the agent's.

        Args:
            exchange, language, user: what is said, in which language and by whom.
            rng: draws a pause.
            delivery_rng: draws further ones and hesitations; None: there are none.

        Raises:
            OddRow: if a turn is too long or cannot be spoken.
        """
        content: dict[str, Any] = {"family": exchange.family, "answer": exchange.answer, "seen": exchange.seen}
        content |= {"given": True} if exchange.given else {}
        question = self._question(exchange, language, user, rng, delivery_rng, content) if exchange.user else None
        answer = self._said(self._answer, "agent", exchange.agent, replace(self._speakers.agent, language=language))
        custom = content | {"voice": self._speakers.agent.id, "whole_duration": round(answer.duration, 4)}
        return question, SpokenTurn("agent", answer, custom)

    def _question(
        self,
        exchange: Exchange,
        language: str | None,
        user: Voice,
        rng: np.random.Generator,
        delivery_rng: np.random.Generator | None,
        content: dict[str, Any],
    ) -> SpokenTurn:
        voice = replace(user, language=language)
        said = Delivery(
            self._said(partial(self._asked, exchange), "user", exchange.user, voice), longest=self._spec.longest_turn
        )
        if self._spec.pause_places == "marked" and exchange.pauses and rng.random() < self._spec.pause:
            offset = exchange.pauses[int(rng.integers(len(exchange.pauses)))]
            said = said.paused(offset, float(rng.uniform(*self._spec.pause_length)))
        if delivery_rng is not None and exchange.recording is None:  # a person has said it as a person does
            speak = partial(self._speakers.speak, voice=voice)
            said = deliver(said, exchange.pauses, language, self._spec, speak, delivery_rng)
        custom = content | {"voice": user.id}
        if exchange.recording is not None:
            custom["recording"] = exchange.recording.id
        if said.pauses:
            custom["pauses"] = [list(pause) for pause in sorted(said.pauses)]
        if said.hesitations:
            custom["hesitations"] = [list(hesitation) for hesitation in sorted(said.hesitations)]
        return SpokenTurn("user", said.utterance, custom)

    def _asked(self, exchange: Exchange, text: str, voice: Voice) -> Utterance:
        """What the user says, after a recording if there is one."""
        if exchange.recording is None:
            return self._speakers.speak(text, voice)
        return with_question(exchange.recording, self._speakers.speak(exchange.spoken, voice))


def agent_utterance(text: str, speakers: Speakers, language: str | None = None, longest: Seconds = LONGEST_TURN) -> Utterance:
    """The agent saying a text, at 22.05 kHz. The same text gives the same samples.

    Raises:
        OddRow: if the engine cannot speak it, or it is longer than a turn may be.
    """
    spoken = spoken_turn(speakers.speak, "agent", text, replace(speakers.agent, language=language), longest)
    audio = resample(spoken.audio, spoken.sample_rate, AGENT_SAMPLE_RATE)
    return Utterance(text, audio, AGENT_SAMPLE_RATE, spoken.words, spoken.language)


def spoken_turn(
    speak: Callable[[str, Voice], Utterance], speaker: Speaker, text: str, voice: Voice, longest: Seconds = LONGEST_TURN
) -> Utterance:
    """The utterance of a turn, if there can be one: every turn of every set passes here.

    Raises:
        OddRow: if not.
    """
    spoken = spoken_at_all(speak, text, voice)
    if spoken.duration > longest:
        raise too_long(longest, f"the {speaker} says {text[:40]!r} ... for {spoken.duration:.1f} s")
    return spoken


def spoken_at_all(speak: Callable[[str, Voice], Said], text: str, voice: Voice) -> Said:
    """What `speak` makes of a text of any length.

    Raises:
        OddRow: if the engine cannot speak it.
    """
    try:
        return speak(text, voice)
    except InputError as error:
        raise OddRow(UNSPOKEN, str(error)) from None
    except (OSError, MemoryError):  # a full disk is no matter of one text
        raise
    except Exception as error:  # libraries raise their own; one text must not end a run of days
        raise OddRow(UNSPOKEN, f"{text[:40]!r}: {type(error).__name__}: {one_line(error)}") from error
