"""Examines whether topics, group and store belong together, for the doctor.

Comes in: `Settings`. Goes out: `Finding`s about where users lie, about what messages and orders say, about
partitions and currency, about topics that were made anew, and about the group's members. Nothing is changed; what may
not be asked is said to be not looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from consumers.client import read_to_end
from consumers.decode import parse_all
from consumers.fields import UNWATCHED, Fields, shown
from consumers.findings import Finding
from consumers.group_namespace import see_group
from consumers.lookalikes import known_name
from consumers.output import Output
from consumers.placement import REMEDY, Users, by_crc32
from consumers.plain import PlainParser
from consumers.records import Record
from consumers.topic_watch import TopicReplacedError, see_same_topics
from stream.config import ConfigError, Money, Settings
from stream.errors import BrokerUnavailableError, OffsetOutOfRangeError, TopicMissingError
from stream.hashing import partitions_of
from stream.namespace import see_currency, see_partitions
from stream.store.promises import ReaderStore
from stream.store.state import Position, StoreRefusedError, StoreUnavailableError

NEWEST = 100
"""Records of each partition that are looked at."""
LOOKED_AT = 32
"""Partitions of each topic, and of the store, that are looked at: a wrong partitioner shows in any."""
STALL_SECONDS = 5.0


def of_broker(settings: Settings) -> list[Finding]:
    """Where users lie, and who is in the group; called only where the input topics exist."""
    found = (one for topic in settings.topics.inputs for one in _newest(settings, topic))
    return [*found, _group(settings)]


def _newest(settings: Settings, topic: str) -> list[Finding]:
    """What the newest records of an input topic show."""
    subject = f"placement in {topic}"
    numbers = range(min(settings.topics.partitions, LOOKED_AT))
    try:
        records = list(
            read_to_end(settings.broker, topic, numbers, last=NEWEST, stall_seconds=STALL_SECONDS)
        )
    except (BrokerUnavailableError, OffsetOutOfRangeError, TopicMissingError) as error:
        return [Finding(True, subject, f"not looked at: {error}")]
    return [
        placement(settings, subject, records),
        *readable(settings, topic, records),
        *amounts(settings, topic, records),
    ]


def readable(settings: Settings, topic: str, records: Sequence[Record]) -> list[Finding]:
    """Whether messages can be read; no finding where there are none.

    What is most often wrong is told with what to do. Messages of which nobody knows that they are events, for
    something is around them, are among those.
    """
    if not records:
        return []
    table = settings.table()
    fields = Fields(table, settings.worker, Money(), settings.reviews)
    parser = PlainParser(table, settings.worker.message_bytes, fields)
    values = [record.value() for record in records]
    parsed = parse_all(parser, values)
    odd = parsed.odd
    seen = len(values) - len(odd.marks)
    if not seen:
        return []
    places = set(np.flatnonzero(parsed.kind == UNWATCHED).tolist()) - odd.places
    names = Counter(parser.event_of(values[place]) for place in places)
    why = Counter(detail for _, detail in odd.refused.values())
    why.update(filter(None, (parser.why_ignored(values[place]) for place in odd.ignored)))
    subject, unread = f"messages in {topic}", why.total()
    if not unread:
        found = Finding(True, subject, f"the newest {seen:,} can be read")
    else:
        [(detail, _)] = why.most_common(1)
        told = f"{unread:,} of the newest {seen:,} cannot be read, most often: {detail}"
        is_most = unread > seen // 2
        found = Finding(not is_most, subject, told, "segstream dlq list" if is_most else "")
    return [found, *_unwatched(table.codes, topic, seen, names)]


def _unwatched(
    watched: Collection[str], topic: str, seen: int, names: Counter[str]
) -> list[Finding]:
    """What events are ignored, for no feature watches them; they may be known by another name."""
    if not names:
        return []
    subject, most = f"events in {topic}", [name for name, _ in names.most_common(3)]
    told = (
        f"{names.total():,} of the newest {seen:,} are ignored, for no feature watches "
        f"{', '.join(map(shown, most))}" + (" .." if len(names) > len(most) else "")
    )
    for name, _ in names.most_common():
        known = known_name(name)
        if known in watched:
            told += f"; {shown(name)} looks like {known!r}"
            remedy = f"send it as {known!r}, or declare features on {shown(name)}"
            return [Finding(False, subject, told, remedy)]
    return [Finding(True, subject, told)]


def amounts(settings: Settings, topic: str, records: Sequence[Record]) -> list[Finding]:
    """Whether orders say what they are worth; no finding where there are none, or nobody reads it.

    An order without an amount is no mistake by itself. Where most have none, a field has another name.
    """
    table = settings.table()
    kinds = table.orders
    if kinds is None or not table.uses_value[kinds.completed] or not records:
        return []
    fields = Fields(table, settings.worker, Money(), settings.reviews)
    parser = PlainParser(table, settings.worker.message_bytes, fields)
    parsed = parse_all(parser, [record.value() for record in records])
    orders = parsed.kind == kinds.completed
    orders[list(parsed.odd.places)] = False
    seen, silent = int(orders.sum()), int((orders & parsed.whole).sum())
    if not seen:
        return []
    subject, told = f"amounts in {topic}", f"{silent:,} of the newest {seen:,} orders say no amount"
    if silent <= seen // 2:
        return [Finding(True, subject, told)]
    return [
        Finding(
            False,
            subject,
            f"{told}, and count as 0: revenue, total, value, subtotal, products[].price and price are read",
            "send what an order is worth as properties.revenue",
        )
    ]


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
        currency = store.currency()
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
    found = _currency(settings, currency)
    return [*found, _same_topics(settings, positions)] if broker_answers else found


def _currency(settings: Settings, found: str) -> list[Finding]:
    """Whether amounts are in the currency of the settings; no finding where nobody named one."""
    subject, declared = "currency", settings.money.currency
    if not found:
        return []
    try:
        see_currency(settings, found)
    except ConfigError as error:
        return [Finding(False, subject, str(error), f"SEGSTREAM_MONEY__CURRENCY={found}")]
    if declared:
        return [Finding(True, subject, f"amounts are in {found}")]
    return [
        Finding(
            True,
            subject,
            f"amounts are in {found}, which was named first, and money.currency is not set: messages in "
            "other currencies are refused as unknown_currency",
        )
    ]


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
