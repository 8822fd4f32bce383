"""What a caller of OpenAI Live sends: whatever it is, it becomes an event, a configuration or one line of error."""

import base64
import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_duplex.serving.protocols.live_events import ClientEvent, EventError, LiveConfig
from nemo_duplex.serving.wire_audio import WireFormat

TYPES = [
    *("session.start", "session.update", "session.close", "session.input_audio.append", "session.input_audio.mute"),
    *("session.commentary.append", "session.instructions.append", "session.thinking.append", "response.create"),
]
KEYS = [
    *("type", "event_id", "session", "audio", "model", "instructions", "format", "output", "voice", "rate", "delegation", "id"),
    *("responses", "acknowledgement_delay_ms", "input", "store", "triggers", "idle_timeout_s", "wake_policy", "vad_threshold"),
    *("safety_identifier", "content", "delegation_id", "client"),
]
DELAY = "acknowledgement_delay_ms"
WORDS = ["audio/pcm", "audio/pcmu", "audio/pcma", "client", "responses", "decisions", "speech", "marin", "AAAA", "AAA=", "AAA"]


def json_values():
    """JSON that is built of the words of the protocol, in the right places and in wrong ones."""
    leaves = st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.sampled_from(WORDS + TYPES)),
        *(st.sampled_from([0, 1, 8000, 16000, 24000, -1]), st.binary(max_size=12).map(lambda b: base64.b64encode(b).decode())),
    )
    keys = st.one_of(st.sampled_from(KEYS), st.text(max_size=6))
    return st.recursive(
        leaves, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=6)), max_leaves=12
    )


def sessions():
    """Sessions that are nearly right."""
    format = st.fixed_dictionaries(
        {}, optional={"type": st.sampled_from(WORDS), "rate": st.sampled_from([8000, 16000, 24000, 22050]) | json_values()}
    )
    audio = st.fixed_dictionaries({}, optional={"format": format | json_values(), "output": json_values()})
    optional = {
        "audio": audio,
        "delegation": json_values(),
        "instructions": st.text(max_size=20) | json_values(),
        "idle_timeout_s": st.integers(-1, 3) | json_values(),
        "wake_policy": st.fixed_dictionaries({"type": st.just("speech")}, optional={"vad_threshold": json_values()}),
        "input": json_values(),
        "store": st.booleans(),
        "triggers": json_values(),
    }
    return st.fixed_dictionaries({"model": st.sampled_from(WORDS)}, optional=optional)


def messages():
    """Messages of a caller, text and binary: nearly right, wrong, cut off, garbage."""
    event = st.fixed_dictionaries(
        {"type": st.sampled_from(TYPES)},
        optional={
            "session": sessions() | json_values(),
            "audio": json_values(),
            "event_id": json_values(),
            "content": json_values(),
            "delegation_id": json_values(),
        },
    )
    text = (event | json_values()).map(json.dumps)
    cut = st.tuples(text, st.floats(0, 1)).map(lambda given: given[0][: int(len(given[0]) * given[1])])
    return st.one_of(text, cut, st.text(max_size=40), st.binary(max_size=40), text.map(str.encode))


def check(message):
    """Decodes a message in every way that the protocol does; what comes out can be sent and used."""
    wire = WireFormat("pcm16", 24000)
    try:
        event = ClientEvent.of(message)
    except EventError as error:
        assert_one_line(error)
        return
    assert isinstance(event.type, str) and (event.event_id is None or isinstance(event.event_id, str))
    for read in (lambda: event.audio(wire), event.content, lambda: LiveConfig.of(event), lambda: LiveConfig.of(event, True)):
        try:
            found = read()
        except EventError as error:
            assert_one_line(error)
            continue
        if isinstance(found, np.ndarray):
            assert found.dtype == np.float32 and np.isfinite(found).all() and np.abs(found).max(initial=0) <= 1
        elif isinstance(found, str):
            assert found.strip()
        else:
            assert all(name.isprintable() and len(name) < 200 for name in found.unused)
            sent = json.dumps(found.resource("live_1", 1), allow_nan=False, ensure_ascii=False).encode()
            assert json.loads(sent)["audio"]["format"]["rate"] == found.wire.sample_rate
            try:
                assert found.updated(event).wire == found.wire
            except EventError as error:
                assert_one_line(error)


def assert_one_line(error):
    assert 0 < len(error.message) < 300 and error.code and error.message.isprintable()
    json.dumps([error.message, error.param, error.event_id], ensure_ascii=False).encode()


@given(messages())
def test_whatever_comes_is_an_event_or_one_line_of_error(message):
    check(message)


def event(**fields):
    return ClientEvent.of(json.dumps(fields))


def start(**session):
    return event(type="session.start", session={"model": "m", **session})


def refused(read):
    with pytest.raises(EventError) as raised:
        read()
    return raised.value.code, raised.value.param


@pytest.mark.parametrize("message", ["[" * 2000, '{"a": NaN}', '{"a": 1e999}', '{"type": "x", "event_id": "\\ud800"}', b"\xff"])
def test_what_no_other_peer_could_read_is_no_json(message):
    assert refused(lambda: ClientEvent.of(message)) == ("invalid_json", None)


