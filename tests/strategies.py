"""Generates histories worth being afraid of.

Comes in: Hypothesis' choices. Goes out: feature tables of every aggregate, what a few shoppers
did (in bursts, at once, late, twice, across the edge of a session or a tile), ways to cut it
into batches, and messages as strangers send them, each with what should become of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from stream.clustering import FeatureMap
from stream.events import EventColumns, Floats, Reason, Reviews, code_of_currency
from stream.features import BROWSE, DEFAULT_FEATURES, SESSION_GAP_MS, Feature, FeatureTable
from stream.hashing import hash_text
from stream.model import Model, PopulationModel, Segment
from stream.oracle import Event, Fate
from stream.populations import EVERYONE, Populations
from stream.units import DAY_MS, iso

START_MS = 1_764_547_200_000
"""2025-12-01, where histories begin."""
ORDER, REFUND, VIEW, CART = (
    "Order Completed",
    "Order Refunded",
    "Product Viewed",
    "Product Added",
)
UPDATE, CANCEL, SHIP = "Order Updated", "Order Cancelled", "Order Shipped"
REVIEW = "Product Reviewed"


def feature(name: str, aggregate: Any, **rest: Any) -> Feature:
    return Feature(name=name, aggregate=aggregate, **rest)


def of_everyone(
    epoch: int,
    version: int,
    at_ms: int,
    schema: str,
    feature_map: FeatureMap,
    centroids: Floats,
    segments: tuple[Segment, ...],
    features: Sequence[str] = (),
    **rest: Any,
) -> Model:
    """A model of one population, with everyone in it."""
    told = {name: rest.pop(name) for name in ("inertia", "silhouette") if name in rest}
    part = PopulationModel(
        population=EVERYONE,
        since="1.0",
        map=feature_map,
        centroids=centroids,
        typical=feature_map.invert(centroids),
        segments=segments,
        users=rest.get("users", 0),
        **told,
    )
    populations = Populations.of((), features)
    return Model(epoch, version, at_ms, schema, populations, (part,), **rest)


def with_only(model: Model, **changed: Any) -> Model:
    """A model of one population, changed in what was learned of it.

    Of other centroids nobody knows how well they are separated.
    """
    (part,) = model.parts
    if "centroids" in changed:
        changed.setdefault("separations", None)
    return replace(model, parts=(replace(part, **changed),))


EVERY_AGGREGATE: tuple[Feature, ...] = (
    feature("seen", "last"),
    feature("bought", "last", on=(ORDER,), absent=400.0),
    feature("tenure", "first"),
    feature("all_1h", "count", half_life="1h"),
    feature("orders_1d", "count", on=(ORDER,), half_life="1d"),
    feature("carts_1d", "count", on=(CART,), half_life="1d"),
    feature("net_1d", "sum", on=(ORDER,), minus=(REFUND,), of="value", half_life="1d"),
    feature("items_1d", "mean", on=(ORDER,), of="quantity", half_life="1d", absent=-1.0),
    feature("basket_1h", "mean", on=(ORDER,), minus=(REFUND,), of="value", half_life="1h"),
    feature("kept_1d", "count", on=(ORDER, CART), minus=(REFUND,), half_life="1d"),
    feature("pieces_7d", "sum", on=(ORDER,), minus=(CANCEL,), of="quantity", window="7d"),
    feature("gross_1d", "sum", on=(ORDER,), of="value", half_life="1d"),
    feature("refunds_7d", "count", on=(REFUND,), half_life="7d"),
    feature("refunded", "sum", on=(REFUND,), of="value", half_life="7d"),
    feature("in_carts", "sum", on=(CART,), minus=(REFUND,), of="value", half_life="7d"),
    feature("updates_7d", "count", on=(UPDATE,), half_life="7d"),
    feature("shipped", "last", on=(SHIP, REFUND)),
    feature("orders_ever", "count", on=(ORDER,), minus=(REFUND,)),
    feature("spent_ever", "sum", on=(ORDER,), minus=(REFUND,), of="value"),
    feature("gap_7d", "gap", on=(ORDER,), half_life="7d", absent=-1.0),
    feature("gap_ever", "gap", on=(ORDER, SHIP)),
    feature("silence", "ratio", numerator="bought", denominator="gap_7d", absent=-2.0),
    feature("browsed_1d", "sum", on=BROWSE, of="browse_seconds", half_life="1d"),
    feature("sessions_1d", "count", of="sessions", half_life="1d"),
    feature("categories_7d", "distinct", on=BROWSE, of="category", half_life="7d"),
    feature("all_7d", "count", window="7d"),
    feature("net_1h", "sum", on=(ORDER,), minus=(REFUND,), of="value", window="1h", tiles=12),
    feature("items_7d", "mean", on=(ORDER,), of="quantity", window="7d", tiles=7, absent=-1.0),
    feature("browsed_1h", "sum", of="browse_seconds", window="1h", tiles=1),
    feature("sessions_7d", "count", of="sessions", window="7d", tiles=7),
    feature("conversion", "ratio", numerator="orders_1d", denominator="sessions_1d", absent=2.0),
    feature("reviews_7d", "count", on=(REVIEW,), half_life="7d"),
    feature("feels_7d", "mean", on=(REVIEW,), of="sentiment", half_life="7d", absent=-3.0),
    feature("felt_7d", "sum", on=(REVIEW,), of="sentiment", window="7d"),
    feature("net_rate", "ratio", numerator="net_1h", denominator="all_7d"),
)
"""A table in which no part of the row layout is missing."""

feature_tables = st.sampled_from([DEFAULT_FEATURES, EVERY_AGGREGATE])

# Steps between events: none, within and at the edge of a session and a tile, days, and back.
_STEPS = st.one_of(
    st.just(0),
    st.integers(1, 60_000),
    st.sampled_from([SESSION_GAP_MS - 1, SESSION_GAP_MS, SESSION_GAP_MS + 1]),
    st.sampled_from([5 * 60_000, 3_600_000, 6 * 3_600_000, DAY_MS, 7 * DAY_MS, 40 * DAY_MS]),
    st.integers(-3 * DAY_MS, -1),
    st.just(-20 * DAY_MS),
)
_AMOUNTS = st.one_of(
    st.sampled_from([0.0, 1.0, 19.99, -5.0, 1e-3, 1e9]),
    st.floats(0, 1_000, allow_subnormal=False),
)
_RECORD_STEPS = st.one_of(
    st.integers(0, 2_000),
    st.sampled_from([-DAY_MS, 450_000, 3_600_000, DAY_MS, 7 * DAY_MS, 30 * DAY_MS]),
)
"""How far the log's clock goes on: mostly hardly at all, sometimes past what is remembered."""
_WHAT = st.tuples(
    st.sampled_from([0, 0, 0, 0, 1, 2]),  # user: one does most
    st.sampled_from([0, 0, 0, 1]),  # topic: clicks are many
    st.sampled_from(
        [ORDER, ORDER, ORDER, REFUND, REFUND, CANCEL, UPDATE, SHIP, VIEW, VIEW, CART, REVIEW]
    ),
    _STEPS,
    st.one_of(st.none(), st.none(), st.integers(0, 10)),  # a new id, none, or one of before
    _AMOUNTS,
    st.integers(1, 5),
    st.integers(0, 40),  # category, 0 for none
    st.sampled_from([0, 0, 1, 1, 1, 2, 3]),  # order, 0 for none
    st.sampled_from([False, False, True]),  # whether a message says no amount
    _RECORD_STEPS,
    st.tuples(
        st.sampled_from([None, -1.0, -0.5, 0.0, 1.0, 1.0]),
        st.lists(st.integers(0, 9), max_size=4, unique=True).map(sorted).map(tuple),
    ),  # rating, and words of the text
    st.sampled_from(
        [
            (1.0, "EUR"),
            (1.0, "EUR"),
            (0.9, "USD"),
            (1.1, "USD"),
            (0.5, ""),
            (-2.0, "GBP"),
            (-2.0, "GBP"),
            (-2.5, "GBP"),
            (2.25, "GBP"),
        ]
    ),  # what a unit of the money is worth, see `columns`, and which that is
)


