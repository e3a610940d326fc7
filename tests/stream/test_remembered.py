"""Message ids and orders of many partitions in one memory: nothing of one is another's."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import keytable
from stream.events import EventColumns
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.keytable import LOAD, KeyTable
from stream.limits import Limits
from stream.memory import Memory, Part
from stream.remembered import Lane

HOUR_MS = 3_600_000
START_MS = 1_764_547_200_000


def clicks(ids: list[int], at_ms: int = 0, topic: int = 0) -> EventColumns:
    """Clicks of one user, recorded at one time."""
    count = len(ids)
    return EventColumns(
        slot=np.zeros(count, np.int64),
        topic=np.full(count, topic, np.uint8),
        kind=np.zeros(count, np.uint8),
        time_ms=np.full(count, START_MS, np.int64),
        id=np.array(ids, np.uint64),
        value=np.zeros(count),
        quantity=np.ones(count),
        category=np.zeros(count, np.uint64),
        order=np.zeros(count, np.uint64),
        whole=np.zeros(count, np.bool_),
        rate=np.ones(count),
        currency=np.zeros(count, np.uint32),
        recorded_ms=np.full(count, START_MS + at_ms, np.int64),
    )


def repeats(memory: Memory, lanes: tuple[Lane, ...], events: EventColumns) -> list[bool]:
    part = Part(lanes, np.full(len(events), 7, np.uint64))
    found: list[bool] = memory.sift([part], events, None).repeats.tolist()
    return found


def opened(memory: Memory, partition: int = 0) -> tuple[Lane, ...]:
    return memory.open(partition, [], [], [])


def test_partitions_and_topics_do_not_know_each_others_messages() -> None:
    memory = Memory()
    one, other = opened(memory, 0), opened(memory, 1)
    assert repeats(memory, one, clicks([1, 2, 1])) == [False, False, True]
    assert repeats(memory, other, clicks([1])) == [False]
    assert repeats(memory, one, clicks([1], topic=1)) == [False]
    both = EventColumns.concatenate([clicks([1, 3]), clicks([1, 4])])
    users = np.full(2, 7, np.uint64)
    sifted = memory.sift([Part(one, users), Part(other, users)], both, None)
    assert sifted.repeats.tolist() == [True, False, True, False]


def test_a_partition_that_comes_back_remembers_what_it_is_told_and_no_more() -> None:
    """What was remembered and never committed is forgotten with the partition that is dropped."""
    memory = Memory()
    lanes = opened(memory)
    repeats(memory, lanes, clicks([1, 2]))
    stays = opened(memory, 5)
    repeats(memory, stays, clicks([1]))
    memory.close(lanes)
    for _ in range(3):
        lanes = opened(memory)
        assert repeats(memory, lanes, clicks([1])) == [False]
        memory.close(lanes)
    assert repeats(memory, stays, clicks([1, 2])) == [True, False]
    assert len({lane.number for lane in (*lanes, *stays)}) == 4, "numbers are used again"


def test_forgotten_orders_make_room_for_others() -> None:
    """A worker that runs for years has the orders of half a year."""
    table, memory = FeatureTable(DEFAULT_FEATURES), Memory()
    lanes, step_ms = opened(memory), Limits().orders_ms // 8
    kinds = np.full(200, table.codes["Order Completed"], np.uint8)
    for step in range(100):
        ids = list(range(1 + 200 * step, 201 + 200 * step))
        events = replace(clicks(ids, step * step_ms, topic=1), kind=kinds)
        part = Part(lanes, np.arange(1, 201, dtype=np.uint64))
        assert not memory.sift([part], events, table.orders).repeats.any()
        assert len(list(memory.orders.packed(lanes[1]))) == 1, "what is not committed yet stays"
        lanes[1].keep()
    assert lanes[1].orders.total == 9 * 200
    assert memory.orders.room < 3 * 9 * 200
    back = replace(
        events, kind=np.full(200, table.codes["Order Refunded"], np.uint8), whole=kinds > 0
    )
    back = replace(back, id=events.id + np.uint64(10**6))
    part = Part(lanes, np.arange(1, 201, dtype=np.uint64))
    shares = memory.sift([part], back, table.orders).shares
    assert shares is not None
    assert shares.left[0, 200:].sum() == -200, "each takes back the newest of its user"


@pytest.mark.parametrize("named", [False, True])
def test_nobody_can_stop_a_worker_with_many_orders_and_refunds_of_one_user(named: bool) -> None:
    """Of orders that have nothing left, and of those with an id, no refund looks at each again."""
    table, memory = FeatureTable(DEFAULT_FEATURES), Memory()
    lanes, count = opened(memory), 10_000
    placed, back = table.codes["Order Completed"], table.codes["Order Refunded"]
    of_orders = np.arange(1, count + 1, dtype=np.uint64)
    # Refunds without an order, or of orders that are not known.
    of_refunds = of_orders + np.uint64(count) if named else np.zeros(count, np.uint64)
    events = replace(
        clicks(list(range(1, 2 * count + 1)), topic=1),
        kind=np.repeat([placed, back], count).astype(np.uint8),
        value=np.full(2 * count, 10.0),
        order=np.concatenate([of_orders, of_refunds]),
    )
    began = time.process_time()
    part = Part(lanes, np.full(2 * count, 7, np.uint64))
    shares = memory.sift([part], events, table.orders).shares
    assert time.process_time() - began < 5.0, "its square would be half a minute"
    assert shares is not None
    assert shares.left[1].sum() == (10.0 * 2 * count if named else 10.0 * count)


def test_orders_that_are_said_again_do_not_look_for_room_every_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, memory = FeatureTable(DEFAULT_FEATURES), Memory()
    lanes, count = opened(memory), memory.orders.room
    kinds = np.full(count, table.codes["Order Completed"], np.uint8)
    part = Part(lanes, np.arange(1, count + 1, dtype=np.uint64))
    purges: list[float] = []
    monkeypatch.setattr(memory.orders, "purge", lambda least=0.0: purges.append(least))
    for again in range(4):
        ids = list(range(1 + again * count, 1 + (again + 1) * count))
        events = replace(
            clicks(ids, topic=1), kind=kinds, order=np.arange(1, count + 1).astype("u8")
        )
        assert memory.sift([part], events, table.orders).repeats.all() == (again > 0)
    assert len(purges) == 1


def test_above_the_cap_the_oldest_are_forgotten_early(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory(Limits(ids=10))
    lanes = opened(memory)
    with caplog.at_level(logging.WARNING):
        for step in range(4):
            at_ms = step * HOUR_MS // 8
            assert not any(
                repeats(memory, lanes, clicks(list(range(step * 5, step * 5 + 5)), at_ms))
            )
    assert lanes[0].ids.total <= 15
    last = 3 * HOUR_MS // 8
    assert repeats(memory, lanes, clicks([19, 14, 0], last)) == [True, True, False]
    assert len([r for r in caplog.records if "remembered_ids" in r.message]) <= 1


@pytest.mark.parametrize("cap", [3, 8, 1_000])
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, HOUR_MS // 3)), max_size=60), st.data()
)
@settings(max_examples=60, deadline=None)
def test_what_is_remembered_does_not_depend_on_the_batches(
    cap: int, said: list[tuple[int, int]], data: st.DataObject
) -> None:
    def all_repeats(cuts: list[int]) -> list[bool]:
        memory, found = Memory(Limits(ids=cap)), list[bool]()
        lanes = opened(memory)
        edges = [0, *sorted(cuts), len(said)]
        times = np.cumsum([step for _, step in said]).astype(np.int64)
        for low, high in pairwise(edges):
            events = clicks([number for number, _ in said[low:high]])
            events.recorded_ms[:] = START_MS + times[low:high]
            found += repeats(memory, lanes, events)
        return found

    cuts = data.draw(st.lists(st.integers(0, len(said)), max_size=10))
    assert all_repeats(cuts) == all_repeats(list(range(len(said))))


WAYS = (None, keytable.compiled()) if keytable.compiled() else (None,)


def table_by(way: keytable.Probing | None) -> KeyTable:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keytable, "compiled", lambda: way)
        return KeyTable()


@pytest.mark.parametrize("way", WAYS)
@given(batches=st.lists(st.lists(st.integers(1, 500), max_size=300), max_size=12))
@settings(max_examples=40, deadline=None)
def test_a_table_is_a_dict(way: keytable.Probing | None, batches: list[list[int]]) -> None:
    table, known = table_by(way), dict[int, int]()
    scattered = (np.arange(1, 401, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).tolist()
    # All of these belong to the last place: they go on from the first.
    scattered += [2**64 - 1 - number for number in range(100)]
    for batch in batches:
        keys = np.array([scattered[number - 1] for number in batch], np.uint64)
        if not table.has_room(len(keys)):
            table.rebuild(np.ones(len(table.keys), np.bool_), len(keys))
        places = table.put(keys, np.zeros(len(keys), np.uint32))
        assert (table.keys[places] == keys).all()
        numbers = np.arange(1, len(keys) + 1)
        table.numbers[places] = numbers
        known |= dict(zip(keys.tolist(), table.numbers[places].tolist(), strict=True))
    asked = np.array(scattered, np.uint64)
    found = table.find(asked)
    for key, place in zip(asked.tolist(), found.tolist(), strict=True):
        assert known.get(key) == (int(table.numbers[place]) if place >= 0 else None)
    assert np.count_nonzero(table.keys) == len(known) <= max(table.used, 0)
    assert table.used <= LOAD * len(table.keys)


@pytest.mark.parametrize("way", WAYS)
def test_a_table_takes_keys_as_they_lie_in_packed_rows_and_in_bytes(
    way: keytable.Probing | None,
) -> None:
    packed = np.zeros(3, np.dtype([("odd", np.uint8), ("key", np.uint64), ("lane", np.int64)]))
    packed["key"] = 5, 1 << 40, 5
    table = table_by(way)
    first, second, again = table.put(packed["key"], packed["lane"]).tolist()
    assert first == again != second
    read = np.frombuffer(packed["key"].tobytes(), np.uint64)
    assert table.put(read, np.zeros(3, np.uint32)).tolist() == [first, second, first]


@pytest.mark.parametrize("way", WAYS)
def test_a_table_grows_and_shrinks_with_what_is_in_it(way: keytable.Probing | None) -> None:
    table = table_by(way)
    keys = np.random.default_rng(1).integers(1, 1 << 63, 200_000).astype(np.uint64)
    keys = keys * np.uint64(2) + np.uint64(1)
    for part in np.split(keys, 100):
        if not table.has_room(len(part)):
            table.rebuild(np.ones(len(table.keys), np.bool_), len(part))
        table.put(part, np.zeros(len(part), np.uint32))
    assert len(keys) * 2 <= len(table.keys) <= len(keys) * 6
    table.rebuild(np.isin(table.keys, keys[:100]), 0)
    assert len(table.keys) < 10_000
    assert (table.find(keys[:100]) >= 0).all()
    assert (table.find(keys[100:200]) < 0).all()
