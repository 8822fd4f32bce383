"""A language model behind an OpenAI-compatible endpoint: asked in parallel and patiently, each request paid once."""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
import urllib.parse
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.writing.chat_post import KEY, NotYet, Refused, has_choices, post, without_key
from nemo_duplex.synthesis.writing.replies import CUT, EMPTY, REFUSED

NO_ANSWER = "no answer from the endpoint"
TOO_LONG = "longer than the model's context"

_REDIRECTS = {301, 302, 303, 307, 308}
_NOT_UNDERSTOOD = {400, 422}  # how servers answer a body with a key that they do not know
_LONGEST_PAUSE = 60.0
_MAX_TOKENS = 600
_LONG = re.compile("context_length_exceeded|exceed_context_size|maximum context length|context (?:size|window)", re.IGNORECASE)


class Asked(Protocol):
    """What a model is asked."""

    @property
    def messages(self) -> tuple[dict[str, str], ...]:
        """The chat that it continues, as OpenAI's API has it."""

    @property
    def seed(self) -> int:
        """Of its random numbers, where it has such."""

    @property
    def kept_by(self) -> tuple[str, ...]:
        """What an answer is kept by, beside the body that is posted."""


AskedT = TypeVar("AskedT", bound=Asked)


@dataclass(frozen=True)
class KeyNames:
    """The keys of the configuration by which an endpoint was given, as errors name them.

    Examples:
        >>> KeyNames().url
        'llm'
    """

    url: str = "llm"
    model: str = "llm_model"
    body: str = "request"
    #: What else `url` may be.
    others: str = "smollm2, or "


@dataclass(frozen=True)
class Endpoint:
    """How a model is reached and asked.

    Args:
        url: of the API, up to `/v1`.
        model: its name there.
        body: more keys of each request (`temperature`, `max_tokens`); None as a value leaves a key out.
        parallel: requests at a time.
        timeout: seconds until an answer must be there.
        tries: of a request, before it stays without an answer.
        optional: keys of the body that are left out where the endpoint refuses them.
        most_unanswered: requests in a row that may stay without an answer; with one more the run ends.
        keys: of the configuration.

    Raises:
        InputError: if the address or the name cannot be used.

    Examples:
        >>> Endpoint("http://localhost:8000/v1", "llama").parallel
        8
    """

    url: str
    model: str
    body: Mapping[str, Any] = field(default_factory=dict)
    parallel: int = 8
    timeout: float = 120.0
    tries: int = 8
    optional: tuple[str, ...] = ()
    most_unanswered: int = 0
    keys: KeyNames = KeyNames()

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        example = "such as http://localhost:8000/v1"
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(f"{self.keys.url}={self.url}: expected {self.keys.others}the address of an endpoint, {example}.")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise InputError(
                f"{self.keys.url}: expected an address without a password, '?' or '#', {example}. Give the key of "
                f"{parts.hostname} in the environment variable {KEY}."
            )
        if not self.model:
            raise InputError(f"{self.keys.model}: {self.url} needs the name of a model. Set {self.keys.model}=NAME.")

    def request_body(self, asked: Asked) -> dict[str, Any]:
        """What is posted."""
        body = {
            "model": self.model,
            "messages": list(asked.messages),
            "temperature": 0.8,
            "max_tokens": _MAX_TOKENS,
            "seed": asked.seed,
        }
        return {key: value for key, value in (body | dict(self.body)).items() if value is not None}

    def cure(self, status: int) -> str:
        """What to do about a status of HTTP that refuses a request."""
        if status in _REDIRECTS:
            return f"It sends elsewhere: set {self.keys.url} to the address that answers."
        cures = {
            401: f"Set the environment variable {KEY}.",
            403: f"Set the environment variable {KEY} to a key that may use the model.",
            404: f"Check {self.keys.url} (it ends in /v1, as a rule) and {self.keys.model}.",
            429: f"Pay the account of {KEY}, or use another.",
        }
        return cures.get(status, f"Change what it names by {self.keys.body}={{key: value}}; null leaves a key out.")


@dataclass(frozen=True)
class Answer:
    """What a model answered.

    Args:
        text: as far as it came.
        odd: why it cannot be used as a whole; None if it can.
        model: as the endpoint names the one that answered; "" where it does not.

    Examples:
        >>> Answer("Paris.").odd is None
        True
    """

    text: str
    odd: OddRow | None = None
    model: str = ""


