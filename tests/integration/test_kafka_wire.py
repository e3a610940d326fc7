"""Kafka that asks who we are: by password, by token, by certificate; and lists that say what we may."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Producer

from consumers.client import admin_options, detect_protocol, read_to_end
from consumers.doctor import examine
from consumers.group_members import members_of
from producers import topics
from producers.client import producer_options
from producers.delivery import DeliveryError, Record, deliver
from stream.config import Broker, Settings
from stream.errors import BrokerUnavailableError, kafka_client
from tests.conftest import SettingsFor
from tests.secured import PATIENCE_SECONDS, SecuredKafka

pytestmark = [pytest.mark.servers, pytest.mark.slow]
WAYS = ("by_password", "by_token", "by_certificate")


@pytest.fixture(scope="module")
def settings(secured: SecuredKafka, settings_for: SettingsFor) -> Settings:
    """Of a pipeline whose topics are there, and whose operator has their rights."""
    found = settings_for(secured.server.bootstrap)
    assert topics.apply(found, create=True) == []
    secured.allow("operator", found)
    return found


def as_role(settings: Settings, section: dict[str, Any]) -> Settings:
    """The settings of a role: how it shows who it is, and the rest as it was."""
    told = settings.broker.model_dump() | section
    return settings.model_copy(update={"broker": Broker.model_validate(told)})


@pytest.mark.parametrize("way", WAYS)
def test_whoever_shows_who_they_are_reads_and_writes_what_lists_allow(
    secured: SecuredKafka, settings: Settings, way: str
) -> None:
    operator = as_role(settings, getattr(secured, way)("operator"))
    producer = kafka_client(Producer, producer_options(operator.broker))
    clicks, models = settings.topics.clickstream, settings.topics.models
    deliver(producer, [Record(clicks, way.encode(), b"ann")], PATIENCE_SECONDS)
    assert way.encode() in [one.value() for one in read_to_end(operator.broker, clicks)]
    assert detect_protocol(operator.broker, PATIENCE_SECONDS) == "consumer"
    assert members_of(settings.broker.group, admin_options(operator.broker), PATIENCE_SECONDS) == []
    with pytest.raises(DeliveryError, match=r"[Aa]uthoriz"):
        deliver(producer, [Record(models, b"{}", b"current")], PATIENCE_SECONDS)
    stranger = as_role(settings, getattr(secured, way)("reader"))
    with pytest.raises(BrokerUnavailableError, match=r"authorization failed .*kafka\.md"):
        list(read_to_end(stranger.broker, clicks))


def test_the_doctor_says_why_it_is_not_let_in(
    secured: SecuredKafka, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    section = secured.by_password("doctor")
    wrong = section | {"properties": {**section["properties"], "sasl.password": "a wrong one"}}
    (found, *_) = examine(as_role(settings, wrong), list)
    assert (found.ok, found.subject) == (False, "broker")
    assert "ops/guide/kafka.md" in found.remedy
    nobody = secured.by_token("doctor")
    properties = {**nobody["properties"], "sasl.oauthbearer.config": "nobody"}
    (found, *_) = examine(as_role(settings, nobody | {"properties": properties}), list)
    assert not found.ok
    assert "no token from tests.integration.tokens:token: PermissionError" in caplog.text
