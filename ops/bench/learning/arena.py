"""Decides what a method is asked, when, and on which stream; `scores` turns the answers to numbers.

A `Course` is a stream with what does not depend on the method worked out once: who is active at each
checkpoint, the common space, the batch KMeans there. `run` sends a method through it. Only
`update` is timed, in processor seconds of one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from ops.bench.learning.generator import (
    CONTINUUM,
    CORRELATED,
    MAIN,
    NEAR,
    SHARES,
    STATIONARY,
    Stream,
    play,
)
from ops.bench.learning.ours import segstream
from ops.bench.learning.rivals import RIVALS, Method
from ops.bench.learning.scores import (
    Ledger,
    Snapshot,
    cell_means,
    centroid_bias,
    identities,
    ids_of_two_groups,
    inertia,
    ratio,
)
from stream.clustering import FeatureMap, assign
from stream.events import Bools, Floats, Ints

BURN_IN = 0.1
CHECKPOINTS = 20
"""In a stream; those within the burn-in are not looked at."""
K = len(SHARES)
"""Segments every method is told to keep: as many as there are groups, but for a while."""
MILLION = 1_000_000
CHUNK = 50_000


@dataclass(frozen=True)
class Checkpoint:
    """The users active at a moment, and what batch KMeans makes of them.

    Attributes:
        users: who they are; the other columns are in their order.
        batch_inertia, batch_labels: of ``KMeans(n_init=10)`` in the common space.
    """

    users: Ints
    vectors: Floats
    truth: Ints
    map: FeatureMap
    mapped: Floats
    batch_inertia: float
    batch_labels: Ints


class Course:
    """A stream and its checkpoints."""

    def __init__(self, stream: Stream, seed: int) -> None:
        self.stream = stream
        self._seed = seed
        number = len(stream.batches)
        self.burnt_in = int(number * BURN_IN)
        marks = {round(number * share / CHECKPOINTS) - 1 for share in range(1, CHECKPOINTS + 1)}
        self.marks = sorted(mark for mark in marks if mark >= self.burnt_in)

    @cached_property
    def checkpoints(self) -> dict[int, Checkpoint]:
        """By the number of the micro-batch they follow."""
        stream, marks = self.stream, set(self.marks)
        watch = Watch(stream)
        latest = np.zeros((stream.users, stream.features))
        found = {}
        for number, batch in enumerate(stream.batches):
            latest[batch.users] = batch.vectors
            watch.see(number)
            if number in marks:
                users = np.flatnonzero(watch.active)
                found[number] = self._checkpoint(users, latest[users], watch.truth[users])
        return found

    def _checkpoint(self, users: Ints, vectors: Floats, truth: Ints) -> Checkpoint:
        common = FeatureMap.learn(vectors, np.ones(vectors.shape[1]))
        mapped = common.apply(vectors)
        batch = KMeans(n_clusters=K, n_init=10, random_state=self._seed).fit(mapped)
        labels = batch.labels_.astype(np.int64)
        # The same arithmetic on both sides of the ratio.
        return Checkpoint(
            users,
            vectors,
            truth,
            common,
            mapped,
            inertia(mapped, batch.cluster_centers_.astype(float)),
            labels,
        )

    def batch_ari(self) -> float:
        """How hard the stream is, whoever plays: batch KMeans against the truth."""
        agreed = [adjusted_rand_score(c.truth, c.batch_labels) for c in self.checkpoints.values()]
        return float(np.mean(agreed))


class Watch:
    """What an onlooker knows of a stream's users, micro-batch by micro-batch."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._seen = np.full(stream.users, -np.inf)
        self.truth = np.full(stream.users, -1, dtype=np.int64)
        self.active: Bools = np.zeros(stream.users, dtype=np.bool_)

    def see(self, number: int) -> None:
        batch = self._stream.batches[number]
        self._seen[batch.users] = batch.time
        self.truth[batch.users] = batch.truth
        self.active = self._seen > batch.time - self._stream.active_seconds


class BenchError(RuntimeError):
    """It cannot be measured; the message says why."""


