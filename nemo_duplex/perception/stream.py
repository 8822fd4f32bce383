"""A perception step by step: one encoder chunk at a time of many sessions, each of its own age, in one batch of constant shape.

    stream.mel(audio, ...)            n chunks of samples -> mel frames, with those before them that the encoder looks back on
    stream.encoder(window, ...)       -> embeddings of the encoder chunks' frames

The frames equal those of `Perception` over whole recordings. All memory is written in place and no Python branches on data on a
GPU, so either half can become a CUDA graph.

NeMo's own cache remembers what goes into attention: each step computes the keys and values of all 70 frames again and copies
them three times. `ConformerStream` remembers keys and values themselves, in a ring of encoder chunks:

    ring of 4 encoder chunks        | 4 | 5 | 2 | 3 |        6 goes where 2 is: it looks back on 3, 4 and 5
                                      ^

Nothing looks at the slot of the next encoder chunk. So rows without an encoder chunk in this step may write there too, and
nothing has to be put back. How far back a slot is differs from row to row. The position embeddings, one for each distance,
are computed once and selected by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nemo_duplex.kernels.attention import attend
from nemo_duplex.kernels.linear import outputs
from nemo_duplex.perception.front_end import history, log_mel, silence_level, stages, subsample, window_history
from nemo_duplex.perception.perception import Perception
from nemo_duplex.perception.whisper_encoder import MEL_HISTORY, StreamingWhisperEncoder


@dataclass
class StreamState:
    """All that B streams need of their past; zeros for a stream that has not begun. Its size never changes."""

    samples: Tensor  # (B, history) the latest audio, which the next mel frames look back on
    mel: Tensor  # (B, mels, history) the latest mel frames, which the next encoder frames look back on
    chunks: Tensor  # (B,) encoder chunks so far
    encoder: Rings
    adapter: Rings | None  # of an adapter that looks back


class PerceptionStream:
    """A perception, run for many rows at a time.

    Args:
        perception: in evaluation from now on. Its weights are taken as they are now: some results are computed once.
    """

    def __init__(self, perception: Perception) -> None:
        self._perception = perception.eval()
        self.chunk_frames: int = perception.chunk_frames
        encoder, adapter = perception.encoder, perception.modality_adapter
        self._encoder: ConformerStream | WhisperStream
        if isinstance(encoder, StreamingWhisperEncoder):
            self._like = encoder.norm_out.weight  # of the device and type of all weights
            self._mel_history, self._encoder = (
                MEL_HISTORY,
                WhisperStream(encoder, silence_level(perception.preprocessor.featurizer)),
            )
        else:
            self._like = encoder.layers[0].norm_out.weight
            with torch.no_grad():
                self._stages = stages(encoder.pre_encode, self._like.device)
            self._mel_history = window_history(encoder.subsampling_factor)
            self._encoder = ConformerStream(encoder, self.chunk_frames)
        looks_back = perception.config["adapter"]["kind"] == "conformer"
        self._adapter = ConformerStream(adapter, self.chunk_frames) if looks_back else None

    def init_state(self, batch_size: int) -> StreamState:
        """The memory of `batch_size` streams that have not begun."""
        featurizer, device = self._perception.preprocessor.featurizer, self._like.device
        return StreamState(
            samples=torch.zeros(batch_size, history(featurizer), device=device),
            mel=torch.zeros(batch_size, featurizer.nfilt, self._mel_history, device=device),
            chunks=torch.zeros(batch_size, dtype=torch.long, device=device),
            encoder=self._encoder.init_rings(batch_size),
            adapter=self._adapter.init_rings(batch_size) if self._adapter else None,
        )

    def mel(self, audio: Tensor, state: StreamState, rows: Tensor, live: Tensor) -> Tensor:
        """The first half of a step.

        Args:
            audio: (n, chunk_samples) float; the first chunk of a row begins with the perception's `lead_samples` zeros.
            state: of all rows; changed in place.
            rows: (n,) int64, all different: whose encoder chunks they are.
            live: (n,) bool; False where an entry only fills the batch: its row stays as it is.

        Returns:
            the window (n, mels, M) for `encoder`.
        """
        samples = _after(state.samples, audio, rows, live)
        return _after(state.mel, log_mel(self._perception.preprocessor.featurizer, samples), rows, live)

    def encoder(self, window: Tensor, state: StreamState, rows: Tensor, live: Tensor) -> Tensor:
        """The second half, with the same `state`, `rows` and `live`: the window of `mel` -> embeddings (n, chunk_frames, H)."""
        perception, chunks = self._perception, state.chunks.index_select(0, rows)
        window = window.to(self._like.dtype)
        if isinstance(self._encoder, WhisperStream):
            x = self._encoder.convolved(window, chunks)
        else:
            x = subsample(perception.encoder.pre_encode, window, chunks * self.chunk_frames, self._stages)
        x = self._encoder.step(x, state.encoder, chunks, rows, live)
        adapter = perception.modality_adapter
        if self._adapter is None or state.adapter is None:
            x = adapter(x)
        else:
            x = self._adapter.step(adapter.pre_encode(x), state.adapter, chunks, rows, live)
        state.chunks.index_add_(0, rows, live.long())
        return perception.proj(x)


def _after(memory: Tensor, new: Tensor, rows: Tensor, live: Tensor) -> Tensor:
    """`memory` (B, ..., h) of these rows followed by `new` (n, ..., m); where live, the memory takes its last h entries."""
    before = memory.index_select(0, rows)
    stretch = torch.cat([before, new], dim=-1)
    live = live.view(-1, *[1] * (memory.dim() - 1))
    memory.index_copy_(0, rows, torch.where(live, stretch[..., -memory.shape[-1] :], before))
    return stretch


@dataclass
class Rings:
    """The past that L layers look back on, of B rows."""

    keys: list[Tensor]  # L times (B, heads, C, head size), C slots of frames
    values: list[Tensor]  # L times (B, heads, C, head size)
    frames: list[Tensor]  # L times (B, kernel - 1, D) what a Conformer's convolution looks back on


class ConformerStream:
    """The layers of a NeMo `ConformerEncoder` behind its subsampling, as `conformer_layers` computes them over a recording.

    Args:
        encoder: in evaluation. Its position embeddings are taken as they are now.
        chunk_frames: b, frames of an encoder chunk.
    """

    def __init__(self, encoder: nn.Module, chunk_frames: int) -> None:
        self._encoder, self._chunk = encoder, chunk_frames
        self._layers = list(encoder.layers)
        left = encoder.att_context_size[0]
        self._num_chunks = left // chunk_frames + 1  # of a ring: the newest one and those in its left context
        self._lag, self._row = _by_newest(self._num_chunks, chunk_frames, next(encoder.parameters()).device)
        self._positions = self._projected_positions(left + chunk_frames - 1)
        # Weights (D,) of each tap of each layer's convolution.
        self._taps = [layer.conv.depthwise_conv.weight.detach()[:, 0].t().contiguous().unbind(0) for layer in self._layers]

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

    def init_rings(self, batch_size: int) -> Rings:
        """The past of `batch_size` streams that have not begun."""
        slots = self._num_chunks * self._chunk
        like = self._layers[0].norm_out.weight
        heads = [(layer.self_attn.h, slots, layer.self_attn.d_k) for layer in self._layers]
        convolutions = [layer.conv.depthwise_conv for layer in self._layers]
        return Rings(
            keys=[like.new_zeros(batch_size, *shape) for shape in heads],
            values=[like.new_zeros(batch_size, *shape) for shape in heads],
            frames=[like.new_zeros(batch_size, conv.kernel_size[0] - 1, conv.in_channels) for conv in convolutions],
        )

    def step(self, x: Tensor, rings: Rings, chunks: Tensor, rows: Tensor, live: Tensor) -> Tensor:
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
            place=(rows[:, None], slice(None), slots),
            rows=rows,
            live=live[:, None, None],
            position=self._row[newest][:, None],
            before_start=(self._lag[newest] > chunks[:, None])[:, None, None],
        )
        for i, layer in enumerate(self._layers):
            x = torch.add(x, layer.feed_forward1(layer.norm_feed_forward1(x)), alpha=layer.fc_factor)
            x = x + self._attend(i, layer.norm_self_att(x), rings, past)
            x = x + self._convolve(i, layer.norm_conv(x), rings.frames[i], past)
            x = torch.add(x, layer.feed_forward2(layer.norm_feed_forward2(x)), alpha=layer.fc_factor)
            x = layer.norm_out(x)
        return x if encoder.out_proj is None else encoder.out_proj(x)

    def _attend(self, layer: int, x: Tensor, rings: Rings, past: _Past) -> Tensor:
        """Attention with relative positions (Dai et al., Transformer-XL, section 3.3) of (n, b, D) to the ring."""
        attention = self._layers[layer].self_attn
        heads = (attention.h, attention.d_k)
        query, key, value = (
            outputs(x, attention.linear_q, attention.linear_k, attention.linear_v).unflatten(2, (3, *heads)).unbind(2)
        )
        ring_keys, ring_values = rings.keys[layer], rings.values[layer]
        ring_keys[past.place] = key
        ring_values[past.place] = value
        keys, values = ring_keys.index_select(0, past.rows), ring_values.index_select(0, past.rows)
        position_query = ((query + attention.pos_bias_v) / attention.s_d_k).permute(2, 0, 1, 3).flatten(1, 2)
        # (n, heads, b, P)
        by_distance = (position_query @ self._positions[layer]).unflatten(1, query.shape[:2]).transpose(0, 1)
        bias = by_distance.gather(3, past.position.expand(-1, attention.h, -1, -1)).masked_fill_(past.before_start, -torch.inf)
        content = (query + attention.pos_bias_u).transpose(1, 2)
        return attention.linear_out(attend(content, keys, values, bias, 1 / attention.s_d_k).transpose(1, 2).flatten(2))

    def _convolve(self, layer: int, x: Tensor, frames: Tensor, past: _Past) -> Tensor:
        """NeMo's `ConformerConvolution` of (n, b, D); `frames` (B, kernel - 1, D) keeps what the next step needs."""
        convolution = self._layers[layer].conv
        value, gate = _pointwise(convolution.pointwise_conv1, x).chunk(2, dim=2)
        before = frames.index_select(0, past.rows)
        seen = torch.cat([before, value * gate.sigmoid()], dim=1)
        frames.index_copy_(0, past.rows, torch.where(past.live, seen[:, x.shape[1] :], before))
        # So few frames that a product for each tap is faster than any convolution.
        first, *taps = self._taps[layer]
        bias = convolution.depthwise_conv.bias
        out = seen[:, : x.shape[1]] * first
        for i, tap in enumerate(taps, start=1):
            out.addcmul_(seen[:, i : i + x.shape[1]], tap)
        if bias is not None:
            out += bias
        over_features = convolution.norm_type == "layer_norm"
        out = convolution.batch_norm(out) if over_features else convolution.batch_norm(out.transpose(1, 2)).transpose(1, 2)
        return _pointwise(convolution.pointwise_conv2, convolution.activation(out))


