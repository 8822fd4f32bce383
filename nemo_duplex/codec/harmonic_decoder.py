"""A decoder for one voice at very low rates: the codes say the pitch, a source of pulses and noise gives the phases.

Half a kilobit a second holds no phases. A decoder that guesses them (`IstftDecoder`) makes columns that do not go together,
which sounds rough. Here the network shapes a source, as in neural source-filter models (Wang et al., arXiv:1904.12088) and
DDSP (Engel et al., arXiv:2001.04643). The spectrum of a column is

    pulses * exp(a + i b) + noise * exp(c)          a, b, c for each bin, of the network

where the pulses are all harmonics of the pitch, at one level. Their phase at the middle of a window is the sum of the pitch
until there, so that the windows of neighbours agree:

    phase[j] = phase[j-1] + hop / sample_rate * (pitch[j-1] + pitch[j]) / 2          cycles

While it is trained, the pulses have pitch and phase of the recording (`follow`). They beat where the speaker's do, so losses
that see phases and single pulses teach what belongs to the voice; codes learn the pitch from a loss of its own.

A small network of its own computes the pitch from the codes, in float64: the phase is a sum, in which a difference in the last
bit between a stream and the whole would grow with every column.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from nemo_duplex.codec.istft_decoder import LOG_MAGNITUDE_LIMIT, IstftDecoder, spectrum
from nemo_duplex.codec.pitch import HIGHEST, LOWEST, fundamental_phase, pitch_track
from nemo_duplex.codec.streaming_decoder import Buffers

# Hz; details are what differs from the mean of a spectrum over about so far to both sides.
_SMOOTH = 650.0
# Columns of noise until it repeats: 5.8 s at 11 ms.
_NOISE_COLUMNS = 509


class HarmonicDecoder(IstftDecoder):
    """Dequantised codes (B, D, T) to audio (B, S), as `IstftDecoder`, with a source of pulses and noise.

    Args:
        sample_rate: samples per second.
        pitch_channels: width of the network that reads the pitch from the codes.
        pitch_frames: frames that it sees, the current one and the past.
        input_dim, samples_per_frame, columns_per_frame, others: as of `IstftDecoder`.

    Examples:
        >>> decoder = HarmonicDecoder(input_dim=16, samples_per_frame=1764, columns_per_frame=7, sample_rate=22050)
        >>> audio, lengths = decoder(torch.zeros(1, 16, 5), torch.tensor([5]))
        >>> tuple(audio.shape), lengths.tolist()
        ((1, 8820), [8820])
    """

    def __init__(
        self,
        input_dim: int,
        samples_per_frame: int,
        columns_per_frame: int,
        sample_rate: int,
        pitch_channels: int = 128,
        pitch_frames: int = 3,
        **others: Any,
    ) -> None:
        super().__init__(input_dim, samples_per_frame, columns_per_frame, **others)
        assert self.hop % 2 == 0, f"a hop of {self.hop} samples is odd, and pitch is looked for in pairs of samples"
        assert self.overlap >= 3, f"overlap={self.overlap}: squared windows add up to a constant from 3 hops on"
        self.sample_rate = sample_rate
        self.pitch_frames = pitch_frames
        bins = self.window_size // 2 + 1
        self.head = nn.Linear(self.head.in_features, 3 * bins)
        with torch.no_grad():
            self.head.bias.zero_()
            self.head.bias[:bins], self.head.bias[2 * bins :] = -5.0, -6.0
            self.head.weight.mul_(0.3)
        self.pitch = nn.Sequential(
            nn.Linear(pitch_frames * input_dim, pitch_channels),
            nn.GELU(),
            nn.Linear(pitch_channels, pitch_channels),
            nn.GELU(),
        )
        self.pitch_head = nn.Linear(pitch_channels, columns_per_frame)
        hann = torch.hann_window(self.window_size)
        self.window = hann / hann.square().view(self.overlap, self.hop).sum(0).mean()
        self.register_buffer("source_window", hann * (2 / hann.sum()), persistent=False)
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("noise", torch.randn(_NOISE_COLUMNS, 2, bins, generator=generator) * 0.5**0.5, persistent=False)

    def initial_buffers(self, batch_size: int) -> Buffers:
        """Zeros: the codes before, what each block saw, phase (cycles) and column of noise, and the tail of the windows."""
        like = self.head.weight
        *contexts, tail = super().initial_buffers(batch_size)
        codes = like.new_zeros(batch_size, self.embed.in_channels, self.pitch_frames - 1)
        source = like.new_zeros(batch_size, 2, dtype=torch.float64)
        return (codes, *contexts, source, tail)

    def step(self, inputs: torch.Tensor, buffers: Buffers) -> tuple[torch.Tensor, Buffers]:
        """(B, D, n) dequantised codes of the next n frames -> audio (B, n * samples_per_frame), and the buffers after them."""
        codes, *contexts, source, tail = buffers
        seen = torch.cat([codes, inputs], dim=-1)
        frequency = self.frequency(seen)
        advance = self.hop / self.sample_rate * frequency
        phase = source[:, :1] + advance.cumsum(1) - advance / 2
        columns = source[:, 1:] + torch.arange(frequency.shape[1], device=inputs.device)
        x, after = self._columns(inputs, contexts)
        audio, tail = self._overlap_add(self._sound(x, frequency, phase, columns.long()), tail)
        source = torch.stack([(source[:, 0] + advance.sum(1)) % 1.0, (columns[:, -1] + 1) % _NOISE_COLUMNS], dim=1)
        return audio, (seen[..., inputs.shape[-1] :], *after, source, tail)

    def follow(self, inputs: torch.Tensor, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For training: decodes with the pulses of a recording.

        Args:
            inputs: dequantised codes (B, D, T).
            audio: the recording (B, T * samples_per_frame).

        Returns:
            Decoded audio, as `audio`; and how far the pitch that the codes say is from the recording's, in octaves: the mean of
            |log2 f - log2 f'| over voiced columns, a scalar.
        """
        codes, *contexts, _, tail = self.initial_buffers(len(inputs))
        said = self.frequency(torch.cat([codes, inputs], dim=-1))
        with torch.no_grad():
            heard, voiced = pitch_track(audio, self.sample_rate, self.hop, self.window_size)
            frequency = torch.where(voiced, heard, said)
            phase = fundamental_phase(audio, frequency, self.sample_rate, self.hop, self.window_size)
            start = torch.randint(_NOISE_COLUMNS, (len(inputs), 1), device=inputs.device)
            columns = start + torch.arange(frequency.shape[1], device=inputs.device)
        error = ((said.log2() - heard.log2()).abs() * voiced).sum() / voiced.sum().clamp(min=1)
        x, _ = self._columns(inputs, contexts)
        decoded, _ = self._overlap_add(self._sound(x, frequency, phase, columns), tail)
        return decoded, error.float()

    @torch.no_grad()
    def sharpen(self, share: float) -> None:
        """Draws peaks and valleys of the spectra further apart, in place and for good.

        What is learnt by distances is a mean of what could have been said: formants come out blurred, speech sounds dull. As in
        the postfilters of vocoders (Koishida et al., CELP coding based on mel-cepstral analysis, ICASSP 1995), the details d of
        a logarithmic spectrum, which are what differs from its smooth shape, become (1 + share) d. That maps bins to bins
        linearly, so the last layer does it, and it takes no time. It makes noise louder on the whole, which therefore falls by
        `share` nepers.
        """
        bins = self.window_size // 2 + 1
        places = torch.arange(bins, device=self.head.weight.device) * self.sample_rate / self.window_size
        near = torch.exp(-0.5 * ((places[:, None] - places) / _SMOOTH) ** 2)
        details = torch.eye(bins, device=near.device) - near / near.sum(1, keepdim=True)
        for part in (slice(0, bins), slice(2 * bins, 3 * bins)):
            for tensor in (self.head.weight, self.head.bias):
                tensor[part] += share * (details @ tensor[part])
        self.head.bias[2 * bins :] -= share

    def frequency(self, seen: torch.Tensor) -> torch.Tensor:
        """Codes (B, D, pitch_frames - 1 + n) -> Hz of each column (B, J), float64."""
        windows = seen.unfold(2, self.pitch_frames, 1)  # (B, D, n, pitch_frames)
        x = windows.transpose(1, 2).flatten(2).double()
        with torch.autocast(seen.device.type, enabled=False):
            for layer in (*self.pitch, self.pitch_head):
                linear = isinstance(layer, nn.Linear)
                x = nn.functional.linear(x, layer.weight.double(), layer.bias.double()) if linear else layer(x)
        middle = 0.5 * (math.log2(LOWEST) + math.log2(HIGHEST))
        return torch.exp2((x.flatten(1) + middle).clamp(math.log2(LOWEST), math.log2(HIGHEST)))

    def _sound(self, x: torch.Tensor, frequency: torch.Tensor, phase: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Features (B, J, C), Hz, cycles, columns of noise (B, J) -> a windowed piece of audio each, (B, J, window_size)."""
        level, turn, noise_level = self.head(x).float().chunk(3, dim=-1)
        offsets = torch.arange(self.window_size, device=x.device, dtype=torch.float32) - self.window_size // 2
        cycles = (phase % 1.0).float()[..., None] + (frequency / self.sample_rate).float()[..., None] * offsets
        harmonics = (self.sample_rate / 2 / frequency).floor().float()[..., None]
        source = torch.fft.rfft(pulses(cycles, harmonics) * self.source_window)
        real, imaginary = self.noise[columns % _NOISE_COLUMNS].float().unbind(2)
        noise = torch.complex(real, imaginary) * noise_level.clamp(max=LOG_MAGNITUDE_LIMIT).exp()
        return (
            torch.fft.irfft(source * spectrum(level, turn) + noise, n=self.window_size) * self.window * (self.window_size / 2)
        )


def pulses(cycles: torch.Tensor, harmonics: torch.Tensor) -> torch.Tensor:
    """cos(2 pi t) + cos(4 pi t) + ... + cos(2 pi n t), t = `cycles`, n = `harmonics`: in closed form, by Dirichlet's kernel."""
    half = torch.pi * (cycles - cycles.round())
    below = half.sin()
    near = below.abs() < 1e-4
    kernel = torch.where(near, 2 * harmonics + 1, ((2 * harmonics + 1) * half).sin() / torch.where(near, 1.0, below))
    return 0.5 * kernel - 0.5
