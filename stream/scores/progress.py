"""How good predictions were: each made first, kept, and held against what came of it later.

Comes in: predictions and outcomes. Goes out: AUC, log loss, calibration error, and for money how much of
all of it the tenth with the highest predictions held. `step` keeps the last ones of each horizon.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
import numpy as np

from stream.events import Floats

BINS = 15
FEWEST = 50
"""Predictions below which nothing is said of them."""
SURE = 1e-6
"""No log loss counts a prediction as surer than this."""


class Came(msgspec.Struct, frozen=True):
    """Sums over looks at the people of a segment whose time is over.

    Attributes:
        looks: how many.
        predicted, bought: orders that were foretold, and those that came.
        foretold, spent: money that was foretold, and that came.
    """

    looks: int
    predicted: float
    bought: float
    foretold: float
    spent: float


class Horizon(msgspec.Struct, frozen=True):
    """What came of each segment's looks in so many days, by its id."""

    days: float
    segments: dict[int, Came]


class Judged(NamedTuple):
    """Of predicted probabilities.

    Attributes:
        auc: chance that who bought was given a higher one than who did not; None if all are alike.
        log_loss: mean negative log of what was given to what happened.
        calibration: mean distance, over quantile bins, of what was given and the share who bought.
    """

    auc: float | None
    log_loss: float
    calibration: float


class JudgedMoney(NamedTuple):
    """Of predicted money.

    Attributes:
        captured: share of all money that the tenth with the highest predictions spent.
        total: all that was predicted over all that was spent.
    """

    captured: float
    total: float


def auc(predicted: Floats, bought: Floats) -> float | None:
    """Area under the ROC curve, ties counting half (Mann and Whitney 1947)."""
    yes = float(bought.sum())
    no = len(bought) - yes
    if not yes or not no:
        return None
    _, place, count = np.unique(predicted, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2.0
    return float((rank[place] @ bought - yes * (yes + 1) / 2) / (yes * no))


def log_loss(predicted: Floats, bought: Floats) -> float:
    sure = np.clip(predicted, SURE, 1.0 - SURE)
    return float(-np.where(bought > 0, np.log(sure), np.log1p(-sure)).mean())


class Bin(NamedTuple):
    """Predictions that are next to each other.

    Attributes:
        looks: how many.
        predicted, bought: means of them.
    """

    looks: int
    predicted: float
    bought: float


def bins(predicted: Floats, bought: Floats) -> list[Bin]:
    """Quantile bins of predictions, the lowest first."""
    order = np.argsort(predicted, kind="stable")
    return [
        Bin(len(here), float(predicted[here].mean()), float(bought[here].mean()))
        for here in np.array_split(order, min(BINS, len(order)))
    ]


def calibration(predicted: Floats, bought: Floats) -> float:
    """Expected calibration error over quantile bins."""
    found = bins(predicted, bought)
    return math.fsum(one.looks * abs(one.predicted - one.bought) for one in found) / len(predicted)


def judged(predicted: Floats, bought: Floats) -> Judged | None:
    """Of predictions in no order; None of too few."""
    if len(predicted) < FEWEST:
        return None
    return Judged(
        auc(predicted, bought), log_loss(predicted, bought), calibration(predicted, bought)
    )


def judged_money(predicted: Floats, spent: Floats) -> JudgedMoney | None:
    """Of predictions in no order; None of too few, or where nothing was spent."""
    total = float(spent.sum())
    if len(predicted) < FEWEST or total <= 0:
        return None
    top = np.argsort(-predicted, kind="stable")[: max(len(predicted) // 10, 1)]
    return JudgedMoney(float(spent[top].sum()) / total, float(predicted.sum()) / total)
