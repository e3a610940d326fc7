"""Live and a replay of the same lines come to the same, message by message.

A line of Segment messages is sent as it is, so what the worker makes of it is what it makes of the
message live. What is left to go wrong is where the replay puts it, and what it does not send: both are
held here to what the decoders say.
"""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.decode import Decoder
from consumers.native import IGNORED_EVENT, NativeReader
from producers.files import Source, read_sources
from producers.mapped import Event, Refusal
from producers.mapping import load_mapping
from producers.messages import encoded_message, topic_of
from producers.sorting import EventSorter
from stream.config import Money, Settings, Worker
from stream.events import Reason, code_of_currency
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.oracle import Judge, Message
from stream.store.state import StoreUnavailableError
from stream.units import iso
from tests.fakes import FakeMessage
from tests.fuzz import grammar
from tests.fuzz.properties import WAYS
from tests.strategies import EVERY_AGGREGATE, MESSAGES, ORDER, REFUND, START_MS, VIEW, encoded

TABLE = FeatureTable(EVERY_AGGREGATE)
MONEY = Money(currency="EUR", rates={"USD": 0.5})
NOW_MS = START_MS + 30 * 86_400_000


def lines() -> list[bytes]:
    """Odd messages, listed and generated, as far as they fit into lines."""
    chance = Random(20_251_201)
    found = [value for value, _, _ in MESSAGES if value is not None]
    found += [grammar.message(chance) for _ in range(400)]
    found += [
        encoded(properties={"revenue": 10, "currency": code}, event=event)
        for code in ("EUR", "usd", " USD ", "JPY", "", None, 7, ["EUR"], "null")
        for event in (ORDER, REFUND, VIEW, "Page Scrolled")
    ]
    stripped = [value.strip() for value in found]
    return [value for value in stripped if value and b"\n" not in value and b"\r" not in value]


LINES = lines()


def replayed(tmp_path: Path) -> tuple[dict[int, Event], dict[int, Refusal]]:
    """What a replay sends of the lines, and what it refuses, by line."""
    file = tmp_path / "messages.jsonl"
    file.write_bytes(b"".join(line + b"\n" for line in LINES))
    refused: dict[int, Refusal] = {}
    sent: dict[int, Event] = {}
    with EventSorter() as sorter:
        rows, mapped = read_sources(
            [Source(file, load_mapping("segment"))],
            sorter,
            lambda refusal: refused.update({refusal.row: refusal}),
            latest_ms=NOW_MS,
            keep_outliers=True,
            native=NativeReader(TABLE, Worker(), MONEY),
        )
        for batch in sorter.batches():
            sent.update({event.row: event for event in batch})
    assert rows == len(LINES)
    assert mapped == len(sent)
    assert len(sent) + len(refused) == len(LINES)
    return sent, refused


def test_there_are_enough_of_them() -> None:
    assert len(LINES) >= 300


@pytest.mark.parametrize("way", WAYS)
def test_every_line_is_what_it_is_live(way: Any, tmp_path: Path) -> None:
    sent, refused = replayed(tmp_path)
    decoder = Decoder(TABLE, Worker(decoder=way), money=MONEY)
    fates: set[str] = set()
    for number, line in enumerate(LINES, 1):
        # Live, in a record of the event's own time, as far as it says one.
        event = sent.get(number)
        time_ms = START_MS if event is None else event.time_ms
        block = decoder.decode([FakeMessage(line, timestamp_ms=time_ms)], NOW_MS)
        counts = block.batch(0, 0, 1).counts
        if counts.rejected:
            assert refused[number].reason == block.rejects[0].reason, line
            assert block.rejects[0].detail in refused[number].why
        elif event is None:
            refusal = refused[number]
            in_future = refusal.reason == Reason.BAD_TIME and counts.clamped
            assert counts.ignored or in_future, (line, refusal)
            assert in_future or refusal.reason == IGNORED_EVENT
        else:
            again = decoder.decode(
                [FakeMessage(encoded_message(event, "", ""), timestamp_ms=time_ms)], NOW_MS
            )
            assert counts.ignored + counts.applied == 1, line
            for column in (
                "kind",
                "time_ms",
                "id",
                "value",
                "quantity",
                "category",
                "order",
                "whole",
                "rate",
            ):
                assert getattr(again, column).tobytes() == getattr(block, column).tobytes(), line
            if counts.applied:
                assert (again.users, block.users) == ([event.user], [event.user])
                assert block.time_ms[0] == event.time_ms
                assert TABLE.codes[event.event] == block.kind[0]
        fates |= {name for name in ("rejected", "ignored", "applied") if getattr(counts, name)}
    assert fates == {"rejected", "ignored", "applied"}


