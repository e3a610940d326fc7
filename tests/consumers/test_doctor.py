"""The doctor finds what is wrong, and names a remedy for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it re-exports them silently
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from consumers.doctor import examine
from consumers.findings import Finding
from ops.kafka.server import RealKafka
from producers.client import MESSAGE_BYTES
from producers.topics import apply
from stream import fitness
from stream.config import ConfigError, Settings
from stream.config_layers import as_file
from stream.servers import LocalBroker, LocalStore
from stream.store.redis import RedisStore, connect
from stream.store.state import StoreRefusedError, StoreUnavailableError
from tests.conftest import SettingsFor
from tests.integration.processes import segstream
from tests.strategies import START_MS, encoded


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no broker is wanted, it is not waited for."""
    monkeypatch.setattr("consumers.doctor.BROKER_SECONDS", 1.0)


def findings(settings: Settings) -> dict[str, Finding]:
    found = examine(settings, lambda: apply(settings, create=False))
    for finding in found:
        assert finding.ok or finding.remedy
    return {finding.subject: finding for finding in found}


def wrong(settings: Settings) -> set[str]:
    return {subject for subject, finding in findings(settings).items() if not finding.ok}


def test_nothing_reachable_is_two_findings(settings_for: SettingsFor) -> None:
    found = findings(settings_for())
    assert set(found) == {"broker", "store"}
    assert "SEGSTREAM_BROKER__BOOTSTRAP" in found["broker"].remedy
    assert "SEGSTREAM_STORE__URL" in found["store"].remedy


def test_a_misspelt_property_is_a_wrong_setting(settings_for: SettingsFor) -> None:
    with pytest.raises(ConfigError, match=r"broker\.properties: .*sasl\.usernam\b"):
        findings(settings_for(broker={"properties": {"sasl.usernam": "me"}}))


@pytest.mark.parametrize("command", [("run", "activity"), ("doctor",), ("topics", "apply")])
def test_a_property_that_is_refused_ends_a_command_with_a_sentence(
    command: tuple[str, ...],
) -> None:
    properties = '{"security.protocol" = "ssl", "ssl.ca.location" = "/nowhere/ca.pem"}'
    said = segstream("--set", f"broker.properties={properties}", *command)
    assert said.code == 2
    assert "broker.properties: " in said.err
    assert "ssl.ca.location" in said.err


@pytest.mark.servers
def test_a_wrong_password_ends_a_role_at_once(redis_url: str) -> None:
    url = redis_url.replace("redis://", "redis://nobody:wrong@")
    said = segstream("--set", f"store.url={url}", "run", "trainer")
    assert said.code == 1
    assert "invalid username-password pair" in said.err
    assert "ops/guide/redis.md" in said.err
    assert "trying again" not in said.err
    assert "wrong" not in said.err


@pytest.mark.servers
def test_a_healthy_pipeline(
    kafka: RealKafka, store_server: LocalStore, settings_for: SettingsFor
) -> None:
    settings = settings_for(kafka.bootstrap, store_server.url)
    apply(settings, create=True)
    found = findings(settings)
    assert not wrong(settings)
    assert "KIP-848" in found["group membership"].finding
    with redis.Redis.from_url(store_server.url) as connection:
        assert connection.keys(f"{settings.store.namespace}:*") == []


@pytest.mark.servers
def test_the_local_broker_is_healthy_too(
    local_broker: LocalBroker, redis_url: str, settings_for: SettingsFor
) -> None:
    settings = settings_for(local_broker.bootstrap, redis_url)
    assert f"topic {settings.topics.models}" in wrong(settings)
    apply(settings, create=True)
    assert not wrong(settings)
    assert "classic" in findings(settings)["group membership"].finding


@pytest.mark.servers
def test_topics_that_do_not_fit(
    local_broker: LocalBroker, redis_url: str, settings_for: SettingsFor
) -> None:
    settings = settings_for(local_broker.bootstrap, redis_url)
    apply(settings, create=True)
    # The purchases of one shop beside the clicks of another, with fewer partitions.
    other = settings_for(local_broker.bootstrap, redis_url, topics={"partitions": 2})
    apply(other, create=True)
    topics = settings.topics.model_copy(update={"purchases": other.topics.purchases})
    found = findings(settings.model_copy(update={"topics": topics}))
    assert not found["co-partitioning"].ok
    assert other.topics.purchases in found["co-partitioning"].remedy
    assert not found[f"topic {other.topics.purchases}"].ok


