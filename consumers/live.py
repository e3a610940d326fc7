"""Live mode: folds what has come, looks at who acted, and sweeps everyone on a tick.

Comes in: messages of the partitions that are served, and the time. Goes out: their commits. All partitions
that have something are folded together: a call of numpy costs the same for one or for many. Nothing waits
for the trainer: the newest model is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from consumers.clock import SteadyClock, Time
from consumers.decode import Batch, Block, Reject
from consumers.ledger import Ledger
from consumers.model_feed import ROUND_CHECK_SECONDS, ModelFeed
from consumers.owner import Owner
from consumers.serving import Guard, Owned, take_rejects
from stream import metrics
from stream.acting import Acting, act_together
from stream.config import Worker
from stream.events import Counts
from stream.learning.statistics import PartitionStatistics
from stream.model import Model
from stream.partition import Partition
from stream.store.state import Commit

SLICE = 512
"""Minimum users of a slice of a sweep: with fewer, numpy's calls cost more than they do."""
SWEEP_SHARE = 0.5
"""Share of the time between two sweeps that one sweep takes; the rest is reserve."""


@dataclass
class _SweepTimes:
    """When the sweep or adoption under way was begun, and when it last went on; monotonic."""

    begun: float = 0.0
    gone_on: float = 0.0
    spent: float = 0.0


@dataclass
class _LiveOwned(Owned):
    """A partition with the batches that wait to be folded."""

    batches: list[Batch] = field(default_factory=list)
    sweep: _SweepTimes = field(default_factory=_SweepTimes)


