"""What a model did in the conversations of a set, on disk: kept as soon as it is there, so that a killed evaluation goes on.

<out>/predictions/dev/
    conversations.jsonl            a row for each conversation (readers/conversation_rows.py): anyone can score the folder again
    audio/ID-user.flac, ID-agent.flac, ID-reference.flac
    played.jsonl                   a line for each row: what was played to which model
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import regex
import soundfile

from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.readers.conversation_rows import CONVERSATIONS, outcome_of, row_of
from nemo_duplex.evaluation.sound import Samples, Sound
from nemo_duplex.files.atomic import whole_file
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import InputError

if TYPE_CHECKING:
    from lhotse.cut import Cut

_PLAYED, _AUDIO = "played.jsonl", "audio"
_LONGEST_NAME = 150  # bytes


class Predictions:
    """The predictions of one set, in a folder.

    Args:
        folder: made where it is missing.
        set_name: written into every row.
        model: the SHA-256 of the model; None for one that has none, whose predictions are never taken up again.
        overwrite: whether predictions of another model may be replaced.

    Raises:
        InputError: if the folder holds predictions of another model.
    """

    def __init__(self, folder: Path, set_name: str, model: str | None = None, overwrite: bool = False) -> None:
        self.folder, self.set_name, self.model = folder, set_name, model
        played = {line["id"]: line for line in _lines(folder / _PLAYED) if {"model", "input_sha256"} <= {*line}}
        others = sorted({str(line["model"]) for line in played.values()} - {str(model)})
        if others and model is not None and not overwrite:
            raise InputError(
                f"out: {folder} holds predictions of another model (SHA-256 {others[0]:.12}..., this one has {model:.12}...). "
                "Choose another out, or give overwrite=true."
            )
        self._played = {} if model is None or others else played
        if not self._played:
            shutil.rmtree(folder, ignore_errors=True)
        (folder / _AUDIO).mkdir(parents=True, exist_ok=True)

    def kept(self, cuts: Sequence[Cut]) -> dict[str, Outcome]:
        """The predictions on disk for these cuts, by id, without `speech`; what was played in another form is left out, and its
        row removed. Rows of other cuts stay: with a smaller `limit`, nothing is lost."""
        inputs = {cut.id: cut for cut in cuts if cut.id in self._played}
        changed = {name for name, cut in inputs.items() if input_sha256(cut) != self._played[name]["input_sha256"]}
        right = {*self._played} - changed
        rows = {row["id"]: row for row in _lines(self.folder / CONVERSATIONS) if row["id"] in right}
        found = {}
        for name in [name for name in rows if name in inputs]:
            try:
                found[name] = _whole(outcome_of(rows[name], self.folder))
            except (OddRow, InputError):  # its audio is gone or damaged: it is played again
                del rows[name]
        self._write_again([*rows.values()])
        return found

    def add(self, outcome: Outcome, input_sha256: str) -> None:
        """Writes a prediction; it is on disk when this returns."""
        files = {}
        for key, sound in (
            ("user", outcome.user_sound),
            ("agent", outcome.agent_sound),
            ("reference", outcome.reference_sound),
        ):
            if sound is not None:
                files[f"{key}_audio"] = f"{_AUDIO}/{unique_file_name(outcome.id)}-{key}.flac"
                _write_flac(self.folder / files[f"{key}_audio"], sound)
        self._played[outcome.id] = {"id": outcome.id, "input_sha256": input_sha256, "model": self.model}
        _append(self.folder / CONVERSATIONS, row_of(outcome, self.set_name, files))
        _append(self.folder / _PLAYED, self._played[outcome.id])

    def _write_again(self, rows: Sequence[dict[str, Any]]) -> None:
        self._played = {row["id"]: self._played[row["id"]] for row in rows}
        for name, lines in ((CONVERSATIONS, rows), (_PLAYED, self._played.values())):
            with whole_file(self.folder / name) as path:
                path.write_text("".join(_line(line) for line in lines), encoding="utf-8")


def input_sha256(cut: Cut) -> str:
    """A hash of all that a cut says of its conversation: its sound, and who says what when."""
    found = hashlib.sha256(np.ascontiguousarray(cut.load_audio()[0], np.float32).tobytes())
    own = {k: v for k, v in (cut.custom or {}).items() if isinstance(v, (str, int, float, bool, list, dict))}
    said = [s.to_dict() for s in cut.supervisions]
    found.update(json.dumps([cut.id, cut.duration, said, own], sort_keys=True, default=str).encode())
    return found.hexdigest()


def file_name(conversation: str) -> str:
    """The id of a conversation as the name of a file in the folder at hand; letters of all scripts stay, with their marks.

    It has at most 150 bytes: file systems take 255, and what writes a file adds to its name.
    """
    name = regex.sub(r"[^\p{L}\p{M}\p{N}_.-]", "_", conversation).lstrip(".")
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore")


def unique_file_name(name: str) -> str:
    """A file name of an id, or of the name of a set; two of them never share one."""
    found = file_name(name)
    return found if found == name else f"{found}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"


def _whole(outcome: Outcome) -> Outcome:
    """The outcome, if the agent's sound can be read to its end. Raises OddRow or InputError."""
    sound = outcome.agent_sound
    if sound is None or len(sound.samples()) != round(outcome.duration * sound.sample_rate):
        raise OddRow("no sound of the agent, or a part of it")
    return outcome


def _write_flac(path: Path, sound: Sound) -> None:
    values = sound.values if isinstance(sound, Samples) else Samples.of(sound.samples(), sound.sample_rate).values
    with whole_file(path) as part:
        soundfile.write(part, values, sound.sample_rate, format="FLAC", subtype="PCM_16")


def _line(row: Any) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _append(path: Path, row: Any) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(row))
        file.flush()
        os.fsync(file.fileno())


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file; one that a kill tore is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line) if line.endswith("\n") else None
            except json.JSONDecodeError:
                row = None
            if isinstance(row, dict) and isinstance(row.get("id"), str):
                yield row
