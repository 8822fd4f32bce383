"""Two processes train what one would: DDP, FSDP2 and tensor parallelism over gloo, beside a run on the whole batch.

The fast tests shard over a world of one process: weights are sharded, gathered and released as in any other.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.data import DataLoader

from nemo_duplex.inputs import InputError
from nemo_duplex.llm.backbone import Backbone
from nemo_duplex.llm.lora import add_lora
from nemo_duplex.llm.tensor_parallel import split_layers
from nemo_duplex.models import parallel
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.metrics import StepSums
from nemo_duplex.training.trainer import ShardedStrategy, trainer_arguments
from tests.dummies import speech_like, tiny_model
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
def test_experts_are_balanced_over_all_ranks(runs):
    """Under both strategies, and on every rank, the same losses and gradients; the first loss is the mean of the ranks'."""
    _, first, second = runs
    ddp, fsdp2 = (first[f"experts {name}"] for name in ("ddp", "fsdp2"))
    for one, other in zip(ddp["sums"], fsdp2["sums"]):
        assert one == pytest.approx(other, rel=1e-4)
    assert [s["experts_loss"] for s in ddp["sums"]] == [s["experts_loss"] for s in second["experts ddp"]["sums"]]
    assert torch.allclose(torch.tensor(ddp["norms"]), torch.tensor(fsdp2["norms"]), rtol=1e-3)
    for step in ddp["sums"]:
        parts = 3 * step["text_loss"] + step["speech_loss"] + 0.5 * step["experts_loss"]
        assert step["loss"] == pytest.approx(parts) and step["experts_loss"] > 1.9


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


# ---------------------------------------------------------------------- a world of one process


@pytest.fixture
def mesh(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    distributed.destroy_process_group()


@pytest.fixture
def sharded(mesh, tmp_path):
    model = tiny_model(tmp_path, llm={**LLAMA, "tie_word_embeddings": True})
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    parallel.shard(model, mesh)
    return model, before


def split(model):
    return [name for name, p in model.named_parameters() if isinstance(p, DTensor)]


def test_weights_are_whole_inside_and_sharded_again_afterwards(sharded):
    model, before = sharded
    names = [name for name, _ in model.named_parameters() if not name.startswith("audio_codec.")]
    assert split(model) == names and parallel.is_sharded(model)
    parallel.shard(model, object())  # not twice
    with pytest.raises(ZeroDivisionError), parallel.whole(model):
        assert split(model) == []
        for name, weight in model.named_parameters():
            assert torch.equal(weight, before[name]), name
        with parallel.whole(model):  # as when a model that is validated speaks
            assert split(model) == []
        assert split(model) == []
        raise ZeroDivisionError
    assert split(model) == names


def test_only_the_layers_are_dropped_between_forward_and_backward(sharded):
    """The last layers run several times in a step: their weights stay from the first time on."""
    model, _ = sharded
    parallel.gather(model)
    parallel.release(model)
    layers = list(model.lm.backbone.llm.layers)
    states = {
        group: group._get_fsdp_state()._fsdp_param_group.post_forward_mesh_info is not None for group in (*layers, model.lm)
    }
    assert states == {**dict.fromkeys(layers, True), model.lm: False}


def test_a_sharded_model_is_saved_whole_and_is_sharded_again_after_an_error_too(sharded):
    model, before = sharded
    names = split(model)

    def save():
        assert split(model) == []
        assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
        assert model.lm.backbone.lm_head.weight is model.lm.backbone.embed_tokens.weight
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        parallel.save_once(model, save)
    assert split(model) == names


def test_at_least_one_weight_below_the_heads_must_be_trained(mesh, tmp_path):
    model = tiny_model(tmp_path)
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith(("lm.speech_head", "lm.backbone.lm_head")))
    with pytest.raises(InputError, match="fsdp2 more than the output layers must be trained"):
        parallel.shard(model, mesh)
    assert not parallel.is_sharded(model)


def test_all_start_from_the_weights_of_rank_0(mesh, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(distributed, "broadcast", lambda tensor, src: sent.append((tensor.add_(1), src)))
    model = tiny_model(tmp_path)
    weight = model.perception.proj.bias.detach().clone()
    parallel.shard(model, mesh)
    assert {src for _, src in sent} == {0} and len(sent) == len([*model.parameters(), *model.buffers()])
    assert torch.equal(model.perception.proj.bias.full_tensor(), weight + 1)


# ---------------------------------------------------------------------- sums and gradients, ranks made up


@pytest.fixture
def two_ranks(monkeypatch):
    """This is rank 0; the other one has ten times as much of everything."""
    monkeypatch.setattr(parallel, "_distributed", lambda: True)
    monkeypatch.setattr(distributed, "all_reduce", lambda tensor, group: tensor.mul_(11))
    monkeypatch.setattr(distributed, "get_world_size", lambda group: 2)


SUMS = StepSums(["a", "b"], torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))


