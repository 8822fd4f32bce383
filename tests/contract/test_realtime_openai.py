"""The openai package on /v1/realtime: this one, one of a year ago, and a program without any package."""

from __future__ import annotations

import base64

import pytest

from tests.contract.conftest import kinds

SESSION = {
    "type": "realtime",
    "instructions": "Answer in one sentence.",
    "output_modalities": ["audio"],
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "turn_detection": {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500},
            "noise_reduction": {"type": "near_field"},
        },
        "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 1.0},
    },
    "tools": [],
    "tool_choice": "auto",
    "max_output_tokens": "inf",
}
#: What one answer of the agent is, in the order of events, deltas left out.
ANSWER = (
    "response.created response.output_item.added conversation.item.added response.content_part.added "
    "response.output_audio.done response.output_audio_transcript.done response.content_part.done "
    "response.output_item.done conversation.item.done response.done"
).split()
#: What one turn of the user is.
TURN = (
    "input_audio_buffer.speech_started input_audio_buffer.speech_stopped input_audio_buffer.committed "
    "conversation.item.added conversation.item.done"
).split()
DELTAS = ("response.output_audio.delta", "response.output_audio_transcript.delta")
CONFIGURED = [
    ["wait", "session.created"],
    ["send", {"type": "session.update", "session": SESSION}],
    ["wait", "session.updated"],
]
#: The package's type of a session lacks what the API itself sends.
KNOWN = {
    f"session.{event}: .session.{field}: extra" for event in ("created", "updated") for field in ("id", "object", "expires_at")
}


def realtime(call, server, steps, family="openai", **job):
    seen = call("openai_client", family, api="realtime", base_url=f"http://{server}/v1", steps=steps, **job)
    assert seen["failed"] == [], (seen["failed"], kinds(seen["events"]))
    assert set(seen["complaints"]) - KNOWN == set() and seen["warnings"] == []
    return seen["events"]


def of(events, kind):
    return [event for event in events if event["type"] == kind]


def about(events, *ids):
    """Types of the events about a response or an item, in order, deltas left out."""

    def named(event):
        parts = event, event.get("response") or {}, event.get("item") or {}
        return {part.get(key) for part in parts for key in ("response_id", "item_id", "id")}

    return [event["type"] for event in events if event["type"] not in DELTAS and named(event) & set(ids)]


def answers(events):
    """Each response of the agent: its last event's `response`, all its event types, its transcript, its seconds of sound."""
    found = []
    for done in of(events, "response.done"):
        response = done["response"]
        items = [item["id"] for item in response["output"]]
        mine = [event for event in events if event.get("response_id") == response["id"]]
        said = "".join(event["delta"] for event in of(mine, "response.output_audio_transcript.delta"))
        sound = sum(len(base64.b64decode(event["delta"])) for event in of(mine, "response.output_audio.delta"))
        found.append((response, about(events, response["id"], *items), said, sound))
    return found


@pytest.mark.parametrize("family", ["openai", "openai_2"])
def test_a_question_is_answered_by_the_events_of_the_api_in_their_order(call, server, family):
    events = realtime(call, server, [*CONFIGURED, ["speak"], ["wait", "response.done"]], family)
    assert kinds(events)[:2] == ["session.created", "session.updated"]
    (response, story, said, sound) = answers(events)[0]
    assert story == ANSWER and response["status"] == "completed" and response["status_details"] is None
    assert said.strip() == "It is one."
    assert 3.5 < sound / 48000 < 4.5
    user = of(events, "input_audio_buffer.committed")[0]["item_id"]
    assert about(events, user) == TURN
    started, stopped = (of(events, kind)[0] for kind in TURN[:2])
    assert 0 <= started["audio_start_ms"] < stopped["audio_end_ms"]
    place = {event["type"]: place for place, event in reversed(list(enumerate(events)))}
    assert place["input_audio_buffer.committed"] < place["response.created"]
    parts = [of(events, kind)[0] for kind in ("response.output_audio_transcript.done", "response.content_part.done")]
    assert parts[0]["transcript"] == said == parts[1]["part"]["transcript"] == response["output"][0]["content"][0]["transcript"]
    assert response["output"][0]["role"] == "assistant" and response["usage"]["total_tokens"] > 0
    ids = [event["event_id"] for event in events]
    assert len(set(ids)) == len(ids)


