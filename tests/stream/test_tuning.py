"""What a person applies: the trainer takes it up once, keeps to it, and owners go by its rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from stream.config import Learning, Settings
from stream.events import EventColumns
from stream.learning.rounds import learn, sample_due
from stream.learning.state import TrainerState
from stream.learning.statistics import PartitionStatistics
from stream.model import Model
from stream.partition import Partition
from stream.segments import PublishRule
from stream.store.memory import MemoryStore
from stream.store.state import Position
from stream.trainer import Trainer
from stream.tuning import Started, Tuning
from tests.stream.test_trainer import LEARNING, TABLE, Shop, a_shop, first_state, parts_of

SETTINGS = Settings(learning=LEARNING, populations=())
STARTED = Started(TABLE, LEARNING, SETTINGS.kinds)


def tuned(**sections: Any) -> Tuning:
    whole = {"learning": LEARNING.model_dump(), "populations": ()} | sections
    return Tuning.of(Settings.model_validate(whole))


def fewer(k: int, **rest: Any) -> Tuning:
    return tuned(learning=LEARNING.model_dump() | {"segments": k}, **rest)


def a_round(
    state: TrainerState, shop: Shop, at_ms: int, wanted: Tuning | None = None
) -> TrainerState:
    kinds = SETTINGS.kinds
    parts = parts_of(shop, state, at_ms)
    return learn(state, parts, at_ms, TABLE, LEARNING, kinds, wanted=wanted)


def model_of(state: TrainerState) -> Model:
    assert state.model is not None
    return state.model


def test_it_comes_back_to_the_bit_and_is_another_each_time() -> None:
    tuning = fewer(3)
    assert Tuning.unpack(tuning.pack()) == tuning
    assert tuning.id != fewer(3).id
    later = Tuning.unpack(tuning.pack().replace(b'"segments":3', b'"segments":3,"unheard_of":1'))
    assert "unheard_of" in later.learning
    assert later.over(STARTED).learning.segments == 3, "what a later version knows is left out"


def test_a_round_refits_with_it_once_and_goes_by_it_from_then_on() -> None:
    shop = a_shop()
    state = first_state(shop)
    assert len(model_of(state).ids) == 4
    wanted = fewer(3, publish={"margin": 0.7})
    first = a_round(state, shop, 2, wanted)
    assert (model_of(first).name, len(model_of(first).ids)) == ("2.0", 3)
    assert any(event["event"] == "absorbed" for event in model_of(first).lineage)
    assert first.tuning == wanted
    assert model_of(first).tuning == wanted.id
    assert model_of(first).rule == replace(Settings().publish.rule(), margin=0.7)

    # Still wanted, and wanted no more: neither makes a difference.
    for again in (wanted, None):
        second = a_round(first, shop, 3, again)
        assert model_of(second).epoch == 2
    # The next refit that is due keeps to it, after a restart too.
    stored = TrainerState.unpack(first.pack(TABLE))
    assert stored.pack(TABLE) == first.pack(TABLE)
    later = a_round(stored, shop, 2 + 60_000)
    assert (model_of(later).epoch, len(model_of(later).ids)) == (3, 3)
    assert model_of(later).rule == model_of(first).rule
    other = a_round(later, shop, 2 + 60_001, fewer(5))
    assert (model_of(other).epoch, len(model_of(other).ids)) == (4, 5)


def test_weights_and_words_and_kinds_are_those_applied() -> None:
    shop = a_shop()
    state = first_state(shop)
    features = [
        f.model_dump(exclude_none=True)
        | {"weight": 2.0 if f.name == "orders_30d" else f.weight, "words": ("less", "more")}
        for f in SETTINGS.features
    ]
    rule = {"kind": "everyone", "when": {"tenure_days": {"min": -1}}}
    found = model_of(a_round(state, shop, 2, tuned(features=features, kinds=[rule])))
    assert found.weights[0][TABLE.names.index("orders_30d")] == 2.0
    assert {segment.kind for segment in found.segments} == {"everyone"}
    assert all("less" in s.name or "more" in s.name for s in found.segments)
    assert found.schema == TABLE.schema


def test_it_waits_for_a_sample_and_is_not_for_another_feature_table() -> None:
    shop = a_shop()
    state = first_state(shop)
    parts = parts_of(shop, state, 2, sample=False)
    waiting = learn(state, parts, 2, TABLE, LEARNING, SETTINGS.kinds, wanted=fewer(3))
    assert (waiting.tuning, model_of(waiting).epoch) == (None, 1)
    assert not sample_due(state, 3, 0)
    assert sample_due(waiting, 3, 0), "the next look brings it"
    assert model_of(a_round(waiting, shop, 3, fewer(3))).epoch == 2
    few = Tuning.of(SETTINGS.model_copy(update={"features": SETTINGS.features[:4]}))
    assert a_round(state, shop, 3, few).tuning is None


def test_a_model_tells_its_rule_and_comes_back_with_it() -> None:
    shop = a_shop()
    plain, ruled = (a_round(first_state(shop), shop, 2, w) for w in (None, fewer(3)))
    assert "publish" not in model_of(plain).published(TABLE)["geometry"]
    published = model_of(ruled).published(TABLE)
    usual = Settings().publish.rule()
    assert Model.from_published(published).rule == model_of(ruled).rule == usual
    assert Model.from_published(published).published(TABLE) == published


def test_owners_go_by_the_rule_of_the_model() -> None:
    model = model_of(a_round(first_state(a_shop()), a_shop(), 2, fewer(3)))
    eager = PublishRule(0.0, 0, 0)
    for rule, stays in ((eager, False), (PublishRule(9.0, 0, 0), True), (None, False)):
        partition = Partition(0, TABLE, eager, Position([0, 0], TABLE.schema), 0)
        partition.fold(an_order(partition))
        partition.adopt(replace(model, rule=rule), 1, 1)
        other = next(i for i in model.ids.tolist() if i != partition.rows["segment"][0])
        partition.rows["segment"][0] = other
        partition.sweep(2, 2)
        assert bool(partition.rows["segment"][0] == other) is stays


def an_order(partition: Partition) -> EventColumns:
    """The first one of somebody."""
    slot, code = partition.slots(["u"]), TABLE.codes["Order Completed"]
    return EventColumns(
        slot, np.ones(1, np.uint8), np.array([code], np.uint8), np.ones(1, np.int64),
        np.ones(1, np.uint64), np.full(1, 20.0), np.ones(1), np.zeros(1, np.uint64),
        np.zeros(1, np.uint64), np.zeros(1, np.bool_), np.ones(1),
        np.zeros(1, np.uint32), np.ones(1, np.int64),
    )  # fmt: skip


def test_the_trainer_reads_it_at_its_next_round_and_a_successor_keeps_to_it() -> None:
    shop, store = a_shop(), MemoryStore()
    settings = Settings.model_validate(
        {"topics": {"partitions": 1}, "learning": LEARNING.model_dump()}
    )
    announced: list[bytes] = []
    assert store.create(0, "o", Position([0, 0], TABLE.schema))
    trainer = Trainer(settings, store, lambda record, *_: announced.append(record))
    put(store, parts_of(shop, TrainerState(), 1)[0])
    assert trainer.step()
    tuning = fewer(2)
    store.want(tuning.pack())
    assert not trainer.step(), "no news, no round"
    put(store, parts_of(shop, state_of(store), 2)[0])
    assert trainer.step()
    assert len(model_of(state_of(store)).ids) == 2
    assert len(announced) == 2
    trainer.close()
    successor = Trainer(settings, store, lambda record, *_: announced.append(record))
    put(store, parts_of(shop, state_of(store), 70_000)[0])
    assert successor.step()
    assert (model_of(state_of(store)).epoch, len(model_of(state_of(store)).ids)) == (3, 2)
    assert state_of(store).tuning == tuning


def test_what_cannot_be_read_stops_no_round(caplog: pytest.LogCaptureFixture) -> None:
    shop, store = a_shop(), MemoryStore()
    settings = Settings.model_validate(
        {"topics": {"partitions": 1}, "learning": LEARNING.model_dump()}
    )
    assert store.create(0, "o", Position([0, 0], TABLE.schema))
    store.want(b'{"id": 7}')
    put(store, parts_of(shop, TrainerState(), 1)[0])
    assert Trainer(settings, store, lambda *_: None).step()
    assert model_of(state_of(store)).name == "1.0"
    assert "apply it again" in caplog.text


def test_a_tuning_for_another_feature_table_is_dropped() -> None:
    shop = a_shop()
    state = a_round(first_state(shop), shop, 2, fewer(3))
    assert state.tuning is not None
    other = msgspec.structs.replace(state.tuning, schema="another", weights={})
    assert a_round(replace(state, tuning=other), shop, 3).tuning is None


def put(store: MemoryStore, part: PartitionStatistics) -> None:
    state = store._partitions[0]
    state.statistics = part.pack()


def state_of(store: MemoryStore) -> TrainerState:
    found = store.model()
    assert found is not None
    return TrainerState.unpack(found[1])


def test_what_workers_have_to_agree_with_is_left_to_them() -> None:
    tuning = fewer(3)
    assert "sample_users" not in tuning.learning
    own = Learning(sample_users=777)
    tuned = tuning.over(Started(TABLE, own, ()))
    assert tuned.learning.sample_users == 777
    assert np.array_equal(tuned.axes.weights, TABLE.weights)
