"""Where there are several populations, every fact that speaks of segments says of which they are."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from ops.bench.shops import of_made
from ops.bench.shops_made import MADE, Habit
from stream.insight import queries
from stream.insight.explore import read_store
from stream.insight.queries import Reader
from stream.insight.rule_facts import rules
from stream.insight.why import why
from stream.populations import DEFAULT_POPULATIONS
from stream.rehearsal import Rehearsal
from stream.store.memory import MemoryStore
from stream.store.state import Commit, Position

pytestmark = pytest.mark.slow
NAMES = tuple(one.name for one in DEFAULT_POPULATIONS)
DAYS = 150
"""Until then some have ordered and are gone."""


@lru_cache(maxsize=1)
def reader() -> Reader:
    """What is known of a shop with visitors, customers and lapsed ones."""
    buyers = next(one for one in MADE if one.name == "most gone").scaled(0.12)
    visitors = Habit(300, np.inf, stay=90, visits=6)
    shop = of_made(replace(buyers, habits=(*buyers.habits, visitors)), seed=4)
    settings = shop.settings.model_copy(
        update={"topics": shop.settings.topics.model_copy(update={"partitions": 1})}
    )
    rehearsal = Rehearsal(settings)
    at_ms = 0
    for day, mark_ms in enumerate(shop.play(rehearsal, lambda _events: None)):
        rehearsal.mark(mark_ms)
        at_ms = mark_ms
        if day == DAYS:
            break
    partition, schema = rehearsal.partition, rehearsal.table.schema
    store = MemoryStore()
    store.create(0, "owner", Position([0, 0], schema))
    position = Position([0, 0], schema, clock_ms=at_ms, kinds=partition.position.kinds)
    commit = Commit(0, position, list(partition.names), partition.rows.tobytes())
    store.commit(0, "owner", commit)
    store.lead("trainer")
    store.put_model("trainer", rehearsal.state.pack(rehearsal.table), at_ms)
    return Reader(settings, store, rehearsal.table)


def test_segments_stand_in_the_population_they_are_of() -> None:
    facts = queries.segments(queries.trainer_state(reader().store), reader().table)
    assert tuple(one["name"] for one in facts["populations"]) == NAMES
    listed = [segment for one in facts["populations"] for segment in one["segments"]]
    assert listed == [one["id"] for one in facts["segments"]]
    assert len(set(listed)) == len(listed)
    for one in facts["populations"]:
        assert one["segments"], f"nobody is learned among {one['name']}"
        of = {row["population"] for row in facts["segments"] if row["id"] in one["segments"]}
        assert of == {one["name"]}
    assert sum(one["users"] for one in facts["populations"]) == facts["users"]


def test_why_tells_by_which_rule_somebody_is_there() -> None:
    model, told = reader().model(), set()
    for number in range(0, 800, 10):
        name = f"u{number}"
        try:
            row, _, _ = reader().row_of(name)
        except queries.UnknownUserError:
            continue
        facts = why(reader(), name)
        assert facts is not None
        segment = model.by_id[int(row["segment"][0])]
        assert facts["population"]["name"] == segment.population
        declared = DEFAULT_POPULATIONS[NAMES.index(segment.population)]
        assert facts["population"]["when"] == queries.limits(declared)
        others = {model.by_id[move["segment"]].population for move in facts["moves"]}
        assert others <= {segment.population}
        told.add(segment.population)
    assert told == set(NAMES)


def test_rules_are_found_among_the_users_of_a_population() -> None:
    model = reader().model()
    at = reader()
    people = read_store(at.settings, at.table, at.store, model, lambda *_: None)
    facts = rules(people, model, at.table)
    assert [one["segment"] for one in facts["segments"]] == model.ids.tolist()
    assert [one["name"] for one in facts["populations"]] == list(NAMES)
    for one in facts["segments"]:
        assert one["population"] == model.by_id[one["segment"]].population
    assert np.mean([bool(one["rules"]) for one in facts["segments"]]) > 0.5
