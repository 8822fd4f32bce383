"""One of two gloo processes that train the same tiny models in every parallel way; `test_parallel.py` compares the results.

Run as `python -m tests.models.parallel_worker RANK FOLDER`. It writes `rank<RANK>.pt`: what came out, by name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import distributed
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from nemo_duplex.data.batch import DuplexBatch
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.parallel import gradient_norm
from nemo_duplex.training.trainer import trainer_arguments
from tests.dummies import EXPERTS, PERCEPTION, speech_like, tiny_config

STEPS = 10
#: Frames of the four conversations of a global batch; rank 0 has the first two.
LENGTHS = (20, 15, 11, 4)
NO_DROPOUT = dict.fromkeys(("dropout", "dropout_pre_encoder", "dropout_emb", "dropout_att"), 0.0)
LLAMA = {
    "model_type": "llama",
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"llm": LLAMA},
    "tied": {
        "llm": {**LLAMA, "tie_word_embeddings": True},
        "freeze_params": ["^perception\\.encoder\\."],
        "lora": {"r": 2, "target_modules": ["q_proj", "v_proj"]},
        "activation_checkpointing": True,
    },
    "qwen2": {"llm": {**LLAMA, "model_type": "qwen2"}},
    "qwen3": {"llm": {**LLAMA, "model_type": "qwen3", "head_dim": 6}},
    "experts": {"llm": {**EXPERTS, "router_aux_loss_coef": 0.5}, "activation_checkpointing": True},
}


def built(name: str, folder: Path, trainer: Any = None) -> Any:
    """The model `name`, the same in every process; its losses are made three frames at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    perception = {**PERCEPTION, "encoder": {**PERCEPTION["encoder"], **NO_DROPOUT}}
    loss = {"text": 3.0, "speech": 1.0, "turn": 1.0, "silence": 1.0, "chunk": 3}
    # With a small eps, Adam makes much of a gradient that is 0 but for rounding.
    optim = {"name": "fused_adam", "lr": 3e-3, "eps": 1e-4}
    return DuplexS2SModel(tiny_config(folder, perception=perception, loss=loss, optim=optim, **MODELS[name]), trainer)


def batch(model: Any, step: int, rows: Sequence[int]) -> DuplexBatch:
    """Some rows of a step's global batch, padded no further than they need."""
    generator = torch.Generator().manual_seed(step)
    layout, most = model.layout, max(LENGTHS)
    tokens = torch.full((len(LENGTHS), most), layout.text_pad)
    tokens[:, 2], tokens[:, 3:6], tokens[:, 9] = layout.text_bos, 7 + step, layout.text_eos
    shape = (len(LENGTHS), layout.num_codebooks, most)
    codes = torch.randint(0, layout.codebook_size, shape, generator=generator)
    frames = torch.tensor([LENGTHS[row] for row in rows])
    longest = int(frames.max())
    audio = torch.stack([speech_like(0.08 * LENGTHS[row], 100 * step + row).new_zeros(longest * 1280) for row in rows])
    for place, row in zip(audio, rows):
        place[: LENGTHS[row] * 1280] = speech_like(0.08 * LENGTHS[row], 100 * step + row)
    return DuplexBatch(
        ids=[str(row) for row in rows],
        user_audio=audio,
        user_audio_lens=frames * 1280,
        agent_tokens=tokens[list(rows), :longest],
        num_frames=frames,
        agent_codes=codes[list(rows), :, :longest],
    )


def loader(model: Any, steps: Sequence[int], rows: Sequence[int]) -> DataLoader:
    return DataLoader([batch(model, step, rows) for step in steps], batch_size=None)


class Log(pl.Callback):
    """What became of every step; and a checkpoint after one of them."""

    def __init__(self, checkpoint: Path | None = None, at: int = 0) -> None:
        self.checkpoint, self.at = checkpoint, at
        self.losses: list[tuple[float, float]] = []
        self.norms: list[tuple[float, float]] = []  # of the gradient, before and after it was clipped
        self.validation: dict[str, float] = {}
        self.sums: list[dict[str, float]] = []  # what is logged of each step

    def found(self) -> dict[str, Any]:
        return {"losses": self.losses, "norms": self.norms, "validation": self.validation, "sums": self.sums}

    def on_before_optimizer_step(self, trainer: pl.Trainer, model: Any, optimizer: Any) -> None:
        self.before = gradient_norm(model.parameters()).item()

    def on_train_batch_end(self, trainer: pl.Trainer, model: Any, outputs: Any, *_: Any) -> None:
        self.losses.append((outputs["text_loss"].item(), outputs["audio_loss"].item()))
        self.sums.append(outputs["sums"].logged(model.loss_weights))
        self.norms.append((self.before, gradient_norm(model.parameters()).item()))
        if self.checkpoint and trainer.global_step == self.at:
            trainer.save_checkpoint(self.checkpoint)

    def on_validation_end(self, trainer: pl.Trainer, model: Any) -> None:
        self.validation = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("val_")}


