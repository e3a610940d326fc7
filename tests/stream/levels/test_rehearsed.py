"""A trainer finds limits, an owner tells crossings by them: as they do in a pipeline."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stream.config import Settings
from stream.events import LEVEL_CHANGE, SEGMENT_CHANGE, EventColumns
from stream.learning.state import TrainerState
from stream.model import Model
from stream.oracle import Event
from stream.partition import Partition
from stream.rehearsal import Marked, Rehearsal
from stream.units import DAY_MS
from tests.strategies import START_MS, columns
from tests.stream.levels.making import order, view

STAGE: dict[str, Any] = {
    "name": "stage",
    "of": "orders_total",
    "slack": 0,
    "steps": [{"name": "customer", "least": 1}, {"name": "prospect"}],
}
TIER: dict[str, Any] = {
    "name": "tier",
    "of": "revenue_total",
    "steps": [{"name": "high", "least_quantile": 0.9}, {"name": "regular"}],
}


def settings(*levels: dict[str, Any]) -> Settings:
    return Settings.model_validate(
        {
            "levels": levels,
            "clock": {"mode": "watermark", "mark_seconds": 86_400},
            "learning": {"first_model_users": 20, "segments": 3},
        }
    )


def days(length: int) -> list[list[Event]]:
    """Three hundred users: half of them order on the second day, for 1, 2, 3 and so on; all look each day."""
    found = []
    for day in range(length):
        at_ms = START_MS + day * DAY_MS
        here = [view(f"user {n}", at_ms + n, 1_000 * day + n) for n in range(300)]
        if day == 1:
            here += [order(f"user {n}", at_ms + n, 500_000 + n, float(n + 1)) for n in range(150)]
        found.append(here)
    return found


def play(rehearsal: Rehearsal, history: list[list[Event]]) -> list[Marked]:
    marked = []
    for day, events in enumerate(history):

        def read(partition: Partition, some: list[Event] = events) -> EventColumns:
            users = [one.user for one in some]
            slots = dict(zip(users, partition.slots(users).tolist(), strict=True))
            return columns(rehearsal.table, slots, some)

        rehearsal.fold([read])
        marked.append(rehearsal.mark(START_MS + (day + 1) * DAY_MS))
    return marked


@pytest.fixture(scope="module")
def marked() -> list[Marked]:
    return play(Rehearsal(settings(STAGE, TIER)), days(4))


def model_of(state: TrainerState) -> Model:
    assert state.model is not None
    return state.model


def test_limits_come_from_the_sample_and_crossings_follow(marked: list[Marked]) -> None:
    model = model_of(marked[-1].state)
    stage, tier = model.levels.known
    assert (stage.rest, tier.rest) == ("prospect", "regular")
    assert tier.steps[0].least == pytest.approx(135.0, abs=1.0)
    told = [(one["level"], one["step_to"]) for mark in marked for one in mark.crossings]
    assert told.count(("stage", "customer")) == 150
    # All begin below: they have to spend a tenth more than the limit, which two of 150 did.
    assert told.count(("tier", "high")) == 2
    for mark in marked:
        assert all(SEGMENT_CHANGE.validate_python(one) for one in mark.changes)
        assert all(LEVEL_CHANGE.validate_python(one) for one in mark.crossings)


def test_the_trainer_knows_how_many_are_on_each_step(marked: list[Marked]) -> None:
    assert marked[-1].state.on_steps["stage"] == {"customer": 150, "prospect": 150}


def test_a_model_is_stored_and_published_with_its_levels(marked: list[Marked]) -> None:
    table, state = settings(STAGE, TIER).table(), marked[-1].state
    model = model_of(state)
    again = TrainerState.unpack(state.pack(table))
    assert model_of(again).levels == model.levels
    assert again.on_steps == state.on_steps
    told = json.loads(json.dumps(model.published(table)))
    assert Model.from_published(told).levels == model.levels
    assert (
        "levels"
        not in replace(model, levels=type(model.levels)((), None)).published(table)["geometry"]
    )


def test_segments_are_what_they_are_without_levels(marked: list[Marked]) -> None:
    def plain(all_of_them: list[Marked]) -> list[Any]:
        return [
            sorted((one["user"], one["from"], one["to"], one["why"]) for one in mark.changes)
            for mark in all_of_them
        ]

    without = play(Rehearsal(settings()), days(4))
    assert plain(without) == plain(marked)
    assert not any(mark.crossings for mark in without)
    assert model_of(without[-1].state).levels.known == ()
    one, other = (model_of(all_of_them[-1].state) for all_of_them in (marked, without))
    assert np.array_equal(one.centroids, other.centroids)
