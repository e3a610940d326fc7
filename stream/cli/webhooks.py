"""Shows deliveries that were given up, and what became of those sent again.

Comes in: facts of `stream.wiring.parked`. Goes out: the same in lines for people.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from stream.wiring.parked import ParkedFacts, ReplayedFacts

_OTHERS = {
    "sent_before": "were asked for before; --again asks once more",
    "too_late": "are of triggers that are no longer valid; --late sends them all the same",
    "undeclared": "are of endpoints that are declared no more",
    "beyond_limit": "are left, because of --limit",
}


def show_parked(out: Console, facts: ParkedFacts) -> None:
    """A table: each endpoint and reason, how many, and an example."""
    if not facts["letters"]:
        out.print("no parked deliveries")
        return
    shown = Table(box=None, pad_edge=False)
    for name in ("endpoint", "reason"):
        shown.add_column(name)
    for name in ("letters", "replayed"):
        shown.add_column(name, justify="right")
    for name in ("first parked", "last parked", "last attempt", "example"):
        shown.add_column(name, overflow="fold")
    for one in facts["reasons"]:
        shown.add_row(
            one["endpoint"],
            one["reason"],
            f"{one['letters']:,}",
            f"{one['replayed']:,}",
            one["first"],
            one["last"],
            one["detail"],
            one["example"],
        )
    out.print(shown)


def show_replay(out: Console, facts: ReplayedFacts) -> None:
    """How many are sent again, and what became of the others."""
    told = ", ".join(f"{count:,} to {name}" for name, count in sorted(facts["endpoints"].items()))
    if facts["would_ask"]:
        out.print(
            f"{facts['would_ask']:,} deliveries would be sent again, {told}; nothing was asked for"
        )
    else:
        out.print(
            f"the role of webhooks sends {facts['asked']:,} deliveries again{told and f': {told}'}"
        )
    counts: Mapping[str, object] = facts
    for name, why in _OTHERS.items():
        if counts[name]:
            out.print(f"{counts[name]:,} {why}")
