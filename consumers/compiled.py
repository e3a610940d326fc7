"""Parses plain track messages to columns with numba; leaves anything unusual to the plain parser.

Comes in: values of messages. Goes out: `Parsed`, the same to the bit as from `plain.PlainParser`.
The extra ``segstream[fast]``: to import this module loads numba, and compiles `_parse` unless a
cache on disk has it. That cache sees only whether this file has changed, so all that is compiled stands here.

A message is plain if it is JSON, not nested deep, and a `track` with every field once, without
escapes in those, with a time and a user, and with numbers that one operation makes exact where a
number is read. The functions here see whether it is: a strict validator of that part of JSON, so that whatever is taken
is valid for msgspec too. What is not plain may be good or bad. It is not judged here.

A zero byte stands behind every message. It is part of no token, so nothing that reads tokens has to
look for the end of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from consumers.fields import LARGEST_NUMBER, UNWATCHED
from consumers.plain import (
    LONGEST_USER,
    Odd,
    Parsed,
    PlainParser,
)
from stream.compiling import Function, compiled_for
from stream.events import Codes, Floats, Hashes, Ints
from stream.features import FeatureTable
from stream.hashing import MULTIPLIERS
from stream.placeholders import LONGEST_FOLDED
from stream.times import EARLIEST_MS, LATEST_MS

Letters = npt.NDArray[np.uint8]


class CompiledParser:
    """Parses for one feature table.

    Attributes:
        left: how many messages were left to the plain parser so far.
    """

    def __init__(self, table: FeatureTable, message_bytes: int, plain: PlainParser) -> None:
        self.left = 0
        self._plain = plain
        fields = plain.fields
        self._names = _table({name.encode(): code for name, code in table.codes.items()})
        self._folds = _table(fields.codes.by_fold)
        self._uses = np.stack(
            [
                fields.uses_value,
                fields.uses_order,
                fields.takes_back,
                fields.cancels,
                fields.refunds,
                fields.uses_review,
            ]
        )
        self._placeholders = _table(dict.fromkeys(fields.placeholders.short, 0))
        self._long_placeholders = _table({one.encode(): 0 for one in fields.placeholders.long})
        self._known: Mapping[bytes, float] = {}
        self._currencies, self._rates, self._codes = self._money()
        # What other modules decide is an argument: the cache on disk does not see it change.
        self._limits = np.array(
            [message_bytes, LONGEST_USER, EARLIEST_MS, LATEST_MS, int(LARGEST_NUMBER)], np.int64
        )

    def _money(self) -> tuple[Hashes, Floats, Codes]:
        """Table of the currencies that are known, their rates and what stands for them; see `_parse`."""
        fields = self._plain.fields
        self._known = fields.rates
        rates = [*fields.rates.values(), fields.unnamed]
        if fields.reads_currency and not fields.rates:
            # Whoever names one has it judged: until one is known, none is in the table.
            rates.append(fields.unnamed)
        codes = [fields.currencies.get(code, 0) for code in fields.rates]
        codes += [fields.usual_currency] * (len(rates) - len(codes))
        table = _table({code: place for place, code in enumerate(fields.rates)})
        return table, np.array(rates), np.array(codes, np.uint32)

    def parse(self, values: Sequence[Any]) -> Parsed:
        """Columns of messages, each bytes or None, in the order they come."""
        if self._known is not self._plain.fields.rates:
            self._currencies, self._rates, self._codes = self._money()
        values = self._plain.unwrap(values)
        try:
            text, lengths = _joined(values)
            if not text.isascii():
                text.decode()
        except (TypeError, UnicodeDecodeError):  # a message without a value, or not UTF-8
            self.left += len(values)
            return self._plain.parse_unwrapped(values)
        left, lines, *columns = _parse(
            np.frombuffer(text, np.uint8), lengths, self._names, self._folds, self._uses,
            self._placeholders, self._long_placeholders, self._currencies, self._rates, self._codes,
            MULTIPLIERS, self._limits,
        )  # fmt: skip
        users = str(lines, "utf-8").split("\n")
        if len(left):
            return self._with_rest(values, left, users, columns)
        return Parsed(users, Odd({}, {}, set()), *columns)

    def _with_rest(
        self, values: Sequence[Any], left: Ints, users: list[str], columns: list[Any]
    ) -> Parsed:
        """The columns, with what the plain parser makes of the messages left."""
        self.left += len(left)
        places: list[int] = left.tolist()
        rest = self._plain.parse_unwrapped([values[place] for place in places])
        for place, user in zip(places, rest.users, strict=True):
            users[place] = user
        for column, found in zip(columns, rest[2:-1], strict=True):
            column[left] = found
        reviews = rest.reviews
        if reviews is not None:
            reviews = replace(reviews, places=left[reviews.places])
        return Parsed(users, rest.odd.moved(places), *columns)._replace(reviews=reviews)


def _joined(values: Sequence[bytes]) -> tuple[bytes, Ints]:
    """All values, a zero byte behind each and eight behind all; and their lengths."""
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    return b"\0".join([*values, bytes(8)]), lengths


def _list(names: Sequence[bytes]) -> Hashes:
    """Names that never change, a row each: how long it is, and its letters in words of eight."""
    words = -(-max(map(len, names), default=0) // 8) or 1
    rows = np.zeros((len(names), 1 + words), "<u8")
    for row, name in zip(rows, names, strict=True):
        row[0] = len(name)
        row[1:] = np.frombuffer(name.ljust(8 * words, b"\0"), "<u8")
    return rows


def _table(names: Mapping[bytes, int]) -> Hashes:
    """Numbers to be found by name, see `_find`: what to mask rows with, words a row, then the rows.

    A row has a name's length and one more, its number, and its letters. It stands where the hash of
    the name says, or is the next that was free; free ones are zeros.
    """
    listed = _list(list(names))
    count = 2
    while count < 4 * len(names):
        count *= 2
    rows = np.zeros((count, listed.shape[1] + 1), "<u8")
    for number, (length, *letters) in zip(names.values(), listed.tolist(), strict=True):
        row = (letters[0] ^ length) * int(_MIX) % 2**64 >> 32 & count - 1
        while rows[row, 0]:
            row = row + 1 & count - 1
        rows[row] = length + 1, number, *letters
    return np.concatenate([np.array([count - 1, rows.shape[1]], "<u8"), rows.ravel()])


_MIX = np.uint64(0x9E3779B97F4A7C15)
"""Spreads names over the rows of a table; the odd number next to 2**64 over the golden ratio."""


def _intrinsic(generator: Any) -> Callable[[Any], Any]:
    """`numba.extending.intrinsic`: a function of one argument that is made of LLVM's instructions."""
    return cast("Callable[[Any], Any]", intrinsic(generator))


