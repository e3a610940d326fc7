"""Serves the page: a few files as they are, without a build.

Comes in: the files in `stream/api/page`. Goes out: routes for `application`. The page has no facts: it asks the API
for them, with the token of whoever looks at it, so the files are for anybody.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

MEDIA = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""Nothing from elsewhere, nothing inline, and no text that becomes markup."""
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}


def routes() -> list[BaseRoute]:
    """The page at ``/``, and what it is made of below ``/page/``."""
    found: list[BaseRoute] = []
    for file in files("stream.api").joinpath("page").iterdir():
        media = MEDIA.get(file.name.rpartition(".")[2])
        if media is not None:
            path = "/" if file.name == "index.html" else f"/page/{file.name}"
            found.append(Route(path, _tell(file.read_bytes(), media), methods=["GET"]))
    return found


def _tell(data: bytes, media: str) -> Callable[[Request], Any]:
    async def tell(_: Request) -> Response:
        return Response(data, headers=HEADERS, media_type=media)

    return tell
