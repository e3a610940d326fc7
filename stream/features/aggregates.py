"""What a feature may be: one class each, that says what may be declared, and how it is kept and read.

Comes in: declared features. Goes out: for each, a place in the row and how to read it there; `table`
puts them together. A new aggregate is one class here, listed in `AGGREGATES`, and its slow twin in
`stream.oracle`. One that keeps something of its own is a `Part` of the row, too.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from stream.events import Floats, Ints
from stream.features.batch import Batch, newest_before, starts_of
from stream.features.part import Part, Parts, Read, Reading, index_of
from stream.features.sums import OPINIONS, Measure, Sums, Windows, timed
from stream.features.terms import ORDER_FAMILY, Declared, OverTime
from stream.units import DAY_MS

SAME_OCCASION_DAYS = 0.5
"""Events closer together are of one occasion, and make no gap: who orders again within hours has
forgotten something."""
LASTING_SECONDS = 90 * 86_400.0
"""Half-life from which a mean stays in silence. After twenty of them, here five years, what it is of has all but
decayed away, and it goes over to what is told where there is nothing."""
BUCKETS = 32
"""Buckets of a distinct count: linear counting (Whang 1990) is within 10 % to about 60."""


class Aggregate(ABC):
    """A kind of feature.

    Attributes:
        name: in declarations.
        of_features: whether it is read from other features, and so after them.
        turn: how it goes on for somebody who does nothing, if that does not depend on the declaration.
    """

    name: ClassVar[str]
    of_features: ClassVar[bool] = False
    turn: ClassVar[OverTime] = "moves"

    @classmethod
    def validate(cls, feature: Declared) -> None:
        """See that a declaration fits.

        Raises:
            ValueError: it does not; the message begins with the feature's name.
        """
        if len(feature.ratio_parts) == 2:
            raise ValueError(f"{feature.name}: numerator and denominator belong to a ratio")

    @classmethod
    @abstractmethod
    def allot(cls, feature: Declared, parts: Parts) -> Read:
        """Give a feature its place among the parts of the row; returns how to read it."""

    @classmethod
    def over_time(cls, feature: Declared, others: Mapping[str, OverTime]) -> OverTime:
        """How it goes on for somebody who does nothing; `moves` where that is not known.

        Args:
            others: how others do, by name, of which it is read.
        """
        del feature, others
        return cls.turn


# -- sums of events ----------------------------------------------------------------------------


class Count(Aggregate):
    """How many events, or how many sessions."""

    name = "count"

    @classmethod
    def validate(cls, feature: Declared) -> None:
        super().validate(feature)
        if feature.of not in (None, "sessions"):
            raise ValueError(f"{feature.name}: a count is of events, or of = 'sessions'")

    @classmethod
    def allot(cls, feature: Declared, parts: Parts) -> Read:
        return timed(feature, Measure.declared(feature), parts.of(Sums), parts.of(Windows))

    @classmethod
    def over_time(cls, feature: Declared, others: Mapping[str, OverTime]) -> OverTime:
        del others
        return _forgets(feature)


class Sum(Aggregate):
    """What events are worth, or how many pieces, seconds of browsing or much sentiment they come to."""

    name = "sum"

    @classmethod
    def validate(cls, feature: Declared) -> None:
        super().validate(feature)
        if feature.of in (None, "sessions", "category"):
            raise ValueError(
                f"{feature.name}: a {cls.name} needs of = value, quantity, browse_seconds or sentiment"
            )
        if feature.of == "sentiment" and (
            not feature.on or feature.minus or ORDER_FAMILY.intersection(feature.on)
        ):
            raise ValueError(
                f"{feature.name}: sentiment needs on, of events that are no orders, and takes no minus"
            )

    @classmethod
    def allot(cls, feature: Declared, parts: Parts) -> Read:
        return timed(feature, Measure.declared(feature), parts.of(Sums), parts.of(Windows))

    @classmethod
    def over_time(cls, feature: Declared, others: Mapping[str, OverTime]) -> OverTime:
        del others
        return _forgets(feature)


class Mean(Sum):
    """The same by event."""

    name = "mean"

    @classmethod
    def allot(cls, feature: Declared, parts: Parts) -> Read:
        measure = Measure.declared(feature)
        count = measure._replace(of=OPINIONS if feature.of == "sentiment" else None, minus=())
        top, bottom = (
            timed(feature, one, parts.of(Sums), parts.of(Windows)) for one in (measure, count)
        )
        return lambda reading: _divide(top(reading), bottom(reading), feature.absent)

    @classmethod
    def over_time(cls, feature: Declared, others: Mapping[str, OverTime]) -> OverTime:
        del others
        lasts = feature.half_life is None or feature.half_life >= LASTING_SECONDS
        return "stays" if lasts and feature.window is None else "moves"


# -- times -------------------------------------------------------------------------------------


class Last(Part, Aggregate):
    """Days since an event."""

    name = "last"
    turn = "rises"
    field = "last"

    def __init__(self) -> None:
        self.watched: list[tuple[str, ...]] = []

    @classmethod
    def validate(cls, feature: Declared) -> None:
        super().validate(feature)
        if feature.of is not None:
            raise ValueError(f"{feature.name}: a {cls.name} takes no of")

    @classmethod
    def allot(cls, feature: Declared, parts: Parts) -> Read:
        index = index_of(parts.of(cls).watched, feature.on)

        def read(reading: Reading) -> Floats:
            return _days_since(reading.rows["last"][:, index], reading.now_ms, feature.absent)

        return read

    def layout(self) -> tuple[str, tuple[int, ...]]:
        return "<i8", (len(self.watched),)

    def fold(self, batch: Batch) -> None:
        last = batch.mine["last"]
        for index, names in enumerate(self.watched):
            # Of no event by name: of whatever the user does.
            which = np.flatnonzero(batch.chosen(names) if names else batch.told(batch.acts))
            if len(which):
                at = starts_of(batch.user[which])
                whom = batch.user[which][at]
                latest = np.maximum.reduceat(batch.time_ms[which], at)
                last[whom, index] = np.maximum(last[whom, index], latest)


class First(Aggregate):
    """Days since a user was first seen."""

    name = "first"
    turn = "ages"

    @classmethod
    def validate(cls, feature: Declared) -> None:
        super().validate(feature)
        if feature.of is not None:
            raise ValueError(f"{feature.name}: a {cls.name} takes no of")
        if feature.on:
            raise ValueError(f"{feature.name}: a {cls.name} takes no on")

    @classmethod
    def allot(cls, feature: Declared, parts: Parts) -> Read:
        del parts  # when they were first seen is kept of everyone

        def read(reading: Reading) -> Floats:
            return _days_since(reading.rows["first"], reading.now_ms, feature.absent)

        return read


# -- gaps --------------------------------------------------------------------------------------


class Gaps(Part):
    """Days from one event to the next: their decayed sum and weight.

    A gap ends where an event comes that is newer than all before it in its topic; one that comes late
    neither makes a gap nor parts one. So it depends on the order within a topic alone. Sums are as of
    the newest of these events, so whatever else a user does leaves them as they are.
    """

    field = "gaps"
    TOTAL, WEIGHT, NEWEST = 0, 1, 2
    """Columns; the newest time of an event in milliseconds, by topic, is the last."""

    def __init__(self) -> None:
        self.watched: list[tuple[tuple[str, ...], float]] = []

    def layout(self) -> tuple[str, tuple[int, ...]]:
        return "<f8", (len(self.watched), self.NEWEST + 2)

    def fold(self, batch: Batch) -> None:
        for index, (names, half_life) in enumerate(self.watched):
            watched = batch.chosen(names)
            # What a message brings about elsewhere stands behind its batch, not where it belongs.
            which = np.flatnonzero(watched if batch.arrived is None else watched & batch.arrived)
            if len(which):
                self._fold_gaps(batch, batch.mine["gaps"][:, index], which, half_life)

    def _fold_gaps(self, batch: Batch, kept: Floats, which: Ints, half_life: float) -> None:
        user, topic, time = batch.user[which], batch.topic[which], batch.time_ms[which]
        starts = starts_of(user * 2 + topic)
        column = self.NEWEST + topic[starts].astype(np.int64)
        before, newest = newest_before(starts, time, kept[user[starts], column].astype(np.int64))
        begins = starts_of(user)
        who = user[begins]
        was = kept[who, self.NEWEST :].max(axis=1)
        kept[user[starts], column] = newest
        as_of = kept[who, self.NEWEST :].max(axis=1)
        left = np.exp2((as_of - was) / (-1_000 * half_life))
        kept[who, self.TOTAL] *= left
        kept[who, self.WEIGHT] *= left
        days = np.where(before > 0, (time - before) / DAY_MS, 0.0)
        ends = days > SAME_OCCASION_DAYS
        age = np.repeat(as_of, np.diff(begins, append=len(user))) - time
        weight = np.where(ends, np.exp2(age / (-1_000 * half_life)), 0.0)
        kept[who, self.TOTAL] += np.add.reduceat(days * weight, begins)
        kept[who, self.WEIGHT] += np.add.reduceat(weight, begins)


class Gap(Aggregate):
    """Mean of the days from one event to the next, the later ones counting for more."""

    name = "gap"
    turn = "stays"

    @classmethod
    def validate(cls, feature: Declared) -> None:
        super().validate(feature)
        if not feature.on or feature.of is not None or feature.minus:
            raise ValueError(f"{feature.name}: a {cls.name} needs on, and takes no of and no minus")
        if feature.window is not None:
            raise ValueError(f"{feature.name}: a {cls.name} takes no window")

    @classmethod
    def allot(cls, feature: Declared, parts: Parts) -> Read:
        half_life = math.inf if feature.half_life is None else feature.half_life
        index = index_of(parts.of(Gaps).watched, (feature.on, half_life))

        def read(reading: Reading) -> Floats:
            kept = reading.rows["gaps"][:, index]
            return _divide(kept[:, Gaps.TOTAL], kept[:, Gaps.WEIGHT], feature.absent)

        return read


# -- others ------------------------------------------------------------------------------------


class Distinct(Part, Aggregate):
    """How many categories, each fading since it was last seen."""

    name = "distinct"
    turn = "falls"
    field = "distinct"

    def __init__(self) -> None:
        self.watched: list[tuple[str, ...]] = []

    @classmethod
    def validate(cls, feature: Declared) -> None:
        super().validate(feature)
        if feature.half_life is None or feature.of != "category":
            raise ValueError(f"{feature.name}: distinct needs of = 'category' and a half_life")

    @classmethod
    def allot(cls, feature: Declared, parts: Parts) -> Read:
        index = index_of(parts.of(cls).watched, feature.on)
        half_life = feature.half_life
        assert half_life is not None

        def read(reading: Reading) -> Floats:
            return _filled(reading.rows["distinct"][:, index], reading.now_ms, half_life)

        return read

    def layout(self) -> tuple[str, tuple[int, ...]]:
        return "<u4", (len(self.watched), BUCKETS)

    def fold(self, batch: Batch) -> None:
        distinct = batch.mine["distinct"]
        for index, names in enumerate(self.watched):
            which = np.flatnonzero(batch.chosen(names) & (batch.category > 0))
            bucket = (batch.category[which] % np.uint64(BUCKETS)).astype(np.int64)
            block = np.ascontiguousarray(distinct[:, index])
            seconds = (batch.time_ms[which] // 1_000).astype(np.uint32)
            np.maximum.at(block.reshape(-1), batch.user[which] * BUCKETS + bucket, seconds)
            distinct[:, index] = block


class Ratio(Aggregate):
    """One feature over another."""

    name = "ratio"
    of_features = True

    @classmethod
    def validate(cls, feature: Declared) -> None:
        if feature.of is not None:
            raise ValueError(f"{feature.name}: a {cls.name} takes no of")
        if feature.on:
            raise ValueError(f"{feature.name}: a {cls.name} takes no on")
        if len(feature.ratio_parts) != 2:
            raise ValueError(f"{feature.name}: numerator and denominator belong to a ratio")

    @classmethod
    def allot(cls, feature: Declared, parts: Parts) -> Read:
        top, bottom = (parts.names.index(part) for part in feature.ratio_parts)

        def read(reading: Reading) -> Floats:
            return _divide(reading.columns[top], reading.columns[bottom], feature.absent)

        return read

    @classmethod
    def over_time(cls, feature: Declared, others: Mapping[str, OverTime]) -> OverTime:
        top, bottom = (others[part] for part in feature.ratio_parts)
        if bottom != "stays":
            return "moves"
        return "rises" if top == "ages" else top


AGGREGATES: Mapping[str, type[Aggregate]] = {
    one.name: one for one in (Count, Sum, Mean, Distinct, Last, First, Gap, Ratio)
}


def over_time(features: Sequence[Declared]) -> dict[str, OverTime]:
    """How each goes on for somebody who does nothing, by name."""
    found: dict[str, OverTime] = {}
    # What is read from other features is read behind them.
    for feature in sorted(features, key=lambda one: AGGREGATES[one.aggregate].of_features):
        found[feature.name] = AGGREGATES[feature.aggregate].over_time(feature, found)
    return found


PARTS: tuple[type[Part], ...] = (Sums, Last, Distinct, Windows, Gaps)
"""What every row has, whatever features there are, in this order; further parts come behind them."""


def _forgets(feature: Declared) -> OverTime:
    """Of what is added up. What leaves a window may have been less than nothing."""
    if feature.half_life is not None:
        return "falls"
    if feature.window is None:
        return "stays"
    return "moves" if feature.minus or feature.of in {"value", "sentiment"} else "falls"


def _days_since(times: npt.NDArray[np.int64], now_ms: int, absent: float) -> Floats:
    """Days since a time each; a time of 0 is none."""
    days = np.maximum(now_ms - times, 0) / DAY_MS
    return np.where(times > 0, days, absent)


def _divide(top: Floats, bottom: Floats, absent: float) -> Floats:
    """Top over bottom; where the bottom has all but decayed away, `absent`."""
    enough = bottom > 1e-6
    return np.where(enough, top / np.where(enough, bottom, 1.0), absent)


def _filled(last_seconds: npt.NDArray[np.uint32], now_ms: int, half_life: float) -> Floats:
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
