"""The speech recogniser around the encoder: a normal NeMo checkpoint, from which an agent gets its user encoder."""

import copy
import io
import tarfile

import numpy as np
import pytest
import torch
import yaml
from nemo.collections.asr.models import EncDecCTCModelBPE

from nemo_duplex.data.text_tokenizer import train_tokenizer
from nemo_duplex.inputs import InputError
from nemo_duplex.perception.ctc_data import Utterance, collate
from nemo_duplex.perception.ctc_model import (
    centre_input,
    ctc_model,
    error_rate,
    save_ctc_model,
    transcribe,
)
from nemo_duplex.perception.perception import FrameEncoder, Perception
from tests.dummies import PERCEPTION, speech_like

WANTED = {"adapter": {"kind": "mlp"}, "output_dim": 24}


def utterance(seconds, text="one", seed=0):
    audio = (speech_like(seconds, seed).numpy() * 32768).clip(-32768, 32767).astype(np.int16)
    return Utterance("u", audio, text, 0, len(audio), 0, len(audio))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ctc")
    (folder / "texts.txt").write_text("\n".join(f"What is {a} plus {b}?" for a in ("one", "two") for b in ("six", "four")))
    train_tokenizer(folder / "texts.txt", folder / "tokenizer.model", 40)
    return folder


@pytest.fixture(scope="module")
def asr(folder):
    torch.manual_seed(0)
    return ctc_model(PERCEPTION["preprocessor"], PERCEPTION["encoder"], folder / "tokenizer.model").eval()


@pytest.fixture(scope="module")
def checkpoint(asr, folder):
    save_ctc_model(asr, folder / "encoder.nemo")
    return folder / "encoder.nemo"


def changed(checkpoint, path, change, weights=None):
    """A copy of a `.nemo` with another config, or other weights."""
    with tarfile.open(checkpoint) as old, tarfile.open(path, "w") as new:
        for member in old.getmembers():
            content = old.extractfile(member).read() if member.isfile() else b""
            if member.name.endswith("model_config.yaml"):
                config = yaml.safe_load(content)
                change(config)
                content = yaml.safe_dump(config).encode()
            if member.name.endswith("model_weights.ckpt") and weights is not None:
                buffer = io.BytesIO()
                torch.save(weights, buffer)
                content = buffer.getvalue()
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return path


def test_nemo_restores_it_as_its_own(asr, checkpoint):
    restored = EncDecCTCModelBPE.restore_from(str(checkpoint), map_location="cpu")
    assert type(restored) is EncDecCTCModelBPE
    for (name, weight), other in zip(asr.state_dict().items(), restored.state_dict().values()):
        assert other.dtype == weight.dtype
        torch.testing.assert_close(other, weight, atol=1e-3, rtol=1e-3, msg=name)
    assert torch.equal(restored.preprocessor.featurizer.fb, asr.preprocessor.featurizer.fb)
    assert restored.tokenizer.text_to_ids("one plus two") == asr.tokenizer.text_to_ids("one plus two")
    assert [restored.tokenizer.tokenizer.piece_to_id(p) for p in ("<pad>", "<s>", "</s>", "<unk>")] == [0, 1, 2, 3]


def test_its_weights_take_half_the_room(asr, checkpoint):
    learnt = sum(p.numel() for p in asr.parameters())
    with tarfile.open(checkpoint) as archive:
        (weights,) = (m for m in archive.getmembers() if m.name.endswith("model_weights.ckpt"))
    assert weights.size < 2 * learnt + 80_000  # names, and the exact mel filters


def test_an_agent_hears_as_the_recogniser_does(asr, checkpoint):
    restored = EncDecCTCModelBPE.restore_from(str(checkpoint), map_location="cpu").eval()
    perception = Perception.from_asr(str(checkpoint), WANTED).eval()
    audio, lens = speech_like(3.0)[None], torch.tensor([48000])
    with torch.no_grad():
        features, _ = FrameEncoder(restored.preprocessor, restored.encoder).encode(audio, lens)
        torch.testing.assert_close(perception.encode(audio, lens)[0], features, atol=0, rtol=0)
    assert Perception(perception.config).state_dict().keys() == perception.state_dict().keys()


def test_the_context_can_be_chosen(checkpoint, tmp_path):
    def many(config):
        config["encoder"]["att_context_size"] = [[70, 6], [70, 1]]

    made = changed(checkpoint, tmp_path / "many.nemo", many)
    assert Perception.from_asr(str(made), WANTED).chunk_frames == 7
    assert Perception.from_asr(str(made), {**WANTED, "att_context_size": [70, 1]}).chunk_frames == 2
    with pytest.raises(InputError, match=r"many.nemo: att_context_size \[70, 0\] is none"):
        Perception.from_asr(str(made), {**WANTED, "att_context_size": [70, 0]})


def test_the_architecture_alone_and_changed(checkpoint):
    """`pretrained_weights: false` makes the same encoder with other weights; what `encoder` says replaces what it had."""
    trained = Perception.from_asr(str(checkpoint), WANTED)
    random = Perception.from_asr(str(checkpoint), WANTED, weights=False)
    assert random.config == trained.config
    assert not torch.equal(random.encoder.pre_encode.out.weight, trained.encoder.pre_encode.out.weight)
    assert Perception.from_asr(str(checkpoint), {**WANTED, "encoder": {"dropout": 0.3, "n_heads": None}}).config["encoder"] == {
        **trained.config["encoder"],
        "dropout": 0.3,
    }


