"""A refit: a new epoch, in named steps over one input.

Comes in: the trainer's state and a sample of users. Goes out: the state with a new model: a feature
map learned from the sample, centroids, ids kept where the people are the same, names and kinds, and
what became of each segment.

Centroids come by Lloyd from where they are (the *champion*). Two *challengers* begin elsewhere: one
merges down from more segments, one is seeded anew; they take turns, for they are half of a refit's
work. A challenger takes over only if one is clearly better in two refits running, so that luck alone
never renames anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from stream.clustering import (
    CLIP,
    FeatureMap,
    Statistics,
    assign,
    distances,
    inertia,
    lloyd,
    nearest,
    on_grid,
    seed_and_fit,
    separated,
    votes,
)
from stream.config import Learning
from stream.drift import Drift
from stream.events import Floats, Ints, Lineage
from stream.flapping import Tallies, Tally
from stream.kinds import KindRule, Members, ladder
from stream.learning.choosing import Groups, KMeans, Space, explained, merge_to
from stream.learning.state import ALL_HASHES, TrainerState
from stream.learning.statistics import Sample
from stream.lineage import Anchor, Heritage, inherit, others_people
from stream.model import Axes, Model, Segment
from stream.naming import Truth, called
from stream.units import iso

CHALLENGES = 2
"""Refits running that a challenger must win: a single look costs identities (ARI .10) for luck."""
Turn = Literal["merged", "seeded"]
TURNS: tuple[Turn, ...] = ("merged", "seeded")
REMEMBERED = 256
"""Retired segments a model tells of, the last ones: nobody is in an older one any more."""
SEARCH_USERS = 1_024
ANCHOR_REFITS = 12
"""An anchor is dropped after so many: long enough to see a segment die, which takes a few, and short
enough for most of its people to be still about."""
LEFT = 0.75
"""Of the distance to the nearest other centroid: farther than this is another place."""
SILHOUETTE_USERS = 512
"""Silhouette (Rousseeuw 1987) is quadratic in users; 512 of a uniform sample tell the mean to about
.02."""


@dataclass(frozen=True)
class _Refit:
    """What a refit goes by.

    Attributes:
        challenge: whether others may challenge the centroids there are.
        resize: whether there shall be as many segments as the settings say.
        merged: everyone's under the model before; None where they are not known.
        map: learned from the sample.
        mapped: the sample under that map, ``(users, features)``.
    """

    state: TrainerState
    sample: Sample
    axes: Axes
    settings: Learning
    rules: Sequence[KindRule]
    challenge: bool
    resize: bool
    merged: Statistics | None
    map: FeatureMap
    mapped: Floats

    @property
    def space(self) -> Space:
        return Space(self.mapped, self.map.weights)

    @property
    def epoch(self) -> int:
        """Of the model to come."""
        before = self.state.model
        return (self.state.epochs_before if before is None else before.epoch) + 1

    @property
    def name(self) -> str:
        """Of the model to come, epoch.version."""
        return f"{self.epoch}.0"

    def happened(self, event: str, segment: int, others: Sequence[int] = ()) -> Lineage:
        """A line of lineage."""
        return lineage_event(event, segment, others, self.state.round_ms, self.name)


class _Before(NamedTuple):
    """The model there is, and the sample under it.

    Attributes:
        mapped: the sample under the model's map.
        labels: ``(users,)`` column of each one's segment.
    """

    model: Model
    mapped: Floats
    labels: Ints


class _Placed(NamedTuple):
    """Centroids, and the refits running in which a challenger was better."""

    centroids: Floats
    challenged: int


class _Identified(NamedTuple):
    """Whose segments these are.

    Attributes:
        ids: by column.
        next_id: to be minted next.
        born: the model that minted each id.
    """

    ids: tuple[int, ...]
    next_id: int
    born: Mapping[int, str]
    lineage: list[Lineage]


def refit(
    state: TrainerState,
    sample: Sample,
    axes: Axes,
    settings: Learning,
    rules: Sequence[KindRule],
    *,
    challenge: bool,
    resize: bool = False,
    merged: Statistics | None = None,
) -> TrainerState:
    """A new epoch: a new map from the sample, the best centroids, ids kept, meanings told.

    Args:
        challenge: whether centroids found from elsewhere may take over.
        resize: whether there shall be as many segments as the settings say.
        merged: everyone's under the model before; None where they are not known.
    """
    new_map = FeatureMap.learn(sample.vectors, axes.weights)
    given = _Refit(
        state, sample, axes, settings, rules, challenge, resize, merged,
        new_map, new_map.apply(sample.vectors),
    )  # fmt: skip
    before = _before(given)
    placed = _first_centroids(given) if before is None else _next_centroids(given, before)
    squared = distances(given.mapped, placed.centroids, new_map.weights)
    labels, away = nearest(squared)
    if before is None:
        identified = _first_ids(given, len(placed.centroids))
    else:
        identified = _inherited_ids(given, before, placed.centroids, labels)
    segments, turns = _segments(given, placed.centroids, identified, labels)
    model = Model(
        epoch=given.epoch,
        version=0,
        at_ms=state.round_ms,
        schema=axes.schema,
        map=new_map,
        centroids=placed.centroids,
        segments=measured(segments, state.flapping),
        users=state.users,
        inertia=float(away.mean()),
        silhouette=_silhouette(given.mapped, labels, new_map.weights),
        lineage=(*identified.lineage, *turns),
        retired=_retired(state.model, identified.ids),
        tuning="" if state.tuning is None else state.tuning.id,
        rule=None if state.tuning is None else state.tuning.rule(),
        ladder=ladder(rules),
    )
    unfit = misfits(model, given.mapped, squared, None, settings)
    return replace(
        state,
        model=model,
        next_id=identified.next_id,
        sizes=tuple(segment.size for segment in segments),
        refit_ms=state.round_ms,
        refit_updates=state.updates,
        sample_threshold=_threshold(state, sample, settings),
        drift=Drift.since(given.mapped, away, sample.at_ms, unfit),
        challenged=placed.challenged,
        anchor=_anchor(state, sample, np.array(identified.ids)[labels], model),
    )


# -- centroids -----------------------------------------------------------------------------------


def _before(given: _Refit) -> _Before | None:
    model = given.state.model
    if model is None:
        return None
    mapped = model.map.apply(given.sample.vectors)
    return _Before(model, mapped, assign(mapped, model.centroids, model.map.weights))


def _first_centroids(given: _Refit) -> _Placed:
    """Seeded, for there is nothing to begin from."""
    space, settings = given.space, given.settings
    k = _distinct(given)
    centroids, _ = seed_and_fit(space.points, k, space.weights, settings.starts, settings.seed)
    return _Placed(_peopled(space, centroids), 0)


def _next_centroids(given: _Refit, before: _Before) -> _Placed:
    """From those there are; or a challenger's, or more or fewer of them where that is wanted."""
    space, old = given.space, before.model
    carried = old.map.carry(old.centroids, given.map)
    centroids, challenged = lloyd(space.points, carried, space.weights), 0
    k = _distinct(given)
    if k > len(centroids) or (given.resize and k < len(centroids)):
        centroids = _resized(space, centroids, k, given.epoch, given.settings)
    elif given.challenge:
        centroids, challenged = _challenged(given, centroids)
    if given.merged is not None:
        luck = _sample_offset(before.mapped, before.labels, given.merged)
        luck = luck * (old.map.scale / given.map.scale)
        centroids = _without(luck, centroids, before.labels, space)
    return _Placed(_peopled(space, centroids), challenged)


