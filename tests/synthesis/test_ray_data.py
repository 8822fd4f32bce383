"""A stage of Ray Data: one Ray on this machine for all tests of the file, because it takes seconds to start."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.ray_data import map_on_ray_data
from nemo_duplex.synthesis.ray_executor import RayCluster, connected


class Squares:
    """Squares numbers, and counts how often it was opened, in a folder."""

    def __init__(self, folder: str) -> None:
        Path(folder, f"{os.getpid()} {len(os.listdir(folder))}").touch()

    def __call__(self, numbers: list[int]) -> tuple[list[int], int, str]:
        return [number * number for number in numbers], os.getpid(), os.getcwd()


class Wrong:
    """Fails at number 3, in the way it is told to."""

    def __init__(self, how: str) -> None:
        self._how = how
        if how == "opening":
            raise InputError("it cannot be opened")
        if how == "end at once":
            os.kill(os.getpid(), signal.SIGKILL)

    def __call__(self, numbers: list[int]) -> int:
        if 3 in numbers and self._how == "input":
            raise InputError("item 3 is wrong")
        if 3 in numbers and self._how == "disk":
            raise OSError(28, "No space left on device", "/shared/bank")
        if 3 in numbers and self._how == "end":
            os.kill(os.getpid(), signal.SIGKILL)
        return len(numbers)


class EndsOnce:
    """Ends its process at number 3, the first time."""

    def __init__(self, folder: str) -> None:
        self._died = Path(folder, "died")

    def __call__(self, numbers: list[int]) -> list[int]:
        if 3 in numbers and not self._died.exists():
            self._died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return numbers


def test_without_ray_it_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"^executor=ray: Ray is not installed: pip install 'nemo_duplex\[ray\]'$"):
        list(map_on_ray_data(partial(Wrong, ""), 1, 1, 1, RayCluster(), tmp_path))


def test_without_items_no_ray_starts(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(map_on_ray_data(partial(Wrong, ""), 0, 1, 1, RayCluster(), tmp_path / "out")) == []


@pytest.mark.slow
class TestOnThisMachine:
    @pytest.fixture(scope="class", autouse=True)
    def ray_of_two(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("RAY_ADDRESS", raising=False)
            with connected(RayCluster(), 2) as ray:
                yield ray

    def test_each_actor_opens_once_and_gets_batches(self, tmp_path, monkeypatch, capfd):
        opened = tmp_path / "opened"
        opened.mkdir()
        monkeypatch.chdir(tmp_path)
        done = list(map_on_ray_data(partial(Squares, str(opened)), 11, 2, None, RayCluster(), Path("out")))
        assert sorted(number for numbers, _, _ in done for number in numbers) == [number * number for number in range(11)]
        assert max(len(numbers) for numbers, _, _ in done) == 2 and len(done) >= 6
        processes = {process for _, process, _ in done}
        assert len(list(opened.iterdir())) == len(processes) <= 2 and os.getpid() not in processes
        assert {folder for _, _, folder in done} == {str(tmp_path)} and (tmp_path / "out").is_dir()
        said = capfd.readouterr()
        assert said.out == "" and said.err == ""

    @pytest.mark.parametrize(
        ("how", "message"), [("opening", "^it cannot be opened$"), ("input", "^item 3 is wrong$"), ("disk", "No space left")]
    )
    def test_an_error_of_an_actor_is_the_error_here(self, tmp_path, how, message, capfd):
        with pytest.raises((InputError, OSError), match=message) as error:
            list(map_on_ray_data(partial(Wrong, how), 6, 1, 2, RayCluster(), tmp_path))
        assert how != "disk" or (error.value.errno, error.value.filename) == (28, "/shared/bank")
        assert capfd.readouterr().err == ""

    def test_an_actor_that_ends_once_is_started_again(self, tmp_path):
        done = list(map_on_ray_data(partial(EndsOnce, str(tmp_path)), 6, 1, 2, RayCluster(), tmp_path))
        assert sorted(number for numbers in done for number in numbers) == [0, 1, 2, 3, 4, 5] and (tmp_path / "died").exists()

    @pytest.mark.parametrize("how", ["end", "end at once"])
    def test_an_actor_that_ends_every_time_is_one_line(self, tmp_path, how, capfd):
        with pytest.raises(
            InputError, match="^executor=ray: an actor ends again and again: .*ray.memory.* it resumes"
        ) as error:
            list(map_on_ray_data(partial(Wrong, how), 6, 1, 2, RayCluster(), tmp_path))
        assert "\n" not in str(error.value) and capfd.readouterr().err == ""

    def test_a_gpu_that_is_not_there_is_one_line(self, tmp_path):
        with pytest.raises(InputError, match="^ray.gpus=1: this machine has 0. Give ray.gpus=0, or the address of a cluster.$"):
            list(map_on_ray_data(partial(Wrong, ""), 6, 1, 2, RayCluster(gpus=1), tmp_path))
