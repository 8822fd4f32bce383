"""The GPT score of the paper's Table 3: a language model reads all turns of a conversation and gives it 0 to 10."""

from __future__ import annotations

import contextlib
import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_duplex.evaluation.confidence import estimate_ratio
from nemo_duplex.evaluation.judge.calibration import REFERENCE, ROWS, SHUFFLED, broken_order, calibration_rows
from nemo_duplex.evaluation.judge.conversations import JudgedConversation
from nemo_duplex.evaluation.judge.prompt import JUDGE_PROMPT, judge_messages
from nemo_duplex.evaluation.judge.setting import PAPERS_JUDGE, JudgeSetting
from nemo_duplex.evaluation.judge.verdict import Verdict, read_verdict
from nemo_duplex.evaluation.scorer import Scorer, made_by, not_run
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.synthesis.writing.endpoint import Answers

#: What the paper's transcripts come from.
PAPERS_RECOGNISER = "parakeet-tdt_ctc-110m"
#: Stands for a recogniser where a language model writes the answers.
WRITTEN = "none, the language model writes"
_NO_REFERENCE = "no turn has a reference"
_TOO_FEW = "the references of other conversations were no wrong answers: too few conversations, or all alike"


@dataclass
class Judged:
    """A conversation with its verdicts.

    Args:
        conversation: that was judged.
        verdicts: those that can be read; several where several samples were asked for.
        odd: why the first one that cannot be read cannot.

    Examples:
        >>> Judged(JudgedConversation("talk-1", "dev", ()), [Verdict(6.0), Verdict(7.0)]).score
        6.5
    """

    conversation: JudgedConversation
    verdicts: list[Verdict] = field(default_factory=list)
    odd: OddRow | None = None

    @property
    def score(self) -> float | None:
        """0 to 10: the mean of the verdicts; None without any."""
        return statistics.fmean(verdict.score for verdict in self.verdicts) if self.verdicts else None

    @property
    def per_turn(self) -> list[float] | None:
        """0 to 10 for each turn: the mean of the verdicts that have such; None without any."""
        given = [verdict.per_turn for verdict in self.verdicts if verdict.per_turn is not None]
        return [statistics.fmean(scores) for scores in zip(*given)] if given else None

    def as_dict(self) -> dict[str, Any]:
        """For report.json."""
        reason = self.verdicts[0].reason if self.verdicts else None
        why = str(self.odd) if self.odd and not self.verdicts else None
        return {"id": self.conversation.id, "score": self.score, "per_turn": self.per_turn, "reason": reason, "failed": why}


@dataclass(frozen=True)
class JudgeRequest:
    """What is asked of a judge.

    Args:
        judged: takes the verdict.
        messages, seed, kept_by: as in `Asked`.

    Examples:
        >>> JudgeRequest(Judged(JudgedConversation("talk-1", "dev", ())), messages=(), seed=0, kept_by=()).judged.score is None
        True
    """

    judged: Judged
    messages: tuple[dict[str, str], ...]
    seed: int
    kept_by: tuple[str, ...]


def judge_results(
    conversations: Sequence[JudgedConversation],
    setting: JudgeSetting,
    folder: Path,
    transcribed_by: str,
    wait: Callable[[float], Any] | None = None,
) -> dict[str, Any]:
    """The scores of each set, and whether the judge can be trusted.

    Args:
        conversations: of all sets.
        folder: in which every reply is kept (`replies/`), so that a run that ends early goes on where it was, and nothing is
            paid twice.
        transcribed_by: what made the hypotheses: the name of a recogniser, "text channel", or `WRITTEN`, where the scorer has
            a name of its own: one report may hold both.
        wait: sleeps some seconds; None: as needed.

    Returns:
        `sets`, for each set a group of report.json: `score` and `per_turn` (entries of numbers, 0 to 10), `failures` (reason ->
        count, places), `verdicts` (what the judge says of each conversation), and what holds for all sets: `calibration` (the
        score of each row, and `broken`), `prompt`, `requests`. Where `broken` says why the judge cannot be trusted, each number
        says so too, as `not_trusted`. `scorers`: the judge. Without one, the same with numbers that were not run.

    Raises:
        InputError: in one line, if the endpoint cannot be reached or refuses what is asked. What was judged is kept.
    """
    endpoint = setting.endpoint()
    names = sorted({c.set for c in conversations})
    if isinstance(endpoint, str):
        return no_results(names, endpoint)
    said = [Judged(c) for c in conversations]
    rows = calibration_rows([c for c in conversations if c.turns], setting.calibration, setting.seed)
    calibrating = {row: [Judged(c) for c in rows[row]] for row in ROWS}
    answers = Answers(endpoint, folder / "replies", wait)
    models = _judge([*said, *itertools.chain(*calibrating.values())], setting, endpoint.url, answers)
    scorer = _scorer(setting.model, models, transcribed_by)
    calibration = {
        row: _entry(scorer, [(score, 1) for j in calibrating[row] if (score := j.score) is not None]) for row in ROWS
    }
    if not calibrating[SHUFFLED]:
        calibration[SHUFFLED] = not_run(_TOO_FEW)
    broken = broken_order({row: calibration[row]["value"] for row in ROWS})
    of_all = {
        "calibration": calibration | {"conversations": len(calibrating[REFERENCE]), "broken": broken},
        "prompt": JUDGE_PROMPT.as_dict(),
        "requests": {"paid": answers.paid, "tries_failed": answers.failed, "models": sorted(models)},
    }
    sets = {name: _of_set(scorer, [j for j in said if j.conversation.set == name], broken) | of_all for name in names}
    return {"sets": sets, "scorers": [scorer]}


