"""The door of `DuplexS2SModel`: its `model:` section, every key of it given, unknown ones refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from nemo_duplex.inputs import InputError, plain, refuse_unknown

#: Raised with every change that an older reader of the `.nemo` would get wrong.
FORMAT_VERSION = 2

_DEFAULTS: dict[str, Any] = {
    "format_version": FORMAT_VERSION,
    "pretrained_llm": None,  # Hugging Face id or folder
    "pretrained_asr": None,  # NeMo .nemo, NGC name or Hugging Face id
    "pretrained_audio_codec": None,  # NeMo .nemo or Hugging Face id
    "pretrained_weights": True,  # False takes architectures alone
    "llm": {},
    "tokenizer": {"model_path": None, "pad": None, "bos": None, "eos": None},
    "attention_window": None,
    "sinks": None,
    "perception": {},
    "codec": {},
    "speech_delay": 1,
    "turn_marks": "beside",
    "text_alignment": "turn",
    "user_weight": 1.0,
    "loss": {},
    "freeze_params": [],
    "prevent_freeze_params": [],
    "lora": None,
    "activation_checkpointing": False,
    "compile": None,
    "optim": None,
    "optim_param_groups": {},
    "train_ds": None,
    "validation_ds": None,
    "test_ds": None,
}
_WRITTEN_BY_NEMO = ("target", "nemo_version")


def model_config(cfg: DictConfig | Mapping[str, Any]) -> DictConfig:
    """A complete `model:` section.

    Raises:
        InputError: for an unknown key (naming the nearest), or a model of a newer format.
    """
    given = plain(cfg)
    version = given.get("format_version", FORMAT_VERSION)
    if version > FORMAT_VERSION:
        raise InputError(
            f"This model has format {version}, nemo_duplex here reads up to {FORMAT_VERSION}. Install a newer one."
        )
    refuse_unknown(given, [*_DEFAULTS, *_WRITTEN_BY_NEMO], "model")
    refuse_unknown(given.get("tokenizer") or {}, [*_DEFAULTS["tokenizer"], "size"], "model.tokenizer")
    tokenizer = {**_DEFAULTS["tokenizer"], **(given.get("tokenizer") or {})}
    return OmegaConf.create({**_DEFAULTS, **given, "tokenizer": tokenizer, "format_version": FORMAT_VERSION})
