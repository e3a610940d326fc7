"""The users in the guide can do what their roles do, and nothing else: on a real Redis."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from consumers.doctor import examine
from consumers.findings import Finding
from stream.config import Settings, Store
from stream.features import FeatureTable
from stream.rights import ASKED, RIGHTS, acl_line, commands
from stream.servers import LocalStore, redis_binary
from stream.store.redis import RedisStore, connect
from stream.store.state import Commit, MemoryChanges, OutboxEntry, Position, StoreRefusedError
from tests.conftest import unavailable

GUIDE = Path(__file__).parent.parent.parent / "ops/guide/redis.md"
LINES = re.findall(r"^ACL SETUSER segstream-(\w+) (.*)$", GUIDE.read_text(), re.MULTILINE)
PASSWORD = secrets.token_hex(8)
ROLES = sorted(RIGHTS)
SCHEMA = FeatureTable(Settings().features).schema


@pytest.fixture(scope="module")
def server() -> Iterator[LocalStore]:
    if redis_binary() is None:
        unavailable("needs redis: apt-get install redis-server")
    with LocalStore(binary=redis_binary(), appendonly=True) as made:
        yield made


@pytest.fixture
def admin(server: LocalStore) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        client.script_flush()
        yield client


def as_role(admin: redis.Redis, server: LocalStore, role: str, without: str = "") -> str:
    """Make the user of the guide's line, and give the address for it."""
    (line,) = (words for name, words in LINES if name == role)
    words = [w for w in line.replace("PASSWORD", PASSWORD).split() if w != f"+{without}"]
    admin.execute_command("ACL", "SETUSER", f"segstream-{role}", *words)  # type: ignore[no-untyped-call]
    return server.url.replace("redis://", f"redis://segstream-{role}:{PASSWORD}@")


def opened(url: str, namespace: str = "segstream") -> RedisStore:
    return RedisStore(connect(url, 5.0), namespace=namespace, partitions=2)


def filled(admin_url: str) -> None:
    """What a pipeline leaves behind: state, an outbox, statistics, a model."""
    with_everything = opened(admin_url)
    with_everything.namespace_key()
    with_everything.create(0, "before", Position([0, 0], SCHEMA))
    entry = OutboxEntry(1, (b"{}",), 1)
    commit = Commit(0, Position([1, 1], SCHEMA), [b"ann"], b"row", [entry], b"statistics")
    with_everything.commit(0, "before", commit)
    with_everything.lead("trainer")
    with_everything.put_model("trainer", b"model", 7)
    with_everything.close()


# -- what the roles do -----------------------------------------------------------------------------


def activity(store: RedisStore) -> None:
    store.namespace_key()
    store.run()
    store.round()
    store.model()
    found = store.acquire(0, "worker")
    assert found is not None
    sequence, position = found
    list(store.load(0))
    list(store.load_ids(0))
    list(store.load_orders(0))
    list(store.load_words(0))
    store.delivered_to([0, 1])
    entry = OutboxEntry(1, (b"{}",), 1)
    for number in range(2):
        words = {0: (b"wo", b"known")}
        memory = MemoryChanges([1], {0: b"message."}, [1], {0: (b"order...", b"kept")}, words)
        commit = Commit(
            sequence + number, position, [b"bob"], b"row", [entry], b"statistics", memory
        )
        assert store.submit(0, "worker", commit) is None
        store.collect(0, "worker", commit)
    store.abandon(0)
    store.position(0)
    store.create(1, "worker", Position([0, 0], SCHEMA))


def trainer(store: RedisStore) -> None:
    assert store.lease("trainer", "t", 5.0)
    store.lead("t")
    store.run()
    store.model()
    store.statistics_times(range(2))
    store.statistics(range(2))
    store.given_names()
    store.wanted()
    assert store.put_model("t", b"model", 8)
    store.round()
    store.release("trainer", "t")


def publisher(store: RedisStore) -> None:
    assert store.lease("publisher", "p", 5.0)
    store.output()
    store.note_output("id", "")
    assert store.take_outbox(0, "p") is not None
    found = store.outbox({0: "0-0", 1: "0-0"}, 10, 0.01)
    store.outbox_sizes(range(2))
    assert store.acknowledge(0, "p", [entry.id for entry in found[0]], 1)
    store.release("publisher", "p")


def reader(store: RedisStore) -> None:
    store.namespace_key()
    store.position(0)
    store.row(0, b"ann")
    list(store.load(0))
    store.outbox({0: "0-0"}, 10, 0.01)
    store.outbox_sizes(range(2))
    store.model()
    store.round()
    store.given_names()
    store.wanted()
    store.output()


def operator(store: RedisStore) -> None:
    reader(store)
    store.give_name(3, "Regulars")
    store.want(b"tuning")
    store.note_output("id", "")


WORK: dict[str, Callable[[RedisStore], None]] = {
    "activity": activity,
    "trainer": trainer,
    "publisher": publisher,
    "reader": reader,
    "operator": operator,
}


def test_the_guide_shows_the_lines_that_are_declared() -> None:
    shown = [f"ACL SETUSER segstream-{role} {words}" for role, words in LINES]
    assert shown == [acl_line(role, "segstream") for role in RIGHTS]
    for _, words in LINES:
        assert "@" not in words
        assert re.search(r" (%R)?~segstream:\* ", words)


