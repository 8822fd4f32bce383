"""The layers of a NeMo Conformer over whole recordings, or over a stretch of one of any number of chunks.

For streams of many callers, one chunk at a time, there is `conformer_stream.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class ConformerCache:
    """The past that L layers still look at, per row. Its size does not depend on how long a stream is."""

    channel: Tensor  # (L, B, left context, D) what self-attention looks back on
    time: Tensor  # (L, B, D, kernel - 1) what the convolution looks back on
    filled: Tensor  # (B,) frames of `channel` that there have been; the others are not attended to

    @classmethod
    def empty(cls, encoder: nn.Module, batch_size: int, device: torch.device | str | None = None) -> ConformerCache:
        """The cache of `batch_size` streams that have not begun. `encoder` is a `ConformerEncoder`."""
        dtype = next(encoder.parameters()).dtype
        return cls(*encoder.get_initial_cache_state(batch_size=batch_size, dtype=dtype, device=device))


def conformer_layers(encoder: nn.Module, x: Tensor) -> Tensor:
    """The layers of `encoder` over whole recordings: (B, T, D) after its subsampling -> (B, T, D').

    Rows may be padded to whole chunks and beyond: no frame sees a later chunk, so what comes after a row's end changes nothing.
    """
    batch, frames, _ = x.shape
    if frames > encoder.max_audio_length:
        encoder.set_max_audio_length(frames)
    lens = torch.full((batch,), frames, dtype=torch.long, device=x.device)
    encoded, _ = encoder.forward_internal(x, lens, bypass_pre_encode=True)
    return encoded.transpose(1, 2)


def conformer_step(encoder: nn.Module, x: Tensor, cache: ConformerCache) -> tuple[Tensor, ConformerCache]:
    """The layers of `encoder` over the next chunk or chunks of each row's stream: (B, T, D) -> (B, T, D')."""
    batch, frames, _ = x.shape
    needed = frames + cache.channel.shape[2]
    if needed > encoder.max_audio_length:
        encoder.set_max_audio_length(needed)
    lens = torch.full((batch,), frames, dtype=torch.long, device=x.device)
    encoded, _, *caches = encoder.streaming_post_process(
        encoder.forward_internal(x, lens, cache.channel, cache.time, cache.filled, bypass_pre_encode=True)
    )
    return encoded.transpose(1, 2), ConformerCache(*caches)
