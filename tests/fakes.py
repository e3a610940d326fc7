"""Stand-ins that a test moves by hand: a clock, a scripted consumer, a recording producer.

Comes in: what should happen, and in which order. Goes out: what the code under test made of it.
None of them sleeps, starts a thread or opens a socket; whoever waits moves the clock on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import msgspec
from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it re-exports them silently
    ClusterMetadata,
    PartitionMetadata,
    TopicMetadata,
)

from stream.delivered import Delivered
from stream.marks import MarkSigner
from stream.store.memory import MemoryStore
from stream.store.state import Answer, Commit, StoreUnavailableError

START_SECONDS = 1_764_547_200.0
"""2025-12-01, where clocks begin."""
READING_SECONDS = 0.004
"""What a look takes that finds something; far longer than in truth, so that batches stay small."""


class Clock:
    """Time that passes only when told to; takes the place of a module's ``time``."""

    def __init__(self, seconds: float = START_SECONDS) -> None:
        self.seconds = seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds

    sleep = advance

    def time(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        """Looking at a watch takes a moment, so that waiting for a time comes to an end."""
        self.seconds += 1e-5
        return self.seconds

    perf_counter = monotonic

    def time_ns(self) -> int:
        return round(self.seconds * 1e9)

    def wall_ms(self) -> int:
        return round(self.seconds * 1e3)


# -- what comes in -------------------------------------------------------------------------------


@dataclass
class FakeMessage:
    """A Kafka message, or an error in place of one."""

    raw: bytes | None
    key_bytes: bytes | None = b"key"
    timestamp_ms: int = round(START_SECONDS * 1_000)
    topic_name: str = "clickstream"
    number: int = 0
    place: int = 0
    failure: KafkaError | None = None
    told: list[tuple[str, str | bytes | None]] | None = None

    def error(self) -> KafkaError | None:
        return self.failure

    def value(self) -> bytes | None:
        return self.raw

    def key(self) -> bytes | None:
        return self.key_bytes

    def timestamp(self) -> tuple[int, int]:
        return (1, self.timestamp_ms)

    def headers(self) -> list[tuple[str, str | bytes | None]] | None:
        return self.told

    def topic(self) -> str:
        return self.topic_name

    def partition(self) -> int:
        return self.number

    def offset(self) -> int:
        return self.place


SIGNER = MarkSigner(MemoryStore().namespace_key())
"""Of the marks for whoever uses a memory store."""


def mark_value(
    time_ms: int,
    sent_ms: int | None = None,
    at: tuple[str, int] = ("clickstream", 0),
    signer: MarkSigner = SIGNER,
) -> bytes:
    """A tick of the shop's clock, as `replay` writes it; sent at once if nothing else is said."""
    return msgspec.json.encode(signer.mark(*at, time_ms, time_ms if sent_ms is None else sent_ms))


Action = Callable[[], None]


class ScriptedConsumer:
    """A consumer group's member over a log that a test writes.

    Each `consume` takes the next action of the script, if there is one, and then what the log
    has; where it has nothing, the clock moves on by the time the caller was ready to wait.

    Attributes:
        low: offsets below which retention has deleted everything; 0 where it says nothing.
        partitions: how many the broker has of a topic.
        portion: messages given at once at the most, however many are asked for.
        idle: how often in a row there was nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.partitions: dict[str, int] = {}
        self.log: dict[tuple[str, int], list[FakeMessage]] = {}
        self.script: deque[Action] = deque()
        self.positions: dict[tuple[str, int], int] = {}
        self.paused: set[tuple[str, int]] = set()
        self.low: dict[tuple[str, int], int] = {}
        self.group: dict[tuple[str, int], TopicPartition] = {}
        self.portion = 1_000
        self.idle = 0
        self.closed = False
        self._errors: list[FakeMessage] = []
        self._served: dict[tuple[str, int], int] = {}
        self._turns = count(1)
        self._callbacks: dict[str, Callable[[Any, list[TopicPartition]], None]] = {}

    # -- for the test --

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        timestamp_ms: int,
        key: bytes | None = b"key",
    ) -> None:
        """Write a record behind the others."""
        messages = self.log.setdefault((topic, partition), [])
        messages.append(FakeMessage(value, key, timestamp_ms, topic, partition, len(messages)))

    def then(self, *actions: Action) -> None:
        """Go on with the script."""
        self.script.extend(actions)

    def give(self, *where: tuple[str, int]) -> Action:
        """Assign partitions, as the group does."""
        return lambda: self._callbacks["on_assign"](self, [TopicPartition(*w) for w in where])

    def take(self, *where: tuple[str, int]) -> Action:
        """Revoke partitions, as the group does."""
        return lambda: self._callbacks["on_revoke"](self, [TopicPartition(*w) for w in where])

    def lose(self, *where: tuple[str, int]) -> Action:
        """Take partitions away that are another's already."""

        def lost() -> None:
            self._callbacks["on_lost"](self, [TopicPartition(*w) for w in where])
            self._drop(where)

        return lost

    def fail(self, code: int) -> Action:
        """Report an error in place of a message."""
        return lambda: self._errors.append(FakeMessage(None, failure=KafkaError(code)))

    # -- for the code --

    def list_topics(self, timeout: float) -> ClusterMetadata:
        del timeout
        found = ClusterMetadata()
        for topic, partitions in self.partitions.items():
            found.topics[topic] = TopicMetadata()
            found.topics[topic].partitions = {n: PartitionMetadata() for n in range(partitions)}
        return found

    def subscribe(self, topics: Sequence[str], **callbacks: Any) -> None:
        del topics
        self._callbacks = callbacks

    def consume(self, limit: int, timeout: float) -> list[FakeMessage]:
        if self.script:
            self.idle = 0
            self.script.popleft()()
        found, self._errors = self._errors, []
        room = min(limit, self.portion)
        # Nobody is always served first: the one who was goes to the end of the queue.
        for where in sorted(self.positions, key=lambda one: self._served.get(one, 0)):
            position = self.positions[where]
            if where in self.paused:
                continue
            if position < self.low.get(where, 0):
                self.positions[where] = len(self.log.get(where, []))
                found.append(FakeMessage(None, failure=KafkaError(KafkaError._AUTO_OFFSET_RESET)))
                continue
            if room:
                self._served[where] = next(self._turns)
            fresh = self.log.get(where, [])[position : position + room]
            self.positions[where] += len(fresh)
            room -= len(fresh)
            found.extend(fresh)
        self.idle = 0 if found else self.idle + 1
        # Even a consumer that need not wait takes some time.
        self.clock.advance(READING_SECONDS if found else max(timeout, 1e-4))
        return found

    def incremental_assign(self, where: Sequence[TopicPartition]) -> None:
        for one in where:
            self._seek(one)

    assign = incremental_assign

    def incremental_unassign(self, where: Sequence[TopicPartition]) -> None:
        self._drop([(one.topic, one.partition) for one in where])

    def unassign(self) -> None:
        self.positions.clear()

    def seek(self, where: TopicPartition) -> None:
        self._seek(where)

    def pause(self, where: Sequence[TopicPartition]) -> None:
        self.paused |= {(one.topic, one.partition) for one in where}

    def resume(self, where: Sequence[TopicPartition]) -> None:
        self.paused -= {(one.topic, one.partition) for one in where}

    def committed(self, where: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        del timeout
        return [self.group.get((one.topic, one.partition), one) for one in where]

    def get_watermark_offsets(self, where: TopicPartition, timeout: float) -> tuple[int, int]:
        del timeout
        key = (where.topic, where.partition)
        return self.low.get(key, 0), len(self.log.get(key, []))

    def offsets_for_times(
        self, where: Sequence[TopicPartition], timeout: float = 0.0
    ) -> list[TopicPartition]:
        """Where partitions end; nobody asks for another time."""
        del timeout
        assert all(one.offset == OFFSET_END for one in where)
        ends = [len(self.log.get((one.topic, one.partition), [])) for one in where]
        return [
            TopicPartition(w.topic, w.partition, end) for w, end in zip(where, ends, strict=True)
        ]

    def commit(self, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
        del asynchronous
        self.group |= {(one.topic, one.partition): one for one in offsets}

    def close(self) -> None:
        self.closed = True

    def _seek(self, where: TopicPartition) -> None:
        key = (where.topic, where.partition)
        end = len(self.log.get(key, []))
        self.positions[key] = where.offset if where.offset >= 0 else end

    def _drop(self, where: Sequence[tuple[str, int]]) -> None:
        """Take partitions away; as with librdkafka, those that were paused stay so."""
        for one in where:
            self.positions.pop(one, None)


@dataclass
class FakeOutput:
    """The topic of changes as an owner sees it.

    Attributes:
        delivered: what it has, by partition, from offset 0 on.
        ids: of topics; one that is not named has its name for an id.
        asked: the offsets that tails were asked from.
        members: client ids of the workers' group.
        named_first: currency that the input topics name first; empty where that is not looked for.
    """

    delivered: dict[int, list[Delivered]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    asked: list[dict[int, int]] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    named_first: str = ""

    def tails(self, starts: Mapping[int, int]) -> dict[int, list[Delivered]]:
        self.asked.append(dict(starts))
        return {n: self.delivered.get(n, [])[start:] for n, start in starts.items()}

    def topic_ids(self, names: Sequence[str]) -> list[str]:
        return [self.ids.get(name, name) for name in names]

    def group_members(self) -> list[str]:
        return self.members

    def first_currency(self) -> str:
        return self.named_first


# -- what is kept --------------------------------------------------------------------------------


Trouble = Literal["down", "mute"] | Answer | Action


class UnreliableStore(MemoryStore):
    """A memory store whose commits go wrong as scripted, and which remembers every one.

    Attributes:
        trouble: what the next commits meet: "down" (nothing is written, no answer), "mute" (it is
            applied, but the answer is lost), an `Answer` to refuse with, or an action to take
            before the commit is applied.
        commits: partition, commit and the answer that was heard of each try.
        deferred: whether answers are given only when they are collected, as a server's are.
    """

    def __init__(self, outbox_cap: int = 2_000, *, deferred: bool = False) -> None:
        super().__init__(outbox_cap)
        self.trouble: deque[Trouble] = deque()
        self.commits: list[tuple[int, Commit, Answer | None]] = []
        self.deferred = deferred
        self._under_way: dict[int, Answer | None] = {}

    def commit(self, partition: int, token: str, commit: Commit) -> Answer:
        return self._heard(self._try(partition, token, commit))

    def submit(self, partition: int, token: str, commit: Commit) -> Answer | None:
        if not self.deferred:
            return self.commit(partition, token, commit)
        assert partition not in self._under_way, "one commit at a time"
        self._under_way[partition] = self._try(partition, token, commit)
        return None

    def collect(self, partition: int, token: str, commit: Commit) -> Answer:
        del token, commit
        return self._heard(self._under_way.pop(partition))

    def abandon(self, partition: int) -> None:
        self._under_way.pop(partition, None)

    def _try(self, partition: int, token: str, commit: Commit) -> Answer | None:
        trouble = self.trouble.popleft() if self.trouble else None
        answer: Answer | None = None
        if isinstance(trouble, Answer):
            answer = trouble
        elif trouble != "down":
            if callable(trouble):
                trouble()
            answer = super().commit(partition, token, commit)
        heard = None if trouble == "mute" else answer
        self.commits.append((partition, commit, heard))
        return heard

    def _heard(self, answer: Answer | None) -> Answer:
        if answer is None:
            raise StoreUnavailableError("no answer")
        return answer


# -- what goes out -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """A record that a topic has.

    Attributes:
        chosen: the partition that was asked for; -1 leaves it to the key.
    """

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, str | bytes | None]
    timestamp_ms: int | None = None
    chosen: int = field(default=-1, compare=False)


@dataclass
class RecordingBroker:
    """Topics in memory, and producers that write there.

    Attributes:
        trouble: what the next flushes meet: "refused" (reported as failed, not written), "silent"
            (not written, no report), "unconfirmed" (written, but reported as timed out).
        full: how many of the next calls of `produce` find the queue full.
        limit: bytes of key and value that a producer takes at the most.
        topic_limit: the same of a topic, known only when it refuses.
        producers: those made so far; the last one is in use.
    """

    trouble: deque[str] = field(default_factory=deque)
    full: int = 0
    limit: int = 2 << 20
    topic_limit: int = 2 << 20
    sent: list[Sent] = field(default_factory=list)
    producers: list[RecordingProducer] = field(default_factory=list)
    fatal: bool = False

    def producer(self, options: dict[str, Any]) -> RecordingProducer:
        """Takes the place of ``confluent_kafka.Producer``."""
        made = RecordingProducer(self, options)
        self.producers.append(made)
        return made

    def on(self, topic: str, partition: int | None = None) -> list[Sent]:
        """Records of a topic, in order."""
        return [
            sent
            for sent in self.sent
            if sent.topic == topic and partition in (None, sent.partition)
        ]

    def write(self, sent: Sent) -> int:
        """Append a record; returns its offset."""
        self.sent.append(sent)
        return len(self.on(sent.topic, sent.partition)) - 1


class RecordingProducer:
    """A producer that delivers when it is flushed, or fails as its broker says.

    Attributes:
        dropped: reports of purged records that nobody has taken yet.
    """

    def __init__(self, broker: RecordingBroker, options: dict[str, Any]) -> None:
        self.options = options
        self.purged = False
        self.polls = 0
        self.dropped: list[Callable[[KafkaError | None, Any], None]] = []
        self._broker = broker
        self._queue: list[tuple[Sent, Callable[[KafkaError | None, Any], None]]] = []

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        headers: list[tuple[str, Any]],
        on_delivery: Callable[[KafkaError | None, Any], None],
        timestamp: int | None = None,
    ) -> None:
        if self._broker.fatal:
            raise KafkaException(KafkaError(KafkaError._FATAL))
        if self._broker.full:
            self._broker.full -= 1
            raise BufferError
        if len(value or b"") + len(key or b"") > self._broker.limit:
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        sent = Sent(
            topic, max(partition, 0), key, value, dict(headers), timestamp, chosen=partition
        )
        self._queue.append((sent, on_delivery))

    def poll(self, timeout: float) -> int:
        del timeout
        self.polls += 1
        return 0

    def flush(self, timeout: float) -> int:
        del timeout
        if self.purged:
            dropped, self.dropped = self.dropped, []
            for report in dropped:
                report(KafkaError(KafkaError._PURGE_QUEUE), FakeMessage(None, place=-1))
            return 0
        trouble = self._broker.trouble.popleft() if self._broker.trouble else None
        if trouble == "silent":
            return len(self._queue)
        queue, self._queue = self._queue, []
        for sent, report in queue:
            if trouble == "refused":
                report(KafkaError(KafkaError._MSG_TIMED_OUT), FakeMessage(None, place=-1))
                continue
            if len(sent.value or b"") > self._broker.topic_limit:
                report(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), FakeMessage(None, place=-1))
                continue
            offset = self._broker.write(sent)
            failed = KafkaError(KafkaError._MSG_TIMED_OUT) if trouble == "unconfirmed" else None
            report(failed, FakeMessage(None, place=offset))
        return 0

    def purge(self) -> None:
        self.purged = True
        self.dropped += [report for _, report in self._queue]
        self._queue.clear()
