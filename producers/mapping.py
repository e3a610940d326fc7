"""Turns rows of any table into `track` messages, by a declaration in TOML.

Comes in: a mapping (shipped, or a stranger's file) and rows of text. Goes out: an `Event`, or a
`Refusal` that says why not; `files` brings events into the order of their times, `replay` sends
them. Nothing here knows what kind of file, or whether it is a file, that a row comes from.
"""

from __future__ import annotations

import codecs
import math
import operator
import re
import tomllib
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from functools import partial
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

from producers.amounts import LARGEST_NUMBER, Decimal, NumberColumn, is_currency, is_dash
from producers.texts import is_text
from producers.times import FORMATS_EXPECTED, TimeColumn, is_format
from stream.config import PLACEHOLDER_IDS
from stream.events import ORDER_COMPLETED, ORDER_EVENTS, ORDER_REFUNDED, REFUND_EVENTS
from stream.times import LATEST_MS

PURCHASES = (*ORDER_EVENTS, *REFUND_EVENTS)

# Reasons of our own; a mapping's rules may name further ones.
UNREADABLE = "unreadable"
NO_USER = "no_user"
BAD_USER = "bad_user"
NO_EVENT = "no_event"
BAD_TIME = "bad_time"
BAD_NUMBER = "bad_number"
BAD_CURRENCY = "bad_currency"
IGNORED_EVENT = "ignored_event"
PLACEHOLDER_USER = "placeholder_user"
OUTLIER_TIME = "outlier_time"

OrderRows = Literal["lines", "total", "repeats"]

# What a worker would refuse is better refused here, where row and column are known.
_LONGEST_USER = 256

PLACEHOLDERS = frozenset(
    ("null", "(null)", "<null>", "<nil>", "undefined", "nan", "none", "nil", "(not set)", "[object object]", "\\n",
     "n/a", "#n/a", "<na>")
)  # fmt: skip
"""What programs write where there is nothing, in lower case. It names nobody and no order."""
_LONGEST_PLACEHOLDER = 16
_REMEMBERED_ORDERS = 10_000
"""First lines of orders that are kept for the lines below: they stand near, in every export."""


def topic_of(event: str) -> int:
    """Place in `config.Topics.inputs` of the topic an event goes to."""
    return 1 if event in PURCHASES else 0


class MappingError(Exception):
    """A mapping that cannot be used; the message names file, key and expectation."""


class Event(NamedTuple):
    """What a row says. Rows of one order are still apart, see `files.EventSorter`.

    Attributes:
        worth: of an order's row, price x quantity; counts where the order has no amount anywhere.
        currency: ISO 4217, if the table says one.
        refunded: the order was given back afterwards, `refund_amount` of it at `refund_ms`; None
            for all of it, and at once.
        names_order: False for a refund under a number of its own.
        part: 1 for the refund of an order that its own row tells of.
        file: place among the files that are read together.
        raw: its message, where it is sent as it was written.
    """

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
    worth: float | None = None
    currency: str | None = None
    refunded: bool = False
    refund_amount: float | None = None
    refund_ms: int | None = None
    names_order: bool = True
    part: int = 0
    file: int = 0
    raw: str | None = None

    def message_id(self, source: str) -> str:
        """The id of its message: its own, or made of file name, row and time; may be empty."""
        if self.raw is not None:
            return _said_id(self.raw)
        # The time keeps ids apart when a daily export has the same name and rows every day.
        found = self.id or f"{source}-{self.row}-{self.time_ms}"
        return f"{found}-refund" if self.part else found


class _Identified(msgspec.Struct):
    messageId: str = ""  # noqa: N815 - Segment's spelling


_identified = msgspec.json.Decoder(_Identified).decode


def _said_id(message: str) -> str:
    """The id that a message says; empty if it says none that is text."""
    try:
        return _identified(message).messageId
    except msgspec.ValidationError:
        return ""


