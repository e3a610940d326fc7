"""Every recorded change is delivered once in effect, and forgotten only then."""

from __future__ import annotations

import copy
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from consumers.output import Output
from ops.kafka.server import RealKafka
from producers import delivery, outbox
from producers import topics as topic_plans
from producers.client import producer_options
from producers.outbox import OutboxPublisher, changes_outlet
from stream.config import Settings
from stream.errors import BrokerUnavailableError
from stream.events import CHANGED, LEVEL_CHANGED, LINEAGE
from stream.metrics import REGISTRY
from stream.store.memory import MemoryStore
from stream.store.state import Answer, Commit, OutboxEntry, Position, StoreUnavailableError
from tests.conftest import SettingsFor
from tests.fakes import Clock, RecordingBroker, Sent

TOPIC = "segment-changes"
PARTITIONS = 2


def change(number: int, user: str = "ann") -> bytes:
    return json.dumps(
        {
            "id": f"{number:016x}-1-1",
            "user": user,
            "version": 1,
            "from": None,
            "to": 3,
            "at": "2025-12-01T00:00:00.000Z",
            "kind_to": "at_risk",
        }
    ).encode()


@dataclass
class Scene:
    """A store with two partitions, and a topic that is read back as it is."""

    clock: Clock
    broker: RecordingBroker
    store: MemoryStore = field(default_factory=MemoryStore)
    reads: list[tuple[int, int]] = field(default_factory=list)
    recorded: int = 0
    topic_id: str = "one"

    def __post_init__(self) -> None:
        self.settings = Settings.model_validate(
            {"topics": {"partitions": PARTITIONS}, "store": {"namespace": "shop"}}
        )
        for partition in range(PARTITIONS):
            self.store.create(partition, "owner", Position([0, 0], "schema"))

    def publisher(self) -> OutboxPublisher:
        outlet = changes_outlet(self.settings)
        return OutboxPublisher(self.settings, self.store, self, outlet, self.clock.time)

    def delivered_ids(self, starts: Mapping[int, int]) -> tuple[dict[int, set[str]], list[int]]:
        self.reads += sorted(starts.items())
        there = {partition: self.broker.on(TOPIC, partition) for partition in starts}
        ids = {
            partition: {str(s.headers["ce_id"]) for s in there[partition][start:]}
            for partition, start in starts.items()
        }
        return ids, [p for p, start in starts.items() if start > len(there[p])]

    def topic_ids(self, names: Sequence[str]) -> list[str]:
        assert names == [TOPIC]
        return [self.topic_id]

    def record(self, partition: int, *entries: int) -> None:
        """One commit with entries of so many changes each."""
        found = self.store.acquire(partition, "owner")
        assert found is not None
        outbox = []
        for size in entries:
            numbers = range(self.recorded, self.recorded + size)
            self.recorded += size
            changed = tuple(change(n) for n in numbers)
            outbox.append(OutboxEntry(1_000, changed, found[1].incarnation))
        commit = Commit(found[0], found[1], outbox=outbox)
        assert self.store.commit(partition, "owner", commit) is Answer.OK

    def sent_numbers(self, partition: int | None = None) -> list[int]:
        return [
            int(str(sent.headers["ce_id"]).split("-")[0], 16)
            for sent in self.broker.on(TOPIC, partition)
        ]

    def sizes(self) -> list[int]:
        return self.store.outbox_sizes(range(PARTITIONS))


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    clock, broker = Clock(), RecordingBroker()
    monkeypatch.setattr(outbox, "Producer", broker.producer)
    monkeypatch.setattr(outbox, "time", clock)
    monkeypatch.setattr(delivery, "time", clock)
    return Scene(clock, broker)


