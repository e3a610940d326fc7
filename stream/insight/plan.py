"""Who would enter and leave which segment, before anything is changed.

Comes in: the settings as they are and as wanted, and users: a sample of the running pipeline's, or a
history's. Goes out: what a change of weights, words, kinds, k or publish rule would do to them. Nothing
is written. The parts are those of the pipeline: the refit is the trainer's, the look and the records
are a partition's. What would happen without the change, because it is due, is taken out beforehand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from stream.config import Settings
from stream.events import Counts, Floats, Hashes, Ints, Lineage, Rows, SegmentChange
from stream.features import FeatureTable
from stream.insight.explore import sample_store
from stream.insight.facts import PlanFacts, PlannedSegment
from stream.insight.history import BY_DAYS, OpenHistory, rehearse
from stream.insight.queries import NoModelError, trainer_state
from stream.kinds import CHURN_RISK_KINDS
from stream.learning.rounds import retune
from stream.learning.state import TrainerState
from stream.learning.statistics import Sample
from stream.lineage import inherit
from stream.model import Model, Segment
from stream.partition import Partition, SchemaMismatchError
from stream.populations import NONE, Populations
from stream.segments import PublishRule, columns_of
from stream.store.promises import ReaderStore
from stream.store.state import Position
from stream.told import ToldError
from stream.tuning import Started, Tuning
from stream.units import apportion, iso, percent

ANOTHER_TABLE = (
    "the rows in the store were folded by another feature table (declared differently in more than "
    "weight, words or unit), and what was not folded cannot be planned, or applied, for them. Plan it "
    "on a file instead (segstream plan CONFIG FILE --mapping NAME); to have it, set another "
    "store.namespace in that settings file and replay the log into it"
)
ANEW = (
    "another feature table: this needs another store.namespace and a replay, which writes a first "
    "assignment for everyone and numbers segments anew; here they have the ids of those whose people "
    "they take over"
)
ALL_AT_ONCE = 1e9
"""More users a second than there are."""


_decode = msgspec.json.Decoder().decode


class PlanError(ToldError):
    """It cannot be planned; the message says why, and what to do."""


@dataclass(frozen=True)
class Crowd:
    """The users planned for, as they are under the model in force.

    Attributes:
        rows: of some users, or of everyone.
        weights: ``(users,)`` how many users each stands for; None for one each.
        limits: ``(users,)`` for each user, the hash up to which everyone drawn by the same limit is here;
            None for all.
        kinds: names of the codes in rows, see `turns.KindBook`.
        notes: what a reader should know of them.
    """

    names: Sequence[bytes]
    rows: Rows
    hashes: Hashes
    at_ms: int
    state: TrainerState
    source: str
    notes: tuple[str, ...] = ()
    weights: Floats | None = None
    limits: Hashes | None = None
    kinds: tuple[str, ...] = ()

    @property
    def counts(self) -> Floats:
        """``(users,)`` how many users each stands for."""
        return np.ones(len(self.names)) if self.weights is None else self.weights

    @property
    def total(self) -> int:
        """How many users they stand for."""
        return round(float(self.counts.sum()))

    @property
    def model(self) -> Model:
        assert self.state.model is not None
        return self.state.model


def live_crowd(
    settings: Settings,
    wanted: FeatureTable,
    store: ReaderStore,
    tell: Callable[[str], None] = lambda _: None,
) -> Crowd:
    """A sample of the running pipeline's users.

    Args:
        settings: say where the store is, and by which clock the pipeline runs.
        wanted: the feature table that is planned.

    Raises:
        NoModelError: there is no model to change.
        PlanError: the rows were folded by a table that is not the wanted one; or there are none.
    """
    state = trainer_state(store)
    assert state.model is not None
    if state.model.schema != wanted.schema:
        raise PlanError(ANOTHER_TABLE)
    try:
        kept, at_ms = sample_store(settings, wanted, store, state.model, tell)
    except SchemaMismatchError:
        raise PlanError(ANOTHER_TABLE) from None
    if not len(kept.rows):
        raise PlanError(
            f"the store has no users under namespace {settings.store.namespace} with "
            f"topics.partitions = {settings.topics.partitions}: use the settings the pipeline runs with"
        )
    names = [f"{hashed:016x}".encode() for hashed in kept.hashes.tolist()]
    return Crowd(
        names,
        kept.rows,
        kept.hashes,
        at_ms,
        state,
        "the live store",
        weights=kept.weights,
        limits=np.array(kept.limits, np.uint64)[kept.strata],
        kinds=kept.kinds,
    )


def history_crowd(
    settings: Settings,
    open_history: OpenHistory,
    tell: Callable[[str], None] = lambda _: None,
) -> Crowd:
    """Everyone in a history, once it has been played.

    Raises:
        NoModelError: it has too few users for a model.
        Exception: whatever opening it raises.
    """
    played = rehearse(settings, open_history, tell=tell)
    notes = ((BY_DAYS,) if played.by_days else ()) + played.notes
    partition, state = played.rehearsal.partition, played.rehearsal.state
    if state.model is None:
        raise NoModelError(
            f"{played.file}: {len(partition):,} users; a first model takes "
            f"{settings.learning.first_model_users:,} (learning.first_model_users)"
        )
    return Crowd(
        partition.names, partition.rows, partition.hashes, state.round_ms, state, played.file.name,
        notes, kinds=tuple(partition.position.kinds),
    )  # fmt: skip


# -- the plan ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What would become of a crowd.

    Attributes:
        old, new: the models before and after.
        before, after: ``(users,)`` the segment each user is in.
        changes: records that would be written.
        due: users who move with or without the change; their `before` is the segment after that move.
    """

    crowd: Crowd
    old: Model
    new: Model
    before: Ints
    after: Ints
    changes: Sequence[SegmentChange]
    lineage: Sequence[Lineage]
    due: float
    notes: tuple[str, ...]


