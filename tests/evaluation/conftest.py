import pytest

from tests.evaluation.agents import cut_of, dialogue


@pytest.fixture(scope="session")
def cuts():
    """Three dialogues of 16 s and a bit; see `agents.dialogue`."""
    return [cut_of(dialogue(f"d{i}", shift=0.08 * i)) for i in range(3)]
