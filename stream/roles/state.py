"""What a role other than `activity` keeps of each partition, and what is promised of its store.

Comes in: commits of the role's owners, under keys of the role. Goes out: rows and outbox entries. Rows are
opaque here: bytes of one length a user, and bytes of any length for the partition itself. Everything else is
the protocol of the activity workers' state: one owner by token, commits that are all or nothing, refused to
whoever is fenced and recognised when repeated, and an outbox that is written in the same commit.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from stream.store.state import Answer, OutboxEntry, entry_id


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


class RoleStore(Protocol):
    """What is promised of a role's store; where nothing else is said, as by `stream.store.promises`."""

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
    def run(self) -> str: ...
    def delivered_to(self, partitions: Sequence[int]) -> list[int]: ...
    def take_outbox(self, partition: int, token: str) -> int | None: ...
    def outbox(
        self, after: Mapping[int, str], limit: int, wait_seconds: float
    ) -> dict[int, list[OutboxEntry]]: ...
    def outbox_sizes(self, partitions: Sequence[int]) -> list[int]: ...
    def acknowledge(
        self, partition: int, token: str, entries: Sequence[str], delivered_to: int
    ) -> bool: ...
    def output(self) -> tuple[str, str]: ...
    def note_output(self, topic_id: str, lacks: str) -> None: ...
    def lease(self, role: str, token: str, seconds: float) -> bool: ...
    def release(self, role: str, token: str) -> None: ...


@dataclass
class _Partition:
    token: str
    position: bytes
    sequence: int = 0
    last_commit: str = ""
    rows: dict[bytes, bytes] = field(default_factory=dict)
    rows_commit: str = ""
    whole_commit: str = ""
    own: bytes = b""
    outbox: list[OutboxEntry] = field(default_factory=list)
    publisher: str = ""
    delivered_to: int = 0


class MemoryRoleStore:
    """A role's store in this process: for tests, and the clearest statement of the promises.

    Leases end only when they are released: it owns no clock.
    """

    def __init__(self, outbox_cap: int = 2_000) -> None:
        self._cap = outbox_cap
        self._partitions: dict[int, _Partition] = {}
        self._leases: dict[str, str] = {}
        self._output = ("", "")

    def acquire(self, partition: int, token: str) -> tuple[int, RolePosition] | None:
        state = self._partitions.get(partition)
        if state is None:
            return None
        state.token = token
        return state.sequence, msgspec.json.decode(state.position, type=RolePosition)

    def create(
        self, partition: int, token: str, position: RolePosition, *, replace: bool = False
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
            yield from state.rows.items()

    def own(self, partition: int) -> bytes:
        state = self._partitions.get(partition)
        return b"" if state is None else state.own

    def is_whole(self, partition: int) -> bool:
        state = self._partitions.get(partition)
        return state is None or state.rows_commit == state.whole_commit

    def submit(self, partition: int, token: str, commit: RoleCommit) -> Answer | None:
        return self.collect(partition, token, commit)

    def collect(self, partition: int, token: str, commit: RoleCommit) -> Answer:
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
                state.rows[user] = commit.rows[index * size : (index + 1) * size]
            state.rows_commit = state.whole_commit = commit.id
        for user in commit.gone:
            state.rows.pop(user, None)
        if commit.own is not None:
            state.own = commit.own
        state.outbox += [
            OutboxEntry(entry.origin_ms, entry.changes, entry.incarnation, entry_id(commit, index))
            for index, entry in enumerate(commit.outbox)
        ]
        state.position = msgspec.json.encode(commit.position)
        state.sequence += 1
        state.last_commit = commit.id
        return Answer.OK

    def abandon(self, partition: int) -> None:
        """Nothing is ever under way here."""

    def position(self, partition: int) -> RolePosition | None:
        state = self._partitions.get(partition)
        return None if state is None else msgspec.json.decode(state.position, type=RolePosition)

    def run(self) -> str:
        return "memory"

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

    def lease(self, role: str, token: str, seconds: float) -> bool:
        del seconds
        return self._leases.setdefault(role, token) == token

    def release(self, role: str, token: str) -> None:
        if self._leases.get(role) == token:
            del self._leases[role]


def _place(entry_name: str) -> tuple[int, int]:
    sequence, index = entry_name.split("-")
    return int(sequence), int(index)
