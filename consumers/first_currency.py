"""Finds the currency that a log names first, where none is declared: the same, whoever reads it, and when.

Comes in: the first records of every partition of the input topics. Goes out: a currency, or none; the activity
worker makes it that of the namespace. It is asked for once in the life of a namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from consumers.client import read_to_end
from consumers.decode import parse_all
from consumers.fields import Fields
from consumers.plain import PlainParser
from consumers.records import Record
from stream.config import Money, Settings
from stream.errors import TopicMissingError

LOOKED_AT = 1_000
"""Records of each partition: shops name their currency in every order, and this is a second's work."""
TOGETHER = 100
"""Records that are parsed at once."""
READERS = 8
"""Partitions that are read at the same time."""
STALL_SECONDS = 15.0


def first_currency(settings: Settings) -> str:
    """The currency that the earliest record names, of the first records of all partitions; empty for none.

    Records that come later are later by their times, too, so it does not matter when this is asked.

    Raises:
        BrokerUnavailableError: the broker does not answer.
    """
    places = [
        (topic, number)
        for topic in settings.topics.inputs
        for number in range(settings.topics.partitions)
    ]

    def first_of(place: tuple[str, int]) -> tuple[int, str] | None:
        topic, number = place
        try:
            records = read_to_end(
                settings.broker,
                topic,
                [number],
                nearest=True,
                few=True,
                stall_seconds=STALL_SECONDS,
            )
        except TopicMissingError:
            return None
        return first_named(settings, islice(records, LOOKED_AT))

    with ThreadPoolExecutor(READERS) as pool:
        found = [one for one in pool.map(first_of, places) if one is not None]
    return min(found)[1] if found else ""


def first_named(settings: Settings, records: Iterable[Record]) -> tuple[int, str] | None:
    """The first currency that records of a partition name, after the time of that record."""
    left = iter(records)
    while together := list(islice(left, TOGETHER)):
        # Most records name none, and to parse many at once costs little more than to parse one.
        if _named(settings, together):
            return next(
                (max(record.timestamp()[1], 0), named)
                for record in together
                if (named := _named(settings, [record]))
            )
    return None


def _named(settings: Settings, records: Sequence[Record]) -> str:
    """The first currency that records name; empty for none."""
    named: list[str] = []
    parse_all(_parser(settings, named.append), [record.value() for record in records])
    return named[0] if named else ""


def _parser(settings: Settings, note: Callable[[str], None]) -> PlainParser:
    """Reads messages as the worker does, and notes the currencies that they name."""

    def agree(currency: str) -> str:
        note(currency)
        return currency

    table, worker = settings.table(), settings.worker
    fields = Fields(table, worker, Money(), settings.reviews, agree)
    return PlainParser(table, worker.message_bytes, fields)
