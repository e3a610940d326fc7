"""Intruders are what they are called, and the page tells who is told from whom."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from ops.bench.intruders import LIVES, ORDERED, REFUNDED, VIEWED, Intruders, intruders, together
from ops.bench.unusual import OURS, section
from producers.traffic import SHOP_START_MS, encode, simulate
from stream.events import Ints
from stream.units import DAY_MS

DAYS = 42


@pytest.fixture(scope="module")
def found() -> Intruders:
    return intruders(4, 10, 500, DAYS, SHOP_START_MS)


def counted(found: Intruders, event: int) -> Ints:
    """How often each did something."""
    users = found.events.user[found.events.event == event] - found.first
    return np.bincount(users, minlength=len(found.kinds))


def test_each_kind_does_what_it_is_called_for(found: Intruders) -> None:
    kinds = np.array(found.kinds)
    views, orders, refunds = (counted(found, one) for one in (VIEWED, ORDERED, REFUNDED))
    assert list(dict.fromkeys(found.kinds)) == list(LIVES)
    assert views[kinds == "bot"].min() > 50 * max(1, int(orders[kinds == "bot"].max()))
    assert orders[kinds == "card tester"].min() >= 8
    back = (refunds / np.maximum(orders, 1))[kinds == "serial returner"]
    assert back.mean() > 0.5
    assert refunds[kinds != "serial returner"].sum() == 0
    events = found.events
    sold = events.where((events.event == ORDERED) & (kinds[events.user - 500] == "reseller"))
    assert np.median(sold.quantity) > 10


def test_they_come_among_the_others_in_the_order_of_time(found: Intruders) -> None:
    for batch in simulate(4, 500, 3):
        day_ms = int(batch.time_ms[0]) // DAY_MS * DAY_MS
        both = together(batch, found.on(day_ms))
        assert len(both) == len(batch) + len(found.on(day_ms))
        assert (np.diff(both.time_ms) >= 0).all()
        assert len(np.unique(both.number)) == len(both)
        assert len(encode(both, 4)) == len(both)
    sent = sum(len(found.on(SHOP_START_MS + day * DAY_MS)) for day in range(DAYS + 12))
    assert sent == len(found.events), "none is left out, but for what comes after the last day"


def test_a_section_tells_methods_pull_and_the_first() -> None:
    row = {kind: {"auc": 0.97, "told": 0.5} for kind in LIVES} | {"heavy": 0.02}
    worse = {kind: {"auc": 0.96, "told": 0.7} for kind in LIVES} | {"heavy": 0.04}
    shop = {
        "seed": 1, "of_each": 20, "rows": {OURS: row}, "pull": {"mapped": 0.2, "uncut": 9.0},
        "cost": {"users": 4_096, "evaluate_ms": 1.5, "place_ms": 1.1, "learn_ms": 9.0},
    }  # fmt: skip
    why = {"feature": "basket_items", "value": 12_540.0, "usual": 130.0, "share": 0.6}
    first = {
        "user": "13256",
        "value": 0.9995,
        "orders": 1.0,
        "money": 0.0,
        "like": "x",
        "why": [why],
    }
    report = {
        "simulated": [shop, shop | {"seed": 2, "rows": {OURS: worse}}],
        "first": {"shop": "a shop", "users": 900, "first": [first], "heavy": 0.03},
    }
    text = section(report, datetime.now(UTC), "told")
    assert f"| {OURS} | " + " | ".join(["0.960, 60%"] * 4) + " | 3.0% |" in text
    assert "by more than 0.20 standard deviations" in text
    assert "| 13256 | 99.95 % | 1 | 0 | x | basket_items 12,540 for 130, 60% |" in text
    assert "simulated" not in section(
        report | {"simulated": [], "first": None}, datetime.now(UTC), ""
    )
