"""Decides which time an event counts at, by its own time, its record's, and the wall clock.

Comes in: columns of times, and what time it is. Goes out: `Timed`, columns of times that can be; `decode`
is next. A message and its record mostly come from one clock, and can be wrong together: so both are
held against the wall clock of the reader, which does not share the fault.

1. A record's time limits its event: much older is *late*, newer by more than the tolerance is brought
   back to the record's time and the tolerance. This depends on the log alone.
2. A record's time that cannot be (seconds, microseconds, a placeholder), or that lies decades before an
   event that can have happened, limits nothing. Then only the wall clock does.
3. Nothing happens after the wall clock. An event after it, in a record after it or in one that limits
   nothing, is brought back to the wall clock. Only this depends on when the log is read.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stream.config import Worker
from stream.events import Bools, Ints
from stream.times import EARLIEST_MS, LATEST_MS
from stream.units import DAY_MS

DECADE_MS = 3_652 * DAY_MS
"""A record that is this much older than its event comes from a clock that was never set."""


class Timed(NamedTuple):
    """Times of events, an entry an event.

    Attributes:
        time_ms: at which the event counts.
        recorded_ms: of its record; where that limits nothing, the event's.
        late: whether the event is too old for its record.
        clamped: whether its time was brought back.
    """

    time_ms: Ints
    recorded_ms: Ints
    late: Bools
    clamped: Bools


class TimeRules:
    """The rules under one set of limits."""

    def __init__(self, worker: Worker) -> None:
        # Times are below `LATEST_MS`, so a larger limit means the same as that one.
        self._late_ms = int(min(worker.late_seconds * 1_000, LATEST_MS))
        self.tolerance_ms = int(min(worker.future_seconds * 1_000, LATEST_MS))

    def apply(self, time_ms: Ints, recorded_ms: Ints, now_ms: int) -> Timed:
        """Times of events that are in the range of `stream.times`, whatever their records say.

        Args:
            time_ms: as the messages say.
            recorded_ms: as the log says.
            now_ms: by the wall clock.
        """
        latest_ms = min(now_ms + self.tolerance_ms, LATEST_MS - 1)
        first_ms = recorded_ms.min(initial=latest_ms)
        if first_ms < EARLIEST_MS or recorded_ms.max(initial=0) > latest_ms:
            return self._hold_to_the_wall(time_ms, recorded_ms, now_ms)
        ahead = time_ms - recorded_ms
        if ahead.max(initial=0) > DECADE_MS:
            return self._hold_to_the_wall(time_ms, recorded_ms, now_ms)
        return Timed(
            np.minimum(time_ms, recorded_ms + self.tolerance_ms),
            recorded_ms,
            ahead < -self._late_ms,
            ahead > self.tolerance_ms,
        )

    def _hold_to_the_wall(self, time_ms: Ints, recorded_ms: Ints, now_ms: int) -> Timed:
        """The same, where records have times that limit nothing, or lie after the wall clock."""
        ahead_ms = now_ms + self.tolerance_ms
        can_be = (recorded_ms >= EARLIEST_MS) & (recorded_ms < LATEST_MS)
        # Computed only where the subtraction cannot overflow.
        older = np.where(can_be, recorded_ms, time_ms) < time_ms - DECADE_MS
        can_be &= ~(older & (time_ms <= ahead_ms))
        present = np.where(time_ms > ahead_ms, now_ms, time_ms)
        recorded = np.where(can_be, np.where(recorded_ms > ahead_ms, now_ms, recorded_ms), present)
        by_wall = ~can_be | (recorded_ms > ahead_ms)
        limit = recorded + self.tolerance_ms
        clamped = np.where(by_wall, time_ms > ahead_ms, time_ms > limit)
        back_to = np.where(by_wall, now_ms, limit)
        return Timed(
            np.where(clamped, back_to, time_ms),
            recorded,
            time_ms < recorded - self._late_ms,
            clamped,
        )