class WhisperStream:
    """The same of a `StreamingWhisperEncoder`, from its windows of mel frames on.

    Args:
        encoder: in evaluation. What it adds for distances is taken as it is now.
        silence: the log-mel of zeros, which are before a stream.
    """

    def __init__(self, encoder: StreamingWhisperEncoder, silence: float) -> None:
        self._encoder, self._layers, self._silence = encoder, list(encoder.layers), silence
        self._num_chunks = encoder.left // encoder.chunk + 1
        self._lag, row = _by_newest(self._num_chunks, encoder.chunk, encoder.distance_bias.device)
        # Of each layer (N, heads, b, C), by the place of the newest encoder chunk.
        self._bias = [bias[:, row].transpose(0, 1).contiguous() for bias in encoder.distance_bias]

    def init_rings(self, batch_size: int) -> Rings:
        """The past of `batch_size` streams that have not begun."""
        slots, like = self._num_chunks * self._encoder.chunk, self._encoder.norm_out.weight
        shapes = [(batch_size, layer.heads[0], slots, layer.heads[1]) for layer in self._layers]
        return Rings([like.new_zeros(s) for s in shapes], [like.new_zeros(s) for s in shapes], frames=[])

    def convolved(self, window: Tensor, chunks: Tensor) -> Tensor:
        """The window (n, mels, M) of the next encoder chunk of streams that have had `chunks` (n,) -> features (n, b, D)."""
        before, new = window[:, :, :MEL_HISTORY], window[:, :, MEL_HISTORY:]
        before = before.masked_fill((chunks == 0)[:, None, None], self._silence)
        return self._encoder.pre_encode(torch.cat([before, new], dim=2))

    def step(self, x: Tensor, rings: Rings, chunks: Tensor, rows: Tensor, live: Tensor) -> Tensor:
        """The next encoder chunk (n, b, D) of some rows -> frames (n, b / 4, D'); as `ConformerStream.step`."""
        newest, block = chunks % self._num_chunks, self._encoder.chunk
        slots = newest[:, None] * block + torch.arange(block, device=x.device)
        place = (rows[:, None], slice(None), slots)
        before_start = (self._lag[newest] > chunks[:, None])[:, None, None]
        for i, layer in enumerate(self._layers):
            query, key, value = layer.projected(x)
            ring_keys, ring_values = rings.keys[i], rings.values[i]
            ring_keys[place], ring_values[place] = key.transpose(1, 2), value.transpose(1, 2)
            keys, values = ring_keys.index_select(0, rows), ring_values.index_select(0, rows)
            bias = self._bias[i][newest].masked_fill(before_start, -torch.inf).to(x.dtype)
            attended = attend(query, keys, values, bias, layer.heads[1] ** -0.5)
            x = layer.after(x, attended.transpose(1, 2).flatten(2))
        return self._encoder.joined(self._encoder.norm_out(x))


