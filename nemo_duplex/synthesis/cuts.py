"""Lhotse cuts of a corpus: a dialogue as two channels, an utterance of the agent alone.

Each is a pure function of a number or a text, so any worker makes the same cut. That holds for what is left out, too: a
dialogue in which a turn lasts longer than 25 s, or that the engine cannot speak, is not used. Another one is drawn for it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from nemo_duplex.conversation import Conversation, Speaker, Turn
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.frames import AGENT_SAMPLE_RATE, FRAME_RATE, USER_SAMPLE_RATE, Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.mix import Acoustics, place, resample, user_channel
from nemo_duplex.synthesis.text_sources import LONGEST_TURN, TOO_LONG, TOO_LONG_CURE, Exchange, Split, TextSource
from nemo_duplex.synthesis.timing import Rhythm, impatient, schedule
from nemo_duplex.synthesis.tts.utterance import SpeechEngine, Utterance, Voice
from nemo_duplex.synthesis.tts.voices import AGENT_VOICE, NUM_SPEAKERS, user_voice

DialogueSet = Literal["train", "dev", "impatient"]

#: Reason of a dialogue that the engine refuses while it speaks.
UNSPOKEN = "a text that the engine does not speak"
# So many dialogues are drawn for one place before it is an error. If every twentieth can be used, the chance of that is 4e-5.
_MOST_DRAWN = 200

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
    """A conversation with the utterances of its turns, each by speaker and exchange number.

    Args:
        conversation: with times and texts.
        utterances: of its turns, and of turns that had no place in it.
        sources: ids of the dialogues that it is made of.
        left_out: {id: why it was not used} of the dialogues that were drawn in vain.
    """

    conversation: Conversation
    utterances: dict[tuple[str, int], Utterance]
    sources: tuple[str, ...] = ()
    left_out: dict[str, OddRow] = field(default_factory=dict)

    def audio(self, speaker: str, sample_rate: int) -> np.ndarray:
        """One speaker's channel, (S,) float32 at `sample_rate`."""
        num_samples = FRAME_RATE.samples(FRAME_RATE.count(self.conversation.duration), sample_rate)
        turns = [t for t in self.conversation.turns if t.speaker == speaker]
        return place([(t, self.utterances[speaker, t.custom["exchange"]]) for t in turns], num_samples, sample_rate)


@dataclass
class _Speech:
    """What is drawn and spoken for one cut."""

    split: Split
    voice: Voice
    rng: np.random.Generator
    sources: list[str] = field(default_factory=list)  # ids of its dialogues
    utterances: dict[tuple[str, int], Utterance] = field(default_factory=dict)
    left_out: dict[str, OddRow] = field(default_factory=dict)


