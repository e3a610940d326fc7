"""Geometry is exact on its grid: orders and partitions of users make no difference to the bit."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.clustering import (
    CLIP,
    GRID,
    WEIGHT_GRID,
    FeatureMap,
    Statistics,
    assign,
    distances,
    inertia,
    living,
    lloyd,
    nearest,
    on_grid,
    quantiles,
    ranked,
    seed_and_fit,
    separated,
    smallest_hashes,
)
from stream.events import Floats, Ints

_SEEDS = st.integers(0, 2**32 - 1)
GRID_STEP = 1 / GRID


def some_users(rng: np.random.Generator, users: int, features: int) -> Floats:
    """Mapped vectors on the grid, many of them at the clip."""
    return np.clip(on_grid(rng.normal(0, 2, (users, features))), -CLIP, CLIP)


def some_weights(rng: np.random.Generator, features: int) -> Floats:
    return rng.integers(0, int(WEIGHT_GRID) + 1, features) / WEIGHT_GRID


def fractions(row: Floats) -> list[Fraction]:
    return [Fraction(value) for value in row.tolist()]


def naive(mapped: Floats, centroids: Floats, weights: Floats) -> list[list[Fraction]]:
    """Weighted squared distances in rational arithmetic."""
    return [
        [
            sum(
                (w * (x - c) ** 2 for w, x, c in zip(fractions(weights), user, place, strict=True)),
                Fraction(0),
            )
            for place in map(fractions, centroids)
        ]
        for user in map(fractions, mapped)
    ]


# -- exactness -----------------------------------------------------------------------------------


@given(_SEEDS, st.integers(1, 32), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_distances_are_exact(seed: int, features: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    mapped, centroids = some_users(rng, 5, features), some_users(rng, k, features)
    weights = some_weights(rng, features)
    found = distances(mapped, centroids, weights)
    assert [fractions(row) for row in found] == naive(mapped, centroids, weights)


@given(_SEEDS, st.integers(1, 8), st.integers(1, 6), st.sampled_from([0, 1, 5, 1_500]))
@settings(max_examples=40, deadline=None)
def test_the_nearest_is_that_of_all_distances_and_of_a_tie_the_first(
    seed: int, features: int, k: int, users: int
) -> None:
    rng = np.random.default_rng(seed)
    # On whole numbers ties are common.
    mapped, centroids = (rng.integers(-2, 3, (n, features)).astype(float) for n in (users, k))
    weights = some_weights(rng, features)
    squared = distances(mapped, centroids, weights)
    labels, away = nearest(squared)
    first = [row.index(min(row)) for row in squared.tolist()]
    assert labels.tolist() == assign(mapped, centroids, weights).tolist() == first
    assert away.tolist() == [min(row) for row in squared.tolist()]
    assert inertia(mapped, centroids, weights) == away.sum()


def test_distances_are_exact_at_the_corners() -> None:
    weights = np.ones(32)
    corners = np.array([np.full(32, CLIP), np.full(32, -CLIP), np.full(32, CLIP - GRID_STEP)])
    found = distances(corners, corners, weights)
    assert [fractions(row) for row in found] == naive(corners, corners, weights)
    assert np.array_equal(separated(corners, weights), found)


def statistics_of(mapped: Floats, centroids: Floats, weights: Floats, columns: Ints) -> Statistics:
    return Statistics.of(mapped, distances(mapped, centroids, weights), columns)


@given(_SEEDS, st.integers(1, 200), st.integers(1, 5), st.data())
@settings(max_examples=60, deadline=None)
def test_any_order_and_any_split_of_users_add_up_to_the_same(
    seed: int, users: int, parts: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    features, k = int(rng.integers(1, 20)), int(rng.integers(1, 9))
    mapped, centroids = some_users(rng, users, features), some_users(rng, k, features)
    weights, columns = some_weights(rng, features), rng.integers(-1, k, users)
    whole = statistics_of(mapped, centroids, weights, columns)

    shuffled = rng.permutation(users)
    owner = rng.integers(0, parts, users)
    pieces = []
    for part in data.draw(st.permutations(range(parts))):
        mine = shuffled[owner == part]
        pieces.append(statistics_of(mapped[mine], centroids, weights, columns[mine]))
    total = pieces[0]
    for piece in pieces[1:]:
        total += piece
    assert total.counts.tobytes() == whole.counts.tobytes()
    assert total.sums.tobytes() == whole.sums.tobytes()
    assert total.inertia.tobytes() == whole.inertia.tobytes()
    assert total.sizes.tobytes() == whole.sizes.tobytes()
    assert total.means(centroids).tobytes() == whole.means(centroids).tobytes()

    assert whole.counts.sum() == users
    assert whole.sizes.sum() == np.count_nonzero(columns >= 0)
    nearest = distances(mapped, centroids, weights).argmin(axis=1)
    for column in range(k):
        members = mapped[nearest == column]
        assert fractions(whole.sums[column]) == [
            sum(fractions(values), Fraction(0)) for values in members.T
        ]


def test_a_centroid_without_users_stays() -> None:
    mapped, centroids = np.array([[1.0], [2.0]]), np.array([[1.5], [-3.0]])
    found = statistics_of(mapped, centroids, np.ones(1), np.array([-1, -1]))
    assert found.means(centroids).tolist() == [[1.5], [-3.0]]


# -- the map -------------------------------------------------------------------------------------


def learned(seed: int, users: int = 300, features: int = 4) -> tuple[FeatureMap, Floats]:
    """A map, and the vectors it was learned from: skewed, signed, and one that never varies."""
    rng = np.random.default_rng(seed)
    vectors = rng.lognormal(1, 1.5, (users, features))
    vectors[:, 0] -= 5.0
    vectors[:, -1] = 7.0
    return FeatureMap.learn(vectors, rng.random(features) * 2), vectors


@given(_SEEDS)
@settings(max_examples=30, deadline=None)
def test_a_vector_within_the_limits_comes_back(seed: int) -> None:
    feature_map, vectors = learned(seed)
    mapped = feature_map.apply(vectors)
    assert (np.abs(mapped) <= CLIP).all()
    assert np.array_equal(on_grid(mapped), mapped)
    logs = np.sign(vectors) * np.log1p(np.abs(vectors))
    inside = (logs >= feature_map.low) & (logs <= feature_map.high) & (np.abs(mapped) < CLIP)
    assert inside.mean() > 0.9
    back = feature_map.invert(mapped)
    # Half a step of the grid, in log units, of the number and one.
    allowed = feature_map.scale * GRID_STEP * (1 + np.abs(vectors)) + 1e-9
    assert (np.abs(back - vectors) <= allowed)[inside].all()
    again = feature_map.apply(back)
    assert (np.abs(again - mapped) <= GRID_STEP)[inside].all()


@given(_SEEDS, st.integers(1, 40), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_quantiles_are_those_of_numpy(seed: int, users: int, features: int) -> None:
    values = np.random.default_rng(seed).integers(-5, 6, (users, features)).astype(float)
    shares = (0.0, 0.01, 0.3, 0.5, 0.99, 1.0)
    expected = np.quantile(values, shares, axis=0).T
    np.testing.assert_allclose(quantiles(ranked(values), shares), expected, atol=1e-12)


def test_extremes_are_cut_to_the_quantiles_and_constants_to_nothing() -> None:
    feature_map, vectors = learned(3)
    far = np.full((1, vectors.shape[1]), 1e12)
    highest = np.clip((feature_map.high - feature_map.centre) / feature_map.scale, -CLIP, CLIP)
    assert np.array_equal(feature_map.apply(far)[0], on_grid(highest))
    assert (feature_map.apply(vectors)[:, -1] == 0).all()


@given(st.floats(0, 4))
def test_weights_lie_on_their_grid(weight: float) -> None:
    feature_map = FeatureMap.learn(np.array([[1.0], [2.0]]), np.array([weight]))
    assert float(feature_map.weights[0] * WEIGHT_GRID).is_integer()
    assert abs(feature_map.weights[0] - weight) <= 0.5 / WEIGHT_GRID


@given(_SEEDS, _SEEDS)
@settings(max_examples=30, deadline=None)
def test_carrying_centroids_is_affine_and_keeps_their_place(seed: int, other: int) -> None:
    old, new = learned(seed)[0], learned(other)[0]
    rng = np.random.default_rng(seed)
    low, high = on_grid(rng.uniform(-1, 1, (2, 4, 4)))
    assert np.array_equal(old.carry(low, old), low)
    carried = old.carry(low, new)
    unclipped = np.abs(carried) < CLIP
    middle = old.carry(on_grid((low + high) / 2), new)
    expected = (carried + old.carry(high, new)) / 2
    both = unclipped & (np.abs(old.carry(high, new)) < CLIP)
    slope = np.maximum(old.scale / new.scale, 1.0)
    assert (np.abs(middle - expected) <= 2 * GRID_STEP * slope)[both].all()
    assert np.allclose(
        new.invert(carried)[unclipped], old.invert(low)[unclipped], rtol=1e-4, atol=1e-4
    )


@given(_SEEDS)
@settings(max_examples=30, deadline=None)
def test_a_map_survives_json_to_the_bit(seed: int) -> None:
    feature_map, vectors = learned(seed)
    back = FeatureMap.from_json(json.loads(json.dumps(feature_map.to_json())))
    for name in ("low", "high", "centre", "scale", "weights"):
        assert getattr(back, name).tobytes() == getattr(feature_map, name).tobytes()
    assert back.apply(vectors).tobytes() == feature_map.apply(vectors).tobytes()


# -- learning ------------------------------------------------------------------------------------


@given(_SEEDS, st.integers(2, 8))
@settings(max_examples=40, deadline=None)
def test_lloyd_makes_things_better_and_then_rests(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    mapped, weights = some_users(rng, 80, 3), np.ones(3)
    start = some_users(rng, k, 3)
    end = lloyd(mapped, start, weights)
    assert np.array_equal(on_grid(end), end)
    # Means are rounded to the grid, so nothing is promised below that.
    slack = 80 * 3 * CLIP * GRID_STEP
    assert inertia(mapped, end, weights) <= inertia(mapped, start, weights) + slack
    once = lloyd(mapped, start, weights, rounds=1)
    assert inertia(mapped, once, weights) <= inertia(mapped, start, weights) + slack
    assert np.array_equal(lloyd(mapped, end, weights), end)
    counts = Statistics.of(mapped, distances(mapped, end, weights), np.full(80, -1)).counts
    assert (counts > 0).all(), "nobody's centroid takes the farthest user"


def test_lloyd_leaves_its_input_alone() -> None:
    rng = np.random.default_rng(1)
    mapped, start = some_users(rng, 50, 2), some_users(rng, 5, 2)
    before = (mapped.tobytes(), start.tobytes())
    lloyd(mapped, start, np.ones(2))
    assert (mapped.tobytes(), start.tobytes()) == before


def test_clear_clusters_are_found_the_same_way_each_time() -> None:
    rng = np.random.default_rng(5)
    centres = np.array([[-3.0, -3.0], [3.0, -3.0], [0.0, 3.0]])
    truth = np.repeat([0, 1, 2], 100)
    mapped = on_grid(centres[truth] + rng.normal(0, 0.3, (300, 2)))
    found, total = seed_and_fit(mapped, 3, np.ones(2), starts=4, seed=1)
    labels = distances(mapped, found, np.ones(2)).argmin(axis=1)
    assert [len(set(labels[truth == t].tolist())) for t in range(3)] == [1, 1, 1]
    assert len(set(labels.tolist())) == 3
    assert total == inertia(mapped, found, np.ones(2))
    again, _ = seed_and_fit(mapped, 3, np.ones(2), starts=4, seed=1)
    assert again.tobytes() == found.tobytes()
    _, one_start = seed_and_fit(mapped, 3, np.ones(2), starts=1, seed=1)
    assert total <= one_start


def test_a_fit_needs_a_start() -> None:
    with pytest.raises(ValueError, match="at least one start"):
        seed_and_fit(np.zeros((3, 1)), 2, np.ones(1), starts=0, seed=1)


# -- the sample ----------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=60),
    st.integers(0, 40),
    st.integers(1, 4),
)
def test_a_sample_of_samples_is_the_sample_of_all(hashes: list[int], size: int, parts: int) -> None:
    whole = np.array(hashes, np.uint64)
    expected = sorted(hashes)[:size]
    assert whole[smallest_hashes(whole, size)].tolist() == expected
    pieces = [whole[p::parts] for p in range(parts)]
    merged = np.concatenate([piece[smallest_hashes(piece, size)] for piece in pieces])
    assert merged[smallest_hashes(merged, size)].tolist() == expected


@given(st.lists(st.floats(), min_size=3, max_size=3))
def test_only_users_of_finite_numbers_are_living(values: list[float]) -> None:
    assert living(np.array([values])).tolist() == [bool(np.isfinite(values).all())]
