"""The one range of times that can be meant, for mapping, replay, worker and marks.

Comes in: milliseconds since 1970, and what time it is. Goes out: whether that can be the time of
something a shopper did. What lies outside is a fault of a unit or a placeholder, such as 1900, 1970,
1980 or 9999.
"""

from __future__ import annotations

EARLIEST_MS = 788_918_400_000
"""1995-01-01: no web shop has an older order (the oldest public history, CDNOW's, begins in 1997).
Missing times of Unix, DOS and Excel lie before, and so does any time of today in seconds."""
LATEST_MS = 4_102_444_800_000
"""2100-01-01, whatever the wall clock says: later times are microseconds, or mean "never"."""


def can_be(time_ms: int, now_ms: int, tolerance_ms: int) -> bool:
    """Whether something can have happened at a time, as of now.

    Args:
        now_ms: by the wall clock.
        tolerance_ms: how far other clocks may be ahead of it; see `worker.future_seconds`.
    """
    return EARLIEST_MS <= time_ms < min(LATEST_MS, now_ms + tolerance_ms + 1)
