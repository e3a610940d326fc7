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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
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
LEAST_SPREAD = 1e-6
"""In log units; what differs by less is the same."""
NEXT_TO_NOTHING = 1e-3
"""In log units, and so in natural ones: what a fading sum still holds of one order after ten
half-lives is none."""
ALL_HASHES = (1 << 64) - 1
"""The highest of the hashes that samples are drawn by."""
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
            Of all users, or of those who have anything of the feature: see the two ways to learn it.
        weights: of the squared distance, multiples of 1/64.
    """

    low: Floats
    high: Floats
    centre: Floats
    scale: Floats
    weights: Floats

    @staticmethod
    def learn_of_those_who_have(vectors: Floats, weights: Floats) -> FeatureMap:
        """Fit each feature to those users of a sample who have anything of it.

        Where few have a feature, limits among everyone would leave nothing of it. Who has none is at
        nothing, however far from the others that is; what nobody has, or all have alike, tells
        nobody apart, and gets no weight.
        """
        logs = _signed_log(vectors)
        low, high, centre = (np.zeros(logs.shape[1]) for _ in range(3))
        scale = np.ones(logs.shape[1])
        have = np.abs(logs) > NEXT_TO_NOTHING
        for feature, column in enumerate(logs.T):
            those = column[have[:, feature]]
            if len(those) == 0:
                continue
            least, most = quantiles(ranked(those[:, None]), WINSOR)[0]
            kept = np.clip(those, least, most)
            everyone = len(those) == len(column)
            low[feature] = least if everyone else min(least, 0.0)
            high[feature] = most if everyone else max(most, 0.0)
            centre[feature] = kept.mean()
            spread = kept.std()
            if spread <= LEAST_SPREAD:  # the same of it, whoever has any
                spread = np.clip(column, low[feature], high[feature]).std()
            scale[feature] = spread if spread > LEAST_SPREAD else 1.0
        alike = np.ptp(np.clip(logs, low, high), axis=0) <= LEAST_SPREAD
        weights = np.where(alike, 0.0, np.round(weights * WEIGHT_GRID) / WEIGHT_GRID)
        return FeatureMap(low, high, centre, scale, weights)

    @staticmethod
    def learn(vectors: Floats, weights: Floats) -> FeatureMap:
        """Fit to a uniform sample of users, ``(users, features)``."""
        logs = _signed_log(vectors)
        low, high = quantiles(ranked(logs), WINSOR).T
        kept = np.clip(logs, low, high)
        spread = kept.std(axis=0)
        return FeatureMap(
            low=low,
            high=high,
            centre=kept.mean(axis=0),
            scale=np.where(spread > LEAST_SPREAD, spread, 1.0),
            weights=np.round(weights * WEIGHT_GRID) / WEIGHT_GRID,
        )

    def apply(self, vectors: Floats) -> Floats:
        """Mapped vectors in standard deviations, clipped at 4, on the grid."""
        low, high, centre, steps = self._limits
        found = np.empty(vectors.shape)
        for part in _portions(len(found)):
            values = _signed_log(vectors[part], out=found[part])
            rows = len(values)
            np.maximum(values, low[:rows], out=values)
            np.minimum(values, high[:rows], out=values)
            values -= centre[:rows]
            values *= steps[:rows]
            np.rint(values, out=values)
            values *= 1.0 / GRID  # a power of two: exact
        return found

    @cached_property
    def _limits(self) -> tuple[Floats, Floats, Floats, Floats]:
        """What `apply` works with, repeated: where rows are short, numpy is slow to repeat them."""
        reach = CLIP * self.scale
        low = np.maximum(self.low, self.centre - reach)
        high = np.minimum(self.high, self.centre + reach)
        low, high, centre, steps = (
            np.broadcast_to(limit, (PORTION, len(limit))).copy()
            for limit in (low, high, self.centre, GRID / self.scale)
        )
        return low, high, centre, steps

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


def ranked(values: Floats) -> Floats:
    """Values of each feature in order, ``(features, users)``."""
    return np.sort(values.T, axis=1)


def quantiles(ranked: Floats, shares: Sequence[float]) -> Floats:
    """Quantiles of each feature, ``(features, shares)``, between neighbours by a straight line.

    As numpy's, which orders the values anew each time it is asked.
    """
    at = np.asarray(shares) * (ranked.shape[1] - 1)
    below = np.floor(at).astype(np.int64)
    above = np.minimum(below + 1, ranked.shape[1] - 1)
    found: Floats = ranked[:, below] + (at - below) * (ranked[:, above] - ranked[:, below])
    return found


def _signed_log(vectors: Floats, out: Floats | None = None) -> Floats:
    # Not log1p, which takes three times as long: it differs for values far below the grid only.
    logs: Floats = np.abs(vectors, out=out)
    logs += 1.0
    np.log(logs, out=logs)
    return np.copysign(logs, vectors, out=logs) if (vectors < 0).any() else logs


def _portions(rows: int) -> Iterator[slice]:
    """Of so many rows, as many at a time as stay in the processor's cache from step to step."""
    return (slice(start, start + PORTION) for start in range(0, rows, PORTION))


