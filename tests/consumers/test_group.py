"""A member of the group: what is assigned, revoked and lost, and errors of the broker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from confluent_kafka import OFFSET_END, KafkaError, TopicPartition

from consumers.group import GroupMember
from stream.errors import BrokerUnavailableError, OffsetOutOfRangeError
from tests.consumers.scene import (
    EVERYTHING,
    Scene,
    assert_true,
)
from tests.fakes import FakeMessage


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


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (KafkaError.OFFSET_OUT_OF_RANGE, OffsetOutOfRangeError),
        (KafkaError._AUTO_OFFSET_RESET, OffsetOutOfRangeError),
        (KafkaError._MAX_POLL_EXCEEDED, BrokerUnavailableError),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, BrokerUnavailableError),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, BrokerUnavailableError),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, BrokerUnavailableError),
    ],
)
def test_errors_that_do_not_pass_end_the_run(
    live: Scene, code: int, error: type[Exception]
) -> None:
    live.consumer.then(live.consumer.give(*EVERYTHING), lambda: None, live.consumer.fail(code))
    with pytest.raises(error):
        live.run()
    assert_true(live.run())


class Reverting:
    """A consumer that goes back to where it was assigned after a first seek, as librdkafka may."""

    def __init__(self, reverts: int, first: int = 0) -> None:
        self.reverts, self._first = reverts, first
        self.seeks: list[int] = []
        self._at = 0

    def seek(self, where: TopicPartition) -> None:
        self.seeks.append(where.offset)
        self._at = 90 if len(self.seeks) <= self.reverts else max(where.offset, self._first)

    def resume(self, where: object) -> None:
        """It never was paused."""

    def consume(self, limit: int, seconds: float) -> list[FakeMessage]:
        del limit, seconds
        begun, self._at = self._at, self._at + 5
        return [FakeMessage(b"", topic_name="a", place=begun + n) for n in range(5)]


@pytest.mark.parametrize(
    ("reverts", "first", "seeks", "read"),
    [
        (0, 0, [40], [40, 41, 42]),
        # It went to the end, and all before it would never be read.
        (1, 0, [40, 40], [40, 41, 42]),
        # What lies between is gone, or was no message: asked twice, it is believed.
        (0, 60, [40, 40], [60, 61, 62]),
    ],
)
def test_reading_goes_on_where_it_was_asked_to(
    monkeypatch: pytest.MonkeyPatch, reverts: int, first: int, seeks: list[int], read: list[int]
) -> None:
    consumer = Reverting(reverts, first)
    monkeypatch.setattr("consumers.group.kafka_client", lambda *_: consumer)
    owners: Any = None
    member = GroupMember(["a"], owners, {}, 1.0)
    member.read_on_from(0, [40])
    found = [message.offset() for _ in range(3) for message in member.poll(5, 0.0)]
    assert consumer.seeks == seeks
    assert found[:3] == read


class Waiting:
    """Owners of whose partitions 0 is being loaded, and 1 waits for nobody knows what."""

    def assigned(self, together: Sequence[int], completed: Sequence[int]) -> None:
        """They come."""

    def read_from(self, number: int) -> Sequence[int] | None:
        del number
        return None

    def will_read_from(self, number: int) -> Sequence[int] | None:
        return None if number else [40]

    def revoked(self, numbers: Iterable[int]) -> None:
        """They go."""

    def lost(self, numbers: Iterable[int]) -> None:
        """They are gone."""


class Assigning:
    """A consumer that notes where it is to read, and what it is not to read for now."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.paused: list[int] = []

    def assign(self, where: Sequence[TopicPartition]) -> None:
        self.starts = [one.offset for one in where]

    def resume(self, where: object) -> None:
        """As after a rebalance."""

    def pause(self, where: Sequence[TopicPartition]) -> None:
        self.paused = [one.partition for one in where]


def test_what_is_being_loaded_is_assigned_where_it_will_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker need not look up an end then, which could come in between."""
    consumer: Any = Assigning()
    monkeypatch.setattr("consumers.group.kafka_client", lambda *_: consumer)
    member = GroupMember(["a"], Waiting(), {}, 1.0)
    member._on_assign(consumer, [TopicPartition("a", 0), TopicPartition("a", 1)])
    assert consumer.starts == [40, OFFSET_END]
    assert consumer.paused == [0, 1]


def test_errors_that_pass_are_passed_over(live: Scene) -> None:
    consumer = live.consumer
    consumer.then(
        consumer.give(*EVERYTHING),
        consumer.fail(KafkaError._TRANSPORT),
        consumer.fail(KafkaError._ALL_BROKERS_DOWN),
    )
    assert_true(live.run())
