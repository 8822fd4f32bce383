"""The page at `/`: the files of `web/`, read once, with the headers that keep a page safe."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FOLDER = Path(__file__).parent / "web"
#: Nothing from elsewhere, nothing inline, in no frame of another page. Downloads are blobs; the icon stands in the page.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self), screen-wake-lock=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # asked for again each time, answered by 304: no old module beside a new one
}
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}


def page_routes() -> Iterator[Route]:
    """`/`, and `/page/NAME` for its modules and its style."""
    yield Route("/", _serve(_FOLDER / "index.html"))
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES and path.name != "index.html":
            yield Route(f"/page/{path.name}", _serve(path))


def _serve(path: Path):
    body, media_type = path.read_bytes(), _TYPES[path.suffix]
    headers = _HEADERS | {"ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"'}

    async def serve(request: Request) -> Response:
        known = request.headers.get("if-none-match", "")
        if headers["ETag"] in known or known == "*":
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=media_type)

    return serve
