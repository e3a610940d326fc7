"""Answers of vendors' APIs come out of the shipped mappings as what happened in the shop."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from consumers.native import NativeReader
from producers.files import Source, read_sources
from producers.mapped import Refusal
from producers.mapping import load_mapping
from producers.sorting import EventSorter
from stream.config import Money, Worker
from stream.events import Reason
from stream.features import DEFAULT_FEATURES, FeatureTable
from tests.producers.test_shipped import brief, told

if TYPE_CHECKING:
    from pathlib import Path

AT = 1_709_288_531
"""2024-03-01 10:22:11 UTC."""


def charge(number: int, amount: int, **rest: Any) -> dict[str, Any]:
    """A charge as Stripe's API gives it."""
    return {
        "id": f"ch_{number}", "object": "charge", "amount": amount, "amount_captured": amount,
        "amount_refunded": 0, "billing_details": {"email": None}, "captured": True,
        "created": AT + number, "currency": "usd", "customer": f"cus_{number}", "paid": True,
        "refunded": False, "status": "succeeded", **rest,
    }  # fmt: skip


CHARGES = [
    charge(1, 5391),
    charge(2, 3000, amount_refunded=3000, refunded=True, currency="eur"),
    charge(3, 8000, amount_refunded=2000, refunds={"data": [{"created": AT + 90}]}),
    charge(4, 1200, currency="jpy"),
    charge(5, 1250, currency="kwd", amount_refunded=250),
    charge(6, 9900, currency="isk"),
    charge(7, 100, status="failed", paid=False),
    charge(8, 100, captured=False),
    charge(9, 700, customer=None, billing_details={"email": "ann@shop.example"}),
    charge(10, 700, customer={"id": "cus_10", "object": "customer"}),
    charge(11, 700, customer=None),
]


@pytest.mark.parametrize("form", ["lines", "answer", "answers", "array"])
def test_stripe_charges(tmp_path: Path, form: str) -> None:
    file = tmp_path / "charges.json"
    answer = {"object": "list", "has_more": False, "url": "/v1/charges"}
    file.write_text(
        {
            "lines": "\n".join(map(json.dumps, CHARGES)),
            "answer": json.dumps(answer | {"data": CHARGES}, indent=2),
            "answers": "\n".join(
                json.dumps(answer | {"data": part}) for part in (CHARGES[:4], CHARGES[4:])
            ),
            "array": json.dumps(CHARGES),
        }[form]
    )
    messages, refused, _ = told(file, "stripe")
    assert brief(messages) == [
        ("Completed", "cus_1", "ch_1", 53.91, 1.0),
        ("Completed", "cus_2", "ch_2", 30.0, 1.0),
        ("Refunded", "cus_2", "ch_2", 30.0, 1.0),
        ("Completed", "cus_3", "ch_3", 80.0, 1.0),
        ("Completed", "cus_4", "ch_4", 1200.0, 1.0),
        ("Completed", "cus_5", "ch_5", 1.25, 1.0),
        ("Refunded", "cus_5", "ch_5", 0.25, None),
        ("Completed", "cus_6", "ch_6", 99.0, 1.0),
        ("Completed", "ann@shop.example", "ch_9", 7.0, 1.0),
        ("Completed", "cus_10", "ch_10", 7.0, 1.0),
        ("Refunded", "cus_3", "ch_3", 20.0, None),
    ]
    assert [one["properties"]["currency"] for one in messages[:4]] == ["USD", "EUR", "EUR", "USD"]
    assert [(one.row, one.reason) for one in refused] == [
        (7, "not_paid"), (8, "not_paid"), (11, "no_user"),
    ]  # fmt: skip


def shopify(number: int, total: str, **rest: Any) -> dict[str, Any]:
    """An order as Shopify's REST API gives it."""
    return {
        "id": 450_789_469 + number, "name": f"#{number}", "email": f"u{number}@shop.example",
        "created_at": f"2024-03-0{number}T10:22:11-05:00", "cancelled_at": None,
        "currency": "EUR", "financial_status": "paid", "total_price": total, "test": False,
        "customer": {"id": 207_119_551, "email": f"u{number}@shop.example"},
        "line_items": [{"id": 1, "quantity": 2, "price": "1.00"}, {"id": 2, "quantity": 1}],
        "refunds": [], **rest,
    }  # fmt: skip


