"""A round is a pure function; a trainer leads, is fenced, and tells every model it made."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.model_feed import ModelFeed
from stream import trainer as trainers
from stream.clustering import Statistics, distances
from stream.config import Learning, Settings
from stream.errors import BrokerUnavailableError
from stream.events import (
    LINEAGE_RECORD,
    PUBLISHED_MODEL,
    Floats,
    Hashes,
    Ints,
    LineageRecord,
)
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.kinds import DEFAULT_KINDS
from stream.learning.rounds import learn, rehearse_refit
from stream.learning.state import Learned, TrainerState
from stream.learning.statistics import PartitionStatistics, Sample
from stream.metrics import REGISTRY
from stream.populations import EVERYONE, Populations
from stream.scores.looks import Looks
from stream.store.memory import MemoryStore
from stream.store.state import Answer, Commit, Position
from stream.trainer import Announced, Trainer
from stream.tuning import Started
from tests.fakes import Clock
from tests.strategies import CART, feature

TABLE = FeatureTable(DEFAULT_FEATURES)
LEARNING = Learning(segments=4, starts=2, first_model_users=100, sample_users=300)
DAY_MS = 86_400_000
FEATURES = len(TABLE.names)
ALL = Populations.of((), TABLE.names)
COLUMN = {name: column for column, name in enumerate(TABLE.names)}


_SORTS: tuple[dict[str, float], ...] = (
    {"days_since_seen": 2, "days_since_order": 8, "tenure_days": 300, "orders_30d": 3,
     "orders_180d": 9, "revenue_30d": 120, "revenue_180d": 400, "basket_value": 40},
    {"days_since_seen": 1, "days_since_order": 5, "tenure_days": 8, "orders_30d": 1,
     "orders_180d": 1, "revenue_30d": 30, "revenue_180d": 30, "basket_value": 30},
    {"days_since_seen": 1, "days_since_order": 400, "tenure_days": 60, "views_7d": 30,
     "views_1d": 9, "sessions_7d": 5, "sessions_30d": 9, "categories_7d": 6},
    {"days_since_seen": 160, "days_since_order": 200, "tenure_days": 400,
     "orders_180d": 0.5, "revenue_180d": 15, "basket_value": 30},
)  # fmt: skip
"""Typical regulars, newcomers, window shoppers, and those who left."""


@dataclass(frozen=True)
class Shop:
    """Users as vectors in natural units, with the hashes of their names."""

    vectors: Floats
    hashes: Hashes

    def part(self, chosen: Any) -> Shop:
        return Shop(self.vectors[chosen], self.hashes[chosen])


def a_shop(users: int = 500, seed: int = 1) -> Shop:
    """Four sorts of shoppers: regulars, newcomers, window shoppers and those who left."""
    rng = np.random.default_rng(seed)
    sorts = np.zeros((4, FEATURES))
    for sort, values in enumerate(_SORTS):
        for name, value in values.items():
            sorts[sort, COLUMN[name]] = value
    vectors = sorts[rng.integers(0, 4, users)] * rng.lognormal(0, 0.2, (users, FEATURES))
    return Shop(vectors, rng.integers(1, 2**64 - 1, users, dtype=np.uint64))


def statistics_of(
    shop: Shop, state: TrainerState, at_ms: int, sample: bool | None = None
) -> PartitionStatistics:
    """What an owner of these users would send."""
    model = state.model
    due = sample is not False
    chosen = np.argsort(shop.hashes)[: LEARNING.sample_users] if due else np.empty(0, np.int64)
    part = PartitionStatistics(
        at_ms,
        "" if model is None else model.name,
        len(shop.hashes),
        sample_hashes=shop.hashes[chosen].tobytes() if due else None,
        sample_vectors=shop.vectors[chosen].tobytes(),
        schema=TABLE.schema,
    )
    if model is None or len(shop.hashes) == 0:
        return part
    mapped = model.parts[0].map.apply(shop.vectors)
    squared = distances(mapped, model.centroids, model.weights[0])
    nearest: Ints = squared.argmin(axis=1)
    merged = Statistics.of(mapped, squared, nearest)
    part.count(merged)
    return part


def parts_of(
    shop: Shop, state: TrainerState, at_ms: int, partitions: int = 1, **rest: Any
) -> list[PartitionStatistics]:
    owner = shop.hashes % np.uint64(partitions)
    return [statistics_of(shop.part(owner == p), state, at_ms, **rest) for p in range(partitions)]


def run(
    state: TrainerState,
    parts: Sequence[PartitionStatistics],
    round_ms: int,
    learning: Learning = LEARNING,
) -> TrainerState:
    return learn(state, parts, round_ms, TABLE, learning, DEFAULT_KINDS)


def first_state(shop: Shop, partitions: int = 1) -> TrainerState:
    return run(TrainerState(), parts_of(shop, TrainerState(), 1, partitions), 1)


# -- a round -------------------------------------------------------------------------------------


def test_a_round_gives_the_same_each_time_and_leaves_its_input_alone() -> None:
    shop, state = a_shop(), TrainerState()
    for round_ms in (1, 2, 70_000, 140_000):
        parts = parts_of(shop, state, round_ms)
        before = state.pack(TABLE), [part.pack() for part in parts]
        one, other = run(state, parts, round_ms), run(state, parts, round_ms)
        assert one.pack(TABLE) == other.pack(TABLE)
        assert (state.pack(TABLE), [part.pack() for part in parts]) == before
        state = one
    assert state.model is not None
    assert state.model.epoch == 3


@pytest.mark.parametrize("partitions", [2, 4, 7])
def test_many_partitions_teach_what_one_does(partitions: int) -> None:
    one = many = TrainerState()
    for step, round_ms in enumerate((1, 10_000, 20_000, 70_000, 80_000)):
        shop = a_shop(seed=step // 2)
        one = run(one, parts_of(shop, one, round_ms), round_ms)
        many = run(many, parts_of(shop, many, round_ms, partitions), round_ms)
        assert one.pack(TABLE) == many.pack(TABLE)
    assert one.model is not None
    assert one.model.epoch == 2


@given(st.permutations(range(5)))
@settings(max_examples=4, deadline=None)
def test_the_order_of_partitions_makes_no_difference(order: list[int]) -> None:
    shop = a_shop(300)
    first = first_state(shop)
    moved = a_shop(300, seed=9)
    for state, at_ms in ((TrainerState(), 1), (first, 100), (first, 90_000)):
        parts = parts_of(moved, state, at_ms, 5)
        shuffled = [parts[p] for p in order]
        assert run(state, parts, at_ms).pack(TABLE) == run(state, shuffled, at_ms).pack(TABLE)


def test_the_same_statistics_again_change_nothing_but_the_round() -> None:
    shop = a_shop()
    state = first_state(shop)
    state = run(state, parts_of(a_shop(seed=5), state, 100, 3), 100)
    parts = parts_of(a_shop(seed=5), state, 200, 3)
    once = run(state, parts, 200)
    again = run(run(once, parts, 200), parts, 300)
    assert replace(again, round_ms=200).pack(TABLE) == once.pack(TABLE)


def test_the_first_model_waits_for_enough_users() -> None:
    few, enough = a_shop(LEARNING.first_model_users - 1), a_shop(LEARNING.first_model_users)
    waiting = run(TrainerState(), parts_of(few, TrainerState(), 5), 5)
    users = len(few.hashes)
    assert waiting == TrainerState(
        round_ms=5, users=users, learned={EVERYONE: Learned(users=users)}
    )
    state = run(waiting, parts_of(enough, waiting, 6), 6)
    assert state.model is not None
    assert state.model.name == "1.0"
    assert state.model.ids.tolist() == [1, 2, 3, 4]
    assert [(e["event"], e["segment"]) for e in state.model.lineage] == [
        ("born", i) for i in (1, 2, 3, 4)
    ]
    assert state.next_id == 5
    assert sum(state.sizes) == len(enough.hashes)
    assert state.of(EVERYONE).refit_ms == 6


def test_nobody_at_all_teaches_nothing() -> None:
    empty = a_shop().part(slice(0, 0))
    found = run(TrainerState(), parts_of(empty, TrainerState(), 5), 5)
    assert found == TrainerState(round_ms=5, learned={EVERYONE: Learned()})


def test_a_first_model_sees_sorts_of_shoppers_and_names_their_kinds() -> None:
    model = first_state(a_shop(600)).model
    assert model is not None
    assert {segment.kind for segment in model.segments} == {
        "loyal", "new", "browsing", "dormant"
    }  # fmt: skip
    assert len({segment.name for segment in model.segments}) == 4
    assert model.silhouette is not None
    assert model.silhouette > 0.5


def test_fewer_sorts_than_segments_give_fewer_segments() -> None:
    shop = a_shop()
    twins = Shop(shop.vectors[np.arange(500) % 3], shop.hashes)
    model = first_state(twins).model
    assert model is not None
    assert len(model.segments) <= 3


def test_users_with_numbers_that_are_none_do_not_spoil_the_sample() -> None:
    shop = a_shop()
    vectors = shop.vectors.copy()
    vectors[::7, 3] = np.nan
    vectors[1::7, 4] = np.inf
    model = first_state(Shop(vectors, shop.hashes)).model
    assert model is not None
    assert np.isfinite(model.centroids).all()


# -- between refits ------------------------------------------------------------------------------


def shifted(shop: Shop, factor: float) -> Shop:
    """The same users, everyone seen and bought longer ago."""
    vectors = shop.vectors.copy()
    vectors[:, COLUMN["revenue_180d"]] *= factor
    return Shop(vectors, shop.hashes)


def test_a_model_that_hardly_moved_is_not_published_again() -> None:
    shop = a_shop()
    state = first_state(shop)
    after = run(state, parts_of(shifted(shop, 1.0001), state, 100, 3), 100)
    assert after.model is state.model
    assert after.round_ms == 100


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_model_that_moved_is_a_new_version_of_the_same_segments(partitions: int) -> None:
    shop = a_shop()
    state = first_state(shop)
    after = run(state, parts_of(shifted(shop, 3.0), state, 100, partitions), 100)
    assert state.model is not None
    assert after.model is not None
    assert after.model.name == "1.1"
    assert after.model.ids.tolist() == state.model.ids.tolist()
    assert [s.name for s in after.model.segments] == [s.name for s in state.model.segments]
    assert after.model.parts[0].map is state.model.parts[0].map
    assert after.model.lineage == ()
    moved = after.model.centroids - state.model.centroids
    shift = np.sqrt((state.model.weights[0] * moved**2).sum(axis=1)).max()
    assert shift > LEARNING.move_threshold
    lazy = LEARNING.model_copy(update={"move_threshold": float(shift)})
    assert run(state, parts_of(shifted(shop, 3.0), state, 100), 100, lazy).model is state.model


def test_partitions_without_users_do_not_hold_the_others_up() -> None:
    shop = a_shop()
    state = first_state(shop)
    nobody = shop.part(slice(0, 0))
    parts = [
        statistics_of(nobody, state, 100),
        statistics_of(shifted(shop, 3.0), state, 100),
        statistics_of(nobody, TrainerState(), 100),
    ]
    for part in parts:
        part.sample_hashes = None
    moved = run(state, parts, 100).model
    assert moved is not None
    assert moved.name == "1.1"


def test_statistics_of_an_earlier_epoch_are_not_mixed_in() -> None:
    shop = a_shop()
    old = first_state(shop)
    parts = parts_of(shop, old, 70_000, 2)
    state = run(old, parts, 70_000)
    assert state.model is not None
    assert state.model.epoch == 2
    late = [parts[0], *parts_of(shifted(shop, 3.0), state, 70_001, 2)[1:]]
    for part in late:
        part.sample_hashes = None
    after = run(state, late, 70_001)
    assert after.model is state.model
    assert after.sizes == state.sizes


# -- refits --------------------------------------------------------------------------------------


def test_refits_of_a_steady_shop_keep_every_id() -> None:
    state = first_state(a_shop(seed=0))
    assert state.model is not None
    names = {s.id: s.kind for s in state.model.segments}
    for step in range(1, 6):
        round_ms = 1 + step * 60_000
        state = run(state, parts_of(a_shop(seed=step), state, round_ms, 3), round_ms)
        assert state.model is not None
        assert state.model.name == f"{step + 1}.0"
        assert {s.id: s.kind for s in state.model.segments} == names
        assert state.model.lineage == ()
        assert state.model.retired == ()
        assert {s.born for s in state.model.segments} == {"1.0"}
    assert state.next_id == 5


def test_a_shop_that_became_another_retires_and_mints_ids() -> None:
    state = first_state(a_shop())
    assert state.model is not None
    old_ids = set(state.model.ids.tolist())
    rng = np.random.default_rng(4)
    other = Shop(rng.lognormal(2, 2, (500, FEATURES)), a_shop().hashes)
    strict = LEARNING.model_copy(update={"identity_overlap": 1.0})
    after = run(state, parts_of(other, state, 70_000), 70_000, strict)
    assert after.model is not None
    kept = old_ids & set(after.model.ids.tolist())
    fresh = set(after.model.ids.tolist()) - old_ids
    assert fresh
    assert min(fresh) >= 5
    assert after.next_id == 5 + len(fresh)
    assert {s.id for s in after.model.retired} == old_ids - kept
    assert {s.born for s in after.model.segments if s.id in fresh} == {"2.0"}
    told = [e["event"].partition(":")[0] for e in after.model.lineage]
    assert len([e for e in told if e != "kind"]) == len(fresh) + len(old_ids - kept)
    assert all(e["model"] == "2.0" for e in after.model.lineage)


def test_a_refit_waits_for_samples_of_all_partitions() -> None:
    shop = a_shop()
    state = first_state(shop)
    parts = parts_of(shop, state, 70_000, 3)
    parts[1].sample_hashes = None
    after = run(state, parts, 70_000)
    assert after.model is state.model
    assert after.of(EVERYONE).refit_ms == state.of(EVERYONE).refit_ms


def test_owners_are_asked_for_enough_of_the_sample_and_not_for_much_more() -> None:
    shop = a_shop(5_000)
    state = first_state(shop)
    offered = int(np.count_nonzero(shop.hashes <= np.uint64(state.of(EVERYONE).sample_threshold)))
    assert LEARNING.sample_users <= offered <= 1.5 * LEARNING.sample_users
    # The shop has shrunk: fewer than wanted are let through, so next time more are asked for.
    small = shop.part(shop.hashes <= np.uint64(state.of(EVERYONE).sample_threshold)).part(
        slice(0, 100)
    )
    rest = Shop(small.vectors, small.hashes)
    parts = parts_of(rest, state, 70_000)
    parts[0].users = 5_000
    assert (
        run(state, parts, 70_000).of(EVERYONE).sample_threshold
        == 2 * state.of(EVERYONE).sample_threshold
    )


# -- bytes ---------------------------------------------------------------------------------------


def test_a_state_comes_back_to_the_bit() -> None:
    for state in (TrainerState(), TrainerState(round_ms=7, users=3), first_state(a_shop())):
        packed = state.pack(TABLE)
        assert TrainerState.unpack(packed).pack(TABLE) == packed


def test_a_trainer_restarted_after_each_round_learns_the_same() -> None:
    kept = fresh = TrainerState()
    for step, round_ms in enumerate((1, 10_000, 70_000, 80_000, 140_000)):
        parts = parts_of(a_shop(seed=step), kept, round_ms, 2)
        kept = run(kept, parts, round_ms)
        fresh = TrainerState.unpack(run(fresh, parts, round_ms).pack(TABLE))
        assert fresh.pack(TABLE) == kept.pack(TABLE)


def test_statistics_come_back_and_tell_their_time_first() -> None:
    part = statistics_of(a_shop(), first_state(a_shop()), 1_764_547_200_123, sample=True)
    packed = part.pack()
    assert int.from_bytes(packed[:8], "big") == 1_764_547_200_123
    assert PartitionStatistics.unpack(packed) == part
    back, here = PartitionStatistics.unpack(packed).statistics(), part.statistics()
    assert back.sums.tobytes() == here.sums.tobytes()
    assert back.counts.tolist() == here.counts.tolist()


# -- the trainer ---------------------------------------------------------------------------------


@dataclass
class Announcements:
    """Models announced, after as many failures as are asked for."""

    failures: int = 0
    namespace: str = "segstream"
    told: Announced = field(default_factory=Announced)
    models: list[str] = field(default_factory=list)
    lineage: list[LineageRecord] = field(default_factory=list)

    def __call__(self, model: bytes, lineage: Sequence[LineageRecord], origin: bytes) -> None:
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailableError("the broker is away")
        record = PUBLISHED_MODEL.validate_json(model)
        self.told = self.told.with_model(record, self.namespace, origin)
        self.models.append(record["model"])
        self.lineage += [LINEAGE_RECORD.validate_python(told) for told in lineage]


@dataclass
class Scene:
    """A store with two partitions whose statistics a test writes."""

    mode: str = "watermark"
    store: MemoryStore = field(default_factory=MemoryStore)
    announce: Announcements = field(default_factory=Announcements)

    def __post_init__(self) -> None:
        self.settings = Settings.model_validate(
            {
                "topics": {"partitions": 2},
                "clock": {"mode": self.mode},
                "learning": LEARNING.model_dump(),
                "populations": (),
            }
        )
        for partition in range(2):
            self.store.create(partition, "owner", Position([0, 0], TABLE.schema))

    def trainer(self) -> Trainer:
        return Trainer(self.settings, self.store, self.announce, lambda: self.announce.told)

    def state(self) -> TrainerState:
        found = self.store.model()
        return TrainerState() if found is None else TrainerState.unpack(found[1])

    def send(self, at_ms: int, shop: Shop | None = None, only: int | None = None) -> None:
        """Owners commit their statistics as of a time."""
        for partition, part in enumerate(parts_of(shop or a_shop(), self.state(), at_ms, 2)):
            if only in (None, partition):
                found = self.store.acquire(partition, "owner")
                assert found is not None
                commit = Commit(found[0], found[1], statistics=part.pack())
                assert self.store.commit(partition, "owner", commit) is Answer.OK


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Of the trainers of a test."""
    found = Clock()
    monkeypatch.setattr(trainers, "time", found)
    return found


