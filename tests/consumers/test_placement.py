"""Users who lie in another partition than theirs: noticed, refused or counted, at no cost for others."""

from __future__ import annotations

from collections import Counter
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.decode import Decoder
from consumers.placement import Placement, Span
from stream.config import Worker
from stream.events import Ints, Reason
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.hashing import partition_of, partitions_of
from stream.metrics import REGISTRY
from stream.oracle import Fate, Judge, Message
from stream.partition import Partition
from stream.segments import PublishRule
from stream.store.state import Position
from stream.units import DAY_MS
from tests.consumers.scene import INPUTS, PARTITIONS, Scene, events, write
from tests.fakes import FakeMessage, mark_value
from tests.strategies import START_MS, VIEW, encoded

TABLE = FeatureTable(DEFAULT_FEATURES)
DECODER = Decoder(TABLE, Worker(decoder="plain"))

# -- where a key belongs --------------------------------------------------------------------------

KAFKAS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
"""Hashes that Kafka's own client is tested with."""


@pytest.mark.parametrize(("key", "hashed"), KAFKAS.items())
def test_a_key_is_placed_as_kafkas_own_client_places_it(key: bytes, hashed: int) -> None:
    for partitions in (1, 2, 12, 10_000):
        expected = (hashed & 0x7FFFFFFF) % partitions
        assert partition_of(key, partitions) == expected
        assert partitions_of([key, *KAFKAS], partitions).tolist()[0] == expected


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 10_000))
def test_keys_together_are_placed_as_each_alone(keys: list[bytes], partitions: int) -> None:
    expected = [partition_of(key, partitions) for key in keys]
    assert partitions_of(keys, partitions).tolist() == expected


# -- what is refused -------------------------------------------------------------------------------


class Known:
    """Users of a partition, in the order of their slots."""

    def __init__(self, *users: str) -> None:
        self.users = list(users)

    def find(self, users: Any) -> Ints:
        return np.array([self.users.index(u) if u in self.users else -1 for u in users])


def here_and_elsewhere(partitions: int = 12, number: int = 0) -> tuple[str, str]:
    """A user who belongs into a partition, and one who does not."""
    names = [f"u{i}" for i in range(1_000)]
    return (
        next(name for name in names if partition_of(name.encode(), partitions) == number),
        next(name for name in names if partition_of(name.encode(), partitions) != number),
    )


def checked(values: list[bytes], known: Known, policy: Any = "refuse") -> Any:
    block = DECODER.decode(
        [FakeMessage(v, timestamp_ms=START_MS, place=i) for i, v in enumerate(values)]
    )
    Placement(12, policy).check(block, [Span(known, 0, "clickstream", 0, len(values))])
    return block


def noticed() -> float:
    labels = {"topic": "clickstream"}
    return REGISTRY.get_sample_value("segstream_misplaced_events_total", labels) or 0.0


def test_a_stranger_from_another_partition_is_refused_and_the_remedy_named() -> None:
    ours, theirs = here_and_elsewhere()
    before = noticed()
    block = checked([encoded(userId=ours), encoded(userId=theirs)], Known())
    batch = block.batch(0, 0, 2)
    assert batch.users == [ours]
    assert (batch.counts.applied, batch.counts.rejected) == (1, 1)
    (reject,) = batch.rejects
    assert reject.reason is Reason.MISPLACED
    belongs = partition_of(theirs.encode(), 12)
    assert f"belongs in {belongs} of 12" in reject.detail
    assert "partitioner=murmur2_random" in reject.detail
    assert "segstream rekey" in reject.detail
    assert noticed() == before + 1


@given(st.lists(st.sampled_from([f"u{i}" for i in range(20)]), min_size=1, max_size=30), st.data())
def test_users_have_the_slots_they_would_have_had_without_a_look(
    users: list[str], data: st.DataObject
) -> None:
    known = data.draw(st.lists(st.sampled_from(users), unique=True))
    values = [encoded(userId=user) for user in users]
    cut = data.draw(st.integers(0, len(users)))

    def columns(*, looked_at: bool) -> list[int]:
        partition = Partition(0, TABLE, PublishRule(0.1, 3, 0), Position([0, 0], TABLE.schema), 0)
        partition.slots(known)
        block = DECODER.decode(
            [FakeMessage(v, timestamp_ms=START_MS, place=i) for i, v in enumerate(values)]
        )
        if looked_at:
            span = Span(partition, 0, "clickstream", 0, len(values))
            Placement(1, "refuse").check(block, [span])
        batches = [block.batch(0, a, b) for a, b in ((0, cut), (cut, len(values))) if a < b]
        return [slot for one in batches for slot in one.columns(partition).slot.tolist()]

    assert columns(looked_at=True) == columns(looked_at=False)


