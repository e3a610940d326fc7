"""A model survives its publication to the bit, and reads well."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.clustering import FeatureMap, on_grid
from stream.events import PUBLISHED_MODEL, Floats
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.model import Model, PopulationModel, Segment, belied, kinds, propose_names
from stream.segments import DEFAULT_KINDS, FALLBACK_KIND
from tests.strategies import of_everyone, with_only

TABLE = FeatureTable(DEFAULT_FEATURES)
WEIGHTS = np.array([feature.weight for feature in DEFAULT_FEATURES])


def some_model(seed: int, k: int = 5) -> Model:
    rng = np.random.default_rng(seed)
    vectors = rng.lognormal(0, 1, (200, len(TABLE.names)))
    return of_everyone(
        epoch=int(rng.integers(1, 100)),
        version=int(rng.integers(0, 100)),
        at_ms=1_764_547_200_123,
        schema=TABLE.schema,
        feature_map=FeatureMap.learn(vectors, WEIGHTS),
        centroids=np.clip(on_grid(rng.normal(0, 1.5, (k, len(TABLE.names)))), -4, 4),
        segments=tuple(Segment(10 + i, f"name {i}", "loyal", i * 7, "1.0") for i in range(k)),
        users=1_234,
        inertia=float(rng.random()),
        silhouette=float(rng.random()),
        lineage=({"event": "split", "segment": 11, "others": [3], "at": "2025", "model": "2.0"},),
        features=TABLE.names,
        retired=(Segment(3, "gone", "dormant", 0, "1.0"), Segment(4, "too", "new", 0, "1.0")),
    )


def assert_same(one: Model, other: Model) -> None:
    for field in fields(Model):
        if field.name != "parts":
            assert getattr(one, field.name) == getattr(other, field.name), field.name
    for part, its in zip(one.parts, other.parts, strict=True):
        assert_same_part(part, its)


def assert_same_part(one: PopulationModel, other: PopulationModel) -> None:
    for field in fields(PopulationModel):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if field.name == "map":
            assert left.to_json() == right.to_json()
        elif field.name in ("centroids", "typical"):
            assert left.tobytes() == right.tobytes()
        else:
            assert left == right, field.name


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_a_published_model_comes_back_to_the_bit(seed: int) -> None:
    model = some_model(seed)
    record = PUBLISHED_MODEL.dump_json(model.published(TABLE))
    back = Model.from_published(PUBLISHED_MODEL.validate_json(record))
    assert_same(model, back)
    assert PUBLISHED_MODEL.dump_json(back.published(TABLE)) == record


def test_a_model_without_a_silhouette_is_published_too() -> None:
    model = with_only(some_model(1), silhouette=None)
    record = PUBLISHED_MODEL.validate_python(model.published(TABLE))
    assert Model.from_published(record).silhouette is None


def test_a_published_segment_describes_itself_in_natural_units() -> None:
    model = some_model(2)
    record = model.published(TABLE)
    natural = model.typical
    assert record["model"] == f"{model.epoch}.{model.version}" == model.name
    for row, segment in enumerate(record["segments"]):
        assert [entry["feature"] for entry in segment["profile"]] == list(TABLE.names)
        assert [entry["value"] for entry in segment["profile"]] == natural[row].tolist()
        assert [entry["z"] for entry in segment["profile"]] == model.centroids[row].tolist()
    json.dumps(record, allow_nan=False)


def test_every_segment_there_ever_was_has_a_name() -> None:
    model = some_model(3)
    assert model.ids.tolist() == [10, 11, 12, 13, 14]
    assert set(model.by_id) == {3, 4, 10, 11, 12, 13, 14}
    assert model.by_id[3].name == "gone"
    assert model.gaps.shape == (5, 5)
    assert (np.diag(model.gaps) == 0).all()


def profile_rows(*profiles: dict[str, float]) -> Floats:
    typical = dict.fromkeys(TABLE.names, 0.0) | {"days_since_seen": 1.0, "tenure_days": 300.0}
    return np.array([[(typical | p)[name] for name in TABLE.names] for p in profiles])


def test_kinds_come_from_natural_values_and_the_kind_before() -> None:
    natural = profile_rows({"days_since_seen": 44.0}, {"days_since_seen": 44.0}, {})
    found = kinds(natural, TABLE, DEFAULT_KINDS, [None, "at_risk", "at_risk"])
    assert found == [FALLBACK_KIND, "at_risk", FALLBACK_KIND]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_names_are_readable_and_all_different(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    # Few different centroids and kinds, so that names collide.
    few = on_grid(rng.normal(0, 1, (3, len(TABLE.names))))
    kind_list = rng.choice(["at_risk", "loyal"], k).tolist()
    names = propose_names(few[rng.integers(0, 3, k)], WEIGHTS, TABLE, kind_list)
    assert len(set(names)) == k
    for name, kind in zip(names, kind_list, strict=True):
        assert name.startswith(kind.replace("_", " ").capitalize())
        assert "_" not in name


def test_a_name_tells_what_marks_the_segment() -> None:
    centroids = np.zeros((2, len(TABLE.names)))
    centroids[0, TABLE.names.index("days_since_seen")] = 3.0
    first, second = propose_names(centroids, WEIGHTS, TABLE, ["at_risk", "loyal"])
    assert first == "At risk: silent"
    assert second == "Loyal: recent"


def test_a_name_does_not_say_the_same_twice() -> None:
    column = TABLE.names.index
    centroids = np.zeros((4, len(TABLE.names)))
    centroids[:, column("orders_30d")] = [2.0, -1.0, 1.0, -2.0]
    centroids[:, column("orders_180d")] = [1.9, -0.9, 1.0, -2.0]
    centroids[:, column("basket_value")] = [0.5, 0.5, -0.5, -0.5]
    first, *_ = propose_names(centroids, WEIGHTS, TABLE, ["loyal"] * 4)
    assert first == "Loyal: ordering now, big baskets"


def rows_of(**values: list[float]) -> Floats:
    centroids = np.zeros((len(next(iter(values.values()))), len(TABLE.names)))
    for name, column in values.items():
        centroids[:, TABLE.names.index(name)] = column
    return centroids


def test_a_name_does_not_contradict_itself() -> None:
    # The last one orders now and is away for longer than most: in this shop, that is one or the other.
    centroids = rows_of(
        orders_30d=[2.0, 1.5, -2.0, -3.0, 1.5],
        days_since_seen=[-2.0, -1.0, 1.5, 0.0, 1.2],
        basket_value=[-0.5, 0.5, 0.5, -1.0, 0.5],
    )
    *_, last = propose_names(centroids, WEIGHTS, TABLE, ["loyal"] * 5)
    assert last == "Loyal: ordering now, big baskets"


def test_a_kind_that_tells_nobody_anything_is_left_out() -> None:
    centroids = rows_of(days_since_seen=[3.0, -3.0, 0.0], tenure_days=[0.0, 1.0, -1.0])
    names = propose_names(centroids, WEIGHTS, TABLE, [FALLBACK_KIND] * 3)
    assert names == ["Silent", "Recent, long known", "Newcomers"]
    some = propose_names(centroids, WEIGHTS, TABLE, [FALLBACK_KIND, "loyal", FALLBACK_KIND])
    assert some == ["Occasional: silent", "Loyal: recent, long known", "Occasional: newcomers"]
    average = propose_names(np.zeros((2, len(TABLE.names))), WEIGHTS, TABLE, [FALLBACK_KIND] * 2)
    assert average == ["Average", "Average (2)"]


@pytest.mark.parametrize("kind", ["loyal", FALLBACK_KIND])
def test_the_same_two_words_the_other_way_round_are_the_same_name(kind: str) -> None:
    centroids = rows_of(
        days_since_seen=[2.0, 3.0, -2.5, -2.5, 0.0], tenure_days=[4.0, 2.0, -3.0, -3.0, 0.0],
        basket_value=[0.0, 0.0, 2.0, -2.0, 0.0],
    )  # fmt: skip
    names = propose_names(centroids, WEIGHTS, TABLE, [kind] * 5)
    said = [frozenset(name.partition(": ")[2].casefold().split(", ")) for name in names]
    if kind == FALLBACK_KIND:
        said = [frozenset(name.casefold().split(", ")) for name in names]
    assert {"silent", "long known"} in said
    assert len(set(said)) == 5
    # The same as what is kept, however that is written.
    again = propose_names(centroids, WEIGHTS, TABLE, [kind] * 5, [None, names[0], *names[2:]])
    assert again[0] == f"{names[0]} (2)"


@pytest.mark.parametrize("kind", ["loyal", FALLBACK_KIND])
def test_a_name_is_belied_when_the_opposite_has_become_true(kind: str) -> None:
    centroids = rows_of(days_since_seen=[3.0, -3.0], tenure_days=[1.0, -1.0])
    names = propose_names(centroids, WEIGHTS, TABLE, [kind] * 2)
    was = [Segment(1, names[0], kind, 1, "1.0"), Segment(2, names[1] + " (2)", kind, 1, "1.0")]
    assert belied(was, centroids, WEIGHTS, TABLE) == [False, False]
    assert belied(was, centroids[::-1], WEIGHTS, TABLE) == [True, True]
    named = [replace(segment, name="Big spenders") for segment in was]
    assert belied(named, centroids[::-1], WEIGHTS, TABLE) == [False, False]
    assert belied([None, None], centroids, WEIGHTS, TABLE) == [False, False]


def test_a_name_does_not_say_what_its_kind_is_known_by() -> None:
    centroids = np.zeros((2, len(TABLE.names)))
    centroids[0, TABLE.names.index("days_since_seen")] = 3.0
    centroids[1, TABLE.names.index("basket_value")] = 1.0
    names = propose_names(centroids, WEIGHTS, TABLE, ["dormant", "loyal"], rules=DEFAULT_KINDS)
    assert names == ["Dormant: small baskets", "Loyal: recent, big baskets"]


@pytest.mark.parametrize("k", [1, 4])
def test_equal_centroids_get_a_plain_name_and_a_number(k: int) -> None:
    names = propose_names(np.zeros((k, len(TABLE.names))), WEIGHTS, TABLE, ["new"] * k)
    assert names == ["New", *(f"New ({n})" for n in range(2, k + 1))]


def test_a_record_from_before_there_were_populations_is_of_everyone() -> None:
    model = some_model(4)
    old: Any = model.published(TABLE)
    geometry = old["geometry"]
    (part,) = geometry.pop("parts")
    del old["populations"], geometry["populations"]
    geometry |= {name: part[name] for name in ("map", "centroids")}
    for segment in (*old["segments"], *old["retired"]):
        del segment["population"]
    back = Model.from_published(old)
    assert back.populations == model.populations
    assert_same_part(with_only(back, since="1.0").parts[0], model.parts[0])
