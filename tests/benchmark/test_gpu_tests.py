"""The tests that need a GPU: which they are, how many of them passed."""

from pathlib import Path

import pytest

from nemo_duplex.benchmark.gpu_tests import gpu_tests, run_gpu_tests
from nemo_duplex.inputs import InputError

#: A GPU that is there as the file says, without torch.
HEAD = """
import pytest
class torch:
    class cuda:
        is_available = staticmethod(lambda: {there})
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
"""
TESTS = """
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("n", [1, 2])
def test_by_decorator(n):
    pass

@needs_gpu
def test_by_name():
    assert False, "wrong"

def test_in_the_body():
    device = "cuda" if torch.cuda.is_available() else "cpu"

def test_of_the_cpu():
    assert False

def helper():
    return torch.cuda.is_available()
"""


@pytest.fixture
def tests(tmp_path):
    """Writes such a file, below a folder of tests that it returns."""

    def write(there: bool, more: str = "") -> Path:
        (tmp_path / "tests" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / "a" / "test_some.py").write_text(HEAD.format(there=there) + TESTS + more)
        (tmp_path / "tests" / "test_none.py").write_text("def test_nothing(): pass\n")
        return tmp_path / "tests"

    return write


def names(folder: Path) -> list[str]:
    return [test.rpartition("::")[2] for test in gpu_tests(folder)]


def test_they_are_found_by_what_they_ask(tests):
    assert names(tests(True)) == ["test_by_decorator", "test_by_name", "test_in_the_body"]
    folder = tests(True, "pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='')\n")
    assert names(folder) == ["test_by_decorator", "test_by_name", "test_in_the_body", "test_of_the_cpu"]


def test_those_of_this_repository_are_found():
    folder = Path(__file__).parents[1]
    found = names(folder)
    assert {
        "test_on_a_gpu_graphs_say_what_the_stages_say",
        "test_on_a_gpu_stages_are_timed_by_its_own_events",
        "test_a_tensor_of_another_device_is_heard",
    } <= set(found)
    assert not any("benchmark" in test for test in gpu_tests(folder)), "These only talk about it."


def test_with_a_gpu_they_run_and_failures_have_names(tests, tmp_path):
    found = run_gpu_tests(tests(True), tmp_path / "report.xml", 60)
    assert found == {
        "passed": 3,
        "failed": 1,
        "skipped": 0,
        "failures": ["test_by_name"],
        "error": "1 of 4 tests failed: test_by_name",
    }


def test_without_one_they_are_skipped(tests, tmp_path):
    found = run_gpu_tests(tests(False), tmp_path / "report.xml", 60)
    assert found == {"passed": 1, "failed": 0, "skipped": 3, "failures": []}


def test_where_there_are_none_none_is_run(tmp_path):
    assert run_gpu_tests(tmp_path, tmp_path / "report.xml", 60) == {"not_run": f"no test in {tmp_path} asks for a GPU"}


def test_what_pytest_cannot_run_is_one_line(tests, tmp_path):
    folder = tests(True)
    (folder / "conftest.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(InputError, match="pytest ended with code 4: .*nothing_of_this_name"):
        run_gpu_tests(folder, tmp_path / "report.xml", 60)
    (folder / "conftest.py").write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(InputError, match="The GPU tests were ended after 1 s, their limit"):
        run_gpu_tests(folder, tmp_path / "report.xml", 1.0)