def gave_back(*amounts: str) -> dict[str, Any]:
    return {
        "id": 509_562_969, "created_at": "2024-03-20T10:00:00-05:00", "refund_line_items": [],
        "transactions": [{"amount": amount, "kind": "refund"} for amount in amounts],
    }  # fmt: skip


@pytest.mark.parametrize("form", ["lines", "answer"])
def test_shopify_orders_and_their_refunds(tmp_path: Path, form: str) -> None:
    orders = [
        shopify(1, "53.91"),
        shopify(2, "30.00", financial_status="refunded", refunds=[gave_back("30.00")]),
        shopify(3, "80.00", financial_status="partially_refunded",
                refunds=[gave_back("5.00", "10.00"), gave_back("5.00")]),
        shopify(4, "10.00", financial_status="voided"),
        shopify(5, "12.00", cancelled_at="2024-03-08T12:00:00-05:00"),
        shopify(6, "7.00", financial_status="pending", email="", contact_email=None),
        shopify(7, "7.00", test=True),
    ]  # fmt: skip
    file = tmp_path / "orders.json"
    file.write_text(
        json.dumps({"orders": orders}, indent=2)
        if form == "answer"
        else "\n".join(map(json.dumps, orders))
    )
    messages, refused, _ = told(file, "shopify")
    assert brief(messages) == [
        ("Completed", "u1@shop.example", "#1", 53.91, 3.0),
        ("Completed", "u2@shop.example", "#2", 30.0, 3.0),
        ("Completed", "u3@shop.example", "#3", 80.0, 3.0),
        ("Completed", "u5@shop.example", "#5", 12.0, 3.0),
        ("Completed", "u6@shop.example", "#6", 7.0, 3.0),
        ("Refunded", "u5@shop.example", "#5", 12.0, 3.0),
        ("Refunded", "u2@shop.example", "#2", 30.0, 3.0),
        ("Refunded", "u3@shop.example", "#3", 20.0, None),
    ]
    assert messages[-1]["timestamp"] == "2024-03-20T15:00:00.000Z"
    assert [one.reason for one in refused] == ["not_paid", "test_order"]


def test_shopify_bulk_exports(tmp_path: Path) -> None:
    lines = [
        {
            "id": "gid://shopify/Order/1", "name": "#1", "email": "ann@shop.example",
            "createdAt": "2024-03-01T10:22:11Z", "displayFinancialStatus": "PARTIALLY_REFUNDED",
            "totalPriceSet": {"shopMoney": {"amount": "53.91", "currencyCode": "EUR"}},
            "totalRefundedSet": {"shopMoney": {"amount": "3.91", "currencyCode": "EUR"}},
        },
        {"id": "gid://shopify/LineItem/2", "quantity": 3, "__parentId": "gid://shopify/Order/1"},
    ]  # fmt: skip
    file = tmp_path / "bulk.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    messages, refused, _ = told(file, "shopify")
    assert brief(messages) == [
        ("Completed", "ann@shop.example", "#1", 53.91, 1.0),
        ("Refunded", "ann@shop.example", "#1", 3.91, None),
    ]
    assert messages[0]["properties"]["currency"] == "EUR"
    assert [one.reason for one in refused] == ["line_of_an_order"]


def woocommerce(number: int, status: str, total: str, **rest: Any) -> dict[str, Any]:
    """An order as WooCommerce's REST API gives it."""
    return {
        "id": 700 + number, "number": str(700 + number), "status": status, "currency": "EUR",
        "date_created": f"2024-03-0{number}T05:22:11", "customer_id": 0,
        "date_created_gmt": f"2024-03-0{number}T10:22:11", "total": total,
        "billing": {"email": f"u{number}@shop.example"},
        "line_items": [{"id": 1, "quantity": 2, "total": "1.00"}], "refunds": [], **rest,
    }  # fmt: skip


