"""Agents of which every score is known before it is measured: they bracket the numbers of a real one.

    user              |- question -|             |-- interrupts --|
    silent
    always talking  |------------------------------------------------------------
    echo                |- question -|             |-- interrupts --|
    oracle                            |-- answer ---x              |-- answer --|
    delayed oracle                       |-- answer ---x              |-- answer --|
    deaf oracle                       |-- whole answer ---------|  |-- answer --|

They know the reference, not the sound: what they do is worked out from the turns and events of the corpus. Where it has sound,
theirs is cut out of it, so that voice activity and everything after it can be tried on them too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.activity import Vad
from nemo_duplex.evaluation.outcome import Outcome, TextEntry
from nemo_duplex.evaluation.sound import Samples, Sound
from nemo_duplex.frames import Seconds

#: After the user's onset, or any other sound, an agent that stops has stopped: eight frames, as in the corpora.
STOPS_AFTER: Seconds = 0.64
#: An echo is as late.
ECHO_DELAY: Seconds = 0.24
#: So much before the question's end an early answer starts: within the paper's grace of 0.1 s.
EARLY: Seconds = 0.05
_SAYS: Seconds = 1.2  # of an agent that speaks at every sound; over a second takes the floor
#: So long it waits before it goes on with what it broke off.
BREAK: Seconds = 1.5
_ECHO_HEARD: Seconds = 1.4  # so long the agent's voice has come back when it takes it for somebody else's
_SOUNDS = ("backchannel", "cough", "side_talk", "background_voice")
_RATE = 16000  # Hz, where neither channel has any


@dataclass(frozen=True)
class Utterance:
    """A turn of the agent, and where its sound is in the recording.

    `channel`: whose sound it is, from the second `origin` on; None: there is no recording of it.
    """

    turn: Turn
    channel: Literal["user", "reference"] | None
    origin: Seconds = 0.0


#: What an agent says in a conversation, of which it knows everything.
BaselineAgent = Callable[[Conversation], list[Utterance]]


def silent(conversation: Conversation) -> list[Utterance]:
    """Says nothing."""
    return []


def always_talking(conversation: Conversation) -> list[Utterance]:
    """Begins with the recording and never stops."""
    turn = Turn("agent", 0.0, conversation.duration, "on and on")
    return [Utterance(turn, "reference", conversation.agent[0].start) if conversation.agent else Utterance(turn, None)]


def echo(conversation: Conversation) -> list[Utterance]:
    """Says what the user says, `ECHO_DELAY` late: a leak from one channel into the other."""
    turns = [replace(turn, speaker="agent", custom={}) for turn in conversation.user]
    return [Utterance(turn.shifted(ECHO_DELAY), "user", turn.start) for turn in turns]


def oracle(conversation: Conversation) -> list[Utterance]:
    """The agent of the corpus."""
    return [Utterance(turn, "reference", turn.start) for turn in conversation.agent]


def delayed_oracle(delay: Seconds) -> BaselineAgent:
    """The agent of the corpus, later by `delay`, also when it stops."""

    def agent(conversation: Conversation) -> list[Utterance]:
        return [replace(said, turn=said.turn.shifted(delay)) for said in oracle(conversation)]

    return agent


def early_oracle(conversation: Conversation) -> list[Utterance]:
    """The agent of the corpus, who starts every answer `EARLY` before the end of the question, and stops as before."""
    found = []
    for said in oracle(conversation):
        asked = [turn for turn in conversation.user if turn.start < said.turn.start]
        start = max(asked[-1].start, asked[-1].end - EARLY) if asked else said.turn.start
        found.append(replace(said, turn=replace(said.turn, start=min(start, said.turn.start))))
    return found


def every_other_answer(conversation: Conversation) -> list[Utterance]:
    """The agent of the corpus, who leaves out every second answer."""
    return oracle(conversation)[::2]


def deaf_oracle(conversation: Conversation) -> list[Utterance]:
    """The agent of the corpus, who says every answer to its end whoever interrupts.

    How long a whole answer takes is the turn's `whole_duration`; where the corpus does not say, the turn is as in the corpus.
    """
    return [replace(said, turn=_whole(said.turn)) for said in oracle(conversation)]


def stops_at_backchannels(conversation: Conversation) -> list[Utterance]:
    """The agent of the corpus, who takes a backchannel for a turn: stops, and says no more."""
    found = []
    for said in oracle(conversation):
        stops = [start + STOPS_AFTER for kind, start, _ in _sounds(conversation) if kind == "backchannel" and _in(said, start)]
        found.append(replace(said, turn=_until(said.turn, min(stops, default=said.turn.end))))
    return found


def reacts_to_every_sound(conversation: Conversation) -> list[Utterance]:
    """The agent of the corpus, with no idea what is meant for it.

    It speaks in pauses of the user and after every sound beside the turns, and at a sound or an echo while it speaks it breaks
    off and goes on 1.5 s later, if nobody interrupts.
    """
    sounds = _sounds(conversation)
    heard = [start for kind, start, _ in sounds if kind in _SOUNDS]
    heard += [start + _ECHO_HEARD for kind, start, _ in sounds if kind == "leak"]
    said: list[Utterance] = []
    for answer in oracle(conversation):
        interrupted = any(_in(answer, turn.start) for turn in conversation.user)
        said += _with_break(answer, min((s for s in heard if _in(answer, s) and not interrupted), default=None))
    pauses = [start for turn in conversation.user for start, _ in turn.custom.get("pauses", ())]
    quiet = [s for kind, s, _ in sounds if kind in _SOUNDS and not any(_in(answer, s) for answer in oracle(conversation))]
    prompts = [start + 0.2 for start in pauses] + [start + STOPS_AFTER for start in quiet]
    said += [Utterance(Turn("agent", at, at + _SAYS, "yes please"), None) for at in prompts]
    return sorted(said, key=lambda one: one.turn.start)


AGENTS: Mapping[str, BaselineAgent] = {
    "silent": silent,
    "always talking": always_talking,
    "echo": echo,
    "oracle": oracle,
    "early oracle": early_oracle,
    "every other answer": every_other_answer,
    "deaf oracle": deaf_oracle,
    "stops at backchannels": stops_at_backchannels,
    "reacts to every sound": reacts_to_every_sound,
}


def played(agent: BaselineAgent, outcome: Outcome, vad: Vad | None = None) -> Outcome:
    """The conversation of an outcome with another agent in it.

    Args:
        outcome: of any agent; its conversation, and its user's and reference's sounds are taken.
        vad: finds the speech in the agent's sound, which is cut out of the outcome's own. None takes the turns themselves for
            speech; then no sound is read or made.

    Examples:
        >>> from nemo_duplex.evaluation.controls.built_in_conversations import built_in_outcomes
        >>> [outcome, *_] = built_in_outcomes()
        >>> played(silent, outcome).speech, played(always_talking, outcome).speech == ((0.0, outcome.duration),)
        ((), True)
    """
    said = [u for u in agent(outcome.conversation) if u.turn.start < outcome.duration]
    turns = tuple(_until(u.turn, outcome.duration) for u in said)
    done = replace(
        outcome,
        agent=turns,
        speech=tuple((turn.start, turn.end) for turn in turns),
        agent_sound=None,
        text_entries=tuple(sorted(entry for turn in turns for entry in _entries(turn))),
        unterminated=0,
        orphan_eos=0,
        writes=True,
    )
    if vad is None:
        return done
    sound = _sound(said, outcome)
    return replace(done, agent_sound=sound, speech=tuple(vad(sound.samples(), sound.sample_rate)))


def _sounds(conversation: Conversation) -> list[tuple[str, Seconds, Seconds]]:
    """Kind, start and end of what is heard beside the turns."""
    return [(event["kind"], event["start"], event["end"]) for event in conversation.custom.get("events", ())]


def _in(said: Utterance, time: Seconds) -> bool:
    return said.turn.start < time < said.turn.end


def _whole(turn: Turn) -> Turn:
    if not turn.was_cut or "whole_duration" not in turn.custom:
        return turn
    return replace(turn, end=turn.start + turn.custom["whole_duration"], text=turn.full_text or turn.text, full_text=None)


def _until(turn: Turn, time: Seconds) -> Turn:
    return turn.cut_at(time) if turn.start < time < turn.end else turn


def _with_break(answer: Utterance, sound: Seconds | None) -> list[Utterance]:
    """An answer with a break after a sound; whole where the sound is too late for one."""
    turn = answer.turn
    stop = turn.end if sound is None else sound + STOPS_AFTER
    again = stop + BREAK
    if again >= turn.end:
        return [answer]
    rest = turn.cut_before(again)
    return [replace(answer, turn=_until(turn, stop)), replace(answer, turn=rest, origin=answer.origin + again - turn.start)]


def _entries(turn: Turn) -> list[TextEntry]:
    """The turn on the text channel: one entry for each word, as far as there is time for them."""
    words = len(turn.text.split())
    times = [turn.start + turn.duration * (i + 1) / (words + 1) for i in range(words)]
    return [TextEntry(turn.start, "bos"), *(TextEntry(time, "word") for time in times), TextEntry(turn.end, "eos")]


def _sound(said: list[Utterance], outcome: Outcome) -> Samples:
    """The agent's channel: what it says, cut out of the channel where that is heard; a murmur where it is heard in none."""
    sources: dict[str | None, Sound | None] = {"user": outcome.user_sound, "reference": outcome.reference_sound, None: None}
    rates = {sound.sample_rate for u in said if (sound := sources[u.channel]) is not None}
    assert len(rates) <= 1, "An agent's sound is cut out of one channel."
    rate = rates.pop() if rates else _RATE
    read = {channel: sound.samples() for channel, sound in sources.items() if sound and channel in {u.channel for u in said}}
    channel = np.zeros(round(outcome.duration * rate), np.float32)
    for one in said:
        start = round(one.turn.start * rate)
        length = min(round(one.turn.end * rate), len(channel)) - start
        source = read.get(one.channel)
        recorded = None if source is None else _recorded(one, source, outcome.conversation, rate)
        channel[start : start + length] = (
            _murmur_of(one.turn, length, rate) if recorded is None else np.resize(recorded, length)
        )
    return Samples.of(channel, rate)


def _recorded(said: Utterance, source: np.ndarray, conversation: Conversation, rate: int) -> np.ndarray | None:
    """What is recorded of a turn, from its origin to the end of the turn in which that lies."""
    turns = conversation.user if said.channel == "user" else conversation.agent
    end = next((turn.end for turn in turns if turn.start <= said.origin < turn.end), said.origin)
    sound = source[round(said.origin * rate) : round(end * rate)]
    return sound if len(sound) else None


def _murmur_of(turn: Turn, samples: int, rate: int) -> np.ndarray:
    return murmur(samples, rate, seed=round(turn.start * 1000))


def murmur(samples: int, rate: int, seed: int) -> np.ndarray:
    """(samples,) float32: speech in outline, noise with four syllables a second."""
    sound = np.random.default_rng(seed).standard_normal(samples)
    syllables = 0.25 + 0.75 * np.abs(np.sin(4 * np.pi * np.arange(samples) / rate))
    return np.clip(0.15 * sound * syllables, -1, 1).astype(np.float32)
