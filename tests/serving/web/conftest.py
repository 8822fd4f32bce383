"""A browser for the modules of the page, and servers and voices for the page itself."""

import numpy as np
import pytest
import soundfile
from starlette.applications import Starlette

from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.serving.page import page_routes
from tests.browser import chromium
from tests.dummies import voice_like
from tests.serving.answering import serving

RATE = 16000


def voice(seconds):
    """What counts as speech."""
    return voice_like(seconds).numpy()


def silence(seconds):
    return np.zeros(round(seconds * RATE), np.float32)


@pytest.fixture(scope="session")
def modules():
    """A browser on the page of a server that answers no calls: what is tested of it are its modules."""
    with serving(Starlette(routes=[*page_routes()]), ServerConfig()) as address, chromium() as browser:
        browser.open(f"http://{address}/")
        yield browser


@pytest.fixture(scope="session")
def spoken(tmp_path_factory):
    """Writes what a fake microphone hears, parts of speech and silence, and gives the path."""

    def write(*parts):
        path = tmp_path_factory.mktemp("voice") / "voice.wav"
        # With %noloop, Chromium goes on with the last buffer, which must be silent.
        soundfile.write(path, np.concatenate([*parts, silence(2)]), RATE)
        return path

    return write
