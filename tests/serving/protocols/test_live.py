"""OpenAI Live over a real socket: every event with the fields of `openai` 3.57, in order, with the right values."""

import asyncio
import base64
import json
import time
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
import websockets

from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.call import Call
from nemo_duplex.serving.config import Limits, ServerConfig
from nemo_duplex.serving.wire_audio import AgentAudio, WireFormat
from tests.serving.answering import ANSWER, make_answering, serving
from tests.serving.protocols.live_caller import PATIENT, Caller, asked, calling, of, question_as
from tests.serving.protocols.test_talk import QUESTION


@pytest.fixture
def server(agent):
    """A running server of the answering agent: its address."""
    with serving(make_answering(make_app(agent, ServerConfig(callers=4, audio=PATIENT)))) as address:
        yield address


def test_a_session_from_start_to_closed(server):
    wire = WireFormat("pcm16", 24000)
    events, code = calling(server, asked(wire, 2400))
    kinds = [event["type"] for event in events]
    assert kinds[0] == "session.started" and kinds[-1] == "session.closed" and code == 1000
    assert set(kinds[1:-1]) == {
        "session.output_audio.delta",
        "session.input_transcript.delta",
        "session.output_transcript.delta",
    }
    started, closed = events[0], events[-1]
    assert started["client_event_id"] == "the start" and closed["client_event_id"] == "bye"
    assert closed["reason"] == "close_requested" and closed["usage"] == {"seconds": 4.0}  # of 59 frames, 4.72 s
    assert started["session"] == closed["session"]
    assert 0 <= time.time() + 7200 - started["session"]["expires_at"] < 60  # the longest call
    assert started["session"] | {"id": "", "expires_at": 0} == {
        "id": "",
        "status": "active",
        "model": "gpt-live-1",
        "expires_at": 0,
        "audio": {"format": {"type": "audio/pcm", "rate": 24000}, "output": {"voice": "agent"}},
        "delegation": {"type": "client", "acknowledgement_delay_ms": 0},
        "instructions": None,
        "input": [],
        "safety_identifier": None,
        "store": False,
        "triggers": [],
    }
    assert len({event["event_id"] for event in events if "event_id" in event}) == len(events) - 59


@pytest.mark.parametrize(
    "format, wire",
    [
        (None, WireFormat("pcm16", 24000)),
        ({"type": "audio/pcm", "rate": 16000}, WireFormat("pcm16", 16000)),
        ({"type": "audio/pcmu", "rate": 8000}, WireFormat("ulaw", 8000)),
        ({"type": "audio/pcma", "rate": 8000}, WireFormat("alaw", 8000)),
    ],
    ids=["default", "pcm-16k", "pcmu", "pcma"],
)
def test_every_frame_has_its_audio_in_the_format_that_was_asked_for(agent, format, wire):
    conversation = asked(wire, 777, **({"audio": {"format": format}} if format else {}))
    with serving(make_app(agent, ServerConfig(audio=PATIENT))) as address:
        events, _ = calling(address, conversation)
    sounds = [base64.b64decode(event["delta"]) for event in of(events, "session.output_audio.delta")]
    session, audio = agent.open_session(sample_rate=wire.sample_rate), AgentAudio(agent.agent_sample_rate, wire.sample_rate)
    frames = session.push(wire.decode(question_as(wire))) + session.flush()
    assert len(sounds) == 59 and sounds == [wire.encode(audio.frame(frame.audio)) for frame in frames]


def test_the_transcripts_lie_on_the_timeline_of_the_session(server, agent):
    events, _ = calling(server, asked(WireFormat("pcm16", 16000), 1600, audio={"format": {"type": "audio/pcm", "rate": 16000}}))
    frames, heard, said = 0, [], []
    for event in events:
        if event["type"] == "session.output_audio.delta":
            frames += 1
        elif event["type"] == "session.input_transcript.delta":
            heard.append((event["delta"], event["start_ms"], event["end_ms"]))
            assert event["end_ms"] == 80 * (frames + 1)  # told with the frame, before its sound
        elif event["type"] == "session.output_transcript.delta":
            said.append(event["delta"])
            assert event["start_ms"] == 80 * (frames + agent.layout.text_lead) and event["end_ms"] == event["start_ms"] + 80
    # speech from 0.5 s to 1.7 s: the first frame at once, then four at a time, without gap
    assert [delta for delta, _, _ in heard] == ["…"] + [" "] * (len(heard) - 1)
    assert 480 <= heard[0][1] <= 640 and heard[0][2] == heard[0][1] + 80
    assert [(start, end - start) for _, start, end in heard[1:]] == [
        (heard[0][2] + 320 * n, 320) for n in range(len(heard) - 1)
    ]
    assert 1300 <= heard[-1][2] <= 2000
    assert "".join(said).strip() == ANSWER


