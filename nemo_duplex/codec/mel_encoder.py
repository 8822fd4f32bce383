"""The small codec's encoder: audio to one vector per frame, by log-mel spectra and a few convolutions. It is never streamed."""

from __future__ import annotations

import math

import torch
from torch import nn

from nemo_duplex.codec.convnext import ConvNeXtBlock
from nemo_duplex.codec.mel import FLOOR, log_mel, mel_filters


class MelEncoder(nn.Module):
    """Audio (B, S) to a vector per frame (B, D, T), with the interface of NeMo's codec encoders.

    A row's output depends on its own samples only, never on what pads it in a batch.

    Args:
        encoded_dim: D, the quantizer's width.
        sample_rate: samples per second.
        samples_per_frame: samples of audio that one frame holds.
        columns_per_frame: mel spectra per frame; divides `samples_per_frame`.
        mel_bins: features per spectrum.
        overlap: hops that one analysis window spans.
        channels, blocks: width and depth at the rate of the spectra.
        frame_channels, frame_blocks: width and depth at the codec's frame rate.
        kernel_size, frame_kernel_size: columns and frames that one block sees, half of them ahead.
        expansion: hidden width of a block in multiples of its width.
    """

    def __init__(
        self,
        encoded_dim: int,
        sample_rate: int,
        samples_per_frame: int,
        columns_per_frame: int,
        mel_bins: int = 80,
        overlap: int = 4,
        channels: int = 128,
        blocks: int = 2,
        frame_channels: int = 192,
        frame_blocks: int = 1,
        kernel_size: int = 7,
        frame_kernel_size: int = 3,
        expansion: int = 3,
    ) -> None:
        super().__init__()
        assert samples_per_frame % columns_per_frame == 0, f"{samples_per_frame} samples are not {columns_per_frame} whole hops"
        self.samples_per_frame = samples_per_frame
        self.columns_per_frame = columns_per_frame
        self.hop = samples_per_frame // columns_per_frame
        self.register_buffer("window", torch.hann_window(overlap * self.hop), persistent=False)
        self.register_buffer("filters", mel_filters(sample_rate, overlap * self.hop, mel_bins), persistent=False)

        self.embed = nn.Conv1d(mel_bins, channels, kernel_size=3, padding=1)
        self.blocks = nn.ModuleList(ConvNeXtBlock(channels, expansion * channels, kernel_size) for _ in range(blocks))
        self.downsample = nn.Linear(columns_per_frame * channels, frame_channels)
        self.frame_blocks = nn.ModuleList(
            ConvNeXtBlock(frame_channels, expansion * frame_channels, frame_kernel_size) for _ in range(frame_blocks)
        )
        self.norm = nn.LayerNorm(frame_channels)
        self.head = nn.Linear(frame_channels, encoded_dim)

    def forward(self, audio: torch.Tensor, audio_len: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, S), (B,), S and the lengths whole frames -> (B, D, T), (B,)."""
        frames = audio_len // self.samples_per_frame
        samples = torch.arange(audio.shape[1], device=audio.device) < audio_len[:, None]
        total = audio.shape[1] // self.samples_per_frame
        inside = torch.arange(total, device=audio.device) < frames[:, None]
        columns = inside.repeat_interleave(self.columns_per_frame, dim=1)[:, None]

        mel = log_mel(audio * samples, self.window, self.hop, self.filters)[..., : columns.shape[-1]]
        x = (1 - 2 * mel / math.log(FLOOR)) * columns  # -1 in silence, about 1 at full scale
        x = self.embed(x) * columns
        x = _centred(self.blocks, x, columns)
        x = self.downsample(x.transpose(1, 2).reshape(len(x), total, -1)).transpose(1, 2)
        x = _centred(self.frame_blocks, x * inside[:, None], inside[:, None])
        return self.head(self.norm(x.transpose(1, 2))).transpose(1, 2) * inside[:, None], frames


def _centred(blocks: nn.ModuleList, x: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Runs blocks that see as far ahead as back. Masks after each, so that padding stays zero, as beyond an edge."""
    for block in blocks:
        lead = block.context // 2
        x = block(nn.functional.pad(x, (lead, block.context - lead)), lead) * inside
    return x
