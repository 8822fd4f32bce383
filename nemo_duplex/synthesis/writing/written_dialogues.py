"""What was written, judged in order, and as files: the same ones after any interruption."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.synthesis.writing.near_duplicates import AcceptedSoFar

ROWS, SUMMARY = "dialogues.jsonl", "summary.json"
_SAVED_EVERY = 200  # rows that are accepted


@dataclass(frozen=True)
class Written:
    """Something that a model wrote.

    Args:
        id: of its row.
        topic: what it is about; "" if that is not known.
        turns: texts, the user's first; those that there are, where it is rejected.
        fault: why it is rejected; None if it may stay.
    """

    id: str
    topic: str
    turns: tuple[str, ...]
    fault: OddRow | None = None


def dialogue_row(written: Written, source: str) -> dict[str, Any]:
    """A dialogue as a row of the one form of dialogues."""
    turns = [{"role": ("user", "agent")[place % 2], "text": text} for place, text in enumerate(written.turns)]
    return {"id": written.id, "source": source, "topic": written.topic, "turns": turns}


def question_row(written: Written, source: str) -> dict[str, Any]:
    """A question about a recording as a row that the importer of ASR-QA reads."""
    return {"utt_id": written.id, "question": written.turns[0], "answer": written.turns[1]}


class WrittenFile:
    """The rows that are accepted, and the summary, in a folder.

    Args:
        folder: of both files.
        source: what was asked for (`topic`, `ultrachat`, `asr_qa`).
        facts: of every row (`written_by`, `prompt_version`).
        goal: rows after which it is full; None: as many as there are.
    """

    def __init__(self, folder: Path, source: str, facts: Mapping[str, str], goal: int | None) -> None:
        self._folder, self._source, self._facts, self._goal = folder, source, dict(facts), goal
        self._rows: list[str] = []
        self._asked = 0
        self._odd, self._accepted = OddRows(), AcceptedSoFar()
        self._before = self._kept()

    @property
    def is_full(self) -> bool:
        """Whether the goal is reached."""
        return self._goal is not None and len(self._rows) >= self._goal

    def take(self, everything: Iterable[Written]) -> None:
        """Takes what is written, in its order, until the file is full.

        Ctrl-C or an error leaves on disk what was accepted, or the longer file of an earlier run that begins with it.
        """
        progress = tqdm(total=self._goal, desc="Writing", unit=" rows", leave=False, delay=2)
        try:
            for written in everything:
                if self._judge(written):
                    progress.update()
                    if len(self._rows) % _SAVED_EVERY == 0:
                        self._save_longer()
                if self.is_full:
                    break
            self._save()
        finally:
            progress.close()
            self._save_longer()

    def _judge(self, written: Written) -> bool:
        self._asked += 1
        fault = written.fault
        is_about_recording = self._source == "asr_qa"
        if fault is None and not is_about_recording and (reason := self._accepted.refuses(written.turns)):
            fault = OddRow(reason, written.turns[0])
        if fault is not None:
            self._odd.add(fault, written.id)
            return False
        row = (question_row if is_about_recording else dialogue_row)(written, self._source)
        self._rows.append(json.dumps(row | self._facts, ensure_ascii=False))
        return True

    def _kept(self) -> list[str]:
        """The rows that the file has."""
        try:
            return [row for row in (self._folder / ROWS).read_text(encoding="utf-8").split("\n") if row]
        except (OSError, ValueError):
            return []

    def _save_longer(self) -> None:
        """Saves, unless the file has these rows and more."""
        if self._kept()[: len(self._rows)] != self._rows:
            self._save()

    def _save(self) -> None:
        if self._rows:
            with whole_file(self._folder / ROWS) as part:
                part.write_text("\n".join(self._rows) + "\n", encoding="utf-8")

    def finish(self, measured: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the summary, and returns it.

        Args:
            measured: more to say in it.
        """
        summary = {
            "source": self._source,
            **self._facts,
            "asked": self._asked,
            "accepted": len(self._rows),
            "acceptance": round(len(self._rows) / max(1, self._asked), 4),
            "rejected": self._odd.describe(),
            "rows_replaced": len({*self._before} - {*self._kept()}),
            **measured,
        }
        with whole_file(self._folder / SUMMARY) as part:
            part.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return summary
