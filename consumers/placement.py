"""Sees that users lie in the partition that is theirs.

Comes in: a block of decoded messages. Goes out: the same, those of users who belong elsewhere refused as
*misplaced*; `activity` is next. A partition is owned by one worker, so a user whose messages lie in two
partitions would live twice, and under one change id stand two changes.

Where a user belongs is a function of their id alone, the one of Kafka's own clients: murmur2 of the id
that the message is counted for (`userId`, or `anonymousId` where that is empty). What key the message
has, or whether it has any, means nothing. Only a user whom the partition does not know yet is looked at.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol
from zlib import crc32

import numpy as np

from consumers.decode import Block, parse_all
from consumers.fields import Fields
from consumers.plain import PlainParser
from stream import metrics
from stream.config import Money, Settings
from stream.events import Ints, Reason
from stream.hashing import partitions_of

log = logging.getLogger(__name__)

REMEDY = (
    "write with the user's id as the key and partitioner=murmur2_random, as Kafka's Java client places "
    "keys; `segstream rekey` sends what was refused to where it belongs"
)
SAY_SECONDS = 60.0
"""Between two warnings that say the same."""


def by_crc32(user: str, partitions: int) -> int:
    """Where librdkafka's own partitioner, `consistent_random`, puts a user."""
    return crc32(user.encode()) % partitions


class Knows(Protocol):
    """What is asked of a partition's users; `stream.partition.Partition` is one."""

    def find(self, users: Sequence[str]) -> Ints: ...


class Span(NamedTuple):
    """The messages of one topic partition in a block.

    Attributes:
        known: the users whom the partition has already; they are not looked at.
        number: of the partition.
        topic: whose messages stand from `start` to before `end`.
    """

    known: Knows
    number: int
    topic: str
    start: int
    end: int


class Placement:
    """Where users belong among so many partitions, and what becomes of those who lie elsewhere."""

    def __init__(self, partitions: int, policy: Literal["refuse", "accept"]) -> None:
        self._partitions = partitions
        self._refuses = policy == "refuse"
        self._say_at = 0.0

    def check(self, block: Block, spans: Sequence[Span]) -> None:
        """Refuse, or only count, the events of users who do not belong into their partition.

        The block is told where partitions have their users, so that nobody is looked up twice.

        Args:
            spans: the messages of topic partitions that are looked at.
        """
        users, number = block.users, np.full(len(block.users), -1)
        for span in spans:
            here = slice(span.start, span.end)
            block.slots[here] = span.known.find(users[here])
            number[here] = span.number
        # A place is worked out for all of them in one go: numpy's calls cost the same for few as for many.
        unknown = np.flatnonzero((block.slots < 0) & (number >= 0) & block.applied)
        if len(unknown) == 0:
            return
        names = [users[place].encode() for place in unknown.tolist()]
        belong = partitions_of(names, self._partitions)
        astray = belong != number[unknown]
        if not astray.any():
            return
        elsewhere = dict(zip(unknown[astray].tolist(), belong[astray].tolist(), strict=True))
        for span in spans:
            places = [place for place in elsewhere if span.start <= place < span.end]
            if places:
                self._notice(block, span, {place: elsewhere[place] for place in places})

    def _notice(self, block: Block, span: Span, elsewhere: Mapping[int, int]) -> None:
        """Messages of users who belong elsewhere.

        Args:
            elsewhere: partition that each belongs into, by place.
        """
        metrics.misplaced(span.topic, len(elsewhere))
        details = {
            place: self._detail(block.users[place], span.number, there)
            for place, there in elsewhere.items()
        }
        if self._refuses:
            for place, detail in details.items():
                block.refuse(place, Reason.MISPLACED, detail)
        self._say(span.topic, span.number, next(iter(details.values())))

    def _detail(self, user: str, number: int, there: int) -> str:
        likely = by_crc32(user, self._partitions) == number
        guess = " (librdkafka's own partitioner, crc32, puts it here)" if likely else ""
        return (
            f"lies in partition {number}, but its user belongs in {there} of {self._partitions}"
            f"{guess}: {REMEDY}"
        )

    def _say(self, topic: str, number: int, detail: str) -> None:
        now = time.monotonic()
        if now < self._say_at:
            return
        self._say_at = now + SAY_SECONDS
        what = "refused" if self._refuses else "counted (worker.misplaced = accept)"
        log.warning("a message of %s/%d is %s: it %s", topic, number, what, detail)


class Users:
    """Says whom messages are counted for, as the worker reads them."""

    def __init__(self, settings: Settings) -> None:
        table, worker = settings.table(), settings.worker
        # Where a user belongs does not depend on what a currency is worth.
        fields = Fields(table, worker, Money(), settings.reviews)
        self._parser = PlainParser(table, worker.message_bytes, fields)

    def of(self, values: Sequence[bytes | None]) -> list[str | None]:
        """The user of each; None of what is counted for nobody."""
        return [user for user, _ in self.and_marks(values)]

    def and_marks(self, values: Sequence[bytes | None]) -> list[tuple[str | None, bool]]:
        """The user of each, and whether it says that it is a mark of the shop's clock."""
        if not values:
            return []
        parsed = parse_all(self._parser, values)
        nobody, marks = parsed.odd.places, parsed.odd.marks
        return [
            (None if at in nobody else user or None, at in marks)
            for at, user in enumerate(parsed.users)
        ]
