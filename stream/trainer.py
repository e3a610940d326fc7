"""Runs the trainer's rounds: one leads at a time, and what it writes is fenced.

Comes in: each partition's statistics, from the store. Goes out: the trainer's state for owners and
readers, and model records for `segment-models`. `learning` decides what is learned; here is decided
when, and by whom.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from stream import metrics
from stream.config import Settings
from stream.events import PUBLISHED_MODEL, LineageRecord, PublishedModel
from stream.learning.rounds import learn, resume
from stream.learning.state import TrainerState
from stream.learning.statistics import PartitionStatistics
from stream.model import Model
from stream.records import lineage_records
from stream.roles.leader import Lease
from stream.scores.looks import Looks
from stream.store.promises import TrainerStore
from stream.store.state import Position
from stream.tuning import Tuning

log = logging.getLogger(__name__)


class Origin(msgspec.Struct, frozen=True):
    """What a trainer's rounds began with: by marks, from the same the same models come again.

    Attributes:
        incarnations: of each partition's state; 0 for none, or one that has come to no mark.
        epochs: that were told before the first round.
        ids: the highest segment id that was told before.
    """

    incarnations: tuple[int, ...]
    epochs: int
    ids: int


@dataclass(frozen=True)
class Announced:
    """What `segment-models` has.

    Attributes:
        model: the newest record.
        namespace: whose that is.
        origin: what its trainer began with; None where that was not told.
        highest_id: of any segment that a model there tells of.
    """

    model: PublishedModel | None = None
    namespace: str = ""
    origin: Origin | None = None
    highest_id: int = 0

    @property
    def number(self) -> tuple[int, int]:
        """Epoch and version of the newest model."""
        return (0, 0) if self.model is None else (self.model["epoch"], self.model["version"])

    def with_model(
        self, model: PublishedModel, namespace: str, origin: bytes | None = None
    ) -> Announced:
        """The same with one more record of the topic."""
        highest = max(s["id"] for s in (*model["segments"], *model["retired"]))
        highest = max(self.highest_id, highest)
        if (model["epoch"], model["version"]) < self.number:
            return replace(self, highest_id=highest)
        began = None if origin is None else msgspec.json.decode(origin, type=Origin)
        return Announced(model, namespace, began, highest)


class Trainer:
    """Leads the rounds. One leads at a time, by a lease; a write by any other is refused.

    `announce` publishes a model record on `segment-models`, with its `Origin` as JSON, and its
    lineage on `segment-changes`, and returns when they are delivered. A model may be announced
    again, after a restart.

    `announced` reads back what was published. What was published is true: where the store has lost
    it, a trainer in live mode goes on from there, and no trainer that begins anew uses an epoch or
    a segment's id again. From mark to mark the same is learned again instead, to the bit.
    """

    def __init__(
        self,
        settings: Settings,
        store: TrainerStore,
        announce: Callable[[bytes, Sequence[LineageRecord], bytes], None],
        announced: Callable[[], Announced] = Announced,
    ) -> None:
        self._settings = settings
        self._store = store
        self._announce = announce
        self._announced = announced
        self._live = settings.clock.mode == "live"
        self._settle_until: float | None = None
        self._table = settings.table()
        self._partitions = range(settings.topics.partitions)
        self._lease = Lease(store, "trainer", settings.publisher.lease_seconds)
        self._leads = False
        self._state = TrainerState()
        self._seen: list[int] = []
        self._strange: set[str] = set()
        self._unreadable = False
        self._unannounced: Model | None = None

    @property
    def leads(self) -> bool:
        return self._leads

    def step(self) -> bool:
        """Run a round if one is due; True if there was something to do.

        Raises:
            StoreUnavailableError: the store does not answer; call again later.
        """
        if not self._hold_lease():
            return False
        if self._unannounced is not None:
            self._publish(self._unannounced)
        times = self._store.statistics_times(self._partitions)
        round_ms = self._due(times)
        if (round_ms is None or round_ms <= self._state.round_ms) and (
            self._store.round() < self._state.round_ms
        ):
            # The store rolled back, and owners wait for rounds that we think are done.
            self._leads = False
            return False
        if round_ms is None:
            return False
        self._seen = times
        parts = self._statistics()
        model = self._state.model
        if not parts or (model is not None and not self._ours(model.schema)):
            return False
        self._round(parts, round_ms)
        return True

    def _due(self, times: list[int]) -> int | None:
        """The time of the round that is due, if one is, by the times of the statistics there."""
        last = self._state.round_ms
        if self._settings.clock.mode == "watermark":
            # Owners wait for their round, so all stand at the same mark; without marks they do
            # not, and the slowest tells how far the rounds have come.
            return min(times) if min(times) > last else None
        newest = max(times)
        if times == self._seen or newest == 0:
            return None
        # News are news whatever their clock says: one that was ahead must not hold up the others.
        # Owners know a round by its time, so no two that follow each other have the same.
        return newest if newest != last else last + 1

    def close(self) -> None:
        """Let a standby take over at once."""
        if self._leads:
            self._lease.release()
            self._stop_leading()

    def _hold_lease(self) -> bool:
        if not self._lease.hold():
            self._stop_leading()
            return False
        return self._leads or self._begin_to_lead()

    def _begin_to_lead(self) -> bool:
        """Go on from where the last trainer was; False while something may be on its way."""
        self._store.lead(self._lease.token)
        self._unannounced = None
        if self._settle_until is not None and time.monotonic() < self._settle_until:
            return False
        found = self._store.model()
        state = TrainerState() if found is None else self._stored(found[1])
        run, told = self._store.run(), self._announced()
        # The store may have lost a model that its trainer is still announcing; or everything, and
        # what was lost may come back with its next start.
        lost = self._live and state.store_run not in {"", run}
        lost = lost or (found is None and self._is_ours(told))
        if lost and self._settle_until is None:
            seconds = self._settings.publisher.settle_seconds
            log.info("the store was started again or lost what it had; waiting %g s", seconds)
            self._settle_until = time.monotonic() + seconds
            return False
        self._settle_until = None
        self._state = self._behind(state, told, anew=found is None)
        if self._live:
            self._state = replace(self._state, store_run=run)
        self._leads = True
        log.info("this trainer leads, from round %d", self._state.round_ms)
        model = self._state.model
        if model is not None and self._ours(model.schema):
            if model is not state.model:
                self._put(self._state)
            self._publish(model)
        return self._leads

    def _stored(self, raw: bytes) -> TrainerState:
        """The state that the trainer before has left."""
        state, looks = TrainerState.unpack(raw), self._store.looks()
        if looks is None:
            return state
        try:
            return replace(state, looks=Looks.unpack(looks))
        except ValueError as error:
            log.warning("what scores are yet to be learned from is lost: %s", error)
            return state

    def _is_ours(self, told: Announced) -> bool:
        return told.model is not None and told.namespace == self._settings.store.namespace

    def _behind(self, state: TrainerState, told: Announced, *, anew: bool) -> TrainerState:
        """The state, so that it comes behind what was published.

        Args:
            anew: whether the store has no state of a trainer.
        """
        if told.model is None:
            return state
        if anew:
            epochs, ids = told.model["epoch"], told.highest_id
            if self._comes_again(told) and told.origin is not None:
                epochs, ids = told.origin.epochs, told.origin.ids
            state = replace(state, next_id=ids + 1, epochs_before=epochs, ids_before=ids)
        number = (0, 0) if state.model is None else state.model.number
        if not self._live or not self._is_ours(told) or told.number <= number:
            return state
        model = Model.from_published(told.model)
        if model.schema != self._table.schema:
            return state
        log.warning("the store had lost model %s; going on from what was published", model.name)
        return resume(state, model)

    def _comes_again(self, told: Announced) -> bool:
        """Whether the rounds that led to what was published will come again as they were.

        By marks they do, where the store went back to before a trainer's state and a partition's own is
        still there: it will decide again what it decided, and must find the same models.
        """
        if self._live or not self._is_ours(told) or told.origin is None:
            return False
        pairs = zip(self._positions(), told.origin.incarnations, strict=False)
        return any(here is not None and here.incarnation == then for here, then in pairs)

    def _origin(self) -> Origin:
        marked = tuple(
            here.incarnation if here is not None and here.mark_ms else 0
            for here in self._positions()
        )
        return Origin(marked, self._state.epochs_before, self._state.ids_before)

    def _positions(self) -> list[Position | None]:
        return [self._store.position(partition) for partition in self._partitions]

    def _stop_leading(self) -> None:
        self._leads = False
        self._settle_until = None
        self._lease.lose()
        metrics.segments_counted({})
        metrics.populations_counted({})
        metrics.scores_judged({}, 0)
        metrics.model_judged(math.nan, None)

    def _statistics(self) -> list[PartitionStatistics]:
        """Of every partition that has any; without those that tell of other features than ours.

        None at all while some cannot be read: their owner writes them anew.
        """
        raw = self._store.statistics(self._partitions)
        try:
            parts = [PartitionStatistics.unpack(one) for one in raw if one is not None]
        except (msgspec.MsgspecError, ValueError, TypeError, LookupError) as error:
            if not self._unreadable:
                log.warning("statistics of a partition cannot be read, no round is run: %s", error)
            self._unreadable = True
            return []
        self._unreadable = False
        return [part for part in parts if not part.schema or self._ours(part.schema)]

    def _ours(self, schema: str) -> bool:
        """Whether something is of the features that the settings declare; told once if not."""
        if schema == self._table.schema:
            return True
        if schema not in self._strange:
            self._strange.add(schema)
            log.warning(
                "the store holds statistics or a model of feature table %s, but the settings declare"
                " %s: nothing is learned from them; put the old table back, or use another"
                " store.namespace",
                schema,
                self._table.schema,
            )
        return False

    def _round(self, parts: list[PartitionStatistics], round_ms: int) -> None:
        started = time.perf_counter()
        before = self._state.model
        state = learn(
            self._state,
            parts,
            round_ms,
            self._table,
            self._settings.learning,
            self._settings.kinds,
            self._store.given_names(),
            wanted=self._wanted(),
            populations=self._settings.populations,
            scores=self._settings.foretold(),
            publish=self._settings.publish.rule(),
        )
        if not self._put(state):
            return
        if state.tuning != self._state.tuning and state.tuning is not None:
            log.info("tuning %s is in force from this round on", state.tuning.id)
        self._state = state
        model = state.model
        refitted = model is not None and (before is None or model.epoch != before.epoch)
        if model is not None and model is not before:
            self._publish(model)
        seconds = time.perf_counter() - started
        metrics.round_completed(seconds)
        if refitted:
            metrics.refitted(seconds)
        if not self._leads:
            # The lease was lost while the model was told: what there is now is another's to tell.
            return
        scores = () if model is None or model.scores is None else model.scores.learned
        metrics.scores_judged(
            {one.name: (one.labels, (one.auc, one.log_loss, one.calibration)) for one in scores},
            len(state.looks),
        )
        if model is not None:
            if model is not before:
                metrics.model_adopted(model.epoch, model.version)
            sizes = zip(model.segments, state.sizes, strict=False)
            metrics.segments_counted({(s.id, s.kind): size for s, size in sizes})
            inertia = {part.population: part.inertia for part in model.parts}
            metrics.populations_counted(
                {name: (known.users, inertia.get(name)) for name, known in state.learned.items()}
            )
            metrics.model_judged(model.inertia, model.silhouette)
            metrics.level_users(
                {
                    (level, step): users
                    for level, counts in state.on_steps.items()
                    for step, users in counts.items()
                }
            )

    def _wanted(self) -> Tuning | None:
        """What a person wants; None as well for what cannot be read, which must not stop rounds."""
        raw = self._store.wanted()
        if raw is None:
            return None
        try:
            return Tuning.unpack(raw)
        except msgspec.DecodeError as error:
            log.warning("what was applied cannot be read, apply it again: %s", error)
            return None

    def _publish(self, model: Model) -> None:
        """Announce a model; if that fails, the next step begins with it.

        Not if another leads by now: whoever was frozen must not tell what has been learned otherwise.
        """
        if not self._lease.hold():
            self._stop_leading()
            return
        self._unannounced = model
        record = PUBLISHED_MODEL.dump_json(model.published(self._table))
        self._announce(record, lineage_records(model), msgspec.json.encode(self._origin()))
        self._unannounced = None
        if self._live and self._state.announced != model.name:
            # Owners take it up from now on: whatever the store loses, it is on its topic.
            self._state = replace(self._state, announced=model.name)
            self._put(self._state)

    def _put(self, state: TrainerState) -> bool:
        """Store a state; False if another leads by now."""
        looks = None if state.looks is self._state.looks else state.looks.pack()
        packed = state.pack(self._table)
        stored = self._store.put_model(self._lease.token, packed, state.round_ms, looks)
        if not stored:
            self._stop_leading()
        return stored