def distances(mapped: Floats, centroids: Floats, weights: Floats) -> Floats:
    """Weighted squared distances, ``(users, k)``; exact for values on the grid."""
    squared = np.empty((len(mapped), len(centroids)))
    for part, there in _beyond_own(mapped, centroids, weights):
        users = mapped[part]
        np.add(there, ((users * users) @ weights)[:, None], out=squared[part])
    return squared


def assign(mapped: Floats, centroids: Floats, weights: Floats) -> Ints:
    """Column of the nearest centroid of each user, ``(users,)``: the first of the nearest."""
    labels = np.empty(len(mapped), np.int64)
    for part, there in _beyond_own(mapped, centroids, weights):
        there.argmin(axis=1, out=labels[part])
    return labels


def nearest(squared: Floats) -> tuple[Ints, Floats]:
    """Column of the nearest centroid of each user, and the squared distance to it."""
    labels = squared.argmin(axis=1)
    # Not min, which takes four times as long where rows are short.
    return labels, squared[np.arange(len(squared)), labels]


def _beyond_own(
    mapped: Floats, centroids: Floats, weights: Floats
) -> Iterator[tuple[slice, Floats]]:
    """Squared distances less the user's own square, which is the same for every centroid.

    They come a portion of the users at a time, in an array that is used again.
    """
    weighted = weights * centroids
    cross, own = np.ascontiguousarray(-2.0 * weighted.T), (weighted * centroids).sum(axis=1)
    space = np.empty((min(PORTION, len(mapped)), len(centroids)))
    for part in _portions(len(mapped)):
        users = mapped[part]
        there = np.matmul(users, cross, out=space[: len(users)])
        there += own
        yield part, there


@dataclass(frozen=True)
class Statistics:
    """What one partition, or all of them, say about a model: absolute, so the last one wins.

    Attributes:
        counts: ``(k,)`` users nearest to each centroid.
        sums: ``(k, features)`` their mapped vectors added up.
        inertia: ``(k,)`` their squared distances added up.
        sizes: ``(k,)`` users published in each segment.
    """

    counts: Ints
    sums: Floats
    inertia: Floats
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
        labels, away = nearest(squared)
        counts, sums = votes(mapped, labels, k)
        return Statistics(
            counts=counts,
            sums=sums,
            inertia=np.bincount(labels, on_grid(away), k).astype(float),
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
        return float(self.inertia.sum()) / max(int(self.counts.sum()), 1)

    def between(self, columns: slice) -> Statistics:
        """Of some of the centroids."""
        return Statistics(
            self.counts[columns], self.sums[columns], self.inertia[columns], self.sizes[columns]
        )

    def means(self, centroids: Floats) -> Floats:
        """Where the centroids belong: the means, or the old place where nobody is."""
        return _means(self.counts, self.sums, centroids)


def votes(mapped: Floats, labels: Ints, k: int) -> tuple[Ints, Floats]:
    """How many users each centroid has, and their mapped vectors added up."""
    one_hot = (labels[:, None] == np.arange(k)).astype(float)
    return np.bincount(labels, minlength=k).astype(np.int64), one_hot.T @ mapped


def _means(counts: Ints, sums: Floats, centroids: Floats) -> Floats:
    some = counts[:, None]
    return on_grid(np.where(some > 0, sums / np.maximum(some, 1), centroids))


def lloyd(mapped: Floats, centroids: Floats, weights: Floats, rounds: int = 50) -> Floats:
    """Lloyd's iterations until nobody changes side; an empty cluster takes the farthest user."""
    before: Ints | None = None
    for _ in range(rounds):
        labels = assign(mapped, centroids, weights)
        if before is not None and np.array_equal(labels, before):
            break
        before = labels
        counts, sums = votes(mapped, labels, len(centroids))
        means = _means(counts, sums, centroids)
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            _, away = nearest(distances(mapped, centroids, weights))
            far = np.argsort(away, kind="stable")[::-1][: len(empty)]
            means[empty[: len(far)]] = mapped[far]
        centroids = means
    return centroids


def inertia(mapped: Floats, centroids: Floats, weights: Floats) -> float:
    """Squared distances of users to the nearest centroid, added up."""
    return float(nearest(distances(mapped, centroids, weights))[1].sum())


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
        left = inertia(mapped, centroids, weights)
        if best is None or left < best[1]:
            best = (centroids, left)
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
