"""Announces models on the compacted topic `segment-models`.

Comes in: a model record and its key. Goes out: the same, confirmed.
"""

from __future__ import annotations

from confluent_kafka import Producer

from producers.client import producer_options
from producers.delivery import DeliveryError, Record, deliver
from stream.config import Settings
from stream.errors import BrokerUnavailableError


class ModelAnnouncer:
    """Callable that `stream.trainer.Trainer` is given."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: Producer | None = None

    def __call__(self, key: bytes, value: bytes) -> None:
        """Deliver one model record.

        Raises:
            BrokerUnavailableError: it was not confirmed.
        """
        if self._producer is None:
            self._producer = Producer(producer_options(self._settings.broker, linger_seconds=0.0))
        record = Record(self._settings.topics.models, value, key)
        try:
            deliver(self._producer, [record], self._settings.publisher.deliver_seconds)
        except DeliveryError as error:
            self._producer = None
            raise BrokerUnavailableError(f"model not announced: {error}") from error
