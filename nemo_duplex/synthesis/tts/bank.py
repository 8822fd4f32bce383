"""Utterances on disk, each spoken once: what a slow engine has said is read the next time.

<bank>/<engine> <version>/<ab>/<hash>.flac    16 bits; words and language are in its comment, as JSON

The hash is of everything that an utterance depends on: text, voice, engine and version. So many processes may use one bank at
once, a run that is killed loses one utterance at most, and a new version of an engine does not find what the old one said.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from nemo_duplex.conversation import Word
from nemo_duplex.files.atomic import whole_file
from nemo_duplex.frames import Seconds
from nemo_duplex.synthesis.tts.utterance import SpeechEngine, Utterance, Voice

_FORMAT = 2  # of the files; part of the hash


@dataclass(frozen=True)
class KeptUtterance:
    """What a bank has, without the sound.

    Args:
        path: of the file.
        text: what is said.
        duration: in seconds.
        words: [text, offset, start, end] of each.
        language: that was spoken.

    Examples:
        >>> from nemo_duplex.synthesis.tts.espeak import EspeakEngine
        >>> kept = Bank(Path("bank")).keep("Good day.", Voice("agent", "en-us"), EspeakEngine())
        >>> kept.path.suffix, kept.text, [word[:2] for word in kept.words]
        ('.flac', 'Good day.', [['Good', 0], ['day', 5]])
    """

    path: Path
    text: str
    duration: Seconds
    words: list[list[Any]]
    language: str | None


class Bank:
    """A folder of utterances.

    Args:
        folder: made when the first utterance is kept.

    Examples:
        >>> from nemo_duplex.synthesis.tts.espeak import EspeakEngine
        >>> bank, engine = Bank(Path("bank")), EspeakEngine()
        >>> first, again = (bank.utterance("Good day.", Voice("agent", "en-us"), engine) for _ in range(2))
        >>> np.array_equal(first.audio, again.audio), first.words == again.words
        (True, True)
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def utterance(self, text: str, voice: Voice, engine: SpeechEngine) -> Utterance:
        """What `engine` says, in samples of 16 bits: read, or spoken and kept.

        Raises:
            InputError: if the engine cannot say it.
            OSError: if the bank cannot be written.
        """
        path = self.path(text, voice, engine)
        if path.is_file() and (kept := _read(path, text)) is not None:
            return kept
        return self._spoken(path, text, voice, engine)

    def keep(self, text: str, voice: Voice, engine: SpeechEngine) -> KeptUtterance:
        """What the bank has of an utterance, which `engine` speaks if it is not there. Raises as `utterance`."""
        if (kept := self.kept(text, voice, engine)) is not None:
            return kept
        path = self.path(text, voice, engine)
        spoken = self._spoken(path, text, voice, engine)
        return KeptUtterance(path, text, spoken.duration, _word_rows(spoken), spoken.language)

    def kept(self, text: str, voice: Voice, engine: SpeechEngine) -> KeptUtterance | None:
        """What the bank has of an utterance; None if it is not there or damaged."""
        path = self.path(text, voice, engine)
        if not path.is_file() or (found := _samples(path, text)) is None:
            return None
        samples, rate, about = found
        return KeptUtterance(path, text, len(samples) / rate, about["words"], about["language"])

    def _spoken(self, path: Path, text: str, voice: Voice, engine: SpeechEngine) -> Utterance:
        spoken = in_16_bits(engine.speak(text, voice))
        _write(path, spoken)
        return spoken

    def path(self, text: str, voice: Voice, engine: SpeechEngine) -> Path:
        """The file of an utterance, whether it is there or not."""
        made_of = {"format": _FORMAT, "text": text, "voice": asdict(voice), "engine": [engine.name, engine.version]}
        digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]
        return self._folder / f"{engine.name} {engine.version}" / digest[:2] / f"{digest}.flac"


def in_16_bits(spoken: Utterance) -> Utterance:
    """The utterance with its samples rounded to 16 bits, as a bank keeps it."""
    samples = np.clip(np.round(spoken.audio * 32768), -32768, 32767).astype(np.int16)
    return Utterance(spoken.text, samples.astype(np.float32) / 32768, spoken.sample_rate, spoken.words, spoken.language)


def _write(path: Path, spoken: Utterance) -> None:
    samples = np.round(spoken.audio * 32768).astype(np.int16)
    about = {
        "text": spoken.text,
        "words": _word_rows(spoken),
        "language": spoken.language,
        "crc32": zlib.crc32(samples.tobytes()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        whole_file(path) as unfinished,
        soundfile.SoundFile(unfinished, "w", spoken.sample_rate, 1, subtype="PCM_16", format="FLAC") as file,
    ):
        file.comment = json.dumps(about)
        file.write(samples)


def _word_rows(spoken: Utterance) -> list[list[Any]]:
    return [[word.text, word.offset, word.start, word.end] for word in spoken.words]


def _read(path: Path, text: str) -> Utterance | None:
    """A kept utterance; None if the file is damaged, or no utterance: it is made again."""
    if (found := _samples(path, text)) is None:
        return None
    samples, rate, about = found
    return Utterance(text, samples.astype(np.float32) / 32768, rate, tuple(Word(*w) for w in about["words"]), about["language"])


def _samples(path: Path, text: str) -> tuple[np.ndarray, int, dict[str, Any]] | None:
    """Samples (S,) int16, their rate, and what the comment says; None if the file is damaged, or of another text."""
    try:
        with soundfile.SoundFile(path) as file:
            about = json.loads(file.comment)
            samples = file.read(dtype="int16")
            is_whole = zlib.crc32(samples.tobytes()) == about["crc32"] and about["text"] == text
            is_known = all(len(word) == 4 for word in about["words"]) and "language" in about
            return (samples, file.samplerate, about) if is_whole and is_known else None
    except (soundfile.SoundFileError, ValueError, KeyError, TypeError):
        return None
