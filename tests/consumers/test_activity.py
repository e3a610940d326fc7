"""The worker, from bytes to rows: what goes wrong around it changes nothing in what it makes."""

from __future__ import annotations

import copy
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import KafkaError, TopicPartition

from consumers import activity
from consumers.activity import ActivityWorker, StateLostError
from consumers.decode import Reject
from consumers.lag import LagMeter
from consumers.plain import parse_time
from consumers.topic_watch import TopicReplacedError
from stream import partition as partitions
from stream.config import ConfigError, Settings
from stream.errors import BrokerUnavailableError, OffsetOutOfRangeError
from stream.events import Counts, LineageRecord
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.health import Health
from stream.learning.state import TrainerState
from stream.marks import MarkSigner
from stream.metrics import REGISTRY
from stream.oracle import Marks, Message, Oracle, fold_log
from stream.partition import Delivered
from stream.store.memory import MemoryStore
from stream.store.state import Answer, Position, StoreUnavailableError, key_of
from stream.trainer import Trainer
from stream.tuning import Tuning
from stream.units import DAY_MS
from tests.fakes import Clock, FakeOutput, ScriptedConsumer, Trouble, UnreliableStore, mark_value
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
        monkeypatch.setattr(activity, "Consumer", lambda _options: self.consumer)
        monkeypatch.setattr(activity, "time", self.clock)

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
            self.clock.wall_ms,
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


# -- live mode -----------------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["at once", "deferred"])
def store(request: pytest.FixtureRequest) -> UnreliableStore:
    """A store that answers at once, and one that answers later."""
    return UnreliableStore(deferred=request.param)


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Live mode, with a fortnight of events in the log and a store that answers later."""
    scene = Scene(monkeypatch, store=UnreliableStore(deferred=True))
    scene.consumer.portion = 5
    write(scene, events(1))
    return scene


def test_live_the_log_becomes_rows_changes_and_counts(
    live: Scene, store: UnreliableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Scene(monkeypatch, store=store, log=live.consumer.log)
    live.consumer.portion = 5
    assert_true(live.run())
    assert live.models[0] == "1.0"
    assert sum(len(live.changes(n)) for n in range(PARTITIONS)) >= 40
    assert all(live.position(n).model for n in range(PARTITIONS))
    rejected = sum(live.position(n).counts.rejected for n in range(PARTITIONS))
    assert len(live.letters.filed) == rejected > 5


def test_live_every_known_kind_of_message_gets_its_fate(
    monkeypatch: pytest.MonkeyPatch, store: UnreliableStore
) -> None:
    scene = Scene(monkeypatch, store=store, worker={"reject_ratio_limit": 1.0})
    write(scene, [(START_MS, INPUTS[i % 2], 0, raw) for i, (raw, _, _) in enumerate(MESSAGES)
                  if raw is not None])  # fmt: skip
    scene.consumer.append(INPUTS[0], 0, None, START_MS)
    assert_true(scene.run())
    found = Counter(reject.reason for reject in scene.letters.filed)
    assert found == Counter(reason for _, _, reason in MESSAGES if reason)


def test_live_a_sweep_moves_who_is_silent(live: Scene) -> None:
    live.run()
    before = [len(live.changes(n)) for n in range(PARTITIONS)]
    live.clock.advance(200 * 86_400)
    live.run()
    assert_true(live)
    later = [c for n in range(PARTITIONS) for c in live.changes(n)[before[n] :]]
    assert {"time_passed", "model_moved"} & {c["cause"] for c in later}


def test_live_a_worker_that_starts_again_goes_on_where_it_was(live: Scene) -> None:
    half = {where: messages[: len(messages) // 2] for where, messages in live.consumer.log.items()}
    whole, live.consumer.log = live.consumer.log, half
    live.run()
    first = live.position(0)
    live.consumer.log = whole
    tried = len(live.store.commits)
    live.run()
    assert_true(live)
    again = [commit for number, commit, _ in live.store.commits[tried:] if number == 0]
    assert again[0].position.offsets[0] >= first.offsets[0]
    assert again[0].position.counts.consumed >= first.counts.consumed


def test_live_group_offsets_follow_for_lag_tools(live: Scene) -> None:
    live.run(idle=200)
    for number in range(PARTITIONS):
        for topic, offset in zip(INPUTS, live.position(number).offsets, strict=True):
            shown = live.consumer.group[topic, number]
            assert shown.offset == offset
            counts = live.position(number).counts
            assert shown.metadata == f"segstream/1/{counts.consumed + counts.marks}"


# -- refusals of the store -----------------------------------------------------------------------


def test_fenced_it_drops_everything_and_takes_over_again_after_a_session(live: Scene) -> None:
    def steal() -> None:
        live.store.acquire(0, "another")

    live.store.trouble.extend([lambda: None] * 3 + [steal])
    live.run()
    assert_true(live)
    answers = [(number, answer) for number, _, answer in live.store.commits]
    assert answers.count((0, Answer.FENCED)) == 1
    fenced = answers.index((0, Answer.FENCED))
    after = live.store.commits[fenced + 1 :]
    assert any(number == 0 and answer is Answer.OK for number, _, answer in after)


def test_fenced_it_waits_a_session_before_it_takes_over(live: Scene) -> None:
    live.store.trouble.append(Answer.FENCED)
    fenced_at: list[float] = []

    def watch() -> None:
        if not fenced_at and any(a is Answer.FENCED for _, _, a in live.store.commits):
            fenced_at.append(live.clock.seconds)
            live.store.acquire = record  # type: ignore[method-assign]

    taken_at: list[float] = []
    acquire = live.store.acquire

    def record(partition: int, token: str) -> tuple[int, Position] | None:
        taken_at.append(live.clock.seconds)
        return acquire(partition, token)

    live.run(watch)
    assert taken_at[0] - fenced_at[0] >= 0.4
    assert_true(live)


def test_diverged_it_replays_from_what_the_store_has(live: Scene) -> None:
    kept: list[Any] = []

    def roll_back() -> None:
        live.store._partitions[0] = kept[0]

    def watch() -> None:
        if not kept and len(live.store.commits) > 4:
            kept.append(copy.deepcopy(live.store._partitions[0]))
            live.store.trouble.extend([lambda: None, lambda: None, lambda: None, roll_back])

    live.run(watch, idle=SETTLED)
    assert any(answer is Answer.DIVERGED for _, _, answer in live.store.commits)
    assert_true(live)


# -- what was delivered is true ------------------------------------------------------------------


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
        )
        for change in scene.changes(number)
    ]


def test_what_was_delivered_of_lost_commits_is_taken_from_the_output(live: Scene) -> None:
    """The store goes back to before anything; what it knew then is on the output already."""
    live.run()
    told = [delivered(live, number) for number in range(PARTITIONS)]
    assert all(told)
    rows_before = [live.rows(number) for number in range(PARTITIONS)]
    for number in range(PARTITIONS):
        begin = Position([0, 0], TABLE.schema, model="1.0")
        live.store.acquire(number, "x")
        live.store.create(number, "x", begin, replace=True)
    live.output.delivered = dict(enumerate(told))
    live.clock.advance(40 * 86_400)  # by now, most would be decided otherwise
    live.run(idle=SETTLED)

    for number in range(PARTITIONS):
        last = {one.user: one for one in told[number]}
        again = live.changes(number)
        ids = {(one.user, one.version) for one in told[number]}
        assert not ids & {(c["user"], c["version"]) for c in again}, "one payload an id"
        for change in again:
            before = last.get(change["user"])
            assert change["version"] == (before.version + 1 if before else 1)
            assert (change["from"] or 0) == (before.after if before else 0)
            last[change["user"]] = Delivered(
                change["user"], 1, change["version"], 0, change["to"], parse_time(change["at"])
            )
        rows = live.rows(number)
        assert set(rows) == set(rows_before[number])
        for user, raw in rows.items():
            row, one = np.frombuffer(raw, TABLE.dtype)[0], last[user.decode()]
            assert (row["version"], row["segment"], row["since"]) == (
                one.version,
                one.after,
                one.at_ms,
            )
        assert live.position(number).users == len(rows)


@pytest.mark.slow
def test_a_partition_put_back_alone_comes_to_what_was_delivered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From mark to mark, under a model that is newer than those it met."""
    scene = Scene(monkeypatch, mode="watermark", learning={"refit_seconds": "2d"})
    write_marked(scene, events(3))
    kept: list[Any] = []

    def watch() -> None:
        known = scene.position(0).model if scene.store.position(0) else ""
        if not kept and known and len(delivered(scene, 0)) > 5:
            kept.append(copy.deepcopy(scene.store._partitions[0]))

    scene.run(watch)
    assert scene.position(0).model != kept[0].position
    told = delivered(scene, 0)
    rows = scene.rows(0)
    lost = told[sum(len(entry.changes) for entry in kept[0].outbox) :]
    assert len(lost) > 10
    scene.store._partitions[0] = kept[0]
    scene.store._partitions[0].outbox.clear()
    known_to = len(told) - len(lost)
    scene.output.delivered = {0: told}
    position = msgspec.structs.replace(scene.position(0), known_to=known_to)
    scene.store._partitions[0].position = msgspec.json.encode(position)
    scene.run()
    assert scene.output.asked[-1] == {0: known_to}
    ids = {(one.user, one.version) for one in told}
    again = scene.changes(0)
    assert not ids & {(change["user"], change["version"]) for change in again}
    last = {one.user: one for one in told}
    for change in again:
        before = last.get(change["user"])
        assert change["version"] == (before.version + 1 if before else 1)
        assert (change["from"] or 0) == (before.after if before else 0)
        last[change["user"]] = Delivered(
            change["user"], 1, change["version"], 0, change["to"], parse_time(change["at"])
        )
    assert set(scene.rows(0)) == set(rows)
    for user, raw in scene.rows(0).items():
        row = np.frombuffer(raw, TABLE.dtype)[0]
        if one := last.get(user.decode()):
            assert (row["version"], row["segment"]) == (one.version, one.after)
            assert row["since"] == one.at_ms


