"""How many segments the users suggest, before anyone chooses.

Comes in: a played history, or the store of a running pipeline. Goes out: a `Study`, and its facts;
`charts` and `report` draw it. Vectors are made as the pipeline makes them: events are folded by a
`Partition`; only Kafka and Redis are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from stream.clustering import FeatureMap, assign, living, smallest_hashes
from stream.config import Settings
from stream.events import Counts, EventColumns, Floats, Hashes, Ints, Rows
from stream.features import FeatureTable
from stream.hashing import user_hashes
from stream.insight.facts import StudyFacts
from stream.insight.history import OpenHistory
from stream.kinds import Members, kinds
from stream.learning.choosing import (
    NOISE,
    Advice,
    Density,
    Distance,
    KMeans,
    MergeDown,
    Space,
    advise,
    distinct,
    elbow,
    fits_by_k,
    mean_inertia,
    means_of,
    merge_down,
    silhouettes,
    space_of,
    stability,
)
from stream.model import Model
from stream.naming import Truth, propose_names
from stream.partition import Partition, SchemaMismatchError
from stream.rows import RowFormatError
from stream.segments import PublishRule, columns_of
from stream.store.promises import ReaderStore
from stream.store.state import Position
from stream.turns import KindBook, recoded
from stream.units import iso, milliseconds

AlgorithmName = Literal["kmeans", "density"]


FEWEST_USERS = 20
"""Fewer are easier looked at one by one; `learning.first_model_users` allows no fewer either."""


_CHUNK = 5_000


BOOTSTRAP_STARTS = 3
"""Of k-means++, each time users are drawn again: fewer than a trainer's, so that stability is rather
under- than overrated."""


class ExploreError(Exception):
    """There is nothing to look at; the message says why."""


@dataclass(frozen=True)
class People:
    """The users looked at: a uniform sample by hash, as the trainer's is.

    Attributes:
        vectors: ``(users, features)`` in natural units, as of `at_ms`.
        segments: ``(users,)`` the segment each is published in; 0 for none.
        hashes: ``(users,)``.
        total: how many users there are.
        source: where they come from, for the heading.
        notes: what a reader should know of how they were read.
    """

    vectors: Floats
    segments: Ints
    hashes: Hashes
    total: int
    at_ms: int
    source: str
    notes: tuple[str, ...] = ()


# -- from a history ----------------------------------------------------------------------------


def read_history(
    settings: Settings,
    table: FeatureTable,
    open_history: OpenHistory,
    at: datetime | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> People:
    """Fold a history's events, and look at its users as of its end, or as of a time.

    Raises:
        ExploreError: nothing of it is left to look at.
        Exception: whatever opening it raises.
    """
    at_ms = None if at is None else milliseconds(at)
    partition = _partition(table)

    def fold(columns: Sequence[Callable[[Partition], EventColumns]]) -> int:
        events = EventColumns.concatenate([one(partition) for one in columns])
        tell(f"folding, {history.folded:,} of {history.mapped:,} events")
        return partition.fold(events)[1]

    with open_history(settings, table) as history:
        ends = list(history.play(fold, until_ms=at_ms))
    rows, counts, refused = history.rows, history.counts, history.refused.total()
    why = ", ".join(f"{count:,} {reason}" for reason, count in history.refused.most_common(3))
    if len(partition) == 0:
        nobody = _nobody(history.files[0], rows, refused, why, counts, at)
        raise ExploreError("\n".join([nobody, *history.notes, *history.refusal_lines()]))
    now_ms = ends[-1] if at_ms is None else at_ms
    saved = partition.commit([0, 0], counts, now_ms)
    notes = [f"{rows:,} rows, {counts.applied:,} events counted"]
    notes += history.notes
    if refused:
        notes.append(f"{refused:,} rows refused ({why})")
        notes += history.refusal_lines()
    sample = _sample(settings, table, [(saved.users, saved.rows)], key=b"")
    source = ", ".join(file.name for file in history.files)
    return _people(table, sample, now_ms, source, tuple(notes))


def _partition(table: FeatureTable) -> Partition:
    rule = PublishRule(margin=0.0, provisional_looks=0, dwell_ms=0)
    return Partition(0, table, rule, Position([0, 0], table.schema), 0)


def _nobody(
    file: Path, rows: int, refused: int, why: str, counts: Counts, at: datetime | None
) -> str:
    if rows == 0:
        return f"{file}: no rows"
    if refused >= rows:
        return f"{file}: every row was refused ({why}); is this the right mapping?"
    if at is not None:
        return f"{file}: no events before {at}"
    return (
        f"{file}: {counts.ignored:,} of {counts.consumed:,} events are watched by no feature, the "
        f"rest was refused ({why or 'nothing'}); is this the right mapping?"
    )


# -- from the store ----------------------------------------------------------------------------


def read_store(
    settings: Settings,
    table: FeatureTable,
    store: ReaderStore,
    model: Model,
    tell: Callable[[str], None] = lambda _: None,
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> People:
    """Look at a sample of a running pipeline's users, as they are now by the clock in use.

    Raises:
        ExploreError: there are too few users.
        SchemaMismatchError: the rows were written by another feature table.
    """
    kept, clock_ms = sample_store(settings, table, store, tell, wall_ms)
    notes = (f"the users of the running pipeline, under its model {model.name}",)
    return _people(table, kept, clock_ms, "the live store", notes)


def sample_store(
    settings: Settings,
    table: FeatureTable,
    store: ReaderStore,
    tell: Callable[[str], None] = lambda _: None,
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> tuple[Sampled, int]:
    """A sample of a running pipeline's users, and what time it is by the clock in use.

    Every user is looked past once, a few thousand at a time; only the sample is kept.

    Raises:
        SchemaMismatchError: the rows were written by another feature table.
    """
    clock_ms = 0
    book = KindBook([])

    def portions() -> Iterator[tuple[Sequence[bytes], bytes]]:
        nonlocal clock_ms
        seen = 0
        for number in range(settings.topics.partitions):
            position = store.position(number)
            if position is None:
                continue
            if position.schema != table.schema:
                raise SchemaMismatchError(
                    f"partition {number} holds rows of feature table {position.schema}, but the "
                    f"settings declare {table.schema}; use the settings the pipeline runs with"
                )
            clock_ms = max(clock_ms, position.clock_ms)
            users = iter(store.load(number))
            while portion := list(islice(users, _CHUNK)):
                names, rows = zip(*portion, strict=True)
                seen += len(names)
                tell(f"looking through the store, {seen:,} users")
                try:
                    there = table.unpacked(b"".join(rows))
                except RowFormatError:
                    yield names, b"".join(rows)
                else:
                    yield names, recoded(there, position.kinds, book).tobytes()

    kept = _sample(settings, table, portions(), store.namespace_key())
    kept = replace(kept, kinds=tuple(book.names))
    return kept, wall_ms() if settings.clock.mode == "live" else clock_ms


# -- both --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampled:
    """Users with the smallest hashes, by hash, and of how many they are.

    Attributes:
        kinds: names of the codes in rows.
    """

    rows: Rows
    hashes: Hashes
    total: int
    kinds: tuple[str, ...] = ()


def _sample(
    settings: Settings,
    table: FeatureTable,
    portions: Iterable[tuple[Sequence[bytes], bytes]],
    key: bytes,
) -> Sampled:
    """The users with the smallest hashes, as the trainer's sample has them (bottom-k)."""
    rows, hashes = table.blank(0), np.empty(0, np.uint64)
    total = 0
    for names, raw in portions:
        try:
            more = table.unpacked(raw)
        except RowFormatError:
            raise SchemaMismatchError("the store holds rows of another format") from None
        # Who is known by what the shop did only is in no sample.
        seen = more["seen"] > 0
        total += int(np.count_nonzero(seen))
        rows = np.concatenate([rows, more[seen]])
        hashes = np.concatenate([hashes, user_hashes(names, key)[seen]])
        chosen = smallest_hashes(hashes, settings.learning.sample_users)
        rows, hashes = rows[chosen], hashes[chosen]
    return Sampled(rows, hashes, total)


