"""Declares how the rows of a table become events.

Comes in: TOML, of a shipped mapping or of a stranger's file. Goes out: a `Mapping`, or a `MappingError` that
names file, key and expectation; `row_mapper` does what it says.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Collection
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from producers.amounts import Decimal, is_currency
from producers.times import FORMATS_EXPECTED, Calendar, is_format
from stream.told import WRONG, ToldError
from stream.zones import zone as known_zone

OrderRows = Literal["lines", "total", "repeats"]


class MappingError(ToldError):
    """A mapping that cannot be used; the message names file, key and expectation."""

    exit_code = WRONG


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
    clock: Columns = Field(
        (),
        description="columns that go on where it stops, such as the time of day and the zone; `format` is "
        "of all of them with a blank between",
    )
    format: str = Field(
        "auto",
        description=(
            "auto (ISO 8601 to any granularity, or a number since 1970 whose size tells its unit), "
            "iso, seconds, milliseconds, microseconds, nanoseconds, excel (serial dates; excel-1904 of the old "
            "Macintosh system), or a strptime format such as %d.%m.%Y %H:%M"
        ),
    )
    zone: str | None = Field(
        None, description="IANA zone of times that name none; else UTC, and told"
    )
    zones: dict[str, str] = Field(
        {},
        description='IANA zones by the names that stand behind times, such as IST = "Asia/Kolkata"; names '
        "of IANA themselves (Europe/Paris) and offsets (UTC+2) are read in any case",
    )

    calendar: Calendar = Field(
        "gregorian", description="buddhist: years are those of Thailand, 2567 for 2024"
    )

    @field_validator("format")
    @classmethod
    def _is_a_format(cls, value: str) -> str:
        if not is_format(value):
            raise ValueError(FORMATS_EXPECTED)
        return value

    @field_validator("zone")
    @classmethod
    def _is_a_zone(cls, value: str | None) -> str | None:
        known_zone(value or "UTC")
        return value

    @field_validator("zones")
    @classmethod
    def _are_zones(cls, value: dict[str, str]) -> dict[str, str]:
        for name, zone in value.items():
            if not name.strip():
                raise ValueError("expected a name of a zone, and its IANA time zone")
            known_zone(zone)
        return value

    def places(self, key: str) -> list[tuple[str, Columns]]:
        """What a table must have of it, by key: one of the columns, and all of the others."""
        return [(f"{key}.column", self.column), *((f"{key}.clock", (one,)) for one in self.clock)]


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


class ColumnTest(_Declared):
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


class Rule(ColumnTest):
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


class Refund(ColumnTest):
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
    rating: Columns = Field((), description="of a review: how many stars")
    review: Columns = Field(
        (), description="text of a review; several, such as title and text, with a blank between"
    )
    review_id: Columns = Field(
        (), description="what a review is known by, whatever tells of it; else its message id"
    )
    message_id: Columns = Field((), description="else made of file name, row and time")
    currency: Annotated[Currency | None, _as_table("column")] = Field(
        None, description="of amounts; else what stands beside them"
    )
    decimal: Decimal | None = Field(
        None, description="decimal sign; the other one only groups digits. Else found out"
    )
    minor_units: bool = Field(
        False,
        description="amounts and prices are in the smallest unit of their currency, as Stripe has them: "
        "1250 is 12.50 USD, 1250 JPY, 1.250 KWD",
    )
    optional: tuple[str, ...] = Field((), description="columns that a file may lack")
    for_json: str | None = Field(
        None,
        description="a shipped mapping for JSON of the same source, if that has other columns",
    )
    each: str | None = Field(
        None,
        min_length=1,
        description="of JSON: a list in each object, whose entries are the rows; a column 'list.x' is "
        "the entry's x, any other the object's",
    )
    encoding: str = Field(
        "utf-8", description="of CSV and JSON Lines, by any name Python knows, such as cp1252"
    )
    header: tuple[str, ...] = Field(
        (), description="of CSV without a line of names: the names of its columns, in their order"
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
    def tells_reviews(self) -> bool:
        """Whether rows say what reviews say."""
        return bool(self.rating or self.review or self.review_id)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column the mapping looks at, each once."""
        return tuple(dict.fromkeys(name for _, names in self._places() for name in names))

    def check(self, available: Collection[str]) -> None:
        """Whether a table has what the mapping needs.

        Raises:
            MappingError: of some key, every column is missing; names it and what there is.
        """
        lacking = self._lacking(available)
        if lacking is None:
            return
        key, names = lacking
        close = _near(names, available)
        hint = f" (did you mean {close!r}?)" if close else ""
        wanted = " or ".join(map(repr, names))
        others = [one.name for one in map(load_mapping, shipped_names()) if one.fits(available)]
        shipped = f"; of those that ship, {' and '.join(others)} would fit" if others else ""
        raise MappingError(
            f"mapping {self.name}: {key}: the file has no column {wanted}{hint}; "
            f"it has {', '.join(sorted(available)) or 'none'}{shipped}"
        )

    def fits(self, available: Collection[str]) -> bool:
        """Whether a table with these columns has what the mapping needs."""
        return self._lacking(available) is None

    def _lacking(self, available: Collection[str]) -> tuple[str, Columns] | None:
        """The first key of which a table with these columns has none, and its columns."""
        for key, names in self._places():
            if names and not any(name in available or name in self.optional for name in names):
                return key, names
        return None

    @property
    def number_columns(self) -> frozenset[str]:
        """Every column of which numbers are read."""
        numbers = [self.amount, self.price, self.quantity, self.rating]
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
                *(() if refund.time is None else refund.time.places(f"refund.{n}.time")),
            ]
        return [
            ("user", self.user),
            *self.time.places("time"),
            ("event.column", self.event.column),
            *((f"rules.{n}.column", rule.column) for n, rule in enumerate(self.rules, 1)),
            *refunds,
            ("currency.column", () if self.currency is None else self.currency.column),
            *(
                (key, getattr(self, key))
                for key in (
                    "order", "amount", "price", "quantity", "category", "session", "rating",
                    "review_id", "message_id",
                )
            ),
            *(("review", (one,)) for one in self.review),
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


def load_mapping(name_or_path: str | Path) -> Mapping:
    """A shipped mapping by its name, or anyone's by the path of a TOML file.

    Raises:
        MappingError: there is none, or it cannot be read; names file, key and expectation.
    """
    text = str(name_or_path)
    if text in shipped_names():
        source = resources.files("producers") / "mappings" / f"{text}.toml"
        return parse_mapping(source.read_text(encoding="utf-8"), text, text)
    path = Path(name_or_path)
    if not (isinstance(name_or_path, Path) or text.endswith(".toml") or path.is_file()):
        raise MappingError(
            f"there is no mapping {text!r}; shipped are {', '.join(shipped_names())}; "
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


def shipped_names() -> list[str]:
    """Names of the mappings that ship with segstream."""
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
