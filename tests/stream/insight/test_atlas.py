"""The map shows centroids as far apart as a plane can, and shoppers near their own."""

from __future__ import annotations

import numpy as np

from stream.insight.atlas import map_of
from stream.insight.facts import MapFacts
from stream.insight.queries import Reader
from stream.store.memory import MemoryStore
from tests.stream.insight.test_facts import SETTINGS, fits, store
from tests.stream.test_partition import TABLE, models, steady

__all__ = ["store"]


def test_shoppers_lie_where_the_model_sees_them(store: MemoryStore) -> None:
    reader = Reader(SETTINGS, store, TABLE)
    names = [name.decode() for name in list(steady().rows)[:50]]
    facts = map_of(reader, [*names, "nobody"])
    assert fits(facts, MapFacts)
    assert [one["user"] for one in facts["shoppers"]] == names
    assert [one["segment"] for one in facts["segments"]] == models()[-1].ids.tolist()
    assert 0 < facts["shown"] <= 1 + 1e-9
    assert facts["axes"][0]["share"] >= facts["axes"][1]["share"]
    assert facts["axes"][0]["features"]
    centres = {one["segment"]: np.array([one["x"], one["y"]]) for one in facts["segments"]}
    own, other = list[float](), list[float]()
    for shopper in facts["shoppers"]:
        place = np.array([shopper["x"], shopper["y"]])
        for segment, centre in centres.items():
            away = float(np.linalg.norm(place - centre))
            (own if segment == shopper["segment"] else other).append(away)
    assert np.mean(own) < np.mean(other)
    assert map_of(reader, names) == map_of(reader, names), "nothing flips from one look to the next"


def test_nobody_is_a_map_without_shoppers(store: MemoryStore) -> None:
    assert map_of(Reader(SETTINGS, store, TABLE), [])["shoppers"] == []
