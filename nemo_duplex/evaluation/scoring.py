"""Outcomes in, a report out: turn-taking of every conversation, then what other judges say of it, each if it is there.

    outcomes ── turn-taking, conduct, answers ──┐
             ── speech: recogniser, quality ────┼── report.json, events.csv, report.html
             ── judge, GT+LLM ──────────────────┘

No torch is imported here; a judge that needs it imports it. What a judge has said is kept in the output folder, so that an
evaluation that is stopped goes on where it was, and one that is made again asks nobody twice.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.controls.baseline import Lengths, lengths_of_answers, never_listens, telling, yields
from nemo_duplex.evaluation.controls.control import NOT_PLAYED, counts
from nemo_duplex.evaluation.fd_bench import FD_BENCH, fd_bench_results
from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.report.number import SCHEMA_VERSION
from nemo_duplex.evaluation.report.write import write_report
from nemo_duplex.evaluation.scorer import Scorer, not_run
from nemo_duplex.evaluation.scores import AUDIO_RULES, Scored, score, summary
from nemo_duplex.evaluation.setting import PARTS, EvaluationSetting
from nemo_duplex.inputs import InputError, NotInstalled
from nemo_duplex.version import __version__

if TYPE_CHECKING:
    from nemo_duplex.evaluation.judge.conversations import JudgedConversation
    from nemo_duplex.evaluation.speech.hearing import Transcripts

_VERSIONS = ("torch", "nemo_toolkit", "lhotse", "numpy", "sacrebleu", "silero-vad", "faster-whisper", "whisper-normalizer")
_NOBODY_NAMED = {
    "judge": "no judge is named: give judge.url, or what=judge with OPENAI_API_KEY in the environment",
    "gt_llm": "no language model is named: give judge.llm=smollm2, or an endpoint",
}
#: Of the provenance of before: what was played to whom, which files of outputs do not say.
_PLAYED = ("model", "model_sha256", "data")
_NO_CONTROLS: Mapping[str, Any] = {"controls": [NOT_PLAYED.as_dict()], "control_counts": counts([NOT_PLAYED])}
#: Groups of report.json that other judges fill.
GROUPS = [part for part in PARTS if part != "controls"]


def report_of(
    outcomes: Mapping[str, Sequence[Outcome]],
    setting: EvaluationSetting,
    out: Path,
    about: Mapping[str, Any] | None = None,
    controls: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Scores conversations and writes the report.

    Args:
        outcomes: set -> conversations, with `speech`.
        out: folder of the report, and of what judges said before.
        about: what is evaluated, for the report.
        controls: the entries `controls` and `control_counts` of the report; None: those of the report of before, if it is of
            the same conversations.
        progress: whether progress bars are shown.

    Returns:
        The content of report.json, without `conversations`.

    Raises:
        InputError: if a judge cannot be asked, after the report was written without its numbers.
    """
    started = time.perf_counter()
    lengths = lengths_of_answers(outcome.conversation for rows in outcomes.values() for outcome in rows)
    scored = {name: [score(outcome, lengths=lengths) for outcome in rows] for name, rows in outcomes.items()}
    report = _turn_taking(scored, setting, about)
    before = _report_before(out, report["provenance"]["conversations_sha256"])
    report["provenance"] = {k: v for k, v in before.get("provenance", {}).items() if k in _PLAYED} | report["provenance"]
    report |= controls or {key: before.get(key, none) for key, none in _NO_CONTROLS.items()}
    scorers: list[Scorer] = [FD_BENCH]
    stopped: InputError | None = None
    for group in GROUPS:
        found: dict[str, dict[str, Any]] = {}
        why = "no conversation of the set could be judged"
        if group not in setting.parts:
            found = {name: _left_out(before, name, group, setting.what) for name in scored}
        elif stopped is None:
            try:
                found, judges = _STAGES[group](scored, setting, out, progress)
                scorers += judges
            except InputError as error:  # the report is written with all else
                stopped = error
        for name in scored:
            report["sets"][name][group] = found.get(name) or not_run(str(stopped or why))
    own = {scorer.name: {k: v for k, v in scorer.as_dict().items() if k != "name"} for scorer in scorers}
    report["scorers"] = before.get("scorers", {}) | own
    report["provenance"]["seconds"] = round(time.perf_counter() - started, 1)
    write_report(out, report, scored, setting.examples)
    if stopped is not None:
        raise InputError(f"{stopped} All else is in {out / 'report.html'}.") from stopped
    return report


