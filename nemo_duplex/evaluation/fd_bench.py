"""FD-Bench (arXiv 2507.19040): its objective metrics from the times of both speakers, and its lines of text.

    name.wav || tokens || text || [{'start': 53280, 'end': 93664}, ...] || [{'start': 7200, 'end': 36320}, ...]
                                  the user's speech                       the agent's, both in samples at 16 kHz

The formulas are those of `analyze_VAD_interruption_new2` in its benchmarking.py (8a4b7df), count for count, with one
difference: where the agent stops after the user's end and then answers, the script takes the end of the *answer* for the end
of the interrupted turn; IRD here is the time to the end of the interrupted turn.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_duplex.evaluation.confidence import estimate_quantile, estimate_ratio
from nemo_duplex.evaluation.full_duplex_bench.metric import Metric
from nemo_duplex.evaluation.full_duplex_bench.overlaps import merged
from nemo_duplex.evaluation.full_duplex_bench.transcript import is_time
from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.files.atomic import whole_file
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.frames import Seconds, Span
from nemo_duplex.inputs import existing_file

if TYPE_CHECKING:
    from nemo_duplex.evaluation.outcome import Outcome

FD_BENCH = Scorer("fd_bench", "8a4b7df", about="formulas of its script; IRD to the end of the interrupted turn")
_RATE = 16000
_GRACE: Seconds = 0.5  # an onset so shortly before the user's end is a reply, only early
_BEFORE_NEXT: Seconds = 2.5  # what ends at least so long before the user's next turn answers noise ...
_SHORT: Seconds = 5.5  # ... if it is shorter than this

_RATES = (
    Metric("SRR", "higher"),  # success reply rate: replies / user turns
    Metric("SIR", "higher"),  # success interrupt rate: interruptions that the agent stops for / interruptions
    Metric("SRIR", "higher"),  # success reply to interrupt rate: of those, how many it answers
    Metric("EIR", "lower"),  # early interrupt rate: onsets well before the user's end / user turns
    Metric("NIR", "lower"),  # noise interrupt rate: short turns well before the user's next one / gaps between user turns
)
_TIMES = (
    Metric("FSED", "lower", "ms"),  # first speech emission delay: from the user's end to the reply
    Metric("ERT", None, "ms"),  # early reply time: from the onset of an early reply to the user's end
    Metric("EIT", None, "ms"),  # early interrupt time: the same of an onset that is too early
    Metric("IRD", "lower", "ms"),  # interrupt response delay: from the user's onset until the agent stops
)


@dataclass
class Counts:
    """What happened in one conversation: counts, and times in Seconds.

    Examples:
        >>> found = count([(0.0, 2.0), (4.0, 6.0)], [(2.5, 4.5), (6.25, 8.0)])
        >>> found.replies, found.interruptions, found.stopped, found.answered, found.stop_delays
        (1, 1, 1, 1, [0.5])
    """

    rounds: int = 0
    gaps: int = 0
    replies: int = 0
    interruptions: int = 0
    stopped: int = 0
    answered: int = 0
    early_onsets: int = 0
    noise: int = 0
    reply_delays: list[Seconds] = field(default_factory=list)
    early_replies: list[Seconds] = field(default_factory=list)
    early_leads: list[Seconds] = field(default_factory=list)
    stop_delays: list[Seconds] = field(default_factory=list)


def count(user: Sequence[Span], agent: Sequence[Span], grace: Seconds = _GRACE) -> Counts:
    """The events of one conversation.

    Args:
        user, agent: speech, sorted and apart.
        grace: an onset within this of the user's end is an early reply, an earlier one an interruption by the agent.
    """
    found = Counts(rounds=len(user), gaps=max(0, len(user) - 1))
    nexts = [*(start for start, _ in user[1:]), float("inf")]
    for (start, end), following in zip(user, nexts):
        _count_round((start, end), following, agent, grace, found)
        for a, b in agent:
            short_of_next = following != float("inf") and following - b >= _BEFORE_NEXT
            found.noise += end < b < following and short_of_next and b - a < _SHORT
    return found


def _count_round(turn: Span, following: Seconds, agent: Sequence[Span], grace: Seconds, found: Counts) -> None:
    """One turn of the user with all of the agent until the next one, in order of time."""
    start, end = turn
    waiting = False  # for the answer to an interruption
    stop: Seconds | None = None  # when the agent that was interrupted stops
    counted = answered = replied = False
    early: Seconds | None = None

    def stopped(after: Seconds) -> None:
        nonlocal counted
        if not counted:
            counted = True
            found.stopped += 1
            found.stop_delays.append(after)

    for a, b in agent:
        if a < start < b:
            found.interruptions += 1
            waiting, stop = True, b
            if b <= end or following == float("inf"):
                stopped(b - start)
        elif start < a < end - grace:
            found.early_onsets += 1
            found.early_leads.append(end - a)
            if b < end and not counted:  # it gives way again
                found.interruptions += 1
                waiting, stop = True, b
                stopped(b - a)
        elif start < a < end or end < a < following:
            if not waiting:
                is_early = a < end
                found.replies += is_early or not replied
                if is_early:
                    early = end - a
                elif not replied:
                    replied = True
                    found.reply_delays.append(a - end)
            elif not answered:
                answered, waiting = True, False
                found.answered += 1
                (found.early_replies if a < end else found.reply_delays).append(abs(end - a))
                if stop is not None:
                    stopped(stop - start)
    if early is not None:
        found.early_replies.append(early)


def fd_bench_table(conversations: Sequence[Counts], seed: int = 0) -> dict[str, dict[str, Any]]:
    """The nine metrics over all conversations, pooled: name -> entry as `Metric.entry` makes it.

    SRR, EIR and NIR are events per turn or gap, of which there may be several, so their interval is the bootstrap's.
    """
    above = {"SRR": "replies", "SIR": "stopped", "SRIR": "answered", "EIR": "early_onsets", "NIR": "noise"}
    below = {"SRR": "rounds", "SIR": "interruptions", "SRIR": "stopped", "EIR": "rounds", "NIR": "gaps"}
    times = {"FSED": "reply_delays", "ERT": "early_replies", "EIT": "early_leads", "IRD": "stop_delays"}
    table = {}
    for metric in _RATES:
        parts = [(getattr(c, above[metric.name]), getattr(c, below[metric.name])) for c in conversations]
        table[metric.name] = metric.entry(FD_BENCH, estimate_ratio(parts, metric.name in ("SIR", "SRIR"), seed))
    for metric in _TIMES:
        values = [[1000 * t for t in getattr(c, times[metric.name]) if t > 0] for c in conversations]
        table[metric.name] = metric.entry(FD_BENCH, estimate_quantile(values, 0.5, seed))
    return table


def fd_bench_results(
    outcomes: Iterable[Outcome], *, grace: Seconds = _GRACE, agent_gap: Seconds = 0.5, drop_first: bool = False, seed: int = 0
) -> dict[str, Any]:
    """FD-Bench's table of any outcomes.

    Args:
        grace: of early replies; the SALM-Duplex paper's is 0.1 s.
        agent_gap: shorter pauses of the agent do not end its turn.
        drop_first: whether the agent's first turn is left out, as FD-Bench does for Moshi, which greets.

    Returns:
        {grace, conversations, metrics, scorer}.
    """
    counts = []
    for outcome in outcomes:
        agent = merged(outcome.speech, agent_gap)
        counts.append(count(outcome.user, agent[1:] if drop_first else agent, grace))
    metrics = fd_bench_table(counts, seed)
    return {"grace": grace, "conversations": len(counts), "metrics": metrics, "scorer": FD_BENCH.as_dict()}


# --- its lines


@dataclass(frozen=True)
class Line:
    """A line of FD-Bench's files.

    Args:
        name: of the recording (`conversation_177.wav`; the number is the line of the ground truth).
        user, agent: speech, Seconds.
        text: the agent's words.
        tokens: the agent's text tokens, one for each frame of 80 ms, where its model has any.

    Examples:
        >>> str(Line("conversation_1.wav", ((0.0, 2.0),), (), ("Hello",)))
        "conversation_1.wav || [] || ['Hello'] || [{'start': 0, 'end': 32000}] || []"
    """

    name: str
    user: tuple[Span, ...]
    agent: tuple[Span, ...]
    text: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()

    def __str__(self) -> str:
        text = f"{[*self.text]}".replace("||", "| |")  # which would be the end of a part
        return " || ".join([self.name, f"{[*self.tokens]}", text, _samples(self.user), _samples(self.agent)])


def write_lines(path: str | Path, lines: Iterable[Line]) -> None:
    """Writes lines, whole or not at all."""
    with whole_file(path) as part:
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_lines(path: str | Path, odd: OddRows) -> list[Line]:
    """The lines of a file; those that cannot be read are counted in `odd`, with their number."""
    lines = []
    for number, text in enumerate(existing_file(path, "lines").read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if text.strip():
            try:
                lines.append(_line(text))
            except OddRow as unusable:
                odd.add(unusable, f"{path}:{number}")
    return lines


def _line(text: str) -> Line:
    parts = [part.strip() for part in text.split("||")]
    if len(parts) != 5:
        raise OddRow("not five parts", f"{len(parts)} parts", "Expected name || tokens || text || user || agent.")
    name, tokens, words, user, agent = parts
    text_tokens = tuple(token for token in _literal(tokens) if isinstance(token, int))
    return Line(name, _spans(user), _spans(agent), tuple(map(str, _literal(words))), text_tokens)


def _literal(text: str) -> list[Any]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise OddRow("a part that is no list", text[:60], "Write it as a Python list.") from None
    if not isinstance(value, list):
        raise OddRow("a part that is no list", text[:60], "Write it as a Python list.")
    return value


def _spans(text: str) -> tuple[Span, ...]:
    spans = []
    for entry in _literal(text):
        start, end = (entry.get("start"), entry.get("end")) if isinstance(entry, dict) else (None, None)
        if not is_time(start) or not is_time(end) or not 0 <= start <= end:
            raise OddRow("a span without start and end", f"{entry}"[:60], "Expected {'start': samples, 'end': samples}.")
        spans.append((start / _RATE, end / _RATE))
    return tuple(sorted(spans))


def _samples(spans: Sequence[Span]) -> str:
    return str([{"start": round(start * _RATE), "end": round(end * _RATE)} for start, end in spans])
