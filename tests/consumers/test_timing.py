"""Holds the rules of times to what they promise, and to the oracle's separate reading of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.decode import Decoder
from consumers.timing import Timed, TimeRules
from stream.config import Worker
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.oracle import Fate, Judge, Message
from stream.times import EARLIEST_MS, LATEST_MS, can_be
from stream.units import DAY_MS, iso
from tests.fakes import FakeMessage
from tests.strategies import START_MS, VIEW, encoded

NOW = START_MS
TOLERANCE = 300_000
YEAR = 365 * DAY_MS
RULES = TimeRules(Worker())


def at(time_ms: int, recorded_ms: int, now_ms: int = NOW) -> tuple[int, int, bool, bool]:
    """What becomes of one event: time, the record's, late, clamped."""
    timed = RULES.apply(np.array([time_ms]), np.array([recorded_ms]), now_ms)
    return int(timed[0][0]), int(timed[1][0]), bool(timed[2][0]), bool(timed[3][0])


# -- records with times that cannot be ----------------------------------------------------------

NO_TIMES = {
    "none": -1,
    "nought": 0,
    "seconds": NOW // 1_000,
    "microseconds": NOW * 1_000,
    "nanoseconds": NOW * 1_000_000,
    "minutes": NOW // 60_000,
    "before all shops": EARLIEST_MS - 1,
    "for ever": LATEST_MS,
    "least": -(1 << 63),
    "most": (1 << 63) - 1,
    "a clock that was never set": 946_684_800_000,
    "Apple's epoch": 978_307_200_000,
}


@pytest.mark.parametrize("recorded_ms", NO_TIMES.values(), ids=NO_TIMES)
def test_a_record_with_such_a_time_limits_nothing(recorded_ms: int) -> None:
    for time_ms in (NOW, NOW - 3 * YEAR, NOW + TOLERANCE):
        assert at(time_ms, recorded_ms) == (time_ms, time_ms, False, False)


@pytest.mark.parametrize("recorded_ms", list(NO_TIMES.values())[:10], ids=list(NO_TIMES)[:10])
@pytest.mark.parametrize("ahead", [TOLERANCE + 1, YEAR, 70 * YEAR])
def test_then_the_wall_clock_is_the_only_limit(recorded_ms: int, ahead: int) -> None:
    assert at(NOW + ahead, recorded_ms) == (NOW, NOW, False, True)


# -- nothing happens after the wall clock --------------------------------------------------------


@pytest.mark.parametrize("ahead", [TOLERANCE + 1, DAY_MS, YEAR, 70 * YEAR])
def test_a_producer_ahead_in_both_is_brought_back(ahead: int) -> None:
    assert at(NOW + ahead, NOW + ahead) == (NOW, NOW, False, True)


def test_an_honest_event_in_a_record_from_the_future_stays_where_it_is() -> None:
    for recorded_ms in (NOW + YEAR, NOW + 70 * YEAR):
        assert at(NOW - DAY_MS, recorded_ms) == (NOW - DAY_MS, NOW, False, False)
        assert at(NOW - YEAR, recorded_ms)[2], "it is late by the wall clock"


@pytest.mark.parametrize("later", [0, 1, DAY_MS, 30 * YEAR])
def test_within_the_tolerance_only_the_log_decides(later: int) -> None:
    """Whoever reads the log again, later, comes to the same."""
    for time_ms, recorded_ms in (
        (NOW, NOW),
        (NOW + DAY_MS, NOW),
        (NOW + 70 * YEAR, NOW),
        (NOW + TOLERANCE, NOW + TOLERANCE),
        (NOW + DAY_MS, NOW + TOLERANCE),
        (NOW - 90 * DAY_MS - 1, NOW),
        (NOW - 9 * YEAR, NOW - 3 * YEAR),
        (NOW, NOW - 3 * YEAR),
    ):
        assert at(time_ms, recorded_ms) == at(time_ms, recorded_ms, NOW + later)


def test_an_old_event_is_late_however_many_decades() -> None:
    for years in (1, 10, 20, 29):
        assert at(NOW - years * YEAR, NOW)[2]


def test_an_event_in_a_record_of_a_year_before_is_brought_back_to_that() -> None:
    assert at(NOW, NOW - YEAR) == (NOW - YEAR + TOLERANCE, NOW - YEAR, False, True)


# -- columns, the decoder and the oracle ---------------------------------------------------------

moments = st.one_of(
    st.sampled_from([EARLIEST_MS, LATEST_MS - 1, NOW, NOW + TOLERANCE, NOW + TOLERANCE + 1]),
    st.integers(EARLIEST_MS, LATEST_MS - 1),
    st.integers(NOW - 100 * DAY_MS, NOW + 2 * TOLERANCE),
)
records = st.one_of(
    moments, st.sampled_from(sorted(NO_TIMES.values())), st.integers(-(1 << 63), (1 << 63) - 1)
)
JUDGE = Judge(DEFAULT_FEATURES, Worker(), now_ms=NOW)
DECODER = Decoder(FeatureTable(DEFAULT_FEATURES), Worker(decoder="plain"))


@given(st.lists(st.tuples(moments, records), min_size=1, max_size=8))
def test_a_column_is_what_each_of_its_events_is_alone(pairs: list[tuple[int, int]]) -> None:
    times, recorded = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    together: Timed = RULES.apply(times, recorded, NOW)
    assert [tuple(one) for one in zip(*(c.tolist() for c in together), strict=True)] == [
        at(*pair) for pair in pairs
    ]


@given(moments, records)
def test_no_event_counts_after_the_wall_clock_and_its_tolerances(time_ms: int, record: int) -> None:
    counted, recorded, late, clamped = at(time_ms, record)
    assert EARLIEST_MS <= counted <= NOW + 2 * TOLERANCE
    assert EARLIEST_MS <= recorded <= NOW + TOLERANCE
    assert clamped == (counted < time_ms)
    assert not (late and clamped)


@given(moments, records)
def test_the_oracle_reads_times_alike(time_ms: int, record: int) -> None:
    raw = encoded(time_ms=time_ms, event=VIEW)
    outcome = JUDGE.judge(Message(raw, record, 0))
    block = DECODER.decode([FakeMessage(raw, timestamp_ms=record, place=0)], NOW)
    counts = block.batch(0, 0, 1).counts
    assert counts.late == (outcome.fate is Fate.LATE)
    if outcome.event is not None:
        assert block.time_ms[0] == outcome.event.time_ms
        assert counts.clamped == outcome.event.clamped


def test_without_a_time_given_the_decoder_asks_the_machines_clock() -> None:
    raw = encoded(timestamp="2099-01-01T00:00:00.000Z", event=VIEW)
    block = DECODER.decode([FakeMessage(raw, timestamp_ms=LATEST_MS - 1, place=0)])
    assert block.batch(0, 0, 1).counts.clamped == 1
    assert iso(int(block.time_ms[0])) < "2099"


@pytest.mark.parametrize(
    ("time_ms", "expected"),
    [
        (EARLIEST_MS - 1, False),
        (EARLIEST_MS, True),
        (NOW + TOLERANCE, True),
        (NOW + TOLERANCE + 1, False),
        (LATEST_MS, False),
    ],
)
def test_the_range_of_times_ends_at_the_wall_clock(time_ms: int, expected: bool) -> None:
    assert can_be(time_ms, NOW, TOLERANCE) is expected
    assert not can_be(LATEST_MS, LATEST_MS * 2, TOLERANCE)
