"""Jobs on Ray: one Ray on this machine for all tests of the file, because it takes seconds to start."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.ray_executor import RayCluster, run_on_ray


def square(n: int) -> tuple[int, int, str]:
    return n * n, os.getpid(), os.getcwd()


def fail_at_two(n: int) -> int:
    if n == 2:
        raise InputError("job 2 is wrong")
    return n


def full_disk(n: int) -> int:
    raise OSError(28, "No space left on device", "/shared/corpus")


def die_once_at_one(job: tuple[str, int]) -> int:
    folder, n = job
    if n == 1 and not Path(folder, "died").exists():
        Path(folder, "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def die_at_one(n: int) -> int:
    if n == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def stay(job: tuple[str, int]) -> int:
    folder, n = job
    try:
        Path(folder, f"{n} begun").touch()
        for _ in range(600 * n):  # Ray interrupts Python, not a long sleep
            time.sleep(0.1)
    finally:
        Path(folder, f"{n} ended").touch()
    return n


def test_without_ray_it_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"^executor=ray: Ray is not installed: pip install 'nemo_duplex\[ray\]'$"):
        list(run_on_ray(square, [1], 1, RayCluster(), tmp_path))


def test_without_jobs_no_ray_starts(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(run_on_ray(square, [], 1, RayCluster(), tmp_path / "out")) == []


def test_what_is_reserved_for_a_job():
    assert RayCluster().resources == {"num_cpus": 1.0}
    assert RayCluster(cpus=2, memory=1.5).resources == {"num_cpus": 2, "memory": 1_500_000_000}
    assert RayCluster(gpus=0.5).resources == {"num_cpus": 1.0, "num_gpus": 0.5}
    with pytest.raises(InputError, match="^ray.memory=-1: expected 0 or more.$"):
        RayCluster(memory=-1)


@pytest.mark.slow
class TestOnThisMachine:
    @pytest.fixture(scope="class", autouse=True)
    def ray_of_two(self, tmp_path_factory):
        """Started as a command starts it, and kept for the class; it leaves nothing in the home folder or in /tmp."""
        from nemo_duplex.synthesis import ray_executor

        home, made = tmp_path_factory.mktemp("home"), []

        def noted(**keys):  # other tests may have a Ray of their own at the same time
            made.append(Path(tempfile.mkdtemp(**keys)))
            return str(made[-1])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ray_executor, "tempfile", SimpleNamespace(mkdtemp=noted))
            patch.setenv("HOME", str(home))
            patch.delenv("RAY_ADDRESS", raising=False)
            with ray_executor.connected(RayCluster(), 2) as ray:
                assert ray.available_resources()["CPU"] == 2
                yield ray
            assert not ray.is_initialized() and list(home.rglob("*")) == []
            assert made and not any(folder.exists() for folder in made)
            assert "RAY_AUTH_TOKEN" not in os.environ

    def test_jobs_run_in_other_processes_and_in_this_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        done = list(run_on_ray(square, list(range(6)), None, RayCluster(), Path("out")))
        assert sorted(n for n, _, _ in done) == [0, 1, 4, 9, 16, 25]
        assert os.getpid() not in {pid for _, pid, _ in done} and {folder for _, _, folder in done} == {str(tmp_path)}
        assert (tmp_path / "out").is_dir()

    def test_no_more_jobs_at_once_than_workers(self, tmp_path):
        assert [n for n, _, _ in run_on_ray(square, [3, 1, 2], 1, RayCluster(), tmp_path)] == [9, 1, 4]

    def test_an_error_in_a_job_is_the_error_here(self, tmp_path):
        with pytest.raises(InputError) as error:
            list(run_on_ray(fail_at_two, list(range(6)), 2, RayCluster(), tmp_path))
        assert str(error.value) == "job 2 is wrong"
        with pytest.raises(OSError) as full:
            list(run_on_ray(full_disk, [1], 2, RayCluster(), tmp_path))
        assert (full.value.errno, full.value.filename) == (28, "/shared/corpus")

    def test_a_process_that_is_killed_is_replaced(self, tmp_path):
        jobs = [(str(tmp_path), n) for n in range(4)]
        assert sorted(run_on_ray(die_once_at_one, jobs, 2, RayCluster(), tmp_path)) == [0, 1, 2, 3]
        assert (tmp_path / "died").exists()

    def test_a_job_that_always_ends_its_process_is_named_and_the_others_are_done(self, tmp_path):
        done = []
        with pytest.raises(
            InputError, match="^1 of 5 shards ended the processes that made them, 4 times each, such as 1: "
        ) as e:
            for n in run_on_ray(die_at_one, list(range(5)), 2, RayCluster(), tmp_path):
                done.append(n)  # noqa: PERF402
        assert sorted(done) == [0, 2, 3, 4] and "\n" not in str(e.value)

    def test_jobs_in_progress_are_stopped_when_nobody_waits_for_them(self, tmp_path):
        run = run_on_ray(stay, [(str(tmp_path), n) for n in range(3)], 2, RayCluster(), tmp_path)
        assert next(run) == 0
        while not (tmp_path / "1 begun").exists():
            time.sleep(0.05)
        run.close()
        assert (tmp_path / "1 ended").exists()

    def test_a_folder_that_a_node_does_not_have(self, tmp_path, monkeypatch, ray_of_two):
        from nemo_duplex.synthesis import ray_executor

        for here, there, cure in (
            (tmp_path, tmp_path / "no", "choose an `out`"),
            (tmp_path / "no", tmp_path, "start the command"),
        ):
            with pytest.raises(InputError, match=f"^executor=ray: node .* has no folder .*no: {cure}.* that all nodes share.$"):
                ray_executor._on_a_node(square, here, there, 1)
