"""Tells how far a worker's commits are behind its input topics, whenever it is asked.

Comes in: what the worker has committed and what it has in hand; where the topics end, asked of the
broker once a second on a thread of its own. Goes out: lag in seconds and in records, worked out at
the moment of asking, so that it grows while worker, broker or store stand still.

*Lag in seconds* is the age of the oldest record that is not committed, and 0 if there is none. A record in
hand tells its age by its timestamp. The age of one that was not read yet is not known. But the broker is
asked again and again where the topic ends, and every record before an end that is committed by now is
committed too. So no record that is not committed is older than the last question with such an end: the time
since that question is the lag. While the broker does not answer, no later question counts, and the lag
grows.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from confluent_kafka import OFFSET_END, KafkaException, TopicPartition

from stream.metrics import PartitionLag

log = logging.getLogger(__name__)

ASK_SECONDS = 1.0
FRESH_SECONDS = 3.0
"""An end that was asked for longer ago than this proves nothing: one answer in three may be late."""
STATISTICS_MS = 1_000
QUESTIONS = 128
"""Ends kept while a partition is behind: of as many hours they are a minute or two apart."""


class _PartitionStatistics(msgspec.Struct):
    """What is needed of librdkafka's statistics of a topic's partition."""

    hi_offset: int = -1
    next_offset: int = -1
    fetchq_cnt: int = 0


class _TopicStatistics(msgspec.Struct):
    partitions: dict[str, _PartitionStatistics] = {}


class _Statistics(msgspec.Struct):
    """Made at `time`, in whole seconds since 1970."""

    time: int = 0
    topics: dict[str, _TopicStatistics] = {}


@dataclass
class _Source:
    """One topic's partition.

    Attributes:
        committed: next offset that is not committed.
        began_ms: when it was taken over, or found to be nobody's.
        since_ms: no record that is not committed was appended before; at first `began_ms`.
        known: whether the broker ever bore witness to `since_ms`.
        asked_ms: when the end was asked for that was answered last; 0 for never.
        end: by that answer.
        high: the end, by the fetches of the consumer. The local broker's answers to a question are
            behind it; where nothing is fetched it stays behind them.
        drained: the consumer handed over everything before this offset; 0 if that is not known.
        in_hand_ms: oldest timestamp of what was taken up and is not committed; 0 for nothing.
        questions: ends beyond `committed`, with the time at which each was asked for; the newest is
            always the last.
        apart_ms: how far the others are apart at least.
    """

    committed: int
    began_ms: int
    since_ms: int
    known: bool = False
    asked_ms: int = 0
    end: int = 0
    high: int = 0
    drained: int = 0
    in_hand_ms: int = 0
    questions: deque[tuple[int, int]] = field(default_factory=deque)
    apart_ms: int = 0

    @property
    def records(self) -> int:
        return max(self.end, self.high, self.committed) - self.committed

    def commit(self, offset: int) -> None:
        """Everything before an offset is committed, or is no record."""
        self.committed = offset
        while self.questions and self.questions[0][0] <= offset:
            _, self.since_ms = self.questions.popleft()
            self.known = True

    def answer(self, end: int, asked_ms: int) -> None:
        self.end, self.asked_ms = end, asked_ms
        if not self.questions:
            self.apart_ms = 0
        elif len(self.questions) > 1 and asked_ms - self.questions[-2][1] < self.apart_ms:
            self.questions.pop()
        elif len(self.questions) >= QUESTIONS:
            self.questions = deque(list(self.questions)[1::2])
            self.apart_ms = max(2 * self.apart_ms, 2 * (asked_ms - self.questions[-1][1]))
        self.questions.append((max(end, self.high), asked_ms))
        self.commit(self.committed)

    def seconds(self, now_ms: int) -> float:
        most = (now_ms - self.since_ms) / 1_000
        if self.in_hand_ms:
            age = (now_ms - self.in_hand_ms) / 1_000
            # A timestamp may be of history, but a record waits no longer than it has been there. Or it may
            # be of the future.
            if age < 0 or (self.known and age > most):
                age = most
            return max(age, 0.0)
        fresh = now_ms - self.asked_ms <= FRESH_SECONDS * 1_000
        return 0.0 if fresh and not self.records else max(most, 0.0)


class LagMeter:
    """What a worker owns, and how far behind it is; safe to use from any thread.

    An outage ends the worker, and another worker takes its place afterwards. What the first one owned stays
    here, because its lag goes on growing. If another process has taken the partitions over, that one knows
    better: of several lags the least is true.
    """

    def __init__(self, topics: Sequence[str], wall_ms: Callable[[], int]) -> None:
        self._left_behind = False
        self._topics = topics
        self._wall_ms = wall_ms
        self._lock = threading.Lock()
        self._sources: dict[int, list[_Source]] = {}

    # -- from the worker --

    def watch(self, partition: int, offsets: Sequence[int]) -> None:
        """A partition is ours to answer for from now on, committed up to these offsets."""
        now = self._wall_ms()
        with self._lock:
            self._sources[partition] = [_Source(offset, now, now) for offset in offsets]

    def forget(self, partition: int) -> None:
        """A partition is ours no more."""
        with self._lock:
            if not self._left_behind:
                self._sources.pop(partition, None)

    def leave_behind(self) -> None:
        """Whatever is owned by now stays uncommitted until somebody else takes it over."""
        self._left_behind = True

    def taken(self, partition: int, topic: int, oldest_ms: int) -> None:
        """Records of a topic were taken up, the oldest of this time; 0 if nobody knows."""
        with self._lock:
            source = self._sources[partition][topic]
            source.in_hand_ms = source.in_hand_ms or oldest_ms

    def committed(self, partition: int, offsets: Sequence[int]) -> None:
        """Whatever was taken up is committed."""
        with self._lock:
            for source, offset in zip(self._sources[partition], offsets, strict=True):
                source.in_hand_ms = 0
                # Behind the committed records come only marks that end transactions; those were passed
                # already.
                source.commit(max(offset, source.committed))

    def stranded(self, partition: int, offsets: Sequence[int]) -> None:
        """A partition is assigned to us, and we do not read it; somebody committed up to here."""
        if partition in self._sources:
            self.committed(partition, offsets)
        else:
            self.watch(partition, offsets)

    def read(self, partition: int, offsets: Sequence[int]) -> None:
        """These are the next offsets to come, all of what the consumer gave being counted.

        Where nothing is uncommitted, what it has skipped since holds no record: the marks at the
        ends of transactions, and what was aborted.
        """
        with self._lock:
            for source, offset in zip(self._sources[partition], offsets, strict=True):
                if offset <= source.committed < source.drained:
                    source.commit(source.drained)
                source.drained = 0

    # -- from the broker --

    def places(self) -> list[tuple[str, int]]:
        """Topic and partition of everything that is watched."""
        with self._lock:
            return [(topic, number) for number in self._sources for topic in self._topics]

    def ends(self, asked_ms: int, ends: Mapping[tuple[str, int], int]) -> None:
        """Where topics' partitions end, or ended soon after this time."""
        with self._lock:
            for (topic, number), end in ends.items():
                if (sources := self._sources.get(number)) is not None:
                    sources[self._topics.index(topic)].answer(end, asked_ms)

    def statistics(self, text: str) -> None:
        """Librdkafka's statistics; a ``stats_cb``."""
        try:
            found = msgspec.json.decode(text, type=_Statistics)
        except msgspec.DecodeError as error:
            log.debug("statistics that cannot be read: %s", error)
            return
        with self._lock:
            for index, topic in enumerate(self._topics):
                told = found.topics.get(topic, _TopicStatistics()).partitions
                for number, sources in self._sources.items():
                    if (one := told.get(str(number))) is not None:
                        source = sources[index]
                        source.high = max(one.hi_offset, 0)
                        # Just after a take-over the statistics may still be of the time before it.
                        settled = found.time * 1_000 > source.began_ms + STATISTICS_MS
                        drained = settled and not one.fetchq_cnt
                        source.drained = max(one.next_offset, 0) if drained else 0

    # -- to whoever asks --

    def lags(self) -> Iterable[PartitionLag]:
        """How far behind every watched partition is, now."""
        now = self._wall_ms()
        with self._lock:
            return [
                PartitionLag(
                    number,
                    max(source.seconds(now) for source in sources),
                    {t: source.records for t, source in zip(self._topics, sources, strict=True)},
                )
                for number, sources in self._sources.items()
            ]


