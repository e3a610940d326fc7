"""Decides how segstream itself stands in the benchmark, and nothing about how it learns.

`Segstream` makes a `Method` of anything that is `SegmenterLike`; `segstream` says which, and is
all there is to change when the learner does. `Interim` is made of the parts there are (map,
statistics, lineage, publish rule), until there is a class for it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ops.bench.learning.generator import Stream
from stream.clustering import (
    FeatureMap,
    Statistics,
    distances,
    lloyd,
    on_grid,
    seed_and_fit,
    separated,
    smallest_hashes,
)
from stream.events import CAUSES, Bools, Cause, Floats, Hashes, Ints
from stream.lineage import inherit
from stream.segments import PublishRule, look


class SegmenterLike(Protocol):
    """What is asked of it."""

    def update(self, users: Ints, vectors: Floats, time: float) -> object:
        """Learn from a micro-batch and publish."""

    def segment_of(self, users: Ints) -> Ints:
        """Published ids, 0 for none."""

    def assign(self, vectors: Floats) -> Ints:
        """Place of the nearest centroid."""

    @property
    def centroids(self) -> Floats:
        """In natural units."""

    @property
    def ids(self) -> Ints:
        """Of the centroids."""


class Segstream:
    """A segmenter as a `Method`."""

    def __init__(self, segmenter: SegmenterLike) -> None:
        self._segmenter = segmenter

    def update(self, users: Ints, vectors: Floats, time: float) -> None:
        self._segmenter.update(users, vectors, time)

    def labels(self, users: Ints) -> Ints:
        found = self._segmenter.segment_of(users)
        return np.where(found == 0, -1, found)

    def assign(self, vectors: Floats) -> Ints:
        return self._segmenter.assign(vectors)

    def centroids(self) -> tuple[Ints, Floats]:
        return self._segmenter.ids, self._segmenter.centroids


def segstream(stream: Stream, k: int, seed: int, workers: int = 1) -> Segstream:
    """Ours: told how long a silent user counts as active, and left to its defaults else."""
    return Segstream(Interim(stream.users, k, seed, stream.active_seconds, workers))


REFIT_UPDATES = 5_000
SAMPLE = 4_096
FIRST_USERS = 400
CHALLENGE = 0.005
"""Less inertia than the champion's, by so much in two refits running, and a challenger wins."""
_ROW = np.dtype(
    [
        ("segment", "i4"),
        ("candidate", "i4"),
        ("streak", "u1"),
        ("cause", "u1"),
        ("looks", "u1"),
        ("since", "i8"),
        ("version", "i4"),
    ]
)
_RULE = PublishRule(margin_twice=0.1, margin_once=0.3, provisional_looks=3, dwell_ms=0)


