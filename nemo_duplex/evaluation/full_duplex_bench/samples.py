"""The tree of a benchmark: folders of tasks, in each a folder for every sample.

v1     {task}/{ID}/input.wav + pause.json, turn_taking.json or interrupt.json     output.wav, output.json
v1.5   {task}/{ID}/input.wav, clean_input.wav, metadata.json                      output.wav, clean_output.wav and 4 JSON
v2     {Task}/{Task.sample}/A.wav (the examiner)                                  B.wav, combined.wav, A.json, B.json
v3     {scenario}_{speaker}/input.wav, metadata.json                              output_{provider}.wav, result_{provider}.json
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nemo_duplex.evaluation.full_duplex_bench.transcript import is_time, read_json
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import InputError, existing_folder

Version = Literal["v1", "v1.5", "v2", "v3"]
VERSIONS: tuple[Version, ...] = ("v1", "v1.5", "v2", "v3")


@dataclass(frozen=True)
class Task:
    """One kind of samples.

    Args:
        name: as the official scripts call it.
        in_folder: what the name of its folder holds, in lower case (`candor_turn_taking`, `synthetic_pause_handling`).
        annotation: the file that says where the event is; None where there is none.
        needs_annotation: whether the official scripts read it.
    """

    name: str
    in_folder: str
    annotation: str | None = None
    needs_annotation: bool = True


#: In the order in which folders are tried: `user_backchannel` holds `backchannel` too, and belongs to v1.5.
TASKS: Mapping[Version, tuple[Task, ...]] = {
    "v1": (
        Task("pause_handling", "pause_handling", "pause.json", needs_annotation=False),
        Task("smooth_turn_taking", "turn_taking", "turn_taking.json"),
        Task("user_interruption", "user_interruption", "interrupt.json"),
        Task("backchannel", "backchannel"),
    ),
    "v1.5": tuple(
        Task(name, name, "metadata.json")
        for name in ("user_interruption", "user_backchannel", "talking_to_other", "background_speech")
    ),
    "v2": tuple(Task(name, name.lower()) for name in ("Daily", "Correction", "EntityTracking", "Safety")),
    "v3": (Task("tool_use", "", "metadata.json"),),
}
#: One of these is in the folder of every sample.
_OF_A_SAMPLE = ("input.wav", "output.wav", "output.json", "A.wav", "metadata.json")


@dataclass(frozen=True)
class Sample:
    """The folder of one sample.

    Args:
        task: what it tests.
        of: the name of the task's folder; "" where the samples lie in the root itself.
        folder: its own.
    """

    task: Task
    of: str
    folder: Path

    @property
    def name(self) -> str:
        """For people: `candor_turn_taking/12`."""
        return f"{self.of}/{self.folder.name}" if self.of else self.folder.name

    def check(self) -> None:
        """Checks what the official scripts need of it beside its sound.

        Raises:
            OddRow: if its annotation is missing or broken, or its name is no number where those are passed over.
        """
        if self.task.name == "backchannel" and not self.folder.name.isdigit():
            raise OddRow("a name that is no number", cure="The official script passes it over: name the folder by a number.")
        if self.task.annotation is not None and self.task.needs_annotation:
            self.annotation() if self.task.name == "tool_use" else self.event()

    def annotation(self) -> Any:
        """What its annotation file holds.

        Raises:
            OddRow: if it is missing or is no JSON.
        """
        assert self.task.annotation is not None, f"{self.task.name} has no annotations"
        return read_json(self.folder / self.task.annotation)

    def event(self) -> tuple[float, float]:
        """Start and end of the annotated event, Seconds: the first `timestamp` of v1, the `timestamps` of v1.5.

        Raises:
            OddRow: if the annotation is missing, or holds none.
        """
        content = self.annotation()
        if isinstance(content, list):
            span = content[0].get("timestamp") if content and isinstance(content[0], dict) else None
        else:
            span = content.get("timestamps") if isinstance(content, dict) else None
        if not isinstance(span, list) or len(span) != 2 or not all(is_time(t) for t in span):
            raise OddRow(
                f"{self.task.annotation} has no timestamp", f"got {str(content)[:80]}", "Expected [start, end] in seconds."
            )
        return float(span[0]), float(span[1])


@dataclass(frozen=True)
class Tree:
    """A benchmark's samples by the folder of their task, and the folders that are no task."""

    samples: Mapping[str, tuple[Sample, ...]]
    other_folders: tuple[str, ...]

    def __iter__(self) -> Iterator[Sample]:
        return (sample for samples in self.samples.values() for sample in samples)


def require_version(version: str) -> None:
    """Raises InputError if there is no such version."""
    if version not in VERSIONS:
        raise InputError(f"version={version}: expected one of {', '.join(VERSIONS)}.")


def read_tree(root: str | Path, version: Version) -> Tree:
    """The samples below a folder of tasks, or below the folder of a single task, in order of their names.

    Raises:
        InputError: if there are none.
    """
    root = existing_folder(root, "bench")
    if version == "v3" or (task := _task_of(root, version)) is not None and _is_of_samples(root):
        task = TASKS["v3"][0] if version == "v3" else task
        assert task is not None
        return Tree({root.name: _samples(task, "", root)}, ())
    found, others = {}, []
    for folder in _folders(root):
        task = _task_of(folder, version)
        if task is None:
            others.append(folder.name)
        elif samples := _samples(task, folder.name, folder):
            found[folder.name] = samples
    if not found:
        names = ", ".join(task.in_folder for task in TASKS[version])
        has = f"it has {', '.join(others[:5])}" if others else "it has no such folders"
        raise InputError(
            f"bench: {root} holds no samples of Full-Duplex-Bench {version}: expected folders whose names hold {names}, with "
            f"a folder for each sample, and {has}. Give the folder that was unpacked, or another version."
        )
    return Tree(found, tuple(others))


def _task_of(folder: Path, version: Version) -> Task | None:
    """By its name; where that says nothing, by the annotations of its samples."""
    name = folder.name.lower()
    if version == "v1" and any(task.in_folder in name for task in TASKS["v1.5"] if task.name != "user_interruption"):
        return None
    named = next((task for task in TASKS[version] if task.in_folder in name), None)
    if named is not None or version == "v1.5":
        return named
    first = next(iter(_folders(folder)), folder)
    return next((t for t in TASKS[version] if t.annotation is not None and (first / t.annotation).is_file()), None)


def _is_of_samples(folder: Path) -> bool:
    return any((inner / name).is_file() for inner in _folders(folder) for name in _OF_A_SAMPLE)


def _samples(task: Task, of: str, folder: Path) -> tuple[Sample, ...]:
    return tuple(Sample(task, of, inner) for inner in _folders(folder))


def _folders(folder: Path) -> list[Path]:
    """In order of their names, numbers by their value."""
    inner = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(inner, key=lambda path: (len(path.name), path.name) if path.name.isdigit() else (99, path.name))
