"""Says what the topics should be like, creates those missing, and tells what differs.

Comes in: `Settings`. Goes out: a plan, one `TopicPlan` a topic, and `Difference`s between plan
and broker, each with a remedy a person can type. Existing topics are never changed here: a
topic's partitions and retention are their owner's decision.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it re-exports them silently
    AdminClient,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
    TopicMetadata,
)

from producers.client import MESSAGE_BYTES
from producers.outbox import changes_outlet
from stream.config import Broker, ConfigError, Settings
from stream.errors import BrokerUnavailableError, kafka_client
from stream.namespace import more
from stream.roles.outlet import Outlet
from stream.wire import wire_options

LOG = logging.getLogger(__name__)

DLQ_RETENTION_SECONDS = 30 * 86_400.0
REQUEST_SECONDS = 15.0
AT_LEAST = "max.message.bytes"
"""The setting of which a topic may have more than the plan says."""
_FOR_EVER = str((1 << 63) - 1)


@dataclass(frozen=True)
class TopicPlan:
    """What a topic should be like; `config` holds only what matters to us."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


@dataclass(frozen=True)
class Difference:
    """One way in which a topic is not as planned.

    Attributes:
        setting: ``topic`` (it is missing), ``partitions``, or the name of a topic setting.
        expected: by the plan.
        found: on the broker; empty if the topic is missing.
        remedy: what to type.
    """

    topic: str
    setting: str
    expected: str
    found: str
    remedy: str


def plan(settings: Settings, outlets: Sequence[Outlet] = ()) -> list[TopicPlan]:
    """What every topic of these settings should be like.

    Args:
        outlets: of roles beside the publisher of changes.
    """
    topics = settings.topics
    kept = {"cleanup.policy": "delete", "message.timestamp.type": "CreateTime"}
    inputs = kept | {"retention.ms": _retention(topics.input_retention_seconds)}
    if settings.clock.mode == "watermark":
        # The shop's clock is not the broker's: by default Kafka refuses records that are more
        # than an hour ahead of its own.
        inputs["message.timestamp.after.max.ms"] = _FOR_EVER
    # What our producers may send must fit: a refused message may be as large as its topic allows,
    # and headers come on top; a change or a model that does not fit would stop everything behind it.
    sent = {AT_LEAST: str(MESSAGE_BYTES)}
    models = sent | {"cleanup.policy": "compact"}
    refused = sent | {
        "cleanup.policy": "delete",
        "retention.ms": _retention(DLQ_RETENTION_SECONDS),
    }
    filled = {
        outlet.topic: kept | sent | {"retention.ms": _retention(outlet.retention_seconds)}
        for outlet in (changes_outlet(settings), *outlets)
    }
    # What people say of users and campaigns holds until they say something else.
    told = [topics.control] if topics.triggers in filled else []
    for_ever = {"retention.ms": _retention(0.0)}
    wanted: list[tuple[str, int, dict[str, str]]] = [
        *((name, topics.partitions, inputs) for name in topics.inputs),
        *((name, topics.partitions, config) for name, config in filled.items()),
        *((name, topics.partitions, kept | sent | for_ever) for name in told),
        (topics.models, 1, models),
        *((topics.dlq(name), 1, refused) for name in topics.inputs),
    ]
    return [
        TopicPlan(name, partitions, topics.replication, config)
        for name, partitions, config in wanted
    ]


def apply(
    settings: Settings,
    create: bool,
    on_created: Callable[[TopicPlan], None] | None = None,
    outlets: Sequence[Outlet] = (),
) -> list[Difference]:
    """Compare the plan with the broker, creating missing topics first if told to.

    A setting that the broker says nothing about is unknown, not different: the local broker
    knows only those it was given.

    Args:
        settings: what to plan from.
        create: whether to create what is missing.
        on_created: told of each topic that was created.
        outlets: of roles beside the publisher of changes.

    Returns:
        What is missing or differs; empty if everything is as planned.

    Raises:
        BrokerUnavailableError: no broker answers, or it refuses to say or to create.
    """
    admin = _admin(settings.broker)
    plans = plan(settings, outlets)
    found = {name: len(topic.partitions) for name, topic in _listed(admin, settings.broker).items()}
    differences: list[Difference] = []
    there: list[TopicPlan] = []
    created: list[TopicPlan] = []
    for wanted in plans:
        if wanted.name in found:
            there.append(wanted)
        elif create:
            if _create(admin, wanted, settings.broker):
                created.append(wanted)
        else:
            differences.append(_missing(wanted))
    _await(admin, created, settings.broker)
    for wanted in created:
        LOG.info("created topic %s with %d partitions", wanted.name, wanted.partitions)
        if on_created is not None:
            on_created(wanted)
    configs = _configs(admin, there, settings.broker)
    for wanted in there:
        differences += _compare(
            wanted, found[wanted.name], configs[wanted.name], settings.broker.bootstrap
        )
    return differences


def missing(settings: Settings, names: Sequence[str]) -> list[str]:
    """Those of some topics that the broker does not have.

    Raises:
        BrokerUnavailableError: no broker answers.
    """
    found = _listed(_admin(settings.broker), settings.broker)
    return [name for name in names if name not in found]


