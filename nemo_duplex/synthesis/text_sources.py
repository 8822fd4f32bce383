"""Where dialogues come from: the built-in grammar, or files of dialogues.

A source is a `TextSource`. It gives text only: exchanges of one user turn and one agent turn, in order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from nemo_duplex.inputs import InputError, existing_file

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
    """Exchanges in order; the id names the dialogue in its source, in cuts and in errors.

    Examples:
        >>> exchange = Exchange("How are you?", "Very well.", answer="Very well.", family="small talk")
        >>> len(Dialogue("greeting", (exchange,)).exchanges)
        1
    """

    id: str
    exchanges: tuple[Exchange, ...]


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

    def describe(self) -> dict[str, Any]:
        """What `corpus.json` says about the source; `sha256` changes with its content."""
        ...


_USER_ROLES = {"user", "human", "prompter"}
_AGENT_ROLES = {"agent", "assistant", "gpt", "chatgpt", "bot", "model"}
_MAX_CHARACTERS = 420  # 25 s of speech, the longest turn of the paper (section 4.1)


class DialogueFiles:
    """Dialogues from files: JSON lines, or one JSON list. Each row is one of

        {"id": ..., "turns": [{"role": "user", "text": ...}, {"role": "agent", "text": ...}]}
        {"messages": [{"role": "user", "content": ...}, ...]}              ultrachat_200k, OpenAI
        {"conversations": [{"from": "human", "value": ...}, ...]}          ShareGPT
        {"id": ..., "data": ["user text", "agent text", ...]}              UltraChat
        {"instruction": ..., "input": ..., "output": ...}                  Alpaca

    A system message before the first turn is left out; anything else that is unusual is an error that names the row.
    Every tenth dialogue by the hash of its id is kept for dev. Dialogue `index` of a split is row `index` modulo their number.

    Raises:
        InputError: if a file is missing, empty or not readable as above, an id occurs twice, turns do not alternate from user
            to agent, a turn is empty or longer than 25 s of speech, or there are fewer than two dialogues.

    Examples:
        >>> from pathlib import Path
        >>> rows = ['{"instruction": "Say one.", "output": "One."}', '{"data": ["Say two.", "Two."]}']
        >>> _ = Path("dialogues.jsonl").write_text(chr(10).join(rows))
        >>> DialogueFiles(["dialogues.jsonl"]).describe()["dialogues"]
        {'dev': 1, 'train': 1}
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._paths = [existing_file(path, "source") for path in paths]
        dialogues: dict[str, Dialogue] = {}
        for path in self._paths:
            for number, row in _rows(path):
                dialogue = _dialogue(row, path, number)
                if dialogue.id in dialogues:
                    raise InputError(f"{path}:{number}: the id {dialogue.id!r} occurs twice. Give every dialogue its own id.")
                dialogues[dialogue.id] = dialogue
        if len(dialogues) < 2:
            raise InputError(f"source: {len(dialogues)} dialogue in {len(self._paths)} file; train and dev need at least two.")
        order = sorted(dialogues.values(), key=lambda d: _digest(d.id))
        num_dev = max(1, len(order) // 10)
        self._splits: dict[str, list[Dialogue]] = {"dev": order[:num_dev], "train": order[num_dev:]}
        self._seen = {exchange.user for dialogue in self._splits["train"] for exchange in dialogue.exchanges}

    def dialogue(self, split: Split, index: int, rng: np.random.Generator) -> Dialogue:
        dialogues = self._splits[split]
        found = dialogues[index % len(dialogues)]
        exchanges = tuple(Exchange(e.user, e.agent, e.answer, e.family, e.user in self._seen) for e in found.exchanges)
        return Dialogue(found.id, exchanges)

    def agent_texts(self, count: int) -> list[str]:
        texts = {exchange.agent for dialogue in self._splits["train"] for exchange in dialogue.exchanges}
        return sorted(texts, key=_digest)[:count]

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "files",
            "files": [str(path) for path in self._paths],
            "sha256": [hashlib.sha256(path.read_bytes()).hexdigest() for path in self._paths],
            "dialogues": {split: len(found) for split, found in self._splits.items()},
        }


