"""An order is one thing, however often and in whatever order it is said."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.campaigns.purchases import BOUGHT, MOST, WHOLE, Purchases
from tests.stream.campaigns.making import bought

DAY = 86_400_000
EVER = (0, 1 << 60)


class Said(NamedTuple):
    """What a message says of an order; see `PurchaseColumns`."""

    order: int
    message: int
    at_ms: int
    value: float
    whole: bool
    given_back: bool
    rate: float = 1.0
    currency: int = 0


def said(order: int = 1, message: int = 0, at_ms: int = DAY, **fields: Any) -> Said:
    told: dict[str, Any] = {"value": 10.0, "whole": False, "given_back": False} | fields
    return Said(order, message, at_ms, **told)


def taken(*purchases: Said) -> Purchases:
    made = Purchases(30 * DAY)
    for one in purchases:
        take(made, 7, one)
    return made


def take(purchases: Purchases, slot: int, one: Said) -> None:
    purchases.take(*bought((slot, *one)))


def within(purchases: Purchases, slot: int, begin_ms: int, end_ms: int) -> tuple[int, float]:
    orders, values = purchases.within(*(np.array([one]) for one in (slot, begin_ms, end_ms)))
    return int(orders[0]), float(values[0])


def packed(purchases: Purchases, now_ms: int, slot: int = 7) -> list[int]:
    """Orders of a user that are still to be kept, by their hashes."""
    found: list[int] = purchases.pack(np.array([slot]), now_ms).orders["order"].tolist()
    return found


def refund(order: int = 1, message: int = 0, **fields: Any) -> Said:
    return said(order, message, **({"given_back": True} | fields))


@pytest.mark.parametrize(
    ("purchases", "left"),
    [
        ([said()], (1, 10.0)),
        ([said(), said(2)], (2, 20.0)),
        ([said(message=5), said(message=5)], (1, 10.0)),
        ([said(message=5), said(message=6, value=12.0)], (1, 12.0)),
        ([said(message=5), said(message=6, value=0.0, whole=True)], (1, 10.0)),
        ([said(0, 5), said(0, 5)], (1, 10.0)),
        ([said(0, 5), said(0, 6)], (2, 20.0)),
        ([said(0), said(0)], (2, 20.0)),
        ([said(), refund(value=4.0)], (1, 6.0)),
        ([said(), refund(value=4.0, message=5), refund(value=4.0, message=5)], (1, 6.0)),
        ([said(), refund(value=4.0), refund(value=6.0)], (0, 0.0)),
        ([said(), refund(whole=True, value=0.0)], (0, 0.0)),
        ([refund(whole=True, value=0.0), said()], (0, 0.0)),
        ([said(), refund(2, value=4.0)], (1, 10.0)),
        ([said(1), said(2, at_ms=2 * DAY), refund(0, value=4.0)], (2, 16.0)),
        ([refund(0, value=4.0)], (0, 0.0)),
        ([said(rate=0.5), refund(value=8.0, rate=-1.0)], (1, 6.0)),
        ([refund(value=8.0, rate=-1.0), said(rate=0.5)], (1, 6.0)),
        ([said(rate=0.5), refund(value=20.0, rate=-1.0)], (0, 0.0)),
        ([said(rate=0.5), refund(value=8.0)], (1, 2.0)),
        ([said(rate=0.5), said(value=16.0, rate=-1.0)], (1, 8.0)),
        # The rate has changed since: it is that of the order all the same.
        ([said(rate=0.5, currency=7), refund(value=8.0, rate=2.0, currency=7)], (1, 8.0)),
        ([said(rate=0.5, currency=7), refund(value=20.0, rate=1.0, currency=7)], (0, 0.0)),
        ([said(rate=0.5, currency=7), said(value=40.0, rate=2.0, currency=7)], (1, 10.0)),
        ([said(rate=-0.5, currency=7), refund(value=8.0, rate=2.0, currency=7)], (1, 8.0)),
        ([refund(value=8.0, rate=2.0, currency=7), said(rate=0.5, currency=7)], (1, 32.0)),
        ([said(rate=0.5, currency=7), refund(value=8.0, rate=2.0, currency=8)], (1, 2.0)),
    ],
)
def test_what_is_left(purchases: list[Said], left: tuple[int, float]) -> None:
    assert within(taken(*purchases), 7, *EVER) == left


def test_an_order_counts_at_the_earliest_time_that_was_said() -> None:
    for purchases in permutations(
        [said(at_ms=DAY), said(at_ms=3 * DAY), refund(at_ms=0, value=4.0)]
    ):
        found = taken(*purchases)
        assert within(found, 7, DAY, DAY + 1) == (1, 6.0)
        assert within(found, 7, 0, DAY) == (0, 0.0)


def test_a_window_has_its_begin_and_not_its_end() -> None:
    found = taken(said(at_ms=DAY))
    assert within(found, 7, DAY, DAY + 1)[0] == 1
    assert within(found, 7, DAY - 1, DAY)[0] == 0
    assert within(found, 8, *EVER) == (0, 0.0)
    assert within(found, 1_000, *EVER) == (0, 0.0)


def test_rows_bring_orders_back_with_what_they_lack() -> None:
    found = taken(said(message=5), refund(2, message=6, value=3.0))
    table = np.zeros((2, 4), BOUGHT)
    of_rows = found.pack(np.array([3, 7]), DAY)
    table[of_rows.row, of_rows.nth] = of_rows.orders
    loaded = Purchases(30 * DAY)
    loaded.load(np.array([3, 7]), table)
    assert within(loaded, 7, *EVER) == (1, 10.0)
    assert within(loaded, 3, *EVER) == (0, 0.0)
    take(loaded, 7, said(message=5))
    take(loaded, 7, said(2, message=8))
    take(loaded, 7, refund(2, message=8, value=3.0))
    assert within(loaded, 7, *EVER) == (2, 17.0)


def test_orders_are_kept_for_their_time_and_the_newest_of_many() -> None:
    found = taken(said(1, at_ms=0), said(2, at_ms=5 * DAY))
    assert packed(found, 31 * DAY) == [2]
    assert packed(found, 90 * DAY) == []
    assert within(found, 7, *EVER) == (0, 0.0)
    many = taken(*[said(n, at_ms=n) for n in range(1, MOST + 3)])
    assert packed(many, DAY) == list(range(3, MOST + 3))
    assert within(many, 7, *EVER)[0] == MOST


def test_who_is_forgotten_has_no_orders() -> None:
    found = taken(said())
    found.forget(np.array([7, 9]))
    assert within(found, 7, *EVER) == (0, 0.0)
    take(found, 9, said())
    assert within(found, 9, *EVER) == (1, 10.0)


def test_places_are_used_again() -> None:
    found = Purchases(30 * DAY)
    for day in range(1, 400):
        take(found, 7, said(day, at_ms=day * DAY))
        found.pack(np.array([7]), day * DAY)
    assert found.size <= 32


# -- against the same, one purchase at a time --------------------------------------------------


@dataclass
class Order:
    key: int
    at_ms: int
    message: int = 0
    value: float = 0.0
    rate: float = 1.0
    currency: int = 0
    named: bool = False
    refunds: list[tuple[float, bool]] = field(default_factory=list)
    placed: bool = False
    all_back: bool = False

    @property
    def left(self) -> float | None:
        refunded = sum(value * self.rate if own else value for value, own in self.refunds)
        if not self.placed or self.all_back or 0.0 < refunded >= WHOLE * self.value:
            return None
        return self.value - refunded


@dataclass
class Slow:
    """Orders of users in lists."""

    orders: dict[int, list[Order]] = field(default_factory=dict)

    def take(self, slot: int, one: Said) -> None:
        mine = self.orders.setdefault(slot, [])
        key = one.order if one.given_back else one.order or one.message
        found = next((each for each in mine if key and each.key == key), None)
        if one.given_back and not key:
            left = [each for each in mine if each.left is not None]
            found = max(left, key=lambda each: (each.at_ms, each.key, each.value), default=None)
            if found is None:
                return
        if found is None:
            found = Order(key, one.at_ms)
            mine.append(found)
        repeat = bool(one.message) and one.message == found.message
        if repeat and (one.given_back or found.placed):
            return
        found.message = one.message
        if not one.given_back:
            same = one.currency == found.currency > 0
            if not same and (one.rate > 0.0 or not (found.placed or found.named)):
                found.rate, found.currency = abs(one.rate), one.currency
            found.named = found.named or one.rate > 0.0
            is_own = one.rate < 0.0 or one.currency == found.currency > 0
            value = one.value * (found.rate / abs(one.rate)) if is_own else one.value
            found.value = found.value if found.placed and one.whole else value
            found.at_ms = min(found.at_ms, one.at_ms) if found.placed else one.at_ms
            found.placed = True
            return
        if one.rate > 0.0 and not found.placed and found.currency == 0 < one.currency:
            found.rate, found.currency = one.rate, one.currency
        if one.whole:
            found.all_back = True
        else:
            worth = one.value
            if one.currency == found.currency > 0:
                worth *= found.rate / abs(one.rate)
            found.refunds.append((one.value / -one.rate, True) if one.rate < 0 else (worth, False))

    def within(self, slot: int, begin_ms: int, end_ms: int) -> tuple[int, float]:
        left = [
            each.left
            for each in self.orders.get(slot, ())
            if begin_ms <= each.at_ms < end_ms and each.left is not None
        ]
        return len(left), sum(left)


PURCHASES = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.builds(
            Said,
            order=st.integers(0, 3),
            message=st.integers(0, 6),
            at_ms=st.integers(0, 5).map(lambda day: day * DAY),
            value=st.sampled_from([1.0, 2.0, 4.0]),
            whole=st.booleans(),
            given_back=st.booleans(),
            rate=st.sampled_from([1.0, 0.5, -2.0]),
            currency=st.sampled_from([0, 1, 1, 2]),
        ),
    ),
    max_size=30,
)


@settings(max_examples=200)
@given(purchases=PURCHASES, size=st.integers(1, 12), again=st.booleans())
def test_columns_come_to_the_same_as_one_purchase_at_a_time(
    purchases: list[tuple[int, Said]], size: int, again: bool
) -> None:
    fast, slow = Purchases(1_000 * DAY), Slow()
    everyone = np.arange(4)
    for begin in range(0, len(purchases), size):
        portion = purchases[begin : begin + size]
        fast.take(*bought(*[(slot, *one) for slot, one in portion]))
        for slot, one in portion:
            slow.take(slot, one)
        if again:
            of_rows = fast.pack(everyone, 0)
            table = np.zeros((4, MOST), BOUGHT)
            table[of_rows.row, of_rows.nth] = of_rows.orders
            fast = Purchases(1_000 * DAY)
            fast.load(everyone, table)
    for slot in range(4):
        for begin_ms, end_ms in ((0, 6 * DAY), (DAY, 3 * DAY)):
            assert within(fast, slot, begin_ms, end_ms) == slow.within(slot, begin_ms, end_ms)
