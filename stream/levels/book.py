"""Keeps in rows which step of each level a user was told last, as one byte a level.

Comes in: levels of models, one after the other. Goes out: the byte of a row that has each level, and codes of the
steps; both are kept with the partition's position. A step keeps its code whatever becomes of the declaration, so
what a user was told last keeps its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.events import Ints
from stream.levels.declare import MOST_LEVELS
from stream.levels.steps import NOWHERE, KnownLevel, Places
from stream.rows import Layout

Codes = npt.NDArray[np.uint8]
MOST_CODES = 255
FIELD = "levels"
"""Of a row: a code for each place of the book; 0 for who was told nothing."""


def layout() -> Layout:
    """What rows keep where levels are declared."""
    return FIELD, "u1", (MOST_LEVELS,)


def none_told() -> Ints:
    """Of nobody, see `count_codes`."""
    return np.zeros((MOST_LEVELS, MOST_CODES + 1), np.int64)


def count_codes(codes: Codes, places: int, into: Ints) -> None:
    """Count the users who have each code in each of the first places.

    Args:
        codes: ``(n, places)`` as rows have them.
        into: ``(places, codes)`` see `none_told`.
    """
    near = codes[:, :places].T.copy()
    for place in range(places):
        into[place] += np.bincount(near[place], minlength=MOST_CODES + 1)


class Told(NamedTuple):
    """What a row has of a step, and where."""

    place: int
    code: int


class LevelBook:
    """Places of levels, and codes of their steps, as a partition's rows have them.

    Args:
        steps: of each level, the names of the codes 1, 2, ..; as the partition's position has them. Levels stand in
            the order of their places.
    """

    def __init__(self, steps: Mapping[str, Sequence[str]]) -> None:
        self.steps = {name: list(names) for name, names in steps.items()}

    def place(self, level: str) -> int:
        """Which byte of a row has the level.

        Raises:
            ValueError: it has none.
        """
        return list(self.steps).index(level)

    def take_in(self, levels: Sequence[KnownLevel]) -> list[int]:
        """Give a place to each level that has none, and a code to each step.

        Returns:
            Places that another level had before: what rows have there is to be cleared.
        """
        cleared = []
        names = {level.name for level in levels}
        for level in levels:
            if level.name not in self.steps:
                if len(self.steps) == MOST_LEVELS:
                    gone = next(name for name in self.steps if name not in names)
                    cleared.append(self.place(gone))
                    self.steps = {
                        (level.name if name == gone else name): ([] if name == gone else steps)
                        for name, steps in self.steps.items()
                    }
                else:
                    self.steps[level.name] = []
            known = self.steps[level.name]
            known += [name for name in dict.fromkeys(level.names) if name not in known]
            if len(known) > MOST_CODES:
                raise ValueError(
                    f"levels: {level.name!r} has had {len(known)} steps; give it a new name"
                )
        return cleared

    def places_of(self, level: KnownLevel) -> Places:
        """By code, the place of the step in the level as it is now; `NOWHERE` for one there is no more."""
        found = np.full(MOST_CODES + 1, NOWHERE, np.int8)
        found[0] = level.resting
        for code, name in enumerate(self.steps[level.name], 1):
            if name in level.names:
                found[code] = level.names.index(name)
        return found

    def codes_of(self, level: KnownLevel) -> Codes:
        """Code of each step of a level by its place; the last entry, for `NOWHERE`, is 0."""
        known = self.steps[level.name]
        return np.array([*(known.index(name) + 1 for name in level.names), 0], np.uint8)

    def users(self, levels: Sequence[KnownLevel], counts: Ints) -> dict[str, dict[str, int]]:
        """Of each level, how many users are on each step; who is on none is left out.

        Args:
            counts: see `count_codes`.
        """
        found = {}
        for level in levels:
            here = counts[self.place(level.name)]
            users = dict(zip(self.steps[level.name], here[1:].tolist(), strict=False))
            if level.rest:
                users[level.rest] += int(here[0])
            found[level.name] = {name: users[name] for name in level.names}
        return found

    def name_of(self, level: KnownLevel, code: int) -> str | None:
        """The step that somebody was told; where all begin, if they were told none."""
        return self.steps[level.name][code - 1] if code else level.rest or None

    def code(self, level: str, step: str | None) -> Told | None:
        """What a row has of a step that was told, which is taken in; None where there is no place."""
        if level not in self.steps and len(self.steps) == MOST_LEVELS:
            return None
        known = self.steps.setdefault(level, [])
        if step is not None and step not in known:
            known.append(step)
        return Told(self.place(level), 0 if step is None else known.index(step) + 1)
