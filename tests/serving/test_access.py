"""Who comes in: names, origins, keys, bodies, for requests and WebSockets alike."""

import asyncio
import hashlib

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse

from nemo_duplex.serving.access import Access
from nemo_duplex.serving.admission import RefusedError
from nemo_duplex.serving.app import _middleware
from nemo_duplex.serving.caller import CALLER, Caller
from nemo_duplex.serving.config import Limits, ServerConfig
from nemo_duplex.serving.metrics import Metrics

KEYS = ("first-key", "second-key")
PATHS = ("/", "/healthz", "/readyz", "/page/app.js", "/metrics", "/v1/realtime/calls", "/page", "/api/recordings/x.zip")


def client(base="http://localhost:8998", address="127.0.0.1", **settings):
    """A client of an application that answers with what it knows of the caller, and the body."""
    config, metrics = ServerConfig(**settings), Metrics()

    async def answer(request: Request):
        body = await request.body()
        return PlainTextResponse(f"{CALLER.get().address} {CALLER.get().key} {len(body)}")

    async def call(websocket):
        await websocket.accept(websocket.scope["subprotocols"][0] if websocket.scope["subprotocols"] else None)
        await websocket.send_text(f"{CALLER.get().address} {CALLER.get().key}")
        await websocket.close()

    async def refused(request, error):
        return error.response()

    app = Starlette(
        routes=[*(Route(path, answer, methods=["GET", "POST"]) for path in PATHS), WebSocketRoute("/api/talk", call)],
        middleware=_middleware(config, metrics),
        exception_handlers={RefusedError: refused},
    )
    client = TestClient(app, base_url=base, client=(address, 5))
    client.metrics = metrics
    return client


def handshake(client, url="/api/talk", **options):
    """(status of the handshake, what the server said)."""
    try:
        with client.websocket_connect(str(client.base_url).replace("http", "ws", 1).rstrip("/") + url, **options) as socket:
            return 101, socket.receive_text()
    except WebSocketDenialResponse as denied:
        return denied.status_code, denied.json()["error"]["message"]


OPEN = {"host": "0.0.0.0", "api_keys": KEYS}
GIVEN = {
    "bearer": ({"headers": {"Authorization": "Bearer second-key"}}, ""),
    "bearer in small letters": ({"headers": {"authorization": "bearer  second-key "}}, ""),
    "kyutai": ({"headers": {"kyutai-api-key": "second-key"}}, ""),
    "azure": ({"headers": {"api-key": "second-key"}}, ""),
    "query auth_id": ({}, "?auth_id=second-key"),
    "query worker_auth_id": ({}, "?x=1&worker_auth_id=second-key"),
    "query key": ({}, "?key=second%2Dkey"),
    "query api-key": ({}, "?api-key=second-key"),
}


@pytest.mark.parametrize("options, query", GIVEN.values(), ids=GIVEN)
def test_a_key_is_found_wherever_a_client_puts_it(options, query):
    there = client(**OPEN)
    assert there.get(f"/v1/realtime/calls{query}", **options).text == "127.0.0.1 2 0"
    assert handshake(there, f"/api/talk{query}", **options) == (101, "127.0.0.1 2")


def test_a_key_in_a_subprotocol_is_found():
    offered = ["realtime", "openai-insecure-api-key.first-key", "openai-beta.realtime-v1"]
    assert handshake(client(**OPEN), subprotocols=offered) == (101, "127.0.0.1 1")


WRONG = ["", "?key=", "?key=first-ke", "?key=first-keyy", "?token=first-key", "?key=FIRST-KEY", "?key=first-key,second-key"]


@pytest.mark.parametrize("query", WRONG)
def test_without_a_right_key_nobody_comes_in(query):
    there = client(**OPEN)
    answer = there.get(f"/v1/realtime/calls{query}")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["error"]["message"].startswith("No valid API key. Send one as 'Authorization: Bearer KEY'")
    assert handshake(there, f"/api/talk{query}")[0] == 401
    assert there.get("/v1/realtime/calls", headers={"Authorization": "Basic first-key"}).status_code == 401
    assert b'nemo_duplex_refusals_total{reason="key"} 3.0' in there.metrics.text()