class Ends(Protocol):
    """What is needed of a `confluent_kafka.Consumer`."""

    def offsets_for_times(
        self, partitions: list[TopicPartition], timeout: float = ...
    ) -> list[TopicPartition]: ...


class EndsWatch:
    """Asks the broker once a second where the topics end, on a thread of its own.

    The thread waits for a broker that does not answer; the worker must not. Stop it before the
    consumer is closed.
    """

    def __init__(self, consumer: Ends, meter: LagMeter, wall_ms: Callable[[], int]) -> None:
        self._consumer = consumer
        self._meter = meter
        self._wall_ms = wall_ms
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lag", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def ask(self) -> None:
        """Ask once; an answer that does not come in time is none."""
        asked_ms = self._wall_ms()
        places = [TopicPartition(*place, OFFSET_END) for place in self._meter.places()]
        if not places:
            return
        try:
            found = self._consumer.offsets_for_times(places, timeout=ASK_SECONDS)
        except KafkaException as error:
            log.debug("the broker does not say where topics end: %s", error)
            return
        self._meter.ends(
            asked_ms,
            {(w.topic, w.partition): w.offset for w in found if w.error is None and w.offset >= 0},
        )

    def _watch(self) -> None:
        while not self._stop.wait(ASK_SECONDS):
            self.ask()


def statistics_options(meter: LagMeter) -> dict[str, Any]:
    """Options that let a consumer's own statistics reach the meter."""
    return {"statistics.interval.ms": STATISTICS_MS, "stats_cb": meter.statistics}
