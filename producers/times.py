"""Reads the times of a column, and proposes how it may be written where they are none.

Comes in: text, a declared format and zone. Goes out: milliseconds since 1970, or which declaration
would have read it. `row_mapper` is next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache, partial
from typing import Literal
from zoneinfo import ZoneInfo

from producers.amounts import in_ascii_digits
from stream.times import EARLIEST_MS, LATEST_MS
from stream.units import iso
from stream.zones import zone as known_zone

Parse = Callable[[str, tzinfo], int]

PER_MILLISECOND = {
    "seconds": 0.001,
    "milliseconds": 1,
    "microseconds": 1_000,
    "nanoseconds": 1_000_000,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_SERIAL_ZERO = {
    # Excel takes 1900 for a leap year: counted from here, every day after that February is right.
    "excel": datetime(1899, 12, 30),  # noqa: DTZ001 - the zone is the column's
    "excel-1904": datetime(1904, 1, 1),  # noqa: DTZ001
}
NAMED_FORMATS = ("auto", "iso", *PER_MILLISECOND, *_SERIAL_ZERO)
FORMATS_EXPECTED = (
    f"expected {', '.join(NAMED_FORMATS)}, or a strptime format such as %d.%m.%Y %H:%M"
)

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MONTH = re.compile(r"\d{4}-\d{2}", re.ASCII)
_COMPACT_DATE = re.compile(r"(19|20)\d{6}", re.ASCII)
_LOOSE_OFFSET = re.compile(r"(.*\d) ?([+-]\d\d:?\d\d)( [A-Z]{2,5})?", re.ASCII)
"""A blank before the offset as Ruby writes it, and a zone's name after it as Go does."""

_ZONE_HOURS = {
    "UTC": 0, "GMT": 0, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6,
    "PST": -8, "PDT": -7, "CET": 1, "CEST": 2,
}  # fmt: skip
"""Abbreviations that %Z reads: the zones of RFC 2822 and Central Europe's. Python's own knows UTC and the
zone of the machine, and forgets both again. Without %Z in its format nobody has said that a column has
them; names of IANA and offsets from UTC mean one thing only, and are read in any case."""

_IANA = r"[A-Z][A-Za-z]+(?:/[A-Za-z0-9_+-]+)+"
_FROM_UTC = r"(?:UTC|GMT)(?:(?P<sign>[+\-\u2212])(?P<hours>\d\d?)(?::?(?P<minutes>[0-5]\d))?)?"
_COMMENT = r"(?: \([^()]*\))?"
"""A name in words behind an offset, as browsers write it."""
_NAMED = re.compile(
    rf"(?P<bare>.*(?:\d|[AaPp][Mm])) ?"
    rf"(?P<zone>(?P<open>\[)?(?P<iana>{_IANA})(?(open)\])|{_FROM_UTC}|[A-Z]{{2,5}}){_COMMENT}",
    re.ASCII,
)
_COMMENTED = re.compile(r"(.*[+-]\d\d:?\d\d) \([^()]*\)", re.ASCII)
_OTHER_NAME = re.compile(
    r"(?P<bare>.*:\d\d(?:[.,]\d+)?(?: ?[AaPp]\.?[Mm]\.?)?) ?(?P<zone>[^\W\d]\D*)"
)

_DATES = (
    "%Y-%m-%d", "%b-%d-%y", "%b-%d-%Y", "%A, %B %d, %Y", "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y", "%m/%d/%y", "%d-%m-%Y", "%m-%d-%Y",
    "%Y/%m/%d", "%Y.%m.%d", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y",
    "%d-%b-%Y", "%d-%b-%y", "%a %b %d %Y", "%a, %d %b %Y", "%Y-%j", "%A %d %B %Y", "%A, %d %B %Y", "%d%b%Y", "%d. %m. %Y", "%Y. %m. %d.",
    "%Y.%m.%d.", "%Y\u5e74%m\u6708%d\u65e5",
)  # fmt: skip
_CLOCKS = (
    "", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", ", %H:%M", ", %H:%M:%S",
    ", %I:%M %p", ", %I:%M:%S %p", " at %I:%M %p", " at %I:%M:%S %p", " %H:%M %z", " %H:%M:%S %z",
    " %H:%M %Z", " %H.%M.%S", " %H\u6642%M\u5206", " %H:%M:%S %Z", " %H:%M:%S.%f %Z", " %I:%M %p %Z", " %I:%M:%S %p %Z", " %I:%M:%S %p %z", ":%H:%M:%S", "T%H:%M:%S",
)  # fmt: skip
_FORMATS = (
    "iso", "excel", "excel-1904", *PER_MILLISECOND, "%Y%m%d%H%M%S", "%a %b %d %H:%M:%S %Y",
    "%a %b %d %H:%M:%S %Z %Y", "%d/%b/%Y:%H:%M:%S %z",
    *(date + clock for date in _DATES for clock in _CLOCKS),
)  # fmt: skip


