"""Pipecat, LiveKit and OpenAI's agents SDK on /v1/realtime."""

from __future__ import annotations

import pytest

from tests.contract.conftest import kinds
from tests.contract.test_realtime_openai import about, answers, of

#: What LiveKit says of how these tests use it, without its own voice detector and without a loudspeaker that pauses.
LIVEKIT_SETUP = ("TurnDetector requires a VAD model", "resume_false_interruption is enabled")


def livekit(call, server, steps, model="realtime", **job):
    base_url = f"ws://{server}" if model == "moshi" else f"http://{server}/v1"
    seen = call("livekit_agent", "livekit", model=model, base_url=base_url, steps=steps, **job)
    assert seen["failed"] == [], (seen["failed"], seen["events"], kinds(seen["wire"]))
    warnings = [line for line in seen["warnings"] if not any(setup in line for setup in LIVEKIT_SETUP)]
    assert warnings == [] and of(seen["events"], "error") == []
    return seen


def pipecat(call, server, steps, model="realtime", **job):
    path = {"realtime": "realtime", "live": "live/sessions"}[model]
    seen = call("pipecat_bot", "pipecat", model=model, base_url=f"ws://{server}/v1/{path}", steps=steps, **job)
    assert seen["failed"] == [], (seen["failed"], seen["frames"])
    assert seen["warnings"] == [] and "ErrorFrame" not in seen["frames"]
    return seen


@pytest.mark.parametrize("rate", [24000, 16000])
def test_pipecat_answers_is_interrupted_and_answers_again(call, server, rate):
    steps = [["sleep", 0.5], ["speak"], ["wait", "TTSStartedFrame"], ["sleep", 1.5], ["speak"], ["wait", "InterruptionFrame"]]
    steps += [["wait", "TTSStartedFrame"], ["wait", "TTSStoppedFrame"], ["sleep", 1], ["retrieve"]]
    seen = pipecat(call, server, steps, rate=rate)
    turns = [frame for frame in seen["frames"] if frame in ("UserStartedSpeakingFrame", "UserStoppedSpeakingFrame")]
    assert turns == ["UserStartedSpeakingFrame", "UserStoppedSpeakingFrame"] * 2
    said = [message["content"] for message in seen["context"] if message["role"] == "assistant"]
    assert len(said) == 2 and said[1] == "It is one."
    assert 4.5 < seen["heard_s"] < 7.5
    assert seen["retrieved"]["id"] == seen["items"][-1] and seen["retrieved"]["role"] == "assistant"


def test_pipecat_lets_the_agent_begin(call, server):
    seen = pipecat(call, server, [["wait", "BotStartedSpeakingFrame"], ["sleep", 1]], greet=True)
    assert seen["frames"].count("LLMFullResponseStartFrame") >= 1 and seen["heard_s"] > 0.5


def test_livekit_answers_is_interrupted_and_answers_again(call, server):
    steps = [["sleep", 0.5], ["speak"], ["wait", "agent", {"state": "speaking"}], ["sleep", 1.5], ["speak"]]
    steps += [["wait", "agent", {"state": "listening"}], ["wait", "agent", {"state": "speaking"}]]
    seen = livekit(call, server, [*steps, ["wait", "agent", {"state": "listening"}], ["sleep", 0.3]])
    said = [event for event in of(seen["events"], "item") if event["role"] == "assistant"]
    assert [event["interrupted"] for event in said] == [True, False] and said[1]["text"].strip() == "It is one."
    user = [event["state"] for event in of(seen["events"], "user")]
    assert user == ["speaking", "listening"] * 2
    assert 4.5 < seen["heard_s"] < 7.5
    assert of(seen["wire"], "conversation.item.truncated")
    assert [response["status"] for response, *_ in answers(seen["wire"])] == ["cancelled", "completed"]


def test_livekit_detects_the_turns_by_itself(call, server):
    steps = [["sleep", 0.5], ["speak"], ["wait", "agent", {"state": "speaking"}], ["wait", "agent", {"state": "listening"}]]
    seen = livekit(call, server, [*steps, *steps[1:], ["sleep", 0.5]], own_turns=True)
    assert (
        not of(seen["wire"], "input_audio_buffer.speech_started") and len(of(seen["wire"], "input_audio_buffer.committed")) == 2
    )
    assert [(response["status"], said.strip()) for response, _, said, _ in answers(seen["wire"])] == [
        ("completed", "It is one.")
    ] * 2
    created = [event["response"]["metadata"]["client_event_id"] for event in of(seen["wire"], "response.created")]
    assert created == [event["event_id"] for event in of(seen["wire"], "response.create")]


