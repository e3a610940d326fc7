"""Holds the time of a log without marks to what it promises."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from consumers.watermark import time_reached
from stream.units import DAY_MS
from tests.strategies import START_MS

YEARS = 5 * 365 * DAY_MS
GUARD = 3


def reached(times: list[int]) -> int:
    return time_reached(np.array(times, np.int64), GUARD)


def test_users_from_the_future_take_nobody_along_until_there_are_enough() -> None:
    times = [START_MS + hour * 3_600_000 for hour in range(24)]
    assert reached(times) == times[-GUARD]
    assert reached([*times, START_MS + YEARS]) == times[-GUARD + 1]
    assert reached([*times, *[START_MS + YEARS] * (GUARD - 1)]) == times[-1]
    assert reached([*times, *[START_MS + YEARS] * GUARD]) == START_MS + YEARS


def test_too_few_users_have_reached_no_time() -> None:
    for few in range(GUARD):
        assert reached([START_MS + YEARS] * few) == 0
    assert reached([START_MS] * GUARD) == START_MS


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.integers(START_MS, START_MS + YEARS)),
        min_size=1,
        max_size=40,
    ),
    st.randoms(use_true_random=False),
)
def test_more_events_never_take_it_back_and_portions_make_no_difference(
    log: list[tuple[int, int]], random: Random
) -> None:
    def after(events: list[tuple[int, int]]) -> int:
        newest: dict[int, int] = {}
        for user, time_ms in events:
            newest[user] = max(newest.get(user, 0), time_ms)
        return reached(list(newest.values()))

    times = [after(log[:count]) for count in range(1, len(log) + 1)]
    assert times == sorted(times)
    mixed = list(log)
    random.shuffle(mixed)
    assert after(mixed) == times[-1]
