"""Reads numbers as people write them: grouped digits, either decimal sign, a currency beside them.

Comes in: text, and the texts of a whole column. Goes out: values and currencies. ``1,250`` can mean
two numbers: what else stands in its column tells which, or the mapping; else it is refused, because
no amount may change its size unnoticed. `row_mapper` is next.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal, NamedTuple

Decimal = Literal[".", ","]
LARGEST_NUMBER = 1e12

_CODES = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN "
    "BWP BYN BZD CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD "
    "FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HRK HTG HUF IDR ILS INR IQD IRR ISK JMD JOD "
    "JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT "
    "MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG "
    "QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS "
    "TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XOF XPF YER ZAR "
    "ZMW ZWL "
)
_ISO_4217 = frozenset(_CODES.split())
_ONE_CURRENCY = {
    "€": "EUR", "Euro": "EUR", "euro": "EUR", "US$": "USD", "C$": "CAD", "CA$": "CAD", "A$": "AUD", "AU$": "AUD", "NZ$": "NZD",
    "HK$": "HKD", "S$": "SGD", "NT$": "TWD", "R$": "BRL", "MX$": "MXN", "CN¥": "CNY", "JP¥": "JPY",
    "円": "JPY", "元": "CNY", "₹": "INR", "₽": "RUB", "\u0440\u0443\u0431.": "RUB", "\u0440\u0443\u0431": "RUB", "₩": "KRW",
    "₺": "TRY", "TL": "TRY", "zł": "PLN", "Kč": "CZK", "Ft": "HUF", "lei": "RON", "₫": "VND",
    "฿": "THB", "บาท": "THB", "원": "KRW", "đ": "VND", "VNĐ": "VND", "₴": "UAH", "₪": "ILS", "₦": "NGN", "₱": "PHP", "Rp": "IDR", "Rp.": "IDR", "S/": "PEN",
    "S/.": "PEN", "\u043b\u0432": "BGN", "\u043b\u0432.": "BGN",
}  # fmt: skip
_WITH_DOTS = {
    "\u0631.\u0633": "SAR", "\u062f.\u0625": "AED", "\u062f.\u0643": "KWD", "\u062c.\u0645": "EGP",
    "\u0631.\u0642": "QAR", "\u062f.\u0628": "BHD", "\u0631.\u0639": "OMR", "\u062f.\u0623": "JOD",
    "\u062f.\u0645": "MAD", "\u062f.\u062a": "TND", "\u062f.\u062c": "DZD", "\u0639.\u062f": "IQD",
    "\u0644.\u0644": "LBP",
}  # fmt: skip
"""Arabic abbreviations, which have a full stop within."""
_SEVERAL_CURRENCIES = {
    "$": "USD", "£": "GBP", "¥": "JPY", "￥": "JPY", "Fr.": "CHF", "SFr.": "CHF", "Rs.": "INR",
    "Rs": "INR", "R": "ZAR", "kr": None, "kr.": None,
}  # fmt: skip
"""Signs of more than one currency, and the one that is usually meant; what the mapping says of the
column counts more."""

_WITHOUT_PARTS = "BIF CLP DJF GNF HUF IDR ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
WHOLE_CURRENCIES = frozenset(_WITHOUT_PARTS.split())
"""Those of which nobody writes parts: by ISO 4217 they have none, or nobody pays with them. So a sign
before three digits groups them: `¥1,200` is 1200, and so is `1.200 Ft`."""

_LONGEST = 64
_KNOWN = 65_536
_NEGATIVE = "\u2212\u2013-"
_SPACES = " \u00a0\u2007\u2009\u202f"
_WORD = r"[^\d\s.,'\u2019()+\-\u2212\u2013]{1,4}\.?"
_NUMBER = re.compile(
    rf"(?P<open>\()?\s*(?P<before>[+{_NEGATIVE}])?\s*(?P<left>{_WORD})?\s*(?P<between>[+{_NEGATIVE}])?\s*"
    rf"(?P<digits>[0-9][0-9.,'\u2019{_SPACES}]*|[.,][0-9]+)(?P<power>[eE][+-]?[0-9]{{1,3}})?"
    rf"(?P<after>[\u2014{_NEGATIVE}]{{1,2}})?\s*(?P<right>{_WORD})?\s*(?P<last>[{_NEGATIVE}])?\s*(?P<close>\))?"
)
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""Marks of direction and blanks without width: spreadsheets and web pages hand them on with a number."""
_SIGNS_IN_ASCII = str.maketrans(
    "\uff0c\uff0e\uff0b\uff0d\uff08\uff09\uff0f\uff1a\u066b\u066c\u3000", ",.+-()/:.,\u00a0"
)
_COUNTRY_OF_DOLLAR = re.compile(r"\b([A-Z]{1,2}) \$")
_DASH = re.compile(rf"\W*[\u2014{_NEGATIVE}]\W*")