def test_turns_of_the_agent_are_parted_by_a_space(server):
    wire = WireFormat("pcm16", 16000)
    data = wire.encode(np.concatenate([QUESTION, np.zeros(16000), QUESTION]).astype(np.float32))

    async def conversation(caller):
        await caller.started(audio={"format": {"type": "audio/pcm", "rate": 16000}})
        for start in range(0, len(data), 6400):
            await caller.append(data[start : start + 6400])
        await caller.send("session.close")

    events, _ = calling(server, conversation)
    assert "".join(event["delta"] for event in of(events, "session.output_transcript.delta")) == f"{ANSWER} {ANSWER}"


def test_an_idle_session_is_paused_and_speech_resumes_it(server):
    wire = WireFormat("pcm16", 16000)

    async def conversation(caller):
        audio = {"format": {"type": "audio/pcm", "rate": 16000}}
        session = (await caller.started(audio=audio, idle_timeout_s=1, wake_policy={"type": "speech"}))["session"]
        assert session["idle_timeout_s"] == 1 and session["wake_policy"] == {"type": "speech"}
        data = bytes(64000) + wire.encode(QUESTION.astype(np.float32)) + bytes(128000)  # 2 s, the question, 4 s
        for start in range(0, len(data), 16000):
            await caller.append(data[start : start + 16000])
        await caller.send("session.close")

    events, _ = calling(server, conversation)
    kinds = [event["type"].removeprefix("session.") for event in events]
    paused, resumed = kinds.index("paused"), kinds.index("resumed")
    assert [kind for kind in kinds if kind in ("paused", "resumed")] == ["paused", "resumed", "paused"]
    assert kinds[:paused].count("output_audio.delta") == 12 and resumed == paused + 1
    assert kinds[resumed + 1 : resumed + 3] == ["input_transcript.delta", "output_audio.delta"]
    again = len(kinds) - kinds[::-1].index("paused")
    assert kinds[again:] == ["usage.updated", "closed"]  # 10 s have passed
    start = events[resumed + 1]["start_ms"]
    heard = kinds.count("output_audio.delta")
    assert 60 < heard - 12 < 80  # the question, the answer of 40 frames, a second of silence
    assert 2480 <= start <= 2640 and events[-1]["usage"] == {
        "seconds": 10.0,
        "active_seconds": 10 - (134 - heard) * 80 // 1000,
        "paused_seconds": (134 - heard) * 80 // 1000,
    }
    assert "".join(event["delta"] for event in of(events, "session.output_transcript.delta")) == ANSWER


def test_a_muted_user_is_not_heard_and_the_clock_goes_on(server):
    async def conversation(caller):
        await caller.started(audio={"format": {"type": "audio/pcm", "rate": 16000}})
        await caller.send("session.input_audio.mute", event_id="m")
        await caller.until("session.input_audio.muted")
        await caller.append(WireFormat("pcm16", 16000).encode(QUESTION.astype(np.float32)))
        await caller.send("session.input_audio.unmute", event_id="u")
        await caller.until("session.input_audio.unmuted")
        await caller.append(WireFormat("pcm16", 16000).encode(QUESTION.astype(np.float32)))
        await caller.send("session.close")

    events, _ = calling(server, conversation)
    assert [of(events, f"session.input_audio.{kind}")[0]["client_event_id"] for kind in ("muted", "unmuted")] == ["m", "u"]
    heard = of(events, "session.input_transcript.delta")
    assert len(of(events, "session.output_audio.delta")) == 118 and 4700 < heard[0]["start_ms"] < 5500


