"""`ops/bench/learning`: streams do what they declare, scores are arithmetic, and once, small, all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from ops.bench.learning import __main__ as bench
from ops.bench.learning import arena, conversion
from ops.bench.learning.arena import (
    NEVER_FORGETS,
    ONE_MARGIN,
    OURS,
    STREAM_FACTS,
    BenchError,
    Course,
    K,
    contestants,
    run,
    workers_difference,
)
from ops.bench.learning.generator import (
    CORRELATED,
    MAIN,
    NEAR,
    STATIONARY,
    Abrupt,
    Gradual,
    Scenario,
    Stream,
    play,
)
from ops.bench.learning.ours import Segstream, segstream
from ops.bench.learning.report import HEADER, ROWS, over_seeds, section, summary
from ops.bench.learning.rivals import RIVALS, Flink, MiniBatch, Scale, Spark
from ops.bench.learning.scores import (
    EARLY_UPDATES,
    ENOUGH,
    SETTLE_UPDATES,
    Ledger,
    Snapshot,
    cell_means,
    centroid_bias,
    identities,
    ids_of_two_groups,
    inertia,
    matched,
)
from stream.events import Floats, Ints
from stream.segmenter import LEARNING, Segmenter

WANTED = (
    "inertia_ratio_mean",
    "inertia_ratio_worst",
    "ari_vs_batch",
    "spurious_changes_per_1000",
    "published_per_true_change",
    "settled_share",
    "settled_early_share",
    "identity_kept",
    "centroid_bias_sd",
    "seconds_per_10000_updates",
)
scenarios = st.sampled_from((MAIN, STATIONARY, CORRELATED, Scenario("even", exponent=0.0)))


@pytest.fixture(autouse=True, scope="module")
def small_and_on_one_thread() -> Iterator[None]:
    """One thread as in the benchmark itself; fewer checkpoints, because each fits a batch KMeans."""
    with threadpool_limits(1), pytest.MonkeyPatch.context() as patch:
        patch.setattr(arena, "CHECKPOINTS", 5)
        patch.setattr(arena, "MILLION", arena.CHUNK)
        yield


def small(scenario: Scenario = MAIN, seed: int = 1, updates: int = 4_000) -> Stream:
    return play(scenario, seed, users=300, updates=updates, features=8, batch=100)


def ints(*values: int) -> Ints:
    return np.array(values, dtype=np.int64)


# -- streams ----------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(scenarios, st.integers(0, 1_000), st.integers(1, 450))
def test_a_seed_makes_the_same_stream_and_its_parts_fit(
    scenario: Scenario, seed: int, updates: int
) -> None:
    stream, again = (play(scenario, seed, 60, updates, 7, batch=100) for _ in range(2))
    assert stream.updates == updates
    for one, other in zip(stream.batches, again.batches, strict=True):
        assert np.array_equal(one.vectors, other.vectors)
        assert np.array_equal(one.users, other.users)
        assert one.vectors.shape == (len(one.users), 7)
        assert one.truth.shape == one.users.shape
        assert np.isfinite(one.vectors).all()
        assert (one.vectors >= 0).all()
        assert ((one.users >= 0) & (one.users < 60)).all()
        assert one.alive[one.truth].all()
    times = [batch.time for batch in stream.batches]
    assert times == sorted(times)


def test_another_seed_makes_another_stream() -> None:
    assert not np.array_equal(small(seed=1).batches[0].vectors, small(seed=2).batches[0].vectors)


def test_more_groups_than_features_are_refused() -> None:
    with pytest.raises(ValueError, match="6 groups need"):
        play(MAIN, 1, 100, 100, features=5)


def test_a_group_dies_and_another_splits() -> None:
    stream = small()
    dead = [batch for batch in stream.batches if not batch.alive[3]]
    before = stream.batches[: len(stream.batches) // 3]
    assert dead
    assert all(batch.alive[3] for batch in before)
    assert any((batch.truth == 3).any() for batch in before)
    assert not any((batch.truth == 3).any() for batch in dead)

    died = {u for b in before for u in b.users[b.truth == 3].tolist()}
    later = {u for batch in dead for u in batch.users.tolist()}
    assert died & later, "some of the dead group's users move to another"
    assert died - later, "and some fall silent"

    born = [number for number, batch in enumerate(stream.batches) if batch.alive[5]]
    splitting = [number for number, batch in enumerate(stream.batches) if 0 in batch.splitting]
    assert splitting
    assert max(splitting) + 1 == min(born)
    halves = np.concatenate([stream.batches[number].truth for number in born])
    assert 0.25 < (halves == 5).sum() / np.isin(halves, (0, 5)).sum() < 0.75
    first = stream.batches[born[0]]
    new = first.users[first.truth == 5]
    during = [stream.batches[number] for number in splitting]
    assert all(set(b.truth[np.isin(b.users, new)].tolist()) <= {0} for b in during)
    assert MAIN.kin.tolist() == [0, 1, 2, 3, 4, 0]


def _centre(stream: Stream, part: slice, group: int) -> Floats:
    batches = stream.batches[part]
    logs = [np.log1p(batch.vectors[batch.truth == group]) for batch in batches]
    centre: Floats = np.concatenate(logs).mean(axis=0)
    return centre


def test_centres_drift_jump_or_stay() -> None:
    events = (Gradual(0, 0.0, 1.0, 20.0), Abrupt(1, 0.5, 20.0))
    stream = small(Scenario("drifting", events, exponent=0.0), updates=8_000)
    start, middle, end = slice(0, 8), slice(30, 38), slice(72, 80)

    def moved(group: int, before: slice, after: slice) -> float:
        return float(np.linalg.norm(_centre(stream, after, group) - _centre(stream, before, group)))

    assert 2 < moved(0, start, middle) < moved(0, start, end)
    assert moved(1, start, middle) < 1
    assert moved(1, middle, end) > 4
    assert moved(2, start, end) < 1


def test_groups_of_the_normal_shop_are_near_and_users_move_between_them() -> None:
    def apart(scenario: Scenario) -> float:
        stream = small(Scenario("any", separation=scenario.separation, exponent=0.0))
        centres = [_centre(stream, slice(0, 40), group) for group in range(5)]
        return float(np.mean([np.linalg.norm(a - b) for a, b in combinations(centres, 2)]))

    assert 0.3 < apart(NEAR) / apart(STATIONARY) < 0.5
    truth: dict[int, set[int]] = {}
    for batch in small(NEAR).batches:
        for user, group in zip(batch.users.tolist(), batch.truth.tolist(), strict=True):
            truth.setdefault(user, set()).add(group)
    assert sum(len(groups) > 1 for groups in truth.values()) > 10


def test_near_segments_ask_for_more_so_fewer_changes_are_told_for_nothing() -> None:
    stream = play(NEAR, 4, users=1_000, updates=10_000, features=8)
    course = Course(stream, 4)
    ours, one_margin = (
        run(segstream(stream, K, 4, one_margin=one), course)["spurious_changes_per_1000"]
        for one in (False, True)
    )
    assert ours < 0.75 * one_margin


def test_activity_is_skewed_and_bound_to_features_where_declared() -> None:
    for scenario, bound in ((STATIONARY, False), (CORRELATED, True)):
        stream = play(scenario, 3, users=300, updates=12_000, features=8, batch=500)
        users = np.concatenate([batch.users for batch in stream.batches])
        acts = np.bincount(users, minlength=300)
        assert acts.max() > 5 * np.median(acts)
        logs = np.log1p(np.concatenate([batch.vectors for batch in stream.batches]))
        truth = np.concatenate([batch.truth for batch in stream.batches])
        busy = acts[users] > np.median(acts[users])
        gap = [
            (logs[(truth == g) & busy].mean(axis=0) - logs[(truth == g) & ~busy].mean(axis=0))
            for g in range(5)
        ]
        # The shift is the same in every group, the chance of who is busy is not.
        assert (float(np.linalg.norm(np.mean(gap, axis=0))) > 0.6) is bound


# -- scores -----------------------------------------------------------------------------------


def test_inertia_and_cells() -> None:
    mapped = np.array([[0.0, 0.0], [2.0, 0.0], [10.0, 0.0]])
    assert inertia(mapped, np.array([[1.0, 0.0], [10.0, 1.0]])) == 3.0
    means = cell_means(mapped, ints(7, 7, 3))
    assert means.tolist() == [[10.0, 0.0], [1.0, 0.0]]


def test_centroid_bias_is_in_standard_deviations_within_groups() -> None:
    mapped = np.array([[-2.0], [2.0], [98.0], [102.0]])
    truth = ints(0, 0, 1, 1)
    assert centroid_bias(mapped, truth, np.array([[0.0], [100.0]])) == 0.0
    assert centroid_bias(mapped, truth, np.array([[1.0], [103.0]])) == 1.0


def test_ids_are_matched_one_to_one() -> None:
    truth = ints(0, 0, 0, 1, 1, 2, -1)
    assert matched(truth, ints(7, 7, 9, 7, 9, -1, 9), 3).tolist() == [7, 9, -1]
    assert matched(ints(0), ints(-1), 2).tolist() == [-1, -1]


def snapshot(truth: Ints, published: Ints, alive: tuple[bool, ...]) -> Snapshot:
    return Snapshot(np.ones(len(truth), dtype=np.bool_), truth, published, np.array(alive))


def test_identity_is_that_of_most_users_and_of_one_group() -> None:
    truth = np.repeat(ints(0, 1, 2), ENOUGH)
    ids = np.repeat(ints(4, 5, 6), ENOUGH)
    alive = (True, True, False)
    before = snapshot(truth, ids, alive)
    assert identities(before, before) == (2, 2)
    swapped = np.repeat(ints(4, 7, 6), ENOUGH)
    assert identities(before, snapshot(truth, swapped, alive)) == (1, 2)
    few = ids.copy()
    few[:5] = 5
    assert identities(before, snapshot(truth, few, alive)) == (2, 2)
    one_for_all = snapshot(truth, np.full_like(ids, 4), alive)
    assert identities(one_for_all, one_for_all) == (0, 2)


def test_an_id_that_goes_to_another_group_is_found() -> None:
    truth = np.repeat(ints(0, 1, 2), ENOUGH)
    kin = ints(0, 1, 0)
    first = snapshot(truth, np.repeat(ints(4, 5, 4), ENOUGH), (True, True, True))
    assert ids_of_two_groups([first], kin) == 0
    later = snapshot(truth, np.repeat(ints(5, 6, 4), ENOUGH), (True, True, True))
    assert ids_of_two_groups([first, later], kin) == 1


def booked(
    *steps: tuple[tuple[int, ...], tuple[int, ...]],
    splitting: tuple[int, ...] = (),
    live: tuple[int, ...] = (4, 5, 6, 7),
) -> Ledger:
    """A ledger of users who each act once in every step."""
    users = len(steps[0][0])
    ledger = Ledger(users, 3)
    everyone = np.ones(users, dtype=np.int64)
    for truth, published in steps:
        active = everyone.astype(bool)
        ledger.book(ints(*truth), ints(*published), everyone, active, splitting, live, scored=True)
    return ledger


def test_who_leaves_an_id_that_is_no_more_is_booked_apart() -> None:
    ledger = booked(((0, 1), (4, 5)), ((0, 1), (6, 5)), ((0, 1), (6, 6)), live=(6, 5))
    assert (ledger.published, ledger.spurious, ledger.retired) == (1, 1, 1)
    assert ledger.numbers()["retired_changes_per_1000"] == 1_000 * 1 / 6


def test_a_change_the_truth_does_not_owe_is_spurious() -> None:
    ledger = booked(((0, 1), (-1, 5)), ((0, 1), (4, 5)), ((0, 1), (5, 5)), ((0, 1), (4, 5)))
    assert (ledger.published, ledger.spurious, ledger.true) == (2, 2, 0)
    assert ledger.numbers()["spurious_changes_per_1000"] == 1_000 * 2 / 8
    assert math.isnan(ledger.numbers()["published_per_true_change"])


def test_a_true_change_owes_one_change_and_not_two() -> None:
    ledger = booked(((0,), (4,)), ((1,), (4,)), ((1,), (5,)), ((1,), (4,)))
    assert (ledger.published, ledger.spurious, ledger.true) == (2, 1, 1)
    assert ledger.numbers()["published_per_true_change"] == 2.0


def test_while_a_group_splits_its_users_may_change() -> None:
    steps = (((0, 1), (4, 5)), ((0, 1), (6, 7)), ((0, 1), (4, 5)))
    assert booked(*steps, splitting=(0,)).spurious == 2
    assert booked(*steps).spurious == 4


def test_who_is_forgotten_and_comes_back_elsewhere_has_changed() -> None:
    ledger = booked(((0,), (4,)), ((0,), (-1,)), ((0,), (5,)))
    assert (ledger.published, ledger.spurious) == (1, 1)


def test_who_moved_is_judged_after_some_acts_more() -> None:
    before = ((0, 0, 1), (4, 4, 5))
    moved = ((0, 1, 1), (4, 4, 5))
    settled = ((0, 1, 1), (4, 5, 5))
    slow = booked(before, moved, *[moved] * SETTLE_UPDATES)
    assert judged(slow) == {"early": (1, 0), "late": (1, 0)}
    for acts, expected in (
        (EARLY_UPDATES - 1, {"early": (0, 0), "late": (0, 0)}),
        (EARLY_UPDATES, {"early": (1, 1), "late": (0, 0)}),
        (SETTLE_UPDATES - 1, {"early": (1, 1), "late": (0, 0)}),
        (SETTLE_UPDATES + 5, {"early": (1, 1), "late": (1, 1)}),
    ):
        assert judged(booked(before, moved, *[settled] * acts)) == expected
    last = booked(before, moved, *[moved] * (SETTLE_UPDATES - 1), settled)
    assert judged(last) == {"early": (1, 0), "late": (1, 1)}
    assert last.numbers()["settled_share"] == 1.0
    assert last.numbers()["settled_early_share"] == 0.0
    again = booked(before, moved, before, *[before] * SETTLE_UPDATES)
    assert judged(again) == {"early": (1, 1), "late": (1, 1)}


def judged(ledger: Ledger) -> dict[str, tuple[int, int]]:
    """How many were judged, and how many of them had settled."""
    return {
        "early": (ledger.early.judged, ledger.early.settled),
        "late": (ledger.late.judged, ledger.late.settled),
    }


# -- rivals -----------------------------------------------------------------------------------


def test_a_scale_goes_there_and_back() -> None:
    vectors = np.array([[0.0, 10.0], [3.0, 10.0], [50.0, 10.0]])
    for strengthened in (False, True):
        scale = Scale(vectors, strengthened=strengthened)
        assert np.allclose(scale.invert(scale.apply(vectors)), vectors)


def test_spark_weighs_what_was_by_its_half_life() -> None:
    spark = Spark(4, 1, 1, strengthened=False, half_life=1.0)
    spark.update(ints(0, 1), np.array([[4.0], [4.0]]), 0.0)
    assert spark.centroids()[1].tolist() == [[4.0]]
    # Two points of half the weight at 4, one at 10.
    spark.update(ints(2), np.array([[10.0]]), 1.0)
    assert spark.centroids()[1].tolist() == [[7.0]]
    by_points = Spark(4, 1, 1, strengthened=False, half_life=2.0, unit="points")
    by_points.update(ints(0, 1), np.array([[4.0], [4.0]]), 0.0)
    by_points.update(ints(2, 3), np.array([[10.0], [10.0]]), 1.0)
    assert np.allclose(by_points.centroids()[1], 4.0 + 6.0 * 2 / 3)


def test_spark_splits_the_heaviest_when_another_dies() -> None:
    spark = Spark(10, 2, 1, strengthened=False)
    vectors = np.array([[1e6], [1e6 + 1]])
    spark.update(ints(0, 1), vectors, 0.0)
    ids, centroids = spark.centroids()
    assert ids.tolist() == [0, 1]
    assert np.allclose(centroids, 1e6 + 0.5)


def test_flink_is_the_same_on_four_workers_and_as_spark() -> None:
    stream = small(STATIONARY)
    one, four = (Flink(300, 5, 1, strengthened=True, half_life=20.0, parallelism=n) for n in (1, 4))
    spark = Spark(300, 5, 1, strengthened=True, half_life=20.0)
    for batch in stream.batches[:10]:
        for method in (one, four, spark):
            method.update(batch.users, batch.vectors, batch.time)
    assert np.allclose(one.centroids()[1], four.centroids()[1])
    assert np.allclose(one.centroids()[1], spark.centroids()[1])


def test_the_last_of_a_users_updates_is_published() -> None:
    method = MiniBatch(3, 2, 1, strengthened=False)
    vectors = np.array([[0.0], [100.0], [0.0], [100.0]])
    method.update(ints(0, 1, 2, 2), vectors, 0.0)
    assert method.labels(ints(2)) == method.labels(ints(1)) != method.labels(ints(0))


@pytest.mark.parametrize("name", [OURS, NEVER_FORGETS, ONE_MARGIN, *RIVALS])
def test_every_method_keeps_its_promises(name: str) -> None:
    stream = play(STATIONARY, 1, users=700, updates=1_500, features=6, batch=500)
    method = next(c for c in contestants(list(RIVALS)) if c.name == name).make(stream, 1)
    everyone = np.arange(stream.users)
    given = [batch.vectors.copy() for batch in stream.batches]
    for batch, before in zip(stream.batches, given, strict=True):
        method.update(batch.users, batch.vectors, batch.time)
        assert np.array_equal(batch.vectors, before)
    ids, centroids = method.centroids()
    assert centroids.shape == (len(ids), 6)
    assert len(set(ids.tolist())) == 5
    labels = method.labels(everyone)
    acted = np.isin(everyone, np.concatenate([batch.users for batch in stream.batches]))
    assert set(labels[stream.batches[-1].users].tolist()) <= set(ids.tolist())
    assert (labels[~acted] == -1).all()
    nearest = method.assign(given[-1])
    assert set(nearest.tolist()) <= set(ids.tolist())


# -- courses and reports ----------------------------------------------------------------------


class Oracle:
    """Publishes the truth, its centroids those of batch KMeans: the best there is."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._number = -1
        self._truth = np.full(course.stream.users, -1, dtype=np.int64)

    def update(self, users: Ints, vectors: Floats, time: float) -> None:
        del vectors, time
        self._number += 1
        self._truth[users] = self._course.stream.batches[self._number].truth

    def labels(self, users: Ints) -> Ints:
        return self._truth[users]

    def assign(self, vectors: Floats) -> Ints:
        found = self._course.checkpoints[self._number]
        assert np.array_equal(vectors, found.vectors)
        return found.batch_labels

    def centroids(self) -> tuple[Ints, Floats]:
        found = self._course.checkpoints.get(self._number)
        if found is None:
            return np.arange(6), np.zeros((6, self._course.stream.features))
        means = cell_means(found.mapped, found.batch_labels)
        return np.arange(6), found.map.invert(means)


