"""Makes of each row the event that a mapping says, or says why it is none.

Comes in: a mapping and rows of text. Goes out: an `Event`, or a `Refusal`; `files` puts events into a sorter.
Nothing here knows what kind of file, or whether it is a file, that a row comes from.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from producers.amounts import NumberColumn, currency_of, in_major_units, is_dash
from producers.ids import Ids
from producers.mapped import (
    BAD_CURRENCY,
    BAD_NUMBER,
    BAD_TIME,
    BAD_USER,
    IGNORED_EVENT,
    NO_EVENT,
    NO_USER,
    PLACEHOLDER_USER,
    UNREADABLE,
    Event,
    NoText,
    Refusal,
    Row,
    UndecidedError,
    Unmappable,
)
from producers.mapping import Columns, Mapping, Time
from producers.messages import PURCHASES
from producers.row_readers import (
    Reader,
    condition_of,
    joined,
    read_nothing,
    reader_of,
    together,
)
from producers.texts import is_text
from producers.times import TimeColumn
from stream.config import PLACEHOLDER_IDS
from stream.events import ORDER_COMPLETED, ORDER_EVENTS, ORDER_REFUNDED
from stream.times import LATEST_MS

# What a worker would refuse is better refused here, where row and column are known.
_LONGEST_USER = 256
PLACEHOLDERS = frozenset(
    ("null", "(null)", "<null>", "<nil>", "undefined", "nan", "none", "nil", "(not set)", "[object object]", "\\n",
     "n/a", "#n/a", "<na>")
)  # fmt: skip
"""What programs write where there is nothing, in lower case. It names nobody and no order."""
_REMEMBERED_ORDERS = 10_000
"""First lines of orders that are kept for the lines below: they stand near, in every export."""

_NumberField = tuple[Reader, NumberColumn, str]

_NOTHING = (None, None)
_NO_MONEY = ("quantity", "rating")
"""Numbers that no currency tells anything of."""


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

        def reader(names: Columns) -> Reader:
            return reader_of(places(names))

        ids = Ids()

        def first_id(names: Columns) -> Reader:
            return ids.first([reader((name,)) for name in names], nobody)

        numbers: dict[Columns, NumberColumn] = {}

        def number_column(names: Columns) -> NumberColumn:
            return numbers.setdefault(names, NumberColumn(mapping.decimal))

        self._mapping = mapping
        self._ids = ids
        self._number_columns = numbers
        self._rules = [
            (reader(rule.column), condition_of(rule, number_column(rule.column)), rule)
            for rule in mapping.rules
        ]
        self._constant = mapping.event.constant
        self._names = mapping.event.values
        self._event = reader(mapping.event.column)
        self._user = first_id(mapping.user)
        self._named_user = reader(mapping.user)

        def time_reader(time: Time) -> Reader:
            return joined([reader(time.column), *(reader((name,)) for name in time.clock)])

        self._time = time_reader(mapping.time)

        def time_column(time: Time) -> TimeColumn:
            return TimeColumn(time.format, time.zone, latest_ms, time.zones, time.calendar)

        self._times = time_column(mapping.time)
        self._order = first_id(mapping.order)
        self._id = first_id(mapping.message_id)
        self._category = ids.reader(reader(mapping.category))
        self._session = first_id(mapping.session)
        self._quantity = (reader(mapping.quantity), number_column(mapping.quantity), "quantity")
        self._price = (reader(mapping.price), number_column(mapping.price), "price")
        self._amount = (reader(mapping.amount), number_column(mapping.amount), "amount")
        self._rating = (reader(mapping.rating), number_column(mapping.rating), "rating")
        self._review = together([reader((name,)) for name in mapping.review])
        self._review_id = first_id(mapping.review_id)
        self._tells_reviews = mapping.tells_reviews
        currency = mapping.currency
        self._currency = reader(() if currency is None else currency.column)
        self._currency_constant = None if currency is None else currency.constant
        self._refunds = [
            (
                refund,
                reader(refund.column),
                condition_of(refund, number_column(refund.column)),
                (reader(refund.amount), number_column(refund.amount), "refund.amount"),
                None
                if refund.time is None
                else (time_reader(refund.time), time_column(refund.time)),
            )
            for refund in mapping.refund
        ]
        # What a shop writes on an order's first line only. A test for emptiness means its own line.
        of_order = [mapping.user, mapping.time.column, mapping.time.clock, mapping.event.column]
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
        except Unmappable as out:
            shown = dict(zip(self._columns, row, strict=True))
            return Refusal(number, out.reason, out.why, shown)
        except UndecidedError:
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
            if isinstance(named, NoText):
                raise Unmappable(BAD_USER, f"{columns} = {named[:80]} is no text")
            if named is not None:
                raise Unmappable(PLACEHOLDER_USER, f"{columns} = {named!r} stands for nobody")
            raise Unmappable(NO_USER, f"{columns} is empty")
        if len(user) > _LONGEST_USER // 4 and len(user.encode(errors="replace")) > _LONGEST_USER:
            raise Unmappable(BAD_USER, f"{_or(self._mapping.user)} has over {_LONGEST_USER} bytes")
        text = self._time(row)
        time_ms = None if text is None else self._times.read(text)
        if time_ms is None:
            what = "is empty" if text is None else f"= {self._times.why(text)}"
            raise Unmappable(BAD_TIME, f"{_or(self._mapping.time.column)} {what}")
        (quantity, _), (price, beside_price), (amount, beside_amount) = self._numbers(
            row, self._quantity, self._price, self._amount
        )
        currency = self._currency_of(row, beside_amount or beside_price)
        if self._mapping.minor_units:
            amount = None if amount is None else in_major_units(amount, currency)
            price = None if price is None else in_major_units(price, currency)
        bought = event in PURCHASES
        worth = None
        if bought:
            # Only money and pieces of an order add up over its rows, prices do not.
            if quantity is None and (
                event in ORDER_EVENTS or (amount is None and price is not None)
            ):
                quantity = 1.0  # a refund of an amount alone takes back no piece
            worth = None if price is None else price * (quantity or 0.0)
            price = None
        else:
            order = None
            if (quantity or 0.0) < 0 or (price or 0.0) < 0 or (amount or 0.0) < 0:
                raise Unmappable(BAD_NUMBER, f"a negative number makes no {event!r}")
        texts = (order, self._id(row), self._category(row), self._session(row))
        for text in (user, event, *texts):
            if text is not None and not text.isascii() and not is_text(text):
                raise Unmappable(UNREADABLE, f"half a character in {text[:40]!r}")
        refund: tuple[bool, float | None, int | None] = (False, None, None)
        if self._refunds and event == ORDER_COMPLETED:
            refund = self._refund(row, time_ms)
        names_order = event != ORDER_REFUNDED or self._mapping.refund_numbers == "order"
        numbers = (quantity, price, amount, worth)
        found = Event(
            time_ms, number, user, event, *texts, *numbers, currency, *refund, names_order
        )
        return self._with_review(found, row) if self._tells_reviews else found

    def _with_review(self, event: Event, row: Row) -> Event:
        """An event with what its row says as a review."""
        ((rating, _),) = self._numbers(row, self._rating)
        review, review_id = self._review(row), self._review_id(row)
        if not is_text(f"{review or ''}{review_id or ''}"):
            # Not a word of the review: it is told in reports.
            raise Unmappable(UNREADABLE, "half a character in the review")
        return event._replace(rating=rating, review=review, review_id=review_id)

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
                    raise Unmappable(rule.reject, f"a rule on {_or(rule.column)} refuses it")
                return rule.event or ""
        if self._constant is not None:
            return self._constant
        value = self._event(row)
        columns = _or(self._mapping.event.column)
        if value is None:
            raise Unmappable(NO_EVENT, f"{columns} is empty")
        if self._names is None:
            if isinstance(value, NoText):
                raise Unmappable(NO_EVENT, f"{columns} = {value[:80]} is no text")
            return value
        name = self._names.get(value)
        if name is None:
            raise Unmappable(IGNORED_EVENT, f"{columns} = {value!r} is not among event.values")
        return name

    def _numbers(
        self, row: Row, *fields: _NumberField
    ) -> list[tuple[float | None, tuple[str, bool] | None]]:
        """Value, and the currency beside it, of each number."""
        found: list[tuple[float | None, tuple[str, bool] | None]] = []
        undecided = False
        for read, column, key in fields:
            text = None if read is read_nothing else read(row)
            if text is None:
                found.append(_NOTHING)
                continue
            known = column.known.get(text)
            if known is not None:
                found.append((known, None))
                continue
            written = column.read(text)
            value = None
            if written is not None:
                is_money = written.is_ambiguous and key not in _NO_MONEY
                value = column.value(written, self._code(row) if is_money else None)
            if written is not None and value is None and not column.is_settled:
                undecided = True  # the others are still looked at, for what they tell of theirs
            elif written is None and (text.casefold() in PLACEHOLDERS or is_dash(text)):
                found.append(_NOTHING)
                continue
            elif written is None or value is None:
                names = self._columns_of(key)
                raise Unmappable(BAD_NUMBER, f"{_or(names)} = {column.why(text, written)}")
            currency = written.currency
            found.append((value, None if currency is None else (currency, written.surely)))
        if undecided:
            raise UndecidedError
        return found

    def _columns_of(self, key: str) -> Columns:
        if key == "refund.amount":
            return tuple(name for refund in self._mapping.refund for name in refund.amount)
        names: Columns = getattr(self._mapping, key)
        return names

    def _currency_of(self, row: Row, beside: tuple[str, bool] | None) -> str | None:
        """The currency of a row's money; the mapping says it, or else the sign beside a number."""
        code = self._code(row)
        if code is None:
            return None if beside is None else beside[0]
        if beside is not None and beside[1] and beside[0] != code:
            raise Unmappable(BAD_CURRENCY, f"an amount in {beside[0]}, and currency = {code!r}")
        return code

    def _code(self, row: Row) -> str | None:
        """The currency that the mapping, or a column, says a row is in."""
        declared = self._currency(row) or self._currency_constant
        if declared is None or declared.casefold() in PLACEHOLDERS:
            return None
        return currency_of(declared) or declared.upper()

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
                    raise Unmappable(BAD_TIME, f"refund.time = {why}")
                when_ms = max(when_ms, time_ms)
            if amount and self._mapping.minor_units:
                amount = in_major_units(amount, self._code(row))
            return True, abs(amount) if amount else None, when_ms
        return False, None, None


def _or(columns: Sequence[str]) -> str:
    return " or ".join(columns)
