"""A look at everyone of a partition, some at a time, and what the trainer is told of it.

Comes in: users who were looked at, and where they are. Goes out: `PartitionStatistics`, when everyone was.
`partition` looks; `learning` is next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stream.clustering import ALL_HASHES, Statistics
from stream.events import CAUSES, Cause, Floats, Hashes, Ints
from stream.learning.owner_view import OwnerView
from stream.learning.statistics import PartitionStatistics, Sampling
from stream.model import Model, Placed
from stream.populations import Populations


@dataclass(frozen=True)
class SampleRequest:
    """Which users the trainer wants to see.

    Attributes:
        users: of each population.
        thresholds: the highest hash that is wanted of a population; all, of one that is not here.
        totals: whether it wants to know, too, what scores of everyone come to.
    """

    users: int
    thresholds: Mapping[str, int] = field(default_factory=dict)
    totals: bool = False

    @staticmethod
    def of(trainer: OwnerView, at_ms: int, users: int) -> SampleRequest | None:
        """What the trainer wants with statistics of a time; None for no sample."""
        if at_ms < trainer.sample_due_ms:
            return None
        return SampleRequest(users, trainer.sample_thresholds, trainer.totals_in == 0)

    def sampling(self, populations: Populations, features: int) -> Sampling:
        """What gathers such a sample."""
        limits = [self.thresholds.get(name, ALL_HASHES) for name in populations.names]
        return Sampling(limits, self.users, features)


@dataclass
class Sweep:
    """A look at everyone who was there when it began, some at a time.

    Attributes:
        causes: code in `CAUSES` for each user, of a move that this look brings.
        sampling: what gathers the sample; None if none is wanted.
        in_each: users of each population so far.
        next: the first user not yet looked at.
        total: of those looked at.
        totals: whether scores of everyone are wanted.
        scored: what scores come to in each segment, see `Scores.totals`; None for no scores, or
            where they are not wanted.
        untold: slots of users who are to be told of a turn, and did not act, some at a time.
    """

    cause: Cause
    causes: npt.NDArray[np.uint8]
    sampling: Sampling | None
    in_each: Ints
    totals: bool = False
    next: int = 0
    total: Statistics | None = None
    scored: Floats | None = None
    untold: list[Ints] = field(default_factory=list)

    @staticmethod
    def over(
        users: int,
        cause: Cause,
        populations: int,
        sampling: Sampling | None = None,
        *,
        totals: bool = False,
    ) -> Sweep:
        causes = np.full(users, CAUSES.index(cause), np.uint8)
        return Sweep(cause, causes, sampling, np.zeros(populations, np.int64), totals)

    def sample(
        self,
        hashes: Hashes,
        vectors: Floats,
        populations: Ints,
        segments: npt.NDArray[np.int32],
    ) -> None:
        """Count users by population, and take those into the sample who belong there."""
        self.in_each += np.bincount(populations, minlength=len(self.in_each))
        if self.sampling is not None:
            self.sampling.add(hashes, vectors, populations, segments)

    def count(
        self, model: Model, placed: Placed, columns: Ints, vectors: Floats, names: Sequence[str]
    ) -> None:
        """Count users by segment, and what scores come to there.

        Args:
            columns: of each one's segment, -1 for none.
            names: of the features in the vectors.
        """
        counted = _counted(model, placed, columns)
        self.total = counted if self.total is None else self.total + counted
        if self.totals and model.scores is not None:
            # More seldom than a sample: it costs half a look.
            scored = model.scores.totals(vectors, names, columns, len(model.ids))
            self.scored = scored if self.scored is None else self.scored + scored

    def tell(self, statistics: PartitionStatistics) -> None:
        """Put what was counted, and the sample, into the statistics."""
        statistics.populations = self.in_each.tolist()
        if self.total is not None:
            statistics.count(self.total)
        if self.scored is not None:
            statistics.scored = self.scored.tobytes()
        if self.sampling is not None:
            statistics.sampled(self.sampling.taken())


def _counted(model: Model, placed: Placed, columns: Ints) -> Statistics:
    """Of users whose population has been learned.

    Args:
        columns: of each one's segment, -1 for none.
    """
    learned = model.has_learned(placed.populations)
    mapped, squared = placed.mapped, placed.squared
    if not learned.all():
        mapped, squared, columns = mapped[learned], squared[learned], columns[learned]
    return Statistics.of(mapped, squared, columns)
