"""Turns clicks and purchases into saved features and recorded changes.

Comes in: bytes from Kafka, of the partitions this worker owns. Goes out: one commit after the
other to the store, refused messages to the dead letters. `decode` makes columns of the bytes,
`stream.partition` makes commits of the columns; the outbox is the publisher's.

Live mode gathers for some milliseconds, folds, looks at who acted, and sweeps everyone on a
tick. Watermark mode gathers from mark to mark: when both topics of a partition have reached a
mark, everything before it is folded, everyone is looked at as of the mark, and the partition
goes on when the trainer has completed the round of that mark. So what it does depends on the
log alone, not on when or in what portions it was read.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from consumers.client import activity_options, membership
from consumers.clock import SteadyClock
from consumers.decode import Batch, Block, Decoder, Reject
from consumers.group_namespace import client_id, see_group
from consumers.lag import EndsWatch, LagMeter, statistics_options
from consumers.placement import Placement
from consumers.rejects import RejectGuard, TooManyRejectsError
from consumers.topic_watch import TopicWatch, see_same_topics
from consumers.watermark import time_reached
from stream import metrics
from stream.config import ConfigError, Settings
from stream.errors import (
    BrokerUnavailableError,
    OffsetOutOfRangeError,
    TopicMissingError,
    kafka_client,
)
from stream.events import Counts, EventColumns, Reason
from stream.features import starts_of
from stream.hashing import key_print
from stream.health import Health, Pulse
from stream.learning.state import TrainerState
from stream.learning.statistics import PartitionStatistics
from stream.marks import MarkSigner
from stream.memory import Memory
from stream.model import Model
from stream.namespace import more, see_counts, see_partitions
from stream.partition import Acting, Delivered, Partition, SampleRequest, act_together
from stream.store.promises import OwnerStore
from stream.store.state import Answer, Commit, Position, StoreUnavailableError

log = logging.getLogger(__name__)

CONSUME = 1_000
"""Messages taken at once: numpy's cost a call is spread over them, and they still fit the cache."""
POLL_SECONDS = 0.001
"""Between two looks at what somebody else has to do: a commit, a round. Kafka's finest clock."""
RETRY_SECONDS = 0.05
ROUND_CHECK_SECONDS = 0.25
"""Between two looks for a round that nobody waits for: a model is used that much later at most."""
LIST_SECONDS = 15.0
SETTLED_SECONDS = 60.0
"""A worker that has no partitions by now gets none, and others have them."""
WAIT_CHECK_SECONDS = 1.0
"""Longer than any round takes, so that it costs nothing while all is well."""
SLICE = 512
"""Users at least looked at in a turn of a sweep: with fewer, numpy's calls cost more than they do."""
SWEEP_SHARE = 0.5
"""Of the time between two sweeps, for one sweep; the rest is reserve."""
LOAD_SHARE_SECONDS = 0.01
"""Of a turn, to load users of a partition just taken over, while others are served."""
LOAD_ALONE_SECONDS = 0.5
"""Of a turn, for the same while nobody is served, or a rebalance waits for us."""
LOOK_AROUND_SECONDS = 1.0
"""Between two looks at how far the output is delivered."""
SLOW_SECONDS = 0.5
"""A broker that takes longer to say where a partition ends may hold records back."""

LOST_REMEDY = (
    "Restore the store from its backup; or set store.accept_loss to start this partition anew from "
    "what the log still holds"
)


class StateLostError(Exception):
    """The store has lost a partition's state; the message says what can be done."""


class OutputTopic(Protocol):
    """What an owner asks of Kafka beside its input; `consumers.output.Output` answers."""

    def tails(self, starts: Mapping[int, int]) -> dict[int, list[Delivered]]: ...
    def topic_ids(self, names: Sequence[str]) -> list[str]: ...
    def group_members(self) -> list[str]: ...


class DeadLetterSink(Protocol):
    """Files refused messages; returns when they are safe."""

    def file(self, refused: Sequence[Reject]) -> None: ...


@dataclass
class _Stretch:
    """What one topic of a partition brought up to a mark, or so far.

    Attributes:
        mark_ms: the mark that closes it; 0 while it is open.
        sent_ms: wall clock at which that mark was sent.
        next_offset: to read after what there is; 0 if nothing was read yet.
    """

    batches: list[Batch] = field(default_factory=list)
    mark_ms: int = 0
    sent_ms: int = 0
    next_offset: int = 0


@dataclass
class _Owned:
    """A partition this worker owns, and what of it is under way.

    Attributes:
        offsets: next offset to read that is not yet part of a commit, by topic.
        live: batches waiting to be folded (live mode).
        stretches: by topic, closed stretches and one open one at the end; live mode knows no
            marks, so there the open one only tells how far has been read.
        waiting: a commit that the store could not take yet.
        after: what to do when it has been taken.
        awaiting_round: the mark whose trainer round must be completed before going on, or 0.
        consumed: what became of the messages of the waiting commit; None if it has none.
        refused: why some of them were refused.
        paused: topics that are not read for now.
        read_on: when a topic may be read on whose letters came too fast, by the monotonic clock.
        gathered: events read and not yet folded.
    """

    partition: Partition
    token: str
    offsets: list[int]
    live: list[Batch] = field(default_factory=list)
    stretches: tuple[deque[_Stretch], deque[_Stretch]] = field(
        default_factory=lambda: (deque([_Stretch()]), deque([_Stretch()]))
    )
    waiting: Commit | None = None
    submitted: bool = False
    waiting_since: float = 0.0
    next_try: float = 0.0
    after: Callable[[], None] | None = None
    consumed: Counts | None = None
    refused: Counter[Reason] = field(default_factory=Counter)
    awaiting_round: int = 0
    next_check: float = 0.0
    swept: float = 0.0
    sliced: float = 0.0
    sweeping_for: float = 0.0
    paused: set[int] = field(default_factory=set)
    read_on: list[float] = field(default_factory=lambda: [0.0, 0.0])
    gathered: int = 0
    read_at: float = 0.0
    committing_since: float = 0.0

    def newest_mark(self, topic: int) -> int:
        """The newest mark that was read of a topic, or has been reached."""
        stretches = self.stretches[topic]
        read = stretches[-2].mark_ms if len(stretches) > 1 else 0
        return max(read, self.partition.position.mark_ms)


@dataclass
class _Loading:
    """A partition that was taken over, and whose users are being loaded.

    Attributes:
        stored: users left to load.
        orders: orders left to load.
        tail: what the output has that the state may not know of.
        wait_to_read: whether its topics are paused, and not where the state is.
    """

    partition: Partition
    token: str
    stored: Iterator[tuple[bytes, bytes]]
    orders: Iterator[tuple[int, bytes, bytes]]
    tail: Sequence[Delivered]
    wait_to_read: bool = False


