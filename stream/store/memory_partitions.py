"""Keeps what is owned by partition in this process: one owner, commits that are all or nothing, an outbox.

Comes in: commits of owners, and what publishers have delivered. Goes out: answers, rows and outbox entries, as
by `redis_partitions`, which is the same on a server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec

from stream.store.state import Answer, AnyPosition, OutboxEntry, Step, entry_id


@dataclass
class MemoryPartition:
    """What every owned partition has."""

    token: str
    position: bytes
    delivered_to: int
    sequence: int = 0
    last_commit: str = ""
    users: dict[bytes, bytes] = field(default_factory=dict)
    users_commit: str = ""
    rows_commit: str = ""
    outbox: list[OutboxEntry] = field(default_factory=list)
    publisher: str = ""


PartT = TypeVar("PartT", bound=MemoryPartition)
PositionT = TypeVar("PositionT", bound=AnyPosition)
StepT = TypeVar("StepT", bound=Step)


class MemoryPartitions(Generic[PartT, PositionT, StepT]):
    """Partitions in this process. Leases end only when they are released: it owns no clock.

    Args:
        outbox_cap: entries in a partition's outbox at which its commits are refused.
        part: the type of what is kept of a partition.
        position: the type of positions.
    """

    def __init__(self, outbox_cap: int, part: type[PartT], position: type[PositionT]) -> None:
        self._cap = outbox_cap
        self._part_type = part
        self._position_type = position
        self._partitions: dict[int, PartT] = {}
        self._leases: dict[str, str] = {}
        self._output = ("", "")
        self._begun_with = 0

    # -- owners -------------------------------------------------------------------------------

    def acquire(self, partition: int, token: str) -> tuple[int, PositionT] | None:
        state = self._partitions.get(partition)
        if state is None:
            return None
        state.token = token
        return state.sequence, self._position(state)

    def create(
        self, partition: int, token: str, position: PositionT, *, replace: bool = False
    ) -> bool:
        there = self._partitions.get(partition)
        if there is not None and not (replace and there.token == token):
            return False
        start = msgspec.json.encode(position)
        self._partitions[partition] = self._part_type(token, start, position.output)
        return True

    def load(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        state = self._partitions.get(partition)
        if state is not None:
            yield from state.users.items()

    def is_whole(self, partition: int) -> bool:
        state = self._partitions.get(partition)
        return state is None or state.users_commit == state.rows_commit

    def commit(self, partition: int, token: str, commit: StepT) -> Answer:
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
        self._apply_further(state, commit)
        state.position = msgspec.json.encode(commit.position)
        state.sequence += 1
        state.last_commit = commit.id
        return Answer.OK

    def _apply_further(self, state: PartT, commit: StepT) -> None:
        """Write what only some commits bring."""

    def submit(self, partition: int, token: str, commit: StepT) -> Answer | None:
        return self.commit(partition, token, commit)

    def collect(self, partition: int, token: str, commit: StepT) -> Answer:
        return self.commit(partition, token, commit)

    def abandon(self, partition: int) -> None:
        """Nothing is ever under way here."""

    # -- readers ------------------------------------------------------------------------------

    def position(self, partition: int) -> PositionT | None:
        state = self._partitions.get(partition)
        return None if state is None else self._position(state)

    def _position(self, state: PartT) -> PositionT:
        return msgspec.json.decode(state.position, type=self._position_type)

    def partitions(self) -> int:
        return self._begun_with

    def run(self) -> str:
        return "memory"

    # -- publisher ----------------------------------------------------------------------------

    def delivered_to(self, partitions: Sequence[int]) -> list[int]:
        states = [self._partitions.get(p) for p in partitions]
        return [0 if state is None else state.delivered_to for state in states]

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

    def output(self) -> tuple[str, str]:
        return self._output

    def note_output(self, topic_id: str, lacks: str) -> None:
        self._output = (topic_id, lacks)

    # -- leases -------------------------------------------------------------------------------

    def lease(self, role: str, token: str, seconds: float) -> bool:
        del seconds
        return self._leases.setdefault(role, token) == token

    def release(self, role: str, token: str) -> None:
        if self._leases.get(role) == token:
            del self._leases[role]


def _place(entry_name: str) -> tuple[int, int]:
    sequence, index = entry_name.split("-")
    return int(sequence), int(index)
