"""Everybody's present segment, as records: of whom, and what they say."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from stream.clustering import FeatureMap
from stream.events import MEMBERSHIP_RECORD, Rows
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.hashing import change_identity
from stream.membership import Membership, Wanted, memberships
from stream.model import Model, Segment
from stream.units import iso
from tests.strategies import of_everyone

TABLE = FeatureTable(DEFAULT_FEATURES)
START_MS = 1_764_547_200_000
USERS = [b"ann", b"bob", "zoë".encode(), b"nobody yet", b"of old"]


def a_model() -> Model:
    """Two segments there are, one there was."""
    segments = tuple(
        Segment(number, f"name {number}", kind, 1, "1.0")
        for number, kind in ((3, "loyal"), (5, "at_risk"))
    )
    retired = (Segment(2, "name 2", "loyal", 1, "1.0"),)
    unit = np.ones(1)
    return of_everyone(
        epoch=4,
        version=2,
        at_ms=START_MS,
        schema=TABLE.schema,
        feature_map=FeatureMap(-unit, unit, 0 * unit, unit, unit),
        centroids=np.zeros((2, 1)),
        segments=segments,
        retired=retired,
    )


def rows() -> Rows:
    found = TABLE.blank(len(USERS))
    found["segment"] = [3, 5, 3, 0, 2]
    found["version"] = [1, 7, 2, 0, 4]
    found["kind"] = [1, 2, 1, 0, 1]
    found["since"] = START_MS - np.arange(5)
    found["seen"] = START_MS - 1_000 * np.arange(5)
    return found


EVERYBODY = Wanted()


def told(wanted: Wanted = EVERYBODY, **rest: Any) -> list[Membership]:
    options: dict[str, Any] = {
        "kinds": ["loyal", "at_risk"],
        "incarnation": 6,
        "key": b"key",
        "at_ms": START_MS,
        "run": "ab12",
    } | rest
    return memberships(USERS, rows(), a_model(), wanted, **options)


def test_everybody_who_is_somewhere_is_told() -> None:
    found = told()
    assert [one.user for one in found] == [b"ann", b"bob", "zoë".encode(), b"of old"]
    record = json.loads(found[1].record)
    assert MEMBERSHIP_RECORD.validate_json(found[1].record, strict=True) == record
    assert record == {
        "id": f"{change_identity(b'bob', b'key')}-6-7-ab12",
        "user": "bob",
        "version": 7,
        "segment": 5,
        "name": "name 5",
        "kind": "at_risk",
        "since": iso(START_MS - 1),
        "last_event_at": iso(START_MS - 1_000),
        "at": iso(START_MS),
        "model": "4.2",
    }
    assert json.loads(found[2].record)["user"] == "zoë"


@pytest.mark.parametrize(
    ("wanted", "users"),
    [
        (Wanted(segment=3), {b"ann", "zoë".encode()}),
        (Wanted(kind="loyal"), {b"ann", "zoë".encode(), b"of old"}),
        (Wanted(segment=3, kind="at_risk"), set()),
        (Wanted(segment=5, kind="at_risk"), {b"bob"}),
        (Wanted(kind="dormant"), set()),
    ],
)
def test_some_may_be_wanted(wanted: Wanted, users: set[bytes]) -> None:
    assert {one.user for one in told(wanted)} == users
    assert not wanted.everybody


def test_no_two_records_share_an_id() -> None:
    ids = [one.id for one in (*told(), *told(run="cd34"), *told(incarnation=7))]
    assert len(set(ids)) == len(ids) == 12
