"""A whole run of a writer: what is asked, by which model, and what becomes of it on disk."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nemo_duplex.conversation import Speaker
from nemo_duplex.files.atomic import remove_abandoned, require_writable, whole_file
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.writing import prompts, turn_by_turn
from nemo_duplex.synthesis.writing.endpoint import Answer, Answers, Endpoint
from nemo_duplex.synthesis.writing.prompts import Request, chat_request, question_request, topic_request
from nemo_duplex.synthesis.writing.replies import written_question, written_turns
from nemo_duplex.synthesis.writing.rules import Rules
from nemo_duplex.synthesis.writing.smollm2 import NAME, open_smollm2
from nemo_duplex.synthesis.writing.spoken_sources import chats, transcripts
from nemo_duplex.synthesis.writing.written_dialogues import ROWS, SUMMARY, Written, WrittenFile

KINDS = ("topic", "ultrachat", "asr_qa")
SMOLLM2 = "smollm2"
#: Dialogues that SmolLM2 writes at a time: the unit of what is kept after an interruption.
BATCH = 128
_DIALOGUE_RULES, _QUESTION_RULES = Rules(), Rules(fewest_words=1, new_words=0)
# Where hardly anything is accepted, a run ends: after so many for each row that is wanted.
_MOST_ASKED_OF_SMOLLM2, _MOST_ASKED_OF_ENDPOINT = 100, 4


@dataclass(frozen=True)
class WritingSpec:
    """What is to be written.

    Args:
        what: `topic`, `ultrachat` or `asr_qa`.
        out: folder of the results.
        count: rows that are wanted; None: one for every recording (`asr_qa`).
        seed: of everything that is drawn.
        source: files of chats, or of transcripts.
        endpoint: that writes; None: SmolLM2.
        model_folder: in which the folder of the converted SmolLM2 is kept; None: the user's cache.
    """

    what: str
    out: Path
    count: int | None
    seed: int = 0
    source: tuple[str, ...] = ()
    endpoint: Endpoint | None = None
    model_folder: Path | None = None

    def __post_init__(self) -> None:
        if self.what not in KINDS:
            raise InputError(f"what={self.what}: expected one of {', '.join(KINDS)}.")
        if self.endpoint is None and self.what != "topic":
            raise InputError(
                f"what={self.what}: llm=smollm2 writes what=topic alone. Give an endpoint: llm=http://host/v1 llm_model=NAME"
            )
        if self.what != "topic" and not self.source:
            raise InputError(f"source: what={self.what} needs files to write from. Set source=[FILE].")
        if self.count is None and self.what != "asr_qa":
            raise InputError(f"count: what={self.what} needs a number of dialogues. Set count=1000.")


@dataclass
class Spent:
    """What a run took: tokens that were written, and other facts of the summary."""

    tokens: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


def write_dialogues(spec: WritingSpec) -> dict[str, Any]:
    """Writes `dialogues.jsonl` and `summary.json` into the folder; returns the summary.

    What was written before an interruption is not written again, and the rows are the same as without one. Rows of a run with
    other keys are replaced; the summary counts those that are gone, `rows_replaced`.

    Raises:
        InputError: if something of the spec cannot be used, or the endpoint does not answer.
        NotInstalled: if SmolLM2's wheel is missing.
    """
    require_writable(spec.out, "out", [ROWS, SUMMARY], folders=["written", "answers"])
    for folder in (spec.out, *spec.out.glob("written/*"), *spec.out.glob("answers/*")):
        remove_abandoned(folder)
    begun, spent = time.monotonic(), Spent()
    if spec.endpoint is None:
        facts = {"written_by": NAME, "prompt_version": turn_by_turn.VERSION}
        everything = _by_smollm2(spec, spent)
    else:
        facts = {"written_by": spec.endpoint.model, "prompt_version": prompts.VERSION}
        everything = _by_endpoint(spec, spec.endpoint, spent)
    file = WrittenFile(spec.out, spec.what, facts, spec.count)
    try:
        with contextlib.closing(everything):
            file.take(everything)
    finally:
        seconds = time.monotonic() - begun
        rate = {
            "tokens": spent.tokens,
            "seconds": round(seconds, 1),
            "tokens_per_second": round(spent.tokens / max(seconds, 1e-9), 1),
        }
        summary = file.finish({**rate, **spent.facts})
    return summary


# --- SmolLM2 ----------------------------------------------------------------------------------------------------------


def _by_smollm2(spec: WritingSpec, spent: Spent) -> Generator[Written, None, None]:
    """Dialogues in order, batch by batch; a batch on disk is read."""
    folder = spec.out / "written" / f"{turn_by_turn.VERSION}-seed-{spec.seed}"
    write = None
    assert spec.count is not None
    for number in range(-(-spec.count * _MOST_ASKED_OF_SMOLLM2 // BATCH)):
        path = folder / f"{number:06d}.json"
        rows = _kept(path)
        if rows is None:
            write = write or partial(turn_by_turn.write_batch, *open_smollm2(spec.model_folder))
            drawn, tokens = write(seed=spec.seed, first=number * BATCH, count=BATCH)
            spent.tokens += tokens
            rows = [vars(dialogue) for dialogue in drawn]
            with whole_file(path) as part:
                part.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        for place, row in enumerate(rows):
            fault = OddRow(row["fault"], f"{row['subtopic']}: {(row['turns'] or [''])[-1]}") if row["fault"] else None
            yield Written(f"topic-{spec.seed}-{number * BATCH + place}", row["topic"], tuple(row["turns"]), fault)


def _kept(path: Path) -> list[dict[str, Any]] | None:
    """The dialogues of a batch, if they are there and whole."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return rows if isinstance(rows, list) and len(rows) == BATCH else None


