"""A training, from the script to the file: it learns, survives a kill, keeps codes valid, and leaves nothing half-written."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import fields
from pathlib import Path

import pytest
import soundfile
import torch

from nemo_duplex.codec import codec_training
from nemo_duplex.codec.codec_training import CodecTraining, CodecTrainingConfig, train_codec
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.harmonic_decoder import HarmonicDecoder
from nemo_duplex.codec.quality import measure_quality
from nemo_duplex.codec.reconstruction import ReconstructionLoss
from nemo_duplex.codec.recordings import Recordings
from nemo_duplex.files.atomic import sha256
from nemo_duplex.inputs import InputError
from nemo_duplex.scripts.config import load
from nemo_duplex.training import small_part as part_training
from nemo_duplex.training.time_budget import TimeBudget
from tests.codec.codecs import MODULES, hifigan_config, lively, of_kind, voice_config
from tests.codec.test_adversarial import TINY
from tests.codec.test_codec_file import write_nemo
from tests.codec.test_pitch import tone
from tests.dummies import CODEC, speech_like

RATE = 22050


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch):
    monkeypatch.setattr(part_training, "STEPS_PER_EPOCH", 4)


@pytest.fixture(scope="module")
def wavs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wavs")
    for i in range(12):
        soundfile.write(folder / f"{i:02d}.wav", speech_like(0.7, seed=i, sample_rate=RATE), RATE)
    return folder


def config(data: Path, out: Path, **changes) -> CodecTrainingConfig:
    settings = dict(
        data=str(data),
        out=str(out),
        codec=CODEC,
        minutes=1000.0,
        steps=10,
        init=None,
        freeze_encoder=False,
        held_out=40,
        held_out_data=None,
        channel=None,
        max_odd_rows=0.5,
        seed=0,
        batch_size=2,
        crop_frames=4,
        matrix_rate=1e-2,
        rate=3e-3,
        warmup_steps=2,
        half=False,
        accelerator="cpu",
        precision="fp32",
        validate_every=None,
        patience=None,
        sharpen=0.0,
        adversarial=None,
    )
    return CodecTrainingConfig(**(settings | changes))


def train_until_killed(config: CodecTrainingConfig, step: int) -> None:
    """A training that dies in this step, counted from 0."""
    learns = CodecTraining.training_step

    def dies(self, audio, batch_index):
        if self.step == step:
            raise RuntimeError("kill -9")
        return learns(self, audio, batch_index)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="kill -9"):
        patch.setattr(CodecTraining, "training_step", dies)
        train_codec(config)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return FSQCodec.restore_from(folder / "codec.nemo").state_dict()


def test_it_learns_and_writes_what_it_made(wavs, tmp_path):
    quality = train_codec(config(wavs, tmp_path / "out", steps=24))
    torch.manual_seed(0)
    held_out = [speech_like(0.7, seed=0, sample_rate=RATE)]
    untrained = measure_quality(FSQCodec(CODEC), held_out)
    assert quality["mel_distance"] < 0.9 * untrained["mel_distance"]
    assert quality["steps"] == 24 and quality["held_out"] == 1 and quality["kbps"] == pytest.approx(0.129)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["codec.nemo", "held_out", "quality.json", "training.json"]
    assert json.loads((tmp_path / "out" / "quality.json").read_text()) == quality
    assert quality["sha256"] == sha256(tmp_path / "out" / "codec.nemo")
    codec = FSQCodec.restore_from(tmp_path / "out" / "codec.nemo")
    assert measure_quality(codec, held_out)["mel_distance"] == pytest.approx(quality["mel_distance"], abs=2e-3)


def one(wavs, tmp_path, **changes) -> CodecTraining:
    settings = config(wavs, tmp_path, **changes)
    return CodecTraining(FSQCodec(CODEC), settings, Recordings(wavs, RATE), [0, 3], TimeBudget(settings.minutes))


def test_matrices_learn_by_muon_and_everything_else_by_adamw(wavs, tmp_path):
    training = one(wavs, tmp_path)
    names = {id(parameter): name for name, parameter in training.codec.model.named_parameters()}
    adamw, muon = training.configure_optimizers()
    assert (type(adamw), type(muon)) == (torch.optim.AdamW, torch.optim.Muon)
    by_muon, by_adamw = ([names[id(p)] for group in o.param_groups for p in group["params"]] for o in (muon, adamw))
    assert "audio_encoder.downsample.weight" in by_muon and "audio_decoder.upsample.weight" in by_muon
    assert "audio_encoder.head.weight" in by_adamw and "audio_decoder.head.weight" in by_adamw
    assert all(dict(training.codec.model.named_parameters())[name].dim() == 2 for name in by_muon)
    assert len(by_muon) + len(by_adamw) == len(names)
    assert (adamw.defaults["weight_decay"], adamw.defaults["betas"], muon.defaults["weight_decay"]) == (0.01, (0.8, 0.99), 0.0)


def test_crops_are_whole_frames_and_other_ones_in_every_epoch(wavs, tmp_path, monkeypatch):
    training = one(wavs, tmp_path, seed=3, crop_frames=4, batch_size=2)
    loader = training.train_dataloader()
    crops = loader.dataset
    assert (crops.samples, crops.margin, crops.indices, loader.batch_size) == (4 * 1764, 1764, [0, 3], 2)
    first = next(iter(loader))
    monkeypatch.setattr(CodecTraining, "current_epoch", 1)
    assert not torch.equal(first, next(iter(training.train_dataloader())))


@pytest.mark.parametrize("precision, dtype", [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_products_have_the_precision_that_is_asked_for(wavs, tmp_path, monkeypatch, precision, dtype):
    training, seen = one(wavs, tmp_path, precision=precision), []
    monkeypatch.setattr(training, "descend", lambda loss: seen.append(loss.dtype))
    training.codec.model.audio_decoder.embed.register_forward_hook(lambda module, given, made: seen.append(made.dtype))
    training.training_step(torch.zeros(1, 4 * 1764), 0)
    assert seen == [dtype, torch.float32]


def test_the_share_is_of_minutes_or_steps_whichever_is_further(wavs, tmp_path):
    training = one(wavs, tmp_path, steps=10)
    training.step = 4
    assert training.share == pytest.approx(0.4, abs=1e-3)
    training.step = 11
    assert training.share == 1.0
    assert one(wavs, tmp_path, steps=None).share < 0.01
    training = one(wavs, tmp_path, steps=10)
    training.step = 4
    training.budget.load_state_dict({"spent": 0.7 * 60 * training.budget.minutes})
    assert training.share == pytest.approx(0.7, abs=1e-3)


def test_done_it_does_nothing_and_other_settings_are_refused(wavs, tmp_path, monkeypatch):
    train_codec(config(wavs, tmp_path, steps=2))
    monkeypatch.setattr(codec_training, "fit", None)
    assert train_codec(config(wavs, tmp_path, steps=2))["steps"] == 2
    assert train_codec(config(wavs, tmp_path, steps=2, max_odd_rows=0.9))["steps"] == 2, "It ends a run or changes nothing."
    with pytest.raises(InputError, match="another rate, seed"):
        train_codec(config(wavs, tmp_path, steps=2, seed=1, rate=1e-3))


def test_killed_and_started_again_it_ends_as_if_it_had_not_been(wavs, tmp_path, monkeypatch):
    train_codec(config(wavs, tmp_path / "whole"))
    train_until_killed(config(wavs, tmp_path / "parts"), step=6)
    assert not (tmp_path / "parts" / "codec.nemo").exists()
    steps, step = [], CodecTraining.training_step
    monkeypatch.setattr(CodecTraining, "training_step", lambda self, *a: steps.append(self.step) or step(self, *a))
    train_codec(config(wavs, tmp_path / "parts"))
    assert steps == [4, 5, 6, 7, 8, 9]
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for key, value in whole.items():
        torch.testing.assert_close(parts[key].float(), value.float(), atol=1e-4, rtol=1e-3, msg=key)


ADVERSARIAL = TINY | {"start": 0.3, "drawn": 1, "update_every": 2, "warmup_steps": 3}


def test_against_discriminators_it_ends_as_if_it_had_not_been_killed(wavs, tmp_path):
    """Killed in step 6 of 10; step 4 has the checkpoint, step 3 is the first with discriminators."""
    settings = dict(adversarial=ADVERSARIAL)
    quality = train_codec(config(wavs, tmp_path / "whole", **settings))
    assert quality["adversarial"]["steps"] == 7 and 0.01 < quality["adversarial"]["discriminator_loss"] < 1
    train_until_killed(config(wavs, tmp_path / "parts", **settings), step=6)
    assert train_codec(config(wavs, tmp_path / "parts", **settings))["adversarial"] == quality["adversarial"]
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for key, value in whole.items():
        assert parts[key].equal(value), key
    train_codec(config(wavs, tmp_path / "plain"))
    assert not all(value.equal(whole[key]) for key, value in weights(tmp_path / "plain").items())


def test_discriminators_are_in_the_checkpoint_and_not_in_the_codec(wavs, tmp_path, monkeypatch):
    monkeypatch.setattr(codec_training, "finish", lambda *_: None)
    train_codec(config(wavs, tmp_path, adversarial=ADVERSARIAL))
    assert not any("adversary" in key for key in weights(tmp_path))
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert int(checkpoint["state_dict"]["adversary.steps"]) == 7, "Of 10 steps, from the fourth on."
    codec, muon, discriminators = checkpoint["optimizer_states"]
    assert 0 < len(discriminators["state"]) <= len([key for key in checkpoint["state_dict"] if "adversary.by_" in key])


def test_the_gradient_of_a_step_is_that_of_reconstruction_and_the_pull(wavs, tmp_path, monkeypatch):
    training = one(wavs, tmp_path, adversarial=ADVERSARIAL | {"start": 0.0}, steps=10)
    audio = torch.stack([speech_like(0.5, seed=seed, sample_rate=RATE)[: 4 * 1764] for seed in (1, 2)])
    optimizers = training.configure_optimizers()
    monkeypatch.setattr(training, "optimizers", lambda: optimizers)
    pull = torch.randn(audio.shape) * 1e-3
    seen = []

    def pulled(real, decoded, norm, optimizer):
        seen.append((real, decoded, norm, optimizer, optimizer.param_groups[0]["lr"]))
        return pull

    monkeypatch.setattr(training.adversary, "pull", pulled)
    monkeypatch.setattr(training, "descend", lambda loss, optimizers: seen.append((loss, optimizers)))
    training.step = 5
    torch.manual_seed(7)
    training.training_step(audio, 0)
    (real, heard, norm, optimizer, rate), (loss, stepping) = seen
    assert real is audio and optimizer is optimizers[-1] and stepping == optimizers[:-1]
    assert rate == pytest.approx(ADVERSARIAL["rate"] * (0.02 + 0.98 / 2)), "Half of the steps are done."
    torch.manual_seed(7)
    decoded, _ = training._reconstruct(audio)
    expected = training.loss(audio, decoded)
    assert loss.item() == pytest.approx(expected.item())
    (gradient,) = torch.autograd.grad(expected, decoded, retain_graph=True)
    assert norm.item() == pytest.approx(gradient.norm().item(), rel=1e-4)
    head = training.codec.model.audio_decoder.head.weight
    (wanted,) = torch.autograd.grad((decoded * (gradient + pull)).sum(), head)
    (found,) = torch.autograd.grad(loss, head)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)


def test_validations_are_written_and_the_best_codec_is_kept(wavs, tmp_path, monkeypatch):
    """Distances go down, up, up: it ends at step 8 of 40, with the weights of step 4; the end of the run adds none."""
    measured = iter([3.0, 2.0, 2.5, 2.0])
    at = {}
    held_out = Recordings(wavs, RATE).audio(0)

    def distance(codec, utterances):
        value = next(measured)
        assert len(utterances) == 1 and utterances[0].equal(held_out), "What is trained on is not validated on."
        at[len(at)] = codec.model.audio_decoder.head.weight.detach().clone()
        return value

    monkeypatch.setattr("nemo_duplex.codec.codec_validation.mean_mel_distance", distance)
    quality = train_codec(config(wavs, tmp_path, steps=40, validate_every=2, patience=2))
    assert quality["validations"] == [{"step": 2 * i + 2, "mel_distance": d} for i, d in enumerate([3.0, 2.0, 2.5, 2.0])]
    assert (quality["best_step"], quality["steps"], quality["stopped_early"]) == (4, 8, True)
    assert weights(tmp_path)["model.audio_decoder.head.weight"].equal(at[1])
    assert sorted(path.name for path in (tmp_path / "validation").iterdir()) == ["step-2", "step-4", "step-6", "step-8"]
    names = sorted(path.name for path in (tmp_path / "validation" / "step-4").iterdir())
    assert names == ["0-decoded.wav", "0-recorded.wav", "spectrograms.png"]


def test_without_patience_the_last_codec_is_written(wavs, tmp_path, monkeypatch):
    measured = iter([1.0, 2.0])
    monkeypatch.setattr("nemo_duplex.codec.codec_validation.mean_mel_distance", lambda *_: next(measured))
    quality = train_codec(config(wavs, tmp_path / "a", steps=5, validate_every=2))
    assert (quality["steps"], quality["stopped_early"], "best_step" in quality) == (5, False, False)
    train_codec(config(wavs, tmp_path / "b", steps=5))
    last = weights(tmp_path / "b")
    assert all(value.equal(last[key]) for key, value in weights(tmp_path / "a").items()), "To look changes nothing."


def test_validations_count_from_the_discriminators_on_and_the_last_step_counts(wavs, tmp_path, monkeypatch):
    """They join at step 3 of 6; validations at 2, 4 and, with patience, at the end."""
    measured = iter([1.0, 3.0, 2.0])
    monkeypatch.setattr("nemo_duplex.codec.codec_validation.mean_mel_distance", lambda *_: next(measured))
    adversarial = ADVERSARIAL | {"start": 0.5}
    settings = dict(steps=5, validate_every=2, patience=1, adversarial=adversarial)
    quality = train_codec(config(wavs, tmp_path, **settings))
    assert [v["step"] for v in quality["validations"]] == [2, 4, 5] and quality["best_step"] == 5
    assert quality["adversarial"]["steps"] == 2 and not quality["stopped_early"]


def test_what_was_best_survives_a_kill(wavs, tmp_path):
    """Killed in step 7, after the best one; resumed from step 4 it ends with the same codec and the same list."""
    settings = dict(steps=10, validate_every=3, patience=9, adversarial=ADVERSARIAL)
    quality = train_codec(config(wavs, tmp_path / "whole", **settings))
    train_until_killed(config(wavs, tmp_path / "parts", **settings), step=7)
    again = train_codec(config(wavs, tmp_path / "parts", **settings))
    assert [v["step"] for v in quality["validations"]] == [3, 6, 9, 10]
    assert {k: again[k] for k in ("validations", "best_step", "steps")} == {
        k: quality[k] for k in ("validations", "best_step", "steps")
    }
    whole = weights(tmp_path / "whole")
    assert all(value.equal(whole[key]) for key, value in weights(tmp_path / "parts").items())


def test_stopped_early_and_killed_before_it_was_written_it_trains_no_more(wavs, tmp_path, monkeypatch):
    measured = iter([1.0, 2.0])
    monkeypatch.setattr("nemo_duplex.codec.codec_validation.mean_mel_distance", lambda *_: next(measured))
    settings = dict(steps=40, validate_every=2, patience=1)
    saved = FSQCodec.save_to
    monkeypatch.setattr(FSQCodec, "save_to", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_codec(config(wavs, tmp_path, **settings))
    monkeypatch.setattr(FSQCodec, "save_to", saved)
    quality = train_codec(config(wavs, tmp_path, **settings))
    assert (quality["steps"], quality["best_step"], len(quality["validations"])) == (4, 2, 2)


def test_the_minutes_end_it(wavs, tmp_path):
    assert 1 <= train_codec(config(wavs, tmp_path, minutes=1 / 240, steps=None))["steps"] < 1000


def test_personalised_with_a_frozen_encoder_codes_stay_valid(wavs, tmp_path):
    train_codec(config(wavs, tmp_path / "general", steps=4, half=True))
    general = FSQCodec.restore_from(tmp_path / "general" / "codec.nemo")
    init = dict(init=str(tmp_path / "general" / "codec.nemo"), half=True)
    train_codec(config(wavs, tmp_path / "frozen", freeze_encoder=True, steps=4, **init))
    train_codec(config(wavs, tmp_path / "whole", steps=2, **init))
    frozen = FSQCodec.restore_from(tmp_path / "frozen" / "codec.nemo")
    assert frozen.fingerprint == general.fingerprint
    assert frozen.model.audio_decoder.head.weight.equal(frozen.model.audio_decoder.head.weight.half().float()), "16 bits."
    assert not torch.equal(frozen.model.audio_decoder.head.weight, general.model.audio_decoder.head.weight)
    assert FSQCodec.restore_from(tmp_path / "whole" / "codec.nemo").fingerprint != general.fingerprint


NEMO_NETWORKS = hifigan_config(4, [9, 8, 8, 7], [4, 4, 3, 2])
NEMO_NETWORKS["audio_encoder"]["resblock_kernel_sizes"] = [3]
NEMO_NETWORKS["audio_decoder"] |= {"resblock_kernel_sizes": [3], "base_channels": 32}


@pytest.fixture(scope="module")
def nemo_codec(tmp_path_factory) -> Path:
    """A codec as NanoCodec is published: 32 bits, all of its weights of convolutions; with discriminators, a speaker loss and
    WavLM, which NeMo would download."""
    losses = {
        "discriminator": {
            "_target_": f"{MODULES}.Discriminator",
            "discriminators": [{"_target_": f"{MODULES}.SLMDiscriminator"}],
        },
        "slm_encoder": {"_target_": f"{MODULES}.SLMEncoder", "slm_model_name": "microsoft/wavlm-base-plus"},
        "use_scl_loss": True,
        "use_slm_loss": True,
        "target": "nemo.collections.tts.models.audio_codec.AudioCodecModel",
    }
    weights = dict(lively(NEMO_NETWORKS).model.state_dict())
    weights |= {"discriminator.weight": torch.zeros(3), "speaker_encoder.weight": torch.zeros(3)}
    return write_nemo(tmp_path_factory.mktemp("nemo") / "nano.nemo", NEMO_NETWORKS | losses, weights)


def reconstruction_loss(codec: FSQCodec) -> float:
    """At all resolutions, of the utterance that is held out."""
    loss, audio = ReconstructionLoss(RATE), speech_like(0.7, seed=0, sample_rate=RATE)[None]
    decoded, _ = codec.decode(*codec.encode(audio, torch.tensor([audio.shape[1]])))
    return sum(float(loss._at(audio, decoded[:, : audio.shape[1]], *at)) for at in zip(loss.windows, loss.filters)) / 5


def test_a_codec_of_convolutions_has_one_optimizer_and_learns(wavs, tmp_path, nemo_codec):
    settings = config(wavs, tmp_path, init=str(nemo_codec), steps=10, rate=3e-3, crop_frames=20)
    training = CodecTraining(FSQCodec.restore_from(nemo_codec), settings, Recordings(wavs, RATE), [1], TimeBudget(9))
    (adamw,) = training.configure_optimizers()
    held = [parameter for group in adamw.param_groups for parameter in group["params"]]
    assert type(adamw) is torch.optim.AdamW and {*map(id, held)} == {*map(id, training.codec.model.parameters())}

    quality = train_codec(settings)
    general, personalised = FSQCodec.restore_from(nemo_codec), FSQCodec.restore_from(tmp_path / "codec.nemo")
    held_out = [Recordings(wavs, RATE).audio(0)]
    assert quality["steps"] == 10
    assert quality["mel_distance_before"] == measure_quality(general, held_out)["mel_distance"]
    assert quality["mel_distance"] == measure_quality(personalised, held_out)["mel_distance"]
    assert reconstruction_loss(personalised) < 0.8 * reconstruction_loss(general)
    codes, frames = personalised.encode(speech_like(0.7, seed=0, sample_rate=RATE)[None], torch.tensor([15435]))
    decoder, parts = personalised.streaming_decoder(), []
    state = decoder.init_state(1)
    for frame in codes.split(1, dim=2):
        audio, state = decoder.step(frame, state)
        parts.append(audio)
    torch.testing.assert_close(torch.cat(parts, dim=1), personalised.decode(codes, frames)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "init, rates", [(None, (3e-3, 1e-2)), ("small.nemo", (1e-3, 1e-2 / 3)), ("nano.nemo", (1e-4, 1e-2 / 3))]
)
def test_learning_rates_suit_the_codec_unless_they_are_given(wavs, tmp_path, init, rates):
    codec = FSQCodec(NEMO_NETWORKS if init == "nano.nemo" else CODEC)

    def used(**given):
        settings = config(wavs, tmp_path, init=init, **{"rate": None, "matrix_rate": None} | given)
        used = CodecTraining(codec, settings, Recordings(wavs, RATE), [1], TimeBudget(9)).config
        return used.rate, used.matrix_rate

    assert used() == pytest.approx(rates)
    assert used(rate=0.5) == pytest.approx((0.5, rates[1])) and used(matrix_rate=0.5) == pytest.approx((rates[0], 0.5))
    assert load("train_codec", ["data=d", "out=o"]).rate is None


def test_a_codec_that_lost_its_codes_says_so(wavs, tmp_path, nemo_codec, caplog):
    """Too high a rate drives an encoder beyond the range of its quantizer."""
    train_codec(config(wavs, tmp_path / "good", init=str(nemo_codec), steps=1, rate=1e-6))
    assert "one code" not in caplog.text
    train_codec(config(wavs, tmp_path / "bad", init=str(nemo_codec), steps=8, rate=1.0, warmup_steps=0))
    assert f"{tmp_path / 'bad' / 'codec.nemo'} has one code for all speech" in caplog.text
    assert caplog.text.rstrip().endswith("a lower rate= and matrix_rate=, or with freeze_encoder=true.")


def test_a_codec_of_convolutions_resumes_exactly(wavs, tmp_path, nemo_codec):
    settings = dict(init=str(nemo_codec), steps=6, rate=3e-3)
    train_codec(config(wavs, tmp_path / "whole", **settings))
    train_until_killed(config(wavs, tmp_path / "parts", **settings), step=5)
    train_codec(config(wavs, tmp_path / "parts", **settings))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, atol=1e-6, rtol=1e-5, msg=key)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_with_a_frozen_encoder_a_codec_keeps_its_codes_though_it_is_stored_in_sixteen_bits(
    wavs, tmp_path, nemo_codec, precision
):
    general = FSQCodec.restore_from(nemo_codec)
    frozen = dict(init=str(nemo_codec), freeze_encoder=True, half=True, precision=precision, steps=2)
    train_codec(config(wavs, tmp_path, **frozen))
    personalised = FSQCodec.restore_from(tmp_path / "codec.nemo")
    assert personalised.fingerprint == general.fingerprint
    audio = speech_like(0.7, seed=0, sample_rate=RATE)[None]
    codes, _ = general.encode(audio, torch.tensor([15435]))
    assert personalised.encode(audio, torch.tensor([15435]))[0].equal(codes)
    last, before = (codec.model.audio_decoder.post_conv.conv.bias for codec in (personalised, general))
    assert last.equal(last.half().float()) and not last.equal(before.half().float())


@pytest.mark.parametrize("freeze_encoder", [True, False])
def test_what_a_step_decodes_are_the_codes_of_the_codec(wavs, tmp_path, nemo_codec, monkeypatch, freeze_encoder):
    """Of a frozen encoder under any autocast; else the rounded vectors with a gradient to the encoder."""
    settings = config(wavs, tmp_path, init=str(nemo_codec), freeze_encoder=freeze_encoder)
    codec = FSQCodec.restore_from(nemo_codec)
    training = CodecTraining(codec, settings, Recordings(wavs, RATE), [1], TimeBudget(9))
    audio = torch.stack([speech_like(0.5, seed=seed, sample_rate=RATE)[: 96 * 100] for seed in (1, 2)])
    seen = []
    codec.model.audio_decoder.register_forward_hook(
        lambda module, args, given, made: seen.append(given["inputs"]), with_kwargs=True
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=freeze_encoder):
        training._reconstruct(audio)
    codes, _ = codec.encode(audio, torch.tensor([9600, 9600]))
    assert seen[0].equal(codec.dequantize(codes)) and seen[0].requires_grad is not freeze_encoder


def test_a_codec_of_a_voice_learns_its_pitch_and_resumes_exactly(tmp_path):
    """Of tones of 130 to 290 Hz. Without its pitch a codec says one for all, half an octave off."""
    (folder := tmp_path / "tones").mkdir()
    for i in range(12):
        soundfile.write(folder / f"{i:02d}.wav", tone(130.0 + 160 * i / 11)[0].numpy(), RATE)
    asked = dict(codec=voice_config(), steps=60, held_out=1, crop_frames=8, batch_size=4)
    train_codec(config(folder, tmp_path / "whole", **asked))
    codec = FSQCodec.restore_from(tmp_path / "whole" / "codec.nemo", map_location="cpu")
    octaves = []
    for frequency in (150.0, 200.0, 270.0):
        sound = tone(frequency)[:, : 8 * 1764]
        codes, _ = codec.encode(sound, torch.tensor([sound.shape[1]]))
        octaves.append(codec.model.audio_decoder.follow(codec.dequantize(codes), sound)[1].item())
    assert max(octaves) < 0.2
    train_until_killed(config(folder, tmp_path / "killed", **asked), step=30)
    train_codec(config(folder, tmp_path / "killed", **asked))
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_a_codec_of_a_voice_is_sharpened_once_at_the_end(wavs, tmp_path):
    for share in (0.0, 0.3):
        train_codec(config(wavs, tmp_path / str(share), codec=voice_config(), sharpen=share, steps=6))
    plain = FSQCodec.restore_from(tmp_path / "0.0" / "codec.nemo", map_location="cpu")
    plain.model.audio_decoder.sharpen(0.3)
    sharpened = FSQCodec.restore_from(tmp_path / "0.3" / "codec.nemo", map_location="cpu").state_dict()
    assert all(torch.equal(value, sharpened[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("adversarial", [None, {**TINY, "start": 0.9}, {**TINY, "start": 0.0}], ids=["no", "later", "now"])
def test_the_error_of_the_pitch_is_part_of_the_loss(wavs, tmp_path, monkeypatch, adversarial):
    """A tenth of an octave counts as 0.5, whether discriminators judge or not, and teaches the pitch."""
    settings = config(wavs, tmp_path, adversarial=adversarial)
    training = CodecTraining(FSQCodec(voice_config()), settings, Recordings(wavs, RATE), [0, 3], TimeBudget(settings.minutes))
    error = torch.tensor(0.0, requires_grad=True)
    monkeypatch.setattr(HarmonicDecoder, "follow", lambda self, codes, audio: (audio + 0.01 * self.head.bias.mean(), error))
    lost: list[torch.Tensor] = []
    monkeypatch.setattr(training, "optimizers", lambda: training.configure_optimizers())
    monkeypatch.setattr(training, "descend", lambda loss, optimizers=None: lost.append(loss))
    audio = speech_like(0.64, seed=1, sample_rate=RATE)
    audio = torch.as_tensor(audio, dtype=torch.float32)[None, : 8 * 1764].repeat(2, 1)
    for octaves in (0.0, 0.1):
        torch.manual_seed(0)
        error.data.fill_(octaves)
        training._learn(audio)
    assert lost[1].item() - lost[0].item() == pytest.approx(0.5, abs=1e-4)
    lost[1].backward()
    assert error.grad.item() == pytest.approx(5.0)


@pytest.mark.parametrize("kind, step_ms", [("reflect", True), ("looking ahead", False)])
def test_utterances_shorter_than_the_networks_need(tmp_path, kind, step_ms):
    """Three frames of 96 samples are held out, and five trained on; `reflect` needs seven."""
    (tmp_path / "wavs").mkdir()
    for i in range(3):
        soundfile.write(tmp_path / "wavs" / f"{i}.wav", speech_like(0.0125 + 0.01 * i, seed=i, sample_rate=RATE), RATE)
    lively(of_kind(kind)).save_to(tmp_path / "short.nemo")
    settings = dict(init=str(tmp_path / "short.nemo"), steps=2, crop_frames=8)
    with pytest.raises(InputError, match="crop_frames=3: the networks of this codec need [47] frames .* Give crop_frames=[47]"):
        train_codec(config(tmp_path / "wavs", tmp_path / "out", **settings | {"crop_frames": 3}))
    quality = train_codec(config(tmp_path / "wavs", tmp_path / "out", **settings))
    assert quality["held_out"] == 1 and 0 < quality["mel_distance"] < 10
    assert (quality["step_ms"] is not None) == step_ms, "Looking ahead, it is trained, but never streamed."


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(minutes=0.0), "minutes=0.0: expected more than zero"),
        (dict(freeze_encoder=True), "add init="),
        (dict(patience=3), "patience=3 counts validations, but there are none: give validate_every"),
        (dict(validate_every=0), "validate_every=0: expected more than zero"),
        (dict(held_out=0), "held_out=0: expected more than zero"),
        (dict(held_out_data="gone"), "held-out data: there is no folder gone"),
        (dict(steps=0), "steps=0: expected more than zero"),
        (dict(max_odd_rows=50.0), "max_odd_rows=50.0: expected a share from 0 to 1"),
        (dict(channel=-1), "channel=-1: expected 0"),
        (dict(init="missing.nemo"), "no file missing.nemo"),
        (dict(sharpen=-0.1), "sharpen=-0.1: expected a share"),
        (dict(sharpen=0.3), "sharpen=0.3: the decoder IstftDecoder .* train with codec=voice"),
    ],
)
def test_settings_that_cannot_be(wavs, tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        train_codec(config(wavs, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_odd_files_are_left_out_and_written_down(wavs, tmp_path, caplog):
    folder = tmp_path / "data"
    folder.mkdir()
    soundfile.write(folder / "a.wav", speech_like(0.7, seed=0, sample_rate=RATE), RATE)
    soundfile.write(folder / "b.wav", torch.stack([speech_like(0.5, s, RATE) for s in (1, 2)], 1), RATE)
    (folder / "c.wav").write_bytes(b"")
    with caplog.at_level("INFO", "nemo_duplex"):
        quality = train_codec(config(folder, tmp_path / "out", steps=1, channel=1, max_odd_rows=0.4))
    assert quality["data"] == {
        "utterances": 2,
        "minutes": 0.02,
        "left_out": {"no samples": {"count": 1, "first": [f"{folder / 'c.wav'}: 0 bytes"]}},
    }
    assert quality["held_out"] == 1 and "mel_distance_before" not in quality
    assert "training data: 2 utterances, 0.0 minutes, 1 left out" in caplog.messages
    with pytest.raises(InputError, match="1 of 3 files cannot be used, more than max_odd_rows=0.3 allows"):
        train_codec(config(folder, tmp_path / "strict", steps=1, channel=1, max_odd_rows=0.3))
    assert not (tmp_path / "strict").exists()


def test_of_a_manifest_with_odd_rows_the_usable_ones_are_trained_on(wavs, tmp_path):
    """One sample, no numbers, two voices in two channels, gone; and two of other rates, one held out with its text."""
    folder = tmp_path / "data"
    folder.mkdir()
    sounds = [speech_like(0.6, seed, rate).numpy() for seed, rate in ((0, 48000), (1, 8000), (2, RATE), (3, RATE))]
    odd = sounds[2].copy()
    odd[7] = float("nan")
    two = torch.stack([torch.from_numpy(sound) for sound in sounds[2:]], 1).numpy()
    for name, samples, rate in (
        ("short", sounds[2][:1] + 0.5, RATE),
        ("high", sounds[0], 48000),
        ("nan", odd, RATE),
        ("two", two, RATE),
        ("low", sounds[1], 8000),
        ("good", sounds[2], RATE),
    ):
        soundfile.write(folder / f"{name}.wav", samples, rate, "FLOAT")
    names = ("short", "high", "nan", "two", "gone", "low", "good")
    rows = [{"audio_filepath": f"data/{name}.wav", "text": f"it is {name}"} for name in names]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    quality = train_codec(config(tmp_path / "all.jsonl", tmp_path / "out", steps=1, max_odd_rows=0.6))
    assert (quality["data"]["utterances"], quality["held_out"]) == (3, 1) and 0 < quality["mel_distance"] < 10
    assert {reason: found["count"] for reason, found in quality["data"]["left_out"].items()} == {
        "too short to be speech": 1,
        "samples that are no numbers": 1,
        "channels that differ": 1,
        "a recording whose file is missing": 1,
    }
    assert (tmp_path / "out" / "held_out" / "000.txt").read_text() == "it is high"
    held_out, rate = soundfile.read(tmp_path / "out" / "held_out" / "000.flac")
    assert rate == RATE and len(held_out) == round(0.6 * RATE)


def test_a_single_utterance_is_trained_on_and_nothing_is_held_out(tmp_path):
    (tmp_path / "one").mkdir()
    soundfile.write(tmp_path / "one" / "a.wav", speech_like(0.02, sample_rate=RATE), RATE)
    quality = train_codec(config(tmp_path / "one", tmp_path / "out", steps=1))
    assert quality["held_out"] == 0 and 0 < quality["mel_distance"] < 10


def test_held_out_utterances_are_split_off_or_have_data_of_their_own(wavs, tmp_path, monkeypatch, caplog):
    seen = []

    def stopped(codec, utterances):
        seen.append([*utterances])
        raise StopIteration

    monkeypatch.setattr(codec_training, "mean_mel_distance", stopped)
    FSQCodec(CODEC).save_to(tmp_path / "codec.nemo")
    kept = []
    monkeypatch.setattr(codec_training.CodecTraining, "__init__", lambda *given: kept.append(given[4]))
    folder = tmp_path / "other"
    folder.mkdir()
    for i in range(4):
        soundfile.write(folder / f"{i}.wav", speech_like(0.5 + 0.1 * i, seed=50 + i, sample_rate=RATE), RATE)
    own = Recordings(folder, RATE)
    with caplog.at_level("INFO", "nemo_duplex"):
        for number, changes in enumerate(({}, {"held_out_data": str(folder)}, {"held_out_data": str(folder), "held_out": 2})):
            with pytest.raises(StopIteration):
                settings = dict(init=str(tmp_path / "codec.nemo"), **changes)
                train_codec(config(wavs, tmp_path / str(number), **settings))
    assert kept == [list(range(1, 12)), list(range(12)), list(range(12))]
    assert [len(utterances) for utterances in seen] == [1, 4, 2]
    assert seen[0][0].equal(Recordings(wavs, RATE).audio(0))
    assert all(a.equal(own.audio(i)) for a, i in zip(seen[2], (0, 2)))
    assert "held_out=40: 1 are held out, a tenth of all at most" in caplog.messages
    assert "held-out data: 4 utterances, 0.0 minutes, 0 left out" in caplog.messages


def test_bad_data_leaves_nothing_and_can_be_put_right(wavs, tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="is empty"):
        train_codec(config(tmp_path / "data", tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    train_codec(config(wavs, tmp_path / "out", steps=1))


def test_a_training_that_diverges_says_so(wavs, tmp_path):
    with pytest.raises(InputError, match="diverged at step"):
        train_codec(config(wavs, tmp_path, steps=50, rate=float("inf"), warmup_steps=0))
    assert not (tmp_path / "codec.nemo").exists()


def test_the_configuration_has_every_key():
    keys = {field.name for field in fields(CodecTrainingConfig)}
    assert set(load("train_codec", ["data=d", "out=o"])) == keys | {"threads"}


def test_the_paper_s_personalisation():
    """Sections 3.2 and 6.3: a trained codec, 228 utterances held out; discriminators from the first step on."""
    given = load("codec_personalize", ["data=d", "out=o", "init=c.nemo"])
    assert (given.held_out, given.init, given.adversarial.start) == (228, "c.nemo", 0.0)
    plain = load("train_codec", ["data=d", "out=o"])
    assert {**given.adversarial, "start": 0.5} == dict(plain.adversarial) and given.codec == plain.codec
    assert given.patience * given.validate_every <= 5000
    with pytest.raises(InputError, match="^Not given: init .trained codec to start from: .* Add init=...$"):
        load("codec_personalize", ["data=d", "out=o"])


@pytest.mark.slow
def test_the_script(wavs, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("train_codec", Path(__file__).parents[2] / "examples" / "train_codec.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main([f"data={wavs}", f"out={tmp_path / 'out'}", "steps=2", "batch_size=2", "accelerator=cpu"])
    assert "codec.nemo: mel_distance" in capsys.readouterr().out
    codec = FSQCodec.restore_from(tmp_path / "out" / "codec.nemo")
    assert (codec.num_codebooks, codec.codebook_size, codec.samples_per_frame) == (4, 1000, 1764)
    for arguments, words in {
        (f"data={tmp_path / 'none'}", f"out={tmp_path / 'o'}"): "there is no folder",
        (f"data={wavs}", f"out={tmp_path / 'o'}", "minuets=3"): "Did you mean 'minutes'?",
        (f"data={wavs}",): "out=...",
    }.items():
        with pytest.raises(SystemExit) as end:
            script.main(list(arguments))
        assert end.value.code == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert words in error[-1]
