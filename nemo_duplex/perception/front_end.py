"""From samples to encoder frames: NeMo's log-mel spectrogram and strided convolutions, of a recording or a stretch of a stream.

**Log-mel.** Frame m depends on `window` samples around sample m * hop. The caller passes the samples that the first frame looks
back on; the arithmetic is that of NeMo, with its window and filters. So the result does not depend on how a stream is cut.

    samples     |<- history ->|<------------- hop * M ------------->|
                 1 + window - hop                                   ^ the last sample of the last frame's window

**Subsampling.** A convolution looks back, so a window starts some frames before those that it computes. Before a stream's first
frame there is nothing, which is not the same as silence: over a recording, every convolution pads its own input with zeros, but
zeros in the mel frames would come out of the first layer as relu(bias). So in a window, each layer's frames before the start
are set to zero. Each row of a batch has its own start; shapes do not depend on it.

    mel       -16 ... -9 -8 ... -1 | 0 1 2 ... 15         a window for encoder frames 0 and 1 of a new stream [70,1]:
    layer 1       -8 ... -1        | 0 1 2 ... 7          everything left of | is zero
    layer 2         -4 ... -1      | 0 1 2 3
    layer 3           -2 -1        | 0 1                  -2 and -1 are dropped
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nemo_duplex.inputs import InputError

#: Arguments of NeMo's preprocessor that rule out a stream, unless they have one of these values. `streamable` writes the first
#: one into a configuration that leaves the argument out.
_STREAMABLE: dict[str, tuple[Any, ...]] = {
    "normalize": ("NA", None),  # statistics of the whole file are not known while it is spoken
    "dither": (0.0,),  # noise would make two runs differ
    "pad_to": (0,),
    "frame_splicing": (1,),
    "exact_pad": (False,),
    "log": (True,),
}


def streamable(preprocessor: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a NeMo preprocessor without dither and padding, which only training uses.

    Raises:
        InputError: if its features depend on the whole recording, such as `normalize: per_feature`.
    """
    config = {key: value for key, value in preprocessor.items() if key != "_target_"} | {"dither": 0.0, "pad_to": 0}
    for key, allowed in _STREAMABLE.items():
        if (value := config.setdefault(key, allowed[0])) not in allowed:
            raise InputError(
                f"preprocessor.{key} is {value!r}, but a stream needs {allowed[0]!r}: "
                "take a checkpoint that was trained for cache-aware streaming."
            )
    return config


def history(featurizer: nn.Module) -> int:
    """Samples before its own hop that the first mel frame of a stretch depends on, and one more for the pre-emphasis."""
    return 1 + featurizer.win_length - featurizer.hop_length


