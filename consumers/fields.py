"""Says what the fields of a message mean: event names, ids, amounts, currencies.

Comes in: the values of fields, of whatever JSON type. Goes out: numbers and texts, or the reason why
there are none. `plain` is next, and asks only for what somebody reads; `compiled` comes to the same
in machine code, or leaves the message to `plain`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from stream.config import Money, Reviews, Worker
from stream.events import (
    ALIASES,
    ORDER_CANCELLED,
    ORDER_EVENTS,
    ORDER_REFUNDED,
    REFUND_EVENTS,
    Bools,
    Hashes,
    Product,
    Properties,
    Reason,
    code_of_currency,
)
from stream.features import FeatureTable
from stream.hashing import hash_text, hash_texts
from stream.placeholders import Placeholders, folded

LARGEST_NUMBER = 1e12
UNWATCHED = 255
"""Code of an event that no feature watches."""


class RefusedError(Exception):
    """A field that is read and says nothing that can be used."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


Amounts: TypeAlias = tuple[float, float, bool, float, int]
"""Value and quantity of an event, whether something is missing (it takes back an order and says no amount
at all, or tells of an order and says no value), and rate and currency of its money, see `EventColumns`."""


class NoList(NamedTuple):
    """What stands in place of a list of products, as the price of a line.

    So it is refused where prices are read, and nowhere else.
    """

    raw: Any


class NoProduct(NamedTuple):
    """The same of a line that should be an object, and holds one in a list or as a text of JSON."""

    raw: Any

    @staticmethod
    def is_one(line: Any) -> bool:
        """Whether a line is of this kind. A text or a number is the id of a product, without a price."""
        return isinstance(line, list) or (isinstance(line, str) and line.lstrip().startswith("{"))


class Codes(dict[str, int]):
    """Codes of the watched events by name; any other is `UNWATCHED`.

    A name counts as it is declared, then without regard to case and to blanks around it, then as an
    alias. Names that differ only by case or blanks are kept apart: each is known only as it is declared.

    Attributes:
        by_fold: codes by folded names.
    """

    def __init__(self, table: FeatureTable) -> None:
        super().__init__(table.codes)
        names: dict[bytes, set[int]] = {}
        for name, code in table.codes.items():
            names.setdefault(folded(name), set()).add(code)
        self.by_fold = {name: codes.pop() for name, codes in names.items() if len(codes) == 1}
        for alias, name in ALIASES.items():
            if name in table.codes and folded(alias) not in names:
                self.by_fold[folded(alias)] = table.codes[name]

    def __missing__(self, event: str) -> int:
        return self.by_fold.get(folded(event), UNWATCHED)


