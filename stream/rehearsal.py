"""Plays a shop through one owner and one trainer in memory: what the roles do, without servers.

Comes in: events up to a mark of the shop's clock, then the mark. Goes out: the change records and
the model of each mark, the same as a worker and a trainer in watermark mode would make of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from stream.config import Settings
from stream.events import Counts, EventColumns, Ints, LevelChange, SegmentChange
from stream.features import FeatureTable
from stream.learning.rounds import learn
from stream.learning.state import TrainerState
from stream.memory import Memory
from stream.partition import Partition
from stream.store.state import Position
from stream.sweeps import SampleRequest

_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True)
class Marked:
    """What happened at a mark.

    Attributes:
        changes: records of who moved, in no order between users.
        state: the trainer's, after its round.
        crossings: records of who crossed a limit of a level, as `changes`.
    """

    at_ms: int
    changes: list[SegmentChange]
    state: TrainerState
    crossings: list[LevelChange] = field(default_factory=list)


class Rehearsal:
    """One partition with everyone in it, and its trainer.

    Attributes:
        partition: its owner's.
        state: the trainer's, after the last mark.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._table = settings.table()
        rule, position = settings.publish.rule(), Position([0, 0], self._table.schema)
        memory = Memory(settings.worker.limits())
        populations = settings.divided()
        self.partition = Partition(
            0, self._table, rule, position, 0, populations=populations, memory=memory
        )
        self.state = TrainerState()
        self._touched: list[Ints] = []

    @property
    def table(self) -> FeatureTable:
        return self._table

    def fold(self, columns: Sequence[Callable[[Partition], EventColumns]]) -> int:
        """Fold events of up to the next mark; returns how many were duplicates.

        Args:
            columns: give the events of a topic each, once they know the partition's users.
        """
        events = EventColumns.concatenate([one(self.partition) for one in columns])
        touched, duplicates = self.partition.fold(events)
        self._touched.append(touched)
        return duplicates

    def mark(self, at_ms: int) -> Marked:
        """Look at everyone as of a mark, run the trainer's round, and adopt its model."""
        partition, state = self.partition, self.state
        touched = np.unique(np.concatenate(self._touched or [np.empty(0, np.int64)]))
        self._touched.clear()
        sample = SampleRequest.of(state.owner_view, at_ms, self._settings.learning.sample_users)
        statistics = partition.sweep(at_ms, at_ms, acted=touched, sample=sample)
        records = self._commit(at_ms)
        settings = self._settings
        state = learn(
            state, [statistics], at_ms, self._table, settings.learning, settings.kinds,
            populations=settings.populations, scores=settings.foretold(),
            publish=settings.publish.rule(),
        )  # fmt: skip
        if state.model is not None and state.model is not self.state.model:
            partition.adopt(state.model, at_ms, at_ms)
            records += self._commit(at_ms)
        self.state = state
        changes = [one for one in records if "level" not in one]
        return Marked(at_ms, changes, state, [one for one in records if "level" in one])

    def _commit(self, at_ms: int) -> list[Any]:
        commit = self.partition.commit([0, 0], Counts(), at_ms, mark_ms=at_ms)
        self.partition.committed(commit)
        return [_decode(change) for entry in commit.outbox for change in entry.changes]
