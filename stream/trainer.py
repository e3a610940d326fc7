"""Runs the trainer's rounds: one leads at a time, and what it writes is fenced.

Comes in: each partition's statistics, from the store. Goes out: the trainer's state for owners and
readers, and model records for `segment-models`. `learning` decides what is learned; here is decided
when, and by whom.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence

import msgspec

from stream import metrics
from stream.config import Settings
from stream.events import PUBLISHED_MODEL, LineageRecord
from stream.features import FeatureTable
from stream.learning import PartitionStatistics, TrainerState, learn
from stream.model import Model
from stream.state import Store
from stream.tuning import Tuning

log = logging.getLogger(__name__)


class Trainer:
    """Leads the rounds. One leads at a time, by a lease; a write by any other is refused.

    `announce` publishes a model record on `segment-models` and its lineage on `segment-changes`,
    and returns when they are delivered. A model may be announced again, after a restart.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        announce: Callable[[bytes, Sequence[LineageRecord]], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._announce = announce
        self._table = FeatureTable(settings.features)
        self._partitions = range(settings.topics.partitions)
        self._token = secrets.token_hex(8)
        self._leads = False
        self._state = TrainerState()
        self._seen: list[int] = []
        self._strange: set[str] = set()
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
            self._store.release("trainer", self._token)
            self._stop_leading()

    def _hold_lease(self) -> bool:
        lease = self._settings.publisher.lease_seconds
        if not self._store.lease("trainer", self._token, lease):
            self._stop_leading()
            return False
        metrics.lease_held("trainer", lease)
        if not self._leads:
            self._store.lead(self._token)
            found = self._store.model()
            self._state = TrainerState() if found is None else TrainerState.unpack(found[1])
            if self._state.model is not None and self._ours(self._state.model.schema):
                self._publish(self._state.model)
            self._leads = True
            log.info("this trainer leads, from round %d", self._state.round_ms)
        return True

    def _stop_leading(self) -> None:
        self._leads = False
        metrics.lease_missed("trainer")
        metrics.segments_counted({})

    def _statistics(self) -> list[PartitionStatistics]:
        """Of every partition that has any; without those that tell of other features than ours."""
        raw = self._store.statistics(self._partitions)
        parts = [PartitionStatistics.unpack(one) for one in raw if one is not None]
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
        )
        if not self._store.put_model(self._token, state.pack(self._table), round_ms):
            self._stop_leading()
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
        if model is not None:
            if model is not before:
                metrics.model_adopted(model.epoch, model.version)
            sizes = zip(model.segments, state.sizes, strict=False)
            metrics.segments_counted({(s.id, s.kind): size for s, size in sizes})

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
        """Announce a model; if that fails, the next step begins with it."""
        self._unannounced = model
        record = PUBLISHED_MODEL.dump_json(model.published(self._table))
        self._announce(record, model.lineage_records())
        self._unannounced = None