class Interim:
    """Replacement statistics, one vote a user; every 5,000 updates a refit by a hash sample.

    Args:
        users: numbered from 0.
        workers: the users' statistics are kept in so many parts, and added up at each batch.
    """

    def __init__(
        self, users: int, k: int, seed: int, active_seconds: float, workers: int = 1
    ) -> None:
        self._k, self._seed, self._active_seconds = k, seed, active_seconds
        self._hashes: Hashes = np.random.default_rng(seed).permutation(users).astype(np.uint64)
        self._part = np.arange(users) % workers
        self._workers = workers
        self._seen = np.full(users, -np.inf)
        self._vectors: Floats | None = None
        self._rows = np.zeros(users, dtype=_ROW)
        self._column = np.full(users, -1, dtype=np.int64)
        self._map: FeatureMap | None = None
        self._since_refit = 0
        self._next_id = 1
        self._ids = np.empty(0, dtype=np.int32)
        self._centroids: Floats = np.empty((0, 0))
        self._challenged = False

    def update(self, users: Ints, vectors: Floats, time: float) -> None:
        if self._vectors is None:
            self._vectors = np.zeros((len(self._seen), vectors.shape[1]))
            self._mapped = np.zeros_like(self._vectors)
        self._since_refit += len(users)
        last = len(users) - 1 - np.unique(users[::-1], return_index=True)[1]
        users, vectors = users[last], vectors[last]
        self._vectors[users] = vectors
        self._seen[users] = time
        if self._map is not None:
            self._replace(users, vectors)
            self._publish(users, Cause.USER_MOVED, time)
        due = self._since_refit >= REFIT_UPDATES
        enough = np.isfinite(self._seen).sum() >= FIRST_USERS
        if due if self._map is not None else enough:
            self._refit(time)

    def segment_of(self, users: Ints) -> Ints:
        return self._rows["segment"][users].astype(np.int64)

    def assign(self, vectors: Floats) -> Ints:
        assert self._map is not None
        mapped = self._map.apply(vectors)
        nearest: Ints = distances(mapped, self._centroids, self._map.weights).argmin(axis=1)
        return nearest

    @property
    def centroids(self) -> Floats:
        return self._centroids if self._map is None else self._map.invert(self._centroids)

    @property
    def ids(self) -> Ints:
        return self._ids.astype(np.int64)

    def _replace(self, users: Ints, vectors: Floats) -> None:
        """Take the old vectors out and put the new ones in, part by part."""
        assert self._map is not None
        new = self._map.apply(vectors)
        nearest = distances(new, self._centroids, self._map.weights).argmin(axis=1)
        for part in range(self._workers):
            here = self._part[users] == part
            mine = users[here]
            old = self._column[mine]
            known = old >= 0
            np.subtract.at(self._sums[part], old[known], self._mapped[mine[known]])
            np.subtract.at(self._counts[part], old[known], 1)
            np.add.at(self._sums[part], nearest[here], new[here])
            np.add.at(self._counts[part], nearest[here], 1)
        self._mapped[users] = new
        self._column[users] = nearest
        counts = self._counts.sum(axis=0)[:, None]
        means = self._sums.sum(axis=0) / np.maximum(counts, 1)
        self._centroids = on_grid(np.where(counts > 0, means, self._centroids))

    def _publish(self, users: Ints, cause: Cause, time: float) -> None:
        assert self._map is not None
        weights = self._map.weights
        squared = distances(self._mapped[users], self._centroids, weights)
        rows = self._rows[users]
        causes = np.full(len(users), CAUSES.index(cause), dtype=np.uint8)
        gaps = separated(self._centroids, weights)
        look(rows, squared, self._ids, gaps, _RULE, causes, int(time * 1_000))
        self._rows[users] = rows

    def _refit(self, time: float) -> None:
        assert self._vectors is not None
        self._since_refit = 0
        active: Bools = self._seen > time - self._active_seconds
        living = np.flatnonzero(active)
        sample = living[smallest_hashes(self._hashes[living], SAMPLE)]
        vectors = self._vectors[sample]
        new_map = FeatureMap.learn(vectors, np.ones(vectors.shape[1]))
        mapped = new_map.apply(vectors)
        if self._map is None:
            fitted, _ = seed_and_fit(mapped, self._k, new_map.weights, 8, self._seed)
            self._ids = np.arange(1, self._k + 1, dtype=np.int32)
            self._next_id = self._k + 1
        else:
            warm = lloyd(mapped, self._map.carry(self._centroids, new_map), new_map.weights)
            fitted = self._challenge(mapped, warm, new_map.weights)
            before = distances(self._map.apply(vectors), self._centroids, self._map.weights)
            after = distances(mapped, fitted, new_map.weights)
            heritage = inherit(
                tuple(self._ids.tolist()),
                before.argmin(axis=1),
                after.argmin(axis=1),
                self._k,
                self._next_id,
                0.5,
            )
            self._ids = np.array(heritage.ids, dtype=np.int32)
            self._next_id = heritage.next_id
        self._map, self._centroids = new_map, fitted
        self._recount(active, living)
        self._publish(living, Cause.MODEL_MOVED, time)

    def _challenge(self, mapped: Floats, warm: Floats, weights: Floats) -> Floats:
        """The warm centroids, unless fresh ones are better twice running."""
        champion = float(distances(mapped, warm, weights).min(axis=1).sum())
        fresh, inertia = seed_and_fit(mapped, self._k, weights, 2, self._seed)
        better = inertia < (1.0 - CHALLENGE) * champion
        won = better and self._challenged
        self._challenged = better and not won
        return fresh if won else warm

    def _recount(self, active: Bools, living: Ints) -> None:
        """Statistics from nothing, of the users who are active."""
        assert self._map is not None
        assert self._vectors is not None
        nobody = np.full(len(living), -1)
        self._mapped[living] = self._map.apply(self._vectors[living])
        squared = distances(self._mapped[living], self._centroids, self._map.weights)
        self._column = np.where(active, 0, -1)
        self._column[living] = squared.argmin(axis=1)
        parts = [
            Statistics.of(self._mapped[mine], squared[here], nobody[here])
            for part in range(self._workers)
            for here in [self._part[living] == part]
            for mine in [living[here]]
        ]
        self._sums = np.stack([part.sums for part in parts])
        self._counts = np.stack([part.counts for part in parts])
