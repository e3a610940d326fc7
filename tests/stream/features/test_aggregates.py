"""A new aggregate is one class: it is declared, kept in the row, folded and read, and nothing else knows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from stream.events import EventColumns, Floats, Ints
from stream.features import DEFAULT_FEATURES, Feature, FeatureTable
from stream.features import aggregates as known
from stream.features.aggregates import AGGREGATES, PARTS, Aggregate
from stream.features.batch import Batch, starts_of
from stream.features.part import Part, Parts, Read, index_of
from stream.features.terms import Declared


class Largest(Part, Aggregate):
    """The largest value that an event of a user ever had."""

    name = "largest"
    field = "largest"

    def __init__(self) -> None:
        self.watched: list[tuple[str, ...]] = []

    @classmethod
    def validate(cls, feature: Declared) -> None:
        super().validate(feature)
        if feature.of != "value":
            raise ValueError(f"{feature.name}: largest needs of = 'value'")

    @classmethod
    def allot(cls, feature: Declared, parts: Parts) -> Read:
        index = index_of(parts.of(cls).watched, feature.on)
        return lambda reading: np.asarray(reading.rows["largest"][:, index], np.float64)

    def layout(self) -> tuple[str, tuple[int, ...]]:
        return "<f8", (len(self.watched),)

    def fold(self, batch: Batch) -> None:
        for index, names in enumerate(self.watched):
            which = np.flatnonzero(batch.chosen(names))
            if len(which):
                at = starts_of(batch.user[which])
                whom = batch.user[which][at]
                largest = np.maximum.reduceat(batch.value[which], at)
                mine = batch.mine["largest"]
                mine[whom, index] = np.maximum(mine[whom, index], largest)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, type[Aggregate]]:
    """As if the class stood in `AGGREGATES`."""
    listed = dict(AGGREGATES) | {Largest.name: Largest}
    for module in ("aggregates", "declare", "table"):
        monkeypatch.setattr(f"stream.features.{module}.AGGREGATES", listed)
    return listed


DECLARED = {"name": "dearest", "aggregate": "largest", "of": "value", "on": ["Order Completed"]}


def declared() -> Feature:
    return Feature.model_validate(DECLARED)


def orders(table: FeatureTable, slots: list[int], values: list[float]) -> EventColumns:
    n = len(slots)
    nothing = np.zeros(n, np.uint64)
    return EventColumns(
        np.array(slots), np.ones(n, np.uint8), np.full(n, table.codes["Order Completed"], np.uint8),
        np.arange(n) + 1_700_000_000_000, nothing, np.array(values), np.ones(n), nothing, nothing,
        np.zeros(n, np.bool_), np.ones(n), np.zeros(n, np.uint32), np.zeros(n, np.int64),
    )  # fmt: skip


def test_it_is_declared_folded_and_read() -> None:
    table = FeatureTable([*DEFAULT_FEATURES, declared()])
    plain = FeatureTable(DEFAULT_FEATURES)
    rows, others = table.blank(3), plain.blank(3)

    def add(slots: list[int], values: list[float]) -> Ints:
        folded = table.fold(lambda s: rows[s], orders(table, slots, values))
        rows[folded.touched] = folded.rows
        same = plain.fold(lambda s: others[s], orders(plain, slots, values))
        others[same.touched] = same.rows
        return folded.touched

    assert add([0, 2, 0], [5.0, 70.0, 9.0]).tolist() == [0, 2]
    add([0, 2], [7.0, 71.5])
    read: Floats = table.vectors(rows, 1_700_000_100_000)
    assert read[:, -1].tolist() == [9.0, 0.0, 71.5]
    expected: Floats = plain.vectors(others, 1_700_000_100_000)
    assert np.array_equal(read[:, :-1], expected), "others are what they are without it"


def test_a_declaration_that_does_not_fit_is_refused_in_its_words() -> None:
    with pytest.raises(ValueError, match="dearest: largest needs of = 'value'"):
        Feature.model_validate(DECLARED | {"of": None})
    with pytest.raises(ValueError, match="'gap', 'ratio' or 'largest'"):
        Feature.model_validate(DECLARED | {"aggregate": "smallest"})


def test_rows_without_it_are_laid_out_as_before() -> None:
    always = tuple(part.field for part in PARTS)
    fields = FeatureTable(DEFAULT_FEATURES).dtype.names or ()
    assert fields[-len(always) :] == always
    assert FeatureTable([declared()]).dtype.names == (*fields, "largest")


def test_every_aggregate_is_listed_under_its_own_name() -> None:
    classes = [
        one for one in vars(known).values()
        if isinstance(one, type) and issubclass(one, Aggregate) and one is not Aggregate
    ]  # fmt: skip
    assert {one.name: one for one in classes} == dict(AGGREGATES)


def test_a_mean_gap_follows_the_later_gaps_and_no_silence() -> None:
    gap = Feature.model_validate(
        {"name": "gap", "aggregate": "gap", "on": ["Order Completed"], "half_life": "10d", "absent": -1}
    )  # fmt: skip
    table = FeatureTable([*DEFAULT_FEATURES, gap])
    rows = table.blank(1)
    day_ms = 86_400_000
    seen = []
    for day in (0.0, 0.25, 10.25, 15.25, 9.0):  # of one occasion, ten days, five, and a late one
        events = orders(table, [0], [1.0])
        events.time_ms[:] = 1_700_000_000_000 + round(day * day_ms)
        folded = table.fold(lambda slots: rows[slots], events)
        rows[folded.touched] = folded.rows
        read = table.vectors(rows, int(events.time_ms[0]) + 300 * day_ms)
        seen.append(float(read[0, -1]))
    later = 2.0**-0.5  # the gap of ten days ended five days before the newest order
    mean = (5.0 + 10.0 * later) / (1.0 + later)
    assert seen == pytest.approx([-1.0, -1.0, 10.0, mean, mean])
