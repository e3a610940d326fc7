"""The runtime of a role: what goes wrong around its decisions changes nothing in what they make."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import msgspec
import pytest
from confluent_kafka import TopicPartition

from consumers import group
from consumers.decode import Message
from consumers.owner import StateLostError
from consumers.role import NOTHING, Decided, Decision, OwningRole, RoleWorker, event_time
from consumers.topic_watch import TopicReplacedError
from stream.config import ConfigError, Settings
from stream.health import Health
from stream.roles.outlet import Outlet
from stream.roles.state import MemoryRoleStore, RoleCommit, RolePosition
from stream.store.state import Answer, StoreUnavailableError
from tests.fakes import START_SECONDS, Clock, FakeMessage, ScriptedConsumer

TOPIC = "segment-changes"
PARTITIONS = 2
EVERYTHING = [(TOPIC, number) for number in range(PARTITIONS)]
START_MS = round(START_SECONDS * 1_000)


class Adding(Decision):
    """Adds up what each name brings; forgets a name at 0, and keeps when it last was asked."""

    def __init__(self) -> None:
        self.sums: dict[bytes, int] = {}
        self.begun: list[tuple[bytes, list[bytes]]] = []
        self.asked: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.sums)

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        self.sums |= {name: int(row) for name, row in rows}

    def begin(self, own: bytes, delivered: Sequence[bytes]) -> None:
        self.begun.append((own, list(delivered)))

    def decide(self, messages: Sequence[Message], now_ms: int) -> Decided:
        self.asked.append((len(messages), now_ms))
        if not messages:
            return NOTHING
        touched, records = set(), []
        for message in messages:
            name, _, number = (message.value() or b"").partition(b" ")
            self.sums[name] = self.sums.get(name, 0) + int(number)
            touched.add(name)
            records.append(json.dumps({"id": f"{message.partition()}-{message.offset()}"}).encode())
        gone = sorted(name for name in touched if not self.sums[name])
        for name in gone:
            del self.sums[name]
        kept = sorted(touched - set(gone))
        rows = b"".join(b"%08d" % self.sums[name] for name in kept)
        return Decided(kept, rows, gone, b"%d" % len(self.sums), records)


class Store(MemoryRoleStore):
    """Refuses as scripted, and remembers what was heard; None in the script lets a commit pass."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble: deque[Answer | str | None] = deque()
        self.heard: list[tuple[int, RoleCommit, Answer | None]] = []
        self.runs = "first"

    def run(self) -> str:
        return self.runs

    def submit(self, partition: int, token: str, commit: RoleCommit) -> Answer | None:
        trouble = self.trouble.popleft() if self.trouble else None
        silent = trouble in {"down", "mute"}
        answer = trouble if isinstance(trouble, Answer) else None
        if trouble != "down" and answer is None:
            answer = self.collect(partition, token, commit)
        self.heard.append((partition, commit, None if silent else answer))
        if silent:
            raise StoreUnavailableError("no answer")
        return answer


@dataclass
class FakeOutlet:
    """The topic of the role, as an owner sees it."""

    records: dict[int, list[bytes]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[int, int]] = field(default_factory=list)

    def values(self, partition: int, start: int) -> list[bytes]:
        self.asked.append((partition, start))
        return self.records.get(partition, [])[start:]

    def topic_ids(self, names: Sequence[str]) -> list[str]:
        return [self.ids.get(name, name) for name in names]


SECRET = b"secret of the namespace"


