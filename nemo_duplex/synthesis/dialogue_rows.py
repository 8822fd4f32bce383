"""Dialogues in rows of JSON, in the forms that people's files have; why a row is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.synthesis.speakable import TOOL_CALL, Speakable, speakable

_USER, _AGENT, _SYSTEM, _TOOL = "user", "agent", "system", "tool"
_ROLES = {
    _USER: {"user", "human", "prompter"},
    _AGENT: {"agent", "assistant", "gpt", "chatgpt", "bing", "bard", "bot", "chatbot", "model", "ai"},
    _SYSTEM: {"system", "developer"},
    _TOOL: {
        "tool",
        "tools",
        "tool_call",
        "tool_calls",
        "tool_response",
        "tool_result",
        "tool_results",
        "ipython",
        "observation",
    }
    | {"function", "function_call", "function_response", "function_result"},
}
_ROLE_KEYS = ("role", "from", "speaker")
_TEXT_KEYS = ("content", "value", "text", "parts")
_FORMS = {"turns": "text", "messages": "content", "conversations": "value", "contents": "parts", "data": "text"}
_PAIR = ("instruction", "output")
# Where exporters put all rows of a file into one object: Hugging Face's dataset viewer ("rows"), pandas ("data"), own scripts.
_CONTAINERS = ("data", "rows", "dialogues", "conversations", "examples", "items", "records", "train")

_EXPECTED = "Rename its keys to 'messages', or to 'instruction' and 'output', or convert it (docs/tutorials/own-text.md)."
_ALTERNATE = "Let the turns alternate, user first and agent last."
_WORDS = "Write these turns in words, as people say them."


@dataclass(frozen=True)
class _Turn:
    place: int  # in its row, from 1
    speaker: Any
    content: Any
    calls_tool: bool = False
    weight: Any = None


def rows_inside(value: Any) -> list[Any]:
    """The rows of an object that holds all rows of a file, `{"data": [{"messages": ...}, ...]}`; any other value is one row."""
    if isinstance(value, dict):
        for key in _CONTAINERS:
            rows = [_unpacked(row) for row in value[key]] if isinstance(value.get(key), list) else []
            if any(isinstance(row, dict) and (_key_of_turns(row) or _is_pair(row)) for row in rows):
                return rows
    return [value]


def dialogue_id(row: Any) -> str | None:
    """The id that a row brings; None if it has none."""
    for key in ("id", "prompt_id"):
        if isinstance(row, dict) and isinstance(row.get(key), str | int | float) and row[key] != "":
            return str(row[key]).encode(errors="replace").decode()
    return None


def dialogue_language(row: Any) -> str | None:
    """The language that a row names, as it writes it (`de`, `German`); None if it names none."""
    for key in ("language", "lang"):
        if isinstance(row, dict) and isinstance(row.get(key), str) and row[key].strip():
            return row[key]
    return None


def spoken_turns(row: Any) -> list[tuple[Speakable, Speakable]]:
    """What is said in a row: a user turn and the agent's answer, as often as it has them.

    System messages before the first turn are left out; so are calls of tools and what tools return. What the agent says before
    and after such a call is one turn.

    Raises:
        OddRow: if the row is no dialogue, a turn cannot be spoken, or the turns do not alternate from user to agent.
    """
    said: list[tuple[str, Speakable]] = []  # by whom
    tool_was_used = False
    for turn in _turns(row):
        role, where = _role(turn), f"turn {turn.place}"
        if role == _SYSTEM:
            if said:
                raise OddRow("a system message after the first turn", where, "Remove the message from the file.")
            continue
        speech = speakable(turn.content)
        if role == _TOOL or speech.reason == TOOL_CALL or (turn.calls_tool and not speech.text):
            tool_was_used = True
            continue
        if not speech.text:
            raise OddRow(speech.reason, f"{where} is {_shown(turn.content)}", _WORDS)
        if role == _AGENT and turn.weight == 0:
            raise OddRow("an agent turn of weight 0: not to be learned", where, "Remove the key 'weight' to learn these too.")
        if said and role == _AGENT == said[-1][0] and tool_was_used:
            said[-1] = (_AGENT, said[-1][1] + speech)
        elif said and role == said[-1][0]:
            raise OddRow("two turns of one speaker in a row", f"{where} is by {turn.speaker!r} again", _ALTERNATE)
        elif not said and role == _AGENT:
            raise OddRow("the agent speaks first", f"{where} is by {turn.speaker!r}", _ALTERNATE)
        else:
            said.append((role, speech))
        tool_was_used = False
    if not said:
        raise OddRow("no turns", cure=_ALTERNATE)
    if said[-1][0] == _USER:
        raise OddRow("no answer to the last user turn", f"it is {_shown(said[-1][1].text)}", _ALTERNATE)
    turns = [speech for _, speech in said]
    return list(zip(turns[::2], turns[1::2]))


def _turns(row: Any) -> Iterator[_Turn]:
    if not isinstance(row, dict):
        raise OddRow("a row that is no object", f"it is {_shown(row)}", _EXPECTED)
    if _is_pair(row):
        yield _Turn(1, "user", [row[key] for key in ("instruction", "input") if row.get(key) is not None])
        yield _Turn(2, "agent", row["output"])
        return
    key = _key_of_turns(row)
    if key is None:
        raise OddRow("no dialogue in the row", f"its keys are {_shown(', '.join(sorted(row)))}", _EXPECTED)
    for place, turn in enumerate(row[key], start=1):
        yield _turn(turn, key, place)


def _turn(turn: Any, key: str, place: int) -> _Turn:
    if key == "data" and not isinstance(turn, dict):
        return _Turn(place, (_AGENT, _USER)[place % 2], turn)
    given = turn if isinstance(turn, dict) else {}
    role_key = next((key for key in _ROLE_KEYS if key in given), None)
    text_key = next((key for key in (_FORMS[key], *_TEXT_KEYS) if key in given), None)
    calls_tool = bool(given.get("tool_calls") or given.get("function_call"))
    if role_key is None or (text_key is None and not calls_tool):
        raise OddRow("a turn that is no object with a role and a text", f"turn {place} is {_shown(turn)}", _EXPECTED)
    content = given[text_key] if text_key else None
    if content is None and isinstance(given.get("refusal"), str):  # OpenAI: what the model says instead
        content = given["refusal"]
    return _Turn(place, given[role_key], content, calls_tool, given.get("weight"))


def _role(turn: _Turn) -> str:
    name = str(turn.speaker).strip().lower()
    role = next((role for role, names in _ROLES.items() if name in names), None)
    if role is None:
        cure = "Call the speakers 'user' and 'agent' (or 'assistant')."
        raise OddRow("a role that is not known", f"turn {turn.place} is by {_shown(turn.speaker)}", cure)
    return role


def _key_of_turns(row: dict[str, Any]) -> str | None:
    return next((key for key in _FORMS if isinstance(row.get(key), list)), None)


def _is_pair(row: dict[str, Any]) -> bool:
    return all(key in row for key in _PAIR)


def _unpacked(row: Any) -> Any:
    """A row as the dataset viewer writes it is inside an object of its own."""
    return row["row"] if isinstance(row, dict) and "row_idx" in row and "row" in row else row


def _shown(value: Any) -> str:
    return repr(value[:50] if isinstance(value, str | list) else value)[:60]
