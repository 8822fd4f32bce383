"""One side of the training benchmark, in a process of its own: `python -m nemo_duplex.benchmark.training_side SIDE FOLDER`.

The in-tree side goes first and leaves its checkpoint in the folder, which the other side converts and trains.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nemo_duplex.benchmark.training import Setting, timed_steps
from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.codec.fsq_codec import FSQCodec

_USER_RATE, _AGENT_RATE, _FRAME = 16000, 22050, 0.08


def in_tree(folder: Path, config: dict[str, Any], setting: Setting) -> tuple[nn.Module, Callable[[], Tensor]]:
    """NeMo's model, and its loss on the batch."""
    from nemo.collections.speechlm2.models import DuplexS2SModel

    torch.manual_seed(0)
    model = DuplexS2SModel(config)
    nn.init.normal_(model.audio_head.weight, std=0.02)
    model.save_pretrained(folder / "checkpoint")
    model.to(setting.device).train()
    batch = _batch(setting, model.tokenizer.vocab_size, 0, 1, 2, setting.device)
    model.log_dict = lambda *args, **kwargs: None  # there is no trainer
    return model, lambda: model.training_step(batch, 0)["loss"]


def ours(folder: Path, config: dict[str, Any], setting: Setting) -> tuple[nn.Module, Callable[[], Tensor]]:
    """This model with the same weights, and its loss on the same batch, whose codes were made once."""
    from nemo_duplex.data.batch import DuplexBatch
    from nemo_duplex.models.interop import from_in_tree
    from nemo_duplex.models.training_speed import recompute_activations

    model = from_in_tree(folder / "checkpoint")
    model.loss_weights = replace(model.loss_weights, chunk=setting.chunk)
    if setting.activation_checkpointing:
        recompute_activations(model.perception, model.lm.backbone.llm)
    layout: ChannelLayout = model.layout
    batch = _batch(setting, layout.text_vocab_size, layout.text_pad, layout.text_bos, layout.text_eos, setting.device)
    codec: FSQCodec = model.audio_codec
    batch["target_codes"], _ = codec.encode(batch["target_audio"].cpu(), batch["target_audio_lens"].cpu())
    batch["target_codes"] = batch["target_codes"].to(setting.device)
    model.to(setting.device).train()
    duplex = DuplexBatch.from_in_tree(batch, model.perception.samples_per_frame, layout.text_pad)
    return model, lambda: model.training_step(duplex, 0)["loss"]


def _batch(setting: Setting, tokens: int, pad: int, bos: int, eos: int, device: str) -> dict[str, Tensor]:
    """Conversations of equal length in NeMo's in-tree form: noise as loud as speech, and a turn in every four seconds."""
    generator = torch.Generator().manual_seed(1)
    frames = round(setting.seconds / _FRAME)
    text = torch.full((setting.batch, frames), pad)
    for start in range(12, frames - 30, 50):
        text[:, start], text[:, start + 30] = bos, eos
        text[:, start + 1 : start + 16] = torch.randint(3, tokens, (setting.batch, 15), generator=generator)
    batch = {"target_tokens": text, "target_token_lens": torch.full((setting.batch,), frames)}
    for channel, rate in (("source", _USER_RATE), ("target", _AGENT_RATE)):
        samples = round(frames * _FRAME * rate)
        batch[f"{channel}_audio"] = 0.1 * torch.randn(setting.batch, samples, generator=generator)
        batch[f"{channel}_audio_lens"] = torch.full((setting.batch,), samples)
    return {key: value.to(device) for key, value in batch.items()}


def main(side: str, folder: Path) -> None:
    """Measures a side and writes its figures into the folder."""
    setting = Setting(**json.loads((folder / "setting.json").read_text()))
    torch.set_num_threads(setting.threads)
    build = {"in_tree": in_tree, "ours": ours}[side]
    model, loss_of = build(folder, json.loads((folder / "model.json").read_text()), setting)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    bf16 = setting.precision == "bf16"

    def step() -> Tensor:
        with torch.autocast(setting.device, torch.bfloat16, enabled=bf16):
            loss = loss_of()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    figures = timed_steps(step, setting, setting.batch * round(setting.seconds / _FRAME))
    (folder / f"{side}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
