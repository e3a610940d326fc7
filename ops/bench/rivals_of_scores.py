"""What else foretells who orders again, refitted from the whole history, and weekly or monthly at that.

Comes in: looks at customers, each with what came of it. Goes out: a probability a look, made with labels
only that were complete by then. `shoppers` holds scores against these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from river import compose, forest, linear_model, optim, preprocessing
from scipy.optimize import minimize
from scipy.special import betaln, gammaln
from sklearn.ensemble import HistGradientBoostingClassifier

from stream.events import Floats, Ints
from stream.units import DAY_MS

FIRST = 200
"""Labels before which a rival says nothing; it is judged where the scores have something to say, too."""
FEWEST_REPEATS = 50
MONTH_DAYS = 28
MOST_ROWS = 60_000
"""Of the newest looks that gradient boosting is fitted to."""
FOREST_LABELS = 600
"""A week that the forest learns at the most: one takes it a millisecond. Ours learns of a sample, too."""


@dataclass(frozen=True)
class Looks:
    """A week's look at every customer.

    Attributes:
        inputs: ``(n, k)`` in log units, each with its square behind.
        silence: days since the last order.
        repeats, recency, age: for BG/NBD: days with an order after the first one, days from the first to
            the last, days from the first to now.
        bought: 1 for an order within the horizon.
    """

    at_ms: int
    inputs: Floats
    silence: Floats
    repeats: Floats
    recency: Floats
    age: Floats
    bought: Floats


Predicted: TypeAlias = list[Floats | None]
Rival: TypeAlias = Callable[[list[Looks], float], Predicted]


def _complete(weeks: list[Looks], days: float) -> Iterator[tuple[Looks, list[Looks]]]:
    """Each week with those before it of which all is known by then."""
    for week in weeks:
        yield week, [one for one in weeks if one.at_ms + days * DAY_MS <= week.at_ms]


def recency(weeks: list[Looks], days: float) -> Predicted:
    """A logistic regression on the log of the silence, refitted every week."""
    found: Predicted = []
    weights = np.zeros(2)
    for week, known in _complete(weeks, days):
        silence = np.concatenate([np.log1p(one.silence) for one in known] or [np.empty(0)])
        bought = np.concatenate([one.bought for one in known] or [np.empty(0)])
        silence, bought = silence[-MOST_ROWS // 4 :], bought[-MOST_ROWS // 4 :]
        if len(bought) < FIRST or not 0 < bought.sum() < len(bought):
            found.append(None)
            continue
        weights = _logistic(np.column_stack([np.ones(len(silence)), silence]), bought, weights)
        found.append(1.0 / (1.0 + np.exp(-(weights[0] + weights[1] * np.log1p(week.silence)))))
    return found


def _logistic(inputs: Floats, bought: Floats, weights: Floats) -> Floats:
    """Newton's steps, from the weights of the week before."""
    for _ in range(6):
        likely = 1.0 / (1.0 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        slope = inputs.T @ (bought - likely) - 1e-3 * weights
        bend = (inputs * (likely * (1.0 - likely))[:, None]).T @ inputs + 1e-3 * np.eye(2)
        weights = weights + np.linalg.solve(bend, slope)
    return weights


# -- BG/NBD (Fader, Hardie and Lee 2005) ----------------------------------------------------------


def bg_nbd(weeks: list[Looks], days: float) -> Predicted:
    """Refitted every week to all customers as they are then; it needs no labels."""
    found: Predicted = []
    start = np.zeros(4)
    for week in weeks:
        if week.repeats.sum() < FEWEST_REPEATS:
            found.append(None)
            continue
        start = minimize(
            _against, start, args=(week.repeats, week.recency, week.age), method="L-BFGS-B",
            bounds=[(-7.0, 9.0)] * 4, options={"maxiter": 60},
        ).x  # fmt: skip
        found.append(_orders_again(start, week, days))
    return found


def _against(logs: Floats, repeats: Floats, recency: Floats, age: Floats) -> float:
    """The mean negative log likelihood."""
    r, alpha, a, b = np.exp(logs)
    common = gammaln(r + repeats) - gammaln(r) + r * np.log(alpha)
    alive = betaln(a, b + repeats) - betaln(a, b) - (r + repeats) * np.log(alpha + age)
    some = np.maximum(repeats, 1.0)
    gone = betaln(a + 1, b + some - 1) - betaln(a, b) - (r + repeats) * np.log(alpha + recency)
    either = np.where(repeats > 0, np.logaddexp(alive, gone), alive)
    return float(-(common + either).mean())


def _orders_again(logs: Floats, week: Looks, days: float) -> Floats:
    """P(alive) times P(an order within the days | alive): who is alive leaves only at an order."""
    r, alpha, a, b = np.exp(logs)
    x = week.repeats
    odds = a / (b + np.maximum(x, 1.0) - 1.0)
    odds = odds * ((alpha + week.age) / (alpha + week.recency)) ** (r + x)
    alive = np.where(x > 0, 1.0 / (1.0 + odds), 1.0)
    likely: Floats = alive * (1.0 - ((alpha + week.age) / (alpha + week.age + days)) ** (r + x))
    return likely


# -- learned --------------------------------------------------------------------------------------


def boosting(weeks: list[Looks], days: float) -> Predicted:
    """scikit-learn's gradient boosting, refitted every four weeks to all that is complete."""
    found: Predicted = []
    model, fitted_ms = None, 0
    for week, known in _complete(weeks, days):
        k = week.inputs.shape[1] // 2
        if known and (model is None or week.at_ms - fitted_ms >= MONTH_DAYS * DAY_MS):
            inputs = np.concatenate([one.inputs[:, :k] for one in known])[-MOST_ROWS:]
            bought = np.concatenate([one.bought for one in known])[-MOST_ROWS:]
            if len(bought) >= FIRST and 0 < bought.sum() < len(bought):
                model = HistGradientBoostingClassifier(
                    max_iter=150, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=50,
                    random_state=0,
                ).fit(inputs, bought)  # fmt: skip
                fitted_ms = week.at_ms
        if model is None:
            found.append(None)
        else:
            found.append(model.predict_proba(week.inputs[:, :k])[:, 1])
    return found


def river_logistic(weeks: list[Looks], days: float) -> Predicted:
    """River's logistic regression with AdaGrad and running scales; the same inputs and squares."""
    model = compose.Pipeline(
        preprocessing.StandardScaler(), linear_model.LogisticRegression(optim.AdaGrad(0.1))
    )
    return _one_by_one(model, weeks, days)


def river_forest(weeks: list[Looks], days: float) -> Predicted:
    """River's adaptive random forest of ten trees (Gomes et al. 2017); the same inputs."""
    model = forest.ARFClassifier(n_models=10, seed=0)
    return _one_by_one(model, weeks, days, squares=False, most=FOREST_LABELS)


def _one_by_one(
    model: Any, weeks: list[Looks], days: float, *, squares: bool = True, most: int | None = None
) -> Predicted:
    """What a model of river's says, one look after the other.

    Each label is learned when it is complete, and once.

    Args:
        squares: of inputs, whether the model is told them, too.
        most: looks of a week that are learned, drawn by chance; None for all.
    """
    random = np.random.default_rng(0)
    found: Predicted = []
    learned, labels = 0, 0
    for week, known in _complete(weeks, days):
        for one in known[learned:]:
            chosen = np.sort(random.permutation(len(one.bought))[:most])
            told = _told(one.inputs[chosen], squares)
            for inputs, bought in zip(told, one.bought[chosen].tolist(), strict=True):
                model.learn_one(inputs, bool(bought))
            labels += len(chosen)
        learned = len(known)
        if labels < FIRST:
            found.append(None)
            continue
        # A forest that has seen one answer only says nothing of the other.
        likely = [
            model.predict_proba_one(one).get(True, 0.0) for one in _told(week.inputs, squares)
        ]
        found.append(np.array(likely))
    return found


def _told(inputs: Floats, squares: bool) -> list[dict[int, float]]:
    """Inputs as river wants them."""
    k = inputs.shape[1] if squares else inputs.shape[1] // 2
    return [dict(enumerate(one)) for one in inputs[:, :k].tolist()]


RIVALS: dict[str, Rival] = {
    "recency alone, refitted weekly": recency,
    "BG/NBD, refitted weekly": bg_nbd,
    "gradient boosting, refitted monthly": boosting,
    "river's LogisticRegression, one pass": river_logistic,
    "river's ARFClassifier, one pass": river_forest,
}
"""By title."""


def days_of_orders(
    slots: Ints, times: Ints, at_ms: int, users: int
) -> tuple[Floats, Floats, Floats]:
    """Repeats, recency and age of users, see `Looks`; nothing of whoever has not ordered.

    Args:
        slots, times: of all orders, in the order of slots and then of times.
    """
    now = (times <= at_ms) & (slots < users)
    slot, day = slots[now], times[now] // DAY_MS
    new = np.ones(len(slot), np.bool_)
    new[1:] = (slot[1:] != slot[:-1]) | (day[1:] != day[:-1])
    slot, time = slot[new], times[now][new]
    count = np.bincount(slot, minlength=users)
    ends = np.cumsum(count)
    first, last = np.zeros(users), np.zeros(users)
    some = count > 0
    first[some], last[some] = time[(ends - count)[some]], time[ends[some] - 1]
    age = (at_ms - first) / DAY_MS
    return np.maximum(count - 1.0, 0.0), (last - first) / DAY_MS, age
