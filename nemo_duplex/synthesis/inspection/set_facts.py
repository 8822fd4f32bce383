"""What a set holds, counted from its manifests cut by cut: hours, turns, gaps, events, voices, engines, datasets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lhotse import SupervisionSegment
from lhotse.cut import Cut

from nemo_duplex.conversation import Speaker, is_time
from nemo_duplex.frames import Seconds
from nemo_duplex.synthesis.inspection.findings import Findings
from nemo_duplex.synthesis.inspection.histogram import Histogram
from nemo_duplex.synthesis.inspection.turn_checks import events_of, is_event, turns_of
from nemo_duplex.words import words


class SetFacts:
    """Counts a set; memory depends on the number of voices, not of cuts.

    Args:
        name: of the set.
        speakers: which of the two each speaker of the supervisions is.
    """

    def __init__(self, name: str, speakers: Mapping[str, Speaker]) -> None:
        self.name, self._speakers = name, speakers
        self.cuts, self.seconds, self.dialogues = 0, 0.0, 0
        self.turns: Counter[str] = Counter()
        self.words: Counter[str] = Counter()
        self.barge_ins = self.cut_answers = self.pauses = self.quiet = self.may_be_interrupted = 0
        self.answer_gaps = answer_gaps()
        self.user_gaps = Histogram(0.05, -6.0, 8.0)  # agent's end to user's start
        self.lengths = {"user": Histogram(0.25, 0, 30), "agent": Histogram(0.25, 0, 30)}
        self.events: Counter[str] = Counter()
        self.event_seconds: defaultdict[str, Seconds] = defaultdict(float)
        self.voices: Counter[str] = Counter()
        self.hours: dict[str, defaultdict[str, float]] = {kind: defaultdict(float) for kind in ("engine", "dataset")}
        self.surroundings: dict[str, Histogram] = {}
        self.odd = Findings()

    def add(self, cut: Cut) -> bool:
        """Counts a cut; returns whether something happens in it beside turns that follow each other."""
        self.cuts += 1
        self.seconds += cut.duration
        turns = turns_of(cut, self._speakers, self.odd)
        custom = cut.custom or {}
        if turns["user"] or len(turns["agent"]) > 1 or "target_audio" in custom:
            self.dialogues += 1
            self.quiet += not turns["user"] and not turns["agent"]
        for speaker, own in turns.items():
            self.turns[speaker] += len(own)
            for s in own:
                self.words[speaker] += len(words(s.text or ""))
                self.lengths[speaker].add(s.duration)
        self._add_timing(turns)
        self._add_makers(cut, custom)
        events = [event for event in events_of(cut) if is_event(event)]
        for event in events:
            self.events[event["kind"]] += 1
            self.event_seconds[event["kind"]] += event["end"] - event["start"]
        return bool(events) or any((s.custom or {}).get("barge_in") for s in turns["user"])

    def _add_timing(self, turns: Mapping[Speaker, Sequence[SupervisionSegment]]) -> None:
        user, agent = turns["user"], turns["agent"]
        self.may_be_interrupted += max(len(agent) - 1, 0)
        for s in user:
            custom = s.custom or {}
            self.barge_ins += bool(custom.get("barge_in"))
            self.pauses += len(custom.get("pauses") or ())
            if (end := _end_before(s, agent)) is not None:
                self.user_gaps.add(s.start - end)
        for s in agent:
            self.cut_answers += "cut" in (s.custom or {})
            if (end := _end_before(s, user)) is not None:
                self.answer_gaps.add(s.start - end)

    def _add_makers(self, cut: Cut, custom: Mapping[str, Any]) -> None:
        if voice := custom.get("voice"):
            self.voices[str(voice)] += 1
        for kind, hours in self.hours.items():
            if name := custom.get(kind):
                hours[str(name)] += cut.duration / 3600
        for key, value in (custom.get("surroundings") or {}).items():
            if is_time(value):
                width = 0.05 if key == "room_decay" else 1.0
                self.surroundings.setdefault(key, Histogram(width, -120, 120)).add(value)

    @property
    def barge_in_rate(self) -> float | None:
        """Barge-ins per answer that another user turn follows; None where there is none."""
        return self.barge_ins / self.may_be_interrupted if self.may_be_interrupted else None

    def describe(self) -> dict[str, Any]:
        """The entry of inspect.json."""
        return {
            "hours": round(self.seconds / 3600, 4),
            "cuts": self.cuts,
            "dialogues": self.dialogues,
            "quiet_cuts": self.quiet,
            "user_turns": self.turns["user"],
            "agent_turns": self.turns["agent"],
            "user_words": self.words["user"],
            "agent_words": self.words["agent"],
            "barge_ins": self.barge_ins,
            "barge_in_rate": None if self.barge_in_rate is None else round(self.barge_in_rate, 4),
            "cut_answers": self.cut_answers,
            "pauses": self.pauses,
            "gaps": {"user_to_agent": self.answer_gaps.describe(), "agent_to_user": self.user_gaps.describe()},
            "turn_seconds": {speaker: lengths.describe() for speaker, lengths in self.lengths.items()},
            "events": {k: {"count": n, "seconds": round(self.event_seconds[k], 2)} for k, n in self.events.most_common()},
            "voices": len(self.voices),
            "hours_of_engines": _rounded(self.hours["engine"]),
            "hours_of_datasets": _rounded(self.hours["dataset"]),
            "surroundings": {key: values.describe() for key, values in sorted(self.surroundings.items())},
            "odd": self.odd.describe()["errors"],
        }


def answer_gaps() -> Histogram:
    """For the silences from the user's end to the agent's start."""
    return Histogram(0.02, -2.0, 6.0)


def _end_before(s: SupervisionSegment, others: Sequence[SupervisionSegment]) -> Seconds | None:
    """When the other speaker's last turn before `s` ends; None if there is none."""
    before = [other.end for other in others if other.start < s.start]
    return before[-1] if before else None


def _rounded(hours: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in sorted(hours.items(), key=lambda item: -item[1])}
