"""Rules say who is in which segment, and no more than they can be held to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.events import Floats, Hashes, Ints
from stream.insight.rules import Rules, SegmentRules, find_rules, shortest

Sample = tuple[Floats, Hashes, Ints]


def sample(seed: int, users: int = 800) -> Sample:
    """Users of three segments, which two features tell apart, and one that tells nothing."""
    rng = np.random.default_rng(seed)
    vectors = rng.uniform(0, 10, (users, 3))
    segments = np.where(vectors[:, 0] > 6, 5, np.where(vectors[:, 2] > 2.5, 7, 9))
    return vectors, rng.integers(0, 2**63, users).astype(np.uint64), segments


def of(rules: Rules, segment: int) -> SegmentRules:
    return next(one for one in rules.segments if one.segment == segment)


def told(rules: Rules, vectors: Floats) -> list[list[int]]:
    """For each user the segments whose rules hold, those left out that may hold of others' users."""
    found: list[list[int]] = [[] for _ in vectors]
    for one in rules.segments:
        if one.overlaps:
            continue
        for rule in one.rules:
            here = np.ones(len(vectors), np.bool_)
            for condition in rule.conditions:
                here &= condition.holds(vectors)
            for place in np.flatnonzero(here).tolist():
                found[place].append(one.segment)
    return found


def test_rules_that_are_there_are_found() -> None:
    rules = find_rules(*sample(1), [5, 7, 9])
    assert rules.fidelity is not None
    assert rules.fidelity > 0.98
    (champion,) = of(rules, 5).rules
    (only,) = champion.conditions
    assert (only.feature, only.upto) == (0, None)
    assert only.above == pytest.approx(6, abs=0.1)
    assert {c.feature for c in of(rules, 7).rules[0].conditions} == {0, 2}
    assert champion.covers is not None
    assert champion.covers > 0.95
    assert rules.learned_from + rules.judged_on == 800
    assert 150 < rules.judged_on < 250


@given(st.integers(0, 2**32 - 1), st.integers(1, 120), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_one_rule_holds_of_every_user_and_what_is_measured_is_so(
    seed: int, users: int, depth: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = np.round(rng.lognormal(0, 2, (users, 3)), int(rng.integers(0, 6)))
    segments = rng.integers(1, 5, users)
    hashes = rng.integers(0, 2**63, users).astype(np.uint64)
    hashes[0] = 1  # somebody to learn from
    rules = find_rules(vectors, hashes, segments, [1, 2, 3, 4], depth)
    if all(one.overlaps or not one.rules for one in rules.segments):
        return  # one segment is the largest everywhere
    anybody = rng.lognormal(0, 3, (50, 3))
    assert all(len(one) == 1 for one in told(rules, anybody)), "they part all there can be"
    judged = hashes % np.uint64(4) == 0
    answers = [one[0] for one in told(rules, vectors[judged])]
    if rules.fidelity is None:
        assert not answers
        return
    assert rules.judged_on == len(answers)
    assert rules.fidelity == pytest.approx(np.mean(np.array(answers) == segments[judged]))
    for one in (one for one in rules.segments if not one.overlaps):
        found = sum(answer == one.segment for answer in answers)
        right = sum(a == s == one.segment for a, s in zip(answers, segments[judged], strict=True))
        assert one.purity == (right / found if found else None)
        assert sum(rule.users for rule in one.rules) == found
        assert all(len({c.feature for c in rule.conditions}) <= depth for rule in one.rules)


def test_the_same_users_give_the_same_rules_in_any_order() -> None:
    vectors, hashes, segments = sample(2)
    order = np.random.default_rng(3).permutation(len(vectors))
    first = find_rules(vectors, hashes, segments, [5, 7, 9])
    assert find_rules(vectors[order], hashes[order], segments[order], [5, 7, 9]) == first


def test_who_is_in_no_segment_asked_for_is_left_out() -> None:
    vectors, hashes, segments = sample(4)
    rules = find_rules(vectors, hashes, segments, [5, 7])
    assert [one.segment for one in rules.segments] == [5, 7]
    assert rules.learned_from + rules.judged_on == np.isin(segments, [5, 7]).sum()
    with pytest.raises(ValueError, match="need users"):
        find_rules(vectors, hashes, segments, [99])


def test_a_segment_that_is_the_largest_in_no_leaf_has_a_rule_of_its_own() -> None:
    vectors, hashes, segments = sample(5)
    rules = find_rules(vectors, hashes, segments, [5, 7, 9], depth=1)
    (own,) = (one for one in rules.segments if one.overlaps)
    (rule,) = own.rules
    judged = hashes % np.uint64(4) == 0
    (condition,) = rule.conditions
    found, members = condition.holds(vectors[judged]), segments[judged] == own.segment
    assert rule.users == found.sum()
    assert (own.covers, own.purity) == (rule.covers, rule.purity)
    assert rule.covers == pytest.approx((found & members).sum() / members.sum())
    assert own.covers is not None
    assert own.covers > 0.9
    assert rule.purity == (found & members).sum() / found.sum()


@given(st.integers(0, 2**32 - 1), st.integers(100, 400), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_every_segment_that_anything_tells_apart_has_a_rule(
    seed: int, users: int, depth: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.lognormal(0, 2, (users, 3))
    segments = np.minimum(rng.geometric(0.3, users), 8)
    hashes = np.arange(users, dtype=np.uint64)
    there = set(segments[hashes % np.uint64(4) != 0].tolist())
    for one in find_rules(vectors, hashes, segments, range(1, 10), depth).segments:
        assert bool(one.rules) == (one.segment in there)
        assert all(rule.conditions for rule in one.rules) or len(there) == 1


def test_nothing_hangs_on_what_a_fading_sum_still_holds() -> None:
    """Old users hold a trace of an order, new ones none: nobody reads a rule about that."""
    rng = np.random.default_rng(6)
    vectors = np.column_stack([rng.choice([0.0, 1e-4, 3e-3], 600), rng.uniform(0, 10, 600)])
    segments = np.where(vectors[:, 1] > 5, 1, 2)
    segments[:200] = np.where(vectors[:200, 0] > 0, 1, 2)
    rules = find_rules(vectors, np.arange(600, dtype=np.uint64), segments, [1, 2])
    features = {c.feature for one in rules.segments for rule in one.rules for c in rule.conditions}
    assert features == {1}


@given(st.floats(-1e9, 1e9), st.floats(1e-9, 1e6))
def test_a_threshold_parts_what_it_parted(low: float, more: float) -> None:
    high = low + more
    if low < high:
        number = shortest(low, high)
        assert low <= number < high


@pytest.mark.parametrize(
    ("low", "high", "number"), [(1.7, 2.2, 2.0), (11.2, 13.1, 12.0), (0.0, 0.4, 0.2), (5, 5.01, 5)]
)
def test_a_threshold_is_short(low: float, high: float, number: float) -> None:
    assert len(f"{shortest(low, high):g}") <= len(f"{number:g}") + 2
    with pytest.raises(ValueError, match="nothing lies"):
        shortest(high, low)


def test_what_faded_to_next_to_nothing_is_nothing() -> None:
    vectors, hashes, segments = sample(5)
    vectors[:, 1] = np.where(vectors[:, 1] > 5, 5e-324, -1e-300)
    found = find_rules(vectors, hashes, segments, [5, 7, 9])
    assert found.fidelity is not None
    assert found.fidelity > 0.9
    features = {c.feature for one in found.segments for rule in one.rules for c in rule.conditions}
    assert features == {0, 2}
