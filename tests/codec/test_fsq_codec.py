"""FSQCodec: any of NeMo's geometries, codes that depend on the audio alone, strict files."""

from __future__ import annotations

import copy
import io
import tarfile

import pytest
import torch
import yaml
from nemo.collections.tts.models.audio_codec import AudioCodecModel

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.streaming_decoder import StreamingDecoder
from nemo_duplex.inputs import InputError
from nemo_duplex.kernels.convolution import has_fast_bfloat16
from tests.codec.codecs import MODULES, hifigan_config, lively, nanocodec_config, of_kind
from tests.dummies import CODEC, speech_like

GEOMETRIES = {
    "small": (CODEC, 2, 36, 1764, 12.5),
    "nanocodec 0.6 kbps": (nanocodec_config(), 4, 4032, 1764, 12.5),
    "nanocodec 1.78 kbps": (hifigan_config(13, [8, 7, 6, 6], [7, 7, 6, 3, 2]), 13, 2016, 1764, 12.5),
    "nanocodec 1.89 kbps": (hifigan_config(8, [8, 7, 6, 6], [8, 8, 4, 2, 2]), 8, 2016, 1024, 22050 / 1024),
}


@pytest.fixture(scope="module")
def nano() -> FSQCodec:
    return lively(nanocodec_config())