class ActivityWorker:
    """One member of the group of activity workers.

    `run` ends when `stop` says so, or with an error: `StoreUnavailableError`,
    `BrokerUnavailableError` and `TopicMissingError` ask to be started again later, any other asks
    for a person.
    """

    def __init__(
        self,
        settings: Settings,
        store: OwnerStore,
        dead_letters: DeadLetterSink,
        output: OutputTopic,
        health: Health,
        pulse: Pulse,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._settings = settings
        self._store = store
        self._dead_letters = dead_letters
        self._output = output
        self._health = health
        self._pulse = pulse
        self._wall_ms = wall_ms
        self._clock = SteadyClock(wall_ms, time.monotonic)
        self._table = settings.table()
        self._memory = Memory(settings.worker.limits())
        self._guard = RejectGuard(settings.worker, settings.topics, time.monotonic)
        self._placement = Placement(settings.topics.partitions, settings.worker.misplaced)
        self._rule = settings.publish.rule()
        self._topics = settings.topics.inputs
        self._by_marks = settings.clock.mode == "watermark"
        signer = MarkSigner(store.namespace_key()) if self._by_marks else None
        self._decoder = Decoder(
            self._table, settings.worker, signer, settings.clock.mark_seconds, settings.money
        )
        log.info("decoder: %s", self._decoder.way)
        self._assigned: set[tuple[str, int]] = set()
        self._owned: dict[int, _Owned] = {}
        self._held: list[Any] = []
        self._unfiled: list[Reject] = []
        self._late_pairs: dict[int, float] = {}
        self._suspect: set[int] = set()
        self._settling: set[int] = set()
        self._loading: dict[int, _Loading] = {}
        self._asked = 0.0
        self._looked_around = 0.0
        self._topic_watch = TopicWatch(settings, output)
        self._failure: Exception | None = None
        self._round = 0
        self._trainer = TrainerState()
        self._round_checked = 0.0
        self._protocol = "consumer"
        self._progress: dict[int, Position] = {}
        self._shown = 0.0
        self._lag = LagMeter(self._topics, wall_ms)
        self._lag_told = 0.0

    # -- the loop -----------------------------------------------------------------------------

    def run(self, stop: Callable[[], bool]) -> None:
        """Own and serve partitions until told to stop."""
        self._protocol = membership(self._settings.broker)
        self._refresh_model()
        name = client_id(self._settings.store.namespace)
        options = activity_options(self._settings.broker, self._protocol, name)
        consumer = kafka_client(Consumer, statistics_options(self._lag) | options)
        watch = EndsWatch(consumer, self._lag, self._wall_ms)
        began, tells = time.monotonic(), False
        try:
            watch.start()
            self._see_partitions(consumer)
            see_group(self._settings, self._output.group_members())
            consumer.subscribe(
                list(self._topics),
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
            self._health.ready(True, part="activity")
            while not stop():
                self._turn(consumer)
                # Until there is something to tell, whoever was left behind by an outage tells.
                if not tells and (self._lag.places() or time.monotonic() - began > SETTLED_SECONDS):
                    metrics.lag_told_by(self._lag.lags)
                    tells = True
            self._finish(consumer)
            metrics.lag_told_by(None)
        except KafkaException as error:
            self._lag.leave_behind()
            raise BrokerUnavailableError(str(error.args[0])) from error
        except (BrokerUnavailableError, StoreUnavailableError, TopicMissingError):
            self._lag.leave_behind()
            raise
        finally:
            for number in [*self._owned, *self._loading]:
                self._forget(number)
            self._assigned.clear()
            watch.stop()
            consumer.close()

    def _see_partitions(self, consumer: Consumer) -> None:
        """Whether topics, settings and namespace have one number of partitions.

        Raises:
            ConfigError: they have not.
        """
        listed = consumer.list_topics(timeout=LIST_SECONDS).topics
        found = {t: len(listed[t].partitions) for t in self._topics if t in listed}
        see_counts(self._settings, found, self._store.partitions())
        see_partitions(self._settings, self._store.begin(self._settings.topics.partitions))

    def _turn(self, consumer: Consumer) -> None:
        """Gather for a moment, then do whatever is due."""
        worker = self._settings.worker
        deadline = time.monotonic() + worker.batch_seconds
        most = min(worker.batch_events, worker.buffer_events)
        gathered = 0
        while True:
            left = deadline - time.monotonic()
            waits = any(o.awaiting_round or o.waiting for o in self._owned.values())
            patience = min(left, POLL_SECONDS) if waits else left
            messages = consumer.consume(CONSUME, max(patience, 0.0))
            self._raise_failure()
            self._held += messages
            # With a backlog, whole blocks come at once: a larger batch then costs less an event,
            # because a user who comes twice in it is looked at and written once.
            if len(self._held) >= CONSUME:
                gathered += self._sort()
            behind = len(messages) == CONSUME and not self._by_marks
            if gathered >= most or (left <= POLL_SECONDS and not behind):
                break
            if self._are_letters_too_fast():
                break
            if waits and self._by_marks:
                break
            if waits:
                for number in list(self._owned):
                    self._serve(number, self._collect)
        self._sort()
        self._guard.calm()
        self._pulse.beat()
        self._pair_up(consumer)
        self._look_for_round()
        self._step(list(self._owned), consumer)
        self._show_progress(consumer)
        self._look_around()
        self._tell_lag()

    def _serve(
        self, number: int, what: Callable[..., object], *arguments: Any, **options: Any
    ) -> None:
        """Do something for a partition; drop it if the store says that it is another's."""
        try:
            what(self._owned[number], *arguments, **options)
        except _NotOursError as error:
            self._drop(number, error)

    def _drop(self, number: int, error: _NotOursError) -> None:
        """Drop a partition; take it over again later, if it is still assigned."""
        log.warning("partition %d: %s", number, error)
        self._forget(number)
        if not error.fenced:
            self._suspect.add(number)
        if all((topic, number) in self._assigned for topic in self._topics):
            patience = self._settings.broker.session_timeout_seconds if error.fenced else 0.0
            self._late_pairs[number] = time.monotonic() + patience

    def _step(self, numbers: Sequence[int], consumer: Consumer) -> None:
        """What is due for some partitions, once the letters of all that was read are safe."""
        self._file_letters()
        for number in numbers:
            self._serve(number, self._collect)
        free = [o for o in self._here(numbers) if o.waiting is None]
        if self._by_marks:
            for owned in free:
                self._serve(owned.partition.number, self._march)
        elif free:
            self._step_live(free)
        for owned in self._here(numbers):
            self._throttle(owned, consumer)

    def _here(self, numbers: Sequence[int]) -> list[_Owned]:
        """Those of some partitions that are still owned."""
        return [self._owned[number] for number in numbers if number in self._owned]

    def _finish(self, consumer: Consumer) -> None:
        """Commit what is gathered (live mode) before leaving; nothing depends on it."""
        deadline = time.monotonic() + self._settings.store.timeout_seconds
        for number in list(self._owned):
            self._drain(number, consumer, deadline)

    def _drain(self, number: int, consumer: Consumer, deadline: float) -> None:
        """Fold and commit what a partition has gathered, as far as a deadline allows."""
        while time.monotonic() < deadline and (owned := self._owned.get(number)) is not None:
            if owned.waiting is None and (self._by_marks or not owned.live):
                return
            self._step([number], consumer)
            if owned.waiting is not None:
                time.sleep(POLL_SECONDS)

    # -- live mode ----------------------------------------------------------------------------

    def _step_live(self, free: Sequence[_Owned]) -> None:
        """Fold what was gathered, look at who acted and at some of the others, and commit.

        Sweeps and adoptions go on a slice a turn: whoever acts meanwhile need not wait for a look
        at everyone, nor their changes behind those of everyone. What a person applied is adopted
        whole: one commit has everyone as they were, the next everyone as was planned.
        """
        now = self._clock.now_ms()
        # Another worker's clock, or this machine's before it was set, may have been ahead.
        by_time: dict[int, list[_Owned]] = {}
        for owned in free:
            by_time.setdefault(max(now, owned.partition.position.clock_ms), []).append(owned)
        for time_ms, those in by_time.items():
            self._step_live_at(time_ms, those)

    def _step_live_at(self, now: int, free: Sequence[_Owned]) -> None:
        """The same, of partitions that have one time."""
        whole = {owned.partition.number for owned in free if self._begin_sweep(owned, now)}
        known = self._act([owned for owned in free if owned.live], now)
        for owned in free:
            number = owned.partition.number
            counts = known.get(number)
            self._serve(number, self._commit_live, counts, now, whole=number in whole)

    def _begin_sweep(self, owned: _Owned, now: int) -> bool:
        """Begin the sweep or the adoption that is due; True if everyone was looked at at once."""
        partition = owned.partition
        model = self._newer_model(partition)
        if model is None:
            since = time.monotonic() - owned.swept
            if partition.sweeping is None and since >= self._settings.worker.sweep_seconds:
                partition.begin_sweep(self._sample_request(now))
                owned.swept = owned.sliced = time.monotonic()
            return False
        if whole := _cuts_over(partition, model):
            partition.adopt(model, now, now)
        else:
            partition.begin_adoption(model)
        metrics.model_adopted(model.epoch, model.version)
        owned.sliced = time.monotonic()
        return whole

    def _commit_live(self, owned: _Owned, counts: Counts | None, now: int, *, whole: bool) -> None:
        """Go on with the sweep under way, and commit what there is."""
        partition = owned.partition
        sweeping = partition.sweeping is not None
        statistics = self._slice(owned, now) if sweeping else None
        through = whole or (sweeping and partition.sweeping is None)
        if counts is not None or through or partition.uncommitted:
            commit = partition.commit(owned.offsets, counts or Counts(), now, statistics=statistics)
            self._begin_commit(owned, commit, counts)

    def _act(self, those: Sequence[_Owned], now: int) -> dict[int, Counts]:
        """Fold what was gathered and look at who acted; what became of it, by partition."""
        if not those:
            return {}
        acting: list[Acting] = []
        known: dict[int, Counts] = {}
        for owned in those:
            partition = owned.partition
            batches, owned.live = owned.live, []
            owned.gathered = 0
            known[partition.number] = self._settle(owned, batches)
            events = EventColumns.concatenate([batch.columns(partition) for batch in batches])
            for batch in batches:
                self._lag.taken(partition.number, batch.topic, batch.oldest_ms)
            oldest = min((b.oldest_ms for b in batches if b.oldest_ms), default=now)
            acting.append(Acting(partition, events, oldest))
        for counts, duplicates in zip(known.values(), act_together(acting, now), strict=True):
            counts.applied -= duplicates
            counts.duplicate += duplicates
        return known

    def _slice(self, owned: _Owned, now: int) -> PartitionStatistics | None:
        """Look at as many users as the sweep under way needs to be through in half its time.

        Returns:
            What a sweep that is through tells the trainer; an adoption tells nothing.
        """
        partition, started = owned.partition, time.monotonic()
        adopting = partition.adopting
        elapsed, owned.sliced = started - owned.sliced, started
        share = elapsed / (self._settings.worker.sweep_seconds * SWEEP_SHARE)
        users = max(SLICE, int((partition.sweeping or 0) * share))
        statistics = partition.sweep_on(users, now, now)
        owned.sweeping_for += time.monotonic() - started
        if statistics is not None:
            metrics.swept(owned.sweeping_for)
            metrics.users_counted(partition.number, len(partition), *partition.remembered)
            owned.sweeping_for = 0.0
        return None if adopting else statistics

    # -- watermark mode -----------------------------------------------------------------------

    def _march(self, owned: _Owned) -> None:
        """Take the partition on, from mark to mark, as far as it can go."""
        while self._step_to_mark(owned):
            pass

    def _step_to_mark(self, owned: _Owned) -> bool:
        """Take the partition one step on; False if it has to wait for something."""
        partition = owned.partition
        if owned.waiting is not None:
            return False
        if owned.awaiting_round:
            return self._complete_round(owned)
        heads = [stretches[0].mark_ms for stretches in owned.stretches]
        if 0 in heads:
            return self._go_by_events(owned)
        mark = min(heads)
        batches: list[Batch] = []
        sent = 0
        for topic, stretches in enumerate(owned.stretches):
            if stretches[0].mark_ms == mark:
                stretch = stretches.popleft()
                batches.extend(stretch.batches)
                owned.offsets[topic] = stretch.next_offset
                sent = max(sent, stretch.sent_ms)
                self._lag.taken(partition.number, topic, stretch.sent_ms)
        counts = self._settle(owned, batches)
        events = EventColumns.concatenate([batch.columns(partition) for batch in batches])
        owned.gathered -= len(events)
        started = time.monotonic()
        touched, duplicates = partition.fold(events)
        counts.applied -= duplicates
        counts.duplicate += duplicates
        sample = self._sample_request(mark)
        statistics = partition.sweep(mark, sent, acted=touched, sample=sample)
        metrics.swept(time.monotonic() - started)
        metrics.users_counted(partition.number, len(partition), *partition.remembered)
        commit = partition.commit(owned.offsets, counts, mark, mark_ms=mark, statistics=statistics)

        def await_round() -> None:
            owned.awaiting_round = mark
            owned.next_check = time.monotonic() + WAIT_CHECK_SECONDS

        self._begin_commit(owned, commit, counts, await_round)
        return owned.waiting is None

    def _complete_round(self, owned: _Owned) -> bool:
        """Adopt the model of the round the partition waits for, once it is there."""
        mark, partition = owned.awaiting_round, owned.partition
        if self._round < mark:
            self._see_that_it_is_there(owned)
            return False
        owned.awaiting_round = 0
        model = self._newer_model(partition)
        return True if model is None else self._adopt(owned, model, mark, round_ms=mark)

    def _adopt(
        self,
        owned: _Owned,
        model: Model,
        now_ms: int,
        *,
        clock_ms: int | None = None,
        round_ms: int | None = None,
    ) -> bool:
        """Look at everyone under a model, in a commit of its own; True once it is applied.

        Args:
            clock_ms: the time of the partition, if it is another.
        """
        partition = owned.partition
        partition.adopt(model, now_ms, self._wall_ms())
        metrics.model_adopted(model.epoch, model.version)
        reached_ms = now_ms if clock_ms is None else clock_ms
        commit = partition.commit(owned.offsets, Counts(), reached_ms, round_ms=round_ms)
        self._begin_commit(owned, commit)
        return owned.waiting is None

    def _see_that_it_is_there(self, owned: _Owned) -> None:
        """Ask a waiting partition's state, now and then, for what a commit would find out.

        If the store forgot or rolled back, the trainer has no statistics of this mark any more:
        the round would never come, and who waits for it would never commit and never know.

        Raises:
            StateLostError: the state is gone.
            _NotOursError: the state is that of an earlier mark.
        """
        now = time.monotonic()
        if now < owned.next_check:
            return
        owned.next_check = now + WAIT_CHECK_SECONDS
        number = owned.partition.number
        try:
            position = self._store.position(number)
        except StoreUnavailableError:
            metrics.store_missed()
            return
        if position is None:
            raise self._lost(number)
        if position.mark_ms < owned.awaiting_round:
            raise _NotOursError(Answer.DIVERGED)

    def _go_by_events(self, owned: _Owned) -> bool:
        """A log without marks: now and then, fold what is there, as of the newest event.

        A model is adopted when it is found, as of the newest event that has been folded. A log
        with marks begins with one (`replay` sees to it), so it never comes here.
        """
        partition = owned.partition
        if partition.position.mark_ms or any(s[0].mark_ms for s in owned.stretches):
            return False
        model = self._newer_model(partition)
        if model is not None and len(partition):
            reached, now = self._time_by_events(partition)
            return self._adopt(owned, model, now, clock_ms=reached)
        if not owned.gathered:
            return False
        waited = time.monotonic() - owned.read_at
        limit = self._settings.worker.buffer_events
        if waited < self._settings.clock.idle_seconds and owned.gathered < limit:
            return False
        batches: list[Batch] = []
        for topic, stretches in enumerate(owned.stretches):
            stretch = stretches[0]
            batches.extend(stretch.batches)
            stretch.batches = []
            if stretch.next_offset:
                owned.offsets[topic] = stretch.next_offset
        owned.gathered = 0
        counts = self._settle(owned, batches)
        events = EventColumns.concatenate([batch.columns(partition) for batch in batches])
        touched, duplicates = partition.fold(events)
        counts.applied -= duplicates
        counts.duplicate += duplicates
        reached, now = self._time_by_events(partition)
        statistics = partition.sweep(
            now, self._wall_ms(), acted=touched, sample=self._sample_request(now)
        )
        commit = partition.commit(owned.offsets, counts, reached, statistics=statistics)
        self._begin_commit(owned, commit, counts)
        return False

    def _time_by_events(self, partition: Partition) -> tuple[int, int]:
        """The time that a partition without marks has reached, and as of when to look at its users.

        With too few users to tell, it has reached none, and they are looked at as of the newest.
        """
        newest = partition.rows["seen"]
        reached = time_reached(newest, self._settings.clock.guard_users)
        reached = max(reached, partition.position.clock_ms)
        return reached, reached or int(newest.max())

    # -- back-pressure ------------------------------------------------------------------------

    def _throttle(self, owned: _Owned, consumer: Consumer) -> None:
        """Pause the topics of a partition that holds too much, resume them at half of that.

        A topic whose letters came too fast is paused as well, for as long as they take at the rate
        that is allowed. The other topic and the other partitions go on. The consumer itself is
        polled on: a paused member stays a member.
        """
        limit, now = self._settings.worker.buffer_events, time.monotonic()
        for topic, name in enumerate(self._topics):
            where = [TopicPartition(name, owned.partition.number)]
            can_wait = self._can_wait(owned, topic)
            too_fast = owned.read_on[topic] > now
            if topic not in owned.paused and (too_fast or (can_wait and owned.gathered > limit)):
                consumer.pause(where)
                owned.paused.add(topic)
                if too_fast:
                    metrics.reading_slowed()
            elif (
                topic in owned.paused
                and not too_fast
                and (not can_wait or owned.gathered <= limit // 2)
            ):
                consumer.resume(where)
                owned.paused.discard(topic)

    def _are_letters_too_fast(self) -> bool:
        """Whether a topic that is being read should not be, for letters came too fast."""
        now = time.monotonic()
        return any(
            until > now and topic not in owned.paused
            for owned in self._owned.values()
            for topic, until in enumerate(owned.read_on)
        )

    def _can_wait(self, owned: _Owned, topic: int) -> bool:
        """Whether the partition goes on without more of a topic, or could not go on with more.

        From mark to mark it goes on when both topics have reached one: a topic that has not must
        be read, however much of the other is there.
        """
        stuck = owned.waiting is not None or owned.awaiting_round > 0
        return stuck or not self._by_marks or owned.stretches[topic][0].mark_ms > 0

    # -- messages -----------------------------------------------------------------------------

    def _sort(self) -> int:
        """Decode what is held, and give it to the partitions; returns how many messages."""
        messages, self._held = self._held, []
        errors = [message.error() for message in messages]
        if any(error is not None for error in errors):
            messages = [m for m, error in zip(messages, errors, strict=True) if error is None]
            for error in errors:
                if error is not None:
                    self._judge_error(error)
        if not messages:
            return 0
        # Decoding is done once for all of them: numpy's calls cost the same for one or a hundred.
        topics = list(map(self._topics.index, [message.topic() for message in messages]))
        pairs = np.array([message.partition() for message in messages]) * 2 + np.array(topics)
        starts = starts_of(pairs)
        if len(starts) > len(set(pairs[starts].tolist())):
            order = np.argsort(pairs, kind="stable")
            messages, pairs = [messages[place] for place in order.tolist()], pairs[order]
            starts = starts_of(pairs)
        block = self._decoder.decode(messages, self._clock.latest_ms())
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(messages)], strict=True):
            number, topic = divmod(int(pairs[start]), 2)
            owned = self._owned.get(number)
            if owned is not None:
                name = self._topics[topic]
                self._placement.check(owned.partition, number, name, block, start, end)
                self._gather(owned, topic, block, start, end)
        self._watch_rejects(block)
        return len(messages)

    def _watch_rejects(self, block: Block) -> None:
        """See whether refusals pile up.

        Raises:
            TooManyRejectsError: they do, and stopping is what was chosen.
        """
        refused = list(block.rejects.values())
        flood = self._guard.saw(block.refusals(), refused)
        stop = flood is not None and self._settings.worker.on_reject_flood == "stop"
        # Who looks for the reasons shall find the letters, though nothing of this is committed.
        if stop or len(self._unfiled) >= CONSUME:
            self._file_letters()
        if stop:
            raise TooManyRejectsError(
                f"{flood}; mend the producer, raise the limit or set worker.on_reject_flood = "
                "alert, and start again"
            )
        self._guard.alert(flood)
        for (topic, number), letters in Counter(
            (one.message.topic(), one.message.partition()) for one in refused
        ).items():
            owned = self._owned.get(number)
            if owned is not None:
                owned.read_on[self._topics.index(topic)] = self._guard.wait_for(letters)

    def _gather(self, owned: _Owned, topic: int, block: Block, start: int, end: int) -> None:
        """Take in the messages of one topic partition."""
        open_stretch = owned.stretches[topic][-1]
        expected = open_stretch.next_offset or owned.offsets[topic]
        while start < end and block.messages[start].offset() < expected:
            start += 1
        if start == end:
            return
        if not owned.gathered:
            owned.read_at = time.monotonic()
        if not self._by_marks:
            batch = self._batch(block, topic, start, end)
            open_stretch.next_offset = batch.next_offset
            owned.live.append(batch)
            owned.gathered += len(batch.users)
            return
        for cut in [place + 1 for place in sorted(block.marks) if start <= place < end] + [end]:
            if cut == start:
                continue
            batch = self._batch(block, topic, start, cut)
            start = cut
            stretch = owned.stretches[topic][-1]
            stretch.batches.append(batch)
            stretch.next_offset = batch.next_offset
            owned.gathered += len(batch.users)
            for mark, sent in batch.marks:
                # A copy of an older mark, of one that was read but not reached yet as well, is none.
                if mark > owned.newest_mark(topic):
                    stretch.mark_ms, stretch.sent_ms = mark, sent
                    owned.stretches[topic].append(_Stretch(next_offset=stretch.next_offset))

    def _batch(self, block: Block, topic: int, start: int, end: int) -> Batch:
        """Messages of one topic partition; the refused ones among them wait to be filed."""
        batch = block.batch(topic, start, end)
        self._unfiled += batch.rejects
        batch.rejects.clear()
        return batch

    def _file_letters(self) -> None:
        """Put away what was refused, before anything behind it is committed."""
        if self._unfiled:
            self._dead_letters.file(self._unfiled)
            self._unfiled = []

    def _settle(self, owned: _Owned, batches: list[Batch]) -> Counts:
        """Count a step's batches."""
        counts = Counts()
        for batch in batches:
            counts.add(batch.counts)
            owned.refused.update(batch.reasons)
            if not self._by_marks:
                owned.offsets[batch.topic] = batch.next_offset
        return counts

    def _judge_error(self, error: KafkaError) -> None:
        """Ignore what passes by itself; raise what does not."""
        code = error.code()
        if code in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET):  # noqa: SLF001
            raise OffsetOutOfRangeError(
                f"{error.str()}: the log no longer holds what comes after the stored offset; "
                "restore the store from its backup, or start anew under another store.namespace"
            )
        if error.fatal() or code == KafkaError._MAX_POLL_EXCEEDED:  # noqa: SLF001
            raise BrokerUnavailableError(error.str())
        if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED):
            raise BrokerUnavailableError(f"{error.str()} (segstream topics apply creates topics)")
        log.info("broker: %s", error.str())

    # -- commits ------------------------------------------------------------------------------

    def _begin_commit(
        self,
        owned: _Owned,
        commit: Commit,
        counts: Counts | None = None,
        after: Callable[[], None] | None = None,
    ) -> None:
        """Hand a commit to the store; if it cannot take it now, it waits in `owned`."""
        owned.waiting, owned.after = commit, after
        owned.waiting_since, owned.next_try = time.monotonic(), 0.0
        owned.committing_since, owned.consumed = owned.read_at, counts
        self._collect(owned)

    def _collect(self, owned: _Owned) -> bool:
        """Try the waiting commit; True once it has been applied.

        Raises:
            _NotOursError: another owns the partition, or the store is elsewhere than we are.
            StoreUnavailableError: it has not answered until the deadline.
        """
        commit = owned.waiting
        if commit is None:
            return True
        now = time.monotonic()
        if now < owned.next_try:
            return False
        number = owned.partition.number
        answer: Answer | None
        try:
            if owned.submitted:
                owned.submitted = False
                answer = self._store.collect(number, owned.token, commit)
            else:
                answer = self._store.submit(number, owned.token, commit)
        except StoreUnavailableError:
            if now - owned.waiting_since > self._settings.store.commit_deadline_seconds:
                raise
            metrics.store_missed()
            owned.next_try = time.monotonic() + RETRY_SECONDS
            self._health.ready(False, "the store does not answer", part="activity")
            return False
        if answer is None:
            # While the store is at it, the next batch is read and decoded.
            owned.submitted = True
            return False
        metrics.commit_answered(answer)
        match answer:
            case Answer.OK | Answer.APPLIED:
                owned.waiting = None
                owned.partition.committed(commit)
                self._tell_applied(owned)
                self._lag.committed(number, commit.position.offsets)
                self._progress[number] = commit.position
                self._health.ready(True, part="activity")
                if owned.after is not None:
                    owned.after()
                return True
            case Answer.FULL:
                owned.next_try = time.monotonic() + RETRY_SECONDS
                owned.waiting_since = now
                return False
            case Answer.LOST:
                raise self._lost(number)
            case Answer.FENCED | Answer.DIVERGED:
                raise _NotOursError(answer)

    def _lost(self, number: int) -> Exception:
        """What to do about a state that is gone: to begin anew, where that may be, or to stop."""
        accepted = self._settings.store.accept_loss
        return _NotOursError(Answer.LOST) if accepted else _state_lost(number)

    def _tell_applied(self, owned: _Owned) -> None:
        """Count what a commit brought: now, for one that is refused is made again."""
        if owned.consumed is not None:
            metrics.events_consumed(owned.consumed)
            metrics.batch_committed(time.monotonic() - owned.committing_since)
        for reason, times in owned.refused.items():
            metrics.message_rejected(reason, times)
        owned.consumed = None
        owned.refused.clear()

    def _tell_lag(self) -> None:
        """Once a second, tell the meter what was read, and what is assigned and not owned."""
        now = time.monotonic()
        if now - self._lag_told < 1.0:
            return
        self._lag_told = now
        for number, owned in self._owned.items():
            opened = [stretches[-1].next_offset for stretches in owned.stretches]
            self._lag.read(number, [a or b for a, b in zip(opened, owned.offsets, strict=True)])
        for number in {number for _, number in self._assigned} - self._owned.keys():
            try:
                position = self._store.position(number)
            except StoreUnavailableError:
                return
            if position is not None:
                self._lag.stranded(number, position.offsets)

    # -- the trainer's rounds -----------------------------------------------------------------

    def _look_for_round(self) -> None:
        """Fetch the trainer's state when it has completed another round.

        Who waits for a round looks at every turn, who does not now and then; and between two
        marks nobody looks, for there is no round that they could use.
        """
        now = time.monotonic()
        owned = self._owned.values()
        if not any(one.awaiting_round for one in owned):
            if self._by_marks and all(one.partition.position.mark_ms for one in owned):
                return
            if now - self._round_checked < ROUND_CHECK_SECONDS:
                return
        self._round_checked = now
        try:
            self._refresh_model()
        except StoreUnavailableError:
            metrics.store_missed()

    def _refresh_model(self) -> None:
        if self._store.round() == self._round:
            return
        found = self._store.model()
        if found is None:
            # The store rolled back to before the first round.
            self._round, self._trainer = 0, TrainerState()
            return
        state = TrainerState.unpack(found[1])
        if state.model is not None and state.model.schema != self._table.schema:
            log.warning("the trainer's model is of another feature table; not adopted")
            return
        self._round, self._trainer = found[0], state

    def _newer_model(self, partition: Partition) -> Model | None:
        """The trainer's model, if it is not in force in the partition."""
        model, used = self._trainer.model, partition.model
        if model is None or (used is not None and used.name == model.name):
            return None
        if used is not None and not self._by_marks and model.number < used.number:
            # The store lost a model that is in force here; the trainer will find it on its topic.
            return None
        return model

    def _sample_request(self, now_ms: int) -> SampleRequest | None:
        return SampleRequest.of(self._trainer, now_ms, self._settings.learning.sample_users)

    # -- membership ---------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Take over whole partitions. Never raises: `_raise_failure` ends the loop instead."""
        self._topic_watch.regrouped()
        try:
            for where in partitions:
                self._assigned.add((where.topic, where.partition))
            numbers = sorted({where.partition for where in partitions})
            whole = [n for n in numbers if all((t, n) in self._assigned for t in self._topics)]
            for number in numbers:
                if number not in whole:
                    log.warning("partition %d came without all of its topics; waiting", number)
            arrived = {(where.topic, where.partition) for where in partitions}
            together = {n for n in whole if all((t, n) in arrived for t in self._topics)}
            self._late_pairs |= dict.fromkeys(set(whole) - together, 0.0)
            self._take_over(consumer, sorted(together))
            # Not those that others wait to read: what of them is in hand lies beyond their state.
            self._load_on(consumer, LOAD_ALONE_SECONDS, self._loading.keys() & together)
            starts = [
                TopicPartition(
                    where.topic,
                    where.partition,
                    self._owned[where.partition].offsets[self._topics.index(where.topic)]
                    if where.partition in self._owned
                    else OFFSET_END,
                )
                for where in partitions
            ]
            self._accept(consumer, starts)
            # To librdkafka, what was paused when it was taken away is paused when it comes back.
            consumer.resume(starts)
            idle = [w for w in starts if w.partition not in self._owned]
            if idle:
                consumer.pause(idle)
        except Exception as error:  # noqa: BLE001 - it must not surface inside librdkafka
            self._failure = self._failure or error
            self._accept(
                consumer,
                [TopicPartition(w.topic, w.partition, OFFSET_END) for w in partitions],
            )

    def _accept(self, consumer: Consumer, starts: list[TopicPartition]) -> None:
        if self._protocol == "consumer":
            consumer.incremental_assign(starts)
        else:
            consumer.assign(starts)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Give up partitions; what was not committed is the next owner's to read again."""
        try:
            deadline = time.monotonic() + self._settings.store.timeout_seconds
            self._sort()
            for number in {w.partition for w in partitions} & set(self._owned):
                self._drain(number, consumer, deadline)
        except Exception as error:  # noqa: BLE001 - it must not surface inside librdkafka
            self._failure = self._failure or error
        self._on_lost(consumer, partitions)
        if self._protocol == "consumer":
            consumer.incremental_unassign(partitions)
        else:
            consumer.unassign()

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Forget partitions; nothing may be written for them any more."""
        del consumer
        for where in partitions:
            self._assigned.discard((where.topic, where.partition))
            self._forget(where.partition)

    def _pair_up(self, consumer: Consumer) -> None:
        """Take over partitions whose topics are assigned, but were not taken over then.

        After another owner fenced us, only when a session has passed: by then the group has told
        a member that slept through its session that the partition is no longer its own.
        """
        self._wait_for_output(consumer)
        now = time.monotonic()
        due = [number for number, moment in self._late_pairs.items() if moment <= now]
        for number in due:
            del self._late_pairs[number]
        ready = [
            number
            for number in due
            if number not in self._owned
            and number not in self._loading
            and all((topic, number) in self._assigned for topic in self._topics)
        ]
        self._take_over(consumer, ready)
        for loading in self._loading.values():
            loading.wait_to_read = True
        seconds = LOAD_SHARE_SECONDS if self._owned else LOAD_ALONE_SECONDS
        self._load_on(consumer, seconds, self._loading.keys())

    def _take_over(self, consumer: Consumer, numbers: Sequence[int]) -> None:
        """Fence whoever owned the partitions, and load their users.

        A partition whose state the store may have put back is fenced at once, but taken over later,
        when what a publisher had in hand is on the output: see `_wait_for_output`.
        """
        if not numbers:
            return
        ids = self._output.topic_ids([*self._topics, self._settings.topics.changes])
        run = self._store.run()
        self._refresh_model()
        taken: dict[int, tuple[str, int, Position]] = {}
        for number in numbers:
            token = secrets.token_hex(8)
            try:
                sequence, position = self._acquire(consumer, number, token)
            except _NotOursError as error:
                self._drop(number, error)
                continue
            see_same_topics(self._settings, position, ids)
            if number not in self._settling and self._may_be_put_back(number, position, run):
                self._settling.add(number)
                patience = self._settings.publisher.settle_seconds
                self._late_pairs[number] = time.monotonic() + patience
                log.warning(
                    "partition %d: the store was started again, or put back; waiting %.0f s for "
                    "what is on its way to the output",
                    number,
                    patience,
                )
                continue
            taken[number] = (token, sequence, position)
        tails = self._tails({n: position for n, (_, _, position) in taken.items()}, ids)
        for number, (token, sequence, position) in taken.items():
            here = msgspec.structs.replace(
                position,
                topics=ids,
                store_run=run,
                secret=key_print(self._store.namespace_key()),
                known_to=self._known_to(position, ids),
            )
            self._loading[number] = _Loading(
                self._partition(sequence, number, here),
                token,
                iter(self._store.load(number)),
                iter(self._store.load_orders(number)),
                tails.get(number, []),
            )

    def _acquire(self, consumer: Consumer, number: int, token: str) -> tuple[int, Position]:
        """Fence whoever owned a partition; its commits and position, begun anew if it has none."""
        if number >= self._settings.topics.partitions:
            raise ConfigError(
                f"topics.partitions = {self._settings.topics.partitions}, but the broker has a "
                f"partition {number}: a topic got more partitions, and among more, users lie "
                "elsewhere. Do not change the setting. "
                f"{more(self._settings, number + 1)}"
            )
        found = self._store.acquire(number, token)
        if found is None:
            self._begin_anew(consumer, number, token)
            found = self._store.acquire(number, token)
            if found is None:
                raise _state_lost(number)
        return self._see_same_secret(consumer, number, token, found)

    def _see_same_secret(
        self, consumer: Consumer, number: int, token: str, found: tuple[int, Position]
    ) -> tuple[int, Position]:
        """A partition's commits and position, if its change ids are made with our secret.

        With another, the same change would have another id when it is told again.

        Raises:
            StateLostError: it is another secret, and that may not be accepted.
        """
        told = found[1].secret
        if told in {"", key_print(self._store.namespace_key())}:
            return found
        namespace = self._settings.store.namespace
        lost = (
            f"partition {number} was begun with another secret of namespace {namespace}: changes "
            "told again would have other ids"
        )
        if not self._settings.store.accept_loss:
            raise StateLostError(
                f"{lost}. Put the secret back: store.namespace_key as it was, empty if it was not "
                f"set, and then the store's key {namespace}:key from its backup; or set "
                "store.accept_loss to start this partition anew from what the log still holds"
            )
        log.warning("%s; it starts anew", lost)
        return self._begin_again(consumer, number, token, found[1])

    def _begin_again(
        self, consumer: Consumer, number: int, token: str, before: Position
    ) -> tuple[int, Position]:
        """Replace a partition's state by a new one; its commits and position.

        Raises:
            _NotOursError: another has taken the partition over meanwhile.
        """
        if not self._create(consumer, number, token, before.incarnation, replace=True):
            raise _NotOursError(Answer.FENCED)
        begun = self._store.acquire(number, token)
        if begun is None:
            raise _state_lost(number)
        return begun

    def _decides_at_the_wall_clock(self, position: Position) -> bool:
        """Whether the same events, read again, may be decided otherwise: not from mark to mark."""
        return not self._by_marks or (not position.mark_ms and bool(position.model))

    def _is_behind(self, position: Position) -> bool:
        """Whether a partition alone was put back: the trainer's rounds are beyond its mark.

        What it decides from there on may meet newer models than it did.
        """
        return self._by_marks and 0 < position.mark_ms < self._round

    def _may_be_put_back(self, number: int, position: Position, run: str) -> bool:
        """Whether the store may have lost commits whose changes are still on their way.

        Only a store that was started again, or another one, can have; or one whose partition is not
        where its owner left it.
        """
        if not self._decides_at_the_wall_clock(position):
            return False
        return number in self._suspect or bool(position.store_run and position.store_run != run)

    def _wait_for_output(self, consumer: Consumer) -> None:
        """See that the broker answers while partitions wait for what is on its way to the output.

        A publisher gives up what it could not hand over in time, whatever happened to it. But what
        a broker has taken in and does not work on would come later: from a broker that is slow to
        answer on, the time begins anew.
        """
        began = time.monotonic()
        if not self._settling or began - self._asked < SLOW_SECONDS:
            return
        for number in self._settling:
            try:
                self._watermarks(consumer, self._settings.topics.changes, number)
                slow = time.monotonic() - began > SLOW_SECONDS
            except (KafkaException, BrokerUnavailableError):
                slow = True
            if slow:
                due = time.monotonic() + self._settings.publisher.settle_seconds
                self._late_pairs |= dict.fromkeys(self._settling, due)
                break
        self._asked = time.monotonic()

    @staticmethod
    def _known_to(position: Position, ids: Sequence[str]) -> int:
        """Up to where the output is part of the state: nothing of one that was made anew."""
        return 0 if position.topics and position.topics[2] != ids[2] else position.known_to

    def _tails(
        self, positions: Mapping[int, Position], ids: Sequence[str]
    ) -> dict[int, list[Delivered]]:
        """What the output has that the state may not know of, of partitions just taken over."""
        starts = {
            number: self._known_to(position, ids)
            for number, position in positions.items()
            if self._decides_at_the_wall_clock(position) or self._is_behind(position)
        }
        return self._output.tails(starts) if starts else {}

    def _load_on(self, consumer: Consumer, seconds: float, numbers: Iterable[int]) -> None:
        """Load users of partitions taken over, for so long, and serve those that have all.

        What a worker serves already goes on meanwhile.
        """
        deadline = time.monotonic() + seconds
        for number in list(numbers):
            loading = self._loading[number]
            while loading.partition.load_some(loading.stored):
                self._pulse.beat()
                if time.monotonic() > deadline:
                    return
            while loading.partition.load_some_orders(loading.orders):
                self._pulse.beat()
                if time.monotonic() > deadline:
                    return
            loading.partition.load_ids(self._store.load_ids(number))
            try:
                partition = self._see_that_all_are_there(consumer, loading)
            except _NotOursError as error:
                self._drop(number, error)
                continue
            del self._loading[number]
            in_time = self._is_behind(partition.position)
            if changed := partition.take_delivered(loading.tail, in_time=in_time):
                log.warning(
                    "partition %d: the store had lost where %d users are by what was delivered; it "
                    "is taken from the output",
                    number,
                    changed,
                )
            self._own(partition, loading.token)
            if loading.wait_to_read:
                for topic, offset in zip(self._topics, partition.position.offsets, strict=True):
                    where = TopicPartition(topic, number, offset)
                    consumer.seek(where)
                    consumer.resume([where])

    def _see_that_all_are_there(self, consumer: Consumer, loading: _Loading) -> Partition:
        """The partition, if it has as many users as its position says, and of the same moment.

        Raises:
            StateLostError: it has not, and that may not be accepted.
            _NotOursError: another has taken the partition over meanwhile.
        """
        partition = loading.partition
        number, position = partition.number, partition.position
        if len(partition) < position.users:
            found = (
                f"partition {number} has {len(partition)} of {position.users} users in the store: "
                "rows have vanished"
            )
        elif not self._store.is_whole(number):
            found = (
                f"the position of partition {number} and its users are not of the same moment: "
                "one was put back without the other"
            )
        elif missing := partition.missing():
            found = f"partition {number} has {missing} in the store: the others have vanished"
        else:
            return partition
        if not self._settings.store.accept_loss:
            raise StateLostError(f"{found}. {LOST_REMEDY}")
        log.warning("%s; it starts anew", found)
        partition.release()
        begun = self._begin_again(consumer, number, loading.token, position)
        return self._partition(
            begun[0],
            number,
            msgspec.structs.replace(begun[1], topics=position.topics, store_run=position.store_run),
        )

    def _partition(self, sequence: int, number: int, position: Position) -> Partition:
        key = self._store.namespace_key()
        populations = self._settings.divided()
        return Partition(
            number, self._table, self._rule, position, sequence, key=key, populations=populations,
            memory=self._memory,
        )  # fmt: skip

    def _own(self, partition: Partition, token: str) -> None:
        """Serve a partition that has been loaded, from now on."""
        number, position = partition.number, partition.position
        self._suspect.discard(number)
        self._settling.discard(number)
        owned = _Owned(partition, token, list(position.offsets))
        if self._by_marks and position.mark_ms > position.round_ms:
            owned.awaiting_round = position.mark_ms
        if self._trainer.model is not None and position.model == self._trainer.model.name:
            partition.model = self._trainer.model
        self._owned[number] = owned
        self._lag.watch(number, position.offsets)
        metrics.partition_acquired(number, len(partition), *partition.remembered)
        log.info(
            "partition %d taken over: %d users, commit %d",
            number,
            len(partition),
            partition.sequence,
        )

    def _begin_anew(self, consumer: Consumer, number: int, token: str) -> None:
        """Start a partition that has no state, unless that means that its state was lost."""
        served = self._witness(consumer, number)
        if served is not None and served.consumed:
            if not self._settings.store.accept_loss:
                raise _state_lost(number)
            log.warning("partition %d starts anew: its state was lost", number)
        elif served is not None:
            log.warning(
                "partition %d starts anew: its state was lost, but nothing was in it", number
            )
        self._create(consumer, number, token, served.incarnation if served else 0)

    def _create(
        self, consumer: Consumer, number: int, token: str, before: int, *, replace: bool = False
    ) -> bool:
        """Begin a partition's state where the log begins; see `Store.create`.

        Args:
            before: an incarnation of it that there was.
        """
        # What retention has deleted is gone; the state stands for the rest.
        first = [self._watermarks(consumer, topic, number)[0] for topic in self._topics]
        # Whoever wrote to the output before, under another namespace too, had fewer records there
        # to count from: no id of theirs can come again.
        _, output = self._watermarks(consumer, self._settings.topics.changes, number)
        position = Position(
            offsets=first,
            schema=self._table.schema,
            incarnation=max(output, before) + 1,
            first=first,
            output=output,
            known_to=output,
            secret=key_print(self._store.namespace_key()),
        )
        return self._store.create(number, token, position, replace=replace)

    def _watermarks(self, consumer: Consumer, topic: str, number: int) -> tuple[int, int]:
        """Where a topic's partition begins and ends by now."""
        timeout = self._settings.store.timeout_seconds
        found = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=timeout)
        if found is None:
            raise BrokerUnavailableError(f"no broker says where {topic}/{number} begins and ends")
        return found

    def _witness(self, consumer: Consumer, number: int) -> _Witness | None:
        """What group offsets, kept for lag tools, say of a state that there was; None of none."""
        found = consumer.committed(
            [TopicPartition(topic, number) for topic in self._topics],
            timeout=self._settings.store.timeout_seconds,
        )
        for where in found:
            label, *told = (where.metadata or "").rsplit("/", 2)
            if where.offset >= 0 and label == self._settings.store.namespace and len(told) == 2:
                return _Witness(*map(int, told))
        return None

    def _show_progress(self, consumer: Consumer) -> None:
        """Commit group offsets now and then: for lag tools, and as a witness of lost state."""
        now = time.monotonic()
        if now - self._shown < 1.0 or not self._progress:
            return
        self._shown = now
        namespace = self._settings.store.namespace
        offsets = [
            TopicPartition(topic, number, offset, metadata=_Witness.of(position).told(namespace))
            for number, position in self._progress.items()
            if number in self._owned
            for topic, offset in zip(self._topics, position.offsets, strict=True)
        ]
        self._progress.clear()
        if offsets:
            try:
                consumer.commit(offsets=offsets, asynchronous=True)
            except KafkaException as error:
                log.info("group offsets not committed: %s", error.args[0])

    def _look_around(self) -> None:
        """Now and then, see how far the output is delivered, and that the topics are the same."""
        now = time.monotonic()
        if now - self._looked_around < LOOK_AROUND_SECONDS:
            return
        self._looked_around = now
        numbers = list(self._owned)
        try:
            delivered = self._store.delivered_to(numbers) if numbers else []
            for number, upto in zip(numbers, delivered, strict=True):
                self._owned[number].partition.knows_output(upto)
        except StoreUnavailableError:
            metrics.store_missed()
        served = [owned.partition.position for owned in self._owned.values()]
        self._topic_watch.look(now, served)

    def _forget(self, number: int) -> None:
        """Drop a partition and everything of it that was not committed."""
        loading = self._loading.pop(number, None)
        if loading is not None:
            loading.partition.release()
        self._settling.discard(number)
        self._held = [message for message in self._held if message.partition() != number]
        self._unfiled = [one for one in self._unfiled if one.message.partition() != number]
        self._lag.forget(number)
        owned = self._owned.pop(number, None)
        if owned is not None:
            owned.partition.release()
            self._store.abandon(number)
            metrics.partition_released(number)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure


class _Witness(NamedTuple):
    """What a committed group offset says of the state that it was committed for.

    Attributes:
        consumed: messages that the state stood for.
    """

    incarnation: int
    consumed: int

    @staticmethod
    def of(position: Position) -> _Witness:
        counts = position.counts
        return _Witness(position.incarnation, counts.consumed + counts.marks)

    def told(self, namespace: str) -> str:
        return f"{namespace}/{self.incarnation}/{self.consumed}"


class _NotOursError(Exception):
    """What was under way for a partition must be forgotten."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"the store says {answer.value}; dropping what was not committed")
        self.fenced = answer is Answer.FENCED


def _cuts_over(partition: Partition, model: Model) -> bool:
    """Whether a model brings what a person applied to a partition that is not under it yet."""
    if not model.tuning:
        return False
    if partition.model is None:
        # Just taken over: a partition that stood under this very model has little to change.
        return partition.position.model != model.name
    return partition.model.tuning != model.tuning


def _state_lost(number: int) -> StateLostError:
    return StateLostError(
        f"partition {number} has no state in the store, but was served before. {LOST_REMEDY}"
    )
