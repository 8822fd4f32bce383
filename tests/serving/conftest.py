"""One quiet agent, and servers of it, for all tests of this room."""

import pytest

from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.caller_audio import AudioRules
from nemo_duplex.serving.config import ServerConfig
from tests.serving.answering import make_answering, quiet_model, serving

#: On a busy machine, audio comes late and the model is behind; frames are the same all the same.
UNHURRIED = AudioRules(patience=3.0, skip_after=60.0)


@pytest.fixture(scope="session")
def agent(tmp_path_factory):
    return quiet_model(tmp_path_factory.mktemp("agent"))


@pytest.fixture
def server(agent):
    """A running server of the answering agent: its address."""
    app = make_answering(make_app(agent, ServerConfig(callers=4, audio=UNHURRIED)))
    with serving(app) as address:
        yield address
