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

import msgspec
import redis

from stream.roles.state import RoleCommit, RolePosition
from stream.store.redis import key_prefixes
from stream.store.redis_partitions import RedisPartitions, frame, strange


class RedisRoleStore(RedisPartitions[RoleCommit]):
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
        super().__init__(client, namespace, prefixes, f"{namespace}:{role}:output", outbox_cap)

    def acquire(self, partition: int, token: str) -> tuple[int, RolePosition] | None:
        found = self._acquire(partition, token)
        return None if found is None else (found[0], self._position(partition, found[1]))

    def create(
        self, partition: int, token: str, position: RolePosition, *, replace: bool = False
    ) -> bool:
        start = msgspec.json.encode(position)
        return self._create(partition, token, start, position.output, ["own"], replace=replace)

    def own(self, partition: int) -> bytes:
        found: bytes | None = self._call(self._client.get, self._key(partition, "own"))
        return found or b""

    def position(self, partition: int) -> RolePosition | None:
        found = self._call(self._client.hget, self._key(partition, "meta"), "position")
        return None if found is None else self._position(partition, found)

    def _further_frames(self, partition: int, commit: RoleCommit) -> Sequence[bytes]:
        frames = []
        if commit.gone:
            frames.append(frame("HDEL", self._key(partition, "users"), *commit.gone))
        if commit.own is not None:
            frames.append(frame("SET", self._key(partition, "own"), commit.own))
        return frames

    def _position(self, partition: int, raw: bytes) -> RolePosition:
        try:
            return msgspec.json.decode(raw, type=RolePosition)
        except (msgspec.MsgspecError, TypeError) as error:
            raise strange(self._key(partition, "meta"), error) from None
