"""The role of the API on a real broker and a real store: what it reads, what it changes, and what it does without."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer

from consumers.client import read_to_end
from ops.bench.members import PARTITIONS, a_state, fill
from ops.bench.readers import Crowd
from ops.bench.takeover import NOW_MS
from producers import topics
from producers.client import producer_options
from stream.config import ConfigError, Settings
from stream.health import Health
from stream.servers import LocalBroker, LocalStore, free_port
from stream.wiring import roles
from stream.wiring.api import bound
from tests.conftest import SettingsFor
from tests.harness import Pipeline, assert_clean
from tests.strategies import ORDER, encoded
from tests.stream.api.serving import CAMPAIGN, SECONDS, change

TOKEN = "a-token-of-some-length-for-tests"  # noqa: S105 - of this test alone


class Client:
    """Asks one API."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def status(self, path: str) -> int:
        """0 where nobody answers."""
        try:
            return self.ask(path)[0]
        except OSError:
            return 0


def until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@contextmanager
def at_work(settings: Settings) -> Iterator[Client]:
    """The role in threads of this process, until left; it ends when it is told to."""
    stop, failed = Event(), list[Exception]()

    def work() -> None:
        try:
            roles.run(settings, ["api"], stop)
        except Exception as error:  # noqa: BLE001 - looked at below
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    client = Client(settings.api.port)
    try:
        until("nobody answers", lambda: bool(failed) or client.status("/v1/standing") == 200)
        assert failed == []
        yield client
    finally:
        stop.set()
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert failed == []


@pytest.fixture
def settings(
    local_broker: LocalBroker, redis_url: str, settings_for: SettingsFor, tmp_path: Path
) -> Settings:
    (tmp_path / "token").write_text(TOKEN)
    client = {
        "name": "tests",
        "token": f"file:{tmp_path}/token",
        "scopes": ["read", "rename", "pause"],
    }
    made = settings_for(
        local_broker.bootstrap, redis_url, api={"port": free_port(), "clients": [client]}
    )
    told = made.model_dump() | {"campaigns": [CAMPAIGN], "clock": {"mode": "watermark"}}
    told["topics"]["control"] = f"{made.store.namespace}-control"
    told["topics"]["triggers"] = f"{made.store.namespace}-triggers"
    found = Settings.model_validate(told)
    assert found.topics.partitions == PARTITIONS
    assert topics.apply(found, create=True, outlets=roles.outlets(found)) == []
    return found


def filled(settings: Settings) -> None:
    table = settings.table()
    state = a_state(table, settings, 600)
    assert state.model is not None
    with roles.open_store(settings) as store:
        store.begin(PARTITIONS)
        fill(store, table, state.model, 200)
        store.lead("trainer")
        store.put_model("trainer", state.pack(table), NOW_MS)


def send(settings: Settings, *records: dict[str, Any]) -> None:
    producer = Producer({"bootstrap.servers": settings.broker.bootstrap})
    for place, record in enumerate(records):
        value = msgspec.json.encode(record)
        producer.produce(settings.topics.changes, value, partition=place % PARTITIONS)
    assert producer.flush(SECONDS) == 0


@pytest.mark.servers
def test_it_reads_what_is_there_and_says_what_it_is_told(settings: Settings) -> None:
    filled(settings)
    send(settings, *(change(number, f"user-{number}") for number in range(6)))
    with at_work(settings) as client:
        status, user = client.ask("/v1/users/user-7")
        assert (status, user["user"]) == (200, "user-7")
        until("changes from before", lambda: len(client.ask("/v1/changes")[1]["changes"]) == 6)
        told = [one["version"] for one in client.ask("/v1/changes")[1]["changes"]]
        assert told == list(range(6)), "of all partitions, in the order of their time"
        send(settings, change(6), change(5, "user-5"))
        until("a change that comes", lambda: len(client.ask("/v1/changes")[1]["changes"]) == 7)

        segment = client.ask("/v1/segments")[1]["segments"][0]["id"]
        assert client.ask(f"/v1/segments/{segment}", "PATCH", {"name": "Regulars"})[0] == 200
        with roles.open_store(settings) as store:
            assert store.given_names() == {segment: "Regulars"}

        path = f"/v1/campaigns/{CAMPAIGN['name']}/paused"
        status, said = client.ask(path, "PUT", {"paused": True})
        assert (status, said["partitions"]) == (200, PARTITIONS)
        records = [
            msgspec.json.decode(message.value() or b"")
            for message in read_to_end(settings.broker, settings.topics.control)
        ]
        assert records == [said["record"]] * PARTITIONS
        assert said["record"]["by"] == "tests"
        assert client.ask("/v1/campaigns")[1]["campaigns"][0]["looked_at"] == 0