def run(method: Method, course: Course) -> dict[str, float]:
    """Send a method through a course; numbers by name, NaN where there is nothing to tell."""
    stream = course.stream
    everyone = np.arange(stream.users)
    watch = Watch(stream)
    ledger = Ledger(stream.users, stream.scenario.groups)
    seconds = 0.0
    looks: list[dict[str, float]] = []
    snapshots: list[Snapshot] = []
    ids: set[int] = set()
    minted = 0
    for number, batch in enumerate(stream.batches):
        started = time.process_time()
        method.update(batch.users, batch.vectors, batch.time)
        seconds += time.process_time() - started

        watch.see(number)
        published = method.labels(everyone)
        live = set(method.centroids()[0].tolist())
        ledger.book(
            watch.truth,
            published,
            np.bincount(batch.users, minlength=stream.users),
            watch.active,
            batch.splitting,
            live,
            scored=number >= course.burnt_in,
        )
        minted += len(live - ids) if number >= course.burnt_in else 0
        ids |= live
        if number in course.checkpoints:
            if not live:
                raise BenchError("a method has no centroids after the burn-in; take more updates")
            looks.append(_look(method, course.checkpoints[number]))
            snapshots.append(Snapshot(watch.active, watch.truth.copy(), published, batch.alive))
    kept, asked = np.sum([identities(a, b) for a, b in pairwise(snapshots)], axis=0)
    return {
        **{name: float(np.mean([look[name] for look in looks])) for name in looks[0]},
        "inertia_ratio_worst": max(look["inertia_ratio_mean"] for look in looks),
        **ledger.numbers(),
        "identity_kept": ratio(kept, asked),
        "ids_of_two_groups": float(ids_of_two_groups(snapshots, stream.scenario.kin)),
        "ids_minted": float(minted),
        "seconds_per_10000_updates": seconds / stream.updates * 10_000,
    }


def _look(method: Method, checkpoint: Checkpoint) -> dict[str, float]:
    """A method's centroids and labels beside those of the batch."""
    mapped, batch = checkpoint.mapped, checkpoint.batch_inertia
    centroids = checkpoint.map.apply(method.centroids()[1])
    labels = method.assign(checkpoint.vectors)
    return {
        "inertia_ratio_mean": inertia(mapped, centroids) / batch,
        "cells_ratio_mean": inertia(mapped, cell_means(mapped, labels)) / batch,
        "ari_vs_batch": float(adjusted_rand_score(checkpoint.batch_labels, labels)),
        "ari_published": float(
            adjusted_rand_score(checkpoint.batch_labels, method.labels(checkpoint.users))
        ),
        "centroid_bias_sd": centroid_bias(mapped, checkpoint.truth, centroids),
    }


def workers_difference(one: Method, four: Method, course: Course) -> dict[str, float]:
    """Share of users published elsewhere by four workers, and how far centroids differ at most.

    Args:
        one, four: after the same course.
    """
    last = course.checkpoints[course.marks[-1]]
    everyone = np.arange(course.stream.users)
    ours, theirs = (m.labels(everyone) for m in (one, four))
    a, b = (last.map.apply(m.centroids()[1]) for m in (one, four))
    return {
        "workers_label_difference": float((ours != theirs).mean()),
        "workers_centroid_difference": float(np.abs(a - b).max()),
    }


