"""Runs rounds: merge statistics, move centroids, refit, publish a model.

Comes in: each partition's `PartitionStatistics`. Goes out: the next `TrainerState` with an
immutable model; owners adopt it. A round is a pure function of the state and the statistics;
`Trainer` only decides when to run one and writes what came out, fenced.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from stream import metrics
from stream.clustering import (
    FeatureMap,
    Statistics,
    distances,
    living,
    lloyd,
    seed_and_fit,
    smallest_hashes,
)
from stream.config import Learning, Settings
from stream.events import PUBLISHED_MODEL, Floats, Hashes, Lineage
from stream.features import FeatureTable
from stream.lineage import inherit
from stream.model import Model, Segment, kinds, propose_names
from stream.segments import KindRule
from stream.state import Store
from stream.units import iso

log = logging.getLogger(__name__)

ALL_HASHES = (1 << 64) - 1
SILHOUETTE_USERS = 512
"""Silhouette is quadratic in users; 512 of a uniform sample tell the mean to about .02."""


class PartitionStatistics(msgspec.Struct):
    """What an owner tells the trainer of its partition: absolute, so the last one wins.

    Attributes:
        at_ms: the mark (watermark mode) or sweep (live mode) it was taken at.
        model: epoch.version it was taken under; empty for none.
        users: everyone in the partition.
        counts, sums, inertia, sizes: see `clustering.Statistics`; empty without a model.
        sample_hashes: user hashes in the sample, packed uint64; None if none was asked for.
        sample_vectors: their vectors in natural units, packed float64.
    """

    at_ms: int
    model: str
    users: int
    counts: list[int] = []
    sums: bytes = b""
    inertia: float = 0.0
    sizes: list[int] = []
    sample_hashes: bytes | None = None
    sample_vectors: bytes = b""

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
    """A uniform sample of users, by hash: the smallest `sample_users` of all living."""

    hashes: Hashes
    vectors: Floats

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
        return Sample(hashes[chosen], vectors[chosen])


@dataclass(frozen=True)
class TrainerState:
    """All the trainer knows; what owners and readers need of it is in here too.

    Attributes:
        round_ms: the last completed round.
        sample_due_ms: owners send a sample with statistics of this time or later.
        sample_threshold: owners send only users whose hash is not above it.
        sizes: users published in each segment, by column of the model, at the last round.
    """

    model: Model | None = None
    round_ms: int = 0
    next_id: int = 1
    sample_due_ms: int = 0
    sample_threshold: int = ALL_HASHES
    users: int = 0
    sizes: tuple[int, ...] = ()

    def pack(self, table: FeatureTable) -> bytes:
        return msgspec.json.encode(
            {
                "model": None if self.model is None else self.model.published(table),
                "round_ms": self.round_ms,
                "next_id": self.next_id,
                "sample_due_ms": self.sample_due_ms,
                "sample_threshold": self.sample_threshold,
                "users": self.users,
                "sizes": self.sizes,
            }
        )

    @staticmethod
    def unpack(raw: bytes) -> TrainerState:
        data: dict[str, Any] = msgspec.json.decode(raw)
        model = data.pop("model")
        sizes = tuple(data.pop("sizes"))
        return TrainerState(
            model=None if model is None else Model.from_published(model), sizes=sizes, **data
        )


def learn(
    state: TrainerState,
    parts: Sequence[PartitionStatistics],
    round_ms: int,
    table: FeatureTable,
    settings: Learning,
    rules: Sequence[KindRule],
) -> TrainerState:
    """One round; the model of the answer is the same object if it need not be published anew.

    Args:
        parts: statistics in partition order, of every partition that has any.
        round_ms: the time of the round, by the clock in use.
    """
    model = state.model
    state = replace(state, round_ms=round_ms, users=sum(part.users for part in parts))
    peopled = [part for part in parts if part.users]
    epoch = None if model is None else str(model.epoch)
    current = [part for part in peopled if part.model.split(".")[0] == epoch]
    complete = len(current) == len(peopled)
    merged = _merge(current) if current and complete else None
    if merged is not None:
        state = replace(state, sizes=tuple(merged.sizes.tolist()))

    sampled = [part for part in parts if part.sample_hashes is not None]
    if round_ms >= state.sample_due_ms and len(sampled) == len(parts):
        sample = Sample.merge(sampled, len(table.names), settings.sample_users)
        needed = settings.first_model_users if model is None else 2 * len(model.ids)
        if len(sample.hashes) >= needed:
            return _refit(state, sample, round_ms, table, settings, rules)
        return state
    if model is None or merged is None:
        return state
    centroids = merged.means(model.centroids)
    shift = np.sqrt((model.map.weights * (centroids - model.centroids) ** 2).sum(axis=1)).max()
    if shift <= settings.move_threshold:
        return state
    moved = replace(
        model,
        version=model.version + 1,
        at_ms=round_ms,
        centroids=centroids,
        segments=_sized(model.segments, state.sizes),
        users=state.users,
        inertia=merged.inertia / max(int(merged.counts.sum()), 1),
        lineage=(),
    )
    return replace(state, model=moved)


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


def _refit(
    state: TrainerState,
    sample: Sample,
    round_ms: int,
    table: FeatureTable,
    settings: Learning,
    rules: Sequence[KindRule],
) -> TrainerState:
    """A new epoch: a new map from the sample, Lloyd from where the centroids are, ids kept."""
    weights = np.array([feature.weight for feature in table.features])
    new_map = FeatureMap.learn(sample.vectors, weights)
    mapped = new_map.apply(sample.vectors)
    old = state.model
    epoch = 1 if old is None else old.epoch + 1
    name = f"{epoch}.0"
    lineage: list[Lineage] = []

    def happened(event: str, segment: int, others: Sequence[int]) -> None:
        lineage.append(
            {
                "event": event,
                "segment": segment,
                "others": list(others),
                "at": iso(round_ms),
                "model": name,
            }
        )

    if old is None:
        k = min(settings.segments, len(np.unique(mapped, axis=0)))
        centroids, _ = seed_and_fit(mapped, k, new_map.weights, settings.starts, settings.seed)
        ids, next_id = tuple(range(state.next_id, state.next_id + k)), state.next_id + k
        born = dict.fromkeys(ids, name)
        for segment_id in ids:
            happened("born", segment_id, ())
    else:
        warm = old.map.carry(old.centroids, new_map)
        centroids = lloyd(mapped, warm, new_map.weights)
        before = distances(old.map.apply(sample.vectors), old.centroids, old.map.weights)
        after = distances(mapped, centroids, new_map.weights)
        heritage = inherit(
            tuple(int(i) for i in old.ids),
            before.argmin(axis=1),
            after.argmin(axis=1),
            len(centroids),
            state.next_id,
            settings.identity_overlap,
        )
        ids, next_id = heritage.ids, heritage.next_id
        born = {i: old.by_id[i].born if i in old.by_id else name for i in ids}
        for event, segment_id, others in heritage.events:
            happened(event, segment_id, others)

    natural = new_map.invert(centroids)
    kept = {} if old is None else {s.id: s.kind for s in old.segments}
    kind_list = kinds(natural, table, rules, [kept.get(i) for i in ids])
    names = propose_names(centroids, new_map.weights, table, kind_list)
    squared = distances(mapped, centroids, new_map.weights)
    counts = np.bincount(squared.argmin(axis=1), minlength=len(ids))
    known = dict(zip(old.ids.tolist(), state.sizes, strict=False)) if old is not None else {}
    estimate = np.round(counts * (state.users / max(len(mapped), 1))).astype(int).tolist()
    segments = tuple(
        Segment(i, names[c], kind_list[c], known.get(i, estimate[c]), born[i])
        for c, i in enumerate(ids)
    )
    retired: tuple[Segment, ...] = ()
    if old is not None:
        retired = (*old.retired, *(s for s in old.segments if s.id not in ids))
        for segment in segments:
            was = old.by_id.get(segment.id)
            if was is not None and was.kind != segment.kind:
                happened(f"kind:{was.kind}->{segment.kind}", segment.id, ())
    model = Model(
        epoch=epoch,
        version=0,
        at_ms=round_ms,
        schema=table.schema,
        map=new_map,
        centroids=centroids,
        segments=segments,
        users=state.users,
        inertia=float(squared.min(axis=1).mean()),
        silhouette=_silhouette(mapped, squared, new_map.weights),
        lineage=tuple(lineage),
        retired=retired,
    )
    return replace(
        state,
        model=model,
        next_id=next_id,
        sizes=tuple(s.size for s in segments),
        sample_due_ms=round_ms + int(settings.refit_seconds * 1_000),
        sample_threshold=_threshold(state, sample, settings),
    )


def _threshold(state: TrainerState, sample: Sample, settings: Learning) -> int:
    """A limit on hashes that lets about a quarter more users through than the sample needs."""
    if len(sample.hashes) >= settings.sample_users:
        return min(int(sample.hashes[-1]) // 4 * 5, ALL_HASHES)
    if state.users > len(sample.hashes):
        return min(state.sample_threshold * 2, ALL_HASHES)
    return ALL_HASHES


def _silhouette(mapped: Floats, squared: Floats, weights: Floats) -> float | None:
    from sklearn.metrics import silhouette_score  # noqa: PLC0415 - slow to import, see clustering

    few = mapped[:SILHOUETTE_USERS] * np.sqrt(weights)
    labels = squared[:SILHOUETTE_USERS].argmin(axis=1)
    if not 1 < len(np.unique(labels)) < len(few):
        return None
    return float(silhouette_score(few, labels))


class Trainer:
    """Leads the rounds. One leads at a time, by a lease; a write by any other is refused.

    `announce` publishes a model record on `segment-models`, key and value, and returns when it
    is delivered.
    """

    def __init__(
        self, settings: Settings, store: Store, announce: Callable[[bytes, bytes], None]
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
        if self._settings.clock.mode == "watermark":
            # Owners wait for their round, so all stand at the same mark; without marks they do
            # not, and the slowest tells how far the rounds have come.
            due = min(times) > self._state.round_ms
        else:
            due = times != self._seen and max(times) > self._state.round_ms
        if not due:
            if self._store.round() < self._state.round_ms:
                # The store rolled back, and owners wait for rounds that we think are done.
                self._leads = False
            return False
        self._seen = times
        self._round(min(times) if self._settings.clock.mode == "watermark" else max(times))
        return True

    def close(self) -> None:
        """Let a standby take over at once."""
        if self._leads:
            self._store.release("trainer", self._token)
            self._leads = False

    def _hold_lease(self) -> bool:
        lease = self._settings.publisher.lease_seconds
        if not self._store.lease("trainer", self._token, lease):
            self._leads = False
            return False
        if not self._leads:
            self._store.lead(self._token)
            found = self._store.model()
            self._state = TrainerState() if found is None else TrainerState.unpack(found[1])
            if self._state.model is not None:
                self._publish(self._state.model)
            self._leads = True
            log.info("this trainer leads, from round %d", self._state.round_ms)
        return True

    def _round(self, round_ms: int) -> None:
        started = time.perf_counter()
        raw = self._store.statistics(self._partitions)
        parts = [PartitionStatistics.unpack(one) for one in raw if one is not None]
        before = self._state.model
        state = learn(
            self._state, parts, round_ms, self._table, self._settings.learning, self._settings.kinds
        )
        if not self._store.put_model(self._token, state.pack(self._table), round_ms):
            self._leads = False
            return
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

    def _publish(self, model: Model) -> None:
        """Announce a model; if that fails, the next step begins with it."""
        self._unannounced = model
        self._announce(b"current", PUBLISHED_MODEL.dump_json(model.published(self._table)))
        self._unannounced = None