def test_woocommerce_orders_and_their_refunds(tmp_path: Path) -> None:
    orders = [
        woocommerce(1, "completed", "53.91"),
        woocommerce(2, "refunded", "30.00", refunds=[{"id": 1, "total": "-30.00"}]),
        woocommerce(3, "completed", "80.00", refunds=[{"total": "-5.00"}, {"total": "-15.00"}]),
        woocommerce(4, "cancelled", "10.00"),
        woocommerce(5, "processing", "12.00", billing={"email": ""}, customer_id=7),
        woocommerce(6, "processing", "12.00", billing={"email": ""}),
        woocommerce(7, "completed", "1.250", currency="KWD"),
    ]
    file = tmp_path / "orders.json"
    file.write_text(json.dumps(orders))
    messages, refused, _ = told(file, "woocommerce")
    assert brief(messages) == [
        ("Completed", "u1@shop.example", "701", 53.91, 2.0),
        ("Completed", "u2@shop.example", "702", 30.0, 2.0),
        ("Refunded", "u2@shop.example", "702", 30.0, 2.0),
        ("Completed", "u3@shop.example", "703", 80.0, 2.0),
        ("Refunded", "u3@shop.example", "703", 20.0, None),
        ("Completed", "7", "705", 12.0, 2.0),
        ("Completed", "u7@shop.example", "707", 1.25, 2.0),
    ]
    assert messages[0]["timestamp"] == "2024-03-01T10:22:11.000Z"
    assert [one.reason for one in refused] == ["not_paid", "placeholder_user"]


def parameter(key: str, **value: Any) -> dict[str, Any]:
    fields = ("string_value", "int_value", "float_value", "double_value")
    return {"key": key, "value": dict.fromkeys(fields) | value}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_ga4_tells_the_currency_by_a_parameter(tmp_path: Path, kind: str) -> None:
    rows = [
        {
            "event_name": "purchase", "event_timestamp": str(AT * 1_000_000), "user_pseudo_id": "p",
            "ecommerce": {"transaction_id": "T1", "purchase_revenue": 53.91},
            "event_params": [
                parameter("value", double_value=53.91),
                parameter("currency", string_value="CHF"),
                parameter("ga_session_id", int_value=17),
            ],
        },
        {
            "event_name": "view_item", "event_timestamp": str(AT * 1_000_000 + 1),
            "user_pseudo_id": "p", "ecommerce": {"transaction_id": None, "purchase_revenue": None},
            "event_params": [parameter("value", double_value=1.125)],
        },
    ]  # fmt: skip
    lines = tmp_path / "events.jsonl"
    lines.write_text("\n".join(map(json.dumps, rows)))
    file = tmp_path / f"ga.{kind}"
    if kind == "parquet":
        duckdb.sql(f"COPY (FROM read_json('{lines}')) TO '{file}'")
    else:
        lines.rename(file)
    (order, view), refused, _ = told(file, "ga4")
    assert not refused
    assert order["properties"] == {
        "order_id": "T1", "currency": "CHF", "quantity": 1.0, "revenue": 53.91,
    }  # fmt: skip
    assert order["context"] == {"sessionId": "17"}
    assert view["properties"] == {"value": 1.125}


def test_rudderstack_messages_are_read_as_the_worker_reads_them(tmp_path: Path) -> None:
    said = {
        "type": "track", "event": "Order Completed", "userId": "", "anonymousId": "a1",
        "messageId": "m1", "originalTimestamp": "2024-03-01T10:22:11.000Z", "channel": "web",
        "properties": {"order_id": "o1", "total": 50},
    }  # fmt: skip
    file = tmp_path / "messages.jsonl"
    file.write_text(json.dumps(said) + '\n{"type": "track", "event": "Order Completed"}\n')
    refused: list[Refusal] = []
    native = NativeReader(FeatureTable(DEFAULT_FEATURES), Worker(), Money())
    with EventSorter() as sorter:
        source = Source(file, load_mapping("rudderstack"))
        read_sources([source], sorter, refused.append, native=native)
        (event,) = next(sorter.batches())
    assert (event.user, event.raw) == ("a1", json.dumps(said))
    assert [one.reason for one in refused] == [Reason.NO_USER]