def test_the_guide_says_what_a_role_that_owns_partitions_needs() -> None:
    """Which it needs and what it does without: `tests/contracts/test_role_store.py`."""
    said = re.search(
        r"^`campaigns`, .*? needs `([^`]+)`\.$", GUIDE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert said
    assert said[1].split() == [f"+{command}" for command in commands("campaigns")]


def test_every_role_has_rights() -> None:
    assert RIGHTS.keys() == {*WORK, "doctor"}


@pytest.mark.servers
@pytest.mark.parametrize("role", sorted(WORK))
def test_a_role_does_its_work_under_its_user(
    admin: redis.Redis, server: LocalStore, role: str
) -> None:
    filled(server.url)
    store = opened(as_role(admin, server, role))
    WORK[role](store)
    store.close()


def _needs(command: str, work: Callable[[Any], object], argument: object) -> None:
    work(argument)
    pytest.fail(f"it works without {command}")


@pytest.mark.servers
@pytest.mark.parametrize("role", sorted(WORK))
def test_a_role_has_no_right_that_it_does_not_need(
    admin: redis.Redis, server: LocalStore, role: str
) -> None:
    """Without any one of its commands something of its work is refused; nothing is retried."""
    for command in RIGHTS[role]:
        admin.flushall()
        admin.script_flush()
        filled(server.url)
        admin.script_flush()
        if (role, command) == ("operator", "set"):
            admin.delete("segstream:key")
        store = opened(as_role(admin, server, role, without=command))
        with pytest.raises(StoreRefusedError):
            _needs(command, WORK[role], store)
        store.close()


@pytest.mark.servers
@pytest.mark.parametrize("role", sorted(WORK))
def test_a_role_does_without_what_it_only_asks(
    admin: redis.Redis, server: LocalStore, role: str
) -> None:
    filled(server.url)
    store = opened(as_role(admin, server, role, without="info"))
    WORK[role](store)
    store.close()


@pytest.mark.servers
@pytest.mark.parametrize("role", ROLES)
def test_everything_else_is_refused(admin: redis.Redis, server: LocalStore, role: str) -> None:
    filled(server.url)
    admin.set("other:key", b"")
    allowed = {command.replace("|", " ").upper() for command in commands(role)}
    with connect(as_role(admin, server, role), 5.0) as client:
        tried: dict[str, Callable[[], object]] = {
            "FLUSHALL": client.flushall,
            "KEYS": client.keys,
            "CONFIG SET": lambda: client.config_set("maxmemory", 0),
            "ACL": client.acl_list,
            "SHUTDOWN": partial(client.shutdown, nosave=True),
            "EVAL": lambda: client.eval("return 1", 0),
            "SCRIPT FLUSH": client.script_flush,
            "RENAME": lambda: client.rename("segstream:trainer", "segstream:gone"),
            "GET": lambda: client.get("other:key"),
            "SET": lambda: client.set("other:key", b"mine"),
            "HSET": lambda: client.hset("other:hash", "a", "b"),
            "DEL": lambda: client.delete("other:key"),
        }
        assert tried.keys() - allowed >= {
            "FLUSHALL",
            "KEYS",
            "CONFIG SET",
            "ACL",
            "SHUTDOWN",
            "EVAL",
        }
        for name, give in tried.items():
            with pytest.raises(redis.ResponseError, match=r"[Nn]o permissions|has no perm"):
                _needs(f"the right to {name}", lambda call: call(), give)


@pytest.mark.servers
def test_a_reader_changes_nothing(admin: redis.Redis, server: LocalStore) -> None:
    filled(server.url)
    store = opened(as_role(admin, server, "reader"))
    for change in (
        lambda: store.give_name(1, "x"),
        lambda: store.want(b"x"),
        lambda: store.acquire(0, "x"),
        lambda: store.create(1, "x", Position([0, 0], SCHEMA)),
        lambda: store.lease("trainer", "x", 5.0),
    ):
        with pytest.raises(StoreRefusedError):
            change()
    store.close()


# -- the doctor ------------------------------------------------------------------------------------


def examined(url: str) -> dict[str, Finding]:
    settings = Settings(store=Store(url=url, namespace="segstream"))
    with suppress(KeyError):
        found = {finding.subject: finding for finding in examine(settings, list)}
        del found["broker"]
    return found


@pytest.mark.servers
@pytest.mark.parametrize("role", ["activity", "trainer", "publisher", "doctor"])
@pytest.mark.parametrize("without", ["", "info"])
def test_a_user_of_the_guide_is_well(
    admin: redis.Redis,
    server: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
    role: str,
    without: str,
) -> None:
    monkeypatch.setattr("consumers.doctor.BROKER_SECONDS", 0.1)
    found = examined(as_role(admin, server, role, without=without))
    assert all(finding.ok for finding in found.values()), found
    assert found["store writes"].finding == "keys under segstream: can be written"
    blind = {name for name, finding in found.items() if "not looked at" in finding.finding}
    expected: set[str] = set()
    if without:
        expected = {"store memory policy", "store persistence", "store replicas"}
    if role == "doctor":
        expected &= {"store replicas"}
    assert blind == expected
    assert "Redis 7" in found["store"].finding
    assert admin.keys("segstream:doctor:*") == []


@pytest.mark.servers
def test_what_is_missing_is_named_with_the_line_that_mends_it(
    admin: redis.Redis, server: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.doctor.BROKER_SECONDS", 0.1)
    found = examined(as_role(admin, server, "reader"))
    assert not found["store writes"].ok
    assert acl_line("activity", "segstream") in found["store writes"].remedy
    wrong = examined(server.url.replace("redis://", "redis://segstream-reader:wrong@"))
    assert acl_line("activity", "segstream") in wrong["store"].remedy
    for finding in (*found.values(), *wrong.values()):
        assert "@all" not in finding.remedy


def test_what_is_only_asked_is_in_every_line() -> None:
    for _, words in LINES:
        assert {f"+{command}" for command in ASKED} <= set(words.split())
