"""What the agent makes of what it should not answer: pauses inside a turn, backchannels, coughs, talk to others, its own echo.

    user    |-- What is --|  pause  |-- the capital? --|             mhm
    agent                                                 |---- answer ----x    |-- goes on --|
                                                                         stops  <-> resumes

Every label of the user's channel has one verdict. Where a timeline cannot tell what the agent reacted to, the verdict is
`unknown`: such labels are counted, and stand in no rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nemo_duplex.evaluation.confidence import Estimate, Ratio, estimate_each, ratio_of_sums
from nemo_duplex.evaluation.labels import LabelledEvent
from nemo_duplex.evaluation.spans import MsSpan, length_ms, normalise, to_ms, to_seconds
from nemo_duplex.evaluation.time_left import SHORTER, TELLING, OwnEnd, unknown_end
from nemo_duplex.frames import Seconds, Span

#: Sounds at which an agent should neither stop nor start.
DISTRACTIONS = ("backchannel", "cough", "side_talk", "background_voice")


@dataclass(frozen=True)
class BehaviourRules:
    """The boundaries of the verdicts, in Seconds.

    Args:
        agent_merge_gap: pauses of the agent up to this long do not end its turn. 0 for exact turns, 0.5 for a VAD.
        takeover: the agent takes the floor if it speaks for at least this long (Full-Duplex-Bench v1: 1 s; there, more than
            three words count as well).
        reaction: an agent that speaks reacts to a sound within this time of its onset, or until its end; a silent one within
            this time of its end, as to a turn. As long as the paper's window for barge-ins.
        watched: a silent agent is judged where no user turn comes for this long after a sound, so that it could have answered.
        resume_within: the agent resumes if it starts again within this time of its stop and before the user's next turn.
        grace: an agent onset this close to the user's end is no takeover (paper: 0.1).
        shorter: a turn this much shorter than it would have been was broken off. Two frames of the model.
        telling: with no more than this to go of an answer, going on, ending and stopping look alike.

    Examples:
        >>> BehaviourRules().takeover, BehaviourRules(takeover=0.0).takeover     # 0: any sound takes the floor
        (1.0, 0.0)
    """

    agent_merge_gap: Seconds = 0.5
    takeover: Seconds = 1.0
    reaction: Seconds = 1.5
    watched: Seconds = 1.0
    resume_within: Seconds = 2.0
    grace: Seconds = 0.1
    shorter: Seconds = SHORTER
    telling: Seconds = TELLING


@dataclass(frozen=True)
class Pause:
    """A pause inside a user turn, and the first thing that the agent did in it.

    `status`: `waited` (stayed silent), `spoke` (for less than `takeover`), `took_over`; not counted are `speaking` (the agent
    spoke already when the pause began) and `unknown` (the recording ends too early to say).
    """

    start: Seconds
    end: Seconds
    status: Literal["waited", "spoke", "took_over", "speaking", "unknown"]


@dataclass(frozen=True)
class Reaction:
    """A sound that is no turn, and what the agent did at it.

    `speaking`: whether the agent spoke when it began.
    `status`: of a speaking agent `went_on` (also to its own end), `resumed` (stopped and started again), `broke_off` (stopped
    before its own end), or `fell_silent` (stopped; whether that was its own end is not known); of a silent one `silent` or
    `spoke`. Not counted are `ending` (the answer was about to end) and `unknown`.
    `resume_time`: Seconds from the stop to the new start.
    """

    kind: str
    start: Seconds
    end: Seconds
    speaking: bool
    status: Literal["went_on", "resumed", "broke_off", "fell_silent", "silent", "spoke", "ending", "unknown"]
    resume_time: Seconds | None = None

    @property
    def counted(self) -> bool:
        return self.status not in ("ending", "unknown")


@dataclass(frozen=True)
class Echo:
    """The agent's voice in the user's channel, and whether the agent fell silent over it.

    `status`: `kept` (it spoke to the echo's end, or to its own), `interrupted` (it broke off or stopped and resumed, while
    nobody else made a sound); not counted are `silent` (it did not speak) and `unknown`.
    """

    start: Seconds
    end: Seconds
    status: Literal["kept", "interrupted", "silent", "unknown"]


@dataclass(frozen=True)
class Unprompted:
    """The agent starts to speak at `onset` though nobody asked.

    `after`: the kind of sound heard just before, if any. `greeting`: it is the agent's first turn, and the user's come later.
    """

    onset: Seconds
    after: str | None
    greeting: bool


@dataclass(frozen=True)
class Behaviour:
    """What the agent of one conversation made of the labels of the user's channel.

    Examples:
        >>> events = [LabelledEvent("backchannel", "user", 4.0, 4.3)]
        >>> agent = [(2.5, 4.6), (5.3, 8.0)]                         # stops at the "mhm", and resumes
        >>> found = measure_behaviour([(1.0, 2.0)], [(1.4, 1.7)], events, agent, duration=10.0)
        >>> [p.status for p in found.pauses], [(r.status, r.resume_time) for r in found.reactions]
        (['waited'], [('resumed', 0.7)])
    """

    rules: BehaviourRules
    duration: Seconds
    n_agent_turns: int
    pauses: tuple[Pause, ...]
    paused_turns: tuple[bool, ...]
    reactions: tuple[Reaction, ...]
    echoes: tuple[Echo, ...]
    unprompted: tuple[Unprompted, ...]

    def of(self, kind: str) -> tuple[Reaction, ...]:
        """The counted reactions to one kind of sound."""
        return tuple(r for r in self.reactions if r.kind == kind and r.counted)

    def as_dict(self) -> dict[str, Any]:
        """Events of this conversation and, beside them, its own rates: what goes into report.json."""
        return {k: v for k, v in asdict(self).items() if k != "rules"} | pool_behaviour([self])


@dataclass(frozen=True)
class _Scene:
    """One conversation in milliseconds."""

    users: list[MsSpan]
    agents: list[MsSpan]
    events: list[tuple[str, int, int]]
    end: int
    rules: BehaviourRules
    own_end: OwnEnd

    def user_within(self, start: int, end: int) -> bool:
        """Whether a user turn goes on in a stretch of time."""
        return any(a < end and start < b for a, b in self.users)

    def own_end_of(self, turn: MsSpan) -> int | None:
        """When an agent turn would have ended by itself; None where that is unknown."""
        own = self.own_end((to_seconds(turn[0]), to_seconds(turn[1])))
        return None if own is None else to_ms(own)

    def said_to_its_end(self, turn: MsSpan) -> bool | None:
        """Whether an agent turn reached its own end; None where that is unknown."""
        own = self.own_end_of(turn)
        return None if own is None else turn[1] > own - to_ms(self.rules.shorter)

    def resumed_after(self, stop: int) -> int | None:
        """When the agent starts again after a stop, in time and with no user turn in between."""
        latest = stop + to_ms(self.rules.resume_within)
        latest = min([latest, *(a - 1 for a, b in self.users if b > stop)])
        return next((a for a, _ in self.agents if stop < a <= latest), None)


def measure_behaviour(
    user: Iterable[Span],
    pauses: Iterable[Span],
    events: Iterable[LabelledEvent],
    agent: Iterable[Span],
    duration: Seconds,
    rules: BehaviourRules = BehaviourRules(),
    own_end: OwnEnd = unknown_end,
) -> Behaviour:
    """What the agent made of pauses and sounds in one conversation.

    Args:
        user: the user's turns (start, end) in Seconds, pauses included.
        pauses: inside them (`labels.user_pauses`).
        events: sounds that are no turns (`labels.labelled_events`).
        agent: when the agent speaks, in Seconds, in any order.
        duration: length of the recording in Seconds.
        own_end: when a turn of the agent, given as merged by the rules, would have ended by itself.

    Raises:
        InputError: if a span ends before it starts, or a time is no finite number.
    """
    end = length_ms(duration)
    users, _ = normalise(user, end)
    agents, _ = normalise(agent, end, to_ms(rules.agent_merge_gap))
    sounds = [(e.kind, *span) for e in events for span in normalise([(e.start, e.end)], end)[0]]
    scene = _Scene(users, agents, sorted(sounds, key=lambda sound: (sound[1], sound[2], sound[0])), end, rules, own_end)
    silent_in, _ = normalise(pauses, end)
    return Behaviour(
        rules=rules,
        duration=to_seconds(end),
        n_agent_turns=len(agents),
        pauses=tuple(Pause(to_seconds(a), to_seconds(b), _in_pause(scene, a, b)) for a, b in silent_in),
        paused_turns=tuple(found for u in users if (found := _paused_turn(scene, u, silent_in)) is not None),
        reactions=tuple(_reaction(scene, *sound) for sound in scene.events if sound[0] in DISTRACTIONS),
        echoes=tuple(_echo(scene, a, b) for kind, a, b in scene.events if kind == "leak"),
        unprompted=tuple(_unprompted(scene)),
    )


def _in_pause(scene: _Scene, start: int, end: int) -> Literal["waited", "spoke", "took_over", "speaking", "unknown"]:
    if any(a < start < b for a, b in scene.agents):
        return "speaking"
    found = {_takes_over(scene, turn) for turn in scene.agents if start <= turn[0] < end}
    return "took_over" if True in found else "unknown" if None in found else "spoke" if found else "waited"


def _takes_over(scene: _Scene, turn: MsSpan) -> bool | None:
    """Whether an agent turn is long enough to take the floor; None if the recording ends before that shows."""
    long_enough = turn[1] - turn[0] >= to_ms(scene.rules.takeover)
    return None if not long_enough and turn[1] == scene.end else long_enough


def _paused_turn(scene: _Scene, user: MsSpan, pauses: Sequence[MsSpan]) -> bool | None:
    """Whether the agent takes the floor between a turn's first pause and its end; None without a pause or a clear case."""
    first = next((a for a, b in pauses if user[0] <= a < user[1]), None)
    if first is None or any(a < first < b for a, b in scene.agents):
        return None
    latest = user[1] - to_ms(scene.rules.grace)
    found = {_takes_over(scene, turn) for turn in scene.agents if first <= turn[0] < latest}
    return True if True in found else None if None in found else False