SNOWPLOW = "com_snowplowanalytics_snowplow_ecommerce"


def snowplow(action: str, number: int, **contexts: Any) -> dict[str, Any]:
    """An event as Snowplow's Analytics SDKs make it of an enriched one."""
    return {
        "app_id": "shop", "event": "unstruct", "event_name": "snowplow_ecommerce_action",
        "event_id": f"e{number}", "user_id": None, "domain_userid": "d1", "domain_sessionid": "s1",
        "collector_tstamp": f"2024-03-0{number}T10:22:12.000Z",
        "derived_tstamp": f"2024-03-0{number}T10:22:11.000Z",
        f"unstruct_event_{SNOWPLOW}_snowplow_ecommerce_action_1": {"type": action},
        **{f"contexts_{SNOWPLOW}_{name}_1": [said] for name, said in contexts.items()},
    }  # fmt: skip


def test_snowplow_ecommerce_actions(tmp_path: Path) -> None:
    mug = {"id": "m1", "category": "kitchen", "price": 39.9, "currency": "EUR"}
    order = {"transaction_id": "T1", "revenue": 53.91, "currency": "EUR", "total_quantity": 3}
    back = {"transaction_id": "T1", "refund_amount": 3.91, "currency": "EUR"}
    events = [
        snowplow("product_view", 1, product=mug),
        snowplow("transaction", 2, transaction=order, product=mug),
        snowplow("transaction", 3, transaction=order, product=mug),
        snowplow("refund", 4, refund=back),
        snowplow("promo_view", 5),
        {"event": "page_view", "event_name": "page_view", "domain_userid": "d1"},
    ]
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join(map(json.dumps, events)))
    messages, refused, _ = told(file, "snowplow")
    assert messages[0]["properties"] == {"category": "kitchen", "price": 39.9, "currency": "EUR"}
    assert messages[0]["context"] == {"sessionId": "s1"}
    assert brief(messages[1:]) == [
        ("Completed", "d1", "T1", 53.91, 3.0),
        ("Refunded", "d1", "T1", 3.91, None),
    ]
    assert [one["messageId"] for one in messages] == ["e1", "e2", "e4"]
    assert [one.reason for one in refused] == ["ignored_event", "ignored_event"]


def test_snowplow_enriched_events(tmp_path: Path) -> None:
    """Tabs between, no names above, and JSON with quotes in cells."""
    header = load_mapping("snowplow").header
    lines = []
    for event, more in (
        ("page_view", {"contexts": '{"data":[{"title":"12" plate"}]}'}),
        ("transaction", {"tr_orderid": "T1", "tr_total": "53.91", "tr_currency": "EUR"}),
        ("transaction_item", {"ti_orderid": "T1", "ti_price": "39.9", "ti_quantity": "1"}),
    ):
        said = {
            "event": event, "event_name": event, "event_id": f"id-{event}", "domain_userid": "d1",
            "collector_tstamp": "2024-03-01 10:22:12.000", "derived_tstamp": "2024-03-01 10:22:11.5",
        } | more  # fmt: skip
        lines.append("\t".join(said.get(name, "") for name in header))
    file = tmp_path / "enriched.tsv"
    file.write_text("\n".join(lines) + "\n")
    messages, refused, _ = told(file, "snowplow")
    assert brief(messages) == [("Completed", "d1", "T1", 53.91, 1.0)]
    assert messages[0]["timestamp"] == "2024-03-01T10:22:11.500Z"
    assert messages[0]["properties"]["currency"] == "EUR"
    assert [one.reason for one in refused] == ["ignored_event", "ignored_event"]
