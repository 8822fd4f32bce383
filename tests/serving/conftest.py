"""One quiet agent, and servers of it, for all tests of this room; how many inputs its decoders are given."""

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.caller_audio import AudioRules
from nemo_duplex.serving.config import ServerConfig
from tests.serving.answering import make_answering, quiet_model, serving

#: On a busy machine, audio comes late and the model is behind; frames are the same all the same. No silence takes the place
#: of what a caller does not send.
UNHURRIED = AudioRules(patience=60.0, patience_at_start=60.0, skip_after=60.0)
QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
settings.register_profile("tests", max_examples=100, derandomize=True, **QUIET)
settings.register_profile("fuzz", max_examples=10_000, print_blob=True, **QUIET)  # `make fuzz`
settings.load_profile("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests by hypothesis are those that `make fuzz` runs, with 10,000 inputs each."""
    for item in items:
        if is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker("fuzz")


@pytest.fixture(scope="session")
def agent(tmp_path_factory):
    return quiet_model(tmp_path_factory.mktemp("agent"))


@pytest.fixture
def server(agent):
    """A running server of the answering agent: its address."""
    app = make_answering(make_app(agent, ServerConfig(callers=4, audio=UNHURRIED)))
    with serving(app) as address:
        yield address
