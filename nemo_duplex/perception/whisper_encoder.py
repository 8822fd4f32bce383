"""Whisper's encoder (Radford et al. 2022), made to hear a stream: it looks one chunk ahead at most, and has no first position.

What changes: attention stays within encoder chunks and `left` frames before them, as in a cache-aware FastConformer, and each
head adds a number for each distance (Raffel et al. 2020, T5) where Whisper adds a position to its input. Features of 20 ms
leave in fours, one row for each frame of 80 ms. Frame f is made of the features that end just before it begins:

    ms           0         80        160       240
    frame        |--- 0 ---|--- 1 ---|--- 2 ---|
    feature  -4 -3 -2 -1 | 0 1 2 3 | 4 5 6 7 | 8          frame 0: -4 to -1, frame 1: 0 to 3, of which each is heard to
    heard                          ^                      32.5 ms after its centre: 92.5 ms for 3, as for a FastConformer

What is before a stream is silence: log-mels of zeros.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nemo_duplex.files.eight_bits import from_8_bits

#: Features in a frame of 80 ms, and mel frames in it.
PER_FRAME = 4
MELS_PER_FRAME = 8
#: Mel frames before the first one of a window that its first feature depends on.
MEL_HISTORY = 3
#: Mel frames before the start of a recording that its first frame depends on.
MEL_BEFORE = MELS_PER_FRAME + MEL_HISTORY - 1
#: Ends the names of scales of matrices that are stored in 8 bits.
SCALE_OF_ROWS = ".scale_of_rows"
# What Whisper does to log-mels: ln x -> (log10 x + 4) / 4.
_SCALE, _SHIFT = 1 / (4 * math.log(10)), 1.0
# Log-mel of digital silence with the guard of NeMo's preprocessor, for NeMo's own forward.
_SILENCE = math.log(2**-24)


@dataclass
class Past:
    """What the features of a piece look back on."""

    layers: list[tuple[Tensor, Tensor]]  # keys and values (B, heads, left, head size) for each layer
    filled: int  # of these features, the last ones that there have been


class StreamingWhisperEncoder(nn.Module):
    """Whisper's encoder for encoder chunks of a stream. NeMo takes it as the encoder of a CTC model.

    Args:
        feat_in: mel bands.
        d_model: D, features inside.
        n_layers, n_heads: of attention.
        ff_expansion_factor: inner size of the feed-forward layers against D.
        att_context_size: [left, right] frames of 80 ms, left a multiple of right + 1.
        feat_out: features of a frame; -1: D.

    Attributes:
        distance_bias: (layers, heads, distances), of a query to a key: from the last feature of a chunk as seen from its first,
            1 - b, to the earliest one that is seen. Not trained.

    Examples:
        >>> encoder = StreamingWhisperEncoder(feat_in=80, d_model=32, n_layers=1, n_heads=2, att_context_size=[4, 1])
        >>> encoder.frames(torch.zeros(1, 80, 10 + 8 * 3 + 1)).shape
        torch.Size([1, 4, 32])
    """

    def __init__(
        self,
        feat_in: int = 80,
        d_model: int = 384,
        n_layers: int = 4,
        n_heads: int = 6,
        ff_expansion_factor: int = 4,
        att_context_size: tuple[int, int] | list[int] = (70, 1),
        feat_out: int = -1,
    ) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model {d_model} is not a multiple of n_heads {n_heads}")
        self.att_context_size = list(att_context_size)
        self.subsampling_factor = MELS_PER_FRAME
        self.d_model = d_model
        self.feat_in, self._feat_out = feat_in, feat_out if feat_out > 0 else d_model
        self.chunk = PER_FRAME * (self.att_context_size[1] + 1)
        self.left = PER_FRAME * self.att_context_size[0]
        self.pre_encode = _Convolutions(feat_in, d_model)
        self.layers = nn.ModuleList(_Layer(d_model, n_heads, ff_expansion_factor * d_model) for _ in range(n_layers))
        self.norm_out = nn.LayerNorm(d_model)
        self.join = nn.Linear(PER_FRAME * d_model, self._feat_out)
        self.distance_bias: Tensor
        self.register_buffer("distance_bias", torch.zeros(n_layers, n_heads, self.left + 2 * self.chunk - 1))
        self.register_load_state_dict_pre_hook(_from_8_bits)

    def arguments(self) -> dict[str, Any]:
        """Those that it was built with."""
        heads, inner = self.layers[0].heads[0], self.layers[0].linear1.out_features
        return {
            "feat_in": self.feat_in,
            "d_model": self.d_model,
            "n_layers": len(self.layers),
            "n_heads": heads,
            "ff_expansion_factor": inner // self.d_model,
            "att_context_size": self.att_context_size,
            "feat_out": self._feat_out,
        }

    def frames(self, mel: Tensor) -> Tensor:
        """Frames (B, T, D') of whole encoder chunks of recordings.

        Args:
            mel: (B, mels, MEL_BEFORE + 8 * (T - 1) + 1) from `MEL_BEFORE` mel frames before the recordings on.
        """
        return self.joined(self.features(self.pre_encode(mel)))

    def piece(self, mel: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        """Frames of the next encoder chunks (B, mels, MEL_HISTORY + 8 * T) of recordings, and the past of what follows.

        Args:
            past: what the piece before left; None: there is none.
        """
        past = past or Past([], 0)
        kept: list[tuple[Tensor, Tensor]] = []
        features = self.features(self.pre_encode(mel), past, kept)
        return self.joined(features), Past(kept, past.filled + features.shape[1])

    def joined(self, features: Tensor) -> Tensor:
        """Features (B, 4 * T, D) -> frames (B, T, D')."""
        return self.join(features.unflatten(1, (-1, PER_FRAME)).flatten(2))

    def features(self, x: Tensor, past: Past | None = None, kept: list[tuple[Tensor, Tensor]] | None = None) -> Tensor:
        """The layers over whole recordings or a piece: (B, J, D) after the convolutions -> (B, J, D).

        Queries are taken in blocks of `left`; with the block before, there is all that they look back on. So time and memory
        are proportional to J.

        Args:
            past: None: nothing is before.
            kept: beside a past, gets keys and values of the last `left` features, for each layer.
        """
        count, block = x.shape[1], max(self.left, self.chunk)
        alone = past is None and count <= block  # then there is no block before
        if not alone:
            x = F.pad(x, (0, 0, 0, -count % block))
        bias = self._block_bias(-(-count // block), block, past.filled if past else 0)
        if alone:
            bias = bias[..., :count, block : block + count]
        for i, layer in enumerate(self.layers):
            x, keys_values = layer(x, bias[i].to(x.dtype), past.layers[i] if past and past.layers else None)
            if kept is not None:
                kept.append(_last(keys_values, block + count, block))
        return self.norm_out(x[:, :count])

    def forward(self, audio_signal: Tensor, length: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        """NeMo's own: mel frames (B, mels, M) and their counts (B,) -> (B, D', T) and counts (B,), T = ceil(M / 8)."""
        frames = -(-audio_signal.shape[2] // MELS_PER_FRAME)
        whole = -(-frames // (self.att_context_size[1] + 1)) * (self.att_context_size[1] + 1)
        after = MELS_PER_FRAME * (whole - 1) + 1 - audio_signal.shape[2]
        encoded = self.frames(F.pad(audio_signal, (MEL_BEFORE, after), value=_SILENCE))[:, :frames]
        return encoded.transpose(1, 2), -(-length // MELS_PER_FRAME)

    def _block_bias(self, blocks: int, block: int, filled: int) -> Tensor:
        """(layers, blocks, heads, block, 2 * block): what is added to scores of a block against the one before and itself."""
        query = torch.arange(block, 2 * block, device=self.distance_bias.device)[:, None]
        key = torch.arange(2 * block, device=query.device)
        chunks_back = query // self.chunk - key // self.chunk
        seen = (chunks_back >= 0) & (chunks_back * self.chunk <= self.left)
        row = (query - key + self.chunk - 1).clamp(0, self.distance_bias.shape[2] - 1)
        bias = self.distance_bias[:, :, row].masked_fill(~seen, -torch.inf)
        bias = bias[:, None].repeat(1, blocks, 1, 1, 1)
        bias[:, 0, :, :, : max(0, block - filled)] = -torch.inf
        return bias


class _Convolutions(nn.Module):
    """Log-mels (B, mels, 2 * J + 3) -> features (B, J, D)."""

    def __init__(self, feat_in: int, d_model: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(feat_in, d_model, 3)
        self.conv2 = nn.Conv1d(d_model, d_model, 3, stride=2)
        self.position = nn.Parameter(torch.zeros(d_model))  # in place of Whisper's positions

    def forward(self, mel: Tensor) -> Tensor:
        x = mel.to(self.conv1.weight.dtype) * _SCALE + _SHIFT
        return F.gelu(self.conv2(F.gelu(self.conv1(x)))).transpose(1, 2) + self.position


class _Layer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, d_inner: int) -> None:
        super().__init__()
        self.heads = (n_heads, d_model // n_heads)
        self.norm_self_att = nn.LayerNorm(d_model)
        self.linear_qkv = nn.Linear(d_model, 3 * d_model)
        self.linear_out = nn.Linear(d_model, d_model)
        self.norm_feed_forward = nn.LayerNorm(d_model)
        self.linear1 = nn.Linear(d_model, d_inner)
        self.linear2 = nn.Linear(d_inner, d_model)

    def forward(self, x: Tensor, bias: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, J, D) in blocks -> x, and keys and values from one block before on.

        Args:
            bias: (blocks, heads, block, 2 * block), or (1, heads, J, J) where there is no block before.
        """
        batch, blocks, block = len(x), bias.shape[0], bias.shape[2]
        query, key, value = self.projected(x)
        if bias.shape[3] == block:
            return self.after(x, self.attend(query, key, value, bias).transpose(1, 2).flatten(2)), (key, value)
        before = (key.new_zeros(batch, self.heads[0], block, self.heads[1]),) * 2 if past is None else past
        keys, values = torch.cat([before[0], key], dim=2), torch.cat([before[1], value], dim=2)
        query = query.unflatten(2, (blocks, block)).transpose(1, 2)
        attended = self.attend(query, _with_block_before(keys, block), _with_block_before(values, block), bias)
        return self.after(x, attended.transpose(2, 3).flatten(3).flatten(1, 2)), (keys, values)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """Attention of (..., q, head size) to (..., S, head size); `bias` is added to the scores.

        On a CPU by products of matrices: torch's own kernel takes twice as long, forward and backward in bfloat16 (12 blocks of
        6 heads, 280 queries and 560 keys: 350 ms, not 159, on a core of an AMD EPYC, torch 2.13).
        """
        if query.device.type != "cpu":
            return F.scaled_dot_product_attention(query, keys, values, attn_mask=bias)
        scores = (query * self.heads[1] ** -0.5) @ keys.transpose(-2, -1)
        return (scores if bias is None else scores + bias).softmax(-1) @ values

    def projected(self, x: Tensor) -> tuple[Tensor, ...]:
        """Query, key and value (B, heads, J, head size) of (B, J, D)."""
        return self.linear_qkv(self.norm_self_att(x)).unflatten(2, (3, *self.heads)).permute(2, 0, 3, 1, 4).unbind(0)

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of the layer: x and what attention gave (B, J, D)."""
        x = x + self.linear_out(attended)
        return x + self.linear2(F.gelu(self.linear1(self.norm_feed_forward(x))))


def _with_block_before(keys: Tensor, block: int) -> Tensor:
    """(B, heads, (N + 1) * block, d) -> (B, N, heads, 2 * block, d): each block behind the one before it."""
    blocks = keys.unflatten(2, (-1, block)).transpose(1, 2)  # (B, N + 1, heads, block, d)
    return torch.cat([blocks[:, :-1], blocks[:, 1:]], dim=3)


def _last(keys_values: tuple[Tensor, Tensor], end: int, count: int) -> tuple[Tensor, Tensor]:
    keys, values = keys_values
    return keys[:, :, end - count : end], values[:, :, end - count : end]


def _from_8_bits(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Weights that were stored in 8 bits, with a scale for each row (`ctc_model.save_ctc_model`), become numbers again."""
    for name in [name for name in state if name.startswith(prefix) and name.endswith(SCALE_OF_ROWS)]:
        weight = name.removesuffix(SCALE_OF_ROWS)
        state[weight] = from_8_bits(state[weight], state.pop(name))