def is_dash(text: str) -> bool:
    """Whether a cell says by a dash that there is nothing in it, maybe with a sign: ``-``, ``$ -``."""
    return _DASH.fullmatch(text) is not None


class Written(NamedTuple):
    """What a text says, by which sign stands before its decimals; None where it cannot be that one.

    Attributes:
        point: its value if that is ``.``
        comma: its value if that is ``,``
        currency: an ISO 4217 code that stands beside it, or that its sign means.
        surely: whether the sign means only this one.
    """

    point: float | None
    comma: float | None
    currency: str | None = None
    surely: bool = False

    @property
    def is_ambiguous(self) -> bool:
        return None not in (self.point, self.comma) and self.point != self.comma


@lru_cache(maxsize=65_536)
def read_number(text: str) -> Written | None:
    """What a text says; None if it is no number of at most 1e12."""
    if len(text) > _LONGEST:
        return None
    if not text.isascii():
        text = _in_ascii(text)
    # India ends amounts with `/-`, Sweden with `:-`; eBay sets the dollar's country apart: `US $20.00`.
    bare = text.strip().removesuffix("/-").removesuffix("/=").removesuffix(":-")
    match = _NUMBER.fullmatch(_COUNTRY_OF_DOLLAR.sub(r"\1$", bare))
    if match is None:
        return None
    left, right = _currency(match["left"]), _currency(match["right"])
    digits, dashes = match["digits"].strip(), match["after"] or ""
    if left is False or right is False:
        return None
    if dashes and digits[-1] in ".,":
        dashes = ""  # `20,-` is twenty and no cents
    if "\u2014" in dashes:
        return None  # the long dash is no minus
    signs = [match["before"], match["between"], dashes or None, match["last"], match["open"]]
    said = [sign for sign in signs if sign]
    if len(said) > 1 or len(dashes) > 1 or (match["open"] is None) != (match["close"] is None):
        return None
    sign = -1.0 if said and said[0] != "+" else 1.0
    digits = digits.replace("\u2019", "'")
    for space in _SPACES[1:]:
        digits = digits.replace(space, " ")
    point = _value(digits, ".", match["power"])
    comma = _value(digits, ",", match["power"])
    if match["power"] and point is not None:
        comma = point  # no person writes powers of ten, and programs write a point
    if point is None and comma is None:
        return None
    # A code beside the number says more than a sign.
    found = [one for one in (left, right) if one]
    currency, surely = max(found, key=lambda one: one[1], default=(None, False))
    if len({code for code, is_sure in found if is_sure}) > 1:
        return None
    if currency in WHOLE_CURRENCIES and None not in (point, comma):
        point = comma = max(point or 0.0, comma or 0.0)
    return Written(
        None if point is None else sign * point,
        None if comma is None else sign * comma,
        currency,
        surely,
    )


def _in_ascii(text: str) -> str:
    """A text with digits of any script, full-width signs and Arabic currencies as those of ASCII."""
    for sign, code in _WITH_DOTS.items():
        if sign in text:
            text = text.replace(sign + ".", code).replace(sign, code)
    return in_ascii_digits(text)


def in_ascii_digits(text: str) -> str:
    """A text with digits of any script and full-width signs as those of ASCII."""
    return "".join(
        letter if letter.isascii() else str(unicodedata.decimal(letter, letter))
        for letter in _INVISIBLE.sub("", text).translate(_SIGNS_IN_ASCII)
    )


_WITHOUT_MINOR_UNIT = "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF"
_WITH_THOUSANDTHS = "BHD IQD JOD KWD LYD OMR TND"
_MINOR_UNITS = {
    **dict.fromkeys(_WITHOUT_MINOR_UNIT.split(), 1.0),
    **dict.fromkeys(_WITH_THOUSANDTHS.split(), 1_000.0),
}
"""How many make one, by ISO 4217; of all others a hundred. Stripe counts hundredths of ISK and UGX, which
have none."""


def in_major_units(value: float, currency: str | None) -> float:
    """An amount in the smallest unit of a currency as one in the currency itself."""
    return value / _MINOR_UNITS.get(currency or "", 100.0)


