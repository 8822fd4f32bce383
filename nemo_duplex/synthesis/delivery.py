"""How a user says a turn: with pauses, hesitations, or the first words twice. Cut and pasted from utterances of one voice.

    What is | the capital of France?                       a pause
    What is ... um ... the capital of France?              a sound: in the audio, not in the text
    What is - let me think - the capital of France?        words: in the audio and in the text
    What is, What is the capital of France?                the first words said again: in both

An encoder that learns to transcribe writes words and no sounds, as recognisers do: that is what the text says. Words that are
heard and stand in no text would teach it to leave words out, which it cannot know before the turn goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from nemo_duplex.frames import Seconds, Span
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec
from nemo_duplex.synthesis.mix import resample
from nemo_duplex.synthesis.text.sources import LONGEST_TURN
from nemo_duplex.synthesis.text.spontaneous import HESITATION_SOUNDS, HESITATION_WORDS, phrases_for
from nemo_duplex.synthesis.tts.utterance import PAUSE_FADE, Utterance

_MOST_SAID_AGAIN = 3  # words


@dataclass(frozen=True)
class Delivery:
    """An utterance with what was done to it.

    Args:
        utterance: as it is said.
        pauses: in it, silent.
        hesitations: in it, with what is heard.
        longest: what would make it longer is not done.
    """

    utterance: Utterance
    pauses: tuple[Span, ...] = ()
    hesitations: tuple[tuple[Seconds, Seconds, str], ...] = ()
    longest: Seconds = LONGEST_TURN

    def paused(self, offset: int, length: Seconds) -> Delivery:
        """With a pause before the word at a character of the text; as it is where the engine knows no such word."""
        word = next((word for word in self.utterance.words[1:] if word.offset == offset), None)
        if word is None or self.utterance.duration + length > self.longest:
            return self
        paused = self.utterance.with_pause(offset, length)
        by = paused.duration - self.utterance.duration
        earlier = self._moved(word.start, by)
        return replace(earlier, utterance=paused, pauses=(*earlier.pauses, (word.start, word.start + by)))

    def hesitant(
        self, offset: int, heard: Utterance, silence: tuple[Seconds, Seconds], written: str = "", again: bool = False
    ) -> Delivery:
        """With a hesitation before the word at a character of the text, or before the first.

        Args:
            offset: of the word; 0 for the first.
            heard: what is inserted.
            silence: before it, if it is not at the start, and after it.
            written: what is inserted in the text, at `offset`; its words are those of `heard`, which are in it as they are.
            again: whether what is heard are the first words of the turn.
        """
        turn, rate = self.utterance, self.utterance.sample_rate
        word = next((word for word in turn.words if word.offset == offset), None) if offset else None
        at = round(word.start * rate) if word else 0
        before, after = (np.zeros(round(length * rate), dtype=np.float32) for length in silence)
        sound = resample(heard.audio, heard.sample_rate, rate)
        piece = np.concatenate([before[: len(before) if at else 0], sound, after])
        fade = round(PAUSE_FADE * rate) if at else 0
        first, last = _faded(turn.audio[:at], fade, end=True), _faded(turn.audio[at:], fade, end=False)
        start = (at + (len(before) if at else 0)) / rate
        by = len(piece) / rate
        moved = tuple(
            replace(w, offset=w.offset + len(written), start=w.start + by, end=w.end + by) if w.offset >= offset else w
            for w in turn.words
        )
        inserted = tuple(
            replace(w.shifted(start), offset=offset + written.lower().index(heard.text.lower()) + w.offset)
            for w in (heard.words if written else ())
        )
        text = turn.text[:offset] + written + turn.text[offset:]
        words = tuple(sorted((*moved, *inserted), key=lambda w: w.offset))
        audio = np.concatenate([first, piece, last])
        said = replace(turn, text=text, audio=audio, words=words)
        if said.duration > self.longest or not np.array_equal(said.audio[:rate], audio[: min(rate, len(said.audio))]):
            return self  # too long; or so soft at its start that an utterance does not begin there
        event = (start, start + len(sound) / rate, f"{heard.text} (again)" if again else heard.text)
        later = self._moved(at / rate, by)
        return replace(later, utterance=said, hesitations=(*later.hesitations, event))

    def _moved(self, at: Seconds, by: Seconds) -> Delivery:
        """The events from `at` on, `by` later."""
        edge = at - 1e-6
        pauses = tuple((s + by, e + by) if s >= edge else (s, e) for s, e in self.pauses)
        hesitations = tuple((s + by, e + by, t) if s >= edge else (s, e, t) for s, e, t in self.hesitations)
        return replace(self, pauses=pauses, hesitations=hesitations)


def places_within_sentences(utterance: Utterance) -> list[int]:
    """Characters of an utterance's text at which a word begins that begins no sentence."""
    text = utterance.text
    return [w.offset for w in utterance.words[1:] if not re.search(r"[.?!…]\W*$", text[: w.offset])]


