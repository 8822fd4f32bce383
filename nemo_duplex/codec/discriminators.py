"""Networks that learn to tell decoded speech from recorded speech, narrow enough to train on a CPU.

NeMo's classes of the same kinds have fixed widths: 41 million weights in its multi-period discriminator alone. One of these
takes a tenth of a second for 8 crops of 0.96 s on one core, forth and back.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from nemo_duplex.codec.mel import FLOOR, spectra

# Parts of the spectrum, as shares of half the sample rate, each with a network of its own (DAC).
_BANDS = ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 1.0))
_SLOPE = 0.1

#: Scores (B, 1, N), 1 for recorded and 0 for decoded speech, and the output of every layer.
Judgement = tuple[torch.Tensor, list[torch.Tensor]]


class StftDiscriminator(nn.Module):
    """Judges the complex spectrum at one resolution, in bands (DAC, arXiv:2306.06546; UnivNet, arXiv:2106.07889).

    Magnitudes are compressed by a square root, so that quiet harmonics count; phases are kept.

    Args:
        window_size: samples of a window; the hop is a quarter of it.
        channels: width of the first layer; the others have twice as many.

    Examples:
        >>> scores, features = StftDiscriminator(256, 4)(torch.zeros(2, 4096))
        >>> scores.shape[:2], len(features)
        (torch.Size([2, 1]), 20)
    """

    def __init__(self, window_size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(window_size), persistent=False)
        wide = 2 * channels
        self.bands = nn.ModuleList(
            nn.ModuleList(
                [
                    _convolution(2, channels, (3, 9), (1, 3)),
                    _convolution(channels, wide, (3, 9), (1, 3)),
                    _convolution(wide, wide, (3, 9), (1, 2)),
                    _convolution(wide, wide, (3, 3)),
                    _convolution(wide, 1, (3, 3)),
                ]
            )
            for _ in _BANDS
        )

    def forward(self, audio: torch.Tensor) -> Judgement:
        """(B, S) float32 -> a judgement; N counts the places in all bands."""
        spectrum = spectra(audio, self.window, len(self.window) // 4)
        spectrum = spectrum * (spectrum.real**2 + spectrum.imag**2 + FLOOR**2) ** -0.25
        x = torch.stack([spectrum.real, spectrum.imag], dim=1).transpose(2, 3)  # (B, 2, time, frequency)
        scores, features = [], []
        for (low, high), layers in zip(_BANDS, self.bands):
            outputs = _through(layers, x[..., int(low * x.shape[-1]) : int(high * x.shape[-1])])
            scores.append(outputs[-1].flatten(1))
            features += outputs
        return torch.cat(scores, dim=1)[:, None], features


class PeriodDiscriminator(nn.Module):
    """Judges every p-th sample (HiFi-GAN, arXiv:2010.05646): harmonics, and whether they are in step.

    Args:
        period: p, a prime number.
        channels: width of the first layer; each of the others has twice that of the one before, at most 8 times the first.

    Examples:
        >>> scores, features = PeriodDiscriminator(3, 4)(torch.zeros(2, 4096))
        >>> tuple(scores.shape), len(features)
        ((2, 1, 51), 6)
    """

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, channels, 2 * channels, 4 * channels, 8 * channels]
        strided = [_convolution(a, b, (5, 1), (3, 1)) for a, b in zip(widths, widths[1:])]
        self.layers = nn.ModuleList(
            [*strided, _convolution(widths[-1], widths[-1], (5, 1)), _convolution(widths[-1], 1, (3, 1))]
        )

    def forward(self, audio: torch.Tensor) -> Judgement:
        """(B, S) float32 -> a judgement."""
        whole = nn.functional.pad(audio, (0, -audio.shape[1] % self.period))
        outputs = _through(self.layers, whole.view(len(audio), 1, -1, self.period))
        return outputs[-1].flatten(1)[:, None], outputs


def _convolution(inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> nn.Conv2d:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return weight_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding))


def _through(layers: nn.ModuleList, x: torch.Tensor) -> list[torch.Tensor]:
    """The output of every layer; all but the last are activated. Channels last are twice as fast on a CPU."""
    x = x.contiguous(memory_format=torch.channels_last)
    outputs = []
    for layer in layers[:-1]:
        x = nn.functional.leaky_relu(_convolved(layer, x), _SLOPE)
        outputs.append(x)
    return [*outputs, _convolved(layers[-1], x)]


def _convolved(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """`layer(x)`, also of bands that are narrower than a stride.

    On CPUs with AMX, torch 2.13.0 computes NaN or any number where a strided convolution in bfloat16 leaves one column.
    Without a stride it is right.
    """
    down, across = layer.stride
    if (x.shape[3] - 1) // across > 0:  # two columns or more are left
        return layer(x)
    return nn.functional.conv2d(x, layer.weight, layer.bias, (down, 1), layer.padding)[..., ::across]