def _compiled(function: Function) -> Function:
    """Compiled within whatever calls it."""
    return cast("Function", numba.njit(error_model="numpy")(function))


def _inlined(function: Function) -> Function:
    """Compiled as if it stood where it is called: to hand arrays over would cost more than it does."""
    return cast("Function", numba.njit(error_model="numpy", inline="always")(function))


# -- letters -------------------------------------------------------------------------------------
# The functions below are given addresses: numba's arrays would cost more than what is done to them.


@_intrinsic
def _letter(_: Any, at: Any) -> Any:
    """The letter at an address."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(8).as_pointer()))

    return types.uint8(at), generate


@_intrinsic
def _letters(_: Any, at: Any) -> Any:
    """Eight letters from an address on, the first in the lowest byte."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        word = builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(at), generate


@_intrinsic
def _low_zeros(_: Any, word: Any) -> Any:
    """How many bits are zero below the lowest one that is not."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(word), generate


@_compiled
def _part(at: int, end: int) -> np.uint64:
    """Up to eight letters, zeros from the end on; of no text at all, which has no place, zeros."""
    if end <= at:
        return np.uint64(0)
    word: np.uint64 = _letters(at)
    if end - at >= 8:
        return word
    beyond = np.uint64(8 * (8 - (end - at)))
    return word << beyond >> beyond


def _each(letter: int) -> np.uint64:
    """A letter, eight times."""
    return np.uint64(letter * 0x0101010101010101)


_ONES, _SPACES, _HIGHS = _each(1), _each(0x20), _each(0x80)
_QUOTES, _BACKSLASHES = _each(ord('"')), _each(ord("\\"))


@_compiled
def _unusual(word: np.uint64) -> np.uint64:
    """The high bit of letters that are no plain part of a string; sure up to the first of them."""
    # Where a letter is less than what is taken from it, it borrows from the letters behind.
    found = (word - _SPACES) | ((word ^ _QUOTES) - _ONES) | ((word ^ _BACKSLASHES) - _ONES)
    return found & ~word & _HIGHS


@_compiled
def _find(at: int, end: int, table: int) -> Any:
    """The number of a name in the table at an address; -1 if it has none."""
    length, word = np.uint64(end - at), _part(at, end)
    last, stride = _number_at(table), 8 * _number_at(table + 8)
    row = np.int64((word ^ length) * _MIX >> np.uint64(32)) & last
    while True:
        name = table + 16 + row * stride
        if _number_at(name) == 0:
            return np.int64(-1)
        if _number_at(name) == end - at + 1 and _letters(name + 16) == word:
            done = 8
            while at + done < end and _part(at + done, end) == _letters(name + 16 + done):
                done += 8
            if at + done >= end:
                return _number_at(name + 8)
        row = (row + 1) & last


@_compiled
def _number_at(at: int) -> Any:
    return np.int64(_letters(at))


@_compiled
def _find_listed(at: int, end: int, names: Hashes) -> int:
    """The place of a text in a list of names; -1 if it is none of them.

    The list is a constant: the compiler makes a chain of comparisons of this.
    """
    length, word = np.uint64(end - at), _part(at, end)
    for place in range(len(names)):
        if names[place, 0] == length and names[place, 1] == word:
            done = 1
            while at + 8 * done < end and _part(at + 8 * done, end) == names[place, 1 + done]:
                done += 1
            if at + 8 * done >= end:
                return place
    return -1


@_compiled
def _lower(word: np.uint64) -> np.uint64:
    """Eight letters, capital ones of ASCII as small ones (Mycroft's way, a letter a byte)."""
    low = word & ~_HIGHS
    from_a, behind_z = low + _FROM_A, low + _BEHIND_Z
    return word | ((from_a ^ behind_z) & ~word & _HIGHS) >> np.uint64(2)


_FROM_A, _BEHIND_Z = _each(0x80 - ord("A")), _each(0x80 - ord("Z") - 1)


@_compiled
def _find_folded(at: int, end: int, table: int) -> Any:
    """The same of a text without regard to case, among folded names."""
    length, word = np.uint64(end - at), _lower(_part(at, end))
    last, stride = _number_at(table), 8 * _number_at(table + 8)
    row = np.int64((word ^ length) * _MIX >> np.uint64(32)) & last
    while True:
        name = table + 16 + row * stride
        if _number_at(name) == 0:
            return np.int64(-1)
        if _number_at(name) == end - at + 1 and _letters(name + 16) == word:
            done = 8
            while at + done < end and _lower(_part(at + done, end)) == _letters(name + 16 + done):
                done += 8
            if at + done >= end:
                return _number_at(name + 8)
        row = (row + 1) & last


@_compiled
def _is_padded(at: int, end: int) -> bool:
    """Whether there is a blank at an end of a text that has no control characters."""
    return end > at and (_letter(at) == 0x20 or _letter(end - 1) == 0x20)


@_compiled
def _placeholder(at: int, end: int, short: int, long: int) -> int:
    """Whether an id is none: 1 if so, 0 if not, -1 if that is not plain."""
    if end - at > LONGEST_FOLDED:
        return int(_find(at, end, long) >= 0)
    if _is_padded(at, end):
        return -1
    return int(_find_folded(at, end, short) >= 0)


# -- tokens --------------------------------------------------------------------------------------

_QUOTE, _COLON, _COMMA, _MINUS, _PLUS, _POINT, _ZERO, _NINE, _BACKSLASH = b'":,-+.09\\'
_A, _E, _F, _N, _T, _U, _Z = b"aefntuZ"
_ESCAPES = np.isin(np.arange(256), list(b'"\\/bfnrt'))
_OPEN, _CLOSE, _OPEN_LIST, _CLOSE_LIST = b"{}[]"
_TRUE, _NULL, _FALS = (
    np.uint64(int.from_bytes(word, "little")) for word in (b"true", b"null", b"fals")
)
_POWERS = np.array([float(10**power) for power in range(23)])
"""Powers of ten that are floats, exactly."""
_EXACT = 2**53
_DEEPEST = 32
"""How deep a value may be nested: one bit each in an integer."""


@_compiled
def _space(at: int) -> int:
    """The place behind white space."""
    letter = _letter(at)
    while letter <= 0x20 and (letter in (0x20, 0x0A, 0x0D, 0x09)):
        at += 1
        letter = _letter(at)
    return at


@_compiled
def _run(at: int) -> int:
    """The place of the next letter that ends a string or is no plain part of it."""
    odd = _unusual(_letters(at))
    while odd == np.uint64(0):
        at += 8
        odd = _unusual(_letters(at))
    passed: int = _low_zeros(odd) >> 3
    return at + passed


@_compiled
def _string(at: int) -> int:
    """The place of the closing quote, from behind the opening one; -1 if there is none."""
    at = _run(at)
    return at if _letter(at) == _QUOTE else -1


@_compiled
def _skip_string(at: int) -> int:
    """The same for a string that nobody reads: there may be escapes in it."""
    at = _run(at)
    while _letter(at) == _BACKSLASH:
        if _letter(at + 1) == _U:
            number = 0
            for place in range(at + 2, at + 6):
                letter = _letter(place)
                lower = letter | 0x20
                if _ZERO <= letter <= _NINE:
                    number = number * 16 + (letter - _ZERO)
                elif _A <= lower <= _F:
                    number = number * 16 + (lower - _A) + 10
                else:
                    return -1
            if (
                0xD800 <= number < 0xE000
            ):  # half a character; whether the other follows is not plain
                return -1
            at = _run(at + 6)
        elif _ESCAPES[_letter(at + 1)]:
            at = _run(at + 2)
        else:
            return -1
    return at if _letter(at) == _QUOTE else -1


@_compiled
def _is_digit(at: int) -> bool:
    letter: int = _letter(at)
    return _ZERO <= letter <= _NINE


@_compiled
def _number(at: int) -> tuple[int, float]:
    """The place behind a number, -1 if it is none; and its value, NaN if that takes more."""
    negative = _letter(at) == _MINUS
    at += negative
    first = at
    mantissa = 0
    while _is_digit(at):
        mantissa = mantissa * 10 + (_letter(at) - _ZERO)
        at += 1
    digits = at - first
    if digits == 0 or (digits > 1 and _letter(first) == _ZERO):
        return -1, np.nan
    exponent = 0
    if _letter(at) == _POINT:
        at += 1
        point = at
        while _is_digit(at):
            mantissa = mantissa * 10 + (_letter(at) - _ZERO)
            at += 1
        if at == point:
            return -1, np.nan
        exponent = point - at
        digits += at - point
    if _letter(at) | 0x20 == _E:
        at += 1
        shrinks = _letter(at) == _MINUS
        at += shrinks or _letter(at) == _PLUS
        point = at
        power = 0
        while _is_digit(at):
            power = min(power * 10 + (_letter(at) - _ZERO), 1_000)
            at += 1
        if at == point:
            return -1, np.nan
        exponent += -power if shrinks else power
    # Both factors are floats, exactly, so that one operation rounds once (Clinger 1990). msgspec
    # tells -0 from -0.0; that is left to it.
    if digits > 18 or mantissa > _EXACT or abs(exponent) > 22 or (negative and mantissa == 0):
        return at, np.nan
    value = float(mantissa)
    value = value * _POWERS[exponent] if exponent >= 0 else value / _POWERS[-exponent]
    return at, -value if negative else value


@_compiled
def _word(at: int) -> int:
    """The place behind ``true``, ``false`` or ``null``; -1 if it is none of them."""
    four = _part(at, at + 4)
    if four in (_TRUE, _NULL):
        return at + 4
    return at + 5 if four == _FALS and _letter(at + 4) == _E else -1


@_compiled
def _key(at: int) -> tuple[int, int]:
    """Where a key ends, without its quotes, and its value begins; -1 at last if there is none."""
    if _letter(at) != _QUOTE:
        return 0, -1
    end = _string(at + 1)
    if end < 0:
        return 0, -1
    behind = _space(end + 1)
    if _letter(behind) != _COLON:
        return 0, -1
    return end, _space(behind + 1)


@_compiled
def _behind(at: int) -> tuple[int, bool]:
    """Behind a value: the place of the next key, or behind the object, and which; -1 for neither."""
    at = _space(at)
    if _letter(at) == _COMMA:
        return _space(at + 1), True
    return (at + 1 if _letter(at) == _CLOSE else -1), False


@_compiled
def _skip(at: int) -> int:
    """The place behind a value of any kind; -1 if it is none, or not plain."""
    depth = 0
    objects = 0  # a bit for each level, the last for the innermost: is it an object?
    while True:
        letter = _letter(at)
        if letter == _QUOTE:
            at = _skip_string(at + 1)
            if at < 0:
                return -1
            at += 1
        elif letter in (_OPEN, _OPEN_LIST):
            is_object = letter == _OPEN
            at = _space(at + 1)
            if _letter(at) == (_CLOSE if is_object else _CLOSE_LIST):
                at += 1
            else:
                depth += 1
                objects = objects << 1 | is_object
                if is_object:
                    _, at = _key(at)
                if at < 0 or depth > _DEEPEST:
                    return -1
                continue
        else:
            at = _word(at) if letter in (_N, _T, _F) else _number(at)[0]
            if at < 0:
                return -1
        # A value has ended, and perhaps what it is part of.
        while depth:
            at = _space(at)
            is_object = (objects & 1) == 1
            if _letter(at) == _COMMA:
                at = _space(at + 1)
                if is_object:
                    _, at = _key(at)
                    if at < 0:
                        return -1
                break
            if _letter(at) != (_CLOSE if is_object else _CLOSE_LIST):
                return -1
            at += 1
            depth -= 1
            objects >>= 1
        if depth == 0:
            return at


# -- a message -----------------------------------------------------------------------------------

_FIELDS = _list(
    [b"type", b"event", b"timestamp", b"userId", b"anonymousId", b"messageId", b"properties"]
)
_TYPE, _EVENT, _TIME, _USER, _ANONYMOUS, _ID, _PROPERTIES = range(7)
_NEEDED = 0b111
_CATEGORY_TEXT, _ORDER_TEXT, _CURRENCY_TEXT, _TEXTS = range(_PROPERTIES, _PROPERTIES + 4)
"""Places of the texts within properties, behind those of a message's own fields."""
_NAMES = _list(
    [
        b"quantity", b"price", b"revenue", b"total", b"value",
        b"category", b"order_id", b"currency", b"products",
        b"subtotal", b"refund_amount", b"total_quantity",
        b"orderId", b"transaction_id", b"transactionId",
    ]
)  # fmt: skip
_QUANTITY, _PRICE, _REVENUE, _TOTAL, _VALUE, _CATEGORY, _ORDER, _CURRENCY, _PRODUCTS = range(9)
_LINE = _list([b"price", b"quantity", b"currency"])
_LINES, _PRICED, _PIECES, _WORTH, _CURRENCIES, _AMOUNTS = range(5, 11)
"""Of products, behind the numbers: how many, how many with a price, their pieces, their worth, and how
many name a currency."""


@_compiled
def _product(at: int) -> tuple[int, float, float, bool, bool]:
    """The place behind a product, -1 if it is no JSON; its price, its pieces, and two truths.

    Price and pieces are NaN where it does not say them. The truths are whether it is plain, and whether
    it has a currency of its own.
    """
    price = pieces = np.nan
    if _letter(at) != _OPEN:
        return _skip(at), price, pieces, False, False
    at = _space(at + 1)
    if _letter(at) == _CLOSE:
        return at + 1, price, pieces, True, False
    seen, goes_on, plain = 0, True, True
    while goes_on:
        start = at + 1
        end, at = _key(at)
        if at < 0:
            return -1, price, pieces, False, False
        which = _find_listed(start, end, _LINE)
        if which < 0:
            at = _skip(at)
        else:
            # As a later field of the name would count, it is left to those who know.
            plain = plain and not seen >> which & 1
            seen |= 1 << which
            if which == 2:
                at = _skip(at)
            else:
                at, number, is_plain = _amount(at)
                plain = plain and is_plain
                if which == 0:
                    price = number
                else:
                    pieces = number
        if at < 0:
            return -1, price, pieces, False, False
        at, goes_on = _behind(at)
    return at, price, pieces, plain, bool(seen >> 2 & 1)


@_compiled
def _amount(at: int) -> tuple[int, float, bool]:
    """The place behind a number or null; its value, NaN for null; and whether it is one of them."""
    if _letter(at) == _N:
        return _word(at), np.nan, True
    if _letter(at) == _MINUS or _is_digit(at):
        at, number = _number(at)
        return at, number, not np.isnan(number)
    return _skip(at), np.nan, False


@_compiled
def _products(at: int, amounts: Floats) -> tuple[int, bool]:
    """The place behind products, -1 if they are no JSON; and whether they are plain.

    Args:
        at: where they begin.
        amounts: takes what they come to.
    """
    if _letter(at) != _OPEN_LIST:
        return _skip(at), False
    plain, goes_on = True, True
    at = _space(at + 1)
    if _letter(at) == _CLOSE_LIST:
        return at + 1, plain
    while goes_on:
        at, price, pieces, is_plain, names_currency = _product(at)
        if at < 0:
            return -1, False
        plain = plain and is_plain
        if np.isnan(pieces):
            pieces = 1.0
        amounts[_LINES] += 1.0
        amounts[_CURRENCIES] += names_currency
        amounts[_PIECES] += pieces
        if not np.isnan(price):
            amounts[_PRICED] += 1.0
            amounts[_WORTH] += price * pieces
        at = _space(at)
        goes_on = _letter(at) == _COMMA
        if goes_on:
            at = _space(at + 1)
    return (at + 1 if _letter(at) == _CLOSE_LIST else -1), plain


@_compiled
def _properties(at: int, starts: Ints, ends: Ints, amounts: Floats) -> tuple[int, int]:
    """The place behind properties, from their brace on; -1 if they are not plain.

    And a bit for each that is plain only as long as nobody reads it.

    Args:
        at: where they begin.
        starts: takes where category, order and currency begin.
        ends: takes where they end.
        amounts: takes the numbers; for what is not there it is left as it is.
    """
    unusual = 0
    if _letter(at) != _OPEN:
        return -1, unusual
    at = _space(at + 1)
    if _letter(at) == _CLOSE:
        return at + 1, unusual
    seen, goes_on = 0, True
    while goes_on:
        start = at + 1
        end, at = _key(at)
        if at < 0:
            return -1, unusual
        which = _find_listed(start, end, _NAMES)
        letter = _letter(at)
        is_plain = True
        if which < 0:
            at = _skip(at)
        else:
            if seen >> which & 1:
                return -1, unusual
            seen |= 1 << which
            if letter == _N:
                at = _word(at)
            elif which <= _VALUE:
                at, amounts[which], is_plain = _amount(at)
            elif which == _PRODUCTS:
                at, is_plain = _products(at, amounts)
            elif which <= _CURRENCY and letter == _QUOTE:
                place = _CATEGORY_TEXT + (which - _CATEGORY)
                starts[place] = at + 1
                end = _string(at + 1)
                if end < 0:  # escapes, perhaps
                    end, is_plain = _skip_string(at + 1), False
                ends[place] = end
                at = end + 1 if end >= 0 else -1
            else:
                at, is_plain = _skip(at), False
        if at < 0:
            return -1, unusual
        if not is_plain:
            unusual |= 1 << which
        at, goes_on = _behind(at)
    return at, unusual


@_compiled
def _message(at: int, starts: Ints, ends: Ints, amounts: Floats) -> tuple[int, int]:
    """The place behind a message, -1 if it is not plain; and what `_properties` says of its own.

    Args:
        at: where it begins.
        starts: takes where each text begins.
        ends: takes where each ends.
        amounts: takes the numbers.
    """
    unusual = 0
    at = _space(at)
    if _letter(at) != _OPEN:
        return -1, unusual
    at = _space(at + 1)
    seen, goes_on = 0, True
    while goes_on:
        start = at + 1
        end, at = _key(at)
        if at < 0:
            return -1, unusual
        which = _find_listed(start, end, _FIELDS)
        if which < 0:
            at = _skip(at)
        else:
            if seen >> which & 1:
                return -1, unusual
            seen |= 1 << which
            if _letter(at) == _N and which >= _USER:
                at = _word(at)
            elif which == _PROPERTIES:
                at, unusual = _properties(at, starts, ends, amounts)
            else:
                if _letter(at) != _QUOTE:
                    return -1, unusual
                starts[which] = at + 1
                at = _string(at + 1)
                ends[which] = at
                at = at + 1 if at >= 0 else -1
        if at < 0:
            return -1, unusual
        at, goes_on = _behind(at)
    return _space(at) if at >= 0 and seen & _NEEDED == _NEEDED else -1, unusual


# -- what it says --------------------------------------------------------------------------------

_TRACK = _list([b"track"])
_SIGNS = np.frombuffer(b"0000-00-00T00:00:00", np.uint8)
_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])


