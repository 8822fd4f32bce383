"""Partial updates of the session object, in the form of today and of older clients."""

import copy

import pytest

from nemo_duplex.serving.protocols.realtime.client_events import EventError
from nemo_duplex.serving.protocols.realtime.session_object import SessionObject
from tests.serving.protocols.realtime_schema import check_event


@pytest.fixture
def session():
    return SessionObject("sess_1", "duplex", 1)


def updated(session, **changes):
    session.update(changes)
    check_event({"type": "session.updated", "event_id": "e", "session": session.shown})
    return session.shown


def test_what_is_not_named_stays(session):
    before = copy.deepcopy(session.shown)
    shown = updated(session, audio={"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 700}}})
    before["audio"]["input"]["turn_detection"]["silence_duration_ms"] = 700
    assert shown == before
    shown = updated(session, audio={"output": {"voice": "marin"}}, instructions="Be kind.")
    before["audio"]["output"]["voice"], before["instructions"] = "marin", "Be kind."
    assert shown == before and session.silence_ms == 700
    assert updated(session, unknown=3, audio={"unknown": 3}, id="x", object="y", expires_at=9) == before


def test_what_was_shown_before_does_not_change(session):
    before = session.shown
    updated(session, audio={"output": {"speed": 1.5}})
    assert before["audio"]["output"]["speed"] == 1.0


def test_turn_detection_is_switched_off_and_on(session):
    assert (session.detects, session.creates, session.interrupts) == (True, True, True)
    for off in (None, False, {"type": "none"}):
        assert updated(session, audio={"input": {"turn_detection": off}})["audio"]["input"]["turn_detection"] is None
        assert (session.detects, session.creates, session.interrupts) == (False, False, False)
        shown = updated(session, audio={"input": {"turn_detection": {"type": "server_vad", "create_response": False}}})
        assert shown["audio"]["input"]["turn_detection"]["prefix_padding_ms"] == 300
        assert (session.detects, session.creates, session.interrupts) == (True, False, True)


def test_another_kind_of_turn_detection_has_settings_of_its_own(session):
    updated(session, audio={"input": {"turn_detection": {"prefix_padding_ms": 100, "interrupt_response": False}}})
    updated(session, audio={"input": {"turn_detection": {"type": "server_vad", "threshold": 0.4}}})
    assert session.prefix_ms == 100 and not session.interrupts
    shown = updated(session, audio={"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}}})
    expected = {"type": "semantic_vad", "eagerness": "low", "create_response": True, "interrupt_response": True}
    assert shown["audio"]["input"]["turn_detection"] == expected
    assert (session.prefix_ms, session.silence_ms) == (300, 500)


def test_settings_of_turn_detection_beyond_reason_are_bounded(session):
    updated(session, audio={"input": {"turn_detection": {"prefix_padding_ms": 10**400, "silence_duration_ms": -3}}})
    assert (session.prefix_ms, session.silence_ms) == (10_000, 0)


@pytest.mark.parametrize("kind, rate", [("audio/pcmu", 8000), ("audio/pcma", 8000), ("audio/pcm", 24000)])
def test_formats(session, kind, rate):
    shown = updated(session, audio={"input": {"format": {"type": kind}}, "output": {"format": {"type": kind, "rate": rate}}})
    assert session.input_format == session.output_format and session.input_format.sample_rate == rate
    assert shown["audio"]["input"]["format"] == ({"type": kind, "rate": 24000} if kind == "audio/pcm" else {"type": kind})


def test_there_is_no_transcription_of_the_user(session):
    shown = updated(
        session, audio={"input": {"transcription": {"model": "whisper-1"}, "noise_reduction": {"type": "near_field"}}}
    )
    assert shown["audio"]["input"]["transcription"] is None
    assert shown["audio"]["input"]["noise_reduction"] == {"type": "near_field"}


def test_the_flat_form_of_older_clients(session):
    shown = updated(
        session,
        modalities=["audio", "text"],
        voice="alloy",
        input_audio_format="g711_ulaw",
        output_audio_format="g711_alaw",
        input_audio_transcription={"model": "whisper-1"},
        turn_detection={"type": "server_vad", "threshold": 0.4},
        max_response_output_tokens=200,
        temperature=0.8,
    )
    assert shown["output_modalities"] == ["audio"] and shown["max_output_tokens"] == 200
    assert shown["audio"]["output"] == {"format": {"type": "audio/pcma"}, "voice": "alloy", "speed": 1.0}
    assert shown["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert shown["audio"]["input"]["turn_detection"]["threshold"] == 0.4
    assert updated(session, turn_detection=None)["audio"]["input"]["turn_detection"] is None


@pytest.mark.parametrize(
    "changes, param",
    [
        ({"type": "transcription"}, "session.type"),
        ({"output_modalities": "audio"}, "session.output_modalities"),
        ({"output_modalities": ["audio", "video"]}, "session.output_modalities"),
        ({"instructions": 3}, "session.instructions"),
        ({"tools": {}}, "session.tools"),
        ({"max_output_tokens": 1.5}, "session.max_output_tokens"),
        ({"audio": []}, "session.audio"),
        ({"audio": {"input": 3}}, "session.audio.input"),
        ({"audio": 3, "voice": "alloy"}, "session.audio"),
        ({"audio": {"input": {"format": {"type": "audio/opus"}}}}, "session.audio.input.format.type"),
        ({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}}, "session.audio.input.format.rate"),
        ({"audio": {"output": {"format": {"type": ["audio/pcm"]}}}}, "session.audio.output.format.type"),
        ({"audio": {"output": {"speed": True}}}, "session.audio.output.speed"),
        ({"audio": {"output": {"voice": 3}}}, "session.audio.output.voice"),
        ({"audio": {"input": {"turn_detection": "server_vad"}}}, "session.audio.input.turn_detection"),
        ({"audio": {"input": {"turn_detection": {"type": "vad"}}}}, "session.audio.input.turn_detection.type"),
        ({"audio": {"input": {"turn_detection": {"threshold": "1"}}}}, "session.audio.input.turn_detection.threshold"),
        (
            {"audio": {"input": {"turn_detection": {"create_response": 1}}}},
            "session.audio.input.turn_detection.create_response",
        ),
        ({"audio": {"input": {"transcription": "whisper"}}}, "session.audio.input.transcription"),
        ({"input_audio_format": "opus"}, "session.audio.input.format.type"),
    ],
)
def test_a_wrong_value_changes_nothing(session, changes, param):
    before = copy.deepcopy(session.shown)
    with pytest.raises(EventError) as raised:
        session.update({"instructions": "New.", **changes})
    assert raised.value.param == param and session.shown == before
    assert raised.value.code in ("invalid_value", "invalid_type")
