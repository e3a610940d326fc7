"""Decides what each number of the learning benchmark means; arithmetic on arrays, no method known.

Comes in: vectors, labels, truth. Goes out: numbers; `arena` collects what goes in.

**Common space.** At a checkpoint, `stream.clustering.FeatureMap` is learned on the latest vectors of
*all* users active now and maps everything that is compared there, so that no method is judged by
a scale of its own. A method's centroids are carried over from natural units, which is where people
read them and where each method can say what it means.

- *inertia ratio*: inertia of the live centroids over that of scikit-learn's ``KMeans(n_init=10)``
  with as many clusters as groups are sought, both on the users active now in the common space.
  *Cells ratio*: the same, but a method's centroids are the means of the users that it puts together
  by its own geometry. It forgives a centroid that lags, or is a mean of raw values; a gap between
  both says which of the two a method suffers from.
- *ARI against batch*: adjusted Rand index between the nearest live centroids (by the method's own
  geometry) and the labels of that batch KMeans, users active now.
- *published change*: after a micro-batch a user is published under another id than before. The
  first is none, nor is becoming unknown; who comes back is compared with the last id known. Nor is a
  *move by a retirement*: who leaves an id that is no more is booked apart, in rows of their own, and
  counts neither as published nor as spurious. Rivals never retire an id, so theirs are 0; to
  weigh all that readers of changes see, add both rows.
- *spurious change*: a published change that the truth does not owe. A user is owed one change by
  each change of its true group, and as many as come while its group splits plus one. What is owed
  does not add up. Reported a 1,000 updates.
- *published per true change*: all published changes over all changes of true groups.
- *settled share*: of users whose true group changed and who have then acted `SETTLE_UPDATES` times
  more without another true change: how many are published under the id matched to the true
  group. Ids and groups are matched among users active now to share the most users (Hungarian).
  *Early*: the same after `EARLY_UPDATES`, which says how quickly; a margin costs some acts.
- *identity kept*: over consecutive checkpoints and living groups with `ENOUGH` users who are active
  and in the group at both: how often the id most of them have is the same at both, and is not
  also that of most users of another group. (Without the latter, one id for everyone were best.)
- *ids of two groups*: ids that most users of one group have at a checkpoint and most users of another
  at the same or another; a group and what split from it count as one.
- *ids minted*: ids of live centroids never seen before; no rival ever mints one.
- *centroid bias*: distance from a group's mean, each active user one vote, to the nearest live
  centroid in the common space; in standard deviations of a feature within groups, mean over groups.

Everything before the burn-in's end is learned from, but not scored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from stream.clustering import distances
from stream.events import Bools, Floats, Ints

SETTLE_UPDATES = 8
"""Acts after the one by which a user moved; `ops/decisions/2026-11-22-settled-after-eight-acts.md`
says why so many."""
EARLY_UPDATES = 4
"""By then a vector has gone 97 % of its way."""
ENOUGH = 20
"""Users of a group, below which the id of most of them is chance."""


def inertia(mapped: Floats, centroids: Floats) -> float:
    """Squared distances to the nearest centroid, added up."""
    ones = np.ones(mapped.shape[1])
    nearest = distances(mapped, centroids, ones).min(axis=1)
    return float(np.maximum(nearest, 0.0).sum())


def cell_means(mapped: Floats, labels: Ints) -> Floats:
    """The mean of each label's users, in ascending order of the labels there are."""
    present, cell = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(present), mapped.shape[1]))
    np.add.at(sums, cell, mapped)
    means: Floats = sums / np.bincount(cell)[:, None]
    return means


def centroid_bias(mapped: Floats, truth: Ints, centroids: Floats) -> float:
    """How far centroids are from the means of true groups, in standard deviations."""
    means = cell_means(mapped, truth)
    within = mapped - means[np.unique(truth, return_inverse=True)[1]]
    away = distances(means, centroids, np.ones(mapped.shape[1])).min(axis=1)
    return float(np.sqrt(np.maximum(away, 0.0)).mean() / within.std())


def matched(truth: Ints, published: Ints, groups: int) -> Ints:
    """The id of each group, ``(groups,)``, -1 for none, so that they share the most users."""
    known = (truth >= 0) & (published >= 0)
    ids, column = np.unique(published[known], return_inverse=True)
    shared = np.bincount(truth[known] * len(ids) + column, minlength=groups * len(ids))
    found = np.full(groups, -1, dtype=np.int64)
    if len(ids):
        rows, columns = linear_sum_assignment(-shared.reshape(groups, len(ids)))
        found[rows] = ids[columns]
    return found


def majority_ids(groups_of: Ints, published: Ints, groups: int) -> Ints:
    """The id that most users of each group have, ``(groups,)``; -1 below `ENOUGH` users."""
    found = np.full(groups, -1, dtype=np.int64)
    for group in range(groups):
        ids, counts = np.unique(published[groups_of == group], return_counts=True)
        if counts.sum() >= ENOUGH:
            found[group] = ids[counts.argmax()]
    return found