def test_the_name_of_an_event_without_type_is_kept_for_the_error():
    with pytest.raises(EventError) as raised:
        ClientEvent.of('{"event_id": "mine"}')
    assert raised.value.event_id == "mine"


def test_audio_is_decoded_in_the_format_of_the_session():
    append = event(type="session.input_audio.append", audio=base64.b64encode(b"\x00\x40\x00\xc0").decode())
    assert append.audio(WireFormat("pcm16", 16000)).tolist() == [0.5, -0.5]
    assert len(append.audio(WireFormat("ulaw", 8000))) == 4
    odd = event(type="session.input_audio.append", audio=base64.b64encode(b"abc").decode())
    assert refused(lambda: odd.audio(WireFormat("pcm16", 16000))) == ("invalid_audio", "audio")
    assert len(odd.audio(WireFormat("alaw", 8000))) == 3
    for audio, code in (
        ("AA!AA", "invalid_base64"),
        ("\u00e9", "invalid_base64"),
        (None, "invalid_type"),
        ([], "invalid_type"),
    ):
        wrong = event(type="session.input_audio.append", audio=audio)
        assert refused(partial(wrong.audio, WireFormat("ulaw", 8000))) == (code, "audio")


@pytest.mark.parametrize(
    "session, param, code",
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": ""}, "model", "missing_required_parameter"),
        ({"audio": []}, "audio", "invalid_type"),
        ({"audio": {"format": {"type": "audio/opus"}}}, "audio.format.type", "invalid_value"),
        ({"audio": {"format": {"type": "audio/pcm", "rate": 8000}}}, "audio.format.rate", "invalid_value"),
        ({"audio": {"format": {"type": "audio/pcmu", "rate": 16000}}}, "audio.format.rate", "invalid_value"),
        ({"audio": {"format": {"type": "audio/pcm", "rate": 16000.0}}}, "audio.format.rate", "invalid_value"),
        ({"audio": {"output": {"voice": 1}}}, "audio.output.voice", "invalid_type"),
        ({"instructions": 1}, "instructions", "invalid_type"),
        ({"store": "yes"}, "store", "invalid_type"),
        ({"input": [1]}, "input", "invalid_type"),
        ({"input": [{}] * 129}, "input", "invalid_value"),
        ({"triggers": [{}]}, "triggers", "unsupported"),
        ({"idle_timeout_s": 0}, "idle_timeout_s", "invalid_value"),
        ({"idle_timeout_s": True}, "idle_timeout_s", "invalid_type"),
        ({"wake_policy": {"type": "word"}}, "wake_policy.type", "invalid_value"),
        ({"wake_policy": {"type": "speech", "vad_threshold": 1.1}}, "wake_policy.vad_threshold", "invalid_value"),
        ({"delegation": {"type": "decisions", "decisions": {}}}, "delegation.type", "unsupported"),
        ({"delegation": {"type": "responses", "responses": 1}}, "delegation.responses", "invalid_type"),
        ({"delegation": {"type": "client", "acknowledgement_delay_ms": -1}}, f"delegation.{DELAY}", "invalid_value"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_configuration_is_named(session, param, code):
    assert refused(lambda: LiveConfig.of(start(**session))) == (code, f"session.{param}")


def test_what_is_left_out_has_defaults():
    config = LiveConfig.of(start(audio={"format": {"type": "audio/pcmu"}}, input=[{}] * 128, wake_policy={"type": "speech"}))
    assert config.wire == WireFormat("ulaw", 8000) and config.idle_seconds is None and config.unused == ("input",)
    assert "idle_timeout_s" not in config.resource("live_1", 1)
    custom = LiveConfig.of(start(audio={"output": {"voice": {"id": "voice_1"}}}))
    assert custom.resource("live_1", 1)["audio"]["output"]["voice"] == {"id": "voice_1"}


def test_instructions_are_unused_only_where_nobody_reads_them():
    assert LiveConfig.of(start(instructions="Be brief.")).unused == ("instructions",)
    assert LiveConfig.of(start(instructions="Be brief."), True).unused == LiveConfig.of(start(instructions=" ")).unused == ()


def test_names_that_a_caller_made_up_stay_one_short_line():
    made_up = {"a\nb": 1, "x" * 10_000: 1, "\u202e": 1}
    unused = LiveConfig.of(start(**made_up)).unused
    assert unused == ("'a\\nb'", "'" + "x" * 40 + "'", "'\\u202e'")
    for name in made_up:
        with pytest.raises(EventError) as raised:
            LiveConfig.of(start()).updated(event(type="session.update", session={name: 1}))
        assert_one_line(raised.value)


def test_an_update_changes_what_it_names():
    responses = {"type": "responses", "responses": {"model": "a", "tools": []}, "acknowledgement_delay_ms": 9}
    config = LiveConfig.of(start(delegation=responses))
    assert config.updated(event(type="session.update", session={})) == config
    changed = config.updated(event(type="session.update", session={"delegation": {"responses": {"model": "b"}}}))
    assert changed.delegation == responses | {"responses": {"model": "b", "tools": []}}
    delayed = changed.updated(event(type="session.update", session={"delegation": {"acknowledgement_delay_ms": 0}}))
    assert delayed.delegation == changed.delegation | {"acknowledgement_delay_ms": 0}