@pytest.mark.servers
def test_history_needs_topics_that_keep_it(
    local_broker: LocalBroker, redis_url: str, settings_for: SettingsFor
) -> None:
    settings = settings_for(local_broker.bootstrap, redis_url, clock={"mode": "watermark"})
    apply(settings, create=True)
    assert wrong(settings) == {"retention"}
    kept = settings.topics.model_copy(update={"input_retention_seconds": 0.0})
    assert "retention" not in findings(settings.model_copy(update={"topics": kept}))


@pytest.mark.servers
def test_topics_too_small_for_what_is_sent(
    kafka: RealKafka, redis_url: str, settings_for: SettingsFor
) -> None:
    settings = settings_for(kafka.bootstrap, redis_url)
    topics, key = settings.topics, "max.message.bytes"
    outputs = {topics.changes, topics.models, *map(topics.dlq, topics.inputs)}
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    counts = dict.fromkeys(topics.inputs, topics.partitions) | {topics.changes: topics.partitions}
    names = [*outputs, *topics.inputs]
    made = admin.create_topics([NewTopic(name, counts.get(name, 1), 1) for name in names])
    for future in made.values():
        future.result()
    small = [
        (finding.subject, finding.remedy)
        for finding in examine(settings, lambda: apply(settings, create=False))
        if f"{key} is 1048588, expected {MESSAGE_BYTES}" in finding.finding
    ]
    assert {subject for subject, _ in small} == {f"topic {name}" for name in outputs}
    assert all(f"--add-config {key}={MESSAGE_BYTES}" in remedy for _, remedy in small)
    for name in outputs:
        resource = ConfigResource(ResourceType.TOPIC, name)
        resource.add_incremental_config(
            ConfigEntry(key, "9999999", incremental_operation=AlterConfigOpType.SET)
        )
        admin.incremental_alter_configs([resource])[resource].result()
    assert not any(key in finding.finding for finding in findings(settings).values())


@pytest.mark.servers
def test_a_cluster_is_not_supported(settings_for: SettingsFor) -> None:
    with LocalStore(appendonly=True, arguments=["--cluster-enabled", "yes"]) as store:
        settings = settings_for(store_url=store.url)
        found = findings(settings)
        assert wrong(settings) == {"broker", "store cluster"}
        assert "not supported yet" in found["store cluster"].finding
        said = segstream("--set", f"store.url={store.url}", "run", "trainer")
        assert said.code == 1
        assert "the store is a Redis Cluster, which is not supported yet" in said.err
        assert "MOVED" not in said.err


@pytest.mark.servers
@pytest.mark.parametrize("role", ["activity", "trainer", "publisher"])
def test_no_role_starts_on_a_store_that_forgets(
    kafka: RealKafka, settings_for: SettingsFor, tmp_path: Path, role: str
) -> None:
    with LocalStore(arguments=["--maxmemory-policy", "allkeys-lfu"]) as store:
        settings = settings_for(kafka.bootstrap, store.url)
        apply(settings, create=True)
        config = tmp_path / "shop.toml"
        config.write_text(as_file(settings))
        said = segstream("-c", str(config), "run", role)
        assert said.code == 1
        assert "maxmemory-policy is allkeys-lfu" in said.err
        assert "CONFIG SET maxmemory-policy noeviction" in said.err


@pytest.mark.servers
@pytest.mark.parametrize("policy", ["volatile-lru", "volatile-ttl", "volatile-random"])
def test_what_expires_may_be_dropped(settings_for: SettingsFor, policy: str) -> None:
    with LocalStore(appendonly=True, arguments=["--maxmemory-policy", policy]) as store:
        found = findings(settings_for(store_url=store.url))["store memory policy"]
        assert found.ok
        assert "leases" in found.finding
        with redis.Redis.from_url(store.url) as client:
            fitness.require(client)


