"""Looks at how many segments there are before anyone chooses: curves, a proposal, how firm it is.

Comes in: mapped vectors of a sample of users (`clustering.FeatureMap`). Goes out: inertia,
silhouette, separation and stability by k, and groups by k-means or by density; `cli.explore` shows
them. Nothing here decides about a running model: k stays the operator's (`learning.segments`).

A distance is a *space*: points and weights in which the weighted squared Euclidean distance is the
one that was asked for, so that every algorithm below serves all three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from stream.clustering import assign, inertia, lloyd, seed_and_fit
from stream.events import Bools, Floats, Ints

Distance = Literal["euclid", "cosine", "mahalanobis"]

ENOUGH = 0.75
"""Share of the variance along the line between two groups that their split must explain. A line
evenly filled from end to end, with no gap at all, comes to exactly 3/4; one bell to 2/pi."""
HASTY = 3
"""Rounds of Lloyd between merges where what comes of them is settled anyway."""
SHRINKAGE = 0.1
"""Least part of the identity in a covariance before it is inverted. Orders of 30 and of 180 days
are nearly one direction; unshrunk, whitening would blow up the little in which they differ."""
SILHOUETTE_USERS = 2_048
"""Silhouette is quadratic in users: 32 MB of distances; the mean is known to about .01."""
STABLE = 0.8
"""Mean adjusted Rand index over bootstraps from which groups are taken for lasting."""
NOISE = -1


# -- distances -----------------------------------------------------------------------------------


class Space(NamedTuple):
    """Where groups are looked for.

    Attributes:
        points: ``(users, features)``.
        weights: ``(features,)``, of the squared distance.
    """

    points: Floats
    weights: Floats

    def flat(self) -> Floats:
        """The same points where plain Euclidean distance is the weighted one."""
        return self.points * np.sqrt(self.weights)

    def where(self, users: Ints | Bools) -> Space:
        return Space(self.points[users], self.weights)


def space_of(distance: Distance, mapped: Floats, weights: Floats) -> Space:
    """The space in which Euclidean distance is the one asked for.

    - *euclid*: as it is.
    - *cosine*: on the unit sphere, where ``|a - b|^2 = 2 - 2 cos``. Strength is forgotten: who does
      half as much of everything is the same. A user at the average has no direction and stays at
      the centre.
    - *mahalanobis*: whitened, so that features that say the same count once. ZCA-cor (Kessy, Lewin
      and Strimmer 2018) keeps every new axis as near its feature as can be, so the features'
      weights still mean what they say. The covariance is shrunk towards the identity as Ledoit
      and Wolf (2004) have it, and by `SHRINKAGE` at least.

    Args:
        mapped: ``(users, features)`` in standard deviations.
        weights: ``(features,)``; a weight of 0 keeps a feature out of everything.
    """
    used = weights > 0
    points = np.where(used, mapped, 0.0)
    match distance:
        case "euclid":
            return Space(points, weights)
        case "cosine":
            flat = points * np.sqrt(weights)
            length = np.linalg.norm(flat, axis=1, keepdims=True)
            unit = np.where(length > 1e-9, flat / np.where(length > 1e-9, length, 1.0), 0.0)
            return Space(unit, used.astype(float))
        case "mahalanobis":
            whitened = np.zeros_like(points)
            whitened[:, used] = _whitened(points[:, used])
            return Space(whitened, weights)


def _whitened(points: Floats) -> Floats:
    from sklearn.covariance import ledoit_wolf_shrinkage  # noqa: PLC0415 - slow, see clustering

    centred = points - points.mean(axis=0)
    spread = centred.std(axis=0)
    varies = spread > 1e-9
    scaled = centred[:, varies] / spread[varies]
    if scaled.shape[1] == 0:
        return np.zeros_like(points)
    shrinkage = max(float(ledoit_wolf_shrinkage(scaled, assume_centered=True)), SHRINKAGE)
    correlation = scaled.T @ scaled / len(scaled)
    shrunk = (1.0 - shrinkage) * correlation + shrinkage * np.eye(len(correlation))
    values, axes = np.linalg.eigh(shrunk)
    out = np.zeros_like(points)
    out[:, varies] = scaled @ (axes / np.sqrt(values)) @ axes.T
    return out


# -- algorithms ----------------------------------------------------------------------------------


class Groups(NamedTuple):
    """Who belongs together.

    Attributes:
        labels: ``(users,)`` 0 to k - 1, `NOISE` for nobody's.
        centroids: ``(k, features)`` means of their users, in the space.
    """

    labels: Ints
    centroids: Floats

    @property
    def k(self) -> int:
        return len(self.centroids)


class Algorithm(Protocol):
    """Finds groups in a space; the same ones each time for the same points in the same order."""

    def fit(self, space: Space) -> Groups: ...


@dataclass(frozen=True)
class KMeans:
    """The k-means that the trainer starts with: k-means++, several starts, Lloyd."""

    k: int
    starts: int = 8
    seed: int = 1

    def fit(self, space: Space) -> Groups:
        centroids, _ = seed_and_fit(
            space.points, self.k, space.weights, starts=self.starts, seed=self.seed
        )
        return Groups(assign(space.points, centroids, space.weights), centroids)


@dataclass(frozen=True)
class Density:
    """Groups where users stand close together, of any shape and number: river's DBSTREAM.

    DBSTREAM (Hahsler and Bolanos 2016) keeps small balls and counts the users that two balls share.
    Taken from river: learning, one user at a time. Done here: which balls hang together, and who is
    in them. river's own answer takes each shared edge one way only, so that groups fall apart, and
    gives every user the nearest group, however far (`python -m ops.bench.clusters` shows both; its
    DenStream never joins its balls at all).

    Attributes:
        neighbours: a ball's radius is `stretch` times the median distance of a user to the neighbour
            of this rank: a scale that comes with the data.
        stretch: at 1 groups of one bell broke apart; at 1.5 two of five joined in 16 dimensions,
            and both crescents stayed whole (`ops/decisions`).
        shared: least share of two balls' users in their intersection for them to hang together;
            from .2 on groups of one bell each fell apart.
        crowd: users that make a ball, or a group, count at the least.
        smallest: share of all users below which a group counts as nobody.
    """

    neighbours: int = 20
    stretch: float = 1.5
    shared: float = 0.1
    crowd: int = 5
    smallest: float = 0.01

    def fit(self, space: Space) -> Groups:
        from river.cluster import DBSTREAM  # noqa: PLC0415 - slow to import
        from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415 - slow, see clustering

        flat = space.flat()[:, space.weights > 0]
        radius = self.radius(flat)
        # The users of a sample are all of one moment, so nothing fades and nothing is cleaned up.
        stream: Any = DBSTREAM(
            clustering_threshold=radius,
            fading_factor=1e-12,
            cleanup_interval=2 * len(flat),
            intersection_factor=self.shared,
            minimum_weight=self.crowd,
        )
        for user in flat.tolist():
            stream.learn_one(dict(enumerate(user)))
        balls = [ball for ball in stream.micro_clusters.items() if ball[1].weight >= self.crowd]
        labels = np.full(len(flat), NOISE, dtype=np.int64)
        if balls:
            group = self._joined({ball: micro.weight for ball, micro in balls}, stream.s)
            centres = np.array([list(micro.center.values()) for _, micro in balls])
            near, nearest = NearestNeighbors(n_neighbors=1).fit(centres).kneighbors(flat)
            # A ball moves while it learns: those it took in early may lie a little outside.
            inside = near[:, 0] <= 1.5 * radius
            labels[inside] = group[nearest[inside, 0]]
            labels = self._without_small(labels)
        return Groups(labels, means_of(space.points, labels))

    def radius(self, flat: Floats) -> float:
        """Of a ball, at the scale of these users."""
        from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415 - slow, see clustering

        rank = min(self.neighbours, len(flat) - 1)
        away = NearestNeighbors(n_neighbors=rank + 1).fit(flat).kneighbors(flat)[0][:, -1]
        apart = away[away > 0]
        return self.stretch * float(np.median(apart)) if len(apart) else 1e-6

    def _joined(self, weights: dict[int, float], shared: dict[int, dict[int, float]]) -> Ints:
        """Group of each ball: those connected by enough shared users, over however many others."""
        from scipy.sparse import coo_array  # noqa: PLC0415 - slow to import
        from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

        place = {ball: index for index, ball in enumerate(weights)}
        edges = [
            (place[a], place[b])
            for a, others in shared.items()
            for b, users in others.items()
            if a in place and b in place and users > self.shared * (weights[a] + weights[b]) / 2
        ]
        ends = np.array(edges, dtype=np.int64).reshape(-1, 2).T
        size = (len(place), len(place))
        graph = coo_array((np.ones(len(edges)), (ends[0], ends[1])), shape=size)
        return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)

    def _without_small(self, labels: Ints) -> Ints:
        """Numbered by size, the largest 0; groups too small to speak of are noise."""
        found, sizes = np.unique(labels[labels >= 0], return_counts=True)
        enough = max(self.crowd, self.smallest * len(labels))
        order = list(found[np.argsort(-sizes, kind="stable")].tolist())
        size_of = dict(zip(found.tolist(), sizes.tolist(), strict=True))
        out = np.full_like(labels, NOISE)
        for number, label in enumerate(label for label in order if size_of[label] >= enough):
            out[labels == label] = number
        return out


def means_of(points: Floats, labels: Ints) -> Floats:
    """Mean of each group's points, ``(k, features)``."""
    k = int(labels.max(initial=NOISE)) + 1
    return np.array([points[labels == label].mean(axis=0) for label in range(k)]).reshape(
        k, points.shape[1]
    )


