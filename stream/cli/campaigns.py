"""Shows campaigns: as they are declared, and what they would have decided.

Comes in: facts of `stream.insight.trial`. Goes out: tables.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stream.config_layers import as_toml
from stream.insight.facts import CheckFacts, DecisionExample, TrialCampaign, TrialFacts
from stream.units import percent


def show_check(console: Console, facts: CheckFacts) -> None:
    """The campaigns as they were understood."""
    for campaign in facts["campaigns"]:
        console.print(Text.assemble((campaign["name"], "bold"), f"  version {campaign['version']}"))
        for key, value in campaign["declared"].items():
            if key != "name":
                console.print(Text(f"  {key} = {as_toml(value)}"), soft_wrap=True)
        for note in campaign["notes"]:
            console.print(f"  note: {note}", style="yellow")


def show_trial(console: Console, facts: TrialFacts) -> None:
    """A table a campaign: each outcome, how many, and an example."""
    until = f", until {facts['until']}" if facts["until"] else ""
    console.print(
        f"{facts['changes']:,} changes of {facts['users']:,} users, from {facts['source']}{until}"
    )
    for campaign in facts["campaigns"]:
        console.print(_table(campaign))
        if len(campaign["sent_by_arm"]) > 1:
            told = ", ".join(f"{arm} {count:,}" for arm, count in campaign["sent_by_arm"].items())
            console.print(f"  sent by arm: {told}")
    for note in facts["notes"]:
        console.print(f"note: {note}", style="dim")


def _table(campaign: TrialCampaign) -> Table:
    table = Table(title=f"{campaign['name']}, version {campaign['version']}", title_justify="left")
    table.add_column("outcome")
    table.add_column("changes", justify="right")
    table.add_column("share", justify="right")
    table.add_column("an example", overflow="fold")
    for outcome, count in campaign["outcomes"].items():
        if count or outcome == "sent":
            examples = campaign["examples"].get(outcome, [])
            table.add_row(
                Text(outcome, style="bold" if outcome == "sent" else ""),
                f"{count:,}",
                percent(count / campaign["looked_at"] if campaign["looked_at"] else None),
                _example(examples[0]) if examples else "",
            )
    return table


def _example(example: DecisionExample) -> str:
    move = f"{example['kind_from'] or 'nowhere'} to {example['kind_to']}"
    arm = f", {example['arm']}" if example["arm"] else ""
    when = example["decided_at"][:16].replace("T", " ")
    return f"{example['user']}, {move} ({example['cause']}){arm}, {when}"
