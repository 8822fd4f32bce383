"""eSpeak NG in this process, by ctypes: 900 times faster than real time on one core, with the time of every word.

libespeak-ng is GPL-3 and comes as the optional wheel `espeakng-loader`; it is loaded at run time and never linked or shipped.
Two properties of the library shape this file (measured, eSpeak NG 1.52):

- Its state is global and leaks from one utterance into the next (phase, flutter, breath noise): the same text spoken four
  times gives four waveforms, and neither Cancel nor Terminate resets it. Unmapping the library does, so `speak` maps it
  again for every utterance (1 ms) and seeds its noise. That makes `speak` a pure function.
- It is not thread-safe at all, so one lock guards the process. Use processes to go faster.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from nemo_duplex.inputs import InputError, NotInstalled
from nemo_duplex.synthesis.tts.languages import Languages, language_of, tag
from nemo_duplex.synthesis.tts.readable import readable, why_unreadable
from nemo_duplex.synthesis.tts.utterance import Utterance, Voice
from nemo_duplex.synthesis.tts.word_times import word_spans, word_times

# Values of espeak-ng/speak_lib.h.
_SYNCHRONOUS, _BUFFER_MS, _DONT_EXIT = 2, 200, 0x8000
_POSITION_CHARACTER, _UTF8 = 1, 1
_IPA_WITH_BOUNDARIES = 2 | ord("_") << 8
_RATE, _PITCH, _RANGE = 1, 3, 4
_EVENT_END_OF_LIST, _EVENT_WORD = 0, 1


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_SHOWN = 60  # characters of a text in a message

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
_lock = threading.Lock()
_log = logging.getLogger(__name__)


def espeak_paths() -> tuple[Path, Path]:
    """The shared library and its data folder.

    Raises:
        NotInstalled: if the wheel is missing.
    """
    try:
        import espeakng_loader
    except ImportError:
        raise NotInstalled("The voices need eSpeak NG, which is not installed: pip install espeakng-loader") from None
    return Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())


class EspeakEngine:
    """Speaks with eSpeak NG, in about 80 languages.

    A text is said in the language that the voice names, or in its own, if that is written in the text's script; otherwise in
    the language of the script. The speaker stays the same: `en-us+klatt2` says Hindi as `hi+klatt2`.

    Args:
        data: a data folder of eSpeak, for example one with generated voices (`voices.py`); default: the wheel's own.

    Raises:
        InputError: if the wheel is not installed or the data folder does not work.
    """

    name = "espeak-ng"

    def __init__(self, data: Path | None = None) -> None:
        library, own_data = espeak_paths()
        self._path, self._data = str(library), Path(data or own_data)
        with self._mapped() as opened:
            self.version, self.sample_rate = opened.version, opened.sample_rate
        self._languages = Languages(self._data)
        self._phonemes: dict[tuple[str, str], str] = {}  # those that were asked for, by language and text: letters, mostly
        first, second = (self.speak("Hello.", Voice("self-test", "en-us+klatt2")).audio for _ in range(2))
        if not np.array_equal(first, second):
            _log.warning("eSpeak NG cannot be unloaded in this process: the same text is not the same samples twice.")

    def speak(self, text: str, voice: Voice) -> Utterance:
        """Says `text` in `voice`, with the same samples every time.

        Raises:
            InputError: if eSpeak does not know the voice, or cannot say the text (`cannot_say`).
        """
        self._check_voice(voice)
        if (reason := self.cannot_say(text, voice)) is not None:
            raise InputError(reason)
        language, name = self._language(text, voice)
        said = readable(text)
        with self._mapped() as library:
            samples, onsets = library.speak(said, replace(voice, name=name), seed=zlib.crc32(f"{voice.id}|{text}".encode()))
        audio = samples.astype(np.float32) / 32768
        if said != text:
            begins = [begin for begin, _ in word_spans(text)]
            onsets = {begin: onsets[at] for begin in begins if (at := len(readable(text[:begin]))) in onsets}
        return Utterance(text, audio, self.sample_rate, word_times(text, onsets, len(audio), self.sample_rate), tag(language))

    def cannot_say(self, text: str, voice: Voice) -> str | None:
        """Why eSpeak cannot say `text` in `voice`: a sentence with the culprit and a cure; None if it can. Nothing is said."""
        if not any(character.isalnum() for character in text):
            return f"eSpeak NG makes no sound of the text {text!r}: give it words to say."
        try:
            language, _ = self._language(text, voice)
        except InputError as error:
            return str(error)
        name = self._languages.name(language)
        reason = why_unreadable(readable(text), language, name, partial(self._phonemes_of, language))
        shown = text if len(text) <= _SHOWN else text[:_SHOWN].rstrip() + "..."
        return reason and f"eSpeak NG cannot say {shown!r}: {reason}."

    def phonemes(self, text: str, language: str) -> str:
        """What is said of a text in a language of eSpeak (`en-us`): letters of the IPA, "_" between phonemes."""
        return self._phonemes_of(language, [readable(text)])[0]

    def _language(self, text: str, voice: Voice) -> tuple[str, str]:
        """The language that a text is said in, and eSpeak's name of the voice in it."""
        accent, plus, variant = voice.name.partition("+")
        accent = self._languages.voice(accent) or accent
        own = accent.split("-")[0]
        named = self._languages.find(voice.language) if voice.language is not None else None
        language = language_of(readable(text), named or own)
        if language.split("-")[0] == own or language not in self._languages:
            return accent, f"{accent}{plus}{variant}"
        return language, f"{language}{plus}{variant}"

    def _phonemes_of(self, language: str, texts: Iterable[str]) -> list[str]:
        """The phonemes of each text, as eSpeak would say it alone."""
        keys = [(language, text) for text in texts]
        if unknown := [key for key in dict.fromkeys(keys) if key not in self._phonemes]:
            with self._mapped() as library:
                self._phonemes.update((key, library.phonemes(key[1], language)) for key in unknown)
        return [self._phonemes[key] for key in keys]

    @contextmanager
    def _mapped(self) -> Iterator[_Library]:
        """The library with a fresh state, for one thread."""
        with _lock:
            library = _Library(self._path, os.fsencode(self._data))
            try:
                yield library
            finally:
                library.close()

    def _check_voice(self, voice: Voice) -> None:
        """Refuses an unknown voice or variant.

        eSpeak would use the voice without the variant, and not say so. For a voice that has no file of its name it searches all
        files, which can end the process.
        """
        accent, plus, variant = voice.name.partition("+")
        if self._languages.voice(accent) is None:
            raise InputError(f"eSpeak NG has no voice {voice.name!r} (speaker {voice.id}).")
        if plus and not (self._data / "voices" / "!v" / variant).is_file():
            raise InputError(f"eSpeak NG has no voice variant {variant!r} (speaker {voice.id}) in {self._data}.")


