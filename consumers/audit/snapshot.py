"""Reads partitions of the store, each as of a moment, while a pipeline may be at work on them.

Comes in: a store. Goes out: of each partition a `Snapshot`, and which were begun or written to since.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from consumers.audit.sample import Sample
from stream.limits import TOPICS
from stream.priced import Priced
from stream.store.promises import ReaderStore
from stream.store.state import OutboxEntry, Position

SNAPSHOT_TRIES = 3
"""How often a partition is read in the hope that nothing is committed meanwhile: then all of it is
judged."""
EVERY_ENTRY = 1 << 31
BEGINNING = "0-0"
WAIT_SECONDS = 0.001


@dataclass
class Snapshot:
    """A partition of the store, read from one position to another.

    Attributes:
        position: before the rows were read: the log up to there is judged.
        after: when rows and outbox had been read.
        rows: of the users that are judged, none older than `position`.
        users: how many rows there are, of all users.
        ids: keys of the message ids that are remembered, by place.
        orders: what is remembered of orders, by place and key.
        moving: users with messages between the two positions.
        ahead: users whose events are after the wall clock still: when they count depends on when
            they were read, and that is not known.
        excused: how many events were after the wall clock when they were read, and are not any
            more. Nobody knows whose: of so many users a difference is not judged.
    """

    position: Position
    after: Position
    rows: dict[str, bytes]
    users: int
    outbox: list[OutboxEntry]
    ids: dict[int, bytes]
    orders: dict[tuple[int, bytes], bytes]
    moving: set[str] = field(default_factory=set)
    ahead: set[str] = field(default_factory=set)
    excused: int = 0

    @property
    def by_wall(self) -> bool:
        """Whether some events came from after the wall clock."""
        return bool(self.ahead or self.excused)

    def first(self, topic: int) -> int:
        """The offset of an input topic at which the state began."""
        return self.position.first[topic] if self.position.first else 0

    def priced(self, topic: int, offset: int) -> Priced | None:
        """The rates that the amounts of a message were converted by; None where there never were any.

        Of messages before all that is known it is the oldest, see `forgets_rates`.
        """
        told = self.position.priced
        begun = [one for one in told if one.offsets[topic] <= offset]
        return begun[-1] if begun else told[0] if told else None

    @property
    def forgets_rates(self) -> bool:
        """Whether rates changed so often that the first are not known any more."""
        told = self.position.priced
        return bool(told) and any(told[0].offsets[n] > self.first(n) for n in range(TOPICS))


class Snapshots(dict[int, Snapshot]):
    """Snapshots of partitions by their number, of those that could be read.

    Attributes:
        begun: partitions that had state when all was read.
        moved_on: those that were committed to since their snapshot.
    """

    def __init__(self, store: ReaderStore, partitions: int, sample: Sample) -> None:
        super().__init__()
        self.begun: set[int] = set()
        self.moved_on: set[int] = set()
        self._store = store
        self._partitions = partitions
        self._sample = sample

    def take(self, partition: int) -> None:
        """Position, rows, outbox and position again, in this order; see `consumers.audit`.

        A partition that has no state yet, or was begun anew or put back meanwhile, has none.
        """
        for _ in range(SNAPSHOT_TRIES):
            position = self._store.position(partition)
            if position is None:
                return
            rows: dict[str, bytes] = {}
            users = 0
            for user, row in self._store.load(partition):
                users += 1
                if self._sample.has(user):
                    rows[user.decode()] = row
            found = self._store.outbox({partition: BEGINNING}, EVERY_ENTRY, WAIT_SECONDS)
            outbox = found.get(partition, [])
            ids = dict(self._store.load_ids(partition))
            orders = {(place, key): kept for place, key, kept in self._store.load_orders(partition)}
            after = self._store.position(partition)
            if after == position:
                break
        if after is None or position is None or not _follows(after, position):
            return
        self[partition] = Snapshot(position, after, rows, users, outbox, ids, orders)

    def note_movement(self) -> None:
        """Which partitions have state by now, and which were committed to since their position."""
        for partition in range(self._partitions):
            now = self._store.position(partition)
            if now is not None:
                self.begun.add(partition)
            snapshot = self.get(partition)
            if snapshot is not None and not snapshot.position == snapshot.after == now:
                self.moved_on.add(partition)


def _follows(after: Position, before: Position) -> bool:
    """Whether commits alone led from one position to the other."""
    forward = all(a >= b for a, b in zip(after.offsets, before.offsets, strict=True))
    return forward and after.incarnation == before.incarnation
