"""The README.md of a published model: what its config says, and questions that only its publisher can answer."""

from __future__ import annotations

from typing import Any, Protocol

from omegaconf import DictConfig
from torch import nn

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.codec.fsq_codec import FSQCodec

_PARTS = {"perception": "user encoder", "lm": "language model", "audio_codec": "agent codec"}

_CARD = """---
library_name: nemo
pipeline_tag: audio-to-audio
license: unknown
tags:
- nemo_duplex
- full-duplex
- speech-to-speech
---

# {name}

A full-duplex speech-to-speech agent (SALM-Duplex, [arXiv 2505.15670](https://arxiv.org/abs/2505.15670)) of `nemo_duplex`:
it listens while it speaks, stops when it is interrupted, and answers when the user is done.

```python
import numpy as np
from nemo_duplex import DuplexS2SModel
model = DuplexS2SModel.from_pretrained("{repo_id}", map_location="cpu")
session = model.open_session()
frames = session.push(samples)  # what the user says: float32, {user_sample_rate} Hz
frames += session.push(np.zeros(4 * {user_sample_rate}, np.float32))  # 4 s of silence, in which the agent can answer
frames += session.flush()
audio = np.concatenate([frame.audio for frame in frames])  # {agent_sample_rate} Hz; the words: session.transcript
```

| part | what it is | million weights |
| --- | --- | --- |
{rows}

{frame_rate} frames per second. In each: one text token, and one code per codebook, {speech_delay} frame(s) behind the text.
`config.yaml` describes every part.

## Training

{training}

## To be written by the publisher

- **Licence**: not stated yet (`license: unknown` above). It depends on the licences of the pretrained language model, encoder
  and codec that it was made from, and of the data.
- **Data**: what it was trained on, in which languages and voices.
- **Quality and limits**: `python examples/evaluate.py model={name}.nemo data=... out=...` measures it.
"""


class PublishedModel(Protocol):
    """What publishing needs of a model; a `DuplexS2SModel` has it. (Files of this room do not import that class.)"""

    perception: nn.Module
    lm: nn.Module
    audio_codec: FSQCodec
    layout: ChannelLayout

    @property
    def cfg(self) -> DictConfig:
        """The config that describes all parts."""

    @property
    def user_sample_rate(self) -> int: ...

    @property
    def agent_sample_rate(self) -> int: ...

    def save_to(self, save_path: str) -> Any:
        """Writes the `.nemo`."""


def model_card(model: PublishedModel, repo_id: str) -> str:
    """Markdown with the metadata that the Hugging Face Hub reads; `repo_id` is `org/name`."""
    layout, config = model.layout, model.cfg
    layers = config.perception.get("encoder", {}).get("n_layers")
    window = f", attends to the last {config.attention_window} frames" if config.attention_window else ""
    details = {
        "perception": f"FastConformer, {layers} layers, takes {model.user_sample_rate} Hz",
        "lm": f"{config.llm.get('model_type')}, {layout.text_vocab_size} text tokens{window}",
        "audio_codec": f"{layout.num_codebooks} codebooks of {layout.codebook_size} codes, gives {model.agent_sample_rate} Hz",
    }
    sizes = {part: sum(p.numel() for p in getattr(model, part).parameters()) / 1e6 for part in _PARTS}
    return _CARD.format(
        name=repo_id.rpartition("/")[2],
        repo_id=repo_id,
        user_sample_rate=model.user_sample_rate,
        agent_sample_rate=model.agent_sample_rate,
        rows="\n".join(f"| {name} | {details[part]} | {sizes[part]:.2f} |" for part, name in _PARTS.items()),
        frame_rate=f"{float(model.audio_codec.frame_rate.hz):g}",
        speech_delay=layout.speech_delay,
        training=_training(model),
    )


def _training(model: PublishedModel) -> str:
    """Steps and losses, if this process has trained the model."""
    trainer = getattr(model, "_trainer", None)  # Lightning's property raises where there is none
    if trainer is None or not trainer.global_step:
        return "The number of steps is not known: the process that published the model did not train it."
    metrics = trainer.callback_metrics
    losses = [f", {name} {float(metrics[name]):.4g}" for name in ("loss", "val_loss") if name in metrics]
    return f"{trainer.global_step} steps{''.join(losses)}."
