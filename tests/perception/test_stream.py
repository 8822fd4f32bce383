"""Streams of any age in one batch, each of which gives what the whole recording gives."""

import pytest
import torch

from nemo_duplex.perception.stream import PerceptionStream
from tests.dummies import speech_like
from tests.perception.tiny import FRAME, chunks_of, step, streamed, tensors, tiny_perception, whole


def start_anew(state, row):
    for tensor in tensors(state):
        tensor[row] = 0


@pytest.mark.parametrize(
    ("context", "adapter"),
    [
        ((70, 0), "mlp"),
        ((70, 1), "mlp"),
        ((70, 1), "conformer"),
        ((70, 1), "identity"),
        ((70, 6), "conformer"),
        ((70, 13), "mlp"),
    ],
    ids=str,
)
def test_a_stream_equals_the_whole_recording(context, adapter):
    perception, audio = tiny_perception(context, adapter), speech_like(7.5)  # 94 frames: the window of 70 moves on
    torch.testing.assert_close(streamed(perception, audio), whole(perception, audio), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("context", "adapter"), [((70, 0), "mlp"), ((70, 1), "conformer"), ((4, 1), "mlp"), ((6, 2), "identity")]
)
def test_a_stream_of_whisper_equals_the_whole_recording(context, adapter):
    perception, audio = tiny_perception(context, adapter, kind="whisper"), speech_like(7.5)
    found, expected = streamed(perception, audio), whole(perception, audio)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert expected.std(0).mean() > 0.1  # it is about the sound


@pytest.mark.parametrize("kind", ["conformer", "whisper"])
@pytest.mark.parametrize("context", [(70, 0), (70, 1), (70, 6)], ids=str)
def test_no_frame_is_lost_at_the_tail(context, kind):
    perception, audio = tiny_perception(context, "conformer", kind=kind), speech_like(1.0)
    for samples in (1, FRAME - 1, FRAME, FRAME + 1, FRAME + 200, FRAME + 201, 2 * FRAME + 1, 7 * FRAME):
        expected = whole(perception, audio[:samples])
        assert len(expected) == -(-samples // FRAME)
        torch.testing.assert_close(streamed(perception, audio[:samples]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "change",
    [{"conv_norm_type": "batch_norm"}, {"xscaling": True}, {"untie_biases": False}, {"use_bias": False}, {"feat_out": 12}],
    ids=str,
)
def test_encoders_of_other_builds(change):
    perception = tiny_perception(**change)
    if "conv_norm_type" in change:
        for layer in perception.encoder.layers:
            layer.conv.batch_norm.running_mean.normal_(std=0.1)
    audio = speech_like(1.0)
    torch.testing.assert_close(streamed(perception, audio), whole(perception, audio), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("context", "adapter", "kind"),
    [
        ((70, 0), "mlp", "conformer"),
        ((70, 1), "conformer", "conformer"),
        ((70, 6), "mlp", "conformer"),
        ((4, 1), "mlp", "whisper"),
        ((70, 1), "conformer", "whisper"),
    ],
    ids=str,
)
def test_streams_of_different_age_share_a_batch(context, adapter, kind):
    """Three rows, the second joins later, the third ends and a new stream takes its row: each as if it were alone.

    Only some rows are in the batch, in another order each time, and one of them may only fill it.
    """
    perception = tiny_perception(context, adapter, kind=kind)
    streams = [speech_like(seconds, seed) for seed, seconds in enumerate((6.5, 3.0, 1.5, 2.5))]
    chunks = [chunks_of(perception, audio) for audio in streams]
    start = {0: 0, 1: 3, 2: 1, 3: 1 + len(chunks[2]) + 2}  # tick at which a stream begins
    row_of = {0: 0, 1: 1, 2: 2, 3: 2}
    found = {number: [] for number in start}
    stream = PerceptionStream(perception)
    state = stream.init_state(3)
    for tick in range(max(start[c] + len(chunks[c]) for c in start)):
        if tick == start[3]:
            start_anew(state, 2)
        due = [number for number in start if 0 <= tick - start[number] < len(chunks[number])]
        due = due[tick % len(due) :] + due[: tick % len(due)] if due else []
        rows = [row_of[number] for number in due]
        idle = [row for row in range(3) if row not in rows][: tick % 3]
        audio = torch.stack([chunks[c][tick - start[c]] for c in due] + [torch.randn(perception.chunk_samples) for _ in idle])
        embeddings = step(stream, state, audio, rows + idle, [True] * len(rows) + [False] * len(idle))
        for number, frames in zip(due, embeddings):
            found[number].append(frames)
    for number, audio in enumerate(streams):
        expected = whole(perception, audio)
        torch.testing.assert_close(torch.cat(found[number])[: len(expected)], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["conformer", "whisper"])
def test_a_row_that_only_fills_the_batch_stays_as_it_is(kind):
    """All that it remembers, except the slot that nothing looks at: its next encoder chunk gives the same."""
    perception = tiny_perception(adapter="conformer", kind=kind)
    stream = PerceptionStream(perception)
    chunk, noise = torch.randn(1, perception.chunk_samples), torch.full((1, perception.chunk_samples), 9.0)
    states = stream.init_state(1), stream.init_state(1)
    for state, disturbed in zip(states, (False, True)):
        for _ in range(40):
            step(stream, state, chunk, [0])
            if disturbed:
                step(stream, state, noise, [0], [False])
    expected, found = (step(stream, state, chunk, [0]) for state in states)
    assert torch.equal(found, expected)
    assert all(torch.equal(a, b) for a, b in zip(tensors(states[0]), tensors(states[1])))


@pytest.mark.parametrize("kind", ["conformer", "whisper"])
def test_what_one_stream_breaks_stays_in_its_row(kind):
    """A row full of NaN leaves the others alone, and is as new once it starts anew."""
    perception = tiny_perception(adapter="conformer", kind=kind)
    stream, audio = PerceptionStream(perception), speech_like(2.0)
    state, rows = stream.init_state(2), []
    step(stream, state, torch.full((2, perception.chunk_samples), float("nan")), [0, 1])
    start_anew(state, 0)
    for chunk in chunks_of(perception, audio):
        rows.append(step(stream, state, torch.stack([chunk, chunk * float("nan")]), [0, 1])[0])
    expected = whole(perception, audio)
    torch.testing.assert_close(torch.cat(rows)[: len(expected)], expected, atol=1e-5, rtol=0)
