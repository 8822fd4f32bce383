"""`RealtimeConversation` on frames that a test makes: what is sent, in which order, and what the call is asked for."""

import asyncio
import base64
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.serving.call import CallFrame
from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.serving.protocols.realtime.conversation import RealtimeConversation
from tests.serving.protocols.realtime_schema import check_event

AGENT_RATE, FRAME = 22050, 1764
QUIET = CallFrame(0, np.zeros(FRAME, np.float32), "", False, False, False, False, False, False)
#: Events of a response, but for its deltas.
BEGIN = ["response.created", "response.output_item.added", "conversation.item.added", "response.content_part.added"]
END = [
    *("response.output_audio.done", "response.output_audio_transcript.done", "response.content_part.done"),
    *("response.output_item.done", "conversation.item.done", "response.done"),
]
STOPPED = [
    *("input_audio_buffer.speech_stopped", "input_audio_buffer.committed", "conversation.item.added"),
    "conversation.item.done",
]
SOUND, TEXT = "response.output_audio.delta", "response.output_audio_transcript.delta"


class FakeCall:
    """A call whose frames a test makes; keeps what it is asked for."""

    def __init__(self):
        self.asked, self.pushed, self.made, self.next_unheard, self.ended = [], [], 0, 0, None
        self.sample_rate, self.last_push, self.has_begun, self.id = 24000, 0.0, True, "call"

    def check_said(self, text):
        if "unsayable" in text:
            raise InputError("say: not in this voice")

    async def push(self, samples):
        self.pushed.append(samples)

    def __getattr__(self, name):
        if name not in ("stop", "start", "say", "pause"):
            raise AttributeError(name)
        return lambda *values: self.asked.append((name, *values))


class Talk:
    """A conversation that runs frame by frame.

    `frames("..u")`: one letter a frame: . quiet, u the user speaks, [ a turn begins, - it goes on, ] it ends, | one ends and
    another begins; upper case: the same while the user speaks. `words` are added one a frame of a turn.
    """

    def __init__(self, player=None, **limits):
        self.call, self.sent, self.index, self.active, self.speaking = FakeCall(), [], 0, False, False
        model, worker = SimpleNamespace(agent_sample_rate=AGENT_RATE), SimpleNamespace(frame_seconds=0.08)
        server = SimpleNamespace(model=model, worker=worker, config=ServerConfig(**limits))

        async def send(event):
            check_event(json.loads(json.dumps(event)))
            self.sent.append(event)

        self.conversation = RealtimeConversation(self.call, server, send, "duplex", player)
        asyncio.run(self.conversation.opened())

    def frames(self, letters, words=()):
        """Runs frames; returns the types of the events that they cause."""
        before, words = len(self.sent), list(words)
        for letter in letters:
            active = letter in "uU" or letter in "{=}"
            letter = {"{": "[", "=": "-", "}": "]"}.get(letter, letter)
            started = letter in "[|"
            ended = letter == "]" or (started and self.speaking)
            self.speaking = self.speaking or started
            frame = replace(
                QUIET,
                index=self.index,
                audio=np.full(FRAME, 0.1, np.float32) if self.speaking else QUIET.audio,
                text=words.pop(0) if words and letter == "-" else "",
                turn_started=started,
                turn_ended=ended,
                speaking=self.speaking,
                user_active=active,
                user_started=active and not self.active,
                user_stopped=self.active and not active,
                heard=(self.index + 1) * 0.08,
            )
            self.active, self.speaking = active, self.speaking and letter != "]"
            self.index += 1
            self.call.made = self.index
            asyncio.run(self.conversation.frame(frame))
        return [event["type"] for event in self.sent[before:]]

    def client(self, kind, **fields):
        """Sends an event; returns the types of the events that it causes."""
        return self.raw({"type": kind, **fields})

    def raw(self, message):
        before = len(self.sent)
        asyncio.run(self.conversation.handle(message if isinstance(message, str | bytes) else json.dumps(message)))
        return [event["type"] for event in self.sent[before:]]

    def last(self, kind):
        return next(event for event in reversed(self.sent) if event["type"] == kind)

    @property
    def error(self):
        return self.last("error")["error"]


@pytest.fixture
def talk():
    return Talk()


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


# ---------------------------------------------------------------------- barge-in


