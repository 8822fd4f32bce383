"""/api/chat: Moshi's command-line client, its web UI's codec and rules, LiveKit's NVIDIA plugin."""

from __future__ import annotations

import numpy as np

from tests.contract.conftest import ANSWER_SECONDS
from tests.contract.test_realtime_frameworks import livekit
from tests.contract.test_realtime_openai import of


def loud_seconds(samples, rate=24000):
    """Seconds of sound, in pieces of 80 ms."""
    pieces = np.abs(samples[: len(samples) // (rate * 2 // 25) * (rate * 2 // 25)]).reshape(-1, rate * 2 // 25).max(1)
    return float(np.count_nonzero(pieces > 0.001) * 0.08)


def test_the_command_line_client_hears_the_answer(call, server, tmp_path):
    host, port = server.split(":")
    heard = tmp_path / "heard"
    seen = call("moshi_client", "moshi", host=host, port=int(port), seconds=9, heard=str(heard))
    assert seen["said"].replace("Cannot write to closing transport", "").strip() == "It is one."
    assert (
        "unknown message kind 0" in seen["log"] and seen["log"].count("unknown") == 1
    )  # the handshake, as with its own server
    assert abs(loud_seconds(np.frombuffer(heard.read_bytes(), np.float32)) - ANSWER_SECONDS) < 1


def test_the_web_ui_hears_the_answer(call, server):
    seen = call("moshi_web", "javascript", rate=48000, url=f"ws://{server}", seconds=9)
    assert seen["failed"] == [] and seen["close"] == [1005, "the user"]
    assert seen["kinds"][0] == "handshake" and set(seen["kinds"][1:]) <= {"text", "metadata", "ping"}
    assert seen["text"].strip() == "It is one."
    assert abs(seen["loud_s"] - ANSWER_SECONDS) < 1 and seen["heard_s"] > 8
    assert seen["gap_s"] < 2


def test_the_web_ui_is_not_left_without_a_message_for_10_s(call, server):
    seen = call("moshi_web", "javascript", rate=48000, url=f"ws://{server}", seconds=12, silent=True)
    assert seen["failed"] == [] and seen["close"] == [1005, "the user"]


def test_livekit_hears_the_answer(call, server):
    seen = livekit(
        call, server, [["sleep", 1], ["speak"], ["wait", "agent", {"state": "speaking"}], ["sleep", 7], ["interrupt"]], "moshi"
    )
    said = [event["text"].strip() for event in of(seen["events"], "item") if event["role"] == "assistant"]
    assert said == ["It is one."]
