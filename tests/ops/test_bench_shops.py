"""The counter of false words and the yardstick of kinds can say no."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ops.bench import shoppers, shops
from ops.bench.shops import (
    DEMO_DAYS,
    FEWEST,
    HORIZON_MS,
    PLAIN_SENSE,
    PLAIN_TIMES,
    MonthEnd,
    Seen,
    Shop,
    by_share,
    crossed_share,
    foretold,
    of_demo,
    of_made,
    settings_of,
    too_few,
    watch,
    wilson,
)
from ops.bench.shops_made import JUDGED, MADE, START_MS, Made, made_events
from producers.traffic import simulate
from stream.config import Settings
from stream.events import EventColumns
from stream.features import DEFAULT_FEATURES
from stream.rehearsal import Rehearsal
from stream.units import DAY_MS

Parse: TypeAlias = Callable[[Sequence[str]], argparse.Namespace]

NOW_MS = 1_700_000_000_000
ENOUGH = 2 * Settings().learning.first_model_users
"""Shoppers of a shop that soon has a model: with fewer than half of them it never says a word."""


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


@pytest.mark.parametrize("shop", [*MADE, *JUDGED], ids=lambda shop: shop.name)
def test_a_made_shop_is_in_order_and_the_same_each_time(shop: Made) -> None:
    small = shop.scaled(0.05)
    one, other = made_events(small, 3), made_events(small, 3)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert (np.diff(one.time_ms) >= 0).all()
    users = sum(habit.users for habit in small.habits)
    assert len(set(one.user.tolist())) == users
    assert (one.value > 0).tolist() == (one.kind == 2).tolist()
    orders, back = one.order[one.kind == 2], one.order[one.kind == 3]
    assert len(set(orders.tolist())) == len(orders)
    assert set(back.tolist()) <= set(orders.tolist())
    assert bool(len(back)) == bool(small.refunds)
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


@pytest.mark.parametrize(
    ("one", "other", "few"),
    [((8, 40), (10, 40), True), ((200, 1_000), (220, 1_000), False), ((0, 30), (0, 30), True)],
)
def test_so_few_that_a_difference_would_not_show(
    one: tuple[int, int], other: tuple[int, int], few: bool
) -> None:
    assert too_few(one, other) == few


def test_a_share_among_the_others_gains_nothing_by_many_cells() -> None:
    rng = np.random.default_rng(4)
    bought, cells = rng.random(2_000) < 0.5, rng.integers(0, 400, 2_000)
    assert roc_auc_score(bought, by_share(cells, bought)) > 0.7
    assert roc_auc_score(bought, crossed_share(cells, bought)) < 0.52
    told = bought.astype(np.int64)
    assert roc_auc_score(bought, crossed_share(told, bought)) == 1.0


def test_every_default_word_has_a_plain_sense() -> None:
    words = {word for feature in DEFAULT_FEATURES for word in feature.words if word}
    assert words == PLAIN_SENSE.keys() | PLAIN_TIMES.keys()


def played(name: str, share: float, days: int, seed: int = 1) -> Seen:
    made = next(one for one in (*MADE, *JUDGED) if one.name == name)
    return watch(of_made(replace(made.scaled(share), days=days), seed))


def test_a_month_is_looked_at_before_anything_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    def play(_rehearsal: Rehearsal, _saw: Callable[[EventColumns], None]) -> Iterator[int]:
        for day in range(29, 33):
            happened.append(f"events until {day}")
            yield START_MS + day * DAY_MS

    def looked(_shop: Shop, _seen: Seen, _rehearsal: Rehearsal, at_ms: int) -> None:
        happened.append(f"look at {(at_ms - START_MS) // DAY_MS}")

    monkeypatch.setattr(shops, "look", looked)
    watch(Shop("any", settings_of("1d", "7d"), play))
    until = [f"events until {day}" for day in range(29, 33)]
    assert happened == [*until[:2], "look at 30", *until[2:], "look at 32"]


def test_where_most_are_gone_at_most_two_segments_are_dormant() -> None:
    seen = played("most gone", 0.12, 420)
    assert seen.dormant in {1, 2}
    kinds = [kind for kind in seen.ends[-1].kinds if kind]
    assert kinds.count("dormant") > 0.5 * len(kinds), "most of the shop is"
    assert seen.wrong == []


def test_regulars_are_not_moved_back_and_forth_between_their_orders() -> None:
    seen = played("fortnightly groceries", 0.3, 200, seed=5)
    taken_back = seen.changes.reverted.total() / seen.changes.total
    assert taken_back < 0.3, "half of all were, while time moved whoever was between two orders"
    # In the brackets of the table: a cell of the grid changes at the second and the fifth order, and
    # when somebody is silent for thirty days.
    assert seen.of_customers < 2 * seen.in_grid


@pytest.mark.slow
def test_in_the_demo_a_short_silence_moves_nobody_to_and_fro() -> None:
    seen = watch(of_demo(3, simulate(3, 1_500, DEMO_DAYS)))
    taken_back = seen.changes.reverted.total() / seen.changes.total
    assert 0 < taken_back < 0.1, "one in six was, while two days of silence moved people"
    assert seen.words > 0
    assert seen.wrong == []
    assert 1 <= seen.dormant <= 2
    assert min(seen.changes.silences) >= 10, "silence under ten days puts nobody at risk"


@pytest.mark.slow
@pytest.mark.parametrize("made", [*MADE, *JUDGED], ids=lambda made: made.name)
def test_words_and_kinds_are_true_in_any_shop(made: Made) -> None:
    users = sum(habit.users for habit in made.habits)
    share = max(0.1, ENOUGH / users)
    seen = played(made.name, share, min(made.days, 330), seed=11)
    assert len(seen.ends) >= 6, "there is a model for most of the year"
    assert seen.words > 0
    assert seen.wrong == []
    assert seen.dormant <= 2
    assert (seen.lifted, seen.new_again) == (0, 0), "nobody rises by time, or becomes new again"
    assert foretold(seen)["reversed_for_certain"] == 0
