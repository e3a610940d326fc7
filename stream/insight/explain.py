"""Explains where a user stands: what holds them, what would move them, and what silence will do.

Comes in: a user's vector or row, a model and the publish rule. Goes out: facts in named features
and natural units; `cli/explaining` shows them. Nothing is decided here: `segments` alone moves users, and
what is said about silence is said by looking with it, ahead of time.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from stream.clustering import GRID, FeatureMap, distances
from stream.events import CAUSES, Bools, Cause, EventColumns, Floats, Ints, Rows
from stream.features import Feature, FeatureTable
from stream.insight.facts import Act, Departure, Margin, Part, Proposal
from stream.insight.queries import segment_facts
from stream.model import Model, PopulationModel
from stream.segments import PublishRule, contributions, look
from stream.units import DAY_MS, iso

How = Literal["by acting", "with time", "by either", "not theirs to change"]

MOST_ACTS = 10
"""Events of one kind: nobody can be asked for more at once."""
SILENCE_DAYS = 730
"""Two years. By then a decayed sum with the longest default half-life (180 days) is down to a sixteenth, so
whoever is still in their segment stays there."""


# -- what holds them ---------------------------------------------------------------------------


def margin(vector: Floats, model: Model, features: tuple[Feature, ...], own: int) -> Margin:
    """The margin between a user's segment and the nearest other one of the same population.

    Args:
        vector: ``(features,)`` in natural units.
        own: column of the user's segment in the model.

    Raises:
        ValueError: the population has no other segment.
    """
    other = nearest_other(vector, model, own)
    mapped = model.part_of(own)[0].map.apply(vector[None])[0]
    parts = contributions(mapped, model.centroids[own], model.centroids[other], model.weights[own])
    natural = model.typical
    order = np.argsort(-np.abs(parts), kind="stable").tolist()
    difference = float(parts.sum())
    return Margin(
        own=int(model.ids[own]),
        other=int(model.ids[other]),
        difference=difference,
        z=difference / (2.0 * _gap(model, own, other)),
        parts=[
            Part(
                feature=features[column].name,
                unit=features[column].unit,
                value=float(vector[column]),
                own=float(natural[own, column]),
                other=float(natural[other, column]),
                contribution=float(parts[column]),
            )
            for column in order
        ],
    )


def nearest_other(vector: Floats, model: Model, own: int) -> int:
    """Column of the nearest segment of the same population that is not the user's own.

    Raises:
        ValueError: the population has no other segment.
    """
    part, row = model.part_of(own)
    if len(part.ids) < 2:
        raise ValueError(f"the population {part.population} has no other segment")
    squared = distances(part.map.apply(vector[None]), part.centroids, part.map.weights)[0]
    squared[row] = np.inf
    return own - row + int(squared.argmin())


def _gap(of: Model | PopulationModel, one: int, other: int) -> float:
    """Squared distance between two centroids, as the publish rule takes it."""
    gap = float(of.gaps[one, other])
    return gap if gap > 0 else 1.0


# -- what would move them ----------------------------------------------------------------------


def proposals(
    vector: Floats,
    model: Model,
    features: tuple[Feature, ...],
    own: int,
    target: int,
    rule: PublishRule,
) -> list[Proposal]:
    """For each feature that can do it alone, the smallest change that moves the user.

    It is enough when the next look would move the user to the target, whatever their acts add up to
    so far: its centroid is the nearest of all, and nearer than their own one by the publish rule's
    margin. A difference of two squared distances is linear in each mapped coordinate, so each of
    these conditions allows a half-line, and the answer is the point nearest to the user of what all
    of them allow.

    What lies outside the limits of the feature map is cut back to them, and moves nobody: a
    feature that would have to go there is not proposed.

    Args:
        vector: ``(features,)`` in natural units.
        own, target: columns of the user's segment and of another one of the same population.

    Returns:
        Smallest change first; empty if no feature can do it alone, or the user is due already.
    """
    part, row = model.part_of(own)
    mapped = part.map.apply(vector[None])[0]
    steps = _steps(mapped, part, row, target - own + row, rule)
    found = np.flatnonzero(np.isfinite(steps))
    order = found[np.argsort(np.abs(steps[found]), kind="stable")]
    answer = []
    for column in order.tolist():
        moved = mapped.copy()
        moved[column] += steps[column]
        needed = float(part.map.invert(moved)[column])
        answer.append(
            Proposal(
                feature=features[column].name,
                unit=features[column].unit,
                value=float(vector[column]),
                needed=needed,
                sd=float(steps[column]),
                how=how(features[column], rises=bool(steps[column] > 0)),
            )
        )
    return answer


def _steps(
    mapped: Floats, part: PopulationModel, own: int, target: int, rule: PublishRule
) -> Floats:
    """The smallest change of each mapped coordinate that is enough; NaN where none is."""
    weights, centroids = part.map.weights, part.centroids
    steps = np.full(len(mapped), np.nan)
    if _enough(mapped[None], part, own, target, rule)[0]:
        return steps
    squared = distances(mapped[None], centroids, weights)[0]
    needed = np.zeros(len(centroids))
    needed[own] = 2.0 * _asked(part, own, target, rule) * _gap(part, own, target)
    rivals = np.arange(len(centroids)) != target
    # For each rival and feature: lack + slope * step > 0 must hold.
    lack = (squared - squared[target] - needed)[rivals][:, None]
    slope = 2.0 * weights * (centroids[target] - centroids[rivals])
    with np.errstate(divide="ignore", invalid="ignore"):
        border = -lack / slope
    lower = np.where(slope > 0, border, -np.inf).max(axis=0)
    upper = np.where(slope < 0, border, np.inf).min(axis=0)
    hopeless = ((slope == 0) & (lack <= 0)).any(axis=0)

    # The first point of the grid beyond the border, or the next: a border is a rounded number.
    rises = lower >= 0
    first = np.where(rises, np.floor(lower * GRID) + 1, np.ceil(upper * GRID) - 1) / GRID
    low, high = _limits(part.map)
    for more in (1.0, 0.0):
        step = first + np.where(rises, more, -more) / GRID
        possible = (mapped + step >= low) & (mapped + step <= high) & np.isfinite(step)
        step = np.where(possible, step, 0.0)
        enough = _enough(mapped + np.diag(step), part, own, target, rule)
        steps = np.where(possible & enough & ~hopeless, step, steps)
    return steps


def _limits(feature_map: FeatureMap) -> tuple[Floats, Floats]:
    """The lowest and the highest mapped value a feature can have."""
    return feature_map.on_scale(feature_map.low), feature_map.on_scale(feature_map.high)


def _enough(
    points: Floats, part: PopulationModel, own: int, target: int, rule: PublishRule
) -> Bools:
    """Whether a user of the own segment at each point would move to the target at one look."""
    squared = distances(points, part.centroids, part.map.weights)
    rivals = np.arange(len(part.centroids)) != target
    nearest = squared[:, target] < squared[:, rivals].min(axis=1)
    z = (squared[:, own] - squared[:, target]) / (2.0 * _gap(part, own, target))
    return np.asarray(nearest & (z > _asked(part, own, target, rule)))


def _asked(part: PopulationModel, own: int, target: int, rule: PublishRule) -> float:
    """The margin that an act needs from one segment to another."""
    return rule.asked_between(float(part.nearness[own, target]))[0]


def how(feature: Feature, *, rises: bool) -> How:
    """What makes a feature rise or fall."""
    match feature.aggregate:
        case "first":
            return "with time" if rises else "not theirs to change"
        case "last":
            return "with time" if rises else "by acting"
        case "mean" | "ratio":
            return "by either" if feature.aggregate == "ratio" else "by acting"
        case _ if rises:
            return "by acting"
        case _ if feature.half_life is None and feature.window is None:
            return "by either" if feature.signed else "not theirs to change"
        case _:
            return "by either" if feature.signed else "with time"


# -- what an act would do ------------------------------------------------------------------------


def acts(row: Rows, table: FeatureTable, model: Model, rule: PublishRule, now_ms: int) -> list[Act]:
    """What the user could do to be moved at once, up to `MOST_ACTS` times; fewest first.

    The events are folded into a copy of the row, and the copy is looked at: nothing is estimated.
    A number that an event carries is the user's own mean of it. Where they have none, it is the one of the
    middle segment, of those where it is usual. The event has no category. Where events do the same to every
    feature, only the first is tried. An event that a feature subtracts is not tried.

    Args:
        row: ``(1,)`` the user; it stays as it is.

    Returns:
        Empty also if the user is due already, without any act.
    """
    tried = tried_acts(row, table, model, now_ms)
    now_ms = tried.now_ms
    rows = np.concatenate([row, tried.rows])
    placed = model.place(table.vectors(rows, now_ms), rows["segment"])
    causes = np.full(len(rows), CAUSES.index(Cause.USER_MOVED), np.uint8)
    causes[0] = CAUSES.index(Cause.TIME_PASSED)
    moves = look(
        rows, placed.squared, model.ids, model.gaps, rule, causes, now_ms, placed.crossing,
        model.nearness,
    ).moves  # fmt: skip
    if 0 in moves.index:
        return []
    found: dict[int, Act] = {}
    for place, to in zip((moves.index - 1).tolist(), moves.after.tolist(), strict=True):
        number = int(tried.kind[place])
        if number not in found:
            found[number] = {
                "event": tried.events[number],
                "times": int(tried.times[place]),
                "value": tried.values[number],
                "quantity": tried.quantities[number],
                "to": to,
                **segment_facts(model, to),
            }
    return sorted(found.values(), key=lambda act: act["times"])


class TriedActs(NamedTuple):
    """What becomes of a user who acts once, twice and so on, for each kind of event.

    Attributes:
        events, values, quantities: by kind, with the numbers that each of its events carries.
        kind, times: of each row: which kind of event, and how often.
        rows: the user after that.
        now_ms: when they acted.
    """

    events: list[str]
    values: list[float | None]
    quantities: list[float | None]
    kind: Ints
    times: Ints
    rows: Rows
    now_ms: int


def tried_acts(row: Rows, table: FeatureTable, model: Model, now_ms: int) -> TriedActs:
    """Fold acts into copies of a user's row; see `acts`."""
    now_ms = max(now_ms, int(row["seen"][0]))
    vector = table.vectors(row, now_ms)[0]
    typical = model.typical
    tried = _different_events(table)
    values, quantities = (
        [_usual(event, of, table, vector, typical) for event in tried]
        for of in ("value", "quantity")
    )
    # Slot by slot: as the user is, then each kind of event once, twice, and so on.
    kinds = np.repeat(np.arange(len(tried)), MOST_ACTS)
    times = np.tile(np.arange(1, MOST_ACTS + 1), len(tried))
    slot, kind = np.repeat(np.arange(1, len(times) + 1), times), np.repeat(kinds, times)
    codes = np.array([table.codes[event] for event in tried], np.uint8)
    events = EventColumns(
        slot=slot,
        topic=table.uses_value[codes[kind]].astype(np.uint8),
        kind=codes[kind],
        time_ms=np.full(len(slot), now_ms, np.int64),
        id=np.arange(1, len(slot) + 1, dtype=np.uint64),
        value=np.array([value or 0.0 for value in values])[kind],
        quantity=np.array([quantity or 0.0 for quantity in quantities])[kind],
        category=np.zeros(len(slot), np.uint64),
        order=np.zeros(len(slot), np.uint64),
        whole=np.zeros(len(slot), np.bool_),
        recorded_ms=np.full(len(slot), now_ms, np.int64),
    )
    folded = table.fold(lambda slots: np.repeat(row, len(slots)), events).rows
    return TriedActs(tried, values, quantities, kinds, times, folded, now_ms)