def test_what_belongs_to_an_order_goes_to_the_purchases() -> None:
    names = (
        "Order Completed",
        "Order Updated",
        "Order Refunded",
        "Order Cancelled",
        "Product Viewed",
    )
    assert [topic_of(name) for name in names] == [1, 1, 1, 1, 0]


def test_an_array_of_messages_is_read_like_lines(tmp_path: Path) -> None:
    file = tmp_path / "messages.json"
    first, second = encoded(userId="u1", name="Mug \ud83d"), encoded(userId=7, messageId="m2")
    file.write_bytes(b"\xef\xbb\xbf[\n " + first + b",\n" + second + b"\n]\n")
    with EventSorter() as sorter:
        read_sources(
            [Source(file, load_mapping("segment"))],
            sorter,
            lambda refusal: pytest.fail(str(refusal)),
            native=NativeReader(TABLE, Worker(), Money()),
        )
        [events] = list(sorter.batches())
    assert [(event.row, event.user, event.id, event.raw) for event in events] == [
        (1, "u1", "m1", first.decode()),
        (2, "7", "m2", second.decode()),
    ]


# -- currencies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("money", "currency", "value"),
    [
        (Money(), "USD", 10.0),
        (Money(), {"odd": 1}, 10.0),
        (MONEY, "EUR", 10.0),
        (MONEY, "usd", 5.0),
        (MONEY, " Usd", 5.0),
        (MONEY, None, 10.0),
        (MONEY, "", 10.0),
        (MONEY, "JPY", None),
        (MONEY, 978, None),
        (MONEY, "null", None),
        (Money(currency="EUR", rates={"USD": 0.5}, default="USD"), None, 5.0),
        (Money(currency="EUR", rates={"USD": 0.5}, default="USD"), "EUR", 10.0),
    ],
)
def test_amounts_are_converted_or_refused(
    way: Any, money: Money, currency: Any, value: float | None
) -> None:
    decoder = Decoder(TABLE, Worker(decoder=way), money=money)
    message = encoded(properties={"revenue": 10, "currency": currency})
    batch = decoder.decode([FakeMessage(message)]).batch(1, 0, 1)
    if value is None:
        [reject] = batch.rejects
        assert reject.reason is Reason.UNKNOWN_CURRENCY
        assert json.dumps(currency).strip('"') in reject.detail
    else:
        assert batch.value.tolist() == [value]


def lines_in(*codes: Any, price: float = 10.0) -> list[dict[str, Any]]:
    return [{"price": price, "quantity": 2, "currency": code} for code in codes]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("properties", "value"),
    [
        ({"products": lines_in("USD")}, 10.0),
        ({"products": lines_in("USD", "EUR", None)}, 50.0),
        ({"products": lines_in("USD", None), "currency": "USD"}, 20.0),
        ({"products": lines_in(" eur"), "currency": "USD"}, 20.0),
        ({"products": lines_in("JPY")}, None),
        ({"products": lines_in(978)}, None),
        ({"products": lines_in("USD", " usd"), "total": 40}, 20.0),
        ({"products": lines_in("USD", ""), "total": 40}, 20.0),
        ({"products": lines_in("JPY"), "total": 40, "currency": "EUR"}, 40.0),
        ({"products": lines_in("USD", "EUR"), "total": 40}, None),
        ({"products": [{"currency": "USD"}], "price": 40}, 20.0),
    ],
)
def test_a_currency_may_stand_on_the_lines_of_an_order(
    way: Any, properties: dict[str, Any], value: float | None
) -> None:
    """An amount of the whole order without a currency is in that of its lines, if they agree."""
    decoder = Decoder(TABLE, Worker(decoder=way), money=MONEY)
    message = FakeMessage(encoded(properties=properties))
    batch = decoder.decode([message]).batch(1, 0, 1)
    if value is None:
        assert [reject.reason for reject in batch.rejects] == [Reason.UNKNOWN_CURRENCY]
    else:
        assert batch.value.tolist() == [value]
    # Where nobody has to agree on a currency, nobody looks at it.
    plain = Decoder(TABLE, Worker(decoder=way)).decode([message]).batch(1, 0, 1)
    assert plain.counts.applied == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("default", ["", "USD"])
