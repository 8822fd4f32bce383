"""Where dialogues come from: the built-in grammar, or files of dialogues.

A source is a `TextSource`. It gives text only: exchanges of one user turn and one agent turn, in order.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
from tqdm import tqdm

from nemo_duplex.conversation import Speaker
from nemo_duplex.files.atomic import sha256
from nemo_duplex.files.json_rows import json_rows
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, existing_file
from nemo_duplex.synthesis.dialogue_rows import dialogue_id, dialogue_language, rows_inside, spoken_turns

Split = Literal["train", "dev"]


@dataclass(frozen=True)
class Exchange:
    """A user turn and the agent's answer to it.

    Args:
        user, agent: what they say.
        answer: the part of the agent's text that must be right (`Paris`).
        family: the kind of question, for results per kind.
        seen: whether this user text occurs in the train split.
        pauses: offsets in `user` before which the speaker may pause, because no complete question ends there.

    Examples:
        >>> Exchange("What is the capital of France?", "The capital of France is Paris.", answer="Paris", family="capital").seen
        True
    """

    user: str
    agent: str
    answer: str
    family: str
    seen: bool = True
    pauses: tuple[int, ...] = ()


@dataclass(frozen=True)
class Dialogue:
    """Exchanges in order.

    Args:
        id: names the dialogue in its source, in cuts and in errors.
        exchanges: of the dialogue.
        language: that both speak, a tag such as `de` or its English name; None: the one of the script, as for texts in a script
            that the language does not have.

    Examples:
        >>> exchange = Exchange("How are you?", "Very well.", answer="Very well.", family="small talk")
        >>> len(Dialogue("greeting", (exchange,)).exchanges)
        1
    """

    id: str
    exchanges: tuple[Exchange, ...]
    language: str | None = None


class TextSource(Protocol):
    """What a source of dialogues does. Its methods are pure functions, so that any worker can make any dialogue."""

    def dialogue(self, split: Split, index: int, rng: np.random.Generator) -> Dialogue:
        """Dialogue `index` of a split; what is random in it is drawn from `rng`."""
        ...

    def agent_texts(self, count: int) -> list[str]:
        """Distinct sentences of the agent, from which a codec learns its voice; nothing that only dev has.

        Built-in dialogues: all answers of train and `count` sentences more. Files: at most `count` of their answers.
        """
        ...

    def language_of(self, agent_text: str) -> str | None:
        """The language of one of the `agent_texts`; None: the one of its script."""
        ...

    def describe(self) -> dict[str, Any]:
        """What `corpus.json` says about the source; `sha256` changes with its content."""
        ...


#: The longest turn (paper, section 4.1). It is measured when the turn is spoken (`cuts.py`).
LONGEST_TURN: Seconds = 25.0
#: Reason of a dialogue with a longer one.
TOO_LONG = f"a turn of over {LONGEST_TURN:g} s of speech"
TOO_LONG_CURE = "Split such turns into shorter ones."
# A turn of more letters and digits is too long in any voice, and is not spoken to find that out: a page takes the fastest voice
# of eSpeak 94 s, and the shortest syllables there are ("through through ...") 36 s.
_MOST_LETTERS = 1500
_NUM_MEASURED = 100  # dialogues that are spoken when a file is read: a second or two


class DialogueFiles:
    """Dialogues from files: JSON lines, or one JSON list. Each row is one of

        {"id": ..., "turns": [{"role": "user", "text": ...}, {"role": "agent", "text": ...}]}
        {"messages": [{"role": "user", "content": ...}, ...]}              ultrachat_200k, OpenAI, Anthropic
        {"conversations": [{"from": "human", "value": ...}, ...]}          ShareGPT
        {"contents": [{"role": "user", "parts": [{"text": ...}]}, ...]}    Gemini
        {"id": ..., "data": ["user text", "agent text", ...]}              UltraChat
        {"instruction": ..., "input": ..., "output": ...}                  Alpaca

    System messages before the first turn and the use of tools are left out of a dialogue. A row with anything else that is
    unusual is left out as a whole, counted by its reason, and named in `describe()`.
    Every tenth dialogue by the hash of its id is kept for dev. Dialogue `index` of a split is row `index` modulo their number.

    Args:
        paths: of the files.
        max_odd_rows: largest share of all rows that may be left out, 0 to 1.
        cannot_say: called with every text and its language; what it returns is why no voice can say it, or None. So a row is
            left out.
        too_long: called with the speaker, text and language of the first 100 dialogues, dev's before train's; what it returns
            is why no voice says it in 25 s, or None. So a short file has no dialogue that cannot be used, and no split of such
            dialogues alone; in a long one, a dialogue with a long turn is found when it is spoken (`cuts.py`).
        language: of rows that do not name theirs (`language` or `lang`); None: the one of the script.

    Raises:
        InputError: if a file is missing, empty, not JSON or without a usable row, if more rows than allowed are left out, or
            there are fewer than two dialogues.

    Examples:
        >>> from pathlib import Path
        >>> rows = ['{"instruction": "Say one.", "output": "One."}', '{"data": ["Say two.", "Two."]}']
        >>> _ = Path("dialogues.jsonl").write_text(chr(10).join(rows))
        >>> DialogueFiles(["dialogues.jsonl"]).describe()["dialogues"]
        {'dev': 1, 'train': 1}
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        max_odd_rows: float = 0.5,
        cannot_say: Callable[[str, str | None], OddRow | None] | None = None,
        too_long: Callable[[Speaker, str, str | None], OddRow | None] | None = None,
        language: str | None = None,
    ) -> None:
        self._paths = [existing_file(path, "source") for path in paths]
        self._cannot_say, self._language = cannot_say, language
        self._odd = OddRows()
        self._taken_out: Counter[str] = Counter()
        self._places: dict[str, str] = {}
        dialogues: dict[str, Dialogue] = {}
        for path in self._paths:
            self._read(path, dialogues)
        self._odd.check("source", len(dialogues), max_odd_rows, "max_odd_rows")
        if too_long is not None:
            self._measure(dialogues, too_long, max_odd_rows)
        if len(dialogues) < 2:
            raise InputError(
                f"source: 1 dialogue in {', '.join(map(str, self._paths))}; train and dev need at least two. "
                f"{self._odd.most_frequent()}"
            )
        order = sorted(dialogues.values(), key=_order)
        num_dev = max(1, len(order) // 10)
        self._splits: dict[str, list[Dialogue]] = {"dev": order[:num_dev], "train": order[num_dev:]}
        self._seen = {exchange.user for dialogue in self._splits["train"] for exchange in dialogue.exchanges}

    def _read(self, path: Path, dialogues: dict[str, Dialogue]) -> None:
        """Adds the dialogues of a file to those of the files before it."""
        names = [other.name for other in set(self._paths)]
        prefix = path.name if names.count(path.name) == 1 else path.resolve().as_posix()
        odd, before = OddRows(), len(dialogues)
        rows = json_rows(path, "source")
        in_a_worker = parent_process() is not None
        for row in tqdm(rows, desc=f"Reading {path}", unit=" rows", delay=2, leave=False, disable=in_a_worker):
            inside = rows_inside(row.value)
            for position, value in enumerate(inside, start=1):
                number = f"{row.number}.{position}" if len(inside) > 1 else str(row.number)
                own = dialogue_id(value)
                name = own or f"{prefix}:{number}"
                place = f"{path}:{row.line}" + (f" (dialogue {own})" if own else "")
                try:
                    if row.odd is not None:
                        raise row.odd
                    if name in dialogues:
                        raise OddRow("an id that occurs twice", cure="Give every dialogue an id of its own, or none of them.")
                    language = dialogue_language(value) or self._language
                    dialogues[name] = Dialogue(name, self._exchanges(value, language), language)
                    self._places[name] = place
                except OddRow as reason:
                    odd.add(reason, place)
        if not odd and len(dialogues) == before:
            raise InputError(f"source: {path} holds no rows. Give a file of JSON lines.")
        odd.check(f"source: {path}", len(dialogues) - before, most=1.0, key="max_odd_rows")
        self._odd.update(odd)

    def _measure(
        self,
        dialogues: dict[str, Dialogue],
        too_long: Callable[[Speaker, str, str | None], OddRow | None],
        max_odd_rows: float,
    ) -> None:
        """Removes the dialogues that are too long from the first ones."""
        odd = OddRows()
        first = sorted(dialogues.values(), key=_order)[:_NUM_MEASURED]
        for dialogue in first:
            turns = [turn for e in dialogue.exchanges for turn in (("user", e.user), ("agent", e.agent))]
            reasons = (too_long(cast(Speaker, speaker), text, dialogue.language) for speaker, text in turns)
            if (reason := next(filter(None, reasons), None)) is not None:
                odd.add(reason, self._places[dialogue.id])
                del dialogues[dialogue.id]
        odd.check("source", len(first) - len(odd), max_odd_rows, "max_odd_rows")
        self._odd.update(odd)

    def _exchanges(self, row: Any, language: str | None) -> tuple[Exchange, ...]:
        pairs = spoken_turns(row)
        for speech in itertools.chain(*pairs):
            if (letters := sum(map(str.isalnum, speech.text))) > _MOST_LETTERS:
                detail = f"{letters} letters and digits: {speech.text[:40]!r} ..."
                raise OddRow(TOO_LONG, detail, TOO_LONG_CURE)
            if self._cannot_say is not None and (reason := self._cannot_say(speech.text, language)):
                raise reason
        self._taken_out.update(kind for speech in itertools.chain(*pairs) for kind in speech.taken_out)
        return tuple(Exchange(user.text, agent.text, agent.text, "imported") for user, agent in pairs)

    def dialogue(self, split: Split, index: int, rng: np.random.Generator) -> Dialogue:
        dialogues = self._splits[split]
        found = dialogues[index % len(dialogues)]
        exchanges = tuple(Exchange(e.user, e.agent, e.answer, e.family, e.user in self._seen) for e in found.exchanges)
        return Dialogue(found.id, exchanges, found.language)

    @cached_property
    def _agent_languages(self) -> dict[str, str | None]:
        return {exchange.agent: dialogue.language for dialogue in self._splits["train"] for exchange in dialogue.exchanges}

    def agent_texts(self, count: int) -> list[str]:
        return sorted(self._agent_languages, key=_digest)[:count]

    def language_of(self, agent_text: str) -> str | None:
        return self._agent_languages[agent_text]

    def describe(self) -> dict[str, Any]:
        """What `corpus.json` says. Where something is left out, `sha256` changes with what is left, too."""
        digests = [sha256(path) for path in self._paths]
        if self._odd or self._taken_out:
            digests.append(hashlib.sha256(repr(self._splits).encode()).hexdigest())
        return {
            "kind": "files",
            "files": [str(path) for path in self._paths],
            "sha256": digests,
            "dialogues": {split: len(found) for split, found in self._splits.items()},
            "left_out": self._odd.describe(),
            "taken_out": dict(self._taken_out.most_common()),
        }

    def summary(self) -> list[str]:
        """What was imported and what was not, as lines to print."""
        num_usable = sum(len(dialogues) for dialogues in self._splits.values())
        lines = [f"source: {num_usable} dialogues; rows left out: {len(self._odd)}"]
        lines += [f"  {found['count']} x {reason}: {found['first'][0]}" for reason, found in self._odd.describe().items()]
        if self._taken_out:
            counts = ", ".join(f"{kind} ({count})" for kind, count in self._taken_out.most_common())
            lines.append(f"  taken out of turns, because nobody says it: {counts}")
        return lines


def _order(dialogue: Dialogue) -> int:
    return _digest(dialogue.id)


def _digest(text: str) -> int:
    return int(hashlib.md5(text.encode()).hexdigest(), 16)
