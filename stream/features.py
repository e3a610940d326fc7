"""Folds events into columns of users, and lets time roll them on.

Comes in: rows of users and `EventColumns`. Goes out: the rows folded on, and feature vectors at
a given time; `partition` is next. Which features there are is declared in a table, not coded:
the table is compiled into a row layout and the few vector operations below.

The fold of a topic depends on its offset order alone: not on how it was cut into batches, and
not on how the two topics interleave. Decayed sums and maxima commute; repeats, orders and sessions
are decided within one topic.

A refund or a cancellation takes back what is left of its order: `orders` says what that is, and a
feature that has one of them in `minus` and orders in `on` counts what is left, at the order's time.
What the shop does (refund, cancel, ship) is folded, and is no sign of life: it moves no *days since
seen*, opens no session, and makes nobody known.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from stream.events import Bools, EventColumns, Floats, Rows
from stream.units import DAY_MS, parse_duration

ROW_FORMAT = 3
BUCKETS = 32
"""Buckets of a distinct count: linear counting (Whang 1990) is within 10 % to about 60."""
SESSION_GAP_MS = 30 * 60_000
"""A silence of 30 minutes ends a session, as web analytics have it since the 1990s."""

BROWSE = (
    "Product Viewed",
    "Product List Viewed",
    "Product Clicked",
    "Products Searched",
)

PLACED, UPDATED = "Order Completed", "Order Updated"
REFUNDED, CANCELLED = "Order Refunded", "Order Cancelled"
TAKES_BACK = (REFUNDED, CANCELLED)
FOLLOWS = {PLACED: UPDATED, REFUNDED: CANCELLED}
"""Where a feature names the one it means the other as well: an update corrects an order, and what is
cancelled is refunded."""
SHOP_EVENTS = (
    REFUNDED,
    CANCELLED,
    UPDATED,
    "Order Shipped",
    "Order Fulfilled",
    "Order Delivered",
)
"""What the shop does, not the customer; see `config.Worker.shop_events`."""
NOTHING_LEFT = 1e-12
"""Of what a sum was made of: what is less after a correction is rounding, and nothing is left."""

_Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]


class Feature(BaseModel):
    """One declared feature: which events, which aggregate, over what time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    aggregate: Literal["count", "sum", "mean", "distinct", "last", "first", "ratio"]
    on: tuple[str, ...] = Field((), description="event names; empty: every event any feature names")
    minus: tuple[str, ...] = Field((), description="event names that count negatively")
    of: Literal["value", "quantity", "browse_seconds", "sessions", "category"] | None = None
    half_life: _Duration | None = Field(
        None, description="seconds; a decayed sum. With neither this nor a window: for life"
    )
    window: _Duration | None = Field(None, description="seconds; an exact rolling window")
    tiles: int = Field(28, ge=1, le=512, description="tiles a window is made of")
    numerator: str | None = None
    denominator: str | None = None
    absent: float = Field(0.0, description="value where there is nothing to tell")
    unit: str = ""
    weight: float = Field(
        1.0, ge=0, le=4, description="weight in distances; 0 only shows the feature"
    )
    words: tuple[str, str] = Field(("", ""), description="what a low and a high value is called")

    @property
    def ratio_parts(self) -> tuple[str, ...]:
        return tuple(p for p in (self.numerator, self.denominator) if p is not None)

    @property
    def signed(self) -> bool:
        """Whether values may be negative."""
        return bool(self.minus)

    @model_validator(mode="after")
    def _fits_together(self) -> Feature:
        if self.half_life is not None and self.window is not None:
            raise ValueError(f"{self.name}: give half_life or window, not both")
        if self.minus and not self.on:
            raise ValueError(f"{self.name}: minus needs on: events to take away from")
        if self.of == "sessions" and (self.on or self.minus):
            raise ValueError(f"{self.name}: sessions are of all clicks; leave on and minus out")
        if self.aggregate in ("last", "first", "ratio") and self.of is not None:
            raise ValueError(f"{self.name}: a {self.aggregate} takes no of")
        if self.aggregate in ("first", "ratio") and self.on:
            raise ValueError(f"{self.name}: a {self.aggregate} takes no on")
        if self.window is not None and round(self.window * 1_000) % self.tiles:
            raise ValueError(f"{self.name}: window must be a whole number of tiles in milliseconds")
        if self.aggregate == "distinct" and (self.half_life is None or self.of != "category"):
            raise ValueError(f"{self.name}: distinct needs of = 'category' and a half_life")
        if self.aggregate in ("sum", "mean") and self.of in (None, "sessions", "category"):
            raise ValueError(
                f"{self.name}: a {self.aggregate} needs of = value, quantity or browse_seconds"
            )
        if self.aggregate == "count" and self.of not in (None, "sessions"):
            raise ValueError(f"{self.name}: a count is of events, or of = 'sessions'")
        if (self.aggregate == "ratio") != (len(self.ratio_parts) == 2):
            raise ValueError(f"{self.name}: numerator and denominator belong to a ratio")
        return self


