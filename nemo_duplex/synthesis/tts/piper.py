"""Piper voices by path: `piper:/voices/en_US-joe-medium.onnx`, with its `.onnx.json` beside it.

A few lines on onnxruntime in place of the package piper-tts (GPL-3): phonemes by our eSpeak, ids by the table of the voice. The
network (VITS) draws noise inside its graph, from a state that every call changes; so both noise scales are 0, which makes the
same text the same samples. The voice is a little plainer for it.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, existing_file, one_line
from nemo_duplex.synthesis.tts.cast import EngineVoices, every_fifth_for_dev, with_users
from nemo_duplex.synthesis.tts.espeak import EspeakEngine
from nemo_duplex.synthesis.tts.languages import foreign_words, tag
from nemo_duplex.synthesis.tts.onnx_graph import onnxruntime_version, session
from nemo_duplex.synthesis.tts.readable import readable
from nemo_duplex.synthesis.tts.utterance import OWN_RATE, Utterance, Voice

_BEGIN, _END, _BETWEEN = "^", "$", "_"  # in the table of phonemes
_SENTENCE = re.compile(r"[^.!?]+(?:[.!?]+(?=\s|$)|$)|[^.!?]*[.!?]+")
_CLAUSE = re.compile(r"([,;:.!?])[\s,;:.!?]*")
_OTHER_LANGUAGE = re.compile(r"\([^)]*\)")  # eSpeak's mark where it changes the language
_BETWEEN_SENTENCES: Seconds = 0.2


class PiperEngine:
    """Speaks with a Piper voice.

    Args:
        path: of the ONNX model; the description is beside it, with `.json` at its end.

    Raises:
        NotInstalled: without onnxruntime.
        InputError: if one of the files is missing or is none of a Piper voice.
    """

    def __init__(self, path: Path) -> None:
        model = existing_file(path, "piper").read_bytes()
        described = existing_file(f"{path}.json", "piper")
        try:
            description = json.loads(described.read_text(encoding="utf-8"))
            self.sample_rate = int(description["audio"]["sample_rate"])
            self._language = str(description["espeak"]["voice"])
            self._length = float(description["inference"]["length_scale"])
            self._ids: dict[str, list[int]] = {key: list(ids) for key, ids in description["phoneme_id_map"].items()}
            self._between, begin, end = (self._ids[key] for key in (_BETWEEN, _BEGIN, _END))
            self._around = begin, end
            self.speakers = dict(description.get("speaker_id_map") or {})
            if not self.speakers and description["num_speakers"] > 1:
                self.speakers = {str(number): number for number in range(description["num_speakers"])}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{described} is no description of a Piper voice: {type(error).__name__} {one_line(error)}."
            ) from None
        if description.get("phoneme_type", "espeak") != "espeak":
            raise InputError(
                f"{described}: phonemes of the type {description['phoneme_type']!r}; expected a voice with those of eSpeak."
            )
        self._espeak = EspeakEngine()
        self.name = f"piper-{path.stem}"
        digest = hashlib.sha256(model + described.read_bytes()).hexdigest()[:8]
        self.version = f"{digest} onnxruntime {onnxruntime_version()} espeak {self._espeak.version}"
        try:
            self._session: Any = session(model)
        except Exception as error:  # onnxruntime has a class for each reason
            raise InputError(f"{path} is no model that onnxruntime can run: {one_line(error)}") from None

    def speak(self, text: str, voice: Voice) -> Utterance:
        """Says `text` with the speaker `voice.name`, with the same samples every time.

        Raises:
            InputError: if it does not know the speaker, or cannot say the text (`cannot_say`).
        """
        if voice.name not in (self.speakers or {""}):
            known = ", ".join(list(self.speakers)[:5]) or "one without a name"
            raise InputError(f"{self.name} has no speaker {voice.name!r} (speaker {voice.id}): expected one of {known}.")
        if (reason := self.cannot_say(text, voice)) is not None:
            raise InputError(reason)
        length = self._length * OWN_RATE / voice.rate
        pause = np.zeros(round(_BETWEEN_SENTENCES * self.sample_rate), np.float32)
        sentences = [s for s in _SENTENCE.findall(readable(text)) if any(map(str.isalnum, s))]
        parts = [[self._say(self._phoneme_ids(sentence), length, voice.name), pause] for sentence in sentences]
        return Utterance(text, np.concatenate(list(chain(*parts))), self.sample_rate, language=tag(self._language))

    def cannot_say(self, text: str, voice: Voice) -> str | None:
        """Why the voice cannot say the text: it has one language, and what eSpeak does not read it does not read either."""
        if voice.language is not None and tag(voice.language.lower()) not in (tag(self._language), "und"):
            return f"{self.name} has no language {voice.language!r}: it speaks {tag(self._language)}."
        if foreign := foreign_words(readable(text), tag(self._language)):
            return f"{self.name} does not read {foreign[0][:30]!r}: write it in the letters of {tag(self._language)}."
        return self._espeak.cannot_say(text, Voice(voice.id, self._language))

    def _phoneme_ids(self, sentence: str) -> np.ndarray:
        """(1, T) int64: the phonemes with the punctuation between them, a blank behind each."""
        letters = ""
        pieces = _CLAUSE.split(sentence.strip())
        for clause, mark in zip(pieces[::2], [*pieces[1::2], ""]):
            said = _OTHER_LANGUAGE.sub("", self._espeak.phonemes(clause, self._language)) if clause.strip() else ""
            letters += said.replace("_", "").strip() + mark + (" " if mark else "")
        ids = list(self._around[0]) + list(self._between)
        for letter in unicodedata.normalize("NFD", " ".join(letters.split())):
            if letter not in self._ids:
                raise InputError(f"{self.name} has no phoneme {letter!r}, which is in {sentence[:40]!r}: write it otherwise.")
            ids += self._ids[letter] + self._between
        return np.array([ids + list(self._around[1])], np.int64)

    def _say(self, ids: np.ndarray, length: float, speaker: str) -> np.ndarray:
        inputs: dict[str, np.ndarray] = {
            "input": ids,
            "input_lengths": np.array([ids.shape[1]], np.int64),
            "scales": np.array([0.0, length, 0.0], np.float32),  # noise of the sound, length, noise of the lengths
        }
        if self.speakers:
            inputs["sid"] = np.array([self.speakers[speaker]], np.int64)
        (audio,) = self._session.run(None, inputs)
        return np.clip(audio.reshape(-1), -1.0, 1.0).astype(np.float32)


def piper_voices(path: str | None) -> EngineVoices:
    """A Piper voice with its speakers; of five or more, every fifth is one of dev. Raises as `PiperEngine`."""
    if not path:
        raise InputError("piper: expected a path, such as piper:/voices/en_US-joe-medium.onnx")
    engine = PiperEngine(Path(path))
    names = list(engine.speakers) or [""]
    users = [Voice("-".join(filter(None, (engine.name, name))), name, engine=engine.name) for name in names]
    agent = Voice("agent", names[0], engine=engine.name)
    return with_users(engine, agent, *every_fifth_for_dev(users))
