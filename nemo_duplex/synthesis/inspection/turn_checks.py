"""Whether the turns and events of a cut fit each other and its length: by their times alone, no audio is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from lhotse import SupervisionSegment
from lhotse.cut import Cut

from nemo_duplex.conversation import TOLERANCE, Speaker, is_time
from nemo_duplex.frames import FRAME_RATE, Seconds
from nemo_duplex.synthesis.inspection.findings import Findings

#: By as much two times that should be equal may differ: manifests have four digits, engines give times of words in 25 ms.
CLOSE: Seconds = 0.02
_STOPS_WITHIN: Seconds = 1.5  # after a barge-in, where the corpus does not say: what evaluations call a success


def turns_of(cut: Cut, speakers: Mapping[str, Speaker], found: Findings) -> dict[Speaker, list[SupervisionSegment]]:
    """The supervisions of a cut that are turns, by speaker and in order; what is none is found."""
    turns: dict[Speaker, list[SupervisionSegment]] = {"user": [], "agent": []}
    for s in cut.supervisions:
        if not isinstance(s.speaker, str) or s.speaker not in speakers:
            found.error("a speaker who is neither user nor agent (give speakers)", f"{cut.id}: {s.speaker!r}")
        elif not (is_time(s.start) and is_time(s.duration) and s.duration > 0):
            found.error("a turn whose times are not numbers or run backwards", f"{cut.id}: {s.id}")
        else:
            turns[speakers[s.speaker]].append(s)
            if not (s.text or "").strip():
                kind = f"{'an' if speakers[s.speaker] == 'agent' else 'a'} {speakers[s.speaker]} turn without text"
                found.error(kind, place(cut, s))
    return {speaker: sorted(own, key=lambda s: s.start) for speaker, own in turns.items()}


def check_turns(
    cut: Cut, turns: Mapping[Speaker, Sequence[SupervisionSegment]], found: Findings, stop_delay: Seconds | None = None
) -> None:
    """Finds turns outside of the audio, overlaps, barge-ins and cuts without each other, gaps that are wrong, lost events.

    Args:
        turns: of the cut, as `turns_of` gives them.
        stop_delay: how long an agent goes on after a barge-in; None: the corpus does not say.
    """
    for speaker, own in turns.items():
        for s in own:
            _check_within(cut, s, found)
        for one, following in pairwise(own):
            if following.start < one.end - CLOSE:
                detail = f"{place(cut, one)} and from {following.start:.2f} s"
                (found.error if speaker == "agent" else found.warning)(f"{speaker} turns that overlap", detail)
    stops_within = _STOPS_WITHIN if stop_delay is None else stop_delay + FRAME_RATE.seconds
    for s in turns["user"]:
        _check_barge_in(cut, s, turns["agent"], stops_within, found)
    for s in turns["agent"]:
        _check_cut(cut, s, turns["user"], stops_within, found)
    _check_gaps(cut, turns, found)
    _check_events(cut, turns, found)


def place(cut: Cut, s: SupervisionSegment) -> str:
    """Where a turn is, for a finding."""
    return f"{cut.id}: {s.speaker}, {s.start:.2f} to {s.end:.2f} s"


def whole_end(s: SupervisionSegment) -> Seconds:
    """When a turn would have ended if nobody had cut it off."""
    whole = (s.custom or {}).get("whole_duration")
    return s.start + whole if is_time(whole) else s.end


def events_of(cut: Cut) -> list[Any]:
    """What happens in a cut beside its turns."""
    events = (cut.custom or {}).get("events") or []
    return events if isinstance(events, list) else [events]


def is_event(event: Any) -> bool:
    """Whether an entry of `events` has a kind and times."""
    return (
        isinstance(event, Mapping)
        and isinstance(event.get("kind"), str)
        and is_time(event.get("start"))
        and is_time(event.get("end"))
    )


def _check_within(cut: Cut, s: SupervisionSegment, found: Findings) -> None:
    if s.start >= cut.duration or s.end <= 0:
        found.error("a turn outside of the audio", f"{place(cut, s)} of {cut.duration:.2f} s")
    elif s.start < -TOLERANCE or s.end > cut.duration + TOLERANCE:
        found.error("a turn that begins before or ends after the audio", f"{place(cut, s)} of {cut.duration:.2f} s")
    elif s.start < -CLOSE or s.end > cut.duration + CLOSE:
        found.warning("a turn that passes the audio by less than 0.5 s", f"{place(cut, s)} of {cut.duration:.2f} s")


def _check_barge_in(
    cut: Cut, user: SupervisionSegment, agent: Sequence[SupervisionSegment], stops_within: Seconds, found: Findings
) -> None:
    speaking = [s for s in agent if s.start < user.start < s.end + CLOSE]
    if not (user.custom or {}).get("barge_in"):
        if speaking and user.start < speaking[-1].end - CLOSE and "gap" not in (user.custom or {}):
            found.warning("a user turn over the agent that is not marked as one", place(cut, user))
    elif not speaking:
        found.error("a barge-in while the agent does not speak", place(cut, user))
    elif speaking[-1].end > user.start + stops_within + CLOSE:
        found.error("a barge-in after which the agent goes on", f"{place(cut, user)}; agent until {speaking[-1].end:.2f} s")


def _check_cut(
    cut: Cut, agent: SupervisionSegment, user: Sequence[SupervisionSegment], stops_within: Seconds, found: Findings
) -> None:
    custom = agent.custom or {}
    if custom.get("unfinished"):  # it passes the end of the cut
        return
    time = custom.get("cut")
    if time is None:
        if agent.end < whole_end(agent) - CLOSE:
            found.error("an agent turn that ends early and is not marked as cut", place(cut, agent))
        return
    if not is_time(time) or abs(time - agent.end) > CLOSE:
        found.error("a cut that is not where its turn ends", f"{place(cut, agent)}, cut at {time}")
    if not custom.get("full_text"):
        found.error("a turn that was cut, without its full text", place(cut, agent))
    interrupts = [s for s in user if (s.custom or {}).get("barge_in") and agent.start < s.start < agent.end + CLOSE]
    if not any(agent.end - s.start <= stops_within + CLOSE for s in interrupts):
        found.error("a cut without a barge-in", place(cut, agent))


def _check_gaps(cut: Cut, turns: Mapping[Speaker, Sequence[SupervisionSegment]], found: Findings) -> None:
    """`gap` is the silence since the other's last turn, or since its own if it spoke last and goes on unasked; after an answer
    that was cut, since the end that it would have had."""
    both = sorted([*turns["user"], *turns["agent"]], key=lambda s: s.start)
    for speaker, others in (("user", turns["agent"]), ("agent", both)):
        for s in turns[speaker]:  # type: ignore[index]
            gap = (s.custom or {}).get("gap")
            if gap is None:
                continue
            before = [other for other in others if other.start < s.start]
            expected = s.start - (whole_end(before[-1]) if before else 0.0)
            if not is_time(gap) or abs(gap - expected) > CLOSE:
                found.error("a gap that its times do not have", f"{place(cut, s)}: gap {gap}, by its times {expected:.2f}")


def _check_events(cut: Cut, turns: Mapping[Speaker, Sequence[SupervisionSegment]], found: Findings) -> None:
    for event in events_of(cut):
        if not is_event(event):
            found.error("an event without kind, start or end", f"{cut.id}: {event!r:.60}")
        elif not -CLOSE <= event["start"] < event["end"] <= cut.duration + CLOSE:
            where = f"{cut.id}: {event['kind']}, {event['start']:.2f} to {event['end']:.2f} s of {cut.duration:.2f} s"
            found.error("an event outside of the audio", where)
    for s, pause in _pauses(turns["user"]):
        times = pause if isinstance(pause, list) and len(pause) == 2 and all(map(is_time, pause)) else (1.0, 0.0)
        if not s.start - CLOSE <= times[0] < times[1] <= s.end + CLOSE:
            found.error("a pause outside of its turn", f"{place(cut, s)}: pause {pause!r:.40}")
    interrupts = (cut.custom or {}).get("interrupts")
    if isinstance(interrupts, list) and len(interrupts) != len(turns["user"]):
        found.error("interrupts that are not one for each user turn", f"{cut.id}: {len(interrupts)} of {len(turns['user'])}")


def _pauses(turns: Sequence[SupervisionSegment]) -> Iterator[tuple[SupervisionSegment, Any]]:
    for s in turns:
        pauses = (s.custom or {}).get("pauses") or []
        yield from ((s, pause) for pause in (pauses if isinstance(pauses, list) else [pauses]))
