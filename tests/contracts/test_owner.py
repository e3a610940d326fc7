"""What is promised to the owner of partitions, kept by each store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stream.events import Counts
from stream.store.promises import Store
from stream.store.state import (
    KEY_OF_ORDER_BYTES,
    Answer,
    MemoryChanges,
    Position,
)
from tests.contracts.parts import (
    CAP,
    PARTITIONS,
    START,
    InMemory,
    OnServers,
    commit,
    entry,
    everything,
)


class Promises:
    """What every store promises to owners; `store` is an empty one with an outbox cap of `CAP`."""

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

    def test_a_commit_keeps_the_words_that_were_learned(self, store: Store) -> None:
        """The last of what is known of each; a partition that begins anew knows none."""
        store.create(0, "a", START)
        assert list(store.load_words(0)) == []
        first = MemoryChanges(words={0: (b"\0\1\r\n", b"first second"), 1: (b"\0\1", b"other.")})
        assert store.commit(0, "a", commit(0, memory=first)) is Answer.OK
        second = MemoryChanges(words={0: (b"\r\n", b"\0again")})
        assert store.commit(0, "b", commit(1, memory=second)) is Answer.FENCED
        assert store.commit(0, "a", commit(1, memory=second)) is Answer.OK
        assert sorted(store.load_words(0)) == [
            (0, b"\0\1", b"first "), (0, b"\r\n", b"\0again"), (1, b"\0\1", b"other."),
        ]  # fmt: skip
        assert list(store.load_words(1)) == []
        assert store.create(0, "a", START, replace=True)
        assert list(store.load_words(0)) == []

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


class TestMemory(InMemory, Promises):
    pass


class TestRedis(OnServers, Promises):
    pass
