"""Examines what the pipeline depends on, and names a remedy for whatever is wrong.

Comes in: `Settings`, and the topics' differences from whoever knows the plan. Goes out:
`Finding`s in the order in which one would repair them. Nothing is changed, except that one key
is written to the store and deleted.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Protocol

import redis
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from consumers import checkup
from consumers.client import admin_options, membership
from consumers.findings import Finding
from stream import fitness
from stream.config import Settings, Store
from stream.errors import BrokerUnavailableError, kafka_client
from stream.fitness import ServerFacts
from stream.rights import acl_line
from stream.store.redis import RedisStore, connect_store, output_key

BROKER_SECONDS = 5.0
OLDEST_REDIS = (7, 0)
MAY_NOT = "this user may not ask"


class TopicDifference(Protocol):
    """One way in which a topic is not as planned; see `producers.topics.Difference`."""

    @property
    def topic(self) -> str: ...
    @property
    def setting(self) -> str: ...
    @property
    def expected(self) -> str: ...
    @property
    def found(self) -> str: ...
    @property
    def remedy(self) -> str: ...


def examine(
    settings: Settings, differences: Callable[[], Sequence[TopicDifference]]
) -> list[Finding]:
    """Look at broker, topics and store.

    Args:
        settings: what to look for, and where.
        differences: compares the topics with their plan; called only if the broker answers.

    Returns:
        A finding for everything looked at. What cannot be looked at because something before it
        is wrong has none.
    """
    broker = _broker(settings, differences)
    return [*broker, *_store(settings, broker_answers=broker[0].ok)]


# -- broker -----------------------------------------------------------------------------------


def _broker(
    settings: Settings, differences: Callable[[], Sequence[TopicDifference]]
) -> list[Finding]:
    broker = settings.broker
    try:
        admin = kafka_client(AdminClient, admin_options(broker))
        metadata = admin.list_topics(timeout=BROKER_SECONDS)
    except (KafkaException, BrokerUnavailableError) as error:
        inner = error.args[0] if error.args else error
        reason = inner.str() if isinstance(inner, KafkaError) else str(error)
        return [
            Finding(
                False,
                "broker",
                f"none answers at {broker.bootstrap}: {reason}",
                "start Kafka, or set SEGSTREAM_BROKER__BOOTSTRAP=host:port; for TLS or SASL set"
                " broker.properties (ops/guide/kafka.md)",
            )
        ]
    count = len(metadata.brokers)
    findings = [
        Finding(True, "broker", f"{broker.bootstrap} answers, {count} in the cluster"),
        _membership(settings),
    ]
    if settings.topics.replication > count:
        findings.append(
            Finding(
                False,
                "replication",
                f"topics.replication is {settings.topics.replication}, but there are {count}"
                " brokers",
                f"SEGSTREAM_TOPICS__REPLICATION={count}",
            )
        )
    try:
        found = list(differences())
    except BrokerUnavailableError as error:
        remedy = "give this user the right to describe topics and their settings"
        return [*findings, Finding(False, "topics", str(error), remedy)]
    counts = {name: len(topic.partitions) for name, topic in metadata.topics.items()}
    findings += [*_topics(found), *_inputs(settings, counts), *_replay(settings, found)]
    expected = settings.topics.partitions
    if all(counts.get(topic) == expected for topic in settings.topics.inputs):
        findings += checkup.of_broker(settings)
    return findings


def _membership(settings: Settings) -> Finding:
    broker = settings.broker
    subject = "group membership"
    try:
        protocol = membership(broker)
    except BrokerUnavailableError as error:
        return Finding(False, subject, str(error), "SEGSTREAM_BROKER__GROUP_PROTOCOL=classic")
    told = "" if broker.group_protocol == "auto" else " (as set; not tried)"
    if protocol == "consumer":
        return Finding(True, subject, f"KIP-848, only moving partitions are revoked{told}")
    return Finding(
        True, subject, f"classic with range, everything is revoked at every change{told}"
    )


def _topics(differences: list[TopicDifference]) -> list[Finding]:
    if not differences:
        return [Finding(True, "topics", "all there and as they should be")]
    findings = []
    for difference in differences:
        if difference.setting == "topic":
            text = "does not exist"
        else:
            text = f"{difference.setting} is {difference.found}, expected {difference.expected}"
        findings.append(Finding(False, f"topic {difference.topic}", text, difference.remedy))
    return findings


def _inputs(settings: Settings, counts: dict[str, int]) -> list[Finding]:
    first, second = settings.topics.inputs
    if first not in counts or second not in counts:
        return []  # the differences tell it
    subject = "co-partitioning"
    if counts[first] != counts[second]:
        return [
            Finding(
                False,
                subject,
                f"{first} has {counts[first]} partitions and {second} has {counts[second]}: a"
                " user's clicks and orders would meet different workers",
                f"make a new {first if counts[first] < counts[second] else second} topic with"
                f" {max(counts[first], counts[second])} partitions and write to that one",
            )
        ]
    return [Finding(True, subject, f"{first} and {second} have {counts[first]} partitions each")]


def _replay(settings: Settings, differences: list[TopicDifference]) -> list[Finding]:
    """History has old timestamps, and Kafka deletes by timestamp."""
    if settings.clock.mode != "watermark" or settings.topics.input_retention_seconds == 0:
        return []
    days = settings.topics.input_retention_seconds / 86_400
    commands = [
        f" && kafka-configs.sh --bootstrap-server {settings.broker.bootstrap} --alter"
        f" --entity-type topics --entity-name {name} --add-config retention.ms=-1"
        for name in settings.topics.inputs
        if not any(d.topic == name and d.setting == "topic" for d in differences)
    ]
    return [
        Finding(
            False,
            "retention",
            f"the clock goes by the events (clock.mode = watermark), but the input topics keep"
            f" only {days:g} days: Kafka deletes replayed history that is older",
            "export SEGSTREAM_TOPICS__INPUT_RETENTION_SECONDS=0" + "".join(commands),
        )
    ]


# -- store ------------------------------------------------------------------------------------


def _store(settings: Settings, *, broker_answers: bool) -> list[Finding]:
    store = settings.store
    client = connect_store(store)
    try:
        try:
            facts = fitness.look(client)
        except redis.AuthenticationError as error:
            return [_refused(store, error)]
        except (redis.RedisError, OSError) as error:
            return [
                Finding(
                    False,
                    "store",
                    f"none answers at {_shown(store.url)}: {error}",
                    "start Redis, or set SEGSTREAM_STORE__URL=redis://host:port/0",
                )
            ]
        found = [_server(store, facts), _memory_policy(facts), _append_only(facts)]
        if facts.cluster:
            return [*found, _cluster()]
        kept = RedisStore(
            client,
            namespace=store.namespace,
            partitions=settings.topics.partitions,
            namespace_key=store.namespace_key,
        )
        return [
            *found,
            _replicas(client, facts),
            _write(client, store),
            *_output(client, store),
            *checkup.of_state(settings, kept, broker_answers=broker_answers),
        ]
    finally:
        client.close()


def _refused(store: Store, error: redis.RedisError) -> Finding:
    return Finding(
        False,
        "store",
        f"{_shown(store.url)} refuses: {error}",
        "give user and password in SEGSTREAM_STORE__URL=redis://user:password@host:port/0, and"
        f" make the user: {_line(store)}",
    )


def _line(store: Store) -> str:
    """The command that makes a user of Redis for one of the roles; the others are in the guide."""
    return (
        f"redis-cli {acl_line('activity', store.namespace)} (the other roles: ops/guide/redis.md)"
    )


def _server(store: Store, facts: ServerFacts) -> Finding:
    if facts.name is None or facts.version is None:
        answer = f"{_shown(store.url)} answers; its version is not looked at: {MAY_NOT}"
        return Finding(True, "store", answer)
    if facts.version < OLDEST_REDIS:
        return Finding(
            False, "store", f"{_shown(store.url)} is {facts.name}", "install Redis 7 or Valkey 8"
        )
    return Finding(True, "store", f"{_shown(store.url)} answers, {facts.name}")


def _cluster() -> Finding:
    return Finding(
        False,
        "store cluster",
        "this is a node of a Redis Cluster, which is not supported yet: no role starts here",
        "SEGSTREAM_STORE__URL=redis://host:port/0 of a Redis, or Valkey, that is no cluster",
    )


def _memory_policy(facts: ServerFacts) -> Finding:
    subject = "store memory policy"
    remedy = "redis-cli CONFIG SET maxmemory-policy noeviction (and in redis.conf)"
    if facts.policy is None:
        return Finding(True, subject, f"not looked at: {MAY_NOT}; it should be noeviction")
    if facts.policy == "noeviction":
        return Finding(True, subject, "noeviction: a full store refuses instead of forgetting")
    if fitness.evicts(facts.policy):
        return Finding(
            False,
            subject,
            f"{facts.policy}: a full store would drop users silently, so no role starts here",
            remedy,
        )
    return Finding(
        True,
        subject,
        f"{facts.policy}: a full store drops only what expires, the leases of trainer and publisher;"
        " who leads may change then, and nothing is lost. noeviction is plainer",
        remedy,
    )


def _append_only(facts: ServerFacts) -> Finding:
    subject = "store persistence"
    if facts.appendonly is None:
        return Finding(
            True, subject, f"not looked at: {MAY_NOT}; the append-only file should be on"
        )
    if facts.appendonly:
        return Finding(True, subject, "append-only file on")
    return Finding(
        False,
        subject,
        "append-only file off: a restart of the store loses everything since its last dump",
        "redis-cli CONFIG SET appendonly yes (and in redis.conf: appendonly yes)",
    )


def _replicas(client: redis.Redis, facts: ServerFacts) -> Finding:
    subject = "store replicas"
    if facts.replicas is None:
        return Finding(True, subject, f"not looked at: {MAY_NOT}")
    if facts.replicas == 0:
        return Finding(True, subject, "none: a lost store is only what Kafka still has to replay")
    try:
        answer = client.config_get("min-replicas-to-write")
    except redis.RedisError:
        return Finding(
            True, subject, f"{facts.replicas}; min-replicas-to-write is not looked at: {MAY_NOT}"
        )
    needed = int(answer.get("min-replicas-to-write") or 0)
    if needed:
        return Finding(True, subject, f"{facts.replicas}, min-replicas-to-write is {needed}")
    return Finding(
        True,
        subject,
        f"{facts.replicas}, min-replicas-to-write is 0: a master cut off from its replicas goes on"
        " taking writes that a failover loses (they are replayed from Kafka)",
        "redis-cli CONFIG SET min-replicas-to-write 1",
    )


def _output(client: redis.Redis, store: Store) -> list[Finding]:
    """What the publisher has noted about the output; no finding where that may not be read."""
    try:
        raw = client.hget(output_key(store.namespace), "lacks")
    except (redis.RedisError, OSError):
        return []
    lacks = raw.decode() if isinstance(raw, bytes) else ""
    if not lacks:
        return []
    return [
        Finding(
            False,
            "output",
            f"topic of changes: {lacks}; what was delivered before is not all on it",
            "segstream republish sends everybody's present segment to it",
        )
    ]


def _write(client: redis.Redis, store: Store) -> Finding:
    """Try what every role that serves needs: to write, and to run a script."""
    subject = "store writes"
    key = f"{store.namespace}:doctor:{secrets.token_hex(4)}"
    script = client.register_script("#!lua\nreturn redis.call('DEL', KEYS[1])")
    try:
        client.set(key, b"", ex=10)
        script(keys=[key])
    except redis.ReadOnlyError:
        return Finding(
            False,
            subject,
            "this is a read-only replica",
            "set SEGSTREAM_STORE__URL to the master: redis-cli INFO replication names it",
        )
    except redis.OutOfMemoryError:
        return Finding(
            False,
            subject,
            "the store is full (maxmemory)",
            "redis-cli CONFIG SET maxmemory <more>, or 0 for no limit",
        )
    except (redis.RedisError, OSError) as error:
        return Finding(False, subject, f"refused: {error}", _line(store))
    return Finding(True, subject, f"keys under {store.namespace}: can be written")


def _shown(url: str) -> str:
    """The address without user and password."""
    return url.rsplit("@", 1)[-1].removeprefix("redis://").removeprefix("rediss://")
