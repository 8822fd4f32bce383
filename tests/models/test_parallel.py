"""Two processes train what one would: DDP, FSDP2 and tensor parallelism over gloo, beside a run on the whole batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from nemo_duplex.inputs import InputError
from nemo_duplex.llm.backbone import Backbone
from nemo_duplex.llm.lora import add_lora
from nemo_duplex.llm.tensor_parallel import split_layers
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.training.trainer import ShardedStrategy, trainer_arguments
from tests.dummies import speech_like
from tests.models.parallel_worker import LLAMA, fit, loader

ROOT = Path(__file__).parent.parent.parent
ALONE = {"strategy": "auto", "devices": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What both ranks found, and the folder with what they wrote."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.models.parallel_worker"]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(folder)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    said = [rank.communicate(timeout=540)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said[0][-3000:] + said[1][-3000:]
    return folder, *(torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in (0, 1))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same trainings on one process, by the name of the model."""
    folder = tmp_path_factory.mktemp("alone")
    found = {"llama": fit("llama", folder / "llama", ALONE, validation=all_that_is_validated)}
    found |= {name: fit(name, folder / name, ALONE, steps=range(4)) for name in ("tied", "qwen2", "qwen3")}
    return found


def all_that_is_validated(model):
    """What both ranks have in `parallel_worker.main`: four conversations, and two more."""
    both, first = (list(loader(model, [step], rows)) for step, rows in ((0, range(4)), (1, range(2))))
    return DataLoader(both + first, batch_size=None)


