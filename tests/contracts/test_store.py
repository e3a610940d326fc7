"""One suite of promises, kept by the memory store and by Redis and Valkey.

What only a server can do wrong (a late frame, a lost reply, no memory, a forgotten script, a lease
that runs out) follows below, for servers alone.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from stream.events import Counts
from stream.redis_state import RedisStore, connect, hash_tag
from stream.servers import LocalStore
from stream.state import (
    KEY_BYTES,
    KEY_OF_ORDER_BYTES,
    Answer,
    Commit,
    MemoryChanges,
    MemoryStore,
    OutboxEntry,
    Position,
    Store,
    StoreRefusedError,
    StoreUnavailableError,
    entry_id,
)
from tests.conftest import NOWHERE

PARTITIONS = 4
CAP = 3
START = Position([7, 9], "schema", clock_ms=5)


def entry(*changes: bytes, origin_ms: int = 1_000, incarnation: int = 1) -> OutboxEntry:
    return OutboxEntry(origin_ms, changes, incarnation)


def commit(sequence: int, **rest: Any) -> Commit:
    """A commit that moves the position on by its number."""
    position = Position([sequence, sequence + 1], "schema", clock_ms=sequence)
    return Commit(sequence=sequence, **({"position": position} | rest))


def waiting(store: Store, partition: int, limit: int = 100) -> list[OutboxEntry]:
    """The outbox; an empty one is not asked, because servers take a tenth of a second to say so."""
    if store.outbox_sizes([partition]) == [0]:
        return []
    return store.outbox({partition: "0-0"}, limit, 0.0)[partition]


def everything(store: Store, partition: int, token: str) -> tuple[Any, ...]:
    """All that a partition has; taking it over with the token it has changes nothing."""
    return (
        store.acquire(partition, token),
        dict(store.load(partition)),
        waiting(store, partition),
        store.statistics([partition]),
        store.round(),
        store.model(),
        store.wanted(),
    )


class Promises:
    """What every store promises; `store` is an empty one with an outbox cap of `CAP`."""

    # -- owners --

    def test_a_partition_nobody_began_has_nothing(self, store: Store) -> None:
        assert store.acquire(0, "a") is None
        assert store.position(0) is None
        assert store.row(0, b"ann") is None
        assert list(store.load(0)) == []
        assert store.statistics([0, 1]) == [None, None]
        assert store.statistics_times([0, 1]) == [0, 0]
        assert store.outbox({0: "0-0"}, 10, 0.0) == {}
        assert store.outbox_sizes([0, 1]) == [0, 0]
        assert store.commit(0, "a", commit(0, users=[b"ann"], rows=b"row")) is Answer.LOST
        assert store.position(0) is None
        assert list(store.load(0)) == []

    def test_state_is_begun_once(self, store: Store) -> None:
        assert store.create(0, "a", START)
        assert not store.create(0, "b", Position([0, 0], "other"))
        assert store.position(0) == START
        assert store.commit(0, "a", commit(0)) is Answer.OK
        assert store.acquire(1, "a") is None

    def test_state_may_give_way_to_a_new_one_whole(self, store: Store) -> None:
        store.create(0, "a", START)
        full = commit(0, users=[b"u"], rows=b"r", outbox=[entry(b"1")], statistics=b"s" * 8)
        store.commit(0, "a", full)
        anew = Position([3, 4], "schema", incarnation=2, output=9)
        before = everything(store, 0, "a")
        assert not store.create(0, "b", anew, replace=True), "it is another's"
        assert everything(store, 0, "a") == before
        store.acquire(0, "b")
        assert store.create(0, "b", anew, replace=True)
        assert everything(store, 0, "b")[:4] == ((0, anew), {}, [], [None])
        assert store.delivered_to([0]) == [9]
        assert store.commit(0, "a", commit(1)) is Answer.FENCED
        assert store.commit(0, "b", commit(0)) is Answer.OK

    def test_a_position_comes_back_as_it_was(self, store: Store) -> None:
        position = Position(
            [1 << 40, 0],
            "schema é",
            incarnation=3,
            clock_ms=1_764_547_200_123,
            mark_ms=2,
            round_ms=1,
            model="12.3",
            counts=Counts(applied=1 << 40, duplicate=2, late=3, ignored=4, rejected=5, clamped=6),
            first=[1 << 39, 0],
            output=1 << 41,
            known_to=1 << 42,
            users=5,
            topics=["one", "two", "three"],
            store_run="run",
        )
        assert store.create(0, "a", START)
        assert store.commit(0, "a", commit(0, position=position)) is Answer.OK
        assert store.position(0) == position
        assert store.acquire(0, "b") == (1, position)

    def test_a_commit_writes_all_of_it(self, store: Store) -> None:
        store.create(0, "a", START)
        users = [b"ann", "Zoë\r\n$3".encode(), b"x" * 300]
        rows = b"\r\n\0a*1\xff12\r\n+OK!"
        first = commit(0, users=users, rows=rows, outbox=[entry(b"{}")], statistics=b"12345678+")
        assert store.commit(0, "a", first) is Answer.OK
        assert dict(store.load(0)) == {
            users[0]: rows[:5], users[1]: rows[5:10], users[2]: rows[10:]
        }  # fmt: skip
        assert store.row(0, users[1]) == rows[5:10]
        assert store.row(0, b"nobody") is None
        assert store.position(0) == first.position
        assert store.statistics([0]) == [b"12345678+"]
        assert store.outbox_sizes([0]) == [1]
        second = commit(1, users=[b"ann"], rows=b"again")
        assert store.commit(0, "a", second) is Answer.OK
        assert store.row(0, b"ann") == b"again"
        assert store.row(0, users[1]) == rows[5:10]
        assert store.statistics([0]) == [b"12345678+"], "none given: they stay"
        assert store.acquire(0, "a") == (2, second.position)

    def test_position_and_users_are_of_one_moment(self, store: Store) -> None:
        assert store.is_whole(0)
        store.create(0, "t", START)
        assert store.is_whole(0)
        store.commit(0, "t", commit(0, users=[b"u"], rows=b"row"))
        store.commit(0, "t", commit(1))
        assert store.is_whole(0)
        assert dict(store.load(0)) == {b"u": b"row"}
        assert store.row(0, b"") is None
        store.create(0, "t", START, replace=True)
        assert store.is_whole(0)

    def test_partitions_do_not_touch(self, store: Store) -> None:
        for partition in range(PARTITIONS):
            store.create(partition, f"{partition}", START)
        one = commit(0, users=[b"ann"], rows=b"row", outbox=[entry(b"{}")], statistics=b"s" * 8)
        assert store.commit(2, "2", one) is Answer.OK
        for partition in (0, 1, 3):
            assert store.position(partition) == START
            assert list(store.load(partition)) == []
        assert store.outbox_sizes(range(PARTITIONS)) == [0, 0, 1, 0]
        assert list(store.outbox(dict.fromkeys(range(PARTITIONS), "0-0"), 9, 0.0)) == [2]
        assert store.statistics(range(PARTITIONS)) == [None, None, b"s" * 8, None]

    # -- refusals: each writes nothing --

    def test_a_repeated_commit_is_recognised(self, store: Store) -> None:
        store.create(0, "a", START)
        one = commit(0, users=[b"ann"], rows=b"row", outbox=[entry(b"{}")])
        assert store.commit(0, "a", one) is Answer.OK
        before = everything(store, 0, "a")
        assert store.commit(0, "a", one) is Answer.APPLIED
        assert store.commit(0, "a", one) is Answer.APPLIED
        assert everything(store, 0, "a") == before

    def test_another_owner_is_fenced(self, store: Store) -> None:
        store.create(0, "a", START)
        store.commit(0, "a", commit(0, users=[b"ann"], rows=b"row"))
        assert store.acquire(0, "b") == (1, commit(0).position)
        before = everything(store, 0, "b")
        late = commit(1, users=[b"ann"], rows=b"late", outbox=[entry(b"{}")], statistics=b"s" * 8)
        assert store.commit(0, "a", late) is Answer.FENCED
        assert everything(store, 0, "b") == before
        assert store.commit(0, "b", commit(1)) is Answer.OK
        assert store.commit(0, "a", late) is Answer.FENCED

    def test_an_earlier_owners_own_last_commit_is_fenced_too(self, store: Store) -> None:
        store.create(0, "a", START)
        one = commit(0)
        store.commit(0, "a", one)
        store.acquire(0, "b")
        assert store.commit(0, "a", one) is Answer.FENCED

    def test_a_commit_remembers_and_forgets_with_all_the_rest(self, store: Store) -> None:
        """What a place held is forgotten first: it may be used again in the same commit."""
        store.create(0, "a", START)
        assert list(store.load_ids(0)) == []
        assert list(store.load_orders(0)) == []
        keys = [bytes([number]) * KEY_OF_ORDER_BYTES for number in range(6)]
        kept = [b"\r\n\0$%d" % number for number in range(6)]
        first = MemoryChanges(
            ids={0: keys[0] + keys[1], 9: keys[2]},
            orders={3: (keys[3] + keys[4], kept[3] + kept[4]), 17: (keys[5], kept[5])},
        )
        assert store.commit(0, "a", commit(0, memory=first)) is Answer.OK
        assert dict(store.load_ids(0)) == {0: keys[0] + keys[1], 9: keys[2]}
        assert sorted(store.load_orders(0)) == [
            (3, keys[3], kept[3]), (3, keys[4], kept[4]), (17, keys[5], kept[5]),
        ]  # fmt: skip
        second = MemoryChanges([9, 1], {9: keys[3], 0: keys[4]}, [17], {3: (keys[3], kept[0])})
        assert store.commit(0, "b", commit(1, memory=second)) is Answer.FENCED
        assert dict(store.load_ids(0)) == {0: keys[0] + keys[1], 9: keys[2]}
        assert store.commit(0, "a", commit(1, memory=second)) is Answer.OK
        assert store.commit(0, "a", commit(1, memory=second, id="x")) is Answer.DIVERGED
        assert dict(store.load_ids(0)) == {0: keys[0] + keys[1] + keys[4], 9: keys[3]}
        assert sorted(store.load_orders(0)) == [(3, keys[3], kept[0]), (3, keys[4], kept[4])]
        assert list(store.load_ids(1)) == []
        assert store.create(0, "a", START, replace=True)
        assert list(store.load_ids(0)) == []
        assert list(store.load_orders(0)) == []

    @pytest.mark.parametrize("sequence", [0, 2, 100])
    def test_a_commit_out_of_sequence_has_diverged(self, store: Store, sequence: int) -> None:
        store.create(0, "a", START)
        store.commit(0, "a", commit(0))
        before = everything(store, 0, "a")
        other = commit(sequence, users=[b"ann"], rows=b"row", outbox=[entry(b"{}")])
        assert store.commit(0, "a", other) is Answer.DIVERGED
        assert everything(store, 0, "a") == before

    def test_a_full_outbox_refuses_more_changes_but_not_commits_without(self, store: Store) -> None:
        store.create(0, "a", START)
        outbox = [entry(b"1"), entry(b"2")]
        assert store.commit(0, "a", commit(0, outbox=outbox)) is Answer.OK
        # The cap is where waiting begins, not a limit on one commit.
        assert store.commit(0, "a", commit(1, outbox=outbox)) is Answer.OK
        before = everything(store, 0, "a")
        full = commit(2, users=[b"ann"], rows=b"row", outbox=[entry(b"3")])
        assert store.commit(0, "a", full) is Answer.FULL
        assert store.commit(0, "a", full) is Answer.FULL
        assert everything(store, 0, "a") == before
        assert store.commit(0, "a", commit(2, users=[b"bob"], rows=b"row")) is Answer.OK
        store.take_outbox(0, "p")
        [entries] = store.outbox({0: "0-0"}, 2, 0.0).values()
        assert store.acknowledge(0, "p", [e.id for e in entries], 5)
        assert store.commit(0, "a", replace(full, sequence=3)) is Answer.OK

    def test_fencing_is_told_before_everything_else(self, store: Store) -> None:
        store.create(0, "a", START)
        store.commit(0, "a", commit(0, outbox=[entry(b"1")] * CAP))
        store.acquire(0, "b")
        assert store.commit(0, "a", commit(9, outbox=[entry(b"2")])) is Answer.FENCED
        assert store.commit(0, "b", commit(9, outbox=[entry(b"2")])) is Answer.DIVERGED

    # -- answers that come later --

    def test_an_answer_is_given_at_once_or_collected(self, store: Store) -> None:
        for partition in (0, 1):
            store.create(partition, "a", START)
        for sequence in range(3):
            ones = [commit(sequence, users=[b"u"], rows=b"%d" % sequence) for _ in (0, 1)]
            early = [store.submit(p, "a", one) for p, one in enumerate(ones)]
            for p in (1, 0):
                assert (early[p] or store.collect(p, "a", ones[p])) is Answer.OK
                assert store.row(p, b"u") == b"%d" % sequence
        before = everything(store, 0, "a")
        again = store.submit(0, "a", ones[0]) or store.collect(0, "a", ones[0])
        assert again is Answer.APPLIED
        store.acquire(0, "b")
        late = commit(3, users=[b"u"], rows=b"9")
        assert (store.submit(0, "a", late) or store.collect(0, "a", late)) is Answer.FENCED
        assert everything(store, 0, "b") == before

    def test_an_abandoned_commit_is_applied_whole_or_not_at_all(self, store: Store) -> None:
        store.create(0, "a", START)
        one = commit(0, users=[b"u"], rows=b"r", outbox=[entry(b"{}")], statistics=b"s" * 8)
        store.submit(0, "a", one)
        store.abandon(0)
        store.abandon(0)
        assert store.commit(0, "a", one) in {Answer.OK, Answer.APPLIED}
        assert store.acquire(0, "a") == (1, one.position)
        assert store.outbox_sizes([0]) == [1]
        assert store.commit(0, "a", commit(1)) is Answer.OK

    def test_a_takeover_while_a_commit_is_under_way_keeps_all_of_it_or_nothing(
        self, store: Store
    ) -> None:
        store.create(0, "a", START)
        one = commit(0, users=[b"u"], rows=b"r", outbox=[entry(b"{}")])
        early = store.submit(0, "a", one)
        found = store.acquire(0, "b")
        answer = early or store.collect(0, "a", one)
        applied = answer is Answer.OK
        assert answer in {Answer.OK, Answer.FENCED}
        assert found == ((1, one.position) if applied else (0, START))
        assert store.outbox_sizes([0]) == [int(applied)]
        assert store.row(0, b"u") == (b"r" if applied else None)

    # -- the outbox --

    def test_changes_wait_in_order_with_their_commit_in_the_id(self, store: Store) -> None:
        store.create(0, "a", START)
        entries = [entry(b'{"a":1}', b'{"b":2}', origin_ms=17), entry(b"{}", incarnation=4)]
        first, third = commit(0, outbox=entries), commit(2, outbox=[entry(b"[]")])
        for one in (first, commit(1), third):
            store.commit(0, "a", one)
        found = store.outbox({0: "0-0"}, 10, 0.0)[0]
        ids = [entry_id(first, 0), entry_id(first, 1), entry_id(third, 0)]
        assert [e.id for e in found] == ids
        assert [replace(e, id="") for e in found] == [*entries, entry(b"[]")]
        assert store.outbox({0: "0-0"}, 2, 0.0) == {0: found[:2]}
        assert store.outbox({0: ids[0]}, 10, 0.0) == {0: found[1:]}
        assert store.outbox({0: ids[1], 1: "0-0"}, 10, 0.0) == {0: found[2:]}
        assert store.outbox({0: ids[2]}, 10, 0.0) == {}

    def test_entries_are_sorted_by_number_not_by_text(self, store: Store) -> None:
        store.create(0, "a", START)
        commits = [commit(n, outbox=[entry(b"%d" % n)]) for n in range(12)]
        ids = [entry_id(one, 0) for one in commits]
        for sequence, one in enumerate(commits):
            store.take_outbox(0, "p")
            assert store.commit(0, "a", one)
            if sequence < 9:
                assert store.acknowledge(0, "p", [ids[sequence]], 0)
        assert [e.id for e in store.outbox({0: ids[8]}, 9, 0.0)[0]] == ids[9:]

    def test_what_is_acknowledged_is_forgotten_and_nothing_else(self, store: Store) -> None:
        store.create(0, "a", START)
        assert store.take_outbox(0, "p") == 0
        one = commit(0, outbox=[entry(b"1"), entry(b"2"), entry(b"3")])
        ids = [entry_id(one, n) for n in range(3)]
        store.commit(0, "a", one)
        assert store.acknowledge(0, "p", [ids[1]], 42)
        assert [e.id for e in store.outbox({0: "0-0"}, 9, 0.0)[0]] == [ids[0], ids[2]]
        assert store.outbox_sizes([0]) == [2]
        assert store.acknowledge(0, "p", [], 44)
        assert store.outbox_sizes([0]) == [2]
        assert store.delivered_to([0, 1]) == [44, 0]
        assert store.take_outbox(0, "q") == 44

    def test_an_entry_is_named_by_its_commit_and_not_by_its_place(self, store: Store) -> None:
        """What a lost commit had at the same place was delivered; what stands there now was not."""
        store.create(0, "a", START)
        store.take_outbox(0, "p")
        lost, kept = (commit(0, outbox=[entry(b"%d" % n)]) for n in range(2))
        store.commit(0, "a", kept)
        assert not store.acknowledge(0, "p", [entry_id(lost, 0)], 43)
        assert waiting(store, 0) == [replace(kept.outbox[0], id=entry_id(kept, 0))]
        assert store.delivered_to([0]) == [0]
        # Of several, those that are there were delivered.
        assert not store.acknowledge(0, "p", [entry_id(lost, 0), entry_id(kept, 0)], 43)
        assert waiting(store, 0) == []
        assert store.take_outbox(0, "q") == 0

    def test_an_earlier_publisher_acknowledges_nothing(self, store: Store) -> None:
        store.create(0, "a", START)
        one = commit(0, outbox=[entry(b"1")])
        store.commit(0, "a", one)
        store.take_outbox(0, "p")
        assert store.acknowledge(0, "p", [], 10)
        assert store.take_outbox(0, "q") == 10
        assert not store.acknowledge(0, "p", [entry_id(one, 0)], 99)
        assert store.outbox_sizes([0]) == [1]
        assert store.take_outbox(0, "q") == 10
        assert store.acknowledge(0, "q", [entry_id(one, 0)], 11)
        assert store.outbox_sizes([0]) == [0]

    def test_an_outbox_is_taken_only_after_its_state_began(self, store: Store) -> None:
        assert store.take_outbox(0, "p") is None
        store.create(0, "a", START)
        one = commit(0, outbox=[entry(b"1")])
        store.commit(0, "a", one)
        assert not store.acknowledge(0, "p", [entry_id(one, 0)], 5)
        assert store.take_outbox(0, "p") == 0
        assert store.acknowledge(0, "p", [entry_id(one, 0)], 5)

    def test_nothing_before_its_own_beginning_counts_as_delivered(self, store: Store) -> None:
        assert store.create(0, "a", Position([7, 9], "schema", incarnation=43, output=42))
        assert not store.create(0, "a", Position([7, 9], "schema", output=99))
        assert store.take_outbox(0, "p") == 42
        assert store.acknowledge(0, "p", [], 50)
        assert store.take_outbox(0, "q") == 50

    def test_owner_and_publisher_do_not_fence_each_other(self, store: Store) -> None:
        store.create(0, "a", START)
        store.take_outbox(0, "p")
        one = commit(0, outbox=[entry(b"1")])
        assert store.commit(0, "a", one) is Answer.OK
        store.acquire(0, "b")
        assert store.acknowledge(0, "p", [entry_id(one, 0)], 1)
        assert store.commit(0, "b", commit(1)) is Answer.OK

    def test_what_the_output_lacks_is_kept(self, store: Store) -> None:
        assert store.output() == ("", "")
        store.note_output("id", "made anew é")
        assert store.output() == ("id", "made anew é")

    # -- the trainer --

    def test_the_last_statistics_win_and_tell_their_time(self, store: Store) -> None:
        for partition in (0, 2):
            store.create(partition, "a", START)
        moment = 1_764_547_200_123
        store.commit(0, "a", commit(0, statistics=(5).to_bytes(8, "big") + b"old"))
        store.commit(0, "a", commit(1, statistics=moment.to_bytes(8, "big") + b"\r\nnew"))
        store.commit(2, "a", commit(0, statistics=(6).to_bytes(8, "big")))
        assert store.statistics_times(range(3)) == [moment, 0, 6]
        raw = store.statistics(range(3))
        assert raw == [moment.to_bytes(8, "big") + b"\r\nnew", None, (6).to_bytes(8, "big")]

    def test_a_role_is_one_holders_until_released(self, store: Store) -> None:
        assert store.lease("trainer", "a", 30)
        assert store.lease("trainer", "a", 30), "held by oneself: renewed"
        assert not store.lease("trainer", "b", 30)
        assert store.lease("publisher", "b", 30), "another role"
        store.release("trainer", "b")
        assert not store.lease("trainer", "b", 30), "only the holder can leave"
        store.release("trainer", "a")
        store.release("trainer", "a")
        assert store.lease("trainer", "b", 30)
        assert not store.lease("trainer", "a", 30)

    def test_only_the_leading_trainer_writes_models(self, store: Store) -> None:
        assert store.model() is None
        assert store.round() == 0
        assert not store.put_model("a", b"model", 1), "nobody leads yet"
        store.lead("a")
        assert store.put_model("a", b"\0one\r\n", 10)
        assert store.model() == (10, b"\0one\r\n")
        assert store.round() == 10
        store.lead("b")
        assert not store.put_model("a", b"late", 20)
        assert store.model() == (10, b"\0one\r\n"), "the model outlives its trainer"
        assert store.put_model("b", b"two", 20)
        assert (store.round(), store.model()) == (20, (20, b"two"))
        assert store.put_model("b", b"three", 15), "a clock was ahead"
        assert (store.round(), store.model()) == (15, (15, b"three"))

    def test_names_that_persons_gave_are_kept(self, store: Store) -> None:
        assert store.given_names() == {}
        store.give_name(4, "Bargain hunters")
        store.give_name(12, "Über alle")
        store.give_name(4, "Bargains")
        assert store.given_names() == {4: "Bargains", 12: "Über alle"}

    def test_what_a_person_wants_stays_until_they_want_something_else(self, store: Store) -> None:
        assert store.wanted() is None
        store.want(b"\0this\r\n")
        assert store.wanted() == b"\0this\r\n"
        assert store.model() is None, "to want something is not to have it"
        assert store.round() == 0
        store.lead("a")
        assert store.put_model("a", b"model", 1)
        assert store.wanted() == b"\0this\r\n", "who carries it out leaves it"
        store.want(b"that")
        assert store.wanted() == b"that"
        assert store.model() == (1, b"model")
        assert store.put_model("a", b"model", 2), "and the trainer leads on"

    def test_a_namespace_has_one_secret(self, store: Store) -> None:
        key = store.namespace_key()
        assert len(key) == KEY_BYTES
        assert store.namespace_key() == key

    def test_a_namespace_is_begun_with_one_number_of_partitions(self, store: Store) -> None:
        assert store.partitions() == 0
        assert [store.begin(12), store.begin(24), store.partitions()] == [12, 12, 12]


class TestMemory(Promises):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore(outbox_cap=CAP)


# -- servers -------------------------------------------------------------------------------------


@pytest.fixture
def client(store_server: LocalStore) -> Iterator[redis.Redis]:
    """A bystander with a connection of its own."""
    made = connect(store_server.url, 5.0)
    yield made
    made.config_set("maxmemory", 0)
    made.close()


@pytest.fixture
def open_store(store_server: LocalStore, client: redis.Redis) -> Iterator[Callable[[], RedisStore]]:
    """Opens stores under one namespace that no other test has, each with its own connections."""
    namespace = f"t{secrets.token_hex(6)}"
    opened: list[RedisStore] = []

    def open_one() -> RedisStore:
        store = RedisStore(
            connect(store_server.url, 5.0),
            namespace=namespace,
            partitions=PARTITIONS,
            outbox_cap=CAP,
        )
        opened.append(store)
        return store

    yield open_one
    client.config_set("maxmemory", 0)
    for store in opened:
        store.close()


@pytest.mark.servers
class TestRedis(Promises):
    """Each kind of server, by `store_server`."""

    @pytest.fixture
    def store(self, open_store: Callable[[], RedisStore]) -> Store:
        return open_store()


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
