"""A log, a store, a trainer and the activity worker between them, for tests without servers.

What goes wrong around the worker changes nothing in what it makes: `assert_true` holds it to that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from consumers import group
from consumers.activity import ActivityWorker
from consumers.decode import Reject
from consumers.plain import parse_time
from stream.config import Settings
from stream.delivered import Delivered
from stream.errors import BrokerUnavailableError
from stream.events import LineageRecord
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.health import Health
from stream.oracle import Marks, Message, Oracle, fold_log
from stream.store.memory import MemoryStore
from stream.store.state import Position
from stream.trainer import Trainer
from stream.units import DAY_MS
from tests.fakes import Clock, FakeOutput, ScriptedConsumer, UnreliableStore, mark_value
from tests.strategies import CART, MESSAGES, ORDER, REFUND, START_MS, VIEW, encoded

TABLE = FeatureTable(DEFAULT_FEATURES)


PARTITIONS = 2


INPUTS = ("clickstream", "purchases")


EVERYTHING = [(topic, number) for number in range(PARTITIONS) for topic in INPUTS]


TURNS = 30_000


SETTLED = 400
"""Enough for what may be on its way to the output to be waited for as well."""


IDLE = 100
"""Looks at an empty log after which there is nothing to come: a second of the clock, which is two
sessions and five sweeps."""


@dataclass
class Letters:
    """Dead letters, kept; a number of attempts may fail."""

    filed: list[Reject] = field(default_factory=list)
    failures: int = 0

    def file(self, refused: Sequence[Reject]) -> None:
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailableError("dead letters not delivered")
        self.filed.extend(refused)


class Scene:
    """A log, a store, a trainer and the worker between them."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        mode: str = "live",
        store: UnreliableStore | None = None,
        train: bool = True,
        log: dict[tuple[str, int], list[Any]] | None = None,
        store_section: dict[str, Any] | None = None,
        **sections: dict[str, Any],
    ) -> None:
        layers: dict[str, Any] = {
            "broker": {"group_protocol": "consumer", "session_timeout_seconds": 0.5},
            "topics": {"partitions": PARTITIONS},
            "clock": {"mode": mode},
            "store": store_section or {},
            "worker": {"sweep_seconds": 0.2, "misplaced": "accept"},
            "publisher": {"deliver_seconds": 0.001},
            "learning": {"segments": 3, "starts": 1, "first_model_users": 20, "sample_users": 200},
            "populations": (),
        }
        for name, section in sections.items():
            layers[name] = layers.get(name, {}) | section
        self.settings = Settings.model_validate(layers)
        self.marks = (
            Marks(MemoryStore().namespace_key(), self.settings.clock.mark_seconds)
            if mode == "watermark"
            else None
        )
        self.clock = Clock(START_MS / 1_000 + 40 * 86_400)
        self.consumer = ScriptedConsumer(self.clock)
        self.consumer.log = log or {}
        self.consumer.partitions = dict.fromkeys(INPUTS, PARTITIONS)
        self.store = store or UnreliableStore()
        self.letters = Letters()
        self.output = FakeOutput()
        self.health = Health(self.clock.monotonic)
        self.models: list[str] = []
        self.trainer = Trainer(self.settings, self.store, self._announce) if train else None
        monkeypatch.setattr(group, "Consumer", lambda _options: self.consumer)

    def _announce(self, model: bytes, lineage: Sequence[LineageRecord], origin: bytes) -> None:
        del lineage, origin
        self.models.append(json.loads(model)["model"])

    def run(
        self,
        each_turn: Callable[[], None] = lambda: None,
        until: Callable[[], bool] = lambda: False,
        idle: int = IDLE,
    ) -> Scene:
        """Run one worker until it has nothing more to do; it is given everything at first."""
        if not self.consumer.script:
            self.consumer.then(self.consumer.give(*EVERYTHING))
        self.consumer.idle = 0
        turns = 0

        def stop() -> bool:
            nonlocal turns
            turns += 1
            assert turns < TURNS, "the worker does not come to an end"
            each_turn()
            if self.trainer is not None:
                self.trainer.step()
            return until() or self.consumer.idle > idle

        self.consumer.positions.clear()
        self.consumer.paused.clear()
        pulse = self.health.alive("activity", 1_000.0)
        worker = ActivityWorker(
            self.settings,
            self.store,
            self.letters,
            self.output,
            self.health,
            pulse,
            self.clock,
        )
        try:
            worker.run(stop)
        finally:
            assert self.consumer.closed
            self.consumer.closed = False
        return self

    # -- what came of it --

    def position(self, number: int) -> Position:
        found = self.store.position(number)
        assert found is not None
        return found

    def rows(self, number: int) -> dict[bytes, bytes]:
        return dict(self.store.load(number))

    def entries(self, number: int) -> list[Any]:
        return self.store.outbox({number: "0-0"}, 10**6, 0.0).get(number, [])

    def changes(self, number: int) -> list[dict[str, Any]]:
        return [json.loads(c) for entry in self.entries(number) for c in entry.changes]

    def truth(self, number: int) -> Oracle:
        return fold_log(
            DEFAULT_FEATURES,
            self.settings.worker,
            [
                [
                    Message(message.value(), message.timestamp()[1], topic, (name, number))
                    for message in self.consumer.log.get((name, number), [])
                    if message.offset() >= self.consumer.low.get((name, number), 0)
                ]
                for topic, name in enumerate(INPUTS)
            ],
            self.marks,
            agreed=self.store.currency(),
        )

    def everything(self) -> tuple[Any, ...]:
        """All that a replay makes, but for wall-clock times."""
        return (
            [self.rows(n) for n in range(PARTITIONS)],
            [self.changes(n) for n in range(PARTITIONS)],
            [self.position(n) for n in range(PARTITIONS)],
            self.store.model(),
        )


