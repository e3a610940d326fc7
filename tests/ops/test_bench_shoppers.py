"""Rivals are what they are called, and none of them knows what has not come yet."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from ops.bench import calibration
from ops.bench.levels_told import Early, LevelsJudged, LevelsWatch, Told, judged
from ops.bench.rivals_of_scores import RIVALS, Looks, bg_nbd, days_of_orders
from ops.bench.shoppers import parse, section, shops
from stream.config import Settings
from stream.events import Cause
from stream.scores import progress
from stream.units import DAY_MS

START_MS = 20_000 * DAY_MS


def weeks_of_a_shop(users: int, weeks: int, days: float, seed: int = 1) -> list[Looks]:
    """Customers as BG/NBD thinks of them: rates from a gamma, who may leave at each order."""
    random = np.random.default_rng(seed)
    rate, leaves = random.gamma(0.8, 1 / 12, users), random.beta(1.0, 4.0, users)
    begins = random.uniform(0, 60, users)
    slots, times = [], []
    for user in range(users):
        day = begins[user]
        while day < weeks * 7 + days:
            slots.append(user)
            times.append(START_MS + round(day * DAY_MS))
            if random.random() < leaves[user]:
                break
            day += max(random.exponential(1 / rate[user]), 1.0)
    slot, time = np.array(slots), np.array(times)
    found = []
    for week in range(9, weeks):
        at_ms = START_MS + week * 7 * DAY_MS
        columns = days_of_orders(slot, time, at_ms, users)
        repeats, recency, age = columns
        later = slot[(time > at_ms) & (time <= at_ms + days * DAY_MS)]
        bought = (np.bincount(later, minlength=users) > 0).astype(float)
        inputs = np.log1p(np.column_stack(columns))
        found.append(
            Looks(
                at_ms, np.concatenate([inputs, inputs**2], axis=1), age - recency, repeats,
                recency, age, bought,
            )
        )  # fmt: skip
    return found


def test_bg_nbd_foretells_a_shop_that_is_as_it_thinks() -> None:
    weeks = weeks_of_a_shop(600, 20, 30.0)
    predicted = bg_nbd(weeks, 30.0)
    likely = np.concatenate([one for one in predicted if one is not None])
    bought = np.concatenate([week.bought for week in weeks])
    assert len(likely) == len(bought)
    assert progress.calibration(likely, bought) < 0.03
    assert (progress.auc(likely, bought) or 0) > 0.75


@pytest.mark.parametrize("title", RIVALS)
def test_what_is_not_complete_is_not_known(title: str) -> None:
    weeks = weeks_of_a_shop(150, 18, 30.0)
    other = [
        replace(week, bought=1.0 - week.bought) if number >= len(weeks) - 4 else week
        for number, week in enumerate(weeks)
    ]
    ours, theirs = (RIVALS[title](shop, 30.0) for shop in (weeks, other))
    assert ours[-1] is not None
    for one, another in zip(ours, theirs, strict=True):
        assert (one is None) == (another is None)
        if one is not None and another is not None:
            assert np.array_equal(one, another), "thirty days of these four weeks are not over"


def test_orders_of_a_day_are_one_and_those_to_come_are_none() -> None:
    slots = np.array([0, 0, 0, 2])
    times = np.array([10.0, 10.4, 30.0, 90.0])
    repeats, recency, age = days_of_orders(slots, (times * DAY_MS).astype(np.int64), 50 * DAY_MS, 3)
    assert repeats.tolist() == [1.0, 0.0, 0.0]
    assert recency[0] == 20.0
    assert age[0] == 40.0


def test_a_section_tells_every_method_and_the_money() -> None:
    row = {"method": "one", "auc": 0.75, "log_loss": 0.5, "calibration": 0.01}
    report = {
        "shop": "a shop", "horizons": {"30": {"looks": 1_200, "base": 0.25, "rows": [row]}},
        "money": {"captured": 0.5, "total": 1.02, "captured_by_past": 0.4},
        "levels": LevelsJudged(Early(40, 31.2), Early(3, None), 0.18, {"churn_risk": 1.9}, 0.02),
        "step_ms": 2.0, "kept_bytes": 1_500_000, "seconds": 3.0,
    }  # fmt: skip
    text = section([report, report | {"money": None, "levels": None}], datetime.now(UTC), "told")
    assert "| a shop | 40 | 31 d | 3 | never | 0.180 | churn_risk 1.90 | 0.020 |" in text
    assert "| a shop, 30 d | 1,200 | 0.250 | one | 0.750 | 0.500 | 0.010 |" in text
    assert "| a shop | 0.500 | 0.400 | 1.02 | 2.0 | 1.5 MB |" in text


def test_a_picture_shows_every_method_and_is_the_same_again(tmp_path: Path) -> None:
    row = {"calibration": 0.01, "bins": [[10, 0.1, 0.2], [10, 0.6, 0.5]]}
    rows = [row | {"method": name} for name in ("**ours**", "another")]
    report = {"shop": "Online Retail", "horizons": {"30": {"rows": rows}}}
    calibration.write(tmp_path, report)
    file = tmp_path / "calibration-online-retail.svg"
    first = file.read_bytes()
    for told in (b"ours: off by 0.010", b"another: off by 0.010", b"share who bought"):
        assert told in first
    calibration.write(tmp_path, report)
    assert file.read_bytes() == first
    calibration.write(tmp_path, {"shop": "empty", "horizons": {}})
    assert [one.name for one in tmp_path.iterdir()] == [file.name]


def test_what_was_told_is_held_against_the_orders_that_came() -> None:
    watch = LevelsWatch(Settings(), since_ms=START_MS)

    def told(slot: int, day: int, step_from: str | None, step_to: str, cause: Cause) -> None:
        at_ms = START_MS + day * DAY_MS
        watch.told.append(Told(at_ms, slot, "churn_risk", step_from, step_to, cause))

    # Who orders on days 1 and 30, and then no more, is told high 20 days after the last order.
    told(0, 1, None, "low", Cause.USER_MOVED)
    told(0, 50, "low", "high", Cause.TIME_PASSED)
    # Who orders every ten days, twelve times, and then no more, is never told.
    told(1, 1, None, "low", Cause.USER_MOVED)
    # Who is told high on day 40 orders on day 60; that was soon.
    told(2, 1, None, "low", Cause.USER_MOVED)
    told(2, 40, "low", "high", Cause.MODEL_MOVED)
    days = [(0, 1), (0, 30), *((1, 1 + 10 * n) for n in range(12)), (2, 1), (2, 60)]
    slots, times = (np.array(column) for column in zip(*days, strict=True))
    found = judged(watch, slots, START_MS + times * DAY_MS, START_MS + 366 * DAY_MS)
    assert found is not None
    # The last order of each: two were told, one after 20 days, one before it.
    assert found.all == Early(3, 20.0)
    assert found.best == Early(1, None)
    assert found.soon == 0.5
    assert found.a_year == {"churn_risk": pytest.approx(2 / 3)}
    assert found.by_models == 0.5
    assert judged(LevelsWatch(Settings()), slots, times, 0) is None


@pytest.mark.parametrize("falls", [True, False])
def test_whether_scores_are_bound_to_fall_is_asked_of_every_shop(falls: bool) -> None:
    option = "--falls" if falls else "--no-falls"
    a_file = ["--file", "orders.csv", "--mapping", "simple"]
    for more in (["--only", "grocer"], a_file):
        (shop,) = shops(parse([option, *more]))
        assert shop.settings.scoring.falls == falls
        assert shop.settings.foretold().falls == falls