def _people(
    table: FeatureTable, sample: Sampled, at_ms: int, source: str, notes: tuple[str, ...]
) -> People:
    vectors = table.vectors(sample.rows, at_ms)
    known = living(vectors)
    vectors, segments = vectors[known], sample.rows["segment"][known].astype(np.int64)
    if len(vectors) < FEWEST_USERS:
        few = f"{source}: {len(vectors):,} users; it takes {FEWEST_USERS} to speak of segments"
        raise ExploreError("\n".join([few, *notes]))
    return People(vectors, segments, sample.hashes[known], sample.total, at_ms, source, notes)


# -- the study ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wish:
    """What was asked for.

    Attributes:
        k: segments to show; None shows what is suggested, or the running model's.
    """

    distance: Distance = "euclid"
    algorithm: AlgorithmName = "kmeans"
    k_max: int = 10
    k: int | None = None
    bootstraps: int = 16


@dataclass(frozen=True)
class Shown:
    """The segments that the pictures show, largest first.

    Attributes:
        labels: ``(users,)`` place of each user's segment, `NOISE` for none.
        ids: numbers in pictures; those of the running model, or 1, 2, 3 ..
        centroids: ``(k, features)`` in standard deviations.
        natural: the same in natural units: the typical member.
        sizes: of the sample.
        stability: of these very segments; None if that was not measured.
    """

    labels: Ints
    ids: tuple[int, ...]
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    centroids: Floats
    natural: Floats
    sizes: tuple[int, ...]
    stability: float | None


