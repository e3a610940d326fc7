"""A score is what its weights say, adds up, and is the same for one user and among a thousand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from stream.events import Floats
from stream.scores.model import LearnedScore, Scores

FEATURES = ("days_since_order", "orders_total", "revenue_total", "other")
SCORES = Scores(
    inputs=("days_since_order", "revenue_total"),
    turns=("rises", "stays"),
    centre=(3.0, 4.0),
    spread=(1.5, 0.5),
    usual=30.0,
    learned=(
        LearnedScore(
            "likely", "buy", 30.0, (-1.0, -0.7, 0.3, 0.1, 0.2, 0.3, -0.1), base=0.2, labels=900
        ),
        LearnedScore(
            "money",
            "spend",
            90.0,
            (-0.5, -0.4, 0.2, 0.0, 0.1, 0.2, 0.0),
            (0.3, 0.0, 0.5, 0.1, 0.0, -0.2, 0.1),
        ),
    ),
)


def people(users: int) -> Floats:
    random = np.random.default_rng(5)
    return np.column_stack(
        [
            random.exponential(40, users),
            random.poisson(2, users).astype(float),
            random.exponential(100, users) - 10.0,
            random.random(users),
        ]
    )


def test_it_is_what_the_weights_say() -> None:
    vector = np.array([[10.0, 4.0, 80.0, 0.0]])
    z = [(math.log(11) - 3.0) / 1.5, (math.log(81) - 4.0) / 0.5]
    above = [(max(one, 0) ** 2 - 0.5) / math.sqrt(1.25) for one in z]
    below = [(0.5 - min(one, 0) ** 2) / math.sqrt(1.25) for one in z]
    terms = [1.0, *z, *above, *below]
    odds, worth = (
        sum(w * t for w, t in zip(weights, terms, strict=True))
        for weights in (SCORES.learned[1].buy, SCORES.learned[1].worth)
    )
    likely, money = SCORES.evaluate(vector, FEATURES)[0].tolist()
    own = sum(w * t for w, t in zip(SCORES.learned[0].buy, terms, strict=True))
    assert likely == pytest.approx(1 / (1 + math.exp(-own)))
    basket = (80.0 + 3 * 30.0) / (4 + 3)
    assert money == pytest.approx(1 / (1 + math.exp(-odds)) * basket * math.exp(worth))


def test_who_has_not_ordered_has_none_and_not_nothing() -> None:
    vectors = np.array([[400.0, 0.0, 0.0, 1.0], [3.0, 1.0, 20.0, 1.0]])
    found = SCORES.evaluate(vectors, FEATURES)
    assert np.isnan(found[0]).all()
    assert (found[1] > 0).all()
    assert SCORES.explain(vectors[0], FEATURES) == {}


def test_it_is_the_same_to_the_bit_alone_and_among_others() -> None:
    vectors = people(1_000)
    among = SCORES.evaluate(vectors, FEATURES)
    for size in (1, 3, 64, 777):
        alone = SCORES.evaluate(vectors[:size], FEATURES)
        assert np.array_equal(alone, among[:size], equal_nan=True)


def test_what_carries_it_adds_up_to_the_log_odds() -> None:
    for vector in people(50):
        for score, told in SCORES.explain(vector, FEATURES).items():
            assert told.base + sum(told.parts.values()) == pytest.approx(told.log_odds)
            if score == "likely":
                assert told.value == pytest.approx(1 / (1 + math.exp(-told.log_odds)))


def test_an_average_input_adds_nothing() -> None:
    average = np.array([math.e**3 - 1, 1.0, math.e**4 - 1, 0.0])
    told = SCORES.explain(average, FEATURES)["likely"]
    assert all(abs(part) < 1e-12 for part in told.parts.values())
    assert told.log_odds == pytest.approx(told.base)


def test_nothing_is_infinite_however_far_an_input_is() -> None:
    vectors = np.array([[1e12, 1.0, -1e15, 0.0], [0.0, 1e9, 1e15, 0.0]])
    assert np.isfinite(SCORES.evaluate(vectors, FEATURES)).all()


def test_it_is_published_and_read_back_to_the_bit() -> None:
    again = Scores.from_json(json.loads(json.dumps(SCORES.to_json())))
    assert again == SCORES


def test_a_table_without_its_inputs_cannot_be_read() -> None:
    assert SCORES.readable(FEATURES)
    assert not SCORES.readable(FEATURES[1:])