def see_partitions(settings: Settings, begun_with: int = 0) -> None:
    """Whether the input topics have as many partitions as the settings say.

    The keys of the store depend on the number. Who believes in another one finds nothing there, and
    would lead without ever doing anything.

    Args:
        settings: with the number, and the names of the topics.
        begun_with: number that the namespace was begun with; 0 if it is new.

    Raises:
        ConfigError: they have not.
        BrokerUnavailableError: no broker answers.
    """
    topics = settings.topics
    listed = _listed(_admin(settings.broker), settings.broker)
    for name in topics.inputs:
        found = len(listed[name].partitions) if name in listed else 0
        if found and found != topics.partitions:
            raise ConfigError(
                f"topics.partitions = {topics.partitions}, but topic {name} has {found}; "
                + (
                    more(settings, found)
                    if begun_with
                    else f"set it to {found}, as for the activity workers"
                )
            )


def _retention(seconds: float) -> str:
    return str(round(seconds * 1_000)) if seconds > 0 else "-1"


def _missing(wanted: TopicPlan) -> Difference:
    return Difference(
        wanted.name,
        "topic",
        f"{wanted.partitions} partitions",
        "",
        "segstream topics apply",
    )


def _compare(
    wanted: TopicPlan, partitions: int, config: Mapping[str, str], bootstrap: str
) -> list[Difference]:
    differences = []
    if partitions != wanted.partitions:
        if wanted.partitions == 1:
            remedy = "use another topic, or delete this one and run: segstream topics apply"
        else:
            # More partitions would send known users elsewhere, so the number follows the topic.
            remedy = (
                f"if the namespace has served nobody yet and all topics have that many, set"
                f" topics.partitions = {partitions} (SEGSTREAM_TOPICS__PARTITIONS={partitions});"
                " otherwise use new topics with the wanted number, under another store.namespace,"
                " and fill them with `segstream rekey --from`: users lie elsewhere among more"
            )
        differences.append(
            Difference(wanted.name, "partitions", str(wanted.partitions), str(partitions), remedy)
        )
    for key, expected in wanted.config.items():
        value = config.get(key)
        if value is not None and value != expected and not _is_more(key, value, expected):
            remedy = (
                f"kafka-configs.sh --bootstrap-server {bootstrap} --alter --entity-type topics"
                f" --entity-name {wanted.name} --add-config {key}={expected}"
            )
            differences.append(Difference(wanted.name, key, expected, value, remedy))
    return differences


def _is_more(key: str, value: str, expected: str) -> bool:
    """Whether a topic takes more than it has to, which is as well."""
    return key == AT_LEAST and value.isdigit() and int(value) >= int(expected)


def _admin(broker: Broker) -> AdminClient:
    return kafka_client(AdminClient, wire_options(broker) | broker.properties)


def _listed(admin: AdminClient, broker: Broker) -> dict[str, TopicMetadata]:
    """Every topic there is."""
    try:
        listed: dict[str, TopicMetadata] = admin.list_topics(timeout=REQUEST_SECONDS).topics
    except KafkaException as error:
        raise BrokerUnavailableError(
            f"no broker answers at {broker.bootstrap} ({_reason(error)}); is it up, and is"
            " broker.bootstrap right?"
        ) from None
    return listed


def _create(admin: AdminClient, wanted: TopicPlan, broker: Broker) -> bool:
    """Create a topic; False if somebody else was quicker, with the same plan."""
    topic = NewTopic(
        wanted.name,
        num_partitions=wanted.partitions,
        replication_factor=wanted.replication,
        config=dict(wanted.config),
    )
    future = admin.create_topics([topic], request_timeout=REQUEST_SECONDS)[wanted.name]
    try:
        future.result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise BrokerUnavailableError(
            f"topic {wanted.name} was not created on {broker.bootstrap}: {_reason(error)}"
        ) from None
    return True


def _await(admin: AdminClient, created: list[TopicPlan], broker: Broker) -> None:
    """Wait until the topics can be used: their leaders are known a moment after creation."""
    deadline = time.monotonic() + REQUEST_SECONDS
    waiting = {wanted.name for wanted in created}
    while waiting:
        listed = _listed(admin, broker)
        waiting = {name for name in waiting if name not in listed or not _led(listed[name])}
        if waiting and time.monotonic() > deadline:
            raise BrokerUnavailableError(
                f"{broker.bootstrap} created {', '.join(sorted(waiting))}, but no broker leads it"
            )
        if waiting:
            time.sleep(0.05)


def _led(topic: TopicMetadata) -> bool:
    return topic.error is None and all(p.leader >= 0 for p in topic.partitions.values())


def _configs(
    admin: AdminClient, plans: list[TopicPlan], broker: Broker
) -> dict[str, dict[str, str]]:
    """For each topic the settings that the broker tells."""
    if not plans:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, wanted.name) for wanted in plans]
    asked = admin.describe_configs(resources, request_timeout=REQUEST_SECONDS)
    configs: dict[str, dict[str, str]] = {}
    for resource, future in asked.items():
        try:
            entries: dict[str, ConfigEntry] = future.result()
        except KafkaException as error:
            raise BrokerUnavailableError(
                f"the settings of topic {resource.name} cannot be read from {broker.bootstrap}:"
                f" {_reason(error)}"
            ) from None
        configs[resource.name] = {
            entry.name: entry.value for entry in entries.values() if entry.value is not None
        }
    return configs


def _reason(error: KafkaException) -> str:
    inner = error.args[0] if error.args else error
    return str(inner.str()) if isinstance(inner, KafkaError) else str(error)
