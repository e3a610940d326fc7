"""Reads what the input topics end with, from the end backwards.

Comes in: the two input topics. Goes out: a `LogEnd`; `replay` compares a file with it before it sends
anything. Only genuine marks count, and of events only their message ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import msgspec
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from consumers.client import read_to_end, reader_options
from consumers.plain import parse_time
from stream.config import Settings
from stream.errors import BrokerUnavailableError, TopicMissingError, kafka_client
from stream.events import Mark
from stream.log_end import LogEnd
from stream.marks import MarkSigner

_SECONDS = 30.0
_FIRST_STEP = 200
"""Records looked back on at first; where there is no mark among them, ten times as many, and so on."""
_LAST_IDS = 2_000
"""Without marks, so many records of each partition are looked at: more than are under way when a
replay is stopped."""


class _Said(msgspec.Struct):
    """What is looked at of any record."""

    type: str = ""
    messageId: str = ""  # noqa: N815 - Segment's spelling
    timestamp: str = ""
    sentAt: str = ""  # noqa: N815
    signature: str = ""


_decode = msgspec.json.Decoder(_Said).decode


def read_log_end(settings: Settings, signer: MarkSigner | None) -> LogEnd:
    """What the input topics end with.

    Args:
        settings: name broker and topics.
        signer: knows genuine marks; None where there are none.

    Raises:
        BrokerUnavailableError: the broker does not answer.
        TopicMissingError: a topic is not there.
    """
    ends = {topic: _End(settings, topic, bounds) for topic, bounds in _bounds(settings).items()}
    ids: dict[str, int] = {}
    marks = [0]
    if signer is not None:
        marks = [mark for end in ends.values() for mark in end.last_marks(signer)]
    if signer is None or max(marks) == 0:
        for end in ends.values():
            for records in end.last(_LAST_IDS).values():
                ids |= _ids(records)
        return LogEnd(0, 0, ids)
    for end in ends.values():
        for records in end.since(min(marks), signer):
            ids |= _ids(records)
    return LogEnd(min(marks), max(marks), ids)


def read_ends(settings: Settings) -> list[list[int]]:
    """The offset after the last record, of each partition, of both input topics.

    Raises:
        BrokerUnavailableError: the broker does not answer.
        TopicMissingError: a topic is not there.
    """
    first, second = (
        _End(settings, topic, bounds).offsets() for topic, bounds in _bounds(settings).items()
    )
    return [[first[number], second[number]] for number in sorted(first)]


Bounds: TypeAlias = dict[int, tuple[int, int]]
"""Of each partition the first offset, and the one after the last."""


def _bounds(settings: Settings) -> dict[str, Bounds]:
    consumer = kafka_client(Consumer, reader_options(settings.broker))
    try:
        known = consumer.list_topics(timeout=_SECONDS).topics
        found: dict[str, Bounds] = {}
        for topic in settings.topics.inputs:
            if topic not in known:
                raise TopicMissingError(
                    f"topic {topic} does not exist; `segstream topics apply` makes it"
                )
            found[topic] = {
                number: consumer.get_watermark_offsets(TopicPartition(topic, number), _SECONDS)
                for number in known[topic].partitions
            }
    except KafkaException as error:
        raise BrokerUnavailableError(
            f"no broker answers at {settings.broker.bootstrap}: {error.args[0]}"
        ) from None
    finally:
        consumer.close()
    return found


class _End:
    """The end of one topic."""

    def __init__(self, settings: Settings, topic: str, bounds: Bounds) -> None:
        self._broker = settings.broker
        self._topic = topic
        self._bounds = bounds

    def last(self, count: int, partitions: Iterable[int] | None = None) -> dict[int, list[Message]]:
        """The last records of each partition."""
        numbers = self._bounds if partitions is None else partitions
        start = {number: self._start(number, count) for number in numbers}
        found: dict[int, list[Message]] = {number: [] for number in start}
        filled = [number for number, first in start.items() if first < self._bounds[number][1]]
        if filled:
            for record in read_to_end(self._broker, self._topic, filled, start, nearest=True):
                found[record.partition() or 0].append(record)
        return found

    def offsets(self) -> dict[int, int]:
        """The offset after the last record of each partition."""
        # The watermark alone is not trusted, see `consumers.client`.
        return {
            number: (records[-1].offset() or 0) + 1 if records else self._bounds[number][1]
            for number, records in self.last(1).items()
        }

    def last_marks(self, signer: MarkSigner) -> list[int]:
        """The time of the newest mark of each partition; 0 if it has none."""

        def newest(records: list[Message]) -> int | None:
            return max((_mark_ms(record, signer) for record in records), default=0) or None

        return [newest(records) or 0 for records in self._back_to(newest)]

    def since(self, mark_ms: int, signer: MarkSigner) -> list[list[Message]]:
        """Each partition's records after its mark of a time, or all if it does not have it."""

        def place(records: list[Message]) -> int | None:
            if mark_ms == 0:
                return None
            return next(
                (n for n, one in enumerate(records, 1) if _mark_ms(one, signer) == mark_ms), None
            )

        return [records[place(records) or 0 :] for records in self._back_to(place)]

    def _back_to(self, found: Callable[[list[Message]], int | None]) -> list[list[Message]]:
        """Each partition's last records, so many that something is found, or all of them."""
        told: dict[int, list[Message]] = {}
        waiting, count = list(self._bounds), _FIRST_STEP
        while waiting:
            told |= {
                number: records
                for number, records in self.last(count, waiting).items()
                if self._start(number, count) == self._bounds[number][0] or found(records)
            }
            waiting = [number for number in waiting if number not in told]
            count *= 10
        return list(told.values())

    def _start(self, number: int, count: int) -> int:
        low, high = self._bounds[number]
        return max(low, high - count)


def _mark_ms(record: Message, signer: MarkSigner) -> int:
    """The time of a genuine mark; 0 of anything else."""
    said = _said(record)
    mark = Mark(said.timestamp, said.sentAt, said.signature)
    where = (record.topic() or "", record.partition() or 0)
    if said.type != "segstream-mark" or not signer.is_genuine(mark, *where):
        return 0
    return max(0, parse_time(mark.timestamp))


def _ids(records: Iterable[Message]) -> dict[str, int]:
    """Message ids, and the times of their records."""
    return {
        said.messageId: record.timestamp()[1]
        for record in records
        if (said := _said(record)).messageId
    }


def _said(record: Message) -> _Said:
    try:
        return _decode(record.value() or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Said()
