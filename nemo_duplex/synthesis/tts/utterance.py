"""What every text-to-speech engine is: it speaks a text in a voice, and returns an utterance with the times of its words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from nemo_duplex.conversation import Word
from nemo_duplex.frames import Seconds

#: A waveform that is cut without a fade clicks; a fade this short is not noticed.
PAUSE_FADE: Seconds = 0.005


@dataclass(frozen=True)
class Voice:
    """A speaker of an engine.

    Args:
        id: names the speaker in the corpus; two voices with the same id sound the same.
        name: what the engine calls the voice.
        rate: words per minute.
        pitch, pitch_range: 0 to 100, 50 is the voice's own.

    Examples:
        >>> Voice("agent", "en-us+klatt2", rate=150).pitch
        50
    """

    id: str
    name: str
    rate: int = 160
    pitch: int = 50
    pitch_range: int = 50


@dataclass(frozen=True)
class Utterance:
    """A text, spoken.

    Args:
        text: what is said.
        audio: (S,) float32 in -1..1, without silence around the speech.
        sample_rate: Hz.
        words: times from the start of the utterance; none where the engine does not know them.

    Examples:
        >>> from nemo_duplex.conversation import Word
        >>> words = (Word("Good", 0, 0.0, 0.5), Word("day", 5, 0.5, 1.0))
        >>> spoken = Utterance("Good day", np.zeros(16000, np.float32), 16000, words)
        >>> spoken.with_pause(offset=5, length=0.25).duration
        1.25
    """

    text: str
    audio: np.ndarray
    sample_rate: int
    words: tuple[Word, ...] = ()

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


class SpeechEngine(Protocol):
    """A text-to-speech engine. Implement this to add one; `EspeakEngine` is the example.

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
