"""Learns: rounds that move centroids, refits that are guarded, and names that stay with an id.

Comes in: each partition's `PartitionStatistics`. Goes out: the next `TrainerState` with an
immutable model. A round is a pure function of the state and the statistics; `trainer` runs one
when it is due, `segmenter` after so many updates.

A refit is Lloyd from where the centroids are (the *champion*). Two *challengers* begin elsewhere:
one merges down from more segments, one is seeded anew; they take turns, for they are half of a refit's
work. A challenger takes over only if one is clearly better in two refits running, so that luck alone
never renames anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from stream.choosing import Groups, KMeans, Space, explained, merge_to
from stream.clustering import (
    CLIP,
    FeatureMap,
    Statistics,
    assign,
    distances,
    inertia,
    living,
    lloyd,
    nearest,
    on_grid,
    seed_and_fit,
    separated,
    smallest_hashes,
    votes,
)
from stream.config import Learning
from stream.drift import Drift
from stream.events import Floats, Hashes, Ints, Lineage
from stream.flapping import Tallies, Tally, together
from stream.lineage import Anchor, inherit, others_people
from stream.model import Axes, Model, Segment, belied, kinds, propose_names
from stream.segments import KindRule
from stream.tuning import Tuning
from stream.units import iso

LIBRARIES = ("sklearn.cluster", "sklearn.metrics", "scipy.optimize", "river.drift")
ALL_HASHES = (1 << 64) - 1
NEVER = (1 << 63) - 1
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


class PartitionStatistics(msgspec.Struct):
    """What an owner tells the trainer of its partition: absolute, so the last one wins.

    Attributes:
        at_ms: the mark (watermark mode) or sweep (live mode) it was taken at.
        model: epoch.version it was taken under; empty for none.
        users: everyone in the partition.
        updates: of its users, ever.
        counts, sums, inertia, sizes: see `clustering.Statistics`; empty without a model.
        sample_hashes: user hashes in the sample, packed uint64; None if none was asked for.
        sample_vectors: their vectors in natural units, packed float64.
        flapping: by segment id.
        schema: of the vectors, see `FeatureTable.schema`; empty if nobody else could have another.
    """

    at_ms: int
    model: str
    users: int
    updates: int = 0
    counts: list[int] = []
    sums: bytes = b""
    inertia: float = 0.0
    sizes: list[int] = []
    sample_hashes: bytes | None = None
    sample_vectors: bytes = b""
    flapping: dict[int, Tally] = {}
    schema: str = ""

    def pack(self) -> bytes:
        """Bytes for the store; the first eight tell the time without decoding the rest."""
        return self.at_ms.to_bytes(8, "big") + msgspec.msgpack.encode(self)

    @staticmethod
    def unpack(raw: bytes) -> PartitionStatistics:
        return msgspec.msgpack.decode(raw[8:], type=PartitionStatistics)

    def statistics(self) -> Statistics:
        k = len(self.counts)
        return Statistics(
            np.array(self.counts, dtype=np.int64),
            np.frombuffer(self.sums).reshape(k, -1),
            self.inertia,
            np.array(self.sizes, dtype=np.int64),
        )


@dataclass(frozen=True)
class Sample:
    """A uniform sample of users, by hash: the smallest `sample_users` of all living (bottom-k)."""

    hashes: Hashes
    vectors: Floats
    at_ms: int

    @staticmethod
    def merge(parts: Sequence[PartitionStatistics], features: int, size: int) -> Sample:
        hashes = np.concatenate(
            [np.frombuffer(p.sample_hashes or b"", dtype=np.uint64) for p in parts]
        )
        vectors = np.concatenate(
            [np.frombuffer(p.sample_vectors).reshape(-1, features) for p in parts]
        )
        chosen = smallest_hashes(hashes, size)
        chosen = chosen[living(vectors[chosen])]
        return Sample(hashes[chosen], vectors[chosen], max(part.at_ms for part in parts))


@dataclass(frozen=True)
class TrainerState:
    """All the trainer knows; what owners and readers need of it is in here too.

    Attributes:
        round_ms: the last completed round.
        refit_ms: the last refit, 0 before the first.
        updates: of users, ever, as of the last round.
        refit_updates: the same as of the last refit.
        sample_due_ms, sample_due_updates: when the next sample is due, see `sample_due`.
        sample_threshold: owners send only users whose hash is not above it.
        sizes: users published in each segment, by column of the model, at the last round.
        drift: what has been seen since the last refit.
        challenged: refits running in which a challenger was clearly better.
        anchor: what ids are held against, beside the model before.
        given: names that a person gave, by segment id.
        flapping: of everyone at the last round, by segment id.
        tuning: that a person wanted, from the refit on that was made for it.
        epochs_before: epochs that were told before this state began; none of them comes again.
        ids_before: the highest segment id that was told before.
        store_run: of the store's server when a trainer took the lead (live mode).
    """

    model: Model | None = None
    round_ms: int = 0
    refit_ms: int = 0
    updates: int = 0
    refit_updates: int = 0
    next_id: int = 1
    sample_due_ms: int = 0
    sample_due_updates: int = 0
    sample_threshold: int = ALL_HASHES
    users: int = 0
    sizes: tuple[int, ...] = ()
    drift: Drift | None = None
    challenged: int = 0
    anchor: Anchor | None = None
    given: Mapping[int, str] = field(default_factory=dict)
    flapping: Tallies = field(default_factory=dict)
    tuning: Tuning | None = None
    epochs_before: int = 0
    ids_before: int = 0
    store_run: str = ""

    def pack(self, axes: Axes) -> bytes:
        told = {name: getattr(self, name) for name in _PLAIN}
        model = None if self.model is None else self.model.published(axes)
        return msgspec.json.encode({"model": model, **told})

    @staticmethod
    def unpack(raw: bytes) -> TrainerState:
        data = msgspec.json.decode(raw, type=_Packed)
        model = None if data.model is None else Model.from_published(data.model)
        return TrainerState(model=model, **{name: getattr(data, name) for name in _PLAIN})


class _Packed(msgspec.Struct):
    """`TrainerState` as it is stored."""

    model: Any
    round_ms: int
    refit_ms: int
    updates: int
    refit_updates: int
    next_id: int
    sample_due_ms: int
    sample_due_updates: int
    sample_threshold: int
    users: int
    sizes: tuple[int, ...]
    drift: Drift | None
    challenged: int
    anchor: Anchor | None
    given: dict[int, str]
    flapping: dict[int, Tally] = {}
    tuning: Tuning | None = None
    epochs_before: int = 0
    ids_before: int = 0
    store_run: str = ""


_PLAIN = tuple(name for name in _Packed.__struct_fields__ if name != "model")


def warm_up() -> None:
    """Import `LIBRARIES`, which rounds work with: better now than in the midst of the first refit.

    Commands and roles that do not learn do without, so it is not done with this module.
    """
    for module in LIBRARIES:
        import_module(module)


def learn(
    state: TrainerState,
    parts: Sequence[PartitionStatistics],
    round_ms: int,
    axes: Axes,
    settings: Learning,
    rules: Sequence[KindRule],
    given: Mapping[int, str] | None = None,
    wanted: Tuning | None = None,
) -> TrainerState:
    """One round; the model of the answer is the same object if it need not be published anew.

    Args:
        parts: statistics in partition order, of every partition that has any.
        round_ms: the time of the round, by the clock in use; before that of the last one if a
            clock was ahead then.
        given: names that a person gave, by segment id; None leaves them as they are.
        wanted: by a person; if it is new, the model is refitted with it, due or not, as soon as
            there is a sample, and rounds after that go by it.
    """
    untuned = axes, settings
    if state.tuning is not None and state.tuning.schema != axes.schema:
        state = replace(state, tuning=None)
    if state.tuning is not None:
        axes, settings, rules = state.tuning.over(axes, settings)
    model = state.model
    state = replace(
        state,
        round_ms=round_ms,
        users=sum(part.users for part in parts),
        updates=sum(part.updates for part in parts),
        given=state.given if given is None else dict(given),
        flapping=together(part.flapping for part in parts),
    )
    if state.refit_ms > round_ms:
        # A clock was ahead at the last refit: the time to the next one begins now.
        drift = state.drift and replace(state.drift, at_ms=round_ms)
        state = replace(state, refit_ms=round_ms, sample_due_ms=0, drift=drift)
    peopled = [part for part in parts if part.users]
    epoch = None if model is None else str(model.epoch)
    current = [part for part in peopled if part.model.split(".")[0] == epoch]
    complete = len(current) == len(peopled)
    merged = _merge(current) if current and complete else None
    if merged is not None:
        state = replace(state, sizes=tuple(merged.sizes.tolist()))

    if wanted is not None and not wanted.new_to(state.tuning, axes.schema):
        wanted = None
    # An owner's sample stays in the store until its next sweep: once is enough to look at it.
    due = wanted is not None or sample_due(state, round_ms, state.updates)
    if due and parts and all(part.sample_hashes is not None for part in parts):
        sample = Sample.merge(parts, len(axes.names), settings.sample_users)
        needed = settings.first_model_users if model is None else 2 * len(model.ids)
        if len(sample.hashes) >= needed:
            if wanted is not None:
                return _looked(retune(state, sample, *untuned, wanted), sample, settings)
            why, state = _why_refit(state, sample, merged, settings)
            if why is not None:
                state = _refit(
                    state, sample, axes, settings, rules, challenge=why == "due", merged=merged
                )
                return _looked(state, sample, settings)
            state = _looked(state, sample, settings)
    elif due:
        state = replace(state, sample_due_ms=0)
    if model is None:
        return state
    segments = _named(model.segments, state.given)
    lineage = tuple(
        _event("renamed", new.id, (), round_ms, f"{model.epoch}.{model.version + 1}")
        for old, new in zip(model.segments, segments, strict=True)
        if old != new
    )
    centroids = model.centroids if merged is None else merged.means(model.centroids)
    shift = np.sqrt((model.map.weights * (centroids - model.centroids) ** 2).sum(axis=1)).max()
    if shift <= settings.move_threshold and not lineage:
        return state
    moved = replace(
        model,
        version=model.version + 1,
        at_ms=round_ms,
        centroids=centroids,
        segments=_measured(_sized(segments, state.sizes), state.flapping),
        users=state.users,
        inertia=model.inertia if merged is None else merged.mean_inertia,
        lineage=lineage,
    )
    return replace(state, model=moved)


def rehearse_refit(
    state: TrainerState,
    sample: Sample,
    axes: Axes,
    settings: Learning,
    rules: Sequence[KindRule],
) -> TrainerState:
    """The state after a refit now, due or not, with as many segments as the settings say.

    Where a round keeps to the number of segments there is, this merges the least separated ones or
    seeds further ones beside them. It begins from those in force: luck renames nobody here either.

    Args:
        state: with the time of the refit as `round_ms`.
        axes: as wanted; their schema is that of the model in force.
    """
    return _refit(state, sample, axes, settings, rules, challenge=True, resize=True)


def retune(
    state: TrainerState, sample: Sample, axes: Axes, settings: Learning, wanted: Tuning
) -> TrainerState:
    """The state after a refit now with what a person wants, which stays with it.

    Args:
        axes, settings: what the trainer was started with.
    """
    axes, settings, rules = wanted.over(axes, settings)
    return rehearse_refit(replace(state, tuning=wanted), sample, axes, settings, rules)


def resume(state: TrainerState, model: Model) -> TrainerState:
    """The state of a trainer whose last model was published, but that the store has lost.

    What it had seen since the refit before is lost with it, and is gathered anew.
    """
    return replace(
        state,
        model=model,
        round_ms=max(state.round_ms, model.at_ms) + 1,
        refit_ms=model.at_ms,
        refit_updates=state.updates,
        next_id=max(state.next_id, *(s.id + 1 for s in (*model.segments, *model.retired))),
        sample_due_ms=0,
        sample_due_updates=0,
        sample_threshold=ALL_HASHES,
        sizes=tuple(segment.size for segment in model.segments),
        drift=None,
        challenged=0,
        anchor=None,
    )


def _event(name: str, segment: int, others: Sequence[int], at_ms: int, model: str) -> Lineage:
    return {
        "event": name,
        "segment": segment,
        "others": list(others),
        "at": iso(at_ms),
        "model": model,
    }


def _named(segments: tuple[Segment, ...], given: Mapping[int, str]) -> tuple[Segment, ...]:
    return tuple(replace(s, name=given.get(s.id, s.name)) for s in segments)


def _why_refit(
    state: TrainerState, sample: Sample, merged: Statistics | None, settings: Learning
) -> tuple[Literal["due", "drift"] | None, TrainerState]:
    """Why to refit now, if so; and the state with what this round has seen.

    A refit that is due, or one for segments that are no longer any, is open to challengers; one
    that only follows a drift of users is not: it is the same segments elsewhere.
    """
    model, progress = state.model, _progress(state, settings)
    if model is None or progress >= 1.0:
        return "due", state
    mapped = model.map.apply(sample.vectors)
    squared = distances(mapped, model.centroids, model.map.weights)
    _, away = nearest(squared)
    drift = (state.drift or Drift.since(mapped, away, 0)).after(away, sample.at_ms)
    state = replace(state, drift=drift)
    if progress < settings.alarm_share:
        return None, state
    # A challenger that won once is looked at again soon: until then its segments are in doubt.
    if state.challenged or set(_misfits(model, mapped, squared, merged, settings)) - set(
        drift.known
    ):
        return "due", state
    changed = drift.stability_index(mapped)[model.map.weights > 0] > settings.drift_psi
    if changed.any() or drift.distances_changed(settings.drift_delta):
        return "drift", state
    return None, state


def sample_due(state: TrainerState, at_ms: int, updates: int) -> bool:
    """Whether statistics of a time, after so many updates of users, shall bring a sample.

    It is by far the largest part of them, and the store writes them to its log: so as often as an
    alarm may bring a refit, when a refit is due, and when a person wants something, and no oftener.
    """
    return at_ms >= state.sample_due_ms or updates >= state.sample_due_updates


def _looked(state: TrainerState, sample: Sample, settings: Learning) -> TrainerState:
    """With the time of the next sample: this one has been looked at."""
    every_ms, every = int(settings.refit_seconds * 1_000), settings.refit_updates
    share = settings.alarm_share
    return replace(
        state,
        sample_due_ms=_next(sample.at_ms, state.refit_ms, every_ms, share),
        sample_due_updates=_next(state.updates, state.refit_updates, every, share),
    )


def _next(now: int, refit: int, every: int, share: float) -> int:
    """The next look after `now`: with an alarm's patience, or when the next refit is due."""
    if not every:
        return NEVER
    due = refit + every
    look = now + int(every * share)
    return min(look, due) if due > now else look


