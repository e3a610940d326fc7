"""What is promised to whoever looks, and to a person at work, kept by each store."""

from __future__ import annotations

from stream.store.promises import Store
from stream.store.state import (
    KEY_BYTES,
    Answer,
)
from tests.contracts.parts import START, InMemory, OnServers, commit


class Promises:
    """What every store promises to readers and operators; `store` is an empty one."""

    def test_a_partition_nobody_began_has_nothing(self, store: Store) -> None:
        assert store.acquire(0, "a") is None
        assert store.position(0) is None
        assert store.row(0, b"ann") is None
        assert store.rows([(0, b"ann"), (1, b"bob")]) == [None, None]
        assert store.rows([]) == []
        assert store.page(0, 0, 10) == (0, [])
        assert list(store.load(0)) == []
        assert store.statistics([0, 1]) == [None, None]
        assert store.statistics_times([0, 1]) == [0, 0]
        assert store.outbox({0: "0-0"}, 10, 0.0) == {}
        assert store.outbox_sizes([0, 1]) == [0, 0]
        assert store.commit(0, "a", commit(0, users=[b"ann"], rows=b"row")) is Answer.LOST
        assert store.position(0) is None
        assert list(store.load(0)) == []

    def test_rows_of_many_come_in_the_order_asked_for_each_with_its_position(
        self, store: Store
    ) -> None:
        for partition in (0, 1):
            assert store.create(partition, "a", START)
            users = [b"%d-%d" % (partition, user) for user in range(3)]
            done = commit(0, users=users, rows=b"".join(b"r" + user for user in users))
            assert store.commit(partition, "a", done) is Answer.OK
        first, nobody, second, again, unbegun, unnamed = store.rows(
            [(1, b"1-2"), (0, b"1-2"), (0, b"0-0"), (1, b"1-2"), (3, b"1-2"), (0, b"")]
        )
        assert first == again
        assert (nobody, unbegun, unnamed) == (None, None, None)
        assert first is not None
        assert second is not None
        assert (first[0], second[0]) == (b"r1-2", b"r0-0")
        assert (first[1], second[1]) == (store.position(1), store.position(0))

    def test_pages_have_every_user_and_come_to_an_end(self, store: Store) -> None:
        assert store.create(0, "a", START)
        users = [b"user-%04d" % number for number in range(2_000)]
        rows = b"".join(b"row%04d" % number for number in range(2_000))
        assert store.commit(0, "a", commit(0, users=users, rows=rows)) is Answer.OK
        cursor, pages, found = 0, 0, dict[bytes, bytes]()
        while pages == 0 or cursor:
            cursor, page = store.page(0, cursor, 100)
            found.update(page)
            pages += 1
        assert pages > 10
        assert found == {user: rows[place * 7 : place * 7 + 7] for place, user in enumerate(users)}
        for odd in (1, 12_345_678_901_234_567, 2**64 - 1):
            _, some = store.page(0, odd, 10)
            assert found.items() >= dict(some).items()

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
