"""Looks at a store's server: may it hold our state?

Comes in: a client. Goes out: what the server tells of itself as far as this user may ask, and a
sentence if our state would not be safe there. A role asks before it starts, the doctor at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from stream.store.redis_errors import CLUSTERED, failure
from stream.store.state import StoreRefusedError


@dataclass(frozen=True)
class ServerFacts:
    """What a server tells of itself; None where this user may not ask.

    Attributes:
        name: with the version, such as ``Redis 7.0.15``.
        version: of the Redis whose commands it speaks, major and minor.
        cluster: whether it is a node of a Redis Cluster.
        policy: what it does when its memory is full.
        appendonly: whether it keeps an append-only file.
        replicas: how many follow it.
    """

    name: str | None = None
    version: tuple[int, ...] | None = None
    cluster: bool | None = None
    policy: str | None = None
    appendonly: bool | None = None
    replicas: int | None = None


def look(client: redis.Redis) -> ServerFacts:
    """Ask a server what it is, by whichever command this user may give.

    Raises:
        redis.RedisError: it does not answer, or refuses the user altogether.
    """
    told = _ask(client, "INFO")
    if told is not None:
        return ServerFacts(
            *_named(told),
            cluster=_whole(told, "cluster_enabled") == 1,
            policy=_text(told, "maxmemory_policy"),
            appendonly=None if "aof_enabled" not in told else _whole(told, "aof_enabled") == 1,
            replicas=_whole(told, "connected_slaves"),
        )
    hello = _ask(client, "HELLO") or {}
    policy = _ask(client, "CONFIG GET", "maxmemory-policy") or {}
    appendonly = _text(_ask(client, "CONFIG GET", "appendonly") or {}, "appendonly")
    mode = _text(hello, "mode")
    return ServerFacts(
        *_named({f"{_text(hello, 'server')}_version": _text(hello, "version")} if hello else {}),
        cluster=None if mode is None else mode == "cluster",
        policy=_text(policy, "maxmemory-policy"),
        appendonly=None if appendonly is None else appendonly == "yes",
    )


def evicts(policy: str) -> bool:
    """Whether a full store would drop our state by itself.

    The other policies but ``noeviction`` drop keys that have an expiry: of ours only the leases.
    """
    return policy.startswith("allkeys")


def require(client: redis.Redis) -> None:
    """See that a role may start.

    Raises:
        StoreRefusedError: it must not; the message says why and what to do.
        StoreUnavailableError: the store does not answer.
    """
    try:
        facts = look(client)
    except (redis.RedisError, OSError) as error:
        raise failure(error) from error
    if facts.cluster:
        raise StoreRefusedError(CLUSTERED)
    if facts.policy is not None and evicts(facts.policy):
        raise StoreRefusedError(
            f"the store's maxmemory-policy is {facts.policy}: when it is full it would drop users"
            " silently; expected noeviction: redis-cli CONFIG SET maxmemory-policy noeviction, and in"
            " redis.conf"
        )


@dataclass(frozen=True)
class Memory:
    """How full a server is.

    Attributes:
        used, limit: bytes; no limit is 0.
        evicted: keys dropped for want of memory since it was started.
    """

    used: int
    limit: int
    evicted: int


def memory(client: redis.Redis) -> Memory | None:
    """How full a server is; None if this user may not ask.

    Raises:
        StoreUnavailableError: it does not answer.
    """
    try:
        told = _ask(client, "INFO")
    except (redis.RedisError, OSError) as error:
        raise failure(error) from error
    if told is None:
        return None
    return Memory(*(_whole(told, name) for name in ("used_memory", "maxmemory", "evicted_keys")))


def _ask(client: redis.Redis, command: str, *arguments: str) -> Mapping[str, Any] | None:
    """What a command answers, as texts and numbers by name; None if it is not for this user."""
    try:
        found: Any = client.execute_command(command, *arguments)  # type: ignore[no-untyped-call]
    except redis.ResponseError as error:
        # Not allowed, or renamed by whoever runs the server.
        if isinstance(failure(error), StoreRefusedError):
            return None
        raise
    if isinstance(found, (list, tuple)):
        found = dict(zip(found[::2], found[1::2], strict=False))
    return {_decoded(name): _decoded(value) for name, value in found.items()}


def _decoded(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _text(told: Mapping[str, Any], name: str) -> str | None:
    return None if told.get(name) is None else str(told[name])


def _whole(told: Mapping[str, Any], name: str) -> int:
    return int(told.get(name) or 0)


def _named(told: Mapping[str, Any]) -> tuple[str | None, tuple[int, ...] | None]:
    """The server's name, and the version of Redis it speaks, if it tells any."""
    # Valkey calls itself Redis 7.2 as well, for clients that know nothing else.
    valkey, text = _text(told, "valkey_version"), _text(told, "redis_version")
    spoken = text or valkey
    if spoken is None:
        return None, None
    numbers = tuple(int(part) for part in spoken.split(".")[:2] if part.isdigit())
    return (f"Valkey {valkey}" if valkey else f"Redis {text}"), numbers
