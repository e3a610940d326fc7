"""Where users stand by levels: on which step, when silence will take them to another, and what an act would do.

Comes in: a model with levels, a user's row, and what its partition knows of codes. Goes out: facts. Nothing is
decided here: what is said of time and acts is said by looking ahead as owners look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stream.events import Floats, Rows
from stream.features import FeatureTable
from stream.insight.ahead import Acted, Silence
from stream.insight.facts import LevelAct, LevelFacts, LevelStep, LevelTurn, LevelWhy
from stream.levels.book import FIELD, LevelBook
from stream.levels.steps import NOWHERE, KnownLevel
from stream.model import Model
from stream.units import iso


def on_steps(
    model: Model, row: Rows, kept: Mapping[str, Sequence[str]], vector: Floats, table: FeatureTable
) -> list[LevelFacts]:
    """The step of each level that a user was told last, with what its steps look at as of now.

    Args:
        row: ``(1,)`` the user.
        kept: names of the codes of rows, by level in the order of their places.
        vector: ``(features,)`` in natural units.
    """
    values = model.levels.values(vector[None, :], table.names)
    found: list[LevelFacts] = []
    for level in model.levels.known:
        looked_at = {name: float(values[name][0]) for name in (*level.inputs, *level.asked)}
        found.append(
            {
                "level": level.name,
                "step": _told(level, row, kept),
                "looks_at": {
                    name: None if np.isnan(value) else value for name, value in looked_at.items()
                },
            }
        )
    return found


def _told(level: KnownLevel, row: Rows, kept: Mapping[str, Sequence[str]]) -> str | None:
    book = LevelBook(kept)
    code = int(row[FIELD][0, book.place(level.name)]) if level.name in kept else 0
    return book.name_of(level, code) if code else level.rest or None


def declared(model: Model, users: Mapping[str, Mapping[str, int]]) -> list[LevelStep]:
    """Every step of every level, with its limits in this shop and the users on it."""
    return [
        {
            "level": level.name,
            "step": name,
            "limits": [
                {"of": step.of, "least": step.least}
                for step in level.steps
                if step.name == name and step.of
            ],
            "users": users.get(level.name, {}).get(name, 0),
        }
        for level in model.levels.known
        for name in dict.fromkeys(step.name for step in level.steps)
    ]


def why(
    model: Model,
    row: Rows,
    kept: Mapping[str, Sequence[str]],
    table: FeatureTable,
    silence: Silence,
    acted: Acted,
) -> list[LevelWhy]:
    """Where silence takes a user, step by step, and the fewest acts of each kind that take them elsewhere.

    Args:
        row: ``(1,)`` the user; it stays as it is.
    """
    if not model.levels.known:
        return []
    in_time = model.levels.values(silence.vectors, table.names)
    by_act = model.levels.values(table.vectors(acted.rows, acted.now_ms), table.names)
    facts = on_steps(model, row, kept, silence.vectors[0], table)
    found: list[LevelWhy] = []
    for level, one in zip(model.levels.known, facts, strict=True):
        here = level.names.index(one["step"]) if one["step"] in level.names else NOWHERE
        found.append(
            {
                **one,
                "silence": _in_time(level, in_time, here, silence.times_ms),
                "acts": _by_act(level, by_act, here, acted),
            }
        )
    return found


def _in_time(
    level: KnownLevel, values: Mapping[str, Floats], here: int, times: Sequence[int]
) -> list[LevelTurn]:
    """The coming steps of a user who does nothing any more, a look a day; day 0 is the next look."""
    nobody = np.zeros(1, np.bool_)
    turns: list[LevelTurn] = []
    for day, at_ms in enumerate(times):
        one = {name: column[day : day + 1] for name, column in values.items()}
        now = int(level.now(one, np.array([here], np.int8), nobody, nobody)[0])
        if now != here:
            step = level.names[now] if now != NOWHERE else None
            turns.append({"days": day, "at": iso(at_ms), "step": step})
            here = now
    return turns


def _by_act(
    level: KnownLevel, values: Mapping[str, Floats], here: int, acted: Acted
) -> list[LevelAct]:
    count = len(acted.rows)
    everyone, nobody = np.ones(count, np.bool_), np.zeros(count, np.bool_)
    now = level.now(values, np.full(count, here, np.int8), everyone, nobody)
    first: dict[int, LevelAct] = {}
    for place in np.flatnonzero(now != here).tolist():
        kind = int(acted.kind[place])
        if kind not in first:
            step = level.names[now[place]] if now[place] != NOWHERE else None
            first[kind] = {**acted.told(place), "step": step}
    return sorted(first.values(), key=lambda act: act["times"])
