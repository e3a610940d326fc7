"""The audit finds a truthful world clean, and names whatever is broken in it on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from itertools import count
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers import audit as auditing
from consumers.audit import AuditReport, Progress, audit, explain
from stream.config import Broker, Clock, Publish, Settings, Topics, Worker
from stream.errors import TopicMissingError
from stream.events import MEMBERSHIP, Cause, Counts, Reason
from stream.features import DEFAULT_FEATURES, Feature, FeatureTable
from stream.hashing import change_identity, partition_of
from stream.memory import Memory
from stream.oracle import Fate, Judge, Marks, Message, Oracle, fold_log
from stream.oracle_reading import parse_time
from stream.orders import PACKED
from stream.partition import Partition
from stream.store.memory import MemoryStore
from stream.store.state import OutboxEntry, Position
from stream.units import DAY_MS, iso
from tests.fakes import mark_value
from tests.strategies import (
    EVERY_AGGREGATE,
    MESSAGES,
    REFUND,
    START_MS,
    VIEW,
    columns,
    encoded,
)

# -- the oracle's verdict on a message ---------------------------------------------------------


@pytest.mark.parametrize(("value", "fate", "reason"), MESSAGES)
def test_what_becomes_of_a_message(value: bytes | None, fate: Fate, reason: Reason | None) -> None:
    outcome = Judge(DEFAULT_FEATURES, Worker()).judge(Message(value, START_MS, 0))
    assert (outcome.fate, outcome.reason) == (fate, reason)


@given(
    st.datetimes(datetime(1995, 1, 3), datetime(2099, 12, 29)),  # noqa: DTZ001 - zones are drawn
    st.integers(-23 * 60, 23 * 60),
)
def test_a_time_is_the_same_however_it_is_written(moment: datetime, minutes: int) -> None:
    true = (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        milliseconds=1
    )
    elsewhere = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=minutes)))
    assert parse_time(iso(true)) == true
    assert parse_time(elsewhere.isoformat(timespec="microseconds")) == true
    assert parse_time(moment.isoformat(" ", "seconds") + "z") == true - true % 1_000


def test_an_event_of_the_future_is_clamped_and_one_without_a_record_time_is_not() -> None:
    judge = Judge(DEFAULT_FEATURES, Worker())
    value = encoded(time_ms=START_MS + DAY_MS)
    clamped = judge.judge(Message(value, START_MS, 0)).event
    taken = judge.judge(Message(value, None, 0)).event
    assert clamped is not None
    assert taken is not None
    assert (clamped.time_ms, clamped.clamped) == (START_MS + 300_000, True)
    assert (taken.time_ms, taken.clamped) == (START_MS + DAY_MS, False)


@pytest.mark.parametrize(
    ("properties", "amounts"),
    [
        ({}, (0.0, 1.0)),
        ({"price": 3, "quantity": 4}, (12.0, 4.0)),
        ({"price": 3}, (3.0, 1.0)),
        ({"price": 3, "value": 5, "quantity": 2}, (5.0, 2.0)),
        ({"price": 3, "value": 5, "total": 7}, (7.0, 1.0)),
        ({"value": 5, "total": 7, "revenue": 0}, (0.0, 1.0)),
        ({"total": None, "value": 5, "revenue": None}, (5.0, 1.0)),
    ],
)
def test_what_an_event_is_worth(properties: dict[str, Any], amounts: tuple[float, float]) -> None:
    judge = Judge(DEFAULT_FEATURES, Worker())
    event = judge.judge(Message(encoded(properties=properties), START_MS, 1)).event
    assert event is not None
    assert (event.value, event.quantity) == amounts


def test_a_repeated_message_is_counted_as_such() -> None:
    log = [Message(encoded(messageId=name), START_MS, 1) for name in "abcab"]
    assert fold_log(DEFAULT_FEATURES, Worker(), [[], log]).counts == Counts(applied=3, duplicate=2)


# -- a small world -----------------------------------------------------------------------------


@dataclass
class FakeRecord:
    """A Kafka record as far as the audit looks at it."""

    in_partition: int
    at_offset: int
    payload: bytes | None
    about: bytes | None = None
    time_ms: int = START_MS
    told: list[tuple[str, bytes]] = field(default_factory=list)

    def partition(self) -> int:
        return self.in_partition

    def offset(self) -> int:
        return self.at_offset

    def key(self) -> bytes | None:
        return self.about

    def value(self) -> bytes | None:
        return self.payload

    def headers(self) -> list[tuple[str, bytes]]:
        return self.told

    def timestamp(self) -> tuple[int, int]:
        return (1, self.time_ms)


class World:
    """Two partitions, a few shoppers, everything as it should be."""

    def __init__(self, features: tuple[Feature, ...] = EVERY_AGGREGATE) -> None:
        self.settings = Settings(
            topics=Topics(partitions=2),
            clock=Clock(mode="watermark"),
            # Who lies where is the tests' choice here; the last of them looks at that.
            worker=Worker(misplaced="accept"),
            features=features,
            kinds=(),
        )
        self.table = FeatureTable(features)
        self.store = MemoryStore()
        topics = self.settings.topics
        self.topics: dict[str, list[FakeRecord]] = {
            name: [] for name in (*topics.inputs, topics.changes, *map(topics.dlq, topics.inputs))
        }

    def read(self, broker: Broker, topic: str) -> Iterator[FakeRecord]:
        assert broker == self.settings.broker
        if topic not in self.topics:
            raise TopicMissingError(topic)
        yield from self.topics[topic]

    def audit(self, sample: float = 1.0) -> AuditReport:
        return audit(self.settings, self.store, self.read, sample=sample)

    # -- making it ----

    def send(
        self, topic: str, partition: int, payload: bytes | None, time_ms: int = START_MS
    ) -> FakeRecord:
        offset = sum(r.in_partition == partition for r in self.topics[topic])
        record = FakeRecord(partition, offset, payload, time_ms=time_ms)
        self.topics[topic].append(record)
        return record

    def click(self, partition: int, user: str, minute: int, **rest: Any) -> None:
        time_ms = START_MS + minute * 60_000
        fields = {"event": VIEW, "messageId": f"c{minute}", "properties": {"category": "shoes"}}
        payload = encoded(time_ms=time_ms, userId=user, **(fields | rest))
        self.send("clickstream", partition, payload, time_ms)

    def buy(self, partition: int, user: str, minute: int, revenue: float, **rest: Any) -> None:
        time_ms = START_MS + minute * 60_000
        fields = {"messageId": f"p{minute}", "properties": {"revenue": revenue}}
        payload = encoded(time_ms=time_ms, userId=user, **(fields | rest))
        self.send("purchases", partition, payload, time_ms)

    def refuse(self, topic: str, partition: int, payload: bytes | None, reason: Reason) -> None:
        record = self.send(topic, partition, payload)
        letter = self.send(self.settings.topics.dlq(topic), 0, payload)
        letter.told = [
            ("segstream-topic", topic.encode()),
            ("segstream-partition", b"%d" % partition),
            ("segstream-offset", b"%d" % record.at_offset),
            ("segstream-reason", reason.encode()),
        ]

    def change(self, user: str, version: int, before: int | None, after: int, **rest: Any) -> bytes:
        incarnation, key = rest.pop("incarnation", 1), self.store.namespace_key()
        return msgspec.json.encode(
            {
                "id": f"{change_identity(user.encode(), key)}-{incarnation}-{version}",
                "user": user,
                "version": version,
                "from": before,
                "to": after,
                "name_from": before and f"segment {before}",
                "name_to": f"segment {after}",
                "kind_from": before and "at_risk",
                "kind_to": "at_risk",
                "cause": Cause.TIME_PASSED,
                "at": iso(START_MS + version * DAY_MS),
                "last_event_at": iso(START_MS),
                "model": "1.4",
                "margin": None if before is None else 0.25,
                "provisional": version == 1,
                "why": [{"feature": "seen", "value": 40.0, "contribution": 0.2}],
                "rest": None if before is None else 0.05,
                **rest,
            }
        )

    def announce(self, partition: int, payload: bytes) -> FakeRecord:
        record = self.send(self.settings.topics.changes, partition, payload)
        change = json.loads(payload)
        record.about = change["user"].encode()
        record.told = [
            ("ce_specversion", b"1.0"),
            ("ce_id", change["id"].encode()),
            ("ce_type", b"segstream.segment.changed"),
        ]
        return record

    def process(
        self,
        partition: int,
        assigned: dict[str, tuple[int, int]] | None = None,
        outbox: tuple[bytes, ...] = (),
        incarnation: int = 1,
        output: int = 0,
        now_ms: int | None = None,
    ) -> None:
        """Fold what is in a partition's topics into the store, as a worker would."""
        marks = Marks(self.store.namespace_key(), self.settings.clock.mark_seconds)
        partitions = self.settings.topics.partitions
        oracle = Oracle(self.settings.features, self.settings.worker, marks, now_ms, partitions)
        key, memory = self.store.namespace_key(), Memory(self.settings.worker.limits())
        begun, rule = Position([0, 0], self.table.schema), Publish().rule()
        owner = Partition(partition, self.table, rule, begun, 0, key=key, memory=memory)
        offsets, first = [], []
        for index, topic in enumerate(self.settings.topics.inputs):
            records = [r for r in self.topics[topic] if r.in_partition == partition]
            first.append(records[0].at_offset if records else 0)
            offsets.append(records[-1].at_offset + 1 if records else 0)
            for record in records:
                message = Message(record.payload, record.time_ms, index, (topic, partition))
                event = oracle.take(message).event
                if event is not None:
                    slots = {event.user: int(owner.slots([event.user])[0])}
                    owner.fold(columns(self.table, slots, [event]))
        told = [json.loads(r.payload or b"{}") for r in self.changes] + [*map(json.loads, outbox)]
        rows = owner.rows
        for user, (version, segment) in (assigned or {}).items():
            slot = owner.names.index(user.encode())
            row = rows[slot : slot + 1]
            row["version"], row["segment"], row["kind"] = version, segment, version > 0
            for change in told:
                if (change.get("user"), change.get("version")) == (user, version):
                    row["previous"] = change["from"] or 0
                    row["since"] = START_MS + version * DAY_MS
        commit = owner.commit(offsets, oracle.counts, START_MS + DAY_MS)
        position = msgspec.structs.replace(
            commit.position,
            incarnation=incarnation,
            first=first,
            output=output,
            users=0,
            kinds=["at_risk"],
        )
        self.store.create(partition, "owner", position)
        entries = [OutboxEntry(0, outbox, incarnation)] if outbox else []
        whole = replace(commit, position=position, outbox=entries, rows=rows.tobytes())
        self.store.commit(partition, "owner", whole)

    # -- breaking it ----

    def users(self, partition: int) -> dict[bytes, bytes]:
        return self.store._partitions[partition].users

    def edit(self, partition: int, user: str, name: str, change: Callable[[Any], Any]) -> None:
        row = np.frombuffer(self.users(partition)[user.encode()], self.table.dtype).copy()
        row[name][0] = change(row[name][0])
        self.users(partition)[user.encode()] = row.tobytes()

    def reposition(self, partition: int, **rest: Any) -> None:
        state = self.store._partitions[partition]
        position = msgspec.structs.replace(
            msgspec.json.decode(state.position, type=Position), **rest
        )
        state.position = msgspec.json.encode(position)

    def recount(self, partition: int, **rest: int) -> None:
        position = self.store.position(partition)
        assert position is not None
        self.reposition(partition, counts=replace(position.counts, **rest))

    @property
    def changes(self) -> list[FakeRecord]:
        return self.topics[self.settings.topics.changes]


