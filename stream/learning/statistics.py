"""What owners tell the trainer of their users, and the sample that is merged from it.

Comes in: counts, sums and vectors of each partition's users. Goes out: `PartitionStatistics` as bytes
for the store, and one `Sample`, uniform in each population.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from stream.clustering import ALL_HASHES, Statistics, living, smallest_hashes
from stream.events import Floats, Hashes, Ints
from stream.flapping import Tally
from stream.populations import NONE, Populations


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
        sample_populations: places of their populations, packed uint8.
        sample_segments: ids of the segments they are published in, packed int32, 0 for none; empty
            from an owner of an older version.
        sample_limits: of each population, the hash up to which all of its users are in the sample.
        flapping: by segment id.
        schema: of the vectors, see `FeatureTable.schema`; empty if nobody else could have another.
        rules: digest of the populations' rules; empty for one population of everyone.
        populations: users of each population; empty for one of everyone.
        scored: of each segment, customers, users, and the sum of each score over those of them who have
            it, packed float64, ``(k, 2 + scores)``; empty without a sample.
    """

    at_ms: int
    model: str
    users: int
    updates: int = 0
    counts: list[int] = []
    sums: bytes = b""
    inertia: list[float] = []
    sizes: list[int] = []
    sample_hashes: bytes | None = None
    sample_vectors: bytes = b""
    sample_populations: bytes = b""
    sample_segments: bytes = b""
    sample_limits: list[int] = []
    flapping: dict[int, Tally] = {}
    schema: str = ""
    rules: str = ""
    populations: list[int] = []
    scored: bytes = b""

    def pack(self) -> bytes:
        """Bytes for the store; the first eight tell the time without decoding the rest."""
        return self.at_ms.to_bytes(8, "big") + msgspec.msgpack.encode(self)

    @staticmethod
    def unpack(raw: bytes) -> PartitionStatistics:
        return msgspec.msgpack.decode(raw[8:], type=PartitionStatistics)

    def count(self, total: Statistics) -> None:
        """Tell of users counted under the model."""
        self.counts, self.sizes = total.counts.tolist(), total.sizes.tolist()
        self.sums, self.inertia = total.sums.tobytes(), total.inertia.tolist()

    def sampled(self, sample: Sampled) -> None:
        """Tell of a sample."""
        self.sample_hashes, self.sample_vectors = sample.hashes.tobytes(), sample.vectors.tobytes()
        self.sample_populations = sample.populations.astype(np.uint8).tobytes()
        self.sample_segments = sample.segments.astype(np.int32).tobytes()
        self.sample_limits = list(sample.limits)

    def statistics(self) -> Statistics:
        k = len(self.counts)
        return Statistics(
            np.array(self.counts, dtype=np.int64),
            np.frombuffer(self.sums).reshape(k, -1),
            np.array(self.inertia, dtype=float),
            np.array(self.sizes, dtype=np.int64),
        )


class Sampled(NamedTuple):
    """Of each population the users with the smallest hashes, in no order.

    Attributes:
        segments: ids of the segments they are published in, 0 for none.
        limits: of each population, the hash up to which all of its users are here.
    """

    hashes: Hashes
    vectors: Floats
    populations: Ints
    segments: npt.NDArray[np.int32]
    limits: tuple[int, ...]


class Sampling:
    """Gathers a sample of each population, some users at a time (bottom-k, see `clustering`).

    Args:
        thresholds: of each population, the highest hash that is wanted.
        users: wanted of each population.
    """

    def __init__(self, thresholds: Sequence[int], users: int, features: int) -> None:
        self._limits = np.array(thresholds, np.uint64)
        self._users = users
        nobody = np.empty(0, np.uint64), np.empty((0, features)), np.empty(0, np.int64)
        self._parts = [(*nobody, np.empty(0, np.int32))]
        self._held = 0

    def add(
        self,
        hashes: Hashes,
        vectors: Floats,
        populations: Ints,
        segments: npt.NDArray[np.int32],
    ) -> None:
        """Take in those of some users who are wanted."""
        wanted = np.flatnonzero(hashes <= self._limits[populations])
        columns = hashes[wanted], vectors[wanted], populations[wanted], segments[wanted]
        self._parts.append(columns)
        self._held += len(wanted)
        # This happens seldom: each time, most of what is held is let go.
        if self._held > 4 * self._users * len(self._limits):
            self._let_go()

    def taken(self) -> Sampled:
        """The sample of all who were added."""
        self._let_go()
        return Sampled(*self._parts[0], tuple(self._limits.tolist()))

    def _let_go(self) -> None:
        """Keep the smallest hashes of each population; who comes later must have smaller ones."""
        hashes, vectors, populations, segments = (
            np.concatenate(columns) for columns in zip(*self._parts, strict=True)
        )
        kept = []
        for place in range(len(self._limits)):
            members = np.flatnonzero(populations == place)
            chosen = members[smallest_hashes(hashes[members], self._users)]
            if len(chosen) == self._users:
                self._limits[place] = min(self._limits[place], hashes[chosen[-1]])
            kept.append(chosen)
        places = np.concatenate(kept)
        columns = hashes[places], vectors[places], populations[places], segments[places]
        self._parts = [columns]
        self._held = len(places)


