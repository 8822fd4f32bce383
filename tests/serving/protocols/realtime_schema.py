"""What each event of OpenAI Realtime must have, as the `openai` package (3.57) types it; nothing else may be sent.

A pattern is a type, a tuple of types, a set of allowed values, a list of one pattern, or a dict; a key that ends in "?" may be
absent. What is not named is not allowed, so that a misspelt key is noticed.
"""

from __future__ import annotations

from typing import Any

NULL = type(None)
FORMAT = ({"type": {"audio/pcm"}, "rate": {24000}}, {"type": {"audio/pcmu", "audio/pcma"}})
VAD = {
    "type": {"server_vad"},
    "threshold": (float, int),
    "prefix_padding_ms": int,
    "silence_duration_ms": int,
    "idle_timeout_ms": NULL,
    "create_response": bool,
    "interrupt_response": bool,
}
SEMANTIC = {"type": {"semantic_vad"}, "eagerness": {"auto", "low", "medium", "high"}, "create_response": bool}
SESSION = {
    "type": {"realtime"},
    "object": {"realtime.session"},
    "id": str,
    "model": str,
    "output_modalities": [{"audio", "text"}],
    "instructions": (str, NULL),
    "tools": list,
    "tool_choice": (str, dict, NULL),
    "max_output_tokens": (int, str),
    "tracing": (str, dict, NULL),
    "truncation": (str, dict, NULL),
    "prompt": (dict, NULL),
    "expires_at": int,
    "include": (list, NULL),
    "audio": {
        "input": {
            "format": FORMAT,
            "transcription": NULL,
            "noise_reduction": (dict, NULL),
            "turn_detection": (VAD, SEMANTIC | {"interrupt_response": bool}, NULL),
        },
        "output": {"format": FORMAT, "voice": (str, dict), "speed": (float, int)},
    },
}
ITEM = (
    {
        "id": str,
        "object": {"realtime.item"},
        "type": {"message"},
        "status": {"completed", "incomplete", "in_progress"},
        "role": {"user"},
        "content": [
            (
                {"type": {"input_audio"}, "transcript?": (str, NULL)},
                {"type": {"input_text"}, "text?": str},
                {"type": {"input_image"}, "image_url?": str, "detail?": str},
            )
        ],
    },
    {
        "id": str,
        "object": {"realtime.item"},
        "type": {"message"},
        "status": {"completed", "incomplete", "in_progress"},
        "role": {"assistant"},
        "content": [({"type": {"output_audio"}, "transcript?": str}, {"type": {"output_text"}, "text?": str})],
    },
    {
        "id": str,
        "object": {"realtime.item"},
        "type": {"message"},
        "status": {"completed"},
        "role": {"system"},
        "content": [{"type": {"input_text"}, "text?": str}],
    },
    {
        "id": str,
        "object": {"realtime.item"},
        "type": {"function_call"},
        "status": {"completed"},
        "call_id": str,
        "name": str,
        "arguments": str,
    },
    {
        "id": str,
        "object": {"realtime.item"},
        "type": {"function_call_output"},
        "status": {"completed"},
        "call_id": str,
        "output": str,
    },
)
CACHED = {"text_tokens": int, "audio_tokens": int, "image_tokens": int}
USAGE = {
    "total_tokens": int,
    "input_tokens": int,
    "output_tokens": int,
    "input_token_details": CACHED | {"cached_tokens": int, "cached_tokens_details": CACHED},
    "output_token_details": {"text_tokens": int, "audio_tokens": int},
}
ERROR = {"type?": (str, NULL), "code?": (str, NULL), "message?": (str, NULL)}
RESPONSE = {
    "id": str,
    "object": {"realtime.response"},
    "status": {"in_progress", "completed", "cancelled", "failed"},
    "status_details": (NULL, {"type": str, "reason?": {"turn_detected", "client_cancelled"}, "error?": ERROR}),
    "output": [ITEM],
    "output_modalities": [{"audio", "text"}],
    "conversation_id": (str, NULL),
    "max_output_tokens": (int, str),
    "audio": {"output": {"format": FORMAT, "voice": (str, dict)}},
    "metadata": (dict, NULL),
    "usage": (NULL, USAGE),
}
PLACE = {"response_id": str, "item_id": str, "output_index": {0}, "content_index": {0}}
PART = ({"type": {"audio"}, "transcript": str}, {"type": {"text"}, "text": str})
ADDED = {"previous_item_id": (str, NULL), "item": ITEM}
EVENTS: dict[str, dict[str, Any]] = {
    "session.created": {"session": SESSION},
    "session.updated": {"session": SESSION},
    "input_audio_buffer.speech_started": {"audio_start_ms": int, "item_id": str},
    "input_audio_buffer.speech_stopped": {"audio_end_ms": int, "item_id": str},
    "input_audio_buffer.committed": {"previous_item_id": (str, NULL), "item_id": str},
    "input_audio_buffer.cleared": {},
    "output_audio_buffer.started": {"response_id": str},
    "output_audio_buffer.stopped": {"response_id": str},
    "output_audio_buffer.cleared": {"response_id": str},
    "conversation.item.added": ADDED,
    "conversation.item.done": ADDED,
    "conversation.item.deleted": {"item_id": str},
    "conversation.item.retrieved": {"item": ITEM},
    "conversation.item.truncated": {"item_id": str, "content_index": {0}, "audio_end_ms": int},
    "response.created": {"response": RESPONSE},
    "response.output_item.added": {"response_id": str, "output_index": {0}, "item": ITEM},
    "response.output_item.done": {"response_id": str, "output_index": {0}, "item": ITEM},
    "response.content_part.added": PLACE | {"part": PART},
    "response.content_part.done": PLACE | {"part": PART},
    "response.output_audio.delta": PLACE | {"delta": str},
    "response.output_audio.done": PLACE,
    "response.output_audio_transcript.delta": PLACE | {"delta": str},
    "response.output_audio_transcript.done": PLACE | {"transcript": str},
    "response.output_text.delta": PLACE | {"delta": str},
    "response.output_text.done": PLACE | {"text": str},
    "response.done": {"response": RESPONSE},
    "error": {
        "error": {"type": str, "code": str, "message": str, "param": (str, NULL), "event_id": (str, NULL)},
    },
}


