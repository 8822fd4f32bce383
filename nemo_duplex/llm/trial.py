"""A trial whether a language model streams: in transformers, whole here, and frame by frame it computes the same.

The weights that a model has may hide a fault: an RMSNorm of keys behind their rotation, as HunYuan has it, changes nothing
while its gains are 1, as fresh ones are, and makes a session depend on its age once they are trained. So the trial runs with
weights of its own, large and uneven. And it runs a narrow model of the same architecture, so that it takes less than a second
for a model of any size. It says the same of a model before and after its training.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from nemo_duplex.inputs import InputError, one_line
from nemo_duplex.llm.backbone import Backbone
from nemo_duplex.llm.rope import trained_positions
from nemo_duplex.llm.sizes import EXPERTS, EXPERTS_OF_A_TOKEN, HEADS_OF_KEYS, check_sizes
from nemo_duplex.llm.streamable import ADVICE, llm_name
from nemo_duplex.training.evaluation_mode import evaluating

_FRAMES = 8
#: A frame of a session that has lasted for a day, with frames of 80 ms.
_LATE = 1_000_000
#: Frames that a layer of the narrow model looks back on where its family gives it a window: less than the trial has.
_OWN_WINDOW = 3
_OWN_WINDOWS = ("sliding_window", "window_size")
_WIDTHS = ("hidden_size", "word_embed_proj_dim")
#: What makes a model large and its layers no different, as transformers names it, and how large it is in the narrow model.
_SIZES = {
    "vocab_size": 64,
    **dict.fromkeys(("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("shared_intermediate_size", "ffn_dim", "ffn_hidden_size", "expert_ffn_hidden_size"), 32),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 32),
    **dict.fromkeys(EXPERTS, 4),
    **dict.fromkeys(EXPERTS_OF_A_TOKEN, 2),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
}


def check_streaming(model: PreTrainedModel, backbone: Backbone) -> None:
    """Refuses a model that does not compute here, whole and frame by frame, what it computes in transformers.

    With a window in every layer a session has no end, so that the output may depend on how far frames are apart and on nothing
    else: it must be the same at positions beyond the trained ones. Without, no frame ever gets such a position (`cache.py`).
    Nothing is allocated for the positions of the model, and its weights stay as they are, to the bit.

    Args:
        model: the `...ForCausalLM` around the layers of `backbone`.

    Raises:
        InputError: naming the model and what differs, or sizes that do not fit each other (`sizes.py`).
    """
    narrow = _narrow(model)
    check_sizes(model, narrow)
    try:
        if narrow is None:
            _try(model, backbone, backbone.windowed)
        else:
            tried = Backbone({}, weights=narrow)
            _try(narrow, tried, backbone.windowed)
            backbone.ends = tried.ends
    except _Fault as fault:
        raise InputError(f"The language model {llm_name(model.config)} {fault}") from fault.__cause__
    backbone.check_kept_frames()


class _Fault(Exception):
    """What is wrong with a model, with the advice what to do."""


def _try(model: PreTrainedModel, backbone: Backbone, windowed: bool) -> None:
    """Runs all passes with weights of the trial.

    Raises:
        _Fault: for the first that cannot be made or differs.
    """
    weight, rows = backbone.lm_head.weight, backbone.embed_tokens.num_embeddings
    tokens = torch.arange(3, 3 + 2 * min(_FRAMES, backbone.positions), device=weight.device).view(2, -1) % rows
    with torch.no_grad(), evaluating(model), _other_weights(model), _looking_back(backbone, None):
        frames = backbone.embed_tokens(tokens)
        with _cannot("be run in transformers"), _own_embedding(backbone):
            expected = model(input_ids=tokens, use_cache=False).logits
        with _cannot("stream"):
            whole = backbone(frames.clone())  # which CTRL scales in place
            _same(backbone.text_logits(whole), expected, "whole here than in transformers")
            _same(_stepped(backbone, frames), whole, "frame by frame here than as a whole")
        if windowed:
            _try_with_window(backbone, frames)
        else:
            backbone.ends = _ends(backbone, frames)


def _try_with_window(backbone: Backbone, frames: Tensor) -> None:
    own_windows, advice = backbone.windowed, None
    if not own_windows:
        advice = "With model.attention_window a session has no end; set it to null, which this model can do."
    with _cannot("stream", advice):
        for start in (backbone.positions, _LATE):
            _same(_at(backbone, frames, start), _at(backbone, frames, 0), "after a while than at the start", advice)
        with _looking_back(backbone, 2):
            _same(_stepped(backbone, frames), backbone(frames.clone()), "frame by frame here than as a whole", advice)


def _at(backbone: Backbone, frames: Tensor, start: int) -> Tensor:
    """The hidden states (B, T, H) of frames that are at the positions from `start` on."""
    positions = torch.arange(frames.shape[1], device=frames.device)[None] + start
    return backbone.llm(inputs_embeds=frames.clone(), position_ids=positions, use_cache=False).last_hidden_state


def _ends(backbone: Backbone, frames: Tensor) -> bool:
    """Whether there are no positions beyond the trained ones, as they are learnt or in a table."""
    try:
        _at(backbone, frames, backbone.positions)
    except Exception:  # a table of any kind may raise anything
        return True
    return False


def _stepped(backbone: Backbone, frames: Tensor) -> Tensor:
    """The hidden states (2, T, H) of two sessions frame by frame, the second three frames younger."""
    cache, (_, length, _) = backbone.empty_cache(2, frames=frames.shape[1]), frames.shape
    late, found = torch.tensor([0, 3], device=frames.device), torch.zeros_like(frames)
    for t in range(length + 3):
        age = t - late
        live, row = (age >= 0) & (age < length), torch.arange(2, device=frames.device)
        now = age.clamp(0, length - 1)
        hidden = backbone.step(frames[row, now][:, None], cache, live)[:, 0]
        found[row[live], now[live]] = hidden[live]
    return found


def _same(here: Tensor, there: Tensor, where: str, advice: str | None = None) -> None:
    tolerance = 1e-3 if here.dtype == torch.float32 else 0.1
    difference = ((here - there).abs().max() / there.float().std().clamp(min=1e-6)).item()
    if not difference < tolerance:
        found = f"(relative difference {difference:.2g}, expected below {tolerance:g})"
        raise _Fault(f"computes something else {where} {found}. {advice or ADVICE}")


@contextmanager
def _cannot(what: str, advice: str | None = None) -> Iterator[None]:
    try:
        yield
    except _Fault:
        raise
    except Exception as error:  # a family that takes other arguments may raise anything
        raise _Fault(f"cannot {what} ({type(error).__name__}: {one_line(error)}). {advice or ADVICE}") from error


@contextmanager
def _looking_back(backbone: Backbone, window: int | None) -> Iterator[None]:
    """With this window and no sinks."""
    own = backbone.attention_window, backbone.sinks
    backbone.attention_window, backbone.sinks = window, 0
    try:
        yield
    finally:
        backbone.attention_window, backbone.sinks = own


@contextmanager
def _own_embedding(backbone: Backbone) -> Iterator[None]:
    """With the token embedding at its place in the layers, so that these take tokens."""
    backbone.llm.set_input_embeddings(backbone.embed_tokens)
    try:
        yield
    finally:
        backbone.llm.set_input_embeddings(nn.Identity())


# ---------------------------------------------------------------------- weights and sizes of the trial


@contextmanager
def _other_weights(model: nn.Module) -> Iterator[None]:
    """With large, uneven weights in place of the model's own, which are not copied and come back as they were."""
    own = [(weight, weight.data) for weight in model.parameters()]
    generator = torch.Generator().manual_seed(0)
    try:
        for weight, data in own:
            weight.data = _noise(data.shape, generator).to(data)
        yield
    finally:
        for weight, data in own:
            weight.data = data


