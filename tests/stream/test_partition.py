"""An owner may crash at any point, and load its users in any order: nothing differs."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.acting import Acting, act_together
from stream.clustering import ALL_HASHES, FeatureMap, on_grid
from stream.config import Learning
from stream.delivered import Delivered
from stream.events import NO_EVENTS, SEGMENT_CHANGE, Cause, Counts, EventColumns
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.hashing import change_identity, hash_text, user_hashes
from stream.kinds import DEFAULT_KINDS
from stream.learning.rounds import learn
from stream.learning.state import TrainerState
from stream.learning.statistics import PartitionStatistics
from stream.limits import Limits
from stream.memory import Memory
from stream.model import Model, Segment
from stream.oracle import Event
from stream.partition import Partition, SchemaMismatchError
from stream.recording import CHANGES_PER_ENTRY
from stream.segments import PublishRule
from stream.store.memory import MemoryStore
from stream.store.state import Answer, Commit, Position
from stream.sweeps import SampleRequest
from stream.units import DAY_MS, iso
from tests.strategies import (
    CART,
    ORDER,
    REFUND,
    START_MS,
    VIEW,
    columns,
    feature,
    of_everyone,
    with_only,
)

TABLE = FeatureTable(DEFAULT_FEATURES)
RULE = PublishRule(margin=0.2, provisional_looks=3, dwell_ms=0)
EVERYONE = SampleRequest(4_096)
LEARNING = Learning(segments=4, starts=2, first_model_users=20, identity_overlap=0.8)
USERS = 60


def partition_at(position: Position | None = None, table: FeatureTable = TABLE) -> Partition:
    return Partition(0, table, RULE, position or Position([0, 0], table.schema), 0)


def batch(
    partition: Partition, events: Sequence[Event], table: FeatureTable = TABLE
) -> EventColumns:
    """Events as the fold takes them, with the partition's slots."""
    if not events:
        return NO_EVENTS
    users = [event.user for event in events]
    return columns(table, dict(zip(users, partition.slots(users).tolist(), strict=True)), events)


def act(partition: Partition, events: EventColumns, now_ms: int, origin_ms: int) -> int:
    """Users of one partition act; the number of duplicates."""
    (duplicates,) = act_together([Acting(partition, events, origin_ms)], now_ms)
    return duplicates


def event(user: str, name: str, time_ms: int, number: int, value: float = 20.0) -> Event:
    topic = int(name in {ORDER, REFUND})
    category = hash_text(b"category %d" % (number % 7))
    identity, week = hash_text(b"m%d" % number), 7 * DAY_MS
    recorded_ms = time_ms // week * week  # what is said again comes while it is remembered
    return Event(
        user, topic, name, time_ms, identity, value, 1.0, category, recorded_ms=recorded_ms
    )


# -- a history -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """What an owner does in one commit."""

    now_ms: int
    events: tuple[Event, ...] = ()
    sweep: bool = False
    adopt: int | None = None


@lru_cache(maxsize=1)
def history() -> tuple[Step, ...]:
    """Months of a small shop: habits, bursts, silences, repeats; and two models on the way."""
    rng = np.random.default_rng(11)
    habit = rng.choice([1.0, 4.0, 15.0, 90.0], USERS)
    steps: list[Step] = []
    number, now = 0, START_MS
    for week in range(16):
        events: list[Event] = []
        for user in np.flatnonzero(rng.random(USERS) < np.minimum(7.0 / habit, 1.0)).tolist():
            if week > 8 and user % 3 == 0:
                continue  # a third falls silent
            for _ in range(int(rng.integers(1, 5))):
                name = str(
                    rng.choice([VIEW, VIEW, CART, ORDER, REFUND], p=[0.3, 0.2, 0.2, 0.25, 0.05])
                )
                when = now + int(rng.integers(0, 7 * DAY_MS))
                value = float(rng.integers(5, 200))
                events.append(event(f"user {user}", name, when, number, value))
                number += rng.random() < 0.95  # now and then the same message again
        events.sort(key=lambda one: one.time_ms)
        half = len(events) // 2
        now += 7 * DAY_MS
        middle = max((one.time_ms for one in events[:half]), default=now)
        steps.append(Step(middle, tuple(events[:half])))
        steps.append(Step(now, tuple(events[half:]), sweep=True))
        if week in {3, 10}:
            steps.append(Step(now, adopt=len([s for s in steps if s.adopt is not None])))
    return tuple(steps)