def assert_true(scene: Scene) -> None:
    """Rows are the fold of the log, counts are its sum, and changes lead to the rows."""
    for number in range(PARTITIONS):
        truth, rows, position = scene.truth(number), scene.rows(number), scene.position(number)
        assert position.counts == truth.counts
        assert position.offsets == [
            len(scene.consumer.log.get((topic, number), [])) for topic in INPUTS
        ]
        assert sorted(truth.users) == sorted(user.decode() for user in rows)
        now = scene.clock.wall_ms()
        for name, user in truth.users.items():
            row = np.frombuffer(rows[name.encode()], TABLE.dtype)
            vector = TABLE.vectors(row, now)[0]
            for column, reading in enumerate(user.readings(DEFAULT_FEATURES, now).values()):
                assert reading.agrees(float(vector[column]), 1e-9, 1e-9), (name, column)
        assert_chained(scene, number)


def assert_chained(scene: Scene, number: int) -> None:
    last: dict[str, dict[str, Any]] = {}
    records = scene.changes(number)
    assert len({record["id"] for record in records}) == len(records)
    for record in records:
        before = last.get(record["user"])
        assert record["from"] == (before["to"] if before else None)
        assert record["version"] == (before["version"] + 1 if before else 1)
        last[record["user"]] = record
    for user, raw in scene.rows(number).items():
        row = np.frombuffer(raw, TABLE.dtype)[0]
        record = last.get(user.decode(), {"to": 0, "version": 0})
        assert (row["segment"], row["version"]) == (record["to"], record["version"])


