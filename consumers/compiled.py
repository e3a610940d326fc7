"""Parses plain track messages to columns with numba; leaves anything unusual to the plain parser.

Comes in: values of messages. Goes out: `Parsed`, the same to the bit as from `plain.PlainParser`.
The extra ``segstream[fast]``: to import this module loads numba, and compiles `_parse` unless a
cache on disk has it.

A message is plain if it is JSON, not nested deep, and a `track` with every field once, without
escapes in those, with a time as browsers write it and numbers that one operation makes exact. The
functions here see whether it is: a strict validator of that part of JSON, so that whatever is taken
is valid for msgspec too. What is not plain may be good or bad. It is not judged here.

A zero byte stands behind every message. It is part of no token, so nothing that reads tokens has to
look for the end of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from consumers.plain import (
    LARGEST_NUMBER,
    LONGEST_USER,
    UNWATCHED,
    Odd,
    Parsed,
    PlainParser,
)
from stream.events import Floats, Hashes, Ints
from stream.features import FeatureTable
from stream.hashing import MULTIPLIERS
from stream.times import EARLIEST_MS, LATEST_MS

Letters = npt.NDArray[np.uint8]
Function = TypeVar("Function", bound=Callable[..., Any])


class CompiledParser:
    """Parses for one feature table.

    Attributes:
        left: how many messages were left to the plain parser so far.
    """

    def __init__(self, table: FeatureTable, message_bytes: int, plain: PlainParser) -> None:
        self.left = 0
        self._plain = plain
        self._names = _table([name.encode() for name in table.codes])
        self._codes = np.array([*table.codes.values(), UNWATCHED], np.uint8)
        self._uses_value = table.uses_value
        # What other modules decide is an argument: the cache on disk does not see it change.
        self._limits = np.array(
            [message_bytes, LONGEST_USER, EARLIEST_MS, LATEST_MS, int(LARGEST_NUMBER)], np.int64
        )

    def parse(self, values: Sequence[Any]) -> Parsed:
        """Columns of messages, each bytes or None, in the order they come."""
        try:
            text, lengths = _joined(values)
            if not text.isascii():
                text.decode()
        except (TypeError, UnicodeDecodeError):  # a message without a value, or not UTF-8
            self.left += len(values)
            return self._plain.parse(values)
        left, lines, *columns = _parse(
            np.frombuffer(text, np.uint8), lengths, self._names, self._codes, self._uses_value,
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
        rest = self._plain.parse([values[place] for place in places])
        for place, user in zip(places, rest.users, strict=True):
            users[place] = user
        for column, found in zip(columns, rest[2:], strict=True):
            column[left] = found
        return Parsed(users, rest.odd.moved(places), *columns)


def _joined(values: Sequence[bytes]) -> tuple[bytes, Ints]:
    """All values, a zero byte behind each and eight behind all; and their lengths."""
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    return b"\0".join([*values, bytes(8)]), lengths


def _table(names: Sequence[bytes]) -> Hashes:
    """A row for each name: its length, and its letters in words of eight."""
    words = -(-max(map(len, names), default=0) // 8) or 1
    table = np.zeros((len(names), 1 + words), "<u8")
    for row, name in zip(table, names, strict=True):
        row[0] = len(name)
        row[1:] = np.frombuffer(name.ljust(8 * words, b"\0"), "<u8")
    return table


def _intrinsic(generator: Any) -> Callable[[Any], Any]:
    """`numba.extending.intrinsic`: a function of one argument that is made of LLVM's instructions."""
    return cast("Callable[[Any], Any]", intrinsic(generator))


def _compiled(function: Function) -> Function:
    """Compiled within whatever calls it."""
    return cast("Function", numba.njit(error_model="numpy")(function))


