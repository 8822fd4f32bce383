"""The items of a conversation in OpenAI Realtime: what the user said, what the agent said, what the client put in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nemo_duplex.serving.protocols.realtime.client_events import EventError, wrong_type

#: Items that are kept; the oldest ones are forgotten.
MOST_ITEMS = 1000
# Text of an item that a client puts in which is kept, in characters; images and sounds are not.
_MOST_TEXT = 20_000
# The type of a content part by the role of the item, whatever name of it an older client uses.
_PARTS = {
    "user": {"text": "input_text", "audio": "input_audio", "image": "input_image"},
    "assistant": {"text": "output_text", "audio": "output_audio"},
    "system": {"text": "input_text"},
}
_KINDS = {
    **dict.fromkeys(("text", "input_text", "output_text"), "text"),
    **dict.fromkeys(("audio", "input_audio", "output_audio"), "audio"),
    "input_image": "image",
}
_STRINGS = {"function_call": ("call_id", "name", "arguments"), "function_call_output": ("call_id", "output")}


class ConversationItems:
    """The items in their order.

    Attributes:
        pieces: of the agent's items: the text in pieces, each with the frame of the turn in which it was sent.

    Examples:
        >>> items = ConversationItems()
        >>> items.add({"id": "a"}), items.add({"id": "b"}), items.add({"id": "c"}, after="a")
        (None, 'a', 'a')
        >>> list(items)
        ['a', 'c', 'b']
    """

    def __init__(self) -> None:
        self._items: dict[str, dict[str, Any]] = {}
        self._order: list[str] = []
        self.pieces: dict[str, list[tuple[int, str]]] = {}

    def __iter__(self):
        return iter(self._order)

    def __contains__(self, id: str) -> bool:
        return id in self._items

    def __getitem__(self, id: str) -> dict[str, Any]:
        return self._items[id]

    @property
    def last(self) -> str | None:
        """The id of the last one."""
        return self._order[-1] if self._order else None

    def before(self, id: str) -> str | None:
        """The id of the item before this one; None for the first."""
        place = self._order.index(id)
        return self._order[place - 1] if place else None

    def add(self, item: dict[str, Any], after: str | None = None) -> str | None:
        """Adds an item, and returns the id of the one before it.

        Args:
            item: with its id.
            after: the id of an item, or "root" to be the first; None: to be the last.

        Raises:
            EventError: if the id is taken, or there is no item `after`.
        """
        if item["id"] in self._items:
            told = f"Error adding item: an item with id '{item['id']}' already exists."
            raise EventError("item_create_duplicate_item_id", told, "item.id")
        if after not in (None, "root") and after not in self._items:
            told = f"Error adding item: the previous item with id '{after}' does not exist."
            raise EventError("item_create_invalid_previous_item_id", told, "previous_item_id")
        place = len(self._order) if after is None else 0 if after == "root" else self._order.index(after) + 1
        self._order.insert(place, item["id"])
        self._items[item["id"]] = item
        if len(self._order) > MOST_ITEMS:
            oldest = self._order[1 if place == 0 else 0]
            self.delete(oldest)
        return self.before(item["id"])

    def find(self, id: str, doing: str) -> dict[str, Any]:
        """The item.

        Raises:
            EventError: if there is none; `doing` is "retrieve", "delete" or "truncate".
        """
        if id not in self._items:
            told = f"Error: the item with id '{id[:80]}' does not exist, so the server cannot {doing} it."
            raise EventError(f"item_{doing}_invalid_item_id", told, "item_id")
        return self._items[id]

    def delete(self, id: str) -> None:
        """Removes an item that there is."""
        del self._items[id]
        self.pieces.pop(id, None)
        self._order.remove(id)


def client_item(given: dict[str, Any], new_id: Callable[[], str]) -> dict[str, Any]:
    """An item that a client puts in, complete and with the names of today; sound is left out of it.

    Args:
        given: the `item` of the event.
        new_id: makes an id, if it has none.

    Raises:
        EventError: if it is none.
    """
    kind = given.get("type") or "message"
    if kind not in ("message", *_STRINGS):
        expected = ", ".join(("message", *_STRINGS))
        raise EventError(
            "invalid_value", f"Invalid value for 'item.type': {str(kind)[:80]!r}. Expected {expected}.", "item.type"
        )
    id = given.get("id")
    if id is not None and (not isinstance(id, str) or not id):
        raise wrong_type("item.id", str, id)
    item: dict[str, Any] = {"id": id or new_id(), "object": "realtime.item", "type": kind, "status": "completed"}
    if kind == "message":
        role = "system" if given.get("role") == "developer" else given.get("role")
        if not isinstance(role, str) or role not in _PARTS:
            told = f"Invalid value for 'item.role': {str(role)[:80]!r}. Expected {', '.join(_PARTS)}."
            raise EventError("invalid_value", told, "item.role")
        content = given.get("content") or []
        if not isinstance(content, list):
            raise wrong_type("item.content", list, content)
        return item | {"role": role, "content": [_part(part, role) for part in content]}
    for name in _STRINGS[kind]:
        value = given.get(name)
        if value is None and name == "call_id" and kind == "function_call":
            value = f"call_{item['id']}"
        if not isinstance(value, str):
            missing = EventError("missing_required_parameter", f"Missing required parameter: 'item.{name}'.", f"item.{name}")
            raise missing if value is None else wrong_type(f"item.{name}", str, value)
        item[name] = value
    return item


def _part(part: Any, role: str) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise wrong_type("item.content", dict, part)
    kind = _KINDS.get(part["type"]) if isinstance(part.get("type"), str) else None
    if kind not in _PARTS[role]:
        expected = ", ".join(_PARTS[role].values())
        told = f"Invalid value for 'item.content.type': {str(part.get('type'))[:80]!r}. Expected {expected}."
        raise EventError("invalid_value", told, "item.content")
    for name in ("text", "transcript", "image_url", "detail", "audio"):
        if part.get(name) is not None and not isinstance(part[name], str):
            raise wrong_type(f"item.content.{name}", str, part[name])
    kept = {"text": ("text",), "audio": ("transcript",), "image": ("image_url", "detail")}[kind]
    return {"type": _PARTS[role][kind]} | {name: part[name] for name in kept if part.get(name) is not None}


def kept(item: dict[str, Any]) -> dict[str, Any]:
    """What of a client's item is kept: without images, and with the beginning of a long text."""
    item = {name: value[:_MOST_TEXT] if isinstance(value, str) else value for name, value in item.items()}
    if "content" in item:
        item["content"] = [
            {name: value[:_MOST_TEXT] for name, value in part.items() if name != "image_url"} for part in item["content"]
        ]
    return item


def user_item(id: str) -> dict[str, Any]:
    """What the user said; there is no transcript of it."""
    content = [{"type": "input_audio", "transcript": None}]
    return {"id": id, "object": "realtime.item", "type": "message", "status": "completed", "role": "user", "content": content}
