"""Writes messages into the partitions of their users, whatever key or partition they had.

Comes in: records of any topic, and who reads whom a message is counted for. Goes out: the same messages on
an input topic, keyed by user, with their headers and timestamps. Used to fill new input topics from old
ones, with another number of partitions or another key; `dead_letters` does the same for letters.

Messages of a partition keep their order, so what a user did does, too, if it was all in one partition.
Marks are signed for their place and left out. What is counted for nobody keeps its key: the worker
refuses it from there as it would have from where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from confluent_kafka import Producer

from producers.client import producer_options
from producers.delivery import Record, deliver
from stream.config import Settings
from stream.errors import kafka_client
from stream.hashing import partitions_of
from stream.headers import headers_of

PORTION = 2_000
"""Messages delivered before the next are read."""
TIMESTAMPLESS = 0


class Source(Protocol):
    """A record that is to be written again."""

    def partition(self) -> int | None: ...
    def key(self) -> Any: ...
    def value(self) -> Any: ...
    def headers(self) -> Any: ...
    def timestamp(self) -> tuple[int, int]: ...


class Readers(Protocol):
    """Who reads messages: `consumers.placement.Users` does."""

    def and_marks(self, values: Sequence[Any]) -> list[tuple[str | None, bool]]: ...


@dataclass
class RekeyReport:
    """What became of the records of a topic.

    Attributes:
        sent: how many were written, or would be.
        moved: of these, how many come to a partition with another number.
        keyless: of these, how many are counted for nobody and keep their key.
        marks: left out.
    """

    sent: int = 0
    moved: int = 0
    keyless: int = 0
    marks: int = 0


def rekey(
    settings: Settings,
    records: Iterable[Source],
    topic: str,
    readers: Readers,
    *,
    dry_run: bool = False,
    told: Callable[[int], None] = lambda _: None,
    make_producer: Callable[[dict[str, Any]], Producer] = Producer,
) -> RekeyReport:
    """Write records to an input topic, each into the partition of its user.

    Args:
        settings: names the broker, and the number of partitions.
        records: each partition's in offset order.
        topic: the input topic to write to.
        readers: say whom a message is counted for.
        dry_run: only count.
        told: is told how many were written so far.
        make_producer: makes a producer from its options.

    Raises:
        DeliveryError: not all were confirmed.
    """
    report = RekeyReport()
    producer: Producer | None = None
    rest = iter(records)
    while portion := list(islice(rest, PORTION)):
        ready = _placed(settings, portion, topic, readers, report)
        if ready and not dry_run:
            if producer is None:
                options = producer_options(settings.broker, linger_seconds=0.005)
                producer = kafka_client(make_producer, options)
            deliver(producer, ready, settings.publisher.deliver_seconds)
        report.sent += len(ready)
        told(report.sent)
    return report


def _placed(
    settings: Settings,
    records: Sequence[Source],
    topic: str,
    readers: Readers,
    report: RekeyReport,
) -> list[Record]:
    told = readers.and_marks([record.value() for record in records])
    users = list({user: None for user, _ in told if user is not None})
    keys = [user.encode() for user in users]
    belong = partitions_of(keys, settings.topics.partitions).tolist()
    homes = dict(zip(users, zip(keys, belong, strict=True), strict=True))
    found = []
    for record, (user, is_mark) in zip(records, told, strict=True):
        if is_mark:
            report.marks += 1
            continue
        key, place = record.key(), -1
        if user is None:
            report.keyless += 1
        else:
            key, place = homes[user]
            report.moved += place != record.partition()
        kind, timestamp_ms = record.timestamp()
        found.append(
            Record(
                topic,
                record.value(),
                key,
                place,
                list(headers_of(record) or []),
                None if kind == TIMESTAMPLESS else timestamp_ms,
            )
        )
    return found
