"""Tells what an error of the store's client means to a role: try again later, or never again.

Comes in: an exception of redis-py or of the operating system. Goes out: a `StoreUnavailableError`, which
passes, or a `StoreRefusedError`, which does not.
"""

from __future__ import annotations

import redis
from redis.exceptions import AskError, ClusterCrossSlotError, NoPermissionError

from stream.store.state import StoreRefusedError, StoreUnavailableError

_LASTING_KINDS = (
    redis.AuthenticationError,
    redis.AuthenticationWrongNumberOfArgsError,
    NoPermissionError,
    redis.DataError,
)
"""What no repetition changes."""
_LASTING_WORDS = (
    "WRONGTYPE",
    "WRONGPASS",
    "NOAUTH",
    "NOPERM",
    "NOPROTO",
    "DENIED",
    "unknown command",
    "unknown subcommand",
    "unknown redis command",
    "wrong number of arguments",
    "syntax error",
    "db index is out of range",
    "invalid db index",
    "acl failure in script",
    "the user executing the script can't",
    "error compiling script",
    "error running script",
    "script attempted to access",
    "is not an integer or out of range",
    "could not find suitable shebang",
    "unexpected engine in script shebang",
)
"""Of answers that have no class of their own. Any other is waited out, as those of a proxy are."""
CLUSTERED = (
    "the store is a Redis Cluster, which is not supported yet; set store.url to a Redis, or Valkey,"
    " that is no cluster"
)


def failure(error: Exception, doing: str = "") -> StoreUnavailableError | StoreRefusedError:
    """What an error of the client means to a role: try again later, or never again.

    Args:
        error: of redis-py, or of the operating system.
        doing: what was tried, to stand before the error.
    """
    said = str(error)
    words = said.casefold()
    if isinstance(error, (AskError, ClusterCrossSlotError)) or "cluster mode" in words:
        return StoreRefusedError(f"{doing}{CLUSTERED}")
    if isinstance(error, _LASTING_KINDS):
        return StoreRefusedError(doing + said)
    passing = isinstance(error, (redis.ConnectionError, redis.TimeoutError, OSError))
    if not passing and any(word.casefold() in words for word in _LASTING_WORDS):
        return StoreRefusedError(doing + said)
    return StoreUnavailableError(doing + said)
