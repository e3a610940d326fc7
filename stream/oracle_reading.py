"""Reads one message for the oracle: what it says, or why it says nothing that can be counted.

Comes in: the bytes of a message. Goes out: `Said`; `oracle` is next. Nothing here is shared with the
parsers it judges but the declared names, the settings and the hashes of texts: it is written again,
one field after the other, and never looks at more than one message.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from stream.config import Money, Reviews, Worker
from stream.events import ALIASES, Reason
from stream.features import Feature
from stream.hashing import hash_text
from stream.reviews.words import words_of

LARGEST_NUMBER = 1e12
LONGEST_USER_BYTES = 256
LONGEST_FOLDED_BYTES = 16
"""A longer id is a placeholder only if it is written as it was declared."""
FIRST_YEAR, LAST_YEAR = 1995, 2099

_ORDERS = {"Order Completed", "Order Updated"}
_CANCELLED = "Order Cancelled"
_REFUNDS = {"Order Refunded", _CANCELLED}
_TIMES = ("timestamp", "originalTimestamp", "sentAt", "receivedAt")
_ORDER_IDS = ("order_id", "orderId", "transaction_id", "transactionId")
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the zone is added by hand below
_FIRST_MS = int(datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp()) * 1_000
_END_MS = int(datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC).timestamp()) * 1_000
_TIME = re.compile(
    r"(?P<year>[0-9]{4})(?:-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})|(?P<basic_day>[0-9]{4}))[Tt ]"
    r"(?:(?P<clock>[0-9]{2}:[0-9]{2}(?::[0-9]{2})?)|(?P<basic_clock>[0-9]{4}(?:[0-9]{2})?))"
    r"(?:[.,](?P<fraction>[0-9]+))?"
    r" ?(?:Z|z|UTC|GMT|(?P<sign>[-+\u2212])(?P<hours>[0-9]{2})(?::?(?P<minutes>[0-9]{2}))?"
    r"(?: [A-Z]{2,5})?)(?:\[[^\[\]]+\])?"
)
_SPACES = " \t\n\r\v\f"


class RefusedError(Exception):
    """A message that cannot be counted."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Said(NamedTuple):
    """What a message says of an event that is watched.

    Attributes:
        id: hash of the message id, 0 for none; so `category` and `order`.
        whole: whether it takes back an order and names no amount, or is one and names no value.
        rate: what a unit of its money is worth in the reporting currency.
        in_own: whether its amount names no currency, where there are several: it is in its order's.
        currency: where there are several, the one that it names or that is meant by none; else empty.
        rating: from -1 to 1; None for none.
        words: of the text of a review, as buckets.
    """

    user: str
    name: str
    time_ms: int
    id: int
    value: float
    quantity: float
    category: int
    order: int
    whole: bool
    rate: float = 1.0
    in_own: bool = False
    currency: str = ""
    rating: float | None = None
    words: tuple[int, ...] = ()


