"""Rows are what the log says, of whoever can be judged."""

from __future__ import annotations

import pytest

from consumers.audit.sample import Sample
from stream.units import DAY_MS
from tests.consumers.audit.world import (
    STATE,
    World,
    failed,
    truthful,
)
from tests.strategies import (
    REVIEW,
    START_MS,
    VIEW,
    encoded,
)


def test_users_that_vanished_are_missed_by_their_number() -> None:
    world = truthful()
    world.reposition(0, users=2)
    assert world.audit().ok
    world.reposition(0, users=3)
    assert failed(world.audit()).keys() == {STATE}


@pytest.mark.parametrize("ahead_days", [1, 20_000])
def test_when_events_from_the_future_count_is_not_judged(ahead_days: int) -> None:
    """Those that were ahead when they were read, and those that are still."""
    world = World()
    ahead = ahead_days * DAY_MS
    world.click(0, "ann", 1)
    raw = encoded(time_ms=START_MS + ahead, userId="ann", event=VIEW, messageId="ahead")
    world.send("clickstream", 0, raw, START_MS + ahead)
    world.click(1, "bob", 2)
    world.process(0, now_ms=START_MS)
    world.process(1, now_ms=START_MS)
    report = world.audit()
    assert report.ok, report
    state = next(check for check in report.checks if check.name == "state_equals_log")
    assert state.unjudged == 2, "the user, and what the partition remembers"
    # All others are judged as ever, of other partitions and of this one.
    world.edit(1, "bob", "seen", lambda seen: seen + 1)
    assert not world.audit().ok


@pytest.mark.parametrize("ahead_days", [1, 20_000])
def test_one_event_from_the_future_excuses_one_user(ahead_days: int) -> None:
    """Whoever can write an event must not be able to hide what is wrong with others."""
    world = World()
    ahead = ahead_days * DAY_MS
    for number, user in enumerate(("ann", "cid", "dan")):
        world.click(0, user, number)
    raw = encoded(time_ms=START_MS + ahead, userId="ann", event=VIEW, messageId="ahead")
    world.send("clickstream", 0, raw, START_MS + ahead)
    world.process(0, now_ms=START_MS)
    assert world.audit().ok
    for user in ("cid", "dan"):
        world.edit(0, user, "seen", lambda seen: seen + 1)
    report = world.audit()
    state = next(check for check in report.checks if check.name == "state_equals_log")
    assert state.wrong >= 1


@pytest.mark.parametrize("sample", [1.0, 0.3])
def test_sentiment_is_what_all_reviews_of_the_log_have_taught(sample: float) -> None:
    """Of a sample, too: what others wrote decides how a text is read."""
    world = World()
    for number in range(60):
        good = number % 3 > 0
        said = {"review_body": "love it" if good else "awful", "rating": 5 if good else 1}
        if number >= 45:
            del said["rating"]
        world.click(0, f"user-{number}", number, event=REVIEW, properties=said)
    world.process(0)
    world.process(1)
    report = world.audit(sample)
    assert report.ok, report
    names = world.table.names
    rows = world.table.unpacked(b"".join(row for _, row in world.store.load(0)))
    feels = world.table.vectors(rows, START_MS)[45:, names.index("feels_7d")]
    assert feels.min() < 0 < feels.max()
    judged = [
        f"user-{n}"
        for n in range(45, 60)
        if Sample(sample, world.settings.worker).has(b"user-%d" % n)
    ]
    world.edit(0, judged[0], "sums", lambda sums: sums * 1.01)
    assert failed(world.audit(sample)).keys() == {STATE}
