"""Keeps a segment's identity when its centroid moves or is refitted.

Comes in: the same sampled users under the old and the new centroids. Goes out: an id for each
new centroid and the lineage events that explain every difference. Ids are minted once and
never used again; `learning` holds the next free one.

Many small steps can carry an id anywhere: a segment loses its people, its centroid catches a few of
another's, then more, and from refit to refit most of its members stay. So an id is also held
against an `Anchor`, some refits back: it does not survive elsewhere with other people.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from stream.events import Bools, Hashes, Ints


class Anchor(msgspec.Struct, frozen=True):
    """Where segments were some refits ago, and who was in them.

    Attributes:
        age: refits since.
        hashes: of the sampled users then, packed uint64.
        ids: segment of each then, packed int32.
        places: centroid of each segment then, by id, in standard deviations over the users of
            then: a shop in which everyone grows older moves nobody.
    """

    hashes: bytes
    ids: bytes
    places: dict[int, list[float]]
    age: int = 0

    @staticmethod
    def of(hashes: Hashes, ids: npt.NDArray[np.int32], places: dict[int, list[float]]) -> Anchor:
        return Anchor(hashes.tobytes(), ids.astype(np.int32).tobytes(), places)

    def segments_then(self, hashes: Hashes) -> Ints:
        """Segment of these users then, 0 for who was not in the sample."""
        known = np.frombuffer(self.hashes, np.uint64)
        order = np.argsort(known)
        place = np.minimum(np.searchsorted(known[order], hashes), len(known) - 1)
        found = known[order][place] == hashes
        return np.where(found, np.frombuffer(self.ids, np.int32)[order][place], 0).astype(np.int64)


def others_people(then: Ints, now: Bools, segment: int, overlap: float) -> bool:
    """Whether a segment's members now are not those of then.

    Args:
        then: ``(n,)`` segment of each user then, 0 for unknown; those are left out.
        now: ``(n,)`` who is a member now.
        overlap: share of the smaller of the two that makes them the same people.
    """
    known = then != 0
    before, after = (then == segment) & known, now & known
    smaller = min(int(before.sum()), int(after.sum()))
    return smaller == 0 or int((before & after).sum()) < overlap * smaller


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
    old_ids: tuple[int, ...],
    old: Ints,
    new: Ints,
    k: int,
    next_id: int,
    overlap: float,
    apart: Collection[tuple[int, int]] = (),
    then: Ints | None = None,
) -> Heritage:
    """Match new centroids with old ids by the users they share.

    Pairs are chosen to share as many users as possible in all (Kuhn 1955, Hungarian method);
    a pair keeps its id if it shares at least `overlap` of the smaller of the two.

    Args:
        old_ids: ids by old column.
        old: ``(n,)`` old column of each sampled user.
        new: ``(n,)`` new column of each sampled user.
        k: number of new centroids.
        apart: pairs (id, new column) that must not be matched, whatever they share.
        then: ``(n,)`` id of each user's segment at the anchor, 0 for unknown: says where the
            people came from in a column that a pair keeps apart.
    """
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - a second to import

    shared = np.bincount(old * k + new, minlength=len(old_ids) * k).reshape(len(old_ids), k)
    old_sizes, new_sizes = shared.sum(axis=1), shared.sum(axis=0)
    ids = [0] * k
    survived: set[int] = set()
    allowed = shared.copy()
    for segment, column in apart:
        allowed[old_ids.index(segment), column] = 0
    for row, column in zip(*linear_sum_assignment(-allowed), strict=True):
        smaller = min(old_sizes[row], new_sizes[column])
        if smaller > 0 and allowed[row, column] >= overlap * smaller:
            ids[column] = old_ids[row]
            survived.add(int(row))

    events: list[tuple[str, int, tuple[int, ...]]] = []
    for column in range(k):
        if ids[column]:
            continue
        ids[column], next_id = next_id, next_id + 1
        parent = int(shared[:, column].argmax())
        likely = new_sizes[column] > 0 and shared[parent, column] >= 0.5 * new_sizes[column]
        if then is not None and (old_ids[parent], column) in apart:
            members = new == column
            origin = np.array([int(((then == i) & members).sum()) for i in old_ids])
            among = int(((then != 0) & members).sum())
            if among and origin.max() >= 0.5 * among:
                parent, likely = int(origin.argmax()), True
        if likely:
            event = "split" if parent in survived else "succeeded"
            events.append((event, ids[column], (old_ids[parent],)))
        else:
            events.append(("emerged", ids[column], ()))
    for row, old_id in enumerate(old_ids):
        if row in survived:
            kept = ids.index(old_id)
            heir = int(np.where(np.arange(k) == kept, -1, shared[row]).argmax())
            if k > 1 and ids[heir] in old_ids and shared[row, heir] > 0.5 * old_sizes[row]:
                events.append(("ceded", old_id, (ids[heir],)))
            continue
        heir = int(shared[row].argmax())
        if old_sizes[row] and shared[row, heir] >= 0.5 * old_sizes[row]:
            events.append(("absorbed", old_id, (ids[heir],)))
        else:
            events.append(("dissolved", old_id, ()))
    return Heritage(tuple(ids), next_id, tuple(events))
