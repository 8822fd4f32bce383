"""The layers of a NeMo Conformer behind its subsampling: over whole recordings, over pieces of them, and for streams.

    conformer_layers                   whole recordings
    conformer_step, ConformerCache     the next piece of a recording, by NeMo's own cache
    ConformerStream, ConformerRings    one encoder chunk of many streams, each of its own age, in memory that stays

NeMo's cache remembers what goes into attention: each step computes the keys and values of all 70 frames anew and copies them
three times. `ConformerStream` remembers keys and values themselves, in a ring of encoder chunks:

    ring of 4 encoder chunks        | 4 | 5 | 2 | 3 |        6 goes where 2 is: it looks back on 3, 4 and 5
                                      ^

Nothing looks at the slot of the next encoder chunk. So rows without an encoder chunk in this step may write there too, and
nothing has to be put back. How far back a slot lies differs from row to row. The position embeddings, one for each distance,
are computed once and selected by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class ConformerRings:
    """The past that L layers look back on, of B rows."""

    keys: list[Tensor]  # L times (B, C, D), C slots of frames
    values: list[Tensor]  # L times (B, C, D)
    columns: list[Tensor]  # L times (B, D, kernel - 1) what the convolution looks back on


class ConformerStream:
    """The layers of a NeMo `ConformerEncoder` behind its subsampling, as `conformer_layers` computes them over a recording.

    Args:
        encoder: in evaluation. Its position embeddings are taken as they are now.
        chunk_frames: b, frames of an encoder chunk.
    """

    def __init__(self, encoder: nn.Module, chunk_frames: int) -> None:
        self._encoder, self._chunk = encoder, chunk_frames
        left = encoder.att_context_size[0]
        self._num_chunks = left // chunk_frames + 1  # of a ring: the newest one and those in its left context
        device = next(encoder.parameters()).device
        frame = torch.arange(chunk_frames, device=device)
        chunk = torch.arange(self._num_chunks, device=device)
        lag = (chunk[:, None] - chunk) % self._num_chunks  # (newest chunk's place, place): encoder chunks that it lies back
        distance = lag[:, None, :, None] * chunk_frames + frame[:, None, None] - frame
        # By the place of the newest encoder chunk: how many encoder chunks each slot lies back (N, C), and the row of each slot
        # in the positions (N, b, C).
        self._lag = lag.repeat_interleave(chunk_frames, dim=1)
        self._row = distance.flatten(2) + chunk_frames - 1
        self._positions = self._projected_positions(left + chunk_frames - 1)

    @torch.no_grad()
    def _projected_positions(self, farthest: int) -> list[Tensor]:
        """Embeddings (heads, head size, P) in each layer of the distances from -(b - 1) on, a later frame of the same chunk."""
        encoder = self._encoder
        if farthest + 1 > encoder.max_audio_length:
            encoder.set_max_audio_length(farthest + 1)
        here = encoder.pos_enc.pe.shape[1] // 2
        embeddings = encoder.pos_enc.pe[0, here - farthest : here + self._chunk].flip(0)
        attentions = [layer.self_attn for layer in encoder.layers]
        return [a.linear_pos(embeddings).unflatten(1, (a.h, a.d_k)).permute(1, 2, 0).contiguous() for a in attentions]

    def init_rings(self, batch_size: int) -> ConformerRings:
        """The past of `batch_size` streams that have not begun."""
        layers, slots = self._encoder.layers, self._num_chunks * self._chunk
        like = layers[0].norm_out.weight
        width = len(like)
        return ConformerRings(
            keys=[like.new_zeros(batch_size, slots, width) for _ in layers],
            values=[like.new_zeros(batch_size, slots, width) for _ in layers],
            columns=[
                like.new_zeros(batch_size, layer.conv.depthwise_conv.in_channels, layer.conv.kernel_size - 1)
                for layer in layers
            ],
        )

    def step(self, x: Tensor, rings: ConformerRings, chunks: Tensor, rows: Tensor, live: Tensor) -> Tensor:
        """The next encoder chunk of some rows.

        Args:
            x: (n, b, D) after the subsampling.
            rings: of all rows, changed in place.
            chunks: (n,) how many encoder chunks these rows had before.
            rows: (n,) int64, all different: whose encoder chunks they are.
            live: (n,) bool; False where an entry only fills the batch: its row stays as it is.

        Returns:
            (n, b, D').
        """
        encoder = self._encoder
        if encoder.pos_enc.xscale:
            x = x * encoder.pos_enc.xscale
        newest = chunks % self._num_chunks
        slots = newest[:, None] * self._chunk + torch.arange(self._chunk, device=x.device)
        past = _Past(
            where=(rows[:, None], slots),
            rows=rows,
            live=live[:, None, None],
            position=self._row[newest][:, None],
            before_start=(self._lag[newest] > chunks[:, None])[:, None, None],
        )
        for i, layer in enumerate(encoder.layers):
            x = x + layer.fc_factor * layer.feed_forward1(layer.norm_feed_forward1(x))
            x = x + self._attend(i, layer.norm_self_att(x), rings, past)
            x = x + _convolved(layer.conv, layer.norm_conv(x), rings.columns[i], past)
            x = x + layer.fc_factor * layer.feed_forward2(layer.norm_feed_forward2(x))
            x = layer.norm_out(x)
        return x if encoder.out_proj is None else encoder.out_proj(x)

    def _attend(self, layer: int, x: Tensor, rings: ConformerRings, past: _Past) -> Tensor:
        """Attention with relative positions (Dai et al., Transformer-XL, section 3.3) of (n, b, D) to the ring."""
        attention = self._encoder.layers[layer].self_attn
        heads = (attention.h, attention.d_k)
        query = attention.linear_q(x).unflatten(2, heads)
        rings.keys[layer].index_put_(past.where, attention.linear_k(x))
        rings.values[layer].index_put_(past.where, attention.linear_v(x))
        keys, values = (
            ring[layer].index_select(0, past.rows).unflatten(2, heads).transpose(1, 2) for ring in (rings.keys, rings.values)
        )
        position_query = ((query + attention.pos_bias_v) / attention.s_d_k).permute(2, 0, 1, 3).flatten(1, 2)
        by_distance = (
            (position_query @ self._positions[layer]).unflatten(1, query.shape[:2]).transpose(0, 1)
        )  # (n, heads, b, P)
        bias = by_distance.gather(3, past.position.expand(-1, attention.h, -1, -1)).masked_fill(past.before_start, -torch.inf)
        content = (query + attention.pos_bias_u).transpose(1, 2)
        return attention.linear_out(F.scaled_dot_product_attention(content, keys, values, bias).transpose(1, 2).flatten(2))


@dataclass(frozen=True)
class _Past:
    """How the n rows of one step lie in the rings."""

    where: tuple[Tensor, Tensor]  # (n, 1), (n, b) row and slots of the new frames
    rows: Tensor  # (n,)
    live: Tensor  # (n, 1, 1)
    position: Tensor  # (n, 1, b, C) for each new frame, the row of each slot in the positions
    before_start: Tensor  # (n, 1, 1, C) bool, slots of the time before the stream


def _convolved(convolution: nn.Module, x: Tensor, columns: Tensor, past: _Past) -> Tensor:
    """NeMo's `ConformerConvolution` of (n, b, D); `columns` (B, D, kernel - 1) keeps the frames that the next step needs."""
    depthwise = convolution.depthwise_conv
    x = F.glu(_pointwise(convolution.pointwise_conv1, x), dim=2).transpose(1, 2)
    before = columns.index_select(0, past.rows)
    x = torch.cat([before, x], dim=2)
    columns.index_copy_(0, past.rows, torch.where(past.live, x[:, :, -columns.shape[2] :], before))
    # So few frames that a product and a sum are faster than any convolution.
    x = (x.unfold(2, convolution.kernel_size, 1) * depthwise.weight).sum(3)
    if depthwise.bias is not None:
        x = x + depthwise.bias[:, None]
    over_features = convolution.norm_type == "layer_norm"
    x = convolution.batch_norm(x.transpose(1, 2)) if over_features else convolution.batch_norm(x).transpose(1, 2)
    return _pointwise(convolution.pointwise_conv2, convolution.activation(x))


def _pointwise(convolution: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution of kernel size 1 on (n, b, D) instead of (n, D, b)."""
    return F.linear(x, convolution.weight[:, :, 0], convolution.bias)


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
