"""A small world to audit: two partitions, a few shoppers, everything as it should be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np

from consumers.audit.report import AuditReport
from consumers.audit.run import audit
from stream.config import Broker, Clock, Publish, Settings, Topics, Worker
from stream.errors import TopicMissingError
from stream.events import CHANGED, LEVEL_CHANGED, Cause, Reason
from stream.features import Feature
from stream.hashing import change_identity
from stream.levels.declare import Level
from stream.memory import Memory
from stream.oracle import Marks, Message, Oracle
from stream.partition import Partition
from stream.store.memory import MemoryStore
from stream.store.state import OutboxEntry, Position
from stream.units import DAY_MS, iso
from tests.fakes import mark_value
from tests.strategies import (
    EVERY_AGGREGATE,
    REFUND,
    START_MS,
    VIEW,
    columns,
    encoded,
)

STEPS = ("customer", "prospect")
"""Of the first level that is declared."""


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

    def __init__(
        self, features: tuple[Feature, ...] = EVERY_AGGREGATE, levels: tuple[Level, ...] = ()
    ) -> None:
        self.settings = Settings(
            topics=Topics(partitions=2),
            clock=Clock(mode="watermark"),
            # Who lies where is the tests' choice here; test_letters looks at the rule.
            worker=Worker(misplaced="accept"),
            features=features,
            kinds=(),
            levels=levels,
        )
        self.table = self.settings.table()
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

    def crossing(
        self, user: str, version: int, before: str | None, after: str | None, **rest: Any
    ) -> bytes:
        """Of the first level that is declared."""
        key, level = self.store.namespace_key(), self.settings.levels[0]
        return msgspec.json.encode(
            {
                "id": f"{change_identity(user.encode(), key)}-1-{version}",
                "user": user,
                "version": version,
                "level": level.name,
                "step_from": before,
                "step_to": after,
                "of": level.of,
                "value": 1.0,
                "limit": 1.0,
                "cause": Cause.USER_MOVED,
                "at": iso(START_MS + version * DAY_MS),
                "last_event_at": iso(START_MS),
                "model": "1.4",
                "why": [],
                "rest": None,
                **rest,
            }
        )

    def announce(self, partition: int, payload: bytes) -> FakeRecord:
        record = self.send(self.settings.topics.changes, partition, payload)
        change = json.loads(payload)
        record.about = change["user"].encode()
        kind = LEVEL_CHANGED if "level" in change else CHANGED
        record.told = [
            ("ce_specversion", b"1.0"),
            ("ce_id", change["id"].encode()),
            ("ce_type", kind.encode()),
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
            mine = [one for one in told if one.get("user") == user]
            moved = version
            for change in mine:
                if "level" in change:
                    row["levels"][0, 0] = 1 + STEPS.index(change["step_to"])
                    if change["version"] == version:
                        moved = max(one["version"] for one in mine if "level" not in one)
            for change in mine:
                if change.get("version") == moved:
                    row["previous"] = change["from"] or 0
                    row["since"] = START_MS + moved * DAY_MS
        commit = owner.commit(offsets, oracle.counts, START_MS + DAY_MS)
        position = msgspec.structs.replace(
            commit.position,
            incarnation=incarnation,
            first=first,
            output=output,
            users=0,
            kinds=["at_risk"],
            levels={one.name: list(STEPS) for one in self.settings.levels},
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


def clicks(minutes: int) -> World:
    world = World()
    for minute in range(minutes):
        world.click(0, f"user {minute % 7}", minute)
    return world


def retain(world: World, topic: str, partition: int, first: int) -> None:
    """Delete what stands before an offset, as retention does."""
    world.topics[topic] = [
        r for r in world.topics[topic] if r.in_partition != partition or r.at_offset >= first
    ]


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


def recommit(world: World, partition: int, **rest: Any) -> None:
    """Commit what the log says by now, in place of what there is."""
    del world.store._partitions[partition]
    world.process(partition, **rest)


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
