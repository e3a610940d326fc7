"""What an audit found is told so that a person and a program can read it."""

from __future__ import annotations

import json
from dataclasses import asdict

from consumers.audit.report import Check, explain
from tests.consumers.audit.world import (
    World,
    truthful,
)


def test_the_report_is_json_and_readable() -> None:
    world = truthful()
    del world.users(0)[b"bob"]
    report = world.audit()
    assert json.loads(json.dumps(asdict(report)))["checks"][1]["wrong"] == 1
    text = "\n".join(explain(report))
    assert "OFF state equals log" in text
    assert "user 'bob' (partition 0) is in the log, but not in the store" in text


def test_five_offenders_are_named_and_all_are_counted() -> None:
    world = World()
    for n in range(8):
        world.click(0, f"user {n}", n)
    world.process(0)
    world.users(0).clear()
    check = next(c for c in world.audit().checks if c.name == "state_equals_log")
    assert (check.wrong, len(check.offenders)) == (8, 5)


def test_further_promises_join_a_report() -> None:
    report = truthful().audit()
    assert report.ok
    kept, broken = Check("kept", unjudged=2), Check("broken")
    broken.accuse("somebody")
    assert report.with_checks([kept]).ok
    whole = report.with_checks([kept, broken])
    assert not whole.ok
    assert whole.unjudged == report.unjudged + 2
    assert whole.checks == [*report.checks, kept, broken]
    assert not whole.with_checks([kept]).ok