def test_the_truth_has_a_perfect_score() -> None:
    course = Course(small(), 1)
    numbers = run(Oracle(course), course)
    assert numbers["inertia_ratio_mean"] == pytest.approx(1.0, abs=0.01)
    assert numbers["cells_ratio_mean"] == pytest.approx(1.0)
    assert numbers["ari_vs_batch"] == 1.0
    assert numbers["spurious_changes_per_1000"] == 0.0
    assert numbers["published_per_true_change"] == 1.0
    assert numbers["settled_share"] > 0.99
    assert numbers["identity_kept"] == 1.0
    assert numbers["ids_of_two_groups"] == numbers["ids_minted"] == 0.0


def test_the_batch_at_a_checkpoint_is_scikit_learns() -> None:
    course = Course(small(STATIONARY), 1)
    last = course.checkpoints[course.marks[-1]]
    batch = KMeans(n_clusters=5, n_init=10, random_state=1).fit(last.mapped)
    assert last.batch_inertia == pytest.approx(batch.inertia_)
    assert course.marks[0] >= course.burnt_in


def test_a_method_without_centroids_is_refused() -> None:
    course = Course(small(STATIONARY), 1)
    late = LEARNING.model_copy(update={"first_model_users": 4_000})
    method = Segstream(Segmenter(course.stream.features, 5, learning=late))
    with pytest.raises(BenchError, match="no centroids"):
        run(method, course)


