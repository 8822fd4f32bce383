"""Control experiments: what an agent that listens must do, and one that has only learnt the timing of its corpus would not.

noise alone, silence for a minute     it never speaks
the interrupter muted                 it finishes its answer, so it was the user's voice that stopped it

   user    |- question -|          |--- next ---|           as recorded: the agent stops
   agent                   |-----------x

   user    |- question -|          . . . muted . . .        the same up to the onset, then the room's own noise
   agent                   |------------------------|
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from nemo_duplex.evaluation.activity import Vad, energy_vad
from nemo_duplex.evaluation.baseline import SHORTER, Lengths, own_stop, says_the_reference
from nemo_duplex.evaluation.generation import Agent, replies
from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.scores import AUDIO_RULES, Scored
from nemo_duplex.evaluation.turn_taking import BargeIn, measure
from nemo_duplex.frames import Seconds, Span
from nemo_duplex.synthesis.mix import NoiseColor, noise

_COLORS: tuple[NoiseColor, ...] = ("white", "pink", "brown")
_MUTE_BEFORE: Seconds = 0.03  # the manifest's onset may be a little late


@dataclass(frozen=True)
class ControlExperiment:
    """The result of a control experiment.

    Args:
        name: of the experiment.
        passed: None where it says nothing, as for a conversation without a barge-in.
        detail: one line for people.
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

    Takes the first barge-in for which the agent stops well before its answer would have ended by itself.

    Args:
        scored: the conversation as recorded.
        lengths: how long answers take (`lengths_of_answers`).
    """
    outcome = scored.outcome
    event = next((b for b in scored.turn_taking.successes if _cuts_off(scored, b, lengths)), None)
    if event is None:
        return ControlExperiment("interrupter muted", None, f"{outcome.id}: no barge-in that cuts an answer off")
    assert event.stop_latency is not None, "A success has a stop latency."
    stop = event.user_onset + event.stop_latency
    muted = muted_from(outcome, event.user_onset - _MUTE_BEFORE)
    (reply,) = replies(agent, torch.from_numpy(muted)[None].to(device), torch.tensor([len(muted)], device=device))
    again = measure([], vad(reply.sound, agent.agent_sample_rate), outcome.duration, AUDIO_RULES)
    goes_on = _around(again.agent, event.user_onset)
    end = goes_on[1] if goes_on else event.user_onset
    text = next((t.text for t in reply.turns if t.start < event.user_onset < t.end), "")
    finished = stop + SHORTER <= end < outcome.duration
    detail = f"{outcome.id}: interrupted at {event.user_onset:.2f} s it stops at {stop:.2f} s, not interrupted at {end:.2f} s"
    return ControlExperiment("interrupter muted", finished, detail, {"stop": stop, "stop_muted": end, "text_muted": text})


def control_experiments(
    agent: Agent, scored: Iterable[Scored], lengths: Lengths, most: int, device: str = "cpu"
) -> list[ControlExperiment]:
    """Noise, silence, and the muted interrupter in the first `most` conversations that can tell something."""
    muted = (muted_interrupter(agent, one, lengths, device) for one in scored)
    telling = itertools.islice((experiment for experiment in muted if experiment.passed is not None), most)
    return [noise_only(agent, device=device), silence(agent, device=device), *telling]


def muted_from(outcome: Outcome, time: Seconds) -> np.ndarray:
    """(S,) float32: the user's channel, with nothing but its background from `time` on."""
    audio, rate = outcome.user_audio.copy(), outcome.cut.sampling_rate
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
    own = own_stop(scored, event, lengths) if says_the_reference(scored, event) else None
    return own is not None and event.stop_latency is not None and event.stop_latency + SHORTER < own


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
