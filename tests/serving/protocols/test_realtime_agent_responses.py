"""`AgentResponses`, by the conversation that has them: barge-in, responses that are asked for, turns that are held back."""

import asyncio
from dataclasses import replace

import pytest

from tests.serving.protocols.realtime_talk import BEGIN, END, QUIET, SOUND, STOPPED, TEXT, Talk

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