def attention_inputs(perception: Perception) -> list[tuple[nn.Module, ...]]:
    """The layers of a perception's Conformers that take the same input, in groups."""
    layers = [layer for part in (perception.encoder, perception.modality_adapter) for layer in getattr(part, "layers", ())]
    attentions = [layer.self_attn for layer in layers if hasattr(layer, "self_attn")]
    return [(a.linear_q, a.linear_k, a.linear_v) for a in attentions if hasattr(a, "linear_q")]


def _by_newest(num_chunks: int, block: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """By the place of the newest of N encoder chunks of b frames in a ring of C slots: how many encoder chunks each slot is
    back (N, C), and the distance of each new frame to each slot (N, b, C), counted from -(b - 1) on."""
    frame, chunk = torch.arange(block, device=device), torch.arange(num_chunks, device=device)
    lag = (chunk[:, None] - chunk) % num_chunks  # (newest chunk's place, place): encoder chunks between them
    distance = lag[:, None, :, None] * block + frame[:, None, None] - frame
    return lag.repeat_interleave(block, dim=1), distance.flatten(2) + block - 1


@dataclass(frozen=True)
class _Past:
    """Where the n rows of one step are in the rings."""

    place: tuple[Tensor, slice, Tensor]  # (n, 1), all heads, (n, b): row and slots of the new frames
    rows: Tensor  # (n,)
    live: Tensor  # (n, 1, 1)
    position: Tensor  # (n, 1, b, C) for each new frame, the row of each slot in the positions
    before_start: Tensor  # (n, 1, 1, C) bool, slots of the time before the stream


def _pointwise(convolution: nn.Module, x: Tensor) -> Tensor:
    """A convolution of kernel size 1 on (n, b, D) instead of (n, D, b), or the Linear layer in its place."""
    if not isinstance(convolution, nn.Conv1d):
        return convolution(x)
    return F.linear(x, convolution.weight[:, :, 0], convolution.bias)
