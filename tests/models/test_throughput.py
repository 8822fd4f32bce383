"""Training is watched: what reaches the loggers and the progress bar is what happened."""

import math
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import Logger

from nemo_duplex.data.batch import DuplexBatch
from nemo_duplex.models import throughput as module
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.losses import LossWeights
from nemo_duplex.models.metrics import StepSums
from nemo_duplex.models.throughput import Throughput, group_names, memory, throughput
from tests.dummies import EXPERTS, speech_like, tiny_config

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
    """Batches of 20 and 15 frames with a turn each, or with none."""

    def __init__(self, layout, turns=True):
        self.layout, self.turns = layout, turns

    def __iter__(self):
        while True:
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


def fit(folder, *callbacks, model_keys=None, turns=True, **options):
    model = DuplexS2SModel(tiny_config(folder, **(model_keys or {})))
    notebook = Notebook()
    data = torch.utils.data.DataLoader(Conversations(model.layout, turns), batch_size=None)
    defaults = {"max_steps": 4, "log_every_n_steps": 2, "accelerator": "cpu", "enable_progress_bar": False}
    trainer = pl.Trainer(
        **(defaults | options),
        logger=notebook,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    model.set_trainer(trainer)
    trainer.fit(model, data)
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


def test_the_loss_of_experts_is_logged_beside_the_channels(tmp_path):
    trainer, _, notebook = fit(tmp_path, model_keys={"llm": EXPERTS}, max_steps=2)
    entry = notebook.named("train/")[2]
    parts = 3 * entry["train/text_loss"] + entry["train/speech_loss"] + 0.02 * entry["train/experts_loss"]
    assert entry["train/experts_loss"] > 1.9 and entry["train/loss"] == pytest.approx(parts, rel=1e-5)
    assert trainer.progress_bar_metrics["experts"] == pytest.approx(entry["train/experts_loss"])


def test_what_a_batch_does_not_have_is_not_logged(tmp_path):
    _, _, notebook = fit(tmp_path, turns=False, max_steps=2)
    entry = notebook.named("train/")[2]
    assert "train/bos_accuracy" not in entry and not any(math.isnan(value) for value in entry.values())


class Watched:
    """A training whose clock, steps and batches a test sets by hand."""

    def __init__(self, monkeypatch, every=2):
        self.now = 100.0
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now))
        self.notebook = Notebook()
        self.trainer = SimpleNamespace(
            global_step=0, log_every_n_steps=every, loggers=[self.notebook], callback_metrics={}, callbacks=[]
        )
        frame = SimpleNamespace(frame_rate=SimpleNamespace(seconds=0.08))
        self.bar = {}
        self.model = SimpleNamespace(
            perception=frame,
            device=torch.device("cpu"),
            loss_weights=LossWeights(),
            log_dict=lambda values, **_: self.bar.update(values),
        )
        self.callback = Throughput()
        self.callback.on_train_start(self.trainer, self.model)

    def batch(self, seconds=1.0, loss=1.0, step=True):
        self.callback.on_train_batch_start(self.trainer, self.model, None, 0)
        self.now += seconds
        self.trainer.global_step += step
        names = ["text_loss", "speech_loss", "text_accuracy", "padding_ratio"]
        sums = StepSums(names, torch.tensor([loss, 1.0, 3.0, 10.0]), torch.tensor([1.0, 1.0, 5.0, 40.0]))
        self.callback.on_train_batch_end(self.trainer, self.model, {"sums": sums}, None, 0)

    def validation(self, seconds):
        self.callback.on_validation_start(self.trainer, self.model)
        self.now += seconds
        self.callback.on_validation_end(self.trainer, self.model)

    def entry(self, step):
        return {name.partition("/")[2]: value for name, value in self.notebook.entries[step].items()}


def test_waiting_for_data_is_seen_and_validation_is_no_time(monkeypatch):
    watched = Watched(monkeypatch)
    watched.now += 50  # before the first batch: nobody waits yet
    watched.batch()
    watched.now += 0.5
    watched.batch()
    watched.validation(10.0)
    watched.now += 0.25
    watched.batch()
    watched.now += 0.5
    watched.batch(2.0)
    assert list(watched.notebook.entries) == [2, 4]
    first, second = watched.entry(2), watched.entry(4)
    assert (first["seconds_per_step"], first["wait_ratio"]) == pytest.approx((1.25, 0.5 / 2.5))
    assert (second["seconds_per_step"], second["wait_ratio"]) == pytest.approx((1.875, 0.75 / 3.75))
    assert second["frames_per_second"] == pytest.approx(60 / 3.75) and second["text_tokens_per_step"] == 5
    assert watched.bar["wait%"] == 20 and watched.bar["pad%"] == 25 and watched.bar["tokens"] == 5


def test_an_entry_is_of_the_steps_since_the_one_before_it(monkeypatch):
    watched = Watched(monkeypatch)
    for loss in (1.0, 3.0, 5.0, 9.0):
        watched.batch(loss=loss)
    assert watched.entry(2)["text_loss"] == 2 and watched.entry(4)["text_loss"] == 7
    assert watched.entry(4)["loss"] == 3 * 7 + 1
    assert "padding_ratio" in watched.entry(4) and "train/padding_ratio" not in watched.notebook.entries[4]


def test_the_batches_of_one_step_make_one_entry(monkeypatch):
    watched = Watched(monkeypatch, every=1)
    for step in (False, True, False, True):
        watched.batch(step=step)
    assert list(watched.notebook.entries) == [1, 2]
    assert watched.entry(2)["text_tokens_per_step"] == 10 and watched.entry(2)["seconds_per_step"] == 2


def test_a_resumed_training_logs_the_same_means_and_the_speed_of_its_own_steps(monkeypatch):
    before, after = Watched(monkeypatch, every=3), Watched(monkeypatch, every=3)
    before.batch(loss=1.0)
    assert Throughput().state_dict() == {"since_last_entry": None}
    state = before.callback.state_dict()
    after.trainer.global_step = 1
    after.callback.load_state_dict(state)
    after.callback.on_train_start(after.trainer, after.model)
    after.batch(loss=3.0)
    after.batch(loss=8.0)
    entry = after.entry(3)
    assert entry["text_loss"] == 4 and entry["frames_per_second"] == pytest.approx(30) and entry["seconds_per_step"] == 1
    after.callback.load_state_dict({"since_last_entry": None})
    after.callback.on_train_start(after.trainer, after.model)
    assert after.callback.state_dict() == {"since_last_entry": None}


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


def test_memory_is_counted_in_gigabytes_of_1e9_bytes(monkeypatch):
    monkeypatch.setattr(module.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3_000_000))  # KiB on Linux
    monkeypatch.setattr(module.Path, "read_text", lambda path: "9 2000 1")
    monkeypatch.setattr(module.resource, "getpagesize", lambda: 1_000_000)
    monkeypatch.setattr(module.sys, "platform", "linux")
    assert memory(torch.device("cpu")) == {"resident_gb": 2.0, "peak_resident_gb": 3_000_000 * 1024 / 1e9}


def test_groups_are_named_as_in_the_config_or_numbered():
    def names(groups, named):
        model = SimpleNamespace(cfg={"optim_param_groups": named})
        return group_names(model, SimpleNamespace(param_groups=[{}] * groups))

    assert names(1, None) == ["lr"]
    assert names(3, {"perception": {}, "lm": {}}) == ["lr", "lr_perception", "lr_lm"]
    assert names(3, {"perception": {}}) == ["lr", "lr_1", "lr_2"]  # split by mesh
