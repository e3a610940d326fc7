"""Asks the role of webhooks to send again what it had given up.

Comes in: letters, and the partition of each. Goes out: requests on their topic, which the role reads; they are
the receipt, too. Before them each partition is told to try the endpoints again, for one that said 410 is
remembered in every partition that heard it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec
from confluent_kafka import Producer

from producers.client import producer_options
from producers.cloudevents import cloud_event
from producers.delivery import Record, deliver
from stream.config import Settings
from stream.errors import kafka_client
from stream.webhooks.letters import (
    ENABLE,
    ENABLE_SCHEMA,
    REPLAY,
    REPLAY_SCHEMA,
    Enable,
    Letter,
    Replay,
    letter_source,
    topic_of,
)

PORTION = 1_000

_encode = msgspec.json.Encoder().encode


def replay(
    settings: Settings,
    letters: Sequence[Letter],
    partitions: Mapping[str, int],
    now: str,
    *,
    late: bool,
    told: Callable[[int], None] = lambda _: None,
    make_producer: Callable[[dict[str, Any]], Producer] = Producer,
) -> int:
    """Ask to send letters again; returns how many.

    Args:
        partitions: of each letter, by its id.
        now: ISO 8601.
        late: also after their triggers' `valid_until`.
        told: is told how many were asked for so far.

    Raises:
        DeliveryError: not all were confirmed; those before are asked for.
    """
    if not letters:
        return 0
    producer = kafka_client(make_producer, producer_options(settings.broker, linger_seconds=0.0))
    seconds, topic = settings.publisher.deliver_seconds, topic_of(settings)
    endpoints = sorted({letter["endpoint"] for letter in letters})
    deliver(producer, list(_enabling(settings, endpoints, topic, now)), seconds)
    left, asked = iter(letters), 0
    while portion := list(islice(left, PORTION)):
        deliver(
            producer,
            [
                _request(settings, one, topic, partitions[one["id"]], now, late=late)
                for one in portion
            ],
            seconds,
        )
        asked += len(portion)
        told(asked)
    return asked


def _enabling(
    settings: Settings, endpoints: Sequence[str], topic: str, now: str
) -> Iterable[Record]:
    source = letter_source(settings)
    for endpoint in endpoints:
        told: Enable = {"id": f"{endpoint}/{now}", "at": now, "endpoint": endpoint}
        headers = cloud_event(told["id"], source, ENABLE, now, endpoint, ENABLE_SCHEMA)
        for number in range(settings.topics.partitions):
            yield Record(topic, _encode(told), endpoint.encode(), number, headers)


def _request(
    settings: Settings, letter: Letter, topic: str, partition: int, now: str, *, late: bool
) -> Record:
    asked: Replay = {"id": f"{letter['id']}/{now}", "at": now, "letter": letter, "late": late}
    headers = cloud_event(
        asked["id"], letter_source(settings), REPLAY, now, letter["user"], REPLAY_SCHEMA
    )
    return Record(topic, _encode(asked), letter["user"].encode(), partition, headers)
