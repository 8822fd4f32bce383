"""All conversations of an evaluation as data for report.html, which filters them and draws those that are opened."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nemo_duplex.evaluation.report.events import events_of, faults_of
from nemo_duplex.evaluation.scores import Scored
from nemo_duplex.evaluation.turn_taking import BargeIn
from nemo_duplex.frames import Span

#: What of a conversation's texts can be searched, in characters: of an hour's, the beginning.
_SEARCHED = 4000


def conversation_rows(scored: Mapping[str, Sequence[Scored]], shown: Sequence[tuple[str, Scored]]) -> list[dict[str, Any]]:
    """A row for each conversation, the worst first.

    Args:
        scored: by the names of the sets.
        shown: (set, conversation) of those with picture and sound; the row has its place in this list as `example`.

    Returns:
        Short keys and times to 0.01 s, since 1,000 conversations are rows of one page.
    """
    places = {id(one): place for place, (_, one) in enumerate(shown)}
    everything = [(name, one) for name, rows in scored.items() for one in rows]
    everything.sort(key=lambda pair: -pair[1].mistakes)
    return [_row(name, one, places.get(id(one))) for name, one in everything]


def _row(name: str, one: Scored, example: int | None) -> dict[str, Any]:
    taken, outcome = one.turn_taking, one.outcome
    events = events_of(one)
    texts = [*(q.turn.text for q in outcome.questions), *(turn.text for turn in outcome.agent)]
    return {
        "set": name,
        "id": outcome.id,
        "duration": round(outcome.duration, 2),
        "user": _spans(taken.user),
        "agent": _spans(taken.agent),
        "text": _spans([(turn.start, turn.end) for turn in outcome.agent]),
        "events": [[round(e.time, 2), e.event, e.verdict, _short(e.latency), e.fault] for e in events],
        "faults": faults_of(one),
        "response": _short(taken.first_response.latency),
        "stop": _slowest_stop(taken.barge_ins),
        "said": " ".join(texts)[:_SEARCHED],
        "example": example,
    }


def _slowest_stop(barge_ins: Sequence[BargeIn]) -> float | str | None:
    """Seconds; "never" if the agent talked to the end of the recording; None if nobody interrupted it, or it was not seen."""
    if any(b.status == "failure" and b.stop_latency is None for b in barge_ins):
        return "never"
    return _short(max((b.stop_latency for b in barge_ins if b.stop_latency is not None), default=None))


def _spans(spans: Sequence[Span]) -> list[list[float]]:
    return [[round(start, 2), round(end, 2)] for start, end in spans]


def _short(latency: float | None) -> float | None:
    return None if latency is None else round(latency, 2)


def script_json(data: Any) -> str:
    """JSON that can stand in a script element: nothing in it can end the element or start a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
