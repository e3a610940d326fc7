"""Numbers are read as people write them, and none changes its size unnoticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.amounts import Decimal, NumberColumn, read_number

GROUPS = ["", ",", ".", " ", "\u00a0", "\u2009", "\u202f", "'", "\u2019"]


def value_of(text: str, decimal: Decimal = ".") -> float | None:
    """What a column of a declared decimal sign makes of a text; None for no number."""
    found = read_number(text)
    return None if found is None else NumberColumn(decimal).value(found)


def written(cents: int, decimal: str, group: str, *, indian: bool = False) -> str:
    """An amount as a locale writes it."""
    whole, rest = divmod(cents, 100)
    digits = str(whole)
    step = 2 if indian else 3
    groups = [digits[-3:]]
    digits = digits[:-3]
    while digits:
        groups.insert(0, digits[-step:])
        digits = digits[:-step]
    return f"{group.join(groups)}{decimal}{rest:02}"


locales = st.tuples(st.sampled_from([".", ","]), st.sampled_from(GROUPS)).filter(
    lambda signs: signs[0] != signs[1]
)
frames = st.sampled_from(
    [("", "", None), ("$", "", "USD"), ("€", "", "EUR"), ("", " EUR", "EUR"), ("", "\u00a0€", "EUR"),
     ("CHF ", "", "CHF"), ("", " kr", None), ("US$", "", "USD"), ("  ", " ", None)]
)  # fmt: skip
signs = st.sampled_from(
    [("", "", 1), ("-", "", -1), ("", "-", -1), ("(", ")", -1), ("\u2212", "", -1)]
)


@given(st.integers(0, 10**12), locales, frames, signs)
def test_an_amount_of_a_locale_is_read_back(
    cents: int,
    locale: tuple[str, str],
    frame: tuple[str, str, str | None],
    sign: tuple[str, str, int],
) -> None:
    decimal, group = locale
    text = f"{sign[0]}{frame[0]}{written(cents, decimal, group)}{frame[1]}{sign[1]}"
    found = read_number(text)
    assert found is not None, text
    value = found.point if decimal == "." else found.comma
    assert value == sign[2] * cents / 100
    assert found.currency == frame[2]
    # With two decimals there is no other reading.
    assert (found.comma if decimal == "." else found.point) is None


@given(st.integers(0, 10**9))
def test_lakhs_and_crores(cents: int) -> None:
    assert value_of(written(cents, ".", ",", indian=True)) == cents / 100


@given(st.integers(1_000, 999_999), st.sampled_from([",", "."]))
def test_three_digits_after_a_sign_are_ambiguous_until_the_column_tells(
    number: int, sign: str
) -> None:
    text = f"{number // 1_000}{sign}{number % 1_000:03}"
    column = NumberColumn(None)
    found = column.read(text)
    assert found is not None
    assert found.is_ambiguous
    assert column.value(found) is None
    column.settle()
    assert column.value(found) is None, "nothing tells"
    why = column.why(text, found)
    assert f"{number:,}" in why
    assert 'decimal = "."' in why
    assert 'decimal = ","' in why
    for other, decimal in (("9.99", "."), ("9,99", ",")):
        column = NumberColumn(None)
        column.read(text)
        column.read(other)
        column.settle()
        expected = number / 1_000 if decimal == sign else number
        assert column.value(found) == expected
        # The advice was true: the key makes of it what it says.
        assert value_of(text, decimal) == expected  # type: ignore[arg-type]


def test_a_column_of_both_kinds_leaves_what_is_ambiguous() -> None:
    column = NumberColumn(None)
    for text in ("1,250.00", "9,99", "1,250"):
        column.read(text)
    column.settle()
    values = [column.value(column.read(text)) for text in ("1,250.00", "9,99", "1,250")]  # type: ignore[arg-type]
    assert values == [1250.0, 9.99, None]
    ambiguous = column.read("1,250")
    assert "both kinds" in column.why("1,250", ambiguous)


@pytest.mark.parametrize(
    ("text", "decimal", "expected"),
    [
        ("1,250.00", ",", None), ("250.00", ",", None), ("9.99", ",", None), ("1.250", ",", 1250.0),
        ("1,25", ",", 1.25), ("1.250,00", ".", None), ("1,25", ".", None), ("1,250", ".", 1250.0),
        ("12.50e0", ",", 12.5), ("1,25E+05", ",", 125_000.0), ("0,125", ".", None),
        ("0.125", ",", None), ("1.250.000", ",", 1_250_000.0), ("20,-", ",", 20.0),
        ("20.--", ".", 20.0), ("20,\u2014", ",", 20.0), ("1\u2019250.\u2014", ".", 1250.0), ("20:-", ",", 20.0),
    ],
)  # fmt: skip
def test_a_declared_sign_is_kept_to(text: str, decimal: str, expected: float | None) -> None:
    column = NumberColumn(decimal)  # type: ignore[arg-type]
    found = column.read(text)
    assert found is not None
    assert column.value(found) == expected
    if expected is None:
        assert f"no number with decimal = {decimal!r}" in column.why(text, found)


@pytest.mark.parametrize(
    "text",
    ["", "-", "$", "EUR", "20 PCS", "1,2,3", "1..2", "1,250.00.00", "--5", "-(5)", "(5", "5)", "1 25",
     "1,2 50", "12.34.56,78", "20%", "twenty", "1_000", "0x10", "nan", "inf", "1²", "½", "1e13", "5 5",
     "20 USD 20", "USD 20 EUR", "20\u2014", "20 \u2014 USD", "9" * 100, " " * 5_000 + "x"],
)  # fmt: skip
def test_what_nobody_reads_as_one_number_is_none(text: str) -> None:
    assert read_number(text) is None


def in_script(text: str, zero: int) -> str:
    """Digits of another script, in which zero has this code."""
    return "".join(chr(zero + int(letter)) if letter.isdigit() else letter for letter in text)


def full_width(text: str) -> str:
    return "".join(chr(ord(letter) + 0xFEE0) for letter in text)


ARABIC_SIGNS = str.maketrans(",.", "\u066c\u066b")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((full_width(text), value) for text, value in (("12.50", 12.5), ("1,200.50", 1200.5), ("(12.00)", -12.0), ("-5.5", -5.5), ("+7", 7.0))),
        *((in_script("1,250.50", zero).translate(ARABIC_SIGNS), 1250.5) for zero in (0x0660, 0x06F0)),
        (in_script("12.5", 0x0966), 12.5), ("\u200e12.50", 12.5), ("\ufeff12.50\u200f", 12.5),
        ("\u202a-12.50\u202c", -12.5), ("12.50\u3000円", 12.5),
    ],
)  # fmt: skip
def test_digits_of_any_script_are_digits(text: str, value: float) -> None:
    found = read_number(text)
    assert found is not None
    assert found.point == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("¥1,200", 1200.0), ("1,200円", 1200.0), ("-¥1,200", -1200.0), ("₩12,000", 12_000.0), ("JPY 1.200", 1200.0),
        ("1.200 Ft", 1200.0), ("Rp 12.500", 12_500.0), ("$12.990 CLP", 12_990.0),
    ],
)  # fmt: skip
def test_what_nobody_writes_parts_of_is_never_ambiguous(text: str, value: float) -> None:
    found = read_number(text)
    assert found is not None
    assert (found.point, found.comma) == (value, value)


@pytest.mark.parametrize(
    ("text", "currency", "surely"),
    [
        ("€20", "EUR", True), ("20 usd", "USD", True), ("$20", "USD", False), ("$20 CAD", "CAD", True),
        ("C$20", "CAD", True), ("¥2000", "JPY", False), ("20 kr", None, False), ("₹1,00,000", "INR", True),
        ("US $20.00", "USD", True), ("AU $20", "AUD", True), ("C $20", "CAD", True), ("20 Euro", "EUR", True),
        ("12,500원", "KRW", True), ("1.250.000đ", "VND", True), ("250.000 VNĐ", "VND", True), ("99 บาท", "THB", True),
        ("\u0661\u0662\u066c\u0665\u0660\u0660\u066b\u0665\u0660 \u0631.\u0633.", "SAR", True), ("12,500.50 د.إ", "AED", True), ("د.ك 12.5", "KWD", True), ("1 250:-", None, False),
        ("₹500/-", "INR", True), ("Rs. 1,500/-", "INR", False), ("R$ 1.250,00", "BRL", True), ("20 zł", "PLN", True), ("20", None, False),
    ],
)  # fmt: skip
def test_currencies(text: str, currency: str | None, surely: bool) -> None:
    found = read_number(text)
    assert found is not None
    assert (found.currency, found.surely) == (currency, surely)


@given(st.floats(-1e12, 1e12))
def test_numbers_are_read_back(value: float) -> None:
    assert value_of(repr(value)) == value


@pytest.mark.parametrize("text", ["nan", "inf", "1e13", "1_000", "1,5", "5 pcs", "²", "0x10", ""])
def test_what_is_no_number_is_none(text: str) -> None:
    assert value_of(text) is None