@lru_cache(maxsize=1)
def models() -> tuple[Model, ...]:
    """What a trainer makes of the history when each of its models is due."""
    state, found, partition = TrainerState(), [], partition_at()
    for step in history():
        if step.adopt is None:
            partition.fold(batch(partition, step.events))
            continue
        part = partition.sweep(step.now_ms, 0, sample=EVERYONE)
        state = learn(state, [part], step.now_ms, TABLE, LEARNING, DEFAULT_KINDS)
        assert state.model is not None
        found.append(state.model)
    return tuple(found)


@dataclass
class Owner:
    """Takes a partition over, and plays the history from where the store says.

    Attributes:
        crashes: what happens at a step, once: "before" its commit, or "after" it was applied.
        shuffle: seed of the order in which users are loaded.
    """

    crashes: dict[int, str] = field(default_factory=dict)
    shuffle: int | None = None
    store: MemoryStore = field(default_factory=MemoryStore)

    def play(self, steps: Sequence[Step] | None = None) -> Owner:
        steps = history() if steps is None else steps
        self.store.create(0, "", Position([0, 0], TABLE.schema))
        self.take_over()
        while (index := self.partition.position.offsets[0]) < len(steps):
            commit = self.prepare(index, steps[index])
            crash = self.crashes.pop(index, None)
            if crash == "before":
                self.take_over()
                continue
            assert self.store.commit(0, self.token, commit) is Answer.OK
            if crash == "after":
                self.take_over()
            else:
                self.partition.committed(commit)
        return self

    def take_over(self) -> None:
        self.token = f"token {len(self.crashes)} {id(self)}"
        found = self.store.acquire(0, self.token)
        assert found is not None
        sequence, position = found
        self.partition = Partition(0, TABLE, RULE, position, sequence)
        stored = list(self.store.load(0))
        if self.shuffle is not None:
            order = np.random.default_rng(self.shuffle).permutation(len(stored))
            stored = [stored[place] for place in order]
        self.partition.load(stored)
        self.partition.past.load_ids(self.store.load_ids(0))
        self.partition.past.load_words(self.store.load_words(0))
        orders = self.store.load_orders(0)
        while self.partition.past.load_some_orders(orders):
            pass
        assert self.partition.past.missing() == ""
        known = {model.name: model for model in models()}
        self.partition.model = known.get(position.model)

    def prepare(self, index: int, step: Step) -> Commit:
        partition, statistics = self.partition, None
        counts = Counts(applied=len(step.events))
        events = batch(partition, step.events)
        if step.adopt is not None:
            partition.adopt(models()[step.adopt], step.now_ms, step.now_ms)
            duplicates = 0
        elif step.sweep:
            touched, duplicates = partition.fold(events)
            statistics = partition.sweep(step.now_ms, step.now_ms, acted=touched, sample=EVERYONE)
        else:
            duplicates = act(partition, events, step.now_ms, step.now_ms)
        counts.applied -= duplicates
        counts.duplicate += duplicates
        return partition.commit([index + 1, 0], counts, step.now_ms, statistics=statistics)

    # -- what came of it --

    @property
    def rows(self) -> dict[bytes, bytes]:
        return dict(self.store.load(0))

    def changes(self) -> list[list[bytes]]:
        """Change records of each commit that had any, in no order within it."""
        found: dict[str, list[bytes]] = defaultdict(list)
        for entry in self.store.outbox({0: "0-0"}, 10**6, 0.0).get(0, []):
            found[entry.id.split("-")[0]].extend(entry.changes)
        return [sorted(changes) for changes in found.values()]

    def records(self) -> list[dict[str, Any]]:
        return [
            json.loads(change)
            for entry in self.store.outbox({0: "0-0"}, 10**6, 0.0).get(0, [])
            for change in entry.changes
        ]


def comparable(raw: bytes | None) -> tuple[Any, ...]:
    """Statistics without the order in which the sample stands."""
    assert raw is not None
    part = PartitionStatistics.unpack(raw)
    hashes = np.frombuffer(part.sample_hashes or b"", np.uint64)
    vectors = np.frombuffer(part.sample_vectors).reshape(len(hashes), -1)
    order = np.argsort(hashes)
    return (
        part.at_ms, part.model, part.users, part.counts, part.sums, part.inertia, part.sizes,
        hashes[order].tobytes(), vectors[order].tobytes(),
    )  # fmt: skip


