"""A corpus of ours as a tree of Full-Duplex-Bench, so that its scripts can be run on any conversations.

    v1    pause_handling        a user turn with pauses, until it ends
          smooth_turn_taking    a user turn that nothing precedes, and the time to answer
          user_interruption     a question, and the turn that interrupts the answer
          backchannel           a user turn of 5 s or more; where people would have backchannels is not known
    v1.5  user_interruption     the same, and once more without the interruption
          user_backchannel, talking_to_other, background_speech     a question, and what is said during the answer

Annotations have the names and forms of the benchmark. `clean_input.wav` is the same sound with the event replaced by the
background of the recording.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.full_duplex_bench.samples import Version
from nemo_duplex.evaluation.full_duplex_bench.transcript import write_json
from nemo_duplex.evaluation.full_duplex_bench.wav_files import RATE, write_wav
from nemo_duplex.evaluation.labels import labelled_events, user_pauses
from nemo_duplex.evaluation.sound import CutSound, Sound
from nemo_duplex.files.atomic import whole_folder
from nemo_duplex.frames import Seconds, Span
from nemo_duplex.inputs import InputError

#: Which samples come from where in the corpus.
INDEX = "from_corpus.json"
_LEAD: Seconds = 0.5  # before a user turn
_ANSWER: Seconds = 8.0  # after the last event, at most
_LEAST_ANSWER: Seconds = 2.0
_LEAST_AFTER_EVENT: Seconds = 1.0
_MONOLOGUE: Seconds = 5.0
_FADE: Seconds = 0.01
_EVENTS = {"backchannel": "user_backchannel", "side_talk": "talking_to_other", "background_voice": "background_speech"}


@dataclass(frozen=True)
class Clip:
    """A stretch of a user channel that makes a sample.

    Args:
        task: whose.
        start, end: Seconds of the conversation.
        name: of the annotation's file; "" for none.
        annotation: its content, with times of the clip.
        event: what is left out of `clean_input.wav`, Seconds of the conversation; None where there is no such file.
    """

    task: str
    start: Seconds
    end: Seconds
    name: str
    annotation: Any
    event: Span | None = None


def corpus_channels(data: str | Path, sets: Sequence[str]) -> Iterator[tuple[Conversation, Sound]]:
    """The conversations of a corpus of `examples/synthesize.py`, each with the sound of its user channel.

    Raises:
        InputError: if the corpus or a set is missing or broken.
    """
    from nemo_duplex.evaluation.sets import read_sets

    for cuts in read_sets(data, sets).values():
        yield from ((Conversation.from_cut(cut), CutSound(cut, "recording")) for cut in cuts)


def write_corpus(conversations: Iterable[tuple[Conversation, Sound]], version: Version, out: str | Path) -> dict[str, int]:
    """Writes the samples of conversations, each with the sound of its user channel; returns how many of each task there are.

    Raises:
        InputError: for v2 and v3, whose samples a corpus does not have; if there are none, or `out` holds something.
    """
    if version not in ("v1", "v1.5"):
        raise InputError(f"version={version}: samples can be cut from a corpus for v1 and v1.5.")
    index: dict[str, dict[str, Any]] = {}
    with whole_folder(out) as part:
        for conversation, sound in conversations:
            clips = list(_v1(conversation) if version == "v1" else _v15(conversation))
            if not clips:
                continue
            channel = soxr.resample(np.asarray(sound.samples(), np.float32), sound.sample_rate, RATE)
            for clip in clips:
                number = len(index.setdefault(clip.task, {})) + 1
                _write(part / clip.task / str(number), clip, conversation, channel)
                place = {"conversation": conversation.id, "start": round(clip.start, 3), "end": round(clip.end, 3)}
                index[clip.task][str(number)] = place
        if not index:
            wanted = "pauses, interruptions" if version == "v1" else "interruptions, backchannels, side talk, background voices"
            raise InputError(f"data: no conversation has {wanted}. Write a corpus that has them: see conf/synthesize.yaml.")
        write_json(part / INDEX, index)
    return dict(Counter({task: len(samples) for task, samples in index.items()}))


def _write(folder: Path, clip: Clip, conversation: Conversation, channel: np.ndarray) -> None:
    begin, end = round(clip.start * RATE), round(clip.end * RATE)
    write_wav(folder / "input.wav", channel[begin:end])
    if clip.event is not None:
        write_wav(folder / "clean_input.wav", _without(channel, clip.event, conversation)[begin:end])
    if clip.name:
        write_json(folder / clip.name, clip.annotation)


# --- which stretches


def _v1(conversation: Conversation) -> Iterator[Clip]:
    pauses = user_pauses(conversation)
    for number, turn in enumerate(conversation.user):
        before, after = _neighbours(conversation, number)
        start = max(turn.start - _LEAD, before)
        if _is_whole(turn):
            own = [pause for pause in pauses if turn.start <= pause[0] < turn.end]
            if own:
                marks = [{"text": "[PAUSE]", "timestamp": _times(pause, start)} for pause in own]
                yield Clip("pause_handling", start, turn.end, "pause.json", marks)
            if turn.end - turn.start >= _MONOLOGUE:
                yield Clip("backchannel", start, turn.end, "", None)
        end = min(after, turn.end + _ANSWER, conversation.duration)
        if not _is_whole(turn) or end - turn.end < _LEAST_ANSWER:
            continue
        if _interrupts(conversation, number):
            if number and _is_whole(context := conversation.user[number - 1]):
                start = max(context.start - _LEAD, _neighbours(conversation, number - 1)[0])
                about = {"context": context.text, "interrupt": turn.text, "timestamp": _times((turn.start, turn.end), start)}
                yield Clip("user_interruption", start, end, "interrupt.json", [about])
        else:
            answered = next((t.start for t in conversation.agent if turn.end <= t.start < end), end)
            mark = {"text": "[TURN-TAKING]", "timestamp": _times((turn.end, answered), start)}
            yield Clip("smooth_turn_taking", start, end, "turn_taking.json", [mark])


def _v15(conversation: Conversation) -> Iterator[Clip]:
    users = conversation.user
    for number, turn in enumerate(users):
        _, after = _neighbours(conversation, number)
        if number and _interrupts(conversation, number) and _is_whole(turn):
            yield from _overlap("user_interruption", conversation, number - 1, (turn.start, turn.end), after, turn.text)
    texts = {(e.get("kind"), e.get("start")): e.get("text", "") for e in conversation.custom.get("events") or ()}
    for event in labelled_events(conversation):
        before = [number for number, turn in enumerate(users) if turn.end <= event.start]
        if event.kind in _EVENTS and before:
            _, after = _neighbours(conversation, before[-1])  # where the event overlaps another user turn, it ends too late
            text, span = str(texts.get((event.kind, event.start), "")), (event.start, event.end)
            yield from _overlap(_EVENTS[event.kind], conversation, before[-1], span, after, text)


def _overlap(task: str, conversation: Conversation, context: int, event: Span, after: Seconds, text: str) -> Iterator[Clip]:
    """A question, what overlaps the answer, and the time after it."""
    asked, (before, _) = conversation.user[context], _neighbours(conversation, context)
    start = max(asked.start - _LEAD, before)
    end = min(after, event[1] + _ANSWER, conversation.duration)
    if _is_whole(asked) and end - event[1] >= _LEAST_AFTER_EVENT:
        about = {"context_text": asked.text, "current_turn_text": text, "timestamps": _times(event, start)}
        yield Clip(task, start, end, "metadata.json", about, event)


def _neighbours(conversation: Conversation, number: int) -> Span:
    """The end of the user's turn before, and the start of the one after."""
    users = conversation.user
    before = users[number - 1].end if number else 0.0
    return before, users[number + 1].start if number + 1 < len(users) else conversation.duration