def is_currency(code: str) -> bool:
    """Whether this is an ISO 4217 code in use."""
    return code in _ISO_4217


def currency_of(said: str) -> str | None:
    """The ISO 4217 code that a code or a sign means, such as ``eur`` or ``€``; None if it is neither."""
    found = _currency(said)
    return found[0] if found else None


def _currency(sign: str | None) -> tuple[str | None, bool] | Literal[False] | None:
    """The currency of a sign or code and whether it means no other; False if it is neither."""
    if sign is None:
        return None
    if (code := sign.upper()) in _ISO_4217:
        return code, True
    if (code := _ONE_CURRENCY.get(sign, "")) != "":
        return code, True
    if sign in _SEVERAL_CURRENCIES:
        return _SEVERAL_CURRENCIES[sign], False
    return False


def _value(digits: str, decimal: Decimal, power: str | None) -> float | None:
    """Digits with this decimal sign as a number; None if they are not written like that."""
    whole, _, fraction = digits.partition(decimal)
    if (fraction and not fraction.isdecimal()) or not (whole or fraction):
        return None
    if whole and not whole.isdecimal():
        if power or not _are_groups(whole):
            return None
        whole = re.sub(r"\D", "", whole)
    number = float(f"{whole or 0}.{fraction or 0}{power or ''}")
    return number if number <= LARGEST_NUMBER else None


def _are_groups(whole: str) -> bool:
    """Whether one sign groups these digits by threes, or as in India by twos and a last three."""
    separators = set(re.sub(r"\d", "", whole))
    if len(separators) != 1:
        return False
    (separator,) = separators
    first, *others = whole.split(separator)
    if not first or first[0] == "0":
        return False
    if len(first) <= 3 and all(len(group) == 3 for group in others):
        return True
    lakhs = separator == "," and len(others) > 1 and len(first) <= 2 and len(others[-1]) == 3
    return lakhs and all(len(group) == 2 for group in others[:-1])


class NumberColumn:
    """The numbers of one column: which decimal sign it has is declared, or seen in it."""

    def __init__(self, decimal: Decimal | None) -> None:
        self.declared = decimal
        self.decimal: Decimal | None = decimal
        self.is_settled = decimal is not None
        self._points = self._commas = False
        # Prices and quantities repeat all over a table.
        self.known: dict[str, float] = {}
        """Numbers read before that can mean only this, without a currency."""

    def read(self, text: str) -> Written | None:
        """What a text says; None if it is no number. It is remembered for `settle`."""
        written = read_number(text)
        if written is not None and written.point != written.comma:
            self._points |= written.comma is None
            self._commas |= written.point is None
        if written is None or written.currency is not None or written.is_ambiguous:
            return written
        if (value := self.value(written)) is not None and len(self.known) < _KNOWN:
            self.known[text] = value
        return written

    def settle(self) -> None:
        """Decide, once everything in the column has been read.

        Numbers that have only one meaning tell which sign it is, if they all tell the same.
        """
        self.is_settled = True
        if self.declared is None and self._points != self._commas:
            self.decimal = "." if self._points else ","

    def value(self, written: Written, currency: str | None = None) -> float | None:
        """The value of what was read; None if it has none here, or cannot be told yet.

        Args:
            written: what was read.
            currency: what the row is in, if it says so elsewhere.
        """
        if currency in WHOLE_CURRENCIES and written.is_ambiguous and self.declared is None:
            return max(written.point or 0.0, written.comma or 0.0, key=abs)
        if self.declared is not None:
            return written.point if self.declared == "." else written.comma
        if written.point is None or written.comma is None or written.point == written.comma:
            return written.comma if written.point is None else written.point
        if self.decimal is None:
            return None
        return written.point if self.decimal == "." else written.comma

    def why(self, text: str, written: Written | None) -> str:
        """What is wrong with a text that has no value, and what the mapping can say."""
        if written is None:
            return f"{text!r} is no number"
        if written.is_ambiguous:
            mixed = ", and the column has numbers of both kinds" if self._points else ""
            return (
                f"{text!r} is {written.point:,.10g} or {written.comma:,.10g}{mixed}: the mapping "
                f'can say decimal = "." for the first, decimal = "," for the second'
            )
        other = "," if self.declared == "." else "."
        value = written.comma if other == "," else written.point
        return (
            f"{text!r} is no number with decimal = {self.declared!r}; without that key it is "
            f"{value:.12g}, if no other number of the column says otherwise"
        )