def rescore_seconds(method: Method, course: Course) -> float:
    """Processor seconds to assign a million vectors in natural units, in portions."""
    vectors = course.checkpoints[course.marks[-1]].vectors
    portion = np.resize(vectors, (CHUNK, vectors.shape[1]))
    started = time.process_time()
    for _ in range(MILLION // CHUNK):
        method.assign(portion)
    return time.process_time() - started


def rescore_mapped_seconds(course: Course) -> float:
    """The same of users who are mapped already, as our owners and the library keep them."""
    last = course.checkpoints[course.marks[-1]]
    portion = np.resize(last.mapped, (CHUNK, last.mapped.shape[1]))
    centroids = cell_means(last.mapped, last.batch_labels)
    started = time.process_time()
    for _ in range(MILLION // CHUNK):
        assign(portion, centroids, last.map.weights)
    return time.process_time() - started


OURS = "segstream"
NEVER_FORGETS = "segstream_never_forgets"
"""The same, told nothing of the window within which the judge calls a user active."""
ONE_MARGIN = "segstream_one_margin"
"""The same, but near segments ask for no greater margin than others (`publish.apart`)."""
STREAM_FACTS = "streams"
STREAMS = (MAIN, STATIONARY, CORRELATED, CONTINUUM, NEAR)


@dataclass(frozen=True)
class Sizes:
    """How much is played.

    Attributes:
        slow_updates: of the stream for slow rivals; its users are fewer in proportion, so that
            each acts as often.
    """

    users: int
    updates: int
    slow_updates: int


@dataclass(frozen=True)
class Contestant:
    """A method by name, made anew for each stream.

    Attributes:
        make, parallel: of the stream and the seed; `parallel` is the same on four workers.
    """

    name: str
    make: Callable[[Stream, int], Method]
    slow: bool = False
    parallel: Callable[[Stream, int], Method] | None = None


def contestants(rivals: Sequence[str]) -> list[Contestant]:
    """Ours, the same that never forgets, the same with one margin, and the rivals of these names."""

    def of(make: Callable[[int, int, int], Method]) -> Callable[[Stream, int], Method]:
        return lambda stream, seed: make(stream.users, K, seed)

    def ours(workers: int, **told: bool) -> Callable[[Stream, int], Method]:
        return lambda stream, seed: segstream(stream, K, seed, workers, **told)

    found = [
        Contestant(OURS, ours(1), parallel=ours(4)),
        Contestant(NEVER_FORGETS, ours(1, forgets=False)),
        Contestant(ONE_MARGIN, ours(1, one_margin=True)),
    ]
    for name in rivals:
        entry = RIVALS[name]
        parallel = None if entry.parallel is None else of(entry.parallel)
        found.append(Contestant(name, of(entry.make), entry.slow, parallel))
    return found


def contest(
    seed: int, sizes: Sizes, methods: Sequence[Contestant], say: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Everyone on every stream of a seed: numbers by method, and what the streams are like.

    Slow methods play the main stream only, and a shorter one.
    """
    found: dict[str, dict[str, float]] = {method.name: {} for method in methods}
    found[STREAM_FACTS] = {}
    quick = [method for method in methods if not method.slow]
    slow = [method for method in methods if method.slow]
    slow_users = max(sizes.users * sizes.slow_updates // sizes.updates, 1)
    plan = [(scenario, quick, sizes.users, sizes.updates) for scenario in STREAMS]
    plan.append((MAIN, slow, slow_users, sizes.slow_updates))
    for scenario, playing, users, updates in plan:
        if not playing:
            continue
        course = Course(play(scenario, seed, users, updates), seed)
        if playing is quick:
            found[STREAM_FACTS][f"{scenario.name}_batch_ari_vs_truth"] = course.batch_ari()
        for contestant in playing:
            say(f"seed {seed}, {scenario.name}: {contestant.name}")
            method = contestant.make(course.stream, seed)
            told = run(method, course)
            if scenario is MAIN:
                told |= _besides(contestant, method, course, seed)
            found[contestant.name] |= headline(scenario.name, told)
    return found


def _besides(contestant: Contestant, method: Method, course: Course, seed: int) -> dict[str, float]:
    """What is asked of a method once, after the main stream."""
    told = {"seconds_per_million_rescored": rescore_seconds(method, course)}
    if contestant.parallel is not None:
        four = contestant.parallel(course.stream, seed)
        for batch in course.stream.batches:
            four.update(batch.users, batch.vectors, batch.time)
        told |= workers_difference(method, four, course)
    if contestant.name == OURS:
        told["seconds_per_million_mapped_rescored"] = rescore_mapped_seconds(course)
    return told


def headline(stream: str, told: dict[str, float]) -> dict[str, float]:
    """The numbers of a stream by the names of the report.

    The main stream's stand alone, the others' after their stream's name; but the centroid
    bias of the report is the one where activity correlates with features.
    """
    if stream == MAIN.name:
        return {name: value for name, value in told.items() if name != "centroid_bias_sd"}
    if stream == CORRELATED.name:
        return {"centroid_bias_sd": told["centroid_bias_sd"]}
    if stream == NEAR.name:
        near = ("spurious_changes_per_1000", "settled_share", "settled_early_share")
        return {f"{stream}_{name}": told[name] for name in near}
    wanted = (
        "inertia_ratio_mean",
        "spurious_changes_per_1000",
        "retired_changes_per_1000",
        "identity_kept",
        "ids_minted",
    )
    return {f"{stream}_{name}": told[name] for name in wanted}
