"""Decides what is compared: every other streaming k-means one can install, each by its own rule.

A `Method` gets micro-batches and says who is in which segment. For a rival that is the index of the
nearest centroid at the user's latest update: none of them has ids, names or a margin. *Weak* is what
its defaults give on raw vectors; *strengthened* has what a good engineer would add without changing
the rule: log1p, z by the first batch, k-means++ on the first batch, a half-life that was tried out
on seeds below 100.

All but river's are given the same micro-batches. River learns one vector at a time in Python, so
its methods play a shorter stream of fewer users (`slow`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from river import cluster, preprocessing
from sklearn.cluster import MiniBatchKMeans, kmeans_plusplus

from stream.clustering import distances
from stream.events import Floats, Ints

DYING = 1e-8
"""Spark's: a cluster of less weight, relative to the heaviest, is dying."""


class Method(Protocol):
    """What the benchmark asks of anybody who keeps segments."""

    def update(self, users: Ints, vectors: Floats, time: float) -> None:
        """Learn from a micro-batch and publish; a user may be in it more than once, in order."""

    def labels(self, users: Ints) -> Ints:
        """The published segment id of each user, -1 for none."""

    def assign(self, vectors: Floats) -> Ints:
        """Place of the live centroid that is nearest to each vector."""

    def centroids(self) -> tuple[Ints, Floats]:
        """Ids ``(k,)`` and the live centroids ``(k, features)`` in natural units."""


class Scale:
    """From natural units to those a rival learns in: raw, or log1p and z by the first vectors."""

    def __init__(self, first: Floats, *, strengthened: bool) -> None:
        self._strengthened = strengthened
        logs = np.log1p(first)
        self._centre = logs.mean(axis=0)
        spread = logs.std(axis=0)
        self._spread = np.where(spread > 0, spread, 1.0)

    def apply(self, vectors: Floats) -> Floats:
        if not self._strengthened:
            return vectors
        scaled: Floats = (np.log1p(vectors) - self._centre) / self._spread
        return scaled

    def invert(self, scaled: Floats) -> Floats:
        if not self._strengthened:
            return scaled
        natural: Floats = np.expm1(scaled * self._spread + self._centre)
        return natural


class Rival(ABC):
    """Publishes the index of the nearest centroid; what moves the centroids is `_learn`."""

    def __init__(self, users: int, k: int, seed: int, *, strengthened: bool) -> None:
        self._k = k
        self._seed = seed
        self._strengthened = strengthened
        self._published = np.full(users, -1, dtype=np.int64)
        self._scale: Scale | None = None
        self._centres: Floats = np.empty((0, 0))

    def update(self, users: Ints, vectors: Floats, time: float) -> None:
        del time
        if self._scale is None:
            self._scale = Scale(vectors, strengthened=self._strengthened)
            self._start(self._scale.apply(vectors))
        scaled = self._scale.apply(vectors)
        self._learn(scaled)
        # Of a user's several updates the last is assigned last, and so stays.
        self._published[users] = _nearest(scaled, self._centres)

    def labels(self, users: Ints) -> Ints:
        return self._published[users]

    def assign(self, vectors: Floats) -> Ints:
        assert self._scale is not None
        return _nearest(self._scale.apply(vectors), self._centres)

    def centroids(self) -> tuple[Ints, Floats]:
        assert self._scale is not None
        return np.arange(len(self._centres)), self._scale.invert(self._centres)

    def _start(self, scaled: Floats) -> None:
        """Place the first centroids."""
        if self._strengthened:
            self._centres, _ = kmeans_plusplus(scaled, self._k, random_state=self._seed)
        else:
            random = np.random.default_rng(self._seed)
            self._centres = random.standard_normal((self._k, scaled.shape[1]))

    @abstractmethod
    def _learn(self, scaled: Floats) -> None:
        """Move the centroids."""


class MiniBatch(Rival):
    """scikit-learn's ``MiniBatchKMeans.partial_fit`` with its defaults (Sculley 2010)."""

    def _start(self, scaled: Floats) -> None:
        del scaled  # partial_fit starts with k-means++ on its first batch
        self._model = MiniBatchKMeans(n_clusters=self._k, random_state=self._seed)

    def _learn(self, scaled: Floats) -> None:
        self._model.partial_fit(scaled)
        self._centres = self._model.cluster_centers_


