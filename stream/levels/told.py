"""Finds who has crossed a limit of a level, and says why.

Comes in: levels of a model, what they look at, and the step each user was told last. Goes out: crossings, a column
a field, those of a user in the order of the levels; and the reasons of each. `partition` writes the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.events import CAUSES, Cause, Floats, Ints
from stream.levels.book import Codes, LevelBook
from stream.levels.steps import KnownLevel, Levels, Places, Values
from stream.records import Why
from stream.scores.unusual import Usual

REASONS = 3
ACT, MODEL = CAUSES.index(Cause.USER_MOVED), CAUSES.index(Cause.MODEL_MOVED)
Reasons = tuple[list[Why], float | None]


class Crossing(NamedTuple):
    """What a record tells of a crossing; see `events.LevelChange`.

    Attributes:
        rises: whether a limit was reached, not lost.
    """

    level: str
    step_from: str | None
    step_to: str | None
    of: str
    value: float | None
    limit: float
    rises: bool


@dataclass(frozen=True)
class Crossings:
    """Crossings of users looked at.

    Attributes:
        index: place of each user in the rows looked at, ascending.
        place: which byte of the row is told.
        after: the code it is told.
        turn: how many crossings of the same user come before.
        told: the same in words.
    """

    index: Ints
    place: Ints
    after: Codes
    turn: npt.NDArray[np.uint32]
    told: tuple[Crossing, ...]

    def __len__(self) -> int:
        return len(self.index)

    def of(self, users: Ints) -> Crossings:
        """The same, with users by their places among others."""
        return replace(self, index=users[self.index])


NONE = Crossings(
    np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.uint32), ()
)


def crossings(
    levels: Levels,
    values: Values,
    codes: Codes,
    causes: npt.NDArray[np.uint8],
    book: LevelBook,
) -> Crossings:
    """Who is on another step than they were told.

    Args:
        values: see `Levels.values`.
        codes: ``(n, places)`` as rows have them.
        causes: ``(n,)`` codes in `CAUSES`: what made us look at each.
        book: which has a place for each of the levels.
    """
    acted, models = causes == ACT, causes == MODEL
    index, places, after, words = [], [], [], list[Crossing]()
    for level in levels.known:
        place = book.place(level.name)
        told = codes[:, place]
        before = book.places_of(level)[told]
        now = level.now(values, before, acted, models)
        due = np.flatnonzero(now != before)
        if len(due) == 0:
            continue
        index.append(due)
        places.append(np.full(len(due), place))
        after.append(book.codes_of(level)[now[due]])
        was = [book.name_of(level, code) for code in told[due].tolist()]
        words += _in_words(level, values, due, was, before[due], now[due])
    if not index:
        return NONE
    users = np.concatenate(index)
    order = np.argsort(users, kind="stable")
    users = users[order]
    turn = np.arange(len(users)) - np.searchsorted(users, users)
    return Crossings(
        users, np.concatenate(places)[order], np.concatenate(after)[order], turn.astype(np.uint32),
        tuple(words[number] for number in order.tolist()),
    )  # fmt: skip


def _in_words(
    level: KnownLevel,
    values: Values,
    due: Ints,
    was: Sequence[str | None],
    before: Places,
    now: Places,
) -> list[Crossing]:
    theirs = {name: values[name][due] for name in (*level.inputs, *level.asked)}
    found = []
    for place, (step_from, b, by) in enumerate(
        zip(was, now.tolist(), level.decided(before, now, theirs), strict=True)
    ):
        value = float(theirs[by.of][place])
        found.append(
            Crossing(
                level.name,
                step_from,
                level.names[b] if b >= 0 else None,
                by.of,
                None if np.isnan(value) else value,
                by.limit,
                rises=value >= by.limit,
            )
        )
    return found


def reasons(
    levels: Levels, found: Crossings, vectors: Floats, features: Sequence[str]
) -> list[Reasons]:
    """What carries the value of each crossing in its direction, and what all else comes to.

    Args:
        vectors: ``(crossings, features)`` of their users, in natural units.
    """
    answer: list[Reasons] = [([], None)] * len(found)
    by: dict[str, list[int]] = {}
    for number, told in enumerate(found.told):
        if told.value is not None:
            by.setdefault(told.of, []).append(number)
    for name, numbers in by.items():
        theirs = vectors[numbers]
        if name in features:
            column = features.index(name)
            for number, value in zip(numbers, theirs[:, column].tolist(), strict=True):
                answer[number] = [Why(name, value, None)], None
        elif levels.scores is not None:
            people = levels.scores.people_of(name)
            if people is not None:
                for number, one in zip(numbers, _of_unusual(people, theirs, features), strict=True):
                    answer[number] = one
                continue
            rises = np.array([found.told[number].rises for number in numbers])
            each = _of_score(levels, name, theirs, features, np.where(rises, 1.0, -1.0))
            for number, one in zip(numbers, each, strict=True):
                answer[number] = one
    return answer


def _of_unusual(people: Usual, vectors: Floats, features: Sequence[str]) -> list[Reasons]:
    """Of each user the features in which they are farthest from people like them."""
    by_name = np.argsort(people.inputs)
    parts = people.carried(vectors, features)[:, by_name]
    top = by_name[np.argsort(-parts, axis=1, kind="stable")[:, :REASONS]]
    columns = np.array([features.index(one) for one in people.inputs])
    values = np.take_along_axis(vectors, columns[top], axis=1)
    return [
        ([Why(people.inputs[place], value, None) for place, value in zip(*one, strict=True)], None)
        for one in zip(top.tolist(), values.tolist(), strict=True)
    ]


def _of_score(
    levels: Levels, name: str, vectors: Floats, features: Sequence[str], signs: Floats
) -> list[Reasons]:
    """Of customers, by a score that is looked at."""
    scores = levels.scores
    assert scores is not None
    parts, base = scores.carried(name, vectors, features)
    top = np.argsort(-signs[:, None] * parts, axis=1, kind="stable")[:, :REASONS]
    largest = np.take_along_axis(parts, top, axis=1)
    counts = signs[:, None] * largest > 0
    columns = np.array([features.index(one) for one in scores.inputs])
    rest = base + parts.sum(axis=1) - np.where(counts, largest, 0.0).sum(axis=1)
    return [
        (
            [
                Why(scores.inputs[place], value, part)
                for place, value, part, told in zip(*one, strict=True)
                if told
            ],
            others,
        )
        for *one, others in zip(
            top.tolist(),
            np.take_along_axis(vectors, columns[top], axis=1).tolist(),
            largest.tolist(),
            counts.tolist(),
            rest.tolist(),
            strict=True,
        )
    ]
