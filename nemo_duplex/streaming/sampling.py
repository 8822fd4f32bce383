"""How text tokens and codes are chosen: greedily, or at random in a way that can be repeated.

Random numbers are a function, not a stream: the noise of one choice is a hash of (seed of the session, frame, channel, entry of
the vocabulary). So a session with a seed makes the same choices in any batch, in any row and on any device; it can be replayed
from any frame; and a step remains a graph of tensor operations. The choice itself is Gumbel-max: the entry with the largest
logit / temperature + Gumbel noise is a draw from the softmax (Gumbel 1954; Maddison et al. 2014).
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.inputs import InputError
from nemo_duplex.models.duplex_lm import FrameOutput

#: Text tokens without special ids that the repetition penalty looks back on: about five sentences.
REPETITION_WINDOW = 64
#: Seeds are the integers from 0 to this one.
MAX_SEED = 2**63 - 1
# A cumulative probability this close to top_p counts as having reached it, so that rounding does not add a token.
_MASS_EDGE = 1e-6


@dataclass(frozen=True)
class Sampling:
    """How one channel is chosen. The defaults are greedy.

    Args:
        temperature: 0 takes the most likely entry; 1 draws from the model's own probabilities.
        top_k: draws among the k most likely entries (of equal ones, those of lower id); 0 draws among all.
        top_p: draws among the most likely entries that together reach this probability (after temperature and top_k).
        repetition_penalty: text channel only: logits of the last `REPETITION_WINDOW` tokens without special ids are divided
            by it if positive and multiplied if negative (CTRL, section 4.1); 1 changes nothing.

    Raises:
        InputError: for a value out of range.

    Examples:
        >>> Sampling()
        Sampling(temperature=0.0, top_k=0, top_p=1.0, repetition_penalty=1.0)
        >>> Sampling(temperature=0.7, top_k=20).top_k
        20
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, "0, or a number from 0.001 to 1000", lambda x: x == 0 or 1e-3 <= x <= 1e3)
        _check("top_k", self.top_k, "a whole number from 0 to a billion", lambda x: 0 <= x <= 10**9 and x == int(x))
        _check("top_p", self.top_p, "a number above 0, up to 1", lambda x: 0 < x <= 1)
        _check("repetition_penalty", self.repetition_penalty, "a number from 0.01 to 100", lambda x: 0.01 <= x <= 100)


@dataclass(frozen=True)
class AgentSampling:
    """How a session's text and speech are chosen.

    Examples:
        >>> AgentSampling().greedy
        True
        >>> AgentSampling.of({"text": {"temperature": 0.7}}).text.temperature
        0.7
    """

    text: Sampling = field(default_factory=Sampling)
    speech: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if self.speech.repetition_penalty != 1:
            raise InputError(
                f"sampling.speech.repetition_penalty is {self.speech.repetition_penalty}, expected 1: sounds may repeat. "
                "Give it to sampling.text."
            )

    @property
    def greedy(self) -> bool:
        """Whether nothing is random or penalised, so that the choice is a plain argmax."""
        return self.text.temperature == self.speech.temperature == 0 and self.text.repetition_penalty == 1

    @classmethod
    def of(cls, given: AgentSampling | Mapping[str, Any] | None) -> AgentSampling:
        """Reads the option `sampling` of a session: None, or `{"text": {"temperature": 0.7}, "speech": Sampling(...)}`.

        Raises:
            InputError: for a channel or a key that does not exist, or a value out of range.
        """
        if given is None or isinstance(given, AgentSampling):
            return given or cls()
        _check_keys("sampling", given, ("text", "speech"))
        channels = {}
        for name, channel in given.items():
            if not isinstance(channel, Sampling):
                _check_keys(f"sampling.{name}", channel, tuple(f.name for f in fields(Sampling)))
                channel = Sampling(**channel)
            channels[name] = channel
        return cls(**channels)


def checked_seed(seed: Any) -> int:
    """`seed` if it is valid; a random one for None."""
    if seed is None:
        return secrets.randbelow(MAX_SEED)
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) <= MAX_SEED:
        raise InputError(f"seed is {seed!r}, expected a whole number from 0 to {MAX_SEED}.")
    return int(seed)


@dataclass
class SamplerState:
    """How each of B rows chooses, and its latest text tokens. Columns of (B, 2) are text and speech."""

    seed: Tensor  # (B,) int64
    temperature: Tensor  # (B, 2)
    top_k: Tensor  # (B, 2) int64, 0 for all
    top_p: Tensor  # (B, 2)
    penalty: Tensor  # (B,) of repeated text
    recent: Tensor  # (B, REPETITION_WINDOW) int64 text tokens, the latest last; -1 where there is none

    @classmethod
    def of(
        cls, sampling: AgentSampling, seed: int, num_rows: int = 1, device: torch.device | str | None = None
    ) -> SamplerState:
        """The state of new rows, all with the same options."""

        def column(name: str) -> Tensor:
            values = [getattr(channel, name) for channel in (sampling.text, sampling.speech)]
            return torch.tensor([values] * num_rows, device=device)

        return cls(
            seed=torch.full((num_rows,), seed, dtype=torch.long, device=device),
            temperature=column("temperature").float(),
            top_k=column("top_k").long(),
            top_p=column("top_p").float(),
            penalty=column("repetition_penalty")[:, 0].float(),
            recent=torch.full((num_rows, REPETITION_WINDOW), -1, dtype=torch.long, device=device),
        )


