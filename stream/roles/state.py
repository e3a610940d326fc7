"""What a role other than `activity` keeps of each partition, and what is promised of its store.

Comes in: commits of the role's owners, under keys of the role. Goes out: rows and outbox entries. Rows are
opaque here: bytes of one length a user, and bytes of any length for the partition itself. Everything else is
the protocol of the activity workers' state: one owner by token, commits that are all or nothing, refused to
whoever is fenced and recognised when repeated, and an outbox that is written in the same commit.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from stream.store.memory_partitions import MemoryPartition, MemoryPartitions
from stream.store.promises import PublisherStore
from stream.store.state import Answer, OutboxEntry


class RolePosition(msgspec.Struct):
    """How far a partition of a role has come.

    Attributes:
        offsets: next offset to read, for each topic.
        version: of the rows; of another one they mean nothing.
        incarnation: of the state; more than any that the output has from before.
        rows: how many there are, so that some that vanish are missed.
        records: taken in before `offsets`.
        clock_ms: the partition's time at the commit.
        output: end of the role's topic when the state began.
        known_to: what stands before this offset of the role's topic is part of the state.
        topics: ids of the topics that are read; empty where the broker tells none.
        store_run: of the store's server, when the partition was taken over.
    """

    offsets: list[int]
    version: str
    incarnation: int = 1
    rows: int = 0
    records: int = 0
    clock_ms: int = 0
    output: int = 0
    known_to: int = 0
    topics: list[str] = []
    store_run: str = ""


@dataclass(frozen=True)
class RoleCommit:
    """One atomic step of a role's partition.

    Attributes:
        sequence: number of commits before this one.
        users: names of the rows to write.
        rows: their bytes, one after the other, all of one length.
        gone: names of rows to delete; none of them is in `users`.
        own: replaces what is kept of the partition itself; None leaves it.
        id: drawn once, kept when the commit is repeated.
    """

    sequence: int
    position: RolePosition
    users: Sequence[bytes] = ()
    rows: bytes = b""
    gone: Sequence[bytes] = ()
    own: bytes | None = None
    outbox: Sequence[OutboxEntry] = ()
    id: str = field(default_factory=lambda: secrets.token_hex(8))


class RoleStore(PublisherStore, Protocol):
    """What is promised of a role's store; where nothing else is said, as by `OwnerStore`."""

    def acquire(self, partition: int, token: str) -> tuple[int, RolePosition] | None: ...
    def create(
        self, partition: int, token: str, position: RolePosition, *, replace: bool = False
    ) -> bool: ...
    def load(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Every row of a partition with its name; one may come twice."""
        ...

    def own(self, partition: int) -> bytes:
        """What is kept of the partition itself; empty if nothing is."""
        ...

    def is_whole(self, partition: int) -> bool: ...
    def submit(self, partition: int, token: str, commit: RoleCommit) -> Answer | None: ...
    def collect(self, partition: int, token: str, commit: RoleCommit) -> Answer: ...
    def abandon(self, partition: int) -> None: ...
    def position(self, partition: int) -> RolePosition | None: ...
    def partitions(self) -> int: ...
    def run(self) -> str: ...
    def delivered_to(self, partitions: Sequence[int]) -> list[int]: ...


@dataclass
class _Partition(MemoryPartition):
    own: bytes = b""


class MemoryRoleStore(MemoryPartitions[_Partition, RolePosition, RoleCommit]):
    """A role's store in this process: for tests, and the clearest statement of the promises."""

    def __init__(self, outbox_cap: int = 2_000) -> None:
        super().__init__(outbox_cap, _Partition, RolePosition)

    def own(self, partition: int) -> bytes:
        state = self._partitions.get(partition)
        return b"" if state is None else state.own

    def _apply_further(self, state: _Partition, commit: RoleCommit) -> None:
        for user in commit.gone:
            state.users.pop(user, None)
        if commit.own is not None:
            state.own = commit.own
