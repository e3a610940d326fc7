"""Decides what time it is in a partition whose log has no marks of the shop's clock.

Comes in: the newest event of each of its users. Goes out: the time that the partition has reached. Who
writes one event, or one user with a wrong clock, must not take everyone to a time years ahead: so time
goes only to what several users have reached. It depends on the events read so far alone, never on the
portions in which they were read, and more events never take it back.
"""

from __future__ import annotations

import numpy as np

from stream.events import Ints


def time_reached(newest_ms: Ints, users: int) -> int:
    """The latest time that so many users have reached; 0 if there are not that many.

    Args:
        newest_ms: time of each user's newest event; 0 of one who has none.
        users: how many must have events of that time, or later ones.
    """
    if len(newest_ms) < users:
        return 0
    place = len(newest_ms) - users
    return int(np.partition(newest_ms, place)[place])
