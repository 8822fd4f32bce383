"""NeMo's log-mel spectrogram for any stretch of a stream, bit for bit the same however the stream is cut.

A mel frame lies around its centre: frame m depends on `window` samples around sample m * hop. NeMo computes whole files. Here
the caller passes the samples that the first frame looks back on; the arithmetic, with NeMo's window and filters, is the same.

    samples     |<- history ->|<------------- hop * M ------------->|
                 1 + window - hop                                   ^ the last sample of the last frame's window
"""

from __future__ import annotations

from collections.abc import Mapping
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
