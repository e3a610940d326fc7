"""Segments, users and changes, as they are: what a person or a program asks a running pipeline.

Comes in: a reader of the store, and change records. Goes out: facts; `stream.cli.views` shows them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from heapq import nlargest
from itertools import islice, zip_longest
from typing import NamedTuple, TypeAlias

import numpy as np

from stream.config import Settings
from stream.events import Floats, Profile, PublishedSegment, Rows
from stream.features import FeatureTable
from stream.flapping import Tally
from stream.hashing import partition_of
from stream.insight import foretold, level_facts
from stream.insight.facts import (
    Distance,
    ModelFacts,
    NamedSegment,
    PlacedFacts,
    PopulationFacts,
    Record,
    SegmentFacts,
    SegmentsFacts,
    UserFacts,
)
from stream.kinds import CHURN_RISK_KINDS, FALLBACK_KIND
from stream.learning.state import TrainerState
from stream.model import Model, Segment
from stream.partition import SchemaMismatchError
from stream.populations import Population
from stream.rows import RowFormatError
from stream.store.promises import OperatorStore, ReaderStore
from stream.store.state import Position
from stream.told import ToldError
from stream.turns import kinds_told
from stream.units import iso, milliseconds, parse_duration


class UnknownUserError(ToldError):
    """Nobody has heard of this user."""


class WrongNameError(ToldError):
    """A segment cannot be called that."""


class NoModelError(ToldError):
    """No model has been learned yet."""


LONGEST_NAME = 60


def trainer_state(store: ReaderStore) -> TrainerState:
    """The trainer's newest state.

    Raises:
        NoModelError: there is no model yet.
    """
    found = store.model()
    state = None if found is None else TrainerState.unpack(found[1])
    if state is None or state.model is None:
        raise NoModelError(
            "no model has been learned yet: it takes a trainer (segstream run trainer) and "
            "events of at least learning.first_model_users shoppers"
        )
    return state


def model_in_force(store: ReaderStore) -> Model:
    """The newest model.

    Raises:
        NoModelError: there is no model yet.
    """
    return _model(trainer_state(store))


def _model(state: TrainerState) -> Model:
    assert state.model is not None
    return state.model


def segments(state: TrainerState, table: FeatureTable) -> SegmentsFacts:
    """Facts of all segments, in the order of the model."""
    model = _model(state)
    published = model.published(table)
    return {
        "model": model.name,
        "at": iso(state.round_ms),
        "users": state.users,
        "inertia": model.inertia,
        "silhouette": model.silhouette,
        "populations": [_population(state, model, one) for one in model.populations.declared],
        "segments": [
            _as_of_now(row, size, state, table)
            for row, size in zip_longest(published["segments"], state.sizes[: len(model.ids)])
        ],
        "lineage": published["lineage"],
        "scores": foretold.learned(model),
        "levels": level_facts.declared(model, state.on_steps),
    }


def model_facts(state: TrainerState, table: FeatureTable) -> ModelFacts:
    """The model in force, without its segments."""
    model = _model(state)
    return {
        "model": model.name,
        "at": iso(model.at_ms),
        "round": iso(state.round_ms),
        "users": state.users,
        "inertia": model.inertia,
        "silhouette": model.silhouette,
        "features": list(table.names),
        "populations": [_population(state, model, one) for one in model.populations.declared],
        "scores": foretold.learned(model),
    }


def limits(population: Population) -> dict[str, dict[str, float]]:
    """The limits of a population's rule, by feature."""
    return {name: bounds.model_dump(exclude_none=True) for name, bounds in population.when.items()}


def _population(state: TrainerState, model: Model, declared: Population) -> PopulationFacts:
    part = model.part(declared.name)
    return {
        "name": declared.name,
        "when": limits(declared),
        "users": state.of(declared.name).users,
        "segments": [] if part is None else part.ids.tolist(),
        "choice": None if part is None else part.choice,
        "inertia": None if part is None else part.inertia,
        "silhouette": None if part is None else part.silhouette,
    }


