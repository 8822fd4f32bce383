"""CTC training of an encoder: batches in their order, augmented mels, and the script from a corpus to encoder.nemo."""

import json
import math
import runpy
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, Recording
from lhotse.audio import AudioSource
from omegaconf import OmegaConf
from sentencepiece import SentencePieceProcessor

from nemo_duplex.conversation import Conversation, Turn, Word
from nemo_duplex.files.nemo_file import read_nemo_file
from nemo_duplex.inputs import InputError, NotInstalled
from nemo_duplex.perception import ctc_training
from nemo_duplex.perception.ctc_data import UNKNOWN, Utterance
from nemo_duplex.perception.ctc_model import open_ctc_model
from nemo_duplex.perception.ctc_training import (
    CTCTraining,
    Curriculum,
    EncoderTrainingConfig,
    HeldOut,
    held_out_quality,
    path_loss,
    train_encoder,
)
from nemo_duplex.scripts.config import load
from nemo_duplex.training import small_part
from nemo_duplex.training.time_budget import TimeBudget
from tests.dummies import wav_bytes

ROOT = Path(__file__).parent.parent.parent
RATE = 16000
PITCH = {"do": 400, "re": 900, "mi": 1900}  # Hz
TEXTS = ["Do re.", "Re mi.", "Mi do.", "Do mi.", "Re do.", "Mi re."]


