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
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from stream.clustering import (
    ALL_HASHES,
    FeatureMap,
    assign,
    living,
    smallest_hashes,
)
from stream.config import Settings
from stream.events import Counts, EventColumns, Floats, Hashes, Ints, Rows
from stream.features import FeatureTable
from stream.hashing import user_hashes
from stream.insight.facts import StudiedPopulation, StudyFacts
from stream.insight.history import OpenHistory
from stream.insight.queries import stored_partitions
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
    suggest,
)
from stream.learning.statistics import stands_for
from stream.model import Model, PopulationModel
from stream.naming import Truth, propose_names
from stream.partition import Partition, SchemaMismatchError
from stream.populations import AUTO, NONE, Populations
from stream.rhythm import NOTHING_SEEN, Seen, in_shop
from stream.rows import RowFormatError
from stream.segments import PublishRule, columns_of
from stream.store.promises import ReaderStore
from stream.store.state import Position
from stream.told import ToldError
from stream.turns import KindBook, recoded
from stream.units import iso, milliseconds

AlgorithmName = Literal["kmeans", "density"]


FEWEST_USERS = 20
"""Fewer users are easier to look at one by one; `learning.first_model_users` allows no fewer either."""
BOOTSTRAP_STARTS = 3
"""Starts of k-means++ for each draw of users. A trainer makes more, so stability is rated too low rather
than too high."""


class ExploreError(ToldError):
    """There is nothing to look at; the message says why."""


@dataclass(frozen=True)
class People:
    """The users looked at: a uniform sample of each population by hash, as the trainer's is.

    Attributes:
        vectors: ``(users, features)`` in natural units, as of `at_ms`.
        segments: ``(users,)`` the segment each is published in; 0 for none.
        hashes: ``(users,)``.
        populations: ``(users,)`` place of each one's population.
        totals: users of each population.
        divided: the populations.
        source: where they come from, for the heading.
        notes: what a reader should know of how they were read.
    """

    vectors: Floats
    segments: Ints
    hashes: Hashes
    populations: Ints
    totals: tuple[int, ...]
    divided: Populations
    at_ms: int
    source: str
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """How many users there are."""
        return sum(self.totals)

    @property
    def weights(self) -> Floats:
        """``(users,)`` how many users each stands for."""
        return stands_for(self.populations, self.totals)

    def among(self, place: int) -> People:
        """Those of one population."""
        here = np.flatnonzero(self.populations == place)
        return replace(
            self,
            vectors=self.vectors[here],
            segments=self.segments[here],
            hashes=self.hashes[here],
            populations=self.populations[here],
            totals=tuple(n if at == place else 0 for at, n in enumerate(self.totals)),
        )


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
    divided = settings.divided()

    def place(rows: Rows) -> Ints:
        return divided.divide(table.vectors(rows, now_ms), np.full(len(rows), NONE))

    strata = _Strata(place, len(divided))
    sample = _sample(settings, table, [(saved.users, saved.rows)], b"", strata)
    source = ", ".join(file.name for file in history.files)
    return _people(table, sample, divided, now_ms, source, tuple(notes))


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
    kept, clock_ms = sample_store(settings, table, store, model, tell, wall_ms)
    notes = (f"the users of the running pipeline, under its model {model.name}",)
    return _people(table, kept, model.populations, clock_ms, "the live store", notes)


