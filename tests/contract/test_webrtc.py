"""POST /v1/realtime/calls: aiortc as the caller, with the data channel oai-events."""

from __future__ import annotations

import pytest

from tests.contract.conftest import ANSWER_SECONDS, kinds
from tests.contract.test_realtime_openai import TURN, about, of

SESSION = {
    "type": "realtime",
    "model": "gpt-realtime",
    "instructions": "Answer in one sentence.",
    "audio": {"output": {"voice": "marin"}},
}


def webrtc(call, server, steps, offer="openai"):
    seen = call("webrtc_call", "webrtc", rate=48000, base_url=f"http://{server}/v1", offer=offer, session=SESSION, steps=steps)
    assert seen["failed"] == [], (seen["failed"], kinds(seen["events"]))
    assert seen["status"] in (200, 201)
    return seen


@pytest.mark.parametrize("offer", ["openai", "sdp"])
def test_a_question_is_answered(call, server, offer):
    seen = webrtc(call, server, [["wait", "session.created"], ["speak"], ["wait", "response.done"], ["sleep", 1.5]], offer)
    events = seen["events"]
    assert seen["location"] and seen["location"].startswith("/v1/realtime/calls/")
    assert about(events, of(events, "input_audio_buffer.committed")[0]["item_id"]) == TURN
    said = of(events, "response.output_audio_transcript.done")[0]["transcript"]
    assert said.strip() == "It is one."
    assert not of(events, "response.output_audio.delta")  # the sound is in the track
    assert abs(seen["heard_s"] - ANSWER_SECONDS) < 0.6


def test_who_interrupts_the_agent_hears_silence(call, server):
    steps = [["wait", "session.created"], ["speak"], ["wait", "response.created"], ["sleep", 1.5], ["speak"]]
    steps += [["wait", "input_audio_buffer.speech_started"], ["wait", "response.done"], ["sleep", 1]]
    seen = webrtc(call, server, steps)
    done = of(seen["events"], "response.done")[0]["response"]
    assert done["status"] == "cancelled" and done["status_details"]["reason"] == "turn_detected"
    assert seen["heard"][0] < ANSWER_SECONDS - 0.5
