"""Waits until the pipeline has taken in what the input topics hold.

Comes in: the store, and the ends of the topics. Goes out: progress, and whether it came to the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stream.store.promises import Positions
from stream.store.state import Position

_POLL_SECONDS = 0.2


_SILENT_SECONDS = 20.0
"""Without any progress for this long it is told that the pipeline may not be running."""


@dataclass(frozen=True)
class CaughtUp:
    """How far the pipeline is: records taken in, of all that there were, and a remark."""

    done: int
    total: int
    remark: str = ""


def wait_until_caught_up(
    store: Positions,
    ends: Sequence[Sequence[int]],
    mark_ms: int,
    tell: Callable[[CaughtUp], None],
    stop: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> bool:
    """Wait; says False if asked to stop before.

    Args:
        ends: of each partition, the offset after the last record, for each input topic.
        mark_ms: the mark that every partition has to complete; 0: the ends have to be reached. What
            stands behind the last mark waits for the next one, in the pipeline too.
        tell: is told how far it is.

    Raises:
        StoreUnavailableError: the store does not answer.
    """
    total = sum(sum(offsets) for offsets in ends)
    before, since = -1, monotonic()
    while not stop():
        positions = [store.position(number) for number in range(len(ends))]
        done = sum(_taken(position, end) for position, end in zip(positions, ends, strict=True))
        if done != before:
            before, since = done, monotonic()
        silent = monotonic() - since >= _SILENT_SECONDS
        tell(CaughtUp(done, total, "nothing moves: is `segstream run activity` up?" * silent))
        if all(
            _is_there(position, end, mark_ms) for position, end in zip(positions, ends, strict=True)
        ):
            return True
        sleep(_POLL_SECONDS)
    return False


def _taken(position: Position | None, ends: Sequence[int]) -> int:
    if position is None:
        return 0
    return sum(min(offset, end) for offset, end in zip(position.offsets, ends, strict=True))


def _is_there(position: Position | None, ends: Sequence[int], mark_ms: int) -> bool:
    if mark_ms:
        return position is not None and position.mark_ms >= mark_ms
    return _taken(position, ends) == sum(ends)