# --- an endpoint ------------------------------------------------------------------------------------------------------


def _by_endpoint(spec: WritingSpec, endpoint: Endpoint, spent: Spent) -> Generator[Written, None, None]:
    """What is asked, in order, with its answer judged."""
    answers = Answers(endpoint, spec.out / "answers")
    odd = OddRows()
    try:
        with contextlib.closing(answers.ask(_requests(spec, odd))) as asked:
            for request, answer in asked:
                yield _written(request, answer, is_question=spec.what == "asr_qa")
    finally:
        spent.tokens = answers.tokens
        spent.facts = {"requests_paid": answers.paid, "tries_failed": answers.failed, "rows_left_out": odd.describe()}


def _requests(spec: WritingSpec, odd: OddRows) -> Iterator[Request]:
    if spec.what == "asr_qa":
        for name, text in transcripts(spec.source, odd):
            yield question_request(spec.seed, name, text)
        return
    assert spec.count is not None
    most = spec.count * _MOST_ASKED_OF_ENDPOINT + BATCH
    if spec.what == "topic":
        yield from (topic_request(spec.seed, index) for index in range(most))
    else:
        drawn, left_out = chats(spec.source, spec.seed, most)
        odd.update(left_out)
        yield from itertools.starmap(partial(chat_request, spec.seed), drawn)


def _written(request: Request, answer: Answer, is_question: bool) -> Written:
    turns: list[str] = []
    try:
        if answer.odd:
            raise answer.odd
        turns = (written_question if is_question else written_turns)(answer.text)
        rules = _QUESTION_RULES if is_question else _DIALOGUE_RULES
        for place, text in enumerate(turns):
            speaker: Speaker = "agent" if place % 2 else "user"
            subject = "" if is_question and place == 0 else request.subject
            if reason := rules.fault_of_turn(speaker, text, turns[:place], subject):
                raise OddRow(reason, f"{request.topic}: {text[:200]}" if request.topic else text[:200])
        return Written(request.id, request.topic, tuple(turns))
    except OddRow as fault:
        return Written(request.id, request.topic, tuple(turns), fault)