def test_changes_go_out_in_order_on_their_own_partition_and_are_forgotten(scene: Scene) -> None:
    scene.record(0, 2, 1)
    scene.record(1, 1)
    scene.record(0, 1)
    publisher = scene.publisher()
    assert publisher.step()
    assert publisher.leads
    assert scene.sent_numbers(0) == [0, 1, 2, 4]
    assert scene.sent_numbers(1) == [3]
    assert scene.sizes() == [0, 0]
    assert publisher.step()
    assert len(scene.broker.sent) == 5
    scene.record(1, 3)
    publisher.step()
    assert scene.sent_numbers(1) == [3, 5, 6, 7]


def test_a_change_is_a_cloud_event(scene: Scene) -> None:
    scene.record(1, 1)
    scene.publisher().step()
    assert scene.broker.sent == [
        Sent(
            TOPIC,
            1,
            b"ann",
            change(0),
            {
                "ce_specversion": "1.0",
                "ce_id": "0000000000000000-1-1",
                "ce_source": "/segstream/shop/activity",
                "ce_type": "segstream.segment.changed",
                "ce_time": "2025-12-01T00:00:00.000Z",
                "ce_subject": "ann",
                "ce_dataschema": "urn:segstream:schema:segment-change:1",
                "ce_kindto": "at_risk",
                "content-type": "application/json",
            },
        )
    ]
    assert scene.broker.producers[0].options["enable.idempotence"] is True


def test_a_crossing_is_a_cloud_event_of_its_own_type_in_the_same_order(scene: Scene) -> None:
    def crossing(number: int, step_to: str | None) -> bytes:
        told = {"level": "churn_risk", "step_to": step_to}
        return json.dumps(
            {"id": f"{number:016x}-1-2", "user": "ann", "at": "2025-12-01T00:00:00.000Z", **told}
        ).encode()

    found = scene.store.acquire(0, "owner")
    assert found is not None
    told = change(0), crossing(1, "high"), crossing(2, None), change(3)
    commit = Commit(found[0], found[1], outbox=[OutboxEntry(1_000, told, found[1].incarnation)])
    assert scene.store.commit(0, "owner", commit) is Answer.OK
    scene.publisher().step()
    assert [sent.value for sent in scene.broker.sent] == list(told)
    heads = [
        tuple(sent.headers.get(name) for name in ("ce_type", "ce_level", "ce_stepto", "ce_kindto"))
        for sent in scene.broker.sent
    ]
    assert heads == [
        ("segstream.segment.changed", None, None, "at_risk"),
        ("segstream.level.changed", "churn_risk", "high", None),
        ("segstream.level.changed", "churn_risk", None, None),
        ("segstream.segment.changed", None, None, "at_risk"),
    ]


@pytest.mark.parametrize(
    ("trouble", "arrived"), [("refused", 0), ("silent", 0), ("unconfirmed", 3)]
)
def test_what_was_not_confirmed_stays_and_goes_out_once_by_another_producer(
    scene: Scene, trouble: str, arrived: int
) -> None:
    scene.record(0, 2, 1)
    scene.broker.trouble = deque([trouble])
    publisher = scene.publisher()
    with pytest.raises(BrokerUnavailableError, match="changes not delivered"):
        publisher.step()
    assert scene.sizes() == [2, 0]
    assert len(scene.broker.sent) == arrived
    assert not publisher.leads
    assert publisher.step()
    assert scene.sent_numbers() == [0, 1, 2], "those that did arrive are found and skipped"
    assert scene.sizes() == [0, 0]
    assert len(scene.broker.producers) == 2


def test_a_successor_reads_the_tail_from_what_was_confirmed_and_skips_what_is_there(
    scene: Scene,
) -> None:
    scene.record(0, 2)
    first = scene.publisher()
    first.step()
    scene.record(0, 3)
    scene.broker.trouble = deque(["unconfirmed"])
    with pytest.raises(BrokerUnavailableError):
        first.step()
    scene.store.release("publisher", first._lease.token)
    scene.reads.clear()
    second = scene.publisher()
    assert second.step()
    assert scene.reads == [(0, 2), (1, 0)]
    assert scene.sent_numbers(0) == [0, 1, 2, 3, 4]
    assert scene.sizes() == [0, 0]


