"""Many texts in step are what each of them would be alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nemo_duplex.synthesis.writing.decoding import write
from tests.llm.tiny_gguf import model

BEGINNING = [5, 9, 2]


class Fixed:
    """A draft of `length` drawn tokens after `begins`; keeps what it took."""

    def __init__(self, begins: list[int], length: int, seed: int = 0, temperature: float = 1.0, top_p: float = 1.0) -> None:
        self.given, self.done = list(begins), False
        self.temperature, self.top_p = temperature, top_p
        self._length, self._rng = length, np.random.default_rng(seed)
        self.taken: list[int] = []
        self.log_probs: list[float] = []

    def random(self) -> float:
        return self._rng.random()

    def take(self, token: int, log_prob: float) -> None:
        assert not self.done
        self.taken.append(token)
        self.log_probs.append(log_prob)
        self.given = [token]
        if len(self.taken) == self._length:
            self.done, self.given = True, []


def greedy(length: int, begins: list[int]) -> list[int]:
    """What transformers itself continues with, without a cache."""
    llm, tokens = model(), BEGINNING + begins
    for _ in range(length):
        tokens = [*tokens, int(llm(input_ids=torch.tensor([tokens])).logits[0, -1].argmax())]
    return tokens[len(BEGINNING) + len(begins) :]


def test_the_likeliest_tokens_are_those_of_transformers():
    drafts = [Fixed([7], 6, top_p=1e-6), Fixed([8, 30, 31, 32], 2, top_p=1e-6), Fixed([40, 41], 9, top_p=1e-6)]
    drawn = write(model(), BEGINNING, drafts, most_tokens=40)
    assert [draft.taken for draft in drafts] == [greedy(6, [7]), greedy(2, [8, 30, 31, 32]), greedy(9, [40, 41])]
    assert drawn == 6 + 2 + 9


def test_a_log_probability_is_of_the_model_at_temperature_1():
    (draft,) = [Fixed([7], 1, temperature=0.1, top_p=1e-6)]
    write(model(), BEGINNING, [draft], most_tokens=40)
    logits = model()(input_ids=torch.tensor([[*BEGINNING, 7]])).logits[0, -1]
    assert draft.log_probs == [pytest.approx(logits.log_softmax(-1).max().item(), abs=1e-5)]


def test_a_text_is_the_same_in_any_batch():
    """Its random numbers are its own; the others may end before it or after it."""
    alone = [Fixed([7 + n], 12, seed=n) for n in range(4)]
    for draft in alone:
        write(model(), BEGINNING, [draft], most_tokens=40)
    together = [Fixed([7 + n], 12, seed=n) for n in range(4)]
    short = [Fixed([50 + n], 1 + n, seed=90 + n) for n in range(8)]
    write(model(), BEGINNING, [*short[:4], *together, *short[4:]], most_tokens=40)
    assert [draft.taken for draft in together] == [draft.taken for draft in alone]
    assert len({tuple(draft.taken) for draft in together}) == 4


def test_top_p_leaves_the_likely_ones_and_temperature_spreads():
    def drawn(**how: float) -> set[int]:
        drafts = [Fixed([7], 1, seed=seed, **how) for seed in range(200)]
        write(model(), BEGINNING, drafts, most_tokens=40)
        return {draft.taken[0] for draft in drafts}

    shares = model()(input_ids=torch.tensor([[*BEGINNING, 7]])).logits[0, -1].softmax(-1).sort(descending=True)
    within = int((shares.values.cumsum(0) - shares.values < 0.5).sum())
    likely = set(shares.indices[:within].tolist())
    assert drawn(top_p=0.5) <= likely and not drawn() <= likely and len(drawn(top_p=0.5)) > 1
    assert len(drawn(temperature=0.05)) < len(drawn()) < len(drawn(temperature=3.0))


def test_a_text_that_does_not_end_is_left_as_it_is():
    draft = Fixed([7], 1000)
    write(model(), BEGINNING, [draft], most_tokens=20)
    assert not draft.done and len(draft.taken) == 20 - len(BEGINNING)