def _progress(state: TrainerState, settings: Learning) -> float:
    """How much of the time, or of the updates, between two refits has passed."""
    found = 0.0
    if settings.refit_seconds:
        found = (state.round_ms - state.refit_ms) / (settings.refit_seconds * 1_000)
    if settings.refit_updates:
        found = max(found, (state.updates - state.refit_updates) / settings.refit_updates)
    return found


def _misfits(
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


def _merge(parts: Sequence[PartitionStatistics]) -> Statistics | None:
    total: Statistics | None = None
    for part in parts:
        if part.counts:
            total = part.statistics() if total is None else total + part.statistics()
    return total


def _sized(segments: tuple[Segment, ...], sizes: Sequence[int]) -> tuple[Segment, ...]:
    if len(sizes) != len(segments):
        return segments
    return tuple(replace(s, size=size) for s, size in zip(segments, sizes, strict=True))


def _measured(segments: tuple[Segment, ...], flapping: Tallies) -> tuple[Segment, ...]:
    return tuple(replace(s, flapping=flapping.get(s.id, Tally()).rates()) for s in segments)


def _refit(
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
        resize: whether there shall be as many segments as the settings say.
        merged: everyone's under the model before; None where they are not known.
    """
    round_ms, old = state.round_ms, state.model
    new_map = FeatureMap.learn(sample.vectors, axes.weights)
    mapped = new_map.apply(sample.vectors)
    weights = new_map.weights
    epoch = (state.epochs_before if old is None else old.epoch) + 1
    name = f"{epoch}.0"
    lineage: list[Lineage] = []

    def happened(event: str, segment: int, others: Sequence[int]) -> None:
        lineage.append(_event(event, segment, others, round_ms, name))

    challenged = 0
    k = _distinct(mapped[:, weights > 0], settings.segments)
    if old is None:
        centroids, _ = seed_and_fit(mapped, k, weights, settings.starts, settings.seed)
        centroids = _peopled(Space(mapped, weights), centroids)
        k = len(centroids)
        ids, next_id = tuple(range(state.next_id, state.next_id + k)), state.next_id + k
        born = dict.fromkeys(ids, name)
        for segment_id in ids:
            happened("born", segment_id, ())
    else:
        mapped_before = old.map.apply(sample.vectors)
        old_labels = assign(mapped_before, old.centroids, old.map.weights)
        space = Space(mapped, weights)
        centroids = lloyd(mapped, old.map.carry(old.centroids, new_map), weights)
        if k > len(centroids) or (resize and k < len(centroids)):
            centroids = _resized(space, centroids, k, epoch, settings)
        elif challenge:
            # Both, when one of them has won once: either may confirm it.
            turns = TURNS if state.challenged else (TURNS[epoch % len(TURNS)],)
            challenger, gain = _challenger(space, centroids, turns, epoch, settings)
            challenged = state.challenged + 1 if gain > settings.challenge_gain else 0
            if challenged >= CHALLENGES:
                centroids, challenged = challenger, 0
        if merged is not None:
            luck = _luck(mapped_before, old_labels, merged) * (old.map.scale / new_map.scale)
            centroids = _without(luck, centroids, old_labels, space)
        centroids = _peopled(space, centroids)
        new_labels = assign(mapped, centroids, weights)
        then = None if state.anchor is None else state.anchor.segments_then(sample.hashes)

        apart: list[tuple[int, int]] = []
        while True:
            heritage = inherit(
                tuple(int(i) for i in old.ids),
                old_labels,
                new_labels,
                len(centroids),
                state.next_id,
                settings.identity_overlap,
                apart,
                then,
            )
            if then is None:
                break
            found = _elsewhere(state, heritage.ids, new_map, centroids, new_labels, then, settings)
            if not found:
                break
            apart += found
        ids, next_id = heritage.ids, heritage.next_id
        born = {i: old.by_id[i].born if i in old.by_id else name for i in ids}
        for event, segment_id, others in heritage.events:
            happened(event, segment_id, others)

    living_before = {} if old is None else {s.id: s for s in old.segments}
    was = [living_before.get(i) for i in ids]
    natural = new_map.invert(centroids)
    kind_list = kinds(natural, axes, rules, [None if s is None else s.kind for s in was])
    # A name belongs to the id until a person gives another, the segment turns into another kind, or
    # what it says is no longer so.
    kept = [
        state.given.get(i, None if s is None or s.kind != kind or stale else s.name)
        for i, s, kind, stale in zip(
            ids, was, kind_list, belied(was, centroids, weights, axes), strict=True
        )
    ]
    names = propose_names(centroids, weights, axes, kind_list, kept, rules)
    squared = distances(mapped, centroids, weights)
    labels, away = nearest(squared)
    counts = np.bincount(labels, minlength=len(ids))
    estimate = np.round(counts * (state.users / max(len(mapped), 1))).astype(int).tolist()
    segments = tuple(
        Segment(i, names[c], kind_list[c], estimate[c], born[i]) for c, i in enumerate(ids)
    )
    for before_it, segment in zip(was, segments, strict=True):
        if before_it is not None and before_it.kind != segment.kind:
            happened(f"kind:{before_it.kind}->{segment.kind}", segment.id, ())
        elif before_it is not None and before_it.name != segment.name:
            happened("renamed", segment.id, ())
    retired: tuple[Segment, ...] = ()
    if old is not None:
        retired = (*old.retired, *(s for s in old.segments if s.id not in ids))[-REMEMBERED:]
    model = Model(
        epoch=epoch,
        version=0,
        at_ms=round_ms,
        schema=axes.schema,
        map=new_map,
        centroids=centroids,
        segments=_measured(segments, state.flapping),
        users=state.users,
        inertia=float(away.mean()),
        silhouette=_silhouette(mapped, labels, weights),
        lineage=tuple(lineage),
        retired=retired,
        tuning="" if state.tuning is None else state.tuning.id,
        rule=None if state.tuning is None else state.tuning.rule(),
    )
    return replace(
        state,
        model=model,
        next_id=next_id,
        sizes=tuple(s.size for s in segments),
        refit_ms=round_ms,
        refit_updates=state.updates,
        sample_threshold=_threshold(state, sample, settings),
        drift=Drift.since(
            mapped,
            away,
            sample.at_ms,
            _misfits(model, mapped, squared, None, settings),
        ),
        challenged=challenged,
        anchor=_anchor(state, sample, np.array(ids)[labels], model),
    )


def _distinct(mapped: Floats, enough: int) -> int:
    """How many users differ, if less than `enough`: who differs in nothing cannot be parted."""
    for some in (mapped[:SEARCH_USERS], mapped):  # most often a few show it
        if (found := len(np.unique(some, axis=0))) >= enough:
            return enough
    return found


def _peopled(space: Space, centroids: Floats) -> Floats:
    """Without those nearest to nobody, which have nothing to keep an id by."""
    found: Floats = centroids[np.unique(assign(space.points, centroids, space.weights))]
    return found


def _luck(mapped: Floats, labels: Ints, everyone: Statistics) -> Floats:
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
        luck: of the segments before, see `_luck`, on the scale of the space.
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
