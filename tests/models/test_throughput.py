"""Training is watched: what reaches the loggers and the progress bar is what happened, on one process and on two."""

import math
import subprocess
import sys
import time

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import Logger

from nemo_duplex.data.batch import DuplexBatch
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.metrics import StepSums
from nemo_duplex.models.parallel import gradient_norm
from nemo_duplex.models.throughput import Throughput, memory, throughput
from tests.dummies import speech_like, tiny_config

FRAMES = (20, 15)  # of the two conversations of every batch


class Notebook(Logger):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.entries = {}

    name = version = "notebook"

    def log_metrics(self, metrics, step=None):
        self.entries.setdefault(step, {}).update(metrics)

    def log_hyperparams(self, *args, **kwargs):
        pass

    def named(self, prefix):
        return {step: found for step, e in self.entries.items() if (found := {k: v for k, v in e.items() if prefix in k})}


class Conversations(torch.utils.data.IterableDataset):
    """Batches of 20 and 15 frames with a turn each, or with none; `wait` seconds apart."""

    def __init__(self, layout, turns=True, wait=0.0):
        self.layout, self.turns, self.wait = layout, turns, wait

    def __iter__(self):
        while True:
            time.sleep(self.wait)
            tokens = torch.full((2, 20), self.layout.text_pad)
            if self.turns:
                tokens[:, 4], tokens[:, 5:8], tokens[:, 12] = self.layout.text_bos, 7, self.layout.text_eos
            yield DuplexBatch(
                ids=["a", "b"],
                user_audio=torch.stack([speech_like(1.6, seed) for seed in (0, 1)]),
                user_audio_lens=torch.tensor(FRAMES) * 1280,
                agent_tokens=tokens,
                num_frames=torch.tensor(FRAMES),
                agent_codes=torch.randint(0, self.layout.codebook_size, (2, self.layout.num_codebooks, 20)),
            )


def fit(folder, *callbacks, model_keys=None, turns=True, wait=0.0, validation=False, **options):
    model = DuplexS2SModel(tiny_config(folder, **(model_keys or {})))
    notebook = Notebook()
    data = torch.utils.data.DataLoader(Conversations(model.layout, turns, wait), batch_size=None)
    defaults = {"max_steps": 4, "log_every_n_steps": 2, "accelerator": "cpu", "enable_progress_bar": False}
    trainer = pl.Trainer(
        **(defaults | options),
        logger=notebook,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=1,
    )
    model.set_trainer(trainer)
    trainer.fit(model, data, data if validation else None)
    return trainer, model, notebook


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("run"))


def test_a_model_is_watched_by_whoever_trains_it(run):
    trainer, _, notebook = run
    assert sum(isinstance(c, Throughput) for c in trainer.callbacks) == 1
    assert list(notebook.named("train/")) == list(notebook.named("throughput/")) == [2, 4]


def test_text_speech_codebooks_and_turn_marks_are_logged_apart(run):
    names = {name.removeprefix("train/") for name in run[2].named("train/")[4]}
    accuracies = {
        "text_accuracy",
        "bos_accuracy",
        "eos_accuracy",
        "speech_accuracy",
        "codebook_0_accuracy",
        "codebook_1_accuracy",
    }
    assert names == {"loss", "text_loss", "speech_loss", "lr", "grad_norm", *accuracies}


def test_padding_and_tokens_are_those_of_the_batches(run):
    entry = run[2].named("throughput/")[4]
    assert entry["throughput/padding_ratio"] == pytest.approx(1 - sum(FRAMES) / 40)
    assert entry["throughput/text_tokens_per_step"] == 10  # two turns of BOS, three words and EOS
    frames = entry["throughput/frames_per_second"] * entry["throughput/seconds_per_step"]
    assert frames == pytest.approx(sum(FRAMES))
    assert entry["throughput/audio_seconds_per_second"] == pytest.approx(0.08 * entry["throughput/frames_per_second"])
    assert 0 < entry["throughput/resident_gb"] <= entry["throughput/peak_resident_gb"] * 1.01


def test_the_progress_bar_shows_the_main_figures(run):
    shown = run[0].progress_bar_metrics
    assert list(shown) == ["loss", "text", "speech", "frames/s", "audio_s/s", "pad%", "tokens", "GB", "wait%"]
    assert shown["pad%"] == 12.5 and shown["tokens"] == 10
    assert run[0].callback_metrics["train/loss"] == pytest.approx(shown["loss"])


