"""Shows an audit: how much there is to read, how far it is, and what it found.

Comes in: what `consumers.audit` tells while it reads, and its report. Goes out: one line and a bar
on stderr, and a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from consumers.audit.report import Progress


@contextmanager
def progress(console: Console, share: float) -> Iterator[Callable[[Progress], None]]:
    """Say beforehand how much there is to read, then show a bar for each part."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    totals: dict[str, int] = {}
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=console, transient=True) as bars:

        def tell(told: Progress) -> None:
            if told.beforehand:
                totals[told.what] = told.total or 0
                return
            if not tasks:
                parts = ", ".join(f"{total:,} of {topic}" for topic, total in totals.items())
                whole = "" if share >= 1 else f"; {share:.3g} of the users are judged"
                bars.console.print(f"records to read: {parts}{whole}", soft_wrap=True)
            if told.what not in tasks:
                tasks[told.what] = bars.add_task(told.what, total=told.total)
            bars.update(tasks[told.what], completed=told.done, total=told.total)

        yield tell


def show(console: Console, facts: dict[str, Any]) -> None:
    """The report as a table, the first offenders of each check in it."""
    apart = facts["unjudged"] > 0
    table = Table(title="Audit", title_justify="left")
    for column in ("check", "", "counted", *(["not judged"] if apart else []), "note"):
        table.add_column(column, overflow="fold")
    for check in facts["checks"]:
        verdict = Text("ok", "green") if check["ok"] else Text("OFF", "bold red")
        offenders = "; ".join(str(offender) for offender in check["offenders"])
        note = "\n".join(part for part in (check["note"], offenders) if part)
        unjudged = [f"{check['unjudged']:,}"] if apart else []
        table.add_row(check["name"], verdict, f"{check['counted']:,}", *unjudged, note)
    console.print(table)
