"""Says how far a shopper is from what people like them do, as the share of all who are less far.

Comes in: a sample of users with the segment of each. Goes out: a `Usual`, which is published with the scores, and
evaluates columns of users; it needs their vectors alone, so everybody has this score, customer or not.

Inputs are mapped to logs, without limits: who is far outside is what is looked for. Of each segment the sample
has a centre and a spread, both winsorised; all segments share one matrix of correlations within them (Ledoit and
Wolf 2004). A user is held against the segment that is nearest in all inputs, and is as far from it as
what they do differs from what is usual there (Mahalanobis 1936). What somebody does not do makes nobody unusual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from stream.clustering import NEXT_TO_NOTHING, quantiles, ranked
from stream.events import Floats, Ints
from stream.scores.logs import logs_of

FEWEST_USERS = 200
"""Of a sample: among fewer of them nobody can be told to be one in a hundred."""
FEWEST_OF_SEGMENT = 50
"""Of a sample: what fewer do is not yet what people do. Bots that are fewer are no kind of people."""
WINSOR = (0.05, 0.95)
"""Of each input within a segment: one shopper in 25 there may be none of its people, and changes nothing."""
LEAST_SHARE = 0.7
"""Of the spread that is usual within segments: a segment in which all do nothing of something is no reason
to tell whoever does it once. Weighed on two seeds of the simulated shop: with .1 half of the resellers are not
among the farthest hundredth, with 1.0 two in a hundred ordinary heavy buyers are, with .7 less than one."""
LEAST_LOG = 0.1
"""Spread in logs below which nobody is told apart."""
BELIEF = 50.0
"""Users whose spread a segment has as everybody has it: a small one is not believed alone."""
RIDGE = 0.05
"""Added to the correlations: two inputs that say nearly the same are not held against each other."""
SHARES = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.965, 0.98)
"""Of users, whose distances are published. Beyond the last one the tail is one of Pareto (Hill 1975)."""
LEAST_TAIL = 0.01


@dataclass(frozen=True)
class Habits:
    """What people of a segment do, in logs.

    Attributes:
        segment: id of the segment.
        centre, spread: of each input.
    """

    segment: int
    centre: tuple[float, ...]
    spread: tuple[float, ...]


class Farness(NamedTuple):
    """How far somebody is from whom.

    Attributes:
        value: share of users who are less far.
        segment: id of the segment whose people are most like them.
        squared: the squared distance, in spreads, over the number of inputs.
        parts: what each input adds to that; one that goes along with others may take some away.
        usual: what is usual there of each input, in natural units.
    """

    value: float
    segment: int
    squared: float
    parts: dict[str, float]
    usual: dict[str, float]


@dataclass(frozen=True)
class Usual:
    """What is usual among shoppers.

    Attributes:
        inputs: features, by column.
        habits: of each segment with people enough; at least one.
        whitening: ``(k, k)`` takes spreads of inputs to ones that have nothing to do with each other.
        shares, distances: how many users are less far than each of these distances, ascending.
        tail: of Pareto's tail beyond the last of these, the mean log of how much farther it goes.
        users: of the sample.
    """

    inputs: tuple[str, ...]
    habits: tuple[Habits, ...]
    whitening: tuple[tuple[float, ...], ...]
    shares: tuple[float, ...]
    distances: tuple[float, ...]
    tail: float
    users: int

    @cached_property
    def _centres(self) -> Floats:
        return np.array([one.centre for one in self.habits])

    @cached_property
    def _spreads(self) -> Floats:
        return np.array([one.spread for one in self.habits])

    @cached_property
    def _whitening(self) -> Floats:
        return np.array(self.whitening)

    @cached_property
    def _nearest(self) -> tuple[Floats, Floats]:
        """Weights of inputs and their squares, and what is added: squared distances, less the same of all."""
        weights = self._spreads**-2.0
        both = np.concatenate([-2.0 * self._centres * weights, weights], axis=1)
        return both, (self._centres**2 * weights).sum(axis=1)

    def readable(self, features: Sequence[str]) -> bool:
        """Whether a feature table has what it is computed from."""
        return set(self.inputs) <= set(features)

    def evaluate(self, vectors: Floats, features: Sequence[str]) -> Floats:
        """Share of users who are less far than each, ``(n,)``; to the bit, however many are asked about.

        Args:
            vectors: ``(n, features)`` in natural units.
        """
        _, away = self._away(vectors, features)
        return self.share_below(self._distance(away))

    def distance(self, vectors: Floats, features: Sequence[str]) -> Floats:
        """How far each is, ``(n,)``, in spreads."""
        _, away = self._away(vectors, features)
        return self._distance(away)

    def carried(self, vectors: Floats, features: Sequence[str]) -> Floats:
        """What each input adds to the squared distance, ``(n, inputs)``."""
        _, away = self._away(vectors, features)
        return self._parts(away)

    def explain(self, vector: Floats, features: Sequence[str]) -> Farness:
        """How far one user is, and which inputs make it."""
        place, away = self._away(vector[None, :], features)
        parts, habits = self._parts(away)[0], self.habits[int(place[0])]
        usual = np.copysign(np.expm1(np.abs(habits.centre)), habits.centre)
        return Farness(
            float(self.share_below(self._distance(away))[0]),
            habits.segment,
            float(parts.sum()),
            dict(zip(self.inputs, parts.tolist(), strict=True)),
            dict(zip(self.inputs, usual.tolist(), strict=True)),
        )

    def share_below(self, distance: Floats) -> Floats:
        """Share of users who are less far than a distance; above the last known one by its tail."""
        found = np.interp(distance, self.distances, self.shares)
        last = self.distances[-1]
        far = np.flatnonzero(distance > last)
        beyond = (distance[far] / last) ** (-1.0 / self.tail)
        found[far] = 1.0 - (1.0 - self.shares[-1]) * beyond
        return found

    def _away(self, vectors: Floats, features: Sequence[str]) -> tuple[Ints, Floats]:
        """Place of the nearest habits of each, and how far each input is from them, in spreads."""
        logs = logs_of(vectors.take([features.index(name) for name in self.inputs], axis=1))
        weights, added = self._nearest
        terms = np.concatenate([logs, logs * logs], axis=1)
        squared = np.empty((len(self.habits), len(logs)))
        for row, (each, constant) in enumerate(zip(weights, added.tolist(), strict=True)):
            np.einsum("nk,k->n", terms, each, out=squared[row])
            squared[row] += constant
        place = squared.argmin(axis=0)
        away = (logs - self._centres[place]) / self._spreads[place]
        away[np.abs(logs) <= NEXT_TO_NOTHING] = 0.0
        return place, away

    def _distance(self, away: Floats) -> Floats:
        found = np.zeros(len(away))
        for row in self._whitening:
            found += np.einsum("nk,k->n", away, row) ** 2
        found /= len(self.inputs)
        return np.sqrt(found, out=found)

    def _parts(self, away: Floats) -> Floats:
        found = np.empty_like(away)
        for column, row in enumerate(self._whitening.T @ self._whitening):
            found[:, column] = away[:, column] * np.einsum("nk,k->n", away, row)
        found /= len(self.inputs)
        return found


def learn(
    vectors: Floats, features: Sequence[str], segments: Ints, each: Floats, inputs: Sequence[str]
) -> Usual | None:
    """What is usual in a sample; None where too little has been seen to say.

    Args:
        vectors: ``(n, features)`` in natural units, in an order that does not depend on who sent them.
        segments: ``(n,)`` id of each one's segment; 0 for none.
        each: ``(n,)`` how many users each one stands for.
        inputs: features that it is computed from.
    """
    if not inputs or len(vectors) < FEWEST_USERS:
        return None
    logs = logs_of(vectors.take([features.index(name) for name in inputs], axis=1))
    ids, counts = np.unique(segments, return_counts=True)
    known = [
        segment
        for segment, count in zip(ids.tolist(), counts.tolist(), strict=True)
        if segment > 0 and count >= FEWEST_OF_SEGMENT
    ]
    if not known:
        return None
    kept = [_winsorised(logs[segments == segment]) for segment in known]
    centres = [some.mean(axis=0) for some in kept]
    away = [some - centre for some, centre in zip(kept, centres, strict=True)]
    common = np.maximum((np.concatenate(away) ** 2).mean(axis=0), LEAST_LOG**2)
    spreads = [np.sqrt(_variance(some, common)) for some in away]
    habits = tuple(
        Habits(segment, tuple(centre.tolist()), tuple(spread.tolist()))
        for segment, centre, spread in zip(known, centres, spreads, strict=True)
    )
    scaled = [some / spread for some, spread in zip(away, spreads, strict=True)]
    found = Usual(
        tuple(inputs), habits, _whitening(np.concatenate(scaled)), (0.0,), (0.0,), 1.0, len(vectors)
    )
    return _ranked(found, found.distance(vectors, features), each)


def _winsorised(logs: Floats) -> Floats:
    low, high = quantiles(ranked(logs), WINSOR).T
    found: Floats = np.clip(logs, low, high)
    return found


def _variance(away: Floats, common: Floats) -> Floats:
    """Of a segment: its own, as far as it has people, and never much below that within all."""
    own = ((away**2).sum(axis=0) + BELIEF * common) / (len(away) + BELIEF)
    found: Floats = np.maximum(own, LEAST_SHARE**2 * common)
    return found


def _whitening(away: Floats) -> tuple[tuple[float, ...], ...]:
    """The root of the inverse of correlations within segments."""
    from sklearn.covariance import ledoit_wolf  # noqa: PLC0415 - owners do not learn

    found, _ = ledoit_wolf(away, assume_centered=True)
    precision = np.linalg.inv(found + RIDGE * np.eye(len(found)))
    root = np.linalg.cholesky((precision + precision.T) / 2.0).T
    return tuple(tuple(row) for row in root.tolist())


def _ranked(found: Usual, distance: Floats, each: Floats) -> Usual | None:
    """With how far users are; None where nearly all are nowhere else than the others."""
    order = np.argsort(distance, kind="stable")
    distance, weight = distance[order], each[order]
    below = np.cumsum(weight) - weight
    places = np.searchsorted(below, np.array(SHARES) * weight.sum(), side="left")
    places = np.minimum(places, len(distance) - 1)
    # Of equal distances the least share: nobody is less far than those who are not far at all.
    distances, first = np.unique(distance[places], return_index=True)
    last = float(distances[-1])
    beyond = distance > last
    if last <= 0.0 or not beyond.any():
        return None
    shares = np.array(SHARES)[first]
    tail = float(np.average(np.log(distance[beyond] / last), weights=weight[beyond]))
    return Usual(
        found.inputs, found.habits, found.whitening, tuple(shares.tolist()),
        tuple(distances.tolist()), max(tail, LEAST_TAIL), found.users,
    )  # fmt: skip