def deliver(
    delivery: Delivery,
    marked: tuple[int, ...],
    language: str | None,
    spec: DialogueSpec,
    speak: Callable[[str], Utterance],
    rng: np.random.Generator,
) -> Delivery:
    """The turn with further pauses and a hesitation, as they are drawn.

    Args:
        delivery: of the turn, perhaps with a first pause.
        marked: where the source allows pauses.
        language: of the turn; None: by its script.
        spec: how many there are.
        speak: says a text in the voice of the user.
        rng: that draws.
    """
    anywhere = spec.pause_places == "any"
    places = places_within_sentences(delivery.utterance) if anywhere else list(marked)
    first = anywhere and rng.random() < spec.pause
    further = int(rng.integers(spec.pauses)) if first or delivery.pauses else 0
    for _ in range(first + further if places else 0):
        offset, length = places[int(rng.integers(len(places)))], float(rng.uniform(*spec.pause_length))
        word = next((w for w in delivery.utterance.words if w.offset == offset), None)
        if word is not None and all(abs(word.start - end) > 1e-6 for _, end in delivery.pauses):
            delivery = delivery.paused(offset, length)
    if rng.random() < spec.events.hesitation:
        delivery = _hesitant(delivery, language, spec, speak, rng)
    return delivery


def _hesitant(
    delivery: Delivery, language: str | None, spec: DialogueSpec, speak: Callable[[str], Utterance], rng: np.random.Generator
) -> Delivery:
    turn = delivery.utterance
    kind = str(rng.choice(["sound", "sound", "words", "again"]))
    silence = (float(rng.uniform(*spec.events.hesitation_pause)), float(rng.uniform(*spec.events.hesitation_pause)))
    inside = places_within_sentences(turn)
    offset = inside[int(rng.integers(len(inside)))] if inside and rng.random() < 0.5 else 0
    if kind == "again":
        return _again(delivery, int(rng.integers(1, _MOST_SAID_AGAIN + 1)), silence)
    phrases = phrases_for(HESITATION_SOUNDS if kind == "sound" else HESITATION_WORDS, turn.text, language or turn.language)
    if not phrases:
        return delivery
    phrase = phrases[int(rng.integers(len(phrases)))]
    try:
        heard = speak(phrase)
    except InputError:  # a voice that cannot say it hesitates otherwise
        return delivery
    if kind == "sound":
        return delivery.hesitant(offset, heard, silence)
    if not offset:
        return delivery.hesitant(0, heard, silence, f"{phrase[0].upper()}{phrase[1:]}. ")
    return delivery.hesitant(offset, heard, silence, f"- {phrase} - ")


def _again(delivery: Delivery, most: int, silence: tuple[Seconds, Seconds]) -> Delivery:
    """With the first words said twice; as it is where there are no word times, or no words after them in the sentence."""
    turn, rate = delivery.utterance, delivery.utterance.sample_rate
    ends = [offset for offset in places_within_sentences(turn) if not re.search(r"[.?!…]", turn.text[:offset])][:most]
    if not ends:
        return delivery
    until = next(w for w in turn.words if w.offset == ends[-1]).start
    samples = round(min([until, *(start for start, _ in delivery.pauses)]) * rate)
    words = tuple(w for w in turn.words if w.end <= samples / rate + 1e-6)
    if not words:
        return delivery
    text = turn.text[: words[-1].offset + len(words[-1].text)]
    heard = replace(turn, text=text, audio=_faded(turn.audio[:samples], round(PAUSE_FADE * rate), end=True), words=words)
    return delivery.hesitant(0, heard, silence, f"{text}, ", again=True)


def _faded(audio: np.ndarray, samples: int, end: bool) -> np.ndarray:
    """(S,) with a fade at its end, or at its start, so that it does not click."""
    audio = audio.copy()
    ramp = np.linspace(0.0, 1.0, min(len(audio), samples), dtype=np.float32)
    if end:
        audio[len(audio) - len(ramp) :] *= ramp[::-1]
    else:
        audio[: len(ramp)] *= ramp
    return audio
