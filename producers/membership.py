"""Sends everybody's present segment to the output, at a declared rate.

Comes in: the store. Goes out: CloudEvents of their own type on `segment-changes`, each on its
user's partition, for whoever begins to listen and for an output that lost what it had.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
from confluent_kafka import Producer

from producers.client import producer_options
from producers.cloudevents import cloud_event
from producers.delivery import DeliveryError, Record, deliver
from stream.config import Settings
from stream.errors import BrokerUnavailableError, kafka_client
from stream.events import MEMBERSHIP, MEMBERSHIP_SCHEMA
from stream.headers import event_source
from stream.membership import Membership, Wanted, memberships
from stream.model import Model
from stream.partition import SchemaMismatchError
from stream.store.promises import ReaderStore
from stream.units import iso

PORTION = 2_000
"""Users taken from the store and delivered at once."""


def republish(
    settings: Settings,
    store: ReaderStore,
    model: Model,
    wanted: Wanted,
    rate: float,
    tell: Callable[[int], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Counter[str]:
    """Send memberships; returns how many were sent, by kind.

    Args:
        rate: records a second at the most.
        tell: is told how many were sent so far.

    Raises:
        BrokerUnavailableError: not all were confirmed; to send them all again does no harm.
        SchemaMismatchError: the rows are of another feature table than the settings declare.
    """
    producer = kafka_client(
        Producer,
        producer_options(
            settings.broker,
            linger_seconds=0.02,
            deliver_seconds=settings.publisher.deliver_seconds,
        ),
    )
    run, at_ms = secrets.token_hex(4), time.time_ns() // 1_000_000
    sent: Counter[str] = Counter()
    began = clock()
    for partition in range(settings.topics.partitions):
        for portion in _of_partition(settings, store, partition, model, wanted, at_ms, run):
            records = [_record(settings, partition, one, at_ms) for one in portion]
            try:
                deliver(producer, records, settings.publisher.deliver_seconds)
            except DeliveryError as error:
                raise BrokerUnavailableError(f"memberships not delivered: {error}") from error
            sent.update(one.kind for one in portion)
            tell(sent.total())
            ahead = sent.total() / rate - (clock() - began)
            if ahead > 0:
                sleep(ahead)
    return sent


def _of_partition(
    settings: Settings,
    store: ReaderStore,
    partition: int,
    model: Model,
    wanted: Wanted,
    at_ms: int,
    run: str,
) -> Iterator[list[Membership]]:
    """A partition's memberships, some at a time."""
    position = store.position(partition)
    if position is None:
        return
    table = settings.table()
    if position.schema != table.schema:
        raise SchemaMismatchError(
            f"partition {partition} holds rows of feature table {position.schema}, but the settings "
            f"declare {table.schema}; use the settings the pipeline runs with"
        )
    stored = iter(store.load(partition))
    while portion := list(islice(stored, PORTION)):
        yield memberships(
            [user for user, _ in portion],
            np.frombuffer(b"".join(row for _, row in portion), dtype=table.dtype),
            model,
            wanted,
            kinds=position.kinds,
            incarnation=position.incarnation,
            key=store.namespace_key(),
            at_ms=at_ms,
            run=run,
        )


def _record(settings: Settings, partition: int, one: Membership, at_ms: int) -> Record:
    source = event_source(settings.store.namespace, "republish")
    headers = cloud_event(
        one.id,
        source,
        MEMBERSHIP,
        iso(at_ms),
        one.user.decode(),
        MEMBERSHIP_SCHEMA,
        kind=one.kind,
    )
    return Record(settings.topics.changes, one.record, one.user, partition, headers)
