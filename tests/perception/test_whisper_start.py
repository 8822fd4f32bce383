"""Whisper's weights out of CTranslate2's file, the fit of what stands for positions, and what Whisper teaches an ear."""

import math
import struct

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nemo_duplex.inputs import InputError
from nemo_duplex.perception.perception import FrameEncoder, built
from nemo_duplex.perception.whisper_encoder import MEL_BEFORE
from nemo_duplex.perception.whisper_model import encoder_features, open_whisper
from nemo_duplex.perception.whisper_start import PREPROCESSOR, WholeWhisper, fit_distances, positions, whisper_encoder
from tests.perception.test_whisper_encoder import tiny_encoder

TYPES = {np.dtype(np.float32): 0, np.dtype(np.int8): 1, np.dtype(np.float16): 4}


def ctranslate2(arrays, name="WhisperSpec"):
    """The bytes of a model.bin."""

    def text(value):
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    parts = [struct.pack("<I", 6), text(name), struct.pack("<II", 3, len(arrays))]
    for key, array in arrays.items():
        parts += [text(key), struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)]
        parts += [struct.pack("<BI", TYPES[array.dtype], array.nbytes), array.tobytes()]
    return b"".join(parts) + struct.pack("<I", 0)


def arrays_of(encoder, kind=np.float32):
    """What CTranslate2 calls the weights of an encoder."""
    state, found = {name: w.numpy().astype(kind) for name, w in encoder.state_dict().items()}, {}
    for conv in ("conv1", "conv2"):
        found |= {f"encoder/{conv}/{part}": state[f"pre_encode.{conv}.{part}"] for part in ("weight", "bias")}
    found |= {"encoder/layer_norm/gamma": state["norm_out.weight"], "encoder/layer_norm/beta": state["norm_out.bias"]}
    linear = {"linear_qkv": "self_attention/linear_0", "linear_out": "self_attention/linear_1"}
    linear |= {"linear1": "ffn/linear_0", "linear2": "ffn/linear_1"}
    norms = {"norm_self_att": "self_attention/layer_norm", "norm_feed_forward": "ffn/layer_norm"}
    for i in range(len(encoder.layers)):
        for ours, theirs in linear.items():
            found |= {f"encoder/layer_{i}/{theirs}/{part}": state[f"layers.{i}.{ours}.{part}"] for part in ("weight", "bias")}
        for ours, theirs in norms.items():
            found[f"encoder/layer_{i}/{theirs}/gamma"] = state[f"layers.{i}.{ours}.weight"]
            found[f"encoder/layer_{i}/{theirs}/beta"] = state[f"layers.{i}.{ours}.bias"]
    return {**found, "decoder/scale": np.zeros((), np.int8), "decoder/embeddings/weight": np.zeros((3, 2), np.int8)}


def folder_of(tmp_path, content):
    for name in ("tokenizer.json", "vocabulary.txt", "config.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model.bin").write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_weights_are_those_of_the_file(tmp_path, kind):
    encoder = tiny_encoder(d_model=64, n_heads=1, feat_in=20)
    found = whisper_encoder(folder_of(tmp_path, ctranslate2(arrays_of(encoder, kind))))
    assert found.arguments() | {"feat_out": 64} == encoder.arguments() | {"att_context_size": [70, 1]}
    for name, weight in found.state_dict().items():
        if name not in ("distance_bias", "pre_encode.position", "join.weight", "join.bias"):
            torch.testing.assert_close(weight, encoder.state_dict()[name].to(getattr(torch, kind.__name__)).float(), msg=name)


def damaged(kind):
    good = arrays_of(tiny_encoder(d_model=64, n_heads=1))
    if kind == "no weights":
        return ctranslate2({name: a for name, a in good.items() if "layer_1/ffn/linear_0" not in name})
    if kind == "8 bits":
        return ctranslate2({**good, "encoder/conv1/weight": np.zeros((64, 20, 3), np.int8)})
    if kind == "another model":
        return ctranslate2(good, "TransformerSpec")
    return {"half": ctranslate2(good)[:5000], "text": b"version https://git-lfs", "empty": b""}[kind]


@pytest.mark.parametrize("kind", ["no weights", "8 bits", "another model", "half", "text", "empty"])
def test_a_file_that_is_no_whisper_is_one_line(tmp_path, kind):
    with pytest.raises(InputError, match=f"{tmp_path}/model.bin (is not a model.bin of|holds no encoder of) Whisper") as error:
        whisper_encoder(folder_of(tmp_path, damaged(kind)))
    assert "\n" not in str(error.value)


def test_positions_are_whispers_sinusoids():
    """Radford et al.: sines, then cosines, of wavelengths from 2 pi to 20,000 pi."""
    found = positions(torch.tensor([0, 7]), 6)
    rates = torch.tensor([1.0, 0.01, 0.0001])
    torch.testing.assert_close(found[1], torch.cat([(7 * rates).sin(), (7 * rates).cos()]))
    assert found[0].tolist() == [0, 0, 0, 1, 1, 1]


