"""What stages read: each weight that a step needs, once; and what each row remembers."""

import pytest
import torch

from nemo_duplex.benchmark import roofline
from nemo_duplex.benchmark.callers import user_speech
from nemo_duplex.benchmark.measured_models import random_model
from nemo_duplex.benchmark.roofline import STAGES, StageWork, measure_batches, stage_work, stages_tables


@pytest.fixture(scope="module")
def model():
    return random_model("tiny", "cpu")


@pytest.fixture(scope="module")
def work(model):
    return stage_work(model)


def test_stages_read_every_weight_but_tables_of_rows_and_the_encoder_of_the_codec(model, work):
    read = work
    assert list(read) == list(STAGES)
    tables = ("lm.backbone.embed_tokens", "lm.speech_embedding")
    expected = sum(
        4 * p.numel()
        for name, p in model.named_parameters()
        if not name.startswith((*tables, "audio_codec.model.audio_encoder")) and "linear_pos" not in name
    )
    assert sum(read[stage].weights for stage in ("encoder", "llm", "codec")) == expected
    # Two memories of two layers of 2 x 2048 positions x one head of 16, in float32; the rest is small.
    assert 2 * 2 * 2 * 2048 * 16 * 4 <= read["llm"].remembered < 1.01 * 2 * 2 * 2 * 2048 * 16 * 4


def test_half_as_many_bytes_in_bfloat16(work):
    half = stage_work(random_model("tiny", "cpu", "bf16"))
    for stage in ("encoder", "llm", "codec"):
        assert half[stage].weights * 2 == work[stage].weights, stage


@pytest.mark.skipif(not hasattr(torch.ops.onednn, "qlinear_pointwise"), reason="needs a torch with oneDNN")
def test_a_quarter_of_the_bytes_in_linear_layers_of_8_bits(model, work, monkeypatch):
    """All of the language model's weights are of Linear layers but for its norms."""
    monkeypatch.setattr("nemo_duplex.kernels.linear._SMALLEST", 1)
    assert 0.24 < stage_work(model, int8=True)["llm"].weights / work["llm"].weights < 0.3


def test_the_floor_is_bytes_over_bandwidth():
    done = StageWork(weights=4_000, remembered=500, operations=20)
    assert (done.read_time(0, 1_000.0), done.read_time(4, 1_000.0), done.compute_time(4, 10.0)) == (4.0, 6.0, 8.0)


def test_operations_of_one_caller(model, work):
    """Each memory of the language model multiplies each weight once, and attends to its first block; the codec many times."""
    llm, codec = work["llm"], work["codec"]
    products = sum(p.numel() for p in model.lm.backbone.llm.parameters() if p.dim() == 2)
    heads = model.lm.backbone.lm_head.weight.numel() + model.lm.speech_head.projection.weight.numel()
    attention = (
        2 * 2 * 2 * 512 * 2 * 16
    )  # layers, queries and values, two operations, the first block of positions, heads of 16
    memories = 2
    assert llm.operations == pytest.approx(memories * (2 * products + attention) + 2 * heads, rel=0.02)
    assert codec.operations > 10 * codec.weights / 4


def test_every_batch_is_measured(model, monkeypatch):
    monkeypatch.setattr("nemo_duplex.benchmark.sessions._WARM_UP_CHUNKS", 1)
    one, two = measure_batches(model, user_speech(None, 16000, 5.0), [1, 2], 2)
    assert (one.ticks.sessions, two.ticks.sessions) == (1, 2)
    assert one.ticks.count == two.ticks.count == 2 and one.ticks.frames_per_tick == 1
    assert set(one.ticks.stages) == {*STAGES, "step"}
    assert min(one.peak_bytes, two.peak_bytes) > 4 * sum(p.numel() for p in model.parameters())


def test_no_batch_is_given_up(model, monkeypatch):
    asked = []
    monkeypatch.setattr(roofline, "simulate", lambda *arguments: asked.append(arguments))
    measure_batches(model, None, [8], 5, {"int8": True})
    ((_, _, sessions, simulation),) = asked
    assert (sessions, simulation.ticks, simulation.give_up, simulation.options) == (8, 5, False, {"int8": True})


def test_the_tables_hold_each_stage_against_the_machine():
    """1 GB/s and 1 GFLOP/s; a stage of 4 MB, 1 MB per caller and 2 million operations per caller; two callers."""
    times = {"p50": 0.008, "p95": 0.009, "p99": 0.010}
    part = {
        "what": "a model",
        "copy_bandwidth": 1e9,
        "read_bandwidth": 2e9,
        "matmul_rate": 1e9,
        "work": {stage: {"weights": 4_000_000, "remembered": 1_000_000, "operations": 2_000_000} for stage in STAGES},
        "batches": [
            {
                "ticks": {
                    "sessions": 2,
                    "count": 10,
                    **times,
                    "stages": {stage: times | {"count": 5 if stage in ("mel", "encoder") else 10} for stage in STAGES},
                },
                "peak_bytes": 3_000_000_000,
            }
        ],
    }
    setting = {"size": None, "device": "cpu", "precision": "32", "int8": True, "compile": False, "cuda_graphs": None}
    stages, ticks = stages_tables({"stages": part, "setting": setting, "date": "today", "machine": "here"})
    assert stages.title == "Stages at full size (paper)"
    assert stages.about[:2] == ["a model, precision 32, int8", "today, here"]
    assert "1.0 GB/s" in stages.about[2] and "2.0 GB/s" in stages.about[2] and "1 GFLOP/s" in stages.about[3]
    assert stages.rows[2] == ("llm, 2 callers", "8 ms", "10 ms", "4.0 MB", "4 ms", "6 ms", "4 ms", "2.0 x")
    assert [row[0] for row in stages.rows] == [f"{stage}, 2 callers" for stage in STAGES]
    # mel and encoder run every other tick: 2 x 6 ms / 2 + 2 x 6 ms
    assert ticks.rows == [("2", "8 ms", "9 ms", "10 ms", "18 ms", "3.00 GB")]
