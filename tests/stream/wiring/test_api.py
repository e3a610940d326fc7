"""Where the page is, what is said where it is not, and how its feed begins."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from consumers.change_log import Place
from stream.api.recent import Feed, Recent
from stream.config import ConfigError, Settings
from stream.errors import BrokerUnavailableError
from stream.servers import free_port
from stream.wiring import api
from stream.wiring.api import (
    NotServedError,
    address_of,
    see_that_it_answers,
    see_that_it_is_installed,
)
from tests.stream.api.serving import change


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


def test_a_read_that_breaks_off_is_done_again_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop, breaks = Event(), [True]

    class Log:
        """The broker goes while the first read is under way."""

        def __init__(self, _: Settings) -> None:
            pass

        def read(self, *, place: Place, **_: Any) -> Iterator[dict[str, Any]]:
            for number in range(2):
                place.ends[number] = 1
                yield change(number)
                if breaks and breaks.pop():
                    raise BrokerUnavailableError("gone")

        def follow_in_batches(self, *_: Any, **__: Any) -> Iterator[list[dict[str, Any]]]:
            stop.set()
            yield []

    monkeypatch.setattr(api, "ChangeLog", Log)
    monkeypatch.setattr(api, "AGAIN_SECONDS", 0.0)
    feed = Feed(Recent(10), readers=1, waits=10)
    api._follow(Settings(), feed, stop)
    assert [kept.id for kept in feed.recent.changes(10)] == ["change-0", "change-1"]
