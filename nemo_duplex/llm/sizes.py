"""Refuses a language model whose sizes do not fit each other, such as 3 heads of keys for 4 heads of queries.

transformers builds such a model, and its first frame fails. The trial (`trial.py`) runs a narrow model, which hides it. So one
frame goes through the real sizes on torch's meta device, which computes shapes and no numbers, and so takes no memory.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from nemo_duplex.inputs import InputError, one_line
from nemo_duplex.llm.streamable import llm_name

# By which names families give a size.
_HEADS = ("num_attention_heads",)
HEADS_OF_KEYS = ("num_key_value_heads", "num_kv_heads")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
EXPERTS_OF_A_TOKEN = ("num_experts_per_tok", "moe_topk", "moe_k")
_GROUPS, _GROUPS_OF_A_TOKEN = ("n_group",), ("topk_group",)
_NAMED = (*_HEADS, *HEADS_OF_KEYS, *EXPERTS, *EXPERTS_OF_A_TOKEN, *_GROUPS, *_GROUPS_OF_A_TOKEN, "hidden_size", "head_dim")


def check_sizes(model: PreTrainedModel, narrow: PreTrainedModel | None) -> None:
    """Refuses a model that has no output for a frame, because of its sizes.

    Args:
        narrow: a model of the same architecture that has one. What fails for both is no matter of sizes: not all that a family
            does is possible on the meta device. None looks for weights without entries alone.

    Raises:
        InputError: naming the sizes of the config that do not fit each other, else those that may be meant.
    """
    name = llm_name(model.config)
    empty = next((f"{key} is ({', '.join(map(str, w.shape))})" for key, w in model.named_parameters() if not w.numel()), None)
    if empty:
        raise InputError(f"The language model {name} has a weight without entries: {empty}. Set no size in its config to 0.")
    fault = None if narrow is None else _fault(model)
    if narrow is None or fault is None or isinstance(fault, NotImplementedError) or _fault(narrow) is not None:
        return
    sizes = model.config.to_dict()
    wrong = next(_misfits(sizes), None)
    if wrong is None:
        given = ", ".join(f"{key} {sizes[key]}" for key in _NAMED if sizes.get(key) is not None)
        wrong = (
            f"its sizes do not fit each other ({type(fault).__name__}: {one_line(fault)}). Correct them in its config: {given}."
        )
    raise InputError(f"The language model {name} cannot be run: {wrong}") from fault


def _fault(model: PreTrainedModel) -> Exception | None:
    """What happens if two frames go through layers of the sizes of `model`; None if nothing does."""
    config = copy.deepcopy(model.config)
    frames = torch.zeros(1, 2, config.hidden_size, device="meta")
    positions = torch.zeros(1, 2, dtype=torch.long, device="meta")
    try:
        with torch.device("meta"), torch.no_grad():
            built = type(model)(config).float().eval()
            if built._can_set_experts_implementation():  # others ask how many tokens an expert has, which is a number
                built.set_experts_implementation("batched_mm")
            mask = torch.zeros(1, 1, 2, 2)  # without one transformers asks what is in it
            built.base_model(inputs_embeds=frames, attention_mask=mask, position_ids=positions, use_cache=False)
    except Exception as error:  # a family may raise anything
        return error
    return None


def _misfits(sizes: Mapping[str, Any]) -> Iterator[str]:
    """What is known to be wrong with the sizes of a config, and how to correct it."""
    (heads, here), (keys, there) = _size(sizes, _HEADS), _size(sizes, HEADS_OF_KEYS)
    if here and there and here % there:
        yield f"{keys} is {there} and {heads} {here}, expected a multiple of it. Set {keys} to a number that divides {here}."
    (experts, count), (used, most) = _size(sizes, EXPERTS), _size(sizes, EXPERTS_OF_A_TOKEN)
    if count and most and most > count:
        yield f"{used} is {most} and {experts} {count}. Set {used} to {count} or less."
    (groups, parts), (used, most) = _size(sizes, _GROUPS), _size(sizes, _GROUPS_OF_A_TOKEN)
    if count and parts and (count % parts or count // parts < 2):
        yield f"{groups} is {parts} and {experts} {count}, expected equal groups of 2 or more. Set {groups} and {used} to 1."
    if parts and most and most > parts:
        yield f"{used} is {most} and {groups} {parts}. Set {used} to {parts} or less."


def _size(sizes: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, int | None]:
    """The name by which a family gives a size, and the size; None if it gives none."""
    return next(((name, sizes[name]) for name in names if isinstance(sizes.get(name), int)), (names[0], None))
