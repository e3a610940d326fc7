"""Durations and times are read back as they were written."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.units import (
    DAY_MS,
    apportion,
    exact_share,
    iso,
    isos,
    parse_duration,
    percent,
    percents,
    readable_duration,
)

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_TIMES = st.integers(0, 4_102_444_799_999)


@given(
    st.decimals(0, 100_000, places=3),
    st.sampled_from(sorted(_UNITS)),
    st.sampled_from(["", " ", "  "]),
)
def test_a_duration_is_its_number_of_units(number: object, unit: str, space: str) -> None:
    expected = float(str(number)) * _UNITS[unit]
    assert parse_duration(f"{space}{number}{space}{unit}{space}") == expected


@given(st.floats(0, 1e9))
def test_a_number_is_seconds(number: float) -> None:
    assert parse_duration(number) == number
    assert parse_duration(f"{number:f}") == float(f"{number:f}")


@pytest.mark.parametrize(
    "text", ["", " ", "d", "10 y", "10 days", "-1s", "1e3s", "1,5h", "1.s", ".5s", "1h30m", "inf"]
)
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 250ms, 10s, 6h or 30d"):
        parse_duration(text)


@given(_TIMES)
def test_a_time_is_written_to_the_millisecond_and_read_back(time_ms: int) -> None:
    text = iso(time_ms)
    assert len(text) == len("2026-11-21T09:00:00.000Z")
    back = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    assert back // timedelta(milliseconds=1) == time_ms


@given(st.lists(_TIMES, max_size=20))
def test_many_times_are_written_as_one_is(times: list[int]) -> None:
    assert isos(np.array(times, np.int64)) == [iso(time) for time in times]


def test_the_epoch_and_a_day() -> None:
    assert iso(0) == "1970-01-01T00:00:00.000Z"
    assert iso(DAY_MS) == "1970-01-02T00:00:00.000Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.25, "0.25 s"),
        (45, "45 s"),
        (119, "119 s"),
        (120, "2.0 min"),
        (3_600, "60 min"),
        (3.25 * 3_600, "3.2 hours"),
        (3.2 * 86_400, "3.2 days"),
        (12 * 86_400, "12 days"),
        (-86_400, "-24 hours"),
    ],
)
def test_a_duration_is_readable(seconds: float, text: str) -> None:
    assert readable_duration(seconds) == text


@given(st.floats(1, 1e8))
def test_a_readable_duration_is_nearly_the_duration(seconds: float) -> None:
    number, unit = readable_duration(seconds).split()
    size = {"s": 1.0, "min": 60.0, "hours": 3_600.0, "days": 86_400.0}[unit]
    assert math.isclose(float(number) * size, seconds, rel_tol=0.051)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "-"), (0.0, "0 %"), (1e-9, "<0.1 %"), (0.00049, "<0.1 %"), (0.0005, "0.1 %"),
        (0.0032, "0.3 %"), (0.0094, "0.9 %"), (0.0095, "1 %"), (0.03, "3 %"), (0.124, "12 %"),
        (0.994, "99 %"), (0.9951, ">99 %"), (1.0, "100 %"), (1.5, "150 %"),
    ],
)  # fmt: skip
def test_a_share_is_written_as_people_read_it(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"), (0.42, "42 %"), (0.984, "98 %"), (0.994, "99.4 %"), (0.9989, "99.89 %"),
        (0.99987, "99.987 %"), (0.9999999, ">99.998 %"), (1.0, "100 %"),
    ],
)  # fmt: skip
def test_the_nearer_to_all_the_finer_a_share_is_told(share: float, text: str) -> None:
    assert exact_share(share) == text


@given(st.lists(st.integers(0, 10**9), max_size=20), st.integers(0, 10**6))
def test_what_is_scaled_adds_up(counts: list[int], total: int) -> None:
    scaled = apportion(counts, total)
    assert sum(scaled) == (total if any(counts) else 0)
    exact = [count * total / max(sum(counts), 1) for count in counts]
    assert all(abs(one - other) <= 1 for one, other in zip(scaled, exact, strict=True))


def test_shares_add_up_to_everyone() -> None:
    assert percents([1, 1, 1]) == ["34 %", "33 %", "33 %"]
    assert percents([999, 1, 0]) == [">99 %", "<1 %", "0 %"]
    assert percents([0, 0]) == ["0 %", "0 %"]
    assert percents([7]) == ["100 %"]
    assert percents([]) == []
