"""Says in a few conditions who is in which segment: a small decision tree, read aloud.

Comes in: a sample of users, their vectors in natural units and the segments they are published in.
Goes out: for each segment the rules that lead to it, and how far they can be trusted; `cli/explaining`
shows them. Nobody is moved by them.

The tree is that of Breiman et al. (1984). It is learned from three quarters of the sample and
judged on the others, who are told apart by their hash, so that a user is always on the same side.
Values are learned from as people read them, so that nothing hangs on the thousandth of an order that a
fading sum still holds. A threshold is the shortest number that parts the users as the tree does, and
what is judged are the rules as they are read. A segment that is the largest in no leaf gets a rule from
a tree of its own, which may hold of others' users too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stream.events import Bools, Floats, Hashes, Ints

DEPTH = 4
"""Four conditions are a sentence. In the demo's shop they put 86 % of users into their segment, of the 92 %
whose segment is the nearest at all. A fifth condition puts 3 % more there, and doubles the number of
rules."""
HELD_OUT = 4
"""One user in so many is kept back to judge the rules."""
LEAST_SHARE = 0.01
"""A rule for fewer users is noise: in the same shop it puts no more of them right."""
FEWEST_IN_A_LEAF = 5
NOTHING = 0.01
"""A smaller value, in any unit, counts as zero."""


@dataclass(frozen=True)
class Condition:
    """Limits on a feature in natural units: over `above` and at the most `upto`; None for none."""

    feature: int
    above: float | None
    upto: float | None

    def holds(self, vectors: Floats) -> Bools:
        values = vectors[:, self.feature]
        found = np.ones(len(values), np.bool_)
        if self.above is not None:
            found &= values > self.above
        if self.upto is not None:
            found &= values <= self.upto
        return found


@dataclass(frozen=True)
class Rule:
    """Conditions that all must hold, and what is true of the users kept back.

    Attributes:
        covers: share of the segment's members that it finds; None if there were none.
        purity: share of whom it finds that are members; None if it found nobody.
        users: how many it found.
    """

    conditions: tuple[Condition, ...]
    covers: float | None
    purity: float | None
    users: int


@dataclass(frozen=True)
class SegmentRules:
    """The rules of a segment, any of which is enough; widest first.

    There is none for a segment with no user to learn from, or whose users are like all others.

    Attributes:
        covers, purity: of all its rules together.
        overlaps: the rule holds of users as well for whom another segment's does.
    """

    segment: int
    rules: tuple[Rule, ...]
    covers: float | None
    purity: float | None
    overlaps: bool = False


@dataclass(frozen=True)
class Rules:
    """What the tree says.

    Attributes:
        segments: in the order asked for.
        fidelity: share of the users kept back whom the rules put where they are, those that overlap
            left out; None for none.
        learned_from, judged_on: users of the sample.
    """

    segments: tuple[SegmentRules, ...]
    fidelity: float | None
    learned_from: int
    judged_on: int


def find_rules(
    vectors: Floats, hashes: Hashes, segments: Ints, ids: Sequence[int], depth: int = DEPTH
) -> Rules:
    """Rules for segments, from users whose segments are known.

    Args:
        vectors: ``(users, features)`` in natural units.
        hashes: ``(users,)``; decide who is kept back.
        segments: ``(users,)`` the segment each is published in; who is in none of `ids` is left out.
        ids: the segments to find rules for.

    Raises:
        ValueError: nobody to learn from.
    """
    known = np.isin(segments, list(ids))
    vectors, hashes, segments = vectors[known], hashes[known], segments[known]
    kept_back = hashes % np.uint64(HELD_OUT) == 0
    learn_from = ~kept_back
    if not learn_from.any():
        raise ValueError("rules need users in segments to be learned from")
    told_apart, belong = _as_read(vectors[learn_from]), segments[learn_from]
    leaves = _leaves(told_apart, belong, depth)
    # Where one is the largest everywhere, its rule would be that it is everyone.
    missing = set(ids) - {segment for conditions, segment in leaves if conditions}
    alone = {segment: _best_leaf(told_apart, belong == segment, depth) for segment in missing}
    vectors, segments = vectors[kept_back], segments[kept_back]
    told = np.zeros(len(vectors), np.int64)
    found: dict[int, list[Rule]] = {segment: [] for segment in ids}
    for conditions, segment in leaves:
        here = _all_hold(conditions, vectors)
        told[here] = segment
        found[segment].append(_rule(conditions, here, segments == segment))

    def of_segment(segment: int) -> SegmentRules:
        members = segments == segment
        if conditions := alone.get(segment):
            rule = _rule(conditions, _all_hold(conditions, vectors), members)
            return SegmentRules(segment, (rule,), rule.covers, rule.purity, overlaps=True)
        rules = sorted(found[segment], key=lambda rule: -(rule.covers or 0.0))
        return SegmentRules(segment, tuple(rules), *_shares(told == segment, members))

    return Rules(
        segments=tuple(map(of_segment, ids)),
        fidelity=float((told == segments).mean()) if len(told) else None,
        learned_from=int(np.count_nonzero(learn_from)),
        judged_on=len(told),
    )


def _rule(conditions: tuple[Condition, ...], found: Bools, members: Bools) -> Rule:
    return Rule(conditions, *_shares(found, members), int(np.count_nonzero(found)))


def _as_read(vectors: Floats) -> Floats:
    """Values to three digits; 0 for what would be shown as next to nothing."""
    size = np.abs(vectors)
    nothing = size < NOTHING
    # What faded for weeks is so small that no power of ten would bring it to three digits.
    scale = 10.0 ** (2 - np.floor(np.log10(np.where(nothing, 1.0, size))))
    return np.where(nothing, 0.0, np.round(vectors * scale) / scale)


def _shares(found: Bools, members: Bools) -> tuple[float | None, float | None]:
    """The share of members that were found, and of the found that are members."""
    both = int(np.count_nonzero(found & members))
    there, here = int(np.count_nonzero(members)), int(np.count_nonzero(found))
    return (both / there if there else None, both / here if here else None)


def _all_hold(conditions: Sequence[Condition], vectors: Floats) -> Bools:
    found = np.ones(len(vectors), np.bool_)
    for condition in conditions:
        found &= condition.holds(vectors)
    return found


# -- the tree ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Split:
    """A question: is a feature above the threshold? Users for whom it is not go left."""

    feature: int
    threshold: float
    left: _Split | int
    right: _Split | int


def _leaves(vectors: Floats, segments: Ints, depth: int) -> list[tuple[tuple[Condition, ...], int]]:
    """The tree's leaves, with the conditions that lead there; together they cover every possible user."""
    return _walk(_grow(vectors, segments, depth))


