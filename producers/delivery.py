"""Sends records and waits until each is delivered: what "delivered" means, once.

Comes in: records for a topic. Goes out: their offsets, or `DeliveryError`, after which nothing is
left under way: the producer is purged and must be made anew by whoever goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

Headers = list[tuple[str, str | bytes | None]]


@dataclass(frozen=True)
class Record:
    """What is to be sent; partition -1 lets the partitioner choose by key."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    partition: int = -1
    headers: Headers = field(default_factory=list)


class DeliveryError(Exception):
    """At least one record was not confirmed in time; some of them may have arrived."""


def deliver(producer: Producer, records: Sequence[Record], timeout_seconds: float) -> list[int]:
    """Send records and wait for every delivery report.

    Returns:
        The offset of each record.

    Raises:
        DeliveryError: not all were confirmed. The producer has been purged.
    """
    offsets = [-1] * len(records)
    failures: list[str] = []

    def report(error: KafkaError | None, message: Message, index: int) -> None:
        offset = message.offset()
        if error is not None:
            failures.append(error.str())
        elif offset is not None:
            offsets[index] = offset

    deadline = time.monotonic() + timeout_seconds
    try:
        for index, record in enumerate(records):
            while True:
                try:
                    producer.produce(
                        record.topic,
                        value=record.value,
                        key=record.key,
                        partition=record.partition,
                        headers=list(record.headers),
                        on_delivery=partial(report, index=index),
                    )
                    break
                except BufferError:
                    if time.monotonic() > deadline:
                        raise
                    producer.poll(0.05)
        left = producer.flush(max(deadline - time.monotonic(), 0.0))
    except (KafkaException, BufferError) as error:
        producer.purge()
        raise DeliveryError(str(error)) from error
    if left or failures or -1 in offsets:
        producer.purge()
        reason = failures[0] if failures else f"no confirmation in {timeout_seconds:.0f} s"
        raise DeliveryError(f"{offsets.count(-1)} of {len(records)} records: {reason}")
    return offsets
