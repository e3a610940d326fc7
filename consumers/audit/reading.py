"""Reads topics to their ends, and tells whoever waits how far it is.

Comes in: the name of a topic. Goes out: its records, and what is in a record as plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b

from consumers.audit.report import Progress
from consumers.client import count_records
from consumers.records import Read, Record
from stream.config import Settings
from stream.errors import TopicMissingError
from stream.headers import headers_of

TOLD_EVERY = 2_000


class Reading:
    """Reads topics.

    Args:
        read: reads a topic to its end.
        progress: is told how far it is.
    """

    def __init__(
        self, settings: Settings, read: Read, progress: Callable[[Progress], None] | None
    ) -> None:
        self._settings = settings
        self._read = read
        self._progress = progress
        self._totals: dict[str, int] = {}

    def measure(self) -> None:
        """Find out how much there is to read, for whoever wants to know."""
        if self._progress is None:
            return
        topics = self._settings.topics
        for topic in (*topics.inputs, *map(topics.dlq, topics.inputs), topics.changes):
            try:
                self._totals[topic] = count_records(self._settings.broker, topic)
            except TopicMissingError:
                self._totals[topic] = 0
            self._progress(Progress(topic, 0, self._totals[topic], beforehand=True))

    def tell(self, what: str, done: int, total: int | None) -> None:
        """Tell how far it is; see `Progress`."""
        if self._progress is not None:
            self._progress(Progress(what, done, total))

    def records(self, topic: str) -> Iterator[Record]:
        """Every record of a topic, telling how far it is."""
        done = 0
        for done, record in enumerate(self._read(self._settings.broker, topic), start=1):
            if done % TOLD_EVERY == 0:
                self.tell(topic, done, self._totals.get(topic))
            yield record
        self.tell(topic, done, done)

    def records_if_there(self, topic: str) -> Iterator[Record]:
        """The same; none of a topic that does not exist."""
        try:
            yield from self.records(topic)
        except TopicMissingError:
            return


def place_of(record: Record) -> tuple[int, int]:
    """Partition and offset."""
    partition, offset = record.partition(), record.offset()
    if partition is None or offset is None:
        raise ValueError("a record that was read has a partition and an offset")
    return partition, offset


def bytes_of(value: str | bytes | None) -> bytes:
    """A key or a value as bytes; empty for none."""
    return value.encode() if isinstance(value, str) else value or b""


def texts_of(record: Record) -> dict[str, str]:
    """Headers as text; what is none shows as such."""
    found = headers_of(record) or []
    return {name: (value or b"").decode(errors="replace") for name, value in found}


def digest_of(payload: bytes) -> bytes:
    """What two payloads have in common only if they are the same."""
    return blake2b(payload, digest_size=16).digest()