def plan(crowd: Crowd, table: FeatureTable, rule: PublishRule, wanted: Settings) -> Plan:
    """Refit with the wanted settings, and adopt the model, as trainer and owner would.

    Args:
        table: the wanted one; of the crowd's schema.
        rule: the publish rule in force, unless the model in force has one of its own.

    Raises:
        PlanError: the table is of another schema, or no population has users enough.
    """
    old = crowd.model
    if old.schema != table.schema:
        raise PlanError(ANOTHER_TABLE)
    vectors = table.vectors(crowd.rows, crowd.at_ms)
    divided = wanted.divided()
    populations = divided.divide(vectors, np.full(len(vectors), NONE))
    size = wanted.learning.sample_users
    # All who will be told, though the rate allows only some at once.
    rule = replace(rule, turns_per_second=ALL_AT_ONCE)
    settled, kinds, due = _looked_at(crowd, crowd.rows, crowd.kinds, table, rule, None)
    segments = settled["segment"]
    sample = Sample.of(
        crowd.hashes, vectors, populations, segments, crowd.at_ms, size, crowd.limits
    )
    state = _in_each(replace(crowd.state, round_ms=crowd.at_ms), crowd, divided, populations)
    started = Started(
        table, wanted.learning, wanted.kinds, wanted.populations, wanted.publish.rule()
    )
    new = retune(state, sample, started, Tuning.of(wanted)).model
    if new is None or not new.parts:
        raise PlanError(f"{crowd.source}: no population has users enough to be learned")

    new = replace(new, rule=new.rule and replace(new.rule, turns_per_second=ALL_AT_ONCE))
    moved, _, changes = _looked_at(crowd, settled, kinds, table, rule, new)
    return Plan(
        crowd=crowd,
        old=old,
        new=new,
        before=settled["segment"].astype(np.int64),
        after=moved["segment"].astype(np.int64),
        changes=changes,
        lineage=new.lineage,
        due=float(_standing_for(crowd, {one["user"] for one in due if one["from"] != one["to"]})),
        notes=crowd.notes,
    )


def _in_each(
    state: TrainerState, crowd: Crowd, divided: Populations, populations: Ints
) -> TrainerState:
    """The state with the users of each wanted population."""
    counts = np.bincount(populations, crowd.counts, len(divided))
    learned = {
        name: msgspec.structs.replace(state.of(name), users=round(float(users)))
        for name, users in zip(divided.names, counts.tolist(), strict=True)
    }
    return replace(state, learned=learned)


