"""Whether the two channels of a conversation are what its files say: numbers made of the wrong sound look like any others.

    refused (`OddRow`)    samples that are not finite or above full scale; channels whose lengths differ by over a frame,
                          unless `pad`; swapped channels
    warned of             the user leaking into the agent's channel; clipped sound; a silent channel

Everything else that is wrong with a row is found before its sound is read (`conversation_rows.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import soxr

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.frames import FRAME_RATE, Seconds, Span

#: A louder leak can be taken for speech of the agent; a quieter one is far below what a voice activity detector hears.
LEAK_DB = -40.0

_CLIPPED_RUN = 4  # samples in a row at full scale
_CLIPPED_SHARE = 1e-4  # of the samples, in such runs, is clipped sound
_FULL_SCALE = 0.999

# ---- swapped channels: levels of 20 ms against the times of turns
_WINDOW: Seconds = 0.02
_RANGE = 40.0  # dB below the loud windows that count
_FITS, _BETTER = 0.5, 0.3  # correlation with the other's turns, and by how much it is higher than with its own

# ---- leakage: cross-correlation at 4 kHz
_RATE = 4000
_LAGS: Seconds = 1.0  # looked at, before and after
_EARLY: Seconds = 0.1  # an echo comes later; files may be this far apart
_PIECE: Seconds = 2.0
_SHORTEST: Seconds = 0.2
_CLEAR = 3.0  # times the highest correlation at lags that no echo has
_CHANCE = 0.02  # correlation of sounds that have nothing to do with each other, and more of short ones:
_INDEPENDENT = 500.0  # values in a second of speech at 4 kHz
_FAINTEST_DB = -70.0  # a quieter leak is none
_QUIET = 1e-9  # power that counts as silence


class Channel(NamedTuple):
    """(S,) float32 samples, and their rate in Hz."""

    samples: np.ndarray
    sample_rate: int

    @property
    def duration(self) -> Seconds:
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True)
class Turns:
    """When somebody says that each of the two speaks: the user by the manifest, the agent by its text channel or the corpus."""

    user: Sequence[Span] = ()
    agent: Sequence[Span] = ()


@dataclass(frozen=True)
class ChannelFacts:
    """What was measured of two channels.

    Args:
        user_leak_db: level of the user's direct sound in the agent's channel, against the user's own; None where there is none.
        leak_delay: by how much it is later, Seconds.
        warnings: a sentence for everything that may spoil numbers.
    """

    user_leak_db: float | None = None
    leak_delay: Seconds | None = None
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        leak = None if self.user_leak_db is None else round(self.user_leak_db, 1)
        return {"user_leak_db": leak, "leak_delay": self.leak_delay, "warnings": list(self.warnings)}


def check_samples(channel: Channel, speaker: str) -> None:
    """Raises OddRow if samples are not finite or above full scale."""
    samples = channel.samples
    lowest, highest = (float(samples.min()), float(samples.max())) if len(samples) else (0.0, 0.0)
    if not np.isfinite(lowest + highest):
        raise OddRow("samples that are not finite", f"in the {speaker}'s channel", "Write the audio again.")
    if (peak := max(-lowest, highest)) > 1:
        cure = "Divide the samples by their full scale (32768 for 16 bits) before writing floats."
        raise OddRow("samples above full scale", f"up to {peak:.3g} in the {speaker}'s channel", cure)


def check_lengths(conversation: Seconds, user: Seconds | None, agent: Seconds) -> None:
    """Raises OddRow if the two channels and the conversation are not equally long, within a frame."""
    frame = FRAME_RATE.seconds + 1e-6
    if user is not None and abs(user - agent) > frame:
        raise OddRow(
            "channels of different lengths",
            f"the user's lasts {user:.2f} s, the agent's {agent:.2f} s",
            "Write what the agent says from the start of the user's audio to its end, or set pad=true to add silence.",
        )
    for what, lasts in (("user", user), ("agent", agent)):
        if lasts is not None and abs(lasts - conversation) > frame:
            detail = f"the conversation lasts {conversation:.2f} s, the {what}'s channel {lasts:.2f} s"
            raise OddRow(
                "another length than the conversation", detail, "Correct its duration, or set pad=true to add silence."
            )


def check_order(user: Channel, agent: Channel, turns: Turns) -> None:
    """Raises OddRow if the channels are swapped: the turns of one of the two fit the other's channel, and not its own."""
    levels = _levels(user), _levels(agent)
    for (own, other), spans, speaker in ((levels, turns.user, "user"), (levels[::-1], turns.agent, "agent")):
        fits, fits_other = _fit(own, spans), _fit(other, spans)
        if fits_other >= _FITS and fits_other - fits >= _BETTER:
            raise OddRow(
                "swapped channels",
                f"the {speaker}'s turns fit the other channel (correlation {fits_other:.2f}, with its own {fits:.2f})",
                "The user is the first of two channels. Exchange the files or channels, or set swap=true.",
            )


def channel_facts(user: Channel | None, agent: Channel, spans: Sequence[Span]) -> ChannelFacts:
    """Leakage, clipping and silence.

    Args:
        spans: of the user's speech.
    """
    warnings = []
    for channel, speaker in ((user, "user"), (agent, "agent")):
        if channel is not None and not np.any(channel.samples):
            warnings.append(f"The {speaker}'s channel is silent.")
        elif channel is not None and (share := clipped_share(channel.samples)) > _CLIPPED_SHARE:
            warnings.append(f"The {speaker}'s channel is clipped ({100 * share:.2f} % of its samples).")
    found = None if user is None else leak(user, agent, spans)
    if found is None:
        return ChannelFacts(warnings=tuple(warnings))
    if found.db > LEAK_DB:
        warnings.append(
            f"The user is heard in the agent's channel, at {found.db:.0f} dB and {1000 * found.delay:.0f} ms later."
        )
    return ChannelFacts(found.db, round(found.delay, 4), tuple(warnings))