@lru_cache(maxsize=1)
def steady() -> Owner:
    """The history without a crash."""
    return Owner().play()


def assert_as_steady(owner: Owner) -> None:
    assert owner.rows == steady().rows
    assert owner.changes() == steady().changes()
    assert owner.store.position(0) == steady().store.position(0)
    [one], [other] = owner.store.statistics([0]), steady().store.statistics([0])
    assert comparable(one) == comparable(other)


# -- crashes and orders --------------------------------------------------------------------------

_STEPS = st.integers(0, 33)


@given(
    st.dictionaries(_STEPS, st.sampled_from(["before", "after"]), max_size=6),
    st.none() | st.integers(0, 1_000),
)
@settings(max_examples=8, deadline=None)
def test_a_crash_at_any_point_changes_nothing(crashes: dict[int, str], shuffle: int | None) -> None:
    assert_as_steady(Owner(crashes, shuffle).play())


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_every_point_changes_nothing(when: str) -> None:
    owner = Owner(dict.fromkeys(range(len(history())), when), shuffle=7).play()
    assert not owner.crashes
    assert_as_steady(owner)


def test_the_history_is_worth_it() -> None:
    records = steady().records()
    causes = Counter(record["cause"] for record in records)
    assert causes[Cause.USER_MOVED] > 20
    assert causes[Cause.TIME_PASSED] > 10
    assert causes[Cause.MODEL_MOVED] > USERS / 2
    assert len(models()) == 2
    position = steady().store.position(0)
    assert position is not None
    assert position.counts.duplicate > 5


def test_statistics_are_equal_after_a_reload_in_another_order() -> None:
    now = history()[-1].now_ms + 30 * DAY_MS
    found = []
    for shuffle in (None, 1, 2):
        owner = Owner(shuffle=shuffle, store=steady().store)
        owner.take_over()
        part = owner.partition.sweep(now, now, sample=EVERYONE)
        found.append(comparable(part.pack()))
        changes = sorted(owner.partition.commit([0, 0], Counts(), now).outbox[0].changes)
        found.append((changes,))
    assert found[0::2] == [found[0]] * 3
    assert found[1::2] == [found[1]] * 3
    assert found[1][0]


def test_a_silent_user_moves_without_an_event() -> None:
    owner = Owner(store=steady().store)
    owner.take_over()
    now = history()[-1].now_ms + 400 * DAY_MS
    owner.partition.sweep(now, now)
    owner.partition.sweep(now, now)
    commit = owner.partition.commit([0, 0], Counts(), now)
    moved = [json.loads(change) for entry in commit.outbox for change in entry.changes]
    assert moved
    assert {record["cause"] for record in moved} <= {Cause.TIME_PASSED, Cause.MODEL_MOVED}
    assert Cause.TIME_PASSED in {record["cause"] for record in moved}


# -- what was delivered is true ------------------------------------------------------------------


def moves_of(partition: Partition, now_ms: int) -> dict[str, list[int]]:
    """Versions of the changes of a sweep, by user."""
    partition.sweep(now_ms, now_ms)
    commit = partition.commit([0, 0], Counts(), now_ms)
    partition.committed(commit)
    found: dict[str, list[int]] = {}
    for entry in commit.outbox:
        for change in map(json.loads, entry.changes):
            found.setdefault(change["user"], []).append(change["version"])
    return found


def two_copies() -> tuple[Partition, Partition, int, list[str]]:
    """The same partition twice, a time at which many fall silent, and who then moves."""
    copies = []
    for _ in range(3):
        owner = Owner(store=steady().store)
        owner.take_over()
        copies.append(owner.partition)
    silent = history()[-1].now_ms + 400 * DAY_MS
    movers = sorted(moves_of(copies.pop(), silent))
    assert len(movers) > 5
    return copies[0], copies[1], silent, movers


