"""What kind a centroid is of, by declared limits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stream.events import Floats
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.kinds import (
    APART,
    CHURN_RISK_KINDS,
    CUSTOMERS,
    DEFAULT_KINDS,
    FALLBACK_KIND,
    FALLBACK_RANK,
    KIND_SLACK,
    OUTLOOK,
    Bounds,
    KindRule,
    Members,
    Rung,
    kind_of,
    kinds,
    ladder,
    told_apart,
)

TABLE = FeatureTable(DEFAULT_FEATURES)

_PROFILE = {
    "days_since_seen": 1.0,
    "days_since_order": 20.0,
    "tenure_days": 300.0,
    "orders_180d": 3.0,
    CUSTOMERS: 1.0,
    OUTLOOK: 0.3,
}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("gone_visitor", {CUSTOMERS: 0.0, OUTLOOK: 0.0, "days_since_seen": 45}),
        ("browsing", {CUSTOMERS: 0.0, OUTLOOK: 0.0, "days_since_seen": 44, "tenure_days": 3}),
        ("dormant", {OUTLOOK: 0.12, "days_since_order": 120, "days_since_seen": 120}),
        ("at_risk", {OUTLOOK: 0.12, "days_since_order": 119, "days_since_seen": 120}),
        ("at_risk", {OUTLOOK: 0.0, "days_since_order": 500, "days_since_seen": 119}),
        ("at_risk", {OUTLOOK: 0.35, "days_since_order": 14}),
        (FALLBACK_KIND, {OUTLOOK: 0.2, "days_since_order": 13}),
        ("dormant", {OUTLOOK: 0.3, "days_since_order": 180, "days_since_seen": 120}),
        ("at_risk", {OUTLOOK: 0.3, "days_since_order": 179, "days_since_seen": 120}),
        ("at_risk", {OUTLOOK: 0.45, "days_since_order": 45}),
        ("promising", {OUTLOOK: 0.45, "days_since_order": 44}),
        ("champion", {OUTLOOK: 0.85}),
        ("champion", {OUTLOOK: 0.99, "days_since_order": 200}),
        ("loyal", {OUTLOOK: 0.6}),
        ("promising", {OUTLOOK: 0.99, "orders_180d": 0.9}),
        ("promising", {OUTLOOK: 0.59}),
        ("new", {OUTLOOK: 0.59, "tenure_days": 14, "orders_180d": 1.9}),
        ("champion", {OUTLOOK: 0.9, "tenure_days": 14, "orders_180d": 2.1}),
    ],
)
def test_the_first_rule_that_holds_names_the_kind(kind: str, values: dict[str, float]) -> None:
    assert kind_of(_PROFILE | values, DEFAULT_KINDS) == kind


def test_churn_risk_kinds_are_kinds() -> None:
    assert set(CHURN_RISK_KINDS) <= {rule.kind for rule in DEFAULT_KINDS}


def test_who_never_ordered_is_no_customer_at_risk() -> None:
    for days in (1, 60, 900):
        profile = _PROFILE | {CUSTOMERS: 0.0, OUTLOOK: 0.0, "days_since_seen": days}
        assert kind_of(profile, DEFAULT_KINDS) not in CHURN_RISK_KINDS


def test_the_better_the_outlook_the_better_the_kind() -> None:
    rank = {rung.kind: rung.rank for rung in ladder(DEFAULT_KINDS)}
    gone = _PROFILE | {"days_since_order": 130.0, "days_since_seen": 130.0}
    found = [
        rank[kind_of(gone | {OUTLOOK: share}, DEFAULT_KINDS)] for share in np.linspace(0, 1, 101)
    ]
    assert found == sorted(found)
    assert len(set(found)) == 5


def test_a_kind_is_kept_while_its_loosened_limits_hold() -> None:
    limit = 0.6
    just_below = {**_PROFILE, OUTLOOK: limit * (1 - KIND_SLACK) + 1e-9}
    assert kind_of(just_below, DEFAULT_KINDS, "loyal") == "loyal"
    assert kind_of(just_below, DEFAULT_KINDS, "champion") == "promising"
    assert kind_of(just_below, DEFAULT_KINDS) == "promising"
    farther = {**_PROFILE, OUTLOOK: limit * (1 - KIND_SLACK) - 0.01}
    assert kind_of(farther, DEFAULT_KINDS, "loyal") == "promising"


@given(st.floats(-100, 100), st.floats(-100, 100), st.floats(-200, 200))
@settings(deadline=None)
def test_slack_only_ever_loosens(low: float, high: float, value: float) -> None:
    for bounds in (Bounds(min=low), Bounds(max=high), Bounds(min=low, max=high)):
        assert bounds.hold(value, 0.15) or not bounds.hold(value)


@given(st.floats(0, 9), st.floats(-50, 50), st.floats(-200, 200))
@settings(deadline=None)
def test_a_limit_may_be_a_multiple_of_what_is_usual(
    times: float, usual: float, value: float
) -> None:
    assert Bounds(min_times=times).hold(value, usual=usual) == (value >= times * usual)
    assert Bounds(max_times=times).hold(value, usual=usual) == (value <= times * usual)
    # Both have to hold, and nothing is known where nothing is usual.
    assert not Bounds(min=value + 1, min_times=times).hold(value, usual=usual)
    assert not Bounds(min_times=times).hold(value)


def test_an_earlier_rule_wins_over_a_kept_kind() -> None:
    profile = {**_PROFILE, OUTLOOK: 0.1, "days_since_order": 130.0, "days_since_seen": 130.0}
    assert kind_of(profile, DEFAULT_KINDS, "at_risk") == "dormant"


def test_a_rule_needs_limits() -> None:
    with pytest.raises(ValidationError, match="give min, max"):
        Bounds()
    with pytest.raises(ValidationError):
        KindRule(kind="x", when={})


# -- of segments -----------------------------------------------------------------------------------


def vector(**values: float) -> Floats:
    return np.array([values.get(name, 0.0) for name in TABLE.names])


def members_of(*groups: list[Floats]) -> Members:
    labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    vectors = np.array([one for group in groups for one in group]).reshape(-1, len(TABLE.names))
    return Members(vectors, labels, TABLE.names, len(groups))


def test_a_profile_is_of_the_median_member_and_the_customers_among_them() -> None:
    visitors = [vector(days_since_seen=days, days_since_order=400.0) for days in (1, 2, 9)]
    buyers = [
        vector(days_since_order=days, tenure_days=days, orders_180d=1.0) for days in (1.0, 200.0)
    ]
    both, only = members_of([*visitors, buyers[0]], buyers).profiles()
    assert both["days_since_seen"] == 1.5
    assert (both[CUSTOMERS], only[CUSTOMERS]) == (0.25, 1.0)
    assert both[OUTLOOK] > only[OUTLOOK] > 0


def test_kinds_come_from_members_and_the_kind_before() -> None:
    rule = KindRule(kind="silent", when={"days_since_seen": Bounds(min=50)})
    members = members_of(*([vector(days_since_seen=days)] for days in (44.0, 44.0, 50.0)), [])
    found = kinds(members, [rule], [None, "silent", None, "silent"])
    # Who has no member in the sample keeps the kind.
    assert found == [FALLBACK_KIND, "silent", "silent", "silent"]


def test_a_rule_over_what_is_not_known_never_holds() -> None:
    members = Members(np.array([[5.0]]), np.array([0]), ("f0",), 1)
    assert kinds(members, DEFAULT_KINDS, [None]) == [FALLBACK_KIND]


def test_what_is_usual_is_the_median_of_who_has_it() -> None:
    members = members_of([vector(basket_value=value) for value in (0, 0, 0, 10, 20, 90)])
    assert members.usual[TABLE.names.index("basket_value")] == 20
    assert np.isnan(members.usual[TABLE.names.index("refunds_180d")])


def test_kinds_without_a_rank_stand_beside_the_ladder() -> None:
    rules = [
        KindRule(kind="good", when={OUTLOOK: Bounds(min=0.5)}, rank=2),
        KindRule(kind="odd", when={OUTLOOK: Bounds(max=0.1)}),
    ]
    left = Rung(FALLBACK_KIND, FALLBACK_RANK, "")
    assert ladder(rules) == (Rung("good", 2, ""), Rung("odd", 0, ""), left)
    assert ladder(rules[1:]) == (Rung("odd", 0, ""), Rung(FALLBACK_KIND, 0, ""))


def test_of_several_rules_of_a_kind_the_first_ranks_it() -> None:
    rules = [
        KindRule(kind="good", when={OUTLOOK: Bounds(min=share)}, rank=rank)
        for share, rank in ((0.5, 3), (0.2, 1))
    ]
    assert ladder(rules)[0] == Rung("good", 3, "")


RANKED = ("champion", "loyal", "promising", "at_risk", "dormant")


# -- told apart --------------------------------------------------------------------------------------


def chances(odds: list[float]) -> list[dict[str, float]]:
    """Profiles with these odds of an order."""
    return [{OUTLOOK: one / (1 + one)} for one in odds]


@pytest.mark.parametrize(
    ("odds", "counts", "expected"),
    [
        ([2.0, 1.0], [10, 20], ["loyal", "at_risk"]),
        ([1.4, 1.0], [10, 20], ["at_risk", "at_risk"]),
        ([1.4, 1.0], [30, 20], ["loyal", "loyal"]),
        ([0.9, 1.0], [30, 20], ["loyal", "loyal"]),
        ([1.4, 1.0], [0, 20], ["loyal", "at_risk"]),
    ],
)
def test_two_kinds_that_are_as_likely_to_order_are_one(
    odds: list[float], counts: list[int], expected: list[str]
) -> None:
    kinds_now = ["loyal", "at_risk"]
    found = told_apart(kinds_now, chances(odds), counts, DEFAULT_KINDS, [None, None])
    assert found == expected
    assert kinds_now == ["loyal", "at_risk"], "what is given is left alone"


def test_what_was_one_kind_stays_one_a_little_longer() -> None:
    now = ["loyal", "at_risk"]
    for odds, one in ((APART * 1.1, True), (APART * (1 + KIND_SLACK) * 1.01, False)):
        for before in (["loyal", "loyal"], ["loyal", "at_risk"]):
            found = told_apart(now, chances([odds, 1.0]), [9, 5], DEFAULT_KINDS, before)
            assert found == (["loyal", "loyal"] if one and len(set(before)) == 1 else now)


def test_what_has_been_of_one_kind_stays_of_it_whatever_most_members_would_be() -> None:
    now, counts = ["loyal", "at_risk"], [5, 9]
    for before, expected in (("loyal", "loyal"), ("at_risk", "at_risk"), ("champion", "at_risk")):
        found = told_apart(now, chances([1.2, 1.0]), counts, DEFAULT_KINDS, [before, None])
        assert found == [expected] * 2


def test_kinds_that_say_nothing_of_an_order_are_left_alone() -> None:
    now = ["new", "browsing", "promising"]
    found = told_apart(now, chances([1.0, 1.0, 1.0]), [9, 9, 9], DEFAULT_KINDS, [None] * 3)
    assert found == now
    assert told_apart(now, [{}, {}, {}], [9, 9, 9], DEFAULT_KINDS, [None] * 3) == now


@given(
    st.lists(
        st.tuples(st.sampled_from(RANKED), st.floats(0.01, 50), st.integers(0, 40)), max_size=9
    )
)
@settings(deadline=None)
def test_kinds_that_are_left_are_apart_by_what_they_are_likely_to_do(
    segments: list[tuple[str, float, int]],
) -> None:
    now, odds, counts = [list(column) for column in zip(*segments, strict=True)] or [[], [], []]
    found = told_apart(now, chances(odds), counts, DEFAULT_KINDS, [None] * len(now))
    shares = [one[OUTLOOK] for one in chances(odds)]
    means = []
    for kind in RANKED:
        here = [place for place, name in enumerate(found) if name == kind and counts[place]]
        if here:
            share = np.average([shares[p] for p in here], weights=[counts[p] for p in here])
            means.append(share / (1 - share))
    assert all(more >= APART * less * 0.999 for more, less in pairwise(means))