def _as_of_now(
    row: PublishedSegment, size: int | None, state: TrainerState, table: FeatureTable
) -> SegmentFacts:
    """A published segment with the counts of the last round; its published size where there are none."""
    tally = state.flapping.get(row["id"], Tally())
    rates = tally.rates()
    return {
        "id": row["id"],
        "name": row["name"],
        "kind": row["kind"],
        "population": row["population"],
        "size": row["size"] if size is None else size,
        "born": row["born"],
        "flapping": {
            "changes_per_user_day": rates.changes_per_user_day,
            "reverted_share": rates.reverted_share,
            "user_days": tally.user_days,
        },
        "profile": row["profile"],
        "marks": [entry["feature"] for entry in marks_of(row["profile"], table)],
        "scores": foretold.of_segment(_model(state), state.scored, row["id"], state.came),
    }


def marks_of(whole: Sequence[Profile], table: FeatureTable, count: int = 4) -> list[Profile]:
    """What marks a segment: the features farthest from the average, the farthest first."""
    weights = dict(zip(table.names, table.weights.tolist(), strict=True))
    profile = [entry for entry in whole if weights[entry["feature"]] > 0]
    profile.sort(key=lambda entry: -abs(entry["z"]) * weights[entry["feature"]] ** 0.5)
    return profile[:count]


def is_young(segment: SegmentFacts) -> bool:
    """Whether the segment was watched for less than a day: its rate a day is only a guess then."""
    return segment["flapping"]["user_days"] < segment["size"]


def rename(store: OperatorStore, segment: int, name: str) -> str:
    """Give a living segment a name; returns the one it had.

    Raises:
        WrongNameError: there is no such segment, or the name will not do.
        NoModelError: there is no model yet.
    """
    model = model_in_force(store)
    names = {one.id: one.name for one in model.segments} | store.given_names()
    if segment not in model.ids:
        raise WrongNameError(f"there is no segment {segment}; segstream segments lists them")
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise WrongNameError(f"a name has 1 to {LONGEST_NAME} printable characters")
    if taken := [other for other, known in names.items() if known == name and other != segment]:
        raise WrongNameError(f"segment {taken[0]} is called that already")
    store.give_name(segment, name)
    return names[segment]


def kinds_of(settings: Settings, store: ReaderStore) -> list[str]:
    """Kinds that a change may be into: of the rules, and of the segments there are."""
    segments: Iterable[Segment] = ()
    with suppress(NoModelError):
        segments = model_in_force(store).segments
    return kinds_among(settings, segments)


def kinds_among(settings: Settings, segments: Iterable[Segment]) -> list[str]:
    """Kinds of the rules and of segments."""
    known = [rule.kind for rule in settings.kinds] + [FALLBACK_KIND]
    return list(dict.fromkeys(known + [segment.kind for segment in segments]))


PORTION = 5_000
"""As many users as a page of the store has."""


class StoredPartition(NamedTuple):
    """A partition that owners have written; `portions` are read as they are asked for."""

    number: int
    position: Position
    portions: Iterator[Sequence[tuple[bytes, bytes]]]


def stored_partitions(
    settings: Settings, table: FeatureTable, store: ReaderStore
) -> Iterator[StoredPartition]:
    """All users that the store has, names and rows, some at a time.

    Raises:
        SchemaMismatchError: the rows were written by another feature table.
    """
    for number in range(settings.topics.partitions):
        position = store.position(number)
        if position is not None:
            see_schema(number, position, table)
            yield StoredPartition(number, position, _portions(store.load(number)))


def _portions(rows: Iterable[tuple[bytes, bytes]]) -> Iterator[Sequence[tuple[bytes, bytes]]]:
    left = iter(rows)
    while portion := list(islice(left, PORTION)):
        yield portion


def see_schema(partition: int, position: Position, table: FeatureTable) -> None:
    """Refuse rows of another feature table.

    Raises:
        SchemaMismatchError: they are.
    """
    if position.schema != table.schema:
        raise SchemaMismatchError(
            f"partition {partition} holds rows of feature table {position.schema}, but the settings "
            f"declare {table.schema}; use the settings the pipeline runs with"
        )


ChangesIn: TypeAlias = Callable[[list[int]], Iterable[Record]]
"""Changes of partitions in topic order, each once."""


CHANGES_TOLD = 5
"""So many of a user's changes are told with the user, the latest."""


