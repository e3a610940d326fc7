"""What contracts of stores are written with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stream.store.memory import MemoryStore
from stream.store.promises import Store
from stream.store.redis import RedisStore
from stream.store.state import Commit, OutboxEntry, Position

PARTITIONS = 4
CAP = 3
START = Position([7, 9], "schema", clock_ms=5)


class InMemory:
    """Runs a contract against the memory store."""

    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore(outbox_cap=CAP)


@pytest.mark.servers
class OnServers:
    """Runs a contract against each kind of server, by `store_server`."""

    @pytest.fixture
    def store(self, open_store: Callable[[], RedisStore]) -> Store:
        return open_store()


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