def truthful() -> World:
    world = World()
    for minute in (0, 1, 20, 60, 61, 62, 3_000):
        world.click(0, "ann", minute)
        world.click(1, "cid", minute + 7)
    world.click(0, "ann", 3_000)  # a duplicate
    world.click(0, "ann", 30, messageId="out of order")
    world.click(0, "ann", 40, event="Page Scrolled")  # ignored
    world.click(1, "dot", 5, timestamp=iso(START_MS - 100 * DAY_MS))  # late
    world.click(1, "dot", 6, timestamp=iso(START_MS + 100 * DAY_MS))  # clamped
    world.send("clickstream", 0, mark_value(START_MS))
    world.refuse("clickstream", 1, mark_value(START_MS), Reason.FORGED_MARK)  # of partition 0
    world.buy(0, "ann", 70, 120.0)
    world.buy(0, "bob", 80, 30.0, properties={"price": 10, "quantity": 3})
    world.buy(0, "bob", 90, 30.0, event=REFUND)
    world.buy(1, "dot", 95, 1e9)
    world.buy(1, "dot", 96, 1e9, event=REFUND)
    world.refuse("purchases", 0, b"hello", Reason.NOT_JSON)
    world.refuse("purchases", 1, None, Reason.EMPTY)
    world.refuse("clickstream", 1, encoded(userId=""), Reason.NO_USER)

    world.announce(0, world.change("ann", 1, None, 3))
    world.announce(1, world.change("cid", 1, None, 2))
    world.announce(0, world.change("bob", 1, None, 1))
    world.announce(0, world.change("ann", 2, 3, 1))
    world.announce(0, world.change("ann", 3, 1, 3))
    waiting = (world.change("bob", 2, 1, 4),)
    world.process(0, {"ann": (3, 3), "bob": (2, 4)}, waiting)
    world.process(1, {"cid": (1, 2)})
    return world