def fit(
    name: str,
    folder: Path,
    strategy: dict[str, Any],
    rows: Sequence[int] = range(len(LENGTHS)),
    steps: Sequence[int] = range(STEPS),
    log: Log | None = None,
    validation: Callable[[Any], DataLoader] | None = None,
    resume: Path | None = None,
) -> tuple[Any, Log]:
    """The model `name` after training on these rows of the batches of `steps`, and what became of each."""
    log = log or Log()
    trainer = pl.Trainer(
        **trainer_arguments({"accelerator": "cpu", "num_nodes": 1, "precision": 32, **strategy}),
        max_steps=steps[-1] + 1,
        gradient_clip_val=1.0,
        callbacks=[log],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        val_check_interval=steps[-1] + 1 - steps[0] if resume is None else None,
    )
    model = built(name, folder, trainer)
    # A resumed run counts batches from where it was: its loader has as many again, of which the first are drawn.
    train = loader(model, [*steps, *steps[: steps[0]]], rows)
    trainer.fit(model, train, validation and validation(model), ckpt_path=resume)
    return model, log


# ---------------------------------------------------------------------- what two processes do


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    own, results = range(2 * rank, 2 * rank + 2), {}
    home = folder / f"rank{rank}"
    ddp, fsdp2 = ({"strategy": name, "devices": 2} for name in ("ddp", "fsdp2"))

    def uneven(model: Any) -> DataLoader:
        """Two batches on rank 0, one on rank 1."""
        return loader(model, range(2 - rank), own)

    _, results["ddp"] = fit("llama", home, ddp, own, validation=uneven)
    model, results["fsdp2"] = fit("llama", home, fsdp2, own, log=Log(folder / "full.ckpt", at=4), validation=uneven)
    save_and_speak(model, folder, rank, results)
    _, results["fsdp2 resumed"] = fit("llama", home, fsdp2, own, range(4, STEPS), resume=folder / "full.ckpt")

    model, results["tied"] = fit("tied", home, fsdp2, own, range(4))
    results["tied state"] = whole_state(model)
    model.save_to(str(folder / "tied.nemo"))
    model.save_to(str(folder / "merged.nemo"), merge_lora=True)
    for strategy in (ddp, fsdp2):
        _, results[f"experts {strategy['strategy']}"] = fit("experts", home, strategy, own, range(3))
    model, results["bf16-mixed"] = fit("llama", home, {**fsdp2, "precision": "bf16-mixed"}, own, range(2))
    model.offline_inference(speech_like(0.4 + rank)[None], torch.tensor([round((0.4 + rank) * 16000)]))
    for name in ("llama", "qwen2", "qwen3"):
        _, results[f"tensor parallel {name}"] = fit(name, home, {**fsdp2, "tensor_parallel": 2}, steps=range(4))
    found = {k: v.found() if isinstance(v, Log) else v for k, v in results.items()}
    torch.save(found, folder / f"rank{rank}.pt")


def save_and_speak(model: Any, folder: Path, rank: int, results: dict[str, Any]) -> None:
    """A sharded model is written as one file, and speaks to a caller of another length on each rank."""
    model.save_to(str(folder / "agent.nemo"))
    seconds = 1.0 + rank
    signal, lens = speech_like(seconds)[None], torch.tensor([round(seconds * 16000)])
    results["spoken"] = model.offline_inference(signal, lens)["tokens_audio"]
    results["weights"] = whole_state(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    results["slices"] = sum(p.to_local().numel() for p in trained), sum(p.numel() for p in trained)


def whole_state(model: Any) -> dict[str, torch.Tensor]:
    return {k: w.full_tensor() if isinstance(w, DTensor) else w for k, w in model.state_dict().items()}


if __name__ == "__main__":
    os.environ.update(RANK=sys.argv[1], LOCAL_RANK=sys.argv[1], WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GROUP_RANK="0")
    main(int(sys.argv[1]), Path(sys.argv[2]))
