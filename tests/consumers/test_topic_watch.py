"""Topics and group are compared now and then; what is missing is said once, with what to do."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from consumers.group_namespace import client_id
from consumers.topic_watch import COMPARE_SECONDS, TopicReplacedError, TopicWatch
from stream.config import ConfigError, Settings
from stream.errors import BrokerUnavailableError, TopicMissingError
from stream.store.state import Position

MISSING = TopicMissingError("topic clickstream does not exist; segstream topics apply creates it")
SERVED = [Position([0, 0], "schema", topics=["a", "b", "c"])]


class Broker:
    """Answers as it is told to."""

    def __init__(self) -> None:
        self.ids: Any = ["a", "b"]
        self.members: list[str] = []
        self.asked = 0

    def topic_ids(self, names: Any) -> list[str]:
        del names
        self.asked += 1
        if isinstance(self.ids, Exception):
            raise self.ids
        found: list[str] = self.ids
        return found

    def group_members(self) -> list[str]:
        return self.members


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def watch(broker: Broker) -> TopicWatch:
    return TopicWatch(Settings(), broker)


def test_it_asks_now_and_then(broker: Broker, watch: TopicWatch) -> None:
    for second in range(1, 41):
        watch.look(1_000.0 + second, SERVED)
    assert broker.asked == 40 / COMPARE_SECONDS


def test_a_missing_topic_is_warned_of_once_while_it_is_missing(
    broker: Broker, watch: TopicWatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    broker.ids = MISSING
    for number in range(1, 10):
        watch.look(number * COMPARE_SECONDS, [])
    broker.ids = ["a", "b"]
    watch.look(10 * COMPARE_SECONDS, SERVED)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "segstream topics apply" in caplog.text
    assert "new store.namespace" in caplog.text
    broker.ids = MISSING
    watch.look(11 * COMPARE_SECONDS, [])
    assert len(caplog.records) == 2


def test_a_broker_that_is_away_is_no_missing_topic(
    broker: Broker, watch: TopicWatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    broker.ids = BrokerUnavailableError("away")
    watch.look(COMPARE_SECONDS, SERVED)
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_a_topic_made_anew_stops_it(broker: Broker, watch: TopicWatch) -> None:
    broker.ids = ["a", "x"]
    watch.look(COMPARE_SECONDS, [])
    with pytest.raises(TopicReplacedError, match="purchases was deleted and made anew"):
        watch.look(2 * COMPARE_SECONDS, SERVED)


def test_the_group_is_asked_for_after_partitions_were_given_out(
    broker: Broker, watch: TopicWatch
) -> None:
    broker.members = [client_id("another")]
    watch.look(COMPARE_SECONDS, SERVED)
    watch.regrouped()
    with pytest.raises(ConfigError, match="another"):
        watch.look(2 * COMPARE_SECONDS, SERVED)
