"""UTMOS from each kind of file that people have; what is no UTMOS is one line."""

import pickle

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from nemo_duplex.evaluation.speech.utmos import UTMOS
from nemo_duplex.inputs import InputError
from tests.evaluation.speech.sounds import tone


class Loudness(nn.Module):
    """(1, S) at any rate to the mean of its absolute values, and the seconds that the rate makes of it."""

    def forward(self, wave: torch.Tensor, sr: int) -> torch.Tensor:
        return wave.abs().mean(1) + wave.shape[1] / sr


class PerFrame(nn.Module):
    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        return wave[:, :100]


def saved(module: nn.Module, path):
    torch.jit.script(module).save(str(path))
    return path


def test_torchscript_is_called_as_speechmos_calls_it(tmp_path):
    utmos = UTMOS(saved(Loudness(), tmp_path / "utmos.pt"))
    loudness = float(np.abs(tone(3.0)).mean())
    assert utmos.score(tone(3.0), 16000) == pytest.approx(3 + loudness, abs=1e-4)
    assert utmos.score(tone(45.0), 16000) == pytest.approx(15 + loudness, abs=1e-3), "Three pieces of 15 s, and their mean."
    assert utmos.score(np.zeros(48000, np.float32), 16000) is None
    scorer = utmos.scorer
    assert (scorer.name, scorer.version, scorer.comparable) == (
        "utmos",
        "given as a network",
        True,
    ) and "utmos.pt" in scorer.about
    assert pickle.loads(pickle.dumps(utmos)).score(tone(2.0), 16000) == utmos.score(tone(2.0), 16000)


def test_onnx_is_called_with_the_sound(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("ReduceMax", ["audio"], ["score"], keepdims=0)], "stub",
        [helper.make_tensor_value_info("audio", TensorProto.FLOAT, [1, "S"])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "utmos.onnx")
    assert UTMOS(tmp_path / "utmos.onnx").score(tone(2.0), 16000) == pytest.approx(0.3, abs=1e-3)


def weights(hidden: int = 64, layers: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights of a small UTMOS22-strong, under the names and in the shapes of SpeechMOS 1.2.0."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"domain_emb": (1, 16), "judge_emb": (1, 16), "wav2vec2.mask_emb": (hidden,)}
    kernels = [10, 3, 3, 3, 3, 2, 2]
    for i, kernel in enumerate(kernels):
        shapes[f"wav2vec2.feature_extractor.conv_layers.{i}.0.weight"] = (32, 1 if i == 0 else 32, kernel)
    shapes |= {f"wav2vec2.feature_extractor.conv_layers.0.2.{name}": (32,) for name in ("weight", "bias")}
    shapes |= {f"wav2vec2.layer_norm.{name}": (32,) for name in ("weight", "bias")}
    shapes |= {"wav2vec2.post_extract_proj.weight": (hidden, 32), "wav2vec2.post_extract_proj.bias": (hidden,)}
    shapes |= {"wav2vec2.encoder.pos_conv.0.bias": (hidden,), "wav2vec2.encoder.pos_conv.0.weight_g": (1, 1, 128)}
    shapes["wav2vec2.encoder.pos_conv.0.weight_v"] = (hidden, hidden // 16, 128)
    shapes |= {f"wav2vec2.encoder.layer_norm.{name}": (hidden,) for name in ("weight", "bias")}
    for i in range(layers):
        layer = f"wav2vec2.encoder.layers.{i}."
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{layer}self_attn.{part}.weight": (hidden, hidden), f"{layer}self_attn.{part}.bias": (hidden,)}
        shapes |= {f"{layer}fc1.weight": (96, hidden), f"{layer}fc1.bias": (96,)}
        shapes |= {f"{layer}fc2.weight": (hidden, 96), f"{layer}fc2.bias": (hidden,)}
        for part in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= {f"{layer}{part}.{name}": (hidden,) for name in ("weight", "bias")}
    for way in ("", "_reverse"):
        shapes |= {f"blstm.weight_ih_l0{way}": (4 * 24, hidden + 32), f"blstm.weight_hh_l0{way}": (4 * 24, 24)}
        shapes |= {f"blstm.bias_{of}_l0{way}": (4 * 24,) for of in ("ih", "hh")}
    shapes |= {"projection.0.weight": (40, 48), "projection.0.bias": (40,)}
    shapes |= {"projection.2.weight": (1, 40), "projection.2.bias": (1,)}
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_weights_of_speechmos_give_its_score(tmp_path):
    torch.save(weights(), tmp_path / "utmos22_strong.pt")
    utmos = UTMOS(tmp_path / "utmos22_strong.pt")
    assert (utmos.scorer.version, utmos.scorer.comparable) == ("22-strong", True)
    # by the network of SpeechMOS 1.2.0, its sizes made as small; 19 frames (odd: it pads to even numbers) and 20
    rng = np.random.default_rng(0)
    for samples, expected in {6250: 1.8075, 6570: 1.8488}.items():
        sound = (0.1 * rng.standard_normal(samples)).astype(np.float32)
        assert utmos._judge(sound)["score"] == pytest.approx(expected, abs=1e-4)


def test_what_is_no_utmos_is_one_line(tmp_path):
    with pytest.raises(
        InputError, match="utmos: .*: its network gives 100 numbers for a sound, expected one. Give utmos22_strong"
    ):
        UTMOS(saved(PerFrame(), tmp_path / "frames.pt"))
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="utmos: .*other.pt does not hold the weights of UTMOS22-strong. Give utmos22_strong"):
        UTMOS(tmp_path / "other.pt")
    lacking = weights()
    del lacking["wav2vec2.encoder.layers.1.fc2.bias"]
    torch.save(lacking, tmp_path / "lacking.pt")
    with pytest.raises(InputError, match="lacking.pt lacks weights of UTMOS22-strong .*layers.1.feed_forward"):
        UTMOS(tmp_path / "lacking.pt")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(InputError, match="utmos: .*text.pt cannot be read as weights"):
        UTMOS(tmp_path / "text.pt")
    with pytest.raises(InputError, match="utmos: there is no file"):
        UTMOS(tmp_path / "none.pt")
