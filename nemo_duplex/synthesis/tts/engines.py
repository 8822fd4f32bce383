"""Engines by the words of a configuration, and the cast that they make together.

An engine that is not installed is named in one line with its cure, and the others speak without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import inf
from pathlib import Path
from typing import cast

from nemo_duplex.inputs import InputError, NotInstalled
from nemo_duplex.synthesis.text.sources import Split
from nemo_duplex.synthesis.tts.alignment import AlignedEngine
from nemo_duplex.synthesis.tts.bank import Bank
from nemo_duplex.synthesis.tts.cast import Cast, EngineVoices
from nemo_duplex.synthesis.tts.command import command_voices, flite_voices
from nemo_duplex.synthesis.tts.hibari import hibari_voices
from nemo_duplex.synthesis.tts.kokoro import kokoro_voices
from nemo_duplex.synthesis.tts.nemo_tts import nemo_voices
from nemo_duplex.synthesis.tts.pico import pico_voices
from nemo_duplex.synthesis.tts.piper import piper_voices
from nemo_duplex.synthesis.tts.recorded import recorded_voices
from nemo_duplex.synthesis.tts.utterance import SpeechEngine, Voice
from nemo_duplex.synthesis.tts.voices import espeak_voices

Shares = tuple[tuple[str, float], ...]

_MOST_TIMES = 1000  # users that are made of one

#: What speaks where the engines of a configuration are not installed.
FALLBACK = "espeak"
#: Who speaks where nobody is named: an agent, and users that a recogniser for people understands as it does people.
AGENT = "hibari"
USERS: Shares = (("kokoro", 0.5), ("pico", 0.45), ("espeak", 0.05))
_REFERENCES = ("hibari", "espeak")  # that know when words are said; the first is the nearer to human voices


@dataclass(frozen=True)
class CastSpec:
    """Who speaks in a corpus, in the words of a configuration.

    An engine is a name, or `name:what it needs` (a path, a command).

    Args:
        agent: the engine that answers.
        train, dev: engines of the users, each with its share of the dialogues.
        bank: folder in which utterances are kept; None: nothing is kept.
        perturb: engines, each with how many users are made of one of its own by pitch, formants and speed.
        takes: how many users say a dialogue; None: any may.

    Raises:
        InputError: if a share is no number above 0; if an engine is perturbed that has no users, or not into a whole number
            of voices.

    Examples:
        >>> CastSpec(train=(("espeak", 1.0),)).agent
        'hibari'
    """

    agent: str = AGENT
    train: Shares = USERS
    dev: Shares = USERS
    bank: str | None = None
    perturb: tuple[tuple[str, int], ...] = ()
    takes: int | None = None

    def __post_init__(self) -> None:
        for name, share in (*self.train, *self.dev):
            if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share < inf:
                raise InputError(
                    f"user_voices: {name}: {share!r}: expected a share, a number above 0; a name with a comma stands in quotes."
                )
        users = {name for name, _ in (*self.train, *self.dev)}
        for name, times in self.perturb:
            if name not in users:
                raise InputError(f"perturb: {name} is no engine of user_voices ({', '.join(sorted(users))}).")
            if not isinstance(times, int) or isinstance(times, bool) or not 1 <= times <= _MOST_TIMES:
                raise InputError(f"perturb.{name}={times}: expected a whole number of voices, from 1 to {_MOST_TIMES}.")


_OPENED: dict[str, Callable[[str | None], EngineVoices]] = {
    "espeak": lambda _: espeak_voices(),
    "hibari": lambda _: hibari_voices(),
    "kokoro": lambda _: kokoro_voices(),
    "pico": lambda _: _aligned(pico_voices()),
    "flite": lambda _: _aligned(flite_voices()),
    "piper": lambda path: _aligned(piper_voices(path)),
    "nemo": lambda paths: _aligned(nemo_voices(paths)),
    "recorded": lambda path: _aligned(recorded_voices(path)),
    "command": lambda command: _aligned(command_voices(command or "")),
}


def open_cast(spec: CastSpec) -> tuple[Cast, list[str]]:
    """The cast, and a line for each engine that is not installed.

    Raises:
        InputError: for an engine that is not known, or cannot be opened; if the one that speaks instead is missing too.
    """
    missing: dict[str, str] = {}

    def opened(name: str) -> EngineVoices | None:
        try:
            return engine_voices(name)
        except NotInstalled as error:
            missing[name] = f"{name} does not speak: {error}"
            return None

    def users_of(name: str) -> EngineVoices | None:
        voices, times = opened(name), dict(spec.perturb).get(name, 1)
        if voices is None or times == 1:
            return voices
        try:
            return _multiplied(name, times)
        except NotInstalled as error:
            missing[f"perturb.{name}"] = str(error)
            return voices

    agent = opened(spec.agent) or engine_voices(FALLBACK)
    users: dict[Split, dict[EngineVoices, float]] = {}
    for split, shares in (("train", spec.train), ("dev", spec.dev)):
        found = {voices: share for name, share in shares if (voices := users_of(name)) is not None}
        users[cast(Split, split)] = found if found or not shares else {engine_voices(FALLBACK): 1.0}
    speakers = Cast(agent, users, Bank(Path(spec.bank)) if spec.bank else None, spec.takes)
    return speakers, list(missing.values())


@cache
def engine_voices(name: str) -> EngineVoices:
    """An engine and its speakers, opened once in a process.

    Raises:
        NotInstalled: if its package is missing.
        InputError: if it is not known, or cannot be opened.
    """
    kind, _, needs = name.partition(":")
    if kind not in _OPENED:
        raise InputError(f"There is no voice engine {kind!r}: expected one of {', '.join(_OPENED)}.")
    return _OPENED[kind](needs or None)


@cache
def _multiplied(name: str, times: int) -> EngineVoices:
    return engine_voices(name).multiplied(times)


def _aligned(voices: EngineVoices) -> EngineVoices:
    """The same speakers with word times, found by what is installed of the engines that know their own."""
    references: list[tuple[SpeechEngine, Voice]] = []
    for name in _REFERENCES:
        try:
            reference = engine_voices(name)
        except InputError:
            continue
        assert reference.agent is not None, f"{name} has an agent"
        references.append((reference.engine, reference.agent))
    if not references:
        return voices
    return replace(voices, engine=AlignedEngine(voices.engine, references), quick=False)  # aligning takes as long as speaking
