"""Rounds: everyone's means move the centroids, and a refit comes when it is due or needed.

Comes in: each partition's `PartitionStatistics`. Goes out: the next `TrainerState` with an
immutable model. A round is a pure function of the state and the statistics; `trainer` runs one
when it is due, `segmenter` after so many updates.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from stream.clustering import Statistics, distances, nearest
from stream.config import Learning
from stream.drift import Drift
from stream.events import Floats
from stream.flapping import together
from stream.kinds import KindRule, Members
from stream.learning.refit import (
    USERS_PER_SEGMENT,
    Refitting,
    measured,
    misfits,
    names_of_others,
    refit,
    turns_of,
)
from stream.learning.state import Learned, TrainerState
from stream.learning.statistics import PartitionStatistics, Sample, merge, stands_for
from stream.levels.limits import followed, known_levels
from stream.levels.steps import NO_LEVELS, Levels
from stream.model import Axes, Model, PopulationModel, Segment
from stream.naming import Truth, called
from stream.populations import Population, Populations
from stream.rhythm import customers, have_ordered, in_shop, readable, seen
from stream.scores import unusual
from stream.scores.declare import NOTHING_WANTED, Wanted
from stream.scores.learner import NOTHING_LEARNED, Learner
from stream.scores.model import NOTHING_FORETOLD, Scores
from stream.scores.step import NO_LOOKS, advance, came_back, due, published
from stream.segments import PublishRule, published_now
from stream.tuning import DEFAULT_RULE, Started, Tuning
from stream.units import DAY_MS

LIBRARIES = (
    "sklearn.cluster",
    "sklearn.covariance",
    "sklearn.metrics",
    "scipy.optimize",
    "river.drift",
)
NEVER = (1 << 63) - 1
CUSTOMERS_SEEN = 2_048
"""Customers of the sample that are followed from look to look; the state tells of each in 13 bytes."""
SAMPLES_A_TOTAL = 10
"""Of so many samples one brings what scores of everyone come to, which costs half a look."""


def warm_up() -> None:
    """Import `LIBRARIES`, which rounds work with: better now than in the midst of the first refit.

    Commands and roles that do not learn do without, so it is not done with this module.
    """
    for module in LIBRARIES:
        import_module(module)


class _Foretold(NamedTuple):
    """What a model has of each shopper, beside segments."""

    scores: Scores | None
    levels: Levels

    @staticmethod
    def by(model: Model | None) -> _Foretold:
        """What a model has."""
        return (
            _Foretold(None, NO_LEVELS) if model is None else _Foretold(model.scores, model.levels)
        )

    def with_scores(self, scores: Scores | None) -> _Foretold:
        return _Foretold(scores, followed(self.levels, scores))

    def with_levels(
        self,
        state: TrainerState,
        sample: Sample,
        divided: Populations,
        wanted: Wanted,
        *,
        refits: bool,
    ) -> _Foretold:
        """With levels as they are declared now; limits that are not found anew stay.

        Args:
            refits: whether they may be.
        """
        if not wanted.levels:
            return _Foretold(self.scores, NO_LEVELS)
        levels = known_levels(
            wanted.levels, self.levels, sample.vectors, _stands_for(state, sample, divided),
            divided.features, wanted.absent, self.scores, sample.at_ms, refits=refits,
        )  # fmt: skip
        return _Foretold(self.scores, levels)


def learn(
    state: TrainerState,
    parts: Sequence[PartitionStatistics],
    round_ms: int,
    axes: Axes,
    settings: Learning,
    rules: Sequence[KindRule],
    given: Mapping[int, str] | None = None,
    wanted: Tuning | None = None,
    populations: Sequence[Population] = (),
    scores: Wanted = NOTHING_WANTED,
    publish: PublishRule = DEFAULT_RULE,
) -> TrainerState:
    """One round; the model of the answer is the same object if it need not be published anew.

    Args:
        parts: statistics in partition order, of every partition that has any.
        round_ms: the time of the round, by the clock in use; before that of the last one if a
            clock was ahead then.
        given: names that a person gave, by segment id; None leaves them as they are.
        wanted: by a person; if it is new, the model is refitted with it, due or not, as soon as
            there is a sample, and rounds after that go by it.
        populations: as declared; everyone is in one if there are none.
        scores: that are wanted of each customer.
        publish: the rule that owners were started with.
    """
    untuned = Started(axes, settings, rules, populations, publish)
    if state.tuning is not None and state.tuning.schema != axes.schema:
        state = replace(state, tuning=None)
    by = untuned if state.tuning is None else state.tuning.over(untuned)
    model, settings, divided = state.model, by.learning, by.divided()
    state = _begin(state, parts, round_ms, given, divided)
    merged = _everyone(model, parts)
    if merged is not None:
        state = replace(state, sizes=tuple(merged.sizes.tolist()))
    state = replace(_with_totals(state, parts), on_steps=_on_steps(parts))
    found = _Foretold.by(model)

    if wanted is not None and not wanted.new_to(state.tuning, axes.schema):
        wanted = None
    # An owner's sample stays in the store until its next sweep: once is enough to look at it.
    asked = wanted is not None or sample_due(state, round_ms, state.updates)
    if asked and parts and all(part.sample_hashes is not None for part in parts):
        if wanted is not None:
            divided = wanted.over(untuned).divided()
        sample = Sample.merge(parts, divided, settings.sample_users)
        samples = _enough(state, sample, divided, settings)
        if samples:
            state = _learned_rhythm(state, sample, divided)
            state, found = _learned_scores(state, sample, divided, scores, settings)
        if samples and wanted is not None:
            found = found.with_levels(state, sample, divided, scores, refits=True)
            return _looked(_with(retune(state, sample, untuned, wanted), found), sample, settings)
        if samples:
            why, state = _why_refit(state, samples, merged, divided, settings)
            found = found.with_levels(state, sample, divided, scores, refits=bool(why))
            if why:
                chosen = {name: one for name, one in samples.items() if name in why}
                challenge = {name for name, reason in why.items() if reason == "due"}
                refitting = Refitting(
                    by.axes, settings, by.rules, divided, challenge, by.publish, merged=merged
                )
                return _looked(_with(refit(state, chosen, refitting), found), sample, settings)
            state = _looked(state, sample, settings)
            if model is not None:
                segments = _called(state, model, samples, by)
                return _moved(state, model, segments, found, merged, settings)
    elif asked:
        state = replace(state, sample_due_ms=0)
    if model is None:
        return state
    return _moved(state, model, model.segments, found, merged, settings)


def _learned_scores(
    state: TrainerState,
    sample: Sample,
    divided: Populations,
    wanted: Wanted,
    settings: Learning,
) -> tuple[TrainerState, _Foretold]:
    """With what the sample shows of earlier looks, if a step is due; and what to publish."""
    before = _Foretold.by(state.model)
    if not wanted.scores:
        nothing = replace(state, scorer=NOTHING_LEARNED, looks=NO_LOOKS, came=())
        return nothing, before.with_scores(None)
    now = before.scores
    if not due(state.scorer, wanted, sample.at_ms):
        return state, before
    told = now if now is None else now.without_unusual()
    if wanted.readable(divided.features):
        known, looks = advance(
            state.scorer, state.looks, sample, divided.features, wanted, settings.sample_users
        )
        # What was published goes on to be told while it is learned anew, unless it means something else.
        same = told is not None and (told.inputs, told.turns) == (wanted.inputs, wanted.turns)
        kept = told if same else None
        told = published(known, looks, wanted) or kept
    else:
        known, looks, told = Learner(wanted.meaning, sample.at_ms // DAY_MS), NO_LOOKS, None
    state = replace(state, scorer=known, looks=looks, came=came_back(looks, wanted))
    people = _usual(state, sample, divided, wanted)
    if wanted.unusual is not None and people is not None:
        told = (told or NOTHING_FORETOLD).with_unusual(wanted.unusual, people)
    if now is not None and (told is None or told.names != now.names):
        # Totals have no names of their own: those of other scores are unknown.
        state = replace(state, scored={}, totals_in=0)
    return state, before.with_scores(told)


def _usual(
    state: TrainerState, sample: Sample, divided: Populations, wanted: Wanted
) -> unusual.Usual | None:
    """What is usual in the segments in force; None where that is not wanted, or too little was seen."""
    model = state.model
    if model is None or wanted.unusual is None:
        return None
    order = np.argsort(sample.hashes, kind="stable")
    published = sample.segments[order]
    segments = np.where(np.isin(published, model.ids), published, 0).astype(np.int64)
    each = _stands_for(state, sample, divided)[order]
    return unusual.learn(sample.vectors[order], divided.features, segments, each, wanted.habits)


def _with_totals(state: TrainerState, parts: Sequence[PartitionStatistics]) -> TrainerState:
    """With what scores come to in each segment, by all owners; as before until all have told it anew."""
    model = state.model
    if model is None or model.scores is None:
        return replace(state, scored={}, totals_in=0)
    columns = 2 + len(model.scores.learned)
    peopled = [part for part in parts if part.users]
    # An owner of another version tells it in another form.
    size = 8 * len(model.ids) * columns
    told = [
        part.scored for part in peopled if part.model == model.name and len(part.scored) == size
    ]
    if not told or len(told) < len(peopled):
        of_these = all(len(state.scored.get(one, ())) == columns for one in model.ids.tolist())
        return state if of_these else replace(state, totals_in=0)
    sums = np.sum([np.frombuffer(one) for one in told], axis=0).reshape(len(model.ids), -1)
    scored = dict(zip(model.ids.tolist(), sums.tolist(), strict=True))
    return replace(state, scored=scored, totals_in=SAMPLES_A_TOTAL)


def _on_steps(parts: Sequence[PartitionStatistics]) -> Mapping[str, Mapping[str, int]]:
    """Of each level, users on each step, by what owners told last."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for part in parts:
        for level, users in part.levels.items():
            found[level].update(users)
    return {level: dict(users) for level, users in found.items()}