@dataclass(frozen=True)
class Snapshot:
    """Everyone at a checkpoint; columns of users.

    Attributes:
        truth, published: -1 for not yet known.
        alive: ``(groups,)`` groups of which updates may still come.
    """

    active: Bools
    truth: Ints
    published: Ints
    alive: Bools


def identities(before: Snapshot, after: Snapshot) -> tuple[int, int]:
    """How many groups kept their id from a checkpoint to the next, and of how many."""
    both = before.active & after.active & (before.truth == after.truth)
    both &= (before.published >= 0) & (after.published >= 0)
    groups = len(after.alive)
    then = majority_ids(before.truth[both], before.published[both], groups)
    now = majority_ids(after.truth[both], after.published[both], groups)
    asked = before.alive & after.alive & (then >= 0)
    ids, counts = np.unique(now[asked], return_counts=True)
    own = np.isin(now, ids[counts == 1])
    return int((asked & own & (then == now)).sum()), int(asked.sum())


def ids_of_two_groups(snapshots: Sequence[Snapshot], kin: Ints) -> int:
    """How many ids have stood for more than one group.

    Args:
        kin: ``(groups,)`` the group that each came from; itself if from none.
    """
    stood_for: defaultdict[int, set[int]] = defaultdict(set)
    for one in snapshots:
        known = one.active & (one.published >= 0)
        found = majority_ids(one.truth[known], one.published[known], len(kin))
        for group in np.flatnonzero((found >= 0) & one.alive).tolist():
            stood_for[int(found[group])].add(int(kin[group]))
    return sum(len(groups) > 1 for groups in stood_for.values())


class Settling:
    """Counts who is in the right segment so many acts after a true change.

    Attributes:
        judged: users who acted as often.
        settled: those of them in the right segment.
    """

    def __init__(self, users: int, after: int) -> None:
        self._after = after
        self._acts = np.full(users, -1, dtype=np.int64)
        """Since the last true change that is not yet judged; -1 for none."""
        self.judged = self.settled = 0

    def due(self, truly: Bools, acts: Ints) -> Bools:
        """Who is to be judged now, each once for a true change.

        Args:
            truly: ``(users,)`` whose group has just changed.
            acts: of each user in this micro-batch.
        """
        self._acts += np.where(self._acts >= 0, acts, 0)
        self._acts[truly] = 0
        found: Bools = self._acts >= self._after
        self._acts[found] = -1
        return found

    def judge(self, right: Bools) -> None:
        """Take in whether each of those who are due is where they belong."""
        self.judged += len(right)
        self.settled += int(right.sum())

    @property
    def share(self) -> float:
        return ratio(self.settled, self.judged)


class Ledger:
    """Books published changes against true ones, micro-batch by micro-batch.

    Attributes:
        late, early: who has settled after `SETTLE_UPDATES`, and after `EARLY_UPDATES`.

    Args:
        users: how many there are.
        groups: that are ever alive.
    """

    def __init__(self, users: int, groups: int) -> None:
        self._groups = groups
        self._truth = np.full(users, -1, dtype=np.int64)
        self._published = np.full(users, -1, dtype=np.int64)
        self._owed = np.zeros(users, dtype=np.bool_)
        self.late = Settling(users, SETTLE_UPDATES)
        self.early = Settling(users, EARLY_UPDATES)
        self.updates = self.published = self.spurious = self.true = self.retired = 0

    def book(
        self,
        truth: Ints,
        published: Ints,
        acts: Ints,
        active: Bools,
        splitting: tuple[int, ...],
        live: Collection[int],
        *,
        scored: bool,
    ) -> None:
        """Everyone after a micro-batch, and how often each acted in it.

        Args:
            truth, published: ``(users,)``; -1 for not known.
            live: ids that a method still has. Who leaves an id that is no more is booked apart:
                it is one event of the segment, told once, and nothing about the user.
            scored: whether the burn-in is over.
        """
        truly = (self._truth >= 0) & (truth != self._truth)
        changed = (self._published >= 0) & (published >= 0) & (published != self._published)
        stranded = changed & ~np.isin(self._published, list(live))
        changed &= ~stranded
        self._owed |= truly | np.isin(truth, splitting)
        spurious = changed & ~self._owed
        self._owed &= ~changed | np.isin(truth, splitting)

        if scored:
            self.updates += int(acts.sum())
            self.true += int(truly.sum())
            self.published += int(changed.sum())
            self.retired += int(stranded.sum())
            self.spurious += int(spurious.sum())
        waiting = [(settling, settling.due(truly, acts)) for settling in (self.late, self.early)]
        if scored and any(due.any() for _, due in waiting):
            right = matched(truth[active], published[active], self._groups)[truth]
            for settling, due in waiting:
                settling.judge(((published == right) & (right >= 0))[due])
        self._truth = truth.copy()
        self._published = np.where(published >= 0, published, self._published)

    def numbers(self) -> dict[str, float]:
        """By the names of the report; NaN where the truth gave nothing to judge."""
        return {
            "spurious_changes_per_1000": ratio(1_000 * self.spurious, self.updates),
            "retired_changes_per_1000": ratio(1_000 * self.retired, self.updates),
            "published_per_true_change": ratio(self.published, self.true),
            "settled_share": self.late.share,
            "settled_early_share": self.early.share,
        }


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
