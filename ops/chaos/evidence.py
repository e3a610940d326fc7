"""Reads what the judge needs, after everything has ended: topics and store, as they are.

Comes in: settings, a store. Goes out: `Evidence`, plain values. Nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from consumers.client import read_to_end
from stream.config import Settings
from stream.store.redis import RedisStore

AT_MS = 0
"""Features are read as of this: nothing that counts exactly depends on it."""


@dataclass(frozen=True)
class Record:
    """A record of a topic."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    timestamp_ms: int = 0

    @property
    def place(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset}"


@dataclass(frozen=True)
class StoredUser:
    """A user as the store has them.

    Attributes:
        segment: 0 for none; so is `previous`.
        arrivals: messages folded, repeats too, by input topic.
        exact: features that count exactly, by name.
    """

    version: int
    segment: int
    previous: int
    since_ms: int
    first_ms: int
    seen_ms: int
    arrivals: tuple[int, int]
    exact: Mapping[str, float]


@dataclass(frozen=True)
class StoredPartition:
    """A partition as the store has it.

    Attributes:
        first: offset at which its state began, by input topic.
        offsets: next offset to read, by input topic.
        counts: what became of the messages between.
        waiting: change records in the outbox.
    """

    first: Sequence[int]
    offsets: Sequence[int]
    counts: Mapping[str, int]
    waiting: int
    users: Mapping[str, StoredUser]


@dataclass(frozen=True)
class Evidence:
    """Everything there is to judge; records of each topic in offset order by partition.

    Attributes:
        inputs: by input topic, in the order of `StoredPartition.offsets`.
    """

    inputs: Sequence[Sequence[Record]]
    letters: Sequence[Record]
    changes: Sequence[Record]
    models: Sequence[Record]
    partitions: Mapping[int, StoredPartition]


def gather(settings: Settings, store: RedisStore, exact: Sequence[str]) -> Evidence:
    """Read everything.

    Args:
        exact: names of the features that count exactly.
    """
    topics = settings.topics
    return Evidence(
        inputs=[_records(settings, topic) for topic in topics.inputs],
        letters=[r for topic in topics.inputs for r in _records(settings, topics.dlq(topic))],
        changes=_records(settings, topics.changes),
        models=_records(settings, topics.models),
        partitions={
            number: found
            for number in range(topics.partitions)
            if (found := _partition(settings, store, number, exact)) is not None
        },
    )


def _records(settings: Settings, topic: str) -> list[Record]:
    return [
        Record(
            topic,
            message.partition() or 0,
            message.offset() or 0,
            _bytes(message.key()),
            _bytes(message.value()),
            _headers(message.headers()),
            message.timestamp()[1],
        )
        for message in read_to_end(settings.broker, topic)
    ]


def _partition(
    settings: Settings, store: RedisStore, number: int, exact: Sequence[str]
) -> StoredPartition | None:
    position = store.position(number)
    if position is None:
        return None
    table = settings.table()
    names, blobs = [], []
    for name, blob in store.load(number):
        names.append(name.decode())
        blobs.append(blob)
    rows = np.frombuffer(b"".join(blobs), dtype=table.dtype)
    columns = {name: table.names.index(name) for name in exact}
    vectors = table.vectors(rows, AT_MS)
    users = {
        name: StoredUser(
            version=int(row["version"]),
            segment=int(row["segment"]),
            previous=int(row["previous"]),
            since_ms=int(row["since"]),
            first_ms=int(row["first"]),
            seen_ms=int(row["seen"]),
            arrivals=(int(row["arrivals"][0]), int(row["arrivals"][1])),
            exact={feature: float(vectors[place, at]) for feature, at in columns.items()},
        )
        for place, (name, row) in enumerate(zip(names, rows, strict=True))
    }
    return StoredPartition(
        first=position.first or [0] * len(position.offsets),
        offsets=position.offsets,
        counts=asdict(position.counts),
        waiting=store.outbox_sizes([number])[0],
        users=users,
    )


def _headers(headers: Any) -> dict[str, str]:
    return {name: _bytes(value).decode(errors="replace") for name, value in headers or ()}


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""