class Spark(Rival):
    """The rule of ``org.apache.spark.mllib.clustering.StreamingKMeans``.

    Weights are discounted, ``n <- a n``; each centroid with points in the batch becomes the mean
    of itself (n) and them (m), ``n <- n + m``. If the lightest is dying, the heaviest is
    split: both share the weight and stand a hair's breadth apart.

    Args:
        half_life: of a point's weight, in units; None keeps all for ever (Spark's default).
        unit: batches or points.
    """

    def __init__(
        self,
        users: int,
        k: int,
        seed: int,
        *,
        strengthened: bool,
        half_life: float | None = None,
        unit: str = "batches",
    ) -> None:
        super().__init__(users, k, seed, strengthened=strengthened)
        self._decay = 1.0 if half_life is None else float(np.exp(np.log(0.5) / half_life))
        self._unit = unit
        self._weights = np.zeros(k)

    def _learn(self, scaled: Floats) -> None:
        self._weights *= self._decay ** (1 if self._unit == "batches" else len(scaled))
        sums, counts = _sums(scaled, self._centres)
        met = counts > 0
        self._weights += counts
        rate = counts[met] / np.maximum(self._weights[met], 1e-16)
        means = sums[met] / counts[met, None]
        self._centres = self._centres.copy()
        self._centres[met] += rate[:, None] * (means - self._centres[met])

        heaviest, lightest = int(self._weights.argmax()), int(self._weights.argmin())
        if self._weights[lightest] < DYING * self._weights[heaviest]:
            both = [heaviest, lightest]
            self._weights[both] = self._weights[both].mean()
            place = self._centres[heaviest].copy()
            apart = 1e-14 * np.maximum(np.abs(place), 1.0)
            self._centres[heaviest], self._centres[lightest] = place + apart, place - apart


class Flink(Rival):
    """The rule of ``org.apache.flink.ml.clustering.kmeans.OnlineKMeans``.

    Each of the parallel subtasks scales the weights by ``decay / parallelism`` and moves its
    copy of each centroid to the mean of it and its own points; the copies are then averaged by
    their weights. An index without points keeps its place, however light it gets.
    """

    def __init__(
        self,
        users: int,
        k: int,
        seed: int,
        *,
        strengthened: bool,
        half_life: float,
        parallelism: int = 1,
    ) -> None:
        super().__init__(users, k, seed, strengthened=strengthened)
        self._decay = float(np.exp(np.log(0.5) / half_life))
        self._parallelism = parallelism
        self._weights = np.zeros(k)

    def _learn(self, scaled: Floats) -> None:
        total = np.zeros(self._k)
        moved = np.zeros_like(self._centres)
        kept = self._weights * self._decay / self._parallelism
        for task in range(self._parallelism):
            sums, counts = _sums(scaled[task :: self._parallelism], self._centres)
            weights = kept + counts
            rate = (counts / np.maximum(weights, 1e-16))[:, None]
            means = sums / np.maximum(counts, 1)[:, None]
            moved += weights[:, None] * (self._centres + rate * (means - self._centres))
            total += weights
        here = total > 0
        self._centres = np.where(
            here[:, None], moved / np.maximum(total, 1e-16)[:, None], self._centres
        )
        self._weights = total


