"""Tiny random perceptions, and what they make of audio: whole, and chunk by chunk."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from nemo_duplex.perception.perception import Perception
from nemo_duplex.perception.stream import PerceptionStream, StreamState
from tests.dummies import PERCEPTION

FRAME = 1280  # samples


def perception_settings(context=(70, 1), adapter="mlp", **encoder: Any) -> dict[str, Any]:
    config = copy.deepcopy(PERCEPTION)
    if encoder.get("kind") == "whisper":
        config["encoder"] = {"n_layers": 2, "d_model": 16, "n_heads": 2, "kind": "whisper"}
    encoder = {key: value for key, value in encoder.items() if key != "kind"}
    config["encoder"] |= {"att_context_size": list(context), **encoder}
    config["adapter"] = {"kind": adapter}
    return config


def tiny_perception(context=(70, 1), adapter="mlp", **encoder: Any) -> Perception:
    torch.manual_seed(0)
    perception = Perception(perception_settings(context, adapter, **encoder)).eval()
    for name, weight in perception.named_parameters():
        if "pos_bias" in name:  # zero at the start of training, which would hide a fault
            torch.nn.init.normal_(weight)
    for name, values in perception.named_buffers():
        if "distance_bias" in name:  # likewise, and sound has to matter
            torch.nn.init.normal_(values)
            for weight in (w for w in perception.encoder.parameters() if w.dim() > 1):
                weight.data *= 4
    return perception


@torch.no_grad()
def whole(perception: Perception, audio: Tensor) -> Tensor:
    """(S,) -> (T, H) of the recording alone."""
    embeddings, lens = perception(audio[None], torch.tensor([len(audio)]))
    assert lens.tolist() == [embeddings.shape[1]] == [-(-len(audio) // FRAME)]
    return embeddings[0]


def chunks_of(perception: Perception, audio: Tensor) -> Tensor:
    """The encoder chunks (n, chunk_samples) of a stream (S,), the last one filled up with silence."""
    frames = -(-len(audio) // FRAME)
    stream = torch.cat([torch.zeros(perception.lead_samples), audio, torch.zeros(perception.chunk_samples)])
    count = -(-frames // perception.chunk_frames)
    return stream[: count * perception.chunk_samples].view(count, -1)


@torch.no_grad()
def step(
    stream: PerceptionStream, state: StreamState, audio: Tensor, rows: list[int], live: list[bool] | None = None
) -> Tensor:
    """One encoder chunk (n, chunk_samples) of some rows -> (n, chunk_frames, H)."""
    which, goes_on = torch.tensor(rows), torch.tensor(live or [True] * len(rows))
    return stream.encoder(stream.mel(audio, state, which, goes_on), state, which, goes_on)


def streamed(perception: Perception, audio: Tensor) -> Tensor:
    """(S,) -> (T, H) chunk by chunk."""
    stream = PerceptionStream(perception)
    state = stream.init_state(1)
    frames = [step(stream, state, chunk[None], [0])[0] for chunk in chunks_of(perception, audio)]
    return torch.cat(frames)[: -(-len(audio) // FRAME)]


def tensors(state: Any) -> list[Tensor]:
    """All that a stream state remembers."""
    if isinstance(state, Tensor):
        return [state]
    parts = state if isinstance(state, list) else vars(state).values()
    return [tensor for part in parts if part is not None for tensor in tensors(part)]
