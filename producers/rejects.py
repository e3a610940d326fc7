"""Files a refused message with its origin, its reason and its untouched bytes.

Comes in: refused messages. Goes out: records on ``<topic>.dlq``, each confirmed before this
returns, so that the offset may then move past the message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from confluent_kafka import Producer

from producers.client import producer_options
from producers.delivery import DeliveryError, Record, deliver
from stream.config import Settings
from stream.errors import BrokerUnavailableError, kafka_client


class Refused(Protocol):
    """A message and why it was refused; `consumers.decode.Reject` is one."""

    @property
    def reason(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def message(self) -> Any: ...


class DeadLetters:
    """Writes dead letters; not to be shared between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: Producer | None = None

    def file(self, refused: Sequence[Refused]) -> None:
        """Deliver refused messages to the dead-letter topics.

        Raises:
            BrokerUnavailableError: they were not all confirmed; file them again.
        """
        if self._producer is None:
            self._producer = kafka_client(
                Producer, producer_options(self._settings.broker, linger_seconds=0.0)
            )
        try:
            deliver(
                self._producer,
                [self._record(one) for one in refused],
                self._settings.publisher.deliver_seconds,
            )
        except DeliveryError as error:
            self._producer = None
            raise BrokerUnavailableError(f"dead letters not delivered: {error}") from error

    def _record(self, refused: Refused) -> Record:
        message = refused.message
        return Record(
            self._settings.topics.dlq(message.topic()),
            message.value(),
            message.key(),
            headers=[
                ("segstream-topic", message.topic()),
                ("segstream-partition", str(message.partition())),
                ("segstream-offset", str(message.offset())),
                ("segstream-timestamp", str(message.timestamp()[1])),
                ("segstream-reason", str(refused.reason)),
                ("segstream-detail", refused.detail[:500]),
            ],
        )
