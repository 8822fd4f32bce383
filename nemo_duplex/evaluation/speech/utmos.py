"""UTMOS, what the paper rates speech with: UTMOS22-strong (Saeki et al., arXiv:2204.02152), from a file that the user has.

Its weights are no package and nothing is downloaded here. People have three kinds of files:

    utmos22_strong_step7459_v1.pt    the weights that SpeechMOS publishes (a state dict); the network is built here
    any .pt of torch.jit.save        TorchScript: (1, S) float32 at 16 kHz, and the sample rate if it wants one, to one number
    any .onnx                        (1, S) float32 at 16 kHz to one number

UTMOS was trained on single utterances, and its attention needs memory with the square of their length. So a longer sound is
judged in equal pieces of at most 20 s, and the mean is taken. The paper does not say how it cut its speech.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.speech.network_file import Network, is_torchscript, open_network
from nemo_duplex.evaluation.speech.sound_scorer import RATE, Answer, QualityScorer, Refused
from nemo_duplex.files.atomic import sha256
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, existing_file, one_line

_LONGEST: Seconds = 20.0
_WANTED = (
    "Give utmos22_strong_step7459_v1.pt of SpeechMOS (github.com/tarepan/SpeechMOS, release v1.0.0), or a TorchScript or ONNX "
    "file that takes (1, S) float32 at 16 kHz and gives one number."
)
# fairseq's names of the parts of wav2vec 2.0, as the file has them, and those of transformers.
_NAMES = {
    "mask_emb": "masked_spec_embed",
    "post_extract_proj.": "feature_projection.projection.",
    "layer_norm.": "feature_projection.layer_norm.",
    "encoder.pos_conv.0.weight_g": "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
    "encoder.pos_conv.0.weight_v": "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
    "encoder.pos_conv.0.": "encoder.pos_conv_embed.conv.",
}
_NAMES_OF_LAYERS = {
    ".self_attn.": ".attention.",
    ".self_attn_layer_norm.": ".layer_norm.",
    ".fc1.": ".feed_forward.intermediate_dense.",
    ".fc2.": ".feed_forward.output_dense.",
}


class UTMOS(QualityScorer):
    """The paper's scorer of quality (1 to 5), on the CPU.

    Args:
        path: of the weights, see this file's beginning.

    Raises:
        InputError: if the file is missing, of another kind, or not a network that gives one number for a sound.

    Examples:
        >>> UTMOS("utmos22_strong_step7459_v1.pt").score(agent_speech, 22050)         # doctest: +SKIP
        4.21
    """

    def __init__(self, path: str | Path) -> None:
        file = existing_file(path, "utmos")
        self._path = path
        scripted = file.suffix.lower() == ".onnx" or is_torchscript(file)
        about = f"UTMOS, mean opinion score, 1 to 5, by {file.name}"
        self.scorer = Scorer("utmos", "given as a network" if scripted else "22-strong", sha256(file), True, about)
        self._network = open_network(file, "utmos") if scripted else _of_weights(file)
        try:
            self._judge(0.01 * np.ones(2 * RATE, np.float32))
        except Refused as why:
            raise InputError(f"utmos: {file}: {why}. {_WANTED}") from None

    def __reduce__(self):
        return type(self), (self._path,)

    def _judge(self, sound: np.ndarray) -> Answer:
        pieces = np.array_split(sound, -(-len(sound) // round(_LONGEST * RATE)))
        found = [self._network(piece[None]) for piece in pieces]
        if any(score.size != 1 for score in found):
            raise Refused(f"its network gives {found[0].size} numbers for a sound, expected one")
        return {"score": float(np.mean([score.item() for score in found]))}


def _of_weights(path: Path) -> Network:
    """UTMOS22-strong: wav2vec 2.0 base, embeddings of a data domain and a judge, an LSTM in both directions, two layers."""
    import torch

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(f"utmos: {path} cannot be read as weights ({one_line(error)}). {_WANTED}") from None
    is_utmos = isinstance(weights, Mapping) and {"domain_emb", "judge_emb", "projection.0.weight"} <= set(weights)
    if not is_utmos:
        raise InputError(f"utmos: {path} does not hold the weights of UTMOS22-strong. {_WANTED}")
    try:
        encoder, lstm, projection = _parts(weights)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"utmos: {path} lacks weights of UTMOS22-strong ({one_line(error)}). {_WANTED}") from None
    constant = torch.cat([weights["domain_emb"], weights["judge_emb"]], dim=1)[:, None]

    def call(sound: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            heard = encoder(torch.from_numpy(np.ascontiguousarray(sound))).last_hidden_state
            frames, _ = lstm(torch.cat([heard, constant.expand(*heard.shape[:2], -1)], dim=2))
            return np.asarray(projection(frames).mean(dim=1).squeeze(1) * 2 + 3)

    return call


def _parts(weights: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """The networks, their sizes taken from the weights.

    Raises:
        KeyError, RuntimeError: if weights are missing or do not fit.
    """
    from torch import nn
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    own = {name: {k.removeprefix(f"{name}."): v for k, v in weights.items() if k.startswith(f"{name}.")} for name in
           ("wav2vec2", "blstm", "projection")}  # fmt: skip
    hidden, features = own["wav2vec2"]["post_extract_proj.weight"].shape
    config = Wav2Vec2Config(
        hidden_size=hidden,
        num_hidden_layers=len({k.split(".")[2] for k in own["wav2vec2"] if k.startswith("encoder.layers.")}),
        num_attention_heads=hidden // 64,
        intermediate_size=len(own["wav2vec2"]["encoder.layers.0.fc1.bias"]),
        conv_dim=(features,) * 7,
        apply_spec_augment=False,
    )
    encoder = Wav2Vec2Model(config).eval()
    encoder.load_state_dict({_todays_name(key): value for key, value in own["wav2vec2"].items()})
    wide, several = own["blstm"]["weight_ih_l0"].shape[1], own["blstm"]["weight_hh_l0"].shape[1]
    lstm = nn.LSTM(wide, several, batch_first=True, bidirectional=True)
    lstm.load_state_dict(own["blstm"])
    between = len(own["projection"]["0.bias"])
    projection = nn.Sequential(nn.Linear(2 * several, between), nn.ReLU(), nn.Linear(between, 1))
    projection.load_state_dict(own["projection"])
    return encoder, lstm, projection


def _todays_name(key: str) -> str:
    """fairseq's name of a weight as transformers'."""
    for old, new in _NAMES.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    if key.startswith("feature_extractor."):
        return (
            key.replace(".2.weight", ".layer_norm.weight")
            .replace(".2.bias", ".layer_norm.bias")
            .replace(".0.weight", ".conv.weight")
        )
    for old, new in _NAMES_OF_LAYERS.items():
        key = key.replace(old, new)
    return key