def test_livekit_asks_for_a_reply_and_cuts_it_off(call, server):
    steps = [["sleep", 0.5], ["reply", {"instructions": "Say hello."}], ["wait", "agent", {"state": "speaking"}]]
    seen = livekit(call, server, [*steps, ["sleep", 1], ["interrupt"], ["wait", "agent", {"state": "listening"}], ["sleep", 1]])
    done = of(seen["wire"], "response.done")[0]["response"]
    assert done["status"] == "cancelled" and done["status_details"]["reason"] == "client_cancelled"
    assert of(seen["wire"], "response.created")[0]["response"]["metadata"]["client_event_id"].startswith("response_create_")


def test_livekit_brings_the_history_of_a_conversation(call, server):
    history = [["user", "My name is Ann."], ["assistant", "Hello, Ann."]]
    steps = [["sleep", 1], ["speak"], ["wait", "agent", {"state": "speaking"}], ["wait", "agent", {"state": "listening"}]]
    seen = livekit(call, server, steps, history=history)
    created = of(seen["wire"], "conversation.item.create")
    added = of(seen["wire"], "conversation.item.added")
    assert [event["item"]["id"] for event in added[:2]] == [event["item"]["id"] for event in created]
    assert [event["item"]["role"] for event in added[:4]] == ["user", "assistant", "user", "assistant"]
    assert [event["previous_item_id"] for event in added[:3]] == [None, *(event["item"]["id"] for event in added[:2])]


def test_livekit_renews_its_connection_and_goes_on(call, server):
    steps = [["speak"], ["wait", "agent", {"state": "speaking"}], ["wait", "agent", {"state": "listening"}], ["sleep", 1]]
    steps += [["speak"], ["wait", "agent", {"state": "speaking"}], ["wait", "agent", {"state": "listening"}]]
    seen = livekit(call, server, steps, options={"max_session_duration": 5})
    assert kinds(seen["wire"]).count("session.created") >= 2
    again = [place for place, event in enumerate(seen["wire"]) if event["type"] == "session.created"][1]
    replayed = of(seen["wire"][again:], "conversation.item.create")
    assert "assistant" in [event["item"]["role"] for event in replayed]
    assert not of(seen["wire"], "error")


SDKS = pytest.mark.parametrize(
    "caller, family, job",
    [
        ("agents_javascript", "javascript", {"browser": False}),
        ("agents_javascript", "javascript", {"browser": True}),
        ("agents_python", "agents", {}),
    ],
    ids=["node", "browser", "python"],
)


def sdk(call, server, steps, caller, family, job):
    seen = call(caller, family, url=f"ws://{server}/v1/realtime?model=duplex", steps=steps, **job)
    assert seen["failed"] == [] and seen["errors"] == [], kinds(seen["events"])
    assert seen.get("protocol") == ("realtime" if job.get("browser") else None)
    return seen


@SDKS
def test_the_agents_sdk_answers_is_interrupted_and_answers_again(call, server, caller, family, job):
    steps = [["sleep", 0.5], ["speak"], ["wait", "response.created"], ["sleep", 2], ["speak"], ["wait", "response.done"]]
    seen = sdk(call, server, [*steps, ["wait", "response.done"], ["sleep", 0.3]], caller, family, job)
    assert seen["interrupted"] == 1
    assert [item["role"] for item in seen["history"]] == ["user", "assistant"] * 2
    assert [item["status"] for item in seen["history"] if item["role"] == "assistant"] == ["incomplete", "completed"]
    assert seen["history"][3]["content"][0]["transcript"].strip() == "It is one."
    truncated = of(seen["events"], "conversation.item.truncated")[0]
    assert about(seen["events"], truncated["item_id"])[-1] == "conversation.item.retrieved"


@SDKS
def test_the_agents_sdk_sends_a_typed_message(call, server, caller, family, job):
    steps = [["sleep", 0.5], ["say", "Hello."], ["wait", "response.created"], ["wait", "response.output_audio.delta"]]
    seen = sdk(call, server, steps, caller, family, job)
    first = seen["history"][0]["content"][0]
    assert (first["type"], first["text"]) == ("input_text", "Hello.")
