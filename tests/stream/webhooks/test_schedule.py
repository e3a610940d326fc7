"""When to try again, when to leave an endpoint alone, how fast to send: by arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream.webhooks.schedule import (
    JITTER,
    MOST_RETRY_AFTER_MS,
    Answer,
    Circuit,
    Rate,
    retry_after_ms,
    retry_at,
)
from tests.stream.webhooks.making import NOW_MS, RETRIES_MS

FAILED = Answer(500)


def test_each_wait_is_as_declared_and_a_little_longer() -> None:
    for attempts, wait_ms in enumerate(RETRIES_MS, start=1):
        waits = [
            (retry_at(RETRIES_MS, f"crm/{n}", attempts, FAILED, NOW_MS) or 0) - NOW_MS
            for n in range(200)
        ]
        assert min(waits) >= wait_ms
        assert max(waits) <= wait_ms * (1 + JITTER)
        assert max(waits) - min(waits) > wait_ms * JITTER / 2
        again = retry_at(RETRIES_MS, "crm/0", attempts, FAILED, NOW_MS)
        assert again == NOW_MS + waits[0]


def test_after_the_last_wait_it_is_given_up() -> None:
    assert retry_at(RETRIES_MS, "crm/0", len(RETRIES_MS), FAILED, NOW_MS) is not None
    assert retry_at(RETRIES_MS, "crm/0", len(RETRIES_MS) + 1, FAILED, NOW_MS) is None
    assert retry_at((), "crm/0", 1, FAILED, NOW_MS) is None


@pytest.mark.parametrize(
    ("header", "wait_ms"),
    [
        ("120", 120_000),
        (" 7 ", 7_000),
        ("0", 0),
        ("999999999999999999999", 86_400_000),
        ("Thu, 28 May 2026 20:27:40 GMT", 60_000),
        ("Thu, 28 May 2026 20:25:20 GMT", 0),
        ("Thu, 28 May 2026 20:27:40", 60_000),
        ("-5", 0),
        ("soon", 0),
        ("", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, wait_ms: int) -> None:
    assert retry_after_ms(header, NOW_MS) == wait_ms


@given(
    st.one_of(
        st.text(),
        st.from_regex(r"(Thu, )?\d{1,25} Jan -?\d{1,25} \d{1,9}:\d\d:\d\d (GMT|[+-]\d{1,25})"),
    )
)
@example("Thu, 9999999999999999979 Jan 2026 00:00:00 GMT")
@example("Fri, 31 Dec 9999 23:59:59 -2359")
@example("9" * 400)
def test_whatever_an_endpoint_says_is_a_wait_or_none(header: str) -> None:
    assert 0 <= retry_after_ms(header, NOW_MS) <= MOST_RETRY_AFTER_MS


def test_retry_after_makes_a_wait_longer_and_never_shorter() -> None:
    slow, quick = Answer(429, "3600"), Answer(429, "1")
    assert retry_at(RETRIES_MS, "crm/0", 1, slow, NOW_MS) == NOW_MS + 3_600_000
    assert retry_at(RETRIES_MS, "crm/0", 1, quick, NOW_MS) == retry_at(
        RETRIES_MS, "crm/0", 1, FAILED, NOW_MS
    )


def test_a_circuit_opens_after_failures_in_a_row_and_probes() -> None:
    circuit = Circuit(3, 5_000, 20_000)
    circuit.failed(FAILED, NOW_MS)
    circuit.failed(FAILED, NOW_MS)
    circuit.arrived()
    circuit.failed(FAILED, NOW_MS)
    circuit.failed(FAILED, NOW_MS)
    assert circuit.free(NOW_MS, 7) is None
    circuit.failed(FAILED, NOW_MS)
    assert circuit.is_open
    assert circuit.free(NOW_MS + 4_999, 0) == 0
    assert circuit.free(NOW_MS + 5_000, 0) == 1
    assert circuit.free(NOW_MS + 5_000, 1) == 0
    circuit.arrived()
    assert circuit.free(NOW_MS + 5_000, 3) is None


def test_it_stays_open_twice_as_long_each_time_up_to_a_limit() -> None:
    circuit, now_ms, stays = Circuit(1, 5_000, 20_000), NOW_MS, []
    for _ in range(5):
        circuit.failed(FAILED, now_ms)
        # What was under way when it opened says nothing new.
        circuit.failed(FAILED, now_ms + 1)
        opened_ms = now_ms
        while circuit.free(now_ms, 0) == 0:
            now_ms += 500
        stays.append(now_ms - opened_ms)
    assert stays == [5_000, 10_000, 20_000, 20_000, 20_000]


def test_an_endpoint_that_is_busy_is_left_alone_as_long_as_it_asks() -> None:
    circuit = Circuit(3, 5_000, 20_000)
    circuit.failed(Answer(429, "30"), NOW_MS)
    assert circuit.free(NOW_MS + 29_999, 0) == 0
    assert circuit.free(NOW_MS + 30_000, 0) is None


def test_a_rate_begins_empty_and_lets_no_more_than_a_second_of_it_through_at_once() -> None:
    rate = Rate(10)
    assert rate.free(NOW_MS) == 0
    assert rate.free(NOW_MS + 250) == 2
    rate.take(2)
    assert rate.free(NOW_MS + 300) == 1
    assert rate.free(NOW_MS + 60_000) == 10
    rate.take(10)
    assert rate.free(NOW_MS + 60_000) == 0


def test_a_rate_below_one_a_second_is_kept() -> None:
    rate, began = Rate(0.1), []
    for second in range(61):
        now_ms = NOW_MS + second * 1_000
        if rate.free(now_ms):
            rate.take(1)
            began.append(second)
    assert len(began) == 6
