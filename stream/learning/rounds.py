"""Rounds: everyone's means move the centroids, and a refit comes when it is due or needed.

Comes in: each partition's `PartitionStatistics`. Goes out: the next `TrainerState` with an
immutable model. A round is a pure function of the state and the statistics; `trainer` runs one
when it is due, `segmenter` after so many updates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Literal

import numpy as np

from stream.clustering import Statistics, assign, distances, nearest
from stream.config import Learning
from stream.drift import Drift
from stream.flapping import together
from stream.kinds import KindRule, Members
from stream.learning.refit import measured, misfits, refit, turns_of
from stream.learning.state import ALL_HASHES, TrainerState
from stream.learning.statistics import PartitionStatistics, Sample, merge
from stream.model import Axes, Model, Segment
from stream.naming import Truth, called
from stream.rhythm import customers, have_ordered, readable, seen
from stream.tuning import Tuning

LIBRARIES = ("sklearn.cluster", "sklearn.metrics", "scipy.optimize", "river.drift")
NEVER = (1 << 63) - 1
CUSTOMERS_SEEN = 2_048
"""Customers of the sample that are followed from look to look; the state tells of each in 13 bytes."""


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
    state = _begin(state, parts, round_ms, given)
    merged = _everyone(model, parts)
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
            state = _learned_rhythm(state, sample, axes)
            if wanted is not None:
                return _looked(retune(state, sample, *untuned, wanted), sample, settings)
            why, state = _why_refit(state, sample, merged, settings)
            if why is not None:
                challenge = why == "due"
                state = refit(
                    state, sample, axes, settings, rules, challenge=challenge, merged=merged
                )
                return _looked(state, sample, settings)
            state = _looked(state, sample, settings)
            if model is not None:
                segments = _called(state, model, sample, axes, settings, rules)
                return _moved(state, model, segments, merged, settings)
    elif due:
        state = replace(state, sample_due_ms=0)
    return state if model is None else _moved(state, model, model.segments, merged, settings)


def _learned_rhythm(state: TrainerState, sample: Sample, axes: Axes) -> TrainerState:
    """With how soon the sample's customers ordered again since the last sample."""
    if not readable(axes.names):
        return state
    ordered = np.flatnonzero(have_ordered(sample.vectors, axes.names))[:CUSTOMERS_SEEN]
    known = customers(sample.vectors[ordered], axes.names)
    found = seen(state.customers_seen, sample.hashes[ordered], known, sample.at_ms)
    return replace(state, customers_seen=found)


def _begin(
    state: TrainerState,
    parts: Sequence[PartitionStatistics],
    round_ms: int,
    given: Mapping[int, str] | None,
) -> TrainerState:
    """The state at the time of the round, with what everybody was counted as."""
    state = replace(
        state,
        round_ms=round_ms,
        users=sum(part.users for part in parts),
        updates=sum(part.updates for part in parts),
        given=state.given if given is None else dict(given),
        flapping=together(part.flapping for part in parts),
    )
    if state.refit_ms <= round_ms:
        return state
    # A clock was ahead at the last refit: the time to the next one begins now.
    drift = state.drift and replace(state.drift, at_ms=round_ms)
    return replace(state, refit_ms=round_ms, sample_due_ms=0, drift=drift)


def _everyone(model: Model | None, parts: Sequence[PartitionStatistics]) -> Statistics | None:
    """Of all partitions; None unless all with users counted them under this epoch."""
    epoch = None if model is None else str(model.epoch)
    peopled = [part for part in parts if part.users]
    current = [part for part in peopled if part.model.split(".")[0] == epoch]
    return merge(current) if current and len(current) == len(peopled) else None


def _called(
    state: TrainerState,
    model: Model,
    sample: Sample,
    axes: Axes,
    settings: Learning,
    rules: Sequence[KindRule],
) -> tuple[Segment, ...]:
    """The segments as they are called by what the sample shows of their members."""
    mapped = model.map.apply(sample.vectors)
    labels = assign(mapped, model.centroids, model.map.weights)
    members = Members(sample.vectors, labels, axes.names, len(model.segments), state.customers_seen)
    truth = Truth(axes, members, settings.word_share)
    given = [state.given.get(segment.id) for segment in model.segments]
    now = called(model.segments, given, truth, model.centroids, model.map.weights, rules)
    return tuple(
        replace(segment, name=name, kind=kind)
        for segment, (name, kind) in zip(model.segments, now, strict=True)
    )


def _moved(
    state: TrainerState,
    model: Model,
    segments: tuple[Segment, ...],
    merged: Statistics | None,
    settings: Learning,
) -> TrainerState:
    """With a new version of the model, if centroids moved enough, or a segment is called otherwise.

    Args:
        segments: the model's, as they are called now.
    """
    segments = tuple(replace(s, name=state.given.get(s.id, s.name)) for s in segments)
    name = f"{model.epoch}.{model.version + 1}"
    lineage = tuple(turns_of(model.segments, segments, state.round_ms, name))
    centroids = model.centroids if merged is None else merged.means(model.centroids)
    shift = np.sqrt((model.map.weights * (centroids - model.centroids) ** 2).sum(axis=1)).max()
    if shift <= settings.move_threshold and not lineage:
        return state
    moved = replace(
        model,
        version=model.version + 1,
        at_ms=state.round_ms,
        centroids=centroids,
        segments=measured(_sized(segments, state.sizes), state.flapping),
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
    return refit(state, sample, axes, settings, rules, challenge=True, resize=True)


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
    if state.challenged or set(misfits(model, mapped, squared, merged, settings)) - set(
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


def _sized(segments: tuple[Segment, ...], sizes: Sequence[int]) -> tuple[Segment, ...]:
    if len(sizes) != len(segments):
        return segments
    return tuple(replace(s, size=size) for s, size in zip(segments, sizes, strict=True))
