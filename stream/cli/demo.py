"""Shows the demo: a live picture while it runs, and a summary at its end.

Comes in: facts of each moment, and of the run. Goes out: what people see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from stream.cli import views
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.insight.facts import EffectBesideTruth, MomentFacts, RunFacts
from stream.safe import safe_facts
from stream.units import readable_duration


class LiveScreen:
    """The demo on a terminal; see `stream.wiring.demo.Screen`.

    Args:
        ended: shows the facts at its end.
    """

    def __init__(self, console: Console, ended: Callable[[RunFacts], None]) -> None:
        self.ended = ended
        self._console = console

    def doing(self, what: str) -> AbstractContextManager[object]:
        """Say what takes a while."""
        return self._console.status(what)

    @contextmanager
    def watching(self, table: FeatureTable) -> Iterator[Callable[[MomentFacts], None]]:
        """Draw each moment over the last one; nothing of it stays."""
        with Live(console=self._console, refresh_per_second=4, transient=True) as live:
            yield lambda facts: live.update(_picture(safe_facts(facts), table, self._console.width))

    def serving(self, address: str) -> None:
        """Say where the page is."""
        self._console.print(f"the page: {address}", soft_wrap=True)

    def kept(self, file: Path) -> None:
        """Say how to look around."""
        self._console.print(
            f"broker and store are kept; look around with: segstream -c {file} segments\n"
            "The shop's clock stands still, and nobody learns any more. Ctrl-C ends it.",
            soft_wrap=True,
        )


def _picture(facts: MomentFacts, table: FeatureTable, columns: int) -> Group:
    line = Text.assemble(
        ("segstream demo  ", "bold"),
        f"shop time {facts['shop_time'][:16].replace('T', ' ')}   ",
        (f"{facts['events_per_second']:,.0f}", "bold cyan"),
        " events/s   ",
        (f"{facts['events']:,}", "bold"),
        " so far   lag ",
        (readable_duration(facts["behind_seconds"]), "bold"),
        " of shop time   ",
        (f"{facts['changes']:,}", "bold"),
        " changes   ",
        (f"{facts['churn_risk_moves']:,}", "bold yellow"),
        " churn-risk moves",
    )
    moves = [views.change_line(change) for change in facts["last_moves"]]
    for move in moves:
        move.no_wrap, move.overflow = True, "ellipsis"
    parts: list[Any] = [line, Panel(Group(*moves), title="last moves", title_align="left")]
    if (segments := facts["segment_list"]) is None:
        parts.append(Text("no model yet: shoppers are still coming in", style="dim"))
    else:
        parts.append(Text(f"{segments['users']:,} users"))
        parts.append(views.segments_table(segments, table, columns))
    return Group(*parts)


def _effect_line(effect: EffectBesideTruth) -> str:
    """What was measured of a campaign, beside what is true."""
    told = f"campaign {effect['campaign']}: {effect['verdict'].replace('_', ' ')}"
    if effect["sequence"] is None:
        return f"{told}, for {effect['users']:,} users are too few"
    low, high = (f"{100 * end:+.1f}" for end in effect["sequence"])
    true = "unknown" if effect["true"] is None else f"{100 * effect['true']:+.1f} %"
    return f"{told}; conversion measured {100 * effect['measured']:+.1f} % ({low} .. {high}), true {true}"


def _verdict(facts: RunFacts) -> str:
    if not all(check["ok"] for check in facts["checks"]):
        return "AUDIT FOUND FAULTS"
    if facts["complete"] and not facts["caught_up"]:
        return (
            "THE ROLES DID NOT KEEP UP: what they did is audited, the rest is not (a busy machine?)"
        )
    return "audit clean"


def show_summary(console: Console, facts: RunFacts) -> None:
    """The demo's end, for people."""
    if "segment_list" in facts:
        table = FeatureTable(DEFAULT_FEATURES)
        console.print(views.segments_table(facts["segment_list"], table, console.width))
    causes = ", ".join(f"{n:,} {c.replace('_', ' ')}" for c, n in facts["changes_by_cause"].items())
    lines = [
        (
            f"{facts['events']:,} events of {facts['users']:,} shoppers in {facts['seconds']:.0f} s "
            f"({facts['events_per_second']:,.0f} a second)"
        ),
        f"{facts['changes']:,} changes: {causes}",
        f"{facts['churn_risk_moves']:,} moves into churn risk",
    ]
    half, most = facts["change_latency_p50_seconds"], facts["change_latency_p99_seconds"]
    if half is not None and most is not None:
        lines.append(
            f"from mark to change delivered: {readable_duration(half)} (median), "
            f"{readable_duration(most)} (99 %)"
        )
    lines += map(_effect_line, facts.get("effects", []))
    lines.append(
        f"audit: {facts['lost']} lost, {facts['duplicated']} duplicated, "
        f"{facts['rejected']:,} rejected"
    )
    verdict = Text(_verdict(facts))
    verdict.stylize("bold green" if facts["ok"] else "bold red")
    console.print(Panel("\n".join(lines), title="summary", title_align="left"))
    for check in facts["checks"]:
        if not check["ok"]:
            console.print(f"  {check['name']}: {check['offenders']} {check['note']}")
    console.print(verdict)