def _with(state: TrainerState, found: _Foretold) -> TrainerState:
    """With scores and levels in a model that has just been refitted."""
    model = state.model
    if model is not None:
        model = replace(model, scores=found.scores, levels=found.levels)
    return replace(state, model=model)


def _learned_rhythm(state: TrainerState, sample: Sample, divided: Populations) -> TrainerState:
    """With how soon customers ordered again since the last sample, and what is usual in the shop.

    A customer may go from one population to another, so they are followed over all of them.
    """
    names = divided.features
    if not readable(names):
        return state
    ordered = np.flatnonzero(have_ordered(sample.vectors, names))
    some = ordered[np.argsort(sample.hashes[ordered], kind="stable")[:CUSTOMERS_SEEN]]
    known = customers(sample.vectors[some], names)
    found = seen(state.customers_seen, sample.hashes[some], known, sample.at_ms)
    each = _stands_for(state, sample, divided)
    return replace(state, customers_seen=in_shop(found, sample.vectors, names, each))


def _stands_for(state: TrainerState, sample: Sample, divided: Populations) -> Floats:
    """How many users each one of the sample stands for; the same of all where it is not known."""
    users = [state.of(name).users for name in divided.names]
    if len(divided) == 1 or not all(users[place] for place in np.unique(sample.populations)):
        return np.ones(len(sample))
    return stands_for(sample.populations, users)


