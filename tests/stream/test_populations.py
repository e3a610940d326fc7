"""Everyone is in exactly one population, and each is learned by itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.clustering import ALL_HASHES, FeatureMap
from stream.config import Learning, Publish, Settings
from stream.events import Cause, EventColumns, Floats, Hashes, Ints, SegmentChange
from stream.kinds import Bounds
from stream.learning.choosing import Space, suggest
from stream.learning.statistics import PartitionStatistics, Sample, Sampling
from stream.partition import Partition
from stream.populations import DEFAULT_POPULATIONS, NONE, Population, Populations, check
from stream.rehearsal import Rehearsal
from stream.segmenter import Segmenter, Step
from stream.units import DAY_MS
from tests.strategies import ORDER, START_MS, VIEW
from tests.stream.test_partition import batch, event

FEATURES = ("orders", "silent", "visits")


def population(name: str, slack: float = 0.0, segments: Any = None, **when: Any) -> Population:
    """``orders=(1, None)`` is one or more."""
    limits = {feature: Bounds(min=low, max=high) for feature, (low, high) in when.items()}
    return Population(name=name, when=limits, slack=slack, segments=segments)


SHOP = (
    population("customers", orders=(1, None), silent=(None, 100)),
    population("lapsed", orders=(1, None), segments=1),
    population("visitors", segments=2),
)
DIVIDED = Populations.of(SHOP, FEATURES)


# -- rules ---------------------------------------------------------------------------------------


def plainly(
    declared: Sequence[Population], user: Sequence[float], current: int, features: Sequence[str]
) -> int:
    """The first population whose rule holds, in plain words."""
    for place, one in enumerate(declared):
        slack = one.slack if place == current else 0.0
        kept = True
        for name, bounds in one.when.items():
            value = user[features.index(name)]
            if bounds.min is not None and value < bounds.min - slack * abs(bounds.min):
                kept = False
            if bounds.max is not None and value > bounds.max + slack * abs(bounds.max):
                kept = False
        if kept:
            return place
    raise AssertionError("the last one has no rule")


@st.composite
def rules(draw: st.DrawFn) -> list[Population]:
    limit = st.none() | st.integers(-3, 3).map(float)
    found = []
    for number in range(draw(st.integers(0, 3))):
        when = {}
        for name in draw(st.lists(st.sampled_from(FEATURES), min_size=1, unique=True)):
            low, high = draw(limit), draw(limit)
            if low is not None or high is not None:
                when[name] = (low, high)
        slack = draw(st.sampled_from([0.0, 0.1, 0.5]))
        if when:
            found.append(population(f"p{number}", slack, **when))
    return [*found, population("rest")]


@given(rules(), st.data())
@settings(max_examples=100, deadline=None)
def test_everyone_is_in_the_first_one_whose_rule_holds(
    declared: list[Population], data: st.DataObject
) -> None:
    value = st.integers(-70, 70).map(lambda tenth: tenth / 20)
    users = data.draw(st.lists(st.tuples(*[value] * 3), min_size=1, max_size=20))
    inside = st.integers(NONE, len(declared) - 1)
    current = [data.draw(inside) for _ in users]
    divided = Populations(tuple(declared), FEATURES)
    found = divided.divide(np.array(users), np.array(current))
    assert found.tolist() == [
        plainly(declared, user, now, FEATURES) for user, now in zip(users, current, strict=True)
    ]
    again = divided.divide(np.array(users), found)
    assert again.tolist() == found.tolist(), "who has come there stays"


def test_a_trembling_feature_moves_nobody_to_and_fro() -> None:
    divided = Populations.of(
        (population("regulars", 0.1, visits=(10, None)), population("rest")), FEATURES
    )
    place, moves = NONE, 0
    for visits in (9.9, 10.1, 9.9, 9.2, 10.3, 9.05, 8.9, 9.5, 9.9, 8.0):
        now = int(divided.divide(np.array([[0.0, 0.0, visits]]), np.array([place]))[0])
        moves += now != place
        place = now
    assert moves == 3, "first in none, then in at 10.1, then out at 8.9"


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ((population("a"), population("b")), "nobody can be in 'b': .* are in 'a'"),
        ((population("a", orders=(1, None)),), "the last one takes everyone else, so 'a'"),
        ((population("a", money=(1, None)), population("b")), "'a' looks at 'money', which is no"),
        ((population("a", orders=(2, 1)), population("b")), "orders is never 2 or more and 1 or"),
        (
            (
                population("a", orders=(1, None)),
                population("b", orders=(2, 5), silent=(None, 3)),
                population("c"),
            ),
            "nobody can be in 'b'",
        ),
        ((population("a", orders=(1, None)), population("a")), "the name 'a' is used twice"),
        (
            (Population(name="a", when={"orders": Bounds(min_times=2)}), population("b")),
            "'a' looks at 'orders' with min_times or max_times",
        ),
    ],
)
def test_what_cannot_be_is_refused(declared: Sequence[Population], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(declared, FEATURES)


def test_settings_name_what_is_wrong_and_leave_the_defaults_out_where_they_cannot_be() -> None:
    declared = [one.model_dump() for one in SHOP]
    with pytest.raises(ValueError, match="'customers' looks at 'orders', which is no feature"):
        Settings.model_validate({"populations": declared})
    assert Settings().populations == DEFAULT_POPULATIONS
    own = {"features": [{"name": "views", "aggregate": "count", "half_life": "7d"}], "kinds": ()}
    assert Settings.model_validate(own).populations == ()
    assert Settings.model_validate(own).divided().names == ("everyone",)


@pytest.mark.parametrize(
    ("before", "after", "user", "reasons"),
    [
        ("visitors", "customers", (1, 0, 5), ["orders", "silent"]),
        ("lapsed", "customers", (2, 0, 5), ["silent", "orders"]),
        ("customers", "lapsed", (2, 101, 0), ["silent"]),
        ("customers", "visitors", (0, 3, 0), ["orders"]),
        ("lapsed", "visitors", (0, 300, 0), ["orders"]),
        ("visitors", "lapsed", (1, 300, 0), ["orders"]),
    ],
)
def test_the_feature_that_decided_comes_first(
    before: str, after: str, user: Sequence[float], reasons: list[str]
) -> None:
    places = {name: place for place, name in enumerate(DIVIDED.names)}
    found = DIVIDED.reasons(places[before], places[after], user)
    assert [FEATURES[column] for column in found] == reasons


# -- samples -------------------------------------------------------------------------------------


def some_users(rng: np.random.Generator, users: int) -> tuple[Hashes, Floats]:
    hashes = rng.choice(1 << 40, users, replace=False).astype(np.uint64)
    orders = rng.poisson(0.3, users)
    return hashes, np.column_stack([orders, rng.integers(0, 200, users), rng.random(users)])


def told(hashes: Hashes, vectors: Floats, divided: Populations, **rest: Any) -> PartitionStatistics:
    """What an owner tells of a sample, gathered in portions."""
    limits = rest.get("limits", [ALL_HASHES] * len(divided))
    sampling = Sampling(limits, rest["size"], len(FEATURES))
    populations = divided.divide(vectors, np.full(len(vectors), NONE))
    for begin in range(0, len(hashes), 37):
        some = slice(begin, begin + 37)
        nowhere = np.zeros(len(hashes[some]), np.int32)
        sampling.add(hashes[some], vectors[some], populations[some], nowhere)
    part = PartitionStatistics(1, "", len(hashes), rules=divided.digest)
    part.sampled(sampling.taken())
    return part


@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.integers(1, 60), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_a_sample_is_the_smallest_hashes_of_each_population(
    seed: int, users: int, size: int, partitions: int
) -> None:
    rng = np.random.default_rng(seed)
    hashes, vectors = some_users(rng, users)
    owner = hashes % np.uint64(partitions)
    parts = [
        told(hashes[owner == p], vectors[owner == p], DIVIDED, size=size) for p in range(partitions)
    ]
    sample = Sample.merge(parts, DIVIDED, size)
    populations = DIVIDED.divide(vectors, np.full(users, NONE))
    for place in range(3):
        expected = sorted(hashes[populations == place].tolist())[:size]
        assert sample.among(place).hashes.tolist() == expected
    one = Populations.of((), FEATURES)
    whole = Sample.merge([told(hashes, vectors, one, size=size)], one, size)
    assert whole.hashes.tolist() == sorted(hashes.tolist())[:size]


def test_a_sample_that_is_divided_anew_stays_uniform() -> None:
    rng = np.random.default_rng(5)
    hashes, vectors = some_users(rng, 20_000)
    size = 200
    part = told(hashes, vectors, DIVIDED, size=size)
    other = Populations.of((population("busy", visits=(0.5, None)), population("rest")), FEATURES)
    sample = Sample.merge([part], other, size)
    for place, busy in ((0, True), (1, False)):
        there = hashes[(vectors[:, 2] >= 0.5) == busy]
        found = sample.among(place).hashes
        assert len(found) > 20
        # All there are up to some hash: nobody stands for more users than another.
        assert found.tolist() == sorted(there[there <= found[-1]].tolist())


# -- the map -------------------------------------------------------------------------------------


def test_what_few_have_is_mapped_among_those_who_have_it() -> None:
    rng = np.random.default_rng(2)
    spent = np.where(rng.random(4_000) < 0.006, rng.lognormal(4, 1, 4_000), 0.0)
    vectors = np.column_stack([spent, rng.lognormal(0, 1, 4_000), np.zeros(4_000)])
    weights = np.ones(3)
    among = FeatureMap.learn_of_those_who_have(vectors, weights)
    mapped = among.apply(vectors)
    have = spent > 0
    assert mapped[have, 0].std() > 0.8, "who spends much is told from who spends little"
    assert mapped[~have, 0].max() < mapped[have, 0].min()
    assert FeatureMap.learn(vectors, weights).apply(vectors)[:, 0].std() == 0
    assert among.weights.tolist() == [1.0, 1.0, 0.0], "what nobody has tells nobody apart"


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_where_all_have_a_feature_the_map_is_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.lognormal(1, 1, (200, 3))
    weights = rng.integers(1, 4, 3) / 2
    one, other = (
        FeatureMap.learn(vectors, weights),
        FeatureMap.learn_of_those_who_have(vectors, weights),
    )
    assert one.weights.tolist() == other.weights.tolist()
    assert np.allclose(one.apply(vectors), other.apply(vectors), atol=1e-5)


# -- the library ---------------------------------------------------------------------------------

USERS = 700
LEARNING = Learning(
    refit_seconds=0, refit_updates=2_500, first_model_users=300, sample_users=500, starts=4
)


def make(workers: int = 1, **rest: Any) -> Segmenter:
    options: dict[str, Any] = {"populations": SHOP, "learning": LEARNING, "round_updates": 500}
    return Segmenter(FEATURES, 2, workers=workers, **options | rest)


@lru_cache(maxsize=4)
def stream(seed: int = 1, batches: int = 40) -> tuple[tuple[Ints, Floats, float], ...]:
    """Visitors, some of whom order; customers, some of whom fall silent, and some of them return."""
    rng = np.random.default_rng(seed)
    orders = np.where(rng.random(USERS) < 0.3, rng.poisson(3, USERS) + 1, 0)
    silent = rng.exponential(60, USERS)
    habit = rng.lognormal(1, 1, USERS)
    found = []
    for number in range(batches):
        orders = orders + (rng.random(USERS) < 0.01)
        silent = np.where(rng.random(USERS) < 0.02, 0.0, silent + 2.0)
        users = rng.choice(USERS, 200, replace=False)
        noise = rng.lognormal(0, 0.1, (2, 200))
        vectors = np.column_stack(
            [orders[users], silent[users] * noise[0], habit[users] * noise[1]]
        )
        found.append((users, vectors, float(number)))
    return tuple(found)


def play(segmenter: Segmenter, first: int = 0, last: int | None = None) -> list[Step]:
    return [segmenter.update(*one) for one in stream()[first:last]]


def facts(step: Step) -> tuple[Any, ...]:
    """A step in an order that does not depend on how users are kept."""
    c = step.changes
    rows = zip(
        c.users, c.before.tolist(), c.after.tolist(), c.cause, map(repr, c.margin.tolist()),
        map(repr, c.contributions.tolist()), c.rules, strict=True,
    )  # fmt: skip
    return sorted(rows, key=repr), step.lineage


def population_of(segmenter: Segmenter) -> dict[int, str]:
    state = segmenter._state.model
    assert state is not None
    return {number: segment.population for number, segment in state.by_id.items()}


def test_who_has_acted_is_in_a_segment_of_the_population_they_belong_to() -> None:
    segmenter = make(publish=Publish(margin=16.0, dwell_seconds=1e6, sign_gap_seconds=0))
    crossed = 0
    for number, one in enumerate(stream()):
        step = segmenter.update(*one)
        if segmenter.quality["model"] is None:
            continue
        users, vectors, _ = one
        of = population_of(segmenter)
        learned = segmenter.assign(vectors) > 0
        belongs = DIVIDED.divide(vectors, np.full(len(vectors), NONE))[learned]
        inside = [of[segment] for segment in segmenter.segment_of(users[learned]).tolist()]
        assert inside == [DIVIDED.names[place] for place in belongs.tolist()], number
        for before, after, margin, rules in zip(
            step.changes.before.tolist(), step.changes.after.tolist(),
            step.changes.margin.tolist(), step.changes.rules, strict=True,
        ):  # fmt: skip
            if before and of[before] != of[after]:
                crossed += 1
                assert np.isnan(margin)
                assert rules
            else:
                assert not rules
    assert crossed > 50, "with a margin and a dwell that let nobody else go"


def test_contributions_add_up_within_and_cross_populations() -> None:
    segmenter, told_of = make(), [0, 0]
    for step in play(segmenter):
        changes = step.changes
        within = ~np.isnan(changes.margin)
        assert np.allclose(
            changes.contributions[within].sum(axis=1), changes.margin[within], rtol=0, atol=1e-12
        )
        told_of[0] += int(within.sum())
        told_of[1] += sum(map(bool, changes.rules))
    assert min(told_of) > 30


def test_ids_are_unique_and_none_comes_twice() -> None:
    segmenter = make()
    seen: dict[int, str] = {}
    gone: set[int] = set()
    for one in stream():
        segmenter.update(*one)
        if segmenter.quality["model"] is None:
            continue
        ids = segmenter.ids.tolist()
        assert len(set(ids)) == len(ids)
        assert not gone & set(ids)
        for number, name in population_of(segmenter).items():
            assert seen.setdefault(number, name) == name
        gone |= set(seen) - set(ids)
    assert {one.population for one in segmenter.segments} == set(DIVIDED.names)
    assert len(set(segmenter.names.values())) == len(segmenter.names)


@pytest.mark.slow
def test_four_workers_come_to_the_same_as_one() -> None:
    one, four = make(), make(workers=4)
    assert [facts(step) for step in play(one)] == [facts(step) for step in play(four)]
    assert one.centroids.tobytes() == four.centroids.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 9, 30])
def test_saved_and_loaded_it_goes_on_as_if_nothing_had_been(cut: int, tmp_path: Path) -> None:
    whole, file = make(), tmp_path / "kept.npz"
    play(whole, last=cut)
    whole.save(file)
    again = Segmenter.load(file, workers=3)
    assert [facts(step) for step in play(whole, cut)] == [facts(s) for s in play(again, cut)]


@pytest.mark.slow
def test_one_population_without_a_rule_is_none_at_all() -> None:
    plain, named = make(populations=()), make(populations=(population("everyone"),))
    assert [facts(step) for step in play(plain)] == [facts(step) for step in play(named)]


def test_too_few_to_be_learned_stay_until_they_are_enough() -> None:
    rare = (population("whales", orders=(1_000, None)), population("rest"))
    segmenter = make(populations=rare)
    play(segmenter, last=30)
    before = segmenter.segment_of(range(30))
    assert (before > 0).all()
    vectors = np.column_stack([np.full(30, 2_000.0), np.ones(30), np.ones(30)])
    few = segmenter.update(range(19), vectors[:19], 100.0)
    assert not any(few.changes.rules)
    assert (segmenter.assign(vectors) == 0).all()
    assert segmenter.segment_of(range(19)).tolist() == before[:19].tolist(), "they stay"
    segmenter.update(range(30), vectors, 101.0)
    steps = []
    for number, (users, vectors, _) in enumerate(stream()[30:]):
        others = users >= 30
        steps.append(segmenter.update(users[others], vectors[others], 102.0 + number))
    came = [
        (user, cause, rules)
        for step in steps
        for user, after, cause, rules in zip(
            step.changes.users, step.changes.after.tolist(), step.changes.cause,
            step.changes.rules, strict=True,
        )
        if population_of(segmenter).get(after) == "whales"
    ]  # fmt: skip
    assert came
    assert {cause for _, cause, _ in came} == {"model_moved"}
    assert {rules for _, _, rules in came} == {("orders",)}
    events = [one["event"] for step in steps for one in step.lineage]
    assert "emerged" in events


def test_nobody_in_a_population_costs_nothing() -> None:
    rest = population("rest")
    one = make(populations=(population("whales", orders=(1e9, None)), rest))
    two = make(
        populations=(
            population("whales", orders=(1e9, None)),
            population("ghosts", silent=(1e9, None)),
            rest,
        )
    )
    assert [facts(step) for step in play(one)] == [facts(step) for step in play(two)]
    assert {segment.population for segment in two.segments} == {"rest"}


# -- how many ------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 4])
def test_users_suggest_how_many_segments_they_are(k: int) -> None:
    rng = np.random.default_rng(k)
    centres = rng.permutation(np.arange(k * 3.0).reshape(k, 3) * 4.0)
    points = centres[np.arange(600) % k] + rng.normal(0, 0.5, (600, 3))
    found = suggest(Space(points, np.ones(3)), seed=1)
    assert (found.k, found.firmness) == (k, "firm")


def test_a_number_left_to_the_users_is_told_and_kept() -> None:
    rng = np.random.default_rng(3)
    shop = (population("customers", orders=(1, None), segments="auto"), population("rest"))
    segmenter = make(populations=shop)
    users = np.arange(600)
    buys = users % 2 == 0
    for number in range(8):
        spread = rng.lognormal(0, 0.1, (600, 2))
        silent = np.where(users % 4 == 0, 3.0, 80.0) * spread[:, 0]
        visits = np.where(users % 4 == 0, 90.0, 2.0) * spread[:, 1]
        vectors = np.column_stack([np.where(buys, 3.0, 0.0), silent, visits])
        segmenter.update(users, vectors, float(number))
        part = segmenter._state.model and segmenter._state.model.part("customers")
        assert part
        assert (len(part.ids), part.choice) == (2, "firm")
    other = segmenter._state.model and segmenter._state.model.part("rest")
    assert other
    assert other.choice == "declared"


# -- the pipeline --------------------------------------------------------------------------------


class Played:
    """A shop with populations, played through an owner and a trainer in memory."""

    def __init__(self) -> None:
        learning = {"first_model_users": 100, "refit_seconds": "7d", "segments": 2}
        self.rehearsal = Rehearsal(Settings.model_validate({"learning": learning}))
        self.number = 0

    def day(self, day: int, acts: Sequence[tuple[str, str]]) -> list[SegmentChange]:
        """What users do on a day; the changes of its mark."""
        events = []
        for user, name in acts:
            self.number += 1
            events.append(event(user, name, START_MS + day * DAY_MS + self.number, self.number))

        def columns(partition: Partition) -> EventColumns:
            return batch(partition, events, self.rehearsal.table)

        self.rehearsal.fold([columns])
        return self.rehearsal.mark(START_MS + (day + 1) * DAY_MS).changes


def by_rule(change: SegmentChange) -> bool:
    """Whether the rule of a population moved the user."""
    return bool(change["why"]) and change["why"][0]["contribution"] is None


def test_acts_and_silence_and_the_model_cross_each_with_its_cause() -> None:
    shop = Played()
    rng = np.random.default_rng(4)
    everyone = [f"u{number}" for number in range(150)]
    for day in range(12):
        shop.day(day, [(user, VIEW) for user in everyone for _ in range(rng.integers(1, 4))])
    model = shop.rehearsal.state.model
    assert model is not None
    assert [part.population for part in model.parts] == ["visitors"]

    # A first order with nobody among the customers yet: they wait for a model of their own.
    early = shop.day(12, [(user, ORDER) for user in everyone[:30]])
    for day in range(13, 17):
        early += shop.day(day, [])
    crossed = [change for change in early if by_rule(change)]
    assert {change["user"] for change in crossed} == set(everyone[:30])
    assert {change["why"][0]["feature"] for change in crossed} == {"orders_total"}
    assert {change["cause"] for change in crossed} == {Cause.MODEL_MOVED}

    (moved,) = [c for c in shop.day(17, [("u99", ORDER)]) if c["user"] == "u99"]
    assert (moved["cause"], moved["margin"], moved["rest"]) == (Cause.USER_MOVED, None, None)
    assert [(why["feature"], why["contribution"]) for why in moved["why"]] == [
        ("orders_total", None),
        ("days_since_seen", None),
    ]
    assert moved["why"][0]["value"] == 1.0

    changes = []
    for day in range(18, 150, 3):
        acts = [(user, VIEW) for user in everyone[20:]]
        changes += shop.day(day, acts + [(user, ORDER) for user in everyone[20:30]])
    lapsed = [c for c in changes if c["user"] in everyone[:20] and by_rule(c)]
    assert {change["user"] for change in lapsed} == set(everyone[:20])
    assert {change["cause"] for change in lapsed} <= {Cause.TIME_PASSED, Cause.MODEL_MOVED}
    assert {change["why"][0]["feature"] for change in lapsed} == {"days_since_seen"}
    model = shop.rehearsal.state.model
    assert model is not None
    assert {part.population for part in model.parts} == {"customers", "lapsed", "visitors"}
    # The lapsed are held against the shop's customers, not against each other.
    kinds = {s.kind for s in model.segments if s.population == "lapsed"}
    assert kinds <= {"at_risk", "dormant"}
    assert len({s.name for s in model.segments}) == len(model.segments)
    json.dumps(model.published(shop.rehearsal.table), allow_nan=False)

    back = [c for c in shop.day(151, [("u3", VIEW)]) if c["user"] == "u3"]
    assert [(c["cause"], c["why"][0]["feature"]) for c in back] == [
        (Cause.USER_MOVED, "days_since_seen")
    ]