def losses(run):
    return torch.tensor(run["losses"] if isinstance(run, dict) else run.losses, dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_losses_are_those_of_one_process(runs, alone, strategy):
    """Ten steps on conversations of 20, 15, 11 and 4 frames, two on each rank: a frame counts the same on both."""
    _, first, second = runs
    expected = losses(alone["llama"][1])
    assert expected.shape == (10, 2) and expected[-1].sum() < 0.9 * expected[0].sum(), "a run that learns nothing proves little"
    torch.testing.assert_close(losses(first[strategy]), expected, rtol=1e-5, atol=0)
    assert torch.equal(losses(first[strategy]), losses(second[strategy])), "every rank logs the loss of the global batch"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp2", "tied", *(f"tensor parallel {name}" for name in ("llama", "qwen2", "qwen3"))])
def test_gradients_are_those_of_one_process_and_clipped_as_a_whole(runs, alone, name):
    """Losses tell little of their scale: for Adam it is all the same."""
    expected = alone[next((n for n in alone if n in name), "llama")][1].norms
    found = torch.tensor(runs[1][name]["norms"])
    torch.testing.assert_close(found, torch.tensor(expected)[: len(found)], rtol=1e-4, atol=0)
    assert found[0, 0] > 1.5 and found[:, 1].max() < 1.0 + 1e-4, "there is something to clip"


@pytest.mark.slow
def test_tied_weights_frozen_parts_and_adapters_are_sharded_too(runs, alone):
    """With activations that are made again in the backward pass."""
    torch.testing.assert_close(losses(runs[1]["tied"]), losses(alone["tied"][1]), rtol=1e-5, atol=0)


@pytest.mark.slow
def test_adapters_of_a_sharded_model_are_saved_as_such_or_merged(runs):
    folder, first, _ = runs
    state = DuplexS2SModel.restore_from(folder / "tied.nemo", map_location="cpu").state_dict()
    assert state.keys() == first["tied state"].keys() and any("lora_" in name for name in state)
    for name, weight in state.items():
        assert torch.equal(weight, first["tied state"][name]), name
    merged = DuplexS2SModel.restore_from(folder / "merged.nemo", map_location="cpu").state_dict()
    layer = "lm.backbone.llm.layers.0.self_attn.q_proj"
    down, up = (state[f"{layer}.lora_{side}.default.weight"] for side in "AB")
    expected = state[f"{layer}.base_layer.weight"] + up @ down * 8 / 2  # peft's default lora_alpha over r
    assert up.abs().max() > 0
    torch.testing.assert_close(merged[f"{layer}.weight"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_tensor_parallel_layers_compute_the_same(runs, alone, name):
    expected = losses(alone[name][1])[:4]
    torch.testing.assert_close(losses(runs[1][f"tensor parallel {name}"]), expected, rtol=1e-4, atol=0)


@pytest.mark.slow
def test_a_rank_holds_half_of_the_weights(runs):
    (first, whole), (second, _) = (found["slices"] for found in runs[1:])
    assert first + second == whole and first < 0.52 * whole


@pytest.mark.slow
def test_a_sharded_model_is_one_file_that_one_process_restores(runs):
    folder, first, second = runs
    model = DuplexS2SModel.restore_from(folder / "agent.nemo", map_location="cpu")
    assert model.state_dict().keys() == first["weights"].keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, first["weights"][name]), name
    assert not list(folder.glob(".part*")), "written once, by one rank"
    for rank, found in enumerate((first, second)):
        seconds = 1.0 + rank
        out = model.offline_inference(speech_like(seconds)[None], torch.tensor([round(seconds * 16000)]))
        assert torch.equal(out["tokens_audio"], found["spoken"]), "ranks speak to callers of different length, and alike"


@pytest.mark.slow
def test_a_sharded_run_goes_on_from_its_checkpoint(runs):
    """On as many processes: bit for bit."""
    assert torch.equal(losses(runs[1]["fsdp2 resumed"]), losses(runs[1]["fsdp2"])[4:])


@pytest.mark.slow
def test_one_process_goes_on_from_the_checkpoint_of_a_sharded_run(runs, alone, tmp_path):
    """Weights, both moments of Adam, and the step."""
    _, log = fit("llama", tmp_path, ALONE, steps=range(4, 10), resume=runs[0] / "full.ckpt")
    torch.testing.assert_close(losses(log), losses(alone["llama"][1])[4:], rtol=1e-5, atol=0)


@pytest.mark.slow
def test_bfloat16_trains_near_float32(runs):
    torch.testing.assert_close(losses(runs[1]["bf16-mixed"]), losses(runs[1]["fsdp2"])[:2], rtol=0.03, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_validation_is_that_of_all_ranks(runs, alone, strategy):
    """Two batches on one rank and one on the other: both come to an end, and log what one process would."""
    _, first, second = runs
    expected = alone["llama"][1].validation
    assert first[strategy]["validation"] == second[strategy]["validation"] and "val_loss" in expected
    for name, value in expected.items():
        if name != "val_padding_ratio":  # batches of one process are padded further
            assert first[strategy]["validation"][name] == pytest.approx(value, rel=1e-4), name


WRONG = {
    "unknown": ({"strategy": "dpd"}, "trainer.strategy is 'dpd', expected auto, ddp or fsdp2"),
    "tensor parallel without fsdp2": ({"strategy": "ddp", "tensor_parallel": 2}, "needs trainer.strategy=fsdp2, got ddp"),
    "no number": ({"strategy": "fsdp2", "tensor_parallel": 0}, "expected a number of GPUs"),
}


@pytest.mark.parametrize("section, message", WRONG.values(), ids=WRONG)
def test_a_wrong_strategy_is_one_line(section, message):
    with pytest.raises(InputError, match=message):
        trainer_arguments(section)


def test_strategies_of_nemos_in_tree_configs():
    their_ddp = {"_target_": "lightning.pytorch.strategies.DDPStrategy", "find_unused_parameters": True}
    assert type(trainer_arguments({"strategy": their_ddp})["strategy"]).__name__ == "DDPStrategy"
    theirs = {"_target_": "lightning.pytorch.strategies.ModelParallelStrategy", "tensor_parallel_size": 2}
    assert isinstance(trainer_arguments({"strategy": theirs})["strategy"], ShardedStrategy)


class Mesh:
    """As much of a device mesh as is asked before anything is split."""

    def __init__(self, size):
        self.size = lambda: size


def config(**changes):
    return LLAMA | {"vocab_size": 40} | changes


UNSPLIT = {
    "heads": (config(), 4, "it has 4 and 2 heads, which 4 does not divide"),
    "features": (config(num_attention_heads=6, num_key_value_heads=3), 3, "mlp.gate_proj has 32 features, which 3 does not"),
}


@pytest.mark.parametrize("llm, size, message", UNSPLIT.values(), ids=UNSPLIT)
def test_sizes_that_do_not_divide_are_refused(llm, size, message):
    with pytest.raises(InputError, match=message):
        split_layers(Backbone(llm), Mesh(size))


@pytest.mark.parametrize(
    "plan, message",
    [(None, "2 GPUs cannot share a llama model: transformers has no plan"), ({"layers.*.mlp": "moe_tp_experts"}, "parts that")],
    ids=["no plan", "unknown parts"],
)
def test_plans_that_cannot_be_carried_out_are_refused(plan, message):
    backbone = Backbone(config())
    backbone.config.base_model_tp_plan = plan
    with pytest.raises(InputError, match=message):
        split_layers(backbone, Mesh(2))


def test_adapters_are_not_split():
    backbone = Backbone(config())
    add_lora(backbone.llm, {"r": 2, "target_modules": ["q_proj"]})
    with pytest.raises(InputError, match="q_proj is no plain Linear .adapters of LoRA"):
        split_layers(backbone, Mesh(2))
