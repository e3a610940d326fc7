"""Topics as planned: created, compared, never changed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ops.kafka.server import RealKafka
from producers import topics
from producers.topics import TopicPlan, apply, plan
from stream.config import ConfigError
from stream.errors import BrokerUnavailableError
from tests.conftest import BrokerServer, SettingsFor


def test_the_plan_names_every_topic(settings_for: SettingsFor) -> None:
    settings = settings_for(topics={"partitions": 7, "replication": 3})
    plans = {wanted.name: wanted for wanted in plan(settings)}
    topics = settings.topics
    assert [plans[name].partitions for name in (*topics.inputs, topics.changes)] == [7, 7, 7]
    assert plans[topics.models].partitions == 1
    assert plans[topics.models].config["cleanup.policy"] == "compact"
    assert plans[topics.dlq(topics.purchases)].config["retention.ms"] == str(30 * 86_400_000)
    assert {wanted.replication for wanted in plans.values()} == {3}
    assert len(plans) == 6


def test_retention_of_nothing_is_for_ever(settings_for: SettingsFor) -> None:
    settings = settings_for(topics={"input_retention_seconds": 0, "changes_retention_seconds": 60})
    plans = {wanted.name: wanted.config for wanted in plan(settings)}
    assert plans[settings.topics.clickstream]["retention.ms"] == "-1"
    assert plans[settings.topics.changes]["retention.ms"] == "60000"


def test_a_shop_with_its_own_clock_may_be_ahead(settings_for: SettingsFor) -> None:
    key = "message.timestamp.after.max.ms"
    live, own = (settings_for(clock={"mode": mode}) for mode in ("live", "watermark"))
    assert all(key not in wanted.config for wanted in plan(live))
    assert sum(key in wanted.config for wanted in plan(own)) == 2


@pytest.mark.servers
def test_missing_topics_are_told_then_created(
    broker_server: BrokerServer, settings_for: SettingsFor
) -> None:
    settings = settings_for(broker_server.bootstrap, clock={"mode": "watermark"})
    missing = apply(settings, create=False)
    assert {difference.setting for difference in missing} == {"topic"}
    assert {difference.remedy for difference in missing} == {"segstream topics apply"}
    created: list[TopicPlan] = []
    assert apply(settings, create=True, on_created=created.append) == []
    assert [wanted.name for wanted in created] == [difference.topic for difference in missing]
    created.clear()
    assert apply(settings, create=True, on_created=created.append) == []
    assert created == []


@pytest.mark.servers
def test_what_differs_is_told_with_a_remedy(
    broker_server: BrokerServer, settings_for: SettingsFor
) -> None:
    settings = settings_for(broker_server.bootstrap)
    assert apply(settings, create=True) == []
    topics = settings.topics.model_copy(update={"partitions": 5, "input_retention_seconds": 0.0})
    differences = apply(settings.model_copy(update={"topics": topics}), create=True)
    clickstream = {d.setting: d for d in differences if d.topic == topics.clickstream}
    assert set(clickstream) == {"partitions", "retention.ms"}
    partitions, retention = clickstream["partitions"], clickstream["retention.ms"]
    assert (partitions.expected, partitions.found) == ("5", "4")
    assert "SEGSTREAM_TOPICS__PARTITIONS=4" in partitions.remedy
    assert (retention.expected, retention.found) == ("-1", "2592000000")
    assert retention.remedy.endswith(f"{topics.clickstream} --add-config retention.ms=-1")
    assert {d.topic for d in differences} == {*topics.inputs, topics.changes}


@pytest.mark.servers
def test_another_number_of_partitions_is_refused(
    monkeypatch: pytest.MonkeyPatch, settings_for: SettingsFor
) -> None:
    there = {"clicks": SimpleNamespace(partitions={0: 0, 1: 1})}
    monkeypatch.setattr(topics, "_listed", lambda *_: there)
    topics.see_partitions(settings_for(topics={"clickstream": "clicks", "partitions": 2}))
    with pytest.raises(ConfigError, match=r"partitions = 3, but topic clicks has 2; set it to 2"):
        topics.see_partitions(settings_for(topics={"clickstream": "clicks", "partitions": 3}))


def test_a_refused_topic_says_why(kafka: RealKafka, settings_for: SettingsFor) -> None:
    # Kafka alone: the local broker takes any number of copies.
    settings = settings_for(kafka.bootstrap, topics={"replication": 3})
    with pytest.raises(BrokerUnavailableError, match="was not created"):
        apply(settings, create=True)


def test_no_broker_is_said_in_words(
    settings_for: SettingsFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.topics.REQUEST_SECONDS", 0.3)
    with pytest.raises(BrokerUnavailableError, match="no broker answers at"):
        apply(settings_for(), create=False)
