"""Runs that several tests look at, each done once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.kafka.server import RealKafka
from tests import harness
from tests.conftest import unavailable
from tests.harness import ONLINE_RETAIL, SPRING, Reference


@pytest.fixture(scope="session")
def online_retail() -> Path:
    """A year of a real shop, as downloaded."""
    return file(ONLINE_RETAIL)


@pytest.fixture(scope="session")
def year(
    kafka: RealKafka, redis_url: str, online_retail: Path, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    """The whole year, one worker, nothing in the way."""
    found = harness.history(kafka.bootstrap, online_retail.name, "online_retail", None)
    return harness.reference(found, redis_url, tmp_path_factory.mktemp("year"))


@pytest.fixture(scope="session")
def spring(
    kafka: RealKafka, redis_url: str, online_retail: Path, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    """The year's first five months, one worker, nothing in the way."""
    found = harness.history(kafka.bootstrap, online_retail.name, "online_retail", SPRING)
    return harness.reference(found, redis_url, tmp_path_factory.mktemp("spring"))


def file(name: str) -> Path:
    """A file of real history; without it the test is skipped, or fails where it should be."""
    found = harness.file_or_none(name)
    if found is None:
        unavailable(f"needs {name} in ../shared/data, beside the project")
    return found
