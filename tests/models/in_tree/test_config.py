"""A configuration of NeMo's in-tree model in our words and back: each key has its effect or is refused by its name."""

import pytest
from omegaconf import OmegaConf

from nemo_duplex.inputs import InputError
from nemo_duplex.models.in_tree.config import (
    in_tree_run,
    is_in_tree,
    our_config,
    our_data,
    our_experiment,
    our_trainer,
    their_model,
)
from nemo_duplex.models.model_config import ModelConfig
from tests.dummies import tiny_config
from tests.in_tree import in_tree_model


def test_a_model_section_is_theirs_by_keys_that_only_theirs_has(tmp_path):
    theirs = in_tree_model(tmp_path)
    assert is_in_tree(theirs) and is_in_tree(OmegaConf.create(theirs))
    assert not is_in_tree(tiny_config(tmp_path)) and not is_in_tree(our_config(theirs))


def test_every_key_of_theirs_has_its_place(tmp_path):
    lora = {"r": 4, "task_type": "CAUSAL_LM"}
    theirs = in_tree_model(tmp_path, duplex_user_channel_weight=0.5, lora=lora, attention_window=32)
    ours = our_config(theirs)
    assert ours["loss"] == {"text": 3.0, "speech": 4.0}
    assert ours["turn_marks"] == "in_place" and ours["speech_delay"] == 1
    assert ours["user_weight"] == 0.5 and ours["lora"] == lora and ours["attention_window"] == 32
    assert ours["freeze_params"] == [r"^audio_codec\..+$"]
    schedule = {"name": "CosineAnnealing", "warmup_steps": 0, "min_lr": 1e-6, "max_steps": 100}
    adamw = {"name": "adamw", "lr": 3e-4, "betas": [0.9, 0.98], "weight_decay": 0, "foreach": True, "sched": schedule}
    assert ours["optim"] == adamw
    assert ours["pretrained_llm"] == theirs["pretrained_llm"] and not ours["pretrained_weights"]
    assert ours["pretrained_asr"] is None, "Without pretrained weights theirs takes the perception as it is described."


@pytest.mark.parametrize(
    "target, name",
    [("torch.optim.AdamW", "adamw"), ("torch.optim.Adam", "adam"), ("apex.optimizers.FusedAdam", "fused_adam")],
)
def test_an_optimizer_without_lr_has_its_own(tmp_path, target, name):
    assert our_config(in_tree_model(tmp_path, optimizer={"_target_": target}, lr_scheduler=None))["optim"] == {
        "name": name,
        "lr": 1e-3,
    }


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"asr_loss_weight": 1.0}, "in-tree configuration: unknown key 'asr_loss_weight'. Did you mean 'audio_loss_weight'"),
        ({"use_nemo_automodel": True}, "unknown key 'use_nemo_automodel'."),
        (
            {"optimizer": {"_target_": "flashoptim.FlashAdamW"}},
            "optimizer._target_ is 'flashoptim.FlashAdamW', expected",
        ),
        ({"lr_scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR"}}, "lr_scheduler._target_ is 'torch.optim"),
        ({"perception": {"modality_adapter": {"_target_": "x.QformerConnector"}}}, "modality_adapter is a QformerConnector"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        our_config(in_tree_model(tmp_path, **changes))


def test_a_tokenizer_of_its_own(tmp_path):
    theirs = in_tree_model(tmp_path)
    theirs["tokenizer_path"] = theirs["pretrained_llm"]
    tokenizer = our_config(theirs)["tokenizer"]
    assert (tokenizer["pad"], tokenizer["bos"], tokenizer["eos"]) == ("<pad>", "<s>", "</s>")
    assert tokenizer["model_path"].endswith("tokenizer.json")


def test_a_checkpoint_is_chosen_by_what_is_measured_here():
    chosen = our_experiment({"checkpoint_callback_params": {"monitor": "val_asr_bleu", "mode": "max", "save_top_k": 1}})
    assert chosen["checkpoint_callback_params"] == {"monitor": "val_loss", "mode": "min", "save_top_k": 1}
    assert (
        our_experiment({"checkpoint_callback_params": {"monitor": "step"}})["checkpoint_callback_params"]["monitor"] == "step"
    )


def test_validation_data_without_names_is_one_set():
    data = our_data({"train_ds": {"batch_size": 1}, "validation_ds": {"shar_path": "x", "batch_size": 2}})
    assert data["validation_loaders"] == {
        "validation": {"shar_path": "x", "batch_size": 2, "force_finite": True, "force_map_dataset": True}
    }
    assert our_data({"train_ds": {"batch_size": 1}})["validation_loaders"] == {}


def test_what_another_section_cannot_have_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="trainer.logger must be false"):
        our_trainer({"max_steps": 3, "logger": True})
    with pytest.raises(InputError, match="data of NeMo's in-tree configuration: unknown key 'test_ds'"):
        our_data({"train_ds": {"batch_size": 1}, "test_ds": {}})
    with pytest.raises(InputError, match="data.train_ds is not given"):
        our_data({"frame_length": 0.08})
    with pytest.raises(InputError, match="no section 'trainer'"):
        in_tree_run({"model": {"x": 1}, "data": {"x": 1}})
    with pytest.raises(InputError, match="configuration: unknown key 'hydra'"):
        in_tree_run({"model": {}, "hydra": {}})