@st.composite
def histories(draw: st.DrawFn, max_events: int = 60) -> list[Event]:
    """Events of three users on both topics, in one possible order of arrival."""
    count = draw(st.integers(1, max_events))
    time = recorded = START_MS
    events: list[Event] = []
    for what in draw(st.lists(_WHAT, min_size=count, max_size=count)):
        user, topic, name, step, back, value, quantity, category, order, silent, *rest = what
        later, said, (rate, currency) = rest
        rating, words = said if name == REVIEW else (None, ())
        time, recorded = max(time + step, START_MS), max(recorded + later, START_MS)
        message = hash_text(b"message %d" % len(events))
        if back is not None:
            before = [e.id for e in events if (e.user, e.topic) == (f"user-{user}", topic)]
            message = before[-back] if 0 < back <= len(before) else 0
        takes_back = name in (REFUND, CANCEL)
        whole = silent and (takes_back or name == UPDATE)
        # What says no amount says no currency.
        rate, currency = (-2.0, "GBP") if whole else (rate, currency)
        events.append(
            Event(
                user=f"user-{user}",
                topic=topic,
                name=name,
                time_ms=time,
                id=message,
                value=0.0 if whole else abs(value) if takes_back else value,
                quantity=float(quantity),
                category=hash_text(b"category %d" % category) if category else 0,
                order=hash_text(b"order %d" % order) if order else 0,
                whole=whole,
                rate=abs(rate),
                in_own=rate < 0.0,
                currency=currency,
                recorded_ms=recorded,
                rating=rating,
                words=words,
            )
        )
    return events