class LiveClock:
    """The `PartitionClock` of live mode.

    Args:
        now: the time of live mode.
        time: to see how long things take.
    """

    gathers_on = True

    def __init__(
        self,
        worker: Worker,
        feed: ModelFeed,
        ledger: Ledger,
        guard: Guard,
        now: SteadyClock,
        time: Time,
    ) -> None:
        self._sweep_seconds = worker.sweep_seconds
        self._feed = feed
        self._ledger = ledger
        self._guard = guard
        self._now = now
        self._time = time
        self._served: dict[int, _LiveOwned] = {}

    @property
    def served(self) -> Mapping[int, Owned]:
        return self._served

    def serve(self, partition: Partition, owner: Owner[Commit]) -> None:
        self._served[partition.number] = _LiveOwned(partition, owner)

    def drop(self, number: int) -> Owned | None:
        return self._served.pop(number, None)

    def gather(self, number: int, topic: int, block: Block, start: int, end: int) -> list[Reject]:
        owned = self._served[number]
        start = owned.first_unread(topic, block, start, end)
        if start == end:
            return []
        if not owned.reading.gathered:
            owned.reading.since = self._time.monotonic()
        batch = block.batch(topic, start, end)
        owned.reading.next_offsets[topic] = batch.next_offset
        owned.batches.append(batch)
        owned.reading.gathered += len(batch.users)
        return take_rejects(batch)

    def is_waiting(self) -> bool:
        return any(owned.owner.is_committing for owned in self._served.values())

    def look_every(self) -> float:
        return ROUND_CHECK_SECONDS

    def can_wait(self, number: int, topic: int) -> bool:
        del number, topic
        return True

    def has_more(self, number: int) -> bool:
        return bool(self._served[number].batches)

    def step(self, numbers: Sequence[int]) -> None:
        """Fold what was gathered, look at who acted and at some of the others, and commit.

        Sweeps and adoptions go on by a slice a turn, so that users who act meanwhile, and their changes, do
        not wait for everyone else. What a person applied is adopted whole: one commit has everyone as they
        were, the next one has everyone as planned.
        """
        here = [self._served[number] for number in numbers if number in self._served]
        free = [owned for owned in here if not owned.owner.is_committing]
        if not free:
            return
        now = self._now.now_ms()
        # Another worker's clock, or this machine's before it was set, may have been ahead.
        by_time: dict[int, list[_LiveOwned]] = {}
        for owned in free:
            by_time.setdefault(max(now, owned.partition.position.clock_ms), []).append(owned)
        for time_ms, those in by_time.items():
            self._step_at(time_ms, those)

    def _step_at(self, now: int, free: Sequence[_LiveOwned]) -> None:
        """The same, of partitions that have one time."""
        whole = {owned.number for owned in free if self._begin_sweep(owned, now)}
        known = self._fold_and_assign([owned for owned in free if owned.batches], now)
        for owned in free:
            self._guard(
                owned.number,
                lambda owned=owned: self._commit(  # type: ignore[misc]
                    owned, known.get(owned.number), now, whole=owned.number in whole
                ),
            )

    def _begin_sweep(self, owned: _LiveOwned, now: int) -> bool:
        """Begin the sweep or the adoption that is due; True if everyone was looked at at once."""
        partition, sweep = owned.partition, owned.sweep
        model = self._newer_model(partition)
        if model is None:
            since = self._time.monotonic() - sweep.begun
            if partition.sweeping is None and since >= self._sweep_seconds:
                partition.begin_sweep(self._feed.sample_request(now))
                sweep.begun = sweep.gone_on = self._time.monotonic()
            return False
        if whole := _cuts_over(partition, model):
            partition.adopt(model, now, now)
        else:
            partition.begin_adoption(model)
        metrics.model_adopted(model.epoch, model.version)
        sweep.gone_on = self._time.monotonic()
        return whole

    def _newer_model(self, partition: Partition) -> Model | None:
        model, used = self._feed.newer(partition), partition.model
        if model is not None and used is not None and model.number < used.number:
            # The store lost a model that is in force here; the trainer will find it on its topic.
            return None
        return model

    def _fold_and_assign(self, those: Sequence[_LiveOwned], now: int) -> dict[int, Counts]:
        """Fold what was gathered and look at who acted; what became of it, by partition."""
        if not those:
            return {}
        acting: list[Acting] = []
        known: dict[int, Counts] = {}
        for owned in those:
            batches, owned.batches = owned.batches, []
            owned.reading.gathered = 0
            known[owned.number] = self._ledger.count(owned, batches)
            for batch in batches:
                owned.owner.offsets[batch.topic] = batch.next_offset
            events = owned.columns(batches)
            for batch in batches:
                self._ledger.taken(owned, batch.topic, batch.oldest_ms)
            oldest = min((b.oldest_ms for b in batches if b.oldest_ms), default=now)
            acting.append(Acting(owned.partition, events, oldest))
        for counts, duplicates in zip(known.values(), act_together(acting, now), strict=True):
            counts.applied -= duplicates
            counts.duplicate += duplicates
        return known

    def _commit(self, owned: _LiveOwned, counts: Counts | None, now: int, *, whole: bool) -> None:
        """Go on with the sweep under way, and commit what there is."""
        partition = owned.partition
        sweeping = partition.sweeping is not None
        statistics = self._sweep_on(owned, now) if sweeping else None
        through = whole or (sweeping and partition.sweeping is None)
        if counts is not None or through or partition.uncommitted:
            commit = partition.commit(
                owned.owner.offsets, counts or Counts(), now, statistics=statistics
            )
            self._ledger.commit(owned, commit, counts)

    def _sweep_on(self, owned: _LiveOwned, now: int) -> PartitionStatistics | None:
        """Look at as many users as the sweep under way needs to be through in half its time.

        Returns:
            What a sweep that is through tells the trainer; an adoption tells nothing.
        """
        partition, sweep = owned.partition, owned.sweep
        started = self._time.monotonic()
        adopting = partition.adopting
        elapsed, sweep.gone_on = started - sweep.gone_on, started
        share = elapsed / (self._sweep_seconds * SWEEP_SHARE)
        users = max(SLICE, int((partition.sweeping or 0) * share))
        statistics = partition.sweep_on(users, now, now)
        sweep.spent += self._time.monotonic() - started
        if statistics is not None:
            metrics.swept(sweep.spent)
            metrics.users_counted(partition.number, len(partition), *partition.past.counts)
            sweep.spent = 0.0
        return None if adopting else statistics


def _cuts_over(partition: Partition, model: Model) -> bool:
    """Whether a model brings what a person applied to a partition that is not under it yet."""
    if not model.tuning:
        return False
    if partition.model is None:
        # Just taken over: a partition that was under this same model has little to change.
        return partition.position.model != model.name
    return partition.model.tuning != model.tuning