class Reader:
    """Reads messages.

    Args:
        features: as declared.
        watched: the events that they look at.
        worth: those whose value or quantity they read.
        worker: knows which ids are none.
        money: the reporting currency, and what others are worth in it.
        ratings: which there are.
        agreed: where none is declared, the one that was named first.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        watched: Collection[str],
        worth: Collection[str],
        worker: Worker,
        money: Money,
        ratings: Reviews,
        agreed: str = "",
    ) -> None:
        self._ratings = ratings
        self._reviews = {
            name for feature in features if feature.of == "sentiment" for name in feature.on
        }
        self._names = _spellings(watched)
        self._watched = frozenset(watched)
        self._worth = frozenset(worth)
        self._refunds = _REFUNDS.union(*(feature.minus for feature in features))
        self._first_named = agreed
        self.convert_by(money)
        self._none_short, self._none_long = set(), set()
        for placeholder in ("", *worker.placeholder_ids):
            if len(placeholder.encode()) > LONGEST_FOLDED_BYTES:
                self._none_long.add(placeholder)
            else:
                self._none_short.add(_folded(placeholder))

    def convert_by(self, money: Money) -> None:
        """From here on currencies are worth what these settings say."""
        self._money = money
        self._agreed = "" if money.currency else self._first_named
        self._reads_currency = bool(money.currency or self._agreed)

    def read(self, track: Mapping[str, Any]) -> Said | None:
        """What the object in a message says; None of an event that nobody watches.

        Raises:
            RefusedError: it is watched, and something that is read cannot be.
        """
        event = track.get("event")
        if event is None:
            raise RefusedError(Reason.MISSING_FIELD)
        if not isinstance(event, str):
            raise RefusedError(Reason.WRONG_TYPE)
        name = event if event in self._watched else self._names.get(_folded(event))
        if name is None:
            return None
        user = self._user(track)
        time_ms = _time(track)
        properties = track.get("properties")
        if properties in (None, []):
            properties = {}
        is_order = name in _ORDERS or name in self._refunds
        if not isinstance(properties, dict):
            if name in self._worth or is_order or name in self._reviews:
                raise RefusedError(Reason.WRONG_TYPE)
            properties = {}
        value, quantity, whole, rate, in_own, currency = self._worth_of(name, properties)
        rating: float | None = None
        words: tuple[int, ...] = ()
        message = self._hash(_id(track.get("messageId")))
        if name in self._reviews:
            rating = self._rating(properties.get("rating"))
            body, review = properties.get("review_body"), _id(properties.get("review_id"))
            words = tuple(words_of(body)) if isinstance(body, str) else ()
            if review is not None and not self._is_none(review):
                message = hash_text(f"review {review}".encode(errors="backslashreplace"))
        return Said(
            user=user,
            name=name,
            time_ms=time_ms,
            id=message,
            value=value,
            quantity=quantity,
            category=_hash_category(properties.get("category")),
            order=self._order(properties) if is_order else 0,
            whole=whole,
            rate=rate,
            in_own=in_own,
            currency=currency,
            rating=rating,
            words=words,
        )

    def _rating(self, raw: Any) -> float | None:
        """How far above or below the middle a rating is; the worst is -1, the best 1."""
        if _is_blank(raw):
            return None
        given, low, high = _number(raw), self._ratings.worst_rating, self._ratings.best_rating
        if given < low or given > high:
            raise RefusedError(Reason.OUT_OF_RANGE)
        return (2.0 * given - low - high) / (high - low)

    def _is_none(self, text: str) -> bool:
        if len(text.encode(errors="surrogatepass")) > LONGEST_FOLDED_BYTES:
            return text in self._none_long
        return _folded(text) in self._none_short

    def _hash(self, text: str | None) -> int:
        if text is None or self._is_none(text):
            return 0
        return hash_text(text.encode(errors="backslashreplace"))

    def _user(self, track: Mapping[str, Any]) -> str:
        raw = [track.get("userId"), track.get("anonymousId")]
        for one in raw:
            user = _id(one)
            if user is None or self._is_none(user):
                continue
            if len(user.encode(errors="surrogatepass")) > LONGEST_USER_BYTES:
                raise RefusedError(Reason.OUT_OF_RANGE)
            if any(0xD800 <= ord(letter) < 0xE000 for letter in user):
                raise RefusedError(Reason.NOT_JSON)
            return user
        if any(one is not None and _id(one) is None for one in raw):
            raise RefusedError(Reason.WRONG_TYPE)
        if any(one is not None and not _is_blank(one) for one in raw):
            raise RefusedError(Reason.PLACEHOLDER_USER)
        raise RefusedError(Reason.NO_USER)

    def _order(self, properties: Mapping[str, Any]) -> int:
        hashes = [self._hash(_id(properties.get(name))) for name in _ORDER_IDS]
        return next((found for found in hashes if found), 0)

    def _worth_of(
        self, name: str, properties: Mapping[str, Any]
    ) -> tuple[float, float, bool, float, bool, str]:
        """Value, quantity, whether all of an order is taken back; `rate`, `in_own` and `currency` of `Said`.

        Where no feature reads them: 0 and 1, whatever the message says.
        """
        refund = name in self._refunds
        lines = properties.get("products")
        products = lines if isinstance(lines, list) else []
        unread = not isinstance(lines, list) and not _is_blank(lines) and lines != {}
        fields = ["revenue", "total", "value", "subtotal"]
        if refund:
            fields.insert(0, "refund_amount")
        amount = next((properties[f] for f in fields if not _is_blank(properties.get(f))), None)
        pieces = [_field(product, "quantity", 1.0) for product in products]
        prices = [_field(product, "price", None) for product in products]
        # What a cancelled order had in it is no part of it that comes back.
        priced = unread or any(price is not None for price in prices)
        listed = priced if name == _CANCELLED else products or unread
        if name not in self._worth:
            nothing = amount is None and not listed and _is_blank(properties.get("price"))
            return 0.0, 1.0, refund and nothing, *self._usual()
        said = [properties.get(f) for f in ("quantity", "total_quantity")]
        stated = next((one for one in said if not _is_blank(one)), None)
        if stated is not None:
            quantity = _number(stated)
        elif products:
            quantity = _total(_number(piece) for piece in pieces)
        else:
            alone = name in _REFUNDS and amount is not None and not unread
            quantity = 0.0 if alone else 1.0
        if amount is None and unread:
            raise RefusedError(Reason.WRONG_TYPE)
        value, rate, in_own, currency = self._money_of(properties, products, amount, quantity)
        whole = value is None and (not listed if refund else name in _ORDERS)
        whole = whole or (name == _CANCELLED and value == 0.0)
        value = value or 0.0
        if refund:
            value, quantity = abs(value), abs(quantity)
        elif name in _ORDERS and min(value, quantity) < 0:
            raise RefusedError(Reason.OUT_OF_RANGE)
        if not (abs(value) <= LARGEST_NUMBER and abs(quantity) <= LARGEST_NUMBER):
            raise RefusedError(Reason.OUT_OF_RANGE)
        return value, quantity, whole, rate, in_own, currency

    def _money_of(
        self, properties: Mapping[str, Any], products: Sequence[Any], amount: Any, quantity: float
    ) -> tuple[float | None, float, bool, str]:
        """The amount in the reporting currency, None if nothing says one; and the rest as above."""
        lines = [[_field(line, name, None) for name in ("price", "currency")] for line in products]
        pieces = [_field(line, "quantity", 1.0) for line in products]
        own = [code for _, code in lines if code is not None] if self._reads_currency else []
        order_currency = properties.get("currency")
        if amount is not None:
            value = _number(amount)
        elif any(price is not None for price, _ in lines):
            worths = [
                (_number(price) * _number(piece), order_currency if code is None else code)
                for (price, code), piece in zip(lines, pieces, strict=True)
                if price is not None
            ]
            if own:
                in_all = _total(worth * self._rate(code) for worth, code in worths)
                face = _total(worth for worth, _ in worths)
                if not self._money.rates or not face or in_all / face <= 0.0:
                    return in_all, *self._usual()
                meant = {self._meant(code) for _, code in worths}
                return in_all, in_all / face, False, meant.pop() if len(meant) == 1 else ""
            value = _total(worth for worth, _ in worths)
        elif not _is_blank(properties.get("price")):
            value = _number(properties["price"]) * quantity
        else:
            return None, *self._usual()
        if own and _is_blank(order_currency):
            spelt = {_folded(one) if isinstance(one, str) else repr(one) for one in own}
            if len(spelt) > 1:
                raise RefusedError(Reason.UNKNOWN_CURRENCY)
            order_currency = own[0]
        if not self._reads_currency:
            return value, 1.0, False, ""
        rate = self._rate(order_currency)
        if not self._money.rates or _is_blank(order_currency):
            return value * rate, *self._usual()
        return value * rate, rate, False, self._meant(order_currency)

    def _usual(self) -> tuple[float, bool, str]:
        """`rate`, `in_own` and `currency` of a message that says no amount."""
        money = self._money
        if not money.rates:
            return 1.0, False, ""
        return self._rate(None), True, money.default or money.currency

    def _meant(self, currency: Any) -> str:
        """The code of a currency that has a rate; of none, that of the usual one."""
        if not isinstance(currency, str) or _is_blank(currency):
            return self._money.default or self._money.currency
        return _folded(currency).decode().upper()

    def _rate(self, currency: Any) -> float:
        """What a unit of a currency is worth in the reporting one."""
        money = self._money
        if self._agreed:
            self._see_that_it_is_agreed(currency)
            return 1.0
        if _is_blank(currency):
            code = money.default or money.currency
        elif isinstance(currency, str):
            code = _folded(currency).decode(errors="replace").upper()
        else:
            raise RefusedError(Reason.UNKNOWN_CURRENCY)
        if code == money.currency:
            return 1.0
        if code not in money.rates:
            raise RefusedError(Reason.UNKNOWN_CURRENCY)
        return money.rates[code]

    def _see_that_it_is_agreed(self, currency: Any) -> None:
        """Where none is declared, nobody counts what names another; three letters name one."""
        if not isinstance(currency, str):
            return
        code = currency.strip(" \t\n\r\v\f").upper()
        is_code = len(code) == 3 and code.isascii() and code.isalpha()
        if is_code and code != self._agreed:
            raise RefusedError(Reason.UNKNOWN_CURRENCY)


# -- fields ----------------------------------------------------------------------------------


def _spellings(watched: Collection[str]) -> dict[bytes, str]:
    """Names by how they may be written: any case, blanks around, and the names of version 1."""
    found: dict[bytes, str | None] = {}
    for name in watched:
        found[_folded(name)] = None if _folded(name) in found else name
    for alias, name in ALIASES.items():
        if name in watched:
            found.setdefault(_folded(alias), name)
    return {spelling: name for spelling, name in found.items() if name is not None}


def _folded(text: str) -> bytes:
    return text.strip(_SPACES).encode(errors="surrogatepass").lower()


def _is_blank(raw: Any) -> bool:
    return raw is None or (isinstance(raw, str) and not raw.strip(_SPACES))


def _id(raw: Any) -> str | None:
    """An id as text; None for what can be none."""
    if isinstance(raw, str):
        return raw
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    if isinstance(raw, int):
        return str(raw) if -(10**100) < raw < 10**100 else None
    return str(int(raw)) if abs(raw) < 9_007_199_254_740_992 and raw == int(raw) else None


def _field(product: Any, name: str, otherwise: Any) -> Any:
    raw = product.get(name) if isinstance(product, dict) else None
    if name == "price" and not isinstance(product, dict | int | float | None):
        # A text is a product's id, unless there is an object in it; a list is no price.
        holds_object = isinstance(product, list) or product.lstrip()[:1] == "{"
        return [product] if holds_object else otherwise
    return otherwise if _is_blank(raw) else raw


def _number(raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise RefusedError(Reason.WRONG_TYPE)
    if isinstance(raw, str):
        digits = raw.strip(_SPACES)
        if re.fullmatch(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", digits) is None:
            raise RefusedError(Reason.BAD_NUMBER)
    try:
        number = float(raw)
    except OverflowError:
        raise RefusedError(Reason.OUT_OF_RANGE) from None
    if math.isinf(number) or math.isnan(number):
        raise RefusedError(Reason.OUT_OF_RANGE)
    return number


def _total(numbers: Iterable[float]) -> float:
    """Added one after the other, as every reader of the message must, or they differ in a bit."""
    total = 0.0
    for number in numbers:
        total = total + number
    return total


def _hash_category(raw: Any) -> int:
    text = _id(raw)
    return hash_text(text.encode(errors="backslashreplace")) if text else 0


def _time(track: Mapping[str, Any]) -> int:
    said = [track[name] for name in _TIMES if not _is_blank(track.get(name))]
    if not said:
        raise RefusedError(Reason.MISSING_FIELD)
    if not isinstance(said[0], str):
        raise RefusedError(Reason.WRONG_TYPE)
    return parse_time(said[0])


def parse_time(text: str) -> int:
    """Milliseconds since 1970 of an ISO 8601 text with a zone, cut to whole ones.

    Raises:
        RefusedError: it is none, or outside `FIRST_YEAR` to `LAST_YEAR`.
    """
    match = _TIME.fullmatch(text.strip(_SPACES))
    if match is None:
        raise RefusedError(Reason.BAD_TIME)
    said = match.groupdict()
    day = said["basic_day"] or said["month"] + said["day"]
    clock = said["basic_clock"] or said["clock"].replace(":", "")
    fraction, sign = said["fraction"] or "", said["sign"]
    hours, minutes = int(said["hours"] or 0), int(said["minutes"] or 0)
    if (fraction and len(clock) < len("hhmmss")) or hours > 23 or minutes > 59:
        raise RefusedError(Reason.BAD_TIME)
    hour, minute, second = int(clock[:2]), int(clock[2:4]), int(clock[4:] or 0)
    midnight_after = (hour, minute, second) == (24, 0, 0)
    if not midnight_after and (hour > 23 or minute > 59 or second > 60):
        raise RefusedError(Reason.BAD_TIME)
    try:
        date = datetime(int(said["year"]), int(day[:2]), int(day[2:]))  # noqa: DTZ001 - as above
    except ValueError:
        raise RefusedError(Reason.BAD_TIME) from None
    offset = timedelta(hours=hours, minutes=minutes)
    since = date - _EPOCH + timedelta(hours=hour, minutes=minute, seconds=second)
    since += -offset if sign == "+" else offset
    time_ms = since // timedelta(seconds=1) * 1_000 + int((fraction + "000")[:3])
    if not _FIRST_MS <= time_ms < _END_MS:
        raise RefusedError(Reason.BAD_TIME)
    return time_ms


# -- JSON ------------------------------------------------------------------------------------


def parse_object(value: bytes) -> dict[str, Any]:
    """The object in a message.

    Raises:
        RefusedError: there is none.
    """
    if value[:3] == b"\xef\xbb\xbf":
        value = value[3:]
        if not value:
            raise RefusedError(Reason.EMPTY)
    cut_short = False
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            raise RefusedError(Reason.NOT_JSON) from None
        # The cut went through a character; what stands before it decides.
        text, cut_short = value[: error.start].decode(), True
    try:
        parsed = json.loads(text, parse_int=_integer, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise RefusedError(_why_no_json(text, error)) from None
    except RecursionError:
        # A thousand brackets deep is no message.
        raise RefusedError(Reason.NOT_JSON) from None
    if cut_short:
        raise RefusedError(Reason.NOT_JSON)
    if not isinstance(parsed, dict):
        raise RefusedError(Reason.WRONG_TYPE)
    return parsed


def unwrapped(outer: dict[str, Any], path: str) -> dict[str, Any]:
    """The object in a field of another, or the other if there is none.

    Raises:
        RefusedError: there is a text that should be one.
    """
    inner: Any = outer
    for name in path.split(".") if path else ():
        if isinstance(inner, str):
            try:
                inner = parse_object(inner.encode())
            except (RefusedError, UnicodeEncodeError):
                return outer
        if not isinstance(inner, dict) or name not in inner:
            return outer
        inner = inner[name]
    if isinstance(inner, str) and inner.lstrip()[:1] == "{":
        try:
            return parse_object(inner.encode())
        except UnicodeEncodeError:
            return outer
    return inner if isinstance(inner, dict) else outer


def _integer(digits: str) -> float | int:
    """Python writes and reads no more than some thousand digits."""
    return int(digits) if len(digits) < 1_000 else math.inf * (-1 if digits[0] == "-" else 1)


def _no_constant(_name: str) -> None:
    """NaN and Infinity, which Python reads and JSON does not know."""
    raise RefusedError(Reason.NOT_JSON)


def _why_no_json(text: str, error: json.JSONDecodeError) -> Reason:
    """Truncated, if more text could have made it JSON; a number cut in two is taken for wrong."""
    if error.msg.startswith("Invalid control character"):
        return Reason.NOT_JSON
    rest = text[error.pos :].strip(" \t\r\n")
    unfinished = (
        not rest
        or error.msg.startswith("Unterminated string")
        or (error.msg == "Expecting value" and _begins_literal(rest))
        or (error.msg.startswith("Invalid \\u") and _begins_escape(rest))
    )
    return Reason.TRUNCATED if unfinished else Reason.NOT_JSON


def _begins_escape(rest: str) -> bool:
    """Too short for four digits; Python also complains of an escape that nothing follows."""
    return len(rest) < len("uXXXX") or re.fullmatch("u[0-9a-fA-F]{4}", rest) is not None


def _begins_literal(rest: str) -> bool:
    return any(literal.startswith(rest) for literal in ("true", "false", "null"))
