"""Dialogues in rows of JSON, in the forms that people's files have; why a row is none."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.synthesis.text.marco_rows import is_marco, marco_answer, marco_question
from nemo_duplex.synthesis.text.markup import TOO_MANY
from nemo_duplex.synthesis.text.speakable import TOOL_CALL, Speakable, speakable

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
# Keys of a question and of its answer; others are read if they are named (`form`).
_PAIRS = (("instruction", "output"), ("question", "answer"))
_NO_INPUT = ("none", "n/a", "noinput", "<noinput>", "no input")  # how Alpaca's `input` says that there is none
_SPLITS = ("train", "validation", "valid", "dev", "eval", "test")
# Where a turn holds what is seen beside its text (Ollama, an export of Claude). A sound may be of the text itself.
_ATTACHED = ("image", "images", "video", "videos", "files", "attachments")

_EXPECTED = (
    "Name the key of its turns, or those of a question and its answer, such as text.form=prompt/completion "
    "(docs/tutorials/own-text.md)."
)
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
    audio: Any = None


def rows_inside(value: Any, form: str | None = None) -> list[Any]:
    """The rows of an object that holds all rows of a file; any other value is one row.

    Its lists of rows have any names: `{"data": [{"messages": ...}, ...]}`, `{"train": [...], "test": [...]}`.

    Args:
        value: of a file.
        form: as for `spoken_turns`.
    """
    if not isinstance(value, dict) or _is_row(value, form) or _has_turn(value.get(_key_of_turns(value, form) or "")):
        return [value]
    lists = {key: [_unpacked(row) for row in rows] for key, rows in value.items() if isinstance(rows, list)}
    if not any(_has_dialogue(rows, form) for rows in lists.values()):
        return [value]
    return [row for key, rows in lists.items() if key in _SPLITS or _has_dialogue(rows, form) for row in rows]


def _is_row(value: dict[str, Any], form: str | None) -> bool:
    return bool(_pair_of(value, form)) or (form in (None, "query") and is_marco(value))


def _has_dialogue(rows: list[Any], form: str | None) -> bool:
    return any(isinstance(row, dict) and (_key_of_turns(row, form) or _is_row(row, form)) for row in rows)


def _has_turn(turns: Any) -> bool:
    return isinstance(turns, list) and any(
        isinstance(turn, str) or (isinstance(turn, dict) and any(key in turn for key in _ROLE_KEYS)) for turn in turns
    )


def dialogue_id(row: Any) -> str | None:
    """The id that a row brings; None if it has none."""
    for key in ("id", "prompt_id", "query_id"):
        if isinstance(row, dict) and isinstance(row.get(key), str | int | float) and row[key] != "":
            return str(row[key]).encode(errors="replace").decode()
    return None


def dialogue_language(row: Any) -> str | None:
    """The language that a row names, as it writes it (`de`, `German`); None if it names none."""
    for key in ("language", "lang"):
        if isinstance(row, dict) and isinstance(row.get(key), str) and row[key].strip():
            return row[key]
    return None


def dialogue_label(row: Any, key: str) -> str | None:
    """What a row says about itself under `key`, such as the name of its data set under `source`; None if nothing."""
    found = row.get(key) if isinstance(row, dict) else None
    return found if isinstance(found, str) and found.strip() else None


def spoken_turns(
    row: Any, form: str | None = None, context: bool = False, allowed: Collection[str] = ()
) -> list[tuple[Speakable, Speakable]]:
    """What is said in a row: a user turn and the agent's answer, as often as it has them.

    System messages before the first turn are left out; so are calls of tools and what tools return. What the agent says before
    and after such a call is one turn.

    Args:
        row: of a file.
        form: the key of its turns, or both of a question and its answer (`prompt/completion`); None: found by the row.
        context: whether the user of a row of MS MARCO says the passage with the answer, too.
        allowed: as for `speakable`.

    Raises:
        OddRow: if the row is no dialogue, a turn cannot be spoken, or the turns do not alternate from user to agent.
    """
    said: list[tuple[str, Speakable]] = []  # by whom
    tool_was_used = False
    for turn in _turns(row, form, context):
        role, where = _role(turn), f"turn {turn.place}"
        if role == _SYSTEM:
            if said:
                raise OddRow("a system message after the first turn", where, "Remove the message from the file.")
            continue
        speech = replace(speakable(turn.content, allowed), audio=turn.audio)
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


def _turns(row: Any, form: str | None, context: bool) -> Iterator[_Turn]:
    if not isinstance(row, dict):
        raise OddRow("a row that is no object", f"it is {_shown(row)}", _IN_OBJECT if isinstance(row, list) else _EXPECTED)
    if form in (None, "query") and is_marco(row):
        yield _Turn(1, _USER, marco_question(row, context))
        yield _Turn(2, _AGENT, marco_answer(row))
        return
    pair, key = _pair_of(row, form), _key_of_turns(row, form)
    keys = pair or ((key,) if key else tuple(_FORMS))
    if by_column := next((key for key in keys if _is_column(row.get(key), bool(pair))), None):
        raise OddRow("a table by columns, not by rows", f"'{by_column}' is {_shown(row[by_column])}", _BY_ROW)
    if pair:
        parts = (pair[0], "input") if pair[0] == "instruction" else pair[:1]
        asked = [row[key] for key in parts if str(row.get(key)).strip().lower() not in _NO_INPUT]
        for place, content in enumerate([*_history(row), asked, row[pair[1]]], start=1):
            yield _Turn(place, _by_turns(place), content)
        return
    if key is None:
        cure = _AS_LIST if row.keys() & _FORMS.keys() else _EXPECTED
        raise OddRow("no dialogue in the row", f"its keys are {_shown(', '.join(sorted(row)))}", cure)
    for place, turn in enumerate(row[key], start=1):
        yield _turn(turn, key, place)


def _is_column(value: Any, of_pair: bool) -> bool:
    """Whether it holds one key of many rows: of pandas (by default `{"0": ..., "1": ...}`), or of `Dataset.to_dict()`."""
    cell = (str, list) if of_pair else list
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
    text_keys = [key for key in (_FORMS.get(key, "content"), *_TEXT_KEYS) if key in given]
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
    audio = given.get("audio") if key == "turns" else None
    return _Turn(place, given[role_key], content, calls_tool, given.get("weight"), audio)


def _role(turn: _Turn) -> str:
    name = str(turn.speaker).strip().lower()
    role = next((role for role, names in _ROLES.items() if name in names), None)
    if role is None:
        cure = "Call the speakers 'user' and 'agent' (or 'assistant')."
        raise OddRow("a role that is not known", f"turn {turn.place} is by {_shown(turn.speaker)}", cure)
    return role


def _key_of_turns(row: dict[str, Any], form: str | None) -> str | None:
    return next((key for key in (_FORMS if form is None else (form,)) if isinstance(row.get(key), list)), None)


def _pair_of(row: dict[str, Any], form: str | None) -> tuple[str, str] | None:
    """The keys of a question and its answer in a row; None if it has none."""
    named = tuple((form or "").split("/", 1))
    pairs = [(named[0], named[1])] if len(named) == 2 else [pair for pair in _PAIRS if form in (None, pair[0])]
    return next((pair for pair in pairs if pair[0] in row and pair[1] in row), None)


def _unpacked(row: Any) -> Any:
    """A row as the dataset viewer writes it is inside an object of its own."""
    return row["row"] if isinstance(row, dict) and "row_idx" in row and "row" in row else row


def _shown(value: Any) -> str:
    return repr(value[:50] if isinstance(value, str | list) else value)[:60]
