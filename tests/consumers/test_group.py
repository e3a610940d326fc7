"""A member of the group: what is assigned, revoked and lost, and errors of the broker."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from stream.errors import BrokerUnavailableError, OffsetOutOfRangeError
from tests.consumers.scene import (
    EVERYTHING,
    Scene,
    assert_true,
)


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


def test_errors_that_pass_are_passed_over(live: Scene) -> None:
    consumer = live.consumer
    consumer.then(
        consumer.give(*EVERYTHING),
        consumer.fail(KafkaError._TRANSPORT),
        consumer.fail(KafkaError._ALL_BROKERS_DOWN),
    )
    assert_true(live.run())
