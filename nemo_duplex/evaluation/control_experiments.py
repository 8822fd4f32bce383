"""Control experiments: what an agent that listens must do, and one that has only learnt the timing of its corpus would not.

noise alone, silence for a minute     it never speaks
the interrupter muted                 it finishes its answer, so it was the user's voice that stopped it

A control that cannot tell is neither passed nor failed but inconclusive: an agent that never speaks is silent in noise too, and
an answer that is at its own end when the user interrupts ends there whether the agent listens or not.

   user    |- question -|          |--- next ---|           as recorded: the agent stops
   agent                   |-----------x

   user    |- question -|          . . . muted . . .        the same up to the onset, then the room's own noise
   agent                   |------------------------|
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from nemo_duplex.evaluation.activity import Vad, energy_vad
from nemo_duplex.evaluation.answers import begins
from nemo_duplex.evaluation.baseline import Lengths, interrupted_question, own_stop, says_the_reference
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
# Of the time that the corpus' voice takes; agents of the demo that say the whole answer take 0.76 to 1.23, 9 of 10 over 0.85.
_BROKEN_OFF, _WHOLE = 0.67, 0.9
_KEEPS_UP = 0.5  # of the answer's words have to be written when all of it was said; with fewer the voice says something else
_PATIENCE: Seconds = 2.0  # after the end of the answer, where the recording ends before


@dataclass(frozen=True)
class ControlExperiment:
    """The result of a control experiment.

    Args:
        name: of the experiment.
        passed: None where it is inconclusive.
        detail: one line for people, with the reason.
        figures: the numbers behind it.
    """

    name: str
    passed: bool | None
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


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
    agent: Agent, scored: Scored, lengths: Lengths, device: str = "cpu", vad: Vad = energy_vad
) -> ControlExperiment:
    """Plays a conversation again without the user who interrupts: the agent must then finish its answer.

    Takes the first barge-in for which the agent is saying the reference, its text not far behind its voice, and stops well
    before its answer would have ended by itself.

    Args:
        scored: the conversation as recorded.
        lengths: how long answers take (`lengths_of_answers`).

    Returns:
        `passed`: it goes on to the end of its answer. Failed: it stops in the middle of it, or never. None where it is at its
        own end there anyway, and, without `figures`, where there is no such barge-in.
    """
    outcome = scored.outcome
    event = next((b for b in scored.turn_taking.successes if _cuts_off(scored, b, lengths)), None)
    if event is None:
        return ControlExperiment(_MUTED, None, f"{outcome.id}: no barge-in that cuts an answer off")
    own, question = own_stop(scored, event, lengths), interrupted_question(scored, event)
    assert event.stop_latency is not None and own is not None, "A success has a stop latency, and cuts off an answer."
    assert question is not None and question.reference is not None, "What is cut off is the answer to a question."
    stop, own_end = event.user_onset + event.stop_latency, event.user_onset + own
    muted = muted_from(outcome, event.user_onset - _MUTE_BEFORE, at_least=own_end + _PATIENCE)
    (reply,) = replies(agent, torch.from_numpy(muted)[None].to(device), torch.tensor([len(muted)], device=device))
    again = measure([], vad(reply.sound, agent.agent_sample_rate), len(reply.sound) / agent.agent_sample_rate, AUDIO_RULES)
    start, end = _around(again.agent, event.user_onset) or (event.user_onset, event.user_onset)
    turns = [t for t in reply.turns if start < t.end and t.start < event.user_onset]
    said = _Said(turns[-1].text if turns else "", start, end, endless=end >= again.duration)
    passed, reason = _judged(said, question.reference.texts, stop, own_end)
    detail = f"{outcome.id}: interrupted at {event.user_onset:.2f} s it stops at {stop:.2f} s, not interrupted at {end:.2f} s"
    figures = {"stop": stop, "stop_muted": end, "text_muted": said.text, "own_end": own_end}
    return ControlExperiment(_MUTED, passed, f"{detail}: {reason}", figures)


class _Said(NamedTuple):
    """What the agent says, not interrupted, where it was interrupted before: text, Seconds, whether it goes on to the end."""

    text: str
    start: Seconds
    end: Seconds
    endless: bool


def _judged(said: _Said, right: Sequence[str], stop: Seconds, own_end: Seconds) -> tuple[bool | None, str]:
    """Whether the agent finished its answer when nobody interrupted, and why. `stop`: when it stopped for the interrupter."""
    if said.start == said.end:
        return None, "it is silent when the user would start, so the two runs differ before"
    if said.endless:
        return False, "it does not stop at all"
    spoken, references = words(said.text), [words(text) for text in right]
    share = (said.end - said.start) / (own_end - said.start)
    whole = spoken in references
    begun = not whole and any(begins(spoken, reference) for reference in references)
    if (whole or begun) and share < _BROKEN_OFF:
        return False, "it breaks its answer off although nobody interrupts"
    if said.end - stop < _CLEARLY:
        if begun and share < _WHOLE:
            return False, "it stops there too although nobody interrupts"
        reason = (
            "its answer ends there by itself" if whole or begun else "it says something else, which may end there by itself"
        )
        return None, f"{reason}, so nothing can be told"
    if share < _WHOLE:
        return None, f"that is {share:.1%} of the time that the whole answer takes in the corpus, so it may be broken off"
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
    muted: list[ControlExperiment] = []
    for one in random.Random(seed).sample(list(scored), len(scored)):
        if counts(muted)["inconclusive"] + most == len(muted):
            break
        experiment = muted_interrupter(agent, one, lengths, device, vad)
        muted += [experiment] if experiment.figures else []
    if not muted:
        detail = f"none of {len(scored)} conversations has a barge-in that cuts an answer off"
        muted = [ControlExperiment(_MUTED, None, detail)]
    return [*(e if speaks or not e.passed else _of_a_mute_agent(e) for e in alone), *muted]


def counts(experiments: Iterable[ControlExperiment]) -> dict[str, int]:
    """How many passed, failed, and were inconclusive."""
    results = [experiment.passed for experiment in experiments]
    return {"passed": results.count(True), "failed": results.count(False), "inconclusive": results.count(None)}


def _of_a_mute_agent(experiment: ControlExperiment) -> ControlExperiment:
    return replace(experiment, passed=None, detail=f"{experiment.detail}, but it does not speak in any conversation either")


def muted_from(outcome: Outcome, time: Seconds, at_least: Seconds = 0.0) -> np.ndarray:
    """(S,) float32: the user's channel, with nothing but its background from `time` on, and made at least so long by it."""
    rate = outcome.cut.sampling_rate
    audio = outcome.user_audio
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


def _cuts_off(scored: Scored, event: BargeIn, lengths: Lengths) -> bool:
    """Whether the agent is saying the reference and stops well before its end."""
    own = own_stop(scored, event, lengths) if says_the_reference(scored, event) else None
    if own is None or event.stop_latency is None or event.stop_latency + _CLEARLY > own:
        return False
    question = interrupted_question(scored, event)
    answer = next(a for a in scored.answers if a.question == question)
    assert answer.said is not None, "What is right was said."
    before = event.user_onset - answer.said.start
    spoken = (before + event.stop_latency) / (before + own)
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