class _Library:
    """One mapping of libespeak-ng into the process; `close` unmaps it, and its state with it."""

    def __init__(self, path: str, data: bytes) -> None:
        self._library = ctypes.CDLL(path)
        self.sample_rate = self._library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, data, _DONT_EXIT)
        if self.sample_rate <= 0:
            _unmap(self._library)  # while one mapping stays, utterances depend on those before them
            raise InputError(f"eSpeak NG cannot read its data folder {os.fsdecode(data)}: delete it; it is made again.")
        self._library.espeak_Info.restype = ctypes.c_char_p
        self.version = self._library.espeak_Info(None).decode().split()[0]
        self._samples: list[bytes] = []
        self._onsets: dict[int, int] = {}
        self._failure: BaseException | None = None
        self._callback = _Callback(self._receive)  # ctypes does not keep it alive
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count, events) -> int:
        """Called by eSpeak with a piece of audio and its events; returns whether to stop.

        ctypes drops what is raised here, also by Ctrl-C while eSpeak speaks; so it is kept for `speak` to raise.
        """
        try:
            if samples and count > 0:
                self._samples.append(ctypes.string_at(samples, 2 * count))
            for event in _until_end(events):
                if event.type == _EVENT_WORD:
                    self._onsets.setdefault(event.text_position - 1, event.sample)
        except BaseException as error:
            self._failure = error
        return 0 if self._failure is None else 1

    def speak(self, text: str, voice: Voice, seed: int) -> tuple[np.ndarray, dict[int, int]]:
        """(S,) int16, and for each word that eSpeak reports {its first character: its first sample}."""
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self._set_voice(voice.name, voice.id)
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        size = ctypes.c_size_t(len(data))
        failed = self._library.espeak_Synth(data, size, 0, _POSITION_CHARACTER, 0, _UTF8, None, None)
        assert not failed, f"espeak_Synth returned {failed} for {text!r}"
        self._library.espeak_Synchronize()
        if self._failure is not None:
            raise self._failure
        return np.frombuffer(b"".join(self._samples), np.int16), self._onsets

    def phonemes(self, text: str, voice: str) -> str:
        """What a voice would say, in letters of the IPA; "(en)" where it changes to another language."""
        self._set_voice(voice, "of phonemes")
        translate = self._library.espeak_TextToPhonemes
        translate.restype = ctypes.c_char_p
        buffer = ctypes.create_string_buffer(text.encode())
        rest = ctypes.c_void_p(ctypes.addressof(buffer))
        clauses = []
        while rest.value:  # one clause at a time; None after the last
            clauses.append((translate(ctypes.byref(rest), _UTF8, _IPA_WITH_BOUNDARIES) or b"").decode(errors="replace"))
        return " ".join(clauses)

    def _set_voice(self, name: str, speaker: str) -> None:
        if self._library.espeak_SetVoiceByName(name.encode()):
            raise InputError(f"eSpeak NG has no voice {name!r} (speaker {speaker}).")

    def close(self) -> None:
        self._library.espeak_Terminate()
        _unmap(self._library)


def _until_end(events):
    i = 0
    while events[i].type != _EVENT_END_OF_LIST:
        yield events[i]
        i += 1


def _unmap(library: ctypes.CDLL) -> None:
    """Closes a shared library, which ctypes never does."""
    if hasattr(ctypes, "windll"):
        ctypes.windll.kernel32.FreeLibrary(ctypes.c_void_p(library._handle))
    else:
        import _ctypes

        _ctypes.dlclose(library._handle)
