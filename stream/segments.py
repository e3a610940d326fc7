"""Decides who moves, how far is far enough, and why.

Comes in: where users were, and their distances to the centroids of a model. Goes out: who is
where now, with cause and margin; `producers/outbox` is next. The publish rule asks for a margin, in
one look or added up from act to act, so that nobody flaps on a border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from stream import rhythm
from stream.events import CAUSES, Bools, Cause, Floats, Ints, Rows
from stream.rows import put_rows, rows_at
from stream.units import DAY_MS

MOST_MARGIN = 16.0
MOST_GROWN = 0.45
"""Who stands at the other centroid, at .5, moves at once, however near the two are."""
EVIDENCE = 4_096
"""A row's `evidence` counts in these parts of a margin, and holds up to `MOST_MARGIN`."""


@dataclass(frozen=True)
class PublishRule:
    """When a nearer centroid is near enough, and what counts as flapping; see `config.Publish`."""

    margin: float
    provisional_looks: int
    dwell_ms: int
    revert_ms: int = 0
    sign_gap_ms: int = 0
    silence_margin: float = MOST_MARGIN
    turns_per_second: float = 200.0
    apart: float = 0.0
    return_ms: int = 0
    usual_gaps: float = 0.0
    rest_ms: int = 0

    def asked(self, nearness: Floats) -> tuple[Floats, Floats]:
        """The margins that an act and that silence needs.

        Args:
            nearness: of the segments between which a user is, see `model.Model.nearness`.
        """
        times = np.maximum(self.apart * nearness, 1.0)
        by_act, by_silence = (
            np.minimum(margin * times, max(margin, MOST_GROWN))
            for margin in (self.margin, self.by_silence)
        )
        return by_act, by_silence

    def asked_between(self, nearness: float) -> tuple[float, float]:
        """The same for one user."""
        by_act, by_silence = self.asked(np.array([nearness]))
        return float(by_act[0]), float(by_silence[0])

    def resting(self, names: Sequence[str], vectors: Floats) -> Bools | None:
        """Who is silent for no longer than is usual for them, or in the shop, so that only acts move them.

        Args:
            names: of the vectors' features. None is the answer where they do not tell, or nobody rests.
        """
        left = self.rest_days(names, vectors)
        return None if left is None else left > 0

    def rest_days(self, names: Sequence[str], vectors: Floats) -> Floats | None:
        """How many days longer they rest if they stay silent; of `resting`."""
        found: Floats | None = None
        if self.usual_gaps and rhythm.tells_gaps(names):
            found = rhythm.rest_days(vectors, names, self.usual_gaps, self.return_ms / DAY_MS)
        if self.rest_ms and rhythm.SEEN in names:
            left = self.rest_ms / DAY_MS - vectors[:, names.index(rhythm.SEEN)]
            found = left if found is None else np.maximum(found, left)
        return found

    @property
    def by_silence(self) -> float:
        """The margin for whom time alone carried over a border: never more than that of an act."""
        return min(self.silence_margin, self.margin)


@dataclass(frozen=True)
class Moves:
    """Who moved in a look, a column a field.

    Attributes:
        index: place in the looked-at rows, ascending.
        before: segment before, 0 for none.
        after: segment after.
        column: place of the segment after in the model.
        column_before: place of the segment before in the model, -1 if it has none.
        cause: code in `CAUSES`.
        margin: z, or NaN where there was nothing to compare with.
        provisional: whether the user has had few looks so far.
        reverted: whether the user goes back to the segment they left soon before.
        crossed: whether the user belongs to another population than before.
    """

    index: Ints
    before: npt.NDArray[np.int32]
    after: npt.NDArray[np.int32]
    column: Ints
    column_before: Ints
    cause: npt.NDArray[np.uint8]
    margin: Floats
    provisional: Bools
    reverted: Bools
    crossed: Bools

    def __len__(self) -> int:
        return len(self.index)

    def between(self, start: int, end: int) -> Moves:
        """Of the rows from one place to another, as if only these had been looked at."""
        first, last = np.searchsorted(self.index, (start, end)).tolist()
        columns = {f.name: getattr(self, f.name)[first:last] for f in fields(self)}
        return Moves(**columns | {"index": columns["index"] - start})

    def without(self, places: Ints) -> Moves:
        """Of the other rows."""
        kept = ~np.isin(self.index, places)
        return Moves(**{f.name: getattr(self, f.name)[kept] for f in fields(self)})


@dataclass(frozen=True)
class Look:
    """Answer of `look`.

    Attributes:
        changed: places of rows that differ from before.
        columns: ``(n,)`` place of each one's segment in the model now, -1 if it has none.
    """

    moves: Moves
    changed: Ints
    columns: Ints