def test_commentary_is_said_and_silent_context_is_acknowledged(server):
    async def conversation(caller):
        await caller.started()
        await caller.append(bytes(4800 * 6))
        await caller.until("session.output_audio.delta")
        for kind in ("instructions", "thinking", "commentary"):
            await caller.send(f"session.{kind}.append", content="It is two.", delegation_id=None, event_id=kind)
        await caller.until("session.commentary.appended")
        await caller.append(bytes(48000 * 2))
        await caller.send("session.close")

    events, _ = calling(server, conversation)
    others = [event for event in events if event["type"] != "session.output_audio.delta"]
    told = [(event["type"].removeprefix("session."), event.get("code"), event.get("client_event_id")) for event in others]
    assert told[1:6] == [
        ("instructions.appended", None, "instructions"),
        ("info", "instructions_not_used", "instructions"),
        ("thinking.appended", None, "thinking"),
        ("info", "thinking_not_used", "thinking"),
        ("commentary.appended", None, "commentary"),
    ]
    appended = of(events, "session.commentary.appended")[0]
    before = events[: events.index(appended)]
    assert appended["start_ms"] == appended["end_ms"] == 80 * len(of(before, "session.output_audio.delta"))
    assert "".join(event["delta"] for event in of(events, "session.output_transcript.delta")) == "It is two."


def test_what_livekit_sends_to_ask_for_a_turn_is_not_said(server, monkeypatch):
    asked_for = []
    monkeypatch.setattr(Call, "start", lambda call: asked_for.append("start"))
    monkeypatch.setattr(Call, "say", lambda call, text: asked_for.append(text))

    async def conversation(caller):
        await caller.started()
        for text in ("Reply now. Do not wait for the caller to speak first. After that, pause and listen.", ANSWER):
            await caller.send("session.commentary.append", content=text, delegation_id=None)
            await caller.until("session.commentary.appended")
        await caller.send("session.close")

    calling(server, conversation)
    assert asked_for == ["start", ANSWER]


def test_the_delegation_can_be_updated_and_nothing_else(server):
    async def conversation(caller):
        await caller.started(delegation={"type": "responses", "responses": {"model": "a", "tools": []}})
        await caller.send(
            "session.update", event_id="u", session={"delegation": {"type": "responses", "responses": {"tools": [{"a": 1}]}}}
        )
        for session in ({"instructions": "x"}, {"delegation": {"type": "client"}}, {"triggers": [{}]}):
            await caller.send("session.update", session=session)
        await caller.send("session.close")

    events, _ = calling(server, conversation)
    updated = of(events, "session.updated")
    assert [event["client_event_id"] for event in updated] == ["u"]
    delegation = {"type": "responses", "acknowledgement_delay_ms": 0, "responses": {"model": "a", "tools": [{"a": 1}]}}
    assert updated[0]["session"]["delegation"] == events[-1]["session"]["delegation"] == delegation
    assert [(event["error"]["code"], event["error"]["param"]) for event in of(events, "error")] == [
        ("immutable", "session.instructions"),
        ("immutable", "session.delegation.type"),
        ("unsupported", "session.triggers"),
    ]


def test_what_cannot_be_used_is_an_error_and_the_session_goes_on(server):
    async def conversation(caller):
        for message in ("{", "[]", "{}", b"\xff", json.dumps({"type": "session.close", "event_id": "e"})):
            await caller.socket.send(message)
        await caller.append(bytes(2))
        await caller.send("session.start", session={})
        await caller.started()
        await caller.send("session.start", session={"model": "m"})
        await caller.send("session.input_audio.append", audio="AAA")
        await caller.append(bytes(3))
        await caller.send("session.input_audio.append")
        await caller.send("session.output_audio.fixture.play", audio="")
        await caller.send("response.create")
        await caller.send("nonsense", event_id="n")
        await caller.send("session.commentary.append", content="It is one.", delegation_id="d")
        await caller.send("session.commentary.append", content="It is one. " * 2000)
        await caller.send("session.commentary.append", content="It is" + " " * 2500 + "one.", event_id="long")  # few tokens
        await caller.send("session.commentary.append", content="\u0416", event_id="unwritable")
        await caller.append(bytes(9600))
        await caller.send("session.close")

    events, code = calling(server, conversation)
    errors = [(event["error"]["code"], event["error"].get("client_event_id")) for event in of(events, "error")]
    assert errors == [
        ("invalid_json", None),
        ("invalid_json", None),
        ("missing_required_parameter", None),
        ("invalid_json", None),
        ("session_not_started", "e"),
        ("session_not_started", None),
        ("missing_required_parameter", None),
        ("session_already_started", None),
        ("invalid_base64", None),
        ("invalid_audio", None),
        ("invalid_type", None),
        ("unsupported", None),
        ("unsupported", None),
        ("unknown_event", "n"),
        ("invalid_value", None),
        ("too_long", None),
        ("invalid_value", "long"),
        ("invalid_value", "unwritable"),
    ]
    assert code == 1000 and len(of(events, "session.output_audio.delta")) == 3  # 0.2 s: nothing of the wrong audio was taken