class Fields:
    """How fields are read, for one feature table.

    Attributes:
        codes: of events, by name.
        uses_value: by code, whether value and quantity of such an event are read.
        uses_order: by code, whether its order id is.
        uses_review: by code, whether its rating and its text are.
        takes_back: by code, whether it takes back what an order brought.
        cancels: by code, whether it takes back all of an order, whatever products it lists.
        refunds: by code, whether it takes back an order, and no other event does.
        placeholders: ids that are none.
        unwrap: in which field of a message the one is that is read.
        reads_currency: whether anybody looks at currencies.
        rates: what a unit of each currency is worth, by its folded code; empty until one is known.
        currencies: what stands for each of them, see `EventColumns`.
        usual_rate: of a message that names no currency.
        usual_currency: what stands for the one that is meant then.
        unnamed: the same as `EventColumns` has it: negative, unless there is one currency only.

    Args:
        agree: where no reporting currency is declared: is given the first that a message names, and
            says which one it is from now on. Without it nobody looks at currencies then.
    """

    def __init__(
        self,
        table: FeatureTable,
        worker: Worker,
        money: Money,
        reviews: Reviews | None = None,
        agree: Callable[[str], str] | None = None,
    ) -> None:
        self.codes = Codes(table)
        self.uses_value = table.uses_value
        self.uses_review = table.uses_review
        self._ratings = reviews or Reviews()
        taken = {*REFUND_EVENTS, *(name for f in table.features for name in f.minus)}
        self.takes_back = _mask(table, taken)
        self._takes_back: list[bool] = self.takes_back.tolist()
        self.cancels = _mask(table, {ORDER_CANCELLED})
        self._cancels: list[bool] = self.cancels.tolist()
        self.refunds = _mask(table, set(REFUND_EVENTS))
        self._refunds: list[bool] = self.refunds.tolist()
        self.uses_order = _mask(table, {*ORDER_EVENTS, *taken})
        self._uses_order: list[bool] = self.uses_order.tolist()
        self.placeholders = Placeholders(worker.placeholder_ids)
        self.unwrap = worker.unwrap
        rates = {money.currency: 1.0, **money.rates} if money.currency else {}
        self.rates = {folded(currency): rate for currency, rate in rates.items()}
        self.usual_rate = rates.get(money.default or money.currency, 1.0)
        self.unnamed = -self.usual_rate if len(self.rates) > 1 else 1.0
        several = len(self.rates) > 1
        self.currencies = {
            folded(currency): code_of_currency(currency) if several else 0 for currency in rates
        }
        self.usual_currency = self.currencies.get(folded(money.default or money.currency), 0)
        self._agree = None if money.currency else agree
        self._agreed = ""
        self.reads_currency = bool(rates) or self._agree is not None

    # -- ids ----------------------------------------------------------------------------------

    def ids(self, texts: list[str]) -> Hashes:
        """Hashes of ids, 0 for placeholders."""
        if not texts:
            return np.empty(0, np.uint64)
        hashes = hash_texts(texts)
        if self.placeholders.may_be_among(texts):
            hashes[[place for place, text in enumerate(texts) if text in self.placeholders]] = 0
        return hashes

    def order(self, properties: Properties) -> str:
        """The id of an order; a placeholder if there is none."""
        others = (properties.orderId, properties.transaction_id, properties.transactionId)
        if others == (None, None, None) and type(properties.order_id) is str:
            return properties.order_id
        for raw in (properties.order_id, *others):
            text = text_of_id(raw)
            if text is not None and text not in self.placeholders:
                return text
        return ""

    # -- reviews ------------------------------------------------------------------------------

    def review_id(self, raw: Any) -> int:
        """Hash of what a review is known by, whatever message tells of it; 0 if it has no id."""
        text = text_of_id(raw)
        if text is None or text in self.placeholders:
            return 0
        return hash_text(b"review " + text.encode(errors="backslashreplace"))

    def rating(self, raw: Any) -> float:
        """A rating, from -1 for the worst to 1 for the best; NaN for none.

        Raises:
            RefusedError: it is no number, or none that a review can give.
        """
        if is_absent(raw):
            return math.nan
        try:
            found = number(raw, "rating")
        except RefusedError as refused:
            # What stands there may be the text of the review, which must not be told.
            raise RefusedError(refused.reason, "the rating is no number") from None
        worst, best = self._ratings.worst_rating, self._ratings.best_rating
        if not worst <= found <= best:
            raise RefusedError(
                Reason.OUT_OF_RANGE,
                f"rating {found:g} is not within {worst:g} to {best:g}: say in reviews.worst_rating "
                "and reviews.best_rating which there are",
            )
        return (2.0 * found - worst - best) / (best - worst)

    # -- amounts ------------------------------------------------------------------------------

    def amounts(self, code: int, properties: Properties) -> Amounts:
        """What an event is worth whose value is read, in the reporting currency.

        The value is the revenue, which by the specification has neither shipping nor tax in it;
        else the total, as Segment's own libraries take it for the revenue; else the value, the
        subtotal, the sum of the products, and price x quantity. The quantity is the one that is
        said, else that of the products, else 1; a refund of an amount alone takes back no piece.

        Raises:
            RefusedError: something that decides is no number, or too large, or in a currency that
                nobody has declared; or an order is worth less than nothing.
        """
        takes_back = self._takes_back[code]
        products = properties.products or []
        raw, name = _amount(properties, takes_back)
        amount_alone = self._refunds[code] and raw is not None
        quantity = _quantity(properties, products, 0.0 if amount_alone else 1.0)
        said, rate, currency = self._worth(properties, products, raw, name, quantity)
        value = said or 0.0
        if takes_back:
            value, quantity = abs(value), abs(quantity)
        elif self._uses_order[code] and (value < 0.0 or quantity < 0.0):
            raise RefusedError(
                Reason.OUT_OF_RANGE,
                f"an order of {quantity:g} pieces worth {value:g}; if it is a refund, send "
                f"{ORDER_REFUNDED!r}",
            )
        if not (abs(value) <= LARGEST_NUMBER and abs(quantity) <= LARGEST_NUMBER):
            raise RefusedError(Reason.OUT_OF_RANGE, f"value {value:g}, quantity {quantity:g}")
        is_part = takes_back and bool(products) and not self._cancels[code]
        # A cancelled order is worth nothing any more, and some tell it so.
        silent = (said is None and not is_part) or (self._cancels[code] and value == 0.0)
        return value, quantity, self._uses_order[code] and silent, rate, currency

    def no_amounts(self, *, whole: bool) -> Amounts:
        """Of an event whose amounts nobody reads; `whole` of one that takes back all of its order."""
        return 0.0, 1.0, whole, self.unnamed, self.usual_currency

    def _worth(
        self,
        properties: Properties,
        products: Sequence[Product],
        raw: Any,
        name: str,
        quantity: float,
    ) -> tuple[float | None, float, int]:
        """What a message says in money, in the reporting currency; None if it says nothing.

        And its rate and currency. A line may name its own. Where the order names none, an amount of the
        whole order is in that of its lines. The rate of lines in several currencies is that of their sum.
        """
        unnamed = self.unnamed, self.usual_currency
        currency = properties.currency
        by_line = self.reads_currency and any(
            not is_absent(product.currency) for product in products
        )
        if raw is None and any(not is_absent(product.price) for product in products):
            value = converted = 0.0
            codes = set()
            for product in products:
                if not is_absent(product.price):
                    worth = number(product.price, "products.price") * _pieces(product)
                    value += worth
                    if by_line:
                        own = currency if is_absent(product.currency) else product.currency
                        converted += worth * self._rate(own)
                        codes.add(self._code(own))
            if by_line:
                rate = converted / value if value else 0.0
                code = codes.pop() if len(codes) == 1 else 0
                return converted, *((rate, code) if rate > 0.0 > self.unnamed else unnamed)
        elif raw is not None:
            value = number(raw, name)
        elif not is_absent(properties.price):
            value = number(properties.price, "price") * quantity
        else:
            return None, *unnamed
        if by_line and is_absent(currency):
            currency = _only_currency(products)
        if not self.reads_currency:
            return value, 1.0, 0
        rate = self._rate(currency)
        return value * rate, self.unnamed if is_absent(currency) else rate, self._code(currency)

    def says_no_amount(self, code: int, properties: Properties) -> bool:
        """Whether what takes back an order names nothing that it takes back."""
        raw, _ = _amount(properties, takes_back=True)
        if raw is not None or not is_absent(properties.price):
            return False
        products = properties.products or []
        if self._cancels[code]:
            return all(is_absent(product.price) for product in products)
        return not products

    def _code(self, currency: Any) -> int:
        """What stands for a currency that has a rate."""
        if is_absent(currency):
            return self.usual_currency
        return self.currencies.get(folded(currency), 0) if isinstance(currency, str) else 0

    def _rate(self, currency: Any) -> float:
        if is_absent(currency):
            return self.usual_rate
        if self._agree is not None:
            self._see_that_it_is_one(currency, self._agree)
            return 1.0
        rate = self.rates.get(folded(currency)) if isinstance(currency, str) else None
        if rate is None:
            raise RefusedError(
                Reason.UNKNOWN_CURRENCY,
                f"currency {shown(currency)} is not the reporting one, and has no rate: declare it "
                "in money.rates",
            )
        return rate

    def _see_that_it_is_one(self, currency: Any, agree: Callable[[str], str]) -> None:
        """Where no reporting currency is declared, the first that is named is it.

        What is no code of a currency says nothing.

        Raises:
            RefusedError: it is another.
        """
        code = (
            folded(currency).decode(errors="replace").upper() if isinstance(currency, str) else ""
        )
        if _CODE.fullmatch(code) is None:
            return
        if not self._agreed:
            self._agreed = agree(code)
            self.rates = {folded(self._agreed): 1.0}
        if code != self._agreed:
            raise RefusedError(
                Reason.UNKNOWN_CURRENCY,
                f"currency {shown(currency)} is not {self._agreed}, the first that was named here: set "
                "money.currency, and money.rates for the others",
            )