def test_a_key_is_compared_as_a_whole():
    first = hashlib.sha256(b"first-key").digest()[0]
    near = next(key for key in map(str, range(10_000)) if hashlib.sha256(key.encode()).digest()[0] == first)
    assert client(**OPEN).get(f"/v1/realtime/calls?key={near}").status_code == 401


def test_only_the_page_and_health_are_open_without_a_key():
    statuses = {path: client(**OPEN).get(path).status_code for path in PATHS}
    assert [path for path, status in statuses.items() if status == 200] == ["/", "/healthz", "/readyz", "/page/app.js"]


METRICS = [
    ({"host": "0.0.0.0"}, "127.0.0.1", 401),
    ({"host": "0.0.0.0", "open_metrics": True}, "192.0.2.1", 200),
    ({"host": "127.0.0.1"}, "127.0.0.1", 200),
    ({"host": "127.0.0.1"}, "192.0.2.1", 401),  # through a proxy of this machine
]


@pytest.mark.parametrize("settings, address, status", METRICS)
def test_metrics_need_a_key_unless_it_is_for_this_machine_or_said_otherwise(settings, address, status):
    there = client(address=address, api_keys=KEYS, **settings)
    assert there.get("/metrics").status_code == status
    assert there.get("/metrics?key=first-key").status_code == 200


NAMES = {
    "localhost:8998": 200,
    "LOCALHOST": 200,
    "127.0.0.1:1234": 200,
    "[::1]:8998": 200,
    "agent.localhost": 200,
    "evil.example:8998": 403,
    "localhost.evil.example": 403,
    "192.0.2.7": 403,
    "known.example": 200,
}


@pytest.mark.parametrize("name, status", NAMES.items())
def test_a_name_that_was_made_to_point_here_is_refused_on_a_server_without_a_key(name, status):
    there = client(origins=("https://known.example",))
    assert there.get("/healthz", headers={"Host": name}).status_code == status
    assert handshake(there, headers={"Host": name})[0] == (101 if status == 200 else status)
    assert client(**OPEN).get("/healthz", headers={"Host": name}).status_code == 200


ORIGINS = {
    "http://localhost:8998": True,
    "http://LocalHost:8998": True,
    "https://page.example": True,
    "https://PAGE.example": True,
    "http://page.example": False,
    "http://localhost:8999": False,
    "http://localhost": False,
    "https://page.example.evil.example": False,
    "null": False,
    "http://localhost:port": False,
}


@pytest.mark.parametrize("origin, allowed", ORIGINS.items())
def test_pages_of_other_hosts_may_not_call(origin, allowed):
    there = client(origins=("https://page.example",))
    assert handshake(there, headers={"Origin": origin})[0] == (101 if allowed else 403)
    assert there.post("/v1/realtime/calls", headers={"Origin": origin}).status_code == (200 if allowed else 403)


def test_the_port_of_the_scheme_may_be_left_out():
    there = client(base="https://talk.example", **OPEN)
    assert there.get("/healthz", headers={"Origin": "https://talk.example:443"}).status_code == 200
    assert there.get("/healthz", headers={"Host": "talk.example:443", "Origin": "https://talk.example"}).status_code == 200
    assert there.get("/healthz", headers={"Host": "talk.example:80", "Origin": "https://talk.example"}).status_code == 403


def test_every_page_may_call_where_that_was_said():
    there = client(origins=("*",))
    assert handshake(there, headers={"Origin": "https://any.example", "Host": "any.example"})[0] == 101
    assert there.get("/healthz", headers={"Origin": "null"}).headers["access-control-allow-origin"] == "*"


def test_a_listed_page_may_ask_first_and_read_the_answer_of_a_refusal():
    there = client(origins=("https://page.example",), **OPEN)
    ask = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    asked = there.options("/v1/realtime/calls", headers=ask | {"Access-Control-Request-Headers": "authorization,x-openai"})
    assert asked.status_code == 200 and asked.headers["access-control-allow-origin"] == "https://page.example"
    assert asked.headers["access-control-allow-headers"] == "authorization,x-openai"
    refused = there.post("/v1/realtime/calls", headers={"Origin": "https://page.example"})
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == "https://page.example"
    assert there.options("/v1/realtime/calls", headers=ask | {"Origin": "https://other.example"}).status_code == 400


