"""What stages read: each weight that a step needs, once; and what each row remembers."""

import pytest
import torch

from nemo_duplex.benchmark.callers import speech_of
from nemo_duplex.benchmark.machine import copy_bandwidth, machine, matmul_rate, read_bandwidth
from nemo_duplex.benchmark.models import agent, random_model
from nemo_duplex.benchmark.stages import STAGES, Work, measure, work


@pytest.fixture(scope="module")
def model():
    return random_model("tiny", "cpu")


def test_stages_read_every_weight_but_tables_of_rows_and_the_encoder_of_the_codec(model):
    read = work(model)
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


def test_half_as_many_bytes_in_bfloat16():
    whole, half = (work(random_model("tiny", "cpu", precision)) for precision in ("32", "bf16"))
    for stage in ("encoder", "llm", "codec"):
        assert half[stage].weights * 2 == whole[stage].weights, stage


@pytest.mark.skipif(not hasattr(torch.ops.onednn, "qlinear_pointwise"), reason="needs a torch with oneDNN")
def test_a_quarter_of_the_bytes_in_linear_layers_of_8_bits(model, monkeypatch):
    """All of the language model's weights are of Linear layers but for its norms."""
    monkeypatch.setattr("nemo_duplex.llm.int8_linear._SMALLEST", 1)
    whole, octets = (work(model, int8)["llm"].weights for int8 in (False, True))
    assert octets < 0.3 * whole and octets > 0.24 * whole


def test_the_floor_is_bytes_over_bandwidth():
    done = Work(weights=4_000, remembered=500, operations=20)
    assert (done.reading(0, 1_000.0), done.reading(4, 1_000.0), done.computing(4, 10.0)) == (4.0, 6.0, 8.0)


def test_operations_of_one_caller(model):
    """Each memory of the language model multiplies each weight once, and attends to all of it; the codec many times."""
    llm, codec = (work(model)[stage] for stage in ("llm", "codec"))
    products = sum(p.numel() for p in model.lm.backbone.llm.parameters() if p.dim() == 2)
    heads = model.lm.backbone.lm_head.weight.numel() + model.lm.speech_head.projection.weight.numel()
    attention = 2 * 2 * 2 * 2048 * 2 * 16  # layers, queries and values, two operations, positions, heads of 16
    memories = 2
    assert llm.operations == pytest.approx(memories * (2 * products + attention) + 2 * heads, rel=0.02)
    assert codec.operations > 10 * codec.weights / 4


def test_every_batch_is_measured(model):
    one, two = measure(model, speech_of(None, 16000, 5.0), [1, 2], 6)
    assert (one.ticks.sessions, two.ticks.sessions) == (1, 2)
    assert one.ticks.count == two.ticks.count == 6 and one.ticks.frames_per_tick == 1
    assert set(one.ticks.stages) == {*STAGES, "step"}
    assert min(one.peak_bytes, two.peak_bytes) > 4 * sum(p.numel() for p in model.parameters())


def test_an_agent_without_a_file_is_the_one_of_the_recipe():
    model = agent(None, "cpu")
    assert model.cfg.attention_window == 112 and model.layout.text_vocab_size == 512
    assert model.lm.backbone.config.hidden_size == 256 and model.perception.chunk_frames == 2


def test_the_machine_has_a_name_and_a_bandwidth(monkeypatch):
    monkeypatch.setattr("nemo_duplex.benchmark.machine._COPIED_BYTES", {"cpu": 1 << 24})
    monkeypatch.setattr("nemo_duplex.benchmark.machine._MULTIPLIED", {"cpu": 256})
    assert torch.__version__ in machine("cpu") and "threads" in machine("cpu")
    assert 1e8 < copy_bandwidth("cpu") < 1e13 and 1e8 < read_bandwidth("cpu") < 1e13
    assert 1e8 < matmul_rate("cpu", torch.float32) < 1e15