_CODE = re.compile("[A-Z]{3}")
"""A currency's, as ISO 4217 has them."""


def _only_currency(products: Sequence[Product]) -> Any:
    """The one currency that lines of an order name.

    Raises:
        RefusedError: they name several, and nobody says which of them an amount of the order is in.
    """
    said = [product.currency for product in products if not is_absent(product.currency)]
    texts = {folded(one) if isinstance(one, str) else repr(one) for one in said}
    if len(texts) > 1:
        raise RefusedError(
            Reason.UNKNOWN_CURRENCY,
            "the products are in several currencies, and no currency says which the order is in",
        )
    return said[0]


def _mask(table: FeatureTable, names: set[str]) -> Bools:
    mask = np.zeros(256, np.bool_)
    mask[[table.codes[name] for name in names if name in table.codes]] = True
    return mask


def text_of_id(raw: Any) -> str | None:
    """An id as text; None for what is none. Whole numbers are ids, and the same as their text."""
    if isinstance(raw, str):
        return raw
    if isinstance(raw, bool):
        return None
    if isinstance(raw, int):
        return str(raw) if abs(raw) < _NO_ID else None
    # Beyond these, whole numbers and floats cannot be told apart.
    if isinstance(raw, float) and raw.is_integer() and abs(raw) < 2**53:
        return str(int(raw))
    return None