def _digest(text: str) -> int:
    return int(hashlib.md5(text.encode()).hexdigest(), 16)


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows of a JSON list or of JSON lines, with their number: of the row, or of the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"source: {path} is not UTF-8 text, expected JSON lines.") from None
    try:
        if text.lstrip().startswith("["):
            yield from enumerate(json.loads(text), start=1)
            return
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield number, json.loads(line)
    except json.JSONDecodeError as error:
        line_number = error.lineno if text.lstrip().startswith("[") else number
        raise InputError(f"{path}:{line_number}: not a row of JSON ({error.msg}).") from None


def _dialogue(row: Any, path: Path, number: int) -> Dialogue:
    if not isinstance(row, dict):
        raise InputError(f"{path}:{number}: expected an object with turns, got {type(row).__name__}.")
    name = str(row.get("id", row.get("prompt_id", f"{path.name}:{number}")))
    where = f"{path}:{number} (dialogue {name})"
    turns = _turns(row, where)
    if turns and turns[0][0] == "system":
        turns = turns[1:]
    if not turns or len(turns) % 2:
        raise InputError(f"{where}: {len(turns)} turns, expected pairs of a user turn and an agent turn.")
    for i, (role, text) in enumerate(turns):
        expected = ("user", "agent")[i % 2]
        if role != expected:
            raise InputError(f"{where}: turn {i + 1} is by {role!r}, expected {expected!r}: turns must alternate, user first.")
        if not any(character.isalnum() for character in text):
            raise InputError(f"{where}: turn {i + 1} has nothing to say ({text!r}).")
        if len(text) > _MAX_CHARACTERS:
            raise InputError(
                f"{where}: turn {i + 1} has {len(text)} characters, more than 25 s of speech; "
                f"shorten it to {_MAX_CHARACTERS} or leave the dialogue out."
            )
    pairs = zip(turns[::2], turns[1::2])
    return Dialogue(name, tuple(Exchange(user, agent, agent, "imported") for (_, user), (_, agent) in pairs))


def _turns(row: dict[str, Any], where: str) -> list[tuple[str, str]]:
    """(role, text) in order, with the roles user, agent and system."""
    if "instruction" in row and "output" in row:
        question = " ".join(str(row.get(key) or "").strip() for key in ("instruction", "input")).strip()
        return [("user", _clean(question)), ("agent", _clean(row["output"]))]
    for turns_key, role_key, text_key in (
        ("turns", "role", "text"),
        ("messages", "role", "content"),
        ("conversations", "from", "value"),
    ):
        if isinstance(row.get(turns_key), list):
            return [_turn(turn, role_key, text_key, where, i) for i, turn in enumerate(row[turns_key])]
    if isinstance(row.get("data"), list):
        return [(("user", "agent")[i % 2], _clean(text)) for i, text in enumerate(row["data"])]
    raise InputError(
        f"{where}: no dialogue in a row with the keys {', '.join(sorted(row)) or '(none)'}; "
        "expected 'turns', 'messages', 'conversations', 'data', or 'instruction' and 'output'."
    )


def _turn(turn: Any, role_key: str, text_key: str, where: str, number: int) -> tuple[str, str]:
    if not isinstance(turn, dict) or role_key not in turn or text_key not in turn:
        given = str(turn)[:60]
        raise InputError(f"{where}: turn {number + 1} is {given!r}, expected an object with {role_key!r} and {text_key!r}.")
    role = str(turn[role_key]).lower()
    if role in _USER_ROLES:
        role = "user"
    elif role in _AGENT_ROLES:
        role = "agent"
    elif role != "system":
        raise InputError(f"{where}: turn {number + 1} has the role {role!r}, expected 'user' or 'agent' (or 'assistant').")
    return role, _clean(turn[text_key])


def _clean(text: Any) -> str:
    return " ".join(str(text or "").split())
