"""Guests and rows, without any model."""

import random

import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.engine import Slots


def test_few_counts_are_ever_computed():
    assert Slots(1).buckets == (1,)
    assert Slots(2).buckets == (1, 2)
    assert Slots(8).buckets == (1, 2, 4, 8)
    assert Slots(6).buckets == (1, 2, 4, 6)
    assert [Slots(8).bucket(n) for n in (1, 2, 3, 5, 8)] == [1, 2, 4, 8, 8]


def test_no_slot_is_one_line():
    slots = Slots(2)
    slots.join("a"), slots.join("b")
    with pytest.raises(InputError, match="all 2 sessions of this engine are open"):
        slots.join("c")
    slots.leave(0)
    assert slots.join("c") == 0


def test_guests_move_down_only_when_that_saves_rows():
    slots = Slots(8)
    for name in "abcde":
        slots.join(name)
    assert slots.rows == 8 and slots.gather() == []
    slots.leave(1)  # four are left, one of them in row 4
    assert slots.gather() == [(4, 1)] and slots.rows == 4
    slots.leave(0)  # three still need four rows
    assert slots.gather() == [] and list(slots) == [(1, "e"), (2, "c"), (3, "d")]


def test_nobody_is_lost_or_doubled():
    rng = random.Random(0)
    slots, inside, rows = Slots(6), set(), {}
    for i in range(500):
        if rng.random() < 0.5 and len(inside) < 6:
            rows[i] = slots.join(i)
            inside.add(i)
        elif inside:
            guest = rng.choice(sorted(inside))
            slots.leave(rows.pop(guest))
            inside.remove(guest)
        for source, target in slots.gather():
            (moved,) = [guest for guest, row in rows.items() if row == source]
            rows[moved] = target
        assert dict(slots) == {row: guest for guest, row in rows.items()} and len(slots) == len(inside)
        assert slots.rows == (slots.bucket(len(inside)) if inside else 0)
