"""What every text-to-speech engine is: it speaks a text in a voice, and returns an utterance with the times of its words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from nemo_duplex.conversation import Word
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError

#: A waveform that is cut without a fade clicks; a fade this short is not noticed.
PAUSE_FADE: Seconds = 0.005

# Speech and silence are told apart by the RMS of 5 ms: a single sample of noise is not speech, and 5 ms of a fricative are.
_WINDOW: Seconds = 0.005
# Silence is 50 dB below the loudest window. The softest fricative of eSpeak is 40 dB below it, the pauses of neural engines 60.
_SILENCE = 10 ** (-50 / 20)
# No speech is this soft against full scale, however soft the rest is: 16 bits keep hardly anything of it.
_INAUDIBLE = 10 ** (-80 / 20)
# A word may begin with the closure of a stop ("Tell" at 135 words per minute: 60 ms), which belongs to it. More is a pause.
_CLOSURE: Seconds = 0.065
# What stays of a pause: soft beginnings and ends of sounds are in it.
_MARGIN: Seconds = 0.010


#: Words per minute that mean the own pace of engines that know a factor only.
OWN_RATE = 160


@dataclass(frozen=True)
class Perturbation:
    """What makes another speaker of one, after the engine has spoken.

    Args:
        of: id of the voice that is changed.
        semitones: that the pitch rises.
        formants: factor of their frequencies; a shorter vocal tract has higher ones.
        speed: factor.

    Examples:
        >>> Perturbation("agent", semitones=-2.0).speed
        1.0
    """

    of: str
    semitones: float = 0.0
    formants: float = 1.0
    speed: float = 1.0


@dataclass(frozen=True)
class Voice:
    """A speaker of an engine.

    Args:
        id: names the speaker in the corpus; two voices with the same id sound the same.
        name: what the engine calls the voice.
        rate: words per minute; `OWN_RATE` is the own pace of engines that know a factor only.
        pitch, pitch_range: 0 to 100, 50 is the voice's own.
        language: of texts in its script, a tag such as `de` or its English name; None: what the engine takes a text for.
        engine: `name` of the engine that it belongs to.
        perturbation: what is changed of what the engine says in it; None: nothing.

    Examples:
        >>> Voice("agent", "en-us+klatt2", rate=150).pitch
        50
    """

    id: str
    name: str
    rate: int = OWN_RATE
    pitch: int = 50
    pitch_range: int = 50
    language: str | None = None
    engine: str = "espeak-ng"
    perturbation: Perturbation | None = None

    @property
    def unperturbed(self) -> Voice:
        """The voice in which the engine speaks, before the perturbation."""
        return self if self.perturbation is None else replace(self, id=self.perturbation.of, perturbation=None)


@dataclass(frozen=True)
class Utterance:
    """A text, spoken, without silence around the speech.

    Engines add silence before and after the speech: eSpeak 0.31 s after a quotation mark, others always. It is cut off here,
    where the utterances of all engines are made, because a turn lasts as long as its utterance: silence in it would be
    labelled as speech. The word times move with the speech. Pauses inside stay.

    Args:
        text: what is said.
        audio: (S,) floats in -1..1, kept as float32.
        sample_rate: Hz.
        words: times from the start of `audio`; none where the engine does not know them.
        language: that was spoken, a tag such as `en`; None where the engine does not know it.

    Raises:
        InputError: if the audio is silent, or is not a waveform of that form.

    Examples:
        >>> from nemo_duplex.conversation import Word
        >>> words = (Word("Good", 0, 0.25, 0.75), Word("day", 5, 0.75, 1.25))
        >>> audio = np.concatenate([np.zeros(4000), np.tile([1.0, -1.0], 8000), np.zeros(4000)])
        >>> spoken = Utterance("Good day", audio, 16000, words)
        >>> spoken.duration, round(spoken.words[0].start, 3), round(spoken.words[1].start, 3)
        (1.02, 0.01, 0.51)
        >>> spoken.with_pause(offset=5, length=0.25).duration
        1.27
    """

    text: str
    audio: np.ndarray
    sample_rate: int
    words: tuple[Word, ...] = ()
    language: str | None = None

    def __post_init__(self) -> None:
        audio = np.asarray(self.audio)
        if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating) or not np.isfinite(audio).all():
            raise InputError(
                f"The speech of {self.text!r} has the shape {audio.shape} and the type {audio.dtype}; "
                "an engine gives (S,) finite floats in -1..1."
            )
        first, end = _speech(audio, self.sample_rate)
        if first == end:
            raise InputError(f"The engine makes no sound of the text {self.text!r}: give it words to say.")
        by, last = first / self.sample_rate, (end - first) / self.sample_rate
        words = tuple(
            replace(w, start=min(max(w.start - by, 0.0), last), end=min(max(w.end - by, 0.0), last)) for w in self.words
        )
        object.__setattr__(self, "audio", audio[first:end].astype(np.float32, copy=False))
        object.__setattr__(self, "words", words)

    @property
    def duration(self) -> Seconds:
        return len(self.audio) / self.sample_rate

    def with_pause(self, offset: int, length: Seconds) -> Utterance:
        """The utterance with `length` Seconds of silence before the word at character `offset` of the text.

        Raises:
            ValueError: if no word after the first starts there, as always without word times.
        """
        word = next((w for w in self.words[1:] if w.offset == offset), None)
        if word is None:
            raise ValueError(f"No pause can go to character {offset} of {self.text!r}: no word after the first starts there.")
        at, fade = round(word.start * self.sample_rate), round(PAUSE_FADE * self.sample_rate)
        ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
        before, after = self.audio[:at].copy(), self.audio[at:].copy()
        before[-fade:] *= ramp[::-1][-len(before) :]
        after[:fade] *= ramp[: len(after)]
        silence = np.zeros(round(length * self.sample_rate), dtype=np.float32)
        by = len(silence) / self.sample_rate
        words = tuple(w if w.start < word.start else w.shifted(by) for w in self.words)
        return replace(self, audio=np.concatenate([before, silence, after]), words=words)


def _speech(audio: np.ndarray, sample_rate: int) -> tuple[int, int]:
    """The first sample of the speech in (S,) and the one behind its last; the same twice where there is none."""
    width = max(1, min(round(_WINDOW * sample_rate), len(audio)))
    total = np.concatenate([[0.0], audio.cumsum(dtype=np.float64)])
    energy = np.concatenate([[0.0], np.square(audio, dtype=np.float64).cumsum()])
    power = (energy[width:] - energy[:-width]) / width  # of the window that begins at each sample
    sound = power - ((total[width:] - total[:-width]) / width) ** 2  # without an offset, which some engines add to all samples
    power = sound if sound.max(initial=0.0) > _INAUDIBLE**2 else power
    loudest = power.max(initial=0.0)
    if loudest <= _INAUDIBLE**2:
        return 0, 0
    is_loud = power > max(_SILENCE**2 * loudest, _INAUDIBLE**2)
    both = is_loud[:-width] & is_loud[width:]  # a click is in one of two windows
    loud = np.flatnonzero(np.concatenate([both, np.zeros(width, bool)]) | np.concatenate([np.zeros(width, bool), both]))
    loud = loud if len(loud) else np.flatnonzero(is_loud)
    first, end = int(loud[0]) + width - 1, int(loud[-1]) + 1  # the samples that make these windows loud
    closure, margin = _CLOSURE * sample_rate, round(_MARGIN * sample_rate)
    return (
        0 if first <= closure else first - margin,
        len(audio) if len(audio) - end <= closure else end + margin,
    )


class SpeechEngine(Protocol):
    """A text-to-speech engine. Implement this to add one; `EspeakEngine` is the example.

    An engine that knows before it speaks what it cannot say also has a method `cannot_say(text, voice)`. It returns a sentence
    with the culprit and a cure, or None: rows of a file with such texts are left out before the synthesis starts.

    Attributes:
        name, version: are written into every cut; a corpus of another engine or version is not continued.
        sample_rate: Hz of what it speaks.
    """

    name: str
    version: str
    sample_rate: int

    def speak(self, text: str, voice: Voice) -> Utterance:
        """Says `text` in `voice`: a pure function, the same text and voice give the same samples.

        Raises:
            InputError: if it does not know the voice or makes no sound of the text.
        """
        ...
