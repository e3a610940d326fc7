"""Files as vendors document them come out of the shipped mappings as what happened in the shop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from producers.files import Source, read_sources
from producers.mapped import Refusal
from producers.mapping import load_mapping
from producers.messages import encode_message, message_of
from producers.sorting import EventSorter
from stream.units import iso

SHOPIFY = """\
Name,Email,Financial Status,Paid at,Currency,Subtotal,Shipping,Taxes,Total,Created at,Lineitem quantity,Lineitem name,Lineitem price,Cancelled at,Refunded Amount,Id
#1001,ann@shop.example,paid,2024-03-01 10:22:15 -0500,EUR,49.00,4.91,0.00,53.91,2024-03-01 10:22:11 -0500,1,"Mug, blue",39.90,,0.00,501
#1001,ann@shop.example,,,,,,,,2024-03-01 10:22:11 -0500,2,Plate,4.55,,,
#1002,bob@shop.example,refunded,2024-03-02 09:00:00 -0500,EUR,30.00,0.00,0.00,30.00,2024-03-02 09:00:00 -0500,1,Mug,30.00,,30.00,502
#1002,bob@shop.example,,,,,,,,2024-03-02 09:00:00 -0500,2,Sticker,0.00,,,
#1003,cat@shop.example,partially_refunded,2024-03-03 09:00:00 -0500,EUR,80.00,0.00,0.00,80.00,2024-03-03 09:00:00 -0500,4,Mug,20.00,,20.00,503
#1004,dan@shop.example,voided,,EUR,10.00,0.00,0.00,10.00,2024-03-04 09:00:00 -0500,1,Mug,10.00,,0.00,504
#1004,dan@shop.example,,,,,,,,2024-03-04 09:00:00 -0500,1,Mug,10.00,,,
#1005,eve@shop.example,refunded,2024-03-05 09:00:00 -0500,EUR,12.00,0.00,0.00,12.00,2024-03-05 09:00:00 -0500,1,Mug,12.00,2024-03-08 12:00:00 -0500,12.00,505
#1006,,pending,,EUR,7.00,0.00,0.00,7.00,2024-03-06 09:00:00 -0500,1,Mug,7.00,,0.00,506
"""

WOOCOMMERCE = """\
order_id,order_number,date,status,order_total,refunded_total,order_currency,customer_id,billing_email,item_name,item_quantity,item_total
71,1071,2024-03-01 10:22:11,completed,53.91,0.00,EUR,4,ann@shop.example,Mug,1,39.90
71,1071,2024-03-01 10:22:11,completed,53.91,0.00,EUR,4,ann@shop.example,Plate,2,9.10
72,1072,2024-03-02 10:22:11,refunded,30.00,30.00,EUR,0,bob@shop.example,Mug,1,30.00
73,1073,2024-03-03 10:22:11,processing,80.00,20.00,EUR,0,cat@shop.example,Mug,4,80.00
74,1074,2024-03-04 10:22:11,wc-cancelled,10.00,0.00,EUR,0,dan@shop.example,Mug,1,10.00
75,1075,2024-03-05 10:22:11,failed,10.00,0.00,EUR,0,dan@shop.example,Mug,1,10.00
76,1076,2024-03-05 11:22:11,on-hold,12.00,0.00,EUR,0,eve@shop.example,Mug,1,12.00
"""

STRIPE = """\
id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Status,Customer ID,Customer Email
ch_1,2024-03-01 10:22:11,53.91,0.00,eur,true,Paid,cus_a,ann@shop.example
ch_2,2024-03-02 10:22:11,30.00,30.00,eur,true,Refunded,,bob@shop.example
ch_3,2024-03-03 10:22:11,"1,080.00",20.00,usd,true,Paid,cus_c,cat@shop.example
ch_4,2024-03-04 10:22:11,10.00,0.00,eur,false,Failed,cus_d,dan@shop.example
ch_5,2024-03-05 10:22:11,10.00,0.00,eur,false,Requires capture,cus_d,dan@shop.example
ch_1,2024-03-01 10:22:11,53.91,0.00,eur,true,Paid,cus_a,ann@shop.example
"""

MATOMO = [
    {
        "idVisit": 17, "visitorId": "9f3a", "userId": None, "siteCurrency": "EUR",
        "actionDetails": [
            {"type": "action", "url": "https://shop.example/", "timestamp": 1709288531},
            {"type": "action", "timestamp": 1709288540, "productViewSku": "m1",
             "productViewName": "Mug", "productViewPrice": 39.9,
             "productViewCategories": ["kitchen"]},
            {"type": "search", "timestamp": 1709288541, "siteSearchKeyword": "mug"},
            {"type": "ecommerceAbandonedCart", "timestamp": 1709288550, "revenue": 39.9, "items": 1},
            {"type": "ecommerceOrder", "timestamp": 1709288560, "orderId": "o-1", "revenue": 53.91,
             "items": 3, "itemDetails": [{"itemSKU": "m1", "price": 39.9, "quantity": 1}]},
        ],
    },
    {
        "idVisit": 18, "visitorId": "77aa", "userId": "ann", "siteCurrency": "EUR",
        "actionDetails": [
            {"type": "ecommerceOrder", "timestamp": 1709388560, "orderId": "o-2", "revenue": 9,
             "items": 1},
        ],
    },
]  # fmt: skip

RUDDERSTACK = """\
id,anonymous_id,user_id,event,event_text,original_timestamp,sent_at,context_session_id,order_id,revenue,total,currency,category,price,quantity
m-1,a1,ann,product_viewed,Product Viewed,2024-03-01 10:22:11.123 UTC,2024-03-01 10:22:12 UTC,1709288531000,,,,EUR,kitchen,39.9,
m-2,a1,ann,order_completed,Order Completed,2024-03-01 10:23:11 UTC,2024-03-01 10:23:12 UTC,1709288531000,o-1,49.00,53.91,EUR,,,3
m-3,a1,ann,order_completed,Order Completed,2024-03-01 10:23:11 UTC,2024-03-01 10:23:12 UTC,1709288531000,o-1,49.00,53.91,EUR,,,3
m-4,b2,,order_refunded,Order Refunded,2024-03-02 10:23:11 UTC,2024-03-02 10:23:12 UTC,,o-9,,5.00,EUR,,,
"""

GA4 = [
    {"event_name": "view_item", "event_timestamp": 1709288531000000, "user_pseudo_id": "p.1",
     "user_id": None, "items": [{"item_category": "kitchen"}]},
    {"event_name": "purchase", "event_timestamp": 1709288560000000, "user_pseudo_id": "p.1",
     "user_id": None, "ecommerce": {"transaction_id": "T1", "purchase_revenue": 53.91,
                                    "total_item_quantity": 3}},
    {"event_name": "purchase", "event_timestamp": 1709288570000000, "user_pseudo_id": "p.1",
     "user_id": None, "ecommerce": {"transaction_id": "T1", "purchase_revenue": 53.91,
                                    "total_item_quantity": 3}},
    {"event_name": "purchase", "event_timestamp": 1709288580000000, "user_pseudo_id": "p.2",
     "user_id": None, "ecommerce": {"transaction_id": "(not set)", "purchase_revenue": 5.0,
                                    "total_item_quantity": 1}},
    {"event_name": "purchase", "event_timestamp": 1709288590000000, "user_pseudo_id": "p.2",
     "user_id": None, "ecommerce": {"transaction_id": "(not set)", "purchase_revenue": 5.0,
                                    "total_item_quantity": 1}},
    {"event_name": "refund", "event_timestamp": 1709388560000000, "user_pseudo_id": "p.1",
     "user_id": None, "ecommerce": {"transaction_id": "T1", "refund_value": 20.0,
                                    "total_item_quantity": 1}},
]  # fmt: skip


def told(file: Path, mapping: str) -> tuple[list[dict[str, Any]], list[Refusal], list[str]]:
    """Messages in order, refusals and notes."""
    refused: list[Refusal] = []
    with EventSorter() as sorter:
        read_sources([Source(file, load_mapping(mapping))], sorter, refused.append)
        messages = [
            json.loads(encode_message(message_of(event, iso(event.time_ms), "file")))
            for batch in sorter.batches()
            for event in batch
        ]
    return messages, refused, sorter.notes


def brief(messages: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Event, user, order, money and pieces of each."""
    return [
        (
            one["event"].removeprefix("Order "), one["userId"],
            *(one["properties"].get(name) for name in ("order_id", "revenue", "quantity")),
        )
        for one in messages
    ]  # fmt: skip


