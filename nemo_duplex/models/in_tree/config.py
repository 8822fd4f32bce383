"""Translates a configuration of NeMo's in-tree DuplexS2SModel (examples/speechlm2) into ours.

Each of their keys has its effect here or is refused by its name; none is ignored silently. Their model differs from ours in
where the marks of a turn are (`turn_marks: in_place`, see `channels/layout.py`), in the names of its keys, and in how it
describes the user encoder (`perception.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any

from nemo.utils import logging
from omegaconf import DictConfig

from nemo_duplex.data.text_tokenizer import HFTokenizer
from nemo_duplex.inputs import InputError, plain, refuse_unknown
from nemo_duplex.models.in_tree.perception import our_perception
from nemo_duplex.models.nemo.artifacts import kept_copy

#: Keys that only their `model:` section has.
_THEIRS = (
    "tokenizer_path",
    "scoring_asr",
    "audio_loss_weight",
    "text_loss_weight",
    "optimizer",
    "lr_scheduler",
    "duplex_user_channel_weight",
)
#: Keys with the same name in both.
_SHARED = (
    "pretrained_llm",
    "pretrained_audio_codec",
    "pretrained_asr",
    "pretrained_weights",
    "perception",
    "freeze_params",
    "prevent_freeze_params",
    "lora",
)
#: Keys that only ours has; they may be given beside theirs.
_OURS = (
    "attention_window",
    "sinks",
    "text_alignment",
    "text_rows",
    "speech_delay",
    "turn_marks",
    "activation_checkpointing",
    "compile",
    "fused_training",
)
#: Keys that `save_pretrained` adds to a config for other programs.
_WRITTEN_FOR_OTHERS = ("model_type", "architectures")

_OPTIMIZERS = {
    "torch.optim.AdamW": "adamw",
    "torch.optim.Adam": "adam",
    "torch.optim.SGD": "sgd",
    "apex.optimizers.FusedAdam": "fused_adam",
    "apex.optimizers.fused_adam.FusedAdam": "fused_adam",
    "nemo.core.optim.Adafactor": "adafactor",
    "nemo.core.optim.Novograd": "novograd",
}
_SCHEDULES = "nemo.core.optim.lr_scheduler."
#: Metrics that their model computes in validation and ours does not.
_SCORED_THERE = ("val_asr_bleu", "val_bleu", "val_txt_bleu")


def is_in_tree(cfg: DictConfig | Mapping[str, Any]) -> bool:
    """Whether a `model:` section is written for NeMo's in-tree DuplexS2SModel."""
    return any(key in cfg for key in _THEIRS)