def test_until_lost_users_are_back_the_output_is_read_again(live: Scene) -> None:
    live.run(idle=0)
    lost = Delivered("never seen again", 1, 3, 1, 2, START_MS)
    live.output.delivered = {0: [lost]}
    known = live.position(0).known_to
    live.store._partitions[0].delivered_to = 1
    live.run(idle=SETTLED)
    assert live.output.asked[-1][0] == known
    assert live.position(0).known_to == known, "the change is not in a row yet"
    live.output.delivered = {}
    live.run(idle=SETTLED)
    assert live.position(0).known_to == 1
    assert live.position(1).known_to == 0


def test_changes_of_another_incarnation_say_nothing_of_this_one(live: Scene) -> None:
    live.run(idle=0)
    user = next(iter(live.rows(0))).decode()
    live.output.delivered = {0: [Delivered(user, 2, 99, 1, 2, START_MS)]}
    assert_chained(live.run(), 0)


def test_after_another_run_of_the_store_it_waits_before_it_decides(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run(idle=0)
    asked, began = len(live.output.asked), live.clock.seconds
    monkeypatch.setattr(live.store, "run", lambda: "another")
    live.run(until=lambda: len(live.output.asked) > asked, idle=SETTLED)
    assert live.clock.seconds - began >= live.settings.publisher.settle_seconds
    live.run(idle=SETTLED)
    assert_true(live)
    assert live.position(0).store_run == "another"
    asked, began = len(live.output.asked), live.clock.seconds
    live.run(until=lambda: len(live.output.asked) > asked)
    assert live.clock.seconds - began < live.settings.publisher.settle_seconds


def test_a_broker_that_is_slow_to_answer_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run(idle=0)
    asked, began = len(live.output.asked), live.clock.seconds
    monkeypatch.setattr(live.store, "run", lambda: "another")
    slow_until, watermarks = began + 7.0, live.consumer.get_watermark_offsets

    def stalled(*arguments: Any, **options: Any) -> Any:
        if live.clock.seconds < slow_until:
            live.clock.advance(2.0)
        return watermarks(*arguments, **options)

    monkeypatch.setattr(live.consumer, "get_watermark_offsets", stalled)
    live.run(until=lambda: len(live.output.asked) > asked, idle=10 * SETTLED)
    assert live.clock.seconds >= slow_until + live.settings.publisher.settle_seconds


def test_an_output_made_anew_is_read_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run(idle=0)
    for state in live.store._partitions.values():
        state.delivered_to = 7
    live.run(idle=SETTLED)
    assert live.position(0).known_to == 7
    live.run(idle=0)
    assert live.output.asked[-1] == {0: 7, 1: 7}
    live.output.ids["segment-changes"] = "made anew"
    write(live, [(live.clock.wall_ms(), INPUTS[0], 0, encoded(time_ms=live.clock.wall_ms()))])
    monkeypatch.setattr(live.store, "delivered_to", unanswered)
    live.run(idle=SETTLED)
    assert live.output.asked[-1] == {0: 0, 1: 0}
    assert live.position(0).known_to == 0


def unanswered(partitions: Sequence[int]) -> list[int]:
    raise StoreUnavailableError(f"of partitions {partitions} nothing is known")


@pytest.mark.parametrize("topic", INPUTS)
def test_an_input_made_anew_stops_it(live: Scene, topic: str) -> None:
    live.run(idle=0)
    live.output.ids[topic] = "made anew"
    with pytest.raises(TopicReplacedError, match=rf"topic {topic} was deleted and made anew"):
        live.run(idle=0)


def test_an_input_made_anew_meanwhile_stops_it(live: Scene) -> None:
    def replace() -> None:
        if live.consumer.idle > 10:
            live.output.ids["purchases"] = "made anew"

    with pytest.raises(TopicReplacedError, match="topic purchases"):
        live.run(replace, idle=10_000)


def test_partitions_are_served_while_others_load(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    """One partition has so many users that loading them takes many turns."""
    live.run()
    load = live.store.load

    def slowly(number: int) -> Iterator[tuple[bytes, bytes]]:
        for user in load(number):
            live.clock.advance(1.0 if number == 1 else 0.0)
            yield user

    monkeypatch.setattr(live.store, "load", slowly)
    monkeypatch.setattr(partitions, "LOADED_AT_ONCE", 2)
    write(live, [(live.clock.wall_ms(), INPUTS[0], 0, encoded(time_ms=live.clock.wall_ms()))] * 3)
    taken: list[int] = []
    commits = len(live.store.commits)

    def watch() -> None:
        if REGISTRY.get_sample_value("segstream_partition_users", {"partition": "1"}) is None:
            taken.extend(number for number, *_ in live.store.commits[commits:])

    live.run(watch, idle=SETTLED)
    assert set(taken) == {0}
    assert_true(live)


def test_a_rebalance_serves_no_partition_that_waits_to_be_read(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    """Its place in the log is moved when its users are there; in a rebalance that is no time to."""
    live.run()
    load, rebalancing, moved = live.store.load, [False], Counter[bool]()
    seek = live.consumer.seek

    def slowly(number: int) -> Iterator[tuple[bytes, bytes]]:
        for user in load(number):
            live.clock.advance(0.0 if rebalancing[0] else 1.0)
            yield user

    def watched_seek(where: TopicPartition) -> None:
        moved[rebalancing[0]] += 1
        seek(where)

    def give_second() -> None:
        rebalancing[0] = True
        live.consumer.give(*EVERYTHING[2:])()
        rebalancing[0] = False

    monkeypatch.setattr(live.store, "load", slowly)
    monkeypatch.setattr(live.consumer, "seek", watched_seek)
    monkeypatch.setattr(partitions, "LOADED_AT_ONCE", 2)
    one_by_one = [live.consumer.give(where) for where in EVERYTHING[:2]]
    live.consumer.then(*one_by_one, lambda: None, give_second)
    live.run(idle=SETTLED)
    assert moved == {False: 2}
    assert_true(live)


def test_users_that_vanished_are_a_loss(live: Scene) -> None:
    live.run()
    gone = next(iter(live.store._partitions[1].users))
    del live.store._partitions[1].users[gone]
    users = live.position(1).users
    with pytest.raises(StateLostError, match=rf"partition 1 has {users - 1} of {users} users"):
        live.run()


@pytest.mark.parametrize("what", ["users", "position"])
def test_users_or_position_put_back_alone_are_a_loss(live: Scene, what: str) -> None:
    live.run()
    before = copy.deepcopy(live.store._partitions[1])
    write(live, [(live.clock.wall_ms(), INPUTS[0], 1, encoded(time_ms=live.clock.wall_ms()))])
    live.run()
    state = live.store._partitions[1]
    if what == "users":
        users = before.users | {u: row for u, row in state.users.items() if u not in before.users}
        state.users, state.users_commit = users, before.users_commit
    else:
        state.position, state.sequence = before.position, before.sequence
        state.last_commit, state.rows_commit = before.last_commit, before.rows_commit
    with pytest.raises(StateLostError, match="partition 1 and its users are not of the same mom"):
        live.run()


def test_another_secret_is_a_loss_that_may_be_accepted(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run()
    ids = {c["id"] for n in range(PARTITIONS) for c in live.changes(n)}
    live.store._key = key_of("another")
    with pytest.raises(StateLostError, match=r"another secret of namespace segstream.*segstream:k"):
        live.run()
    scene = Scene(
        monkeypatch, store=live.store, log=live.consumer.log, store_section={"accept_loss": True}
    )
    scene.consumer.group = live.consumer.group
    scene.run()
    assert [scene.position(n).incarnation for n in range(PARTITIONS)] == [2, 2]
    assert not ids & {c["id"] for n in range(PARTITIONS) for c in scene.changes(n)}
    assert_true(scene)


def test_a_loss_of_users_may_be_accepted(monkeypatch: pytest.MonkeyPatch, live: Scene) -> None:
    live.run()
    live.store._partitions[1].users.clear()
    scene = Scene(
        monkeypatch, store=live.store, log=live.consumer.log, store_section={"accept_loss": True}
    )
    scene.consumer.group = live.consumer.group
    scene.run()
    assert scene.position(1).incarnation == 2
    assert scene.position(0).incarnation == 1
    assert_true(scene)


def test_what_another_has_taken_over_meanwhile_is_not_begun_anew(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    """A worker that is frozen while it loads; by then another has accepted the loss."""
    live.run()
    live.store._partitions[1].users.clear()
    scene = Scene(
        monkeypatch, store=live.store, log=live.consumer.log, store_section={"accept_loss": True}
    )
    scene.consumer.group = live.consumer.group
    load = scene.store.load

    def thaw_late(number: int) -> Iterator[tuple[bytes, bytes]]:
        yield from load(number)
        if number == 1:
            monkeypatch.setattr(scene.store, "load", load)
            begin = msgspec.structs.replace(
                scene.position(1),
                offsets=[0, 0],
                users=0,
                incarnation=9,
                counts=Counts(),
                clocks=[],
                ids=[],
                orders=[],
            )
            scene.store.acquire(1, "another")
            scene.store.create(1, "another", begin, replace=True)

    monkeypatch.setattr(scene.store, "load", thaw_late)
    scene.run(idle=SETTLED)
    assert scene.position(1).incarnation == 9
    assert_true(scene)


def test_what_was_delivered_before_an_accepted_loss_is_of_another_incarnation(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run()
    known = delivered(live, 1)
    live.store._partitions[1].users.clear()
    scene = Scene(
        monkeypatch, store=live.store, log=live.consumer.log, store_section={"accept_loss": True}
    )
    scene.consumer.group, scene.output.delivered[1] = live.consumer.group, known
    scene.run()
    assert scene.output.asked[0][1] < len(known), "they were read"
    assert scene.position(1).incarnation == 2
    assert_true(scene)


def test_a_shop_in_which_nothing_had_happened_has_lost_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    empty = Scene(monkeypatch)
    empty.run()
    assert empty.consumer.group
    scene = Scene(monkeypatch)
    scene.consumer.group = empty.consumer.group
    scene.run()
    assert "nothing was in it" in caplog.text
    assert scene.position(0).incarnation == 2


@pytest.mark.slow
def test_a_rollback_brings_the_same_changes_under_the_same_ids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = Scene(monkeypatch, mode="watermark")
    write_marked(plain, events(3))
    plain.run()
    scene = Scene(monkeypatch, mode="watermark", log=plain.consumer.log)
    kept: list[Any] = []

    def roll_back() -> None:
        scene.store._partitions, scene.store._trainer = kept[0]

    def watch() -> None:
        if not kept and len(scene.store.commits) > 30:
            kept.append(copy.deepcopy((scene.store._partitions, scene.store._trainer)))
            scene.store.trouble.extend([lambda: None] * 9 + [roll_back])

    scene.run(watch)
    assert Answer.DIVERGED in {answer for _, _, answer in scene.store.commits}
    assert scene.everything() == plain.everything()


def test_full_it_waits_and_goes_on_with_the_same_commit(
    monkeypatch: pytest.MonkeyPatch, store: UnreliableStore
) -> None:
    store._cap = 1
    # So short that each portion is a step of its own, and there are many.
    scene = Scene(monkeypatch, store=store, worker={"batch_seconds": 0.001})
    scene.consumer.portion = 2
    write(scene, events(1))
    delivered: dict[int, list[bytes]] = defaultdict(list)
    due = [0.0]

    def publish() -> None:
        if scene.clock.seconds < due[0]:
            return
        due[0] = scene.clock.seconds + 0.2
        for number in range(PARTITIONS):
            scene.store.take_outbox(number, "p")
            for entry in scene.entries(number):
                delivered[number].extend(entry.changes)
                scene.store.acknowledge(number, "p", [entry.id], 0)

    scene.run(publish, idle=300)
    assert Counter(a for _, _, a in store.commits)[Answer.FULL] > 2
    ids: dict[str, list[Answer | None]] = defaultdict(list)
    for _, commit, answer in store.commits:
        ids[commit.id].append(answer)
    for answers in ids.values():
        assert answers[:-1] == [Answer.FULL] * (len(answers) - 1)
    assert any(len(answers) > 1 for answers in ids.values())
    monkeypatch.setattr(
        scene, "changes", lambda n: [
            json.loads(c)
            for c in [*delivered[n], *(c for e in scene.entries(n) for c in e.changes)]
        ]
    )  # fmt: skip
    assert_true(scene)


def test_full_the_worker_is_alive_and_polls_on(live: Scene) -> None:
    live.store._cap = 0
    beats: list[tuple[bool, list[str]]] = []
    live.run(lambda: beats.append(live.health.liveness()), until=lambda: len(beats) > 600)
    assert all(alive for alive, _ in beats)
    assert sum(answer is Answer.FULL for _, _, answer in live.store.commits) > 10
    assert live.consumer.idle > 10


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "marks", "trouble"),
    [
        ("live", False, Answer.FULL),
        ("live", False, "down"),
        ("watermark", False, Answer.FULL),
        ("watermark", True, Answer.FULL),
    ],
)
def test_while_a_commit_waits_no_more_is_held_than_allowed(
    monkeypatch: pytest.MonkeyPatch, mode: str, marks: bool, trouble: Trouble
) -> None:
    scene = crowded(monkeypatch, mode, marks)
    scene.store.trouble.extend([trouble] * 10_000)
    held: list[int] = []

    def watch() -> None:
        held.append(ahead(scene))
        if len(held) == 60:
            scene.store.trouble.clear()

    scene.run(watch, idle=1_000)
    # Those of the waiting commit, of a full buffer, and of the turn that filled it.
    assert 1_000 < max(held[:60]) < 2_500
    assert_true(scene)
    assert not ahead(scene)
    assert not scene.consumer.paused


def test_what_was_paused_when_it_was_taken_away_is_read_when_it_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = crowded(monkeypatch, "live")
    consumer = scene.consumer
    zero = [("clickstream", 0), ("purchases", 0)]
    scene.store.trouble.extend([Answer.FULL] * 10_000)
    seen: list[set[tuple[str, int]]] = []

    def watch() -> None:
        if not seen and set(zero) <= consumer.paused:
            seen.append(set(consumer.paused))
            consumer.then(consumer.take(*zero), scene.store.trouble.clear, consumer.give(*zero))

    assert_true(scene.run(watch))
    assert seen


def test_lost_it_stops_and_says_what_can_be_done(live: Scene) -> None:
    live.store.trouble.extend([lambda: None, live.store._partitions.clear])
    with pytest.raises(StateLostError, match=r"set store\.accept_loss"):
        live.run()


@pytest.mark.parametrize("mode", ["live", "watermark"])
def test_a_loss_that_is_accepted_meanwhile_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    scene = Scene(monkeypatch, mode=mode, store_section={"accept_loss": True})
    if mode == "live":
        write(scene, events(1))
    else:
        write_marked(scene, events(1))
    lost: list[int] = []

    def watch() -> None:
        if not lost and len(scene.store.commits) > 12 and scene.consumer.group:
            lost.append(len(scene.store.commits))
            scene.store._partitions.clear()

    scene.run(watch, idle=5 * SETTLED)
    assert lost
    assert_true(scene)
    assert {scene.position(number).incarnation for number in range(PARTITIONS)} == {2}


def test_lost_before_the_start_is_seen_by_what_the_group_remembers(live: Scene) -> None:
    live.run()
    live.store._partitions.clear()
    with pytest.raises(StateLostError, match="partition 0 has no state in the store"):
        live.run()
    assert live.store._partitions == {}


def test_accepted_loss_starts_anew_as_another_incarnation(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run()
    ids = {c["id"] for n in range(PARTITIONS) for c in live.changes(n)}
    scene = Scene(monkeypatch, log=live.consumer.log, store_section={"accept_loss": True})
    scene.consumer.group = live.consumer.group
    scene.run()
    assert [scene.position(n).incarnation for n in range(PARTITIONS)] == [2, 2]
    assert not ids & {c["id"] for n in range(PARTITIONS) for c in scene.changes(n)}
    assert_true(scene)


def delete_by_retention(scene: Scene) -> None:
    """Of one topic of a partition a third is gone, of one half, of one nothing, of one all.

    Not all where there are marks: nobody goes on before both topics have one.
    """
    most = 1.0 if scene.settings.clock.mode == "live" else 0.8
    for where, share in zip(EVERYTHING, (1 / 3, 1 / 2, most, 0.0), strict=True):
        scene.consumer.low[where] = int(len(scene.consumer.log[where]) * share)


@pytest.mark.parametrize("mode", ["live", "watermark"])
def test_a_new_namespace_begins_at_what_retention_has_left(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    scene = Scene(monkeypatch, mode=mode)
    write_marked(scene, events(1)) if mode == "watermark" else write(scene, events(1))
    delete_by_retention(scene)
    assert_true(scene.run())
    for number in range(PARTITIONS):
        firsts = [scene.consumer.low[topic, number] for topic in INPUTS]
        assert scene.position(number).first == firsts
    assert_true(scene.run())


def test_accepted_loss_begins_at_what_retention_has_left(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run()
    scene = Scene(monkeypatch, log=live.consumer.log, store_section={"accept_loss": True})
    scene.consumer.group = live.consumer.group
    delete_by_retention(scene)
    assert_true(scene.run())


def test_state_whose_next_messages_retention_deleted_is_no_reason_to_skip_them(
    live: Scene,
) -> None:
    whole = live.consumer.log
    live.consumer.log = {where: messages[:9] for where, messages in whole.items()}
    live.run()
    live.consumer.log, live.consumer.low = whole, dict.fromkeys(EVERYTHING, 20)
    with pytest.raises(OffsetOutOfRangeError, match="no longer holds"):
        live.run()


def test_a_new_namespace_has_no_id_that_the_output_has(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run()
    output = live.settings.topics.changes
    told = {n: live.changes(n) for n in range(PARTITIONS)}
    log = dict(live.consumer.log)
    scene = Scene(monkeypatch, log=log, store_section={"namespace": "another"})
    scene.consumer.group = live.consumer.group
    for number, records in told.items():
        for record in records:
            scene.consumer.append(output, number, json.dumps(record).encode(), START_MS)
    scene.run()
    assert_true(scene)
    for number, records in told.items():
        assert scene.position(number).output == len(records)
        assert scene.position(number).incarnation == len(records) + 1
        assert scene.store.take_outbox(number, "p") == len(records)
        ids = {record["id"] for record in scene.changes(number)}
        assert ids
        assert not ids & {record["id"] for record in records}


def test_accepted_loss_is_another_incarnation_though_the_output_is_gone(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run()
    scene = Scene(monkeypatch, log=live.consumer.log, store_section={"accept_loss": True})
    scene.consumer.group = {
        where: TopicPartition(*where, 5, metadata="segstream/7/5") for where in EVERYTHING
    }
    scene.run()
    assert [scene.position(n).incarnation for n in range(PARTITIONS)] == [8, 8]


def test_another_groups_memory_is_no_witness(live: Scene) -> None:
    for topic, number in EVERYTHING:
        live.consumer.group[topic, number] = TopicPartition(
            topic, number, 5, metadata="another-namespace/3/5"
        )
    assert_true(live.run())
    assert live.position(0).incarnation == 1


def told() -> Counter[tuple[str, str]]:
    """What metrics have counted of messages and changes, by name and labels."""
    found: Counter[tuple[str, str]] = Counter()
    for family in REGISTRY.collect():
        for sample in family.samples:
            if sample.name in COUNTED:
                found[sample.name, str(sorted(sample.labels.items()))] += int(sample.value)
    return found


COUNTED = {
    "segstream_events_total",
    "segstream_rejects_total",
    "segstream_changes_total",
    "segstream_segment_changes_total",
}


@pytest.mark.parametrize("answer", [Answer.FENCED, Answer.DIVERGED])
def test_what_is_made_again_is_counted_once(live: Scene, answer: Answer) -> None:
    before = told()
    live.store.trouble.extend([lambda: None, answer] * 12)
    assert_true(live.run(idle=SETTLED))
    assert sum(one is answer for _, _, one in live.store.commits) > 8
    gained = told() - before
    truth = sum((Counter(vars(live.position(n).counts)) for n in range(PARTITIONS)), Counter())
    sums: Counter[str] = Counter()
    for (name, labels), count in gained.items():
        sums[name] += count
        if name == "segstream_events_total":
            result = next(result for result in truth if repr(result) in labels)
            assert count == truth[result], result
    assert sums["segstream_rejects_total"] == truth["rejected"] > 0
    records = [change for n in range(PARTITIONS) for change in live.changes(n)]
    assert sums["segstream_changes_total"] == len(records) > 0
    moved = [record for record in records if record["from"] is not None]
    assert sums["segstream_segment_changes_total"] == len(moved)


@pytest.mark.parametrize("trouble", [Answer.FULL, "down"])
def test_while_a_commit_waits_the_lag_grows(live: Scene, trouble: Trouble) -> None:
    live.store.trouble.extend([trouble] * 10_000)
    lags: list[tuple[float, float]] = []

    def watch() -> None:
        lag = REGISTRY.get_sample_value("segstream_lag_seconds", {"partition": "0"})
        if lag is not None:
            lags.append((live.clock.seconds, lag))

    live.run(watch, until=lambda: len(lags) > 80, idle=10_000)
    (began, first), (ended, last) = lags[0], lags[-1]
    assert last - first == pytest.approx(ended - began, abs=0.05)
    assert last - first > 0.5


def test_what_waits_for_a_mark_of_the_other_topic_was_read_and_is_not_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, mode="watermark")
    write_marked(scene, events(2))
    clicks = len(scene.consumer.log[INPUTS[0], 0])
    scene.consumer.log[INPUTS[1], 0] = []
    told: dict[int, Sequence[int]] = {}

    def keep(_: LagMeter, number: int, offsets: Sequence[int]) -> None:
        told[number] = offsets

    monkeypatch.setattr(LagMeter, "read", keep)
    scene.run()
    assert scene.position(0).offsets == [0, 0]
    assert told[0] == [clicks, 0]


# -- outages -------------------------------------------------------------------------------------


def test_an_outage_is_waited_out_under_the_same_commit_id(live: Scene) -> None:
    live.store.trouble.extend([lambda: None, lambda: None, "down", "down", "mute", "down"])
    ready: list[bool] = []
    live.run(lambda: ready.append(live.health.readiness()[0]))
    assert_true(live)
    missed = [commit.id for _, commit, answer in live.store.commits if answer is None]
    assert len(missed) == 4
    final = {commit.id: answer for _, commit, answer in live.store.commits}
    assert {final[identity] for identity in missed} <= {Answer.OK, Answer.APPLIED}
    assert Answer.APPLIED in final.values()
    assert False in ready
    assert ready[-1]


def test_an_outage_beyond_the_deadline_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, store: UnreliableStore
) -> None:
    scene = Scene(monkeypatch, store=store, store_section={"commit_deadline_seconds": 3.0})
    write(scene, events(1))
    scene.store.trouble.extend(["down"] * 5_000)
    began = scene.clock.seconds
    with pytest.raises(StoreUnavailableError):
        scene.run(idle=10_000)
    assert 3.0 <= scene.clock.seconds - began <= 4.0
    scene.store.trouble.clear()
    assert_true(scene.run())


def test_a_store_that_is_away_at_the_takeover_ends_the_run(
    live: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(partition: int, token: str) -> None:
        raise StoreUnavailableError(f"away: {partition} {len(token)}")

    with monkeypatch.context() as patch:
        patch.setattr(live.store, "acquire", away)
        with pytest.raises(StoreUnavailableError):
            live.run()
    assert_true(live.run())


def test_a_trainers_state_that_cannot_be_fetched_is_fetched_later(
    live: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]
    model = live.store.model

    def flaky() -> tuple[int, bytes] | None:
        calls[0] += 1
        if 3 < calls[0] < 9:
            raise StoreUnavailableError("away")
        return model()

    live.run(until=lambda: bool(live.models))
    monkeypatch.setattr(live.store, "model", flaky)
    assert live.trainer is not None
    live.trainer = None
    assert_true(live.run())


def test_dead_letters_that_cannot_be_filed_hold_the_offsets(live: Scene) -> None:
    live.letters.failures = 1
    with pytest.raises(BrokerUnavailableError):
        live.run()
    filed = sum(live.position(n).counts.rejected for n in range(PARTITIONS))
    assert filed == len(live.letters.filed) == 0
    assert_true(live.run())


# -- membership ----------------------------------------------------------------------------------


def test_what_is_revoked_is_committed_and_goes_on_elsewhere(live: Scene) -> None:
    consumer = live.consumer
    zero = [("clickstream", 0), ("purchases", 0)]
    consumer.then(
        consumer.give(*EVERYTHING), lambda: None, consumer.take(*zero), lambda: None, lambda: None
    )
    live.run()
    revoked = live.position(0)
    assert consumer.positions.keys() == {("clickstream", 1), ("purchases", 1)}
    assert revoked.counts.consumed == sum(revoked.offsets) > 0
    assert_true(live.run())


def test_of_what_is_lost_nothing_is_written(live: Scene) -> None:
    consumer = live.consumer
    tried: list[int] = []
    consumer.then(
        consumer.give(*EVERYTHING),
        *[lambda: None] * 6,
        consumer.lose(("clickstream", 0), ("purchases", 0)),
        lambda: tried.append(len([n for n, _, _ in live.store.commits if n == 0])),
    )
    live.run()
    assert len([n for n, _, _ in live.store.commits if n == 0]) == tried[0] > 0
    assert live.position(0).counts.consumed < live.position(1).counts.consumed
    assert_true(live.run())


def test_topics_that_come_one_after_the_other_wait_for_each_other(live: Scene) -> None:
    consumer = live.consumer
    clicks = [w for w in EVERYTHING if w[0] == "clickstream"]
    purchases = [w for w in EVERYTHING if w[0] == "purchases"]
    committed: list[int] = []
    consumer.then(
        consumer.give(*clicks),
        *[lambda: None] * 20,
        lambda: committed.append(len(live.store.commits)),
        consumer.give(*purchases),
    )
    live.run()
    assert committed == [0], "half of a partition is not served"
    assert_true(live)


def test_a_partition_too_many_is_a_wrong_setting(live: Scene) -> None:
    live.consumer.then(live.consumer.give(("clickstream", 2), ("purchases", 2)))
    with pytest.raises(ConfigError, match=r"topics.partitions = 2, but the broker has a partition"):
        live.run()


@pytest.mark.parametrize(
    ("clickstream", "purchases", "said"),
    [
        (1, 1, "1 of clickstream and 1 of purchases; set it to 1"),
        (6, 6, "6 of clickstream and 6 of purchases; set it to 6"),
        (2, 3, "2 of clickstream and 3 of purchases; make a new topic"),
    ],
)
def test_another_number_of_partitions_is_a_wrong_setting(
    live: Scene, clickstream: int, purchases: int, said: str
) -> None:
    live.consumer.partitions = {"clickstream": clickstream, "purchases": purchases}
    with pytest.raises(ConfigError) as caught:
        live.run()
    assert str(caught.value).startswith("topics.partitions = 2: expected as many as the broker has")
    assert said in str(caught.value)
    assert not live.store.commits


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("accept_loss", [False, True])
def test_another_number_of_partitions_than_the_namespace_has_is_refused_at_every_step(
    monkeypatch: pytest.MonkeyPatch, live: Scene, count: int, accept_loss: bool
) -> None:
    live.run()
    before = [live.position(number) for number in range(PARTITIONS)]
    for declared in (PARTITIONS, count):
        scene = Scene(
            monkeypatch,
            store=live.store,
            log=live.consumer.log,
            store_section={"accept_loss": accept_loss},
            topics={"partitions": declared},
        )
        scene.consumer.partitions = dict.fromkeys(INPUTS, count)
        with pytest.raises(ConfigError) as caught:
            scene.run()
        said = str(caught.value)
        assert f"was begun with {PARTITIONS}" in said
        assert "segstream rekey --from clickstream" in said
        assert "accept_loss" not in said
        assert f"set it to {count}" not in said
    assert [live.position(number) for number in range(PARTITIONS)] == before


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (KafkaError.OFFSET_OUT_OF_RANGE, OffsetOutOfRangeError),
        (KafkaError._AUTO_OFFSET_RESET, OffsetOutOfRangeError),
        (KafkaError._MAX_POLL_EXCEEDED, BrokerUnavailableError),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, BrokerUnavailableError),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, BrokerUnavailableError),
    ],
)
def test_errors_that_do_not_pass_end_the_run(
    live: Scene, code: int, error: type[Exception]
) -> None:
    live.consumer.then(live.consumer.give(*EVERYTHING), lambda: None, live.consumer.fail(code))
    with pytest.raises(error):
        live.run()
    assert_true(live.run())


def test_errors_that_pass_are_passed_over(live: Scene) -> None:
    consumer = live.consumer
    consumer.then(
        consumer.give(*EVERYTHING),
        consumer.fail(KafkaError._TRANSPORT),
        consumer.fail(KafkaError._ALL_BROKERS_DOWN),
    )
    assert_true(live.run())


@pytest.mark.parametrize("taken_over", [False, True])
def test_what_was_applied_comes_to_a_partition_in_one_commit(
    live: Scene, monkeypatch: pytest.MonkeyPatch, *, taken_over: bool
) -> None:
    monkeypatch.setattr(activity, "SLICE", 1)
    live.run()
    learning = live.settings.learning.model_copy(update={"segments": 2})
    tuning = Tuning.of(live.settings.model_copy(update={"learning": learning}))
    cut_over = [0] * PARTITIONS

    def want() -> None:
        if live.store.wanted() is None:
            live.store.want(tuning.pack())
        found = live.store.model()
        assert found is not None
        model = TrainerState.unpack(found[1]).model
        assert model is not None
        for number in range(PARTITIONS):
            cut_over[number] += live.position(number).model == model.name and bool(model.tuning)

    def published() -> bool:
        found = live.store.model()
        return found is not None and TrainerState.unpack(found[1]).tuning == tuning

    if taken_over:
        live.run(want, until=published)
    live.run(want, until=lambda: all(cut_over), idle=10_000)
    state = live.store.model()
    assert state is not None
    model = TrainerState.unpack(state[1]).model
    assert model is not None
    assert model.tuning == tuning.id
    assert len(model.ids) == 2
    moved = 0
    for number in range(PARTITIONS):
        commits = {
            entry.id.split("-")[0]
            for entry in live.entries(number)
            for change in map(json.loads, entry.changes)
            if change["cause"] == "segment_retired" and change["model"] == f"{model.epoch}.0"
        }
        assert len(commits) <= 1
        moved += len(commits)
        rows = [np.frombuffer(raw, TABLE.dtype)[0] for raw in live.rows(number).values()]
        assert {int(row["segment"]) for row in rows} <= set(model.ids.tolist())
        assert_chained(live, number)
    assert moved


def test_a_model_of_another_feature_table_is_not_adopted(live: Scene) -> None:
    live.run(until=lambda: bool(live.models))
    found = live.store.model()
    assert found is not None
    data = json.loads(found[1])
    data["model"]["geometry"]["schema"] = "another"
    live.store.lead("another")
    live.store.put_model("another", json.dumps(data).encode(), found[0] + 1)
    live.trainer = None
    live.run()
    assert_true(live)
    assert not any(live.changes(n) for n in range(PARTITIONS))


# -- watermark mode ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def replayed() -> Scene:
    """A fortnight and a silent one, replayed at once by a worker and a trainer that nothing happens to."""
    with pytest.MonkeyPatch.context() as patch:
        scene = Scene(patch, mode="watermark")
        write_marked(scene, events(2))
        return scene.run()


def test_a_replay_is_true_and_follows_the_marks(replayed: Scene) -> None:
    assert_true(replayed)
    last = START_MS + 29 * DAY_MS
    for number in range(PARTITIONS):
        position = replayed.position(number)
        assert position.mark_ms == position.clock_ms == last
        assert {c["at"][11:] for c in replayed.changes(number)} == {"00:00:00.000Z"}
    assert replayed.store.round() == last
    assert len(replayed.models) > 3
    causes = Counter(c["cause"] for n in range(PARTITIONS) for c in replayed.changes(n))
    assert causes["user_moved"] > 3
    assert causes["time_passed"] > 3
    assert causes["model_moved"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("portion", [1, 7, 100])
@pytest.mark.parametrize("deferred", [False, True])
def test_a_replay_does_not_depend_on_the_portions_it_is_read_in(
    monkeypatch: pytest.MonkeyPatch, replayed: Scene, portion: int, deferred: bool
) -> None:
    store = UnreliableStore(deferred=deferred)
    scene = Scene(monkeypatch, mode="watermark", log=replayed.consumer.log, store=store)
    scene.consumer.portion = portion
    assert scene.run().everything() == replayed.everything()


@pytest.mark.slow
def test_a_replay_does_not_depend_on_the_order_topics_come_in(
    monkeypatch: pytest.MonkeyPatch, replayed: Scene
) -> None:
    scene = Scene(monkeypatch, mode="watermark", log=replayed.consumer.log)
    scene.consumer.then(scene.consumer.give(*reversed(EVERYTHING)))
    assert scene.run().everything() == replayed.everything()


@pytest.mark.slow
def test_a_replay_through_trouble_is_the_same_replay(
    monkeypatch: pytest.MonkeyPatch, replayed: Scene
) -> None:
    scene = Scene(monkeypatch, mode="watermark", log=replayed.consumer.log)
    troubles: list[Trouble] = ["mute", Answer.FULL, "down", Answer.DIVERGED, Answer.FENCED]
    due = [5]

    def something() -> None:
        if len(scene.store.commits) >= due[0]:
            due[0] += 7
            scene.store.trouble.append(troubles[due[0] // 7 % 5])

    scene.run(something, idle=1_000)
    answers = {answer for _, _, answer in scene.store.commits}
    assert answers >= {None, Answer.APPLIED, Answer.FENCED, Answer.DIVERGED, Answer.FULL}
    assert scene.everything() == replayed.everything()


@pytest.mark.slow
def test_a_replay_stopped_anywhere_and_gone_on_with_is_the_same_replay(
    monkeypatch: pytest.MonkeyPatch, replayed: Scene
) -> None:
    scene = Scene(monkeypatch, mode="watermark", log=replayed.consumer.log)
    scene.consumer.portion = 20
    rng = np.random.default_rng(6)
    for _ in range(25):
        enough = len(scene.store.commits) + int(rng.integers(1, 9))
        scene.run(until=lambda enough=enough: len(scene.store.commits) >= enough)  # type: ignore[misc]
        if rng.random() < 0.3:
            assert scene.trainer is not None
            scene.trainer.close()
            scene.trainer = Trainer(scene.settings, scene.store, scene._announce)
    assert scene.run().everything() == replayed.everything()


def test_a_replay_waits_for_the_round_of_its_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, mode="watermark", train=False)
    write_marked(scene, events(2))
    scene.run()
    assert [scene.position(n).mark_ms for n in range(PARTITIONS)] == [START_MS] * PARTITIONS
    scene.trainer = Trainer(scene.settings, scene.store, scene._announce)
    assert_true(scene.run())


def test_a_worker_taken_over_before_its_round_waits_for_it_still(
    monkeypatch: pytest.MonkeyPatch, replayed: Scene
) -> None:
    scene = Scene(monkeypatch, mode="watermark", log=replayed.consumer.log, train=False)
    for _ in range(3):
        scene.run()
    assert scene.position(0).mark_ms == START_MS
    scene.trainer = Trainer(scene.settings, scene.store, scene._announce)
    assert scene.run().everything() == replayed.everything()


def of_another_partition(mark: bytes, mark_ms: int, topic: str, number: int) -> bytes:
    """A genuine mark, in a place for which it was not signed."""
    del mark
    return mark_value(mark_ms, at=(topic, 1 - number))


def of_the_far_future(mark: bytes, mark_ms: int, topic: str, number: int) -> bytes:
    """A mark by who does not know the secret."""
    del mark, mark_ms
    forger = MarkSigner(b"a guess")
    return mark_value(START_MS + 20_000 * DAY_MS, at=(topic, number), signer=forger)


def of_yesterday(mark: bytes, mark_ms: int, topic: str, number: int) -> bytes:
    """A copy of an older mark, from the same place."""
    del mark
    return mark_value(max(mark_ms - DAY_MS, START_MS), at=(topic, number))


def again(mark: bytes, mark_ms: int, topic: str, number: int) -> bytes:
    """A copy of the mark before it."""
    del mark_ms, topic, number
    return mark


@pytest.mark.parametrize("made", [of_another_partition, of_the_far_future, of_yesterday, again])
@pytest.mark.parametrize("portion", [3, 1_000])
def test_marks_of_strangers_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
    replayed: Scene,
    made: Callable[[bytes, int, str, int], bytes],
    portion: int,
) -> None:
    scene = Scene(monkeypatch, mode="watermark", worker={"reject_ratio_limit": 1.0})
    scene.consumer.portion = portion
    for (topic, number), messages in replayed.consumer.log.items():
        for message in messages:
            raw, at = message.value(), message.timestamp()[1]
            scene.consumer.append(topic, number, raw, at, message.key())
            # What stands behind the last mark would wait for another one.
            if raw and b"segstream-mark" in raw and message is not messages[-1]:
                scene.consumer.append(topic, number, made(raw, at, topic, number), at)
    assert_true(scene.run())
    assert scene.models == replayed.models
    for number in range(PARTITIONS):
        assert scene.rows(number) == replayed.rows(number)
        assert scene.changes(number) == replayed.changes(number)
        assert scene.position(number).mark_ms == replayed.position(number).mark_ms
        forged = made in (of_another_partition, of_the_far_future)
        counts = scene.position(number).counts
        assert (counts.rejected > replayed.position(number).counts.rejected) == forged


def test_a_topic_that_runs_far_ahead_of_its_marks_is_paused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, mode="watermark", train=False, worker={"buffer_events": 1_000})
    for topic, number in EVERYTHING:
        scene.consumer.append(
            topic, number, mark_value(START_MS, at=(topic, number)), START_MS, key=None
        )
    for day in range(4):
        for i in range(600):
            raw = encoded(time_ms=START_MS + day * DAY_MS, messageId=f"{day} {i}", event=VIEW)
            scene.consumer.append("clickstream", 0, raw, START_MS + day * DAY_MS)
        mark = START_MS + (day + 1) * DAY_MS
        for topic, number in EVERYTHING:
            scene.consumer.append(
                topic, number, mark_value(mark, at=(topic, number)), mark, key=None
            )
    scene.consumer.portion = 100
    paused: list[bool] = []
    scene.run(lambda: paused.append(("clickstream", 0) in scene.consumer.paused))
    assert paused[-1], "the trainer is not there, so nothing more can be folded"
    assert scene.consumer.positions["clickstream", 0] < 1_500
    scene.trainer = Trainer(scene.settings, scene.store, scene._announce)
    assert_true(scene.run())


def test_without_marks_no_event_takes_the_shop_beyond_the_present(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, mode="watermark", clock={"mode": "watermark", "idle_seconds": 0.5})
    log = events(4)
    write(scene, log)
    for when in ("2090-01-01T00:00:00.000Z", "2099-12-31T23:59:59.999Z"):
        for number in range(PARTITIONS):
            raw = encoded(timestamp=when, messageId=when, userId=f"user {number}", event=VIEW)
            scene.consumer.append("clickstream", number, raw, -1)
    scene.run(idle=300)
    latest = scene.clock.wall_ms() + 300_000
    for number in range(PARTITIONS):
        assert START_MS < scene.position(number).clock_ms <= latest
        assert_chained(scene, number)


def test_a_log_without_marks_goes_by_its_own_events(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, mode="watermark", clock={"mode": "watermark", "idle_seconds": 0.5})
    log = events(4)
    write(scene, log)
    assert_true(scene.run(idle=300))
    reached = []
    for number in range(PARTITIONS):
        newest = sorted(user.seen_ms for user in scene.truth(number).users.values())
        reached.append(newest[-scene.settings.clock.guard_users])
    assert [scene.position(n).clock_ms for n in range(PARTITIONS)] == reached
    assert [scene.position(n).model for n in range(PARTITIONS)] == [scene.models[-1]] * PARTITIONS
    for number in range(PARTITIONS):
        assert len({c["user"] for c in scene.changes(number)}) == len(scene.rows(number)) > 10
