"""DNSMOS as its own package computes it where that is right; windows that leave nothing out; files that are others."""

import importlib.util
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nemo_duplex.evaluation.speech.dnsmos import _MODEL, _PERSONALISED, DNSMOS, _windows
from nemo_duplex.inputs import InputError
from tests.evaluation.speech.sounds import tone

installed = pytest.mark.skipif(importlib.util.find_spec("speechmos") is None, reason="speechmos is not installed")
WINDOW = 144160
#: What `speechmos.dnsmos.run` of 0.0.1.1 gives for the sound of the test below.
BY_SPEECHMOS = {"sig": 1.1922, "bak": 1.1070, "ovrl": 1.1280}


def test_windows_reach_from_the_start_to_the_end():
    for samples in (WINDOW, WINDOW + 1, 2 * WINDOW, 320000):
        sound = np.arange(samples)
        windows = _windows(sound)
        starts = [int(w[0]) for w in windows]
        assert all(len(w) == WINDOW for w in windows) and starts[0] == 0 and windows[-1][-1] == samples - 1
        assert max(np.diff(starts), default=0) <= 72000 and len(starts) == 1 + -(-(samples - WINDOW) // 72000)


def test_a_short_sound_is_repeated():
    [window] = _windows(np.arange(50000))
    assert np.array_equal(window, np.arange(WINDOW) % 50000)


@installed
def test_one_window_is_rated_as_by_speechmos():
    rng = np.random.default_rng(0)
    sound = (0.1 * rng.standard_normal(WINDOW) * np.abs(np.sin(np.arange(WINDOW) / 3000))).astype(np.float32)
    answer = DNSMOS().answer(sound, 16000)
    assert answer["score"] == answer["ovrl"]
    assert {name: round(answer[name], 4) for name in ("sig", "bak", "ovrl")} == BY_SPEECHMOS
    twice = DNSMOS().answer(np.concatenate([sound, sound]), 16000)
    assert abs(twice["ovrl"] - answer["ovrl"]) < 0.1


@installed
def test_the_published_file_is_known_by_its_content(tmp_path):
    copied = shutil.copy(_MODEL.path("speechmos/dnsmos_models/sig_bak_ovr.onnx"), tmp_path / "mine.onnx")
    given, found = DNSMOS(copied), DNSMOS()
    assert given.scorer == found.scorer and given.scorer.version == "P.835" and not given.scorer.comparable
    personalised = _MODEL.path("speechmos/dnsmos_models/sig_bak_ovr.onnx").parents[1] / "pdnsmos_models" / "sig_bak_ovr.onnx"
    with pytest.raises(InputError, match="is the network for personalised noise suppression, which is on another scale"):
        DNSMOS(personalised)
    assert len(_PERSONALISED) == 64


def network(path, samples, numbers):
    """An ONNX network that says 0.5 whatever it hears."""
    given = helper.make_tensor_value_info("wav", TensorProto.FLOAT, ["N", samples])
    told = helper.make_tensor_value_info("said", TensorProto.FLOAT, ["N", numbers])
    half = helper.make_tensor("half", TensorProto.FLOAT, [1, numbers], [0.5] * numbers)
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["wav"], ["mean"], keepdims=1), helper.make_node("Mul", ["mean", "zero"], ["none"]),
         helper.make_node("Add", ["none", "half"], ["said"])],
        "stub", [given], [told], [half, helper.make_tensor("zero", TensorProto.FLOAT, [1, 1], [0.0])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_another_network_of_the_right_shape_is_named_as_such(tmp_path):
    dnsmos = DNSMOS(network(tmp_path / "other.onnx", WINDOW, 3))
    assert dnsmos.scorer.version == "P.835, not the published file"
    answer = dnsmos.answer(tone(3.0), 16000)
    assert answer["sig"] == pytest.approx(-0.08397278 / 4 + 1.22083953 / 2 + 0.0052439)
    assert answer["bak"] == pytest.approx(-0.13166888 / 4 + 1.60915514 / 2 - 0.39604546)
    assert answer["score"] == answer["ovrl"] == pytest.approx(-0.06766283 / 4 + 1.11546468 / 2 + 0.04602535)


def test_what_is_no_network_of_dnsmos_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"dnsmos: .*other.onnx takes .* and gives .*, expected \(N, 144160\) and \(N, 3\)"):
        DNSMOS(network(tmp_path / "other.onnx", 16000, 3))
    with pytest.raises(InputError, match=r"dnsmos: .*other.onnx takes .* and gives .*, expected"):
        DNSMOS(network(tmp_path / "other.onnx", WINDOW, 1))
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(InputError, match="dnsmos: .*text.onnx cannot be read as ONNX"):
        DNSMOS(tmp_path / "text.onnx")
    with pytest.raises(InputError, match="dnsmos: there is no file"):
        DNSMOS(tmp_path / "none.onnx")
