"""Looking at k: what each measure must say where the answer can be worked out."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.events import Floats, Ints
from stream.learning.choosing import (
    ENOUGH,
    NOISE,
    SHRINKAGE,
    Advice,
    Algorithm,
    Density,
    Distance,
    KMeans,
    Space,
    advise,
    distinct,
    elbow,
    explained,
    fits_by_k,
    mean_inertia,
    means_of,
    merge_down,
    silhouettes,
    space_of,
    stability,
)

pytestmark = pytest.mark.slow

_SEEDS = st.integers(0, 2**32 - 1)


def bells(seed: int, k: int, users: int = 600, features: int = 6, apart: float = 7.0) -> Space:
    """Groups of one bell each, the nearest two so many standard deviations apart."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, features))
    between = np.linalg.norm(centres[:, None] - centres, axis=2)
    centres *= apart / between[between > 0].min() if k > 1 else 1.0
    truth = np.arange(users) % k
    return Space(centres[truth] + rng.normal(size=(users, features)), np.ones(features))


def some(seed: int, users: int = 200, features: int = 5) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    mapped = rng.normal(size=(users, features))
    mapped[:, 1] = 0.9 * mapped[:, 0] + 0.3 * mapped[:, 1]
    weights = rng.integers(1, 65, features) / 64
    weights[-1] = 0.0
    return mapped, weights


# -- distances -----------------------------------------------------------------------------------


@given(_SEEDS)
@settings(max_examples=25, deadline=None)
def test_cosine_is_what_its_name_says(seed: int) -> None:
    mapped, weights = some(seed, users=12)
    flat = space_of("cosine", mapped, weights).flat()
    wide = mapped * np.sqrt(weights)
    length = np.linalg.norm(wide, axis=1)
    cosine = wide @ wide.T / np.outer(length, length)
    squared = ((flat[:, None] - flat) ** 2).sum(axis=2)
    assert np.allclose(squared, 2 - 2 * cosine)
    louder = space_of("cosine", mapped * 3.0, weights).flat()
    assert np.allclose(louder, flat)


def test_who_is_at_the_average_has_no_direction() -> None:
    mapped = np.array([[0.0, 0.0], [1.0, 0.0]])
    assert space_of("cosine", mapped, np.ones(2)).points[0].tolist() == [0.0, 0.0]


@given(_SEEDS)
@settings(max_examples=25, deadline=None)
def test_whitening_leaves_little_in_common_and_keeps_features_in_place(seed: int) -> None:
    mapped, weights = some(seed, users=400)
    white = space_of("mahalanobis", mapped, weights).points[:, :-1]
    before = abs(np.corrcoef(mapped[:, 0], mapped[:, 1])[0, 1])
    after = abs(np.corrcoef(white[:, 0], white[:, 1])[0, 1])
    assert before > 0.8
    # Of two features that go together, shrunk variances along and across are 1 + (1 - s) r and 1 - (1 - s) r.
    shrunk = (1.0 - SHRINKAGE) * before
    along, across = (1.0 + before) / (1.0 + shrunk), (1.0 - before) / (1.0 - shrunk)
    assert after == pytest.approx((along - across) / (along + across), abs=0.02)
    for column in range(white.shape[1]):
        agreement = [abs(np.corrcoef(white[:, column], mapped[:, c])[0, 1]) for c in range(4)]
        assert int(np.argmax(agreement)) == column


@pytest.mark.parametrize("distance", ["euclid", "cosine", "mahalanobis"])
def test_a_feature_without_weight_changes_nothing(distance: Distance) -> None:
    mapped, weights = some(3)
    other = mapped.copy()
    other[:, -1] = np.arange(len(other))
    first, second = (space_of(distance, m, weights).flat() for m in (mapped, other))
    assert np.array_equal(first, second)
    assert not first[:, -1].any()