def failed(report: AuditReport) -> dict[str, list[str]]:
    return {check.name: check.offenders for check in report.checks if not check.ok}


def test_a_truthful_world_is_clean() -> None:
    report = truthful().audit()
    assert failed(report) == {}
    assert report.ok
    assert (report.lost, report.duplicated, report.rejected) == (0, 0, 4)
    assert (report.users, report.changes, report.pending) == (4, 5, 1)
    assert report.counts == {
        "consumed": 28,
        "applied": 21,
        "duplicate": 1,
        "late": 1,
        "ignored": 1,
        "rejected": 4,
        "clamped": 1,
        "marks": 1,
    }
    assert report.backlog == {"clickstream": 0, "purchases": 0}
    assert all(check.counted for check in report.checks)


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


def test_a_torn_number_may_have_been_filed_as_either() -> None:
    world = truthful()
    world.topics["purchases.dlq"][0].told[3] = ("segstream-reason", b"truncated")
    assert world.audit().ok


def test_unread_messages_are_a_backlog_and_no_fault() -> None:
    world = truthful()
    world.buy(0, "eve", 200, 10.0)
    world.send("clickstream", 1, b"nonsense")
    report = world.audit()
    assert report.ok
    assert report.backlog == {"clickstream": 1, "purchases": 1}


