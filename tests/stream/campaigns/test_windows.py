"""Windows count what lies in them, once a user and version, and sums of partitions add up."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.campaigns.purchases import Purchases
from stream.campaigns.state import Pairs, Users
from stream.campaigns.windows import Ended, Sums, Windows
from tests.stream.campaigns.making import bought

DAY = 86_400_000
LENGTHS = np.array([DAY, 2 * DAY])


class Scene:
    """Users, their pairs and windows of two versions."""

    def __init__(self, users: int = 5) -> None:
        self.users, self.pairs, self.purchases = Users(), Pairs(), Purchases(30 * DAY)
        for number in range(users):
            self.users.slot_of(f"u{number}")
        self.windows = Windows(self.users, self.pairs, self.purchases, LENGTHS)

    def open(self, *windows: tuple[int, int, int, int]) -> None:
        """By user, version, arm and begin; versions are of campaigns of their own."""
        user, version, arm, at_ms = (np.array(one) for one in zip(*windows, strict=True))
        places = self.pairs.add(self.users, user, version)
        self.pairs.counted[places] = version + 1
        self.pairs.counted_arm[places] = arm
        self.pairs.counted_ms[places] = at_ms
        self.windows.opened(version, arm, at_ms)

    def buy(self, user: int, at_ms: int, value: float, order: int) -> None:
        self.purchases.take(*bought((user, order, 0, at_ms, value, False, False, 1.0, 0)))


def test_a_purchase_counts_in_every_window_that_it_lies_in() -> None:
    scene = Scene()
    scene.open((1, 0, 2, 0), (1, 1, 0, DAY // 2), (2, 0, 0, 0))
    for order, (user, at_ms) in enumerate(
        [(1, 0), (1, DAY // 2), (1, DAY - 1), (1, DAY), (3, 5), (2, -1)], start=1
    ):
        scene.buy(user, at_ms, 2.0 ** (order - 1), order)
    scene.users.at_risk[2] = True
    assert scene.windows.close(DAY - 1).tolist() == []
    assert scene.windows.close(DAY).tolist() == [1, 2]
    assert scene.windows.sums == {(0, 2): Sums(1, 1, 1, 7.0, 49.0), (0, 0): Sums(1)}
    assert scene.windows.still_open == {(0, 2): 0, (0, 0): 0, (1, 0): 1}
    assert scene.windows.close(5 * DAY).tolist() == [1]
    assert scene.windows.sums[1, 0] == Sums(1, 1, 1, 14.0, 196.0)
    assert scene.windows.close(50 * DAY).tolist() == []


def test_what_is_given_back_before_the_window_is_over_is_taken_back() -> None:
    scene = Scene()
    scene.open((1, 0, 2, 0), (2, 0, 2, 0))
    scene.buy(1, 5, 10.0, 1)
    scene.buy(2, 5, 10.0, 2)
    scene.purchases.take(*bought((1, 1, 0, 6, 0.0, True, True, 1.0, 0)))
    scene.windows.close(DAY)
    assert scene.windows.sums == {(0, 2): Sums(2, 1, 2, 10.0, 100.0)}


def test_a_window_that_made_place_for_another_is_added_up_as_well() -> None:
    scene = Scene()
    scene.open((1, 0, 2, 0))
    scene.buy(1, 5, 10.0, 1)
    one = [np.array([value]) for value in (1, 0, 2, 0, DAY)]
    scene.pairs.summed[0] = True
    assert scene.windows.close(0, [Ended(*one)]).tolist() == [1]
    assert scene.windows.sums == {(0, 2): Sums(1, 1, 1, 10.0, 100.0)}
    assert scene.windows.still_open == {(0, 2): 0}


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(0, 3), st.integers(0, 3 * DAY)),
        unique_by=lambda one: one[:2],
    ),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5 * DAY), st.integers(1, 50))),
    st.lists(st.integers(0, 6 * DAY), max_size=5),
)
def test_however_often_it_is_looked_the_sums_are_those_of_all_windows(
    windows: list[tuple[int, int, int, int]],
    purchases: list[tuple[int, int, int]],
    looks: list[int],
) -> None:
    scene = Scene()
    for order, (user, at_ms, value) in enumerate(purchases, start=1):
        scene.buy(user, at_ms, float(value), order)
    for one in windows:
        scene.open(one)
    for until_ms in [*sorted(looks), 6 * DAY]:
        scene.windows.close(until_ms)
    expected: dict[tuple[int, int], Sums] = {}
    for user, version, arm, begin in windows:
        spent = [
            value
            for buyer, at_ms, value in purchases
            if buyer == user and begin <= at_ms < begin + LENGTHS[version]
        ]
        mine = Sums(1, int(bool(spent)), 1, float(sum(spent)), float(sum(spent)) ** 2)
        expected[version, arm] = expected.get((version, arm), Sums()) + mine
    assert scene.windows.sums == expected
    assert not any(scene.windows.still_open.values())
