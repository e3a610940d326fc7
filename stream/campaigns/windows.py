"""Follows who was decided for until their window is over: did they buy, for how much, are they active.

Comes in: who is measured from when on, purchases, where users are, what time it is. Goes out: sums by
version and arm, of users whose window is over; `effect` compares them.

A user counts once, when their window is over, by what happened within it: an interval that may be looked
at every day needs users who are independent of each other and all measured alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from stream.campaigns.state import NONE
from stream.events import Bools, Floats, Ints


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


class Windows:
    """Windows that are open, and the sums of those that are over.

    Attributes:
        sums: by version and arm.
    """

    def __init__(self) -> None:
        self.sums: dict[tuple[int, int], Sums] = {}
        self._slot: Ints = np.empty(0, np.int64)
        self._key: Ints = np.empty((0, 2), np.int64)
        self._begin: Ints = np.empty(0, np.int64)
        self._end: Ints = np.empty(0, np.int64)
        self._orders: Ints = np.empty(0, np.int64)
        self._revenue: Floats = np.empty(0, np.float64)

    def __len__(self) -> int:
        return len(self._slot)

    def open(self, slots: Ints, versions: Ints, arms: Ints, at_ms: Ints, ends_ms: Ints) -> None:
        """Begin to follow users, each for a version of a campaign and in an arm of it."""
        # Sorted by user, so that a purchase finds its windows by halving.
        slot = np.concatenate([self._slot, slots])
        order = np.argsort(slot, kind="stable")
        self._slot = slot[order]
        keys = np.stack([versions, arms], axis=1)
        self._key = np.concatenate([self._key, keys])[order]
        self._begin = np.concatenate([self._begin, at_ms])[order]
        self._end = np.concatenate([self._end, ends_ms])[order]
        self._orders = np.concatenate([self._orders, np.zeros(len(slots), np.int64)])[order]
        self._revenue = np.concatenate([self._revenue, np.zeros(len(slots))])[order]

    def bought(self, slots: Ints, at_ms: Ints, values: Floats, orders: Ints | None = None) -> None:
        """Count purchases in every open window that they lie in.

        Args:
            values: in the reporting currency; below zero for what was given back.
            orders: 1 for an order, 0 for what changes only its value, -1 for one that was given back
                whole; all are orders unless this is said.
        """
        known = slots != NONE
        counted = np.ones(len(slots), np.int64) if orders is None else orders
        slots, at_ms, values, counted = slots[known], at_ms[known], values[known], counted[known]
        first = np.searchsorted(self._slot, slots, side="left")
        windows = np.searchsorted(self._slot, slots, side="right") - first
        # A row for each purchase and window of its user.
        purchase = np.repeat(np.arange(len(slots)), windows)
        nth = np.arange(len(purchase)) - np.repeat(np.cumsum(windows) - windows, windows)
        window = first[purchase] + nth
        inside: Bools = (at_ms[purchase] >= self._begin[window]) & (
            at_ms[purchase] < self._end[window]
        )
        np.add.at(self._orders, window[inside], counted[purchase[inside]])
        np.add.at(self._revenue, window[inside], values[purchase[inside]])

    def close(self, until_ms: int, at_risk: Bools) -> int:
        """Add up the windows that ended; returns how many.

        Args:
            until_ms: purchases up to here have been counted.
            at_risk: by user, whether they are in a kind of churn risk.
        """
        over = self._end <= until_ms
        if not over.any():
            return 0
        keys, revenue = self._key[over], self._revenue[over]
        converted, active = self._orders[over] > 0, ~at_risk[self._slot[over]]
        for version, arm in np.unique(keys, axis=0).tolist():
            these = (keys[:, 0] == version) & (keys[:, 1] == arm)
            of_these = revenue[these]
            self.sums[version, arm] = self.sums.get((version, arm), Sums()) + Sums(
                int(these.sum()),
                int(converted[these].sum()),
                int(active[these].sum()),
                float(of_these.sum()),
                float(of_these @ of_these),
            )
        for name in ("_slot", "_key", "_begin", "_end", "_orders", "_revenue"):
            setattr(self, name, getattr(self, name)[~over])
        return int(over.sum())


def together(parts: Iterable[dict[tuple[int, int], Sums]]) -> dict[tuple[int, int], Sums]:
    """Sums of several partitions as one."""
    whole: dict[tuple[int, int], Sums] = {}
    for part in parts:
        for key, sums in part.items():
            whole[key] = whole.get(key, Sums()) + sums
    return whole
