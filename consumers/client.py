"""Spells the Kafka consumer options, once.

Comes in: `settings.broker`. Goes out: librdkafka options for a member of the workers' group and
for a reader without one, the membership a broker speaks, and whole topics read to their end.
Whatever stands in ``broker.properties`` comes last and wins.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from stream.config import Broker
from stream.errors import (
    BrokerUnavailableError,
    OffsetOutOfRangeError,
    TopicMissingError,
    kafka_client,
    report_broker_error,
    right_needed,
)
from stream.wire import wire_options

log = logging.getLogger(__name__)

Protocol: TypeAlias = Literal["consumer", "classic"]
Options: TypeAlias = dict[str, Any]


def activity_options(broker: Broker, protocol: Protocol, name: str = "segstream") -> Options:
    """Options for a member of the activity workers' group, which calls itself by a name.

    Offsets are the store's: nothing is committed by itself, and a position that Kafka does not
    have is an error to be seen, never a jump to an end. Both memberships use the range
    assignor, because it alone keeps the input topics' partitions together.
    """
    options = _common(broker) | {
        "group.id": broker.group,
        "client.id": name,
        "max.poll.interval.ms": _ms(broker.max_poll_interval_seconds),
        # Fill the queue far ahead, and look again at once when it was full: the default back-off
        # of a second stalls a fast consumer for that second.
        "queued.min.messages": 100_000,
        "fetch.queue.backoff.ms": 5,
    }
    if protocol == "consumer":
        options |= {"group.protocol": "consumer", "group.remote.assignor": "range"}
    else:
        session = _ms(broker.session_timeout_seconds)
        options |= {
            "group.protocol": "classic",
            "partition.assignment.strategy": "range",
            "session.timeout.ms": session,
            "heartbeat.interval.ms": max(1, session // 10),
            # librdkafka refuses a poll interval below the session timeout.
            "max.poll.interval.ms": max(session, _ms(broker.max_poll_interval_seconds)),
        }
    return options | broker.properties


FEW_KIB = 256
"""What is read ahead of a partition by who wants its first records only."""


def reader_options(broker: Broker, *, few: bool = False) -> Options:
    """Options for reading partitions given by `assign`, without a group.

    librdkafka asks for a group id all the same; this one is never joined nor committed to. The
    end of a partition is reported as ``_PARTITION_EOF``.

    Args:
        few: a few records are wanted; otherwise up to 64 MiB are read ahead.
    """
    options = _common(broker) | {
        "group.id": f"{broker.group}-reader-{secrets.token_hex(8)}",
        "enable.partition.eof": True,
        "queued.min.messages": 20_000,
        "fetch.queue.backoff.ms": 5,
    }
    if few:
        options |= {"queued.max.messages.kbytes": FEW_KIB, "fetch.message.max.bytes": FEW_KIB << 10}
    return options | broker.properties


def admin_options(broker: Broker) -> Options:
    """Options for asking about topics."""
    return wire_options(broker) | broker.properties


def membership(broker: Broker) -> Protocol:
    """The membership to use: the one in the settings, or the best that the broker speaks."""
    if broker.group_protocol == "auto":
        return detect_protocol(broker)
    return broker.group_protocol


def detect_protocol(broker: Broker, timeout_seconds: float = 10.0) -> Protocol:
    """Find out whether a broker lets groups be managed by KIP-848; takes about 0.1 s.

    A member of a throw-away group asks. A wrong guess would split the workers between two kinds
    of membership, so nothing is guessed: a broker that knows KIP-848 but has it turned off says so by
    an error, a broker that does not know it is told by librdkafka only in its log (it asks on for
    ever), and an answer shows there too. Listing or describing groups by type proves nothing:
    the local broker answers to it although it has no such groups.

    Raises:
        BrokerUnavailableError: no broker answered, or none answered to this.
    """
    said = _Listener()
    group = f"{broker.group}-probe-{secrets.token_hex(8)}"
    options = activity_options(broker, "consumer") | {
        "group.id": group,
        "debug": "cgrp",
        "logger": said.logger,
    }
    consumer = kafka_client(Consumer, options)
    try:
        consumer.subscribe([group])  # a topic that is not there: nothing is assigned or read
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            message = consumer.poll(0.02)
            error = message.error() if message is not None else None
            if said.refused or _is(error, KafkaError.UNSUPPORTED_VERSION):
                return "classic"
            # The broker looks at the version first, and only then whether we may use the group.
            if said.answered or _is(error, KafkaError.GROUP_AUTHORIZATION_FAILED):
                return "consumer"
    finally:
        consumer.close()
    raise BrokerUnavailableError(
        f"no broker at {broker.bootstrap} said within {timeout_seconds:.0f} s how its groups are"
        " managed; is it up? If so, set broker.group_protocol to consumer or classic"
    )


def _is(error: KafkaError | None, code: int) -> bool:
    """Whether an error is of a code, or is a fatal error that quotes one of it."""
    return error is not None and (error.code() == code or KafkaError(code).str() in error.str())


class _Listener(logging.Handler):
    """Overhears what librdkafka logs about one group's heartbeats."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = False
        self.refused = False
        self.logger = logging.Logger("segstream.probe", logging.DEBUG)  # noqa: LOG001 - nobody's
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "ConsumerGroupHeartbeatRequest not supported by broker" in text:
            self.refused = True
        elif "ConsumerGroupHeartbeat response received" in text:
            self.answered = True
        elif "ConsumerGroupHeartbeat failed" in text and "authorization failed" in text:
            # With access control lists nobody may know of a topic that is not there.
            self.answered = True


