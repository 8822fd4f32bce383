"""The benchmark of training: both models train the same thing, and what is printed is what was measured."""

import json

import pytest
import torch

from nemo_duplex.benchmark import training_step
from nemo_duplex.benchmark.training_step import TrainingSetting, benchmark_training, timed_steps, training_tables
from nemo_duplex.inputs import InputError


@pytest.mark.slow
def test_both_models_have_the_same_loss(tmp_path, capsys, script, measured_here):
    """The same weights on the same batch: NeMo's in-tree model and ours must agree, or the times compare nothing."""
    keys = ("what=train", "size=tiny", "batch=2", "seconds=4", "steps=1", "threads=1", "precision=32")
    assert script(*keys, f"out={tmp_path / 'figures.json'}") == 0
    assert measured_here == ["in_tree", "ours"]
    result = json.loads((tmp_path / "figures.json").read_text())
    assert result["loss_difference"] < 1e-4
    for model in ("in_tree", "ours"):
        assert result[model]["frames_per_second"] == pytest.approx(100 / result[model]["step_seconds"])
        assert result[model]["peak_bytes"] > result[model]["step_bytes"] > 0
    assert training_tables(result)[0].text() in capsys.readouterr().out


def test_the_data_is_a_turn_in_every_four_seconds_without_padding():
    batch = training_step._batch(TrainingSetting(batch=2, seconds=8.0), tokens=64, pad=0, bos=1, eos=2)
    text = batch["target_tokens"]
    assert text.shape == (2, 100) and batch["target_token_lens"].tolist() == [100, 100]
    for start in (12, 62):
        assert text[:, start].tolist() == [1, 1] and text[:, start + 30].tolist() == [2, 2]
        assert (text[:, start + 1 : start + 16] >= 3).all()
    assert (text != 0).sum() == 2 * 2 * 17
    assert batch["source_audio"].shape == (2, 128000) and batch["target_audio"].shape == (2, 176400)
    assert batch["target_audio_lens"].tolist() == [176400] * 2


def test_a_step_is_the_median_after_the_warm_up(monkeypatch, clock):
    """Warm-up steps take 9 s and their first loss is kept; then 1, 4 and 2 s for 2 x 50 frames."""
    monkeypatch.setattr(training_step, "time", clock)
    seconds, losses = iter([9.0, 9.0, 1.0, 4.0, 2.0]), iter([5.0, 4.0, 3.0, 2.0, 1.0])

    def step():
        clock.now += next(seconds)
        return torch.tensor(next(losses))

    figures = timed_steps(step, TrainingSetting(batch=2, seconds=4.0, warmup=2, steps=3))
    assert (figures["step_seconds"], figures["frames_per_second"], figures["loss"]) == (2.0, 50.0, 5.0)
    assert figures["step_bytes"] < figures["peak_bytes"]


def test_ratios_are_ours_to_theirs(monkeypatch):
    theirs = {"step_seconds": 2.0, "frames_per_second": 50.0, "peak_bytes": 4e9, "step_bytes": 2e9, "loss": 8.0}
    ours = {"step_seconds": 0.5, "frames_per_second": 200.0, "peak_bytes": 3e9, "step_bytes": 5e8, "loss": 8.4}

    def measured(module, name, folder, setting, threads):
        assert (module, setting["size"], threads) == ("training_step", "tiny", 3)
        assert json.loads((folder / "model.json").read_text())["size"] == "tiny"
        return theirs if name == "in_tree" else ours

    monkeypatch.setattr(training_step, "run_measurement", measured)
    monkeypatch.setattr(training_step, "write_parts", lambda folder, size: {"size": size})
    monkeypatch.setattr(training_step, "describe_parts", str)
    result = benchmark_training(TrainingSetting(size="tiny", threads=3))
    assert (result["speedup"], result["peak_ratio"], result["step_ratio"]) == (4.0, 0.75, 0.25)
    assert result["loss_difference"] == pytest.approx(0.05)
    assert training_tables(result)[0].rows == [
        ("step, s", "2.00", "0.50", ""),
        ("frames per second", "50", "200", "4.00 x"),
        ("peak memory, GB", "4.00", "3.00", "0.75 x"),
        ("of it in a step, GB", "2.00", "0.50", "0.25 x"),
        ("loss, first batch", "8.000000", "8.400000", "differ by 5.0e-02"),
    ]
    assert "4 conversations of 20 s, cpu, precision 32, 3 threads, median of 3 steps" in training_tables(result)[0].about


def test_wrong_settings_are_one_line(script, capsys, tmp_path):
    with pytest.raises(InputError, match="size is 'big', expected one of tiny, small, paper"):
        benchmark_training(TrainingSetting(size="big"))
    with pytest.raises(InputError, match="device=tpu"):
        benchmark_training(TrainingSetting(device="tpu"))
    for keys, line in {
        ("what=flying",): "what=flying: expected train, stream, user_activity, serve, corpus, synthesis, codec or builds",
        ("what=train", f"out={tmp_path / 'x.txt'}"): "x.txt: expected a name that ends in .json or .md",
    }.items():
        assert script(*keys) == 2
        assert line in capsys.readouterr().err
