"""The compiled parser makes the same of every message as the plain one, to the bit, or leaves it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumers.decode import Decoder
from consumers.plain import Parsed, PlainParser
from producers.traffic import bench_events
from stream.config import ConfigError, Worker
from stream.events import Reviews
from stream.features import DEFAULT_FEATURES, FeatureTable
from tests.fakes import FakeMessage
from tests.strategies import (
    EVERY_AGGREGATE,
    MESSAGES,
    ORDER,
    PRODUCTS,
    REFUND,
    START_MS,
    VIEW,
    encoded,
)

pytest.importorskip("numba", reason="needs the extra segstream[fast]")
compiled = importlib.import_module("consumers.compiled")

MESSAGE_BYTES = 1_024
TABLES = [FeatureTable(DEFAULT_FEATURES), FeatureTable(EVERY_AGGREGATE)]
PAIRS = [
    (
        one := PlainParser(table, MESSAGE_BYTES),
        compiled.CompiledParser(table, MESSAGE_BYTES, one),
    )
    for table in TABLES
]


def shown(reviews: Reviews | None) -> str:
    return "" if reviews is None else repr((reviews.places, reviews.rating, reviews.words))


def assert_same(values: Sequence[bytes | None]) -> None:
    for slow, fast in PAIRS:
        told, expected = fast.parse(values), slow.parse(values)
        assert told.users == expected.users
        assert told.odd == expected.odd
        blank = np.array([place in expected.odd.places for place in range(len(values))])
        assert shown(told.reviews) == shown(expected.reviews)
        for name in Parsed._fields[2:-1]:
            one, other = getattr(told, name), getattr(expected, name)
            assert one.dtype == other.dtype
            # As bytes: 0.0 is not -0.0 here.
            assert one[~blank].tobytes() == other[~blank].tobytes(), (name, values)


def left_over(*values: bytes | None) -> int:
    """How many of some messages the compiled parser leaves."""
    _, fast = PAIRS[0]
    before = fast.left
    fast.parse(values)
    return int(fast.left - before)


# -- what is plain is really parsed here -----------------------------------------------------------


def test_the_events_of_the_benchmark_are_plain() -> None:
    values = [value for _, value, _ in bench_events(2_000, 500, 1, start_ms=START_MS)]
    assert left_over(*values) == 0
    assert_same(values)


GOOD = encoded()
PLAIN = {
    "usual": encoded(),
    "white space": b" \n{ \t" + encoded()[1:-1] + b"\r\n} ",
    "no properties": encoded(properties=...),
    "empty properties": encoded(properties={}),
    "nulls": encoded(properties={"revenue": None, "total": 3, "category": None, "coupon": None}),
    "all amounts": encoded(properties=dict.fromkeys(("quantity", "price", "total", "value"), 2.5)),
    "unwatched": encoded(event="Page Scrolled"),
    "no event": encoded(event=""),
    "no id": encoded(messageId=""),
    "longest id": encoded(messageId="i" * 128),
    "longest user": encoded(userId="u" * 256),
    "empty category": encoded(properties={"category": ""}),
    "others": encoded(context={"a": [1, "x", {"b": [[], {}, True, False, None]}]}, sentAt="now"),
    "other numbers": encoded(
        context=[0, -0.0, 12345678901234567890123, 1e-300, 0.1234567890123456]
    ),
    "a number too large elsewhere": encoded().replace(b"20.0", b'1,"x":1e999'),
    "largest number": encoded(properties={"revenue": 1e12}),
    "exact": encoded(properties={"revenue": 9007199254740992, "price": 1e-22}, event=VIEW),
    **{
        f"time {text}": encoded(timestamp=text)
        for text in (
            "2025-12-01T00:00:00Z",
            "2025-12-01T00:00:00.1+0000",
            "2025-12-01T00:00:00,123456789-05:30",
            "2025-12-01T00:00:00+14",
        )
    },
    "nobody yet": encoded(userId=None, anonymousId="a1"),
    "nobody yet, empty": encoded(userId="", anonymousId="a1"),
    "nobody yet, a placeholder": encoded(userId="Undefined", anonymousId="a1"),
    "a null id": encoded(messageId=None),
    "an id that is none": encoded(messageId="NULL"),
    "without an id": encoded(messageId=...),
    "another case": encoded(event="order completed"),
    "an alias": encoded(event="Completed Order"),
    "an order": encoded(properties={"order_id": "o1", "revenue": 25, "currency": "EUR"}),
    "an order that is none": encoded(properties={"order_id": "(not set)", "revenue": 25}),
    "products": encoded(properties={"order_id": "o1", "products": PRODUCTS}),
    "products without anything": encoded(properties={"products": [{}, {"price": None}, {"x": 1}]}),
    "no products": encoded(properties={"products": []}),
    "a refund": encoded(event=REFUND, properties={"order_id": "o1"}),
    "a negative refund": encoded(event=REFUND, properties={"total": -5, "quantity": -1}),
    "what nobody reads": encoded(
        event=VIEW,
        properties={"price": "9.99", "value": {}, "order_id": 3, "subtotal": [], "products": "x"},
    ),
    "leap day": encoded(timestamp="2024-02-29T23:59:59.999Z"),
    "not ASCII": GOOD.replace(b"u1", "Zoë 😀".encode()),
    "not ASCII elsewhere": GOOD[:-1] + ',"Größe":"Möbel"}'.encode(),
    "longest user, not ASCII": GOOD.replace(b"u1", "é".encode() * 128),
    "escapes elsewhere": encoded(page={"url": "/", "title": "Zoë \\ \n\0"})[:-1]
    + rb',"x":["\"\\\/\b\f\n\r\t\u00E9\uFFFF\ud7ff\ue000"]}',
    "properties first": encoded(properties=...)[:-1] + b',"properties":{"price":3},"x":1}',
}


@pytest.mark.parametrize("what", PLAIN)
def test_a_plain_message_is_not_left(what: str) -> None:
    assert left_over(PLAIN[what]) == 0
    assert_same([PLAIN[what]])


UNUSUAL = {
    "empty": b"",
    "an escape": GOOD.replace(b"u1", b"a\\/b"),
    "an escaped letter": encoded(userId="Zoë"),
    "an escape in a key": GOOD[:-1] + b',"\\n":1}',
    "half a character": GOOD[:-1] + b',"x":"\\ud83d\\ude00"}',
    "a wrong escape": GOOD[:-1] + b',"x":"\\x"}',
    "a short escape": GOOD[:-1] + b',"x":"\\u00e"}',
    "a control character": GOOD.replace(b"u1", b"u\n1"),
    "a zero": GOOD.replace(b"u1", b"u\x001"),
    "a zero behind": GOOD + b"\0",
    "a key twice": GOOD[:-1] + b',"event":"Product Viewed"}',
    "an amount twice": GOOD.replace(b"20.0", b'20.0,"revenue":3'),
    "an amount twice, once null": GOOD.replace(b"20.0", b'20.0,"revenue":null'),
    "too deep": GOOD[:-1] + b',"x":' + b"[" * 40 + b"]" * 40 + b"}",
    "digits": GOOD.replace(b"20.0", b"0.12345678901234567"),
    "exponent": GOOD.replace(b"20.0", b"1e-23"),
    "beyond exact": GOOD.replace(b"20.0", b"9007199254740993e-9"),
    "minus nought": GOOD.replace(b"20.0", b"-0"),
    "minus nought, a float": GOOD.replace(b"20.0", b"-0.0"),
    "out of range": encoded(properties={"revenue": 1.1e12}),
    "a product out of range": encoded(properties={"price": 1e9, "quantity": 1e9}),
    "a short time": encoded(timestamp="2025-12-01 00:00:00Z"),
    "a time without seconds": encoded(timestamp="2025-12-01T00:00Z"),
    "no time": encoded(timestamp="2025-02-29T00:00:00.000Z"),
    "too early": encoded(timestamp="1994-12-31T23:59:59.999Z"),
    "too late": encoded(timestamp="2100-01-01T00:00:00.000Z"),
    "no user": encoded(userId=...),
    "an empty user": encoded(userId=""),
    "a placeholder for a user": encoded(userId="null"),
    "a padded user": encoded(userId=" u1"),
    "a padded id": encoded(messageId="m1 "),
    "a padded event": encoded(event=" Page Scrolled"),
    "a number for a user": encoded(userId=17),
    "a number for an order": encoded(properties={"order_id": 17}),
    "a category that is no text": encoded(properties={"category": 3}),
    "an order of version 1": encoded(properties={"orderId": "o1"}),
    "a subtotal": encoded(properties={"subtotal": 3}),
    "a price as text": encoded(properties={"products": [{"price": "3"}]}),
    "products that are none": encoded(properties={"products": [3]}),
    "a mark of byte order": b"\xef\xbb\xbf" + GOOD,
    "long user": encoded(userId="u" * 257),
    "long id": encoded(messageId="i" * 129),
    "long category": encoded(properties={"category": "c" * 129}),
    "no type": encoded(type=...),
    "another type": encoded(type="page"),
    "large": encoded(x="x" * 1_000),
    "two": GOOD + GOOD,
    "a comma too many": GOOD[:-1] + b",}",
    "an amount as text": encoded(properties={"revenue": "20"}),
    "properties are a list": encoded(properties=[]),
    "no object": b"[]",
    **{
        f"number {number.decode()}": GOOD.replace(b"20.0", number)
        for number in (b"020", b"1.", b".5", b"+1", b"-", b"1e", b"1e+", b"NaN", b"0x1", b"truth")
    },
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_an_unusual_message_is_left(what: str) -> None:
    value = UNUSUAL[what]
    assert left_over(value) == 1
    assert_same([value])
    assert_same([GOOD, value, encoded(userId="u2", event=VIEW), value])


@pytest.mark.parametrize("value", [None, GOOD.replace(b"u1", b"u\xff"), b"\xed\xa0\x80"])
def test_a_block_that_is_no_text_is_left_whole(value: bytes | None) -> None:
    assert left_over(GOOD, value, GOOD) == 3
    assert_same([GOOD, value, encoded(userId="u2", event=VIEW)])


def test_every_cut_of_a_message_is_left() -> None:
    for value in (GOOD, PLAIN["others"], PLAIN["white space"][:-2]):
        cuts = [value[:end] for end in range(len(value))]
        assert left_over(*cuts) == len(cuts)
        assert_same(cuts)


def test_every_letter_but_one_of_a_message_is_looked_at() -> None:
    # With any other letter in its place it is another message, or none; both parsers agree on it.
    for letter in b'\0\t "\\{}[],:-+.0e\x7f\x80':
        changed = [GOOD[:i] + bytes([letter]) + GOOD[i + 1 :] for i in range(len(GOOD))]
        assert_same(changed)


def test_a_block_of_everything_is_the_same() -> None:
    assert_same([value for value, _, _ in MESSAGES])
    assert_same([*PLAIN.values(), *UNUSUAL.values()])


# -- whatever strangers send -----------------------------------------------------------------------

_SPACE = st.sampled_from(["", "", "", "", " ", "\n", "\t \r"])
_DIGITS = st.text("0123456789", min_size=1, max_size=20)
_SPELT = st.one_of(
    st.builds(
        "".join,
        st.tuples(
            st.sampled_from(["", "", "-"]),
            st.one_of(st.sampled_from(["0", "1", "19", "00", ""]), _DIGITS),
            st.one_of(st.just(""), _DIGITS.map(".{}".format), st.just(".")),
            st.one_of(
                st.just(""), st.builds("{}{}".format, st.sampled_from(["e", "E+", "e-"]), _DIGITS)
            ),
        ),
    ),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(-1e6, 1e6).map("{:.2f}".format),
    st.integers(-(2**60), 2**60).map(str),
)
_SPELT_TEXT = st.one_of(
    st.text("abcXYZ 0-_:/", max_size=24),
    st.text("ab", min_size=120, max_size=140),
    st.sampled_from(
        [
            "\\n",
            "\\u00e9",
            "\\ud83d\\ude00",
            "\\ud800",
            "\\x",
            "\\",
            "é",
            "\x01",
            "\x7f",
            "\\/",
            "\\u0000",
            "😀",
        ]
    ),
).map('"{}"'.format)
_VALUE: st.SearchStrategy[str] = st.recursive(
    st.one_of(st.sampled_from(["null", "true", "false", "tru"]), _SPELT, _SPELT_TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]"),
        st.lists(st.tuples(st.sampled_from("ab"), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}"
        ),
    ),
    max_leaves=6,
)
_NUMBER = st.one_of(_SPELT, _SPELT, _SPELT, st.just("null"), _VALUE)
_PROPERTY = st.one_of(
    st.tuples(st.sampled_from(["quantity", "price", "revenue", "total", "value"]), _NUMBER),
    st.tuples(st.just("category"), st.one_of(_SPELT_TEXT, _SPELT_TEXT, _VALUE)),
    st.tuples(st.sampled_from(["coupon", "name", "values", ""]), _VALUE),
)


@st.composite
def spelt_object(draw: st.DrawFn, members: list[tuple[str, str]]) -> str:
    """Members in any order, with white space anywhere."""
    parts = []
    for key, value in draw(st.permutations(members)):
        a, b, c, d = (draw(_SPACE) for _ in range(4))
        parts.append(f'{a}"{key}"{b}:{c}{value}{d}')
    return "{" + (",".join(parts) or draw(_SPACE)) + "}"


@st.composite
def spelt(draw: st.DrawFn) -> bytes:
    """A message, mostly a good one, in every way JSON can be written; or a damaged one."""
    members = [
        ("type", '"track"'),
        ("event", draw(st.sampled_from([f'"{n}"' for n in (ORDER, REFUND, VIEW, "Else", "")]))),
        ("userId", draw(st.one_of(st.just('"u1"'), st.just('"u1"'), _SPELT_TEXT))),
        ("messageId", draw(st.one_of(st.just('"m1"'), _SPELT_TEXT))),
        ("timestamp", '"2025-12-01T00:00:00.000Z"'),
    ]
    if draw(st.booleans()):
        pairs = draw(st.lists(_PROPERTY, max_size=5, unique_by=lambda pair: pair[0]))
        members.append(("properties", draw(spelt_object(pairs))))
    members += draw(
        st.lists(st.tuples(st.sampled_from(["context", "sentAt", "x"]), _VALUE), max_size=2)
    )
    change = draw(st.sampled_from(["none"] * 6 + ["drop", "twice", "replace"]))
    if change != "none":
        place = draw(st.integers(0, len(members) - 1))
        if change == "drop":
            del members[place]
        elif change == "twice":
            members.append(members[place])
        else:
            members[place] = (members[place][0], draw(_VALUE))
    raw = (draw(_SPACE) + draw(spelt_object(members)) + draw(_SPACE)).encode()
    damage = draw(st.sampled_from(["none"] * 6 + ["cut", "byte", "lost", "more"]))
    at = draw(st.integers(0, len(raw) - 1))
    letter = draw(st.sampled_from([bytes([b]) for b in b'"\\{}[],:0-+.eE \n\0\x7f\xc3']))
    return {
        "none": raw,
        "cut": raw[:at],
        "byte": raw[:at] + letter + raw[at + 1 :],
        "lost": raw[:at] + raw[at + 1 :],
        "more": raw[:at] + letter + raw[at:],
    }[damage]


@pytest.mark.slow
@given(st.lists(spelt(), min_size=1, max_size=4))
@settings(max_examples=400, deadline=None)
@example([GOOD, b"", GOOD])
def test_both_make_the_same_of_whatever_comes(values: list[bytes]) -> None:
    assert_same(values)


@pytest.mark.slow
@given(_SPELT)
@settings(max_examples=400, deadline=None)
def test_a_number_is_the_same_to_the_bit(number: str) -> None:
    assert_same([encoded(properties={"revenue": 7}).replace(b"7", number.encode())])


@given(st.text("0123456789-:.TZ ", min_size=24, max_size=24))
@settings(max_examples=100, deadline=None)
@example("2025-12-01T24:00:00.000Z")
@example("2025-12-32T00:00:00.000Z")
@example("2025-13-01T00:00:00.000Z")
@example("2025-00-01T00:00:00.000Z")
@example("2000-02-29T00:00:00.000Z")
@example("2099-12-31T23:59:59.999Z")
@example("1969-12-31T23:59:59.999Z")
@example("2025-12-01t00:00:00.000z")
def test_a_time_is_the_same(text: str) -> None:
    assert_same([encoded(timestamp=text)])


def test_every_day_is_the_same() -> None:
    days = [
        f"{y}-{m:02}-{d:02}" for y in (1970, 2000, 2024, 2025) for m in range(14) for d in range(33)
    ]
    assert_same([encoded(timestamp=f"{day}T12:34:56.789Z") for day in days])


# -- which one is used -----------------------------------------------------------------------------


def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "consumers.compiled", None)


def test_the_compiled_parser_is_used_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Decoder(TABLES[0], Worker()).way == "compiled"
    assert Decoder(TABLES[0], Worker(decoder="plain")).way == "plain"
    without_numba(monkeypatch)
    decoder = Decoder(TABLES[0], Worker())
    assert decoder.way == "plain"
    assert decoder.decode([FakeMessage(GOOD)]).users == ["u1"]


def test_a_worker_that_shall_be_compiled_and_cannot_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_numba(monkeypatch)
    with pytest.raises(ConfigError, match=r"worker\.decoder = 'compiled'.*segstream\[fast\]"):
        Decoder(TABLES[0], Worker(decoder="compiled"))