def speech(seconds: float, seed: int = 0) -> torch.Tensor:
    return speech_like(seconds, seed, 22050)[None]


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometry_comes_from_the_config(name):
    config, num_codebooks, codebook_size, samples_per_frame, rate = GEOMETRIES[name]
    codec = FSQCodec(config)
    assert (codec.num_codebooks, codec.codebook_size, codec.samples_per_frame) == (
        num_codebooks,
        codebook_size,
        samples_per_frame,
    )
    assert float(codec.frame_rate.hz) == pytest.approx(rate)
    assert codec.silence_codes.shape == (num_codebooks,) and codec.silence_codes.dtype == torch.long

    audio = speech(0.25)
    codes, lens = codec.encode(audio, torch.tensor([audio.shape[1]]))
    frames = -(-audio.shape[1] // samples_per_frame)
    assert codes.shape == (1, num_codebooks, frames) and codes.dtype == torch.long and lens.tolist() == [frames]
    assert 0 <= codes.min() and codes.max() < codebook_size
    decoded, samples = codec.decode(codes, lens)
    assert decoded.shape == (1, frames * samples_per_frame) and samples.tolist() == [frames * samples_per_frame]


@pytest.mark.parametrize("config", [CODEC, nanocodec_config()], ids=["small", "nanocodec"])
def test_is_what_nemo_computes(config):
    codec = lively(config)
    audio = speech(0.4)
    lens = torch.tensor([audio.shape[1]])
    codes, frames = codec.encode(audio, lens)
    with torch.no_grad():
        theirs, _ = codec.model.encode(audio=audio, audio_len=lens)
        decoded, _ = codec.model.decode(tokens=theirs, tokens_len=frames)
    assert torch.equal(codes, theirs.long())
    assert decoded.abs().max() > 0.01
    torch.testing.assert_close(codec.decode(codes, frames)[0], decoded, atol=1e-6, rtol=0)


@pytest.mark.parametrize("samples, frames", [(0, 0), (1, 1), (1764, 1), (1765, 2), (4500, 3), (17640, 10)])
def test_the_last_frame_is_filled_up_with_zeros_behind_it(nano, samples, frames):
    audio = speech(1.0)
    codes, lens = nano.encode(audio[:, :samples], torch.tensor([samples]))
    assert lens.tolist() == [frames] and codes.shape[2] == frames
    filled = torch.cat([audio[:, :samples], torch.zeros(1, frames * 1764 - samples)], dim=1)
    assert torch.equal(codes, nano.encode(filled, torch.tensor([frames * 1764]))[0])


SHORT = {"reflect": 7, "causal": 1, "mel": 2, "bands": 2, "stft": 2, "looking ahead": 4, "resnet": 2}


@pytest.mark.parametrize("kind, fewest", SHORT.items())
def test_audio_of_any_length_has_codes_and_sounds_whatever_the_networks(kind, fewest):
    """NeMo's default padding `reflect` mirrors more than a short utterance has, and torch refuses."""
    torch.manual_seed(0)
    codec = FSQCodec(of_kind(kind))
    assert codec.fewest_frames == fewest
    frame, speech = codec.samples_per_frame, 0.1 * torch.randn(1, 12 * codec.samples_per_frame)
    for samples, frames in {0: 0, 1: 1, frame: 1, 3 * frame: 3, 3 * frame + 1: 4, 12 * frame: 12}.items():
        codes, count = codec.encode(speech[:, :samples], torch.tensor([samples]))
        assert (codes.shape, count.item()) == ((1, 4, frames), frames)
        if samples:
            behind = max(frames, fewest) * frame - samples
            filled, _ = codec.encode(
                torch.nn.functional.pad(speech[:, :samples], (0, behind)), torch.tensor([samples + behind])
            )
            assert codes.equal(filled[..., :frames]), "As if silence came behind it."
        audio, decoded = codec.decode(codes, count)
        assert (audio.shape, decoded.item()) == ((1, frames * frame), frames * frame)
        assert audio.isfinite().all() and (samples == 0 or audio.std() > 0)


def test_codes_do_not_depend_on_the_batch(nano):
    audio = torch.cat([speech(1.0, seed) for seed in range(3)])
    lens = torch.tensor([22050, 9000, 4000])
    codes, frames = nano.encode(audio, lens)
    for row in range(3):
        alone, _ = nano.encode(audio[row : row + 1, : lens[row]], lens[row : row + 1])
        assert torch.equal(codes[row, :, : frames[row]], alone[0])
        assert torch.equal(codes[row, :, frames[row] :], nano.silence_codes[:, None].expand(-1, 13 - int(frames[row])))


def test_rows_are_silent_beyond_their_length(nano):
    codes = torch.randint(0, 4032, (2, 4, 6))
    audio, samples = nano.decode(codes, torch.tensor([6, 2]))
    alone, _ = nano.decode(codes[1:, :, :2], torch.tensor([2]))
    assert alone[0].abs().max() > 1e-3
    assert samples.tolist() == [6 * 1764, 2 * 1764]
    torch.testing.assert_close(audio[1, : 2 * 1764], alone[0], atol=1e-5, rtol=0)
    assert audio[1, 2 * 1764 :].abs().max() == 0


@pytest.mark.parametrize("code", [-1, 4032, 4036])
def test_a_code_out_of_range_is_named(nano, code):
    codes = torch.zeros(2, 4, 3, dtype=torch.long)
    codes[1, 2, 0] = code
    with pytest.raises(InputError, match=f"Code {code} of codebook 2, frame 0, row 1 .* 0 to 4031"):
        nano.decode(codes, torch.tensor([3, 3]))
    nano.decode(codes, torch.tensor([3, 0]))  # beyond the row's length anything may stand
    with pytest.raises(InputError, match=f"Code {code} "):
        nano.streaming_decoder().step(codes, nano.streaming_decoder().init_state(2))


def test_audio_that_is_no_number_is_refused(nano):
    with pytest.raises(InputError, match="NaN"):
        nano.encode(torch.full((1, 1764), float("nan")), torch.tensor([1764]))


def test_silence_codes_are_what_zeros_become_away_from_the_edges():
    codec = lively(CODEC)
    codes, _ = codec.encode(torch.zeros(1, 40 * 1764), torch.tensor([40 * 1764]))
    assert torch.equal(codes[0, :, 20], codec.silence_codes)
    assert not torch.equal(codes[0, :, 0], codec.silence_codes), "Or this test could not tell the middle from the start."


def test_long_audio_is_decoded_in_blocks_without_a_seam():
    """NeMo computes lengths in float32, exact below 2^24 samples only; we never hand it so many."""
    codec = lively(CODEC)
    codes = torch.randint(0, 36, (1, 2, 600))
    audio, _ = codec.decode(codes, torch.tensor([600]))
    with torch.no_grad():
        whole, _ = codec.model.decode(tokens=codes, tokens_len=torch.tensor([600]))
    torch.testing.assert_close(audio, whole, atol=1e-6, rtol=0)


def test_codes_are_the_same_whatever_the_surrounding_precision(nano):
    audio = speech(0.5)
    codes, _ = nano.encode(audio, torch.tensor([audio.shape[1]]))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nano.encode(audio, torch.tensor([audio.shape[1]]))[0], codes)


