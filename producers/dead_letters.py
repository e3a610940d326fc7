"""Sends dead letters again, once whoever wrote the messages, or what refused them, was mended.

Comes in: letters. Goes out: the messages as they were, with key, headers and timestamp, on the topic they
came from, or keyed by the user; and behind each portion a receipt on the dead-letter topic, so that the next
time passes over them. A message goes to the partition of its key, as every producer's do.

First the messages, then the receipt: where this is ended in between, those messages are sent twice next
time, and a worker counts the second of them as duplicates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

import msgspec
from confluent_kafka import Producer

from producers.client import producer_options
from producers.delivery import Record, deliver
from stream.config import Settings
from stream.errors import kafka_client
from stream.events import LETTER_RECEIPT, LETTER_REPLAYED_FROM
from stream.hashing import partitions_of

PORTION = 500
"""Messages that one receipt is for: as many may be sent twice after a crash."""
UsersOf = Callable[[Sequence["Letter"]], Sequence[str | None]]
"""Names whom the message of each letter is counted for; None for nobody."""


class Letter(Protocol):
    """A refused message; `consumers.letters.Letter` is one."""

    @property
    def id(self) -> str: ...
    @property
    def topic(self) -> str: ...
    @property
    def timestamp_ms(self) -> int | None: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...
    @property
    def lacks(self) -> Sequence[str]: ...
    @property
    def is_mark(self) -> bool: ...


@dataclass
class LetterReport:
    """What became of letters; the numbers add up to those that were looked at.

    Attributes:
        topics: messages sent again, or that would be, by topic.
        before: letters whose message was sent again before.
        incomplete: letters that do not have the whole message.
        marks: letters of marks: the shop's clock is nobody's to send again.
        beyond: letters over the limit.
    """

    topics: Counter[str] = field(default_factory=Counter)
    before: int = 0
    incomplete: int = 0
    marks: int = 0
    beyond: int = 0

    @property
    def sent(self) -> int:
        return self.topics.total()


def send_again(
    settings: Settings,
    letters: Iterable[Letter],
    replayed: Collection[str],
    *,
    limit: int | None = None,
    dry_run: bool = False,
    users_of: UsersOf | None = None,
    told: Callable[[int], None] = lambda _: None,
    make_producer: Callable[[dict[str, Any]], Producer] = Producer,
) -> LetterReport:
    """Send the messages of letters again.

    Args:
        settings: names broker and topics.
        letters: of which messages; each once.
        replayed: ids of messages to pass over.
        limit: the largest number of messages to send.
        dry_run: only count.
        users_of: a message is keyed by the user whom it names, and goes to their partition.
            Without, and where it names nobody, the key stays.
        told: is told how many were sent so far.
        make_producer: makes a producer from its options.

    Raises:
        DeliveryError: not all were confirmed; those before have their receipt.
    """
    report = LetterReport()
    chosen = _chosen(letters, replayed, limit, report)
    producer: Producer | None = None
    while portion := list(islice(chosen, PORTION)):
        if not dry_run:
            if producer is None:
                options = producer_options(settings.broker, linger_seconds=0.0)
                producer = kafka_client(make_producer, options)
            _send(producer, settings, portion, users_of)
        report.topics.update(letter.topic for letter in portion)
        told(report.sent)
    return report


def _chosen(
    letters: Iterable[Letter], replayed: Collection[str], limit: int | None, report: LetterReport
) -> Iterator[Letter]:
    """Letters whose message is to be sent; the others are counted."""
    left = limit
    for letter in letters:
        if letter.is_mark:
            report.marks += 1
        elif letter.lacks:
            report.incomplete += 1
        elif letter.id in replayed:
            report.before += 1
        elif left == 0:
            report.beyond += 1
        else:
            left = None if left is None else left - 1
            yield letter


def _send(
    producer: Producer,
    settings: Settings,
    letters: Sequence[Letter],
    users_of: UsersOf | None,
) -> None:
    seconds = settings.publisher.deliver_seconds
    messages = list(map(_message, letters))
    if users_of is not None:
        messages = _rekeyed(messages, users_of(letters), settings.topics.partitions)
    deliver(producer, messages, seconds)
    receipts = []
    for topic in sorted({letter.topic for letter in letters}):
        ids = [letter.id for letter in letters if letter.topic == topic]
        headers: list[tuple[str, str | bytes | None]] = [(LETTER_RECEIPT, str(len(ids)))]
        receipts.append(
            Record(settings.topics.dlq(topic), msgspec.json.encode(ids), headers=headers)
        )
    deliver(producer, receipts, seconds)


def _rekeyed(
    messages: Sequence[Record], users: Sequence[str | None], partitions: int
) -> list[Record]:
    keys = [(user or "").encode() for user in users]
    places = partitions_of(keys, partitions).tolist()
    return [
        one if user is None else replace(one, key=key, partition=place)
        for one, user, key, place in zip(messages, users, keys, places, strict=True)
    ]


def _message(letter: Letter) -> Record:
    """The message as it was, with a header more that says which letter it was."""
    return Record(
        letter.topic,
        letter.value,
        letter.key,
        headers=[*letter.headers, (LETTER_REPLAYED_FROM, letter.id)],
        timestamp_ms=letter.timestamp_ms,
    )
