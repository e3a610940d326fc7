"""Times of a column are read as it is declared, and where they are not, a declaration is proposed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.times import TimeColumn
from stream.units import iso

NOW_MS = int(datetime(2026, 3, 10, tzinfo=UTC).timestamp()) * 1_000


def column(form: str = "auto", zone: str = "UTC") -> TimeColumn:
    return TimeColumn(form, zone, NOW_MS)


def read(text: str, form: str = "auto", zone: str = "UTC") -> str | None:
    time_ms = column(form, zone).read(text)
    return None if time_ms is None else iso(time_ms)


@given(st.datetimes(datetime(1996, 1, 1), datetime(2026, 1, 1)), st.sampled_from(["", "-1904"]))  # noqa: DTZ001
def test_serial_dates_are_read_back_to_the_millisecond(moment: datetime, system: str) -> None:
    zero = datetime(1904, 1, 1) if system else datetime(1899, 12, 30)  # noqa: DTZ001
    moment = moment.replace(microsecond=moment.microsecond // 1_000 * 1_000)
    serial = (moment - zero) / timedelta(days=1)
    expected = moment.replace(tzinfo=UTC).isoformat(timespec="milliseconds")
    assert read(repr(serial), f"excel{system}") == expected.replace("+00:00", "Z")


@pytest.mark.parametrize("zeros", ["", "000", "000000", "000000000"])
def test_the_size_of_a_number_tells_its_unit(zeros: str) -> None:
    assert read(f"1709288531{zeros}") == "2024-03-01T10:22:11.000Z"
    unit = {0: "seconds", 3: "milliseconds", 6: "microseconds", 9: "nanoseconds"}[len(zeros)]
    assert read(f"1709288531{zeros}", unit) == "2024-03-01T10:22:11.000Z"


def test_serial_dates_are_of_the_declared_zone() -> None:
    assert read("45078.5", "excel", "Europe/Berlin") == "2023-06-01T10:00:00.000Z"
    assert read("45078,5", "excel") == "2023-06-01T12:00:00.000Z"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-03-01 10:22:11 -0500", "2024-03-01T15:22:11.000Z"),
        ("2024-03-01 10:22:11 +0000 UTC", "2024-03-01T10:22:11.000Z"),
        ("2024-03-01 10:22:11.123456 UTC", "2024-03-01T10:22:11.123Z"),
        ("2024-03-01T10:22:11+0000", "2024-03-01T10:22:11.000Z"),
        ("2024-03-01 UTC", "2024-03-01T00:00:00.000Z"),
        ("20240301", "2024-03-01T00:00:00.000Z"),
        ("2024-03-01T10:22+01:00[Europe/Paris]", "2024-03-01T09:22:00.000Z"),
        ("2024-03-01T10:22:11Z[UTC]", "2024-03-01T10:22:11.000Z"),
        ("2024-03-01T10:22:11\u221205:00", "2024-03-01T15:22:11.000Z"),
        ("2024-02-29 24:00:00", "2024-03-01T00:00:00.000Z"),
        ("2023-12-31T24:00Z", "2024-01-01T00:00:00.000Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
        ("2016-12-31T18:59:60-05:00", "2017-01-01T00:00:00.000Z"),
        ("2024-03-01 24:01:00", None),
        ("2024-03-01 10:61:60", None),
        ("2024-03-01T10:22:61Z", None),
        ("2024-03-01[Europe/Paris", None),
        # Names of IANA and offsets from UTC mean one thing only.
        ("2024-03-01 10:00 America/New_York", "2024-03-01T15:00:00.000Z"),
        ("2024-07-01T10:00:00.5 America/New_York", "2024-07-01T14:00:00.500Z"),
        ("2024-03-01T10:00[Europe/Paris]", "2024-03-01T09:00:00.000Z"),
        ("2024-03-01 10:00 America/Argentina/Buenos_Aires", "2024-03-01T13:00:00.000Z"),
        ("2024-03-01 10:00 Etc/GMT+5", "2024-03-01T15:00:00.000Z"),
        ("2024-03-01 Asia/Tokyo", "2024-02-29T15:00:00.000Z"),
        ("2024-10-27T02:30:00+01:00 Europe/Berlin", "2024-10-27T01:30:00.000Z"),
        ("2024-03-01 10:00 UTC+2", "2024-03-01T08:00:00.000Z"),
        ("2024-03-01 10:00 GMT-5", "2024-03-01T15:00:00.000Z"),
        ("2024-03-01T10:00:00 UTC+05:30", "2024-03-01T04:30:00.000Z"),
        ("2024-03-01 10:00:00 GMT\u22120330", "2024-03-01T13:30:00.000Z"),
        ("2024-03-01 24:00 UTC+2", "2024-03-01T22:00:00.000Z"),
        ("2024-03-01 10:00 GMT+0100 (Central European Standard Time)", "2024-03-01T09:00:00.000Z"),
        ("2024-03-01 10:00 UTC+15", None),
        ("2024-03-01 10:00 Europe/Atlantis", None),
        ("2024-03-01 10:00 CET", None),
        ("2024-03-01 10:00 PST", None),
        ("2024-03-01t10:22:11z", "2024-03-01T10:22:11.000Z"),
        ("/Date(1709288531000)/", "2024-03-01T10:22:11.000Z"),
        ("/Date(1709288531000+0200)/", "2024-03-01T10:22:11.000Z"),
        # Digits of any script, full-width signs, marks of direction.
        ("\u0662\u0660\u0662\u0664-\u0660\u0663-\u0660\u0661", "2024-03-01T00:00:00.000Z"),
        (
            "\uff12\uff10\uff12\uff14-\uff10\uff13-\uff10\uff11 \uff11\uff10\uff1a\uff12\uff12",
            "2024-03-01T10:22:00.000Z",
        ),
        ("\u200f2024-03-01\u200f", "2024-03-01T00:00:00.000Z"),
        ("2567-03-01", None),
    ],
)
def test_how_programs_write_iso_times(text: str, expected: str | None) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "proposed"),
    [
        ("45078.4745", ["'excel' (2023-06-01T11:23:16.800Z)"]),
        ("01.06.2023", ["'%d.%m.%Y'"]),
        ("13/02/2023 10:20", ["'%d/%m/%Y %H:%M'"]),
        ("02/03/2023", ["'%d/%m/%Y' (2023-03-02", "'%m/%d/%Y' (2023-02-03", "only you know which"]),
        ("Mar 5, 2024", ["'%b %d, %Y'"]),
        ("Mar-01-24", ["'%b-%d-%y' (2024-03-01T00:00:00.000Z)"]),
        ("2024-3-1 9:05", ["'%Y-%m-%d %H:%M'"]),
        ("Friday, March 1, 2024", ["'%A, %B %d, %Y'"]),
        ("March 1, 2024 at 10:22 AM", ["'%B %d, %Y at %I:%M %p' (2024-03-01T10:22:00.000Z)"]),
        ("Mar 1, 2024 10:22:15 AM PST", ["'%b %d, %Y %I:%M:%S %p %Z' (2024-03-01T18:22:15.000Z)"]),
        ("2024-03-01 10:22:11 CET", ["'%Y-%m-%d %H:%M:%S %Z' (2024-03-01T09:22:11.000Z)"]),
        ("Fri, 01 Mar 2024 10:22:11 GMT", ["%a, %d %b %Y %H:%M:%S %Z"]),
        ("03/14/2024, 10:22 PM", ["'%m/%d/%Y, %I:%M %p' (2024-03-14T22:22"]),
        ("2024-03-01 10:00 CET", ["'%Y-%m-%d %H:%M %Z' (2024-03-01T09:00:00.000Z)"]),
        ("01.03.2024 10:00 Europe/Berlin", ["'%d.%m.%Y %H:%M %Z' (2024-03-01T09:00:00.000Z)"]),
        ("13/03/2024 10:00:00 GMT-5", ["'%d/%m/%Y %H:%M:%S %Z' (2024-03-13T15:00:00.000Z)"]),
        ("Mar 1, 2024 10:22 AM PST", ["'%b %d, %Y %I:%M %p %Z' (2024-03-01T18:22:00.000Z)"]),
        (
            "Fri Mar 01 2024 10:22:11 GMT+0100 (CET)",
            ["'%a %b %d %Y %H:%M:%S %Z' (2024-03-01T09:22:11.000Z)"],
        ),
        (
            "Fri, 01 Mar 2024 10:22:11 +0100 (CET)",
            ["'%a, %d %b %Y %H:%M:%S %z' (2024-03-01T09:22:11.000Z)"],
        ),
        (
            "2024\u5e743\u67081\u65e5 10:22",
            ["'%Y\u5e74%m\u6708%d\u65e5 %H:%M' (2024-03-01T10:22:00.000Z)"],
        ),
        ("3/14/2024, 10:22:15\u202fAM", ["'%m/%d/%Y, %I:%M:%S %p' (2024-03-14T10:22:15.000Z)"]),
        ("14\u200f/03\u200f/2024", ["'%d/%m/%Y' (2024-03-14T00:00:00.000Z)"]),
        ("2024-03-01 10:22:15 p. m.", ["'%Y-%m-%d %I:%M:%S %p' (2024-03-01T22:22:15.000Z)"]),
        ("2024. 03. 01. 10:22", ["'%Y. %m. %d. %H:%M'"]),
        ("1. 3. 2024 10:22", ["'%d. %m. %Y %H:%M'"]),
        ("2024-061", ["'%Y-%j' (2024-03-01T00:00:00.000Z)"]),
        ("Fri Mar 01 10:22:11 2024", ["'%a %b %d %H:%M:%S %Y'"]),
        ("Fri Mar 01 10:22:11 CET 2024", ["'%a %b %d %H:%M:%S %Z %Y' (2024-03-01T09:22:11.000Z)"]),
        ("01/Mar/2024:10:22:11 +0100", ["'%d/%b/%Y:%H:%M:%S %z' (2024-03-01T09:22:11.000Z)"]),
        ("2024-03-01T10:22:11+00:00Z", []),
        ("soon", []),
    ],
)
def test_a_time_that_is_none_proposes_the_format_that_reads_it(
    text: str, proposed: list[str]
) -> None:
    times = column()
    assert times.read(text) is None
    why = times.why(text)
    assert "time.format" in why
    for part in proposed:
        assert part in why
    if proposed and "only" not in proposed[-1]:
        assert "only you know" not in why
    # What is proposed is right.
    for form in why.split("time.format can be ")[1:]:
        assert read(text, form.split("'")[1]) is not None


@pytest.mark.parametrize(
    ("text", "form", "name", "zone", "expected"),
    [
        ("2024-03-01 10:00 IST", "auto", "IST", "Asia/Kolkata", "2024-03-01T04:30:00.000Z"),
        ("2024-07-01 10:00:00 CET", "auto", "CET", "Europe/Berlin", "2024-07-01T08:00:00.000Z"),
        ("01.03.2024 10:00 MEZ", "%d.%m.%Y %H:%M", "MEZ", "Europe/Vienna", "2024-03-01T09:00:00.000Z"),
        ("1 Mar 2024 10:22:15 IST", "%d %b %Y %H:%M:%S %Z", "IST", "Asia/Kolkata", "2024-03-01T04:52:15.000Z"),
        (
            "2024-07-01 10:22:15 Eastern Time (US & Canada)", "auto", "Eastern Time (US & Canada)",
            "America/New_York", "2024-07-01T14:22:15.000Z",
        ),
        ("2024-03-01 10:00\u65e5\u672c\u6642\u9593", "auto", "\u65e5\u672c\u6642\u9593", "Asia/Tokyo", "2024-03-01T01:00:00.000Z"),
    ],
)  # fmt: skip
def test_what_the_name_of_a_zone_means_can_be_declared(
    text: str, form: str, name: str, zone: str, expected: str
) -> None:
    times = column(form)
    assert times.read(text) is None
    why = times.why(text)
    assert f'zones = {{ "{name}" = "Area/City" }}' in why or "time.format can be" in why
    declared = TimeColumn(form, None, NOW_MS, {name: zone})
    time_ms = declared.read(text)
    assert time_ms is not None
    assert iso(time_ms) == expected
    assert declared.note() is None, "it names its zone"


def test_a_name_of_a_zone_behind_another_format_proposes_both() -> None:
    times = column("%d.%m.%Y %H:%M")
    why = times.why("2024-03-13 10:00 MSK")
    assert 'zones = { "MSK" = "Area/City" }' in why
    assert "time.format can be '" in why
    form = why.split("time.format can be ")[1].split("'")[1]
    assert TimeColumn(form, None, NOW_MS, {"MSK": "Europe/Moscow"}).read("2024-03-13 10:00 MSK")
    for text in ("2024-03-01 10:00 soon 7", "soon: 10:00 IST"):
        assert "zones" not in times.why(text)


def test_times_that_cannot_be_are_told_as_such() -> None:
    times = column()
    for text, why in (
        ("1980-01-01", "before 1995"), ("1970-01-01T01:00:00Z", "before 1995"),
        ("2035-01-01", "has not come yet"), ("9999-12-31", "has not come yet"),
        ("0", "no time"),
    ):  # fmt: skip
        assert times.read(text) is None
        assert why in times.why(text)


@pytest.mark.parametrize("text", ["1.70925E+09", "1.70925E+12", "1,70925E+12", "1.7093e+12"])
def test_a_number_that_excel_has_cut_is_no_time(text: str) -> None:
    for form in ("auto", "seconds", "milliseconds"):
        times = column(form)
        assert times.read(text) is None
        assert "has lost its last digits" in times.why(text)


def test_a_number_in_powers_of_ten_is_a_time_if_no_digit_is_lost() -> None:
    for text in ("1.7092512E+09", "1.7092512e9", "1.709251200e+12"):
        assert read(text) == "2024-03-01T00:00:00.000Z"


def test_after_many_proposals_no_more_are_tried() -> None:
    times = column()
    told = [times.why(f"{day:02}.06.2023") for day in range(1, 29)]
    told += [times.why(f"{day:02}.07.2023") for day in range(1, 29)]
    assert "can be" in told[0]
    assert "can be" not in told[-1]


def test_day_and_month_that_may_be_exchanged_are_told() -> None:
    times = column("%d/%m/%Y")
    times.read("01/02/2023")
    times.read("03/04/2023")
    assert "%m/%d/%Y" in str(times.note())
    times.read("13/04/2023")
    assert times.note() is None
    assert column("%d/%m/%Y").note() is None, "nothing was read"
    for form in ("%Y-%j", "%d.%m.%Y"):
        times = column(form)
        times.read("2023-032")
        times.read("01.02.2023")
        assert times.note() is None


def test_years_of_thailand_are_proposed_and_read() -> None:
    for text, form, expected in (
        ("2567-02-29", "auto", "2024-02-29T00:00:00.000Z"),
        ("2567-02-29 10:22:00", "auto", "2024-02-29T10:22:00.000Z"),
        ("29/02/2567", "%d/%m/%Y", "2024-02-29T00:00:00.000Z"),
        ("\u0e52\u0e55\u0e56\u0e57-\u0e50\u0e53-\u0e50\u0e51", "auto", "2024-03-01T00:00:00.000Z"),
    ):
        times = column(form)
        assert times.read(text) is None
        if text.isascii():
            assert 'time.calendar = "buddhist"' in times.why(text)
        declared = TimeColumn(form, "UTC", NOW_MS, calendar="buddhist")
        time_ms = declared.read(text)
        assert time_ms is not None
        assert iso(time_ms) == expected
    # The format is proposed along with it.
    why = column().why("14/03/2567 10:22")
    assert "'%d/%m/%Y %H:%M', with time.calendar" in why
    # Nothing else is taken for such a year.
    for text in ("1709288531", "2024-03-01", "2024-03-01T10:22:00.2567"):
        declared = TimeColumn("auto", "UTC", NOW_MS, calendar="buddhist")
        assert declared.read(text) == column().read(text)
    assert "calendar" not in column().why("2035-01-01")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_a_zone_within_a_format_counts_and_not_the_columns_zone(zone: str) -> None:
    """Python's own %Z reads UTC, and takes no notice of it."""
    for form, text, expected in (
        ("%a %b %d %H:%M:%S %Z %Y", "Fri Mar 01 10:22:11 UTC 2024", "2024-03-01T10:22:11.000Z"),
        ("%a %b %d %H:%M:%S %Z %Y", "Fri Mar 01 10:22:11 GMT-5 2024", "2024-03-01T15:22:11.000Z"),
        ("%H:%M %Z %d.%m.%Y", "10:22 CET 01.03.2024", "2024-03-01T09:22:00.000Z"),
        ("%H:%M %Z %d.%m.%Y", "10:22 01.03.2024", None),
    ):
        assert read(text, form, zone) == expected


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_the_name_of_a_zone_counts_and_not_the_columns_zone(zone: str) -> None:
    form = "%d %b %Y %H:%M:%S %Z"
    assert read("1 Mar 2024 10:22:15 UTC", form, zone) == "2024-03-01T10:22:15.000Z"
    assert read("1 Mar 2024 10:22:15 EST", form, zone) == "2024-03-01T15:22:15.000Z"
    assert read("1 Mar 2024 10:22:15", form, zone) is None
    assert read("1 Mar 2024 10:22:15 IST", form, zone) is None, "India, Ireland or Israel"


