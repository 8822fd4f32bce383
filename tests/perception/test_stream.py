"""The ear of the engine: callers of any age in one batch, each of whom is heard as in a recording of his own."""

import copy

import pytest
import torch

from nemo_duplex.perception.perception import Perception
from nemo_duplex.perception.stream import PerceptionStream
from nemo_duplex.streaming.stage_runner import tensors
from tests.dummies import PERCEPTION, speech_like

FRAME = 1280  # samples


def debug_perception(context=(70, 1), adapter="mlp", **encoder):
    torch.manual_seed(0)
    config = copy.deepcopy(PERCEPTION)
    config["encoder"] |= {"att_context_size": list(context), **encoder}
    config["adapter"] = {"kind": adapter}
    perception = Perception(config).eval()
    for name, weight in perception.named_parameters():
        if "pos_bias" in name:  # zero at the start of training
            torch.nn.init.normal_(weight)
    return perception


@torch.no_grad()
def whole(perception, audio):
    """(S,) -> (T, H) of the recording alone."""
    return perception(audio[None], torch.tensor([len(audio)]))[0][0]


def chunks_of(perception, audio):
    """The encoder chunks of a stream (S,), the last one filled up with silence."""
    frames = -(-len(audio) // FRAME)
    stream = torch.cat([torch.zeros(perception.lead_samples), audio, torch.zeros(perception.chunk_samples)])
    count = -(-frames // perception.chunk_frames)
    return stream[: count * perception.chunk_samples].view(count, -1)


def hear(stream, state, audio, rows, live=None):
    """One encoder chunk (n, S) of some rows -> (n, chunk_frames, H)."""
    rows = torch.tensor(rows)
    live = torch.ones(len(rows), dtype=torch.bool) if live is None else torch.tensor(live)
    with torch.no_grad():
        return stream.encoder(stream.mel(audio, state, rows, live), state, rows, live)


def start_anew(state, row):
    for tensor in tensors(state):
        tensor[row] = 0


@pytest.mark.parametrize("adapter", ["mlp", "conformer", "identity"])
@pytest.mark.parametrize("context", [(70, 0), (70, 1), (70, 6), (70, 13)], ids=str)
def test_a_stream_equals_the_whole_recording(context, adapter):
    perception = debug_perception(context, adapter)
    stream, audio = PerceptionStream(perception), speech_like(7.5)  # 94 frames: the window of 70 moves on
    state = stream.init_state(1)
    heard = torch.cat([hear(stream, state, chunk[None], [0])[0] for chunk in chunks_of(perception, audio)])
    expected = whole(perception, audio)
    torch.testing.assert_close(heard[: len(expected)], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "change",
    [{"conv_norm_type": "batch_norm"}, {"xscaling": True}, {"untie_biases": False}, {"use_bias": False}, {"feat_out": 12}],
    ids=str,
)
def test_encoders_of_other_builds(change):
    perception = debug_perception(**change)
    if "conv_norm_type" in change:
        for layer in perception.encoder.layers:
            layer.conv.batch_norm.running_mean.normal_(std=0.1)
    stream, audio = PerceptionStream(perception), speech_like(1.0)
    state = stream.init_state(1)
    heard = torch.cat([hear(stream, state, chunk[None], [0])[0] for chunk in chunks_of(perception, audio)])
    expected = whole(perception, audio)
    torch.testing.assert_close(heard[: len(expected)], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("adapter", ["mlp", "conformer"])
@pytest.mark.parametrize("context", [(70, 0), (70, 1), (70, 6)], ids=str)
def test_callers_of_different_age_share_a_batch(context, adapter):
    """Three rows, the second joins later, the third hangs up and a new caller takes its row: each as if it were alone.

    Only some rows are in the batch, in another order each time, and one of them may only fill it.
    """
    perception = debug_perception(context, adapter)
    callers = [speech_like(seconds, seed) for seed, seconds in enumerate((6.5, 3.0, 1.5, 2.5))]
    chunks = [chunks_of(perception, audio) for audio in callers]
    start = {0: 0, 1: 3, 2: 1, 3: 1 + len(chunks[2]) + 2}  # tick at which a caller begins
    row_of = {0: 0, 1: 1, 2: 2, 3: 2}
    heard = {caller: [] for caller in start}
    stream = PerceptionStream(perception)
    state = stream.init_state(3)
    for tick in range(max(start[c] + len(chunks[c]) for c in start)):
        if tick == start[3]:
            start_anew(state, 2)
        due = [caller for caller in start if 0 <= tick - start[caller] < len(chunks[caller])]
        due = due[tick % len(due) :] + due[: tick % len(due)] if due else []
        rows = [row_of[caller] for caller in due]
        idle = [row for row in range(3) if row not in rows][: tick % 3]
        audio = torch.stack([chunks[c][tick - start[c]] for c in due] + [torch.randn(perception.chunk_samples) for _ in idle])
        embeddings = hear(stream, state, audio, rows + idle, [True] * len(rows) + [False] * len(idle))
        for caller, frames in zip(due, embeddings):
            heard[caller].append(frames)
    for caller, audio in enumerate(callers):
        expected = whole(perception, audio)
        torch.testing.assert_close(torch.cat(heard[caller])[: len(expected)], expected, atol=1e-5, rtol=0)


def test_a_row_that_only_fills_the_batch_stays_as_it_is():
    """All that it remembers, but for the slot that nobody looks at: its next encoder chunk is heard as if it had been left
    alone."""
    perception = debug_perception(adapter="conformer")
    stream = PerceptionStream(perception)
    chunk, noise = torch.randn(1, perception.chunk_samples), torch.full((1, perception.chunk_samples), 9.0)
    states = stream.init_state(1), stream.init_state(1)
    for state, disturbed in zip(states, (False, True)):
        for _ in range(40):
            hear(stream, state, chunk, [0])
            if disturbed:
                hear(stream, state, noise, [0], [False])
    expected, found = (hear(stream, state, chunk, [0]) for state in states)
    assert torch.equal(found, expected)
    assert all(torch.equal(a, b) for a, b in zip(tensors(states[0]), tensors(states[1])))


def test_what_one_caller_breaks_stays_with_him():
    """A row full of NaN leaves the others alone, and is as new once it starts anew."""
    perception = debug_perception(adapter="conformer")
    stream, audio = PerceptionStream(perception), speech_like(2.0)
    state, rows = stream.init_state(2), []
    hear(stream, state, torch.full((2, perception.chunk_samples), float("nan")), [0, 1])
    start_anew(state, 0)
    for chunk in chunks_of(perception, audio):
        rows.append(hear(stream, state, torch.stack([chunk, chunk * float("nan")]), [0, 1])[0])
    expected = whole(perception, audio)
    torch.testing.assert_close(torch.cat(rows)[: len(expected)], expected, atol=1e-5, rtol=0)
