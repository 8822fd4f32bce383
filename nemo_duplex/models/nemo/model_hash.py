"""One hash over weights and network of a model: with the same hash, the same input tokens and audio give the same output.

Output is the agent's tokens, codes and audio. The tokenizer, which turns texts into tokens, is not covered.
"""

from __future__ import annotations

import hashlib
import json
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

# The keys of a model's config that change its output; the others say where its parts came from and how it is trained.
_HASHED_KEYS = (
    "llm",
    "attention_window",
    "sinks",
    "perception",
    "codec",
    "speech_delay",
    "turn_marks",
    "text_alignment",
    "user_weight",
)

_known: WeakKeyDictionary[nn.Module, tuple[Any, str]] = WeakKeyDictionary()
_lock = Lock()


def model_hash(model: nn.Module) -> str:
    """SHA-256 (64 hexadecimal digits) of name, dtype, shape and bytes of each weight, and of the config's keys that matter.

    Args:
        model: with its described config as `cfg`, such as a DuplexAgent.

    It is computed once (about half a second per gigabyte of weights) and again only after a weight has changed.
    """
    with _lock:
        now = _versions(model)
        before, digest = _known.get(model, (None, ""))
        if before != now:
            digest = _digest(model)
            _known[model] = now, digest
        return digest


def _digest(model: nn.Module) -> str:
    config = OmegaConf.to_container(model.cfg, resolve=True)
    assert isinstance(config, dict), "A model's config has keys."
    digest = hashlib.sha256(json.dumps({key: config.get(key) for key in _HASHED_KEYS}, sort_keys=True).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"\n{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(memoryview(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


def _versions(model: nn.Module) -> list[tuple[str, int, int]]:
    """What differs after any change of a weight: torch counts how often a tensor was written in place."""
    return [(name, weight.data_ptr(), _version(weight)) for name, weight in model.state_dict(keep_vars=True).items()]


def _version(weight: Tensor) -> int:
    return 0 if weight.is_inference() else weight._version
