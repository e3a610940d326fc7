"""Every recorded change is delivered once in effect, and forgotten only then."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from producers import changes, delivery
from producers.changes import ChangePublisher
from stream.config import Settings
from stream.errors import BrokerUnavailableError
from stream.metrics import REGISTRY
from stream.state import Answer, Commit, MemoryStore, OutboxEntry, Position, StoreUnavailableError
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

    def __post_init__(self) -> None:
        self.settings = Settings.model_validate({"topics": {"partitions": PARTITIONS}})
        for partition in range(PARTITIONS):
            self.store.create(partition, "owner", Position([0, 0], "schema"))

    def publisher(self) -> ChangePublisher:
        return ChangePublisher(self.settings, self.store, self.read_ids, self.clock.time)

    def read_ids(self, starts: Mapping[int, int]) -> dict[int, set[str]]:
        self.reads += sorted(starts.items())
        return {
            partition: {str(s.headers["ce_id"]) for s in self.broker.on(TOPIC, partition)[start:]}
            for partition, start in starts.items()
        }

    def record(self, partition: int, *entries: int) -> None:
        """One commit with entries of so many changes each."""
        outbox = []
        for size in entries:
            numbers = range(self.recorded, self.recorded + size)
            self.recorded += size
            outbox.append(OutboxEntry(1_000, tuple(change(n) for n in numbers), 1))
        found = self.store.acquire(partition, "owner")
        assert found is not None
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
    monkeypatch.setattr(changes, "Producer", broker.producer)
    monkeypatch.setattr(changes, "time", clock)
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
                "ce_source": "/segstream/activity",
                "ce_type": "segstream.segment.changed",
                "ce_time": "2025-12-01T00:00:00.000Z",
                "ce_subject": "ann",
                "ce_kindto": "at_risk",
                "content-type": "application/json",
            },
        )
    ]
    assert scene.broker.producers[0].options["enable.idempotence"] is True


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
    scene.store.release("publisher", first._token)
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
    publisher.step()
    # What it sent is read back, not sent again, by whoever holds the outbox: here itself.
    assert scene.sizes() == [1, 0]
    publisher.step()
    assert scene.sizes() == [0, 0]
    assert scene.sent_numbers() == [0, 1]


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


def test_who_does_not_lead_tells_nothing_of_the_outboxes(scene: Scene) -> None:
    def told() -> bool:
        labels = {"partition": "0"}
        found = [f"segstream_outbox_{what}" for what in ("entries", "age_seconds")]
        return any(REGISTRY.get_sample_value(name, labels) is not None for name in found)

    publisher = scene.publisher()
    assert publisher.step()
    assert told()
    scene.store.release("publisher", publisher._token)
    assert scene.store.lease("publisher", "another", 1.0)
    assert not publisher.step()
    assert not told()