_DIRECTIVE = re.compile(r"%.|\s")


def _signs(form: str) -> frozenset[str]:
    """The letters that a text must have to be read by a format: to look is faster than to try."""
    return frozenset(_DIRECTIVE.sub("", form)) if "%" in form else frozenset()


_CANDIDATES = {form: _signs(form) for form in _FORMATS}

Calendar = Literal["gregorian", "buddhist"]
_BLANKS = dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u202f"), " ")
_HALF_OF_DAY = re.compile(r"(?<=\d )([AaPp])\. ?[Mm]\.$")
"""As Spanish writes it, and some write English."""
_BUDDHIST_YEAR = re.compile(r"(?<!\d)(?<!:\d\d[.,])2[45]\d\d(?!\d)", re.ASCII)
_BUDDHIST_YEARS = 543
"""More than those of the usual calendar."""


def _gregorian(text: str) -> str:
    """A text with its year as the usual calendar has it."""
    return _BUDDHIST_YEAR.sub(lambda year: str(int(year[0]) - _BUDDHIST_YEARS), text, count=1)


_PROPOSALS = 50
"""Texts for which formats are tried out; after so many, another tells nobody anything new."""


_ZONES_LOOKED_AT = 1_000
"""Texts that are read a second time, to see whether they name a zone: a column is written in one way."""


