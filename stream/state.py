"""Promises what a store does, beside an in-memory store that does it.

A store keeps, for each partition, its users' rows, the position in the log they stand for, the
changes not yet delivered and the statistics for the trainer; and, once, the trainer's model and what
a person wants of the trainer.
Every commit of a partition is all or nothing, is refused to whoever no longer owns the
partition, and is recognised when it is repeated.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import Protocol

import msgspec

from stream.events import Counts
from stream.flapping import Flapping
from stream.limits import PLACES, TOPICS

KEY_BYTES = 32
MEMORY_PLACES = TOPICS * PLACES
"""Of each of two topics, the steps that are remembered at once; see `remembered`."""
KEY_OF_ORDER_BYTES = 8


def key_of(secret: str) -> bytes:
    """The key that a setting's text stands for."""
    return blake2b(secret.encode(), digest_size=KEY_BYTES, person=b"segstream key").digest()


class Answer(StrEnum):
    """What the store says to a commit."""

    OK = "ok"
    APPLIED = "applied"
    """This very commit was applied before; the reply was lost."""
    FENCED = "fenced"
    """Another owner holds the partition."""
    DIVERGED = "diverged"
    """The store is not where the owner thinks: it rolled back."""
    LOST = "lost"
    """The partition's state is gone."""
    FULL = "full"
    """The outbox has reached its cap; nothing was written, try again later."""


class StoreUnavailableError(Exception):
    """The store does not answer, or refuses to write (out of memory, read-only)."""


class StoreRefusedError(Exception):
    """The store answers, and will never do what was asked: a right, a key or a server is wrong.

    To repeat helps nobody, so it is no `StoreUnavailableError`; the message is the whole story.
    """


class Position(msgspec.Struct):
    """How far a partition's state has come: kept with it, changed only by a commit.

    Attributes:
        offsets: next offset to read, for each input topic.
        schema: of the rows, see `FeatureTable.schema`.
        incarnation: part of every change's id; more than any that the output has from before.
        clock_ms: the partition's time at the commit.
        mark_ms: newest mark of the shop's clock that was completed; 0 for none.
        round_ms: newest mark whose trainer round was completed; 0 for none.
        model: epoch.version of the model in force; empty for none.
        counts: what became of all messages before `offsets`.
        flapping: of the users, as far as they have been looked at.
        first: offset at which the state began, for each input topic; empty where all began at 0.
        output: end of the output when the state began: its own changes come behind that.
        known_to: of the output, what stands before this offset is part of the state. What stands
            behind it may have been delivered from commits that the store has lost since.
        users: how many the partition has, so that rows that vanish are missed.
        topics: ids of the input topics and of the output, empty where the broker tells none: a
            topic that was made anew has another.
        store_run: of the store's server, when the partition was taken over.
        secret: which secret of the namespace its change ids are made with, see `key_print`.
        remember: for how long clicks, purchases and orders are remembered, in ms; empty before the
            first commit.
        clocks: newest record time of each input topic.
        ids: how many message ids are remembered, as (step of the topic's clock, ids), by topic; so
            that some that vanish are missed.
        orders: the same of orders.
    """

    offsets: list[int]
    schema: str
    incarnation: int = 1
    clock_ms: int = 0
    mark_ms: int = 0
    round_ms: int = 0
    model: str = ""
    counts: Counts = msgspec.field(default_factory=Counts)
    flapping: Flapping = Flapping()
    first: list[int] = []
    output: int = 0
    known_to: int = 0
    users: int = 0
    topics: list[str] = []
    store_run: str = ""
    secret: str = ""
    remember: list[int] = []
    clocks: list[int] = []
    ids: list[list[tuple[int, int]]] = []
    orders: list[list[tuple[int, int]]] = []


@dataclass(frozen=True)
class OutboxEntry:
    """Changes of one commit, up to 1,000 of them.

    Attributes:
        origin_ms: wall clock at which the oldest event behind them was seen, for latency.
        changes: `SegmentChange` records as JSON, in order.
        incarnation: of the state that wrote it.
        id: place in the queue, and which commit put it there, see `entry_id`; set by the store.
    """

    origin_ms: int
    changes: tuple[bytes, ...]
    incarnation: int
    id: str = ""


