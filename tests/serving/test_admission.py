"""Seats, the queue, shares of a key and an address, and how long a refused caller should wait."""

import asyncio
import json
from contextlib import AsyncExitStack
from types import SimpleNamespace

import pytest

from nemo_duplex.serving import admission as admission_file
from nemo_duplex.serving.admission import Admission, RefusedError
from nemo_duplex.serving.caller import CALLER, Caller
from nemo_duplex.serving.config import Limits
from tests.virtual_time import run


async def sit(admission, name, log, tell=True):
    """A task that sits down and stays until it is told to leave: (task, event)."""
    leave = asyncio.Event()

    async def place(number):
        log.append(f"{name} is {number}")

    async def stay():
        async with admission.seat(place if tell else None):
            log.append(f"{name} sits")
            await leave.wait()

    task = asyncio.create_task(stay())
    await asyncio.sleep(0)
    return task, leave


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


def test_who_comes_first_sits_first_and_the_next_ones_are_told_their_place(monkeypatch):
    monkeypatch.setattr(admission_file, "_TELL_AGAIN", 0.01)
    log = []

    async def scene():
        admission = Admission(2, Limits(waiting=2))
        callers = [await sit(admission, name, log) for name in "abcd"]
        await settle()
        assert log == ["a sits", "b sits", "c is 1", "d is 2"] and (admission.taken, admission.waiting) == (2, 2)
        with pytest.raises(RefusedError, match="All 2 lines are busy. Call again in 5 s."):
            admission.check()
        callers[1][1].set()
        await asyncio.sleep(0.03)
        assert "c sits" in log and "d sits" not in log and log[-1] == "d is 1"
        for _, leave in callers:
            leave.set()
        await asyncio.gather(*(task for task, _ in callers))
        assert (admission.taken, admission.waiting) == (0, 0) and "d sits" in log

    run(scene())


def test_a_caller_whose_protocol_cannot_tell_it_does_not_wait():
    async def scene():
        admission = Admission(1, Limits(waiting=5))
        first, leave = await sit(admission, "a", [], tell=False)
        with pytest.raises(RefusedError, match="busy"):
            admission.check(can_wait=False)
        admission.check()
        second, _ = await sit(admission, "b", [], tell=False)
        with pytest.raises(RefusedError, match="busy"):
            await second
        leave.set()
        await first

    asyncio.run(scene())


@pytest.mark.parametrize("leaves_first", [True, False])
def test_who_gives_up_waiting_leaves_its_place_to_the_next(leaves_first):
    async def scene():
        log, admission = [], Admission(1, Limits(waiting=3))
        a, b, c = [await sit(admission, name, log) for name in "abc"]
        await settle()
        if leaves_first:
            b[0].cancel()
            await settle()
            a[1].set()
        else:  # it goes in the moment in which its turn has come
            a[1].set()
            await asyncio.sleep(0)
            b[0].cancel()
        await settle()
        assert log[-1] == "c sits" and admission.taken == 1
        c[1].set()
        await settle()
        assert (admission.taken, admission.waiting) == (0, 0)

    asyncio.run(scene())


def test_one_key_and_one_address_have_a_share():
    async def scene():
        admission = Admission(9, Limits(calls_per_key=2, calls_per_address=3))

        async def open_call(stack, address, key):
            CALLER.set(Caller(address, key))
            await stack.enter_async_context(admission.seat())

        async with AsyncExitStack() as stack:
            for address, key in (("192.0.2.1", 1), ("192.0.2.1", 1), ("192.0.2.1", 2)):
                await open_call(stack, address, key)
            with pytest.raises(RefusedError, match="Too many calls of this address: 3 at once.") as address_full:
                await open_call(stack, "192.0.2.1", 3)
            with pytest.raises(RefusedError, match="Too many calls of this key: 2 at once."):
                await open_call(stack, "192.0.2.2", 1)
            await open_call(stack, "192.0.2.2", 2)
            assert (address_full.value.status, admission.taken) == (429, 4)
        await open_call(AsyncExitStack(), "192.0.2.1", 1)  # the shares are free again

    asyncio.run(scene())


def test_without_a_key_there_is_no_share_of_keys():
    async def scene():
        admission = Admission(9, Limits(calls_per_key=1))
        async with admission.seat(), admission.seat():
            admission.check()

    asyncio.run(scene())


def test_a_server_that_shuts_down_refuses_and_sends_the_queue_home():
    async def scene():
        admission = Admission(1, Limits(waiting=3))
        a, b = [await sit(admission, name, []) for name in "ab"]
        await settle()
        admission.close()
        with pytest.raises(RefusedError, match="shuts down") as refused:
            await b[0]
        assert refused.value.status == 503 and admission.taken == 1
        with pytest.raises(RefusedError, match="shuts down"):
            admission.check()
        a[1].set()
        await a[0]
        assert admission.taken == 0

    asyncio.run(scene())


def test_when_to_try_again_follows_from_how_long_calls_take(monkeypatch):
    now = 0.0
    monkeypatch.setattr(admission_file, "time", SimpleNamespace(monotonic=lambda: now))

    async def scene():
        nonlocal now
        admission = Admission(4, Limits())
        assert admission.retry_after(4) == 5  # nobody knows yet
        async with admission.seat():
            now += 100.0
        assert [admission.retry_after(4), admission.retry_after(4, ahead=1), admission.retry_after(1)] == [25, 50, 100]
        assert [admission.retry_after(100), admission.retry_after(1, ahead=9)] == [5, 120]
        async with admission.seat():
            now += 200.0
        assert admission.retry_after(1) == 110  # a tenth of it is the newest

    asyncio.run(scene())


def test_a_refusal_is_answered_in_the_form_that_openai_clients_read():
    answer = RefusedError("All lines are busy.", 503, retry_after=7).response()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert json.loads(answer.body) == {"error": {"message": "All lines are busy.", "type": "refused", "code": 503}}
