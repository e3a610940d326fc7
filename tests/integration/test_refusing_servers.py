"""A server that refuses a password is told of without it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.servers import LocalStore
from stream.store.redis import connect
from tests.conftest import NOWHERE
from tests.harness import DEADLINE_SECONDS, ROOT, clean_environment
from tests.integration.processes import segstream

pytestmark = pytest.mark.servers

WRONG = "hush-wrong"
PROPERTIES = (
    '{"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "shop",'
    f' "sasl.password": "{WRONG}-too"}}'
)


@pytest.fixture(scope="module")
def locked() -> Iterator[LocalStore]:
    """A store that lets in nobody without its password."""
    with LocalStore() as server:
        client = connect(server.url, 5.0)
        client.config_set("requirepass", "hush-right")
        client.close()
        yield server


def environment(url: str, locked: LocalStore) -> dict[str, str]:
    return {
        "SEGSTREAM_STORE__URL": url.format(WRONG, locked.address),
        "SEGSTREAM_BROKER__BOOTSTRAP": NOWHERE,
        "SEGSTREAM_BROKER__PROPERTIES": PROPERTIES,
    }


@pytest.mark.parametrize("url", ["redis://:{}@{}/0", "redis://{1}/0?password={0}"])
def test_a_command_that_is_refused(url: str, locked: LocalStore) -> None:
    said = segstream("segments", "-v", seconds=120.0, **environment(url, locked))
    assert said.code == 1
    assert "hush" not in said.out + said.err
    assert "password" in said.err


def test_the_doctor_is_refused(locked: LocalStore) -> None:
    said = segstream("doctor", seconds=120.0, **environment("redis://shop:{}@{}/0", locked))
    assert said.code == 1
    assert "hush" not in said.out + said.err
    assert locked.address in said.out


@pytest.mark.parametrize("role", ["activity", "trainer"])
def test_a_role_that_is_refused(role: str, locked: LocalStore, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "stream", "run", role, "--verbose"],
            cwd=ROOT,
            env=clean_environment() | environment("redis://shop:{}@{}/0", locked),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while process.poll() is None and "trying again" not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.terminate()
        process.wait(30)
    said = log.read_text()
    assert f'"role": "{role}"' in said
    assert "hush" not in said
