"""What the baseline agents must score on the built-in conversations, worked out from how these were made."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.controls.baseline_agents import BREAK, EARLY, STOPS_AFTER
from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.frames import Seconds

#: Place in report.json -> value; None: undefined.
Numbers = Mapping[str, float | None]
#: By how much the delayed oracle is late.
DELAY: Seconds = 0.24
DELAYED = f"oracle, {DELAY:g} s late"
#: Of the paper, in which an agent has to stop.
WINDOW: Seconds = 1.5


@dataclass(frozen=True)
class Fact:
    """An exchange of a conversation: question and answer, and how much of the answer was left when the next question began.

    `left`: Seconds; None where nobody interrupts. `number`: in the conversation, from 0. `kind`: of the exchange.
    """

    question: Turn
    answer: Turn
    left: Seconds | None
    number: int
    kind: str

    @property
    def first(self) -> bool:
        return self.number == 0

    @property
    def answered(self) -> bool:
        """By the agent that leaves out every second answer."""
        return self.number % 2 == 0

    @property
    def gap(self) -> Seconds:
        return self.answer.start - self.question.end

    @property
    def stop(self) -> Seconds:
        """When after the onset of the interrupter the agent of the corpus is silent."""
        assert self.left is not None, "Nobody interrupts."
        return min(self.left, STOPS_AFTER)


def facts_of(outcome: Outcome) -> Iterator[Fact]:
    """The exchanges of a built-in conversation."""
    user, agent = outcome.conversation.user, outcome.conversation.agent
    for number, (question, answer) in enumerate(zip(user, agent, strict=True)):
        own_end = answer.start + answer.custom["whole_duration"]
        following = user[number + 1].start if number + 1 < len(user) else outcome.duration
        left = own_end - following
        yield Fact(question, answer, round(left, 3) if left > 0 else None, number, answer.custom["kind"])


def expected_scores(name: str, facts: Sequence[Fact], outcomes: Sequence[Outcome]) -> Numbers:
    """What the agent must score, by the number's place in report.json."""
    seconds = sum(outcome.duration for outcome in outcomes)
    if name == "silent":
        return _SILENT
    if name == "always talking":
        said = sum(fact.question.duration - _pauses(fact.question) for fact in facts) + _beside(outcomes)
        return {**_ALWAYS_TALKING, "floor.overlap_ratio": said / seconds, "counts.n_barge_in": len(facts)}
    if name == "echo":
        return _ECHO
    if name == "reacts to every sound":
        return {**_REACTS, "false_alarm.rate": sum("pauses" in fact.question.custom for fact in facts) / len(facts)}
    if name == "every other answer":
        return _every_other(facts)
    return {**_ORACLE, **_timing(name, facts), **_rest(name, facts, seconds)}


def _every_other(facts: Sequence[Fact]) -> Numbers:
    """Only what is said counts, over all that is asked."""
    said = [fact for fact in facts if fact.answered]
    stops = [fact.stop for fact in said if fact.left is not None]
    whole = [fact for fact in facts if not (fact.answered and fact.left is not None)]
    return {
        **_SOME_ANSWERS,
        "counts.n_barge_in": len(stops),
        "barge_in.mean_stop_latency": statistics.fmean(stops),
        "response.rate": len(said) / len(facts),
        "response.missing_rate": 1 - len(said) / len(facts),
        "response.latency": statistics.fmean(fact.gap for fact in said),
        "answers.all": sum(fact.answered for fact in whole) / len(whole),
        "turn_ends.end_recall": len(said) / len(facts),
    }


def _timing(name: str, facts: Sequence[Fact]) -> Numbers:
    """Of an agent that answers as the reference does."""
    late, deaf = (DELAY if name == DELAYED else 0.0), name == "deaf oracle"
    stops = [fact.left if deaf else fact.stop + late for fact in facts if fact.left is not None]
    in_time = [stop for stop in stops if stop <= WINDOW]
    gaps = [-EARLY if name == "early oracle" else fact.gap + late for fact in facts]
    firsts = [gap for gap, fact in zip(gaps, facts, strict=True) if fact.first]
    return {
        "counts.n_barge_in": len(stops),
        "barge_in.success_rate": len(in_time) / len(stops),
        "barge_in.sustained_success_rate": len(in_time) / len(stops),
        "barge_in.interruption_rate": len(stops) / sum(not fact.first for fact in facts),
        "barge_in.mean_stop_latency": statistics.fmean(in_time),
        "barge_in.restricted_mean_stop_latency": statistics.fmean(min(stop, WINDOW) for stop in stops),
        "response.first_latency": statistics.fmean(firsts),
        "response.latency": statistics.fmean(gaps),
        "token_channel.barge_in.success_rate": len(in_time) / len(stops),
        "token_channel.response.latency": statistics.fmean(gaps),
    }