class TimeColumn:
    """The times of one column, as it is declared to be written."""

    def __init__(
        self,
        form: str,
        zone: str | None,
        latest_ms: int = LATEST_MS,
        zones: Mapping[str, str] | None = None,
        calendar: Calendar = "gregorian",
    ) -> None:
        """Prepare.

        Args:
            form: one of `NAMED_FORMATS`, or a strptime format.
            zone: IANA zone of times that name none; None takes UTC and tells of it.
            latest_ms: later times have not come yet.
            zones: IANA zones by the names that stand behind times.
            calendar: whose years are written.
        """
        self._form = form
        self._calendar = calendar
        self._latest_ms = min(latest_ms, LATEST_MS)
        self._zone = ZoneInfo(zone or "UTC")
        self._other_zone = ZoneInfo("Etc/GMT+12") if zone is None else None
        self._without_zone = ""
        self._zones_looked_at = 0
        named = {name: ZoneInfo(meant) for name, meant in (zones or {}).items()}
        self._parse = _named_or(named, form)
        swapped = _swapped(form)
        self._swapped = None if swapped is None else _named_or(named, swapped)
        self._only_swapped = ""
        self._read_any = False
        self._proposals = _PROPOSALS
        # Neighbouring rows share times: the lines of an order, the days of a table of dates.
        self.read = lru_cache(maxsize=65_536)(self._read)
        self.why = lru_cache(maxsize=1_024)(self._why)

    def _read(self, text: str) -> int | None:
        """Milliseconds since 1970; None for what is no time that can be meant."""
        time_ms = self._sane(self._parse, text)
        if time_ms is None:
            if self._swapped is not None and self._sane(self._swapped, text) is not None:
                self._only_swapped = self._only_swapped or text
            return None
        self._read_any = True
        if self._swapped is not None and self._sane(self._swapped, text) is None:
            self._swapped = None
        if self._other_zone is not None and (":" in text or self._form in _SERIAL_ZERO):
            self._look_for_zone(self._other_zone, text, time_ms)
        return time_ms

    def _look_for_zone(self, other: ZoneInfo, text: str, time_ms: int) -> None:
        """Whether a time is another one in another zone: then it names none, and nobody has."""
        if _moment(self._parse, self._plain(text), other) != time_ms:
            self._without_zone = text
        self._zones_looked_at += 1
        if self._without_zone or self._zones_looked_at == _ZONES_LOOKED_AT:
            self._other_zone = None

    def _sane(self, parse: Parse, text: str) -> int | None:
        text = self._plain(text)
        time_ms = _moment(parse, text, self._zone)
        return time_ms if time_ms is not None and EARLIEST_MS <= time_ms < self._latest_ms else None

    def _plain(self, text: str) -> str:
        """A text in digits of ASCII, and in years of the usual calendar."""
        if not text.isascii():
            text = in_ascii_digits(text).translate(_BLANKS)
        if text.endswith("."):
            text = _HALF_OF_DAY.sub(r"\1M", text)
        return _gregorian(text) if self._calendar == "buddhist" else text

    def _why(self, text: str) -> str:
        """What is wrong with a text that is no time here, and what the mapping can say."""
        if _CUT.fullmatch(text) is not None:
            return f"{text!r} is a number that has lost its last digits; format it as text"
        far_ms = _moment(self._parse, self._plain(text), self._zone)
        if far_ms is not None and far_ms < EARLIEST_MS:
            proposed = self._proposed(text)
            return (
                f"{text!r} is before {iso(EARLIEST_MS)[:4]}, which no shopper's time is{proposed}"
            )
        if far_ms is not None:
            return f"{text!r} has not come yet{self._proposed(text)}"
        return f"{text!r} is no time with time.format = {self._form!r}{self._proposed(text)}"

    def _proposed(self, text: str) -> str:
        if self._proposals == 0:
            return ""
        self._proposals -= 1
        read = self._candidates(text)
        if not read:
            return self._buddhist_proposed(text) or self._zone_proposed(text)
        # Of two names for the same reading the first will do.
        by_time = {moment: form for form, moment in reversed(read.items())}
        said = " or ".join(f"{by_time[m]!r} ({m})" for m in dict.fromkeys(read.values()))
        several = "; only you know which" if len(by_time) > 1 else ""
        return f"; time.format can be {said}{several}"

    def _candidates(self, text: str) -> dict[str, str]:
        """What formats make of a text, by format."""
        letters = set(text)
        return {
            form: iso(time_ms)
            for form, signs in _CANDIDATES.items()
            if signs <= letters and (time_ms := self._sane(_parser(form), text)) is not None
        }

    def _buddhist_proposed(self, text: str) -> str:
        """What to say of a text that is a time by the years of Thailand."""
        here = _gregorian(text)
        if here == text or self._calendar == "buddhist":
            return ""
        time_ms = self._sane(self._parse, here)
        if time_ms is not None:
            return f'; time.calendar = "buddhist" makes {iso(time_ms)} of it'
        read = self._candidates(here)
        forms = " or ".join(map(repr, read))
        return f'; time.format can be {forms}, with time.calendar = "buddhist"' if read else ""

    def _zone_proposed(self, text: str) -> str:
        """What to say of a text that is a time but for the name of a zone behind it."""
        found = _OTHER_NAME.fullmatch(text)
        if found is None or found["zone"] in ("Z", "z"):
            return ""
        bare, name = found["bare"], found["zone"]
        form = ""
        if self._sane(_parser(_without_zone(self._form)), bare) is None:
            read = self._candidates(bare)
            if not read:
                return ""
            form = f", and time.format can be {' or '.join(map(repr, read))}"
        return (
            f'; time.zones can say which zone of IANA that is: zones = {{ "{name}" = "Area/City" }}'
            f"{form}"
        )

    def note(self) -> str | None:
        """What to tell of the times once all are read."""
        told = [note for note in (self._swapped_note(), self._zone_note()) if note is not None]
        return "; ".join(told) or None

    def _zone_note(self) -> str | None:
        if not self._without_zone:
            return None
        return (
            f"times such as {self._without_zone!r} name no zone, and were taken for UTC; the mapping "
            'can say time.zone, such as "Europe/Berlin"'
        )

    def _swapped_note(self) -> str | None:
        """That day and month may be exchanged."""
        if self._swapped is None or not self._read_any:
            return None
        if self._only_swapped:
            return (
                f"{self._only_swapped!r} is a time only with time.format = {_swapped(self._form)!r}, "
                "which reads every other date as well: those that were read have day and month "
                "exchanged"
            )
        return (
            f"no date tells day from month: every one could also be read with "
            f"time.format = {_swapped(self._form)!r}"
        )


