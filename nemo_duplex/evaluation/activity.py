"""When the agent speaks: from what is heard (voice activity) and from what it meant (its text channel).

The headline numbers come from the sound. The text channel stands beside them as a diagnosis: where the two differ, the
agent was silent in a turn of its own, or babbled after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from nemo_duplex.channels import ChannelLayout
from nemo_duplex.evaluation.turn_taking import Span
from nemo_duplex.frames import FRAME_RATE, FrameRate, Seconds
from nemo_duplex.inputs import InputError

#: (audio (S,), sample rate in Hz) -> spans of speech in Seconds, sorted and apart.
Vad = Callable[[np.ndarray, int], list[Span]]

# ---- the energy detector: 10 ms windows; levels in dB re full scale
_WINDOW: Seconds = 0.01
_AUDIBLE = -42.0  # nothing quieter starts speech: a codec's idea of silence stays below
_FAINT = -58.0  # nothing quieter continues it
_START = 24.0  # speech starts within this of the recording's loud windows
_CONTINUE = 36.0  # and goes on within this: weak fricatives (f, th, h) at its edges lie about 30 dB below the vowels
_ABOVE_FLOOR = 9.0  # but at least this far above the noise between the turns
_LOUD, _QUIET = 99, 20  # percentiles taken for the loud windows and for the noise
_MIN_SPEECH: Seconds = 0.06  # shorter is a click
_MIN_SILENCE: Seconds = 0.1  # shorter is a plosive's closure


def energy_vad(audio: np.ndarray, sample_rate: int) -> list[Span]:
    """Spans of speech in a clean recording: synthetic speech, or what a codec made of it. Not for a microphone.

    Two thresholds, both relative to the recording's own loudness: a span is started by its vowels and reaches as far as
    its weakest consonants, so that onset and offset come out within about 20 ms.

    Args:
        audio: (S,) float, full scale 1.
        sample_rate: Hz.
    """
    level = _levels(audio, round(_WINDOW * sample_rate))
    if not len(level):
        return []
    loud, quiet = np.percentile(level, [_LOUD, _QUIET])
    start = max(_AUDIBLE, loud - _START)
    # where the agent hardly ever pauses, the quiet windows are speech too, and say nothing about noise
    stay = max(_FAINT, loud - _CONTINUE, min(quiet + _ABOVE_FLOOR, loud - _START))
    spans = [(a, b) for a, b in _runs(level > min(stay, start)) if level[a:b].max() > start]
    joined = _joined(spans, round(_MIN_SILENCE / _WINDOW))
    kept = [(a, b) for a, b in joined if b - a >= round(_MIN_SPEECH / _WINDOW)]
    seconds = round(_WINDOW * sample_rate) / sample_rate
    return [(a * seconds, min(b * seconds, len(audio) / sample_rate)) for a, b in kept]


class SileroVad:
    """Spans of speech by Silero VAD 6 (MIT; its weights lie in the wheel `silero-vad`): for microphones and noise.

    Raises:
        InputError: if the wheel is not installed.
    """

    _RATE = 16000

    def __init__(self) -> None:
        try:
            from silero_vad import get_speech_timestamps, load_silero_vad
        except ImportError as error:
            cure = "pip install silero-vad, or use vad=energy."
            raise InputError(f"vad=silero needs the package silero-vad ({error}): {cure}") from error
        self._model, self._timestamps = load_silero_vad(), get_speech_timestamps

    def __call__(self, audio: np.ndarray, sample_rate: int) -> list[Span]:
        import torch

        heard = soxr.resample(np.asarray(audio, np.float32), sample_rate, self._RATE)
        found = self._timestamps(
            torch.from_numpy(heard),
            self._model,
            sampling_rate=self._RATE,
            min_speech_duration_ms=round(_MIN_SPEECH * 1000),
            min_silence_duration_ms=round(_MIN_SILENCE * 1000),
            speech_pad_ms=0,
        )
        return [(s["start"] / self._RATE, s["end"] / self._RATE) for s in found]


VADS = ("energy", "silero")


def voice_activity(name: str) -> Vad:
    """The detector of this name.

    Raises:
        InputError: if there is none, or its package is missing.
    """
    if name not in VADS:
        raise InputError(f"vad={name}: there is no such voice activity detector, expected one of {', '.join(VADS)}.")
    return energy_vad if name == "energy" else SileroVad()


@dataclass(frozen=True)
class ChannelTurn:
    """A turn on the text channel: frames from its BOS (inclusive) to its EOS (exclusive), and the text ids between."""

    start: int
    end: int
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class ChannelActivity:
    """The turns of a text channel, and how often its grammar was broken.

    `unterminated`: turns that no EOS ends (closed by the next BOS, or by the end of the recording);
    `orphan_eos`: EOS outside any turn.
    """

    turns: tuple[ChannelTurn, ...]
    unterminated: int
    orphan_eos: int

    def spans(self, frame_rate: FrameRate = FRAME_RATE, lead: int = 0, tail: int = 0) -> list[Span]:
        """When these turns are heard: from `lead` frames after their BOS to `tail` frames after their EOS (see channels.py)."""
        return [(frame_rate.time(t.start + lead), frame_rate.time(max(t.start + lead, t.end + tail))) for t in self.turns]


def channel_activity(bos: Sequence[int], eos: Sequence[int], frames: int) -> ChannelActivity:
    """Turns from the frames of BOS and EOS: an EOS frame is not speech, a second BOS closes the turn before it."""
    turns, unterminated, orphans, opened = [], 0, 0, None
    for frame, kind in sorted([(f, "eos") for f in eos] + [(f, "bos") for f in bos], key=lambda mark: mark[0]):
        if kind == "eos" and opened is None:
            orphans += 1
            continue
        if opened is not None:
            turns.append(ChannelTurn(opened, frame))
        unterminated += kind == "bos" and opened is not None
        opened = frame if kind == "bos" else None
    if opened is not None:
        turns.append(ChannelTurn(opened, frames))
        unterminated += 1
    return ChannelActivity(tuple(turns), unterminated, orphans)


def read_channel(tokens: Sequence[int] | np.ndarray, layout: ChannelLayout) -> ChannelActivity:
    """Turns of a text channel with the ids that each says, pads left out.

    Args:
        tokens: (T,) text tokens of one conversation, one per frame.
    """
    tokens = np.asarray(tokens)
    marks = {layout.text_bos, layout.text_eos, layout.text_pad}
    bos, eos = (np.flatnonzero(tokens == mark).tolist() for mark in (layout.text_bos, layout.text_eos))
    activity = channel_activity(bos, eos, len(tokens))

    def written(turn: ChannelTurn) -> tuple[int, ...]:
        return tuple(i for i in tokens[turn.start : turn.end].tolist() if i not in marks)

    turns = tuple(ChannelTurn(t.start, t.end, written(t)) for t in activity.turns)
    return ChannelActivity(turns, activity.unterminated, activity.orphan_eos)


def _levels(audio: np.ndarray, window: int) -> np.ndarray:
    """Level of every window in dB re full scale; the last one may be shorter."""
    power = np.square(np.asarray(audio, np.float64))
    starts = np.arange(0, len(power), window)
    if not len(starts):
        return starts.astype(float)
    mean = np.add.reduceat(power, starts) / np.diff([*starts, len(power)])
    return 10 * np.log10(mean + 1e-12)


def _runs(active: np.ndarray) -> list[tuple[int, int]]:
    """Half-open runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _joined(spans: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for a, b in spans:
        if joined and a - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], b)
        else:
            joined.append((a, b))
    return joined