def _begin(
    state: TrainerState,
    parts: Sequence[PartitionStatistics],
    round_ms: int,
    given: Mapping[int, str] | None,
    divided: Populations,
) -> TrainerState:
    """The state at the time of the round, with what everybody was counted as."""
    users = sum(part.users for part in parts)
    state = replace(
        state,
        round_ms=round_ms,
        users=users,
        updates=sum(part.updates for part in parts),
        given=state.given if given is None else dict(given),
        flapping=together(part.flapping for part in parts),
    )
    in_each = _users_of(parts, divided)
    ahead = False
    learned = {}
    for name in divided.names:
        known = state.of(name)
        if name in in_each:
            known = msgspec.structs.replace(known, users=in_each[name])
        if known.refit_ms > round_ms:
            # A clock was ahead at the last refit: the time to the next one begins now.
            drift = known.drift and replace(known.drift, at_ms=round_ms)
            known = msgspec.structs.replace(known, refit_ms=round_ms, drift=drift)
            ahead = True
        learned[name] = known
    due_ms = 0 if ahead else state.sample_due_ms
    return replace(state, learned=learned, sample_due_ms=due_ms)


def _users_of(parts: Sequence[PartitionStatistics], divided: Populations) -> dict[str, int]:
    """Users of each population, as far as owners go by the same rules."""
    if len(divided) == 1:
        return {divided.names[0]: sum(part.users for part in parts)}
    if any(part.rules != divided.digest for part in parts):
        return {}
    counts = [sum(part.populations[place] for part in parts) for place in range(len(divided))]
    return dict(zip(divided.names, counts, strict=True))


def _enough(
    state: TrainerState, sample: Sample, divided: Populations, settings: Learning
) -> dict[str, Sample]:
    """The sample of each population of which there are users enough to learn from."""
    model = state.model
    if model is None and len(sample) < settings.first_model_users:
        return {}
    found = {}
    for place, name in enumerate(divided.names):
        part, among = None if model is None else model.part(name), sample.among(place)
        if len(among) >= (_least(divided) if part is None else 2 * len(part.ids)):
            found[name] = among
    return found


