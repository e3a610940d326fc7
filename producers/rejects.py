"""Files a refused message with its origin, its reason and its untouched bytes.

Comes in: refused messages. Goes out: records on ``<topic>.dlq``, each confirmed before this
returns, so that the offset may then move past the message.

A value that the dead-letter topic cannot take is filed by its head, because refusing to go on would
stop every worker in turn for ever. `segstream-truncated` then has the number of bytes it had.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from confluent_kafka import Producer

from producers.client import MESSAGE_BYTES, producer_options
from producers.delivery import DeliveryError, Headers, Record, deliver
from stream.config import Settings
from stream.errors import BrokerUnavailableError, kafka_client
from stream.events import LETTER_HEAD_BYTES, LETTER_TRUNCATED

log = logging.getLogger(__name__)

ROOM_BYTES = 128 << 10
"""For the headers, the key, and what compressing the incompressible adds."""
KEY_BYTES = 64 << 10
"""A longer key is no user's; as it would not fit either, its head is filed."""


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
        self._limit = MESSAGE_BYTES - ROOM_BYTES

    def file(self, refused: Sequence[Refused]) -> None:
        """Deliver refused messages to the dead-letter topics.

        Raises:
            BrokerUnavailableError: they were not all confirmed; file them again.
        """
        while True:
            try:
                self._deliver(refused)
            except DeliveryError as error:
                self._producer = None
                if error.too_large and self._limit > LETTER_HEAD_BYTES:
                    self._lower_limit()
                    continue
                raise BrokerUnavailableError(f"dead letters not delivered: {error}") from error
            return

    def _deliver(self, refused: Sequence[Refused]) -> None:
        if self._producer is None:
            self._producer = kafka_client(
                Producer, producer_options(self._settings.broker, linger_seconds=0.0)
            )
        deliver(
            self._producer,
            [self._record(one) for one in refused],
            self._settings.publisher.deliver_seconds,
        )

    def _lower_limit(self) -> None:
        """The topic, or a producer with properties of its own, takes less than was planned."""
        self._limit = max(self._limit // 2, LETTER_HEAD_BYTES)
        log.warning(
            "a dead letter is too large for its topic; from now on the head is filed of values "
            "longer than %d bytes (`segstream topics apply` says what the topic should allow)",
            self._limit,
        )

    def _record(self, refused: Refused) -> Record:
        message = refused.message
        headers: Headers = [
            ("segstream-topic", message.topic()),
            ("segstream-partition", str(message.partition())),
            ("segstream-offset", str(message.offset())),
            ("segstream-timestamp", str(message.timestamp()[1])),
            ("segstream-reason", str(refused.reason)),
            ("segstream-detail", refused.detail[:500]),
        ]
        value, key = message.value(), message.key()
        if value is not None and len(value) > self._limit:
            headers.append((LETTER_TRUNCATED, str(len(value))))
            value = value[: 1 << (self._limit.bit_length() - 1)]
        if key is not None and len(key) > KEY_BYTES:
            headers.append((f"{LETTER_TRUNCATED}-key", str(len(key))))
            key = key[:KEY_BYTES]
        return Record(self._settings.topics.dlq(message.topic()), value, key, headers=headers)