def _noise(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Gains around 1, or a matrix that about keeps the size of what it multiplies.

    Rows of a matrix share their memory, each begins an entry later; so do matrices of experts, which must be whole ones.
    """
    strides = [1] * len(shape) if len(shape) < 3 else [16] * (len(shape) - 2) + [shape[-1], 1]
    count = 1 + sum(stride * (size - 1) for stride, size in zip(strides, shape))
    numbers = torch.randn(count, generator=generator)
    numbers = 1 + 0.4 * numbers if len(shape) < 2 else 1.6 / shape[-1] ** 0.5 * numbers
    return numbers.as_strided(shape, strides)


def _narrow(model: PreTrainedModel) -> PreTrainedModel | None:
    """A model of the same architecture with few features, experts and tokens, and all its layers; None if that is none."""
    try:
        config = _narrow_config(model.config)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            narrow = type(model)(config).float().eval()
            narrow(inputs_embeds=torch.zeros(1, 2, config.hidden_size), use_cache=False)
    except Exception:  # sizes that depend on each other in a way of the family's own
        return None
    return narrow


def _narrow_config(config: PretrainedConfig) -> PretrainedConfig:
    width, heads, of_keys = config.hidden_size, config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    narrow_width = 2 * width // heads if getattr(config, "head_dim", None) in (None, width // heads) else 64
    sizes = {name: _OWN_WINDOW for name in _OWN_WINDOWS if (getattr(config, name, None) or _LATE) < trained_positions(config)}
    sizes |= _SIZES | {"num_attention_heads": 2} | dict.fromkeys(HEADS_OF_KEYS, 2 if of_keys in (heads, None) else 1)
    sizes |= {name: narrow_width for name in _WIDTHS if getattr(config, name, None) == width}
    narrow = copy.deepcopy(config)
    for name, size in sizes.items():
        given = getattr(narrow, name, None)
        if isinstance(given, int) and given > size:
            setattr(narrow, name, size)
    return narrow
