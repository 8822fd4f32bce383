"""Trains a codec on one speaker: from scratch, or personalised from a trained one, in a budget of minutes.

By reconstruction alone. With the encoder frozen, only the decoder learns the voice and codes keep their meaning; otherwise
everything that was encoded before has to be encoded again.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from nemo.collections.tts.modules.audio_codec_modules import default_precision
from torch.utils.data import DataLoader
from tqdm import tqdm

from nemo_duplex.budget import TimeBudget
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.quality import measure_quality
from nemo_duplex.codec.reconstruction import ReconstructionLoss
from nemo_duplex.codec.recordings import Crops, Recordings
from nemo_duplex.inputs import InputError
from nemo_duplex.outputs import sha256, whole_file

# A checkpoint to go on from is written, and the crops are drawn anew, after this many steps.
_STEPS_PER_EPOCH = 100
# The learning rate ends at this share of its peak.
_FINAL_RATE = 0.02
_MAX_HELD_OUT = 40


@dataclass(frozen=True)
class CodecTrainingConfig:
    """What a training is; the keys of `conf/train_codec.yaml`, explained there."""

    data: str
    out: str
    codec: Mapping[str, Any]
    minutes: float
    steps: int | None
    init: str | None
    freeze_encoder: bool
    seed: int
    batch_size: int
    crop_frames: int
    matrix_rate: float
    rate: float
    warmup_steps: int
    half: bool
    accelerator: str
    precision: str

    def __post_init__(self) -> None:
        for name in ("minutes", "batch_size", "crop_frames", "matrix_rate", "rate"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}={getattr(self, name)}: expected more than zero.")
        if self.freeze_encoder and self.init is None:
            raise InputError(
                "freeze_encoder=true keeps the codes of a trained codec, and none is given: add init=<codec .nemo>."
            )


class CodecTraining(pl.LightningModule):
    """Reconstruction training of an `FSQCodec` on random crops.

    Matrices inside the networks learn by Muon (orthogonalised momentum, Keller Jordan 2024: on one CPU core, in equal time, the
    mel distance of the small codec was a sixth below AdamW's), everything else by AdamW.

    Args:
        codec: trained in place.
        config: sizes and rates.
        recordings, indices: what to draw crops from.
        budget: the share of it that is spent sets the learning rate: a cosine from the peak down.
    """

    def __init__(
        self, codec: FSQCodec, config: CodecTrainingConfig, recordings: Recordings, indices: list[int], budget: TimeBudget
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.codec = codec
        self.config = config
        self.recordings = recordings
        self.indices = indices
        self.budget = budget
        self.loss = ReconstructionLoss(codec.sample_rate)
        self.step = 0
        codec.model.audio_encoder.requires_grad_(not config.freeze_encoder)

    @property
    def share(self) -> float:
        """Share of the training that is done: of the minutes, or of the steps, whichever is further."""
        by_steps = self.step / self.config.steps if self.config.steps else 0.0
        return min(1.0, max(self.budget.share, by_steps))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        matrices: list[torch.nn.Parameter] = []
        others: list[torch.nn.Parameter] = []
        for name, parameter in self.codec.model.named_parameters():
            if parameter.requires_grad:
                inner = parameter.dim() == 2 and ".head." not in name and ".original" not in name
                (matrices if inner else others).append(parameter)
        optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, betas=(0.8, 0.99), weight_decay=0.01)]
        if matrices:  # NeMo's networks are all convolutions
            optimizers.append(torch.optim.Muon(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
        return optimizers

    def train_dataloader(self) -> DataLoader:
        """Crops of the current epoch; a training that goes on after an interruption draws what it would have drawn."""
        frame = self.codec.samples_per_frame
        seed = (self.config.seed, self.current_epoch)
        crops = Crops(self.recordings, self.indices, self.config.crop_frames * frame, frame, seed)
        return DataLoader(crops, batch_size=self.config.batch_size)

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(hash((self.config.seed, self.current_epoch)))  # as for the crops

    def training_step(self, audio: torch.Tensor, batch_index: int) -> None:
        self._set_rates()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            decoded = self._reconstruct(audio)
        loss = self.loss(audio, decoded.float())
        optimizers = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        norm = torch.nn.utils.clip_grad_norm_([p for p in self.codec.parameters() if p.grad is not None], 1.0)
        if not torch.isfinite(norm):
            raise InputError(f"The training diverged at step {self.step}. Lower rate= and matrix_rate=, or take another seed=.")
        for optimizer in optimizers:
            optimizer.step()
        self.step += 1
        self.log("loss", loss)
        if self.share >= 1:
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["step"] = self.step

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.step = checkpoint["step"]

    def _reconstruct(self, audio: torch.Tensor) -> torch.Tensor:
        """Audio (B, S), whole frames, through encoder, quantizer (gradients pass straight) and decoder."""
        model = self.codec.model
        lengths = torch.full((len(audio),), audio.shape[1], device=audio.device)
        encoded, frames = model.audio_encoder(audio=audio, audio_len=lengths)
        with default_precision(torch.float32):
            quantized, _ = model.vector_quantizer(inputs=encoded.float(), input_len=frames)
        decoded, _ = model.audio_decoder(inputs=quantized, input_len=frames)
        return decoded

    def _set_rates(self) -> None:
        warmup = min(1.0, (self.step + 1) / self.config.warmup_steps) if self.config.warmup_steps else 1.0
        cosine = 0.5 * (1 + math.cos(math.pi * self.share))
        factor = warmup * (_FINAL_RATE + (1 - _FINAL_RATE) * cosine)
        for optimizer in self.optimizers():
            peak = self.config.matrix_rate if isinstance(optimizer.optimizer, torch.optim.Muon) else self.config.rate
            for group in optimizer.optimizer.param_groups:
                group["lr"] = peak * factor


class _Progress(pl.Callback):
    """A bar over the whole training: its budget is time, so steps and epochs say nothing of how long it takes."""

    def __init__(self) -> None:
        self.bar = tqdm(total=100, desc="Training codec", unit="%", bar_format="{desc}: {n:.0f}%|{bar}| {elapsed}{postfix}")

    def on_train_batch_end(self, trainer: pl.Trainer, module: CodecTraining, *_: Any) -> None:
        self.bar.n = 100 * module.share
        if module.step % 10 == 0:
            self.bar.set_postfix_str(f"step {module.step}, loss {trainer.callback_metrics['loss']:.3f}")

    def teardown(self, *_: Any, **__: Any) -> None:
        self.bar.close()


def train_codec(config: CodecTrainingConfig) -> dict[str, Any]:
    """Trains, and writes `<out>/codec.nemo` and `<out>/quality.json`; returns what the latter holds.

    Started again with the same `out` it goes on where it was; when it was done already, it does nothing.

    Raises:
        InputError: for data or `init` that cannot be used, or an `out` that another training wrote.
    """
    out = Path(config.out)
    codec_file, quality_file, settings_file = out / "codec.nemo", out / "quality.json", out / "training.json"
    _require_same_training(settings_file, config)
    if codec_file.is_file() and quality_file.is_file():
        return json.loads(quality_file.read_text())

    pl.seed_everything(config.seed, verbose=False)
    codec = FSQCodec.restore(config.init) if config.init else FSQCodec(config.codec)
    recordings = Recordings(config.data, codec.sample_rate)
    _write_json(settings_file, _settings(config))
    kept, held_out = recordings.split(_MAX_HELD_OUT)
    training = CodecTraining(codec, config, recordings, kept, TimeBudget(config.minutes))
    _fit(training, out)

    codec.cpu().requires_grad_(False).measure_silence()
    codec.save_to(codec_file, half=config.half)
    quality = measure_quality(FSQCodec.restore(codec_file), [recordings.audio(i) for i in held_out])
    quality |= {"steps": training.step, "minutes": config.minutes, "seed": config.seed, "sha256": sha256(codec_file)}
    _write_json(quality_file, quality)
    _checkpoint(out).unlink(missing_ok=True)
    return quality


def _fit(training: CodecTraining, out: Path) -> None:
    checkpoints = ModelCheckpoint(dirpath=out, save_last=True, save_top_k=0, every_n_epochs=1, enable_version_counter=False)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)  # which devices there are is no news
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer = pl.Trainer(
            accelerator=training.config.accelerator,
            devices=1,
            max_epochs=-1,
            limit_train_batches=_STEPS_PER_EPOCH,
            reload_dataloaders_every_n_epochs=1,
            callbacks=[training.budget, checkpoints, _Progress()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(training, ckpt_path=str(_checkpoint(out)) if _checkpoint(out).is_file() else None)
        except SystemExit as end:
            if end.code == 1:  # what Lightning makes of Ctrl-C
                raise KeyboardInterrupt from end
            raise


def _checkpoint(out: Path) -> Path:
    """What Lightning calls the checkpoint of the last finished epoch."""
    return out / "last.ckpt"


def _settings(config: CodecTrainingConfig) -> dict[str, Any]:
    """The config as JSON gives it back; where it lies does not matter."""
    return json.loads(json.dumps(asdict(config) | {"out": None}))


def _require_same_training(settings_file: Path, config: CodecTrainingConfig) -> None:
    if settings_file.is_file():
        before, now = json.loads(settings_file.read_text()), _settings(config)
        if changed := sorted(key for key in now if before.get(key) != now[key]):
            names = ", ".join(changed)
            raise InputError(f"{config.out} holds a training with another {names}. Give another out=, or remove that folder.")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")