def test_who_was_told_to_move_later_moves_at_that_time_and_not_before() -> None:
    partition, other, silent, movers = two_copies()
    later = silent + 7 * DAY_MS
    row = partition.rows[partition.slots([movers[0]])[0]]
    elsewhere = next(s.id for s in models()[-1].segments if s.id != row["segment"])
    version = int(row["version"])
    told = Delivered(movers[0], 1, version + 3, int(row["segment"]), elsewhere, later, "loyal")
    assert partition.take_delivered([told], in_time=True) == 1
    assert movers[0] in moves_of(other, silent)
    moved = moves_of(partition, silent)
    assert movers[0] not in moved, "what was told of them lies ahead"
    assert sorted(moved) == movers[1:], "and of nobody else"
    partition.knows_output(9)
    assert partition.commit([0, 0], Counts(), silent).position.known_to == 0

    assert movers[0] not in moves_of(partition, later)
    row = partition.rows[partition.slots([movers[0]])[0]]
    assert (row["version"], row["segment"], row["since"]) == (version + 3, elsewhere, later)

    after = moves_of(partition, later + DAY_MS)
    assert after.get(movers[0], [version + 4]) == [version + 4]
    partition.knows_output(9)
    assert partition.commit([0, 0], Counts(), later).position.known_to == 9


def test_what_a_row_knows_already_is_not_told_again() -> None:
    partition, _, silent, movers = two_copies()
    row = partition.rows[partition.slots([movers[0]])[0]]
    known = Delivered(movers[0], 1, int(row["version"]), 0, int(row["segment"]), silent, "loyal")
    for in_time in (False, True):
        assert partition.take_delivered([known], in_time=in_time) == 0
    assert not partition.uncommitted
    assert movers[0] in moves_of(partition, silent)


# -- records -------------------------------------------------------------------------------------


def test_every_record_is_a_segment_change() -> None:
    for changes in steady().changes():
        for change in changes:
            record = SEGMENT_CHANGE.validate_json(change, strict=False)
            assert set(record) == set(json.loads(change))


def test_each_users_changes_are_an_unbroken_chain() -> None:
    records = steady().records()
    assert len({record["id"] for record in records}) == len(records)
    last: dict[str, dict[str, Any]] = {}
    for record in records:
        before = last.get(record["user"])
        if before is None:
            assert (record["from"], record["version"]) == (None, 1)
            assert (record["margin"], record["why"]) == (None, [])
        else:
            assert record["from"] == before["to"]
            assert record["version"] == before["version"] + 1
            assert record["name_from"]
            assert record["kind_from"] == before["kind_to"]
            turned = record["cause"] == Cause.SEGMENT_TURNED
            assert (record["from"] == record["to"]) == turned
            assert not turned or record["kind_from"] != record["kind_to"]
        last[record["user"]] = record
    rows = np.frombuffer(b"".join(steady().rows.values()), TABLE.dtype)
    for user, row in zip(steady().rows, rows, strict=True):
        assert row["segment"] == last[user.decode()]["to"]
        assert row["version"] == last[user.decode()]["version"]


def test_a_record_says_who_when_and_by_which_model() -> None:
    known = {segment.id: segment for model in models() for segment in model.by_id.values()}
    for record in steady().records():
        identity, incarnation, version = record["id"].split("-")
        assert identity == change_identity(record["user"].encode(), b"")
        assert (int(incarnation), int(version)) == (1, record["version"])
        assert record["model"] in {model.name for model in models()}
        assert record["kind_to"] in {rule.kind for rule in DEFAULT_KINDS} | {"occasional"}
        assert record["to"] in known
        assert record["at"] in {iso(step.now_ms) for step in history()}
        assert record["last_event_at"] <= iso(history()[-1].now_ms)
        assert record["cause"] in set(Cause)


def test_a_record_explains_the_move_by_its_largest_contributions() -> None:
    explained = [record for record in steady().records() if record["why"]]
    assert len(explained) > 20
    for record in explained:
        parts = [why["contribution"] for why in record["why"]]
        assert len(parts) == 3
        assert parts == sorted(parts, reverse=True)
        assert {why["feature"] for why in record["why"]} <= set(TABLE.names)
        if record["margin"] is not None:
            assert record["margin"] > 0
            assert parts[0] > 0
            assert sum(parts) + record["rest"] == pytest.approx(record["margin"], rel=1e-12)
    assert all(r["rest"] is None for r in steady().records() if not r["why"])


def test_another_incarnation_gives_other_ids() -> None:
    def ids(incarnation: int) -> set[str]:
        partition = partition_at(Position([0, 0], TABLE.schema, incarnation))
        partition.model = models()[0]
        act(partition, batch(partition, history()[1].events), history()[1].now_ms, 0)
        commit = partition.commit([1, 0], Counts(), history()[1].now_ms)
        return {json.loads(c)["id"] for entry in commit.outbox for c in entry.changes}

    assert len(ids(1)) == len(ids(2)) > 5
    assert not ids(1) & ids(2)


