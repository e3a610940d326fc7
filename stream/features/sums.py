"""Sums of what events add: decayed by a half-life, or over an exact rolling window.

Comes in: a batch, and what of an event counts. Goes out: two parts of the row, `sums` and `tiles`, which
counts, sums and means are read from.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np

from stream.events import Bools, Floats, Ints
from stream.features.batch import Batch, Codes, starts_of
from stream.features.part import Part, Read, Reading, index_of
from stream.features.terms import PLACED, TAKES_BACK, Declared, meant

OPINIONS = "opinions"
"""What a mean of sentiment divides by: events that have one."""
NOTHING_LEFT = 1e-12
"""Of what a sum was made of: what is less after a correction is rounding, and nothing is left."""


class Measure(NamedTuple):
    """What one event adds: the number `of`, times +1 for `on` and -1 for `minus`.

    Attributes:
        left: what is left of it counts, after what was taken back.
    """

    of: str | None
    on: tuple[str, ...]
    minus: tuple[str, ...]
    left: bool = False

    @staticmethod
    def declared(feature: Declared) -> Measure:
        """What a feature counts; orders that may be taken back count with what is left of them."""
        minus = meant(feature.minus)
        left = PLACED in feature.on and any(name in TAKES_BACK for name in minus)
        if left:
            minus = tuple(name for name in minus if name not in TAKES_BACK)
        return Measure(feature.of, feature.on, minus, left)

    def uses_value(self, codes: Codes) -> Bools:
        """By code, whether value or quantity of such an event is read."""
        if self.of not in ("value", "quantity"):
            return np.zeros(256, dtype=np.bool_)
        mask = codes.watched(self.on)
        return mask | codes.watched(self.minus) if self.minus else mask

    def uses_review(self, codes: Codes) -> Bools:
        """By code, whether rating and text of such an event are read."""
        if self.of != "sentiment":
            return np.zeros(256, dtype=np.bool_)
        return codes.watched(self.on)

    def column(self, batch: Batch) -> Column:
        """Events that are counted, and the amount of each."""
        if self.of == "sessions":
            which = np.flatnonzero(batch.opens)
            return which, np.ones(len(which))
        mask = batch.codes.watched(self.on)
        if self.of == "browse_seconds":
            which = np.flatnonzero(mask[batch.kind] & (batch.browsed > 0))
            return which, batch.browsed[which]
        if self.of in ("sentiment", OPINIONS):
            if batch.sentiment is None:
                return np.empty(0, np.int64), np.empty(0)
            which = np.flatnonzero(mask[batch.kind] & np.isfinite(batch.sentiment))
            return which, batch.sentiment[which] if self.of == "sentiment" else np.ones(len(which))
        if self.minus:
            mask = mask | batch.codes.watched(self.minus)
        which = np.flatnonzero(mask[batch.kind])
        place = (None, "value", "quantity").index(self.of)
        if self.left and batch.left is not None:
            amount = batch.left[place][which]
        elif place:
            amount = (batch.value, batch.quantity)[place - 1][which]
        else:
            amount = np.ones(len(which)) if batch.counts is None else batch.counts[which]
        if self.minus:
            taken = batch.codes.watched(self.minus)[batch.kind[which]]
            amount = np.where(taken, -amount, amount)
        return which, amount


Column: TypeAlias = tuple[Ints, Floats]


class Sums(Part):
    """What events add, decayed by half-lives, as of `as_of`."""

    field = "sums"

    def __init__(self) -> None:
        self.measures: list[Measure] = []
        self._decays: list[tuple[int, float]] = []

    def layout(self) -> tuple[str, tuple[int, ...]]:
        return "<f8", (len(self._decays),)

    def allot(self, measure: Measure, half_life: float) -> Read:
        """How to read a decayed sum."""
        index = index_of(self._decays, (index_of(self.measures, measure), half_life))

        def read(reading: Reading) -> Floats:
            column: Floats = reading.rows["sums"][:, index] * reading.decayed(half_life)
            return column

        return read

    def fold(self, batch: Batch) -> None:
        # Bring the sums to the newest of what they are made of, then add each with its weight there.
        aged_by = np.where(batch.before > 0, batch.as_of - batch.before, 0)
        age = batch.each(batch.as_of) - batch.time_ms
        half_lives = {half_life for _, half_life in self._decays}
        elapsed = {h: np.exp2(aged_by / (-1_000 * h)) for h in half_lives}
        weights = {h: np.exp2(age / (-1_000 * h)) for h in half_lives}
        columns = [_by_user(batch, *measure.column(batch)) for measure in self.measures]
        # A sum of all users lies together meanwhile: in the rows each one is a miss of the cache.
        rows = batch.mine["sums"]
        sums = np.ascontiguousarray(rows[batch.who].T)
        for index, (place, half_life) in enumerate(self._decays):
            which, amount, starts, whom = columns[place]
            column = sums[index]
            column *= elapsed[half_life]
            if len(which):
                parts = amount * weights[half_life][which]
                added = np.add.reduceat(parts, starts)
                if batch.left is not None and self.measures[place].left:
                    most = np.abs(column[whom]) + np.add.reduceat(np.abs(parts), starts)
                    rest = np.abs(column[whom] + added) <= NOTHING_LEFT * most
                    added = np.where(rest, -column[whom], added)
                column[whom] += added
        rows[batch.who] = sums.T


def _by_user(batch: Batch, which: Ints, amount: Floats) -> tuple[Ints, Floats, Ints, Ints]:
    """A column, with where each user's events begin in it, and the place of each in `who`."""
    row = batch.row[which]
    starts = starts_of(row)
    return which, amount, starts, row[starts]