# -- curves by k ---------------------------------------------------------------------------------


def fits_by_k(
    space: Space, k_max: int, make: Callable[[int], Algorithm] = KMeans
) -> dict[int, Groups]:
    """Groups for each k from 1 to `k_max`."""
    return {k: make(k).fit(space) for k in range(1, k_max + 1)}


def mean_inertia(space: Space, groups: Groups) -> float:
    """Mean squared distance of users to the nearest centroid: what the elbow is drawn from."""
    return inertia(space.points, groups.centroids, space.weights) / len(space.points)


def elbow(curve: Sequence[float]) -> int:
    """The k (from 1) at which a falling curve bends most: the point farthest below the chord.

    That is the knee of Satopaa et al. (2011, "Kneedle") for a whole curve without smoothing. A
    curve without a bend still has a farthest point, so this is for people to look at.
    """
    values = np.asarray(curve, dtype=float)
    if len(values) < 3 or values[0] <= values[-1]:
        return 1
    across = np.linspace(0.0, 1.0, len(values))
    down = (values[0] - values) / (values[0] - values[-1])
    return int(np.argmax(down - across)) + 1


def silhouettes(space: Space, fits: dict[int, Groups]) -> dict[int, float]:
    """Mean silhouette (Rousseeuw 1987) by k, from 2, over the first `SILHOUETTE_USERS` users.

    Left out where fewer than two groups, or only groups of one, are among them.
    """
    from sklearn.metrics import pairwise_distances, silhouette_score  # noqa: PLC0415 - slow

    few = space.flat()[:SILHOUETTE_USERS]
    between = pairwise_distances(few)
    np.fill_diagonal(between, 0.0)
    found: dict[int, float] = {}
    for k, groups in fits.items():
        labels = groups.labels[: len(few)]
        if 1 < len(np.unique(labels)) < len(few):
            found[k] = float(silhouette_score(between, labels, metric="precomputed"))
    return found


