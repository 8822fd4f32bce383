"""Turn ends and interruptions found in time, under a budget of false positives: the protocol of TurnBench.

    user     |---- What is ----|  pause  |-- the capital? --|
                         ......................       ..................................
                         a commit here is a             and here it finds the turn's end, from 0.25 s before it
                         false positive                 to 3 s after it, or to the next turn's end

What is TurnBench's (Jiang et al. 2026, arXiv 2608.25218; its scorer, github.com/SesameAILabs/turnbench, MIT): a commit is the
time by which a system has heard all that it needed to decide; the windows; one commit finds one event, in order of time; a
span has one false positive at most, and none from a commit inside the window of an event; what lies outside of windows and
spans is not seen; `recall` over events, `fp_rate` over spans, latency over what was found; recall counts where fp_rate is
within 0.1.

What is ours: TurnBench scores both speakers of recorded human dialogues, from three annotators. Here the manifest says what
the user does. Every user turn has one end (`turn_ends_of`), and the spans are the pauses inside turns. Interruptions
(`interruptions_of`) are user turns that start while the agent speaks, and the spans are backchannels and coughs that start
then. Channel bleed is left out: it lasts as long as the agent speaks, so every stop would be a false positive.
The commits of an agent without a turn detector are what is heard of it: its onsets find turn ends, as in TurnBench's readings
of full-duplex agents, and its stops find interruptions. A stop is a decision to give up the floor, so its latency is not one
of a detector that reports the user's onset: TurnBench leaves interruptions of such agents out.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nemo_duplex.evaluation.confidence import Estimate, Ratio, estimate_each, ratio_of_sums
from nemo_duplex.evaluation.labels import LabelledEvent
from nemo_duplex.evaluation.spans import MsSpan, in_seconds, length_ms, normalise, to_ms, to_seconds
from nemo_duplex.frames import Seconds, Span
from nemo_duplex.inputs import InputError

#: Sounds of the user that take no floor: to stop at one is a false positive.
NO_INTERRUPTIONS = ("backchannel", "cough")
_AGENT_MERGE_GAP: Seconds = 0.5  # of a VAD; also TurnBench's for full-duplex agents


@dataclass(frozen=True)
class DetectionRules:
    """The windows, in Seconds, and the budget.

    Args:
        early: a commit this much before an event finds it, and one this much before a span is a false positive (0.25).
        late: a commit later than this after an event is too late (3.0).
        budget: the largest share of false positives with which a recall counts (0.1).

    Examples:
        >>> DetectionRules().budget
        0.1
    """

    early: Seconds = 0.25
    late: Seconds = 3.0
    budget: float = 0.1


@dataclass(frozen=True)
class Sought:
    """What is to be found in one conversation, and where a commit is false.

    Args:
        events: their times in Seconds.
        spans: (start, end) in which nothing of the kind happens, though it may seem so.
        duration: length of the recording in Seconds.

    Examples:
        >>> turn_ends_of(user=[(0.0, 3.0)], pauses=[(1.0, 1.6)], duration=10.0)
        Sought(events=(3.0,), spans=((1.0, 1.6),), duration=10.0)
    """

    events: tuple[Seconds, ...]
    spans: tuple[Span, ...]
    duration: Seconds


@dataclass(frozen=True)
class Detection:
    """What was found in one conversation.

    `found`: for each event the latency (Seconds, signed) of the commit that found it, None where none did.
    `fired`: for each span whether a commit was false there.

    Examples:
        >>> sought = Sought(events=(3.0, 8.0), spans=((1.0, 1.6),), duration=10.0)
        >>> detect([1.2, 3.4], sought)
        Detection(found=(0.4, None), fired=(True,))
    """

    found: tuple[Seconds | None, ...]
    fired: tuple[bool, ...]

    @property
    def latencies(self) -> tuple[Seconds, ...]:
        return tuple(latency for latency in self.found if latency is not None)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Commit:
    """A decision that a turn has ended or an interruption begun, with how sure the system was (higher: surer)."""

    time: Seconds
    score: float


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold with which most is found within the budget, and what is found with it."""

    threshold: float
    detections: tuple[Detection, ...]


def turn_ends_of(user: Iterable[Span], pauses: Iterable[Span], duration: Seconds) -> Sought:
    """The ends of the user's turns; a commit in a pause inside one is false. A turn that the recording cuts has no end in it.

    Args:
        user, pauses: spans (start, end) in Seconds.
        duration: length of the recording in Seconds.
    """
    end = length_ms(duration)
    users, _ = normalise(user, end)
    silent, _ = normalise(pauses, end)
    return Sought(tuple(to_seconds(b) for _, b in users if b < end), in_seconds(silent), to_seconds(end))


