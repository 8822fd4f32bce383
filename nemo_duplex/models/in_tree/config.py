"""A configuration written for NeMo's in-tree DuplexS2SModel (examples/speechlm2), in our words.

What their file asks for happens here, or is refused by the name of its key: nothing is dropped in silence. Their model differs
from ours in where the marks of a turn stand (`turn_marks: in_place`, see `channels/layout.py`), in what its keys are called,
and in how it describes the user encoder (`in_tree_perception.py`).
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
#: Keys that are called the same in both.
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
#: Keys of ours for which they have none: given beside theirs, they count.
_OURS = ("attention_window", "sinks", "text_alignment", "speech_delay", "turn_marks", "activation_checkpointing", "compile")
#: What `save_pretrained` adds to a config for other readers of it.
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
#: What their model measures in validation that ours does not, and what is measured in its place.
_SCORED_THERE = ("val_asr_bleu", "val_bleu", "val_txt_bleu")


def is_in_tree(cfg: DictConfig | Mapping[str, Any]) -> bool:
    """Whether a `model:` section is written for NeMo's in-tree DuplexS2SModel."""
    return any(key in cfg for key in _THEIRS)


def our_config(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The `model:` section of ours that one of theirs stands for. Where theirs is silent, ours has its own defaults.

    Raises:
        InputError: for a key that we cannot honour, by its name.
    """
    theirs = plain(cfg)
    refuse_unknown(theirs, (*_THEIRS, *_SHARED, *_OURS, *_WRITTEN_FOR_OTHERS), "model of NeMo's in-tree configuration")
    ours = {key: theirs[key] for key in (*_SHARED, *_OURS) if theirs.get(key) is not None}
    ours = {"turn_marks": "in_place", "speech_delay": 1, **ours}
    if not theirs.get("pretrained_weights", True):
        ours["pretrained_asr"] = None  # theirs, too, then takes the perception as it is described
    perception = our_perception(theirs.get("perception") or {})
    if ours.get("pretrained_asr"):
        perception.pop("output_dim", None)  # theirs takes the language model's, whatever the file says
        ours["perception"] = perception
    weights = {"text": theirs.get("text_loss_weight"), "speech": theirs.get("audio_loss_weight")}
    ours["loss"] = {name: float(weight) for name, weight in weights.items() if weight is not None}
    if (weight := theirs.get("duplex_user_channel_weight")) is not None:
        ours["user_weight"] = float(weight)
    if optimizer := theirs.get("optimizer"):
        ours["optim"] = _optim(optimizer, theirs.get("lr_scheduler"))
    ours["tokenizer"] = _tokenizer(theirs)
    if theirs.get("scoring_asr"):
        logging.info(
            f"model.scoring_asr: {theirs['scoring_asr']} is not asked while training, validation measures losses and "
            "turn-taking; examples/evaluate.py scores what the agent says."
        )
    return ours


def in_tree_run(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """A whole in-tree YAML (`model`, `data`, `trainer`, `exp_manager`), each section in our words.

    Raises:
        InputError: for a section or a key that we cannot honour, by its name.
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
    """The keys of their `model:` section that say how a model of ours is trained; its parts are `interop.py`'s matter.

    Raises:
        InputError: for what their model cannot be told.
    """
    ours = plain(ours)
    if ours["turn_marks"] != "in_place" or ours["speech_delay"] != 1:
        raise InputError(
            f"This model has turn_marks {ours['turn_marks']!r} and speech_delay {ours['speech_delay']}; NeMo's in-tree model "
            "has 'in_place' and 1, and would make something else of its weights. Train one with model.turn_marks=in_place."
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
    """Their `data:` section in our words.

    Returns:
        dataset: arguments of `DuplexS2SDataset` (frame length, sample rates, roles);
        train_loader: keys of NeMo's Lhotse loader; `train`, the folder, is None, for these keys name the data;
        validation_loaders: the same for each validation set, by its name; empty where there is none.

    Raises:
        InputError: for a key that their data module does not have.
    """
    theirs = plain(data)
    about = ("frame_length", "source_sample_rate", "target_sample_rate", "input_roles", "output_roles")
    refuse_unknown(theirs, (*about, "train_ds", "validation_ds"), "data of NeMo's in-tree configuration")
    if not theirs.get("train_ds"):
        raise InputError("data.train_ds is not given: there is nothing to train on.")
    return {
        "dataset": {key: theirs[key] for key in about if theirs.get(key) is not None},
        "train": None,
        "train_loader": theirs["train_ds"],
        "validation": None,
        "validation_loaders": _validation_loaders(theirs.get("validation_ds") or {}),
    }


def our_trainer(trainer: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Their `trainer:` section without what our script itself decides: loggers, checkpoints, and who shards the data.

    Raises:
        InputError: where theirs decides otherwise.
    """
    theirs = plain(trainer)
    for key in ("logger", "enable_checkpointing", "use_distributed_sampler"):
        if theirs.pop(key, False):
            raise InputError(f"trainer.{key} must be false: exp_manager logs and saves, and Lhotse shards the data.")
    return theirs


def our_experiment(experiment: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Their `exp_manager:` section; a checkpoint is chosen by `val_loss`, where theirs is by a score of a recogniser."""
    theirs = plain(experiment)
    chosen = theirs.get("checkpoint_callback_params") or {}
    if str(chosen.get("monitor", "")).startswith(_SCORED_THERE):
        logging.info(f"exp_manager.checkpoint_callback_params.monitor: {chosen['monitor']} is not measured, taking val_loss.")
        theirs["checkpoint_callback_params"] = {**chosen, "monitor": "val_loss", "mode": "min"}
    return theirs


def _validation_loaders(theirs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Keys of each validation set's loader: what all have in common, and its own; each is passed through once."""
    shared = {key: value for key, value in theirs.items() if key != "datasets"}
    finite = {"force_finite": True, "force_map_dataset": True}
    if "datasets" in theirs:
        return {name: {**shared, **(own or {}), **finite} for name, own in (theirs["datasets"] or {}).items()}
    return {"validation": {**shared, **finite}} if shared else {}


def _optim(optimizer: dict[str, Any], schedule: dict[str, Any] | None) -> dict[str, Any]:
    """NeMo's `optim` and `sched` of what hydra would build."""
    target = optimizer.get("_target_")
    if target not in _OPTIMIZERS:
        raise InputError(f"model.optimizer._target_ is {target!r}, expected one of {', '.join(_OPTIMIZERS)}.")
    ours = {"name": _OPTIMIZERS[target], "lr": 1e-3, **_without_target(optimizer)}  # torch's and apex' own lr
    if schedule:
        target = str(schedule.get("_target_"))
        if not target.startswith(_SCHEDULES):
            raise InputError(f"model.lr_scheduler._target_ is {target!r}, expected one of {_SCHEDULES}*, as CosineAnnealing.")
        ours["sched"] = {"name": target.removeprefix(_SCHEDULES), **_without_target(schedule)}
    return ours


def _tokenizer(theirs: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer that is not the language model's own, made into a file."""
    source = theirs.get("tokenizer_path")
    if source is None:
        return {}
    with TemporaryDirectory() as folder:
        tokenizer = HFTokenizer.from_pretrained(source, folder)
        pad, bos, eos = tokenizer.special_tokens
        return {"model_path": str(kept_copy(tokenizer.path)), "pad": pad, "bos": bos, "eos": eos}


def _without_target(section: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "_target_"}
