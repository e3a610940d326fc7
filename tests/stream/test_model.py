"""A model survives its publication to the bit, and reads well."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.clustering import FeatureMap, on_grid
from stream.events import PUBLISHED_MODEL
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.model import Model, PopulationModel, Segment
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
