"""One tiny model and some calls to it, for all tests that do not change it."""

import pytest

from tests.dummies import speech_like, tiny_model
from tests.streaming.calls import LENGTHS, expected


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def calls(model):
    """Signals of `LENGTHS`, each with what offline inference makes of it."""
    return expected(model, [speech_like(n / 16000, seed) for seed, n in enumerate(LENGTHS)])