def _least(divided: Populations) -> int:
    """Users of a population that can be learned from at all."""
    return 1 if len(divided) == 1 else USERS_PER_SEGMENT


def _everyone(model: Model | None, parts: Sequence[PartitionStatistics]) -> Statistics | None:
    """Of all partitions; None unless all with users counted them under this epoch."""
    epoch = None if model is None else str(model.epoch)
    peopled = [part for part in parts if part.users]
    current = [part for part in peopled if part.model.split(".")[0] == epoch]
    return merge(current) if current and len(current) == len(peopled) else None


def _called(
    state: TrainerState, model: Model, samples: Mapping[str, Sample], by: Started
) -> tuple[Segment, ...]:
    """The segments as they are called by what the samples show of their members."""
    now = {part.population: part for part in model.parts}
    for name, sample in samples.items():
        part = now.get(name)
        if part is not None:
            others = names_of_others(model, now, name)
            now[name] = replace(part, segments=_called_in(state, part, sample, by, others))
    return tuple(segment for part in now.values() for segment in part.segments)


def _called_in(
    state: TrainerState,
    part: PopulationModel,
    sample: Sample,
    by: Started,
    others: Collection[str],
) -> tuple[Segment, ...]:
    """The segments of a population.

    Args:
        others: names of those of other populations.
    """
    squared = distances(part.map.apply(sample.vectors), part.centroids, part.map.weights)
    labels = published_now(sample.segments, part.ids, squared)
    members = Members(
        sample.vectors, labels, by.axes.names, len(part.segments), state.customers_seen
    )
    truth = Truth(by.axes, members, by.learning.word_share, by.learning.named_again_days)
    given = [state.given.get(segment.id) for segment in part.segments]
    called_now = called(
        part.segments, given, truth, part.centroids, part.map.weights, by.rules, others
    )
    return tuple(
        replace(segment, name=name, kind=kind)
        for segment, (name, kind) in zip(part.segments, called_now, strict=True)
    )


def _moved(
    state: TrainerState,
    model: Model,
    segments: tuple[Segment, ...],
    found: _Foretold,
    merged: Statistics | None,
    settings: Learning,
) -> TrainerState:
    """With a new version of the model, if centroids moved enough, or anything in it is new.

    Args:
        segments: the model's, as they are called now.
        found: scores and levels, as they are now.
    """
    segments = tuple(replace(s, name=state.given.get(s.id, s.name)) for s in segments)
    name = f"{model.epoch}.{model.version + 1}"
    lineage = tuple(turns_of(model.segments, segments, state.round_ms, name))
    centroids = model.centroids if merged is None else merged.means(model.centroids)
    shift = np.sqrt((model.weights * (centroids - model.centroids) ** 2).sum(axis=1)).max()
    same = found == _Foretold.by(model)
    if shift <= settings.move_threshold and not lineage and same:
        return state
    segments = measured(_sized(segments, state.sizes), state.flapping)
    parts = tuple(
        replace(
            part,
            centroids=centroids[columns],
            segments=segments[columns],
            users=state.of(part.population).users,
            inertia=part.inertia if merged is None else merged.between(columns).mean_inertia,
        )
        for part, columns in zip(model.parts, model.spans, strict=True)
    )
    moved = replace(
        model,
        version=model.version + 1,
        at_ms=state.round_ms,
        parts=parts,
        users=state.users,
        lineage=lineage,
        scores=found.scores,
        levels=found.levels,
    )
    return replace(state, model=moved)


def rehearse_refit(state: TrainerState, sample: Sample, by: Started) -> TrainerState:
    """The state after a refit now, due or not, with as many segments as the settings say.

    Where a round keeps to the number of segments there is, this merges the least separated ones or
    seeds further ones beside them. It begins from those in force: luck renames nobody here either.

    Args:
        state: with the time of the refit as `round_ms`.
        sample: divided as wanted.
        by: as wanted; its schema is that of the model in force.
    """
    divided = by.divided()
    among = {name: sample.among(place) for place, name in enumerate(divided.names)}
    samples = {name: one for name, one in among.items() if len(one) >= _least(divided)}
    everywhere = set(divided.names)
    refitting = Refitting(
        by.axes, by.learning, by.rules, divided, everywhere, by.publish, resize=True
    )
    return refit(state, samples, refitting)


