"""Alarms come when users change, and not when they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.drift import BLOCKS, DECILES, Drift
from stream.events import Floats


def users(seed: int, mean: float = 0.0, count: int = 2_000) -> Floats:
    return np.random.default_rng(seed).normal(mean, 1.0, (count, 3))


def since(mapped: Floats, at_ms: int, known: Sequence[str] = ()) -> Drift:
    """A refit of which no distances are known."""
    return Drift.since(mapped, np.empty(0), at_ms, known)


def test_the_index_is_the_sum_by_hand() -> None:
    # Ten users a bin at the refit; then everyone of the first bin moves to the second.
    then = np.repeat(np.arange(10.0), 10)[:, None]
    now = np.where(then == 0.0, 1.0, then)
    index = since(then, 1).stability_index(now)
    empty = (1e-4 - 0.1) * np.log(1e-4 / 0.1)
    double = (0.2 - 0.1) * np.log(0.2 / 0.1)
    assert index == pytest.approx([empty + double])
    assert index[0] > 0.25


def test_the_same_users_are_no_drift_at_all() -> None:
    one = users(1)
    assert (since(one, 1).stability_index(one) == 0).all()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_other_users_of_the_same_sort_are_hardly_any(seed: int) -> None:
    index = since(users(seed), 1).stability_index(users(seed + 1))
    assert (index >= 0).all()
    assert (index < 0.05).all()


def test_only_the_feature_that_changed_is_told() -> None:
    changed = users(2)
    changed[:, 1] += 1.0
    index = since(users(1), 1).stability_index(changed)
    assert index[1] > 0.25
    assert (index[[0, 2]] < 0.05).all()


def test_a_feature_that_is_mostly_nought_has_fewer_bins() -> None:
    column = np.where(np.arange(1_000) % 5 == 0, 3.0, 0.0)[:, None]
    drift = since(column, 1)
    assert len(drift.edges[0]) < len(DECILES)
    assert sum(drift.shares[0]) == pytest.approx(1.0)
    assert drift.stability_index(column) == pytest.approx([0.0])
    assert drift.stability_index(np.zeros((1_000, 1)))[0] > 0.25


def squared(rng: np.random.Generator, scale: float) -> Floats:
    found: Floats = scale * rng.chisquare(20, 4_000)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_distances_that_grow_are_noticed_and_steady_ones_are_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drift = since(users(seed), 0)
    for now in range(1, 21):
        drift = drift.after(squared(rng, 1.0), now)
    assert not drift.distances_changed(0.002)
    for now in range(21, 25):
        drift = drift.after(squared(rng, 1.5), now)
    assert drift.distances_changed(0.002)


def test_the_same_statistics_again_tell_nothing_new() -> None:
    drift = since(users(1), 5).after(np.ones(100), 6)
    assert len(drift.seen) == BLOCKS
    assert drift.after(np.zeros(100), 6) == drift
    assert drift.after(np.zeros(100), 5) == drift
    few = drift.after(np.ones(3), 7)
    assert few.seen == (*drift.seen, *np.log1p(np.ones(3)))


def test_what_has_been_seen_is_stored_to_the_bit() -> None:
    drift = since(users(3), 1, ["small 4"]).after(squared(np.random.default_rng(1), 1.0), 2)
    back = msgspec.json.decode(msgspec.json.encode(drift), type=Drift)
    assert back == drift
    assert replace(back, seen=()) != drift
