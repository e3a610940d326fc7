"""Sends records and waits until each is delivered: what "delivered" means, once.

Comes in: records for a topic. Goes out: their offsets, or `DeliveryError`, after which nothing is
left under way: the producer is purged and must be made anew by whoever goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream.told import ToldError

Headers = list[tuple[str, str | bytes | None]]

PURGE_SECONDS = 1.0
"""Purged records report at once; this is only so that nothing can hold the purge up."""


@dataclass(frozen=True)
class Record:
    """What is to be sent; partition -1 lets the partitioner choose by key.

    Attributes:
        timestamp_ms: of the record; None for now.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    partition: int = -1
    headers: Headers = field(default_factory=list)
    timestamp_ms: int | None = None


class DeliveryError(ToldError):
    """At least one record was not confirmed in time; some of them may have arrived.

    Attributes:
        too_large: whether a record is larger than the producer or its topic allows, so that
            sending it again is of no use.
    """

    def __init__(self, message: str, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.too_large = too_large


class _TooLateError(Exception):
    """There is no time left to hand records over."""


def deliver(producer: Producer, records: Sequence[Record], timeout_seconds: float) -> list[int]:
    """Send records and wait for every delivery report.

    Nothing is handed to the client after the time-out: a process that was frozen meanwhile must not
    send what another has taken over since.

    Returns:
        The offset of each record.

    Raises:
        DeliveryError: not all were confirmed. The producer has been purged.
    """
    offsets = [-1] * len(records)
    failures: list[KafkaError] = []

    def report(error: KafkaError | None, message: Message, index: int) -> None:
        offset = message.offset()
        if error is not None:
            failures.append(error)
        elif offset is not None:
            offsets[index] = offset

    deadline = time.monotonic() + timeout_seconds
    try:
        for index, record in enumerate(records):
            stamp = record.timestamp_ms
            at: dict[str, Any] = {} if stamp is None else {"timestamp": stamp}
            while True:
                if time.monotonic() > deadline:
                    raise _TooLateError
                try:
                    producer.produce(
                        record.topic,
                        value=record.value,
                        key=record.key,
                        partition=record.partition,
                        headers=list(record.headers),
                        **at,
                        on_delivery=partial(report, index=index),
                    )
                    break
                except BufferError:
                    producer.poll(0.05)
        left = producer.flush(max(deadline - time.monotonic(), 0.0))
    except _TooLateError:
        _purge(producer)
        raise DeliveryError(f"not handed over within {timeout_seconds:.0f} s") from None
    except KafkaException as error:
        _purge(producer)
        raise DeliveryError(str(error), too_large=_is_too_large(error.args[0])) from error
    if left or failures or -1 in offsets:
        reason = failures[0].str() if failures else f"no confirmation in {timeout_seconds:.0f} s"
        missing, too_large = offsets.count(-1), any(map(_is_too_large, failures))
        _purge(producer)
        raise DeliveryError(f"{missing} of {len(records)} records: {reason}", too_large=too_large)
    return offsets


def _purge(producer: Producer) -> None:
    """Drop what is under way, and take its reports: unread, they would keep the records alive."""
    producer.purge()
    producer.flush(PURGE_SECONDS)


def _is_too_large(error: KafkaError | None) -> bool:
    return error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE
