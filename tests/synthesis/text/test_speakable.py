from __future__ import annotations

import pytest

from nemo_duplex.synthesis.text.markup import TOO_MANY
from nemo_duplex.synthesis.text.speakable import TOOL_CALL, speakable

CALL = {"type": "tool_use", "id": "t1", "name": "look", "input": {"place": "table"}}
PICTURE = "an image, a sound or another part that is no text"


@pytest.mark.parametrize(
    ("value", "text", "taken_out"),
    [
        ("  Two.\n", "Two.", ()),
        ([{"type": "text", "text": "Two."}], "Two.", ()),  # OpenAI, Anthropic, Hugging Face
        ([{"type": "text", "text": "Two."}, {"type": "text", "text": "Yes."}], "Two. Yes.", ()),
        ([{"type": "input_text", "text": "Two?"}], "Two?", ()),
        ([{"type": "output_text", "text": "Two.", "annotations": []}], "Two.", ()),
        ([{"type": "text", "text": {"value": "Two.", "annotations": []}}], "Two.", ()),  # OpenAI's assistants
        ([{"type": "refusal", "refusal": "I can't say."}], "I can't say.", ()),
        ([{"type": "input_audio", "audio": None, "transcript": "Two?"}], "Two?", ()),
        ([{"text": "Two."}], "Two.", ()),  # Gemini
        ({"parts": [{"text": "Two."}], "role": "model"}, "Two.", ()),
        ([{"text": "One or two?", "thought": True}, {"text": "Two."}], "Two.", ("reasoning",)),
        (
            [{"type": "thinking", "thinking": "One?", "signature": "x"}, {"type": "text", "text": "Two."}],
            "Two.",
            ("reasoning",),
        ),
        ([{"type": "text", "text": "I see."}, CALL], "I see.", ("calls of tools",)),
        ({"content_type": "text", "parts": ["Two."]}, "Two.", ()),  # an export of ChatGPT
        (["Two", "times."], "Two times.", ()),
        (["Two.", None], "Two.", ()),
        # parts end inside a sentence where Anthropic cites
        (
            [{"type": "text", "text": t} for t in ("According to", "the page", ", it is two", ".")],
            "According to the page, it is two.",
            (),
        ),
        (
            [{"type": "text", "text": "**Two** 😀"}, {"type": "text", "text": "*or* three."}],
            "Two or three.",
            ("emoji", "Markdown"),
        ),
        ("cafe\u0301", "caf\u00e9", ()),
        (["Two", float("nan")], "Two", ()),
        ("**a** " * 1666, "a " * 1665 + "a", ("Markdown",)),
        (f"<think>{'*a *' * 200_000}</think>Two.", "Two.", ("reasoning",)),
        (2, "2", ()),
        (0, "0", ()),
        (10**16 - 1, "9999999999999999", ()),
        ({"text": None, "value": "Two."}, "Two.", ()),
        (-2.5, "-2.5", ()),
    ],
)
def test_the_text_of_a_value(value, text, taken_out):
    speech = speakable(value)
    assert (speech.text, speech.reason, speech.taken_out) == (text, "", taken_out)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "nothing to say"),
        ("NaN", "nothing to say"),
        (["null", "undefined"], "nothing to say"),
        ("", "nothing to say"),
        ([], "nothing to say"),
        ([{"type": "text", "text": None}], "nothing to say"),
        (True, "true or false instead of a text"),
        (float("nan"), "nothing to say"),
        ([float("nan"), "<NA>"], "nothing to say"),
        (float("inf"), "an odd number instead of a text"),
        ("a" * 1_000_001, TOO_MANY),
        ("**a** " * 1667, TOO_MANY),
        ([CALL, {"type": "text", "text": "<" * 10_001}], TOO_MANY),
        (10**400, "an odd number instead of a text"),
        (10**16, "an odd number instead of a text"),
        (1e30, "an odd number instead of a text"),
        ({}, "an object instead of a text"),
        ({"city": "Paris"}, "an object instead of a text"),
        ([{"inlineData": {"mimeType": "image/png", "data": ""}}], "an object instead of a text"),
        ([{"type": "text", "text": "Two?"}, {"type": "image_url", "image_url": {"url": "x"}}], PICTURE),
        ([{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}], PICTURE),
        ([{"type": "document", "source": {}}], PICTURE),
        ([{"type": ["text"], "text": "Two."}], PICTURE),
        ([[[[["Two."]]]]], "lists in lists instead of a text"),
        ([CALL], TOOL_CALL),
        ([{"type": "tool_result", "tool_use_id": "t1", "content": "2"}], TOOL_CALL),
        ([{"type": "server_tool_use"}, {"type": "web_search_tool_result"}], TOOL_CALL),
        ([{"type": "function_call_output", "output": "2"}], TOOL_CALL),
        ([{"type": "web_search_call"}], TOOL_CALL),
        ([{"functionCall": {"name": "look"}}], TOOL_CALL),
        ([{"type": "reasoning", "summary": []}], "reasoning without an answer"),
    ],
)
def test_why_a_value_has_no_text(value, reason):
    speech = speakable(value)
    assert (speech.text, speech.reason, speech.taken_out) == ("", reason, ())


def test_two_texts_of_one_turn_are_said_one_after_the_other():
    speech = speakable("I **see**.") + speakable("Two. 😀")
    assert (speech.text, speech.reason, speech.taken_out) == ("I see. Two.", "", ("Markdown", "emoji"))
