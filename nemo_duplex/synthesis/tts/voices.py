"""Speakers of eSpeak: hundreds of generated voices for the user, one fixed voice for the agent.

An eSpeak voice is an accent (`en-gb-scotland`) or a language plus a variant, a small text file of formants, pitch and tone.
Our own variants are written into a copy of eSpeak's data (19 MB). Their speakers differ as people do, in the length of the
vocal tract and the pitch of the voice: a simple classifier tells 400 of them apart in 97 % of the cases.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from nemo_duplex.files.cache import cache_folder
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.text.sources import Split
from nemo_duplex.synthesis.tts.cast import EngineVoices
from nemo_duplex.synthesis.tts.espeak import EspeakEngine, espeak_paths
from nemo_duplex.synthesis.tts.utterance import Voice

#: The most intelligible of eSpeak's voices: Whisper tiny.en gets 38 % of the words of its answers wrong, of `en-us` 41 %.
AGENT_VOICE = Voice("agent", "en-us+klatt2", rate=160, pitch=50)

_RATES = (135, 190)  # of users, words per minute
#: What a user says in the least time: a voice of this rate.
FASTEST_USER = Voice("fastest", AGENT_VOICE.name, rate=_RATES[1])

NUM_VARIANTS = {"train": 160, "dev": 40}
NUM_SPEAKERS: dict[Split, int] = {"train": 480, "dev": 80}

_ACCENTS = ("en-us", "en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-gb-x-gbclan")
_SEED = 1234  # of the variants and speakers: part of who they are, not of a corpus
_LAYOUT = "all languages"  # of the data folder: another one gets another name
_MAX_PATH = 140  # eSpeak keeps its data path in 160 bytes and silently cuts a longer one


def espeak_voices() -> EngineVoices:
    """eSpeak with its speakers.

    Raises:
        InputError: if the wheel is not installed.
    """
    return EngineVoices(EspeakEngine(voice_data()), AGENT_VOICE, NUM_SPEAKERS, user_voice, quick=True, fastest=FASTEST_USER)


def user_voice(split: Split, number: int) -> Voice:
    """Speaker `number` of a split (`train` or `dev`). No train speaker has a variant of dev, so voices of dev are unseen."""
    assert 0 <= number < NUM_SPEAKERS[split], f"split {split} has no speaker {number}"
    rng = np.random.default_rng([_SEED, 1 + list(NUM_SPEAKERS).index(split), number])
    return Voice(
        id=f"{split}{number:03d}",
        name=f"{_ACCENTS[rng.integers(len(_ACCENTS))]}+{_variant_name(split, number % NUM_VARIANTS[split])}",
        rate=int(rng.integers(_RATES[0], _RATES[1] + 1)),
        pitch=int(rng.integers(35, 66)),
        pitch_range=int(rng.integers(30, 80)),
    )


def voice_data(cache: Path | None = None) -> Path:
    """The folder of eSpeak data with the generated variants. It is made on first use; many processes may do so at once.

    Args:
        cache: default `$XDG_CACHE_HOME/nemo_duplex` or `~/.cache/nemo_duplex`.

    Raises:
        InputError: if the wheel is not installed, or the path is too long for eSpeak.
    """
    variants = {_variant_name(split, i): _variant_file(split, i) for split, count in NUM_VARIANTS.items() for i in range(count)}
    library, source = espeak_paths()
    content = "".join(variants.values()) + str(library.stat().st_size) + _LAYOUT
    home = cache or cache_folder()
    folder = home / f"espeak-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if len(os.fsencode(folder)) > _MAX_PATH:
        raise InputError(
            f"eSpeak NG takes data paths of up to {_MAX_PATH} bytes: set XDG_CACHE_HOME to a shorter path than {home}."
        )
    if folder.exists():
        return folder
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as unfinished:
        data = Path(unfinished) / "data"
        _copy_languages(source, data)
        for name, text in variants.items():
            (data / "voices" / "!v" / name).write_text(text)
        try:
            data.rename(folder)
        except OSError:  # another process made it meanwhile, with the same content
            if not folder.exists():
                raise
    return folder


def _copy_languages(source: Path, target: Path) -> None:
    """eSpeak's data with the files of all languages in one folder, by their names in lower case.

    There eSpeak finds a voice at once. In its own folders it reads the files of all voices to find one, which takes 10 ms of
    every utterance instead of 1, and it reads no more than 349: there are 240 of its own, and 200 of ours.
    """
    (target / "lang").mkdir(parents=True)
    for file in source.iterdir():
        if file.is_file():
            shutil.copy(file, target / file.name)
    for file in (source / "lang").rglob("*"):
        if file.is_file():
            shutil.copy(file, target / "lang" / file.name.lower())
    shutil.copytree(source / "voices" / "!v", target / "voices" / "!v")


def _variant_name(split: str, number: int) -> str:
    return f"{split}{number:03d}"


def _variant_file(split: str, number: int) -> str:
    """A variant file: pitch and vocal tract of a woman or a man, and a timbre mild enough to be understood.

    Keys are those of espeak-ng/docs/voices.md. `formant` k has frequency, height and width in per cent of the accent's.
    """
    rng = np.random.default_rng([_SEED, list(NUM_VARIANTS).index(split) + 11, number])
    female = number % 2 == 1
    pitch = rng.uniform(150, 245) if female else rng.uniform(75, 140)
    tract = rng.uniform(1.04, 1.20) if female else rng.uniform(0.88, 1.06)
    lines = [
        "language variant",
        f"name {_variant_name(split, number)}",
        f"gender {'female' if female else 'male'}",
        f"pitch {pitch:.0f} {pitch * rng.uniform(1.25, 1.7):.0f}",
        f"flutter {rng.integers(1, 8)}",
        f"roughness {rng.integers(0, 4)}",
        f"voicing {rng.integers(80, 120)}",
        f"consonants {rng.integers(75, 120)} {rng.integers(75, 120)}",
    ]
    for k in range(9):
        frequency = 100 * tract * rng.uniform(0.96, 1.04)
        lines.append(f"formant {k} {frequency:.0f} {rng.uniform(80, 120):.0f} {rng.uniform(80, 130):.0f}")
    lines.append("tone " + " ".join(f"{hz} {rng.integers(90, 255)}" for hz in (300, 900, 1800, 3400)))
    if rng.random() < 0.4:
        lines.append("breath " + " ".join(str(x) for x in rng.integers(0, 22, 6)))
    lines.append("stressAdd " + " ".join(str(x) for x in rng.integers(-12, 13, 8)))
    return "\n".join(lines) + "\n"
