"""Drop-in for users of NeMo's in-tree DuplexS2SModel: their configurations, their data and their calls work here.

What NeMo's own test of that model expects is expected of this one, of parts that are small and random.
"""

import lightning.pytorch as pl
import pytest
import torch
from lhotse import CutSet, Recording, SupervisionSegment
from nemo.collections.common.data.utils import move_data_to_device
from nemo.core.optim.lr_scheduler import CosineAnnealing
from nemo.utils.trainer_utils import resolve_trainer_cfg
from omegaconf import OmegaConf

from nemo_duplex import DuplexS2SDataset, DuplexS2SModel, bundled
from nemo_duplex.data.datamodule import duplex_dataloader
from nemo_duplex.files.nemo_file import read_nemo_config
from nemo_duplex.inputs import InputError
from nemo_duplex.models.in_tree.config import in_tree_run
from nemo_duplex.perception.offline import WholePerception
from nemo_duplex.perception.perception import Perception
from tests.codec.codecs import hifigan_config
from tests.dummies import speech_like, wav_bytes
from tests.in_tree import NOT_STREAMABLE, WORDS, in_tree_model, in_tree_perception

PAD, BOS, EOS = (WORDS.index(word) for word in ("<pad>", "<s>", "</s>"))
HELLO, OK, OKAY = (WORDS.index(word) for word in ("▁hello", "▁ok", "▁okay"))
ENCODER = f"{bundled.__path__[0]}/user_encoder.nemo"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Of an encoder that only hears whole recordings, as in NeMo's test."""
    perception = in_tree_perception("IdentityConnector", {"normalize": "per_feature", "dither": 1e-5}, NOT_STREAMABLE)
    return DuplexS2SModel(in_tree_model(tmp_path_factory.mktemp("in_tree"), perception))


@pytest.fixture(scope="module")
def dataset(model):
    return DuplexS2SDataset(
        model.tokenizer,
        frame_length=0.08,
        source_sample_rate=16000,
        target_sample_rate=22050,
        input_roles=["user", "User"],
        output_roles=["assistant"],
    )


@pytest.fixture(scope="module")
def cuts():
    """One second: both say two words, the agent's second turn runs to the end."""
    user, agent = (
        Recording.from_bytes(wav_bytes(speech_like(1.0, i, rate).numpy(), rate), f"r{i}")
        for i, rate in enumerate((16000, 22050))
    )
    cut = user.to_cut()
    cut.target_audio = agent
    said = [
        ("user", "hi", 0.0, 0.1),
        ("assistant", "hello", 0.3, 0.1),
        ("User", "ok", 0.5, 0.1),
        ("assistant", "okay", 0.6, 0.4),
    ]
    cut.supervisions = [
        SupervisionSegment(f"s{i}", cut.recording_id, start, duration, text=text, speaker=speaker)
        for i, (speaker, text, start, duration) in enumerate(said)
    ]
    return CutSet.from_cuts([cut])


# ---------------------------------------------------------------------- what NeMo's own test expects


def test_a_batch_has_the_in_tree_keys_and_rows(dataset, cuts):
    batch = dataset[cuts]
    for key in ("source_audio", "target_audio", "target_tokens", "source_tokens"):
        assert torch.is_tensor(batch[key]) and torch.is_tensor(batch[key[:6] + key[6:].rstrip("s") + "_lens"]), key
        assert key in batch
    assert batch["source_audio"].shape == (1, 16000) and batch["target_audio"].shape == (1, 22050)
    assert batch["target_texts"] == ["hello okay"]
    assert batch["target_tokens"].tolist() == [[PAD] * 4 + [BOS, EOS, PAD, PAD, BOS, OKAY, PAD, PAD, PAD]]
    assert batch["source_tokens"].tolist() == [[BOS, EOS, PAD, PAD, PAD, PAD, BOS, OK, EOS, PAD, PAD, PAD, PAD]]