def test_a_gap_in_what_arrived_is_filled(scene: Scene) -> None:
    # The middle of a batch is missing, though what came after it arrived.
    scene.record(0, 3)
    for number in (0, 2):
        headers: dict[str, Any] = {"ce_id": f"{number:016x}-1-1"}
        scene.broker.sent.append(Sent(TOPIC, 0, b"ann", change(number), headers))
    scene.publisher().step()
    assert scene.sent_numbers(0) == [0, 2, 1]
    assert scene.sizes() == [0, 0]


def test_a_second_publisher_stands_by(scene: Scene) -> None:
    first, second = scene.publisher(), scene.publisher()
    assert first.step()
    scene.record(0, 1)
    assert not second.step()
    assert scene.broker.sent == []
    first.close()
    assert second.step()
    assert scene.sent_numbers() == [0]
    assert not first.step()
    second.close()
    assert first.step()


def test_an_earlier_publisher_acknowledges_nothing_any_more(scene: Scene) -> None:
    publisher = scene.publisher()
    publisher.step()
    scene.record(0, 2)
    for partition in range(PARTITIONS):
        scene.store.take_outbox(partition, "another")
    assert not publisher.step(), "the lease decides whether it takes over again"
    # What it sent is read back, not sent again, by whoever holds the outbox: here itself.
    assert scene.sizes() == [1, 0]
    assert publisher.step()
    assert scene.sizes() == [0, 0]
    assert scene.sent_numbers() == [0, 1]


def begin_anew(scene: Scene, partition: int) -> None:
    """The partition's state is lost, which is accepted."""
    del scene.store._partitions[partition]
    output = len(scene.broker.on(TOPIC, partition))
    position = Position([0, 0], "schema", incarnation=output + 1, output=output)
    scene.store.create(partition, "owner", position)


def test_a_publisher_past_its_lease_leaves_its_successor_alone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = scene.publisher(), scene.publisher()
    assert first.step()
    scene.record(0, 1)
    scene.record(1, 1)
    deliver = delivery.deliver

    def slowly(*arguments: Any) -> list[int]:
        offsets = deliver(*arguments)
        monkeypatch.setattr(outbox, "deliver", deliver)
        scene.store.release("publisher", first._lease.token)
        assert second._hold_lease()
        return offsets

    monkeypatch.setattr(outbox, "deliver", slowly)
    assert not first.step()
    assert scene.sizes() == [1, 1], "delivered, and its successor's to acknowledge"
    for _ in range(3):
        assert second.step()
        assert not first.step()
        assert scene.sizes() == [0, 0]
        scene.record(0, 1)
    assert second.step()
    assert scene.sent_numbers(0) == [0, 2, 3, 4]
    assert scene.sent_numbers(1) == [1]


def test_who_loses_the_lease_while_reading_back_sends_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.record(0, 2)
    first, second, read = scene.publisher(), scene.publisher(), scene.delivered_ids

    def slowly(starts: Mapping[int, int]) -> tuple[dict[int, set[str]], list[int]]:
        monkeypatch.setattr(scene, "delivered_ids", read)
        scene.store.release("publisher", first._lease.token)
        assert second.step()
        return read(starts)

    monkeypatch.setattr(scene, "delivered_ids", slowly)
    assert not first.step()
    assert scene.sent_numbers() == [0, 1]
    assert scene.sizes() == [0, 0]


