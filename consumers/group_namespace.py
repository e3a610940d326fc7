"""Sees that a consumer group serves one namespace.

Comes in: the names that members of the group gave themselves. Goes out: nothing, or a `ConfigError` that
names both namespaces. Of two namespaces in one group, each would get some of the partitions, and neither
would have all of its users.

A member's client id tells its namespace. That is asked, and not whose offsets the group has: those of a
namespace that was given up stay there.
"""

from __future__ import annotations

from collections.abc import Iterable

from stream.config import ConfigError, Settings

_OURS = "segstream."


def client_id(namespace: str) -> str:
    """What a worker of a namespace calls itself to the broker."""
    return _OURS + namespace


def see_group(settings: Settings, members: Iterable[str]) -> None:
    """See that all members of the workers' group serve the namespace of the settings.

    Args:
        settings: name group and namespace.
        members: their client ids; one of another program, or with an id of its own, says nothing.

    Raises:
        ConfigError: one serves another namespace.
    """
    namespace = settings.store.namespace
    others = sorted(
        name.removeprefix(_OURS)
        for name in set(members)
        if name.startswith(_OURS) and name != client_id(namespace)
    )
    if others:
        raise ConfigError(
            f"broker.group = {settings.broker.group}: workers of namespace {others[0]} are members of "
            f"this group, so namespace {namespace} would get only some of the partitions. Give each "
            "namespace a broker.group of its own; or, if this one takes the place of the other, stop "
            "the workers of that (one that has crashed is forgotten after "
            "broker.session_timeout_seconds, or what the broker has set for the group)"
        )
