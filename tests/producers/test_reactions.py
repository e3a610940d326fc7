"""Shoppers react with the declared chance, the same trigger in the same way, and the truth is known."""

from __future__ import annotations

import json
from typing import Any

from producers.reactions import DELAY_DAYS, Reactions, Truth
from stream.units import DAY_MS, iso

START_MS = 1_756_684_800_000
WITHIN = {"coupon": 7 * DAY_MS, "postcard": 7 * DAY_MS}


def trigger(number: int, campaign: str = "coupon", user: str = "") -> dict[str, Any]:
    return {
        "id": f"{campaign}-{number}",
        "campaign": campaign,
        "arm": "sent",
        "user": user or f"u{number}",
        "at": iso(START_MS),
    }


def reacted(*triggers: dict[str, Any], chance: float = 0.25) -> tuple[Reactions, list[Any]]:
    """Triggers heard twice, and all orders that they bring."""
    heard = [[*triggers], [*triggers]]
    reactions = Reactions({"coupon": chance}, lambda: heard.pop() if heard else [])
    orders = [
        order
        for hour in range(round(DELAY_DAYS * 24) + 2)
        for order in reactions.due(START_MS + hour * 3_600_000)
    ]
    return reactions, orders


def test_the_declared_share_orders_once_more() -> None:
    _, orders = reacted(*map(trigger, range(2_000)))
    assert 430 < len(orders) < 570
    assert len({order.key for order in orders}) == len(orders)
    assert reacted(*map(trigger, range(2_000)))[1] == orders
    first = json.loads(orders[0].value)
    assert first["event"] == "Order Completed"
    assert first["userId"].encode() == orders[0].key
    assert first["timestamp"] == iso(orders[0].time_ms)
    times = [order.time_ms for order in orders]
    assert times == sorted(times)
    assert times[-1] - times[0] > DAY_MS


def test_nobody_reacts_to_what_has_no_effect() -> None:
    reactions, orders = reacted(*(trigger(n, "postcard") for n in range(500)))
    assert orders == []
    truth = reactions.truth(WITHIN, START_MS + 8 * DAY_MS)
    assert truth == {("postcard", "sent"): Truth(500, 0.0)}


def test_the_truth_is_what_would_not_have_happened_anyway() -> None:
    reactions, orders = reacted(*map(trigger, range(4)), chance=1.0)
    assert len(orders) == 4
    # Before the window and behind it is not within it.
    reactions.ordered("u0", START_MS + DAY_MS)
    reactions.ordered("u1", START_MS - 1)
    reactions.ordered("u2", START_MS + 7 * DAY_MS)
    assert reactions.truth(WITHIN, START_MS + 7 * DAY_MS) == {("coupon", "sent"): Truth(4, 0.75)}
    assert reactions.truth(WITHIN, START_MS + 7 * DAY_MS - 1) == {}