def unknown(name: str) -> UnknownUserError:
    """What is said of a user whom nobody has heard of."""
    return UnknownUserError(f"user {name!r} is unknown: no event of theirs was applied")


@dataclass(frozen=True)
class Reader:
    """Reads users."""

    settings: Settings
    store: ReaderStore
    table: FeatureTable

    def model(self) -> Model:
        """The newest model.

        Raises:
            NoModelError: there is no model yet.
        """
        return model_in_force(self.store)

    def row_of(self, name: str) -> tuple[Rows, int, Position]:
        """A user's row ``(1,)``, the time by the clock in use, and where their partition is.

        Raises:
            UnknownUserError: no event of that user has been applied.
            SchemaMismatchError: the row was written by another feature table.
        """
        (found,) = self._rows_of([name])
        if found is None:
            raise unknown(name)
        _, raw, position = found
        return self._unpacked([raw]), self._time_of(position), position

    def user(self, name: str, changes_in: ChangesIn) -> UserFacts:
        """Facts of a user.

        Args:
            changes_in: gives the changes of partitions, oldest first, each once.

        Raises:
            UnknownUserError: no event of that user has been applied.
            SchemaMismatchError: the row was written by another feature table.
        """
        (facts,) = self.users([name])
        if facts is None:
            raise unknown(name)
        changes = changes_in([facts["partition"]])
        facts["changes"] = [one for one in changes if one["user"] == name][-CHANGES_TOLD:]
        return facts

    def users(self, names: Sequence[str]) -> list[UserFacts | None]:
        """Facts of many users without their changes, in the order asked for; None for the unknown.

        Raises:
            SchemaMismatchError: a row was written by another feature table.
        """
        found = self._rows_of(names)
        facts: list[UserFacts | None] = [None] * len(names)
        try:
            model = self.model()
        except NoModelError:
            model = None
        # By the wall clock all are of one time; otherwise each partition has its own.
        by_time: dict[int, list[int]] = {}
        for place, known in enumerate(found):
            if known is not None:
                by_time.setdefault(self._time_of(known[2]), []).append(place)
        for now_ms, places in by_time.items():
            known_here = [one for place in places if (one := found[place]) is not None]
            rows = self._unpacked([raw for _, raw, _ in known_here])
            vectors = self.table.vectors(rows, now_ms)
            squared = None if model is None else model.place(vectors, rows["segment"]).squared
            for number, (place, (partition, _, position)) in enumerate(
                zip(places, known_here, strict=True)
            ):
                row, vector = rows[number : number + 1], vectors[number]
                told = self._facts(names[place], partition, row, vector, now_ms)
                if model is not None and squared is not None:
                    placed = self._placed(model, row, vector, squared[number], position)
                    told = {**told, **placed}
                facts[place] = told
        return facts

    def vectors_of(self, names: Sequence[str]) -> tuple[list[str], Rows, Floats, int]:
        """Those of the users who are known, their rows and vectors, all as of the latest time there is.

        Raises:
            SchemaMismatchError: a row was written by another feature table.
        """
        found = {
            name: known
            for name, known in zip(names, self._rows_of(names), strict=True)
            if known is not None
        }
        times = [self._time_of(position) for _, _, position in found.values()]
        now_ms = max(times, default=0)
        rows = self._unpacked([raw for _, raw, _ in found.values()])
        return list(found), rows, self.table.vectors(rows, now_ms), now_ms

    def _rows_of(self, names: Sequence[str]) -> list[tuple[int, bytes, Position] | None]:
        asked = []
        for name in names:
            user = name.encode()
            asked.append((partition_of(user, self.settings.topics.partitions), user))
        found: list[tuple[int, bytes, Position] | None] = []
        for (partition, _), known in zip(asked, self.store.rows(asked), strict=True):
            if known is not None:
                see_schema(partition, known[1], self.table)
            found.append(None if known is None else (partition, *known))
        return found

    def _unpacked(self, packed: Sequence[bytes]) -> Rows:
        try:
            return self.table.unpacked(b"".join(packed))
        except RowFormatError as error:
            raise SchemaMismatchError(str(error)) from None

    def _time_of(self, position: Position) -> int:
        live = self.settings.clock.mode == "live"
        return time.time_ns() // 1_000_000 if live else position.clock_ms

    def _facts(
        self, name: str, partition: int, row: Rows, vector: Floats, now_ms: int
    ) -> UserFacts:
        # A user known only by what the shop did has not been seen yet.
        seen = bool(row["seen"][0])
        return {
            "user": name,
            "partition": partition,
            "at": iso(now_ms),
            "first_seen": iso(int(row["first"][0])) if seen else None,
            "last_seen": iso(int(row["seen"][0])) if seen else None,
            "features": [
                {"feature": feature.name, "value": value, "unit": feature.unit}
                for feature, value in zip(self.table.features, vector.tolist(), strict=True)
            ],
            "segment": None,
            "version": int(row["version"][0]),
            "changes": [],
        }

    def _placed(
        self, model: Model, row: Rows, vector: Floats, squared: Floats, position: Position
    ) -> PlacedFacts:
        current = model.by_id.get(int(row["segment"][0]))
        return {
            "segment": None
            if current is None
            else {
                "id": current.id,
                "name": current.name,
                "kind": kinds_told(row["kind"], position.kinds)[0],
                "since": iso(int(row["since"][0])),
                "kind_since": iso(int(row["kind_since"][0])),
            },
            "model": model.name,
            "scores": foretold.of_user(model, vector, self.table),
            "levels": level_facts.on_steps(model, row, position.levels, vector, self.table),
            "distances": sorted(
                (
                    Distance(segment=s.id, name=s.name, distance=max(d, 0.0) ** 0.5)
                    for s, d in zip(model.segments, squared.tolist(), strict=True)
                    if d < np.inf
                ),
                key=lambda entry: entry["distance"],
            ),
        }

    def now_ms(self) -> int:
        """What time it is by the clock in use."""
        if self.settings.clock.mode == "live":
            return time.time_ns() // 1_000_000
        positions = map(self.store.position, range(self.settings.topics.partitions))
        return max((found.clock_ms for found in positions if found is not None), default=0)