def test_a_letter_filed_ahead_of_the_commit_is_no_fault() -> None:
    world = truthful()
    world.refuse("purchases", 0, b"hello again", Reason.NOT_JSON)
    assert world.audit().ok


def test_a_message_refused_twice_may_have_two_letters() -> None:
    world = truthful()
    letters = world.topics["purchases.dlq"]
    letters.append(replace(letters[0], at_offset=len(letters)))
    assert world.audit().ok


def test_a_receipt_among_the_letters_is_no_letter() -> None:
    world = truthful()
    receipt = world.send("purchases.dlq", 0, b'["purchases/0/0"]')
    receipt.told = [("segstream-replayed", b"1")]
    assert failed(world.audit()) == {}


def test_a_change_delivered_but_not_acknowledged_is_neither_lost_nor_doubled() -> None:
    world = truthful()
    world.announce(0, world.change("bob", 2, 1, 4))
    report = world.audit()
    assert report.ok
    assert (report.lost, report.duplicated, report.pending) == (0, 0, 0)


OVERSIZE = bytes(range(256)) * 4_096 + b"tail"
"""A value of a mebibyte and a little."""


def with_head(head: bytes, size: int = len(OVERSIZE)) -> World:
    """A truthful world with a letter that has only the head of a refused value."""
    world = truthful()
    world.refuse("purchases", 0, OVERSIZE, Reason.TOO_LARGE)
    letter = world.topics["purchases.dlq"][-1]
    letter.payload = head
    letter.told.append(("segstream-truncated", b"%d" % size))
    world.store._partitions.clear()
    world.process(0, {"ann": (3, 3), "bob": (2, 4)}, (world.change("bob", 2, 1, 4),))
    world.process(1, {"cid": (1, 2)})
    return world


@pytest.mark.parametrize("length", [1 << 16, 1 << 20])
def test_a_letter_may_have_the_head_of_what_does_not_fit(length: int) -> None:
    assert failed(with_head(OVERSIZE[:length]).audit()) == {}


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (b"?" + OVERSIZE[1 : 1 << 16], len(OVERSIZE)),
        (OVERSIZE[: (1 << 16) - 1], len(OVERSIZE)),
        (OVERSIZE[: 1 << 10], len(OVERSIZE)),
        (OVERSIZE[: 1 << 16], len(OVERSIZE) + 1),
        (OVERSIZE, len(OVERSIZE)),
    ],
    ids=["bytes", "cut", "too short", "length", "whole"],
)
def test_any_other_head_is_a_change_of_bytes(head: bytes, size: int) -> None:
    [offender] = failed(with_head(head, size).audit())["refused_messages_are_filed"]
    assert "the bytes of purchases/0@" in offender


def test_a_cut_letter_has_to_say_so() -> None:
    world = with_head(OVERSIZE[: 1 << 16])
    world.topics["purchases.dlq"][-1].told.pop()
    assert failed(world.audit()).keys() == {"refused_messages_are_filed"}


def told(world: World, in_partition: int = 1, **rest: Any) -> None:
    """What became of a segment, among the changes of the users."""
    record = {
        "id": "3.0-0",
        "event": "absorbed",
        "segment": 4,
        "others": [2],
        "at": iso(START_MS),
        "model": "3.0",
        "name": "Bargain hunters",
        "kind": "at_risk",
        "users": 12,
    }
    payload = json.dumps({name: v for name, v in (record | rest).items() if v is not None})
    sent = world.send(world.settings.topics.changes, in_partition, payload.encode())
    sent.told = [("ce_type", b"segstream.segment.lineage")]


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


def test_nothing_processed_yet_is_said_and_is_no_fault() -> None:
    world = World()
    world.click(0, "ann", 0)
    report = world.audit()
    assert report.ok
    assert report.backlog["clickstream"] == 1
    assert any("nothing has been processed" in check.note for check in report.checks)


def test_topics_without_letters_need_not_exist() -> None:
    world = World()
    world.click(0, "ann", 0)
    world.process(0)
    del world.topics["clickstream.dlq"]
    assert world.audit().ok


def test_an_earlier_incarnation_has_a_chain_of_its_own() -> None:
    world = World()
    world.click(0, "ann", 0)
    world.announce(0, world.change("ann", 1, None, 3))
    world.announce(0, world.change("ann", 2, 3, 1))
    world.announce(0, world.change("ann", 1, None, 2, incarnation=2))
    world.process(0, {"ann": (1, 2)}, incarnation=2)
    assert failed(world.audit()) == {}