@pytest.mark.parametrize(
    ("said", "rate"),
    [
        ({"revenue": 10, "currency": "USD"}, 0.5),
        ({"revenue": 10, "currency": " eur"}, 1.0),
        ({"revenue": 10}, None),
        ({"revenue": 10, "currency": ""}, None),
        ({"revenue": 10, "currency": None}, None),
        ({"currency": "USD"}, None),
        ({}, None),
        ({"price": 5, "quantity": 2, "currency": "USD"}, 0.5),
        ({"products": lines_in("USD")}, 0.5),
        ({"products": lines_in("USD", "EUR")}, 0.75),
        ({"products": lines_in("USD", price=0.0)}, None),
        ({"products": lines_in("USD", "usd"), "total": 40}, 0.5),
    ],
)
def test_what_names_no_currency_is_told_from_what_does(
    way: Any, default: str, said: dict[str, Any], rate: float | None
) -> None:
    """`rate` of an event; None where its amount is in the currency of its order, whichever that is."""
    money = Money(currency="EUR", rates={"USD": 0.5}, default=default)
    decoder = Decoder(TABLE, Worker(decoder=way), money=money)
    judge = Judge(DEFAULT_FEATURES, Worker(), now_ms=NOW_MS, money=money)
    expected = -worth_of_no_currency(default) if rate is None else rate
    for event in (ORDER, REFUND, "Order Updated"):
        value = encoded(event=event, properties={"order_id": "o1", **said})
        batch = decoder.decode([FakeMessage(value)], NOW_MS).batch(1, 0, 1)
        assert batch.rate.tolist() == [expected]
        meant = {0.5: "USD", 1.0: "EUR", 0.75: ""}[abs(expected)]
        assert batch.currency.tolist() == [code_of_currency(meant)]
        judged = judge.judge(Message(value, START_MS, 1)).event
        assert judged is not None
        assert (judged.rate, judged.in_own) == (abs(expected), rate is None)
        assert judged.currency == meant
        assert judged.value == batch.value[0]
    # Where there is one currency only, nobody has to tell.
    for one in (Money(), Money(currency="USD")):
        message = FakeMessage(encoded(properties={"revenue": 10}))
        alone = Decoder(TABLE, Worker(decoder=way), money=one).decode([message])
        assert alone.rate.tolist() == [1.0]
        assert alone.currency.tolist() == [0]


def worth_of_no_currency(default: str) -> float:
    """What a unit of money without a currency is worth."""
    return 0.5 if default else 1.0


class Shop:
    """What a namespace keeps: the currency that was named first."""

    def __init__(self, currency: str = "") -> None:
        self.currency = currency
        self.asked = 0

    def agree(self, currency: str) -> str:
        self.asked += 1
        self.currency = self.currency or currency
        return self.currency


def order_in(currency: Any, event: str = ORDER) -> bytes:
    return encoded(event=event, properties={"revenue": 10, "currency": currency})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("known", ["", "EUR"])
