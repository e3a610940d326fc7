"""A model: an immutable set of segments with their centroids, and its published form.

Comes in: what the trainer learned. Goes out: JSON for `segment-models` and the store, and back
to the bit. `naming` and `kinds` say what its segments are called.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from stream.clustering import FeatureMap, distances, separated
from stream.events import Bools, Floats, Ints, Lineage, PublishedModel, PublishedSegment
from stream.flapping import NOTHING_TO_TELL, Rates
from stream.kinds import Bounds, Rung
from stream.levels.steps import NO_LEVELS, Levels
from stream.populations import EVERYONE, NONE, Population, Populations
from stream.scores.model import Scores
from stream.segments import PublishRule, columns_of
from stream.units import iso

DECLARED = "declared"
"""Of a number of segments that a person chose."""
LEAST_EXPLAINED = 1e-3
"""A split that explains less than this explains nothing."""


class Axes(Protocol):
    """What is known of each feature of a vector; `features.FeatureTable` knows it of the settings'.

    Attributes:
        names, units: of each feature.
        words: of each feature, what a low and what a high value are called; empty for no word.
        limits: of each feature, what holds of whom these two words name.
        weights: of the squared distance.
        schema: digest of what the vectors mean.
    """

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def units(self) -> tuple[str, ...]: ...
    @property
    def words(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def limits(self) -> tuple[tuple[dict[str, Bounds], dict[str, Bounds]], ...]: ...
    @property
    def weights(self) -> Floats: ...
    @property
    def schema(self) -> str: ...


@dataclass(frozen=True)
class GivenAxes:
    """`Axes` that are no feature table: a tuning's, or the library's."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    words: tuple[tuple[str, str], ...]
    limits: tuple[tuple[dict[str, Bounds], dict[str, Bounds]], ...]
    weights: Floats
    schema: str


@dataclass(frozen=True)
class Segment:
    """What a user can be in."""

    id: int
    name: str
    kind: str
    size: int
    born: str
    flapping: Rates = NOTHING_TO_TELL
    population: str = EVERYONE


@dataclass(frozen=True)
class PopulationModel:
    """What was learned of one population.

    Attributes:
        population: its name.
        since: epoch.version from which on it has been learned as it is declared.
        centroids: ``(k, features)`` on the grid, a row a segment.
        typical: ``(k, features)`` of each segment the typical member, in natural units: the median
            of those sampled at the last refit, which no limit of the map has cut.
        users: in the population, as of the round.
        inertia: mean squared distance of a user to the nearest centroid.
        silhouette: of the last refit's sample.
        choice: how its number of segments came about: `DECLARED`, or how firm the suggestion is.
        separations: ``(k, k)`` share of the variance on the line between two centroids that their split
            explained at the last refit; None where a version before this one made it.
    """

    population: str
    since: str
    map: FeatureMap
    centroids: Floats
    typical: Floats
    segments: tuple[Segment, ...]
    users: int = 0
    inertia: float = 0.0
    silhouette: float | None = None
    choice: str = DECLARED
    separations: Floats | None = None

    @cached_property
    def ids(self) -> npt.NDArray[np.int32]:
        return np.array([segment.id for segment in self.segments], dtype=np.int32)

    @cached_property
    def gaps(self) -> Floats:
        """``(k, k)`` squared distances between centroids."""
        return separated(self.centroids, self.map.weights)

    @cached_property
    def nearness(self) -> Floats:
        """``(k, k)`` how near centroids are; see `nearness_of`."""
        if self.separations is None:
            return np.zeros_like(self.gaps)
        return nearness_of(self.separations)

    def natural(self) -> Floats:
        """Centroids in natural units, ``(k, features)``."""
        return self.map.invert(self.centroids)


def nearness_of(separations: Floats) -> Floats:
    """How near centroids are; 0 is infinitely far.

    It is the variance of users about their centroids, on the line between the two, over the square of its
    length. A user's place trembles in the measure in which users of a segment differ, so that a margin between
    two centroids means less the nearer they are.

    Args:
        separations: see `PopulationModel`; of the variance on a line, the square of half its length is
            explained.
    """
    explained = np.maximum(separations, LEAST_EXPLAINED)
    found: Floats = (1.0 - explained) / (4.0 * explained)
    return found