def test_what_a_batch_does_not_have_is_not_logged(tmp_path):
    _, _, notebook = fit(tmp_path, turns=False, max_steps=2)
    entry = notebook.named("train/")[2]
    assert "train/bos_accuracy" not in entry and not any(math.isnan(value) for value in entry.values())


def test_waiting_for_data_is_seen_and_validation_is_not_training(tmp_path):
    class Slow(pl.Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            time.sleep(1.0)

    options = {"val_check_interval": 2, "limit_train_batches": 4}
    _, _, notebook = fit(tmp_path, Slow(), wait=0.1, validation=True, max_steps=4, **options)
    entry = notebook.named("throughput/")[4]  # a validation lies between step 2 and step 4
    assert entry["throughput/seconds_per_step"] < 0.5
    assert 0.1 < entry["throughput/wait_ratio"] * entry["throughput/seconds_per_step"] < 0.2


class Halves(pl.Callback):
    """Another callback that changes the rate just before the step, as TimeBudget does."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        for group in optimizer.param_groups:
            group["lr"] *= 0.5


def test_rates_are_those_of_the_step_and_the_norm_is_before_clipping(tmp_path):
    class Seen(pl.Callback):
        norms = []

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            grads = [p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]
            self.norms.append(torch.cat(grads).norm().item())

    keys = {"optim_param_groups": {"perception": {"lr": 4e-4}}}
    _, _, notebook = fit(
        tmp_path, Halves(), Seen(), model_keys=keys, max_steps=2, gradient_clip_val=1e-3, accumulate_grad_batches=2
    )
    entry = notebook.named("train/")[2]
    assert entry["train/grad_norm"] == pytest.approx(Seen.norms[1], rel=1e-4) and Seen.norms[1] > 1e-2
    # no scheduler writes the rate anew here: halved twice
    assert entry["train/lr"] == pytest.approx(1e-3 / 4) and entry["train/lr_perception"] == pytest.approx(4e-4 / 4)
    assert notebook.named("throughput/")[2]["throughput/text_tokens_per_step"] == 20, "two batches make a step"


def test_a_step_that_is_skipped_stops_nothing(tmp_path):
    class Skips(Throughput):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            super().on_train_batch_end(trainer, pl_module, None if batch_idx == 1 else outputs, batch, batch_idx)

    trainer, _, notebook = fit(tmp_path, Skips(), max_steps=2)
    assert notebook.named("throughput/")[2]["throughput/text_tokens_per_step"] == 5
    assert sum(isinstance(c, Throughput) for c in trainer.callbacks) == 1


def test_figures_follow_from_sums():
    sums = StepSums(["text_accuracy", "padding_ratio"], torch.tensor([3.0, 100.0]), torch.tensor([30.0, 500.0]))
    assert throughput(sums, elapsed=2.0, waited=0.5, steps=5, frame=0.08) == pytest.approx(
        {
            "frames_per_second": 200,
            "audio_seconds_per_second": 16,
            "padding_ratio": 0.2,
            "text_tokens_per_step": 6,
            "text_tokens_per_second": 15,
            "seconds_per_step": 0.4,
            "wait_ratio": 0.25,
        }
    )


def test_memory_is_counted_in_gigabytes():
    assert 0.05 < memory(torch.device("cpu"))["resident_gb"] < 100


def test_there_is_no_norm_without_gradients():
    assert gradient_norm([torch.nn.Parameter(torch.ones(3))]) is None


_RANK = """
import sys, torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from nemo_duplex.models.parallel import gradient_norm
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 3))
whole = [torch.randn_like(p) for p in model.parameters()]
expected = torch.cat([g.flatten() for g in whole]).norm()
from torch.distributed.tensor import distribute_tensor
fully_shard(model[0], mesh=init_device_mesh("cpu", (2,)))  # the second layer stays whole: both kinds are added
for parameter, gradient in zip(model.parameters(), whole):
    mesh = getattr(parameter, "device_mesh", None)
    parameter.grad = distribute_tensor(gradient, mesh, parameter.placements) if mesh is not None else gradient
torch.testing.assert_close(gradient_norm(model.parameters()), expected)
"""


@pytest.mark.slow
def test_the_norm_is_of_whole_gradients_where_ranks_hold_shards(tmp_path):
    ranks = [
        subprocess.Popen([sys.executable, "-c", _RANK, str(rank), str(tmp_path / "store")], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()


@pytest.mark.slow
def test_weights_and_biases_is_not_loaded_unasked():
    probe = "import sys, nemo_duplex.models.throughput, nemo_duplex.evaluation.callback; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe]).returncode == 0
