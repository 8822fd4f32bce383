"""The rooms of nemo_duplex, and the one way in which they import each other. Edit the lists only on purpose.

A rule is a function from sources (path below nemo_duplex/ -> text) to its offenders, one line each. So it can be given the
package, where it must find none, and a small tree that breaks it, where it must find the culprit.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "nemo_duplex"

# A room imports only rooms of the lines above its own; those of one line do not know each other. The first line is the
# vocabulary, single files that may import each other.
ROOMS = [
    {"frames", "inputs", "plugin", "version", "words", "bundled"},
    {"files", "conversation", "kernels"},
    {"channels", "pages", "scripts", "training"},
    {"codec", "llm"},
    {"synthesis"},
    {"data"},
    {"perception", "user_activity"},
    {"models"},
    {"streaming"},
    {"serving"},
    {"evaluation"},
    {"benchmark"},
]
# The same inside of a room. A file belongs to the longest name that it begins with.
SUB_ROOMS = [
    {"models/head_loss.py", "models/text_rows.py"},
    {"models/losses.py"},
    {"models/model_config.py"},
    {"models/nemo/"},
    {"models/in_tree/"},
    {"models/"},
    {"models/interop.py"},
]
# A model opens sessions, which are of a room above it: the only import upward, inside of these functions.
UPWARD, UPWARD_FUNCTIONS = "models/duplex_s2s.py", {"open_session", "open_engine"}

MAY_IMPORT_NEMO = {
    "codec/codec_file.py",
    "codec/codec_network.py",
    "codec/fsq_codec.py",
    "codec/adversarial.py",
    "codec/wavlm_discriminator.py",
    "codec/codec_training.py",
    "data/datamodule.py",
    "perception/asr_checkpoint.py",
    "perception/ctc_model.py",
    "perception/ctc_training.py",
    "perception/offline.py",
    "perception/perception.py",
    "models/duplex_s2s.py",
    "models/in_tree/config.py",
    "models/in_tree/perception.py",
    "models/nemo/restore_connector.py",
    "models/parts.py",
    "synthesis/tts/nemo_tts.py",
    "evaluation/speech/nemo_asr.py",
    "training/trainer.py",
    "plugin.py",  # it imports NeMo only after NeMo was imported
}
# NeMo's in-tree duplex model is measured beside ours, in processes of its own; nothing else meets it.
MEETS_IN_TREE = {"benchmark/training_step.py", "benchmark/in_tree.py", "benchmark/one_build.py"}
NO_NOUNS = {"utils", "util", "common", "helpers", "helper", "base", "misc", "registry", "factory"}
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_LINES_OF_AN_EXAMPLE = 400, 75, 80

Sources = dict[str, str]
SOURCES: Sources = {p.relative_to(PACKAGE).as_posix(): p.read_text() for p in sorted(PACKAGE.rglob("*.py"))}


class Import(NamedTuple):
    """An imported module or name, and the innermost function around the statement ("TYPE_CHECKING" below that `if`)."""

    module: str
    inside: str


@functools.cache
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


@functools.cache
def imports(source: str) -> list[Import]:
    """All of them: at the top, in functions, and for type checkers."""

    def found(node: ast.AST, inside: str) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Import(f"{'.' * node.level}{node.module or ''}.{alias.name}", inside) for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = node.name
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            inside = "TYPE_CHECKING"
        for child in ast.iter_child_nodes(node):
            yield from found(child, inside)

    return list(found(parsed(source), ""))


def own_imports(path: str, sources: Sources) -> Iterator[tuple[str, str]]:
    """(file of ours, `Import.inside`) for everything that the file `path` imports of the package."""
    for module, inside in imports(sources[path]):
        top, _, rest = module.partition(".")
        if top != "nemo_duplex" or path == "__init__.py":  # the package itself loads its public names when they are used
            continue
        parts = rest.split(".")
        below = ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]
        candidates = [file for name in below for file in (f"{name}.py", f"{name}/__init__.py")]
        yield next((file for file in candidates if file in sources), f"{parts[0]}.py"), inside


def room(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def level(path: str, levels: list[set[str]]) -> tuple[int, str]:
    """(depth, name) of the longest name that `path` begins with; (-1, "") if there is none."""
    names = {name: depth for depth, names in enumerate(levels) for name in names if path.startswith(name)}
    longest = max(names, key=len, default="")
    return names.get(longest, -1), longest


# --- rules ------------------------------------------------------------------------------------------------------------


def upward_imports(sources: Sources) -> Iterator[str]:
    """Rooms import only what stands below them."""
    depth = {name: depth for depth, names in enumerate(ROOMS) for name in names}
    for path in sources:
        here = room(path)
        if path != "__init__.py" and here not in depth:
            yield f"{path} belongs to no room."
            continue
        opened = {file for file, inside in own_imports(path, sources) if path == UPWARD and inside in UPWARD_FUNCTIONS}
        for file, inside in own_imports(path, sources):
            there = room(file)
            if there not in depth:
                yield f"{path} imports nemo_duplex.{there}: import it from the file where it lives."
            elif there == here or depth[there] < depth[here] or depth[there] == depth[here] == 0:
                continue
            elif not (file in opened and inside in UPWARD_FUNCTIONS | {"TYPE_CHECKING"}):
                yield f"{path} imports {file}, which is not below it. Move what they share below both."


def upward_imports_in_a_room(sources: Sources) -> Iterator[str]:
    """Sub-rooms import only what stands below them, and do not know each other."""
    for path in sources:
        (here, own), imported = (
            level(path, SUB_ROOMS),
            [level(file, SUB_ROOMS) + (file,) for file, _ in own_imports(path, sources)],
        )
        for there, name, file in imported:
            if room(file) == room(path) and name != own and there >= here:
                yield f"{path} imports {file}, which is not below it."


def circles(sources: Sources) -> Iterator[str]:
    """No file imports itself through others, not even in functions, for type checkers or through the import upward."""
    state: dict[str, str] = {}

    def visit(path: str, trail: tuple[str, ...]) -> Iterator[str]:
        if state.get(path) == "done":
            return
        if path in trail:
            yield " -> ".join((*trail[trail.index(path) :], path))
            return
        for file in dict.fromkeys(file for file, _ in own_imports(path, sources) if file in sources and file != path):
            yield from visit(file, (*trail, path))
        state[path] = "done"

    for path in sources:
        yield from visit(path, ())


def names_of_the_trainer_shell(sources: Sources) -> Iterator[str]:
    """`streaming/` runs any agent: it does not name the class that trains one, not even in words."""
    for path, source in sources.items():
        if path.startswith("streaming/") and ("duplex_s2s" in source or "DuplexS2SModel" in source):
            yield path


def other_entries_of_nemo(sources: Sources) -> Iterator[str]:
    """NeMo enters by few files; nothing but a measurement meets its in-tree duplex model, which costs peft and 14 s."""
    for path, source in sources.items():
        for module, _ in imports(source):
            if module.split(".")[0] == "nemo" and path not in MAY_IMPORT_NEMO | MEETS_IN_TREE:
                yield f"{path} imports {module}."
            if module.startswith("nemo.collections.speechlm2") and path not in MEETS_IN_TREE:
                yield f"{path} imports {module}."


def foreign_packages(sources: Sources) -> Iterator[str]:
    """ModelPT refuses a Trainer of `pytorch_lightning`; the `apex` of the package index is not NVIDIA's."""
    for path, source in sources.items():
        yield from (
            f"{path} imports {module}."
            for module, _ in imports(source)
            if module.split(".")[0] in ("pytorch_lightning", "apex")
        )


