"""The door of `Perception`: its configuration completed, and everything refused that cannot run frame by frame at 80 ms."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from nemo_duplex.frames import FRAME_RATE
from nemo_duplex.inputs import InputError
from nemo_duplex.models.log_mel import streamable

_KEYS = ("preprocessor", "encoder", "adapter", "output_dim")

#: What each argument of a cache-aware ConformerEncoder must be, and what it is there for.
_CACHE_AWARE = {
    "att_context_style": (("chunked_limited",), "attention must stay within chunks"),
    "self_attention_model": (("rel_pos",), "positions must be relative"),
    "causal_downsampling": ((True,), "the subsampling must not see the future"),
    "conv_context_size": (("causal",), "convolutions must not see the future"),
    "subsampling": (("dw_striding", "striding"), "the subsampling must be made of strided convolutions"),
    "reduction": ((None,), "frames must keep their rate"),
}
#: NeMo's own values where a configuration is silent about them.
_NEMO_DEFAULTS = {"att_context_style": "regular", "self_attention_model": "rel_pos", "causal_downsampling": False}
_NEMO_DEFAULTS |= {"conv_context_size": None, "subsampling": "striding", "reduction": None}


def perception_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of `Perception`, complete and plain.

    Raises:
        InputError: for an unknown or missing key, an encoder that is not cache-aware, or frames that are not 80 ms long.
    """
    config = _plain(config)
    for key in config:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.0)[0]
            raise InputError(f"perception: unknown key {key!r}. Did you mean {near!r}?")
    for key in ("preprocessor", "encoder", "output_dim"):
        if key not in config:
            raise InputError(f"perception: there is no key {key!r}. It needs {', '.join(_KEYS)}.")
    preprocessor = streamable(config["preprocessor"])
    encoder = cache_aware({key: value for key, value in config["encoder"].items() if key != "_target_"})
    encoder.setdefault("feat_in", preprocessor["features"])
    _check_frames(preprocessor, encoder)
    adapter = _adapter(config.get("adapter") or {}, encoder)
    return {"preprocessor": preprocessor, "encoder": encoder, "adapter": adapter, "output_dim": config["output_dim"]}


def cache_aware(encoder: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a ConformerEncoder that can be streamed.

    Raises:
        InputError: naming the argument that stands against it.
    """
    for key, (allowed, reason) in _CACHE_AWARE.items():
        if (value := encoder.get(key, _NEMO_DEFAULTS[key])) not in allowed:
            raise InputError(
                f"encoder.{key} is {value!r}, expected {' or '.join(repr(a) for a in allowed)}: {reason}. "
                "Take a cache-aware streaming checkpoint, such as stt_en_fastconformer_hybrid_large_streaming_80ms."
            )
    context: Any = encoder.get("att_context_size")
    pair = isinstance(context, list) and len(context) == 2 and all(isinstance(side, int) for side in context)
    if not pair or min(context) < 0 or context[0] % (context[1] + 1):
        raise InputError(
            f"encoder.att_context_size is {context!r}, expected [left, right] frames such as [70, 1], "
            "with left a multiple of right + 1."
        )
    return encoder


def conformer_adapter(encoder: Mapping[str, Any], adapter: Mapping[str, Any], width: int) -> dict[str, Any]:
    """The arguments of a Conformer adapter: the encoder's, without subsampling, and what `adapter` says otherwise."""
    own = {key: value for key, value in adapter.items() if key != "kind"}
    return {**encoder, "feat_in": width, "subsampling_factor": 1, **own}


def _adapter(adapter: dict[str, Any], encoder: dict[str, Any]) -> dict[str, Any]:
    kind = adapter.get("kind", "mlp")
    if kind == "mlp":
        adapter = {"kind": kind, "hidden": 2 * encoder["d_model"], **adapter}
        if unknown := set(adapter) - {"kind", "hidden"}:
            raise InputError(f"perception.adapter: an mlp has no key {sorted(unknown)[0]!r}, only 'hidden'.")
        return adapter
    if kind != "conformer":
        raise InputError(f"perception.adapter.kind is {kind!r}, expected 'mlp' or 'conformer'.")
    adapter = {"kind": kind, "n_layers": 2, **adapter}
    context = adapter.get("att_context_size", encoder["att_context_size"])
    if context[1] != encoder["att_context_size"][1]:
        raise InputError(
            f"perception.adapter.att_context_size is {context}: its right context must be the encoder's, "
            f"{encoder['att_context_size'][1]}, so that both work on the same bursts."
        )
    return adapter


def _check_frames(preprocessor: Mapping[str, Any], encoder: Mapping[str, Any]) -> None:
    hop, factor = preprocessor.get("window_stride", 0.01), encoder.get("subsampling_factor", 4)
    if abs(hop * factor - FRAME_RATE.seconds) > 1e-6:
        raise InputError(
            f"The encoder's frames are {1000 * hop * factor:g} ms long ({1000 * hop:g} ms hop, subsampling by {factor}), "
            f"expected {1000 * FRAME_RATE.seconds:g} ms: take an encoder with subsampling_factor "
            f"{FRAME_RATE.seconds / hop:g}."
        )


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(config, DictConfig):
        config = OmegaConf.create(dict(config))
    return OmegaConf.to_container(config, resolve=True)
