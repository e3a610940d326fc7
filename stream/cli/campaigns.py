"""Shows campaigns: as they are declared, what they would have decided, have decided, and its effect.

Comes in: facts of `stream.insight.trial` and `stream.insight.campaign_facts`. Goes out: tables.
"""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stream.config_layers import as_toml
from stream.insight.facts import (
    CampaignsFacts,
    CampaignState,
    CheckFacts,
    ComparisonFacts,
    ControlFacts,
    DecisionExample,
    DifferenceFacts,
    EffectFacts,
    TrialCampaign,
    TrialFacts,
)
from stream.units import percent, readable_duration

VERDICTS = {"helps": "helps", "harms": "harms", "not_enough_yet": "not enough yet"}


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
    before, after, level = example["kind_from"], example["kind_to"], ""
    if example["level"] is not None:
        before, after, level = example["step_from"], example["step_to"], f"{example['level']} "
    move = f"{level}{before or 'nowhere'} to {after or 'nowhere'}"
    arm = f", {example['arm']}" if example["arm"] else ""
    when = example["decided_at"][:16].replace("T", " ")
    return f"{example['user']}, {move} ({example['cause']}){arm}, {when}"


def show_list(console: Console, facts: CampaignsFacts) -> None:
    """A line a campaign and arm: how many were sent to, and whether it helped."""
    if not facts["campaigns"]:
        console.print("no campaigns")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("campaign", "arm", "verdict"):
        table.add_column(name)
    for name in ("sent", "measured", "held out", "conversion", "holds at all looks"):
        table.add_column(name, justify="right")
    for campaign in facts["campaigns"]:
        told = campaign["name"] + (" (paused)" if campaign["paused"] else "")
        told += "" if campaign["version"] else " (declared no more)"
        sent = f"{campaign['outcomes'].get('sent', 0):,}"
        effects = [one for one in campaign["effects"] if one["declared"]]
        comparisons = effects[0]["comparisons"] if effects else []
        if not comparisons:
            table.add_row(told, "", "not measured", sent)
        for comparison in comparisons:
            table.add_row(told, *_line(comparison, sent))
            told, sent = "", ""
    console.print(table)


def _line(one: ComparisonFacts, sent: str) -> tuple[str, ...]:
    conversion = one["conversion"]
    return (
        one["arm"],
        VERDICTS[one["verdict"]],
        sent,
        f"{one['users']:,}",
        f"{one['held_out_users']:,}",
        _points(conversion["difference"]) if conversion["sequence"] else "",
        _interval(conversion["sequence"], _points),
    )


def show_one(console: Console, campaign: CampaignState) -> None:
    """Everything that is known of a campaign."""
    state = "paused" if campaign["paused"] else "running"
    version = f"version {campaign['version']}" if campaign["version"] else "declared no more"
    console.print(Text.assemble((campaign["name"], "bold"), f"  {version}, {state}"))
    table = Table(box=None, pad_edge=False)
    table.add_column("outcome")
    table.add_column("changes", justify="right")
    for outcome, count in campaign["outcomes"].items():
        table.add_row(outcome, f"{count:,}")
    table.add_row("looked at", f"{campaign['looked_at']:,}", style="bold")
    console.print(table)
    for effect in campaign["effects"]:
        _show_effect(console, effect)
    if not campaign["effects"]:
        console.print("nothing is measured: no goal is declared")


def _show_effect(console: Console, effect: EffectFacts) -> None:
    told = "as declared now" if effect["declared"] else "as it was declared"
    console.print(
        f"\nwithin {readable_duration(effect['within_seconds'])}, version {effect['version']}, {told}",
        style="bold",
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("arm")
    for name in ("over", "converted", "active", "revenue", "window open"):
        table.add_column(name, justify="right")
    for arm in effect["arms"]:
        table.add_row(
            arm["arm"],
            f"{arm['users']:,}",
            f"{arm['converted']:,}",
            f"{arm['active']:,}",
            f"{arm['revenue']:,.2f}",
            f"{arm['still_open']:,}",
        )
    console.print(table if effect["arms"] else "nobody was decided for yet")
    if not effect["comparisons"]:
        console.print("without a holdout there is nothing to compare with")
    for comparison in effect["comparisons"]:
        _show_comparison(console, comparison, effect["hope"])
    if not effect["as_declared"]:
        console.print(
            "users stand in their arms in other shares than declared: believe nothing of this until it "
            f"is known why (evidence {effect['ratio_evidence']:,.0f})",
            style="bold red",
        )


def _show_comparison(console: Console, one: ComparisonFacts, hope: float) -> None:
    console.print(
        Text.assemble(
            f"{one['arm']} against holdout: ",
            (VERDICTS[one["verdict"]], "bold"),
            f"{_missing(one, hope)}",
        )
    )
    table = Table(box=None, pad_edge=False)
    for name in ("", "treated", "held out", "difference", "holds at all looks", "at one look"):
        table.add_column(name, justify="right" if name else "left")
    rows: list[tuple[str, DifferenceFacts, Callable[[float], str], Callable[[float], str]]] = [
        ("conversion", one["conversion"], _share, _points),
        ("active", one["active"], _share, _points),
        ("revenue a user", one["revenue"], _money, _signed_money),
    ]
    for name, difference, plain, signed in rows:
        table.add_row(
            name,
            plain(difference["treated"]),
            plain(difference["held_out"]),
            signed(difference["difference"]),
            _interval(difference["sequence"], signed),
            _interval(difference["plain"], signed),
        )
    console.print(table)


def _missing(one: ComparisonFacts, hope: float) -> str:
    if one["missing"] is None:
        return ", too few users for any interval"
    if one["missing"] and one["verdict"] == "not_enough_yet":
        return f", {one['missing']:,} users more until an effect of {_points(hope)} is seen"
    return ""


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:+.1f} %"


def _money(value: float) -> str:
    return f"{value:,.2f}"


def _signed_money(value: float) -> str:
    return f"{value:+,.2f}"


def _interval(ends: list[float] | None, told: Callable[[float], str]) -> str:
    return "-" if ends is None else f"{told(ends[0])} .. {told(ends[1])}"


def show_control(console: Console, facts: ControlFacts) -> None:
    """What was said, and that the role obeys once it has read it."""
    record = facts["record"]
    if "campaign" in record:
        done = "is paused" if record["paused"] else "goes on"
        console.print(f"{record['campaign']} {done} as soon as the role of campaigns has read it")
    else:
        done = "gets nothing any more" if record["suppressed"] else "may get something again"
        console.print(f"{record['user']} {done} as soon as the roles have read it")
