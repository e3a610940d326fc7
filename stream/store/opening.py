"""Opens the store that settings name, for a role or for whoever looks.

Comes in: settings. Goes out: a store on a connection of its own, once it is seen that the server is safe
and that the settings are those of the namespace.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stream import fitness
from stream.config import Settings
from stream.namespace import see_namespace, see_partitions
from stream.store.redis import RedisStore, connect


@contextmanager
def open_store(settings: Settings, *, serving: bool = False) -> Iterator[RedisStore]:
    """A store connection of one's own.

    Args:
        serving: for a role, which does not start where its state would not be safe.

    Raises:
        StoreRefusedError: it would not be.
        ConfigError: the settings are not those of the namespace.
        StoreUnavailableError: whether it would be cannot be asked: there is no answer.
    """
    client = connect(settings.store.url, settings.store.timeout_seconds)
    if serving:
        fitness.require(client)
    store = RedisStore(
        client,
        namespace=settings.store.namespace,
        partitions=settings.topics.partitions,
        outbox_cap=settings.store.outbox_cap,
        namespace_key=settings.store.namespace_key,
    )
    try:
        if serving:
            see_partitions(settings, store.partitions())
        else:
            see_namespace(settings, store)
        yield store
    finally:
        store.close()