def _challenged(given: _Refit, champion: Floats) -> _Placed:
    """The champion, or a challenger that has won often enough."""
    before, epoch, settings = given.state.challenged, given.epoch, given.settings
    # Both, when one of them has won once: either may confirm it.
    turns = TURNS if before else (TURNS[epoch % len(TURNS)],)
    challenger, gain = _challenger(given.space, champion, turns, epoch, settings)
    won = before + 1 if gain > settings.challenge_gain else 0
    return _Placed(challenger, 0) if won >= CHALLENGES else _Placed(champion, won)


def _distinct(given: _Refit) -> int:
    """How many segments are wanted, or how many users differ, if fewer: the same cannot be parted."""
    enough = given.settings.segments
    mapped = given.mapped[:, given.map.weights > 0]
    found = 0
    for some in (mapped[:SEARCH_USERS], mapped):  # most often a few show it
        if (found := len(np.unique(some, axis=0))) >= enough:
            return enough
    return found


def _peopled(space: Space, centroids: Floats) -> Floats:
    """Without those nearest to nobody, which have nothing to keep an id by."""
    found: Floats = centroids[np.unique(assign(space.points, centroids, space.weights))]
    return found


def _sample_offset(mapped: Floats, labels: Ints, everyone: Statistics) -> Floats:
    """How far a sample's means lie from those of everyone, ``(k, features)``.

    Args:
        mapped: the sample, under the model that `everyone` was counted under.
        labels: column of the nearest centroid of that model.
    """
    counts, sums = votes(mapped, labels, len(everyone.counts))
    known = (counts > 0) & (everyone.counts > 0)
    sampled = sums / np.maximum(counts, 1)[:, None]
    whole = everyone.sums / np.maximum(everyone.counts, 1)[:, None]
    found: Floats = np.where(known[:, None], sampled - whole, 0.0)
    return found


