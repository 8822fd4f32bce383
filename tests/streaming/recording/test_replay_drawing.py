"""What is said and drawn of a replay."""

from types import SimpleNamespace

import numpy as np
import pytest

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.frames import FRAME_RATE
from nemo_duplex.streaming.recording.replay import FramePair, Replay
from nemo_duplex.streaming.recording.replay_drawing import drawing, level, verdict
from nemo_duplex.streaming.session import AgentFrame

LAYOUT = ChannelLayout(200, text_pad=0, text_bos=1, text_eos=2, num_codebooks=2, codebook_size=20)
MODEL = SimpleNamespace(layout=LAYOUT, tokenizer=SimpleNamespace(ids_to_text=lambda ids: "".join(map(chr, ids))))
LOUD = np.full(1764, 0.9, np.float32)


class FiveFrames:
    """As much of a recording as is drawn."""

    frame_rate = FRAME_RATE

    def __len__(self):
        return 5

    def user_audio(self, frame):
        return LOUD if frame == 3 else LOUD * 0


def frame(index, token=0, codes=(23, 23), audio=LOUD * 0):
    return AgentFrame(index, "", token, np.array(codes), audio)


def result(pairs, first, distance=0.0, environment=()):
    return Replay(FiveFrames(), 5, first, distance, list(environment), pairs)


def test_identical():
    assert list(verdict(result([], {}))) == ["identical: 5 frames"]
    said = list(verdict(result([], {}, environment=["machine threads 2 (recorded: 1)", "version torch 3 (recorded: 2)"])))
    assert said == ["identical: 5 frames", "not as recorded: machine threads 2 (recorded: 1), version torch 3 (recorded: 2)"]


def test_both_channels_around_the_frame_that_differs():
    pairs = [
        FramePair(frame(1), frame(1)),
        FramePair(frame(2, 1, (20, 20)), frame(2)),
        FramePair(frame(3, ord("a"), (3, 17), LOUD), frame(3, ord("b"), (3, 17), LOUD - 1e-4)),
        FramePair(frame(4, 2, (21, 4), LOUD), None),
    ]
    replay = result(pairs, {"token": 2, "codes": 2, "audio": 3, "end": 4}, 1e-4)
    assert list(verdict(replay)) == [
        "the replay ends after 4 of 5 frames",
        "frame 2 of 5 (0.16 s) is the first that differs: token and codes",
        "audio differs first in frame 3 (0.24 s)",
    ]
    assert list(drawing(replay, MODEL)) == [
        "   frame     time   user        agent, recorded         agent, replayed",
        "       1    0.08 s              .      pad              =        =    =",
        ">      2    0.16 s              <bos>  bos              .        pad  =",
        "       3    0.24 s  ███████▉    a      3 17   ███████▉  b        =    by 1e-04",
        "       4    0.32 s              <eos>  eos 4  ███████▉  (ended)",
    ]


@pytest.mark.parametrize(
    "first, said",
    [
        (
            {"audio": 0},
            "frame 0 of 5 (0.00 s) is the first that differs: audio alone, by 3.0e-08 at most in the whole recording",
        ),
        ({"audio": 0, "codes": 2}, "frame 2 of 5 (0.16 s) is the first in which something else was chosen: codes"),
        ({"token": 2, "codes": 2, "audio": 2}, "frame 2 of 5 (0.16 s) is the first that differs: token, codes and audio"),
        ({"end": 3}, "the replay ends after 3 of 5 frames"),
    ],
)
def test_verdicts(first, said):
    assert next(verdict(result([], first, 3e-8))).startswith(said)


def test_levels():
    assert [level(np.full(100, 10 ** (db / 20))).rstrip() for db in (0, -30, -60, -99)] == ["████████", "████", "", ""]
    assert len({len(level(np.full(100, x))) for x in (0.0, 1e-3, 0.1, 1.0, 99.0)}) == 1
    assert level(np.zeros(0)).strip() == level(np.full(3, np.nan)).strip() == ""


def test_nothing_that_a_tokenizer_says_reaches_the_terminal():
    pairs = [FramePair(frame(0, 27), frame(0, 27))]
    assert "\\x1b" in "".join(drawing(result(pairs, {"token": 0}), MODEL))
