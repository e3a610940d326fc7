"""The role of the API: facts of `stream.insight` over HTTP, wired to store and broker.

Comes in: settings and an event that means stop. Goes out: a server that answers, and a thread that follows the
changes for its feed. While the broker is away users are looked up all the same, and the feed says that it is down.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from consumers.campaigns import CAMPAIGNS
from consumers.change_log import ChangeLog, LatestIds, Place
from producers import control
from producers import topics as topic_plans
from producers.delivery import DeliveryError
from stream.access import Guard
from stream.campaigns.control import ControlRecord
from stream.campaigns.keep import Own, kept_by
from stream.config import ConfigError, Settings
from stream.errors import BrokerUnavailableError
from stream.health import Health, Pulse
from stream.roles.redis import RedisRoleStore
from stream.roles.registry import Part
from stream.store.redis import RedisStore
from stream.supervise import keep_going
from stream.told import ToldError

if TYPE_CHECKING:
    import uvicorn

    from stream.api.recent import Feed

log = logging.getLogger(__name__)

SILENCE_SECONDS = 60.0
BEAT_SECONDS = 0.1
"""Between two looks at whether it is to stop."""
AGAIN_SECONDS = 5.0
QUIET_SECONDS = 15.0
ANSWER_SECONDS = 5.0
SEND_BYTES = 65_536
"""What the system keeps for one who does not read; by itself it would go up to some megabytes for each."""
REMEMBERED = 100_000
"""Ids of changes by which a repeated delivery is recognised; a repeat comes soon, if it does."""


class NotServedError(ToldError):
    """No API answers."""


@dataclass(frozen=True)
class Opened:
    """How stores are opened.

    Attributes:
        see: that a role may start on this store.
        store: that of the activity workers and the trainer.
        role: that of a role, by its name.
    """

    see: Callable[[Settings], None]
    store: Callable[[Settings], RedisStore]
    role: Callable[[Settings, str], RedisRoleStore]


class Stores:
    """A pipeline's parts for many threads, each with stores of its own."""

    def __init__(self, settings: Settings, stack: ExitStack, opened: Opened) -> None:
        self._settings = settings
        self._stack = stack
        self._opened = opened
        self._lock = Lock()
        self._of_thread = threading.local()

    def store(self) -> RedisStore:
        found: RedisStore | None = getattr(self._of_thread, "store", None)
        if found is None:
            found = self._of_thread.store = self._opened.store(self._settings)
            self._close_at_the_end(found.close)
        return found

    def _of_campaigns(self) -> RedisRoleStore:
        found: RedisRoleStore | None = getattr(self._of_thread, "campaigns", None)
        if found is None:
            found = self._of_thread.campaigns = self._opened.role(self._settings, CAMPAIGNS.name)
            self._close_at_the_end(found.close)
        return found

    def _close_at_the_end(self, close: Callable[[], None]) -> None:
        with self._lock:
            self._stack.callback(close)

    def campaigns(self) -> Sequence[Own]:
        if not self._settings.campaigns:
            return ()
        return kept_by(self._of_campaigns(), self._settings.topics.partitions)

    def say(self, record: ControlRecord) -> int:
        try:
            return control.say(self._settings, record)
        except DeliveryError as error:
            raise BrokerUnavailableError(f"say it again: {error}") from None


def address_of(settings: Settings) -> str:
    """Where the page is, for whoever is on this machine.

    Raises:
        ConfigError: the port is only known once it is taken.
    """
    host, port = settings.api.host, settings.api.port
    if port == 0:
        raise ConfigError("api.port = 0: the log of `segstream run api` says where it is")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - of all addresses one
    return _address(host, port)


def _address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def see_that_it_answers(address: str) -> None:
    """See that an API is there.

    Raises:
        NotServedError: it does not answer.
    """
    try:
        with urlopen(f"{address}/openapi.json", timeout=ANSWER_SECONDS):  # noqa: S310 - http alone
            pass
    except OSError as error:
        raise NotServedError(
            f"no API answers at {address} ({error}); `segstream run api` serves it"
        ) from None


def see_that_it_is_installed() -> None:
    """See that the extra is there.

    Raises:
        ConfigError: it is not.
    """
    for name in ("starlette", "uvicorn"):
        if find_spec(name) is None:
            raise ConfigError(f"the API needs {name}: pip install 'segstream[api]'")


