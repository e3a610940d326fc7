"""Reads what is on the topic of changes: to its end, and on from there.

Comes in: records of `segment-changes`. Goes out: changes in topic order, each once, and what became
of segments where it is wanted; `stream.insight` and the command are next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableSet
from dataclasses import dataclass, field
from typing import Any

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from consumers.client import read_to_end, reader_options
from stream.config import Settings
from stream.errors import kafka_client
from stream.unreadable import UNREADABLE


@dataclass
class Place:
    """How far the changes have been read.

    Attributes:
        ends: by partition, the offset behind the last record read.
        seen: ids of records; a record may be delivered again.
    """

    ends: dict[int, int] = field(default_factory=dict)
    seen: MutableSet[str] = field(default_factory=set)


class LatestIds(MutableSet[str]):
    """Ids of the latest records, for whoever reads for ever: the oldest are forgotten.

    Args:
        most: so many are known.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._ids: dict[str, None] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, value: str) -> None:
        self._ids[value] = None
        if len(self._ids) > self._most:
            del self._ids[next(iter(self._ids))]

    def discard(self, value: str) -> None:
        self._ids.pop(value, None)


class ChangeLog:
    """The topic of changes, for whoever reads it now and then."""

    def __init__(self, settings: Settings) -> None:
        self._broker = settings.broker
        self._topic = settings.topics.changes
        self._partitions = settings.topics.partitions

    def read(
        self,
        partitions: list[int] | None = None,
        *,
        lineage: bool = False,
        levels: bool = False,
        place: Place | None = None,
        last: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Changes in topic order, each once.

        Args:
            partitions: None for all.
            lineage: what became of segments, too.
            levels: crossings of levels, too.
            place: how far somebody has read, who reads on from here.
            last: of each partition, only about so many records before its end.
        """
        place = Place() if place is None else place
        for message in read_to_end(self._broker, self._topic, partitions, last=last):
            place.ends[message.partition() or 0] = (message.offset() or 0) + 1
            record = parse_record(message.value(), lineage=lineage, levels=levels)
            if record is not None and record["id"] not in place.seen:
                place.seen.add(record["id"])
                yield record

    def follow(
        self,
        stop: Callable[[], bool],
        place: Place,
        *,
        lineage: bool = False,
        levels: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Changes as they come, each once; see `read`.

        Args:
            place: how far somebody has read already.
        """
        for some in self.follow_in_batches(stop, place, lineage=lineage, levels=levels):
            yield from some

    def follow_in_batches(
        self,
        stop: Callable[[], bool],
        place: Place,
        *,
        lineage: bool = False,
        levels: bool = False,
    ) -> Iterator[list[dict[str, Any]]]:
        """The same, what has come at a time; perhaps nothing."""
        consumer = kafka_client(Consumer, reader_options(self._broker))
        consumer.assign(
            [
                TopicPartition(self._topic, partition, place.ends.get(partition, OFFSET_BEGINNING))
                for partition in range(self._partitions)
            ]
        )
        try:
            while not stop():
                some = []
                for message in consumer.consume(500, 0.2):
                    if message.error():
                        continue
                    place.ends[message.partition() or 0] = (message.offset() or 0) + 1
                    record = parse_record(message.value(), lineage=lineage, levels=levels)
                    if record is not None and record["id"] not in place.seen:
                        place.seen.add(record["id"])
                        some.append(record)
                yield some
        finally:
            consumer.close()


def parse_record(
    value: bytes | None, *, lineage: bool = False, levels: bool = False
) -> dict[str, Any] | None:
    """A change of a segment; a crossing of a level, or what became of a segment, if wanted; else None.

    What has no id is none of ours.
    """
    if not value:
        return None
    try:
        parsed = msgspec.json.decode(value)
    except UNREADABLE:
        return None
    if not isinstance(parsed, dict) or not isinstance(parsed.get("id"), str):
        return None
    known = "kind_to" in parsed or (levels and "level" in parsed) or (lineage and "event" in parsed)
    return parsed if known else None
