"""A tree of Full-Duplex-Bench v1 or v1.5 as conversations: `{task}/{ID}/input.wav`, `output.wav` and the annotation.

Its own metrics are in `evaluation/full_duplex_bench/`; here the user's turns are found by VAD, and what is annotated is an
event of the conversation. Of v1.5, `clean_input.wav` and `clean_output.wav` are a conversation in a set of their own.
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

_INPUT, _OUTPUT = "input.wav", "output.wav"
#: Annotation file -> the kind of its event.
ANNOTATIONS = {"pause.json": "pause", "turn_taking.json": "turn_end", "interrupt.json": "interruption", "metadata.json": ""}
#: In v1.5 the folder of the task tells the kind.
_KINDS = {"user_backchannel": "backchannel", "talking_to_other": "side_talk", "background_speech": "background_voice"}


def is_bench_sample(folder: Path) -> bool:
    """Whether a folder is a sample of the benchmark: an input with an annotation."""
    return (folder / _INPUT).is_file() and any((folder / name).is_file() for name in ANNOTATIONS)


def rows_of_bench(root: Path, odd: OddRows) -> Iterator[FoundRow]:
    """A row for every sample at or below `root`; its set is the folder of its task."""
    for file in sorted(root.rglob(f"*{_INPUT}"), key=lambda file: (file.parent.as_posix(), -len(file.name))):
        before = file.name.removesuffix(_INPUT)
        if before not in ("", "clean_"):
            continue
        folder, task = file.parent, file.resolve().parent.parent.name
        try:
            text, events = _text(folder / f"{before}output.json"), [] if before else list(_events(folder, task))
            row: dict[str, Any] = {"id": folder.resolve().name, "user_audio": file.name, "agent_audio": before + _OUTPUT}
            row |= without_none({"pred_agent_text": text, "events": events or None})
            yield FoundRow(task + "_clean" * bool(before), str(folder), row, folder)
        except OddRow as reason:
            odd.add(reason, str(folder))


def _text(file: Path) -> str | None:
    if not file.is_file():
        return None
    return RowFields(_content(file)).text("text")


def _events(folder: Path, task: str) -> Iterator[dict[str, Any]]:
    for name, kind in ANNOTATIONS.items():
        if (folder / name).is_file():
            content = _content(folder / name)
            fields = RowFields(content[0] if isinstance(content, list) and content else content)
            times = fields.items("timestamp") or fields.items("timestamps")
            if len(times) == 2:
                kind = kind or next((of for part, of in _KINDS.items() if part in task.lower()), "interruption")
                text = fields.text("interrupt") or fields.text("current_turn_text")
                yield without_none({"kind": kind, "speaker": "user", "start": times[0], "end": times[1], "text": text})


def _content(file: Path) -> Any:
    try:
        rows = list(json_rows(file, "outputs"))
    except InputError as error:
        raise OddRow("a JSON file that cannot be read", str(error)) from error
    if not rows or rows[0].odd is not None:
        raise OddRow("a JSON file that cannot be read", str(file), "Copy it again.")
    return rows[0].value
