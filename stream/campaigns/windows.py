"""Follows who was decided for until their window is over: did they buy, for how much, are they active.

Comes in: who is measured from when on (`state.Pairs`), orders (`purchases`), where users are, what time it is.
Goes out: sums by version and arm, of users whose window is over; `effect` compares them.

A user counts once, when their window is over, by what happened within it: an interval that may be looked
at every day needs users who are independent of each other and all measured alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from stream.campaigns.purchases import Purchases
from stream.campaigns.state import NOT_DUE, Pairs, Users
from stream.events import Ints


@dataclass(frozen=True)
class Sums:
    """What came of the users of one version and arm; sums of partitions add up.

    Attributes:
        users: whose window is over.
        converted: of them, who did what the goal asks for.
        active: of them, who were in no kind of churn risk at the end of it.
        revenue: of all of them, within their windows.
        revenue_squares: of each user's, added up.
    """

    users: int = 0
    converted: int = 0
    active: int = 0
    revenue: float = 0.0
    revenue_squares: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Sums)))


class Ended(NamedTuple):
    """Windows that are over, a column a field."""

    slot: Ints
    version: Ints
    arm: Ints
    begin_ms: Ints
    end_ms: Ints


class Windows:
    """Windows of the pairs that are measured, and the sums of those that are over.

    Args:
        window_ms: length of the window, by version.

    Attributes:
        sums: by version and arm.
        still_open: by version and arm, users whose window is not over.
    """

    def __init__(self, users: Users, pairs: Pairs, purchases: Purchases, window_ms: Ints) -> None:
        self._users, self._pairs, self._purchases = users, pairs, purchases
        self._window_ms = window_ms
        self._next_ms = -NOT_DUE
        self.sums: dict[tuple[int, int], Sums] = {}
        self.still_open: dict[tuple[int, int], int] = {}

    def begin(self) -> None:
        """Go on with the pairs as they are."""
        pairs = self._pairs
        here = slice(0, pairs.size)
        is_open = (pairs.counted[here] > 0) & ~pairs.summed[here]
        versions = pairs.counted[here][is_open].astype(np.int64) - 1
        self._count(versions, pairs.counted_arm[here][is_open].astype(np.int64), 1)

    def opened(self, versions: Ints, arms: Ints, at_ms: Ints) -> None:
        """Users are measured from these times on."""
        if len(versions):
            ends = at_ms + self._window_ms[versions]
            self._next_ms = min(self._next_ms, int(ends.min()))
            self._count(versions, arms, 1)

    def close(self, until_ms: int, replaced: Iterable[Ended] = ()) -> Ints:
        """Add up the windows that are over; returns the places of their users.

        Args:
            until_ms: purchases and changes up to here are known.
            replaced: windows that were over when the user began to be measured for another version.
        """
        ended = list(replaced)
        if until_ms >= self._next_ms:
            ended.append(self._due(until_ms))
        touched = [np.empty(0, np.int64)]
        for one in ended:
            self._add(one)
            touched.append(one.slot)
        return np.unique(np.concatenate(touched))

    def _count(self, versions: Ints, arms: Ints, each: int) -> None:
        keys, counts = np.unique(np.stack([versions, arms], axis=1), axis=0, return_counts=True)
        for (version, arm), count in zip(keys.tolist(), counts.tolist(), strict=True):
            before = self.still_open.get((version, arm), 0)
            self.still_open[version, arm] = before + each * count

    def _due(self, until_ms: int) -> Ended:
        pairs = self._pairs
        here = slice(0, pairs.size)
        places = np.flatnonzero((pairs.counted[here] > 0) & ~pairs.summed[here])
        version = pairs.counted[places].astype(np.int64) - 1
        ends = pairs.counted_ms[places] + self._window_ms[version]
        due = ends <= until_ms
        self._next_ms = int(ends[~due].min(initial=NOT_DUE))
        places = places[due]
        pairs.summed[places] = True
        return Ended(
            pairs.user[places].astype(np.int64),
            version[due],
            pairs.counted_arm[places].astype(np.int64),
            pairs.counted_ms[places],
            ends[due],
        )

    def _add(self, ended: Ended) -> None:
        self._count(ended.version, ended.arm, -1)
        orders, revenue = self._purchases.within(ended.slot, ended.begin_ms, ended.end_ms)
        converted = orders > 0
        active = ~self._users.at_risk[ended.slot]
        keys = np.stack([ended.version, ended.arm], axis=1)
        for version, arm in np.unique(keys, axis=0).tolist():
            these = (ended.version == version) & (ended.arm == arm)
            of_these = revenue[these]
            self.sums[version, arm] = self.sums.get((version, arm), Sums()) + Sums(
                int(these.sum()),
                int(converted[these].sum()),
                int(active[these].sum()),
                float(of_these.sum()),
                float(of_these @ of_these),
            )
