"""The items of a conversation: their order, what clients put in, what is kept of it."""

import pytest

from nemo_duplex.serving.protocols.realtime.client_events import EventError
from nemo_duplex.serving.protocols.realtime.items import MOST_ITEMS, ConversationItems, client_item, kept
from tests.serving.protocols.realtime_schema import check_event


def made(item):
    item = client_item(item, lambda: "item_new")
    check_event({"type": "conversation.item.added", "event_id": "e", "previous_item_id": None, "item": item})
    return item


def test_items_are_placed():
    items = ConversationItems()
    assert [items.add({"id": "a"}), items.add({"id": "b"}), items.add({"id": "c"}, "root"), items.add({"id": "d"}, "a")] == [
        None,
        "a",
        None,
        "a",
    ]
    assert list(items) == ["c", "a", "d", "b"] and items.last == "b" and items.before("c") is None
    items.delete("b")
    assert items.last == "d" and "b" not in items
    for item, after, code in (("a", None, "item_create_duplicate_item_id"), ("e", "b", "item_create_invalid_previous_item_id")):
        with pytest.raises(EventError) as raised:
            items.add({"id": item}, after)
        assert raised.value.code == code
    assert list(items) == ["c", "a", "d"]


@pytest.mark.parametrize("doing", ["retrieve", "delete", "truncate"])
def test_an_item_that_is_not_there(doing):
    with pytest.raises(EventError) as raised:
        ConversationItems().find("item_x", doing)
    assert raised.value.code == f"item_{doing}_invalid_item_id" and "item_x" in raised.value.message


@pytest.mark.parametrize("after", [None, "root"])
def test_the_oldest_items_are_forgotten(after):
    items = ConversationItems()
    for number in range(MOST_ITEMS + 3):
        items.add({"id": f"item_{number}"})
        items.pieces[f"item_{number}"] = []
    assert len(list(items)) == len(items.pieces) == MOST_ITEMS and list(items)[0] == "item_3"
    assert items.add({"id": "new"}, after) == (None if after else f"item_{MOST_ITEMS + 2}")
    assert "new" in items and "item_3" not in items


def test_messages_of_every_role_and_every_age():
    assert made({"role": "user", "content": [{"type": "text", "text": "Hi"}]})["content"] == [
        {"type": "input_text", "text": "Hi"}
    ]
    assert (
        made({"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]})["id"]
        == "item_new"
    )
    assistant = made({"id": "mine", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hello"}]})
    assert assistant["content"] == [{"type": "output_text", "text": "Hello"}] and assistant["id"] == "mine"
    assert made({"role": "assistant", "content": [{"type": "audio", "transcript": "Hello"}]})["content"] == [
        {"type": "output_audio", "transcript": "Hello"}
    ]
    assert made({"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]})["role"] == "system"
    assert made({"role": "system"})["content"] == []
    sound = made({"role": "user", "content": [{"type": "input_audio", "audio": "AAAA", "transcript": None}]})
    assert sound["content"] == [{"type": "input_audio"}] and sound["status"] == "completed"


def test_function_calls_and_their_outputs():
    call = made({"id": "f", "type": "function_call", "name": "now", "arguments": "{}"})
    assert call["call_id"] == "call_f" and call["arguments"] == "{}"
    output = made({"type": "function_call_output", "call_id": "call_1", "output": "12:00"})
    assert (output["call_id"], output["output"]) == ("call_1", "12:00")


@pytest.mark.parametrize(
    "item, code, param",
    [
        ({"type": "reference"}, "invalid_value", "item.type"),
        ({"type": ["message"]}, "invalid_value", "item.type"),
        ({"id": 3, "role": "user"}, "invalid_type", "item.id"),
        ({}, "invalid_value", "item.role"),
        ({"role": "agent"}, "invalid_value", "item.role"),
        ({"role": "user", "content": {"type": "text"}}, "invalid_type", "item.content"),
        ({"role": "user", "content": ["Hi"]}, "invalid_type", "item.content"),
        ({"role": "user", "content": [{"type": {}}]}, "invalid_value", "item.content"),
        ({"role": "system", "content": [{"type": "input_audio"}]}, "invalid_value", "item.content"),
        ({"role": "user", "content": [{"type": "text", "text": 3}]}, "invalid_type", "item.content.text"),
        ({"type": "function_call_output", "output": "x"}, "missing_required_parameter", "item.call_id"),
        ({"type": "function_call", "name": 3, "arguments": ""}, "invalid_type", "item.name"),
    ],
)
def test_what_is_no_item(item, code, param):
    with pytest.raises(EventError) as raised:
        client_item(item, lambda: "item_new")
    assert (raised.value.code, raised.value.param) == (code, param)


def test_images_and_long_texts_are_not_kept():
    content = [{"type": "input_image", "image_url": "data:," + "x" * 50_000}, {"type": "input_text", "text": "y" * 50_000}]
    item = made({"role": "user", "content": content})
    short = kept(item)
    assert short["content"] == [{"type": "input_image"}, {"type": "input_text", "text": "y" * 20_000}]
    assert len(item["content"][1]["text"]) == 50_000
    assert len(kept(made({"type": "function_call_output", "call_id": "c", "output": "z" * 50_000}))["output"]) == 20_000
