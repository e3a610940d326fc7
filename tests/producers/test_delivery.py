"""Delivered means confirmed, record by record; anything else is an error and a purged producer."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from producers import delivery
from producers.delivery import DeliveryError, Record, deliver
from tests.fakes import Clock, RecordingBroker, RecordingProducer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(delivery, "time", made)
    return made


def sending(broker: RecordingBroker, records: list[Record]) -> list[int]:
    producer: Any = broker.producer({})
    return deliver(producer, records, 30.0)


RECORDS = [Record("t", b"%d" % i, b"k", i % 2, [("h", "v")]) for i in range(5)]


def test_offsets_come_back_in_the_order_of_the_records() -> None:
    broker = RecordingBroker()
    assert sending(broker, RECORDS) == [0, 0, 1, 1, 2]
    assert [sent.value for sent in broker.on("t", 0)] == [b"0", b"2", b"4"]
    assert broker.sent[0].key == b"k"
    assert broker.sent[0].headers == {"h": "v"}
    assert not broker.producers[0].purged


def test_nothing_to_send_is_delivered() -> None:
    assert sending(RecordingBroker(), []) == []


@pytest.mark.parametrize(
    ("trouble", "reason", "arrived"),
    [("refused", "Message timed out", 0), ("silent", "no confirmation in 30 s", 0),
     ("unconfirmed", "Message timed out", 5)],
)  # fmt: skip
def test_what_is_not_confirmed_is_an_error_and_leaves_nothing_under_way(
    trouble: str, reason: str, arrived: int
) -> None:
    broker = RecordingBroker(deque([trouble]))
    with pytest.raises(DeliveryError, match=f"5 of 5 records: .*{reason}"):
        sending(broker, RECORDS)
    assert broker.producers[0].purged
    assert broker.producers[0].dropped == [], "an untaken report keeps its record in memory"
    assert len(broker.sent) == arrived


def test_one_failure_among_many_is_told() -> None:
    class Picky(RecordingProducer):
        def produce(self, *arguments: Any, **options: Any) -> None:
            self._broker.trouble.clear()
            super().produce(*arguments, **options)

        def flush(self, timeout: float) -> int:
            if self.purged:
                return super().flush(timeout)
            one, *rest = self._queue
            self._queue = [one]
            self._broker.trouble.append("refused")
            super().flush(timeout)
            self._queue = rest
            return super().flush(timeout)

    broker = RecordingBroker()
    producer: Any = Picky(broker, {})
    with pytest.raises(DeliveryError, match="1 of 5 records"):
        deliver(producer, RECORDS, 30.0)
    assert producer.purged


def test_a_full_queue_is_emptied_and_tried_again() -> None:
    broker = RecordingBroker(full=3)
    assert len(sending(broker, RECORDS)) == 5
    assert broker.producers[0].polls == 3


def test_a_queue_that_stays_full_is_given_up(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = RecordingBroker(full=10**9)
    producer: Any = broker.producer({})
    monkeypatch.setattr(producer, "poll", clock.advance)
    with pytest.raises(DeliveryError):
        deliver(producer, RECORDS, 1.0)
    assert producer.purged


@pytest.mark.parametrize(
    "broker", [RecordingBroker(limit=9), RecordingBroker(topic_limit=9)], ids=["own", "topic"]
)
def test_what_is_too_large_is_told_from_what_may_pass(broker: RecordingBroker) -> None:
    with pytest.raises(DeliveryError) as caught:
        sending(broker, [*RECORDS, Record("t", b"0123456789")])
    assert caught.value.too_large
    assert broker.producers[0].dropped == []


def test_a_fatal_producer_is_given_up() -> None:
    broker = RecordingBroker(fatal=True)
    with pytest.raises(DeliveryError):
        sending(broker, RECORDS)
    assert broker.producers[0].purged
