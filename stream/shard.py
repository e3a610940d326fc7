"""Some of the library's users, as columns: what the owner of a partition has in the pipeline.

Comes in: users with their latest vectors, and a model. Goes out: slots and columns for a look, and the
statistics that the learner asks for; `segmenter` decides when.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stream.clustering import Statistics
from stream.events import Bools, Floats, Hashes, Ints, Rows
from stream.hashing import hash_texts
from stream.learning.statistics import PartitionStatistics, Sampling
from stream.model import Model
from stream.populations import NONE, Populations
from stream.rows import published_type
from stream.segments import columns_of
from stream.users import Kind, PlainSlots, UserColumns

CHUNK = 2_048
"""Users looked at or counted in one go: their columns stay in the cache from step to step."""


class Shard:
    """Some of the users.

    Attributes:
        divided: who is learned together.
        slots: slot of each user, and the users by slot.
    """

    KEPT = ("vectors", "seen", "rows")
    """Columns that a file has; the others follow from them."""

    def __init__(self, features: int, divided: Populations) -> None:
        self.divided = divided
        self.slots = PlainSlots()
        kinds: dict[str, Kind] = {
            "rows": (published_type(), ()),
            "hashes": (np.uint64, ()),
            "seen": (np.int64, ()),
            "vectors": (np.float64, (features,)),
            "mapped": (np.float64, (features,)),
            "populations": (np.int64, ()),
        }
        self.columns = UserColumns(kinds)

    def __len__(self) -> int:
        return len(self.slots.names)

    @property
    def names(self) -> list[Any]:
        """Every user, by slot."""
        return self.slots.names

    @property
    def rows(self) -> Rows:
        """What the publish rule keeps of each user."""
        return self.columns["rows"]

    @property
    def vectors(self) -> Floats:
        """In natural units."""
        return self.columns["vectors"]

    @property
    def mapped(self) -> Floats:
        """Vectors under the map of each user's population."""
        return self.columns["mapped"]

    @property
    def populations(self) -> Ints:
        """Place of the population that each user belongs to."""
        return self.columns["populations"]

    @property
    def _seen(self) -> Ints:
        return self.columns["seen"]

    @property
    def _hashes(self) -> Hashes:
        return self.columns["hashes"]

    def kept(self, column: str) -> Any:
        """A column of `KEPT` as a file has it: of the users there are."""
        return self.columns[column][: len(self)]

    def take(self, names: list[Any], vectors: Floats, now: int, model: Model | None) -> Ints:
        """Users' latest vectors, each named once; returns their slots."""
        before = len(self)
        slots = self.slots.find_or_give(names)
        if len(self) > self.columns.room:
            self.columns.resize(max(len(self), 2 * self.columns.room))
        self._hashes[before : len(self)] = hash_texts([str(name) for name in self.names[before:]])
        self.vectors[slots] = vectors
        self._seen[slots] = now
        self._place(slots, model)
        return slots

    def _place(self, slots: Ints, model: Model | None) -> None:
        """Find the population of users, and map them."""
        vectors = self.vectors[slots]
        if model is None:
            self.populations[slots] = self.divided.divide(vectors, np.full(len(slots), NONE))
            return
        populations = model.divide(vectors, self.rows["segment"][slots])
        self.populations[slots] = populations
        self.mapped[slots] = model.map(vectors, populations)

    def drop(self, gone: Ints) -> None:
        """Forget users for good, by slot; the last ones take their places."""
        before = len(self)
        holes, movers = self.slots.drop(gone)
        self.columns.close_up(holes, movers, before, len(self))
        if 4 * len(self) < self.columns.room:
            self.columns.resize(2 * len(self))

    def adopt(self, model: Model | None) -> None:
        """Map everyone anew."""
        for slots in chunks(np.arange(len(self))):
            self._place(slots, model)

    def silent(self, now: int, longer_than_ms: int) -> Ints:
        """Slots of users not seen for longer."""
        return np.flatnonzero(now - self._seen[: len(self)] > longer_than_ms)

    def living(self, now: int, forget_ms: int | None) -> Bools:
        """Of each slot, whether the user counts."""
        seen = self._seen[: len(self)]
        if forget_ms is None:
            return np.ones(len(seen), np.bool_)
        return np.asarray(now - seen < forget_ms)

    def stranded(self, model: Model) -> Bools:
        """Of each slot, whether the user, counting or not, is in a segment that is no more."""
        segments = self.rows["segment"][: len(self)]
        return (segments > 0) & (columns_of(segments, model.ids) < 0)

    def sizes(self, living: Bools, model: Model) -> Ints:
        """Living users published in each segment, ``(k,)``."""
        columns = columns_of(self.rows["segment"][: len(self)][living], model.ids)
        return np.bincount(columns[columns >= 0], minlength=len(model.ids)).astype(np.int64)

    def statistics(
        self, living: Ints, now: int, model: Model | None, sampling: Sampling | None
    ) -> PartitionStatistics:
        """What the learner needs to know of users.

        Args:
            sampling: gathers the sample; None for none.
        """
        in_each = np.bincount(self.populations[living], minlength=len(self.divided))
        part = PartitionStatistics(
            at_ms=now,
            model="" if model is None else model.name,
            users=len(living),
            rules=self.divided.digest,
            populations=in_each.tolist(),
        )
        if sampling is not None:
            sampling.add(
                self._hashes[living],
                self.vectors[living],
                self.populations[living],
                self.rows["segment"][living],
            )
            part.sampled(sampling.taken())
        if model is not None:
            total = self._counted(living[:CHUNK], model)
            for some in chunks(living[CHUNK:]):
                total += self._counted(some, model)
            part.count(total)
        return part

    def _counted(self, slots: Ints, model: Model) -> Statistics:
        slots = slots[model.has_learned(self.populations[slots])]
        mapped = self.mapped[slots]
        squared = model.distances(mapped, self.populations[slots])
        return Statistics.of(mapped, squared, columns_of(self.rows["segment"][slots], model.ids))

    def restore(self, names: list[Any], kept: dict[str, Any]) -> None:
        """Take in users as a file has them, where nobody is yet."""
        self.slots.find_or_give(names)
        self.columns.resize(len(names))
        self._hashes[:] = hash_texts([str(name) for name in names])
        for column in self.KEPT:
            self.columns[column][:] = kept[column]


def chunks(slots: Ints) -> Iterator[Ints]:
    """Slots, some at a time."""
    return (slots[start : start + CHUNK] for start in range(0, len(slots), CHUNK))
