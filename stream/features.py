"""Folds events into columns of users, and lets time roll them on.

Comes in: rows of users and `EventColumns`. Goes out: the rows folded on, and feature vectors at
a given time; `partition` is next. Which features there are is declared in a table, not coded:
the table is compiled into a row layout and the few vector operations below.

The fold of a topic depends on its offset order alone: not on how it was cut into batches, and
not on how the two topics interleave. Decayed sums and maxima commute; duplicates and sessions
are decided within one topic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from stream.events import Bools, EventColumns, Floats, Rows
from stream.units import DAY_MS, parse_duration

ROW_FORMAT = 2
RING = 8
"""Message ids remembered a user and topic. A producer that repeats a message does so within a
few of the same user's; each id costs 16 bytes a user over both topics."""
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

_Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]


class Feature(BaseModel):
    """One declared feature: which events, which aggregate, over what time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    aggregate: Literal["count", "sum", "mean", "distinct", "last", "first", "ratio"]
    on: tuple[str, ...] = Field((), description="event names; empty: every event any feature names")
    minus: tuple[str, ...] = Field((), description="event names that count negatively")
    of: Literal["value", "quantity", "browse_seconds", "sessions", "category"] | None = None
    half_life: _Duration | None = Field(None, description="seconds; a decayed sum")
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
        timed = self.half_life is not None or self.window is not None
        if self.half_life is not None and self.window is not None:
            raise ValueError(f"{self.name}: give half_life or window, not both")
        if self.aggregate in ("count", "sum", "mean") and not timed:
            raise ValueError(f"{self.name}: a {self.aggregate} needs half_life or window")
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


_ORDER = ("Order Completed",)
_REFUND = ("Order Refunded",)

DEFAULT_FEATURES: tuple[Feature, ...] = (
    _f("days_since_seen", "last", unit="days", words=("recent", "silent")),
    _f("days_since_order", "last", on=_ORDER, unit="days", absent=400.0,
       words=("ordered recently", "no recent order")),
    _f("tenure_days", "first", unit="days", weight=0.5, words=("newcomers", "long known")),
    _f("orders_30d", "count", on=_ORDER, half_life="30d", unit="orders",
       words=("few orders lately", "ordering now")),
    _f("orders_180d", "count", on=_ORDER, half_life="180d", unit="orders",
       words=("rare orders", "frequent")),
    _f("revenue_30d", "sum", on=_ORDER, minus=_REFUND, of="value", half_life="30d",
       unit="money", weight=0.5, words=("low spend lately", "spending now")),
    _f("revenue_180d", "sum", on=_ORDER, minus=_REFUND, of="value", half_life="180d",
       unit="money", weight=0.5, words=("low value", "high value")),
    _f("basket_value", "mean", on=_ORDER, of="value", half_life="180d", unit="money", weight=0.5,
       words=("small baskets", "big baskets")),
    _f("basket_items", "mean", on=_ORDER, of="quantity", half_life="180d", unit="items", weight=0),
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


class _Measure(NamedTuple):
    """What one event adds: the number `of`, times +1 for `on` and -1 for `minus`."""

    of: str | None
    on: tuple[str, ...]
    minus: tuple[str, ...]


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
        schema: digest of the layout and its meaning; rows of another schema are not read.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = tuple(features)
        self.names = tuple(f.name for f in self.features)
        self.units = tuple(f.unit for f in self.features)
        self.words = tuple(f.words for f in self.features)
        self.weights = np.array([f.weight for f in self.features])
        watched = sorted({name for f in self.features for name in (*f.on, *f.minus)})
        self.codes = {name: code for code, name in enumerate(watched)}
        if len(watched) > 255:
            raise ValueError("features: more than 255 event names")

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
                ("arrivals", "<u4", (2,)),
                ("ring", "<u8", (2, RING)),
                ("sums", "<f8", (len(self._decays),)),
                ("last", "<i8", (len(self._lasts),)),
                ("distinct", "<u4", (len(self._distincts), BUCKETS)),
                ("head", "<i8", (len(self._windows),)),
                ("tiles", "<f8", (len(self._windows), tiles)),
            ]
        )
        meaning = repr([f.model_dump(exclude={"unit", "weight", "words"}) for f in self.features])
        layout = f"{ROW_FORMAT} {self.dtype.descr} {meaning}"
        self.schema = hashlib.blake2b(layout.encode(), digest_size=8).hexdigest()
        self.uses_value = np.zeros(256, dtype=np.bool_)
        for measure in self._measures:
            if measure.of in ("value", "quantity"):
                for name in (*measure.on, *measure.minus) or watched:
                    self.uses_value[self.codes[name]] = True

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
                count = _Measure(None, feature.on, ())
                return (
                    "mean",
                    self._timed(feature, _Measure(feature.of, feature.on, feature.minus)),
                    self._timed(feature, count),
                )
            case _:
                return self._timed(feature, _Measure(feature.of, feature.on, feature.minus))

    def _timed(self, feature: Feature, measure: _Measure) -> tuple[str, int]:
        index = _index(self._measures, measure)
        if feature.half_life is not None:
            return ("decay", _index(self._decays, (index, feature.half_life)))
        assert feature.window is not None
        return ("window", _index(self._windows, (index, feature.window, feature.tiles)))

    # -- folding ------------------------------------------------------------------------------

    def blank(self, users: int) -> Rows:
        """Rows of users who have done nothing yet."""
        rows = np.zeros(users, dtype=self.dtype)
        rows["format"] = ROW_FORMAT
        return rows

    def fold(self, take: Callable[[npt.NDArray[np.int64]], Rows], events: EventColumns) -> _Fold:
        """Fold a batch into the rows of the users it touches.

        Args:
            take: gives copies of the rows of users, by slot, ascending.
            events: none of them late or refused; of each topic in offset order.
        """
        if len(events) == 0:
            empty = np.empty(0, np.int64)
            return _Fold(empty, take(empty), empty)
        # One sort brings a user's events together: clicks before purchases, each in offset order.
        key = (events.slot << 32) | (events.topic.astype(np.int64) << 31) | np.arange(len(events))
        key.sort()
        events = events.where(key & 0x7FFF_FFFF)
        starts = starts_of(events.slot)
        touched = events.slot[starts]
        user = np.repeat(np.arange(len(touched)), np.diff(starts, append=len(events)))
        mine = take(touched)

        known = self._duplicates(mine, user, events)
        duplicates = events.slot[known]
        if len(duplicates):
            events, user = events.where(~known), user[~known]
        if len(events):
            self._apply(mine, user, events)
        return _Fold(touched, mine, duplicates)

    def _duplicates(self, mine: Rows, user: npt.NDArray[np.int64], events: EventColumns) -> Bools:
        """Whether an event's id is among the last `RING` arrivals of its user and topic.

        Counts arrivals, not acceptances, so that the answer is a matter of positions and does
        not depend on where batches were cut. Takes the arrivals into the rings.
        """
        group = user * 2 + events.topic
        starts = starts_of(group)
        counts = np.diff(starts, append=len(group))
        rank = np.arange(len(group)) - np.repeat(starts, counts)
        found = np.zeros(len(group), dtype=np.bool_)
        ids = events.id
        for distance in range(1, min(RING, int(counts.max()) - 1) + 1):
            same = (ids[distance:] == ids[:-distance]) & (group[distance:] == group[:-distance])
            found[distance:] |= same

        arrivals, ring = mine["arrivals"].reshape(-1), mine["ring"].reshape(-1, RING)
        early = np.flatnonzero(rank < RING)
        before = ring[group[early]]
        hits = before == ids[early][:, None]
        if hits.any():
            place = np.arange(RING)
            age = (arrivals[group[early]][:, None].astype(np.int64) - 1 - place) % RING
            found[early] |= (hits & (age < RING - rank[early][:, None])).any(axis=1)

        recent = np.flatnonzero(rank >= np.repeat(counts, counts) - RING)
        position = (arrivals[group[recent]].astype(np.int64) + rank[recent]) % RING
        ring[group[recent], position] = ids[recent]
        arrivals[group[starts]] += counts.astype(np.uint32)
        mine["arrivals"] = arrivals.reshape(-1, 2)
        mine["ring"] = ring.reshape(-1, 2, RING)
        return found

    def _apply(self, mine: Rows, user: npt.NDArray[np.int64], events: EventColumns) -> None:
        starts = starts_of(user)
        who = user[starts]
        time = events.time_ms
        first = np.minimum.reduceat(time, starts)
        newest = np.maximum.reduceat(time, starts)
        known = mine["first"][who]
        mine["first"][who] = np.where(known > 0, np.minimum(known, first), first)
        before = mine["seen"][who]
        seen = np.maximum(before, newest)
        mine["seen"][who] = seen
        sessions, browsed = self._sessions(mine, user, events)

        # Bring the sums to the newest event, then add each event with the weight it has there.
        aged_by = np.where(before > 0, seen - before, 0)
        age = np.repeat(seen, np.diff(starts, append=len(user))) - time
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
                added = np.add.reduceat(amount * weights[half_life][which], at)
                sums[user[which][at], index] += added
        self._add_to_windows(mine, user, time, columns)

        for index, names in enumerate(self._lasts):
            which = np.flatnonzero(self._watched(names, events.kind))
            if len(which):
                at = starts_of(user[which])
                whom = user[which][at]
                latest = np.maximum.reduceat(time[which], at)
                mine["last"][whom, index] = np.maximum(mine["last"][whom, index], latest)
        for index, names in enumerate(self._distincts):
            which = np.flatnonzero(self._watched(names, events.kind) & (events.category > 0))
            bucket = (events.category[which] % np.uint64(BUCKETS)).astype(np.int64)
            block = np.ascontiguousarray(mine["distinct"][:, index])
            seconds = (time[which] // 1_000).astype(np.uint32)
            np.maximum.at(block.reshape(-1), user[which] * BUCKETS + bucket, seconds)
            mine["distinct"][:, index] = block

    def _sessions(
        self, mine: Rows, user: npt.NDArray[np.int64], events: EventColumns
    ) -> tuple[Bools, Floats]:
        """Which clicks open a session, and the seconds browsed since the click before.

        A click opens a session if it is more than the gap later than every click before it.
        """
        opens = np.zeros(len(user), dtype=np.bool_)
        browsed = np.zeros(len(user))
        clicks = np.flatnonzero(events.topic == 0)
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
        self, measure: _Measure, events: EventColumns, sessions: Bools, browsed: Floats
    ) -> tuple[npt.NDArray[np.int64], Floats]:
        """Events a measure counts, and the amount of each."""
        amounts: Floats | None = None
        if measure.of == "sessions":
            chosen = sessions
        elif measure.of == "browse_seconds":
            chosen = self._watched(measure.on, events.kind) & (browsed > 0)
            amounts = browsed
        else:
            chosen = self._watched((*measure.on, *measure.minus), events.kind)
            if measure.of == "value":
                amounts = events.value
            elif measure.of == "quantity":
                amounts = events.quantity
        which = np.flatnonzero(chosen)
        amount = np.ones(len(which)) if amounts is None else amounts[which]
        if measure.minus:
            amount = np.where(self._watched(measure.minus, events.kind[which]), -amount, amount)
        return which, amount

    def _add_to_windows(
        self,
        mine: Rows,
        user: npt.NDArray[np.int64],
        time: npt.NDArray[np.int64],
        columns: dict[int, tuple[npt.NDArray[np.int64], Floats]],
    ) -> None:
        for index, (measure_index, window, tiles) in enumerate(self._windows):
            which, amount = columns[measure_index]
            if len(which) == 0:
                continue
            length = round(window * 1_000) // tiles
            tile = time[which] // length
            at = starts_of(user[which])
            whom = user[which][at]
            head = mine["head"][whom, index]
            newest = np.maximum(head, np.maximum.reduceat(tile, at))
            ring = mine["tiles"][whom, index, :tiles]
            number = _tile_numbers(head, tiles)
            ring[number <= (newest - tiles)[:, None]] = 0.0
            row = np.repeat(np.arange(len(whom)), np.diff(at, append=len(which)))
            inside = tile > newest[row] - tiles
            flat = row[inside] * tiles + tile[inside] % tiles
            ring += np.bincount(flat, weights=amount[inside], minlength=ring.size).reshape(
                ring.shape
            )
            mine["tiles"][whom, index, :tiles] = ring
            mine["head"][whom, index] = newest

    def _watched(self, names: tuple[str, ...], kinds: npt.NDArray[np.uint8]) -> Bools:
        if not names:
            return np.ones(len(kinds), dtype=np.bool_)
        table = np.zeros(256, dtype=np.bool_)
        table[[self.codes[name] for name in names]] = True
        return table[kinds]

    # -- reading ------------------------------------------------------------------------------

    def vectors(self, rows: Rows, now_ms: int) -> Floats:
        """Features of users at a time, ``(users, features)`` in natural units.

        Reads only: a silent user is brought up to date without being rewritten.
        """
        elapsed = np.maximum(now_ms - rows["seen"], 0)
        decayed = {
            h: np.where(rows["seen"] > 0, np.exp2(elapsed / (-1_000 * h)), 0.0)
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
            number = _tile_numbers(rows["head"][:, index], tiles)
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
