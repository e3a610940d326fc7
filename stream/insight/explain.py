"""Explains where a user stands: what holds them, what would move them, and what silence will do.

Comes in: a user's vector or row, a model and the publish rule. Goes out: facts in named features
and natural units; `cli/explaining` shows them. Nothing is decided here: `segments` alone moves users, and
what is said about silence is said by looking with it, ahead of time.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from stream.clustering import GRID, FeatureMap, distances
from stream.events import CAUSES, Bools, Cause, Floats, Rows
from stream.features import Feature, FeatureTable
from stream.insight.ahead import Acted, Silence
from stream.insight.facts import Act, Departure, Margin, Part, Proposal
from stream.insight.queries import segment_facts
from stream.model import Model, PopulationModel
from stream.segments import PublishRule, contributions, look
from stream.units import iso

How = Literal["by acting", "with time", "by either", "not theirs to change"]


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


def acts(
    row: Rows, acted: Acted, table: FeatureTable, model: Model, rule: PublishRule
) -> list[Act]:
    """What the user could do to be moved at once, fewest first: copies of them that acted are looked at.

    Args:
        row: ``(1,)`` the user; it stays as it is.

    Returns:
        Empty also if the user is due already, without any act.
    """
    rows = np.concatenate([row, acted.rows])
    vectors = table.vectors(rows, acted.now_ms)
    placed = model.place(vectors, rows["segment"])
    causes = np.full(len(rows), CAUSES.index(Cause.USER_MOVED), np.uint8)
    causes[0] = CAUSES.index(Cause.TIME_PASSED)
    moves = look(
        rows, placed.squared, model.ids, model.gaps, rule, causes, acted.now_ms, placed.crossing,
        model.nearness, rule.resting(model.populations.features, vectors),
    ).moves  # fmt: skip
    if 0 in moves.index:
        return []
    found: dict[int, Act] = {}
    for place, to in zip((moves.index - 1).tolist(), moves.after.tolist(), strict=True):
        kind = int(acted.kind[place])
        if kind not in found:
            found[kind] = {**acted.told(place), "to": to, **segment_facts(model, to)}
    return sorted(found.values(), key=lambda act: act["times"])


# -- what silence will do ----------------------------------------------------------------------


def departures(row: Rows, silence: Silence, model: Model, rule: PublishRule) -> list[Departure]:
    """The coming moves of a user who does nothing any more, under the model in force.

    Each day they are looked at as a sweep would: whoever is over the margin already moves on day 0.

    Args:
        row: ``(1,)`` the user; it stays as it is.
    """
    row = row.copy()
    causes = np.array([CAUSES.index(Cause.TIME_PASSED)], np.uint8)
    found: list[Departure] = []
    for day, at_ms in enumerate(silence.times_ms):
        vectors = silence.vectors[day : day + 1]
        here = model.place(vectors, row["segment"])
        moves = look(
            row, here.squared, model.ids, model.gaps, rule, causes, at_ms, here.crossing,
            model.nearness, rule.resting(model.populations.features, vectors),
        ).moves  # fmt: skip
        if len(moves):
            to = int(moves.after[0])
            found.append({"days": day, "at": iso(at_ms), **segment_facts(model, to)})
    return found
