"""A stream is the whole, in any parts, next to any neighbours."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.inputs import InputError
from tests.codec.codecs import MODULES, nanocodec_config
from tests.dummies import CODEC

FRAMES = 11


@pytest.fixture(scope="module", params=["small", "nanocodec", "nanocodec folded"])
def stream(request):
    """A codec whose output is loud everywhere, its decoder, and codes (2, K, FRAMES)."""
    torch.manual_seed(3)
    codec = FSQCodec(CODEC if request.param == "small" else nanocodec_config())
    for name, parameter in codec.model.audio_decoder.named_parameters():
        if name.endswith("bias"):  # zero when built, and then padding with zeros would hide a wrong start
            torch.nn.init.normal_(parameter, std=0.1)
    codes = torch.randint(0, codec.codebook_size, (2, codec.num_codebooks, FRAMES))
    return codec, codec.streaming_decoder(fold=request.param == "nanocodec folded"), codes


def run(decoder, codes, state, size=1):
    pieces = []
    for part in codes.split(size, dim=-1):
        audio, state = decoder.step(part, state)
        assert audio.shape[1] == part.shape[-1] * 1764
        pieces.append(audio)
    return torch.cat(pieces, dim=1), state


@pytest.mark.parametrize("size", [1, 4, FRAMES])
def test_streamed_equals_whole(stream, size):
    codec, decoder, codes = stream
    with torch.no_grad():
        whole, _ = codec.model.decode(tokens=codes, tokens_len=torch.full((2,), FRAMES))
    assert whole.abs().mean() > 1e-3
    audio, _ = run(decoder, codes, decoder.init_state(2), size)
    torch.testing.assert_close(audio, whole, atol=1e-5, rtol=0)


def test_a_snapshot_goes_on_as_the_original(stream):
    _, decoder, codes = stream
    _, state = run(decoder, codes[..., :5], decoder.init_state(2))
    snapshot = dataclasses.replace(state)
    audio, later = run(decoder, codes[..., 5:], state)
    later.reset(torch.tensor([True, True]))
    again, _ = run(decoder, codes[..., 5:], snapshot)
    assert torch.equal(audio, again)


def test_a_reset_row_begins_anew_and_the_others_do_not_notice(stream):
    _, decoder, codes = stream
    _, state = run(decoder, codes[..., :5], decoder.init_state(2))
    untouched, _ = run(decoder, codes[..., 5:], dataclasses.replace(state))
    state.reset(torch.tensor([False, True]))
    audio, _ = run(decoder, codes[..., 5:], state)
    fresh, _ = run(decoder, codes[1:, :, 5:], decoder.init_state(1))
    assert torch.equal(audio[0], untouched[0])
    torch.testing.assert_close(audio[1], fresh[0], atol=1e-6, rtol=0)
    assert not torch.allclose(audio[1], untouched[1], atol=1e-4)


def test_streams_of_different_age_share_a_batch(stream):
    """Row 1 joins when row 0 is 2 frames old, and again when it is 6."""
    codec, decoder, codes = stream
    state, rows = decoder.init_state(2), [[], []]
    for frame in range(FRAMES):
        if frame in (2, 6):
            state.reset(torch.tensor([False, True]))
            rows[1].clear()
        audio, state = decoder.step(codes[..., frame : frame + 1], state)
        for row in (0, 1):
            rows[row].append(audio[row])
    first, _ = codec.decode(codes[:1], torch.tensor([FRAMES]))
    second, _ = codec.decode(codes[1:, :, 6:], torch.tensor([FRAMES - 6]))
    torch.testing.assert_close(torch.cat(rows[0]), first[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat(rows[1]), second[0], atol=1e-5, rtol=0)


def test_state_stepped_in_inference_mode_can_be_reset_outside(stream):
    _, decoder, codes = stream
    with torch.inference_mode():
        _, state = decoder.step(codes[..., :1], decoder.init_state(2))
    state.reset(torch.tensor([True, False]))
    assert all(buffer[0].abs().max() == 0 for buffer in state.buffers)


def test_a_decoder_that_looks_ahead_is_refused_but_decodes():
    config = nanocodec_config()
    config["audio_decoder"] = {
        "_target_": f"{MODULES}.HiFiGANDecoder",
        "input_dim": 16,
        "up_sample_rates": [7, 7, 6, 3, 2],
        "base_channels": 64,
        "resblock_kernel_sizes": [3],
        "activation": "half_snake",
    }
    codec = FSQCodec(config)
    with pytest.raises(InputError, match="HiFiGANDecoder is not causal"):
        codec.streaming_decoder()
    codes = torch.randint(0, 4032, (2, 4, 5))
    audio, _ = codec.decode(codes, torch.tensor([5, 3]))
    with torch.no_grad():
        whole, _ = codec.model.decode(tokens=codes, tokens_len=torch.tensor([5, 3]))
    torch.testing.assert_close(audio, whole, atol=1e-6, rtol=0)
