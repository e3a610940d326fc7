"""Keeps the store's promises in this process.

Comes in and goes out: whatever `promises` says. For tests, rehearsals, and as the clearest statement of
the promises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from stream.store.state import Answer, Commit, OutboxEntry, Position, entry_id, key_of


@dataclass
class _Partition:
    token: str
    position: bytes
    sequence: int = 0
    last_commit: str = ""
    users: dict[bytes, bytes] = field(default_factory=dict)
    users_commit: str = ""
    rows_commit: str = ""
    outbox: list[OutboxEntry] = field(default_factory=list)
    statistics: bytes | None = None
    ids: dict[int, bytes] = field(default_factory=dict)
    orders: dict[int, dict[bytes, bytes]] = field(default_factory=dict)
    publisher: str = ""
    delivered_to: int = 0


class MemoryStore:
    """A store in this process: for tests, and the clearest statement of the promises.

    Leases end only when they are released: it owns no clock. Nothing is drawn: two stores have the
    same secret unless they are given others.
    """

    def __init__(self, outbox_cap: int = 2_000, namespace_key: str = "memory") -> None:
        self._cap = outbox_cap
        self._key = key_of(namespace_key)
        self._partitions: dict[int, _Partition] = {}
        self._begun_with = 0
        self._leases: dict[str, str] = {}
        self._trainer: tuple[int, bytes] | None = None
        self._names: dict[int, str] = {}
        self._leader = ""
        self._output = ("", "")
        self._wanted: bytes | None = None

    def acquire(self, partition: int, token: str) -> tuple[int, Position] | None:
        state = self._partitions.get(partition)
        if state is None:
            return None
        state.token = token
        return state.sequence, msgspec.json.decode(state.position, type=Position)

    def create(
        self, partition: int, token: str, position: Position, *, replace: bool = False
    ) -> bool:
        there = self._partitions.get(partition)
        if there is not None and not (replace and there.token == token):
            return False
        self._partitions[partition] = _Partition(
            token, msgspec.json.encode(position), delivered_to=position.output
        )
        return True

    def load(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        state = self._partitions.get(partition)
        if state is not None:
            yield from state.users.items()

    def load_ids(self, partition: int) -> Iterator[tuple[int, bytes]]:
        state = self._partitions.get(partition)
        if state is not None:
            yield from state.ids.items()

    def load_orders(self, partition: int) -> Iterator[tuple[int, bytes, bytes]]:
        state = self._partitions.get(partition)
        for place, orders in ({} if state is None else state.orders).items():
            for key, packed in orders.items():
                yield place, key, packed

    def is_whole(self, partition: int) -> bool:
        state = self._partitions.get(partition)
        return state is None or state.users_commit == state.rows_commit

    def commit(self, partition: int, token: str, commit: Commit) -> Answer:
        state = self._partitions.get(partition)
        if state is None:
            return Answer.LOST
        if state.token != token:
            return Answer.FENCED
        if state.last_commit == commit.id:
            return Answer.APPLIED
        if state.sequence != commit.sequence:
            return Answer.DIVERGED
        if commit.outbox and len(state.outbox) >= self._cap:
            return Answer.FULL
        if commit.users:
            size = len(commit.rows) // len(commit.users)
            for index, user in enumerate(commit.users):
                state.users[user] = commit.rows[index * size : (index + 1) * size]
            state.users_commit = state.rows_commit = commit.id
        for index, entry in enumerate(commit.outbox):
            state.outbox.append(
                OutboxEntry(
                    entry.origin_ms,
                    entry.changes,
                    entry.incarnation,
                    entry_id(commit, index),
                )
            )
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
        state.position = msgspec.json.encode(commit.position)
        state.sequence += 1
        state.last_commit = commit.id
        return Answer.OK

    def submit(self, partition: int, token: str, commit: Commit) -> Answer | None:
        return self.commit(partition, token, commit)

    def collect(self, partition: int, token: str, commit: Commit) -> Answer:
        return self.commit(partition, token, commit)

    def abandon(self, partition: int) -> None:
        """Nothing is ever under way here."""

    def position(self, partition: int) -> Position | None:
        state = self._partitions.get(partition)
        return None if state is None else msgspec.json.decode(state.position, type=Position)

    def row(self, partition: int, user: bytes) -> bytes | None:
        state = self._partitions.get(partition)
        return None if state is None else state.users.get(user)

    def run(self) -> str:
        return "memory"

    def delivered_to(self, partitions: Sequence[int]) -> list[int]:
        states = [self._partitions.get(p) for p in partitions]
        return [0 if state is None else state.delivered_to for state in states]

    def output(self) -> tuple[str, str]:
        return self._output

    def note_output(self, topic_id: str, lacks: str) -> None:
        self._output = (topic_id, lacks)

    def partitions(self) -> int:
        return self._begun_with

    def begin(self, partitions: int) -> int:
        self._begun_with = self._begun_with or partitions
        return self._begun_with

    def namespace_key(self) -> bytes:
        return self._key

    def take_outbox(self, partition: int, token: str) -> int | None:
        state = self._partitions.get(partition)
        if state is None:
            return None
        state.publisher = token
        return state.delivered_to

    def outbox(
        self, after: Mapping[int, str], limit: int, wait_seconds: float
    ) -> dict[int, list[OutboxEntry]]:
        del wait_seconds
        found: dict[int, list[OutboxEntry]] = {}
        for partition, begin in after.items():
            state = self._partitions.get(partition)
            waiting = [] if state is None else state.outbox
            entries = [e for e in waiting if _place(e.id) > _place(begin)][:limit]
            if entries:
                found[partition] = entries
        return found

    def outbox_sizes(self, partitions: Sequence[int]) -> list[int]:
        states = [self._partitions.get(p) for p in partitions]
        return [0 if state is None else len(state.outbox) for state in states]

    def acknowledge(
        self, partition: int, token: str, entries: Sequence[str], delivered_to: int
    ) -> bool:
        state = self._partitions.get(partition)
        if state is None or state.publisher != token:
            return False
        before, named = len(state.outbox), set(entries)
        state.outbox = [entry for entry in state.outbox if entry.id not in named]
        if before - len(state.outbox) < len(named):
            return False
        state.delivered_to = delivered_to
        return True

    def statistics(self, partitions: Sequence[int]) -> list[bytes | None]:
        states = [self._partitions.get(p) for p in partitions]
        return [None if state is None else state.statistics for state in states]

    def statistics_times(self, partitions: Sequence[int]) -> list[int]:
        return [int.from_bytes((raw or b"")[:8], "big") for raw in self.statistics(partitions)]

    def lease(self, role: str, token: str, seconds: float) -> bool:
        del seconds
        return self._leases.setdefault(role, token) == token

    def release(self, role: str, token: str) -> None:
        if self._leases.get(role) == token:
            del self._leases[role]

    def lead(self, token: str) -> None:
        self._leader = token

    def put_model(self, token: str, model: bytes, round_ms: int) -> bool:
        if self._leader != token:
            return False
        self._trainer = (round_ms, model)
        return True

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


def _place(entry_id: str) -> tuple[int, int]:
    sequence, index = entry_id.split("-")
    return int(sequence), int(index)
