"""Consumer options, membership and whole topics, on Kafka and on the local broker."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from consumers import client
from consumers.client import _Listener, activity_options, detect_protocol, membership, read_to_end
from ops.kafka.server import RealKafka
from producers import topics
from producers.client import producer_options
from stream.config import Broker, ConfigError, Settings
from stream.errors import (
    BrokerUnavailableError,
    OffsetOutOfRangeError,
    TopicMissingError,
    kafka_client,
)
from stream.servers import LocalBroker
from tests.conftest import NOWHERE, BrokerServer, SettingsFor

MakeTopic = Callable[[int], str]


@pytest.fixture
def broker(broker_server: BrokerServer) -> Broker:
    return Broker(bootstrap=broker_server.bootstrap)


@pytest.fixture
def make_topic(broker: Broker, settings_for: SettingsFor) -> MakeTopic:
    """Creates an empty topic with so many partitions."""

    def make(partitions: int) -> str:
        name = settings_for().topics.clickstream
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result(timeout=20)
        return name

    return make


def write(broker: Broker, topic: str, partition: int, batches: int, records: int) -> None:
    """Batches of records, each flushed before the next."""
    producer = Producer(producer_options(broker, linger_seconds=0.02))
    for batch in range(batches):
        for record in range(records):
            value = f"{partition}/{batch}/{record}".encode()
            producer.produce(topic, value, partition=partition)
        assert producer.flush(20) == 0


def offsets(messages: list[Message]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for message in messages:
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        found.setdefault(partition, []).append(offset)
    return found


def test_options_of_both_memberships() -> None:
    broker = Broker(session_timeout_seconds=2, max_poll_interval_seconds=1)
    new = activity_options(broker, "consumer")
    assert new["group.remote.assignor"] == "range"
    assert not {"session.timeout.ms", "heartbeat.interval.ms"} & new.keys()
    old = activity_options(broker, "classic")
    assert old["partition.assignment.strategy"] == "range"
    assert (old["session.timeout.ms"], old["heartbeat.interval.ms"]) == (2_000, 200)
    assert old["max.poll.interval.ms"] == 2_000
    for options in (new, old):
        assert options["auto.offset.reset"] == "error"
        assert not options["enable.auto.commit"]


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_librdkafka_takes_the_options(protocol: client.Protocol) -> None:
    Consumer(activity_options(Broker(bootstrap=NOWHERE), protocol)).close()
    Consumer(client.reader_options(Broker(bootstrap=NOWHERE))).close()


def test_a_misspelt_property_is_a_wrong_setting() -> None:
    broker = Broker(bootstrap=NOWHERE, properties={"sasl.usernam": "me"})
    made: list[Callable[[], object]] = [
        lambda: client.detect_protocol(broker),
        lambda: client.read_to_end(broker, "clickstream"),
        lambda: kafka_client(Producer, producer_options(broker)),
        lambda: kafka_client(AdminClient, {"group.idd": "x"}),
    ]
    for make in made:
        with pytest.raises(ConfigError, match=r"^broker\.properties: No such configuration prop"):
            make()


@pytest.mark.parametrize(
    "properties",
    [
        {"socket.timeout.ms": "soon"},
        {"socket.timeout.ms": "-5"},
        {"security.protocol": "safe"},
        {"security.protocol": "ssl", "ssl.ca.location": "/nowhere/ca.pem"},
        {"security.protocol": "ssl", "ssl.certificate.pem": "no certificate"},
        {"security.protocol": "sasl_ssl", "sasl.mechanism": "MAGIC"},
        {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN"},
        {"plugin.library.paths": "nowhere"},
        {"error_cb": "print"},
        {"stats_cb": "print"},
        {"throttle_cb": "print"},
        {"default.topic.config": "acks=1"},
        {"client.rack": "\udc80"},
        {"opaque": "x"},
    ],
    ids=str,
)
def test_a_property_that_is_refused_is_a_wrong_setting(properties: dict[str, str]) -> None:
    broker = Broker(bootstrap=NOWHERE, properties=properties)
    made: list[Callable[[], object]] = [
        lambda: kafka_client(Consumer, activity_options(broker, "classic")),
        lambda: kafka_client(Producer, producer_options(broker)),
        lambda: topics.missing(Settings(broker=broker), ["clickstream"]),
    ]
    for make in made:
        with pytest.raises(ConfigError, match=r"^broker\.properties: .*CONFIGURATION\.md"):
            make()


@pytest.mark.parametrize("broker", [Broker(group=""), Broker(properties={"group.id": ""})])
def test_a_group_without_a_name_is_a_wrong_setting_and_no_crash(broker: Broker) -> None:
    with pytest.raises(ConfigError, match=r"broker\.group"):
        kafka_client(Consumer, activity_options(broker, "classic"))


def test_transactions_are_not_ours_to_set() -> None:
    broker = Broker(bootstrap=NOWHERE, properties={"transactional.id": "shop"})
    with pytest.raises(ConfigError, match=r"broker\.properties: transactional\.id"):
        kafka_client(Producer, producer_options(broker))


@pytest.mark.parametrize(
    "code", [KafkaError._CRIT_SYS_RESOURCE, KafkaError.SASL_AUTHENTICATION_FAILED]
)
def test_room_for_a_client_and_a_token_are_waited_for(code: int) -> None:
    def make(options: dict[str, Any]) -> None:
        del options
        raise KafkaException(KafkaError(code))

    with pytest.raises(BrokerUnavailableError):
        kafka_client(make, {})


def test_properties_of_the_settings_win() -> None:
    broker = Broker(properties={"fetch.wait.max.ms": "77", "sasl.username": "me"})
    for options in (
        activity_options(broker, "consumer"),
        client.reader_options(broker),
        producer_options(broker),
    ):
        assert options["fetch.wait.max.ms"] == "77"
        assert options["sasl.username"] == "me"


def test_a_membership_in_the_settings_is_not_questioned() -> None:
    assert membership(Broker(bootstrap=NOWHERE, group_protocol="classic")) == "classic"


@pytest.mark.servers
def test_kafka_speaks_kip_848(kafka: RealKafka) -> None:
    assert membership(Broker(bootstrap=kafka.bootstrap)) == "consumer"


@pytest.mark.servers
def test_the_local_broker_speaks_classic(local_broker: LocalBroker) -> None:
    assert membership(Broker(bootstrap=local_broker.bootstrap)) == "classic"


def test_no_broker_is_no_answer() -> None:
    with pytest.raises(BrokerUnavailableError, match=r"broker\.group_protocol"):
        detect_protocol(Broker(bootstrap=NOWHERE), timeout_seconds=0.3)


@pytest.mark.parametrize(
    ("text", "answered", "refused"),
    [
        ("ConsumerGroupHeartbeat response received in state join-started", True, False),
        (
            "ConsumerGroupHeartbeat failed: Broker: Topic authorization failed",
            True,
            False,
        ),
        (
            "ConsumerGroupHeartbeat failed: Local: Broker transport failure",
            False,
            False,
        ),
        ("ConsumerGroupHeartbeatRequest not supported by broker", False, True),
    ],
)
def test_what_a_broker_says_of_a_probe_is_understood(
    text: str, answered: bool, refused: bool
) -> None:
    said = _Listener()
    said.logger.debug(text)
    assert (said.answered, said.refused) == (answered, refused)


@pytest.mark.servers
def test_everything_is_read_the_last_batch_too(broker: Broker, make_topic: MakeTopic) -> None:
    topic = make_topic(4)
    write(broker, topic, 0, batches=3, records=50)
    write(broker, topic, 1, batches=1, records=1)
    write(broker, topic, 3, batches=1, records=700)
    found = offsets(list(read_to_end(broker, topic)))
    assert found == {0: list(range(150)), 1: [0], 3: list(range(700))}


@pytest.mark.servers
@pytest.mark.parametrize("first", [0, 49, 50, 120, 149, 150])
def test_reading_begins_where_told(broker: Broker, make_topic: MakeTopic, first: int) -> None:
    topic = make_topic(2)
    write(broker, topic, 0, batches=3, records=50)
    write(broker, topic, 1, batches=1, records=5)
    found = offsets(list(read_to_end(broker, topic, [0], {0: first})))
    assert found.get(0, []) == list(range(first, 150))
    assert 1 not in found


@pytest.mark.servers
def test_an_empty_topic_ends_at_once(broker: Broker, make_topic: MakeTopic) -> None:
    assert list(read_to_end(broker, make_topic(3))) == []


@pytest.mark.servers
def test_reading_ends_while_others_write(broker: Broker, make_topic: MakeTopic) -> None:
    topic = make_topic(2)
    acknowledged: Counter[int] = Counter()
    done = threading.Event()
    begun = threading.Event()

    def delivered(error: KafkaError | None, message: Message) -> None:
        partition = message.partition()
        if error is None and partition is not None:
            acknowledged[partition] += 1
            if min(acknowledged[0], acknowledged[1]) > 1_000:
                begun.set()

    def go_on_writing() -> None:
        producer = Producer(producer_options(broker, linger_seconds=0.001))
        while not done.is_set():
            for partition in (0, 1) * 10:
                producer.produce(topic, b"x" * 50, partition=partition, on_delivery=delivered)
            producer.poll(0.001)
        producer.flush(20)

    writer = threading.Thread(target=go_on_writing)
    writer.start()
    try:
        assert begun.wait(30)
        before = dict(acknowledged)
        found = offsets(list(read_to_end(broker, topic)))
    finally:
        done.set()
        writer.join()
    for partition, there in before.items():
        assert len(found[partition]) >= there
        assert found[partition] == list(range(len(found[partition])))


@pytest.mark.servers
def test_an_offset_beyond_the_end_is_an_error(broker: Broker, make_topic: MakeTopic) -> None:
    topic = make_topic(1)
    write(broker, topic, 0, batches=2, records=5)
    with pytest.raises(OffsetOutOfRangeError, match="does not have offset 12"):
        list(read_to_end(broker, topic, [0], {0: 12}, stall_seconds=1))


@pytest.mark.servers
@pytest.mark.parametrize(("first", "warned"), [(7, False), (10, False), (11, True), (900, True)])
def test_of_an_offset_beyond_the_end_the_end_is_nearest(
    broker: Broker,
    make_topic: MakeTopic,
    caplog: pytest.LogCaptureFixture,
    first: int,
    warned: bool,
) -> None:
    topic = make_topic(1)
    write(broker, topic, 0, batches=2, records=5)
    found = offsets(list(read_to_end(broker, topic, [0], {0: first}, nearest=True)))
    # The local broker's watermark is behind its last batch: it may give a little more.
    assert set(range(first, 10)) <= set(found.get(0, [])) <= set(range(min(first, 6), 10))
    assert ("made anew" in caplog.text) == warned


@pytest.mark.servers
def test_a_missing_topic_or_partition_is_an_error(broker: Broker, make_topic: MakeTopic) -> None:
    with pytest.raises(TopicMissingError, match="segstream topics apply"):
        read_to_end(broker, "no-such-topic")
    with pytest.raises(TopicMissingError, match="2 partitions, none with number 7"):
        read_to_end(broker, make_topic(2), [0, 7])


def test_an_unreachable_broker_is_an_error() -> None:
    with pytest.raises(BrokerUnavailableError, match=r"is it up, and is broker\.bootstrap right"):
        read_to_end(Broker(bootstrap=NOWHERE), "clickstream", stall_seconds=0.3)


@pytest.mark.servers
def test_a_broker_that_falls_silent_is_an_error() -> None:
    with LocalBroker() as own:
        mine = Broker(bootstrap=own.bootstrap)
        admin = AdminClient({"bootstrap.servers": own.bootstrap})
        admin.create_topics([NewTopic("silent", 1, 1)])["silent"].result(timeout=20)
        write(mine, "silent", 0, batches=1, records=10)
        messages = read_to_end(mine, "silent", stall_seconds=1)
        own.pause()
        try:
            with pytest.raises(BrokerUnavailableError):
                list(messages)
        finally:
            own.resume()
