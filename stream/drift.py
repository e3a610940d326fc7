"""Notices that a model no longer fits, before the next refit is due.

Comes in: the trainer's sample at each round. Goes out: alarms by name; `learning` refits on a new
one. Two looks at the same users: how far they are from their centroid (ADWIN, Bifet and Gavalda
2007, from river) and how each feature is distributed (population stability index, Siddiqi 2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stream.clustering import quantiles, ranked
from stream.events import Floats

DECILES = tuple(tenth / 10 for tenth in range(1, 10))
BLOCKS = 64
"""A round's distances enter ADWIN as means of so many groups of users: enough values to notice a
drift within a few rounds, few enough to be stored with the model."""
LEAST_SHARE = 1e-4
"""A bin nobody is in counts as this: the logarithm of nothing would be an alarm by itself."""


@dataclass(frozen=True)
class Drift:
    """What has been seen since a refit.

    Attributes:
        edges: of each feature, inner limits of its bins in standard deviations, at its deciles at
            the refit; fewer where many users have the same value.
        shares: of each feature, share of users in each bin at the refit.
        seen: means of log1p(squared distance) of groups of users, in the order seen.
        known: alarms that stood when the refit was done: more of the same would not mend them.
        at_ms: of the newest statistics seen; the same again tell nothing new.
    """

    edges: tuple[tuple[float, ...], ...]
    shares: tuple[tuple[float, ...], ...]
    seen: tuple[float, ...] = ()
    known: tuple[str, ...] = ()
    at_ms: int = 0

    @staticmethod
    def since(mapped: Floats, squared: Floats, at_ms: int, known: Sequence[str] = ()) -> Drift:
        """Begin with the users of a refit, ``(users, features)`` mapped; see `after`."""
        columns = ranked(mapped)
        edges = [np.unique(inner) for inner in quantiles(columns, DECILES)]
        shares = [_shares(column, inner) for column, inner in zip(columns, edges, strict=True)]
        return Drift(
            tuple(tuple(inner.tolist()) for inner in edges),
            tuple(tuple(share.tolist()) for share in shares),
            seen=_means(squared),
            known=tuple(known),
            at_ms=at_ms,
        )

    def after(self, squared: Floats, at_ms: int) -> Drift:
        """With a round's squared distances to the nearest centroid, ``(users,)``, by hash."""
        if at_ms <= self.at_ms:
            return self
        return replace(self, seen=(*self.seen, *_means(squared)), at_ms=at_ms)

    def distances_changed(self, delta: float) -> bool:
        """Whether ADWIN sees the mean distance change, at a false alarm rate of `delta`."""
        from river.drift import ADWIN  # noqa: PLC0415 - imports pandas, a second or two

        detector: Any = ADWIN(delta=delta)  # type: ignore[no-untyped-call]
        for value in self.seen:
            detector.update(value)
            if detector.drift_detected:
                return True
        return False

    def stability_index(self, mapped: Floats) -> Floats:
        """Population stability index of each feature, ``(features,)``: .1 is little, .25 much."""
        found = np.zeros(len(self.edges))
        for place, (column, edges, shares) in enumerate(
            zip(ranked(mapped), self.edges, self.shares, strict=True)
        ):
            now = np.maximum(_shares(column, np.array(edges)), LEAST_SHARE)
            then = np.maximum(np.array(shares), LEAST_SHARE)
            found[place] = ((now - then) * np.log(now / then)).sum()
        return found


def _means(squared: Floats) -> tuple[float, ...]:
    groups = np.array_split(np.log1p(squared), min(BLOCKS, len(squared)) or 1)
    return tuple(float(group.mean()) for group in groups if len(group))


def _shares(values: Floats, edges: Floats) -> Floats:
    """Share in each bin of values in order: a limit belongs to the bin above it."""
    ends = np.concatenate([[0], np.searchsorted(values, edges), [len(values)]])
    shares: Floats = np.diff(ends) / max(len(values), 1)
    return shares