# -- within a batch ------------------------------------------------------------------------------

NET = FeatureTable(
    [feature("net", "sum", on=(ORDER,), minus=(REFUND,), of="value", half_life="9d")]
)


def rich_and_poor() -> Model:
    """Nothing spent is at -3, and a thousand at +3."""
    spent = np.log1p(1_000.0)
    feature_map = FeatureMap(
        np.zeros(1), np.array([spent]), np.array([spent / 2]), np.array([spent / 6]), np.ones(1)
    )
    segments = (Segment(1, "poor", "new", 0, "1.0"), Segment(2, "rich", "loyal", 0, "1.0"))
    centroids = on_grid(np.array([[-3.0], [3.0]]))
    return of_everyone(1, 0, START_MS, NET.schema, feature_map, centroids, segments)


def spends(number: int, name: str) -> Event:
    return event("ann", name, START_MS, number, 1_000.0)


def settled() -> Partition:
    """Ann has bought nothing that counts, and is known to be poor."""
    partition = partition_at(table=NET)
    partition.model = rich_and_poor()
    first = [event("ann", ORDER, START_MS, 0, 0.0)]
    act(partition, batch(partition, first, NET), START_MS, 1)
    commit = partition.commit([1, 0], Counts(), START_MS)
    assert [json.loads(c)["to"] for entry in commit.outbox for c in entry.changes] == [1]
    partition.committed(commit)
    return partition


def test_who_leaves_and_returns_within_a_batch_has_not_moved() -> None:
    partition = settled()
    there_and_back = [spends(1, ORDER), spends(2, REFUND)]
    act(partition, batch(partition, there_and_back, NET), START_MS, 1)
    assert partition.commit([2, 0], Counts(), START_MS).outbox == []


def test_who_is_looked_at_in_between_has_moved_twice() -> None:
    partition = settled()
    for one in (spends(1, ORDER), spends(2, REFUND)):
        act(partition, batch(partition, [one], NET), START_MS, 1)
    [entry] = partition.commit([2, 0], Counts(), START_MS).outbox
    records = [json.loads(change) for change in entry.changes]
    assert [(r["from"], r["to"], r["version"]) for r in records] == [(1, 2, 2), (2, 1, 3)]
    assert [r["margin"] for r in records] == [pytest.approx(0.5)] * 2


# -- users ---------------------------------------------------------------------------------------


def test_many_users_come_in_pieces_and_leave_in_entries() -> None:
    partition = partition_at()
    partition.model = models()[0]
    for start in range(0, 2_500, 500):
        events = [event(f"u{i}", ORDER, START_MS, i) for i in range(start, start + 500)]
        act(partition, batch(partition, events), START_MS, START_MS + start)
    assert len(partition) == 2_500
    commit = partition.commit([1, 0], Counts(), START_MS)
    sizes = [len(entry.changes) for entry in commit.outbox]
    assert sizes == [CHANGES_PER_ENTRY, CHANGES_PER_ENTRY, 500]
    assert {entry.origin_ms for entry in commit.outbox} == {START_MS}
    assert len(commit.users) == 2_500
    assert len(commit.rows) == 2_500 * TABLE.dtype.itemsize
    records = [json.loads(change) for entry in commit.outbox for change in entry.changes]
    assert {r["user"]: int(r["id"].split("-")[0], 16) for r in records} == {
        f"u{i}": int(change_identity(b"u%d" % i, b""), 16) for i in range(2_500)
    }


def test_only_what_changed_is_written() -> None:
    partition = partition_at()
    uncommitted = [partition.uncommitted]
    events = [event(f"u{i}", ORDER, START_MS, i) for i in range(10)]
    act(partition, batch(partition, events), START_MS, 1)
    uncommitted.append(partition.uncommitted)
    partition.committed(partition.commit([1, 0], Counts(), START_MS))
    uncommitted.append(partition.uncommitted)
    assert uncommitted == [False, True, False]
    act(partition, batch(partition, [event("u3", VIEW, START_MS + 1, 99)]), START_MS + 1, 1)
    commit = partition.commit([2, 0], Counts(), START_MS + 1)
    assert commit.users == [b"u3"]
    # A commit that was not applied is made again from the same, and more.
    act(partition, batch(partition, [event("u5", VIEW, START_MS + 2, 98)]), START_MS + 2, 1)
    assert partition.commit([3, 0], Counts(), START_MS + 2).users == [b"u3", b"u5"]
    assert partition.commit([3, 0], Counts(), START_MS + 2).sequence == 1


