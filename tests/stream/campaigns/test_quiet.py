"""Quiet hours end when a clock on the wall says so, on days when it is put forward or back, too."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.campaigns.quiet import ZoneClock, not_quiet_from
from stream.units import MINUTE_MS

CLOCKS = {
    name: ZoneClock(name)
    for name in (
        "UTC",
        "Europe/London",
        "America/New_York",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",  # half an hour of summer time
        "Africa/Casablanca",  # other hours in Ramadan
        "Pacific/Apia",
    )
}


def changes_of(name: str) -> list[int]:
    clock = ZoneClock(name)
    clock.offsets(np.array([1_735_689_600_000, 1_798_761_600_000]))
    return clock.changes_ms.tolist() or [1_760_000_000_000]


CHANGES = {name: changes_of(name) for name in CLOCKS}


def by_the_wall(name: str, hours: tuple[int, int], time_ms: int) -> int:
    """Minute by minute, until a clock on the wall is not within the hours."""
    begin, end = hours
    while True:
        local = datetime.fromtimestamp(time_ms / 1_000, UTC).astimezone(ZoneInfo(name))
        minute = local.hour * 60 + local.minute
        quiet = begin <= minute < end if begin < end else minute >= begin or minute < end
        if not quiet:
            return time_ms
        time_ms = (time_ms // MINUTE_MS + 1) * MINUTE_MS


def near_changes() -> st.SearchStrategy[tuple[str, int]]:
    """Times of a day around a change of a zone's clock."""

    def around(name: str) -> st.SearchStrategy[tuple[str, int]]:
        return st.tuples(
            st.just(name),
            st.builds(
                lambda change, minutes, ms: change + minutes * MINUTE_MS + ms,
                st.sampled_from(CHANGES[name]),
                st.integers(-1_500, 1_500),
                st.sampled_from([0, 0, 1, 59_999]),
            ),
        )

    return st.sampled_from(sorted(CLOCKS)).flatmap(around)


@example(("Africa/Casablanca", 1_713_059_940_000), (9, 8))
@settings(max_examples=300, deadline=None)
@given(
    near_changes(),
    st.tuples(st.integers(0, 95), st.integers(0, 95)).filter(lambda hours: hours[0] != hours[1]),
)
def test_the_first_instant_that_is_not_quiet(
    where: tuple[str, int], quarters: tuple[int, int]
) -> None:
    name, time_ms = where
    hours = (quarters[0] * 15, quarters[1] * 15)
    found = not_quiet_from(CLOCKS[name], hours, np.array([time_ms]))
    assert found.tolist() == [by_the_wall(name, hours, time_ms)]


@pytest.mark.parametrize("name", sorted(CLOCKS))
def test_offsets_are_those_of_the_zone(name: str) -> None:
    times = np.arange(1_640_995_200_000, 1_798_761_600_000, 7 * 3_600_000)
    zone = ZoneInfo(name)
    expected = [
        round(datetime.fromtimestamp(t / 1_000, zone).utcoffset().total_seconds() * 1_000)  # type: ignore[union-attr]
        for t in times.tolist()
    ]
    assert ZoneClock(name).offsets(times).tolist() == expected


def test_no_times_have_no_end() -> None:
    assert not len(not_quiet_from(ZoneClock("UTC"), (0, 60), np.empty(0, np.int64)))