def clipped_share(samples: np.ndarray) -> float:
    """The share of (S,) samples that lie in runs of four or more at full scale."""
    if not len(samples) or max(samples.max(), -samples.min()) < _FULL_SCALE:
        return 0.0
    at_full_scale = np.flatnonzero(np.abs(samples) >= _FULL_SCALE)
    if len(at_full_scale) < _CLIPPED_RUN:
        return 0.0
    runs = np.split(at_full_scale, np.flatnonzero(np.diff(at_full_scale) > 1) + 1)
    return sum(len(run) for run in runs if len(run) >= _CLIPPED_RUN) / len(samples)


class _Levels(NamedTuple):
    """Of windows of `seconds`, dB, as far as they are within 40 dB of the loud ones."""

    values: np.ndarray
    seconds: Seconds


def _levels(channel: Channel) -> _Levels:
    window = max(1, round(_WINDOW * channel.sample_rate))
    whole = channel.samples[: len(channel.samples) // window * window].reshape(-1, window)
    level = 10 * np.log10(np.einsum("ij,ij->i", whole, whole) / window + _QUIET)
    loud = np.percentile(level, 99) if len(level) else 0.0
    return _Levels(np.clip(level, loud - _RANGE, loud), window / channel.sample_rate)


def _fit(level: _Levels, spans: Sequence[Span]) -> float:
    """Correlation of levels with turns, -1 to 1; 0 where either does not change."""
    speaks = np.zeros(len(level.values))
    for start, end in spans:
        speaks[round(start / level.seconds) : round(end / level.seconds)] = 1
    if not len(speaks) or level.values.std() < 1e-6 or speaks.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(level.values, speaks)[0, 1])


class Leak(NamedTuple):
    """The user in the agent's channel.

    Args:
        db: against the user's own channel.
        delay: Seconds later.
    """

    db: float
    delay: Seconds


def leak(user: Channel, agent: Channel, spans: Sequence[Span]) -> Leak | None:
    """The user's sound in the agent's channel; None if there is none that can be told from chance.

    Cross-correlates the user's turns with the agent's channel: an agent that speaks at the same time says something else, and
    does not correlate. The level is a regression at the lag of the highest correlation, over quarters of a second, each of
    which counts the less the louder the agent's channel is: so those in which the user alone speaks decide.
    """
    heard = _resampled(user), _resampled(agent)
    samples = min(map(len, heard))
    x, y = (sound[:samples] for sound in heard)
    most = round(_LAGS * _RATE)
    pieces = [(x[a:b], a) for a, b in _pieces(spans, samples) if np.any(x[a:b])]
    if not pieces or not np.any(y):
        return None
    padded = np.pad(y, most)
    correlation = np.abs(sum(_correlation(piece, padded[a : a + len(piece) + 2 * most]) for piece, a in pieces)) / len(pieces)
    first = most - round(_EARLY * _RATE)
    lag = int(correlation[first:].argmax()) + first - most
    chance = max(_CHANCE, (_INDEPENDENT * sum(len(piece) for piece, _ in pieces) / _RATE) ** -0.5)
    if correlation[lag + most] < _CLEAR * max(chance, correlation[:first].max()):
        return None
    db = 20 * np.log10(abs(_gain(pieces, padded[most + lag :])) + 1e-12)
    return Leak(float(db), lag / _RATE) if db >= _FAINTEST_DB else None


def _resampled(channel: Channel) -> np.ndarray:
    return soxr.resample(channel.samples, channel.sample_rate, _RATE, quality="LQ")


def _pieces(spans: Sequence[Span], samples: int) -> list[tuple[int, int]]:
    """The spans in samples, cut into pieces."""
    found, length = [], round(_PIECE * _RATE)
    for start, end in spans:
        last = min(round(end * _RATE), samples)
        found += [(at, min(at + length, last)) for at in range(round(start * _RATE), last, length)]
    return [(a, b) for a, b in found if b - a >= _SHORTEST * _RATE]


def _correlation(piece: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Of (P,) samples with every stretch of (P + L - 1,) samples that is as long: (L,), each -1 to 1."""
    size = 1 << (len(around) - 1).bit_length()  # what wraps around is not in the lags
    spectrum = np.fft.rfft(around, size) * np.conj(np.fft.rfft(piece, size))
    lags = len(around) - len(piece) + 1
    energy = np.concatenate([[0.0], np.cumsum(np.square(around, dtype=np.float64))])
    energies = energy[len(piece) :] - energy[: len(energy) - len(piece)]
    return np.fft.irfft(spectrum, size)[:lags] / np.sqrt(float(piece @ piece) * (energies + _QUIET * len(piece)))


def _gain(pieces: Sequence[tuple[np.ndarray, int]], late: np.ndarray) -> float:
    """The factor with which the pieces are in the other channel, moved by the lag already."""
    window, product, power = _RATE // 4, 0.0, 0.0
    for piece, at in pieces:
        for begin in range(0, len(piece), window):
            own = piece[begin : begin + window]
            other = late[at + begin : at + begin + len(own)]
            own = own[: len(other)]
            weight = 1 / (float(other @ other) + _QUIET * window)
            product += weight * float(own @ other)
            power += weight * float(own @ own)
    return product / power if power else 0.0
