"""The small codec's decoder: codes to audio by causal ConvNeXt blocks and an inverse short-time Fourier transform.

Columns on the time axis, for the bundled codec (1764 samples per frame, 7 columns of hop 252, window 1008):

    frame      |               t               |              t+1              |
    column     | 7t | .. | .. | .. | .. |7t+5|7t+6|
    window of column 7t  [----------------]              starts at its own hop and reaches 1008 samples ahead
    sample s   is final with the last column that starts at or before s: the next one starts behind it

So a frame of codes gives its 1764 samples at once and nothing later changes them (zero look-ahead). The part of its windows
beyond the frame is the tail that a stream keeps. The windows add up to one from the fourth column on. An utterance starts as if
silence came before it, whole or in parts, so both give the same numbers. The price of causal windows is that most of a column
sounds 2 hops (23 ms) later; the encoder, which may look ahead, learns that shift.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from nemo_duplex.codec.convnext import ConvNeXtBlock
from nemo_duplex.codec.streaming_decoder import Buffers
from nemo_duplex.kernels.linear import Bfloat16FeedForward, FloatLinear

#: Limit of the exponent of magnitudes: far above the loudest bin of a full-scale signal, far below the limit of float32.
LOG_MAGNITUDE_LIMIT = 6.0


class IstftDecoder(nn.Module):
    """Dequantised codes (B, D, T) to audio (B, S), with the interface of NeMo's codec decoders and an exact streaming step.

    Args:
        input_dim: D, the quantizer's width.
        samples_per_frame: samples of audio that one frame holds.
        columns_per_frame: spectra per frame; divides `samples_per_frame`.
        overlap: hops that one window spans.
        frame_channels, frame_blocks: width and depth before the upsampling, at the codec's frame rate.
        channels, blocks: width and depth after it, at the rate of the spectra.
        kernel_size: columns (before the upsampling: frames) that one block sees, itself and the past.
        expansion: hidden width of a block in multiples of its width.
    """

    def __init__(
        self,
        input_dim: int,
        samples_per_frame: int,
        columns_per_frame: int,
        overlap: int = 4,
        frame_channels: int = 256,
        frame_blocks: int = 1,
        channels: int = 192,
        blocks: int = 5,
        kernel_size: int = 7,
        expansion: int = 3,
    ) -> None:
        super().__init__()
        assert samples_per_frame % columns_per_frame == 0, f"{samples_per_frame} samples are not {columns_per_frame} whole hops"
        self.samples_per_frame = samples_per_frame
        self.columns_per_frame = columns_per_frame
        self.overlap = overlap
        self.hop = samples_per_frame // columns_per_frame
        self.window_size = self.hop * overlap

        self.embed = nn.Conv1d(input_dim, frame_channels, kernel_size=1)
        self.frame_blocks = _stack(frame_channels, frame_blocks, kernel_size, expansion)
        self.upsample = nn.Linear(frame_channels, columns_per_frame * channels)
        self.blocks = _stack(channels, blocks, kernel_size, expansion)
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, 2 * (self.window_size // 2 + 1))
        window = torch.hann_window(self.window_size)
        self.register_buffer("window", window / window.view(overlap, self.hop).sum(0).mean(), persistent=False)

    def forward(self, inputs: torch.Tensor, input_len: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, D, T), (B,) -> audio (B, T * samples_per_frame), lengths (B,); zero beyond each length."""
        audio, _ = self.step(inputs, self.initial_buffers(len(inputs)))
        audio_len = input_len * self.samples_per_frame
        inside = torch.arange(audio.shape[1], device=audio.device) < audio_len[:, None]
        return audio * inside, audio_len

    def in_bfloat16(self) -> IstftDecoder:
        """A copy whose blocks multiply in bfloat16, on a CPU; what becomes spectra stays in float32. It shares all weights."""
        shared = {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())}
        decoder = copy.deepcopy(self, shared)
        for block in (*decoder.frame_blocks, *decoder.blocks):
            block.feed_forward = Bfloat16FeedForward(block.expand, block.contract)
        decoder.head = FloatLinear(decoder.head)
        return decoder

    def initial_buffers(self, batch_size: int) -> Buffers:
        """The state of a stream before its first frame, zeros: the left context of each block, then the tail of the windows."""
        like = self.head.weight
        blocks = (*self.frame_blocks, *self.blocks)
        contexts = (like.new_zeros(batch_size, block.channels, block.context) for block in blocks)
        return (*contexts, like.new_zeros(batch_size, self.overlap - 1, self.hop))

    def step(self, inputs: torch.Tensor, buffers: Buffers) -> tuple[torch.Tensor, Buffers]:
        """(B, D, n) dequantised codes of the next n frames -> audio (B, n * samples_per_frame), and the buffers after them."""
        *contexts, tail = buffers
        x, after = self._columns(inputs, contexts)
        audio, tail = self._overlap_add(self._windows(x), tail)
        return audio, (*after, tail)

    def _columns(self, inputs: torch.Tensor, contexts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Codes (B, D, n) and what each block saw before -> features of the columns (B, J, C), and the next contexts."""
        pasts, after = iter(contexts), []

        def run(block: ConvNeXtBlock, x: torch.Tensor) -> torch.Tensor:
            padded = torch.cat([next(pasts), x], dim=-1)
            after.append(padded[..., padded.shape[-1] - block.context :])
            return block(padded, lead=block.context)

        x = self.embed(inputs)
        for block in self.frame_blocks:
            x = run(block, x)
        batch_size, _, frames = x.shape
        x = self.upsample(x.transpose(1, 2)).reshape(batch_size, frames * self.columns_per_frame, -1).transpose(1, 2)
        for block in self.blocks:
            x = run(block, x)
        return self.norm(x.transpose(1, 2)), after

    def _windows(self, x: torch.Tensor) -> torch.Tensor:
        """Features (B, J, C) -> one windowed piece of audio each, (B, J, window_size)."""
        log_magnitude, phase = self.head(x).float().chunk(2, dim=-1)
        return torch.fft.irfft(spectrum(log_magnitude, phase), n=self.window_size) * self.window

    def _overlap_add(self, windows: torch.Tensor, tail: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Windows (B, J, window_size) onto the tail (B, overlap - 1, hop) -> audio (B, J * hop) and the next tail."""
        batch_size, columns, _ = windows.shape
        pieces = windows.view(batch_size, columns, self.overlap, self.hop)
        ahead = self.overlap - 1
        total = nn.functional.pad(tail, (0, 0, 0, columns))
        for i in range(self.overlap):
            total = total + nn.functional.pad(pieces[:, :, i], (0, 0, i, ahead - i))
        return total[:, :columns].reshape(batch_size, columns * self.hop), total[:, columns:]


def spectrum(log_magnitude: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
    """Complex numbers of these magnitudes, at most e^6, and phases; as `torch.polar`, in a third of its time on a CPU."""
    magnitude = log_magnitude.clamp(max=LOG_MAGNITUDE_LIMIT).exp()
    return torch.complex(magnitude * phase.cos(), magnitude * phase.sin())


def _stack(channels: int, blocks: int, kernel_size: int, expansion: int) -> nn.ModuleList:
    return nn.ModuleList(ConvNeXtBlock(channels, expansion * channels, kernel_size) for _ in range(blocks))
