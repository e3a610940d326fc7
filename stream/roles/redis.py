"""Keeps a role's state in Redis or Valkey, beside the state of the activity workers.

======================== ======== =================================================================
key                      type     what
======================== ======== =================================================================
``ns:{t}:<role>:...``             meta, users, out, pub: see `redis_partitions`
``ns:{t}:<role>:own``    string   what the role keeps of the partition itself
``ns:<role>:output``     hash     id of the role's topic, and what it lacks
``ns:lease:<role>``      string   token of the role's publisher, with an expiry
======================== ======== =================================================================

``{t}`` is the partition's hash tag, the same for all roles.
"""

from __future__ import annotations

from collections.abc import Sequence

import redis

from stream.roles.state import RoleCommit, RolePosition
from stream.store.redis import key_prefixes
from stream.store.redis_partitions import RedisPartitions, frame


class RedisRoleStore(RedisPartitions[RolePosition, RoleCommit]):
    """`stream.roles.state.RoleStore` on one Redis. Not to be shared between threads."""

    def __init__(
        self,
        client: redis.Redis,
        role: str,
        *,
        namespace: str,
        partitions: int,
        outbox_cap: int = 2_000,
    ) -> None:
        prefixes = [f"{prefix}{role}:" for prefix in key_prefixes(namespace, partitions)]
        super().__init__(
            client, namespace, prefixes, f"{namespace}:{role}:output", outbox_cap,
            RolePosition, ["own"],
        )  # fmt: skip

    def own(self, partition: int) -> bytes:
        found: bytes | None = self._call(self._client.get, self._key(partition, "own"))
        return found or b""

    def _further_frames(self, partition: int, commit: RoleCommit) -> Sequence[bytes]:
        frames = []
        if commit.gone:
            frames.append(frame("HDEL", self._key(partition, "users"), *commit.gone))
        if commit.own is not None:
            frames.append(frame("SET", self._key(partition, "own"), commit.own))
        return frames