def _reaction(scene: _Scene, kind: str, start: int, end: int) -> Reaction:
    """The agent's reaction to a sound.

    Whether it is `unknown` because of a user turn nearby does not depend on what the agent did: sounds are left out evenly.
    """
    rules = scene.rules
    turn = next((a for a in scene.agents if a[0] < start < a[1]), None)
    sound = kind, to_seconds(start), to_seconds(end), turn is not None
    if turn is None:
        return Reaction(*sound, _of_silent_agent(scene, start, end))
    deadline = max(start + to_ms(rules.reaction), end)
    if scene.user_within(start, deadline):
        return Reaction(*sound, "unknown")
    stop, own_end, ended = turn[1], scene.own_end_of(turn), scene.said_to_its_end(turn)
    if own_end is not None and own_end - start <= to_ms(rules.telling):
        return Reaction(*sound, "ending")
    if stop > deadline or ended:
        return Reaction(*sound, "went_on")
    resumed = scene.resumed_after(stop)
    if resumed is not None:
        return Reaction(*sound, "resumed", to_seconds(resumed - stop))
    if stop + to_ms(rules.resume_within) > scene.end and not scene.user_within(stop, scene.end):
        return Reaction(*sound, "unknown")
    return Reaction(*sound, "fell_silent" if ended is None else "broke_off")


