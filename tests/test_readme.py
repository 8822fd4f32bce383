"""The README names every room and no other, each above those that it may import. Its commands and links: test_docs.py."""

from __future__ import annotations

import re
from pathlib import Path

from tests.test_architecture import ROOMS as LAYERS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROOMS = re.findall(r"^\| `(\w+)/` \|", README, re.MULTILINE)


def test_it_has_a_line_for_every_room_and_no_other():
    assert sorted(ROOMS) == sorted(p.name for p in (ROOT / "nemo_duplex").iterdir() if (p / "__init__.py").is_file())


def test_a_room_stands_above_those_that_it_may_import():
    depth = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
    depths = [depth[room] for room in ROOMS if room != "bundled"]  # which holds no code
    assert depths == sorted(depths, reverse=True)


def test_the_picture_is_there():
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / picture).stat().st_size > 10_000