def test_where_none_is_declared_the_first_that_is_named_is_the_one(way: Any, known: str) -> None:
    shop = Shop(known)
    decoder = Decoder(TABLE, Worker(decoder=way), agree=shop.agree)
    named = [None, "", "EUR", " eur", "USD", "usd", "JPY", "EUR"]
    for _ in range(2):
        messages = [FakeMessage(order_in(one)) for one in named]
        batch = decoder.decode(messages).batch(1, 0, len(named))
        assert batch.value.tolist() == [10.0] * 5
        assert [one.reason for one in batch.rejects] == [Reason.UNKNOWN_CURRENCY] * 3
        assert "is not EUR, the first that was named here: set money.currency" in (
            batch.rejects[0].detail
        )
    assert (shop.currency, shop.asked) == ("EUR", 1)


@pytest.mark.parametrize("way", WAYS)
def test_what_names_no_currency_is_not_the_first(way: Any) -> None:
    shop = Shop()
    decoder = Decoder(TABLE, Worker(decoder=way), agree=shop.agree)
    odd = ["N/A", "€", 978, {"code": "USD"}, True, "euro"]
    values = [
        *(order_in(one) for one in odd),
        order_in("JPY", event="Page Scrolled"),
        encoded(properties={"order_id": "o1", "currency": "JPY"}),
    ]
    for _ in range(2):
        messages = [FakeMessage(one) for one in values]
        assert not decoder.decode(messages).rejects
        assert shop.currency == ""
    decoder.decode([FakeMessage(order_in("USD"))])
    assert shop.currency == "USD"
    assert not decoder.decode([FakeMessage(one) for one in values]).rejects


@pytest.mark.parametrize("way", WAYS)
def test_lines_of_an_order_agree_as_orders_do(way: Any) -> None:
    shop = Shop()
    decoder = Decoder(TABLE, Worker(decoder=way), agree=shop.agree)
    orders = [
        {"products": lines_in("EUR", None)},
        {"products": lines_in("EUR", "USD")},
        {"products": lines_in("EUR", "USD"), "total": 40},
        {"products": lines_in("USD"), "total": 40},
        {"products": lines_in("USD"), "total": 40, "currency": "EUR"},
    ]
    messages = [FakeMessage(encoded(properties=one)) for one in orders]
    batch = decoder.decode(messages).batch(1, 0, len(orders))
    assert batch.value.tolist() == [40.0, 40.0]
    assert shop.currency == "EUR"


@pytest.mark.parametrize("way", WAYS)
def test_a_store_that_does_not_answer_refuses_no_message(way: Any) -> None:
    def agree(_: str) -> str:
        raise StoreUnavailableError("gone")

    decoder = Decoder(TABLE, Worker(decoder=way), agree=agree)
    with pytest.raises(StoreUnavailableError):
        decoder.decode([FakeMessage(order_in(one)) for one in (None, "EUR")])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([None, "", "EUR", "eur ", "USD", "Usd", "€", 5, "JPY"]), min_size=1)
)
def test_the_oracle_reads_them_alike(named: list[Any]) -> None:
    shop = Shop()
    decoder = Decoder(TABLE, Worker(decoder="plain"), agree=shop.agree)
    values = [order_in(one) for one in named]
    block = decoder.decode([FakeMessage(one, timestamp_ms=START_MS) for one in values], NOW_MS)
    judge = Judge(DEFAULT_FEATURES, Worker(), now_ms=NOW_MS, agreed=shop.currency)
    for place, value in enumerate(values):
        outcome = judge.judge(Message(value, START_MS, 1))
        refused = block.rejects.get(place)
        assert outcome.reason == (None if refused is None else refused.reason)
        if outcome.event is not None:
            assert outcome.event.value == block.value[place]


