"""Shows files on the page of the API, without a broker or a store of anybody's.

Comes in: settings, files with their mappings, and whoever shows how far it is. Goes out: a pipeline on this
machine, with servers and roles of its own, that takes the files in as a history; it ends when told to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from threading import Event
from typing import Any, Protocol

from consumers.log_end import read_ends, read_log_end
from consumers.native import NativeReader
from producers import topics as topic_plans
from producers.files import Source
from producers.replay import Progress, ReplayReport, replay
from stream.config import Settings
from stream.config_layers import as_file
from stream.insight.waiting import CaughtUp, wait_until_caught_up
from stream.servers import free_port
from stream.units import DAY_MS
from stream.wiring import api
from stream.wiring.own_servers import own_servers
from stream.wiring.processes import Processes
from stream.wiring.roles import ROLES, mark_signer, open_store

PARTITIONS = 4
SHOWN = ("activity", "trainer", "publisher", "api")
"""What is declared of campaigns is left out: nobody is to be written to about a history."""
REFIT_SECONDS = 7 * DAY_MS / 1_000
FIRST_MODEL_USERS = 100
"""A file may have fewer customers than a shop that would run this; with so few there is something to see."""
LOOK_SECONDS = 1.0


class Screen(Protocol):
    """Shows what is going on."""

    def doing(self, what: str) -> AbstractContextManager[object]:
        """Something that takes a while, until it is left."""
        ...

    def serving(self, address: str) -> None:
        """The page is to be seen there."""
        ...

    def sending(self) -> AbstractContextManager[Callable[[Progress], None]]:
        """The files are read and sent, until it is left."""
        ...

    def catching_up(self) -> AbstractContextManager[Callable[[CaughtUp], None]]:
        """The pipeline takes in what was sent, until it is left."""
        ...

    def ended(self, report: ReplayReport) -> None:
        """All of it is to be seen."""
        ...


def own_settings(settings: Settings, bootstrap: str, url: str, port: int) -> Settings:
    """The settings for a history on servers of its own: what is declared of shoppers and segments stays."""
    given = settings.learning.model_fields_set
    learning = settings.learning.model_dump()
    if "refit_seconds" not in given:
        learning["refit_seconds"] = REFIT_SECONDS
    if "first_model_users" not in given:
        learning["first_model_users"] = FIRST_MODEL_USERS
    own: dict[str, Any] = {
        "broker": {"bootstrap": bootstrap},
        "store": {"url": url},
        "topics": {"partitions": PARTITIONS, "input_retention_seconds": 0},
        "clock": {"mode": "watermark", "mark_seconds": "1d"},
        "api": {"port": port},
        "metrics": {},
        "learning": learning,
        "campaigns": [],
        "endpoints": [],
    }
    return Settings.model_validate(settings.model_dump() | own)


def show_files(
    settings: Settings, sources: Sequence[Source], *, stop: Event, screen: Screen
) -> bool:
    """Take files in, and show them until told to stop; leaves no process behind.

    Returns:
        Whether all of it was taken in.

    Raises:
        ConfigError: the API is not installed.
        FileError, MappingError: a file cannot be read, or lacks a column that its mapping needs.
        ProcessEndedError: a role has ended by itself.
    """
    api.see_that_it_is_installed()
    with ExitStack() as stack:
        servers = stack.enter_context(own_servers(screen))
        own = own_settings(settings, servers.bootstrap, servers.store_url, free_port())
        topic_plans.apply(own, create=True)
        file = servers.directory / "shop.toml"
        file.write_text(as_file(own))
        shown = [ROLES[name] for name in SHOWN]
        processes = stack.enter_context(Processes(file, servers.directory, shown))
        screen.serving(api.address_of(own))
        stopped = _Watch(processes, stop)
        report = _send(own, sources, stopped, screen)
        if report.complete:
            mark_ms = read_log_end(own, mark_signer(own)).mark_ms
            store = stack.enter_context(open_store(own))
            with screen.catching_up() as told:
                report.caught_up = wait_until_caught_up(
                    store, read_ends(own), mark_ms, told, stopped
                )
        if not stopped():
            screen.ended(report)
        while not stopped():
            stop.wait(LOOK_SECONDS)
    return bool(report.sent and report.caught_up)


def _send(
    settings: Settings, sources: Sequence[Source], stopped: Callable[[], bool], screen: Screen
) -> ReplayReport:
    (file, mapping), *more = sources
    table = settings.table()
    with screen.sending() as progress:
        return replay(
            settings, file, mapping, mark_signer(settings), more=more, progress=progress,
            watched=table.codes, stop=stopped,
            native=NativeReader(table, settings.worker, settings.money, settings.reviews),
        )  # fmt: skip


class _Watch:
    """Whether it is to stop; looks after the roles now and then, however often it is asked."""

    def __init__(self, processes: Processes, stop: Event) -> None:
        self._processes = processes
        self._stop = stop
        self._looked = 0.0

    def __call__(self) -> bool:
        if (now := time.monotonic()) - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._processes.check()
        return self._stop.is_set()
