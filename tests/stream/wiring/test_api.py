"""Where the page is, and what is said where it is not."""

from __future__ import annotations

import pytest

from stream.config import ConfigError, Settings
from stream.servers import free_port
from stream.wiring.api import (
    NotServedError,
    address_of,
    see_that_it_answers,
    see_that_it_is_installed,
)


def at(host: str, port: int = 8_080) -> str:
    clients = [{"name": "a", "token": "env:A"}]
    told = {"host": host, "port": port, "clients": clients}
    return address_of(Settings.model_validate({"api": told}))


def test_the_page_is_where_this_machine_finds_it() -> None:
    assert at("127.0.0.1") == "http://127.0.0.1:8080"
    assert at("0.0.0.0", 81) == "http://127.0.0.1:81"  # noqa: S104
    assert at("::") == "http://[::1]:8080"
    assert at("::1") == "http://[::1]:8080"
    with pytest.raises(ConfigError, match=r"api\.port = 0"):
        at("127.0.0.1", 0)


def test_where_nobody_answers_it_is_said_who_would() -> None:
    with pytest.raises(NotServedError, match="`segstream run api` serves it"):
        see_that_it_answers(f"http://127.0.0.1:{free_port()}")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    see_that_it_is_installed()
    monkeypatch.setattr("stream.wiring.api.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'segstream\[api\]'"):
        see_that_it_is_installed()