ONE = json.loads(encoded())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("message", "reason", "detail"),
    [
        ({"batch": [ONE] * 3, "sentAt": "2026-11-26T09:00:00Z"}, Reason.MISSING_FIELD, "'batch' of the message holds 3: each"),
        ({"schema": {"type": "struct"}, "payload": ONE}, Reason.MISSING_FIELD, "field 'payload' does: set worker.unwrap = 'payload', or send"),
        ({"specversion": "1.0", "data": ONE}, Reason.MISSING_FIELD, "field 'data' does: set worker.unwrap = 'data', or send"),
        ({"properties": {"event": "x"}}, Reason.MISSING_FIELD, "names no event"),
        ([ONE, ONE], Reason.WRONG_TYPE, "a list of 2: each"),
        (json.dumps(ONE), Reason.WRONG_TYPE, "made JSON twice"),
        ("hello", Reason.WRONG_TYPE, "is no object"),
        (gzip.compress(encoded()), Reason.NOT_JSON, "is gzip: Kafka compresses"),
        (encoded().decode().encode("utf-16"), Reason.NOT_JSON, "is UTF-16"),
        (b"\0\0\0\0\x07\x02u1", Reason.NOT_JSON, "schema registry"),
    ],
)  # fmt: skip
def test_a_message_within_another_is_told_as_such(
    way: Any, message: Any, reason: Reason, detail: str
) -> None:
    value = message if isinstance(message, bytes) else json.dumps(message).encode()
    batch = Decoder(TABLE, Worker(decoder=way)).decode([FakeMessage(value)])
    assert batch.rejects[0].reason is reason
    assert detail in batch.rejects[0].detail


@pytest.mark.parametrize("way", WAYS)
def test_no_currency_refuses_what_has_no_amount(way: Any) -> None:
    decoder = Decoder(TABLE, Worker(decoder=way), money=MONEY)
    messages = [
        encoded(event=REFUND, properties={"order_id": "o1", "currency": "JPY"}),
        encoded(event=VIEW, properties={"price": 3, "currency": "JPY"}),
    ]
    for message in messages:
        assert decoder.decode([FakeMessage(message)]).batch(1, 0, 1).counts.applied == 1


def test_settings_of_currencies_fit_together() -> None:
    for wrong in (
        {"rates": {"USD": 1.0}},
        {"currency": "EUR", "rates": {"usd": 1.0}},
        {"currency": "EUR", "rates": {"USD": 0.0}},
        {"currency": "EUR", "rates": {"EUR": 2.0}},
        {"currency": "EUR", "default": "USD"},
        {"currency": "Euro"},
    ):
        with pytest.raises(ValueError, match=r"rate|currency|default"):
            Settings.model_validate({"money": wrong})


# -- orders ----------------------------------------------------------------------------------------

LINES_OF_AN_ORDER = [{"price": 19, "quantity": 1}, {"price": 3, "quantity": 2}]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("event", "said", "expected"),
    [
        (ORDER, {"revenue": 25, "total": 30, "products": LINES_OF_AN_ORDER}, (25.0, 3.0, False)),
        (ORDER, {"total": 30, "subtotal": 22}, (30.0, 1.0, False)),
        (ORDER, {"subtotal": 22}, (22.0, 1.0, False)),
        (ORDER, {"products": LINES_OF_AN_ORDER}, (25.0, 3.0, False)),
        (ORDER, {"price": 4, "quantity": "3"}, (12.0, 3.0, False)),
        ("Completed Order", {"orderId": "o1", "revenue": 25}, (25.0, 1.0, False)),
        (REFUND, {}, (0.0, 1.0, True)),
        (REFUND, {"total": -30}, (30.0, 0.0, False)),
        (REFUND, {"total": 0}, (0.0, 0.0, False)),
        (REFUND, {"products": LINES_OF_AN_ORDER[1:]}, (6.0, 2.0, False)),
        (REFUND, {"total": 30, "refund_amount": 5}, (5.0, 0.0, False)),
        (REFUND, {"revenue": "", "total": None}, (0.0, 1.0, True)),
    ],
)
def test_orders_are_read_as_the_specification_has_them(
    way: Any, event: str, said: dict[str, Any], expected: tuple[float, float, bool]
) -> None:
    decoder = Decoder(TABLE, Worker(decoder=way))
    message = encoded(event=event, properties={"order_id": "o1", **said})
    batch = decoder.decode([FakeMessage(message)]).batch(1, 0, 1)
    assert (batch.value[0], batch.quantity[0], batch.whole[0]) == expected
    assert (
        batch.order[0]
        == decoder.decode([FakeMessage(encoded(properties={"transaction_id": "o1"}))])
        .batch(1, 0, 1)
        .order[0]
        != 0
    )


