"""Members of segments: everybody who is one, once, as rows and records have them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stream.config import Settings
from stream.events import Rows
from stream.features import FeatureTable
from stream.insight.members import (
    CSV_HEAD,
    Member,
    WantedMembers,
    as_csv,
    as_jsonl,
    members,
    once,
)
from stream.partition import SchemaMismatchError
from stream.store.memory import MemoryStore
from stream.store.state import Commit, Position
from stream.units import DAY_MS, iso
from tests.strategies import START_MS, with_only
from tests.stream.test_membership import a_model

SETTINGS = Settings.model_validate({"topics": {"partitions": 3}})
TABLE = FeatureTable(SETTINGS.features)
KINDS = (["loyal", "at_risk"], ["at_risk", "loyal"])


def rows_of(users: int, loyal: int) -> Rows:
    rows = TABLE.blank(users)
    place = np.arange(users)
    rows["segment"] = np.where(place % 4 == 3, 0, np.where(place % 2, 5, 3))
    rows["kind"] = np.where(place % 4 == 3, 0, np.where(place % 2, 3 - loyal, loyal))
    rows["since"] = START_MS + place * DAY_MS
    rows["kind_since"] = START_MS + 2 * place * DAY_MS
    rows["seen"] = START_MS + 3 * place * DAY_MS
    return rows


@pytest.fixture
def store() -> MemoryStore:
    """Users in two of three partitions, which have other codes for kinds."""
    store = MemoryStore()
    for number, kinds in zip((0, 2), KINDS, strict=True):
        store.create(number, "o", Position([1, 1], TABLE.schema))
        position = Position([1, 1], TABLE.schema, kinds=kinds)
        users = [b"%d of %d" % (user, number) for user in range(10)]
        rows = rows_of(10, 1 + kinds.index("loyal"))
        store.commit(number, "o", Commit(0, position, users, rows.tobytes()))
    return store


def found(store: MemoryStore, **wanted: Any) -> list[Member]:
    portions = members(SETTINGS, TABLE, store, a_model(), WantedMembers(**wanted), START_MS)
    return [one for portion in once(portions) for one in portion]


def test_everybody_who_is_in_a_segment_is_listed_once(store: MemoryStore) -> None:
    everyone = found(store)
    assert sorted(one.user for one in everyone) == sorted(
        f"{user} of {number}" for number in (0, 2) for user in range(10) if user % 4 != 3
    )
    [one] = [one for one in everyone if one.user == "5 of 2"]
    assert one == Member(
        user="5 of 2", segment=5, name="name 5", kind="at_risk", since=iso(START_MS + 5 * DAY_MS),
        kind_since=iso(START_MS + 10 * DAY_MS), last_seen=iso(START_MS + 15 * DAY_MS), value=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ({"segments": [3]}, {0, 2, 4, 6, 8}),
        ({"segments": [5]}, {1, 5, 9}),
        ({"segments": [3, 5], "kind": "at_risk"}, {1, 5, 9}),
        ({"kind": "loyal"}, {0, 2, 4, 6, 8}),
        ({"kind": "dormant"}, set()),
        ({"segments": [77]}, set()),
        # To the segment since then; told the kind since then.
        ({"since_ms": START_MS + 6 * DAY_MS}, {6, 8, 9}),
        ({"since_ms": START_MS + 6 * DAY_MS, "kind": "at_risk"}, {5, 9}),
    ],
)
def test_some_are_wanted(store: MemoryStore, wanted: dict[str, Any], places: set[int]) -> None:
    listed = {one.user for one in found(store, **wanted)}
    assert listed == {f"{place} of {number}" for place in places for number in (0, 2)}


def test_only_who_is_in_a_segment_of_a_population_is_wanted() -> None:
    model, rows = a_model(), rows_of(10, 1)
    segments = [
        replace(one, population="visitors" if one.id == 5 else one.population)
        for one in model.segments
    ]
    model = with_only(model, segments=tuple(segments))
    among = WantedMembers(population="visitors").among(rows, model, KINDS[0])
    assert np.flatnonzero(among).tolist() == [1, 5, 9]
    neither = WantedMembers([3], population="visitors").among(rows, model, KINDS[0])
    assert not neither.any()


def test_who_a_scan_gives_twice_is_listed_once(store: MemoryStore) -> None:
    class Growing(MemoryStore):
        def load(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
            yield from store.load(partition)
            yield from store.load(partition)

        def position(self, partition: int) -> Position | None:
            return store.position(partition)

    assert len(found(Growing())) == len(found(store)) == 16


def test_a_table_and_lines_say_the_same(store: MemoryStore) -> None:
    odd = replace_user(found(store)[0], 'a "name", with\nmore')
    some = [odd, *found(store)[1:]]
    table = list(csv.DictReader(io.StringIO(CSV_HEAD + as_csv(some))))
    lines = [json.loads(line) for line in as_jsonl(some).splitlines()]
    assert [{name: str(value) for name, value in line.items()} for line in lines] == table
    assert lines[0]["user"] == 'a "name", with\nmore'


def replace_user(member: Member, user: str) -> Member:
    values = {name: getattr(member, name) for name in Member.__struct_fields__}
    return Member(**(values | {"user": user}))


def test_rows_of_another_table_are_refused(store: MemoryStore) -> None:
    features = SETTINGS.features[:3]
    other = FeatureTable(features)
    with pytest.raises(SchemaMismatchError, match="but the settings declare"):
        list(members(SETTINGS, other, store, replace(a_model()), WantedMembers(), START_MS))
