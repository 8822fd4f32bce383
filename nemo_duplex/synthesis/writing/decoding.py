"""Many texts at a time by one language model, token by token in step, each with random numbers of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

# Texts that are done are taken out of the batch when so many are left: each time costs a copy of the cache.
_FEWEST_LIVE = 0.75
_NUM_LIKELY = 64  # tokens among which one is drawn


class Draft(Protocol):
    """A text that is being written."""

    #: Tokens that are given and not drawn, the next one first. Never empty at the start.
    given: list[int]
    #: Whether it takes no more tokens.
    done: bool
    #: How the next token is drawn: logits are divided by `temperature`; of the likeliest tokens that together have the
    #: probability `top_p`, one.
    temperature: float
    top_p: float

    def random(self) -> float:
        """The next random number of this text, 0 to 1."""
        ...

    def take(self, token: int, log_prob: float) -> None:
        """Takes a drawn token: continues with it by putting it into `given`, or with others, or is `done`.

        Args:
            log_prob: natural logarithm of the model's probability of the token, at temperature 1.
        """
        ...


@torch.inference_mode()
def write(model: PreTrainedModel, beginning: Sequence[int], drafts: Sequence[Draft], most_tokens: int) -> int:
    """Writes all `drafts` to their ends; returns how many tokens were drawn.

    Args:
        model: a causal language model of the Llama family.
        beginning: tokens before all drafts, computed once.
        most_tokens: of a text, `beginning` and what is given included; a draft that is not done then stays as it is.
    """
    live = list(drafts)
    cache = StepCache(model.config.num_hidden_layers, len(live), most_tokens)
    model.base_model(input_ids=torch.tensor([list(beginning)]), past_key_values=cache, use_cache=True)
    cache.advance(len(beginning))
    fed = [draft.given.pop(0) for draft in live]
    num_drawn = 0
    while live and cache.length < most_tokens:
        hidden = model.base_model(input_ids=torch.tensor(fed)[:, None], past_key_values=cache, use_cache=True)
        cache.advance(1)
        waiting = [row for row, draft in enumerate(live) if not draft.given and not draft.done]
        if waiting:
            _draw(model.lm_head(hidden.last_hidden_state[waiting, 0]).float(), [live[row] for row in waiting])
            num_drawn += len(waiting)
        stay = [row for row, draft in enumerate(live) if not draft.done]
        if len(stay) <= _FEWEST_LIVE * len(live):
            cache.keep(stay)
            live = [live[row] for row in stay]
        fed = [draft.given.pop(0) if draft.given else 0 for draft in live]
    return num_drawn


def _draw(logits: Tensor, drafts: Sequence[Draft]) -> None:
    """Draws a token for each draft by its row of logits (B, V)."""
    likely, tokens = logits.topk(_NUM_LIKELY, dim=-1)
    log_probs = likely - logits.logsumexp(-1, keepdim=True)
    shares = (likely / torch.tensor([[draft.temperature] for draft in drafts])).softmax(-1)
    before = shares.cumsum(-1) - shares
    shares = shares.masked_fill(before >= torch.tensor([[draft.top_p] for draft in drafts]), 0).cumsum(-1)
    drawn = torch.tensor([[draft.random()] for draft in drafts]) * shares[:, -1:]
    place = torch.searchsorted(shares, drawn, right=True).clamp(max=_NUM_LIKELY - 1)
    chosen = torch.cat([tokens.gather(1, place), log_probs.gather(1, place)], 1).tolist()
    for draft, (token, log_prob) in zip(drafts, chosen):
        draft.take(int(token), log_prob)


class StepCache:
    """Keys and values of texts that are equally long, as the `past_key_values` that transformers 5 needs.

    Its tensors are allocated once; attention reads the filled part without a copy and without a mask.

    Args:
        num_layers: of the model.
        rows: number of texts. The first tokens are of one row, which all of them share.
        most_tokens: of a text.
    """

    is_compileable = False
    is_initialized = True
    layers: tuple[()] = ()

    def __init__(self, num_layers: int, rows: int, most_tokens: int) -> None:
        self.length = 0
        self.is_sliding = [False] * num_layers
        self._rows, self._most = rows, most_tokens
        self._filled: list[tuple[Tensor, Tensor] | None] = [None] * num_layers

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Adds (1 or B, heads, n, size) of a layer; returns all of them (1 or B, heads, length + n, size)."""
        if self._filled[layer_idx] is None:
            self._filled[layer_idx] = (self._empty(keys), self._empty(values))
        buffers, end = self._filled[layer_idx], self.length + keys.shape[2]
        assert buffers is not None
        for buffer, new in zip(buffers, (keys, values)):
            buffer[:, :, self.length : end] = new  # of one row, it is written to all
        return buffers[0][: len(keys), :, :end], buffers[1][: len(values), :, :end]

    def _empty(self, new: Tensor) -> Tensor:
        return new.new_empty(self._rows, new.shape[1], self._most, new.shape[3])

    def advance(self, tokens: int) -> None:
        """Counts tokens that all layers took."""
        self.length += tokens

    def keep(self, rows: Sequence[int]) -> None:
        """Forgets all texts but `rows`."""
        index, self._rows = torch.tensor(rows, dtype=torch.long), len(rows)
        for layer, buffers in enumerate(self._filled):
            assert buffers is not None
            kept = tuple(self._empty(buffer) for buffer in buffers)
            for new, old in zip(kept, buffers):
                new[:, :, : self.length] = old[index, :, : self.length]
            self._filled[layer] = (kept[0], kept[1])

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens so far, from which transformers counts positions."""
        return self.length

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """The position of the next token."""
        return self.length

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """(keys that the next `query_length` tokens attend to, the position of the first of them)."""
        return self.length + query_length, 0
