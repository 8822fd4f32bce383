"""Two processes train what one would: DDP, FSDP2 and tensor parallelism over gloo, beside a run on the whole batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.strategy import ShardedStrategy, trainer_arguments
from tests.dummies import speech_like
from tests.models.parallel_worker import fit, loader

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
    found = {"llama": fit("llama", folder / "llama", ALONE, validation=lambda model: loader(model, range(2), range(4)))}
    found |= {name: fit(name, folder / name, ALONE, steps=range(4)) for name in ("tied", "qwen2", "qwen3")}
    return found


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
def test_tied_weights_and_frozen_parts_are_sharded_too(runs, alone):
    torch.testing.assert_close(losses(runs[1]["tied"]), losses(alone["tied"][1]), rtol=1e-5, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_tensor_parallel_layers_compute_the_same(runs, alone, name):
    expected = losses(alone[name][1])[:4]
    torch.testing.assert_close(losses(runs[1][f"tensor parallel {name}"]), expected, rtol=1e-4, atol=0)


@pytest.mark.slow
def test_a_rank_holds_half_of_the_weights(runs):
    whole = sum(weight.numel() for weight in runs[1]["weights"].values())
    codec = sum(w.numel() for name, w in runs[1]["weights"].items() if name.startswith("audio_codec"))
    assert runs[1]["slices"] + runs[2]["slices"] == pytest.approx(whole - codec, rel=0.02)


@pytest.mark.slow
def test_a_sharded_model_is_one_file_that_one_process_restores(runs):
    folder, first, second = runs
    model = DuplexS2SModel.restore_from(folder / "agent.nemo", map_location="cpu")
    for name, weight in model.named_parameters():
        assert torch.equal(weight, first["weights"][name]), name
    for rank, found in enumerate((first, second)):
        seconds = 1.0 + rank
        out = model.offline_inference(speech_like(seconds)[None], torch.tensor([round(seconds * 16000)]))
        assert torch.equal(out["tokens_audio"], found["spoken"]), "ranks speak to callers of different length, and alike"


@pytest.mark.slow
def test_a_sharded_run_goes_on_from_its_checkpoint(runs):
    _, first, _ = runs
    resumed = losses(first["fsdp2 resumed"])
    torch.testing.assert_close(resumed, losses(first["fsdp2"])[-len(resumed) :], rtol=1e-5, atol=0)
    state = torch.load(runs[0] / "full.ckpt", map_location="cpu", weights_only=False)["state_dict"]
    assert {name: w.shape for name, w in state.items() if name in first["weights"]} == {
        name: w.shape for name, w in first["weights"].items()
    }, "the checkpoint is a whole one: any strategy, or one process, goes on from it"


@pytest.mark.slow
def test_bfloat16_trains_near_float32(runs):
    torch.testing.assert_close(losses(runs[1]["bf16-mixed"]), losses(runs[1]["fsdp2"])[:2], rtol=0.03, atol=0)


@pytest.mark.slow
def test_validation_is_that_of_all_ranks(runs):
    """Two batches on one rank and one on the other: both end, and log the same."""
    _, first, second = runs
    for strategy in ("ddp", "fsdp2"):
        assert first[strategy]["validation"].keys() >= {"val_loss", "val_text_loss", "val_speech_loss"}
        assert first[strategy]["validation"] == second[strategy]["validation"]


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