@pytest.mark.parametrize("distance", ["euclid", "cosine", "mahalanobis"])
def test_a_feature_that_never_varies_is_no_trouble(distance: Distance) -> None:
    mapped, weights = some(4)
    mapped[:, 2] = 0.0
    assert np.isfinite(space_of(distance, mapped, weights).flat()).all()
    nothing = space_of(distance, np.zeros((30, 5)), weights)
    assert distinct(nothing) == 1


def test_weights_scale_the_distance() -> None:
    points = np.array([[0.0, 0.0], [1.0, 1.0]])
    flat = space_of("euclid", points, np.array([0.25, 1.0])).flat()
    assert ((flat[0] - flat[1]) ** 2).sum() == 1.25


# -- curves --------------------------------------------------------------------------------------


@given(st.integers(2, 9), st.floats(1.0, 50.0), st.floats(0.01, 0.5))
def test_a_curve_with_one_corner_bends_there(corner: int, steep: float, flat: float) -> None:
    curve = [steep * max(corner - k, 0) + flat * steep * (10 - k) for k in range(1, 11)]
    assert elbow(curve) == corner


def test_a_curve_that_does_not_fall_has_no_bend() -> None:
    assert elbow([1.0, 1.0, 1.0]) == elbow([2.0]) == elbow([]) == 1


def test_inertia_falls_and_silhouette_peaks_at_clear_groups() -> None:
    space = bells(1, 4, apart=10)
    fits = fits_by_k(space, 7)
    curve = [mean_inertia(space, fit) for fit in fits.values()]
    assert all(after <= before + 1e-9 for before, after in pairwise(curve))
    near = silhouettes(space, fits)
    assert set(near) == {2, 3, 4, 5, 6, 7}
    assert max(near, key=lambda k: near[k]) == 4


# -- separation ----------------------------------------------------------------------------------


def test_an_even_line_is_on_the_limit_and_one_bell_below_it() -> None:
    even = np.linspace(0, 1, 100_001)[:, None]
    halves = (even[:, 0] > 0.5).astype(np.int64)
    share = explained(Space(even, np.ones(1)), halves, means_of(even, halves))[0, 1]
    assert share == pytest.approx(ENOUGH, abs=1e-4)
    bell = np.random.default_rng(1).normal(size=(200_000, 1))
    halves = (bell[:, 0] > 0).astype(np.int64)
    share = explained(Space(bell, np.ones(1)), halves, means_of(bell, halves))[0, 1]
    assert share == pytest.approx(2 / math.pi, abs=0.005)


@given(st.floats(0.5, 20.0), st.integers(2, 50))
def test_two_equal_bells_explain_what_arithmetic_says(apart: float, few: int) -> None:
    # A group of two points, one standard deviation either side, however often it is repeated.
    pair = np.array([[-1.0], [1.0]])
    points = np.vstack([pair, np.tile(pair + apart, (few, 1))])
    labels = np.repeat([0, 1], [2, 2 * few])
    share = explained(Space(points, np.ones(1)), labels, means_of(points, labels))[0, 1]
    assert share == pytest.approx((apart**2 / 4) / (apart**2 / 4 + 1))


@pytest.mark.parametrize("k", [2, 3, 5, 7])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_merge_down_finds_clear_groups(k: int, seed: int) -> None:
    space = bells(seed, k, users=250 * k)
    found = merge_down(space, KMeans(10).fit(space))
    assert found.k == k
    assert [step.k for step in found.steps] == list(range(10, 1, -1))
    assert all(0 <= step.weakest <= 1 for step in found.steps)


def test_merge_down_finds_nothing_where_there_is_nothing() -> None:
    for seed in range(3):
        space = bells(seed, 1)
        assert merge_down(space, KMeans(8).fit(space)).k == 1


def test_a_small_group_counts_as_much_as_a_large_one() -> None:
    rng = np.random.default_rng(1)
    points = np.vstack([rng.normal(size=(980, 3)), rng.normal(size=(20, 3)) + 7.0])
    space = Space(points, np.ones(3))
    assert merge_down(space, KMeans(6).fit(space)).k == 2


