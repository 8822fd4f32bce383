"""Translates a `perception` section of NeMo's in-tree speechlm2 models into ours and back."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from nemo.collections.asr.modules import ConformerEncoder

from nemo_duplex.inputs import InputError, plain
from nemo_duplex.perception.config import conformer_adapter, is_whisper

_MODULES = "nemo.collections.asr.modules"
_IN_TREE = "nemo.collections.speechlm2.modules.perception"
_KEYS = ("target", "_target_", "preprocessor", "encoder", "modality_adapter", "spec_augment", "output_dim")


def is_in_tree_perception(config: Mapping[str, Any]) -> bool:
    """Whether a `perception` section is written for in-tree models."""
    return any(key in config for key in ("target", "_target_", "modality_adapter"))


def our_perception(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our `perception` section for an in-tree one.

    Raises:
        InputError: for a key or a part that we do not have, by its name.
    """
    config = plain(config)
    for key in config:
        if key not in _KEYS:
            raise InputError(f"perception.{key}: not a key of NeMo's AudioPerceptionModule ({', '.join(_KEYS)}).")
    _check_class(config, "perception", "AudioPerceptionModule")
    if config.get("spec_augment"):
        raise InputError("perception.spec_augment is not supported: remove it, or train the encoder with it beforehand.")
    ours = {"adapter": _our_adapter(config.get("modality_adapter") or {})}
    for part, name in (("preprocessor", "AudioToMelSpectrogramPreprocessor"), ("encoder", "ConformerEncoder")):
        if section := config.get(part):
            _check_class(section, f"perception.{part}", name)
            ours[part] = {key: value for key, value in section.items() if key not in ("_target_", "target")}
    context = ours.get("encoder", {}).get("att_context_size")
    if context and isinstance(context[0], list):  # an encoder of several contexts runs with its first
        ours["encoder"] |= {"att_context_size": context[0], "att_context_probs": None}
    if config.get("output_dim") is not None:
        ours["output_dim"] = config["output_dim"]
    return ours


def their_perception(config: Mapping[str, Any]) -> dict[str, Any]:
    """The in-tree `perception` section for a complete configuration of `Perception` or `WholePerception`.

    Raises:
        InputError: for an encoder or an adapter that in-tree models do not have.
    """
    adapter, encoder = config["adapter"], config["encoder"]
    if is_whisper(encoder):
        raise InputError(
            "perception.encoder is of kind 'whisper', which in-tree models do not have. Train a model with a FastConformer."
        )
    if adapter["kind"] == "mlp":
        raise InputError(
            "perception.adapter.kind is 'mlp', which in-tree models do not have: only conformer and identity. "
            "Train a model with model.perception.adapter.kind=conformer."
        )
    width = encoder["feat_out"] if encoder.get("feat_out", -1) > 0 else encoder["d_model"]
    if adapter["kind"] == "identity":
        theirs = {"_target_": f"{_IN_TREE}.IdentityConnector", "d_model": width}
    else:
        theirs = {"_target_": f"{_MODULES}.ConformerEncoder", **conformer_adapter(encoder, adapter, width)}
    return {
        "target": f"{_IN_TREE}.AudioPerceptionModule",
        "preprocessor": {"_target_": f"{_MODULES}.AudioToMelSpectrogramPreprocessor", **config["preprocessor"]},
        "encoder": {"_target_": f"{_MODULES}.ConformerEncoder", **encoder},
        "modality_adapter": theirs,
        "output_dim": config["output_dim"],
    }


def _our_adapter(adapter: Mapping[str, Any]) -> dict[str, Any]:
    name = _class_name(adapter)
    own = {key: value for key, value in adapter.items() if key not in ("_target_", "target")}
    if name == "ConformerEncoder":
        # Keys that are not given: ours takes them from the encoder, theirs from the defaults of NeMo's class.
        return {"kind": "conformer", **_defaults(ConformerEncoder), **own}
    if name == "IdentityConnector":
        if "d_model" not in own or "output_dim" in own:
            raise InputError(
                "perception.modality_adapter: an IdentityConnector without d_model, or with output_dim, has no projection to "
                "the language model: give it d_model (the encoder's) alone."
            )
        return {"kind": "identity"}
    raise InputError(
        f"perception.modality_adapter is a {name or 'part without _target_'}, expected a ConformerEncoder or an "
        "IdentityConnector: connectors that read several encoder layers (Q-Former, multi-layer projection) are not supported."
    )


def _check_class(section: Mapping[str, Any], where: str, expected: str) -> None:
    if (name := _class_name(section)) not in ("", expected):
        raise InputError(f"{where} is a {name}, expected {expected}.")


def _class_name(section: Mapping[str, Any]) -> str:
    return str(section.get("_target_") or section.get("target") or "").rsplit(".", 1)[-1]


def _defaults(module: type) -> dict[str, Any]:
    """The default values of a constructor's arguments."""
    parameters = inspect.signature(module).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
