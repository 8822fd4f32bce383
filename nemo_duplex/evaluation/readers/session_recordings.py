"""Recorded sessions of our own (streaming/recording/format.py): a folder with `cut.jsonl`, or a folder of such folders.

As its reader does, this one opens only the files of the format, beside the cut, whatever names the cut gives. The user's turns
in a cut are frames in which a session heard somebody; turns to measure by are found again by VAD.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_duplex.evaluation.readers.found_rows import FoundRow
from nemo_duplex.evaluation.readers.row_fields import RowFields, without_none
from nemo_duplex.files.json_rows import json_rows
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import InputError

CUT, UNFINISHED = "cut.jsonl", "session.json"
_USER, _AGENT = "user.wav", "agent.wav"


def rows_of_recordings(path: Path, odd: OddRows) -> Iterator[FoundRow]:
    """A row for every recording at or below `path`; their set is named after its folder."""
    root = path.parent if path.is_file() else path
    for folder in sorted(file.parent for file in root.rglob(UNFINISHED) if file.parent.name.startswith(".part-")):
        odd.add(OddRow("a recording that is not complete", cure="Complete it with `recover` of its recorder."), str(folder))
    for file in [path] if path.is_file() else sorted(root.rglob(CUT)):
        try:
            yield FoundRow(root.resolve().name, str(file), _row(file), file.parent, crops=True)
        except OddRow as reason:
            odd.add(reason, str(file))


def _row(file: Path) -> dict[str, Any]:
    try:
        first = next(json_rows(file, "outputs"), None)
    except InputError as error:
        raise OddRow("a cut that cannot be read", str(error)) from error
    if first is None or first.odd is not None:
        raise (first.odd if first and first.odd else OddRow("no cut", cure="Copy the recording again."))
    fields = RowFields(first.value)
    for name in (_USER, _AGENT):
        if (file.parent / name).is_symlink():
            raise OddRow("a file that is a link", name, "Copy the recording with its files.")
    turns = [
        without_none({"start": s.needed_time("start"), "end": s.needed_time("start") + s.needed_time("duration")})
        | without_none({"text": s.text("text"), "custom": s.object("custom") or None})
        for s in fields.objects("supervisions")
        if s.text("speaker") == "agent"
    ]
    custom = RowFields(fields.object("custom"), "custom")
    session = RowFields(custom.object("session"), "custom.session")
    model = RowFields(session.object("model"), "custom.session.model")
    return without_none(
        {
            "id": fields.text("id"),
            "duration": fields.needed_time("duration"),
            "user_audio": _USER,
            "agent_audio": _AGENT,
            "user_sample_rate": session.count("sample_rate"),
            "agent_sample_rate": model.count("agent_sample_rate"),
            "agent_turns": turns,
            "custom": without_none(
                {"started": session.text("started"), "model": model.text("hash"), "seed": session.count("seed")}
            ),
        }
    )