def look(
    rows: Rows,
    distances: Floats,
    ids: npt.NDArray[np.int32],
    gaps: Floats,
    rule: PublishRule,
    causes: npt.NDArray[np.uint8],
    now_ms: int,
    crossing: Bools | None = None,
    nearness: Floats | None = None,
    resting: Bools | None = None,
) -> Look:
    """Look at users once and move whom the publish rule lets move; rows change in place.

    A user moves when the margin towards another segment is over the rule's, or when the margins at
    this and earlier acts, all of which found the same segment nearest, add up to more: a cumulative
    sum (Page 1954, "Continuous inspection schemes") of what each act has to say. Only acts are
    added up, because to look again at what has not changed proves nothing again, and of acts close
    together only the first, because ten clicks in a minute are one sign; and a look that finds
    another segment nearest, or their own, begins anew.

    Who belongs to another population than their segment moves at once, to the nearest segment there:
    its rule holds, and there is nothing to hesitate about.

    Whom nothing but time carries over the border moves at the smaller silence margin: features fade
    without chance, so there is nothing to wait for. Who was farther over it than that when they last
    acted, or when the model last moved, was not carried there by time, and needs the full margin.

    The margin asked for grows where the two segments are near, because there a user's place trembles
    across. Time and models take nobody back to the segment that they left not long ago: only acts do.
    Nor do they move who rests: a silence that is usual for somebody says nothing of them.

    Args:
        rows: ``(n,)`` users.
        distances: ``(n, k)`` squared distances to the model's centroids, infinite to those of other
            populations than the user's.
        ids: ``(k,)`` segment ids, ascending or not, none 0.
        gaps: ``(k, k)`` squared distances between centroids.
        causes: ``(n,)`` codes in `CAUSES`: what made us look at the user.
        now_ms: the time of the look.
        crossing: ``(n,)`` who belongs to another population than their segment is of. Where that one
            has no segments yet, they stay. None for nobody.
        nearness: ``(k, k)`` see `model.Model.nearness`; None where all segments are far apart.
        resting: ``(n,)`` who is silent for no longer than is usual for them; None for nobody.
    """
    best = distances.argmin(axis=1)
    columns = place = columns_of(rows["segment"], ids)
    acted = causes == CAUSES.index(Cause.USER_MOVED)
    provisional = rows["looks"] < rule.provisional_looks
    changed = acted & (rows["looks"] < 255)
    rows["looks"] += changed

    # All others are nearest to their own segment and have nothing to forget.
    open_ = np.flatnonzero((best != place) | (rows["candidate"] > 0))
    everyone, rows, distances = rows, rows_at(rows, open_), distances[open_]
    best, place, causes, acted = best[open_], place[open_], causes[open_], acted[open_]
    current = rows["segment"]
    user = np.arange(len(rows))
    first = current == 0
    retired = ~first & (place < 0)
    settled = place >= 0
    old = np.where(settled, place, 0)

    nearest = distances[user, best]
    nowhere = np.isinf(nearest)
    crossed = np.zeros(len(rows), np.bool_) if crossing is None else crossing[open_] & ~nowhere
    retired &= ~crossed
    between = settled & ~crossed & ~nowhere
    separation = np.where(between, gaps[old, best], 1.0)
    difference = np.where(between, distances[user, old], 0.0) - np.where(between, nearest, 0.0)
    # On the border itself no other segment is nearer, whichever of the two comes first.
    rival = between & (difference > 0)
    margin = np.where(rival, difference / (2.0 * np.where(separation > 0, separation, 1.0)), 0.0)
    wanted = ids[best]
    same = rows["candidate"] == wanted
    so_far = np.where(same, rows["evidence"] / EVIDENCE, 0.0)
    gap = now_ms - rows["sign"]  # below 0 if a clock was ahead, which must not hold up signs
    sign = acted & (margin > 0) & ~(same & (gap >= 0) & (gap < rule.sign_gap_ms))
    evidence = np.where(margin > 0, so_far + np.where(sign, margin, 0.0), 0.0)
    # For whoever moved by a clock that was ahead, no time has passed; not less than none.
    age = np.maximum(now_ms - rows["since"], 0)
    back = (rows["previous"] > 0) & (rows["previous"] == wanted)
    near = np.zeros(len(rows)) if nearness is None else nearness[old, best]
    margin_asked, silence_asked = rule.asked(near)
    by_acts = evidence > margin_asked
    little = so_far <= silence_asked
    # Whom the model carried over the border has a candidate and no evidence.
    models = same & (rows["candidate"] > 0) & (rows["evidence"] == 0)
    carried = (causes == CAUSES.index(Cause.MODEL_MOVED)) & (margin > silence_asked) & little
    by_time = (causes == CAUSES.index(Cause.TIME_PASSED)) & ~models & little
    held = back & (age < rule.return_ms)
    held = ~acted & (held if resting is None else held | resting[open_])
    due = by_acts | (~held & (margin > np.where(by_time, silence_asked, margin_asked)))
    stayed = age >= rule.dwell_ms
    moved = ((first | retired) & ~nowhere) | crossed | (due & stayed)

    # Who is kept by the dwell only was due by acts, whenever the dwell ends.
    cause = np.where(by_acts, CAUSES.index(Cause.USER_MOVED), causes).astype(np.uint8)
    cause[retired] = CAUSES.index(Cause.SEGMENT_RETIRED)

    # Rounded down: what is kept is never over a margin that it was not over.
    kept = np.where(moved | carried, 0.0, evidence) * EVIDENCE
    kept = np.minimum(kept, 65_535).astype(np.uint16)
    candidate = np.where(~moved & ((kept > 0) | (models & rival) | carried), wanted, 0)
    signed = np.where(kept > 0, np.where(sign, now_ms, rows["sign"]), 0)
    changed[open_] |= moved | (candidate != rows["candidate"]) | (kept != rows["evidence"])
    changed[open_] |= signed != rows["sign"]

    index = np.flatnonzero(moved)
    flapped = back & (age < rule.revert_ms)
    moves = Moves(
        index=open_[index],
        before=current[index].copy(),
        after=wanted[index].astype(np.int32),
        column=best[index],
        column_before=place[index],
        cause=cause[index],
        margin=np.where(rival[index], margin[index], np.nan),
        provisional=provisional[open_[index]],
        reverted=flapped[index],
        crossed=crossed[index],
    )
    rows["candidate"], rows["evidence"], rows["sign"] = candidate, kept, signed
    rows["previous"][index] = moves.before
    rows["segment"][index] = moves.after
    rows["since"][index] = now_ms
    rows["version"][index] += 1
    put_rows(everyone, open_, rows)
    columns[moves.index] = moves.column
    return Look(moves, np.flatnonzero(changed), columns)