def retain(world: World, topic: str, partition: int, first: int) -> None:
    """Delete what stands before an offset, as retention does."""
    world.topics[topic] = [
        r for r in world.topics[topic] if r.in_partition != partition or r.at_offset >= first
    ]


def clicks_of_an_hour() -> World:
    return clicks(60)


def clicks(minutes: int) -> World:
    world = World()
    for minute in range(minutes):
        world.click(0, f"user {minute % 7}", minute)
    return world


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


# -- at work while it is audited -----------------------------------------------------------------


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


def recommit(world: World, partition: int, **rest: Any) -> None:
    """Commit what the log says by now, in place of what there is."""
    del world.store._partitions[partition]
    world.process(partition, **rest)


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


def test_users_that_vanished_are_missed_by_their_number() -> None:
    world = truthful()
    world.reposition(0, users=2)
    assert world.audit().ok
    world.reposition(0, users=3)
    assert failed(world.audit()).keys() == {STATE}


# -- repeats -------------------------------------------------------------------------------------


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


# -- a sample ------------------------------------------------------------------------------------


def crowd(users: int = 60) -> World:
    world = World()
    for number in range(users):
        for minute in range(3):
            world.click(number % 2, f"user {number}", 60 * number + minute)
        world.announce(number % 2, world.change(f"user {number}", 1, None, 3))
    world.refuse("purchases", 0, b"hello", Reason.NOT_JSON)
    for number in range(1, 12, 2):
        no_time = encoded(userId=f"user {number}", timestamp="never")
        world.refuse("clickstream", 1, no_time, Reason.BAD_TIME)
    for partition in range(2):
        world.process(partition, {f"user {n}": (1, 3) for n in range(users) if n % 2 == partition})
    return world


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


def test_how_far_it_is_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    world = crowd()
    monkeypatch.setattr(auditing, "TOLD_EVERY", 50)
    monkeypatch.setattr(auditing, "count_records", lambda _broker, topic: len(world.topics[topic]))
    steps: list[Progress] = []
    audit(world.settings, world.store, world.read, progress=steps.append)
    clicks = [(s.done, s.total) for s in steps if s.what == "clickstream"]
    assert clicks[0] == (0, 186)
    assert clicks[1:4] == [(50, 186), (100, 186), (150, 186)]
    assert clicks[-1] == (186, 186)
    first = [s.what for s in steps[:5]]
    assert set(first) == set(world.topics), "how much there is is said before anything is read"


# -- broken on purpose -------------------------------------------------------------------------


def delete_key(world: World) -> None:
    del world.users(0)[b"bob"]


def delete_partition(world: World) -> None:
    del world.store._partitions[1]


def delete_everything(world: World) -> None:
    world.store._partitions.clear()


def invent_user(world: World) -> None:
    world.users(1)[b"ghost"] = world.users(1)[b"cid"]


def move_user_to_other_partition(world: World) -> None:
    world.users(1)[b"bob"] = world.users(0).pop(b"bob")


def change_sum(world: World) -> None:
    world.edit(0, "ann", "sums", lambda sums: sums * (1 + 1e-5))


def change_tile(world: World) -> None:
    def one_more(tiles: Any) -> Any:
        tiles[0, 3] += 1
        return tiles

    world.edit(0, "ann", "tiles", one_more)


def change_last(world: World) -> None:
    world.edit(0, "ann", "last", lambda last: last - 1)


def change_first(world: World) -> None:
    world.edit(0, "ann", "first", lambda first: first + 1)


def change_seen(world: World) -> None:
    world.edit(0, "ann", "seen", lambda seen: seen + 1)


def change_click(world: World) -> None:
    world.edit(0, "ann", "click", lambda click: click - 1)


def change_bucket(world: World) -> None:
    world.edit(0, "ann", "distinct", lambda seconds: np.maximum(seconds, 1))


def change_as_of(world: World) -> None:
    world.edit(0, "ann", "as_of", lambda as_of: as_of + 1)


def forget_a_message(world: World) -> None:
    ids = world.store._partitions[0].ids
    place = next(iter(ids))
    ids[place] = ids[place][8:]


def remember_another_message(world: World) -> None:
    ids = world.store._partitions[0].ids
    place = next(iter(ids))
    ids[place] = bytes([ids[place][0] ^ 1]) + ids[place][1:]


def forget_an_order(world: World) -> None:
    orders = world.store._partitions[0].orders
    del orders[next(iter(orders))]


def change_an_order(world: World) -> None:
    orders = next(iter(world.store._partitions[0].orders.values()))
    key, packed = next(iter(orders.items()))
    row = np.frombuffer(packed, PACKED).copy()
    row["refunded"] += 1.0
    orders[key] = row.tobytes()


def cut_row(world: World) -> None:
    world.users(0)[b"ann"] = world.users(0)[b"ann"][:-8]


def double_with_other_payload(world: World) -> None:
    world.announce(0, world.change("ann", 2, 3, 1, model="9.9"))