def test_to_read_back_for_long_keeps_nothing_from_being_sent(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.record(0, 2)
    read = scene.delivered_ids

    def slowly(starts: Mapping[int, int]) -> tuple[dict[int, set[str]], list[int]]:
        scene.clock.advance(2 * scene.settings.publisher.deliver_seconds)
        return read(starts)

    monkeypatch.setattr(scene, "delivered_ids", slowly)
    scene.publisher().step()
    assert scene.sent_numbers() == [0, 1]


def test_state_begun_anew_is_taken_again(scene: Scene) -> None:
    publisher = scene.publisher()
    scene.record(0, 1)
    scene.record(0, 1)
    publisher.step()
    begin_anew(scene, 0)
    for _ in range(3):
        scene.record(0, 1)
    publisher.step()
    publisher.step()
    assert scene.sizes() == [0, 0]
    assert scene.sent_numbers() == [0, 1, 2, 3, 4], "from its beginning, though that is passed"


def test_state_begun_anew_during_a_delivery_is_taken_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = scene.publisher()
    scene.record(0, 1)
    scene.record(1, 1)
    deliver = delivery.deliver

    def meanwhile(*arguments: Any) -> list[int]:
        begin_anew(scene, 0)
        return deliver(*arguments)

    monkeypatch.setattr(outbox, "deliver", meanwhile)
    assert not publisher.step()
    monkeypatch.setattr(outbox, "deliver", deliver)
    assert scene.sizes() == [0, 0], "what was delivered elsewhere is acknowledged all the same"
    scene.record(0, 1)
    assert publisher.step()
    assert scene.sizes() == [0, 0]
    assert scene.sent_numbers(0) == [0, 2]


def test_state_that_begins_later_is_taken_when_it_has_something(scene: Scene) -> None:
    del scene.store._partitions[1]
    publisher = scene.publisher()
    assert publisher.step()
    assert scene.reads == [(0, 0)], "where there is no state, nothing can have been sent"
    for number in range(3):  # of an earlier namespace
        headers: dict[str, Any] = {"ce_id": f"{number:016x}-1-1"}
        scene.broker.sent.append(Sent(TOPIC, 1, b"ann", change(number), headers))
    scene.store.create(1, "owner", Position([0, 0], "schema", incarnation=4, output=3))
    scene.record(1, 2)
    assert publisher.step()
    assert publisher.step()
    assert scene.reads == [(0, 0), (1, 3)]
    assert scene.sent_numbers(1) == [0, 1, 2, 0, 1], "the same numbers, and not theirs"
    assert scene.sizes() == [0, 0]


def test_what_was_read_back_is_forgotten_as_it_is_acknowledged(scene: Scene) -> None:
    scene.record(0, 3)
    for number in (0, 1, 2, 7):
        headers: dict[str, Any] = {"ce_id": f"{number:016x}-1-1"}
        scene.broker.sent.append(Sent(TOPIC, 0, b"ann", change(number), headers))
    publisher = scene.publisher()
    publisher.step()
    assert publisher._known[0] == {f"{7:016x}-1-1"}
    # The store had rolled back: its owner comes to record that one again.
    scene.recorded = 7
    scene.record(0, 1)
    publisher.step()
    assert publisher._known[0] == set()
    assert scene.sent_numbers() == [0, 1, 2, 7]
    assert scene.sizes() == [0, 0]


def test_on_a_topic_made_anew_the_offset_delivered_up_to_is_its_own(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = scene.publisher()
    scene.record(0, 5)
    publisher.step()
    assert scene.store.output() == ("one", "")
    scene.broker.sent.clear()
    scene.topic_id = "two"
    scene.record(0, 2)
    publisher.step()
    assert scene.store.take_outbox(0, "another") == 2
    topic_id, lacks = scene.store.output()
    assert topic_id == "two"
    assert lacks.startswith("it was deleted and made anew, noticed 2025-12-01T")
    assert "segstream republish" in caplog.text
    assert REGISTRY.get_sample_value("segstream_output_lacks_changes") == 1


def test_of_a_topic_made_anew_a_partition_first_written_to_later_was_not_cut_short(
    scene: Scene,
) -> None:
    publisher = scene.publisher()
    scene.record(0, 5)
    scene.record(1, 5)
    publisher.step()
    scene.broker.sent.clear()
    scene.topic_id = "two"
    scene.clock.advance(10)
    publisher.step()
    assert scene.store.delivered_to([0, 1]) == [0, 0]
    scene.store.note_output("two", "")  # as who has sent everybody's present segment
    scene.record(1, 1)
    publisher.step()
    assert scene.store.output() == ("two", "")
    assert scene.store.delivered_to([0, 1]) == [0, 1]


def test_a_topic_made_anew_is_noticed_though_nothing_is_written(scene: Scene) -> None:
    publisher = scene.publisher()
    publisher.step()
    scene.topic_id = "two"
    scene.clock.advance(10)
    publisher.step()
    assert scene.store.output()[1]


def test_a_topic_cut_short_is_noticed_while_writing_and_at_the_start(scene: Scene) -> None:
    publisher = scene.publisher()
    scene.record(0, 5)
    publisher.step()
    del scene.broker.sent[2:]
    scene.record(0, 1)
    publisher.step()
    assert "cut short" in scene.store.output()[1]

    scene.store.note_output("one", "")
    publisher.close()
    del scene.broker.sent[1:]
    scene.publisher().step()
    assert "partitions 0 were cut short" in scene.store.output()[1]


def test_what_was_delivered_of_lost_commits_is_not_acknowledged_for_others(scene: Scene) -> None:
    """The store loses a commit after its changes were read; another takes its place in the queue."""
    publisher = scene.publisher()
    kept = copy.deepcopy(scene.store._partitions)
    scene.record(0, 2)
    read = scene.store.outbox

    def read_and_lose(*arguments: Any) -> Any:
        found = read(*arguments)
        if 0 in found and kept:
            scene.store._partitions = dict(kept)
            kept.clear()
            scene.record(0, 3)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.store, "outbox", read_and_lose)
        publisher.step()
        assert scene.sent_numbers() == [0, 1]
        assert scene.sizes() == [1, 0], "the changes that took their place are still to be sent"
        assert not publisher.leads
        publisher.step()
    assert scene.sent_numbers() == [0, 1, 2, 3, 4]
    assert scene.sizes() == [0, 0]


def test_what_is_in_hand_at_once_is_bounded_whatever_entries_are_like(scene: Scene) -> None:
    """A backlog of entries of a hundred changes, and then one of entries of one."""
    most = 1_000
    publisher = scene.settings.publisher.model_copy(update={"batch_changes": most})
    scene.settings = scene.settings.model_copy(update={"publisher": publisher})
    for _ in range(15):
        scene.record(0, 100)
        scene.record(1, 100)
    taken: list[int] = []
    read = scene.store.outbox

    def count(after: Mapping[int, str], limit: int, wait: float) -> Any:
        found = read(after, limit, wait)
        if wait:
            taken.append(sum(len(e.changes) for entries in found.values() for e in entries))
        return found

    at_work = scene.publisher()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.store, "outbox", count)
        while sum(scene.sizes()):
            at_work.step()
        assert max(taken[1:]) <= most
        assert len(taken) < 8
        for _ in range(300):
            scene.record(0, 1)
        taken.clear()
        while sum(scene.sizes()):
            at_work.step()
    assert len(taken) <= 300 / publisher.batch_entries + 3


