"""Whether the agent says what it writes: its sound, transcribed, against its own text channel.

A recogniser makes mistakes of its own, more with one voice than with another. So the same is measured of the corpus' own agent,
and the difference of both is what the model adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.confidence import estimate_ratio, paired_difference
from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.scorer import Scorer, made_by, not_run
from nemo_duplex.evaluation.speech.hearing import Heard
from nemo_duplex.evaluation.speech.normalized_text import word_errors

#: Word errors and words of one conversation.
_Errors = tuple[int, int]


def spoken_text(heard: Sequence[tuple[Outcome, Heard]], scorer: Scorer, seed: int = 0) -> dict[str, Any]:
    """Word error rates, as shares of the words that are written; errors and words are pooled.

    Returns:
        `spoken_wer`: of the agent's whole turns; one that the user or the recording cut off may have written more than it said.
        `reference_wer`: of the whole turns of the corpus' agent. `spoken_wer_gap`: how much larger the first is, with a paired
        interval over conversations. Each an entry of report.json, `n` counts words; the first two have `by_conversation`,
        {id: [word errors, words]}.
    """
    spoken = [_errors(h, [t for t in outcome.agent if t.text and not _interrupted(t, outcome)]) for outcome, h in heard]
    reference = [_errors(h, outcome.conversation.agent, "reference") for outcome, h in heard]
    gap = paired_difference(reference, spoken, seed=seed)
    entries = {
        "spoken_wer": _entry(heard, spoken, scorer, seed),
        "reference_wer": _entry(heard, reference, scorer, seed),
        "spoken_wer_gap": made_by(scorer, gap) if gap.value is not None else not_run("it takes whole turns of both voices"),
    }
    if not any(outcome.writes for outcome, _ in heard):
        entries["spoken_wer"] = not_run("the model has no text channel")
    if not any(outcome.reference_sound is not None for outcome, _ in heard):
        entries["reference_wer"] = not_run("the corpus has no sound of an agent")
    return entries


def _entry(heard: Sequence[tuple[Outcome, Heard]], errors: Sequence[_Errors], scorer: Scorer, seed: int) -> dict[str, Any]:
    by_conversation = {outcome.id: list(part) for (outcome, _), part in zip(heard, errors) if part[1]}
    estimate = estimate_ratio(errors, proportion=False, seed=seed)
    return made_by(scorer, estimate) | {"by_conversation": by_conversation}


def _errors(heard: Heard, turns: Sequence[Turn], voice: str = "agent") -> _Errors:
    of_turns = [
        word_errors(one.stretch.written.text, one.transcript, heard.language)
        for one in heard.stretches
        if one.stretch.voice == voice and one.stretch.written in turns and one.stretch.written is not None
    ]
    return sum(errors for errors, _ in of_turns), sum(words for _, words in of_turns)


def _interrupted(turn: Turn, outcome: Outcome) -> bool:
    unfinished = bool(turn.custom.get("unfinished")) or turn.end > outcome.duration
    return unfinished or any(turn.start < q.turn.start < turn.end for q in outcome.questions)