def read_to_end(
    broker: Broker,
    topic: str,
    partitions: Iterable[int] | None = None,
    start: Mapping[int, int] | None = None,
    *,
    nearest: bool = False,
    last: int | None = None,
    short: list[int] | None = None,
    few: bool = False,
    stall_seconds: float = 15.0,
) -> Iterator[Message]:
    """Read partitions of a topic up to their ends as of this call, or a little further.

    A partition's records come in offset order; those of different partitions are interleaved.
    Every record that was acknowledged to its producer before the call is given.

    Args:
        partitions: which; None takes all.
        start: first offset to read, for each partition; the beginning where it says nothing.
        nearest: where a partition does not have the offset in `start`, read from its beginning if
            that is later, or only its end.
        last: of each partition, only about so many records before its end.
        short: takes in the partitions that end before the offset in `start`.
        few: the caller stops after a few records.
        stall_seconds: give up when nothing arrives for this long.

    Raises:
        BrokerUnavailableError: the broker does not answer, now or while reading.
        TopicMissingError: the topic or a partition is not there.
        OffsetOutOfRangeError: a partition does not have the offset in `start`.
    """
    options = reader_options(broker, few=few)
    if nearest or last is not None:
        # Retention may pass an offset while we ask where the partition begins.
        options["auto.offset.reset"] = "earliest"
    consumer = kafka_client(Consumer, options)
    try:
        reader = _Reader(
            broker,
            consumer,
            topic,
            dict(start or {}),
            stall_seconds,
            [] if short is None else short,
        )
        reader.begin(partitions, nearest=nearest, last=last)
    except BaseException:
        consumer.close()
        raise
    return reader.messages()


def count_records(broker: Broker, topic: str, timeout_seconds: float = 15.0) -> int:
    """About how many records a topic holds: where its partitions end, less where they begin.

    Raises:
        BrokerUnavailableError: the broker does not answer.
        TopicMissingError: the topic is not there.
    """
    consumer = kafka_client(Consumer, reader_options(broker))
    try:
        return _Reader(broker, consumer, topic, {}, timeout_seconds, short=[]).extent()
    finally:
        consumer.close()