def is_format(value: str) -> bool:
    """Whether a column's format can be declared like this."""
    if value in NAMED_FORMATS:
        return True
    moment = datetime(2001, 12, 31, 23, 59, 58, tzinfo=UTC)
    try:
        datetime.strptime(moment.strftime(value), value)  # noqa: DTZ007 - only tried out
    except ValueError:
        return False
    return "%" in value


def _swapped(form: str) -> str | None:
    # Nobody writes the month first with a full stop behind it.
    if "%d" not in form or "%m" not in form or "%d.%m" in form:
        return None
    return form.replace("%d", "%\0").replace("%m", "%d").replace("%\0", "%m")


_LONGEST = 100
"""Letters of a time. Beyond that, to find out that a text is none takes the square of its length."""


def _moment(parse: Parse, text: str, zone: tzinfo) -> int | None:
    if len(text) > _LONGEST:
        return None
    try:
        return parse(text, zone)
    except (ValueError, OverflowError):
        return None


def _named_or(zones: Mapping[str, ZoneInfo], form: str) -> Parse:
    """Reads a format, and times that have the name of a declared zone behind them."""
    plain = _parser(form)
    if not zones:
        return plain
    bare = _parser(_without_zone(form))
    by_length = sorted(zones, key=len, reverse=True)

    def read(text: str, zone: tzinfo) -> int:
        for name in by_length:
            if text.endswith(name) and not (head := text[: -len(name)])[-1:].isalpha():
                return bare(head.rstrip(), zones[name])
        return plain(text, zone)

    return read


def _parser(form: str) -> Parse:
    if form == "auto":
        return _parse_auto
    if form == "iso":
        return _parse_iso
    if form in PER_MILLISECOND:
        return lambda text, _zone: _from_number(text, PER_MILLISECOND[form])
    if form in _SERIAL_ZERO:
        return lambda text, zone: _from_serial(text, zone, _SERIAL_ZERO[form])
    if "%Z" in form:
        return lambda text, _zone: _with_zone_name(text, form)
    if form.endswith("%z"):
        bare = partial(_COMMENTED.sub, r"\1")
        return lambda text, zone: _milliseconds(datetime.strptime(bare(text), form), zone)  # noqa: DTZ007
    return lambda text, zone: _milliseconds(datetime.strptime(text, form), zone)  # noqa: DTZ007


def _with_zone_name(text: str, form: str) -> int:
    """Reads a format with %Z, at its end or before further words: Python's own takes no notice of the zone."""
    words = len(form.partition("%Z")[2].split())
    text, *behind = text.rsplit(maxsplit=words) if words else [text]
    found = _NAMED.fullmatch(text)
    if found is None:
        raise ValueError(text)
    zone = _sure_zone(found)
    if zone is None:
        hours = _ZONE_HOURS.get(found["zone"])
        if hours is None:
            raise ValueError(text)
        zone = timezone(timedelta(hours=hours))
    moment = datetime.strptime(" ".join([found["bare"], *behind]), _without_zone(form))  # noqa: DTZ007
    return _milliseconds(moment, zone)


def _without_zone(form: str) -> str:
    return " ".join(form.replace("%Z", " ").split()) if "%Z" in form else form


def _sure_zone(found: re.Match[str]) -> tzinfo | None:
    """The zone that a match of `_NAMED` names, whatever the format says; None for an abbreviation.

    Raises:
        ValueError: there is none of that name, or none so far from UTC.
    """
    if found["iana"] is not None:
        return known_zone(found["iana"])
    if not found["zone"].startswith(("UTC", "GMT")):
        return None
    hours, minutes = int(found["hours"] or 0), int(found["minutes"] or 0)
    if hours > 14:  # no clock is further from UTC
        raise ValueError(found["zone"])
    ahead = timedelta(hours=hours, minutes=minutes)
    return timezone(ahead if found["sign"] == "+" else -ahead)


_DOTNET = re.compile(r"/Date\((-?\d+)(?:[+-]\d{4})?\)/", re.ASCII)
"""Milliseconds as .NET writes them in JSON; the zone behind them changes no moment."""