# -- separation ----------------------------------------------------------------------------------


class Step(NamedTuple):
    """A step of the merge-down.

    Attributes:
        k: groups at this step.
        weakest: share of the variance explained between the least separated pair.
        pair: which two.
    """

    k: int
    weakest: float
    pair: tuple[int, int]


class MergeDown(NamedTuple):
    """What separation merge-down proposes, and its steps from `k_max` down to 2."""

    k: int
    steps: tuple[Step, ...]


def explained(space: Space, labels: Ints, centroids: Floats) -> Floats:
    """Share of the variance along the line between two centroids that their split explains.

    ``(k, k)``, symmetric, 1 on the diagonal and where nobody is. Both groups count alike: a small
    group far out is as separate as a large one.
    """
    k = len(centroids)
    flat, places = space.flat(), centroids * np.sqrt(space.weights)
    members = [flat[labels == label] for label in range(k)]
    shares = np.ones((k, k))
    for a in range(k):
        for b in range(a + 1, k):
            if len(members[a]) and len(members[b]):
                share = _explained(members[a], members[b], places[b] - places[a])
                shares[a, b] = shares[b, a] = share
    return shares


def _explained(first: Floats, second: Floats, line: Floats) -> float:
    one, two = first @ line, second @ line
    between = (one.mean() - two.mean()) ** 2 / 4.0
    within = (one.var() + two.var()) / 2.0
    return float(between / (between + within)) if between > 0 else 0.0


def merge_down(space: Space, start: Groups, enough: float = ENOUGH) -> MergeDown:
    """Merge the least separated pair, again and again, and say where it could have ended.

    The proposal is the largest k at which, along every line between two centroids, the split
    explains at least `enough` of the variance; 1 if there is none. After each merge Lloyd settles
    the rest.

    Measured (`python -m ops.bench.clusters --trials 100`: 2 to 7 bells with heavy tails and very
    different sizes, in 4 to 16 dimensions): exact in 92 %, within one in 99 %; silhouette 52 and
    83 %, Calinski-Harabasz 41 and 64 %, the elbow 28 and 54 %. On 60 such trials the share weighted
    by size, as variance usually is, was exact in 65 %. With under some 100 users a group the
    luckiest split of one bell reaches the limit too, and the answer tends to be one too many.

    Args:
        space: the users.
        start: groups to begin with, more than there may be.
        enough: the share.
    """
    groups = start
    steps: list[Step] = []
    proposal = 1
    while groups.k > 1:
        step, merged = _merge_weakest(space, groups)
        steps.append(step)
        if proposal == 1 and step.weakest >= enough:
            proposal = groups.k
        groups = merged
    return MergeDown(proposal, tuple(steps))


