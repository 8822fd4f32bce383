"""The README tells the truth: its tree names every module and no other, its commands are there, its keys are keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nemo_duplex.config import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TREE = README[README.index("```\nnemo_duplex/") : README.index("conf/          what their keys are")]


def rooms_in_tree() -> dict[str, set[str]]:
    """Room -> names that stand in its lines; what a line says about them comes after the names, behind three spaces."""
    rooms: dict[str, set[str]] = {"": set()}
    room = ""
    for line in TREE.splitlines()[2:]:
        found = re.match(r"  (\w+)/", line)
        if found or line.startswith("examples/"):
            room = found[1] if found else "examples"
            line = line.split("/", 1)[1]
        elif not line.startswith("      "):
            room = ""
        names = re.split(r"\s{3,}", line.strip())[0]
        rooms.setdefault(room, set()).update(names.split())
    return rooms


def test_the_tree_names_every_module_and_no_other():
    rooms = rooms_in_tree()
    for room, names in rooms.items():
        folder = ROOT / room if room == "examples" else ROOT / "nemo_duplex" / room
        there = {p.stem for p in folder.glob("*.py") if p.stem != "__init__"}
        there |= {p.name for p in folder.glob("*.nemo")} | {p.name + "/" for p in folder.iterdir() if room and _is_package(p)}
        assert names == there, f"README's line of {room or 'the root'}: {names ^ there} should (not) stand there."
    packages = {p.name for p in (ROOT / "nemo_duplex").iterdir() if _is_package(p)}
    assert packages == rooms.keys() - {"", "examples"}


def _is_package(path: Path) -> bool:
    return path.is_dir() and (path / "__init__.py").is_file()


COMMANDS = re.findall(r"^python (examples/\w+\.py)((?:[^\n]|(?<=\\)\n)*)", README, re.MULTILINE)


@pytest.mark.parametrize("script, arguments", COMMANDS, ids=[c[0] + c[1][:30] for c in COMMANDS])
def test_every_command_has_a_script_and_keys_that_it_knows(script, arguments):
    assert (ROOT / script).is_file()
    name = "duplex_tiny" if "train_duplex" in script else Path(script).stem
    load(name, arguments.replace("\\\n", " ").split())


@pytest.mark.parametrize("target", re.findall(r"^make ([\w-]+)", README, re.MULTILINE))
def test_every_make_target_is_one(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_link_leads_somewhere():
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / link).exists(), link
