"""An order is one thing, however often and in whatever order it is said."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from stream.campaigns.purchases import BOUGHT, MOST, Purchase, Purchases

DAY = 86_400_000
EVER = (0, 1 << 60)


def said(order: int = 1, message: int = 0, at_ms: int = DAY, **fields: Any) -> Purchase:
    told = {"value": 10.0, "whole": False, "given_back": False} | fields
    return Purchase("u", order, message, at_ms, **told)


def taken(*purchases: Purchase) -> Purchases:
    made = Purchases(30 * DAY)
    for one in purchases:
        made.take(7, one)
    return made


def refund(order: int = 1, message: int = 0, **fields: Any) -> Purchase:
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
    ],
)
def test_what_is_left(purchases: list[Purchase], left: tuple[int, float]) -> None:
    assert taken(*purchases).within(7, *EVER) == left


def test_an_order_counts_at_the_earliest_time_that_was_said() -> None:
    for purchases in permutations(
        [said(at_ms=DAY), said(at_ms=3 * DAY), refund(at_ms=0, value=4.0)]
    ):
        found = taken(*purchases)
        assert found.within(7, DAY, DAY + 1) == (1, 6.0)
        assert found.within(7, 0, DAY) == (0, 0.0)


def test_a_window_has_its_begin_and_not_its_end() -> None:
    found = taken(said(at_ms=DAY))
    assert found.within(7, DAY, DAY + 1)[0] == 1
    assert found.within(7, DAY - 1, DAY)[0] == 0
    assert found.within(8, *EVER) == (0, 0.0)


def test_rows_bring_orders_back_with_what_they_lack() -> None:
    found = taken(said(message=5), refund(2, message=6, value=3.0))
    packed = np.zeros(4, BOUGHT)
    for place, one in enumerate(found.pack(7, DAY)):
        packed[place] = tuple(getattr(one, name) for name in BOUGHT.names or ())
    loaded = Purchases(30 * DAY)
    loaded.load(7, packed)
    assert loaded.within(7, *EVER) == (1, 10.0)
    loaded.take(7, said(message=5))
    loaded.take(7, said(2, message=8))
    loaded.take(7, refund(2, message=8, value=3.0))
    assert loaded.within(7, *EVER) == (2, 17.0)


def test_orders_are_kept_for_their_time_and_the_newest_of_many() -> None:
    found = taken(said(1, at_ms=0), said(2, at_ms=5 * DAY))
    assert [one.order for one in found.pack(7, 31 * DAY)] == [2]
    assert found.pack(7, 90 * DAY) == []
    assert len(found.slots) == 0
    many = taken(*[said(n, at_ms=n) for n in range(1, MOST + 3)])
    assert [one.order for one in many.pack(7, DAY)] == list(range(3, MOST + 3))


def test_who_is_forgotten_has_no_orders() -> None:
    found = taken(said())
    found.forget(7)
    assert found.within(7, *EVER) == (0, 0.0)
    assert len(found.slots) == 0