_NO_ID = 10**100
"""Python does not write numbers of some thousand digits, and nobody means one."""


def is_absent(raw: Any) -> bool:
    """Whether a field says nothing: it is not there, null, or blank."""
    return raw is None or (isinstance(raw, str) and not folded(raw))


_BLANKS = " \t\n\r\v\f"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def number(raw: Any, name: str) -> float:
    """A number, or a text that is one.

    Raises:
        RefusedError: it is none, or not finite.
    """
    if type(raw) is float and math.isfinite(raw):
        return raw
    if isinstance(raw, str):
        if _NUMBER.fullmatch(raw.strip(_BLANKS)) is None:
            raise RefusedError(Reason.BAD_NUMBER, f"{name} {shown(raw)} is no number")
    elif isinstance(raw, NoList):
        raise RefusedError(Reason.WRONG_TYPE, f"products are {shown(raw.raw)}, and no list")
    elif isinstance(raw, NoProduct):
        raise RefusedError(Reason.WRONG_TYPE, f"a product is {shown(raw.raw)}, and no object")
    elif isinstance(raw, bool) or not isinstance(raw, int | float):
        raise RefusedError(Reason.WRONG_TYPE, f"{name} {shown(raw)} is no number")
    try:
        found = float(raw)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise RefusedError(Reason.OUT_OF_RANGE, f"{name}: a number that no computer holds")
    return found


def shown(raw: Any) -> str:
    """A value in a sentence: not more than a line of it."""
    if isinstance(raw, dict | list):
        return "an object" if isinstance(raw, dict) else "a list"
    if isinstance(raw, int) and abs(raw) > 2**64:  # whose digits Python may refuse to write
        return "a huge number"
    text = repr(raw)
    return text if len(text) <= 80 else f"{text[:80]}.."


def _amount(properties: Properties, takes_back: bool) -> tuple[Any, str]:
    """The field that says an amount, and its name; None if there is none."""
    if takes_back and not is_absent(properties.refund_amount):
        return properties.refund_amount, "refund_amount"
    for raw, name in (
        (properties.revenue, "revenue"),
        (properties.total, "total"),
        (properties.value, "value"),
        (properties.subtotal, "subtotal"),
    ):
        if raw is not None and not is_absent(raw):
            return raw, name
    return None, ""


def _quantity(properties: Properties, products: Sequence[Product], otherwise: float) -> float:
    if properties.quantity is not None and not is_absent(properties.quantity):
        return number(properties.quantity, "quantity")
    if properties.total_quantity is not None and not is_absent(properties.total_quantity):
        return number(properties.total_quantity, "total_quantity")
    if not products:
        return otherwise
    pieces = 0.0
    for product in products:
        pieces += _pieces(product)
    return pieces


def _pieces(product: Product) -> float:
    """How many pieces of a product; 1 if that is not said."""
    return 1.0 if is_absent(product.quantity) else number(product.quantity, "products.quantity")