def test_every_item_is_placed_behind_the_one_before(call, server):
    events = realtime(call, server, [*CONFIGURED, ["speak"], ["wait", "response.done"], ["speak"], ["wait", "response.done"]])
    added = of(events, "conversation.item.added")
    assert [event["item"]["role"] for event in added] == ["user", "assistant"] * 2
    before = [None, *(event["item"]["id"] for event in added)]
    assert [event.get("previous_item_id") for event in added] == before[:4]


def test_who_interrupts_the_agent_is_heard_at_once_and_can_truncate(call, server):
    item = "$response.output_item.added:item.id"
    events = realtime(
        call,
        server,
        [
            *CONFIGURED,
            ["speak"],
            ["wait", "response.created"],
            ["sleep", 1.5],
            ["speak"],
            ["wait", "input_audio_buffer.speech_started"],
            ["wait", "response.done"],
            ["send", {"type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": 300}],
            ["wait", "conversation.item.truncated"],
            ["send", {"type": "conversation.item.retrieve", "item_id": item}],
            ["wait", "conversation.item.retrieved"],
            ["wait", "response.done"],
        ],
    )
    (first, story, _, sound), (second, *_) = answers(events)
    assert first["status"] == "cancelled" and story[: len(ANSWER)] == ANSWER
    assert first["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert first["output"][0]["status"] == "incomplete" and sound < 3.5 * 48000
    assert second["status"] == "completed"
    place = [number for number, event in enumerate(events) if event["type"] == "input_audio_buffer.speech_started"][1]
    done = next(number for number, event in enumerate(events) if event["type"] == "response.done")
    assert place < done < place + 12  # nothing but the end of the response comes between
    truncated = of(events, "conversation.item.truncated")[0]
    assert truncated["item_id"] == first["output"][0]["id"] and truncated["audio_end_ms"] == 300
    assert of(events, "conversation.item.retrieved")[0]["item"]["id"] == first["output"][0]["id"]


def test_a_response_is_asked_for_and_cancelled(call, server):
    create = {"type": "response.create", "response": {"metadata": {"client_event_id": "mine"}, "instructions": "Say hello."}}
    events = realtime(
        call,
        server,
        [
            *CONFIGURED,
            ["send", create],
            ["wait", "response.created"],
            ["wait", "response.output_audio.delta"],
            ["send", {"type": "response.create", "event_id": "second"}],
            ["wait", "error"],
            ["send", {"type": "response.cancel", "response_id": "$response.created:response.id"}],
            ["wait", "response.done"],
            ["send", {"type": "response.cancel", "event_id": "third"}],
            ["wait", "error"],
        ],
    )
    assert of(events, "response.created")[0]["response"]["metadata"] == {"client_event_id": "mine"}
    (response, story, _, _) = answers(events)[0]
    assert story == ANSWER and response["status"] == "cancelled"
    assert response["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    errors = [event["error"] for event in of(events, "error")]
    assert [error["code"] for error in errors] == ["conversation_already_has_active_response", "response_cancel_not_active"]
    assert [error["event_id"] for error in errors] == ["second", "third"]
    assert errors[1]["message"].startswith("Cancellation failed")


def test_items_are_created_placed_retrieved_and_deleted(call, server):
    def message(role, kind, text, **more):
        item = {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}
        return {
            "type": "conversation.item.create",
            "item": item | {key: more.pop(key) for key in ("id",) if key in more},
            **more,
        }

    def created(event):
        return [["send", event], ["wait", "conversation.item.added"], ["wait", "conversation.item.done"]]

    events = realtime(
        call,
        server,
        [
            *CONFIGURED,
            *created(message("user", "input_text", "Hello.", id="item_mine")),
            *created(message("assistant", "output_text", "Hello, too.")),
            *created(message("system", "input_text", "Be kind.", id="item_first", previous_item_id="root")),
            ["send", {"type": "conversation.item.retrieve", "item_id": "item_mine"}],
            ["wait", "conversation.item.retrieved"],
            ["send", {"type": "conversation.item.delete", "item_id": "item_mine"}],
            ["wait", "conversation.item.deleted", {"item_id": "item_mine"}],
            ["send", {"type": "conversation.item.retrieve", "item_id": "item_mine", "event_id": "rci_item_mine"}],
            ["wait", "error"],
            ["send", message("user", "input_text", "Again.", id="item_first", event_id="twice")],
            ["wait", "error"],
        ],
    )
    added = of(events, "conversation.item.added")
    assert [event["item"]["role"] for event in added] == ["user", "assistant", "system"]
    assert [event.get("previous_item_id") for event in added] == [None, "item_mine", None]
    assert added[0]["item"]["id"] == "item_mine"
    assert of(events, "conversation.item.retrieved")[0]["item"]["content"] == [{"type": "input_text", "text": "Hello."}]
    errors = [event["error"] for event in of(events, "error")]
    assert [error["code"] for error in errors] == ["item_retrieve_invalid_item_id", "item_create_duplicate_item_id"]
    assert [error["event_id"] for error in errors] == ["rci_item_mine", "twice"]


@pytest.mark.parametrize("pieces, silence_s", [(1, 0), (500, 0), (1, 25)])
def test_a_whole_file_is_sent_at_once(call, server, pieces, silence_s):
    steps = [*CONFIGURED, ["burst", pieces], ["unmute"], ["wait", "response.done"]]
    events = realtime(call, server, steps, listen=False, silence_s=silence_s)
    (response, story, said, _) = answers(events)[0]
    assert story == ANSWER and response["status"] == "completed" and said.strip() == "It is one."


def test_a_caller_without_turn_detection_commits_and_asks_for_the_response(call, server):
    session = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
    events = realtime(
        call,
        server,
        [
            ["wait", "session.created"],
            ["send", {"type": "session.update", "session": session}],
            ["wait", "session.updated"],
            ["speak"],
            ["sleep", 3],
            ["send", {"type": "input_audio_buffer.commit"}],
            ["wait", "input_audio_buffer.committed"],
            ["send", {"type": "response.create"}],
            ["wait", "response.created"],
            ["wait", "response.output_audio.delta"],
            ["send", {"type": "input_audio_buffer.clear"}],
            ["wait", "input_audio_buffer.cleared"],
        ],
    )
    assert of(events, "session.updated")[0]["session"]["audio"]["input"]["turn_detection"] is None
    assert not of(events, "error") and not of(events, "input_audio_buffer.speech_started")
    assert len(of(events, "input_audio_buffer.committed")) == 1


@pytest.mark.parametrize("wire, name", [("ulaw", "audio/pcmu"), ("alaw", "audio/pcma")])
def test_a_telephone_bridge_talks_in_8_khz(call, server, wire, name):
    session = {"type": "realtime", "audio": {side: {"format": {"type": name}} for side in ("input", "output")}}
    steps = [
        ["wait", "session.created"],
        ["send", {"type": "session.update", "session": session}],
        ["wait", "session.updated"],
        ["unmute"],
        ["speak"],
        ["wait", "response.done"],
    ]
    events = realtime(call, server, steps, wire=wire, listen=False)
    assert of(events, "session.updated")[0]["session"]["audio"]["output"]["format"]["type"] == name
    (response, story, said, sound) = answers(events)[0]
    assert story == ANSWER and said.strip() == "It is one."
    assert 3.5 < sound / 8000 < 4.5


def test_a_caller_who_says_nothing_at_first_is_answered(call, server):
    events = realtime(
        call,
        server,
        [["wait", "session.created"], ["sleep", 4], ["unmute"], ["speak"], ["wait", "response.done"]],
        listen=False,
    )
    assert answers(events)[0][1] == ANSWER


def test_the_package_without_asyncio_is_answered(call, server):
    session = {"type": "realtime", "instructions": "Answer in one sentence."}
    seen = call("openai_sync", "openai", base_url=f"http://{server}/v1", session=session)
    assert answers(seen["events"])[0][1] == ANSWER


def test_a_browser_gives_its_key_in_a_subprotocol(call, server):
    seen = call(
        "raw_socket",
        "openai",
        url=f"ws://{server}/v1/realtime?model=gpt-realtime",
        subprotocols=["realtime", "openai-insecure-api-key.key"],
        steps=[["wait", "session.created"], ["speak"], ["wait", "response.done"]],
    )
    assert seen["subprotocol"] == "realtime" and seen["failed"] == []
    assert answers(seen["events"])[0][1] == ANSWER