class Scene:
    """A log, a store, and a role's worker between them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **sections: dict[str, object]) -> None:
        layers: dict[str, dict[str, object]] = {
            "broker": {"group_protocol": "consumer", "session_timeout_seconds": 0.5},
            "topics": {"partitions": PARTITIONS},
            "publisher": {"deliver_seconds": 0.01},
        }
        self.settings = Settings.model_validate(layers | sections)
        self.clock = Clock()
        self.consumer = ScriptedConsumer(self.clock)
        self.consumer.partitions = {TOPIC: PARTITIONS}
        self.consumer.portion = 7
        self.store = Store()
        self.output = FakeOutlet()
        self.decisions: list[tuple[int, Adding]] = []
        self.role = OwningRole(
            "adding",
            "Adds.",
            reads=lambda settings: [settings.topics.changes],
            decision=self._decision,
            outlet=lambda _: Outlet("adding", "sums", "/sums", "sum"),
        )
        monkeypatch.setattr(group, "Consumer", lambda _options: self.consumer)
        for n in range(200):
            self.write(n % PARTITIONS, f"name{n % 11} {n % 5 - 2}")

    def _decision(self, settings: Settings, number: int, secret: bytes) -> Adding:
        del settings, secret
        self.decisions.append((number, Adding()))
        return self.decisions[-1][1]

    def write(self, number: int, value: str) -> None:
        count = sum(map(len, self.consumer.log.values()))
        self.consumer.append(TOPIC, number, value.encode(), START_MS + count)

    def run(self, until: Callable[[], bool] = lambda: False, idle: int = 300) -> Scene:
        if not self.consumer.script:
            topics = self.role.reads(self.settings)
            everything = [(topic, n) for topic in topics for n in range(PARTITIONS)]
            self.consumer.then(self.consumer.give(*everything))
        self.consumer.idle = 0
        self.consumer.positions.clear()
        self.consumer.paused.clear()
        health = Health(self.clock.monotonic)
        pulse = health.alive("adding", 1_000.0)
        worker = RoleWorker(
            self.role, self.settings, self.store, self.output, health, pulse, self.clock, SECRET
        )
        worker.run(lambda: until() or self.consumer.idle > idle)
        return self

    def position(self, number: int) -> RolePosition:
        found = self.store.position(number)
        assert found is not None
        return found

    def newest(self, number: int) -> Adding:
        return [one for n, one in self.decisions if n == number][-1]

    def sent(self, number: int) -> list[str]:
        entries = self.store.outbox({number: "0-0"}, 10**6, 0.0).get(number, [])
        return [json.loads(one)["id"] for entry in entries for one in entry.changes]


def assert_true(scene: Scene) -> None:
    """Rows are the sums of the log, and there is a record for each message, once."""
    for number in range(PARTITIONS):
        log = scene.consumer.log[TOPIC, number]
        sums: dict[bytes, int] = {}
        for message in log:
            name, _, amount = (message.value() or b"").partition(b" ")
            sums[name] = sums.get(name, 0) + int(amount)
        truth = {name: amount for name, amount in sums.items() if amount}
        assert {name: int(row) for name, row in scene.store.load(number)} == truth
        position = scene.position(number)
        assert (position.offsets, position.records) == ([len(log)], len(log))
        assert position.rows == len(truth)
        assert scene.store.own(number) == b"%d" % len(truth)
        assert scene.sent(number) == [f"{number}-{offset}" for offset in range(len(log))]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_what_is_read_becomes_rows_records_and_offsets(scene: Scene) -> None:
    assert_true(scene.run())
    for number in range(PARTITIONS):
        shown = scene.consumer.group[TOPIC, number]
        assert shown.offset == 100
        assert shown.metadata == "segstream.adding/1/100"


def test_it_goes_on_where_it_was(scene: Scene) -> None:
    scene.run(until=lambda: len(scene.store.heard) > 4)
    assert scene.position(0).records < 100
    assert_true(scene.run())
    loaded = scene.newest(0)
    assert sum(count for count, _ in loaded.asked) < 100


@pytest.mark.parametrize("trouble", [Answer.FULL, Answer.FENCED, Answer.DIVERGED, "down", "mute"])
def test_a_commit_that_is_refused_is_made_again(scene: Scene, trouble: Answer | str) -> None:
    scene.store.trouble.extend([None, trouble, None, trouble])
    assert_true(scene.run(idle=3_000))
    answers = [answer for _, _, answer in scene.store.heard]
    assert (trouble if isinstance(trouble, Answer) else None) in answers
    if trouble in {"down", "mute", Answer.FULL}:
        ids = [commit.id for _, commit, _ in scene.store.heard]
        assert len(ids) - len(set(ids)) == 2, "it is the same commit"


def test_another_owner_is_left_alone_for_a_session(scene: Scene) -> None:
    stolen: list[float] = []

    def steal() -> bool:
        if not stolen and len(scene.store.heard) == 3:
            scene.store.acquire(0, "another")
            stolen.append(scene.clock.seconds)
        return False

    acquired = scene.store.acquire
    again: list[float] = []

    def acquire(partition: int, token: str) -> tuple[int, RolePosition] | None:
        if stolen and len(token) == 16:
            again.append(scene.clock.seconds)
        return acquired(partition, token)

    scene.store.acquire = acquire  # type: ignore[method-assign]
    assert_true(scene.run(until=steal, idle=3_000))
    assert Answer.FENCED in {answer for _, _, answer in scene.store.heard}
    assert again[0] - stolen[0] >= 0.4


def test_what_is_revoked_is_committed_first(scene: Scene) -> None:
    consumer = scene.consumer
    consumer.then(consumer.give(*EVERYTHING), lambda: None, consumer.take(EVERYTHING[0]))
    scene.run(until=lambda: len(consumer.script) == 0 and consumer.idle > 5)
    read = scene.position(0).records
    assert 0 < read < 100
    assert scene.newest(0).asked[-1][0] > 0
    assert scene.position(1).records == 100


def test_time_that_passes_is_told_without_messages(scene: Scene) -> None:
    scene.run(idle=2_000)
    asked = scene.newest(0).asked
    times = [now for _, now in asked]
    assert times == sorted(times)
    silent = [now for count, now in asked if not count]
    assert len(silent) > 3
    assert all(after - before >= 1_000 for before, after in pairwise(silent))


def test_from_mark_to_mark_the_time_is_that_of_the_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, clock={"mode": "watermark"})
    scene.run()
    newest = scene.consumer.log[TOPIC, 0][-1].timestamp()[1]
    assert scene.newest(0).asked[-1][1] == newest == scene.position(0).clock_ms


@pytest.mark.parametrize(
    ("value", "time_ms"),
    [
        (b'{"at": "2025-12-01T00:00:00.001Z", "user": "ann"}', START_MS + 1),
        (b'{"at": "soon"}', 7),
        (b'{"at": 3}', 7),
        (b"\xff", 7),
        (None, 7),
    ],
)
def test_a_message_happened_when_it_says_so(value: bytes | None, time_ms: int) -> None:
    assert event_time(FakeMessage(value, timestamp_ms=7)) == time_ms


def test_a_partition_that_holds_too_much_is_paused_and_read_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, worker={"buffer_events": 1_000})
    for n in range(5_000):
        scene.write(0, f"name{n % 7} 1")
    scene.consumer.portion = 300
    scene.store.trouble.extend([Answer.FULL] * 60)
    read: list[int] = []

    def watch() -> bool:
        if scene.store.trouble:
            read.append(scene.consumer.positions.get((TOPIC, 0), 0))
        return not scene.store.trouble and scene.position(0).records == 5_100

    assert_true(scene.run(until=watch, idle=20_000))
    assert 1_000 < read[-1] < 2_500
    assert not scene.consumer.paused


# -- what the store has lost ---------------------------------------------------------------------


def test_what_was_delivered_is_told_to_who_takes_over(scene: Scene) -> None:
    scene.run(until=lambda: len(scene.store.heard) > 6)
    scene.output.records = {0: [b"first", b"second", b"third"]}
    found = scene.store.acquire(0, "x")
    assert found is not None
    known = msgspec.structs.replace(found[1], known_to=1)
    scene.store.collect(0, "x", RoleCommit(found[0], known))
    scene.run()
    assert scene.newest(0).begun[-1][1] == [b"second", b"third"]
    assert_true(scene)


def test_how_far_the_output_is_known_is_part_of_the_next_commit(scene: Scene) -> None:
    scene.run()
    assert scene.store.take_outbox(0, "p") == 0
    first = scene.store.outbox({0: "0-0"}, 1, 0.0)[0][0]
    assert scene.store.acknowledge(0, "p", [first.id], 3)
    fresh = len(scene.consumer.log[TOPIC, 0])

    def write() -> bool:
        if scene.consumer.idle == 250 and len(scene.consumer.log[TOPIC, 0]) == fresh:
            scene.write(0, "late 1")
        return False

    scene.run(until=write, idle=600)
    assert scene.position(0).known_to == 3


def test_after_another_run_of_the_store_it_waits_for_what_is_on_its_way(scene: Scene) -> None:
    scene.run()
    scene.store.runs, began = "second", scene.clock.seconds
    asked = len(scene.output.asked)
    scene.run(until=lambda: len(scene.output.asked) > asked, idle=3_000)
    assert scene.clock.seconds - began >= scene.settings.publisher.settle_seconds
    assert_true(scene.run())


def lose_a_row(scene: Scene) -> None:
    rows = scene.store._partitions[0].users
    del rows[next(iter(rows))]


def lose_the_position(scene: Scene) -> None:
    del scene.store._partitions[0]


def put_rows_back_alone(scene: Scene) -> None:
    scene.store._partitions[0].rows_commit = "another"


@pytest.mark.parametrize("lose", [lose_a_row, lose_the_position, put_rows_back_alone])
def test_a_loss_stops_it_unless_it_is_accepted(
    monkeypatch: pytest.MonkeyPatch, lose: Callable[[Scene], None]
) -> None:
    scene = Scene(monkeypatch).run()
    lose(scene)
    with pytest.raises(StateLostError, match=r"partition 0 .*store\.accept_loss"):
        scene.run()
    accepting = Scene(monkeypatch, store={"accept_loss": True})
    accepting.store, accepting.consumer.group = scene.store, scene.consumer.group
    accepting.store._partitions.pop(1)
    accepting.consumer.group.pop((TOPIC, 1))
    assert_true(accepting.run(idle=2_000))
    assert accepting.position(0).incarnation == 2
    assert accepting.position(1).incarnation == 1


def test_what_is_begun_anew_meanwhile_is_left_to_the_other_for_a_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, store={"accept_loss": True}).run()
    lose_a_row(scene)
    create, acquire = scene.store.create, scene.store.acquire
    stolen: list[float] = []
    again: list[float] = []

    def stolen_first(
        partition: int, token: str, position: RolePosition, *, replace: bool = False
    ) -> bool:
        if replace and not stolen:
            acquire(partition, "another")
            stolen.append(scene.clock.seconds)
        return create(partition, token, position, replace=replace)

    def noted(partition: int, token: str) -> tuple[int, RolePosition] | None:
        if stolen and partition == 0:
            again.append(scene.clock.seconds)
        return acquire(partition, token)

    scene.store.create = stolen_first  # type: ignore[method-assign]
    scene.store.acquire = noted  # type: ignore[method-assign]
    assert_true(scene.run(idle=3_000))
    assert again[0] - stolen[0] >= 0.4
    assert scene.position(0).incarnation == 2


def test_a_role_that_has_read_nothing_has_lost_nothing(scene: Scene) -> None:
    scene.consumer.group[EVERYTHING[0]] = TopicPartition(
        TOPIC, 0, 0, metadata="segstream.adding/3/0"
    )
    assert_true(scene.run())
    assert scene.position(0).incarnation == 4


def test_rows_of_another_version_are_not_read(scene: Scene) -> None:
    scene.run()
    scene.role = replace(scene.role, version="2")
    with pytest.raises(StateLostError, match="rows of version 1, and this program makes 2"):
        scene.run()


def test_a_topic_made_anew_stops_it(scene: Scene) -> None:
    scene.run()
    scene.output.ids[TOPIC] = "made anew"
    with pytest.raises(TopicReplacedError, match=f"topic {TOPIC} was deleted and made anew"):
        scene.run()


def test_a_partition_too_many_is_a_wrong_setting(scene: Scene) -> None:
    scene.consumer.then(scene.consumer.give(*EVERYTHING, (TOPIC, PARTITIONS)))
    with pytest.raises(
        ConfigError, match=r"topics\.partitions = 2, but the broker has a partition 2"
    ):
        scene.run()


def test_another_number_of_partitions_is_a_wrong_setting(scene: Scene) -> None:
    scene.consumer.partitions = {TOPIC: 3}
    with pytest.raises(ConfigError, match=r"topics\.partitions = 2"):
        scene.run()
