"""The numbers of a set that rest on transcripts, for the group `speech` of report.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from nemo_duplex.evaluation.answers import answers, exact_match
from nemo_duplex.evaluation.confidence import Estimate
from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.scorer import Scorer, made_by, not_run
from nemo_duplex.evaluation.speech.asr_bleu import asr_bleu
from nemo_duplex.evaluation.speech.hearing import UNKNOWN, Heard, Transcripts
from nemo_duplex.evaluation.speech.normalized_text import heard_words
from nemo_duplex.evaluation.speech.spoken_text import spoken_text
from nemo_duplex.inputs import NotInstalled

#: The entries of `speech_results`.
NAMES = ("spoken_wer", "reference_wer", "spoken_wer_gap", "asr_bleu_turn", "asr_bleu_conversation", "answers_by_ear")


def speech_results(outcomes: Sequence[Outcome], transcripts: Transcripts, seed: int = 0) -> dict[str, Any]:
    """What the agent's sound says, by ear.

    Args:
        outcomes: of the set; those that were not heard do not count.
        transcripts: of `hear`.
        seed: of the intervals.

    Returns:
        `recogniser`: its name. `heard`: conversations. `left_out`: conversations of each language that it does not know.
        Each of `NAMES`: an entry of report.json; `answers_by_ear` holds one for each rate of `answers.exact_match`.
    """
    heard = [(outcome, transcripts.heard[outcome.id]) for outcome in outcomes if outcome.id in transcripts.heard]
    scorer, left_out = transcripts.scorer, transcripts.not_understood
    found: dict[str, Any] = {"recogniser": scorer.name, "heard": len(heard), "left_out": dict(left_out)}
    if not heard:
        return found | no_speech_results(why_nothing(scorer, left_out))
    found |= _or_not_run(lambda: spoken_text(heard, scorer, seed), NAMES[:3])
    found |= _or_not_run(lambda: asr_bleu(heard, scorer, seed), NAMES[3:5])
    return found | _or_not_run(lambda: {"answers_by_ear": answers_by_ear(heard, scorer, seed)}, NAMES[5:])


def no_speech_results(why: str) -> dict[str, Any]:
    """The same entries where nothing was heard, with the reason."""
    return {name: not_run(why) for name in NAMES}


def answers_by_ear(heard: Sequence[tuple[Outcome, Heard]], scorer: Scorer, seed: int = 0) -> dict[str, Any]:
    """Exact match and contained answers (`answers.exact_match`), judged by what is heard, of models that do not write too.

    An answer is everything that the agent says from a question's start to the next one's. Words are compared as normalised.
    """
    marked = []
    for outcome, one in heard:
        said = [turn for q in outcome.questions if (turn := one.answer(q)) is not None]
        marked.append(answers(outcome, said, partial(heard_words, language=one.language)))
    return _entries(exact_match(marked, seed), scorer)


def _entries(tree: dict[str, Any], scorer: Scorer) -> dict[str, Any]:
    return {
        name: made_by(scorer, value) if isinstance(value, Estimate) else _entries(value, scorer) for name, value in tree.items()
    }


def why_nothing(scorer: Scorer, left_out: Mapping[str, int]) -> str:
    """Why a recogniser heard no conversation of a set; `left_out`: language -> conversations that it does not know."""
    if not left_out:
        return "no conversation was heard"
    languages = ", ".join("of another script" if language == UNKNOWN else language for language in sorted(left_out))
    return (
        f"{scorer.name} does not know the language of the corpus ({languages}): "
        "give a recogniser that does (recogniser=PATH), or the turns their `language`"
    )


def _or_not_run(measure: Callable[[], dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    try:
        return measure()
    except NotInstalled as missing:
        return {name: not_run(str(missing)) for name in names}
