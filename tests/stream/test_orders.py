"""A refund takes back what is left of its order; what the shop does is no sign of life."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from stream.acting import Acting, act_together
from stream.config import Publish
from stream.events import Counts
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.hashing import hash_text
from stream.oracle import Event
from stream.partition import Partition
from stream.store.state import Position
from stream.sweeps import SampleRequest
from stream.units import DAY_MS
from tests.strategies import (
    CANCEL,
    CART,
    ORDER,
    REFUND,
    SHIP,
    START_MS,
    UPDATE,
    VIEW,
    columns,
    feature,
)

FEATURES = (
    feature("seen", "last", absent=-1.0),
    feature("bought", "last", on=(ORDER,), absent=-1.0),
    feature("sent_back", "last", on=(REFUND,), absent=-1.0),
    feature("tenure", "first", absent=-1.0),
    feature("sessions", "count", of="sessions", half_life="36500d"),
    feature("gross", "sum", on=(ORDER,), of="value", half_life="36500d"),
    feature("net", "sum", on=(ORDER,), minus=(REFUND,), of="value", half_life="36500d"),
    feature("net_30d", "sum", on=(ORDER,), minus=(REFUND,), of="value", half_life="30d"),
    feature("net_week", "sum", on=(ORDER,), minus=(REFUND,), of="value", window="7d", tiles=7),
    feature("pieces", "sum", on=(ORDER,), minus=(REFUND,), of="quantity", half_life="36500d"),
    feature("orders", "count", on=(ORDER,), half_life="36500d"),
    feature("kept", "count", on=(ORDER,), minus=(REFUND,), half_life="36500d"),
    feature("basket", "mean", on=(ORDER,), minus=(REFUND,), of="value", half_life="36500d"),
    feature("refunds", "count", on=(REFUND,), half_life="36500d"),
    feature("cart", "sum", on=(CART,), minus=("Product Removed",), of="value", half_life="36500d"),
    feature("views", "count", on=(VIEW,), half_life="36500d"),
    feature("shipped", "count", on=(SHIP,), half_life="36500d"),
)
TABLE = FeatureTable(FEATURES)
_numbers = iter(range(1, 1_000_000))


def said(name: str, day: float = 0.0, order: str = "", **rest: Any) -> Event:
    """An event of one user; of a refund without a value, all that is left is meant."""
    at_ms = START_MS + round(day * DAY_MS)
    return Event(
        user=rest.get("user", "u"),
        topic=rest.get("topic", int(name not in (VIEW, CART, "Product Removed"))),
        name=name,
        time_ms=at_ms,
        id=rest.get("id", hash_text(b"message %d" % next(_numbers))),
        value=rest.get("value", 0.0),
        quantity=float(rest.get("quantity", 1)),
        category=0,
        order=hash_text(order.encode()) if order else 0,
        whole="value" not in rest and name in (REFUND, CANCEL, UPDATE),
        rate=rest.get("rate", 1.0),
        in_own=rest.get("in_own", False),
        currency=rest.get("currency", ""),
        recorded_ms=START_MS + round(rest.get("recorded", day) * DAY_MS),
    )


class Shop:
    """A partition without a store."""

    def __init__(self, table: FeatureTable = TABLE) -> None:
        position = Position([0, 0], table.schema)
        self.table, self.duplicates = table, 0
        self.partition = Partition(0, table, Publish().rule(), position, 0)

    def fold(self, *events: Event) -> Shop:
        slots = {event.user: int(self.partition.slots([event.user])[0]) for event in events}
        self.duplicates += self.partition.fold(columns(self.table, slots, events))[1]
        return self

    def at(self, day: float, user: str = "u") -> dict[str, float]:
        slot = self.partition.names.index(user.encode())
        rows = self.partition.rows[slot : slot + 1]
        vector = self.table.vectors(rows, START_MS + round(day * DAY_MS))[0]
        # Half-lives of a century are for ever, but for the fifth digit.
        return dict(zip(self.table.names, [round(v, 3) + 0.0 for v in vector], strict=True))


def both_ways(*events: Event, day: float = 60.0) -> dict[str, float]:
    """Features after events, folded one by one and all at once: both say the same."""
    one, all_at_once = Shop(), Shop()
    for event in events:
        one.fold(event)
    all_at_once.fold(*events)
    assert one.at(day) == pytest.approx(all_at_once.at(day), abs=2e-3)
    assert one.duplicates == all_at_once.duplicates
    return one.at(day)


def close(found: float, expected: float) -> bool:
    return found == pytest.approx(expected, rel=3e-3, abs=1e-3)


# -- what is taken back --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [REFUND, CANCEL])
@pytest.mark.parametrize("value", [{}, {"value": 100.0}, {"value": 140.0}])
@pytest.mark.parametrize("day", [0.1, 30.0, 90.0])
def test_an_order_taken_back_leaves_nothing(name: str, value: dict[str, float], day: float) -> None:
    bought, back = said(ORDER, 0, "o", value=100.0, recorded=0), said(name, day, "o", **value)
    back = back._replace(recorded_ms=START_MS + DAY_MS)
    found = both_ways(bought, back, day=day)
    for nothing in ("net", "net_30d", "net_week", "pieces", "kept", "basket"):
        assert found[nothing] == 0.0, nothing
    assert close(found["gross"], 100.0)
    assert close(found["orders"], 1.0)
    assert close(found["refunds"], 1.0)


def test_a_part_taken_back_leaves_the_rest_at_the_time_of_the_order() -> None:
    found = both_ways(
        said(ORDER, 0, "o", value=100.0, quantity=4), said(REFUND, 30, "o", value=25.0), day=30
    )
    assert close(found["net_30d"], 75.0 / 2)
    assert close(found["net"], 75.0)
    assert close(found["pieces"], 3.0)
    assert close(found["kept"], 1.0)
    assert close(found["basket"], 75.0)


def test_parts_add_up_to_the_whole_and_no_further() -> None:
    parts = [said(REFUND, 1 + n, "o", value=100.0 / 3) for n in range(4)]
    found = both_ways(said(ORDER, 0, "o", value=100.0), said(ORDER, 0, "p", value=7.0), *parts)
    assert close(found["net"], 7.0)
    assert close(found["kept"], 1.0)


def test_a_refund_may_come_before_its_order() -> None:
    events = [
        said(ORDER, 0, "o", value=100.0),
        said(REFUND, 2, "o", value=30.0),
        said(UPDATE, 1, "o", value=90.0),
        said(REFUND, 3, "o", value=10.0),
    ]
    expected = both_ways(*events)
    assert close(expected["net"], 50.0)
    for order in permutations(events):
        if order.index(events[0]) < order.index(events[2]):
            found = both_ways(*order)
            assert {k: found[k] for k in ("net", "net_30d", "pieces", "kept")} == pytest.approx(
                {k: expected[k] for k in ("net", "net_30d", "pieces", "kept")}, abs=2e-3
            )


def test_a_refund_of_pieces_alone_may_come_before_its_order() -> None:
    bought = said(ORDER, 0, "o", value=100.0, quantity=4)
    back = said(REFUND, 1, "o", value=0.0, quantity=3)
    for events in ((bought, back), (back, bought)):
        found = both_ways(*events)
        assert close(found["pieces"], 1.0)
        assert close(found["net"], 100.0)


def test_a_refund_of_an_order_from_before_the_log_takes_nothing() -> None:
    found = both_ways(said(ORDER, 0, "o", value=100.0), said(REFUND, 1, "older", value=30.0))
    assert close(found["net"], 100.0)
    assert close(found["refunds"], 1.0)


def test_a_refund_that_names_no_order_takes_from_the_newest() -> None:
    bought = [said(ORDER, day, f"o{day}", value=50.0) for day in (0, 1, 2)]
    assert close(both_ways(*bought, said(REFUND, 3, value=60.0))["net"], 90.0)
    assert close(both_ways(*bought, said(REFUND, 3, value=60.0))["kept"], 2.0)
    assert close(both_ways(*bought, said(REFUND, 3))["net"], 100.0)
    assert both_ways(*bought, said(REFUND, 3, value=999.0))["net"] == 0.0
    assert both_ways(said(REFUND, 3, value=5.0))["net"] == 0.0


def test_orders_without_an_id_are_taken_back_by_refunds_that_name_one() -> None:
    bought = [said(ORDER, 0, value=50.0), said(ORDER, 1, value=20.0)]
    assert close(both_ways(*bought, said(REFUND, 2, "o", value=30.0))["net"], 40.0)
    assert close(both_ways(*bought, said(CANCEL, 2, "o"))["net"], 50.0)
    late = said(ORDER, 3, "o", value=100.0)
    rest = both_ways(*bought, said(REFUND, 2, "o", value=80.0), late)
    assert close(rest["net"], 90.0), "only the rest is held for the order itself"


def test_an_order_without_any_id_is_an_order() -> None:
    found = both_ways(*[said(ORDER, n, value=10.0, id=0) for n in range(5)], said(REFUND, 9))
    assert close(found["gross"], 50.0)
    assert close(found["net"], 40.0)


def test_other_users_and_the_other_topic_have_orders_of_their_own() -> None:
    shop = Shop().fold(
        said(ORDER, 0, "o", value=100.0),
        said(ORDER, 0, "o", value=100.0, user="v"),
        said(REFUND, 1, "o", user="v"),
        said(REFUND, 1, "o", topic=0),
    )
    assert close(shop.at(2)["net"], 100.0)
    assert shop.at(2, "v")["net"] == 0.0


def test_what_is_no_order_is_taken_away_as_it_is_said() -> None:
    found = both_ways(said(CART, 0, value=30.0), said("Product Removed", 1, value=10.0))
    assert close(found["cart"], 20.0)


# -- currencies: an order of 1000 in one worth 0.09, where 1 is usual --------------------------


FOREIGN: dict[str, Any] = {"value": 90.0, "rate": 0.09}


def without_currency(name: str, day: float, order: str, face: float) -> Event:
    """A message whose amount names no currency, so that the usual one was taken for its."""
    return said(name, day, order, value=face, in_own=True)


def test_what_names_no_currency_is_in_that_of_its_order() -> None:
    bought = said(ORDER, 0, "o", **FOREIGN)
    for face, left in ((100.0, 81.0), (999.0, 0.09), (1_000.0, 0.0), (2_000.0, 0.0)):
        refund = without_currency(REFUND, 1, "o", face)
        for events in ((bought, refund), (refund, bought)):
            found = both_ways(*events)
            assert close(found["net"], left), (face, events[0].name)
            assert close(found["gross"], 90.0)
            assert close(found["kept"], float(left > 0.0))


def test_parts_in_any_currency_and_order_come_to_what_is_left() -> None:
    events = [
        said(ORDER, 0, "o", **FOREIGN),
        without_currency(REFUND, 1, "o", 200.0),
        said(REFUND, 2, "o", value=9.0, rate=0.09),
        said(REFUND, 3, "o", value=10.0),
        without_currency(REFUND, 4, "o", 300.0),
    ]
    for order in permutations(events):
        assert close(both_ways(*order)["net"], 90.0 - 18.0 - 9.0 - 10.0 - 27.0)


def test_an_order_corrected_without_a_currency_stays_in_its_own() -> None:
    placed = said(ORDER, 0, "o", **FOREIGN)
    updated = without_currency(UPDATE, 1, "o", 500.0)
    refund = without_currency(REFUND, 2, "o", 100.0)
    for events in permutations((placed, updated, refund)):
        assert close(both_ways(*events)["net"], 36.0)
    named = said(UPDATE, 3, "o", value=60.0, rate=0.5)
    assert close(both_ways(placed, refund, named)["net"], 10.0), "the last that is named counts"
    again = said(ORDER, 0, "o", value=1_000.0, in_own=True)
    assert Shop().fold(placed, again).duplicates == 1, "it says nothing new"


def dollars(name: str, day: float, order: str, face: float, rate: float, **rest: Any) -> Event:
    """An event of an amount in dollars, of which one is worth this much on that day."""
    said_by = {"in_own": rest.pop("in_own", False), **rest}
    return said(name, day, order, value=face * rate, rate=rate, currency="USD", **said_by)


@pytest.mark.parametrize("later", [0.5, 0.9, 1.0, 1.1, 2.0])
@pytest.mark.parametrize("in_own", [False, True])
def test_a_refund_takes_back_what_its_order_brought_whatever_the_rate_is_by_then(
    later: float, in_own: bool
) -> None:
    bought = dollars(ORDER, 0, "o", 100.0, 0.9, in_own=in_own)
    for face, left in ((50.0, 45.0), (99.0, 0.9), (100.0, 0.0), (130.0, 0.0)):
        found = both_ways(bought, dollars(REFUND, 30, "o", face, later))
        assert close(found["gross"], 90.0)
        assert close(found["net"], left), face
        assert close(found["kept"], float(left > 0.0))
        # It names no order: it takes from the newest.
        assert close(both_ways(bought, dollars(REFUND, 30, "", face, later))["net"], left), face
    parts = [
        dollars(REFUND, 1 + n, "o", 25.0, rate) for n, rate in enumerate((0.9, later, 2.0, 1.0))
    ]
    assert close(both_ways(bought, *parts[:3])["net"], 22.5)
    assert close(both_ways(bought, *parts)["net"], 0.0)


@pytest.mark.parametrize("later", [0.5, 1.1])
def test_an_order_is_worth_what_it_was_when_it_was_first_said(later: float) -> None:
    bought = dollars(ORDER, 0, "o", 100.0, 0.9)
    again = dollars(ORDER, 0, "o", 100.0, later)
    assert Shop().fold(bought, again).duplicates == 1, "the rate alone is nothing new"
    updated = dollars(UPDATE, 1, "o", 120.0, later)
    assert close(both_ways(bought, updated)["net"], 108.0)
    assert close(both_ways(bought, updated, dollars(REFUND, 2, "o", 60.0, 2.0))["net"], 54.0)
    # In another currency it is another amount.
    in_euros = said(UPDATE, 1, "o", value=80.0, currency="EUR")
    assert close(both_ways(bought, in_euros)["net"], 80.0)
    assert close(both_ways(bought, said(REFUND, 1, "o", value=40.0, currency="EUR"))["net"], 50.0)
    # What a refund has said before its order is of the same rate, too.
    refund = dollars(REFUND, 1, "o", 100.0, later)
    assert close(both_ways(refund, bought)["net"], 0.0)
    assert close(both_ways(refund, bought)["gross"], 100.0 * later)


def test_a_refund_is_worth_what_it_takes_back() -> None:
    table = FeatureTable(
        [*FEATURES, feature("given", "sum", on=(REFUND,), of="value", half_life="36500d")]
    )
    for order in ("o", ""):
        shop = Shop(table)
        shop.fold(dollars(ORDER, 0, "o", 100.0, 0.9), dollars(REFUND, 3, order, 50.0, 2.0))
        assert close(shop.at(5)["given"], 45.0)


def test_a_refund_without_order_and_currency_is_in_that_of_the_orders_it_takes() -> None:
    bought = [said(ORDER, 0, "o", value=50.0), said(ORDER, 1, "p", **FOREIGN)]
    assert close(both_ways(*bought, without_currency(REFUND, 2, "", 500.0))["net"], 95.0)
    assert close(both_ways(*bought, without_currency(REFUND, 2, "", 1_020.0))["net"], 30.0)
    held = without_currency(REFUND, 2, "q", 1_000.0)
    unnamed = said(ORDER, 1, value=50.0)
    late = said(ORDER, 3, "q", value=180.0, rate=0.09)
    assert close(both_ways(unnamed, held, late)["net"], 180.0 - 950.0 * 0.09)


# -- the same order ------------------------------------------------------------------------------


def test_an_order_that_is_said_again_counts_once() -> None:
    again = [said(ORDER, n, "o", value=100.0) for n in range(3)]
    assert close(both_ways(*again)["gross"], 100.0)
    assert Shop().fold(*again).duplicates == 2
    assert both_ways(*again, day=5)["bought"] == 5.0, "a repeat is no new order"


@pytest.mark.parametrize("name", [ORDER, UPDATE])
def test_a_corrected_order_replaces(name: str) -> None:
    first = said(ORDER, 0, "o", value=100.0, quantity=2)
    corrected = said(name, 5, "o", value=80.0, quantity=1)
    found = both_ways(first, corrected, day=30)
    assert close(found["gross"], 80.0)
    assert close(found["net_30d"], 40.0), "at the time of the order"
    assert close(found["orders"], 1.0)
    assert close(found["pieces"], 1.0)
    assert found["seen"] == found["bought"] == 30.0
    assert close(both_ways(first, said(REFUND, 1, "o", value=90.0), corrected)["net"], 0.0)


def test_an_update_without_amounts_changes_none() -> None:
    found = both_ways(said(ORDER, 0, "o", value=100.0, quantity=2), said(UPDATE, 5, "o"))
    assert close(found["gross"], 100.0)
    assert close(found["pieces"], 2.0)


def test_an_update_of_an_order_that_nobody_told_of_is_that_order() -> None:
    updated, placed = said(UPDATE, 2, "o", value=80.0), said(ORDER, 1, "o", value=80.0)
    found = both_ways(updated, day=10)
    assert close(found["gross"], 80.0)
    assert (found["bought"], found["seen"]) == (8.0, -1.0)
    found = both_ways(updated, placed, day=10)
    assert close(found["orders"], 1.0)
    assert (found["bought"], found["seen"], found["tenure"]) == (8.0, 9.0, 9.0)


def test_an_update_that_has_overtaken_its_order_stays() -> None:
    """Two systems tell of an order: what happened later counts, whichever message comes first."""
    placed = said(ORDER, 0, "o", value=100.0, quantity=2)
    updated = [said(UPDATE, day, "o", value=80.0 + day, quantity=1) for day in (5, 6)]
    for events in ([placed, *updated], [*updated, placed]):
        found = both_ways(*events, day=30)
        assert close(found["gross"], 86.0)
        assert close(found["net_30d"], 43.0), "at the time of the order"
        assert close(found["pieces"], 1.0)
        assert found["seen"] == 30.0
    # An update that said no value has nothing that could stay, and one from before is older.
    assert close(both_ways(said(UPDATE, 5, "o"), placed)["gross"], 100.0)
    early = said(UPDATE, 0, "o", value=80.0)
    assert close(both_ways(early, said(ORDER, 1, "o", value=100.0))["gross"], 100.0)
    # Only the first message that places it is on the way late; a second one corrects.
    assert close(both_ways(placed, *updated, said(ORDER, -1, "o", value=70.0))["gross"], 70.0)


def test_an_order_is_forgotten_by_the_clock_of_its_topic() -> None:
    first = said(ORDER, 0, "o", value=100.0)
    for recorded, left in ((180.0, 0.0), (180.0 * 9 / 8, 100.0)):
        back = said(REFUND, 3, "o", recorded=recorded)
        assert close(both_ways(first, back)["net"], left)
        again = said(ORDER, 3, "o", value=100.0, recorded=recorded)
        assert close(both_ways(first, again)["orders"], 2.0 if left else 1.0)


# -- no sign of life -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [REFUND, CANCEL, UPDATE, SHIP])
@pytest.mark.parametrize("topic", [0, 1])
def test_what_the_shop_does_is_no_sign_of_life(name: str, topic: int) -> None:
    acts = [said(VIEW, 0), said(ORDER, 1, "o", value=10.0, topic=topic)]
    found = both_ways(*acts, said(name, 70, "o", value=10.0, topic=topic), day=71)
    before = both_ways(*acts, day=71)
    for same in ("seen", "bought", "tenure", "sessions"):
        assert found[same] == before[same], same
    if name == REFUND:
        assert found["sent_back"] == 1.0, "a feature that names it, sees it"


def test_a_refund_long_after_the_last_act_does_not_overflow() -> None:
    found = both_ways(said(ORDER, 0, "o", value=10.0), said(CART, 0, value=3.0), day=1)
    shop = Shop(FeatureTable([feature("x", "count", on=(REFUND,), half_life="1h"), *FEATURES]))
    shop.fold(said(ORDER, 0, "o", value=10.0)).fold(said(REFUND, 30_000, "o", recorded=1))
    later = shop.at(30_000)
    assert later["x"] == 1.0
    assert all(np.isfinite(list(later.values())))
    assert close(found["net"], 10.0)


def test_the_shop_alone_makes_nobody_counted() -> None:
    table = FeatureTable(DEFAULT_FEATURES)
    partition = Partition(0, table, Publish().rule(), Position([0, 0], table.schema), 0)
    slots = {"u": int(partition.slots(["u"])[0]), "v": int(partition.slots(["v"])[0])}
    back, seen = said(REFUND, 0, "o"), said(VIEW, 0, user="v")
    events = columns(table, slots, [back, seen])
    act_together([Acting(partition, events, START_MS)], START_MS)
    everyone = SampleRequest(100)
    told = partition.sweep(START_MS, START_MS, sample=everyone)
    assert told.users == 1
    assert len(told.sample_hashes or b"") == 8
    assert len(partition.commit([1, 1], Counts(), START_MS).users) == 2