def _compiled_for(*arguments: Any) -> Callable[[Function], Function]:
    """Compiled at once for arguments of these types, or taken from the cache on disk."""

    def compile_now(function: Function) -> Function:
        try:
            found = numba.njit([arguments], error_model="numpy", cache=True)(function)
        except RuntimeError:  # no folder for the cache can be written
            found = numba.njit([arguments], error_model="numpy")(function)
        return cast("Function", found)

    return compile_now


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
    """Up to eight letters, zeros from the end on."""
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
def _find(at: int, end: int, names: Hashes) -> int:
    """The place of a text in a table of names; their number if it is none of them."""
    length = np.uint64(end - at)
    for place in range(len(names)):
        if names[place, 0] == length:
            done = 0
            while at + 8 * done < end and _part(at + 8 * done, end) == names[place, 1 + done]:
                done += 1
            if at + 8 * done >= end:
                return place
    return len(names)


# -- tokens --------------------------------------------------------------------------------------

_QUOTE, _COLON, _COMMA, _MINUS, _PLUS, _POINT, _ZERO, _NINE, _BACKSLASH = b'":,-+.09\\'
_A, _E, _F, _N, _T, _U = b"aefntu"
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

_FIELDS = _table([b"type", b"event", b"userId", b"messageId", b"timestamp", b"properties"])
_TYPE, _EVENT, _USER, _ID, _TIME, _PROPERTIES, _UNKNOWN = range(7)
_NEEDED = 0b11111
_AMOUNTS = _table([b"quantity", b"price", b"revenue", b"total", b"value", b"category"])
_QUANTITY, _PRICE, _REVENUE, _TOTAL, _VALUE, _CATEGORY, _OTHER = range(7)


@_compiled
def _properties(at: int, starts: Ints, ends: Ints, amounts: Floats) -> int:
    """The place behind properties, from their brace on; -1 if they are not plain.

    Args:
        at: where they begin.
        starts: takes where the category begins, in place of the properties.
        ends: takes where it ends.
        amounts: takes the numbers; for what is not there it is left as it is.
    """
    if _letter(at) != _OPEN:
        return -1
    at = _space(at + 1)
    if _letter(at) == _CLOSE:
        return at + 1
    seen, goes_on = 0, True
    while goes_on:
        start = at + 1
        end, at = _key(at)
        if at < 0:
            return -1
        which = _find(start, end, _AMOUNTS)
        if which == _OTHER:
            at = _skip(at)
        else:
            if seen >> which & 1:
                return -1
            seen |= 1 << which
            if _letter(at) == _N:
                at = _word(at)
            elif which == _CATEGORY:
                if _letter(at) != _QUOTE:
                    return -1
                starts[_PROPERTIES] = at + 1
                at = _string(at + 1)
                ends[_PROPERTIES] = at
                at = at + 1 if at >= 0 else -1
            else:
                at, amounts[which] = _number(at)
                if np.isnan(amounts[which]):
                    return -1
        if at < 0:
            return -1
        at, goes_on = _behind(at)
    return at


@_compiled
def _message(at: int, starts: Ints, ends: Ints, amounts: Floats) -> int:
    """The place behind a message; -1 if it is not plain.

    Args:
        at: where it begins.
        starts: takes where each field begins; for properties, where the category does.
        ends: takes where each ends.
        amounts: takes the numbers.
    """
    at = _space(at)
    if _letter(at) != _OPEN:
        return -1
    at = _space(at + 1)
    seen, goes_on = 0, True
    while goes_on:
        start = at + 1
        end, at = _key(at)
        if at < 0:
            return -1
        which = _find(start, end, _FIELDS)
        if which == _UNKNOWN:
            at = _skip(at)
        else:
            if seen >> which & 1:
                return -1
            seen |= 1 << which
            if which == _PROPERTIES:
                at = _properties(at, starts, ends, amounts)
            else:
                if _letter(at) != _QUOTE:
                    return -1
                starts[which] = at + 1
                at = _string(at + 1)
                ends[which] = at
                at = at + 1 if at >= 0 else -1
        if at < 0:
            return -1
        at, goes_on = _behind(at)
    return _space(at) if at >= 0 and seen & _NEEDED == _NEEDED else -1


# -- what it says --------------------------------------------------------------------------------

_TRACK = _table([b"track"])
_SIGNS = np.frombuffer(b"0000-00-00T00:00:00.000Z", np.uint8)
_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])


@_compiled
def _digits(at: int, count: int) -> int:
    number = 0
    for place in range(count):
        number = number * 10 + (_letter(at + place) - _ZERO)
    return number


