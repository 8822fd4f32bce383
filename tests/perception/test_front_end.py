"""Log-mels of a stretch: the numbers of NeMo's preprocessor, however a stream is cut."""

import pytest
import torch
from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor
from nemo.collections.asr.parts.submodules.subsampling import ConvSubsampling

from nemo_duplex.perception.front_end import history, log_mel, subsample
from tests.dummies import speech_like

COMMON = {"window_size": 0.025, "features": 20, "n_fft": 512, "normalize": "NA", "dither": 0.0, "pad_to": 0}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"preemph": None},
        {"mag_power": 1.0},
        {"window_size": 0.02, "n_fft": 400},
        {"log_zero_guard_type": "clamp", "log_zero_guard_value": 1e-3},
    ],
    ids=str,
)
def test_it_computes_what_nemo_computes(settings):
    preprocessor = AudioToMelSpectrogramPreprocessor(**COMMON | settings).eval()
    featurizer, audio = preprocessor.featurizer, torch.stack([speech_like(1.0), speech_like(1.0, seed=1)])
    expected, _ = preprocessor(input_signal=audio, length=torch.tensor([16000, 16000]))
    half = featurizer.win_length // 2
    found = log_mel(featurizer, torch.nn.functional.pad(audio, (1 + half, half)))
    assert found.shape == (2, 20, 101) and found.dtype == torch.float32
    torch.testing.assert_close(found[:, :, :100], expected[:, :, :100], atol=2e-4, rtol=0)  # NeMo drops the last one


def test_it_is_the_same_to_the_bit_however_a_stream_is_cut():
    featurizer, audio = AudioToMelSpectrogramPreprocessor(**COMMON).featurizer, speech_like(1.0)[None]
    before, hop = history(featurizer), 160
    assert before == 1 + 400 - 160
    whole = log_mel(featurizer, audio[:, : before + 80 * hop])
    cut = [log_mel(featurizer, audio[:, hop * first : before + hop * (first + 16)]) for first in range(0, 80, 16)]
    assert torch.equal(torch.cat(cut, dim=2), whole)


def test_convolutions_over_each_channel_alone_stay_in_float32_under_autocast():
    """Their backward pass in bfloat16 takes four times as long on a CPU."""
    torch.manual_seed(0)
    given = {"feat_in": 16, "feat_out": 8, "conv_channels": 80, "is_causal": True}
    pre_encode = ConvSubsampling("dw_striding", 8, subsampling_conv_chunking_factor=-1, **given)
    seen = []
    for layer in pre_encode.conv:
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda layer, _, out: seen.append((layer.groups > 1, out.dtype)))
    mel = torch.randn(2, 16, 8 * 5 + 1)
    exact = subsample(pre_encode, mel)
    assert exact.shape == (2, 6, 8)
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        near = subsample(pre_encode, mel)
    assert {alone: dtype for alone, dtype in seen} == {True: torch.float32, False: torch.bfloat16}
    torch.testing.assert_close(near.float(), exact, atol=0.05 * exact.abs().max().item(), rtol=0)
