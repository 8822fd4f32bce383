"""How well user encoders hear: word errors of their CTC recognisers on NeMo manifests, by engine (or person) and by condition.

    clean        the recordings as they are
    babble       six other people talk, 10 dB softer
    noise        any noise, 10 dB softer
    room         echoes as loud as the voice, which decay in half a second
    telephone    300 to 3400 Hz, 8 bits of mu-law

Encoders hear as an agent does, chunk by chunk; how far that is from whole recordings is measured beside. A recogniser that
hears the same sounds tells how well they can be understood. Words are compared as `normalized_text` writes them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from tqdm import tqdm

from nemo_duplex.evaluation.confidence import estimate_ratio
from nemo_duplex.evaluation.report.tables import Cell, Row, Table
from nemo_duplex.evaluation.speech.normalized_text import word_errors
from nemo_duplex.evaluation.speech.recogniser import SILENT, Recogniser
from nemo_duplex.files.nemo_manifest import ManifestRow, NemoManifest
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.frames import USER_SAMPLE_RATE
from nemo_duplex.inputs import InputError, existing_file
from nemo_duplex.perception.acoustics import Others
from nemo_duplex.perception.listening import Listener, check_conditions, heard_in

_AT_ONCE = 64  # recordings in memory in one condition
_MOST_SCALE = 4.0


@dataclass(frozen=True)
class Spoken:
    """A recording of a manifest.

    Args:
        id: file and line of its row.
        audio: (S,) float32 at 16 kHz.
        text: what is said.
        engine: what its row says under `engine`; else the manifest's name.
        voice: what it says under `voice`; else the engine.
        language: of the text.
    """

    id: str
    audio: np.ndarray = field(repr=False)
    text: str
    engine: str
    voice: str
    language: str = "en"


def read_spoken(manifests: Sequence[str | Path], limit: int = 200, max_odd_rows: float = 0.1) -> tuple[list[Spoken], OddRows]:
    """At most `limit` recordings of each engine, spread evenly over its rows, and what could not be used.

    Raises:
        InputError: if a manifest is missing or no manifest, or a larger share than `max_odd_rows` cannot be used.
    """
    if not manifests:
        raise InputError("manifests=[]: expected at least one NeMo manifest of recordings with texts.")
    if limit < 1:
        raise InputError(f"limit={limit}: expected at least 1.")
    rows: dict[str, list[ManifestRow]] = {}
    odd = OddRows()
    for path in manifests:
        manifest = NemoManifest(existing_file(path, "manifests"), "manifests")
        for row in manifest:
            if row.text.strip():
                rows.setdefault(str(row.other.get("engine") or manifest.path.stem), []).append(row)
            else:
                odd.add(OddRow("no text to compare with"), row.place)
        odd.update(manifest.odd)
    found = []
    for engine, listed in sorted(rows.items()):
        for row in listed if len(listed) <= limit else [listed[i * len(listed) // limit] for i in range(limit)]:
            try:
                voice, language = (str(row.other.get(key) or other) for key, other in (("voice", engine), ("language", "en")))
                found.append(Spoken(row.place, _audio(row), row.text, engine, voice, language))
            except OddRow as why:
                odd.add(why, row.place)
    odd.check("manifests", len(found), max_odd_rows, "max_odd_rows")
    return found, odd


def _audio(row: ManifestRow) -> np.ndarray:
    """(S,) float32 at 16 kHz.

    Raises:
        OddRow: if it cannot be used.
    """
    samples, rate = row.samples()
    if len(samples) != 1:
        raise OddRow("several channels", f"{len(samples)}", "Keep the speaker's channel.")
    audio = samples[0]
    if not len(audio) or not np.isfinite(audio).all() or not SILENT < np.abs(audio).max() <= _MOST_SCALE:
        raise OddRow("no sound of full scale 1", f"{len(audio)} samples", "Record it again, or remove its row.")
    return audio if rate == USER_SAMPLE_RATE else soxr.resample(audio, rate, USER_SAMPLE_RATE)


def _others(spoken: Sequence[Spoken], number: int) -> Others:
    """Babble for one recording: what other voices of its engine say, or other recordings where there is one voice."""
    own = spoken[number]
    same = [one for one in spoken if one.engine == own.engine and one is not own]
    choice = [one for one in same if one.voice != own.voice] or same or [own]
    return lambda rng: choice[int(rng.integers(len(choice)))].audio


def encoder_table(
    encoders: Mapping[str, Listener],
    spoken: Sequence[Spoken],
    conditions: Sequence[str],
    recogniser: Recogniser | None = None,
    *,
    seed: int = 0,
    progress: bool = True,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Lets encoders hear recordings in conditions.

    Args:
        encoders: by the names of their rows.
        spoken: of `read_spoken`.
        conditions: of `perception.listening.CONDITIONS`.
        recogniser: hears the same; None: nobody does.
        seed: of noises and babble, and of the bootstrap over recordings.

    Returns:
        Plain data: `word_errors` {condition: {system: {engine: estimate, `n` are words}}}, `streaming` {encoder: `difference`,
        the largest between features of the stream and of whole recordings, and `texts`, how many are not the same}; and a row
        for each recording, condition and system: what was said and heard.

    Raises:
        InputError: for a condition that is not known.
    """
    check_conditions(conditions)
    streaming = {name: {"difference": 0.0, "texts": 0} for name in encoders}
    heard: list[dict[str, Any]] = []
    bar = tqdm(total=len(conditions) * len(spoken), desc="Listening", unit="", leave=False, delay=5, disable=not progress)
    for condition in conditions:
        for start in range(0, len(spoken), _AT_ONCE):
            part = spoken[start : start + _AT_ONCE]
            sounds = [
                heard_in(condition, one.audio, _others(spoken, start + i), _generator(seed, condition, start + i))
                for i, one in enumerate(part)
            ]
            for system, texts in _texts(sounds, part, encoders, recogniser, streaming):
                for one, text in zip(part, texts, strict=True):
                    wrong, count = word_errors(one.text, text, one.language)
                    about = {"id": one.id, "engine": one.engine, "voice": one.voice, "condition": condition, "system": system}
                    heard.append(about | {"text": one.text, "heard": text, "errors": wrong, "words": count})
            bar.update(len(part))
    bar.close()
    engines = sorted({one.engine for one in spoken})
    systems = [*encoders, *([recogniser.scorer.name] if recogniser else [])]

    def entry(condition: str, system: str, engine: str) -> dict[str, Any]:
        wanted = (condition, system, engine)
        rows = [row for row in heard if (row["condition"], row["system"], row["engine"]) == wanted]
        return estimate_ratio([(row["errors"], row["words"]) for row in rows], proportion=False, seed=seed).as_dict()

    found = {c: {s: {e: entry(c, s, e) for e in engines} for s in systems} for c in conditions}
    return {"recordings": len(spoken), "word_errors": found, "streaming": streaming}, heard