def _turn_taking(
    scored: Mapping[str, Sequence[Scored]], setting: EvaluationSetting, about: Mapping[str, Any] | None
) -> dict[str, Any]:
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    provenance = dict(about or {}) | {"created": created, "vad": setting.vad, "seed": setting.seed, "versions": _versions()}
    provenance["conversations_sha256"] = _sha256(scored)
    provenance["rules"] = asdict(AUDIO_RULES)
    lengths = lengths_of_answers(one.outcome.conversation for rows in scored.values() for one in rows)
    sets = {name: measured(rows, setting.seed, lengths) for name, rows in scored.items()}
    return {"schema_version": SCHEMA_VERSION, "provenance": provenance, "sets": sets}


def measured(scored: Sequence[Scored], seed: int = 0, lengths: Lengths | None = None) -> dict[str, Any]:
    """The numbers of one set that need no other judge, as report.json has them: `summary`, a deaf agent beside barge-ins,
    and FD-Bench's formulas.

    Args:
        lengths: of answers, as `lengths_of_answers` finds them; None: in these conversations.
    """
    lengths = lengths_of_answers(one.outcome.conversation for one in scored) if lengths is None else lengths
    found = summary(scored, seed)
    found["barge_in"]["never_listens"] = never_listens(scored, lengths, seed)
    found["barge_in"]["telling"] = telling(scored, lengths, seed)
    found["fd_bench"] = fd_bench_results([one.outcome for one in scored], seed=seed)["metrics"]
    found["barge_in"]["yield_rate"] = yields(scored, lengths, seed).as_dict()
    return found


# ---------------------------------------------------------------------- what other judges say

#: Entries of each set, and who made them.
Judged = tuple[dict[str, dict[str, Any]], list[Scorer]]


def _speech(scored: Mapping[str, Sequence[Scored]], setting: EvaluationSetting, out: Path, progress: bool) -> Judged:
    """What a recogniser hears the agent say, and how good it sounds."""
    from nemo_duplex.evaluation.speech.quality import quality_results
    from nemo_duplex.evaluation.speech.speech_results import no_speech_results, speech_results
    from nemo_duplex.evaluation.speech.speech_scorers import open_scorers

    heard = _heard(scored, setting, out, setting.asr_turns, progress) if setting.asr_turns != 0 else "asr_turns=0"
    scorers = open_scorers(setting.utmos, setting.dnsmos, setting.ecapa2, setting.voice)
    found = {}
    for name, rows in scored.items():
        outcomes = [one.outcome for one in rows]
        by_ear = no_speech_results(heard) if isinstance(heard, str) else speech_results(outcomes, heard[name], setting.seed)
        found[name] = by_ear | quality_results(outcomes, scorers, out, setting.workers, setting.seed, progress)
    recognisers = [] if isinstance(heard, str) else [next(iter(heard.values())).scorer]
    return found, [*recognisers, *scorers.described()]


def _heard(
    scored: Mapping[str, Sequence[Scored]], setting: EvaluationSetting, out: Path, turns: int | None, progress: bool
) -> dict[str, Transcripts] | str:
    """The transcripts of each set, or why there is no recogniser."""
    from nemo_duplex.evaluation.speech.hearing import hear
    from nemo_duplex.evaluation.speech.recogniser_key import open_recogniser

    try:
        recogniser = open_recogniser(setting.recogniser, setting.workers)
    except NotInstalled as missing:
        return str(missing)
    return {
        name: hear(
            [one.outcome for one in rows],
            recogniser,
            out,
            turns,
            setting.seed,
            setting.workers,
            label=name if progress else None,
        )
        for name, rows in scored.items()
    }