def relative_imports(sources: Sources) -> Iterator[str]:
    """Imports are written with the full `nemo_duplex...` name."""
    for path, source in sources.items():
        yield from (f"{path} imports {module}." for module, _ in imports(source) if module.startswith("."))


def files_of_many_things(sources: Sources) -> Iterator[str]:
    """A file is one noun and is read in one sitting; so is a function."""
    for path, source in sources.items():
        if Path(path).stem in NO_NOUNS or {*Path(path).parts[:-1]} & NO_NOUNS:
            yield f"{path}: name the thing that it holds."
        if (length := len(source.splitlines())) > MOST_LINES:
            yield f"{path} has {length} lines."
        for node in ast.walk(parsed(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > MOST_LINES_OF_A_FUNCTION:
                    yield f"{path}: {node.name} has {length} lines."


def things_without_docstring(sources: Sources) -> Iterator[str]:
    """Every file, public class, function and method says what it is."""
    for path, source in sources.items():
        tree = parsed(source)
        if source.strip() and not ast.get_docstring(tree):
            yield path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_" and not ast.get_docstring(node):
                yield f"{path}: {node.name}"


def folders_without_init(sources: Sources) -> Iterator[str]:
    """A folder without `__init__.py` is not found by everything that looks for packages."""
    folders = {Path(path).parent.as_posix() for path in sources} - {"."}
    yield from (folder for folder in sorted(folders) if f"{folder}/__init__.py" not in sources)


RULES: list[Callable[[Sources], Iterator[str]]] = [
    upward_imports,
    upward_imports_in_a_room,
    circles,
    names_of_the_trainer_shell,
    other_entries_of_nemo,
    foreign_packages,
    relative_imports,
    files_of_many_things,
    things_without_docstring,
    folders_without_init,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule):
    assert list(rule(SOURCES)) == [], rule.__doc__


# --- each rule finds what breaks it -----------------------------------------------------------------------------------

STREAM, MODEL = "from nemo_duplex.streaming.engine import Engine\n", "models/duplex_s2s.py"
ENGINE = {"streaming/engine.py": ""}
BROKEN = {
    "an import upward": (upward_imports, {"llm/a.py": "import nemo_duplex.data.b", "data/b.py": ""}, "llm/a.py"),
    "upward in a function": (upward_imports, {"llm/a.py": "def f():\n    " + STREAM, **ENGINE}, "llm/a.py"),
    "upward for types": (upward_imports, {"llm/a.py": "if TYPE_CHECKING:\n    " + STREAM, **ENGINE}, "llm/a.py"),
    "a sibling": (upward_imports, {"llm/a.py": "from nemo_duplex.codec import b", "codec/b.py": ""}, "llm/a.py"),
    "a room that is not listed": (upward_imports, {"tools/a.py": ""}, "tools/a.py"),
    "a public name": (upward_imports, {"streaming/a.py": "from nemo_duplex import FSQCodec"}, "streaming/a.py"),
    "the import upward at the top": (upward_imports, {MODEL: STREAM, **ENGINE}, MODEL),
    "another function": (upward_imports, {MODEL: "def run():\n    " + STREAM, **ENGINE}, MODEL),
    "the import upward in another file": (
        upward_imports,
        {"models/a.py": "def open_session():\n    " + STREAM, **ENGINE},
        "models/a.py",
    ),
    "a type beside the import upward": (
        upward_imports,
        {
            MODEL: "def open_engine():\n    " + STREAM + "if TYPE_CHECKING:\n    import nemo_duplex.streaming.rows",
            **ENGINE,
            "streaming/rows.py": "",
        },
        "imports streaming/rows.py",
    ),
    "a sub-room and a file above it": (
        upward_imports_in_a_room,
        {"models/nemo/a.py": "from nemo_duplex.models.parts import b", "models/parts.py": ""},
        "models/nemo/a.py imports models/parts.py",
    ),
    "two sub-rooms": (
        upward_imports_in_a_room,
        {"models/nemo/a.py": "import nemo_duplex.models.in_tree.b", "models/in_tree/b.py": ""},
        "models/nemo/a.py imports models/in_tree/b.py",
    ),
    "a file below interop": (
        upward_imports_in_a_room,
        {"models/parts.py": "import nemo_duplex.models.interop", "models/interop.py": ""},
        "models/parts.py imports models/interop.py",
    ),
    "a circle of types and functions": (
        circles,
        {
            "llm/a.py": "if TYPE_CHECKING:\n    from nemo_duplex.llm.b import B",
            "llm/b.py": "def f():\n    import nemo_duplex.llm.c",
            "llm/c.py": "from nemo_duplex.llm import a",
        },
        "llm/a.py -> llm/b.py -> llm/c.py -> llm/a.py",
    ),
    "through the import upward and back": (
        circles,
        {MODEL: "def open_engine():\n    " + STREAM, "streaming/engine.py": "import nemo_duplex.models.duplex_s2s"},
        "models/duplex_s2s.py -> streaming/engine.py -> models/duplex_s2s.py",
    ),
    "the trainer shell by import": (names_of_the_trainer_shell, {"streaming/a.py": "import nemo_duplex.models.duplex_s2s"}, ""),
    "the trainer shell in words": (names_of_the_trainer_shell, {"streaming/b/a.py": '"""Runs a DuplexS2SModel."""'}, ""),
    "NeMo in a function": (other_entries_of_nemo, {"channels/a.py": "def f():\n    import nemo.core"}, "channels/a.py"),
    "speechlm2": (other_entries_of_nemo, {"models/parts.py": "import nemo.collections.speechlm2"}, "models/parts.py"),
    "the other lightning": (foreign_packages, {"training/a.py": "import pytorch_lightning as pl"}, "training/a.py"),
    "a relative import": (relative_imports, {"llm/a.py": "from . import b"}, "llm/a.py"),
    "a drawer": (files_of_many_things, {"llm/utils.py": ""}, "llm/utils.py"),
    "a folder of drawers": (files_of_many_things, {"llm/common/a.py": ""}, "llm/common/a.py"),
    "a long file": (files_of_many_things, {"llm/a.py": "x = 1\n" * 401}, "401 lines"),
    "a long function": (files_of_many_things, {"llm/a.py": "def f():\n" + "    x = 1\n" * 75}, "f has 76 lines"),
    "a silent file": (things_without_docstring, {"llm/a.py": "x = 1"}, "llm/a.py"),
    "a silent class": (things_without_docstring, {"llm/a.py": '"""A."""\nclass Loud:\n    pass'}, "llm/a.py: Loud"),
    "a folder alone": (folders_without_init, {"llm/a.py": ""}, "llm"),
}


@pytest.mark.parametrize("rule, sources, culprit", BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_names_its_culprit(rule, sources, culprit):
    (offender,) = rule(sources)
    assert culprit in offender


def test_what_the_rules_allow():
    upward = "def open_session():\n    " + STREAM + "if TYPE_CHECKING:\n    " + STREAM
    sources = {
        MODEL: '"""Opens."""\nimport nemo_duplex.models.nemo.card\n' + upward,
        "models/__init__.py": "",
        "models/nemo/__init__.py": "",
        "models/nemo/card.py": '"""A card."""\nfrom nemo_duplex.inputs import InputError',
        "streaming/__init__.py": "",
        "streaming/engine.py": '"""An engine."""\nfrom nemo_duplex.models.nemo import card',
        "inputs.py": '"""Input."""\nimport nemo_duplex.frames',
        "frames.py": '"""Frames."""',
        "__init__.py": '"""Offers."""\nfrom nemo_duplex.models.duplex_s2s import DuplexS2SModel',
    }
    allowed = {rule.__name__: list(rule(sources)) for rule in RULES}
    allowed["things_without_docstring"].remove(f"{MODEL}: open_session")
    assert not any(allowed.values()), allowed


def test_the_lists_name_what_exists():
    assert {path for path in MAY_IMPORT_NEMO | MEETS_IN_TREE | {UPWARD} if path not in SOURCES} == set()
    assert {p for p in MAY_IMPORT_NEMO if not any(m.split(".")[0] == "nemo" for m, _ in imports(SOURCES[p]))} == set()
    opened = {inside for file, inside in own_imports(UPWARD, SOURCES) if room(file) == "streaming"}
    assert opened - {"TYPE_CHECKING"} == UPWARD_FUNCTIONS


def test_an_example_reads_config_builds_and_runs():
    for path in sorted((ROOT / "examples").glob("*.py")):
        lines = len(path.read_text().splitlines())
        assert lines <= MOST_LINES_OF_AN_EXAMPLE, f"{path.name} has {lines} lines: move what it does into a room."


def test_no_test_sets_the_clock_of_all():
    """asyncio asks `time` as well: a server that looks at a clock of tomorrow sleeps until then. A test sets its module's."""
    of_all = re.compile(r"setattr\((\w+\.)?time, ")
    assert [str(path) for path in (ROOT / "tests").rglob("*.py") if of_all.search(path.read_text())] == []