def wait_with_other_payload(world: World) -> None:
    world.announce(0, world.change("bob", 2, 1, 4, model="9.9"))


def double_with_same_payload(world: World) -> None:
    world.announce(0, world.change("ann", 2, 3, 1))


def remove_record(world: World) -> None:
    del world.changes[3]


def remove_last_record(world: World) -> None:
    del world.changes[4]


def remove_all_of_a_user(world: World) -> None:
    del world.changes[1]


def empty_outbox(world: World) -> None:
    world.store._partitions[0].outbox.clear()


def swap_records(world: World) -> None:
    world.changes[3], world.changes[4] = world.changes[4], world.changes[3]


def gap_in_versions(world: World) -> None:
    world.announce(0, world.change("ann", 5, 3, 1))
    world.edit(0, "ann", "version", lambda _: 5)
    world.edit(0, "ann", "previous", lambda _: 3)
    world.edit(0, "ann", "since", lambda _: START_MS + 5 * DAY_MS)
    world.edit(0, "ann", "segment", lambda _: 1)


def wrong_from(world: World) -> None:
    world.changes[4] = world.announce(0, world.change("ann", 3, 2, 3))
    world.changes.pop()


def first_from_somewhere(world: World) -> None:
    world.changes[1] = world.announce(1, world.change("cid", 1, 5, 2))
    world.changes.pop()


def change_segment(world: World) -> None:
    world.edit(0, "ann", "segment", lambda _: 1)


def change_where_from(world: World) -> None:
    world.edit(0, "ann", "previous", lambda segment: segment + 1)


def change_since_when(world: World) -> None:
    world.edit(0, "ann", "since", lambda time_ms: time_ms - 1)


def change_version(world: World) -> None:
    world.edit(0, "ann", "version", lambda _: 2)


def announce_stranger(world: World) -> None:
    world.announce(1, world.change("ghost", 1, None, 2))


def announce_on_other_partition(world: World) -> None:
    world.changes[0].in_partition = 1
    for change in world.changes[1:]:
        change.at_offset -= change.in_partition == 0


def lose_field(world: World) -> None:
    payload = json.loads(world.changes[0].payload or b"")
    del payload["cause"]
    world.changes[0].payload = json.dumps(payload).encode()


def bury_record(world: World) -> None:
    world.changes[0].payload = None


def misname_change(world: World) -> None:
    payload = (world.changes[0].payload or b"").replace(b'-1-1"', b'-1-7"')
    world.changes[0].payload = payload


def wrong_header(world: World) -> None:
    world.changes[0].told[1] = ("ce_id", b"another")


def wrong_key(world: World) -> None:
    world.changes[0].about = b"bob"


def miscount(world: World) -> None:
    world.recount(0, late=3)


def miscount_within_the_sum(world: World) -> None:
    world.recount(0, late=1, ignored=0)


def lose_letter(world: World) -> None:
    world.topics["purchases.dlq"].pop()


def misfile_letter(world: World) -> None:
    world.topics["purchases.dlq"][0].told[3] = ("segstream-reason", b"bad_time")


def change_letter(world: World) -> None:
    world.topics["purchases.dlq"][0].payload = b"hallo"


def file_good_message(world: World) -> None:
    letter = world.topics["purchases.dlq"][0]
    told = [*letter.told]
    told[2] = ("segstream-offset", b"0")
    world.topics["purchases.dlq"].append(replace(letter, told=told))


def file_without_origin(world: World) -> None:
    world.topics["purchases.dlq"][0].told.clear()


def lose_message_in_the_middle(world: World) -> None:
    """The log says one message less than was applied."""
    clicks = world.topics["clickstream"]
    clicks.remove(next(r for r in clicks if r.in_partition == 0 and r.at_offset == 3))


def cut_log(world: World) -> None:
    clicks = world.topics["clickstream"]
    clicks.remove(next(r for r in clicks if r.in_partition == 0 and r.at_offset == 0))


def make_log_anew(world: World) -> None:
    world.topics["purchases"] = [r for r in world.topics["purchases"] if r.in_partition == 0]


def other_schema(world: World) -> None:
    world.reposition(1, schema="0123456789abcdef")


STATE, COUNTS, LETTERS, LOG = (
    "state_equals_log",
    "counts_are_conserved",
    "refused_messages_are_filed",
    "log_is_complete",
)
VALID, PAYLOAD, ONCE, VERSIONS, FROM, ASSIGNED = (
    "change_records_are_valid",
    "one_payload_an_id",
    "each_change_is_delivered_once",
    "versions_are_unbroken",
    "from_is_the_previous_to",
    "assignment_equals_changes",
)