def _without(luck: Floats, centroids: Floats, labels: Ints, space: Space) -> Floats:
    """Centroids of a sample, without the luck of the draw as far as it is known.

    Most of those nearest to a centroid were together before too, and how far a sample of them is
    from all of them was counted then: a control variate (Hammersley and Handscomb 1964). Without it
    each refit would push all centroids by chance, the next round would pull them back, and each
    time users on borders would move.

    Args:
        luck: of the segments before, see `_sample_offset`, on the scale of the space.
        labels: ``(users,)`` column of each user's segment before.
    """
    now = assign(space.points, centroids, space.weights)
    pairs = now * len(luck) + labels
    came = np.bincount(pairs, minlength=len(centroids) * len(luck)).reshape(-1, len(luck))
    share = came / np.maximum(came.sum(axis=1, keepdims=True), 1)
    return on_grid(np.clip(centroids - share @ luck, -CLIP, CLIP))


def _resized(space: Space, centroids: Floats, k: int, epoch: int, settings: Learning) -> Floats:
    """Fewer centroids, merged from these; or more, seeded where they save the most inertia."""
    points, weights = space
    if k < len(centroids):
        labels = assign(points, centroids, weights)
        return lloyd(points, merge_to(space, Groups(labels, centroids), k).centroids, weights)
    few = points[:SEARCH_USERS]
    seeds, _ = seed_and_fit(few, k, weights, 1, settings.seed + epoch)
    to_seeds = distances(few, seeds, weights)
    _, away = nearest(distances(few, centroids, weights))
    while len(centroids) < k:
        best = int(np.minimum(away[:, None], to_seeds).sum(axis=0).argmin())
        away = np.minimum(away, to_seeds[:, best])
        centroids = np.vstack([centroids, seeds[best]])
    return lloyd(points, centroids, weights)


def _challenger(
    space: Space, champion: Floats, turns: Sequence[Turn], epoch: int, settings: Learning
) -> tuple[Floats, float]:
    """The best centroids found from elsewhere, and the share of inertia they save.

    What takes long is done with some of the users, who are a uniform sample too.

    Args:
        turns: whose turn it is; at least one's.
    """
    k = len(champion)
    points, weights = space
    few = Space(points[:SEARCH_USERS], weights)
    seed = settings.seed + epoch
    found: list[Floats] = []
    for turn in turns:
        if turn == "merged":
            spare = min(k + settings.spare_segments, len(few.points))
            begun = merge_to(few, KMeans(spare, 1, seed).fit(few), k).centroids
        else:
            begun, _ = seed_and_fit(few.points, k, weights, 1, seed)
        found.append(lloyd(points, begun, weights))
    left = [inertia(points, centroids, weights) for centroids in found]
    best = int(np.argmin(left))
    return found[best], 1.0 - left[best] / max(inertia(points, champion, weights), 1e-12)


# -- identities ----------------------------------------------------------------------------------


def _first_ids(given: _Refit, k: int) -> _Identified:
    first = given.state.next_id
    ids = tuple(range(first, first + k))
    lineage = [given.happened("born", segment) for segment in ids]
    return _Identified(ids, first + k, dict.fromkeys(ids, given.name), lineage)


def _inherited_ids(given: _Refit, before: _Before, centroids: Floats, labels: Ints) -> _Identified:
    """Ids go on with their people, unless they would stand elsewhere with others."""
    state, old = given.state, before.model
    then = None if state.anchor is None else state.anchor.segments_then(given.sample.hashes)
    apart: list[tuple[int, int]] = []

    def inherited() -> Heritage:
        return inherit(
            tuple(old.ids.tolist()), before.labels, labels, len(centroids), state.next_id,
            given.settings.identity_overlap, apart, then,
        )  # fmt: skip

    heritage = inherited()
    while then is not None and (
        found := _elsewhere(state, heritage.ids, given.map, centroids, labels, then, given.settings)
    ):
        apart += found
        heritage = inherited()
    born = {i: old.by_id[i].born if i in old.by_id else given.name for i in heritage.ids}
    lineage = [given.happened(*event) for event in heritage.events]
    return _Identified(tuple(heritage.ids), heritage.next_id, born, lineage)


def _anchor(
    state: TrainerState, sample: Sample, segments: npt.NDArray[Any], model: Model
) -> Anchor:
    """The anchor as it was, a refit older; or a new one. Who was born since is not in it."""
    old = state.anchor
    if old is None or old.age + 1 >= ANCHOR_REFITS:
        rows = zip(model.ids.tolist(), model.centroids.tolist(), strict=True)
        places = dict(rows)
        return Anchor.of(sample.hashes, segments, places)
    return msgspec.structs.replace(old, age=old.age + 1)