def _rest(name: str, facts: Sequence[Fact], seconds: Seconds) -> Numbers:
    """What sets these agents apart."""
    whole = [fact for fact in facts if fact.left is None]
    if name == "stops at backchannels":
        lost = {f"behaviour.backchannel_{rate}": 0.0 for rate in ("resume_rate", "went_on_rate", "ignored_rate")}
        right = sum(fact.kind != "backchannel" for fact in whole) / len(whole)
        return {**lost, "turn_ends.interruption_fp_rate": 0.5, "answers.all": right}
    kept = {f"behaviour.{kind}_resume_rate": 1.0 for kind in ("backchannel", "cough")}
    excused = len(facts) if name == "early oracle" else 0
    found = {**kept, "answers.all": 1.0, "counts.n_false_alarms_excused": excused}
    if name == "early oracle":
        return found
    said = [fact.answer.custom["whole_duration"] if name == "deaf oracle" else fact.answer.duration for fact in facts]
    return {**found, "floor.agent_talk_ratio": sum(said) / seconds}


_SILENT: Numbers = {
    "counts.n_barge_in": 0,
    "barge_in.success_rate": None,
    "barge_in.mean_stop_latency": None,
    "barge_in.interruption_rate": 0,
    "false_alarm.rate": 0,
    "response.first_latency": None,
    "response.first_missing_rate": 1,
    "response.latency": None,
    "response.missing_rate": 1,
    "answers.all": 0,
    "floor.agent_talk_ratio": 0,
    "floor.overlap_ratio": 0,
    "floor.agent_longest_monologue_of_all": 0,
    "behaviour.pause_takeover_rate": 0,
    "behaviour.echo_interruption_rate": None,
    "behaviour.unprompted_rate": None,
    "turn_ends.end_recall": 0,
    "turn_ends.end_fp_rate": 0,
}
_ALWAYS_TALKING: Numbers = {
    "barge_in.success_rate": 0,
    "barge_in.mean_stop_latency": None,
    "barge_in.restricted_mean_stop_latency": WINDOW,
    "barge_in.interruption_rate": 1,
    "false_alarm.rate": 0,  # it starts once, before the user does
    "response.first_missing_rate": 1,
    "response.missing_rate": 1,
    "answers.all": 0,
    "floor.agent_talk_ratio": 1,
    "floor.runaway_rate": 1,
    "behaviour.backchannel_went_on_rate": 1,
    "behaviour.pause_takeover_rate": None,
    "turn_ends.end_recall": 0,
    "turn_ends.interruption_recall": 0,
}
_ECHO: Numbers = {
    "barge_in.success_rate": None,
    "false_alarm.rate": 1,
    "response.first_early_rate": 1,
    "response.early_rate": 1,
    "response.latency": None,
    "answers.all": 0,
}
_ORACLE: Numbers = {
    "false_alarm.rate": 0,
    "false_alarm.per_minute": 0,
    "response.first_early_rate": 0,
    "response.first_missing_rate": 0,
    "response.early_rate": 0,
    "response.missing_rate": 0,
    "floor.runaway_rate": 0,
    "behaviour.pause_takeover_rate": 0,
    "behaviour.pause_onset_rate": 0,
    "behaviour.cough_went_on_rate": 1,
    "behaviour.side_talk_answered_rate": 0,
    "behaviour.background_voice_answered_rate": 0,
    "behaviour.echo_interruption_rate": 0,
    "behaviour.echo_answers_per_minute": 0,
    "behaviour.unprompted_rate": 0,
    "token_channel.onset_difference": 0,
    "token_channel.offset_difference": 0,
    "token_channel.written_but_not_heard": 0,
    "token_channel.heard_but_not_written": 0,
    "turn_ends.end_recall": 1,
    "turn_ends.end_fp_rate": 0,
    "turn_ends.interruption_recall": 1,
    "turn_ends.interruption_fp_rate": 0,
}
_REACTS: Numbers = {
    "behaviour.pause_takeover_rate": 1,
    "behaviour.paused_turn_takeover_rate": 1,
    "behaviour.backchannel_went_on_rate": 0,
    "behaviour.backchannel_resume_time": BREAK,
    "behaviour.cough_went_on_rate": 0,
    "behaviour.side_talk_answered_rate": 1,
    "behaviour.background_voice_answered_rate": 1,
    "behaviour.echo_interruption_rate": 1,
    "turn_ends.end_fp_rate": 1,
}


_SOME_ANSWERS: Numbers = {
    "barge_in.success_rate": 1,
    "false_alarm.rate": 0,
    "response.first_missing_rate": 0,
    "response.early_rate": 0,
    "turn_ends.end_fp_rate": 0,
}


def _pauses(turn: Turn) -> Seconds:
    return sum(b - a for a, b in turn.custom.get("pauses", ()))


def _beside(outcomes: Sequence[Outcome]) -> Seconds:
    """How long the user says what is no turn."""
    events = [event for outcome in outcomes for event in outcome.conversation.custom["events"]]
    return sum(event["end"] - event["start"] for event in events if event["kind"] in ("backchannel", "side_talk"))