@pytest.mark.parametrize(
    ("break_it", "checks", "lost", "duplicated"),
    [
        (delete_key, {STATE, ASSIGNED}, 0, 0),
        (delete_partition, {STATE, ASSIGNED}, 0, 0),
        (delete_everything, {STATE, ASSIGNED}, 0, 0),
        (invent_user, {STATE, ASSIGNED}, 1, 0),
        (move_user_to_other_partition, {STATE, ASSIGNED}, 2, 0),
        (change_sum, {STATE}, 0, 0),
        (change_tile, {STATE}, 0, 0),
        (change_last, {STATE}, 0, 0),
        (change_first, {STATE}, 0, 0),
        (change_seen, {STATE}, 0, 0),
        (change_click, {STATE}, 0, 0),
        (change_bucket, {STATE}, 0, 0),
        (change_as_of, {STATE}, 0, 0),
        (forget_a_message, {STATE}, 0, 0),
        (remember_another_message, {STATE}, 0, 0),
        (forget_an_order, {STATE}, 0, 0),
        (change_an_order, {STATE}, 0, 0),
        (cut_row, {STATE, ASSIGNED}, 0, 0),
        (double_with_other_payload, {PAYLOAD, ONCE}, 0, 1),
        (wait_with_other_payload, {PAYLOAD}, 0, 0),
        (remove_record, {VERSIONS}, 1, 0),
        (remove_last_record, {ASSIGNED}, 1, 0),
        (remove_all_of_a_user, {ASSIGNED}, 1, 0),
        (empty_outbox, {ASSIGNED}, 1, 0),
        (swap_records, {VERSIONS}, 0, 0),
        (gap_in_versions, {VERSIONS}, 1, 0),
        (wrong_from, {FROM, ASSIGNED}, 0, 0),
        (first_from_somewhere, {FROM, ASSIGNED}, 0, 0),
        (change_segment, {ASSIGNED}, 0, 0),
        (change_version, {ASSIGNED}, 0, 0),
        (change_where_from, {ASSIGNED}, 0, 0),
        (change_since_when, {ASSIGNED}, 0, 0),
        (announce_stranger, {ASSIGNED}, 0, 0),
        (announce_on_other_partition, {VERSIONS, ASSIGNED}, 1, 0),
        (lose_field, {VALID, VERSIONS}, 1, 0),
        (bury_record, {VALID, VERSIONS}, 1, 0),
        (misname_change, {VALID, VERSIONS}, 1, 0),
        (wrong_header, {VALID}, 0, 0),
        (wrong_key, {VALID}, 0, 0),
        (miscount, {COUNTS}, 0, 0),
        (miscount_within_the_sum, {COUNTS}, 0, 0),
        (lose_letter, {LETTERS}, 0, 0),
        (misfile_letter, {LETTERS}, 0, 0),
        (change_letter, {LETTERS}, 0, 0),
        (file_good_message, {LETTERS}, 0, 0),
        (file_without_origin, {LETTERS}, 0, 0),
        (lose_message_in_the_middle, {STATE, COUNTS}, 0, 0),
        (cut_log, {LOG}, 0, 0),
        (make_log_anew, {LOG}, 0, 0),
        (other_schema, {LOG, ASSIGNED}, 0, 0),
    ],
)
def test_what_is_broken_is_named(
    break_it: Callable[[World], None], checks: set[str], lost: int, duplicated: int
) -> None:
    world = truthful()
    break_it(world)
    report = world.audit()
    assert failed(report).keys() == checks, failed(report)
    assert not report.ok
    assert (report.lost, report.duplicated) == (lost, duplicated)


def test_an_offender_is_named_so_that_one_can_go_and_look() -> None:
    world = truthful()
    change_sum(world)
    lose_letter(world)
    gap_in_versions(world)
    offenders = [words for names in failed(world.audit()).values() for words in names]
    assert "user 'ann' (partition 0): all_1h is" in offenders[0]
    assert "purchases/1@2 was refused (empty), but is not on purchases.dlq" in offenders
    assert "user 'ann' (partition 0): version 5 follows 3 (segment-changes/0@4)" in offenders


# -- an output that does not begin at the beginning ------------------------------------------------


def membership(world: World, user: str, version: int, segment: int) -> bytes:
    key, incarnation = world.store.namespace_key(), 1
    return msgspec.json.encode(
        {
            "id": f"{change_identity(user.encode(), key)}-{incarnation}-{version}-abcd1234",
            "user": user,
            "version": version,
            "segment": segment,
            "name": f"segment {segment}",
            "kind": "at_risk",
            "since": iso(START_MS + version * DAY_MS),
            "last_event_at": iso(START_MS),
            "at": iso(START_MS + 9 * DAY_MS),
            "model": "1.4",
        }
    )


def tell_again(world: World, partition: int, user: str, version: int, segment: int) -> None:
    record = world.send(
        world.settings.topics.changes,
        partition,
        membership(world, user, version, segment),
    )
    record.told = [("ce_type", MEMBERSHIP.encode())]


def made_anew(world: World) -> None:
    """The topic of changes was deleted and made anew: what was delivered is on no topic."""
    world.topics[world.settings.topics.changes].clear()


