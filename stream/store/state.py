"""What a store keeps, as values.

A store keeps, for each partition, its users' rows, the position in the log they stand for, the
changes not yet delivered and the statistics for the trainer; and, once, the trainer's model and what
a person wants of the trainer. `promises` says what may be asked of it, and by whom.
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
from stream.priced import Priced
from stream.told import ToldError

KEY_BYTES = 32
MEMORY_PLACES = TOPICS * PLACES
"""Of each of two topics, the steps that are remembered at once; see `remembered`."""
KEY_OF_ORDER_BYTES = 8
KEY_OF_WORD_BYTES = 2


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


class StoreUnavailableError(ToldError):
    """The store does not answer, or refuses to write (out of memory, read-only)."""

    hint = "; is the store up, and is store.url right? `segstream doctor` looks"


class StoreRefusedError(ToldError):
    """The store answers, and will never do what was asked: a right, a key or a server is wrong.

    To repeat helps nobody, so it is no `StoreUnavailableError`; the message is the whole story.
    """

    hint = "; `segstream doctor` looks at it, ops/guide/redis.md has each role's rights"


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
        kinds: names of the kinds that rows have codes of, from code 1 on.
        levels: of each level that rows have a place for, in their order, the names of its codes from 1 on.
        levels_ms: when the last sweep that looked at levels began.
        levels_by: digest of the levels that they were looked at by.
        turned_ms: up to when telling users of turns is paid for, see `turns.allowed`.
        words: what rated texts have taught, by topic, see `Wording.told`; empty where there were none.
        priced: by which rates amounts were converted, the oldest first; empty where there were none.
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
    kinds: list[str] = []
    levels: dict[str, list[str]] = {}
    levels_ms: int = 0
    levels_by: str = ""
    turned_ms: int = 0
    words: list[list[float]] = []
    priced: list[Priced] = []

    @property
    def unaccounted(self) -> int:
        """Records before `offsets` that are in no count."""
        return sum(self.offsets) - sum(self.first) - self.counts.consumed - self.counts.marks


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
        words: keys of words that rated texts have taught, and what is known of each, by topic.
    """

    no_ids: Sequence[int] = ()
    ids: Mapping[int, bytes] = field(default_factory=dict)
    no_orders: Sequence[int] = ()
    orders: Mapping[int, tuple[bytes, bytes]] = field(default_factory=dict)
    words: Mapping[int, tuple[bytes, bytes]] = field(default_factory=dict)

    def orders_of(self, place: int) -> Iterator[tuple[bytes, bytes]]:
        """Orders to write at a place, each with its key."""
        return _each(*self.orders[place], KEY_OF_ORDER_BYTES)

    def words_of(self, topic: int) -> Iterator[tuple[bytes, bytes]]:
        """Words of a topic to write, each with its key."""
        return _each(*self.words[topic], KEY_OF_WORD_BYTES)


def _each(keys: bytes, packed: bytes, key_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys of one length, and what belongs to each, from where they lie one after the other."""
    count = len(keys) // key_bytes
    size = len(packed) // count
    for index in range(count):
        key = keys[index * key_bytes : (index + 1) * key_bytes]
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


class AnyPosition(Protocol):
    """What the position of every partition has, an activity worker's and that of any other role."""

    @property
    def output(self) -> int: ...


class Step(Protocol):
    """What every commit has, an activity worker's and that of any other role; see `Commit`."""

    @property
    def id(self) -> str: ...
    @property
    def sequence(self) -> int: ...
    @property
    def position(self) -> AnyPosition: ...
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
