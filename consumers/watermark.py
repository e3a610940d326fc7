"""Watermark mode: goes from mark to mark of the shop's clock, or without marks by its own events.

Comes in: messages of the partitions that are served. Goes out: their commits. When both topics of a partition
have reached a mark, everything before it is folded, everyone is looked at as of the mark, and the partition
goes on when the trainer has completed the round of that mark. So what it does depends on the log alone, not on
when or in what portions it was read.

A log that has no marks tells the time by the newest event of each user. Who writes one event, or one user with
a wrong clock, must not take everyone to a time years ahead: so time goes only to what several users have
reached. It depends on the events read so far alone, and more events never take it back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from consumers.clock import Time
from consumers.decode import Batch, Block, Reject
from consumers.ledger import Ledger
from consumers.model_feed import ROUND_CHECK_SECONDS, ModelFeed
from consumers.owner import NotOursError, Owner
from consumers.serving import Guard, Owned, take_rejects
from stream import metrics
from stream.config import Clock, Worker
from stream.events import Counts, Ints
from stream.model import Model
from stream.partition import Partition
from stream.store.promises import Positions
from stream.store.state import Answer, Commit, StoreUnavailableError

WAIT_CHECK_SECONDS = 1.0
"""Longer than any round takes, so that it costs nothing while all is well."""


@dataclass
class _MarkInterval:
    """What one topic of a partition brought up to a mark, or so far.

    Attributes:
        mark_ms: the mark that closes it; 0 while it is open.
        sent_ms: wall clock at which that mark was sent.
        next_offset: to read after it; means something only when it is closed.
    """

    batches: list[Batch] = field(default_factory=list)
    mark_ms: int = 0
    sent_ms: int = 0
    next_offset: int = 0


@dataclass
class _MarkedOwned(Owned):
    """A partition with the intervals that were read and not folded.

    Attributes:
        intervals: by topic, closed ones and one open one at the end.
        awaiting_round: the mark whose trainer round must be completed before going on, or 0.
        next_check: when to see again that the state is still the one of that mark.
    """

    intervals: tuple[deque[_MarkInterval], deque[_MarkInterval]] = field(
        default_factory=lambda: (deque([_MarkInterval()]), deque([_MarkInterval()]))
    )
    awaiting_round: int = 0
    next_check: float = 0.0

    def newest_mark(self, topic: int) -> int:
        """The newest mark that was read of a topic, or has been reached."""
        intervals = self.intervals[topic]
        read = intervals[-2].mark_ms if len(intervals) > 1 else 0
        return max(read, self.partition.position.mark_ms)


class MarkClock:
    """The `PartitionClock` of watermark mode.

    Args:
        store: is asked whether the state of a partition that waits is still there.
        wall_ms: for how long changes take; decides nothing.
    """

    gathers_on = False

    def __init__(
        self,
        clock: Clock,
        worker: Worker,
        store: Positions,
        feed: ModelFeed,
        ledger: Ledger,
        guard: Guard,
        wall_ms: Callable[[], int],
        time: Time,
    ) -> None:
        self._clock = clock
        self._most = worker.buffer_events
        self._store = store
        self._feed = feed
        self._ledger = ledger
        self._guard = guard
        self._wall_ms = wall_ms
        self._time = time
        self._served: dict[int, _MarkedOwned] = {}

    @property
    def served(self) -> Mapping[int, Owned]:
        return self._served

    def serve(self, partition: Partition, owner: Owner[Commit]) -> None:
        owned = self._served[partition.number] = _MarkedOwned(partition, owner)
        position = partition.position
        if position.mark_ms > position.round_ms:
            owned.awaiting_round = position.mark_ms

    def drop(self, number: int) -> Owned | None:
        return self._served.pop(number, None)

    def gather(self, number: int, topic: int, block: Block, start: int, end: int) -> list[Reject]:
        owned = self._served[number]
        reading = owned.reading
        start = owned.first_unread(topic, block, start, end)
        if start == end:
            return []
        if not reading.gathered:
            reading.since = self._time.monotonic()
        refused: list[Reject] = []
        for cut in [place + 1 for place in sorted(block.marks) if start <= place < end] + [end]:
            if cut == start:
                continue
            batch = block.batch(topic, start, cut)
            refused += take_rejects(batch)
            start = cut
            interval = owned.intervals[topic][-1]
            interval.batches.append(batch)
            reading.next_offsets[topic] = interval.next_offset = batch.next_offset
            reading.gathered += len(batch.users)
            for mark, sent in batch.marks:
                # A copy of an older mark, of one that was read but not reached yet as well, is none.
                if mark > owned.newest_mark(topic):
                    interval.mark_ms, interval.sent_ms = mark, sent
                    owned.intervals[topic].append(_MarkInterval())
        return refused

    def is_waiting(self) -> bool:
        return any(o.awaiting_round or o.owner.is_committing for o in self._served.values())

    def look_every(self) -> float | None:
        """Who waits for a round looks at every turn; between two marks no round could be used."""
        served = self._served.values()
        if any(owned.awaiting_round for owned in served):
            return 0.0
        by_marks = all(owned.partition.position.mark_ms for owned in served)
        return None if by_marks else ROUND_CHECK_SECONDS

    def can_wait(self, number: int, topic: int) -> bool:
        """It goes on when both topics have reached a mark: the one that has not must be read on."""
        owned = self._served[number]
        stuck = owned.owner.is_committing or owned.awaiting_round > 0
        return stuck or owned.intervals[topic][0].mark_ms > 0

    def has_more(self, number: int) -> bool:
        del number
        return False

    def step(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            owned = self._served.get(number)
            if owned is not None and not owned.owner.is_committing:
                self._guard(number, lambda owned=owned: self._advance(owned))  # type: ignore[misc]

    def _advance(self, owned: _MarkedOwned) -> None:
        """Take the partition on, from mark to mark, as far as it can go."""
        while self._step_to_mark(owned):
            pass

    def _step_to_mark(self, owned: _MarkedOwned) -> bool:
        """Take the partition one step on; False if it has to wait for something."""
        if owned.owner.is_committing:
            return False
        if owned.awaiting_round:
            return self._complete_round(owned)
        heads = [intervals[0].mark_ms for intervals in owned.intervals]
        if 0 in heads:
            return self._go_by_events(owned)
        mark = min(heads)
        batches, sent = self._take_up_to(owned, mark)
        partition = owned.partition
        counts = self._ledger.count(owned, batches)
        events = owned.columns(batches)
        owned.reading.gathered -= len(events)
        started = self._time.monotonic()
        touched, duplicates = partition.fold(events)
        counts.applied -= duplicates
        counts.duplicate += duplicates
        sample = self._feed.sample_request(mark)
        statistics = partition.sweep(mark, sent, acted=touched, sample=sample)
        metrics.swept(self._time.monotonic() - started)
        metrics.users_counted(partition.number, len(partition), *partition.past.counts)
        commit = partition.commit(
            owned.owner.offsets, counts, mark, mark_ms=mark, statistics=statistics
        )

        def await_round() -> None:
            owned.awaiting_round = mark
            owned.next_check = self._time.monotonic() + WAIT_CHECK_SECONDS

        self._ledger.commit(owned, commit, counts, await_round)
        return not owned.owner.is_committing

    def _take_up_to(self, owned: _MarkedOwned, mark: int) -> tuple[list[Batch], int]:
        """What was read before a mark, and the wall clock at which that was sent."""
        batches: list[Batch] = []
        sent = 0
        for topic, intervals in enumerate(owned.intervals):
            if intervals[0].mark_ms == mark:
                interval = intervals.popleft()
                batches.extend(interval.batches)
                owned.owner.offsets[topic] = interval.next_offset
                sent = max(sent, interval.sent_ms)
                self._ledger.taken(owned, topic, interval.sent_ms)
        return batches, sent

    def _complete_round(self, owned: _MarkedOwned) -> bool:
        """Adopt the model of the round the partition waits for, once it is there."""
        mark = owned.awaiting_round
        if self._feed.round_ms < mark:
            self._see_that_it_is_there(owned)
            return False
        owned.awaiting_round = 0
        model = self._feed.newer(owned.partition)
        return True if model is None else self._adopt(owned, model, mark, round_ms=mark)

    def _adopt(
        self,
        owned: _MarkedOwned,
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
        commit = partition.commit(owned.owner.offsets, Counts(), reached_ms, round_ms=round_ms)
        self._ledger.commit(owned, commit)
        return not owned.owner.is_committing

    def _see_that_it_is_there(self, owned: _MarkedOwned) -> None:
        """Ask a waiting partition's state, now and then, for what a commit would find out.

        If the store forgot or rolled back, the trainer has no statistics of this mark any more: its
        round would never come, and the partition would wait for ever.

        Raises:
            StateLostError: the state is gone.
            NotOursError: the state is that of an earlier mark.
        """
        now = self._time.monotonic()
        if now < owned.next_check:
            return
        owned.next_check = now + WAIT_CHECK_SECONDS
        try:
            position = self._store.position(owned.number)
        except StoreUnavailableError:
            metrics.store_missed()
            return
        if position is None:
            raise owned.owner.terms.lost(owned.number)
        if position.mark_ms < owned.awaiting_round:
            raise NotOursError(Answer.DIVERGED)

    # -- without marks ------------------------------------------------------------------------

    def _go_by_events(self, owned: _MarkedOwned) -> bool:
        """A log without marks: now and then, fold what is there, as of the newest event.

        A model is adopted when it is found, as of the newest event that has been folded. A log
        with marks begins with one (`replay` sees to it), so it never comes here.
        """
        partition, reading = owned.partition, owned.reading
        if partition.position.mark_ms or any(i[0].mark_ms for i in owned.intervals):
            return False
        model = self._feed.newer(partition)
        if model is not None and len(partition):
            reached, now = self._time_by_events(partition)
            return self._adopt(owned, model, now, clock_ms=reached)
        if not reading.gathered:
            return False
        waited = self._time.monotonic() - reading.since
        if waited < self._clock.idle_seconds and reading.gathered < self._most:
            return False
        batches: list[Batch] = []
        for topic, intervals in enumerate(owned.intervals):
            interval = intervals[0]
            batches.extend(interval.batches)
            interval.batches = []
            if reading.next_offsets[topic]:
                owned.owner.offsets[topic] = reading.next_offsets[topic]
        reading.gathered = 0
        counts = self._ledger.count(owned, batches)
        touched, duplicates = partition.fold(owned.columns(batches))
        counts.applied -= duplicates
        counts.duplicate += duplicates
        reached, now = self._time_by_events(partition)
        statistics = partition.sweep(
            now, self._wall_ms(), acted=touched, sample=self._feed.sample_request(now)
        )
        commit = partition.commit(owned.owner.offsets, counts, reached, statistics=statistics)
        self._ledger.commit(owned, commit, counts)
        return False

    def _time_by_events(self, partition: Partition) -> tuple[int, int]:
        """The time that a partition without marks has reached, and as of when to look at its users.

        With too few users to tell, it has reached none, and they are looked at as of the newest.
        """
        newest = partition.rows["seen"]
        reached = time_reached(newest, self._clock.guard_users)
        reached = max(reached, partition.position.clock_ms)
        return reached, reached or int(newest.max())


def time_reached(newest_ms: Ints, users: int) -> int:
    """The latest time that so many users have reached; 0 if there are not that many.

    Args:
        newest_ms: time of each user's newest event; 0 of one who has none.
        users: how many must have events of that time, or later ones.
    """
    if len(newest_ms) < users:
        return 0
    place = len(newest_ms) - users
    return int(np.partition(newest_ms, place)[place])
