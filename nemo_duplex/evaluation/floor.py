"""Who holds the floor: how dialogues of two people are described, for a user and an agent.

    user    |-- unit --| pause |-- unit --|                    |-- unit --|
    agent                                  gap |---- unit -----------|
                                                               |- - -|  overlap, begun by the user
            |------------ turn -----------|    |------- turn --------|

The units, pauses, gaps and overlaps are those of dGSLM (Nguyen et al. 2023, TACL 11, section 4; also J-Moshi, Ohashi et al.
2025): units are speech without a silence of more than 0.2 s. How speakers change is as in Heldner & Edlund (2010, J. Phonetics
38). These numbers have no right value: they are compared with those of people, or of the corpus that an agent was trained on.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nemo_duplex.evaluation.confidence import Estimate, Ratio, estimate_each, ratio_of_sums
from nemo_duplex.evaluation.spans import MsSpan, in_seconds, length_ms, normalise, to_ms, to_seconds
from nemo_duplex.frames import Seconds, Span

Speaker = Literal["user", "agent"]
SPEAKERS: tuple[Speaker, Speaker] = ("user", "agent")


@dataclass(frozen=True)
class FloorRules:
    """What the words mean, in Seconds.

    Args:
        unit_gap: silence of one speaker up to this long is inside a unit (dGSLM: 0.2).
        turn_gap: the agent has not stopped where it pauses up to this long while the user speaks. 0.5, as for a VAD.
        runaway_turn: an agent turn that is longer has run away. No benchmark has a number for it.
        runaway_overlap: so has one in which the user speaks for longer, in all: twice the paper's window of 1.5 s, in which
            the agent should have stopped.

    Examples:
        >>> FloorRules().unit_gap
        0.2
    """

    unit_gap: Seconds = 0.2
    turn_gap: Seconds = 0.5
    runaway_turn: Seconds = 30.0
    runaway_overlap: Seconds = 3.0


@dataclass(frozen=True)
class Stretch:
    """A pause, a gap or an overlap, from `start` to `end` (Seconds).

    `speaker`: of a pause, who goes on; of a gap, who takes the floor; of an overlap, who began it. None where both did in the
    same millisecond: then it counts for the whole and for neither speaker.
    """

    start: Seconds
    end: Seconds
    speaker: Speaker | None

    @property
    def seconds(self) -> Seconds:
        """Its length."""
        return _length([(self.start, self.end)])


@dataclass(frozen=True)
class Transfer:
    """The floor goes from one speaker to the other at `time`, when the new one starts.

    `offset`: Seconds from the end of the old speaker's speech; negative if the new one starts before it.
    """

    time: Seconds
    to: Speaker
    offset: Seconds


@dataclass(frozen=True)
class Floor:
    """How one conversation went. Spans are Seconds, sorted and apart.

    Examples:
        >>> user, agent = [(0.0, 1.0), (1.5, 2.5), (5.0, 6.0)], [(3.0, 5.4)]
        >>> found = measure_floor(user, agent, duration=10.0)
        >>> [(p.speaker, p.seconds) for p in found.pauses], [(g.speaker, g.seconds) for g in found.gaps]
        ([('user', 0.5)], [('agent', 0.5)])
        >>> [(t.to, t.offset) for t in found.transfers]
        [('agent', 0.5), ('user', -0.4)]
    """

    rules: FloorRules
    duration: Seconds
    user_units: tuple[Span, ...]
    agent_units: tuple[Span, ...]
    pauses: tuple[Stretch, ...]
    gaps: tuple[Stretch, ...]
    overlaps: tuple[Stretch, ...]
    transfers: tuple[Transfer, ...]
    user_turns: tuple[Span, ...]
    agent_turns: tuple[Span, ...]
    runaways: tuple[Span, ...]

    def longest_monologue(self, speaker: Speaker) -> Seconds:
        """The longest turn; 0 for a speaker who says nothing."""
        return max((_length([turn]) for turn in (self.user_turns if speaker == "user" else self.agent_turns)), default=0.0)

    def as_dict(self) -> dict[str, Any]:
        """Events of this conversation and, beside them, its own rates: what goes into report.json."""
        return {k: v for k, v in asdict(self).items() if k != "rules"} | pool_floor([self])


def measure_floor(user: Iterable[Span], agent: Iterable[Span], duration: Seconds, rules: FloorRules = FloorRules()) -> Floor:
    """The dialogue statistics of one conversation.

    Args:
        user, agent: when each speaks: spans (start, end) in Seconds, in any order, pauses not merged. Turns of a manifest hide
            the pauses inside them: `labels.user_speech` cuts these out.
        duration: length of the recording in Seconds; spans are clipped to it.

    Raises:
        InputError: if a span ends before it starts, or a time is no finite number.
    """
    agent, end = list(agent), length_ms(duration)
    users, agents = (normalise(spans, end, to_ms(rules.unit_gap))[0] for spans in (user, agent))
    pauses, gaps, overlaps, transfers = _changes(_states(users, agents, end))
    return Floor(
        rules=rules,
        duration=to_seconds(end),
        user_units=in_seconds(users),
        agent_units=in_seconds(agents),
        pauses=tuple(map(_stretch, pauses)),
        gaps=tuple(map(_stretch, gaps)),
        overlaps=tuple(map(_stretch, overlaps)),
        transfers=tuple(Transfer(to_seconds(time), to, to_seconds(offset)) for time, to, offset in transfers),
        user_turns=in_seconds(_turns(users, pauses)),
        agent_turns=in_seconds(_turns(agents, pauses)),
        runaways=in_seconds(_runaways(users, _turns(normalise(agent, end, to_ms(rules.turn_gap))[0], pauses), rules)),
    )


_State = tuple[int, int, frozenset[Speaker]]  # from, to (milliseconds), who speaks
_Found = tuple[int, int, Speaker | None]


def _states(users: Sequence[MsSpan], agents: Sequence[MsSpan], end: int) -> list[_State]:
    """The recording as stretches in which the same people speak; each differs from the one before it."""
    changes: list[tuple[int, Speaker, bool]] = [(t, "user", on) for span in users for t, on in zip(span, (True, False))]
    changes += [(t, "agent", on) for span in agents for t, on in zip(span, (True, False))]
    states: list[_State] = []
    speaking: set[Speaker] = set()
    last = 0
    for time, speaker, on in sorted(changes, key=lambda change: change[0]):
        if time > last:
            states.append((last, time, frozenset(speaking)))
            last = time
        (speaking.add if on else speaking.discard)(speaker)
    return states + [(last, end, frozenset(speaking))] * (end > last)


def _changes(states: Sequence[_State]) -> tuple[list[_Found], list[_Found], list[_Found], list[tuple[int, Speaker, int]]]:
    """Pauses, gaps and overlaps, and how the floor goes from one speaker to the other: (onset, to whom, offset)."""
    pauses: list[_Found] = []
    gaps: list[_Found] = []
    overlaps: list[_Found] = []
    transfers = []
    nobody: frozenset[Speaker] = frozenset()
    speakers = [nobody, *(who for _, _, who in states), nobody]
    for (start, end, who), before, after in zip(states, speakers, speakers[2:]):
        if len(who) == 2:
            overlaps.append((start, end, _only(who - before) if before else None))
        elif not who and before and after:
            same = before & after
            (pauses if same else gaps).append((start, end, _only(same or after)))
        if len(who) != 1 and len(before) == len(after) == 1 and before != after:
            [taker] = after
            transfers.append((start, taker, start - end) if who else (end, taker, end - start))
        elif len(who) == len(after) == 1:  # one ends in the millisecond in which the other starts
            [taker] = after
            transfers.append((end, taker, 0))
    return pauses, gaps, overlaps, transfers


def _only(speakers: frozenset[Speaker]) -> Speaker | None:
    return next(iter(speakers)) if len(speakers) == 1 else None


def _turns(units: Sequence[MsSpan], pauses: Sequence[_Found]) -> list[MsSpan]:
    """Units of a speaker, those with nothing but a pause between them as one."""
    paused = {(start, end) for start, end, _ in pauses}
    turns: list[MsSpan] = []
    for start, end in units:
        if turns and (turns[-1][1], start) in paused:
            turns[-1] = (turns[-1][0], end)
        else:
            turns.append((start, end))
    return turns


def _runaways(users: Sequence[MsSpan], agents: Sequence[MsSpan], rules: FloorRules) -> list[MsSpan]:
    """Agent turns that are too long, or that the user speaks in for too long."""
    longest, over = to_ms(rules.runaway_turn), to_ms(rules.runaway_overlap)
    found = []
    for start, end in agents:
        talked_over = sum(min(b, end) - max(a, start) for a, b in users if a < end and start < b)
        if end - start > longest or talked_over > over:
            found.append((start, end))
    return found


def _stretch(found: _Found) -> Stretch:
    return Stretch(to_seconds(found[0]), to_seconds(found[1]), found[2])


def _of(found: Sequence[Stretch], speaker: Speaker | None) -> tuple[int, Seconds]:
    """How many, and how long they are together: of one speaker, or all."""
    kept = [s.seconds for s in found if speaker in (None, s.speaker)]
    return len(kept), sum(kept)


def _units_of(m: Floor, speaker: Speaker | None) -> tuple[int, Seconds]:
    spans = {"user": m.user_units, "agent": m.agent_units, None: m.user_units + m.agent_units}[speaker]
    return len(spans), _length(spans)


def _length(spans: Iterable[Span]) -> Seconds:
    return to_seconds(sum(to_ms(b) - to_ms(a) for a, b in spans))


_WHO: tuple[tuple[str, Speaker | None], ...] = (("", None), ("user_", "user"), ("agent_", "agent"))
_KINDS: dict[str, Callable[[Floor, Speaker | None], tuple[int, Seconds]]] = {
    "ipu": _units_of,
    "pause": lambda m, speaker: _of(m.pauses, speaker),
    "gap": lambda m, speaker: _of(m.gaps, speaker),
    "overlap": lambda m, speaker: _of(m.overlaps, speaker),
}


def _per_minute(kind: str, speaker: Speaker | None, part: int) -> Ratio[Floor]:
    return lambda m: (_KINDS[kind](m, speaker)[part], m.duration / 60)


def offsets(m: Floor, to: Speaker | None = None) -> list[Seconds]:
    """The floor-transfer offsets of a conversation: those to one speaker, or all."""
    return [t.offset for t in m.transfers if to in (None, t.to)]


#: What is counted over what, conversation by conversation, as in `turn_taking.RATIOS`. `ipus_per_minute` is of both speakers,
#: `user_ipus_per_minute` of one; `ipu_seconds_per_minute` is how long they are together.
RATIOS: dict[str, Ratio[Floor]] = {
    f"{prefix}{kind}{suffix}_per_minute": _per_minute(kind, speaker, part)
    for prefix, speaker in _WHO
    for kind in _KINDS
    for suffix, part in (("s", 0), ("_seconds", 1))
} | {
    "user_talk_ratio": lambda m: (_length(m.user_units), m.duration),
    "agent_talk_ratio": lambda m: (_length(m.agent_units), m.duration),
    "overlap_ratio": lambda m: (_of(m.overlaps, None)[1], m.duration),
    "silence_ratio": lambda m: (max(0.0, m.duration - _units_of(m, None)[1] + _of(m.overlaps, None)[1]), m.duration),
    "floor_transfer_offset": lambda m: (sum(offsets(m)), len(offsets(m))),
    "user_floor_transfer_offset": lambda m: (sum(offsets(m, "user")), len(offsets(m, "user"))),
    "agent_floor_transfer_offset": lambda m: (sum(offsets(m, "agent")), len(offsets(m, "agent"))),
    "overlapped_transfer_rate": lambda m: (sum(offset < 0 for offset in offsets(m)), len(m.transfers)),
    "user_longest_monologue": lambda m: (m.longest_monologue("user"), 1),
    "agent_longest_monologue": lambda m: (m.longest_monologue("agent"), 1),
    "runaway_rate": lambda m: (bool(m.runaways), 1),
}
#: Those of them that are shares of countable things, for which a Wilson interval is defined.
PROPORTIONS = {name for name in RATIOS if name.endswith("_rate")}


def pool_floor(conversations: Sequence[Floor]) -> dict[str, float | int | None]:
    """Counts and rates of all conversations together; None where undefined.

    `agent_longest_monologue` is the mean of the conversations' longest turns, `agent_longest_monologue_of_all` the longest.
    """
    longest = {f"{who}_longest_monologue_of_all": [m.longest_monologue(who) for m in conversations] for who in SPEAKERS}
    medians = {
        "median_floor_transfer_offset": [offset for m in conversations for offset in offsets(m)],
        "median_user_floor_transfer_offset": [offset for m in conversations for offset in offsets(m, "user")],
        "median_agent_floor_transfer_offset": [offset for m in conversations for offset in offsets(m, "agent")],
    }
    return {
        "n_conversations": len(conversations),
        "n_transfers": sum(len(m.transfers) for m in conversations),
        "n_runaways": sum(len(m.runaways) for m in conversations),
        **{name: ratio_of_sums(map(ratio, conversations)) for name, ratio in RATIOS.items()},
        **{name: statistics.median(values) if values else None for name, values in medians.items()},
        **{name: max(values, default=None) for name, values in longest.items()},
    }


def estimate_floor(conversations: Sequence[Floor], seed: int = 0) -> dict[str, Estimate]:
    """The rates with their number of events and 95 % intervals; conversations, not events, are resampled."""
    return estimate_each(RATIOS, PROPORTIONS, conversations, seed)
