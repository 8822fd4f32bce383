"""Whatever a client sends is an event, or one line of error; hypothesis makes it up. More cases: --hypothesis-profile."""

import asyncio
import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_duplex.serving.protocols.realtime.client_events import REQUIRED, EventError, audio_bytes, read_event
from tests.serving.protocols.test_realtime_conversation import Talk

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("\ud800")
_NAMES = st.sampled_from(
    ["type", "id", "role", "content", "audio", "input", "output", "format", "rate", "voice", "text", "turn_detection"]
    + ["session", "item", "item_id", "response", "response_id", "metadata", "output_modalities", "audio_end_ms", "call_id"]
    + ["content_index", "previous_item_id", "prefix_padding_ms", "create_response", "instructions", "event_id", "conversation"]
)
_WORDS = st.sampled_from(
    ["audio/pcm", "audio/pcmu", "g711_alaw", "pcm16", "server_vad", "semantic_vad", "message", "function_call", "user"]
    + ["assistant", "input_text", "input_audio", "text", "realtime", "root", "AAAA", "AAA=", "none"]
)
_VALUES = st.recursive(
    _SCALARS | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES | st.text(max_size=4), inner, max_size=5),
    max_leaves=12,
)
#: Events of the right types with anything in them, and anything at all.
EVENTS = st.builds(
    lambda kind, fields: {**fields, "type": kind}, st.sampled_from([*REQUIRED]), st.dictionaries(_NAMES, _VALUES)
)
MESSAGES = EVENTS.map(json.dumps) | _VALUES.map(json.dumps) | st.text(max_size=40) | st.binary(max_size=40)


@given(MESSAGES)
@settings(deadline=None)
def test_a_message_is_an_event_or_an_error_of_one_line(message):
    try:
        event = read_event(message)
    except EventError as error:
        assert "\n" not in error.message and len(error.message) < 600
        error.message.encode()
        json.dumps(error.error, allow_nan=False)
    else:
        assert event["type"] in REQUIRED


@given(st.lists(EVENTS.map(json.dumps) | st.sampled_from(["[---", "uu.....", "u", "]", "|--]", "{==}"]), max_size=12))
@settings(deadline=None, max_examples=settings().max_examples // 4)
def test_a_session_survives_whatever_a_client_sends(messages):
    talk = Talk()  # which checks every event that is sent
    for message in messages:
        if message.startswith('{"'):
            talk.raw(message)
        else:
            talk.frames(message)
    for event in talk.sent:
        json.dumps(event, allow_nan=False, ensure_ascii=False).encode()
    kinds = [event["type"] for event in talk.sent]
    assert 0 <= kinds.count("response.created") - kinds.count("response.done") <= 1
    assert kinds.count("response.output_item.added") - kinds.count("response.output_item.done") in (0, 1)
    ids = [event["event_id"] for event in talk.sent]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "message",
    [
        '{"type": "session.update", "session": {"voice": "\\ud800"}}',
        '{"type": "session.update", "session": {"speed": 1e999}}',
        '{"type": "session.update", "session": {"speed": NaN}}',
        '{"type": "session.update", "session": {"tools": ' + "[" * 80 + "]" * 80 + "}}",
        '{"type": "\\ud800"}',
        "[" * 100_000,
        '{"type": "response.cancel", "x": ' + "1" * 5000 + "}",
    ],
)
def test_what_other_readers_of_json_refuse_is_refused(message):
    with pytest.raises(EventError) as raised:
        read_event(message)
    raised.value.message.encode()


def test_an_error_names_the_event_if_its_id_is_text():
    for given_id, told in (("e1", "e1"), (3, None), ("\ud800", None), (None, None)):
        with pytest.raises(EventError) as raised:
            read_event({"type": "response.say", "event_id": given_id})
        assert raised.value.event_id == told
        talk = Talk()
        talk.client("conversation.item.retrieve", item_id="x", event_id="rci_x")
        assert talk.error["event_id"] == "rci_x"


@given(st.binary(max_size=64), st.sampled_from([1, 2]))
def test_base64_in_any_lines_gives_its_bytes(data, size):
    lines = base64.encodebytes(data).decode()
    if len(data) % size:
        with pytest.raises(EventError):
            audio_bytes(lines, size)
    else:
        assert audio_bytes(lines, size) == data


def test_a_client_that_sends_no_audio_is_no_idle_one():
    talk = Talk()
    asyncio.run(talk.conversation.handle('{"type": "response.cancel"}'))
    assert talk.call.last_push > 0
