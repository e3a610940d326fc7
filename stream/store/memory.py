"""Keeps the store's promises in this process.

Comes in and goes out: whatever `promises` says. For tests, rehearsals, and as the clearest statement of
the promises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from stream.store.memory_partitions import MemoryPartition, MemoryPartitions
from stream.store.state import Commit, Position, key_of


@dataclass
class _Partition(MemoryPartition):
    statistics: bytes | None = None
    ids: dict[int, bytes] = field(default_factory=dict)
    orders: dict[int, dict[bytes, bytes]] = field(default_factory=dict)
    words: dict[int, dict[bytes, bytes]] = field(default_factory=dict)


class MemoryStore(MemoryPartitions[_Partition, Position, Commit]):
    """A store in this process: for tests, and the clearest statement of the promises.

    Leases end only when they are released: it owns no clock. Nothing is drawn: two stores have the
    same secret unless they are given others.
    """

    def __init__(self, outbox_cap: int = 2_000, namespace_key: str = "memory") -> None:
        super().__init__(outbox_cap, _Partition, Position)
        self._key = key_of(namespace_key)
        self._trainer: tuple[int, bytes] | None = None
        self._looks: bytes | None = None
        self._names: dict[int, str] = {}
        self._leader = ""
        self._currency = ""
        self._wanted: bytes | None = None

    def load_ids(self, partition: int) -> Iterator[tuple[int, bytes]]:
        state = self._partitions.get(partition)
        if state is not None:
            yield from state.ids.items()

    def load_orders(self, partition: int) -> Iterator[tuple[int, bytes, bytes]]:
        state = self._partitions.get(partition)
        for place, orders in ({} if state is None else state.orders).items():
            for key, packed in orders.items():
                yield place, key, packed

    def load_words(self, partition: int) -> Iterator[tuple[int, bytes, bytes]]:
        state = self._partitions.get(partition)
        for topic, words in ({} if state is None else state.words).items():
            for key, packed in words.items():
                yield topic, key, packed

    def _apply_further(self, state: _Partition, commit: Commit) -> None:
        if commit.statistics is not None:
            state.statistics = commit.statistics
        for place in commit.memory.no_ids:
            state.ids.pop(place, None)
        for place, keys in commit.memory.ids.items():
            state.ids[place] = state.ids.get(place, b"") + keys
        for place in commit.memory.no_orders:
            state.orders.pop(place, None)
        for place in commit.memory.orders:
            state.orders.setdefault(place, {}).update(commit.memory.orders_of(place))
        for topic in commit.memory.words:
            state.words.setdefault(topic, {}).update(commit.memory.words_of(topic))

    def row(self, partition: int, user: bytes) -> bytes | None:
        state = self._partitions.get(partition)
        return None if state is None else state.users.get(user)

    def rows(self, users: Sequence[tuple[int, bytes]]) -> list[tuple[bytes, Position] | None]:
        found = []
        for partition, user in users:
            row, position = self.row(partition, user), self.position(partition)
            found.append(None if row is None or position is None else (row, position))
        return found

    def page(
        self, partition: int, cursor: int, about: int
    ) -> tuple[int, list[tuple[bytes, bytes]]]:
        state = self._partitions.get(partition)
        users = [] if state is None else list(state.users.items())
        # Users are only ever added, and behind those who are there.
        end = cursor + about
        return (end if end < len(users) else 0), users[cursor:end]

    def begin(self, partitions: int) -> int:
        self._begun_with = self._begun_with or partitions
        return self._begun_with

    def currency(self) -> str:
        return self._currency

    def agree_currency(self, currency: str) -> str:
        self._currency = self._currency or currency
        return self._currency

    def namespace_key(self) -> bytes:
        return self._key

    def statistics(self, partitions: Sequence[int]) -> list[bytes | None]:
        states = [self._partitions.get(p) for p in partitions]
        return [None if state is None else state.statistics for state in states]

    def statistics_times(self, partitions: Sequence[int]) -> list[int]:
        return [int.from_bytes((raw or b"")[:8], "big") for raw in self.statistics(partitions)]

    def lead(self, token: str) -> None:
        self._leader = token

    def put_model(
        self, token: str, model: bytes, round_ms: int, looks: bytes | None = None
    ) -> bool:
        if self._leader != token:
            return False
        self._trainer = (round_ms, model)
        if looks is not None:
            self._looks = looks
        return True

    def looks(self) -> bytes | None:
        return self._looks

    def model(self) -> tuple[int, bytes] | None:
        return self._trainer

    def round(self) -> int:
        return 0 if self._trainer is None else self._trainer[0]

    def give_name(self, segment: int, name: str) -> None:
        self._names[segment] = name

    def given_names(self) -> dict[int, str]:
        return dict(self._names)

    def want(self, tuning: bytes) -> None:
        self._wanted = tuning

    def wanted(self) -> bytes | None:
        return self._wanted
