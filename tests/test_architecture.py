"""The rooms of nemo_duplex and the one way data flows between them. Edit the lists only on purpose."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "nemo_duplex"
LAYERS = [
    {"frames", "inputs", "plugin", "version", "bundled", "outputs", "nemo_file"},  # the vocabulary, and the entry to NeMo
    {"files", "conversation", "config", "cli", "budget"},
    {"channels", "scripts", "training", "part_training", "chain", "demo"},
    {"codec", "llm"},
    {"synthesis", "data"},  # siblings: they meet only in cuts on disk
    {"perception"},
    {"models"},
    {"streaming"},
    {"serving"},
    {"evaluation"},
    {"benchmark"},
]
UNMOVED = {"outputs", "nemo_file", "config", "cli", "budget", "part_training", "chain", "demo"}  # until they are
DEPTH = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}
MAY_IMPORT_NEMO = {
    "codec/fsq_codec.py",
    "codec/training.py",
    "data/datamodule.py",
    "perception/asr_checkpoint.py",
    "perception/ctc_model.py",
    "perception/ctc_training.py",
    "models/duplex_s2s.py",
    "models/in_tree/config.py",
    "models/in_tree/perception.py",
    "models/parts.py",
    "perception/perception.py",
    "models/nemo/restore_connector.py",
    "training/trainer.py",
    "perception/offline.py",
    "plugin.py",  # it imports NeMo only after NeMo was imported
}
# models.DuplexS2SModel.open_session returns a session of the room above: the one door in the ceiling, opened when called.
UPWARD = {("models/duplex_s2s.py", "streaming")}
# NeMo's in-tree duplex model is measured beside ours, in processes of its own; nothing else meets it.
MEETS_IN_TREE = {"benchmark/training_side.py", "benchmark/streaming_side.py"}
NO_NOUNS = {"utils", "util", "common", "helpers", "helper", "base", "misc", "registry", "factory"}

SOURCES = sorted(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def imported_modules(file: Path):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the full `nemo_duplex...` name."
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_point_down(path):
    here = path.parts[0].removesuffix(".py")
    assert here in DEPTH, f"{path} belongs to no room: {sorted(DEPTH)}."
    for module in imported_modules(PACKAGE / path):
        top, _, rest = module.partition(".")
        if top == "nemo":
            assert path.as_posix() in MAY_IMPORT_NEMO | MEETS_IN_TREE, (
                f"{path} imports {module}; NeMo enters only by {sorted(MAY_IMPORT_NEMO)}."
            )
        if top != "nemo_duplex" or rest in ("", "__version__"):
            continue
        there = rest.split(".")[0]
        assert there in DEPTH, f"{path} imports {module}: import it from the file where it lives."
        same_room = there == here or DEPTH[there] == DEPTH[here] == 0 or (here in UNMOVED or there in UNMOVED)
        assert same_room or DEPTH[there] < DEPTH[here] or (path.as_posix(), there) in UPWARD, (
            f"{path} imports {module}, but `{there}` is not below `{here}`. Move what they share below both."
        )


def test_the_lists_name_what_exists():
    assert {p for p in MAY_IMPORT_NEMO if not (PACKAGE / p).exists()} == set()
    for path, there in UPWARD:
        assert any(m.startswith(f"nemo_duplex.{there}.") for m in imported_modules(PACKAGE / path)), (path, there)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_one_lightning_and_no_speechlm2(path):
    """ModelPT refuses a Trainer of `pytorch_lightning`, and speechlm2 costs peft and 14 s (DESIGN, section 2)."""
    for module in imported_modules(PACKAGE / path):
        assert module.split(".")[0] not in ("pytorch_lightning", "apex"), f"{path} imports {module}."
        in_tree = module.startswith("nemo.collections.speechlm2")
        assert not in_tree or path.as_posix() in MEETS_IN_TREE, f"{path} imports {module}."


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_file_is_one_noun_read_in_one_sitting(path):
    assert path.stem not in NO_NOUNS, f"{path}: name the thing that it holds."
    source = (PACKAGE / path).read_text()
    assert len(source.splitlines()) <= 400, f"{path} is longer than 400 lines: it holds more than one noun."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= 75, f"{path}: {node.name} has {length} lines; about 60 is the most that one can hold in mind."


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_every_file_and_public_thing_says_what_it_is(path):
    tree = ast.parse((PACKAGE / path).read_text())
    if path.stem != "__init__":
        assert ast.get_docstring(tree), f"{path} has no docstring."
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}: {node.name} has no docstring."


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_an_example_reads_config_builds_and_runs(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 80, f"{path.name} has {len(lines)} lines, 80 is the most: move what it does into a room."
    assert (ROOT / "conf" / path.name).with_suffix(".yaml").exists() or "train_duplex" in path.name


def test_rooms_have_an_init_each():
    folders = {p.parent for p in PACKAGE.rglob("*.py")}
    assert {f for f in folders if not (f / "__init__.py").exists()} == set()
