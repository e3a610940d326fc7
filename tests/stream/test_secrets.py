"""No secret leaves a command: not by what it shows, and not by how it fails.

Every secret that settings can hold is given, and looked for in all that each command writes.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.cli import main
from stream.cli.invocation import invocation
from stream.cli.terminal import console
from stream.config import Settings
from stream.errors import kafka_client
from stream.store.redis import connect
from stream.wiring import roles
from tests.conftest import NOWHERE

PROPERTIES = [
    "sasl.password", "sasl.oauthbearer.client.secret", "sasl.oauthbearer.config",
    "sasl.jaas.config", "ssl.key.password", "ssl.key.pem", "ssl.keystore.password",
    "ssl.certificate.pem", "ssl.ca.pem", "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.kerberos.kinit.cmd", "sasl.pasword",
]  # fmt: skip
SECRETS = {name: f"hush-{place}-{name}" for place, name in enumerate(PROPERTIES)}
KEY = "hush-namespace-key"
ADDRESSES = [
    "redis://shop:hush-plain@{}/0",
    "redis://:hush-alone@{}/0",
    "redis://shop:hush@with@hush-many@{}/0",
    "redis://shop:hush%40enc%2Foded@{}/0",
    "redis://shop:ok@{}/0?password=hush-query",
    "redis://{}/0?db=1&ssl_password=hush%23encoded",
]
PARTS = ["hush", "with@", "enc/oded", "enc%2Foded", "#encoded", "%23encoded"]


def no_secret_in(said: str) -> None:
    assert said
    for part in PARTS:
        assert part not in said


@pytest.fixture(params=ADDRESSES)
def environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Settings with every secret there is; nobody listens where they lead."""
    given = {
        "SEGSTREAM_STORE__URL": request.param.format(NOWHERE),
        "SEGSTREAM_STORE__NAMESPACE_KEY": KEY,
        "SEGSTREAM_STORE__TIMEOUT_SECONDS": "1s",
        "SEGSTREAM_BROKER__BOOTSTRAP": NOWHERE,
        "SEGSTREAM_BROKER__PROPERTIES": json.dumps(SECRETS),
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., str]]:
    """Runs a command in this process; gives everything it wrote."""
    monkeypatch.setattr(invocation, "out", console(columns=1_000))
    monkeypatch.setattr(invocation, "err", console(stderr=True, columns=1_000))

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["segstream", *arguments])
        with pytest.raises(SystemExit):
            main.main()
        said = capfd.readouterr()
        return said.out + said.err

    yield run
    logging.basicConfig(force=True, handlers=[logging.NullHandler()])


@pytest.mark.usefixtures("environment")
def test_settings_are_shown_without(run: Callable[..., str]) -> None:
    for arguments in ([], ["--json"], ["-v"]):
        said = run("config", "show", *arguments)
        no_secret_in(said)
        assert "namespace_key" in said
        assert said.count("***") > len(SECRETS)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    "wrong",
    [
        "topics.partitions=none", "store.timeout_seconds=soon", "store.url=redis://a:hush@b:port",
        "store.url=redis://a:hush/x@b", 'store.namespace_key=["hush"]', 'store.url={a="hush"}',
        "broker.properties=hush", 'broker.properties={"sasl.password"="hush"',
        'broker.properties={"sasl.password"=["hush"]}', 'broker.properties={sasl.password="hush"}',
        "broker.properties.sasl.password=hush", "store.password=hush", "sasl.password=hush",
        "redis://a:hush@b", "hush",
    ],
)  # fmt: skip
def test_wrong_settings_are_told_without(run: Callable[..., str], wrong: str) -> None:
    no_secret_in(run("config", "show", "--verbose", "--set", wrong))
    no_secret_in(run("--set", wrong, "run", "trainer"))


@pytest.mark.parametrize("torn", ["[broker", "a = \n", "x = 1\nx = 2", "\x00", "[store]\nurl = 3"])
def test_a_settings_file_that_is_torn(run: Callable[..., str], torn: str, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(f'[broker.properties]\n"sasl.password" = "hush"\n{torn}\n')
    no_secret_in(run("-c", str(file), "-v", "config", "show"))


@pytest.mark.usefixtures("environment")
def test_what_a_role_fails_by(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: Settings, *_: Any) -> None:
        """As badly as it can be: with everything it knows."""
        logging.getLogger("stream.role").warning("with %s", settings)
        try:
            connect(settings.store.url, 1.0).ping()
        except Exception as error:
            raise RuntimeError(f"{settings.store!r} {settings.broker.properties}") from error

    monkeypatch.setattr(roles, "run", fail)
    for form in ("json", "text"):
        said = run("run", "trainer", "-v", "--set", f"log.format={form}")
        no_secret_in(said)
        assert "RuntimeError" in said


@pytest.mark.parametrize(
    ("name", "value"),
    [("sasl.mechanism", "hush"), ("ssl.key.pem", "hush"), ("sasl.pasword", "hush-12345"),
     ("socket.timeout.ms", "hush"), ("sasl.oauthbearer.config", "hush-12345")],
)  # fmt: skip
def test_properties_that_the_library_refuses(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    from confluent_kafka import Producer  # noqa: PLC0415 - only here

    def make(settings: Settings, *_: Any) -> None:
        kafka_client(Producer, dict(settings.broker.properties))

    monkeypatch.setattr(roles, "run", make)
    monkeypatch.setenv("SEGSTREAM_BROKER__PROPERTIES", json.dumps({name: value}))
    said = run("run", "trainer", "-v")
    if name in {"sasl.mechanism", "socket.timeout.ms"}:
        assert name in said, "not a secret: it may be told"
    else:
        no_secret_in(said + "-")
