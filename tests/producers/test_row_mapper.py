"""Each row becomes the event that a mapping says, or is refused with where to look."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.mapped import Event, NoText, Refusal
from producers.mapping import Mapping, MappingError, load_mapping, parse_mapping
from producers.messages import encode_message, message_of, topic_of
from producers.row_mapper import RowMapper
from stream.events import Track
from stream.times import EARLIEST_MS
from stream.units import iso

if TYPE_CHECKING:
    from collections.abc import Callable


def mapping(text: str) -> Mapping:
    return parse_mapping(text, "test", "test.toml")


def one(declared: Mapping, **row: str | None) -> Event | Refusal:
    return RowMapper(declared, tuple(row)).map(1, tuple(row.values()))


def event(declared: Mapping, **row: str | None) -> Event:
    found = one(declared, **row)
    assert isinstance(found, Event), found
    return found


def refusal(declared: Mapping, **row: str | None) -> Refusal:
    found = one(declared, **row)
    assert isinstance(found, Refusal), found
    return found


def message(found: Event) -> Any:
    return json.loads(encode_message(message_of(found, iso(found.time_ms), "file")))


def refusal_reason(user: str) -> str | None:
    found = one(load_mapping("simple"), customer=user, date="2026-01-01", amount="1")
    return found.reason if isinstance(found, Refusal) else None


times = st.datetimes(datetime(1995, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - bounds have no zone


users = st.text(min_size=1, max_size=60).filter(
    lambda text: text == text.strip() != "" and refusal_reason(text) is None
)


FORMATS: dict[str, Callable[[datetime], str]] = {
    "auto": lambda t: t.isoformat(),
    "iso": lambda t: t.isoformat(" ").replace("+00:00", " UTC"),
    "seconds": lambda t: f"{t.timestamp():.3f}",
    "milliseconds": lambda t: str(int(t.timestamp()) * 1_000 + t.microsecond // 1_000),
    "microseconds": lambda t: str(int(t.timestamp()) * 1_000_000 + t.microsecond),
    "%d/%m/%Y %H.%M.%S,%f": lambda t: t.strftime("%d/%m/%Y %H.%M.%S,%f"),
}


@given(
    users,
    times.map(lambda t: t.replace(microsecond=t.microsecond // 1_000 * 1_000)),
    st.integers(0, 10**11).map(lambda cents: cents / 100),
    st.sampled_from(sorted(FORMATS)),
)
def test_a_written_row_is_read_back(user: str, moment: datetime, amount: float, form: str) -> None:
    declared = mapping(
        f'user = "u"\namount = "a"\nevent = "Order Completed"\n'
        f'time = {{ column = "t", format = "{form}" }}'
    )
    found = event(declared, u=user, t=FORMATS[form](moment), a=repr(amount))
    track = msgspec.json.decode(
        encode_message(message_of(found, iso(found.time_ms), "file")), type=Track
    )
    assert track.userId == user
    assert datetime.fromisoformat(track.timestamp) == moment
    assert len(track.timestamp) == 24
    assert track.properties is not None
    assert track.properties.revenue == amount


@given(
    times,
    st.sampled_from(["Europe/London", "Asia/Shanghai", "America/New_York"]),
)
def test_times_without_a_zone_are_of_the_declared_one(moment: datetime, zone: str) -> None:
    local = moment.replace(microsecond=0).astimezone(ZoneInfo(zone)).replace(fold=0)
    declared = mapping(
        f'user = "u"\nevent = "Product Viewed"\ntime = {{ column = "t", zone = "{zone}" }}'
    )
    found = event(declared, u="x", t=local.replace(tzinfo=None).isoformat())
    assert found.time_ms == int(local.timestamp()) * 1_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2010-12-01", "2010-12-01T00:00:00.000Z"),
        ("20101201", "2010-12-01T00:00:00.000Z"),
        ("2010-12", "2010-12-01T00:00:00.000Z"),
        ("2010-12-01 08:26", "2010-12-01T08:26:00.000Z"),
        ("2010-12-01T08:26:00+01:00", "2010-12-01T07:26:00.000Z"),
        ("2019-10-01 00:00:07 UTC", "2019-10-01T00:00:07.000Z"),
        ("1505117799", "2017-09-11T08:16:39.000Z"),
        ("1505117799.25", "2017-09-11T08:16:39.250Z"),
        ("1505117799123", "2017-09-11T08:16:39.123Z"),
        ("1505117799123456", "2017-09-11T08:16:39.123Z"),
        (" 2010-12-01 ", "2010-12-01T00:00:00.000Z"),
    ],
)
def test_auto_takes_any_granularity(text: str, expected: str) -> None:
    found = event(load_mapping("simple"), customer="a", date=text, amount="1")
    assert iso(found.time_ms) == expected


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "01/12/2010", "2010", "12", "2010-13-01", "9999999999999999999", "1969-01-01",
     "2101-01-01", "nan"],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    found = refusal(load_mapping("simple"), customer="a", date=text, amount="1")
    assert found.reason == "bad_time"
    assert "date" in found.why
    assert found.columns == {"customer": "a", "date": text, "amount": "1"}


@pytest.mark.parametrize("column", ["customer", "date"])
def test_half_a_character_is_refused(column: str) -> None:
    row = {"customer": "a", "date": "2026-03-01", "amount": "1"}
    for half in ("\ud800", "x" * 300 + "\udcff"):
        found = refusal(load_mapping("simple"), **row | {column: half})
        assert found.reason in {"unreadable", "bad_user", "bad_time"}


def test_a_time_before_all_web_shops_is_refused_as_a_worker_would() -> None:
    declared = load_mapping("simple")
    row = {"customer": "a", "amount": "1"}
    assert refusal(declared, **row, date="1994-12-31T23:59:59.999Z").reason == "bad_time"
    assert event(declared, **row, date="1995-01-01T00:00:00Z").time_ms == EARLIEST_MS


def test_an_order_beyond_any_shop_is_refused() -> None:
    declared = mapping(
        'user = "u"\ntime = "t"\nprice = "p"\nquantity = "q"\nevent = "Order Completed"'
    )
    row = {"u": "a", "t": "2026-03-01", "p": "1e12"}
    assert message(event(declared, **row, q="1"))["properties"]["revenue"] == 1e12
    with pytest.raises(ValueError, match="beyond any shop"):
        message(event(declared, **row, q="1e12"))


def test_decimal_comma() -> None:
    text = 'user = "u"\ntime = "t"\nevent = "Order Completed"\namount = "a"\n'
    found = refusal(mapping(text + 'decimal = "."'), u="x", t="2020-01-01", a="1.234,50")
    assert found.reason == "bad_number"
    assert "decimal" in found.why
    for declared in ("", 'decimal = ","'):
        comma = mapping(text + declared)
        assert event(comma, u="x", t="2020-01-01", a="1.234,50").amount == 1234.5


@pytest.mark.parametrize(
    ("currency", "cell", "amount"),
    [("JPY", "1,200", 1200.0), ("jpy", "1.200", 1200.0), ("JPY", "-1,200", -1200.0),
     ("EUR", "1,200", None), ("", "1,200", None)],
)  # fmt: skip
def test_a_currency_without_parts_tells_what_a_number_means(
    currency: str, cell: str, amount: float | None
) -> None:
    declared = mapping(
        'user = "u"\ntime = "t"\nevent = "Order Refunded"\namount = "a"\ncurrency = "c"\n'
        'quantity = "q"\n'
    )
    row: dict[str, str | None] = {"u": "x", "t": "2020-01-01", "a": cell, "c": currency}
    found = one(declared, **row)
    assert (found.amount if isinstance(found, Event) else None) == amount
    # What a column is declared to be, it is; and pieces are no money.
    comma = declared.model_copy(update={"decimal": ","})
    assert event(comma, **row | {"a": "1,200"}).amount == 1.2
    assert refusal(declared, **row | {"a": "5", "q": "1,200"}).reason == "bad_number"


@pytest.mark.parametrize(
    ("said", "code"),
    [("eur", "EUR"), ("€", "EUR"), ("Euro", "EUR"), ("US$", "USD"), ("$", "USD"), ("zł", "PLN"),
     ("XXX", "XXX"), ("points", "POINTS"), ("null", None), ("", None)],
)  # fmt: skip
def test_a_column_may_say_the_currency_by_its_sign(said: str, code: str | None) -> None:
    declared = mapping(
        'user = "u"\ntime = "t"\nevent = "Order Completed"\namount = "a"\ncurrency = "c"'
    )
    assert event(declared, u="x", t="2020-01-01", a="5", c=said).currency == code


def test_day_clock_and_zone_may_stand_in_columns_of_their_own() -> None:
    """As PayPal and tills write them; a day alone is its beginning."""
    declared = mapping(
        'user = "u"\nevent = "Product Viewed"\n'
        'time = { column = "day", clock = ["at", "zone"], format = "%m/%d/%Y %H:%M:%S %Z" }'
    )
    row: dict[str, str | None] = {"u": "x", "day": "03/14/2024", "at": "10:22:11", "zone": "PST"}
    assert iso(event(declared, **row).time_ms) == "2024-03-14T18:22:11.000Z"
    found = refusal(declared, **row | {"zone": ""})
    assert (found.reason, "'03/14/2024 10:22:11'" in found.why) == ("bad_time", True)
    assert refusal(declared, **row | {"day": ""}).why == "day is empty"
    with pytest.raises(MappingError, match=r"time.clock: the file has no column 'zone'"):
        declared.check({"u", "day", "at"})
    auto = mapping('user = "u"\nevent = "Product Viewed"\ntime = { column = "day", clock = "at" }')
    for at, expected in (("10:22", "10:22:00"), ("10:22:11", "10:22:11"), ("", "00:00:00")):
        found_at = event(auto, u="x", day="2024-03-14", at=at).time_ms
        assert iso(found_at) == f"2024-03-14T{expected}.000Z"


def test_reasons_and_where_to_look() -> None:
    taobao = load_mapping("taobao")
    row: dict[str, str | None] = {
        "user_id": "7", "category_id": "5", "behavior": "pv", "timestamp": "1511544070",
    }  # fmt: skip
    assert event(taobao, **row).event == "Product Viewed"
    assert refusal(taobao, **row | {"user_id": None}).reason == "no_user"
    assert refusal(taobao, **row | {"user_id": "  "}).reason == "no_user"
    assert refusal(taobao, **row | {"user_id": "é" * 129}).reason == "bad_user"
    assert refusal(taobao, **row | {"timestamp": "2017-11-25"}).reason == "bad_time"
    assert refusal(taobao, **row | {"behavior": None}).reason == "no_event"
    ignored = refusal(taobao, **row | {"behavior": "share"})
    assert ignored.reason == "ignored_event"
    assert "'share'" in ignored.why


def test_negative_money_is_a_refund_only_if_a_rule_says_so() -> None:
    refund = event(load_mapping("simple"), customer="a", date="2020-01-01", amount="-5")
    assert refund.event == "Order Refunded"
    assert message(refund)["properties"] == {"revenue": 5.0}, "an amount alone takes back no piece"
    plain = mapping('user = "u"\ntime = "t"\nevent = "Order Completed"\namount = "a"')
    with pytest.raises(ValueError, match="add a rule"):
        message_of(event(plain, u="x", t="2020-01-01", a="-5"), "", "")
    views = mapping('user = "u"\ntime = "t"\nevent = "Product Viewed"\nprice = "p"')
    assert refusal(views, u="x", t="2020-01-01", p="-5").reason == "bad_number"


RULE = 'user = "u"\ntime = "t"\nevent = "Product Viewed"\n[[rules]]\ncolumn = "c"\n'


@pytest.mark.parametrize(
    ("test", "holds", "fails"),
    [
        ("equals = 'a'", ["a", " a "], ["b", "", None]),
        ("equals = 1", ["1"], ["1.0", "2"]),
        ("not_equals = 'a'", ["b", "", None], ["a"]),
        ("one_of = ['a', 2]", ["a", "2"], ["b", None]),
        ("starts_with = 'C'", ["C1"], ["1C", None]),
        ("ends_with = 'C'", ["1C"], ["C1", None]),
        ("matches = '[A-Z ]+'", ["BANK CHARGES"], ["85123A", "", None]),
        ("less_than = 0", ["-0.5"], ["0", "x", None]),
        ("more_than = 0\nless_than = 10", ["5"], ["0", "10", None]),
        ("empty = true", ["", None, "  "], ["a"]),
        ("empty = false", ["a"], ["", None]),
    ],
)
def test_rules(test: str, holds: list[str | None], fails: list[str | None]) -> None:
    declared = mapping(f'{RULE}{test}\nreject = "not_goods"')
    for value in holds:
        assert refusal(declared, u="x", t="2020-01-01", c=value).reason == "not_goods"
    for value in fails:
        assert event(declared, u="x", t="2020-01-01", c=value).event == "Product Viewed"


def test_the_first_rule_that_holds_decides() -> None:
    declared = mapping(
        f'{RULE}starts_with = "C"\nevent = "Order Refunded"\n'
        '[[rules]]\ncolumn = "c"\nempty = false\nreject = "other"'
    )
    assert event(declared, u="x", t="2020-01-01", c="C9").event == "Order Refunded"
    assert refusal(declared, u="x", t="2020-01-01", c="D9").reason == "other"
    assert event(declared, u="x", t="2020-01-01", c="").event == "Product Viewed"


def test_price_times_quantity_is_the_worth_of_an_order() -> None:
    declared = load_mapping("online_retail")
    row = {
        "CustomerID": "17850", "InvoiceDate": "2011-07-01 08:26:00", "InvoiceNo": "C536365",
        "UnitPrice": "2.55", "Quantity": "-6",
    }  # fmt: skip
    refund = event(declared, **row)
    assert refund.event == "Order Refunded"
    assert refund.order == "C536365"
    found = message(refund)
    assert found["properties"]["revenue"] == pytest.approx(15.3)
    assert found["properties"]["quantity"] == 6
    assert found["timestamp"] == "2011-07-01T07:26:00.000Z"  # British summer time
    assert found["type"] == "track"
    assert refusal(declared, **row | {"InvoiceNo": "A5", "CustomerID": ""}).reason == "book_keeping"


def test_orders_without_numbers_are_one_piece_of_unknown_worth() -> None:
    found = event(
        load_mapping("taobao"), user_id="7", category_id="5", behavior="buy", timestamp="1511544070"
    )
    assert message(found)["properties"] == {"category": "5", "quantity": 1.0}


def test_views_keep_their_price_and_session() -> None:
    found = event(
        load_mapping("rees46"), event_time="2019-10-01 00:00:00 UTC", event_type="view",
        category_id="21", category_code=None, price="35.79", user_id="5", user_session="s",
    )  # fmt: skip
    assert message(found)["properties"] == {"category": "21", "price": 35.79}
    assert message(found)["context"] == {"sessionId": "s"}
    assert found.order is None


def test_ids_are_the_tables_own_or_stable() -> None:
    declared = mapping('user = "u"\ntime = "t"\nevent = "Product Viewed"\nmessage_id = "m"')
    given_id = event(declared, u="x", t="2020-01-01", m="id-1")
    assert message(given_id)["messageId"] == "id-1"
    made = event(declared, u="x", t="2020-01-01", m=None)
    assert message(made)["messageId"] == "file-1-1577836800000"


def test_segment_messages_pass() -> None:
    declared = load_mapping("segment")
    row = {
        "type": "track", "event": "Order Completed", "userId": "u", "messageId": "m",
        "timestamp": "2026-11-21T09:00:00.000Z", "properties.revenue": None,
        "properties.total": "12.5", "properties.quantity": "2",
    }  # fmt: skip
    assert message(event(declared, **row)) == {
        "type": "track", "event": "Order Completed", "userId": "u", "messageId": "m",
        "timestamp": "2026-11-21T09:00:00.000Z", "properties": {"quantity": 2.0, "revenue": 12.5},
    }  # fmt: skip
    assert refusal(declared, **row | {"type": "page"}).reason == "not_track"


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        (
            "ga4",
            {"user_id": "", "user_pseudo_id": "p", "event_timestamp": "1763715600000000",
             "event_name": "purchase", "transaction_id": "t-1", "purchase_revenue": "12.5"},
            {"order_id": "t-1", "quantity": 1.0, "revenue": 12.5},
        ),
        (
            "retailrocket",
            {"timestamp": "1763715600000", "visitorid": "p", "event": "transaction",
             "itemid": "9", "transactionid": "4"},
            {"order_id": "4", "quantity": 1.0},
        ),
    ],
)  # fmt: skip
def test_orders_of_other_shops(name: str, row: dict[str, str], expected: dict[str, Any]) -> None:
    found = message(event(load_mapping(name), **row))
    assert (found["event"], found["userId"]) == ("Order Completed", "p")
    assert found["timestamp"] == "2025-11-21T09:00:00.000Z"
    assert found["properties"] == expected


def test_reviews() -> None:
    declared = load_mapping("reviews")
    row = {
        "customer": "ann",
        "date": "2026-11-21",
        "stars": "4",
        "title": " Good ",
        "review": "Fits.",
    }
    found = message(event(declared, **row))
    assert (found["event"], found["userId"]) == ("Product Reviewed", "ann")
    assert found["properties"] == {"review_body": "Good Fits.", "rating": 4.0}
    named = message(event(declared, **row | {"rating": "1", "review_id": "r-1"}))
    assert named["properties"] == {"review_id": "r-1", "review_body": "Good Fits.", "rating": 1.0}
    silent = message(event(declared, customer="ann", date="2026-11-21", rating="n/a", review=" "))
    assert silent["properties"] == {}
    listed = event(declared, **row | {"title": NoText('["a"]'), "review": "b"})
    assert listed.review == "b", "as live, what is no text says nothing"


def test_reviews_that_cannot_be_read() -> None:
    declared = load_mapping("reviews")
    row = {"customer": "ann", "date": "2026-11-21", "rating": "5", "review": "secret"}
    many = refusal(declared, **row | {"rating": "lovely"})
    assert (many.reason, many.why.split(" = ")[0]) == ("bad_number", "rating or stars")
    half = refusal(declared, **row | {"review": "secret \udce4"})
    assert (half.reason, half.why) == ("unreadable", "half a character in the review")


def test_topics() -> None:
    assert [topic_of(name) for name in ("Product Viewed", "Order Completed", "Order Refunded")] == [
        0, 1, 1,
    ]  # fmt: skip