@_compiled
def _digits(at: int, count: int) -> int:
    number = 0
    for place in range(count):
        number = number * 10 + (_letter(at + place) - _ZERO)
    return number


@_compiled
def _time(at: int, end: int) -> int:
    """Milliseconds of ``2026-11-21T09:00:00.000Z``, with any fraction and zone; else -1.

    Days from civil date: Hinnant, "chrono-compatible low-level date algorithms".
    """
    if end - at <= len(_SIGNS):
        return -1
    for place in range(len(_SIGNS)):
        if _SIGNS[place] == _ZERO:
            if not _is_digit(at + place):
                return -1
        elif _letter(at + place) != _SIGNS[place]:
            return -1
    year, month, day = _digits(at, 4), _digits(at + 5, 2), _digits(at + 8, 2)
    hour, minute, second = _digits(at + 11, 2), _digits(at + 14, 2), _digits(at + 17, 2)
    if year < 1970 or month < 1 or month > 12 or hour > 23 or minute > 59 or second > 59:
        return -1
    leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day < 1 or day > _MONTH_DAYS[month] + leap:
        return -1
    shifted = year - (month <= 2)
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    days = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    milliseconds, offset = _fraction_and_zone(at + len(_SIGNS), end)
    if milliseconds < 0:
        return -1
    within = (hour * 60 + minute - offset) * 60_000 + second * 1_000 + milliseconds
    return days * 86_400_000 + within


