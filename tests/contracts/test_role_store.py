"""One suite of promises of a role's store, kept by the memory store and by Redis and Valkey."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis

from stream.rights import OWNER, acl_line, commands
from stream.roles.redis import RedisRoleStore
from stream.roles.state import MemoryRoleStore, RoleCommit, RolePosition, RoleStore
from stream.servers import LocalStore, redis_binary, valkey_binary
from stream.store.redis import RedisStore, connect
from stream.store.state import Answer, OutboxEntry, Position, StoreRefusedError
from tests.conftest import unavailable

PARTITIONS, CAP = 3, 2
START = RolePosition([7], "1", output=40, known_to=40)


def commit(sequence: int, **rest: Any) -> RoleCommit:
    """A commit that moves the position on by its number."""
    return RoleCommit(sequence, RolePosition([7 + sequence], "1", records=sequence), **rest)


def entry(*records: bytes) -> OutboxEntry:
    return OutboxEntry(1_000, records, 1)


def waiting(store: RoleStore, partition: int) -> list[OutboxEntry]:
    """The outbox; an empty one is not asked, because servers take a tenth of a second to say so."""
    if store.outbox_sizes([partition]) == [0]:
        return []
    return store.outbox({partition: "0-0"}, 100, 0.0)[partition]


def apply(store: RoleStore, partition: int, token: str, one: RoleCommit) -> Answer:
    answer = store.submit(partition, token, one)
    return store.collect(partition, token, one) if answer is None else answer


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """Address by name of each server that can be started here."""
    binaries = {"redis": redis_binary(), "valkey": valkey_binary()}
    started = {name: LocalStore(binary=one) for name, one in binaries.items() if one}
    try:
        yield {name: server.__enter__().url for name, server in started.items()}
    finally:
        for server in started.values():
            server.close()


@pytest.fixture(params=["memory", "redis", "valkey"])
def made(request: pytest.FixtureRequest) -> Callable[[str], RoleStore]:
    """Makes the store of a role."""
    name: str = request.param
    if name == "memory":
        stores: dict[str, MemoryRoleStore] = {}
        return lambda role: stores.setdefault(role, MemoryRoleStore(CAP))
    servers: dict[str, str] = request.getfixturevalue("servers")
    if name not in servers:
        unavailable(f"needs {name}")
    with redis.Redis.from_url(servers[name]) as client:
        client.flushall()
    return lambda role: of_server(servers[name], role)


def of_server(url: str, role: str) -> RedisRoleStore:
    client = connect(url, 5.0)
    return RedisRoleStore(client, role, namespace="ns", partitions=PARTITIONS, outbox_cap=CAP)


@pytest.fixture
def store(made: Callable[[str], RoleStore]) -> RoleStore:
    return made("role")


def test_a_state_is_begun_once_and_taken_over_by_token(store: RoleStore) -> None:
    assert store.acquire(1, "a") is None
    assert store.position(1) is None
    assert store.create(1, "a", START)
    assert not store.create(1, "b", START)
    assert store.acquire(1, "b") == (0, START)
    assert apply(store, 1, "a", commit(0)) is Answer.FENCED
    assert apply(store, 1, "b", commit(0)) is Answer.OK
    assert store.acquire(1, "c") == (1, RolePosition([7], "1"))
    assert store.delivered_to([0, 1]) == [0, 40]


def test_a_commit_is_rows_own_position_and_records_together(store: RoleStore) -> None:
    store.create(0, "a", START)
    assert (list(store.load(0)), store.own(0), store.is_whole(0)) == ([], b"", True)
    first = commit(0, users=[b"ann", b"bob"], rows=b"1234", own=b"mine", outbox=[entry(b"x", b"y")])
    assert apply(store, 0, "a", first) is Answer.OK
    assert dict(store.load(0)) == {b"ann": b"12", b"bob": b"34"}
    assert store.own(0) == b"mine"
    assert [one.changes for one in waiting(store, 0)] == [(b"x", b"y")]
    assert store.position(0) == first.position
    second = commit(1, users=[b"cid"], rows=b"56", gone=[b"ann", b"nobody"])
    assert apply(store, 0, "a", second) is Answer.OK
    assert dict(store.load(0)) == {b"bob": b"34", b"cid": b"56"}
    assert store.own(0) == b"mine", "what a commit does not bring stays"
    assert store.is_whole(0)
    third = commit(2, gone=[b"bob", b"cid"], own=b"")
    assert apply(store, 0, "a", third) is Answer.OK
    assert (list(store.load(0)), store.own(0)) == ([], b"")


def test_a_commit_that_is_repeated_is_recognised_and_one_out_of_turn_refused(
    store: RoleStore,
) -> None:
    store.create(0, "a", START)
    one = commit(0, users=[b"ann"], rows=b"1", outbox=[entry(b"x")])
    assert apply(store, 0, "a", one) is Answer.OK
    assert apply(store, 0, "a", one) is Answer.APPLIED
    assert apply(store, 0, "a", commit(0)) is Answer.DIVERGED
    assert apply(store, 0, "a", commit(2)) is Answer.DIVERGED
    assert apply(store, 2, "a", commit(0)) is Answer.LOST
    assert len(waiting(store, 0)) == 1


def test_a_full_outbox_refuses_only_what_adds_to_it(store: RoleStore) -> None:
    store.create(0, "a", START)
    full = commit(0, outbox=[entry(b"x"), entry(b"y")])
    assert apply(store, 0, "a", full) is Answer.OK
    assert apply(store, 0, "a", commit(1, outbox=[entry(b"z")])) is Answer.FULL
    assert apply(store, 0, "a", commit(1)) is Answer.OK


def test_what_is_acknowledged_is_gone_and_only_its_publisher_may(store: RoleStore) -> None:
    store.create(0, "a", START)
    apply(store, 0, "a", commit(0, outbox=[entry(b"x"), entry(b"y")]))
    assert store.take_outbox(1, "p") is None
    assert store.take_outbox(0, "p") == 40
    first, second = waiting(store, 0)
    assert not store.acknowledge(0, "q", [first.id], 41)
    assert store.acknowledge(0, "p", [first.id], 41)
    assert waiting(store, 0) == [second]
    assert store.delivered_to([0]) == [41]
    assert not store.acknowledge(0, "p", [first.id], 43)


def test_a_state_that_gives_way_leaves_nothing(store: RoleStore) -> None:
    store.create(0, "a", START)
    apply(store, 0, "a", commit(0, users=[b"ann"], rows=b"1", own=b"o", outbox=[entry(b"x")]))
    assert not store.create(0, "b", START, replace=True)
    assert store.create(0, "a", START, replace=True)
    assert (list(store.load(0)), store.own(0), waiting(store, 0)) == ([], b"", [])


def test_roles_know_nothing_of_each_other(made: Callable[[str], RoleStore]) -> None:
    one, other = made("one"), made("other")
    one.create(0, "a", START)
    apply(one, 0, "a", commit(0, users=[b"ann"], rows=b"1", own=b"o", outbox=[entry(b"x")]))
    one.note_output("id", "nothing")
    assert other.acquire(0, "b") is None
    assert (list(other.load(0)), other.own(0), other.outbox_sizes([0])) == ([], b"", [0])
    assert other.output() == ("", "")
    assert one.output() == ("id", "nothing")
    assert one.lease("one", "p", 5.0)
    assert not one.lease("one", "q", 5.0)
    assert other.lease("other", "q", 5.0)
    one.release("one", "p")
    assert one.lease("one", "q", 5.0)


def test_beside_the_activity_workers_state_it_is_another(servers: dict[str, str]) -> None:
    if "redis" not in servers:
        unavailable("needs redis")
    client = connect(servers["redis"], 5.0)
    client.flushall()
    activity = RedisStore(client, namespace="ns", partitions=PARTITIONS)
    activity.create(0, "w", Position([1, 2], "schema"))
    store = of_server(servers["redis"], "role")
    assert store.acquire(0, "a") is None
    store.create(0, "a", START)
    assert activity.create(0, "w", Position([1, 2], "schema"), replace=True)
    assert store.acquire(0, "a") == (0, START)
    store.close()
    activity.close()


def everything(store: RedisRoleStore) -> None:
    """All that a role does with its store."""
    assert store.lease("role", "p", 5.0)
    store.run()
    assert store.create(0, "a", START)
    assert store.acquire(0, "a") is not None
    list(store.load(0))
    store.own(0)
    store.is_whole(0)
    for number in range(2):
        one = commit(number, users=[b"a"], rows=b"1", gone=[b"b"], own=b"o", outbox=[entry(b"x")])
        assert apply(store, 0, "a", one) is Answer.OK
    store.position(0)
    store.delivered_to([0])
    store.output()
    store.note_output("id", "")
    assert store.take_outbox(0, "p") == 40
    found = store.outbox({0: "0-0"}, 10, 0.01)[0]
    store.outbox_sizes([0])
    assert store.acknowledge(0, "p", [one.id for one in found], 42)
    store.release("role", "p")


def test_an_owner_has_the_rights_it_needs_and_no_others(servers: dict[str, str]) -> None:
    if "redis" not in servers:
        unavailable("needs redis")
    url = servers["redis"]
    with redis.Redis.from_url(url) as admin:
        for without in ("", *OWNER):
            admin.flushall()
            admin.script_flush()
            words = acl_line("role", "ns", "secret").split()
            admin.execute_command(*(word for word in words if word != f"+{without}"))
            store = of_server(url.replace("redis://", "redis://segstream-role:secret@"), "role")
            if without:
                with pytest.raises(StoreRefusedError):
                    everything(store)
            else:
                everything(store)
            with suppress(redis.RedisError):
                store.close()
    assert set(OWNER) <= set(commands("role"))