def test_workers_are_compared_by_labels_and_centroids() -> None:
    stream = play(STATIONARY, 1, users=1_000, updates=2_000, features=6, batch=500)
    course = Course(stream, 1)
    ours = contestants([])[0]
    assert ours.parallel is not None
    one, four = ours.make(stream, 1), ours.parallel(stream, 1)
    for batch in stream.batches:
        one.update(batch.users, batch.vectors, batch.time)
    for batch in stream.batches:
        four.update(batch.users, batch.vectors, batch.time)
    found = workers_difference(one, four, course)
    assert found == {"workers_label_difference": 0.0, "workers_centroid_difference": 0.0}


def test_numbers_are_means_over_seeds_but_the_worst_is_the_worst() -> None:
    rows = [
        {"inertia_ratio_mean": 1.0, "inertia_ratio_worst": 1.0, "settled_share": math.nan},
        {"inertia_ratio_mean": 2.0, "inertia_ratio_worst": 3.0, "settled_share": 0.5},
    ]
    assert over_seeds(rows) == {
        "inertia_ratio_mean": 1.5,
        "inertia_ratio_worst": 3.0,
        "settled_share": 0.5,
    }
    assert over_seeds(rows[:1])["settled_share"] is None


def test_the_report_has_a_column_a_method_and_a_row_a_number() -> None:
    numbers = {name: 1.0 for _, name, _, _ in ROWS}
    found = {
        OURS: numbers,
        NEVER_FORGETS: {"settled_share": 0.75},
        ONE_MARGIN: {"settled_share": 0.8},
        "spark": {"settled_share": 0.5},
        STREAM_FACTS: {"main_batch_ari": 0.9},
    }
    facts = {"users": 1_000, "updates": 20_000, "slow_updates": 20_000}
    report = summary({101: found, 102: found}, facts)
    assert set(WANTED) <= set(report)
    assert report["rivals"] == {"spark": {"settled_share": 0.5}}
    assert report[NEVER_FORGETS] == {"settled_share": 0.75}
    assert report[ONE_MARGIN] == {"settled_share": 0.8}
    assert json.loads(json.dumps(report))["by_seed"]["102"][OURS]["settled_share"] == 1.0
    text = section(report, datetime(2026, 11, 21, 9, 0, tzinfo=UTC))
    assert text.startswith("## 2026-11-21 09:00 UTC\n")
    assert (
        "| | to reach | segstream | segstream, never forgets | segstream, one margin | spark |"
        in text
    )
    assert (
        "| users who settle on the right segment, eight acts | .96 | 1.000 | 0.750 | 0.800 | 0.500 |"
        in text
    )