def test_settings_without_effect_are_named_once(server):
    async def conversation(caller):
        await caller.started(
            instructions="Be brief.", store=True, audio={"output": {"voice": "marin"}}, input=[{"role": "user"}], novel=1
        )
        await caller.send("session.close")

    events, _ = calling(server, conversation)
    assert [(event["type"], event.get("code"), event.get("message")) for event in events[1:2]] == [
        ("info", "settings_not_used", "This agent does not use: instructions, input, novel, store, audio.output.voice.")
    ]
    session = events[0]["session"]
    assert session["audio"]["output"]["voice"] == "marin" and session["instructions"] == "Be brief."
    assert session["input"] == [{"role": "user"}] and session["store"] is False


def test_a_caller_without_session_start_is_told_and_let_go(agent):
    app = make_answering(make_app(agent, ServerConfig(callers=1, limits=Limits(idle_seconds=0.3))))
    with serving(app) as address:
        events, code = calling(address, lambda caller: asyncio.sleep(0))
        assert [event["error"]["code"] for event in events] == ["session_start_timeout"] and code == 1008
        events, code = calling(address, lambda caller: caller.started())  # the only line is free again, and idle soon
        assert events[-1]["reason"] == "expired" and code == 1000
        assert events[-2]["code"] == "session_idle"


def test_the_longest_duration_is_told_and_the_session_expires(agent):
    app = make_answering(make_app(agent, ServerConfig(limits=Limits(call_seconds=0.2))))
    with serving(app) as address:
        events, code = calling(address, lambda caller: caller.started())
    assert events[-1]["reason"] == "expired" and events[-2]["code"] == "session_too_long" and code == 1000
    assert events[0]["session"]["expires_at"] < 2**31 - 1


def test_instructions_are_read_where_the_server_has_room_for_them(agent):
    app = make_app(agent, ServerConfig(prompt_tokens=8, audio=PATIENT))
    prompts = []
    open_session = app.state.server.worker._engine.open_session
    app.state.server.worker._engine.open_session = lambda **options: (
        prompts.append(options["system_prompt"]) or open_session(**options)
    )

    async def brief(caller):
        assert (await caller.started(instructions="It is one."))["session"]["instructions"] == "It is one."
        await caller.send("session.close")

    async def long(caller):
        await caller.send("session.start", session={"model": "m", "instructions": "It is one. " * 9})

    async def very_long(caller):
        await caller.send("session.start", session={"model": "m", "instructions": "It is one. " * 9000})

    with serving(app) as address:
        events, code = calling(address, brief)
        assert not of(events, "info") and code == 1000 and prompts == ["It is one."]
        refused = [calling(address, long), calling(address, very_long)]
    assert len(prompts) == 2  # the very long one was not tokenized
    for events, code in refused:
        assert [(event["error"]["code"], event["error"]["param"]) for event in events] == [
            ("invalid_value", "session.instructions")
        ]
        assert code == 1008


def test_a_model_that_fails_is_told(agent):
    app = make_app(agent, ServerConfig(audio=PATIENT))

    async def conversation(caller):
        await caller.started()

        def fail():
            raise ValueError("planted")

        app.state.server.worker._engine.step = fail
        await caller.append(bytes(48000))

    with serving(app) as address:
        events, code = calling(address, conversation)
    assert events[-2]["error"]["type"] == "server_error" and events[-1]["reason"] == "connection_lost" and code == 1011


