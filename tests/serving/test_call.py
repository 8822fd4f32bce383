"""What a frame of the engine means for a call: when the user begins to speak and has ended."""

import asyncio
from types import SimpleNamespace

import numpy as np

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.serving.call import Call
from nemo_duplex.serving.caller_audio import AudioRules
from nemo_duplex.streaming.session import AgentFrame


def edges(active: str) -> tuple[str, str, str]:
    """What a call says of frames in which the user is active (#) or not (.): active, started and stopped."""

    async def frames():
        worker = SimpleNamespace(layout=ChannelLayout(60, 0, 1, 2, 2, 36), frame_seconds=0.08)
        call = Call(worker, 16000, AudioRules())
        sound, codes = np.zeros(1764, np.float32), np.zeros(2, np.int64)
        return [
            call.frame(AgentFrame(index, "", 0, codes, sound, letter == "#"), now=0.0, step=0.0)
            for index, letter in enumerate(active)
        ]

    made = asyncio.run(frames())
    assert [frame.index for frame in made] == list(range(len(active)))
    flags = [(f.user_active, f.user_started, f.user_stopped) for f in made]
    one, two, three = ("".join(".#"[flag] for flag in of) for of in zip(*flags))
    return one, two, three


def test_the_user_starts_in_the_first_active_frame_and_stops_in_the_first_silent_one():
    assert edges("..###..") == ("..###..", "..#....", ".....#.")
    assert edges("###.###") == ("###.###", "#...#..", "...#...")
    assert edges("....") == ("....", "....", "....")