class Placed(NamedTuple):
    """Where users are under a model.

    Attributes:
        populations: ``(n,)`` place of the population that each belongs to.
        crossing: ``(n,)`` whether that is another one than their segment is of.
        mapped: ``(n, features)`` vectors, each under the map of its population.
        squared: ``(n, k)`` squared distances to the centroids; infinite to those of another population,
            and to all of them where nothing has been learned yet of one's own.
    """

    populations: Ints
    crossing: Bools
    mapped: Floats
    squared: Floats


@dataclass(frozen=True)
class Model:
    """An immutable model: of each population, a map and segments.

    Segments of all populations are counted through: a *column* is a segment's place among them.

    Attributes:
        schema: of the feature table it was learned with.
        populations: all there are.
        parts: what was learned of those with users enough, in the order of the populations.
        retired: every segment there ever was and is no more, so that old ids keep a name.
        tuning: id of the `tuning.Tuning` it was learned with; empty for none.
        rule: that comes with it, in place of what owners were started with.
        ladder: the kinds there are, see `kinds.ladder`.
        scores: what is foretold of each customer; None as long as too little was seen.
        levels: with limits that are known.
    """

    epoch: int
    version: int
    at_ms: int
    schema: str
    populations: Populations
    parts: tuple[PopulationModel, ...]
    users: int = 0
    lineage: tuple[Lineage, ...] = field(default=())
    retired: tuple[Segment, ...] = field(default=())
    tuning: str = ""
    rule: PublishRule | None = None
    ladder: tuple[Rung, ...] = ()
    scores: Scores | None = None
    levels: Levels = NO_LEVELS

    @property
    def name(self) -> str:
        return f"{self.epoch}.{self.version}"

    @property
    def number(self) -> tuple[int, int]:
        """Of two models of a namespace, the newer one has the greater."""
        return self.epoch, self.version

    # -- by segment ---------------------------------------------------------------------------

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """By column."""
        return tuple(segment for part in self.parts for segment in part.segments)

    @cached_property
    def ids(self) -> npt.NDArray[np.int32]:
        """By column."""
        return np.array([segment.id for segment in self.segments], dtype=np.int32)

    @cached_property
    def by_id(self) -> dict[int, Segment]:
        """Every segment there is or was."""
        return {segment.id: segment for segment in (*self.retired, *self.segments)}

    @cached_property
    def centroids(self) -> Floats:
        """``(k, features)`` by column, each in the units of its population's map."""
        return np.concatenate([part.centroids for part in self.parts])

    @cached_property
    def weights(self) -> Floats:
        """``(k, features)`` of the squared distance to each centroid."""
        return np.concatenate(
            [np.tile(part.map.weights, (len(part.segments), 1)) for part in self.parts]
        )

    @cached_property
    def gaps(self) -> Floats:
        """``(k, k)`` squared distances between centroids; infinite between populations."""
        found = np.full((len(self.ids), len(self.ids)), np.inf)
        for part, span in zip(self.parts, self.spans, strict=True):
            found[span, span] = part.gaps
        return found

    @cached_property
    def nearness(self) -> Floats:
        """``(k, k)`` how near centroids are; 0 between populations."""
        found = np.zeros((len(self.ids), len(self.ids)))
        for part, span in zip(self.parts, self.spans, strict=True):
            found[span, span] = part.nearness
        return found

    @cached_property
    def typical(self) -> Floats:
        """Typical members in natural units, ``(k, features)`` by column."""
        return np.concatenate([part.typical for part in self.parts])

    def natural(self) -> Floats:
        """Centroids in natural units, ``(k, features)`` by column."""
        return np.concatenate([part.natural() for part in self.parts])

    # -- by population ------------------------------------------------------------------------

    @cached_property
    def spans(self) -> tuple[slice, ...]:
        """Columns of each part."""
        ends = np.cumsum([len(part.segments) for part in self.parts]).tolist()
        return tuple(slice(a, b) for a, b in zip([0, *ends], ends, strict=False))

    @cached_property
    def _places(self) -> tuple[int, ...]:
        """Place of each part's population."""
        return tuple(self.populations.names.index(part.population) for part in self.parts)

    @cached_property
    def _by_place(self) -> dict[int, tuple[PopulationModel, slice]]:
        return dict(zip(self._places, zip(self.parts, self.spans, strict=True), strict=True))

    @cached_property
    def _is_learned(self) -> Bools:
        """By place of a population."""
        known = {part.population for part in self.parts}
        return np.array([name in known for name in self.populations.names])

    def known_since(self, model: str) -> Bools:
        """By place of a population, whether an earlier model had learned it as it is declared."""
        before = _number(model)
        known = {part.population for part in self.parts if _number(part.since) <= before}
        return np.array([name in known for name in self.populations.names])

    @cached_property
    def _population_of_id(self) -> tuple[npt.NDArray[np.int32], Ints]:
        known = sorted(
            (segment.id, self.populations.names.index(segment.population))
            for segment in self.by_id.values()
            if segment.population in self.populations.names
        )
        ids, places = zip(*known, strict=True)
        return np.array(ids, np.int32), np.array(places, np.int64)

    @property
    def inertia(self) -> float:
        """Mean over everyone of the squared distance to the nearest centroid, in sd squared."""
        return _mean([(part.inertia, part.users) for part in self.parts]) or 0.0

    @property
    def silhouette(self) -> float | None:
        """Mean over populations, by their users; None where there is none to tell."""
        return _mean([(p.silhouette, p.users) for p in self.parts if p.silhouette is not None])

    def part(self, population: str) -> PopulationModel | None:
        """What was learned of a population; None for nothing yet."""
        return next((part for part in self.parts if part.population == population), None)

    def columns_of(self, population: str) -> slice | None:
        """Columns of the segments of a population; None if nothing has been learned of it."""
        known = zip(self.parts, self.spans, strict=True)
        return next((span for part, span in known if part.population == population), None)

    def place_of(self, segments: npt.NDArray[np.int32]) -> Ints:
        """Place of the population of each segment, `NONE` where it is of none there is."""
        ids, places = self._population_of_id
        columns = columns_of(segments, ids)
        return np.where(columns >= 0, places[columns], NONE)

    def crossed_by(
        self,
        before: npt.NDArray[np.int32],
        after: npt.NDArray[np.int32],
        vectors: Floats,
    ) -> list[list[int]]:
        """Columns of the features that took users to another population, the one that decided first.

        Args:
            before, after: ``(n,)`` segment of each who went there.
            vectors: ``(n, features)`` in natural units.
        """
        went = (self.place_of(before).tolist(), self.place_of(after).tolist(), vectors.tolist())
        return [self.populations.reasons(*one) for one in zip(*went, strict=True)]

    def part_of(self, column: int) -> tuple[PopulationModel, int]:
        """The part that a column is of, and the row in it."""
        for part, span in zip(self.parts, self.spans, strict=True):
            if column < span.stop:
                return part, column - span.start
        raise IndexError(column)

    # -- by user ------------------------------------------------------------------------------

    def place(self, vectors: Floats, segments: npt.NDArray[np.int32]) -> Placed:
        """Where users are.

        Args:
            vectors: ``(n, features)`` in natural units.
            segments: ``(n,)`` the segment each is published in, 0 for none.
        """
        if len(self.populations) == 1:
            nobody, part = np.zeros(len(vectors), np.int64), self.parts[0]
            mapped = part.map.apply(vectors)
            squared = distances(mapped, part.centroids, part.map.weights)
            return Placed(nobody, nobody > 0, mapped, squared)
        was = self.place_of(segments)
        populations = self.populations.divide(vectors, was)
        mapped, squared = np.zeros(vectors.shape), np.full((len(vectors), len(self.ids)), np.inf)
        for part, span, users in self._each(populations):
            theirs = part.map.apply(vectors.take(users, axis=0))
            mapped[users] = theirs
            squared[users, span] = distances(theirs, part.centroids, part.map.weights)
        return Placed(populations, (was != NONE) & (was != populations), mapped, squared)

    def divide(self, vectors: Floats, segments: npt.NDArray[np.int32]) -> Ints:
        """Place of the population that each user belongs to; see `place`."""
        if len(self.populations) == 1:
            return np.zeros(len(vectors), np.int64)
        return self.populations.divide(vectors, self.place_of(segments))

    def crossing(self, segments: npt.NDArray[np.int32], populations: Ints) -> Bools:
        """Whose segment is of another population than the one they belong to."""
        if len(self.populations) == 1:
            return np.zeros(len(segments), np.bool_)
        was = self.place_of(segments)
        return np.asarray((was != NONE) & (was != populations))

    def map(self, vectors: Floats, populations: Ints) -> Floats:
        """Vectors under the map of each user's population; nothing where none has been learned."""
        if len(self.populations) == 1:
            return self.parts[0].map.apply(vectors)
        found = np.zeros(vectors.shape)
        for part, _, users in self._each(populations):
            found[users] = part.map.apply(vectors[users])
        return found

    def distances(self, mapped: Floats, populations: Ints) -> Floats:
        """Squared distances, ``(n, k)``; see `Placed`."""
        if len(self.populations) == 1:
            part = self.parts[0]
            return distances(mapped, part.centroids, part.map.weights)
        found = np.full((len(mapped), len(self.ids)), np.inf)
        for part, span, users in self._each(populations):
            found[users, span] = distances(mapped[users], part.centroids, part.map.weights)
        return found

    def has_learned(self, populations: Ints) -> Bools:
        """Of each user, whether anything has been learned of the population they belong to."""
        found: Bools = self._is_learned[populations]
        return found

    def _each(self, populations: Ints) -> Iterator[tuple[PopulationModel, slice, Ints]]:
        """Each part with its columns and users; those without any user are left out."""
        for place, (part, span) in self._by_place.items():
            users = np.flatnonzero(populations == place)
            if len(users):
                yield part, span, users

    # -- published ----------------------------------------------------------------------------

    def published(self, axes: Axes) -> PublishedModel:
        """The record strangers read; `from_published` turns it back."""
        return {
            "model": self.name,
            "epoch": self.epoch,
            "version": self.version,
            "at": iso(self.at_ms),
            "users": self.users,
            "inertia": self.inertia,
            "silhouette": self.silhouette,
            "populations": [
                {
                    "name": part.population,
                    "users": part.users,
                    "segments": part.ids.tolist(),
                    "inertia": part.inertia,
                    "silhouette": part.silhouette,
                    "choice": part.choice,
                }
                for part in self.parts
            ],
            "segments": [self._published_segment(axes, column) for column in range(len(self.ids))],
            "lineage": list(self.lineage),
            "retired": [
                {
                    "id": s.id,
                    "name": s.name,
                    "kind": s.kind,
                    "size": s.size,
                    "born": s.born,
                    "population": s.population,
                }
                for s in self.retired
            ],
            "geometry": {
                "at_ms": self.at_ms,
                "schema": self.schema,
                "features": list(axes.names),
                "populations": [
                    one.model_dump(exclude_none=True) for one in self.populations.declared
                ],
                "parts": [
                    {
                        "population": part.population,
                        "since": part.since,
                        "map": part.map.to_json(),
                        "centroids": part.centroids.tolist(),
                        "separations": None
                        if part.separations is None
                        else part.separations.tolist(),
                    }
                    for part in self.parts
                ],
                "kinds": [rung._asdict() for rung in self.ladder],
                **self._tuned(),
                **({} if self.scores is None else {"scores": self.scores.to_json()}),
                **({"levels": self.levels.to_json()} if self.levels.known else {}),
            },
        }

    def _tuned(self) -> dict[str, Any]:
        if self.rule is None:
            return {}
        return {"tuning": self.tuning, "publish": asdict(self.rule)}

    def _published_segment(self, axes: Axes, column: int) -> PublishedSegment:
        segment = self.segments[column]
        return {
            "id": segment.id,
            "name": segment.name,
            "kind": segment.kind,
            "population": segment.population,
            "size": segment.size,
            "born": segment.born,
            "flapping": {
                "changes_per_user_day": segment.flapping.changes_per_user_day,
                "reverted_share": segment.flapping.reverted_share,
            },
            "profile": [
                {"feature": name, "value": float(value), "unit": unit, "z": float(z)}
                for name, value, unit, z in zip(
                    axes.names,
                    self.typical[column],
                    axes.units,
                    self.centroids[column],
                    strict=True,
                )
            ],
        }

    @staticmethod
    def from_published(data: PublishedModel) -> Model:
        data = _of_one_population(data)
        geometry = data["geometry"]
        segments = {
            s["id"]: Segment(
                s["id"], s["name"], s["kind"], s["size"], s["born"],
                Rates(**s.get("flapping", {})), s["population"],
            )
            for s in data["segments"]
        }  # fmt: skip
        profiles = {s["id"]: [entry["value"] for entry in s["profile"]] for s in data["segments"]}
        parts = tuple(
            PopulationModel(
                population=told["name"],
                since=kept["since"],
                map=FeatureMap.from_json(kept["map"]),
                centroids=np.array(kept["centroids"], dtype=float),
                typical=np.array([profiles[i] for i in told["segments"]], dtype=float),
                segments=tuple(segments[i] for i in told["segments"]),
                users=told["users"],
                inertia=told["inertia"],
                silhouette=told["silhouette"],
                choice=told["choice"],
                separations=_square(kept.get("separations")),
            )
            for told, kept in zip(data["populations"], geometry["parts"], strict=True)
        )
        scores = Scores.from_json(geometry["scores"]) if "scores" in geometry else None
        return Model(
            epoch=data["epoch"],
            version=data["version"],
            at_ms=geometry["at_ms"],
            schema=geometry["schema"],
            populations=Populations(
                tuple(Population.model_validate(one) for one in geometry["populations"]),
                tuple(geometry["features"]),
            ),
            parts=parts,
            users=data["users"],
            lineage=tuple(data["lineage"]),
            retired=tuple(
                Segment(
                    s["id"], s["name"], s["kind"], s["size"], s["born"],
                    population=s["population"],
                )
                for s in data["retired"]
            ),
            tuning=geometry.get("tuning", ""),
            rule=PublishRule(**geometry["publish"]) if "publish" in geometry else None,
            ladder=tuple(Rung(**rung) for rung in geometry.get("kinds", ())),
            scores=scores,
            levels=Levels.from_json(geometry.get("levels", ()), scores),
        )  # fmt: skip