def test_librdkafkas_own_partitioner_is_named_where_it_fits() -> None:
    names = [f"u{i}" for i in range(1_000)]
    by_crc = next(n for n in names if crc32(n.encode()) % 12 == 0 != partition_of(n.encode(), 12))
    by_chance = next(n for n in names if crc32(n.encode()) % 12 and partition_of(n.encode(), 12))
    details = [checked([encoded(userId=n)], Known()).rejects[0].detail for n in (by_crc, by_chance)]
    assert ["crc32" in detail for detail in details] == [True, False]


def test_whoever_is_known_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    _, theirs = here_and_elsewhere()
    asked: list[bytes] = []
    monkeypatch.setattr("consumers.placement.partitions_of", asked.extend)
    block = checked([encoded(userId=theirs)], Known(theirs))
    assert block.batch(0, 0, 1).counts.applied == 1
    assert not asked


def test_what_counts_for_nobody_is_not_looked_at() -> None:
    _, theirs = here_and_elsewhere()
    values = [
        encoded(userId=theirs, event="Page Scrolled"),
        encoded(userId=theirs, time_ms=START_MS - 400 * DAY_MS),
        encoded(userId=""),
        b"hello",
        mark_value(START_MS),
        b'{"type": "identify", "userId": "x"}',
    ]
    before = noticed()
    counts = checked(values, Known()).batch(0, 0, len(values)).counts
    assert (counts.ignored, counts.late, counts.rejected) == (3, 1, 2)
    assert noticed() == before


def test_whom_a_message_is_counted_for_is_what_counts() -> None:
    ours, theirs = here_and_elsewhere()
    values = [
        encoded(userId=None, anonymousId=ours),
        encoded(userId=None, anonymousId=theirs),
        encoded(userId=ours, anonymousId=theirs),
    ]
    block = checked(values, Known())
    assert block.batch(0, 0, 3).users == [ours, ours]


def test_one_who_is_brought_back_from_the_future_is_refused_and_not_clamped() -> None:
    _, theirs = here_and_elsewhere()
    counts = (
        checked([encoded(userId=theirs, time_ms=START_MS + DAY_MS)], Known()).batch(0, 0, 1).counts
    )
    assert (counts.applied, counts.rejected, counts.clamped) == (0, 1, 0)


def test_accepted_they_are_only_counted() -> None:
    ours, theirs = here_and_elsewhere()
    before = noticed()
    block = checked([encoded(userId=ours), encoded(userId=theirs)], Known(), "accept")
    assert block.batch(0, 0, 2).users == [ours, theirs]
    assert noticed() == before + 1


@given(st.text("abcdefgh", min_size=1, max_size=8), st.integers(0, 11))
def test_the_oracle_refuses_alike(user: str, number: int) -> None:
    raw = encoded(userId=user, event=VIEW)
    block = DECODER.decode([FakeMessage(raw, timestamp_ms=START_MS, place=0)])
    Placement(12, "refuse").check(block, [Span(Known(), number, "clickstream", 0, 1)])
    judge = Judge(DEFAULT_FEATURES, Worker(), partitions=12)
    outcome = judge.judge(Message(raw, START_MS, 0, ("clickstream", number)))
    assert (outcome.fate is Fate.REJECTED) == bool(block.rejects)
    assert outcome.reason == next((r.reason for r in block.rejects.values()), None)
    careless = Judge(DEFAULT_FEATURES, Worker(misplaced="accept"), partitions=12)
    assert careless.judge(Message(raw, START_MS, 0, ("clickstream", number))).event is not None


# -- at work ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["live", "watermark"])
def test_a_producer_with_another_partitioner_makes_nobody_live_twice(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    clock = {"mode": mode, "idle_seconds": 0.5}
    scene = Scene(
        monkeypatch, mode=mode, clock=clock, worker={"misplaced": "refuse", "reject_ratio_limit": 1}
    )
    log = []
    for time_ms, topic, _, raw in events(3):
        user = Decoder(TABLE, Worker(decoder="plain")).decode([FakeMessage(raw)]).users[0]
        place = partition_of if topic == INPUTS[0] else (lambda key, n: crc32(key) % n)
        log.append((time_ms, topic, place(user.encode(), PARTITIONS), raw))
    write(scene, log)
    scene.run(idle=300)
    homes = Counter(user for n in range(PARTITIONS) for user in scene.rows(n))
    assert set(homes.values()) == {1}
    assert all(
        partition_of(user, PARTITIONS) == n for n in range(PARTITIONS) for user in scene.rows(n)
    )
    refused = Counter(one.reason for one in scene.letters.filed)
    assert refused[Reason.MISPLACED] > 20
    assert sum(scene.position(n).counts.rejected for n in range(PARTITIONS)) == refused.total()
    ids = [change["id"] for n in range(PARTITIONS) for change in scene.changes(n)]
    assert len(set(ids)) == len(ids) > 0