class River:
    """A clusterer of river behind its ``preprocessing.StandardScaler``, one vector at a time.

    The scaler goes on learning, so centroids in its units mean another place tomorrow: that is how
    its pipeline works. Values are log1p, as for the other strengthened rivals.
    """

    def __init__(self, users: int, model: Any) -> None:
        self._model = model
        self._scaler: Any = preprocessing.StandardScaler()
        self._published = np.full(users, -1, dtype=np.int64)

    def update(self, users: Ints, vectors: Floats, time: float) -> None:
        del time
        for user, values in zip(users.tolist(), np.log1p(vectors).tolist(), strict=True):
            features = dict(enumerate(values))
            self._scaler.learn_one(features)
            scaled = self._scaler.transform_one(features)
            self._model.learn_one(scaled)
            if self._model.centers:
                self._published[user] = self._model.predict_one(scaled)

    def labels(self, users: Ints) -> Ints:
        return self._published[users]

    def assign(self, vectors: Floats) -> Ints:
        centre, spread = self._moments(vectors.shape[1])
        return _nearest((np.log1p(vectors) - centre) / spread, self._places(vectors.shape[1]))

    def centroids(self) -> tuple[Ints, Floats]:
        features = len(self._scaler.means)
        centre, spread = self._moments(features)
        places = self._places(features)
        # A centroid that no vector ever moved may lie below nought, where no log1p is.
        return np.arange(len(places)), np.expm1(np.maximum(places * spread + centre, 0.0))

    def _moments(self, features: int) -> tuple[Floats, Floats]:
        means, variances = self._scaler.means, self._scaler.vars
        centre = np.array([means[i] for i in range(features)])
        spread = np.sqrt([variances[i] for i in range(features)])
        return centre, np.where(spread > 0, spread, 1.0)

    def _places(self, features: int) -> Floats:
        centers = self._model.centers
        return np.array([[centers[c][i] for i in range(features)] for c in sorted(centers)])


HALF_LIFE = 20.0
"""Of the strengthened rules of Spark and Flink, in batches of 500. Of 5, 10, 20, 40 and 80 it gave the
best inertia and settled share (seeds 11 and 12)."""
RIVER_STEP = 0.02
"""River's ``halflife``, the share of the way from a centroid to a vector, strengthened. Its default of
one half makes a centroid little more than the last vector; but `STREAMKMeans` is at its best
with it, because it learns from a handful of centroids a chunk."""
RIVER_CHUNK = 500
_STREAM_KMEANS: Any = cluster.STREAMKMeans
"""River ships types, but not for this one."""


@dataclass(frozen=True)
class Entry:
    """A rival in the list.

    Attributes:
        make: of the number of users, k and the seed.
        slow: plays the shorter stream.
        parallel: the same on four workers, if its rule says how.
    """

    make: Callable[[int, int, int], Method]
    slow: bool = False
    parallel: Callable[[int, int, int], Method] | None = None


def _flink(parallelism: int) -> Callable[[int, int, int], Method]:
    return lambda users, k, seed: Flink(
        users, k, seed, strengthened=True, half_life=HALF_LIFE, parallelism=parallelism
    )


def _river(step: float) -> Callable[[int, int, int], Method]:
    return lambda users, k, seed: River(
        users, cluster.KMeans(n_clusters=k, halflife=step, seed=seed)
    )


RIVALS: dict[str, Entry] = {
    "minibatch": Entry(lambda users, k, seed: MiniBatch(users, k, seed, strengthened=True)),
    "spark": Entry(
        lambda users, k, seed: Spark(users, k, seed, strengthened=True, half_life=HALF_LIFE)
    ),
    "flink": Entry(_flink(1), parallel=_flink(4)),
    "river-kmeans": Entry(_river(RIVER_STEP), slow=True),
    "river-streamkmeans": Entry(
        lambda users, k, seed: River(
            users, _STREAM_KMEANS(chunk_size=RIVER_CHUNK, n_clusters=k, seed=seed)
        ),
        slow=True,
    ),
    "river-kmeans-default": Entry(_river(0.5), slow=True),
    "minibatch-raw": Entry(lambda users, k, seed: MiniBatch(users, k, seed, strengthened=False)),
    "spark-raw": Entry(lambda users, k, seed: Spark(users, k, seed, strengthened=False)),
}
"""The strengthened first, then the weak."""


def _nearest(scaled: Floats, centres: Floats) -> Ints:
    nearest: Ints = distances(scaled, centres, np.ones(scaled.shape[1])).argmin(axis=1)
    return nearest


def _sums(scaled: Floats, centres: Floats) -> tuple[Floats, Ints]:
    """Vectors added up by their nearest centroid, and how many there are."""
    one_hot = (_nearest(scaled, centres)[:, None] == np.arange(len(centres))).astype(float)
    return one_hot.T @ scaled, one_hot.sum(axis=0).astype(np.int64)
