"""The configuration of a `Perception`: completed, and refused if it cannot run frame by frame at 80 ms.

`WholePerception` has the same configuration, except that its encoder may depend on the whole recording.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from nemo_duplex.frames import FRAME_RATE
from nemo_duplex.inputs import InputError, plain, refuse_unknown
from nemo_duplex.perception.front_end import streamable

_KEYS = ("preprocessor", "encoder", "adapter", "output_dim", "whole_recordings")
_KINDS = ("mlp", "conformer", "identity")
#: Encoders, and the arguments that a description may leave out.
_WHISPER = {"d_model": 384, "n_layers": 4, "n_heads": 6, "ff_expansion_factor": 4, "att_context_size": [70, 1], "feat_out": -1}
_WHISPER_CLASS = "StreamingWhisperEncoder"

#: The allowed values of each argument of a cache-aware ConformerEncoder, and the reason.
_CACHE_AWARE = {
    "att_context_style": (("chunked_limited",), "attention must stay within chunks"),
    "self_attention_model": (("rel_pos",), "positions must be relative"),
    "causal_downsampling": ((True,), "the subsampling must not see the future"),
    "conv_context_size": (("causal",), "convolutions must not see the future"),
    "subsampling": (("dw_striding", "striding"), "the subsampling must be made of strided convolutions"),
    "reduction": ((None,), "frames must keep their rate"),
}
_CURES = {
    "encoder": "Take a cache-aware streaming checkpoint, such as stt_en_fastconformer_hybrid_large_streaming_80ms.",
    "perception.adapter": "Leave it out: then it is the encoder's.",
}
#: What a Conformer needs to run in a stream behind another encoder.
_STREAMED: dict[str, Any] = {"att_context_style": "chunked_limited", "conv_context_size": "causal"}
_STREAMED |= {"conv_norm_type": "layer_norm", "xscaling": False}
#: NeMo's own values of arguments that a configuration leaves out.
_NEMO_DEFAULTS = {"att_context_style": "regular", "self_attention_model": "rel_pos", "causal_downsampling": False}
_NEMO_DEFAULTS |= {"conv_context_size": None, "subsampling": "striding", "reduction": None}


def perception_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of `Perception`, complete and plain.

    Raises:
        InputError: for an unknown or missing key, an encoder that is not cache-aware, or frames that are not 80 ms long.
    """
    config = _described(config)
    preprocessor = streamable(config["preprocessor"])
    encoder = _encoder(config["encoder"], preprocessor["features"])
    _check_frames(preprocessor, encoder)
    adapter = _adapter(config.get("adapter") or {}, encoder)
    if adapter["kind"] == "conformer":
        cache_aware(conformer_adapter(encoder, adapter, encoder["d_model"]), "perception.adapter")
        context, right = adapter.get("att_context_size", encoder["att_context_size"]), encoder["att_context_size"][1]
        if context[1] != right:
            raise InputError(
                f"perception.adapter.att_context_size is {context}: its right context must be the encoder's, {right}, "
                "so that both work on the same encoder chunks."
            )
    return {"preprocessor": preprocessor, "encoder": encoder, "adapter": adapter, "output_dim": config["output_dim"]}


