"""Tells whether it is a quiet hour where a user lives, and when it ends.

Comes in: times, zones and declared hours. Goes out: for each time the first instant from it on that is
not quiet. The clock changes of a zone are looked up once and kept.
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta, tzinfo

import numpy as np

from stream.events import Bools, Ints
from stream.units import DAY_MINUTES, DAY_MS, MINUTE_MS, milliseconds
from stream.zones import zone

_YEARS_AROUND = 1
"""Looked up before and after the times that are asked for, so that a year is not looked up daily."""


class ZoneClock:
    """A zone's offsets from UTC.

    Args:
        name: of the zone, such as Europe/London; None for UTC, which every machine knows.
    """

    def __init__(self, name: str | None) -> None:
        self._zone: tzinfo = UTC if name is None else zone(name)
        self._first_year = self._last_year = 0
        self.changes_ms: Ints = np.empty(0, np.int64)
        self._offsets_ms: Ints = np.empty(0, np.int64)

    def offsets(self, times_ms: Ints) -> Ints:
        """Milliseconds that local time is ahead of UTC, of each time."""
        self._look_up(times_ms)
        return self._offsets_ms[np.searchsorted(self.changes_ms, times_ms, side="right")]

    def next_changes(self, times_ms: Ints) -> Ints:
        """When the offset next changes after each time; far in the future if it is not known to."""
        self._look_up(times_ms)
        far = np.append(self.changes_ms, np.iinfo(np.int64).max)
        return far[np.searchsorted(self.changes_ms, times_ms, side="right")]

    def _look_up(self, times_ms: Ints) -> None:
        first, last = _year(int(times_ms.min())), _year(int(times_ms.max()))
        if self._first_year < first and last < self._last_year:
            return
        first, last = first - _YEARS_AROUND, last + _YEARS_AROUND
        if self._last_year:
            first, last = min(first, self._first_year), max(last, self._last_year)
        # Nowhere does the clock change twice between two noons.
        day = datetime(first, 1, 1, 12, tzinfo=UTC)
        end = datetime(last + 1, 1, 1, 12, tzinfo=UTC)
        changes, offsets = [], [self._offset(day)]
        while day < end:
            after = day + timedelta(days=1)
            if (offset := self._offset(after)) != offsets[-1]:
                changes.append(self._moment_of_change(day))
                offsets.append(offset)
            day = after
        self.changes_ms = np.array(changes, np.int64)
        self._offsets_ms = np.array(offsets, np.int64)
        self._first_year, self._last_year = first, last

    def _moment_of_change(self, before: datetime) -> int:
        """To the minute: no zone changes within one."""
        old = self._offset(before)
        minutes = bisect_left(
            range(DAY_MINUTES),
            True,
            key=lambda minute: self._offset(before + timedelta(minutes=minute)) != old,
        )
        return milliseconds(before + timedelta(minutes=minutes))

    def _offset(self, moment: datetime) -> int:
        offset = moment.astimezone(self._zone).utcoffset()
        assert offset is not None
        return round(offset.total_seconds()) * 1_000


def _year(time_ms: int) -> int:
    return datetime.fromtimestamp(time_ms / 1_000, UTC).year


def not_quiet_from(clock: ZoneClock, hours: tuple[int, int], times_ms: Ints) -> Ints:
    """The first instant from each time on that is not quiet: the time itself where it is not.

    Args:
        hours: begin and end of the quiet hours in minutes since local midnight; the end is not
            quiet, and may lie on the next day.
    """
    free = times_ms.copy()
    left = np.arange(len(times_ms))
    while len(left):
        # What ends them may be a change of the clock into the next quiet hours.
        ends = _ends(clock, hours, free[left])
        left, ends = left[ends > free[left]], ends[ends > free[left]]
        free[left] = ends
    return free


def _ends(clock: ZoneClock, hours: tuple[int, int], times_ms: Ints) -> Ints:
    """When the quiet hours end in which each time lies; the time itself where it lies in none."""
    begin_ms, end_ms = (minutes * MINUTE_MS for minutes in hours)
    offsets = clock.offsets(times_ms)
    local = times_ms + offsets
    of_day = local % DAY_MS
    quiet = _within(of_day, begin_ms, end_ms)
    ends_local = local - of_day + end_ms + np.where(of_day >= end_ms, DAY_MS, 0)
    ends = ends_local - offsets
    # Between now and then the clock may change: the hours end sooner or later, or with the change.
    corrected = ends_local - clock.offsets(ends)
    ends = np.where(corrected > times_ms, corrected, ends)
    change = clock.next_changes(times_ms)
    sooner = quiet & (change < ends)
    if sooner.any():
        at = np.flatnonzero(sooner)
        after = (change[at] + clock.offsets(change[at])) % DAY_MS
        free = at[~_within(after, begin_ms, end_ms)]
        ends[free] = change[free]
    return np.where(quiet, ends, times_ms)


def _within(of_day: Ints, begin_ms: int, end_ms: int) -> Bools:
    if begin_ms < end_ms:
        return (of_day >= begin_ms) & (of_day < end_ms)
    return (of_day >= begin_ms) | (of_day < end_ms)
