"""What is said of a user adds up, is enough, and is no more than enough."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.acting import Acting, act_together
from stream.clustering import GRID, FeatureMap, distances, on_grid
from stream.events import Floats, Rows
from stream.features import Feature
from stream.insight.ahead import acted, silence
from stream.insight.explain import (
    How,
    _enough,
    acts,
    departures,
    how,
    margin,
    nearest_other,
    proposals,
)
from stream.insight.facts import Act
from stream.model import Model, Segment
from stream.oracle import Event
from stream.partition import Partition
from stream.segments import PublishRule
from stream.store.state import Position
from stream.units import DAY_MS
from tests.strategies import CART, EVERY_AGGREGATE, ORDER, VIEW, of_everyone, with_only
from tests.stream.test_partition import RULE, TABLE, batch, history, models, steady

NAMES = TABLE.names


@lru_cache(maxsize=1)
def everyone() -> Rows:
    return np.frombuffer(b"".join(steady().rows.values()), TABLE.dtype)


def now_ms() -> int:
    return history()[-1].now_ms


def some_model(rng: np.random.Generator, k: int) -> Model:
    """A model whose features have limits of every kind: wide, narrow, one-sided, none at all."""
    features = len(NAMES)
    low = rng.uniform(-2.0, 0.0, features) * rng.choice([0.0, 1.0], features)
    high = low + rng.uniform(0.0, 5.0, features) * rng.choice([0.0, 1.0], features, p=[0.1, 0.9])
    scale = rng.uniform(0.2, 2.0, features)
    mapping = FeatureMap(
        low=low,
        high=high,
        centre=rng.uniform(low, high),
        scale=scale,
        weights=rng.integers(0, 65, features) / 64,
    )
    return of_everyone(
        epoch=1,
        version=0,
        at_ms=0,
        schema=TABLE.schema,
        feature_map=mapping,
        features=NAMES,
        centroids=on_grid(rng.uniform(-2.0, 2.0, (k, features))),
        segments=tuple(Segment(10 + 3 * n, f"s{n}", "loyal", 1, "1.0") for n in range(k)),
    )


def some_vector(rng: np.random.Generator, model: Model, own: int) -> Floats:
    """Somewhere about a centroid, often outside the limits of a feature."""
    about = model.centroids[own] + rng.normal(0.0, 0.7, len(NAMES))
    vector: Floats = model.parts[0].map.invert(about)
    return vector


def would_move(vector: Floats, model: Model, own: int, target: int, rule: PublishRule) -> bool:
    """The publish rule in plain words: nearest of all, and over the margin."""
    mapped = model.parts[0].map.apply(vector[None])
    squared = [Fraction(d) for d in distances(mapped, model.centroids, model.weights[0])[0]]
    nearest = all(squared[target] < d for c, d in enumerate(squared) if c != target)
    gap = Fraction(float(model.gaps[own, target])) or Fraction(1)
    return nearest and float((squared[own] - squared[target]) / (2 * gap)) > rule.margin


# -- the margin --------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_the_parts_of_a_margin_add_up_exactly(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    model = some_model(rng, k)
    own = int(rng.integers(k))
    vector = some_vector(rng, model, own)
    found = margin(vector, model, TABLE.features, own)
    squared = model.place(vector[None], np.zeros(1, np.int32)).squared[0]
    other = model.ids.tolist().index(found["other"])
    assert other == nearest_other(vector, model, own) != own
    assert squared[other] == min(d for c, d in enumerate(squared) if c != own)
    total = sum((Fraction(part["contribution"]) for part in found["parts"]), Fraction(0))
    assert (
        total == Fraction(found["difference"]) == Fraction(squared[own]) - Fraction(squared[other])
    )
    assert sorted(part["feature"] for part in found["parts"]) == sorted(NAMES)
    sizes = [abs(part["contribution"]) for part in found["parts"]]
    assert sizes == sorted(sizes, reverse=True)


def test_a_margin_is_a_half_at_the_centroids() -> None:
    model = some_model(np.random.default_rng(4), 2)
    model = with_only(model, map=replace(model.parts[0].map, low=np.full(len(NAMES), -50.0),
                                       high=np.full(len(NAMES), 50.0)))  # fmt: skip
    here, there = model.natural()
    assert margin(here, model, TABLE.features, 0)["z"] == -0.5
    assert margin(there, model, TABLE.features, 0)["z"] == 0.5


def test_a_model_of_one_segment_has_no_margin() -> None:
    model = some_model(np.random.default_rng(1), 1)
    with pytest.raises(ValueError, match="no other segment"):
        margin(np.zeros(len(NAMES)), model, TABLE.features, 0)


# -- what would move them ----------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.sampled_from([0.0, 0.1, 0.125, 0.4]))
@settings(max_examples=80, deadline=None)
def test_a_proposal_is_enough_and_no_less_is(seed: int, k: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    model, rule = some_model(rng, k), replace(RULE, margin=limit)
    own = int(rng.integers(k))
    target = int((own + rng.integers(1, k)) % k)
    vector = some_vector(rng, model, own)
    found = {p["feature"]: p for p in proposals(vector, model, TABLE.features, own, target, rule)}
    if would_move(vector, model, own, target, rule):
        assert not found, "nothing is needed"
        return
    mapped = model.parts[0].map.apply(vector[None])[0]
    for column, name in enumerate(NAMES):
        changed = vector.copy()
        if (proposal := found.get(name)) is None:
            # Nothing within the limits does it; two centroids may leave a gap of a grid point.
            low, high = model.parts[0].map.apply(
                np.array([[-1e9] * len(NAMES), [1e9] * len(NAMES)])
            )
            there = np.repeat(mapped[None], 60, axis=0)
            there[:, column] = on_grid(np.linspace(low[column], high[column], 60))
            assert not _enough(there, model.parts[0], own, target, rule).any(), name
            continue
        changed[column] = proposal["needed"]
        assert would_move(changed, model, own, target, rule)
        assert proposal["value"] == vector[column]
        moved = model.parts[0].map.apply(changed[None])[0]
        assert moved[column] - mapped[column] == pytest.approx(proposal["sd"], abs=1e-12)
        step = np.sign(proposal["sd"]) / GRID
        for less in (2 * step, proposal["sd"] / 2, proposal["sd"]):
            there = mapped.copy()
            there[column] += on_grid(np.array(proposal["sd"] - less))
            if abs(there[column] - mapped[column]) < abs(proposal["sd"]):
                changed[column] = model.parts[0].map.invert(there)[column]
                assert not would_move(changed, model, own, target, rule)
    sizes = [abs(proposal["sd"]) for proposal in found.values()]
    assert sizes == sorted(sizes)


def test_proposals_are_found_where_there_are_some() -> None:
    """Or the property above would hold of nothing."""
    found = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        model = some_model(rng, 3)
        found += bool(proposals(some_vector(rng, model, 0), model, TABLE.features, 0, 1, RULE))
    assert found > 5


def test_a_feature_without_weight_or_room_is_not_proposed() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        model = some_model(rng, 2)
        shut = model.parts[0].map.low == model.parts[0].map.high
        for one in proposals(some_vector(rng, model, 0), model, TABLE.features, 0, 1, RULE):
            column = NAMES.index(one["feature"])
            assert model.parts[0].map.weights[column] > 0
            assert not shut[column]


@pytest.mark.parametrize(
    ("name", "up", "down"),
    [
        ("tenure", "with time", "not theirs to change"),
        ("seen", "with time", "by acting"),
        ("orders_1d", "by acting", "with time"),
        ("categories_7d", "by acting", "with time"),
        ("net_1d", "by acting", "by either"),
        ("items_1d", "by acting", "by acting"),
        ("conversion", "by either", "by either"),
    ],
)
def test_what_makes_a_feature_rise_or_fall(name: str, up: How, down: How) -> None:
    feature: Feature = next(one for one in EVERY_AGGREGATE if one.name == name)
    assert (how(feature, rises=True), how(feature, rises=False)) == (up, down)


# -- acts --------------------------------------------------------------------------------------


def after(user: bytes, one: Act, times: int) -> int:
    """The segment a partition has the user in, once they have done so."""
    partition = Partition(0, TABLE, RULE, Position([0, 0], TABLE.schema), 0)
    partition.load([(user, steady().rows[user])])
    partition.model = models()[-1]
    topic = int(one["event"] == ORDER)
    events = [
        Event(
            user.decode(), topic, one["event"], now_ms(), 10**6 + number,
            one["value"] or 0.0, one["quantity"] or 0.0, 0,
        )
        for number in range(times)
    ]  # fmt: skip
    act_together([Acting(partition, batch(partition, events), 0)], now_ms())
    return int(partition.rows[0]["segment"])


@pytest.mark.slow
def test_acts_move_them_as_said_and_fewer_do_not() -> None:
    model, checked = models()[-1], 0
    for user, raw in list(steady().rows.items())[:30]:
        row = np.frombuffer(raw, TABLE.dtype)
        for one in acts(row, acted(row, TABLE, model, now_ms()), TABLE, model, RULE):
            assert after(user, one, one["times"]) == one["to"]
            assert after(user, one, one["times"] - 1) == int(row["segment"][0])
            checked += 1
        assert row.tobytes() == raw
    assert checked > 10


def test_each_kind_of_act_is_told_once_with_numbers_of_the_users_own() -> None:
    model, column = models()[-1], NAMES.index("basket_value")
    told: set[str] = set()
    for index in range(len(everyone())):
        row = everyone()[index : index + 1]
        found = acts(row, acted(row, TABLE, model, now_ms()), TABLE, model, RULE)
        assert [one["times"] for one in found] == sorted(one["times"] for one in found)
        assert len({one["event"] for one in found}) == len(found)
        told |= {one["event"] for one in found}
        own = float(TABLE.vectors(row, now_ms())[0, column])
        for one in found:
            assert one["to"] != row["segment"][0]
            if one["event"] == ORDER and own > 0:
                assert one["value"] == own
            elif one["event"] != ORDER:
                assert one["value"] is one["quantity"] is None
    # Of events that browse one is enough, and a refund is no act to wish for.
    assert ORDER in told
    assert told <= {ORDER, CART, VIEW}


def test_who_is_due_already_needs_no_act() -> None:
    row = everyone()[:1].copy()
    row["segment"] = 99
    model = models()[-1]
    assert acts(row, acted(row, TABLE, model, now_ms()), TABLE, model, RULE) == []


# -- silence -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_silence_moves_them_when_it_was_said() -> None:
    """A partition that is swept twice a day, without an event, does what was foretold."""
    model, days = models()[-1], 60
    kinds = steady().partition.position.kinds
    partition = Partition(0, TABLE, RULE, Position([0, 0], TABLE.schema, kinds=kinds), 0)
    partition.load(steady().rows.items())
    partition.model = model
    for day in range(days + 1):
        for _ in range(2):
            partition.sweep(now_ms() + day * DAY_MS, 0)
    happened: dict[str, list[tuple[str, int]]] = {user.decode(): [] for user in steady().rows}
    for line in partition._recorder._pending:
        change = json.loads(line)
        if change["from"] != change["to"]:
            happened[change["user"]].append((change["at"], change["to"]))
    before = everyone().tobytes()
    said = {
        user.decode(): [
            (one["at"], one["segment"])
            for one in departures(row, silence(row, TABLE, now_ms(), days), model, RULE)
        ]
        for user, row in zip(steady().rows, np.split(everyone(), len(everyone())), strict=True)
    }
    assert everyone().tobytes() == before
    assert happened == said
    assert sum(map(len, said.values())) >= 20, "enough of them move to tell"


def test_who_is_in_a_retired_segment_leaves_at_once() -> None:
    row = everyone()[:1].copy()
    row["segment"] = 99
    found = departures(row, silence(row, TABLE, now_ms(), 3), models()[-1], RULE)
    assert found[0]["days"] == 0
