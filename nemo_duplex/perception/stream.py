"""A perception step by step: one encoder chunk at a time of many sessions, each of its own age, in one batch of constant shape.

    stream.mel(audio, ...)            n chunks of samples -> mel frames, with those before them that the encoder looks back on
    stream.encoder(window, ...)       -> embeddings of the encoder chunks' frames

The frames equal those of `Perception` over whole recordings. All memory is written in place and no Python branches on data, so
either half can become a CUDA graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nemo_duplex.perception.conformer import ConformerRings, ConformerStream
from nemo_duplex.perception.log_mel import history, log_mel
from nemo_duplex.perception.perception import Perception
from nemo_duplex.perception.subsampling import stages, subsample, window_history


@dataclass
class StreamState:
    """All that B streams need of their past; zeros for a stream that has not begun. Its size never changes."""

    samples: Tensor  # (B, history) the latest audio, which the next mel frames look back on
    mel: Tensor  # (B, mels, history) the latest mel frames, which the next encoder frames look back on
    chunks: Tensor  # (B,) encoder chunks so far
    encoder: ConformerRings
    adapter: ConformerRings | None  # of an adapter that looks back


class PerceptionStream:
    """A perception, run for many rows at a time.

    Args:
        perception: in evaluation from now on. Its weights are taken as they are now: some results are computed once.
    """

    def __init__(self, perception: Perception) -> None:
        self._perception = perception.eval()
        self.chunk_frames: int = perception.chunk_frames
        encoder, adapter = perception.encoder, perception.modality_adapter
        self._like = encoder.layers[0].norm_out.weight  # of the device and type of all weights
        with torch.no_grad():
            self._stages = stages(encoder.pre_encode, self._like.device)
        self._encoder = ConformerStream(encoder, self.chunk_frames)
        looks_back = perception.config["adapter"]["kind"] == "conformer"
        self._adapter = ConformerStream(adapter, self.chunk_frames) if looks_back else None

    def init_state(self, batch_size: int) -> StreamState:
        """The memory of `batch_size` streams that have not begun."""
        featurizer, device = self._perception.preprocessor.featurizer, self._like.device
        mel_history = window_history(self._perception.encoder.subsampling_factor)
        return StreamState(
            samples=torch.zeros(batch_size, history(featurizer), device=device),
            mel=torch.zeros(batch_size, featurizer.nfilt, mel_history, device=device),
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
        x = subsample(perception.encoder.pre_encode, window.to(self._like.dtype), chunks * self.chunk_frames, self._stages)
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
