"""One quiet agent, and servers of it, for all tests of this room."""

import pytest

from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.config import ServerConfig
from tests.serving.answering import make_answering, quiet_model, serving


@pytest.fixture(scope="session")
def agent(tmp_path_factory):
    return quiet_model(tmp_path_factory.mktemp("agent"))


@pytest.fixture
def server(agent):
    """A running server of the answering agent: its address."""
    app = make_answering(make_app(agent, ServerConfig(callers=4)))
    with serving(app) as address:
        yield address