def test_arguments_have_defaults_and_limits(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = bench.parse([])
    assert (wanted.seeds, wanted.first_seed, wanted.users, wanted.updates) == (
        3,
        101,
        12_000,
        200_000,
    )
    assert wanted.rivals == tuple(RIVALS)
    assert bench.parse(["--rivals", "none"]).rivals == ()
    assert bench.parse(["--rivals", "flink, spark,flink"]).rivals == ("flink", "spark")
    for wrong in (["--users", "10"], ["--updates", "many"], ["--seeds", "0"], ["--rivals", "best"]):
        with pytest.raises(SystemExit) as ended:
            bench.parse(wrong)
        assert ended.value.code == 2
    assert "'best' is no rival; there are minibatch, spark" in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_benchmark_runs_to_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results = tmp_path / "learning.md"
    monkeypatch.setattr(bench, "RESULTS", results)
    monkeypatch.setattr(bench, "LEAST_USERS", 600)
    monkeypatch.setattr(bench, "LEAST_UPDATES", 8_000)
    # The other rates are those of `test_bench_conversion`.
    monkeypatch.setattr(conversion, "RATES", (0.1,))
    small_run = "--json --seeds 1 --users 600 --updates 8000 --rivals flink"
    assert bench.main(small_run.split()) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(WANTED) <= set(report)
    assert set(WANTED) <= set(report["rivals"]["flink"])
    assert set(WANTED) <= set(report[NEVER_FORGETS])
    assert {name for _, name, _, _ in ROWS} <= set(report)
    assert report["workers_label_difference"] == 0.0
    assert report["seeds"] == [101]
    assert results.read_text().startswith(HEADER)


def test_what_cannot_be_written_is_told_in_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "file" / "learning.md")
    monkeypatch.setattr(
        bench,
        "contest",
        lambda *_: {OURS: {}, NEVER_FORGETS: {}, ONE_MARGIN: {}, STREAM_FACTS: {}},
    )
    assert bench.main(["--seeds", "1", "--no-conversion"]) == 1
    assert capsys.readouterr().err.startswith("bench-learning: ")