class Refusal(NamedTuple):
    """A row that becomes no event: its number from 1, why, and the columns the mapping reads."""

    row: int
    reason: str
    why: str
    columns: dict[str, str | None]
    file: str = ""


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
            "iso, seconds, milliseconds, microseconds, nanoseconds, excel (serial dates; excel-1904 of the old "
            "Macintosh system), or a strptime format such as %d.%m.%Y %H:%M"
        ),
    )
    zone: str = Field("UTC", description="IANA zone of times that name none")

    @field_validator("format")
    @classmethod
    def _is_a_format(cls, value: str) -> str:
        if not is_format(value):
            raise ValueError(FORMATS_EXPECTED)
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


class _Test(_Declared):
    """What a column looks like: every test that is given holds."""

    column: Columns = ()
    equals: _Text | None = None
    not_equals: _Text | None = None
    one_of: tuple[_Text, ...] | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    matches: str | None = Field(None, description="regular expression for the whole value")
    less_than: float | None = None
    more_than: float | None = None
    empty: bool | None = None

    @field_validator("matches")
    @classmethod
    def _is_an_expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"expected a regular expression ({error})") from None
        return value

    @property
    def has_tests(self) -> bool:
        return any(getattr(self, name) is not None for name in _TESTS)


_TESTS = (
    "equals", "not_equals", "one_of", "starts_with", "ends_with", "matches", "less_than",
    "more_than", "empty",
)  # fmt: skip
_EXPECTED_TEST = f"expected a test: {', '.join(_TESTS[:-1])} or {_TESTS[-1]}"


class Rule(_Test):
    """If a column looks like this, the row is that event, or refused."""

    column: _Required
    event: str | None = Field(None, min_length=1)
    reject: str | None = Field(None, pattern=r"^[a-z][a-z0-9_]*$", description="a reason")

    @model_validator(mode="after")
    def _is_complete(self) -> Rule:
        if (self.event is None) == (self.reject is None):
            raise ValueError('expected either event = "..." or reject = "a_reason"')
        if not self.has_tests:
            raise ValueError(_EXPECTED_TEST)
        return self


class Refund(_Test):
    """If a column looks like this, or an amount is filled, the order was given back afterwards."""

    amount: Columns = Field((), description="what was given back; empty or 0: all of the order")
    time: Annotated[Time | None, _as_table("column")] = Field(
        None, description="when; empty: with the order"
    )

    @model_validator(mode="after")
    def _is_complete(self) -> Refund:
        if self.has_tests != bool(self.column):
            raise ValueError(_EXPECTED_TEST if self.column else "tests need a column to look at")
        if not self.column and not self.amount:
            raise ValueError("expected a column with a test, or amount")
        return self


class Currency(_Declared):
    """What amounts are in: a column says it, or it is always the same."""

    column: Columns = ()
    constant: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Currency:
        if (self.constant is None) == (not self.column):
            raise ValueError('expected a column, or { constant = "EUR" }')
        if self.constant is not None and not is_currency(self.constant):
            raise ValueError("expected an ISO 4217 code such as EUR")
        return self