def test_who_interrupts_is_told_at_once_and_nothing_more_of_the_response_is_sent(talk):
    talk.frames("[---", ["It", " is", " one."])
    assert talk.frames("=") == ["input_audio_buffer.speech_started", *END]
    assert talk.call.asked == [("stop",)]
    response = talk.last("response.done")["response"]
    assert response["status"] == "cancelled"
    assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    (item,) = response["output"]
    assert item["status"] == "incomplete" and item["content"] == [{"type": "output_audio", "transcript": "It is one."}]
    assert talk.last("conversation.item.done")["item"] == item
    assert talk.frames("==}") == []  # the rest of the turn
    assert talk.frames(".....[]")[: len(STOPPED)] == STOPPED  # and the next one is a response again
    assert talk.last("response.done")["response"]["status"] == "completed"


def test_a_turn_that_began_before_the_agent_was_stopped_is_not_shown(talk):
    talk.frames("[-")
    talk.call.made = talk.index + 1
    talk.frames("=")
    assert talk.frames("|}") == []  # made before `stop`
    assert "response.created" in talk.frames(".....[")


def test_without_interrupt_response_the_model_alone_decides_when_it_stops(talk):
    detection = {"type": "server_vad", "interrupt_response": False}
    talk.client("session.update", session={"audio": {"input": {"turn_detection": detection}}})
    talk.frames("[-")
    assert talk.frames("==") == ["input_audio_buffer.speech_started", SOUND, SOUND]
    assert talk.frames("}") == [SOUND, *END] and talk.call.asked == []
    assert talk.last("response.done")["response"]["status"] == "completed"


def test_a_model_far_ahead_of_the_client_is_not_stopped_by_an_old_interruption(talk):
    talk.frames("[-")
    talk.call.made = talk.index + 20
    frame = replace(QUIET, index=talk.index, speaking=True, user_active=True, user_started=True)
    asyncio.run(talk.conversation.frame(frame))
    assert talk.last("response.done")["response"]["status"] == "cancelled" and talk.call.asked == []


def test_an_agent_that_begins_ends_the_users_turn(talk):
    talk.frames("uuu")
    assert talk.frames("{=")[: len(STOPPED) + len(BEGIN)] == [*STOPPED, *BEGIN]
    assert talk.frames("." * 8 + "]")[-1] == "response.done"
    assert talk.last("response.done")["response"]["status"] == "completed"


def test_a_user_who_speaks_on_over_the_agent_for_a_second_interrupts_it(talk):
    talk.frames("uuu{" + "=" * 12)
    assert talk.frames("=")[0] == "input_audio_buffer.speech_started"
    assert talk.last("response.done")["response"]["status_details"]["reason"] == "turn_detected"


def test_a_noise_that_never_ends_does_not_interrupt(talk):
    talk.frames("u" * 130 + "{" + "=" * 40)
    assert "response.done" not in [event["type"] for event in talk.sent]
    talk.frames(".u")
    assert talk.last("response.done")["response"]["status_details"]["reason"] == "turn_detected"


def test_a_turn_that_follows_another_at_once_is_another_response(talk):
    talk.frames("[-")
    assert talk.frames("|") == [*END, *BEGIN, SOUND]
    assert talk.last("response.done")["response"]["status"] == "completed"


# ---------------------------------------------------------------------- responses that the client asks for


def test_a_response_is_asked_for_and_the_agent_begins(talk):
    metadata = {"client_event_id": "mine"}
    assert talk.client("response.create", response={"metadata": metadata}) == ["response.created"]
    assert talk.last("response.created")["response"]["metadata"] == metadata
    assert talk.call.asked == [("pause",), ("start",)]
    assert talk.frames("[")[:3] == [*BEGIN[1:]]
    talk.frames("]")
    response = talk.last("response.done")["response"]
    assert response["metadata"] == metadata and response["id"] == talk.last("response.created")["response"]["id"]


def test_the_agent_is_asked_when_it_has_heard_what_was_sent(talk):
    talk.frames("..")
    talk.call.next_unheard = 6
    talk.client("response.create")
    talk.frames("...")
    assert talk.call.asked == [("pause",)]
    talk.frames(".")
    assert talk.call.asked == [("pause",), ("start",)]  # for frame 6
    talk.frames("....")
    assert talk.call.asked == [("pause",), ("start",)]
    talk.frames(".")
    assert talk.call.asked == [("pause",), ("start",), ("start",)]
    talk.frames("[]")
    assert talk.last("response.done")["response"]["status"] == "completed"


