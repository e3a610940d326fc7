"""Tells the time of live mode: the wall clock's, unless that jumps.

Comes in: a wall clock, and a monotonic one. Goes out: a time that never goes back, and does not leap:
people would be moved by time that has not passed.

If the wall clock is set by more than `JUMP_MS`, the monotonic clock, which nobody sets, shows it. Then time
goes on by the monotonic clock for `CONFIRM_SECONDS`. If the jump is taken back in that time, nothing has
happened. Otherwise the wall clock is followed: forwards at once (a machine slept, and its monotonic clock
stood still), backwards by standing still until it has caught up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from stream import metrics
from stream.units import readable_duration

log = logging.getLogger(__name__)

JUMP_MS = 60_000
"""NTP corrects less than this without a step, and a busy machine's two readings are closer."""
CONFIRM_SECONDS = 600.0
"""Longer than a clock is wrong while somebody sets it; short beside the half-lives of features."""


class Time(Protocol):
    """What the loops of `consumers` ask of the module `time`; tests move another one by hand."""

    def time_ns(self) -> int: ...
    def monotonic(self) -> float: ...
    def sleep(self, seconds: float, /) -> None: ...


class SteadyClock:
    """The time of one process.

    Args:
        wall_ms: the machine's time, which may be set.
        monotonic: seconds that pass, from any beginning.
    """

    def __init__(self, wall_ms: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._wall_ms = wall_ms
        self._monotonic = monotonic
        self._offset_ms = wall_ms() - round(monotonic() * 1_000)
        self._told_ms = 0
        self._jumped_at: float | None = None
        self._jump_ms = 0

    def now_ms(self) -> int:
        """What time it is; never earlier than told before."""
        wall, passed = self._wall_ms(), self._monotonic()
        jump = wall - round(passed * 1_000) - self._offset_ms
        if abs(jump) <= JUMP_MS:
            self._follow(jump)
        elif self._jumped_at is None or abs(jump - self._jump_ms) > JUMP_MS:
            self._notice(jump, passed)
        elif passed - self._jumped_at >= CONFIRM_SECONDS:
            log.warning("the wall clock stays where it jumped to; it is followed")
            self._follow(jump)
        self._told_ms = max(self._told_ms, round(passed * 1_000) + self._offset_ms)
        return self._told_ms

    def latest_ms(self) -> int:
        """The later of wall clock and time: what is after both has not happened yet."""
        return max(self._wall_ms(), self.now_ms())

    def _follow(self, jump_ms: int) -> None:
        """The wall clock is right; small steps are normal."""
        self._offset_ms += jump_ms
        if self._jumped_at is not None:
            self._jumped_at = None
            metrics.clock_jumped(0.0)

    def _notice(self, jump_ms: int, passed: float) -> None:
        self._jumped_at, self._jump_ms = passed, jump_ms
        metrics.clock_jumped(jump_ms / 1_000)
        log.warning(
            "the wall clock jumped %s by %s; time goes on as before, and follows it if it stays "
            "there for %s",
            "ahead" if jump_ms > 0 else "back",
            readable_duration(abs(jump_ms) / 1_000),
            readable_duration(CONFIRM_SECONDS),
        )