PROXIED = [
    ((), "203.0.113.9", "127.0.0.1"),
    (("127.0.0.0/8",), "203.0.113.9", "203.0.113.9"),
    (("127.0.0.1", "10.0.0.0/8"), "198.51.100.1, 203.0.113.9, 10.1.2.3", "203.0.113.9"),  # the first one may be a lie
    (("10.0.0.0/8",), "203.0.113.9", "127.0.0.1"),
]


@pytest.mark.parametrize("trusted, forwarded, address", PROXIED)
def test_an_address_is_believed_from_trusted_proxies_only(trusted, forwarded, address):
    there = client(trusted_proxies=trusted)
    assert there.get("/v1/realtime/calls", headers={"X-Forwarded-For": forwarded}).text == f"{address} None 0"
    assert handshake(there, headers={"X-Forwarded-For": forwarded}) == (101, f"{address} None")


def test_a_body_has_a_longest_size_by_its_length_and_by_its_bytes():
    there = client(limits=Limits(message_bytes=1000))
    assert there.post("/v1/realtime/calls", content=b"x" * 1000).text == "127.0.0.1 None 1000"
    assert there.post("/v1/realtime/calls", content=b"x" * 1001).status_code == 413
    assert there.post("/v1/realtime/calls", content=iter([b"x" * 600, b"x" * 401])).status_code == 413
    assert there.post("/v1/realtime/calls", content=iter([b"x" * 600, b"x" * 400])).text == "127.0.0.1 None 1000"


def test_a_body_is_bounded_over_all_its_pieces():
    pieces = [{"type": "http.request", "body": bytes(400), "more_body": True} for _ in range(3)]
    read = []

    async def receive():
        return pieces.pop(0)

    async def app(scope, receive, send):
        while True:
            read.append(len((await receive())["body"]))

    access = Access(app, ServerConfig(limits=Limits(message_bytes=1000)), Metrics())
    scope = {"type": "http", "scheme": "http", "path": "/", "headers": [], "client": None}
    with pytest.raises(RefusedError, match="at most 1000 bytes"):
        asyncio.run(access(scope, receive, None))
    assert read == [400, 400]


def test_a_body_that_does_not_come_ends_the_request():
    async def never():
        await asyncio.Event().wait()

    sent = []

    async def send(message):
        sent.append(message)

    async def read(scope, receive, send):
        await receive()

    access = Access(read, ServerConfig(limits=Limits(handshake_seconds=0.05)), Metrics())
    scope = {"type": "http", "scheme": "http", "path": "/", "headers": [(b"host", b"localhost")], "client": ("::1", 1)}
    with pytest.raises(RefusedError, match="did not come in time") as late:
        asyncio.run(access(scope, never, send))
    assert late.value.status == 408 and sent == []


def test_a_server_that_knows_no_refusal_by_status_closes_the_websocket():
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "scheme": "ws", "path": "/", "headers": [], "client": None}
    asyncio.run(Access(None, ServerConfig(**OPEN), Metrics())(scope, None, send))
    assert [message["type"] for message in sent] == ["websocket.close"] and sent[0]["reason"].startswith("No valid API key")


ADDRESSES = {
    "192.0.2.77": ("192.0.2.77", "192.0.2.x"),
    "::ffff:192.0.2.77": ("192.0.2.77", "192.0.2.x"),
    "2001:db8:1:2:3::4": ("2001:db8:1:2::/64", "2001:db8:1::x"),
    "": ("", "-"),
    "testclient": ("testclient", "-"),
}


@pytest.mark.parametrize("address, expected", ADDRESSES.items())
def test_an_address_is_counted_as_a_network_and_logged_in_part(address, expected):
    assert (Caller(address).network, Caller(address).shortened) == expected


def test_the_order_of_the_middleware_is_proxies_then_pages_then_keys():
    names = [m.cls.__name__ for m in _middleware(ServerConfig(origins=("*",), trusted_proxies=("*",)), Metrics())]
    assert names == ["ProxyHeadersMiddleware", "CORSMiddleware", "Access"] and isinstance(
        _middleware(ServerConfig(), Metrics())[0], Middleware
    )