@_compiled
def _fraction_and_zone(at: int, end: int) -> tuple[int, int]:
    """Milliseconds within the second, -1 if this is no end of a time; and minutes east of Greenwich."""
    milliseconds = 0
    if _letter(at) == _POINT or _letter(at) == _COMMA:
        at += 1
        first = at
        for worth in (100, 10, 1):
            if _is_digit(at):
                milliseconds += worth * (_letter(at) - _ZERO)
                at += 1
        while _is_digit(at):
            at += 1
        if at == first:
            return -1, 0
    sign = _letter(at)
    if sign == _Z:
        return (milliseconds if at + 1 == end else -1), 0
    if sign not in (_PLUS, _MINUS) or not (_is_digit(at + 1) and _is_digit(at + 2)):
        return -1, 0
    hours, minutes = _digits(at + 1, 2), 0
    at += 3
    if at < end:
        at += _letter(at) == _COLON
        if not (_is_digit(at) and _is_digit(at + 1)):
            return -1, 0
        minutes = _digits(at, 2)
        at += 2
    if at != end or hours > 23 or minutes > 59:
        return -1, 0
    offset = hours * 60 + minutes
    return milliseconds, (offset if sign == _PLUS else -offset)


@_compiled
def _hash(at: int, end: int, multipliers: int) -> np.uint64:
    """What `hashing.hash_text` says of a text that is not digested first."""
    mixed = np.uint64(0)
    while at < end:
        word = _part(at, end)
        mixed += (word * _letters(multipliers)) ^ (word >> np.uint64(32))
        at += 8
        multipliers += 8
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return max(mixed ^ (mixed >> np.uint64(31)), np.uint64(1))