# --- files ------------------------------------------------------------------------------------------------------------


def test_written_and_read_back_it_is_the_same_codec(nano, tmp_path):
    nano.save_to(tmp_path / "codec.nemo")
    again = FSQCodec.restore_from(tmp_path / "codec.nemo")
    audio = speech(0.3)
    lens = torch.tensor([audio.shape[1]])
    codes, frames = nano.encode(audio, lens)
    assert torch.equal(again.encode(audio, lens)[0], codes)
    assert torch.equal(again.decode(codes, frames)[0], nano.decode(codes, frames)[0])
    assert torch.equal(again.silence_codes, nano.silence_codes) and again.fingerprint == nano.fingerprint
    assert not torch.equal(FSQCodec(nanocodec_config()).silence_codes, nano.silence_codes), "Zeros are other codes there."
    assert [p.name for p in tmp_path.iterdir()] == ["codec.nemo"]


def test_config_and_weights_rebuild_it(nano):
    again = FSQCodec(copy.deepcopy(nano.config))
    again.load_state_dict(nano.state_dict())
    assert torch.equal(again.silence_codes, nano.silence_codes) and again.fingerprint == nano.fingerprint
    assert yaml.safe_load(yaml.safe_dump(nano.config)) == nano.config == nanocodec_config()


def test_nemo_reads_the_file_too(tmp_path):
    codec = FSQCodec(CODEC)
    codec.save_to(tmp_path / "codec.nemo", half=True)
    theirs = AudioCodecModel.restore_from(str(tmp_path / "codec.nemo"), map_location="cpu")
    ours = FSQCodec.restore_from(tmp_path / "codec.nemo")
    codes, lens = torch.randint(0, 36, (1, 2, 5)), torch.tensor([5])
    with torch.no_grad():
        decoded, _ = theirs.decode(tokens=codes, tokens_len=lens)
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(ours.decode(codes, lens)[0], decoded, atol=1e-6, rtol=0)


def test_half_the_bits_are_half_the_file_and_read_back_into_float32(nano, tmp_path):
    nano.save_to(tmp_path / "whole.nemo")
    nano.save_to(tmp_path / "half.nemo", half=True)
    assert (tmp_path / "half.nemo").stat().st_size < 0.6 * (tmp_path / "whole.nemo").stat().st_size
    restored = FSQCodec.restore_from(tmp_path / "half.nemo")
    assert all(p.dtype == torch.float32 for p in restored.parameters())
    assert all(p.dtype == torch.float32 for p in nano.parameters())


def test_sixteen_bits_can_spare_the_encoder_and_what_they_cannot_hold(nano, tmp_path):
    """Rounding the encoder changes codes, so a codec whose codes must stay valid keeps it."""
    whole = lively(hifigan_config(4, [9, 8, 8, 7], [4, 4, 3, 2]))
    scale = whole.model.audio_decoder.pre_conv.conv.parametrizations.weight.original0
    with torch.no_grad():
        scale[0] = 1e5  # beyond the largest number of 16 bits
    whole.save_to(tmp_path / "half.nemo", half=True)
    whole.save_to(tmp_path / "same_codes.nemo", half=True, keep_codes=True)
    half, same_codes = (FSQCodec.restore_from(tmp_path / f"{name}.nemo") for name in ("half", "same_codes"))
    assert (half.fingerprint == whole.fingerprint, same_codes.fingerprint == whole.fingerprint) == (False, True)
    for codec in (half, same_codes):
        weights = codec.model.audio_decoder.state_dict()
        assert weights["pre_conv.conv.parametrizations.weight.original0"].equal(scale)
        last, own = (m.post_conv.conv.bias for m in (codec.model.audio_decoder, whole.model.audio_decoder))
        assert last.equal(own.half().float()) and not last.equal(own)