def test_an_id_that_ends_in_nothing_is_another_id() -> None:
    decoder = Decoder(TABLE, Worker(decoder="plain"))
    ids = ["m1", "m1\0", "m1\0\0", " m1", "m1 "]
    messages = [FakeMessage(encoded(messageId=one), place=i) for i, one in enumerate(ids)]
    batch = decoder.decode(messages).batch(1, 0, len(ids))
    assert len(set(batch.id.tolist())) == len(ids)


REVIEWS: tuple[tuple[str, str, str, str], ...] = (
    ("5", "Wonderful", "I love it, and so does my cat", "r-1"),
    ("1.0", "", "Broke on the first day.\nNever again!", "r-2"),
    ("2", "Meh", "", "r-3"),
    ("", "", "Très « bon » — vraiment", "r-4"),
    ("", "不好", "包装破了", "null"),
    ("4,5", "", "", ""),
    ("", "", "", "326"),
    (" 3 ", "  so  ", ' said "so", twice ', "r-1"),
)
"""Rating, title, text and id, as they stand in a file."""


def test_reviews_of_a_table_are_those_of_messages(tmp_path: Path) -> None:
    ratings = Settings.model_validate({"reviews": {"enabled": True}})
    table = ratings.table()
    reader = Decoder(table, Worker(), ratings=ratings.reviews)
    plain, columns, lines = (
        tmp_path / name for name in ("reviews.csv", "events.csv", "messages.jsonl")
    )
    named = ["review_id", "review_body", "rating"]
    with plain.open("w", newline="") as one, columns.open("w", newline="") as other:
        rows, events = csv.writer(one), csv.writer(other)
        rows.writerow(["customer", "date", "rating", "title", "review", "review_id"])
        events.writerow(
            [
                "type",
                "event",
                "userId",
                "timestamp",
                "messageId",
                *map("properties.{}".format, named),
            ]
        )
        messages = []
        for number, (rating, title, text, review) in enumerate(REVIEWS):
            user, at = f"u{number}", f"2024-03-0{number + 1}T09:00:00.000Z"
            body = " ".join(filter(None, (title.strip(), text.strip())))
            rows.writerow([user, at, rating, title, text, review])
            events.writerow(
                ["track", "Product Reviewed", user, at, f"m{number}", review, body, rating]
            )
            said = {"review_id": review, "review_body": body, "rating": rating.replace(",", ".")}
            messages.append(
                encoded(event="Product Reviewed", userId=user, timestamp=at, messageId=f"m{number}",
                        properties=said)
            )  # fmt: skip
    lines.write_bytes(b"\n".join(messages))

    def read(file: Path, mapping: str) -> Any:
        refused: list[Refusal] = []
        with EventSorter() as sorter:
            read_sources(
                [Source(file, load_mapping(mapping))], sorter, refused.append,
                native=NativeReader(table, Worker(), Money(), ratings.reviews),
                ratings=ratings.reviews,
            )  # fmt: skip
            sent = [
                FakeMessage(encoded_message(event, iso(event.time_ms), "reviews"))
                for batch in sorter.batches()
                for event in batch
            ]
        assert (refused, sorter.notes) == ([], [])
        return reader.decode(sent, NOW_MS)

    live = reader.decode([FakeMessage(one) for one in messages], NOW_MS)
    assert live.reviews is not None
    assert len(live.reviews.rating) == len(REVIEWS)
    assert np.isfinite(live.reviews.rating).sum() == 5
    for file, mapping in ((plain, "reviews"), (columns, "segment"), (lines, "segment")):
        found = read(file, mapping)
        assert found.users == live.users
        assert found.time_ms.tolist() == live.time_ms.tolist()
        assert found.kind.tolist() == live.kind.tolist()
        assert found.reviews.rating.tobytes() == live.reviews.rating.tobytes()
        assert [one.tolist() for one in found.reviews.words] == [
            one.tolist() for one in live.reviews.words
        ]
        known = [review not in ("", "null") for *_, review in REVIEWS]
        same = known if file == plain else [True] * len(known)
        assert found.id[same].tolist() == live.id[same].tolist(), "told twice, it counts once"