def test_a_training_step_gives_its_loss_in_a_dict(model, dataset, cuts):
    model.on_train_epoch_start()
    results = model.training_step(move_data_to_device(dataset[cuts], device=model.device), batch_idx=0)
    assert torch.isfinite(results["loss"]) and results["loss"] > 0
    results["loss"].backward()
    assert model.perception.encoder.pre_encode.out.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.audio_codec.parameters())
    model.zero_grad()


def test_offline_inference_has_the_in_tree_keys_and_shapes(model):
    answer = model.offline_inference(input_signal=torch.randn(1, 16000), input_signal_lens=torch.tensor([16000]))
    assert answer.keys() == {"text", "tokens_text", "tokens_audio", "audio", "audio_len", "tokens_len"}
    assert isinstance(answer["text"], list) and isinstance(answer["text"][0], str)
    assert answer["tokens_text"].shape == (1, 13) and answer["tokens_text"].dtype == torch.long
    assert ((answer["tokens_text"] >= 0) & (answer["tokens_text"] < model.text_vocab_size)).all()
    assert answer["tokens_audio"].shape == (1, 13, 2) and answer["tokens_audio"].dtype == torch.long
    assert ((answer["tokens_audio"] >= 0) & (answer["tokens_audio"] < model.speech_vocab_size)).all()
    assert answer["audio"].dtype == torch.float32 and answer["audio"].shape[1] == 13 * 1764


def test_with_such_an_encoder_there_are_no_sessions(model):
    assert isinstance(model.perception, WholePerception)
    with pytest.raises(InputError, match="a session needs a cache-aware one"):
        model.open_session()
    with pytest.raises(InputError, match="a session needs a cache-aware one"):
        model.open_engine(max_sessions=2)


def test_it_is_one_nemo_that_hears_the_same(model, tmp_path):
    model.save_to(str(tmp_path / "agent.nemo"))
    again = DuplexS2SModel.restore_from(str(tmp_path / "agent.nemo"), map_location="cpu").eval()
    audio, lens = speech_like(1.0)[None], torch.tensor([16000])
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(again.perception(audio, lens)[0], model.perception(audio, lens)[0], atol=0, rtol=0)
    model.train()


def test_with_pretrained_weights_the_encoder_is_the_checkpoints(tmp_path):
    """Adapter as described, encoder and preprocessor of `pretrained_asr`, changed by what `encoder` says; H of the LLM."""
    perception = in_tree_perception("ConformerEncoder")
    perception["modality_adapter"]["feat_in"] = read_nemo_config(ENCODER, "encoder")["encoder"]["d_model"]
    perception |= {"encoder": {"dropout": 0.25}, "output_dim": None}
    del perception["preprocessor"]
    model = DuplexS2SModel(in_tree_model(tmp_path, perception, pretrained_weights=True, pretrained_asr=ENCODER))
    expected = Perception.from_asr(ENCODER, {"output_dim": 24})
    for name, weight in expected.encoder.state_dict().items():
        assert torch.equal(model.perception.encoder.state_dict()[name], weight), name
    assert model.perception.config["encoder"]["dropout"] == 0.25 and model.perception.output_dim == 24
    model.open_session()


@pytest.mark.parametrize(
    "codec, codebooks, size",
    [
        (hifigan_config(4, [9, 8, 8, 7], [7, 7, 6, 3, 2]), 4, 4032),
        (hifigan_config(13, [8, 7, 6, 6], [7, 7, 6, 3, 2]), 13, 2016),
    ],
    ids=["12.5 Hz x 4 x 4032", "12.5 Hz x 13 x 2016"],
)
def test_the_layout_is_read_from_the_codec(tmp_path, codec, codebooks, size):
    from nemo_duplex.codec.fsq_codec import FSQCodec

    FSQCodec(codec).save_to(tmp_path / "nano.nemo")
    model = DuplexS2SModel(in_tree_model(tmp_path, pretrained_audio_codec=str(tmp_path / "nano.nemo")))
    assert (model.layout.num_codebooks, model.layout.codebook_size) == (codebooks, size)
    assert model.speech_vocab_size == size + 5
    assert model.lm.speech_head.projection.out_features == codebooks * (size + 5)
    answer = model.offline_inference(speech_like(0.4)[None], torch.tensor([6400]))
    assert answer["tokens_audio"].shape == (1, 5, codebooks) and answer["audio"].shape == (1, 5 * 1764)


