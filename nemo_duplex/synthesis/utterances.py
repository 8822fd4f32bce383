"""The agent's voice alone: single utterances, for a codec to learn it from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from lhotse import MonoCut, SupervisionSegment

from nemo_duplex.frames import AGENT_SAMPLE_RATE
from nemo_duplex.synthesis.dialogue_cuts import recording_of
from nemo_duplex.synthesis.mix import resample
from nemo_duplex.synthesis.tts.espeak import EspeakEngine
from nemo_duplex.synthesis.tts.utterance import SpeechEngine
from nemo_duplex.synthesis.tts.voices import AGENT_VOICE, voice_data


def agent_utterances(texts: Iterable[str], engine: SpeechEngine | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """Each text, and the agent saying it: (S,) float32 at 22.05 kHz. The same text is the same samples, always.

    Args:
        engine: default: eSpeak NG, as in a corpus.

    Raises:
        InputError: if eSpeak NG is not installed, or makes no sound of a text.
    """
    engine = engine or EspeakEngine(voice_data())
    for text in texts:
        spoken = engine.speak(text, AGENT_VOICE)
        yield text, resample(spoken.audio, spoken.sample_rate, AGENT_SAMPLE_RATE)


def utterance_cut(name: str, text: str, audio: np.ndarray) -> MonoCut:
    """A cut of one agent utterance, (S,) float32 at 22.05 kHz."""
    recording = recording_of(name, audio, AGENT_SAMPLE_RATE)
    supervision = SupervisionSegment(name, name, 0.0, recording.duration, text=text, speaker="agent", language="en")
    return MonoCut(name, 0.0, recording.duration, 0, recording=recording, supervisions=[supervision])
