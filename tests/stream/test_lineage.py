"""Identities survive refits, are used once, and every difference between two epochs is told."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.lineage import Heritage, inherit


def told(old_ids: tuple[int, ...], old: list[int], new: list[int], k: int) -> Heritage:
    return inherit(old_ids, np.array(old, np.int64), np.array(new, np.int64), k, 100, 0.5)


@st.composite
def tables(draw: st.DrawFn) -> tuple[tuple[int, ...], list[int], list[int], int, float]:
    """Old ids, and random labels of some users before and after."""
    old_k, k = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    ids = draw(st.lists(st.integers(1, 99), min_size=old_k, max_size=old_k, unique=True))
    pairs = draw(st.lists(st.tuples(st.integers(0, old_k - 1), st.integers(0, k - 1)), max_size=60))
    overlap = draw(st.sampled_from([0.01, 0.3, 0.5, 0.8, 1.0]))
    return tuple(ids), [a for a, _ in pairs], [b for _, b in pairs], k, overlap


@given(tables())
@settings(max_examples=60, deadline=None)
def test_every_difference_is_told_and_no_id_is_used_twice(
    table: tuple[tuple[int, ...], list[int], list[int], int, float],
) -> None:
    old_ids, old, new, k, overlap = table
    found = inherit(old_ids, np.array(old, np.int64), np.array(new, np.int64), k, 100, overlap)

    assert len(found.ids) == len(set(found.ids)) == k
    fresh = [i for i in found.ids if i not in old_ids]
    assert sorted(fresh) == list(range(100, 100 + len(fresh)))
    assert found.next_id == 100 + len(fresh)

    lost = [i for i in old_ids if i not in found.ids]
    came = [i for event, i, _ in found.events if event in {"split", "succeeded", "emerged"}]
    went = [i for event, i, _ in found.events if event in {"absorbed", "dissolved"}]
    assert sorted(came) == sorted(fresh)
    assert sorted(went) == sorted(lost)
    gave = [i for event, i, _ in found.events if event == "ceded"]
    assert set(gave) <= set(old_ids) - set(lost)
    assert len(found.events) == len(fresh) + len(lost) + len(gave)

    sizes, new_sizes, both = Counter(old), Counter(new), Counter(zip(old, new, strict=True))
    for column, kept in enumerate(found.ids):
        if kept in old_ids:
            row = old_ids.index(kept)
            smaller = min(sizes[row], new_sizes[column])
            assert smaller > 0
            assert both[row, column] >= overlap * smaller
    for event, segment, others in found.events:
        match event:
            case "split":
                assert set(others) <= set(old_ids) & set(found.ids)
            case "succeeded":
                assert set(others) <= set(lost)
            case "absorbed" | "ceded":
                assert set(others) <= set(found.ids)
            case _:
                assert others == ()
        if event in {"split", "succeeded", "absorbed"}:
            [other] = others
            old_id, new_id = (segment, other) if event == "absorbed" else (other, segment)
            row, column = old_ids.index(old_id), found.ids.index(new_id)
            of = sizes[row] if event == "absorbed" else new_sizes[column]
            assert both[row, column] >= of / 2


@given(st.permutations(range(6)), st.lists(st.integers(0, 5), max_size=50))
@settings(max_examples=40, deadline=None)
def test_ids_follow_their_users_through_a_permutation(order: list[int], more: list[int]) -> None:
    old = [*range(6), *more]
    found = told((11, 12, 13, 14, 15, 16), old, [order[column] for column in old], 6)
    assert [found.ids[order[column]] for column in range(6)] == [11, 12, 13, 14, 15, 16]
    assert found.events == ()
    assert found.next_id == 100


def test_a_few_who_change_sides_change_nothing() -> None:
    old = [0] * 50 + [1] * 50
    new = [0] * 45 + [1] * 50 + [0] * 5
    assert told((1, 2), old, new, 2) == Heritage((1, 2), 100, ())


def test_a_segment_that_splits_keeps_its_id_for_the_larger_part() -> None:
    found = told((1, 2), [0] * 90 + [1] * 10, [0] * 50 + [2] * 40 + [1] * 10, 3)
    assert found.ids == (1, 2, 100)
    assert found.events == (("split", 100, (1,)),)


def test_a_segment_taken_in_by_another_is_absorbed() -> None:
    found = told((1, 2, 3), [0] * 50 + [1] * 20 + [2] * 50, [0] * 70 + [1] * 50, 2)
    assert found.ids == (1, 3)
    assert found.events == (("absorbed", 2, (1,)),)


def test_a_segment_that_scatters_is_dissolved() -> None:
    old = [0] * 12 + [1] * 90 + [2] * 90 + [3] * 90
    new = [0, 1, 2] * 4 + [0] * 90 + [1] * 90 + [2] * 90
    found = told((1, 2, 3, 4), old, new, 3)
    assert found.ids == (2, 3, 4)
    assert found.events == (("dissolved", 1, ()),)


def test_a_segment_out_of_many_emerges() -> None:
    old = [0] * 100 + [1] * 100 + [2] * 100
    new = [0] * 80 + [3] * 20 + [1] * 80 + [3] * 20 + [2] * 80 + [3] * 20
    found = told((1, 2, 3), old, new, 4)
    assert found.ids == (1, 2, 3, 100)
    assert found.events == (("emerged", 100, ()),)


def test_the_heir_of_a_lost_segment_succeeds_it() -> None:
    # Half of each old segment went to each new one, and the settings ask for more than half.
    found = inherit((1, 2), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), 2, 100, 0.8)
    assert found.ids == (100, 101)
    assert [(event, i) for event, i, _ in found.events] == [
        ("succeeded", 100),
        ("succeeded", 101),
        ("absorbed", 1),
        ("absorbed", 2),
    ]


@pytest.mark.parametrize("k", [1, 3])
def test_nobody_in_the_sample_leaves_no_identity(k: int) -> None:
    found = told((1, 2), [], [], k)
    assert found.ids == tuple(range(100, 100 + k))
    assert [event for event, _, _ in found.events] == ["emerged"] * k + ["dissolved"] * 2


def test_most_of_its_users_going_elsewhere_is_told_of_a_segment_that_goes_on() -> None:
    old = np.repeat([0, 1], [1_000, 1_000]).astype(np.int64)
    new = np.repeat([0, 1, 1], [100, 900, 1_000]).astype(np.int64)
    found = inherit((7, 8), old, new, 2, 9, 0.5)
    assert found.ids == (7, 8)
    assert found.events == (("ceded", 7, (8,)),)