def test_the_fingerprint_names_what_decides_the_codes():
    codec = FSQCodec(CODEC)
    before = codec.fingerprint
    with torch.no_grad():
        codec.model.audio_decoder.head.weight.add_(1)
        assert codec.fingerprint == before
        codec.model.audio_encoder.head.weight.add_(1)
    assert codec.fingerprint != before
    other = copy.deepcopy(CODEC)
    other["vector_quantizer"]["num_levels_per_group"] = [2, 2, 3, 3]
    relabelled = FSQCodec(other)
    relabelled.model.audio_encoder.load_state_dict(codec.model.audio_encoder.state_dict())
    assert relabelled.fingerprint != codec.fingerprint, "Other levels, other codes."


def test_what_a_codec_was_trained_with_is_left_out(tmp_path):
    """Discriminators and speech models of a published .nemo would be downloaded, or would not even import."""
    training = {
        "discriminator": {"_target_": f"{MODULES}.Discriminator", "discriminators": [{"_target_": "os.system"}]},
        "use_scl_loss": True,
        "use_slm_loss": True,
        "slm_encoder": {"_target_": f"{MODULES}.SLMEncoder", "slm_model_name": "microsoft/wavlm-base-plus"},
        "train_ds": {"dataset": {"_target_": "nowhere"}},
        "optim": {"_target_": "torch.optim.Adam"},
        "target": "nemo.collections.tts.models.audio_codec.AudioCodecModel",
    }
    codec = FSQCodec(nanocodec_config() | training)
    assert codec.config == nanocodec_config()
    weights = codec.model.state_dict() | {"discriminator.weight": torch.zeros(3), "speaker_encoder.weight": torch.zeros(3)}
    path = write_nemo(tmp_path / "published.nemo", nanocodec_config() | training, weights)
    assert FSQCodec.restore_from(path).fingerprint == codec.fingerprint


def test_weights_under_their_former_names_are_read(nano, tmp_path):
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    weights = {}
    for key, value in nano.model.state_dict().items():
        for todays, former in names.items():
            key = key.replace(todays, former)
        weights[key] = value
    assert any(key.endswith("weight_g") for key in weights)
    path = write_nemo(tmp_path / "old.nemo", nanocodec_config() | {"target": "AudioCodecModel"}, weights)
    assert FSQCodec.restore_from(path).fingerprint == nano.fingerprint


@pytest.mark.parametrize("problem", ["lacks", "has no place for", "has another shape of"])
def test_weights_must_fit(tmp_path, problem):
    weights = dict(FSQCodec(CODEC).model.state_dict())
    if problem == "lacks":
        del weights["audio_decoder.head.bias"]
    elif problem == "has no place for":
        weights["audio_decoder.blocks.1.norm.weight"] = torch.zeros(8)
    else:
        weights["audio_decoder.head.bias"] = torch.zeros(7)
    path = write_nemo(tmp_path / "codec.nemo", CODEC | {"target": "AudioCodecModel"}, weights)
    with pytest.raises(InputError, match=f"codec.nemo: the checkpoint {problem} 1 of .* audio_decoder"):
        FSQCodec.restore_from(path)


def test_files_that_are_no_codec(tmp_path, nano):
    nano.save_to(tmp_path / "codec.nemo")
    whole = (tmp_path / "codec.nemo").read_bytes()
    (tmp_path / "truncated.nemo").write_bytes(whole[: len(whole) // 2])
    write_nemo(tmp_path / "asr.nemo", {"target": "nemo.collections.asr.models.EncDecCTCModelBPE"}, {})
    write_nemo(tmp_path / "half.nemo", {"target": "AudioCodecModel", "sample_rate": 22050}, {})
    for name, words in {
        "none.nemo": "there is no file",
        "truncated.nemo": "truncated",
        "asr.nemo": "EncDecCTCModelBPE, expected AudioCodecModel",
        "half.nemo": "lacks samples_per_frame",
    }.items():
        with pytest.raises(InputError, match=words) as error:
            FSQCodec.restore_from(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"vector_quantizer": {"_target_": f"{MODULES}.MultiBandMelEncoder"}}, "does not build"),
        ({"audio_encoder": {"_target_": "os.system"}}, "no part of a codec"),
        ({"output_sample_rate": 44100}, "44100"),
        ({"samples_per_frame": 1763}, r"44075 samples become 24 frames, and those 42336 samples"),
        (
            {"audio_decoder": hifigan_config(2, [3, 3, 2, 2], [4, 4, 3, 2])["audio_decoder"]},
            r"44100 samples become 25 frames, and those 2400 samples",
        ),
        ({"audio_encoder": hifigan_config(3, [9, 8, 8, 7], [7, 7, 6, 3, 2])["audio_encoder"]}, "networks fail on 25 frames"),
        ({"semantic_codec_path": "other.nemo"}, "semantic"),
        ({"audio_decoder": None}, "lacks audio_decoder"),
    ],
)
def test_configs_of_other_codecs(change, words):
    with pytest.raises(InputError, match=words):
        FSQCodec(CODEC | change)


