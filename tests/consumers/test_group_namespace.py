"""One group serves one namespace; two are an error that names both."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Consumer

from consumers.client import activity_options, membership
from consumers.group_namespace import client_id, see_group
from consumers.output import Output
from ops.kafka.server import RealKafka
from producers.topics import apply
from stream.config import ConfigError, Settings
from tests.conftest import SettingsFor
from tests.consumers.scene import EVERYTHING, Scene, events, write

SETTINGS = Settings.model_validate(
    {"broker": {"group": "shared"}, "store": {"namespace": "shop-a"}}
)


@pytest.mark.parametrize(
    "members",
    [
        [],
        ["segstream.shop-a"] * 3,
        ["segstream", "rdkafka", "a.b", ""],
        [client_id("shop-a")],
    ],
)
def test_members_of_the_same_namespace_or_of_none_are_right(members: list[str]) -> None:
    see_group(SETTINGS, members)


@pytest.mark.parametrize("other", ["shop-b", "shop-a.old", "shop", "x"])
def test_a_member_of_another_namespace_is_named(other: str) -> None:
    with pytest.raises(ConfigError) as caught:
        see_group(SETTINGS, ["segstream.shop-a", client_id(other)])
    said = str(caught.value)
    assert "broker.group = shared" in said
    assert f"namespace {other} are members" in said
    assert "namespace shop-a would" in said


def test_a_worker_does_not_join_the_group_of_another_namespace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    write(scene, events(1))
    scene.output.members = [client_id("other")]
    with pytest.raises(ConfigError, match="namespace other"):
        scene.run()
    assert not scene.store.commits


def test_a_worker_notices_another_namespace_that_joins_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    write(scene, events(1))

    def join() -> None:
        scene.output.members = [client_id("segstream"), client_id("other")]

    scene.consumer.then(scene.consumer.give(*EVERYTHING), join)
    with pytest.raises(ConfigError, match="namespace other"):
        scene.run(idle=5_000)


@pytest.mark.servers
def test_a_broker_tells_the_namespaces_of_members(
    kafka: RealKafka, settings_for: SettingsFor
) -> None:
    settings = settings_for(kafka.bootstrap)
    apply(settings, create=True)
    name = client_id("somewhere-else")
    options = activity_options(settings.broker, membership(settings.broker), name)
    member = Consumer(options)
    output = Output(settings)
    try:
        assert output.group_members() == []
        member.subscribe([settings.topics.clickstream])
        deadline = time.monotonic() + 30
        while not output.group_members():
            member.poll(0.1)
            assert time.monotonic() < deadline
        assert output.group_members() == [name]
        with pytest.raises(ConfigError, match="somewhere-else"):
            see_group(settings, output.group_members())
    finally:
        member.close()
