"""What the pages are made of that open without a network: one style, one player, sound within the page."""

from __future__ import annotations

import base64
import io
from importlib.resources import files

import jinja2
import numpy as np
import soundfile

#: Jinja environment of all pages: text from a corpus is escaped, a name that a template misspells is an error.
ENVIRONMENT = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)


def beside(package: str, name: str) -> str:
    """A file that lies in a package, such as a template."""
    return (files(package) / name).read_text(encoding="utf-8")


def style() -> str:
    """The CSS that the pages share."""
    return beside("nemo_duplex.pages", "page.css")


def player() -> str:
    """The JavaScript that plays conversations: buttons, keys, a line that follows the sound."""
    return beside("nemo_duplex.pages", "player.js")


def sound_url(audio: np.ndarray, sample_rate: int) -> str:
    """Audio, (S,) or (S, channels), as FLAC inside a page: some 30 kB per second at 16 kHz with two channels."""
    file = io.BytesIO()
    soundfile.write(file, audio, sample_rate, format="FLAC", subtype="PCM_16")
    return "data:audio/flac;base64," + base64.b64encode(file.getvalue()).decode("ascii")