def test_counts_and_marks_of_a_position_carry_on_and_its_clock_does_not_turn_back() -> None:
    partition = partition_at()
    counts = Counts(applied=3, late=1)
    partition.committed(partition.commit([1, 2], counts, 50, mark_ms=40))
    partition.committed(partition.commit([2, 2], counts, 45, round_ms=40))
    told = Position([2, 2], TABLE.schema, 1, 50, 40, 40, "", Counts(applied=6, late=2))
    told.remember, told.clocks, told.ids, told.orders = Limits().told, [0, 0], [[], []], [[], []]
    assert partition.position == told
    assert counts == Counts(applied=3, late=1)
    assert partition.sequence == 2


def test_a_page_of_the_store_that_comes_twice_is_loaded_once() -> None:
    stored = list(steady().rows.items())
    partition = partition_at()
    partition.load([*stored[:40], *stored[20:], *stored[:5]])
    assert len(partition) == len(stored)
    once = partition_at()
    once.load(stored)
    parts = [p.sweep(START_MS, 0, sample=EVERYONE).pack() for p in (partition, once)]
    assert parts[0] == parts[1]
    assert not partition.uncommitted


def test_nobody_to_load_is_no_trouble() -> None:
    partition = partition_at()
    partition.load([])
    assert len(partition) == 0
    part = partition.sweep(START_MS, 0, sample=EVERYONE)
    assert (part.users, part.counts, part.sample_hashes) == (0, [], b"")


def test_rows_of_another_table_or_format_are_not_read() -> None:
    with pytest.raises(SchemaMismatchError, match=r"another store\.namespace .* replay the log"):
        partition_at(Position([0, 0], "another"))
    old = TABLE.blank(1)
    old["format"] = 99
    with pytest.raises(SchemaMismatchError, match="another format"):
        partition_at().load([(b"ann", old.tobytes())])
    whole = TABLE.blank(1).tobytes()
    for cut in ([b"short"], [whole[:-1], whole + b"x"]):
        with pytest.raises(SchemaMismatchError, match="another format"):
            partition_at().load([(b"%d" % number, row) for number, row in enumerate(cut)])


@given(st.integers(1, 80), st.integers(0, ALL_HASHES))
@settings(max_examples=30, deadline=None)
def test_the_sample_is_the_smallest_hashes_up_to_the_threshold(size: int, limit: int) -> None:
    partition = partition_at()
    partition.load(steady().rows.items())
    part = partition.sweep(START_MS, 0, sample=SampleRequest(size, {"everyone": limit}))
    hashes = sorted(h for h in user_hashes(list(steady().rows), b"").tolist() if h <= limit)[:size]
    assert sorted(np.frombuffer(part.sample_hashes or b"", np.uint64).tolist()) == hashes
    assert len(part.sample_vectors) == len(hashes) * len(TABLE.names) * 8
    unasked = partition.sweep(START_MS, 0)
    assert unasked.sample_hashes is None


def test_a_model_is_put_in_force_with_a_look_at_everyone() -> None:
    partition = partition_at()
    partition.fold(batch(partition, [one for step in history()[:6] for one in step.events]))
    assert partition.commit([0, 0], Counts(), START_MS).outbox == []
    partition.adopt(models()[0], START_MS, 5)
    assert partition.model is models()[0]
    commit = partition.commit([1, 0], Counts(), START_MS)
    assert commit.position.model == models()[0].name
    records = [json.loads(change) for entry in commit.outbox for change in entry.changes]
    assert len(records) == len(partition)
    assert {record["cause"] for record in records} == {Cause.MODEL_MOVED}
    renamed = replace(models()[0], version=1)
    partition.committed(commit)
    partition.adopt(renamed, START_MS, 5)
    assert partition.commit([1, 0], Counts(), START_MS).outbox == [], "the same place, no move"


# -- some at a time ------------------------------------------------------------------------------


