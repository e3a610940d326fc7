"""Reads what the input topics end with, from the end backwards.

Comes in: the two input topics. Goes out: a `LogEnd`; `replay` compares a file with it before it sends
anything. Only genuine marks count, and of events only their message ids.
"""

from __future__ import annotations

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumers.client import reader_options
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
    consumer = kafka_client(Consumer, reader_options(settings.broker))
    try:
        reader = _Reader(settings, consumer, signer)
        return reader.end()
    except KafkaException as error:
        raise BrokerUnavailableError(
            f"no broker answers at {settings.broker.bootstrap}: {error.args[0]}"
        ) from None
    finally:
        consumer.close()


def read_ends(settings: Settings) -> list[list[int]]:
    """The offset after the last record, of each partition, of both input topics.

    Raises:
        BrokerUnavailableError: the broker does not answer.
        TopicMissingError: a topic is not there.
    """
    consumer = kafka_client(Consumer, reader_options(settings.broker))
    try:
        places = _Reader(settings, consumer, None).places()
        ends = {
            (place.topic, place.partition): consumer.get_watermark_offsets(place, _SECONDS)[1]
            for place in places
        }
    except KafkaException as error:
        raise BrokerUnavailableError(
            f"no broker answers at {settings.broker.bootstrap}: {error.args[0]}"
        ) from None
    finally:
        consumer.close()
    count = len(places) // len(settings.topics.inputs)
    return [[ends[topic, number] for topic in settings.topics.inputs] for number in range(count)]


class _Reader:
    def __init__(self, settings: Settings, consumer: Consumer, signer: MarkSigner | None) -> None:
        self._settings = settings
        self._consumer = consumer
        self._signer = signer

    def places(self) -> list[TopicPartition]:
        """Every partition of both topics."""
        known = self._consumer.list_topics(timeout=_SECONDS).topics
        found = []
        for topic in self._settings.topics.inputs:
            if topic not in known:
                raise TopicMissingError(
                    f"topic {topic} does not exist; `segstream topics apply` makes it"
                )
            found += [TopicPartition(topic, number) for number in known[topic].partitions]
        return found

    def end(self) -> LogEnd:
        places = self.places()
        if self._signer is None:
            ids: dict[str, int] = {}
            for place in places:
                _, records = self._last(place, _LAST_IDS)
                ids |= self._ids(records)
            return LogEnd(0, 0, ids)
        marks = [self._last_mark(place) for place in places]
        mark_ms = min(marks)
        if max(marks) == 0:
            return LogEnd(0, 0, {})
        ids = {}
        for place in places:
            ids |= self._ids(self._since(place, mark_ms))
        return LogEnd(mark_ms, max(marks), ids)

    def _last_mark(self, place: TopicPartition) -> int:
        """The time of the newest mark in a partition; 0 if it has none."""
        step = _FIRST_STEP
        while True:
            is_all, records = self._last(place, step)
            found = max((self._mark_ms(record) for record in records), default=0)
            if found or is_all:
                return found
            step *= 10

    def _since(self, place: TopicPartition, mark_ms: int) -> list[Message]:
        """A partition's records after its mark of a time, or all if it does not have it."""
        step = _FIRST_STEP
        while True:
            is_all, records = self._last(place, step)
            for index, record in enumerate(records):
                if self._mark_ms(record) == mark_ms:
                    return records[index + 1 :]
            if is_all:
                return records
            step *= 10

    def _last(self, place: TopicPartition, count: int) -> tuple[bool, list[Message]]:
        """A partition's last records, and whether they are all there are."""
        low, high = self._consumer.get_watermark_offsets(place, _SECONDS)
        start = max(low, high - count)
        if start == high:
            return True, []
        self._consumer.assign([TopicPartition(place.topic, place.partition, start)])
        records: list[Message] = []
        while True:
            message = self._consumer.poll(_SECONDS)
            if message is None:
                raise BrokerUnavailableError(
                    f"{place.topic}[{place.partition}] gives nothing within {_SECONDS:.0f} s"
                )
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                    break
                raise KafkaException(error)
            records.append(message)
            if (message.offset() or 0) >= high - 1:
                break
        return start == low, records

    def _mark_ms(self, record: Message) -> int:
        """The time of a genuine mark; 0 of anything else."""
        assert self._signer is not None
        said = _said(record)
        mark = Mark(said.timestamp, said.sentAt, said.signature)
        where = (record.topic() or "", record.partition() or 0)
        if said.type != "segstream-mark" or not self._signer.is_genuine(mark, *where):
            return 0
        return max(0, parse_time(mark.timestamp))

    @staticmethod
    def _ids(records: list[Message]) -> dict[str, int]:
        found = {}
        for record in records:
            said = _said(record)
            if said.messageId:
                found[said.messageId] = record.timestamp()[1]
        return found


def _said(record: Message) -> _Said:
    try:
        return _decode(record.value() or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Said()
