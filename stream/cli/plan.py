"""Shows a plan: who would enter and leave which segment.

Comes in: facts of `stream.insight.plan`. Goes out: tables.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stream.cli.views import KIND_STYLES, lineage_line
from stream.insight.facts import PlanFacts, PlannedSegment
from stream.insight.plan import passing


def show(console: Console, facts: PlanFacts) -> None:
    """The plan as tables; `facts_of` has the same."""
    console.print(Text(facts["verdict"], "bold"))
    console.print(
        f"{facts['users']:,} users of {facts['source']} as of {facts['at']}, under model "
        f"{facts['model']}"
        + (f"; estimated from {facts['sampled']:,}" if facts["sampled"] < facts["users"] else "")
    )
    cells = {(cell["from"], cell["to"]): cell["users"] for cell in facts["matrix"]}
    table = Table(title="From (rows) to (columns), users", title_justify="left")
    for column in ("id", "name", "kind"):
        table.add_column(column, overflow="fold")
    table.add_column("before", justify="right")
    for row in facts["after"]:
        table.add_column(f"{row['id']}{'*' if row['new'] else ''}", justify="right")
    for row in facts["before"]:
        counts = [cells.get((row["id"], column["id"]), 0) for column in facts["after"]]
        table.add_row(*_heading(row), *(_cell(count) for count in counts))
    console.print(table)
    table = Table(title="Segments after (* new)", title_justify="left")
    for column in ("id", "name", "kind"):
        table.add_column(column, overflow="fold")
    for column in ("after", "enter", "leave"):
        table.add_column(column, justify="right")
    for row in facts["after"]:
        enter, leave = passing(facts, row["id"])
        table.add_row(*_heading(row), _cell(enter), _cell(leave))
    console.print(table)
    table = Table(title="Kinds, users", title_justify="left")
    table.add_column("kind")
    for column in ("before", "after"):
        table.add_column(column, justify="right")
    for kind, users in facts["kinds"].items():
        styled = Text(kind, style=KIND_STYLES.get(kind, ""))
        table.add_row(styled, f"{users['before']:,}", f"{users['after']:,}")
    console.print(table)
    for event in facts["lineage"]:
        console.print(f"  lineage: {lineage_line(event)}")
    causes = ", ".join(f"{cause} {count:,}" for cause, count in facts["causes"].items())
    console.print(f"change records: {facts['records']:,}" + (f" ({causes})" if causes else ""))
    if facts["due_anyway"]:
        console.print(f"beside these, {facts['due_anyway']:,} users move anyway, change or not")
    for note in facts["notes"]:
        console.print(f"note: {note}", style="dim")


def _heading(row: PlannedSegment) -> tuple[str, str, Text, str]:
    star = "*" if row.get("new") else ""
    kind = Text(row["kind"], style=KIND_STYLES.get(row["kind"], ""))
    return f"{row['id']}{star}", row["name"], kind, f"{row['users']:,}"


def _cell(count: int) -> str:
    return f"{count:,}" if count else "·"
