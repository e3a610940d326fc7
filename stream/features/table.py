"""Compiles declared features into rows of users: how they are laid out, folded and read.

Comes in: features, rows of users and `EventColumns`. Goes out: the rows folded on, and feature vectors
at a given time; `partition` is next.

The fold of a topic depends on its offset order alone: not on how it was cut into batches, and
not on how the two topics interleave. Decayed sums and maxima commute; repeats, orders and sessions
are decided within one topic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.events import Bools, EventColumns, Floats, Ints, Rows
from stream.features.aggregates import AGGREGATES, PARTS
from stream.features.batch import Batch, Codes, OrderKinds, Shares, starts_of
from stream.features.declare import Feature
from stream.features.part import Parts, Reading
from stream.features.sums import Sums, Windows
from stream.features.terms import PLACED, SHOP_EVENTS, TAKES_BACK, UPDATED, meant
from stream.rows import ROW_FORMAT, blank_rows, row_type, unpacked


@dataclass(frozen=True)
class Folded:
    """Answer of `FeatureTable.fold`."""

    touched: npt.NDArray[np.int64]
    """Slots that took at least one event (duplicates too), ascending, each once."""
    rows: Rows
    """Their rows after the fold, in that order."""
    duplicates: npt.NDArray[np.int64]
    """Slot of each event that had come before, ascending."""


class FeatureTable:
    """A feature table compiled into a row layout and vector operations.

    Attributes:
        dtype: one user's row; what the store keeps is its bytes.
        codes: event name to code, for every event that a feature watches.
        uses_value: per code, whether value or quantity of such an event is ever read.
        uses_review: per code, whether rating and text of such an event are ever read.
        orders: codes of orders and refunds; None where no feature watches orders.
        schema: digest of the layout and its meaning; rows of another schema are not read.
    """

    def __init__(
        self, features: Sequence[Feature], shop_events: Sequence[str] = SHOP_EVENTS
    ) -> None:
        self.features = tuple(features)
        self.names = tuple(f.name for f in self.features)
        self.units = tuple(f.unit for f in self.features)
        self.words = tuple(f.words for f in self.features)
        self.limits = tuple(f.limits for f in self.features)
        self.weights = np.array([f.weight for f in self.features])
        watched = sorted({n for f in self.features for n in (*meant(f.on), *meant(f.minus))})
        self.codes = Codes(watched)
        if len(watched) > 255:
            raise ValueError("features: more than 255 event names")

        self.orders: OrderKinds | None = None
        if PLACED in self.codes:
            takes_back = self.codes.mask([name for name in TAKES_BACK if name in self.codes])
            self.orders = OrderKinds(self.codes[PLACED], self.codes[UPDATED], takes_back)
        self._shop = self.codes.mask([name for name in shop_events if name in self.codes])
        self._parts = Parts(self.names, PARTS)
        kinds = [AGGREGATES[feature.aggregate] for feature in self.features]
        readers = [
            kind.allot(feature, self._parts)
            for kind, feature in zip(kinds, self.features, strict=True)
        ]
        # What is read from other features is read behind them.
        order = sorted(range(len(kinds)), key=lambda column: kinds[column].of_features)
        self._readers = [(column, readers[column]) for column in order]

        self.dtype = row_type(self._parts.fields())
        meaning = repr(
            [f.model_dump(exclude={"unit", "weight", "words", "limits"}) for f in self.features]
        )
        shop = [name for name in watched if self._shop[self.codes[name]]]
        layout = f"{ROW_FORMAT} {self.dtype.descr} {meaning} {shop}"
        self.schema = hashlib.blake2b(layout.encode(), digest_size=8).hexdigest()
        self.uses_value = self._uses_value()
        self.uses_review = self._uses_review()

    def _uses_value(self) -> Bools:
        measures = [*self._parts.of(Sums).measures, *self._parts.of(Windows).measures]
        used = np.zeros(256, dtype=np.bool_)
        for measure in measures:
            used |= measure.uses_value(self.codes)
        if self.orders is not None and (
            used[self.orders.completed] or any(measure.left for measure in measures)
        ):
            # What is left of an order is known only from all that is said of it.
            family = [name for name in (PLACED, UPDATED, *TAKES_BACK) if name in self.codes]
            used |= self.codes.mask(family)
        return used

    def _uses_review(self) -> Bools:
        used = np.zeros(256, dtype=np.bool_)
        for measure in (*self._parts.of(Sums).measures, *self._parts.of(Windows).measures):
            used |= measure.uses_review(self.codes)
        return used

    # -- folding ------------------------------------------------------------------------------

    def blank(self, users: int) -> Rows:
        """Rows of users who have done nothing yet."""
        return blank_rows(users, self.dtype)

    def unpacked(self, packed: bytes) -> Rows:
        """Rows as the store has them, one after the other; to look at, not to change.

        Raises:
            RowFormatError: they are of another length or format.
        """
        return unpacked(packed, self.dtype)

    def fold(
        self,
        take: Callable[[npt.NDArray[np.int64]], Rows],
        events: EventColumns,
        repeats: Bools | None = None,
        shares: Shares | None = None,
        sentiment: Floats | None = None,
    ) -> Folded:
        """Fold a batch into the rows of the users it touches.

        Args:
            take: gives copies of the rows of users, by slot, ascending.
            events: none of them late or refused; of each topic in offset order.
            repeats: which of them came before: they count as arrivals only.
            shares: what each counts; None where each counts once, as it is.
            sentiment: of each, see `reviews.judge`; None where there is no review.
        """
        if len(events) == 0:
            empty = np.empty(0, np.int64)
            return Folded(empty, take(empty), empty)
        # One sort brings a user's events together: clicks before purchases, each in offset order.
        key = (events.slot << 32) | (events.topic.astype(np.int64) << 31) | np.arange(len(events))
        key.sort()
        order, slot = key & 0x7FFF_FFFF, key >> 32
        starts = starts_of(slot)
        touched = slot[starts]
        user = np.repeat(np.arange(len(touched)), np.diff(starts, append=len(events)))
        mine = take(touched)

        group = user * 2 + events.topic[order]
        if shares is not None:
            group = group[shares.arrived[order]]
        counted = np.bincount(group, minlength=2 * len(touched)).reshape(-1, 2)
        mine["arrivals"] += counted.astype(np.uint32)
        duplicates = np.empty(0, np.int64)
        if repeats is not None and repeats.any():
            known = repeats[order]
            duplicates = slot[known]
            order, user = order[~known], user[~known]
        if len(order):
            self._parts.fold(self._batch(mine, events, order, user, shares, sentiment))
        return Folded(touched, mine, duplicates)

    def _batch(
        self,
        mine: Rows,
        events: EventColumns,
        order: Ints,
        user: Ints,
        shares: Shares | None,
        sentiment: Floats | None,
    ) -> Batch:
        """Events in an order, for the rows of their users."""
        kind = events.kind[order]
        acts = ~self._shop[kind]
        counts = left = tells = arrived = None
        if shares is not None:
            counts, left = shares.counts[order], shares.left[:, order]
            acts, tells = acts & shares.acts[order], shares.tells[order]
            arrived = shares.arrived[order]
        return Batch(
            user, events.topic[order], kind, events.time_ms[order], events.category[order],
            counts, events.value[order], events.quantity[order], left, acts, tells, mine, self.codes,
            arrived, None if sentiment is None else sentiment[order],
        )  # fmt: skip

    # -- reading ------------------------------------------------------------------------------

    def vectors(self, rows: Rows, now_ms: int) -> Floats:
        """Features of users at a time, ``(users, features)`` in natural units.

        Reads only: a silent user is brought up to date without being rewritten.
        """
        reading = Reading(rows, now_ms)
        out = np.empty((len(rows), len(self.features)))
        for column, read in self._readers:
            reading.columns[column] = out[:, column] = read(reading)
        return out
