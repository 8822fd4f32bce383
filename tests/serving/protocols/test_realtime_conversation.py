"""`RealtimeConversation` on frames that a test makes: sessions, the user's turns, items, errors, the end, the system prompt."""

import asyncio
import base64
from dataclasses import replace

import numpy as np
import pytest

from nemo_duplex.inputs import InputError
from tests import virtual_time
from tests.serving.protocols.realtime_talk import BEGIN, END, FRAME, QUIET, SOUND, STOPPED, TEXT, FakeCall, Talk


def test_a_session_begins_with_a_complete_object(talk):
    (event,) = talk.sent
    assert event["type"] == "session.created" and event["session"]["model"] == "duplex"
    assert event["session"]["audio"]["input"]["turn_detection"]["interrupt_response"] is True


def test_a_question_and_its_answer_are_told_in_the_order_of_the_api(talk):
    assert talk.frames("..uuuu") == ["input_audio_buffer.speech_started"]
    assert talk.frames("....") == []  # a silence of 440 ms
    assert talk.frames(".") == STOPPED  # of 520 ms
    assert talk.frames("[--]", ["It", " is."]) == [*BEGIN, SOUND, TEXT, SOUND, TEXT, SOUND, SOUND, *END]
    assert talk.frames("....") == []


def test_times_of_speech_are_those_of_the_audio_with_padding_and_silence(talk):
    talk.frames("." * 10 + "uuuu" + "." * 5)
    assert talk.last("input_audio_buffer.speech_started")["audio_start_ms"] == 800 - 300
    assert talk.last("input_audio_buffer.speech_stopped")["audio_end_ms"] == 19 * 80
    talk = Talk()
    detection = {"type": "server_vad", "prefix_padding_ms": 90, "silence_duration_ms": 200}
    talk.client("session.update", session={"audio": {"input": {"turn_detection": detection}}})
    assert talk.frames("..uu") == ["input_audio_buffer.speech_started"] and talk.frames(".") == STOPPED
    assert talk.last("input_audio_buffer.speech_started")["audio_start_ms"] == 70
    assert talk.last("input_audio_buffer.speech_stopped")["audio_end_ms"] == 400


def test_times_of_speech_leave_out_silence_that_the_client_did_not_send(talk):
    frame = replace(QUIET, index=100, user_active=True, user_started=True, heard=2.0)
    asyncio.run(talk.conversation.frame(frame))
    assert talk.last("input_audio_buffer.speech_started")["audio_start_ms"] == 2000 - 80 - 300


def test_the_first_words_of_a_session_begin_at_0_ms(talk):
    talk.frames("u")
    assert talk.last("input_audio_buffer.speech_started")["audio_start_ms"] == 0


def test_a_short_pause_does_not_end_the_users_turn(talk):
    assert talk.frames("uu....uu....") == ["input_audio_buffer.speech_started"]
    assert talk.frames(".") == STOPPED


def test_items_and_events_have_ids_of_their_own_and_are_linked(talk):
    talk.frames("uu.....[-]")
    talk.frames("uu.....[-]")
    ids = [event["event_id"] for event in talk.sent]
    assert len(set(ids)) == len(ids)
    added = [event for event in talk.sent if event["type"] == "conversation.item.added"]
    items = [event["item"]["id"] for event in added]
    assert len(set(items)) == 4 and [event["previous_item_id"] for event in added] == [None, *items[:3]]
    committed = [event for event in talk.sent if event["type"] == "input_audio_buffer.committed"]
    assert [(event["item_id"], event["previous_item_id"]) for event in committed] == [(items[0], None), (items[2], items[1])]
    started = [event["item_id"] for event in talk.sent if event["type"] == "input_audio_buffer.speech_started"]
    assert started == [items[0], items[2]]
    done = [event["response"] for event in talk.sent if event["type"] == "response.done"]
    assert [[item["id"] for item in response["output"]] for response in done] == [[items[1]], [items[3]]]
    assert len({response["id"] for response in done}) == 2 and len({response["conversation_id"] for response in done}) == 1


def test_the_sound_of_a_response_is_the_agents_at_the_clients_rate(talk):
    talk.frames("[" + "-" * 8 + "]")
    deltas = [base64.b64decode(event["delta"]) for event in talk.sent if event["type"] == SOUND]
    samples = np.frombuffer(b"".join(deltas), "<i2") / 32768
    assert len(deltas) == 10 and {len(delta) % 2 for delta in deltas} == {0}
    assert 0 < 10 * 1920 - len(samples) < 60  # the resampler keeps its last 2 ms
    assert np.allclose(samples[200:], 0.1, atol=0.001)