def loaded(number: int = 0, memory: Memory | None = None) -> Partition:
    """Everyone of the history, under its last model, at its end."""
    owner = Owner(store=steady().store)
    owner.take_over()
    position, sequence = owner.partition.position, owner.partition.sequence
    partition = Partition(number, TABLE, RULE, position, sequence, memory=memory)
    partition.load(owner.store.load(0))
    partition.model = owner.partition.model
    return partition


def told(partition: Partition) -> list[dict[str, Any]]:
    commit = partition.commit([0, 0], Counts(), 0)
    return [json.loads(change) for entry in commit.outbox for change in entry.changes]


@given(st.lists(st.integers(1, USERS), max_size=8))
@settings(max_examples=20, deadline=None)
def test_a_sweep_in_slices_is_a_sweep(slices: list[int]) -> None:
    now = history()[-1].now_ms + 90 * DAY_MS
    whole, sliced = loaded(), loaded()
    expected = whole.sweep(now, now, sample=EVERYONE)
    sliced.begin_sweep(EVERYONE)
    found = None
    for users in slices:
        if found is None:
            found = sliced.sweep_on(users, now, now)
    if found is None:
        assert sliced.sweeping == len(sliced)
        found = sliced.sweep_on(USERS, now, now)
    assert found is not None
    assert sliced.sweeping is None
    assert found.pack() == expected.pack()
    assert told(sliced) == told(whole)
    assert told(whole)


def test_who_takes_over_in_the_middle_of_an_adoption_begins_it_anew() -> None:
    partition = partition_at()
    partition.fold(batch(partition, [one for step in history()[:6] for one in step.events]))
    partition.begin_adoption(models()[0])
    partition.sweep_on(10, START_MS, START_MS)
    assert partition.adopting
    halfway = partition.commit([0, 0], Counts(), START_MS)
    assert len(halfway.outbox[0].changes) == 10
    assert halfway.position.model == ""
    partition.committed(halfway)
    assert partition.sweep_on(len(partition), START_MS, START_MS) is not None
    through = partition.commit([0, 0], Counts(), START_MS)
    assert len(through.outbox[0].changes) == len(partition) - 10
    assert through.position.model == models()[0].name


def rolled(model: Model) -> Model:
    """Each segment where another one was."""
    return with_only(replace(model, epoch=9), centroids=np.roll(model.centroids, 1, axis=0))


