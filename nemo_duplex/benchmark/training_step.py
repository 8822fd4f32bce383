"""One training step of this model beside one of NeMo's in-tree model: the same weights, data, device and optimiser.

Each model runs in a process of its own (`python -m nemo_duplex.benchmark.training_step NAME FOLDER`), so that neither's memory
is counted with the other's. The in-tree model goes first; ours is converted from the checkpoint that it leaves there. The
data has what the in-tree model needs to be right: no padding, and a text pad of its own. So both losses of the first batch are
the same number.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from nemo_duplex.benchmark.machine import PeakMemory, check_device, wait_for
from nemo_duplex.benchmark.measured_models import Size, describe_parts, write_parts
from nemo_duplex.benchmark.measurement import main, run_measurement
from nemo_duplex.benchmark.table import Table
from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.frames import AGENT_SAMPLE_RATE, FRAME_RATE, USER_SAMPLE_RATE, Seconds


@dataclass(frozen=True)
class TrainingSetting:
    """What is measured; the keys of `conf/benchmark.yaml` that say "train" or nothing.

    Args:
        size: of the model; None is "small".
        batch, seconds: conversations in a step, and how long each is.
        warmup, steps: training steps before those that are measured, and those that are.
        device: `cpu` or `cuda`.
        precision: `32`, or `bf16` for autocast.
        threads: of the CPU.
        chunk, activation_checkpointing: keys of our training (`conf/duplex_paper.yaml`); the in-tree model has none like them.
    """

    size: Size | None = None
    batch: int = 4
    seconds: Seconds = 20.0
    warmup: int = 1
    steps: int = 3
    device: str = "cpu"
    precision: str = "32"
    threads: int = 2
    chunk: int = 256
    activation_checkpointing: bool = True

    @property
    def frames(self) -> int:
        """Frames of each conversation."""
        return round(self.seconds / FRAME_RATE.seconds)


def benchmark_training(setting: TrainingSetting) -> dict[str, Any]:
    """Measures both models, one after the other.

    Returns:
        `in_tree` and `ours`, each as `timed_steps` returns it; and the ratios of ours to theirs.

    Raises:
        InputError: for an unknown size, or a device that this machine does not have.
    """
    check_device(setting.device)
    with tempfile.TemporaryDirectory(prefix="nemo_duplex-benchmark-") as name:
        folder = Path(name)
        config = write_parts(folder, setting.size or "small")
        (folder / "model.json").write_text(json.dumps(config))
        arguments = asdict(setting)
        figures = {
            model: run_measurement("training_step", model, folder, arguments, setting.threads) for model in ("in_tree", "ours")
        }
        what = describe_parts(config)
    theirs, ours = figures["in_tree"], figures["ours"]
    return {
        "what": what,
        "setting": asdict(setting),
        **figures,
        "speedup": ours["frames_per_second"] / theirs["frames_per_second"],
        "peak_ratio": ours["peak_bytes"] / theirs["peak_bytes"],
        "step_ratio": ours["step_bytes"] / theirs["step_bytes"],
        "loss_difference": abs(ours["loss"] - theirs["loss"]) / abs(theirs["loss"]),
    }


def training_tables(result: dict[str, Any]) -> list[Table]:
    """The result to read."""
    setting = result["setting"]
    about = (
        f"{setting['batch']} conversations of {setting['seconds']:g} s, {setting['device']}, precision {setting['precision']}, "
        f"{setting['threads']} threads, median of {setting['steps']} steps"
    )
    rows = [
        (name, *(form(result[model][key] * scale) for model in ("in_tree", "ours")), ratio)
        for name, key, scale, form, ratio in (
            ("step, s", "step_seconds", 1, "{:.2f}".format, ""),
            ("frames per second", "frames_per_second", 1, "{:.0f}".format, f"{result['speedup']:.2f} x"),
            ("peak memory, GB", "peak_bytes", 1e-9, "{:.2f}".format, f"{result['peak_ratio']:.2f} x"),
            ("of it in a step, GB", "step_bytes", 1e-9, "{:.2f}".format, f"{result['step_ratio']:.2f} x"),
            ("loss, first batch", "loss", 1, "{:.6f}".format, f"differ by {result['loss_difference']:.1e}"),
        )
    ]
    return [Table("A training step", [result["what"], about], ("", "NeMo in-tree", "nemo_duplex", "ratio"), rows)]


# --- the models -------------------------------------------------------------------------------------------------------


def in_tree(folder: Path, **setting: Any) -> dict[str, float]:
    """Measures NeMo's model, and leaves its checkpoint."""
    from nemo.collections.speechlm2.models import DuplexS2SModel

    wanted = TrainingSetting(**setting)
    torch.manual_seed(0)
    model = DuplexS2SModel(json.loads((folder / "model.json").read_text()))
    nn.init.normal_(model.audio_head.weight, std=0.02)
    model.save_pretrained(folder / "checkpoint")
    model.to(wanted.device).train()
    batch = _batch(wanted, model.tokenizer.vocab_size, 0, 1, 2)
    model.log_dict = lambda *args, **kwargs: None  # there is no trainer
    optimizer = torch.optim.AdamW(_trained(model), lr=1e-5)  # what its configuration names
    return _measure(model, lambda: model.training_step(batch, 0)["loss"], optimizer, wanted)