def lead(trainer: Trainer) -> None:
    """Let it take the lead, after whatever it has to wait for."""
    trainer.step()
    if not trainer.leads:
        trainers.time.advance(100.0)  # type: ignore[attr-defined]
        trainer.step()


def run_rounds(scene: Scene, rounds: int) -> None:
    """So many rounds with other users each time, and a refit in each."""
    trainer = scene.trainer()
    lead(trainer)
    begin = scene.store.round()
    for number in range(1, rounds + 1):
        scene.send(begin + number * DAY_MS, a_shop(seed=number))
        trainer.step()
        assert trainer.leads
    trainer.close()


def one_payload_an_id(scene: Scene) -> None:
    told: dict[str, LineageRecord] = {}
    for record in scene.announce.lineage:
        assert told.setdefault(record["id"], record) == record


def births(scene: Scene) -> dict[int, set[str]]:
    """By segment id, the models said to have minted it."""
    found: dict[int, set[str]] = {}
    for record in scene.announce.lineage:
        if record["event"] in {"born", "split", "emerged", "succeeded"}:
            found.setdefault(record["segment"], set()).add(record["model"])
    return found


@pytest.mark.parametrize("garbage", [b"", b"garbage", bytes(8), bytes(7) + b"\1\xc1"])
def test_statistics_that_cannot_be_read_wait_for_better_ones(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(mode="live")
    trainer = scene.trainer()
    scene.send(DAY_MS)
    scene.store._partitions[1].statistics = garbage
    assert not trainer.step()
    assert not trainer.step()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert scene.store.round() == 0
    scene.send(2 * DAY_MS)
    assert trainer.step()
    assert scene.state().model is not None


def test_live_a_lost_model_is_taken_from_where_it_was_published() -> None:
    scene = Scene(mode="live")
    run_rounds(scene, 2)
    kept = scene.store.model()
    run_rounds(scene, 3)
    state = scene.state()
    assert state.model is not None
    assert state.model.epoch > 2
    scene.store._trainer = kept
    trainer = scene.trainer()
    trainer.step()
    resumed = scene.state()
    assert resumed.model is not None
    assert resumed.model.published(TABLE) == state.model.published(TABLE)
    assert resumed.next_id >= state.next_id
    assert scene.announce.models[-1] == scene.announce.models[-2] == state.model.name
    trainer.close()
    run_rounds(scene, 3)
    one_payload_an_id(scene)
    assert all(len(models) == 1 for models in births(scene).values())


@pytest.mark.parametrize("mode", ["live", "watermark"])
def test_after_a_loss_of_everything_no_id_comes_again(mode: str) -> None:
    scene = Scene(mode=mode)
    run_rounds(scene, 3)
    before = scene.state()
    assert before.model is not None
    told = set(scene.announce.models)
    scene.store = MemoryStore()
    scene.__post_init__()
    run_rounds(scene, 3)
    after = scene.state()
    assert after.model is not None
    assert after.model.epoch > before.model.epoch
    kept = set(before.model.ids.tolist()) & set(after.model.ids.tolist())
    assert bool(kept) == (mode == "live"), "live, segments keep their meaning"
    if mode == "watermark":
        assert min(after.model.ids) >= before.next_id
        assert not told & set(scene.announce.models[len(told) :])
    one_payload_an_id(scene)
    assert all(len(models) == 1 for models in births(scene).values())


def at_a_mark(scene: Scene, mark_ms: int, incarnation: int = 1) -> None:
    """The owners' states have come to a mark."""
    for partition in range(2):
        found = scene.store.acquire(partition, "owner")
        assert found is not None
        position = msgspec.structs.replace(found[1], mark_ms=mark_ms, incarnation=incarnation)
        assert scene.store.commit(partition, "owner", Commit(found[0], position)) is Answer.OK


@pytest.mark.parametrize("others", [0, 2])
def test_by_marks_a_store_put_back_to_before_the_first_model_learns_the_same_again(
    others: int,
) -> None:
    scene = Scene()
    # What another namespace told before is behind it both times.
    scene.announce.namespace = "another"
    run_rounds(scene, others)
    scene.store = MemoryStore()
    scene.__post_init__()
    scene.announce.namespace = scene.settings.store.namespace
    scene.announce.models.clear()
    copied = copy.deepcopy(scene.store._partitions)
    at_a_mark(scene, DAY_MS)
    run_rounds(scene, 2)
    first = list(scene.announce.models)
    scene.store._partitions, scene.store._trainer = copied, None
    run_rounds(scene, 2)
    assert len(first) == 2
    assert scene.announce.models == first * 2
    one_payload_an_id(scene)


@pytest.mark.parametrize(("mark_ms", "incarnation"), [(0, 1), (DAY_MS, 2)])
def test_what_need_not_come_again_as_it_was_gets_other_epochs(
    mark_ms: int, incarnation: int
) -> None:
    """States without marks, and states that were begun anew."""
    scene = Scene()
    copied = copy.deepcopy(scene.store._partitions)
    at_a_mark(scene, mark_ms)
    run_rounds(scene, 2)
    first = set(scene.announce.models)
    scene.store._partitions, scene.store._trainer = copied, None
    at_a_mark(scene, 0, incarnation)
    run_rounds(scene, 2)
    assert not first & set(scene.announce.models[len(first) :])


def test_another_namespace_begins_behind_what_is_on_the_topic() -> None:
    scene = Scene(mode="live")
    run_rounds(scene, 2)
    before = scene.state()
    assert before.model is not None
    scene.store = MemoryStore()
    scene.__post_init__()
    scene.announce.told = replace(scene.announce.told, namespace="another")
    run_rounds(scene, 1)
    after = scene.state()
    assert after.model is not None
    assert min(after.model.ids) >= before.next_id
    assert after.model.epoch == before.model.epoch + 1


@pytest.mark.parametrize("mode", ["live", "watermark"])
def test_who_finds_nothing_where_something_was_told_waits_whether_it_comes_back(
    mode: str, clock: Clock
) -> None:
    """A store that lost everything, and then that loss with its last second."""
    scene = Scene(mode=mode)
    run_rounds(scene, 2)
    kept, told = scene.store.model(), list(scene.announce.models)
    scene.store._trainer = None
    scene.send(9 * DAY_MS, a_shop(seed=9))
    successor = scene.trainer()
    assert not successor.step()
    clock.advance(scene.settings.publisher.settle_seconds - 0.1)
    assert not successor.step()
    scene.store._trainer = kept
    clock.advance(0.1)
    assert successor.step()
    assert scene.announce.models == [*told, told[-1], "3.0"]


@pytest.fixture
def restarted(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> tuple[Scene, Clock]:
    """A store that was started again after a round, and has something for another."""
    scene = Scene(mode="live")
    run_rounds(scene, 1)
    monkeypatch.setattr(scene.store, "run", lambda: "another")
    scene.send(9 * DAY_MS)
    return scene, clock


def test_live_it_waits_until_a_former_trainer_can_announce_nothing_more(
    restarted: tuple[Scene, Clock],
) -> None:
    scene, clock = restarted
    successor = scene.trainer()
    began = clock.seconds
    while not successor.step():
        clock.advance(0.1)
    assert clock.seconds - began >= scene.settings.publisher.settle_seconds
    successor.close()
    assert scene.trainer().step(), "once is enough"


def test_live_whoever_lost_the_lease_while_waiting_waits_anew(
    restarted: tuple[Scene, Clock],
) -> None:
    """Another may have led meanwhile, and announced what the store has lost again."""
    scene, clock = restarted
    successor = scene.trainer()
    assert not successor.step()
    scene.store.release("trainer", successor._lease.token)
    scene.store.lease("trainer", "a third", 5.0)
    assert not successor.step()
    scene.store.release("trainer", "a third")
    clock.advance(scene.settings.publisher.settle_seconds)
    assert not successor.step()
    clock.advance(scene.settings.publisher.settle_seconds)
    assert successor.step()


def test_whoever_does_not_lead_any_more_announces_nothing() -> None:
    scene = Scene()
    trainer, successor = scene.trainer(), scene.trainer()
    scene.send(10)
    put = scene.store.put_model

    def put_and_freeze(token: str, model: bytes, round_ms: int, looks: bytes | None = None) -> bool:
        stored = put(token, model, round_ms, looks)
        scene.store.release("trainer", token)
        scene.store.lease("trainer", "another", 5.0)
        return stored

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.store, "put_model", put_and_freeze)
        trainer.step()
    assert scene.announce.models == []
    assert not trainer.leads
    assert math.isnan(REGISTRY.get_sample_value("segstream_model_inertia") or 0.0)
    scene.store.release("trainer", "another")
    successor.step()
    assert scene.announce.models == ["1.0"], "its successor does"


def test_whoever_loses_the_lease_before_it_tells_the_last_model_does_not_lead() -> None:
    scene = Scene()
    run_rounds(scene, 1)
    scene.send(9 * DAY_MS)
    trainer, told = scene.trainer(), list(scene.announce.models)
    lead = scene.store.lead

    def lead_and_freeze(token: str) -> None:
        lead(token)
        scene.store.release("trainer", token)
        scene.store.lease("trainer", "another", 5.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.store, "lead", lead_and_freeze)
        assert not trainer.step()
    assert not trainer.leads
    assert scene.announce.models == told


def leads(trainer: Trainer) -> bool:
    return trainer.leads


def test_a_trainer_leads_and_runs_a_round_when_it_is_due() -> None:
    scene = Scene()
    trainer = scene.trainer()
    assert not leads(trainer)
    assert not trainer.step(), "nothing has been sent"
    assert leads(trainer)
    scene.send(10, only=0)
    assert not trainer.step(), "the other partition has not reached the mark"
    scene.send(10, only=1)
    assert trainer.step()
    assert scene.store.round() == 10
    assert scene.announce.models == ["1.0"]
    assert not trainer.step(), "no round twice"
    scene.send(20)
    assert trainer.step()
    assert scene.store.round() == 20
    assert scene.announce.models == ["1.0"], "the model did not move"


def test_in_live_mode_a_round_follows_any_news() -> None:
    scene = Scene(mode="live")
    trainer = scene.trainer()
    scene.send(10, only=0)
    assert trainer.step()
    assert scene.store.round() == 10
    assert not trainer.step()
    scene.send(30, only=1)
    assert trainer.step()
    assert scene.store.round() == 30


def test_in_live_mode_a_clock_that_was_ahead_holds_nobody_up() -> None:
    scene = Scene(mode="live")
    trainer = scene.trainer()
    scene.send(10)
    assert trainer.step()
    scene.send(DAY_MS, only=0)
    assert trainer.step()
    assert scene.store.round() == DAY_MS
    scene.send(70_000)
    assert trainer.step()
    assert scene.store.round() == 70_000
    assert scene.announce.models[-1] == "2.0", "a refit was due, by either clock"
    assert scene.state().sample_due_ms < DAY_MS
    scene.send(140_000)
    assert trainer.step()
    assert scene.announce.models[-1] == "3.0", "and the next one a minute later"


def test_in_live_mode_every_news_is_a_round_of_its_own_beside_a_clock_that_is_ahead() -> None:
    scene = Scene(mode="live")
    trainer = scene.trainer()
    scene.send(DAY_MS, only=0)
    assert trainer.step()
    rounds = [scene.store.round()]
    for at_ms in (10, 20, 30):
        scene.send(at_ms, only=1)
        assert trainer.step()
        assert not trainer.step()
        rounds.append(scene.store.round())
    assert all(one != other for one, other in pairwise(rounds))
    assert set(rounds) <= {DAY_MS, DAY_MS + 1}


@pytest.mark.parametrize("mode", ["live", "watermark"])
def test_a_store_that_rolled_back_is_led_from_what_is_true(mode: str) -> None:
    scene = Scene(mode=mode)
    trainer = scene.trainer()
    scene.send(10)
    assert trainer.step()
    kept = copy.deepcopy((scene.store._partitions, scene.store._trainer))
    scene.send(70_000)
    assert trainer.step()
    scene.store._partitions, scene.store._trainer = kept
    assert not trainer.step()
    assert not leads(trainer)
    trainer.step()
    # From mark to mark the same is learned again; live, what was published is true.
    assert scene.announce.models == ["1.0", "2.0", "2.0" if mode == "live" else "1.0"]


def test_a_refit_by_a_clock_that_was_ahead_is_taken_for_one_of_now() -> None:
    shop = a_shop()
    state = run(first_state(shop), parts_of(shop, first_state(shop), DAY_MS), DAY_MS)
    assert state.of(EVERYONE).refit_ms == DAY_MS
    state = run(state, parts_of(shop, state, 20_000), 20_000)
    assert (state.round_ms, state.of(EVERYONE).refit_ms) == (20_000, 20_000)
    assert state.sample_due_ms <= 20_000 + 60_000
    drift = state.of(EVERYONE).drift
    assert drift is not None
    assert drift.at_ms == 20_000
    assert state.model is not None
    assert state.model.epoch == 2
    state = run(state, parts_of(shop, state, 80_000), 80_000)
    assert state.model is not None
    assert state.model.epoch == 3


@pytest.mark.parametrize("learned", [False, True])
def test_statistics_of_other_features_teach_nothing(
    caplog: pytest.LogCaptureFixture, learned: bool
) -> None:
    scene = Scene()
    if learned:
        scene.send(10)
        assert scene.trainer().step()
        scene.store._leases.clear()
    before = scene.store.model()
    more = feature("carts_3d", "count", on=(CART,), half_life="3d")
    declared = scene.settings.model_copy(update={"features": (*DEFAULT_FEATURES, more)})
    trainer = Trainer(declared, scene.store, scene.announce)
    scene.send(20)
    with caplog.at_level("WARNING", "stream.trainer"):
        assert [trainer.step() for _ in range(3)] == [False] * 3
    assert scene.store.model() == before
    assert sum(record.levelname == "WARNING" for record in caplog.records) == 1
    assert f"of feature table {TABLE.schema}" in caplog.text
    trainer.close()
    assert scene.trainer().step(), "with the features of before it goes on"


def test_the_round_of_a_mark_is_kept_by_the_slowest() -> None:
    scene = Scene()
    trainer = scene.trainer()
    scene.send(10, only=0)
    scene.send(30, only=1)
    assert trainer.step()
    assert scene.store.round() == 10


def test_a_second_trainer_stands_by_and_goes_on_from_the_same_state() -> None:
    scene = Scene()
    first, second = scene.trainer(), scene.trainer()
    scene.send(10)
    assert first.step()
    assert not second.step()
    assert not leads(second)
    first.close()
    assert not leads(first)
    scene.send(20)
    assert second.step()
    assert leads(second)
    assert scene.store.round() == 20
    assert scene.announce.models == ["1.0", "1.0"], "who takes over announces what is in force"
    assert not first.step()
    scene.send(80_000)
    assert second.step()
    assert scene.announce.models[-1] == "2.0"


def test_a_trainer_that_was_replaced_writes_nothing_and_finds_out() -> None:
    scene = Scene()
    trainer = scene.trainer()
    scene.send(10)
    assert trainer.step()
    before = scene.store.model()
    scene.store.lead("another")
    scene.send(80_000)
    assert trainer.step()
    assert not leads(trainer)
    assert scene.store.model() == before
    assert scene.announce.models == ["1.0"], "what was not stored is not told"
    # The lease is still its own: it leads again, from what is stored.
    assert trainer.step()
    assert scene.store.round() == 80_000
    assert scene.announce.models == ["1.0", "1.0", "2.0"]


def test_who_does_not_lead_tells_nothing_of_the_segments() -> None:
    def told() -> bool:
        samples = [one for family in REGISTRY.collect() for one in family.samples]
        return any(one.name == "segstream_segment_users" for one in samples)

    scene = Scene()
    trainer = scene.trainer()
    scene.send(10)
    assert trainer.step()
    assert told()
    scene.store.release("trainer", trainer._lease.token)
    assert scene.store.lease("trainer", "another", 1.0)
    assert not trainer.step()
    assert not told()


def test_a_model_that_could_not_be_told_is_told_before_anything_else() -> None:
    scene = Scene()
    trainer = scene.trainer()
    scene.announce.failures = 1
    scene.send(10)
    with pytest.raises(BrokerUnavailableError):
        trainer.step()
    assert scene.store.round() == 10, "owners go on with it all the same"
    assert scene.announce.models == []
    assert not trainer.step()
    assert scene.announce.models == ["1.0"]
    assert not trainer.step()
    assert scene.announce.models == ["1.0"]


def test_live_owners_see_a_model_once_it_is_on_its_topic() -> None:
    """A store that goes back would lose it, and what owners had told by then would be nobody's."""
    scene = Scene("live")
    trainer = scene.trainer()
    lead(trainer)
    feeds = {
        live: ModelFeed(scene.store, TABLE.schema, 100, time, announced=live)
        for live in (True, False)
    }
    scene.announce.failures = 1
    scene.send(10)
    with pytest.raises(BrokerUnavailableError):
        trainer.step()
    for feed in feeds.values():
        feed.refresh()
    assert feeds[True].model is None
    assert feeds[False].model is not None, "from mark to mark the same is learned again"
    trainer.step()
    feeds[True].refresh()
    seen = feeds[True].model
    assert seen is not None
    assert [seen.name] == scene.announce.models
    scene.send(20)
    trainer.step()
    feeds[True].refresh()
    assert feeds[True].round_ms == 20, "rounds are followed, whether or not they bring a model"


def test_a_successor_tells_the_model_its_predecessor_could_not() -> None:
    scene = Scene()
    trainer = scene.trainer()
    scene.announce.failures = 2
    scene.send(10)
    with pytest.raises(BrokerUnavailableError):
        trainer.step()
    scene.store.release("trainer", trainer._lease.token)
    successor = scene.trainer()
    with pytest.raises(BrokerUnavailableError):
        successor.step()
    successor.step()
    assert scene.announce.models == ["1.0"]


def test_a_trainer_killed_at_any_round_leaves_the_same_models() -> None:
    steady, killed = Scene(), Scene()
    trainer = steady.trainer()
    for step, mark in enumerate((10, 20, 70_000, 80_000, 150_000)):
        shop = a_shop(seed=step)
        for scene in (steady, killed):
            scene.send(mark, shop)
        assert trainer.step()
        fresh = killed.trainer()
        assert fresh.step()
        fresh.close()
        assert steady.store.model() == killed.store.model()


def test_the_state_tells_owners_what_they_need() -> None:
    state = first_state(a_shop())
    data = msgspec.json.decode(state.pack(TABLE))
    (told,) = data["learned"].values()
    assert told["refit_ms"] == 1
    assert told["sample_threshold"] == state.of(EVERYONE).sample_threshold
    assert data["model"]["geometry"]["schema"] == TABLE.schema


# -- names and lineage ---------------------------------------------------------------------------


def test_a_name_that_a_person_gave_is_published_and_stays_with_the_id() -> None:
    scene = Scene()
    trainer = scene.trainer()
    scene.send(10)
    assert trainer.step()
    model = scene.state().model
    assert model is not None
    chosen = model.segments[1]
    scene.store.give_name(chosen.id, "Bargain hunters")
    for mark in (20, 70_000, 140_000):
        scene.send(mark, a_shop(seed=mark % 7))
        assert trainer.step()
        now = scene.state().model
        assert now is not None
        assert now.by_id[chosen.id].name == "Bargain hunters"
    renamed = [told for told in scene.announce.lineage if told["event"] == "renamed"]
    assert [(told["segment"], told["name"]) for told in renamed] == [(chosen.id, "Bargain hunters")]
    assert scene.announce.models[:2] == ["1.0", "1.1"]


def test_a_name_of_our_own_changes_only_with_the_kind() -> None:
    state = first_state(a_shop())
    for step, round_ms in enumerate((70_000, 140_000, 210_000)):
        before = state.model
        state = run(state, parts_of(a_shop(seed=step + 3), state, round_ms), round_ms)
        model = state.model
        assert before is not None
        assert model is not None
        assert model.epoch == before.epoch + 1
        told = {event["segment"] for event in model.lineage}
        for segment in model.segments:
            was = before.by_id.get(segment.id)
            if was is not None and (was.name, was.kind) != (segment.name, segment.kind):
                assert segment.id in told


def test_what_became_of_segments_is_told_once_for_all_of_their_users() -> None:
    scene = Scene()
    trainer = scene.trainer()
    scene.send(10)
    trainer.step()
    born = scene.announce.lineage
    assert [told["event"] for told in born] == ["born"] * 4
    assert abs(sum(told["users"] for told in born) - 500) <= 4, "estimated from the sample"
    assert len({told["id"] for told in born}) == 4


def test_what_is_told_again_after_a_restart_is_the_same_to_the_bit() -> None:
    scene = Scene()
    trainer = scene.trainer()
    scene.send(10)
    assert trainer.step()
    others = a_shop()
    scene.send(70_000, Shop(np.flip(others.vectors, axis=1).copy() + 1.0, others.hashes))
    assert trainer.step()
    told = [one for one in scene.announce.lineage if one["model"] == "2.0"]
    assert {one["event"] for one in told} & {"absorbed", "dissolved"}
    trainer.close()
    scene.announce.lineage.clear()
    scene.trainer().step()
    assert scene.announce.lineage == told


# -- a refit that is wished for ------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 4, 5, 7])
def test_a_rehearsed_refit_has_as_many_segments_as_the_settings_say(k: int) -> None:
    shop = a_shop()
    state = first_state(shop)
    assert state.model is not None
    before = state.pack(TABLE)
    sample = Sample.merge(parts_of(shop, state, 2), ALL, LEARNING.sample_users)
    learning = LEARNING.model_copy(update={"segments": k})
    later = replace(state, round_ms=2)
    one, other = (
        rehearse_refit(later, sample, Started(TABLE, learning, DEFAULT_KINDS)) for _ in range(2)
    )
    assert one.pack(TABLE) == other.pack(TABLE)
    assert state.pack(TABLE) == before, "what is given is left alone"
    assert one.model is not None
    old, new = set(state.model.ids.tolist()), set(one.model.ids.tolist())
    assert len(new) == k
    assert len(old & new) >= min(k, 4) - 1, "who stays together keeps the id"
    assert (one.of(EVERYONE).refit_ms, one.model.name) == (2, "2.0")
    told = {(event["event"], event["segment"]) for event in one.model.lineage}
    assert {segment for _, segment in told} >= old ^ new, "every id that comes or goes is told"


def test_there_are_no_more_segments_than_different_users() -> None:
    shop = a_shop()
    state = first_state(shop)
    few = np.repeat(shop.vectors[:6], 20, axis=0)
    sample = Sample(
        np.sort(shop.hashes[:120]), few, np.zeros(120, np.int64), np.zeros(120, np.int32), 2
    )
    nine = LEARNING.model_copy(update={"segments": 9})
    found = rehearse_refit(state, sample, Started(TABLE, nine, DEFAULT_KINDS))
    assert found.model is not None
    assert len(found.model.ids) == 6


# -- scores --------------------------------------------------------------------------------------


def customers() -> Shop:
    """Everyone has ordered twice."""
    shop = a_shop()
    shop.vectors[:, COLUMN["orders_total"]] = 2.0
    shop.vectors[:, COLUMN["revenue_total"]] = 80.0
    return shop


def test_looks_are_stored_once_a_day_and_outlive_a_trainer() -> None:
    scene, first = Scene(), 10 * DAY_MS
    trainer = scene.trainer()
    lead(trainer)
    scene.send(first, customers())
    trainer.step()
    stored = scene.store.looks()
    assert stored is not None
    one_day = Looks.unpack(stored)
    assert len(one_day) > 0
    scene.send(first + DAY_MS // 2, customers())
    trainer.step()
    assert scene.store.round() == first + DAY_MS // 2
    assert scene.store.looks() is stored, "once a day is enough"
    trainer.close()
    other = scene.trainer()
    lead(other)
    scene.send(first + DAY_MS, customers())
    other.step()
    two_days = Looks.unpack(scene.store.looks() or b"")
    assert two_days.at_ms[: len(one_day)].tolist() == one_day.at_ms.tolist()
    assert len(two_days) > len(one_day)


def test_looks_that_cannot_be_read_stop_no_trainer(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    trainer = scene.trainer()
    lead(trainer)
    scene.send(10 * DAY_MS, customers())
    trainer.step()
    trainer.close()
    found = scene.store.model()
    assert found is not None
    scene.store.lead("somebody")
    assert scene.store.put_model("somebody", found[1], found[0], b"no looks")
    other = scene.trainer()
    lead(other)
    assert "yet to be learned from is lost" in caplog.text
    scene.send(11 * DAY_MS, customers())
    other.step()
    assert len(Looks.unpack(scene.store.looks() or b"")) > 0
