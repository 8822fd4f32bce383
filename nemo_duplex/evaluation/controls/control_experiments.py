"""Control experiments: what an agent that listens must do, and one that has only learnt the timing of its corpus would not.

noise alone, silence for a minute     it never speaks
the interrupter muted                 it finishes its answer, so it was the user's voice that stopped it

A control that cannot tell is neither passed nor failed but inconclusive: an agent that never speaks is silent in noise too, and
an answer that is at its own end when the user interrupts ends there whether the agent listens or not.

   user    |- question -|          |--- next ---|           as recorded: the agent stops
   agent                   |-----------x

   user    |- question -|          . . . muted . . .        the same up to the onset, then the room's own noise
   agent                   |------------------------|

   user    |- question -|      . . . . muted . . . .        and again with other noise, from earlier on
   agent                   |------------------------|

The muted conversation is played twice: an agent whose answers end now here, now there, whatever it hears, would seem to go on
by chance. And only answers count that were stopped before this agent could have been done with them (`Pace`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from nemo_duplex.evaluation.activity import Vad, energy_vad
from nemo_duplex.evaluation.answers import begins
from nemo_duplex.evaluation.controls.baseline import (
    Lengths,
    interrupted_question,
    onset_of_interrupted,
    own_stop,
    says_the_reference,
)
from nemo_duplex.evaluation.controls.control import ControlExperiment, counts
from nemo_duplex.evaluation.controls.pace import AS_THE_CORPUS, Pace, pace_of
from nemo_duplex.evaluation.generation import Agent, replies
from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.scores import AUDIO_RULES, Scored
from nemo_duplex.evaluation.turn_taking import BargeIn, measure
from nemo_duplex.frames import Seconds, Span
from nemo_duplex.synthesis.mix import NoiseColor, noise
from nemo_duplex.words import words

_COLORS: tuple[NoiseColor, ...] = ("white", "pink", "brown")
_MUTED = "interrupter muted"
_MUTE_BEFORE: Seconds = 0.03  # the manifest's onset may be a little late
_CLEARLY: Seconds = 0.4  # five frames: stops of an agent that does not listen differ by less
_VARIES = 2  # times as far as the two muted runs are apart, the stop has to be before both
_BROKEN_OFF, _WHOLE = 0.67, 0.9  # of the time that the whole answer takes
_MUCH_SHORTER = 0.8  # of the shortest whole answers of an agent: where its pace is known, this is broken off
_KEEPS_UP = 0.5  # of the answer's words have to be written when all of it was said; with fewer the voice says something else
_PATIENCE: Seconds = 2.0  # after the end of the answer, where the recording ends before


def noise_only(
    agent: Agent,
    seconds: Seconds = 20.0,
    levels_db: Sequence[float] = (-55.0, -40.0, -28.0),
    seed: int = 0,
    device: str = "cpu",
    vad: Vad = energy_vad,
) -> ControlExperiment:
    """Noise of three colours at each level (RMS re full scale) and no speech: the agent must not speak."""
    rng, rate = np.random.default_rng(seed), agent.user_sample_rate
    rows = {
        f"{color} {level:g} dB": 10 ** (level / 20) * noise(round(seconds * rate), rate, color, rng)
        for color in _COLORS
        for level in levels_db
    }
    spoken = _spoken(agent, np.stack(list(rows.values())), device, vad)
    broken = {name: found for name, found in zip(rows, spoken, strict=True) if found}
    detail = f"spoke over {', '.join(broken)}" if broken else f"silent through {len(rows)} x {seconds:g} s of noise"
    return ControlExperiment("noise alone", not broken, detail, {"spoken_seconds": broken})


def silence(agent: Agent, seconds: Seconds = 60.0, device: str = "cpu", vad: Vad = energy_vad) -> ControlExperiment:
    """Digital silence: the agent must not speak."""
    (spoken,) = _spoken(agent, np.zeros((1, round(seconds * agent.user_sample_rate))), device, vad)
    detail = f"spoke for {spoken:.1f} s" if spoken else f"silent for {seconds:g} s"
    return ControlExperiment("silence", not spoken, detail, {"spoken_seconds": spoken})


def muted_interrupter(
    agent: Agent, scored: Scored, lengths: Lengths, device: str = "cpu", vad: Vad = energy_vad, pace: Pace = AS_THE_CORPUS
) -> ControlExperiment:
    """Plays a conversation again without the user who interrupts, twice: the agent must then finish its answer.

    Takes the first barge-in for which the agent is saying the reference, its text not far behind its voice, and stops well
    before its answer could have ended by itself.

    Args:
        scored: the conversation as recorded.
        lengths: how long answers take (`lengths_of_answers`).
        pace: of the agent, in answers that nobody interrupts (`pace_of`).

    Returns:
        `passed`: both times it goes on to the end of its answer. Failed: once it stops in the middle of it, or never. None
        where it is at its own end there anyway, where the two times differ as much as they do from the interrupted one, and,
        without `figures`, where there is no such barge-in.
    """
    outcome = scored.outcome
    event = next((b for b in scored.turn_taking.successes if _cuts_off(scored, b, lengths, pace)), None)
    if event is None:
        return ControlExperiment(_MUTED, None, f"{outcome.id}: no barge-in that cuts an answer off")
    question, begun = interrupted_question(scored, event), onset_of_interrupted(scored, event)
    own_end = _own_end(scored, event, lengths, pace.usual)
    assert event.stop_latency is not None and own_end is not None, "A success has a stop latency, and cuts off an answer."
    assert question is not None and question.reference is not None, "What is cut off is the answer to a question."
    stop = event.user_onset + event.stop_latency
    times = (event.user_onset - _MUTE_BEFORE, (begun + event.user_onset) / 2)
    muted = np.stack([muted_from(outcome, time, at_least=own_end + _PATIENCE) for time in times])
    said = _said_alone(agent, muted, event.user_onset, device, vad)
    passed, reason = _together(
        [_judged(one, question.reference.texts, stop, own_end, pace) for one in said], [one.end for one in said], stop
    )
    ends = " and ".join(f"{end:.2f}" for end in dict.fromkeys(round(one.end, 2) for one in said))
    detail = f"{outcome.id}: interrupted at {event.user_onset:.2f} s it stops at {stop:.2f} s, not interrupted at {ends} s"
    figures = {"stop": stop, "stops_muted": [one.end for one in said], "text_muted": said[0].text, "own_end": own_end}
    return ControlExperiment(_MUTED, passed, f"{detail}: {reason}", figures)


class _Said(NamedTuple):
    """What the agent says, not interrupted, where it was interrupted before: text, Seconds, whether it goes on to the end."""

    text: str
    start: Seconds
    end: Seconds
    endless: bool


def _said_alone(agent: Agent, muted: np.ndarray, time: Seconds, device: str, vad: Vad) -> list[_Said]:
    """What it says around a time, to each of the user channels (B, S)."""
    found = []
    lens = torch.full((len(muted),), muted.shape[1], device=device)
    for reply in replies(agent, torch.from_numpy(muted).to(device), lens):
        again = measure([], vad(reply.sound, agent.agent_sample_rate), len(reply.sound) / agent.agent_sample_rate, AUDIO_RULES)
        start, end = _around(again.agent, time) or (time, time)
        turns = [t for t in reply.turns if start < t.end and t.start < time]
        found.append(_Said(turns[-1].text if turns else "", start, end, endless=end >= again.duration))
    return found


def _together(verdicts: Sequence[tuple[bool | None, str]], ends: Sequence[Seconds], stop: Seconds) -> tuple[bool | None, str]:
    """The verdict on both muted runs: the worse of the two."""
    for worst in (False, None):
        for verdict in verdicts:
            if verdict[0] is worst:
                return verdict
    apart = max(ends) - min(ends)
    if min(ends) - stop < _VARIES * apart:
        return None, f"without an interrupter, too, its ends are {apart:.2f} s apart, so nothing can be told"
    return verdicts[0]


def _judged(said: _Said, right: Sequence[str], stop: Seconds, own_end: Seconds, pace: Pace) -> tuple[bool | None, str]:
    """Whether the agent finished its answer when nobody interrupted, and why. `stop`: when it stopped for the interrupter."""
    if said.start == said.end:
        return None, "it is silent when the user would start, so the two runs differ before"
    if said.endless:
        return False, "it does not stop at all"
    spoken, references = words(said.text), [words(text) for text in right]
    share = (said.end - said.start) / (own_end - said.start)
    shortest = pace.shortest / pace.usual if pace.n else _BROKEN_OFF / _MUCH_SHORTER
    whole = spoken in references
    begun = not whole and any(begins(spoken, reference) for reference in references)
    if (whole or begun) and share < max(_BROKEN_OFF, _MUCH_SHORTER * shortest):
        return False, "it breaks its answer off although nobody interrupts"
    if said.end - stop < _CLEARLY:
        if begun and share < _WHOLE:
            return False, "it stops there too although nobody interrupts"
        what = "its answer" if whole or begun else "it says something else, which"
        return None, f"{what} may end there by itself, so nothing can be told"
    if share < _WHOLE:
        takes = "it takes for whole answers" if pace.n else "the whole answer takes in the corpus"
        return None, f"that is {share:.1%} of the time that {takes}, so it may be broken off"
    return True, "it goes on to its own end"


def control_experiments(
    agent: Agent,
    scored: Sequence[Scored],
    lengths: Lengths,
    most: int,
    device: str = "cpu",
    vad: Vad = energy_vad,
    seed: int = 0,
) -> list[ControlExperiment]:
    """Noise, silence, and the muted interrupter.

    Args:
        scored: the conversations, drawn from by `seed`.
        most: so many of them are to tell something; those that were played and tell nothing are returned too.

    Returns:
        At least one of each kind. All are inconclusive for an agent that never speaks.
    """
    speaks = any(one.outcome.agent or one.outcome.speech for one in scored)
    alone = [noise_only(agent, seed=seed, device=device, vad=vad), silence(agent, device=device, vad=vad)]
    muted, pace = list[ControlExperiment](), pace_of(scored, lengths)
    for one in random.Random(seed).sample(list(scored), len(scored)):
        if counts(muted)["inconclusive"] + most == len(muted):
            break
        experiment = muted_interrupter(agent, one, lengths, device, vad, pace)
        muted += [experiment] if experiment.figures else []
    if not muted:
        detail = f"none of {len(scored)} conversations has a barge-in that cuts an answer off"
        muted = [ControlExperiment(_MUTED, None, detail)]
    return [*(e if speaks or not e.passed else _of_a_mute_agent(e) for e in alone), *muted]


def _of_a_mute_agent(experiment: ControlExperiment) -> ControlExperiment:
    return replace(experiment, passed=None, detail=f"{experiment.detail}, but it does not speak in any conversation either")


def muted_from(outcome: Outcome, time: Seconds, at_least: Seconds = 0.0) -> np.ndarray:
    """(S,) float32: the user's channel, with nothing but its background from `time` on, and made at least so long by it."""
    assert outcome.user_sound is not None, "What was played to an agent has the user's sound."
    rate, audio = outcome.user_sound.sample_rate, outcome.user_sound.samples()
    audio = np.pad(audio, (0, max(0, round(at_least * rate) - len(audio))))
    start = round(time * rate)
    speech = np.zeros(len(audio), bool)
    for a, b in outcome.user:
        speech[max(0, round((a - 0.1) * rate)) : round((b + 0.3) * rate)] = True  # the room's reverberation
    background = audio[:start][~speech[:start]]
    if len(background) < rate // 10:
        background = np.zeros(rate, np.float32)
    repeats = -(-(len(audio) - start) // len(background))
    audio[start:] = np.tile(background, repeats)[: len(audio) - start]
    return audio


def _own_end(scored: Scored, event: BargeIn, lengths: Lengths, share: float) -> Seconds | None:
    """When the answer that is interrupted would end, if the agent takes this share of the time of the corpus' voice."""
    own, begun = own_stop(scored, event, lengths), onset_of_interrupted(scored, event)
    return None if own is None else begun + share * (event.user_onset + own - begun)


def _cuts_off(scored: Scored, event: BargeIn, lengths: Lengths, pace: Pace) -> bool:
    """Whether the agent is saying the reference and stops well before it can be done with it."""
    earliest = _own_end(scored, event, lengths, pace.shortest) if says_the_reference(scored, event) else None
    if earliest is None or event.stop_latency is None or event.user_onset + event.stop_latency + _CLEARLY > earliest:
        return False
    question, usual = interrupted_question(scored, event), _own_end(scored, event, lengths, pace.usual)
    answer = next(a for a in scored.answers if a.question == question)
    assert answer.said is not None and usual is not None, "What is right was said, and its length is known."
    begun = answer.said.start
    spoken = (event.user_onset + event.stop_latency - begun) / (usual - begun)
    return len(words(answer.text)) >= _KEEPS_UP * spoken * len(words(answer.reference.texts[0]))


def _around(spans: Sequence[Span], time: Seconds) -> Span | None:
    return next((span for span in spans if span[0] < time < span[1]), None)


def _spoken(agent: Agent, signal: np.ndarray, device: str, vad: Vad) -> list[Seconds]:
    """For each user channel (B, S): seconds of agent speech, by its sound or by its text channel, whichever is more."""
    lens = torch.full((len(signal),), signal.shape[1], device=device)
    user = torch.from_numpy(signal.astype(np.float32)).to(device)
    spoken = []
    for reply in replies(agent, user, lens):
        by_sound = sum(b - a for a, b in vad(reply.sound, agent.agent_sample_rate))
        spoken.append(round(max(by_sound, sum(t.duration for t in reply.turns)), 3))
    return spoken