@_inlined
def _quantity(amounts: Floats, refunds: bool) -> float:
    """What `fields` says; NaN stands for a number that is not there."""
    quantity: float = amounts[_QUANTITY]
    if np.isnan(quantity):
        quantity = 1.0
        if amounts[_LINES] > 0:
            quantity = amounts[_PIECES]
        elif refunds:
            for which in (_REVENUE, _TOTAL, _VALUE):
                if not np.isnan(amounts[which]):
                    quantity = 0.0
    return quantity


@_inlined
def _value(amounts: Floats, quantity: float) -> float:
    """What an event is worth, NaN if it says nothing of that."""
    value: float = amounts[_REVENUE]
    for which in (_TOTAL, _VALUE):
        if np.isnan(value):
            value = amounts[which]
    if np.isnan(value):
        value = amounts[_WORTH] if amounts[_PRICED] > 0 else amounts[_PRICE] * quantity
    return value


_NUMBERS_READ = sum(1 << which for which in range(15) if which not in (_CATEGORY, _CURRENCY))
"""Bits of what says an amount or an order, by all its names."""


@_inlined
def _money(at: int, end: int, currencies: int, rates: Floats, codes: Codes) -> tuple[float, int]:
    """What a unit of a currency is worth, NaN if that is not known, and its code; of none, the last ones."""
    which = _find_folded(at, end, currencies) if end > at else len(rates) - 1
    rate: float = rates[which] if which >= 0 else np.nan
    return rate, codes[which]


