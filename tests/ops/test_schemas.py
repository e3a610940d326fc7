"""The exported schemas are those of the code, and what the code publishes keeps to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np
import pytest
from jsonschema import Draft202012Validator

from ops.schemas import FOLDER, files
from stream.config import Settings
from stream.events import PUBLISHED_MODEL, SEGMENT_CHANGE, Cause, Counts, EventColumns
from stream.features import FeatureTable
from stream.learning.rounds import learn
from stream.learning.state import TrainerState
from stream.model import Model
from stream.partition import Partition
from stream.schemas import RECORDS, schemas
from stream.segments import PublishRule
from stream.store.state import Position
from stream.sweeps import SampleRequest
from stream.units import DAY_MS

START_MS = 1_764_547_200_000
USERS = 60


@pytest.fixture(scope="module")
def published() -> tuple[Model, list[dict[str, Any]]]:
    """A model, and the changes of users who were taken in and then fell silent under it."""
    settings = Settings.model_validate({"learning": {"segments": 3, "first_model_users": 20}})
    table = FeatureTable(settings.features)
    rule = PublishRule(0.2, 3, 0)
    partition = Partition(0, table, rule, Position([0, 0], table.schema), 0)
    slots = partition.slots([f"user-{number}" for number in range(USERS)])
    events = int(np.arange(USERS).sum()) + USERS
    slot = np.repeat(slots, np.arange(USERS) + 1)
    partition.fold(
        EventColumns(
            slot=slot,
            topic=np.ones(events, np.uint8),
            kind=np.full(events, table.codes["Order Completed"], np.uint8),
            time_ms=START_MS - (np.arange(events) * 7_919 % 90) * DAY_MS // 3,
            id=np.arange(1, events + 1).astype(np.uint64),
            value=np.linspace(10.0, 60.0, events),
            quantity=np.ones(events),
            category=np.zeros(events, np.uint64),
            order=np.zeros(events, np.uint64),
            whole=np.zeros(events, np.bool_),
            rate=np.ones(events),
            currency=np.zeros(events, np.uint32),
            recorded_ms=np.full(events, START_MS, np.int64),
        )
    )
    request = SampleRequest(settings.learning.sample_users)
    statistics = partition.sweep(START_MS, START_MS, sample=request)
    state = learn(TrainerState(), [statistics], START_MS, table, settings.learning, settings.kinds)
    assert state.model is not None
    partition.adopt(state.model, START_MS, START_MS)
    for days in (60, 61, 200, 201):
        partition.sweep(START_MS + days * DAY_MS, START_MS)
    commit = partition.commit([0, 0], Counts(), START_MS)
    changes = [msgspec.json.decode(change) for entry in commit.outbox for change in entry.changes]
    return state.model, changes


def test_the_files_are_those_of_the_types() -> None:
    for path, text in files(version("segstream")).items():
        assert path.read_text() == text, "write them anew: python -m ops.schemas"
    assert {path.name for path in FOLDER.glob("*.json")} == set(schemas())


@pytest.mark.parametrize("name", RECORDS)
def test_the_schemas_are_schemas(name: str) -> None:
    schema = _schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == RECORDS[name].uri == f"urn:segstream:schema:{name}:1"


def test_published_changes_keep_to_their_schema(
    published: tuple[Model, list[dict[str, Any]]],
) -> None:
    _, changes = published
    causes = {change["cause"] for change in changes}
    assert {Cause.MODEL_MOVED, Cause.TIME_PASSED} <= causes
    validator = Draft202012Validator(_schema("segment-change"))
    for change in changes:
        validator.validate(change)
        SEGMENT_CHANGE.validate_json(json.dumps(change), strict=True)


def test_a_published_model_keeps_to_its_schema(
    published: tuple[Model, list[dict[str, Any]]],
) -> None:
    model, _ = published
    record = model.published(FeatureTable(Settings().features))
    value = json.loads(PUBLISHED_MODEL.dump_json(record))
    Draft202012Validator(_schema("published-model")).validate(value)
    assert len(value["segments"]) == 3


def _spoil_cause(change: dict[str, Any]) -> None:
    change["cause"] = "whim"


def _spoil_to(change: dict[str, Any]) -> None:
    change["to"] = None


def _spoil_why(change: dict[str, Any]) -> None:
    change["why"] = [{"feature": "orders_30d"}]


@pytest.mark.parametrize("spoil", [_spoil_cause, _spoil_to, _spoil_why])
def test_a_spoilt_change_is_refused(
    spoil: Callable[[dict[str, Any]], None], published: tuple[Model, list[dict[str, Any]]]
) -> None:
    change = dict(published[1][0])
    spoil(change)
    assert not Draft202012Validator(_schema("segment-change")).is_valid(change)


def test_readers_may_meet_fields_they_do_not_know(
    published: tuple[Model, list[dict[str, Any]]],
) -> None:
    change = published[1][0] | {"churn_probability": 0.2}
    Draft202012Validator(_schema("segment-change")).validate(change)


def test_every_field_of_a_change_says_what_it_means() -> None:
    schema = _schema("segment-change")
    assert all(field["description"] for field in schema["properties"].values())
    # Records of before have none of these, and are valid.
    later = {"population_from", "population_to", "scores"}
    assert set(schema["required"]) == set(schema["properties"]) - later


def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return schema