def test_a_date_that_only_the_other_order_reads_tells_that_all_are_exchanged() -> None:
    times = column("%d/%m/%Y")
    assert times.read("03/25/2024") is None
    assert times.read("03/04/2024") is not None
    note = times.note() or ""
    assert "'03/25/2024' is a time only with time.format = '%m/%d/%Y'" in note
    assert "exchanged" in note
    assert times.read("25/03/2024") is not None
    assert times.note() is None, "the file has both"


@pytest.mark.parametrize(
    ("form", "text", "told"),
    [
        ("auto", "2024-03-01 10:22", True),
        ("auto", "2024-03-01T10:22:11.5", True),
        ("%d.%m.%Y %H:%M", "01.03.2024 10:22", True),
        ("excel", "45352.43", True),
        ("auto", "2024-03-01", False),
        ("auto", "2024-03-01 10:22Z", False),
        ("auto", "2024-03-01 10:22:11 -0500", False),
        ("auto", "1709288531", False),
        ("%d.%m.%Y %H:%M %z", "01.03.2024 10:22 +0100", False),
        ("%Y-%m-%d %H:%M:%S %Z", "2024-03-01 10:22:11 PST", False),
    ],
)
def test_a_clock_without_a_zone_is_told_unless_the_mapping_says_one(
    form: str, text: str, told: bool
) -> None:
    times = TimeColumn(form, None, NOW_MS)
    assert times.read(text) is not None
    note = times.note()
    assert (note is not None and "name no zone" in note and text in note) == told
    # What is told is what has been done.
    assert times.read(text) == column(form).read(text)
    for zone in ("UTC", "Europe/Berlin"):
        declared = column(form, zone)
        declared.read(text)
        assert "zone" not in (declared.note() or "")


def test_a_text_of_any_length_is_told_from_a_time_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No parser sees it: some take the square of its length."""
    text = "1" * 100_000 + "x"
    times = column()
    monkeypatch.setattr("producers.times._NUMBER", None)
    assert times.read(text) is None
    assert "no time" in times.why(text)
