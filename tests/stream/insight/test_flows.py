"""Flows between kinds are counted by the hour, and forgotten after a week."""

from __future__ import annotations

from typing import Any

from stream.insight.facts import FlowsFacts
from stream.insight.flows import HOURS, Flows
from stream.units import HOUR_MS
from tests.stream.insight.test_facts import fits

NOW_MS = 500 * 24 * HOUR_MS


def move(kind_from: str | None, kind_to: str, **more: Any) -> dict[str, Any]:
    return {"kind_from": kind_from, "kind_to": kind_to, "cause": "user_moved"} | more


def test_what_lies_within_a_time_is_counted_by_kinds_and_segments() -> None:
    flows = Flows()
    flows.take(move("at_risk", "loyal", **{"from": 1, "to": 2}), NOW_MS - 1)
    flows.take(move("loyal", "at_risk", cause="time_passed", **{"from": 2, "to": 1}), NOW_MS - 1)
    flows.take(move("loyal", "at_risk", **{"from": 2, "to": 1}), NOW_MS - 20 * HOUR_MS)
    flows.take(move("loyal", "loyal", **{"from": 2, "to": 3}), NOW_MS - 1)
    flows.take(move(None, "new", **{"from": None, "to": 1}), NOW_MS - 3 * 24 * HOUR_MS)
    hour, day, week = (flows.facts(within, NOW_MS) for within in ("1h", "1d", "7d"))
    assert fits(week, FlowsFacts)
    assert [one["changes"] for one in hour["flows"]] == [1, 1]
    assert day["flows"][0] == {
        "kind_from": "loyal",
        "kind_to": "at_risk",
        "changes": 2,
        "by_cause": {"time_passed": 1, "user_moved": 1},
    }
    assert (hour["changes"], day["changes"], week["changes"]) == (2, 3, 4)
    assert (hour["came_back"], week["came_back"]) == (1, 1)
    assert week["segments"] == [
        {"segment": 1, "came": 3, "left": 1, "came_back": 0},
        {"segment": 2, "came": 1, "left": 3, "came_back": 1},
        {"segment": 3, "came": 1, "left": 0, "came_back": 0},
    ]


def test_what_is_older_than_is_remembered_is_forgotten_and_told() -> None:
    flows = Flows()
    assert flows.facts("7d", NOW_MS)["known_since"] is None
    for hour in range(3 * HOURS):
        flows.take(move("new", "loyal"), NOW_MS + hour * HOUR_MS)
    flows.take(move("new", "loyal"), NOW_MS)
    later_ms = NOW_MS + 3 * HOURS * HOUR_MS
    assert flows.facts("7d", later_ms)["changes"] == 7 * 24
    assert len(flows._hours) <= HOURS
    empty = Flows().facts("1d", 5)
    assert (empty["changes"], empty["flows"], empty["segments"]) == (0, [], [])
