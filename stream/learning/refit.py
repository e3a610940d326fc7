"""A refit: a new epoch, in named steps over one input.

Comes in: the trainer's state and samples of users. Goes out: the state with a new model: of each
population with a sample a feature map learned from it, centroids, ids kept where the people are the
same, names and kinds, and what became of each segment. Populations share nothing but the epoch, and
the next free id.

Centroids come by Lloyd from where they are (the *champion*). Two *challengers* begin elsewhere: one
merges down from more segments, one is seeded anew; they take turns, for they are half of a refit's
work. A challenger takes over only if one is clearly better in two refits running, so that luck alone
never renames anybody.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from stream.clustering import (
    ALL_HASHES,
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
from stream.learning.choosing import Groups, KMeans, Space, explained, merge_to, suggest
from stream.learning.state import Learned, TrainerState
from stream.learning.statistics import Sample
from stream.lineage import Anchor, Heritage, inherit, others_people
from stream.model import DECLARED, Axes, Model, PopulationModel, Segment, nearness_of
from stream.naming import Truth, called
from stream.populations import AUTO, Population, Populations
from stream.segments import PublishRule, published_then
from stream.units import iso

USERS_PER_SEGMENT = 10
"""Of a sample, where there are several populations: with fewer users a segment is luck. One with
fewer than this is not learned yet, and a small one has fewer segments than it shall have."""
ASK_AGAIN = 2
"""Times as many users as when a number of segments was suggested: then it is asked for anew. Asked
at each refit it would change with the luck of the sample, and ids with it."""
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
SEPARATION_DIGITS = 4
"""More say nothing of a sample, and cost bytes in each record of a model."""
SILHOUETTE_USERS = 512
"""Silhouette (Rousseeuw 1987) is quadratic in users; 512 of a uniform sample tell the mean to about
.02."""


@dataclass(frozen=True)
class Refitting:
    """How a refit is made.

    Attributes:
        settings: with the number of segments where a population says nothing of its own.
        populations: to be learned.
        challenge: populations in which others may challenge the centroids there are.
        publish: the rule that owners go by.
        resize: whether there shall be as many segments as the settings say.
        merged: everyone's under the model before; None where they are not known.
    """

    axes: Axes
    settings: Learning
    rules: Sequence[KindRule]
    populations: Populations
    challenge: Collection[str]
    publish: PublishRule
    resize: bool = False
    merged: Statistics | None = None


@dataclass(frozen=True)
class _Refit:
    """What the refit of a population goes by.

    Attributes:
        population: its name.
        learned: what is known of it.
        part: what there is of it; None before the first.
        settings: with its own number of segments.
        challenge, publish, resize: see `Refitting`.
        merged: of its users.
        map: learned from the sample.
        mapped: the sample under that map, ``(users, features)``.
        others: names of the segments of other populations.
    """

    state: TrainerState
    population: str
    learned: Learned
    part: PopulationModel | None
    sample: Sample
    axes: Axes
    settings: Learning
    rules: Sequence[KindRule]
    challenge: bool
    publish: PublishRule
    resize: bool
    merged: Statistics | None
    map: FeatureMap
    mapped: Floats
    others: Collection[str]

    @property
    def space(self) -> Space:
        return Space(self.mapped, self.map.weights)

    @property
    def epoch(self) -> int:
        """Of the model to come."""
        return epoch_to_come(self.state)

    @property
    def name(self) -> str:
        """Of the model to come, epoch.version."""
        return f"{self.epoch}.0"

    def happened(self, event: str, segment: int, others: Sequence[int] = ()) -> Lineage:
        """A line of lineage."""
        return lineage_event(event, segment, others, self.state.round_ms, self.name)


class _Before(NamedTuple):
    """What there is of a population, and the sample under it.

    Attributes:
        mapped: the sample under its map.
        labels: ``(users,)`` row of each one's segment.
    """

    part: PopulationModel
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


class _Refitted(NamedTuple):
    """A population after its refit."""

    part: PopulationModel
    learned: Learned
    next_id: int
    lineage: tuple[Lineage, ...]


def refit(state: TrainerState, samples: Mapping[str, Sample], by: Refitting) -> TrainerState:
    """A new epoch: of some populations a new map, the best centroids, ids kept, meanings told.

    Those of the others, and their users, stay as they are.

    Args:
        samples: by the population that is refitted; at least one.
    """
    old, name = state.model, f"{epoch_to_come(state)}.0"
    learned = dict(state.learned)
    found: dict[str, PopulationModel] = {}
    lineage: list[Lineage] = []
    next_id = state.next_id
    for population in by.populations.declared:
        part = None if old is None else old.part(population.name)
        if population.name in samples:
            others = names_of_others(old, found, population.name)
            given = _given(state, population, part, samples[population.name], by, others)
            refitted = _refitted(given, next_id, since=_since(old, population, name))
            found[population.name] = refitted.part
            learned[population.name] = refitted.learned
            next_id = refitted.next_id
            lineage += refitted.lineage
        elif part is not None:
            found[population.name] = part
    lineage += _ended(state, found, name)
    parts = tuple(found.values())
    return replace(
        state,
        model=Model(
            epoch=epoch_to_come(state),
            version=0,
            at_ms=state.round_ms,
            schema=by.axes.schema,
            populations=by.populations,
            parts=parts,
            users=state.users,
            lineage=tuple(lineage),
            retired=_retired(old, [s.id for part in parts for s in part.segments]),
            tuning="" if state.tuning is None else state.tuning.id,
            rule=None if state.tuning is None else state.tuning.rule(),
            ladder=ladder(by.rules),
        ),
        learned={name: known for name, known in learned.items() if name in by.populations.names},
        next_id=next_id,
        sizes=tuple(segment.size for part in parts for segment in part.segments),
    )


def epoch_to_come(state: TrainerState) -> int:
    """Of the model that a refit makes."""
    return (state.epochs_before if state.model is None else state.model.epoch) + 1


def names_of_others(
    old: Model | None, found: Mapping[str, PopulationModel], population: str
) -> set[str]:
    """Names of the segments of all populations but one, as far as they are known."""
    known = {} if old is None else {part.population: part for part in old.parts}
    known |= found
    return {
        s.name for part in known.values() if part.population != population for s in part.segments
    }


def _since(old: Model | None, population: Population, name: str) -> str:
    """The model from which on a population is learned as it is declared."""
    part = None if old is None else old.part(population.name)
    if old is None or part is None:
        return name
    before = next(one for one in old.populations.declared if one.name == population.name)
    return (
        part.since if (before.when, before.slack) == (population.when, population.slack) else name
    )


def _ended(state: TrainerState, found: Mapping[str, PopulationModel], name: str) -> list[Lineage]:
    """Segments that end because their population does."""
    return [
        lineage_event("dissolved", segment.id, (), state.round_ms, name)
        for part in (() if state.model is None else state.model.parts)
        if part.population not in found
        for segment in part.segments
    ]


def _given(
    state: TrainerState,
    population: Population,
    part: PopulationModel | None,
    sample: Sample,
    by: Refitting,
    others: Collection[str],
) -> _Refit:
    alone = len(by.populations) == 1
    learn = FeatureMap.learn if alone else FeatureMap.learn_of_those_who_have
    new_map = learn(sample.vectors, by.axes.weights)
    merged = by.merged
    if merged is not None:
        assert state.model is not None
        columns = state.model.columns_of(population.name)
        merged = None if columns is None else merged.between(columns)
    learned, mapped = state.of(population.name), new_map.apply(sample.vectors)
    suggests = population.segments == AUTO and (
        by.resize or learned.users >= ASK_AGAIN * learned.suggested_users
    )
    if suggests:
        advice = suggest(Space(mapped, new_map.weights), by.settings.seed)
        learned = msgspec.structs.replace(
            learned,
            suggested=advice.k,
            firmness=advice.firmness,
            suggested_users=learned.users,
        )
    k = segments_wanted(population, learned, by, len(sample))
    return _Refit(
        state=state,
        population=population.name,
        learned=learned,
        part=part,
        sample=sample,
        axes=by.axes,
        settings=by.settings.model_copy(update={"segments": k}),
        rules=by.rules,
        challenge=population.name in by.challenge,
        publish=by.publish,
        resize=by.resize or suggests,
        merged=merged,
        map=new_map,
        mapped=mapped,
        others=others,
    )


def segments_wanted(population: Population, learned: Learned, by: Refitting, sampled: int) -> int:
    """How many segments a population shall have, with so many users in the sample."""
    declared = population.segments
    wanted = learned.suggested if declared == AUTO else declared or by.settings.segments
    return wanted if len(by.populations) == 1 else min(wanted, sampled // USERS_PER_SEGMENT)


def _refitted(given: _Refit, next_id: int, since: str) -> _Refitted:
    """The refit of one population."""
    state, learned, sample = given.state, given.learned, given.sample
    before = _before(given)
    placed = _first_centroids(given) if before is None else _next_centroids(given, before)
    squared = distances(given.mapped, placed.centroids, given.map.weights)
    labels, away = nearest(squared)
    if before is None:
        identified = _first_ids(given, len(placed.centroids), next_id)
    else:
        identified = _inherited_ids(given, before, placed.centroids, labels, next_id)
    gaps = separated(placed.centroids, given.map.weights)
    ids = np.array(identified.ids, np.int32)
    separations = separated_by(given.space, labels, placed.centroids)
    nearness = nearness_of(separations)
    rests = given.publish.resting(given.axes.names, sample.vectors)
    published = published_then(sample.segments, ids, squared, gaps, given.publish, nearness, rests)
    members = Members(
        sample.vectors, published, given.axes.names, len(placed.centroids), state.customers_seen
    )
    segments, turns = _segments(given, placed.centroids, members, identified)
    part = PopulationModel(
        population=given.population,
        since=since,
        map=given.map,
        centroids=placed.centroids,
        typical=members.typical,
        segments=measured(segments, state.flapping),
        users=learned.users,
        inertia=float(away.mean()),
        silhouette=_silhouette(given.mapped, labels, given.map.weights),
        choice=learned.firmness or DECLARED,
        separations=separations,
    )
    unfit = misfits(part, given.mapped, squared, None, given.settings)
    known = msgspec.structs.replace(
        learned,
        refit_ms=state.round_ms,
        refit_updates=state.updates,
        sample_threshold=_threshold(learned, sample, given.settings),
        drift=Drift.since(given.mapped, away, sample.at_ms, unfit),
        challenged=placed.challenged,
        anchor=_anchor(learned, sample, np.array(identified.ids)[labels], part),
    )
    return _Refitted(part, known, identified.next_id, (*identified.lineage, *turns))


# -- centroids -----------------------------------------------------------------------------------


def _before(given: _Refit) -> _Before | None:
    part = given.part
    if part is None:
        return None
    mapped = part.map.apply(given.sample.vectors)
    return _Before(part, mapped, assign(mapped, part.centroids, part.map.weights))


def _first_centroids(given: _Refit) -> _Placed:
    """Seeded, for there is nothing to begin from."""
    space, settings = given.space, given.settings
    k = _distinct(given)
    centroids, _ = seed_and_fit(space.points, k, space.weights, settings.starts, settings.seed)
    return _Placed(_peopled(space, centroids), 0)


def _next_centroids(given: _Refit, before: _Before) -> _Placed:
    """From those there are; or a challenger's, or more or fewer of them where that is wanted."""
    space, old = given.space, before.part
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
    before, epoch, settings = given.learned.challenged, given.epoch, given.settings
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