class Windows(Part):
    """What events add, in rings of tiles, each a part of a rolling window."""

    field = "tiles"

    def __init__(self) -> None:
        self.measures: list[Measure] = []
        self._windows: list[tuple[int, float, int]] = []

    def layout(self) -> tuple[str, tuple[int, ...]]:
        return "<f8", (len(self._windows), max((n for _, _, n in self._windows), default=0))

    def allot(self, measure: Measure, window: float, tiles: int) -> Read:
        """How to read a sum over a window."""
        index = index_of(self._windows, (index_of(self.measures, measure), window, tiles))
        length = round(window * 1_000) // tiles

        def read(reading: Reading) -> Floats:
            newest = reading.now_ms // length
            number = _tile_numbers(reading.rows["as_of"] // length, tiles)
            ring = reading.rows["tiles"][:, index, :tiles]
            total: Floats = np.where(number > newest - tiles, ring, 0.0).sum(axis=1)
            return total

        return read

    def fold(self, batch: Batch) -> None:
        """Turn the rings of users on to the newest tile, and add what is not older than them."""
        if not self._windows:
            return
        columns = [measure.column(batch) for measure in self.measures]
        who, row, mine = batch.who, batch.row, batch.mine
        for index, (place, window, tiles) in enumerate(self._windows):
            which, amount = columns[place]
            length = round(window * 1_000) // tiles
            newest = batch.as_of // length
            ring = mine["tiles"][who, index, :tiles]
            ring[_tile_numbers(batch.before // length, tiles) <= (newest - tiles)[:, None]] = 0.0
            tile = batch.time_ms[which] // length
            inside = tile > newest[row[which]] - tiles
            flat = row[which][inside] * tiles + tile[inside] % tiles
            ring += np.bincount(flat, weights=amount[inside], minlength=ring.size).reshape(
                ring.shape
            )
            mine["tiles"][who, index, :tiles] = ring


def _tile_numbers(head: Ints, tiles: int) -> Ints:
    """Absolute number of the tile in each place of rings whose newest tile is `head`."""
    place = np.arange(tiles)
    numbers: Ints = head[:, None] - (head[:, None] - place) % tiles
    return numbers


def timed(feature: Declared, measure: Measure, sums: Sums, windows: Windows) -> Read:
    """How to read a measure over the time that a feature says."""
    if feature.window is not None:
        return windows.allot(measure, feature.window, feature.tiles)
    # What is counted for life fades with a half-life that never comes.
    return sums.allot(measure, math.inf if feature.half_life is None else feature.half_life)
