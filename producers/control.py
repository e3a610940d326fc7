"""Says something of a user or a campaign on `campaign-control`; the roles obey once they have read it.

Comes in: a record. Goes out: the same on the topic: one of a user on the user's partition, one of a campaign on
every partition, for each has its users.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from confluent_kafka import Producer

from producers.client import producer_options
from producers.delivery import Record, deliver
from stream.campaigns.control import ControlRecord
from stream.config import Settings
from stream.errors import kafka_client
from stream.hashing import partitions_of


def say(
    settings: Settings,
    record: ControlRecord,
    make_producer: Callable[[dict[str, Any]], Producer] = Producer,
) -> int:
    """Write a record; returns on how many partitions it stands.

    Raises:
        DeliveryError: not all partitions have confirmed it; say it again.
    """
    partitions = settings.topics.partitions
    if "user" in record:
        key = record["user"].encode()
        where = partitions_of([key], partitions).tolist()
    else:
        key, where = record["campaign"].encode(), list(range(partitions))
    value = msgspec.json.encode(record)
    producer = kafka_client(make_producer, producer_options(settings.broker, linger_seconds=0.0))
    records = [Record(settings.topics.control, value, key, number) for number in where]
    deliver(producer, records, settings.publisher.deliver_seconds)
    return len(records)
