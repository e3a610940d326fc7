"""Records of the output are valid, and a change told twice says the same."""

from __future__ import annotations

from tests.consumers.audit.breaking import (
    double_with_other_payload,
    double_with_same_payload,
)
from tests.consumers.audit.world import (
    ONCE,
    PAYLOAD,
    VALID,
    World,
    failed,
    recommit,
    told,
    truthful,
)


def test_a_change_delivered_but_not_acknowledged_is_neither_lost_nor_doubled() -> None:
    world = truthful()
    world.announce(0, world.change("bob", 2, 1, 4))
    report = world.audit()
    assert report.ok
    assert (report.lost, report.duplicated, report.pending) == (0, 0, 0)


def test_what_became_of_segments_stands_among_the_changes() -> None:
    world = truthful()
    told(world)
    told(world)
    report = world.audit()
    assert failed(report) == {}, "told again after a restart"
    assert report.changes == 5
    told(world, users=13)
    assert failed(world.audit())["change_records_are_valid"][0].endswith(
        "lineage 3.0-0 was told in two ways"
    )
    told(world, id="3.0-1", segment=None)
    assert "Field required" in failed(world.audit())["change_records_are_valid"][1]


def test_a_topic_that_an_earlier_namespace_has_written_is_clean() -> None:
    world = World()
    world.click(0, "ann", 0)
    world.announce(0, world.change("ann", 1, None, 3))
    world.announce(0, world.change("ann", 2, 3, 1))
    world.announce(0, world.change("gone by retention", 1, None, 3))
    told(world, in_partition=0)
    began = len(world.changes)
    told(world, in_partition=0, users=7)
    world.announce(0, world.change("ann", 1, None, 2, incarnation=began + 1))
    world.process(0, {"ann": (1, 2)}, incarnation=began + 1, output=began)
    assert failed(world.audit()) == {}
    told(world, in_partition=0, users=8)
    assert failed(world.audit()).keys() == {"change_records_are_valid"}
    world.changes.pop()
    world.announce(0, world.change("gone by retention", 1, None, 3, incarnation=began + 1))
    assert failed(world.audit()).keys() == {"assignment_equals_changes"}


def test_changes_of_before_under_another_key_are_not_judged() -> None:
    world = World()
    world.click(0, "ann", 0)
    strange = world.change("ann", 1, None, 3).replace(b'"id":"', b'"id":"0')
    world.announce(0, strange)
    world.announce(0, world.change("ann", 1, None, 2, incarnation=2))
    world.process(0, {"ann": (1, 2)}, incarnation=2, output=1)
    report = world.audit()
    assert failed(report) == {}
    assert report.unjudged == 1
    recommit(world, 0, assigned={"ann": (1, 2)}, incarnation=2)
    assert failed(world.audit()).keys() == {VALID}


def test_a_change_delivered_again_as_it_was_is_allowed_and_counted() -> None:
    world = truthful()
    for _ in range(3):
        double_with_same_payload(world)
    report = world.audit()
    assert report.ok
    assert (report.duplicated, report.repeated, report.changes) == (0, 3, 5)
    (note,) = [check.note for check in report.checks if check.name == ONCE]
    assert note.startswith("3 were delivered again, with the same id and bytes: allowed")
    double_with_other_payload(world)
    report = world.audit()
    assert failed(report).keys() == {PAYLOAD, ONCE}
    assert (report.duplicated, report.repeated) == (1, 3)