def cuts(events: Sequence[Event]) -> st.SearchStrategy[list[list[Event]]]:
    """The same events in batches; each topic keeps its order, the two mix anew."""

    def cut(choice: tuple[list[int], list[int]]) -> list[list[Event]]:
        ranks, ends = choice
        places = {topic: iter([e for e in events if e.topic == topic]) for topic in (0, 1)}
        mixed = sorted(range(len(events)), key=lambda i: ranks[i])
        order = [next(places[events[i].topic]) for i in mixed]
        edges = [0, *sorted(ends), len(order)]
        return [order[low:high] for low, high in pairwise(edges)]

    count = len(events)
    return st.tuples(
        st.lists(st.integers(0, count), min_size=count, max_size=count),
        st.lists(st.integers(0, count), max_size=8),
    ).map(cut)


def columns(table: FeatureTable, slots: dict[str, int], events: Sequence[Event]) -> EventColumns:
    """A batch as the fold takes it; unknown users get the next slot."""
    reviews = [at for at, e in enumerate(events) if e.rating is not None or e.words]
    return EventColumns(
        slot=np.array([slots.setdefault(e.user, len(slots)) for e in events], np.int64),
        topic=np.array([e.topic for e in events], np.uint8),
        kind=np.array([table.codes[e.name] for e in events], np.uint8),
        time_ms=np.array([e.time_ms for e in events], np.int64),
        id=np.array([e.id for e in events], np.uint64),
        value=np.array([e.value for e in events], np.float64),
        quantity=np.array([e.quantity for e in events], np.float64),
        category=np.array([e.category for e in events], np.uint64),
        order=np.array([e.order for e in events], np.uint64),
        whole=np.array([e.whole for e in events], np.bool_),
        rate=np.array([-e.rate if e.in_own else e.rate for e in events], np.float64),
        currency=np.array([code_of_currency(e.currency) for e in events], np.uint32),
        recorded_ms=np.array([e.recorded_ms or e.time_ms for e in events], np.int64),
        reviews=Reviews.of(
            np.array(reviews, np.int64),
            np.array([events[at].rating for at in reviews], np.float64),
            [np.array(events[at].words, np.int64) for at in reviews],
        ),
    )


def track(time_ms: int = START_MS, **fields: Any) -> dict[str, Any]:
    """A good `track` message; a field given as ``...`` is left out."""
    whole: dict[str, Any] = {
        "type": "track",
        "event": ORDER,
        "userId": "u1",
        "messageId": "m1",
        "timestamp": iso(time_ms),
        "properties": {"revenue": 20.0},
        **fields,
    }
    return {key: value for key, value in whole.items() if value is not ...}


def encoded(**fields: Any) -> bytes:
    return json.dumps(track(**fields)).encode()


