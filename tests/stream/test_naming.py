"""A segment's name reads well, and says what marks it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.clustering import on_grid
from stream.events import Floats
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.kinds import DEFAULT_KINDS, FALLBACK_KIND
from stream.model import Segment
from stream.naming import belied, propose_names

TABLE = FeatureTable(DEFAULT_FEATURES)
WEIGHTS = np.array([feature.weight for feature in DEFAULT_FEATURES])


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_names_are_readable_and_all_different(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    # Few different centroids and kinds, so that names collide.
    few = on_grid(rng.normal(0, 1, (3, len(TABLE.names))))
    kind_list = rng.choice(["at_risk", "loyal"], k).tolist()
    names = propose_names(few[rng.integers(0, 3, k)], WEIGHTS, TABLE, kind_list)
    assert len(set(names)) == k
    for name, kind in zip(names, kind_list, strict=True):
        assert name.startswith(kind.replace("_", " ").capitalize())
        assert "_" not in name


def test_a_name_tells_what_marks_the_segment() -> None:
    centroids = np.zeros((2, len(TABLE.names)))
    centroids[0, TABLE.names.index("days_since_seen")] = 3.0
    first, second = propose_names(centroids, WEIGHTS, TABLE, ["at_risk", "loyal"])
    assert first == "At risk: silent"
    assert second == "Loyal: recent"


def test_a_name_does_not_say_the_same_twice() -> None:
    column = TABLE.names.index
    centroids = np.zeros((4, len(TABLE.names)))
    centroids[:, column("orders_30d")] = [2.0, -1.0, 1.0, -2.0]
    centroids[:, column("orders_180d")] = [1.9, -0.9, 1.0, -2.0]
    centroids[:, column("basket_value")] = [0.5, 0.5, -0.5, -0.5]
    first, *_ = propose_names(centroids, WEIGHTS, TABLE, ["loyal"] * 4)
    assert first == "Loyal: ordering now, big baskets"


def rows_of(**values: list[float]) -> Floats:
    centroids = np.zeros((len(next(iter(values.values()))), len(TABLE.names)))
    for name, column in values.items():
        centroids[:, TABLE.names.index(name)] = column
    return centroids


def test_a_name_does_not_contradict_itself() -> None:
    # The last one orders now and is away for longer than most: in this shop, that is one or the other.
    centroids = rows_of(
        orders_30d=[2.0, 1.5, -2.0, -3.0, 1.5],
        days_since_seen=[-2.0, -1.0, 1.5, 0.0, 1.2],
        basket_value=[-0.5, 0.5, 0.5, -1.0, 0.5],
    )
    *_, last = propose_names(centroids, WEIGHTS, TABLE, ["loyal"] * 5)
    assert last == "Loyal: ordering now, big baskets"


def test_a_kind_that_tells_nobody_anything_is_left_out() -> None:
    centroids = rows_of(days_since_seen=[3.0, -3.0, 0.0], tenure_days=[0.0, 1.0, -1.0])
    names = propose_names(centroids, WEIGHTS, TABLE, [FALLBACK_KIND] * 3)
    assert names == ["Silent", "Recent, long known", "Newcomers"]
    some = propose_names(centroids, WEIGHTS, TABLE, [FALLBACK_KIND, "loyal", FALLBACK_KIND])
    assert some == ["Occasional: silent", "Loyal: recent, long known", "Occasional: newcomers"]
    average = propose_names(np.zeros((2, len(TABLE.names))), WEIGHTS, TABLE, [FALLBACK_KIND] * 2)
    assert average == ["Average", "Average (2)"]


@pytest.mark.parametrize("kind", ["loyal", FALLBACK_KIND])
def test_the_same_two_words_the_other_way_round_are_the_same_name(kind: str) -> None:
    centroids = rows_of(
        days_since_seen=[2.0, 3.0, -2.5, -2.5, 0.0], tenure_days=[4.0, 2.0, -3.0, -3.0, 0.0],
        basket_value=[0.0, 0.0, 2.0, -2.0, 0.0],
    )  # fmt: skip
    names = propose_names(centroids, WEIGHTS, TABLE, [kind] * 5)
    said = [frozenset(name.partition(": ")[2].casefold().split(", ")) for name in names]
    if kind == FALLBACK_KIND:
        said = [frozenset(name.casefold().split(", ")) for name in names]
    assert {"silent", "long known"} in said
    assert len(set(said)) == 5
    # The same as what is kept, however that is written.
    again = propose_names(centroids, WEIGHTS, TABLE, [kind] * 5, [None, names[0], *names[2:]])
    assert again[0] == f"{names[0]} (2)"


@pytest.mark.parametrize("kind", ["loyal", FALLBACK_KIND])
def test_a_name_is_belied_when_the_opposite_has_become_true(kind: str) -> None:
    centroids = rows_of(days_since_seen=[3.0, -3.0], tenure_days=[1.0, -1.0])
    names = propose_names(centroids, WEIGHTS, TABLE, [kind] * 2)
    was = [Segment(1, names[0], kind, 1, "1.0"), Segment(2, names[1] + " (2)", kind, 1, "1.0")]
    assert belied(was, centroids, WEIGHTS, TABLE) == [False, False]
    assert belied(was, centroids[::-1], WEIGHTS, TABLE) == [True, True]
    named = [replace(segment, name="Big spenders") for segment in was]
    assert belied(named, centroids[::-1], WEIGHTS, TABLE) == [False, False]
    assert belied([None, None], centroids, WEIGHTS, TABLE) == [False, False]


def test_a_name_does_not_say_what_its_kind_is_known_by() -> None:
    centroids = np.zeros((2, len(TABLE.names)))
    centroids[0, TABLE.names.index("days_since_seen")] = 3.0
    centroids[1, TABLE.names.index("basket_value")] = 1.0
    names = propose_names(centroids, WEIGHTS, TABLE, ["dormant", "loyal"], rules=DEFAULT_KINDS)
    assert names == ["Dormant: small baskets", "Loyal: recent, big baskets"]


@pytest.mark.parametrize("k", [1, 4])
def test_equal_centroids_get_a_plain_name_and_a_number(k: int) -> None:
    names = propose_names(np.zeros((k, len(TABLE.names))), WEIGHTS, TABLE, ["new"] * k)
    assert names == ["New", *(f"New ({n})" for n in range(2, k + 1))]