def test_an_agent_that_the_user_spoke_to_is_asked_only_if_it_does_not_begin_by_itself(talk):
    talk.frames("..uu")  # the last of the user's speech is in frame 3: an answer by frame 18
    talk.call.next_unheard = 6
    talk.client("response.create")
    talk.frames("." * 13)
    assert talk.call.asked == [("pause",)]
    talk.frames(".")
    assert talk.call.asked == [("pause",), ("start",)]
    talk.frames("[]")
    talk.call.asked.clear()
    talk.call.next_unheard = 20
    talk.client("response.create")  # the user has said nothing since that turn
    assert talk.call.asked == [("pause",), ("start",)]


def test_a_user_who_speaks_on_does_not_keep_the_agent_from_being_asked(talk):
    talk.frames("uu")
    talk.call.next_unheard = 6
    talk.client("response.create")
    talk.frames("u" * 18)
    assert talk.call.asked == [("pause",)]
    talk.frames("u")
    assert talk.call.asked == [("pause",), ("start",)]  # for frame 21


def test_an_agent_that_does_not_begin_fails_the_response(talk):
    talk.client("response.create")
    assert talk.frames("." * 40) == [] and talk.frames(".") == ["response.done"]
    response = talk.last("response.done")["response"]
    assert response["status"] == "failed" and response["output"] == []
    assert response["status_details"]["error"]["code"] == "no_turn"


def test_a_client_can_let_the_agent_say_something(talk):
    talk.client("response.create", response={"metadata": {"say": "Hello."}})
    assert talk.call.asked == [("pause",), ("say", "Hello.")]
    talk.frames(".....")
    assert talk.call.asked[2:] == []


def test_what_the_agent_cannot_say_opens_no_response(talk):
    assert talk.client("response.create", response={"metadata": {"say": "unsayable"}}, event_id="e1") == ["error"]
    assert talk.error["param"] == "response.metadata.say" and talk.error["message"] == "say: not in this voice"
    assert talk.call.asked == []


def test_one_response_at_a_time(talk):
    talk.frames("[-")
    assert talk.client("response.create", event_id="e7") == ["error"]
    assert talk.error["code"] == "conversation_already_has_active_response" and talk.error["event_id"] == "e7"
    assert talk.client("response.cancel") == END
    assert talk.last("response.done")["response"]["status_details"]["reason"] == "client_cancelled"
    assert talk.call.asked == [("stop",)] and talk.frames("--]") == []
    assert talk.client("response.cancel", event_id="e8") == ["error"]
    assert talk.error["code"] == "response_cancel_not_active" and talk.error["event_id"] == "e8"
    assert talk.error["message"].startswith("Cancellation failed")


def test_another_response_than_the_active_one_cannot_be_cancelled(talk):
    talk.frames("[-")
    assert talk.client("response.cancel", response_id="resp_other") == ["error"]
    assert talk.error["code"] == "response_cancel_not_active"
    active = talk.last("response.created")["response"]["id"]
    assert talk.client("response.cancel", response_id=active) == END


def test_a_response_is_cancelled_before_it_begins(talk):
    talk.client("response.create")
    assert talk.client("response.cancel") == ["response.done"]
    assert talk.last("response.done")["response"]["output"] == []
    assert talk.frames("[-]") == []  # the turn that had been asked for
    assert talk.frames("..[")[0] == "response.created"


def test_the_users_speech_does_not_cancel_a_response_that_has_not_begun(talk):
    talk.client("response.create")
    assert talk.frames("uu") == ["input_audio_buffer.speech_started"]
    assert "response.done" not in talk.frames(".....[")


def test_a_response_out_of_the_conversation_makes_no_item(talk):
    talk.client("response.create", response={"conversation": "none"})
    talk.frames("[-]", ["Hm."])
    kinds = [event["type"] for event in talk.sent]
    assert "conversation.item.added" not in kinds and "conversation.item.done" not in kinds
    response = talk.last("response.done")["response"]
    assert response["conversation_id"] is None and response["output"][0]["content"][0]["transcript"] == "Hm."
    talk.client("conversation.item.retrieve", item_id=response["output"][0]["id"])
    assert talk.error["code"] == "item_retrieve_invalid_item_id"


