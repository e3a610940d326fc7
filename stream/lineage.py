"""Keeps a segment's identity when its centroid moves or is refitted.

Comes in: the same sampled users under the old and the new centroids. Goes out: an id for each
new centroid and the lineage events that explain every difference. Ids are minted once and
never used again; `trainer` holds the next free one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from stream.events import Ints


@dataclass(frozen=True)
class Heritage:
    """What became of identities in a refit.

    Attributes:
        ids: id of each new centroid.
        next_id: the next free id.
        events: (event, id, other ids), in a stable order.
    """

    ids: tuple[int, ...]
    next_id: int
    events: tuple[tuple[str, int, tuple[int, ...]], ...]


def inherit(
    old_ids: tuple[int, ...], old: Ints, new: Ints, k: int, next_id: int, overlap: float
) -> Heritage:
    """Match new centroids with old ids by the users they share.

    Pairs are chosen to share as many users as possible in all (Kuhn 1955, Hungarian method);
    a pair keeps its id if it shares at least `overlap` of the smaller of the two.

    Args:
        old_ids: ids by old column.
        old: ``(n,)`` old column of each sampled user.
        new: ``(n,)`` new column of each sampled user.
        k: number of new centroids.
    """
    shared = np.bincount(old * k + new, minlength=len(old_ids) * k).reshape(len(old_ids), k)
    old_sizes, new_sizes = shared.sum(axis=1), shared.sum(axis=0)
    ids = [0] * k
    survived: set[int] = set()
    for row, column in zip(*linear_sum_assignment(-shared), strict=True):
        smaller = min(old_sizes[row], new_sizes[column])
        if smaller > 0 and shared[row, column] >= overlap * smaller:
            ids[column] = old_ids[row]
            survived.add(int(row))

    events: list[tuple[str, int, tuple[int, ...]]] = []
    for column in range(k):
        if ids[column]:
            continue
        ids[column], next_id = next_id, next_id + 1
        parent = int(shared[:, column].argmax())
        if new_sizes[column] and shared[parent, column] >= 0.5 * new_sizes[column]:
            event = "split" if parent in survived else "succeeded"
            events.append((event, ids[column], (old_ids[parent],)))
        else:
            events.append(("emerged", ids[column], ()))
    for row, old_id in enumerate(old_ids):
        if row in survived:
            continue
        heir = int(shared[row].argmax())
        if old_sizes[row] and shared[row, heir] >= 0.5 * old_sizes[row]:
            events.append(("absorbed", old_id, (ids[heir],)))
        else:
            events.append(("dissolved", old_id, ()))
    return Heritage(tuple(ids), next_id, tuple(events))
