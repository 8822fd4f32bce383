"""Lhotse cuts of a corpus: a dialogue as two channels, an utterance of the agent alone.

Each is a pure function of a number or a text, so any worker makes the same cut.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.frames import AGENT_SAMPLE_RATE, FRAME_RATE, USER_SAMPLE_RATE, Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.mix import Acoustics, place, resample, user_channel
from nemo_duplex.synthesis.text_sources import Exchange, Split, TextSource
from nemo_duplex.synthesis.timing import Rhythm, impatient, schedule
from nemo_duplex.synthesis.tts.utterance import SpeechEngine, Utterance, Voice
from nemo_duplex.synthesis.tts.voices import AGENT_VOICE, NUM_SPEAKERS, user_voice

DialogueSet = Literal["train", "dev", "impatient"]

# First number of a dialogue's seed. Impatient has dev's: the same texts, voices and acoustics.
_SEED_OF_SPLIT: dict[Split, int] = {"train": 0, "dev": 1}


@dataclass(frozen=True)
class DialogueSpec:
    """How the dialogues of a corpus are made. Shares are chances in 0..1.

    Args:
        seed: of everything that is drawn.
        pause: share of user turns with a pause inside, where the text allows one.
        pause_length: of such a pause.
        quiet: share of train recordings without speech.
        quiet_length: of such a recording, if `duration` is None.
        duration: of every train cut, filled with dialogues and cut off at the end; None: one whole dialogue per cut.
        rhythm: when who speaks.
        acoustics: how the user's channel sounds.

    Examples:
        >>> DialogueSpec(seed=1, duration=12.8).pause
        0.3
    """

    seed: int = 0
    pause: float = 0.3
    pause_length: tuple[Seconds, Seconds] = (0.20, 0.70)
    quiet: float = 0.04
    quiet_length: tuple[Seconds, Seconds] = (8.0, 20.0)
    duration: Seconds | None = None
    rhythm: Rhythm = field(default_factory=Rhythm)
    acoustics: Acoustics = field(default_factory=Acoustics)


@dataclass(frozen=True)
class SpokenConversation:
    """A conversation with the utterances of its turns, each by speaker and exchange number."""

    conversation: Conversation
    utterances: dict[tuple[str, int], Utterance]

    def audio(self, speaker: str, sample_rate: int) -> np.ndarray:
        """One speaker's channel, (S,) float32 at `sample_rate`."""
        num_samples = FRAME_RATE.samples(FRAME_RATE.count(self.conversation.duration), sample_rate)
        turns = [t for t in self.conversation.turns if t.speaker == speaker]
        return place([(t, self.utterances[speaker, t.custom["exchange"]]) for t in turns], num_samples, sample_rate)


