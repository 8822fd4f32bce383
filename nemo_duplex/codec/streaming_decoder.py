"""Codes to audio, frame by frame and exactly: the parts equal what `FSQCodec.decode` gives for the whole.

    decoder = codec.streaming_decoder()
    state = decoder.init_state(batch_size=2)
    audio, state = decoder.step(codes, state)        # (B, K, n) -> (B, n * samples_per_frame), any n
    state.reset(mask)                                # restarts rows whose stream ended; the others stay as they are

The state differs by decoder, so each has its own step (`FrameDecoder`): the small codec's `IstftDecoder` has one,
NeMo's `CausalHiFiGANDecoder` gets one from `HiFiGANStepper`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from nemo_duplex.inputs import InputError

Buffers = tuple[torch.Tensor, ...]


@dataclass
class DecoderState:
    """What a batch of streams remembers between steps; zeros at the start of a stream.

    Its tensors are never changed in place, so `dataclasses.replace(state)` is a snapshot.

    Args:
        buffers: tensors of (B, ...), in the decoder's own order.
    """

    buffers: Buffers

    def reset(self, mask: torch.Tensor) -> None:
        """Restarts the rows where `mask` (B,) is True; the other rows stay bit-identical."""
        self.buffers = tuple(b.masked_fill(mask.to(b.device).view(-1, *[1] * (b.dim() - 1)), 0.0) for b in self.buffers)


class FrameDecoder(Protocol):
    """A decoder network with zero look-ahead, one step at a time; `step` over all frames at once is its whole decode."""

    def initial_buffers(self, batch_size: int) -> Buffers:
        """Zeros: the state before the first frame."""

    def step(self, inputs: torch.Tensor, buffers: Buffers) -> tuple[torch.Tensor, Buffers]:
        """Dequantised codes (B, D, n) of the next n frames -> audio (B, n * samples_per_frame), and the buffers after it."""


class StreamingDecoder:
    """Decodes many streams of any age in one batch.

    Args:
        dequantize: codes (B, K, n) -> (B, D, n); raises InputError for codes that it cannot take.
        decoder: the network.
        samples_per_frame: samples in one frame.

    Examples:
        >>> codec = model.audio_codec
        >>> codes = codec.silence_codes.repeat(1, 5, 1).transpose(1, 2)     # (B, K, T)
        >>> decoder = codec.streaming_decoder()
        >>> state, frames = decoder.init_state(1), []
        >>> for frame in codes.split(1, dim=2):
        ...     audio, state = decoder.step(frame, state)
        ...     frames.append(audio)
        >>> whole, _ = codec.decode(codes, torch.tensor([5]))
        >>> torch.allclose(torch.cat(frames, dim=1), whole, atol=1e-4)
        True
    """

    def __init__(
        self, dequantize: Callable[[torch.Tensor], torch.Tensor], decoder: FrameDecoder, samples_per_frame: int
    ) -> None:
        self._dequantize = dequantize
        self._decoder = decoder
        self._samples_per_frame = samples_per_frame

    def init_state(self, batch_size: int) -> DecoderState:
        """The state at the start of `batch_size` streams, on the codec's device."""
        return DecoderState(self._decoder.initial_buffers(batch_size))

    @torch.no_grad()
    def step(self, codes: torch.Tensor, state: DecoderState) -> tuple[torch.Tensor, DecoderState]:
        """(B, K, n) codes of the next n frames, 0 or more -> their audio (B, n * samples_per_frame), and the state after them.

        Raises:
            InputError: if codes have not as many rows as the state; and, unless the caller guarantees otherwise
                (`check=False`), if they are of another geometry, or one is out of range (a special id of the language model is
                not audio).
        """
        if len(codes) != (rows := len(state.buffers[0])):
            raise InputError(f"codes have {len(codes)} rows and the state {rows}. Make one by init_state({len(codes)}).")
        inputs = self._dequantize(codes)
        if not rows * codes.shape[-1]:  # networks refuse nothing
            return inputs.new_zeros(rows, codes.shape[-1] * self._samples_per_frame), state
        audio, buffers = self._decoder.step(inputs, state.buffers)
        return audio, DecoderState(buffers)
