"""Makes messages as strangers write them, and damages them as wires, disks and attackers do.

Comes in: a source of chance. Goes out: bytes. The same grammar serves `make test`, where hypothesis
is the source of chance, and `make fuzz`, where it mutates what coverage found worth keeping.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

from stream.events import ORDER_CANCELLED as CANCELLED
from tests.fakes import mark_value
from tests.strategies import CART, MESSAGES, ORDER, REFUND, REVIEW, START_MS, VIEW, encoded

T = TypeVar("T")

GOOD = encoded(context={"library": {"name": "analytics.js", "version": 2.1}, "tags": [1, None]})
MARK = mark_value(START_MS)
SEEDS = [GOOD, MARK, *(value for value, _, _ in MESSAGES if value and len(value) < 1_000)]

TOKENS = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"\\ud800", b"\\udc00", b"\\u0000", b"null",
    b"true", b"false", b"NaN", b"Infinity", b"-Infinity", b"-", b"+", b".", b"e", b"E5", b"1e999", b"-1e999",
    b"0", b"-0", b"-0.0", b"00", b"1e308", b"1e-400", b"9007199254740993", b"9" * 30, b"1" * 5_000,
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\x00", b"\n",
    b"\x1f", b"\x7f", "é".encode(), "😀".encode(), b" ", b"[" * 2_000, b'{"a":' * 2_000,
    b'"type"', b'"type":"segstream-mark"', b'"type":"page"', b'"type":"track"', b'"userId"', b'"anonymousId"',
    b'"event"', b'"messageId"', b'"timestamp"', b'"sentAt"', b'"signature"', b'"properties"', b'"category"',
    b'"products"', b'"order_id"', b'"currency"', b'"revenue"', b'"price"', b'"quantity"', b'"rating"', b'"review_body"', b'"total"', b'"value"', b"segstream-mark", b"2025-12-01T00:00:00Z",
    b"9999-12-31T23:59:59.999Z", b"0001-01-01T00:00:00+23:59", b"1970-01-01", b"+24:00", b"a" * 300,
]  # fmt: skip
"""Pieces that mean something, to a parser or to somebody's patience."""

_TEXTS = [
    "", "u1", "x" * 257, "Zoë", "\0", "u1\0", "\n", "\u202e", "\x1b[2J", "null", "\ud800", "a" * 70,
    "2025-12-01T00:00:00.000Z", "2025-12-01T00:00:00.000000001+14:00", "1969-12-31T23:59:59Z", "soon",
    "2025-12-01T00:00:00+0000", "2025-12-01 00:00:00,5 -05", "12.50", " 7 ", "1,250.00", "$12", "NaN", "  ",
    "undefined", " Null", "(not set)", "0", "USD", "eur", "order completed", "Completed Order",
]  # fmt: skip
_NUMBERS: list[Any] = [
    0, 1, -1, 19.99, 1e12, 1e13, -0.0, 2**53 + 1, 2**63, -(2**63), 2**64, 10**400, float("nan"),
    float("inf"), 5e-324, True,
]  # fmt: skip


def value(chance: Random, depth: int = 0) -> Any:
    """Anything JSON or Python's idea of it can say."""
    kind = chance.randrange(7 if depth < 3 else 5)
    if kind <= 1:
        return chance.choice(_TEXTS)
    if kind <= 3:
        return chance.choice(_NUMBERS)
    if kind == 4:
        return None
    if kind == 5:
        return [value(chance, depth + 1) for _ in range(chance.randrange(3))]
    return {chance.choice(_TEXTS): value(chance, depth + 1) for _ in range(chance.randrange(3))}


def review(chance: Random) -> dict[str, Any]:
    """What a review says, or part of it, in any message."""
    return {
        name: chance.choice([1, 4.5, "5", 7]) if chance.random() < 0.6 else value(chance)
        for name in ("rating", "review_body", "review_id")
        if chance.random() < 0.2
    }


def fields(chance: Random) -> list[tuple[str, Any]]:
    """Members of a message, mostly those of a good one; some twice, some missing, some absurd."""
    properties: dict[str, Any] = {}
    for name in ("category", "quantity", "price", "revenue", "total", "value", "coupon"):
        if chance.random() < 0.3:
            good: Any = "shoes" if name == "category" else chance.choice([1, 2.5, 19.99, 0, -3])
            properties[name] = good if chance.random() < 0.7 else value(chance)
    if chance.random() < 0.1:
        properties["currency"] = chance.choice(_CURRENCIES)
    for name in ("order_id", "orderId", "transaction_id", "currency"):
        if chance.random() < 0.2:
            properties[name] = "o1" if chance.random() < 0.6 else value(chance)
    for name in ("subtotal", "refund_amount", "total_quantity"):
        if chance.random() < 0.05:
            properties[name] = 3 if chance.random() < 0.6 else value(chance)
    properties |= review(chance)
    if chance.random() < 0.2:
        properties["products"] = products(chance)
    found: list[tuple[str, Any]] = [
        ("type", chance.choice(["track"] * 6 + ["page", "Alias", "merge", "segstream-mark"])),
        ("event", chance.choice([ORDER, REFUND, CANCELLED, VIEW, CART, REVIEW, *_OTHER_NAMES])),
        ("userId", "u1"),
        ("messageId", "m1"),
        ("timestamp", "2025-12-01T00:00:00.000Z"),
        ("properties", properties),
    ]
    for place in range(len(found)):
        if chance.random() < 0.08:
            found[place] = (found[place][0], value(chance))
    if chance.random() < 0.3:
        name = chance.choice(
            [
                "anonymousId",
                "sentAt",
                "originalTimestamp",
                "signature",
                "context",
                "type",
                "userId",
                "",
            ]
        )
        found.insert(chance.randrange(len(found) + 1), (name, value(chance)))
    if chance.random() < 0.1:
        del found[chance.randrange(len(found))]
    if chance.random() < 0.2:
        chance.shuffle(found)
    return found


