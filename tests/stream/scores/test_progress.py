"""The measures are held to scikit-learn's, and to arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from stream.scores import progress


def predictions() -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], ...]:
    random = np.random.default_rng(3)
    likely = np.round(random.random(400), 2)  # ties too
    return likely, (random.random(400) < likely).astype(float)


def test_auc_and_log_loss_are_what_others_find() -> None:
    likely, bought = predictions()
    assert progress.auc(likely, bought) == pytest.approx(metrics.roc_auc_score(bought, likely))
    found = progress.log_loss(likely, bought)
    expected = metrics.log_loss(bought, np.clip(likely, 1e-6, 1 - 1e-6))
    assert found == pytest.approx(expected)


def test_there_is_no_auc_where_all_are_alike() -> None:
    assert progress.auc(np.array([0.1, 0.2]), np.ones(2)) is None
    assert progress.auc(np.array([0.1, 0.2]), np.zeros(2)) is None


def test_calibration_is_the_distance_of_what_was_said_and_what_was() -> None:
    said = np.concatenate([np.full(150, 0.1), np.full(150, 0.9)])
    bought = np.concatenate([np.arange(150) % 10 == 0, np.arange(150) % 10 > 0]).astype(float)
    assert progress.calibration(said, bought) == pytest.approx(0.0, abs=1e-9)
    assert progress.calibration(said - 0.1, bought) == pytest.approx(0.1)


def test_of_too_few_nothing_is_said() -> None:
    few = np.full(progress.FEWEST - 1, 0.5)
    assert progress.judged(few, few) is None
    assert progress.judged_money(few, few) is None
    assert progress.judged_money(np.ones(99), np.zeros(99)) is None, "nobody spent anything"


def test_money_of_the_tenth_with_the_highest_predictions() -> None:
    spent = np.concatenate([np.full(10, 50.0), np.full(90, 1.0)])
    found = progress.judged_money(spent * 2, spent)
    assert found is not None
    assert found.captured == pytest.approx(500 / 590)
    assert found.total == pytest.approx(2.0)