class DialogueCuts:
    """The dialogues of a source as cuts, by number.

    Args:
        spec: how they are made.
        source: of their texts.
        engine: of their speech.

    Examples:
        >>> from nemo_duplex.synthesis.grammar import Grammar
        >>> from nemo_duplex.synthesis.tts.espeak import EspeakEngine
        >>> from nemo_duplex.synthesis.tts.voices import voice_data
        >>> cuts = DialogueCuts(DialogueSpec(seed=0), Grammar(), EspeakEngine(voice_data()))
        >>> sorted({supervision.speaker for supervision in cuts.cut("dev", 0).supervisions})
        ['agent', 'user']
    """

    def __init__(self, spec: DialogueSpec, source: TextSource, engine: SpeechEngine) -> None:
        self.spec, self._source, self._engine = spec, source, engine
        self._answer = lru_cache(maxsize=4096)(lambda text: engine.speak(text, AGENT_VOICE))

    def cut(self, set_name: DialogueSet, index: int) -> MonoCut:
        """Dialogue `index` of a set, as a two-channel cut.

        Raises:
            InputError: with the id of the dialogue, if it cannot be spoken.
        """
        spoken = self.spoken(set_name, index)
        conversation = spoken.conversation
        speech = spoken.audio("user", USER_SAMPLE_RATE)
        agent = spoken.audio("agent", AGENT_SAMPLE_RATE)
        _, _, rng = self._generators(_split_of(set_name), index)
        loudspeaker = partial(resample, agent, AGENT_SAMPLE_RATE, USER_SAMPLE_RATE)
        user, done = user_channel(speech, loudspeaker, USER_SAMPLE_RATE, self.spec.acoustics, rng)
        custom = dict(conversation.custom) | {"set": set_name, "surroundings": done}
        return _cut(replace(conversation, custom=custom), user, agent)

    def spoken(self, set_name: DialogueSet, index: int) -> SpokenConversation:
        """Dialogue `index` with its times and utterances, before the channels are mixed."""
        split = _split_of(set_name)
        content, rhythm_rng, _ = self._generators(split, index)
        name = f"{split}-{self.spec.seed}-{index:07d}"
        voice = user_voice(split, int(content.integers(NUM_SPEAKERS[split])))
        duration = self.spec.duration if split == "train" else None
        engine = f"{self._engine.name} {self._engine.version}"
        custom = {"seed": self.spec.seed, "index": index, "voice": voice.id, "engine": engine}
        if split == "train" and content.random() < self.spec.quiet:
            length = duration or FRAME_RATE.time(FRAME_RATE.nearest(content.uniform(*self.spec.quiet_length)))
            return SpokenConversation(Conversation(name, length, (), custom | {"source": "quiet"}), {})
        rhythm = self.spec.rhythm
        if set_name == "impatient":  # made from the dialogue of dev in which the user lets the agent finish every answer
            rhythm = replace(rhythm, barge_in=0.0)
        sources: list[str] = []
        utterances: dict[tuple[str, int], Utterance] = {}
        try:
            exchanges = self._exchanges(split, index, duration is not None, content, sources)
            conversation = schedule(name, self._turns(exchanges, voice, content, utterances), rhythm, rhythm_rng, duration)
        except InputError as error:
            raise InputError(f"Dialogue {name} (from {', '.join(sources)}): {error}") from None
        conversation = replace(conversation, custom=custom | {"source": " ".join(sources)})
        if set_name == "impatient":
            conversation = impatient(conversation, rhythm)
        return SpokenConversation(conversation, utterances)

    def _generators(self, split: Split, index: int) -> list[np.random.Generator]:
        """One for texts, one for times, one for acoustics: separate, so that dev and Impatient share what they should."""
        return np.random.default_rng([self.spec.seed, _SEED_OF_SPLIT[split], index]).spawn(3)

    def _exchanges(
        self, split: Split, index: int, endless: bool, rng: np.random.Generator, sources: list[str]
    ) -> Iterator[Exchange]:
        """The exchanges of one dialogue, or of one dialogue after the other; adds the ids of those begun to `sources`."""
        while True:
            dialogue = self._source.dialogue(split, index, rng)
            sources.append(dialogue.id)
            yield from dialogue.exchanges
            if not endless:
                return
            index = int(rng.integers(1 << 31))

    def _turns(
        self,
        exchanges: Iterator[Exchange],
        voice: Voice,
        rng: np.random.Generator,
        utterances: dict[tuple[str, int], Utterance],
    ) -> Iterator[tuple[Turn, Turn]]:
        """Speaks each exchange; the times of each turn count from its own start."""
        for number, exchange in enumerate(exchanges):
            content = {"family": exchange.family, "answer": exchange.answer, "seen": exchange.seen}
            question = self._engine.speak(exchange.user, voice)
            pauses: list[list[Seconds]] = []
            if exchange.pauses and rng.random() < self.spec.pause:
                offset = exchange.pauses[int(rng.integers(len(exchange.pauses)))]
                start = next(word.start for word in question.words if word.offset == offset)
                before = question.duration
                question = question.with_pause(offset, float(rng.uniform(*self.spec.pause_length)))
                pauses = [[start, start + question.duration - before]]
            answer = self._answer(exchange.agent)
            utterances["user", number], utterances["agent", number] = question, answer
            user_custom = content | {"voice": voice.id} | ({"pauses": pauses} if pauses else {})
            agent_custom = content | {"voice": AGENT_VOICE.id, "whole_duration": round(answer.duration, 4)}
            yield (
                Turn("user", 0.0, question.duration, exchange.user, words=question.words, custom=user_custom),
                Turn("agent", 0.0, answer.duration, exchange.agent, words=answer.words, custom=agent_custom),
            )


def _split_of(set_name: DialogueSet) -> Split:
    return "train" if set_name == "train" else "dev"


def _cut(conversation: Conversation, user: np.ndarray, agent: np.ndarray) -> MonoCut:
    custom: dict[str, Any] = dict(conversation.custom)
    custom["target_audio"] = _recording_of(f"{conversation.id}-agent", agent, AGENT_SAMPLE_RATE)
    recording = _recording_of(conversation.id, user, USER_SAMPLE_RATE)
    return MonoCut(
        id=conversation.id,
        start=0.0,
        duration=recording.duration,
        channel=0,
        recording=recording,
        supervisions=conversation.to_supervisions(),
        custom=custom,
    )


def agent_utterances(texts: Iterable[str], engine: SpeechEngine) -> Iterator[tuple[str, np.ndarray]]:
    """Each text, and the agent saying it, (S,) float32 at 22.05 kHz. The same text gives the same samples.

    Raises:
        InputError: if the engine makes no sound of a text.
    """
    for text in texts:
        spoken = engine.speak(text, AGENT_VOICE)
        yield text, resample(spoken.audio, spoken.sample_rate, AGENT_SAMPLE_RATE)


def utterance_cut(name: str, text: str, audio: np.ndarray) -> MonoCut:
    """A cut of one agent utterance, (S,) float32 at 22.05 kHz."""
    recording = _recording_of(name, audio, AGENT_SAMPLE_RATE)
    supervision = SupervisionSegment(name, name, 0.0, recording.duration, text=text, speaker="agent", language="en")
    return MonoCut(name, 0.0, recording.duration, 0, recording=recording, supervisions=[supervision])


def _recording_of(name: str, audio: np.ndarray, sample_rate: int) -> Recording:
    """A recording in memory, in 16 bits, as FLAC will keep it."""
    file = io.BytesIO()
    soundfile.write(file, audio, sample_rate, format="WAV", subtype="PCM_16")
    source = AudioSource("memory", [0], file.getvalue())
    return Recording(name, [source], sample_rate, len(audio), len(audio) / sample_rate)