def published_now(
    segments: npt.NDArray[np.int32], ids: npt.NDArray[np.int32], squared: Floats
) -> Ints:
    """Column of the segment that each user is published in; the nearest, of whom it is not known.

    A segment that nobody has come to yet is taken to have those nearest to it.

    Args:
        segments: ids, 0 for none.
        ids, squared: of the model in force, see `look`.
    """
    return _peopled(columns_of(segments, ids), squared)


def published_then(
    segments: npt.NDArray[np.int32],
    ids: npt.NDArray[np.int32],
    squared: Floats,
    gaps: Floats,
    rule: PublishRule,
    nearness: Floats | None = None,
    resting: Bools | None = None,
) -> Ints:
    """Column of the segment that each user will be published in when a model has been adopted.

    Args:
        segments: ids of the segments that they are in before, 0 for none.
        ids, squared, gaps, nearness: of the model to come, see `look`.
        resting: see `look`.
    """
    best, user = squared.argmin(axis=1), np.arange(len(squared))
    columns = columns_of(segments, ids)
    now = np.where(columns >= 0, columns, best)
    farther = squared[user, now] - squared[user, best]
    near = np.zeros(len(best)) if nearness is None else nearness[now, best]
    far = farther > 2.0 * gaps[now, best] * rule.asked(near)[0]
    if resting is not None:
        far &= ~resting
    return _peopled(np.where(far, best, now), squared)


def _peopled(columns: Ints, squared: Floats) -> Ints:
    """Columns of users, those nearest to a segment without anybody put there; -1 is nowhere yet."""
    best = squared.argmin(axis=1)
    peopled = np.bincount(columns[columns >= 0], minlength=squared.shape[1]) > 0
    return np.where((columns < 0) | ~peopled[best], best, columns)


def columns_of(segments: npt.NDArray[np.int32], ids: npt.NDArray[np.int32]) -> Ints:
    """Column of each segment in the model; -1 for none."""
    order = np.argsort(ids)
    found = np.minimum(np.searchsorted(ids[order], segments), len(ids) - 1)
    place = order[found]
    return np.where(ids[place] == segments, place, -1)


def contributions(mapped: Floats, old: Floats, new: Floats, weights: Floats) -> Floats:
    """What each feature adds to ``d2(x, old) - d2(x, new)``, ``(n, features)``.

    The squared distance is a sum over features, so these add up to the margin exactly.
    """
    parts: Floats = weights * ((mapped - old) ** 2 - (mapped - new) ** 2)
    return parts
