"""One API for all that only read, and what it takes to make another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stream.store.memory import MemoryStore
from tests.stream.api.serving import Served, change, filled, serving, settings_of


@pytest.fixture(scope="session")
def api_store() -> MemoryStore:
    """A store that nobody changes."""
    return filled(settings_of())


@pytest.fixture(scope="module")
def served(api_store: MemoryStore) -> Iterator[Served]:
    """With some changes."""
    with serving(settings_of(), api_store) as running:
        running.feed.tell(change(number, f"user-{number % 3}") for number in range(12))
        running.feed.state = "up"
        yield running