@dataclass(frozen=True)
class _SpokenTurn:
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
        self._answer = lru_cache(maxsize=4096)(lambda text, voice: engine.speak(text, voice))

    def cut(self, set_name: DialogueSet, index: int) -> MonoCut:
        """Dialogue `index` of a set, as a two-channel cut. Dialogues that it was not made of are in its custom, `left_out`.

        Raises:
            InputError: if none of many dialogues drawn for it can be used.
        """
        spoken = self.spoken(set_name, index)
        conversation = spoken.conversation
        speech = spoken.audio("user", USER_SAMPLE_RATE)
        agent = spoken.audio("agent", AGENT_SAMPLE_RATE)
        _, _, rng = self._generators(_split_of(set_name), index)
        loudspeaker = partial(resample, agent, AGENT_SAMPLE_RATE, USER_SAMPLE_RATE)
        user, done = user_channel(speech, loudspeaker, USER_SAMPLE_RATE, self.spec.acoustics, rng)
        custom = dict(conversation.custom) | {"set": set_name, "surroundings": done}
        if spoken.left_out:
            custom["left_out"] = {name: [odd.reason, odd.detail] for name, odd in spoken.left_out.items()}
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
        speech = _Speech(split, voice, content)
        try:
            conversation = schedule(name, self._turns(speech, index, duration is not None), rhythm, rhythm_rng, duration)
        except InputError as error:
            raise InputError(f"Dialogue {name}: {error}") from None
        conversation = replace(conversation, custom=custom | {"source": " ".join(speech.sources)})
        if set_name == "impatient":
            conversation = impatient(conversation, rhythm)
        return SpokenConversation(conversation, speech.utterances, tuple(speech.sources), speech.left_out)

    def _generators(self, split: Split, index: int) -> list[np.random.Generator]:
        """One for texts, one for times, one for acoustics: separate, so that dev and Impatient share what they should."""
        return np.random.default_rng([self.spec.seed, _SEED_OF_SPLIT[split], index]).spawn(3)

    def _turns(self, speech: _Speech, index: int, endless: bool) -> Iterator[tuple[Turn, Turn]]:
        """The turns of one dialogue, or of one dialogue after the other, the times of each from its own start."""
        number = 0
        while True:
            for question, answer in self._usable(speech, index):
                speech.utterances["user", number], speech.utterances["agent", number] = question.utterance, answer.utterance
                yield question.turn, answer.turn
                number += 1
            if not endless:
                return
            index = int(speech.rng.integers(1 << 31))

    def _usable(self, speech: _Speech, index: int) -> list[tuple[_SpokenTurn, _SpokenTurn]]:
        """Dialogue `index`, spoken; or the first that can be among others, by numbers that are drawn."""
        odd = OddRows()
        for _ in range(_MOST_DRAWN):
            dialogue = self._source.dialogue(speech.split, index, speech.rng)
            try:
                if dialogue.id in speech.left_out:
                    raise speech.left_out[dialogue.id]
                spoken = [self._spoken(exchange, dialogue.language, speech) for exchange in dialogue.exchanges]
                speech.sources.append(dialogue.id)
                return spoken
            except OddRow as reason:
                speech.left_out[dialogue.id] = reason.with_traceback(None)  # which holds the samples
                odd.add(reason, f"dialogue {dialogue.id}")
            index = int(speech.rng.integers(1 << 31))
        raise InputError(f"none of {_MOST_DRAWN} dialogues drawn for it from {speech.split} can be used. {odd.most_frequent()}")

    def _spoken(self, exchange: Exchange, language: str | None, speech: _Speech) -> tuple[_SpokenTurn, _SpokenTurn]:
        """The user's turn and the agent's.

        Raises:
            OddRow: if a turn is too long or cannot be spoken.
        """
        content = {"family": exchange.family, "answer": exchange.answer, "seen": exchange.seen}
        question = spoken_turn(self._engine.speak, "user", exchange.user, replace(speech.voice, language=language))
        custom: dict[str, Any] = content | {"voice": speech.voice.id}
        if exchange.pauses and speech.rng.random() < self.spec.pause:
            offset = exchange.pauses[int(speech.rng.integers(len(exchange.pauses)))]
            length = float(speech.rng.uniform(*self.spec.pause_length))
            word = next((word for word in question.words[1:] if word.offset == offset), None)
            if word is not None and question.duration + length <= LONGEST_TURN:  # None where the engine knows no times
                paused = question.with_pause(offset, length)
                custom["pauses"] = [[word.start, word.start + paused.duration - question.duration]]
                question = paused
        answer = spoken_turn(self._answer, "agent", exchange.agent, replace(AGENT_VOICE, language=language))
        agent_custom = content | {"voice": AGENT_VOICE.id, "whole_duration": round(answer.duration, 4)}
        return _SpokenTurn("user", question, custom), _SpokenTurn("agent", answer, agent_custom)


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


def agent_utterance(text: str, engine: SpeechEngine, language: str | None = None) -> Utterance:
    """The agent saying a text, at 22.05 kHz. The same text gives the same samples.

    Raises:
        OddRow: if the engine cannot speak it, or it is longer than a turn may be.
    """
    spoken = spoken_turn(engine.speak, "agent", text, replace(AGENT_VOICE, language=language))
    audio = resample(spoken.audio, spoken.sample_rate, AGENT_SAMPLE_RATE)
    return Utterance(text, audio, AGENT_SAMPLE_RATE, spoken.words, spoken.language)


def utterance_cut(name: str, spoken: Utterance) -> MonoCut:
    """A cut of one agent utterance at 22.05 kHz."""
    recording = _recording_of(name, spoken.audio, AGENT_SAMPLE_RATE)
    supervision = SupervisionSegment(
        name, name, 0.0, recording.duration, text=spoken.text, speaker="agent", language=spoken.language
    )
    return MonoCut(name, 0.0, recording.duration, 0, recording=recording, supervisions=[supervision])


def spoken_turn(speak: Callable[[str, Voice], Utterance], speaker: Speaker, text: str, voice: Voice) -> Utterance:
    """The utterance of a turn, if there can be one: every turn of every set passes here.

    Raises:
        OddRow: if not.
    """
    try:
        spoken = speak(text, voice)
    except InputError as error:
        raise OddRow(UNSPOKEN, str(error)) from None
    if spoken.duration > LONGEST_TURN:
        raise OddRow(TOO_LONG, f"the {speaker} says {text[:40]!r} ... for {spoken.duration:.1f} s", TOO_LONG_CURE)
    return spoken


def _recording_of(name: str, audio: np.ndarray, sample_rate: int) -> Recording:
    """A recording in memory, in 16 bits, as FLAC will keep it."""
    file = io.BytesIO()
    soundfile.write(file, audio, sample_rate, format="WAV", subtype="PCM_16")
    source = AudioSource("memory", [0], file.getvalue())
    return Recording(name, [source], sample_rate, len(audio), len(audio) / sample_rate)
