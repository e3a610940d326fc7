"""Everybody is told of what kind they are: once, in their own chain, at a declared rate."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.acting import Acting, act_together
from stream.clustering import FeatureMap, on_grid
from stream.delivered import Delivered
from stream.events import CAUSES, SEGMENT_CHANGE, Cause, Counts
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.kinds import DEFAULT_KINDS, Rung, ladder
from stream.model import Model, Segment
from stream.oracle import Event
from stream.partition import Partition
from stream.segments import PublishRule
from stream.store.state import Position
from stream.turns import (
    BURST_MS,
    MOST_CODES,
    KindBook,
    Scale,
    allowed,
    kinds_told,
    paid,
    to_tell,
    wanted_kinds,
)
from tests.strategies import START_MS, VIEW, columns, of_everyone, with_only

TABLE = FeatureTable(DEFAULT_FEATURES)
RULE = PublishRule(0.2, 3, 0, turns_per_second=10.0)
LADDER = ladder(DEFAULT_KINDS)
RANK = {rung.kind: rung.rank for rung in LADDER}
INSTEAD = {rung.kind: rung.instead for rung in LADDER}


def model_of(*kinds: str, version: int = 0) -> Model:
    """A segment of each kind; everybody is nearest to the first."""
    centroids = np.zeros((len(kinds), len(TABLE.names)))
    centroids[:, 0] = np.where(np.arange(len(kinds)) > 0, 3.0, 0.0)
    vectors = np.random.default_rng(1).lognormal(0, 1, (200, len(TABLE.names)))
    return of_everyone(
        1,
        version,
        START_MS,
        TABLE.schema,
        FeatureMap.learn(vectors, TABLE.weights),
        on_grid(centroids),
        tuple(
            Segment(number, f"name {number}", kind, 1, "1.0")
            for number, kind in enumerate(kinds, 1)
        ),
        ladder=LADDER,
    )


# -- what is told ----------------------------------------------------------------------------------


def scale_of(model: Model, book: KindBook) -> Scale:
    return Scale.of(model, book, lambda: np.empty(0, np.uint8))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", *RANK]), st.sampled_from(list(RANK)), st.booleans()
        ),
        min_size=1, max_size=40,
    )
)  # fmt: skip
def test_nobody_rises_without_an_act_or_becomes_new_who_is_known(
    users: list[tuple[str, str, bool]],
) -> None:
    book = KindBook([])
    scale = scale_of(model_of(*RANK), book)
    codes = {kind: book.code(kind, lambda: np.empty(0, np.uint8)) for kind in RANK} | {"": 0}
    told = np.array([codes[before] for before, _, _ in users], np.uint8)
    kinds = np.array([codes[now] for _, now, _ in users], np.uint8)
    acted = np.array([one[2] for one in users])
    found = kinds_told(to_tell(told, kinds, acted, scale), book.names)
    for (before, now, did), after in zip(users, found, strict=True):
        if not before or before == now:
            assert after == now
            continue
        wanted = INSTEAD[now] or now
        assert after == (wanted if did or RANK[wanted] <= RANK[before] else before)
        assert after != "new" or before == "new"


def test_a_kind_without_a_rank_stands_in_nobodys_way() -> None:
    model = replace(model_of("big", "small"), ladder=(Rung("big", 0, ""), Rung("small", 0, "")))
    scale = scale_of(model, book := KindBook([]))
    told = np.array([2, 1], np.uint8)
    assert to_tell(told, scale.kinds, np.zeros(2, np.bool_), scale).tolist() == [1, 2]
    assert book.names == ["big", "small"]


def test_who_is_in_no_segment_of_the_model_is_told_nothing() -> None:
    book = KindBook(["dormant", "loyal"])
    scale = scale_of(model_of("dormant"), book)
    told = np.array([2, 0, 2], np.uint8)
    found = wanted_kinds(told, np.array([-1, 0, 0]), np.ones(3, np.bool_), scale)
    assert found.tolist() == [2, 0, 1]


def test_codes_are_given_anew_when_nobody_has_them() -> None:
    book = KindBook([f"kind {number}" for number in range(MOST_CODES)])
    used = np.setdiff1d(np.arange(1, MOST_CODES + 1), [7]).astype(np.uint8)
    assert book.code("kind 3", lambda: used) == 4
    assert book.code("another", lambda: used) == 7
    assert kinds_told(np.array([7, 0, 4], np.uint8), book.names) == ["another", "", "kind 3"]
    with pytest.raises(ValueError, match="one more"):
        book.code("too many", lambda: np.arange(1, MOST_CODES + 1, dtype=np.uint8))


@given(
    st.lists(st.tuples(st.integers(0, 200_000), st.integers(0, 500)), max_size=40),
    st.sampled_from([0.5, 7.0, 200.0, 3_000.0]),
)
def test_never_more_are_told_than_the_rate_allows(
    steps: list[tuple[int, int]], rate: float
) -> None:
    now = first = START_MS
    paid_ms, total = now, 0
    for passed, due in steps:
        now += passed
        told = min(due, allowed(now, paid_ms, 0, rate))
        paid_ms = paid(told, now, paid_ms, 0, rate)
        total += told
        assert total <= (now - first + BURST_MS) * rate / 1_000 + 1
    # Whoever waits is told in the end.
    assert allowed(now + 100_000, paid_ms, 0, rate) >= min(int(rate * BURST_MS / 1_000), 1)


def test_in_the_clock_of_marks_all_time_since_the_mark_before_counts() -> None:
    hour = 3_600_000
    now = START_MS + hour
    assert allowed(now, START_MS - hour, START_MS, 10.0) == 36_000
    assert allowed(now, START_MS - hour, 0, 10.0) == BURST_MS // 100
    assert paid(36_000, now, START_MS - hour, START_MS, 10.0) == now


# -- an owner ------------------------------------------------------------------------------------


class Shop:
    """A partition, what of it is committed, and all records so far."""

    def __init__(self, users: int) -> None:
        self.users = [f"user {number}" for number in range(users)]
        self.rows: dict[bytes, bytes] = {}
        self.position = Position([0, 0], TABLE.schema)
        self.sequence = 0
        self.records: list[dict[str, Any]] = []
        self.partition = Partition(0, TABLE, RULE, self.position, 0)

    def act(self, users: list[str], now_ms: int) -> None:
        events = [
            Event(user, 0, VIEW, now_ms, number + now_ms, 0.0, 1.0, 1, recorded_ms=now_ms)
            for number, user in enumerate(users)
        ]
        slots = dict(zip(users, self.partition.slots(users).tolist(), strict=True))
        act_together([Acting(self.partition, columns(TABLE, slots, events), now_ms)], now_ms)

    def commit(self, now_ms: int) -> list[dict[str, Any]]:
        commit = self.partition.commit([0, 0], Counts(), now_ms)
        self.partition.committed(commit)
        size = TABLE.dtype.itemsize
        for place, user in enumerate(commit.users):
            self.rows[user] = commit.rows[place * size : (place + 1) * size]
        self.position, self.sequence = commit.position, commit.sequence + 1
        found = [json.loads(change) for entry in commit.outbox for change in entry.changes]
        self.records += found
        return found

    def kill(self, seed: int) -> None:
        """What is not committed is gone; rows come back in another order."""
        model = self.partition.model
        self.partition = Partition(0, TABLE, RULE, self.position, self.sequence, model)
        order = np.random.default_rng(seed).permutation(len(self.rows))
        stored = list(self.rows.items())
        self.partition.load([stored[place] for place in order])

    def adopt(self, model: Model, now_ms: int) -> list[dict[str, Any]]:
        self.partition.adopt(model, now_ms, now_ms)
        return self.commit(now_ms)

    def sweep(self, now_ms: int) -> list[dict[str, Any]]:
        self.partition.sweep(now_ms, now_ms)
        return self.commit(now_ms)


def a_shop(kind: str = "at_risk", users: int = 350) -> Shop:
    """Users who are all in one segment, and were told its kind."""
    shop = Shop(users)
    shop.act(shop.users, START_MS)
    found = shop.adopt(model_of(kind, "browsing"), START_MS)
    assert Counter(one["to"] for one in found) == {1: users}
    return shop


def turns(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in records if one["cause"] == Cause.SEGMENT_TURNED]


def assert_chained(shop: Shop) -> None:
    last: dict[str, dict[str, Any]] = {}
    for one in shop.records:
        assert SEGMENT_CHANGE.validate_python(one)
        before = last.get(one["user"], {"version": 0, "to": None, "kind_to": None})
        assert one["version"] == before["version"] + 1
        assert (one["from"], one["kind_from"]) == (before["to"], before["kind_to"])
        last[one["user"]] = one
    for user, kind in zip(
        shop.partition.names, shop.partition.kinds_of(shop.partition.rows), strict=True
    ):
        assert kind == last[user.decode()]["kind_to"]


def test_everybody_is_told_of_a_turn_at_the_rate_each_once() -> None:
    shop = a_shop()
    now = START_MS + 3_600_000
    counts = [len(turns(shop.adopt(model_of("dormant", "browsing", version=1), now)))]
    while sum(counts) < 350:
        now += 5_000
        counts.append(len(turns(shop.sweep(now))))
        assert counts[-1], "somebody is left to tell"
    # Ten a second: first what a quiet time leaves, then what five seconds allow.
    assert counts == [100, 50, 50, 50, 50, 50]
    told = turns(shop.records)
    assert len({one["user"] for one in told}) == 350
    assert {(one["from"], one["to"], one["kind_from"], one["kind_to"]) for one in told} == {
        (1, 1, "at_risk", "dormant")
    }
    assert {(one["margin"], one["rest"], len(one["why"])) for one in told} == {(None, None, 0)}
    assert turns(shop.sweep(now + 60_000)) == []
    assert_chained(shop)
    # In the segment they have been since they came there; of the kind, since they were told.
    rows = shop.partition.rows
    assert set(rows["since"].tolist()) == {START_MS}
    assert set(rows["previous"].tolist()) == {0}
    assert rows["kind_since"].min() == START_MS + 3_600_000


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_at_any_time_loses_nobody_and_tells_nobody_twice(seed: int) -> None:
    random = np.random.default_rng(seed)
    shop = a_shop()
    now = START_MS + 3_600_000
    shop.adopt(model_of("dormant", "browsing", version=1), now)
    while len(turns(shop.records)) < 350:
        now += 5_000
        if random.random() < 0.4:
            shop.partition.sweep(now, now)  # and no commit
            shop.kill(int(random.integers(100)))
        shop.sweep(now)
    assert len({one["user"] for one in turns(shop.records)}) == 350
    assert_chained(shop)


def test_who_is_told_first_does_not_depend_on_the_order_of_loading() -> None:
    found = []
    for seed in (1, 2):
        shop = a_shop()
        shop.kill(seed)
        told = turns(shop.adopt(model_of("dormant", "browsing", version=1), START_MS + 9_000_000))
        found.append({one["id"] for one in told})
    assert len(found[0]) == 100
    assert found[0] == found[1]


def test_who_acts_is_told_at_once_whoever_waits() -> None:
    shop = a_shop()
    now = START_MS + 3_600_000
    waiting = {
        one["user"] for one in turns(shop.adopt(model_of("dormant", "browsing", version=1), now))
    }
    others = [user for user in shop.users if user not in waiting][:120]
    shop.act(others, now + 1)
    told = turns(shop.commit(now + 1))
    assert sorted(one["user"] for one in told) == sorted(others)
    assert_chained(shop)


def test_who_acts_in_the_midst_of_a_sweep_is_told_once() -> None:
    shop = a_shop(users=90)
    now = START_MS + 3_600_000
    shop.partition.begin_adoption(model_of("dormant", "browsing", version=1))
    shop.partition.sweep_on(60, now, now)
    shop.act(shop.users[40:80], now + 1)
    shop.partition.sweep_on(90, now + 2, now + 2)
    told = turns(shop.commit(now + 2))
    assert sorted(one["user"] for one in told) == sorted(shop.users)
    assert_chained(shop)


def test_a_better_kind_is_told_to_who_acts_and_to_nobody_else() -> None:
    shop = a_shop("dormant")
    now = START_MS + 3_600_000
    shop.adopt(model_of("loyal", "browsing", version=1), now)
    for step in range(1, 20):
        shop.sweep(now + 60_000 * step)
    assert turns(shop.records) == []
    # What the shop does to a user is a reason to look at them, and no act of theirs.
    slot = shop.partition.slots(["user 7"])
    shop.partition.sweep(now + 2_000_000, 0, acted=slot)
    assert turns(shop.commit(now + 2_000_000)) == []
    shop.act(["user 8"], now + 2_000_001)
    (one,) = turns(shop.commit(now + 2_000_001))
    assert one["user"] == "user 8"
    assert_chained(shop)


def test_a_turn_that_is_taken_back_in_time_is_not_told() -> None:
    shop = a_shop()
    now = START_MS + 3_600_000
    assert len(turns(shop.adopt(model_of("dormant", "browsing", version=1), now))) == 100
    shop.adopt(model_of("at_risk", "browsing", version=2), now + 1)
    for step in range(1, 20):
        shop.sweep(now + 60_000 * step)
    # And who was told the worse kind rises by an act only.
    assert len(turns(shop.records)) == 100
    assert_chained(shop)


def test_a_move_by_the_model_tells_nobody_a_better_kind() -> None:
    shop = a_shop("dormant")
    now = START_MS + 3_600_000
    better = model_of("at_risk", "loyal", version=1)
    # Their segment is no more; the nearest one is better.
    gone = with_only(better, segments=(replace(better.segments[0], id=9), better.segments[1]))
    found = shop.adopt(gone, now)
    assert {(one["cause"], one["to"], one["kind_to"]) for one in found} == {
        (Cause.SEGMENT_RETIRED, 9, "dormant")
    }
    assert_chained(shop)


def test_a_delivered_turn_that_the_store_has_lost_is_true() -> None:
    shop = a_shop()
    user, row = "user 3", shop.partition.slots(["user 3"])[0]
    told = Delivered(user, 1, 2, 1, 1, START_MS + 5, "dormant")
    assert shop.partition.take_delivered([told]) == 1
    found = shop.partition.rows[row]
    assert (found["version"], found["segment"], found["since"]) == (2, 1, START_MS)
    assert found["kind_since"] == START_MS + 5
    assert shop.partition.kinds_of(shop.partition.rows[[row]]) == ["dormant"]


def test_a_turn_is_a_cause() -> None:
    assert CAUSES[-1] is Cause.SEGMENT_TURNED