def our_config(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Our `model:` section for one of theirs. Keys that it does not give have our own defaults.

    Raises:
        InputError: for a key that is not supported, by its name.
    """
    theirs = plain(cfg)
    refuse_unknown(theirs, (*_THEIRS, *_SHARED, *_OURS, *_WRITTEN_FOR_OTHERS), "model of NeMo's in-tree configuration")
    ours = {key: theirs[key] for key in (*_SHARED, *_OURS) if theirs.get(key) is not None}
    ours = {"turn_marks": "in_place", "speech_delay": 1, **ours}
    if not theirs.get("pretrained_weights", True):
        ours["pretrained_asr"] = None  # as theirs: the encoder is then the one that `perception` describes
    perception = our_perception(theirs.get("perception") or {})
    if ours.get("pretrained_asr"):
        perception.pop("output_dim", None)  # as theirs, which takes the language model's size in any case
        ours["perception"] = perception
    weights = {"text": theirs.get("text_loss_weight"), "speech": theirs.get("audio_loss_weight")}
    ours["loss"] = {name: weight for name, weight in weights.items() if weight is not None}
    if (weight := theirs.get("duplex_user_channel_weight")) is not None:
        ours["user_weight"] = weight
    if optimizer := theirs.get("optimizer"):
        ours["optim"] = _optim(optimizer, theirs.get("lr_scheduler"))
    ours["tokenizer"] = _tokenizer(theirs)
    if theirs.get("scoring_asr"):
        logging.info(
            f"model.scoring_asr: {theirs['scoring_asr']} is not used in training. Validation measures losses and turn-taking; "
            "examples/evaluate.py measures the agent's answers."
        )
    return ours


def in_tree_run(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Our sections for a whole in-tree YAML (`model`, `data`, `trainer`, `exp_manager`).

    Raises:
        InputError: for a section or a key that is not supported, by its name.
    """
    theirs = plain(cfg)
    refuse_unknown(theirs, ("model", "data", "trainer", "exp_manager"), "NeMo's in-tree configuration")
    for section in ("model", "data", "trainer"):
        if not theirs.get(section):
            raise InputError(f"The file has no section {section!r}: is it a YAML of NeMo's examples/speechlm2?")
    return {
        "model": our_config(theirs["model"]),
        "data": our_data(theirs["data"]),
        "trainer": our_trainer(theirs["trainer"]),
        "exp_manager": our_experiment(theirs.get("exp_manager") or {}),
    }


def their_model(ours: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The keys of their `model:` section that say how our model is trained; `interop.py` adds its parts.

    Raises:
        InputError: for a channel layout that their model does not have.
    """
    ours = plain(ours)
    if ours["turn_marks"] != "in_place" or ours["speech_delay"] != 1:
        raise InputError(
            f"This model has turn_marks {ours['turn_marks']!r} and speech_delay {ours['speech_delay']}; NeMo's in-tree model "
            "has 'in_place' and 1, so these weights do not fit it. Train a model with model.turn_marks=in_place "
            "model.speech_delay=1."
        )
    theirs = {
        "audio_loss_weight": ours["loss"].get("speech", 1.0),
        "text_loss_weight": ours["loss"].get("text", 3.0),
        "duplex_user_channel_weight": ours["user_weight"],
        "freeze_params": ours["freeze_params"] or [r"^audio_codec\..+$"],
        "prevent_freeze_params": ours["prevent_freeze_params"],
    }
    targets = {name: target for target, name in reversed(_OPTIMIZERS.items())}
    if (optim := ours.get("optim")) and optim["name"] in targets:
        own = {key: value for key, value in optim.items() if key not in ("name", "sched")}
        theirs["optimizer"] = {"_target_": targets[optim["name"]], **own}
        if schedule := optim.get("sched"):
            own = {key: value for key, value in schedule.items() if key != "name"}
            theirs["lr_scheduler"] = {"_target_": _SCHEDULES + schedule["name"], **own}
    return theirs


def our_data(data: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Our `data:` section for theirs.

    Returns:
        dataset: arguments of `DuplexS2SDataset` (frame length, sample rates, roles);
        train_loader: keys of NeMo's Lhotse loader, which name the data; so `train`, the folder, is None;
        validation_loaders: the same for each validation set, by its name; empty if there is none.

    Raises:
        InputError: for a key that their data module does not have.
    """
    theirs = plain(data)
    about = ("frame_length", "source_sample_rate", "target_sample_rate", "input_roles", "output_roles")
    refuse_unknown(theirs, (*about, "train_ds", "validation_ds"), "data of NeMo's in-tree configuration")
    if not theirs.get("train_ds"):
        raise InputError("data.train_ds is not given. Add it: there is no data to train on.")
    return {
        "dataset": {key: theirs[key] for key in about if theirs.get(key) is not None},
        "train": None,
        "train_loader": theirs["train_ds"],
        "validation": None,
        "validation_loaders": _validation_loaders(theirs.get("validation_ds") or {}),
    }


def our_trainer(trainer: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Their `trainer:` section without the keys that our script sets itself: loggers, checkpoints, sharding of the data.

    Raises:
        InputError: if one of these is true.
    """
    theirs = plain(trainer)
    for key in ("logger", "enable_checkpointing", "use_distributed_sampler"):
        if theirs.pop(key, False):
            raise InputError(f"trainer.{key} must be false: exp_manager logs and saves, and Lhotse shards the data.")
    return theirs


def our_experiment(experiment: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Their `exp_manager:` section, with `val_loss` as the metric of the best checkpoint in place of a recogniser's score."""
    theirs = plain(experiment)
    chosen = theirs.get("checkpoint_callback_params") or {}
    if str(chosen.get("monitor", "")).startswith(_SCORED_THERE):
        logging.info(f"exp_manager.checkpoint_callback_params.monitor: {chosen['monitor']} is not measured, val_loss is used.")
        theirs["checkpoint_callback_params"] = {**chosen, "monitor": "val_loss", "mode": "min"}
    return theirs


def _validation_loaders(theirs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Keys of each validation set's loader: the common ones and its own. Each set is read once per validation."""
    shared = {key: value for key, value in theirs.items() if key != "datasets"}
    finite = {"force_finite": True, "force_map_dataset": True}
    if "datasets" in theirs:
        return {name: {**shared, **(own or {}), **finite} for name, own in (theirs["datasets"] or {}).items()}
    return {"validation": {**shared, **finite}} if shared else {}


def _optim(optimizer: dict[str, Any], schedule: dict[str, Any] | None) -> dict[str, Any]:
    """NeMo's `optim` and `sched` for an optimizer and a schedule that hydra would build."""
    target = optimizer.get("_target_")
    if target not in _OPTIMIZERS:
        raise InputError(f"model.optimizer._target_ is {target!r}, expected one of {', '.join(_OPTIMIZERS)}.")
    ours = {"name": _OPTIMIZERS[target], "lr": 1e-3, **_without_target(optimizer)}  # torch's and apex's default lr
    if schedule:
        target = str(schedule.get("_target_"))
        if not target.startswith(_SCHEDULES):
            raise InputError(f"model.lr_scheduler._target_ is {target!r}, expected one of {_SCHEDULES}*, as CosineAnnealing.")
        ours["sched"] = {"name": target.removeprefix(_SCHEDULES), **_without_target(schedule)}
    return ours


def _tokenizer(theirs: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer at `tokenizer_path`, written to a file; {} for that of the language model."""
    source = theirs.get("tokenizer_path")
    if source is None:
        return {}
    with TemporaryDirectory() as folder:
        tokenizer = HFTokenizer.from_pretrained(source, folder)
        pad, bos, eos = tokenizer.special_tokens
        return {"model_path": str(kept_copy(tokenizer.path)), "pad": pad, "bos": bos, "eos": eos}


def _without_target(section: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "_target_"}
