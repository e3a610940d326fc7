"""An endpoint on this machine that is slow, rude and sometimes right, and notes what it was sent.

Comes in: HTTP requests. Goes out: whatever manners the test gave it, and `Received`s for those that carry a
good signature, looked at by the official library.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from standardwebhooks import Webhook


class Manner(Enum):
    """How a request is answered."""

    WELL = 200
    BROKEN = 500
    BUSY = 429
    GONE = 410
    ELSEWHERE = 302
    SLOW = "well, after a while"
    HALF = "half an answer"
    ENDLESS = "an answer that never ends"
    NEVER = "no answer"


@dataclass(frozen=True)
class Received:
    """A request whose signature was good.

    Attributes:
        well: whether it was answered well.
    """

    id: str
    body: Any
    headers: Mapping[str, str]
    path: str
    well: bool


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no fault of the endpoint."""
        del request, client_address


class LocalEndpoint:
    """A context manager that serves until its end.

    Args:
        secret: with which requests are signed; empty where they are not.
        manner: says how the nth request is answered, from 0 on.
    """

    def __init__(
        self, secret: str, manner: Callable[[int], Manner] = lambda _: Manner.WELL
    ) -> None:
        self.received: list[Received] = []
        self.forged = 0
        self.connections = 0
        self.manner = manner
        self.secret = secret
        self._lock = threading.Lock()
        self._count = 0
        self._closing = threading.Event()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body of an answer go out at once.
            wbufsize = -1

            def setup(self) -> None:
                endpoint.connections += 1
                super().setup()

            def do_POST(self) -> None:
                endpoint._serve(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's
                del format, args

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/in"

    @property
    def ids(self) -> list[str]:
        """Of what was received and answered well."""
        return [one.id for one in list(self.received) if one.well]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers["content-length"])
        content = request.rfile.read(length)
        if len(content) < length:
            # Whoever sent it was killed.
            request.close_connection = True
            return
        with self._lock:
            manner = self.manner(self._count)
            self._count += 1
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = self._verified(content, headers)
        if manner is Manner.SLOW:
            self._closing.wait(0.2)
        if body is not None:
            name = headers.get("webhook-id", "")
            well = manner in (Manner.WELL, Manner.SLOW)
            self.received.append(Received(name, body, headers, request.path, well))
        self._answer(request, manner)

    def _verified(self, content: bytes, headers: dict[str, str]) -> Any:
        if not self.secret:
            return content
        try:
            return Webhook(self.secret).verify(content, headers)
        except Exception:  # noqa: BLE001 - whatever it is, it is no good signature
            self.forged += 1
            return None

    def _answer(self, request: BaseHTTPRequestHandler, manner: Manner) -> None:
        match manner:
            case Manner.NEVER:
                self._closing.wait()
                request.close_connection = True
            case Manner.HALF:
                request.send_response(200)
                request.send_header("content-length", "1000")
                request.end_headers()
                request.wfile.write(b"half")
                request.close_connection = True
            case Manner.ENDLESS:
                request.send_response(200)
                request.end_headers()
                while not self._closing.is_set():
                    try:
                        request.wfile.write(b"and so on " * 1_000)
                    except OSError:
                        break
                request.close_connection = True
            case _:
                status = 200 if manner is Manner.SLOW else manner.value
                request.send_response(int(status))
                if manner is Manner.ELSEWHERE:
                    request.send_header("location", f"http://127.0.0.1:{self.port}/elsewhere")
                if manner is Manner.BUSY:
                    request.send_header("retry-after", "1")
                request.send_header("content-length", "0")
                request.end_headers()
