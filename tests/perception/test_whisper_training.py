"""Training an ear that begins as Whisper, here a tiny one: what it begins with, what it learns from, and how it goes on."""

import json
import runpy
from pathlib import Path

import pytest
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.perception import ctc_training
from nemo_duplex.perception.ctc_model import open_ctc_model
from nemo_duplex.perception.perception import FrameEncoder, Perception
from nemo_duplex.perception.whisper_encoder import StreamingWhisperEncoder
from nemo_duplex.perception.whisper_start import whisper_encoder
from nemo_duplex.training import small_part
from tests.perception.test_ctc_training import TINY, corpus  # noqa: F401 (a fixture)
from tests.perception.test_whisper_encoder import tiny_encoder
from tests.perception.test_whisper_start import arrays_of, ctranslate2, folder_of

ROOT = Path(__file__).parent.parent.parent
KEYS = [key for key in TINY if not key.startswith(("preprocessor", "encoder"))]
KEYS += ["aligned=0", "rate=1e-3", "matrix_rate=1e-3", "minutes=60"]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """The folder of a Whisper of one layer."""
    encoder = tiny_encoder(feat_in=80, d_model=64, n_heads=1, n_layers=1)
    return folder_of(tmp_path_factory.mktemp("whisper"), ctranslate2(arrays_of(encoder)))


@pytest.fixture(scope="module")
def train(corpus, whisper):  # noqa: F811
    main = runpy.run_path(str(ROOT / "examples/train_encoder.py"))["main"]
    return lambda out, *keys: main([f"data={corpus}", f"out={out}", f"teacher.model={whisper}", *KEYS, *keys])


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    train(out, "init=whisper", "teacher.whole=3", "steps=4")
    return out


