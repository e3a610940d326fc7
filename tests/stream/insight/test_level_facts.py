"""Where somebody stands is shown with what would change it: and it does, when that comes to pass."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from consumers.change_log import parse_record
from stream.cli import explaining, views
from stream.config import Settings
from stream.events import Counts
from stream.insight import level_facts, queries, why
from stream.insight.facts import SegmentsFacts, UserFacts, WhyFacts
from stream.learning.state import TrainerState
from stream.levels.steps import KnownLevel, KnownStep, Levels
from stream.store.memory import MemoryStore
from stream.store.state import Position
from stream.units import DAY_MS
from tests.strategies import START_MS
from tests.stream.insight.test_facts import fits
from tests.stream.levels.making import SCORES, TABLE, Shop, model, of_levels, order, view

SETTINGS = Settings.model_validate({"topics": {"partitions": 1}, "clock": {"mode": "watermark"}})


@pytest.fixture
def shop() -> Shop:
    """Ann has ordered, Bob has not."""
    shop = Shop()
    shop.act([order("ann", START_MS, 1), view("bob", START_MS, 2)], START_MS)
    shop.adopt(model(), START_MS)
    return shop


def reader_of(shop: Shop) -> queries.Reader:
    store, (part,) = MemoryStore(), shop.parts
    store.create(0, "owner", Position([0, 0], TABLE.schema))
    commit = part.commit([0, 0], Counts(), START_MS)
    assert store.commit(0, "owner", commit)
    part.committed(commit)
    shop.records += [json.loads(one) for entry in commit.outbox for one in entry.changes]
    users = {"churn_risk": {"low": 1}, "purchase_stage": {"first_time": 1, "prospect": 1}}
    state = TrainerState(model=model(), round_ms=START_MS, users=2, on_steps=users)
    store.lead("trainer")
    assert store.put_model("trainer", state.pack(TABLE), START_MS)
    return queries.Reader(SETTINGS, store, TABLE)


def shown(show: Any, *arguments: Any) -> str:
    out = io.StringIO()
    show(Console(file=out, width=160), *arguments)
    return out.getvalue()


def test_a_user_is_shown_on_the_steps_they_were_told(shop: Shop) -> None:
    reader = reader_of(shop)
    ann, bob = (reader.user(name, lambda _: []) for name in ("ann", "bob"))
    assert fits(ann, UserFacts)
    assert {one["level"]: one["step"] for one in ann["levels"]} == {
        "churn_risk": "low",
        "purchase_stage": "first_time",
    }
    # Bob was told nothing: he stands where all begin, and has no risk.
    assert {one["level"]: one["step"] for one in bob["levels"]} == {
        "churn_risk": None,
        "purchase_stage": "prospect",
    }
    assert ann["levels"][1]["looks_at"] == {"orders_total": 1.0}
    assert bob["levels"][0]["looks_at"] == {"likely_back": None}
    text = shown(views.show_user, bob, TABLE)
    assert "churn_risk: none" in text
    assert "purchase_stage: prospect (orders_total 0" in text


def test_silence_does_what_was_said_of_it(shop: Shop) -> None:
    told = why.why(reader_of(shop), "ann")
    assert told is not None
    assert fits(told, WhyFacts)
    risk, stage = told["levels"]
    assert [turn["step"] for turn in risk["silence"]] == ["medium", "high"]
    assert stage["silence"] == []
    for turn in risk["silence"]:
        for days, steps in ((turn["days"] - 1, []), (turn["days"], [turn["step"]])):
            at_ms = START_MS + days * DAY_MS
            shop.sweep(at_ms)
            assert [one["step_to"] for one in of_levels(shop.commit(at_ms))] == steps
    text = shown(explaining.show_why, told, TABLE)
    assert f"in {risk['silence'][0]['days']} days of silence: medium" in text
    assert "silence leaves them there" in text


def test_an_act_does_what_was_said_of_it(shop: Shop) -> None:
    told = why.why(reader_of(shop), "ann")
    assert told is not None
    (act,) = (one for one in told["levels"][1]["acts"] if one["event"] == "Order Completed")
    assert (act["times"], act["step"]) == (2, "loyal")
    shop.commit(START_MS)
    for number, steps in ((3, []), (4, ["loyal"])):
        shop.act([order("ann", START_MS, number)], START_MS)
        found = [one for one in of_levels(shop.commit(START_MS)) if one["level"] != "churn_risk"]
        assert [one["step_to"] for one in found] == steps
    assert "2 x Order Completed" in shown(explaining.show_why, told, TABLE)


def test_segments_tell_every_step_with_its_limit_and_users(shop: Shop) -> None:
    found = queries.segments(queries.trainer_state(reader_of(shop).store), TABLE)
    assert fits(found, SegmentsFacts)
    levels = [
        (one["step"], [limit["of"] for limit in one["limits"]], one["users"])
        for one in found["levels"]
    ]
    assert levels[:3] == [
        ("low", ["likely_back"], 1),
        ("medium", ["likely_back"], 0),
        ("high", [], 0),
    ]
    text = shown(views.show_segments, found, TABLE)
    assert "purchase_stage: loyal 0 (from orders_total 3 on), first_time 1" in text


def test_a_step_with_two_limits_is_told_once() -> None:
    steps = (
        KnownStep("much", "orders_total", 3.0),
        KnownStep("much", "revenue_total", 200.0),
        KnownStep("little"),
    )
    levels = Levels.of(
        (KnownLevel("standing", steps, 0.0, "little", "declared", START_MS),), SCORES
    )
    (much, little) = level_facts.declared(model(levels=levels), {"standing": {"much": 7}})
    assert much["limits"] == [
        {"of": "orders_total", "least": 3.0}, {"of": "revenue_total", "least": 200.0},
    ]  # fmt: skip
    assert (much["users"], little["users"], little["limits"]) == (7, 0, [])
    assert views.step_line(much) == "much 7 (from orders_total 3 or revenue_total 200 on)"
    assert views.step_line(little) == "little 0"


def test_a_crossing_is_read_when_asked_for_and_told_in_a_line(shop: Shop) -> None:
    reader_of(shop)
    one = of_levels(shop.records)[0]
    value = json.dumps(one).encode()
    assert parse_record(value) is None
    record = parse_record(value, levels=True)
    assert record == one
    assert "ann  churn_risk none -> low  model moved" in views.record_line(one).plain
