"""The slow reading of a message says what becomes of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.config import Worker
from stream.events import Counts, Reason
from stream.features import DEFAULT_FEATURES
from stream.oracle import Fate, Judge, Message, fold_log
from stream.oracle_reading import parse_time
from stream.units import DAY_MS, iso
from tests.strategies import (
    MESSAGES,
    START_MS,
    encoded,
)


@pytest.mark.parametrize(("value", "fate", "reason"), MESSAGES)
def test_what_becomes_of_a_message(value: bytes | None, fate: Fate, reason: Reason | None) -> None:
    outcome = Judge(DEFAULT_FEATURES, Worker()).judge(Message(value, START_MS, 0))
    assert (outcome.fate, outcome.reason) == (fate, reason)


@given(
    st.datetimes(datetime(1995, 1, 3), datetime(2099, 12, 29)),  # noqa: DTZ001 - zones are drawn
    st.integers(-23 * 60, 23 * 60),
)
def test_a_time_is_the_same_however_it_is_written(moment: datetime, minutes: int) -> None:
    true = (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        milliseconds=1
    )
    elsewhere = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=minutes)))
    assert parse_time(iso(true)) == true
    assert parse_time(elsewhere.isoformat(timespec="microseconds")) == true
    assert parse_time(moment.isoformat(" ", "seconds") + "z") == true - true % 1_000


def test_an_event_of_the_future_is_clamped_and_one_without_a_record_time_is_not() -> None:
    judge = Judge(DEFAULT_FEATURES, Worker())
    value = encoded(time_ms=START_MS + DAY_MS)
    clamped = judge.judge(Message(value, START_MS, 0)).event
    taken = judge.judge(Message(value, None, 0)).event
    assert clamped is not None
    assert taken is not None
    assert (clamped.time_ms, clamped.clamped) == (START_MS + 300_000, True)
    assert (taken.time_ms, taken.clamped) == (START_MS + DAY_MS, False)


@pytest.mark.parametrize(
    ("properties", "amounts"),
    [
        ({}, (0.0, 1.0)),
        ({"price": 3, "quantity": 4}, (12.0, 4.0)),
        ({"price": 3}, (3.0, 1.0)),
        ({"price": 3, "value": 5, "quantity": 2}, (5.0, 2.0)),
        ({"price": 3, "value": 5, "total": 7}, (7.0, 1.0)),
        ({"value": 5, "total": 7, "revenue": 0}, (0.0, 1.0)),
        ({"total": None, "value": 5, "revenue": None}, (5.0, 1.0)),
    ],
)
def test_what_an_event_is_worth(properties: dict[str, Any], amounts: tuple[float, float]) -> None:
    judge = Judge(DEFAULT_FEATURES, Worker())
    event = judge.judge(Message(encoded(properties=properties), START_MS, 1)).event
    assert event is not None
    assert (event.value, event.quantity) == amounts


def test_a_repeated_message_is_counted_as_such() -> None:
    log = [Message(encoded(messageId=name), START_MS, 1) for name in "abcab"]
    assert fold_log(DEFAULT_FEATURES, Worker(), [[], log]).counts == Counts(applied=3, duplicate=2)