def _looked_at(
    crowd: Crowd,
    rows: Rows,
    kinds: Sequence[str],
    table: FeatureTable,
    rule: PublishRule,
    model: Model | None,
) -> tuple[Rows, Sequence[str], list[SegmentChange]]:
    """The rows after a look under the model in force, or under one that is adopted.

    Args:
        kinds: names of the codes in rows; those after the look are returned with them.
    """
    now_ms = crowd.at_ms
    position = Position([0, 0], table.schema, kinds=list(kinds))
    partition = Partition(0, table, rule, position, 0, crowd.model)
    partition.load(zip(crowd.names, (row.tobytes() for row in rows), strict=True))
    if model is None:
        partition.sweep(now_ms, now_ms)
    else:
        partition.adopt(model, now_ms, now_ms)
    commit = partition.commit([0, 0], Counts(), now_ms)
    changes = [_decode(change) for entry in commit.outbox for change in entry.changes]
    return partition.rows.copy(), commit.position.kinds, changes


def plan_anew(crowd: Crowd, other: Crowd, wanted: Settings) -> Plan:
    """Compare two ways to have played a file, under feature tables of different schemas.

    The second one's segments are given the ids they would have if they were a refit of the first:
    a new namespace numbers them anew.
    """
    place = {name: slot for slot, name in enumerate(other.names)}
    found = np.array([place.get(name, -1) for name in crowd.names], dtype=np.int64)
    common = np.flatnonzero(found >= 0)
    old, new = crowd.model, other.model
    # Users of a population that is too small to be learned are in no living segment.
    inside = columns_of(crowd.rows["segment"][common], old.ids) >= 0
    inside &= columns_of(other.rows["segment"][found[common]], new.ids) >= 0
    common = common[inside]
    before = crowd.rows["segment"][common]
    after = other.rows["segment"][found[common]]
    heritage = inherit(
        tuple(old.ids.tolist()),
        columns_of(before, old.ids),
        columns_of(after, new.ids),
        len(new.ids),
        crowd.state.next_id,
        wanted.learning.identity_overlap,
    )
    ids = np.array(heritage.ids)
    new = replace(
        new,
        parts=tuple(
            replace(
                part,
                segments=tuple(
                    replace(s, id=i) for s, i in zip(part.segments, heritage.ids[span], strict=True)
                ),
            )
            for part, span in zip(new.parts, new.spans, strict=True)
        ),
        retired=(),
    )
    lineage: list[Lineage] = [
        {
            "event": event, "segment": segment, "others": list(others),
            "at": iso(crowd.at_ms), "model": new.name,
        }
        for event, segment, others in heritage.events
    ]  # fmt: skip
    notes = [*crowd.notes, ANEW]
    if len(common) < max(len(found), len(other.names)):
        notes.append(
            f"{len(found) - len(common):,} users have a segment under the old table only, "
            f"{len(other.names) - len(common):,} under the new one"
        )
    return Plan(
        crowd=replace(
            crowd,
            names=[crowd.names[slot] for slot in common.tolist()],
            rows=crowd.rows[common],
            hashes=crowd.hashes[common],
        ),
        old=old,
        new=new,
        before=before.astype(np.int64),
        after=ids[columns_of(after, other.model.ids)],
        changes=(),
        lineage=lineage,
        due=0,
        notes=tuple(notes),
    )


# -- facts -------------------------------------------------------------------------------------