def full_context(config):
    config["encoder"]["att_context_style"] = "regular"
    config["encoder"]["att_context_size"] = [-1, -1]


@pytest.mark.parametrize(
    "change, weights, message",
    [
        (full_context, None, "bad.nemo: encoder.att_context_style is 'regular', expected 'chunked_limited'"),
        (
            lambda c: c["preprocessor"].update(normalize="per_feature"),
            None,
            "bad.nemo: preprocessor.normalize is 'per_feature'",
        ),
        (
            lambda c: c["encoder"].update(subsampling_factor=4),
            None,
            "bad.nemo: The encoder's frames are 40 ms long .* expected 80 ms",
        ),
        (lambda c: c.pop("encoder"), None, "bad.nemo holds a EncDecCTCModelBPE, expected a speech recognition model"),
        (lambda c: c["encoder"].update(d_model=32), None, "bad.nemo: weights and configuration do not fit: .*size mismatch"),
        (lambda c: None, {}, "bad.nemo: weights and configuration do not fit: .*Missing key"),
    ],
    ids=["not cache-aware", "not streamable", "another frame", "another model", "another size", "no weights"],
)
def test_what_is_no_ear_is_refused(checkpoint, tmp_path, change, weights, message):
    made = changed(checkpoint, tmp_path / "bad.nemo", change, weights)
    with pytest.raises(InputError, match=message):
        Perception.from_asr(str(made), WANTED)


def test_a_truncated_or_missing_file_is_refused(checkpoint, tmp_path):
    half = tmp_path / "half.nemo"
    half.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])
    with pytest.raises(InputError, match="half.nemo is truncated"):
        Perception.from_asr(str(half), WANTED)
    with pytest.raises(InputError, match="there is no file .*missing.nemo"):
        Perception.from_asr(str(tmp_path / "missing.nemo"), WANTED)


def test_an_encoder_that_cannot_be_streamed_is_not_trained(folder):
    encoder = copy.deepcopy(PERCEPTION["encoder"]) | {"causal_downsampling": False}
    with pytest.raises(InputError, match="causal_downsampling"):
        ctc_model(PERCEPTION["preprocessor"], encoder, folder / "tokenizer.model")


def test_transcripts_do_not_depend_on_the_batch(asr):
    utterances = [utterance(seconds, seed=i) for i, seconds in enumerate((2.0, 0.7, 3.3, 1.1))]
    together = transcribe(asr, utterances)
    assert together == [transcribe(asr, [u])[0] for u in utterances] == transcribe(asr, utterances, batch_size=2)
    assert len(set(together)) > 1


def test_a_transcript_is_the_best_path_without_repetitions_and_blanks(asr, monkeypatch):
    blank = asr.tokenizer.vocab_size  # the id after the last
    path = torch.tensor([[5, 5, blank, 5, 0, 7, 7, blank, 9, 9]])  # of which the recording has 8 frames
    said = []
    monkeypatch.setattr(asr.decoder, "forward", lambda encoder_output: torch.nn.functional.one_hot(path, blank + 1).float())
    monkeypatch.setattr(asr.tokenizer, "ids_to_text", lambda ids: said.append(ids) or "said")
    assert transcribe(asr, [utterance(8 * 0.08)]) == ["said"] and said == [[5, 5, 0, 7]]


def test_the_models_mode_is_what_it_was_also_after_an_error(asr, monkeypatch):
    modes = []

    def fails(encoder_output):
        modes.append(asr.training)
        raise KeyError

    monkeypatch.setattr(asr.decoder, "forward", fails)
    for training in (True, False):
        asr.train(training)
        with pytest.raises(KeyError):
            transcribe(asr, [utterance(0.5)])
        assert asr.training == training and modes == [False]
        modes.clear()


def test_the_first_convolution_starts_with_normal_input(folder):
    parts = (PERCEPTION["preprocessor"], PERCEPTION["encoder"], folder / "tokenizer.model")
    plain, centred = ctc_model(*parts), ctc_model(*parts)
    centred.load_state_dict(plain.state_dict())
    batch = collate([speech_like(2.0, seed).numpy() for seed in range(3)], [torch.tensor([5])] * 3)
    centre_input(centred, batch)
    mel = FrameEncoder(plain.preprocessor, plain.encoder).mel(batch.audio, batch.audio_lens)[:, None].transpose(2, 3)
    expected = plain.encoder.pre_encode.conv[0]((mel - mel.mean()) / mel.std())
    given = centred.encoder.pre_encode.conv[0](mel)
    inside = (..., slice(1, -1), slice(1, -1))  # at the edges it sees zero padding
    torch.testing.assert_close(given[inside], expected[inside], atol=1e-3, rtol=1e-3)


def test_errors_are_counted_without_case_and_punctuation():
    references = [utterance(1.0, "What is one?"), utterance(1.0, "It's two.")]
    assert error_rate(["what is, ONE", "It's two"], references) == 0
    assert error_rate(["what is", "It’s too, two"], references) == pytest.approx(2 / 5)
    hindi = [utterance(1.0, "आज दिन"), utterance(1.0, "été")]
    assert error_rate(["आज दीन", "e\u0301te\u0301"], hindi) == pytest.approx(1 / 3)