@dataclass(frozen=True)
class MemoryChanges:
    """What a partition remembers since its last commit, and what it has forgotten.

    A *place* is a number below `MEMORY_PLACES`: a topic and a step of its clock, which uses the place
    of a step that is forgotten by then.

    Attributes:
        no_ids: places whose message ids are forgotten, before any are added.
        ids: keys to add, of eight bytes each, by place.
        no_orders: places whose orders are forgotten, before any are written.
        orders: keys of orders, and what is kept of each, one after the other, by place.
    """

    no_ids: Sequence[int] = ()
    ids: Mapping[int, bytes] = field(default_factory=dict)
    no_orders: Sequence[int] = ()
    orders: Mapping[int, tuple[bytes, bytes]] = field(default_factory=dict)

    def orders_of(self, place: int) -> Iterator[tuple[bytes, bytes]]:
        """Orders to write at a place, each with its key."""
        keys, packed = self.orders[place]
        size = len(packed) * KEY_OF_ORDER_BYTES // len(keys)
        for index in range(len(keys) // KEY_OF_ORDER_BYTES):
            key = keys[index * KEY_OF_ORDER_BYTES : (index + 1) * KEY_OF_ORDER_BYTES]
            yield key, packed[index * size : (index + 1) * size]


@dataclass(frozen=True)
class Commit:
    """One atomic step of a partition.

    Attributes:
        sequence: number of commits before this one.
        users: names, in UTF-8, of the users to write.
        rows: their rows' bytes, one after the other, all of one length.
        statistics: replaces the partition's statistics; None leaves them.
        memory: what is remembered of past messages.
        id: drawn once, kept when the commit is repeated.
    """

    sequence: int
    position: Position
    users: Sequence[bytes] = ()
    rows: bytes = b""
    outbox: Sequence[OutboxEntry] = ()
    statistics: bytes | None = None
    memory: MemoryChanges = MemoryChanges()
    id: str = field(default_factory=lambda: secrets.token_hex(8))


class Step(Protocol):
    """What every commit has, an activity worker's and that of any other role; see `Commit`."""

    @property
    def id(self) -> str: ...
    @property
    def sequence(self) -> int: ...
    @property
    def position(self) -> msgspec.Struct: ...
    @property
    def users(self) -> Sequence[bytes]: ...
    @property
    def rows(self) -> bytes: ...
    @property
    def outbox(self) -> Sequence[OutboxEntry]: ...


def entry_id(commit: Step, index: int) -> str:
    """Id of a commit's outbox entry: ``sequence-number``, the number of this very commit.

    After a store lost its last second, another commit has the same sequence. Were the id its place
    alone, who acknowledges what was delivered would delete what has not been.
    """
    drawn = int.from_bytes(blake2b(commit.id.encode(), digest_size=5).digest())
    return f"{commit.sequence + 1}-{drawn << 20 | index}"


class Store(Protocol):
    """What is promised of a store.

    Each method may raise `StoreUnavailableError`, which passes, or `StoreRefusedError`, which does
    not.
    """

    def acquire(self, partition: int, token: str) -> tuple[int, Position] | None:
        """Take a partition over: commits under any other token are refused from now on.

        Returns the number of commits so far and the position, or None if there is no state.
        """
        ...

    def create(
        self, partition: int, token: str, position: Position, *, replace: bool = False
    ) -> bool:
        """Begin a partition's state; False if there is one already.

        What was delivered before `position.output` is none of its own.

        Args:
            replace: what there is of a state gives way; False if the token does not own it.
        """
        ...

    def load(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Every user of a partition with their row."""
        ...

    def load_ids(self, partition: int) -> Iterator[tuple[int, bytes]]:
        """The message ids that a partition remembers: each place that has any, with their keys."""
        ...

    def load_orders(self, partition: int) -> Iterator[tuple[int, bytes, bytes]]:
        """The orders that a partition remembers: place, key and what is kept of it."""
        ...

    def is_whole(self, partition: int) -> bool:
        """Whether position and users are of the same moment; asked by the owner alone.

        They are written together. They differ only where one of them was lost, or put back alone.
        """
        ...

    def commit(self, partition: int, token: str, commit: Commit) -> Answer:
        """Apply a commit whole, or not at all; waits for the answer."""
        ...

    def submit(self, partition: int, token: str, commit: Commit) -> Answer | None:
        """Hand a commit over without waiting for it to be applied.

        Returns the answer if it is known already, or None: then `collect` has it. One commit of
        a partition is under way at a time.
        """
        ...

    def collect(self, partition: int, token: str, commit: Commit) -> Answer:
        """The answer to a submitted commit; waits for it."""
        ...

    def abandon(self, partition: int) -> None:
        """Forget a commit that is under way; it may or may not be applied."""
        ...

    def position(self, partition: int) -> Position | None:
        """Where a partition stands, for readers."""
        ...

    def row(self, partition: int, user: bytes) -> bytes | None:
        """One user's row, for readers."""
        ...

    def run(self) -> str:
        """Which run of the server this is; empty where it may not be asked.

        Only a server that was started again, or another one, can have lost what was applied.
        """
        ...

    def delivered_to(self, partitions: Sequence[int]) -> list[int]:
        """The offset that each partition's output is delivered and acknowledged up to."""
        ...

    def output(self) -> tuple[str, str]:
        """Id of the output topic that was last written to, and what it lacks, in words, or empty."""
        ...

    def note_output(self, topic_id: str, lacks: str) -> None:
        """Keep the id of the output topic, and what it lacks."""
        ...

    def partitions(self) -> int:
        """The number of partitions that the namespace was begun with; 0 if it is new."""
        ...

    def begin(self, partitions: int) -> int:
        """Begin the namespace with so many partitions; the number that it was begun with."""
        ...

    def namespace_key(self) -> bytes:
        """The namespace's secret, 32 bytes: of the settings, or drawn when first asked for."""
        ...

    def take_outbox(self, partition: int, token: str) -> int | None:
        """Take over delivering a partition's outbox.

        Returns the offset delivered up to, or None if there is no state, so nothing to take over.
        """
        ...

    def outbox(
        self, after: Mapping[int, str], limit: int, wait_seconds: float
    ) -> dict[int, list[OutboxEntry]]:
        """The oldest undelivered entries of partitions, in order.

        Args:
            after: for each partition, the entry to begin behind; "0-0" begins at the oldest.
            limit: entries a partition at the most.
            wait_seconds: if there are none, how long to wait for one.
        """
        ...

    def outbox_sizes(self, partitions: Sequence[int]) -> list[int]:
        """Undelivered entries of each partition."""
        ...

    def acknowledge(
        self, partition: int, token: str, entries: Sequence[str], delivered_to: int
    ) -> bool:
        """Forget delivered entries, and keep how far the output is delivered.

        False if another has taken over, or if an entry is not there (any more): then `delivered_to`
        is as before, and of the entries those that are there are forgotten, for they were delivered.
        """
        ...

    def statistics(self, partitions: Sequence[int]) -> list[bytes | None]:
        """The last statistics of each partition."""
        ...

    def statistics_times(self, partitions: Sequence[int]) -> list[int]:
        """The first eight bytes of each partition's statistics as a number; 0 for none."""
        ...

    def lease(self, role: str, token: str, seconds: float) -> bool:
        """Become, or stay, the only one in a role for this long; False if another is."""
        ...

    def release(self, role: str, token: str) -> None:
        """Leave a role now, if held."""
        ...

    def put_model(self, token: str, model: bytes, round_ms: int) -> bool:
        """Store the trainer's model and round; False if the token no longer leads.

        A round may lie before the last one: a clock was ahead.
        """
        ...

    def lead(self, token: str) -> None:
        """Fence every earlier trainer."""
        ...

    def model(self) -> tuple[int, bytes] | None:
        """The newest round and model, if there is one."""
        ...

    def round(self) -> int:
        """The newest completed round; 0 for none."""
        ...

    def give_name(self, segment: int, name: str) -> None:
        """Keep a name that a person gave to a segment; the trainer takes it up."""
        ...

    def given_names(self) -> dict[int, str]:
        """Names that persons gave, by segment id."""
        ...

    def want(self, tuning: bytes) -> None:
        """Leave what a person wants of the trainer, in place of what was wanted before."""
        ...

    def wanted(self) -> bytes | None:
        """What a person wants of the trainer; None if nobody ever wanted anything."""
        ...


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
