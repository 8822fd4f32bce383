"""Lhotse cuts of a corpus: a dialogue as two channels, an utterance of the agent alone.

Each is a pure function of a number or a text, so any worker makes the same cut. That holds for what is left out, too: a
dialogue in which a turn lasts longer than 25 s, or that the engine cannot speak, is not used. Another one is drawn for it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.frames import AGENT_SAMPLE_RATE, FRAME_RATE, USER_SAMPLE_RATE
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec
from nemo_duplex.synthesis.events import EventSounds, Sound, events_of_channel, heard
from nemo_duplex.synthesis.mix import HeardWith, place, resample, user_channel
from nemo_duplex.synthesis.spoken_turns import SpokenTurn, SpokenTurns
from nemo_duplex.synthesis.text.sources import Dialogue, Split, TextSource
from nemo_duplex.synthesis.timing import Aside, Rhythm, impatient, schedule
from nemo_duplex.synthesis.tts.cast import Speakers
from nemo_duplex.synthesis.tts.languages import language_of
from nemo_duplex.synthesis.tts.utterance import Utterance, Voice

DialogueSet = Literal["train", "dev", "impatient"]

# So many dialogues are drawn for one place before it is an error. If every twentieth can be used, the chance of that is 4e-5.
_MOST_DRAWN = 200
# So many are drawn for one that a user says in a take. Beyond, the bank may not have what is said, and it is spoken then.
_MOST_DRAWN_FOR_A_USER = 2000

# Generators of a dialogue, each of its own, so that what one draws changes nothing of the others.
_STREAMS = ("texts", "times", "acoustics", "concatenation", "delivery", "gaps", "heard with")

# First number of a dialogue's seed. Impatient has dev's: the same texts, voices and acoustics.
_SEED_OF_SPLIT: dict[Split, int] = {"train": 0, "dev": 1}


@dataclass(frozen=True)
class SpokenConversation:
    """A conversation with the utterances of its turns, each by speaker and exchange number.

    Args:
        conversation: with times and texts.
        utterances: of its turns, and of turns that had no place in it.
        sources: ids of the dialogues that it is made of.
        left_out: {id: why it was not used} of the dialogues that were drawn in vain.
        sounds: that are no turns.
    """

    conversation: Conversation
    utterances: dict[tuple[str, int], Utterance]
    sources: tuple[str, ...] = ()
    left_out: dict[str, OddRow] = field(default_factory=dict)
    sounds: tuple[Sound, ...] = ()

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
    beside: EventSounds
    sources: list[str] = field(default_factory=list)  # ids of its dialogues
    utterances: dict[tuple[str, int], Utterance] = field(default_factory=dict)
    left_out: dict[str, OddRow] = field(default_factory=dict)


class DialogueCuts:
    """The dialogues of a source as cuts, by number.

    Args:
        spec: how they are made.
        source: of their texts.
        speakers: who speak them.

    Examples:
        >>> from nemo_duplex.synthesis.text.grammar import Grammar
        >>> from nemo_duplex.synthesis.tts.engines import CastSpec, open_cast
        >>> cast, missing = open_cast(CastSpec())
        >>> cuts = DialogueCuts(DialogueSpec(seed=0), Grammar(), cast)
        >>> sorted({supervision.speaker for supervision in cuts.cut("dev", 0).supervisions})
        ['agent', 'user']
    """

    def __init__(self, spec: DialogueSpec, source: TextSource, speakers: Speakers) -> None:
        self.spec, self._source, self._speakers = spec, source, speakers
        self._spoken_turns = SpokenTurns(spec, speakers)

    def cut(self, set_name: DialogueSet, index: int) -> MonoCut:
        """Dialogue `index` of a set, as a two-channel cut. Dialogues that it was not made of are in its custom, `left_out`.

        Raises:
            InputError: if none of many dialogues drawn for it can be used.
        """
        spoken = self.spoken(set_name, index)
        conversation = spoken.conversation
        split = _split_of(set_name)
        speech = spoken.audio("user", USER_SAMPLE_RATE)
        agent = spoken.audio("agent", AGENT_SAMPLE_RATE)
        near, far = (heard(spoken.sounds, len(speech), USER_SAMPLE_RATE, far) for far in (False, True))
        heard_with = HeardWith(near, far, self._generator(split, index, "heard with"))
        loudspeaker = partial(resample, agent, AGENT_SAMPLE_RATE, USER_SAMPLE_RATE)
        rng = self._generator(split, index, "acoustics")
        user, done = user_channel(speech, loudspeaker, USER_SAMPLE_RATE, self.spec.acoustics, rng, heard_with)
        events = [*conversation.custom.get("events", ()), *events_of_channel(conversation, done)]
        custom = dict(conversation.custom) | {"set": set_name, "surroundings": done}
        if events:
            custom["events"] = sorted(events, key=lambda event: (event["start"], event["kind"]))
        if spoken.left_out:
            custom["left_out"] = {name: [odd.reason, odd.detail] for name, odd in spoken.left_out.items()}
        return two_channel_cut(replace(conversation, custom=custom), user, agent)

    def spoken(self, set_name: DialogueSet, index: int) -> SpokenConversation:
        """Dialogue `index` with its times and utterances, before the channels are mixed."""
        split = _split_of(set_name)
        content = self._generator(split, index, "texts")
        name = f"{self.spec.dataset}-" * bool(self.spec.dataset) + f"{split}-{self.spec.seed}-{index:07d}"
        voice = self._user(split, index, content)
        duration = self.spec.duration if split == "train" else None
        engine = self._speakers.engine_of(voice)
        custom = {"seed": self.spec.seed, "index": index, "voice": voice.id, "engine": engine}
        custom |= {"dataset": self.spec.dataset} if self.spec.dataset else {}
        sounds = EventSounds(self.spec.events, self._speakers, self._source, split, voice, self._seeds(split, index))
        if split == "train" and content.random() < self.spec.quiet:
            length = duration or FRAME_RATE.time(FRAME_RATE.nearest(content.uniform(*self.spec.quiet_length)))
            quiet = Conversation(name, length, (), custom | {"source": "quiet"})
            return _with_sounds(SpokenConversation(quiet, {}), sounds.of(quiet))
        rhythm: Rhythm = self.spec.rhythm
        aside: Aside | None = sounds.aside
        if set_name == "impatient":  # made from the dialogue of dev in which the user lets the agent finish every answer
            rhythm, aside = replace(rhythm, barge_in=0.0), None
        speech = _Speech(split, voice, content, sounds)
        turns = self._turns(speech, index, duration is not None)
        times, gaps = self._generator(split, index, "times"), self._generator(split, index, "gaps")
        try:
            conversation = schedule(name, turns, rhythm, times, duration, gaps_rng=gaps, aside=aside)
        except InputError as error:
            raise InputError(f"Dialogue {name}: {error}") from None
        conversation = replace(conversation, custom=custom | {"source": " ".join(speech.sources)})
        if set_name == "impatient":
            conversation = impatient(conversation, rhythm)
        spoken = SpokenConversation(conversation, speech.utterances, tuple(speech.sources), speech.left_out)
        return _with_sounds(spoken, sounds.of(conversation) if aside is not None else sounds.background(conversation.duration))

    def _user(self, split: Split, index: int, rng: np.random.Generator) -> Voice:
        """Any user of the split; with takes, one of those who say the first dialogue."""
        if self._speakers.takes is None:
            return self._speakers.user(split, rng)
        dialogue = self._source.dialogue(split, index, rng)
        return self._speakers.take(split, dialogue.id, int(rng.integers(self._speakers.takes)))

    def _generator(self, split: Split, index: int, stream: str) -> np.random.Generator:
        """A generator of a dialogue. Dev and Impatient have the same, so that they share what they should."""
        seeds = np.random.SeedSequence(self._seeds(split, index), spawn_key=(_STREAMS.index(stream),))
        return np.random.default_rng(seeds)

    def _seeds(self, split: Split, index: int) -> list[int]:
        return [self.spec.seed, _SEED_OF_SPLIT[split], index]

    def _turns(self, speech: _Speech, index: int, endless: bool) -> Iterator[tuple[Turn | None, Turn]]:
        """The turns of one dialogue, or of one dialogue after the other, the times of each from its own start."""
        number, following = 0, self.spec.concatenate
        others = self._generator(speech.split, index, "concatenation")
        delivery = self._generator(speech.split, index, "delivery")
        while True:
            for question, answer in self._usable(speech, index, delivery, apart=not endless):
                speech.utterances["agent", number] = answer.utterance
                if question is not None:
                    speech.utterances["user", number] = question.utterance
                yield question.turn if question is not None else None, answer.turn
                number += 1
            following -= 1
            if endless:
                index = int(speech.rng.integers(1 << 31))
            elif following > 0:
                index = int(others.integers(1 << 31))
            else:
                return

    def _usable(
        self, speech: _Speech, index: int, delivery: np.random.Generator, apart: bool
    ) -> list[tuple[SpokenTurn | None, SpokenTurn]]:
        """Dialogue `index`, spoken; or the first that can be among others, by numbers that are drawn.

        With `apart` it is one that the cut does not have yet, if there is another.
        """
        odd = OddRows()
        for drawn in range(_MOST_DRAWN):
            dialogue = self._sayable(speech, index)
            if apart and dialogue.id in speech.sources and drawn < _MOST_DRAWN // 10:
                index = int(speech.rng.integers(1 << 31))
                continue
            speech.beside.language = dialogue.language or language_of(dialogue.exchanges[0].agent, "en")
            try:
                if dialogue.id in speech.left_out:
                    raise speech.left_out[dialogue.id]
                spoken = [
                    self._spoken_turns.exchange(exchange, dialogue.language, speech.voice, speech.rng, delivery)
                    for exchange in dialogue.exchanges
                ]
                speech.sources.append(dialogue.id)
                return spoken
            except OddRow as reason:
                speech.left_out[dialogue.id] = reason.with_traceback(None)  # which holds the samples
                odd.add(reason, f"dialogue {dialogue.id}")
            index = int(speech.rng.integers(1 << 31))
        raise InputError(f"none of {_MOST_DRAWN} dialogues drawn for it from {speech.split} can be used. {odd.most_frequent()}")

    def _sayable(self, speech: _Speech, index: int) -> Dialogue:
        """Dialogue `index`, or the first drawn that the user says in a take; the last one, if many are drawn in vain."""
        for _ in range(_MOST_DRAWN_FOR_A_USER):
            dialogue = self._source.dialogue(speech.split, index, speech.rng)
            if self._speakers.may_say(speech.split, dialogue.id, speech.voice):
                break
            index = int(speech.rng.integers(1 << 31))
        return dialogue


def _with_sounds(spoken: SpokenConversation, sounds: Iterable[Sound]) -> SpokenConversation:
    """With sounds that are no turns, and with `events` in its custom: these, and the hesitations inside turns."""
    conversation, events, turns = spoken.conversation, [], []
    for turn in conversation.turns:
        custom = dict(turn.custom)
        for start, end, text in custom.pop("hesitations", ()):
            events.append({"kind": "hesitation", "speaker": turn.speaker, "start": start, "end": end, "text": text})
        turns.append(replace(turn, custom=custom))
    sounds = tuple(sounds)
    events += [sound.event(conversation.duration) for sound in sounds]
    custom = dict(conversation.custom)
    if events:
        custom["events"] = sorted(events, key=lambda event: (event["start"], event["kind"]))
    conversation = replace(conversation, turns=tuple(turns), custom=custom)
    return replace(spoken, conversation=conversation, sounds=sounds)


def _split_of(set_name: DialogueSet) -> Split:
    return "train" if set_name == "train" else "dev"


def two_channel_cut(
    conversation: Conversation,
    user: np.ndarray,
    agent: np.ndarray,
    user_rate: int = USER_SAMPLE_RATE,
    agent_rate: int = AGENT_SAMPLE_RATE,
) -> MonoCut:
    """A cut of a conversation and its channels (S,), the user's as `recording` and the agent's as `target_audio`."""
    custom: dict[str, Any] = dict(conversation.custom)
    custom["target_audio"] = _recording_of(f"{conversation.id}-agent", agent, agent_rate)
    recording = _recording_of(conversation.id, user, user_rate)
    return MonoCut(
        id=conversation.id,
        start=0.0,
        duration=recording.duration,
        channel=0,
        recording=recording,
        supervisions=conversation.to_supervisions(),
        custom=custom,
    )


def utterance_cut(name: str, spoken: Utterance) -> MonoCut:
    """A cut of one agent utterance at 22.05 kHz."""
    recording = _recording_of(name, spoken.audio, AGENT_SAMPLE_RATE)
    supervision = SupervisionSegment(
        name, name, 0.0, recording.duration, text=spoken.text, speaker="agent", language=spoken.language
    )
    return MonoCut(name, 0.0, recording.duration, 0, recording=recording, supervisions=[supervision])


def _recording_of(name: str, audio: np.ndarray, sample_rate: int) -> Recording:
    """A recording in memory, in 16 bits, as FLAC will keep it."""
    file = io.BytesIO()
    soundfile.write(file, audio, sample_rate, format="WAV", subtype="PCM_16")
    source = AudioSource("memory", [0], file.getvalue())
    return Recording(name, [source], sample_rate, len(audio), len(audio) / sample_rate)
