"""Counts what became of messages, and tells it once: when the commit that holds it is applied.

Comes in: batches and commits. Goes out: counts for the commit; metrics, lag and progress when the store has
taken it. A commit that is refused is made again, so nothing of it may have been told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from consumers.clock import Time
from consumers.decode import Batch
from consumers.lag import LagMeter
from consumers.serving import Owned
from consumers.witness import GroupOffsets
from stream import metrics
from stream.events import Counts
from stream.store.state import Commit


class Ledger:
    """Of all partitions of a worker."""

    def __init__(self, lag: LagMeter, group_offsets: GroupOffsets, time: Time) -> None:
        self._lag = lag
        self._group_offsets = group_offsets
        self._time = time

    def count(self, owned: Owned, batches: Sequence[Batch]) -> Counts:
        """What became of the messages of a step; duplicates are not known yet."""
        counts = Counts()
        for batch in batches:
            counts.add(batch.counts)
            owned.fates.refused.update(batch.reasons)
        return counts

    def taken(self, owned: Owned, topic: int, oldest_ms: int) -> None:
        """Records of a topic are part of the next commit, the oldest of this time."""
        self._lag.taken(owned.number, topic, oldest_ms)

    def commit(
        self,
        owned: Owned,
        commit: Commit,
        counts: Counts | None = None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin a commit.

        Args:
            counts: what became of its messages, if it has any.
            after: is called when it has been applied.
        """
        owned.fates.read_at, owned.fates.consumed = owned.reading.since, counts

        def applied() -> None:
            owned.partition.committed(commit)
            self._tell(owned)
            position, counts = commit.position, commit.position.counts
            metrics.records_accounted(owned.number, position.unaccounted)
            self._lag.committed(owned.number, position.offsets)
            consumed = counts.consumed + counts.marks
            self._group_offsets.note(owned.number, position.offsets, position.incarnation, consumed)
            after()

        owned.owner.begin(commit, applied)

    def _tell(self, owned: Owned) -> None:
        fates = owned.fates
        if fates.consumed is not None:
            metrics.events_consumed(fates.consumed)
            metrics.batch_committed(self._time.monotonic() - fates.read_at)
        for reason, times in fates.refused.items():
            metrics.message_rejected(reason, times)
        fates.consumed = None
        fates.refused.clear()
