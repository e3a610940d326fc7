"""Files a refused message with its origin, its reason and its untouched bytes.

Comes in: refused messages. Goes out: records on ``<topic>.dlq``, each confirmed before this
returns, so that the offset may then move past the message. Its own headers are kept under a
prefix, so that they can be restored exactly, and `segstream-id` tells a letter that was filed twice.

A value that the dead-letter topic cannot take is filed by its head, because refusing to go on would
stop every worker in turn for ever. `segstream-truncated` then has the number of bytes it had. So
have `segstream-truncated-key` and `segstream-truncated-headers`, for a key that is cut and for
headers that are left out; headers that the client cannot read are left out, too.
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
from stream.events import (
    LETTER_HEAD_BYTES,
    LETTER_ID,
    LETTER_ORIGINAL,
    LETTER_TRUNCATED,
)
from stream.headers import headers_of

log = logging.getLogger(__name__)

ROOM_BYTES = 128 << 10
"""For the headers, the key, and what compressing the incompressible adds."""
KEY_BYTES = 64 << 10
"""A longer key is no user's; as it would not fit either, its head is filed."""
HEADER_BYTES = 32 << 10
"""More headers than this, their names on the letter included, are left out."""
UNREADABLE = "unreadable"
"""Stands for the number of bytes of headers that the client cannot read."""


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
        self._read: dict[int, tuple[Any, Headers]] = {}

    def file(self, refused: Sequence[Refused]) -> None:
        """Deliver refused messages to the dead-letter topics.

        Raises:
            BrokerUnavailableError: they were not all confirmed; file them again.
        """
        headers = [self._headers_of(one) for one in refused]
        while True:
            try:
                self._deliver(refused, headers)
            except DeliveryError as error:
                self._producer = None
                if error.too_large and self._limit > LETTER_HEAD_BYTES:
                    self._lower_limit()
                    continue
                raise BrokerUnavailableError(f"dead letters not delivered: {error}") from error
            self._read.clear()
            return

    def _headers_of(self, refused: Refused) -> Headers:
        """Those of a letter; read once, however often it must be filed: see `headers_of`."""
        message, found = self._read.get(id(refused.message), (None, []))
        if message is None:
            found = _headers(refused)
            # With the message itself, whose id is nobody else's as long as it is kept.
            self._read[id(refused.message)] = refused.message, found
        return found

    def _deliver(self, refused: Sequence[Refused], headers: Sequence[Headers]) -> None:
        if self._producer is None:
            self._producer = kafka_client(
                Producer, producer_options(self._settings.broker, linger_seconds=0.0)
            )
        deliver(
            self._producer,
            list(map(self._record, refused, headers)),
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

    def _record(self, refused: Refused, headers: Headers) -> Record:
        message = refused.message
        value, key, headers = message.value(), message.key(), list(headers)
        if value is not None and len(value) > self._limit:
            headers.append((LETTER_TRUNCATED, str(len(value))))
            value = value[: 1 << (self._limit.bit_length() - 1)]
        if key is not None and len(key) > KEY_BYTES:
            headers.append((f"{LETTER_TRUNCATED}-key", str(len(key))))
            key = key[:KEY_BYTES]
        return Record(self._settings.topics.dlq(message.topic()), value, key, headers=headers)


def _headers(refused: Refused) -> Headers:
    """Where a message came from, why it was refused, and the headers it had."""
    message = refused.message
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    # Details may quote what no text can hold, such as half a character.
    detail = refused.detail[:500].encode(errors="backslashreplace").decode()
    return [
        (LETTER_ID, f"{topic}/{partition}/{offset}"),
        ("segstream-topic", topic),
        ("segstream-partition", str(partition)),
        ("segstream-offset", str(offset)),
        ("segstream-timestamp", str(message.timestamp()[1])),
        ("segstream-reason", str(refused.reason)),
        ("segstream-detail", detail),
        *_original(message),
    ]


def _original(message: Any) -> Headers:
    """The message's own headers under the prefix, or how much was left out."""
    left_out = f"{LETTER_TRUNCATED}-headers"
    found = headers_of(message)
    if found is None:
        return [(left_out, UNREADABLE)]
    size = sum(len(LETTER_ORIGINAL) + len(name) + len(value or b"") for name, value in found)
    if size > HEADER_BYTES:
        return [(left_out, str(size))]
    return [(LETTER_ORIGINAL + name, value) for name, value in found]
