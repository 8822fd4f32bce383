"""Callers in real time: which audio a frame needs, when it is late, when a player is dry."""

import asyncio

import numpy as np
import pytest

from nemo_duplex.benchmark.paced_callers import RATE, ChunkNeeds, Heard, MoshiWire, TalkWire, _judge, call
from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.config import ServerConfig
from tests.dummies import tiny_model
from tests.serving.answering import serving


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def needs(model):
    return ChunkNeeds(model.perception.chunk_frames, -model.perception.lead_samples / model.user_sample_rate)


def test_a_frame_needs_the_messages_that_the_engine_needs_for_it(model, needs):
    """Messages of 80 ms are pushed one by one: how many frames there are after each."""
    session, made = model.open_session(), []
    for _ in range(6):
        made.append(len(session.push(np.zeros(1280, np.float32))))
    needed = [needs.message(frame) for frame in range(sum(made))]
    assert needed == [message for message, frames in enumerate(made) for _ in range(frames)] == [1, 1, 3, 3, 5, 5]


def test_lateness_counts_from_when_a_frame_is_due(needs):
    """The first frame of a chunk with the message that it needs, the second 80 ms later; early ones are not late."""
    heard = Heard()
    _judge(heard, [10.0, 10.08, 10.16, 10.24], [10.09, 10.10, 10.27, 10.36, 99.0], needs)
    assert heard.late == pytest.approx([0.01, 0.0, 0.03, 0.04])  # the fifth frame needs a message that was not sent


@pytest.mark.parametrize(
    "frame_at, dry",
    [([0.0, 0.08, 0.16], 0), ([0.0, 0.16, 0.24], 0), ([0.0, 0.17, 0.25, 0.33], 1), ([0.0, 0.0, 0.5, 0.59, 0.9], 3)],
)
def test_a_player_is_dry_when_a_frame_comes_after_its_buffer_of_80_ms(needs, frame_at, dry):
    heard = Heard()
    _judge(heard, [], frame_at, needs)
    assert heard.underruns == dry


@pytest.mark.slow
@pytest.mark.parametrize("wire", [TalkWire, MoshiWire])
def test_a_caller_hears_a_frame_for_every_frame(model, needs, wire):
    with serving(make_app(model, ServerConfig(callers=1))) as address:
        heard = asyncio.run(call(address, wire(), np.zeros(RATE, np.float32), 1.6, needs, 0.0))
    assert heard.dropped == "" and len(heard.late) == 20 and 0 <= max(heard.late) < 2.0


def test_a_caller_says_why_its_call_ended(needs):
    heard = asyncio.run(call("127.0.0.1:1", TalkWire(), np.zeros(RATE, np.float32), 0.1, needs, 0.0))
    assert heard.dropped.startswith(("ConnectionRefusedError", "OSError")) and heard.late == []
