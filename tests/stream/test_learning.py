"""When a refit comes, who wins it, and whose id goes on: in two features, where one can see it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream.clustering import Statistics, distances
from stream.config import Learning
from stream.events import Floats, Hashes
from stream.kinds import Bounds
from stream.learning.refit import ANCHOR_REFITS
from stream.learning.rounds import learn, sample_due
from stream.learning.state import TrainerState
from stream.learning.statistics import PartitionStatistics
from stream.model import GivenAxes, Model
from stream.naming import FEW, KEPT_AT
from stream.populations import EVERYONE

pytestmark = pytest.mark.slow

AXES = GivenAxes(
    names=("a", "b"),
    units=("", ""),
    words=(("low a", "high a"), ("low b", "high b")),
    limits=(
        ({"a": Bounds(max=3)}, {"a": Bounds(min=3)}),
        ({"b": Bounds(max=3)}, {"b": Bounds(min=3)}),
    ),
    weights=np.ones(2),
    schema="vectors",
)
LEARNING = Learning(
    segments=3,
    refit_seconds=100,
    alarm_share=0.2,
    first_model_users=50,
    sample_users=3_000,
    starts=4,
    small_share=0,
)
USERS = 1_200
HASHES: Hashes = np.random.default_rng(9).integers(1, 2**63, USERS).astype(np.uint64)


def crowd(places: Floats, sizes: tuple[int, ...], seed: int = 1, spread: float = 0.15) -> Floats:
    """Users around places given in log units, as many at each as sizes say."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(np.asarray(places, dtype=float), sizes, axis=0)
    found: Floats = np.expm1(np.maximum(centres + rng.normal(0, spread, centres.shape), 0))
    return found


CORNERS = np.array([[1.0, 1.0], [1.0, 5.0], [5.0, 1.0]])
EVENLY = (400, 400, 400)


def told(
    state: TrainerState,
    vectors: Floats,
    at_ms: int,
    *,
    who: Hashes = HASHES,
    sampled: slice = slice(None),
) -> TrainerState:
    """A round with these users in one partition, all of them in the sample or some."""
    model = state.model
    part = PartitionStatistics(
        at_ms,
        "" if model is None else model.name,
        len(vectors),
        sample_hashes=who[: len(vectors)][sampled].tobytes(),
        sample_vectors=vectors[sampled].tobytes(),
    )
    if model is not None:
        mapped = model.parts[0].map.apply(vectors)
        squared = distances(mapped, model.centroids, model.weights[0])
        counted = Statistics.of(mapped, squared, squared.argmin(axis=1))
        part.count(counted)
    return learn(state, [part], at_ms, AXES, LEARNING, ())


def first(vectors: Floats) -> TrainerState:
    state = told(TrainerState(), vectors, 1)
    assert state.model is not None
    return state


def epoch(state: TrainerState) -> int:
    assert state.model is not None
    return state.model.epoch


def events(state: TrainerState) -> list[tuple[str, int, tuple[int, ...]]]:
    assert state.model is not None
    return [(e["event"], e["segment"], tuple(e["others"])) for e in state.model.lineage]


def id_at(state: TrainerState, place: tuple[float, float]) -> int:
    """Segment of who stands at a place in log units."""
    model = state.model
    assert model is not None
    here = model.parts[0].map.apply(np.expm1(np.array([place])))
    return int(model.ids[distances(here, model.centroids, model.weights[0]).argmin()])


def off_the_means(state: TrainerState, vectors: Floats) -> float:
    """How far centroids are from the means of everyone nearest to them, the farthest, in sd."""
    model = state.model
    assert model is not None
    mapped = model.parts[0].map.apply(vectors)
    squared = distances(mapped, model.centroids, model.weights[0])
    means = Statistics.of(mapped, squared, squared.argmin(axis=1)).means(model.centroids)
    return float(np.sqrt(((means - model.centroids) ** 2).sum(axis=1)).max())


# -- when ----------------------------------------------------------------------------------------


def test_a_refit_comes_when_it_is_due() -> None:
    state = first(crowd(CORNERS, EVENLY))
    for at_ms in (30_000, 99_000):
        state = told(state, crowd(CORNERS, EVENLY), at_ms)
        assert epoch(state) == 1
    assert epoch(told(state, crowd(CORNERS, EVENLY), 100_001)) == 2


def test_a_sample_is_asked_for_when_an_alarm_may_use_it_and_when_a_refit_needs_it() -> None:
    state = first(crowd(CORNERS, EVENLY))
    asked = [state.sample_due_ms]
    for at_ms in (21_000, 45_000, 70_000, 95_000):
        state = told(state, crowd(CORNERS, EVENLY), at_ms)
        assert epoch(state) == 1
        asked.append(state.sample_due_ms)
    assert asked == [20_001, 41_000, 65_000, 90_000, 100_001]


