"""The slow twin finds the steps of the columns right, and every other step that cannot be wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream.levels.oracle import fault_of, values
from stream.levels.steps import KnownRule, KnownStep
from stream.scores.model import LearnedScore, Scores
from stream.units import DAY_MS
from tests.strategies import START_MS
from tests.stream.levels.making import (
    LEVELS,
    RISK,
    SCORES,
    STAGE,
    TABLE,
    Shop,
    model,
    order,
    view,
    with_odd,
)

WEIGHTS = tuple(0.1 * (place - 6) for place in range(13))
OF_EVERY_TURN = Scores(
    ("days_since_order", "orders_total", "tenure_days", "revenue_180d"),
    ("rises", "stays", "ages", "falls"),
    (2.0, 0.7, 3.0, 3.0),
    (1.0, 0.5, 0.5, 1.0),
    20.0,
    (
        LearnedScore("likely", "buy", 30.0, WEIGHTS),
        LearnedScore("money", "spend", 90.0, WEIGHTS, WEIGHTS[::-1]),
    ),
)


def played() -> Shop:
    """Sixty users: a third only look, the others order once or several times."""
    shop, random = Shop(), np.random.default_rng(3)
    events = [view(f"user{n}", START_MS, n) for n in range(20)]
    for n in range(20, 60):
        for again in range(int(random.integers(1, 5))):
            day = int(random.integers(0, 60))
            events.append(order(f"user{n}", START_MS + day * DAY_MS, 100 * n + again))
    events.sort(key=lambda one: one.time_ms)
    shop.act(events, START_MS + 60 * DAY_MS)
    shop.adopt(model(), START_MS + 60 * DAY_MS)
    shop.commit(START_MS + 60 * DAY_MS)
    return shop


def test_scores_are_those_of_the_columns() -> None:
    rows, at_ms = played().parts[0].rows, START_MS + 70 * DAY_MS
    vectors = TABLE.vectors(rows, at_ms)
    vectors[::5, TABLE.names.index("revenue_180d")] = -40.0
    expected = OF_EVERY_TURN.evaluate(vectors, TABLE.names)
    for vector, scores in zip(vectors.tolist(), expected.tolist(), strict=True):
        (told,) = values(OF_EVERY_TURN, dict(zip(TABLE.names, vector, strict=True)))
        for name, value in zip(OF_EVERY_TURN.names, scores, strict=True):
            found = told[name]
            assert found is None if np.isnan(value) else found == pytest.approx(value, rel=1e-9)


def test_how_unusual_somebody_is_is_that_of_the_columns() -> None:
    scores = with_odd().scores
    assert scores is not None
    vectors = np.exp(np.random.default_rng(4).normal(1.5, 1.5, (300, len(TABLE.names))))
    vectors[::7, TABLE.names.index("orders_total")] = 0.0
    vectors[::5] = 0.0
    column = scores.names.index("unusual")
    expected = scores.evaluate(vectors, TABLE.names)[:, column].tolist()
    assert min(expected) == 0.0
    assert max(expected) > 0.99, "beyond the last mark, too"
    for vector, value in zip(vectors.tolist(), expected, strict=True):
        (told,) = values(scores, dict(zip(TABLE.names, vector, strict=True)))
        assert told["unusual"] == pytest.approx(value, rel=1e-9)


def test_who_is_as_near_to_two_kinds_of_people_may_be_unusual_among_either() -> None:
    scores = with_odd().scores
    assert scores is not None
    assert scores.people is not None
    low, high = scores.people.habits
    between = replace(low, spread=(1.0, 1.0, 1.0))
    mirrored = replace(high, centre=tuple(-one for one in low.centre), spread=between.spread)
    people = replace(scores.people, habits=(between, mirrored), whitening=scores.people.whitening)
    features = dict.fromkeys(TABLE.names, 0.0)
    assert len(values(replace(scores, people=people), features)) == 2
    assert len(values(scores, features)) == 1


def test_every_step_that_an_owner_has_told_is_right_and_others_are_named() -> None:
    shop = played()
    named = 0
    for day in range(60, 200, 7):
        at_ms = START_MS + day * DAY_MS
        shop.sweep(at_ms)
        shop.commit(at_ms)
        vectors = TABLE.vectors(shop.parts[0].rows, at_ms)
        for user, vector in zip(shop.parts[0].names, vectors.tolist(), strict=True):
            (told,) = values(SCORES, dict(zip(TABLE.names, vector, strict=True)))
            steps = shop.steps()[user.decode()]
            for level in LEVELS.known:
                step = steps.get(level.name) or level.rest or None
                assert fault_of(level, step, told) == "", (user, level.name, step)
            wrong = {"prospect": "loyal", "first_time": "prospect", "loyal": "first_time"}
            stage = steps.get("purchase_stage") or "prospect"
            assert fault_of(STAGE, wrong[stage], told)
            ordered = told["likely_back"] is not None
            assert bool(fault_of(RISK, None, told)) == ordered
            likely = told["likely_back"]
            if likely is not None and likely < 0.2:
                named += 1
                assert "below it" in fault_of(RISK, "low", told)
                assert "below it" in fault_of(RISK, "medium", told)
            if likely is None:
                assert "has no score" in fault_of(RISK, "high", told)
    assert named > 100


@pytest.mark.parametrize(
    ("orders", "step", "fault"),
    [
        (2.9, "first_time", ""),
        (3.2, "first_time", ""),
        (3.31, "first_time", "has reached loyal"),
        (2.8, "loyal", ""),
        (2.69, "loyal", "is below it"),
    ],
)
def test_within_the_band_both_steps_are_right(orders: float, step: str, fault: str) -> None:
    level = replace(STAGE, slack=0.1)
    found = fault_of(level, step, {"orders_total": orders})
    assert found.endswith(fault) if fault else not found


def test_of_a_step_that_is_there_twice_either_limit_is_enough() -> None:
    more = KnownStep("first_time", "revenue_total", 50.0)
    level = replace(STAGE, steps=(STAGE.steps[0], STAGE.steps[1], more, STAGE.steps[2]))
    spent, ordered = (
        {"orders_total": 0.0, "revenue_total": 60.0},
        {"orders_total": 1.0, "revenue_total": 20.0},
    )
    assert fault_of(level, "first_time", spent) == ""
    assert fault_of(level, "first_time", ordered) == ""
    assert "has reached first_time" in fault_of(level, "prospect", spent)
    neither = {"orders_total": 0.0, "revenue_total": 20.0}
    assert "is below it" in fault_of(level, "first_time", neither)
    assert fault_of(level, "prospect", neither) == ""


def test_a_rule_comes_before_all_steps() -> None:
    rule = KnownRule("prospect", (("days_since_order", 30.0, None), ("visits_30d", None, 2.0)))
    level = replace(STAGE, rules=(rule,), slack=0.1)
    told = {"orders_total": 5.0, "days_since_order": 40.0, "visits_30d": 1.0}
    assert fault_of(level, "prospect", told) == ""
    assert "a rule says prospect" in fault_of(level, "loyal", told)
    near = told | {"days_since_order": 28.0}
    assert fault_of(level, "prospect", near) == "", "whoever is there may miss it by the slack"
    assert fault_of(level, "loyal", near) == ""
    assert "has reached loyal" in fault_of(level, "prospect", told | {"days_since_order": 20.0})
