"""An API that answers on a port, on a store in memory with users, a model and changes.

Comes in: who may ask. Goes out: a running server, and what it has been asked to do. No other server is needed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

from ops.bench.members import PARTITIONS, a_state, fill
from ops.bench.takeover import NOW_MS
from stream.access import Client, Guard, Scope
from stream.api import pages
from stream.api.application import Api, application
from stream.api.pipeline import Facts
from stream.api.recent import Feed, Recent
from stream.campaigns.control import ControlRecord
from stream.campaigns.keep import Own
from stream.config import Settings
from stream.errors import BrokerUnavailableError
from stream.hashing import partition_of
from stream.store.memory import MemoryStore
from stream.units import iso
from stream.wiring.api import bound, server_of

USERS = 2_000
SECONDS = 120.0
"""A busy machine is slow, and no fault."""
ALL, READS = "token-of-one-who-may-everything", "token-of-one-who-may-only-read"
CLIENTS = (
    Client(name="boss", token="env:ALL", scopes=tuple(Scope)),  # noqa: S106 - a place
    Client(name="page", token="env:READS"),  # noqa: S106
)
CAMPAIGN = {"name": "win-back", "when": {"kind_to": ["at_risk"]}}
ODD_USERS = ("a/b?c#d %2F", "ctrl\x00\x01\n\r\t\x7f", "Ünïcødé 🛒", "'\"<script>", ".hidden")


def settings_of(**sections: Any) -> Settings:
    told = {
        "topics": {"partitions": PARTITIONS},
        "campaigns": [CAMPAIGN],
        "clock": {"mode": "watermark"},
    }
    return Settings.model_validate(told | sections)


def change(number: int, user: str = "user-1", **more: Any) -> dict[str, Any]:
    return {
        "id": f"change-{number}",
        "user": user,
        "version": number,
        "at": iso(NOW_MS + number * 1_000),
        "kind_from": "new",
        "kind_to": "at_risk",
        "cause": "time_passed",
    } | more


@dataclass
class MemoryPipeline:
    """A pipeline whose parts are in memory.

    Attributes:
        said: of campaigns.
        broken: raised wherever the store is asked for.
    """

    kept: MemoryStore
    said: list[ControlRecord] = field(default_factory=list)
    broken: Exception | None = None
    no_broker: bool = False

    def store(self) -> MemoryStore:
        if self.broken is not None:
            raise self.broken
        return self.kept

    def campaigns(self) -> Sequence[Own]:
        return ()

    def say(self, record: ControlRecord) -> int:
        if self.no_broker:
            raise BrokerUnavailableError("say it again: no broker answers")
        self.said.append(record)
        return PARTITIONS


def filled(settings: Settings) -> MemoryStore:
    """A store with users of all segments, some with odd names, and the model."""
    store, table = MemoryStore(), settings.table()
    state = a_state(table, settings, 600)
    assert state.model is not None
    fill(store, table, state.model, USERS)
    row = next(row for number in range(PARTITIONS) for _, row in store.load(number))
    for user in ODD_USERS:
        store._partitions[partition_of(user.encode(), PARTITIONS)].users[user.encode()] = row
    store.lead("trainer")
    store.put_model("trainer", state.pack(table), NOW_MS)
    return store


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A server at work."""

    port: int
    api: Api
    pipeline: MemoryPipeline
    feed: Feed

    def ask(
        self,
        path: str,
        token: str | None = READS,
        method: str = "GET",
        body: Any = None,
        **headers: str,
    ) -> Reply:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            told.setdefault("Authorization", f"Bearer {token}")
        data = body
        if body is not None and not isinstance(body, bytes):
            data = json.dumps(body).encode()
            told.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, data, told)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path: str, *parts: str, **more: Any) -> Any:
        """What there is at a path, whose further parts are encoded."""
        whole = "/".join([path, *(quote(part, safe="") for part in parts)])
        reply = self.ask(whole, **more)
        assert reply.status == 200, reply.body
        return reply.json()


@contextmanager
def serving(
    settings: Settings, store: MemoryStore, clients: Sequence[Client] = CLIENTS
) -> Iterator[Served]:
    """Serve until left."""
    recent = Recent(settings.api.recent_changes)
    feed = Feed(recent, settings.api.readers, settings.api.reader_waits)
    pipeline = MemoryPipeline(store)
    guard = Guard(clients, {"ALL": ALL, "READS": READS})
    api = Api(Facts(settings, pipeline, recent), feed, guard)
    server = server_of(application(api, pages.routes()))
    somewhere = settings.api.model_copy(update={"port": 0})
    with bound(settings.model_copy(update={"api": somewhere})) as listening:
        port = listening.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        deadline = time.monotonic() + SECONDS
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.005)
        assert server.started
        try:
            yield Served(port, api, pipeline, feed)
        finally:
            feed.close()
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()