@pytest.mark.servers
def test_users_are_told_while_the_broker_is_away_and_the_store_is_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.wiring.api.AGAIN_SECONDS", 0.05)
    with LocalStore(appendonly=True) as store:
        told = settings.model_dump()
        told["broker"]["bootstrap"] = "127.0.0.1:1"
        told["store"]["url"] = store.url
        told["store"]["timeout_seconds"] = 0.5
        alone = Settings.model_validate(told)
        filled(alone)
        with at_work(alone) as client:
            assert client.status("/v1/users/user-7") == 200
            until("the feed is down", lambda: client.ask("/v1/standing")[1]["feed"] == "down")
            store.stop()
            until("it says so", lambda: client.status("/v1/users/user-7") == 503)
            store.start()
            until("it comes back", lambda: client.status("/v1/users/user-7") == 200)


READERS, SHOPPERS = 100, 200


def _shop(settings: Settings, first: int) -> None:
    """Each of so many new shoppers buys something."""
    producer = Producer(producer_options(settings.broker))
    for number in range(first, first + SHOPPERS):
        user = f"shopper {number}"
        order = encoded(
            time_ms=time.time_ns() // 1_000_000,
            event=ORDER,
            userId=user,
            messageId=user,
            properties={"revenue": 5.0 + number % 90},
        )
        producer.produce(settings.topics.purchases, order, user.encode())
    assert producer.flush(SECONDS) == 0


@pytest.mark.servers
@pytest.mark.slow
def test_owners_wait_neither_for_the_api_nor_for_who_reads_from_it(
    local_broker: LocalBroker, redis_url: str, settings_for: SettingsFor, tmp_path: Path
) -> None:
    """A hundred follow and one does not read; then the API itself stands still, with all of them."""
    settings = settings_for(
        local_broker.bootstrap,
        redis_url,
        api={"port": free_port()},
        worker={"sweep_seconds": 0.5, "decoder": "plain"},
        learning={"first_model_users": 100, "segments": 3},
        publisher={"lease_seconds": 1.0},
    )
    client = Client(settings.api.port)
    with Pipeline(settings, tmp_path) as pipeline:
        pipeline.create_topics()
        *_, api = pipeline.start("activity", "trainer", "publisher", "api")
        pipeline.wait("the API", lambda: client.status("/v1/standing") == 200)
        with Crowd(settings.api.port, READERS) as crowd:
            _shop(settings, 0)
            pipeline.wait("all to read of all", lambda: min(crowd.read) >= SHOPPERS)
            api.freeze()
            _shop(settings, SHOPPERS)
            pipeline.wait("their changes", lambda: len(pipeline.changes()) >= 2 * SHOPPERS)
            pipeline.wait("delivery", lambda: not any(pipeline.store.outbox_sizes(range(4))))
            counted = [one.counts.applied for one in pipeline.positions() if one is not None]
            assert sum(counted) == 2 * SHOPPERS
            assert max(crowd.read) < 2 * SHOPPERS, "the API does not stand still"
            api.thaw()
            pipeline.wait("the rest", lambda: min(crowd.read) >= 2 * SHOPPERS)
        pipeline.end()
        assert_clean(pipeline.audit())


def test_an_address_that_is_taken_ends_it(settings_for: SettingsFor) -> None:
    taken = settings_for(api={"port": free_port()})
    said = r"api\.port = \d+: 127\.0\.0\.1:\d+ cannot be listened on"
    with bound(taken) as there:
        there.listen()
        with pytest.raises(ConfigError, match=said), bound(taken):
            pass


def test_a_small_answer_is_sent_at_once(settings_for: SettingsFor) -> None:
    """Else its second packet waits until the first is acknowledged, which takes 40 ms."""

    async def is_sent_at_once(listening: socket.socket) -> bool:
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found = writer.get_extra_info("socket")
            told.set_result(bool(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
            writer.close()

        server = await asyncio.start_server(connected, sock=listening)
        _, writer = await asyncio.open_connection(*listening.getsockname()[:2])
        async with server:
            found = await told
        writer.close()
        return found

    with bound(settings_for(api={"port": 0})) as listening:
        assert asyncio.run(is_sent_at_once(listening))


def test_a_token_that_is_not_there_ends_it(settings_for: SettingsFor) -> None:
    client = {"name": "crm", "token": "env:NOBODY_SETS_THIS"}
    wrong = settings_for(api={"port": 0, "clients": [client]})
    with pytest.raises(
        ConfigError, match=r"api\.clients: client crm: env:NOBODY_SETS_THIS is empty"
    ):
        roles.ROLES["api"].parts[0](wrong, Event(), Health())
