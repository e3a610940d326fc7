"""The doctor finds what is wrong, and names a remedy for it."""

from __future__ import annotations

import pytest
import redis

from consumers.doctor import Finding, examine
from ops.kafka.server import RealKafka
from producers.topics import apply
from stream.config import ConfigError, Settings
from stream.servers import LocalBroker, LocalStore
from tests.conftest import SettingsFor


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
