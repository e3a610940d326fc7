"""The guide's first hour, as a new user has it: every command of its page is run, on a file of one's own making."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from stream.servers import LocalBroker, free_port
from tests.harness import DEADLINE_SECONDS, POLL_SECONDS, ROOT, clean_environment
from tests.integration.processes import left_behind

pytestmark = [pytest.mark.servers, pytest.mark.slow]

PAGE = (ROOT / "ops/guide/first-hour.md").read_text(encoding="utf-8")
CUSTOMERS, DAYS = 160, 60


def steps() -> dict[str, tuple[str, list[str]]]:
    """Of each step, by its number: its settings, and its commands."""
    found = {}
    for number, text in re.findall(
        r"^## (\d)\. .*?\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL
    ):
        settings = "\n".join(re.findall(r"^```toml\n(.*?)```", text, re.MULTILINE | re.DOTALL))
        lines = "".join(
            re.findall(r"^```sh\n(.*?)```", text, re.MULTILINE | re.DOTALL)
        ).splitlines()
        commands = [line.partition("#")[0].strip() for line in lines]
        found[number] = settings, [one for one in commands if one.startswith("segstream ")]
    return found


def orders(file: Path) -> None:
    """Some come every week, some have stopped, some came once."""
    draw = random.Random(5)
    begin, rows = datetime(2026, 3, 1, 9, tzinfo=UTC), []
    for number in range(CUSTOMERS):
        at = begin + timedelta(days=draw.random() * DAYS / 2)
        gap, last = ((7, DAYS), (9, DAYS / 2), (3 * DAYS, DAYS))[number % 3]
        while at < begin + timedelta(days=last):
            rows.append((at, f"customer-{number}", draw.lognormvariate(3.5, 0.5)))
            at += timedelta(days=draw.expovariate(1 / gap))
    lines = [f"{who},{at:%Y-%m-%d %H:%M},{amount:.2f}" for at, who, amount in sorted(rows)]
    file.write_text("\n".join(["customer,date,amount", *lines]))


class Terminal:
    """Runs commands in a folder, as they stand on the page."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # A browser that opens nothing.
        self._environment = clean_environment() | {"BROWSER": "true", "PYTHONPATH": str(ROOT)}

    def _arguments(self, command: str) -> list[str]:
        return [sys.executable, "-m", "stream", *command.split()[1:]]

    def run(self, command: str) -> str:
        """To its end; gives what it said."""
        done = subprocess.run(
            self._arguments(command), cwd=self._folder, env=self._environment, text=True,
            capture_output=True, timeout=DEADLINE_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    @contextmanager
    def running(self, command: str) -> Iterator[Callable[[str], re.Match[str]]]:
        """Beside others, until it is left; gives what waits until something was said."""
        log = self._folder / f"{command.replace(' ', '-')}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                self._arguments(command), cwd=self._folder, env=self._environment, stdout=sink,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

        def said(pattern: str) -> re.Match[str]:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while (found := re.search(pattern, log.read_text())) is None:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(POLL_SECONDS)
            return found

        try:
            yield said
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE_SECONDS) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


def asked(address: str) -> Any:
    with urlopen(address, timeout=DEADLINE_SECONDS) as answer:  # noqa: S310 - our own
        return json.loads(answer.read())


def test_an_own_file_is_on_an_own_page(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    orders(tmp_path / "orders.csv")
    _, first = steps()["1"]
    settings, second = steps()["2"]
    (tmp_path / "shop.toml").write_text(settings)
    assert [len(first), len(second)] == [1, 1]
    for command, kinds in ((first[0], set[str]()), (second[0], {"at_risk", "regular"})):
        with terminal.running(command) as said:
            address = said(r"the page: (\S+)")[1]
            found = asked(f"{address}/v1/segments")
            assert found["users"] > CUSTOMERS / 2
            assert kinds <= {segment["kind"] for segment in found["segments"]}
            assert asked(f"{address}/v1/users/customer-0")["segment"] is not None
            assert asked(f"{address}/v1/standing")["attention"] == []
            with urlopen(address, timeout=DEADLINE_SECONDS) as page:  # noqa: S310 - our own
                assert b"<title>" in page.read()
        assert left_behind(tmp_path) == []
    assert len(found["segments"]) == 5


@pytest.fixture
def own_servers(redis_url: str) -> Iterator[dict[str, str]]:
    """What stands for the addresses on the page."""
    with LocalBroker() as broker:
        yield {"kafka:9092": broker.bootstrap, "redis://redis:6379/0": redis_url}


def test_from_there_to_an_own_kafka(own_servers: dict[str, str], tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    orders(tmp_path / "orders.csv")
    words, _ = steps()["2"]
    for number, name in (("3", "history"), ("4", "live")):
        settings, commands = steps()[number]
        port = free_port()
        settings = f"{settings}\n[api]\nport = {port}\n{words}"
        for shown, true in own_servers.items():
            assert shown in settings
            settings = settings.replace(shown, true)
        (tmp_path / f"{name}.toml").write_text(settings)
        told = ""
        with ExitStack() as stack:
            for command in commands:
                if not command.endswith("&"):
                    told = terminal.run(command)
                    continue
                said = stack.enter_context(terminal.running(command.removesuffix("&")))
                if command.endswith("run api &"):
                    said("serving the API")
            if name == "history":
                assert told.startswith(f"opened http://127.0.0.1:{port}")
                found = asked(f"http://127.0.0.1:{port}/v1/segments")
                assert found["users"] > CUSTOMERS / 2
    assert left_behind(tmp_path) == []