def _square(rows: list[list[float]] | None) -> Floats | None:
    return None if rows is None else np.array(rows, dtype=float)


def _of_one_population(data: PublishedModel) -> PublishedModel:
    """A record as it is today; those from before there were populations are of everyone."""
    old: Any = dict(data)
    geometry: dict[str, Any] = old["geometry"]
    if "parts" in geometry:
        return data
    part = {"population": EVERYONE, "since": old["model"]}
    part |= {name: geometry[name] for name in ("map", "centroids")}
    told = {name: old[name] for name in ("users", "inertia", "silhouette")}
    told |= {"name": EVERYONE, "choice": DECLARED, "segments": [s["id"] for s in old["segments"]]}
    upgraded: PublishedModel = old | {
        "populations": [told],
        "segments": [s | {"population": EVERYONE} for s in old["segments"]],
        "retired": [s | {"population": EVERYONE} for s in old["retired"]],
        "geometry": geometry | {"populations": [{"name": EVERYONE}], "parts": [part]},
    }
    return upgraded


def _number(name: str) -> tuple[int, int]:
    """A model's number by its name."""
    epoch, version = name.split(".")
    return int(epoch), int(version)


def _mean(values: Sequence[tuple[float, int]]) -> float | None:
    """By how many users each is of; just the one, if it is one."""
    if len(values) < 2:
        return values[0][0] if values else None
    users = sum(count for _, count in values)
    weighted = sum(value * count for value, count in values)
    return weighted / users if users else sum(value for value, _ in values) / len(values)
