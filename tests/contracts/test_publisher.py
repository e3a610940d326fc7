"""What is promised to whoever delivers changes, kept by each store."""

from __future__ import annotations

from dataclasses import replace

from stream.store.promises import Store
from stream.store.state import (
    Answer,
    Position,
    entry_id,
)
from tests.contracts.parts import START, InMemory, OnServers, commit, entry, waiting


class Promises:
    """What every store promises to publishers; `store` is an empty one with an outbox cap of `CAP`."""

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


class TestMemory(InMemory, Promises):
    pass


class TestRedis(OnServers, Promises):
    pass
