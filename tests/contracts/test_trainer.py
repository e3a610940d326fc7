"""What is promised to whoever learns, kept by each store."""

from __future__ import annotations

from stream.store.promises import Store
from tests.contracts.parts import START, InMemory, OnServers, commit


class Promises:
    """What every store promises to trainers; `store` is an empty one."""

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

    def test_looks_are_stored_with_a_model_and_stay_until_others_come(self, store: Store) -> None:
        assert store.looks() is None
        store.lead("a")
        assert store.put_model("a", b"one", 1, b"\0looks\r\n")
        assert store.looks() == b"\0looks\r\n"
        assert store.put_model("a", b"two", 2)
        assert store.looks() == b"\0looks\r\n"
        assert store.model() == (2, b"two")
        assert store.put_model("a", b"three", 3, b"")
        assert store.looks() == b""
        store.lead("b")
        assert not store.put_model("a", b"four", 4, b"late")
        assert (store.model(), store.looks()) == ((3, b"three"), b"")


class TestMemory(InMemory, Promises):
    pass


class TestRedis(OnServers, Promises):
    pass