def sung(text):
    """0.4 s of a tone for every word, and as much silence between them."""
    time_axis = np.arange(round(0.4 * RATE)) / RATE
    tones = [0.3 * np.sin(2 * np.pi * PITCH[word.strip(".").lower()] * time_axis) for word in text.split()]
    return np.concatenate([part for tone in tones for part in (tone, np.zeros_like(tone))])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Users who sing, with the layout of synthesize.py."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "texts.txt").write_text("\n".join(TEXTS * 3))
    for set_name in ("train", "dev"):
        cuts = []
        for i in range(12):
            random = np.random.default_rng(i)
            text = TEXTS[i % len(TEXTS)]
            audio = np.concatenate([np.zeros(round(random.uniform(0.2, 0.6) * RATE)), sung(text), np.zeros(RATE // 2)])
            audio = (audio + 1e-3 * random.standard_normal(len(audio))).astype(np.float32)
            seconds, name = len(audio) / RATE, f"{set_name}-{i}"
            recording = Recording(name, [AudioSource("memory", [0], wav_bytes(audio, RATE))], RATE, len(audio), seconds)
            start = seconds - 2.1
            words = [
                Word(w, text.index(w), start + 0.8 * i, start + 0.8 * i + 0.4) for i, w in enumerate(text.strip(".").split())
            ]
            turn = Turn("user", start, seconds - 0.9, text, words=tuple(words))
            supervisions = Conversation(name, seconds, (turn,)).to_supervisions()
            cuts.append(MonoCut(name, 0, seconds, 0, recording=recording, supervisions=supervisions))
        (folder / set_name / "shar").mkdir(parents=True)
        CutSet.from_cuts(cuts).to_shar(folder / set_name / "shar", fields={"recording": "wav"})
    return folder


TINY = [
    "tokenizer_size=24",
    "threads=1",
    "warmup_steps=10",
    "turns_alone=0.5",
    "mel_masks=[0,0,0,0]",
    "mel_warp=0",
    "batch_seconds=10",
]
OFF = ["room", "babble", "noise", "lowpass", "tilt", "clipping", "telephone", "packet_loss"]
TINY += [f"augmentation.{name}=0" for name in OFF] + ["augmentation.speed=[1,1]"]
TINY += ["preprocessor.features=20", "encoder.n_layers=2", "encoder.d_model=32", "encoder.subsampling_conv_channels=8"]


# ---------------------------------------------------------------------- batches in their order


def shown(share, turns_alone=0.25, conversations=0.6, count=200):
    kinds = SimpleNamespace(
        turns=SimpleNamespace(batch=lambda i: ("turns", i)), conversations=SimpleNamespace(batch=lambda i: ("whole", i))
    )
    config = SimpleNamespace(turns_alone=turns_alone, conversations=conversations)
    training = SimpleNamespace(step=7, share=share, config=config, **vars(kinds))
    return list(islice(Curriculum(training), count))


def test_turns_come_first_and_conversations_later():
    def part(share):
        return sum(kind == "whole" for kind, _ in shown(share)) / 200

    assert part(0.0) == part(0.25) == 0
    assert part(0.625) == pytest.approx(0.3, abs=0.02) and part(1.0) == pytest.approx(0.6, abs=0.02)
    assert [kind for kind, _ in shown(0.0, turns_alone=0.0, conversations=1.0)] == ["turns"] * 200


def test_a_training_that_goes_on_takes_the_next_batch():
    assert [index for _, index in shown(0.5, count=3)] == [7, 8, 9]


def test_the_path_loss_knows_where_tokens_are():
    """Three frames, blank is 2: frame 0 is a token, frame 1 a blank, frame 2 is not known, and the fourth is padding."""
    paths = torch.tensor([[1, 2, UNKNOWN]])
    log_probs = torch.log_softmax(torch.randn(1, 4, 3), dim=-1)
    expected = -(log_probs[0, 0, 1] + 0.3 * log_probs[0, 1, 2]) / 1.3
    torch.testing.assert_close(path_loss(log_probs, paths), expected)


# ---------------------------------------------------------------------- what training does with a batch


def losses_asked_for(share, paths, monkeypatch, targets=None, weight=None, phonemes=None):
    asked = []
    audio = torch.zeros(1, 3 * 1280)
    batch = SimpleNamespace(
        audio=audio,
        audio_lens=torch.tensor([3000]),
        tokens=torch.ones(1, 2),
        token_lens=torch.tensor([2]),
        paths=paths,
        targets=targets,
        phonemes=phonemes,
    )
    frame_encoder = SimpleNamespace(
        mel=lambda *_: torch.zeros(1, 20, 17),
        features=lambda mel: torch.zeros(1, 3, 4),
        counts=lambda lens: -(-lens // 1280),
        preprocessor=SimpleNamespace(featurizer=SimpleNamespace(fb=None)),
    )
    monkeypatch.setattr(ctc_training, "FrameEncoder", lambda *_: frame_encoder)
    monkeypatch.setattr(ctc_training, "path_loss", lambda *_: asked.append("path") or 10.0)
    asr = SimpleNamespace(
        preprocessor=None,
        encoder=None,
        decoder=lambda encoder_output: encoder_output,
        loss=lambda input_lengths, target_lengths, **_: asked.append(("ctc", input_lengths.tolist(), target_lengths.tolist())),
    )
    config = SimpleNamespace(aligned=0.4, mel_warp=0, mel_masks=(0, 0, 0, 0), teacher={"weight": weight}, phonemes=weight)
    training = SimpleNamespace(asr=asr, config=config, share=share, feature_head=lambda features: features, whisper=None)
    training.phoneme_head = lambda features: features
    training.descend = lambda loss: asked.append(float(loss)) if weight is not None else None
    CTCTraining.training_step(training, batch, 0)
    return asked


def test_what_the_teacher_tells_is_part_of_the_loss_by_its_weight(monkeypatch):
    known = torch.tensor([[0, 5, UNKNOWN]])
    targets = torch.full((1, 3, 4), 2.0)
    assert losses_asked_for(0.0, known, monkeypatch, targets, weight=0.5) == ["path", 10.0 + 0.5 * 1.5]


def test_what_phonemes_are_told_is_part_of_the_loss_by_its_weight(monkeypatch):
    """Four numbers in a frame are two logits of each half; zeros give both phonemes a half."""
    known = torch.tensor([[0, 5, UNKNOWN]])
    phonemes = torch.tensor([[[0, 1], [1, UNKNOWN], [0, 0]]])
    asked = losses_asked_for(0.0, known, monkeypatch, weight=0.5, phonemes=phonemes)
    assert asked == ["path", pytest.approx(10.0 + 0.5 * math.log(2))]


def test_tokens_are_learnt_where_they_are_spoken_first_and_by_ctc_later(monkeypatch):
    known, unknown = torch.tensor([[0, 5, UNKNOWN]]), torch.full((1, 3), UNKNOWN)
    assert losses_asked_for(0.39, known, monkeypatch) == ["path"]
    assert losses_asked_for(0.4, known, monkeypatch) == [("ctc", [3], [2])]
    assert losses_asked_for(0.0, unknown, monkeypatch) == losses_asked_for(0.0, None, monkeypatch) == [("ctc", [3], [2])]


def test_quality_is_told_apart_by_what_training_knows(monkeypatch):
    def said(*texts):
        return [Utterance("u", np.zeros(1, np.int16), text, 0, 1, 0, 1) for text in texts]

    monkeypatch.setattr(ctc_training, "transcribe", lambda asr, utterances: ["a b"] * len(utterances))
    assert held_out_quality(None, HeldOut(said("a b", "a c", "b b b d"), said("a b a b")), {"a b"}) == {
        "turns": 3,
        "turns_wer": round(4 / 8, 4),
        "unseen_texts": 2,
        "unseen_texts_wer": round(4 / 6, 4),
        "conversations": 1,
        "conversations_wer": 0.5,
    }
    assert held_out_quality(None, HeldOut(said("a b"), said("a b")), {"a b"})["unseen_texts_wer"] is None


# ---------------------------------------------------------------------- the script


class StepBudget(TimeBudget):
    """So many steps instead of minutes: the same on any machine."""

    done = 0

    @property
    def share(self):
        return self.done / self.minutes

    def on_train_batch_end(self, trainer, *args):
        self.done += 1
        super().on_train_batch_end(trainer)

    def state_dict(self):
        return {"steps": self.done}

    def load_state_dict(self, state):
        self.done = state["steps"]


@pytest.fixture(scope="module")
def train(corpus):
    """The script, run here, with a checkpoint every 40 steps."""
    main = runpy.run_path(str(ROOT / "examples/train_encoder.py"))["main"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ctc_training, "TimeBudget", StepBudget)
        patch.setattr(small_part, "STEPS_PER_EPOCH", 40)
        yield lambda out, *keys: main([f"data={corpus}", f"out={out}", *TINY, "minutes=120", *keys])


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    train(out)
    return out


def test_it_learns_to_understand(trained):
    quality = json.loads((trained / "quality.json").read_text())
    assert quality["dev"]["turns_wer"] <= 0.2 and quality["dev"]["conversations_wer"] <= 0.2
    assert quality["steps"] == 120 and quality["dev"]["turns"] == quality["dev"]["conversations"] == 12
    assert quality["dev"]["unseen_texts"] == 0 and "impatient" not in quality
    assert not (trained / "last.ckpt").exists()


def test_it_does_nothing_when_done_and_refuses_another_training(trained, train, capsys):
    before = (trained / "encoder.nemo").stat().st_mtime_ns
    train(trained)
    assert (trained / "encoder.nemo").stat().st_mtime_ns == before
    assert f"{trained}/encoder.nemo: steps 120, " in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        train(trained, "seed=1")
    assert end.value.code == 2 and "holds a training with another seed" in capsys.readouterr().err


def test_after_a_power_cut_it_ends_as_if_there_had_been_none(train, tmp_path, monkeypatch):
    step = CTCTraining.training_step

    def fails_at_step_15(self, batch, batch_index):
        if self.step == 15:
            raise RuntimeError("power cut")
        step(self, batch, batch_index)

    monkeypatch.setattr(small_part, "STEPS_PER_EPOCH", 10)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(whole, "minutes=20")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(CTCTraining, "training_step", fails_at_step_15)
        train(cut, "minutes=20")
    assert torch.load(cut / "last.ckpt", weights_only=False)["step"] == 10 and not (cut / "encoder.nemo").exists()
    train(cut, "minutes=20")
    weights, expected = (read_nemo_file(folder / "encoder.nemo", "encoder")[1] for folder in (cut, whole))
    assert all(torch.equal(weights[name], weight) for name, weight in expected.items())
    assert not list(cut.glob(".part*"))


def test_manifests_are_learnt_from_and_measured_by_engine(tmp_path, monkeypatch):
    """Utterances of a manifest alone; every 40 steps the engines that are held out are transcribed."""
    rows: dict[str, list[str]] = {"train": [], "dev": []}
    for i in range(18):
        text, name = TEXTS[i % len(TEXTS)], "dev" if i >= 12 else "train"
        soundfile.write(tmp_path / f"{i}.wav", sung(text) + 1e-3 * np.random.default_rng(i).standard_normal(25600), RATE)
        words = [[w, text.index(w), 0.8 * n, 0.8 * n + 0.4] for n, w in enumerate(text.strip(".").split())]
        row = {"audio_filepath": f"{i}.wav", "text": text, "words": words, "engine": ("siren", "muse")[i % 2]}
        rows[name].append(json.dumps(row))
    rows["train"].append(json.dumps({"audio_filepath": "none.wav", "text": "lost"}))
    for name, lines in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    seen = []
    monkeypatch.setattr(ctc_training, "fit", lambda training, *keys: seen.append(training) or small_part.fit(training, *keys))
    monkeypatch.setattr(ctc_training, "TimeBudget", StepBudget)
    monkeypatch.setattr(small_part, "STEPS_PER_EPOCH", 20)
    main, out = runpy.run_path(str(ROOT / "examples/train_encoder.py"))["main"], tmp_path / "out"
    given = [f"manifests=[{tmp_path}/train.jsonl]", f"held_out=[{tmp_path}/dev.jsonl]", f"out={out}"]
    main([*given, *TINY, "minutes=100", "validate_every=40"])
    (training,), quality = seen, json.loads((out / "quality.json").read_text())
    assert [len(one.turns) for one in training.turns.utterances] == [1] * 12
    together = [len(one.turns) for one in training.conversations.utterances]
    assert sum(together) == 12 and len(together) < 12
    assert [line["step"] for line in map(json.loads, (out / "progress.jsonl").read_text().splitlines())] == [40, 80]
    assert set(quality) >= {"siren", "muse"} and quality["siren"]["turns"] == quality["muse"]["turns"] == 3
    assert quality["siren"]["turns_wer"] <= 0.35 and quality["muse"]["turns_wer"] <= 0.35
    assert sum(one["count"] for one in quality["left_out"].values()) == 1
    assert (out / "tokenizer" / "texts.txt").read_text().splitlines()[:2] == ["do re", "re mi"]


@pytest.mark.parametrize(
    "keys, message",
    [
        ([f"data={ROOT / 'conf'}"], "there is no folder .*train/shar"),
        (["data=null"], "Nothing to learn from: give data=CORPUS"),
        (["encoder.att_context_style=regular"], "att_context_style is 'regular'"),
        (["encoder.subsampling_factor=4"], "frames are 40 ms long"),
        (["aligned=2"], "aligned=2.0: expected a share"),
        (["turns_alone=-0.1"], "turns_alone=-0.1: expected a share"),
        (["conversations=1.1"], "conversations=1.1: expected a share"),
        (["mel_masks=[1]"], "expected .bands"),
        (["mel_warp=1"], "expected a small share"),
        (["teacher.features=1"], "Give manifests="),
        (["init=whisper", "teacher.model=nowhere"], "nowhere has no model.bin"),
        (["keep_tokenizer=false"], "no tokenizer to be replaced. Give init=ENCODER"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_the_door(corpus, tmp_path, keys, message):
    settings = OmegaConf.to_container(load("train_encoder", [f"data={corpus}", f"out={tmp_path / 'out'}", *keys]))
    settings.pop("threads")
    with pytest.raises(InputError, match=message):
        train_encoder(EncoderTrainingConfig(**settings))
    assert not (tmp_path / "out").exists()


def test_it_goes_on_from_an_encoder_with_its_tokenizer_and_sizes(trained, train, tmp_path):
    """Other sizes are given here: those of the encoder count. A hundredth of the rates changes weights a little."""
    out = tmp_path / "out"
    keys = ["encoder.d_model=64", "tokenizer_size=99", "rate=1e-6", "matrix_rate=1e-6", "aligned=0", "steps=10"]
    train(out, f"init={trained / 'encoder.nemo'}", *keys)
    quality, before = (json.loads((folder / "quality.json").read_text()) for folder in (out, trained))
    assert quality["steps"] == 10 and quality["dev"]["turns_wer"] == before["dev"]["turns_wer"]
    weights, first = (read_nemo_file(folder / "encoder.nemo", "encoder")[1] for folder in (out, trained))
    assert not (out / "tokenizer").exists()
    moved = {name: float((weights[name] - weight).abs().max()) for name, weight in first.items() if weight.is_floating_point()}
    assert max(moved.values()) < 1e-2 and any(change > 0 for change in moved.values())


def test_it_goes_on_from_an_encoder_with_other_pieces(trained, train, tmp_path):
    """What it has learnt of sounds stays, what it says of them is learnt anew: with tiny rates, next to nothing yet."""
    out = tmp_path / "out"
    keys = ["keep_tokenizer=false", "tokenizer_size=20", "rate=1e-6", "matrix_rate=1e-6", "aligned=0", "steps=10"]
    train(out, f"init={trained / 'encoder.nemo'}", *keys)
    weights, first = (read_nemo_file(folder / "encoder.nemo", "encoder")[1] for folder in (out, trained))
    heard = [name for name, weight in first.items() if name.startswith("encoder.") and weight.is_floating_point()]
    assert max(float((weights[name] - first[name]).abs().max()) for name in heard) < 1e-2
    pieces = SentencePieceProcessor(str(out / "tokenizer" / "tokenizer.model"))
    asr = open_ctc_model(out / "encoder.nemo")
    assert asr.tokenizer.vocab_size == pieces.vocab_size() == 20
    assert asr.tokenizer.text_to_ids("do re mi") == pieces.encode("do re mi")
    assert weights["decoder.decoder_layers.0.weight"].shape[0] == 21  # the blank too
    assert json.loads((out / "quality.json").read_text())["dev"]["turns_wer"] > 0.5


@pytest.mark.parametrize("key", ["manifests", "held_out"])
def test_what_is_mended_after_an_error_goes_on_in_the_same_folder(corpus, tmp_path, key):
    """Manifests that cannot be used leave no training behind that would refuse others."""
    (tmp_path / "none.jsonl").write_text(json.dumps({"audio_filepath": "none.wav", "text": "lost"}))
    keys = [f"data={corpus}", f"{key}=[{tmp_path}/none.jsonl]", f"out={tmp_path / 'out'}"]
    settings = OmegaConf.to_container(load("train_encoder", keys))
    settings.pop("threads")
    with pytest.raises(InputError, match="none.jsonl holds no utterance that can be used"):
        train_encoder(EncoderTrainingConfig(**settings))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong, message", [("init=nowhere.nemo", "no file nowhere.nemo"), ("tokenizer_size=3", "No tokenizer of 3 pieces")]
)
def test_what_cannot_be_begun_with_claims_no_folder(corpus, tmp_path, monkeypatch, wrong, message):
    """The next try may have another encoder to go on from, or another size, and goes into the same folder."""
    monkeypatch.setattr(ctc_training, "fit", lambda *_: pytest.fail("it was begun"))
    settings = OmegaConf.to_container(
        load("train_encoder", [f"data={corpus}", f"out={tmp_path / 'out'}", *TINY, "minutes=1", wrong])
    )
    settings.pop("threads")
    with pytest.raises(InputError, match=message):
        train_encoder(EncoderTrainingConfig(**settings))
    assert not (tmp_path / "out" / "training.json").exists()


def test_what_happens_to_the_audio_is_as_configured(corpus, tmp_path, monkeypatch):
    """20 dB softer, turns and conversations alike."""
    seen = []

    def stop(training, *_):
        seen.append(training)
        raise InterruptedError

    monkeypatch.setattr(ctc_training, "fit", stop)
    for level in (0.0, -20.0):
        keys = [f"data={corpus}", f"out={tmp_path / str(level)}", *TINY, f"augmentation.gain_db=[{level},{level}]"]
        settings = OmegaConf.to_container(load("train_encoder", keys))
        settings.pop("threads")
        with pytest.raises(InterruptedError):
            train_encoder(EncoderTrainingConfig(**settings))
    for kind in ("turns", "conversations"):
        plain, softer = (getattr(training, kind).batch(0).audio for training in seen)
        torch.testing.assert_close(softer, plain / 10)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_phonemes_are_learnt_where_they_have_a_weight(corpus, tmp_path, monkeypatch, weight):
    """Of turns and conversations alike, as the reader reads them, for which letters stand here."""
    monkeypatch.setattr(ctc_training, "EnglishPhonemes", lambda: SimpleNamespace(sounds=list))
    monkeypatch.setattr(ctc_training, "fit", lambda training, *_: seen.append(training) or 1 / 0)
    seen = []
    settings = OmegaConf.to_container(load("train_encoder", [f"data={corpus}", f"out={tmp_path}", f"phonemes={weight}"]))
    settings.pop("threads")
    with pytest.raises(ZeroDivisionError):
        train_encoder(EncoderTrainingConfig(**settings))
    (training,) = seen
    for kind in ("turns", "conversations"):
        batch = getattr(training, kind).batch(0)
        assert (batch.phonemes is None) == (weight == 0)
        if weight:
            letters = {letter for turn in training.turns.utterances for letter in turn.text.replace(" ", "")}
            assert training.phoneme_head.out_features == 2 * (1 + len(letters)) and batch.phonemes.max() > 0
    assert (training.phoneme_head is None) == (weight == 0)


def test_phonemes_that_nobody_can_tell_leave_nothing(corpus, tmp_path, monkeypatch):
    """Of words that hibari cannot read, and where hibari is not installed."""

    def unreadable(text):
        raise InputError(text)

    def missing():
        raise NotInstalled("hibari")

    settings = OmegaConf.to_container(load("train_encoder", [f"data={corpus}", f"out={tmp_path / 'out'}", "phonemes=1"]))
    settings.pop("threads")
    for reader, message in (
        (lambda: SimpleNamespace(sounds=unreadable), "phonemes: no utterance has word times"),
        (missing, "hibari"),
    ):
        monkeypatch.setattr(ctc_training, "EnglishPhonemes", reader)
        with pytest.raises(InputError, match=message):
            train_encoder(EncoderTrainingConfig(**settings))
        assert not (tmp_path / "out").exists()


def test_the_seed_is_set_before_anything_is_drawn(corpus, tmp_path, monkeypatch):
    seeds = []
    monkeypatch.setattr(ctc_training, "read_utterances", lambda path: seeds.append(torch.initial_seed()) or ([], []))
    settings = OmegaConf.to_container(load("train_encoder", [f"data={corpus}", f"out={tmp_path / 'out'}", "seed=5", *TINY]))
    settings.pop("threads")
    with pytest.raises(ValueError):
        train_encoder(EncoderTrainingConfig(**settings))  # ends where it finds no utterances
    assert set(seeds) == {5}


def test_there_must_be_a_corpus(tmp_path):
    settings = OmegaConf.to_container(load("train_encoder", [f"data={tmp_path / 'nowhere'}", f"out={tmp_path / 'out'}"]))
    settings.pop("threads")
    with pytest.raises(InputError, match="there is no folder .*nowhere"):
        train_encoder(EncoderTrainingConfig(**settings))
    assert not (tmp_path / "out").exists()
