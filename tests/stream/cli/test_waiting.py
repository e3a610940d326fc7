"""A bar says how far the pipeline is."""

from __future__ import annotations

import os

from rich.console import Console

from stream.cli.waiting import catching_up_bar
from stream.insight.waiting import CaughtUp


def test_the_bar_takes_what_is_told() -> None:
    console = Console(file=open(os.devnull, "w"))  # noqa: SIM115, PTH123 - closed below
    with console.file, catching_up_bar(console) as show:
        show(CaughtUp(1, 3))
        show(CaughtUp(3, 3, "nothing moves"))