def interruptions_of(
    user: Iterable[Span],
    events: Iterable[LabelledEvent],
    agent: Iterable[Span],
    duration: Seconds,
    kinds: Collection[str] = NO_INTERRUPTIONS,
    agent_merge_gap: Seconds = _AGENT_MERGE_GAP,
) -> Sought:
    """The onsets of user turns while the agent speaks; to stop at a sound of these kinds, which begins then too, is false.

    Where the user goes on to a turn within such a sound, only the turn counts.

    Args:
        user, agent: spans (start, end) in Seconds.
        events: sounds of the user that are no turns.
        duration: length of the recording in Seconds.
        kinds: of sounds, that take no floor.
        agent_merge_gap: pauses of the agent up to this long (Seconds) do not end its turn.
    """
    end = length_ms(duration)
    users, _ = normalise(user, end)
    agents, _ = normalise(agent, end, to_ms(agent_merge_gap))
    sounds, _ = normalise(((e.start, e.end) for e in events if e.kind in kinds and e.speaker == "user"), end)
    return Sought(
        tuple(to_seconds(a) for a, _ in users if _speaks(agents, a)),
        in_seconds(s for s in sounds if _speaks(agents, s[0]) and not any(a < s[1] and s[0] < b for a, b in users)),
        to_seconds(end),
    )


def _speaks(agents: Sequence[MsSpan], time: int) -> bool:
    """Whether an agent turn goes on at a time: it began before, and ends later."""
    return any(a < time < b for a, b in agents)


def onsets_and_stops(
    agent: Iterable[Span], duration: Seconds, agent_merge_gap: Seconds = _AGENT_MERGE_GAP
) -> tuple[tuple[Seconds, ...], tuple[Seconds, ...]]:
    """The agent's own commits: when its turns start, and when they stop within the recording (Seconds)."""
    end = length_ms(duration)
    agents, _ = normalise(agent, end, to_ms(agent_merge_gap))
    return tuple(to_seconds(a) for a, _ in agents), tuple(to_seconds(b) for _, b in agents if b < end)


def detect(commits: Iterable[Seconds], sought: Sought, rules: DetectionRules = DetectionRules()) -> Detection:
    """What the commits of one conversation find.

    Args:
        commits: in Seconds, strictly increasing and within the recording, each no earlier than what it is decided by is heard.

    Raises:
        InputError: if they are not.
    """
    times = _checked(commits, length_ms(sought.duration))
    events = sorted({to_ms(time) for time in sought.events})
    early, late = to_ms(rules.early), to_ms(rules.late)
    following = [*events[1:], math.inf][: len(events)]
    windows = [(time - early, min(time + late, after)) for time, after in zip(events, following, strict=True)]
    found: list[Seconds | None] = []
    free = 0  # commits before this one are used, or too early for the events to come
    for event, (first, last) in zip(events, windows, strict=True):
        nearest = max(free, bisect_left(times, first))
        if nearest < len(times) and times[nearest] <= last:
            found.append(to_seconds(times[nearest] - event))
            free = nearest + 1
        else:
            found.append(None)
    starts = [first for first, _ in windows]  # each window starts, and ends, no earlier than the one before
    within = [bisect_right(starts, time) - 1 for time in times]
    false = [time for time, i in zip(times, within, strict=True) if i < 0 or time > windows[i][1]]
    spans = [(to_ms(a) - early, to_ms(b)) for a, b in sought.spans]
    return Detection(tuple(found), tuple(bisect_left(false, a) < bisect_right(false, b) for a, b in spans))


def _checked(commits: Iterable[Seconds], end: int) -> list[int]:
    given = list(commits)
    times = [to_ms(time, "commit's time") for time in given]
    for before, time, raw in zip([-1, *times], times, given):
        if not before < time <= end:
            raise InputError(
                f"Commits must come in order, each at a later millisecond and within the recording of {to_seconds(end):g} s: "
                f"got {raw:g} s" + (f" after {to_seconds(before):g} s" if before >= 0 else "") + ". Sort them and drop doubles."
            )
    return times


