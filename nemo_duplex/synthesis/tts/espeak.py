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
import re
import threading
import zlib
from pathlib import Path

import numpy as np

from nemo_duplex.conversation import Word
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.tts.utterance import Utterance, Voice

# Values of espeak-ng/speak_lib.h.
_SYNCHRONOUS, _BUFFER_MS, _DONT_EXIT = 2, 200, 0x8000
_POSITION_CHARACTER, _UTF8 = 1, 1
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


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
_lock = threading.Lock()
_log = logging.getLogger(__name__)


def espeak_paths() -> tuple[Path, Path]:
    """The shared library and its data folder.

    Raises:
        InputError: if the wheel is not installed.
    """
    try:
        import espeakng_loader
    except ImportError:
        raise InputError("The voices need eSpeak NG, which is not installed: pip install espeakng-loader") from None
    return Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())


class EspeakEngine:
    """Speaks with eSpeak NG.

    Args:
        data: a data folder of eSpeak, for example one with generated voices (`voices.py`); default: the wheel's own.

    Raises:
        InputError: if the wheel is not installed or the data folder does not work.
    """

    name = "espeak-ng"

    def __init__(self, data: Path | None = None) -> None:
        library, own_data = espeak_paths()
        self._path, self._data = str(library), os.fsencode(data or own_data)
        with _lock:
            opened = _Library(self._path, self._data)
            self.version, self.sample_rate = opened.version, opened.sample_rate
            opened.close()
        first, second = (self.speak("Hello.", Voice("self-test", "en-us+klatt2")).audio for _ in range(2))
        if not np.array_equal(first, second):
            _log.warning("eSpeak NG cannot be unloaded in this process: the same text is not the same samples twice.")

    def speak(self, text: str, voice: Voice) -> Utterance:
        """Says `text` in `voice`, with the same samples every time.

        Raises:
            InputError: if eSpeak does not know the voice or makes no sound of the text.
        """
        self._check_variant(voice)
        with _lock:
            library = _Library(self._path, self._data)
            try:
                samples, onsets = library.speak(text, voice, seed=zlib.crc32(f"{voice.id}|{text}".encode()))
            finally:
                library.close()
        if not len(samples) or not any(character.isalnum() for character in text):
            raise InputError(f"eSpeak NG makes no sound of the text {text!r}: give it words to say.")
        audio = samples.astype(np.float32) / 32768
        words = word_times(text, onsets, len(audio), self.sample_rate)
        return Utterance(text, audio, self.sample_rate, words)

    def _check_variant(self, voice: Voice) -> None:
        """Refuses an unknown variant: eSpeak would use the voice without it, and say nothing."""
        _, plus, variant = voice.name.partition("+")
        if plus and not (Path(os.fsdecode(self._data)) / "voices" / "!v" / variant).is_file():
            raise InputError(f"eSpeak NG has no voice variant {variant!r} (speaker {voice.id}) in {os.fsdecode(self._data)}.")


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
        if self._library.espeak_SetVoiceByName(voice.name.encode()):
            raise InputError(f"eSpeak NG has no voice {voice.name!r} (speaker {voice.id}).")
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


def word_times(text: str, onsets: dict[int, int], num_samples: int, sample_rate: int) -> tuple[Word, ...]:
    """Every word of `text` with its time, from the onsets that eSpeak reports.

    eSpeak joins some words ("the day") and reports only the first of them. They share the time up to the next reported word
    by their number of letters. A word lasts until the next one starts.
    """
    spans = [m.span() for m in re.finditer(r"[^\W_]+(?:['’\-][^\W_]+)*", text)]
    if not spans:
        return ()
    starts: list[float | None] = [onsets.get(begin) for begin, _ in spans]
    starts[0] = 0.0 if starts[0] is None else starts[0]
    known = [i for i, start in enumerate(starts) if start is not None] + [len(spans)]
    edges = [float(s) if s is not None else 0.0 for s in starts] + [float(num_samples)]
    for first, last in zip(known, known[1:]):
        letters = np.cumsum([end - begin for begin, end in spans[first:last]])
        for i in range(first + 1, last):
            edges[i] = edges[first] + (edges[last] - edges[first]) * letters[i - first - 1] / letters[-1]
    return tuple(
        Word(text[begin:end], begin, edges[i] / sample_rate, edges[i + 1] / sample_rate) for i, (begin, end) in enumerate(spans)
    )
