"""Judges when customers are told of a level, by what they did later.

Comes in: a shop's users, day by day, and the scores in force. Goes out: how silent customers were when they were told
that their churn risk is high, how many of those told ordered soon after, and how many crossings there were.
Users are looked at once a day, as owners do at a mark: because time has passed, and again under new scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.config import Settings
from stream.events import CAUSES, Cause, Floats, Ints, Rows
from stream.levels.book import LevelBook, layout
from stream.levels.declare import USUAL_LEVELS
from stream.levels.limits import followed, known_levels
from stream.levels.steps import NO_LEVELS, Levels
from stream.levels.told import crossings
from stream.scores.model import Scores
from stream.units import DAY_MS

LEVEL, STEP = "churn_risk", "high"
GONE_DAYS = 100
SOON_DAYS = 30
BEST_ORDERS = 10


class Told(NamedTuple):
    """That a user crossed a limit."""

    at_ms: int
    slot: int
    level: str
    step_from: str | None
    step_to: str | None
    cause: Cause


@dataclass
class LevelsWatch:
    """Everyone's steps, from day to day.

    Attributes:
        told: every crossing.
        since_ms: when the level had limits first; 0 for not yet.
    """

    settings: Settings
    told: list[Told] = field(default_factory=list)
    since_ms: int = 0
    _levels: Levels = NO_LEVELS
    _book: LevelBook = field(default_factory=lambda: LevelBook({}))
    _rows: Rows = field(default_factory=lambda: np.zeros(0, np.dtype([layout()])))

    def look(self, vectors: Floats, features: Sequence[str], acted: Ints, at_ms: int) -> None:
        """Everyone is looked at because time has passed, or because they acted.

        Args:
            vectors: of everyone, by slot.
        """
        causes = np.full(len(vectors), CAUSES.index(Cause.TIME_PASSED), np.uint8)
        causes[acted] = CAUSES.index(Cause.USER_MOVED)
        self._look(vectors, features, causes, at_ms)

    def adopt(
        self,
        vectors: Floats,
        features: Sequence[str],
        sample: Floats,
        scores: Scores | None,
        at_ms: int,
    ) -> None:
        """Everyone is looked at under new scores.

        Args:
            sample: vectors that limits are found in.
        """
        absent = self.settings.foretold().absent
        self._levels = known_levels(
            USUAL_LEVELS, followed(self._levels, scores), sample, np.ones(len(sample)), features,
            absent, scores, at_ms, refits=True,
        )  # fmt: skip
        self._book.take_in(self._levels.known)
        if not self.since_ms and any(level.name == LEVEL for level in self._levels.known):
            self.since_ms = at_ms
        causes = np.full(len(vectors), CAUSES.index(Cause.MODEL_MOVED), np.uint8)
        self._look(vectors, features, causes, at_ms)

    def _look(
        self,
        vectors: Floats,
        features: Sequence[str],
        causes: npt.NDArray[np.uint8],
        at_ms: int,
    ) -> None:
        if not self._levels.known:
            return
        more = np.zeros(len(vectors) - len(self._rows), self._rows.dtype)
        self._rows = np.concatenate([self._rows, more])
        codes = self._rows["levels"]
        values = self._levels.values(vectors, features)
        found = crossings(self._levels, values, codes, causes, self._book)
        codes[found.index, found.place] = found.after
        for slot, one in zip(found.index.tolist(), found.told, strict=True):
            cause = CAUSES[int(causes[slot])]
            self.told.append(Told(at_ms, slot, one.level, one.step_from, one.step_to, cause))


class Early(NamedTuple):
    """Days of silence at which customers who did not order for `GONE_DAYS` were told, their median.

    Attributes:
        silences: how many there were.
        days: None where fewer than half were told at all.
    """

    silences: int
    days: float | None


class LevelsJudged(NamedTuple):
    """What was told, held against what came.

    Attributes:
        all, best: who ordered last when levels were there already; those with `BEST_ORDERS` and more.
        soon: share of those told who ordered within `SOON_DAYS`.
        a_year: crossings a customer and year, by level; the first of a user is none.
        by_models: share of these that a model brought about.
    """

    all: Early
    best: Early
    soon: float | None
    a_year: Mapping[str, float]
    by_models: float


def judged(watch: LevelsWatch, slots: Ints, times: Ints, last_ms: int) -> LevelsJudged | None:
    """Of a shop that has been played; None where there were no levels.

    Args:
        slots, times: of all orders.
    """
    if not watch.since_ms:
        return None
    orders: dict[int, list[int]] = {}
    order = np.lexsort((times, slots))
    for slot, at_ms in zip(slots[order].tolist(), times[order].tolist(), strict=True):
        orders.setdefault(slot, []).append(at_ms)
    highs: dict[int, list[tuple[int, bool]]] = {}
    for one in watch.told:
        if one.level == LEVEL:
            highs.setdefault(one.slot, []).append((one.at_ms, one.step_to == STEP))
    silences = [
        found
        for slot, mine in orders.items()
        for found in _silences(mine, highs.get(slot, []), watch.since_ms, last_ms)
    ]
    known = [
        any(at < when <= at + SOON_DAYS * DAY_MS for when in orders.get(slot, ()))
        for slot, mine in highs.items()
        for at, is_high in mine
        if is_high and at + SOON_DAYS * DAY_MS <= last_ms
    ]
    years = sum(
        max(last_ms - max(mine[0], watch.since_ms), 0) / (365 * DAY_MS) for mine in orders.values()
    )
    crossed = [
        one for one in watch.told if one.step_from is not None and one.at_ms >= watch.since_ms
    ]
    by_models = sum(one.cause is Cause.MODEL_MOVED for one in crossed)
    names = dict.fromkeys(one.level for one in crossed)
    return LevelsJudged(
        _early([days for _, days in silences]),
        _early([days for count, days in silences if count >= BEST_ORDERS]),
        float(np.mean(known)) if known else None,
        {name: sum(one.level == name for one in crossed) / max(years, 1e-9) for name in names},
        by_models / max(len(crossed), 1),
    )


def _silences(
    orders: Sequence[int], highs: Sequence[tuple[int, bool]], since_ms: int, last_ms: int
) -> list[tuple[int, float]]:
    """Orders so far, and days until told, of each long silence that began with levels; infinite for never."""
    found = []
    for number, at in enumerate(orders):
        end = orders[number + 1] if number + 1 < len(orders) else last_ms + 1
        if at < since_ms or end - at <= GONE_DAYS * DAY_MS:
            continue
        was_high = [is_high for when, is_high in highs if when <= at + DAY_MS][-1:] == [True]
        later = [when for when, is_high in highs if is_high and at < when < end]
        days = 0.0 if was_high else (later[0] - at) / DAY_MS if later else np.inf
        found.append((number + 1, days))
    return found


def _early(days: Sequence[float]) -> Early:
    middle = float(np.median(days)) if days else np.inf
    return Early(len(days), middle if np.isfinite(middle) else None)
