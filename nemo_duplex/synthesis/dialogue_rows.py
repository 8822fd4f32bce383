"""Dialogues in rows of JSON, in the forms that people's files have; why a row is none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.synthesis.markup import TOO_MANY
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
_ROLE_KEYS = ("role", "from", "speaker", "sender")
_TEXT_KEYS = ("content", "value", "text", "parts")
_FORMS = {
    "turns": "text",
    "messages": "content",
    "conversations": "value",
    "conversation": "content",  # LMSYS, WildChat
    "chat_messages": "text",  # an export of Claude
    "contents": "parts",
    "data": "text",
}
_PAIR = ("instruction", "output")
_NO_INPUT = ("none", "n/a", "noinput", "<noinput>", "no input")  # how Alpaca's `input` says that there is none
_SPLITS = ("train", "validation", "valid", "dev", "eval", "test")
# Where a turn holds what is seen beside its text (Ollama, an export of Claude). A sound may be of the text itself.
_ATTACHED = ("image", "images", "video", "videos", "files", "attachments")

_EXPECTED = "Rename its keys to 'messages', or to 'instruction' and 'output', or convert it (docs/tutorials/own-text.md)."
_ALTERNATE = "Let the turns alternate, user first and agent last."
_WORDS = "Write these turns in words, as people say them."
_SHORTER = "Split such turns into shorter ones."
_BY_ROW = "Write an object for each row (in pandas: `to_json(path, orient='records', lines=True)`)."
_IN_OBJECT = 'Write a list of texts as {"data": [...]}, a list of messages as {"messages": [...]}.'
_AS_LIST = "Write the turns as a list of objects, each with the keys 'role' and 'content'."


@dataclass(frozen=True)
class _Turn:
    place: int  # in its row, from 1
    speaker: Any
    content: Any
    calls_tool: bool = False
    weight: Any = None


def rows_inside(value: Any) -> list[Any]:
    """The rows of an object that holds all rows of a file; any other value is one row.

    Its lists of rows have any names: `{"data": [{"messages": ...}, ...]}`, `{"train": [...], "test": [...]}`.
    """
    if not isinstance(value, dict) or _is_pair(value) or _has_turn(value.get(_key_of_turns(value) or "")):
        return [value]
    lists = {key: [_unpacked(row) for row in rows] for key, rows in value.items() if isinstance(rows, list)}
    if not any(_has_dialogue(rows) for rows in lists.values()):
        return [value]
    return [row for key, rows in lists.items() if key in _SPLITS or _has_dialogue(rows) for row in rows]


def _has_dialogue(rows: list[Any]) -> bool:
    return any(isinstance(row, dict) and (_key_of_turns(row) or _is_pair(row)) for row in rows)


def _has_turn(turns: Any) -> bool:
    return isinstance(turns, list) and any(
        isinstance(turn, str) or (isinstance(turn, dict) and any(key in turn for key in _ROLE_KEYS)) for turn in turns
    )


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
            raise OddRow(speech.reason, f"{where} is {_shown(turn.content)}", _SHORTER if speech.reason == TOO_MANY else _WORDS)
        if role == _AGENT and turn.weight == 0:
            raise OddRow("an agent turn of weight 0: not to be learned", where, "Remove the key 'weight' to learn these too.")
        if said and role == _AGENT == said[-1][0] and tool_was_used:
            said[-1] = (_AGENT, said[-1][1] + speech)
        elif said and role == said[-1][0]:
            silent = ", after a call of a tool alone" if tool_was_used else ""
            raise OddRow("two turns of one speaker in a row", f"{where} is by {turn.speaker!r} again{silent}", _ALTERNATE)
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
        raise OddRow("a row that is no object", f"it is {_shown(row)}", _IN_OBJECT if isinstance(row, list) else _EXPECTED)
    is_pair, key = _is_pair(row), _key_of_turns(row)
    keys = _PAIR if is_pair else (key,) if key else tuple(_FORMS)
    if by_column := next((key for key in keys if _is_column(key, row.get(key))), None):
        raise OddRow("a table by columns, not by rows", f"'{by_column}' is {_shown(row[by_column])}", _BY_ROW)
    if is_pair:
        asked = [row[key] for key in ("instruction", "input") if str(row.get(key)).strip().lower() not in _NO_INPUT]
        for place, content in enumerate([*_history(row), asked, row["output"]], start=1):
            yield _Turn(place, _by_turns(place), content)
        return
    if key is None:
        cure = _AS_LIST if row.keys() & _FORMS.keys() else _EXPECTED
        raise OddRow("no dialogue in the row", f"its keys are {_shown(', '.join(sorted(row)))}", cure)
    for place, turn in enumerate(row[key], start=1):
        yield _turn(turn, key, place)


def _is_column(key: str, value: Any) -> bool:
    """Whether it holds one key of many rows: of pandas (by default `{"0": ..., "1": ...}`), or of `Dataset.to_dict()`."""
    cell = (str, list) if key in _PAIR else list
    if isinstance(value, dict):
        return all(name.isdigit() and isinstance(inside, cell) for name, inside in value.items()) and bool(value)
    return isinstance(value, list) and any(isinstance(inside, cell) for inside in value)


def _history(row: dict[str, Any]) -> list[Any]:
    """What was said before (LLaMA-Factory): [[user text, agent text], ...]."""
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        cure = "Write it as a list of lists, each of a user text and an agent text."
        raise OddRow("a history that is no list of pairs", f"it is {_shown(history)}", cure)
    return list(itertools.chain(*history))


def _by_turns(place: int) -> str:
    return (_AGENT, _USER)[place % 2]


def _turn(turn: Any, key: str, place: int) -> _Turn:
    if key == "data" and not isinstance(turn, dict):
        return _Turn(place, _by_turns(place), turn)
    given = turn if isinstance(turn, dict) else {}
    role_key = next((key for key in _ROLE_KEYS if key in given), None)
    text_keys = [key for key in (_FORMS[key], *_TEXT_KEYS) if key in given]
    text_key = next((key for key in text_keys if given[key] is not None), next(iter(text_keys), None))
    calls_tool = bool(given.get("tool_calls") or given.get("function_call"))
    if role_key is None or (text_key is None and not calls_tool):
        raise OddRow("a turn that is no object with a role and a text", f"turn {place} is {_shown(turn)}", _AS_LIST)
    content = given[text_key] if text_key else None
    if content is None and isinstance(given.get("refusal"), str):  # OpenAI: what the model says instead
        content = given["refusal"]
    if attached := next((key for key in _ATTACHED if given.get(key)), None):
        content = [content, {"type": attached, attached: given[attached]}]
    elif given.get("type") not in (None, "message"):  # a turn is one part (NeMo's multimodal conversations)
        content = given
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