def part(opened: Opened) -> Part:
    """The loop of the role."""

    def serve(settings: Settings, stop: Event, health: Health) -> None:
        pulse = health.alive("api", SILENCE_SECONDS)
        with bound(settings) as listening:
            keep_going(
                "api",
                partial(_serve, settings, listening, opened, stop, health, pulse),
                stop,
                health,
                pulse,
            )

    return serve


@contextmanager
def bound(settings: Settings) -> Iterator[socket.socket]:
    """The address that is listened on.

    Raises:
        ConfigError: it cannot be.
    """
    host, port = settings.api.host, settings.api.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Only where TCP is named asyncio sends small packets at once, which else wait 40 ms for one another.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"api.port = {port}: {host}:{port} cannot be listened on ({error.strerror}); 0 takes a "
                "free one"
            ) from None
        yield listening


def _serve(
    settings: Settings,
    listening: socket.socket,
    opened: Opened,
    stop: Event,
    health: Health,
    pulse: Pulse,
) -> None:
    see_that_it_is_installed()
    from stream.api import pages  # noqa: PLC0415 - an extra
    from stream.api.application import Api, application  # noqa: PLC0415
    from stream.api.pipeline import Facts  # noqa: PLC0415
    from stream.api.recent import Feed, Recent  # noqa: PLC0415

    try:
        guard = Guard(settings.api.clients)
    except ValueError as error:
        raise ConfigError(f"api.clients: {error}") from None
    with ExitStack() as stack:
        opened.see(settings)
        stores = Stores(settings, stack, opened)
        recent = Recent(settings.api.recent_changes)
        feed = Feed(recent, settings.api.readers, settings.api.reader_waits)
        api = Api(Facts(settings, stores, recent), feed, guard)
        stack.callback(api.close)
        follower = Thread(
            target=_follow, args=(settings, feed, stop), name="api changes", daemon=True
        )
        follower.start()
        server = server_of(application(api, pages.routes()))
        at = _address(*listening.getsockname()[:2])
        log.info("serving the API on %s, its description on %s/openapi.json", at, at)
        asyncio.run(_run(server, listening, feed, stop, health, pulse))
        follower.join(5.0)


def server_of(application: Any) -> uvicorn.Server:
    """A server that says nothing by itself: requests are counted, and what goes wrong is logged here."""
    import uvicorn  # noqa: PLC0415 - an extra

    return uvicorn.Server(
        uvicorn.Config(
            application,
            log_config=None,
            log_level=logging.CRITICAL,
            access_log=False,
            server_header=False,
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=2,
            backlog=1_024,
        )
    )


async def _run(
    server: uvicorn.Server,
    listening: socket.socket,
    feed: Feed,
    stop: Event,
    health: Health,
    pulse: Pulse,
) -> None:
    async def watch() -> None:
        while not stop.is_set() and not server.should_exit:
            pulse.beat()
            health.ready(server.started, "starting", part="api")
            await asyncio.sleep(BEAT_SECONDS)
        feed.close()
        server.should_exit = True

    watching = asyncio.create_task(watch())
    try:
        await server.serve([listening])
    finally:
        server.should_exit = True
        await watching


def _follow(settings: Settings, feed: Feed, stop: Event) -> None:
    """Read the newest changes, and on from there, until told to stop."""
    changes, place = ChangeLog(settings), Place()
    each = -(-settings.api.recent_changes // settings.topics.partitions)
    while not stop.is_set():
        try:
            if not place.ends:
                # What breaks off has told nothing, and is read again from its beginning.
                begin = Place(seen=LatestIds(REMEMBERED))
                there = changes.read(lineage=True, levels=True, place=begin, last=each)
                # Partitions come one beside the other; the feed is one, by time.
                feed.tell(sorted(there, key=lambda one: str(one.get("at", ""))))
                place = begin
            heard = time.monotonic()
            for some in changes.follow_in_batches(stop.is_set, place, lineage=True, levels=True):
                feed.state = "up"
                feed.tell(some)
                if some:
                    heard = time.monotonic()
                elif time.monotonic() - heard > QUIET_SECONDS:
                    # A broker that is gone and one with nothing to tell sound alike.
                    topic_plans.missing(settings, [settings.topics.changes])
                    heard = time.monotonic()
        except Exception as error:  # noqa: BLE001 - users are looked up all the same
            feed.state = "down"
            log.warning("the feed of changes is not read: %s", error)
            stop.wait(AGAIN_SECONDS)
