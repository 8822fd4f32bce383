"""What a codec is given wrong is named in one line, or handled as its documentation says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.inputs import InputError
from tests.codec.codecs import lively, nanocodec_config, of_kind
from tests.dummies import CODEC, speech_like

FRAME = 1764


@pytest.fixture(scope="module", params=["small", "nanocodec"])
def codec(request) -> FSQCodec:
    return lively(CODEC if request.param == "small" else nanocodec_config())


def audio(rows=2, samples=3 * FRAME):
    return torch.stack([speech_like(samples / 22050, seed, 22050) for seed in range(rows)])


LENS = torch.tensor([3 * FRAME, FRAME])
NOT_AUDIO = {
    "one row alone": (audio()[0], LENS[:1], r"shape \(5292,\), expected mono \(B, S\)\. Give one row as audio\[None\]"),
    "stereo": (torch.zeros(2, 2, 900), LENS, r"shape \(2, 2, 900\), expected mono \(B, S\)\. Keep one channel, such as"),
    "stereo as rows": (audio(), LENS[:1], r"audio_len has the shape \(1,\), expected \(2,\): one length for each of 2 rows"),
    "integers": ((audio() * 32767).short(), LENS, r"audio is int16, expected floats of full scale 1.*audio / 32768"),
    "an array": (np.zeros((2, 900), np.float32), LENS, r"audio is a ndarray, expected a tensor \(B, S\)\. Give torch.as_t"),
    "lengths as a list": (audio(), [900, 900], r"audio_len is a list, expected a tensor \(B,\)"),
    "lengths as floats": (audio(), LENS.float(), "audio_len is float32, expected integers: samples of each row"),
    "a length beyond": (audio(), torch.tensor([9, 5293]), "audio_len says 5293 samples for row 1, expected 0 to 5292"),
    "a length below": (audio(), torch.tensor([-1, 9]), "audio_len says -1 samples for row 0, expected 0 to 5292"),
    "no axis of lengths": (audio(1), torch.tensor(9), r"audio_len has the shape \(\), expected \(1,\)"),
}


@pytest.mark.parametrize("what", NOT_AUDIO)
def test_what_is_no_audio_to_encode(codec, what):
    samples, lens, words = NOT_AUDIO[what]
    with pytest.raises(InputError, match=words) as error:
        codec.encode(samples, lens)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value, words", [(float("nan"), "nan .NaN"), (float("-inf"), "-inf .NaN"), (4.5, "4.5 .*full scale 1")]
)
def test_a_sample_that_is_none_is_named_unless_it_is_beyond_its_row(codec, value, words):
    samples = audio()
    samples[1, FRAME] = value  # the first one behind row 1
    codes, _ = codec.encode(samples, LENS)
    assert codes.equal(codec.encode(audio(), LENS)[0])
    samples[1, FRAME - 1] = value
    with pytest.raises(InputError, match=f"audio holds {words}"):
        codec.encode(samples, LENS)
    with pytest.raises(InputError, match=f"at sample {FRAME - 1} of row 1"):
        codec.encode(samples, LENS)


def test_clipped_audio_is_encoded_as_it_is(codec):
    loud = (audio(1) * 15).clamp(-4, 4)
    assert (loud.abs() > 1).sum() > 1000 and loud.max() == 4
    codes, frames = codec.encode(loud, torch.tensor([loud.shape[1]]))
    with torch.no_grad():
        theirs, _ = codec.model.encode(audio=loud, audio_len=torch.tensor([loud.shape[1]]))
    assert codes.equal(theirs.long()) and frames.tolist() == [3]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floats_of_any_kind_are_float32(codec, dtype):
    samples = audio(1).to(dtype)
    lens = torch.tensor([samples.shape[1]], dtype=torch.int32)
    assert codec.encode(samples, lens)[0].equal(codec.encode(samples.float(), lens)[0])


def test_no_rows_no_samples_one_sample(codec):
    books = codec.num_codebooks
    for rows, samples, frames in ((0, 900, 0), (0, 0, 0), (2, 0, 0), (2, 1, 1)):
        lens = torch.full((rows,), samples)
        codes, counts = codec.encode(torch.zeros(rows, samples), lens)
        assert (codes.shape, codes.dtype, counts.tolist()) == ((rows, books, frames), torch.long, [frames] * rows)
        decoded, decoded_lens = codec.decode(codes, counts)
        assert (decoded.shape, decoded_lens.tolist()) == ((rows, frames * FRAME), [frames * FRAME] * rows)
    lens = torch.tensor([0, 1])
    codes, counts = codec.encode(torch.zeros(2, 900), lens)
    assert counts.tolist() == [0, 1] and codes[0].equal(codec.silence_codes[:, None])


NOT_CODES = {
    "one row alone": (lambda k: torch.zeros(k, 3, dtype=torch.long), r"expected \(B, K, T\)\. Give one row as codes\[None\]"),
    "frames first": (lambda k: torch.zeros(2, 3, k).long(), r"shape \(2, 3, K\), expected .*Give codes.transpose\(1, 2\)"),
    "of another geometry": (
        lambda k: torch.zeros(2, 8, 3).long(),
        r"shape \(2, 8, 3\), expected .* Give codes of this very codec",
    ),
    "floats": (lambda k: torch.zeros(2, k, 3), "codes are float32, expected integers. Give codes.long"),
    "bools": (lambda k: torch.zeros(2, k, 3).bool(), "codes are bool, expected integers"),
    "an array": (lambda k: np.zeros((2, k, 3), int), "codes is a ndarray, expected a tensor"),
}


@pytest.mark.parametrize("what", NOT_CODES)
def test_what_are_no_codes(codec, what):
    made, words = NOT_CODES[what]
    codes = made(codec.num_codebooks)
    words = words.replace("K", str(codec.num_codebooks), 1)
    with pytest.raises(InputError, match=words) as error:
        codec.decode(codes, torch.tensor([3, 3]))
    assert "\n" not in str(error.value)
    if isinstance(codes, torch.Tensor) and codes.dim() == 3:
        decoder = codec.streaming_decoder()
        with pytest.raises(InputError, match=words):
            decoder.step(codes, decoder.init_state(2))


@pytest.mark.parametrize(
    "lens, words",
    [
        (torch.tensor([4, 3]), "tokens_len says 4 frames for row 0, expected 0 to 3"),
        (torch.tensor([3, -2]), "tokens_len says -2 frames for row 1, expected 0 to 3"),
        (torch.tensor([3]), r"tokens_len has the shape \(1,\), expected \(2,\)"),
        (torch.tensor([3.0, 3.0]), "tokens_len is float32, expected integers: frames of each row"),
    ],
)
def test_frames_that_are_not_there(codec, lens, words):
    with pytest.raises(InputError, match=words):
        codec.decode(codec.silence_codes[None, :, None].repeat(2, 1, 3), lens)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_codes_of_small_integers_are_the_same_codes(codec, dtype):
    """Shar stores them in 16 bits; torch would take bytes for a mask."""
    codes = torch.randint(0, 36, (1, codec.num_codebooks, 4))
    whole, _ = codec.decode(codes, torch.tensor([4]))
    assert codec.decode(codes.to(dtype), torch.tensor([4]))[0].equal(whole)
    decoder = codec.streaming_decoder()
    streamed, _ = decoder.step(codes.to(dtype), decoder.init_state(1))
    torch.testing.assert_close(streamed, whole, atol=1e-6, rtol=0)


def test_a_code_out_of_range_is_named_by_the_stream_too(codec):
    decoder = codec.streaming_decoder()
    for code in (-1, codec.codebook_size, 10**9):
        codes = codec.silence_codes[None, :, None].repeat(2, 1, 3)
        codes[1, 0, 2] = code
        words = f"Code {code} of codebook 0, frame 2, row 1 is not one of 0 to {codec.codebook_size - 1}"
        with pytest.raises(InputError, match=words):
            decoder.step(codes, decoder.init_state(2))
        with pytest.raises(InputError, match=words):
            codec.decode(codes, torch.tensor([3, 3]))


def test_a_stream_has_the_rows_of_its_state_and_any_number_of_frames(codec):
    decoder = codec.streaming_decoder()
    codes = torch.randint(0, 36, (2, codec.num_codebooks, 3))
    for state_rows in (1, 3):
        with pytest.raises(InputError, match=rf"codes have 2 rows and the state {state_rows}. Make one by init_state\(2\)"):
            decoder.step(codes, decoder.init_state(state_rows))
    whole, _ = decoder.step(codes, decoder.init_state(2))
    state, pieces = decoder.init_state(2), []
    for start, end in ((0, 0), (0, 1), (1, 1), (1, 3), (3, 3)):
        sound, state = decoder.step(codes[..., start:end], state)
        assert sound.shape == (2, (end - start) * FRAME)
        pieces.append(sound)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=0)
    nothing, _ = decoder.step(codes[:0], decoder.init_state(0))
    assert nothing.shape == (0, 3 * FRAME)


def test_a_codec_that_looks_ahead_takes_nothing_too():
    codec = FSQCodec(of_kind("looking ahead"))
    for rows, frames in ((0, 3), (2, 0)):
        audio, lens = codec.decode(torch.zeros(rows, 4, frames).long(), torch.full((rows,), frames))
        assert audio.shape == (rows, frames * codec.samples_per_frame) and lens.tolist() == [0] * rows