@lru_cache
def events(seed: int, days: int = 14) -> list[tuple[int, str, int, bytes]]:
    """(time, topic, partition, message) in order of time: habits, silences, repeats, rubbish."""
    rng = np.random.default_rng(seed)
    users = 45
    habit = rng.choice([0.5, 0.15, 0.05], users)
    found: list[tuple[int, str, int, bytes]] = []
    for day in range(days):
        for user in np.flatnonzero(rng.random(users) < habit).tolist():
            for _ in range(int(rng.integers(1, 5))):
                name = str(rng.choice([VIEW, CART, ORDER, REFUND], p=[0.5, 0.2, 0.25, 0.05]))
                time_ms = START_MS + day * DAY_MS + int(rng.integers(0, DAY_MS))
                raw = encoded(
                    time_ms=time_ms,
                    event=name,
                    userId=f"user {user}",
                    messageId=f"m{len(found)}",
                    properties={"revenue": int(rng.integers(1, 90)), "category": f"c{user % 5}"},
                )
                copies = 1 + int(rng.random() < 0.05)
                topic = INPUTS[name in {ORDER, REFUND}]
                found.extend([(time_ms, topic, user % PARTITIONS, raw)] * copies)
        odd, _, _ = MESSAGES[int(rng.integers(len(MESSAGES)))]
        if odd is not None and b"segstream-mark" not in odd:
            time_ms = START_MS + day * DAY_MS
            found.append((time_ms, INPUTS[day % 2], day % PARTITIONS, odd))
            # Its user acts as well: who is known by what the shop did only is in no segment.
            acted = encoded(time_ms=time_ms, event=VIEW, messageId=f"odd {day}")
            found.append((time_ms, INPUTS[0], day % PARTITIONS, acted))
    return sorted(found, key=lambda one: one[0])


def write(scene: Scene, log: Sequence[tuple[int, str, int, bytes]]) -> None:
    for time_ms, topic, number, raw in log:
        scene.consumer.append(topic, number, raw, time_ms)


def write_marked(
    scene: Scene, log: Sequence[tuple[int, str, int, bytes]], until_day: int = 30
) -> None:
    """The same with a mark a day in every partition, the first before all events."""
    todo = list(log)
    for day in range(until_day):
        mark = START_MS + day * DAY_MS
        while todo and todo[0][0] < mark:
            time_ms, topic, number, raw = todo.pop(0)
            scene.consumer.append(topic, number, raw, time_ms)
        for topic, number in EVERYTHING:
            scene.consumer.append(
                topic, number, mark_value(mark, at=(topic, number)), mark, key=None
            )
    assert not todo


def delivered(scene: Scene, number: int) -> list[Delivered]:
    """The changes in an outbox, as a publisher has put them on the output."""
    return [
        Delivered(
            change["user"],
            int(change["id"].split("-")[1]),
            change["version"],
            change["from"] or 0,
            change["to"],
            parse_time(change["at"]),
            change["kind_to"],
        )
        for change in scene.changes(number)
    ]


def crowded(monkeypatch: pytest.MonkeyPatch, mode: str, marks: bool = False) -> Scene:
    """Six times as many events as may be held, in portions of 100, all of partition 0."""
    clock = {"mode": mode, "idle_seconds": 0.5}
    scene = Scene(monkeypatch, mode=mode, clock=clock, worker={"buffer_events": 1_000})
    scene.consumer.portion = 100
    if marks:
        for topic, number in EVERYTHING:
            scene.consumer.append(
                topic, number, mark_value(START_MS, at=(topic, number)), START_MS, key=None
            )
    for i in range(6_000):
        raw = encoded(time_ms=START_MS + i, messageId=f"m{i}", userId=f"user {i % 50}", event=VIEW)
        scene.consumer.append(INPUTS[i % 2], 0, raw, START_MS + i)
    if marks:
        for topic, number in EVERYTHING:
            mark = START_MS + DAY_MS
            scene.consumer.append(
                topic, number, mark_value(mark, at=(topic, number)), mark, key=None
            )
    return scene


def ahead(scene: Scene) -> int:
    """Events of partition 0 that were read and are not committed."""
    if scene.store.position(0) is None:
        return 0
    read = [scene.consumer.positions.get((topic, 0), 0) for topic in INPUTS]
    return sum(read) - sum(scene.position(0).offsets)