def in_place(**changes):
    return ModelConfig.of({"turn_marks": "in_place", **changes}).as_dict()


def test_our_config_as_theirs():
    sched = {"name": "CosineAnnealing", "warmup_steps": 3}
    theirs = their_model(
        in_place(
            loss={"text": 2.0, "speech": 5.0},
            user_weight=0.5,
            freeze_params=["^llm"],
            prevent_freeze_params=["^llm.norm"],
            optim={"name": "sgd", "lr": 0.1, "momentum": 0.9, "sched": sched},
        )
    )
    assert theirs == {
        "text_loss_weight": 2.0,
        "audio_loss_weight": 5.0,
        "duplex_user_channel_weight": 0.5,
        "freeze_params": ["^llm"],
        "prevent_freeze_params": ["^llm.norm"],
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9},
        "lr_scheduler": {"_target_": "nemo.core.optim.lr_scheduler.CosineAnnealing", "warmup_steps": 3},
    }
    plain = their_model(in_place())
    assert (plain["text_loss_weight"], plain["audio_loss_weight"]) == (3.0, 1.0)
    assert plain["freeze_params"] == [r"^audio_codec\..+$"] and "optimizer" not in plain
    assert their_model(in_place(optim={"name": "fused_adam"}))["optimizer"] == {"_target_": "apex.optimizers.FusedAdam"}
    for change in ({"turn_marks": "beside"}, {"speech_delay": 2}):
        with pytest.raises(InputError, match="NeMo's in-tree model has 'in_place' and 1"):
            their_model(in_place(**change))


def test_the_output_size_is_the_language_models_only_with_a_pretrained_encoder(tmp_path):
    theirs = in_tree_model(tmp_path)
    assert our_config(theirs)["perception"] == theirs["perception"] and theirs["perception"]["output_dim"] == 24
    theirs |= {"pretrained_weights": True, "pretrained_asr": "some.nemo"}
    ours = our_config(theirs)
    assert ours["pretrained_asr"] == "some.nemo" and "output_dim" not in ours["perception"]


def test_each_validation_set_has_the_shared_keys_and_its_own():
    sets = {"datasets": {"a": {"shar_path": "x", "batch_size": 9}, "b": None}, "batch_size": 1, "seed": 4}
    finite = {"force_finite": True, "force_map_dataset": True}
    assert our_data({"train_ds": {"batch_size": 1}, "validation_ds": sets})["validation_loaders"] == {
        "a": {"shar_path": "x", "batch_size": 9, "seed": 4, **finite},
        "b": {"batch_size": 1, "seed": 4, **finite},
    }