def _f(name: str, aggregate: Any, **rest: Any) -> Feature:
    return Feature(name=name, aggregate=aggregate, **rest)


_ORDER = (PLACED,)
_REFUND = (REFUNDED,)

DEFAULT_FEATURES: tuple[Feature, ...] = (
    _f("days_since_seen", "last", unit="days", words=("recent", "silent")),
    _f("days_since_order", "last", on=_ORDER, unit="days", absent=400.0,
       words=("ordered recently", "no recent order")),
    _f("tenure_days", "first", unit="days", weight=0.5, words=("newcomers", "long known")),
    _f("orders_30d", "count", on=_ORDER, minus=_REFUND, half_life="30d", unit="orders",
       words=("few orders lately", "ordering now")),
    _f("orders_180d", "count", on=_ORDER, minus=_REFUND, half_life="180d", unit="orders",
       words=("rare orders", "frequent")),
    _f("orders_total", "count", on=_ORDER, minus=_REFUND, unit="orders", weight=0),
    _f("revenue_30d", "sum", on=_ORDER, minus=_REFUND, of="value", half_life="30d",
       unit="money", weight=0.5, words=("low spend lately", "spending now")),
    _f("revenue_180d", "sum", on=_ORDER, minus=_REFUND, of="value", half_life="180d",
       unit="money", weight=0.5, words=("low value", "high value")),
    _f("basket_value", "mean", on=_ORDER, minus=_REFUND, of="value", half_life="180d",
       unit="money", weight=0.5, words=("small baskets", "big baskets")),
    _f("basket_items", "mean", on=_ORDER, minus=_REFUND, of="quantity", half_life="180d",
       unit="items", weight=0),
    _f("refunds_180d", "count", on=_REFUND, half_life="180d", unit="refunds", weight=0.25,
       words=("no refunds", "sends back")),
    _f("views_1h", "count", on=BROWSE, half_life="1h", unit="views", weight=0.25,
       words=("", "browsing now")),
    _f("views_1d", "count", on=BROWSE, half_life="1d", unit="views", weight=0.5,
       words=("", "browsed today")),
    _f("views_7d", "count", on=BROWSE, half_life="7d", unit="views", weight=0.5,
       words=("hardly browses", "browses a lot")),
    _f("browse_seconds_7d", "sum", on=BROWSE, of="browse_seconds", half_life="7d",
       unit="seconds", weight=0.25, words=("brief visits", "long visits")),
    _f("sessions_7d", "count", of="sessions", half_life="7d", unit="sessions", weight=0.5,
       words=("few visits", "many visits")),
    _f("sessions_30d", "count", of="sessions", half_life="30d", unit="sessions", weight=0.5,
       words=("few visits", "many visits")),
    _f("carts_7d", "count", on=("Product Added",), half_life="7d", unit="carts", weight=0.5,
       words=("empty cart", "fills carts")),
    _f("categories_7d", "distinct", on=BROWSE, of="category", half_life="7d",
       unit="categories", weight=0.5, words=("narrow taste", "broad taste")),
    _f("conversion_30d", "ratio", numerator="orders_30d", denominator="sessions_30d",
       unit="orders a session", weight=0.25, words=("looks only", "buys when visiting")),
)  # fmt: skip