# ---------------------------------------------------------------------- a whole file of theirs


def whole_file_of_theirs(folder, shar):
    """What is in the in-tree example's YAML, for parts in `folder` and shards in `shar`; read as from a file."""
    validation = {"sample_rate": "${data.target_sample_rate}", "batch_size": 1, "seed": 42, "shard_seed": "randomized"}
    written = {
        "model": in_tree_model(folder),
        "trainer": {
            "devices": 1,
            "accelerator": "cpu",
            "num_nodes": 1,
            "precision": "32-true",
            "logger": False,
            "enable_checkpointing": False,
            "use_distributed_sampler": False,
            "max_steps": 3,
            "limit_train_batches": 3,
            "val_check_interval": "${trainer.limit_train_batches}",
            "limit_val_batches": 1,
            "num_sanity_val_steps": 0,
            "gradient_clip_val": 1.0,
            "accumulate_grad_batches": 1,
        },
        "data": {
            "frame_length": 0.08,
            "source_sample_rate": 16000,
            "target_sample_rate": 22050,
            "input_roles": ["user", "User"],
            "output_roles": ["agent", "assistant"],
            "train_ds": {
                "sample_rate": "${data.target_sample_rate}",
                "input_cfg": [{"type": "lhotse_shar", "shar_path": str(shar)}],
                "seed": 42,
                "shard_seed": "randomized",
                "num_workers": 0,
                "batch_size": None,
                "batch_duration": 3,
                "bucket_duration_bins": [2.0],
                "use_bucketing": True,
                "num_buckets": 1,
                "bucket_buffer_size": 10,
            },
            "validation_ds": {"datasets": {"easy": {"shar_path": str(shar)}, "hard": {"shar_path": str(shar)}}, **validation},
        },
        "exp_manager": {
            "explicit_log_dir": str(folder / "results"),
            "checkpoint_callback_params": {"filename": "{step}", "monitor": "val_asr_bleu", "mode": "max", "save_top_k": 1},
        },
    }
    written["model"]["lr_scheduler"]["max_steps"] = "${trainer.max_steps}"
    (folder / "s2s.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(written)))
    return OmegaConf.load(folder / "s2s.yaml")


@pytest.mark.slow
def test_a_whole_file_of_theirs_trains_here(tmp_path, cuts):
    (tmp_path / "shar").mkdir()
    cuts.to_shar(tmp_path / "shar", fields={"recording": "wav", "target_audio": "wav"})
    run = in_tree_run(whole_file_of_theirs(tmp_path, tmp_path / "shar"))
    assert run["data"]["train"] is None and list(run["data"]["validation_loaders"]) == ["easy", "hard"]

    trainer = pl.Trainer(**resolve_trainer_cfg(OmegaConf.create(run["trainer"])), logger=False, enable_checkpointing=False)
    model = DuplexS2SModel(run["model"], trainer)
    dataset = DuplexS2SDataset(model.tokenizer, **run["data"]["dataset"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    easy = duplex_dataloader(run["data"]["validation_loaders"]["easy"], dataset)
    assert [batch.ids for batch in easy] == [[cuts[0].id]], "One pass over the set."
    trainer.fit(model, duplex_dataloader(run["data"]["train_loader"], dataset))

    assert trainer.global_step == 3 and isinstance(model.optimizers().optimizer, torch.optim.AdamW)
    group = trainer.optimizers[0].param_groups[0]
    assert group["foreach"] and tuple(group["betas"]) == (0.9, 0.98) and group["lr"] < 1e-4
    assert isinstance(trainer.lr_scheduler_configs[0].scheduler, CosineAnnealing)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not [name for name in changed if name.startswith("audio_codec.")]
    assert {name.split(".")[0] for name in changed} == {"perception", "lm"}