def best_operating_point(
    sought: Sequence[Sought],
    commits_at: Callable[[float], Sequence[Iterable[Seconds]]],
    thresholds: Iterable[float],
    rules: DetectionRules = DetectionRules(),
) -> OperatingPoint | None:
    """Of the thresholds whose false positives are within the budget, the one that finds most.

    Of several, the one with the lowest median latency, then the fewest false positives, then the highest threshold.

    Args:
        sought: of each conversation.
        commits_at: threshold -> the commits of each conversation with it.

    Returns:
        None if no threshold is within the budget, or there is no span to tell it by.
    """
    best: tuple[tuple[float, float, float, float], OperatingPoint] | None = None
    for threshold in thresholds:
        pairs = zip(commits_at(threshold), sought, strict=True)
        detections = tuple(detect(commits, one, rules) for commits, one in pairs)
        pooled = pool_detections(detections, rules)
        if not pooled["within_budget"]:
            continue
        recall, latency = pooled["recall"] or 0.0, pooled["median_latency"]
        rank = (recall, -float("inf") if latency is None else -latency, -(pooled["fp_rate"] or 0.0), threshold)
        if best is None or rank > best[0]:
            best = rank, OperatingPoint(threshold, detections)
    return best[1] if best else None


def best_threshold(
    sought: Sequence[Sought], commits: Sequence[Sequence[Commit]], rules: DetectionRules = DetectionRules()
) -> OperatingPoint | None:
    """The best operating point of a system that says how sure it is: commits with less than a score are left out.

    Args:
        sought, commits: of each conversation, in the same order.
    """

    def surer_than(threshold: float) -> list[list[Seconds]]:
        return [[c.time for c in own if c.score >= threshold] for own in commits]

    return best_operating_point(sought, surer_than, sorted({c.score for own in commits for c in own}), rules)


def best_wait(
    sought: Sequence[Sought],
    speech: Sequence[Iterable[Span]],
    waits: Iterable[Seconds],
    rules: DetectionRules = DetectionRules(),
) -> OperatingPoint | None:
    """The best operating point of a timer that takes so long a silence of the user for a turn's end.

    The baseline of every detector of turn ends: it hears when the user speaks, and nothing else.

    Args:
        sought: of each conversation.
        speech: when its user speaks, pauses cut out (`labels.user_speech`).
        waits: lengths of silence to try, in Seconds.
    """
    lengths = [length_ms(one.duration) for one in sought]
    spoken = [normalise(spans, end)[0] for spans, end in zip(speech, lengths, strict=True)]

    def timer(wait: float) -> list[list[Seconds]]:
        return [_timer(spans, to_ms(wait), end) for spans, end in zip(spoken, lengths, strict=True)]

    return best_operating_point(sought, timer, waits, rules)


def _timer(speech: Sequence[MsSpan], wait: int, end: int) -> list[Seconds]:
    """One commit in each silence after speech that lasts longer than the wait."""
    until = [start for start, _ in speech[1:]] + [end + 1]
    return [to_seconds(stop + wait) for (_, stop), resumed in zip(speech, until) if stop + wait < resumed]


#: What is counted over what, conversation by conversation, as in `turn_taking.RATIOS`.
RATIOS: dict[str, Ratio[Detection]] = {
    "recall": lambda m: (len(m.latencies), len(m.found)),
    "fp_rate": lambda m: (sum(m.fired), len(m.fired)),
    "mean_latency": lambda m: (sum(m.latencies), len(m.latencies)),
}
#: Those of them that are shares of countable things, for which a Wilson interval is defined.
PROPORTIONS = {"recall", "fp_rate"}


def pool_detections(conversations: Sequence[Detection], rules: DetectionRules = DetectionRules()) -> dict[str, Any]:
    """Counts, rates and the median latency over the events of all conversations together; None where undefined.

    `within_budget` says whether the recall counts: None where there is no span to tell by.
    """
    rates = {name: ratio_of_sums(map(ratio, conversations)) for name, ratio in RATIOS.items()}
    latencies = [latency for m in conversations for latency in m.latencies]
    return {
        "n_conversations": len(conversations),
        "n_events": sum(len(m.found) for m in conversations),
        "n_spans": sum(len(m.fired) for m in conversations),
        **rates,
        "median_latency": statistics.median(latencies) if latencies else None,
        "within_budget": None if rates["fp_rate"] is None else rates["fp_rate"] <= rules.budget,
    }


def estimate_detections(conversations: Sequence[Detection], seed: int = 0) -> dict[str, Estimate]:
    """The rates with their number of events and 95 % intervals; conversations, not events, are resampled."""
    return estimate_each(RATIOS, PROPORTIONS, conversations, seed)
