"""/v1/live/sessions: the openai package's `client.live`, LiveKit's GPTLiveModel, Pipecat's OpenAILiveLLMService."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from tests.contract.conftest import kinds, story
from tests.contract.test_realtime_frameworks import livekit, pipecat
from tests.contract.test_realtime_openai import of

START = {"type": "session.start", "session": {"model": "gpt-live-1", "instructions": "Answer in one sentence."}}
CLOSED = [["send", {"type": "session.close", "event_id": "bye"}], ["wait", "session.closed"]]
SOUND = "session.output_audio.delta"


def live(call, server, steps, **job):
    seen = call("openai_client", "openai", api="live", base_url=f"http://{server}/v1", steps=steps, **job)
    assert (seen["failed"], seen["complaints"], seen["warnings"]) == ([], [], []), kinds(seen["events"])
    return seen["events"]


def sound(events, subtype="<i2"):
    return np.frombuffer(b"".join(base64.b64decode(event["delta"]) for event in of(events, SOUND)), subtype)


def started(**changes):
    return [["send", {**START, "session": {**START["session"], **changes}}], ["wait", "session.started"]]


def test_a_question_is_answered_in_one_stream_of_sound(call, server):
    steps = [["speak"], ["wait", "session.output_transcript.delta"], ["sleep", 5]]
    events = live(call, server, [*started(), *steps, *CLOSED])
    assert kinds(events)[0] == "session.started" and kinds(events)[-1] == "session.closed"
    assert events[0]["session"]["model"] == "gpt-live-1" and events[0]["session"]["status"] == "active"
    said = of(events, "session.output_transcript.delta")
    assert "".join(event["delta"] for event in said).strip() == "It is one."
    assert all(event["start_ms"] < event["end_ms"] for event in said)
    assert [event["start_ms"] for event in said] == sorted(event["start_ms"] for event in said)
    pcm = sound(events)
    assert 3.5 < np.count_nonzero(np.abs(pcm.reshape(-1, 1)[: len(pcm) // 480 * 480].reshape(-1, 480)).max(1) > 8) / 50 < 4.5
    closed = events[-1]
    assert closed["reason"] == "close_requested" and closed["client_event_id"] == "bye"
    assert closed["usage"]["seconds"] > 5


def test_who_interrupts_the_agent_hears_silence(call, server):
    steps = [["speak"], ["wait", "session.output_transcript.delta"], ["sleep", 1], ["speak"]]
    steps += [["wait", "session.input_transcript.delta", {"delta": "…"}], ["sleep", 1]]
    events = live(call, server, [*started(), *steps, *CLOSED])
    begins = [number for number, event in enumerate(events) if event.get("delta") == "…"]
    assert len(begins) == 2
    after = sound(events[begins[1] :])
    assert len(after) > 19200 and not np.any(np.abs(after[7200:19200]) > 8)  # from 0.3 s on


def test_context_mute_and_update_are_acknowledged(call, server):
    def sent(kind, answer, **values):
        event = {"type": kind, "event_id": kind, **values}
        return [["send", event], ["wait", answer, {"client_event_id": kind}]]

    context = {"content": "It is one.", "delegation_id": None}
    steps = [
        *started(),
        *sent("session.thinking.append", "session.thinking.appended", **context),
        *sent("session.instructions.append", "session.instructions.appended", **context),
        *sent("session.commentary.append", "session.commentary.appended", **context),
        *sent("session.input_audio.mute", "session.input_audio.muted"),
        *sent("session.input_audio.unmute", "session.input_audio.unmuted"),
        *CLOSED,
    ]
    events = live(call, server, steps)
    assert not of(events, "error")
    assert "".join(event["delta"] for event in of(events, "session.output_transcript.delta")).strip() in "It is one."


@pytest.mark.parametrize(
    "wire, rate, name", [("ulaw", 8000, "audio/pcmu"), ("alaw", 8000, "audio/pcma"), ("pcm16", 16000, "audio/pcm")]
)
def test_other_formats_than_24_khz(call, server, wire, rate, name):
    steps = [["speak"], ["wait", "session.output_transcript.delta"], ["sleep", 2], *CLOSED]
    audio = {"format": {"type": name, "rate": rate}, "output": {"voice": "marin"}}
    events = live(call, server, [*started(audio=audio), *steps], wire=wire, rate=rate)
    assert events[0]["session"]["audio"]["format"] == {"type": name, "rate": rate}
    assert abs(len(sound(events, "<i2" if wire == "pcm16" else "u1")) / rate - events[-1]["usage"]["seconds"]) < 1.5


def test_a_command_that_is_wrong_is_named_and_the_session_goes_on(call, server):
    wrong = {"type": "session.input_audio.append", "audio": "no base64!"}
    steps = [*started(), ["send", wrong], ["wait", "error"], ["speak"], ["wait", "session.output_transcript.delta"], *CLOSED]
    events = live(call, server, steps)
    assert of(events, "error")[0]["error"]["type"] == "invalid_request_error"


def test_livekit_answers_is_interrupted_and_answers_again(call, server):
    steps = [["sleep", 0.5], ["speak"], ["wait", "agent", {"state": "speaking"}], ["sleep", 1.5], ["speak"]]
    steps += [["wait", "user", {"state": "speaking"}], ["wait", "agent", {"state": "listening"}]]
    steps += [["wait", "agent", {"state": "speaking"}], ["wait", "agent", {"state": "listening"}]]
    seen = livekit(call, server, steps, "live")
    assert [event["state"] for event in of(seen["events"], "user")] == ["speaking", "listening"] * 2
    said = [event["text"].strip() for event in of(seen["events"], "item") if event["role"] == "assistant"]
    assert len(said) == 2 and said[1] == "It is one."
    assert 5 < seen["heard_s"] < 8.5
    assert story(seen["wire"], SOUND).endswith("session.close session.closed")


def test_livekit_asks_for_a_reply(call, server):
    seen = livekit(
        call,
        server,
        [["sleep", 0.5], ["reply", {"instructions": "Greet the user."}], ["wait", "agent", {"state": "speaking"}]],
        "live",
    )
    assert of(seen["wire"], "session.commentary.appended") and not of(seen["wire"], "error")


def test_pipecat_answers_is_interrupted_and_answers_again(call, server):
    steps = [["speak"], ["wait", "TTSTextFrame"], ["sleep", 1.5], ["speak"], ["wait", "UserStartedSpeakingFrame"]]
    steps += [["wait", "TTSTextFrame"], ["wait", "TTSStoppedFrame"], ["sleep", 1]]
    seen = pipecat(call, server, steps, "live")
    said = [message["content"] for message in seen["context"] if message["role"] == "assistant"]
    assert len(said) == 2 and said[1].strip() == "It is one."
    assert [message["content"].strip() for message in seen["context"] if message["role"] == "user"] == ["…", "…"]