def sample_store(
    settings: Settings,
    table: FeatureTable,
    store: ReaderStore,
    model: Model,
    tell: Callable[[str], None] = lambda _: None,
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> tuple[Sampled, int]:
    """A sample of a running pipeline's users, and what time it is by the clock in use.

    There is one of each population of the model, by the segments that users are published in. A user who is
    in none yet counts with the last population.

    Every user is read once, a few thousand at a time; only the sample is kept.

    Raises:
        SchemaMismatchError: the rows were written by another feature table.
    """
    clock_ms = 0
    book = KindBook([])

    def portions() -> Iterator[tuple[Sequence[bytes], bytes]]:
        nonlocal clock_ms
        seen = 0
        for _, position, found in stored_partitions(settings, table, store):
            clock_ms = max(clock_ms, position.clock_ms)
            for portion in found:
                names, rows = zip(*portion, strict=True)
                seen += len(names)
                tell(f"looking through the store, {seen:,} users")
                try:
                    there = table.unpacked(b"".join(rows))
                except RowFormatError:
                    yield names, b"".join(rows)
                else:
                    yield names, recoded(there, position.kinds, book).tobytes()

    last = len(model.populations) - 1

    def place(rows: Rows) -> Ints:
        found = model.place_of(rows["segment"])
        return np.where(found == NONE, last, found)

    kept = _sample(settings, table, portions(), store.namespace_key(), _Strata(place, last + 1))
    kept = replace(kept, kinds=tuple(book.names))
    return kept, wall_ms() if settings.clock.mode == "live" else clock_ms


# -- both --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampled:
    """Users with the smallest hashes of each stratum.

    Attributes:
        strata: ``(users,)``.
        totals: users of each stratum, here or not.
        limits: of each stratum, the hash up to which all of its users are here.
        kinds: names of the codes in rows.
    """

    rows: Rows
    hashes: Hashes
    strata: Ints
    totals: tuple[int, ...]
    limits: tuple[int, ...]
    kinds: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Of how many users they are."""
        return sum(self.totals)

    @property
    def weights(self) -> Floats:
        """``(users,)`` how many users each stands for."""
        return stands_for(self.strata, self.totals)


class _Strata(NamedTuple):
    """Tells which stratum a row is of, and how many strata there are."""

    place: Callable[[Rows], Ints]
    parts: int


def _sample(
    settings: Settings,
    table: FeatureTable,
    portions: Iterable[tuple[Sequence[bytes], bytes]],
    key: bytes,
    strata: _Strata,
) -> Sampled:
    """The users with the smallest hashes of each stratum, as the trainer's sample has them (bottom-k)."""
    size = settings.learning.sample_users
    rows, hashes, places = table.blank(0), np.empty(0, np.uint64), np.empty(0, np.int64)
    totals = np.zeros(strata.parts, np.int64)
    limits = [ALL_HASHES] * strata.parts
    for names, raw in portions:
        try:
            more = table.unpacked(raw)
        except RowFormatError:
            raise SchemaMismatchError("the store holds rows of another format") from None
        # A user known only by what the shop did is in no sample.
        seen = more["seen"] > 0
        there = strata.place(more[seen])
        totals += np.bincount(there, minlength=strata.parts)
        rows = np.concatenate([rows, more[seen]])
        hashes = np.concatenate([hashes, user_hashes(names, key)[seen]])
        places = np.concatenate([places, there])
        kept = []
        for stratum in range(strata.parts):
            members = np.flatnonzero(places == stratum)
            chosen = members[smallest_hashes(hashes[members], size)]
            if len(chosen) == size:
                limits[stratum] = int(hashes[chosen[-1]])
            kept.append(chosen)
        chosen = np.concatenate(kept)
        rows, hashes, places = rows[chosen], hashes[chosen], places[chosen]
    return Sampled(rows, hashes, places, tuple(totals.tolist()), tuple(limits))


def _people(
    table: FeatureTable,
    sample: Sampled,
    divided: Populations,
    at_ms: int,
    source: str,
    notes: tuple[str, ...],
) -> People:
    vectors = table.vectors(sample.rows, at_ms)
    known = living(vectors)
    vectors, segments = vectors[known], sample.rows["segment"][known].astype(np.int64)
    if len(vectors) < FEWEST_USERS:
        few = f"{source}: {len(vectors):,} users; it takes {FEWEST_USERS} to speak of segments"
        raise ExploreError("\n".join([few, *notes]))
    return People(
        vectors, segments, sample.hashes[known], sample.strata[known], sample.totals, divided,
        at_ms, source, notes,
    )  # fmt: skip


# -- the study ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wish:
    """What was asked for.

    Attributes:
        k: segments to show; None shows what is suggested, or the running model's.
        population: to look at; None takes the one with the most users.
    """

    distance: Distance = "euclid"
    algorithm: AlgorithmName = "kmeans"
    k_max: int = 10
    k: int | None = None
    bootstraps: int = 16
    population: str | None = None


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
    """Everything there is to show of one population.

    Attributes:
        populations: all there are, with what each suggests.
        space: where distances are measured.
        inertia, silhouette: by k.
        stability: by k, ``(bootstraps,)``.
        separation: the merge-down.
        configured: number of segments that the settings say; None if they leave it to the users.
        model: whose segments are shown, if they are a running model's.
    """

    people: People
    populations: tuple[StudiedPopulation, ...]
    table: FeatureTable
    wish: Wish
    space: Space
    inertia: dict[int, float]
    silhouette: dict[int, float]
    stability: dict[int, Floats]
    separation: MergeDown
    advice: Advice
    shown: Shown
    configured: int | None
    model: str | None

    @property
    def population(self) -> str:
        """Name of the population that was looked at."""
        return self.people.divided.names[int(np.argmax(self.people.totals))]

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
    """Measure a population by k, make a proposal, and group.

    Args:
        model: in force, if there is one: its map is used, and its segments are shown unless the
            wish says otherwise.

    Raises:
        ExploreError: there is no such population, or it has too few users; all users look the same,
            or nobody is in any group.
    """
    learning = settings.learning
    place = _chosen_population(people, wish)
    everyone, people = people, people.among(place)
    name = people.divided.names[place]
    part = None if model is None else model.part(name)
    feature_map = _map_of(people, table) if part is None else part.map
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
    elif part is None or wish.k is not None:
        groups = fits[advice.k if wish.k is None else wish.k]
        lasting = float(stable[groups.k].mean())
    else:
        groups = None
        if len(part.ids) in stable:
            lasting = float(stable[len(part.ids)].mean())
    if groups is None:
        assert model is not None
        assert part is not None
        shown = _of_model(part, people, mapped, lasting)
        used: str | None = model.name
    else:
        by = _Naming(
            settings, table, in_shop(NOTHING_SEEN, everyone.vectors, table.names, everyone.weights)
        )
        shown = _named(groups.labels, people, mapped, feature_map, by, lasting)
        used = None
    tell("looking at the other populations")
    return Study(
        people=people,
        populations=_suggestions(settings, table, everyone, place, advice),
        table=table,
        wish=wish,
        space=space,
        inertia={k: mean_inertia(space, fit) for k, fit in fits.items()},
        silhouette=silhouettes(space, fits),
        stability=stable,
        separation=separation,
        advice=advice,
        shown=shown,
        configured=_configured(settings, name),
        model=used,
    )


def _chosen_population(people: People, wish: Wish) -> int:
    """Place of the population to look at.

    Raises:
        ExploreError: there is no such population, or it has too few users.
    """
    names = people.divided.names
    if wish.population is not None and wish.population not in names:
        raise ExploreError(
            f"--population {wish.population}: there is no such population; there are "
            + ", ".join(names)
        )
    sizes = np.bincount(people.populations, minlength=len(names))
    largest = int(np.argmax(people.totals))
    place = largest if wish.population is None else names.index(wish.population)
    if sizes[place] < FEWEST_USERS:
        raise ExploreError(
            f"{people.source}: the population {names[place]} has {sizes[place]:,} users; it takes "
            f"{FEWEST_USERS} to speak of segments"
        )
    return place


def _map_of(people: People, table: FeatureTable) -> FeatureMap:
    """As the trainer would learn it."""
    alone = len(people.divided) == 1
    learn = FeatureMap.learn if alone else FeatureMap.learn_of_those_who_have
    return learn(people.vectors, table.weights)


def _configured(settings: Settings, population: str) -> int | None:
    """Number of segments that the settings say; None if they leave it to the users."""
    declared = {one.name: one.segments for one in settings.divided().declared}
    wanted = declared.get(population)
    return None if wanted == AUTO else wanted or settings.learning.segments


def _suggestions(
    settings: Settings, table: FeatureTable, people: People, studied: int, advice: Advice
) -> tuple[StudiedPopulation, ...]:
    """Every population, with the number of segments that its users suggest.

    Args:
        studied: place of the one that the advice is of.
    """
    found: list[StudiedPopulation] = []
    for place, name in enumerate(people.divided.names):
        among = people.among(place)
        own: Advice | None = advice
        if place != studied:
            own = None
            if len(among.vectors) >= FEWEST_USERS:
                mapping = _map_of(among, table)
                space = Space(mapping.apply(among.vectors), mapping.weights)
                own = suggest(space, settings.learning.seed)
        found.append(
            {
                "name": name,
                "users": people.totals[place],
                "configured": _configured(settings, name),
                "suggested": None if own is None else own.k,
                "firmness": None if own is None else own.firmness,
            }
        )
    return tuple(found)


class _Naming(NamedTuple):
    """What groups are named by.

    Attributes:
        seen: of customers, in the shop as a whole.
    """

    settings: Settings
    table: FeatureTable
    seen: Seen


def _named(
    labels: Ints,
    people: People,
    mapped: Floats,
    feature_map: FeatureMap,
    by: _Naming,
    lasting: float | None,
) -> Shown:
    """Groups as segments: the largest first, with kinds and names as the trainer would give."""
    sizes = np.bincount(labels[labels >= 0])
    order, place = _largest_first(sizes)
    ranked = np.where(labels >= 0, place[labels], NOISE)
    centroids = means_of(mapped, ranked)
    some = ranked >= 0
    rules, table = by.settings.kinds, by.table
    members = Members(people.vectors[some], ranked[some], table.names, len(centroids), by.seen)
    kind_list = kinds(members, rules, [None] * len(centroids))
    learning = by.settings.learning
    truth = Truth(table, members, learning.word_share, learning.named_again_days)
    names = propose_names(centroids, feature_map.weights, truth, kind_list, rules=rules)
    return Shown(
        labels=ranked,
        ids=tuple(range(1, len(centroids) + 1)),
        names=tuple(names),
        kinds=tuple(kind_list),
        centroids=centroids,
        natural=members.typical,
        sizes=tuple(sizes[order].tolist()),
        stability=lasting,
    )


def _largest_first(sizes: Ints) -> tuple[Ints, Ints]:
    """Which comes first, second and so on, and the place of each in that order."""
    order = np.argsort(-sizes, kind="stable")
    return order, np.argsort(order)


def _of_model(
    part: PopulationModel, people: People, mapped: Floats, lasting: float | None
) -> Shown:
    """The segments of the model in force, with those published in them; others where nearest."""
    published = columns_of(people.segments.astype(np.int32), part.ids)
    nearest = assign(mapped, part.centroids, part.map.weights)
    labels = np.where(published >= 0, published, nearest)
    sizes = np.bincount(labels, minlength=len(part.ids))
    order, place = _largest_first(sizes)
    segments = [part.segments[column] for column in order.tolist()]
    return Shown(
        labels=place[labels],
        ids=tuple(segment.id for segment in segments),
        names=tuple(segment.name for segment in segments),
        kinds=tuple(segment.kind for segment in segments),
        centroids=part.centroids[order],
        natural=part.typical[order],
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
        "population": found.population,
        "populations": list(found.populations),
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