def _judge(scored: Mapping[str, Sequence[Scored]], setting: EvaluationSetting, out: Path, progress: bool) -> Judged:
    """GPT scores of what a recogniser hears the agent say; where there is none, of what the agent writes."""
    from nemo_duplex.evaluation.judge.conversations import judged_conversations
    from nemo_duplex.evaluation.judge.scores import judge_results
    from nemo_duplex.evaluation.speech.speech_results import why_nothing

    conversations: list[JudgedConversation] = []
    endpoint = setting.judge.endpoint()
    heard = endpoint if isinstance(endpoint, str) else _heard(scored, setting, out, None, progress)
    for name, rows in scored.items():
        outcomes = [one.outcome for one in rows]
        if isinstance(heard, str):  # of a model that does not write, nothing is known: it did not say nothing
            conversations += judged_conversations(name, outcomes, {o.id: o.agent for o in outcomes if o.writes})
        else:
            turns = {o.id: heard[name].heard[o.id].turns for o in outcomes if o.id in heard[name].heard}
            conversations += judged_conversations(name, [o for o in outcomes if o.id in turns], turns)
    by = "text channel" if isinstance(heard, str) else next(iter(heard.values())).scorer.name
    found = judge_results(conversations, setting.judge, out / "judge", by)
    why = {n: heard if isinstance(heard, str) else why_nothing(heard[n].scorer, heard[n].not_understood) for n in scored}
    return {name: not_run(why[name]) for name in scored} | found["sets"], found["scorers"]


def _gt_llm(scored: Mapping[str, Sequence[Scored]], setting: EvaluationSetting, out: Path, progress: bool) -> Judged:
    """The language model alone, given the true text of the user."""
    from nemo_duplex.evaluation.judge.conversations import judged_conversations
    from nemo_duplex.evaluation.judge.gt_llm import gt_llm_results

    conversations: list[JudgedConversation] = []
    for name, rows in scored.items():
        outcomes = [one.outcome for one in rows]
        conversations += judged_conversations(name, outcomes, {o.id: () for o in outcomes})
    found = gt_llm_results(conversations, setting.judge, out / "judge")
    return found["sets"], found["scorers"]


_STAGES = {"speech": _speech, "judge": _judge, "gt_llm": _gt_llm}


def _left_out(before: Mapping[str, Any], name: str, group: str, what: str) -> dict[str, Any]:
    """A group of the report of before; where there is none, the reason."""
    why = f"what={what} leaves it out: give what={group}" if what != "all" else _NOBODY_NAMED[group]
    return before.get("sets", {}).get(name, {}).get(group) or not_run(why)


def _report_before(out: Path, conversations_sha256: str) -> dict[str, Any]:
    """The report in the folder, if it is of the same conversations."""
    try:
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        same = report["provenance"]["conversations_sha256"] == conversations_sha256
        return report if same and report["schema_version"] == SCHEMA_VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _sha256(scored: Mapping[str, Sequence[Scored]]) -> str:
    """Of all that is measured of, but for the samples of the sounds; the order of the conversations does not count."""
    said = sorted(
        json.dumps(
            [name, o.id, o.duration, o.speech, *map(_said, (o.agent, o.conversation.user, o.conversation.agent)), _right(o)]
        )
        for name, rows in scored.items()
        for o in (one.outcome for one in rows)
    )
    return hashlib.sha256("\n".join(said).encode()).hexdigest()


def _said(turns: Sequence[Turn]) -> list[Any]:
    return [[turn.speaker, turn.start, turn.end, turn.text, turn.full_text, turn.language] for turn in turns]


def _right(outcome: Outcome) -> list[Any]:
    return [[q.reference.texts, q.reference.answer] for q in outcome.questions if q.reference is not None]


def _versions() -> dict[str, str]:
    found = {"nemo_duplex": __version__, "python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
