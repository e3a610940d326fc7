"""`ops/bench/learning/conversion`: whether each kind of shopper has a segment, however few buy."""

from __future__ import annotations

import numpy as np
import pytest

from ops.bench.learning import conversion
from ops.bench.learning.conversion import (
    GROUPS,
    MATCHED,
    RATES,
    SUGGESTED,
    USERS,
    Found,
    groups,
    in_library,
    in_pipeline,
    judged,
)
from stream.populations import DEFAULT_POPULATIONS


def test_groups_have_the_sizes_they_shall_have() -> None:
    for rate in RATES:
        counts = np.bincount(groups(np.random.default_rng(1), USERS, rate), minlength=5)
        assert counts.sum() == USERS
        assert counts[:3].sum() == round(USERS * rate)
        assert counts.min() >= 18


def test_a_segment_is_a_groups_own_if_most_in_it_are_of_it() -> None:
    truth = np.array([0] * 4 + [1] * 4 + [2] * 2 + [3] * 2 + [4] * 2)
    segments = np.array([1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 0, 0])
    found = judged(truth, segments)
    assert found.segments == 4
    assert found.share == {
        "best": 0.75, "lapsed": 0.75, "once": 1.0, "browsing": 1.0, "passing": 0.0,
    }  # fmt: skip
    assert found.largest["lapsed"] == 0.75
    # Most of a group are where most are of another: what it has of its own elsewhere is not enough.
    mixed = judged(np.array([0, 0, 0, 1, 1, 1, 1, 0]), np.array([1, 1, 1, 1, 1, 1, 1, 2]))
    assert (mixed.share["best"], mixed.largest["best"]) == (0.125 * 2, 0.0)


def each_has_its_own(found: Found, least: float = 0.9) -> None:
    """Nearly all of each group are in segments of its own, and most of all in one of these."""
    assert min(found.share.values()) > least, found
    assert min(found.largest.values()) > 0, found


@pytest.mark.parametrize("rate", [0.1, 0.005])
def test_each_group_has_segments_of_its_own_in_the_library(rate: float) -> None:
    each_has_its_own(in_library(rate, seed=5, users=14_000, populations=DEFAULT_POPULATIONS))


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
def test_at_every_rate_each_group_has_segments_of_its_own_where_k_is_suggested(rate: float) -> None:
    each_has_its_own(in_library(rate, seed=6, users=USERS, populations=SUGGESTED))


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
def test_with_a_segment_a_group_each_has_its_majority_in_its_own(rate: float) -> None:
    found = in_library(rate, seed=6, users=USERS, populations=MATCHED)
    each_has_its_own(found)
    assert min(found.largest.values()) > 0.5, found


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
def test_at_every_rate_each_group_has_segments_of_its_own_in_the_pipeline(rate: float) -> None:
    found = in_pipeline(rate, seed=7, users=USERS, settings={})
    if rate > min(RATES):
        each_has_its_own(found)
    else:
        # Of 30 who ordered once, the model before the last took six to the best, and none takes them back
        # within `publish.return_seconds`: see the next test. A majority is what has to be.
        each_has_its_own(found, 0.5)
        assert min(found.largest.values()) > 0.5, found


@pytest.mark.slow
def test_at_the_lowest_rate_only_the_time_of_return_keeps_some_elsewhere() -> None:
    settings = {"publish": {"return_seconds": 0}}
    each_has_its_own(in_pipeline(min(RATES), seed=7, users=USERS, settings=settings))


@pytest.mark.slow
def test_one_population_fails_where_few_buy() -> None:
    """Or the tests above would show nothing."""
    found = in_library(0.003, seed=5, users=USERS, populations=(), segments=8)
    assert min(found.largest[name] for name in GROUPS[:3]) == 0


def test_a_sweep_is_told_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    half = dict.fromkeys(GROUPS, 0.5)

    def find(_rate: float, seed: int, _users: int) -> Found:
        return Found(half | {"best": 1.0 / seed}, half, 10 + seed)

    monkeypatch.setattr(conversion, "WAYS", {"somehow": find})
    rows = conversion.sweep([1, 2])
    assert [row["rate"] for row in rows] == list(RATES)
    assert rows[0]["share"] == half, "the least of both"
    told = conversion.table(rows)
    assert told[2].startswith("| somehow | 30.0% | 11 to 12 | 50% (50%) |")
