"""A turn in which the agent says nothing comes to an end."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.serving.call import AudioRules, Call

SAID = {"[": 1, "]": 2}


class FakeWorker:
    """Keeps what it is asked for."""

    def __init__(self):
        self.layout, self.frame_seconds, self.asked = ChannelLayout(60, 0, 1, 2, 2, 36), 0.08, []

    def ask(self, call, command, *values):
        self.asked.append((call.made, command, *values))


def stopped_in(letters, muted=False):
    """The frames after which the agent is stopped: . nothing is said, ~ sound, a text, [ BOS, ] EOS."""
    worker = FakeWorker()

    async def run():
        call = Call(worker, 24000, AudioRules())
        call.session = SimpleNamespace()
        if muted:
            call.mute(True)
        for index, letter in enumerate(letters):
            audio = np.full(1764, 0.01 if letter == "~" else 1e-4, np.float32)
            token, text = SAID.get(letter, 7 if letter == "a" else 0), "a" if letter == "a" else ""
            made = SimpleNamespace(index=index, audio=audio, token=token, text=text, user_active=False)
            call.frame(made, 0.0, 0.0)

    asyncio.run(run())
    return [made for made, command, *_ in worker.asked if command == "stop"]


@pytest.mark.parametrize(
    "letters, stops",
    [
        ("[" + "." * 48, []),
        ("[" + "." * 49, [50]),
        ("[" + "." * 99, [50, 100]),  # asked again if it does not end
        ("[..~" + "." * 49, []),
        ("[..a" + "." * 49, []),
        ("[..a" + "." * 50, [54]),
        ("[aa~]" + "." * 200, []),  # silence between turns is what it should be
    ],
)
def test_an_agent_that_says_nothing_for_four_seconds_of_a_turn_is_stopped(letters, stops):
    assert stopped_in(letters) == stops


def test_a_muted_agent_may_still_speak():
    assert stopped_in("[" + "." * 99, muted=True) == []
