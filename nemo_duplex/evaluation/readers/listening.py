"""Hears what files hold: when the agent speaks, and the user where nobody wrote it down, both by voice activity.

Each conversation's channels are read once, checked (`channel_checks.py`), listened to, and forgotten: a test set may be longer
than the memory. Conversations are independent, so several processes share them.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.activity import Vad, voice_activity
from nemo_duplex.evaluation.outcome import Outcome, questions
from nemo_duplex.evaluation.readers.channel_checks import (
    Channel,
    ChannelFacts,
    Turns,
    channel_facts,
    check_lengths,
    check_order,
    check_samples,
)
from nemo_duplex.evaluation.readers.conversation_rows import USER_TURNS_FROM, VAD
from nemo_duplex.evaluation.sound import Sound, SoundFile, read_channels
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.frames import Seconds, Span
from nemo_duplex.inputs import InputError, one_line

#: Where a conversation's custom holds what was measured of its channels.
CHANNELS = "channels"
#: A shorter pause does not end a turn of the user that is found by VAD.
USER_GAP: Seconds = 0.5

_AT_ONCE = 4  # conversations that a process is given
_AHEAD = 4  # such packages for each process, done or waiting


def listened(outcome: Outcome, vad: Vad, pad: bool = False) -> Outcome:
    """An outcome with `speech`, and with user turns where its files have none; what its channels hold is in its custom.

    Args:
        outcome: as a reader gives it.
        vad: finds speech in the agent's channel, and in the user's.
        pad: whether channels may have different lengths; silence is added to the shorter one.

    Raises:
        OddRow: if a channel is missing, cannot be read, or is not what it should be.

    Examples:
        >>> from pathlib import Path
        >>> import soundfile
        >>> from nemo_duplex.evaluation.activity import energy_vad
        >>> from nemo_duplex.evaluation.readers.conversation_rows import outcome_of
        >>> buzz = np.sign(np.sin(np.arange(16000))) / 4
        >>> channels = np.stack([np.append(buzz, np.zeros(32000)), np.append(np.zeros(32000), buzz)], axis=1)
        >>> soundfile.write("talk.wav", channels, 16000)
        >>> outcome = listened(outcome_of({"id": "talk", "audio": "talk.wav"}, Path(".")), energy_vad)
        >>> outcome.user, list(outcome.speech), outcome.conversation.custom["user_turns_from"]
        ([(0.0, 1.0)], [(2.0, 3.0)], 'vad')
    """
    return _with(outcome, _hear(outcome, vad, pad))


def listen_all(outcomes: Iterable[Outcome], vad: str, workers: int = 1, pad: bool = False) -> Iterator[Outcome | OddRow]:
    """`listened` for many outcomes, in their order; for one that cannot be used, the reason.

    Args:
        vad: name of the detector: energy or silero.
        workers: processes; with 1, no other is started.

    Raises:
        InputError: if there is no such detector, or its package is missing.
    """
    detector = voice_activity(vad)  # so that a wrong name is said here, whatever the number of processes
    if workers <= 1:
        for outcome in outcomes:
            yield _answer(outcome, _heard_or_odd(outcome, detector, pad))
        return
    # Not forked: the caller may have threads, of a model for example.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(vad, pad)) as pool:
        waiting: deque[tuple[list[Outcome], Future[list[_Heard | OddRow]]]] = deque()
        rest = iter(outcomes)
        while True:
            while len(waiting) < _AHEAD * workers and (package := list(itertools.islice(rest, _AT_ONCE))):
                waiting.append((package, pool.submit(_hear_package, package)))
            if not waiting:
                return
            package, future = waiting.popleft()
            try:
                heard = future.result()
            except BrokenProcessPool as error:
                raise InputError("One of the processes ended, perhaps for lack of memory. Set workers=1.") from error
            yield from map(_answer, package, heard)


class _Heard(NamedTuple):
    """What is heard in one conversation; `user` is None where its turns are known."""

    duration: Seconds
    user: list[Span] | None
    agent: list[Span]
    facts: ChannelFacts


_worker: tuple[Vad, bool] | None = None  # of this process: its detector, and whether it pads


def _start(vad: str, pad: bool) -> None:
    global _worker
    _worker = voice_activity(vad), pad


def _hear_package(outcomes: list[Outcome]) -> list[_Heard | OddRow]:
    assert _worker is not None
    return [_heard_or_odd(outcome, *_worker) for outcome in outcomes]


def _heard_or_odd(outcome: Outcome, vad: Vad, pad: bool) -> _Heard | OddRow:
    try:
        return _hear(outcome, vad, pad)
    except OddRow as odd:
        return odd


def _answer(outcome: Outcome, heard: _Heard | OddRow) -> Outcome | OddRow:
    return heard if isinstance(heard, OddRow) else _with(outcome, heard)


def _hear(outcome: Outcome, vad: Vad, pad: bool) -> _Heard:
    by_vad = outcome.conversation.custom.get(USER_TURNS_FROM) == VAD and not outcome.conversation.user
    user, agent = _channels(outcome)
    if agent is None:
        raise OddRow("no sound of the agent", cure="Write what the agent says as an audio file.")
    if user is None and by_vad:
        raise OddRow("neither user turns nor the user's sound", cure="Give one of the two: without, nothing can be scored.")
    present = [(channel, name) for channel, name in ((user, "user"), (agent, "agent")) if channel is not None]
    for channel, speaker in present:
        check_samples(channel, speaker)
    if not pad:
        check_lengths(outcome.duration, user.duration if user else None, agent.duration)
    speech = vad(agent.samples, agent.sample_rate)
    spans = _merged(vad(user.samples, user.sample_rate)) if by_vad and user else None
    if user is not None:
        written = [(t.start, t.end) for t in outcome.agent or outcome.conversation.agent]
        check_order(user, agent, Turns(outcome.user, written))
    facts = channel_facts(user, agent, outcome.user if spans is None else spans)
    longest = max(outcome.duration, *(channel.duration for channel, _ in present)) if pad else outcome.duration
    return _Heard(longest, spans, speech, facts)


def _with(outcome: Outcome, heard: _Heard) -> Outcome:
    conversation = outcome.conversation
    ends = ((start, min(end, heard.duration)) for start, end in heard.user or ())
    found = tuple(Turn("user", start, end) for start, end in ends if start < end)
    custom = {**conversation.custom, CHANNELS: heard.facts.as_dict()}
    conversation = replace(conversation, duration=heard.duration, turns=(*conversation.turns, *found), custom=custom)
    return replace(outcome, conversation=conversation, questions=questions(conversation), speech=tuple(heard.agent))


def _merged(spans: list[Span]) -> list[Span]:
    turns: list[Span] = []
    for start, end in spans:
        if turns and start - turns[-1][1] <= USER_GAP:
            turns[-1] = (turns[-1][0], end)
        else:
            turns.append((start, end))
    return turns


def _channels(outcome: Outcome) -> tuple[Channel | None, Channel | None]:
    user, agent = outcome.user_sound, outcome.agent_sound
    try:
        if isinstance(user, SoundFile) and isinstance(agent, SoundFile) and user.path == agent.path:
            both = read_channels(user.path)
            first, second = (np.ascontiguousarray(both[:, sound.channel]) for sound in (user, agent))
            return Channel(first, user.sample_rate), Channel(second, agent.sample_rate)
        return _channel(user), _channel(agent)
    except Exception as error:  # libsndfile and lhotse each raise their own
        raise OddRow("audio that cannot be read", one_line(error), "Write or copy it again.") from error


def _channel(sound: Sound | None) -> Channel | None:
    return None if sound is None else Channel(sound.samples(), sound.sample_rate)
