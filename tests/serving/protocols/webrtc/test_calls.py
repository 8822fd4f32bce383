"""`POST /v1/realtime/calls`: a whole call by WebRTC, with aiortc as the caller, and what is refused."""

import asyncio
import json
import re
import sys

import httpx
import numpy as np
import pytest

from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.serving.protocols.webrtc import peer as peer_module
from tests.dummies import voice_like
from tests.serving.answering import ANSWER, make_answering, serving
from tests.serving.protocols.webrtc.caller import RATE, calling

#: 0.5 s of silence, 1.2 s of a voice, silence; at 48 kHz.
SPEECH = voice_like(1.2, sample_rate=RATE).numpy()
QUESTION = np.concatenate([np.zeros(RATE // 2, np.float32), SPEECH])


def ran(test):
    return asyncio.run(asyncio.wait_for(test, 90))


async def post(address, offer, path="/v1/realtime/calls", **options):
    options = options or {"headers": {"Content-Type": "application/sdp"}, "content": offer}
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.post(f"http://{address}{path}", **options)


async def call(address, caller, **options):
    """Connects the caller; returns the path of its call."""
    response = await post(address, await caller.offer(), **options)
    assert response.status_code == 201 and response.headers["content-type"] == "application/sdp", response.text
    await caller.take(response.text)
    return response.headers["location"]


def kinds(events):
    """The types of events, deltas that follow each other as one."""
    types = [event["type"] for event in events]
    return [kind for kind, before in zip(types, [None, *types], strict=False) if kind != before or not kind.endswith("delta")]


def test_a_call_from_the_question_to_the_answer(server):
    async def talk():
        async with calling(QUESTION) as caller:
            path = await call(server, caller)
            await caller.has("output_audio_buffer.stopped")
            loud = caller.loud()
            async with httpx.AsyncClient() as client:
                metrics = (await client.get(f"http://{server}/metrics")).text
            hung_up = await post(server, "", f"{path}/hangup")
            await caller.until(lambda: caller.states[-1] == "closed")
            again = await post(server, "", f"{path}/hangup")
        return path, caller.events, loud, metrics, hung_up.status_code, again.status_code

    path, events, loud, metrics, hung_up, again = ran(talk())
    for way in ("received", "sent"):
        [count] = re.findall(rf'nemo_duplex_bytes_total{{protocol="webrtc",way="{way}"}} (.*)', metrics)
        assert float(count) > 20 * len(loud)  # a packet has more bytes than its headers
    assert path.startswith("/v1/realtime/calls/") and (hung_up, again) == (200, 404)
    assert kinds(events) == [
        "session.created",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "output_audio_buffer.started",
        "response.output_audio_transcript.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
        "output_audio_buffer.stopped",
    ]
    done = next(event for event in events if event["type"] == "response.done")["response"]
    assert done["output"][0]["content"][0]["transcript"].strip() == ANSWER and done["id"] == events[-1]["response_id"]
    frames = done["usage"]["output_token_details"]["audio_tokens"]
    assert abs(sum(loud) - 4 * frames) < 8  # all of it was heard, 4 packets a frame


def test_a_barge_in_silences_the_agent_and_the_server_truncates_what_it_said(server):
    async def talk():
        wait = np.zeros(round(2.0 * RATE), np.float32)
        async with calling(np.concatenate([QUESTION, wait, SPEECH])) as caller:
            await call(server, caller)
            await caller.has("output_audio_buffer.cleared")
            truncated = await caller.has("conversation.item.truncated")
            await caller.until(lambda: not any(caller.loud()[-12:]))
        return caller.events, truncated, np.flatnonzero(caller.loud())

    events, truncated, loud = ran(talk())
    types = [event["type"] for event in events]
    second = [number for number, kind in enumerate(types) if kind == "input_audio_buffer.speech_started"][1]
    assert [
        kind
        for kind in types[second:]
        if kind in ("response.done", "output_audio_buffer.cleared", "conversation.item.truncated")
    ] == [
        "response.done",
        "output_audio_buffer.cleared",
        "conversation.item.truncated",
    ]
    done = next(event for event in events if event["type"] == "response.done")["response"]
    assert done["status"] == "cancelled" and done["status_details"]["reason"] == "turn_detected"
    assert truncated["item_id"] == done["output"][0]["id"]
    assert abs(truncated["audio_end_ms"] / 20 - len(loud)) <= 3  # what was sent is what was heard
    assert "output_audio_buffer.stopped" not in types


def test_the_clients_events_are_obeyed_before_and_after_the_channel_opens(server):
    async def talk():
        async with calling() as caller:
            caller.channel.on("open", lambda: caller.send({"type": "session.update", "session": {"instructions": "Be kind."}}))
            await call(server, caller)
            updated = await caller.has("session.updated")
            caller.send({"type": "response.create"})
            await caller.has("output_audio_buffer.started")
            await caller.until(lambda: any(caller.loud()))
            caller.send({"type": "output_audio_buffer.clear"})
            await caller.has("output_audio_buffer.cleared")
            caller.channel.send("{")
            error = await caller.has("error")
        return updated, error, caller.events

    updated, error, events = ran(talk())
    assert events[0]["type"] == "session.created" and updated["session"]["instructions"] == "Be kind."
    assert error["error"]["code"] == "invalid_json"
    done = next(event for event in events if event["type"] == "response.done")["response"]
    assert done["status"] == "cancelled" and done["status_details"]["reason"] == "client_cancelled"


SESSION = {"type": "realtime", "model": "mine", "instructions": "Be brief.", "audio": {"output": {"voice": "alloy"}}}


@pytest.mark.parametrize(
    "body",
    [
        lambda offer: {"files": {"sdp": (None, offer), "session": (None, json.dumps(SESSION))}},
        lambda offer: {
            "files": {"sdp": (None, offer, "application/sdp"), "session": (None, json.dumps(SESSION), "application/json")}
        },
        lambda offer: {"files": {"sdp": ("blob", offer, "application/sdp"), "session": ("blob", json.dumps(SESSION))}},
    ],
    ids=["fields", "typed", "blobs"],
)
def test_the_session_of_a_form_holds_from_the_beginning(server, body):
    async def talk():
        async with calling() as caller:
            response = await post(server, "", **body(await caller.offer()))
            assert response.status_code == 201
            await caller.take(response.text)
            return (await caller.has("session.created"))["session"]

    session = ran(talk())
    assert (session["model"], session["instructions"], session["audio"]["output"]["voice"]) == ("mine", "Be brief.", "alloy")


def test_an_offer_to_the_older_address_is_answered_for_the_model_it_names(server):
    async def talk():
        async with calling() as caller:
            await call(server, caller, path="/v1/realtime?model=mine")
            return (await caller.has("session.created"))["session"]["model"]

    assert ran(talk()) == "mine"


def test_a_call_without_a_data_channel_is_answered_too(server):
    async def talk():
        async with calling(QUESTION, channel=None) as caller:
            await call(server, caller)
            await caller.until(lambda: any(caller.loud()))

    ran(talk())


def form(**fields):
    return {"files": {name: (None, value) for name, value in fields.items()}}


SDP = {"headers": {"Content-Type": "application/sdp"}}


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ({"json": {"sdp": "v=0"}}, 415, "application/sdp or multipart/form-data"),
        ({"content": b"v=0"}, 415, "Content-Type '' is not supported"),
        (SDP | {"content": b""}, 400, "no SDP offer"),
        (SDP | {"content": b"\xff\xfe"}, 400, "cannot be used"),
        (SDP | {"content": b"v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"}, 400, "fingerprint"),
        (form(session="{}"), 400, "needs `sdp`"),
        (form(sdp="v=0", session="{"), 400, "cannot be used"),
        (form(sdp="v=0", session="[1]"), 400, "JSON object"),
        (form(sdp="v=0", session='{"audio": 1}'), 400, "session.audio"),
        (form(sdp="v=0", session="[" * 100000), 400, "cannot be used"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(server, options, status, said):
    response = ran(post(server, "", **options))
    message = response.json()["error"]["message"]
    assert response.status_code == status and said in message and "\n" not in message


@pytest.fixture
def one_seat(agent):
    with serving(make_answering(make_app(agent, ServerConfig(callers=1)))) as address:
        yield address


def test_a_full_server_refuses_and_a_seat_is_free_soon_after_a_caller_left(one_seat):
    async def talk():
        async with calling() as first, calling() as second:
            await call(one_seat, first)
            await first.has("session.created")
            refused = await post(one_seat, await second.offer())
        async with calling() as third:
            while True:  # `ran` ends it
                response = await post(one_seat, await third.offer())
                if response.status_code == 201:
                    break
                await asyncio.sleep(0.1)
            await third.take(response.text)
            await third.has("session.created")
        return refused

    refused = ran(talk())
    assert (
        refused.status_code == 503 and int(refused.headers["retry-after"]) > 0 and "busy" in refused.json()["error"]["message"]
    )


def test_a_caller_who_never_connects_gives_its_seat_back(agent, monkeypatch):
    app = make_answering(make_app(agent, ServerConfig(callers=1)))
    connect_seconds = peer_module.CONNECT_SECONDS
    monkeypatch.setattr(peer_module, "CONNECT_SECONDS", 0.2)

    async def talk(address):
        async with calling() as first, calling() as second:
            assert (await post(address, await first.offer())).status_code == 201
            while app.state.server.admission.taken:  # `ran` ends it
                await asyncio.sleep(0.01)
            monkeypatch.setattr(peer_module, "CONNECT_SECONDS", connect_seconds)
            await call(address, second)
            await second.has("session.created")

    with serving(app) as address:
        ran(talk(address))


def test_without_aiortc_the_answer_says_what_to_install(server, monkeypatch):
    monkeypatch.delitem(sys.modules, "nemo_duplex.serving.protocols.webrtc.audio", raising=False)
    monkeypatch.setitem(sys.modules, "aiortc", None)
    response = ran(post(server, "v=0"))
    assert response.status_code == 501 and "pip install 'nemo_duplex[webrtc]'" in response.json()["error"]["message"]


def test_a_server_that_ends_closes_its_calls(agent):
    async def talk(address, ended):
        async with calling() as caller:
            await call(address, caller)
            await caller.has("session.created")
            await asyncio.to_thread(ended)
            await caller.until(lambda: caller.states[-1] == "closed")

    server = serving(make_app(agent, ServerConfig(callers=1)))
    address = server.__enter__()
    ran(talk(address, lambda: server.__exit__(None, None, None)))


def test_an_offer_that_is_none_is_a_refusal_and_no_call(agent):
    """Neither in the log nor in the counters."""
    app = make_app(agent, ServerConfig(callers=1))
    with serving(app) as address:
        refused = httpx.post(f"http://{address}/v1/realtime/calls", content="v=0", headers={"Content-Type": "application/sdp"})
        counters = app.state.server.metrics.text().decode()
    assert refused.status_code == 400
    assert "calls_ended_total{" not in counters and 'refusals_total{reason="other"} 1.0' in counters