def test_where_everybody_was_told_again_a_chain_may_begin_there() -> None:
    world = truthful()
    made_anew(world)
    assert {VERSIONS, ASSIGNED} <= failed(world.audit()).keys(), "nobody was told"
    tell_again(world, 0, "ann", 3, 3)
    tell_again(world, 1, "cid", 1, 2)
    tell_again(world, 0, "bob", 1, 1)
    report = world.audit()
    assert failed(report) == {}
    assert (report.lost, report.pending) == (0, 1)

    # A change after that goes on from what was told.
    world.announce(0, world.change("ann", 4, 3, 1))
    del world.store._partitions[0]
    world.process(0, {"ann": (4, 1), "bob": (2, 4)}, (world.change("bob", 2, 1, 4),))
    report = world.audit()
    assert failed(report) == {}
    assert report.lost == 0


@pytest.mark.parametrize(
    ("version", "segment", "checks"),
    [(3, 2, {ASSIGNED}), (2, 1, {ASSIGNED}), (1, 3, {ASSIGNED})],
    ids=["another segment", "an older one", "a much older one"],
)
def test_what_was_told_again_has_to_be_so(version: int, segment: int, checks: set[str]) -> None:
    world = truthful()
    made_anew(world)
    tell_again(world, 1, "cid", 1, 2)
    tell_again(world, 0, "bob", 1, 1)
    tell_again(world, 0, "ann", version, segment)
    assert failed(world.audit()).keys() == checks


def test_a_change_after_what_was_told_again_begins_there() -> None:
    world = truthful()
    made_anew(world)
    tell_again(world, 1, "cid", 1, 2)
    tell_again(world, 0, "bob", 1, 1)
    tell_again(world, 0, "ann", 3, 2)
    world.announce(0, world.change("ann", 4, 3, 1))
    del world.store._partitions[0]
    world.process(0, {"ann": (4, 1), "bob": (2, 4)}, (world.change("bob", 2, 1, 4),))
    assert failed(world.audit()).keys() == {FROM}


def test_what_retention_has_deleted_of_the_output_is_not_judged() -> None:
    world = truthful()
    topic = world.settings.topics.changes
    kept = [one for one in world.topics[topic] if one.in_partition == 1 or one.at_offset >= 2]
    world.topics[topic] = kept
    report = world.audit()
    assert failed(report) == {}
    assert report.lost == 0
    unjudged = {check.name: check.unjudged for check in report.checks}
    assert unjudged[VERSIONS] > 0


def test_users_who_lie_elsewhere_belong_among_the_dead_letters() -> None:
    world = World()
    refuse = world.settings.model_copy(update={"worker": Worker()})
    by_place = {partition_of(name.encode(), 2): name for name in ("ann", "bob", "cleo", "dan")}
    assert set(by_place) == {0, 1}
    for number, name in by_place.items():
        world.click(number, name, 1)
    elsewhere = encoded(time_ms=START_MS, userId=by_place[1], event=VIEW, messageId="elsewhere")
    world.refuse("clickstream", 0, elsewhere, Reason.MISPLACED)
    world.settings = refuse
    for number in range(2):
        world.process(number)
    assert world.audit().ok
    world.topics["clickstream.dlq"].clear()
    assert not world.audit().ok


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


# -- turns of kind -----------------------------------------------------------------------------


def turned(**rest: str) -> World:
    """A user who came to segment 3, which then turned into another kind."""
    world = World()
    world.click(0, "ann", 0)
    world.announce(0, world.change("ann", 1, None, 3))
    turn = {"kind_to": "dormant", "cause": Cause.SEGMENT_TURNED} | rest
    world.announce(0, world.change("ann", 2, 3, 3, **turn))
    world.process(0, {"ann": (2, 3)})
    world.reposition(0, kinds=["at_risk", "dormant"])
    world.edit(0, "ann", "kind", lambda _: 2)
    world.edit(0, "ann", "previous", lambda _: 0)
    world.edit(0, "ann", "since", lambda _: START_MS + DAY_MS)
    return world


def test_a_turn_moves_nobody_and_is_a_link_of_the_chain() -> None:
    assert failed(turned().audit()) == {}


def test_a_turn_from_a_kind_that_was_not_told_is_named() -> None:
    offenders = failed(turned(kind_from="loyal").audit())["from_is_the_previous_to"]
    assert "from kind loyal, but the user was told at_risk" in offenders[0]


def test_a_row_that_knows_another_kind_than_was_told_is_named() -> None:
    world = turned()
    world.edit(0, "ann", "kind", lambda _: 1)
    offenders = failed(world.audit())[ASSIGNED]
    assert "the store says kind at_risk; the last change says dormant" in offenders[0]


def test_a_row_that_came_when_its_segment_turned_is_named() -> None:
    world = turned()
    world.edit(0, "ann", "since", lambda _: START_MS + 2 * DAY_MS)
    assert "the last move says" in failed(world.audit())[ASSIGNED][0]
