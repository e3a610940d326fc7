"""Examines whether topics, group and store belong together, for the doctor.

Comes in: `Settings`. Goes out: `Finding`s about where users lie, about the number of partitions, about
topics that were made anew, and about the group's members. Nothing is changed; what may not be asked is
said to be not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable

from consumers.client import read_to_end
from consumers.findings import Finding
from consumers.group_namespace import see_group
from consumers.output import Output
from consumers.placement import REMEDY, Users, by_crc32
from consumers.records import Record
from consumers.topic_watch import TopicReplacedError, see_same_topics
from stream.config import ConfigError, Settings
from stream.errors import BrokerUnavailableError, OffsetOutOfRangeError, TopicMissingError
from stream.hashing import partitions_of
from stream.namespace import see_partitions
from stream.store.promises import ReaderStore
from stream.store.state import Position, StoreRefusedError, StoreUnavailableError

NEWEST = 100
"""Records of each partition that are looked at."""
LOOKED_AT = 32
"""Partitions of each topic, and of the store, that are looked at: a wrong partitioner shows in any."""
STALL_SECONDS = 5.0


def of_broker(settings: Settings) -> list[Finding]:
    """Where users lie, and who is in the group; called only where the input topics exist."""
    return [*(_placement(settings, topic) for topic in settings.topics.inputs), _group(settings)]


def _placement(settings: Settings, topic: str) -> Finding:
    subject = f"placement in {topic}"
    numbers = range(min(settings.topics.partitions, LOOKED_AT))
    try:
        records = read_to_end(
            settings.broker, topic, numbers, last=NEWEST, stall_seconds=STALL_SECONDS
        )
        return placement(settings, subject, records)
    except (BrokerUnavailableError, OffsetOutOfRangeError, TopicMissingError) as error:
        return Finding(True, subject, f"not looked at: {error}")


def placement(settings: Settings, subject: str, records: Iterable[Record]) -> Finding:
    """Whether records lie in the partitions of their users."""
    partitions = settings.topics.partitions
    found = list(records)
    users = Users(settings).of([record.value() for record in found])
    known = [(r.partition(), u) for r, u in zip(found, users, strict=True) if u is not None]
    belong = partitions_of([user.encode() for _, user in known], partitions).tolist()
    strays = [one for one, there in zip(known, belong, strict=True) if one[0] != there]
    seen, astray = len(known), len(strays)
    by_crc = sum(by_crc32(user, partitions) == number for number, user in strays)
    if not astray:
        told = f"the newest {seen:,} events lie in the partitions of their users"
        return Finding(True, subject, told if seen else "no events yet")
    guess = ""
    if by_crc == astray:
        guess = ", where librdkafka's own partitioner (consistent_random, crc32) puts them"
    return Finding(
        False,
        subject,
        f"{astray:,} of the newest {seen:,} events lie in another partition than their user's{guess}: "
        f"with worker.misplaced = {settings.worker.misplaced}, "
        + (
            "those of new users are refused"
            if settings.worker.misplaced == "refuse"
            else "their users may live twice"
        ),
        REMEDY,
    )


def _group(settings: Settings) -> Finding:
    subject = "group"
    members = Output(settings).group_members()
    try:
        see_group(settings, members)
    except ConfigError as error:
        return Finding(False, subject, str(error), "SEGSTREAM_BROKER__GROUP=another")
    return Finding(
        True, subject, f"{settings.broker.group}: no member of another namespace is told"
    )


def of_state(settings: Settings, store: ReaderStore, *, broker_answers: bool) -> list[Finding]:
    """Whether the state is that of these settings and topics; no finding where a namespace has no state."""
    subject = "namespace"
    try:
        see_partitions(settings, store.partitions())
        numbers = range(min(settings.topics.partitions, LOOKED_AT))
        positions = [p for number in numbers if (p := store.position(number)) is not None]
    except ConfigError as error:
        return [
            Finding(
                False,
                subject,
                str(error),
                f"set topics.partitions = {store.partitions()}, or new topics as the finding says",
            )
        ]
    except (StoreRefusedError, StoreUnavailableError) as error:
        return [Finding(True, subject, f"not looked at: {error}")]
    if not positions:
        return []
    return [_same_topics(settings, positions)] if broker_answers else []


def _same_topics(settings: Settings, positions: list[Position]) -> Finding:
    subject = "input topics"
    try:
        ids = Output(settings).topic_ids(settings.topics.inputs)
        for position in positions:
            see_same_topics(settings.store.namespace, settings.topics.inputs, position.topics, ids)
    except TopicMissingError as error:
        return Finding(
            False,
            subject,
            f"{error}; as a new topic it needs a new store.namespace, too",
            "segstream topics apply",
        )
    except BrokerUnavailableError as error:
        return Finding(True, subject, f"not looked at: {error}")
    except TopicReplacedError as error:
        return Finding(False, subject, str(error), "SEGSTREAM_STORE__NAMESPACE=another")
    return Finding(True, subject, "those that the state is of")