class Answers:
    """The answers of an endpoint, each kept in a folder under the hash of what was asked, as the endpoint sent it.

    Args:
        endpoint: that is asked.
        folder: of the kept answers.
        wait: sleeps some seconds, or less when the run ends.
    """

    def __init__(self, endpoint: Endpoint, folder: Path, wait: Callable[[float], Any] | None = None) -> None:
        self._endpoint, self._folder = endpoint, folder
        self._ended = threading.Event()
        self._wait = self._ended.wait if wait is None else wait
        self._lock = threading.Lock()
        self._refused: tuple[str, ...] = ()  # optional keys that the endpoint does not take
        self._unanswered = 0  # requests in a row
        #: Of this run: tokens of the answers that were paid, as the endpoint counts them; tries that failed; paid requests.
        self.tokens, self.failed, self.paid = 0, 0, 0

    def ask(self, requests: Iterable[AskedT]) -> Generator[tuple[AskedT, Answer], None, None]:
        """Each request with its answer; in order, with several on their way. The same one is asked once.

        Raises:
            InputError: if the endpoint cannot be reached, or refuses the request as such.
        """
        waiting: deque[tuple[AskedT, str, Future[Answer]]] = deque()
        on_their_way: dict[str, Future[Answer]] = {}
        pool = ThreadPoolExecutor(self._endpoint.parallel)

        def next_answer() -> tuple[AskedT, Answer]:
            request, digest, future = waiting.popleft()
            answer = future.result()
            on_their_way.pop(digest, None)
            return request, answer

        try:
            for request in requests:
                body = self._endpoint.request_body(request)
                digest = _digest(request, body)
                if digest not in on_their_way:
                    on_their_way[digest] = pool.submit(self._answer, digest, body)
                waiting.append((request, digest, on_their_way[digest]))
                if len(waiting) >= 2 * self._endpoint.parallel:
                    yield next_answer()
            while waiting:
                yield next_answer()
        finally:
            self._ended.set()
            pool.shutdown(wait=True, cancel_futures=True)
            self._ended.clear()

    def _answer(self, digest: str, body: dict[str, Any]) -> Answer:
        path = self._folder / digest[:2] / f"{digest}.json"
        try:
            reply = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            reply = None
        if not has_choices(reply):
            try:
                reply = self._post(body)
            except OddRow as odd:
                return Answer("", odd)
            text = without_key(json.dumps(reply))
            with whole_file(path) as part:
                part.write_text(text, encoding="utf-8")
            reply = json.loads(text)
        return _said(reply, self._endpoint)

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request, tried until it comes.

        Raises:
            OddRow: if it does not come, and the run may go on without it.
        """
        for number in range(self._endpoint.tries):
            try:
                reply = self._try(body)
                with self._lock:
                    self.paid += 1
                    self.tokens += _num_tokens(reply)
                    self._unanswered = 0
                return reply
            except NotYet as why:
                reason, after = str(why), why.after
            with self._lock:
                self.failed += 1
            pause = min(_LONGEST_PAUSE, 2.0**number) * (0.5 + random.random()) if after is None else after
            if number + 1 < self._endpoint.tries and self._wait(pause):
                break
        with self._lock:
            self._unanswered += 1
            if self._unanswered <= self._endpoint.most_unanswered:
                raise OddRow(NO_ANSWER, reason)
        raise InputError(
            f"{self._endpoint.keys.url}: {self._endpoint.url} gave no answer in {self._endpoint.tries} tries ({reason}). Check "
            "the server, and run again: what was answered is kept."
        )

    def _try(self, body: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request; if the endpoint does not take it, to the same one without the optional keys."""
        url = f"{self._endpoint.url.rstrip('/')}/chat/completions"
        bodies = [{key: value for key, value in body.items() if key not in self._refused}]
        bodies += [{key: value for key, value in bodies[0].items() if key not in self._endpoint.optional}]
        for number, sent in enumerate(bodies):
            try:
                reply = post(url, sent, self._endpoint.timeout)
                self._refused = self._endpoint.optional if number else self._refused
                return reply
            except Refused as refused:
                if "content_filter" in refused.said:
                    return {"choices": [{"finish_reason": "content_filter", "message": {}}]}
                if refused.status == 413 or _LONG.search(refused.said):
                    raise OddRow(TOO_LONG, refused.said[:80]) from None
                if number or refused.status not in _NOT_UNDERSTOOD or bodies[1] == sent:
                    why, cure = f"{url} refuses the request ({refused})", self._endpoint.cure(refused.status)
                    raise InputError(f"{self._endpoint.keys.url}: {why}. {cure}") from None
        raise AssertionError("a request is answered or refused")


def _digest(asked: Asked, body: Mapping[str, Any]) -> str:
    """The hash of what is asked, under which its answer is kept."""
    named = json.dumps([*asked.kept_by, body], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()


def _said(reply: dict[str, Any], endpoint: Endpoint) -> Answer:
    """What a reply says, and whether it can be used."""
    choice = _mapping(reply["choices"][0])
    message = _mapping(choice.get("message"))
    content = message.get("content")
    text, odd = content if isinstance(content, str) else "", None
    if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
        odd = OddRow(REFUSED, str(message.get("refusal") or "")[:80])
    elif choice.get("finish_reason") == "length":
        larger = f"{endpoint.keys.body}={{max_tokens: {2 * (endpoint.body.get('max_tokens') or _MAX_TOKENS)}}}"
        odd = OddRow(CUT, repr(text[-40:]), f"Set a larger max_tokens: {larger}.")
    elif not text.strip():
        odd = OddRow(EMPTY)
    return Answer(text, odd, str(reply.get("model") or ""))


def _num_tokens(reply: dict[str, Any]) -> int:
    number = _mapping(reply.get("usage")).get("completion_tokens")
    return number if isinstance(number, int) else 0


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