@_compiled
def _time(at: int, end: int) -> int:
    """Milliseconds of ``2026-11-21T09:00:00.000Z``; -1 for any other form, or no time.

    Days from civil date: Hinnant, "chrono-compatible low-level date algorithms".
    """
    if end - at != len(_SIGNS):
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
    within = (hour * 60 + minute) * 60_000 + second * 1_000 + _digits(at + 20, 3)
    return days * 86_400_000 + within


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


@_compiled
def _amounts(amounts: Floats) -> tuple[float, float]:
    """What `plain.amounts` says; NaN stands for a number that is not there."""
    quantity = 1.0 if np.isnan(amounts[_QUANTITY]) else amounts[_QUANTITY]
    for which in (_REVENUE, _TOTAL, _VALUE):
        if not np.isnan(amounts[which]):
            return amounts[which], quantity
    if not np.isnan(amounts[_PRICE]):
        return amounts[_PRICE] * quantity, quantity
    return 0.0, quantity


@_compiled_for(
    types.Array(types.uint8, 1, "C", readonly=True), types.int64[::1], types.uint64[:, ::1],
    types.uint8[::1], types.boolean[::1], types.uint64[::1], types.int64[::1],
)  # fmt: skip
def _parse(
    text: Letters,
    lengths: Ints,
    names: Hashes,
    codes: npt.NDArray[np.uint8],
    uses_value: npt.NDArray[np.bool_],
    multipliers: Hashes,
    limits: Ints,
) -> tuple[Any, ...]:
    """Columns of the plain messages, with gaps for those that are left.

    Args:
        text: all messages in UTF-8, a zero byte behind each, and eight at least behind all.
        lengths: of each message.
        names: table of the watched events.
        codes: of each name, and of any other.
        uses_value: by code, whether value and quantity are wanted.
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
    order = np.zeros(count, np.uint64)
    whole = np.zeros(count, np.bool_)
    left = np.empty(count, np.int64)
    lines = np.empty(len(text), np.uint8)
    lefts = filled = 0
    starts, ends, amounts = np.zeros(6, np.int64), np.zeros(6, np.int64), np.empty(5)
    longest = 8 * len(multipliers)
    factors: Any = np.int64(multipliers.ctypes.data)
    at: Any = np.int64(text.ctypes.data)
    for i in range(count):
        end = at + lengths[i]
        starts[_PROPERTIES] = ends[_PROPERTIES] = 0
        for which in range(len(amounts)):
            amounts[which] = np.nan
        plain = lengths[i] <= limits[0] and _message(at, starts, ends, amounts) == end
        at = end + 1
        if plain:
            code = codes[_find(starts[_EVENT], ends[_EVENT], names)]
            kind[i], value[i], quantity[i] = code, 0.0, 1.0
            if uses_value[code]:
                value[i], quantity[i] = _amounts(amounts)
            time_ms[i] = _time(starts[_TIME], ends[_TIME])
            plain = (
                _find(starts[_TYPE], ends[_TYPE], _TRACK) == 0
                and 0 < ends[_USER] - starts[_USER] <= limits[1]
                and ends[_ID] - starts[_ID] <= longest
                and ends[_PROPERTIES] - starts[_PROPERTIES] <= longest
                and limits[2] <= time_ms[i] < limits[3]
                and abs(value[i]) <= limits[4]
                and abs(quantity[i]) <= limits[4]
            )
        if plain:
            ids[i] = _hash(starts[_ID], ends[_ID], factors)
            category[i] = np.uint64(0)
            if ends[_PROPERTIES] > starts[_PROPERTIES]:
                category[i] = _hash(starts[_PROPERTIES], ends[_PROPERTIES], factors)
            for letter in range(starts[_USER], ends[_USER]):
                lines[filled] = _letter(letter)
                filled += 1
        else:
            left[lefts] = i
            lefts += 1
        lines[filled] = 10  # a line feed
        filled += 1
    return (
        left[:lefts], lines[: filled - 1],
        kind, time_ms, ids, value, quantity, category, order, whole,
    )  # fmt: skip
