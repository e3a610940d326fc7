"""A member of a consumer group: polls, is assigned partitions and loses them, pauses and moves on.

Comes in: the topics of a role, the options of its consumer, and `Owners`, who serve what is assigned.
Goes out: messages of what is assigned; calls to `Owners` when that changes. It knows positions in topics,
and no users. The topics of a role have the same partitions: one that comes without all its topics is not
handed over.

An error that is raised in a callback of librdkafka is seen once and forgotten. So it is kept, and `poll`
raises it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from stream.errors import (
    REFUSALS,
    BrokerUnavailableError,
    OffsetOutOfRangeError,
    kafka_client,
    right_needed,
)

log = logging.getLogger(__name__)

LIST_SECONDS = 15.0


class Owners(Protocol):
    """Whoever serves the partitions that a member is assigned."""

    def assigned(self, together: Sequence[int], completed: Sequence[int]) -> None:
        """Take over partitions, at once or later.

        Args:
            together: came with all of their topics.
            completed: had some of their topics before, and have all now.
        """
        ...

    def read_from(self, number: int) -> Sequence[int] | None:
        """Offsets to read a partition from, by topic; None while it is not served."""
        ...

    def will_read_from(self, number: int) -> Sequence[int] | None:
        """The same of a partition that is about to be served; None where it is not known yet."""
        ...

    def revoked(self, numbers: Iterable[int]) -> None:
        """Commit what partitions have: they are taken away next."""
        ...

    def lost(self, numbers: Iterable[int]) -> None:
        """Forget partitions: nothing may be written for them any more."""
        ...


@contextmanager
def broker_errors() -> Iterator[None]:
    """What the client raises means: call again later.

    Raises:
        BrokerUnavailableError: in place of the client's own.
    """
    try:
        yield
    except KafkaException as error:
        raise BrokerUnavailableError(str(error.args[0])) from error


class GroupMember:
    """One consumer of a group. Not to be shared between threads, but for `offsets_for_times`.

    Args:
        topics: a topic's place here is its index in offsets.
        options: of the consumer.
        timeout_seconds: a broker that does not answer for longer does not answer.
    """

    def __init__(
        self,
        topics: Sequence[str],
        owners: Owners,
        options: Mapping[str, Any],
        timeout_seconds: float,
    ) -> None:
        self._topics = topics
        self._owners = owners
        self._timeout = timeout_seconds
        self._incremental = options.get("group.protocol") == "consumer"
        self._consumer = kafka_client(Consumer, dict(options))
        self._assigned: set[tuple[str, int]] = set()
        # Where reading was to go on, until the first message has shown that it did.
        self._expected: dict[tuple[str, int], int] = {}
        self._asked_again: set[tuple[str, int]] = set()
        self._failure: Exception | None = None

    def subscribe(self) -> None:
        """Join the group; `poll` does what that brings."""
        self._consumer.subscribe(
            list(self._topics),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def poll(self, limit: int, seconds: float) -> list[Any]:
        """The next messages.

        Args:
            limit: so many at the most.
            seconds: to wait for as many, at the most.

        Raises:
            OffsetOutOfRangeError: the log no longer has what is to be read.
            BrokerUnavailableError: the broker says something that does not pass by itself.
            Exception: whatever an owner raised when partitions were assigned or revoked.
        """
        messages = self._consumer.consume(limit, max(seconds, 0.0))
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        errors = [message.error() for message in messages]
        if any(errors):
            messages = [m for m, error in zip(messages, errors, strict=True) if error is None]
            for error in errors:
                if error is not None:
                    _judge(error)
        return self._from_where_asked(messages) if self._expected else messages

    def _from_where_asked(self, messages: list[Any]) -> list[Any]:
        """Messages, without those that librdkafka began to read behind where it was asked to.

        A partition that waits is assigned at its end, which is looked up. Where the broker is slow, librdkafka goes
        there even after a `seek` to somewhere else (issue 2256 of its own). Asked once more it stays; a
        message that is further on then is the first there is.
        """
        # A topic that is silent is expected for long: the others' messages are not looked at one by one for it.
        if {topic for topic, _ in self._expected}.isdisjoint([one.topic() for one in messages]):
            return messages
        found, again = [], set()
        for message in messages:
            place = message.topic(), message.partition()
            expected = self._expected.get(place)
            if expected is not None:
                if message.offset() > expected and place not in self._asked_again:
                    again.add(place)
                    continue
                del self._expected[place]
                self._asked_again.discard(place)
            found.append(message)
        for place in again:
            log.warning("%s/%d is read from offset %d again", *place, self._expected[place])
            self._consumer.seek(TopicPartition(*place, self._expected[place]))
        self._asked_again |= again
        return found

    def close(self) -> None:
        """Leave the group."""
        self._assigned.clear()
        self._consumer.close()

    # -- what is assigned ---------------------------------------------------------------------

    def has(self, number: int) -> bool:
        """Whether a partition is assigned with all of its topics."""
        return all((topic, number) in self._assigned for topic in self._topics)

    def numbers(self) -> set[int]:
        """Partitions of which anything is assigned."""
        return {number for _, number in self._assigned}

    def pause(self, number: int, topic: int) -> None:
        """Read no more of a topic of a partition for now; a paused member stays a member."""
        self._consumer.pause([TopicPartition(self._topics[topic], number)])

    def resume(self, number: int, topic: int) -> None:
        """Read on."""
        self._consumer.resume([TopicPartition(self._topics[topic], number)])

    def read_on_from(self, number: int, offsets: Sequence[int]) -> None:
        """Read a partition that was assigned and not read, by topic from an offset on."""
        for topic, offset in zip(self._topics, offsets, strict=True):
            where = TopicPartition(topic, number, offset)
            self._expected[topic, number] = offset
            self._asked_again.discard((topic, number))
            self._consumer.seek(where)
            self._consumer.resume([where])

    # -- what the broker knows ----------------------------------------------------------------

    def partition_counts(self) -> dict[str, int]:
        """How many partitions each topic has; without those that are not there."""
        listed = self._consumer.list_topics(timeout=LIST_SECONDS).topics
        return {t: len(listed[t].partitions) for t in self._topics if t in listed}

    def extent(self, topic: str, number: int) -> tuple[int, int]:
        """Where a topic's partition begins and ends by now."""
        found = self._consumer.get_watermark_offsets(
            TopicPartition(topic, number), timeout=self._timeout
        )
        if found is None:
            raise BrokerUnavailableError(f"no broker says where {topic}/{number} begins and ends")
        return found

    def offsets_for_times(
        self, partitions: list[TopicPartition], timeout: float = 0.0
    ) -> list[TopicPartition]:
        """As the consumer's own."""
        return self._consumer.offsets_for_times(partitions, timeout=timeout)

    def group_notes(self, number: int) -> list[str]:
        """What was noted beside the group's offsets of a partition; of each topic that has one."""
        found = self._consumer.committed(
            [TopicPartition(topic, number) for topic in self._topics], timeout=self._timeout
        )
        return [where.metadata or "" for where in found if where.offset >= 0]

    def show_offsets(self, progress: Mapping[int, tuple[Sequence[int], str]]) -> None:
        """Commit group offsets, which lag tools read, with a note; nothing depends on them."""
        offsets = [
            TopicPartition(topic, number, offset, metadata=note)
            for number, (committed, note) in progress.items()
            for topic, offset in zip(self._topics, committed, strict=True)
        ]
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            log.info("group offsets not committed: %s", error.args[0])

    # -- callbacks ----------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Hand over whole partitions."""
        try:
            arrived = {(where.topic, where.partition) for where in partitions}
            self._assigned |= arrived
            numbers = sorted({where.partition for where in partitions})
            whole = [number for number in numbers if self.has(number)]
            for number in numbers:
                if number not in whole:
                    log.warning("partition %d came without all of its topics; waiting", number)
            together = [n for n in whole if all((t, n) in arrived for t in self._topics)]
            self._owners.assigned(together, [n for n in whole if n not in together])
            starts, idle = self._starts(partitions)
            self._accept(consumer, starts)
            # librdkafka keeps a partition paused that was paused when it was taken away and comes back.
            consumer.resume(starts)
            if idle:
                consumer.pause(idle)
        except Exception as error:  # noqa: BLE001 - it must not surface inside librdkafka
            self._failure = self._failure or error
            self._accept(
                consumer, [TopicPartition(w.topic, w.partition, OFFSET_END) for w in partitions]
            )

    def _starts(
        self, partitions: Iterable[TopicPartition]
    ) -> tuple[list[TopicPartition], list[TopicPartition]]:
        """Where to read each partition from, and which are not read yet."""
        starts, idle = [], []
        for where in partitions:
            offsets = self._owners.read_from(where.partition)
            # What need not be looked up by the broker cannot come in between a later `seek`.
            known = self._owners.will_read_from(where.partition) if offsets is None else offsets
            offset = OFFSET_END if known is None else known[self._topics.index(where.topic)]
            starts.append(TopicPartition(where.topic, where.partition, offset))
            if offsets is None:
                idle.append(starts[-1])
        return starts, idle

    def _accept(self, consumer: Consumer, starts: list[TopicPartition]) -> None:
        if self._incremental:
            consumer.incremental_assign(starts)
        else:
            consumer.assign(starts)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Give up partitions; what was not committed is the next owner's to read again."""
        self._guarded(lambda: self._owners.revoked({w.partition for w in partitions}))
        self._on_lost(consumer, partitions)
        if self._incremental:
            consumer.incremental_unassign(partitions)
        else:
            consumer.unassign()

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        del consumer
        for where in partitions:
            self._assigned.discard((where.topic, where.partition))
            self._expected.pop((where.topic, where.partition), None)
            self._asked_again.discard((where.topic, where.partition))
        self._guarded(lambda: self._owners.lost([where.partition for where in partitions]))

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - it must not surface inside librdkafka
            self._failure = self._failure or error


def _judge(error: KafkaError) -> None:
    """Ignore errors that pass by themselves; raise the others."""
    code = error.code()
    if code in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET):  # noqa: SLF001
        raise OffsetOutOfRangeError(
            f"{error.str()}: the log no longer holds what comes after the stored offset; "
            "restore the store from its backup, or start anew under another store.namespace"
        )
    if error.fatal() or code == KafkaError._MAX_POLL_EXCEEDED:  # noqa: SLF001
        raise BrokerUnavailableError(error.str())
    if code in REFUSALS:
        raise BrokerUnavailableError(f"{error.str()}{right_needed(error)}")
    if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise BrokerUnavailableError(f"{error.str()} (segstream topics apply creates topics)")
    log.info("broker: %s", error.str())