def test_a_model_that_fails_while_a_session_begins_is_told(agent):
    app = make_app(agent, ServerConfig(audio=PATIENT))

    async def conversation(caller):
        await caller.send("session.start", event_id="s", session={"model": "m"})

    with serving(app) as address:
        engine = app.state.server.worker._engine

        def fail(**options):
            engine.open_session = open_session
            raise ValueError("planted")

        open_session, engine.open_session = engine.open_session, fail
        events, code = calling(address, conversation)
        assert [(event["error"]["type"], event["error"]["client_event_id"]) for event in events] == [("server_error", "s")]
        assert code == 1011
        assert calling(address, asked(WireFormat("pcm16", 24000), 9600))[1] == 1000  # the next one is served


def test_skipped_audio_is_told_at_most_every_12_frames(agent, monkeypatch):
    frame_of = Call.frame
    skipped = [0.0] * 3 + [0.1, 0.2, 0.3] + [0.5] * 53
    monkeypatch.setattr(
        Call, "frame", lambda call, made, *times: replace(frame_of(call, made, *times), skipped=skipped[made.index])
    )
    with serving(make_app(agent, ServerConfig(audio=PATIENT))) as address:
        events, _ = calling(address, asked(WireFormat("pcm16", 24000), 9600))
    told = [
        (event["message"][:6], events[: at + 1])
        for at, event in enumerate(events)
        if event.get("code") == "input_audio_skipped"
    ]
    assert [(lost, len(of(before, "session.output_audio.delta"))) for lost, before in told] == [("0.10 s", 4), ("0.40 s", 16)]


def test_a_caller_who_waits_is_told_its_place(agent):
    app = make_app(agent, ServerConfig(callers=1, limits=Limits(waiting=1)))

    async def two(address):
        async with websockets.connect(f"ws://{address}/v1/live/sessions") as one:
            first = Caller(one)
            await first.started()
            async with websockets.connect(f"ws://{address}/v1/live/sessions") as other:
                second = Caller(other)
                place = await second.until("info")
                await first.send("session.close")
                await second.started()
                return place

    with serving(app) as address:
        place = asyncio.run(two(address))
    assert place["code"] == "waiting" and place["message"].endswith("Place in the queue: 1.")


def test_callers_who_disappear_leave_nothing_behind(agent):
    app = make_answering(make_app(agent, ServerConfig(callers=2, audio=PATIENT)))
    server = app.state.server

    async def vanish(address, when):
        socket = await websockets.connect(f"ws://{address}/v1/live/sessions")
        caller = Caller(socket)
        if when == "in the middle":
            await caller.started()
            await caller.append(bytes(48000))
        elif when == "closing":
            await caller.started()
            await caller.append(bytes(480000))
            await caller.send("session.close")
        socket.transport.abort()

    with serving(app) as address:
        for when in ("at once", "in the middle", "closing") * 2:
            asyncio.run(vanish(address, when))
        events, code = calling(address, asked(WireFormat("pcm16", 24000), 9600))
        assert code == 1000 and len(of(events, "session.output_audio.delta")) == 59
    assert server.admission.taken == 0 and not server.calls and not server.worker._calls


def test_what_live_has_besides_sessions_is_refused_in_one_line(server):
    for path in ("", "/live_1/fork", "/live_1/hangup"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://{server}/v1/live/sessions{path}", data=b"{}")
        error = json.loads(refused.value.read())["error"]
        assert refused.value.code == 400 and error["code"] == "unsupported" and "/v1/live/sessions" in error["message"]

    async def attach():
        with pytest.raises(websockets.InvalidStatus, match="400"):
            await websockets.connect(f"ws://{server}/v1/live/sessions/live_1/attach")

    asyncio.run(attach())


def test_a_caller_who_is_not_admitted_gets_the_status_of_http(agent):
    app = make_answering(make_app(agent, ServerConfig(callers=1)))

    async def second(address):
        async with websockets.connect(f"ws://{address}/v1/live/sessions") as first:
            await Caller(first).started()
            with pytest.raises(websockets.InvalidStatus, match="503"):
                await websockets.connect(f"ws://{address}/v1/live/sessions")

    with serving(app) as address:
        asyncio.run(second(address))
