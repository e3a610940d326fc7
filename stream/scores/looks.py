"""Keeps what was seen of customers until it is known what came of it: a label is never taken early.

Comes in: samples of users. Goes out: for each horizon the looks whose time is over, with whether the user
ordered in it and what they spent; each once. What has to be kept is bounded: so many users, looked at
once in so many days, until the longest horizon is over.

A user who is not in a sample any more is forgotten at once, with all that was seen of them: they were
erased, or others have the smaller hashes now. Who was seen before has not *not bought*: nothing is learned
of them. Between two samples only the last order is known, so who orders before and after the end of a
horizon without a sample in between counts as not having bought in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from stream.events import Bools, Floats, Hashes, Ints
from stream.units import DAY_MS

ROUNDING_MS = 1.0
"""A time that was days before is right to less than this."""
KEPT_JUDGED = 4_096
"""Predictions of each horizon that are kept to judge them by."""
Small = npt.NDArray[np.float32]
Segments = npt.NDArray[np.int32]
_OVER = ("judged", "judged_in")
"""Columns of what is over, and waits no more."""


@dataclass(frozen=True)
class Looks:
    """Looks that are waiting, by time and hash, a column a field; and the last predictions judged.

    Attributes:
        meaning: of inputs and horizons; what was kept under another one is forgotten.
        at_ms, hashes: when, and of whom.
        logs: ``(n, k)`` of inputs.
        revenue: of the user ever, as of the look.
        basket: usual of the user, as of the look.
        predicted, foretold: ``(n, h)`` probability and money predicted at the look; NaN for none.
        spent: ``(n, h)`` since the look, as far as it is known to lie in the horizon.
        bought, closed: ``(n, h)`` whether an order is known in the horizon, and whether that is over.
        segments: id of the segment the user was published in at the look; 0 for none.
        judged: ``(h, 4, m)`` of what is over: predicted, bought, foretold, spent; NaN behind the last.
        judged_in: ``(h, m)`` segment at the look of each of these.
    """

    meaning: str
    at_ms: Ints
    hashes: Hashes
    logs: Small
    revenue: Floats
    basket: Floats
    predicted: Small
    foretold: Small
    spent: Small
    bought: Bools
    closed: Bools
    segments: Segments
    judged: Small
    judged_in: Segments

    def __len__(self) -> int:
        return len(self.at_ms)

    @staticmethod
    def none(meaning: str, inputs: int, horizons: int) -> Looks:
        def small(*shape: int) -> Small:
            return np.empty(shape, np.float32)

        no, wide = np.empty(0), (0, horizons)
        return Looks(
            meaning, np.empty(0, np.int64), np.empty(0, np.uint64), small(0, inputs), no, no,
            small(*wide), small(*wide), small(*wide), np.empty(wide, np.bool_),
            np.empty(wide, np.bool_), np.empty(0, np.int32), small(horizons, 4, 0),
            np.empty((horizons, 0), np.int32),
        )  # fmt: skip

    def pack(self) -> bytes:
        """Bytes for the store."""
        columns = {
            name: (column.dtype.str, column.shape, column.tobytes())
            for name, column in self._columns().items()
        }
        return msgspec.msgpack.encode({"meaning": self.meaning, "columns": columns})

    @staticmethod
    def unpack(raw: bytes) -> Looks:
        """What `pack` made.

        Raises:
            ValueError: it is something else.
        """
        try:
            told = msgspec.msgpack.decode(raw)
            columns = {
                name: np.frombuffer(kept, np.dtype(kind)).reshape(shape)
                for name, (kind, shape, kept) in told["columns"].items()
            }
            if "segments" not in columns:
                # They were stored before segments were kept with them.
                horizons, _, width = columns["judged"].shape
                columns["segments"] = np.zeros(len(columns["at_ms"]), np.int32)
                columns["judged_in"] = np.zeros((horizons, width), np.int32)
            return Looks(meaning=told["meaning"], **columns)
        except (msgspec.MsgspecError, ValueError, TypeError, LookupError) as error:
            raise ValueError(f"these are no looks: {error}") from None

    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "meaning"}

    def some(self, which: Ints | Bools) -> Looks:
        """Some of those waiting."""
        kept: dict[str, Any] = {
            name: column[which] for name, column in self._columns().items() if name not in _OVER
        }
        return replace(self, **kept)

    def with_more(self, more: Looks) -> Looks:
        """With later ones."""
        theirs = more._columns()
        both: dict[str, Any] = {
            name: np.concatenate([column, theirs[name]])
            for name, column in self._columns().items()
            if name not in _OVER
        }
        return replace(self, **both)


class Sight(NamedTuple):
    """What a sample shows of users who are in it, by ascending hash.

    Attributes:
        silence: days since the last order.
        revenue: money ever, refunds taken off.
    """

    at_ms: int
    hashes: Hashes
    silence: Floats
    revenue: Floats


class Over(NamedTuple):
    """Looks whose horizon is over, with what came of them.

    Attributes:
        logs: ``(n, k)`` of inputs at the look.
        bought: 1 for an order within the horizon, else 0.
        worth: usual baskets spent within it.
    """

    logs: Floats
    bought: Floats
    worth: Floats


def seen(looks: Looks, sight: Sight, days: Sequence[float]) -> tuple[Looks, list[Over]]:
    """Hold looks against a later sample.

    Args:
        days: of each horizon, ascending.

    Returns:
        Those that are still waiting; and of each horizon those that are over, in their order.
    """
    place = np.searchsorted(sight.hashes, looks.hashes)
    there = np.minimum(place, max(len(sight.hashes) - 1, 0))
    found = np.zeros(len(looks), np.bool_)
    if len(sight.hashes):
        found = sight.hashes[there] == looks.hashes
    looks, there = looks.some(found), there[found]
    ends = looks.at_ms[:, None] + (np.array(days) * DAY_MS).astype(np.int64)
    last_ms = (sight.at_ms - sight.silence[there] * DAY_MS)[:, None]
    inside = last_ms < ends + ROUNDING_MS
    again = inside & (last_ms > looks.at_ms[:, None] + ROUNDING_MS)
    open_ = ~looks.closed
    more = (sight.revenue[there] - looks.revenue).astype(np.float32)[:, None]
    bought = looks.bought | (again & open_)
    spent = np.where(inside & open_, more, looks.spent)
    over = open_ & (ends <= sight.at_ms)
    looks = replace(looks, bought=bought, spent=spent, closed=looks.closed | over)
    came = [_over(looks, np.flatnonzero(over[:, column]), column) for column in range(len(days))]
    looks = _judged(looks, over)
    return looks.some(np.flatnonzero(~looks.closed.all(axis=1))), came


def _over(looks: Looks, which: Ints, column: int) -> Over:
    bought = looks.bought[which, column].astype(float)
    worth = _spent(looks, which, column) / np.maximum(looks.basket[which], 1e-9)
    return Over(looks.logs[which].astype(float), bought, worth)


def _spent(looks: Looks, which: Ints, column: int) -> Floats:
    """Money of whoever bought; refunds of what was bought before are not of this horizon."""
    spent = np.maximum(looks.spent[which, column].astype(float), 0.0)
    return np.where(looks.bought[which, column], spent, 0.0)


def _judged(looks: Looks, over: Bools) -> Looks:
    """With the last predictions of each horizon, and what came of them."""
    horizons = over.shape[1]
    found, segments = [], []
    for column in range(horizons):
        which = np.flatnonzero(over[:, column] & np.isfinite(looks.predicted[:, column]))
        new = np.stack(
            [
                looks.predicted[which, column],
                looks.bought[which, column].astype(np.float32),
                looks.foretold[which, column],
                _spent(looks, which, column).astype(np.float32),
            ]
        )
        there = np.isfinite(looks.judged[column, 0])
        old, were = looks.judged[column][:, there], looks.judged_in[column, there]
        found.append(np.concatenate([old, new], axis=1)[:, -KEPT_JUDGED:])
        segments.append(np.concatenate([were, looks.segments[which]])[-KEPT_JUDGED:])
    width = max((one.shape[1] for one in found), default=0)
    filled = np.full((horizons, 4, width), np.nan, np.float32)
    in_segments = np.zeros((horizons, width), np.int32)
    for column, (one, were) in enumerate(zip(found, segments, strict=True)):
        filled[column, :, : one.shape[1]] = one
        in_segments[column, : len(were)] = were
    return replace(looks, judged=filled, judged_in=in_segments)
