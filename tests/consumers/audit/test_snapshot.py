"""A pipeline at work is judged as of when each partition was read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count

import pytest

from consumers.audit.report import AuditReport
from consumers.audit.run import audit
from stream.config import Broker
from stream.events import Reason
from stream.store.memory import MemoryStore
from stream.store.state import OutboxEntry, Position
from stream.units import DAY_MS
from tests.consumers.audit.breaking import (
    lose_letter,
    remove_record,
)
from tests.consumers.audit.world import (
    ASSIGNED,
    LETTERS,
    STATE,
    VERSIONS,
    FakeRecord,
    World,
    clicks,
    failed,
    recommit,
    told,
    truthful,
)
from tests.strategies import (
    START_MS,
)


def test_a_pipeline_at_work_is_judged_as_of_its_snapshot() -> None:
    """Between the reading of the store and of the changes a worker commits once more."""
    world = truthful()

    def read(broker: Broker, topic: str) -> Iterator[FakeRecord]:
        if topic == world.settings.topics.changes:
            world.announce(0, world.change("ann", 4, 3, 1))
            world.reposition(0, clock_ms=START_MS + 2 * DAY_MS)
        yield from world.read(broker, topic)

    report = audit(world.settings, world.store, read)
    assert failed(report) == {}
    assert any("written to during the audit" in check.note for check in report.checks)


def test_a_pipeline_that_never_pauses_is_judged_all_the_same() -> None:
    world = truthful()

    class Busy(MemoryStore):
        ticks = START_MS

        def position(self, partition: int) -> Position | None:
            Busy.ticks += 1
            world.reposition(partition, clock_ms=Busy.ticks)
            return world.store.position(partition)

    quiet = world.audit()
    busy = Busy()
    busy._partitions = world.store._partitions
    report = audit(world.settings, busy, world.read)
    assert failed(report) == {}
    assert report.unjudged == 0
    assert [check.counted for check in report.checks] == [check.counted for check in quiet.checks]


class Moments(MemoryStore):
    """A world's store, in which something happens between the reads of an audit.

    Attributes:
        happen: what happens, by the number of the read before which it does.
    """

    def __init__(self, world: World, happen: dict[int, Callable[[], None]]) -> None:
        super().__init__()
        self.world = world
        self.happen = happen
        self.reads = 0

    def tick(self) -> None:
        action = self.happen.get(self.reads)
        self.reads += 1
        if action is not None:
            action()

    def position(self, partition: int) -> Position | None:
        self.tick()
        return self.world.store.position(partition)

    def load(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        self.tick()
        for n, user in enumerate(sorted(user for user, _ in self.world.store.load(partition))):
            if n == 1:
                self.tick()
            row = self.world.store.row(partition, user)
            if row is not None:
                yield user, row

    def load_ids(self, partition: int) -> Iterator[tuple[int, bytes]]:
        return self.world.store.load_ids(partition)

    def load_words(self, partition: int) -> Iterator[tuple[int, bytes, bytes]]:
        return self.world.store.load_words(partition)

    def load_orders(self, partition: int) -> Iterator[tuple[int, bytes, bytes]]:
        return self.world.store.load_orders(partition)

    def outbox(
        self, after: Mapping[int, str], limit: int, wait_seconds: float
    ) -> dict[int, list[OutboxEntry]]:
        self.tick()
        return self.world.store.outbox(after, limit, wait_seconds)

    def read(self, broker: Broker, topic: str) -> Iterator[FakeRecord]:
        self.tick()
        for n, record in enumerate(self.world.read(broker, topic)):
            if n == 1:
                self.tick()
            yield record

    def audit(self) -> AuditReport:
        return audit(self.world.settings, self, self.read)


def life(world: World) -> list[Callable[[], None]]:
    """What goes on in a shop, step by step: each is as the parts of the pipeline do it."""
    ann, eve, fay = (
        world.change("ann", 4, 3, 1),
        world.change("eve", 1, None, 2),
        world.change("fay", 1, None, 2),
    )
    waiting = world.change("bob", 2, 1, 4)

    def messages() -> None:
        world.click(0, "ann", 4_000)
        world.click(0, "eve", 4_001)
        world.buy(0, "bob", 4_002, 55.0)
        world.send("clickstream", 0, b"nonsense")

    def letters() -> None:
        world.refuse("purchases", 0, b"more nonsense", Reason.NOT_JSON)
        record = world.topics["clickstream"][-1]
        letter = world.send("clickstream.dlq", 0, record.payload)
        letter.told = [
            ("segstream-topic", b"clickstream"),
            ("segstream-partition", b"0"),
            ("segstream-offset", b"%d" % record.at_offset),
            ("segstream-reason", b"not_json"),
        ]

    def commit() -> None:
        assigned = {"ann": (4, 1), "bob": (2, 4), "eve": (1, 2)}
        recommit(world, 0, assigned=assigned, outbox=(waiting, ann, eve))

    def deliver() -> None:
        for change in (waiting, ann, eve):
            world.announce(0, change)
        told(world, in_partition=0, id="4.0-0", model="4.0")

    def acknowledge() -> None:
        world.store._partitions[0].outbox.clear()

    def newcomer() -> None:
        world.click(0, "fay", 4_010)
        world.announce(0, fay)
        assigned = {"ann": (4, 1), "bob": (2, 4), "eve": (1, 2), "fay": (1, 2)}
        recommit(world, 0, assigned=assigned)

    return [messages, letters, commit, deliver, acknowledge, newcomer]


READS = 20
"""More than an audit of a world takes."""


@pytest.mark.parametrize("apart", [0, 1, 2, 4])
def test_what_is_newer_than_what_was_read_is_not_accused(apart: int) -> None:
    """Whenever it happens, all at once or step by step between the reads."""
    unjudged = 0
    for begin in range(READS):
        world = truthful()
        happen: dict[int, Callable[[], None]] = {}
        for number, step in enumerate(life(world)):
            at = begin + number * apart
            happen[at] = partial(_both, happen.get(at), step)
        report = Moments(world, happen).audit()
        assert failed(report) == {}, (begin, apart)
        assert (report.lost, report.duplicated) == (0, 0)
        unjudged += report.unjudged
        assert world.audit().checks[0].counted
    assert unjudged > 0


def _both(first: Callable[[], None] | None, second: Callable[[], None]) -> None:
    if first is not None:
        first()
    second()


@pytest.mark.parametrize("begin", range(READS))
def test_faults_are_found_in_a_pipeline_at_work(begin: int) -> None:
    world = truthful()
    remove_record(world)
    lose_letter(world)
    world.edit(1, "cid", "sums", lambda sums: sums * 2)

    def live_on() -> None:
        for step in life(world):
            step()

    report = Moments(world, {begin: live_on}).audit()
    assert failed(report).keys() >= {VERSIONS, LETTERS, STATE}


@pytest.mark.parametrize("begin", range(READS))
@pytest.mark.parametrize("anew", [False, True], ids=["put back", "begun anew"])
def test_a_partition_that_is_begun_anew_or_put_back_meanwhile(begin: int, anew: bool) -> None:
    world = clicks(6)
    world.process(0)
    before = world.store._partitions[0]
    for minute in range(6, 9):
        world.click(0, f"user {minute % 4}", minute)
    world.announce(0, world.change("user 3", 1, None, 2))
    recommit(world, 0, assigned={"user 3": (1, 2)})

    def happen() -> None:
        if anew:
            recommit(world, 0, incarnation=9, output=len(world.changes))
        else:
            world.store._partitions[0] = before

    def catch_up() -> None:
        if not anew:
            recommit(world, 0, assigned={"user 3": (1, 2)})
            world.reposition(0, clock_ms=START_MS + 2 * DAY_MS)

    assert failed(Moments(world, {begin: happen, begin + 3: catch_up}).audit()) == {}


def test_a_partition_that_is_begun_anew_again_and_again_is_not_judged() -> None:
    world = clicks(6)
    incarnations = count(1)

    def happen() -> None:
        recommit(world, 0, incarnation=next(incarnations))

    world.process(0)
    report = Moments(world, dict.fromkeys(range(READS), happen)).audit()
    assert failed(report) == {}
    assert (report.users, report.unjudged) == (0, 1)


def test_partitions_that_come_while_the_others_are_audited_are_not_lost() -> None:
    world = truthful()
    kept = world.store._partitions.pop(1)

    def come() -> None:
        world.store._partitions[1] = kept

    at_last = Moments(world, {12: come}).audit()
    assert failed(at_last) == {}
    assert at_last.unjudged > 0
    del world.store._partitions[1]
    assert failed(world.audit()).keys() == {STATE, ASSIGNED}