@dataclass(frozen=True)
class Study:
    """Everything there is to show.

    Attributes:
        space: where distances are measured.
        inertia, silhouette: by k.
        stability: by k, ``(bootstraps,)``.
        separation: the merge-down.
        configured: `learning.segments`.
        model: whose segments are shown, if they are a running model's.
    """

    people: People
    table: FeatureTable
    wish: Wish
    space: Space
    inertia: dict[int, float]
    silhouette: dict[int, float]
    stability: dict[int, Floats]
    separation: MergeDown
    advice: Advice
    shown: Shown
    configured: int
    model: str | None

    @property
    def noise(self) -> int:
        return int(np.count_nonzero(self.shown.labels == NOISE))


def study(
    settings: Settings,
    table: FeatureTable,
    people: People,
    wish: Wish,
    model: Model | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Study:
    """Measure by k, make a proposal, and group.

    Args:
        model: in force, if there is one: its map is used, and its segments are shown unless the
            wish says otherwise.

    Raises:
        ExploreError: all users look the same, or nobody is in any group.
    """
    learning = settings.learning
    feature_map = FeatureMap.learn(people.vectors, table.weights) if model is None else model.map
    mapped = feature_map.apply(people.vectors)
    space = space_of(wish.distance, mapped, feature_map.weights)
    different = distinct(space)
    if different < 3:
        raise ExploreError(
            f"{people.source}: its {len(mapped):,} users make {different} different points in "
            "features: there is nothing to tell apart"
        )
    k_max = min(wish.k_max, different - 1)
    if k_max < wish.k_max:
        note = f"no more than {k_max} segments were tried: users make {different} different points"
        people = replace(people, notes=(*people.notes, note))
    if wish.k is not None and wish.k > k_max:
        raise ExploreError(f"--k {wish.k}: no more than {k_max} segments can be told apart here")

    def kmeans(k: int, starts: int = learning.starts) -> KMeans:
        return KMeans(k, starts=starts, seed=learning.seed)

    tell("fitting")
    fits = fits_by_k(space, k_max, kmeans)
    stable: dict[int, Floats] = {}
    for k in range(2, k_max + 1):
        tell(f"drawing the users again, k = {k} of {k_max}")
        stable[k] = stability(
            space, kmeans(k, BOOTSTRAP_STARTS), fits[k], wish.bootstraps, learning.seed
        )
    separation = merge_down(space, fits[k_max])
    advice = advise(separation.k, {k: float(found.mean()) for k, found in stable.items()})

    lasting: float | None = None
    if wish.algorithm == "density":
        tell("looking for dense regions")
        groups = Density().fit(space)
        if groups.k == 0:
            raise ExploreError(
                f"{people.source}: nowhere do users stand densely enough for a group"
            )
        again = stability(space, Density(), groups, min(wish.bootstraps, 4), learning.seed)
        lasting = float(again.mean())
    elif model is None or wish.k is not None:
        groups = fits[advice.k if wish.k is None else wish.k]
        lasting = float(stable[groups.k].mean())
    else:
        groups = None
        if len(model.ids) in stable:
            lasting = float(stable[len(model.ids)].mean())
    if groups is None:
        assert model is not None
        shown = _of_model(model, people, mapped, lasting)
        used: str | None = model.name
    else:
        shown = _named(groups.labels, people, mapped, feature_map, settings, table, lasting)
        used = None
    return Study(
        people=people,
        table=table,
        wish=wish,
        space=space,
        inertia={k: mean_inertia(space, fit) for k, fit in fits.items()},
        silhouette=silhouettes(space, fits),
        stability=stable,
        separation=separation,
        advice=advice,
        shown=shown,
        configured=learning.segments,
        model=used,
    )


def _named(
    labels: Ints,
    people: People,
    mapped: Floats,
    feature_map: FeatureMap,
    settings: Settings,
    table: FeatureTable,
    lasting: float | None,
) -> Shown:
    """Groups as segments: the largest first, with kinds and names as the trainer would give."""
    sizes = np.bincount(labels[labels >= 0])
    order = np.argsort(-sizes, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    ranked = np.where(labels >= 0, place[labels], NOISE)
    centroids = means_of(mapped, ranked)
    natural = feature_map.invert(centroids)
    some = ranked >= 0
    members = Members(people.vectors[some], ranked[some], table.names, len(centroids))
    kind_list = kinds(members, settings.kinds, [None] * len(centroids))
    truth = Truth(table, members, settings.learning.word_share)
    names = propose_names(centroids, feature_map.weights, truth, kind_list, rules=settings.kinds)
    return Shown(
        labels=ranked,
        ids=tuple(range(1, len(centroids) + 1)),
        names=tuple(names),
        kinds=tuple(kind_list),
        centroids=centroids,
        natural=natural,
        sizes=tuple(sizes[order].tolist()),
        stability=lasting,
    )


def _of_model(model: Model, people: People, mapped: Floats, lasting: float | None) -> Shown:
    """The segments of the model in force, with those published in them; others where nearest."""
    published = columns_of(people.segments.astype(np.int32), model.ids)
    nearest = assign(mapped, model.centroids, model.map.weights)
    labels = np.where(published >= 0, published, nearest)
    sizes = np.bincount(labels, minlength=len(model.ids))
    order = np.argsort(-sizes, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    segments = [model.segments[column] for column in order.tolist()]
    return Shown(
        labels=place[labels],
        ids=tuple(segment.id for segment in segments),
        names=tuple(segment.name for segment in segments),
        kinds=tuple(segment.kind for segment in segments),
        centroids=model.centroids[order],
        natural=model.natural()[order],
        sizes=tuple(sizes[order].tolist()),
        stability=lasting,
    )


# -- facts -------------------------------------------------------------------------------------


def facts_of(found: Study, written: dict[str, str]) -> StudyFacts:
    """For ``--json``: what the pictures show, as numbers."""
    shown, table = found.shown, found.table
    people = len(shown.labels)
    return {
        "source": found.people.source,
        "at": iso(found.people.at_ms),
        "users": found.people.total,
        "sampled": people,
        "notes": list(found.people.notes),
        "distance": found.wish.distance,
        "algorithm": found.wish.algorithm,
        "proposal": found.separation.k,
        "suggested": found.advice.k,
        "firmness": found.advice.firmness,
        "curves": {
            "inertia": {str(k): value for k, value in found.inertia.items()},
            "silhouette": {str(k): value for k, value in found.silhouette.items()},
            "separation": {str(step.k): step.weakest for step in found.separation.steps},
            "stability": {
                str(k): {
                    "mean": float(again.mean()),
                    "low": float(again.min()),
                    "high": float(again.max()),
                }
                for k, again in found.stability.items()
            },
        },
        "elbow": elbow(list(found.inertia.values())),
        "model": found.model,
        "stability": shown.stability,
        "noise": found.noise,
        "segments": [
            {
                "id": number,
                "name": shown.names[row],
                "kind": shown.kinds[row],
                "size": shown.sizes[row],
                "share": shown.sizes[row] / people,
                "profile": [
                    {"feature": feature.name, "value": float(value), "unit": feature.unit,
                     "z": float(z)}
                    for feature, value, z in zip(
                        table.features, shown.natural[row], shown.centroids[row], strict=True
                    )
                ],
            }
            for row, number in enumerate(shown.ids)
        ],
        "written": written,
    }  # fmt: skip
