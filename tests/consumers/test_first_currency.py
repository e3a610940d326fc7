"""The first currency of a log is a matter of the log, and of nobody who reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

import pytest

from consumers import first_currency as module
from consumers.first_currency import LOOKED_AT, first_currency, first_named
from stream.config import Settings
from stream.errors import BrokerUnavailableError, TopicMissingError
from tests.fakes import FakeMessage
from tests.strategies import ORDER, START_MS, VIEW, encoded

SETTINGS = Settings.model_validate({"topics": {"partitions": 2}})
Log = Mapping[tuple[str, int], Sequence[FakeMessage]]


def order(currency: Any, at_ms: int = START_MS, **fields: Any) -> FakeMessage:
    said = {"revenue": 10, "currency": currency} | fields
    return FakeMessage(encoded(event=ORDER, properties=said), timestamp_ms=at_ms)


def reads(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    def read(_: Any, topic: str, numbers: Sequence[int], **__: Any) -> Iterator[FakeMessage]:
        (number,) = numbers
        if (topic, number) not in log:
            raise TopicMissingError(topic)
        return (message for message in log[topic, number])

    monkeypatch.setattr(module, "read_to_end", read)


def test_the_earliest_record_decides_wherever_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [
        [order("USD", 5), order("EUR", 1)],
        [order(None, 0), order("sek", 3)],
        [order("JPY", 9)],
    ]
    places = [("clickstream", 1), ("purchases", 0), ("purchases", 1)]
    for where in permutations(places):
        reads(monkeypatch, dict(zip(where, said, strict=True)))
        assert first_currency(SETTINGS) == "SEK"


def test_of_records_of_one_time_the_partition_decides_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for codes in permutations(["EUR", "USD"]):
        reads(monkeypatch, {("purchases", n): [order(code)] for n, code in enumerate(codes)})
        assert first_currency(SETTINGS) == "EUR"


def test_a_log_that_names_none_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    reads(monkeypatch, {("purchases", 0): [order(None), order("euros"), FakeMessage(None)]})
    assert first_currency(SETTINGS) == ""
    reads(monkeypatch, {})
    assert first_currency(SETTINGS) == ""


def test_only_what_counts_an_amount_names_a_currency() -> None:
    view = FakeMessage(encoded(event=VIEW, properties={"price": 3, "currency": "JPY"}))
    assert first_named(SETTINGS, [view, order("USD", 7)]) == (7, "USD")
    assert first_named(SETTINGS, [view]) is None


def test_the_beginning_of_a_log_is_read_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def endless() -> Iterator[FakeMessage]:
        while True:
            read.append(1)
            yield order(None)

    def unending(_: Any, topic: str, __: Any, **___: Any) -> Iterator[FakeMessage]:
        if topic == "clickstream":
            raise TopicMissingError(topic)
        return endless()

    monkeypatch.setattr(module, "read_to_end", unending)
    assert first_currency(SETTINGS) == ""
    assert len(read) == LOOKED_AT * SETTINGS.topics.partitions


def test_a_broker_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> Iterator[FakeMessage]:
        raise BrokerUnavailableError("it does not answer")

    monkeypatch.setattr(module, "read_to_end", away)
    with pytest.raises(BrokerUnavailableError):
        first_currency(SETTINGS)