def retune(state: TrainerState, sample: Sample, untuned: Started, wanted: Tuning) -> TrainerState:
    """The state after a refit now with what a person wants, which stays with it.

    Args:
        sample: divided as wanted.
        untuned: what the trainer was started with.
    """
    return rehearse_refit(replace(state, tuning=wanted), sample, wanted.over(untuned))


def resume(state: TrainerState, model: Model) -> TrainerState:
    """The state of a trainer whose last model was published, but that the store has lost.

    What it had seen since the refit before is lost with it, and is gathered anew.
    """
    return replace(
        state,
        model=model,
        round_ms=max(state.round_ms, model.at_ms) + 1,
        learned={
            part.population: Learned(refit_ms=model.at_ms, refit_updates=state.updates)
            for part in model.parts
        },
        next_id=max(state.next_id, *(s.id + 1 for s in (*model.segments, *model.retired))),
        sample_due_ms=0,
        sample_due_updates=0,
        sizes=tuple(segment.size for segment in model.segments),
    )


Why = Literal["due", "drift"]


def _why_refit(
    state: TrainerState,
    samples: Mapping[str, Sample],
    merged: Statistics | None,
    divided: Populations,
    settings: Learning,
) -> tuple[dict[str, Why], TrainerState]:
    """Why to refit which populations now, if any; and the state with what this round has seen.

    A refit that is due, or one for segments that are no longer any, is open to challengers; one
    that only follows a drift of users is not: it is the same segments elsewhere.
    """
    model = state.model
    if model is None or model.populations.digest != divided.digest:
        return dict.fromkeys(samples, "due"), state
    why: dict[str, Why] = {}
    learned = dict(state.learned)
    for name, sample in samples.items():
        part, columns = model.part(name), model.columns_of(name)
        if part is None or columns is None or _progress(state, name, settings) >= 1.0:
            why[name] = "due"
            continue
        counted = None if merged is None else merged.between(columns)
        reason, learned[name] = _alarm(state, part, sample, counted, settings)
        if reason is not None:
            why[name] = reason
    return why, replace(state, learned=learned)


def _alarm(
    state: TrainerState,
    part: PopulationModel,
    sample: Sample,
    merged: Statistics | None,
    settings: Learning,
) -> tuple[Why | None, Learned]:
    """Why to refit a population before it is due; and what is known of it after this look."""
    learned = state.of(part.population)
    mapped = part.map.apply(sample.vectors)
    squared = distances(mapped, part.centroids, part.map.weights)
    _, away = nearest(squared)
    drift = (learned.drift or Drift.since(mapped, away, 0)).after(away, sample.at_ms)
    learned = msgspec.structs.replace(learned, drift=drift)
    if _progress(state, part.population, settings) < settings.alarm_share:
        return None, learned
    # A challenger that won once is looked at again soon: until then its segments are in doubt.
    if learned.challenged or set(misfits(part, mapped, squared, merged, settings)) - set(
        drift.known
    ):
        return "due", learned
    changed = drift.stability_index(mapped)[part.map.weights > 0] > settings.drift_psi
    if changed.any() or drift.distances_changed(settings.drift_delta):
        return "drift", learned
    return None, learned


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
    known = [] if state.model is None else [state.of(part.population) for part in state.model.parts]
    return replace(
        state,
        totals_in=max(state.totals_in - 1, 0),
        sample_due_ms=min(
            (_next(sample.at_ms, one.refit_ms, every_ms, share) for one in known), default=0
        ),
        sample_due_updates=min(
            (_next(state.updates, one.refit_updates, every, share) for one in known), default=0
        ),
    )


def _next(now: int, refit: int, every: int, share: float) -> int:
    """The next look after `now`: with an alarm's patience, or when the next refit is due."""
    if not every:
        return NEVER
    due = refit + every
    look = now + int(every * share)
    return min(look, due) if due > now else look


def _progress(state: TrainerState, population: str, settings: Learning) -> float:
    """How much of the time, or of the updates, between two refits of a population has passed."""
    found, known = 0.0, state.of(population)
    if settings.refit_seconds:
        found = (state.round_ms - known.refit_ms) / (settings.refit_seconds * 1_000)
    if settings.refit_updates:
        found = max(found, (state.updates - known.refit_updates) / settings.refit_updates)
    return found


def _sized(segments: tuple[Segment, ...], sizes: Sequence[int]) -> tuple[Segment, ...]:
    if len(sizes) != len(segments):
        return segments
    return tuple(replace(s, size=size) for s, size in zip(segments, sizes, strict=True))
