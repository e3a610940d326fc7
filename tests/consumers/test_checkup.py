"""The doctor sees users who lie elsewhere, and topics, group and store that do not belong together."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import pytest

from consumers import checkup
from consumers.findings import Finding
from consumers.group_namespace import client_id
from stream.config import Money, Settings
from stream.errors import BrokerUnavailableError, TopicMissingError
from stream.hashing import partition_of
from stream.store.memory import MemoryStore
from stream.store.state import Position, StoreRefusedError
from tests.fakes import FakeMessage, mark_value
from tests.strategies import START_MS, encoded

SETTINGS = Settings.model_validate({"topics": {"partitions": 4}})
USERS = [f"u{i}" for i in range(60)]


def records(place: Any, *more: FakeMessage) -> list[FakeMessage]:
    return [
        FakeMessage(encoded(userId=user), None, START_MS, "clickstream", place(user.encode()), at)
        for at, user in enumerate(USERS)
    ] + list(more)


def placement(found: list[FakeMessage], policy: str = "refuse") -> Finding:
    worker = SETTINGS.worker.model_copy(update={"misplaced": policy})
    return checkup.placement(SETTINGS.model_copy(update={"worker": worker}), "it", found)


def test_users_in_their_partitions_are_well() -> None:
    odd = [FakeMessage(mark_value(START_MS)), FakeMessage(b"hello"), FakeMessage(None)]
    found = placement(records(lambda key: partition_of(key, 4), *odd))
    assert found.ok
    assert "newest 60 events" in found.finding
    assert placement([]).ok


@pytest.mark.parametrize(("policy", "said"), [("refuse", "refused"), ("accept", "live twice")])
def test_librdkafkas_own_partitioner_is_known(policy: str, said: str) -> None:
    found = placement(records(lambda key: crc32(key) % 4), policy)
    assert not found.ok
    assert "crc32" in found.finding
    assert said in found.finding
    assert "partitioner=murmur2_random" in found.remedy
    assert "segstream rekey" in found.remedy


def test_any_other_placement_is_only_wrong() -> None:
    found = placement(records(lambda key: (partition_of(key, 4) + 1) % 4))
    assert not found.ok
    assert "60 of the newest 60" in found.finding
    assert "crc32" not in found.finding


def orders(*said: dict[str, Any] | None) -> list[FakeMessage]:
    return [FakeMessage(encoded(properties=one)) for one in said]


@pytest.mark.parametrize(
    ("records", "ok", "said"),
    [
        (orders({"revenue": 5}, {"price": 2}, {"amount": 5}), True, "1 of the newest 3 orders"),
        (
            orders({"amount": 5}, {"grand_total": 5}, {"total": 5}),
            False,
            "2 of the newest 3 orders",
        ),
        (orders({}, None), False, "2 of the newest 2 orders say no amount, and count as 0"),
    ],
)
def test_orders_that_say_no_amount_are_told(
    records: list[FakeMessage], ok: bool, said: str
) -> None:
    odd = [FakeMessage(b"hello"), FakeMessage(None), FakeMessage(mark_value(START_MS))]
    (found,) = checkup.amounts(SETTINGS, "purchases", [*records, *odd])
    assert (found.subject, found.ok) == ("amounts in purchases", ok)
    assert said in found.finding
    assert bool(found.remedy) is not ok


def test_where_there_are_no_orders_nothing_is_told_of_amounts() -> None:
    view = FakeMessage(encoded(event="Product Viewed", properties={}))
    assert checkup.amounts(SETTINGS, "clickstream", [view]) == []
    assert checkup.amounts(SETTINGS, "clickstream", []) == []


# -- topics, group and store ----------------------------------------------------------------------


class Broker:
    """Stands for the broker's answers."""

    ids: Any = ("a", "b")
    members: tuple[str, ...] = ()

    def __init__(self, settings: Settings) -> None:
        del settings

    def topic_ids(self, names: Any) -> list[str]:
        del names
        if isinstance(self.ids, Exception):
            raise self.ids
        return list(self.ids)

    def group_members(self) -> list[str]:
        return list(self.members)


@pytest.fixture(autouse=True)
def broker(monkeypatch: pytest.MonkeyPatch) -> type[Broker]:
    own = type("Own", (Broker,), {})
    monkeypatch.setattr(checkup, "Output", own)
    return own


def state(topics: list[str] | None = None, partitions: int = 4) -> MemoryStore:
    store = MemoryStore()
    store.begin(partitions)
    store.create(2, "owner", Position([0, 0], "schema", topics=topics or ["a", "b", "c"]))
    return store


def of_state(store: MemoryStore) -> list[Finding]:
    return checkup.of_state(SETTINGS, store, broker_answers=True)


def test_a_namespace_without_state_is_nothing_to_look_at() -> None:
    assert of_state(MemoryStore()) == []


def test_the_topics_of_the_state_are_well() -> None:
    assert [one.ok for one in of_state(state())] == [True]
    assert checkup.of_state(SETTINGS, state(), broker_answers=False) == []


