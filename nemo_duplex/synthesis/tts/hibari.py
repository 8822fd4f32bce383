"""hibari: a small, fast, human-sounding voice of an American woman. The agent's voice.

Its network predicts how long each phoneme lasts and the spectra of the frames; a filter makes the waveform of them. Its wheel
has one voice; the others would be downloads.
"""

from __future__ import annotations

import zlib

import numpy as np

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.tts.cast import EngineVoices
from nemo_duplex.synthesis.tts.english_phonemes import HIBARI, PHONEME_UNIT, EnglishPhonemes
from nemo_duplex.synthesis.tts.onnx_graph import onnxruntime_version, session, with_output
from nemo_duplex.synthesis.tts.utterance import OWN_RATE, Utterance, Voice
from nemo_duplex.synthesis.tts.word_times import word_times

#: The voice in the wheel.
AGENT_VOICE = Voice("agent", "heart", engine="hibari")

_DURATIONS = "/Clip_output_0"  # of the phonemes, in the model's graph


class HibariEngine:
    """Speaks English with hibari.

    Raises:
        NotInstalled: if its package is missing.
        InputError: if one of its files has other content.

    Examples:
        >>> spoken = HibariEngine().speak("Good day, my friend.", AGENT_VOICE)
        >>> [(word.text, round(word.start, 2)) for word in spoken.words]
        [('Good', 0.0), ('day', 0.19), ('my', 0.52), ('friend', 0.69)]
    """

    name = "hibari"
    sample_rate = 24000

    def __init__(self) -> None:
        self.version = f"{HIBARI.version} onnxruntime {onnxruntime_version()}"
        self._phonemes = EnglishPhonemes()
        from hibari.dsp import synth

        self._session = session(with_output(HIBARI.path("hibari/assets/hibari.onnx").read_bytes(), _DURATIONS))
        self._waveform = synth

    def speak(self, text: str, voice: Voice) -> Utterance:
        """Says `text`, with the same samples every time.

        Raises:
            InputError: if it does not know the voice, or cannot say the text (`cannot_say`).
        """
        if voice.name != AGENT_VOICE.name:
            raise InputError(f"hibari has no voice {voice.name!r} (speaker {voice.id}): expected {AGENT_VOICE.name!r}.")
        if (reason := self.cannot_say(text, voice)) is not None:
            raise InputError(reason)
        noise = np.random.default_rng(zlib.crc32(f"{voice.id}|{text}".encode()))
        speed = np.array([voice.rate / OWN_RATE], np.float32)
        per_unit = round(PHONEME_UNIT * self.sample_rate)
        audio: list[np.ndarray] = []
        onsets: dict[int, int] = {}
        for run in self._phonemes.runs(text):
            *spectra, durations = self._session.run(None, {"ids": np.array([run.ids]), "speed": speed})
            onsets |= run.onsets(durations, per_unit, sum(map(len, audio)))
            audio.append(self._waveform(*(spectrum[0] for spectrum in spectra), noise))
        whole = np.concatenate(audio)
        return Utterance(text, whole, self.sample_rate, word_times(text, onsets, len(whole), self.sample_rate), "en")

    def cannot_say(self, text: str, voice: Voice) -> str | None:
        """Why hibari cannot say `text`: a sentence with the culprit and a cure; None if it can. Nothing is said."""
        return self._phonemes.cannot_say(text, voice.language, self.name)


def hibari_voices() -> EngineVoices:
    """hibari with its one voice, the agent's.

    Raises:
        NotInstalled: if its package is missing.
    """
    return EngineVoices(HibariEngine(), AGENT_VOICE, {"train": 0, "dev": 0}, lambda split, number: AGENT_VOICE)
