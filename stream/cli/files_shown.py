"""Shows how far files are on their way to the page.

Comes in: what `stream.wiring.files_shown` tells. Goes out: lines and bars on the terminal, and a browser.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from rich.console import Console

from producers.replay import Progress, ReplayReport, progress_bar
from stream.cli.waiting import catching_up_bar
from stream.insight.waiting import CaughtUp
from stream.safe import safe


class FilesScreen:
    """A terminal; see `stream.wiring.files_shown.Screen`.

    Args:
        browse: opens an address; None only says where it is.
    """

    def __init__(self, console: Console, browse: Callable[[str], object] | None) -> None:
        self._console = console
        self._browse = browse
        self._address = ""

    def doing(self, what: str) -> AbstractContextManager[object]:
        """Say what takes a while."""
        return self._console.status(what)

    def serving(self, address: str) -> None:
        """Say where the page will be."""
        self._address = address

    def sending(self) -> AbstractContextManager[Callable[[Progress], None]]:
        """A bar of rows and events."""
        return progress_bar(self._console)

    def catching_up(self) -> AbstractContextManager[Callable[[CaughtUp], None]]:
        """A bar of records."""
        return catching_up_bar(self._console)

    def ended(self, report: ReplayReport) -> None:
        """What was read, and where it is to be seen; opens it there."""
        for line in report.lines():
            self._console.print(safe(line), soft_wrap=True)
        self._console.print(f"the page: {self._address}   Ctrl-C ends it", soft_wrap=True)
        if self._browse is not None:
            self._browse(self._address)
