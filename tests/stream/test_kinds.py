"""What kind a centroid is of, by declared limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stream.events import Floats
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.kinds import (
    CHURN_RISK_KINDS,
    DEFAULT_KINDS,
    FALLBACK_KIND,
    KIND_SLACK,
    Bounds,
    KindRule,
    kind_of,
    kinds,
)

TABLE = FeatureTable(DEFAULT_FEATURES)

_PROFILE = {
    "days_since_seen": 1.0,
    "days_since_order": 400.0,
    "tenure_days": 300.0,
    "orders_30d": 0.0,
    "orders_180d": 0.0,
    "views_7d": 0.0,
}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("dormant", {"days_since_seen": 120}),
        ("dormant", {"days_since_seen": 500, "orders_180d": 9}),
        ("at_risk", {"days_since_seen": 119.9}),
        ("at_risk", {"days_since_seen": 45, "tenure_days": 1}),
        ("champion", {"orders_30d": 2, "days_since_order": 30, "orders_180d": 5}),
        ("champion", {"tenure_days": 3, "orders_30d": 4, "days_since_order": 1}),
        ("loyal", {"orders_30d": 2, "days_since_order": 31, "orders_180d": 1.5}),
        ("loyal", {"tenure_days": 10, "orders_30d": 1, "orders_180d": 2.1}),
        ("browsing", {"views_7d": 0.5}),
        ("browsing", {"tenure_days": 3, "views_7d": 20}),
        ("new", {"tenure_days": 14, "orders_180d": 1.0, "views_7d": 20}),
        ("promising", {"tenure_days": 15, "orders_180d": 0.4}),
        (FALLBACK_KIND, {}),
    ],
)
def test_the_first_rule_that_holds_names_the_kind(kind: str, values: dict[str, float]) -> None:
    assert kind_of(_PROFILE | values, DEFAULT_KINDS) == kind


def test_churn_risk_kinds_are_kinds() -> None:
    assert set(CHURN_RISK_KINDS) <= {rule.kind for rule in DEFAULT_KINDS}


def test_a_kind_is_kept_while_its_loosened_limits_hold() -> None:
    limit = 45.0
    just_below = {**_PROFILE, "days_since_seen": limit * (1 - KIND_SLACK)}
    assert kind_of(just_below, DEFAULT_KINDS, "at_risk") == "at_risk"
    assert kind_of(just_below, DEFAULT_KINDS, "loyal") == FALLBACK_KIND
    assert kind_of(just_below, DEFAULT_KINDS) == FALLBACK_KIND
    farther = {**_PROFILE, "days_since_seen": limit * (1 - KIND_SLACK) - 0.01}
    assert kind_of(farther, DEFAULT_KINDS, "at_risk") == FALLBACK_KIND


@given(st.floats(-100, 100), st.floats(-100, 100), st.floats(-200, 200))
def test_slack_only_ever_loosens(low: float, high: float, value: float) -> None:
    for bounds in (Bounds(min=low), Bounds(max=high), Bounds(min=low, max=high)):
        assert bounds.hold(value, 0.15) or not bounds.hold(value)


def test_an_earlier_rule_wins_over_a_kept_kind() -> None:
    profile = {**_PROFILE, "days_since_seen": 130.0}
    assert kind_of(profile, DEFAULT_KINDS, "at_risk") == "dormant"


def test_a_rule_needs_limits() -> None:
    with pytest.raises(ValidationError, match="give min, max or both"):
        Bounds()
    with pytest.raises(ValidationError):
        KindRule(kind="x", when={})


def profile_rows(*profiles: dict[str, float]) -> Floats:
    typical = dict.fromkeys(TABLE.names, 0.0) | {"days_since_seen": 1.0, "tenure_days": 300.0}
    return np.array([[(typical | p)[name] for name in TABLE.names] for p in profiles])


def test_kinds_come_from_natural_values_and_the_kind_before() -> None:
    natural = profile_rows({"days_since_seen": 44.0}, {"days_since_seen": 44.0}, {})
    found = kinds(natural, TABLE.names, DEFAULT_KINDS, [None, "at_risk", "at_risk"])
    assert found == [FALLBACK_KIND, "at_risk", FALLBACK_KIND]