class OrderKinds(NamedTuple):
    """Codes of the events that make, correct and take back orders.

    Attributes:
        takes_back: by code, whether an event is a refund or a cancellation.
    """

    completed: int
    updated: int
    takes_back: Bools


@dataclass(frozen=True)
class Shares:
    """What events and corrections count, a column a field, where not each counts once as it is.

    Attributes:
        counts: 1 for an event, 0 for one that only corrects what counted before.
        left: what is left of it: a count of 0 or 1, a value and a quantity, ``(3, n)``.
        acts: whether it may be an act of the user.
        tells: whether it is an event that happened, not the correction of one.
        arrived: whether it is a message, not what one brings about elsewhere.
    """

    counts: Floats
    left: Floats
    acts: Bools
    tells: Bools
    arrived: Bools


class _Measure(NamedTuple):
    """What one event adds: the number `of`, times +1 for `on` and -1 for `minus`.

    Attributes:
        left: what is left of it counts, after what was taken back.
    """

    of: str | None
    on: tuple[str, ...]
    minus: tuple[str, ...]
    left: bool = False


class _Folded(NamedTuple):
    """Events in the order of their users, a column a field.

    Attributes:
        user: place of the user among those touched.
    """

    user: npt.NDArray[np.int64]
    topic: npt.NDArray[np.uint8]
    kind: npt.NDArray[np.uint8]
    time_ms: npt.NDArray[np.int64]
    category: npt.NDArray[np.uint64]
    counts: Floats | None
    value: Floats
    quantity: Floats
    left: Floats | None
    acts: Bools
    tells: Bools | None