def _interrupts(conversation: Conversation, number: int) -> bool:
    """Whether a user turn begins in an answer, or just when that is broken off.

    An Impatient set has no answers, but users who do not wait for them: there every turn but the first one interrupts.
    """
    turn = conversation.user[number]
    if not conversation.agent and conversation.custom.get("references"):
        return number > 0
    return any(a.start < turn.start and (turn.start < a.end or a.was_cut and turn.start == a.end) for a in conversation.agent)


def _is_whole(turn: Turn) -> bool:
    return not turn.custom.get("unfinished") and not turn.custom.get("begun_before")


def _times(span: Span, start: Seconds) -> list[Seconds]:
    return [round(time - start, 3) for time in span]


# --- without an event


def _without(channel: np.ndarray, event: Span, conversation: Conversation) -> np.ndarray:
    """(S,) with the event replaced by the background: the longest stretch in which nobody speaks, again and again."""
    edge = round(_FADE * RATE)
    begin, end = (min(max(0, round(time * RATE) + by), len(channel)) for time, by in zip(event, (-edge, edge), strict=True))
    background = _background(channel, conversation)
    filled = np.resize(background, end - begin) if len(background) else np.zeros(end - begin, np.float32)
    ramp = np.minimum(np.arange(end - begin), np.arange(end - begin)[::-1]) / edge  # beside the event, not in it
    share = np.minimum(ramp, 1).astype(np.float32)
    clean = channel.copy()
    clean[begin:end] = share * filled + (1 - share) * channel[begin:end]
    return clean


def _background(channel: np.ndarray, conversation: Conversation) -> np.ndarray:
    listed = labelled_events(conversation)
    busy = [(turn.start - 0.1, turn.end + 0.3) for turn in conversation.turns]
    busy += [(event.start - 0.1, event.end + 0.3) for event in listed if event.end - event.start < 0.9 * conversation.duration]
    at, longest = 0.0, (0.0, 0.0)
    for start, end in [*sorted(busy), (len(channel) / RATE, len(channel) / RATE)]:
        if start - at > longest[1] - longest[0]:
            longest = (at, start)
        at = max(at, end)
    return channel[round(longest[0] * RATE) : round(longest[1] * RATE)]
