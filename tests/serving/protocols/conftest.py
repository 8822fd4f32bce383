"""A conversation of OpenAI Realtime, for the tests of its parts."""

import pytest

from tests.serving.protocols.realtime_talk import Talk


@pytest.fixture
def talk():
    return Talk()