def in_time_order(records: Iterable[Record], last: int | None) -> list[Record]:
    """Records of all partitions by the time they tell, a user's by version.

    Args:
        last: only so many of the latest; None for all.
    """

    def order(record: Record) -> tuple[str, str, int]:
        return record["at"], record.get("user", ""), record.get("version", 0)

    if last is None:
        return sorted(records, key=order)
    return nlargest(last, records, key=order)[::-1]


def since_ms(text: str, now_ms: Callable[[], int]) -> int:
    """A time that is given as such, or as how long ago it was.

    Raises:
        ValueError: it is neither.
    """
    try:
        if text.strip()[-1:].isalpha() and text.strip()[-1] not in "Zz":
            ago_ms = min(float(parse_duration(text)) * 1_000, 1e15)
            return max(now_ms() - round(ago_ms), 0)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            "expected a time such as 2026-01-31T12:00Z, or how long ago: 30d"
        ) from None
    return milliseconds(moment)


def wanted(
    record: Record,
    user: str | None,
    kind: str | None,
    since: str | None = None,
    *,
    kinds_only: bool = False,
) -> bool:
    """Whether a record passes the filters of `segstream changes`; a segment is no user.

    Args:
        kinds_only: whether only what tells another kind than before is wanted.
    """
    if kinds_only and not _tells_another_kind(record):
        return False
    if since is not None and record["at"] < since:
        return False
    theirs = user is None or record.get("user") == user
    return theirs and (kind is None or record.get("kind_to", record.get("kind")) == kind)


def _tells_another_kind(record: Record) -> bool:
    if "kind_to" in record:
        return bool(record["kind_from"] != record["kind_to"])
    return str(record.get("event", "")).startswith("kind:")


def churn_risk_moves(changes: Iterable[Record]) -> int:
    """Moves into a kind that stands for churn risk, from one that does not."""
    return sum(
        change["kind_to"] in CHURN_RISK_KINDS and change["kind_from"] not in CHURN_RISK_KINDS
        for change in changes
    )


def segment_facts(model: Model, segment: int) -> NamedSegment:
    """A segment, as it is told beside something else."""
    known = model.by_id[segment]
    return {"segment": known.id, "name": known.name, "kind": known.kind}
