"""Reads what the topic of changes has, and tells topics apart that have the same name.

Comes in: `Settings`, and offsets. Goes out: ids of delivered changes for the publisher, delivered
changes for owners, published models for the trainer, and topic ids.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from consumers.client import admin_options, read_to_end
from consumers.first_currency import first_currency
from consumers.group_members import members_of
from stream.config import Settings
from stream.delivered import Delivered
from stream.errors import BrokerUnavailableError, TopicMissingError, kafka_client
from stream.events import CHANGED, LEVEL_CHANGED, NAMESPACE_HEADER, ORIGIN_HEADER
from stream.headers import EVENT_ID, EVENT_TYPE, headers_of
from stream.trainer import Announced
from stream.unreadable import UNREADABLE

log = logging.getLogger(__name__)

UNKNOWN_ID = "AAAAAAAAAAAAAAAAAAAAAA"
"""What a broker tells that gives topics no ids: sixteen zeros in base64."""
_NOT_OURS: tuple[type[Exception], ...] = (*UNREADABLE, LookupError, TypeError, ValueError)
"""What is raised for a record that this program has not written."""


class _Change(msgspec.Struct, rename={"from_": "from"}):
    """The fields of a change that an owner takes in; those behind the first four are of a segment."""

    id: str
    user: str
    version: int
    at: str
    from_: int | None = None
    to: int = 0
    kind_to: str = ""
    level: str = ""
    step_to: str | None = None


class Output:
    """The topic of changes, and the ids of topics; not to be shared between threads.

    Args:
        topic: another one than that of changes, such as a role's.
        kinds: of the records that are looked at, types of CloudEvents.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str | None = None,
        kinds: Sequence[str] = (CHANGED, LEVEL_CHANGED),
    ) -> None:
        self._settings = settings
        self._topic = settings.topics.changes if topic is None else topic
        self._kinds = {kind.encode() for kind in kinds}
        self._admin: AdminClient | None = None
        self._timeout = settings.store.timeout_seconds
        # The client gives up a request after `_timeout`, and we wait no longer. Its operation lasts
        # longer than that, so no answer can come to an operation that has ended.
        self._patience = 3 * self._timeout

    def delivered_ids(self, starts: Mapping[int, int]) -> tuple[dict[int, set[str]], list[int]]:
        """Ids of the changes on partitions, each from an offset to its end.

        Where retention has passed the offset, or the topic was made anew, they are the changes there are.

        Returns:
            The ids by partition, and the partitions that end before the offset.
        """
        found: dict[int, set[str]] = {partition: set() for partition in starts}
        short: list[int] = []
        for partition, name, _ in self._records(starts, short):
            found[partition].add(name)
        return found, short

    def tails(self, starts: Mapping[int, int]) -> dict[int, list[Delivered]]:
        """The changes on partitions, each from an offset to its end, in order."""
        found: dict[int, list[Delivered]] = {partition: [] for partition in starts}
        for partition, name, value in self._records(starts, []):
            delivered = _delivered(name, value)
            if delivered is not None:
                found[partition].append(delivered)
        return found

    def values(self, partition: int, start: int) -> list[bytes]:
        """The records on a partition, from an offset to its end, in order."""
        return [value for _, _, value in self._records({partition: start}, [])]

    def _records(
        self, starts: Mapping[int, int], short: list[int]
    ) -> Iterator[tuple[int, str, bytes]]:
        """Partition, id and value of records of our kinds."""
        if not starts:
            return
        broker, topic = self._settings.broker, self._topic
        messages = read_to_end(broker, topic, list(starts), start=starts, nearest=True, short=short)
        for message in messages:
            headers = dict(headers_of(message) or ())
            name, value = headers.get(EVENT_ID), message.value()
            if headers.get(EVENT_TYPE) not in self._kinds:
                continue
            if isinstance(name, bytes) and isinstance(value, bytes):
                yield message.partition() or 0, name.decode(errors="replace"), value

    def announced(self) -> Announced:
        """The last of the models that were published."""
        found = Announced()
        topic = self._settings.topics.models
        for message in read_to_end(self._settings.broker, topic):
            value = message.value()
            if not isinstance(value, bytes):
                continue
            try:
                model = msgspec.json.decode(value)
                headers = dict(headers_of(message) or ())
                namespace, origin = headers.get(NAMESPACE_HEADER), headers.get(ORIGIN_HEADER)
                found = found.with_model(
                    model,
                    namespace.decode() if isinstance(namespace, bytes) else "",
                    origin if isinstance(origin, bytes) else None,
                )
            except _NOT_OURS as error:
                log.warning("a record on %s is no model of ours: %s", topic, error)
        return found

    def first_currency(self) -> str:
        """The currency that the input topics name first; see `consumers.first_currency`."""
        return first_currency(self._settings)

    def group_members(self) -> list[str]:
        """Client ids of the members of the workers' group; none where the broker does not say."""
        broker = self._settings.broker
        return members_of(broker.group, admin_options(broker), self._timeout)

    def topic_ids(self, names: Sequence[str]) -> list[str]:
        """Ids of topics; empty for a topic that has none.

        Raises:
            BrokerUnavailableError: the broker does not answer.
            TopicMissingError: a topic is not there.
        """
        described = self._connected().describe_topics(
            TopicCollection(list(names)), request_timeout=self._patience
        )
        return [_id_of(name, described[name], self._timeout) for name in names]

    def _connected(self) -> AdminClient:
        if self._admin is None:
            options = admin_options(self._settings.broker)
            timeout_ms = max(round(self._timeout * 1_000), 10)
            self._admin = kafka_client(AdminClient, {"socket.timeout.ms": timeout_ms} | options)
        return self._admin


def _id_of(name: str, described: Any, timeout: float) -> str:
    try:
        found = str(described.result(timeout).topic_id)
    except TimeoutError:
        raise BrokerUnavailableError(
            f"topic {name} cannot be described: no answer in {timeout:g} s"
        ) from None
    except KafkaException as error:
        inner = error.args[0]
        if inner.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicMissingError(
                f"topic {name} does not exist; segstream topics apply creates it"
            ) from None
        raise BrokerUnavailableError(f"topic {name} cannot be described: {inner.str()}") from None
    return "" if found == UNKNOWN_ID else found


def _delivered(name: str, value: bytes) -> Delivered | None:
    """What a change record says; None if it cannot be one of ours."""
    try:
        change = msgspec.json.decode(value, type=_Change)
        _, incarnation, version = name.split("-")
        at_ms = round(datetime.fromisoformat(change.at).timestamp() * 1_000)
        if not (change.level or change.to):
            raise ValueError("it names no segment and no level")
        told = Delivered(
            change.user, int(incarnation), change.version, change.from_ or 0, change.to, at_ms,
            change.kind_to, steps=((change.level, change.step_to),) if change.level else (),
        )  # fmt: skip
        return told if int(version) == change.version else None
    except _NOT_OURS as error:
        log.warning("change %s on the output is not as this program writes it: %s", name, error)
        return None
