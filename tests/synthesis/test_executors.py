from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis import executors
from nemo_duplex.synthesis.executors import parse_slice, run_locally


def square(n: int) -> tuple[int, int]:
    return n * n, os.getpid()


def fail_at_two(n: int) -> int:
    if n == 2:
        raise InputError("job 2 is wrong")
    return n


def die_at_one(n: int) -> int:
    if n == 1:
        os._exit(9)
    time.sleep(0.05)
    return n


def test_one_worker_works_here_and_two_elsewhere():
    here = list(run_locally(square, [1, 2, 3], 1))
    assert here == [(1, os.getpid()), (4, os.getpid()), (9, os.getpid())]
    there = list(run_locally(square, [1, 2, 3], 2))
    assert sorted(n for n, _ in there) == [1, 4, 9] and os.getpid() not in {pid for _, pid in there}


def fail_first(job: tuple[str, int]) -> None:
    folder, n = job
    Path(folder, f"{n} begun").touch()
    if n == 0:
        raise InputError("job 0 is wrong")
    time.sleep(0.2)
    Path(folder, f"{n} done").touch()


def test_an_error_in_a_job_comes_through():
    with pytest.raises(InputError, match="job 2 is wrong"):
        list(run_locally(fail_at_two, list(range(6)), 1))


def test_after_an_error_jobs_in_progress_are_finished_and_no_other_begins(tmp_path):
    with pytest.raises(InputError, match="job 0 is wrong"):
        list(run_locally(fail_first, [(str(tmp_path), n) for n in range(40)], 2))
    begun, done = ({p.name.split()[0] for p in tmp_path.glob(f"* {what}")} for what in ("begun", "done"))
    assert begun - done == {"0"} and len(begun) < 8


def work_long(folder: str) -> None:
    Path(folder, f"{os.getpid()} begun").touch()
    try:
        time.sleep(300)
    finally:
        Path(folder, f"{os.getpid()} cleaned up").touch()


def stopped(folder: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    list(run_locally(work_long, [folder] * 4, 2))


def test_on_sigterm_jobs_in_progress_are_stopped_and_clean_up(tmp_path):
    """It reaches the first process alone, where Ctrl-C reaches all of them."""
    process = multiprocessing.get_context("spawn").Process(target=stopped, args=(str(tmp_path),))
    process.start()
    while len(list(tmp_path.glob("* begun"))) < 2:
        assert process.is_alive()
        time.sleep(0.05)
    process.terminate()
    process.join(120)
    assert process.exitcode == 143
    begun, cleaned = ({p.name.split()[0] for p in tmp_path.glob(f"* {what}")} for what in ("begun", "cleaned up"))
    assert begun == cleaned and len(begun) == 2


def test_a_job_that_ends_its_process_is_named_and_the_others_are_done():
    done = []
    with pytest.raises(
        InputError, match="^1 of 6 shards ended the processes that made them, such as 1; .*fewer workers="
    ) as error:
        for n in run_locally(die_at_one, list(range(6)), 2):
            done.append(n)  # noqa: PERF402
    assert sorted(done) == [0, 2, 3, 4, 5] and "\n" not in str(error.value)


def die_once(job: tuple[str, int]) -> int:
    folder, n = job
    if n == 2 and not Path(folder, "died").exists():
        Path(folder, "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def test_a_process_that_is_killed_once_costs_no_job(tmp_path):
    """As the kernel kills one when memory is short."""
    assert sorted(run_locally(die_once, [(str(tmp_path), n) for n in range(5)], 2)) == [0, 1, 2, 3, 4]
    assert (tmp_path / "died").exists()


def die(n: int) -> None:
    os._exit(9)


def test_a_machine_on_which_every_process_dies_is_given_up(monkeypatch):
    monkeypatch.setattr(executors, "_MOST_LOST", 1)
    with pytest.raises(
        InputError, match="^1 of 3 shards ended .*, such as .*; 2 others were not made then, the rest is kept. "
    ):
        list(run_locally(die, [0, 1, 2], 2))


def test_slices_share_out_the_jobs():
    assert parse_slice("0/1") == (0, 1) and parse_slice("3/4") == (3, 4)
    for wrong in ("4/4", "-1/4", "1", "a/b", "1/0", "", "1/4x", "1/4/5", "x1/4"):
        with pytest.raises(InputError, match=f"slice={wrong}: expected i/n"):
            parse_slice(wrong)
