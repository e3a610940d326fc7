"""K-means as pure functions over arrays: map, assign, count, merge, refit.

Comes in: feature vectors in natural units. Goes out: mapped vectors, distances, statistics and
centroids; `trainer` learns with them and `partition` assigns with them.

**Everything lies on a grid.** Mapped values, centroids and weights are multiples of a power of
two, small enough that every product and every sum below is exact in float64. So sums do not
depend on their order, merging partitions is exact, and one worker equals four to the bit.

The k-means is Lloyd's (1982), seeded by k-means++ (Arthur and Vassilvitskii 2007). Between
refits a centroid is the mean of its present users, each with one vote, which is MacQueen's
update (1967) with the old vector taken out when the new one goes in. Tails are winsorised before
(Dixon 1960, Tukey 1962): a quantile stands for whatever lies beyond it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stream.events import Bools, Floats, Ints

GRID = 2.0**18
"""Mapped values are multiples of 1/GRID standard deviations: 4 millionths, far below noise.
|x| <= 4 makes products < 2^42 in units of GRID^-2; sums weighted in 64ths stay below 2^53, and so
exact, while the weights add up to 32 or less."""
WEIGHT_GRID = 64.0
CLIP = 4.0
WINSOR = (0.01, 0.99)
PORTION = 1_024
"""Users mapped or measured at a time: 1,024 vectors of 20 features are 160 KB."""


def on_grid(values: Floats) -> Floats:
    """The nearest multiples of 1/GRID."""
    rounded: Floats = np.round(values * GRID) / GRID
    return rounded


@dataclass(frozen=True)
class FeatureMap:
    """From natural units to comparable ones: signed log, winsorised z, clip; frozen in an epoch.

    Attributes (each ``(features,)``):
        low, high: limits in log units, the 1 % and 99 % quantiles over users.
        centre, scale: mean and standard deviation over users, within these limits.
        weights: of the squared distance, multiples of 1/64.
    """

    low: Floats
    high: Floats
    centre: Floats
    scale: Floats
    weights: Floats

    @staticmethod
    def learn(vectors: Floats, weights: Floats) -> FeatureMap:
        """Fit to a uniform sample of users, ``(users, features)``."""
        logs = _signed_log(vectors)
        low, high = np.quantile(logs, WINSOR, axis=0)
        kept = np.clip(logs, low, high)
        spread = kept.std(axis=0)
        return FeatureMap(
            low=low,
            high=high,
            centre=kept.mean(axis=0),
            scale=np.where(spread > 1e-6, spread, 1.0),
            weights=np.round(weights * WEIGHT_GRID) / WEIGHT_GRID,
        )

    def apply(self, vectors: Floats) -> Floats:
        """Mapped vectors in standard deviations, clipped at 4, on the grid."""
        reach = CLIP * self.scale
        low, high = (
            np.maximum(self.low, self.centre - reach),
            np.minimum(self.high, self.centre + reach),
        )
        steps = GRID / self.scale
        found = np.empty(vectors.shape)
        for part in _portions(len(found)):
            values = _signed_log(vectors[part], out=found[part])
            # Not clip, which takes twice as long for limits by column.
            np.maximum(values, low, out=values)
            np.minimum(values, high, out=values)
            values -= self.centre
            values *= steps
            np.rint(values, out=values)
            values /= GRID
        return found

    def logs(self, mapped: Floats) -> Floats:
        """Log units of mapped vectors, which no map's scale is in."""
        found: Floats = mapped * self.scale + self.centre
        return found

    def on_scale(self, logs: Floats) -> Floats:
        """Mapped vectors of such in log units."""
        return on_grid(np.clip((logs - self.centre) / self.scale, -CLIP, CLIP))

    def invert(self, mapped: Floats) -> Floats:
        """Natural units of mapped vectors: of a centroid, its typical member."""
        logs = self.logs(mapped)
        # Within a step of the grid of nothing is nothing: nobody has -0.0000004 orders.
        logs = np.where(np.abs(logs) <= self.scale / GRID, 0.0, logs)
        natural: Floats = np.sign(logs) * np.expm1(np.abs(logs))
        return natural

    def carry(self, centroids: Floats, other: FeatureMap) -> Floats:
        """Centroids under another map: an affine step, because both are linear in log units."""
        return other.on_scale(self.logs(centroids))

    def to_json(self) -> dict[str, list[float]]:
        return {name: getattr(self, name).tolist() for name in _MAP_FIELDS}

    @staticmethod
    def from_json(data: dict[str, Any]) -> FeatureMap:
        return FeatureMap(**{name: np.array(data[name], dtype=float) for name in _MAP_FIELDS})


_MAP_FIELDS = ("low", "high", "centre", "scale", "weights")


def _signed_log(vectors: Floats, out: Floats | None = None) -> Floats:
    # Not log1p, which takes three times as long: it differs for values far below the grid only.
    logs: Floats = np.abs(vectors, out=out)
    logs += 1.0
    np.log(logs, out=logs)
    return np.copysign(logs, vectors, out=logs)