def _best_leaf(vectors: Floats, members: Bools, depth: int) -> tuple[Condition, ...] | None:
    """What leads to the leaf that is most like a segment; None if nothing tells it from all others.

    Members weigh as much as all others together, so that some leaf is theirs.
    """
    if not members.any():
        return None
    leaves = _walk(_grow(vectors, members.astype(np.int64), depth, class_weight="balanced"))
    theirs = [conditions for conditions, is_member in leaves if is_member and conditions]
    return max(theirs, key=lambda one: _likeness(_all_hold(one, vectors), members), default=None)


def _likeness(found: Bools, members: Bools) -> float:
    """How many users two groups share, of all who are in either."""
    return float((found & members).sum() / max(int((found | members).sum()), 1))


def _grow(
    vectors: Floats, classes: Ints, depth: int, class_weight: str | None = None
) -> _Split | int:
    from sklearn.tree import DecisionTreeClassifier  # noqa: PLC0415 - slow to import

    fewest = max(FEWEST_IN_A_LEAF, round(LEAST_SHARE * len(vectors)))
    tree = DecisionTreeClassifier(
        max_depth=depth, min_samples_leaf=fewest, random_state=0, class_weight=class_weight
    )
    tree.fit(vectors, classes)
    return _read(tree.tree_, tree.classes_, vectors, 0)


def _walk(root: _Split | int) -> list[tuple[tuple[Condition, ...], int]]:
    """The leaves below a node, with what leads there."""
    found: list[tuple[tuple[Condition, ...], int]] = []

    def walk(node: _Split | int, limits: dict[int, tuple[float | None, float | None]]) -> None:
        if isinstance(node, int):
            conditions = tuple(Condition(f, *between) for f, between in limits.items())
            found.append((conditions, node))
            return
        above, upto = limits.get(node.feature, (None, None))
        walk(node.left, limits | {node.feature: (above, node.threshold)})
        walk(node.right, limits | {node.feature: (node.threshold, upto)})

    walk(root, {})
    return found


def _read(tree: Any, classes: Ints, vectors: Floats, node: int) -> _Split | int:
    """A node of scikit-learn's tree, with short thresholds; questions that part nobody are left out."""
    left, right = int(tree.children_left[node]), int(tree.children_right[node])
    if left < 0:
        return int(classes[int(tree.value[node][0].argmax())])
    feature = int(tree.feature[node])
    values = vectors[:, feature]
    # The tree compares in single precision.
    low = values.astype(np.float32) <= tree.threshold[node]
    below, above = float(values[low].max()), float(values[~low].min())
    threshold = shortest(NOTHING / 2 if below == 0 < above else below, above)
    one, other = (
        _read(tree, classes, vectors[low], left),
        _read(tree, classes, vectors[~low], right),
    )
    return one if one == other and isinstance(one, int) else _Split(feature, threshold, one, other)


def shortest(low: float, high: float) -> float:
    """The number with the fewest digits that is not below `low` and below `high`.

    Raises:
        ValueError: there is no number between them.
    """
    if not low < high:
        raise ValueError(f"nothing lies from {low} up to {high}")
    middle = (low + high) / 2
    for digits in range(17):
        number = float(f"{middle:.{digits}e}")
        if low <= number < high:
            return number
    return low
