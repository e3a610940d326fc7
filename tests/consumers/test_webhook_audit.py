"""Deliveries that are counted and kept nowhere are found, and a partition at work is not accused."""

from __future__ import annotations

from collections.abc import Iterator

from consumers.webhook_audit import LOOKS, audit_webhooks
from stream.roles.state import RolePosition
from stream.webhooks.queue import Queue
from stream.webhooks.rules import Rules
from stream.webhooks.schedule import Answer
from tests.stream.webhooks.making import NOW_MS, endpoint, trigger

LATER_MS = NOW_MS + 3_600_000


class Store:
    """A store with what a queue keeps in partition 0; others are empty.

    Attributes:
        busy: how many looks see another commit each.
    """

    def __init__(self, queue: Queue) -> None:
        kept = queue.keep()
        assert kept is not None
        size = len(kept.rows) // max(len(kept.names), 1)
        self.own_bytes = kept.own or b""
        self.rows = [
            (name, kept.rows[at * size : (at + 1) * size]) for at, name in enumerate(kept.names)
        ]
        self.busy = 0
        self._commits = 0

    def position(self, partition: int) -> RolePosition | None:
        self._commits += self._commits < 2 * self.busy
        return RolePosition([self._commits], "1") if partition == 0 else None

    def own(self, partition: int) -> bytes:
        return self.own_bytes if partition == 0 else b""

    def load(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        # One may come twice.
        return iter([*self.rows, *self.rows[:1]] if partition == 0 else [])


def queue() -> Queue:
    """Of three triggers for two endpoints one delivery arrived, and five wait."""
    made = Queue([endpoint("crm"), endpoint("mail")], Rules([60_000], 5, 1_000, 1_000, 100, 1.0))
    for number in range(3):
        made.take(trigger(number), LATER_MS, NOW_MS)
    made.committed()
    first, second, *_ = (one.key for one in made.start(NOW_MS))
    made.answered(first, Answer(200), NOW_MS)
    made.answered(second, Answer(500), NOW_MS)
    return made


def test_what_is_counted_is_kept() -> None:
    check = audit_webhooks(Store(queue()), 2)
    assert (check.ok, check.counted, check.unjudged) == (True, 6, 0)


def test_a_row_that_is_lost_and_one_too_many_are_found() -> None:
    lost = Store(queue())
    name = next(name for name, _ in lost.rows if name.startswith(b"mail/"))
    lost.rows = [row for row in lost.rows if row[0] != name]
    check = audit_webhooks(lost, 1)
    (told,) = check.offenders
    assert told == "mail in partition 0: 3 taken, 0 came to an end, 2 wait"
    uncounted = Store(queue())
    uncounted.own_bytes = b""
    assert len(audit_webhooks(uncounted, 1).offenders) == 2


def test_a_partition_that_commits_all_the_while_is_not_judged() -> None:
    store = Store(queue())
    store.busy = 3
    assert audit_webhooks(store, 1).counted == 6
    store.busy = 10 * LOOKS
    check = audit_webhooks(store, 2)
    assert (check.ok, check.counted, check.unjudged) == (True, 0, 1)
