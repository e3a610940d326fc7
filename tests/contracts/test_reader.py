"""What is promised to whoever looks, and to a person at work, kept by each store."""

from __future__ import annotations

from stream.store.promises import Store
from stream.store.state import (
    KEY_BYTES,
    Answer,
)
from tests.contracts.parts import InMemory, OnServers, commit


class Promises:
    """What every store promises to readers and operators; `store` is an empty one."""

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

    def test_a_namespace_has_the_currency_that_was_named_first(self, store: Store) -> None:
        assert store.currency() == ""
        agreed = [store.agree_currency("EUR"), store.agree_currency("USD"), store.currency()]
        assert agreed == ["EUR", "EUR", "EUR"]


class TestMemory(InMemory, Promises):
    pass


class TestRedis(OnServers, Promises):
    pass
