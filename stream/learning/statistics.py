"""What owners tell the trainer of their users, and the sample that is merged from it.

Comes in: counts, sums and vectors of each partition's users. Goes out: `PartitionStatistics` as bytes
for the store, and one uniform `Sample` of everyone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from stream.clustering import Statistics, living, smallest_hashes
from stream.events import Floats, Hashes
from stream.flapping import Tally


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


def merge(parts: Sequence[PartitionStatistics]) -> Statistics | None:
    """Of everyone in the partitions; None if nobody was counted."""
    total: Statistics | None = None
    for part in parts:
        if part.counts:
            total = part.statistics() if total is None else total + part.statistics()
    return total