def test_who_acts_before_an_adoption_came_to_them_moves_by_the_model() -> None:
    now = history()[-1].now_ms
    expected, partition = loaded(), loaded()
    model = rolled(models()[1])
    events = [event(f"user {n}", VIEW, now, 10_000 + n) for n in range(0, USERS, 2)]
    expected.adopt(model, now, now)
    act(expected, batch(expected, events), now, now)
    partition.begin_adoption(model)
    partition.sweep_on(USERS // 3, now, now)
    act(partition, batch(partition, events), now, now)
    partition.sweep_on(USERS, now, now)
    by_model = [
        {(r["user"], r["to"]) for r in told(one) if r["cause"] == Cause.MODEL_MOVED}
        for one in (expected, partition)
    ]
    assert by_model[0]
    assert by_model[1] >= by_model[0], "a second look may move a few more"


def test_partitions_act_together_as_each_alone() -> None:
    now = history()[-1].now_ms
    moving = rolled(models()[1])
    others_rule = replace(moving, rule=PublishRule(margin=0.0, provisional_looks=0, dwell_ms=0))

    def begun(memory: Memory | None) -> list[Partition]:
        """Settled, two of a kind, one by another rule, one amid an adoption, one empty."""
        found = [loaded(number, memory) for number in range(5)]
        nothing = Position([0, 0], TABLE.schema)
        found.append(Partition(5, TABLE, RULE, nothing, 0, memory=memory))
        for partition, model in zip(found, (None, moving, moving, others_rule), strict=False):
            if model is not None:
                partition.adopt(model, now, now)
        found[4].begin_adoption(moving)
        found[4].sweep_on(USERS // 3, now, now)
        return found

    together, alone = begun(Memory()), begun(None)
    for step in range(6):
        batches = []
        for number in range(len(together)):
            some = range(number % 3, USERS + 20, 1 if step % 2 else 2 + number)
            events = [
                event(
                    f"user {n}",
                    (VIEW, ORDER)[n % 2],
                    now + step,
                    10_000 + n + step // 2 * USERS * 2,
                )
                for n in some
            ]
            batches.append(events if (step, number) != (2, 1) else [])
        acting = [
            Acting(partition, batch(partition, events), now + step)
            for partition, events in zip(together, batches, strict=True)
        ]
        found = act_together(acting, now + step)
        assert found == [
            act(partition, batch(partition, events), now + step, now + step)
            for partition, events in zip(alone, batches, strict=True)
        ]
        assert (sum(found) > 0) == bool(step % 2)
        for one, other in zip(together, alone, strict=True):
            committed = [p.commit([0, 0], Counts(), now + step) for p in (one, other)]
            assert committed[0].users == committed[1].users
            assert committed[0].rows == committed[1].rows
            assert committed[0].outbox == committed[1].outbox
            for partition, commit in zip((one, other), committed, strict=True):
                partition.committed(commit)
    assert all(
        one.position.flapping == other.position.flapping
        for one, other in zip(together, alone, strict=True)
    )


def test_who_is_known_by_the_shop_only_is_in_no_segment_until_they_act() -> None:
    partition, now = loaded(), history()[-1].now_ms
    act(partition, batch(partition, [event("ghost", REFUND, now, 90_000)]), now, now)
    partition.sweep(now + 1, now)
    partition.adopt(models()[0], now + 2, now)
    assert all(record["user"] != "ghost" for record in told(partition))
    slot = partition.names.index(b"ghost")
    assert partition.rows["segment"][slot] == partition.rows["seen"][slot] == 0
    others = np.arange(len(partition)) != slot
    assert (partition.rows["segment"][others] > 0).all()
    act(partition, batch(partition, [event("ghost", VIEW, now, 90_001)]), now + 3, now)
    (first,) = [record for record in told(partition) if record["user"] == "ghost"]
    assert (first["version"], first["from"]) == (1, None)


def test_a_refund_moves_by_its_money_and_revives_nobody() -> None:
    """Whom a refund carries over a border has moved; whom it does not stays silent."""
    partition, now = loaded(), history()[-1].now_ms + 100 * DAY_MS
    partition.sweep(now, now)
    partition.committed(partition.commit([0, 0], Counts(), now))
    seen = partition.rows["seen"].copy()
    backs = [event(f"user {n}", REFUND, now, 91_000 + n, 1.0) for n in range(USERS)]
    act(partition, batch(partition, backs), now, now)
    assert (partition.rows["seen"][: len(seen)] == seen).all()
    model = partition.model
    assert model is not None
    before = {segment.id: segment.kind for segment in model.segments}
    assert all(record["cause"] == Cause.USER_MOVED for record in told(partition))
    assert all(before[r["to"]] not in {"new", "browsing"} for r in told(partition))


def test_an_adoption_puts_an_end_to_a_sweep_under_way() -> None:
    partition = loaded()
    now = history()[-1].now_ms
    partition.begin_sweep(EVERYONE)
    assert partition.sweep_on(10, now, now) is None
    partition.begin_adoption(models()[0])
    assert partition.adopting
    part = partition.sweep_on(USERS, now, now)
    assert part is not None
    assert part.model == models()[0].name
    assert part.sample_hashes is None


def test_a_retirement_moves_everyone_in_the_segment_once() -> None:
    partition, now = loaded(), history()[-1].now_ms
    model = partition.model
    assert model is not None
    inside = Counter(partition.rows["segment"].tolist())
    gone, members = inside.most_common(1)[0]
    column = model.ids.tolist().index(gone)
    without = with_only(
        replace(model, epoch=model.epoch + 1, retired=(*model.retired, model.by_id[gone])),
        centroids=np.delete(model.centroids, column, axis=0),
        segments=tuple(s for s in model.segments if s.id != gone),
    )
    left = {
        name.decode()
        for name, segment in zip(partition.names, partition.rows["segment"].tolist(), strict=True)
        if segment == gone
    }
    partition.adopt(without, now, now)
    moved = [r for r in told(partition) if r["cause"] == Cause.SEGMENT_RETIRED]
    assert len(moved) == members > 5
    assert {r["user"] for r in moved} == left
    assert {r["from"] for r in moved} == {gone}
    partition.committed(partition.commit([0, 0], Counts(), now))
    for _ in range(2):
        partition.sweep(now, now)
    assert not left & {r["user"] for r in told(partition)}