@_compiled
def _code(at: int, end: int, names: int, folds: int) -> tuple[int, bool]:
    """The code of an event, and whether that is sure."""
    code = _find(at, end, names)
    if code < 0:
        code = _find_folded(at, end, folds)
    if code < 0:
        return UNWATCHED, not _is_padded(at, end)
    return code, True


@_compiled
def _identity(
    at: int, end: int, placeholders: int, long_placeholders: int, multipliers: int
) -> tuple[np.uint64, bool]:
    """The hash of an id, 0 for none; and whether it is plain."""
    is_none = _placeholder(at, end, placeholders, long_placeholders)
    if is_none or end - at > _LONGEST:
        return np.uint64(0), is_none > 0
    return _hash(at, end, multipliers), True


_LONGEST = 8 * len(MULTIPLIERS)
"""A longer text is digested before it is hashed."""


@compiled_for(
    types.Array(types.uint8, 1, "C", readonly=True), types.int64[::1], types.uint64[::1],
    types.uint64[::1], types.boolean[:, ::1], types.uint64[::1],
    types.uint64[::1], types.uint64[::1], types.float64[::1], types.uint32[::1], types.uint64[::1],
    types.int64[::1],
)  # fmt: skip
def _parse(
    text: Letters,
    lengths: Ints,
    names: Hashes,
    folds: Hashes,
    uses: npt.NDArray[np.bool_],
    placeholders: Hashes,
    long_placeholders: Hashes,
    currencies: Hashes,
    rates: Floats,
    codes: Codes,
    multipliers: Hashes,
    limits: Ints,
) -> tuple[Any, ...]:
    """Columns of the plain messages, with gaps for those that are left.

    Args:
        text: all messages in UTF-8, a zero byte behind each, and eight at least behind all.
        lengths: of each message.
        names: table of the codes of watched events, by name.
        folds: table of the same, by folded name and alias.
        uses: by code, whether value and quantity are wanted, whether the order is, whether
            such an event takes one back, whether it cancels one, whether it does that or
            refunds one, and whether it is a review, which is left.
        placeholders: table of ids that are none, folded.
        long_placeholders: table of those that are not folded.
        currencies: table of the known ones, folded; empty where nobody looks at them.
        rates: of each, and of a message that names none, see `Fields.unnamed`.
        codes: what stands for each, and for the one that is meant by none.
        multipliers: of the hash.
        limits: most bytes of a message and of a user, earliest time and end of times, largest number.

    Returns:
        Places of the messages left; users, a line each; then the columns of `Parsed`.
    """
    count = len(lengths)
    kind = np.empty(count, np.uint8)
    time_ms = np.empty(count, np.int64)
    ids = np.empty(count, np.uint64)
    value = np.empty(count)
    quantity = np.empty(count)
    category = np.empty(count, np.uint64)
    order = np.empty(count, np.uint64)
    whole = np.empty(count, np.bool_)
    rate = np.empty(count)
    currency = np.empty(count, np.uint32)
    left = np.empty(count, np.int64)
    lines = np.empty(len(text), np.uint8)
    lefts = filled = 0
    starts, ends = np.zeros(_TEXTS, np.int64), np.zeros(_TEXTS, np.int64)
    amounts = np.empty(_AMOUNTS)
    # Addresses, because to hand arrays over costs more than what is done with them.
    factors: Any = np.int64(multipliers.ctypes.data)
    named: Any = np.int64(names.ctypes.data)
    folded: Any = np.int64(folds.ctypes.data)
    nones: Any = np.int64(placeholders.ctypes.data)
    long_nones: Any = np.int64(long_placeholders.ctypes.data)
    known: Any = np.int64(currencies.ctypes.data)
    at: Any = np.int64(text.ctypes.data)
    for i in range(count):
        end = at + lengths[i]
        for which in range(_USER, _TEXTS):
            starts[which] = ends[which] = 0
        for which in range(_LINES):
            amounts[which] = np.nan
        for which in range(_LINES, _AMOUNTS):
            amounts[which] = 0.0
        behind, unusual = -1, 0
        if lengths[i] <= limits[0]:
            behind, unusual = _message(at, starts, ends, amounts)
        plain = behind == end
        at = end + 1
        if plain:
            code, plain = _code(starts[_EVENT], ends[_EVENT], named, folded)
            uses_value, uses_order, takes_back = uses[0, code], uses[1, code], uses[2, code]
            pieces = _quantity(amounts, uses[4, code])
            worth = _value(amounts, pieces)
            kind[i], value[i], quantity[i], order[i] = code, 0.0, 1.0, 0
            rate[i], currency[i] = rates[-1], codes[-1]
            tells = uses_order and uses_value and not takes_back
            whole[i] = np.isnan(worth) and (
                tells or uses[3, code] or (takes_back and amounts[_LINES] == 0)
            )
            if uses_value and np.isnan(worth):
                worth = 0.0
            elif uses_value and len(rates) > 1:
                plain = plain and not unusual >> _CURRENCY & 1 and amounts[_CURRENCIES] == 0
                first, last = starts[_CURRENCY_TEXT], ends[_CURRENCY_TEXT]
                rate[i], currency[i] = _money(first, last, known, rates, codes)
                worth *= abs(rate[i])
            if uses_value:
                whole[i] = whole[i] or (uses[3, code] and worth == 0.0)
                value[i] = abs(worth) if takes_back else worth
                quantity[i] = abs(pieces) if takes_back else pieces
            if uses_order:
                order[i], is_plain = _identity(
                    starts[_ORDER_TEXT], ends[_ORDER_TEXT], nones, long_nones, factors
                )
                plain = plain and is_plain
            ids[i], is_plain = _identity(starts[_ID], ends[_ID], nones, long_nones, factors)
            user = _USER
            is_none = _placeholder(starts[user], ends[user], nones, long_nones)
            if is_none > 0:
                user = _ANONYMOUS
                is_none = _placeholder(starts[user], ends[user], nones, long_nones)
            time_ms[i] = _time(starts[_TIME], ends[_TIME])
            plain = (
                plain
                and is_plain
                and not uses[5, code]
                and not ((uses_value or uses_order) and unusual & _NUMBERS_READ)
                and _find_listed(starts[_TYPE], ends[_TYPE], _TRACK) >= 0
                and is_none == 0
                and ends[user] - starts[user] <= limits[1]
                and not unusual >> _CATEGORY & 1
                and ends[_CATEGORY_TEXT] - starts[_CATEGORY_TEXT] <= _LONGEST
                and limits[2] <= time_ms[i] < limits[3]
                and abs(value[i]) <= limits[4]
                and abs(quantity[i]) <= limits[4]
                and not (uses_order and not takes_back and (value[i] < 0.0 or quantity[i] < 0.0))
            )
        if plain:
            category[i] = np.uint64(0)
            if ends[_CATEGORY_TEXT] > starts[_CATEGORY_TEXT]:
                category[i] = _hash(starts[_CATEGORY_TEXT], ends[_CATEGORY_TEXT], factors)
            for letter in range(starts[user], ends[user]):
                lines[filled] = _letter(letter)
                filled += 1
        else:
            left[lefts] = i
            lefts += 1
        lines[filled] = 10  # a line feed
        filled += 1
    return (
        left[:lefts], lines[: filled - 1],
        kind, time_ms, ids, value, quantity, category, order, whole, rate, currency,
    )  # fmt: skip