WRITES_A_FILE = {  # a function that NeMo's own list of targets lets through
    "_target_": "nemo.collections.asr.parts.utils.manifest_utils.write_manifest",
    "output_path": "pwned",
    "target_manifest": [{"a": 1}],
}


@pytest.mark.parametrize(
    "encoder",
    [
        WRITES_A_FILE,
        {**CODEC["audio_encoder"], "mel_bins": WRITES_A_FILE},
        {"_target_": f"{MODULES}.SSLModel", "slm_model_name": "someone/model"},
        {"cls": "os.system", "command": "touch pwned"},
    ],
    ids=["a function", "a function inside", "one that downloads", "by hydra's former key"],
)
def test_an_untrusted_codec_runs_nothing(tmp_path, monkeypatch, encoder):
    monkeypatch.chdir(tmp_path)
    path = write_nemo(tmp_path / "evil.nemo", CODEC | {"audio_encoder": encoder, "target": "AudioCodecModel"}, {})
    with pytest.raises(InputError, match="codec: .*evil.nemo: .* names '.*' at audio_encoder.*, which is no part of a codec"):
        FSQCodec.restore_from(path)
    assert not (tmp_path / "pwned").exists()


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    codec = FSQCodec(CODEC)

    def breaks(path):
        open(path, "wb").write(b"half")
        raise OSError(5, "disk on fire")

    monkeypatch.setattr(codec.model, "save_to", breaks)
    with pytest.raises(OSError):
        codec.save_to(tmp_path / "codec.nemo")
    assert not list(tmp_path.iterdir())


def write_nemo(path, config, weights):
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    with tarfile.open(path, "w") as archive:
        for name, data in {
            "model_config.yaml": yaml.safe_dump(config).encode(),
            "model_weights.ckpt": buffer.getvalue(),
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.skipif(not has_fast_bfloat16(), reason="this CPU does not multiply bfloat16")
@pytest.mark.parametrize("config", [CODEC, nanocodec_config()], ids=["small", "nanocodec"])
def test_streamed_in_bfloat16_it_is_near_and_not_equal(config):
    codec = lively(config)
    codes = torch.randint(0, codec.codebook_size, (1, codec.num_codebooks, 6), generator=torch.Generator().manual_seed(0))
    decoders = [codec.streaming_decoder(bfloat16=bfloat16) for bfloat16 in (False, True)]
    exact, near = (decoder.step(codes, decoder.init_state(1))[0] for decoder in decoders)
    assert 0 < (near - exact).abs().max() < 0.1 * exact.abs().max()
    whole, _ = codec.decode(codes, torch.tensor([6]))
    assert (whole - exact).abs().max() < 1e-5 * max(1.0, float(exact.abs().max())), "The codec itself stays as it is."


def test_a_decode_takes_a_hundred_frames_of_all_rows_at_a_time(nano, monkeypatch):
    """What a layer makes of more does not stay in a CPU's caches; and the audio is that of each row alone."""
    real, taken = StreamingDecoder.step, []
    monkeypatch.setattr(
        StreamingDecoder, "step", lambda self, codes, state: taken.append(codes.shape) or real(self, codes, state)
    )
    codes = torch.randint(0, nano.codebook_size, (3, nano.num_codebooks, 70))
    lens = torch.tensor([70, 70, 70])
    together, _ = nano.decode(codes, lens)
    assert [shape[2] for shape in taken] == [33, 33, 4]
    alone, _ = nano.decode(codes[1:2], lens[:1])
    assert [shape[2] for shape in taken[3:]] == [70]
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)