def _first_ids(given: _Refit, k: int, first: int) -> _Identified:
    ids = tuple(range(first, first + k))
    event = "born" if given.state.model is None else "emerged"
    lineage = [given.happened(event, segment) for segment in ids]
    return _Identified(ids, first + k, dict.fromkeys(ids, given.name), lineage)


def _inherited_ids(
    given: _Refit, before: _Before, centroids: Floats, labels: Ints, next_id: int
) -> _Identified:
    """Ids go on with their people, unless they would stand elsewhere with others."""
    anchor, old = given.learned.anchor, before.part
    then = None if anchor is None else anchor.segments_then(given.sample.hashes)
    apart: list[tuple[int, int]] = []

    def inherited() -> Heritage:
        return inherit(
            tuple(old.ids.tolist()), before.labels, labels, len(centroids), next_id,
            given.settings.identity_overlap, apart, then,
        )  # fmt: skip

    heritage = inherited()
    while (
        anchor is not None
        and then is not None
        and (
            found := _elsewhere(
                anchor, heritage.ids, given.map, centroids, labels, then, given.settings
            )
        )
    ):
        apart += found
        heritage = inherited()
    known = {segment.id: segment.born for segment in old.segments}
    born = {i: known.get(i, given.name) for i in heritage.ids}
    lineage = [given.happened(*event) for event in heritage.events]
    return _Identified(tuple(heritage.ids), heritage.next_id, born, lineage)


