"""Parses messages to columns with msgspec, and names the reason where one is no event.

Comes in: values of messages. Goes out: `Parsed`, columns of what they say; `decode` is next, and
decides what becomes of each. Good messages pay for one decode and a few list comprehensions; only
a block with a bad message in it is gone through one by one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from consumers import lookalikes
from consumers.fields import (
    UNWATCHED,
    Amounts,
    Fields,
    NoList,
    NoProduct,
    RefusedError,
    is_absent,
    shown,
    text_of_id,
)
from consumers.wrapped import BOM, Unwrapper
from stream.config import Money, Worker
from stream.events import (
    NO_PROPERTIES,
    Bools,
    Codes,
    Floats,
    Hashes,
    Ints,
    Mark,
    Product,
    Properties,
    Reason,
    Reviews,
    Track,
)
from stream.features import FeatureTable
from stream.hashing import hash_text, letters_of
from stream.placeholders import folded
from stream.reviews.words import words_of
from stream.times import EARLIEST_MS, LATEST_MS
from stream.units import iso

LONGEST_USER = 256
OTHER_TYPES = frozenset({b"identify", b"page", b"screen", b"group", b"alias"})


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
    rate: Floats
    currency: Codes
    reviews: Reviews | None = None


class _ReviewProperties(msgspec.Struct, gc=False):
    """What only reviews say, of any type."""

    review_id: Any = None
    review_body: Any = None
    rating: Any = None


class _Review(msgspec.Struct, gc=False):
    properties: _ReviewProperties | None = None


_NO_REVIEW = _ReviewProperties()
_BLANK = Track("", "2000-01-01T00:00:00.000Z")


class _CategoryHashes(dict[str, int]):
    """Hashes of the categories seen so far: a shop has few, and they come again and again.

    Long ones are no category, and are not kept: a stranger could fill the memory with them.
    """

    def __missing__(self, category: str) -> int:
        found = hash_text(category.encode()) if category else 0
        if len(category) <= 128:
            if len(self) > 100_000:
                self.clear()
            self[category] = found
        return found


_Found: TypeAlias = Track | Mark | tuple[Reason, str] | None


def _noted(place: int, found: _Found, odd: Odd) -> Track:
    """The track found; what is none is noted, and a blank stands in its place."""
    if isinstance(found, Track):
        return found
    if isinstance(found, Mark):
        odd.marks[place] = found
    elif found is None:
        odd.ignored.add(place)
    else:
        odd.refused[place] = found
    return _BLANK


class PlainParser:
    """Parses for one feature table.

    Attributes:
        fields: how fields are read.
        unwrap: takes messages out of what is around them, see `worker.unwrap`.
    """

    def __init__(
        self, table: FeatureTable, message_bytes: int, fields: Fields | None = None
    ) -> None:
        self.fields = fields or Fields(table, Worker(), Money())
        self._track = msgspec.json.Decoder(Track).decode
        self._any = msgspec.json.Decoder().decode
        self._code = self.fields.codes.__getitem__
        self._looked_at = self.fields.uses_value | self.fields.uses_order
        self._uses_review = self.fields.uses_review if self.fields.uses_review.any() else None
        self._review = msgspec.json.Decoder(_Review).decode
        self._category = _CategoryHashes().__getitem__
        self._bytes = message_bytes
        self.unwrap = Unwrapper(self.fields.unwrap, message_bytes)

    def parse(self, values: Sequence[Any]) -> Parsed:
        """Columns of messages, each bytes or None, in the order they come."""
        return self.parse_unwrapped(self.unwrap(values))

    def parse_unwrapped(self, values: Sequence[Any]) -> Parsed:
        """The same of messages that were taken out of what was around them."""
        return self._parse_tracks(values)[0]

    def parse_tracks(self, values: Sequence[Any]) -> tuple[Parsed, list[Track]]:
        """The same, and what each message says for itself; nothing where it is no track."""
        return self._parse_tracks(self.unwrap(values))

    def _parse_tracks(self, values: Sequence[Any]) -> tuple[Parsed, list[Track]]:
        odd = Odd({}, {}, set())
        tracks = self._tracks(values, odd)
        time = self._times(values, tracks, odd)
        count = len(tracks)
        kind = np.fromiter(map(self._code, [track.event for track in tracks]), np.uint8, count)
        users = self._users(values, tracks, kind, odd)
        bad_time = ((time < EARLIEST_MS) | (time >= LATEST_MS)) & (kind != UNWATCHED)
        if bad_time.any():
            known = odd.places
            for i in np.flatnonzero(bad_time).tolist():
                if i not in known:
                    odd.refused[i] = Reason.BAD_TIME, _why_no_time(tracks[i].timestamp)

        value, quantity = np.zeros(count), np.ones(count)
        order, whole = np.zeros(count, np.uint64), np.zeros(count, np.bool_)
        rate = np.full(count, self.fields.unnamed)
        currency = np.full(count, self.fields.usual_currency, np.uint32)
        properties = [track.properties or NO_PROPERTIES for track in tracks]
        looked_at = np.flatnonzero(self._looked_at[kind])
        if len(looked_at):
            orders, amounts = self._amounts(looked_at, kind, properties, odd)
            order[looked_at] = self.fields.ids(orders)
            columns: list[npt.NDArray[Any]] = [value, quantity, whole, rate, currency]
            for column, said in zip(columns, amounts, strict=True):
                column[looked_at] = said
        ids = self.fields.ids([track.messageId or "" for track in tracks])
        reviews = None if self._uses_review is None else self._reviews(values, kind, odd, ids)
        parsed = Parsed(
            users=users,
            odd=odd,
            kind=kind,
            time_ms=time,
            id=ids,
            value=value,
            quantity=quantity,
            category=self._categories([one.category for one in properties]),
            order=order,
            whole=whole,
            rate=rate,
            currency=currency,
            reviews=reviews,
        )
        return parsed, tracks

    @staticmethod
    def is_time(time_ms: int) -> bool:
        """Whether an event can have this time."""
        return EARLIEST_MS <= time_ms < LATEST_MS

    def _times(self, values: Sequence[Any], tracks: list[Track], odd: Odd) -> Ints:
        """When each message says that it happened; -1 if it says no time."""
        time = parse_times([track.timestamp for track in tracks])
        for place in np.flatnonzero(time < 0).tolist():
            if is_absent(tracks[place].timestamp):
                # Blank is not there: another field may say the time.
                found = self._judge_slowly(values[place])
                tracks[place] = _noted(place, found, odd)
                time[place] = parse_time(tracks[place].timestamp)
        return time

    def _users(
        self,
        values: Sequence[Any],
        tracks: list[Track],
        kind: npt.NDArray[np.uint8],
        odd: Odd,
    ) -> list[str]:
        """The user of each message; who has none is refused if the event is watched."""
        users: list[Any] = [track.userId for track in tracks]
        different = set(users)
        if (
            None not in different
            and max(map(len, different)) <= LONGEST_USER // 4
            and not self.fields.placeholders.may_be_among(different)
        ):
            return users
        known = odd.places
        for place, (user, track) in enumerate(zip(users, tracks, strict=True)):
            if user and not self._is_unfit(user):
                continue
            found, refused = self._user_of(track)
            users[place] = found
            if refused is not None and place not in known and kind[place] != UNWATCHED:
                if refused[0] is Reason.NO_USER:
                    parsed = self._parse(values[place].removeprefix(BOM))
                    refused = Reason.NO_USER, lookalikes.no_user(parsed)
                odd.refused[place] = refused
        return users

    def _is_unfit(self, user: str) -> bool:
        return user in self.fields.placeholders or len(user) > LONGEST_USER // 4

    def _user_of(self, track: Track) -> tuple[str, tuple[Reason, str] | None]:
        """Whom a message is counted for, or why for nobody."""
        named = [user for user in (track.userId, track.anonymousId) if user is not None]
        for user in named:
            if user not in self.fields.placeholders:
                if len(user) > LONGEST_USER // 4 and len(user.encode()) > LONGEST_USER:
                    return "", (Reason.OUT_OF_RANGE, f"a user of over {LONGEST_USER} bytes")
                return user, None
        for user in named:
            if not is_absent(user):
                return "", (Reason.PLACEHOLDER_USER, f"the user is {shown(user)}, which is none")
        return "", (Reason.NO_USER, lookalikes.no_user(None))

    def _amounts(
        self,
        places: Ints,
        kind: npt.NDArray[np.uint8],
        properties: list[Properties],
        odd: Odd,
    ) -> tuple[list[str], Iterable[Sequence[float]]]:
        """The order of events, and what they are worth: the columns of `Amounts`.

        Args:
            places: of the events that are looked at, one at least.
            kind: of all.
            properties: of all.
            odd: takes those that are refused.
        """
        fields, known = self.fields, odd.places
        uses_order, uses_value, takes_back = (
            mask[kind[places]].tolist()
            for mask in (fields.uses_order, fields.uses_value, fields.takes_back)
        )
        orders: list[str] = []
        found: list[Amounts] = []
        nothing = fields.no_amounts(whole=False)
        for at, (place, code) in enumerate(
            zip(places.tolist(), kind[places].tolist(), strict=True)
        ):
            said = properties[place]
            orders.append(fields.order(said) if uses_order[at] else "")
            amounts = nothing
            if uses_value[at]:
                try:
                    amounts = fields.amounts(code, said)
                except RefusedError as refused:
                    if place not in known:
                        odd.refused[place] = refused.reason, refused.detail
            elif takes_back[at] and fields.says_no_amount(code, said):
                amounts = fields.no_amounts(whole=True)
            found.append(amounts)
        return orders, zip(*found, strict=True)

    def _reviews(
        self, values: Sequence[Any], kind: npt.NDArray[np.uint8], odd: Odd, ids: Hashes
    ) -> Reviews | None:
        """What reviews say; the ids of those that have one are put in place of their messages'."""
        assert self._uses_review is not None
        places: list[int] = []
        ratings: list[float] = []
        words: list[Ints] = []
        for place in np.flatnonzero(self._uses_review[kind]).tolist():
            if place in odd.refused:
                continue
            said = self._review_of(values[place])
            try:
                rating = self.fields.rating(said.rating)
            except RefusedError as refused:
                odd.refused[place] = refused.reason, refused.detail
                continue
            ids[place] = self.fields.review_id(said.review_id) or ids[place]
            text = said.review_body if isinstance(said.review_body, str) else ""
            places.append(place)
            ratings.append(rating)
            words.append(np.array(words_of(text), np.int64))
        return Reviews.of(np.array(places, np.int64), np.array(ratings), words)

    def _review_of(self, value: bytes) -> _ReviewProperties:
        """A second look at a message: what only reviews say is no burden to the others."""
        try:
            value.decode()
            return self._review(value).properties or _NO_REVIEW
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            parsed = self._parse(value.removeprefix(BOM))
            said = parsed.get("properties") if isinstance(parsed, dict) else None
            if not isinstance(said, dict):
                return _NO_REVIEW
            return _ReviewProperties(*(said.get(n) for n in _ReviewProperties.__struct_fields__))

    def _categories(self, raw: list[Any]) -> Hashes:
        """Hashes of categories, 0 where there is none."""
        texts = [one if type(one) is str else text_of_id(one) or "" for one in raw]
        return np.fromiter(map(self._category, texts), np.uint64, len(raw))

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

    def event_of(self, value: bytes) -> str:
        """The name of the event of a message that can be read."""
        return self.parse_tracks([value])[1][0].event

    def why_ignored(self, value: bytes) -> str:
        """Why a message of another type may be an event all the same; empty if it looks like none."""
        parsed = self._parse(self.unwrap([value])[0].removeprefix(BOM))
        if not isinstance(parsed, dict) or parsed.get("event") is not None:
            return ""
        return lookalikes.wrapped(parsed)

    # -- the slow way, for blocks with something odd in them ----------------------------------

    def _one_by_one(self, values: Sequence[bytes | None], odd: Odd) -> list[Track]:
        return [_noted(place, self._judge(value), odd) for place, value in enumerate(values)]

    def _judge(self, value: bytes | None) -> _Found:
        """A track or a mark, a reason to refuse with details, or None for what is ignored."""
        if not value:
            return Reason.EMPTY, "no value"
        if len(value) > self._bytes:
            return Reason.TOO_LARGE, f"{len(value)} bytes, {self._bytes} are allowed"
        try:
            value.decode()
            return self._track(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self._judge_slowly(value)

    def _judge_slowly(self, value: bytes) -> _Found:
        """The same, of a message whose fields may hold anything."""
        value = value.removeprefix(BOM)
        if not value:
            return Reason.EMPTY, "nothing behind a byte order mark"
        parsed = self._parse(value)
        if not isinstance(parsed, dict):
            return parsed
        kind = parsed.get("type")
        if kind == "segstream-mark":
            return _mark_of(parsed)
        name = folded(kind) if isinstance(kind, str) else b""
        # Of other types, RudderStack's `merge` for one, nothing counts that names no event.
        if name in OTHER_TYPES or (name not in (b"", b"track") and parsed.get("event") is None):
            return None
        return self._track_of(parsed)

    def _track_of(self, parsed: dict[str, Any]) -> Track | tuple[Reason, str]:
        """The same as msgspec makes of a usual message, of whatever stands in the fields.

        Nothing is refused for what nobody reads: not of an event that nobody watches either.
        """
        event = parsed.get("event")
        if event is None:
            return Reason.MISSING_FIELD, lookalikes.no_event(parsed)
        if not isinstance(event, str):
            return Reason.WRONG_TYPE, f"event is {shown(event)}, and no text"
        times = (parsed.get(name) for name in TIME_FIELDS)
        timestamp = next((time for time in times if not is_absent(time)), None)
        track = Track(
            _spelt_out(event),
            timestamp if isinstance(timestamp, str) else "",
            text_of_id(parsed.get("userId")),
            text_of_id(parsed.get("anonymousId")),
            _spelt_out(text_of_id(parsed.get("messageId")) or ""),
            _properties_of(parsed.get("properties")),
        )
        code = self._code(track.event)
        problem = self._problem(code, parsed, timestamp, track)
        if problem is not None and code != UNWATCHED:
            return problem
        if not (_is_text(track.userId) and _is_text(track.anonymousId)):
            user = self._user_of(track)[0]
            track.userId, track.anonymousId = user if _is_text(user) else None, None
        return track

    def _problem(
        self, code: int, parsed: dict[str, Any], timestamp: Any, track: Track
    ) -> tuple[Reason, str] | None:
        """Why a message cannot be counted, of what a usual message never has."""
        user, refused = self._user_of(track)
        if refused is not None:
            for name in ("userId", "anonymousId"):
                raw = parsed.get(name)
                if refused[0] in _NOBODY and raw is not None and text_of_id(raw) is None:
                    return Reason.WRONG_TYPE, f"{name} is {shown(raw)}, and no text"
            if refused[0] is Reason.NO_USER:
                return Reason.NO_USER, lookalikes.no_user(parsed)
            return refused
        if not _is_text(user):
            return Reason.NOT_JSON, f"the user {shown(user)} has half a character: that is no text"
        if timestamp is None:
            return Reason.MISSING_FIELD, lookalikes.no_time(parsed, ", ".join(TIME_FIELDS))
        if not isinstance(timestamp, str):
            return Reason.WRONG_TYPE, f"the time is {shown(timestamp)}, and no text in ISO 8601"
        if not EARLIEST_MS <= parse_time(timestamp) < LATEST_MS:
            return Reason.BAD_TIME, _why_no_time(timestamp)
        properties = parsed.get("properties")
        if isinstance(properties, dict | None) or properties == []:
            return None
        if self.fields.uses_review[code]:
            return Reason.WRONG_TYPE, "properties of a review that are no object"
        if self._looked_at[code]:
            return Reason.WRONG_TYPE, f"properties are {shown(properties)}, and no object"
        return None

    def _parse(self, value: bytes) -> dict[str, Any] | tuple[Reason, str]:
        """The object in a message, or why there is none."""
        try:
            text = value.decode()
        except UnicodeDecodeError as error:
            # A cut through a character is a cut if the text before it was going on.
            before = self._parse(value[: error.start]) if "end of data" in error.reason else None
            cut = isinstance(before, tuple) and before[0] is Reason.TRUNCATED
            return (Reason.TRUNCATED if cut else Reason.NOT_JSON), _written_as(value) or str(error)
        try:
            parsed = self._any(value)
        except (msgspec.MsgspecError, RecursionError) as error:
            try:
                # It takes numbers that no computer holds, and halves of characters, which may
                # stand where nobody reads. As text: of bytes it would guess the encoding.
                parsed = json.loads(text, parse_int=_integer, parse_constant=_no_constant)
            except (ValueError, RecursionError) as not_json:
                if any(found[1] for found in _HALVES.finditer(value)):
                    # Of which msgspec says that the text ends too early.
                    return Reason.NOT_JSON, str(not_json)
                cut = "truncated" in str(error)
                return (Reason.TRUNCATED if cut else Reason.NOT_JSON), _written_as(value) or str(
                    error
                )
        if not isinstance(parsed, dict):
            return Reason.WRONG_TYPE, _why_no_object(parsed)
        return parsed


def _why_no_object(parsed: Any) -> str:
    if isinstance(parsed, list):
        return f"the message is a list of {len(parsed)}: each must be a message of its own"
    if isinstance(parsed, str) and parsed.lstrip()[:1] == "{":
        return "the message is a text with an object in it: it was made JSON twice"
    return "the message is no object"


_OTHER_FORMATS = (
    (b"\x1f\x8b", "gzip: Kafka compresses by itself, with compression.type"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
    (b"\0\0", "no JSON, but as with a schema registry (Avro, Protobuf)"),
)


def _written_as(value: bytes) -> str | None:
    """What a message that is no JSON begins like; None for nothing that is known."""
    known = (name for start, name in _OTHER_FORMATS if value.startswith(start))
    name = next(known, None)
    return None if name is None else f"the message is {name}"


_NOBODY = frozenset({Reason.NO_USER, Reason.PLACEHOLDER_USER})
TIME_FIELDS = ("timestamp", "originalTimestamp", "sentAt", "receivedAt")
"""Where the time stands, the best first: Segment has put the clock of the device right in the first."""


def _mark_of(parsed: dict[str, Any]) -> Mark:
    """What a mark says; a field that is no text is empty, and then no signature fits."""
    fields = [parsed.get(name) for name in ("timestamp", "sentAt", "signature")]
    return Mark(*(field if isinstance(field, str) and _is_text(field) else "" for field in fields))


_HALVES = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]|(\\u[dD][89a-fA-F])|\\.", re.DOTALL)
"""Escapes of JSON; the group has half a character without its other half."""


def _no_constant(name: str) -> None:
    """NaN and Infinity, which Python reads and JSON does not know."""
    raise ValueError(f"{name} is no JSON")


def _integer(text: str) -> int | float:
    """A whole number; one that no float holds is infinite, however long Python would take."""
    return int(text) if len(text) <= 400 else float(text)


def _is_text(text: str | None) -> bool:
    """Whether a text can be written: Python reads half a character, and no encoding has it."""
    if text is None:
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _spelt_out(text: str) -> str:
    """A text whose half characters, if any, are read as the letters of their escapes."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _properties_of(raw: Any) -> Properties | None:
    """Properties of whatever types; nothing that is no object has any."""
    if not isinstance(raw, dict):
        return None
    found = {name: raw[name] for name in Properties.__struct_fields__ if name in raw}
    for name, value in found.items():
        if isinstance(value, str):
            found[name] = _spelt_out(value)
    products = found.get("products")
    if isinstance(products, list):
        found["products"] = [_product_of(line) for line in products]
    else:
        # An empty object is what PHP makes of an empty list.
        none = is_absent(products) or products == {}
        found["products"] = None if none else [Product(NoList(products))]
    return Properties(**found)


def _product_of(line: Any) -> Product:
    if isinstance(line, dict):
        return Product(line.get("price"), line.get("quantity"), line.get("currency"))
    return Product(NoProduct(line)) if NoProduct.is_one(line) else Product()


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


_ISO_8601 = re.compile(
    r"\s*(\d{4})(-?)(\d\d)\2(\d\d)[Tt ](\d\d)(:?)(\d\d)(?:\6(\d\d)(?:[.,](\d+))?)?"
    r" ?(?:[Zz]|UTC|GMT|([+\-\u2212])(\d\d)(?::?([0-5]\d))?(?: [A-Z]{2,5})?)(?:\[[^\[\]]+\])?\s*",
    re.ASCII,
)
"""RFC 3339, and the ISO 8601 that libraries write besides: ``+0000`` (Swift, Android), ``+00``
(databases), ``20261121T090000Z`` (the basic form), a decimal comma, no seconds and a zone's name in
brackets (Java), a blank before the zone (Ruby), a zone's name behind it (Go). A time without a zone
is none: nobody knows on whose clock, and Segment's libraries write none."""


def parse_time(text: str) -> int:
    """What `parse_times` says of one text."""
    match = _ISO_8601.fullmatch(text)
    if match is None:
        return -1
    year, _, month, day, hour, _, minute, second, fraction, sign, *offset = match.groups()
    hours_off, minutes_off = (int(digits or 0) for digits in offset)
    clock = int(hour) * 3_600 + int(minute) * 60 + int(second or 0)
    # A day ends at 24:00, and some minutes have a second 60: both are the moment after.
    if int(minute) > 59 or int(second or 0) > 60 or clock > 86_400 or hours_off > 23:
        return -1
    try:
        days = datetime(int(year), int(month), int(day), tzinfo=UTC) - _EPOCH
    except ValueError:
        return -1
    east = hours_off * 3_600 + minutes_off * 60
    seconds = days.days * 86_400 + clock - (east if sign == "+" else -east)
    return max(seconds * 1_000 + int(f"{fraction or ''}000"[:3]), -1)


def _why_no_time(text: str) -> str:
    """What is wrong with a text that is no time of an event."""
    said = f"timestamp {shown(text)}"
    if _ISO_8601.fullmatch(text):
        return f"{said} is no day and hour from {iso(EARLIEST_MS)[:4]} to {iso(LATEST_MS - 1)[:4]}"
    if _ISO_8601.fullmatch(f"{text.strip()}Z"):
        return f"{said} names no zone, such as Z or +01:00: nobody knows on whose clock it was"
    return f"{said} is no time in ISO 8601, such as {iso(EARLIEST_MS)}"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
