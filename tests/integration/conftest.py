"""Runs that several tests look at, each done once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.kafka.server import RealKafka, why_unavailable
from tests import harness
from tests.conftest import unavailable
from tests.harness import ONLINE_RETAIL, SPRING, Reference
from tests.secured import SecuredKafka, secured_kafka


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """Kafka that asks who somebody is, and has lists of who may do what."""
    if why := why_unavailable():
        unavailable(why)
    with secured_kafka(tmp_path_factory.mktemp("certificates")) as server:
        yield server


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