def test_a_response_in_text_has_no_sound(talk):
    talk.client("session.update", session={"output_modalities": ["text"]})
    text = "response.output_text"
    begun = talk.frames("[--]", ["It", " is."])
    assert begun == [*BEGIN, f"{text}.delta", f"{text}.delta", f"{text}.done", *END[2:]]
    assert talk.last(f"{text}.done")["text"] == "It is."
    assert talk.last("response.content_part.done")["part"] == {"type": "text", "text": "It is."}
    assert talk.last("response.done")["response"]["output"][0]["content"] == [{"type": "output_text", "text": "It is."}]
    talk.client("response.create", response={"output_modalities": ["audio"]})
    assert SOUND in talk.frames("[]")


# ---------------------------------------------------------------------- a client that decides about turns


@pytest.fixture(params=["no detection", "no create_response"])
def manual(request):
    talk = Talk()
    detection = None if request.param == "no detection" else {"type": "server_vad", "create_response": False}
    talk.client("session.update", session={"audio": {"input": {"turn_detection": detection}}})
    return talk


def shown(talk, kinds):
    return [kind for kind in kinds if not kind.startswith("input_audio_buffer") and not kind.startswith("conversation.item")]


def test_an_answer_waits_until_the_client_asks(manual):
    assert shown(manual, manual.frames("uu....[--", ["It", " is"])) == []
    kinds = shown(manual, manual.client("response.create", response={"metadata": {"client_event_id": "mine"}}))
    assert kinds == [*BEGIN[:2], BEGIN[3], SOUND, TEXT, SOUND, TEXT, SOUND]
    assert manual.call.asked == [("pause",)]
    assert shown(manual, manual.frames("-]", [" one."])) == [TEXT, SOUND, SOUND, *END[:4], END[5]]
    assert manual.last("response.done")["response"]["output"][0]["content"][0]["transcript"] == "It is one."


def test_an_answer_that_is_over_waits_too(manual):
    manual.frames("uu....[-]...", ["Yes."])
    kinds = shown(manual, manual.client("response.create"))
    assert kinds == [*BEGIN[:2], BEGIN[3], SOUND, TEXT, SOUND, SOUND, *END[:4], END[5]]
    manual.call.asked.clear()
    manual.client("response.create")
    assert ("start",) in manual.call.asked  # the next one is a new turn


def test_an_answer_that_nobody_asks_for_is_dropped(manual):
    manual.frames("[-]" + "." * 126)
    manual.client("response.create")
    assert ("start",) in manual.call.asked
    other = Talk()
    other.client("session.update", session={"audio": {"input": {"turn_detection": None}}})
    other.frames("[" + "-" * 124)
    assert other.call.asked == []
    other.frames("-")
    assert other.call.asked == [("stop",)]


def test_an_answer_is_dropped_when_the_user_speaks_again(manual):
    manual.frames("uu....[--")
    manual.frames("==}")
    assert manual.call.asked == [("stop",)]
    assert SOUND not in manual.client("response.create")
    assert SOUND in manual.frames("..[")


@pytest.mark.parametrize("unheard, is_shown", [(6, True), (7, False)])
def test_an_answer_to_what_was_sent_before_is_dropped(manual, unheard, is_shown):
    manual.frames("uu....[--]")
    manual.call.next_unheard = 10 + unheard
    kinds = manual.client("response.create")
    assert (SOUND in kinds) == is_shown and kinds[0] == "response.created"
    assert is_shown or BEGIN[1] in manual.frames("uuu....[")


def test_without_detection_the_user_is_not_told_of_and_does_not_interrupt():
    talk = Talk()
    talk.client("session.update", session={"audio": {"input": {"turn_detection": None}}})
    talk.client("response.create")
    talk.frames("[-")
    assert talk.frames("==") == [SOUND, SOUND] and ("stop",) not in talk.call.asked
    assert talk.frames("}")[-1] == "response.done"


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

    async def run():
        beginning = asyncio.ensure_future(talk.conversation.begin())
        await asyncio.sleep(0.01)
        for event in ({"type": "session.update", "session": {"instructions": instructions}}, first):
            await talk.conversation.handle(event)
        await asyncio.wait_for(beginning, 0.5)

    asyncio.run(run())
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