_GOOD = encoded()
CANCELLED: tuple[dict[str, Any], ...] = (
    {"products": [{}]},
    {"products": [{}], "price": 3},
    {"products": [{}, {"price": 3}]},
)
NO_PRODUCTS: tuple[Any, ...] = ("  ", {}, [], None)
NEGATIVE: tuple[dict[str, Any], ...] = (
    {"total": -50},
    {"revenue": "-0.01"},
    {"products": [{"price": -5, "quantity": 2}, {"price": 3}]},
    {"products": [{"price": -5, "quantity": -2}]},
    {"revenue": 5, "quantity": -1},
    {"products": [{}], "quantity": -2},
    {"price": -3},
)
PRODUCTS = [
    {"product_id": "a", "name": "Mug", "price": 19, "quantity": 1},
    {"product_id": "b", "name": "Plate", "price": 3.1, "quantity": 2},
]
_REFUSED = Fate.REJECTED
MESSAGES: tuple[tuple[bytes | None, Fate, Reason | None], ...] = (
    (_GOOD, Fate.APPLIED, None),
    (b" " + _GOOD + b"\n", Fate.APPLIED, None),
    (encoded(type=...), Fate.APPLIED, None),
    (encoded(properties=...), Fate.APPLIED, None),
    (encoded(properties={"revenue": None, "total": 3, "coupon": ["x"]}), Fate.APPLIED, None),
    (encoded(context={"deep": [{"er": 1}]}), Fate.APPLIED, None),
    (encoded(userId="Zoë"), Fate.APPLIED, None),
    (encoded(userId=None, anonymousId="a1"), Fate.APPLIED, None),
    (encoded(userId=..., anonymousId="a1"), Fate.APPLIED, None),
    (encoded(userId="é" * 128), Fate.APPLIED, None),
    (encoded(userId=17), Fate.APPLIED, None),
    (encoded(userId=17.0), Fate.APPLIED, None),
    (encoded(userId=2**70), Fate.APPLIED, None),
    (encoded(userId=" u1 "), Fate.APPLIED, None),
    (encoded(userId="u1\0"), Fate.APPLIED, None),
    (encoded(userId="nullable"), Fate.APPLIED, None),
    (encoded(userId="", anonymousId="a1"), Fate.APPLIED, None),
    (encoded(userId="NULL", anonymousId="a1"), Fate.APPLIED, None),
    (encoded(userId=" Undefined\t", anonymousId="a1"), Fate.APPLIED, None),
    (encoded(userId={"id": 1}, anonymousId="a1"), Fate.APPLIED, None),
    (encoded(userId="u1", anonymousId="\ud800"), Fate.APPLIED, None),
    (encoded(userId="é" * 129, anonymousId="a1"), _REFUSED, Reason.OUT_OF_RANGE),
    (encoded(messageId=...), Fate.APPLIED, None),
    (encoded(messageId=None), Fate.APPLIED, None),
    (encoded(messageId=""), Fate.APPLIED, None),
    (encoded(messageId="undefined"), Fate.APPLIED, None),
    (encoded(messageId=17), Fate.APPLIED, None),
    (encoded(messageId=["m1"]), Fate.APPLIED, None),
    (encoded(messageId="m1\0"), Fate.APPLIED, None),
    (encoded(event="order completed"), Fate.APPLIED, None),
    (encoded(event=" ORDER COMPLETED\n"), Fate.APPLIED, None),
    (encoded(event="Completed Order"), Fate.APPLIED, None),
    (encoded(event="order_completed"), Fate.APPLIED, None),
    (encoded(event="orderRefunded"), Fate.APPLIED, None),
    (encoded(event="viewed-product"), Fate.APPLIED, None),
    (encoded(userId="\u00a0"), Fate.REJECTED, Reason.PLACEHOLDER_USER),
    (encoded(userId="\u200b"), Fate.REJECTED, Reason.PLACEHOLDER_USER),
    (encoded(userId="{{ User_Id }}"), Fate.REJECTED, Reason.PLACEHOLDER_USER),
    (encoded(event="viewed product category"), Fate.APPLIED, None),
    (encoded(event="Order  Completed"), Fate.IGNORED, None),
    (encoded(event="Order\u00a0Completed"), Fate.IGNORED, None),
    (b"\xef\xbb\xbf" + _GOOD, Fate.APPLIED, None),
    (b"\xef\xbb\xbf", _REFUSED, Reason.EMPTY),
    (encoded(name="Mug \ud83d"), Fate.APPLIED, None),
    (_GOOD[:-1] + b', "x": "\\ud800", "x": 1}', Fate.APPLIED, None),
    (_GOOD[:-1] + b', "x": "\\ud800", "x": 1e999}', Fate.APPLIED, None),
    (encoded(properties={"category": "\ud800"}), Fate.APPLIED, None),
    (encoded(messageId="\udc00"), Fate.APPLIED, None),
    (encoded(properties=None), Fate.APPLIED, None),
    (encoded(properties=[]), Fate.APPLIED, None),
    (encoded(properties={"revenue": "12.50"}), Fate.APPLIED, None),
    (encoded(properties={"revenue": " +1e2 "}), Fate.APPLIED, None),
    (encoded(properties={"revenue": "", "total": "7"}), Fate.APPLIED, None),
    (encoded(properties={"revenue": 5, "total": "much", "value": [1]}), Fate.APPLIED, None),
    (encoded(properties={"category": 3}), Fate.APPLIED, None),
    (encoded(properties={"category": ["shoes"]}), Fate.APPLIED, None),
    (encoded(event=VIEW, properties={"price": "9,99", "value": "high"}), Fate.APPLIED, None),
    (encoded(event=VIEW, properties={"products": "none", "quantity": "one"}), Fate.APPLIED, None),
    (encoded(event=VIEW, properties="none"), Fate.APPLIED, None),
    (encoded(properties={"products": PRODUCTS}), Fate.APPLIED, None),
    (encoded(properties={"products": PRODUCTS, "revenue": 25}), Fate.APPLIED, None),
    (encoded(properties={"products": PRODUCTS, "quantity": 9}), Fate.APPLIED, None),
    (encoded(properties={"products": [{}, {"price": None}, {"price": "3"}]}), Fate.APPLIED, None),
    (encoded(properties={"products": [{"price": 1e9, "price ": 2}, 7]}), Fate.APPLIED, None),
    *(
        (encoded(event=name, properties={"products": no_list, **more}), fate, reason)
        for name in (ORDER, REFUND, "Order Cancelled")
        for no_list in ({"0": {"price": 3}}, '[{"price": 3}]', False, 7)
        for more, fate, reason in (
            ({}, _REFUSED, Reason.WRONG_TYPE),
            ({"price": 3}, _REFUSED, Reason.WRONG_TYPE),
            ({"total": 3}, Fate.APPLIED, None),
        )
    ),
    *(
        (encoded(event=REFUND, properties={"order_id": "o1", "products": none}), Fate.APPLIED, None)
        for none in NO_PRODUCTS
    ),
    *(
        (encoded(event="Order Cancelled", properties=said), Fate.APPLIED, None)
        for said in CANCELLED
    ),
    (encoded(properties={"products": []}), Fate.APPLIED, None),
    (encoded(properties={"products": [{"price": 0.1, "quantity": 3}] * 7}), Fate.APPLIED, None),
    (encoded(properties={"products": [{"price": "3,5"}]}), _REFUSED, Reason.BAD_NUMBER),
    *(
        (encoded(event=name, properties={"products": [line, {}], **more}), fate, reason)
        for line in ([{"price": 3}], [], ' {"price": 3}')
        for name, more, fate, reason in (
            (ORDER, {}, _REFUSED, Reason.WRONG_TYPE),
            (REFUND, {"order_id": "o1"}, _REFUSED, Reason.WRONG_TYPE),
            (CANCEL, {"order_id": "o1"}, _REFUSED, Reason.WRONG_TYPE),
            (ORDER, {"total": 3}, Fate.APPLIED, None),
            (VIEW, {}, Fate.APPLIED, None),
        )
    ),
    *(
        (encoded(properties={"products": [line]}), Fate.APPLIED, None)
        for line in ("sku-1", "", 7, 1.5, True, None)
    ),
    (encoded(properties={"products": [{"quantity": []}]}), _REFUSED, Reason.WRONG_TYPE),
    (encoded(properties={"products": [{"price": 1e12}] * 2}), _REFUSED, Reason.OUT_OF_RANGE),
    (encoded(properties={"subtotal": 3, "price": 9}), Fate.APPLIED, None),
    (encoded(properties={"total_quantity": 3, "price": 9}), Fate.APPLIED, None),
    *(
        (encoded(event=name, properties={"order_id": "o1", **said}), Fate.APPLIED, None)
        for name in (ORDER, REFUND, "Refunded Order")
        for said in (
            {},
            {"total": 0},
            {"revenue": None, "total": ""},
            {"products": PRODUCTS},
            {"products": [{}], "quantity": 2},
            {"quantity": 2},
            {"refund_amount": "5", "total": 20},
        )
    ),
    *(
        (encoded(properties={"revenue": 5, name: order}), Fate.APPLIED, None)
        for name in ("order_id", "orderId", "transaction_id", "transactionId")
        for order in ("o1", " o1", 1001, "1001", 1001.0, "", "null", True, ["o1"], "o" * 200)
    ),
    (
        encoded(properties={"order_id": "", "orderId": "undefined", "transaction_id": "t"}),
        Fate.APPLIED,
        None,
    ),
    *(
        (encoded(timestamp=text), Fate.APPLIED, None)
        for text in (
            "2025-12-01T00:00:00Z",
            "2025-12-01T00:00:00+0000",
            "2025-12-01T00:00:00.000+0000",
            "2025-11-30T19:00:00-0500",
            "2025-12-01T05:30:00.123456789+0530",
            "2025-12-01 00:00:00.123+00",
            "2025-12-01T00:00:00,000Z",
            "2025-12-01T00:00Z",
            "2025-12-01 00:00:00 UTC",
            "2025-12-01 01:00:00 +0100",
            "2025-12-01T00:00:00.0000000Z",
            "20251201T000000Z",
            "20251201T000000.123Z",
            "20251201T013000+0130",
            "20251201T0000Z",
            "20251201 000000,5 UTC",
            "2025-12-01 00:00:00.123456 +0000 UTC",
            "2025-12-01 01:00:00 +0100 CET",
            "2025-12-01T01:00:00+01:00[Europe/Berlin]",
            "2025-12-01T00:00:00Z[UTC]",
            "2025-11-30T23:00:00\N{MINUS SIGN}01:00",
            "2025-11-30T24:00:00.000Z",
            "2025-11-30T23:59:60.000Z",
            " 2025-12-01T00:00:00.000Z",
            "2025-12-01T00:00:00.000Z\n",
        )
    ),
    *(
        (encoded(timestamp=blank, sentAt="2025-12-01T00:00:00Z"), Fate.APPLIED, None)
        for blank in (..., None, "", "   ", " " * 24)
    ),
    (encoded(timestamp=..., receivedAt="2025-12-01T00:00:00Z"), Fate.APPLIED, None),
    (
        encoded(timestamp=..., originalTimestamp="2025-12-01T00:00:00Z", sentAt=3),
        Fate.APPLIED,
        None,
    ),
    (
        encoded(timestamp=..., originalTimestamp="soon", sentAt="2025-12-01T00:00:00Z"),
        _REFUSED,
        Reason.BAD_TIME,
    ),
    (encoded(timestamp=..., sentAt=START_MS), _REFUSED, Reason.WRONG_TYPE),
    (encoded(timestamp="soon", sentAt="2025-12-01T00:00:00Z"), _REFUSED, Reason.BAD_TIME),
    (encoded(timestamp="2025-12-01T01:30:00.123456789+01:30"), Fate.APPLIED, None),
    (encoded(timestamp="2025-12-01t00:00:00.5z"), Fate.APPLIED, None),
    (encoded(timestamp="2025-12-01 00:00:00.5-00:00"), Fate.APPLIED, None),
    (None, _REFUSED, Reason.EMPTY),
    (b"", _REFUSED, Reason.EMPTY),
    (encoded(context="x" * 70_000), _REFUSED, Reason.TOO_LARGE),
    (b"x" * 70_000, _REFUSED, Reason.TOO_LARGE),
    (b" ", _REFUSED, Reason.TRUNCATED),
    *((_GOOD[:end], _REFUSED, Reason.TRUNCATED) for end in range(1, len(_GOOD) - 5)),
    ('{"event": "Zoë'.encode()[:-1], _REFUSED, Reason.TRUNCATED),
    (b'{"event": "Zo\\u00', _REFUSED, Reason.TRUNCATED),
    (b"hello", _REFUSED, Reason.NOT_JSON),
    (_GOOD + b"}", _REFUSED, Reason.NOT_JSON),
    (_GOOD.replace(b"u1", b"u\xff"), _REFUSED, Reason.NOT_JSON),
    (_GOOD.replace(b"track", b"tr\xffck"), _REFUSED, Reason.NOT_JSON),
    (_GOOD.replace(b"u1", b"\\ud800, and more"), _REFUSED, Reason.NOT_JSON),
    (_GOOD.replace(b"20.0", b"NaN"), _REFUSED, Reason.NOT_JSON),
    (_GOOD.replace(b"20.0", b"020"), _REFUSED, Reason.NOT_JSON),
    (_GOOD.replace(b'"track"', b"[" * 20_000 + b"]" * 20_000), _REFUSED, Reason.NOT_JSON),
    (_GOOD.decode().encode("utf-16"), _REFUSED, Reason.NOT_JSON),
    (b'{"type":"segstream-mark","a":1e999,"b":NaN}', _REFUSED, Reason.NOT_JSON),
    (_GOOD.replace(b"20.0", b'1e999, "x": NaN'), _REFUSED, Reason.NOT_JSON),
    (_GOOD[:-1] + b', "x": 1e999}', Fate.APPLIED, None),
    (_GOOD[:-1] + b', "x": 1e999, "y": -Infinity}', _REFUSED, Reason.NOT_JSON),
    (b"[]", _REFUSED, Reason.WRONG_TYPE),
    (b"null", _REFUSED, Reason.WRONG_TYPE),
    (b"17", _REFUSED, Reason.WRONG_TYPE),
    (encoded(event=5), _REFUSED, Reason.WRONG_TYPE),
    (encoded(event=None), _REFUSED, Reason.MISSING_FIELD),
    (encoded(userId=17.5), _REFUSED, Reason.WRONG_TYPE),
    (encoded(userId=True), _REFUSED, Reason.WRONG_TYPE),
    (encoded(userId=1e300), _REFUSED, Reason.WRONG_TYPE),
    (encoded(userId=10**200), _REFUSED, Reason.WRONG_TYPE),
    (encoded(userId=["u1"], anonymousId="null"), _REFUSED, Reason.WRONG_TYPE),
    (encoded(timestamp=START_MS), _REFUSED, Reason.WRONG_TYPE),
    (encoded(properties=["x"]), _REFUSED, Reason.WRONG_TYPE),
    (encoded(properties="none"), _REFUSED, Reason.WRONG_TYPE),
    (encoded(properties={"revenue": True}), _REFUSED, Reason.WRONG_TYPE),
    (encoded(properties={"revenue": {"USD": 3}}), _REFUSED, Reason.WRONG_TYPE),
    *(
        (encoded(properties={"revenue": text}), _REFUSED, Reason.BAD_NUMBER)
        for text in (
            "much",
            "1,250.00",
            "1.250,00",
            "$12",
            "12 EUR",
            "NaN",
            "Infinity",
            "0x10",
            "1_000",
            "٣",
            "--1",
            "null",
        )
    ),
    (encoded(event=5, messageId=...), _REFUSED, Reason.WRONG_TYPE),
    (encoded(event=...), _REFUSED, Reason.MISSING_FIELD),
    (encoded(timestamp=...), _REFUSED, Reason.MISSING_FIELD),
    (encoded(userId=..., event=...), _REFUSED, Reason.MISSING_FIELD),
    (b"{}", _REFUSED, Reason.MISSING_FIELD),
    (encoded(userId=...), _REFUSED, Reason.NO_USER),
    (encoded(userId=None), _REFUSED, Reason.NO_USER),
    (encoded(userId=""), _REFUSED, Reason.NO_USER),
    (encoded(userId="  "), _REFUSED, Reason.NO_USER),
    (encoded(userId=None, anonymousId=""), _REFUSED, Reason.NO_USER),
    (encoded(userId=None, anonymousId=17), Fate.APPLIED, None),
    *(
        (encoded(userId=user), _REFUSED, Reason.PLACEHOLDER_USER)
        for user in (
            "null",
            "Undefined",
            " NaN ",
            "none",
            "nil",
            "<nil>",
            "<null>",
            "(not set)",
            "[object Object]",
            "0",
            0,
            "anonymous",
            "00000000-0000-0000-0000-000000000000",
        )
    ),
    (encoded(userId="null", anonymousId="undefined"), _REFUSED, Reason.PLACEHOLDER_USER),
    (encoded(userId="", anonymousId="null"), _REFUSED, Reason.PLACEHOLDER_USER),
    (encoded(userId="", timestamp="soon"), _REFUSED, Reason.NO_USER),
    (encoded(userId="é" * 129), _REFUSED, Reason.OUT_OF_RANGE),
    *(
        (encoded(timestamp=text), _REFUSED, Reason.BAD_TIME)
        for text in (
            "soon",
            "2025-12-01",
            "2025-12-01T00:00",
            "2025-12-01T00:00.5Z",
            "2025-12-01T00:00:00",
            "2025-12-01T00:00:00.000",
            "2025-12-01T00:00:00+000",
            "2025-12-01T00:00:00+00:0",
            "2025-12-01T00:00:00+0060",
            "2025-12-01T00:00:00.Z",
            "2025-12-01T00:00:00.0000000",
            "2025-12-01T00:00:00.000Z\0",
            "2025-12-01T00:00:00 CET",
            "20251201T000000.000",
            "202512-01T00:00:00.000Z",
            "2025-1201T00:00:00.000Z",
            "20251201T0000.5Z",
            "2025-12-01T00:0000.000Z",
            "2025-12-01T00:00:00Z[",
            "2025-12-01T00:00:00[Europe/Berlin]",
            "2025-W49-1T00:00:00Z",
            "2025-12-01T24:00:01.000Z",
            "2025-12-01T24:01:00.000Z",
            "2025-12-01T23:60:00.000Z",
            "2025-12-01T23:59:61.000Z",
            "2025-02-29T00:00:00.000Z",
            "2025-13-01T00:00:00.000Z",
            "2025-00-01T00:00:00.000Z",
            "2025-12-00T00:00:00.000Z",
            "2025-12-01T00:00:00.000+24:00",
            "٢٠٢٥-12-01T00:00:00.000Z",
            "0000-12-01T00:00:00.000Z",
            "1969-12-31T23:59:59.999Z",
            "1970-01-01T00:00:00+00:01",
            "1970-01-21T10:09:07.200Z",
            "1994-12-31T23:59:59.999Z",
            "1995-01-01T00:00:00+00:01",
            "2100-01-01T00:00:00.000Z",
            "9999-12-31T23:59:59.999Z",
            "9999-12-31T23:59:59-01:00",
        )
    ),
    (encoded(properties={"revenue": 1.1e12}), _REFUSED, Reason.OUT_OF_RANGE),
    (encoded(properties={"revenue": -1.1e12}), _REFUSED, Reason.OUT_OF_RANGE),
    *(
        (encoded(event=name, properties=said), fate, reason)
        for name, fate, reason in (
            (ORDER, _REFUSED, Reason.OUT_OF_RANGE),
            (UPDATE, _REFUSED, Reason.OUT_OF_RANGE),
            (REFUND, Fate.APPLIED, None),
            (CANCEL, Fate.APPLIED, None),
        )
        for said in NEGATIVE
    ),
    (encoded(properties={"revenue": 1, "quantity": 1e13}), _REFUSED, Reason.OUT_OF_RANGE),
    (encoded(properties={"price": 1e300, "quantity": 1e300}), _REFUSED, Reason.OUT_OF_RANGE),
    (_GOOD.replace(b"20.0", b"1e999"), _REFUSED, Reason.OUT_OF_RANGE),
    (_GOOD.replace(b"20.0", b"1" * 5_000), _REFUSED, Reason.OUT_OF_RANGE),
    (_GOOD.replace(b"20.0", b"1" + b"0" * 400), _REFUSED, Reason.OUT_OF_RANGE),
    (encoded(properties={"x": 10**400}), Fate.APPLIED, None),
    (_GOOD[:-1] + b', "x": 1e999, "y": "\\\\ud800 \\ud83d\\ude00"}', Fate.APPLIED, None),
    (encoded(event=VIEW, properties={"revenue": 1.1e12}), Fate.APPLIED, None),
    (encoded(event="Page Scrolled", properties={"revenue": 1.1e12}), Fate.IGNORED, None),
    (encoded(event="Page Scrolled"), Fate.IGNORED, None),
    (encoded(event=""), Fate.IGNORED, None),
    (encoded(event="Page Scrolled", timestamp="soon"), Fate.IGNORED, None),
    (encoded(event="Page Scrolled", timestamp=3, messageId={}), Fate.IGNORED, None),
    (encoded(event="Page Scrolled", userId=None), Fate.IGNORED, None),
    (encoded(event="Page Scrolled", userId="\ud800"), Fate.IGNORED, None),
    (encoded(event="Survey Answered", properties={"value": "high"}), Fate.IGNORED, None),
    (encoded(event="Survey Answered", properties=7), Fate.IGNORED, None),
    (encoded(event="Page Scrolled", timestamp="2001-01-01T00:00:00Z"), Fate.IGNORED, None),
    *(
        (encoded(type=kind, event=..., userId=...), Fate.IGNORED, None)
        for kind in ("identify", "page", "screen", "group", "alias")
    ),
    (encoded(type="identify", event=5), Fate.IGNORED, None),
    (encoded(type=" Identify"), Fate.IGNORED, None),
    (encoded(type="merge", event=...), Fate.IGNORED, None),
    (encoded(type="merge"), Fate.APPLIED, None),
    (encoded(type=" Track "), Fate.APPLIED, None),
    *(
        (encoded(type=kind, event=...), _REFUSED, Reason.MISSING_FIELD)
        for kind in ("Track", "", None, 5)
    ),
    (encoded(type="page"), Fate.IGNORED, None),
    (encoded(time_ms=START_MS - 90 * DAY_MS), Fate.APPLIED, None),
    (encoded(time_ms=START_MS - 90 * DAY_MS - 1), Fate.LATE, None),
    (encoded(timestamp="1995-01-01T00:00:00Z"), Fate.LATE, None),
    (encoded(time_ms=START_MS + 400 * DAY_MS), Fate.APPLIED, None),
    (encoded(type="segstream-mark", sentAt="2026-11-21T09:00:00.000Z"), Fate.IGNORED, None),
    (b'{"type": "segstream-mark"}', Fate.IGNORED, None),
    (b'{"type": "segstream-mark", "timestamp": "soon", "sentAt": 3}', Fate.IGNORED, None),
)
"""Messages, in a record of time `START_MS`, and what becomes of each under the defaults."""
