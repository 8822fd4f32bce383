"""Whether a caller speaks, from 16 ms to 16 ms, for many callers in one batch.

    user.push(samples)        any number of samples
    listen(users)             all that is new of all of them: spectra (`features.py`), a small recurrent network, two thresholds
    user.active               whether the caller speaks, as far as it was listened to

A user's numbers do not depend on the other users, to the bit: every operation is elementwise over users, or a product of one
user's vector with a matrix. They do not depend either on how the samples were pushed. No GPU is needed: 16 callers take half a
millisecond per frame of 80 ms.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from nemo_duplex.frames import Seconds
from nemo_duplex.user_activity.features import HOP, REMEMBERED, describe, levels, window

#: The weights of the network that `examples/train_user_activity.py` trained.
WEIGHTS = Path(__file__).parent.parent / "bundled" / "user_activity.safetensors"
#: Speech starts at this probability where it is quiet, and goes on at this one.
START, CONTINUE = 0.7, 0.3
#: Speech has ended when it was less probable than `CONTINUE` for so long: silences within words are shorter.
HANGOVER: Seconds = 0.2

_START, _CONTINUE = (math.log(p / (1 - p)) for p in (START, CONTINUE))
_HANGOVER = round(HANGOVER / HOP)
# Where other people talk in the background, the network is often in doubt though the caller is silent, and must be surer that
# speech starts. Doubt is the mean probability of speech over so many silent hops (1.9 s); it raises the log-odds at which
# speech starts by this much, up to the highest. A new caller is in some doubt: the noise of a microphone begins there.
_DOUBT_HOPS, _PER_DOUBT, _SUREST, _FIRST_DOUBT = 120, 20.0, 5.0, 0.15


class ActivityNetwork:
    """The recurrent network: a layer with ReLU, a gated recurrent unit, a layer with one output (the log-odds of speech).

    Args:
        weights: of torch's `nn.Linear` and `nn.GRU`, by the names of `training.ActivityModel`.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        def layer(weight: str, bias: str) -> tuple[np.ndarray, np.ndarray]:
            return np.ascontiguousarray(weights[weight].T, np.float32), weights[bias].astype(np.float32)

        self._input = layer("input.weight", "input.bias")
        self._gates = layer("recurrent.weight_ih_l0", "recurrent.bias_ih_l0")
        self._recurrent = layer("recurrent.weight_hh_l0", "recurrent.bias_hh_l0")
        self._output = layer("output.weight", "output.bias")
        self.width = len(self._recurrent[0])

    def step(self, features: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        """The log-odds (B,) of speech in the next hop of B users.

        Args:
            features: (B, FEATURES).
            hidden: (B, width) memory of the users, zeros where one begins; changed in place.
        """
        width = self.width
        gates = _times(np.maximum(_times(features, self._input), 0), self._gates)
        recurrent = _times(hidden, self._recurrent)
        reset, update = np.split(_sigmoid(gates[:, : 2 * width] + recurrent[:, : 2 * width]), 2, axis=1)
        candidate = np.tanh(gates[:, 2 * width :] + reset * recurrent[:, 2 * width :])
        hidden[:] = candidate + update * (hidden - candidate)
        return _times(hidden, self._output)[:, 0]


def _times(rows: np.ndarray, layer: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(B, N) @ (N, M) + (M,), every row by itself: a BLAS adds in another order for another number of rows."""
    weight, bias = layer
    return (rows[:, None, :] @ weight)[:, 0] + bias


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


@lru_cache(maxsize=1)
def bundled_network() -> ActivityNetwork:
    """The network that comes with the package."""
    return ActivityNetwork(load_file(WEIGHTS))


# The network knows loud callers better than quiet ones: it hears all of them so many dB louder. Only one feature depends on it.
_LOUDER = 15.0
# Before a caller's first sample, the network has heard the noise of a quiet line: Seconds, and its level in dB of full scale.
_BEFORE, _LINE = 2.0, -70.0


@lru_cache(maxsize=16)
def _quiet_memory(sample_rate: int) -> np.ndarray:
    """What is remembered of a quiet line."""
    user = UserActivity(sample_rate, np.zeros(bundled_network().width + REMEMBERED, np.float32))
    noise = 10 ** (_LINE / 20) * np.random.default_rng(1).standard_normal(round(_BEFORE * sample_rate))
    user.push(noise.astype(np.float32))
    listen([user])
    return user._memory


class UserActivity:
    """Whether one caller speaks. Any thread may push; one thread listens.

    Args:
        sample_rate: of what is pushed, in Hz.
        memory: of what came before; None: of a quiet line.

    Attributes:
        active: whether the caller speaks, as far as it was listened to.
        since: when that began, in seconds of the caller's audio.
        hops: of 16 ms that were listened to.

    Examples:
        >>> user = UserActivity(16000)
        >>> user.push(np.zeros(16000, np.float32))
        >>> listen([user])
        >>> user.active
        False
    """

    def __init__(self, sample_rate: int, memory: np.ndarray | None = None) -> None:
        self.sample_rate = sample_rate
        self.active, self.since, self.hops = False, 0.0, 0
        self._hop = window(sample_rate).hop
        self._pushed: deque[np.ndarray] = deque()
        self._kept = np.zeros(self._hop, np.float32)  # the first half of the next window, and samples of its second half
        self._memory = _quiet_memory(sample_rate) if memory is None else memory
        self._less_probable = 0  # latest hops in a row
        self._doubt = _FIRST_DOUBT
        self._states: deque[bool] = deque()  # of the latest hops, that `spoke` has not returned yet
        self._spoke = False  # the last of those that it has

    def push(self, samples: np.ndarray) -> None:
        """Takes (S,) float32 samples in -1..1; not copied."""
        if len(samples):
            self._pushed.append(samples)

    def spoke(self, until: int) -> bool:
        """Whether the caller spoke since the last call, up to sample `until`; without a new hop, whether it did at the last."""
        states = [self._states.popleft() for _ in range(min(len(self._states), self._whole(until)))]
        self._spoke = states[-1] if states else self._spoke
        return any(states) or self._spoke

    def _whole(self, until: int) -> int:
        """Hops that end at or before a sample, of those that `spoke` has not returned yet."""
        return max(0, until // self._hop - (self.hops - len(self._states)))

    def windows(self, most: int) -> np.ndarray:
        """The windows (N, 2 * hop) that become whole with at most so many new samples."""
        parts = [self._kept]
        while most and self._pushed:
            part = self._pushed.popleft()
            if len(part) > most:
                self._pushed.appendleft(part[most:])
                part = part[:most]
            parts.append(part)
            most -= len(part)
        stream = np.concatenate(parts)
        whole = len(stream) // self._hop * self._hop
        self._kept = stream[whole - self._hop :].copy()
        blocks = stream[:whole].reshape(-1, self._hop)
        return np.concatenate([blocks[:-1], blocks[1:]], axis=1)

    def decide(self, log_odds: float) -> None:
        """Takes the log-odds of speech in the next hop."""
        self.hops += 1
        self._less_probable = 0 if log_odds >= _CONTINUE else self._less_probable + 1
        if self.active:
            active = self._less_probable < _HANGOVER
        else:
            active = log_odds >= min(_START + _PER_DOUBT * self._doubt, _SUREST)
            if not active:
                self._doubt += (1 / (1 + math.exp(-log_odds)) - self._doubt) / _DOUBT_HOPS
        if active != self.active:
            self.active, self.since = active, self.hops * self._hop / self.sample_rate
        self._states.append(active)


def listen(users: Sequence[UserActivity], most: int = 1 << 30) -> None:
    """Listens to what is new of users of one sample rate.

    Args:
        users: all different.
        most: the most samples of each that are taken now, so that one who sends a long recording keeps nobody waiting.
    """
    heard = [(user, windows) for user in users if len(windows := user.windows(most))]
    if not heard:
        return
    heard.sort(key=lambda pair: -len(pair[1]))
    counts = np.array([len(windows) for _, windows in heard])
    bands = levels(np.concatenate([windows for _, windows in heard]), heard[0][0].sample_rate) + np.float32(_LOUDER)
    starts = np.cumsum(counts) - counts
    memory = np.stack([user._memory for user, _ in heard])
    network = bundled_network()
    for hop in range(counts[0]):
        rows = int(np.count_nonzero(counts > hop))
        features = describe(bands[starts[:rows] + hop], memory[:rows, network.width :])
        for (user, _), log_odds in zip(heard, network.step(features, memory[:rows, : network.width]).tolist()):
            user.decide(log_odds)
    for (user, _), remembered in zip(heard, memory):
        user._memory = remembered
