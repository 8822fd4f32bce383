"""OpenAI Realtime over WebRTC: an SDP offer by HTTP, then audio on tracks and events on the data channel `oai-events`.

POST /v1/realtime/calls                 application/sdp: the offer;  multipart/form-data: `sdp`, and `session` as JSON
                                        -> 201, application/sdp, Location: /v1/realtime/calls/ID
POST /v1/realtime?model=...             the same, as older clients ask
POST /v1/realtime/calls/ID/hangup       -> 200
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from nemo_duplex.serving.admission import RefusedError
from nemo_duplex.serving.call import Call
from nemo_duplex.serving.protocols.call_socket import until_one_ends
from nemo_duplex.serving.protocols.realtime.client_events import EventError
from nemo_duplex.serving.protocols.realtime.conversation import RealtimeConversation
from nemo_duplex.serving.protocols.realtime.session_object import SessionObject
from nemo_duplex.serving.server import CallServer

if TYPE_CHECKING:
    from nemo_duplex.serving.protocols.webrtc.peer import Peer

_log = logging.getLogger(__name__)

_CALLS = "/v1/realtime/calls"


@dataclass(frozen=True)
class _Offer:
    """What a caller asks for."""

    sdp: str
    session: dict[str, Any] = field(default_factory=dict)
    model: str = ""


class WebRtcCalls:
    """The calls by WebRTC of a server, and its routes for them.

    Args:
        server: whose calls they are.
    """

    def __init__(self, server: CallServer) -> None:
        self._server, self._traffic = server, server.metrics.traffic("webrtc")
        self._calls: dict[str, tuple[Call, Peer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def routes(self) -> list[Route]:
        """The routes of this protocol."""
        return [
            Route(_CALLS, self._create, methods=["POST"]),
            Route("/v1/realtime", self._create, methods=["POST"]),
            Route(_CALLS + "/{call_id}/hangup", self._hang_up, methods=["POST"]),
        ]

    async def close(self) -> None:
        """Ends all calls and frees their ports."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _create(self, request: Request) -> Response:
        answered: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        self._server.admission.check(can_wait=False)
        task = asyncio.create_task(self._answer(await _read(request), answered))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        call_id, answer = await answered
        return Response(answer, 201, {"Location": f"{_CALLS}/{call_id}"}, media_type="application/sdp")

    async def _hang_up(self, request: Request) -> Response:
        if request.path_params["call_id"] not in self._calls:
            raise RefusedError("There is no such call, or it has ended.", 404)
        call, peer = self._calls[request.path_params["call_id"]]
        call.end()
        peer.gone.set()
        return Response(status_code=200)

    async def _answer(self, offer: _Offer, answered: asyncio.Future[tuple[str, str]]) -> None:
        """One call, from the offer to its end; what goes wrong before the answer goes there."""
        try:
            async with self._server.admission.seat():
                await self._serve(offer, answered)
        except Exception as error:
            if answered.done():
                _log.exception("a WebRTC call was ended by an error; the others continue")
            else:
                answered.set_exception(error)
        finally:
            answered.cancel()  # if the server shuts down before the answer

    async def _serve(self, offer: _Offer, answered: asyncio.Future[tuple[str, str]]) -> None:
        try:
            from nemo_duplex.serving.protocols.webrtc.audio import SAMPLE_RATE
            from nemo_duplex.serving.protocols.webrtc.peer import Peer
        except ModuleNotFoundError as error:
            told = f"This server has no WebRTC ({error}). Install it there: pip install 'nemo_duplex[webrtc]'."
            raise RefusedError(told, 501) from error
        peer = Peer(self._server.model.agent_sample_rate, self._server.config.limits.message_bytes, self._traffic)
        try:
            answer = await peer.answer(offer.sdp)
            async with self._server.call("webrtc", SAMPLE_RATE) as call:
                self._calls[call.id] = call, peer
                try:
                    answered.set_result((call.id, answer))
                    if await peer.connected():
                        await _converse(call, peer, self._server, offer)
                finally:
                    call.end(peer.reason)
                    del self._calls[call.id]
        finally:
            await peer.close()


async def _converse(call: Call, peer: Peer, server: CallServer, offer: _Offer) -> None:
    """The conversation of a caller that is connected."""

    async def send(event: dict[str, Any]) -> None:
        peer.send(event)

    async def obey() -> None:
        async for message in peer.messages():
            await conversation.handle(message)

    async def speak() -> None:
        async for frame in call:
            await conversation.frame(frame)

    async def tell_played() -> None:
        while True:
            await conversation.played(await peer.played.get())

    await call.begin(sampling=server.config.sampling)
    conversation = RealtimeConversation(call, server, send, offer.model, peer.turns)
    conversation.session.update(offer.session)
    await conversation.opened()
    await until_one_ends(call, peer.hear(call), peer.watch(), obey(), speak(), tell_played())
    await conversation.closed()
    await peer.flushed()


async def _read(request: Request) -> _Offer:
    """The offer of a request.

    Raises:
        RefusedError: with status 400 or 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    model = request.query_params.get("model", "")
    try:
        if kind == "application/sdp":
            return _Offer((await request.body()).decode(), model=model)
        if kind == "multipart/form-data":
            async with request.form(max_files=2, max_fields=8) as form:
                sdp, given = [await _text(form.get(name)) for name in ("sdp", "session")]
            session = json.loads(given or "{}")
            if not sdp or not isinstance(session, dict):
                raise ValueError("it needs `sdp`, and `session` as a JSON object")
            SessionObject("", "", 0).update(session)  # raises what is wrong with it
            return _Offer(sdp, session, model)
    except (ValueError, RecursionError, HTTPException, EventError) as error:  # HTTPException: of Starlette's parser
        reason = error.detail if isinstance(error, HTTPException) else error
        raise RefusedError(f"The body cannot be used: {reason}", 400) from error
    raise RefusedError(f"Content-Type {kind!r} is not supported, expected application/sdp or multipart/form-data.", 415)


async def _text(part: str | UploadFile | None) -> str:
    return (await part.read()).decode() if isinstance(part, UploadFile) else part or ""