def facts_of(found: Plan) -> PlanFacts:
    """For ``--json``: every number of users is of all users, estimated where a sample was seen."""
    crowd, old, new = found.crowd, found.old, found.new
    sampled = len(found.before)
    # Everything else is added up from these, so that all sums agree.
    flows: Counter[tuple[int, int]] = Counter()
    for before, after, users in zip(
        found.before.tolist(), found.after.tolist(), crowd.counts.tolist(), strict=True
    ):
        flows[before, after] += users
    seen = sorted(flows.items())
    scaled = apportion([count for _, count in seen], crowd.total)
    matrix = {pair: count for (pair, _), count in zip(seen, scaled, strict=True)}
    sizes_before: Counter[int] = Counter()
    sizes_after: Counter[int] = Counter()
    kind_before: Counter[str] = Counter()
    kind_after: Counter[str] = Counter()
    entering = leaving = 0
    for (before, after), count in matrix.items():
        was, becomes = _kind(old, before), _kind(new, after)
        sizes_before[before] += count
        sizes_after[after] += count
        kind_before[was] += count
        kind_after[becomes] += count
        entering += count * (becomes in CHURN_RISK_KINDS and was not in CHURN_RISK_KINDS)
        leaving += count * (was in CHURN_RISK_KINDS and becomes not in CHURN_RISK_KINDS)
    moving = sum(count for (before, after), count in matrix.items() if before != after)
    by_cause = {
        cause: _standing_for(
            crowd, [change["user"] for change in found.changes if change["cause"] == cause]
        )
        for cause in sorted({change["cause"] for change in found.changes})
    }
    records = round(sum(by_cause.values()))
    of_causes = apportion(list(by_cause.values()), records)
    living_before = {segment.id for segment in old.segments}
    facts: PlanFacts = {
        "source": crowd.source,
        "at": iso(crowd.at_ms),
        "users": crowd.total,
        "sampled": sampled,
        "model": old.name,
        "before": _segments(old.segments, sizes_before),
        "after": [
            {**row, "new": row["id"] not in living_before}
            for row in _segments(new.segments, sizes_after)
        ],
        "matrix": [
            {"from": before, "to": after, "users": count}
            for (before, after), count in matrix.items()
        ],
        "moving": moving,
        "share": moving / max(crowd.total, 1),
        "records": records,
        "causes": dict(zip(by_cause, of_causes, strict=True)),
        "due_anyway": round(found.due),
        "lineage": list(found.lineage),
        "kinds": {
            kind: {"before": kind_before[kind], "after": kind_after[kind]}
            for kind in sorted(kind_before.keys() | kind_after.keys())
        },
        "churn_risk": {
            "before": sum(kind_before[kind] for kind in CHURN_RISK_KINDS),
            "after": sum(kind_after[kind] for kind in CHURN_RISK_KINDS),
            "entering": entering,
            "leaving": leaving,
        },
        "notes": list(found.notes),
        "verdict": "",
    }
    facts["verdict"] = _verdict(facts)
    return facts


def _standing_for(crowd: Crowd, names: Iterable[str]) -> float:
    """How many users those named stand for."""
    counts = dict(zip(crowd.names, crowd.counts.tolist(), strict=True))
    return float(sum(counts[name.encode()] for name in names))


def passing(facts: PlanFacts, segment: int) -> tuple[int, int]:
    """How many users would enter a segment, and how many would leave it."""
    moves = [flow for flow in facts["matrix"] if flow["from"] != flow["to"]]
    entering = sum(flow["users"] for flow in moves if flow["to"] == segment)
    return entering, sum(flow["users"] for flow in moves if flow["from"] == segment)


def _kind(model: Model, segment: int) -> str:
    known = model.by_id.get(segment)
    return "none" if known is None else known.kind


def _segments(segments: Sequence[Segment], sizes: Counter[int]) -> list[PlannedSegment]:
    """The largest first, with how many users are in each."""
    return [
        {"id": s.id, "name": s.name, "kind": s.kind, "users": sizes[s.id]}
        for s in sorted(segments, key=lambda s: (-sizes[s.id], s.id))
    ]


def _verdict(facts: PlanFacts) -> str:
    """What it comes to, in words."""
    share, risk = facts["share"], facts["churn_risk"]
    if facts["moving"] == 0:
        size = "Nobody would change segment"
    else:
        word = next(word for limit, word in _SIZES if share <= limit)
        size = f"{word}: {facts['moving']:,} of {facts['users']:,} users ({percent(share)}) would change segment"
    before, after = ({row["id"] for row in facts[side]} for side in ("before", "after"))
    ends = [f"{len(before)} segments become {len(after)}"] if len(before) != len(after) else []
    if before - after:
        ends.append(f"{_listed(before - after)} retired")
    if after - before:
        ends.append(f"{_listed(after - before)} new")
    if not ends:
        ends.append("every segment keeps its id")
    more = risk["after"] - risk["before"]
    told = f"{abs(more):,} {'more' if more > 0 else 'fewer'} users" if more else "as many users"
    return (
        f"{size}; {'; '.join(ends)}; {told} in a kind that stands for churn risk "
        f"({risk['before']:,} before, {risk['after']:,} after)."
    )


_SIZES = (
    (0.01, "Hardly a change"),
    (0.1, "A small change"),
    (0.5, "A large change"),
    (1.0, "Other segments altogether"),
)


def _listed(ids: set[int]) -> str:
    return f"segment{'s' if len(ids) > 1 else ''} " + ", ".join(str(one) for one in sorted(ids))