_OTHER_NAMES = ["Page Scrolled", "Completed Order", " order REFUNDED", "viewed product"]


_CURRENCIES = ["EUR", "USD", " usd", "JPY", ""]


def products(chance: Random) -> Any:
    """Lines of an order, mostly good ones."""
    if chance.random() < 0.1:
        return value(chance)
    found: list[Any] = []
    for _ in range(chance.randrange(4)):
        line: dict[str, Any] = {"product_id": "p1"}
        for name in ("price", "quantity"):
            if chance.random() < 0.8:
                line[name] = (
                    chance.choice([1, 3.1, 0.1, 2]) if chance.random() < 0.9 else value(chance)
                )
        if chance.random() < 0.15:
            code = chance.choice(_CURRENCIES)
            line["currency"] = code if chance.random() < 0.9 else value(chance)
        odd = chance.random()
        found.append(line if odd < 0.94 else value(chance) if odd < 0.98 else json.dumps(line))
    return found


def message(chance: Random) -> bytes:
    """A message, whole or damaged; now and then one of the known odd ones."""
    if chance.random() < 0.2:
        raw = chance.choice(SEEDS)
    else:
        ascii_only = chance.random() < 0.5
        pieces = [
            f"{json.dumps(name, ensure_ascii=ascii_only)}:{json.dumps(one, ensure_ascii=ascii_only)}"
            for name, one in fields(chance)
        ]
        raw = ("{" + ",".join(pieces) + "}").encode("utf-8", "surrogatepass")
    for _ in range(chance.choice([0, 0, 0, 1, 1, 2, 4])):
        raw = damaged(raw, chance)
    return raw


_CELLS = [
    "", "u1", "12,5", "-3", "1e12", "1e400", "nan", "0", "-1", "1" * 5_000, "1e-5000", "+5", "1_000", "²",
    "\u0661\u0662", "01.02.2025 10:00", "31.12.9999 23:59", "2025-01-01", "2025-01", "2025-W01-1", "20250101",
    "2025-01-01T00:00:00.5+01:00", "2025-01-01 00:00:00 UTC", "0001-01-01T00:00:00+23:59", "1764547200",
    "9999-12-31T23:59:59+00:00", "1764547200000", "1764547200000000", "9" * 20, "1e300", "1970-01-01",
    "x", "\0", "\udcff" * 3, "\udcff" * 100, "a" * 300, "é" * 200, "\u2028", "InvoiceNo", "C536", "buy",
    "view", "transaction",
]  # fmt: skip


def row(chance: Random) -> bytes:
    """A mapping's number and the cells of a row, a line each."""
    cells = [chance.choice(_CELLS) for _ in range(chance.randrange(14))]
    return "\n".join([str(chance.randrange(20)), *cells]).encode("utf-8", "surrogateescape")


def letter(chance: Random) -> bytes:
    """Detail, key, value and headers of a refused message, a line each."""
    headers = [
        b"=".join([chance.choice([b"", b"a", b"traceparent", "é".encode(), b"x" * 40_000]), part])
        for part in (chance.choice([b"-", b"", b"\xff\x00", b"y" * 40_000]),) * chance.randrange(4)
    ]
    return b"\n".join(
        [message(chance), chance.choice([b"", b"u1", b"k" * 70_000]), message(chance), *headers]
    )


# -- damage --------------------------------------------------------------------------------------


def _place(raw: Sequence[T], chance: Random) -> int:
    return chance.randrange(len(raw) + 1)


def _cut(raw: bytes, chance: Random) -> bytes:
    return raw[: _place(raw, chance)]


def _lose(raw: bytes, chance: Random) -> bytes:
    begin = _place(raw, chance)
    return raw[:begin] + raw[begin + chance.randrange(1, 20) :]


def _insert(raw: bytes, chance: Random) -> bytes:
    at = _place(raw, chance)
    return raw[:at] + chance.choice(TOKENS) + raw[at:]


def _replace(raw: bytes, chance: Random) -> bytes:
    """A token in place of some letters, often of exactly one value."""
    at = max(raw.rfind(b":", 0, _place(raw, chance)) + 1, 0)
    end = next((i for i in range(at, len(raw)) if raw[i] in b",}"), len(raw))
    return raw[:at] + chance.choice(TOKENS) + raw[end:]


def _flip(raw: bytes, chance: Random) -> bytes:
    if not raw:
        return raw
    at = chance.randrange(len(raw))
    return raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :]


def _repeat(raw: bytes, chance: Random) -> bytes:
    begin, end = sorted((_place(raw, chance), _place(raw, chance)))
    return raw[:end] + raw[begin:end] + raw[end:]


def _nest(raw: bytes, chance: Random) -> bytes:
    deep = chance.choice([1, 2, 31, 33, 1_100])
    return b'{"x":' * deep + raw + b"}" * deep


def _recode(raw: bytes, chance: Random) -> bytes:
    text = raw.decode("utf-8", "replace")
    encoding = chance.choice(["utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig", "utf-7"])
    return text.encode(encoding, "replace")


_DAMAGES: Sequence[Callable[[bytes, Random], bytes]] = (
    _cut, _lose, _insert, _insert, _replace, _replace, _flip, _repeat, _nest, _recode,
)  # fmt: skip


def damaged(raw: bytes, chance: Random) -> bytes:
    """The same with one thing wrong."""
    return chance.choice(_DAMAGES)(raw, chance)
