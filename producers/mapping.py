"""Turns rows of any table into `track` messages, by a declaration in TOML.

Comes in: a mapping (shipped, or a stranger's file) and rows of text. Goes out: an `Event`, or a
`Refusal` that says why not; `files` brings events into the order of their times, `replay` sends
them. Nothing here knows what kind of file, or whether it is a file, that a row comes from.
"""

from __future__ import annotations

import math
import operator
import re
import tomllib
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache, partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from stream.times import EARLIEST_MS, LATEST_MS

ORDER_COMPLETED = "Order Completed"
ORDER_REFUNDED = "Order Refunded"
PURCHASES = (ORDER_COMPLETED, ORDER_REFUNDED)

# Reasons of our own; a mapping's rules may name further ones.
UNREADABLE = "unreadable"
NO_USER = "no_user"
BAD_USER = "bad_user"
NO_EVENT = "no_event"
BAD_TIME = "bad_time"
BAD_NUMBER = "bad_number"
IGNORED_EVENT = "ignored_event"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_PER_MILLISECOND = {"seconds": 0.001, "milliseconds": 1, "microseconds": 1_000}

# What a worker would refuse is better refused here, where row and column are known.
_LARGEST_NUMBER = 1e12
_LONGEST_USER = 256


def topic_of(event: str) -> int:
    """Place in `config.Topics.inputs` of the topic an event goes to."""
    return 1 if event in PURCHASES else 0


class MappingError(Exception):
    """A mapping that cannot be used; the message names file, key and expectation."""


class Event(NamedTuple):
    """What a row says. Rows of one order are still apart, see `files.EventSorter`."""

    time_ms: int
    row: int
    user: str
    event: str
    order: str | None
    id: str | None
    category: str | None
    session: str | None
    quantity: float | None
    price: float | None
    amount: float | None


class Refusal(NamedTuple):
    """A row that becomes no event: its number from 1, why, and the columns the mapping reads."""

    row: int
    reason: str
    why: str
    columns: dict[str, str | None]


