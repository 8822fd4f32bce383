"""The tree of a benchmark, as people unpack it."""

import pytest

from nemo_duplex.evaluation.full_duplex_bench.samples import read_tree
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import InputError
from tests.evaluation.full_duplex_bench.trees import put


def tree(root, version):
    return {folder: [s.name for s in samples] for folder, samples in read_tree(root, version).samples.items()}


def test_tasks_are_known_by_the_names_of_their_folders(tmp_path):
    for folder in ("candor_pause_handling", "synthetic_pause_handling", "candor_turn_taking", "icc_backchannel"):
        put(tmp_path / folder / "1")
    put(tmp_path / "synthetic_user_interruption" / "1")
    put(tmp_path / "user_backchannel" / "1")  # of v1.5
    put(tmp_path / "docs" / "1")
    found = read_tree(tmp_path, "v1")
    assert {folder: samples[0].task.name for folder, samples in found.samples.items()} == {
        "candor_pause_handling": "pause_handling",
        "candor_turn_taking": "smooth_turn_taking",
        "icc_backchannel": "backchannel",
        "synthetic_pause_handling": "pause_handling",
        "synthetic_user_interruption": "user_interruption",
    }
    assert found.other_folders == ("docs", "user_backchannel")
    assert tree(tmp_path, "v1.5") == {
        "synthetic_user_interruption": ["synthetic_user_interruption/1"],
        "user_backchannel": ["user_backchannel/1"],
    }


def test_samples_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("10", "2", "1", "b", ".hidden"):
        put(tmp_path / "pause_handling" / name)
    (tmp_path / "pause_handling" / "README.md").touch()
    assert tree(tmp_path, "v1") == {"pause_handling": [f"pause_handling/{name}" for name in ("1", "2", "10", "b")]}


def test_a_folder_of_one_task_is_enough(tmp_path):
    root = tmp_path / "candor_turn_taking"
    put(root / "7", output={})
    assert tree(root, "v1") == {"candor_turn_taking": ["7"]}
    other = tmp_path / "mine"
    put(other / "7", output={}, interrupt=[])
    assert read_tree(other, "v1").samples["mine"][0].task.name == "user_interruption", "known by its annotation"


def test_v2_and_v3(tmp_path):
    put(tmp_path / "two" / "Daily" / "Daily.ordering.001")
    assert tree(tmp_path / "two", "v2") == {"Daily": ["Daily/Daily.ordering.001"]}
    put(tmp_path / "three" / "travel_01_65e8cf8f4c7424fa062e54a3", metadata={})
    assert tree(tmp_path / "three", "v3") == {"three": ["travel_01_65e8cf8f4c7424fa062e54a3"]}


def test_no_samples_are_one_line(tmp_path):
    put(tmp_path / "somewhere" / "1")
    with pytest.raises(InputError, match=r"holds no samples of Full-Duplex-Bench v1: .*pause_handling.*it has somewhere"):
        read_tree(tmp_path, "v1")
    with pytest.raises(InputError, match="bench: there is no folder"):
        read_tree(tmp_path / "nowhere", "v1")


@pytest.mark.parametrize(
    ("version", "folder", "files", "event"),
    [
        ("v1", "turn_taking", {"turn_taking": [{"text": "x", "timestamp": [2.0, 2.5]}]}, (2.0, 2.5)),
        ("v1", "user_interruption", {"interrupt": [{"timestamp": [1, 3]}, {"timestamp": [4, 5]}]}, (1.0, 3.0)),
        ("v1.5", "talking_to_other", {"metadata": {"timestamps": [7.275, 11.467]}}, (7.275, 11.467)),
    ],
)
def test_events(tmp_path, version, folder, files, event):
    put(tmp_path / folder / "1", **files)
    [sample] = read_tree(tmp_path, version)
    sample.check()
    assert sample.event() == event


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "no turn_taking.json"),
        ({"turn_taking": "{"}, "turn_taking.json is no JSON"),
        ({"turn_taking": []}, "turn_taking.json has no timestamp"),
        ({"turn_taking": [{"timestamp": [1]}]}, "turn_taking.json has no timestamp"),
        ({"turn_taking": '[{"timestamp": [1, NaN]}]'}, "turn_taking.json has no timestamp"),
    ],
)
def test_a_sample_without_its_event_is_odd(tmp_path, files, reason):
    put(tmp_path / "turn_taking" / "1", **files)
    [sample] = read_tree(tmp_path, "v1")
    with pytest.raises(OddRow) as odd:
        sample.check()
    assert odd.value.reason == reason


def test_backchannel_samples_need_numbers_and_pauses_no_annotation(tmp_path):
    put(tmp_path / "backchannel" / "a1")
    put(tmp_path / "pause_handling" / "a1")
    of_backchannel, of_pause = read_tree(tmp_path, "v1")
    of_pause.check()
    with pytest.raises(OddRow, match="a name that is no number"):
        of_backchannel.check()