def test_updates_make_it_due_as_well() -> None:
    state = first(crowd(CORNERS, EVENLY))
    assert state.of(EVERYONE).refit_updates == 0
    by_updates = LEARNING.model_copy(update={"refit_updates": 500, "refit_seconds": 0.0})
    part = PartitionStatistics(30_000, "1.0", 0, updates=499, sample_hashes=b"", sample_vectors=b"")
    full = replace(state, users=0)
    kept = crowd(CORNERS, EVENLY)
    for updates, expected in ((499, 1), (500, 2)):
        part.updates, part.users = updates, USERS
        part.sample_hashes, part.sample_vectors = HASHES.tobytes(), kept.tobytes()
        assert epoch(learn(full, [part], 30_000, AXES, by_updates, ())) == expected


def test_updates_ask_for_a_sample_as_well() -> None:
    by_updates = LEARNING.model_copy(update={"refit_updates": 500, "refit_seconds": 0.0})
    kept = crowd(CORNERS, EVENLY)
    state = TrainerState()
    part = PartitionStatistics(1, "", USERS)
    part.sample_hashes, part.sample_vectors = HASHES.tobytes(), kept.tobytes()
    state = learn(state, [part], 1, AXES, by_updates, ())
    assert not sample_due(state, 9_000_000, 99)
    assert sample_due(state, 2, 100)
    without = PartitionStatistics(2, "1.0", USERS, updates=99)
    assert not sample_due(learn(state, [without], 2, AXES, by_updates, ()), 3, 99)
    # Owners know the time only, not everyone's updates.
    without.updates = 100
    assert learn(state, [without], 2, AXES, by_updates, ()).sample_due_ms == 0


@pytest.mark.parametrize(
    "elsewhere",
    [
        pytest.param(crowd(CORNERS + 1.0, EVENLY), id="features have moved"),
        pytest.param(crowd(CORNERS, EVENLY, spread=0.6), id="distances have grown"),
    ],
)
def test_an_alarm_brings_it_forward_but_not_at_once(elsewhere: Floats) -> None:
    state = first(crowd(CORNERS, EVENLY))
    assert epoch(told(state, elsewhere, 15_000)) == 1, "an alarm waits for a fifth of the time"
    seen = state
    for at_ms in (18_000, 19_000, 19_500):
        seen = told(seen, elsewhere, at_ms)
        assert epoch(seen) == 1
    assert epoch(told(seen, elsewhere, 25_000)) == 2


def test_a_segment_that_becomes_small_is_an_alarm_once() -> None:
    watching = LEARNING.model_copy(update={"small_share": 0.05, "drift_psi": 9.0})
    state = first(crowd(CORNERS, EVENLY))

    def round_at(state: TrainerState, at_ms: int) -> TrainerState:
        vectors = crowd(CORNERS, (590, 590, 20))
        part = PartitionStatistics(
            at_ms, "", USERS, sample_hashes=HASHES.tobytes(), sample_vectors=vectors.tobytes()
        )
        return learn(state, [part], at_ms, AXES, watching, ())

    state = round_at(state, 30_000)
    assert epoch(state) == 2
    drift = state.of(EVERYONE).drift
    assert drift is not None
    assert drift.known == (f"small {id_at(state, (5.0, 1.0))}",)
    assert epoch(round_at(state, 60_000)) == 2, "the same is no news"


# -- who wins ------------------------------------------------------------------------------------


def test_a_challenger_must_win_twice() -> None:
    # Two centroids stand close together far from where users split: Lloyd never parts the far two.
    state = first(crowd(np.array([[1.0, 1.0], [1.0, 1.8], [6.0, 6.0]]), EVENLY))
    vectors = crowd(np.array([[1.0, 1.2], [6.0, 5.0], [6.0, 7.0]]), EVENLY)
    once = told(state, vectors, 100_001)
    assert (epoch(once), once.of(EVERYONE).challenged) == (2, 1)
    assert id_at(once, (6.0, 5.0)) == id_at(once, (6.0, 7.0))
    again = told(once, vectors, 125_000)
    assert (epoch(again), again.of(EVERYONE).challenged) == (3, 0), (
        "soon, not after another full time"
    )
    assert id_at(again, (6.0, 5.0)) != id_at(again, (6.0, 7.0))
    assert once.model is not None
    assert again.model is not None
    assert again.model.inertia < 0.5 * once.model.inertia
    # "Low b" was said of the lower of the two; now it holds for too few of the one segment to stay.
    share = LEARNING.word_share
    kept_from = share + KEPT_AT * (1 - share) + FEW / 400**0.5
    assert share < (vectors[:400, 1] <= 3).mean() < kept_from
    renamed = [segment for event, segment, _ in events(again) if event == "renamed"]
    assert renamed == [id_at(again, (1.0, 1.2))]
    assert {event for event, _, _ in events(again)} == {"split", "absorbed", "renamed"}

    # Whoever wins only once is forgotten.
    back = told(once, crowd(np.array([[1.0, 1.0], [1.0, 1.8], [6.0, 6.0]]), EVENLY), 125_000)
    assert back.of(EVERYONE).challenged == 0
    assert events(back) == []


