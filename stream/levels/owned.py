"""What the owner of a partition knows of levels: codes of its rows, and when the silent were looked at last.

Comes in: models, and users whom a sweep or an act makes the owner look at. Goes out: who has crossed a limit; how
many users are on each step. `partition` writes the records.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stream.events import CAUSES, Cause, Floats, Ints, Rows
from stream.levels.book import FIELD, LevelBook, count_codes, none_told
from stream.levels.told import NONE, Crossings, crossings
from stream.model import Model
from stream.store.state import Position
from stream.units import HOUR_MS

NOBODY = np.empty(0, np.int64)


class OwnedLevels:
    """Levels of one partition.

    Attributes:
        book: codes of its rows.
        looked_ms, looked_by: when everyone was looked at last, and by which levels.
    """

    def __init__(self, position: Position) -> None:
        self.book = LevelBook(position.levels)
        self.looked_ms, self.looked_by = position.levels_ms, position.levels_by
        self._of: Model | None = None
        self._began_ms, self._due = 0, False
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
        self._began_ms, self._due = 0, False
        self._counts = none_told()

    def include_silent(self, model: Model, now_ms: int) -> bool:
        """Whether the sweep looks at levels of the silent: once an hour, and whenever levels change.

        A score of who is silent hardly changes in less, and to evaluate it costs a fifth of a look.
        """
        if not self._began_ms:
            same_hour = now_ms // HOUR_MS == self.looked_ms // HOUR_MS
            self._due = not same_hour or model.levels.digest != self.looked_by
            self._began_ms = now_ms
        return self._due

    def count(self, rows: Rows) -> None:
        """Count users of the sweep who were looked at."""
        count_codes(rows[FIELD], len(self.book.steps), self._counts)

    def end_sweep(self, model: Model) -> dict[str, dict[str, int]]:
        """Of each level, how many users are on each step."""
        if self._due:
            self.looked_ms, self.looked_by = self._began_ms, model.levels.digest
        return self.book.users(model.levels.known, self._counts)

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