def _parse_auto(text: str, zone: tzinfo) -> int:
    if (dotnet := _DOTNET.fullmatch(text)) is not None:
        return int(dotnet[1])
    if _COMPACT_DATE.fullmatch(text) or _NUMBER.fullmatch(text) is None:
        return _parse_iso(text, zone)
    size = _float(text)
    # Seconds have passed 1e8 since 1973 and stay below 1e11 until the year 5138, and so on.
    for unit, limit in zip(PER_MILLISECOND, (1e11, 1e14, 1e17, 1e20), strict=True):
        if limit / 1_000 <= size < limit:
            return _from_number(text, PER_MILLISECOND[unit])
    raise ValueError(text)


def _parse_iso(text: str, zone: tzinfo) -> int:
    try:
        return _parse_usual_iso(text, zone)
    except ValueError:
        named = _NAMED.fullmatch(text)
        sure = None if named is None else _sure_zone(named)
        if named is not None and sure is not None:
            # An offset before the name says more: the hour may come twice in that zone.
            text, zone = named["bare"], sure
        mended = _mended(text)
        if mended is None:
            if sure is None:
                raise
            return _parse_usual_iso(text, zone)
        return _parse_usual_iso(mended[0], zone) + mended[1]


def _mended(text: str) -> tuple[str, int] | None:
    """A time without what ISO 8601 allows or programs add and Python does not read; and what it lacks now.

    A day ends at 24:00, and some minutes have a second 60: both are the moment after. A zone in brackets
    may have any name behind an offset, and a minus may be the sign of printers.
    """
    bare = _NAMED_ZONE.sub(r"\1", text).replace("\u2212", "-")
    if bare.endswith("z"):
        bare = bare[:-1] + "Z"
    found = _MOMENT_AFTER.fullmatch(bare)
    if found is not None:
        hours, rest = ("23", ":00") if found["midnight"] else (found["hours"], found["minutes"])
        milliseconds = 3_600_000 if found["midnight"] else 1_000
        seconds = ":00" if found["midnight"] else ":59"
        return f"{found['day']}{hours}{rest}{seconds}{found['zone']}", milliseconds
    return None if bare == text else (bare, 0)


_NAMED_ZONE = re.compile(r"([+\-\u2212]\d\d:?\d\d|[Zz])\[[^\[\]]+\]$")
_MOMENT_AFTER = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d[T ])"
    r"(?:(?P<midnight>24:00(?::00(?:[.,]0+)?)?)|(?P<hours>\d\d)(?P<minutes>:\d\d):60(?:[.,]0+)?)"
    r"(?P<zone>.*)",
    re.ASCII,
)


def _parse_usual_iso(text: str, zone: tzinfo) -> int:
    if text.endswith((" UTC", " GMT")):
        text = text[:-4].rstrip()
        if _LOOSE_OFFSET.fullmatch(text) is None or ":" not in text:
            text += "+00:00"
    elif _MONTH.fullmatch(text):
        text += "-01"
    if ":" in text and (loose := _LOOSE_OFFSET.fullmatch(text)) is not None:
        text = loose[1] + loose[2]
    return _milliseconds(datetime.fromisoformat(text), zone)


def _from_number(text: str, per_millisecond: float) -> int:
    if text.isascii() and text.isdecimal():
        whole = int(text)
        return whole * 1_000 if per_millisecond < 1 else whole // int(per_millisecond)
    return round(_float(text) / per_millisecond)


def _from_serial(text: str, zone: tzinfo, zero: datetime) -> int:
    """Days since Excel's beginning, to the millisecond that a cell shows."""
    days = _float(text.replace(",", ".", 1))
    return _milliseconds(zero + timedelta(milliseconds=round(days * 86_400_000)), zone)


def _float(text: str) -> float:
    if _NUMBER.fullmatch(text) is None or _CUT.fullmatch(text) is not None:
        raise ValueError(text)
    return float(text)


_CUT = re.compile(r"\d[.,]\d{1,5}[eE]\+\d\d", re.ASCII)
"""A number as Excel writes one of many digits: six of them are left, so the time would be hours off."""


def _milliseconds(moment: datetime, zone: tzinfo) -> int:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return (moment - _EPOCH) // _MILLISECOND
