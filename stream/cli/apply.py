"""Shows what came of what was applied.

Comes in: facts of `stream.insight.applying`. Goes out: lines.
"""

from __future__ import annotations

from rich.console import Console

from stream.cli.views import lineage_line
from stream.insight.facts import AppliedFacts


def show(console: Console, facts: AppliedFacts) -> None:
    """What came of it, for people; the plan was shown before."""
    if not facts["in_force"]:
        console.print(f"left for the trainer as {facts['tuning']}; its next round takes it up")
        return
    console.print(f"in force with model {facts['model']}, as {facts['tuning']}")
    if facts["lineage"] is None:
        console.print("  lineage: the models topic has it")
        return
    for event in facts["lineage"]:
        console.print(f"  lineage: {lineage_line(event)}")
