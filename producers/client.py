"""Spells the Kafka producer options, and what "delivered" means, once.

Comes in: `settings.broker`. Goes out: librdkafka options. *Delivered* means that every in-sync
copy has the record and that a repeated request did not write it twice: ``acks=all`` with
idempotence, told by a delivery report without an error. One exception is the broker's: started
again, it has forgotten producers whose last record is older than a day by the record's own time,
so a request that was on its way then may be written twice. That is a replay of the past; the same
id and the same bytes tell such a repeat. Whatever stands in ``broker.properties`` comes last and
wins.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from stream.config import Broker
from stream.wire import wire_options

Options: TypeAlias = dict[str, Any]

# Room for a refused message of Kafka's default limit (1 MiB) and the headers that say why.
MESSAGE_BYTES = 2 << 20


def producer_options(
    broker: Broker, *, linger_seconds: float = 0.005, deliver_seconds: float = 120.0
) -> Options:
    """Options for an idempotent producer that places users as every Kafka client does.

    Args:
        linger_seconds: how long a record may wait for company. The local broker slows down with
            the number of batches, so take 0.02 or more to fill it.
        deliver_seconds: a record not delivered after this is reported as failed.
    """
    linger = max(0, round(linger_seconds * 1_000))
    options = wire_options(broker) | {
        "enable.idempotence": True,
        "acks": "all",
        # Java's partitioner; librdkafka's own default would put a user elsewhere.
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "linger.ms": linger,
        "delivery.timeout.ms": max(linger + 1, round(deliver_seconds * 1_000)),
        "batch.num.messages": 50_000,
        "message.max.bytes": MESSAGE_BYTES,
        "queue.buffering.max.messages": 500_000,
        "queue.buffering.max.kbytes": 256 << 10,
    }
    return options | broker.properties
