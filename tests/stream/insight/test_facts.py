"""Facts are what their types say: every key, and nothing beside."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from pydantic import TypeAdapter

from stream.config import Settings
from stream.insight import plan, queries, rule_facts, why
from stream.insight.applying import facts_of as applied
from stream.insight.explore import People, facts_of, read_store, study
from stream.insight.explore import Wish as Asked
from stream.insight.facts import (
    AppliedFacts,
    Evidence,
    PlanFacts,
    RulesFacts,
    SegmentsFacts,
    StudyFacts,
    UserFacts,
    WhyFacts,
)
from stream.learning.state import TrainerState
from stream.store.memory import MemoryStore
from stream.store.state import Commit, Position
from stream.tuning import Tuning
from tests.stream.test_partition import TABLE, history, models, steady

NOW_MS = history()[-1].now_ms
SETTINGS = Settings.model_validate({"topics": {"partitions": 1}, "clock": {"mode": "watermark"}})
STATE = TrainerState(model=models()[-1], round_ms=NOW_MS, users=len(steady().rows))


def fits(facts: Any, kind: Any) -> bool:
    """Whether facts, as JSON, have each key of a type with a value of its type, and no other."""
    there = msgspec.json.decode(msgspec.json.encode(facts))
    read: Any = TypeAdapter(kind).validate_python(there, strict=True)
    return bool(read == there)


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    store = MemoryStore()
    store.create(0, "owner", Position([0, 0], TABLE.schema))
    kinds = steady().partition.position.kinds
    position = Position([1, 1], TABLE.schema, clock_ms=NOW_MS, model=models()[-1].name, kinds=kinds)
    rows = steady().rows
    store.commit(0, "owner", Commit(0, position, list(rows), b"".join(rows.values())))
    store.lead("trainer")
    assert store.put_model("trainer", STATE.pack(TABLE), NOW_MS)
    return store


@pytest.fixture(scope="module")
def people(store: MemoryStore) -> People:
    return read_store(SETTINGS, TABLE, store, models()[-1])


def test_a_fact_more_or_less_or_of_another_type_is_found() -> None:
    good = {"segment": 1, "z": 0.5}
    assert fits(good, Evidence)
    assert not fits(good | {"more": 1}, Evidence)
    for bad in ({"segment": 1}, good | {"segment": "1"}):
        with pytest.raises(ValueError, match=r"segment"):
            fits(bad, Evidence)


def test_segments(store: MemoryStore, people: People) -> None:
    found = queries.segments(queries.trainer_state(store), TABLE)
    assert fits(found, SegmentsFacts)
    rules = rule_facts.rules(people, models()[-1], TABLE)
    assert fits(rules, RulesFacts)
    found["rules"] = rules
    assert fits(found, SegmentsFacts)


def test_users(store: MemoryStore) -> None:
    reader = queries.Reader(SETTINGS, store, TABLE)
    records = steady().records()
    for number in (1, 2, 7):
        found = reader.user(f"user {number}", lambda _: iter(records))
        found["why"] = why.why(reader, f"user {number}")
        assert found["why"] is not None
        assert fits(found["why"], WhyFacts)
        assert fits(found, UserFacts)
        assert found["changes"]


def test_how_many_segments(people: People) -> None:
    found = study(SETTINGS, TABLE, people, Asked(k_max=3, bootstraps=2), models()[-1])
    assert fits(facts_of(found, {"report": "there"}), StudyFacts)


def test_a_plan(store: MemoryStore) -> None:
    crowd = plan.live_crowd(SETTINGS, TABLE, store)
    found = plan.facts_of(plan.plan(crowd, TABLE, SETTINGS.publish.rule(), SETTINGS))
    assert fits(found, PlanFacts)
    tuning = Tuning.of(SETTINGS)
    for model in (None, models()[-1]):
        assert fits(applied(found, tuning, model), AppliedFacts)


def test_who_passes_is_counted_once_on_each_side() -> None:
    flows = [{"from": 1, "to": 1, "users": 5}, {"from": 1, "to": 2, "users": 3},
             {"from": 2, "to": 1, "users": 2}, {"from": 4, "to": 2, "users": 1}]  # fmt: skip
    facts: Any = {"matrix": flows}
    assert [plan.passing(facts, segment) for segment in (1, 2, 3, 4)] == [
        (2, 3), (4, 2), (0, 0), (0, 1),
    ]  # fmt: skip


def test_what_marks_a_segment_is_farthest_from_the_average(store: MemoryStore) -> None:
    for segment in queries.segments(queries.trainer_state(store), TABLE)["segments"]:
        weights = dict(zip(TABLE.names, np.sqrt(TABLE.weights).tolist(), strict=True))
        strengths = [abs(one["z"]) * weights[one["feature"]] for one in segment["profile"]]
        marks = queries.marks_of(segment["profile"], TABLE)
        found = [abs(one["z"]) * weights[one["feature"]] for one in marks]
        assert found == sorted(strengths, reverse=True)[:4]
        assert segment["marks"] == [one["feature"] for one in marks]
