"""What only a server can do wrong.

A late frame, a lost reply, no memory, a forgotten script, a lease that runs out; and whether servers
answer as the memory store does, whatever they are asked.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from stream.servers import LocalStore
from stream.store.memory import MemoryStore
from stream.store.promises import Store
from stream.store.redis import RedisStore, connect, hash_tag
from stream.store.state import (
    Answer,
    StoreRefusedError,
    StoreUnavailableError,
)
from tests.conftest import NOWHERE
from tests.contracts.parts import CAP, PARTITIONS, START, commit, entry, everything, waiting

Hook = Callable[[], object]


def before_exec(store: RedisStore, monkeypatch: pytest.MonkeyPatch, hook: Hook) -> None:
    """Let something happen once between a commit's check and its EXEC."""
    connection, hooks = store._links[0]._connection, [hook]
    send = connection.send_packed_command

    def intercept(frames: list[bytes]) -> None:
        if any(b"EXEC" in frame for frame in frames) and hooks:
            hooks.pop()()
        send(frames)

    monkeypatch.setattr(connection, "send_packed_command", intercept)


def keys_of(client: redis.Redis, store: RedisStore) -> list[bytes]:
    found: Any = client.keys(f"{store._namespace}:*")
    return sorted(found)


@pytest.mark.servers
class TestServers:
    def test_a_server_that_was_started_again_is_another_run(self) -> None:
        with LocalStore(appendonly=True) as server:
            store = RedisStore(connect(server.url, 5.0), namespace="t", partitions=1)
            before = store.run()
            assert before
            assert store.run() == before
            server.restart()
            assert store.run() not in {"", before}
            store.close()

    def test_what_others_wrote_is_refused_with_its_key(
        self, open_store: Callable[[], RedisStore], client: redis.Redis
    ) -> None:
        store = open_store()
        store.create(0, "t", START)
        client.hset(store._key(0, "meta"), "position", "{")
        client.xadd(store._key(0, "out"), {"no": "change"})
        with pytest.raises(StoreRefusedError, match="meta holds what was not written"):
            store.position(0)
        with pytest.raises(StoreRefusedError, match="meta holds what was not written"):
            store.acquire(0, "t")
        with pytest.raises(StoreRefusedError, match="out holds what was not written"):
            store.outbox({0: "0-0"}, 1, 0.0)

    @pytest.mark.parametrize("key", ["meta", "users"])
    def test_a_key_that_was_put_back_alone_is_noticed(
        self, open_store: Callable[[], RedisStore], client: redis.Redis, key: str
    ) -> None:
        store = open_store()
        store.create(0, "t", START)
        store.commit(0, "t", commit(0, users=[b"u"], rows=b"row"))
        name = store._key(0, key)
        before: Any = client.dump(name)
        store.commit(0, "t", commit(1, users=[b"u"], rows=b"two"))
        assert store.is_whole(0)
        client.restore(name, 0, before, replace=True)
        assert not store.is_whole(0)

    def test_all_who_share_a_namespace_have_its_secret(
        self, open_store: Callable[[], RedisStore]
    ) -> None:
        keys = {open_store().namespace_key() for _ in range(3)}
        assert len(keys) == 1

    def test_a_given_secret_is_the_same_in_every_namespace(self, client: redis.Redis) -> None:
        def key(namespace: str) -> bytes:
            return RedisStore(
                client, namespace=namespace, partitions=1, namespace_key="given"
            ).namespace_key()

        assert key("one") == key("other") == MemoryStore(namespace_key="given").namespace_key()
        assert not client.exists("one:key")

    """What only a server can do wrong."""

    @pytest.fixture
    def store(self, open_store: Callable[[], RedisStore]) -> RedisStore:
        """One that has connected, with partition 0 begun by owner "a" and a commit made."""
        store = open_store()
        store.create(0, "a", START)
        assert store.commit(0, "a", commit(0)) is Answer.OK
        return store

    def test_a_commit_that_comes_after_the_takeover_writes_nothing(
        self,
        store: RedisStore,
        open_store: Callable[[], RedisStore],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        other = open_store()
        before_exec(store, monkeypatch, lambda: other.acquire(0, "b"))
        late = commit(1, users=[b"ann"], rows=b"late", outbox=[entry(b"{}")], statistics=b"s" * 8)
        assert store.commit(0, "a", late) is Answer.FENCED
        assert everything(other, 0, "b") == (
            (1, commit(0).position),
            {},
            [],
            [None],
            0,
            None,
            None,
        )  # fmt: skip
        assert other.commit(0, "b", commit(1)) is Answer.OK

    def test_a_commit_that_its_own_repetition_overtakes_is_applied_once(
        self,
        store: RedisStore,
        open_store: Callable[[], RedisStore],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        other, one = open_store(), commit(1, outbox=[entry(b"{}")])
        before_exec(store, monkeypatch, lambda: other.commit(0, "a", one))
        assert store.commit(0, "a", one) is Answer.APPLIED
        assert store.outbox_sizes([0]) == [1]

    def test_a_commit_overtaken_by_another_has_diverged(
        self,
        store: RedisStore,
        open_store: Callable[[], RedisStore],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        other = open_store()
        before_exec(store, monkeypatch, lambda: other.commit(0, "a", commit(1)))
        assert store.commit(0, "a", commit(1, users=[b"x"], rows=b"y")) is Answer.DIVERGED
        assert list(store.load(0)) == []

    def test_state_that_goes_between_check_and_exec_is_lost(
        self, store: RedisStore, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before_exec(store, monkeypatch, lambda: client.delete(store._key(0, "meta")))
        assert store.commit(0, "a", commit(1, users=[b"x"], rows=b"y")) is Answer.LOST
        assert list(store.load(0)) == []

    def test_a_lost_reply_is_no_lost_commit(
        self, store: RedisStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection = store._links[0]._connection
        read, sent = connection.read_response, []
        send = connection.send_packed_command

        def remember(frames: list[bytes]) -> None:
            sent.extend(frames)
            send(frames)

        def fail(*arguments: Any, **options: Any) -> Any:
            if any(b"EXEC" in frame for frame in sent):
                raise redis.TimeoutError("no reply")
            return read(*arguments, **options)

        monkeypatch.setattr(connection, "send_packed_command", remember)
        monkeypatch.setattr(connection, "read_response", fail)
        one = commit(1, users=[b"ann"], rows=b"row", outbox=[entry(b"{}")])
        with pytest.raises(StoreUnavailableError):
            store.commit(0, "a", one)
        monkeypatch.undo()
        deadline = time.monotonic() + 5.0
        while store.row(0, b"ann") is None:  # the server may still be at it
            assert time.monotonic() < deadline
        assert store.commit(0, "a", one) is Answer.APPLIED
        assert store.outbox_sizes([0]) == [1]

    def test_a_broken_connection_is_made_anew(self, store: RedisStore, client: redis.Redis) -> None:
        client.client_kill_filter(_type="normal", skipme=True)
        one = commit(1, users=[b"ann"], rows=b"row")
        with pytest.raises(StoreUnavailableError):
            store.commit(0, "a", one)
        assert store.commit(0, "a", one) is Answer.OK
        assert store.row(0, b"ann") == b"row"

    def test_out_of_memory_writes_nothing_and_heals(
        self, store: RedisStore, client: redis.Redis
    ) -> None:
        before = everything(store, 0, "a")
        one = commit(1, users=[b"ann"], rows=b"row", outbox=[entry(b"{}")], statistics=b"s" * 8)
        client.config_set("maxmemory", 1)
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                store.commit(0, "a", one)
        with pytest.raises(StoreUnavailableError):
            store.acquire(0, "b")
        with pytest.raises(StoreUnavailableError):
            store.put_model("t", b"model", 1)
        client.config_set("maxmemory", 0)
        assert everything(store, 0, "a") == before
        assert store.commit(0, "a", one) is Answer.OK
        assert store.row(0, b"ann") == b"row"

    def test_forgotten_scripts_are_sent_again(self, store: RedisStore, client: redis.Redis) -> None:
        def forget() -> None:
            client.script_flush()

        forget()
        assert store.acquire(0, "b") == (1, commit(0).position)
        forget()
        assert store.create(1, "b", START)
        forget()
        assert store.take_outbox(0, "p") == 0
        forget()
        assert store.acknowledge(0, "p", [], 3)
        forget()
        assert store.lease("trainer", "t", 30)
        store.lead("t")
        forget()
        assert store.put_model("t", b"model", 1)
        forget()
        store.release("trainer", "t")
        assert store.commit(0, "b", commit(1)) is Answer.OK

    def test_deleted_state_is_lost_and_begun_anew_from_nothing(
        self, store: RedisStore, client: redis.Redis
    ) -> None:
        one = commit(1, users=[b"ann"], rows=b"row", outbox=[entry(b"{}")], statistics=b"s" * 8)
        store.commit(0, "a", one)
        store.take_outbox(0, "p")
        client.delete(store._key(0, "meta"))
        assert store.commit(0, "a", commit(2)) is Answer.LOST
        assert store.acquire(0, "a") is None
        assert store.create(0, "a", msgspec.structs.replace(START, incarnation=2, output=8))
        assert list(store.load(0)) == []
        assert store.outbox_sizes([0]) == [0]
        assert store.statistics([0]) == [None]
        assert not store.acknowledge(0, "p", ["2-0"], 1)
        assert store.take_outbox(0, "p") == 8

    def test_a_lease_runs_out(self, store: RedisStore) -> None:
        assert store.lease("trainer", "a", 0.05)
        deadline = time.monotonic() + 5.0
        while not store.lease("trainer", "b", 30):
            assert time.monotonic() < deadline
        assert not store.lease("trainer", "a", 30)

    def test_a_lease_is_renewed_in_full(self, store: RedisStore, client: redis.Redis) -> None:
        assert store.lease("trainer", "a", 1)
        assert store.lease("trainer", "a", 60)
        left: Any = client.pttl(f"{store._namespace}:lease:trainer")
        assert 50_000 < left <= 60_000

    def test_many_users_load_once_each(self, store: RedisStore) -> None:
        users = [b"user %d" % i for i in range(12_000)]
        rows = b"".join(b"%08d" % i for i in range(len(users)))
        assert store.commit(0, "a", commit(1, users=users, rows=rows)) is Answer.OK
        assert dict(store.load(0)) == {u: b"%08d" % i for i, u in enumerate(users)}

    def test_keys_of_a_partition_share_a_slot(self, store: RedisStore, client: redis.Redis) -> None:
        for partition in range(PARTITIONS):
            store.create(partition, "a", START)
            sequence, _ = store.acquire(partition, "a") or (0, START)
            one = commit(sequence, users=[b"u"], rows=b"r", outbox=[entry(b"{}")], statistics=b"s")
            assert store.commit(partition, "a", one) is Answer.OK
            store.take_outbox(partition, "p")
        slots: dict[bytes, set[int]] = {}
        for key in keys_of(client, store):
            slots.setdefault(key[key.index(b"{") : key.index(b"}")], set()).add(key_slot(key))
        assert len(slots) == PARTITIONS
        assert all(len(found) == 1 for found in slots.values())
        names = {key.rpartition(b":")[2] for key in keys_of(client, store)}
        assert names == {b"meta", b"users", b"out", b"stats", b"pub"}


def test_nobody_at_the_address_is_told_in_words() -> None:
    store = RedisStore(connect(f"redis://{NOWHERE}/0", 0.5), namespace="n", partitions=1)
    calls: Sequence[Callable[[], object]] = (
        lambda: store.acquire(0, "a"),
        lambda: store.create(0, "a", START),
        lambda: list(store.load(0)),
        lambda: store.commit(0, "a", commit(0)),
        lambda: store.position(0),
        lambda: store.row(0, b"u"),
        lambda: store.take_outbox(0, "p"),
        lambda: store.outbox({0: "0-0"}, 1, 0.0),
        lambda: store.outbox_sizes([0]),
        lambda: store.acknowledge(0, "p", [], 0),
        lambda: store.statistics([0]),
        lambda: store.statistics_times([0]),
        lambda: store.lease("trainer", "t", 1),
        lambda: store.release("trainer", "t"),
        lambda: store.lead("t"),
        lambda: store.put_model("t", b"", 0),
        store.model,
        store.round,
        lambda: store.want(b""),
        store.wanted,
    )
    for call in calls:
        with pytest.raises(StoreUnavailableError, match=NOWHERE):
            call()
    store.close()


@pytest.mark.parametrize(("partitions", "shards"), [(48, 6), (12, 3), (12, 6), (64, 4)])
def test_partitions_are_spread_evenly_over_shards(partitions: int, shards: int) -> None:
    # A cluster's shards hold equal and contiguous parts of the slots.
    slots = [key_slot(f"ns:{{{hash_tag(p, partitions)}}}:meta".encode()) for p in range(partitions)]
    assert Counter(slot * shards // 16_384 for slot in slots) == dict.fromkeys(
        range(shards), partitions // shards
    )
    assert len({hash_tag(p, partitions) for p in range(partitions)}) == partitions


# -- the two side by side ------------------------------------------------------------------------

_TOKENS = st.sampled_from(["a", "b"])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("acquire"), _TOKENS),
        st.tuples(st.just("create"), _TOKENS),
        st.tuples(
            st.just("commit"),
            _TOKENS,
            st.integers(-1, 1),  # off the sequence by this much
            st.integers(0, 2),  # entries
            st.integers(0, 3),  # ids, few of them, so that some are repeated
        ),
        st.tuples(st.just("take"), _TOKENS),
        st.tuples(st.just("acknowledge"), _TOKENS, st.integers(0, 5)),
        st.tuples(st.just("lead"), _TOKENS),
        st.tuples(st.just("put"), _TOKENS),
        st.tuples(st.just("want"), _TOKENS),
        st.tuples(st.just("lease"), _TOKENS),
        st.tuples(st.just("release"), _TOKENS),
    ),
    max_size=30,
)


def play(store: Store, steps: Sequence[tuple[Any, ...]]) -> list[object]:
    """What a store answers to a sequence of calls, and what it holds in the end."""
    answers: list[object] = []
    sequence = 0
    for number, (name, token, *rest) in enumerate(steps):
        match name:
            case "acquire":
                found = store.acquire(0, token)
                answers.append(found)
                sequence = found[0] if found else 0
            case "create":
                answers.append(store.create(0, token, START))
            case "commit":
                off, entries, identity = rest
                one = commit(
                    max(sequence + off, 0),
                    users=[b"u%d" % (number % 3)],
                    rows=b"%04d" % number,
                    outbox=[entry(b"%d" % number)] * entries,
                    id=f"id{identity}",
                )
                answer = store.commit(0, token, one)
                answers.append(answer)
                sequence += answer is Answer.OK
            case "take":
                answers.append(store.take_outbox(0, token))
            case "acknowledge":
                ids = [e.id for e in waiting(store, 0, rest[0] or 1)]
                answers.append(store.acknowledge(0, token, ids, number) if sequence else None)
            case "lead":
                store.lead(token)
            case "put":
                answers.append(store.put_model(token, b"%d" % number, number))
            case "want":
                store.want(b"%d" % number)
            case "lease":
                answers.append(store.lease("trainer", token, 60))
            case "release":
                store.release("trainer", token)
    return [*answers, everything(store, 0, "a")]


@pytest.mark.servers
@given(steps=_STEPS)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_servers_answer_as_the_memory_store_does(
    store_server: LocalStore, steps: list[tuple[Any, ...]]
) -> None:
    client = connect(store_server.url, 5.0)
    there = RedisStore(
        client, namespace=f"t{secrets.token_hex(6)}", partitions=PARTITIONS, outbox_cap=CAP
    )
    try:
        assert play(there, steps) == play(MemoryStore(outbox_cap=CAP), steps)
    finally:
        there.close()
