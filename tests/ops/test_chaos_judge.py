"""`ops/chaos/judge.py`: it passes what is clean, and finds whatever is planted."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ops.chaos.evidence import Evidence, Record, StoredPartition, StoredUser
from ops.chaos.judge import CHANGE, LINEAGE, Check, judge, milliseconds
from ops.chaos.traffic import Sort
from stream.units import iso

T0 = milliseconds("2026-01-01T00:00:00.000Z")
CLICKS, ORDERS, LETTERS = "clickstream", "purchases", "clickstream.dlq"
CHANGES, MODELS = "segment-changes", "segment-models"
GARBAGE = b"no json"
MARK = json.dumps(
    {
        "type": "segstream-mark",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "sentAt": "2026-01-01T00:00:00.000Z",
        "signature": "0" * 64,
    }
).encode()


@dataclass
class Shop:
    """What a small pipeline has come to; tests spoil it before it is judged."""

    clicks: list[Record] = field(default_factory=list)
    orders: list[Record] = field(default_factory=list)
    letters: list[Record] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    lineage: list[dict[str, Any]] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    users: dict[str, StoredUser] = field(default_factory=dict)
    offsets: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    sent: dict[Sort, int] = field(default_factory=dict)
    waiting: int = 0
    fresh_starts: int = 0

    def judged(self, *, by_marks: bool = True) -> list[Check]:
        return judge(self.evidence(), self.sent, by_marks=by_marks, fresh_starts=self.fresh_starts)

    def broken(self) -> dict[str, list[str]]:
        return {check.promise: check.findings for check in self.judged() if check.findings}

    def evidence(self) -> Evidence:
        outputs = [(CHANGE, one["user"], one) for one in self.changes]
        outputs += [(LINEAGE, "segment", one) for one in self.lineage]
        return Evidence(
            inputs=[self.clicks, self.orders],
            letters=self.letters,
            changes=[
                Record(
                    CHANGES, 0, offset, key.encode(), json.dumps(one).encode(),
                    {"ce_type": kind, "ce_id": one["id"]},
                )
                for offset, (kind, key, one) in enumerate(outputs)
            ],
            models=[
                Record(MODELS, 0, offset, b"current", json.dumps(one).encode())
                for offset, one in enumerate(self.models)
            ],
            partitions={
                0: StoredPartition([0, 0], self.offsets, self.counts, self.waiting, self.users)
            },
        )  # fmt: skip


def message(user: str, event: str, name: str, time_ms: int, **properties: Any) -> bytes:
    return json.dumps(
        {
            "type": "track",
            "event": event,
            "userId": user,
            "messageId": name,
            "timestamp": iso(time_ms),
            "properties": properties,
        }
    ).encode()


def change(user: str, version: int, before: int | None, after: int, model: str) -> dict[str, Any]:
    return {
        "id": f"{user}-1-{version}", "user": user, "version": version, "from": before, "to": after,
        "kind_from": before and f"kind {before}", "kind_to": f"kind {after}", "name_to": f"name {after}", "cause": "user_moved",
        "at": iso(T0 + version * 1_000), "model": model,
    }  # fmt: skip


def model(epoch: int, ids: list[int], retired: list[int]) -> dict[str, Any]:
    def segment(one: int) -> dict[str, Any]:
        return {
            "id": one,
            "kind": f"kind {one}",
            "name": f"name {one}",
            "born": f"{(one + 1) // 2}.0",
        }

    return {
        "model": f"{epoch}.0", "epoch": epoch, "version": 0,
        "segments": [segment(one) for one in ids], "retired": [segment(one) for one in retired],
        "lineage": [
            {"event": "born", "segment": one, "others": [], "model": f"{epoch}.0"}
            for one in ids if (one + 1) // 2 == epoch
        ],
    }  # fmt: skip


def clean() -> Shop:
    """Two shoppers; one message repeated, one late, one unwatched, one refused, a mark."""
    shop = Shop()
    values = [
        (b"a", message("a", "Product Viewed", "m1", T0, price=5)),
        (b"a", message("a", "Product Viewed", "m1", T0, price=5)),
        (b"b", message("b", "Product Viewed", "m2", T0 + 5, price=5)),
        (b"b", message("b", "Product Viewed", "m3", T0 - 100 * 86_400_000)),
        (b"b", message("b", "Coupon Viewed", "m4", T0)),
        (b"b", GARBAGE),
        (b"", MARK),
    ]
    shop.clicks = [
        Record(CLICKS, 0, at, key, value, {}, T0) for at, (key, value) in enumerate(values)
    ]
    order = message("a", "Order Completed", "m5", T0 + 7, revenue=20)
    shop.orders = [Record(ORDERS, 0, 0, b"a", order, {}, T0)]
    origin = {
        "segstream-topic": CLICKS,
        "segstream-partition": "0",
        "segstream-offset": "5",
        "segstream-id": f"{CLICKS}/0/5",
    }
    shop.letters = [Record(LETTERS, 0, 0, b"b", GARBAGE, origin)]
    shop.offsets = [7, 1]
    shop.counts = Counter(applied=3, duplicate=1, late=1, ignored=1, rejected=1, marks=1)
    shop.sent = {
        Sort.APPLIED: 3,
        Sort.DUPLICATE: 1,
        Sort.LATE: 1,
        Sort.IGNORED: 1,
        Sort.REJECTED: 1,
    }
    shop.models = [model(1, [1, 2], []), model(2, [1, 3], [2])]
    shop.lineage = [
        {"id": f"{one['model']}-{place}", **one}
        for found in shop.models
        for place, one in enumerate(found["lineage"])
    ]
    shop.changes = [
        change("a", 1, None, 1, "1.0"),
        change("b", 1, None, 2, "1.0"),
        change("a", 2, 1, 2, "1.0"),
        change("a", 3, 2, 3, "2.0"),
    ]
    shop.users = {
        "a": StoredUser(
            3, 3, 2, T0 + 3_000, T0, T0 + 7, (2, 1),
            {"orders_ever": 1.0, "views_ever": 1.0, "ordered_ever": 20.0},
        ),
        "b": StoredUser(
            1, 2, 0, T0 + 1_000, T0 + 5, T0 + 5, (1, 0),
            {"orders_ever": 0.0, "views_ever": 1.0, "ordered_ever": 0.0},
        ),
    }  # fmt: skip
    return shop


def test_what_is_clean_passes() -> None:
    checks = clean().judged()
    assert [check.promise for check in checks if check.findings] == []
    idle = {check.promise for check in checks if not check.looked_at}
    assert idle == set()


def test_repeats_with_the_same_bytes_are_allowed_and_counted() -> None:
    shop = clean()
    shop.changes.append(shop.changes[0])
    shop.models.append(shop.models[0])
    shop.lineage.append(shop.lineage[0])
    shop.letters.append(shop.letters[0])
    assert shop.broken() == {}
    assert sum(check.repeats for check in shop.judged()) == 4


Spoil = Callable[[Shop], object]


def _row(shop: Shop, **fields: Any) -> None:
    shop.users["a"] = replace(shop.users["a"], **fields)


def _second(shop: Shop, where: str, **fields: Any) -> None:
    """The first record again, but not the same."""
    records = getattr(shop, where)
    records.append(copy.deepcopy(records[0]) | fields)


PLANTED: list[tuple[str, Spoil, str]] = [
    (
        "a message that was sent is not there",
        lambda shop: shop.sent.update({Sort.APPLIED: 4}),
        "what was sent is on the input topics",
    ),
    (
        "a message is not read",
        lambda shop: shop.offsets.__setitem__(1, 0),
        "everything was read, every change delivered",
    ),
    (
        "a change waits",
        lambda shop: setattr(shop, "waiting", 1),
        "everything was read, every change delivered",
    ),
    (
        "a message is counted twice",
        lambda shop: shop.counts.update(applied=1),
        "counts are conserved",
    ),
    (
        "a message is counted as another sort",
        lambda shop: shop.counts.update(applied=1, late=-1),
        "counts are conserved",
    ),
    (
        "an order is folded twice",
        lambda shop: _row(shop, exact={"orders_ever": 2.0}),
        "every message is folded once",
    ),
    (
        "money is missing",
        lambda shop: _row(shop, exact={"ordered_ever": 0.0}),
        "every message is folded once",
    ),
    ("a click is lost", lambda shop: _row(shop, arrivals=(1, 1)), "every message is folded once"),
    ("the last event is lost", lambda shop: _row(shop, seen_ms=T0), "every message is folded once"),
    ("a user is gone", lambda shop: shop.users.pop("b"), "every message is folded once"),
    (
        "a user comes from nowhere",
        lambda shop: shop.users.update(c=shop.users["b"]),
        "every message is folded once",
    ),
    (
        "a letter is missing",
        lambda shop: shop.letters.clear(),
        "every refused message has its letter",
    ),
    (
        "a letter has other bytes",
        lambda shop: shop.letters.__setitem__(0, replace(shop.letters[0], value=b"other")),
        "every refused message has its letter",
    ),
    (
        "a good message has a letter",
        lambda shop: shop.letters.append(
            replace(shop.letters[0], headers={**shop.letters[0].headers, "segstream-offset": "0"})
        ),
        "every refused message has its letter",
    ),
    (
        "a letter has no id",
        lambda shop: shop.letters.__setitem__(
            0, replace(shop.letters[0], headers={**shop.letters[0].headers, "segstream-id": ""})
        ),
        "every refused message has its letter",
    ),
    (
        "an id stands for two changes",
        lambda shop: _second(shop, "changes", to=2),
        "an id stands for one change",
    ),
    (
        "an id stands for two users",
        lambda shop: _second(shop, "changes", user="b"),
        "an id stands for one change",
    ),
    ("a change is lost", lambda shop: shop.changes.pop(2), "versions go 1, 2, 3"),
    (
        "a version comes again under another id",
        lambda shop: _second(shop, "changes", id="x", version=3, **{"from": 3}),
        "versions go 1, 2, 3",
    ),
    (
        "a user begins anew",
        lambda shop: shop.changes.append(change("a", 1, None, 3, "2.0") | {"id": "x"}),
        "versions go 1, 2, 3",
    ),
    (
        "a change begins elsewhere",
        lambda shop: shop.changes[3].update({"from": 1}),
        "a change begins where the one before ended",
    ),
    (
        "changes stand in the wrong order",
        lambda shop: shop.changes.insert(0, shop.changes.pop(2)),
        "versions go 1, 2, 3",
    ),
    (
        "a change names a model that nobody announced",
        lambda shop: shop.changes[3].update(model="9.0"),
        "a change is one of the model it names",
    ),
    (
        "a change tells another kind than its model",
        lambda shop: shop.changes[3].update(kind_to="kind 1"),
        "a change is one of the model it names",
    ),
    (
        "a change leads to a segment that its model does not have",
        lambda shop: shop.changes[3].update(model="1.0"),
        "a change is one of the model it names",
    ),
    (
        "a row is elsewhere",
        lambda shop: _row(shop, segment=1),
        "rows agree with the last change",
    ),
    ("a row is behind", lambda shop: _row(shop, version=2), "rows agree with the last change"),
    (
        "a row has another time",
        lambda shop: _row(shop, since_ms=T0),
        "rows agree with the last change",
    ),
    (
        "a row has another segment before",
        lambda shop: _row(shop, previous=1),
        "rows agree with the last change",
    ),
    (
        "a user has no change",
        lambda shop: shop.changes.pop(1),
        "rows agree with the last change",
    ),
    (
        "a model is told in two ways",
        lambda shop: _second(shop, "models", segments=[]),
        "a model is told in one way, and they go forward",
    ),
    (
        "models go back",
        lambda shop: shop.models.append(model(1, [1, 3], []) | {"model": "1.5", "version": -1}),
        "a model is told in one way, and they go forward",
    ),
    (
        "an id is born again",
        lambda shop: shop.models[1]["segments"][0].update(born="2.0"),
        "a segment id is born once",
    ),
    (
        "an id comes back",
        lambda shop: shop.models.append(model(3, [1, 2, 3], [])),
        "a segment id is born once",
    ),
    (
        "an id stands twice in a model",
        lambda shop: shop.models[1]["segments"].append(shop.models[1]["segments"][0]),
        "a segment id is born once",
    ),
    (
        "a lineage record is told in two ways",
        lambda shop: _second(shop, "lineage", users=5),
        "a lineage record is told in one way",
    ),
    (
        "a lineage record is lost",
        lambda shop: shop.lineage.pop(),
        "what became of segments is told",
    ),
]


@pytest.mark.parametrize(
    ("spoil", "promise"), [one[1:] for one in PLANTED], ids=[one[0] for one in PLANTED]
)
def test_what_is_planted_is_found(spoil: Spoil, promise: str) -> None:
    shop = clean()
    spoil(shop)
    assert promise in shop.broken()


def test_two_refused_messages_with_one_id_are_found() -> None:
    shop = clean()
    shop.clicks.append(Record(CLICKS, 0, 7, b"b", GARBAGE, {}, T0))
    shop.offsets[0], shop.counts["rejected"], shop.sent[Sort.REJECTED] = 8, 2, 2
    headers = {**shop.letters[0].headers, "segstream-offset": "7"}
    shop.letters.append(replace(shop.letters[0], headers=headers))
    assert list(shop.broken()) == ["every refused message has its letter"]
    shop.letters[-1] = replace(shop.letters[0], headers={**headers, "segstream-id": "another"})
    assert shop.broken() == {}


def test_a_message_that_is_there_once_more_is_a_repeat_but_another_is_a_fault() -> None:
    promise = "what was sent is on the input topics"
    shop = clean()
    shop.sent[Sort.DUPLICATE] -= 1
    assert shop.broken() == {}
    assert {check.promise: check.repeats for check in shop.judged()}[promise] == 1
    # Records of now have a producer that the broker remembers.
    live = {check.promise: check.findings for check in shop.judged(by_marks=False)}
    assert f"{shop.sent[Sort.DUPLICATE]} duplicate sent" in str(live[promise])
    shop.sent[Sort.LATE] -= 1
    assert list(shop.broken()) == [promise]


def test_every_promise_can_be_broken() -> None:
    assert {promise for _, _, promise in PLANTED} == {check.promise for check in clean().judged()}


def test_after_a_total_loss_a_user_may_begin_anew_as_often_as_it_happened() -> None:
    shop = clean()
    again = change("a", 1, None, 3, "2.0") | {"id": "a-2-1"}
    shop.changes.append(again)
    shop.users["a"] = replace(
        shop.users["a"], version=1, previous=0, since_ms=milliseconds(again["at"])
    )
    assert "versions go 1, 2, 3" in shop.broken()
    shop.fresh_starts = 1
    assert shop.broken() == {}
    shop.changes.append(again | {"id": "a-3-1"})
    assert "versions go 1, 2, 3" in shop.broken()


def test_what_lies_before_the_state_began_is_not_counted() -> None:
    shop = clean()
    found = shop.evidence()
    later = replace(found.partitions[0], first=[1, 0])
    checks = judge(replace(found, partitions={0: later}), shop.sent, by_marks=True)
    broken = {check.promise for check in checks if check.findings}
    # The first message is not of this state: the second is then no repeat of anything.
    assert broken == {"counts are conserved", "every message is folded once"}


def test_a_partition_without_state_is_found() -> None:
    found = replace(clean().evidence(), partitions={})
    broken = {check.promise for check in judge(found, by_marks=True) if check.findings}
    assert "everything was read, every change delivered" in broken