def _generator(seed: int, condition: str, number: int) -> np.random.Generator:
    """The same for a recording's number whatever else is heard."""
    return np.random.default_rng((seed, zlib.crc32(condition.encode()), number))


def _texts(
    sounds: Sequence[np.ndarray],
    spoken: Sequence[Spoken],
    encoders: Mapping[str, Listener],
    recogniser: Recogniser | None,
    streaming: dict[str, dict[str, Any]],
) -> Iterator[tuple[str, list[str]]]:
    """What each system hears of sounds; `streaming` is brought up to date."""
    for name, encoder in encoders.items():
        streamed, whole = encoder.streamed(sounds), encoder.whole(sounds)
        apart = [float((a.features - b.features).abs().max()) for a, b in zip(streamed, whole, strict=True)]
        streaming[name]["difference"] = max(streaming[name]["difference"], *apart)
        streaming[name]["texts"] += sum(a.text != b.text for a, b in zip(streamed, whole, strict=True))
        yield name, [one.text for one in streamed]
    if recogniser is not None:
        yield (
            recogniser.scorer.name,
            [recogniser.transcribe(sound, USER_SAMPLE_RATE, one.language) for sound, one in zip(sounds, spoken, strict=True)],
        )


def open_encoders(paths: Sequence[str | Path], device: str = "cpu") -> dict[str, Listener]:
    """Recognisers by the names of their files.

    Raises:
        InputError: if a file is missing, broken, or no recogniser that can be streamed; or two have one name.
    """
    if not paths:
        raise InputError("encoders=[]: expected at least one .nemo of examples/train_encoder.py.")
    found: dict[str, Listener] = {}
    for path in paths:
        name = existing_file(path, "encoders").stem
        if name in found:
            raise InputError(f"encoders: {name!r} names two rows of the table. Rename a file.")
        found[name] = Listener(path, device)
    return found


def table_of_encoders(found: Mapping[str, Any]) -> Table:
    """Word errors: a block for each condition, in it a column of the page for each engine."""
    engines = list(next(iter(next(iter(found["word_errors"].values())).values())))
    rows = [
        Row(condition, system, tuple(_cell(entries[engine]) for engine in engines))
        for condition, systems in found["word_errors"].items()
        for system, entries in systems.items()
    ]
    notes = [
        f"{name}: streamed features differ from those of whole recordings by {one['difference']:.1e} at most, and "
        f"{one['texts']} of {found['recordings'] * len(found['word_errors'])} texts"
        for name, one in found["streaming"].items()
    ]
    return Table("Word errors of what encoders hear", tuple(engines), tuple(rows), tuple(notes))


def _cell(entry: Mapping[str, Any]) -> Cell:
    if entry["value"] is None:
        return Cell(why_not="no words")
    interval = "" if entry["ci95"] is None else f"{entry['ci95'][0]:.1%} to {entry['ci95'][1]:.1%}".replace("%", " %")
    return Cell(f"{entry['value']:.1%}".replace("%", " %"), interval, f"n {entry['n']:g}")