def _in_list(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


class Mapping(_Declared):
    """How rows of one kind of table become events."""

    name: str = ""
    description: str = ""
    native: bool = Field(
        False,
        description="lines of JSON are messages: read as the worker reads them, and sent as they are",
    )
    user: _Required = Field(description="who acted")
    time: Annotated[Time, _as_table("column")] = Field(description="when")
    event: Annotated[EventName, _as_table("constant")] = Field(description="what happened")
    rules: tuple[Rule, ...] = Field(
        (), description="asked before `event`; the first rule that holds decides"
    )
    order: Columns = Field(
        (), description="order number: rows of one user, order and event are one event"
    )
    order_rows: OrderRows = Field(
        "lines",
        description=(
            "what rows of one order are: lines, whose amounts add up; lines that each say the whole "
            "order's amount (total); or the same order said again (repeats), of which the first "
            "counts. Lines take user, time and status from the first one where theirs are empty"
        ),
    )
    refund: Annotated[tuple[Refund, ...], BeforeValidator(_in_list)] = Field(
        (), description="which orders were given back afterwards; the first that holds decides"
    )
    refund_numbers: Literal["order", "own"] = Field(
        "order", description="own: the number of a refund is not that of the order it takes back"
    )
    amount: Columns = Field((), description="what it is worth; orders: else price x quantity")
    price: Columns = Field((), description="price of one piece")
    quantity: Columns = Field((), description="pieces; an order without it has 1")
    category: Columns = ()
    session: Columns = ()
    message_id: Columns = Field((), description="else made of file name, row and time")
    currency: Annotated[Currency | None, _as_table("column")] = Field(
        None, description="of amounts; else what stands beside them"
    )
    decimal: Decimal | None = Field(
        None, description="decimal sign; the other one only groups digits. Else found out"
    )
    optional: tuple[str, ...] = Field((), description="columns that a file may lack")
    each: str | None = Field(
        None,
        min_length=1,
        description="of JSON: a list in each object, whose entries are the rows; a column 'list.x' is "
        "the entry's x, any other the object's",
    )
    encoding: str = Field(
        "utf-8", description="of CSV and JSON Lines, by any name Python knows, such as cp1252"
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="of CSV; else found out"
    )

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding(cls, value: str) -> str:
        try:
            "".encode(value)
            codecs.getincrementaldecoder(value)
        except (LookupError, UnicodeError):
            raise ValueError(
                "expected an encoding such as utf-8, cp1252 (Excel on Windows), latin-1, utf-16 or "
                "shift_jis"
            ) from None
        return value

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
                close = _near(names, available)
                hint = f" (did you mean {close!r}?)" if close else ""
                wanted = " or ".join(map(repr, names))
                raise MappingError(
                    f"mapping {self.name}: {key}: the file has no column {wanted}{hint}; "
                    f"it has {', '.join(sorted(available)) or 'none'}"
                )

    def fits(self, available: Collection[str]) -> bool:
        """Whether `check` would let a table with these columns pass."""
        try:
            self.check(available)
        except MappingError:
            return False
        return True

    @property
    def number_columns(self) -> frozenset[str]:
        """Every column of which numbers are read."""
        numbers = [self.amount, self.price, self.quantity]
        numbers += [one.amount for one in self.refund]
        numbers += [
            test.column
            for test in (*self.rules, *self.refund)
            if test.less_than is not None or test.more_than is not None
        ]
        return frozenset(name for names in numbers for name in names)

    def _places(self) -> list[tuple[str, Columns]]:
        refunds: list[tuple[str, Columns]] = []
        for n, refund in enumerate(self.refund, 1):
            refunds += [
                (f"refund.{n}.column", refund.column),
                (f"refund.{n}.amount", refund.amount),
                (f"refund.{n}.time.column", () if refund.time is None else refund.time.column),
            ]
        return [
            ("user", self.user),
            ("time.column", self.time.column),
            ("event.column", self.event.column),
            *((f"rules.{n}.column", rule.column) for n, rule in enumerate(self.rules, 1)),
            *refunds,
            ("currency.column", () if self.currency is None else self.currency.column),
            *(
                (key, getattr(self, key))
                for key in (
                    "order", "amount", "price", "quantity", "category", "session", "message_id"
                )
            ),
        ]  # fmt: skip


def _near(names: Columns, available: Collection[str]) -> str | None:
    """A column that may be meant: the same but for case and blanks, or one much like it."""

    def bare(name: str) -> str:
        return re.sub(r"[\W_]+", "", name).casefold()

    for name in names:
        for one in available:
            if bare(one) == bare(name):
                return one
    close = get_close_matches(names[0], list(available), 1)
    return close[0] if close else None


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
            case "string_type" if isinstance(problem["input"], bool):
                key += f" = {str(problem['input']).lower()}"
                expected = 'expected text, as it stands in the file: "true", "True" ..'
            case _ if not isinstance(problem["input"], dict):
                key += f" = {problem['input']!r}"
        lines.append(f"mapping {source}: {key}: {expected}")
    return "\n".join(lines)


# -- rows to events ----------------------------------------------------------------------------

Row = Sequence[str | None]
_Reader = Callable[[Row], str | None]
_NumberField = tuple[_Reader, NumberColumn, str]


class _Unmappable(Exception):  # noqa: N818 - not an error, the way out of a row
    def __init__(self, reason: str, why: str) -> None:
        self.reason = reason
        self.why = why


class _UndecidedError(Exception):
    """What a number means is known only when its whole column has been read."""


class RowMapper:
    """A mapping, ready for tables with these columns."""

    def __init__(
        self,
        mapping: Mapping,
        columns: Sequence[str],
        latest_ms: int = LATEST_MS,
        placeholders: Collection[str] = PLACEHOLDER_IDS,
    ) -> None:
        """Prepare the look-ups.

        Args:
            mapping: the declaration.
            columns: the names of the values in the rows to come, in their order. Columns the
                mapping looks at and that are not here are empty in every row.
            latest_ms: later times have not come yet.
            placeholders: ids that name nobody and no order, whatever their case.
        """
        self._columns = tuple(columns)
        nobody = frozenset(one.strip().casefold() for one in placeholders)
        place = {name: index for index, name in enumerate(columns)}

        def places(names: Columns) -> list[int]:
            return [place[name] for name in names if name in place]

        def reader(names: Columns) -> _Reader:
            return _reader(places(names))

        ids = _Ids()

        def first_id(names: Columns) -> _Reader:
            return ids.first([reader((name,)) for name in names], nobody)

        numbers: dict[Columns, NumberColumn] = {}

        def number_column(names: Columns) -> NumberColumn:
            return numbers.setdefault(names, NumberColumn(mapping.decimal))

        self._mapping = mapping
        self._ids = ids
        self._number_columns = numbers
        self._rules = [
            (reader(rule.column), _test_of(rule, number_column(rule.column)), rule)
            for rule in mapping.rules
        ]
        self._constant = mapping.event.constant
        self._names = mapping.event.values
        self._event = reader(mapping.event.column)
        self._user = first_id(mapping.user)
        self._named_user = reader(mapping.user)
        self._time = reader(mapping.time.column)
        self._times = TimeColumn(mapping.time.format, mapping.time.zone, latest_ms)
        self._order = first_id(mapping.order)
        self._id = first_id(mapping.message_id)
        self._category = ids.reader(reader(mapping.category))
        self._session = first_id(mapping.session)
        self._quantity = (reader(mapping.quantity), number_column(mapping.quantity), "quantity")
        self._price = (reader(mapping.price), number_column(mapping.price), "price")
        self._amount = (reader(mapping.amount), number_column(mapping.amount), "amount")
        currency = mapping.currency
        self._currency = reader(() if currency is None else currency.column)
        self._currency_constant = None if currency is None else currency.constant
        self._refunds = [
            (
                refund,
                reader(refund.column),
                _test_of(refund, number_column(refund.column)),
                (reader(refund.amount), number_column(refund.amount), "refund.amount"),
                None
                if refund.time is None
                else (
                    reader(refund.time.column),
                    TimeColumn(refund.time.format, refund.time.zone, latest_ms),
                ),
            )
            for refund in mapping.refund
        ]
        # What a shop writes on an order's first line only. A test for emptiness means its own line.
        of_order = [mapping.user, mapping.time.column, mapping.event.column]
        of_order += [
            test.column for test in (*mapping.rules, *mapping.refund) if test.empty is None
        ]
        of_order += [() if currency is None else currency.column, mapping.session]
        self._of_order = sorted({index for names in of_order for index in places(names)})
        self._first_lines: dict[str, Row] = {}

    def map(self, number: int, row: Row) -> Event | Refusal:
        """One row, by its number from 1; a number that can mean two is refused."""
        self.settle()
        found = self.try_map(number, row)
        assert found is not None
        return found

    def try_map(self, number: int, row: Row) -> Event | Refusal | None:
        """The same; None if a number can mean two and more rows may tell which, see `settle`."""
        try:
            return self._map(number, row)
        except _Unmappable as out:
            shown = dict(zip(self._columns, row, strict=True))
            return Refusal(number, out.reason, out.why, shown)
        except _UndecidedError:
            return None

    def settle(self) -> None:
        """Decide what numbers mean, once every row has been seen."""
        for column in self._number_columns.values():
            column.settle()

    def notes(self) -> list[str]:
        """What to tell of the rows once all have been mapped."""
        found = [self._ids.note(), self._times.note()]
        return [note for note in found if note is not None]

    def _map(self, number: int, row: Row) -> Event:
        order = self._order(row)
        if order is not None:
            row = self._completed(order, row)
        # The event comes first: what is no shopping at all needs no user and no time.
        event = self._name(row)
        user = self._user(row)
        if user is None:
            columns, named = _or(self._mapping.user), self._named_user(row)
            if named is not None:
                raise _Unmappable(PLACEHOLDER_USER, f"{columns} = {named!r} stands for nobody")
            raise _Unmappable(NO_USER, f"{columns} is empty")
        if len(user) > _LONGEST_USER // 4 and len(user.encode(errors="replace")) > _LONGEST_USER:
            raise _Unmappable(BAD_USER, f"{_or(self._mapping.user)} has over {_LONGEST_USER} bytes")
        text = self._time(row)
        time_ms = None if text is None else self._times.read(text)
        if time_ms is None:
            what = "is empty" if text is None else f"= {self._times.why(text)}"
            raise _Unmappable(BAD_TIME, f"{_or(self._mapping.time.column)} {what}")
        (quantity, _), (price, beside_price), (amount, beside_amount) = self._numbers(
            row, self._quantity, self._price, self._amount
        )
        currency = self._currency_of(row, beside_amount or beside_price)
        bought = event in PURCHASES
        worth = None
        if bought:
            # Only money and pieces of an order add up over its rows, prices do not.
            tells = event == ORDER_COMPLETED or amount is not None or price is not None
            if quantity is None and tells:
                quantity = 1.0  # else a refund that says nothing takes back what is left
            worth = None if price is None else price * (quantity or 0.0)
            price = None
        else:
            order = None
            if (quantity or 0.0) < 0 or (price or 0.0) < 0 or (amount or 0.0) < 0:
                raise _Unmappable(BAD_NUMBER, f"a negative number makes no {event!r}")
        texts = (order, self._id(row), self._category(row), self._session(row))
        for text in (user, event, *texts):
            if text is not None and not text.isascii() and not is_text(text):
                raise _Unmappable(UNREADABLE, f"half a character in {text[:40]!r}")
        refund: tuple[bool, float | None, int | None] = (False, None, None)
        if self._refunds and event == ORDER_COMPLETED:
            refund = self._refund(row, time_ms)
        names_order = event != ORDER_REFUNDED or self._mapping.refund_numbers == "order"
        numbers = (quantity, price, amount, worth)
        return Event(time_ms, number, user, event, *texts, *numbers, currency, *refund, names_order)

    def _completed(self, order: str, row: Row) -> Row:
        """The row of an order, with what only its first one says."""
        first = self._first_lines.get(order)
        if first is None:
            if len(self._first_lines) == _REMEMBERED_ORDERS:
                self._first_lines.pop(next(iter(self._first_lines)))
            self._first_lines[order] = row
            return row
        for place in self._of_order:
            if not row[place]:
                break
        else:
            return row
        # The user decides whether this is the same order: numbers may come again.
        user, its_user = self._user(row), self._user(first)
        if user is not None and user != its_user:
            return row
        filled = list(row)
        for place in self._of_order:
            filled[place] = row[place] or first[place]
        return filled

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

    def _numbers(
        self, row: Row, *fields: _NumberField
    ) -> list[tuple[float | None, tuple[str, bool] | None]]:
        """Value, and the currency beside it, of each number."""
        found: list[tuple[float | None, tuple[str, bool] | None]] = []
        undecided = False
        for read, column, key in fields:
            text = None if read is _read_nothing else read(row)
            if text is None:
                found.append(_NOTHING)
                continue
            known = column.known.get(text)
            if known is not None:
                found.append((known, None))
                continue
            written = column.read(text)
            value = None if written is None else column.value(written)
            if written is not None and value is None and not column.is_settled:
                undecided = True  # the others are still looked at, for what they tell of theirs
            elif written is None and (text.casefold() in PLACEHOLDERS or is_dash(text)):
                found.append(_NOTHING)
                continue
            elif written is None or value is None:
                names = self._columns_of(key)
                raise _Unmappable(BAD_NUMBER, f"{_or(names)} = {column.why(text, written)}")
            currency = written.currency
            found.append((value, None if currency is None else (currency, written.surely)))
        if undecided:
            raise _UndecidedError
        return found

    def _columns_of(self, key: str) -> Columns:
        if key == "refund.amount":
            return tuple(name for refund in self._mapping.refund for name in refund.amount)
        names: Columns = getattr(self._mapping, key)
        return names

    def _currency_of(self, row: Row, beside: tuple[str, bool] | None) -> str | None:
        """The currency of a row's money; the mapping says it, or else the sign beside a number."""
        declared = self._currency(row) or self._currency_constant
        if declared is None or (code := declared.upper()).casefold() in PLACEHOLDERS:
            return None if beside is None else beside[0]
        if beside is not None and beside[1] and beside[0] != code:
            raise _Unmappable(
                BAD_CURRENCY, f"an amount in {beside[0]}, and currency = {declared!r}"
            )
        return code

    def _refund(self, row: Row, time_ms: int) -> tuple[bool, float | None, int | None]:
        """Whether an order was given back, how much of it and when."""
        for refund, read, holds, amount_field, time_field in self._refunds:
            if refund.has_tests and not holds(read(row) or ""):
                continue
            ((amount, _),) = self._numbers(row, amount_field)
            if not amount and not refund.has_tests:
                continue
            when_ms = None
            if time_field is not None and (text := time_field[0](row)) is not None:
                when_ms = time_field[1].read(text)
                if when_ms is None:
                    why = time_field[1].why(text)
                    raise _Unmappable(BAD_TIME, f"refund.time = {why}")
                when_ms = max(when_ms, time_ms)
            return True, abs(amount) if amount else None, when_ms
        return False, None, None


class _Ids:
    """Reads ids, which some programs write as floating point numbers: 326.0 is 326."""

    def __init__(self) -> None:
        self._mended = self._powers = 0
        self._example = self._power = ""

    def first(self, reads: Sequence[_Reader], empty: frozenset[str]) -> _Reader:
        """Reads the first of several that is an id; those in `empty` (lower case) are none."""
        readers = [self.reader(read, empty) for read in reads]
        if len(readers) < 2:
            return readers[0] if readers else _read_nothing

        def read_first(row: Row) -> str | None:
            for read in readers:
                if (text := read(row)) is not None:
                    return text
            return None

        return read_first

    def reader(self, read: _Reader, empty: frozenset[str] = frozenset()) -> _Reader:
        """The same reader, of ids; those in `empty` (lower case) are none."""
        if read is _read_nothing:
            return read

        def read_id(row: Row) -> str | None:
            text = read(row)
            if text is None:
                return None
            if len(text) < _LONGEST_PLACEHOLDER and text.casefold() in empty:
                return None
            if not text[0].isdecimal() or text.isdecimal():
                return text
            if "." in text or "+" in text or (len(text) < 12 and "e" in text.lower()):
                return self._mend(text)
            return text

        return read_id

    def note(self) -> str | None:
        """What to tell of the ids once all have been read."""
        told = []
        if self._mended:
            whole = self._whole(self._example)
            told.append(f"{self._mended:,} ids such as {self._example!r} were read as {whole!r}")
        if self._powers:
            told.append(
                f"{self._powers:,} ids such as {self._power!r} look like numbers in powers of ten, "
                "and were taken as they are"
            )
        return "; ".join(told) or None

    def _mend(self, text: str) -> str:
        whole = self._whole(text)
        if whole != text:
            self._mended += 1
            self._example = self._example or text
        elif _BARE_POWER.fullmatch(text) is not None:
            self._powers += 1
            self._power = self._power or text
        return whole

    def _whole(self, text: str) -> str:
        if (match := _FLOAT_ID.fullmatch(text)) is not None:
            if len(match[1]) > 15 and int(match[1]) >= _LARGEST_WHOLE_FLOAT:
                raise _Unmappable(
                    BAD_USER, f"{text!r} is an id that has lost its last digits; keep it as text"
                )
            return match[1]
        if (match := _POWER_ID.fullmatch(text)) is None:
            return text
        fraction, power = match[2] or "", int(match[3])
        if power > 15 or (len(fraction) == 5 and power > 5):
            raise _Unmappable(
                BAD_USER, f"{text!r} is an id that has lost its last digits; format it as text"
            )
        digits = match[1] + fraction.ljust(power, "0")
        return digits if len(fraction.rstrip("0")) <= power else text


_LARGEST_WHOLE_FLOAT = 1 << 53
"""From here on a floating point number stands for several whole ones."""
_FLOAT_ID = re.compile(r"(\d+)\.0+", re.ASCII)
_POWER_ID = re.compile(r"(\d)(?:[.,](\d+))?[eE]\+(\d{1,3})", re.ASCII)
"""As R, pandas and Excel write large numbers. Nobody's own ids have a plus in them."""
_BARE_POWER = re.compile(r"\d+(\.\d+)?[eE]\d+", re.ASCII)


def _reader(places: Sequence[int]) -> _Reader:
    """Reads the first of these values that is filled."""
    if not places:
        return _read_nothing
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


_NOTHING = (None, None)


def _read_nothing(_row: Row) -> None:
    """Of what no column says."""


def _or(columns: Sequence[str]) -> str:
    return " or ".join(columns)


def _test_of(rule: _Test, numbers: NumberColumn) -> Callable[[str], bool]:
    """Whether a value passes every test; an empty value is the empty text."""
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
            written = numbers.read(text) if text else None
            if written is None:
                return False
            value = numbers.value(written)
            if value is not None:
                return low < value < high
            either = {
                one is not None and low < one < high for one in (written.point, written.comma)
            }
            if len(either) > 1 and not numbers.is_settled:
                raise _UndecidedError
            return either == {True}

        tests.append(between)
    if len(tests) == 1:
        return tests[0]
    return lambda text: all(test(text) for test in tests)


# -- events to messages ------------------------------------------------------------------------


class MessageProperties(msgspec.Struct, omit_defaults=True, gc=False):
    """Properties of a `track` message, spelled as Segment's e-commerce v2 has them."""

    order_id: str | None = None
    currency: str | None = None
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
    amount = event.worth if event.amount is None else event.amount
    amount = None if amount is None else round(amount, 6)
    quantity = event.quantity
    if event.event in REFUND_EVENTS:
        # Refunds are written as negative orders by some shops and as positive refunds by others.
        amount = None if amount is None else abs(amount)
        quantity = None if quantity is None else abs(quantity)
    elif min(amount or 0.0, quantity or 0.0) < 0:
        raise ValueError(
            f"an order of {quantity or 0:g} pieces worth {amount or 0:g}; "
            f"if it is a refund, add a rule with event = {ORDER_REFUNDED!r}"
        )
    if max(abs(amount or 0.0), abs(quantity or 0.0)) > LARGEST_NUMBER:
        raise ValueError(f"{quantity or 0:g} pieces worth {amount or 0:g} are beyond any shop")
    bought = event.event in PURCHASES
    return TrackMessage(
        event.event,
        event.user,
        event.message_id(source),
        timestamp,
        MessageProperties(
            order_id=event.order if event.names_order else None,
            currency=event.currency,
            category=event.category,
            quantity=quantity,
            price=event.price,
            revenue=amount if bought else None,
            value=None if bought else amount,
        ),
        None if event.session is None else MessageContext(event.session),
    )


def encoded_message(event: Event, timestamp: str, source: str) -> bytes:
    """The bytes of an event's message, see `message_of`; those of the file where it has one."""
    if event.raw is not None:
        return event.raw.encode()
    return encode_message(message_of(event, timestamp, source))


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

Further keys: order (its rows become one order), order_rows ("lines", "total" or "repeats"),
price, quantity, session, message_id, currency, decimal ("." or ","), optional (columns a file may
lack), encoding, delimiter, each (a list in every object of JSON), refund_numbers. time.format is
auto, iso, seconds, milliseconds, microseconds, nanoseconds, excel (serial dates), or a strptime
format as above; what does not fit is refused with the one that does. A rule tests one column with
equals, not_equals, one_of, starts_with, ends_with, matches, less_than, more_than or empty, and
says event = "..." or reject = "a_reason"; the first that holds decides.
refund = {{ column = "Status", equals = "refunded" }} tells of orders that were given back
afterwards, with an amount and a time of its own if there are columns for them. A key that takes a
column takes a list as well: the first one filled counts. In JSON, "a.b" reaches into objects.

Amounts are read as people write them: 1,250.00 and 1.250,00, 1 250, 1'250, $20, 20 EUR, (20.00).
"""