@dataclass(frozen=True)
class Sample:
    """A uniform sample of the users of each population: the smallest `sample_users` hashes of each.

    Attributes:
        populations: ``(n,)`` place of each user's population.
        segments: ``(n,)`` id of the segment each is published in, 0 for none.
    """

    hashes: Hashes
    vectors: Floats
    populations: Ints
    segments: npt.NDArray[np.int32]
    at_ms: int

    @staticmethod
    def merge(parts: Sequence[PartitionStatistics], populations: Populations, size: int) -> Sample:
        """The sample of all partitions, by hash."""
        divided = [_divided(part, populations) for part in parts]
        hashes, vectors, places, segments, limits = (
            np.concatenate(columns) for columns in zip(*divided, strict=True)
        )
        at_ms = max(part.at_ms for part in parts)
        return _chosen(Sample(hashes, vectors, places, segments, at_ms), limits, size)

    @staticmethod
    def of(
        hashes: Hashes,
        vectors: Floats,
        populations: Ints,
        segments: npt.NDArray[np.int32],
        at_ms: int,
        size: int,
        limits: Hashes | None = None,
    ) -> Sample:
        """The sample among some users, who are divided already.

        Args:
            limits: ``(n,)`` the hash up to which all are known who were drawn like each; None for
                everyone.
        """
        if limits is None:
            limits = np.full(len(hashes), ALL_HASHES, np.uint64)
        everyone = Sample(hashes, vectors, populations, segments, at_ms)
        return _chosen(everyone, limits, size)

    def __len__(self) -> int:
        return len(self.hashes)

    def among(self, place: int) -> Sample:
        """That of one population."""
        return self.where(np.flatnonzero(self.populations == place))

    def where(self, places: Ints) -> Sample:
        """Some of the users."""
        return Sample(
            self.hashes[places],
            self.vectors[places],
            self.populations[places],
            self.segments[places],
            self.at_ms,
        )


def _divided(
    part: PartitionStatistics, populations: Populations
) -> tuple[Hashes, Floats, Ints, npt.NDArray[np.int32], Hashes]:
    """Hashes, vectors, populations and segments of a sample; and the limit of where each was.

    Where its owner goes by other rules, users are divided anew.
    """
    hashes = np.frombuffer(part.sample_hashes or b"", dtype=np.uint64)
    vectors = np.frombuffer(part.sample_vectors).reshape(-1, len(populations.features))
    was = np.frombuffer(part.sample_populations, np.uint8).astype(np.int64)
    if not len(was):
        was = np.zeros(len(hashes), np.int64)
    segments = np.frombuffer(part.sample_segments, np.int32)
    if not len(segments):
        segments = np.zeros(len(hashes), np.int32)
    limits = np.array(part.sample_limits or [ALL_HASHES], np.uint64)[was]
    if len(populations) == 1:
        places = np.zeros_like(was)
    elif part.rules == populations.digest:
        places = was
    else:
        places = populations.divide(vectors, np.full(len(vectors), NONE))
    return hashes, vectors, places, segments, limits


def _chosen(everyone: Sample, limits: Hashes, size: int) -> Sample:
    """The smallest hashes of each population, up to which all of its users are known.

    Args:
        limits: ``(n,)`` the hash up to which all are known of where each user was found: who were
            divided otherwise there are known up to the lowest of these, or the sample would hold
            more of some than of others.
    """
    kept = [np.empty(0, np.int64)]
    for place in np.unique(everyone.populations).tolist():
        members = np.flatnonzero(everyone.populations == place)
        members = members[everyone.hashes[members] <= limits[members].min()]
        chosen = members[smallest_hashes(everyone.hashes[members], size)]
        kept.append(chosen[living(everyone.vectors[chosen])])
    return everyone.where(np.concatenate(kept))


def merge(parts: Sequence[PartitionStatistics]) -> Statistics | None:
    """Of everyone in the partitions; None if nobody was counted."""
    total: Statistics | None = None
    for part in parts:
        if part.counts:
            total = part.statistics() if total is None else total + part.statistics()
    return total


def stands_for(strata: Ints, totals: Sequence[float]) -> Floats:
    """How many users each one of a sample stands for, ``(n,)``.

    Args:
        strata: ``(n,)`` of each user.
        totals: users of each stratum, sampled or not.
    """
    sampled = np.bincount(strata, minlength=len(totals))
    each: Floats = np.array(totals, float) / np.maximum(sampled, 1)
    return each[strata]
