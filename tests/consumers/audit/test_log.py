"""The log has to hold what the state stands for, back to where that began."""

from __future__ import annotations

import pytest

from tests.consumers.audit.world import (
    World,
    clicks,
    failed,
    retain,
)


def clicks_of_an_hour() -> World:
    return clicks(60)


def test_state_that_began_at_what_retention_left_is_proved_by_it() -> None:
    world = clicks_of_an_hour()
    retain(world, "clickstream", 0, 20)
    world.process(0)
    report = world.audit()
    assert failed(report) == {}
    assert report.counts["applied"] == 40
    world.edit(0, "user 3", "arrivals", lambda arrivals: arrivals + 1)
    assert failed(world.audit()).keys() == {"state_equals_log"}


@pytest.mark.parametrize(("first", "held"), [(21, "21 to 59"), (60, "none of them")])
def test_what_retention_deletes_afterwards_makes_it_unprovable(first: int, held: str) -> None:
    world = clicks_of_an_hour()
    retain(world, "clickstream", 0, 20)
    world.process(0)
    retain(world, "clickstream", 0, first)
    report = world.audit()
    assert failed(report) == {
        "log_is_complete": [
            f"clickstream/0: the state stands for offsets 20 to 59, the topic holds {held}"
        ]
    }
    note = next(c.note for c in report.checks if c.name == "log_is_complete")
    assert "cannot be proved" in note
