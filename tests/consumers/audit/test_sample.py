"""Of a sample of users all is judged, of the others nothing; all are counted."""

from __future__ import annotations

from tests.consumers.audit.world import (
    ASSIGNED,
    COUNTS,
    LETTERS,
    ONCE,
    PAYLOAD,
    STATE,
    VALID,
    crowd,
    failed,
)


def test_a_sample_judges_some_users_and_counts_the_others_apart() -> None:
    world = crowd()
    whole, part, again = world.audit(), world.audit(0.3), world.audit(0.3)
    assert part == again
    assert failed(part) == {}
    for name in (STATE, ASSIGNED, VALID, COUNTS, LETTERS):
        all_of_it, some = (
            next(c for c in report.checks if c.name == name) for report in (whole, part)
        )
        assert all_of_it.unjudged == 0
        assert 0 < some.counted < all_of_it.counted
        if name != ASSIGNED:
            assert some.counted + some.unjudged == all_of_it.counted, name
    for name in ("users", "changes", "counts", "rejected", "repeated", "backlog"):
        assert getattr(part, name) == getattr(whole, name), name
    assert world.audit(0.05).unjudged > part.unjudged


def test_a_sample_finds_what_is_wrong_with_its_users_and_no_fault_with_others() -> None:
    found = []
    for number in range(0, 60, 6):
        world = crowd()
        world.edit(0, f"user {number}", "sums", lambda sums: sums * 2)
        report = world.audit(0.3)
        assert failed(report).keys() <= {STATE}
        found.append(not report.ok)
    assert 0 < sum(found) < len(found) / 2


def test_what_needs_no_look_into_a_message_is_exact_in_a_sample() -> None:
    world = crowd()
    for number in range(60):
        record = world.changes[number]
        if number % 6 == 0:
            again = world.announce(record.in_partition, record.payload or b"")
            again.payload = (again.payload or b"").replace(b"at_risk", b"dormant")
    report = world.audit(0.05)
    assert failed(report).keys() == {PAYLOAD, ONCE}
    assert report.duplicated == 10
    world = crowd()
    world.recount(0, applied=91)
    assert failed(world.audit(0.05)).keys() == {COUNTS}
