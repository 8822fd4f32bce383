"""How a judge is reached and asked: the keys of a configuration's section `judge`, and the endpoints that they name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.writing.chat_post import KEY
from nemo_duplex.synthesis.writing.endpoint import Endpoint, KeyNames

#: The environment's variable with the address of the endpoint, as OpenAI's own clients read it.
URL = "OPENAI_BASE_URL"
PAPERS_JUDGE = "gpt-4o-mini-2024-07-18"
SMOLLM2 = "smollm2"

_OPENAI = "https://api.openai.com/v1"
_MOST_UNANSWERED = 2
_JUDGE_KEYS = KeyNames("judge.url", "judge.model", "judge.request", others="")
_LLM_KEYS = KeyNames("judge.llm", "judge.llm_model", "judge.request")


@dataclass(frozen=True)
class JudgeSetting:
    """Who judges, and how.

    Args:
        url: of an OpenAI-compatible endpoint, up to `/v1`; None: of the environment, or OpenAI's where a key is set.
        model: its name there.
        request: more keys of each request; None as a value leaves a key out.
        parallel: requests at a time.
        timeout: seconds until an answer must be there.
        tries: of a request.
        samples: verdicts on each conversation, whose mean counts.
        calibration: conversations that are also judged with known answers.
        llm: `smollm2` or the address of an endpoint, which answers the true text of the user; None: no such row.
        llm_model: the endpoint's model.
        llm_words: most words of its answers; None: as many as the longest reference has.
        seed: of what is drawn, and of the requests.

    Raises:
        InputError: for a number below its least.

    Examples:
        >>> JudgeSetting(url="http://localhost:8000/v1", model="llama").calibration
        20
    """

    url: str | None = None
    model: str = PAPERS_JUDGE
    request: Mapping[str, Any] = field(default_factory=dict)
    parallel: int = 8
    timeout: float = 120.0
    tries: int = 6
    samples: int = 1
    calibration: int = 20
    llm: str | None = None
    llm_model: str | None = None
    llm_words: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"parallel": 1, "tries": 1, "samples": 1, "calibration": 2, "llm_words": 1}
        for name, value in least.items():
            given = getattr(self, name)
            if given is not None and given < value:
                raise InputError(f"judge.{name}={given}: expected {value} or more.")

    def endpoint(self) -> Endpoint | str:
        """The judge's endpoint, or why there is none.

        Raises:
            InputError: if the address cannot be used.
        """
        has_key = bool(os.environ.get(KEY, "").strip())
        url = self.url or os.environ.get(URL, "").strip() or (_OPENAI if has_key else None)
        if url is None:
            return f"no judge: give judge.url=http://host/v1 and judge.model=NAME, or set {KEY} for OpenAI's"
        if url.startswith(_OPENAI.removesuffix("/v1")) and not has_key:
            return f"no key for {url}: set the environment variable {KEY}"
        body = {"temperature": 0, "max_tokens": 2000, "response_format": {"type": "json_object"}}
        return self._endpoint(url, self.model, body, _JUDGE_KEYS, optional=("response_format",))

    def llm_endpoint(self, most_words: int) -> Endpoint:
        """The endpoint of the language model that answers, greedily.

        Raises:
            InputError: if the address or the name cannot be used.
        """
        assert self.llm not in (None, SMOLLM2)
        body = {"temperature": 0, "max_tokens": 3 * most_words + 50}  # what it says beyond is not used
        return self._endpoint(self.llm or "", self.llm_model or "", body, _LLM_KEYS, not_for_it=("response_format",))

    def _endpoint(
        self,
        url: str,
        model: str,
        body: dict[str, Any],
        keys: KeyNames,
        optional: tuple[str, ...] = (),
        not_for_it: tuple[str, ...] = (),
    ) -> Endpoint:
        own = {key: value for key, value in self.request.items() if key not in not_for_it}
        return Endpoint(
            url.rstrip("/"),
            model,
            body | own,
            parallel=self.parallel,
            timeout=self.timeout,
            tries=self.tries,
            optional=optional,
            most_unanswered=_MOST_UNANSWERED,
            keys=keys,
        )