def _of_silent_agent(scene: _Scene, start: int, end: int) -> Literal["silent", "spoke", "unknown"]:
    """Whether an agent that is silent when a sound begins answers it, as it would a turn: after its end, or earlier."""
    latest = min([end + to_ms(scene.rules.reaction), *(a - 1 for a, _ in scene.users if a > start)])
    onsets = [a for a, _ in scene.agents]
    watched = not scene.user_within(start, end + to_ms(scene.rules.watched))
    if not watched or start in onsets or _answer_is_due(scene, start):
        return "unknown"
    if any(start < onset <= latest for onset in onsets):
        return "spoke"
    return "silent" if latest <= scene.end else "unknown"


def _answer_is_due(scene: _Scene, time: int) -> bool:
    """Whether a user turn has ended before, and the agent has not started to speak since its onset."""
    asked = [a for a, b in scene.users if b <= time]
    return bool(asked) and not any(asked[-1] < a < time for a, _ in scene.agents)


def _echo(scene: _Scene, start: int, end: int) -> Echo:
    """What the agent did while its own voice came back."""
    turn = next((a for a in scene.agents if a[0] < end and start < a[1]), None)
    return Echo(to_seconds(start), to_seconds(end), "silent" if turn is None else _over_echo(scene, turn, end))


def _over_echo(scene: _Scene, turn: MsSpan, end: int) -> Literal["kept", "interrupted", "unknown"]:
    stop = turn[1]
    if stop >= end and stop < scene.end:
        return "kept"
    since = stop - to_ms(scene.rules.reaction)
    others = any(kind in DISTRACTIONS and a < stop and since < b for kind, a, b in scene.events)
    if stop == scene.end or others or scene.user_within(since, stop):
        return "unknown"
    ended = scene.said_to_its_end(turn)
    if ended is None:
        return "unknown" if scene.resumed_after(stop) is None else "interrupted"
    return "kept" if ended else "interrupted"


def _unprompted(scene: _Scene) -> list[Unprompted]:
    """Agent onsets with no user turn since the agent's turn before began; a turn that goes on after a pause is not one."""
    found = []
    for number, (onset, _) in enumerate(scene.agents):
        since, stop = scene.agents[number - 1] if number else (-1, None)
        if any(since < b and a <= onset for a, b in scene.users):
            continue
        if stop is not None and onset - stop <= to_ms(scene.rules.resume_within):
            continue
        near = [e for e in scene.events if e[0] in (*DISTRACTIONS, "leak")]
        near = [e for e in near if e[1] < onset <= e[2] + to_ms(scene.rules.reaction)]
        greeting = not number and bool(scene.users)
        found.append(Unprompted(to_seconds(onset), near[-1][0] if near else None, greeting))
    return found