@pytest.mark.servers
def test_what_may_not_be_asked_keeps_no_role_from_starting() -> None:
    with LocalStore(arguments=["--maxmemory-policy", "allkeys-lru"]) as store:
        with redis.Redis.from_url(store.url) as client:
            client.acl_setuser("blind", enabled=True, nopass=True, keys=["*"], commands=["+get"])
        with connect(store.url.replace("redis://", "redis://blind:x@"), 5.0) as client:
            fitness.require(client)
            assert fitness.look(client).policy is None
        stranger = connect(store.url.replace("redis://", "redis://nobody:x@"), 5.0)
        with stranger, pytest.raises(StoreRefusedError, match="invalid username-password"):
            fitness.require(stranger)
    with pytest.raises(StoreUnavailableError):
        fitness.require(connect(store.url, 0.5))


@pytest.mark.servers
def test_an_unsafe_store(settings_for: SettingsFor) -> None:
    with LocalStore(arguments=["--maxmemory-policy", "allkeys-lru"]) as store:
        settings = settings_for(store_url=store.url)
        assert wrong(settings) == {"broker", "store memory policy", "store persistence"}
        with redis.Redis.from_url(store.url) as connection:
            connection.config_set("maxmemory-policy", "noeviction")
            connection.config_set("maxmemory", "1mb")
            assert "store writes" in wrong(settings)


@pytest.mark.servers
def test_a_store_with_a_password(settings_for: SettingsFor) -> None:
    with LocalStore() as store:
        with redis.Redis.from_url(store.url) as connection:
            connection.acl_setuser(
                "reader", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@read"]
            )
            connection.config_set("requirepass", "secret")
        refused = findings(settings_for(store_url=store.url))["store"]
        assert not refused.ok
        assert "user:password@" in refused.remedy
        url = store.url.replace("redis://", "redis://reader:secret@")
        found = examine(settings_for(store_url=url), list)
        assert "store writes" in {finding.subject for finding in found if not finding.ok}
        assert not any("secret" in finding.finding for finding in found)


@pytest.mark.servers
def test_a_replica_is_not_written_to(settings_for: SettingsFor) -> None:
    with LocalStore(appendonly=True) as master, LocalStore(appendonly=True) as replica:
        with redis.Redis.from_url(replica.url) as connection:
            connection.replicaof("127.0.0.1", str(master.port))
        found = findings(settings_for(store_url=replica.url))
        assert "master" in found["store writes"].remedy


@pytest.mark.servers
def test_an_output_that_lacks_changes_is_told_until_they_are_sent_again(
    redis_url: str, settings_for: SettingsFor
) -> None:
    settings = settings_for(store_url=redis_url)
    client = connect(redis_url, 5.0)
    store = RedisStore(client, namespace=settings.store.namespace, partitions=1)
    assert "output" not in findings(settings)
    store.note_output("id", "it was deleted and made anew, noticed 2026-11-26T00:00:00.000Z")
    found = findings(settings)["output"]
    assert not found.ok
    assert "noticed 2026-11-26" in found.finding
    assert "segstream republish" in found.remedy
    store.note_output("id", "")
    assert "output" not in findings(settings)
    store.close()


@pytest.mark.servers
def test_a_producer_with_another_partitioner_is_told(
    kafka: RealKafka, redis_url: str, settings_for: SettingsFor
) -> None:
    settings = settings_for(kafka.bootstrap, redis_url)
    apply(settings, create=True)
    for topic, partitioner in zip(
        settings.topics.inputs, ("murmur2_random", "consistent_random"), strict=True
    ):
        producer = Producer({"bootstrap.servers": kafka.bootstrap, "partitioner": partitioner})
        for number in range(40):
            user = f"user {number}"
            producer.produce(topic, encoded(userId=user, time_ms=START_MS), key=user.encode())
        assert producer.flush(30) == 0
    found = findings(settings)
    clicks, orders = (found[f"placement in {topic}"] for topic in settings.topics.inputs)
    assert clicks.ok
    assert "newest 40 events" in clicks.finding
    assert not orders.ok
    assert "crc32" in orders.finding