class _Reader:
    """One walk over a topic.

    The end of a partition is where a fetch finds nothing more. The high watermark is not trusted
    as the end, because the local broker's is that of the *beginning* of the last batch, plus one;
    but a watermark that has risen since the call lies beyond what was there then, on every
    broker, and ends the walk where records are written faster than an empty fetch comes by.
    """

    def __init__(
        self,
        broker: Broker,
        consumer: Consumer,
        topic: str,
        start: dict[int, int],
        stall_seconds: float,
        short: list[int],
    ) -> None:
        self._broker = broker
        self._consumer = consumer
        self._topic = topic
        self._start = start
        self._expected = dict(start)
        self._stall_seconds = stall_seconds
        self._short = short
        self._high: dict[int, int] = {}
        self._bound: dict[int, int] = {}

    def extent(self) -> int:
        """How many records all partitions hold at the most: ends less beginnings."""
        return sum(high - low for low, high in map(self._watermarks, self._partitions()))

    def begin(
        self, partitions: Iterable[int] | None, *, nearest: bool, last: int | None = None
    ) -> None:
        there = self._partitions()
        wanted = sorted(there if partitions is None else set(partitions))
        missing = [p for p in wanted if p not in there]
        if missing:
            raise TopicMissingError(
                f"topic {self._topic} has {len(there)} partitions, none with number {missing[0]}"
            )
        extents = {p: self._watermarks(p) for p in wanted}
        self._high = {p: high for p, (_, high) in extents.items()}
        if last is not None:
            self._start = {p: max(high - last, low) for p, (low, high) in extents.items()}
        if nearest:
            self._start = {
                p: min(max(self._start[p], low), high)
                for p, (low, high) in extents.items()
                if p in self._start
            }
        self._consumer.assign(
            [TopicPartition(self._topic, p, self._start.get(p, OFFSET_BEGINNING)) for p in wanted]
        )

    def messages(self) -> Iterator[Message]:
        try:
            last = time.monotonic()
            while self._high:
                batch = self._consumer.consume(2_000, 0.1)
                if batch:
                    last = time.monotonic()
                elif time.monotonic() - last > self._stall_seconds:
                    raise self._stalled()
                positions: dict[int, int] = {}
                for message in batch:
                    partition, offset = message.partition(), message.offset()
                    if message.error() is not None:
                        self._note(message)
                    elif partition in self._high and offset is not None:
                        yield message
                        positions[partition] = offset + 1
                for partition, position in positions.items():
                    self._passed(partition, position)
        finally:
            self._consumer.close()

    def _passed(self, partition: int, position: int) -> None:
        """Beyond the first watermark, ask for another; where that has risen, the partition is done."""
        if position < self._high.get(partition, position + 1):
            return
        if partition not in self._bound:
            _, risen = self._watermarks(partition)
            if risen == self._high[partition]:
                return
            self._bound[partition] = risen
        if position >= self._bound[partition]:
            self._done(partition)

    def _note(self, message: Message) -> None:
        error, partition = message.error(), message.partition()
        if error is None or partition is None:
            return
        code = error.code()
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001
            self._note_end(partition, message.offset() or 0)
            self._done(partition)
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):  # noqa: SLF001
            raise self._out_of_range(partition)
        elif code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):  # noqa: SLF001
            raise TopicMissingError(f"topic {self._topic} is gone")
        elif error.fatal() or code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise self._refused(error)
        else:
            # librdkafka goes on trying, and so do we until nothing comes.
            report_broker_error(error)

    def _note_end(self, partition: int, end: int) -> None:
        """Only here is a partition known to end early: the watermark is not trusted as the end."""
        if end < self._expected.get(partition, 0):
            self._short.append(partition)
            log.warning(
                "partition %d of topic %s ends at offset %d, but was to be read from %d on: it was "
                "made anew, or has lost records",
                partition,
                self._topic,
                end,
                self._expected[partition],
            )

    def _done(self, partition: int) -> None:
        if self._high.pop(partition, None) is not None:
            self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])

    def _stalled(self) -> Exception:
        for partition, first in self._start.items():
            # The local broker says nothing at all about an offset beyond its end.
            if partition in self._high and first > self._watermarks(partition)[1]:
                return self._out_of_range(partition)
        return BrokerUnavailableError(
            f"the broker at {self._broker.bootstrap} sent nothing of topic {self._topic} for"
            f" {self._stall_seconds:.0f} s"
        )

    def _out_of_range(self, partition: int) -> OffsetOutOfRangeError:
        return OffsetOutOfRangeError(
            f"partition {partition} of topic {self._topic} does not have offset"
            f" {self._start.get(partition, 0)}: its records before were deleted, or it was made"
            " anew"
        )

    def _partitions(self) -> set[int]:
        try:
            found = self._consumer.list_topics(self._topic, timeout=self._stall_seconds)
        except KafkaException as error:
            raise self._unavailable(error) from None
        topic = found.topics[self._topic]
        wrong = topic.error
        if wrong is not None and wrong.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise self._refused(wrong)
        if wrong is not None or not topic.partitions:
            raise TopicMissingError(
                f"topic {self._topic} does not exist on {self._broker.bootstrap};"
                " segstream topics apply creates it"
            )
        return set(topic.partitions)

    def _refused(self, error: KafkaError) -> BrokerUnavailableError:
        return BrokerUnavailableError(
            f"topic {self._topic} cannot be read: {error.str()}{right_needed(error)}"
        )

    def _watermarks(self, partition: int) -> tuple[int, int]:
        """Low and high watermark, waited for: a broker that just came up has no leaders yet."""
        deadline = time.monotonic() + self._stall_seconds
        while True:
            left = deadline - time.monotonic()
            try:
                answer = self._consumer.get_watermark_offsets(
                    TopicPartition(self._topic, partition), timeout=max(0.1, left)
                )
            except KafkaException as error:
                inner = error.args[0]
                if inner.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise self._refused(inner) from None
                if left <= 0:
                    raise self._unavailable(error) from None
                time.sleep(0.1)
                continue
            if answer is None:
                raise BrokerUnavailableError(f"no broker answers at {self._broker.bootstrap}")
            return answer

    def _unavailable(self, error: KafkaException) -> BrokerUnavailableError:
        reason = error.args[0].str() if error.args else str(error)
        return BrokerUnavailableError(
            f"no broker answers at {self._broker.bootstrap} ({reason}); is it up, and is"
            " broker.bootstrap right?"
        )


def _common(broker: Broker) -> Options:
    return wire_options(broker) | {
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": _ms(broker.fetch_wait_seconds),
        # A few megabytes a partition and answer: far fewer requests than with the default of one.
        "max.partition.fetch.bytes": 4 << 20,
        "fetch.max.bytes": 64 << 20,
    }


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1_000))