class RowSampler:
    """Chooses text tokens and codes of many rows at a time, each with its own options.

    Args:
        layout: the vocabularies.
    """

    def __init__(self, layout: ChannelLayout) -> None:
        self._layout = layout

    def choose(self, text: Tensor, speech: Tensor, state: SamplerState, frame: Tensor) -> FrameOutput:
        """The text token and codes of each row.

        Args:
            text: (B, V text) logits.
            speech: (B, K, V speech) logits.
            state: of the rows; not changed.
            frame: (B,) int64 index of this frame in its session.
        """
        text = penalised(text, state.recent, state.penalty)
        tokens = draw(text[:, None], state, 0, channel_key(state.seed, frame, text.new_zeros(1, dtype=torch.long)))
        codebooks = torch.arange(1, speech.shape[1] + 1, device=speech.device)
        return FrameOutput(tokens[:, 0], draw(speech, state, 1, channel_key(state.seed, frame, codebooks)))

    def remember(self, tokens: Tensor, state: SamplerState, live: Tensor) -> None:
        """Adds the text tokens (B,) of the rows of `live` (B,) bool to `state`, in place."""
        layout = self._layout
        special = (tokens == layout.text_pad) | (tokens == layout.text_bos) | (tokens == layout.text_eos)
        later = torch.cat([state.recent[:, 1:], tokens[:, None]], dim=1)
        state.recent.copy_(torch.where((live & ~special)[:, None], later, state.recent))


def penalised(logits: Tensor, recent: Tensor, penalty: Tensor) -> Tensor:
    """Logits (B, V) in which the tokens of `recent` (B, n), -1 for none, are made less likely by `penalty` (B,)."""
    seen = torch.zeros(len(logits), logits.shape[1] + 1, dtype=torch.bool, device=logits.device)
    seen.scatter_(1, torch.where(recent < 0, logits.shape[1], recent), True)
    less = torch.where(logits > 0, logits / penalty[:, None], logits * penalty[:, None]).to(logits.dtype)
    return torch.where(seen[:, :-1], less, logits)


def draw(logits: Tensor, state: SamplerState, channel: int, key: tuple[Tensor, Tensor]) -> Tensor:
    """One entry of each (B, N, V) logits -> (B, N): N draws per row with the options of `channel` (0 text, 1 speech).

    Args:
        key: of the noise (`channel_key`), two of (B, N).
    """
    temperature, top_k, top_p = (x[:, channel, None, None] for x in (state.temperature, state.top_k, state.top_p))
    scaled = logits.float() / torch.where(temperature > 0, temperature, 1.0)
    scaled, entry = scaled.sort(dim=-1, descending=True, stable=True)  # equal ones in the order of their ids
    rank = torch.arange(logits.shape[-1], device=logits.device)
    inside = (rank < top_k) | (top_k == 0)
    mass = scaled.masked_fill(~inside, -math.inf).double().softmax(-1)
    before = mass.cumsum(-1) - mass
    inside = inside & ((before < top_p - _MASS_EDGE) | (top_p >= 1) | (rank == 0))
    best = (scaled + gumbel(key, entry)).masked_fill(~inside, -math.inf).argmax(-1, keepdim=True)
    return torch.where(temperature[..., 0] > 0, entry.gather(-1, best)[..., 0], logits.argmax(-1))


# ---------------------------------------------------------------------- noise

_WORD = 0xFFFFFFFF


def channel_key(seed: Tensor, frame: Tensor, channel: Tensor) -> tuple[Tensor, Tensor]:
    """A key of 64 bits for the noise of one frame: seed (B,), frame (B,), channel (N,) -> two halves (B, N)."""
    halves = []
    for start in (0x243F6A88, 0x85A308D3):  # digits of pi
        half = torch.full_like(seed, start)
        for part in (seed & _WORD, (seed >> 32) & _WORD, frame):
            half = _mixed(half ^ part)
        halves.append(_mixed(half[:, None] ^ channel))
    return halves[0], halves[1]


def gumbel(key: tuple[Tensor, Tensor], entry: Tensor) -> Tensor:
    """Standard Gumbel noise (B, N, V) float32 of each `entry` (B, N, V) int64 of a vocabulary, for a key of two (B, N)."""
    word = _mixed((_mixed(entry ^ key[0][..., None]) + key[1][..., None]) & _WORD)
    # float32 is precise near 0, not near 1: so the large values of the noise, which win, are made from small numbers.
    unit = ((word.float() + 0.5) * 2.0**-32).clamp(max=1 - 2.0**-24)
    return -torch.log(-torch.log1p(-unit))


def _mixed(word: Tensor) -> Tensor:
    """A bijective hash of 32 bits (Wellons, hash-prospector), in int64 so that nothing overflows."""
    word = ((word ^ (word >> 16)) * 0x21F0AAAD) & _WORD
    word = ((word ^ (word >> 15)) * 0x735A2D97) & _WORD
    return word ^ (word >> 15)


# ---------------------------------------------------------------------- checks


def _check(name: str, value: Any, expected: str, fits: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not fits(value):  # NaN and infinity never fit
        raise InputError(f"sampling: {name} is {value!r}, expected {expected}.")


def _check_keys(what: str, given: Any, known: tuple[str, ...]) -> None:
    if not isinstance(given, Mapping):
        raise InputError(f"{what} is {given!r}, expected a mapping with {', '.join(known)}.")
    unknown = [str(key) for key in given if key not in known]
    if unknown:
        raise InputError(f"{what} has no {', '.join(unknown)}: expected {', '.join(known)}.")
