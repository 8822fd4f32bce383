"""Ratings of answers to interruptions, 0 to 5, as Full-Duplex-Bench asks for; by a prompt of ours, so not comparable."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from nemo_duplex.evaluation.judge.prompt import NO_RESPONSE, NO_TRANSCRIPT, Prompt, asked, plain
from nemo_duplex.evaluation.judge.setting import JudgeSetting
from nemo_duplex.evaluation.judge.verdict import read_verdict
from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import NotInstalled
from nemo_duplex.synthesis.writing.endpoint import Answers

INTERRUPTION_PROMPT = Prompt.of_file("interruption_prompt_v1")
HIGHEST_RATING = 5


@dataclass(frozen=True)
class RatingRequest:
    """What is asked of a judge about one answer; see `Asked`.

    Examples:
        >>> RatingRequest((), 0, ()).seed
        0
    """

    messages: tuple[dict[str, str], ...]
    seed: int
    kept_by: tuple[str, ...]


class InterruptionRater:
    """Rates answers to interruptions (a `Rater` of `full_duplex_bench.score`); each reply is kept and paid once.

    Args:
        setting: of the judge.
        folder: in which replies are kept (`replies/`).

    Raises:
        NotInstalled: where there is no judge.

    Examples:
        >>> rater = InterruptionRater(JudgeSetting(url="http://localhost:8000/v1", model="llama"), Path("kept"))
        >>> rater.scorer.name, rater.failures.describe()
        ('llama', {})
    """

    def __init__(self, setting: JudgeSetting, folder: Path) -> None:
        endpoint = setting.endpoint()
        if isinstance(endpoint, str):
            raise NotInstalled(endpoint)
        self._seed, self._url = setting.seed, endpoint.url
        self._answers = Answers(endpoint, folder / "replies")
        about = "rates an answer to an interruption from 0 to 5, by a prompt of ours"
        #: The judge; and why replies could not be read.
        self.scorer = Scorer(setting.model, INTERRUPTION_PROMPT.version, INTERRUPTION_PROMPT.sha256, about=about)
        self.failures = OddRows()

    def __call__(self, before: str, interruption: str, answer: str) -> float | None:
        """The rating of an answer; None if there is none, which `failures` counts.

        Raises:
            InputError: in one line, if the endpoint cannot be reached or refuses what is asked.
        """
        texts = {
            "before": plain(before) or NO_TRANSCRIPT,
            "interruption": plain(interruption) or NO_TRANSCRIPT,
            "answer": plain(answer) or NO_RESPONSE,
        }
        question = 'Grade this answer as you were told, by one JSON object: "score" and "reason".'
        messages = asked(INTERRUPTION_PROMPT, json.dumps(texts, ensure_ascii=False), question)
        ((_, reply),) = self._answers.ask([RatingRequest(messages, self._seed, (self._url,))])
        try:
            if reply.odd:
                raise reply.odd
            return read_verdict(reply.text, num_turns=1, highest=HIGHEST_RATING).score
        except OddRow as odd:
            self.failures.add(odd, texts["interruption"])
            return None
