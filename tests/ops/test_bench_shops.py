"""The counter of false words and the yardstick of kinds can say no."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import pytest

from ops.bench import shoppers, shops
from ops.bench.shops import FEWEST, HORIZON_MS, MonthEnd, Seen, by_share, foretold, wilson
from ops.bench.shops_made import MADE, made_events
from stream.units import DAY_MS

Parse: TypeAlias = Callable[[Sequence[str]], argparse.Namespace]

NOW_MS = 1_700_000_000_000


def seen_of(kinds: dict[str, tuple[int, int]]) -> Seen:
    """Customers of these kinds: how many, and how many of them order in the 90 days after."""
    names = [kind for kind, (users, _) in kinds.items() for _ in range(users)]
    buys = [place < buyers for users, buyers in kinds.values() for place in range(users)]
    users = len(names)
    everyone = np.arange(users)
    seen = Seen(last_ms=NOW_MS + HORIZON_MS)
    end = MonthEnd(NOW_MS, names, np.ones(users, np.int64), np.full(users, 10.0))
    seen.ends.append(end)
    seen.orders.append((everyone, np.full(users, NOW_MS - 10 * DAY_MS)))
    later = everyone[np.array(buys)]
    seen.orders.append((later, np.full(len(later), NOW_MS + DAY_MS)))
    return seen


@pytest.mark.parametrize(
    ("kinds", "pairs", "touching", "turned_round"),
    [
        ({"champion": (200, 180), "loyal": (200, 120), "dormant": (200, 5)}, 2, 0, 0),
        ({"champion": (200, 130), "loyal": (200, 120)}, 1, 1, 0),
        ({"champion": (200, 100), "loyal": (200, 120)}, 1, 0, 1),
        ({"champion": (FEWEST - 1, 2), "loyal": (200, 120)}, 0, 0, 0),
        ({"new": (200, 2), "loyal": (200, 120)}, 0, 0, 0),
    ],
)
def test_kinds_are_held_against_what_comes(
    kinds: dict[str, tuple[int, int]], pairs: int, touching: int, turned_round: int
) -> None:
    found = foretold(seen_of(kinds))
    assert (found["pairs"], found["touching"], found["reversed"]) == (pairs, touching, turned_round)
    assert found["kinds"] == {kind: (part, whole) for kind, (whole, part) in kinds.items()}


def test_a_month_whose_ninety_days_are_not_over_is_not_judged() -> None:
    seen = seen_of({"champion": (100, 90), "loyal": (100, 10)})
    seen.last_ms -= 1
    assert foretold(seen)["months"] == []


def test_whoever_is_in_a_group_has_the_share_that_buys_in_it() -> None:
    bought = np.array([True, True, False, False])
    assert by_share(np.array([7, 7, 7, 3]), bought).tolist() == pytest.approx([2 / 3] * 3 + [0])


def test_an_interval_has_the_share_in_it_and_shrinks() -> None:
    for whole in (30, 300, 3_000):
        low, high = wilson(whole // 3, whole)
        assert 0 < low < 1 / 3 < high < 1
    assert wilson(100, 300)[1] - wilson(100, 300)[0] < wilson(10, 30)[1] - wilson(10, 30)[0]


@pytest.mark.parametrize("shop", MADE, ids=lambda shop: shop.name)
def test_a_made_shop_is_in_order_and_the_same_each_time(shop: object) -> None:
    small = next(one for one in MADE if one is shop).scaled(0.05)
    one, other = made_events(small, 3), made_events(small, 3)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert (np.diff(one.time_ms) >= 0).all()
    users = sum(habit.users for habit in small.habits)
    assert len(set(one.user.tolist())) == users
    assert (one.value > 0).tolist() == (one.kind == 2).tolist()
    some = one.between(int(one.time_ms[10]), int(one.time_ms[50]))
    assert (some.time_ms < one.time_ms[50]).all()
    assert some.time_ms[0] == one.time_ms[10]


@pytest.mark.parametrize("parse", [shops.parse, shoppers.parse])
def test_what_was_asked_for_can_be_typed_again(parse: Parse) -> None:
    for asked in ([], ["--only", "the grocer", "--seed", "3", "--scale", "0.5"]):
        wanted = parse(asked)
        assert parse(shlex.split(shops.asked_for(wanted))) == wanted


def test_shops_are_chosen_by_a_part_of_their_name() -> None:
    found = shoppers.shops(shoppers.parse(["--only", "GIFT"]))
    assert [shop.name for shop in found] == ["yearly gift shop"]
