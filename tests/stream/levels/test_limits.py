"""Limits of steps are found in a sample of the shop, and stand for a while."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stream.events import Floats
from stream.levels.declare import Level
from stream.levels.limits import FEWEST, STANDS_DAYS, followed, known_levels
from stream.levels.steps import NO_LEVELS, Levels
from stream.scores.model import Scores
from stream.units import DAY_MS
from tests.strategies import START_MS
from tests.stream.levels.making import BACK, LEVELS, SCORES

FEATURES = ("days_since_order", "orders_total", "revenue_total")
ABSENT = {"days_since_order": 400.0, "orders_total": 0.0, "revenue_total": 0.0}
TIER = Level.model_validate(
    {
        "name": "tier",
        "of": "revenue_total",
        "steps": [{"name": "high", "least_quantile": 0.9}, {"name": "regular"}],
    }
)
RISK = Level.model_validate(
    {
        "name": "risk",
        "of": BACK,
        "steps": [{"name": "low", "least_of_base": 1.5}, {"name": "high"}],
    }
)


def customers(users: int, more: float = 0.0) -> Floats:
    """Customers who spent 1, 2, 3 and so on, and as many visitors."""
    spent = np.arange(1.0, users + 1) + more
    ordered = np.column_stack([np.full(users, 10.0), np.ones(users), spent])
    return np.concatenate([ordered, np.tile([400.0, 0.0, 0.0], (users, 1))])


def found(
    *declared: Level,
    before: Levels = NO_LEVELS,
    vectors: Floats | None = None,
    each: Floats | None = None,
    scores: Scores | None = SCORES,
    days: float = 0,
    refits: bool = True,
) -> Levels:
    vectors = customers(1_000) if vectors is None else vectors
    return known_levels(
        declared, before, vectors, np.ones(len(vectors)) if each is None else each, FEATURES,
        ABSENT, scores, START_MS + round(days * DAY_MS), refits=refits,
    )  # fmt: skip


def limit(levels: Levels, name: str) -> float:
    (one,) = (level for level in levels.known if level.name == name)
    return one.steps[0].least


def test_a_share_is_one_of_customers() -> None:
    assert limit(found(TIER), "tier") == 900.0


def test_those_count_for_more_who_stand_for_more() -> None:
    each = np.ones(2_000)
    each[:100] = 100.0
    assert limit(found(TIER, each=each), "tier") == pytest.approx(100.0, abs=10)


def test_too_few_customers_tell_no_shares() -> None:
    assert found(TIER, vectors=customers(FEWEST - 1)).known == ()


def test_a_base_is_that_of_the_score() -> None:
    levels = found(RISK)
    assert limit(levels, "risk") == pytest.approx(1.5 * SCORES.learned[0].base)
    assert levels.known[0].steps[0].learned
    assert levels.known[0].rest == ""


def test_a_level_of_a_score_waits_for_it() -> None:
    assert [level.name for level in found(RISK, TIER, scores=None).known] == ["tier"]


def test_a_level_of_a_feature_begins_where_nothing_has_been_done() -> None:
    assert found(TIER).known[0].rest == "regular"


def test_limits_stand_until_a_refit_that_comes_late_enough() -> None:
    first, more = found(TIER), customers(1_000, more=500.0)
    for days, refits, moved in (
        (STANDS_DAYS - 1, True, False),
        (STANDS_DAYS + 1, False, False),
        (STANDS_DAYS + 1, True, True),
    ):
        now = found(TIER, before=first, vectors=more, days=days, refits=refits)
        assert limit(now, "tier") == (1_400.0 if moved else 900.0)


def test_what_is_declared_otherwise_is_found_at_once() -> None:
    first = found(TIER)
    data: dict[str, Any] = TIER.model_dump(exclude_none=True)
    data["steps"][0]["least_quantile"] = 0.5
    other = Level.model_validate(data)
    assert limit(found(other, before=first, refits=False), "tier") == 500.0


def test_limits_stay_where_none_can_be_found_anew() -> None:
    few = found(TIER, before=found(TIER), vectors=customers(3), days=STANDS_DAYS + 1)
    assert limit(few, "tier") == 900.0


def test_levels_follow_the_weights_of_their_scores_and_go_with_them() -> None:
    heavier = replace(SCORES, usual=99.0)
    now = followed(LEVELS, heavier)
    assert now.scores is not None
    assert (now.scores.usual, now.known) == (99.0, LEVELS.known)
    assert [level.name for level in followed(LEVELS, None).known] == ["purchase_stage"]


def test_they_are_published_and_read_back() -> None:
    assert Levels.from_json(LEVELS.to_json(), SCORES) == LEVELS