def test_what_was_in_hand_too_long_is_not_sent(scene: Scene) -> None:
    """Whoever was frozen must not send what an owner has decided otherwise since."""
    scene.record(0, 2)
    publisher = scene.publisher()
    read = scene.store.outbox

    def read_and_freeze(*arguments: Any) -> Any:
        found = read(*arguments)
        scene.clock.advance(scene.settings.publisher.deliver_seconds + 0.3)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.store, "outbox", read_and_freeze)
        with pytest.raises(BrokerUnavailableError, match="not handed over"):
            publisher.step()
    assert scene.sent_numbers() == []
    publisher.step()
    assert scene.sent_numbers() == [0, 1]
    # What the client gives up by itself, record by record, would leave a gap: it is purged before.
    options = scene.broker.producers[-1].options
    assert options["delivery.timeout.ms"] == 2_000 * scene.settings.publisher.deliver_seconds


@pytest.mark.servers
def test_ids_are_read_from_what_kafka_still_has(
    kafka: RealKafka, settings_for: SettingsFor, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(kafka.bootstrap)
    assert topic_plans.apply(settings, create=True) == []
    topic = settings.topics.changes
    producer = Producer(producer_options(settings.broker))
    for number in range(9):
        headers: list[tuple[str, str | bytes | None]] = [
            ("ce_type", {8: LINEAGE, 7: LEVEL_CHANGED}.get(number, CHANGED)),
            ("ce_id", f"{number}"),
        ]
        producer.produce(topic, b"{}", partition=0, headers=headers)
    assert producer.flush(20) == 0
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for deleted in admin.delete_records([TopicPartition(topic, 0, 5)]).values():
        deleted.result(timeout=20)
    output = Output(settings)
    found = output.delivered_ids({0: 2, 1: 0, 2: 4})
    assert found == ({0: {"5", "6", "7"}, 1: set(), 2: set()}, [2])
    assert "partition 2" in caplog.text
    assert "made anew" in caplog.text
    assert "partition 0" not in caplog.text
    assert "partition 1" not in caplog.text
    assert output.delivered_ids({0: 7}) == ({0: {"7"}}, [])
    assert output.delivered_ids({0: 900}) == ({0: set()}, [0])


def test_a_store_that_is_away_is_told_and_nothing_is_lost(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.record(0, 2)
    publisher = scene.publisher()

    def away(*arguments: object) -> bool:
        del arguments
        raise StoreUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(scene.store, "acknowledge", away)
        with pytest.raises(StoreUnavailableError):
            publisher.step()
    assert scene.sent_numbers() == [0, 1]
    assert scene.sizes() == [1, 0]
    publisher.step()
    assert scene.sent_numbers() == [0, 1], "sent, so found in the tail and not sent again"
    assert scene.sizes() == [0, 0]


def test_entries_passed_over_are_found_again(scene: Scene) -> None:
    publisher = scene.publisher()
    scene.record(0, 1)
    publisher.step()
    # The store rolled back: an entry reappears behind the place the publisher stands at.
    state = scene.store._partitions[0]
    state.outbox.append(OutboxEntry(1_000, (change(77),), 1, "1-0"))
    scene.clock.advance(5.0)
    publisher.step()
    scene.clock.advance(5.0)
    publisher.step()
    assert scene.sent_numbers() == [0, 77]
    assert scene.sizes() == [0, 0]


def test_no_more_is_taken_at_once_than_the_settings_say(scene: Scene) -> None:
    scene.settings = Settings.model_validate(
        {"topics": {"partitions": PARTITIONS}, "publisher": {"batch_entries": 2}}
    )
    scene.record(0, 1, 1, 1, 1, 1)
    publisher = scene.publisher()
    left = []
    for _ in range(3):
        publisher.step()
        left.append(scene.sizes()[0])
    assert left == [3, 1, 0]
    assert scene.sent_numbers() == [0, 1, 2, 3, 4]


def test_what_cannot_be_delivered_is_seen_to_wait(scene: Scene) -> None:
    def age() -> float:
        return REGISTRY.get_sample_value("segstream_outbox_age_seconds", {"partition": "0"}) or 0.0

    scene.record(0, 2)
    scene.broker.trouble = deque(["refused", "refused"])
    for _ in range(2):
        # As the role does after an error, one after the other.
        publisher = scene.publisher()
        with pytest.raises(BrokerUnavailableError):
            publisher.step()
        assert age() > 60
        scene.store.release("publisher", publisher._lease.token)
    publisher = scene.publisher()
    assert publisher.step()
    scene.clock.sleep(1.0)
    assert publisher.step()
    assert age() == 0


def test_who_does_not_lead_tells_nothing_of_the_outboxes(scene: Scene) -> None:
    def told() -> bool:
        labels = {"partition": "0"}
        found = [f"segstream_outbox_{what}" for what in ("entries", "age_seconds")]
        return any(REGISTRY.get_sample_value(name, labels) is not None for name in found)

    publisher = scene.publisher()
    assert publisher.step()
    assert told()
    scene.store.release("publisher", publisher._lease.token)
    assert scene.store.lease("publisher", "another", 1.0)
    assert not publisher.step()
    assert not told()