def merge_to(space: Space, start: Groups, k: int) -> Groups:
    """Merge the least separated pair until `k` groups are left, which have yet to settle."""
    groups = start
    while groups.k > k:
        _, groups = _merge_weakest(space, groups, HASTY)
    return groups


def _merge_weakest(space: Space, groups: Groups, rounds: int = 50) -> tuple[Step, Groups]:
    """The least separated pair, and the groups without its border after so many rounds of Lloyd."""
    centroids = groups.centroids
    shares = explained(space, groups.labels, centroids)
    np.fill_diagonal(shares, np.inf)
    a, b = (int(i) for i in np.unravel_index(shares.argmin(), shares.shape))
    sizes = np.bincount(groups.labels, minlength=groups.k)[[a, b]].clip(1)
    merged = np.average(centroids[[a, b]], axis=0, weights=sizes)
    kept = np.delete(centroids, [a, b], axis=0)
    settled = lloyd(space.points, np.vstack([kept, merged]), space.weights, rounds)
    step = Step(groups.k, float(shares[a, b]), (a, b))
    return step, Groups(assign(space.points, settled, space.weights), settled)


# -- stability -----------------------------------------------------------------------------------


def stability(
    space: Space, algorithm: Algorithm, groups: Groups, bootstraps: int, seed: int
) -> Floats:
    """How alike groups are when the users are drawn again, ``(bootstraps,)``.

    Each time as many users are drawn with replacement, grouped afresh, and those drawn are
    compared with the groups they have here, by the adjusted Rand index (Hubert and Arabie 1985): 1
    for the same groups, about 0 for groups by chance. The scheme is Hennig's (2007).
    """
    from sklearn.metrics import adjusted_rand_score  # noqa: PLC0415 - slow, see clustering

    rng = np.random.default_rng(seed)
    users = len(space.points)
    found: list[float] = []
    for _ in range(bootstraps):
        drawn = rng.integers(users, size=users)
        once, place = np.unique(drawn, return_index=True)
        again = algorithm.fit(space.where(drawn))
        found.append(float(adjusted_rand_score(groups.labels[once], again.labels[place])))
    return np.array(found)


def distinct(space: Space) -> int:
    """How many different points there are: no more groups than that can be told apart."""
    return len(np.unique(np.round(space.flat(), 9), axis=0))


# -- advice --------------------------------------------------------------------------------------


Firmness = Literal["firm", "open", "chosen", "loose"]


class Advice(NamedTuple):
    """How many segments to begin with, and how much that number means.

    Attributes:
        k: segments to begin with.
        firmness: *firm*: there are gaps between them, and they come back when users are drawn
            anew. *open*: gaps, but the groups do not come back. *chosen*: no gaps, so the number is
            a choice, and up to this one the groups come back. *loose*: neither.
    """

    k: int
    firmness: Firmness


def advise(proposal: int, stable: dict[int, float]) -> Advice:
    """Advice from the proposal of the merge-down and mean stability by k (from 2).

    Without gaps it is the largest k that is stable: more segments say more, as long as they are
    the same ones tomorrow.
    """
    if proposal > 1:
        return Advice(proposal, "firm" if stable.get(proposal, 0.0) >= STABLE else "open")
    lasting = [k for k, mean in stable.items() if mean >= STABLE]
    if lasting:
        return Advice(max(lasting), "chosen")
    return Advice(max(stable, key=lambda k: stable[k]), "loose")


K_MAX = 10
"""Segments from which to merge down: more than marketers ask for."""
SUGGEST_USERS = 1_024
SUGGEST_BOOTSTRAPS = 6
SUGGEST_STARTS = 2


def suggest(space: Space, seed: int) -> Advice:
    """The advice that a study comes to (see `advise`), from fewer users drawn less often.

    Where there are gaps, only the proposal is held against users drawn again. Some tenths of a second
    where there are, and a second or two where there are none.
    """
    few = space.where(np.arange(min(len(space.points), SUGGEST_USERS)))
    k_max = min(K_MAX, distinct(few) - 1)
    if k_max < 2:
        return Advice(1, "firm")
    proposal = merge_down(few, KMeans(k_max, seed=seed).fit(few)).k
    stable: dict[int, float] = {}
    for k in [proposal] if proposal > 1 else range(2, k_max + 1):
        kmeans = KMeans(k, SUGGEST_STARTS, seed)
        found = stability(few, kmeans, kmeans.fit(few), SUGGEST_BOOTSTRAPS, seed)
        stable[k] = float(found.mean())
    return advise(proposal, stable)
