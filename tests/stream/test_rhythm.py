"""How soon customers order again is learned from what they do, in any shop's rhythm."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.events import Bools, Floats, Ints
from stream.rhythm import (
    BANDS,
    CUSTOMERS_NEED,
    GROUPS,
    NOTHING_SEEN,
    Customers,
    Seen,
    chance,
    customers,
    have_ordered,
    outlook,
    pace,
    readable,
    seen,
)
from stream.units import DAY_MS

NAMES = ("orders_180d", "days_since_order", "tenure_days")
DAYS = 720


class Clockwork:
    """Customers who order at gaps of their own until they quit, looked at every week."""

    def __init__(self, gap: float, shape: float, stay: float, users: int = 600) -> None:
        random = np.random.default_rng([int(gap), int(shape), users])
        self.users = users
        arrival = random.uniform(0, 200, users)
        quits = arrival + random.exponential(stay, users)
        gaps = random.gamma(shape, gap / shape, (users, int(DAYS / gap * 3) + 3))
        gaps[:, 0] = 0.0
        days = arrival[:, None] + gaps.cumsum(axis=1)
        self.arrival = arrival
        self.days = np.where((days <= quits[:, None]) & (days < DAYS), days, np.inf)

    def at(self, day: float) -> tuple[Ints, Floats]:
        """Who is known on a day, and their features."""
        users = np.flatnonzero(self.arrival <= day)
        mine = self.days[users]
        past = mine <= day
        last = np.where(past, mine, -np.inf).max(axis=1)
        orders = np.where(past, np.exp2(-(day - np.where(past, mine, day)) / 180), 0.0).sum(axis=1)
        return users, np.column_stack([orders, day - last, day - self.arrival[users]])

    def bought(self, users: Ints, day: float) -> Bools:
        mine = self.days[users]
        found: Bools = np.logical_or.reduce((mine > day) & (mine <= day + 90), axis=1)
        return found

    def learned(self, until: float) -> Seen:
        known = NOTHING_SEEN
        for day in np.arange(7.0, until + 1, 7.0):
            users, vectors = self.at(day)
            known = seen(
                known, users.astype(np.uint64), customers(vectors, NAMES), round(day * DAY_MS)
            )
        return known


@pytest.mark.parametrize(
    ("gap", "shape", "stay"), [(7, 4, 250), (30, 1, 200), (30, 300, 200), (90, 2, 500)]
)
def test_the_chance_of_an_order_is_what_comes_of_it(gap: float, shape: float, stay: float) -> None:
    shop = Clockwork(gap, shape, stay)
    known = shop.learned(500)
    users, vectors = shop.at(500)
    expected = chance(known, customers(vectors, NAMES))
    bought = shop.bought(users, 500)
    assert abs(expected.mean() - bought.mean()) < 0.06
    # Held against each other, who buys stands before who does not.
    order = np.argsort(-expected, kind="stable")
    third = len(order) // 3
    assert bought[order[:third]].mean() > bought[order[-third:]].mean() + 0.3


def test_nothing_is_needed_to_begin_with() -> None:
    found = Customers(np.array([0, 0, 12, 12]), np.array([1.0, 300.0, 1.0, 2_000.0]))
    expected = chance(NOTHING_SEEN, found)
    assert (np.diff(expected) < 0).tolist() == [True, False, True]
    assert ((expected > 0) & (expected < 1)).all()


def test_one_gap_says_less_of_a_customer_than_three() -> None:
    """An order that came in two parts, four days apart, makes nobody a customer who orders twice a week."""
    silence, gap = 17.0, 4.0
    found = customers(
        np.array([[1 + gaps, silence, silence + gaps * gap] for gaps in (1.0, 3.0)]), NAMES
    )
    once, often = chance(NOTHING_SEEN, found)
    assert once > 0.5 > often


def test_a_look_at_the_same_time_or_before_tells_nothing() -> None:
    found = Customers(np.array([0]), np.array([5.0]))
    known = seen(NOTHING_SEEN, np.array([1], np.uint64), found, 10 * DAY_MS)
    assert seen(known, np.array([1], np.uint64), found, 10 * DAY_MS) is known
    assert seen(known, np.array([1], np.uint64), found, 9 * DAY_MS) is known


def test_days_of_silence_and_orders_are_counted_where_they_were() -> None:
    hashes = np.array([1, 2], np.uint64)
    then = Customers(np.array([3, 4]), np.array([5.0, 38.0]))
    known = seen(NOTHING_SEEN, hashes, then, 10 * DAY_MS)
    # The first stays silent for a week, the second orders two days before its end.
    now = Customers(np.array([3, 4]), np.array([12.0, 2.0]))
    known = seen(known, hashes, now, 17 * DAY_MS)
    days = np.array(known.days).reshape(GROUPS, len(BANDS))
    orders = np.array(known.orders).reshape(GROUPS, len(BANDS))
    assert days[3, :4].tolist() == [0, 2, 5, 0]
    assert days[4, :7].tolist() == pytest.approx([2, 0, 0, 0, 0, 5, 0])
    assert days.sum() == pytest.approx(14)
    assert np.argwhere(orders).tolist() == [[4, 5]]


def test_who_is_not_followed_from_look_to_look_tells_nothing() -> None:
    found = Customers(np.array([3]), np.array([5.0]))
    known = seen(NOTHING_SEEN, np.array([1], np.uint64), found, 10 * DAY_MS)
    known = seen(known, np.array([2], np.uint64), found, 17 * DAY_MS)
    assert not any(known.days)


@given(st.lists(st.floats(0, 2_000), min_size=2, max_size=30), st.integers(0, GROUPS - 1))
@settings(deadline=None)
def test_the_outlook_leaves_the_order_of_customers(silences: list[float], group: int) -> None:
    found = Customers(np.full(len(silences), group), np.array(silences))
    likely, held = chance(NOTHING_SEEN, found), outlook(NOTHING_SEEN, found)
    assert ((held >= likely - 1e-12) & (held <= 1)).all()
    order = np.argsort(likely, kind="stable")
    assert (np.diff(held[order]) >= -1e-12).all()


def test_a_slow_shop_is_held_against_itself() -> None:
    slow = Clockwork(365, 20, 3_000, users=400)
    known = slow.learned(700)
    _, vectors = slow.at(700)
    found = customers(vectors, NAMES)
    assert chance(known, found).mean() < 0.45
    assert outlook(known, found).mean() > chance(known, found).mean() + 0.05


def test_a_part_of_a_shop_is_held_against_the_whole_shop() -> None:
    shop = Clockwork(30, 2, 200)
    known = shop.learned(500)
    _, vectors = shop.at(500)
    found = customers(vectors, NAMES)
    gone = found.silence > 150
    part = Customers(found.group[gone], found.silence[gone])
    usual = pace(known, found, np.ones(len(gone)))
    told = msgspec.structs.replace(known, usual=usual)
    assert outlook(told, part) == pytest.approx(outlook(known, found)[gone])
    assert outlook(told, part).mean() < 0.2 < outlook(known, part).mean()
    # Of whom one in two was sampled, each one counts for two.
    half = np.flatnonzero(~gone)[::2].tolist() + np.flatnonzero(gone).tolist()
    sampled = Customers(found.group[half], found.silence[half])
    each = np.where(sampled.silence > 150, 1.0, 2.0)
    assert pace(known, sampled, each) == pytest.approx(usual, abs=0.03)


def test_own_rhythm_is_told_by_orders_and_time() -> None:
    names = ("orders_total", *NAMES)
    rows = np.array([
        # orders_total, orders_180d, days_since_order, tenure_days
        [1.0, 0.9, 20.0, 300.0],
        [2.0, 1.5, 20.0, 50.0],
        [11.0, 9.0, 20.0, 90.0],
        [0.0, 0.4, 20.0, 90.0],  # one was taken back in part of what is counted
    ])  # fmt: skip
    assert customers(rows, names).group.tolist() == [0, 5, 2, 0]
    assert have_ordered(rows, names).all()


def test_a_decayed_count_stands_in_for_the_number_of_orders() -> None:
    shop = Clockwork(28, 500, 10_000, users=50)
    _, vectors = shop.at(600)
    group = customers(vectors, NAMES).group
    # Gaps of 28 days, many of them.
    assert (group == 1 + 2 * 2 + 1).mean() > 0.9


def test_what_is_read_has_to_be_there() -> None:
    assert readable(NAMES)
    assert not readable(NAMES[1:])
    assert set(NAMES) == set(CUSTOMERS_NEED)
