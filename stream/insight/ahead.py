"""What would become of a user: after acts of each kind, and after each day of silence.

Comes in: a user's row. Goes out: rows and vectors as they would be; `explain` looks at them for segments,
`level_facts` for levels.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from stream.events import EventColumns, Floats, Ints, Rows
from stream.features import FeatureTable
from stream.insight.facts import ActedFacts
from stream.model import Model
from stream.units import DAY_MS

MOST_ACTS = 10
"""Events of one kind: nobody can be asked for more at once."""
SILENCE_DAYS = 730
"""Two years. By then a decayed sum with the longest default half-life (180 days) is down to a sixteenth, so
whoever is still in their segment stays there."""


class Silence(NamedTuple):
    """The coming days of a user who does nothing any more; day 0 is now.

    Attributes:
        vectors: ``(days, features)`` in natural units.
    """

    times_ms: list[int]
    vectors: Floats


def silence(row: Rows, table: FeatureTable, now_ms: int, days: int = SILENCE_DAYS) -> Silence:
    """What becomes of a user ``(1,)`` by doing nothing."""
    times_ms = [now_ms + day * DAY_MS for day in range(days + 1)]
    return Silence(times_ms, np.concatenate([table.vectors(row, at_ms) for at_ms in times_ms]))


class Acted(NamedTuple):
    """What becomes of a user who acts once, twice and so on, for each kind of event.

    Attributes:
        events, values, quantities: by kind, with the numbers that each of its events carries.
        kind, times: of each row: which kind of event, and how often.
        rows: the user after that.
        now_ms: when they acted.
    """

    events: list[str]
    values: list[float | None]
    quantities: list[float | None]
    kind: Ints
    times: Ints
    rows: Rows
    now_ms: int

    def told(self, place: int) -> ActedFacts:
        """Which events a row had, and how many."""
        kind = int(self.kind[place])
        return {
            "event": self.events[kind],
            "times": int(self.times[place]),
            "value": self.values[kind],
            "quantity": self.quantities[kind],
        }


def acted(row: Rows, table: FeatureTable, model: Model, now_ms: int) -> Acted:
    """Fold events into copies of a user's row, up to `MOST_ACTS` of each kind: nothing is estimated.

    A number that an event carries is the user's own mean of it. Where they have none, it is the one of the
    middle segment, of those where it is usual. The event has no category. Where events do the same to every
    feature, only the first is tried. An event that a feature subtracts is not tried.

    Args:
        row: ``(1,)`` the user; it stays as it is.
    """
    now_ms = max(now_ms, int(row["seen"][0]))
    vector = table.vectors(row, now_ms)[0]
    typical = model.typical
    tried = _different_events(table)
    values, quantities = (
        [_usual(event, of, table, vector, typical) for event in tried]
        for of in ("value", "quantity")
    )
    # Slot by slot: as the user is, then each kind of event once, twice, and so on.
    kinds = np.repeat(np.arange(len(tried)), MOST_ACTS)
    times = np.tile(np.arange(1, MOST_ACTS + 1), len(tried))
    slot, kind = np.repeat(np.arange(1, len(times) + 1), times), np.repeat(kinds, times)
    codes = np.array([table.codes[event] for event in tried], np.uint8)
    events = EventColumns(
        slot=slot,
        topic=table.uses_value[codes[kind]].astype(np.uint8),
        kind=codes[kind],
        time_ms=np.full(len(slot), now_ms, np.int64),
        id=np.arange(1, len(slot) + 1, dtype=np.uint64),
        value=np.array([value or 0.0 for value in values])[kind],
        quantity=np.array([quantity or 0.0 for quantity in quantities])[kind],
        category=np.zeros(len(slot), np.uint64),
        order=np.zeros(len(slot), np.uint64),
        whole=np.zeros(len(slot), np.bool_),
        rate=np.ones(len(slot)),
        currency=np.zeros(len(slot), np.uint32),
        recorded_ms=np.full(len(slot), now_ms, np.int64),
    )
    folded = table.fold(lambda slots: np.repeat(row, len(slots)), events).rows
    return Acted(tried, values, quantities, kinds, times, folded, now_ms)


def _different_events(table: FeatureTable) -> list[str]:
    """Events that are told apart by what features do with them, the first mentioned of each."""
    taken = {event for feature in table.features for event in feature.minus}
    mentioned = dict.fromkeys(event for feature in table.features for event in feature.on)
    first: dict[tuple[bool, ...], str] = {}
    for event in mentioned:
        if event not in taken:
            first.setdefault(tuple(event in feature.on for feature in table.features), event)
    return list(first.values())


def _usual(
    event: str,
    of: Literal["value", "quantity"],
    table: FeatureTable,
    vector: Floats,
    typical: Floats,
) -> float | None:
    """A user's mean of a number that an event carries; None if no feature reads it."""
    reading = [(c, f) for c, f in enumerate(table.features) if f.of == of and event in f.on]
    for column, feature in reading:
        if feature.aggregate == "mean":
            own = float(vector[column])
            return own if own != feature.absent else _middle(typical[:, column])
    return 0.0 if reading else None


def _middle(typical: Floats) -> float:
    """The middle one of the segments' typical values; segments that hardly have any are left out."""
    most = float(typical.max())
    return float(np.median(typical[typical >= min(most, most / 4)]))
