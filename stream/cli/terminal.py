"""The two streams that commands write to, and the only way to them.

Comes in: facts of a command. Goes out: one line of JSON, or what people read, with every text that
others chose made safe.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import IO, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from stream.safe import safe, safe_facts

PIPED_COLUMNS = 200
"""Whoever reads a pipe has no window to fold lines for."""


class SafeConsole(Console):
    """A console that lets nothing through that a terminal would obey, but its own styling.

    It cannot tell a new line in a name from one between two lines; `show` sees to that.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control is not None:
                yield segment
            else:
                text = "\n".join(map(safe, segment.text.split("\n")))
                yield segment if text == segment.text else Segment(text, segment.style)


def console(
    *, stderr: bool = False, file: IO[str] | None = None, columns: int | None = None
) -> SafeConsole:
    """Names, paths and settings are shown as they are: brackets in them are no markup."""
    stream = sys.stderr if stderr else sys.stdout
    if columns is None and not stream.isatty() and "COLUMNS" not in os.environ:
        columns = PIPED_COLUMNS
    return SafeConsole(
        stderr=stderr, file=file, width=columns, highlight=False, markup=False, emoji=False
    )


T = TypeVar("T")


def show(facts: T, as_json: bool, for_people: Callable[[T], None]) -> None:
    """Tell what a command found out: as JSON as it is, to people safely."""
    if as_json:
        print(json.dumps(facts, default=str), flush=True)
    else:
        for_people(safe_facts(facts))
