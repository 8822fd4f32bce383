"""An OpenAI-compatible endpoint on this machine that answers as a script says."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from nemo_duplex.synthesis.writing import chat_post
from nemo_duplex.synthesis.writing import endpoint as endpoint_file


@dataclass
class Reply:
    """A reply of the endpoint.

    Args:
        status: of HTTP.
        body: JSON, or text that is sent as it is; None: the connection is closed without a reply.
        headers: besides the usual ones.
        seconds: until it comes.
        pause: Seconds between its bytes.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    pause: float = 0.0


def saying(content: str | None, finish_reason: str = "stop", **message: Any) -> Reply:
    """A reply with a model's text."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": content, **message}}
    return Reply(body={"choices": [choice], "usage": {"completion_tokens": 10}})


@dataclass
class Stub:
    """A running endpoint.

    Args:
        url: up to `/v1`.
        asked: the bodies of all requests, in order.
        headers: of the last one.
        dripped: bytes of replies with a pause that were sent.
    """

    url: str
    asked: list[dict[str, Any]]
    headers: dict[str, str]
    dripped: int = 0


@contextlib.contextmanager
def endpoint(answer: Callable[[dict[str, Any], int], Reply]) -> Iterator[Stub]:
    """Runs an endpoint that gives `answer(body, how often this body came before)`."""
    stub, lock, ended = Stub("", [], {}), threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                before = stub.asked.count(body)
                stub.asked.append(body)
                stub.headers = dict(self.headers)
            reply = answer(body, before)
            ended.wait(reply.seconds)
            if reply.body is None:
                self.close_connection = True
                return
            data = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
            with contextlib.suppress(OSError):  # who asked may have gone
                self.send_response(reply.status)
                for name, value in {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(data)),
                    **reply.headers,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                for begin in range(0, len(data), 1 if reply.pause else len(data) or 1):
                    self.wfile.write(data[begin : begin + 1] if reply.pause else data)
                    self.wfile.flush()
                    stub.dripped += bool(reply.pause)
                    if ended.wait(reply.pause):
                        break

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def give_up_the_first(monkeypatch: pytest.MonkeyPatch, timeout: float, about: Callable[[dict[str, Any]], bool] | None = None):
    """Asks with `timeout` for the first reply to a body that is `about` something alone: replies to all others come in time, on
    a busy machine as well."""
    given_up = []

    def post(url: str, body: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert seconds == timeout
        if not given_up and (about is None or about(body)):
            given_up.append(body)
            return chat_post.post(url, body, seconds)
        return chat_post.post(url, body, 600.0)

    monkeypatch.setattr(endpoint_file, "post", post)
