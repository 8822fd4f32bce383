"""A user's turn that begins with a recording: what a person said, then the spoken question about it (paper, section 4.1)."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from nemo_duplex.conversation import Word
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.frames import USER_SAMPLE_RATE
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.mix import resample
from nemo_duplex.synthesis.text.sources import UserRecording
from nemo_duplex.synthesis.tts.utterance import Utterance

_PEAK = 0.99
_WINDOW = USER_SAMPLE_RATE // 50  # 20 ms
_QUIET = 10 ** (-30 / 10)  # windows of less than the loudest by 30 dB are no speech: they do not count for the level
_CHANGED = "Import the text again: the recording was replaced after it."


def with_question(recording: UserRecording, question: Utterance) -> Utterance:
    """The recording, a gap, and the question, at 16 kHz and as loud as each other.

    Raises:
        OddRow: if the recording is missing, changed since it was imported, or silent.

    Returns:
        Their texts with a blank between; the question's words with their times, and the recording's where it has an alignment.
    """
    first, second = recorded(recording), _at_rate(question)
    audio = first.audio * (_level(second.audio) / _level(first.audio))
    gap = np.zeros(round(recording.gap * USER_SAMPLE_RATE), np.float32)
    joined = np.concatenate([audio, gap, second.audio])
    joined *= min(1.0, _PEAK / max(float(np.abs(joined).max()), _PEAK))
    start, offset = (len(first.audio) + len(gap)) / USER_SAMPLE_RATE, len(first.text) + 1
    words = tuple(replace(word.shifted(start), offset=word.offset + offset) for word in second.words)
    return Utterance(f"{first.text} {second.text}", joined, USER_SAMPLE_RATE, first.words + words, question.language)


def recorded(recording: UserRecording) -> Utterance:
    """What a person said, at 16 kHz, without silence around it.

    Raises:
        OddRow: if the recording is missing, changed since it was imported, or silent.
    """
    path = Path(recording.path)
    try:
        if recording.tar is None:
            if path.stat().st_size != recording.size:
                raise OddRow("a recording that has changed", str(path), _CHANGED)
            audio, rate = _samples(path, recording)
        else:
            with open(path, "rb") as file:
                file.seek(recording.tar[0])
                audio, rate = _samples(io.BytesIO(file.read(recording.tar[1])), recording)
    except (OSError, soundfile.LibsndfileError) as error:
        raise OddRow("a recording that cannot be read", f"{path}: {error}", _CHANGED) from None
    try:
        if not np.isfinite(audio).all():
            raise InputError("its samples are not finite")
        return Utterance(recording.text, resample(audio, rate, USER_SAMPLE_RATE), USER_SAMPLE_RATE, _words(recording))
    except InputError as error:
        raise OddRow("a recording without a sound", f"{path}: {error}", "Leave the recording out of the manifest.") from None


def _samples(file: Path | io.BytesIO, recording: UserRecording) -> tuple[np.ndarray, int]:
    with soundfile.SoundFile(file) as audio:
        rate = audio.samplerate
        audio.seek(min(round(recording.start * rate), audio.frames))
        samples = audio.read(round(recording.duration * rate), dtype="float32", always_2d=True)
    return samples[:, recording.channel or 0], rate


def _words(recording: UserRecording) -> tuple[Word, ...]:
    """The aligned words, each where it stands in the text; none if one of them does not."""
    words, at, text = [], 0, recording.text.casefold()
    for symbol, start, end in recording.words:
        found = text.find(symbol.casefold(), at)
        if found < 0:
            return ()
        words.append(Word(recording.text[found : found + len(symbol)], found, start, end))
        at = found + len(symbol)
    return tuple(words)


def _at_rate(spoken: Utterance) -> Utterance:
    audio = resample(spoken.audio, spoken.sample_rate, USER_SAMPLE_RATE)
    return replace(spoken, audio=audio, sample_rate=USER_SAMPLE_RATE)


def _level(audio: np.ndarray) -> float:
    """The RMS of the speech in (S,)."""
    windows = np.square(audio[: len(audio) // _WINDOW * _WINDOW].reshape(-1, _WINDOW), dtype=np.float64).mean(axis=1)
    windows = windows if len(windows) else np.square(audio, dtype=np.float64).mean(keepdims=True)
    return float(np.sqrt(windows[windows >= windows.max() * _QUIET].mean()))
