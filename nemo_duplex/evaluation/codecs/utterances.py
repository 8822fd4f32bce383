"""Utterances to try codecs on: of a corpus, a NeMo manifest, Lhotse cuts, or a folder of recordings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from lhotse import CutSet
from lhotse.cut import Cut

from nemo_duplex.codec.recording_sources import audio_files
from nemo_duplex.conversation import Conversation, Turn, holds
from nemo_duplex.evaluation.sound import CutSound
from nemo_duplex.files.json_rows import json_rows
from nemo_duplex.files.nemo_manifest import ManifestRow, NemoManifest
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, existing_file, existing_folder, one_line

_MARGIN: Seconds = 0.1  # of the sound around a turn
_MOST_SCALE = 4.0
_SILENT = 1e-4  # peak, -80 dB re full scale
_LONGEST: Seconds = 60.0
_SAME_CHANNELS = 0.01  # channels that differ by less, as a share of their peak, hold the same voice
_CURE = "Convert it to wav or flac, or remove it."


@dataclass(frozen=True)
class Utterance:
    """What one speaker says in one go.

    Args:
        id: where it comes from.
        samples: (S,) float32, full scale 1.
        sample_rate: Hz.
        text: what is said; None where nobody wrote it down.
        language: of the text.
        voice: who speaks; None where nobody says.
    """

    id: str
    samples: np.ndarray = field(repr=False)
    sample_rate: int
    text: str | None = None
    language: str = "en"
    voice: str | None = None


class _Found(NamedTuple):
    """An utterance that is not read yet: `read` gives samples (C, S) and their rate, `text` what is said ("" where nobody
    wrote it down); both may raise an OddRow."""

    id: str
    read: Callable[[], tuple[np.ndarray, int]]
    text: Callable[[], str]
    language: str = "en"
    voice: str | None = None


def read_utterances(data: str | Path, sets: Sequence[str] = ("dev",), limit: int = 228) -> tuple[list[Utterance], OddRows]:
    """At most `limit` utterances, spread evenly over what is there, and what could not be used.

    Args:
        data: one of

            a corpus of `examples/synthesize.py`     the agent's turns in `sets`, but for those that were cut off
            a NeMo manifest (.json, .jsonl)          audio_filepath, text, and where they are known offset, voice, language
            Lhotse cuts (.jsonl, or a Shar folder)   each cut, with what its supervisions say
            a folder of audio files                  each an utterance, its text in a file of the same name that ends in .txt

    Raises:
        InputError: if there is no such file or folder, a set is broken, or nothing can be used.
    """
    if limit < 1:
        raise InputError(f"limit={limit}: expected at least 1.")
    odd = OddRows()
    found = _spread(_listed(Path(data), sets, odd), limit)
    read = list(_read(found, odd))
    if not read:
        raise InputError(f"data: {data} holds no utterance that can be used. {odd.most_frequent()}".rstrip())
    return read, odd


def _listed(path: Path, sets: Sequence[str], odd: OddRows) -> list[_Found]:
    """All utterances that the files name."""
    if path.is_file():
        file = existing_file(path, "data")
        return list(_of_cuts(CutSet.from_file(file), odd) if _holds_cuts(file) else _of_manifest(file, odd))
    folder = existing_folder(path, "data")
    there = [name for name in sets if (folder / name / "shar").is_dir()]
    for name in there and sets:
        if name not in there:
            odd.add(OddRow("no such set in the corpus"), name)
    if there:
        return list(_of_corpus(folder, there, odd))
    if any(folder.glob("cuts.*.jsonl*")):
        from nemo_duplex.data.datamodule import shar_cuts

        return list(_of_cuts(shar_cuts(folder), odd))
    return list(_of_files(folder, sets))


def _read(found: Iterable[_Found], odd: OddRows) -> Iterator[Utterance]:
    for one in found:
        try:
            samples, rate = one.read()
            yield Utterance(one.id, _one_voice(samples, rate), rate, one.text() or None, one.language, one.voice)
        except OddRow as why:
            odd.add(why, one.id)
        except Exception as error:  # lhotse and its backends raise different ones
            odd.add(OddRow("not readable as audio", one_line(error), _CURE), one.id)


def _one_voice(samples: np.ndarray, rate: int) -> np.ndarray:
    """(S,) float32 of (C, S), if it is an utterance.

    Raises:
        OddRow: if it is none.
    """
    if not samples.size or not np.isfinite(samples).all() or np.abs(samples).max() > _MOST_SCALE:
        raise OddRow("no sound of full scale 1", f"{samples.shape[-1]} samples", _CURE)
    peak = np.abs(samples).max()
    if peak < _SILENT:
        raise OddRow("silence alone", f"{samples.shape[-1]} samples", "Remove it.")
    sounding = samples[np.abs(samples).max(axis=1) >= _SILENT]
    if np.abs(sounding - sounding[:1]).max() > _SAME_CHANNELS * peak:
        raise OddRow("several channels", f"{len(sounding)}", "Keep the speaker's channel.")
    if samples.shape[1] > _LONGEST * rate:
        raise OddRow(f"longer than {_LONGEST:g} s", f"{samples.shape[1] / rate:.0f} s", "Cut it into utterances.")
    return np.ascontiguousarray(sounding[0], np.float32)


def _of_corpus(folder: Path, sets: Sequence[str], odd: OddRows) -> Iterator[_Found]:
    from nemo_duplex.evaluation.sets import read_sets

    for name, cuts in read_sets(folder, sets).items():
        for cut in cuts:
            if not holds(cut, "target_audio"):
                odd.add(OddRow("no agent channel"), f"{name}, cut {cut.id}")
                continue
            for turn in filter(_is_whole, Conversation.from_cut(cut).agent):
                read = partial(_of_turn, CutSound(cut, "target_audio"), turn)
                yield _Found(
                    f"{name}, cut {cut.id}, {turn.start:.2f} s", read, partial(str.strip, turn.text), turn.language or "en"
                )


def _is_whole(turn: Turn) -> bool:
    return bool(turn.text.strip()) and not turn.was_cut and not {"unfinished", "begun_before", "cut"} & set(turn.custom)


def _of_turn(sound: CutSound, turn: Turn) -> tuple[np.ndarray, int]:
    samples, rate = sound.samples(), sound.sample_rate
    first, last = round((turn.start - _MARGIN) * rate), round((turn.end + _MARGIN) * rate)
    return samples[None, max(0, first) : last], rate


def _of_manifest(path: Path, odd: OddRows) -> Iterator[_Found]:
    manifest = NemoManifest(path, "data")
    for row in manifest:
        name = f"{row.path.name}, {row.offset:.2f} s" if row.offset else row.path.name
        yield _Found(
            str(row.other.get("id") or name),
            partial(ManifestRow.samples, row),
            partial(str.strip, row.text),
            str(row.other.get("language") or row.other.get("lang") or "en"),
            _name(row.other.get("voice") or row.other.get("speaker")),
        )
    odd.update(manifest.odd)


def _holds_cuts(path: Path) -> bool:
    """Whether the first row of a file is a cut; the rows of a manifest name files of audio."""
    first = next(iter(json_rows(path, "data")), None)
    return first is not None and isinstance(first.value, dict) and str(first.value.get("type")).endswith("Cut")


def _of_cuts(cuts: Iterable[Cut], odd: OddRows) -> Iterator[_Found]:
    for cut in cuts:
        if not holds(cut, "recording"):
            odd.add(OddRow("no recording"), f"cut {cut.id}")
            continue
        said = cut.supervisions
        text = " ".join(one.text.strip() for one in said if one.text)
        language = next((one.language for one in said if one.language), "en")
        speakers = {one.speaker for one in said if one.speaker}
        read = partial(_of_cut, cut)
        yield _Found(f"cut {cut.id}", read, partial(str, text), language, _name(speakers.pop() if len(speakers) == 1 else None))


def _of_cut(cut: Cut) -> tuple[np.ndarray, int]:
    return cut.load_audio(), cut.sampling_rate


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else json.dumps(value) if isinstance(value, int) else None


def _of_files(folder: Path, sets: Sequence[str]) -> Iterator[_Found]:
    files = audio_files(folder)
    if not files:
        raise InputError(
            f"data: {folder} holds no audio files (wav, flac, ogg, mp3), no Shar, and no set of a corpus ({', '.join(sets)}). "
            "Give a folder of recordings, a NeMo manifest, Lhotse cuts, or a corpus of examples/synthesize.py and sets=[...]."
        )
    for path in files:
        yield _Found(str(path.relative_to(folder)), partial(_of_file, path), partial(_text_beside, path))


def _of_file(path: Path) -> tuple[np.ndarray, int]:
    try:
        with path.open("rb") as file:  # libsndfile cannot open every name itself
            samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise OddRow("not readable as audio", one_line(error), _CURE) from None
    return samples.T, rate


def _text_beside(path: Path) -> str:
    text = path.with_suffix(".txt")
    try:
        return text.read_text(encoding="utf-8-sig").strip() if text.is_file() else ""
    except UnicodeDecodeError:
        raise OddRow("a text that is not UTF-8", text.name, "Save it as UTF-8.") from None


def _spread(items: Sequence[_Found], limit: int) -> list[_Found]:
    """At most `limit` of them, evenly spread, in their order."""
    if len(items) <= limit:
        return list(items)
    return [items[i * len(items) // limit] for i in range(limit)]