def _elsewhere(
    state: TrainerState,
    ids: Sequence[int],
    new_map: FeatureMap,
    centroids: Floats,
    labels: Ints,
    then: Ints,
    settings: Learning,
) -> list[tuple[int, int]]:
    """Ids that would stand elsewhere than at the anchor, with other people; each with its column."""
    assert state.anchor is not None
    gaps = separated(centroids, new_map.weights) + np.diag(np.full(len(ids), np.inf))
    found = []
    for column, segment in enumerate(ids):
        place = state.anchor.places.get(segment)
        if place is None:
            continue
        step = centroids[column] - np.array(place)
        gone = (new_map.weights * step**2).sum() > LEFT**2 * gaps[column].min()
        if gone and others_people(then, labels == column, segment, settings.identity_overlap):
            found.append((segment, column))
    return found


# -- what people see of it -----------------------------------------------------------------------


def _segments(
    given: _Refit, centroids: Floats, identified: _Identified, labels: Ints
) -> tuple[tuple[Segment, ...], list[Lineage]]:
    """Segments with name, kind and size; and which of them turned into another kind or name."""
    state, axes, weights = given.state, given.axes, given.map.weights
    known = {} if state.model is None else {s.id: s for s in state.model.segments}
    was = [known.get(i) for i in identified.ids]
    members = Members(
        given.sample.vectors, labels, axes.names, len(centroids), state.customers_seen
    )
    truth = Truth(axes, members, given.settings.word_share)
    names = [state.given.get(segment) for segment in identified.ids]
    now = called(was, names, truth, centroids, weights, given.rules)
    counts = np.bincount(labels, minlength=len(centroids))
    estimate = np.round(counts * (state.users / max(len(labels), 1))).astype(int).tolist()
    segments = tuple(
        Segment(i, *now[c], estimate[c], identified.born[i]) for c, i in enumerate(identified.ids)
    )
    return segments, turns_of(was, segments, state.round_ms, given.name)


def turns_of(
    was: Sequence[Segment | None], now: Sequence[Segment], at_ms: int, model: str
) -> list[Lineage]:
    """Which segments have turned into another kind, or are called otherwise."""
    found = []
    for before, segment in zip(was, now, strict=True):
        if before is not None and before.kind != segment.kind:
            turn = f"kind:{before.kind}->{segment.kind}"
            found.append(lineage_event(turn, segment.id, (), at_ms, model))
        elif before is not None and before.name != segment.name:
            found.append(lineage_event("renamed", segment.id, (), at_ms, model))
    return found


def _retired(old: Model | None, ids: Sequence[int]) -> tuple[Segment, ...]:
    """Segments there were, the last ones, oldest first."""
    if old is None:
        return ()
    return (*old.retired, *(s for s in old.segments if s.id not in ids))[-REMEMBERED:]


def lineage_event(
    name: str, segment: int, others: Sequence[int], at_ms: int, model: str
) -> Lineage:
    return {
        "event": name,
        "segment": segment,
        "others": list(others),
        "at": iso(at_ms),
        "model": model,
    }


def measured(segments: tuple[Segment, ...], flapping: Tallies) -> tuple[Segment, ...]:
    """Segments with their flapping."""
    return tuple(replace(s, flapping=flapping.get(s.id, Tally()).rates()) for s in segments)


# -- what the next rounds go by ------------------------------------------------------------------


def misfits(
    model: Model, mapped: Floats, squared: Floats, merged: Statistics | None, settings: Learning
) -> list[str]:
    """Segments that are too small, and pairs that are hardly two."""
    labels = squared.argmin(axis=1)
    counts = np.bincount(labels, minlength=len(model.ids)) if merged is None else merged.counts
    small = counts < settings.small_share * counts.sum()
    found = [f"small {i}" for i in model.ids[small].tolist()]
    shares = explained(Space(mapped, model.map.weights), labels, model.centroids)
    for a, b in zip(*np.nonzero(np.triu(shares < settings.separation, 1)), strict=True):
        found.append(f"close {model.ids[a]} {model.ids[b]}")
    return found


def _threshold(state: TrainerState, sample: Sample, settings: Learning) -> int:
    """A limit on hashes that lets about a quarter more users through than the sample needs."""
    if len(sample.hashes) >= settings.sample_users:
        return min(int(sample.hashes[-1]) // 4 * 5, ALL_HASHES)
    if state.users > len(sample.hashes):
        return min(state.sample_threshold * 2, ALL_HASHES)
    return ALL_HASHES


def _silhouette(mapped: Floats, labels: Ints, weights: Floats) -> float | None:
    from sklearn.metrics import silhouette_score  # noqa: PLC0415 - slow to import, see clustering

    few, labels = mapped[:SILHOUETTE_USERS] * np.sqrt(weights), labels[:SILHOUETTE_USERS]
    if not 1 < len(np.unique(labels)) < len(few):
        return None
    return float(silhouette_score(few, labels))