def _anchor(
    learned: Learned, sample: Sample, segments: npt.NDArray[Any], part: PopulationModel
) -> Anchor:
    """The anchor as it was, a refit older; or a new one. Who was born since is not in it."""
    old = learned.anchor
    if old is None or old.age + 1 >= ANCHOR_REFITS:
        rows = zip(part.ids.tolist(), part.centroids.tolist(), strict=True)
        places = dict(rows)
        return Anchor.of(sample.hashes, segments, places)
    return msgspec.structs.replace(old, age=old.age + 1)


def _elsewhere(
    anchor: Anchor,
    ids: Sequence[int],
    new_map: FeatureMap,
    centroids: Floats,
    labels: Ints,
    then: Ints,
    settings: Learning,
) -> list[tuple[int, int]]:
    """Ids that would stand elsewhere than at the anchor, with other people; each with its column."""
    gaps = separated(centroids, new_map.weights) + np.diag(np.full(len(ids), np.inf))
    found = []
    for column, segment in enumerate(ids):
        place = anchor.places.get(segment)
        if place is None:
            continue
        step = centroids[column] - np.array(place)
        gone = (new_map.weights * step**2).sum() > LEFT**2 * gaps[column].min()
        if gone and others_people(then, labels == column, segment, settings.identity_overlap):
            found.append((segment, column))
    return found