@pytest.mark.parametrize("grown", [0.0, 0.05])
def test_a_refit_is_without_the_luck_of_the_sample(grown: float) -> None:
    some = slice(0, USERS, 12)
    before = told(TrainerState(), crowd(CORNERS, EVENLY), 1, sampled=some)
    now = crowd(CORNERS + grown, EVENLY, seed=2)
    after = told(before, now, 100_001, sampled=some)
    assert epoch(after) == 2
    # A sample is all that the first model has to go by.
    assert off_the_means(after, now) < off_the_means(before, crowd(CORNERS, EVENLY)) / 5


def test_the_same_users_again_change_no_id() -> None:
    state = first(crowd(CORNERS, EVENLY))
    ids = state.model.ids.tolist() if state.model else []
    for step in range(1, 2 * ANCHOR_REFITS):
        state = told(state, crowd(CORNERS, EVENLY, seed=step), step * 101_000)
        assert epoch(state) == step + 1
        assert events(state) == []
    assert state.model is not None
    assert state.model.ids.tolist() == ids


# -- whose id goes on ----------------------------------------------------------------------------


def test_a_segment_that_moves_with_its_people_keeps_its_id() -> None:
    state = first(crowd(CORNERS, EVENLY))
    mine = id_at(state, (5.0, 1.0))
    for step in range(1, 21):
        places = CORNERS + np.array([[0, 0], [0, 0], [0.15 * step, 0.1 * step]])
        state = told(state, crowd(places, EVENLY, seed=step), step * 101_000)
        assert [one for one in events(state) if one[0] != "renamed"] == []
    assert id_at(state, (8.0, 3.0)) == mine


def test_an_id_does_not_go_elsewhere_with_other_people_a_little_at_a_time() -> None:
    """The third corner empties, and a part of the second wanders off where its centroid is."""
    state = first(crowd(CORNERS, EVENLY))
    dying, parent = id_at(state, (5.0, 1.0)), id_at(state, (1.0, 5.0))
    seen: list[tuple[str, int, tuple[int, ...]]] = []
    child = np.array([1.0, 5.0])
    for step in range(1, 11):
        left = max(400 - 80 * step, 0)
        child = child + np.array([0.35, -0.05])
        gone = np.delete(np.arange(USERS), slice(800 + left, None))
        vectors = crowd(np.array([[1.0, 1.0], [1.0, 5.0], child, [5.0, 1.0]]), (400, 200, 200, 400))
        state = told(state, vectors[gone], step * 101_000, who=HASHES[gone])
        seen += events(state)
    new = id_at(state, (float(child[0]), float(child[1])))
    assert new not in {dying, parent}
    assert ("split", new, (parent,)) in seen
    assert [event for event, segment, _ in seen if segment == dying] in (
        ["absorbed"],
        ["dissolved"],
    )
    assert id_at(state, (1.0, 5.0)) == parent


# -- as many as there can be ----------------------------------------------------------------------


def test_segments_that_could_not_be_at_first_come_later() -> None:
    alike = np.zeros((USERS, 2))
    state = first(alike)
    assert len(ids_of(state)) == 1
    state = told(state, crowd(CORNERS, EVENLY), 100_001)
    assert len(ids_of(state)) == 3
    assert 1 in ids_of(state)
    assert {event for event, _, _ in events(state)} == {"split"}


def test_segments_that_nobody_can_be_told_apart_by_go_once() -> None:
    state = first(crowd(CORNERS, EVENLY))
    alike = np.full((USERS, 2), 3.0)
    state = told(state, alike, 100_001)
    assert len(ids_of(state)) == 1
    assert [event for event, _, _ in events(state) if event in ENDS] == ["dissolved"] * 2
    for number in range(2, 5):
        state = told(state, alike, number * 100_002)
        assert events(state) == []


def test_a_name_that_is_no_longer_so_is_told_anew() -> None:
    state = first(crowd(CORNERS, EVENLY))
    third = id_at(state, (5.0, 1.0))
    assert name_of(state, third).endswith("high a, low b")
    renamed: list[tuple[str, int, tuple[int, ...]]] = []
    for number in range(1, 7):
        # The same people, who do more of b with each refit.
        places = CORNERS + np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 8.0 * number / 6]])
        state = told(state, crowd(places, EVENLY), number * 100_002)
        renamed += events(state)
    assert ("renamed", third, ()) in renamed
    assert "low b" not in name_of(state, third)
    assert {event for event, _, _ in renamed} == {"renamed"}


def name_of(state: TrainerState, segment: int) -> str:
    """In small letters: a name without a kind begins with a capital one."""
    return model_of(state).by_id[segment].name.casefold()


ENDS = {"absorbed", "dissolved"}


def model_of(state: TrainerState) -> Model:
    assert state.model is not None
    return state.model


def ids_of(state: TrainerState) -> list[int]:
    return [int(i) for i in model_of(state).ids]
