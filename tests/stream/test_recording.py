"""Records tell what is known of users when they move: scores and populations, too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream.events import SEGMENT_CHANGE
from stream.model import Model
from stream.populations import EVERYONE
from stream.units import DAY_MS
from tests.strategies import START_MS
from tests.stream.levels.making import BACK, SCORES, TABLE, Shop, model, order, view


def test_a_change_tells_the_scores_that_a_user_has_at_that_time() -> None:
    shop, now_ms = Shop(), START_MS + 3 * DAY_MS
    shop.act([order("ann", START_MS, 1), view("bob", START_MS, 2)], START_MS)
    shop.adopt(model(), now_ms)
    found = {one["user"]: one for one in shop.commit(now_ms) if "to" in one}
    for one in found.values():
        assert SEGMENT_CHANGE.validate_python(one) == one
        assert (one["population_from"], one["population_to"]) == (None, EVERYONE)
    (part,) = shop.parts
    names = list(part.names)
    vectors = TABLE.vectors(part.rows, now_ms)
    expected = SCORES.evaluate(vectors, TABLE.names)[names.index(b"ann"), 0]
    assert found["ann"]["scores"] == {BACK: pytest.approx(expected, abs=5e-5)}
    assert 0.01 < expected < 0.99
    # Who has not ordered has none.
    assert found["bob"]["scores"] == {}


@pytest.mark.parametrize(
    "unscored",
    [
        replace(model(), scores=None),
        # Of a table with other features.
        replace(model(), scores=replace(SCORES, inputs=("no_such_feature", "orders_total"))),
    ],
)
def test_a_model_whose_scores_cannot_be_worked_out_tells_none(unscored: Model) -> None:
    shop = Shop()
    shop.act([order("ann", START_MS, 1)], START_MS)
    shop.adopt(unscored, START_MS)
    assert [one["scores"] for one in shop.commit(START_MS) if "to" in one] == [{}]


def test_a_crossing_of_a_level_tells_them_too() -> None:
    shop = Shop()
    shop.act([view("ann", START_MS, 1)], START_MS)
    shop.adopt(model(), START_MS)
    shop.act([order("ann", START_MS + 1, 2)], START_MS + 1)
    risk, stage = (one for one in shop.commit(START_MS + 1) if "level" in one)
    assert risk["of"] == BACK
    assert risk["scores"] == stage["scores"] == {BACK: pytest.approx(risk["value"], abs=5e-5)}


def test_scores_do_not_depend_on_who_is_told_with_a_user() -> None:
    alone, together = Shop(), Shop()
    orders = [order(f"user {n}", START_MS - n * DAY_MS, n + 1) for n in range(40)]
    alone.act(orders[:1], START_MS)
    together.act(orders, START_MS)
    told = []
    for shop in (alone, together):
        shop.adopt(model(), START_MS)
        records = [one for one in shop.commit(START_MS) if "to" in one]
        told.append(next(one["scores"] for one in records if one["user"] == "user 0"))
        assert np.unique([one["scores"][BACK] for one in records]).size == len(records)
    assert told[0] == told[1]