def ours(folder: Path, **setting: Any) -> dict[str, float]:
    """Measures our model with the same weights on the same batch, whose codes are made once."""
    wanted = TrainingSetting(**setting)
    model, batch = _ours(folder, wanted)
    return _measure(model, lambda: model.training_step(batch, 0)["loss"], _fused_adam(model), wanted)


def ours_counted(folder: Path, **setting: Any) -> dict[str, Any]:
    """As `ours`, with what `utilisation.count_training` says of a step; without the in-tree model, with weights of its own."""
    from nemo_duplex.benchmark.utilisation import count_training

    wanted = TrainingSetting(**setting)
    model, batch = _ours(folder, wanted)

    def forward() -> None:
        with torch.autocast(wanted.device, torch.bfloat16, enabled=wanted.precision == "bf16"):
            model.training_step(batch, 0)

    counted = count_training(model, forward, wanted.batch * wanted.frames, wanted.device, wanted.precision)
    return counted | _measure(model, lambda: model.training_step(batch, 0)["loss"], _fused_adam(model), wanted)


def _fused_adam(model: nn.Module) -> torch.optim.Optimizer:
    """What our configurations name; AdamW as well."""
    from nemo.core.optim.optimizers import get_optimizer

    return get_optimizer("fused_adam")(_trained(model), lr=1e-5, weight_decay=1e-2)


def _ours(folder: Path, wanted: TrainingSetting) -> tuple[Any, Any]:
    """Our model in training, with the weights of the in-tree model where it has left a checkpoint; a `DuplexBatch` for it."""
    from nemo_duplex.data.batch import DuplexBatch
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.models.interop import from_in_tree
    from nemo_duplex.models.training_speed import recompute_activations

    if (folder / "checkpoint").exists():
        model = from_in_tree(folder / "checkpoint")
    else:
        torch.manual_seed(0)
        model = DuplexS2SModel(json.loads((folder / "model.json").read_text()))
    model.to(wanted.device)
    model.loss_weights = replace(model.loss_weights, chunk=wanted.chunk)
    if wanted.activation_checkpointing:
        recompute_activations(model.perception, model.lm.backbone.llm)
    layout: ChannelLayout = model.layout
    batch = _batch(wanted, layout.text_vocab_size, layout.text_pad, layout.text_bos, layout.text_eos)
    codec: FSQCodec = model.audio_codec
    batch["target_codes"], _ = codec.encode(batch["target_audio"], batch["target_audio_lens"])
    return model.train(), DuplexBatch.from_in_tree(batch, model.perception.samples_per_frame, layout.text_pad)


def _batch(setting: TrainingSetting, tokens: int, pad: int, bos: int, eos: int) -> dict[str, Tensor]:
    """Conversations of equal length in NeMo's in-tree form: noise as loud as speech, and a turn in every four seconds."""
    generator = torch.Generator().manual_seed(1)
    frames = setting.frames
    text = torch.full((setting.batch, frames), pad)
    for start in range(12, frames - 30, 50):
        text[:, start], text[:, start + 30] = bos, eos
        text[:, start + 1 : start + 16] = torch.randint(3, tokens, (setting.batch, 15), generator=generator)
    batch = {"target_tokens": text, "target_token_lens": torch.full((setting.batch,), frames)}
    for channel, rate in (("source", USER_SAMPLE_RATE), ("target", AGENT_SAMPLE_RATE)):
        samples = FRAME_RATE.samples(frames, rate)
        batch[f"{channel}_audio"] = 0.1 * torch.randn(setting.batch, samples, generator=generator)
        batch[f"{channel}_audio_lens"] = torch.full((setting.batch,), samples)
    return {key: value.to(setting.device) for key, value in batch.items()}


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def _measure(
    model: nn.Module, loss_of_batch: Callable[[], Tensor], optimizer: torch.optim.Optimizer, setting: TrainingSetting
) -> dict[str, float]:
    trained = _trained(model)

    def step() -> Tensor:
        with torch.autocast(setting.device, torch.bfloat16, enabled=setting.precision == "bf16"):
            loss = loss_of_batch()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return timed_steps(step, setting)


def timed_steps(step: Callable[[], Tensor], setting: TrainingSetting) -> dict[str, float]:
    """Runs `step() -> loss`, first to warm up and then to measure it.

    Returns:
        `step_seconds`: median; `frames_per_second`: of all conversations of a batch; `peak_bytes`: of the whole process or
        device; `step_bytes`: of these, what a step needs beside weights and optimiser; `loss`: of the very first step.
    """
    losses = [float(step()) for _ in range(max(1, setting.warmup))]
    seconds = []
    with PeakMemory(torch.device(setting.device)) as memory:
        for _ in range(setting.steps):
            start = time.perf_counter()
            step()
            wait_for(setting.device)
            seconds.append(time.perf_counter() - start)
    return {
        "step_seconds": median(seconds),
        "frames_per_second": setting.batch * setting.frames / median(seconds),
        "peak_bytes": memory.peak,
        "step_bytes": memory.peak - memory.before,
        "loss": losses[0],
    }


if __name__ == "__main__":
    main({"in_tree": in_tree, "ours": ours, "ours_counted": ours_counted})
