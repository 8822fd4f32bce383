"""The README tells the truth: it names every room and no other, its commands are there, its keys are keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nemo_duplex.scripts.config import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_has_a_line_for_every_room_and_no_other():
    named = set(re.findall(r"^\| `(\w+)/` \|", README, re.MULTILINE))
    assert named >= {p.name for p in (ROOT / "nemo_duplex").iterdir() if (p / "__init__.py").is_file()}


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
