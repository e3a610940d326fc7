"""Shows how far the pipeline is with what the input topics hold.

Comes in: what `stream.insight.waiting` tells. Goes out: a bar on the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from stream.insight.waiting import CaughtUp


@contextmanager
def catching_up_bar(console: Console) -> Iterator[Callable[[CaughtUp], None]]:
    """A bar on the terminal that takes what `wait_until_caught_up` tells."""
    columns = (
        TextColumn("records taken in"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=None, remark="")

        def show(told: CaughtUp) -> None:
            bars.update(task, completed=told.done, total=told.total, remark=told.remark)

        yield show
