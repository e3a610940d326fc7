"""Servers that a test may stop, and the undisturbed run that every disturbed one is held to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ops.kafka.server import RealKafka, why_unavailable
from stream.servers import LocalStore, free_port, redis_binary
from tests.conftest import unavailable
from tests.integration.conftest import online_retail, spring

__all__ = ["online_retail", "own_kafka", "own_store", "spring"]


@pytest.fixture
def own_kafka() -> Iterator[RealKafka]:
    """A Kafka that may be stopped; not started yet, its port known."""
    if why := why_unavailable():
        unavailable(why)
    server = RealKafka(port=free_port())
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def own_store() -> Iterator[LocalStore]:
    """A store that may be stopped; not started yet, its port known."""
    server = LocalStore(binary=redis_binary(), appendonly=True, port=free_port())
    try:
        yield server
    finally:
        server.close()
