"""Announces models on `segment-models`, and what became of segments on `segment-changes`.

Comes in: a model record and its lineage. Goes out: the same, confirmed: the model under one key of a
compacted topic, each lineage event as one CloudEvent (binary mode) for all users it concerns.
"""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import Producer

from producers.client import producer_options
from producers.cloudevents import cloud_event
from producers.delivery import DeliveryError, Headers, Record, deliver
from stream.config import Settings
from stream.errors import BrokerUnavailableError, kafka_client
from stream.events import (
    LINEAGE,
    LINEAGE_RECORD,
    LINEAGE_SCHEMA,
    NAMESPACE_HEADER,
    ORIGIN_HEADER,
    LineageRecord,
)
from stream.headers import event_source

KEY = b"current"


class ModelAnnouncer:
    """Callable that `stream.trainer.Trainer` is given."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._source = event_source(settings.store.namespace, "trainer")
        self._producer: Producer | None = None

    def __call__(self, model: bytes, lineage: Sequence[LineageRecord], origin: bytes) -> None:
        """Deliver a model record and its lineage.

        Args:
            origin: what its trainer began with, for whoever leads after it.

        Raises:
            BrokerUnavailableError: they were not all confirmed.
        """
        if self._producer is None:
            seconds = self._settings.publisher.deliver_seconds
            options = producer_options(
                self._settings.broker, linger_seconds=0.0, deliver_seconds=seconds
            )
            self._producer = kafka_client(Producer, options)
        records = [self._event(told) for told in lineage]
        headers: Headers = [
            (NAMESPACE_HEADER, self._settings.store.namespace),
            (ORIGIN_HEADER, origin),
        ]
        records.append(Record(self._settings.topics.models, model, KEY, headers=headers))
        try:
            deliver(self._producer, records, self._settings.publisher.deliver_seconds)
        except DeliveryError as error:
            self._producer = None
            raise BrokerUnavailableError(f"model not announced: {error}") from error

    def _event(self, told: LineageRecord) -> Record:
        subject = f"segment {told['segment']}"
        return Record(
            self._settings.topics.changes,
            LINEAGE_RECORD.dump_json(told),
            subject.encode(),
            headers=cloud_event(
                told["id"], self._source, LINEAGE, told["at"], subject, LINEAGE_SCHEMA
            ),
        )
