"""Answers whether the process lives, is ready, and keeps up.

Comes in: beats of its loops, and whether it is ready. Goes out: ``/live``, ``/ready`` (JSON with
reasons, 200 or 503) and ``/metrics`` (Prometheus) over HTTP, on loopback unless told otherwise.

*Live* means that every loop has beaten within the silence it allowed itself; one that has not is
stuck, and the process should be restarted. *Ready* means live, and all its parts say that they
do their work; whoever waits for a process to come up waits for this.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from io import StringIO
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Self, TextIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from stream.masking import mask

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

LOG = logging.getLogger(__name__)


@dataclass
class _Loop:
    max_silence_seconds: float
    beat_at: float


class Pulse:
    """One loop's way to say that it goes round."""

    def __init__(self, health: Health, name: str) -> None:
        self._health = health
        self._name = name

    def beat(self) -> None:
        """The loop is not stuck, as of now."""
        self._health.beat(self._name)

    def end(self) -> None:
        """The loop has ended as it should; nobody waits for its next beat."""
        self._health.end(self._name)


class Health:
    """What the parts of a process say about themselves; safe to use from any thread.

    Args:
        clock: seconds that only rise, whatever the calendar does.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._loops: dict[str, _Loop] = {}
        self._parts: dict[str, tuple[bool, str]] = {}

    def alive(self, name: str, max_silence_seconds: float) -> Pulse:
        """Begin to watch a loop, which counts as having beaten just now."""
        with self._lock:
            self._loops[name] = _Loop(max_silence_seconds, self._clock())
        return Pulse(self, name)

    def beat(self, name: str) -> None:
        """See `Pulse.beat`; nothing for a loop that is not watched."""
        with self._lock:
            if (loop := self._loops.get(name)) is not None:
                loop.beat_at = self._clock()

    def end(self, name: str) -> None:
        """See `Pulse.end`."""
        with self._lock:
            self._loops.pop(name, None)

    def ready(self, is_ready: bool, reason: str = "", *, part: str = "process") -> None:
        """A part of the process does its work, or does not for a reason worth reading."""
        with self._lock:
            self._parts[part] = (is_ready, reason)

    def liveness(self) -> tuple[bool, list[str]]:
        """Whether no loop is stuck, and which are."""
        with self._lock:
            now = self._clock()
            stuck = [
                f"{name}: silent for {now - loop.beat_at:.1f} s, at most"
                f" {loop.max_silence_seconds:g} s allowed"
                for name, loop in self._loops.items()
                if now - loop.beat_at > loop.max_silence_seconds
            ]
        return not stuck, stuck

    def readiness(self) -> tuple[bool, list[str]]:
        """Whether the process is live and all its parts do their work, and what keeps it."""
        _, reasons = self.liveness()
        with self._lock:
            if not self._parts:
                reasons.append("process: starting")
            reasons += [
                f"{part}: {reason or 'not ready'}"
                for part, (is_ready, reason) in self._parts.items()
                if not is_ready
            ]
        return not reasons, [mask(reason) for reason in reasons]

    def parts(self, names: Iterable[str]) -> dict[str, bool]:
        """Of each part by name whether it does its work, which nobody does whose process is stuck."""
        live, _ = self.liveness()
        with self._lock:
            return {name: live and self._parts.get(name, (False, ""))[0] for name in names}


class HealthServer:
    """Serves the three pages from a thread of its own; a context manager.

    Args:
        health: what to tell.
        registry: the metrics to tell, see `stream.metrics.REGISTRY`.
        host: the address to listen on.
        port: the port; 0 takes a free one.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(
        self,
        health: Health,
        registry: CollectorRegistry,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._server = make_server(
            host, port, _pages(health, registry), _ThreadingServer, _QuietHandler
        )
        self.host = host
        self.port = int(self._server.server_port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="health", daemon=True
        )

    @property
    def url(self) -> str:
        """Where the pages are."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def start(self) -> None:
        self._thread.start()
        LOG.info("serving /metrics, /live and /ready on %s", self.url)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    """A request that dawdles holds up neither the others nor the end of the process."""

    daemon_threads = True
    block_on_close = False
    # Many may come at once; with the usual five places some would have to knock again for seconds.
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was dropped or never used is nobody's fault; all else is ours."""
        del request
        error = sys.exception()
        if isinstance(error, OSError):
            LOG.debug("connection of %s: %s", client_address, error)
        else:
            LOG.error("request of %s: %s", client_address, error, exc_info=error)


class _QuietHandler(WSGIRequestHandler):
    timeout = 10.0

    def get_stderr(self) -> TextIO:
        """Where the handler of a request writes traces: of connections only, see `_pages`."""
        return StringIO()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        LOG.debug(format, *args)


def _pages(
    health: Health, registry: CollectorRegistry
) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    metrics: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)

    def page(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        body: dict[str, Any]
        if path == "/metrics":
            return metrics(environ, start_response)
        if path == "/live":
            well, reasons = health.liveness()
            status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
            body = {"live": well, "reasons": reasons}
        elif path == "/ready":
            well, reasons = health.readiness()
            status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
            body = {"ready": well, "reasons": reasons}
        else:
            status = HTTPStatus.NOT_FOUND
            body = {"pages": ["/live", "/ready", "/metrics"]}
        return answer(status, body, start_response)

    def answer(
        status: HTTPStatus, body: dict[str, Any], start_response: StartResponse
    ) -> Iterable[bytes]:
        data = json.dumps(body).encode() + b"\n"
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [data]

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return page(environ, start_response)
        except Exception:
            LOG.exception("the page cannot be made")
            return answer(
                HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "see the log"}, start_response
            )

    return guarded
