"""The log of a server: one line an event, as text or JSON, and nothing that was said."""

import asyncio
import io
import json
import logging

import pytest
import websockets

from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.serving.logs import EventFormatter, use_log
from tests.serving.answering import serving

AT = 1795960987.5  # 2026-11-29 14:03:07 UTC


def record(**fields):
    made = logging.makeLogRecord({"msg": "call %s", "args": ("ended",), "levelname": "INFO", "created": AT} | fields)
    return made


def test_text_has_fields_behind_the_event_and_quotes_what_would_not_be_one_word():
    line = EventFormatter("text").format(record(id="3r", seconds=61.234, reason="hung_up", path='/a b"=\n', key=None, empty=""))
    assert line == (
        '2026-11-29T14:03:07Z info call ended id=3r seconds=61.2 reason=hung_up path="/a b\\"=\\n" key=None empty=""'
    )


def test_json_is_one_object_a_line_with_its_trace():
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        line = EventFormatter("json").format(record(id="3r", seconds=61.234, exc_info=(ValueError, error, None)))
    event = json.loads(line)
    assert "\n" not in line and event.pop("trace").endswith("ValueError: two\nlines")
    assert event == {"time": "2026-11-29T14:03:07Z", "level": "info", "event": "call ended", "id": "3r", "seconds": 61.234}


@pytest.fixture
def logged():
    """Uses the log, and puts the loggers back."""
    names = ("nemo_duplex", "uvicorn", "uvicorn.error", "websockets")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    use_log("json")
    written = io.StringIO()
    for logger in loggers:
        for handler in logger.handlers:
            handler.stream = written
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    for logger, (handlers, propagate, level) in zip(loggers, before):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_a_call_is_two_lines_without_its_key_its_address_or_what_was_said(agent, logged):
    config = ServerConfig(callers=1, host="127.0.0.1", api_keys=("other-secret", "top-secret"))

    async def call(address):
        async with websockets.connect(f"ws://{address}/api/talk?rate=16000&key=top-secret") as talk:
            await talk.recv()
            await talk.send('{"type": "say", "text": "my private words"}')
            await talk.send(bytes(2560))
            await talk.send('{"type": "finish"}')
            async for _ in talk:
                pass
        try:
            async with websockets.connect(f"ws://{address}/api/talk?key=wrong-secret"):
                pass
        except websockets.InvalidStatus:
            pass

    with serving(make_app(agent, config)) as address:
        asyncio.run(call(address))
    began, ended, refused = events = logged()
    assert [event["event"] for event in events] == ["call began", "call ended", "refused"]
    assert (began["protocol"], began["address"], began["key"], began["recorded"]) == ("talk", "127.0.0.x", 2, False)
    assert ended["id"] == began["id"] and (ended["reason"], ended["frames"], ended["skipped"]) == ("finished", 1, 0.0)
    assert refused | {"time": ""} == {
        **{"time": "", "level": "info", "event": "refused", "status": 401, "path": "/api/talk", "address": "127.0.0.x"}
    }
    assert "secret" not in str(events) and "private" not in str(events)


def test_a_broken_packet_is_no_line_of_the_log():
    before = {name: logging.getLogger(name).level for name in ("aiortc", "aioice")}
    try:
        use_log("text")
        assert not logging.getLogger("aiortc.rtcrtpreceiver").isEnabledFor(logging.WARNING)
        assert logging.getLogger("aiortc").isEnabledFor(logging.ERROR)
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
