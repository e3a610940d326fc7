"""Windows count what lies in them, once a user, and sums of partitions add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.campaigns.windows import Sums, Windows, together

DAY = 86_400_000
NOBODY = np.zeros(10, np.bool_)


def ints(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


def opened(*windows: tuple[int, int, int, int, int]) -> Windows:
    made = Windows()
    made.open(*(ints(*column) for column in zip(*windows, strict=True)))
    return made


def test_a_purchase_counts_in_every_window_that_it_lies_in() -> None:
    windows = opened((1, 0, 2, 0, DAY), (1, 1, 0, DAY // 2, 2 * DAY), (2, 0, 0, 0, DAY))
    at = ints(0, DAY // 2, DAY - 1, DAY, 5, -1)
    windows.bought(ints(1, 1, 1, 1, 3, 2), at, np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]))
    at_risk = np.array([False, False, True])
    assert windows.close(DAY - 1, at_risk) == 0
    assert windows.close(DAY, at_risk) == 2
    assert windows.sums == {(0, 2): Sums(1, 1, 1, 7.0, 49.0), (0, 0): Sums(1, 0, 0, 0.0, 0.0)}
    assert windows.close(2 * DAY, at_risk) == 1
    assert windows.sums[1, 0] == Sums(1, 1, 1, 14.0, 196.0)
    assert len(windows) == 0


def test_what_is_given_back_is_taken_back() -> None:
    windows = opened((1, 0, 2, 0, DAY), (2, 0, 2, 0, DAY))
    windows.bought(
        ints(1, 2, 1, 2), ints(1, 1, 2, 2), np.array([9.0, 9.0, -9.0, -4.0]), ints(1, 1, -1, 0)
    )
    windows.close(DAY, NOBODY)
    assert windows.sums[0, 2] == Sums(2, 1, 2, 5.0, 25.0)


def test_who_is_not_known_bought_nothing() -> None:
    windows = opened((0, 0, 2, 0, DAY))
    windows.bought(ints(-1, 5), ints(1, 1), np.ones(2))
    windows.close(DAY, NOBODY)
    assert windows.sums[0, 2].converted == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*([st.integers(0, 4)] * 2), st.integers(0, 3), st.integers(0, 9)), max_size=20
    ),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20), st.integers(1, 9)), max_size=20),
)
def test_partitions_add_up_to_the_whole(
    users: list[tuple[int, int, int, int]], purchases: list[tuple[int, int, int]]
) -> None:
    """And both to what a loop finds."""
    parts = []
    for part in (lambda user: user % 2 == 0, lambda user: user % 2 == 1, lambda _: True):
        windows = Windows()
        for user, version, arm, begin in users:
            if part(user):
                windows.open(*(ints(x) for x in (user, version, arm, begin, begin + 5)))
        bought = [p for p in purchases if part(p[0])]
        columns = [ints(*(p[place] for p in bought)) for place in range(3)]
        windows.bought(columns[0], columns[1], columns[2].astype(float))
        windows.close(100, NOBODY)
        parts.append(windows.sums)
    expected: dict[tuple[int, int], Sums] = {}
    for user, version, arm, begin in users:
        spent = [v for who, at, v in purchases if who == user and begin <= at < begin + 5]
        one = Sums(1, int(bool(spent)), 1, float(sum(spent)), float(sum(spent)) ** 2)
        expected[version, arm] = expected.get((version, arm), Sums()) + one
    assert parts[2] == expected
    assert together(parts[:2]).keys() == expected.keys()
    for key, one in together(parts[:2]).items():
        assert one.users == expected[key].users
        assert one.revenue == pytest.approx(expected[key].revenue)
