"""One frame of many rows: each is what it is alone, and rows that are not live stay as they are."""

import numpy as np
import pytest
import torch

from nemo_duplex.streaming.rows import AgentRows, ChunkBatch
from nemo_duplex.streaming.stage_runner import mapped, tensors
from tests.dummies import speech_like

CPU = torch.device("cpu")


@pytest.fixture
def rows(model):
    return AgentRows(model)


@pytest.fixture
def audio(rows):
    """(3, chunk_samples)"""
    return np.stack([speech_like(rows.chunk_samples / 16000, seed).numpy() for seed in (1, 5, 9)])


@pytest.fixture
def state(rows, audio):
    """Of three rows that have heard an encoder chunk each and made its two frames."""
    state = rows.init_state(3)
    with torch.inference_mode():
        rows.hear(state, ChunkBatch.of(audio, {0: 0, 1: 1, 2: 2}, 3, CPU))
    for _ in range(2):
        made(rows, state, True, True, True)
    return state


def made(rows, state, *live):
    """Tokens, codes and sound of the rows in which a frame is made."""
    live = torch.tensor(live)
    with torch.inference_mode():
        tokens, codes = rows.think(state, live, None, False)
        sound = rows.speak(state, codes, live, None)
    return [(int(tokens[i]), *codes[i].tolist(), sound[i].numpy().tobytes()) for i in range(len(live)) if live[i]]


def test_rows_need_not_be_in_step(rows, audio, state):
    """Two rows that make their two frames together, or one after the other: the same to the bit."""
    together, apart = state, mapped(state, torch.clone)
    for one in (together, apart):
        with torch.inference_mode():
            rows.hear(one, ChunkBatch.of(audio[1:], {0: 0, 1: 2}, 3, CPU))
    (a, b), (c, d) = (made(rows, together, True, False, True) for _ in range(2))
    assert len({a, b, c, d}) > 2 and a != c and a != b, "A model that says one thing would prove nothing."
    assert made(rows, apart, False, False, True) == [b]
    assert made(rows, apart, True, False, False) == [a]
    assert made(rows, apart, True, False, False) == [c]
    assert made(rows, apart, False, False, True) == [d]
    assert together.frames.tolist() == apart.frames.tolist() == [4, 2, 4]
    assert together.answered.tolist() == apart.answered.tolist() == [2, 2, 2]


def test_an_encoder_chunk_reaches_the_row_that_it_is_of(rows, audio):
    """Whatever its entry in the batch."""
    pending = []
    for entries in ({0: 0, 1: 1, 2: 2}, {0: 1, 1: 2, 2: 0}):
        state = rows.init_state(3)
        with torch.inference_mode():
            rows.hear(state, ChunkBatch.of(audio[[entries[entry] for entry in range(3)]], entries, 3, CPU))
        pending.append(state.pending)
    assert torch.equal(*pending) and len(pending[0].flatten(1).unique(dim=0)) == 3


def test_entries_without_a_row_get_idle_ones():
    batch = ChunkBatch.of(np.zeros((4, 2), np.float32), {1: 0, 2: 3}, 6, CPU)
    assert batch.rows.tolist() == [1, 0, 3, 2] and batch.live.tolist() == [False, True, True, False]


def test_a_row_is_copied_and_put_whole_and_the_first_ones_are_a_view(rows, state):
    made(rows, state.first(2), True, True)
    assert state.frames.tolist() == [3, 3, 2]
    fresh, copy = rows.init_state(1), state.row(1)
    state.put(1, fresh)
    assert all(torch.equal(a, b) for a, b in zip(tensors(state.row(1)), tensors(fresh), strict=True))
    assert copy.frames.tolist() == [3] and copy.pending.any()
    state.put(2, copy)
    assert all(torch.equal(a, b) for a, b in zip(tensors(state.row(2)), tensors(copy), strict=True))


def test_rows_without_commands_cost_nothing(rows):
    assert rows.commands([None, None]) is None