def test_shopify_orders(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(SHOPIFY)
    messages, refused, _ = told(file, "shopify")
    assert brief(messages) == [
        ("Completed", "ann@shop.example", "#1001", 53.91, 3.0),
        ("Completed", "bob@shop.example", "#1002", 30.0, 3.0),
        ("Refunded", "bob@shop.example", "#1002", 30.0, 3.0),
        ("Completed", "cat@shop.example", "#1003", 80.0, 4.0),
        ("Refunded", "cat@shop.example", "#1003", 20.0, None),
        ("Completed", "eve@shop.example", "#1005", 12.0, 1.0),
        ("Refunded", "eve@shop.example", "#1005", 12.0, 1.0),
    ]
    assert {one["properties"]["currency"] for one in messages} == {"EUR"}
    assert messages[0]["timestamp"] == "2024-03-01T15:22:11.000Z"
    assert messages[-1]["timestamp"] == "2024-03-08T17:00:00.000Z", "when it was cancelled"
    assert len({one["messageId"] for one in messages}) == len(messages)
    assert [(one.row, one.reason) for one in refused] == [
        (6, "not_paid"), (7, "not_paid"), (9, "no_user")
    ]  # fmt: skip


def test_woocommerce_orders(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(WOOCOMMERCE)
    messages, refused, _ = told(file, "woocommerce")
    assert brief(messages) == [
        ("Completed", "ann@shop.example", "1071", 53.91, 3.0),
        ("Completed", "bob@shop.example", "1072", 30.0, 1.0),
        ("Refunded", "bob@shop.example", "1072", 30.0, 1.0),
        ("Completed", "cat@shop.example", "1073", 80.0, 4.0),
        ("Refunded", "cat@shop.example", "1073", 20.0, None),
        ("Completed", "eve@shop.example", "1076", 12.0, 1.0),
    ]
    assert [(one.row, one.reason) for one in refused] == [(5, "not_paid"), (6, "not_paid")]


def test_woocommerce_orders_with_the_labels_of_a_plugin(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(
        "Order Number,Order Status,Order Date,Email (Billing),Order Total Amount,Order Refund Amount,"
        "Item Name,Quantity,Item Cost\n"
        "71,Completed,2024-03-01 10:22,ann@shop.example,53.91,10,Mug,1,39.90\n"
        "71,Completed,2024-03-01 10:22,ann@shop.example,53.91,10,Plate,2,4.55\n"
        "72,Pending payment,2024-03-01 10:23,ann@shop.example,5,0,Mug,1,5\n"
    )
    messages, refused, _ = told(file, "woocommerce")
    assert brief(messages) == [
        ("Completed", "ann@shop.example", "71", 53.91, 3.0),
        ("Refunded", "ann@shop.example", "71", 10.0, None),
    ]
    assert [one.reason for one in refused] == ["not_paid"]


def test_stripe_payments(tmp_path: Path) -> None:
    file = tmp_path / "payments.csv"
    file.write_text(STRIPE)
    messages, refused, _ = told(file, "stripe")
    assert brief(messages) == [
        ("Completed", "cus_a", "ch_1", 53.91, 1.0),
        ("Completed", "bob@shop.example", "ch_2", 30.0, 1.0),
        ("Refunded", "bob@shop.example", "ch_2", 30.0, None),
        ("Completed", "cus_c", "ch_3", 1080.0, 1.0),
        ("Refunded", "cus_c", "ch_3", 20.0, None),
    ]
    assert [one["properties"]["currency"] for one in messages] == ["EUR"] * 3 + ["USD"] * 2
    assert [one["messageId"] for one in messages[:3]] == ["ch_1", "ch_2", "ch_2-refund"]
    assert [one.reason for one in refused] == ["not_paid", "not_paid"]


def test_stripe_tells_when_a_charge_was_refunded(tmp_path: Path) -> None:
    file = tmp_path / "payments.csv"
    header, *rows = STRIPE.splitlines()
    file.write_text(
        f"{header},Refunded date (UTC)\n{rows[0]},\n{rows[1]},2024-03-20 10:00:00\n{rows[2]},\n"
    )
    messages, _, notes = told(file, "stripe")
    assert [(one["event"], one["timestamp"][:10]) for one in messages] == [
        ("Order Completed", "2024-03-01"), ("Order Completed", "2024-03-02"),
        ("Order Completed", "2024-03-03"), ("Order Refunded", "2024-03-03"),
        ("Order Refunded", "2024-03-20"),
    ]  # fmt: skip
    assert not notes


@pytest.mark.parametrize("form", ["array", "lines"])
def test_matomo_visits(tmp_path: Path, form: str) -> None:
    file = tmp_path / "visits.json"
    file.write_text(
        json.dumps(MATOMO, indent=2) if form == "array" else "\n".join(map(json.dumps, MATOMO))
    )
    messages, refused, _ = told(file, "matomo")
    assert [(one["event"], one["userId"]) for one in messages] == [
        ("Product Viewed", "9f3a"), ("Products Searched", "9f3a"), ("Order Completed", "9f3a"),
        ("Order Completed", "ann"),
    ]  # fmt: skip
    assert messages[0]["properties"] == {"currency": "EUR", "category": "kitchen", "price": 39.9}
    assert messages[2]["properties"] == {
        "order_id": "o-1", "currency": "EUR", "quantity": 3.0, "revenue": 53.91,
    }  # fmt: skip
    assert messages[2]["context"] == {"sessionId": "17"}
    assert [one.reason for one in refused] == ["ignored_event", "ignored_event"]
    assert len({one["messageId"] for one in messages}) == len(messages)


def test_rudderstack_tables(tmp_path: Path) -> None:
    file = tmp_path / "tracks.csv"
    file.write_text(RUDDERSTACK)
    messages, refused, _ = told(file, "rudderstack")
    assert not refused
    assert [one["event"] for one in messages] == [
        "Product Viewed", "Order Completed", "Order Refunded",
    ]  # fmt: skip
    assert [one["messageId"] for one in messages] == ["m-1", "m-2", "m-4"]
    assert brief(messages[1:]) == [
        ("Completed", "ann", "o-1", 49.0, 3.0),
        ("Refunded", "b2", "o-9", 5.0, None),
    ]


def test_rudderstack_reviews(tmp_path: Path) -> None:
    file = tmp_path / "product_reviewed.csv"
    file.write_text(
        "id,anonymous_id,user_id,event_text,original_timestamp,review_id,review_body,rating\n"
        'm-1,a1,ann,Product Reviewed,2024-03-01 10:22:11 UTC,r-1,"Good, and\nwarm",5\n'
    )
    (found,), refused, _ = told(file, "rudderstack")
    assert not refused
    assert found["properties"] == {
        "review_id": "r-1",
        "review_body": "Good, and\nwarm",
        "rating": 5.0,
    }


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_ga4_counts_a_transaction_once(tmp_path: Path, kind: str) -> None:
    lines = tmp_path / "events.jsonl"
    lines.write_text("\n".join(map(json.dumps, GA4)))
    file = tmp_path / f"ga.{kind}"
    if kind == "parquet":
        duckdb.sql(f"COPY (FROM read_json('{lines}')) TO '{file}'")
    else:
        lines.rename(file)
    messages, refused, _ = told(file, "ga4")
    assert not refused
    assert brief(messages)[1:] == [
        ("Completed", "p.1", "T1", 53.91, 3.0),
        ("Completed", "p.2", None, 5.0, 1.0),
        ("Completed", "p.2", None, 5.0, 1.0),
        ("Refunded", "p.1", "T1", 20.0, 1.0),
    ]


def test_a_refund_under_its_own_number_names_no_order(tmp_path: Path) -> None:
    file = tmp_path / "retail.csv"
    file.write_text(
        "InvoiceNo,Quantity,InvoiceDate,UnitPrice,CustomerID\n"
        "536365,6,2011-01-01 10:00:00,2.55,17850.0\n536365,2,2011-01-01 10:00:00,3.39,17850\n"
        "C536379,-6,2011-01-02 10:00:00,2.55,17850\nC536379,-1,2011-01-02 10:00:00,3.39,17850\n"
    )
    messages, refused, _ = told(file, "online_retail")
    assert not refused
    assert brief(messages) == [
        ("Completed", "17850", "536365", 22.08, 8.0),
        ("Refunded", "17850", None, 18.69, 7.0),
    ]
