"""What the query of `/api/chat` asks for: the parameters of Moshi, of its Rust server and of PersonaPlex.

    text_temperature, text_topk, audio_temperature, audio_topk     how text and speech are chosen
    repetition_penalty, repetition_penalty_context                 of the text; a context of 0 is no penalty
    seed; text_seed, audio_seed                                    of what is random; PersonaPlex's -1 is a new one
    text_prompt                                                    the system prompt, if the server's prompt_tokens allow it

All others are ignored, such as pad_mult, max_steps, voice_prompt, email, worker_auth_id. A value that makes no sense is
ignored, and one out of range becomes the nearest: no query refuses a call.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nemo_duplex.inputs import InputError
from nemo_duplex.models.agent import DuplexAgent
from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.streaming.sampling import MAX_SEED, AgentSampling

_log = logging.getLogger(__name__)


def session_options(query: Mapping[str, str], model: DuplexAgent, config: ServerConfig) -> dict[str, Any]:
    """The options of the session, as `Call.begin`.

    Examples:
        >>> session_options({"text_temperature": "0.7", "audio_topk": "many"}, model, ServerConfig())["sampling"].text
        Sampling(temperature=0.7, top_k=0, top_p=1.0, repetition_penalty=1.0)
    """
    return {
        "sampling": _sampling(query, AgentSampling.of(config.sampling)),
        "seed": _seed(query),
        "system_prompt": _prompt(query.get("text_prompt", ""), model, config.prompt_tokens),
    }


def _sampling(query: Mapping[str, str], default: AgentSampling) -> AgentSampling:
    text, speech = default.text, default.speech
    return AgentSampling(
        text=replace(
            text,
            temperature=_temperature(query.get("text_temperature"), text.temperature),
            top_k=_top_k(query.get("text_topk"), text.top_k),
            repetition_penalty=_penalty(query, text.repetition_penalty),
        ),
        speech=replace(
            speech,
            temperature=_temperature(query.get("audio_temperature"), speech.temperature),
            top_k=_top_k(query.get("audio_topk"), speech.top_k),
        ),
    )


def _temperature(given: str | None, default: float) -> float:
    value = _number(given)
    if value is None:
        return default
    return 0.0 if value <= 0 else min(max(value, 1e-3), 1e3)


def _top_k(given: str | None, default: int) -> int:
    value = _number(given)
    return default if value is None else int(min(max(value, 0), 1e9))


def _penalty(query: Mapping[str, str], default: float) -> float:
    if _number(query.get("repetition_penalty_context")) == 0:
        return 1.0
    value = _number(query.get("repetition_penalty"))
    return default if value is None else min(max(value, 0.01), 100.0)


def _seed(query: Mapping[str, str]) -> int | None:
    """`seed`, or one of both channels' seeds; None takes a new one."""
    seed = _whole(query.get("seed"))
    if seed is not None:
        return seed
    text, audio = _whole(query.get("text_seed")), _whole(query.get("audio_seed"))
    if text is None and audio is None:
        return None
    return ((text or 0) << 32 ^ (audio or 0)) & MAX_SEED


def _prompt(text: str, model: DuplexAgent, most: int) -> str | None:
    if not text.strip() or most == 0:
        return None
    try:
        tokens = len(model.prompt_tokens(text))
    except InputError as error:
        _log.warning("A text_prompt is ignored: %s", error)
        return None
    if tokens > most:
        _log.warning("A text_prompt of %d tokens is ignored: this server takes at most %d.", tokens, most)
        return None
    return text


def _number(given: str | None) -> float | None:
    try:
        value = float(given or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _whole(given: str | None) -> int | None:
    """A whole number from 0 on, within the range of seeds."""
    digits = (given or "").strip()
    if not digits.isascii() or not digits.isdigit() or len(digits) > 20:
        return None
    return int(digits) & MAX_SEED