def _portions(rows: int) -> Iterator[slice]:
    """Of so many rows, as many at a time as stay in the processor's cache from step to step."""
    return (slice(start, start + PORTION) for start in range(0, rows, PORTION))


def distances(mapped: Floats, centroids: Floats, weights: Floats) -> Floats:
    """Weighted squared distances, ``(users, k)``; exact for values on the grid."""
    weighted = weights * centroids
    cross, own = np.ascontiguousarray(-2.0 * weighted.T), (weighted * centroids).sum(axis=1)
    squared = np.empty((len(mapped), len(centroids)))
    for part in _portions(len(mapped)):
        users = mapped[part]
        there = np.matmul(users, cross, out=squared[part])
        there += own
        there += ((users * users) @ weights)[:, None]
    return squared


@dataclass(frozen=True)
class Statistics:
    """What one partition, or all of them, say about a model: absolute, so the last one wins.

    Attributes:
        counts: ``(k,)`` users nearest to each centroid.
        sums: ``(k, features)`` their mapped vectors added up.
        inertia: their squared distances added up.
        sizes: ``(k,)`` users published in each segment.
    """

    counts: Ints
    sums: Floats
    inertia: float
    sizes: Ints

    @staticmethod
    def of(mapped: Floats, squared: Floats, columns: Ints) -> Statistics:
        """Statistics of users.

        Args:
            mapped: ``(n, features)`` vectors on the grid.
            squared: ``(n, k)`` their distances.
            columns: ``(n,)`` column of the published segment, -1 for none.
        """
        k = squared.shape[1]
        nearest = squared.argmin(axis=1)
        one_hot = (nearest[:, None] == np.arange(k)).astype(float)
        return Statistics(
            counts=np.bincount(nearest, minlength=k).astype(np.int64),
            sums=one_hot.T @ mapped,
            inertia=float(on_grid(squared.min(axis=1)).sum()),
            sizes=np.bincount(columns[columns >= 0], minlength=k).astype(np.int64),
        )

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(
            self.counts + other.counts,
            self.sums + other.sums,
            self.inertia + other.inertia,
            self.sizes + other.sizes,
        )

    @property
    def mean_inertia(self) -> float:
        """Mean squared distance of a user to the nearest centroid."""
        return self.inertia / max(int(self.counts.sum()), 1)

    def means(self, centroids: Floats) -> Floats:
        """Where the centroids belong: the means, or the old place where nobody is."""
        counts = self.counts[:, None]
        return on_grid(np.where(counts > 0, self.sums / np.maximum(counts, 1), centroids))


def lloyd(mapped: Floats, centroids: Floats, weights: Floats, rounds: int = 50) -> Floats:
    """Lloyd's iterations until nobody changes side; an empty cluster takes the farthest user."""
    nobody = np.full(len(mapped), -1)
    labels = nobody
    for _ in range(rounds):
        squared = distances(mapped, centroids, weights)
        nearest = squared.argmin(axis=1)
        if np.array_equal(nearest, labels):
            break
        labels = nearest
        statistics = Statistics.of(mapped, squared, nobody)
        centroids = statistics.means(centroids)
        empty = np.flatnonzero(statistics.counts == 0)
        if len(empty):
            far = np.argsort(squared.min(axis=1), kind="stable")[::-1][: len(empty)]
            centroids = centroids.copy()
            centroids[empty[: len(far)]] = mapped[far]
    return centroids


def seed_and_fit(
    mapped: Floats, k: int, weights: Floats, starts: int, seed: int
) -> tuple[Floats, float]:
    """The best of several k-means++ starts; centroids and their inertia over the users given."""
    # Imported by the one who seeds: it takes longer than everything else a command imports.
    from sklearn.cluster import kmeans_plusplus  # noqa: PLC0415

    best: tuple[Floats, float] | None = None
    scaled = mapped * np.sqrt(weights)
    for start in range(starts):
        _, chosen = kmeans_plusplus(scaled, n_clusters=k, random_state=seed + start)
        centroids = lloyd(mapped, mapped[chosen], weights)
        inertia = float(distances(mapped, centroids, weights).min(axis=1).sum())
        if best is None or inertia < best[1]:
            best = (centroids, inertia)
    if best is None:
        raise ValueError("at least one start is needed")
    return best


def smallest_hashes(hashes: np.ndarray[Any, np.dtype[np.uint64]], size: int) -> Ints:
    """Places of the `size` smallest hashes, by hash: a uniform sample, and mergeable.

    It is the bottom-k sketch (Cohen and Kaplan 2007, "Summarizing data using bottom-k sketches").
    """
    order = np.argsort(hashes, kind="stable")
    return order[:size]


def separated(centroids: Floats, weights: Floats) -> Floats:
    """Squared distances between centroids, ``(k, k)``."""
    return distances(centroids, centroids, weights)


def living(vectors: Floats) -> Bools:
    """Users whose every feature is a finite number."""
    return np.asarray(np.isfinite(vectors).all(axis=1))
