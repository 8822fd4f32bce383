"""Any text-to-speech program by its command line, and Debian's flite as one of them.

    command:flite -voice {voice:slt,rms|awb} --setf duration_stretch={stretch} -t {text} -o {wav}
    command:python speak.py --pace {speed}         text comes by stdin, a WAV file is read from stdout

The command runs without a shell: a text is one argument, whatever stands in it. It promises to give the same audio for the same
text; nothing here can make it so.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, NotInstalled
from nemo_duplex.synthesis.tts.cast import EngineVoices, with_users
from nemo_duplex.synthesis.tts.languages import is_english
from nemo_duplex.synthesis.tts.utterance import OWN_RATE, Utterance, Voice

_TIME_LIMIT: Seconds = 120.0  # for one text
_SELF_TEST = "Hello, how are you?"
_SHOWN = 200  # characters of what a program says about an error
_PLACEHOLDER = re.compile(r"\{(\w+)(?::([^{}]*))?\}")
_PLACEHOLDERS = ("text", "wav", "voice", "rate", "speed", "stretch")

#: Debian's package `flite`; its voices are kept for evaluation.
FLITE_COMMAND = "flite -voice {voice:|slt,rms,awb,kal16} --setf duration_stretch={stretch} -t {text} -o {wav}"
_PLAIN = {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": ", ", "…": ","}

_log = logging.getLogger(__name__)


class CommandEngine:
    """Speaks by running a program for every text.

    Args:
        command: with placeholders. `{text}`: the text; without it the text is given by stdin. `{wav}`: the file to write, in
            any form that libsndfile reads; without it the file is read from stdout. `{voice:a,b|c}`: the voice; a and b are of
            train, c is of dev. `{rate}`: words per minute; `{speed}`: as a factor of the own pace; `{stretch}`: its inverse.
        name: of the engine; default: the program's, with a part of the hash of the command.
        time_limit: Seconds that a text may take.

    Raises:
        InputError: for a command with other placeholders, or one that gives no audio.
        NotInstalled: if there is no such program.
    """

    def __init__(self, command: str, name: str | None = None, time_limit: Seconds = _TIME_LIMIT) -> None:
        self._arguments = _arguments(command)
        listed = next((values for name, values in _PLACEHOLDER.findall(command) if name == "voice"), None)
        train, _, dev = (listed or "").partition("|")
        self.voices = {"train": _names(train), "dev": _names(dev)}
        if listed is not None and not any(self.voices.values()):
            raise InputError(
                f"command:{command}: expected {{voice:a,b}} with the names of voices, or {{voice:a,b|c}} with c for dev."
            )
        program = self._arguments[0]
        if shutil.which(program) is None:
            raise NotInstalled(f"There is no program {program!r}: install it, or give its path.")
        digest = hashlib.sha256(command.encode()).hexdigest()[:8]
        self.name = name or f"command-{Path(program).name}-{digest}"
        self.version = digest
        self._command, self._time_limit = command, time_limit
        first, second = (self._run(_SELF_TEST, Voice("self-test", self.all_voices[0], engine=self.name)) for _ in range(2))
        self.sample_rate = first[1]
        if not np.array_equal(first[0], second[0]):
            _log.warning("%s does not say a text twice in the same samples: corpora made with it differ.", self.name)

    @property
    def all_voices(self) -> list[str]:
        """Names of the voices, those of train first; "" is the only one of a command without `{voice}`."""
        return [*self.voices["train"], *self.voices["dev"]] or [""]

    def speak(self, text: str, voice: Voice) -> Utterance:
        """Says `text` in `voice`.

        Raises:
            InputError: if the command fails, takes too long, or gives no audio; what it says about it is in the message.
        """
        if voice.name not in self.all_voices:
            raise InputError(f"{self.name} has no voice {voice.name!r} (speaker {voice.id}): expected {self.all_voices}.")
        if (reason := self.cannot_say(text, voice)) is not None:
            raise InputError(reason)
        audio, sample_rate = self._run(self._said(text), voice)
        return Utterance(text, audio, sample_rate)

    def cannot_say(self, text: str, voice: Voice) -> str | None:
        """Why the text cannot be given to a program; None if it can."""
        if not any(character.isalnum() for character in text):
            return f"{self.name} makes no sound of the text {text!r}: give it words to say."
        return None

    def _said(self, text: str) -> str:
        """The text as it is given to the program."""
        return text.replace("\0", " ")

    def _run(self, text: str, voice: Voice) -> tuple[np.ndarray, int]:
        """(S,) float32 and its rate."""
        speed = voice.rate / OWN_RATE
        values = {"voice": voice.name, "rate": str(voice.rate), "speed": f"{speed:.4f}", "stretch": f"{1 / speed:.4f}"}
        # A text alone in an argument must not be taken for an option.
        values["text"] = f" {text}" if text.startswith("-") else text
        with tempfile.TemporaryDirectory() as folder:
            wav = Path(folder) / "speech.wav"
            values["wav"] = str(wav)
            arguments = [_PLACEHOLDER.sub(lambda found: values[found[1]], argument) for argument in self._arguments]
            given = None if any(found[1] == "text" for found in _PLACEHOLDER.finditer(self._command)) else text.encode()
            said = self._output(arguments, given, text)
            written: Path | io.BytesIO = wav if "{wav}" in self._command else io.BytesIO(said)
            try:
                audio, sample_rate = soundfile.read(written, dtype="float32", always_2d=True)
            except (soundfile.SoundFileError, OSError):
                what = "wrote no audio file" if "{wav}" in self._command else "gave no audio file by stdout"
                raise InputError(f"{self.name} {what} of {text[:60]!r}: {_last_line(said)}") from None
        return audio.mean(axis=1), int(sample_rate)

    def _output(self, arguments: list[str], given: bytes | None, text: str) -> bytes:
        """What the program writes to stdout."""
        try:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE if given is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:  # the text is longer than an argument may be; no right to run it
            raise InputError(f"{self.name} cannot run with {text[:60]!r} ({len(text)} characters): {error.strerror}") from None
        try:
            out, errors = process.communicate(given, timeout=self._time_limit)
        except subprocess.TimeoutExpired:
            raise InputError(f"{self.name} took more than {self._time_limit:g} s for {text[:60]!r}.") from None
        finally:
            if process.poll() is None:  # also after Ctrl-C; with what it has started
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        if process.returncode:
            how = f"exit code {process.returncode}" if process.returncode > 0 else f"signal {-process.returncode}"
            raise InputError(f"{self.name} ended with {how} at {text[:60]!r}: {_last_line(errors or out)}")
        return out


def _arguments(command: str) -> list[str]:
    """The command in arguments, with the placeholders in them."""
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise InputError(f"command:{command}: it cannot be split into arguments: {error}.") from None
    if not arguments:
        raise InputError("command: expected a command line, such as command:flite -voice slt -t {text} -o {wav}")
    for placeholder, values in _PLACEHOLDER.findall(command):
        if placeholder not in _PLACEHOLDERS or (values and placeholder != "voice"):
            known = ", ".join(f"{{{known}}}" for known in _PLACEHOLDERS)
            raise InputError(f"command:{command}: {{{placeholder}}} is none of {known}.")
    if len(_PLACEHOLDER.findall(command)) != sum(len(_PLACEHOLDER.findall(argument)) for argument in arguments):
        raise InputError(f"command:{command}: write placeholders without blanks, such as {{voice:a,b}}.")
    return arguments


def _names(listed: str) -> list[str]:
    return [name for name in listed.split(",") if name]


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").split("\n")
    return next((line.strip()[:_SHOWN] for line in reversed(lines) if line.strip()), "it does not say why")


class FliteEngine(CommandEngine):
    """Debian's flite. It reads ASCII: letters lose their accents, and what has no plain form is refused.

    Raises:
        NotInstalled: without the program.
    """

    def __init__(self) -> None:
        try:
            super().__init__(FLITE_COMMAND, "flite")
        except NotInstalled:
            raise NotInstalled("flite is not installed: apt install flite") from None

    def cannot_say(self, text: str, voice: Voice) -> str | None:
        """Why flite cannot say the text: it would leave out what it does not know."""
        if voice.language is not None and not is_english(voice.language):
            return f"flite has no language {voice.language!r}: it speaks en."
        if unknown := [c for c in dict.fromkeys(self._said(text)) if not c.isascii()]:
            return f"flite does not read {', '.join(map(repr, unknown[:5]))}: write it in words, or other letters."
        return super().cannot_say(text, voice)

    def _said(self, text: str) -> str:
        parts = unicodedata.normalize("NFKD", "".join(_PLAIN.get(c, c) for c in text))
        return super()._said("".join(c for c in parts if not unicodedata.combining(c)))


def command_voices(command: str) -> EngineVoices:
    """A program with its voices. Without `|` in `{voice:...}` they are the same in train and dev. Raises as `CommandEngine`."""
    return _voices(CommandEngine(command))


def flite_voices() -> EngineVoices:
    """flite with its four voices, all of them users of dev: it is for evaluation alone. Raises as `FliteEngine`."""
    return replace(_voices(FliteEngine()), agent=None)


def _voices(engine: CommandEngine) -> EngineVoices:
    def users(names: list[str]) -> list[Voice]:
        return [Voice("-".join(filter(None, (engine.name, name))), name, engine=engine.name) for name in names]

    train, dev = users(engine.voices["train"] or ([""] if not engine.voices["dev"] else [])), users(engine.voices["dev"])
    return with_users(engine, Voice("agent", engine.all_voices[0], engine=engine.name), train, dev)
