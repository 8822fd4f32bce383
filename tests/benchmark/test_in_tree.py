"""Streaming beside NeMo's in-tree model: the same frames on both sides, and each time in its column."""

import pytest

from nemo_duplex.benchmark import in_tree
from nemo_duplex.benchmark.in_tree import compare_with_in_tree, in_tree_tables


@pytest.mark.slow
def test_both_models_make_the_same_frames(measured_here):
    """The same weights on the same audio: NeMo's whole-file inference and our stream must agree, or times compare nothing."""
    result = compare_with_in_tree("tiny", None, "cpu", 1, [1.0, 2.0])
    assert measured_here == ["in_tree", "ours"], "Ours converts the checkpoint that the other leaves."
    assert result["same_frames"] == result["frames"] == 25
    assert [h["history"] for h in result["in_tree"]["histories"]] == [1.0, 2.0]
    assert all(h[name] > 0 for h in result["in_tree"]["histories"] for name in ("encode", "llm", "decode"))
    assert 0 < result["ours"]["frame"] * 25 < result["ours"]["seconds"]
    assert "tokens" not in result["ours"] and "codes" not in result["in_tree"]


def test_frames_that_differ_are_counted(monkeypatch):
    def measured(module, name, folder, setting, threads):
        assert (module, setting, threads) == ("in_tree", {"data": "c", "device": "cpu", "histories": [3.0]}, 2)
        codes = [[1, 2], [3, 4], [5, 6], [7, 8]]
        return {"tokens": [1, 2, 3, 4] if name == "ours" else [1, 9, 3, 4], "codes": codes if name == "ours" else codes[:3]}

    monkeypatch.setattr(in_tree, "run_measurement", measured)
    monkeypatch.setattr(in_tree, "write_parts", lambda folder, size: {"size": size})
    monkeypatch.setattr(in_tree, "describe_parts", str)
    result = compare_with_in_tree("tiny", "c", "cpu", 2, [3.0])
    assert (result["frames"], result["same_frames"]) == (4, 2) and result["ours"] == {} and result["what"] == "{'size': 'tiny'}"


def test_a_repeated_time_is_the_median_of_three_or_what_ten_seconds_allow(monkeypatch, clock):
    monkeypatch.setattr(in_tree, "time", clock)

    def runs_of(*seconds):
        left = iter(seconds)

        def work():
            clock.now += next(left)

        return in_tree._took(work, "cpu")

    assert runs_of(1.0, 5.0, 2.0, 0.0) == pytest.approx(2.0)
    assert runs_of(12.0) == pytest.approx(12.0)


def test_the_table_says_how_many_times_slower_theirs_is():
    part = {
        "what": "a model",
        "frames": 25,
        "same_frames": 24,
        "in_tree": {"seconds": 6.0, "histories": [{"history": 10.0, "encode": 0.1, "llm": 0.02, "decode": 0.38}]},
        "ours": {"seconds": 3.0, "frame": 0.05},
    }
    setting = {"histories": [10.0, 60.0]}
    (table,) = in_tree_tables({"in_tree": part, "setting": setting, "date": "today", "machine": "here"})
    assert table.about == ["a model; the same random weights: 24 of 25 frames are the same on both sides", "today, here"]
    assert table.rows == [
        ("60 s, in one piece", "", "", "", "6.0 s", "3.0 s", "2.00 x"),
        ("a frame after 10 s", "100 ms", "20 ms", "380 ms", "500 ms", "50 ms", "10.0 x"),
    ]