def test_it_begins_as_whisper_and_is_fitted(train, whisper, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(ctc_training, "fit", lambda training, *_: seen.append(training))
    train(tmp_path / "ear", "init=whisper", "steps=1", "matrix_rate=5e-4")
    (training,), theirs = seen, whisper_encoder(whisper).state_dict()
    ours = training.asr.encoder.state_dict()
    kept = [name for name in theirs if not name.startswith(("join", "distance_bias")) and not name.endswith("position")]
    assert len(kept) > 15 and all(torch.equal(ours[name], theirs[name]) for name in kept)
    assert ours["distance_bias"].std() > 0.05 and ours["pre_encode.position"].std() > 0.1
    assert training.whisper is None  # teacher.whole is 0
    # What Whisper knows moves slowly, by 1/5 of the matrices' rate where Muon does not move it; what is new by the other rate.
    (new, known), matrices = (optimizer.param_groups for optimizer in training.configure_optimizers())
    names = {id(weight): name for name, weight in training.named_parameters()}
    new, learnt, moved = ({names[id(w)] for w in group["params"]} for group in (new, known, *matrices))
    assert new == {f"asr.{n}" for n in ("decoder.decoder_layers.0.weight", "decoder.decoder_layers.0.bias")} | {
        f"asr.encoder.join.{part}" for part in ("weight", "bias")
    }
    assert {"asr.encoder.pre_encode.conv1.weight", "asr.encoder.norm_out.bias"} <= learnt
    assert moved == {f"asr.encoder.layers.0.{n}.weight" for n in ("linear_qkv", "linear_out", "linear1", "linear2")}
    assert known["share_of_rate"] == pytest.approx(0.2 * 5e-4 / 1e-3)
    assert training.asr.preprocessor.featurizer.nfilt == 80 and training.asr.preprocessor.featurizer.preemph is None
    assert training.asr.tokenizer.text_to_ids("do re mi")


def test_what_it_wrote_is_an_ear_for_an_agent(trained):
    quality = json.loads((trained / "quality.json").read_text())
    assert quality["steps"] == 4 and quality["dev"]["turns"] == 12
    asr = open_ctc_model(trained / "encoder.nemo")
    perception = Perception.from_asr(str(trained / "encoder.nemo"), {"adapter": {"kind": "mlp"}, "output_dim": 24})
    assert isinstance(perception.encoder, StreamingWhisperEncoder) and perception.config["encoder"]["kind"] == "whisper"
    audio, lens = torch.randn(1, 16000), torch.tensor([16000])
    with torch.no_grad():
        expected = FrameEncoder(asr.preprocessor, asr.encoder).encode(audio, lens)[0]
        assert torch.equal(perception.eval().encode(audio, lens)[0], expected)


def test_it_learns_what_whisper_hears_in_the_whole(train, tmp_path, monkeypatch):
    """With a weight the distance falls, without one it does not."""
    begun, found = ctc_training.fit, {}
    for weight in (0, 30):
        asked = []

        def watched(training, *rest, asked=asked):
            asked.append(distance(training))
            begun(training, *rest)
            asked.append(distance(training))

        monkeypatch.setattr(ctc_training, "fit", watched)
        train(tmp_path / str(weight), "init=whisper", f"teacher.whole={weight}", "steps=40", "warmup_steps=1")
        found[weight] = asked[1] / asked[0]
    assert found[30] < 0.9 and found[30] < 0.95 * found[0]


@torch.no_grad()
def distance(training):
    """Of what the ear of a training hears in its first batch from what Whisper does."""
    torch.manual_seed(0)
    teacher = ctc_training._whisper(training.asr, ctc_training.Teacher(**training.config.teacher))
    ear, batch = FrameEncoder(training.asr.preprocessor, training.asr.encoder), training.turns.batch(0)
    mel = ear.mel(batch.audio, batch.audio_lens)
    return float(teacher.loss(ear.encoder.features(ear.encoder.pre_encode(mel)), mel, ear.counts(batch.audio_lens)))


def test_interrupted_it_ends_with_the_same_weights(train, tmp_path, monkeypatch):
    """Also what Whisper's features are measured by: that of the first batch, not of the first one after the interruption."""
    monkeypatch.setattr(small_part, "STEPS_PER_EPOCH", 2)
    whole, out = tmp_path / "whole", tmp_path / "out"
    keys = ["init=whisper", "teacher.whole=3", "steps=6"]
    train(whole, *keys)
    step = ctc_training.CTCTraining.training_step

    def stops(training, *batch):
        if training.step == 3:
            raise KeyboardInterrupt
        return step(training, *batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ctc_training.CTCTraining, "training_step", stops)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(out, *keys)
    assert (out / "last.ckpt").is_file() and not (out / "encoder.nemo").exists()
    train(out, *keys)
    ended, other = (open_ctc_model(folder / "encoder.nemo").state_dict() for folder in (whole, out))
    assert all(torch.equal(ended[name], other[name]) for name in ended)


def test_it_goes_on_from_what_it_wrote(trained, train, tmp_path):
    out = tmp_path / "further"
    train(out, f"init={trained / 'encoder.nemo'}", "teacher.whole=3", "steps=2", "rate=1e-6", "matrix_rate=1e-6")
    before, after = (open_ctc_model(folder / "encoder.nemo").encoder.state_dict() for folder in (trained, out))
    assert torch.equal(before["distance_bias"], after["distance_bias"])
    steps = {name: before[name].flatten(1).abs().amax() / 127 for name in before if before[name].dim() > 1}
    assert all(float((after[name] - before[name]).abs().max()) < 1.1 * float(step) + 1e-4 for name, step in steps.items())


def test_another_ear_learns_nothing_of_the_whole(train, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(tmp_path / "out", "teacher.whole=3")
    assert "teacher.whole is for an ear that began as this Whisper: give init=whisper" in capsys.readouterr().err
    assert not (tmp_path / "out" / "training.json").exists()


def test_whisper_is_a_word_and_no_file(tmp_path):
    with pytest.raises(InputError, match="whisper.*has no model.bin"):
        whisper_encoder(tmp_path / "whisper")
