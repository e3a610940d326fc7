"""What the owner of a partition knows of levels: codes of its rows, and who need not be looked at for a while.

Comes in: models, and users whom a sweep or an act makes the owner look at. Goes out: who has crossed a limit; how
many users are on each step. `partition` writes the records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from stream.events import CAUSES, Bools, Cause, Floats, Ints, Rows
from stream.features.terms import OverTime
from stream.levels.book import FIELD, Codes, LevelBook, count_codes, none_told
from stream.levels.steps import Values
from stream.levels.told import NONE, Crossings, crossings
from stream.model import Model
from stream.rows import rows_at
from stream.store.state import Position
from stream.units import HOUR_MS, MINUTE_MS

VectorsAt: TypeAlias = Callable[[Rows, int], Floats]
NOBODY = np.empty(0, np.int64)
AHEAD_MS = (HOUR_MS, 10 * MINUTE_MS, MINUTE_MS)
"""For how long somebody may be left alone, the longest first. Without the shorter two, whoever is near a limit is
looked at in each sweep for hours, and as good as each sweep has somebody: that costs a sixth of a sweep."""


class OwnedLevels:
    """Levels of one partition.

    Attributes:
        book: codes of its rows.
        looked_ms, looked_by: when the last sweep began, and by which levels everyone was looked at in it.

    Args:
        turns: how each feature goes on for somebody who does nothing.
    """

    def __init__(self, position: Position, turns: Mapping[str, OverTime]) -> None:
        self._one_way = {name for name, turn in turns.items() if turn != "moves"}
        self.book = LevelBook(position.levels)
        self.looked_ms, self.looked_by = position.levels_ms, position.levels_by
        self._of: Model | None = None
        self._began_ms = 0
        self._counts = none_told()

    @property
    def kept(self) -> dict[str, list[str]]:
        """As a position has them."""
        return {name: list(steps) for name, steps in self.book.steps.items()}

    def take_in(self, model: Model) -> list[int]:
        """Give a place to each level of a model; those that another one had before are to be cleared."""
        if self._of is model:
            return []
        self._of = model
        return self.book.take_in(model.levels.known)

    # -- a sweep ------------------------------------------------------------------------------

    def begin_sweep(self) -> None:
        """From now on everyone is looked at."""
        self._began_ms = 0
        self._counts = none_told()

    def are_new(self, model: Model) -> bool:
        """Whether the last sweep looked at everyone by other levels than a model's."""
        return model.levels.digest != self.looked_by

    def count(self, rows: Rows, now_ms: int) -> None:
        """Count users of the sweep who were looked at."""
        self._began_ms = self._began_ms or now_ms
        count_codes(rows[FIELD], len(self.book.steps), self._counts)

    def recount(self, before: Codes, after: Codes) -> None:
        """Users of the sweep who were counted already have crossed limits.

        Args:
            before, after: ``(n, places)`` as rows have them.
        """
        less = none_told()
        count_codes(before, len(self.book.steps), less)
        self._counts -= less
        count_codes(after, len(self.book.steps), self._counts)

    def end_sweep(self, model: Model) -> dict[str, dict[str, int]]:
        """Of each level, how many users are on each step."""
        self.looked_ms, self.looked_by = self._began_ms, model.levels.digest
        return self.book.users(model.levels.known, self._counts)

    # -- the silent ---------------------------------------------------------------------------

    def look_ahead(
        self,
        model: Model,
        rows: Rows,
        vectors: Floats,
        vectors_at: VectorsAt,
        now_ms: int,
        names: Sequence[str],
    ) -> Ints:
        """Until when each user is sure to cross nothing by time alone, ``(n,)``; 0 for who has to be looked at.

        Nothing is looked for beyond the next sweep, if sweeps are as far apart as they were last.

        Args:
            vectors: of the rows, now.
            vectors_at: gives the vectors of rows at a time.
            names: of the features.
        """
        until = np.zeros(len(rows), np.int64)
        if now_ms - self.looked_ms >= AHEAD_MS[0]:
            return until
        left, now = np.arange(len(rows)), model.levels.values(vectors, names)
        for ahead_ms in AHEAD_MS:
            if len(left) == 0 or now_ms - self.looked_ms >= ahead_ms:
                break
            theirs = rows_at(rows, left)
            here = {name: values[left] for name, values in now.items()}
            then = model.levels.values(vectors_at(theirs, now_ms + ahead_ms), names)
            stay = self._stay(model, theirs[FIELD], here, then, ahead_ms)
            # At the full minute, so that those who are looked at in a minute are in one sweep.
            until[left[stay]] = (now_ms + ahead_ms) // MINUTE_MS * MINUTE_MS
            left = left[~stay]
        return until

    def _stay(
        self, model: Model, codes: Codes, values: Values, then: Values, ahead_ms: int
    ) -> Bools:
        found = np.ones(len(codes), np.bool_)
        scores = model.levels.scores
        one_way = self._one_way if scores is None else self._one_way | scores.falling
        for level in model.levels.known:
            before = self.book.places_of(level)[codes[:, self.book.place(level.name)]]
            found &= level.stays(values, then, before, ahead_ms, one_way)
        return found

    # -- a look -------------------------------------------------------------------------------

    def crossings(
        self,
        model: Model,
        rows: Rows,
        vectors: Floats,
        causes: npt.NDArray[np.uint8],
        names: Sequence[str],
        held: Ints = NOBODY,
        *,
        silent: bool = True,
    ) -> Crossings:
        """Who of those looked at has crossed a limit.

        Args:
            names: of the features.
            held: places of those of whom it is known already what they are told.
            silent: whether to look at those, too, who did not act.
        """
        if silent:
            who = np.arange(len(rows))
        else:
            who = np.flatnonzero(causes == CAUSES.index(Cause.USER_MOVED))
        if len(held):
            who = np.setdiff1d(who, held)
        if len(who) == 0:
            return NONE
        codes = rows[FIELD]
        if len(who) < len(rows):
            codes, vectors, causes = codes[who], vectors[who], causes[who]
        values = model.levels.values(vectors, names)
        return crossings(model.levels, values, codes, causes, self.book).of(who)


def anyone_crosses(
    model: Model,
    owned: Sequence[OwnedLevels],
    rows: Rows,
    vectors: Floats,
    causes: npt.NDArray[np.uint8],
    names: Sequence[str],
) -> bool:
    """Whether anyone may have crossed a limit: asked of all partitions at once, it is cheap.

    Where partitions have other codes for the same steps, each has to look.
    """
    if any(one.book.steps != owned[0].book.steps for one in owned):
        return True
    return len(owned[0].crossings(model, rows, vectors, causes, names)) > 0
