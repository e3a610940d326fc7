"""Servers for the contracts of stores."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest
import redis

from stream.servers import LocalStore
from stream.store.redis import RedisStore, connect
from tests.contracts.parts import CAP, PARTITIONS


@pytest.fixture
def client(store_server: LocalStore) -> Iterator[redis.Redis]:
    """A bystander with a connection of its own."""
    made = connect(store_server.url, 5.0)
    yield made
    made.config_set("maxmemory", 0)
    made.close()


@pytest.fixture
def open_store(store_server: LocalStore, client: redis.Redis) -> Iterator[Callable[[], RedisStore]]:
    """Opens stores under one namespace that no other test has, each with its own connections."""
    namespace = f"t{secrets.token_hex(6)}"
    opened: list[RedisStore] = []

    def open_one() -> RedisStore:
        store = RedisStore(
            connect(store_server.url, 5.0),
            namespace=namespace,
            partitions=PARTITIONS,
            outbox_cap=CAP,
        )
        opened.append(store)
        return store

    yield open_one
    client.config_set("maxmemory", 0)
    for store in opened:
        store.close()