def _different_events(table: FeatureTable) -> list[str]:
    """Events that are told apart by what features do with them, the first mentioned of each."""
    taken = {event for feature in table.features for event in feature.minus}
    mentioned = dict.fromkeys(event for feature in table.features for event in feature.on)
    first: dict[tuple[bool, ...], str] = {}
    for event in mentioned:
        if event not in taken:
            first.setdefault(tuple(event in feature.on for feature in table.features), event)
    return list(first.values())


def _usual(
    event: str,
    of: Literal["value", "quantity"],
    table: FeatureTable,
    vector: Floats,
    typical: Floats,
) -> float | None:
    """A user's mean of a number that an event carries; None if no feature reads it."""
    reading = [(c, f) for c, f in enumerate(table.features) if f.of == of and event in f.on]
    for column, feature in reading:
        if feature.aggregate == "mean":
            own = float(vector[column])
            return own if own != feature.absent else _middle(typical[:, column])
    return 0.0 if reading else None


def _middle(typical: Floats) -> float:
    """The middle one of the segments' typical values; segments that hardly have any are left out."""
    most = float(typical.max())
    return float(np.median(typical[typical >= min(most, most / 4)]))


# -- what silence will do ----------------------------------------------------------------------


def departures(
    row: Rows,
    table: FeatureTable,
    model: Model,
    rule: PublishRule,
    now_ms: int,
    days: int = SILENCE_DAYS,
) -> list[Departure]:
    """The coming moves of a user who does nothing any more, under the model in force.

    Each day they are looked at as a sweep would. Day 0 is now: whoever is over the margin already
    moves at the next look.

    Args:
        row: ``(1,)`` the user; it stays as it is.
    """
    row = row.copy()
    causes = np.array([CAUSES.index(Cause.TIME_PASSED)], np.uint8)
    times = [now_ms + day * DAY_MS for day in range(days + 1)]
    vectors = np.concatenate([table.vectors(row, at_ms) for at_ms in times])
    found: list[Departure] = []
    for day, at_ms in enumerate(times):
        here = model.place(vectors[day : day + 1], row["segment"])
        moves = look(
            row, here.squared, model.ids, model.gaps, rule, causes, at_ms, here.crossing,
            model.nearness,
        ).moves  # fmt: skip
        if len(moves):
            to = int(moves.after[0])
            found.append({"days": day, "at": iso(at_ms), **segment_facts(model, to)})
    return found
