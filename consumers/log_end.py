"""Reads what the input topics end with, from the end backwards.

Comes in: the two input topics. Goes out: a `LogEnd`; `replay` compares a file with it before it sends
anything. Only genuine marks count, and of events only their message ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

import msgspec
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from consumers.client import read_to_end, reader_options
from consumers.fields import text_of_id
from consumers.plain import parse_time
from stream.config import Settings
from stream.errors import BrokerUnavailableError, TopicMissingError, kafka_client
from stream.events import Mark
from stream.log_end import LogEnd
from stream.marks import MarkSigner

_SECONDS = 30.0
_FIRST_STEP, _LAST_STEP = 200, 200_000
"""Records of a partition that are looked at first, and at the most; ten times as many are looked at while
there is no mark among them. Where a partition has more than that from one mark to the next, less is
found."""
_LAST_IDS = 2_000
"""Without marks, so many records of each partition are looked at: more than are under way when a
replay is stopped."""


class _Said(msgspec.Struct):
    """What is looked at in any record, whatever its types: a message may be odd and yet have an id."""

    type: Any = ""
    messageId: Any = ""  # noqa: N815 - Segment's spelling
    timestamp: Any = ""
    sentAt: Any = ""  # noqa: N815
    signature: Any = ""


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
    ends = [_End(settings, topic, bounds, signer) for topic, bounds in _bounds(settings).items()]
    ids: dict[str, int] = {}
    marks = [0]
    if signer is not None:
        marks = [mark for end in ends for mark in end.last_marks()]
    if max(marks) == 0:
        for end in ends:
            for records in end.last(_LAST_IDS).values():
                ids |= _ids(records)
        return LogEnd(0, 0, ids)
    for end in ends:
        for records in end.since(min(marks)):
            ids |= _ids(records)
    return LogEnd(min(marks), max(marks), ids)


def read_ends(settings: Settings) -> list[list[int]]:
    """The offset after the last record, of each partition, of both input topics.

    Raises:
        BrokerUnavailableError: the broker does not answer.
        TopicMissingError: a topic is not there.
    """
    first, second = (
        _End(settings, topic, bounds, None).offsets() for topic, bounds in _bounds(settings).items()
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
                    f"topic {topic} does not exist, or may not be seen by this user; `segstream"
                    " topics apply` makes it"
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


class _Seen(NamedTuple):
    """What is kept of a record: the time of a genuine mark or 0, message id, and its place."""

    mark_ms: int
    id: str
    time_ms: int
    offset: int


class _End:
    """The end of one topic."""

    def __init__(
        self, settings: Settings, topic: str, bounds: Bounds, signer: MarkSigner | None
    ) -> None:
        self._broker = settings.broker
        self._topic = topic
        self._bounds = bounds
        self._signer = signer

    def last(self, count: int, partitions: Iterable[int] | None = None) -> dict[int, list[_Seen]]:
        """The last records of each partition."""
        numbers = self._bounds if partitions is None else partitions
        start = {number: self._start(number, count) for number in numbers}
        found: dict[int, list[_Seen]] = {number: [] for number in start}
        filled = [number for number, first in start.items() if first < self._bounds[number][1]]
        if filled:
            for record in read_to_end(self._broker, self._topic, filled, start, nearest=True):
                found[record.partition() or 0].append(self._seen(record))
        return found

    def offsets(self) -> dict[int, int]:
        """The offset after the last record of each partition."""
        # The watermark alone is not trusted, see `consumers.client`.
        return {
            number: records[-1].offset + 1 if records else self._bounds[number][1]
            for number, records in self.last(1).items()
        }

    def last_marks(self) -> list[int]:
        """The time of the newest mark of each partition; 0 if it has none."""

        def newest(records: list[_Seen]) -> int:
            return max((record.mark_ms for record in records), default=0)

        return [newest(records) for records in self._back_to(newest)]

    def since(self, mark_ms: int) -> list[list[_Seen]]:
        """Each partition's records after its mark of a time, or all if it does not have it."""

        def place(records: list[_Seen]) -> int:
            places = (n for n, record in enumerate(records, 1) if record.mark_ms == mark_ms)
            return next(places, 0) if mark_ms else 0

        return [records[place(records) :] for records in self._back_to(place)]

    def _back_to(self, found: Callable[[list[_Seen]], int]) -> list[list[_Seen]]:
        """Each partition's last records, so many that something is found, or all of them."""
        told: dict[int, list[_Seen]] = {}
        waiting, count = list(self._bounds), _FIRST_STEP
        while waiting:
            told |= {
                number: records
                for number, records in self.last(count, waiting).items()
                if found(records)
                or count >= _LAST_STEP
                or self._start(number, count) == self._bounds[number][0]
            }
            waiting = [number for number in waiting if number not in told]
            count *= 10
        return list(told.values())

    def _seen(self, record: Message) -> _Seen:
        try:
            said = _decode(record.value() or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            said = _Said()
        mark_ms = 0
        if said.type == "segstream-mark" and self._signer is not None:
            mark = Mark(str(said.timestamp), str(said.sentAt), str(said.signature))
            if self._signer.is_genuine(mark, self._topic, record.partition() or 0):
                mark_ms = max(0, parse_time(mark.timestamp))
        return _Seen(
            mark_ms, text_of_id(said.messageId) or "", record.timestamp()[1], record.offset() or 0
        )

    def _start(self, number: int, count: int) -> int:
        low, high = self._bounds[number]
        return max(low, high - count)


def _ids(records: Iterable[_Seen]) -> dict[str, int]:
    """Message ids, and the times of their records."""
    return {record.id: record.time_ms for record in records if record.id}