@pytest.fixture(scope="module")
def spoken():
    """(S,) at 16 kHz."""
    import soxr

    from nemo_duplex.synthesis.tts.espeak import EspeakEngine
    from nemo_duplex.synthesis.tts.utterance import Voice

    said = EspeakEngine().speak("Thank you very much for your help, my dear friend.", Voice("agent", "en-us", rate=150))
    return soxr.resample(said.audio, said.sample_rate, 16000).astype(np.float32)


def log_mels(encoder, sound, after=1.0):
    from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor

    preprocessor = built(AudioToMelSpectrogramPreprocessor, {**PREPROCESSOR, "dither": 0.0, "pad_to": 0}, "preprocessor")
    sound = torch.from_numpy(np.pad(sound, (0, round(after * 16000))))[None]
    return FrameEncoder(preprocessor, encoder).mel(sound, torch.tensor([sound.shape[1]]))


def alike(found, expected):
    mean = expected.mean(0)
    return float(F.cosine_similarity(found - mean, expected - mean).mean())


def test_a_whole_recording_is_heard_as_whisper_hears_it(spoken):
    """Features are those of CTranslate2: feature j of ours is centred 80 ms before its feature j."""
    encoder = whisper_encoder()
    theirs = torch.from_numpy(encoder_features(open_whisper().model, spoken))
    whisper, mel = WholeWhisper(encoder), log_mels(encoder, spoken, after=3.0)
    # Ours begin four features earlier; without them, the first one is at Whisper's first position.
    found = whisper.features(mel[:, :, 8:], start=0)[0][: len(theirs)]
    assert alike(found, theirs) > 0.97
    assert alike(whisper.features(mel[:, :, 8:], start=400)[0][: len(theirs)], theirs) < 0.9  # positions matter
    assert alike(found[1:], theirs[:-1]) < 0.9


def test_the_fit_makes_an_ear_attend_as_whisper_does(spoken):
    ear, whisper = whisper_encoder(), WholeWhisper(whisper_encoder())
    mel = log_mels(ear, spoken)
    wanted = torch.stack([whisper.features(mel, start)[0] for start in (0, 100, 300, 500)]).mean(0)
    with torch.no_grad():
        before = alike(ear.features(ear.pre_encode(mel))[0], wanted)
        fit_distances(ear, whisper, [mel])
        after = alike(ear.features(ear.pre_encode(mel))[0], wanted)
    assert before < 0.2 and after > 0.35
    assert torch.equal(ear.distance_bias[:, :, 0] == 0, torch.zeros(4, 6, dtype=torch.bool))  # of the future in the chunk, too


def test_the_fit_is_the_mean_of_what_is_missing_at_each_distance():
    """Of the first layer, by loops: Whisper's scores at its positions, less the ear's, less their mean over a query's keys."""
    ear, whole = tiny_encoder(att_context_size=[4, 1]), tiny_encoder(att_context_size=[4, 1])
    ear.load_state_dict(whole.state_dict())
    mels = [torch.randn(1, 20, MEL_BEFORE + 8 * (frames - 1) + 1) for frames in (4, 8)]
    fit_distances(ear, WholeWhisper(whole), mels)
    layer, found, counts = ear.layers[0], torch.zeros(2, ear.distance_bias.shape[2]), torch.zeros(ear.distance_bias.shape[2])

    def scores(x):
        query, key, _ = layer.projected(x)
        return (query @ key.transpose(2, 3))[0] / math.sqrt(layer.heads[1])

    with torch.no_grad():
        for mel in mels:
            heard = ear.pre_encode(mel)
            count = heard.shape[1]
            theirs = [heard - ear.pre_encode.position + positions(torch.arange(count) + start, 16) for start in (0, 300)]
            missing = (scores(theirs[0]) + scores(theirs[1])) / 2 - scores(heard)
            for i in range(count):
                keys = range(max(0, i // 8 * 8 - 16), (i // 8 + 1) * 8)
                mean = missing[:, i, list(keys)].mean(1)
                for j in keys:
                    found[:, i - j + 7] += missing[:, i, j] - mean
                    counts[i - j + 7] += 1
    torch.testing.assert_close(ear.pre_encode.position, positions(torch.tensor([300]), 16)[0])
    torch.testing.assert_close(ear.distance_bias[0], found / counts.clamp(min=1), atol=1e-4, rtol=1e-4)


def test_the_loss_compares_what_is_before_the_end_of_each_row():
    encoder = tiny_encoder()
    whisper, mel = WholeWhisper(encoder), torch.randn(2, 20, MEL_BEFORE + 8 * 7 + 1)
    torch.manual_seed(1)
    start = int(torch.randint(0, 700, ()))
    wanted = whisper.features(mel, start)
    other = wanted + 1e3
    other[0, :32], other[1, :12] = wanted[0, :32], wanted[1, :12]
    torch.manual_seed(1)
    assert float(whisper.loss(other, mel, torch.tensor([8, 3]))) == 0.0
    torch.manual_seed(1)
    assert float(whisper.loss(other, mel, torch.tensor([8, 4]))) > 1
    torch.manual_seed(2)
    assert float(whisper.loss(wanted, mel, torch.tensor([8, 8]))) > 0  # another position
    heard = wanted.clone().requires_grad_()
    whisper.loss(heard, mel, torch.tensor([8, 8])).backward()
    assert heard.grad.abs().sum() > 0 and all(p.grad is None for p in encoder.parameters())