# -- what people see of it -----------------------------------------------------------------------


def _segments(
    given: _Refit, centroids: Floats, members: Members, identified: _Identified
) -> tuple[tuple[Segment, ...], list[Lineage]]:
    """Segments with name, kind and size; and which of them turned into another kind or name."""
    state, axes, weights = given.state, given.axes, given.map.weights
    known = {} if given.part is None else {s.id: s for s in given.part.segments}
    was = [known.get(i) for i in identified.ids]
    truth = Truth(axes, members, given.settings.word_share, given.settings.named_again_days)
    names = [state.given.get(segment) for segment in identified.ids]
    now = called(was, names, truth, centroids, weights, given.rules, given.others)
    sampled = max(len(members.labels), 1)
    estimate = np.round(members.counts * (given.learned.users / sampled)).astype(int).tolist()
    segments = tuple(
        Segment(i, *now[c], estimate[c], identified.born[i], population=given.population)
        for c, i in enumerate(identified.ids)
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


def separated_by(space: Space, labels: Ints, centroids: Floats) -> Floats:
    """Of each pair of segments, the share of the variance between them that their split explains."""
    return np.round(explained(space, labels, centroids), SEPARATION_DIGITS)


# -- what the next rounds go by ------------------------------------------------------------------


def misfits(
    part: PopulationModel,
    mapped: Floats,
    squared: Floats,
    merged: Statistics | None,
    settings: Learning,
) -> list[str]:
    """Segments that are too small, and pairs that are hardly two."""
    labels = squared.argmin(axis=1)
    counts = np.bincount(labels, minlength=len(part.ids)) if merged is None else merged.counts
    small = counts < settings.small_share * counts.sum()
    found = [f"small {i}" for i in part.ids[small].tolist()]
    shares = separated_by(Space(mapped, part.map.weights), labels, part.centroids)
    for a, b in zip(*np.nonzero(np.triu(shares < settings.separation, 1)), strict=True):
        found.append(f"close {part.ids[a]} {part.ids[b]}")
    return found


def _threshold(learned: Learned, sample: Sample, settings: Learning) -> int:
    """A limit on hashes that lets about a quarter more users through than the sample needs."""
    if len(sample.hashes) >= settings.sample_users:
        return min(int(sample.hashes[-1]) // 4 * 5, ALL_HASHES)
    if learned.users > len(sample.hashes):
        return min(learned.sample_threshold * 2, ALL_HASHES)
    return ALL_HASHES


def _silhouette(mapped: Floats, labels: Ints, weights: Floats) -> float | None:
    from sklearn.metrics import silhouette_score  # noqa: PLC0415 - slow to import, see clustering

    few, labels = mapped[:SILHOUETTE_USERS] * np.sqrt(weights), labels[:SILHOUETTE_USERS]
    if not 1 < len(np.unique(labels)) < len(few):
        return None
    return float(silhouette_score(few, labels))