# -- stability -----------------------------------------------------------------------------------


def test_clear_groups_come_back_and_arbitrary_ones_do_not() -> None:
    clear, cloud = bells(1, 3), bells(1, 1)
    for space, low, high in ((clear, 0.99, 1.0), (cloud, 0.0, 0.7)):
        algorithm = KMeans(3, starts=2)
        again = stability(space, algorithm, algorithm.fit(space), bootstraps=6, seed=1)
        assert again.shape == (6,)
        assert low <= again.mean() <= high
        same = stability(space, algorithm, algorithm.fit(space), bootstraps=6, seed=1)
        assert again.tolist() == same.tolist()


@pytest.mark.parametrize(
    ("proposal", "stable", "advice"),
    [
        (4, {2: 0.9, 3: 0.9, 4: 0.95, 5: 0.9}, Advice(4, "firm")),
        (4, {2: 0.9, 3: 0.9, 4: 0.5, 5: 0.9}, Advice(4, "open")),
        (1, {2: 0.9, 3: 0.85, 4: 0.7}, Advice(3, "chosen")),
        (1, {2: 0.5, 3: 0.6, 4: 0.4}, Advice(3, "loose")),
    ],
)
def test_advice(proposal: int, stable: dict[int, float], advice: Advice) -> None:
    assert advise(proposal, stable) == advice


# -- algorithms ----------------------------------------------------------------------------------


def together(labels: Ints, truth: Ints) -> bool:
    """Whether labels name the same groups as the truth, where they name any."""
    pairs = {(int(a), int(b)) for a, b in zip(labels, truth, strict=True) if a != NOISE}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@pytest.mark.parametrize("algorithm", [KMeans(3), Density()])
def test_algorithms_find_clear_groups_and_leave_their_input_alone(algorithm: Algorithm) -> None:
    space = bells(2, 3, users=450, apart=12)
    before = space.points.tobytes()
    groups = algorithm.fit(space)
    assert groups.k == 3
    assert together(groups.labels, np.arange(450) % 3)
    assert (groups.labels != NOISE).mean() > 0.97
    assert space.points.tobytes() == before
    assert np.allclose(groups.centroids, means_of(space.points, groups.labels), atol=1e-4)
    again = algorithm.fit(space)
    assert np.array_equal(again.labels, groups.labels)


def test_density_follows_shapes_and_leaves_strays_out() -> None:
    rng = np.random.default_rng(1)
    turn = np.repeat([0, 1], [200, 600])
    angle = rng.uniform(0, 2 * np.pi, 800)
    rings = np.where(turn == 0, 1.0, 3.0)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    users = np.vstack([rings + rng.normal(0, 0.08, rings.shape), [[9.0, 9.0], [-9.0, 9.0]]])
    order = rng.permutation(len(users))
    space = Space(users[order], np.ones(2))
    groups = Density().fit(space)
    truth = np.append(turn, [5, 6])[order]
    assert groups.k == 2
    assert (groups.labels[truth > 1] == NOISE).all()
    assert together(groups.labels, truth)


@pytest.mark.parametrize("users", [1, 3, 40])
def test_density_of_users_who_are_all_alike(users: int) -> None:
    groups = Density().fit(Space(np.ones((users, 2)), np.ones(2)))
    assert groups.k == (1 if users >= Density.crowd else 0)


@given(_SEEDS, st.integers(2, 60))
@settings(max_examples=25, deadline=None)
def test_density_numbers_groups_without_holes_the_largest_first(seed: int, users: int) -> None:
    rng = np.random.default_rng(seed)
    space = Space(np.round(rng.normal(size=(users, 2)), 1), np.ones(2))
    groups = Density(neighbours=3).fit(space)
    assert groups.centroids.shape == (groups.k, 2)
    sizes = [int((groups.labels == label).sum()) for label in range(groups.k)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(size >= Density.crowd for size in sizes)
    assert set(groups.labels.tolist()) <= {NOISE, *range(groups.k)}