def no_results(sets: Iterable[str], why: str) -> dict[str, Any]:
    """What `judge_results` returns where there is no judge."""
    group: dict[str, Any] = {
        "score": not_run(why),
        "per_turn": not_run(why),
        "sd_of_samples": None,
        "failures": {},
        "verdicts": [],
        "calibration": {row: not_run(why) for row in ROWS} | {"conversations": 0, "broken": ""},
        "prompt": JUDGE_PROMPT.as_dict(),
        "requests": {"paid": 0, "tries_failed": 0, "models": []},
    }
    return {"sets": {name: dict(group) for name in sets}, "scorers": []}


def _judge(everything: Sequence[Judged], setting: JudgeSetting, url: str, answers: Answers) -> set[str]:
    """Gives each its verdicts; returns which models gave them."""
    models = set()
    with contextlib.closing(answers.ask(_requests(everything, setting, url))) as asked:
        for request, answer in asked:
            models |= {answer.model} - {""}
            try:
                if answer.odd:
                    raise answer.odd
                request.judged.verdicts.append(read_verdict(answer.text, len(request.judged.conversation.turns)))
            except OddRow as odd:
                request.judged.odd = request.judged.odd or odd
    return models


def _requests(everything: Sequence[Judged], setting: JudgeSetting, url: str) -> Iterator[JudgeRequest]:
    for judged in everything:
        if not judged.conversation.turns:
            judged.odd = OddRow(_NO_REFERENCE)
            continue
        for sample in range(setting.samples):
            yield JudgeRequest(judged, judge_messages(judged.conversation), setting.seed + sample, (url,))


def _scorer(model: str, models: set[str], transcribed_by: str) -> Scorer:
    comparable = (models or {model}) == {model} == {PAPERS_JUDGE} and PAPERS_RECOGNISER in transcribed_by
    about = (
        f"one request for each conversation, 0 to 10, transcripts: {transcribed_by}; the prompt is ours, as the paper's is not "
        "published"
    )
    name = f"{model}/GT+LLM" if transcribed_by == WRITTEN else model
    return Scorer(name, JUDGE_PROMPT.version, JUDGE_PROMPT.sha256, comparable, about)


def _of_set(scorer: Scorer, judged: Sequence[Judged], broken: str) -> dict[str, Any]:
    odd = OddRows()
    for j in judged:
        if j.odd and not j.verdicts:
            odd.add(j.odd, j.conversation.id)
    scores = {j.conversation.id: (score, 1) for j in judged if (score := j.score) is not None}
    turns = {j.conversation.id: (sum(given), len(given)) for j in judged if (given := j.per_turn) is not None}
    spread = [statistics.stdev(v.score for v in j.verdicts) for j in judged if len(j.verdicts) > 1]
    trust = {"not_trusted": broken} if broken else {}
    if not any(j.conversation.turns for j in judged):
        trust = not_run(_NO_REFERENCE)
    return {
        "score": _entry(scorer, scores.values()) | {"n_failed": len(odd), "by_conversation": scores} | trust,
        "per_turn": _entry(scorer, turns.values()) | {"by_conversation": turns} | trust,
        "sd_of_samples": statistics.fmean(spread) if spread else None,
        "failures": odd.describe(),
        "verdicts": [j.as_dict() for j in judged],
    }


def _entry(scorer: Scorer, parts: Iterable[tuple[float, int]]) -> dict[str, Any]:
    """The mean of what conversations were given, from each one's (sum of scores, their number)."""
    return made_by(scorer, estimate_ratio(list(parts), proportion=False))