def test_usage_counts_frames_and_pieces_of_text(talk):
    talk.frames("....[--]", ["It", " is."])
    usage = talk.last("response.done")["response"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (8, 6, 14)
    assert usage["output_token_details"] == {"text_tokens": 2, "audio_tokens": 4}
    talk.frames("[]")
    assert talk.last("response.done")["response"]["usage"]["input_tokens"] == 2


# ---------------------------------------------------------------------- items


def test_what_was_not_heard_is_cut_off_the_transcript(talk):
    talk.frames("[---=", ["It", " is", " one."])  # the pieces come with frames 1, 2 and 3: at 80, 160 and 240 ms
    item = talk.last("response.output_item.added")["item"]["id"]
    for end, heard in ((1000, "It is one."), (240, "It is"), (161, "It is"), (160, "It"), (81, "It"), (80, ""), (0, "")):
        truncate = {"item_id": item, "content_index": 0, "audio_end_ms": end}
        assert talk.client("conversation.item.truncate", **truncate) == ["conversation.item.truncated"]
        assert talk.last("conversation.item.truncated")["audio_end_ms"] == end
        talk.client("conversation.item.retrieve", item_id=item)
        retrieved = talk.last("conversation.item.retrieved")["item"]
        assert retrieved["content"] == [{"type": "output_audio", "transcript": heard}] and retrieved["id"] == item


def test_what_was_cut_off_stays_so_when_the_response_ends(talk):
    talk.frames("[--", ["It", " is"])
    item = talk.last("response.output_item.added")["item"]["id"]
    talk.client("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=100)
    talk.frames("-]", [" one."])
    talk.client("conversation.item.retrieve", item_id=item)
    retrieved = talk.last("conversation.item.retrieved")["item"]
    assert retrieved["content"][0]["transcript"] == "It" and retrieved["status"] == "completed"
    talk.frames("[-]", ["Next."])
    talk.client("conversation.item.retrieve", item_id=talk.last("response.output_item.added")["item"]["id"])
    assert talk.last("conversation.item.retrieved")["item"]["content"][0]["transcript"] == "Next."


@pytest.mark.parametrize(
    "change, code, param",
    [
        ({"item_id": "item_x"}, "item_truncate_invalid_item_id", "item_id"),
        ({"content_index": 1}, "invalid_value", "content_index"),
        ({"audio_end_ms": -1}, "invalid_value", "audio_end_ms"),
        ({"audio_end_ms": "9"}, "invalid_type", "audio_end_ms"),
        ({"audio_end_ms": None}, "missing_required_parameter", "audio_end_ms"),
    ],
)
def test_what_cannot_be_truncated(talk, change, code, param):
    talk.frames("[-]")
    item = talk.last("response.output_item.added")["item"]["id"]
    fields = {"item_id": item, "content_index": 0, "audio_end_ms": 80} | change
    assert talk.client("conversation.item.truncate", event_id="e1", **fields) == ["error"]
    assert (talk.error["code"], talk.error["param"], talk.error["event_id"]) == (code, param, "e1")


def test_what_the_user_said_cannot_be_truncated(talk):
    talk.frames("uu.....")
    item = talk.last("input_audio_buffer.committed")["item_id"]
    talk.client("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=80)
    assert talk.error["code"] == "invalid_value"


def test_an_item_can_be_deleted_while_it_is_spoken(talk):
    talk.frames("[-")
    item = talk.last("response.output_item.added")["item"]["id"]
    assert talk.client("conversation.item.delete", item_id=item) == ["conversation.item.deleted"]
    assert talk.frames("-]") == [SOUND, SOUND, *END[:4], END[5]]
    talk.frames("[")
    assert talk.last("conversation.item.added")["previous_item_id"] is None


def test_a_sound_in_an_item_is_heard_by_the_agent(talk):
    content = [{"type": "input_audio", "audio": base64.b64encode(b"\x00\x40" * 4).decode(), "transcript": "Hi"}]
    item = {"type": "message", "role": "user", "content": content}
    kinds = talk.client("conversation.item.create", item=item)
    assert kinds == ["conversation.item.added", "conversation.item.done"]
    assert talk.last("conversation.item.added")["item"]["content"] == [{"type": "input_audio", "transcript": "Hi"}]
    assert talk.call.pushed[0].tolist() == [0.5] * 4


# ---------------------------------------------------------------------- the user's audio


def test_audio_is_decoded_in_the_format_of_the_session(talk):
    sound = base64.b64encode(np.array([0, 16384, -32768], "<i2").tobytes()).decode()
    assert talk.client("input_audio_buffer.append", audio=sound) == []
    assert talk.call.pushed.pop().tolist() == [0.0, 0.5, -1.0]
    for kind, silence in (("audio/pcmu", b"\xff"), ("audio/pcma", b"\xd5")):
        talk.client("session.update", session={"audio": {"input": {"format": {"type": kind}}}})
        talk.client("input_audio_buffer.append", audio=base64.b64encode(silence * 800).decode())
        (samples,) = talk.call.pushed
        talk.call.pushed.clear()
        assert 2400 - 120 <= len(samples) <= 2400 and np.abs(samples).max() < 0.001
    talk.client("session.update", session={"audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}}}})
    talk.client("input_audio_buffer.append", audio=sound)
    assert len(talk.call.pushed[0]) == 3


def test_a_telephone_hears_8_khz(talk):
    talk.client("session.update", session={"audio": {"output": {"format": {"type": "audio/pcmu"}}}})
    talk.frames("[" + "-" * 8 + "]")
    sound = b"".join(base64.b64decode(event["delta"]) for event in talk.sent if event["type"] == SOUND)
    assert 0 < 10 * 640 - len(sound) < 60
    assert set(sound[200:]) == {0xB5}  # 0.1 of full scale


def test_another_format_holds_from_the_next_response_on(talk):
    talk.frames("[-")
    talk.client("session.update", session={"audio": {"output": {"format": {"type": "audio/pcma"}}}})
    talk.frames("-")
    assert len(base64.b64decode(talk.last(SOUND)["delta"])) in (3838, 3840, 3842)
    talk.frames("][-")
    assert len(base64.b64decode(talk.last(SOUND)["delta"])) == 640


@pytest.mark.parametrize("audio, told", [("AAA", "base64"), ("AAAA", "3 bytes"), ("Ä", "base64"), ("A A\nA=", None)])
def test_audio_that_is_none(talk, audio, told):
    kinds = talk.client("input_audio_buffer.append", audio=audio, event_id="e1")
    if told is None:
        assert kinds == [] and len(talk.call.pushed[0]) == 1
    else:
        assert kinds == ["error"] and told in talk.error["message"] and talk.call.pushed == []
        assert (talk.error["param"], talk.error["event_id"]) == ("audio", "e1")
    assert talk.frames("u") == ["input_audio_buffer.speech_started"]


def test_the_client_commits_and_clears(talk):
    assert talk.client("input_audio_buffer.commit") == STOPPED[1:]
    assert talk.client("input_audio_buffer.clear") == ["input_audio_buffer.cleared"]
    talk.frames("uu")
    speaking = talk.last("input_audio_buffer.speech_started")["item_id"]
    talk.client("input_audio_buffer.commit")
    assert talk.last("input_audio_buffer.committed")["item_id"] == speaking
    talk.client("input_audio_buffer.commit")
    assert talk.last("input_audio_buffer.committed")["item_id"] != speaking
    assert talk.frames(".....") == ["input_audio_buffer.speech_stopped"]
    assert talk.frames("uu.....")[1:] == STOPPED
    assert talk.call.asked == [("pause",)] * 3


# ---------------------------------------------------------------------- errors, the end, another player


@pytest.mark.parametrize(
    "message, code",
    [
        ("{", "invalid_json"),
        ("[]", "invalid_json"),
        (b"\xff\x00", "invalid_json"),
        ("{}", "missing_required_parameter"),
        ('{"type": 3}', "invalid_type"),
        ('{"type": "response.say"}', "invalid_value"),
        ('{"type": "input_audio_buffer.append"}', "missing_required_parameter"),
        ('{"type": "input_audio_buffer.append", "audio": 3}', "invalid_type"),
        ('{"type": "session.update", "session": {"output_modalities": ["video"]}}', "invalid_value"),
        ('{"type": "session.update", "session": {"output_modalities": []}}', "invalid_value"),
        ('{"type": "response.create", "response": []}', "invalid_type"),
        ('{"type": "response.create", "response": {"metadata": 3}}', "invalid_type"),
        ('{"type": "response.create", "response": {"output_modalities": "audio"}}', "invalid_value"),
        ('{"type": "conversation.item.create", "item": {"role": ["user"]}}', "invalid_value"),
    ],
)
def test_what_is_wrong_is_told_and_the_session_goes_on(talk, message, code):
    if isinstance(message, str) and message.startswith('{"'):
        message = message[:-1] + ', "event_id": "e1"}'
    assert talk.raw(message) == ["error"]
    assert talk.error["code"] == code and "\n" not in talk.error["message"]
    assert talk.error["event_id"] == ("e1" if "e1" in str(message) else None)
    assert talk.frames("[-]")[0] == "response.created"


@pytest.mark.parametrize("ended, code", [("idle", "session_expired"), ("failed", "server_error"), ("hung_up", None)])
def test_the_end_is_told(talk, ended, code):
    talk.call.ended = ended
    asyncio.run(talk.conversation.closed())
    assert (talk.sent[-1]["type"] == "error") == (code is not None)
    if code:
        assert talk.error["code"] == code


def test_the_session_expires_when_the_longest_call_ends():
    before = Talk().sent[0]["session"]["expires_at"]
    assert Talk().sent[0]["session"]["expires_at"] - before < 60


class Player:
    """Plays nothing until a test says so."""

    def __init__(self):
        self.queued, self.did = {}, []

    def play(self, response, audio):
        self.queued[response] = self.queued.get(response, 0) + len(audio)

    def finish(self):
        self.did.append("finish")

    def clear(self):
        self.did.append("clear")
        cleared, self.queued = dict.fromkeys(self.queued, 0.1), {}
        return cleared


def test_a_player_gets_the_sound_instead_of_events():
    player = Player()
    talk = Talk(player)
    assert talk.frames("...[-]", ["Yes."]) == [*BEGIN, "output_audio_buffer.started", TEXT, *END]
    response = talk.last("response.done")["response"]["id"]
    assert player.queued == {response: 3 * FRAME} and player.did == ["finish"]
    asyncio.run(talk.conversation.played(response))
    assert talk.sent[-1]["type"] == "output_audio_buffer.stopped" and talk.sent[-1]["response_id"] == response
    player.queued.clear()
    talk.frames("[--", ["It", " is"])
    kinds = talk.frames("=")
    cleared = ["output_audio_buffer.cleared", "conversation.item.truncated"]
    assert kinds == ["input_audio_buffer.speech_started", *END, *cleared] and player.did[1:] == ["clear"]
    assert talk.last("conversation.item.truncated")["audio_end_ms"] == 100
    assert talk.frames("}") == [] and player.queued == {}
    talk.frames(".....[-")
    assert talk.client("output_audio_buffer.clear") == [*END, *cleared]


def test_events_keep_their_order_when_sending_is_slow():
    talk = Talk()
    sent = []

    async def slow(event):
        await asyncio.sleep(0)
        sent.append(event["event_id"])

    async def both():
        talk.conversation._send = slow
        frame = replace(QUIET, turn_started=True, speaking=True)
        update = {"type": "session.update", "session": {}}
        await asyncio.gather(*(f(x) for f, x in ((talk.conversation.frame, frame), (talk.conversation.handle, update))))

    asyncio.run(both())
    assert sent == sorted(sent) and len(sent) == 6


# ---------------------------------------------------------------------- instructions as a system prompt


class CallToBegin(FakeCall):
    """A call that can read 10 tokens of 4 characters."""

    def __init__(self):
        super().__init__()
        self.has_begun, self.prompts = False, []

    async def begin(self, sampling, system_prompt=None):
        self.prompts.append(system_prompt)
        if system_prompt is not None and len(system_prompt) > 40:
            raise InputError("too long")
        self.has_begun = True


def begun_with(instructions, first, **config):
    """The prompts with which a call begins, if its client sets instructions and then sends `first`."""
    talk = Talk(**config)
    call = talk.conversation.call = CallToBegin()

    async def talking():
        beginning = asyncio.ensure_future(talk.conversation.begin())
        await asyncio.sleep(0.01)
        for event in ({"type": "session.update", "session": {"instructions": instructions}}, first):
            await talk.conversation.handle(event)
        await asyncio.wait_for(beginning, 0.5)

    virtual_time.run(talking())
    return call.prompts


@pytest.mark.parametrize("first", [{"type": "input_audio_buffer.append", "audio": "AAA="}, {"type": "response.create"}])
def test_instructions_are_the_system_prompt_where_there_is_room_for_one(first, caplog):
    assert begun_with(" Be kind. ", first, prompt_tokens=10) == ["Be kind."]
    assert begun_with("", first, prompt_tokens=10) == [None]
    assert begun_with("Be kind.", first) == [None]
    assert caplog.text == ""
    assert begun_with("x" * 41, first, prompt_tokens=10) == ["x" * 41, None]
    assert begun_with("x" * 161, first, prompt_tokens=10) == [None]
    assert "prompt_tokens=10" in caplog.text and "xxx" not in caplog.text