def test_sums_of_all_ranks_know_how_many_there_are(two_ranks):
    found = parallel.summed_over_ranks(SUMS, None)
    assert (found.names, found.sums.tolist(), found.counts.tolist()) == (["a", "b"], [11, 22], [33, 44])
    assert found.ranks == 2 and SUMS.sums.tolist() == [1, 2]


def test_one_process_has_its_own_sums():
    assert parallel.summed_over_ranks(SUMS, None) is SUMS
    assert parallel.merged_over_ranks({"": SUMS}, None) == {"": SUMS}


def test_sets_that_only_one_rank_has_are_merged_too(two_ranks, monkeypatch):
    def gathered(found, own, group):
        found[:] = [own, {"easy": SUMS, "hard": SUMS}]

    monkeypatch.setattr(distributed, "all_gather_object", gathered)
    found = parallel.merged_over_ranks({"easy": SUMS}, None)
    assert {name: (s.sums.tolist(), s.counts.tolist()) for name, s in found.items()} == {
        "easy": ([2, 4], [6, 8]),
        "hard": ([1, 2], [3, 4]),
    }


@pytest.mark.parametrize("rank", [0, 1])
def test_only_rank_0_saves(monkeypatch, rank):
    calls = []
    monkeypatch.setattr(parallel, "_distributed", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: rank)
    monkeypatch.setattr(distributed, "barrier", lambda: calls.append("wait"))
    parallel.save_once(torch.nn.Linear(1, 1), lambda: calls.append("save"))
    assert calls == (["save", "wait"] if rank == 0 else ["wait"])


def with_gradients(*values):
    parameters = [torch.nn.Parameter(torch.zeros(len(value))) for value in values]
    for parameter, value in zip(parameters, values):
        parameter.grad = torch.tensor(value)
    return parameters


def test_the_norm_is_of_all_gradients_together(mesh):
    parameters = with_gradients([3.0, 0.0], [0.0, 4.0], [12.0])
    parameters[1].grad = distribute_tensor(parameters[1].grad, mesh["data_parallel"])  # split in another way
    assert parallel.gradient_norm([*parameters, torch.nn.Parameter(torch.ones(3))]).item() == pytest.approx(13.0)
    assert parallel.gradient_norm([torch.nn.Parameter(torch.ones(3))]) is None


@pytest.mark.parametrize("most, scale", [(6.5, 0.5), (13.5, 1.0)], ids=["too long", "short enough"])
def test_gradients_are_scaled_down_together_and_never_up(most, scale):
    parameters = with_gradients([3.0, 4.0], [12.0])
    parallel.clip_gradients(parameters, most)
    assert [p.grad.tolist() for p in parameters] == [
        pytest.approx([3.0 * scale, 4.0 * scale], rel=1e-5),
        pytest.approx([12.0 * scale], rel=1e-5),
    ]
    parallel.clip_gradients([torch.nn.Parameter(torch.ones(3))], most)  # nothing to clip


def test_parameter_groups_are_split_by_mesh_only_under_tensor_parallelism(mesh):
    plain, frozen = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2), requires_grad=False)
    one = torch.nn.Parameter(distribute_tensor(torch.zeros(2), mesh["data_parallel"]))
    both = torch.nn.Parameter(distribute_tensor(torch.zeros(2), mesh))
    groups = [{"params": [plain, one], "lr": 1.0}]
    assert parallel.groups_by_mesh(groups) is groups
    found = parallel.groups_by_mesh([{"params": [plain, one, frozen, both], "lr": 1.0}, {"params": [one], "lr": 2.0}])
    assert [(group["lr"], len(group["params"])) for group in found] == [(1.0, 2), (1.0, 1), (1.0, 1), (2.0, 1)]
    assert found[0]["params"][0] is plain and found[0]["params"][1] is frozen
    assert found[1]["params"][0] is one and found[2]["params"][0] is both


# ---------------------------------------------------------------------- what is refused


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
    [
        (None, "2 GPUs cannot share a llama model: transformers has no plan .*Set it to 1.$"),
        ({"layers.*.mlp": "moe_tp_experts"}, "parts that .*Set it to 1.$"),
    ],
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
