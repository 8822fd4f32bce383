"""Batches that are composed: each dialogue once, by whatever ranks and workers, entered anywhere."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nemo_duplex.data import composed_stream
from nemo_duplex.data.composed_stream import ComposedStream, composed_dataloader
from nemo_duplex.data.composition import Composition
from nemo_duplex.inputs import InputError


class Names(torch.utils.data.Dataset):
    """Batches that say which cuts they were made of, and what was drawn at random on the way."""

    def __getitem__(self, cuts):
        return [cut.id for cut in cuts], torch.rand(2).tolist(), float(np.random.rand()), random.random()


class Numbered:
    """In place of a composition: dialogue n lasts n % 7 + 1 seconds; or all last as long."""

    def __init__(self, duration=None):
        self.duration, self.made = duration, []
        self.seed = 5

    def cut(self, number):
        self.made.append(number)
        return SimpleNamespace(id=number, duration=self.duration or float(number % 7 + 1))

    def summary(self):
        return []


@pytest.fixture(autouse=True)
def lists(monkeypatch):
    """Stand-ins are no cuts."""
    monkeypatch.setattr(composed_stream.CutSet, "from_cuts", staticmethod(list))


def numbers(composition, count, **keys):
    return [batch[0] for batch in islice(ComposedStream(composition, Names(), **{"batch_size": None} | keys), count)]


# ---- which dialogues


def test_ranks_divide_the_dialogues_and_make_each_once():
    ranks = [numbers(Numbered(8.0), 4, batch_size=3, rank=rank, world_size=2) for rank in (0, 1)]
    assert ranks[0] == [[0, 1, 2], [6, 7, 8], [12, 13, 14], [18, 19, 20]]
    assert ranks[1] == [[3, 4, 5], [9, 10, 11], [15, 16, 17], [21, 22, 23]]


def test_entered_anywhere_it_goes_on_and_makes_nothing_that_was_seen():
    whole = list(islice(ComposedStream(Numbered(), Names(), batch_size=2, rank=1, world_size=3), 9))
    late = Numbered()
    assert list(islice(ComposedStream(late, Names(), batch_size=2, rank=1, world_size=3, first=6), 3)) == whole[6:]
    assert late.made == [38, 39, 44, 45, 50, 51]


@pytest.mark.parametrize(
    ("keys", "size"),
    [
        ({"batch_duration": 40.0}, 5),
        ({"batch_duration": 47.9}, 5),
        ({"batch_duration": 48.0}, 6),
        ({"batch_duration": 3.0}, 1),
        ({"batch_duration": 40.0, "batch_size": 3}, 3),
        ({"batch_duration": 40.0, "batch_size": 9}, 5),
    ],
)
def test_cuts_of_one_duration_fill_a_batch_by_count(keys, size):
    assert numbers(Numbered(8.0), 2, **keys) == [list(range(size)), list(range(size, 2 * size))]


def test_seconds_hold_as_many_dialogues_as_fit_with_their_padding():
    """Durations of 1 to 7 s, 20 s a batch: a batch is whole where one more like its longest would not fit."""
    apart = composed_stream._APART
    batches = numbers(Numbered(), 14, batch_duration=20.0)
    assert [[number % apart for number in batch] for batch in batches] == [[i] * len(batches[i]) for i in range(14)]
    assert [[number // apart for number in batch] for batch in batches] == [list(range(len(batch))) for batch in batches]
    for batch in batches:
        durations = [number % 7 + 1 for number in batch]
        assert (len(batch) + 1) * max(durations) > 20
        assert len(batch) * max(durations[:-1], default=0) <= 20, "it would have been whole before"
    assert [number % 7 + 1 for number in batches[6]] == [7, 6], "by the longest, not by the last"
    assert numbers(Numbered(), 1, batch_duration=20.0, batch_size=1) == [[0]]
    used = [number for batch in numbers(Numbered(), 50, batch_duration=20.0) for number in batch]
    assert len(used) == len(set(used))


def test_every_row_of_a_source_has_its_turn_where_seconds_fill_a_batch():
    """With numbers side by side, a source of 100 rows would give some of them never."""
    rows = [number % 100 for batch in numbers(Numbered(), 100, batch_duration=20.0) for number in batch]
    assert set(rows) == set(range(100)) and max(map(rows.count, range(100))) <= 12


# ---- through the loader


def take(loader, count):
    return list(islice(loader, count))


def loader(num_workers, **changes):
    keys = {"batch_size": 2, "num_workers": num_workers}
    composition = Composition.of({"duration": 4.0, "agent_voice": "espeak", "user_voices": {"train": {"espeak": 1}}})
    return composed_dataloader(composition, keys, Names(), **changes)


@pytest.fixture
def real(monkeypatch):
    monkeypatch.undo()


@pytest.mark.slow
def test_workers_leave_ctrl_c_to_the_training():
    interrupted = []

    def interrupt_at_the_start():
        while not (workers := [c for c in multiprocessing.active_children() if "Spawn" in type(c).__name__ and c.pid]):
            time.sleep(0.01)
        time.sleep(0.5)  # Python runs in it, and would say in fifty lines where it was
        for worker in workers:
            os.kill(worker.pid, signal.SIGINT)
            interrupted.append(worker.pid)

    thread = threading.Thread(target=interrupt_at_the_start)
    thread.start()
    assert next(iter(composed_dataloader(Numbered(8.0), {"batch_size": 2, "num_workers": 1}, Plain()))) == [0, 1]
    thread.join()
    assert interrupted and signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_workers_change_nothing(real):
    whole = take(loader(0), 8)
    assert take(loader(2, first=3), 5) == whole[3:]
    assert [name for batch in whole for name in batch[0]] == [f"train-0-{i:07d}" for i in range(16)]
    assert len({tuple(batch[1]) for batch in whole}) == 8, "random numbers of their own"
    assert take(loader(0, rank=1, world_size=2), 1)[0][1] == whole[1][1], "by the number of the batch"


def test_a_second_epoch_goes_on(real):
    endless = loader(0)
    assert [batch[0][0] for _ in range(2) for batch in islice(endless, 2)] == [f"train-0-{i:07d}" for i in (0, 2, 4, 6)]


def test_the_random_numbers_of_a_training_are_left_alone(real):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    take(loader(0), 2)
    assert torch.equal(torch.rand(2), expected)


class Broken(Numbered):
    def __init__(self, error):
        super().__init__(8.0)
        self.error = error

    def cut(self, number):
        if number == 4:
            raise self.error
        return super().cut(number)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("Dialogue train-0-0000004: nobody speaks it."), "^Dialogue train-0-0000004: nobody speaks it.$"),
        (
            OSError(28, "No space left on device", "bank/1.flac"),
            r"cannot be composed \(.* No space left on device: 'bank/1.flac'\)",
        ),
    ],
)
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_what_is_wrong_is_one_line(error, message, workers):
    batches = iter(composed_dataloader(Broken(error), {"batch_size": 2, "num_workers": workers}, Plain()))
    assert next(batches) == [0, 1] and next(batches) == [2, 3]
    with pytest.raises(InputError, match=message):
        next(batches)


class Plain:
    def __getitem__(self, cuts):
        return [cut.id for cut in cuts]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "has neither batch_size nor batch_duration"),
        (
            {"batch_size": 2, "noise_path": "noise.jsonl"},
            "has noise_path=noise.jsonl, which has no effect on what data.compose",
        ),
        ({"batch_size": 2, "max_duration": 30.0}, "has max_duration=30.0, which has no effect"),
        ({"batch_size": 0}, "batch_size=0, expected a whole number from 1"),
        ({"batch_duration": -1.0}, "batch_duration=-1.0, expected Seconds more than 0"),
        ({"batch_size": 2, "num_workers": -1}, "num_workers=-1, expected a whole number from 0"),
    ],
)
def test_keys_of_the_loader_that_do_not_fit_are_one_line(keys, message):
    with pytest.raises(InputError, match=message):
        composed_dataloader(Numbered(), keys, Plain())


def test_keys_that_choose_what_is_read_have_no_effect_where_nothing_is_read():
    keys = {"batch_size": 2, "shuffle": True, "shuffle_buffer_size": 400, "seed": 0, "shard_seed": 0, "use_bucketing": True}
    assert take(composed_dataloader(Numbered(), keys | {"input_cfg": [{"type": "x"}]}, Plain()), 1) == [[0, 1]]
