"""How good an agent's speech sounds, and whether it keeps its voice: a number per conversation, and the mean of them.

The paper rates the agent's speech after removing silence (section 5.2). So do all scorers here: the agent's speech of a
conversation, joined, is one sound. The recorded agent of the corpus, where there is one, is rated the same way: that can be
had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.confidence import estimate_ratio
from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.scorer import Scorer, made_by, not_run
from nemo_duplex.evaluation.sound import Sound
from nemo_duplex.evaluation.speech.joined_speech import joined_speech
from nemo_duplex.evaluation.speech.kept_answers import KeptAnswers
from nemo_duplex.evaluation.speech.scoring_processes import Task, score_sounds
from nemo_duplex.evaluation.speech.sound_scorer import Answer
from nemo_duplex.evaluation.speech.speakers import secs
from nemo_duplex.evaluation.speech.speech_scorers import QUALITY, SPEAKERS, SpeechScorers
from nemo_duplex.frames import Seconds, Span

#: The file in the output folder that keeps every answer.
KEPT = "quality.jsonl"
_MINUTE: Seconds = 60.0
_NO_VOICE = "there is no recording of the voice that the agent should have: give voice=PATH"
_NO_REFERENCE = "the corpus has no recorded agent"
_NO_LONG = f"no conversation lasts {2 * _MINUTE:.0f} s with speech in its first and its last minute"

#: (number of the conversation, role of the sound in it, name of the scorer) -> what it says.
Answers = dict[tuple[int, str, str], Answer]
#: Stands for a conversation where a sound belongs to all of them.
_ALL = -1


def quality_results(
    outcomes: Sequence[Outcome],
    scorers: SpeechScorers,
    folder: str | Path | None = None,
    workers: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """The entries of the report's group `speech` that are about how the agent sounds.

    Args:
        outcomes: of one set.
        folder: where `quality.jsonl` keeps every answer, so that nothing is judged twice; None keeps nothing.
        workers: processes that judge; 0 judges here, without a time limit.
        seed: of the bootstrap over conversations.

    Returns:
        Entries as `made_by` or `not_run` gives them: means over `n` conversations, with `p5` (their 5th percentile),
        `by_conversation` {id: number} and `refused` {why: conversations}:

            distillmos, utmos, dnsmos                      of the agent's speech
            dnsmos_sig, dnsmos_bak                         of the signal and of its background
            distillmos_reference ...                       of the recorded agent, for each scorer
            secs, ecapa2_secs                              similarity to the recorded agent's voice, or to the one that is given
            drift_secs, ecapa2_drift_secs                  that of the agent's first minute and its last

    Raises:
        InputError: if a sound cannot be read, or a process cannot start.
    """
    kept = KeptAnswers(None if folder is None else Path(folder) / KEPT)
    answers = _judged(outcomes, scorers, kept, workers, progress)
    found: dict[str, Any] = {}

    def of_role(role: str, name: str) -> list[Answer | None]:
        return [answers.get((i, role, name)) for i in range(len(outcomes))]

    for name in QUALITY:
        if name not in scorers.quality:
            found |= {name: not_run(scorers.missing[name])} if name in scorers.missing else {}
            continue
        scorer, agent, reference = scorers.quality[name].scorer, of_role("agent", name), of_role("reference", name)
        found[name] = mean_entry(scorer, agent, "score", seed)
        found |= {f"{name}_{part}": mean_entry(scorer, agent, part, seed) for part in ("sig", "bak") if name == "dnsmos"}
        found[f"{name}_reference"] = mean_entry(scorer, reference, "score", seed) if any(reference) else not_run(_NO_REFERENCE)
    for name in SPEAKERS:
        if name not in scorers.speakers:
            found |= {name: not_run(scorers.missing[name])} if name in scorers.missing else {}
            continue
        scorer, voice = scorers.speakers[name].scorer, answers.get((_ALL, "voice", name))
        theirs = [voice or one for one in of_role("reference", name)]
        found[name] = similarity_entry(scorer, of_role("agent", name), theirs, seed, _NO_VOICE)
        first, last = of_role("first minute", name), of_role("last minute", name)
        found[name.replace("secs", "drift_secs")] = similarity_entry(scorer, first, last, seed, _NO_LONG)
    return {name: _by_conversation(entry, outcomes) for name, entry in found.items()}


def _by_conversation(entry: dict[str, Any], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """An entry with its numbers by id, as two evaluations are compared by them."""
    each = entry.pop("each", None)
    if each is None:
        return entry
    return entry | {"by_conversation": {o.id: number for o, number in zip(outcomes, each, strict=True) if number is not None}}


def _judged(outcomes: Sequence[Outcome], scorers: SpeechScorers, kept: KeptAnswers, workers: int, progress: bool) -> Answers:
    """All answers, from the file where it has them."""
    found: Answers = {}
    keys: dict[tuple[int, str, str], str] = {}

    def tasks() -> Iterator[Task]:
        for i, role, audio, rate in _sounds(outcomes, scorers.voice):
            for name, one in (scorers.speakers if "minute" in role or role == "voice" else scorers.all).items():
                keys[i, role, name] = KeptAnswers.key(one.scorer, audio, rate)
                before = kept.get(keys[i, role, name])
                if before is None:
                    yield Task((i, role, name), name, audio, rate)
                else:
                    found[i, role, name] = before

    with tqdm(desc="Judging speech", unit="", leave=False, delay=5, disable=not progress) as bar:
        for tag, answer in score_sounds(tasks(), scorers.all, workers):
            i, role, name = tag
            found[tag] = answer
            if "failed" not in answer:  # that may go better the next time
                kept.add(keys[tag], name, f"{outcomes[i].id} {role}" if i != _ALL else role, answer)
            bar.update()
    return found


def _sounds(outcomes: Iterable[Outcome], voice: Sound | None) -> Iterator[tuple[int, str, np.ndarray, int]]:
    """(number of the conversation, role, samples, rate) of all that is judged, silence removed."""
    if voice is not None:
        samples = voice.samples()
        yield (
            _ALL,
            "voice",
            joined_speech(samples, voice.sample_rate, energy_vad(samples, voice.sample_rate)),
            voice.sample_rate,
        )
    for i, o in enumerate(outcomes):
        agent = o.agent_sound
        samples, rate = (np.zeros(0, np.float32), 16000) if agent is None else (agent.samples(), agent.sample_rate)
        yield i, "agent", joined_speech(samples, rate, o.speech), rate
        if o.duration >= 2 * _MINUTE:
            for role, window in (("first minute", (0.0, _MINUTE)), ("last minute", (o.duration - _MINUTE, o.duration))):
                if inside := clipped(o.speech, window):
                    yield i, role, joined_speech(samples, rate, inside), rate
        if o.reference_sound is not None:
            samples, rate = o.reference_sound.samples(), o.reference_sound.sample_rate
            yield i, "reference", joined_speech(samples, rate, energy_vad(samples, rate)), rate


def clipped(spans: Iterable[Span], window: Span) -> list[Span]:
    """The parts of spans within a window."""
    inside = ((max(start, window[0]), min(end, window[1])) for start, end in spans)
    return [(start, end) for start, end in inside if start < end]


def mean_entry(scorer: Scorer, answers: Sequence[Answer | None], part: str, seed: int) -> dict[str, Any]:
    """The mean of a number of the answers, one for each conversation that has the sound; `each` has them in order."""
    refused = Counter(_why(answer) for answer in answers if answer is not None and part not in answer)
    return _mean(scorer, [None if answer is None else answer.get(part) for answer in answers], refused, seed)


def similarity_entry(
    scorer: Scorer, first: Sequence[Answer | None], second: Sequence[Answer | None], seed: int, absent: str
) -> dict[str, Any]:
    """The mean similarity of the two voices of each conversation; those that lack one are left out."""
    numbers, refused = list[float | None](), Counter[str]()
    for a, b in zip(first, second, strict=True):
        refusing = [_why(one) for one in (a, b) if one is not None and "embedding" not in one]
        both = a is not None and b is not None
        numbers.append(secs(a["embedding"], b["embedding"]) if a and b and not refusing else None)
        refused.update(refusing[:1] if both else [])
    if not any(a is not None and b is not None for a, b in zip(first, second)):
        return not_run(absent)
    return _mean(scorer, numbers, refused, seed)


def _mean(scorer: Scorer, numbers: Sequence[float | None], refused: Mapping[str, int], seed: int) -> dict[str, Any]:
    values = [number for number in numbers if number is not None]
    return made_by(scorer, estimate_ratio([(value, 1) for value in values], proportion=False, seed=seed)) | {
        "p5": float(np.percentile(values, 5)) if values else None,
        "each": [None if number is None else round(number, 4) for number in numbers],
        "refused": dict(refused),
    }


def _why(answer: Answer) -> str:
    return answer.get("refused") or answer.get("failed") or "no number"
