"""Finds where the steps of levels begin in a shop: a share of its customers, or times its usual rate.

Comes in: declared levels, a sample of users, the scores in force, and the limits there are. Goes out: `Levels`, which
are published with the model.

Limits stand for `STANDS_DAYS`, and are found anew at the first refit after that: a tier whose limit moved with
every round would move customers who have done nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b

import numpy as np

from stream.events import Floats
from stream.levels.declare import Level, Step
from stream.levels.steps import NOWHERE, KnownLevel, KnownRule, KnownStep, Levels
from stream.scores.declare import ORDERS
from stream.scores.model import Scores, have_ordered
from stream.units import DAY_MS

STANDS_DAYS = 30
FEWEST = 100
"""Customers of a sample below whom nothing is known of their shares."""


def known_levels(
    declared: Sequence[Level],
    before: Levels,
    vectors: Floats,
    each: Floats,
    features: Sequence[str],
    absent: Mapping[str, float],
    scores: Scores | None,
    at_ms: int,
    *,
    refits: bool,
) -> Levels:
    """Levels whose limits can be known; the others have to wait.

    Args:
        before: as they were.
        vectors: ``(n, features)`` of a sample of users, in natural units.
        each: ``(n,)`` how many users each of these stands for.
        absent: of each feature, the value of whoever has done nothing.
        refits: whether limits may be found anew.
    """
    there = {level.name: level for level in before.known}
    inputs = {*features, *(() if scores is None else scores.names)}
    shares: _Shares | None = None
    found = []
    for level in declared:
        if not inputs.issuperset((*level.inputs, *level.asked)):
            continue
        known, digest = there.get(level.name), _digest(level)
        if known is not None and known.declared == digest:
            old = at_ms - known.since_ms >= STANDS_DAYS * DAY_MS
            if not (refits and old):
                found.append(known)
                continue
        shares = shares or _Shares(vectors, each, features, scores)
        limits = [_limit(level, step, shares, scores) for step in level.steps[:-1]]
        if all(limit is not None for limit in limits):
            steps = tuple(
                KnownStep(step.name, of, limit, of not in features)
                for step, limit in zip(level.steps, limits, strict=False)
                if limit is not None and (of := level.looks_at(step)) is not None
            )
            steps = (*steps, KnownStep(level.steps[-1].name))
            rules = tuple(
                KnownRule(rule.step, tuple((name, b.min, b.max) for name, b in rule.when.items()))
                for rule in level.rules
            )
            here = KnownLevel(level.name, steps, level.slack, "", digest, at_ms, rules)
            found.append(_with_rest(here, absent))
        elif known is not None:
            found.append(known)
    return Levels.of(found, scores)


def followed(before: Levels, scores: Scores | None) -> Levels:
    """Levels with the scores in force now; without those that look at a score there is no more."""
    names = () if scores is None else scores.names
    was = () if before.scores is None else before.scores.names
    gone = set(was) - set(names)
    kept = [level for level in before.known if not gone.intersection(level.inputs)]
    return Levels.of(kept, scores)


class _Shares:
    """What customers of a sample have of features and scores."""

    def __init__(
        self, vectors: Floats, each: Floats, features: Sequence[str], scores: Scores | None
    ) -> None:
        ordered = np.zeros(len(vectors), np.bool_)
        if ORDERS in features:
            ordered = have_ordered(vectors, features)
        self._vectors, self._each = vectors[ordered], each[ordered]
        self._features, self._scores = features, scores

    def quantile(self, of: str, share: float) -> float | None:
        """The value that a share of customers stay below; None where there are too few."""
        if len(self._vectors) < FEWEST:
            return None
        if of in self._features:
            values = self._vectors[:, self._features.index(of)]
        else:
            scores = None if self._scores is None else self._scores.only({of})
            assert scores is not None
            values = scores.evaluate(self._vectors, self._features)[:, 0]
        order = np.argsort(values, kind="stable")
        below = np.cumsum(self._each[order])
        place = int(np.searchsorted(below, share * below[-1]))
        return float(values[order[min(place, len(order) - 1)]])


def _limit(level: Level, step: Step, shares: _Shares, scores: Scores | None) -> float | None:
    of = level.looks_at(step)
    assert of is not None
    if step.least is not None:
        return step.least
    if step.least_of_base is not None:
        assert scores is not None
        base = next(score.base for score in scores.learned if score.name == of)
        return step.least_of_base * base
    assert step.least_quantile is not None
    return shares.quantile(of, step.least_quantile)


def _with_rest(level: KnownLevel, absent: Mapping[str, float]) -> KnownLevel:
    """With the step of whoever has done nothing; none where a score is looked at."""
    if not absent.keys() >= set(level.inputs):
        return level
    values = {name: np.array([absent[name]]) for name in (*level.inputs, *level.asked)}
    nobody = np.zeros(1, np.bool_)
    place = int(level.now(values, np.array([NOWHERE], np.int8), nobody, nobody)[0])
    return replace(level, rest=level.names[place])


def _digest(level: Level) -> str:
    return blake2b(level.model_dump_json().encode(), digest_size=8).hexdigest()
