"""Parses messages to columns with msgspec, and names the reason where one is no event.

Comes in: values of messages. Goes out: `Parsed`, columns of what they say; `decode` is next, and
decides what becomes of each. Good messages pay for one decode and a few list comprehensions; only
a block with a bad message in it is gone through one by one.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from stream.events import Bools, Floats, Hashes, Ints, Mark, Properties, Reason, Track
from stream.features import FeatureTable
from stream.hashing import hash_text, hash_texts, letters_of
from stream.times import EARLIEST_MS, LATEST_MS

LARGEST_NUMBER = 1e12
LONGEST_USER = 256
UNWATCHED = 255
"""Code of an event that no feature watches."""
OTHER_TYPES = frozenset({"identify", "page", "screen", "group", "alias"})


class Odd(NamedTuple):
    """Messages that are no events, by place.

    Attributes:
        refused: reason and details.
        marks: what says that it is a mark, genuine or not.
    """

    refused: dict[int, tuple[Reason, str]]
    marks: dict[int, Mark]
    ignored: set[int]

    @property
    def places(self) -> set[int]:
        return self.refused.keys() | self.marks.keys() | self.ignored

    def moved(self, places: Sequence[int]) -> Odd:
        """The same, each at the place that stands at its own."""
        return Odd(
            {places[at]: refused for at, refused in self.refused.items()},
            {places[at]: mark for at, mark in self.marks.items()},
            {places[at] for at in self.ignored},
        )


class Parsed(NamedTuple):
    """What messages say, an entry a message; the columns mean nothing where one is odd."""

    users: list[str]
    odd: Odd
    kind: npt.NDArray[np.uint8]
    time_ms: Ints
    id: Hashes
    value: Floats
    quantity: Floats
    category: Hashes
    order: Hashes
    whole: Bools


_BLANK = Track("", "-", "-", "2000-01-01T00:00:00.000Z")


class _Codes(dict[str, int]):
    """Codes of the watched events; any other is not watched."""

    def __missing__(self, event: str) -> int:
        return UNWATCHED


class _CategoryHashes(dict[str | None, int]):
    """Hashes of the categories seen so far: a shop has few, and they come again and again.

    Long ones are no category, and are not kept: a stranger could fill the memory with them.
    """

    def __missing__(self, category: str | None) -> int:
        found = hash_text(category.encode()) if category else 0
        if category is None or len(category) <= 128:
            if len(self) > 100_000:
                self.clear()
            self[category] = found
        return found


class PlainParser:
    """Parses for one feature table."""

    def __init__(self, table: FeatureTable, message_bytes: int) -> None:
        self._track = msgspec.json.Decoder(Track).decode
        self._any = msgspec.json.Decoder().decode
        self._code = _Codes(table.codes).__getitem__
        self._uses_value = table.uses_value
        self._category = _CategoryHashes().__getitem__
        self._bytes = message_bytes

    def parse(self, values: Sequence[Any]) -> Parsed:
        """Columns of messages, each bytes or None, in the order they come."""
        odd = Odd({}, {}, set())
        tracks = self._tracks(values, odd)
        count = len(tracks)
        users = [track.userId for track in tracks]
        if not all(users) or max(map(len, users)) > LONGEST_USER // 4:
            _refuse_bad_users(users, odd)
        properties = [track.properties for track in tracks]
        kind = np.fromiter(map(self._code, [track.event for track in tracks]), np.uint8, count)
        time = parse_times([track.timestamp for track in tracks])
        value, quantity = np.zeros(count), np.ones(count)
        for i in np.flatnonzero(self._uses_value[kind]).tolist():
            value[i], quantity[i] = amounts(properties[i])

        bad_time = (time < EARLIEST_MS) | (time >= LATEST_MS)
        out_of_range = ~(np.abs(value) <= LARGEST_NUMBER) | ~(np.abs(quantity) <= LARGEST_NUMBER)
        known = odd.places
        for i in np.flatnonzero(bad_time | out_of_range).tolist():
            if i in known:
                continue
            if bad_time[i]:
                odd.refused[i] = Reason.BAD_TIME, f"timestamp {tracks[i].timestamp!r}"
            else:
                odd.refused[i] = Reason.OUT_OF_RANGE, "value or quantity"
        categories = map(self._category, [p.category for p in properties])
        return Parsed(
            users=users,
            odd=odd,
            kind=kind,
            time_ms=time,
            id=hash_texts([track.messageId for track in tracks]),
            value=value,
            quantity=quantity,
            category=np.fromiter(categories, np.uint64, count),
            order=np.zeros(count, np.uint64),
            whole=np.zeros(count, np.bool_),
        )

    def _tracks(self, values: Sequence[Any], odd: Odd) -> list[Track]:
        """A track for each message; what is none is noted, and a blank stands in its place."""
        try:
            if max(map(len, values)) > self._bytes:
                raise ValueError
            # msgspec skips fields that are not declared without looking at their encoding.
            together = b"".join(values)
            if not together.isascii():
                together.decode()
            return list(map(self._track, values))
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
            return self._one_by_one(values, odd)

    # -- the slow way, for blocks with something odd in them ----------------------------------

    def _one_by_one(self, values: Sequence[bytes | None], odd: Odd) -> list[Track]:
        tracks: list[Track] = []
        for place, value in enumerate(values):
            found = self._judge(value)
            if isinstance(found, Track):
                tracks.append(found)
                continue
            tracks.append(_BLANK)
            if isinstance(found, Mark):
                odd.marks[place] = found
            elif found is None:
                odd.ignored.add(place)
            else:
                odd.refused[place] = found
        return tracks

    def _judge(self, value: bytes | None) -> Track | Mark | tuple[Reason, str] | None:
        """A track or a mark, a reason to refuse with details, or None for what is ignored."""
        if not value:
            return Reason.EMPTY, "no value"
        if len(value) > self._bytes:
            return Reason.TOO_LARGE, f"{len(value)} bytes, {self._bytes} are allowed"
        try:
            value.decode()
            return self._track(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        parsed = self._parse(value)
        if not isinstance(parsed, dict):
            return parsed
        kind = parsed.get("type")
        if kind == "segstream-mark":
            return _mark_of(parsed)
        if isinstance(kind, str) and kind in OTHER_TYPES:
            return None
        parsed["type"] = "track"
        if parsed.get("userId") is None and isinstance(parsed.get("anonymousId"), str):
            parsed["userId"] = parsed["anonymousId"]
        elif parsed.get("userId") is None:
            parsed["userId"] = ""
        if isinstance(properties := parsed.get("properties"), dict):
            _make_huge_numbers_infinite(properties)
        try:
            track = msgspec.convert(parsed, Track)
        except msgspec.ValidationError as error:
            problem = str(error)
            reason = Reason.MISSING_FIELD if "missing required" in problem else Reason.WRONG_TYPE
            return reason, problem
        if track.userId and parse_time(track.timestamp) >= EARLIEST_MS and _infinite(track):
            return Reason.OUT_OF_RANGE, "a number that no computer holds"
        return track

    def _parse(self, value: bytes) -> dict[str, Any] | tuple[Reason, str]:
        """The object in a message, or why there is none."""
        try:
            value.decode()
        except UnicodeDecodeError as error:
            # A cut through a character is a cut if the text before it was going on.
            before = self._parse(value[: error.start]) if "end of data" in error.reason else None
            cut = isinstance(before, tuple) and before[0] is Reason.TRUNCATED
            return (Reason.TRUNCATED if cut else Reason.NOT_JSON), str(error)
        try:
            parsed = self._any(value)
        except (msgspec.MsgspecError, RecursionError) as error:
            if "out of range" not in str(error):
                reason = Reason.TRUNCATED if "truncated" in str(error) else Reason.NOT_JSON
                return reason, str(error)
            try:
                # As text: of bytes it would guess the encoding.
                text = value.decode()
                parsed = json.loads(text, parse_int=float, parse_constant=_no_constant)
                # It lets halves of characters pass, which nobody can encode again.
                if any(found[1] for found in _HALVES.finditer(value)):
                    return Reason.NOT_JSON, "half a character"
            except (ValueError, RecursionError) as not_json:
                return Reason.NOT_JSON, str(not_json)
        if not isinstance(parsed, dict):
            return Reason.WRONG_TYPE, "the message is no object"
        return parsed


def _mark_of(parsed: dict[str, Any]) -> Mark:
    """What a mark says; a field that is no text is empty, and then no signature fits."""
    fields = [parsed.get(name) for name in ("timestamp", "sentAt", "signature")]
    return Mark(*(field if isinstance(field, str) else "" for field in fields))


_HALVES = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]|(\\u[dD][89a-fA-F])|\\.", re.DOTALL)
"""Escapes of valid JSON; the group has half a character without its other half."""


def _no_constant(name: str) -> None:
    """NaN and Infinity, which Python reads and JSON does not know."""
    raise ValueError(f"{name} is no JSON")


def _refuse_bad_users(users: list[str], odd: Odd) -> None:
    known = odd.places
    for place, user in enumerate(users):
        if place in known:
            continue
        if not user:
            odd.refused[place] = Reason.NO_USER, "neither userId nor anonymousId"
        elif len(user.encode()) > LONGEST_USER:
            odd.refused[place] = Reason.OUT_OF_RANGE, "userId is too long"


def amounts(properties: Properties) -> tuple[float, float]:
    """Value and quantity of an event; NaN for what is not a finite number."""
    quantity = 1.0 if properties.quantity is None else properties.quantity
    for value in (properties.revenue, properties.total, properties.value):
        if value is not None:
            return _finite(value), _finite(quantity)
    if properties.price is not None:
        return _finite(properties.price * quantity), _finite(quantity)
    return 0.0, _finite(quantity)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan


_SIGNS = tuple(zip((4, 7, 10, 13, 16, 19, 23), b"--T::.Z", strict=True))
_ZERO = ord("0")


def parse_times(texts: list[str]) -> Ints:
    """Milliseconds since 1970 of RFC 3339 texts; -1 for what is none.

    The form that browsers and Segment's libraries write, ``2026-11-21T09:00:00.000Z``, is
    parsed in columns; any other goes through `datetime`.
    """
    if not texts:
        return np.empty(0, np.int64)
    raw = letters_of(texts)
    if raw is None or raw.shape[1] < 24:
        return np.array([parse_time(text) for text in texts], dtype=np.int64)
    letters = np.ascontiguousarray(raw.T)
    plain = np.ones(len(texts), np.bool_) if len(letters) == 24 else ~letters[24:].any(axis=0)
    for place, sign in _SIGNS:
        plain &= letters[place] == sign
    if (letters[:10] == letters[:10, :1]).all():
        day_ms: Ints | int = _day(texts[0][:10])
        plain &= day_ms >= 0
    else:
        day_ms, valid = _days(letters[:10])
        plain &= valid
    digits = letters[_CLOCK] - _ZERO
    plain &= digits.max(axis=0) <= 9
    clock = digits.astype(np.int32)
    hour, minute = clock[0] * 10 + clock[1], clock[2] * 10 + clock[3]
    second = clock[4] * 10 + clock[5]
    plain &= (hour < 24) & (minute < 60) & (second < 60)
    within = (hour * 60 + minute) * 60_000 + second * 1_000
    within += clock[6] * 100 + clock[7] * 10 + clock[8]
    times: Ints = day_ms + within.astype(np.int64)
    if not plain.all():
        for i in np.flatnonzero(~plain).tolist():
            times[i] = parse_time(texts[i])
    return times


_CLOCK = np.array([11, 12, 14, 15, 17, 18, 20, 21, 22])


@lru_cache(maxsize=1_000)
def _day(text: str) -> int:
    """Milliseconds at the start of ``2026-11-21``; -1 if that is no day from 1970 on."""
    return max(parse_time(f"{text}T00:00:00.000Z"), -1)


def _days(letters: npt.NDArray[np.uint8]) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Milliseconds at the start of ``2026-11-21``, and whether that is a day from 1970 on.

    Days from civil date: Hinnant, "chrono-compatible low-level date algorithms".
    """
    digits = letters[[0, 1, 2, 3, 5, 6, 8, 9]] - _ZERO
    valid = digits.max(axis=0) <= 9
    d = digits.astype(np.int64)
    year = d[0] * 1_000 + d[1] * 100 + d[2] * 10 + d[3]
    month, day = d[4] * 10 + d[5], d[6] * 10 + d[7]
    shifted = year - (month <= 2)
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * (month + np.where(month > 2, -3, 9)) + 2) // 5 + day - 1
    days = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    length = _MONTH_DAYS[np.minimum(month, 12)] + (leap & (month == 2))
    valid &= (month >= 1) & (month <= 12) & (day >= 1) & (day <= length) & (year >= 1970)
    return days * 86_400_000, valid


_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_time(text: str) -> int:
    """What `parse_times` says of one text."""
    if _RFC_3339.fullmatch(text) is None:
        return -1
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        return -1
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return max((since.days * 86_400 + since.seconds) * 1_000 + since.microseconds // 1_000, -1)


_NUMBERS = ("quantity", "price", "revenue", "total", "value")


def _make_huge_numbers_infinite(properties: dict[str, Any]) -> None:
    """To msgspec, a whole number that no float holds is of the wrong type."""
    for name in _NUMBERS:
        number = properties.get(name)
        if isinstance(number, int) and abs(number) > sys.float_info.max:
            properties[name] = math.inf


def _infinite(track: Track) -> bool:
    numbers = [getattr(track.properties, name) for name in _NUMBERS]
    return any(number is not None and not math.isfinite(number) for number in numbers)