@dataclass(frozen=True)
class _Fold:
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
        self.weights = np.array([f.weight for f in self.features])
        watched = sorted({n for f in self.features for n in (*meant(f.on), *meant(f.minus))})
        self.codes = {name: code for code, name in enumerate(watched)}
        if len(watched) > 255:
            raise ValueError("features: more than 255 event names")

        self.orders: OrderKinds | None = None
        if PLACED in self.codes:
            takes_back = self._mask([name for name in TAKES_BACK if name in self.codes])
            self.orders = OrderKinds(self.codes[PLACED], self.codes[UPDATED], takes_back)
        self._shop = self._mask([name for name in shop_events if name in self.codes])
        self._masks: dict[tuple[str, ...], Bools] = {}
        self._measures: list[_Measure] = []
        self._decays: list[tuple[int, float]] = []
        self._windows: list[tuple[int, float, int]] = []
        self._lasts: list[tuple[str, ...]] = []
        self._distincts: list[tuple[str, ...]] = []
        self._readers = [self._compile(feature) for feature in self.features]
        self._half_lives = sorted({h for _, h in self._decays})
        tiles = max((n for _, _, n in self._windows), default=0)

        self.dtype = np.dtype(
            [
                ("version", "<u4"),
                ("segment", "<i4"),
                ("previous", "<i4"),
                ("candidate", "<i4"),
                ("evidence", "<u2"),
                ("looks", "u1"),
                ("format", "u1"),
                ("since", "<i8"),
                ("sign", "<i8"),
                ("seen", "<i8"),
                ("first", "<i8"),
                ("click", "<i8"),
                ("as_of", "<i8"),
                ("arrivals", "<u4", (2,)),
                ("sums", "<f8", (len(self._decays),)),
                ("last", "<i8", (len(self._lasts),)),
                ("distinct", "<u4", (len(self._distincts), BUCKETS)),
                ("tiles", "<f8", (len(self._windows), tiles)),
            ]
        )
        meaning = repr([f.model_dump(exclude={"unit", "weight", "words"}) for f in self.features])
        shop = [name for name in watched if self._shop[self.codes[name]]]
        layout = f"{ROW_FORMAT} {self.dtype.descr} {meaning} {shop}"
        self.schema = hashlib.blake2b(layout.encode(), digest_size=8).hexdigest()
        self.uses_value = np.zeros(256, dtype=np.bool_)
        for measure in self._measures:
            if measure.of in ("value", "quantity"):
                self.uses_value |= self._watched(measure.on)
                self.uses_value |= self._watched(measure.minus) if measure.minus else False
        if self.orders is not None and (
            self.uses_value[self.orders.completed] or any(m.left for m in self._measures)
        ):
            # What is left of an order is known only from all that is said of it.
            family = [name for name in (PLACED, UPDATED, *TAKES_BACK) if name in self.codes]
            self.uses_value |= self._mask(family)

    def _mask(self, names: Sequence[str]) -> Bools:
        """By code, whether an event has one of the names."""
        mask = np.zeros(256, dtype=np.bool_)
        mask[[self.codes[name] for name in names]] = True
        return mask

    # -- compiling the table -------------------------------------------------------------------

    def _compile(self, feature: Feature) -> tuple[Any, ...]:
        """Allot the state a feature reads; returns how to read it."""
        match feature.aggregate:
            case "ratio":
                return ("ratio", *(self.names.index(part) for part in feature.ratio_parts))
            case "last":
                return ("last", _index(self._lasts, feature.on))
            case "first":
                return ("first",)
            case "distinct":
                return ("distinct", _index(self._distincts, feature.on), feature.half_life)
            case "mean":
                top = self._measure(feature)
                count = top._replace(of=None, minus=())
                return ("mean", self._timed(feature, top), self._timed(feature, count))
            case _:
                return self._timed(feature, self._measure(feature))

    def _measure(self, feature: Feature) -> _Measure:
        """What a feature counts; orders that may be taken back count with what is left of them."""
        minus = meant(feature.minus)
        left = PLACED in feature.on and any(name in TAKES_BACK for name in minus)
        if left:
            minus = tuple(name for name in minus if name not in TAKES_BACK)
        return _Measure(feature.of, feature.on, minus, left)

    def _timed(self, feature: Feature, measure: _Measure) -> tuple[str, int]:
        index = _index(self._measures, measure)
        if feature.window is not None:
            return ("window", _index(self._windows, (index, feature.window, feature.tiles)))
        # What is counted for life fades with a half-life that never comes.
        half_life = math.inf if feature.half_life is None else feature.half_life
        return ("decay", _index(self._decays, (index, half_life)))

    # -- folding ------------------------------------------------------------------------------

    def blank(self, users: int) -> Rows:
        """Rows of users who have done nothing yet."""
        rows = np.zeros(users, dtype=self.dtype)
        rows["format"] = ROW_FORMAT
        return rows

    def fold(
        self,
        take: Callable[[npt.NDArray[np.int64]], Rows],
        events: EventColumns,
        repeats: Bools | None = None,
        shares: Shares | None = None,
    ) -> _Fold:
        """Fold a batch into the rows of the users it touches.

        Args:
            take: gives copies of the rows of users, by slot, ascending.
            events: none of them late or refused; of each topic in offset order.
            repeats: which of them came before: they count as arrivals only.
            shares: what each counts; None where each counts once, as it is.
        """
        if len(events) == 0:
            empty = np.empty(0, np.int64)
            return _Fold(empty, take(empty), empty)
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
            kind = events.kind[order]
            acts = ~self._shop[kind]
            counts = left = tells = None
            if shares is not None:
                counts, left = shares.counts[order], shares.left[:, order]
                acts, tells = acts & shares.acts[order], shares.tells[order]
            self._apply(
                mine,
                _Folded(
                    user, events.topic[order], kind, events.time_ms[order],
                    events.category[order], counts, events.value[order],
                    events.quantity[order], left, acts, tells,
                ),
            )  # fmt: skip
        return _Fold(touched, mine, duplicates)

    def _apply(self, mine: Rows, events: _Folded) -> None:
        user, time = events.user, events.time_ms
        self._see(mine, user, time, events.acts)
        sessions, browsed = self._sessions(mine, events)

        # Bring the sums to the newest of what they are made of, then add each with its weight there.
        starts = starts_of(user)
        who = user[starts]
        before = mine["as_of"][who]
        as_of = np.maximum(before, np.maximum.reduceat(time, starts))
        mine["as_of"][who] = as_of
        aged_by = np.where(before > 0, as_of - before, 0)
        age = np.repeat(as_of, np.diff(starts, append=len(user))) - time
        elapsed = {h: np.exp2(aged_by / (-1_000 * h)) for h in self._half_lives}
        weights = {h: np.exp2(age / (-1_000 * h)) for h in self._half_lives}
        columns: dict[int, tuple[npt.NDArray[np.int64], Floats]] = {}
        for index, measure in enumerate(self._measures):
            columns[index] = self._column(measure, events, sessions, browsed)

        sums = mine["sums"]
        for index, (measure_index, half_life) in enumerate(self._decays):
            which, amount = columns[measure_index]
            sums[who, index] *= elapsed[half_life]
            if len(which):
                at = starts_of(user[which])
                whom, parts = user[which][at], amount * weights[half_life][which]
                added = np.add.reduceat(parts, at)
                if events.left is not None and self._measures[measure_index].left:
                    most = np.abs(sums[whom, index]) + np.add.reduceat(np.abs(parts), at)
                    rest = np.abs(sums[whom, index] + added) <= NOTHING_LEFT * most
                    added = np.where(rest, -sums[whom, index], added)
                sums[whom, index] += added
        self._add_to_windows(mine, who, before, events, columns)

        for index, names in enumerate(self._lasts):
            chosen = self._watched(names)[events.kind] if names else events.acts
            which = np.flatnonzero(chosen if events.tells is None else chosen & events.tells)
            if len(which):
                at = starts_of(user[which])
                whom = user[which][at]
                latest = np.maximum.reduceat(time[which], at)
                mine["last"][whom, index] = np.maximum(mine["last"][whom, index], latest)
        for index, names in enumerate(self._distincts):
            chosen = self._watched(names)[events.kind] & (events.category > 0)
            which = np.flatnonzero(chosen if events.tells is None else chosen & events.tells)
            bucket = (events.category[which] % np.uint64(BUCKETS)).astype(np.int64)
            block = np.ascontiguousarray(mine["distinct"][:, index])
            seconds = (time[which] // 1_000).astype(np.uint32)
            np.maximum.at(block.reshape(-1), user[which] * BUCKETS + bucket, seconds)
            mine["distinct"][:, index] = block

    def _see(
        self, mine: Rows, user: npt.NDArray[np.int64], time: npt.NDArray[np.int64], acts: Bools
    ) -> None:
        """When users were first and last seen: by what they do, not by what the shop does."""
        if not acts.all():
            user, time = user[acts], time[acts]
        if len(user) == 0:
            return
        starts = starts_of(user)
        who = user[starts]
        first = np.minimum.reduceat(time, starts)
        known = mine["first"][who]
        mine["first"][who] = np.where(known > 0, np.minimum(known, first), first)
        mine["seen"][who] = np.maximum(mine["seen"][who], np.maximum.reduceat(time, starts))

    def _sessions(self, mine: Rows, events: _Folded) -> tuple[Bools, Floats]:
        """Which clicks open a session, and the seconds browsed since the click before.

        A click opens a session if it is more than the gap later than every click before it.
        """
        user = events.user
        opens = np.zeros(len(user), dtype=np.bool_)
        browsed = np.zeros(len(user))
        clicks = np.flatnonzero((events.topic == 0) & events.acts)
        if len(clicks) == 0:
            return opens, browsed
        whom, time = user[clicks], events.time_ms[clicks]
        starts = starts_of(whom)
        base = int(time.min())
        span = int(time.max()) - base + 1
        shift = whom * span - base
        newest = np.maximum.accumulate(time + shift) - shift
        last = mine["click"][whom[starts]]
        before = np.empty_like(time)
        before[1:] = newest[:-1]
        before[starts] = 0
        before = np.maximum(before, np.repeat(last, np.diff(starts, append=len(whom))))
        gap = time - before
        opens[clicks] = gap > SESSION_GAP_MS
        browsed[clicks] = np.where((gap > 0) & (gap <= SESSION_GAP_MS), gap / 1_000, 0.0)
        ends = np.append(starts[1:], len(whom)) - 1
        mine["click"][whom[starts]] = np.maximum(last, newest[ends])
        return opens, browsed

    def _column(
        self, measure: _Measure, events: _Folded, sessions: Bools, browsed: Floats
    ) -> tuple[npt.NDArray[np.int64], Floats]:
        """Events a measure counts, and the amount of each."""
        if measure.of == "sessions":
            which = np.flatnonzero(sessions)
            return which, np.ones(len(which))
        if measure.of == "browse_seconds":
            which = np.flatnonzero(self._watched(measure.on)[events.kind] & (browsed > 0))
            return which, browsed[which]
        mask = self._watched(measure.on)
        if measure.minus:
            mask = mask | self._watched(measure.minus)
        which = np.flatnonzero(mask[events.kind])
        place = (None, "value", "quantity").index(measure.of)
        if measure.left and events.left is not None:
            amount = events.left[place][which]
        elif place:
            amount = (events.value, events.quantity)[place - 1][which]
        else:
            amount = np.ones(len(which)) if events.counts is None else events.counts[which]
        if measure.minus:
            taken = self._watched(measure.minus)[events.kind[which]]
            amount = np.where(taken, -amount, amount)
        return which, amount

    def _add_to_windows(
        self,
        mine: Rows,
        who: npt.NDArray[np.int64],
        before: npt.NDArray[np.int64],
        events: _Folded,
        columns: dict[int, tuple[npt.NDArray[np.int64], Floats]],
    ) -> None:
        """Turn the rings of users on to the newest tile, and add what is not older than them.

        Args:
            before: when the rings of `who` were turned last.
        """
        if not self._windows:
            return
        as_of = mine["as_of"][who]
        row = np.repeat(
            np.arange(len(who)), np.diff(starts_of(events.user), append=len(events.user))
        )
        for index, (measure_index, window, tiles) in enumerate(self._windows):
            which, amount = columns[measure_index]
            length = round(window * 1_000) // tiles
            newest = as_of // length
            ring = mine["tiles"][who, index, :tiles]
            ring[_tile_numbers(before // length, tiles) <= (newest - tiles)[:, None]] = 0.0
            tile = events.time_ms[which] // length
            inside = tile > newest[row[which]] - tiles
            flat = row[which][inside] * tiles + tile[inside] % tiles
            ring += np.bincount(flat, weights=amount[inside], minlength=ring.size).reshape(
                ring.shape
            )
            mine["tiles"][who, index, :tiles] = ring

    def _watched(self, names: tuple[str, ...]) -> Bools:
        """By code, whether an event is one of those named, or meant; no names watch every event.

        An update is counted with its order, and by itself only where it is named by itself.
        """
        mask = self._masks.get(names)
        if mask is None:
            chosen = list(meant(names)) if names else list(self.codes)
            if PLACED in chosen:
                chosen.remove(UPDATED)
            mask = self._masks[names] = self._mask(chosen)
        return mask

    # -- reading ------------------------------------------------------------------------------

    def vectors(self, rows: Rows, now_ms: int) -> Floats:
        """Features of users at a time, ``(users, features)`` in natural units.

        Reads only: a silent user is brought up to date without being rewritten.
        """
        elapsed = np.maximum(now_ms - rows["as_of"], 0)
        decayed = {
            h: np.where(rows["as_of"] > 0, np.exp2(elapsed / (-1_000 * h)), 0.0)
            for h in self._half_lives
        }
        sums = rows["sums"]
        out = np.empty((len(rows), len(self.features)))

        def read(part: tuple[str, int]) -> Floats:
            kind, index = part
            if kind == "decay":
                column: Floats = sums[:, index] * decayed[self._decays[index][1]]
                return column
            _, window, tiles = self._windows[index]
            newest = now_ms // (round(window * 1_000) // tiles)
            number = _tile_numbers(rows["as_of"] // (round(window * 1_000) // tiles), tiles)
            ring = rows["tiles"][:, index, :tiles]
            total: Floats = np.where(number > newest - tiles, ring, 0.0).sum(axis=1)
            return total

        ratios = []
        for column, (feature, reader) in enumerate(zip(self.features, self._readers, strict=True)):
            match reader:
                case ("ratio", top, bottom):
                    ratios.append((column, top, bottom, feature.absent))
                case ("last", index):
                    last = rows["last"][:, index]
                    days = np.maximum(now_ms - last, 0) / DAY_MS
                    out[:, column] = np.where(last > 0, days, feature.absent)
                case ("first",):
                    known = rows["first"] > 0
                    days = np.maximum(now_ms - rows["first"], 0) / DAY_MS
                    out[:, column] = np.where(known, days, feature.absent)
                case ("distinct", index, half_life):
                    out[:, column] = _distinct(rows["distinct"][:, index], now_ms, half_life)
                case ("mean", top, bottom):
                    out[:, column] = _divide(read(top), read(bottom), feature.absent)
                case (_, _):
                    out[:, column] = read(reader)
        for column, top, bottom, absent in ratios:
            out[:, column] = _divide(out[:, top], out[:, bottom], absent)
        return out


def meant(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of events, and those that are meant with them; each once."""
    return tuple(dict.fromkeys((*names, *(FOLLOWS[n] for n in names if n in FOLLOWS))))


def _divide(top: Floats, bottom: Floats, absent: float) -> Floats:
    """Top over bottom; where the bottom has all but decayed away, `absent`."""
    enough = bottom > 1e-6
    return np.where(enough, top / np.where(enough, bottom, 1.0), absent)


def _distinct(last_seconds: npt.NDArray[np.uint32], now_ms: int, half_life: float) -> Floats:
    """Decayed occupancy of the buckets, corrected for collisions by linear counting.

    Most buckets of most users are empty, so only the filled ones are aged.
    """
    flat = np.ascontiguousarray(last_seconds).reshape(-1)
    filled = np.flatnonzero(flat)
    age = np.maximum(now_ms // 1_000 - flat[filled].astype(np.int64), 0)
    occupied = np.bincount(
        filled // BUCKETS, weights=np.exp2(age / -half_life), minlength=len(last_seconds)
    )
    free = np.maximum(1.0 - occupied / BUCKETS, 0.5 / BUCKETS)
    estimate: Floats = BUCKETS * -np.log(free) + 0.0
    return estimate


def _tile_numbers(head: npt.NDArray[np.int64], tiles: int) -> npt.NDArray[np.int64]:
    """Absolute number of the tile in each place of rings whose newest tile is `head`."""
    place = np.arange(tiles)
    numbers: npt.NDArray[np.int64] = head[:, None] - (head[:, None] - place) % tiles
    return numbers


def starts_of(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where each run of equal keys begins."""
    if len(keys) == 0:
        return np.empty(0, np.int64)
    return np.concatenate(([0], np.flatnonzero(keys[1:] != keys[:-1]) + 1))


def _index(items: list[Any], item: Any) -> int:
    """The item's place in the list, which takes it in if it is new."""
    if item not in items:
        items.append(item)
    return items.index(item)
