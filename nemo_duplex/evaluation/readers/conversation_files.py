"""Files of rows, `conversations.jsonl`: one for everything, or one in the folder of each set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from nemo_duplex.evaluation.readers.conversation_rows import AUDIO_KEYS, CONVERSATIONS
from nemo_duplex.evaluation.readers.found_rows import FoundRow
from nemo_duplex.evaluation.readers.sound_files import SoundFiles, sound_files
from nemo_duplex.files.json_rows import JsonRow, json_rows
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import InputError

_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson")
_NAMES = {CONVERSATIONS, f"{CONVERSATIONS}.gz", "conversations.json", "conversations.json.gz", "conversations.ndjson"}


def is_conversations(path: Path) -> bool:
    """Whether a file has the name of a file of rows."""
    return path.name in _NAMES and path.is_file()


def row_files(path: Path) -> list[Path]:
    """The files of rows: `path` itself, `conversations.jsonl` in it and below, else all JSONL files in it."""
    if path.is_file():
        return [path]
    named = sorted(filter(is_conversations, path.rglob("conversations.*")))
    return named or sorted(f for f in path.iterdir() if f.name.endswith(_SUFFIXES) and f.is_file())


def rows_of_files(path: Path, odd: OddRows) -> Iterator[FoundRow]:
    """The rows of the files at `path`.

    A row that names no sound of the agent is joined with the files beside it that bear its id (`sound_files.py`).

    Raises:
        InputError: if the only file cannot be read; one of several is counted as odd.
    """
    files = row_files(path)
    for file in files:
        try:
            yield from _rows_of_file(file, odd)
        except InputError as error:
            if len(files) == 1:
                raise
            odd.add(OddRow("a file that cannot be read", str(error)), str(file))


def _rows_of_file(file: Path, odd: OddRows) -> Iterator[FoundRow]:
    own_name = file.name.split(".")[0]
    default = file.resolve().parent.name if is_conversations(file) else own_name
    sounds: SoundFiles | None = None
    used: set[str] = set()
    for read in json_rows(file, "outputs"):
        place = f"{file}:{read.line}"
        if read.odd is not None or not isinstance(read.value, dict):
            odd.add(read.odd or OddRow("no conversation", f"{read.value!r:.40}", "Write one JSON object per line."), place)
            continue
        row = read.value
        name, set_name = row.get("id"), row.get("set")
        set_name = set_name if isinstance(set_name, str) and set_name else default
        place += f" (conversation {name})" if isinstance(name, str) else ""
        if isinstance(name, str) and row.get("audio") is None and row.get("agent_audio") is None:
            if sounds is None:
                sounds = sound_files(file.parent, _ids(file))
            there = sounds.of(set_name, name)
            used |= {str(path.resolve()) for path in there.values()}
            row = {**row, **{key: str(path.resolve()) for key, path in there.items() if row.get(key) is None}}
        named = (row.get(key) for key in AUDIO_KEYS)
        used |= {str((file.parent / path).resolve()) for path in named if isinstance(path, str)}
        yield FoundRow(set_name, place, row, file.parent)
    for conversation in (sounds or SoundFiles()).sounds.values():
        for path in conversation.values():
            if str(path.resolve()) not in used:
                odd.add(OddRow("a sound without a row", cure=f"Add a row with its id to {file.name}."), str(path))


def _ids(file: Path) -> Sequence[str]:
    rows: Iterator[JsonRow] = json_rows(file, "outputs")
    return [row.value["id"] for row in rows if isinstance(row.value, dict) and isinstance(row.value.get("id"), str)]
