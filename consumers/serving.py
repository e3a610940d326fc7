"""A partition of users that is served, and what a clock of partitions has to answer.

Comes in: a partition that was taken over, then its messages. Goes out: what was read of it and is not folded,
its owner, and what became of its messages. `live` and `watermark` are the two clocks: they decide when to
fold, to look at everyone and to commit, and keep what they need of each partition for that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from consumers.decode import Batch, Block, Reject
from consumers.owner import Owner
from stream.events import Counts, EventColumns, Reason
from stream.partition import Partition
from stream.store.state import Commit


@dataclass
class Reading:
    """How far a partition has been read, and what was read and is held.

    Attributes:
        next_offsets: to read after what was read, by topic; 0 if nothing was read yet.
        gathered: events read and not yet folded.
        since: when the oldest of them was read, by the monotonic clock.
        paused: topics that are not read for now.
        read_on: when a topic may be read on, if its letters came too fast.
    """

    next_offsets: list[int] = field(default_factory=lambda: [0, 0])
    gathered: int = 0
    since: float = 0.0
    paused: set[int] = field(default_factory=set)
    read_on: list[float] = field(default_factory=lambda: [0.0, 0.0])


@dataclass
class Fates:
    """What became of messages, until their commit is applied.

    Attributes:
        consumed: those of the commit under way; None if it has none.
        refused: why some were refused.
        read_at: when the oldest of the commit under way was read.
    """

    consumed: Counts | None = None
    refused: Counter[Reason] = field(default_factory=Counter)
    read_at: float = 0.0


@dataclass
class Owned:
    """A partition that is served."""

    partition: Partition
    owner: Owner[Commit]
    reading: Reading = field(default_factory=Reading)
    fates: Fates = field(default_factory=Fates)

    @property
    def number(self) -> int:
        return self.partition.number

    def columns(self, batches: Sequence[Batch]) -> EventColumns:
        """The events of batches, by topic, with the partition's slots for users.

        What goes by topic from here on need not sort them.
        """
        columns = [batch.columns(self.partition) for batch in batches]
        by_topic = sorted(range(len(batches)), key=lambda place: batches[place].topic)
        return EventColumns.concatenate([columns[place] for place in by_topic])

    def first_unread(self, topic: int, block: Block, start: int, end: int) -> int:
        """The place of the first message that was not read yet; `end` if all were."""
        expected = self.reading.next_offsets[topic] or self.owner.offsets[topic]
        while start < end and block.messages[start].offset() < expected:
            start += 1
        return start


def take_rejects(batch: Batch) -> list[Reject]:
    """The refused messages of a batch, which keeps their counts only."""
    refused, batch.rejects = batch.rejects, []
    return refused


Guard = Callable[[int, Callable[[], object]], None]
"""Calls something for a partition; drops the partition if the store says that it is another's."""


class PartitionClock(Protocol):
    """Decides when to fold, when to look at everyone, and when to commit; `live` and `watermark` do so."""

    @property
    def gathers_on(self) -> bool:
        """Whether more is read in a turn while partitions wait, or while there is a backlog."""
        ...

    @property
    def served(self) -> Mapping[int, Owned]:
        """The partitions that are served."""
        ...

    def serve(self, partition: Partition, owner: Owner[Commit]) -> None:
        """Serve a partition from now on."""
        ...

    def drop(self, number: int) -> Owned | None:
        """Forget a partition, and everything of it that was read."""
        ...

    def gather(self, number: int, topic: int, block: Block, start: int, end: int) -> list[Reject]:
        """Take in the messages of one topic of a partition; gives those that are refused."""
        ...

    def step(self, numbers: Sequence[int]) -> None:
        """Do what is due for those of some partitions that have no commit under way."""
        ...

    def is_waiting(self) -> bool:
        """Whether a partition waits for somebody else: for the store, or for a round."""
        ...

    def look_every(self) -> float | None:
        """Seconds between two looks for the trainer's next round; None if none could be used."""
        ...

    def can_wait(self, number: int, topic: int) -> bool:
        """Whether the partition needs no more of a topic to go on, or could not go on with more of it."""
        ...

    def has_more(self, number: int) -> bool:
        """Whether a partition has something to fold now, before it is given up."""
        ...