@pytest.mark.parametrize(
    ("ids", "ok", "said"),
    [
        (("x", "b"), False, "clickstream was deleted and made anew"),
        (("a", "x"), False, "purchases was deleted and made anew"),
        (("", ""), True, "those that"),
        (TopicMissingError("topic clickstream does not exist"), False, "new store.namespace"),
        (BrokerUnavailableError("away"), True, "not looked at: away"),
    ],
)
def test_topics_are_compared_with_the_state(
    broker: type[Broker], ids: Any, ok: bool, said: str
) -> None:
    broker.ids = ids
    (found,) = of_state(state())
    assert found.ok is ok
    assert said in found.finding
    assert found.ok or found.remedy


def test_another_number_of_partitions_is_told() -> None:
    (found,) = of_state(state(partitions=2))
    assert not found.ok
    assert "was begun with 2" in found.finding
    assert "topics.partitions = 2" in found.remedy


def test_what_may_not_be_asked_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    store = state()

    def refuse() -> int:
        raise StoreRefusedError("NOPERM")

    monkeypatch.setattr(store, "partitions", refuse)
    (found,) = of_state(store)
    assert found.ok
    assert "not looked at" in found.finding


@pytest.mark.parametrize(
    ("declared", "ok", "said"),
    [
        ("", True, "EUR, which was named first, and money.currency is not set"),
        ("EUR", True, "amounts are in EUR"),
        ("USD", False, "currencies are not added up: set it to EUR"),
    ],
)
def test_the_currency_of_the_namespace_is_told(declared: str, ok: bool, said: str) -> None:
    store = state()
    store.agree_currency("EUR")
    settings = SETTINGS.model_copy(update={"money": Money(currency=declared)})
    (found,) = checkup.of_state(settings, store, broker_answers=False)
    assert (found.subject, found.ok) == ("currency", ok)
    assert said in found.finding
    assert found.ok or found.remedy == "SEGSTREAM_MONEY__CURRENCY=EUR"


def test_members_of_another_namespace_are_told(broker: type[Broker]) -> None:
    broker.members = (client_id("segstream"),)
    assert checkup._group(SETTINGS).ok
    broker.members = (client_id("segstream"), client_id("other"))
    found = checkup._group(SETTINGS)
    assert not found.ok
    assert "namespace other" in found.finding


@pytest.mark.parametrize(
    ("unwrap", "values", "ok", "said"),
    [
        ("", [encoded(), encoded(type="page"), b"{"], True, "1 of the newest 3 cannot be read"),
        ("", [encoded()], True, "the newest 1 can be read"),
        ("", [encoded(), encoded(userId=..., user_id="ann")] * 2, True, "'user_id' looks like it"),
        ("", [encoded(userId=..., user_id="ann")] * 2, False, "2 of the newest 2 cannot be read"),
        ("", [b'{"type": "shop.order", "specversion": "1", "data": {}}'], False, "by CloudEvents"),
        (
            "",
            [b'{"type": "order", "payload": ' + encoded() + b"}"],
            False,
            "worker.unwrap = 'payload'",
        ),
        ("payload", [b'{"type": "order", "payload": ' + encoded() + b"}"], True, "1 can be read"),
        ("payload", [mark_value(START_MS)], True, None),
        ("", [], True, None),
    ],
)
def test_messages_of_another_form_are_told_with_what_to_do(
    unwrap: str, values: list[bytes], ok: bool, said: str | None
) -> None:
    settings = Settings.model_validate({"worker": {"unwrap": unwrap}})
    found = checkup.readable(settings, "purchases", [FakeMessage(value) for value in values])
    if said is None:
        assert found == []
    else:
        assert [one.ok for one in found] == [ok]
        assert said in found[0].finding


@pytest.mark.parametrize(
    ("events", "ok", "said"),
    [
        (["Order Completed", "Survey Answered"], True, "1 of the newest 2 are ignored"),
        (["Placed Order", "Survey Answered"], False, "'Placed Order' looks like 'Order Completed'"),
        (["purchase"], False, "'purchase' looks like 'Order Completed'"),
        (["refund", "Order Completed"], False, "'refund' looks like 'Order Refunded'"),
        (["add_to_cart"], False, "'add_to_cart' looks like 'Product Added'"),
        (["Completed Order"], True, None),
        ([f"other {n}" for n in range(9)], True, "'other 0', 'other 1', 'other 2' .."),
    ],
)
def test_events_that_nobody_watches_are_told_by_what_they_look_like(
    events: list[str], ok: bool, said: str | None
) -> None:
    values = [encoded(event=event) for event in events]
    found = checkup.readable(SETTINGS, "purchases", [FakeMessage(value) for value in values])
    told = [one for one in found if one.subject.startswith("events in")]
    if said is None:
        assert told == []
        return
    assert [one.ok for one in told] == [ok]
    assert said in told[0].finding
    assert ok or "declare features on" in told[0].remedy
