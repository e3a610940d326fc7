"""What is said of an effect is what the numbers allow, and no more."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from stream.campaigns.arms import FIRST_ARM, HELD_OUT
from stream.campaigns.effect import (
    ALPHA,
    Comparison,
    Interval,
    compare,
    effect,
    newcombe,
    ratio_evidence,
    sequence_margin,
    users_needed,
    welch,
)
from stream.campaigns.windows import Sums
from tests.stream.campaigns.making import campaign


def sums(users: int, converted: int, revenue: float = 0.0, squares: float = 0.0) -> Sums:
    return Sums(users, converted, users // 2, revenue, squares)


def compared(treated: Sums, control: Sums, share: float = 0.5, **options: Any) -> Comparison:
    return compare("sent", treated, control, share, **{"hope": 0.02, "tuned_for": 5_000} | options)


def test_the_margin_is_the_papers_and_narrowest_where_it_is_tuned_for() -> None:
    """Against its bound written out: the boundary of Robbins' normal mixture, by root finding."""
    for users in (100, 5_000, 80_000):
        log = 2 * math.log(1 / ALPHA)
        rho2 = (log + math.log(1 + log)) / 5_000

        def mixture(total: float, users: int = users, rho2: float = rho2) -> float:
            grown = users * rho2 + 1
            return rho2 * total**2 / (2 * grown) - math.log(grown) / 2 - math.log(1 / ALPHA)

        total = optimize.brentq(mixture, 0, 100 * math.sqrt(users))
        assert sequence_margin(users, 5_000) == pytest.approx(total / users)
    best = min(range(500, 50_000, 500), key=lambda m: sequence_margin(5_000, m))
    assert best == 5_000
    fixed = stats.norm.ppf(0.975) / math.sqrt(5_000)
    assert 1.2 < sequence_margin(5_000, 5_000) / fixed < 1.6


def test_newcombes_interval_is_his() -> None:
    """His example (1998): 56/70 less 48/80 is .0524 to .3339 by method 10."""
    found = newcombe((56, 70), (48, 80))
    assert (round(found.low, 4), round(found.high, 4)) == (0.0524, 0.3339)


def test_welchs_interval_is_scipys() -> None:
    random = np.random.default_rng(3)
    one, other = random.lognormal(3, 1, 80), random.lognormal(2.8, 0.5, 300)
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    first, second = (
        sums(len(x), len(x), float(x.sum()), float((x**2).sum())) for x in (one, other)
    )
    found = welch(first, second)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert welch(sums(200, 0), sums(200, 0)) == Interval(0.0, 0.0)


def test_not_enough_yet_is_an_answer() -> None:
    for treated, control in (
        (sums(0, 0), sums(0, 0)),
        (sums(99, 60), sums(10_000, 1_000)),
        (sums(5_000, 3), sums(5_000, 1)),
        (sums(5_000, 5_000), sums(5_000, 4_999)),
    ):
        found = compared(treated, control)
        assert (found.verdict, found.missing) == ("not_enough_yet", None)
        assert found.conversion.sequence is None
        assert found.revenue.plain is None or found.conversion.plain is None
    close = compared(sums(1_000, 105), sums(1_000, 100))
    assert close.verdict == "not_enough_yet"
    assert close.missing is not None
    assert close.missing > 0


def test_a_verdict_says_which_way() -> None:
    assert compared(sums(5_000, 900), sums(5_000, 500)).verdict == "helps"
    assert compared(sums(5_000, 500), sums(5_000, 900)).verdict == "harms"
    # The plain interval alone is no verdict: it holds at one look.
    daily = compared(sums(2_000, 240), sums(2_000, 200))
    assert daily.conversion.plain is not None
    assert daily.conversion.plain.low > 0
    assert daily.verdict == "not_enough_yet"


def test_missing_users_are_seen_less_the_more_one_hopes_for() -> None:
    small = compared(sums(1_000, 105), sums(1_000, 100), hope=0.01).missing
    large = compared(sums(1_000, 105), sums(1_000, 100), hope=0.04).missing
    assert small is not None
    assert large is not None
    assert small > 5 * large
    needed = users_needed(0.02, 0.6, 5_000)
    power = stats.norm.ppf(0.8) / math.sqrt(needed)
    assert 0.6 * (sequence_margin(needed, 5_000) + power) == pytest.approx(0.02, rel=1e-3)


def test_a_small_holdout_costs_certainty() -> None:
    """The same users, once in halves and once with a holdout of five in a hundred."""
    half = compared(sums(5_000, 500), sums(5_000, 500)).conversion.sequence
    tenth = compared(sums(9_500, 950), sums(500, 50), 0.95).conversion.sequence
    assert half is not None
    assert tenth is not None
    assert tenth.high - tenth.low > 2 * (half.high - half.low)


def test_users_who_stand_in_other_arms_than_declared_are_noticed() -> None:
    assert ratio_evidence([500, 4_500], [0.1, 0.9]) < 1
    assert ratio_evidence([700, 4_300], [0.1, 0.9]) > 1_000
    assert ratio_evidence([0, 0], [0.1, 0.9]) == pytest.approx(1.0)
    # Nobody may be in an arm that is not there.
    assert ratio_evidence([1, 100], [0.0, 1.0]) == math.inf
    # Looked at after each of many users, it hardly ever cries.
    random = np.random.default_rng(1)
    alarms = 0
    for _ in range(200):
        held = np.cumsum(random.random(1_500) < 0.3)
        alarms += any(
            ratio_evidence([int(h), n + 1 - int(h)], [0.3, 0.7]) >= 20
            for n, h in list(enumerate(held))[::25]
        )
    assert alarms <= 0.05 * 200


def test_each_arm_is_compared_with_the_holdout_alone() -> None:
    declared = campaign(holdout=0.2, arms={"coupon": 3, "letter": 1}, goal={})
    found = effect(
        declared,
        {
            HELD_OUT: sums(2_000, 200),
            1: sums(9_999, 9_000),  # held out of everything: they get no other campaign either
            FIRST_ARM: sums(6_000, 1_000),
            FIRST_ARM + 1: sums(2_000, 210),
        },
    )
    assert [(c.arm, c.verdict) for c in found.comparisons] == [
        ("coupon", "helps"),
        ("letter", "not_enough_yet"),
    ]
    assert found.as_declared
    skewed = effect(declared, {HELD_OUT: sums(2_000, 200), FIRST_ARM: sums(9_000, 1_000)})
    assert not skewed.as_declared


def test_without_a_holdout_there_is_nothing_to_compare_with() -> None:
    found = effect(campaign(goal={}), {FIRST_ARM: sums(6_000, 1_000)})
    assert found.comparisons[0].verdict == "not_enough_yet"
    assert found.as_declared
