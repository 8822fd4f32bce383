"""Young and old conversations: of the ages that are said, in turns, neither always the first."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from nemo_duplex.benchmark import age
from nemo_duplex.benchmark.age import age_tables, compare_ages


@pytest.fixture
def model(clock, monkeypatch):
    """Frame n of a session takes 10 + 0.1 n ms; `model.log` has the (session, n) of each."""
    monkeypatch.setattr(age, "time", clock)
    model = SimpleNamespace(perception=SimpleNamespace(samples_per_frame=4), log=[], sessions=0)

    def open_session():
        model.sessions += 1
        number, frames = model.sessions, []

        def push(frame):
            assert frame.shape == (4,)
            clock.now += 0.010 + 0.0001 * len(frames)
            model.log.append((number, len(frames)))
            frames.append(frame)

        return SimpleNamespace(push=push)

    model.open_session = open_session
    return model


def test_both_are_measured_at_the_ages_that_are_said(model, monkeypatch):
    """40 frames of each, around frame 25 and frame 50, in blocks of ten that take turns."""
    monkeypatch.setattr(age, "resident_bytes", lambda: 1_000 * len(model.log))
    ages = compare_ages(model, np.zeros(400, np.float32), young=2.0, old=4.0, span=3.2)
    assert (ages.young, ages.old, ages.pairs, ages.grown_bytes) == (2.0, 4.0, 4, 5_000)
    old, young = 1, 2
    blocks = model.log[-80:]
    assert [blocks[i] for i in range(0, 80, 10)] == [
        (young, 5), (old, 30), (old, 40), (young, 15), (young, 25), (old, 50), (old, 60), (young, 35),
    ]  # fmt: skip
    # a block that begins at frame n takes 10 + 0.1 (n + 4.5) ms a frame
    assert ages.young_frame == pytest.approx(0.01245) and ages.old_frame == pytest.approx(0.01495)
    ratios = [(10.45 + 0.1 * o) / (10.45 + 0.1 * y) for o, y in ((30, 5), (40, 15), (50, 25), (60, 35))]
    assert ages.ratio == pytest.approx(np.median(ratios))


def test_the_table_says_what_was_measured():
    part = dict(about=["an agent"], young=60.0, old=1800.0, young_frame=0.01, old_frame=0.012, ratio=1.2, pairs=75)
    (table,) = age_tables({"age": part | {"grown_bytes": 1_500_000}, "date": "today", "machine": "here"})
    assert table.columns == ("", "minute 1", "minute 30", "old to young")
    assert table.rows == [("a frame", "10 ms", "12 ms", "1.200"), ("the process grew by", "", "1.5 MB", "")]
    assert table.about == ["an agent", "today, here", "two sessions in turns, 75 of each"]
