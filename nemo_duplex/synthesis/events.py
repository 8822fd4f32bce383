"""What is heard in the user's channel beside the turns: nothing that an agent should answer, or stop for.

    user   |-- question --|        mhm     ~cough~      (to somebody else)     |-- next --|
    agent                  |--- answer ------------|
    others     ......................... a voice near by .......................

Each sound has a place in time, a level and an entry in the `events` of the cut. No kind depends on what is drawn for another.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.files.atomic import sha256
from nemo_duplex.frames import USER_SAMPLE_RATE, Seconds
from nemo_duplex.inputs import InputError, existing_folder, read_mono
from nemo_duplex.synthesis.dialogue_spec import Events
from nemo_duplex.synthesis.mix import resample
from nemo_duplex.synthesis.mouth_sounds import MOUTH_SOUNDS
from nemo_duplex.synthesis.text.sources import Split, TextSource
from nemo_duplex.synthesis.text.spontaneous import BACKCHANNELS, SIDE_TALK, phrases_for
from nemo_duplex.synthesis.tts.cast import Speakers
from nemo_duplex.synthesis.tts.utterance import Utterance, Voice

_APART: Seconds = 0.3  # between a sound of the user and a turn of the user
_PHRASE_END: Seconds = 1.0  # a backchannel waits so long for the end of a phrase
_SOUND_RATE = USER_SAMPLE_RATE
_UTTERANCES_OF_A_BABBLER = 3
_FROM_SOURCE = 0.3  # of what is said to others is what users of the source say
_MOST_DRAWN = 50  # voices, to find one that is not the user's
_MOST_BYTES = 64 << 20  # of recordings of noise in memory, 17 minutes, unless a single one is longer
_recordings: OrderedDict[Path, np.ndarray] = OrderedDict()
_SPAWN_KEY = 1000  # of the generators of events; smaller ones are those of turns and channels


@dataclass(frozen=True)
class Sound:
    """A sound that is no turn.

    Args:
        kind: as the event is called.
        speaker: `user`, or `other`.
        start: Seconds from the start of the conversation.
        audio: (S,) float32, of any level.
        sample_rate: Hz.
        level_db: its RMS against that of the user's turns.
        far: whether it comes from elsewhere in the room; else from the user's mouth.
        text: what is said, if anything.
    """

    kind: str
    speaker: str
    start: Seconds
    audio: np.ndarray
    sample_rate: int
    level_db: float
    far: bool = False
    text: str | None = None

    @property
    def end(self) -> Seconds:
        return self.start + len(self.audio) / self.sample_rate

    def event(self, duration: Seconds) -> dict[str, Any]:
        """For the `events` of a cut of that duration."""
        event: dict[str, Any] = {"kind": self.kind, "speaker": self.speaker}
        event |= {"start": round(self.start, 4), "end": round(min(self.end, duration), 4), "level_db": round(self.level_db, 2)}
        return event | ({"text": self.text} if self.text else {})


class EventSounds:
    """Draws the sounds of one dialogue.

    Args:
        spec: which there are.
        speakers: who speak.
        source: of the texts that are also said to others.
        split: of voices and texts.
        voice: of the user.
        seeds: of the dialogue.

    Attributes:
        language: of what is said, a tag; set it when it is known.
    """

    def __init__(
        self, spec: Events, speakers: Speakers, source: TextSource, split: Split, voice: Voice, seeds: Sequence[int]
    ) -> None:
        self._spec, self._speakers, self._source = spec, speakers, source
        self._split: Split = split
        self._voice, self._seeds = voice, seeds
        self.language: str | None = None
        self._side_talk: list[Sound] = []
        self._side_talk_rng = self._generator("side_talk")
        self._others: dict[int, Voice] = {}

    def _generator(self, kind: str) -> np.random.Generator:
        """The generator of a kind of sounds, and no other's."""
        number = int.from_bytes(hashlib.sha256(kind.encode()).digest()[:4], "big")
        return np.random.default_rng(np.random.SeedSequence(self._seeds, spawn_key=(_SPAWN_KEY, number)))

    def aside(self, exchange: int, end: Seconds) -> Seconds | None:
        """Perhaps talk to somebody else after an answer that ends at `end`; returns its end."""
        rng = self._side_talk_rng
        if rng.random() >= self._spec.side_talk:
            return None
        lead, level = rng.uniform(0.3, 1.2), rng.uniform(*self._spec.side_talk_db)
        spoken = self._say(self._for_others(rng))
        if spoken is None:
            return None
        self._side_talk.append(_spoken("side_talk", "user", end + lead, spoken, level, far=True))
        return self._side_talk[-1].end

    def of(self, conversation: Conversation) -> tuple[Sound, ...]:
        """All of a conversation that was scheduled with `aside`, in order of their start."""
        duration = conversation.duration
        found = [sound for sound in self._side_talk if sound.start < duration - 0.1]
        if not conversation.turns:
            found += self._alone(duration)
        for answer, free_until in _answers(conversation):
            found += self._during(answer, free_until, conversation)
        found += [sound for sound in self._voices_near_by(duration)]
        return tuple(sorted([*found, *self.background(duration)], key=lambda sound: (sound.start, sound.kind)))

    def background(self, duration: Seconds) -> list[Sound]:
        """What is heard throughout: other people, a recording of noise."""
        found = []
        if self._spec.babble and (rng := self._generator("babble")).random() < self._spec.babble:
            audio = self._babble(round(duration * _SOUND_RATE), rng)
            found.append(Sound("babble", "other", 0.0, audio, _SOUND_RATE, rng.uniform(*self._spec.babble_db), far=True))
        if self._spec.noise and (rng := self._generator("noise")).random() < self._spec.noise:
            assert self._spec.noise_folder is not None
            files = noise_files(self._spec.noise_folder)
            file = files[int(rng.integers(len(files)))]
            audio = _looped(_recording(file), round(duration * _SOUND_RATE), rng)
            level = rng.uniform(*self._spec.noise_db)
            found.append(Sound("noise", "other", 0.0, audio, _SOUND_RATE, level, far=True, text=file.name))
        return found

    # --- of the user --------------------------------------------------------------------------------------------------------

    def _during(self, answer: Turn, free_until: Seconds, conversation: Conversation) -> Iterator[Sound]:
        """Backchannels and coughs while the agent speaks."""
        spec, number = self._spec, int(answer.custom.get("exchange", 0))
        free = [answer.start, min(answer.end, free_until - _APART)]
        free[0] = max([free[0], *(t.end + _APART for t in conversation.user if t.start < answer.start)])
        taken: list[Sound] = []
        if spec.backchannel and (rng := self._generator(f"backchannel {number}")).random() < spec.backchannel:
            taken += self._backchannels(answer, free[0], free[1], rng)
        if spec.cough and (rng := self._generator(f"cough {number}")).random() < spec.cough:
            name = str(rng.choice(list(MOUTH_SOUNDS)))
            audio, level = MOUTH_SOUNDS[name](_SOUND_RATE, rng), rng.uniform(*spec.cough_db)
            latest = free[1] - len(audio) / _SOUND_RATE
            if latest > free[0]:
                sound = Sound("cough", "user", rng.uniform(free[0], latest), audio, _SOUND_RATE, level, text=name)
                if all(sound.end < other.start or other.end < sound.start for other in taken):
                    taken.append(sound)
        yield from taken

    def _backchannels(self, answer: Turn, start: Seconds, end: Seconds, rng: np.random.Generator) -> Iterator[Sound]:
        phrases = phrases_for(BACKCHANNELS, answer.text, answer.language or self.language)
        ends = [
            (word.end, answer.text[word.offset + len(word.text) :][:1] in (",", ".", ";", ":", "?", "!"))
            for word in answer.words
        ]
        at = max(start, answer.start + rng.uniform(*self._spec.backchannel_every))
        while phrases and at < end:
            phrase, level = phrases[int(rng.integers(len(phrases)))], rng.uniform(*self._spec.backchannel_db)
            near = [time for time, _ in ends if at <= time <= at + _PHRASE_END]
            of_phrases = [time for time, is_end in ends if is_end and at <= time <= at + _PHRASE_END]
            at = min(of_phrases or near or [at])
            spoken = self._say(phrase)
            if spoken is None or at + spoken.duration > end:
                return
            yield _spoken("backchannel", "user", at, spoken, level)
            at += max(rng.uniform(*self._spec.backchannel_every), spoken.duration + _APART)

    def _alone(self, duration: Seconds) -> Iterator[Sound]:
        """In a recording without turns."""
        spec = self._spec
        if spec.cough and (rng := self._generator("cough alone")).random() < spec.cough:
            name = str(rng.choice(list(MOUTH_SOUNDS)))
            audio = MOUTH_SOUNDS[name](_SOUND_RATE, rng)
            start = rng.uniform(0.0, max(duration - len(audio) / _SOUND_RATE, 0.0))
            yield Sound("cough", "user", start, audio, _SOUND_RATE, rng.uniform(*spec.cough_db), text=name)
        if spec.side_talk and (rng := self._generator("side_talk alone")).random() < spec.side_talk:
            if (spoken := self._say(self._for_others(rng))) is not None:
                start = rng.uniform(0.0, max(duration - spoken.duration, 0.0))
                yield _spoken("side_talk", "user", start, spoken, rng.uniform(*spec.side_talk_db), far=True)

    # --- of others ----------------------------------------------------------------------------------------------------------

    def _voices_near_by(self, duration: Seconds) -> Iterator[Sound]:
        if not self._spec.background_voice:
            return
        rng = self._generator("background_voice")
        if rng.random() >= self._spec.background_voice:
            return
        level, at = rng.uniform(*self._spec.background_voice_db), rng.uniform(0.0, 0.6 * duration)
        for _ in range(int(rng.integers(1, 4))):
            spoken = self._say(self._for_others(rng), other=0)
            if spoken is None or at + spoken.duration > duration:
                return
            yield _spoken("background_voice", "other", at, spoken, level, far=True)
            at += spoken.duration + rng.uniform(0.3, 2.5)

    def _babble(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        """(S,) of several people who talk at once, all equally loud."""
        low, high = self._spec.babble_voices
        phrases = phrases_for(SIDE_TALK, "", self.language) or SIDE_TALK["en"]
        babble = np.zeros(samples, dtype=np.float32)
        for voice in range(int(rng.integers(low, high + 1))):
            texts = [phrases[int(i)] for i in rng.integers(len(phrases), size=_UTTERANCES_OF_A_BABBLER)]
            spoken = [found for text in texts if (found := self._say(text, other=voice)) is not None]
            if spoken:
                said = np.concatenate([resample(s.audio, s.sample_rate, _SOUND_RATE) for s in spoken])
                babble += _looped(said / max(rms(said), 1e-9), samples, rng)
        return babble

    def _for_others(self, rng: np.random.Generator) -> str:
        """What is said to somebody else: a phrase, or what a user of the source says, so that words alone do not tell."""
        from_source, number = rng.random() < _FROM_SOURCE, rng.random()
        phrases = phrases_for(SIDE_TALK, "", self.language)
        if phrases and not from_source:
            return phrases[int(number * len(phrases))]
        exchanges = self._source.dialogue(self._split, int(rng.integers(1 << 31)), rng).exchanges
        return next((exchange.user for exchange in exchanges if exchange.user), SIDE_TALK["en"][0])

    def _say(self, text: str, other: int | None = None) -> Utterance | None:
        """A text in the voice of the user, or in that of somebody else, by number; None if that cannot say it."""
        voice = self._voice if other is None else self._other(other)
        try:
            return self._speakers.speak(text, replace(voice, language=self.language))
        except InputError:  # the sound is left out
            return None

    def _other(self, number: int) -> Voice:
        """A voice of somebody who is not the user, if there is one."""
        if number not in self._others:
            rng = self._generator(f"voice {number}")
            voices = (self._speakers.user(self._split, rng) for _ in range(_MOST_DRAWN))
            self._others[number] = next((voice for voice in voices if voice.id != self._voice.id), self._voice)
        return self._others[number]


def heard(sounds: Iterable[Sound], num_samples: int, sample_rate: int, far: bool) -> np.ndarray | None:
    """The sounds that are far, or those that are near, as a channel (S,) float32 in which the user's turns have an RMS of 1.

    None if there are none.
    """
    channel = None
    for sound in sounds:
        if sound.far != far:
            continue
        channel = np.zeros(num_samples, dtype=np.float32) if channel is None else channel
        audio = resample(sound.audio, sound.sample_rate, sample_rate)
        start = round(sound.start * sample_rate)
        audio = audio[: num_samples - start]
        channel[start : start + len(audio)] += audio * (10 ** (sound.level_db / 20) / max(rms(sound.audio), 1e-9))
    return channel


def events_of_channel(conversation: Conversation, done: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of what `user_channel` did, which are taken out of `done`: the agent's leaking voice, noise, lost packets."""
    duration, events = conversation.duration, []
    if (late := done.pop("leak_delay", None)) is not None:
        for turn in conversation.agent:
            start, end = turn.start + late, min(turn.end + late + done.get("leak_decay", 0.0), duration)
            if start < end:
                events.append({"kind": "leak", "speaker": "agent", "start": start, "end": end, "level_db": done["leak_db"]})
    if "noise" in done:
        level = done.get("noise_level_db", -done.get("noise_snr_db", 0.0))
        events.append(
            {"kind": "noise", "speaker": "other", "start": 0.0, "end": duration, "level_db": level, "text": done["noise"]}
        )
    for start, end in done.pop("lost", ()):
        events.append({"kind": "packet_loss", "speaker": "user", "start": start, "end": end})
    return [event | {"start": round(event["start"], 4), "end": round(event["end"], 4)} for event in events]


def rms(audio: np.ndarray) -> float:
    """Root mean square of the samples of (S,) that sound."""
    heard = audio[np.abs(audio) > 1e-3 * np.abs(audio).max(initial=0.0)]
    return float(np.sqrt(np.mean(np.square(heard)))) if len(heard) else 0.0


@lru_cache(maxsize=8)
def noise_files(folder: str, key: str = "events.noise_folder") -> tuple[Path, ...]:
    """The recordings of a folder, in order of their names; `key` names it in the error.

    Raises:
        InputError: if the folder is missing or has none.
    """
    found = existing_folder(folder, key)
    files = tuple(sorted(path for path in found.rglob("*") if path.suffix.lower() in (".wav", ".flac")))
    if not files:
        raise InputError(f"{key}: {folder} holds no WAV or FLAC files. Give a folder of recordings of noise.")
    return files


@lru_cache(maxsize=8)
def noise_digest(folder: str) -> str:
    """A hash that changes with the recordings of a folder, not with its path.

    Raises:
        InputError: as for `noise_files`.
    """
    root = Path(folder)
    files = [(path.relative_to(root).as_posix(), sha256(path)) for path in noise_files(folder)]
    return hashlib.sha256(repr(files).encode()).hexdigest()


def _recording(file: Path) -> np.ndarray:
    """(S,) float32 of a recording of noise. The last one is kept in memory, and those before it as far as they fit."""
    if file in _recordings:
        _recordings.move_to_end(file)
        return _recordings[file]
    audio = read_mono(file, USER_SAMPLE_RATE, "events.noise_folder")
    if not np.abs(audio).max(initial=0.0) > 0:
        raise InputError(f"events.noise_folder: {file} is silent. Remove it.")
    _recordings[file] = audio
    while len(_recordings) > 1 and sum(kept.nbytes for kept in _recordings.values()) > _MOST_BYTES:
        _recordings.popitem(last=False)
    return audio


def _looped(audio: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """(S,) of the audio from a place that is drawn, again and again."""
    begin = int(rng.integers(len(audio)))
    return np.resize(np.roll(audio, -begin), samples).astype(np.float32)


def _answers(conversation: Conversation) -> Iterator[tuple[Turn, Seconds]]:
    """Each turn of the agent with the start of the user's next one."""
    for answer in conversation.agent:
        yield (
            answer,
            min([t.start for t in conversation.user if t.start > answer.start], default=conversation.duration + _APART),
        )


def _spoken(kind: str, speaker: str, start: Seconds, spoken: Utterance, level_db: float, far: bool = False) -> Sound:
    return Sound(kind, speaker, float(start), spoken.audio, spoken.sample_rate, float(level_db), far, spoken.text)