def log_mel(featurizer: nn.Module, samples: Tensor) -> Tensor:
    """Log-mel frames of a stretch of audio.

    Args:
        featurizer: NeMo's `FilterbankFeatures`.
        samples: (B, history + hop * M) float.

    Returns:
        (B, mels, M) float32.
    """
    beyond_window = (featurizer.n_fft - featurizer.win_length) // 2  # torch.stft wants n_fft samples and weighs these with 0
    with torch.no_grad(), torch.autocast(samples.device.type, enabled=False):
        samples = samples.float()
        emphasised = samples[:, 1:] - (featurizer.preemph or 0.0) * samples[:, :-1]
        spectrum = torch.stft(
            F.pad(emphasised, (beyond_window, featurizer.n_fft - featurizer.win_length - beyond_window)),
            n_fft=featurizer.n_fft,
            hop_length=featurizer.hop_length,
            win_length=featurizer.win_length,
            window=featurizer.window.float(),
            center=False,
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        if featurizer.mag_power != 2:
            power = power.pow(featurizer.mag_power / 2)
        mel = featurizer.fb.float() @ power
        guard = featurizer.log_zero_guard_value_fn(mel)
        return torch.log(mel + guard if featurizer.log_zero_guard_type == "add" else mel.clamp(min=guard))


def silence_level(featurizer: nn.Module) -> float:
    """The log-mel of zeros."""
    return math.log(featurizer.log_zero_guard_value_fn(torch.zeros(1)))


#: Encoder frames at the start of a window that lack a part of their past and are dropped.
WARM_UP = 2

# A depthwise convolution followed by a pointwise one is a dense one with the product of their weights. Of few channels, the
# dense one is much faster on a CPU (bfloat16, forward and backward, 32 channels: 44 ms instead of 185 ms for 12 x 12.8 s).
FOLDED_CHANNELS = 64


def window_history(factor: int) -> int:
    """Mel frames that a window needs before the `factor` ones of its first encoder frame."""
    return factor + 1


#: Convolutions (B, C, T, F) -> (B, C', T / 2, F') between two activations.
Stage = Callable[[Tensor], Tensor]


def subsample(
    pre_encode: nn.Module, mel: Tensor, age: Tensor | None = None, convolutions: Sequence[Stage] | None = None
) -> Tensor:
    """Encoder frames of a whole file, or of the next window of a stream.

    Args:
        pre_encode: NeMo's `ConvSubsampling`, causal, of factor f.
        mel: (B, mels, f * (T - 1) + 1) from the start of a file on, or (B, mels, f + 1 + f * T), a window of a stream.
        age: (B,) encoder frames of each row's stream before this window; None for a whole file.
        convolutions: the `stages`, computed once by a caller whose weights do not change.

    Returns:
        (B, T, D).
    """
    # Of whole files, convolutions are fastest with the channels last; of the few frames of a step, with the channels first.
    layout = torch.channels_last if age is None else torch.contiguous_format
    x = mel.transpose(1, 2).unsqueeze(1).contiguous(memory_format=layout)
    before_start = None if age is None else (WARM_UP - age) * pre_encode.subsampling_factor  # in frames of the layer
    if before_start is not None and _looks_at_data(x) and bool((before_start <= 0).all()):
        before_start = None  # no row has frames before its start, so there is nothing to set to zero
    x = _zero_before(x, before_start)
    for stage in convolutions or stages(pre_encode, x.device, layout):
        x = F.relu(stage(x), inplace=True)
        before_start = None if before_start is None else before_start // 2
        x = _zero_before(x, before_start)
    x = pre_encode.out(x.transpose(1, 2).flatten(2))
    return x if age is None else x[:, WARM_UP:]


def stages(pre_encode: nn.Module, device: torch.device, layout: torch.memory_format = torch.contiguous_format) -> list[Stage]:
    """The convolutions, split at their activations; each stage halves time. Folded where that is faster on `device`.

    Args:
        layout: of the inputs; folded weights get the same one, as anything else is twice as slow.
    """
    layers: list[list[nn.Conv2d]] = [[]]
    for layer in pre_encode.conv:
        if isinstance(layer, nn.Conv2d):
            layers[-1].append(layer)
        else:
            layers.append([])
    return [_stage(*stage, device=device, layout=layout) for stage in layers if stage]


def _stage(first: nn.Conv2d, *further: nn.Conv2d, device: torch.device, layout: torch.memory_format) -> Stage:
    foldable = further and first.groups == first.in_channels <= FOLDED_CHANNELS
    if device.type == "cpu" and further and not foldable and torch.is_autocast_enabled("cpu"):
        return _InFloat32(first, *further)
    if not foldable or device.type != "cpu":
        return nn.Sequential(first, *further)
    (pointwise,) = further
    weight = pointwise.weight * first.weight.transpose(0, 1)
    weight = weight.contiguous(memory_format=layout)
    bias = pointwise.bias + pointwise.weight[:, :, 0, 0] @ first.bias
    left, right = first._left_padding, first._right_padding
    if right > left:
        return lambda x: F.conv2d(F.pad(x, (left, right, left, right)), weight, bias, first.stride)

    def convolve(x: Tensor) -> Tensor:
        sizes = [(size + left + right - weight.shape[3]) // first.stride[0] + 1 for size in x.shape[2:]]
        # Padded by as much on both sides, which needs no copy; what that makes too many is cut off.
        return F.conv2d(x, weight, bias, first.stride, left)[:, :, : sizes[0], : sizes[1]]

    return convolve


def _looks_at_data(x: Tensor) -> bool:
    """Whether what is computed may depend on values: on a CPU, unless torch compiles."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


class _InFloat32(nn.Sequential):
    """Layers of which the first, over each channel alone, is computed in the type of its weights, also under autocast.

    Its backward pass in bfloat16 takes four times as long on a CPU (oneDNN, torch 2.13; 256 channels, 80 s: 1.6 s, not 0.4).
    """

    def forward(self, x: Tensor) -> Tensor:
        first, *further = self
        with torch.autocast(x.device.type, enabled=False):
            x = first(x.to(first.weight.dtype))
        for layer in further:
            x = layer(x)
        return x


def _zero_before(x: Tensor, start: Tensor | None) -> Tensor:
    """x (B, C, T, F) with zeros in the frames before `start` (B,)."""
    if start is None:
        return x
    frames = torch.arange(x.shape[2], device=x.device)
    return x.masked_fill((frames < start[:, None])[:, None, :, None], 0.0)
