"""Measures flapping: how often users leave a segment, and how many of them soon go back.

Comes in: the moves of each look, and how many users are in each segment. Goes out: tallies by
segment id, kept with a partition's position and told to the trainer; additive over partitions.

The tallies are decayed sums in the time of the clock in use, so that they tell of the present and
not of the shop's first days: after `publish.revert_seconds` an old change counts half.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from stream.units import DAY_MS

MOST_HALF_LIVES = 500.0
"""More leave nothing of anything, and the inverse of what they leave is no number."""


class Rates(NamedTuple):
    """Flapping of a segment; None where there is nothing to tell.

    Attributes:
        changes_per_user_day: changes out of it, by the days that users spent in it.
        reverted_share: of these changes, those back to the segment before.
    """

    changes_per_user_day: float | None = None
    reverted_share: float | None = None


NOTHING_TO_TELL = Rates()


class Tally(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Of one segment, decayed.

    Attributes:
        changes: moves of users who left it.
        reverted: those of them that went back to where the user had come from soon before.
        user_days: days that users spent in it.
    """

    changes: float = 0.0
    reverted: float = 0.0
    user_days: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.changes + other.changes,
            self.reverted + other.reverted,
            self.user_days + other.user_days,
        )

    def times(self, factor: float) -> Tally:
        return Tally(self.changes * factor, self.reverted * factor, self.user_days * factor)

    def rates(self) -> Rates:
        return Rates(
            self.changes / self.user_days if self.user_days > 0 else None,
            self.reverted / self.changes if self.changes > 0 else None,
        )


Tallies: TypeAlias = Mapping[int, Tally]


class Flapping(msgspec.Struct, frozen=True):
    """Tallies of a partition, by segment id; values, so an owner and a commit may share them.

    They are committed with the rows they were counted on: a crash loses none and counts none
    twice. A segment that retires takes its tally with it, and a store started anew begins at 0.

    Attributes:
        at_ms: up to when days were counted; 0 before the first sweep.
    """

    at_ms: int = 0
    tallies: dict[int, Tally] = {}

    def moved(
        self,
        changes: Mapping[int, int],
        reverted: Mapping[int, int],
        now_ms: int,
        half_life_ms: int,
    ) -> Flapping:
        """After so many changes out of each segment, some of them back to the one before."""
        # What the next sweep makes older by more than their age, they are given beforehand.
        weight = 1.0 / self._fading(now_ms, half_life_ms)
        found = dict(self.tallies)
        for segment, users in changes.items():
            more = Tally(users * weight, reverted.get(segment, 0) * weight)
            found[segment] = found.get(segment, Tally()) + more
        return Flapping(self.at_ms, found)

    def swept(self, sizes: Mapping[int, int], now_ms: int, half_life_ms: int) -> Flapping:
        """After a sweep that found so many users in each living segment.

        Args:
            half_life_ms: after which the past counts half; 0 never forgets.
        """
        factor = self._fading(now_ms, half_life_ms)
        days = self._passed(now_ms) / DAY_MS
        return Flapping(
            max(now_ms, self.at_ms),
            {
                segment: self.tallies.get(segment, Tally()).times(factor)
                + Tally(user_days=users * days)
                for segment, users in sizes.items()
            },
        )

    def _passed(self, now_ms: int) -> int:
        return max(now_ms - self.at_ms, 0) if self.at_ms else 0

    def _fading(self, now_ms: int, half_life_ms: int) -> float:
        """What the time since the last sweep leaves of a tally."""
        if half_life_ms == 0:
            return 1.0
        return math.exp2(-min(self._passed(now_ms) / half_life_ms, MOST_HALF_LIVES))


def counted(segments: npt.NDArray[np.int32]) -> dict[int, int]:
    """How many there are of each, without 0, which is none."""
    ids, times = np.unique(segments[segments > 0], return_counts=True)
    return dict(zip(ids.tolist(), times.tolist(), strict=True))


def together(parts: Iterable[Tallies]) -> dict[int, Tally]:
    """Tallies of all partitions."""
    found: dict[int, Tally] = {}
    for part in parts:
        for segment, tally in part.items():
            found[segment] = found.get(segment, Tally()) + tally
    return dict(sorted(found.items()))