# -- the declaration ---------------------------------------------------------------------------


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _as_table(key: str) -> BeforeValidator:
    """A bare text or list stands for a table with this one key."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str | list) else value)


def _as_text(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number else value


Columns = Annotated[tuple[str, ...], BeforeValidator(_several)]
"""A column, or several of which the first that is filled counts."""
_Required = Annotated[Columns, Field(min_length=1)]
_Text = Annotated[str, BeforeValidator(_as_text)]


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Time(_Declared):
    """Where the time stands and how it is written."""

    column: _Required
    format: str = Field(
        "auto",
        description=(
            "auto (ISO 8601 to any granularity, or a number since 1970 whose size tells its unit), "
            "iso, seconds, milliseconds, microseconds, or a strptime format such as %d.%m.%Y %H:%M"
        ),
    )
    zone: str = Field("UTC", description="IANA zone of times that name none")

    @field_validator("format")
    @classmethod
    def _is_a_format(cls, value: str) -> str:
        if value in ("auto", "iso", *_PER_MILLISECOND):
            return value
        moment = datetime(2001, 12, 31, 23, 59, 58, tzinfo=UTC)
        try:
            if "%" not in value:
                raise ValueError
            datetime.strptime(moment.strftime(value), value)  # noqa: DTZ007 - only tried out
        except ValueError:
            raise ValueError(
                "expected auto, iso, seconds, milliseconds, microseconds, "
                "or a strptime format such as %d.%m.%Y %H:%M"
            ) from None
        return value

    @field_validator("zone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (LookupError, ValueError, OSError):
            raise ValueError("expected an IANA time zone such as Europe/London") from None
        return value


class EventName(_Declared):
    """What a row means: always the same, or what a column says."""

    constant: str | None = Field(None, min_length=1)
    column: Columns = ()
    values: dict[str, str] | None = Field(
        None, description="value of the column to event name; other values are ignored_event"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> EventName:
        if (self.constant is None) == (not self.column):
            raise ValueError('expected an event name, or { column = "...", values = { ... } }')
        if self.values is not None and not self.column:
            raise ValueError("values need a column to look at")
        return self


class Rule(_Declared):
    """If a column looks like this (every test that is given), the row is that event, or refused."""

    column: _Required
    equals: _Text | None = None
    not_equals: _Text | None = None
    one_of: tuple[_Text, ...] | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    matches: str | None = Field(None, description="regular expression for the whole value")
    less_than: float | None = None
    more_than: float | None = None
    empty: bool | None = None
    event: str | None = Field(None, min_length=1)
    reject: str | None = Field(None, pattern=r"^[a-z][a-z0-9_]*$", description="a reason")

    @field_validator("matches")
    @classmethod
    def _is_an_expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"expected a regular expression ({error})") from None
        return value

    @model_validator(mode="after")
    def _is_complete(self) -> Rule:
        if (self.event is None) == (self.reject is None):
            raise ValueError('expected either event = "..." or reject = "a_reason"')
        tests = self.model_dump(exclude={"column", "event", "reject"}, exclude_none=True)
        if not tests:
            raise ValueError(
                "expected a test: equals, not_equals, one_of, starts_with, ends_with, matches, "
                "less_than, more_than or empty"
            )
        return self


class Mapping(_Declared):
    """How rows of one kind of table become events."""

    name: str = ""
    description: str = ""
    user: _Required = Field(description="who acted")
    time: Annotated[Time, _as_table("column")] = Field(description="when")
    event: Annotated[EventName, _as_table("constant")] = Field(description="what happened")
    rules: tuple[Rule, ...] = Field(
        (), description="asked before `event`; the first rule that holds decides"
    )
    order: Columns = Field(
        (), description="order number: rows of one user, order and event are one event, summed"
    )
    amount: Columns = Field((), description="what it is worth; orders: else price x quantity")
    price: Columns = Field((), description="price of one piece")
    quantity: Columns = Field((), description="pieces; an order without it has 1")
    category: Columns = ()
    session: Columns = ()
    message_id: Columns = Field((), description="else made of file name, row and time")
    decimal: Literal[".", ","] = Field(".", description="decimal sign; with ',' dots are skipped")
    optional: tuple[str, ...] = Field((), description="columns that a file may lack")
    encoding: Literal["utf-8", "latin-1", "utf-16"] = Field("utf-8", description="of CSV")
    delimiter: str | None = Field(None, min_length=1, description="of CSV; else found out")

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column the mapping looks at, each once."""
        return tuple(dict.fromkeys(name for _, names in self._places() for name in names))

    def check(self, available: Collection[str]) -> None:
        """Whether a table has what the mapping needs.

        Raises:
            MappingError: of some key, every column is missing; names it and what there is.
        """
        for key, names in self._places():
            known = [name for name in names if name in available or name in self.optional]
            if names and not known:
                close = get_close_matches(names[0], list(available), 1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise MappingError(
                    f"mapping {self.name}: {key}: the file has no column {names[0]!r}{hint}; "
                    f"it has {', '.join(sorted(available)) or 'none'}"
                )

    def _places(self) -> list[tuple[str, Columns]]:
        return [
            ("user", self.user),
            ("time.column", self.time.column),
            ("event.column", self.event.column),
            *((f"rules.{n}.column", rule.column) for n, rule in enumerate(self.rules, 1)),
            *(
                (key, getattr(self, key))
                for key in (
                    "order", "amount", "price", "quantity", "category", "session", "message_id"
                )
            ),
        ]  # fmt: skip


def shipped_mappings() -> dict[str, str]:
    """Name and description of each mapping that ships with segstream."""
    return {name: load_mapping(name).description for name in _shipped_names()}


def load_mapping(name_or_path: str | Path) -> Mapping:
    """A shipped mapping by its name, or anyone's by the path of a TOML file.

    Raises:
        MappingError: there is none, or it cannot be read; names file, key and expectation.
    """
    text = str(name_or_path)
    if text in _shipped_names():
        source = resources.files("producers") / "mappings" / f"{text}.toml"
        return parse_mapping(source.read_text(encoding="utf-8"), text, text)
    path = Path(name_or_path)
    if not (isinstance(name_or_path, Path) or text.endswith(".toml") or path.is_file()):
        raise MappingError(
            f"there is no mapping {text!r}; shipped are {', '.join(_shipped_names())}; "
            "your own is given by the path of its .toml file"
        )
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MappingError(f"mapping {path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MappingError(f"mapping {path}: cannot be read: {error}") from None
    return parse_mapping(content, path.stem, str(path))


def parse_mapping(content: str, name: str, source: str) -> Mapping:
    """A mapping from TOML text.

    Args:
        content: the TOML text.
        name: what the mapping is called unless the text says so.
        source: what messages call the place it comes from.

    Raises:
        MappingError: names source, key and expectation.
    """
    try:
        table = {"name": name, **tomllib.loads(content)}
        return Mapping.model_validate(table)
    except tomllib.TOMLDecodeError as error:
        raise MappingError(f"mapping {source}: this is no TOML: {error}") from None
    except ValidationError as error:
        raise MappingError(_explain(error, source)) from None


def _shipped_names() -> list[str]:
    folder = resources.files("producers") / "mappings"
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


_PYDANTIC_WORDS = re.compile(r"valid dictionary or instance of \w+")


def _explain(error: ValidationError, source: str) -> str:
    lines = []
    for problem in error.errors():
        place = [str(part + 1) if isinstance(part, int) else part for part in problem["loc"]]
        key = ".".join(place) or "mapping"
        expected = problem["msg"].removeprefix("Value error, ")
        expected = _PYDANTIC_WORDS.sub("valid table", expected).replace("tuple", "list")
        match problem["type"]:
            case "extra_forbidden":
                expected = "there is no such key"
                if len(place) == 1:
                    expected += f"; there are {', '.join(Mapping.model_fields)}"
            case "missing":
                expected = "is missing"
            case _ if not isinstance(problem["input"], dict):
                key += f" = {problem['input']!r}"
        lines.append(f"mapping {source}: {key}: {expected}")
    return "\n".join(lines)


# -- rows to events ----------------------------------------------------------------------------

Row = Sequence[str | None]
_Reader = Callable[[Row], str | None]


class _Unmappable(Exception):  # noqa: N818 - not an error, the way out of a row
    def __init__(self, reason: str, why: str) -> None:
        self.reason = reason
        self.why = why


class RowMapper:
    """A mapping, ready for tables with these columns."""

    def __init__(self, mapping: Mapping, columns: Sequence[str]) -> None:
        """Prepare the look-ups.

        Args:
            mapping: the declaration.
            columns: the names of the values in the rows to come, in their order. Columns the
                mapping looks at and that are not here are empty in every row.
        """
        self._columns = tuple(columns)
        place = {name: index for index, name in enumerate(columns)}

        def reader(names: Columns) -> _Reader:
            return _reader([place[name] for name in names if name in place])

        self._mapping = mapping
        self._rules = [
            (reader(rule.column), _test_of(rule, mapping.decimal), rule) for rule in mapping.rules
        ]
        self._constant = mapping.event.constant
        self._names = mapping.event.values
        self._event = reader(mapping.event.column)
        self._user = reader(mapping.user)
        self._time = reader(mapping.time.column)
        self._parse_time = time_parser(mapping.time)
        self._order = reader(mapping.order)
        self._id = reader(mapping.message_id)
        self._category = reader(mapping.category)
        self._session = reader(mapping.session)
        self._quantity = reader(mapping.quantity)
        self._price = reader(mapping.price)
        self._amount = reader(mapping.amount)
        # Prices and quantities repeat all over a table.
        self._parse_number = lru_cache(maxsize=65_536)(
            lambda text: parse_number(text, mapping.decimal)
        )

    def map(self, number: int, row: Row) -> Event | Refusal:
        """One row, by its number from 1."""
        try:
            return self._map(number, row)
        except _Unmappable as out:
            shown = dict(zip(self._columns, row, strict=True))
            return Refusal(number, out.reason, out.why, shown)

    def _map(self, number: int, row: Row) -> Event:
        # The event comes first: what is no shopping at all needs no user and no time.
        event = self._name(row)
        user = self._user(row)
        if user is None:
            raise _Unmappable(NO_USER, f"{_or(self._mapping.user)} is empty")
        if len(user) > _LONGEST_USER // 4 and len(user.encode(errors="replace")) > _LONGEST_USER:
            raise _Unmappable(BAD_USER, f"{_or(self._mapping.user)} has over {_LONGEST_USER} bytes")
        text = self._time(row)
        time_ms = None if text is None else self._parse_time(text)
        if time_ms is None:
            what = "is empty" if text is None else f"= {text!r} is no time"
            raise _Unmappable(BAD_TIME, f"{_or(self._mapping.time.column)} {what}")
        quantity = self._number(self._quantity(row), "quantity")
        price = self._number(self._price(row), "price")
        amount = self._number(self._amount(row), "amount")
        order = None
        if event in PURCHASES:
            # Only money and pieces of an order add up over its rows, prices do not.
            order = self._order(row)
            quantity = 1.0 if quantity is None else quantity
            if amount is None and price is not None:
                amount = price * quantity
            price = None
        elif (quantity or 0.0) < 0 or (price or 0.0) < 0 or (amount or 0.0) < 0:
            raise _Unmappable(BAD_NUMBER, f"a negative number makes no {event!r}")
        texts = (order, self._id(row), self._category(row), self._session(row))
        for text in (user, event, *texts):
            if text is not None and not text.isascii() and not _is_text(text):
                raise _Unmappable(UNREADABLE, f"half a character in {text[:40]!r}")
        return Event(time_ms, number, user, event, *texts, quantity, price, amount)

    def _name(self, row: Row) -> str:
        for read, holds, rule in self._rules:
            if holds(read(row) or ""):
                if rule.reject is not None:
                    raise _Unmappable(rule.reject, f"a rule on {_or(rule.column)} refuses it")
                return rule.event or ""
        if self._constant is not None:
            return self._constant
        value = self._event(row)
        columns = _or(self._mapping.event.column)
        if value is None:
            raise _Unmappable(NO_EVENT, f"{columns} is empty")
        if self._names is None:
            return value
        name = self._names.get(value)
        if name is None:
            raise _Unmappable(IGNORED_EVENT, f"{columns} = {value!r} is not among event.values")
        return name

    def _number(self, text: str | None, key: str) -> float | None:
        if text is None:
            return None
        number = self._parse_number(text)
        if number is None:
            hint = '; is it decimal = ","?' if "," in text and self._mapping.decimal == "." else ""
            raise _Unmappable(
                BAD_NUMBER, f"{_or(getattr(self._mapping, key))} = {text!r} is no number{hint}"
            )
        return number


def _is_text(text: str) -> bool:
    """Whether it can be written again: Python and JSON let halves of surrogate pairs pass."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _reader(places: Sequence[int]) -> _Reader:
    """Reads the first of these values that is filled."""
    if not places:
        return lambda _row: None
    if len(places) == 1:
        only = places[0]

        def read(row: Row) -> str | None:
            value = row[only]
            return (value.strip() or None) if value else None

        return read

    def read_first(row: Row) -> str | None:
        for place in places:
            value = row[place]
            if value and (value := value.strip()):
                return value
        return None

    return read_first


def _or(columns: Sequence[str]) -> str:
    return " or ".join(columns)


def _test_of(rule: Rule, decimal: str) -> Callable[[str], bool]:
    """Whether a value passes every test of the rule; an empty value is the empty text."""
    tests: list[Callable[[str], bool]] = []
    if rule.empty is not None:
        tests.append(operator.not_ if rule.empty else bool)
    if rule.equals is not None:
        tests.append(partial(operator.eq, rule.equals))
    if rule.not_equals is not None:
        tests.append(partial(operator.ne, rule.not_equals))
    if rule.one_of is not None:
        tests.append(frozenset(rule.one_of).__contains__)
    if rule.starts_with is not None:
        tests.append(operator.methodcaller("startswith", rule.starts_with))
    if rule.ends_with is not None:
        tests.append(operator.methodcaller("endswith", rule.ends_with))
    if rule.matches is not None:
        matches = re.compile(rule.matches).fullmatch
        tests.append(lambda text: matches(text) is not None)
    if rule.less_than is not None or rule.more_than is not None:
        low = -math.inf if rule.more_than is None else rule.more_than
        high = math.inf if rule.less_than is None else rule.less_than

        def between(text: str) -> bool:
            number = parse_number(text, decimal)
            return number is not None and low < number < high

        tests.append(between)
    if len(tests) == 1:
        return tests[0]
    return lambda text: all(test(text) for test in tests)


_PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def parse_number(text: str, decimal: str = ".") -> float | None:
    """A number of at most 1e12, or None. With ``decimal=","`` dots only group digits."""
    if decimal == ",":
        text = text.replace(".", "").replace(",", ".")
    if _PLAIN_NUMBER.fullmatch(text) is None:
        return None
    number = float(text)
    return number if abs(number) <= _LARGEST_NUMBER else None


# -- times -------------------------------------------------------------------------------------

_MONTH = re.compile(r"\d{4}-\d{2}", re.ASCII)
_COMPACT_DATE = re.compile(r"(19|20)\d{6}", re.ASCII)


def time_parser(time: Time) -> Callable[[str], int | None]:
    """A function from text to milliseconds since 1970; None for what is no time that can be meant."""
    zone = ZoneInfo(time.zone)
    parse = _reader_of_times(time.format)

    # Neighbouring rows share times: the lines of an order, the days of a table of dates.
    @lru_cache(maxsize=65_536)
    def parsed(text: str) -> int | None:
        try:
            time_ms = parse(text, zone)
        except (ValueError, OverflowError):
            return None
        return time_ms if EARLIEST_MS <= time_ms < LATEST_MS else None

    return parsed


def _reader_of_times(form: str) -> Callable[[str, ZoneInfo], int]:
    if form == "auto":
        return _parse_auto
    if form == "iso":
        return _parse_iso
    if form in _PER_MILLISECOND:
        return lambda text, _zone: _from_number(text, _PER_MILLISECOND[form])
    return lambda text, zone: _milliseconds(datetime.strptime(text, form), zone)  # noqa: DTZ007


def _parse_auto(text: str, zone: ZoneInfo) -> int:
    if _COMPACT_DATE.fullmatch(text) or _PLAIN_NUMBER.fullmatch(text) is None:
        return _parse_iso(text, zone)
    size = float(text)
    # Seconds have passed 1e8 since 1973 and stay below 1e11 until the year 5138, and so on.
    for unit, limit in (("seconds", 1e11), ("milliseconds", 1e14), ("microseconds", 1e17)):
        if limit / 1_000 <= size < limit:
            return _from_number(text, _PER_MILLISECOND[unit])
    raise ValueError(text)


def _parse_iso(text: str, zone: ZoneInfo) -> int:
    if text.endswith((" UTC", " GMT")):
        text = text[:-4] + "+00:00"
    elif _MONTH.fullmatch(text):
        text += "-01"
    return _milliseconds(datetime.fromisoformat(text), zone)


def _from_number(text: str, per_millisecond: float) -> int:
    if text.isascii() and text.isdecimal():
        whole = int(text)
        return whole * 1_000 if per_millisecond < 1 else whole // int(per_millisecond)
    return round(float(text) / per_millisecond)


def _milliseconds(moment: datetime, zone: ZoneInfo) -> int:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return (moment - _EPOCH) // _MILLISECOND


# -- events to messages ------------------------------------------------------------------------


class MessageProperties(msgspec.Struct, omit_defaults=True, gc=False):
    """Properties of a `track` message, spelled as Segment's e-commerce v2 has them."""

    order_id: str | None = None
    category: str | None = None
    quantity: float | None = None
    price: float | None = None
    revenue: float | None = None
    value: float | None = None


class MessageContext(msgspec.Struct, gc=False):
    sessionId: str  # noqa: N815 - Segment's spelling


class TrackMessage(msgspec.Struct, tag_field="type", tag="track", omit_defaults=True, gc=False):
    """A `track` message as `replay` and the simulated shop write it."""

    event: str
    userId: str  # noqa: N815 - Segment's spelling
    messageId: str  # noqa: N815 - Segment's spelling
    timestamp: str
    properties: MessageProperties
    context: MessageContext | None = None


encode_message: Callable[[TrackMessage], bytes] = msgspec.json.Encoder().encode
"""The bytes of a message, the same in `replay` and in the simulated shop."""


def message_of(event: Event, timestamp: str, source: str) -> TrackMessage:
    """The message of an event whose rows have been added up.

    Args:
        event: the event; that of an order counts its first row.
        timestamp: its time in the 24-character form.
        source: file name without suffixes, for ids where the table has none.

    Raises:
        ValueError: an order of negative worth or pieces, or of more than any worker takes.
    """
    amount = None if event.amount is None else round(event.amount, 6)
    quantity = event.quantity
    if event.event == ORDER_REFUNDED:
        # Refunds are written as negative orders by some shops and as positive refunds by others.
        amount = None if amount is None else abs(amount)
        quantity = None if quantity is None else abs(quantity)
    elif min(amount or 0.0, quantity or 0.0) < 0:
        raise ValueError(
            f"an order of {quantity:g} pieces worth {amount or 0:g}; "
            f"if it is a refund, add a rule with event = {ORDER_REFUNDED!r}"
        )
    if max(abs(amount or 0.0), abs(quantity or 0.0)) > _LARGEST_NUMBER:
        raise ValueError(f"{quantity or 0:g} pieces worth {amount or 0:g} are beyond any shop")
    bought = event.event in PURCHASES
    return TrackMessage(
        event.event,
        event.user,
        # The time keeps ids apart when a daily export has the same name and rows every day.
        event.id or f"{source}-{event.row}-{event.time_ms}",
        timestamp,
        MessageProperties(
            order_id=event.order,
            category=event.category,
            quantity=quantity,
            price=event.price,
            revenue=amount if bought else None,
            value=None if bought else amount,
        ),
        None if event.session is None else MessageContext(event.session),
    )


# -- help --------------------------------------------------------------------------------------

EXAMPLE_PURCHASES = """\
user = "customer"
time = "date"              # any ISO date or time, or a number since 1970
event = "Order Completed"
amount = "amount"

[[rules]]                  # negative amounts are refunds
column = "amount"
less_than = 0
event = "Order Refunded"
"""

EXAMPLE_VIEWS = """\
user = "visitor"
time = { column = "seen_at", format = "%d.%m.%Y %H:%M", zone = "Europe/Berlin" }
event = { column = "action", values = { look = "Product Viewed", basket = "Product Added" } }
category = "department"    # may be left out
"""


def _indented(text: str) -> str:
    return "".join(f"    {line}" if line.strip() else line for line in text.splitlines(True))


HELP_EXAMPLE = f"""\
A mapping says which column means what. For a file with the columns customer, date and amount
(ships as `--mapping simple`), orders.toml:

{_indented(EXAMPLE_PURCHASES)}
For a file without purchases, only views and baskets, views.toml:

{_indented(EXAMPLE_VIEWS)}
    segstream replay views.csv.gz --mapping views.toml

Further keys: order (its rows become one order), price, quantity, session, message_id, decimal
(","), optional (columns a file may lack), encoding, delimiter. A rule tests one column with
equals, not_equals, one_of, starts_with, ends_with, matches, less_than, more_than or empty, and
says event = "..." or reject = "a_reason"; the first that holds decides. A key that takes a column
takes a list as well: the first one filled counts. In JSON Lines, "a.b" reaches into objects.
"""