def _share(counted: Sequence[Any], statuses: Iterable[str]) -> tuple[int, int]:
    return sum(one.status in statuses for one in counted), len(counted)


def _to(kind: str, statuses: Iterable[str], of: Iterable[str] | None = None) -> Ratio[Behaviour]:
    """A share of the counted reactions to a kind of sound, or of those with certain verdicts."""
    return lambda m: _share([r for r in m.of(kind) if of is None or r.status in of], statuses)


_KEPT_THE_FLOOR = ("went_on", "resumed")
_TOLD = (*_KEPT_THE_FLOOR, "broke_off")
_SPEAKING = (*_TOLD, "fell_silent")
_PER_KIND: dict[str, Callable[[str], Ratio[Behaviour]]] = {
    "ignored_rate": lambda kind: _to(kind, ("went_on", "silent")),
    "went_on_rate": lambda kind: _to(kind, ("went_on",), of=_SPEAKING),
    "resume_rate": lambda kind: _to(kind, _KEPT_THE_FLOOR, of=_SPEAKING),
    "resume_at_most_rate": lambda kind: _to(kind, _KEPT_THE_FLOOR, of=_TOLD),
    "answered_rate": lambda kind: _to(kind, ("spoke",), of=("spoke", "silent")),
    "resume_time": lambda kind: lambda m: _times([r.resume_time for r in m.of(kind)]),
}


def _times(times: Iterable[Seconds | None]) -> tuple[Seconds, int]:
    known = [time for time in times if time is not None]
    return sum(known), len(known)


def _seen_pauses(m: Behaviour) -> list[Pause]:
    return [p for p in m.pauses if p.status not in ("speaking", "unknown")]


def _seen_echoes(m: Behaviour) -> list[Echo]:
    return [e for e in m.echoes if e.status in ("kept", "interrupted")]


def _not_asked(m: Behaviour) -> list[Unprompted]:
    return [u for u in m.unprompted if not u.greeting]


#: What is counted over what, conversation by conversation, as in `turn_taking.RATIOS`.
RATIOS: dict[str, Ratio[Behaviour]] = {
    "pause_takeover_rate": lambda m: _share(_seen_pauses(m), ("took_over",)),
    "pause_onset_rate": lambda m: _share(_seen_pauses(m), ("took_over", "spoke")),
    "paused_turn_takeover_rate": lambda m: (sum(m.paused_turns), len(m.paused_turns)),
    **{f"{kind}_{name}": ratio(kind) for kind in DISTRACTIONS for name, ratio in _PER_KIND.items()},
    "echo_interruption_rate": lambda m: _share(_seen_echoes(m), ("interrupted",)),
    "echo_answers_per_minute": lambda m: (sum(u.after == "leak" for u in m.unprompted), m.duration / 60),
    "unprompted_rate": lambda m: (len(_not_asked(m)), m.n_agent_turns),
    "unprompted_per_minute": lambda m: (len(_not_asked(m)), m.duration / 60),
}
#: Those of them that are shares of countable things, for which a Wilson interval is defined.
PROPORTIONS = {name for name in RATIOS if name.endswith("_rate")}


def pool_behaviour(conversations: Sequence[Behaviour]) -> dict[str, float | int | None]:
    """Counts and rates over the labels of all conversations together; None where undefined."""
    statuses: Counter[str] = Counter()
    for m in conversations:
        statuses.update(f"n_pause_{p.status}" for p in m.pauses)
        statuses.update(f"n_{r.kind}_{r.status}" for r in m.reactions)
        statuses.update(f"n_echo_{e.status}" for e in m.echoes)
    return {
        "n_conversations": len(conversations),
        "n_pauses": sum(len(m.pauses) for m in conversations),
        **{f"n_{kind}": sum(r.kind == kind for m in conversations for r in m.reactions) for kind in DISTRACTIONS},
        "n_echo": sum(len(m.echoes) for m in conversations),
        "n_unprompted": sum(len(_not_asked(m)) for m in conversations),
        "n_greetings": sum(u.greeting for m in conversations for u in m.unprompted),
        **dict(sorted(statuses.items())),
        **{name: ratio_of_sums(map(ratio, conversations)) for name, ratio in RATIOS.items()},
    }


def estimate_behaviour(conversations: Sequence[Behaviour], seed: int = 0) -> dict[str, Estimate]:
    """The rates with their number of events and 95 % intervals; conversations, not events, are resampled."""
    return estimate_each(RATIOS, PROPORTIONS, conversations, seed)