def check_event(event: dict[str, Any]) -> None:
    """Asserts that an event is one of the table, with everything that it must have and nothing else."""
    assert event["type"] in EVENTS, event["type"]
    faults = list(_faults(event, {"type": str, "event_id": str, **EVENTS[event["type"]]}, event["type"]))
    assert faults == [], faults


def _faults(value: Any, pattern: Any, place: str):
    if isinstance(pattern, dict):
        if not isinstance(value, dict):
            yield f"{place}: {value!r} is no object"
            return
        names = {name.removesuffix("?"): name for name in pattern}
        yield from (f"{place}.{name}: missing" for name in pattern if not name.endswith("?") and name not in value)
        yield from (f"{place}.{name}: unknown" for name in value if name not in names)
        for name, entry in value.items():
            if name in names:
                yield from _faults(entry, pattern[names[name]], f"{place}.{name}")
    elif isinstance(pattern, list):
        for number, entry in enumerate(value if isinstance(value, list) else [value]):
            yield from _faults(entry, pattern[0], f"{place}[{number}]")
    elif isinstance(pattern, tuple):
        if not any(not list(_faults(value, choice, place)) for choice in pattern):
            yield f"{place}: {value!r} fits none of {len(pattern)}"
    elif isinstance(pattern, set):
        if value not in pattern:
            yield f"{place}: {value!r} is none of {pattern}"
    elif not isinstance(value, pattern) or (isinstance(value, bool) and pattern is not bool):
        yield f"{place}: {value!r} is no {pattern.__name__}"