def whole_perception_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of `WholePerception`, complete and plain, with `whole_recordings: true`.

    Raises:
        InputError: for an unknown or missing key, or frames that are not 80 ms long.
    """
    config = _described(config)
    preprocessor = _arguments(config["preprocessor"]) | {"dither": 0.0, "pad_to": 0}
    encoder = _arguments(config["encoder"])
    if is_whisper(config["encoder"]):
        raise InputError("perception.encoder is of kind 'whisper', which hears streams. Leave out whole_recordings.")
    encoder.setdefault("feat_in", preprocessor.get("features", 64))
    _check_frames(preprocessor, encoder)
    adapter = _adapter(config.get("adapter") or {}, encoder)
    own = {"preprocessor": preprocessor, "encoder": encoder, "adapter": adapter, "output_dim": config["output_dim"]}
    return own | {"whole_recordings": True}


def cache_aware(encoder: dict[str, Any], what: Literal["encoder", "perception.adapter"] = "encoder") -> dict[str, Any]:
    """The arguments of a ConformerEncoder that can be streamed; `what` names it in errors.

    Raises:
        InputError: naming the argument that prevents it.
    """
    subsamples = encoder.get("subsampling_factor", 4) > 1
    for key, (allowed, reason) in _CACHE_AWARE.items():
        if key in ("causal_downsampling", "subsampling") and not subsamples:
            continue
        if (value := encoder.get(key, _NEMO_DEFAULTS[key])) not in allowed:
            expected = " or ".join(repr(a) for a in allowed)
            raise InputError(f"{what}.{key} is {value!r}, expected {expected}: {reason}. {_CURES[what]}")
    _check_context(encoder.get("att_context_size"), what)
    return encoder


def _check_context(context: Any, what: str) -> None:
    pair = isinstance(context, list) and len(context) == 2 and all(isinstance(side, int) for side in context)
    if not pair or min(context) < 0 or context[0] % (context[1] + 1):
        raise InputError(
            f"{what}.att_context_size is {context!r}, expected [left, right] frames such as [70, 1], "
            "with left a multiple of right + 1."
        )


def is_whisper(encoder: Mapping[str, Any]) -> bool:
    """Whether a section describes a `StreamingWhisperEncoder`: by `kind: whisper`, or by its class in a `.nemo`."""
    return encoder.get("kind") == "whisper" or str(encoder.get("_target_")).endswith(f".{_WHISPER_CLASS}")


def _encoder(section: Mapping[str, Any], mels: int) -> dict[str, Any]:
    """The arguments of an encoder that hears `mels` bands of a stream, complete, with the kind of one that is no Conformer."""
    if (kind := section.get("kind", "conformer")) not in ("conformer", "whisper"):
        raise InputError(f"perception.encoder.kind is {kind!r}, expected 'conformer' or 'whisper'.")
    arguments = {key: value for key, value in _arguments(section).items() if key != "kind"}
    if is_whisper(section):
        refuse_unknown(arguments, ("feat_in", *_WHISPER), "perception.encoder of kind whisper")
        arguments = {"kind": "whisper", "feat_in": mels, **_WHISPER, **arguments}
        _check_context(arguments["att_context_size"], "encoder")
    else:
        arguments = cache_aware(arguments)
        arguments.setdefault("feat_in", mels)
    if arguments["feat_in"] != mels:
        raise InputError(
            f"perception.encoder.feat_in is {arguments['feat_in']}, but the preprocessor gives {mels} features. Leave it out."
        )
    return arguments


def conformer_adapter(encoder: Mapping[str, Any], adapter: Mapping[str, Any], width: int) -> dict[str, Any]:
    """The arguments of a Conformer adapter: the encoder's, without subsampling, overridden by those of `adapter`.

    Raises:
        InputError: if it takes another number of features than the encoder's `width`, or makes frames longer.
    """
    own = {key: value for key, value in adapter.items() if key != "kind"}
    if is_whisper(encoder):
        shared = {key: encoder[key] for key in ("d_model", "n_heads", "att_context_size")}
        encoder = {**_STREAMED, **shared}
    complete = {**encoder, "feat_in": width, "subsampling_factor": 1, **own}
    if complete["feat_in"] != width:
        raise InputError(
            f"perception.adapter.feat_in is {complete['feat_in']}, but the encoder gives {width} features. Leave it out."
        )
    if complete["subsampling_factor"] != 1:
        factor = complete["subsampling_factor"]
        raise InputError(f"perception.adapter.subsampling_factor is {factor}, expected 1: frames must stay 80 ms long.")
    return complete


def _adapter(adapter: dict[str, Any], encoder: dict[str, Any]) -> dict[str, Any]:
    """The configuration of an adapter, complete."""
    kind = adapter.get("kind", "mlp")
    if kind not in _KINDS:
        raise InputError(f"perception.adapter.kind is {kind!r}, expected {' or '.join(repr(k) for k in _KINDS)}.")
    if kind == "conformer":
        return {"kind": kind, "n_layers": 2, **adapter}
    allowed = {"mlp": {"hidden": 2 * encoder["d_model"]}, "identity": {}}[kind]
    refuse_unknown(adapter, ("kind", *allowed), f"perception.adapter of kind {kind}")
    return {"kind": kind, **allowed, **adapter}


def _check_frames(preprocessor: Mapping[str, Any], encoder: Mapping[str, Any]) -> None:
    hop, factor = preprocessor.get("window_stride", 0.01), 8 if is_whisper(encoder) else encoder.get("subsampling_factor", 4)
    if abs(hop * factor - FRAME_RATE.seconds) > 1e-6:
        needed = FRAME_RATE.seconds / hop
        cure = f"take an encoder with subsampling_factor {needed:g}"
        if abs(needed - 2 ** round(math.log2(needed))) > 1e-6:  # NeMo subsamples by powers of two
            cure = "take one with window_stride 0.01 in its preprocessor and subsampling_factor 8"
        raise InputError(
            f"The encoder's frames are {1000 * hop * factor:g} ms long ({1000 * hop:g} ms hop, subsampling by {factor}), "
            f"expected {1000 * FRAME_RATE.seconds:g} ms: {cure}."
        )


def _described(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as plain data.

    Raises:
        InputError: for an unknown or a missing key.
    """
    config = plain(config)
    refuse_unknown(config, _KEYS, "perception")
    for key in ("preprocessor", "encoder", "output_dim"):
        if key not in config:
            raise InputError(f"perception: there is no key {key!r}. It needs preprocessor, encoder and output_dim.")
    return config


def _arguments(section: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a NeMo module: everything but its class."""
    return {key: value for key, value in section.items() if key != "_target_"}
